//! Members of a network: their cards and keys.

use super::{
    canonical::canon_object,
    did::Did,
    limits::{CARD_TEXT_BYTES_MAX, KEYS_PER_MEMBER_MAX},
    refusal::{Code, Refusal},
    signature,
    signed::BASE64,
};
use crate::{
    PublicKey, SigningKey,
    json::{Object, Value},
};
use base64::Engine as _;

/// What the signature of a card begins with, so that it can never be taken for one over anything else.
const CARD_DOMAIN: &[u8] = b"daybook/consortium/card/1\0";

/// What an organisation publishes of itself, signed with the key that it names: nobody can be made a
/// member under a key that he does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    did: Did,
    verkey: PublicKey,
    revision: u64,
    profile: Profile,
    signature: [u8; 64],
}

/// What people read of a member (section 6.1). Every text may be empty but the label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// A short name.
    pub label: String,
    /// The organisation's full name.
    pub organization: String,
    /// Where its node or its gateway is reached.
    pub endpoint: String,
    /// Its page.
    pub url: String,
    /// Where its logo is found.
    pub logo: String,
    /// Where its icon is found.
    pub icon: String,
}

impl Profile {
    fn texts(&self) -> [(&'static str, &String); 6] {
        [
            ("label", &self.label),
            ("organization", &self.organization),
            ("endpoint", &self.endpoint),
            ("url", &self.url),
            ("logo", &self.logo),
            ("icon", &self.icon),
        ]
    }
}

impl Card {
    /// The first card of an organisation that begins with `key`.
    pub fn first(profile: Profile, key: &SigningKey) -> Card {
        Card::signed(Did::of(&key.public_key()), 0, profile, key)
    }

    /// The card that replaces this one; `key` may be a new one.
    pub fn next(&self, profile: Profile, key: &SigningKey) -> Card {
        Card::signed(self.did, self.revision.saturating_add(1), profile, key)
    }

    fn signed(did: Did, revision: u64, profile: Profile, key: &SigningKey) -> Card {
        let mut card = Card {
            did,
            verkey: key.public_key(),
            revision,
            profile,
            signature: [0; 64],
        };
        card.signature = key.sign(&card.signed_bytes());
        card
    }

    /// Reads a card as it stands in requests and files, and verifies it.
    ///
    /// # Errors
    /// [`Code::BadCard`] when members are missing or unexpected, a text is too long, the label is empty
    /// or the signature is not the named key's.
    pub fn read(value: &Value) -> Result<Card, Refusal> {
        let card = Card::read_unproven(value)?;
        card.prove()?;
        Ok(card)
    }

    /// Verifies that the card is signed with the key that it names.
    pub(super) fn prove(&self) -> Result<(), Refusal> {
        if !signature::holds(&self.verkey, &self.signed_bytes(), &self.signature) {
            return Err(bad("the card is not signed with the key that it names"));
        }
        if self.revision == 0 && self.did != Did::of(&self.verkey) {
            return Err(bad("a first card's DID is the first half of its key"));
        }
        Ok(())
    }

    /// As [`Card::read`], of a card that was verified before it was stored.
    pub(super) fn read_unproven(value: &Value) -> Result<Card, Refusal> {
        let object = value
            .as_object()
            .ok_or_else(|| bad("a card is an object"))?;
        let text = |name: &str| {
            let text = object.get(name).and_then(Value::as_str);
            text.ok_or_else(|| bad(format!("\"{name}\" of a card is missing or is not a text")))
        };
        let bounded = |name: &str| {
            let text = text(name)?;
            if text.len() > CARD_TEXT_BYTES_MAX {
                return Err(bad(format!(
                    "\"{name}\" of a card is longer than {CARD_TEXT_BYTES_MAX} bytes"
                )));
            }
            Ok(text.to_owned())
        };
        let card = Card {
            did: text("did")?
                .parse()
                .map_err(|error| bad(format!("{error}")))?,
            verkey: text("verkey")?
                .parse()
                .map_err(|error| bad(format!("{error}")))?,
            revision: object
                .get("revision")
                .and_then(Value::as_u64)
                .ok_or_else(|| bad("\"revision\" of a card is a count"))?,
            profile: Profile {
                label: bounded("label")?,
                organization: bounded("organization")?,
                endpoint: bounded("endpoint")?,
                url: bounded("url")?,
                logo: bounded("logo")?,
                icon: bounded("icon")?,
            },
            signature: BASE64
                .decode(text("signature")?)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| bad("\"signature\" of a card is base64url of 64 bytes"))?,
        };
        if card.profile.label.is_empty() {
            return Err(bad("\"label\" of a card is empty"));
        }
        if Value::Object(card.to_object()) != *value {
            return Err(bad(
                "a card has other members, or its DID or signature is written otherwise",
            ));
        }
        Ok(card)
    }

