//! The texts that the tracker answers with and signs (wallet tracker, section 8, "message out").
//!
//! `pk` is the text of the tracker's key that signs the answer: the one its client knows from the
//! handshake. Every text here follows from its arguments alone, so a repeated request gets the same
//! bytes.

use super::{
    Address, AddressState, ChannelState, CommonState, Entry, Fact, Listing, PAGE_SIZE_MAX, Price,
    Record, Refusal, Request, Settings, Suites, command, prove::channel_of, text::Writer,
};
use crate::block::BlockTime;

/// Commands 16, 4096 and 524288: constant for one key of the tracker.
pub fn done(pk: &str) -> String {
    let mut out = Writer::new();
    out.string("pk", pk);
    out.finish()
}

/// The answer to a command that is recorded in `entry`, or that repeats what `entry` says.
///
/// # Errors
/// `internal` when the entry is not of this command.
pub fn recorded(request: &Request, entry: &Entry, pk: &str) -> Result<String, Refusal> {
    let foreign = || Refusal::internal("the entry belongs to another command");
    match request.command {
        command::OPEN_INCOME | command::OPEN_SPEND => {
            let opened = entry
                .records()
                .iter()
                .find_map(|record| match &record.fact {
                    Fact::OpenAddress(opening) => Some((record, opening)),
                    _ => None,
                });
            let (record, opening) = opened.ok_or_else(foreign)?;
            let state = AddressState {
                address: record.to.clone(),
                spend: opening.spend,
                owner: opening.owner,
                amount: opening.amount,
                quantum_volume: 0,
                volume: 0,
                limit_amount: opening.amount,
                limit_quantum_volume: 0,
                price: opening.price,
                timelock: opening.timelock,
            };
            let lifetime = opening.timelock.saturating_sub(record.timestamp);
            Ok(state_text(&state, pk, Some(lifetime)))
        }
        command::OPEN_TRANSFER => {
            let channel = match entry.records() {
                [record] => record.channel(),
                // One of many that expired, or a receipt that was deposited.
                _ => channel_of(request).and_then(|id| entry.channel(&id)),
            };
            let channel = channel.ok_or_else(foreign)?;
            let mut out = Writer::new();
            out.string("pk", pk);
            lock(&mut out, channel.timelock);
            out.number("lifetime", channel.timelock.saturating_sub(channel.opened));
            Ok(out.finish())
        }
        command::CLOSE_TRANSFER | command::PARK => Ok(done(pk)),
        command::CLOSE_INCOME | command::CLOSE_SPEND => {
            let closed = entry
                .records()
                .iter()
                .find_map(|record| match &record.fact {
                    Fact::CloseAddress(closing) => Some(closing),
                    _ => None,
                });
            let closing = closed.ok_or_else(foreign)?;
            let mut out = Writer::new();
            out.string("pk", pk);
            let current = (closing.amount, closing.quantum_volume, closing.volume);
            out.raw("state", &current_text(current));
            Ok(out.finish())
        }
        command::PAY_OUT => {
            let paid = entry
                .records()
                .iter()
                .find_map(|record| match &record.fact {
                    Fact::Payout(paid) => Some(paid),
                    _ => None,
                });
            let paid = paid.ok_or_else(foreign)?;
            let mut state = Writer::new();
            state.amount("fact", paid.fact);
            state.amount("profit", paid.profit);
            let mut out = Writer::new();
            out.string("pk", pk);
            out.string("address", &paid.address);
            out.string("payTo", &paid.pay_to.to_string());
            out.amount("amount", paid.amount);
            out.string("transactionId", &paid.transfer.to_string());
            out.raw("state", &state.finish());
            Ok(out.finish())
        }
        _ => Err(foreign()),
    }
}

/// Commands 128 and 256.
pub fn address_state(state: &AddressState, pk: &str) -> String {
    state_text(state, pk, None)
}

/// Section 8.4.
fn state_text(state: &AddressState, pk: &str, lifetime: Option<u64>) -> String {
    let mut limit = Writer::new();
    limit.amount("amount", state.limit_amount);
    limit.number("quantumVolume", state.limit_quantum_volume);
    let mut out = Writer::new();
    out.string("address", &state.address);
    let current = (state.amount, state.quantum_volume, state.volume);
    out.raw("current", &current_text(current));
    out.raw("limit", &limit.finish());
    out.raw("price", &price_text(&state.price));
    out.string("pk", pk);
    lock(&mut out, state.timelock);
    if let Some(lifetime) = lifetime {
        out.number("lifetime", lifetime);
    }
    out.finish()
}

