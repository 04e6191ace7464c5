//! Look-ups behind the commit point: one multi-map from hashed keys to packed positions.
//!
//! New entries are in memory; when there are enough they are written as a sorted run, and runs are
//! merged by fours, so that a look-up asks few of them and most say no from their filter. All runs
//! together reflect the log up to one height, which the manifest names; what is newer is indexed anew
//! at a start.

pub(crate) mod entries;
pub(crate) mod key;
mod memtable;
mod paged;
pub(crate) mod run;

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use daybook_ledger::{Height, block::BlockHash};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::{
    disk::Disk,
    error::{At, StoreError},
};
use key::Secret;
use memtable::{Memtable, Walk};
use run::{Cursor, Facts, Run, RunWriter};

const VERSION: u8 = 1;
const MAGIC: [u8; 3] = [0xF5, b'D', b'M'];
const MANIFEST_NAME: &str = "manifest";
/// Runs of one level that become one of the next: each entry is rewritten once a level, and a look-up
/// asks at most three runs a level.
const MERGE_RUNS: usize = 4;
/// Full tables waiting to be written before the publisher waits: bounds memory.
const SEALED_TABLES_MAX: usize = 3;
/// Values taken from a run at once, those of a page or two: a key's values can be millions, and a list
/// may walk hundreds of keys side by side. Also those taken from a table in memory under one hold of its
/// lock, which the next commit waits for.
const VALUES_AT_ONCE: u64 = 512;
/// Stands where a run that is merged has come to its end: behind every key, whose last bits are zero.
const ENDED: (u64, u64) = (u64::MAX, u64::MAX);
/// Bytes of the manifest before the list of runs, and of each run in it.
const MANIFEST_HEADER_BYTES: usize = 80;
const MANIFEST_RUN_BYTES: usize = 32;

/// The index.
pub(crate) struct Index {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What readers and the threads behind share.
pub(crate) struct Shared {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    chain: BlockHash,
    pub(crate) secret: Secret,
    tables: RwLock<Tables>,
    /// Held while the manifest is written.
    manifest: Mutex<Manifest>,
    signal: Mutex<Signal>,
    woken: Condvar,
    stop: AtomicBool,
}

struct Tables {
    active: Table,
    sealed: Arc<Sealed>,
}

/// A table in memory. Once it is sealed nobody writes to it; who began to read it before goes on.
type Table = Arc<RwLock<Memtable>>;

#[derive(Clone, Default)]
struct Sealed {
    /// Oldest first; all are newer than all runs.
    tables: Vec<Table>,
    /// Oldest first.
    runs: Vec<(Listed, Arc<Run>)>,
}

#[derive(Default)]
struct Signal {
    failed: Option<StoreError>,
    flushing: bool,
    merging: bool,
}

#[derive(Clone, Debug)]
struct Manifest {
    through: Height,
    next_number: u64,
}

/// A run as the manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    number: u64,
    level: u64,
    from: Height,
    to: Height,
}

