//! The log of blocks: segment files that are only ever appended to. It is the truth; all else here
//! follows from it.

pub(crate) mod record;
mod scan;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use bytes::Bytes;
use daybook_ledger::{Height, block::BlockHash};
use parking_lot::{Mutex, RwLock};

pub(crate) use scan::{Scan, Start, Torn};

use crate::{
    StoredBlock,
    disk::{Disk, File},
    error::{At, StoreError},
    place::Place,
};
use record::{
    BLOCK_HEAD_BYTES, Flaw, PREFIX_BYTES, Prefix, Record, TABLE_ENTRY_BYTES, TableEntry, Text,
    encode_block, encode_genesis,
};

/// The first byte of a segment.
const VERSION: u8 = 1;
const MAGIC: [u8; 3] = [0xF5, b'D', b'S'];
/// Bytes before a segment's first record.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// The smallest segment that can be asked for: room for its header and a genesis.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 4_096;
/// Zeros are written ahead in pieces of this, each flushed by itself, so that they never hold up a
/// block's flush for longer than a large block would.
const ZEROS_BYTES: usize = 1 << 20;
/// A segment in the making.
const PREPARED_NAME: &str = "prepared.tmp";

/// Segments held open for reading at once: a log may have more of them than a process may have open
/// files.
const OPEN_SEGMENTS_MAX: usize = 256;

/// All segments, for reading.
pub(crate) struct Log {
    pub(crate) dir: PathBuf,
    disk: Arc<dyn Disk>,
    files: Arc<OpenFiles>,
    segments: RwLock<Vec<Arc<Segment>>>,
}

/// One file of the log.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Height of its first record.
    pub(crate) first: Height,
    files: Arc<OpenFiles>,
}

/// The segments that are held open; the one opened first is closed first.
struct OpenFiles {
    disk: Arc<dyn Disk>,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    files: BTreeMap<u32, Arc<dyn File>>,
    order: VecDeque<u32>,
}

impl OpenFiles {
    fn new(disk: Arc<dyn Disk>) -> Arc<OpenFiles> {
        Arc::new(OpenFiles {
            disk,
            opened: Mutex::default(),
        })
    }

    fn get(&self, number: u32, path: &Path) -> Result<Arc<dyn File>, StoreError> {
        let mut opened = self.opened.lock();
        let Opened { files, order } = &mut *opened;
        if let Some(file) = files.get(&number) {
            return Ok(file.clone());
        }
        let file = self.disk.open(path).at(path)?;
        if order.len() == OPEN_SEGMENTS_MAX
            && let Some(oldest) = order.pop_front()
        {
            files.remove(&oldest);
        }
        order.push_back(number);
        files.insert(number, file.clone());
        Ok(file)
    }
}

