//! Blocks, newest first, and one of them with its entries.

use std::io::Write as _;

use daybook_ledger::{Height, Position};
use daybook_wire::assets::{Query, Refusal, append_id, append_text};

use super::{
    Asker, Found,
    list::{List, append_event},
    parameter::{limit, number, position},
};

/// Rejections beside a block that its page shows.
const REJECTED_MAX: usize = 50;

impl Asker<'_> {
    pub(super) fn blocks(&self, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["before", "limit"])?;
        let tip = self.store.tip().height;
        let before = position(query, "before")?.map(|before| before.height);
        let mut next = before.map_or(tip.0, |before| before.0.saturating_sub(1).min(tip.0));
        let mut list = List::new("blocks", limit(query)?);
        while next > 0 && !list.is_full() && !(self.is_late() && list.count > 0) {
            let Some(heading) = self.store.heading(Height(next))? else {
                break;
            };
            let header = &heading.header;
            let out = list.element();
            let _ = write!(
                out,
                "{{\"height\":{next},\"time\":{},\"hash\":\"{}\",\"count\":{},\"bytes\":{}}}",
                header.time.0, heading.hash, header.count, heading.bytes,
            );
            next -= 1;
        }
        // The block below it is the next one to show.
        list.end(if next == 0 {
            None
        } else {
            Some((next + 1).to_string())
        })
    }

    pub(super) fn block(&self, height: &str, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["from", "limit"])?;
        let Some(height) = number(height).map(Height) else {
            return Ok(None);
        };
        let from = match query.first("from") {
            None => 0,
            Some(text) => {
                number(text).ok_or_else(|| Refusal::parameter("from", "The index of an entry"))?
            }
        };
        let limit = limit(query)?;
        let Some(heading) = self.store.heading(height)? else {
            return Ok(None);
        };
        let Some(stored) = self.store.block(height)? else {
            return Ok(None);
        };
        let header = &heading.header;
        let mut out = Vec::new();
        let _ = write!(
            out,
            "{{\"height\":{},\"time\":{},\"hash\":\"{}\",\"parent\":\"{}\",\"proposer\":\"{}\",\
             \"count\":{},\"bytes\":{},\"state\":\"{}\",\"newest\":{},\"rejected\":[",
            height.0,
            header.time.0,
            heading.hash,
            header.parent,
            header.proposer,
            header.count,
            heading.bytes,
            stored.block.state(),
            self.store.tip().height == height,
        );
        for (place, lost) in stored.rejected.iter().take(REJECTED_MAX).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"id\":");
            append_id(&mut out, &lost.id);
            let _ = write!(
                out,
                ",\"class\":\"{}\",\"message\":",
                lost.rejection.class.name()
            );
            append_text(&mut out, &lost.rejection.to_string());
            out.push(b'}');
        }
        let _ = write!(out, "],\"rejections\":{},", stored.rejected.len());
        let mut list = List::continuing(out, "entries", limit);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut next = None;
        for (index, entry) in (0u32..).zip(&stored.block.entries).skip(from) {
            if list.is_full() {
                next = Some(index.to_string());
                break;
            }
            let position = Position { height, index };
            append_event(list.element(), position, header.time, entry, self.sight);
        }
        list.end(next)
    }
}
