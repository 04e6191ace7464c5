//! Where durable subscriptions, their messages and dead letters are kept.
//!
//! redb: one file, crash-safe by copying pages on write, no background threads, no further crates.
//! fjall writes faster, but keeps threads and a journal of its own for what is here a few thousand
//! small values; the log of blocks cannot forget, and these values come and go.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use daybook_bus::{StoreOp, Stored};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// (shelf, key, key) → value.
const VALUES: TableDefinition<'_, (u8, u64, u64), &str> = TableDefinition::new("bus");
/// Bytes of pages kept in memory: the values are read once, at the start.
const CACHE_BYTES: usize = 4 << 20;

/// What was wanted of the disk did not happen.
#[derive(Debug, thiserror::Error)]
#[error("the bus's store: {0}")]
pub struct DiskError(pub String);

/// Keeps values. One writer; all or nothing.
pub trait Disk: Send {
    /// Everything that is there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> Result<Vec<Stored>, DiskError>;

    /// Writes and flushes. After an error nothing may be written any more.
    ///
    /// # Errors
    /// When it is not known to be on disk.
    fn write(&mut self, ops: &[StoreOp]) -> Result<(), DiskError>;

    /// Writes everything that is there into the new file `to`, as of one moment.
    ///
    /// # Errors
    /// When it cannot be read, or the file cannot be written.
    fn copy(&self, to: &Path) -> Result<(), DiskError> {
        if to.exists() {
            return Err(DiskError(format!("{} exists already", to.display())));
        }
        let all: Vec<StoreOp> = self.load()?.into_iter().map(StoreOp::Put).collect();
        // A file of its own rather than a copy of bytes: it is whole whatever is being written, and
        // holds no page that was given up.
        Redb::open(to)?.write(&all)
    }
}

/// A file of redb's.
pub struct Redb(Database);

impl Redb {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it is damaged, in use, or cannot be made.
    pub fn open(path: &Path) -> Result<Redb, DiskError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|e| DiskError(format!("{}: {e}", path.display())))?;
        Redb::prepare(database)
    }

    /// Opens a database on something else than a file.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub fn on(backend: impl redb::StorageBackend) -> Result<Redb, DiskError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|e| DiskError(e.to_string()))?;
        Redb::prepare(database)
    }

    fn prepare(database: Database) -> Result<Redb, DiskError> {
        let prepare = || -> Result<(), redb::Error> {
            let change = database.begin_write()?;
            change.open_table(VALUES)?;
            change.commit()?;
            Ok(())
        };
        prepare().map_err(|e| DiskError(e.to_string()))?;
        Ok(Redb(database))
    }
}

impl Disk for Redb {
    fn load(&self) -> Result<Vec<Stored>, DiskError> {
        let load = || -> Result<Vec<Stored>, redb::Error> {
            let look = self.0.begin_read()?;
            let table = look.open_table(VALUES)?;
            table
                .iter()?
                .map(|entry| {
                    let (key, value) = entry?;
                    let (shelf, a, b) = key.value();
                    Ok(Stored {
                        shelf,
                        key: (a, b),
                        value: value.value().into(),
                    })
                })
                .collect()
        };
        load().map_err(|e| DiskError(e.to_string()))
    }

    fn write(&mut self, ops: &[StoreOp]) -> Result<(), DiskError> {
        let write = || -> Result<(), redb::Error> {
            let change = self.0.begin_write()?;
            {
                let mut table = change.open_table(VALUES)?;
                for op in ops {
                    match op {
                        StoreOp::Put(Stored { shelf, key, value }) => {
                            table.insert((*shelf, key.0, key.1), &**value)?;
                        }
                        StoreOp::Delete { shelf, key } => {
                            table.remove((*shelf, key.0, key.1))?;
                        }
                    }
                }
            }
            change.commit()?;
            Ok(())
        };
        write().map_err(|e| DiskError(e.to_string()))
    }
}

/// Shelf, owner and number of a value.
type Place = (u8, u64, u64);

/// Values in memory, for a bus that keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<Place, Arc<str>>>>);

impl Disk for Memory {
    fn load(&self) -> Result<Vec<Stored>, DiskError> {
        let values = self.0.lock();
        let stored = |(key, value): (&Place, &Arc<str>)| Stored {
            shelf: key.0,
            key: (key.1, key.2),
            value: value.clone(),
        };
        Ok(values.iter().map(stored).collect())
    }

    fn write(&mut self, ops: &[StoreOp]) -> Result<(), DiskError> {
        let mut values = self.0.lock();
        for op in ops {
            match op {
                StoreOp::Put(s) => {
                    drop(values.insert((s.shelf, s.key.0, s.key.1), s.value.clone()))
                }
                StoreOp::Delete { shelf, key } => drop(values.remove(&(*shelf, key.0, key.1))),
            }
        }
        Ok(())
    }
}
