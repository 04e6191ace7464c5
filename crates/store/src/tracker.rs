//! Reading the tracker's book: its state in memory, and its entries in the log.

use std::sync::Arc;

use daybook_ledger::{
    Position, TransactionId,
    tracker::{Book, Entry, IndexKey},
};

use crate::{
    Allowance, Store, StoreError,
    book::{History, Order},
};

/// The tracker's entries as its rules read them.
pub type TrackerHistory<'s> = History<'s, Entry>;

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
        self.shared.book_entry(id)
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
        self.shared.book_entries(key, order, &mut go_on)
    }

    /// The newest of the tracker's entries that has `key`.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn newest_tracker_entry(
        &self,
        key: IndexKey<'_>,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        self.shared.newest_book_entry(key)
    }

    /// The history that the rules of the tracker's book read.
    pub fn tracker_history(&self) -> TrackerHistory<'_> {
        History::new(&self.shared, None)
    }

    /// The same; what is read is taken from an allowance, which refuses nothing here.
    pub fn tracker_history_counted<'s>(&'s self, allowance: &'s Allowance) -> TrackerHistory<'s> {
        History::new(&self.shared, Some(allowance))
    }
}
