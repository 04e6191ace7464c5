//! Reading the consortium's book: its state in memory, and its entries in the log.

use daybook_ledger::{
    Height, Position, TransactionId,
    consortium::{Book, Entry, IndexKey},
};

use crate::{
    Allowance, Store, StoreError,
    book::{BookEntry, History, Order},
    explore::packed,
    place::unpack,
};

/// The consortium's entries as its rules read them.
pub type ConsortiumHistory<'s> = History<'s, Entry>;

impl Store {
    /// Reads the consortium's book as the newest block left it. The next block waits meanwhile: be quick,
    /// and ask the store nothing else on the same thread.
    pub fn consortium<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        read(&self.shared.state.read().consortium)
    }

    /// The same, with the height of the newest block in it.
    pub fn consortium_at<T>(&self, read: impl FnOnce(&Book, Height) -> T) -> T {
        let state = self.shared.state.read();
        read(&state.consortium, state.mark.tip.height)
    }

    /// The consortium's entries as its rules read them.
    pub fn consortium_history(&self) -> ConsortiumHistory<'_> {
        History::new(&self.shared, None)
    }

    /// The same; what is read is taken from an allowance, which refuses nothing here.
    pub fn consortium_history_counted<'s>(
        &'s self,
        allowance: &'s Allowance,
    ) -> ConsortiumHistory<'s> {
        History::new(&self.shared, Some(allowance))
    }

    /// An entry of the consortium's book and its place.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn consortium_entry(
        &self,
        id: &TransactionId,
    ) -> Result<Option<(Position, Entry)>, StoreError> {
        self.shared.book_entry(id)
    }

    /// The entries of the consortium's book that have `key`, in `order`, each once. `each` returns false
    /// to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn consortium_entries(
        &self,
        key: IndexKey<'_>,
        order: Order,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let mut go_on = |position, entry| self.is_wanted() && each(position, entry);
        self.shared.book_entries(key, order, &mut go_on)
    }

    /// The entries of the consortium's book that have `key`, oldest first, each once, from the first one
    /// behind `after` on. `each` returns false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn consortium_entries_after(
        &self,
        key: IndexKey<'_>,
        after: Position,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let tip = self.tip().height;
        let hashed = shared.index.secret.consortium_key(key);
        shared.index.oldest_above(hashed, packed(after), |value| {
            let position = unpack(value);
            if position.height > tip || !self.is_wanted() {
                return Ok(false);
            }
            match shared.book_entry_at::<Entry>(position)? {
                Some(entry) if entry.has(key) => Ok(each(position, entry)),
                _ => Ok(true),
            }
        })
    }

    /// All entries of the consortium's book, oldest first, from the place `from` on. What a page costs does
    /// not depend on how many there are. `each` returns false to stop.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn consortium_log(
        &self,
        from: Position,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let tip = self.tip().height;
        let key = shared.index.secret.consortium_book();
        let above = packed(from);
        // The index gives what is above a place, and the place itself is wanted too.
        let mut last = None;
        let visit = |value: u64| {
            let position = unpack(value);
            if position.height > tip || !self.is_wanted() {
                return Ok(false);
            }
            if position < from || last.replace(value) == Some(value) {
                return Ok(true);
            }
            match shared.book_entry_at(position)? {
                Some(entry) => Ok(each(position, entry)),
                None => Ok(true),
            }
        };
        shared
            .index
            .oldest_above(key, above.saturating_sub(1), visit)
    }
}

impl ConsortiumHistory<'_> {
    /// Why an entry that the book knows could not be found: what the disk said, or damage of the index.
    pub fn missing(&self, ledger: &str, sequence: u64) -> StoreError {
        self.failure().unwrap_or_else(|| {
            StoreError::damaged(
                &self.shared.dir.join("index"),
                0,
                format!("the index lacks what committed entry {sequence} of ledger \"{ledger}\""),
            )
        })
    }
}
