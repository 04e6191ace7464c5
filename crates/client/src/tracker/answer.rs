//! What the tracker answers (wallet tracker, sections 8, 12 and 17.1).

use daybook_ledger::tracker::{Key, Suites};
use serde::{Deserialize, Deserializer, Serialize, de};

/// Tokens: a text of digits, or a number from trackers of the second generation (section 8.4).
fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u64;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an amount")
        }
        fn visit_u64<E: de::Error>(self, amount: u64) -> Result<u64, E> {
            Ok(amount)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            let digits = text.bytes().all(|c| c.is_ascii_digit());
            let amount = text.parse().ok().filter(|_| digits);
            amount.ok_or_else(|| E::custom("not an amount"))
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// What is on an address, or was at its close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// Tokens.
    #[serde(deserialize_with = "amount")]
    pub amount: u64,
    /// Bytes that were paid for.
    pub quantum_volume: u64,
    /// Bytes that were really moved.
    pub volume: u64,
}

/// What is left of an address's means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Tokens: on a spend address those that are free to promise, on an income address those that it
    /// has or may still get.
    #[serde(deserialize_with = "amount")]
    pub amount: u64,
    /// Bytes paid for or reserved.
    pub quantum_volume: u64,
}

/// A price as address states show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WirePrice {
    #[serde(deserialize_with = "amount")]
    amount: u64,
    quantum_power: u8,
}

impl From<WirePrice> for super::Price {
    fn from(price: WirePrice) -> super::Price {
        super::Price {
            amount: price.amount,
            power: price.quantum_power,
        }
    }
}

/// A spend or income address (section 8.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// The address.
    pub address: String,
    /// What is on it.
    pub current: Balance,
    /// What is left.
    pub limit: Limit,
    /// The most that a spend address may offer, the least that an income address may accept.
    pub price: super::Price,
    /// When it locks, in milliseconds since 1970.
    pub timelock: u64,
    /// Milliseconds until then; right after the opening only.
    pub lifetime: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct WireAddress {
    pub(super) address: String,
    current: Balance,
    limit: Limit,
    price: WirePrice,
    #[serde(flatten)]
    lock: Lock,
}

/// A time lock in both spellings (section 6.2).
#[derive(Deserialize)]
struct Lock {
    timelock: Option<u64>,
    #[serde(rename = "timeLock")]
    time_lock: Option<u64>,
    lifetime: Option<u64>,
}

impl Lock {
    fn ms(&self) -> u64 {
        self.timelock.or(self.time_lock).unwrap_or_default()
    }
}

impl From<WireAddress> for AddressState {
    fn from(wire: WireAddress) -> AddressState {
        AddressState {
            address: wire.address,
            current: wire.current,
            limit: wire.limit,
            price: wire.price.into(),
            timelock: wire.lock.ms(),
            lifetime: wire.lock.lifetime,
        }
    }
}

/// A transfer channel was opened (section 8.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// When it locks, in milliseconds since 1970.
    pub timelock: u64,
    /// Milliseconds until then.
    pub lifetime: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct WireOpened {
    #[serde(flatten)]
    lock: Lock,
}

impl From<WireOpened> for Opened {
    fn from(wire: WireOpened) -> Opened {
        Opened {
            timelock: wire.lock.ms(),
            lifetime: wire.lock.lifetime,
        }
    }
}

/// An address was closed: what was on it (sections 8.7 and 8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Closed {
    /// What went to the tracker's wallet.
    pub state: Balance,
}

/// Where a transfer channel stands (section 8.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// This tracker knows no such channel.
    Unknown,
    /// Open.
    Open,
    /// Closed by its peers, or by its lock.
    Closed,
}

#[derive(Deserialize)]
pub(super) struct WireChannel {
    pub(super) state: u64,
}

/// A wallet (section 8.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct CommonState {
    /// Tokens that were paid out.
    #[serde(deserialize_with = "amount")]
    pub profit: u64,
    /// From channels of this tracker.
    pub own: Own,
    /// From channels of other trackers.
    pub foreign: Own,
}

/// What a wallet has earned and may still earn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Own {
    /// Tokens from closed channels.
    #[serde(deserialize_with = "amount")]
    pub fact: u64,
    /// The most that open channels could bring.
    #[serde(deserialize_with = "amount")]
    pub plan: u64,
}

#[derive(Deserialize)]
pub(super) struct WireCommon {
    pub(super) state: CommonState,
}

/// What a tracker says that it can do (section 17.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The highest version of signed messages.
    pub version: u64,
    /// Suite and PEM of each of its keys.
    pub keys: Vec<(String, String)>,
    /// Suites that it takes.
    pub suites: Vec<String>,
    /// Extensions that it has.
    pub extensions: Vec<String>,
    /// Its clock, in milliseconds since 1970.
    pub now: u64,
    /// Its prices.
    pub prices: Prices,
    /// How long a transfer channel lives at most, in milliseconds, if it says so.
    pub transfer_lifetime_ms: Option<u64>,
}

/// The price band of a tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// The least that an income address takes.
    pub income_min: super::Price,
    /// The most that a spend address offers.
    pub spend_max: super::Price,
}

