//! The relay: where a node keeps notices for its members to fetch. It proves who posts, keeps plan
//! documents on disk and lets pings and pongs pass.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use daybook_ledger::{PublicKey, block::BlockHash, consortium::Did};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::{sync::watch, time::timeout};

use crate::{
    disk::{DiskError, copy_table},
    network::{NoticeCursor, Notices},
    notice::Notice,
    users::random,
};

/// Kept notices by number.
const KEPT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("kept");
/// Those that are known already, by member, kind and `@id`.
const KNOWN: TableDefinition<'_, &str, u64> = TableDefinition::new("known");

/// Notices that pass by: who does not fetch them within so many others misses them, and asks again.
const PASSING_MAX: usize = 1_024;
/// Kept notices; beyond it the oldest goes. Members that are there have their own copies.
const KEPT_MAX: u64 = 100_000;
/// Notices of one fetch.
const FETCH_MAX: usize = 256;
/// Bytes of one fetch.
const FETCH_BYTES_MAX: usize = 1 << 20;
/// Notices that one member may post in a minute: pongs to every other member's health check.
const POSTS_PER_MINUTE_MAX: u32 = 600;
/// How long a fetch waits for the next notice.
const WAIT: Duration = Duration::from_secs(20);

/// Tells whether a key is a member's present one.
pub type IsKeyOf = Box<dyn Fn(Did, &PublicKey) -> bool + Send + Sync>;

/// The relay of a node.
pub struct Relay {
    path: PathBuf,
    /// Made when there is something to keep.
    file: OnceLock<Database>,
    making: Mutex<()>,
    network: BlockHash,
    is_key_of: IsKeyOf,
    /// Tells this run's passing notices from those of another.
    id: String,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    passing: VecDeque<Bytes>,
    /// The number of the last passing notice.
    passed: u64,
    minute: u64,
    posts: HashMap<Did, u32>,
}

/// Why a notice is not taken: a stable name and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotPosted {
    /// `malformed`, `stale`, `too_many` or `unavailable`.
    pub code: &'static str,
    /// The sentence.
    pub detail: String,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({})", self.id)
    }
}

impl Relay {
    /// Opens the relay's file, if there is one; it is made when there is something to keep.
    ///
    /// # Errors
    /// When it is damaged or in use.
    pub fn open(path: &Path, network: BlockHash, is_key_of: IsKeyOf) -> Result<Relay, DiskError> {
        let relay = Relay {
            path: path.to_owned(),
            file: OnceLock::new(),
            making: Mutex::default(),
            network,
            is_key_of,
            id: hex::encode(random::<8>()),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        if path.exists() {
            relay.made()?;
        }
        Ok(relay)
    }

    /// Copies what it keeps into a new file, as it is at this moment. Without anything kept there is none.
    ///
    /// # Errors
    /// When it cannot be read, or the copy cannot be written.
    pub fn copy_store(&self, to: &Path) -> Result<(), DiskError> {
        let Some(file) = self.file.get() else {
            return Ok(());
        };
        let failed = |error: &dyn fmt::Display| DiskError(format!("{}: {error}", to.display()));
        let copy = Database::create(to).map_err(|error| failed(&error))?;
        let (from, into) = (file.begin_read()?, copy.begin_write()?);
        copy_table(&from, &into, KEPT)?;
        copy_table(&from, &into, KNOWN)?;
        Ok(into.commit()?)
    }

    /// The file, made if need be.
    fn made(&self) -> Result<&Database, DiskError> {
        let _making = self.making.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let failed =
            |error: &dyn fmt::Display| DiskError(format!("{}: {error}", self.path.display()));
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        }
        let file = Database::create(&self.path).map_err(|error| failed(&error))?;
        let change = file.begin_write()?;
        change.open_table(KEPT)?;
        change.open_table(KNOWN)?;
        change.commit()?;
        Ok(self.file.get_or_init(|| file))
    }

