//! Asking the tracker's book.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use daybook_ledger::tracker::{Book, Entry, History, IndexKey, Refusal};
use daybook_store::Store;

use super::listing::unreadable;

/// How often a question is asked again because it wanted more of history: one about an address or a
/// channel names one object.
const TRIES_MAX: usize = 4;

/// No history: for questions about what is open, which the book has in memory.
pub(super) struct Nothing;

impl History for Nothing {
    fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
        None
    }
}

/// Asks the book. It is locked meanwhile, and history lies on disk: what the question wants of it is read
/// between two tries.
///
/// # Errors
/// `internal` when the log cannot be read: a guess at what it says is no answer.
pub(super) fn ask<T>(
    store: &Store,
    question: impl Fn(&Book, &dyn History) -> T,
) -> Result<T, Refusal> {
    let fetched = Fetched::default();
    for _ in 1..TRIES_MAX {
        let answer = store.tracker(|book| question(book, &fetched));
        let missing = fetched.missing.take();
        if missing.is_empty() {
            return Ok(answer);
        }
        for key in missing {
            let entry = store
                .newest_tracker_entry(key.borrowed())
                .map_err(|error| unreadable(&error))?;
            fetched.known.borrow_mut().insert(key, entry);
        }
    }
    Ok(store.tracker(|book| question(book, &fetched)))
}

/// The part of history that was read so far.
#[derive(Default)]
struct Fetched {
    known: RefCell<BTreeMap<OwnedKey, Option<Arc<Entry>>>>,
    missing: RefCell<Vec<OwnedKey>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum OwnedKey {
    Object(Box<str>),
    Owner([u8; 32]),
    Type(u8),
    Sequence(u64),
    Request([u8; 32]),
}

impl OwnedKey {
    fn of(key: IndexKey<'_>) -> OwnedKey {
        match key {
            IndexKey::Object(name) => OwnedKey::Object(name.into()),
            IndexKey::Owner(hash) => OwnedKey::Owner(hash),
            IndexKey::Type(code) => OwnedKey::Type(code),
            IndexKey::Sequence(number) => OwnedKey::Sequence(number),
            IndexKey::Request(hash) => OwnedKey::Request(hash),
        }
    }

    fn borrowed(&self) -> IndexKey<'_> {
        match self {
            OwnedKey::Object(name) => IndexKey::Object(name),
            OwnedKey::Owner(hash) => IndexKey::Owner(*hash),
            OwnedKey::Type(code) => IndexKey::Type(*code),
            OwnedKey::Sequence(number) => IndexKey::Sequence(*number),
            OwnedKey::Request(hash) => IndexKey::Request(*hash),
        }
    }
}

impl History for Fetched {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        let key = OwnedKey::of(key);
        let known = self.known.borrow().get(&key).cloned();
        known.unwrap_or_else(|| {
            self.missing.borrow_mut().push(key);
            None
        })
    }
}
