//! A sorted run: index entries of a range of heights in one file that never changes.
//!
//! The file is: a header; pages of sorted entries; the first key of each page ("fences"); pages of a
//! blocked Bloom filter. Every page has its checksum, so a look-up that reads one page checks one.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use daybook_ledger::Height;

use super::key::KEY_MASK;
use crate::{
    disk::{Disk, File, Map},
    error::{At, StoreError},
    place::{COUNT_MAX, pack},
};

const VERSION: u8 = 2;
const MAGIC: [u8; 3] = [0xF5, b'D', b'R'];
/// Bytes of the header and of every page.
pub(crate) const PAGE_BYTES: usize = 4_096;
/// Bytes of a page that its entries may take; the last 16 are page number (u64), count (u32) and
/// checksum (u32).
const PAGE_ENTRY_BYTES: usize = PAGE_BYTES - 16;
/// Bytes of an entry's key: the high ones, the others are zero (see [`KEY_MASK`]).
const KEY_BYTES: usize = 6;
/// Bytes of a filter block: one cache line, so that a look-up costs one miss.
const BLOCK_BYTES: usize = 64;
/// Filter blocks of a page; its last 64 bytes hold the checksum.
const PAGE_BLOCKS: usize = 63;
/// Filter bits for each key: with 7 probes one look-up in a hundred reads a page for nothing.
const BITS_PER_KEY: u64 = 10;
/// Bits that a key sets in its block.
const PROBES: u32 = 7;
/// Bytes collected before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes written before they are flushed, so that a block's flush never waits for a large one.
const SYNC_BYTES: u64 = 4 << 20;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Entries.
    pub(crate) entries: u64,
    /// Keys at most: what the filter is made for.
    pub(crate) keys: u64,
    /// The first height covered.
    pub(crate) from: Height,
    /// The last height covered.
    pub(crate) to: Height,
}

impl Facts {
    /// What values are counted from: the first position that the run may hold.
    fn first_value(&self) -> u64 {
        pack(self.from, 0)
    }

    /// Bytes of an entry's value: as many as the last position that the run may hold needs.
    fn value_bytes(&self) -> usize {
        let most = pack(self.to, COUNT_MAX as u32 - 1).saturating_sub(self.first_value());
        (u64::BITS - most.leading_zeros()).div_ceil(8).max(1) as usize
    }

    /// Entries of a page.
    pub(crate) fn page_entries(&self) -> u64 {
        (PAGE_ENTRY_BYTES / (KEY_BYTES + self.value_bytes())) as u64
    }

    fn pages(&self) -> u64 {
        self.entries.div_ceil(self.page_entries())
    }

    fn fences_start(&self) -> u64 {
        (1 + self.pages()) * PAGE_BYTES as u64
    }

    fn filter_start(&self) -> u64 {
        (self.fences_start() + self.pages() * 8).next_multiple_of(PAGE_BYTES as u64)
    }

    fn blocks(&self) -> u64 {
        (self.keys * BITS_PER_KEY)
            .div_ceil(BLOCK_BYTES as u64 * 8)
            .max(1)
    }

    fn filter_pages(&self) -> u64 {
        self.blocks().div_ceil(PAGE_BLOCKS as u64)
    }

    fn bytes(&self) -> u64 {
        self.filter_start() + self.filter_pages() * PAGE_BYTES as u64
    }

