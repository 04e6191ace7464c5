//! Listings: freezing a list of records, and signing its pages (wallet tracker, sections 8.13, 8.14 and
//! 17.11). Both read the disk; they run on threads that may wait for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use daybook_ledger::tracker::{
    AddressKind, Code, Entry, IndexKey, KeyHash, Listing, Record, Refusal, Settings,
};
use daybook_store::{Order, Store, StoreError};
use daybook_wire::tracker::{Page, PageMeta};
use parking_lot::Mutex;

use super::{
    cursor::{Frozen, ROWS_MAX, Rows},
    keys::{Signer, TrackerKeys},
};

/// Signatures of items that are kept: those of recent records are asked for again and again. With RSA
/// 350 bytes each, 6 MB.
const SIGNATURES_MAX: usize = 1 << 14;

/// `status` of every record here: executed.
const EXECUTED: u64 = 1;

/// Freezes the list that `listing` asks for, as of now. Unless the log is public, it holds only records
/// that touch the key of who asks.
///
/// # Errors
/// `rate_limited` for a list that is too long, `internal` when the store cannot be read.
pub(super) fn freeze(
    store: &Store,
    listing: &Listing,
    caller: KeyHash,
    public: bool,
    is_abandoned: &dyn Fn() -> bool,
) -> Result<Frozen, Refusal> {
    let last = store.tracker(|book| book.sequence());
    let frozen = |rows| Frozen {
        rows,
        ascending: listing.ascending,
        page_size: listing.page_size.max(1),
    };
    let filters = Filters {
        listing,
        last,
        caller: (!public).then_some(caller),
    };
    let tx_type = listing.tx_type.map(u8::try_from);
    if listing.status.is_some_and(|status| status != EXECUTED) || matches!(tx_type, Some(Err(_))) {
        return Ok(frozen(Rows::Some(Arc::from([]))));
    }
    // The narrowest index that every wanted record is found in. Records without a channel or without an end
    // are wanted where a field is empty, and no index has them under that.
    fn named(field: &Option<String>) -> Option<&str> {
        field.as_deref().filter(|text| !text.is_empty())
    }
    let keys = if let Some(channel) = named(&listing.channel) {
        vec![IndexKey::Object(channel)]
    } else if let Some(address) = filters.narrow_address() {
        vec![IndexKey::Object(address)]
    } else if !public {
        vec![IndexKey::Owner(caller.0)]
    } else if let Some(Ok(code)) = tx_type {
        vec![IndexKey::Type(code)]
    } else if let Some(address) = named(&listing.from).or(named(&listing.to)) {
        vec![IndexKey::Object(address)]
    } else if listing.channel.is_some() || listing.from.is_some() || listing.to.is_some() {
        // Every type of record is a bit of a byte.
        (0..u8::BITS).map(|bit| IndexKey::Type(1 << bit)).collect()
    } else {
        return Ok(frozen(Rows::All(last)));
    };
    let mut rows: Vec<u64> = Vec::new();
    for key in keys {
        let mut is_too_long = false;
        store
            .tracker_entries(key, Order::OldestFirst, &mut |_, entry| {
                let wanted = entry.records().iter().filter(|record| filters.want(record));
                rows.extend(wanted.map(|record| record.seq));
                is_too_long = rows.len() > ROWS_MAX;
                !is_too_long && !is_abandoned()
            })
            .map_err(|error| unreadable(&error))?;
        if is_too_long {
            return Err(Refusal::new(
                Code::RateLimited,
                format!("more than {ROWS_MAX} rows: ask for fewer with `fields`"),
            ));
        }
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(frozen(Rows::Some(rows.into())))
}

/// What a record must meet to be in the list.
struct Filters<'l> {
    listing: &'l Listing,
    last: u64,
    /// Whose records alone are shown.
    caller: Option<KeyHash>,
}

impl Filters<'_> {
    /// An address that few records name: the tracker's own wallet is in every second one, and what it
    /// is not is a spend or income address.
    fn narrow_address(&self) -> Option<&str> {
        let addresses = [&self.listing.from, &self.listing.to];
        let mut addresses = addresses.into_iter().flatten().map(String::as_str);
        addresses.find(|address| is_narrow(address))
    }

    fn want(&self, record: &Record) -> bool {
        record.seq <= self.last
            && self.listing.takes(record)
            && self
                .caller
                .is_none_or(|caller| record.owners().any(|owner| owner == caller))
    }
}

/// Whether few records name an address.
pub(super) fn is_narrow(address: &str) -> bool {
    matches!(
        AddressKind::of(address),
        Some(AddressKind::Spend | AddressKind::Income)
    )
}

