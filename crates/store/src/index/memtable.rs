//! The newest index entries, in memory until they are written as a sorted run.

use daybook_ledger::Height;

use super::key::KEY_MASK;
use crate::prefetch::prefetch;

/// No entry.
const NONE: u32 = u32::MAX;
/// Places of the smallest table.
const HEADS_MIN: usize = 1_024;
/// Entries whose places are brought near at once.
const PREFETCH_ENTRIES: usize = 64;

/// Entries in the order they came, those of one key chained from the newest back.
pub(crate) struct Memtable {
    entries: Vec<Entry>,
    /// Open addressing, at most half full: the newest entry of each key.
    heads: Vec<u32>,
    keys: usize,
    /// The first height whose entries are here.
    pub(crate) from: Height,
    /// The last one.
    pub(crate) to: Height,
}

/// A place in the values of one key.
#[derive(Clone, Copy)]
pub(crate) struct Walk(u32);

#[derive(Clone, Copy)]
struct Entry {
    key: u64,
    value: u64,
    previous: u32,
}

impl Memtable {
    /// An empty table that goes on behind `after`.
    pub(crate) fn new(after: Height) -> Memtable {
        Memtable {
            entries: Vec::new(),
            heads: vec![NONE; HEADS_MIN],
            keys: 0,
            from: after.next(),
            to: after,
        }
    }

    /// An empty table that goes on behind this one, with room for as much.
    pub(crate) fn successor(&self) -> Memtable {
        Memtable {
            entries: Vec::with_capacity(self.entries.len()),
            heads: vec![NONE; HEADS_MIN.max((self.keys * 2).next_power_of_two())],
            ..Memtable::new(self.to)
        }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds entries, key and value each; values of a key come in ascending order.
    pub(crate) fn insert_all(&mut self, entries: &[(u64, u64)]) {
        for entries in entries.chunks(PREFETCH_ENTRIES) {
            // What an insertion reads one after the other is asked for in rounds over all of them.
            for (key, _) in entries {
                prefetch(&self.heads[self.first_place(*key)]);
            }
            for (key, _) in entries {
                let head = self.heads[self.first_place(*key)];
                if let Some(entry) = self.entries.get(head as usize) {
                    prefetch(entry);
                }
            }
            for (key, value) in entries {
                self.insert(*key, *value);
            }
        }
    }

    /// Adds an entry; values of a key come in ascending order.
    pub(crate) fn insert(&mut self, key: u64, value: u64) {
        if self.keys * 2 >= self.heads.len() {
            self.grow();
        }
        let number = self.entries.len() as u32;
        let place = self.place(key);
        let previous = std::mem::replace(&mut self.heads[place], number);
        self.keys += usize::from(previous == NONE);
        self.entries.push(Entry {
            key,
            value,
            previous,
        });
    }

    /// Where a walk over the values of a key begins, newest first. Entries that come later do not change
    /// the walk.
    pub(crate) fn walk(&self, key: u64) -> Walk {
        Walk(self.heads[self.place(key)])
    }

    /// The next value of a walk; `None` behind the last.
    pub(crate) fn next(&self, walk: &mut Walk) -> Option<u64> {
        let entry = self.entries.get(walk.0 as usize)?;
        walk.0 = entry.previous;
        Some(entry.value)
    }

    /// All entries as keys and values, sorted.
    pub(crate) fn sorted(&self) -> Vec<(u64, u64)> {
        let mut pairs: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (entry.key, entry.value))
            .collect();
        pairs.sort_unstable();
        pairs
    }

    /// Where the key's newest entry is noted, or would be.
    fn place(&self, key: u64) -> usize {
        let mask = self.heads.len() - 1;
        let mut place = self.first_place(key);
        loop {
            match self.entries.get(self.heads[place] as usize) {
                Some(entry) if entry.key != key => place = (place + 1) & mask,
                _ => return place,
            }
        }
    }

    fn first_place(&self, key: u64) -> usize {
        // The low bits of keys are zero.
        (key >> KEY_MASK.trailing_zeros()) as usize & (self.heads.len() - 1)
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.heads);
        self.heads = vec![NONE; old.len() * 2];
        for head in old.into_iter().filter(|head| *head != NONE) {
            let place = self.place(self.entries[head as usize].key);
            self.heads[place] = head;
        }
    }
}