    /// Takes a notice. One that is kept is on disk when this returns. Blocks on the disk.
    ///
    /// # Errors
    /// [`NotPosted`].
    pub fn post(&self, bytes: &Bytes, now_ms: u64) -> Result<(), NotPosted> {
        let no = |code, detail: &str| NotPosted {
            code,
            detail: detail.to_owned(),
        };
        let notice = Notice::open(bytes, self.network, &*self.is_key_of)
            .map_err(|bad| no("malformed", bad.0))?;
        if !notice.is_fresh(now_ms) {
            return Err(no("stale", "the notice was not signed just now"));
        }
        {
            let mut state = self.state.lock();
            let minute = now_ms / 60_000;
            if state.minute != minute {
                state.minute = minute;
                state.posts.clear();
            }
            let posts = state.posts.entry(notice.member).or_default();
            *posts += 1;
            if *posts > POSTS_PER_MINUTE_MAX {
                return Err(no("too_many", "too many notices: try again in a minute"));
            }
        }
        match notice.kind() {
            "ping" | "pong" => {
                let mut state = self.state.lock();
                state.passing.push_back(bytes.clone());
                state.passed += 1;
                if state.passing.len() > PASSING_MAX {
                    state.passing.pop_front();
                }
            }
            "gu-11" | "gu-12" => {
                let name = format!("{}/{}/{}", notice.member, notice.kind(), notice.text("id"));
                self.keep(&name, bytes).map_err(|error| {
                    tracing::error!(%error, "the relay cannot write");
                    no("unavailable", "the relay cannot write")
                })?;
            }
            _ => return Err(no("malformed", "the kind of notice is unknown")),
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn keep(&self, name: &str, bytes: &Bytes) -> Result<(), DiskError> {
        let change = self.made()?.begin_write()?;
        {
            let mut known = change.open_table(KNOWN)?;
            if known.get(name)?.is_some() {
                return Ok(());
            }
            let mut kept = change.open_table(KEPT)?;
            let number = kept.last()?.map_or(1, |(number, _)| number.value() + 1);
            kept.insert(number, bytes.as_ref())?;
            known.insert(name, number)?;
            if kept.len()? > KEPT_MAX {
                let oldest = kept.pop_first()?.map(|(number, _)| number.value());
                known.retain(|_, number| Some(number) != oldest)?;
            }
        }
        Ok(change.commit()?)
    }

    /// Notices behind `after`. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fetch(&self, after: &NoticeCursor) -> Result<Notices, DiskError> {
        let mut found = Notices {
            next: after.clone(),
            notices: Vec::new(),
        };
        let mut bytes = 0;
        if let Some(file) = self.file.get() {
            let table = file.begin_read()?.open_table(KEPT)?;
            for row in table.range(after.kept.saturating_add(1)..)? {
                let (number, notice) = row?;
                if found.notices.len() >= FETCH_MAX || bytes > FETCH_BYTES_MAX {
                    break;
                }
                bytes += notice.value().len();
                found.next.kept = number.value();
                found.notices.push(Bytes::copy_from_slice(notice.value()));
            }
        }
        let state = self.state.lock();
        let first = state.passed - state.passing.len() as u64;
        let seen = match after.relay == self.id {
            true => after.passing.clamp(first, state.passed),
            // Who comes anew wants what comes, not what was.
            false => state.passed,
        };
        let skipped = usize::try_from(seen - first).unwrap_or(usize::MAX);
        found
            .notices
            .extend(state.passing.iter().skip(skipped).cloned());
        found.next.passing = state.passed;
        found.next.relay.clone_from(&self.id);
        Ok(found)
    }

    /// Waits for something new behind `after`, for a while. To be followed by [`Relay::fetch`].
    pub async fn wait(&self, after: &NoticeCursor) {
        let mut changed = self.changed.subscribe();
        if after.relay != self.id {
            return;
        }
        changed.mark_unchanged();
        if self.state.lock().passed > after.passing || self.last_kept() > after.kept {
            return;
        }
        let _ = timeout(WAIT, changed.changed()).await;
    }

    fn last_kept(&self) -> u64 {
        let last = || -> Result<u64, DiskError> {
            let Some(file) = self.file.get() else {
                return Ok(0);
            };
            let table = file.begin_read()?.open_table(KEPT)?;
            Ok(table.last()?.map_or(0, |(number, _)| number.value()))
        };
        last().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::{SigningKey, json::Value};

    use super::*;
    use crate::notice::sign;

    const NETWORK: BlockHash = BlockHash([3; 32]);

    fn relay(path: &Path) -> Relay {
        let known = |did: Did, key: &PublicKey| did == Did::of(key);
        Relay::open(path, NETWORK, Box::new(known)).unwrap()
    }

    fn notice(kind: &str, id: &str) -> Bytes {
        let key = SigningKey::from_seed([1; 32]);
        let members = [("id", Value::from(id))];
        sign(
            NETWORK,
            Did::of(&key.public_key()),
            kind,
            members,
            100,
            &key,
        )
    }

    #[test]
    fn plans_are_kept_over_a_restart_and_pings_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.redb");
        let first = relay(&path);
        let start = first.fetch(&NoticeCursor::default()).unwrap().next;
        for (kind, id) in [
            ("gu-11", "a"),
            ("ping", "p"),
            ("gu-11", "a"),
            ("gu-12", "a"),
        ] {
            first.post(&notice(kind, id), 100_000).unwrap();
        }
        let fetched = first.fetch(&start).unwrap();
        assert_eq!(fetched.notices.len(), 3);
        assert_eq!(first.fetch(&fetched.next).unwrap().notices.len(), 0);
        // Who was never there gets what is kept.
        let new = first.fetch(&NoticeCursor::default()).unwrap();
        assert_eq!(new.notices.len(), 2);
        drop(first);
        let second = relay(&path);
        assert_eq!(second.fetch(&start).unwrap().notices.len(), 2);
        second.post(&notice("ping", "q"), 100_000).unwrap();
        assert_eq!(second.fetch(&fetched.next).unwrap().notices.len(), 0);
    }

    #[test]
    fn what_is_stale_unknown_or_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let relay = relay(&dir.path().join("relay.redb"));
        let code = |bytes: &Bytes, now| relay.post(bytes, now).unwrap_err().code;
        assert_eq!(code(&notice("ping", "p"), 900_000), "stale");
        assert_eq!(code(&notice("other", "p"), 100_000), "malformed");
        assert_eq!(code(&Bytes::from_static(b"{}"), 100_000), "malformed");
        let ping = notice("ping", "p");
        let mut codes = (0..=POSTS_PER_MINUTE_MAX).map(|_| relay.post(&ping, 160_000).err());
        assert_eq!(codes.find_map(|e| e).unwrap().code, "too_many");
        assert!(relay.post(&ping, 220_000).is_ok());
    }
}
