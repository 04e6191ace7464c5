//! Addresses: 81 trytes that name one order's receiving key (machines, sections 6 and 13).
//!
//! They are derived from the seed exactly as the legacy network did, so that the seeds of the field
//! keep their addresses. What pays on the ledger is the Ed25519 key of the same index; an address names
//! it, and the machine tells which key it is.

use std::{fmt, str::FromStr};

use crate::{
    kerl::Kerl,
    trytes::{HASH_TRYTES, Trits, are_trytes, trits_of, trytes_of},
};

/// Trytes of a checksum.
const CHECKSUM_TRYTES: usize = 9;
/// Blocks of a private key for each level of security.
const FRAGMENTS: usize = 27;
/// Times that each block of a private key is hashed on the way to an address.
const ROUNDS: usize = 26;
/// The level of security of every machine (section 6).
pub const SECURITY: usize = 2;

/// An address: 81 trytes without checksum.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    /// Neither 81 characters nor 90.
    #[error("an address has 81 characters, or 90 with its checksum")]
    Length,
    /// Another character than `9` and `A` to `Z`.
    #[error("an address consists of the characters 9 and A to Z")]
    Letters,
    /// The last nine characters do not fit the others.
    #[error("the checksum of the address is wrong")]
    Checksum,
}

impl Address {
    /// The address of key `index` of a seed at a level of security.
    pub(crate) fn derive(seed: &Trits, index: u64, security: usize) -> Address {
        let subseed = Kerl::hash(&plus(seed, index));
        let mut key = Kerl::default();
        key.absorb(&subseed);
        let mut whole = Kerl::default();
        for _ in 0..security {
            let mut fragments = Kerl::default();
            for _ in 0..FRAGMENTS {
                let mut fragment = key.squeeze();
                for _ in 0..ROUNDS {
                    fragment = Kerl::hash(&fragment);
                }
                fragments.absorb(&fragment);
            }
            whole.absorb(&fragments.squeeze());
        }
        Address(trytes_of(&whole.squeeze()))
    }

    /// Its 81 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Nine further characters that catch mistypings.
    pub fn checksum(&self) -> String {
        let trits = trits_of(&self.0).expect("an address is 81 trytes");
        trytes_of(&Kerl::hash(&trits))[HASH_TRYTES - CHECKSUM_TRYTES..].to_owned()
    }

    /// All 90 characters.
    pub fn with_checksum(&self) -> String {
        format!("{}{}", self.0, self.checksum())
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;
    fn from_str(text: &str) -> Result<Address, NotAnAddress> {
        if text.len() != HASH_TRYTES && text.len() != HASH_TRYTES + CHECKSUM_TRYTES {
            return Err(NotAnAddress::Length);
        }
        if !are_trytes(text) {
            return Err(NotAnAddress::Letters);
        }
        let (address, checksum) = text.split_at(HASH_TRYTES);
        let address = Address(address.to_owned());
        if checksum.is_empty() || address.checksum() == checksum {
            Ok(address)
        } else {
            Err(NotAnAddress::Checksum)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The seed of an index: the index is added to it, least significant trit first, and what does not
/// fit is lost.
fn plus(seed: &Trits, mut index: u64) -> Trits {
    let mut sum = *seed;
    let mut carry = 0_i8;
    for trit in &mut sum {
        let mut digit = (index % 3) as i8;
        index /= 3;
        // A digit 2 is −1 and one more of the next place.
        if digit == 2 {
            digit = -1;
            index += 1;
        }
        let value = *trit + digit + carry;
        *trit = (value + 1).rem_euclid(3) - 1;
        carry = (value - *trit) / 3;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_vectors_of_the_protocol_are_reproduced() {
        let nines = "9".repeat(81);
        let mesh = format!("MESH9DEMO9SEED{}", "9".repeat(67));
        for (seed, index, level, expected) in [
            (
                &nines,
                0,
                1,
                "BSIXFJENGVJSOWPVHVALMPOPO9PUKHXDQI9VDELCBJXN9TCNQPTFEDMPQCVBOJSZUHEOABYYYAT9IAHHYZLUURD9YW",
            ),
            (
                &nines,
                0,
                2,
                "GPB9PBNCJTPGFZ9CCAOPCZBFMBSMMFMARZAKBMJFMTSECEBRWMGLPTYZRAFKUFOGJQVWVUPPABLTTLCIANCSQUOODD",
            ),
            (
                &nines,
                1,
                2,
                "GMLRCFYRCWPZTORXSFCEGKXTVQGPFI9W9EJLERYJMEJGIPLNCLIKCCAOKQEFYUYCEUGIZKCSSJL9JD9SCROJUTTCID",
            ),
            (
                &mesh,
                0,
                2,
                "CH9MFOXJC9NKNSRGTNLESUUFTKHK9HEQBCBZ9EOGGFOZTDNBWYKBJPEWLVJDJE99FFLHTRGQVLAWANOYWWAIT9WUYZ",
            ),
            (
                &mesh,
                0,
                3,
                "BWSOUJHWWBGUZPIXVODLTVGZJXZVTNVPSDJGETYPWQSRQIZRCSXCNONMMPJPEQLGCEDYNFCJRWZEPIVIWW9LGTKATW",
            ),
            (
                &mesh,
                1,
                2,
                "YRHSJFXAEXSI9ABLRKXXARWYPEVHJRDLOHUXWPYCPHLDJSZERFUMRTDKPJTFGFL99JTEVFLMPDEPWBBQDWKFFNWEDY",
            ),
            (
                &mesh,
                1000,
                2,
                "GTWBYRJTESURUWFCCA9VSMKBUPPMKMW9HBOPUNKGIO9JMSGPVWE99QSKFPDMKCBG9KKLZF9SQJMHJFGC9NIJVNNJ9X",
            ),
        ] {
            let address = Address::derive(&trits_of(seed).unwrap(), index, level);
            assert_eq!(address.with_checksum(), expected);
            assert_eq!(expected.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn an_address_is_81_trytes_or_90_with_the_right_checksum() {
        let sound = Address::derive(&trits_of(&"9".repeat(81)).unwrap(), 0, SECURITY);
        assert_eq!(sound.as_str().parse::<Address>().unwrap(), sound);
        let mut wrong = sound.with_checksum();
        let last = if wrong.pop() == Some('A') { 'B' } else { 'A' };
        wrong.push(last);
        for (text, why) in [
            (wrong.as_str(), NotAnAddress::Checksum),
            (&sound.as_str()[..80], NotAnAddress::Length),
            (&sound.as_str().to_lowercase(), NotAnAddress::Letters),
            ("<html></html>", NotAnAddress::Length),
            (&"é".repeat(45), NotAnAddress::Letters),
            ("", NotAnAddress::Length),
        ] {
            assert_eq!(text.parse::<Address>(), Err(why), "{text}");
        }
    }
}
