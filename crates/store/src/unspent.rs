//! The table of unspent outputs: exact, in memory, at most 80 bytes for each.
//!
//! Entries lie packed in slabs that never move or grow, so that memory follows the number of
//! outputs, a checkpoint can copy chunk by chunk while the ledger goes on, and no insertion ever
//! waits for a large copy. Slabs come from the operating system, which gives memory when it is first
//! written to: an allocator rounds sizes up, which here would cost a sixth. An index of 32-bit words finds them: each word is the entry's number and,
//! in the bits that are left, a tag of its hash. Words sit in buckets of one cache line; a key may be
//! in either of two. The index is cut in shards that grow each for itself by a fifth, which keeps
//! them 78 to 94 % full and every pause short.

use std::hash::{BuildHasher, RandomState};

use daybook_ledger::{Amount, Lock, OutputRef, TransactionId, Unspent};
use memmap2::MmapMut;

use crate::prefetch::prefetch;

/// Bytes of an entry: id, index (u16), amount (u64), lock.
pub(crate) const ENTRY_BYTES: usize = 74;
/// Entries of a chunk: 288 KiB, copied in tens of microseconds.
pub(crate) const CHUNK_ENTRIES: usize = 3_984;
/// Entries of a slab, 18 MiB: few enough slabs, each of several huge pages.
const SLAB_ENTRIES: usize = 64 * CHUNK_ENTRIES;

/// Shards of the index: with five million outputs one holds some 1,200, and grows in under 0.1 ms.
const SHARDS: usize = 4_096;
/// Words of a bucket: one cache line.
const BUCKET_WORDS: usize = 16;
/// A shard grows when more than 94 in 100 of its words are taken, by a fifth: to 78 in 100. Larger steps
/// would take more than 80 bytes for an output, smaller ones more time.
const LOAD_MAX: (usize, usize) = (94, 100);
const GROWTH: usize = 5;
/// No entry.
const EMPTY: u32 = 0;
/// The end of the list of free entries.
const NO_SLOT: u32 = u32::MAX;

/// All unspent outputs.
pub(crate) struct UnspentTable {
    slabs: Vec<MmapMut>,
    shards: Vec<Shard>,
    keys: [u64; 3],
    /// Entries ever used, free ones included.
    slots: u32,
    free: u32,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket([u32; BUCKET_WORDS]);

const EMPTY_BUCKET: Bucket = Bucket([EMPTY; BUCKET_WORDS]);

#[derive(Default)]
struct Shard {
    buckets: Box<[Bucket]>,
    taken: u32,
    /// Low bits of a word that number an entry (from 1); the rest is tag.
    slot_bits: u32,
}

/// What is derived from a key: which shard, which two buckets of it, which tag.
#[derive(Clone, Copy)]
struct Hash {
    shard: usize,
    first: u32,
    second: u32,
    tag: u32,
}

impl UnspentTable {
    /// An empty table, hashed with keys of this process's own so that nobody can aim at one bucket.
    pub(crate) fn new() -> UnspentTable {
        let random = RandomState::new();
        UnspentTable::with_keys([0, 1, 2].map(|word: u64| random.hash_one(word) | 1))
    }

    fn with_keys(keys: [u64; 3]) -> UnspentTable {
        let mut shards = Vec::new();
        shards.resize_with(SHARDS, Shard::default);
        UnspentTable {
            slabs: Vec::new(),
            shards,
            keys,
            slots: 0,
            free: NO_SLOT,
            len: 0,
        }
    }

    /// Makes room in the index for `outputs` in all, before a checkpoint is read.
    pub(crate) fn reserve(&mut self, outputs: usize) {
        // Shards differ from the mean by chance; the fullest will grow once more.
        let words = outputs / SHARDS * 20 / 17;
        let buckets = words.div_ceil(BUCKET_WORDS);
        for at in 0..SHARDS {
            if self.shards[at].buckets.len() < buckets {
                self.rebuild(at, buckets);
            }
        }
    }

    /// Outputs in the table.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that the table holds: of a slab, what was ever written to.
    pub(crate) fn memory_bytes(&self) -> usize {
        let words: usize = self
            .shards
            .iter()
            .map(|shard| shard.buckets.len() * size_of::<Bucket>())
            .sum();
        self.slots as usize * ENTRY_BYTES
            + self.slabs.capacity() * size_of::<MmapMut>()
            + words
            + SHARDS * size_of::<Shard>()
    }

    /// The output, if it is unspent.
    pub(crate) fn get(&self, output: &OutputRef) -> Option<Unspent> {
        let key = key_of(output)?;
        let (_, _, slot) = self.find(&key, self.hash(&key))?;
        Some(unspent_of(self.entry(slot)))
    }

