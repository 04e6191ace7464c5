//! What the console's pages read: lists by cursor, newest first, and what is behind one id.
//!
//! The answers are shaped for the pages and change with them; programs use the protocols' own doors.
//! Every answer is bounded in what it holds and in what is looked at for it.

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{Duration, Instant},
};

use daybook_ledger::{
    AssetId, BlockTime, Height, OutputRef, Position, PublicKey, Transaction, TransactionId, View,
    block::Entry,
    tracker::{
        Address, AddressKind, Cause, Channel, Entry as TrackerEntry, Fact, History, IndexKey,
        Refusal as TrackerRefusal,
    },
};
use daybook_pipeline::{Node, Status};
use daybook_store::{Name, SearchField, Store, StoreError};
use daybook_wire::{
    assets::{Query, Refusal, SearchElement, append_id, append_search_elements, append_text},
    events::{self, Sight},
};
use http::{Request, StatusCode};
use hyper::body::Incoming;

use crate::{
    connection::Connection,
    gate,
    reply::{Refused, Reply, fault, json, not_found, refused, unavailable},
    server::Gateway,
};

/// Elements of one page of a list, unless the page asks for fewer.
const PAGE_ELEMENTS_MAX: usize = 100;
const PAGE_ELEMENTS: usize = 25;

/// Bytes of a page from which it ends early: large transactions make short pages.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// Bytes of one event in a list; a longer one is told without its body, and its own page has the rest.
const EVENT_BYTES_MAX: usize = 4 << 10;

/// How long one answer may be looked for. What was found until then is answered, with a cursor to go on.
const PATIENCE: Duration = Duration::from_millis(500);

/// Inputs and outputs of a transaction that its page shows; its text has all of them.
const PARTS_MAX: usize = 200;

/// Transactions of a key that are looked at to tell what it holds.
const HELD_MAX: usize = 20_000;

/// Assets that a key's page lists as held.
const HOLDINGS_MAX: usize = 100;

/// Rejections beside a block that its page shows.
const REJECTED_MAX: usize = 50;

/// Characters of what may be searched for: more than any id, address or channel has.
const SEARCH_CHARS_MAX: usize = 512;

/// Hits of a search for words, in assets and in metadata.
const HITS_MAX: usize = 10;

/// Bytes of a hit's text that are shown.
const HIT_BYTES_MAX: usize = 400;

/// What somebody is told who asks about addresses and channels of others.
const VEILED: &str = "Addresses and channels of the wallet tracker are shown to the operator: on the \
                      node's own machine, or with its token; to everybody if tracker.public_log is set";

/// What somebody is told who asks about the service bus of others.
const BUS_VEILED: &str =
    "The service bus is shown to the operator: on the node's own machine, or with its token";

/// What a question came to: an answer's body, nothing under that name, or a bad question.
type Found = Result<Option<Vec<u8>>, Wrong>;

enum Wrong {
    Refused(Refusal),
    /// What peers of the tracker do among each other is not shown to the asker.
    Veiled,
    Store(StoreError),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Wrong {
        Wrong::Refused(refusal)
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Wrong {
        Wrong::Store(error)
    }
}

/// Answers `/console/data/…`. The looking is done on a thread that may wait for the disk, in turns that
/// are shared with the lists of the API.
pub(super) async fn answer(
    gateway: &Gateway,
    connection: &Connection,
    request: &Request<Incoming>,
) -> Result<Reply, Refused> {
    let uri = request.uri();
    let path = super::below(uri.path(), "/console/data/").unwrap_or_default();
    let path = path.to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    let facts = Facts {
        token_required: gateway.settings.write_token.is_some(),
        version: env!("CARGO_PKG_VERSION"),
        bus: gateway.settings.bus.is_some(),
    };
    if path == "bus" {
        return bus(gateway, connection, request).await;
    }
    let Some(turn) = gateway.lists.take(connection.peer).await else {
        return Err(unavailable("Too many lists are being read").into());
    };
    let node = gateway.node.clone();
    let sight = gate::sight(gateway, connection, request.headers());
    let looked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let deadline = Instant::now() + PATIENCE;
        let asker = Asker {
            store: node.store().while_wanted(move || Instant::now() < deadline),
            deadline,
            node: &node,
            sight,
        };
        asker.answer(&path, &Query::parse(&query), &facts)
    });
    Ok(match looked.await {
        Ok(Ok(Some(body))) => json(StatusCode::OK, body),
        Ok(Ok(None)) => not_found(),
        Ok(Err(Wrong::Refused(refusal))) => return Err(refusal.into()),
        Ok(Err(Wrong::Veiled)) => refused(StatusCode::FORBIDDEN, VEILED),
        Ok(Err(Wrong::Store(error))) => fault(&error),
        Err(_) => unavailable("The answer could not be made"),
    })
}

