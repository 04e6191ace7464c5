//! Services and their keys (service bus, section 3). A key is known by its Argon2id hash only.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use daybook_bus::{Grant, KeyVerdict, Limits, Pattern};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::settings::sha256;

/// Random bytes of a generated key.
pub const KEY_BYTES: usize = 24;
/// Keys of one name that are compared; more of them would only cost time.
const KEYS_PER_NAME_MAX: usize = 8;
/// Bytes of a shown key at most: hashing is paid for by the broker.
const SHOWN_BYTES_MAX: usize = 1_024;
/// Successful checks that are remembered, so that a fleet that reconnects is not hashed again.
const REMEMBERED_MAX: usize = 16_384;

/// A service's key, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServiceKey {
    /// Names the key.
    pub id: String,
    /// The service names that it is for: one, or a pattern.
    pub name: String,
    /// Its hash (PHC text of Argon2id).
    pub hash: String,
    /// Patterns of the names that it may request.
    pub publish: Vec<String>,
    /// Patterns of the names that it may listen to.
    pub subscribe: Vec<String>,
    /// Requests per second; `None` for the broker's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Unanswered deliveries at once; `None` for the broker's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
}

/// A key that was just made: the only moment at which its text is known.
pub struct NewKey {
    /// The text, to be handed to the service.
    pub text: String,
    /// What is kept.
    pub hash: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(…)")
    }
}

/// A key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// One of its patterns is none.
    #[error("key {id}: `{text}` is no pattern")]
    Pattern {
        /// Which key.
        id: String,
        /// The text.
        text: String,
    },
    /// Its hash is no Argon2 hash.
    #[error("key {0}: its hash cannot be read")]
    Hash(String),
    /// The key cannot be hashed.
    #[error("the key cannot be hashed: {0}")]
    Hashing(String),
}

/// Hashes `text`, or a new random key.
///
/// # Errors
/// [`KeyringError::Hashing`] for an empty or overlong key, or without a source of randomness.
pub fn new_key(text: Option<String>) -> Result<NewKey, KeyringError> {
    let text = match text {
        Some(text) if text.is_empty() || text.len() > SHOWN_BYTES_MAX => {
            return Err(KeyringError::Hashing("it must be 1 to 1024 bytes".into()));
        }
        Some(text) => text,
        None => {
            let mut bytes = [0; KEY_BYTES];
            aws_lc_rs::rand::fill(&mut bytes)
                .map_err(|_| KeyringError::Hashing("no randomness".into()))?;
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
    };
    let hash = Argon2::default()
        .hash_password(text.as_bytes())
        .map_err(|e| KeyringError::Hashing(e.to_string()))?
        .to_string();
    Ok(NewKey { text, hash })
}

struct Entry {
    name: Pattern,
    hash: PasswordHash,
    grant: Arc<Grant>,
}

/// All keys, ready to be compared.
pub struct Keyring {
    entries: RwLock<Vec<Arc<Entry>>>,
    /// Digests of name and key that were right, made with a secret of this process.
    known: Mutex<HashMap<[u8; 32], Arc<Grant>>>,
    /// How often other keys were taken.
    changes: AtomicU64,
    secret: [u8; 32],
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.entries.read().len())
    }
}

impl Keyring {
    /// A ring of `keys`.
    ///
    /// # Errors
    /// When one of them makes no sense.
    pub fn new(keys: &[ServiceKey]) -> Result<Keyring, KeyringError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_| KeyringError::Hashing("no randomness".into()))?;
        Ok(Keyring {
            entries: RwLock::new(read(keys)?),
            known: Mutex::new(HashMap::new()),
            changes: AtomicU64::new(0),
            secret,
        })
    }

    /// Takes other keys. Answers the ids of those that hold no longer.
    ///
    /// # Errors
    /// When one of them makes no sense; then nothing changes.
    pub fn replace(&self, keys: &[ServiceKey]) -> Result<Vec<String>, KeyringError> {
        let new = read(keys)?;
        let mut entries = self.entries.write();
        let gone = entries
            .iter()
            .filter(|old| {
                // A key whose rights changed has to introduce itself again, too.
                !new.iter().any(|entry| {
                    entry.grant == old.grant && entry.name == old.name && entry.hash == old.hash
                })
            })
            .map(|entry| entry.grant.key_id.clone())
            .collect();
        *entries = new;
        self.known.lock().clear();
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(gone)
    }

    /// How often other keys were taken until now.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// A verdict that was begun after so many changes, as far as it still holds: of one that other keys
    /// overtook nobody knows, and its client asks again.
    pub(crate) fn still(&self, changes: u64, verdict: KeyVerdict) -> KeyVerdict {
        match self.changes() == changes {
            true => verdict,
            false => KeyVerdict::Busy,
        }
    }

    /// The grant of a name and key that were right before.
    pub(crate) fn remembered(&self, name: &str, key: &str) -> Option<Arc<Grant>> {
        self.known.lock().get(&self.digest(name, key)).cloned()
    }

    /// Compares a key. Takes some hundredths of a second, by design.
    pub(crate) fn check(&self, name: &str, key: &str) -> Option<Arc<Grant>> {
        if key.len() > SHOWN_BYTES_MAX {
            return None;
        }
        let candidates: Vec<Arc<Entry>> = self
            .entries
            .read()
            .iter()
            .filter(|entry| entry.name.matches(name))
            .take(KEYS_PER_NAME_MAX)
            .cloned()
            .collect();
        if candidates.is_empty() {
            // A name that does not exist takes as long as a wrong key.
            let _ = Argon2::default().hash_password(key.as_bytes());
            return None;
        }
        let right = candidates.into_iter().find(|entry| {
            Argon2::default()
                .verify_password(key.as_bytes(), &entry.hash)
                .is_ok()
        })?;
        // It may have been revoked while it was compared.
        let entries = self.entries.read();
        if !entries.iter().any(|entry| Arc::ptr_eq(entry, &right)) {
            return None;
        }
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(self.digest(name, key), right.grant.clone());
        Some(right.grant.clone())
    }

    fn digest(&self, name: &str, key: &str) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(self.secret.len() + name.len() + key.len() + 1);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(name.as_bytes());
        // No name has a zero byte.
        bytes.push(0);
        bytes.extend_from_slice(key.as_bytes());
        sha256(&bytes)
    }
}