    /// Brings what [`UnspentTable::get`], [`UnspentTable::insert`] and [`UnspentTable::remove`] look at
    /// closer to the processor: the memory's delays overlap instead of adding up. Takes the first
    /// [`PREFETCH_OUTPUTS`]: of more, those that come first would be gone again when they are asked for.
    pub(crate) fn prefetch<'o>(&self, outputs: impl Iterator<Item = &'o OutputRef>) {
        // What a look-up reads one after the other is asked for in rounds over all outputs.
        let outputs = outputs.take(PREFETCH_OUTPUTS);
        let hashes = outputs.filter_map(key_of).map(|key| {
            let hash = self.hash(&key);
            prefetch(&self.shards[hash.shard]);
            hash
        });
        let hashes: Vec<Hash> = hashes.collect();
        for hash in &hashes {
            let shard = &self.shards[hash.shard];
            for bucket in shard.places(*hash) {
                if let Some(bucket) = shard.buckets.get(bucket) {
                    prefetch(bucket);
                }
            }
        }
        for hash in &hashes {
            for (_, _, slot) in self.shards[hash.shard].candidates(*hash) {
                let entry = self.entry(slot);
                prefetch(&entry[0]);
                prefetch(&entry[ENTRY_BYTES - 1]);
            }
        }
    }

    /// Adds an output. False, and nothing changes, when it is there already or can be in no ledger.
    pub(crate) fn insert(&mut self, output: &OutputRef, unspent: Unspent) -> bool {
        let Some(key) = key_of(output) else {
            return false;
        };
        let hash = self.hash(&key);
        if self.find(&key, hash).is_some() {
            return false;
        }
        let slot = self.take_slot();
        let entry = self.entry_mut(slot);
        entry[..34].copy_from_slice(&key);
        entry[34..42].copy_from_slice(&unspent.amount.units().to_le_bytes());
        entry[42..].copy_from_slice(&unspent.lock.0);
        self.link(hash, slot);
        self.len += 1;
        true
    }

    /// Removes an output. False when it is not there.
    pub(crate) fn remove(&mut self, output: &OutputRef) -> bool {
        let Some(key) = key_of(output) else {
            return false;
        };
        let hash = self.hash(&key);
        let Some((bucket, word, slot)) = self.find(&key, hash) else {
            return false;
        };
        let shard = &mut self.shards[hash.shard];
        shard.buckets[bucket].0[word] = EMPTY;
        shard.taken -= 1;
        let next = self.free;
        let entry = self.entry_mut(slot);
        entry.fill(0);
        entry[..4].copy_from_slice(&next.to_le_bytes());
        self.free = slot;
        self.len -= 1;
        true
    }

    /// Chunks in use.
    pub(crate) fn chunks(&self) -> usize {
        (self.slots as usize).div_ceil(CHUNK_ENTRIES)
    }

