//! What users read: ledgers, their transactions and plan documents, as the protocol shapes them
//! (sections 1.2 to 1.4).

mod filter;

use daybook_ledger::{
    BlockTime, PublicKey,
    consortium::{Day, Did, ENTRY_SIGNATURE, METADATA, container, time_text},
    json::{Object, Value},
};

use crate::{
    disk::{DiskError, PlanKind},
    json::{member, object, own_object, text},
    member::Shared,
    page::Page,
};

/// Why a list is not shown.
#[derive(Debug)]
pub(crate) enum NotShown {
    /// There is no such thing.
    NotFound,
    /// There is no such page.
    NoSuchPage,
    /// What the list was asked for makes no sense: a sentence.
    Unfit(&'static str),
    /// The store.
    Disk(DiskError),
}

impl From<DiskError> for NotShown {
    fn from(error: DiskError) -> NotShown {
        NotShown::Disk(error)
    }
}

type Shown = Result<Value, NotShown>;

/// The ledgers that are asked for, the newest first.
pub(crate) fn ledgers(shared: &Shared, base: &str, query: &str) -> Shown {
    let (page, ids) = filter::ledgers(shared, query)?;
    let mut items = Vec::new();
    for id in ids {
        items.extend(ledger_item(shared, id)?.map(Value::Object));
    }
    Ok(page.envelope(base, query, items))
}

/// A ledger as it is listed, and the last change of it.
fn ledger_item(shared: &Shared, id: u64) -> Result<Option<Object>, DiskError> {
    let Some(row) = shared.mirror.ledger(id)? else {
        return Ok(None);
    };
    let (changed, at) = shared.mirror.lists().last_change(id)?;
    let mut item = own_object(&row);
    item.insert("id", id.into());
    item.insert("changed", changed.into());
    item.insert("changed_timestamp_utc", time_text(BlockTime(at)).into());
    Ok(Some(item))
}

/// The ledgers that are asked for, with what people want to know of each (section 7).
pub(crate) fn ledgers_with_meta(shared: &Shared, base: &str, query: &str) -> Shown {
    let (page, ids) = filter::ledgers(shared, query)?;
    let mut items = Vec::new();
    for id in ids {
        let Some(mut item) = ledger_item(shared, id)? else {
            continue;
        };
        let size = shared.mirror.size(id)?;
        let first = shared.mirror.transactions(id, 1..=1)?;
        let last = shared.mirror.transactions(id, size..=size)?;
        let ends = first.first().zip(last.first());
        if let Some((first, last)) = ends {
            let (first, last) = (own_object(&first.1), own_object(&last.1));
            for name in [
                "no",
                "date",
                "departure_station",
                "arrival_station",
                "cargo",
                "doc_type",
            ] {
                item.insert(name, last.get(name).cloned().unwrap_or(Value::Null));
            }
            let signer = signer(shared, &last);
            item.insert("status", status(shared, &last, signer.as_ref()));
            item.insert("signer_label", label(signer.as_ref()));
            let (days, approaching) = way(shared, Some(&first), Some(&last));
            item.insert("days_in_way", days);
            item.insert("approaching_days", approaching);
        }
        item.insert("size", size.into());
        items.push(Value::Object(item));
    }
    Ok(page.envelope(base, query, items))
}

/// One ledger.
pub(crate) fn ledger(shared: &Shared, id: &str) -> Shown {
    let id = number(id)?;
    let mut shown = ledger_item(shared, id)?.ok_or(NotShown::NotFound)?;
    // What anybody needs to compare two members' copies.
    if let Some((root, size)) = shared
        .mirror
        .tree(text(&Value::Object(shown.clone()), "name"))
    {
        shown.insert("root_hash", root.into());
        shown.insert("size", size.into());
    }
    Ok(Value::Object(shown))
}

/// The entries of a ledger that are asked for, the newest first.
pub(crate) fn transactions(shared: &Shared, id: &str, base: &str, query: &str) -> Shown {
    let id = known(shared, id)?;
    let since = filter::sequence_number(query)?;
    let count = shared.mirror.size(id)?.saturating_sub(since);
    let page = Page::new(query, count).ok_or(NotShown::NoSuchPage)?;
    let (oldest, newest) = page.numbers().into_inner();
    let numbers = oldest.saturating_add(since)..=newest.saturating_add(since);
    let rows = shared.mirror.transactions(id, numbers)?;
    let items = rows.iter().map(|row| transaction_object(shared, &row.1));
    Ok(page.envelope(base, query, items.collect()))
}

/// One entry of a ledger.
pub(crate) fn transaction(shared: &Shared, id: &str, seq_no: &str) -> Shown {
    let id = known(shared, id)?;
    let seq_no = number(seq_no)?;
    let rows = shared.mirror.transactions(id, seq_no..=seq_no)?;
    let row = rows.first().ok_or(NotShown::NotFound)?;
    Ok(transaction_object(shared, &row.1))
}

/// A ledger, its size, and what is known of its way (section 1.3).
pub(crate) fn meta(shared: &Shared, id: &str) -> Result<(u64, u64, Value, Value), NotShown> {
    let id = known(shared, id)?;
    let size = shared.mirror.size(id)?;
    let first = shared.mirror.transactions(id, 1..=1)?;
    let last = shared.mirror.transactions(id, size..=size)?;
    let first = first.first().map(|row| own_object(&row.1));
    let last = last.first().map(|row| own_object(&row.1));
    let (days, approaching) = way(shared, first.as_ref(), last.as_ref());
    Ok((id, size, days, approaching))
}

/// Plan documents, the newest first.
pub(crate) fn plans(shared: &Shared, kind: PlanKind, base: &str, query: &str) -> Shown {
    let page = Page::new(query, shared.own.plan_count(kind)?).ok_or(NotShown::NoSuchPage)?;
    let rows = shared.own.plans(kind, page.numbers())?;
    let items = rows.iter().map(|row| Value::Object(own_object(row)));
    Ok(page.envelope(base, query, items.collect()))
}

/// One plan document.
pub(crate) fn plan(shared: &Shared, kind: PlanKind, id: &str) -> Shown {
    let id = number(id)?;
    let rows = shared.own.plans(kind, id..=id)?;
    let row = rows.first().ok_or(NotShown::NotFound)?;
    Ok(Value::Object(own_object(row)))
}

fn number(text: &str) -> Result<u64, NotShown> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number
        .filter(|number| *number > 0)
        .ok_or(NotShown::NotFound)
}