    fn encode(&self, fences_crc: u32) -> [u8; PAGE_BYTES] {
        let mut header = [0; PAGE_BYTES];
        header[0] = VERSION;
        header[1..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&fences_crc.to_le_bytes());
        let words = [self.entries, self.keys, self.from.0, self.to.0];
        for (at, word) in (8..).step_by(8).zip(words) {
            header[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&header[..PAGE_BYTES - 4]);
        header[PAGE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// An open run.
pub(crate) struct Run {
    path: PathBuf,
    pub(crate) facts: Facts,
    map: Map,
    /// Filter pages whose checksum was found right, one bit each: checked on first use.
    checked: Box<[AtomicU64]>,
}

impl Run {
    /// Opens a run and checks its header and fences.
    pub(crate) fn open(path: &Path, disk: &dyn Disk) -> Result<Run, StoreError> {
        let file = disk.open(path).at(path)?;
        let length = file.len().at(path)?;
        if length < PAGE_BYTES as u64 {
            return Err(StoreError::damaged(path, length, "the file ends early"));
        }
        let map = file.map().at(path)?;
        let wrong = |offset: u64, what: &str| StoreError::damaged(path, offset, what);
        if map[1..4] != MAGIC {
            return Err(wrong(0, "not a sorted run"));
        }
        if map[0] != VERSION {
            let text = format!(
                "{} has format version {}, this program reads {VERSION}",
                path.display(),
                map[0]
            );
            return Err(StoreError::Foreign(text));
        }
        let u64_at =
            |at: usize| u64::from_le_bytes(map[at..at + 8].try_into().expect("eight bytes"));
        let facts = Facts {
            entries: u64_at(8),
            keys: u64_at(16),
            from: Height(u64_at(24)),
            to: Height(u64_at(32)),
        };
        let fences_crc = u32::from_le_bytes(map[4..8].try_into().expect("four bytes"));
        if map[..PAGE_BYTES] != facts.encode(fences_crc) {
            return Err(wrong(0, "the run's header is wrong"));
        }
        // The checksum vouches for the numbers, so these sums stay small.
        if length != facts.bytes() {
            return Err(wrong(
                length,
                "the file has another length than its header says",
            ));
        }
        let fences = facts.fences_start() as usize..facts.filter_start() as usize;
        if crc32c::crc32c(&map[fences.clone()]) != fences_crc {
            return Err(wrong(
                fences.start as u64,
                "the checksum of the fences is wrong",
            ));
        }
        let words = facts.filter_pages().div_ceil(64) as usize;
        let checked = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Run {
            path: path.to_owned(),
            facts,
            map,
            checked,
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the run may hold the key: never wrong when it says no.
    pub(crate) fn may_hold(&self, key: u64) -> Result<bool, StoreError> {
        let block = reduce(key, self.facts.blocks());
        let page = block / PAGE_BLOCKS as u64;
        let start = (self.facts.filter_start() + page * PAGE_BYTES as u64) as usize;
        let word = &self.checked[(page / 64) as usize];
        if word.load(Ordering::Relaxed) >> (page % 64) & 1 == 0 {
            self.check_filter_page(start)?;
            word.fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
        let start = start + (block % PAGE_BLOCKS as u64) as usize * BLOCK_BYTES;
        let block = &self.map[start..start + BLOCK_BYTES];
        Ok(probes(key).all(|bit| block[bit / 8] >> (bit % 8) & 1 == 1))
    }

    fn check_filter_page(&self, start: usize) -> Result<(), StoreError> {
        let page = &self.map[start..start + PAGE_BYTES];
        if page[PAGE_BYTES - 4..] != crc32c::crc32c(&page[..PAGE_BYTES - 4]).to_le_bytes() {
            return Err(StoreError::damaged(
                &self.path,
                start as u64,
                "the checksum of a filter page is wrong",
            ));
        }
        Ok(())
    }

    /// The numbers of the entries of a key. Reads two pages, however many entries there are: where they
    /// begin and where they end follows from the fences.
    pub(crate) fn find(&self, key: u64) -> Result<Range<u64>, StoreError> {
        let pages = self.facts.pages();
        let in_page = self.facts.page_entries();
        // They begin in the last page that begins below the key, or at the start of the next.
        let first = self.pages_below(key, pages).saturating_sub(1);
        let below = self.page(first)?.below(|other| other < key);
        let start = first * in_page + below;
        let Some(following) = key.checked_add(1) else {
            return Ok(start..self.facts.entries);
        };
        // They end in the last page that begins at or below the key.
        let last = self.pages_below(following, pages).saturating_sub(1);
        let through = self.page(last)?.below(|other| other <= key);
        Ok(start..start.max(last * in_page + through))
    }

    /// The number of pages whose first key is below `key`.
    fn pages_below(&self, key: u64, pages: u64) -> u64 {
        // Keys are hashes and so spread evenly: a straight line guesses the page, steps that double
        // close in from there, and halving finds it.
        let guess = reduce(key, pages.max(1));
        let (mut low, mut high) = (0, pages);
        let mut step = 1;
        if guess < pages && self.fence(guess) < key {
            low = guess + 1;
            while low < high {
                let probe = guess.saturating_add(step);
                if probe >= high {
                    break;
                }
                if self.fence(probe) < key {
                    low = probe + 1;
                } else {
                    high = probe;
                }
                step *= 2;
            }
        } else {
            high = guess.min(pages);
            while low < high {
                let Some(probe) = guess.checked_sub(step) else {
                    break;
                };
                if self.fence(probe) < key {
                    low = probe + 1;
                } else {
                    high = probe;
                }
                step *= 2;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.fence(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn fence(&self, page: u64) -> u64 {
        let at = (self.facts.fences_start() + page * 8) as usize;
        u64::from_le_bytes(self.map[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The values of the entries with these numbers, in the range's order.
    pub(crate) fn values(&self, numbers: Range<u64>) -> Result<Vec<u64>, StoreError> {
        let mut values = Vec::with_capacity((numbers.end - numbers.start) as usize);
        let mut number = numbers.start;
        while number < numbers.end {
            let in_page = self.facts.page_entries();
            let (page, base) = (number / in_page, number / in_page * in_page);
            let entries = self.page(page)?;
            let stop = (numbers.end - base).min(entries.count);
            values.extend((number - base..stop).map(|at| entries.value(at)));
            number = base + stop;
        }
        Ok(values)
    }

    /// A page's entries, its checksum checked.
    fn page(&self, page: u64) -> Result<Page<'_>, StoreError> {
        let start = (1 + page as usize) * PAGE_BYTES;
        let bytes: &[u8; PAGE_BYTES] = self.map[start..start + PAGE_BYTES]
            .try_into()
            .expect("the slice is one page long");
        let crc = crc32c::crc32c(&bytes[..PAGE_BYTES - 4]);
        let in_page = self.facts.page_entries();
        let count = (self.facts.entries - page * in_page).min(in_page);
        if bytes[PAGE_ENTRY_BYTES..] != page_trailer(page, count as u32, crc) {
            let what = "the checksum of a page of entries is wrong";
            return Err(StoreError::damaged(&self.path, start as u64, what));
        }
        Ok(Page {
            bytes,
            count,
            value_bytes: self.facts.value_bytes(),
            first_value: self.facts.first_value(),
        })
    }

    /// Reads every page and checks what the reading of single ones cannot: that keys ascend, that
    /// fences are the pages' first keys, and that the filter knows every key. Returns the sum of all
    /// entries, which is that of [`EntrySum`] over what ought to be there.
    pub(crate) fn check(&self) -> Result<EntrySum, StoreError> {
        let mut last = None;
        let mut sum = EntrySum::default();
        for page in 0..self.facts.pages() {
            let entries = self.page(page)?;
            let wrong = |what: &str| {
                StoreError::damaged(
                    &self.path,
                    (1 + page) * PAGE_BYTES as u64,
                    format!("page {page}: {what}"),
                )
            };
            if entries.key(0) != self.fence(page) {
                return Err(wrong("its fence is not its first key"));
            }
            for (key, value) in entries.iter() {
                if last >= Some((key, value)) {
                    return Err(wrong("its entries are not in order"));
                }
                last = Some((key, value));
                sum.add(key, value);
                if !self.may_hold(key)? {
                    return Err(wrong("the filter does not know its keys"));
                }
            }
        }
        for page in 0..self.facts.filter_pages() {
            self.check_filter_page(
                (self.facts.filter_start() + page * PAGE_BYTES as u64) as usize,
            )?;
        }
        Ok(sum)
    }
}

/// A sum over entries in any order, so that a run is compared with the log in constant memory. Every
/// page has its checksum already; this finds entries that were never written, or should not have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntrySum {
    entries: u64,
    mixed: u64,
}

impl EntrySum {
    /// Adds an entry.
    pub(crate) fn add(&mut self, key: u64, value: u64) {
        self.entries += 1;
        let product =
            u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * u128::from(value ^ 0xd6e8_feb8_6659_fd93);
        self.mixed = self
            .mixed
            .wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
}

/// The entries of a page as they lie in the file.
#[derive(Clone, Copy)]
struct Page<'r> {
    bytes: &'r [u8; PAGE_BYTES],
    count: u64,
    value_bytes: usize,
    first_value: u64,
}

impl Page<'_> {
    fn key(&self, at: u64) -> u64 {
        let start = at as usize * (KEY_BYTES + self.value_bytes);
        // The bytes behind the key are shifted out.
        self.word(start) << (64 - 8 * KEY_BYTES)
    }

    fn value(&self, at: u64) -> u64 {
        let start = at as usize * (KEY_BYTES + self.value_bytes) + KEY_BYTES;
        let value = self.word(start) & (u64::MAX >> (64 - 8 * self.value_bytes));
        // The checksum vouches for the bytes, so the sum is what was written.
        self.first_value.wrapping_add(value)
    }

    /// The eight bytes from `start` on: behind the last entry is the page's trailer.
    fn word(&self, start: usize) -> u64 {
        let bytes = self.bytes[start..].first_chunk();
        u64::from_le_bytes(*bytes.expect("an entry is followed by the trailer"))
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.count).map(|at| (self.key(at), self.value(at)))
    }

    /// How many entries at the beginning have a key that `is_below` says yes to; it says so of the
    /// first ones only.
    fn below(&self, is_below: impl Fn(u64) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_below(self.key(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Walks all entries of a run.
pub(crate) struct Cursor {
    run: Arc<Run>,
    page: u64,
    entries: Vec<(u64, u64)>,
    at: usize,
}

impl Cursor {
    /// Begins at the first entry.
    pub(crate) fn new(run: Arc<Run>) -> Cursor {
        Cursor {
            run,
            page: 0,
            entries: Vec::new(),
            at: 0,
        }
    }

    /// The next entry; `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        if self.at == self.entries.len() {
            if self.page == self.run.facts.pages() {
                return Ok(None);
            }
            self.entries.clear();
            self.entries.extend(self.run.page(self.page)?.iter());
            self.page += 1;
            self.at = 0;
        }
        self.at += 1;
        Ok(Some(self.entries[self.at - 1]))
    }
}

/// Writes a run, entry by entry, in order.
pub(crate) struct RunWriter {
    path: PathBuf,
    file: Arc<dyn File>,
    facts: Facts,
    /// [`Facts::first_value`], which every entry needs, as it needs the next three.
    first_value: u64,
    /// [`Facts::value_bytes`].
    value_bytes: usize,
    /// [`Facts::page_entries`].
    page_entries: usize,
    /// [`Facts::blocks`].
    filter_blocks: u64,
    written: u64,
    entries: Area,
    /// The page under way.
    page: Box<[u8; PAGE_BYTES]>,
    /// Entries of the page under way.
    in_page: usize,
    fences: Vec<u8>,
    filter: Area,
    blocks: Vec<u8>,
    filter_page: u64,
    unsynced: u64,
}

/// A part of the file that is written from its start on.
struct Area {
    offset: u64,
    buffer: Vec<u8>,
}

impl RunWriter {
    /// Begins a file at `path` for a run that will have exactly these facts.
    pub(crate) fn create(
        path: &Path,
        disk: &dyn Disk,
        facts: Facts,
    ) -> Result<RunWriter, StoreError> {
        let file = disk.create(path).at(path)?;
        file.allocate(facts.bytes()).at(path)?;
        Ok(RunWriter {
            path: path.to_owned(),
            file,
            facts,
            first_value: facts.first_value(),
            value_bytes: facts.value_bytes(),
            page_entries: facts.page_entries() as usize,
            filter_blocks: facts.blocks(),
            written: 0,
            entries: Area {
                offset: PAGE_BYTES as u64,
                buffer: Vec::new(),
            },
            page: Box::new([0; PAGE_BYTES]),
            in_page: 0,
            fences: Vec::new(),
            filter: Area {
                offset: facts.filter_start(),
                buffer: Vec::new(),
            },
            blocks: vec![0; PAGE_BYTES],
            filter_page: 0,
            unsynced: 0,
        })
    }

    /// Adds the next entry.
    ///
    /// # Panics
    ///
    /// When there are more than announced, or the key or the position is none that the run may hold.
    pub(crate) fn push(&mut self, key: u64, value: u64) -> Result<(), StoreError> {
        assert!(
            self.written < self.facts.entries,
            "the writer was told how many entries there are"
        );
        if self.in_page == 0 {
            self.fences.extend_from_slice(&key.to_le_bytes());
        }
        assert_eq!(
            key & !KEY_MASK,
            0,
            "a key is a hash as long as entries keep"
        );
        let value = value
            .checked_sub(self.first_value)
            .filter(|value| *value <= u64::MAX >> (64 - 8 * self.value_bytes))
            .expect("a position lies in the run's heights");
        // Whole words: what one writes beyond its field is overwritten by the next entry, or at the page's end.
        let start = self.in_page * (KEY_BYTES + self.value_bytes);
        self.put_word(start, key >> (64 - 8 * KEY_BYTES));
        self.put_word(start + KEY_BYTES, value);
        self.written += 1;
        self.in_page += 1;
        if self.in_page == self.page_entries {
            self.end_page()?;
        }
        // A key's block follows from its first bits, so blocks fill in the order of the entries.
        let block = reduce(key, self.filter_blocks);
        while self.filter_page < block / PAGE_BLOCKS as u64 {
            self.end_filter_page()?;
        }
        let start = (block % PAGE_BLOCKS as u64) as usize * BLOCK_BYTES;
        let block = &mut self.blocks[start..start + BLOCK_BYTES];
        for bit in probes(key) {
            block[bit / 8] |= 1 << (bit % 8);
        }
        Ok(())
    }

    fn put_word(&mut self, start: usize, word: u64) {
        self.page[start..start + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// Writes what is left and makes the file durable under its present name.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        assert_eq!(
            self.written, self.facts.entries,
            "the writer was told how many entries there are"
        );
        if self.in_page > 0 {
            self.end_page()?;
        }
        while self.filter_page < self.facts.filter_pages() {
            self.end_filter_page()?;
        }
        self.fences.resize(
            (self.facts.filter_start() - self.facts.fences_start()) as usize,
            0,
        );
        self.file
            .write_at(&self.entries.buffer, self.entries.offset)
            .at(&self.path)?;
        self.file
            .write_at(&self.fences, self.facts.fences_start())
            .at(&self.path)?;
        self.file
            .write_at(&self.filter.buffer, self.filter.offset)
            .at(&self.path)?;
        let header = self.facts.encode(crc32c::crc32c(&self.fences));
        self.file.write_at(&header, 0).at(&self.path)?;
        self.file.sync_data().at(&self.path)
    }

    fn end_page(&mut self) -> Result<(), StoreError> {
        let number = (self.written - 1) / self.page_entries as u64;
        let end = self.in_page * (KEY_BYTES + self.value_bytes);
        self.page[end..].fill(0);
        let trailer = page_trailer(number, self.in_page as u32, 0);
        self.page[PAGE_ENTRY_BYTES..].copy_from_slice(&trailer);
        let crc = crc32c::crc32c(&self.page[..PAGE_BYTES - 4]);
        self.page[PAGE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        self.entries.buffer.extend_from_slice(&self.page[..]);
        self.in_page = 0;
        Self::drain(
            &mut self.entries,
            &mut self.unsynced,
            &*self.file,
            &self.path,
        )
    }

    fn end_filter_page(&mut self) -> Result<(), StoreError> {
        let crc = crc32c::crc32c(&self.blocks[..PAGE_BYTES - 4]);
        self.blocks[PAGE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        self.filter.buffer.extend_from_slice(&self.blocks);
        self.blocks.fill(0);
        self.filter_page += 1;
        Self::drain(
            &mut self.filter,
            &mut self.unsynced,
            &*self.file,
            &self.path,
        )
    }

    fn drain(
        area: &mut Area,
        unsynced: &mut u64,
        file: &dyn File,
        path: &Path,
    ) -> Result<(), StoreError> {
        if area.buffer.len() < WRITE_BYTES {
            return Ok(());
        }
        file.write_at(&area.buffer, area.offset).at(path)?;
        area.offset += area.buffer.len() as u64;
        *unsynced += area.buffer.len() as u64;
        area.buffer.clear();
        if *unsynced >= SYNC_BYTES {
            file.sync_data().at(path)?;
            *unsynced = 0;
        }
        Ok(())
    }
}

fn page_trailer(page: u64, count: u32, crc: u32) -> [u8; 16] {
    let mut trailer = [0; 16];
    trailer[..8].copy_from_slice(&page.to_le_bytes());
    trailer[8..12].copy_from_slice(&count.to_le_bytes());
    trailer[12..].copy_from_slice(&crc.to_le_bytes());
    trailer
}

/// Maps a key to `0..bound`, keeping the order of keys.
fn reduce(key: u64, bound: u64) -> u64 {
    ((u128::from(key) * u128::from(bound)) >> 64) as u64
}

/// The bits of its block that a key sets.
fn probes(key: u64) -> impl Iterator<Item = usize> {
    // The block follows from the key's high bits; a multiplication brings the low ones into play.
    let mixed = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| (mixed >> (probe * 9 + 1)) as usize & 511)
}