/// What the answers need to know of the gateway.
struct Facts {
    token_required: bool,
    version: &'static str,
    /// A service bus runs beside the node.
    bus: bool,
}

/// What goes on on the service bus. Names of services and of what they ask each other for are their
/// operator's.
async fn bus(
    gateway: &Gateway,
    connection: &Connection,
    request: &Request<Incoming>,
) -> Result<Reply, Refused> {
    let Some(overview) = gateway.settings.bus.clone() else {
        return Ok(not_found());
    };
    if !gate::operates(gateway, connection, request.headers()) {
        return Err(refused(StatusCode::FORBIDDEN, BUS_VEILED).into());
    }
    // It waits for the broker, which is quick and never idle.
    let looked = tokio::task::spawn_blocking(move || overview.look()).await;
    Ok(match looked {
        Ok(Some(body)) => json(StatusCode::OK, body),
        _ => unavailable("The service bus is not there"),
    })
}

struct Asker<'n> {
    node: &'n Node,
    /// Gives up when the deadline is over.
    store: Store,
    deadline: Instant,
    /// How much of the tracker's entries the asker is shown.
    sight: Sight,
}

impl Asker<'_> {
    fn answer(&self, path: &str, query: &Query<'_>, facts: &Facts) -> Found {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let named = (segments.next(), segments.next(), segments.next());
        match named {
            (Some("node"), None, None) => {
                query.refuse_unknown(&[])?;
                Ok(Some(self.node(facts)))
            }
            (Some("blocks"), None, None) => self.blocks(query),
            (Some("blocks"), Some(height), None) => self.block(height, query),
            (Some("entries"), None, None) => self.entries(query),
            (Some("transactions"), Some(id), None) => self.transaction(id),
            (Some("spenders"), Some(id), None) => self.spenders(id, query),
            (Some("outputs"), None, None) => self.outputs(query),
            (Some("keys"), Some(key), None) => self.key(key),
            (Some("object"), None, None) => self.object(query),
            (Some("search"), None, None) => self.search(query),
            _ => Ok(None),
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    // --- the node ------------------------------------------------------------------------------------

    fn node(&self, facts: &Facts) -> Vec<u8> {
        let store = &self.store;
        let (tip, genesis) = (store.tip(), store.genesis());
        let (waiting, waiting_bytes) = self.node.load();
        let (unspent, unspent_bytes) = store.unspent_outputs();
        let mut out = b"{\"chain\":".to_vec();
        append_text(&mut out, &genesis.chain);
        let _ = write!(
            out,
            ",\"genesis\":\"{}\",\"began\":{},\"version\":\"{}\",\"height\":{},\"hash\":\"{}\",\
             \"time\":{},\"transactions\":\"{}\",\"ready\":{},\"failed\":{},\"token_required\":{},\
             \"pool\":{{\"transactions\":{waiting},\"bytes\":{waiting_bytes}}},\
             \"unspent\":{{\"outputs\":{unspent},\"bytes\":{unspent_bytes}}},\"log_bytes\":{},\
             \"validators\":[",
            genesis.hash(),
            genesis.time.0,
            facts.version,
            tip.height.0,
            tip.hash,
            tip.time.0,
            tip.transactions,
            self.node.is_ready(),
            self.node.failure().is_some(),
            facts.token_required,
            store.log_bytes(),
        );
        for (place, validator) in genesis.validators.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let (key, power) = (validator.key, validator.power);
            let _ = write!(out, "{comma}{{\"key\":\"{key}\",\"power\":{power}}}");
        }
        let _ = write!(
            out,
            "],\"bus\":{},\"consortium\":{},\"tracker\":",
            facts.bus,
            store.consortium(|book| book.settings().is_some()),
        );
        let tracker = store.tracker(|book| {
            let settings = book.settings()?;
            let (addresses, channels) = book.open_counts();
            let mut out = Vec::new();
            let _ = write!(
                out,
                "{{\"token\":\"{}\",\"holder\":\"{}\",\"wallet\":",
                settings.token, settings.holder
            );
            append_text(&mut out, settings.wallet().as_str());
            let _ = write!(
                out,
                ",\"balance\":\"{}\",\"held\":\"{}\",\"records\":\"{}\",\"addresses\":{addresses},\
                 \"channels\":{channels},\"income_price_min\":\"{}\",\"spend_price_max\":\"{}\",\
                 \"quantum_power\":{},\"spend_grant\":\"{}\",\"lifetimes\":{{\"income\":{},\
                 \"spend\":{},\"transfer\":{}}}}}",
                book.wallet(),
                book.held(),
                book.sequence(),
                settings.income_price_min,
                settings.spend_price_max,
                settings.quantum_power,
                settings.spend_grant,
                settings.income_lifetime_ms,
                settings.spend_lifetime_ms,
                settings.transfer_lifetime_ms,
            );
            Some(out)
        });
        out.extend_from_slice(tracker.as_deref().unwrap_or(b"null"));
        out.push(b'}');
        out
    }

    // --- blocks --------------------------------------------------------------------------------------

    fn blocks(&self, query: &Query<'_>) -> Found {
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

    fn block(&self, height: &str, query: &Query<'_>) -> Found {
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

    // --- entries -------------------------------------------------------------------------------------

    /// Entries of all books, newest first: all of them, or those of a key, an asset, or a tracker's
    /// address or channel; of all, those of a kind.
    fn entries(&self, query: &Query<'_>) -> Found {
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

    // --- one transaction -----------------------------------------------------------------------------

    fn transaction(&self, id: &str) -> Found {
        let Ok(id) = id.parse::<TransactionId>() else {
            return Ok(None);
        };
        let found = match self.store.position(&id)? {
            Some(position) => Some(position),
            None => self.store.tracker_entry(&id)?.map(|(position, _)| position),
        };
        if let Some(position) = found
            && let Some(entry) = self.store.entry_at(position)?
            && let Some(heading) = self.store.heading(position.height)?
        {
            let mut out = b"{\"status\":\"committed\",\"event\":".to_vec();
            append_event(&mut out, position, heading.header.time, &entry, self.sight);
            let _ = write!(
                out,
                ",\"block\":{{\"height\":{},\"hash\":\"{}\",\"time\":{},\"count\":{}}}",
                position.height.0, heading.hash, heading.header.time.0, heading.header.count,
            );
            match &entry {
                Entry::Asset(transaction) => self.append_parts(&mut out, transaction)?,
                other => {
                    if let Some(records) = tracker_of(other)
                        && !self.sight.veils(other)
                    {
                        append_tracker_parts(&mut out, records);
                    }
                }
            }
            out.push(b'}');
            return Ok(Some(out));
        }
        let mut out = b"{\"status\":".to_vec();
        match self.node.status(&id)? {
            Status::Unknown => return Ok(None),
            Status::Rejected(height, rejection) => {
                let _ = write!(
                    out,
                    "\"rejected\",\"height\":{},\"class\":\"{}\",\"message\":",
                    height.0,
                    rejection.class.name()
                );
                append_text(&mut out, &rejection.to_string());
            }
            // Committed since it was looked for: the page asks again.
            Status::Pending | Status::Committed(_) => out.extend_from_slice(b"\"pending\""),
        }
        out.push(b'}');
        Ok(Some(out))
    }

    /// Where the units came from, and which of them went on.
    fn append_parts(&self, out: &mut Vec<u8>, transaction: &Transaction) -> Result<(), StoreError> {
        let _ = write!(
            out,
            ",\"version\":\"{}\",\"bytes\":{},\"inputs_count\":{},\"outputs_count\":{},\"inputs\":[",
            transaction.version().name(),
            transaction.canonical().len(),
            transaction.inputs().len(),
            transaction.outputs().len(),
        );
        // Inputs of one transaction mostly stand together: it is read once.
        let mut source: Option<Transaction> = None;
        for (place, input) in transaction.inputs().iter().take(PARTS_MAX).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"owners\":");
            append_keys(out, &input.owners_before);
            if let Some(spent) = &input.spends {
                out.extend_from_slice(b",\"transaction\":");
                append_id(out, &spent.transaction);
                let _ = write!(out, ",\"index\":{}", spent.index);
                if source.as_ref().map(Transaction::id) != Some(spent.transaction)
                    && !self.is_late()
                {
                    source = self.transaction_of(&spent.transaction)?;
                }
                let made = source
                    .as_ref()
                    .filter(|source| source.id() == spent.transaction);
                if let Some(made) = made
                    && let Some(output) = made.outputs().get(spent.index as usize)
                {
                    let (amount, asset) = (output.amount.units(), made.asset());
                    let _ = write!(out, ",\"amount\":\"{amount}\",\"asset\":\"{asset}\"");
                }
            }
            out.push(b'}');
        }
        let spent: Vec<bool> = {
            let view = self.store.view();
            (0..)
                .zip(transaction.outputs().iter().take(PARTS_MAX))
                .map(|(index, _)| view.unspent(&transaction.output_ref(index)).is_none())
                .collect()
        };
        out.extend_from_slice(b"],\"outputs\":[");
        for (place, (output, spent)) in transaction.outputs().iter().zip(spent).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"owners\":");
            append_keys(out, &output.public_keys);
            let amount = output.amount.units();
            let _ = write!(out, ",\"amount\":\"{amount}\",\"spent\":{spent}}}");
        }
        out.push(b']');
        Ok(())
    }

    fn transaction_of(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        let Some(position) = self.store.position(id)? else {
            return Ok(None);
        };
        Ok(match self.store.entry_at(position)? {
            Some(Entry::Asset(transaction)) => Some(Transaction::clone(&transaction)),
            _ => None,
        })
    }

    /// Who spent a transaction's outputs. No index leads there: the asset's later transactions are looked
    /// through, for as long as one answer may take, and `next` says where to go on.
    fn spenders(&self, id: &str, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["after"])?;
        let Ok(id) = id.parse::<TransactionId>() else {
            return Ok(None);
        };
        let after = position(query, "after")?;
        let (Some(made), Some(at)) = (self.transaction_of(&id)?, self.store.position(&id)?) else {
            return Ok(None);
        };
        let mut wanted: BTreeMap<OutputRef, u32> = {
            let view = self.store.view();
            (0..)
                .zip(made.outputs().iter().take(PARTS_MAX))
                .map(|(index, _)| (made.output_ref(index), index))
                .filter(|(output, _)| view.unspent(output).is_none())
                .collect()
        };
        let mut list = List::new("spenders", usize::MAX);
        let (mut last, mut broken_off) = (after.unwrap_or(at), false);
        if !wanted.is_empty() {
            let each = &mut |position: Position, transaction: &Transaction| {
                for spent in transaction.inputs().iter().filter_map(|input| input.spends) {
                    if let Some(index) = wanted.remove(&spent) {
                        let out = list.element();
                        let _ = write!(
                            out,
                            "{{\"index\":{index},\"position\":\"{position}\",\"id\":"
                        );
                        append_id(out, &transaction.id());
                        out.push(b'}');
                    }
                }
                last = position;
                broken_off = self.is_late();
                !wanted.is_empty() && !broken_off
            };
            self.store
                .moves_of_asset_after(&made.asset(), after.unwrap_or(at).max(at), each)?;
        }
        let going_on = !wanted.is_empty() && (broken_off || self.is_late());
        list.end(going_on.then(|| last.to_string()))
    }

    // --- keys ----------------------------------------------------------------------------------------

    /// Outputs that name a key, newest first.
    fn outputs(&self, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["key", "before", "limit"])?;
        let key = public_key("key", query.required("key")?)?;
        let before = position(query, "before")?;
        let mut list = List::new("outputs", limit(query)?);
        let mut times = Times::default();
        let (mut last, mut full, mut taken) = (before, false, 0);
        let mut failed = None;
        // Written as they come: a page of large transactions would be a hundred megabytes to hold.
        let each = &mut |position: Position, entry| {
            let Entry::Asset(transaction) = entry else {
                return true;
            };
            full = taken >= list.limit || list.is_heavy();
            if full {
                return false;
            }
            match times.of(&self.store, position.height) {
                Ok(time) => self.append_outputs(&mut list, &key, position, time, &transaction),
                Err(error) => failed = Some(error),
            }
            taken += 1;
            last = Some(position);
            failed.is_none()
        };
        self.store.entries_before(Name::Owner(&key), before, each)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let going_on = full || self.is_late();
        let next = last.filter(|_| going_on);
        list.end(next.map(|position| position.to_string()))
    }

    /// The outputs of one transaction that name a key.
    fn append_outputs(
        &self,
        list: &mut List,
        key: &PublicKey,
        position: Position,
        time: BlockTime,
        transaction: &Transaction,
    ) {
        let theirs = (0..)
            .zip(transaction.outputs())
            .filter(|(_, output)| output.public_keys.contains(key))
            .take(PARTS_MAX);
        let view = self.store.view();
        for (index, output) in theirs {
            let out = list.element();
            out.extend_from_slice(b"{\"transaction\":");
            append_id(out, &transaction.id());
            let _ = write!(
                out,
                ",\"index\":{index},\"position\":\"{position}\",\"time\":{},\"asset\":\"{}\",\
                 \"amount\":\"{}\",\"keys\":{},\"spent\":{}}}",
                time.0,
                transaction.asset(),
                output.amount.units(),
                output.public_keys.len(),
                view.unspent(&transaction.output_ref(index)).is_none(),
            );
        }
    }

    /// What a key holds, as far as that can be told in the time of one answer.
    fn key(&self, text: &str) -> Found {
        let Ok(key) = text.parse::<PublicKey>() else {
            return Ok(None);
        };
        let mut held: BTreeMap<AssetId, (u128, u64)> = BTreeMap::new();
        let (mut looked, mut complete) = (0, true);
        let each = &mut |_, entry| {
            if let Entry::Asset(transaction) = entry {
                let transaction: &Transaction = &transaction;
                let view = self.store.view();
                for (index, output) in (0..).zip(transaction.outputs()) {
                    if output.public_keys.contains(&key)
                        && view.unspent(&transaction.output_ref(index)).is_some()
                    {
                        let (sum, count) = held.entry(transaction.asset()).or_default();
                        *sum = sum.saturating_add(output.amount.units().into());
                        *count += 1;
                    }
                }
            }
            looked += 1;
            complete = looked < HELD_MAX && held.len() <= HOLDINGS_MAX && !self.is_late();
            complete
        };
        self.store.entries_before(Name::Owner(&key), None, each)?;
        let complete = complete && !self.is_late();
        let mut out = Vec::new();
        let _ = write!(
            out,
            "{{\"key\":\"{key}\",\"transactions\":{looked},\"complete\":{complete},"
        );
        let mut list = List::continuing(out, "holdings", HOLDINGS_MAX);
        for (asset, (sum, count)) in held.into_iter().take(HOLDINGS_MAX) {
            let _ = write!(
                list.element(),
                "{{\"asset\":\"{asset}\",\"amount\":\"{sum}\",\"outputs\":{count}}}"
            );
        }
        list.end(None)
    }

    // --- the tracker ---------------------------------------------------------------------------------

    /// The state of a tracker's address or channel, as anyone may ask the tracker for it.
    fn object(&self, query: &Query<'_>) -> Found {
        query.refuse_unknown(&["name"])?;
        let name = query.required("name")?;
        if self.sight == Sight::Outline {
            return Err(Wrong::Veiled);
        }
        let now = self.node.now();
        let mut out = b"{\"name\":".to_vec();
        append_text(&mut out, name);
        if let Ok(address) = Address::parse(name) {
            self.append_address(&mut out, &address, now);
        } else {
            let mut newest = None;
            let key = Name::Tracker(IndexKey::Object(name));
            self.store.entries_before(key, None, &mut |_, entry| {
                newest = Some(entry);
                false
            })?;
            let Some(entry) = newest else {
                return Ok(None);
            };
            let open = self
                .store
                .tracker(|book| book.open_channel(name, now).is_some());
            if let Some(entry) = tracker_of(&entry) {
                append_channel(&mut out, entry, name, open);
            }
        }
        out.push(b'}');
        Ok(Some(out))
    }

    fn append_address(&self, out: &mut Vec<u8>, address: &Address, now: BlockTime) {
        let kind = match address.kind() {
            AddressKind::Common => "common",
            AddressKind::Spend => "spend",
            AddressKind::Income => "income",
        };
        let _ = write!(out, ",\"kind\":\"{kind}\",\"state\":");
        if address.kind() == AddressKind::Common {
            let state = self
                .store
                .tracker(|book| book.common_state(address, now, &Nowhere));
            match state {
                Ok(state) => {
                    let _ = write!(
                        out,
                        "{{\"fact\":\"{}\",\"plan\":\"{}\",\"profit\":\"{}\"}}",
                        state.fact, state.plan, state.profit
                    );
                }
                Err(TrackerRefusal { .. }) => out.extend_from_slice(b"null"),
            }
            return;
        }
        let state = self.store.tracker(|book| {
            let state = book.address_state(address, now, &Nowhere).ok()?;
            Some((state, book.channels_on(address.as_str(), now)))
        });
        let Some((state, channels)) = state else {
            out.extend_from_slice(b"null");
            return;
        };
        let _ = write!(
            out,
            "{{\"amount\":\"{}\",\"limit\":\"{}\",\"paid_bytes\":\"{}\",\"limit_bytes\":\"{}\",\
             \"volume\":\"{}\",\"price\":\"{}\",\"quantum_power\":{},\"lock\":{},\"channels\":[",
            state.amount,
            state.limit_amount,
            state.quantum_volume,
            state.limit_quantum_volume,
            state.volume,
            state.price.amount,
            state.price.power,
            state.timelock,
        );
        for (place, channel) in channels.iter().take(PARTS_MAX).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            append_text(out, channel);
        }
        out.extend_from_slice(b"]}");
    }

    // --- search --------------------------------------------------------------------------------------

    /// Everything that a text may name: exact names first, then words of assets and metadata.
    fn search(&self, query: &Query<'_>) -> Found {
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
            let tell = &mut |id: TransactionId, transaction: bytes::Bytes| {
                let mut told = Vec::new();
                if append_search_elements(&mut told, element, &id, &transaction) > 0 {
                    let out = list.element();
                    let _ = write!(
                        out,
                        "{{\"kind\":\"{kind}\",\"name\":\"{id}\",\"text\":"
                    );
                    append_text(out, &shortened(&told));
                    out.push(b'}');
                }
                true
            };
            self.store.search(field, text, Some(HITS_MAX), tell)?;
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

/// The history that a state in memory is asked beside: what is closed is told from the log instead.
struct Nowhere;

impl History for Nowhere {
    fn newest(&self, _key: IndexKey<'_>) -> Option<std::sync::Arc<TrackerEntry>> {
        None
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

/// Times of blocks, each read once while a list stays in it.
#[derive(Default)]
struct Times(Option<(Height, BlockTime)>);

impl Times {
    fn of(&mut self, store: &Store, height: Height) -> Result<BlockTime, StoreError> {
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

/// A page of a list: `{"<name>": […], "next": "<cursor>"}`.
struct List {
    out: Vec<u8>,
    start: usize,
    count: usize,
    limit: usize,
}

impl List {
    fn new(name: &str, limit: usize) -> List {
        List::continuing(b"{".to_vec(), name, limit)
    }

    /// The same as a member of the object that `out` has begun.
    fn continuing(mut out: Vec<u8>, name: &str, limit: usize) -> List {
        let _ = write!(out, "\"{name}\":[");
        List {
            start: out.len(),
            out,
            count: 0,
            limit,
        }
    }

    fn is_heavy(&self) -> bool {
        self.out.len() - self.start >= PAGE_BYTES_MAX
    }

    fn is_full(&self) -> bool {
        self.count >= self.limit || self.is_heavy()
    }

    /// Where the next element is written.
    fn element(&mut self) -> &mut Vec<u8> {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
        &mut self.out
    }

    fn end(mut self, next: Option<String>) -> Found {
        self.out.extend_from_slice(b"],\"next\":");
        match next {
            Some(next) => append_text(&mut self.out, &next),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.push(b'}');
        Ok(Some(self.out))
    }
}

/// An entry as an event. One that is too long for a list goes without names and body.
pub(super) fn append_event(
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

fn append_keys(out: &mut Vec<u8>, keys: &[PublicKey]) {
    out.push(b'[');
    for (place, key) in keys.iter().take(PARTS_MAX).enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{key}\"");
    }
    out.push(b']');
}

fn tracker_of(entry: &Entry) -> Option<&TrackerEntry> {
    match entry {
        Entry::Tracker(entry) => Some(entry),
        _ => None,
    }
}

/// What a tracker entry's records say, beyond its event: how long things live, and why they ended.
fn append_tracker_parts(out: &mut Vec<u8>, entry: &TrackerEntry) {
    out.extend_from_slice(b",\"records\":[");
    for (place, record) in entry.records().iter().take(PARTS_MAX).enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"seq\":\"{}\"", record.seq);
        append_fact(out, &record.fact);
        out.push(b'}');
    }
    out.push(b']');
}

fn append_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::OpenAddress(opening) => {
            let _ = write!(
                out,
                ",\"lock\":{},\"price\":\"{}\",\"quantum_power\":{}",
                opening.timelock, opening.price.amount, opening.price.power
            );
        }
        Fact::OpenTransfer(channel) => append_contract(out, channel),
        Fact::CloseTransfer {
            channel,
            settled,
            cause,
        } => {
            append_contract(out, channel);
            let _ = write!(
                out,
                ",\"settled\":{{\"count\":\"{}\",\"tokens\":\"{}\",\"volume\":\"{}\"}},\
                 \"cause\":\"{}\"",
                settled.count,
                settled.tokens,
                settled.volume,
                cause_of(*cause)
            );
        }
        Fact::CloseAddress(closing) => {
            let _ = write!(
                out,
                ",\"volume\":\"{}\",\"cause\":\"{}\"",
                closing.volume,
                cause_of(closing.cause)
            );
        }
        Fact::Init { .. } | Fact::Payout(_) => {}
    }
}

fn cause_of(cause: Cause) -> &'static str {
    match cause {
        Cause::Peers => "peers",
        Cause::Expiry => "expiry",
        Cause::Parked => "parked",
    }
}

