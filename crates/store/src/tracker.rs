//! Reading the tracker's book: its state in memory, and its entries in the log.

use std::{cell::RefCell, sync::Arc};

use daybook_ledger::{
    Position, TransactionId,
    tracker::{Book, Entry, History, IndexKey},
};

use crate::{
    Allowance, Store, StoreError, index::key::Family, log::record::Text, place::unpack,
    store::Shared,
};

/// Which way entries are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In commit order.
    OldestFirst,
    /// Against it.
    NewestFirst,
}

impl Store {
    /// Reads the tracker's book as the newest block left it. The next block waits meanwhile: be quick,
    /// and ask the store nothing else on the same thread.
    pub fn tracker<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        read(&self.shared.state.read().tracker)
    }

    /// A tracker entry and its place.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn tracker_entry(
        &self,
        id: &TransactionId,
    ) -> Result<Option<(Position, Entry)>, StoreError> {
        let key = self.shared.index.secret.key(Family::TrackerEntry, &id.0);
        let mut found = None;
        self.shared
            .tracker_entries(key, Order::OldestFirst, |position, entry| {
                if entry.id() == *id {
                    found = Some((position, entry));
                }
                found.is_none()
            })?;
        Ok(found)
    }

    /// The tracker's entries that have `key`, in `order`, each once. `each` returns false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn tracker_entries(
        &self,
        key: IndexKey<'_>,
        order: Order,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let mut go_on = |position, entry| self.is_wanted() && each(position, entry);
        self.shared.tracker_entries_of(key, order, &mut go_on)
    }

    /// The newest of the tracker's entries that has `key`.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn newest_tracker_entry(
        &self,
        key: IndexKey<'_>,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        self.shared.newest_tracker_entry(key)
    }

    /// The history that the rules of the tracker's book read.
    pub fn tracker_history(&self) -> TrackerHistory<'_> {
        TrackerHistory {
            shared: &self.shared,
            allowance: None,
            failure: RefCell::default(),
        }
    }

    /// The same; what is read is taken from an allowance, which refuses nothing here.
    pub fn tracker_history_counted<'s>(&'s self, allowance: &'s Allowance) -> TrackerHistory<'s> {
        TrackerHistory {
            allowance: Some(allowance),
            ..self.tracker_history()
        }
    }
}

/// History as the rules of the tracker's book read it. What cannot be read is given as never seen: ask
/// [`TrackerHistory::failure`] after each use, and take nothing for decided when there was one.
pub struct TrackerHistory<'s> {
    shared: &'s Shared,
    allowance: Option<&'s Allowance>,
    failure: RefCell<Option<StoreError>>,
}

impl TrackerHistory<'_> {
    /// Why, since the last call, history said other than what is so; `None` when all it said is true.
    pub fn failure(&self) -> Option<StoreError> {
        self.failure.take()
    }
}

impl Shared {
    fn newest_tracker_entry(&self, key: IndexKey<'_>) -> Result<Option<Arc<Entry>>, StoreError> {
        let mut found = None;
        self.tracker_entries_of(key, Order::NewestFirst, &mut |_, entry| {
            found = Some(Arc::new(entry));
            false
        })?;
        Ok(found)
    }

    fn tracker_entries_of(
        &self,
        key: IndexKey<'_>,
        order: Order,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let hashed = self.index.secret.tracker_key(key);
        self.tracker_entries(hashed, order, |position, entry| {
            let mut has = false;
            entry.index_keys(&mut |other| has |= other == key);
            !has || each(position, entry)
        })
    }

    /// Walks the entries that the index names for a hashed key; they still have to be compared.
    fn tracker_entries(
        &self,
        key: u64,
        order: Order,
        mut each: impl FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let tip = self.tip.read().height;
        let visit = |value: u64| {
            let position = unpack(value);
            if position.height > tip {
                // Readers do not see it yet.
                return Ok(order == Order::NewestFirst);
            }
            match self.entry_text_at(position)? {
                Some(Text::Tracker(text)) => {
                    let entry = Entry::read(text)
                        .map_err(|error| self.text_damaged(position, &error.to_string()))?;
                    Ok(each(position, entry))
                }
                // Another book's entry under the same hash.
                Some(Text::Asset(_) | Text::Consortium(_)) => Ok(true),
                None => Err(self.index_damaged(position, "names an entry that is not there")),
            }
        };
        match order {
            Order::OldestFirst => self.index.oldest_first(key, visit),
            Order::NewestFirst => self.index.newest_first(key, visit),
        }
    }
}

impl History for TrackerHistory<'_> {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        let newest = self.shared.newest_tracker_entry(key);
        if let (Some(allowance), Ok(Some(entry))) = (self.allowance, &newest) {
            allowance.spend(entry.text().len());
        }
        newest.unwrap_or_else(|error| {
            // Damage stops the node; what the operating system refused may go another time.
            if !error.is_transient() {
                self.shared.note_fault(error.again());
            }
            self.failure.replace(Some(error));
            None
        })
    }
}
