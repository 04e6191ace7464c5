//! Which keys a tracker is known by: taken the first time, expected ever after (wallet tracker, section
//! 4.5).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use daybook_ledger::tracker::{Key, KeyHash, Suites};
use serde::{Deserialize, Serialize};

use super::{Error, Version, channel_file::replace};
use crate::Endpoint;

/// Bytes of a file of known trackers at most: thousands of them.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The keys of one tracker, the one that answered the handshake first.
#[derive(Debug)]
pub struct TrackerKeys(Vec<(String, Key)>);

impl TrackerKeys {
    /// Reads the PEM texts of keys.
    ///
    /// # Errors
    /// `Protocol` when there is none, or one that does not parse.
    pub fn new(pems: impl IntoIterator<Item = String>) -> Result<TrackerKeys, Error> {
        let mut keys: Vec<(String, Key)> = Vec::new();
        for pem in pems {
            let key = Key::read(&pem)
                .map_err(|error| Error::Protocol(format!("a key of the tracker: {error}")))?;
            if !keys.iter().any(|(_, known)| known.hash() == key.hash()) {
                keys.push((pem, key));
            }
        }
        if keys.is_empty() {
            return Err(Error::Protocol("a tracker without a key".to_owned()));
        }
        Ok(TrackerKeys(keys))
    }

    /// Their PEM texts.
    pub fn pems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(pem, _)| pem.as_str())
    }

    /// The hashes of their SubjectPublicKeyInfos, which version 2 messages name.
    pub fn ids(&self) -> Vec<KeyHash> {
        self.0.iter().map(|(_, key)| key.hash()).collect()
    }

    /// Whether the PEM is that of one of them.
    pub(super) fn has(&self, pem: &str) -> bool {
        Key::read(pem).is_ok_and(|key| self.0.iter().any(|(_, own)| own.hash() == key.hash()))
    }

    /// Whether one of them signed `message`.
    pub(super) fn signed(&self, message: &str, sign: &str) -> bool {
        let suites = Suites::default();
        let verifies = |key: &Key| key.verify(&suites, message.as_bytes(), sign);
        self.0.iter().any(|(_, key)| verifies(key))
    }
}

/// What is remembered of one tracker: the PEM texts of its keys, and whether it had version 1 only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Known {
    /// It speaks version 2, and is not believed when it says that it does not.
    Keys(Vec<String>),
    /// It was met without extensions.
    Legacy { version: u32, keys: Vec<String> },
}

impl Known {
    fn new(keys: &TrackerKeys, speaks: Version) -> Known {
        let keys = keys.pems().map(str::to_owned).collect();
        match speaks {
            Version::V2 => Known::Keys(keys),
            Version::V1 => Known::Legacy { version: 1, keys },
        }
    }
}

/// A file with the keys of every tracker that was met, by its address.
#[derive(Clone, Debug)]
pub struct KnownTrackers {
    path: PathBuf,
}

impl KnownTrackers {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> KnownTrackers {
        KnownTrackers { path: path.into() }
    }

    /// The keys that the tracker at `endpoint` had when it was met.
    ///
    /// # Errors
    /// `File` when the file is there and cannot be read.
    pub fn keys(&self, endpoint: &Endpoint) -> Result<Option<TrackerKeys>, Error> {
        Ok(self.look_up(endpoint)?.map(|(keys, _)| keys))
    }

    /// The same, and which messages it knew.
    pub(super) fn look_up(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Option<(TrackerKeys, Version)>, Error> {
        let (pems, version) = match self.read()?.remove(&endpoint.to_string()) {
            None => return Ok(None),
            Some(Known::Keys(pems)) => (pems, Version::V2),
            Some(Known::Legacy { keys, .. }) => (keys, Version::V1),
        };
        Ok(Some((TrackerKeys::new(pems)?, version)))
    }

    /// Remembers the keys of the tracker at `endpoint`, and which messages it `speaks`, durably.
    ///
    /// # Errors
    /// `File` when they cannot be written.
    pub fn remember(
        &self,
        endpoint: &Endpoint,
        keys: &TrackerKeys,
        speaks: Version,
    ) -> Result<(), Error> {
        let mut known = self.read()?;
        let new = Known::new(keys, speaks);
        if known.get(&endpoint.to_string()) == Some(&new) {
            return Ok(());
        }
        known.insert(endpoint.to_string(), new);
        let text = serde_json::to_string_pretty(&known).expect("texts make JSON") + "\n";
        if let Some(folder) = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder).map_err(|error| self.wrong(error))?;
        }
        replace(&self.path, text.as_bytes()).map_err(|error| self.wrong(error))
    }

    fn read(&self) -> Result<BTreeMap<String, Known>, Error> {
        match read_bounded(&self.path, FILE_BYTES_MAX) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| self.wrong(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(self.wrong(error)),
        }
    }

    fn wrong(&self, error: std::io::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            error,
        }
    }
}

/// Reads a file that must not be longer than it can sensibly be.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > bytes_max {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "too long to be what it should be",
        ));
    }
    std::fs::read_to_string(path)
}