fn append_contract(out: &mut Vec<u8>, channel: &Channel) {
    let contract = &channel.contract;
    for (name, value) in [
        ("channel", &contract.channel),
        ("from", &contract.from),
        ("to", &contract.to),
    ] {
        let _ = write!(out, ",\"{name}\":");
        append_text(out, value);
    }
    let _ = write!(
        out,
        ",\"price\":\"{}\",\"quantum_power\":{},\"planned\":\"{}\",\"opened\":{},\"lock\":{}",
        contract.price.amount,
        contract.price.power,
        contract.planned,
        channel.opened,
        channel.timelock
    );
    if let Some(most) = contract.price.cost(contract.planned) {
        let _ = write!(out, ",\"limit\":\"{most}\"");
    }
}

/// A channel as the newest entry about it tells.
fn append_channel(out: &mut Vec<u8>, entry: &TrackerEntry, name: &str, open: bool) {
    let is_it = |channel: &Channel| *channel.contract.channel == *name;
    let _ = write!(out, ",\"kind\":\"channel\",\"open\":{open}");
    let record = entry
        .records()
        .iter()
        .rev()
        .find(|record| record.channel().is_some_and(is_it));
    match (record, entry.park()) {
        (Some(record), _) => append_fact(out, &record.fact),
        (None, Some(park)) if is_it(&park.channel) => {
            append_contract(out, &park.channel);
            let _ = write!(
                out,
                ",\"parked\":{{\"count\":\"{}\",\"tokens\":\"{}\"}}",
                park.settled.count, park.settled.tokens
            );
        }
        _ => {}
    }
}

/// The beginning of a text, whole characters only.
fn shortened(text: &[u8]) -> String {
    let end = text.len().min(HIT_BYTES_MAX);
    let text = String::from_utf8_lossy(&text[..end]);
    text.trim_end_matches([',', '\u{fffd}']).to_owned()
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn position(query: &Query<'_>, name: &'static str) -> Result<Option<Position>, Refusal> {
    query
        .first(name)
        .map(|text| events::position(name, text))
        .transpose()
}

fn limit(query: &Query<'_>) -> Result<usize, Refusal> {
    match query.first("limit") {
        None => Ok(PAGE_ELEMENTS),
        Some(text) => number(text)
            .filter(|limit| (1..=PAGE_ELEMENTS_MAX).contains(limit))
            .ok_or(Refusal::parameter("limit", "1 to 100")),
    }
}

fn public_key(name: &'static str, text: &str) -> Result<PublicKey, Refusal> {
    text.parse()
        .map_err(|_| Refusal::parameter(name, "A public key in base58"))
}

fn asset_id(name: &'static str, text: &str) -> Result<AssetId, Refusal> {
    text.parse()
        .map_err(|_| Refusal::parameter(name, "64 hexadecimal digits"))
}
