//! Reading entries of the books beside the assets' in the log: by id, and by what they are known by.

use std::{cell::RefCell, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use daybook_ledger::{Position, TransactionId, consortium, tracker};

use crate::{
    Allowance, StoreError,
    index::key::{Family, Secret},
    log::record::Text,
    place::unpack,
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

/// An entry of one book, as the store knows it.
pub(crate) trait BookEntry: Sized {
    /// What entries of the book are known by.
    type Key<'k>: Copy;
    /// The look-ups of its ids.
    const IDS: Family;

    /// The text, if it is one of this book.
    fn text_of(text: Text) -> Option<Bytes>;
    /// # Errors
    /// What is wrong with the text.
    fn read(text: Bytes) -> Result<Self, String>;
    fn id(&self) -> TransactionId;
    /// Bytes of its text.
    fn text_bytes(&self) -> usize;
    fn has(&self, key: Self::Key<'_>) -> bool;
    fn hashed(secret: &Secret, key: Self::Key<'_>) -> u64;
}

/// Both books have the same shape and no type in common.
macro_rules! book {
    ($book:ident, $text:ident, $ids:ident, $hashed:ident) => {
        impl BookEntry for $book::Entry {
            type Key<'k> = $book::IndexKey<'k>;
            const IDS: Family = Family::$ids;

            fn text_of(text: Text) -> Option<Bytes> {
                match text {
                    Text::$text(text) => Some(text),
                    _ => None,
                }
            }

            fn read(text: Bytes) -> Result<Self, String> {
                $book::Entry::read(text).map_err(|error| error.to_string())
            }

            fn id(&self) -> TransactionId {
                $book::Entry::id(self)
            }

            fn text_bytes(&self) -> usize {
                self.text().len()
            }

            fn has(&self, key: Self::Key<'_>) -> bool {
                let mut has = false;
                self.index_keys(&mut |other| has |= other == key);
                has
            }

            fn hashed(secret: &Secret, key: Self::Key<'_>) -> u64 {
                secret.$hashed(key)
            }
        }

        impl $book::History for History<'_, $book::Entry> {
            fn newest(&self, key: $book::IndexKey<'_>) -> Option<Arc<$book::Entry>> {
                newest(self, key)
            }
        }
    };
}

book!(tracker, Tracker, TrackerEntry, tracker_key);
book!(consortium, Consortium, ConsortiumEntry, consortium_key);

impl Shared {
    /// The entry with an id, and its place.
    pub(crate) fn book_entry<E: BookEntry>(
        &self,
        id: &TransactionId,
    ) -> Result<Option<(Position, E)>, StoreError> {
        let key = self.index.secret.key(E::IDS, &id.0);
        let mut found = None;
        self.book_entries_under(key, Order::OldestFirst, |position, entry: E| {
            if entry.id() == *id {
                found = Some((position, entry));
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// The entries that have `key`, in `order`, each once. `each` returns false to stop.
    pub(crate) fn book_entries<E: BookEntry>(
        &self,
        key: E::Key<'_>,
        order: Order,
        each: &mut dyn FnMut(Position, E) -> bool,
    ) -> Result<(), StoreError> {
        let hashed = E::hashed(&self.index.secret, key);
        self.book_entries_under(hashed, order, |position, entry: E| {
            !entry.has(key) || each(position, entry)
        })
    }

    /// The newest entry that has `key`.
    pub(crate) fn newest_book_entry<E: BookEntry>(
        &self,
        key: E::Key<'_>,
    ) -> Result<Option<Arc<E>>, StoreError> {
        let mut found = None;
        self.book_entries(key, Order::NewestFirst, &mut |_, entry: E| {
            found = Some(Arc::new(entry));
            false
        })?;
        Ok(found)
    }

    /// Walks the entries that the index names for a hashed key; they still have to be compared.
    fn book_entries_under<E: BookEntry>(
        &self,
        key: u64,
        order: Order,
        mut each: impl FnMut(Position, E) -> bool,
    ) -> Result<(), StoreError> {
        let tip = self.tip.read().height;
        let visit = |value: u64| {
            let position = unpack(value);
            if position.height > tip {
                // Readers do not see it yet.
                return Ok(order == Order::NewestFirst);
            }
            match self.book_entry_at(position)? {
                Some(entry) => Ok(each(position, entry)),
                None => Ok(true),
            }
        };
        match order {
            Order::OldestFirst => self.index.oldest_first(key, visit),
            Order::NewestFirst => self.index.newest_first(key, visit),
        }
    }

    /// The entry at a position that the index names; `None` when something else stands there, which has the
    /// same hash by accident: another book's entry, or none, because it counts rejections.
    pub(crate) fn book_entry_at<E: BookEntry>(
        &self,
        position: Position,
    ) -> Result<Option<E>, StoreError> {
        let Some(text) = self.entry_text_at(position)? else {
            return Ok(None);
        };
        E::text_of(text)
            .map(|text| E::read(text).map_err(|error| self.text_damaged(position, &error)))
            .transpose()
    }
}

/// History as the rules of a book read it. What cannot be read is given as never seen: ask
/// [`History::failure`] after each use, and take nothing for decided when there was one.
pub struct History<'s, E> {
    pub(crate) shared: &'s Shared,
    allowance: Option<&'s Allowance>,
    failure: RefCell<Option<StoreError>>,
    book: PhantomData<E>,
}

impl<'s, E> History<'s, E> {
    pub(crate) fn new(shared: &'s Shared, allowance: Option<&'s Allowance>) -> History<'s, E> {
        History {
            shared,
            allowance,
            failure: RefCell::default(),
            book: PhantomData,
        }
    }

    /// Why, since the last call, history said other than what is so; `None` when all it said is true.
    pub fn failure(&self) -> Option<StoreError> {
        self.failure.take()
    }
}

fn newest<E: BookEntry>(history: &History<'_, E>, key: E::Key<'_>) -> Option<Arc<E>> {
    let newest = history.shared.newest_book_entry::<E>(key);
    if let (Some(allowance), Ok(Some(entry))) = (history.allowance, &newest) {
        allowance.spend(entry.text_bytes());
    }
    newest.unwrap_or_else(|error| {
        // Damage stops the node; what the operating system refused may go another time.
        if !error.is_transient() {
            history.shared.note_fault(error.again());
        }
        history.failure.replace(Some(error));
        None
    })
}
