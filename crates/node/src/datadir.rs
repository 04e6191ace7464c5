//! The data directory: made on the first start, locked by one process at a time.
//!
//! ```text
//! daybook-data/          0700
//!   lock                 held by the running node; its process id is inside
//!   node.key             0600, the key that blocks are signed with
//!   tracker-*.key        0600, the tracker's keys; token.key issues its tokens (`tracker`)
//!   faucet.key           0600, of a development node
//!   genesis.json         how the chain began
//!   daybook.toml         settings
//!   control.sock         0600, where the running node takes orders from its own machine
//!   bus/                 services and their key hashes, durable subscriptions of the service bus
//!   members/             members of the consortium that live here (`member`)
//!   ledger/              the log of blocks and what follows from it (docs/format.md)
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use daybook_ledger::{
    BlockTime, PublicKey, SigningKey,
    block::{Genesis, Validator},
};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Exit, Failure},
    keyfile,
    passphrase::Source,
    settings,
};

/// Voting power of the only validator of a chain that one node begins: ten, as in the networks that
/// the protocol comes from, so that shares of it can be voted on.
const FIRST_VALIDATOR_POWER: u64 = 10;
/// Bytes of a genesis file at most.
const GENESIS_BYTES_MAX: u64 = 1 << 20;

/// A data directory, by its path.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

/// The exclusive use of a data directory, given back when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisFile {
    chain: String,
    time: u64,
    validators: Vec<ValidatorEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidatorEntry {
    public_key: String,
    power: u64,
}