impl Log {
    /// Opens the segments that are there; `None` when there are none. `chain` is read from the first.
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
    ) -> Result<Option<(Log, BlockHash)>, StoreError> {
        let files = OpenFiles::new(disk.clone());
        let mut segments = Vec::new();
        let mut chain = None;
        for name in disk.list(dir).at(dir)? {
            let Some(number) = number_of(&name) else {
                continue;
            };
            let path = dir.join(&name);
            if number as usize != segments.len() + 1 {
                return Err(StoreError::damaged(
                    &path,
                    0,
                    "the segment before it is missing",
                ));
            }
            let (segment, its_chain) = Segment::read(number, path, &files)?;
            if *chain.get_or_insert(its_chain) != its_chain {
                return Err(StoreError::damaged(
                    &segment.path,
                    24,
                    "the segment is of another chain",
                ));
            }
            segments.push(Arc::new(segment));
        }
        let Some(chain) = chain else { return Ok(None) };
        Ok(Some((
            Log {
                dir: dir.to_owned(),
                disk,
                files,
                segments: RwLock::new(segments),
            },
            chain,
        )))
    }

    /// Makes a log that holds a genesis only.
    pub(crate) fn create(
        dir: &Path,
        disk: Arc<dyn Disk>,
        genesis: &[u8],
        chain: BlockHash,
        segment_bytes: u64,
    ) -> Result<Log, StoreError> {
        let log = Log {
            dir: dir.to_owned(),
            files: OpenFiles::new(disk.clone()),
            disk,
            segments: RwLock::new(Vec::new()),
        };
        let mut record = Vec::new();
        encode_genesis(genesis, &mut record);
        let bytes = segment_bytes.max(SEGMENT_HEADER_BYTES as u64 + record.len() as u64);
        let path = dir.join(PREPARED_NAME);
        let file = prepare(&*log.disk, &path, bytes)?;
        file.write_at(&record, SEGMENT_HEADER_BYTES as u64)
            .at(&path)?;
        log.add(&*file, bytes, Height(0), chain)?;
        Ok(log)
    }

    /// Gives the prepared file its header and its name. From then on it is the last segment.
    fn add(
        &self,
        file: &dyn File,
        bytes: u64,
        first: Height,
        chain: BlockHash,
    ) -> Result<Arc<Segment>, StoreError> {
        let prepared = self.dir.join(PREPARED_NAME);
        let number = self.segments.read().len() as u32 + 1;
        let path = self.dir.join(format!("{number:08}.seg"));
        file.write_at(&segment_header(number, bytes, first, chain), 0)
            .at(&prepared)?;
        file.sync_data().at(&prepared)?;
        self.disk.rename(&prepared, &path).at(&prepared)?;
        self.disk.sync_dir(&self.dir).at(&self.dir)?;
        let segment = Arc::new(Segment {
            number,
            path,
            bytes,
            first,
            files: self.files.clone(),
        });
        self.segments.write().push(segment.clone());
        Ok(segment)
    }

    /// Where the log lies.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// All segments, in order.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().clone()
    }

    fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .get((number as usize).checked_sub(1)?)
            .cloned()
    }

    fn segment_of(&self, place: Place) -> Result<Arc<Segment>, StoreError> {
        self.segment(place.segment).ok_or_else(|| {
            StoreError::damaged(
                &self.dir,
                0,
                format!("there is no segment {}", place.segment),
            )
        })
    }

    /// A whole record, every checksum checked.
    pub(crate) fn record(&self, place: Place) -> Result<(Arc<Segment>, Record), StoreError> {
        let segment = self.segment_of(place)?;
        let mut bytes = vec![0; place.length as usize];
        segment
            .file()?
            .read_at(&mut bytes, place.offset)
            .reading(&segment.path, place.offset)?;
        let record =
            read_record(bytes.into()).map_err(|flaw| segment.damaged(place.offset, flaw))?;
        Ok((segment, record))
    }

    /// One entry's text, by two small reads and checked by its own checksum.
    pub(crate) fn text(&self, place: Place, index: u32) -> Result<Text, StoreError> {
        let segment = self.segment_of(place)?;
        let table = place.offset + (PREFIX_BYTES + BLOCK_HEAD_BYTES) as u64;
        let at = table + u64::from(index) * TABLE_ENTRY_BYTES as u64;
        let mut entries = [0; 2 * TABLE_ENTRY_BYTES];
        segment
            .file()?
            .read_at(&mut entries, at)
            .reading(&segment.path, at)?;
        let entry = TableEntry::read(&entries[..TABLE_ENTRY_BYTES]);
        let next = TableEntry::read(&entries[TABLE_ENTRY_BYTES..]);
        let wrong = |what: &str| StoreError::damaged(&segment.path, at, what);
        if next.offset <= entry.offset || next.offset > place.length {
            return Err(wrong("the table of transactions is out of order"));
        }
        let mut bytes = vec![0; (next.offset - entry.offset) as usize];
        let start = place.offset + u64::from(entry.offset);
        segment
            .file()?
            .read_at(&mut bytes, start)
            .reading(&segment.path, start)?;
        entry.open(bytes.into()).ok_or_else(|| {
            StoreError::damaged(
                &segment.path,
                start,
                format!("the checksum of transaction {index} is wrong"),
            )
        })
    }
}