    /// Appends the outputs of a chunk to `into`, packed; returns how many.
    pub(crate) fn copy_chunk(&self, chunk: usize, into: &mut Vec<u8>) -> u32 {
        let mut count = 0;
        let first = chunk * CHUNK_ENTRIES;
        let used = (self.slots as usize)
            .saturating_sub(first)
            .min(CHUNK_ENTRIES);
        let start = first % SLAB_ENTRIES * ENTRY_BYTES;
        let entries = &self.slabs[first / SLAB_ENTRIES][start..start + used * ENTRY_BYTES];
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            if entry[34..42] != [0; 8] {
                into.extend_from_slice(entry);
                count += 1;
            }
        }
        count
    }

    /// Every output, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (OutputRef, Unspent)> {
        (0..self.slots)
            .map(|slot| self.entry(slot))
            .filter(|entry| entry[34..42] != [0; 8])
            .map(|entry| {
                let (output, unspent) =
                    read_entry(entry).expect("entries in use were written by insert");
                (output, unspent)
            })
    }

    fn entry(&self, slot: u32) -> &[u8; ENTRY_BYTES] {
        let slot = slot as usize;
        let start = slot % SLAB_ENTRIES * ENTRY_BYTES;
        let entry = &self.slabs[slot / SLAB_ENTRIES][start..start + ENTRY_BYTES];
        entry.try_into().expect("the slice is one entry long")
    }

    fn entry_mut(&mut self, slot: u32) -> &mut [u8; ENTRY_BYTES] {
        let slot = slot as usize;
        let start = slot % SLAB_ENTRIES * ENTRY_BYTES;
        let entry = &mut self.slabs[slot / SLAB_ENTRIES][start..start + ENTRY_BYTES];
        entry.try_into().expect("the slice is one entry long")
    }

    fn take_slot(&mut self) -> u32 {
        if self.free != NO_SLOT {
            let slot = self.free;
            let next = self.entry(slot)[..4]
                .try_into()
                .expect("a free entry begins with four bytes");
            self.free = u32::from_le_bytes(next);
            return slot;
        }
        let slot = self.slots;
        assert!(
            slot < NO_SLOT - 1,
            "four thousand million unspent outputs are more than memory holds"
        );
        if slot as usize / SLAB_ENTRIES == self.slabs.len() {
            self.slabs.push(slab());
        }
        self.slots += 1;
        slot
    }

    fn hash(&self, key: &[u8; 34]) -> Hash {
        let word = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().expect("eight bytes"));
        let index = u64::from(u16::from_le_bytes([key[32], key[33]]));
        // The id is itself a hash; folding products with secret keys keeps anyone from aiming.
        let low = fold(word(0) ^ self.keys[0], word(8) ^ self.keys[1]);
        let high = fold(
            low ^ self.keys[2],
            word(16) ^ self.keys[0] ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        Hash {
            shard: high as usize % SHARDS,
            first: (high >> 32) as u32,
            second: low as u32,
            tag: (low >> 32) as u32 ^ high as u32,
        }
    }

    /// Bucket, word and entry of a key.
    fn find(&self, key: &[u8; 34], hash: Hash) -> Option<(usize, usize, u32)> {
        let mut candidates = self.shards[hash.shard].candidates(hash);
        candidates.find(|(_, _, slot)| self.entry(*slot)[..34] == *key)
    }

    /// Enters a key that is not there.
    fn link(&mut self, hash: Hash, slot: u32) {
        let bits = 32 - (slot + 1).leading_zeros();
        let shard = &mut self.shards[hash.shard];
        shard.widen(bits);
        if (shard.taken as usize + 1) * LOAD_MAX.1 > shard.buckets.len() * BUCKET_WORDS * LOAD_MAX.0
        {
            self.grow(hash.shard);
        }
        while !self.try_link(hash, slot) {
            self.grow(hash.shard);
        }
    }

    fn try_link(&mut self, hash: Hash, slot: u32) -> bool {
        if self.shards[hash.shard].put(hash, slot) {
            return true;
        }
        // Both buckets are full: some entry of them may have room in its other one.
        for bucket in self.shards[hash.shard].places(hash) {
            for at in 0..BUCKET_WORDS {
                let shard = &self.shards[hash.shard];
                let moved = (shard.buckets[bucket].0[at] & shard.slot_mask()) - 1;
                let key: [u8; 34] = self.entry(moved)[..34].try_into().expect("34 bytes");
                let other = self.hash(&key);
                let shard = &mut self.shards[hash.shard];
                let word = shard.buckets[bucket].0[at];
                for target in shard.places(other) {
                    if target == bucket {
                        continue;
                    }
                    if let Some(free) = shard.buckets[target]
                        .0
                        .iter_mut()
                        .find(|word| **word == EMPTY)
                    {
                        *free = word;
                        shard.buckets[bucket].0[at] = shard.tagged(hash.tag, slot + 1);
                        shard.taken += 1;
                        return true;
                    }
                }
            }
        }
        false
    }

    fn grow(&mut self, at: usize) {
        let buckets = self.shards[at].buckets.len();
        self.rebuild(at, buckets + (buckets / GROWTH).max(1));
    }

    fn rebuild(&mut self, at: usize, mut buckets: usize) {
        let old = std::mem::take(&mut self.shards[at]);
        let mask = old.slot_mask();
        let words = old
            .buckets
            .iter()
            .flat_map(|bucket| bucket.0)
            .filter(|word| *word != EMPTY);
        let words: Vec<u32> = words.collect();
        'larger: loop {
            self.shards[at] = Shard {
                buckets: vec![EMPTY_BUCKET; buckets].into_boxed_slice(),
                taken: 0,
                slot_bits: old.slot_bits,
            };
            for (place, word) in words.iter().enumerate() {
                if let Some(ahead) = words.get(place + LOOK_AHEAD) {
                    prefetch(self.entry((ahead & mask) - 1));
                }
                let slot = (word & mask) - 1;
                let key: [u8; 34] = self.entry(slot)[..34].try_into().expect("34 bytes");
                if !self.try_link(self.hash(&key), slot) {
                    buckets += (buckets / GROWTH).max(1);
                    continue 'larger;
                }
            }
            return;
        }
    }
}