fn known(shared: &Shared, id: &str) -> Result<u64, NotShown> {
    let id = number(id)?;
    match shared.mirror.ledger(id)? {
        Some(_) => Ok(id),
        None => Err(NotShown::NotFound),
    }
}

/// Who signed an entry.
struct Signer {
    did: Option<Did>,
    organization: String,
    icon: String,
}

fn signer(shared: &Shared, entry: &Object) -> Option<Signer> {
    let signature = entry.get(ENTRY_SIGNATURE)?;
    let key: Option<PublicKey> = text(signature, "signer").parse().ok();
    let book = shared.mirror.book();
    let owner = key.and_then(|key| book.owner(&key));
    Some(match owner {
        Some(member) => Signer {
            did: Some(member.card.did()),
            organization: member.card.profile().organization.clone(),
            icon: member.card.profile().icon.clone(),
        },
        None => Signer {
            did: None,
            organization: String::new(),
            icon: String::new(),
        },
    })
}

fn label(signer: Option<&Signer>) -> Value {
    filled(signer.map(|signer| signer.organization.as_str()))
}

/// A text; null when there is none or it is empty.
fn filled(text: Option<&str>) -> Value {
    text.filter(|text| !text.is_empty())
        .map_or(Value::Null, Value::from)
}

fn status(shared: &Shared, entry: &Object, signer: Option<&Signer>) -> Value {
    if entry.get(ENTRY_SIGNATURE).is_none() {
        return Value::Null;
    }
    let route = &shared.settings.route;
    let did = signer.and_then(|signer| signer.did);
    let status = match did {
        Some(did) if route.first() == Some(&did) => "started",
        Some(did) if route.last() == Some(&did) => "finished",
        _ => "in_way",
    };
    status.into()
}

/// An entry as it is listed (section 1.3).
pub(crate) fn transaction_object(shared: &Shared, committed: &str) -> Value {
    let mut entry = own_object(committed);
    let metadata = entry.remove(METADATA).unwrap_or(Value::Null);
    let attachments = match entry.get("~attach") {
        Some(attachments @ Value::Array(_)) => attachments.clone(),
        _ => Value::Array(Vec::new()),
    };
    let signer = signer(shared, &entry);
    let seq_no = member(&metadata, "seqNo").cloned().unwrap_or(Value::Null);
    let date = entry.get("date").cloned().unwrap_or(Value::Null);
    object([
        ("seq_no", seq_no),
        ("metadata", metadata),
        ("attachments", attachments),
        (
            "signer_icon",
            filled(signer.as_ref().map(|signer| signer.icon.as_str())),
        ),
        ("signer_label", label(signer.as_ref())),
        ("date", date),
        ("status", status(shared, &entry, signer.as_ref())),
        ("txn", Value::Object(entry)),
    ])
}

/// `days_in_way` and `approaching_days` (section 1.3).
fn way(shared: &Shared, first: Option<&Object>, last: Option<&Object>) -> (Value, Value) {
    let (Some(first), Some(last)) = (first, last) else {
        return (Value::Null, Value::Null);
    };
    let signer = signer(shared, last);
    let finished = status(shared, last, signer.as_ref()).as_str() == Some("finished");
    let date = |entry: &Object| {
        let date = entry.get("date").and_then(Value::as_str);
        date.unwrap_or("").to_owned()
    };
    let today = Day::of(BlockTime(shared.now_ms()));
    let days = container::days_in_way(&date(first), today)
        .filter(|_| Day::parse(&date(last)).is_some())
        .map(|days| if finished { -1 } else { days });
    let me = shared.me();
    let route = &shared.settings.route;
    let before = route
        .iter()
        .position(|did| *did == me)
        .and_then(|place| route.get(place.checked_sub(1)?));
    let comes_here = before.is_some() && signer.and_then(|signer| signer.did).as_ref() == before;
    let travel = shared.settings.travel_days.iter();
    let travel = travel.clone().find(|(did, _)| *did == me);
    let approaching = match (comes_here, travel, days) {
        (true, Some((_, travel)), Some(days)) => Value::from(travel - days),
        _ => Value::Null,
    };
    (days.map_or(Value::Null, Value::from), approaching)
}
