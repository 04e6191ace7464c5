//! Trytes: the letters of seeds and addresses (machines, section 13).

/// The letters in the order of their values 0, 1…13, −13…−1.
const ALPHABET: &[u8; 27] = b"9ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Trytes of a hash, a seed and an address.
pub(crate) const HASH_TRYTES: usize = 81;
/// Trits of a hash: three for each tryte.
pub(crate) const HASH_TRITS: usize = 3 * HASH_TRYTES;

/// The trits of a hash, least significant first, each −1, 0 or 1.
pub(crate) type Trits = [i8; HASH_TRITS];

/// Whether every character is a tryte.
pub(crate) fn are_trytes(text: &str) -> bool {
    text.bytes().all(|c| ALPHABET.contains(&c))
}

/// The trits of 81 trytes.
pub(crate) fn trits_of(text: &str) -> Option<Trits> {
    if text.len() != HASH_TRYTES {
        return None;
    }
    let mut trits = [0; HASH_TRITS];
    for (three, c) in trits.chunks_exact_mut(3).zip(text.bytes()) {
        let place = ALPHABET.iter().position(|&letter| letter == c)?;
        let place = i8::try_from(place).expect("27 letters");
        let mut value = if place > 13 { place - 27 } else { place };
        for trit in three {
            let digit = (value + 1).rem_euclid(3) - 1;
            *trit = digit;
            value = (value - digit) / 3;
        }
    }
    Some(trits)
}

/// The trytes of trits.
pub(crate) fn trytes_of(trits: &Trits) -> String {
    trits
        .chunks_exact(3)
        .map(|three| {
            let value = three[0] + 3 * three[1] + 9 * three[2];
            let place = usize::try_from(value.rem_euclid(27)).expect("not negative");
            char::from(ALPHABET[place])
        })
        .collect()
}

/// A letter by its place in the alphabet.
pub(crate) fn letter(place: u8) -> char {
    char::from(ALPHABET[usize::from(place) % ALPHABET.len()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn trytes_survive_their_trits() {
        let text: String = ALPHABET
            .iter()
            .cycle()
            .take(81)
            .map(|c| char::from(*c))
            .collect();
        assert_eq!(trytes_of(&trits_of(&text).unwrap()), text);
        assert_eq!(trits_of("9"), None);
        assert_eq!(trits_of(&"a".repeat(81)), None);
    }
}
