//! Checkpoints: the unspent outputs and the tip, written beside the log so that a start replays only
//! its tail.
//!
//! A checkpoint is fuzzy. It names the height at which its writing began and the one at which it
//! ended; outputs that changed between may be in it or not. Replaying the blocks between them, where
//! adding what is there and removing what is not are no errors, makes it exact.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use daybook_ledger::{
    BlockTime, Height,
    block::{BlockHash, StateHash},
    consortium, tracker,
};
use parking_lot::RwLock;

use crate::{
    Tip,
    disk::{Disk, File},
    error::{At, StoreError},
    unspent::{ENTRY_BYTES, PREFETCH_OUTPUTS, UnspentTable, read_entry},
};

const VERSION: u8 = 1;
const MAGIC: [u8; 3] = [0xF5, b'D', b'C'];
/// Bytes before the first piece.
const HEADER_BYTES: usize = 320;
/// Outputs in a piece at most; a piece is what one checksum covers.
const PIECE_ENTRIES_MAX: u32 = 65_536;
/// Checkpoints kept: the newest, and the one before in case the newest turns out unreadable.
const KEPT: usize = 2;

/// A tip and where the log goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) tip: Tip,
    /// Segment and offset of the record after the tip's.
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// What a checkpoint says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) chain: BlockHash,
    /// When its writing began: every change up to here is in it.
    pub(crate) start: Mark,
    /// When its writing ended: no change after this is in it. The log is known to reach this far.
    pub(crate) end: Mark,
    /// Outputs in it.
    pub(crate) outputs: u64,
    /// Bytes of the tracker's book in it, as it was at `start`; 0 without one.
    pub(crate) tracker_bytes: u64,
    /// CRC32C of the tracker's book.
    pub(crate) tracker_crc: u32,
    /// Bytes of the consortium's book in it, as it was at `start`; 0 without one.
    pub(crate) consortium_bytes: u64,
    /// CRC32C of the consortium's book.
    pub(crate) consortium_crc: u32,
}

/// The unspent outputs, and the block up to which they are exact.
pub(crate) struct State {
    pub(crate) table: UnspentTable,
    /// The tracker's open addresses and channels: exact at `mark`.
    pub(crate) tracker: tracker::Book,
    /// The consortium's members, ledgers and open proposals: exact at `mark`.
    pub(crate) consortium: consortium::Book,
    pub(crate) mark: Mark,
}

/// The books of a checkpoint, as they were when its writing began.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) tracker: tracker::Book,
    pub(crate) consortium: consortium::Book,
}

/// Writes a checkpoint while blocks go on being published. `before` makes durable what the checkpoint
/// counts on, when its contents are known and before it counts.
pub(crate) fn write(
    dir: &Path,
    disk: &dyn Disk,
    chain: BlockHash,
    state: &RwLock<State>,
    before: impl FnOnce() -> Result<(), StoreError>,
) -> Result<Header, StoreError> {
    // The books must be of one height, so blocks wait until they are written down. That takes less time and
    // memory than a copy of all their trees.
    let (start, tracker, consortium) = {
        let state = state.read();
        let State {
            tracker,
            consortium,
            mark,
            ..
        } = &*state;
        // Most ledgers have no tracker and no consortium; the book of one that is not open is left out.
        let tracker = tracker.settings().map(|_| tracker.encode());
        let consortium = consortium.settings().map(|_| consortium.encode());
        (
            *mark,
            tracker.unwrap_or_default(),
            consortium.unwrap_or_default(),
        )
    };
    let temporary = dir.join("checkpoint.tmp");
    let file = disk.create(&temporary).at(&temporary)?;
    let mut offset = HEADER_BYTES as u64;
    let mut outputs = 0;
    let mut chunk = 0;
    let mut piece = Vec::new();
    loop {
        piece.clear();
        piece.resize(8, 0);
        // The lock is held for one chunk at a time, so that blocks hardly wait for the outputs. Chunks added
        // later hold only outputs that are newer than `start`.
        let count = {
            let state = state.read();
            if chunk >= state.table.chunks() {
                break;
            }
            state.table.copy_chunk(chunk, &mut piece)
        };
        chunk += 1;
        if count == 0 {
            continue;
        }
        piece[..4].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&count.to_le_bytes()), &piece[8..]);
        piece[4..8].copy_from_slice(&crc.to_le_bytes());
        file.write_at(&piece, offset).at(&temporary)?;
        offset += piece.len() as u64;
        outputs += u64::from(count);
    }
    if !tracker.is_empty() {
        file.write_at(&tracker, offset).at(&temporary)?;
        offset += tracker.len() as u64;
    }
    if !consortium.is_empty() {
        file.write_at(&consortium, offset).at(&temporary)?;
    }
    let header = Header {
        chain,
        start,
        end: state.read().mark,
        outputs,
        tracker_bytes: tracker.len() as u64,
        tracker_crc: crc32c::crc32c(&tracker),
        consortium_bytes: consortium.len() as u64,
        consortium_crc: crc32c::crc32c(&consortium),
    };
    file.write_at(&encode(&header), 0).at(&temporary)?;
    file.sync_data().at(&temporary)?;
    before()?;
    let path = dir.join(name_of(header.start.tip.height, header.end.tip.height));
    disk.rename(&temporary, &path).at(&temporary)?;
    disk.sync_dir(dir).at(dir)?;
    for old in list(dir, disk)?.into_iter().skip(KEPT) {
        disk.remove(&old).at(&old)?;
    }
    Ok(header)
}