impl Bucket {
    /// Which of its words have a tag, one bit each.
    fn tagged(&self, mask: u32, wanted: u32) -> u32 {
        // All words side by side, without a branch. The tag may be zero, or no bits wide, so an empty word
        // is told by itself.
        let mut bits = [0; BUCKET_WORDS];
        for (at, word) in self.0.iter().enumerate() {
            let is_tagged = (word & mask == wanted) & (*word != EMPTY);
            bits[at] = u32::from(is_tagged) << at;
        }
        bits.iter().fold(0, |all, bit| all | bit)
    }
}

impl Shard {
    fn slot_mask(&self) -> u32 {
        ((1_u64 << self.slot_bits) - 1) as u32
    }

    fn tagged(&self, tag: u32, number: u32) -> u32 {
        (tag & !self.slot_mask()) | number
    }

    /// The two buckets of a key; on a very small shard they may be one.
    fn places(&self, hash: Hash) -> [usize; 2] {
        let reduce = |half: u32| ((u64::from(half) * self.buckets.len() as u64) >> 32) as usize;
        [reduce(hash.first), reduce(hash.second)]
    }

    /// Bucket, word and entry of each word that has a key's tag: nearly always of that key alone.
    fn candidates(&self, hash: Hash) -> impl Iterator<Item = (usize, usize, u32)> {
        let wanted = self.tagged(hash.tag, 0);
        let mask = !self.slot_mask();
        self.places(hash).into_iter().flat_map(move |place| {
            let bucket = self.buckets.get(place).unwrap_or(&EMPTY_BUCKET);
            let mut tagged = bucket.tagged(mask, wanted);
            std::iter::from_fn(move || {
                let at = tagged.trailing_zeros() as usize;
                let word = bucket.0.get(at)?;
                tagged &= tagged - 1;
                Some((place, at, (word & !mask) - 1))
            })
        })
    }

    fn put(&mut self, hash: Hash, slot: u32) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let [first, second] = self.places(hash);
        let room = |bucket: &Bucket| bucket.0.iter().filter(|word| **word == EMPTY).count();
        // The emptier of the two, so that both fill evenly.
        let bucket = if room(&self.buckets[second]) > room(&self.buckets[first]) {
            second
        } else {
            first
        };
        let word = self.tagged(hash.tag, slot + 1);
        match self.buckets[bucket]
            .0
            .iter_mut()
            .find(|word| **word == EMPTY)
        {
            Some(free) => {
                *free = word;
                self.taken += 1;
                true
            }
            None => false,
        }
    }

    /// Gives entry numbers more bits at the cost of the tags' low ones.
    fn widen(&mut self, bits: u32) {
        if bits <= self.slot_bits {
            return;
        }
        let before = self.slot_mask();
        self.slot_bits = bits;
        let after = self.slot_mask();
        for word in self
            .buckets
            .iter_mut()
            .flat_map(|bucket| &mut bucket.0)
            .filter(|word| **word != EMPTY)
        {
            *word = (*word & before) | (*word & !after);
        }
    }
}

/// A slab of zeros.
///
/// # Panics
///
/// When the operating system has no memory to give, as any allocation would.
fn slab() -> MmapMut {
    let slab = MmapMut::map_anon(SLAB_ENTRIES * ENTRY_BYTES).expect("memory for unspent outputs");
    // Entries are looked up all over the table: large pages spare the processor a miss each. Where
    // there are none, small ones do.
    #[cfg(target_os = "linux")]
    let _ = slab.advise(memmap2::Advice::HugePage);
    slab
}

/// Outputs that [`UnspentTable::prefetch`] brings near at once: some 80 KB of cache lines.
pub(crate) const PREFETCH_OUTPUTS: usize = 256;

/// Entries to look ahead in a loop: as many cache misses as a processor keeps under way.
const LOOK_AHEAD: usize = 6;

/// Reads a packed entry; `None` when its amount can be in no ledger.
pub(crate) fn read_entry(entry: &[u8; ENTRY_BYTES]) -> Option<(OutputRef, Unspent)> {
    let transaction = TransactionId(entry[..32].try_into().expect("32 bytes"));
    let index = u32::from(u16::from_le_bytes([entry[32], entry[33]]));
    let amount = u64::from_le_bytes(entry[34..42].try_into().expect("eight bytes"));
    let amount = Amount::new(amount)?;
    let lock = Lock(entry[42..].try_into().expect("32 bytes"));
    Some((OutputRef { transaction, index }, Unspent { amount, lock }))
}