impl Index {
    /// Opens the index of a data directory, or begins an empty one. `secret` is for an empty one.
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        chain: BlockHash,
        secret: Secret,
    ) -> Result<Index, StoreError> {
        let (manifest, secret, listed) = match read_manifest(dir, &*disk, chain)? {
            Some(read) => read,
            None => {
                let manifest = Manifest {
                    through: Height(0),
                    next_number: 1,
                };
                write_manifest(dir, &*disk, chain, secret, &manifest, &[])?;
                (manifest, secret, Vec::new())
            }
        };
        // Runs that no manifest names are left over from an unfinished step.
        let names: BTreeSet<_> = listed.iter().map(|run| run.name()).collect();
        for name in disk.list(dir).at(dir)? {
            if (name.ends_with(".run") && !names.contains(&name)) || name.ends_with(".run.tmp") {
                let path = dir.join(name);
                disk.remove(&path).at(&path)?;
            }
        }
        let runs = open_runs(dir, &*disk, &listed)?;
        let through = manifest.through;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            disk,
            chain,
            secret,
            tables: RwLock::new(Tables {
                active: Arc::new(RwLock::new(Memtable::new(through))),
                sealed: Arc::new(Sealed {
                    tables: Vec::new(),
                    runs,
                }),
            }),
            manifest: Mutex::new(manifest),
            signal: Mutex::new(Signal::default()),
            woken: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut index = Index {
            shared,
            threads: Vec::new(),
        };
        for (name, work) in [
            ("index-flush", Shared::flush_loop as fn(&Shared)),
            ("index-merge", Shared::merge_loop),
        ] {
            let shared = index.shared.clone();
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || work(&shared));
            index.threads.push(thread.at(dir)?);
        }
        Ok(index)
    }

    /// The reading side.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The height up to which entries are on disk.
    pub(crate) fn through(&self) -> Height {
        self.shared.manifest.lock().through
    }

    /// Adds the entries of the next block; returns how many are in memory now.
    pub(crate) fn add(&self, height: Height, entries: &[(u64, u64)]) -> usize {
        let tables = self.shared.tables.write();
        let mut active = tables.active.write();
        active.insert_all(entries);
        active.to = height;
        active.len()
    }

    /// Hands what is in memory to the writing thread. Waits when that is far behind.
    pub(crate) fn seal(&self) -> Result<(), StoreError> {
        self.wait_until(SEALED_TABLES_MAX - 1)?;
        // Only the caller adds to a table, so this one stays as it is; its successor is made before readers
        // have to wait.
        let active = self.shared.tables.read().active.clone();
        let next = {
            let active = active.read();
            if active.to < active.from {
                return Ok(());
            }
            Arc::new(RwLock::new(active.successor()))
        };
        let mut tables = self.shared.tables.write();
        let table = std::mem::replace(&mut tables.active, next);
        let mut sealed = Sealed::clone(&tables.sealed);
        sealed.tables.push(table);
        tables.sealed = Arc::new(sealed);
        drop(tables);
        self.shared.wake();
        Ok(())
    }

    /// Waits until at most `tables` full tables are not written yet.
    pub(crate) fn wait_until(&self, tables: usize) -> Result<(), StoreError> {
        let mut signal = self.shared.signal.lock();
        loop {
            if let Some(error) = &signal.failed {
                return Err(error.again());
            }
            if self.shared.sealed().tables.len() <= tables {
                return Ok(());
            }
            self.shared.woken.wait(&mut signal);
        }
    }

    /// Waits until nothing is left to write or to merge.
    #[cfg(test)]
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        self.wait_until(0)?;
        let mut signal = self.shared.signal.lock();
        while signal.failed.is_none() && (signal.merging || self.shared.mergeable().is_some()) {
            self.shared.woken.wait(&mut signal);
        }
        signal
            .failed
            .as_ref()
            .map_or(Ok(()), |error| Err(error.again()))
    }

    /// Writes what is in memory and stops the threads.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        self.seal()?;
        self.wait_until(0)?;
        self.stop();
        self.shared.signal.lock().failed.take().map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the index panicked");
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Fails the index when the thread that holds it panics: a mistake of ours, after which whoever waits for
/// the thread would wait for ever.
struct FailOnPanic<'s>(&'s Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = io::Error::other("an internal error ended a thread of the index");
            let path = self.0.dir.clone();
            self.0.fail(StoreError::Io { path, source });
        }
    }
}

impl Shared {
    /// The values of a key, oldest first, until `each` returns false.
    pub(crate) fn oldest_first(
        &self,
        key: u64,
        mut each: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut values = self.values(key);
        while let Some(value) = values.next()? {
            if !each(value)? {
                break;
            }
        }
        Ok(())
    }

    /// The values of a key, oldest first, as they are asked for.
    pub(crate) fn values(&self, key: u64) -> Values {
        let (sealed, active) = self.snapshot(key);
        Values {
            key,
            sealed,
            active: active.collect(),
            runs_begun: 0,
            tables_begun: 0,
            numbers: 0..0,
            taken: Vec::new().into_iter(),
        }
    }

