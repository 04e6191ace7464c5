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
};
use parking_lot::RwLock;

use crate::{
    Tip,
    disk::{Disk, File},
    error::{At, StoreError},
    unspent::{ENTRY_BYTES, LOOK_AHEAD, UnspentTable, read_entry},
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
}

/// The unspent outputs, and the block up to which they are exact.
pub(crate) struct State {
    pub(crate) table: UnspentTable,
    pub(crate) mark: Mark,
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
    let start = state.read().mark;
    let temporary = dir.join("checkpoint.tmp");
    let file = disk.create(&temporary).at(&temporary)?;
    let mut offset = HEADER_BYTES as u64;
    let mut outputs = 0;
    let mut chunk = 0;
    let mut piece = Vec::new();
    loop {
        piece.clear();
        piece.resize(8, 0);
        // The lock is held for one chunk at a time, so that blocks hardly wait. Chunks added later hold
        // only outputs that are newer than `start`.
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
    let header = Header {
        chain,
        start,
        end: state.read().mark,
        outputs,
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

/// Reads a checkpoint's outputs into a new table.
pub(crate) fn load(
    path: &Path,
    header: &Header,
    file: &dyn File,
) -> Result<UnspentTable, StoreError> {
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
        for (at, entry) in entries.iter().enumerate() {
            if let Some((ahead, _)) = entries.get(at + LOOK_AHEAD).and_then(read_entry) {
                table.prefetch(&ahead);
            }
            let (output, unspent) = read_entry(entry).ok_or_else(|| wrong("an amount is wrong"))?;
            if !table.insert(&output, unspent) {
                return Err(wrong("an output appears twice"));
            }
        }
        offset += 8 + piece.len() as u64;
        left -= u64::from(count_value);
    }
    Ok(table)
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
    }
}
