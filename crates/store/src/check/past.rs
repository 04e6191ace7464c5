//! The entries that a check has come past, found again by id and by what they are known by.
//!
//! A check decides every entry once more and for that asks for any that came before. They are looked up in
//! an index of its own, beside a table of blocks, both in a folder that is emptied again: nothing that is
//! being checked is relied on, and memory does not grow with history.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use daybook_ledger::{
    Height, TransactionId,
    block::{BlockHash, Entry},
};
use parking_lot::Mutex;

use crate::{
    StoreError,
    blocks::BlockTable,
    book::BookEntry,
    disk::Disk,
    error::At,
    index::{
        Index,
        entries::EntryMaker,
        key::{Family, Secret},
    },
    log::{Log, record::Text},
    place::{Place, pack, unpack},
    text::id_of,
};

/// What came before.
pub(super) struct Past<'l> {
    log: &'l Log,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    index: Index,
    secret: Secret,
    blocks: BlockTable,
    /// Entries in memory before they are written as a sorted run.
    run_entries: usize,
    /// What went wrong where no error could be returned.
    failure: Mutex<Option<StoreError>>,
}

impl<'l> Past<'l> {
    /// Begins with nothing in a folder of its own.
    pub(super) fn begin(
        dir: PathBuf,
        disk: &Arc<dyn Disk>,
        log: &'l Log,
        chain: BlockHash,
        run_entries: usize,
    ) -> Result<Past<'l>, StoreError> {
        disk.create_dir(&dir).at(&dir)?;
        // A check that was cut off left its files.
        empty(&dir, &**disk)?;
        let secret = Secret::new();
        Ok(Past {
            log,
            index: Index::open(&dir, disk.clone(), chain, secret)?,
            secret,
            blocks: BlockTable::create(&dir, &**disk, chain)?,
            disk: disk.clone(),
            dir,
            run_entries,
            failure: Mutex::new(None),
        })
    }

    /// Leaves nothing behind.
    pub(super) fn end(self) -> Result<(), StoreError> {
        let Past {
            index, dir, disk, ..
        } = self;
        drop(index);
        empty(&dir, &*disk)
    }

    /// The entries of a block come next.
    pub(super) fn block(&self, height: Height, place: Place) -> Result<(), StoreError> {
        self.blocks.write(height, place)
    }

    /// An entry of the block was passed: from now on it is found.
    pub(super) fn passed(&self, entry: &Entry, height: Height, index: u32) {
        let mut fresh = Vec::new();
        let mut maker = EntryMaker::new(self.secret);
        match entry {
            // Nobody asks for it by anything but its id.
            Entry::Asset(transaction) => {
                let key = self.secret.key(Family::Transaction, &transaction.id().0);
                fresh.push((key, pack(height, index)));
            }
            Entry::Tracker(entry) => maker.tracker(entry, height, index, &mut fresh),
            Entry::Consortium(entry) => maker.consortium(entry, height, index, &mut fresh),
        }
        self.index.add(height, &fresh);
    }

    /// All entries of the block were passed.
    pub(super) fn block_ended(&self, height: Height) -> Result<(), StoreError> {
        if self.index.add(height, &[]) >= self.run_entries {
            self.index.seal()?;
        }
        self.failure.lock().take().map_or(Ok(()), Err)
    }

    /// The text of an asset transaction.
    pub(super) fn transaction(&self, id: &TransactionId) -> Option<bytes::Bytes> {
        let key = self.secret.key(Family::Transaction, &id.0);
        self.newest_under(key, |text| match text {
            Text::Asset(text) if id_of(&text) == Some(*id) => Some(text),
            _ => None,
        })
    }

    /// The newest entry of a book that has `key`.
    pub(super) fn newest<E: BookEntry>(&self, key: E::Key<'_>) -> Option<Arc<E>> {
        self.newest_under(E::hashed(&self.secret, key), |text| {
            // It was read a moment ago.
            let entry = E::read(E::text_of(text)?).ok()?;
            entry.has(key).then(|| Arc::new(entry))
        })
    }

    fn newest_under<T>(&self, key: u64, wanted: impl Fn(Text) -> Option<T>) -> Option<T> {
        let mut found = None;
        let walked = self.index.shared().newest_first(key, |value| {
            let position = unpack(value);
            let place = self.blocks.place(position.height)?;
            found = wanted(self.log.text(place, position.index)?);
            Ok(found.is_none())
        });
        if let Err(error) = walked {
            self.failure.lock().get_or_insert(error);
        }
        found
    }
}

/// Removes the files of a folder.
fn empty(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    for name in disk.list(dir).at(dir)? {
        let path = dir.join(name);
        disk.remove(&path).at(&path)?;
    }
    disk.sync_dir(dir).at(dir)
}
