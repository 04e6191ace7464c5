//! What a text may name, and where its words stand.

use std::io::Write as _;

use bytes::Bytes;
use daybook_ledger::{
    Height, PublicKey, TransactionId,
    tracker::{AddressKind, IndexKey},
};
use daybook_pipeline::Status;
use daybook_store::{Name, SearchField, StoreError};
use daybook_wire::{
    assets::{Query, Refusal, SearchElement, append_search_elements, append_text},
    events::{self, Sight},
};

use super::{
    Asker, Found, Wrong,
    list::{List, PAGE_ELEMENTS_MAX},
    parameter::number,
};

/// Characters of what may be searched for: more than any id, address or channel has.
const SEARCH_CHARS_MAX: usize = 512;

/// Hits of a search for words, in assets and in metadata.
const HITS_MAX: usize = 10;

/// Bytes of a hit's text that are shown.
const HIT_BYTES_MAX: usize = 400;

impl Asker<'_> {
    /// Everything that a text may name: exact names first, then words of assets and metadata.
    pub(super) fn search(&self, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["q"])?;
        let text = query.required("q")?.trim();
        if text.chars().count() > SEARCH_CHARS_MAX {
            let what = "At most 512 characters are searched for";
            return Err(Refusal::parameter("q", what).into());
        }
        let mut list = List::new("hits", PAGE_ELEMENTS_MAX);
        if text.is_empty() {
            return list.end(None);
        }
        self.search_places(text, &mut list)?;
        if let Ok(id) = text.to_ascii_lowercase().parse::<TransactionId>() {
            self.search_id(&id, &mut list)?;
        }
        if let Ok(key) = text.parse::<PublicKey>() {
            let mut known = false;
            let each = &mut |_, _| {
                known = true;
                false
            };
            self.store.entries_before(Name::Owner(&key), None, each)?;
            let _ = write!(
                list.element(),
                "{{\"kind\":\"key\",\"name\":\"{key}\",\"known\":{known}}}"
            );
        }
        let mut known = false;
        let each = &mut |_, _| {
            known = true;
            false
        };
        let object = Name::Tracker(IndexKey::Object(text));
        if self.sight == Sight::Whole {
            self.store.entries_before(object, None, each)?;
        }
        if known {
            let kind = if AddressKind::of(text).is_some() {
                "address"
            } else {
                "channel"
            };
            let out = list.element();
            let _ = write!(out, "{{\"kind\":\"{kind}\",\"name\":");
            append_text(out, text);
            out.push(b'}');
        }
        if self.store.consortium(|book| book.ledger(text).is_some()) {
            let out = list.element();
            out.extend_from_slice(b"{\"kind\":\"ledger\",\"name\":");
            append_text(out, text);
            out.push(b'}');
        }
        // The whole name of something is meant as that, and not as a word. A height may be a word too.
        if list.count > 0 && number::<u64>(text).is_none() {
            return list.end(None);
        }
        for (field, element, kind) in [
            (SearchField::Asset, SearchElement::Asset, "asset-text"),
            (
                SearchField::Metadata,
                SearchElement::Metadata,
                "metadata-text",
            ),
        ] {
            let each = &mut |id: TransactionId, transaction: Bytes| {
                let mut told = Vec::new();
                if append_search_elements(&mut told, element, &id, &transaction) > 0 {
                    let out = list.element();
                    let _ = write!(out, "{{\"kind\":\"{kind}\",\"name\":\"{id}\",\"text\":");
                    append_text(out, &shortened(&told));
                    out.push(b'}');
                }
                true
            };
            self.store.search(field, text, Some(HITS_MAX), each)?;
        }
        list.end(None)
    }

    fn search_places(&self, text: &str, list: &mut List) -> Result<(), StoreError> {
        let tip = self.store.tip().height;
        if let Some(height) = number(text).map(Height)
            && height.0 > 0
            && height <= tip
        {
            let _ = write!(
                list.element(),
                "{{\"kind\":\"block\",\"name\":\"{}\"}}",
                height.0
            );
        } else if text.contains('.')
            && let Ok(position) = events::position("q", text)
            && let Some(entry) = self.store.entry_at(position)?
        {
            let out = list.element();
            let _ = write!(
                out,
                "{{\"kind\":\"transaction\",\"name\":\"{}\"}}",
                entry.id()
            );
        }
        Ok(())
    }

    fn search_id(&self, id: &TransactionId, list: &mut List) -> Result<(), Wrong> {
        let known = self.store.position(id)?.is_some()
            || self.store.tracker_entry(id)?.is_some()
            || !matches!(self.node.status(id)?, Status::Unknown);
        if known {
            let _ = write!(
                list.element(),
                "{{\"kind\":\"transaction\",\"name\":\"{id}\"}}"
            );
        }
        let asset = id.as_asset();
        let mut is_asset = false;
        let each = &mut |_, _| {
            is_asset = true;
            false
        };
        self.store.entries_before(Name::Asset(&asset), None, each)?;
        if is_asset {
            let _ = write!(
                list.element(),
                "{{\"kind\":\"asset\",\"name\":\"{asset}\"}}"
            );
        }
        Ok(())
    }
}

/// The beginning of a text, whole characters only.
fn shortened(text: &[u8]) -> String {
    let end = text.len().min(HIT_BYTES_MAX);
    let text = String::from_utf8_lossy(&text[..end]);
    text.trim_end_matches([',', '\u{fffd}']).to_owned()
}