/// The text of a page. `cursor` stands on the first one.
///
/// # Errors
/// `internal` when the store cannot be read.
pub(super) fn page(
    store: &Store,
    signing: &ItemSigner<'_>,
    frozen: &Frozen,
    number: u64,
    cursor: Option<&str>,
    is_abandoned: &dyn Fn() -> bool,
) -> Result<String, Refusal> {
    let meta = cursor.map(|cursor| PageMeta {
        cursor,
        total: frozen.rows.count(),
        pages: frozen.pages(),
        page: number,
        per_page: frozen.page_size,
    });
    let mut text = Page::new(meta);
    let mut records = Records::new(store);
    for sequence in frozen.page(number) {
        if is_abandoned() {
            break;
        }
        let entry = records.entry_of(sequence)?;
        text.push(&signing.item(record_in(&entry, sequence)?));
    }
    Ok(text.finish())
}

/// Reads records by their numbers; neighbours often share an entry.
pub(super) struct Records<'s> {
    store: &'s Store,
    recent: Option<Arc<Entry>>,
}

impl<'s> Records<'s> {
    pub(super) fn new(store: &'s Store) -> Records<'s> {
        Records {
            store,
            recent: None,
        }
    }

    /// The entry that holds a record.
    pub(super) fn entry_of(&mut self, sequence: u64) -> Result<Arc<Entry>, Refusal> {
        let holds = |entry: &&Arc<Entry>| {
            let mut records = entry.records().iter();
            records.any(|record| record.seq == sequence)
        };
        if let Some(entry) = self.recent.as_ref().filter(holds) {
            return Ok(entry.clone());
        }
        let found = self
            .store
            .newest_tracker_entry(IndexKey::Sequence(sequence))
            .map_err(|error| unreadable(&error))?;
        let entry = found.ok_or_else(|| missing(sequence))?;
        self.recent = Some(entry.clone());
        Ok(entry)
    }
}

pub(super) fn record_in(entry: &Entry, sequence: u64) -> Result<&Record, Refusal> {
    let mut records = entry.records().iter();
    records
        .find(|record| record.seq == sequence)
        .ok_or_else(|| missing(sequence))
}

fn missing(sequence: u64) -> Refusal {
    tracing::error!(sequence, "a record of the tracker's log is not found");
    Refusal::internal("the log could not be read")
}

pub(super) fn unreadable(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the tracker's log could not be read");
    Refusal::internal("the log could not be read")
}

/// Signs items of listings as one of the tracker's keys.
pub(super) struct ItemSigner<'k> {
    keys: &'k TrackerKeys,
    signer: Signer,
    /// The settings with that key's text in place of the primary one's.
    settings: Settings,
    signatures: &'k Signatures,
}

impl<'k> ItemSigner<'k> {
    pub(super) fn new(
        keys: &'k TrackerKeys,
        signer: Signer,
        mut settings: Settings,
        signatures: &'k Signatures,
    ) -> ItemSigner<'k> {
        settings.pem = keys.pem(signer).to_owned();
        ItemSigner {
            keys,
            signer,
            settings,
            signatures,
        }
    }

    /// The unsigned item of a record.
    pub(super) fn unsigned(&self, record: &Record) -> String {
        record.listing(&self.settings)
    }

    fn item(&self, record: &Record) -> String {
        let unsigned = self.unsigned(record);
        let key = (record.seq, self.signer);
        let signature = self.signatures.get(key).unwrap_or_else(|| {
            let signature = BASE64_STANDARD.encode(self.keys.sign(self.signer, &unsigned));
            let signature: Arc<str> = signature.into();
            self.signatures.put(key, signature.clone());
            signature
        });
        record.listed(&unsigned, &signature)
    }
}

/// Signatures of records' items. A record never changes, and both suites sign it the same way each time.
#[derive(Default)]
pub(super) struct Signatures(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    signatures: HashMap<(u64, Signer), Arc<str>>,
    /// Oldest first.
    order: VecDeque<(u64, Signer)>,
}

impl Signatures {
    fn get(&self, key: (u64, Signer)) -> Option<Arc<str>> {
        self.0.lock().signatures.get(&key).cloned()
    }

    fn put(&self, key: (u64, Signer), signature: Arc<str>) {
        let mut kept = self.0.lock();
        if kept.signatures.insert(key, signature).is_some() {
            return;
        }
        kept.order.push_back(key);
        if kept.order.len() > SIGNATURES_MAX
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.signatures.remove(&oldest);
        }
    }
}
