//! The general event stream: one event for every entry of every book, told the same way
//! (docs/protocols/events.md).
//!
//! An event is compact: who wants the whole transaction asks for it by its id.

use std::collections::BTreeSet;

use daybook_ledger::{
    BlockTime, Operation, Position, PublicKey, Transaction,
    block::Entry,
    consortium::{self, Action, Body, Effect},
    tracker::{self, EntryKind, Record, command},
};

pub use crate::assets::position;
use crate::assets::{Query, Refusal, append_hex, append_id, append_number, append_text, boolean};

/// Values of one filter: enough for every name of a wallet, little enough to compare with each event.
pub const FILTER_VALUES_MAX: usize = 64;

/// What an entry of a block is, in a word: its book, a dot, what it did.
pub fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Asset(transaction) => match transaction.operation() {
            Operation::Create => "asset.create",
            Operation::Transfer => "asset.transfer",
            Operation::Compose => "asset.compose",
            Operation::Decompose => "asset.decompose",
        },
        Entry::Tracker(entry) => match entry.kind() {
            EntryKind::Command => match entry.request().map(|request| request.command) {
                Some(command::OPEN_INCOME) => "tracker.open_income",
                Some(command::OPEN_SPEND) => "tracker.open_spend",
                Some(command::OPEN_TRANSFER) => "tracker.open_transfer",
                Some(command::CLOSE_TRANSFER) => "tracker.close_transfer",
                Some(command::CLOSE_INCOME) => "tracker.close_income",
                Some(command::CLOSE_SPEND) => "tracker.close_spend",
                Some(command::PARK) => "tracker.park",
                _ => "tracker.command",
            },
            EntryKind::Expiry => "tracker.expiry",
            EntryKind::Deposit => "tracker.deposit",
            EntryKind::Payout => "tracker.payout",
            EntryKind::Settings => "tracker.settings",
        },
        Entry::Consortium(entry) => match entry.command().map(consortium::Command::body) {
            Some(Body::Found { .. }) => "consortium.found",
            Some(Body::Admit { .. }) => "consortium.admit",
            Some(Body::Announce { .. }) => "consortium.announce",
            Some(Body::Propose(_)) => "consortium.propose",
            Some(Body::Endorse { .. }) => "consortium.endorse",
            Some(Body::Refuse { .. }) => "consortium.refuse",
            Some(Body::Withdraw { .. }) => "consortium.withdraw",
            None => "consortium.expiry",
        },
    }
}

/// How much of the tracker's entries somebody is shown. Peers see their own in the tracker's listing; a
/// stream that told everybody who pays whom would undo that (wallet tracker, section 17.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Everything: the tracker's log is public, or it is its operator who looks.
    Whole,
    /// What peers do: that it happened, and when, but not who, with whom, and how much.
    Outline,
}

impl Sight {
    /// Whether an entry is told in outline: it is about peers, and they are none of the viewer's
    /// business. Deposits and terms are the tracker's own.
    pub fn veils(self, entry: &Entry) -> bool {
        match (self, entry) {
            // The consortium's book is what all of its network agree on.
            (Sight::Whole, _) | (_, Entry::Asset(_) | Entry::Consortium(_)) => false,
            (Sight::Outline, Entry::Tracker(entry)) => {
                !matches!(entry.kind(), EntryKind::Deposit | EntryKind::Settings)
            }
        }
    }
}

/// Which events are wanted: those that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// One of these kinds, or of one of these books.
    pub kinds: Vec<String>,
    /// Touching one of these public keys, assets, addresses, channels, members, ledgers or proposals.
    pub keys: BTreeSet<String>,
}

impl EventFilter {
    /// True when every event meets it.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.keys.is_empty()
    }

    /// Whether the event of an entry, as it is shown, meets it.
    pub fn matches(&self, entry: &Entry, sight: Sight) -> bool {
        let kind = kind(entry);
        let below = |wanted: &String| {
            kind.strip_prefix(&**wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        (self.kinds.is_empty() || self.kinds.iter().any(below))
            && (self.keys.is_empty()
                || (!sight.veils(entry)
                    && names(entry).iter().any(|name| self.keys.contains(name))))
    }

    /// Whether it asks for an address of the tracker.
    pub fn names_address(&self) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| tracker::AddressKind::of(key).is_some())
    }
}

/// What a subscriber asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventParameters {
    /// Where it begins, itself included; `None`: with what commits next.
    pub from: Option<Position>,
    /// What it wants.
    pub filter: EventFilter,
    /// Frames about the stream itself are welcome.
    pub notices: bool,
}

