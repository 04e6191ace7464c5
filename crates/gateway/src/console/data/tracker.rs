//! Addresses and channels of the wallet tracker, and what its entries record beyond their events.

use std::{io::Write as _, sync::Arc};

use daybook_ledger::{
    BlockTime,
    block::Entry,
    tracker::{
        Address, AddressKind, Cause, Channel, Entry as TrackerEntry, Fact, History, IndexKey,
        Refusal,
    },
};
use daybook_store::Name;
use daybook_wire::{
    assets::{Query, append_text},
    events::Sight,
};

use super::{Asker, Found, PARTS_MAX, Wrong};

impl Asker<'_> {
    /// The state of a tracker's address or channel, as anyone may ask the tracker for it.
    pub(super) fn object(&self, query: &Query<'_>) -> Found {
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
                Err(Refusal { .. }) => out.extend_from_slice(b"null"),
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
}

/// The history that a state in memory is asked beside: what is closed is told from the log instead.
struct Nowhere;

impl History for Nowhere {
    fn newest(&self, _key: IndexKey<'_>) -> Option<Arc<TrackerEntry>> {
        None
    }
}

pub(super) fn tracker_of(entry: &Entry) -> Option<&TrackerEntry> {
    match entry {
        Entry::Tracker(entry) => Some(entry),
        _ => None,
    }
}

/// What a tracker entry's records say, beyond its event: how long things live, and why they ended.
pub(super) fn append_tracker_parts(out: &mut Vec<u8>, entry: &TrackerEntry) {
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
