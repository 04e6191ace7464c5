//! Names of members (section 5.1).

use std::{fmt, str::FromStr};

use crate::PublicKey;

/// Bytes of a DID: the first half of a key.
const DID_BYTES: usize = 16;

/// Characters that base58 needs at most for 16 bytes.
const DID_CHARS_MAX: usize = 22;

/// A member's name: the first 16 bytes of the first key it had. Its text is base58; a
/// `did:<method>:` before it is dropped on reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Did(pub [u8; DID_BYTES]);

/// The text is not base58 of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a DID is the base58 text of 16 bytes")]
pub struct NotADid;

impl Did {
    /// The name of a member that begins with `key`.
    pub fn of(key: &PublicKey) -> Did {
        Did(*key.0.first_chunk().expect("a key has 32 bytes"))
    }
}

impl FromStr for Did {
    type Err = NotADid;
    fn from_str(text: &str) -> Result<Did, NotADid> {
        let bare = match text.strip_prefix("did:") {
            Some(qualified) => qualified.split_once(':').ok_or(NotADid)?.1,
            None => text,
        };
        if bare.len() > DID_CHARS_MAX {
            return Err(NotADid);
        }
        let mut bytes = [0; DID_BYTES];
        match bs58::decode(bare).onto(&mut bytes) {
            Ok(DID_BYTES) => Ok(Did(bytes)),
            _ => Err(NotADid),
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SigningKey;

    #[test]
    fn keys_have_the_published_names() {
        let published = [
            (
                1,
                "AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9",
                "J7CUQvLhdTVhye2SHg6w9K",
            ),
            (
                2,
                "9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu",
                "GxWz2Za2u3DjqyYq9mA57y",
            ),
            (
                3,
                "GyGKxMyg1p9SsHfm15MkNUu1u9TN2JtTspcdmrtGUdse",
                "WJTmKspuih11jYrceovzNL",
            ),
        ];
        for (seed, verkey, did) in published {
            let key = SigningKey::from_seed([seed; 32]).public_key();
            assert_eq!(key.to_string(), verkey);
            assert_eq!(Did::of(&key).to_string(), did);
            assert_eq!(did.parse(), Ok(Did::of(&key)));
        }
    }

    #[test]
    fn a_method_before_a_did_is_dropped_and_anything_else_is_refused() {
        let did: Did = "J7CUQvLhdTVhye2SHg6w9K".parse().unwrap();
        assert_eq!("did:peer:J7CUQvLhdTVhye2SHg6w9K".parse(), Ok(did));
        for wrong in [
            "",
            "did:",
            "did:sov",
            "J7CUQvLhdTVhye2SHg6",
            "0",
            "J7CUQvLhdTVhye2SHg6w9K9",
        ] {
            assert_eq!(wrong.parse::<Did>(), Err(NotADid), "{wrong}");
        }
        let long = "z".repeat(1_000_000);
        assert_eq!(long.parse::<Did>(), Err(NotADid));
    }
}