impl EventParameters {
    /// Reads `from`, `after`, `kind`, `key` and `notices`, and refuses others: a filter that is silently
    /// ignored because of a slip in its name would be believed to work.
    ///
    /// # Errors
    /// The first [`Refusal`] in that order.
    pub fn from_query(query: &Query<'_>) -> Result<EventParameters, Refusal> {
        let from = match (query.first("from"), query.first("after")) {
            (None, None) => None,
            (Some(from), None) => Some(position("from", from)?),
            (None, Some(after)) => Some(behind(position("after", after)?)),
            (Some(_), Some(_)) => {
                return Err(Refusal::parameter(
                    "after",
                    "Either from or after, not both",
                ));
            }
        };
        let kinds: Vec<String> = values(query, "kind")?.map(str::to_owned).collect();
        let keys: BTreeSet<String> = values(query, "key")?.map(str::to_owned).collect();
        let notices = boolean(query, "notices")?.unwrap_or(false);
        query.refuse_unknown(&["from", "after", "kind", "key", "notices"])?;
        Ok(EventParameters {
            from,
            filter: EventFilter { kinds, keys },
            notices,
        })
    }
}

/// The values of a parameter that may be repeated and hold lists with commas.
fn values<'q>(
    query: &'q Query<'_>,
    name: &'static str,
) -> Result<impl Iterator<Item = &'q str>, Refusal> {
    let all = || query.all(name).flat_map(|list| list.split(','));
    if all().count() > FILTER_VALUES_MAX || all().any(str::is_empty) {
        return Err(Refusal::parameter(name, "1 to 64 values"));
    }
    Ok(all())
}

/// The place behind a position.
pub fn behind(position: Position) -> Position {
    match position.index.checked_add(1) {
        Some(index) => Position { index, ..position },
        None => Position {
            height: position.height.next(),
            index: 0,
        },
    }
}

/// Writes the event of an entry as it is shown: one line of JSON.
pub fn event(out: &mut Vec<u8>, position: Position, time: BlockTime, entry: &Entry, sight: Sight) {
    out.extend_from_slice(b"{\"position\":\"");
    append_position(out, position);
    out.extend_from_slice(b"\",\"time\":");
    append_number(out, time.0);
    out.extend_from_slice(b",\"kind\":");
    append_text(out, kind(entry));
    out.extend_from_slice(b",\"id\":");
    append_id(out, &entry.id());
    if sight.veils(entry) {
        out.extend_from_slice(b",\"keys\":[],\"body\":{},\"outline\":true}");
        return;
    }
    out.extend_from_slice(b",\"keys\":");
    append_list(out, names(entry), |out, name| append_text(out, &name));
    out.extend_from_slice(b",\"body\":");
    match entry {
        Entry::Asset(transaction) => append_asset(out, transaction),
        Entry::Tracker(entry) => append_tracker(out, entry),
        Entry::Consortium(entry) => append_consortium(out, entry),
    }
    out.push(b'}');
}

/// Writes the heartbeat: everything before `next` was delivered, or was not wanted.
pub fn head(out: &mut Vec<u8>, next: Position) {
    notice(out, "head", next);
}

/// Writes the notice that everything before `next` was delivered and the stream is live.
pub fn caught_up(out: &mut Vec<u8>, next: Position) {
    notice(out, "caught_up", next);
}

/// Writes the notice that the subscriber is `blocks` blocks behind and is served from the store.
pub fn lagging(out: &mut Vec<u8>, blocks: u64) {
    out.extend_from_slice(b"{\"notice\":\"lagging\",\"behind\":");
    append_number(out, blocks);
    out.push(b'}');
}

fn notice(out: &mut Vec<u8>, name: &str, next: Position) {
    out.extend_from_slice(b"{\"notice\":");
    append_text(out, name);
    out.extend_from_slice(b",\"from\":\"");
    append_position(out, next);
    out.extend_from_slice(b"\"}");
}

fn append_position(out: &mut Vec<u8>, position: Position) {
    append_number(out, position.height.0);
    out.push(b'.');
    append_number(out, position.index.into());
}

/// Everything that a filter can name an entry by, in order, each once.
fn names(entry: &Entry) -> BTreeSet<String> {
    match entry {
        Entry::Asset(transaction) => {
            let inputs = transaction.inputs().iter();
            let outputs = transaction.outputs().iter();
            let keys = inputs
                .flat_map(|input| &input.owners_before)
                .chain(outputs.flat_map(|output| &output.public_keys));
            let consumed = transaction.consumed_assets().iter();
            keys.map(PublicKey::to_string)
                .chain(consumed.map(ToString::to_string))
                .chain([transaction.asset().to_string()])
                .collect()
        }
        Entry::Tracker(entry) => {
            let mut names = BTreeSet::new();
            for record in entry.records() {
                let addresses = [&*record.from, &*record.to].into_iter();
                let channel = record.channel().map(|channel| &*channel.contract.channel);
                let own = addresses.chain(channel).filter(|name| !name.is_empty());
                names.extend(own.map(str::to_owned));
            }
            if let Some(park) = entry.park() {
                let contract = &park.channel.contract;
                let own = [&*contract.from, &*contract.to, &*contract.channel];
                names.extend(own.map(str::to_owned));
            }
            names
        }
        Entry::Consortium(entry) => consortium_names(entry),
    }
}