#[derive(Deserialize)]
pub(super) struct WireCapabilities {
    v: u64,
    keys: Vec<WireKey>,
    #[serde(default)]
    suites: Vec<String>,
    #[serde(default)]
    ext: Vec<String>,
    now: u64,
    #[serde(default)]
    prices: WirePrices,
    #[serde(default)]
    lifetimes: WireLifetimes,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireLifetimes {
    transfer: Option<u64>,
}

#[derive(Deserialize)]
struct WireKey {
    suite: String,
    pk: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WirePrices {
    income_min: WirePrice,
    spend_max: WirePrice,
}

impl From<WireCapabilities> for Capabilities {
    fn from(wire: WireCapabilities) -> Capabilities {
        Capabilities {
            version: wire.v,
            keys: wire.keys.into_iter().map(|k| (k.suite, k.pk)).collect(),
            suites: wire.suites,
            extensions: wire.ext,
            now: wire.now,
            prices: Prices {
                income_min: wire.prices.income_min.into(),
                spend_max: wire.prices.spend_max.into(),
            },
            transfer_lifetime_ms: wire.lifetimes.transfer,
        }
    }
}

/// About the list that a page is of (section 8.13).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Names the frozen list.
    pub cursor_id: String,
    /// Rows of the list.
    pub total_count: u64,
    /// Pages of the list.
    pub page_count: u64,
    /// This page, from 1.
    pub current_page: u64,
    /// Rows of a page.
    pub per_page: u64,
}

/// A page of records.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// On the first page only.
    #[serde(rename = "_meta")]
    pub meta: Option<Meta>,
    /// The records.
    pub items: Vec<Item>,
}

/// A record of the log (section 12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Tokens.
    pub amount: u64,
    /// The channel, or empty.
    pub contract_id: String,
    /// From which address.
    pub from: String,
    /// Its name.
    pub tx_id: String,
    /// The name of the opening, for a close; otherwise empty.
    pub parent_tx_id: String,
    /// Quanta that were planned.
    pub planned_quantum_count: u64,
    /// Tokens of the price.
    pub price_amount: u64,
    /// Quantum of the price.
    pub price_quantum_power: u64,
    /// The tracker's PEM.
    pub pk: String,
    /// Quanta that were paid.
    pub quantum_count: u64,
    /// 1 for executed.
    pub status: u64,
    /// The lock, for openings.
    pub timelock: u64,
    /// When, in milliseconds since 1970.
    pub timestamp: u64,
    /// To which address.
    pub to: String,
    /// What it is.
    pub tx_type: u64,
    /// Always empty.
    pub version: String,
    /// Bytes.
    pub volume: u64,
    /// The tracker's signature in base64.
    #[serde(default)]
    pub sign: String,
}

impl Item {
    /// The text that its signature covers.
    fn signed_text(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            "{{\"amount\":{},\"contract_id\":{},\"from\":{},\"tx_id\":{},\"parent_tx_id\":{},\
             \"planned_quantum_count\":{},\"price_amount\":{},\"price_quantum_power\":{},\"pk\":{},\
             \"quantum_count\":{},\"status\":{},\"timelock\":{},\"timestamp\":{},\"to\":{},\
             \"tx_type\":{},\"version\":{},\"volume\":{}}}",
            self.amount,
            text(&self.contract_id),
            text(&self.from),
            text(&self.tx_id),
            text(&self.parent_tx_id),
            self.planned_quantum_count,
            self.price_amount,
            self.price_quantum_power,
            text(&self.pk),
            self.quantum_count,
            self.status,
            self.timelock,
            self.timestamp,
            text(&self.to),
            self.tx_type,
            text(&self.version),
            self.volume,
        )
    }

    /// Whether its signature is that of the key that it names.
    pub(super) fn is_signed(&self) -> bool {
        let suites = Suites::default();
        let text = self.signed_text();
        Key::read(&self.pk).is_ok_and(|key| key.verify(&suites, text.as_bytes(), &self.sign))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn amounts_are_texts_or_numbers_and_the_lock_has_two_spellings() {
        for (amount, lock) in [("\"10000\"", "timelock"), ("10000", "timeLock")] {
            let text = format!(
                r#"{{"address":"0x0c","current":{{"amount":{amount},"quantumVolume":0,"volume":0}},
                "limit":{{"amount":{amount},"quantumVolume":0}},"pk":"-","{lock}":1893456000000,
                "price":{{"amount":{amount},"quantumPower":25}}}}"#
            );
            let state = AddressState::from(serde_json::from_str::<WireAddress>(&text).unwrap());
            assert_eq!(
                (state.current.amount, state.timelock),
                (10_000, 1_893_456_000_000)
            );
            assert_eq!(state.price.power, 25);
        }
        for bad in ["-1", "1.0", "\"+1\"", "\"\"", "\"1e3\""] {
            let text = format!(r#"{{"fact":{bad},"plan":"0"}}"#);
            assert!(serde_json::from_str::<Own>(&text).is_err(), "{bad}");
        }
    }
}