impl Segment {
    fn read(
        number: u32,
        path: PathBuf,
        files: &Arc<OpenFiles>,
    ) -> Result<(Segment, BlockHash), StoreError> {
        let file = files.get(number, &path)?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        file.read_at(&mut header, 0).reading(&path, 0)?;
        let wrong = |what: &str| StoreError::damaged(&path, 0, what);
        if header[1..4] != MAGIC {
            return Err(wrong("not a segment of a log"));
        }
        if crc32c::crc32c(&header[..60])
            != u32::from_le_bytes(header[60..].try_into().expect("four bytes"))
        {
            return Err(wrong("the checksum of the segment's header is wrong"));
        }
        if header[0] != VERSION {
            return Err(StoreError::Foreign(format!(
                "{} has format version {}, this program reads {VERSION}",
                path.display(),
                header[0]
            )));
        }
        if header[4..8] != number.to_le_bytes() {
            return Err(wrong("the segment's number is not that of its name"));
        }
        let u64_at =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (bytes, first) = (u64_at(8), Height(u64_at(16)));
        let chain = BlockHash(header[24..56].try_into().expect("32 bytes"));
        let length = file.len().at(&path)?;
        if length < bytes {
            return Err(StoreError::damaged(&path, length, "the file ends early"));
        }
        Ok((
            Segment {
                number,
                path,
                bytes,
                first,
                files: files.clone(),
            },
            chain,
        ))
    }

    /// The file, for reading.
    pub(crate) fn file(&self) -> Result<Arc<dyn File>, StoreError> {
        self.files.get(self.number, &self.path)
    }

    /// A flaw of the record at `offset`, as an error.
    pub(crate) fn damaged(&self, offset: u64, flaw: Flaw) -> StoreError {
        StoreError::damaged(&self.path, offset + flaw.offset, flaw.what)
    }
}

/// Appends records; there is one.
pub(crate) struct Appender {
    log: Arc<Log>,
    chain: BlockHash,
    current: Arc<Segment>,
    /// The current segment, for writing.
    file: Arc<dyn File>,
    offset: u64,
    segment_bytes: u64,
    prepared: Option<JoinHandle<Result<Arc<dyn File>, StoreError>>>,
    buffer: Vec<u8>,
}

impl Appender {
    /// Goes on in the last segment at `offset`, after wiping the unfinished write that may lie there and
    /// writing the `last` record anew.
    pub(crate) fn open(
        log: Arc<Log>,
        chain: BlockHash,
        offset: u64,
        last: Option<Place>,
        torn: &Torn,
        segment_bytes: u64,
    ) -> Result<Appender, StoreError> {
        let segments = log.segments();
        let current = segments.last().expect("a log has a first segment").clone();
        // A half-written segment, or one that was ready but not begun.
        let prepared = log.dir.join(PREPARED_NAME);
        if log.disk.open(&prepared).is_ok() {
            log.disk.remove(&prepared).at(&prepared)?;
        }
        let file = log.disk.open(&current.path).at(&current.path)?;
        if torn.bytes > 0 {
            wipe(&*file, &current.path, offset, torn.bytes)?;
        }
        // A process that was killed between a write and its flush leaves a whole record that only the
        // page cache holds; so does one whose flush failed. What is served from here on must survive a
        // power cut, and a flush alone may not do: Linux takes pages that it could not write for clean, so
        // they have to be written again. Every record before the last was flushed with success.
        if let Some(last) = last {
            let segment = log.segment_of(last)?;
            let file = segment.file()?;
            let mut bytes = vec![0; last.length as usize];
            file.read_at(&mut bytes, last.offset)
                .reading(&segment.path, last.offset)?;
            file.write_at(&bytes, last.offset).at(&segment.path)?;
            file.sync_data().at(&segment.path)?;
        }
        file.sync_data().at(&current.path)?;
        log.disk.sync_dir(&log.dir).at(&log.dir)?;
        Ok(Appender {
            log,
            chain,
            current,
            file,
            offset,
            segment_bytes,
            prepared: None,
            buffer: Vec::new(),
        })
    }