/// Appends a list of what `append` writes of each item.
pub fn append_list<T>(
    out: &mut Vec<u8>,
    list: impl IntoIterator<Item = T>,
    mut append: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in list.into_iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        append(out, item);
    }
    out.push(b']');
}

fn append_keys(out: &mut Vec<u8>, keys: &[PublicKey]) {
    append_list(out, keys, |out, key| append_text(out, &key.to_string()));
}

fn append_asset(out: &mut Vec<u8>, transaction: &Transaction) {
    out.extend_from_slice(b"{\"asset\":");
    append_hex(out, &transaction.asset().0);
    if !transaction.consumed_assets().is_empty() && transaction.operation() != Operation::Transfer {
        out.extend_from_slice(b",\"consumed\":");
        append_list(out, transaction.consumed_assets(), |out, asset| {
            append_hex(out, &asset.0);
        });
    }
    out.extend_from_slice(b",\"inputs\":");
    append_list(out, transaction.inputs(), |out, input| {
        out.extend_from_slice(b"{\"owners\":");
        append_keys(out, &input.owners_before);
        if let Some(spends) = &input.spends {
            out.extend_from_slice(b",\"spends\":");
            append_text(out, &format!("{}:{}", spends.transaction, spends.index));
        }
        out.push(b'}');
    });
    out.extend_from_slice(b",\"outputs\":");
    append_list(out, transaction.outputs(), |out, output| {
        out.extend_from_slice(b"{\"amount\":");
        append_amount(out, output.amount.units());
        out.extend_from_slice(b",\"owners\":");
        append_keys(out, &output.public_keys);
        out.push(b'}');
    });
    out.push(b'}');
}

fn append_tracker(out: &mut Vec<u8>, entry: &tracker::Entry) {
    out.extend_from_slice(b"{\"records\":");
    append_list(out, entry.records(), append_record);
    if let Some(transaction) = entry.transfer() {
        out.extend_from_slice(b",\"transaction\":");
        append_id(out, &transaction);
    }
    if let Some(park) = entry.park() {
        out.extend_from_slice(b",\"channel\":");
        append_text(out, &park.channel.contract.channel);
        out.extend_from_slice(b",\"tokens\":");
        append_amount(out, park.settled.tokens);
    }
    out.push(b'}');
}

/// The members, ledgers and proposals that an entry touches.
fn consortium_names(entry: &consortium::Entry) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if let Some(command) = entry.command() {
        names.extend(command.member().map(|did| did.to_string()));
        match command.body() {
            Body::Found { members, .. } => {
                names.extend(members.iter().map(|card| card.did().to_string()));
            }
            Body::Admit { card } | Body::Announce { card } => {
                names.insert(card.did().to_string());
            }
            Body::Propose(propose) => {
                names.insert(entry.id().to_string());
                names.extend(propose.action.ledgers().iter().cloned());
                match &propose.action {
                    Action::Create { participants, .. } | Action::Regroup { participants, .. } => {
                        names.extend(participants.iter().map(ToString::to_string));
                    }
                    Action::Admit { card } => {
                        names.insert(card.did().to_string());
                    }
                    Action::Remove { subject } => {
                        names.insert(subject.to_string());
                    }
                    Action::Append { .. } => {}
                }
            }
            Body::Endorse { proposal, .. }
            | Body::Refuse { proposal, .. }
            | Body::Withdraw { proposal, .. } => {
                names.insert(proposal.to_string());
            }
        }
    }
    for effect in entry.effects() {
        names.extend(effect.proposal().map(|proposal| proposal.to_string()));
        match effect {
            Effect::Committed {
                endorsers, states, ..
            } => {
                names.extend(endorsers.iter().map(ToString::to_string));
                names.extend(states.iter().map(|state| state.name.clone()));
            }
            Effect::Expired { missing, .. } => {
                names.extend(missing.iter().map(ToString::to_string));
            }
            Effect::Refused { by, .. } => names.extend(by.iter().map(ToString::to_string)),
            Effect::Queued { .. }
            | Effect::Opened { .. }
            | Effect::Withdrawn { .. }
            | Effect::Dropped { .. } => {}
        }
    }
    names
}