fn read(keys: &[ServiceKey]) -> Result<Vec<Arc<Entry>>, KeyringError> {
    keys.iter()
        .map(|key| {
            let pattern = |text: &String| {
                Pattern::new(text).map_err(|_| KeyringError::Pattern {
                    id: key.id.clone(),
                    text: text.clone(),
                })
            };
            let patterns = |list: &[String]| list.iter().map(pattern).collect::<Result<_, _>>();
            Ok(Arc::new(Entry {
                name: pattern(&key.name)?,
                hash: PasswordHash::new(&key.hash)
                    .map_err(|_| KeyringError::Hash(key.id.clone()))?,
                grant: Arc::new(Grant {
                    key_id: key.id.clone(),
                    publish: patterns(&key.publish)?,
                    subscribe: patterns(&key.subscribe)?,
                    limits: Limits {
                        requests_per_second: key.requests_per_second,
                        max_in_flight: key.max_in_flight,
                    },
                }),
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(id: &str, name: &str, hash: &str) -> ServiceKey {
        ServiceKey {
            id: id.to_owned(),
            name: name.to_owned(),
            hash: hash.to_owned(),
            publish: vec![">".to_owned()],
            subscribe: vec![">".to_owned()],
            requests_per_second: None,
            max_in_flight: None,
            created: 0,
        }
    }

    #[test]
    fn a_key_opens_its_own_name_only_and_stops_when_it_is_gone() {
        let made = new_key(None).unwrap();
        assert!(made.hash.starts_with("$argon2id$"));
        let ring = Keyring::new(&[key("k", "grid.*", &made.hash)]).unwrap();
        assert_eq!(ring.check("grid.a", &made.text).unwrap().key_id, "k");
        assert!(ring.remembered("grid.a", &made.text).is_some());
        assert!(ring.remembered("grid.b", &made.text).is_none());
        assert!(ring.check("grid.a", "wrong").is_none());
        assert!(ring.check("meter", &made.text).is_none());
        assert_eq!(ring.replace(&[]).unwrap(), ["k"]);
        assert!(ring.remembered("grid.a", &made.text).is_none());
        assert!(ring.check("grid.a", &made.text).is_none());
    }

    #[test]
    fn a_verdict_that_other_keys_overtook_lets_nobody_in_and_sends_nobody_away() {
        let made = new_key(None).unwrap();
        let keys = [key("k", "grid", &made.hash)];
        let ring = Keyring::new(&keys).unwrap();
        let before = ring.changes();
        let grant = ring.check("grid", &made.text).unwrap();
        let granted = KeyVerdict::Granted(grant);
        assert!(matches!(
            ring.still(before, granted.clone()),
            KeyVerdict::Granted(_)
        ));
        assert!(matches!(
            ring.still(before, KeyVerdict::Wrong),
            KeyVerdict::Wrong
        ));
        for keys in [&[][..], &keys] {
            ring.replace(keys).unwrap();
            for verdict in [granted.clone(), KeyVerdict::Wrong] {
                assert!(matches!(ring.still(before, verdict), KeyVerdict::Busy));
            }
        }
        // A change that makes no sense changes nothing.
        let before = ring.changes();
        ring.replace(&[key("k", "grid", "plain text")]).unwrap_err();
        assert!(matches!(
            ring.still(before, granted),
            KeyVerdict::Granted(_)
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_a_key_is_never_shown() {
        let made = new_key(Some("secret".to_owned())).unwrap();
        assert!(!format!("{made:?}").contains("secret"));
        assert!(new_key(Some(String::new())).is_err());
        assert!(Keyring::new(&[key("k", ">.x", &made.hash)]).is_err());
        assert!(Keyring::new(&[key("k", "x", "plain text")]).is_err());
    }
}
