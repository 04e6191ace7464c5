//! Names of transactions, assets and outputs.

use std::{
    fmt,
    hash::{BuildHasherDefault, Hasher},
    str::FromStr,
};

/// The SHA3-256 of a signed transaction's canonical text with `id` null (asset ledger, section 4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 32]);

/// An asset is named by the transaction that created it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetId(pub [u8; 32]);

/// One output of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputRef {
    /// The transaction that made the output.
    pub transaction: TransactionId,
    /// The output's place in that transaction, from 0.
    pub index: u32,
}

/// For maps keyed by ids, which are hashes already: their first bytes are taken as they are. Whoever
/// makes ids at will can crowd a few places of such a map, so it is for maps of bounded size only.
pub type IdHash = BuildHasherDefault<IdHasher>;

/// The hasher of [`IdHash`].
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    /// Spreads the outputs of one transaction.
    fn write_u32(&mut self, index: u32) {
        self.0 = self
            .0
            .wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    /// The length of an id tells nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 64 lower-case hexadecimal digits")]
pub struct NotAnId;

impl TransactionId {
    /// The asset that this transaction creates, if it creates one.
    pub const fn as_asset(self) -> AssetId {
        AssetId(self.0)
    }
}

impl AssetId {
    /// The transaction that created this asset.
    pub const fn as_transaction(self) -> TransactionId {
        TransactionId(self.0)
    }
}

fn parse(text: &[u8]) -> Result<[u8; 32], NotAnId> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return Err(NotAnId);
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(NotAnId),
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

macro_rules! id_text {
    ($name:ident) => {
        impl $name {
            /// Reads 64 lower-case hexadecimal digits.
            ///
            /// # Errors
            /// [`NotAnId`] for any other text.
            pub fn from_hex(text: &[u8]) -> Result<$name, NotAnId> {
                parse(text).map($name)
            }
        }
        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<$name, NotAnId> {
                $name::from_hex(text.as_bytes())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 64];
                hex::encode_to_slice(self.0, &mut text).expect("64 digits hold 32 bytes");
                f.write_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
id_text!(TransactionId);
id_text!(AssetId);
