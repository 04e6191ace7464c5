//! The seed: the one secret of a machine, from which its keys and addresses follow.

use std::fmt;

use daybook_ledger::SigningKey;
use sha3::{Digest, Sha3_256};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    address::{Address, SECURITY},
    trytes::{HASH_TRITS, HASH_TRYTES, Trits, are_trytes, letter, trits_of},
};

/// What the hash of a receiving key begins with, so that no other use of a seed gives the same bytes.
const KEY_DOMAIN: &[u8] = b"daybook machine receiving key v1";
/// What the hash of a seed made of other key bytes begins with.
const SEED_DOMAIN: &[u8] = b"daybook machine seed v1";
/// Seeds closer than this share addresses: the index of a key is added to the seed, and an index may
/// be as large (section 12, defect 3).
const DISTANCE_MIN: u64 = 1 << 32;
/// Characters of a public key's text that the ledger's schema takes.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 43..=44;

/// The secret of a machine: 81 trytes. Wiped when dropped; never shown.
pub struct Seed {
    trits: Trits,
    text: Zeroizing<String>,
}

/// The text is no seed. The text itself is not repeated: it is nearly a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASeed {
    /// Another length.
    #[error("a seed has exactly 81 characters, this one has {0}")]
    Length(usize),
    /// Another character.
    #[error("a seed consists of the characters 9 and A to Z")]
    Letters,
}

/// Two seeds so close that their addresses are the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the seeds of machines {first} and {second} are closer than 2^32 to each other: their addresses overlap"
)]
pub struct TooClose {
    /// The first of the two, from 0.
    pub first: usize,
    /// The second.
    pub second: usize,
}

impl Seed {
    /// Reads a seed.
    ///
    /// # Errors
    /// [`NotASeed`] unless it is exactly 81 characters of `9` and `A` to `Z`.
    pub fn parse(text: &str) -> Result<Seed, NotASeed> {
        if text.chars().count() != HASH_TRYTES {
            return Err(NotASeed::Length(text.chars().count()));
        }
        if !are_trytes(text) {
            return Err(NotASeed::Letters);
        }
        Ok(Seed {
            trits: trits_of(text).expect("81 trytes"),
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// The seed that follows from other secret bytes, such as those of a key file.
    pub fn from_secret(secret: &[u8]) -> Seed {
        let mut text = Zeroizing::new(String::with_capacity(HASH_TRYTES));
        let mut counter = 0_u32;
        while text.len() < HASH_TRYTES {
            let mut block: [u8; 32] = Sha3_256::new()
                .chain_update(SEED_DOMAIN)
                .chain_update(counter.to_be_bytes())
                .chain_update(secret)
                .finalize()
                .into();
            // 243 is nine times 27: larger bytes would prefer some letters.
            for &byte in block.iter().filter(|byte| **byte < 243) {
                if text.len() < HASH_TRYTES {
                    text.push(letter(byte % 27));
                }
            }
            block.zeroize();
            counter += 1;
        }
        Seed::parse(&text).expect("81 letters of the alphabet")
    }

    /// The address of an index.
    pub fn address(&self, index: u64) -> Address {
        Address::derive(&self.trits, index, SECURITY)
    }

    /// The ledger key of an index.
    pub fn key(&self, index: u64) -> SigningKey {
        let mut attempt = 0_u32;
        loop {
            let mut bytes: Zeroizing<[u8; 32]> = Zeroizing::new(
                Sha3_256::new()
                    .chain_update(KEY_DOMAIN)
                    .chain_update(index.to_be_bytes())
                    .chain_update(attempt.to_be_bytes())
                    .chain_update(self.text.as_bytes())
                    .finalize()
                    .into(),
            );
            let key = SigningKey::from_seed(*bytes);
            bytes.zeroize();
            // One key in thousands has a text that the ledger's schema does not take.
            if KEY_CHARS.contains(&key.public_key().to_string().len()) {
                return key;
            }
            attempt += 1;
        }
    }

    /// Makes sure that the seeds of machines that run together share no addresses.
    ///
    /// # Errors
    /// [`TooClose`] names the first two that do.
    pub fn check_apart(seeds: &[&Seed]) -> Result<(), TooClose> {
        for (second, seed) in seeds.iter().enumerate() {
            for (first, other) in seeds[..second].iter().enumerate() {
                if distance(&seed.trits, &other.trits).is_some_and(|d| d < DISTANCE_MIN) {
                    return Err(TooClose { first, second });
                }
            }
        }
        Ok(())
    }
}

impl Clone for Seed {
    fn clone(&self) -> Seed {
        Seed {
            trits: self.trits,
            text: self.text.clone(),
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.trits.zeroize();
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// How far two seeds are apart as numbers; `None` beyond 64 bits. The last trit does not count, because
/// no hash takes it in.
fn distance(a: &Trits, b: &Trits) -> Option<u64> {
    let mut difference = [0_i8; HASH_TRITS - 1];
    let mut carry = 0;
    for (place, digit) in difference.iter_mut().enumerate() {
        let value = a[place] - b[place] + carry;
        *digit = (value + 1).rem_euclid(3) - 1;
        carry = (value - *digit) / 3;
    }
    let mut sum = 0_i128;
    for &digit in difference.iter().rev() {
        sum = sum.checked_mul(3)?.checked_add(i128::from(digit))?;
    }
    u64::try_from(sum.unsigned_abs()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_seed_is_exactly_81_trytes_and_is_never_repeated() {
        for text in [
            "9".repeat(80),
            "9".repeat(82),
            "z".repeat(81),
            "é".repeat(81),
        ] {
            let error = Seed::parse(&text).unwrap_err();
            assert!(!error.to_string().contains(&text));
        }
        let seed = Seed::parse(&"Q".repeat(81)).unwrap();
        assert!(!format!("{seed:?}").contains('Q'));
    }

    #[test]
    fn seeds_that_differ_only_in_the_first_tryte_are_too_close() {
        let seed = |first: &str| Seed::parse(&format!("{first}{}", "TEST".repeat(20))).unwrap();
        let (wind, robot) = (seed("A"), seed("B"));
        assert_eq!(wind.address(1), robot.address(0));
        assert_eq!(
            Seed::check_apart(&[&wind, &seed("9"), &robot]),
            Err(TooClose {
                first: 0,
                second: 1
            })
        );
        // Twenty-one trits are more than 2^32 is.
        let far = Seed::parse(&format!("{}B{}", "A".repeat(7), "9".repeat(73))).unwrap();
        let near = Seed::parse(&format!("{}B{}", "A".repeat(6), "9".repeat(74))).unwrap();
        let nines = Seed::parse(&"9".repeat(81)).unwrap();
        Seed::check_apart(&[&nines, &far]).unwrap();
        Seed::check_apart(&[&nines, &near]).unwrap_err();
        Seed::check_apart(&[&wind, &wind.clone()]).unwrap_err();
    }

    #[test]
    fn keys_of_a_seed_are_its_own_and_stay_the_same() {
        let seed = Seed::from_secret(&[7; 32]);
        assert_eq!(
            seed.key(3).public_key(),
            Seed::from_secret(&[7; 32]).key(3).public_key()
        );
        assert_ne!(seed.key(3).public_key(), seed.key(4).public_key());
        assert_ne!(
            seed.key(3).public_key(),
            Seed::from_secret(&[8; 32]).key(3).public_key()
        );
    }
}
