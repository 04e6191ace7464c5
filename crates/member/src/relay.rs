//! The relay: where a node keeps notices for its members to fetch. It proves who posts and who reads, keeps
//! plan documents on disk and lets pings and pongs pass.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use daybook_ledger::{PublicKey, SigningKey, block::BlockHash, consortium::Did, json::Object};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::{sync::watch, time::timeout};

use crate::{
    disk::{DiskError, copy_table},
    network::{NoticeCursor, Notices},
    notice::{self, Notice},
    users::random,
};

/// Kept notices by number.
const KEPT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("kept");
/// Those that are known already, by member, kind and `@id`.
const KNOWN: TableDefinition<'_, &str, u64> = TableDefinition::new("known");
/// What the file remembers of itself.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
/// The fact that tells this file's numbers from those of any other, and of this one before it was put back
/// from a backup: random, made with the file. A copy has none, so that whoever opens one makes another.
const EPOCH: &str = "epoch";
/// The fact that tells how many bytes the kept notices have; counted again where it is missing.
const BYTES: &str = "bytes";

/// Notices that pass by: who does not fetch them within so many others misses them, and asks again.
const PASSING_MAX: usize = 1_024;
/// Bytes of a notice that passes by: names, an id and a signature.
const PASSING_BYTES_MAX: usize = 2 << 10;
/// Kept notices; beyond it the oldest goes. Members that are there have their own copies.
const KEPT_MAX: u64 = 100_000;
/// Bytes of all kept notices, beyond which the oldest go, too: a hundred thousand of the usual size, where the
/// longest would fill twelve gigabytes.
const KEPT_BYTES_MAX: u64 = 2 << 30;
/// Notices of one fetch, of the kept and of the passing ones each.
const FETCH_MAX: usize = 256;
/// Bytes of the kept notices of one fetch, and one more notice; those that pass are short.
const FETCH_BYTES_MAX: usize = 1 << 20;
/// Pings that one member may post in a minute: a health check stands for ten seconds, and a member that is
/// started again asks anew. Every ping is answered by all others.
const PINGS_PER_MINUTE_MAX: u32 = 30;
/// Pongs that one member may post in a minute: to a hundred others that ask every ten seconds.
const PONGS_PER_MINUTE_MAX: u32 = 600;
/// Plan documents that one member may post in a minute: a month's plans of a large shipper at once. They are
/// counted by themselves, so that signs of life never keep them out.
const PLANS_PER_MINUTE_MAX: u32 = 600;
/// How long a fetch waits for the next notice.
const WAIT: Duration = Duration::from_secs(20);
/// The kind of notice by which a member shows who reads.
const READING: &str = "read-notices";

/// The code of a notice whose `@id` its member gave to something else before.
pub(crate) const ID_REUSED: &str = "id_reused";

/// Tells whether a key is a member's present one.
pub type IsKeyOf = Box<dyn Fn(Did, &PublicKey) -> bool + Send + Sync>;

/// The relay of a node.
pub struct Relay {
    path: PathBuf,
    /// Made when there is something to keep.
    file: OnceLock<File>,
    making: Mutex<()>,
    kept_bytes_max: u64,
    network: BlockHash,
    is_key_of: IsKeyOf,
    /// Tells this run's passing notices from those of another.
    id: String,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// What is kept.
struct File {
    database: Database,
    epoch: String,
}

#[derive(Debug, Default)]
struct State {
    passing: VecDeque<Bytes>,
    /// The number of the last passing notice.
    passed: u64,
    /// The number of the last kept notice.
    kept: u64,
    minute: u64,
    /// What members posted in this minute; there is one for each, since they are known by their keys.
    posts: HashMap<Did, Posts>,
}

#[derive(Debug, Default)]
struct Posts {
    pings: u32,
    pongs: u32,
    plans: u32,
}

/// What a notice is to the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ping,
    Pong,
    Plan,
}

/// Why a notice is not taken: a stable name and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotPosted {
    /// `malformed`, `stale`, `too_large`, `id_reused`, `too_many` or `unavailable`.
    pub code: &'static str,
    /// The sentence.
    pub detail: String,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({})", self.id)
    }
}

/// What a member shows to read a relay; good for some minutes.
pub(crate) fn reading(network: BlockHash, member: Did, seconds: u64, key: &SigningKey) -> Bytes {
    notice::sign(network, member, READING, [], seconds, key)
}