fn unspent_of(entry: &[u8; ENTRY_BYTES]) -> Unspent {
    read_entry(entry)
        .expect("entries in use were written by insert")
        .1
}

/// The packed key; `None` for an index that no output has.
fn key_of(output: &OutputRef) -> Option<[u8; 34]> {
    let index = u16::try_from(output.index).ok()?;
    let mut key = [0; 34];
    key[..32].copy_from_slice(&output.transaction.0);
    key[32..].copy_from_slice(&index.to_le_bytes());
    Some(key)
}

fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            fold(self.0 ^ 0x2545_f491_4f6c_dd1d, 0xd6e8_feb8_6659_fd93)
        }
    }

    fn output(number: u64) -> OutputRef {
        let mut id = [0; 32];
        for (at, piece) in id.chunks_exact_mut(8).enumerate() {
            let mut dice = Dice(number.wrapping_mul(4).wrapping_add(at as u64));
            piece.copy_from_slice(&dice.next().to_le_bytes());
        }
        OutputRef {
            transaction: TransactionId(id),
            index: (number % 3) as u32,
        }
    }

    fn unspent(number: u64) -> Unspent {
        Unspent {
            amount: Amount::new(number % 1_000 + 1).unwrap(),
            lock: Lock([number as u8; 32]),
        }
    }

    #[test]
    fn the_table_does_what_an_ordered_map_does() {
        let seed = 20_261_121;
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let mut table = UnspentTable::with_keys([3, 5, 7]);
        let mut model = BTreeMap::new();
        for step in 0..200_000_u64 {
            // The number of outputs swells and ebbs, so that entries are freed and taken again.
            let growing = step / 40_000 % 2 == 0;
            let number = dice.next() % 30_000;
            let key = output(number);
            match dice.next() % 10 {
                0..3 => assert_eq!(table.get(&key), model.get(&key).copied()),
                pick if (pick < 8) == growing => {
                    let fresh = !model.contains_key(&key);
                    assert_eq!(table.insert(&key, unspent(step)), fresh);
                    model.entry(key).or_insert(unspent(step));
                }
                _ => assert_eq!(table.remove(&key), model.remove(&key).is_some()),
            }
            assert_eq!(table.len(), model.len());
        }
        let all: BTreeMap<_, _> = table.iter().collect();
        assert_eq!(all, model);
        for number in 0..30_000 {
            assert_eq!(
                table.get(&output(number)),
                model.get(&output(number)).copied()
            );
        }
    }

    #[test]
    fn an_output_costs_at_most_eighty_bytes() {
        let mut table = UnspentTable::with_keys([3, 5, 7]);
        let mut worst: f64 = 0.0;
        for number in 0..800_000 {
            assert!(table.insert(&output(number), unspent(number)));
            // Below that the fixed 160 KB of shards count.
            if number > 400_000 && number % 10_007 == 0 {
                worst = worst.max(table.memory_bytes() as f64 / table.len() as f64);
            }
        }
        assert!(worst <= 80.0, "{worst} bytes per output");
    }

    #[test]
    fn an_index_beyond_sixteen_bits_is_no_output() {
        let mut table = UnspentTable::with_keys([3, 5, 7]);
        let far = OutputRef {
            transaction: TransactionId([1; 32]),
            index: 65_536,
        };
        assert!(!table.insert(&far, unspent(1)));
        assert_eq!(table.get(&far), None);
        assert!(!table.remove(&far));
        let last = OutputRef {
            transaction: TransactionId([1; 32]),
            index: 65_535,
        };
        assert!(table.insert(&last, unspent(1)));
        assert_eq!(table.get(&last), Some(unspent(1)));
    }

    #[test]
    fn a_chunk_is_copied_without_its_free_entries() {
        let mut table = UnspentTable::with_keys([3, 5, 7]);
        for number in 0..5_000 {
            table.insert(&output(number), unspent(number));
        }
        for number in (0..5_000).step_by(2) {
            table.remove(&output(number));
        }
        let mut bytes = Vec::new();
        let copied: u32 = (0..table.chunks())
            .map(|chunk| table.copy_chunk(chunk, &mut bytes))
            .sum();
        assert_eq!(copied, 2_500);
        let mut copy = UnspentTable::new();
        copy.reserve(2_500);
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            let (output, unspent) = read_entry(entry.try_into().unwrap()).unwrap();
            assert!(copy.insert(&output, unspent));
        }
        let sorted = |table: &UnspentTable| table.iter().collect::<BTreeMap<_, _>>();
        assert_eq!(sorted(&copy), sorted(&table));
    }
}