/// Writes what an entry of the consortium's book did, without the texts that it brought.
fn append_consortium(out: &mut Vec<u8>, entry: &consortium::Entry) {
    out.push(b'{');
    if let Some(command) = entry.command() {
        if let Some(member) = command.member() {
            out.extend_from_slice(b"\"member\":");
            append_text(out, &member.to_string());
            out.push(b',');
        }
        match command.body() {
            Body::Found { .. } | Body::Admit { .. } | Body::Announce { .. } => {}
            Body::Propose(propose) => {
                out.extend_from_slice(b"\"request\":");
                append_text(out, &propose.request);
                out.extend_from_slice(b",\"deadline\":");
                append_number(out, propose.deadline.0);
                out.extend_from_slice(b",\"do\":");
                append_text(out, propose.action.kind());
                out.extend_from_slice(b",\"ledgers\":");
                append_list(out, propose.action.ledgers(), |out, name| {
                    append_text(out, name)
                });
                if let Some(batch) = propose.action.batch() {
                    out.extend_from_slice(b",\"entries\":");
                    append_number(out, batch.entries().len() as u64);
                }
                out.push(b',');
            }
            Body::Endorse { proposal, .. } | Body::Withdraw { proposal, .. } => {
                out.extend_from_slice(b"\"proposal\":");
                append_id(out, proposal);
                out.push(b',');
            }
            Body::Refuse {
                proposal, reason, ..
            } => {
                out.extend_from_slice(b"\"proposal\":");
                append_id(out, proposal);
                out.extend_from_slice(b",\"reason\":");
                append_text(out, reason);
                out.push(b',');
            }
        }
    }
    out.extend_from_slice(b"\"effects\":");
    append_list(out, entry.effects(), |out, effect| {
        append_effect(out, entry, effect);
    });
    out.push(b'}');
}

fn append_effect(out: &mut Vec<u8>, entry: &consortium::Entry, effect: &Effect) {
    out.extend_from_slice(b"{\"effect\":");
    append_text(out, effect.kind());
    out.extend_from_slice(b",\"proposal\":");
    append_id(out, &effect.proposal().unwrap_or(entry.id()));
    let append_dids = |out: &mut Vec<u8>, name: &str, dids: &[consortium::Did]| {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        append_list(out, dids, |out, did| append_text(out, &did.to_string()));
    };
    match effect {
        Effect::Queued { behind } => {
            out.extend_from_slice(b",\"behind\":");
            append_number(out, *behind);
        }
        Effect::Opened { agreed, .. } => {
            out.extend_from_slice(b",\"agreed\":");
            append_text(out, &agreed.to_string());
        }
        Effect::Committed {
            endorsers, states, ..
        } => {
            append_dids(out, "endorsers", endorsers);
            out.extend_from_slice(b",\"ledgers\":");
            append_list(out, states, |out, state| {
                out.extend_from_slice(b"{\"name\":");
                append_text(out, &state.name);
                out.extend_from_slice(b",\"size\":");
                append_number(out, state.uncommitted_size);
                out.extend_from_slice(b",\"root_hash\":");
                append_text(out, &state.uncommitted_root.to_string());
                out.push(b'}');
            });
        }
        Effect::Expired { missing, .. } => append_dids(out, "missing", missing),
        Effect::Refused { by, .. } => append_dids(out, "by", by),
        Effect::Withdrawn { .. } => {}
        Effect::Dropped { code, detail, .. } => {
            out.extend_from_slice(b",\"code\":");
            append_text(out, code.as_str());
            out.extend_from_slice(b",\"detail\":");
            append_text(out, detail);
        }
    }
    out.push(b'}');
}

fn append_record(out: &mut Vec<u8>, record: &Record) {
    out.extend_from_slice(b"{\"seq\":");
    append_number(out, record.seq);
    out.extend_from_slice(b",\"type\":");
    append_number(out, record.record_type().code().into());
    for (name, value) in [
        ("tx_id", &*record.id),
        ("from", &*record.from),
        ("to", &*record.to),
    ] {
        out.push(b',');
        append_text(out, name);
        out.push(b':');
        append_text(out, value);
    }
    out.extend_from_slice(b",\"amount\":");
    append_amount(out, record.amount());
    if let Some(channel) = record.channel() {
        out.extend_from_slice(b",\"channel\":");
        append_text(out, &channel.contract.channel);
    }
    out.push(b'}');
}

/// Amounts are texts: they may be above 2⁵³.
fn append_amount(out: &mut Vec<u8>, amount: u64) {
    out.push(b'"');
    append_number(out, amount);
    out.push(b'"');
}
