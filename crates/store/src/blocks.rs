//! Where each block's record lies: a file of fixed entries, so that memory does not grow with history.
//!
//! It is written behind the commit point and not flushed there; a checkpoint flushes it before it
//! counts on it, and whatever is missing is written anew from the log.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use daybook_ledger::{Height, block::BlockHash};

use crate::{
    disk::{Disk, File},
    error::{At, StoreError},
    log::{Log, Scan, Start},
    place::Place,
};

pub(crate) const NAME: &str = "blocks.table";
const VERSION: u8 = 1;
const MAGIC: [u8; 3] = [0xF5, b'D', b'P'];
const HEADER_BYTES: usize = 64;
/// Segment (u32), length (u32), offset (u64), count (u32), checksum (u32).
const ENTRY_BYTES: usize = 24;
/// Entries written at once while the table is made anew.
const REBUILD_ENTRIES: usize = 4_096;

/// The table.
pub(crate) struct BlockTable {
    path: PathBuf,
    file: Arc<dyn File>,
    /// A flush failed.
    unflushed: AtomicBool,
}

impl BlockTable {
    /// Opens the table, if there is a sound one of this chain that reaches `height`.
    pub(crate) fn open(
        dir: &Path,
        disk: &dyn Disk,
        chain: BlockHash,
        height: Height,
    ) -> Result<Option<BlockTable>, StoreError> {
        let path = dir.join(NAME);
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let length = file.len().at(&path)?;
        let mut found = [0; HEADER_BYTES];
        if length < entry_offset(height.next()) {
            return Ok(None);
        }
        file.read_at(&mut found, 0).reading(&path, 0)?;
        if found != header(chain) {
            return Ok(None);
        }
        let table = BlockTable {
            path,
            file,
            unflushed: AtomicBool::new(false),
        };
        // The newest entry that a checkpoint counts on: when it is sound, so was the flush before.
        if height.0 > 0 && table.read(height)?.is_none() {
            return Ok(None);
        }
        Ok(Some(table))
    }

    /// Makes an empty table.
    pub(crate) fn create(
        dir: &Path,
        disk: &dyn Disk,
        chain: BlockHash,
    ) -> Result<BlockTable, StoreError> {
        let path = dir.join(NAME);
        let file = disk.create(&path).at(&path)?;
        file.write_at(&header(chain), 0).at(&path)?;
        file.sync_data().at(&path)?;
        disk.sync_dir(dir).at(dir)?;
        Ok(BlockTable {
            path,
            file,
            unflushed: AtomicBool::new(false),
        })
    }

    /// Writes the entries of all blocks up to `until` from the log.
    pub(crate) fn fill(&self, log: &Log, until: Height) -> Result<(), StoreError> {
        let mut scan = Scan::new(log, Start::BEGINNING)?;
        let mut bytes = Vec::new();
        let mut first = Height(1);
        while let Some((place, record)) = scan.next()? {
            let height = record.prefix.height;
            if height.0 == 0 {
                continue;
            }
            if height > until {
                break;
            }
            bytes.extend_from_slice(&entry(height, place));
            if bytes.len() == REBUILD_ENTRIES * ENTRY_BYTES {
                self.file
                    .write_at(&bytes, entry_offset(first))
                    .at(&self.path)?;
                bytes.clear();
                first = height.next();
            }
        }
        self.file
            .write_at(&bytes, entry_offset(first))
            .at(&self.path)
    }

    /// Notes where a block lies.
    pub(crate) fn write(&self, height: Height, place: Place) -> Result<(), StoreError> {
        self.file
            .write_at(&entry(height, place), entry_offset(height))
            .at(&self.path)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes all entries durable. Once that failed it fails for ever: Linux takes pages that it could not
    /// write for clean, so that the next flush would succeed without them. The next start writes the
    /// entries behind the last checkpoint anew.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        if self.unflushed.load(Ordering::Acquire) {
            let error = io::Error::other("an earlier flush of it failed");
            return Err(error).at(&self.path);
        }
        let flushed = self.file.sync_data().at(&self.path);
        if flushed.is_err() {
            self.unflushed.store(true, Ordering::Release);
        }
        flushed
    }

    /// Where a block at or below the tip lies.
    pub(crate) fn place(&self, height: Height) -> Result<Place, StoreError> {
        self.read(height)?.ok_or_else(|| {
            let what = format!("the entry of height {height} is wrong");
            StoreError::damaged(&self.path, entry_offset(height), what)
        })
    }

    fn read(&self, height: Height) -> Result<Option<Place>, StoreError> {
        let offset = entry_offset(height);
        let mut bytes = [0; ENTRY_BYTES];
        self.file
            .read_at(&mut bytes, offset)
            .reading(&self.path, offset)?;
        let u32_at =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let place = Place {
            segment: u32_at(0),
            length: u32_at(4),
            offset: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
            count: u32_at(16),
        };
        Ok((entry(height, place) == bytes).then_some(place))
    }
}

fn header(chain: BlockHash) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = VERSION;
    header[1..4].copy_from_slice(&MAGIC);
    header[4..36].copy_from_slice(&chain.0);
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn entry(height: Height, place: Place) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&place.segment.to_le_bytes());
    entry[4..8].copy_from_slice(&place.length.to_le_bytes());
    entry[8..16].copy_from_slice(&place.offset.to_le_bytes());
    entry[16..20].copy_from_slice(&place.count.to_le_bytes());
    // The height is part of the checksum, so that an entry in another's place is found out.
    let crc = crc32c::crc32c_append(crc32c::crc32c(&height.0.to_le_bytes()), &entry[..20]);
    entry[20..].copy_from_slice(&crc.to_le_bytes());
    entry
}

fn entry_offset(height: Height) -> u64 {
    HEADER_BYTES as u64 + height.0.saturating_sub(1) * ENTRY_BYTES as u64
}