    /// The values of a key, newest first, until `each` returns false.
    pub(crate) fn newest_first(
        &self,
        key: u64,
        mut each: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (sealed, active) = self.snapshot(key);
        for value in in_memory(active, &sealed, key) {
            if !each(value)? {
                return Ok(());
            }
        }
        for (_, run) in sealed.runs.iter().rev() {
            if !run.may_hold(key)? {
                continue;
            }
            let numbers = run.find(key)?;
            let mut end = numbers.end;
            while numbers.start < end {
                let start = numbers.start.max(end.saturating_sub(VALUES_AT_ONCE));
                for value in run.values(start..end)?.into_iter().rev() {
                    if !each(value)? {
                        return Ok(());
                    }
                }
                end = start;
            }
        }
        Ok(())
    }

    /// What is sealed, and the values of a key in what is not: of one moment.
    fn snapshot(&self, key: u64) -> (Arc<Sealed>, NewestFirst) {
        let tables = self.tables.read();
        let active = NewestFirst::new(tables.active.clone(), key);
        (tables.sealed.clone(), active)
    }

    /// Adds an entry as if its key had the hash of another by accident.
    #[cfg(test)]
    pub(crate) fn plant(&self, key: u64, value: u64) {
        self.tables.read().active.write().insert(key, value);
    }

    fn sealed(&self) -> Arc<Sealed> {
        self.tables.read().sealed.clone()
    }

