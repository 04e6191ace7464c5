//! The texts that peers sign (wallet tracker, sections 8, 17.2 and appendix B).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Address, Contract, KeyHash, Listing, Settled, Topic, TrackerId, command, text::Writer,
};
use crate::PublicKey;

/// What makes a message one of version 2, which cannot be used twice or elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Version2<'a> {
    /// `corrToken` of the request.
    pub correlation: &'a str,
    /// The hash of the tracker's key ([`super::Key::hash`]).
    pub tracker: TrackerId,
    /// Now, in milliseconds since 1970.
    pub time_ms: u64,
    /// Sixteen bytes that were never used before.
    pub nonce: [u8; 16],
}

/// The name of a tracker in messages: base64url of its key's hash.
pub fn tracker_name(tracker: &TrackerId) -> String {
    URL_SAFE_NO_PAD.encode(tracker.0)
}

fn message(code: u64, pk: &str, version: Option<&Version2<'_>>) -> Writer {
    let mut out = Writer::new();
    if let Some(version) = version {
        out.number("v", 2);
        out.number("cmd", code);
        out.string("corrToken", version.correlation);
        out.string("tracker", &tracker_name(&version.tracker));
        out.number("ts", version.time_ms);
        out.string("nonce", &URL_SAFE_NO_PAD.encode(version.nonce));
    }
    out.string("pk", pk);
    out
}

/// Commands 1, 2 and 4: the key's text itself, or version 2 of it.
pub fn bare(code: u64, pk: &str, version: Option<&Version2<'_>>) -> String {
    match version {
        None => pk.to_owned(),
        Some(_) => message(code, pk, version).finish(),
    }
}

/// Commands 32, 64, 128, 256 and 8192: about an address.
pub fn about_address(
    code: u64,
    address: &Address,
    pk: &str,
    version: Option<&Version2<'_>>,
) -> String {
    let mut out = message(code, pk, version);
    out.string("address", address.as_str());
    out.finish()
}

/// Command 512.
pub fn channel_state(channel: &str, pk: &str, version: Option<&Version2<'_>>) -> String {
    let mut out = message(command::TRANSFER_STATE, pk, version);
    out.string("channelId", channel);
    out.finish()
}

/// Command 1024.
pub fn first_transactions(listing: &Listing, pk: &str, version: Option<&Version2<'_>>) -> String {
    let mut out = message(command::FIRST_TRANSACTIONS, pk, version);
    let mut limits = Writer::new();
    limits.number("pageSize", listing.page_size);
    limits.number("page", listing.page);
    out.raw("limits", &limits.finish());
    out.number("order", if listing.ascending { 1 } else { 2 });
    let mut fields = Writer::new();
    for (name, number) in [("tx_type", listing.tx_type), ("status", listing.status)] {
        if let Some(number) = number {
            let mut value = Writer::new();
            value.number("value", number);
            fields.raw(name, &value.finish());
        }
    }
    for (name, text) in [
        ("channel_id", &listing.channel),
        ("from", &listing.from),
        ("to", &listing.to),
    ] {
        if let Some(text) = text {
            let mut value = Writer::new();
            value.string("value", text);
            fields.raw(name, &value.finish());
        }
    }
    out.raw("fields", &fields.finish());
    out.finish()
}

/// Command 2048.
pub fn next_transactions(
    cursor: &str,
    page: u64,
    pk: &str,
    version: Option<&Version2<'_>>,
) -> String {
    let mut out = message(command::NEXT_TRANSACTIONS, pk, version);
    out.string("cursorId", cursor);
    out.number("page", page);
    out.finish()
}

/// Command 4096.
pub fn update_cursor(cursor: &str, pk: &str, version: Option<&Version2<'_>>) -> String {
    let mut out = message(command::UPDATE_CURSOR, pk, version);
    out.string("cursorId", cursor);
    out.finish()
}

/// Command 131072. A topic that is a key is told by the key's text, so those come beside the topics.
pub fn subscribe(
    topics: &[Topic],
    keys: &[&str],
    from: Option<u64>,
    pk: &str,
    version: Option<&Version2<'_>>,
) -> String {
    let named = topics.iter().filter_map(|topic| match topic {
        Topic::Address(address) => Some(("address", &**address)),
        Topic::Channel(channel) => Some(("channelId", &**channel)),
        Topic::Owner(KeyHash(_)) => None,
    });
    let keys = keys.iter().map(|key| ("pk", *key));
    let mut out = message(command::SUBSCRIBE, pk, version);
    out.array("topics", named.chain(keys), |out, (name, text)| {
        let mut topic = Writer::new();
        topic.string(name, text);
        out.push_str(&topic.finish());
    });
    if let Some(from) = from {
        out.number("fromSeq", from);
    }
    out.finish()
}

/// Command 131073.
pub fn unsubscribe(subscription: &str, pk: &str, version: Option<&Version2<'_>>) -> String {
    let mut out = message(command::UNSUBSCRIBE, pk, version);
    out.string("subId", subscription);
    out.finish()
}

/// Command 2097152: pays `amount` tokens of what the common address earned to an Ed25519 key. `pk` must
/// be the text that the address is derived from.
pub fn pay_out(
    address: &Address,
    pay_to: &PublicKey,
    amount: u64,
    pk: &str,
    version: &Version2<'_>,
) -> String {
    let mut out = message(command::PAY_OUT, pk, Some(version));
    out.string("address", address.as_str());
    out.string("payTo", &pay_to.to_string());
    out.amount("amount", amount);
    out.finish()
}

/// Command 8: what payer and payee sign. With `tracker` the text is of version 2.
pub fn open_transfer(
    contract: &Contract,
    from_pk: &str,
    to_pk: &str,
    tracker: Option<&TrackerId>,
) -> String {
    cosigned(command::OPEN_TRANSFER, contract, from_pk, to_pk, tracker).finish()
}

/// Command 16: what payer and payee sign at the end, and a receipt before. It may be deposited with
/// command 524288 as it is.
pub fn close_transfer(
    contract: &Contract,
    settled: &Settled,
    from_pk: &str,
    to_pk: &str,
    tracker: Option<&TrackerId>,
) -> String {
    let mut out = cosigned(command::CLOSE_TRANSFER, contract, from_pk, to_pk, tracker);
    out.amount("tokens", settled.tokens);
    out.number("quantumCount", settled.count);
    out.number("volume", settled.volume);
    out.finish()
}

fn cosigned(
    code: u64,
    contract: &Contract,
    from_pk: &str,
    to_pk: &str,
    tracker: Option<&TrackerId>,
) -> Writer {
    let mut out = Writer::new();
    if let Some(tracker) = tracker {
        out.number("v", 2);
        out.number("cmd", code);
        out.string("tracker", &tracker_name(tracker));
    }
    out.string("fromPK", from_pk);
    out.string("toPK", to_pk);
    out.string("channelId", &contract.channel);
    out.string("fromAddress", &contract.from);
    out.string("toAddress", &contract.to);
    out.amount("priceTokens", contract.price.amount);
    out.number("priceQuantumPower", contract.price.power.into());
    out.number("plannedQuantumCount", contract.planned);
    out
}