fn current_text((amount, quantum_volume, volume): (u64, u64, u64)) -> String {
    let mut out = Writer::new();
    out.amount("amount", amount);
    out.number("quantumVolume", quantum_volume);
    out.number("volume", volume);
    out.finish()
}

fn price_text(price: &Price) -> String {
    let mut out = Writer::new();
    out.amount("amount", price.amount);
    out.number("quantumPower", price.power.into());
    out.finish()
}

/// Under both names (section 6.2).
fn lock(out: &mut Writer, timelock: u64) {
    out.number("timelock", timelock);
    out.number("timeLock", timelock);
}

/// Command 512.
pub fn channel_state(id: &str, state: ChannelState, pk: &str) -> String {
    let mut out = Writer::new();
    out.string("channelId", id);
    out.number("state", state.code().into());
    out.string("pk", pk);
    out.finish()
}

/// Command 8192. Records of other trackers are not observed here, so `foreign` is zero.
pub fn common_state(address: &Address, state: &CommonState, pk: &str) -> String {
    let side = |fact, plan| {
        let mut out = Writer::new();
        out.amount("fact", fact);
        out.amount("plan", plan);
        out.finish()
    };
    let mut inner = Writer::new();
    inner.amount("profit", state.profit);
    inner.raw("own", &side(state.fact, state.plan));
    inner.raw("foreign", &side(0, 0));
    let mut out = Writer::new();
    out.string("address", address.as_str());
    out.raw("state", &inner.finish());
    out.string("pk", pk);
    out.finish()
}

/// Command 65536 (section 17.1). `frame_bytes_max` is the longest frame that the gateway takes.
pub fn capabilities(
    settings: &Settings,
    suites: &Suites,
    frame_bytes_max: u64,
    now: BlockTime,
) -> String {
    let mut prices = Writer::new();
    prices.raw("incomeMin", &price_text(&settings.income_price()));
    prices.raw("spendMax", &price_text(&settings.spend_price()));
    let mut lifetimes = Writer::new();
    lifetimes.number("income", settings.income_lifetime_ms);
    lifetimes.number("spend", settings.spend_lifetime_ms);
    lifetimes.number("transfer", settings.transfer_lifetime_ms);
    let mut limits = Writer::new();
    limits.number("frame", frame_bytes_max);
    limits.number("openPerKey", settings.open_spends_max.into());
    limits.number("openIncomePerKey", settings.open_incomes_max.into());
    limits.number(
        "openTransfersPerAddress",
        settings.open_transfers_max.into(),
    );
    limits.number("pageSize", PAGE_SIZE_MAX);
    let mut out = Writer::new();
    out.number("v", 2);
    out.array("keys", &settings.keys, |out, pem| {
        let mut key = Writer::new();
        if let Ok(parsed) = super::Key::read(pem) {
            key.string("suite", parsed.suite().name());
        }
        key.string("pk", pem);
        out.push_str(&key.finish());
    });
    out.array("suites", suites.names(), quoted);
    out.array("ext", ["push", "idem", "park", "payout"], quoted);
    out.number("now", now.0);
    out.boolean("strictV2", settings.strict_v2);
    out.string("token", &settings.token.to_string());
    out.string("holder", &settings.holder.to_string());
    out.raw("prices", &prices.finish());
    out.raw("lifetimes", &lifetimes.finish());
    out.raw("limits", &limits.finish());
    out.finish()
}

fn quoted(out: &mut String, text: &str) {
    crate::canonical::write_string(out, text);
}

/// The kind of the event that a record is to subscribers (section 17.4); `None` for deposits.
pub fn event_kind(record: &Record) -> Option<&'static str> {
    match &record.fact {
        Fact::Init { .. } => None,
        Fact::OpenAddress(_) => Some("address.opened"),
        Fact::OpenTransfer(_) => Some("channel.opened"),
        Fact::CloseTransfer { .. } => Some("channel.closed"),
        Fact::CloseAddress(_) => Some("address.closed"),
        Fact::Payout(_) => Some("wallet.payout"),
    }
}

impl Listing {
    /// Whether a record belongs to the list.
    pub fn takes(&self, record: &Record) -> bool {
        let channel = record
            .channel()
            .map_or("", |channel| &*channel.contract.channel);
        let code = u64::from(record.record_type().code());
        self.tx_type.is_none_or(|wanted| wanted == code)
            && self.status.is_none_or(|wanted| wanted == 1)
            && self
                .channel
                .as_deref()
                .is_none_or(|wanted| wanted == channel)
            && self
                .from
                .as_deref()
                .is_none_or(|wanted| wanted == &*record.from)
            && self
                .to
                .as_deref()
                .is_none_or(|wanted| wanted == &*record.to)
    }
}
