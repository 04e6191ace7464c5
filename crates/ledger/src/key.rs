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

fn decode(text: &str) -> Result<[u8; 32], NotAKey> {
    let mut bytes = [0; 32];
    // Forty-four characters hold any 32 bytes; longer text is refused before the quadratic decoder sees it.
    if text.len() > 44 {
        return Err(NotAKey);
    }
    match bs58::decode(text).onto(&mut bytes[..]) {
        Ok(32) => Ok(bytes),
        _ => Err(NotAKey),
    }
}
