//! Keys that were seen before: their bytes and conditions, found by their text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    PublicKey,
    condition::Condition,
    key::{self, KEY_CHARS_MAX},
};

/// How many keys one parser remembers. A key has one place, by its text; a newcomer takes it over.
/// Fully used, a parser holds 1.3 MB of them.
const PLACES: usize = 8_192;

/// A key and what follows from it.
#[derive(Clone)]
pub(super) struct Known {
    text: [u8; KEY_CHARS_MAX],
    length: u8,
    pub(super) key: PublicKey,
    pub(super) fingerprint: [u8; 32],
    /// The base64url text of the fingerprint, as the URI has it.
    pub(super) fingerprint_text: [u8; 43],
}

impl Known {
    fn new(text: &[u8]) -> Option<Known> {
        let key = PublicKey(key::decode_base58(text)?);
        let mut known = Known {
            text: [0; KEY_CHARS_MAX],
            length: text.len() as u8,
            key,
            fingerprint: Condition::of_key(&key).fingerprint,
            fingerprint_text: [0; 43],
        };
        known.text[..text.len()].copy_from_slice(text);
        URL_SAFE_NO_PAD
            .encode_slice(known.fingerprint, &mut known.fingerprint_text)
            .expect("43 characters hold 32 bytes");
        Some(known)
    }

    /// The text after `ni:///sha-256;` and the fingerprint in the URI of a key's condition.
    pub(super) fn is_uri(&self, uri: &[u8]) -> bool {
        uri.strip_prefix(b"ni:///sha-256;")
            .and_then(|rest| rest.strip_prefix(&self.fingerprint_text))
            .is_some_and(|rest| rest == b"?fpt=ed25519-sha-256&cost=131072")
    }
}

/// A bounded memory of keys. What it remembers changes the cost of a look-up, never its answer.
pub(super) struct KnownKeys {
    places: Vec<Option<Box<Known>>>,
}

impl KnownKeys {
    pub(super) fn new() -> KnownKeys {
        KnownKeys { places: Vec::new() }
    }

    /// The key of a base58 text of 43 or 44 characters, as the schema wants them (section 4.1).
    pub(super) fn get(&mut self, text: &[u8]) -> Option<&Known> {
        if !(43..=KEY_CHARS_MAX).contains(&text.len()) {
            return None;
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let eight = |at: usize| {
            let chunk = text[at..]
                .first_chunk()
                .expect("the text has 43 characters");
            u64::from_le_bytes(*chunk)
        };
        let mixed = (eight(8) ^ eight(24).rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let place = &mut self.places[(mixed >> 32) as usize % PLACES];
        let remembered = place
            .as_ref()
            .is_some_and(|known| &known.text[..usize::from(known.length)] == text);
        if !remembered {
            *place = Some(Box::new(Known::new(text)?));
        }
        place.as_deref()
    }
}