    /// The card as it stands in requests and files.
    pub fn to_object(&self) -> Object {
        let mut object = self.unsigned();
        object.insert("signature", BASE64.encode(self.signature).into());
        object
    }

    fn unsigned(&self) -> Object {
        let mut object = Object::from_iter([
            ("did", Value::from(self.did.to_string())),
            ("verkey", Value::from(self.verkey.to_string())),
            ("revision", Value::from(self.revision)),
        ]);
        for (name, text) in self.profile.texts() {
            object.insert(name, text.as_str().into());
        }
        object
    }

    fn signed_bytes(&self) -> Vec<u8> {
        [CARD_DOMAIN, canon_object(&self.unsigned()).as_bytes()].concat()
    }

    /// The member's name.
    pub fn did(&self) -> Did {
        self.did
    }

    /// The key that the member signs with.
    pub fn verkey(&self) -> PublicKey {
        self.verkey
    }

    /// How many cards came before this one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What people read.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }
}

/// A member as the book knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The newest card.
    pub card: Card,
    /// All keys that the member ever had, the present one last.
    pub keys: Vec<PublicKey>,
    /// Whether it still takes part. Who was removed stays known, because its signatures remain.
    pub active: bool,
}

impl Member {
    pub(super) fn new(card: Card) -> Member {
        Member {
            keys: vec![card.verkey],
            card,
            active: true,
        }
    }

    /// Whether the member may have one key more.
    pub(super) fn has_room_for_a_key(&self) -> bool {
        self.keys.len() < KEYS_PER_MEMBER_MAX
    }

    pub(super) fn update(&mut self, card: Card) {
        if card.verkey != self.card.verkey {
            self.keys.push(card.verkey);
        }
        self.card = card;
    }
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadCard, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32])
    }

    fn port() -> Card {
        let profile = Profile {
            label: "Port One".to_owned(),
            ..Profile::default()
        };
        Card::first(profile, &key(1))
    }

    #[test]
    fn a_card_reads_as_it_was_written() {
        let card = port();
        assert_eq!(
            Card::read(&Value::Object(card.to_object())),
            Ok(card.clone())
        );
        let next = card.next(card.profile().clone(), &key(2));
        assert_eq!(next.did(), card.did());
        assert_eq!(next.revision(), 1);
        assert_eq!(Card::read(&Value::Object(next.to_object())), Ok(next));
    }

    #[test]
    fn a_card_that_its_key_did_not_sign_is_refused() {
        let card = port();
        let changed = |name: &str, value: Value| {
            let mut object = card.to_object();
            object.insert(name, value);
            Card::read(&Value::Object(object)).unwrap_err().code
        };
        for (name, value) in [
            ("label", Value::from("Port Two")),
            ("label", Value::from("")),
            ("label", Value::from("x".repeat(CARD_TEXT_BYTES_MAX + 1))),
            ("verkey", Value::from(key(2).public_key().to_string())),
            (
                "did",
                Value::from(Did::of(&key(2).public_key()).to_string()),
            ),
            ("did", Value::from(format!("did:sov:{}", card.did()))),
            ("revision", Value::from(1u64)),
            ("revision", Value::Null),
            ("more", Value::Null),
            ("signature", Value::from("")),
        ] {
            assert_eq!(changed(name, value), Code::BadCard, "{name}");
        }
    }

    #[test]
    fn a_first_card_names_its_member_by_its_key() {
        let stolen = Card::signed(Did([7; 16]), 0, port().profile, &key(1));
        assert_eq!(
            Card::read(&Value::Object(stolen.to_object()))
                .unwrap_err()
                .code,
            Code::BadCard
        );
    }
}