impl DataDir {
    pub(crate) fn new(path: impl Into<PathBuf>) -> DataDir {
        DataDir(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.0.join("ledger")
    }

    pub(crate) fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// Every key that the node has made for itself: they stand beside each other and end in `.key`, so
    /// that a backup cannot leave one out. Without the tracker's, nobody can move what it owes.
    pub(crate) fn key_files(&self) -> Result<Vec<PathBuf>, Failure> {
        let system = |e: io::Error| Failure::system(self.0.display(), &e);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(system)? {
            let path = entry.map_err(system)?.path();
            if path.extension().is_some_and(|end| end == "key") && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// What the service bus keeps.
    pub(crate) fn bus(&self) -> PathBuf {
        self.0.join("bus")
    }

    /// The services of the bus and the hashes of their keys.
    pub(crate) fn services_file(&self) -> PathBuf {
        self.bus().join("services.json")
    }

    pub(crate) fn genesis_file(&self) -> PathBuf {
        self.0.join("genesis.json")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Makes the directory if it is missing, for its owner only.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|e| Failure::system(self.0.display(), &e))
    }

    /// Refuses a directory that no node ever used.
    pub(crate) fn must_exist(&self) -> Result<(), Failure> {
        if self.genesis_file().is_file() {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{} is not the data directory of a node",
            self.0.display()
        )))
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// `InUse` when another process has it.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        let path = self.0.join("lock");
        let system = |error: io::Error| Failure::system(path.display(), &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(system)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The number is a help for people; the lock is what decides.
                let _ = (&file).take(20).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                };
                return Err(Failure::new(
                    Exit::InUse,
                    format!("another node{holder} uses {}", self.0.display()),
                ));
            }
            Err(error) => return Err(system(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(system)?;
        Ok(Lock(file))
    }

    /// The node's key and the chain's beginning, made on the first start. The key's file is encrypted
    /// when a passphrase is given on that day.
    pub(crate) fn open(
        &self,
        chain: &str,
        passphrase: &Source,
    ) -> Result<(SigningKey, Genesis), Failure> {
        if !self.node_key().exists() {
            if self.genesis_file().exists() {
                return Err(Failure::refused(format!(
                    "{} is missing, but the chain in {} has begun with it",
                    self.node_key().display(),
                    self.0.display()
                )));
            }
            let given = passphrase.given()?;
            keyfile::write(&self.node_key(), &keyfile::generate(), given.as_ref())?;
        }
        let key = keyfile::read_with(&self.node_key(), passphrase)?;
        if !self.genesis_file().exists() {
            if self.ledger().exists() {
                return Err(Failure::refused(format!(
                    "{} is missing, but {} holds a ledger",
                    self.genesis_file().display(),
                    self.0.display()
                )));
            }
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let genesis = Genesis {
                chain: chain.to_owned(),
                time: BlockTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
                validators: vec![Validator {
                    key: key.public_key(),
                    power: FIRST_VALIDATOR_POWER,
                }],
            };
            self.write_genesis(&genesis)?;
        }
        let config = self.0.join(settings::FILE_NAME);
        if !config.exists() {
            keyfile::write_new(&config, settings::template().as_bytes(), 0o600)
                .map_err(|e| Failure::system(config.display(), &e))?;
        }
        Ok((key, self.genesis()?))
    }

    fn write_genesis(&self, genesis: &Genesis) -> Result<(), Failure> {
        let file = GenesisFile {
            chain: genesis.chain.clone(),
            time: genesis.time.0,
            validators: genesis
                .validators
                .iter()
                .map(|v| ValidatorEntry {
                    public_key: v.key.to_string(),
                    power: v.power,
                })
                .collect(),
        };
        let text = serde_json::to_string_pretty(&file).expect("texts and numbers make JSON") + "\n";
        keyfile::write_new(&self.genesis_file(), text.as_bytes(), 0o644)
            .map_err(|e| Failure::system(self.genesis_file().display(), &e))
    }

    /// How the chain in this directory began.
    pub(crate) fn genesis(&self) -> Result<Genesis, Failure> {
        let path = self.genesis_file();
        let system = |error: io::Error| Failure::system(path.display(), &error);
        let bad = |what: String| Failure::new(Exit::Damaged, format!("{}: {what}", path.display()));
        if fs::metadata(&path).map_err(system)?.len() > GENESIS_BYTES_MAX {
            return Err(bad("too long".to_owned()));
        }
        let text = fs::read_to_string(&path).map_err(system)?;
        let file: GenesisFile = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let validators = file
            .validators
            .iter()
            .map(|entry| {
                let key: PublicKey = entry.public_key.parse().map_err(|e| bad(format!("{e}")))?;
                Ok(Validator {
                    key,
                    power: entry.power,
                })
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Genesis {
            chain: file.chain,
            time: BlockTime(file.time),
            validators,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_everything_and_the_second_finds_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::new(parent.path().join("a/b"));
        dir.make().unwrap();
        let (key, genesis) = dir.open("testnet", &Source::default()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.node_key()), 0o600);
        assert_eq!(genesis.chain, "testnet");
        assert_eq!(
            genesis.validators,
            [Validator {
                key: key.public_key(),
                power: 10
            }]
        );
        let (again, same) = dir.open("another name", &Source::default()).unwrap();
        assert_eq!((again.public_key(), same), (key.public_key(), genesis));
    }

    #[test]
    fn a_chain_whose_key_or_genesis_is_gone_is_not_begun_anew() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::new(parent.path());
        dir.open("x", &Source::default()).unwrap();
        fs::create_dir(dir.ledger()).unwrap();
        fs::remove_file(dir.node_key()).unwrap();
        assert!(
            dir.open("x", &Source::default())
                .unwrap_err()
                .message
                .contains("node.key is missing")
        );
        keyfile::write(&dir.node_key(), &keyfile::generate(), None).unwrap();
        fs::remove_file(dir.genesis_file()).unwrap();
        assert!(
            dir.open("x", &Source::default())
                .unwrap_err()
                .message
                .contains("genesis.json is missing")
        );
    }

    #[test]
    fn one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::new(parent.path());
        let lock = dir.lock().unwrap();
        let failure = dir.lock().unwrap_err();
        assert_eq!(failure.exit, Exit::InUse);
        assert!(
            failure
                .message
                .contains(&format!("(process {})", std::process::id()))
        );
        drop(lock);
        dir.lock().unwrap();
    }
}
