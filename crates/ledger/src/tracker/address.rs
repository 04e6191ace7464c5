//! Addresses: names of wallets and of funds under a time lock (wallet tracker, section 5).

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA224, digest};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use twox_hash::XxHash64;

use super::{Code, Refusal};

/// The seed of the checksum.
const CHECKSUM_SEED: u64 = 0x2018_CADD;

/// Characters of the prefix.
const PREFIX_CHARS: usize = 4;

/// Characters of the tail: base64 of 28 bytes.
const TAIL_CHARS: usize = 40;

/// Characters of the longest address: prefix, 64 bits in hexadecimal, tail.
pub const ADDRESS_CHARS_MAX: usize = PREFIX_CHARS + 16 + TAIL_CHARS;

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// A permanent wallet.
    Common,
    /// Pays, through transfer channels, until its lock.
    Spend,
    /// Is paid, through transfer channels, until its lock.
    Income,
}

/// A well-formed address. Two texts with one tail are two addresses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    text: Arc<str>,
    kind: AddressKind,
    tail: [u8; 28],
}

impl AddressKind {
    /// The first four characters.
    pub const fn prefix(self) -> &'static str {
        match self {
            AddressKind::Common => "0x0b",
            AddressKind::Spend => "0x0c",
            AddressKind::Income => "0x0d",
        }
    }

    /// The kind that a text's first four characters name.
    pub fn of(text: &str) -> Option<AddressKind> {
        [AddressKind::Common, AddressKind::Spend, AddressKind::Income]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
    }
}

impl Address {
    /// Reads an address of any kind.
    ///
    /// # Errors
    /// `bad_address` for anything that section 5 does not allow.
    pub fn parse(text: &str) -> Result<Address, Refusal> {
        let bad = || Refusal::new(Code::BadAddress, "invalid address");
        if !text.is_ascii()
            || text.len() < PREFIX_CHARS + TAIL_CHARS
            || text.len() > ADDRESS_CHARS_MAX
        {
            return Err(bad());
        }
        let kind = AddressKind::of(text).ok_or_else(bad)?;
        let (head, tail_text) = text.split_at(text.len() - TAIL_CHARS);
        let checksum = &head[PREFIX_CHARS..];
        // Old addresses use the other alphabet, and have no checksum.
        let standard: Vec<u8> = tail_text
            .bytes()
            .map(|c| match c {
                b'-' => b'+',
                b'_' => b'/',
                c => c,
            })
            .collect();
        let tail = STANDARD.decode(standard).map_err(|_| bad())?;
        let tail: [u8; 28] = tail.try_into().map_err(|_| bad())?;
        if !checksum.is_empty() && checksum != checksum_of(kind, tail_text) {
            return Err(bad());
        }
        Ok(Address {
            text: text.into(),
            kind,
            tail,
        })
    }

    /// Reads an address of one kind.
    ///
    /// # Errors
    /// `bad_address` for other texts.
    pub fn parse_as(text: &str, kind: AddressKind) -> Result<Address, Refusal> {
        let wrong = |refusal: Refusal| match kind {
            AddressKind::Common => Refusal::new(Code::BadAddress, "invalid common address"),
            AddressKind::Spend | AddressKind::Income => refusal,
        };
        let address = Address::parse(text).map_err(wrong)?;
        if address.kind == kind {
            Ok(address)
        } else {
            Err(wrong(Refusal::new(
                Code::BadAddress,
                "an address of another kind",
            )))
        }
    }

    /// The wallet of whoever holds the key with this text. The text counts as it stands: with and
    /// without a final newline there are two wallets.
    pub fn common(pem: &str) -> Address {
        Address::derive(AddressKind::Common, pem)
    }

    /// The spend or income address that `tracker` makes for `peer` at `time_ms`.
    pub fn channel_end(kind: AddressKind, tracker: &str, peer: &str, time_ms: u64) -> Address {
        let word = match kind {
            AddressKind::Income => "income",
            AddressKind::Spend => "spend",
            AddressKind::Common => return Address::common(peer),
        };
        Address::derive(kind, &format!("{tracker};{peer};{word};{time_ms:x}"))
    }

    fn derive(kind: AddressKind, seed: &str) -> Address {
        let hash = digest(&SHA224, seed.as_bytes());
        let tail: [u8; 28] = hash.as_ref().try_into().expect("SHA-224 has 28 bytes");
        let tail_text = URL_SAFE.encode(tail);
        let checksum = checksum_of(kind, &tail_text);
        Address {
            text: format!("{}{checksum}{tail_text}", kind.prefix()).into(),
            kind,
            tail,
        }
    }

    /// The text that names it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, shared.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What it is for.
    pub fn kind(&self) -> AddressKind {
        self.kind
    }

    /// The hash that it carries: equal for the old and the new writing of one wallet.
    pub fn tail(&self) -> &[u8; 28] {
        &self.tail
    }
}

fn checksum_of(kind: AddressKind, tail: &str) -> String {
    let mut hashed = [0; PREFIX_CHARS + TAIL_CHARS];
    hashed[..PREFIX_CHARS].copy_from_slice(kind.prefix().as_bytes());
    hashed[PREFIX_CHARS..].copy_from_slice(tail.as_bytes());
    format!("{:x}", XxHash64::oneshot(CHECKSUM_SEED, &hashed))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