/// The checkpoints in a folder, newest first.
pub(crate) fn list(dir: &Path, disk: &dyn Disk) -> Result<Vec<PathBuf>, StoreError> {
    let names = disk.list(dir).at(dir)?;
    let is_checkpoint = |name: &&String| name.ends_with(".checkpoint");
    Ok(names
        .iter()
        .rev()
        .filter(is_checkpoint)
        .map(|name| dir.join(name))
        .collect())
}

/// Reads a checkpoint's header.
pub(crate) fn read_header(
    path: &Path,
    disk: &dyn Disk,
) -> Result<(Header, Arc<dyn File>), StoreError> {
    let file = disk.open(path).at(path)?;
    let mut bytes = [0; HEADER_BYTES];
    file.read_at(&mut bytes, 0).reading(path, 0)?;
    if bytes[1..4] != MAGIC {
        return Err(StoreError::damaged(path, 0, "not a checkpoint"));
    }
    if bytes[0] != VERSION {
        return Err(StoreError::Foreign(format!(
            "{} has format version {}, this program reads {VERSION}",
            path.display(),
            bytes[0]
        )));
    }
    let header = decode(&bytes);
    if encode(&header) != bytes {
        return Err(StoreError::damaged(
            path,
            0,
            "the checkpoint's header is wrong",
        ));
    }
    Ok((header, file))
}

/// Reads a checkpoint's outputs into a new table, and its books.
pub(crate) fn load(
    path: &Path,
    header: &Header,
    file: &dyn File,
) -> Result<(UnspentTable, Books), StoreError> {
    let mut table = UnspentTable::new();
    // What the header says is only taken for as much as the file can hold.
    let held = file.len().at(path)? / ENTRY_BYTES as u64;
    table.reserve(header.outputs.min(held) as usize);
    let mut offset = HEADER_BYTES as u64;
    let mut left = header.outputs;
    let mut piece = Vec::new();
    while left > 0 {
        let mut head = [0; 8];
        file.read_at(&mut head, offset).reading(path, offset)?;
        let (count, crc) = head.split_at(4);
        let count_value = u32::from_le_bytes(count.try_into().expect("four bytes"));
        let wrong = |what: &str| StoreError::damaged(path, offset, what);
        if count_value == 0 || count_value > PIECE_ENTRIES_MAX || u64::from(count_value) > left {
            return Err(wrong("the length of a piece is wrong"));
        }
        piece.resize(count_value as usize * ENTRY_BYTES, 0);
        file.read_at(&mut piece, offset + 8).reading(path, offset)?;
        if crc32c::crc32c_append(crc32c::crc32c(count), &piece).to_le_bytes() != crc {
            return Err(wrong("the checksum of a piece is wrong"));
        }
        let (entries, _) = piece.as_chunks::<ENTRY_BYTES>();
        for entries in entries.chunks(PREFETCH_OUTPUTS) {
            let outputs: Option<Vec<_>> = entries.iter().map(read_entry).collect();
            let outputs = outputs.ok_or_else(|| wrong("an amount is wrong"))?;
            table.prefetch(outputs.iter().map(|(output, _)| output));
            for (output, unspent) in &outputs {
                if !table.insert(output, *unspent) {
                    return Err(wrong("an output appears twice"));
                }
            }
        }
        offset += 8 + piece.len() as u64;
        left -= u64::from(count_value);
    }
    let tracker = load_book(
        path,
        file,
        "the tracker's book",
        (offset, header.tracker_bytes, header.tracker_crc),
    )?;
    offset = offset.saturating_add(header.tracker_bytes);
    let consortium = load_book(
        path,
        file,
        "the consortium's book",
        (offset, header.consortium_bytes, header.consortium_crc),
    )?;
    let wrong = |what: String| StoreError::damaged(path, offset, what);
    let books = Books {
        tracker: match tracker {
            Some(bytes) => tracker::Book::decode(&bytes).map_err(|e| wrong(e.to_string()))?,
            None => tracker::Book::default(),
        },
        consortium: match consortium {
            Some(bytes) => consortium::Book::decode(&bytes).map_err(|e| wrong(e.to_string()))?,
            None => consortium::Book::default(),
        },
    };
    Ok((table, books))
}

