//! Pages of lists, and the events in them.

use std::io::Write as _;

use daybook_ledger::{BlockTime, Height, Position, block::Entry};
use daybook_store::{Store, StoreError};
use daybook_wire::{
    assets::{append_id, append_text},
    events::{self, Sight},
};

use super::Found;

/// Elements of one page of a list, and how many there are unless the page asks for fewer or more.
pub(super) const PAGE_ELEMENTS_MAX: usize = 100;
pub(super) const PAGE_ELEMENTS: usize = 25;

/// Bytes of a page from which it ends early: large transactions make short pages.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// Bytes of one event in a list; a longer one is told without its body, and its own page has the rest.
const EVENT_BYTES_MAX: usize = 4 << 10;

/// A page of a list: `{"<name>": […], "next": "<cursor>"}`.
pub(super) struct List {
    out: Vec<u8>,
    start: usize,
    pub(super) count: usize,
    pub(super) limit: usize,
}

impl List {
    pub(super) fn new(name: &str, limit: usize) -> List {
        List::continuing(b"{".to_vec(), name, limit)
    }

    /// The same as a member of the object that `out` has begun.
    pub(super) fn continuing(mut out: Vec<u8>, name: &str, limit: usize) -> List {
        let _ = write!(out, "\"{name}\":[");
        List {
            start: out.len(),
            out,
            count: 0,
            limit,
        }
    }

    pub(super) fn is_heavy(&self) -> bool {
        self.out.len() - self.start >= PAGE_BYTES_MAX
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limit || self.is_heavy()
    }

    /// Where the next element is written.
    pub(super) fn element(&mut self) -> &mut Vec<u8> {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
        &mut self.out
    }

    pub(super) fn end(mut self, next: Option<String>) -> Found {
        self.out.extend_from_slice(b"],\"next\":");
        match next {
            Some(next) => append_text(&mut self.out, &next),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.push(b'}');
        Ok(Some(self.out))
    }
}

/// Times of blocks, each read once while a list stays in it.
#[derive(Default)]
pub(super) struct Times(Option<(Height, BlockTime)>);

impl Times {
    pub(super) fn of(&mut self, store: &Store, height: Height) -> Result<BlockTime, StoreError> {
        if let Some((known, time)) = self.0
            && known == height
        {
            return Ok(time);
        }
        let heading = store.heading(height)?;
        let time = heading.map_or(BlockTime(0), |heading| heading.header.time);
        self.0 = Some((height, time));
        Ok(time)
    }
}

/// An entry as an event. One that is too long for a list goes without names and body.
pub(in crate::console) fn append_event(
    out: &mut Vec<u8>,
    position: Position,
    time: BlockTime,
    entry: &Entry,
    sight: Sight,
) {
    let start = out.len();
    events::event(out, position, time, entry, sight);
    if out.len() - start > EVENT_BYTES_MAX {
        out.truncate(start);
        let _ = write!(
            out,
            "{{\"position\":\"{position}\",\"time\":{},\"kind\":\"{}\",\"id\":",
            time.0,
            events::kind(entry)
        );
        append_id(out, &entry.id());
        out.extend_from_slice(b",\"long\":true}");
    }
}
