//! Entries of all books, newest first.

use daybook_ledger::{AssetId, Height, Position, PublicKey, block::Entry, tracker::IndexKey};
use daybook_store::Name;
use daybook_wire::{
    assets::{Query, Refusal},
    events::{self, Sight},
};

use super::{
    Asker, Found, Wrong,
    list::{List, Times, append_event},
    parameter::{asset_id, limit, position, public_key},
};

impl Asker<'_> {
    /// Entries of all books, newest first: all of them, or those of a key, an asset, or a tracker's
    /// address or channel; of all, those of a kind.
    pub(super) fn entries(&self, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["before", "limit", "kind", "key", "asset", "object"])?;
        let before = position(query, "before")?;
        let mut list = List::new("entries", limit(query)?);
        let name = match (
            query.first("key"),
            query.first("asset"),
            query.first("object"),
        ) {
            (None, None, None) => None,
            (Some(text), None, None) => Some(Wanted::Owner(public_key("key", text)?)),
            (None, Some(text), None) => Some(Wanted::Asset(asset_id("asset", text)?)),
            (None, None, Some(_)) if self.sight == Sight::Outline => return Err(Wrong::Veiled),
            (None, None, Some(text)) => Some(Wanted::Object(text)),
            _ => {
                let what = "One of key, asset and object";
                return Err(Refusal::parameter("key", what).into());
            }
        };
        let Some(name) = name else {
            return self.newest(before, query.first("kind"), list);
        };
        let mut times = Times::default();
        let (mut last, mut full) = (None, false);
        let mut failed = None;
        self.store
            .entries_before(name.as_name(), before, &mut |position, entry| {
                if list.is_full() {
                    full = true;
                    return false;
                }
                match times.of(&self.store, position.height) {
                    Ok(time) => {
                        append_event(list.element(), position, time, &entry, self.sight);
                    }
                    Err(error) => failed = Some(error),
                }
                last = Some(position);
                failed.is_none()
            })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        // Given up before anything was found: the page asks again from where it stood.
        let going_on = full || self.is_late();
        let next = last.or(before).filter(|_| going_on);
        list.end(next.map(|position| position.to_string()))
    }

    fn newest(&self, before: Option<Position>, kind: Option<&str>, mut list: List) -> Found {
        let tip = self.store.tip().height;
        let end = Position {
            height: tip.next(),
            index: 0,
        };
        let mut at = before.unwrap_or(end).min(end);
        let is_of_kind = |entry: &Entry| {
            kind.is_none_or(|kind| {
                events::kind(entry)
                    .strip_prefix(kind)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        while !list.is_full() && !self.is_late() {
            // In the block that the cursor is in, what stands before it; else the block below.
            let height = if at.index > 0 {
                at.height
            } else {
                Height(at.height.0.saturating_sub(1))
            };
            let Some(stored) = self.store.block(height)? else {
                at = Position {
                    height: Height(0),
                    index: 0,
                };
                break;
            };
            let entries = &stored.block.entries;
            let until = if at.index > 0 {
                entries.len().min(at.index as usize)
            } else {
                entries.len()
            };
            at = Position { height, index: 0 };
            for (index, entry) in entries[..until].iter().enumerate().rev() {
                let index = index as u32;
                if list.is_full() {
                    at.index = index + 1;
                    break;
                }
                if is_of_kind(entry) {
                    let position = Position { height, index };
                    let time = stored.block.header.time;
                    append_event(list.element(), position, time, entry, self.sight);
                }
            }
        }
        let more = at.height.0 > 1 || at.index > 0;
        list.end(more.then(|| at.to_string()))
    }
}

/// A name as it was asked for.
enum Wanted<'q> {
    Owner(PublicKey),
    Asset(AssetId),
    Object(&'q str),
}

impl Wanted<'_> {
    fn as_name(&self) -> Name<'_> {
        match self {
            Wanted::Owner(key) => Name::Owner(key),
            Wanted::Asset(asset) => Name::Asset(asset),
            Wanted::Object(name) => Name::Tracker(IndexKey::Object(name)),
        }
    }
}
