//! Kerl: Keccak-384 over balanced trits (machines, section 13).

use sha3::{Digest, Keccak384};

use crate::trytes::{HASH_TRITS, Trits};

/// Bytes of one block: a signed integer of 384 bits.
const BLOCK_BYTES: usize = 48;
/// Words that hold any 243 trits.
const WORDS: usize = 13;
/// Words of a block.
const BLOCK_WORDS: usize = 12;
/// Trits that go through a word at once: 3²⁰ fits into 32 bits.
const CHUNK_TRITS: usize = 20;

/// A little-endian number.
type Number = [u32; WORDS];

/// What every digit −1 of a number of 243 trits stands for, as digits 0…2: (3²⁴³ − 1) / 2.
const HALF: Number = half();

/// The sponge.
#[derive(Default)]
pub(crate) struct Kerl {
    keccak: Keccak384,
}

impl Kerl {
    /// Takes one block in.
    pub(crate) fn absorb(&mut self, trits: &Trits) {
        self.keccak.update(bytes_of(trits));
    }

    /// Gives one block out. The next one is the hash of this one's complement.
    pub(crate) fn squeeze(&mut self) -> Trits {
        let digest: [u8; BLOCK_BYTES] = self.keccak.finalize_reset().into();
        self.keccak.update(digest.map(|byte| !byte));
        trits_of(&digest)
    }

    /// The hash of one block.
    pub(crate) fn hash(trits: &Trits) -> Trits {
        let mut sponge = Kerl::default();
        sponge.absorb(trits);
        sponge.squeeze()
    }
}

const fn half() -> Number {
    let mut number = [0; WORDS];
    let mut i = 0;
    while i < HASH_TRITS {
        number = scaled(number, 3, 1);
        i += 1;
    }
    number
}

/// `number · factor + plus`, without what does not fit.
const fn scaled(mut number: Number, factor: u32, plus: u32) -> Number {
    let mut carry = plus as u64;
    let mut i = 0;
    while i < WORDS {
        carry += number[i] as u64 * factor as u64;
        number[i] = carry as u32;
        carry >>= 32;
        i += 1;
    }
    number
}

fn bytes_of(trits: &Trits) -> [u8; BLOCK_BYTES] {
    let mut number = [0; WORDS];
    // The last trit of a block does not count.
    let digit = |place: usize| {
        let trit = if place == HASH_TRITS - 1 {
            0
        } else {
            trits[place]
        };
        u32::from((trit + 1).unsigned_abs())
    };
    let mut end = HASH_TRITS;
    while end > 0 {
        let begin = (end - 1) / CHUNK_TRITS * CHUNK_TRITS;
        let (mut value, mut scale) = (0, 1);
        for place in (begin..end).rev() {
            value = value * 3 + digit(place);
            scale *= 3;
        }
        number = scaled(number, scale, value);
        end = begin;
    }
    let mut borrow = false;
    let mut bytes = [0; BLOCK_BYTES];
    for i in 0..BLOCK_WORDS {
        let (less, first) = number[i].overflowing_sub(HALF[i]);
        let (less, second) = less.overflowing_sub(u32::from(borrow));
        borrow = first || second;
        let place = BLOCK_BYTES - 4 * (i + 1);
        bytes[place..place + 4].copy_from_slice(&less.to_be_bytes());
    }
    bytes
}

fn trits_of(bytes: &[u8; BLOCK_BYTES]) -> Trits {
    const CHUNK: u64 = 3_u64.pow(CHUNK_TRITS as u32);
    let mut number = [0; WORDS];
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { u32::MAX };
    let mut carry = 0;
    for i in 0..WORDS {
        let word = match i.checked_sub(BLOCK_WORDS) {
            Some(_) => sign,
            None => {
                let place = BLOCK_BYTES - 4 * (i + 1);
                u32::from_be_bytes(bytes[place..place + 4].try_into().expect("four bytes"))
            }
        };
        carry += u64::from(word) + u64::from(HALF[i]);
        number[i] = carry as u32;
        carry >>= 32;
    }
    let mut trits = [0; HASH_TRITS];
    for chunk in trits.chunks_mut(CHUNK_TRITS) {
        let mut rest = 0_u64;
        for word in number.iter_mut().rev() {
            rest = (rest << 32) | u64::from(*word);
            *word = (rest / CHUNK) as u32;
            rest %= CHUNK;
        }
        for trit in chunk {
            *trit = (rest % 3) as i8 - 1;
            rest /= 3;
        }
    }
    trits[HASH_TRITS - 1] = 0;
    trits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_survives_its_bytes() {
        let mut trits = [0; HASH_TRITS];
        let mut state = 7_u64;
        for _ in 0..200 {
            for trit in &mut trits[..HASH_TRITS - 1] {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *trit = ((state >> 60) % 3) as i8 - 1;
            }
            assert_eq!(trits_of(&bytes_of(&trits)), trits);
        }
    }
}