/// Reads a book, of which offset, length and checksum are given; `None` when there is none.
fn load_book(
    path: &Path,
    file: &dyn File,
    name: &str,
    (offset, length, crc): (u64, u64, u32),
) -> Result<Option<Vec<u8>>, StoreError> {
    if length == 0 {
        return Ok(None);
    }
    let wrong = |what: String| StoreError::damaged(path, offset, what);
    if length > file.len().at(path)?.saturating_sub(offset) {
        return Err(wrong(format!("{name} ends early")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, offset).reading(path, offset)?;
    if crc32c::crc32c(&bytes) != crc {
        return Err(wrong(format!("the checksum of {name} is wrong")));
    }
    Ok(Some(bytes))
}

/// Names sort as heights do.
fn name_of(start: Height, end: Height) -> String {
    format!("{:016x}-{:016x}.checkpoint", start.0, end.0)
}

fn encode(header: &Header) -> [u8; HEADER_BYTES] {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header.chain.0);
    bytes.extend_from_slice(&header.outputs.to_le_bytes());
    for mark in [&header.start, &header.end] {
        bytes.extend_from_slice(&mark.tip.height.0.to_le_bytes());
        bytes.extend_from_slice(&mark.tip.time.0.to_le_bytes());
        bytes.extend_from_slice(&mark.tip.transactions.to_le_bytes());
        bytes.extend_from_slice(&mark.tip.hash.0);
        bytes.extend_from_slice(&mark.tip.state.0.unwrap_or_default());
        bytes.extend_from_slice(&u32::from(mark.tip.state.0.is_some()).to_le_bytes());
        bytes.extend_from_slice(&mark.segment.to_le_bytes());
        bytes.extend_from_slice(&mark.offset.to_le_bytes());
    }
    bytes.extend_from_slice(&header.tracker_bytes.to_le_bytes());
    bytes.extend_from_slice(&header.tracker_crc.to_le_bytes());
    bytes.extend_from_slice(&header.consortium_bytes.to_le_bytes());
    bytes.extend_from_slice(&header.consortium_crc.to_le_bytes());
    bytes.resize(HEADER_BYTES - 4, 0);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.try_into().expect("the members above fit the header")
}

fn decode(bytes: &[u8; HEADER_BYTES]) -> Header {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let hash_at = |at: usize| bytes[at..at + 32].try_into().expect("32 bytes");
    let mark = |at: usize| Mark {
        tip: Tip {
            height: Height(u64_at(at)),
            time: BlockTime(u64_at(at + 8)),
            transactions: u64_at(at + 16),
            hash: BlockHash(hash_at(at + 24)),
            state: StateHash((u32_at(at + 88) != 0).then(|| hash_at(at + 56))),
        },
        segment: u32_at(at + 92),
        offset: u64_at(at + 96),
    };
    Header {
        chain: BlockHash(hash_at(8)),
        outputs: u64_at(40),
        start: mark(48),
        end: mark(48 + 104),
        tracker_bytes: u64_at(48 + 208),
        tracker_crc: u32_at(48 + 216),
        consortium_bytes: u64_at(48 + 220),
        consortium_crc: u32_at(48 + 228),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::BTreeMap, io};

    use daybook_ledger::{Amount, Lock as OutputLock, OutputRef, TransactionId, Unspent};
    use parking_lot::Mutex;

    use super::*;
    use crate::disk::{Lock, Map, simulated::SimulatedDisk};

    type Hook = Arc<dyn Fn() + Send + Sync>;

    /// A disk on which something else happens before every write.
    struct Busy(SimulatedDisk, Hook);

    struct BusyFile(Arc<dyn File>, Hook);

    impl Disk for Busy {
        fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            self.0.open(path)
        }
        fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            Ok(Arc::new(BusyFile(self.0.create(path)?, self.1.clone())))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.remove(path)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            self.0.list(dir)
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            self.0.create_dir(dir)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.0.sync_dir(dir)
        }
        fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
            self.0.lock(path)
        }
    }

    impl File for BusyFile {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(into, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            (self.1)();
            self.0.write_at(bytes, offset)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn allocate(&self, bytes: u64) -> io::Result<()> {
            self.0.allocate(bytes)
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn map(&self) -> io::Result<Map> {
            self.0.map()
        }
    }

    fn output(number: u64) -> OutputRef {
        let mut id = [0; 32];
        for (at, piece) in id.chunks_exact_mut(8).enumerate() {
            let word = (number * 4 + at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            piece.copy_from_slice(&(word ^ (word >> 29)).to_le_bytes());
        }
        OutputRef {
            transaction: TransactionId(id),
            index: 0,
        }
    }

    fn unspent(number: u64) -> Unspent {
        Unspent {
            amount: Amount::new(number + 1).unwrap(),
            lock: OutputLock([number as u8; 32]),
        }
    }

    fn mark(height: u64) -> Mark {
        let tip = Tip {
            height: Height(height),
            hash: BlockHash([1; 32]),
            state: StateHash(Some([2; 32])),
            time: BlockTime(height),
            transactions: height * 3,
        };
        Mark {
            tip,
            segment: 1,
            offset: height * 8,
        }
    }

    #[test]
    fn what_changes_between_two_pieces_is_made_exact_by_replaying_it() {
        // Fifteen thousand outputs lie in four chunks; before each is written, a block spends some of
        // every chunk and makes others, which take the places that were freed.
        let mut table = UnspentTable::new();
        let mut model = BTreeMap::new();
        for number in 0..15_000 {
            assert!(table.insert(&output(number), unspent(number)));
            model.insert(output(number), unspent(number));
        }
        let state = Arc::new(RwLock::new(State {
            table,
            tracker: tracker::Book::default(),
            consortium: consortium::Book::default(),
            mark: mark(100),
        }));
        let blocks = Arc::new(Mutex::new(Vec::new()));
        let hook: Hook = {
            let (state, blocks) = (state.clone(), blocks.clone());
            Arc::new(move || {
                let mut state = state.write();
                let mut blocks = blocks.lock();
                let block = blocks.len() as u64;
                let mut changes = Vec::new();
                for step in 0..150 {
                    changes.push((output(step * 100 + block), None));
                    let fresh = 20_000 + block * 1_000 + step;
                    changes.push((output(fresh), Some(unspent(fresh))));
                    // What the block before made is spent again.
                    if block > 0 && step % 2 == 0 {
                        changes.push((output(fresh - 1_000), None));
                    }
                }
                for (output, unspent) in &changes {
                    let taken = match unspent {
                        Some(unspent) => state.table.insert(output, *unspent),
                        None => state.table.remove(output),
                    };
                    assert!(taken);
                }
                blocks.push(changes);
                state.mark = mark(100 + blocks.len() as u64);
            })
        };
        let disk = Busy(SimulatedDisk::new(), hook);
        let dir = Path::new("/checkpoint");
        disk.create_dir(dir).unwrap();
        let chain = BlockHash([7; 32]);
        let written = write(dir, &disk, chain, &state, || Ok(())).unwrap();
        // The write of the header comes after the end was noted.
        assert_eq!((written.start, written.end), (mark(100), mark(104)));

        let path = list(dir, &disk).unwrap().remove(0);
        let (header, file) = read_header(&path, &disk).unwrap();
        assert_eq!(header, written);
        let (mut loaded, _) = load(&path, &header, &*file).unwrap();
        let blocks = blocks.lock();
        let mut surprises = 0;
        for (output, unspent) in blocks[..4].iter().flatten() {
            let expected = match unspent {
                Some(unspent) => loaded.insert(output, *unspent),
                None => loaded.remove(output),
            };
            surprises += usize::from(!expected);
            match unspent {
                Some(unspent) => model.insert(*output, *unspent),
                None => model.remove(output),
            };
        }
        assert!(
            surprises > 100,
            "the checkpoint knew {surprises} changes already"
        );
        assert_eq!(loaded.iter().collect::<BTreeMap<_, _>>(), model);
    }
}
