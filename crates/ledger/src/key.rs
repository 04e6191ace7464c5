//! Ed25519 keys in the ledger's text form.

use std::{fmt, str::FromStr};

/// The 32 bytes of an Ed25519 public key; its text is base58 (asset ledger, section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// The text is not base58 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is the base58 text of 32 bytes")]
pub struct NotAKey;

impl FromStr for PublicKey {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<PublicKey, NotAKey> {
        decode(text).map(PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private key: the Ed25519 seed. Never shown by `Debug`; wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_zebra::SigningKey);

impl SigningKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> SigningKey {
        SigningKey(ed25519_zebra::SigningKey::from(seed))
    }

    /// Reads the base58 text of a seed.
    ///
    /// # Errors
    /// [`NotAKey`] for any other text.
    pub fn from_base58(text: &str) -> Result<SigningKey, NotAKey> {
        decode(text).map(SigningKey::from_seed)
    }

    /// The base58 text of the seed: a secret.
    pub fn to_base58(&self) -> String {
        bs58::encode(self.0.as_ref()).into_string()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(ed25519_zebra::VerificationKeyBytes::from(&self.0).into())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public_key())
    }
}

/// The characters of base58 in the order of their values (Bitcoin's alphabet).
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// The value of each byte as a base58 character; 255 where it is none.
const BASE58_VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut i = 0;
    while i < BASE58.len() {
        values[BASE58[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// Forty-four characters hold any 32 bytes.
pub(crate) const KEY_CHARS_MAX: usize = 44;

fn decode(text: &str) -> Result<[u8; 32], NotAKey> {
    decode_base58(text.as_bytes()).ok_or(NotAKey)
}

/// Whether the byte is a base58 character.
pub(crate) fn is_base58(c: u8) -> bool {
    BASE58_VALUES[usize::from(c)] != 255
}

/// The 32 bytes that `text` is the base58 of. Ten characters at a time go into one machine word, so
/// that a key costs a few dozen multiplications.
pub(crate) fn decode_base58(text: &[u8]) -> Option<[u8; 32]> {
    const CHUNK: usize = 10;
    if text.len() > KEY_CHARS_MAX {
        return None;
    }
    let mut words = [0u64; 4];
    for chunk in text.chunks(CHUNK) {
        let (mut value, mut scale) = (0u64, 1u64);
        for &c in chunk {
            let digit = BASE58_VALUES[usize::from(c)];
            if digit == 255 {
                return None;
            }
            value = value * 58 + u64::from(digit);
            scale *= 58;
        }
        let mut carry = u128::from(value);
        for word in &mut words {
            carry += u128::from(*word) * u128::from(scale);
            *word = carry as u64;
            carry >>= 64;
        }
        if carry != 0 {
            return None;
        }
    }
    let mut bytes = [0; 32];
    for (eight, word) in bytes.rchunks_exact_mut(8).zip(words) {
        eight.copy_from_slice(&word.to_be_bytes());
    }
    // Every leading zero byte is written as one `1`: fewer or more would be another length.
    let ones = text.iter().take_while(|&&c| c == b'1').count();
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    (ones == zeros).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_read_as_the_base58_crate_reads_them() {
        let mut state = 1u64;
        for round in 0..20_000u32 {
            let mut bytes = [0u8; 32];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let zeros = (round % 34) as usize;
            bytes[..zeros.min(32)].fill(0);
            let length = if round % 5 == 0 { 31 } else { 32 };
            let text = bs58::encode(&bytes[..length]).into_string();
            let expected = (length == 32).then_some(bytes);
            assert_eq!(decode_base58(text.as_bytes()), expected, "{text}");
        }
        let largest = bs58::encode([255u8; 32]).into_string();
        assert_eq!(decode_base58(largest.as_bytes()), Some([255; 32]));
        let beyond = largest.replace(
            "JEKNVnkbo3jma5nREBBJCDoXFVeKkD56V3xKrvRmWxFG",
            "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        );
        assert_eq!(decode_base58(beyond.as_bytes()), None);
        assert_eq!(decode_base58(b""), None);
        assert_eq!(decode_base58("0OIl".as_bytes()), None);
    }
}
