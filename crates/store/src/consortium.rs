//! Reading the consortium's book: its state in memory, and its entries in the log.

use std::{cell::RefCell, sync::Arc};

use daybook_ledger::{
    Height, Position, TransactionId,
    consortium::{Book, Entry, History, IndexKey},
};

use crate::{
    Order, Store, StoreError, explore::packed, index::key::Family, log::record::Text,
    place::unpack, store::Shared,
};

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
        ConsortiumHistory {
            shared: &self.shared,
            failure: RefCell::new(None),
        }
    }

    /// An entry of the consortium's book and its place.
    ///
    /// # Errors
    /// As [`Store::position`].
    pub fn consortium_entry(
        &self,
        id: &TransactionId,
    ) -> Result<Option<(Position, Entry)>, StoreError> {
        let key = self.shared.index.secret.key(Family::ConsortiumEntry, &id.0);
        let mut found = None;
        self.shared
            .consortium_entries(key, Order::OldestFirst, |position, entry| {
                if entry.id() == *id {
                    found = Some((position, entry));
                }
                found.is_none()
            })?;
        Ok(found)
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
        self.shared.consortium_entries_of(key, order, &mut go_on)
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
            let Some(entry) = shared.consortium_entry_at(position)? else {
                return Ok(true);
            };
            let mut has = false;
            entry.index_keys(&mut |other| has |= other == key);
            Ok(!has || each(position, entry))
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
            match shared.consortium_entry_at(position)? {
                Some(entry) => Ok(each(position, entry)),
                None => Ok(true),
            }
        };
        shared
            .index
            .oldest_above(key, above.saturating_sub(1), visit)
    }
}

impl Shared {
    fn consortium_entries_of(
        &self,
        key: IndexKey<'_>,
        order: Order,
        each: &mut dyn FnMut(Position, Entry) -> bool,
    ) -> Result<(), StoreError> {
        let hashed = self.index.secret.consortium_key(key);
        self.consortium_entries(hashed, order, |position, entry| {
            let mut has = false;
            entry.index_keys(&mut |other| has |= other == key);
            !has || each(position, entry)
        })
    }

    /// Walks the entries that the index names for a hashed key; they still have to be compared.
    fn consortium_entries(
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
            match self.consortium_entry_at(position)? {
                Some(entry) => Ok(each(position, entry)),
                None => Ok(true),
            }
        };
        match order {
            Order::OldestFirst => self.index.oldest_first(key, visit),
            Order::NewestFirst => self.index.newest_first(key, visit),
        }
    }

    /// The entry at a position that the index names; `None` when it is another book's, which has the same
    /// hash by accident.
    fn consortium_entry_at(&self, position: Position) -> Result<Option<Entry>, StoreError> {
        match self.entry_text_at(position)? {
            Some(Text::Consortium(text)) => Entry::read(text)
                .map(Some)
                .map_err(|error| self.text_damaged(position, &error.to_string())),
            Some(Text::Asset(_) | Text::Tracker(_)) => Ok(None),
            None => Err(self.index_damaged(position, "names an entry that is not there")),
        }
    }
}

/// History as the rules of the consortium's book read it. What cannot be read is given as never seen: ask
/// [`ConsortiumHistory::failure`] after each use, and take nothing for decided when there was one.
pub struct ConsortiumHistory<'s> {
    shared: &'s Shared,
    failure: RefCell<Option<StoreError>>,
}

impl ConsortiumHistory<'_> {
    /// Why, since the last call, history said other than what is so; `None` when all it said is true.
    pub fn failure(&self) -> Option<StoreError> {
        self.failure.take()
    }

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

impl History for ConsortiumHistory<'_> {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        let mut found = None;
        let mut take = |_, entry| {
            found = Some(Arc::new(entry));
            false
        };
        let read = self
            .shared
            .consortium_entries_of(key, Order::NewestFirst, &mut take);
        if let Err(error) = read {
            // Damage stops the node; what the operating system refused may go another time.
            if !error.is_transient() {
                self.shared.note_fault(error.again());
            }
            self.failure.replace(Some(error));
        }
        found
    }
}