/// Copies what the relay of a node that is not running keeps, as [`Relay::copy_store`] does.
///
/// # Errors
/// When it cannot be read or somebody uses it, or the copy cannot be written.
pub fn copy_relay(path: &Path, to: &Path) -> Result<(), DiskError> {
    copy(&create(path)?, to)
}

fn create(path: &Path) -> Result<Database, DiskError> {
    Database::create(path).map_err(|error| DiskError(format!("{}: {error}", path.display())))
}

fn copy(file: &Database, to: &Path) -> Result<(), DiskError> {
    let copy = create(to)?;
    let (from, into) = (file.begin_read()?, copy.begin_write()?);
    copy_table(&from, &into, KEPT)?;
    copy_table(&from, &into, KNOWN)?;
    Ok(into.commit()?)
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
            kept_bytes_max: KEPT_BYTES_MAX,
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
    /// Whoever opens the copy gives other numbers: readers of this one begin anew there.
    ///
    /// # Errors
    /// When it cannot be read, or the copy cannot be written.
    pub fn copy_store(&self, to: &Path) -> Result<(), DiskError> {
        match self.file.get() {
            Some(file) => copy(&file.database, to),
            None => Ok(()),
        }
    }

    /// The file, made if need be.
    fn made(&self) -> Result<&File, DiskError> {
        let _making = self.making.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| DiskError(format!("{}: {error}", self.path.display())))?;
        }
        let database = create(&self.path)?;
        let change = database.begin_write()?;
        let epoch = {
            change.open_table(KNOWN)?;
            let kept = change.open_table(KEPT)?;
            let last = kept.last()?.map_or(0, |(number, _)| number.value());
            self.state.lock().kept = last;
            let mut facts = change.open_table(FACTS)?;
            if facts.get(BYTES)?.is_none() {
                let mut held = 0;
                for row in kept.iter()? {
                    held += row?.1.value().len() as u64;
                }
                facts.insert(BYTES, held.to_be_bytes().as_slice())?;
            }
            let known = facts.get(EPOCH)?.map(|epoch| hex::encode(epoch.value()));
            match known {
                Some(known) => known,
                None => {
                    let fresh = random::<16>();
                    facts.insert(EPOCH, fresh.as_slice())?;
                    hex::encode(fresh)
                }
            }
        };
        change.commit()?;
        Ok(self.file.get_or_init(|| File { database, epoch }))
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
        let kind = match notice.kind() {
            "ping" => Kind::Ping,
            "pong" => Kind::Pong,
            "gu-11" | "gu-12" => Kind::Plan,
            _ => return Err(no("malformed", "the kind of notice is unknown")),
        };
        if kind != Kind::Plan && bytes.len() > PASSING_BYTES_MAX {
            let words = format!("a {} has at most {PASSING_BYTES_MAX} bytes", notice.kind());
            return Err(no("too_large", &words));
        }
        let mut state = self.state.lock();
        if !state.counts(notice.member, kind, now_ms) {
            return Err(no("too_many", "too many notices: try again in a minute"));
        }
        if kind == Kind::Plan {
            drop(state);
            let kept = self.keep(&notice, bytes).map_err(|error| {
                tracing::error!(%error, "the relay cannot write");
                no("unavailable", "the relay cannot write")
            })?;
            if !kept {
                let words = "this \"@id\" was used for something else: give every document its own";
                return Err(no(ID_REUSED, words));
            }
        } else {
            state.passing.push_back(bytes.clone());
            state.passed += 1;
            if state.passing.len() > PASSING_MAX {
                state.passing.pop_front();
            }
            drop(state);
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Whether it is kept, now or from before: not when its name stands for something else.
    fn keep(&self, notice: &Notice, bytes: &Bytes) -> Result<bool, DiskError> {
        let name = name_of(&notice.body);
        let change = self.made()?.database.begin_write()?;
        let number = {
            let mut known = change.open_table(KNOWN)?;
            let mut kept = change.open_table(KEPT)?;
            let before = known.get(name.as_str())?.map(|number| number.value());
            if let Some(number) = before {
                let first = kept
                    .get(number)?
                    .and_then(|first| notice::body(first.value()));
                return Ok(first.is_none_or(|first| first == notice.body));
            }
            let number = kept.last()?.map_or(1, |(number, _)| number.value() + 1);
            kept.insert(number, bytes.as_ref())?;
            known.insert(name.as_str(), number)?;
            let mut facts = change.open_table(FACTS)?;
            let held = facts
                .get(BYTES)?
                .and_then(|held| held.value().try_into().ok());
            let mut held = held.map_or(0, u64::from_be_bytes) + bytes.len() as u64;
            while kept.len()? > KEPT_MAX || held > self.kept_bytes_max {
                let oldest = kept.pop_first()?.map(|(_, oldest)| oldest.value().to_vec());
                let Some(oldest) = oldest else { break };
                held = held.saturating_sub(oldest.len() as u64);
                if let Some(oldest) = notice::body(&oldest) {
                    known.remove(name_of(&oldest).as_str())?;
                }
            }
            facts.insert(BYTES, held.to_be_bytes().as_slice())?;
            number
        };
        change.commit()?;
        let mut state = self.state.lock();
        state.kept = state.kept.max(number);
        Ok(true)
    }

    /// Whether what a reader shows is a present member's wish to read, signed just now.
    pub fn may_read(&self, shown: &[u8], now_ms: u64) -> bool {
        Notice::open(shown, self.network, &*self.is_key_of)
            .is_ok_and(|notice| notice.kind() == READING && notice.is_fresh(now_ms))
    }

    /// Notices behind `after`; all that are kept, for a reader that counts by another file's numbers. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fetch(&self, after: &NoticeCursor) -> Result<Notices, DiskError> {
        let mut found = Notices::default();
        found.next.relay.clone_from(&self.id);
        let mut bytes = 0;
        if let Some(file) = self.file.get() {
            let table = file.database.begin_read()?.open_table(KEPT)?;
            let last = table.last()?.map_or(0, |(number, _)| number.value());
            // A number that was never given here is of a file that was put back by hand.
            let goes_on = after.epoch == file.epoch && after.kept <= last;
            found.next.epoch.clone_from(&file.epoch);
            found.next.kept = if goes_on { after.kept } else { 0 };
            for row in table.range(found.next.kept.saturating_add(1)..)? {
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
        let behind = state.passing.iter().skip(skipped).take(FETCH_MAX);
        found.next.passing = seen + behind.len() as u64;
        found.notices.extend(behind.cloned());
        Ok(found)
    }

    /// Waits for something new behind `after`, for a while. To be followed by [`Relay::fetch`].
    pub async fn wait(&self, after: &NoticeCursor) {
        let mut changed = self.changed.subscribe();
        changed.mark_unchanged();
        let epoch = self.file.get().map_or("", |file| file.epoch.as_str());
        if after.relay != self.id || after.epoch != epoch {
            return;
        }
        {
            let state = self.state.lock();
            if state.passed > after.passing || state.kept != after.kept {
                return;
            }
        }
        let _ = timeout(WAIT, changed.changed()).await;
    }
}

impl State {
    /// Whether a member may post one more of a kind in this minute.
    fn counts(&mut self, member: Did, kind: Kind, now_ms: u64) -> bool {
        let minute = now_ms / 60_000;
        if self.minute != minute {
            self.minute = minute;
            self.posts.clear();
        }
        let posts = self.posts.entry(member).or_default();
        let (count, most) = match kind {
            Kind::Ping => (&mut posts.pings, PINGS_PER_MINUTE_MAX),
            Kind::Pong => (&mut posts.pongs, PONGS_PER_MINUTE_MAX),
            Kind::Plan => (&mut posts.plans, PLANS_PER_MINUTE_MAX),
        };
        *count = count.saturating_add(1);
        *count <= most
    }
}

/// The name under which a notice is known: no two parts of it can be taken for others, since neither a DID nor
/// a kind holds a slash.
fn name_of(body: &Object) -> String {
    let text = |name: &str| body.get(name).and_then(|text| text.as_str()).unwrap_or("");
    format!("{}/{}/{}", text("member"), text("kind"), text("id"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::json::Value;

    use super::*;
    use crate::notice::sign;

    const NETWORK: BlockHash = BlockHash([3; 32]);

    fn relay(path: &Path) -> Relay {
        let known = |did: Did, key: &PublicKey| did == Did::of(key);
        Relay::open(path, NETWORK, Box::new(known)).unwrap()
    }

    fn by(seed: u8, kind: &str, members: &[(&'static str, &str)]) -> Bytes {
        let key = SigningKey::from_seed([seed; 32]);
        let did = Did::of(&key.public_key());
        let members = members
            .iter()
            .map(|(name, text)| (*name, Value::from(*text)));
        sign(NETWORK, did, kind, members, 100, &key)
    }

    fn notice(kind: &str, id: &str) -> Bytes {
        by(1, kind, &[("id", id)])
    }

    fn ids(notices: &Notices) -> Vec<String> {
        let id = |bytes: &Bytes| {
            let body = notice::body(bytes).unwrap();
            body.get("id").and_then(Value::as_str).unwrap().to_owned()
        };
        notices.notices.iter().map(id).collect()
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
    fn a_reader_that_was_ahead_of_a_restored_relay_begins_anew_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let first = relay(&path("first"));
        first.post(&notice("gu-11", "a"), 100_000).unwrap();
        first.copy_store(&path("second")).unwrap();
        std::fs::copy(path("second"), path("third")).unwrap();
        first.post(&notice("gu-11", "b"), 100_000).unwrap();
        let ahead = first.fetch(&NoticeCursor::default()).unwrap().next;
        assert_eq!(ahead.kept, 2);
        // The numbers go on as if nothing had been lost, and stand for other notices.
        let second = relay(&path("second"));
        second.post(&notice("gu-11", "c"), 100_000).unwrap();
        let fetched = second.fetch(&ahead).unwrap();
        assert_eq!(ids(&fetched), ["a", "c"]);
        assert_eq!(ids(&second.fetch(&fetched.next).unwrap()), [""; 0]);
        // The same backup put back once more is another one still.
        let third = relay(&path("third"));
        third.post(&notice("gu-11", "d"), 100_000).unwrap();
        assert_eq!(ids(&third.fetch(&fetched.next).unwrap()), ["a", "d"]);
        // One that is opened again is the same.
        let read = third.fetch(&fetched.next).unwrap().next;
        drop(third);
        assert_eq!(ids(&relay(&path("third")).fetch(&read).unwrap()), [""; 0]);
    }

    #[test]
    fn a_reader_with_a_number_that_was_never_given_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.redb");
        let relay = relay(&path);
        relay.post(&notice("gu-11", "a"), 100_000).unwrap();
        let mut ahead = relay.fetch(&NoticeCursor::default()).unwrap().next;
        ahead.kept = 7;
        assert_eq!(ids(&relay.fetch(&ahead).unwrap()), ["a"]);
    }

    #[test]
    fn a_document_under_a_used_id_is_refused_and_the_same_one_is_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let relay = relay(&dir.path().join("relay.redb"));
        let plan = |no: &str| by(1, "gu-11", &[("id", "a"), ("message", no)]);
        relay.post(&plan("one"), 100_000).unwrap();
        relay.post(&plan("one"), 100_000).unwrap();
        let refused = relay.post(&plan("two"), 100_000).unwrap_err();
        assert_eq!(refused.code, ID_REUSED);
        // Another member's names are its own.
        relay
            .post(&by(2, "gu-11", &[("id", "a"), ("message", "two")]), 100_000)
            .unwrap();
        let kept = relay.fetch(&NoticeCursor::default()).unwrap();
        assert_eq!(kept.notices.len(), 2);
    }

    #[test]
    fn what_is_stale_unknown_or_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let relay = relay(&dir.path().join("relay.redb"));
        let code = |bytes: &Bytes, now| relay.post(bytes, now).unwrap_err().code;
        assert_eq!(code(&notice("ping", "p"), 900_000), "stale");
        assert_eq!(code(&notice("other", "p"), 100_000), "malformed");
        assert_eq!(code(&Bytes::from_static(b"{}"), 100_000), "malformed");
        let long = "x".repeat(PASSING_BYTES_MAX);
        for kind in ["ping", "pong"] {
            assert_eq!(code(&notice(kind, &long), 100_000), "too_large");
        }
        relay.post(&notice("gu-11", &long), 100_000).unwrap();
    }

    #[test]
    fn signs_of_life_have_an_allowance_a_minute_and_keep_no_plan_document_out() {
        let dir = tempfile::tempdir().unwrap();
        let relay = relay(&dir.path().join("relay.redb"));
        for (kind, most) in [
            ("ping", PINGS_PER_MINUTE_MAX),
            ("pong", PONGS_PER_MINUTE_MAX),
        ] {
            let one = notice(kind, "p");
            for _ in 0..most {
                relay.post(&one, 160_000).unwrap();
            }
            assert_eq!(relay.post(&one, 160_000).unwrap_err().code, "too_many");
            // Another member's allowance is its own, and the next minute brings a new one.
            relay.post(&by(2, kind, &[]), 160_000).unwrap();
            relay.post(&one, 220_000).unwrap();
        }
        relay.post(&notice("gu-11", "a"), 160_000).unwrap();
    }

    #[test]
    fn plan_documents_have_an_allowance_of_their_own() {
        let mut state = State::default();
        let did = Did([1; 16]);
        for _ in 0..PLANS_PER_MINUTE_MAX {
            assert!(state.counts(did, Kind::Plan, 0));
        }
        assert!(!state.counts(did, Kind::Plan, 59_999));
        assert!(state.counts(did, Kind::Ping, 59_999));
        assert!(state.counts(did, Kind::Plan, 60_000));
    }

    #[test]
    fn the_oldest_documents_go_when_all_of_them_are_too_many_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.redb");
        let one = notice("gu-11", "0").len() as u64;
        let bounded = || {
            let mut relay = relay(&path);
            relay.kept_bytes_max = 3 * one;
            relay
        };
        let first = bounded();
        for id in ["0", "1", "2", "3"] {
            first.post(&notice("gu-11", id), 100_000).unwrap();
        }
        let all = |relay: &Relay| ids(&relay.fetch(&NoticeCursor::default()).unwrap());
        assert_eq!(all(&first), ["1", "2", "3"]);
        // The count goes on after a restart, and is made anew in a copy.
        let copy = dir.path().join("copy.redb");
        first.copy_store(&copy).unwrap();
        drop(first);
        let second = bounded();
        second.post(&notice("gu-11", "4"), 100_000).unwrap();
        assert_eq!(all(&second), ["2", "3", "4"]);
        drop(second);
        std::fs::rename(&copy, &path).unwrap();
        let third = bounded();
        third.post(&notice("gu-11", "5"), 100_000).unwrap();
        assert_eq!(all(&third), ["2", "3", "5"]);
        // What went is not known any more.
        third.post(&notice("gu-11", "0"), 100_000).unwrap();
        assert_eq!(all(&third), ["3", "5", "0"]);
    }

    #[test]
    fn a_fetch_is_bounded_and_the_next_one_goes_on_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let relay = relay(&dir.path().join("relay.redb"));
        let mut cursor = relay.fetch(&NoticeCursor::default()).unwrap().next;
        for number in 0..FETCH_MAX + 10 {
            relay
                .post(&notice("pong", &number.to_string()), 100_000)
                .unwrap();
        }
        let mut seen = Vec::new();
        for expected in [FETCH_MAX, 10, 0] {
            let fetched = relay.fetch(&cursor).unwrap();
            assert_eq!(fetched.notices.len(), expected);
            seen.extend(ids(&fetched));
            cursor = fetched.next;
        }
        assert!(
            seen.iter()
                .enumerate()
                .all(|(at, id)| *id == at.to_string())
        );
    }

    #[test]
    fn only_a_member_that_signed_just_now_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.redb");
        let member = SigningKey::from_seed([1; 32]);
        let did = Did::of(&member.public_key());
        let known = move |member: Did, key: &PublicKey| member == did && did == Did::of(key);
        let relay = Relay::open(&path, NETWORK, Box::new(known)).unwrap();
        let shown = reading(NETWORK, did, 100, &member);
        assert!(relay.may_read(&shown, 100_000));
        assert!(
            !relay.may_read(&shown, 900_000),
            "it was caught and shown later"
        );
        assert!(
            !relay.may_read(&notice("ping", "p"), 100_000),
            "it means something else"
        );
        let stranger = SigningKey::from_seed([2; 32]);
        let foreign = reading(NETWORK, Did::of(&stranger.public_key()), 100, &stranger);
        assert!(!relay.may_read(&foreign, 100_000));
        let elsewhere = reading(BlockHash([4; 32]), did, 100, &member);
        assert!(!relay.may_read(&elsewhere, 100_000));
        assert!(!relay.may_read(b"", 100_000));
    }
}