    /// Writes a block's record and flushes it. The only flush on the way of a block, except when a
    /// segment is full.
    pub(crate) fn append(&mut self, stored: &StoredBlock) -> Result<Place, StoreError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        encode_block(stored, &mut buffer);
        let bytes = buffer.len() as u64;
        if self.offset + bytes > self.current.bytes {
            self.rotate(stored.block.header.height, bytes)?;
        }
        let offset = self.offset;
        let segment = &self.current;
        self.file.write_at(&buffer, offset).at(&segment.path)?;
        self.file.sync_data().at(&segment.path)?;
        self.offset += bytes;
        let prefix = buffer[..PREFIX_BYTES]
            .try_into()
            .expect("a record is longer than its prefix");
        let prefix = Prefix::read(prefix).expect("the record was just encoded");
        self.buffer = buffer;
        if self.offset > self.current.bytes / 2 {
            self.prepare_ahead();
        }
        Ok(Place {
            segment: self.current.number,
            offset,
            length: prefix.length,
            count: prefix.count,
        })
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> (u32, u64) {
        (self.current.number, self.offset)
    }

    fn rotate(&mut self, first: Height, record_bytes: u64) -> Result<(), StoreError> {
        let wanted = SEGMENT_HEADER_BYTES as u64 + record_bytes;
        // The file made ahead is used also for a block that outgrows it: it then only gets longer.
        self.prepare_ahead();
        let thread = self
            .prepared
            .take()
            .expect("prepare_ahead() leaves a thread");
        let file = thread.join().expect("preparing a segment does not panic")?;
        let path = self.log.dir.join(PREPARED_NAME);
        if wanted > self.segment_bytes {
            file.allocate(wanted).at(&path)?;
        }
        self.current = self
            .log
            .add(&*file, wanted.max(self.segment_bytes), first, self.chain)?;
        self.file = file;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    fn prepare_ahead(&mut self) {
        if self.prepared.is_none() {
            let (disk, bytes) = (self.log.disk.clone(), self.segment_bytes);
            let path = self.log.dir.join(PREPARED_NAME);
            self.prepared = Some(std::thread::spawn(move || prepare(&*disk, &path, bytes)));
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if let Some(thread) = self.prepared.take() {
            // Its outcome no longer matters; it must only not write after the lock is released.
            let _ = thread.join();
        }
    }
}

/// Reads a record whose length is that of `bytes`.
pub(crate) fn read_record(bytes: Bytes) -> Result<Record, Flaw> {
    let prefix = bytes.first_chunk().ok_or(Flaw {
        offset: 0,
        what: "the record ends early".into(),
    })?;
    let prefix = Prefix::read(prefix).map_err(|what| Flaw {
        offset: 0,
        what: what.into(),
    })?;
    Record::check(prefix, bytes)
}

/// Makes a file of zeros that are really on the disk: overwriting them later flushes in half the time
/// that growing a file takes.
fn prepare(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<Arc<dyn File>, StoreError> {
    let file = disk.create(path).at(path)?;
    file.allocate(bytes).at(path)?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let piece = (bytes - offset).min(ZEROS_BYTES as u64);
        file.write_at(&zeros[..piece as usize], offset).at(path)?;
        file.sync_data().at(path)?;
        offset += piece;
    }
    Ok(file)
}

fn wipe(file: &dyn File, path: &Path, start: u64, bytes: u64) -> Result<(), StoreError> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut offset = start;
    let end = start + bytes;
    while offset < end {
        let piece = (end - offset).min(ZEROS_BYTES as u64);
        file.write_at(&zeros[..piece as usize], offset).at(path)?;
        offset += piece;
    }
    file.sync_data().at(path)
}

fn segment_header(
    number: u32,
    bytes: u64,
    first: Height,
    chain: BlockHash,
) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[0] = VERSION;
    header[1..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&number.to_le_bytes());
    header[8..16].copy_from_slice(&bytes.to_le_bytes());
    header[16..24].copy_from_slice(&first.0.to_le_bytes());
    header[24..56].copy_from_slice(&chain.0);
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The number in a segment's file name.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() != 8 {
        None
    } else {
        digits.parse().ok()
    }
}