    fn wake(&self) {
        // Taking the lock orders this behind a waiter's last look.
        drop(self.signal.lock());
        self.woken.notify_all();
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn fail(&self, error: StoreError) {
        tracing::error!(%error, "the index cannot be written");
        self.signal.lock().failed.get_or_insert(error);
        self.woken.notify_all();
    }

    fn flush_loop(&self) {
        let _guard = FailOnPanic(self);
        loop {
            let mut signal = self.signal.lock();
            let table = loop {
                if signal.failed.is_some() {
                    return;
                }
                if let Some(table) = self.sealed().tables.first() {
                    break table.clone();
                }
                if self.stopping() {
                    return;
                }
                self.woken.wait(&mut signal);
            };
            signal.flushing = true;
            drop(signal);
            let flushed = self.flush(&table.read());
            self.signal.lock().flushing = false;
            match flushed {
                Ok(()) => self.wake(),
                Err(error) => return self.fail(error),
            }
        }
    }

    fn flush(&self, table: &Memtable) -> Result<(), StoreError> {
        let pairs = table.sorted();
        if pairs.is_empty() {
            return self.replace(&[], None, table.to);
        }
        let keys = 1 + pairs
            .windows(2)
            .filter(|pair| pair[0].0 != pair[1].0)
            .count() as u64;
        let facts = Facts {
            entries: pairs.len() as u64,
            keys,
            from: table.from,
            to: table.to,
        };
        let number = self.take_number();
        let listed = Listed {
            number,
            level: 0,
            from: table.from,
            to: table.to,
        };
        let temporary = self.dir.join(format!("{}.tmp", listed.name()));
        let mut writer = RunWriter::create(&temporary, &*self.disk, facts)?;
        for (key, value) in pairs {
            writer.push(key, value)?;
        }
        writer.finish()?;
        let run = self.adopt(&temporary, listed)?;
        self.replace(&[], Some((listed, run)), table.to)
    }

    fn merge_loop(&self) {
        let _guard = FailOnPanic(self);
        loop {
            let mut signal = self.signal.lock();
            let runs = loop {
                if self.stopping() || signal.failed.is_some() {
                    return;
                }
                if let Some(runs) = self.mergeable() {
                    break runs;
                }
                self.woken.wait(&mut signal);
            };
            signal.merging = true;
            drop(signal);
            let merged = self.merge(&runs);
            self.signal.lock().merging = false;
            match merged {
                Ok(()) => self.wake(),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Neighbouring runs of one level that should be one.
    fn mergeable(&self) -> Option<Vec<(Listed, Arc<Run>)>> {
        let sealed = self.sealed();
        let level_of = |at: usize| sealed.runs[at].0.level;
        let mut end = sealed.runs.len();
        while end > 0 {
            let level = level_of(end - 1);
            let start = (0..end)
                .rev()
                .take_while(|at| level_of(*at) == level)
                .last()?;
            if end - start >= MERGE_RUNS {
                return Some(sealed.runs[start..start + MERGE_RUNS].to_vec());
            }
            end = start;
        }
        None
    }

    fn merge(&self, runs: &[(Listed, Arc<Run>)]) -> Result<(), StoreError> {
        let (first, last) = (runs[0].0, runs[runs.len() - 1].0);
        let listed = Listed {
            number: self.take_number(),
            level: first.level + 1,
            from: first.from,
            to: last.to,
        };
        let facts = Facts {
            entries: runs.iter().map(|(_, run)| run.facts.entries).sum(),
            keys: runs.iter().map(|(_, run)| run.facts.keys).sum(),
            from: first.from,
            to: last.to,
        };
        let temporary = self.dir.join(format!("{}.tmp", listed.name()));
        let mut writer = RunWriter::create(&temporary, &*self.disk, facts)?;
        let mut cursors: Vec<_> = runs
            .iter()
            .map(|(_, run)| Cursor::new(run.clone()))
            .collect();
        let mut heads = Vec::with_capacity(cursors.len());
        for cursor in &mut cursors {
            heads.push(cursor.next()?.unwrap_or(ENDED));
        }
        for pushed in 0..facts.entries {
            // Four heads are compared faster than a heap is kept. Of equal keys the older run comes first,
            // and so the values ascend.
            let mut least = 0;
            for at in 1..heads.len() {
                least = if heads[at].0 < heads[least].0 {
                    at
                } else {
                    least
                };
            }
            let (key, value) = heads[least];
            writer.push(key, value)?;
            heads[least] = cursors[least].next()?.unwrap_or(ENDED);
            if pushed.is_multiple_of(1 << 16) && self.stopping() {
                // The next start removes the unfinished file.
                return Ok(());
            }
        }
        writer.finish()?;
        let run = self.adopt(&temporary, listed)?;
        let old: Vec<_> = runs.iter().map(|(listed, _)| *listed).collect();
        self.replace(&old, Some((listed, run)), last.to)?;
        for (_, run) in runs {
            self.disk.remove(run.path()).at(run.path())?;
        }
        Ok(())
    }

    fn take_number(&self) -> u64 {
        let mut manifest = self.manifest.lock();
        manifest.next_number += 1;
        manifest.next_number - 1
    }

    fn adopt(&self, temporary: &Path, listed: Listed) -> Result<Arc<Run>, StoreError> {
        let path = self.dir.join(listed.name());
        self.disk.rename(temporary, &path).at(temporary)?;
        self.disk.sync_dir(&self.dir).at(&self.dir)?;
        Run::open(&path, &*self.disk).map(Arc::new)
    }

    /// Puts a run in the place of `old` ones, or of the oldest full table when there are none, first in
    /// the manifest and then for readers.
    fn replace(
        &self,
        old: &[Listed],
        new: Option<(Listed, Arc<Run>)>,
        through: Height,
    ) -> Result<(), StoreError> {
        let mut manifest = self.manifest.lock();
        let mut sealed = Sealed::clone(&self.sealed());
        let at = match old.first() {
            Some(first) => {
                let at = sealed.runs.iter().position(|(listed, _)| listed == first);
                let at = at.expect("only the merging thread removes runs");
                sealed.runs.drain(at..at + old.len());
                at
            }
            None => sealed.runs.len(),
        };
        sealed.runs.splice(at..at, new);
        // Noted only once it is written: the other thread may write the manifest after this one failed.
        let next = Manifest {
            through: manifest.through.max(through),
            ..manifest.clone()
        };
        let listed: Vec<_> = sealed.runs.iter().map(|(listed, _)| *listed).collect();
        write_manifest(
            &self.dir,
            &*self.disk,
            self.chain,
            self.secret,
            &next,
            &listed,
        )?;
        *manifest = next;
        let mut tables = self.tables.write();
        // Tables may have been sealed meanwhile; runs only change under the manifest's lock.
        let mut current = Sealed::clone(&tables.sealed);
        current.runs = sealed.runs;
        if old.is_empty() {
            current.tables.remove(0);
        }
        tables.sealed = Arc::new(current);
        Ok(())
    }
}

/// The values of one key in a table in memory, newest first: those that were there when the walk began.
/// They are taken out a few at a time, so that nobody waits for the table's lock while a key that is in
/// every transaction is walked.
struct NewestFirst {
    table: Table,
    walk: Walk,
    /// What was taken out and not yet given, oldest first.
    taken: Vec<u64>,
}

impl NewestFirst {
    fn new(table: Table, key: u64) -> NewestFirst {
        let walk = table.read().walk(key);
        NewestFirst {
            table,
            walk,
            taken: Vec::new(),
        }
    }
}

impl Iterator for NewestFirst {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.taken.is_empty() {
            let table = self.table.read();
            let next = || table.next(&mut self.walk);
            let few = std::iter::from_fn(next).take(VALUES_AT_ONCE as usize);
            self.taken.extend(few);
            self.taken.reverse();
        }
        self.taken.pop()
    }
}

/// The values of a key in memory, newest first.
fn in_memory(
    active: NewestFirst,
    sealed: &Sealed,
    key: u64,
) -> impl Iterator<Item = u64> + use<'_> {
    let tables = sealed.tables.iter().rev();
    active.chain(tables.flat_map(move |table| NewestFirst::new(table.clone(), key)))
}

/// A walk over the values of one key, oldest first. All of them are of one moment.
pub(crate) struct Values {
    key: u64,
    sealed: Arc<Sealed>,
    /// Values that are not sealed, newest first.
    active: Vec<u64>,
    runs_begun: usize,
    tables_begun: usize,
    /// What is left of the run that was begun last.
    numbers: Range<u64>,
    /// What is left of the values taken out of a run or table.
    taken: std::vec::IntoIter<u64>,
}

impl Values {
    /// The next value; `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<u64>, StoreError> {
        loop {
            if let Some(value) = self.taken.next() {
                return Ok(Some(value));
            }
            if let Some((_, run)) = self
                .runs_begun
                .checked_sub(1)
                .map(|at| &self.sealed.runs[at])
                && !self.numbers.is_empty()
            {
                let end = self.numbers.end.min(self.numbers.start + VALUES_AT_ONCE);
                self.taken = run.values(self.numbers.start..end)?.into_iter();
                self.numbers.start = end;
            } else if let Some((_, run)) = self.sealed.runs.get(self.runs_begun) {
                self.runs_begun += 1;
                if run.may_hold(self.key)? {
                    self.numbers = run.find(self.key)?;
                }
            } else if let Some(table) = self.sealed.tables.get(self.tables_begun) {
                self.tables_begun += 1;
                let mut values: Vec<u64> = NewestFirst::new(table.clone(), self.key).collect();
                values.reverse();
                self.taken = values.into_iter();
            } else {
                return Ok(self.active.pop());
            }
        }
    }
}

impl Listed {
    fn name(&self) -> String {
        format!("{:08}.run", self.number)
    }
}

/// The index as it lies on disk, only to be read through: its secret, the height it reflects and its runs.
pub(crate) struct Resting {
    pub(crate) secret: Secret,
    pub(crate) through: Height,
    pub(crate) runs: Vec<Arc<Run>>,
}

impl Resting {
    /// Opens the index without changing anything; `None` when there is none.
    pub(crate) fn open(
        dir: &Path,
        disk: &dyn Disk,
        chain: BlockHash,
    ) -> Result<Option<Resting>, StoreError> {
        let Some((manifest, secret, listed)) = read_manifest(dir, disk, chain)? else {
            return Ok(None);
        };
        let runs = open_runs(dir, disk, &listed)?
            .into_iter()
            .map(|(_, run)| run)
            .collect();
        Ok(Some(Resting {
            secret,
            through: manifest.through,
            runs,
        }))
    }
}

fn open_runs(
    dir: &Path,
    disk: &dyn Disk,
    listed: &[Listed],
) -> Result<Vec<(Listed, Arc<Run>)>, StoreError> {
    let mut runs: Vec<(Listed, Arc<Run>)> = Vec::with_capacity(listed.len());
    for run in listed {
        let path = dir.join(run.name());
        let opened = Run::open(&path, disk)?;
        let facts = opened.facts;
        if (facts.from, facts.to) != (run.from, run.to) {
            let what = "the run covers other heights than the manifest says";
            return Err(StoreError::damaged(&path, 0, what));
        }
        if facts.to < facts.from
            || runs
                .last()
                .is_some_and(|(before, _)| facts.from <= before.to)
        {
            return Err(StoreError::damaged(
                &path,
                0,
                "the run overlaps the one before",
            ));
        }
        runs.push((*run, Arc::new(opened)));
    }
    Ok(runs)
}

fn write_manifest(
    dir: &Path,
    disk: &dyn Disk,
    chain: BlockHash,
    secret: Secret,
    manifest: &Manifest,
    runs: &[Listed],
) -> Result<(), StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(runs.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&chain.0);
    for word in [
        secret.0[0],
        secret.0[1],
        manifest.through.0,
        manifest.next_number,
    ] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.resize(MANIFEST_HEADER_BYTES, 0);
    for run in runs {
        for word in [run.number, run.level, run.from.0, run.to.0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let (path, temporary) = (dir.join(MANIFEST_NAME), dir.join("manifest.tmp"));
    let file = disk.create(&temporary).at(&temporary)?;
    file.write_at(&bytes, 0).at(&temporary)?;
    file.sync_data().at(&temporary)?;
    disk.rename(&temporary, &path).at(&temporary)?;
    disk.sync_dir(dir).at(dir)
}

type Read = (Manifest, Secret, Vec<Listed>);

fn read_manifest(
    dir: &Path,
    disk: &dyn Disk,
    chain: BlockHash,
) -> Result<Option<Read>, StoreError> {
    let path = dir.join(MANIFEST_NAME);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { path, source }),
    };
    let length = file.len().at(&path)?;
    let wrong = |offset: u64, what: &str| StoreError::damaged(&path, offset, what);
    // A manifest lists a few dozen runs; a file of another size is not read into memory.
    if !(MANIFEST_HEADER_BYTES as u64 + 4..1 << 20).contains(&length) {
        return Err(wrong(length, "the file has no manifest's length"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).reading(&path, 0)?;
    if bytes[1..4] != MAGIC {
        return Err(wrong(0, "not a manifest"));
    }
    let (body, crc) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err(wrong(0, "the manifest's checksum is wrong"));
    }
    if bytes[0] != VERSION {
        let text = format!(
            "{} has format version {}, this program reads {VERSION}",
            path.display(),
            bytes[0]
        );
        return Err(StoreError::Foreign(text));
    }
    if bytes[8..40] != chain.0 {
        return Err(wrong(8, "the index is of another chain"));
    }
    let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
    let (runs, rest) = body[MANIFEST_HEADER_BYTES..].as_chunks::<MANIFEST_RUN_BYTES>();
    if !rest.is_empty()
        || runs.len() as u64
            != u64::from(u32::from_le_bytes(
                body[4..8].try_into().expect("four bytes"),
            ))
    {
        return Err(wrong(
            4,
            "the manifest lists another number of runs than it holds",
        ));
    }
    let listed = (0..runs.len())
        .map(|run| MANIFEST_HEADER_BYTES + run * MANIFEST_RUN_BYTES)
        .map(|at| Listed {
            number: u64_at(at),
            level: u64_at(at + 8),
            from: Height(u64_at(at + 16)),
            to: Height(u64_at(at + 24)),
        })
        .collect();
    let manifest = Manifest {
        through: Height(u64_at(56)),
        next_number: u64_at(64),
    };
    Ok(Some((manifest, Secret([u64_at(40), u64_at(48)]), listed)))
}

#[cfg(test)]
mod tests;
