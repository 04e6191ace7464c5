//! Prices, and what payer and payee agree on (wallet tracker, sections 6 and 8.5).

use std::{cmp::Ordering, fmt, sync::Arc};

use super::{Address, Code, Refusal};

/// The largest quantum power: quanta of up to 2⁶² bytes.
pub const QUANTUM_POWER_MAX: u8 = 62;

/// The largest product of price and count, and of count and quantum: 63 bits.
pub const PRODUCT_MAX: u64 = i64::MAX as u64;

/// The largest count of quanta and of bytes: what a JSON number holds exactly.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// Characters of a channel id. The specification asks for printable ASCII; clients that use other text
/// are served as well, as long as it is short.
pub const CHANNEL_BYTES_MAX: usize = 128;

/// SHA-256 of a key's SubjectPublicKeyInfo: who somebody is, whatever the text of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// What a version 2 message calls its tracker: the hash of one of the tracker's keys.
pub use KeyHash as TrackerId;

/// So many tokens buy up to 2^power bytes (section 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Tokens for each quantum.
    pub amount: u64,
    /// The quantum: 2 to this power, in bytes; at most [`QUANTUM_POWER_MAX`].
    pub power: u8,
}

/// The terms of a transfer channel that stay the same from the opening to the close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Its name, unique for ever.
    pub channel: Arc<str>,
    /// The spend address.
    pub from: Arc<str>,
    /// The income or common address.
    pub to: Arc<str>,
    /// Price of a quantum.
    pub price: Price,
    /// The most quanta that may be bought, at least 1.
    pub planned: u64,
}

/// How a transfer channel ends: cumulative totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Quanta paid.
    pub count: u64,
    /// Tokens paid: price times count.
    pub tokens: u64,
    /// Bytes moved; at most what the quanta hold.
    pub volume: u64,
}

impl Price {
    /// Compares by lifting the price of the smaller quantum to the larger, which is exact.
    pub fn compare(&self, other: &Price) -> Ordering {
        let power = self.power.max(other.power);
        self.lifted(power).cmp(&other.lifted(power))
    }

    /// Below 2¹²⁶, because the power is at most 62.
    fn lifted(&self, power: u8) -> u128 {
        let by = u32::from(power.saturating_sub(self.power)).min(u32::from(QUANTUM_POWER_MAX));
        u128::from(self.amount) << by
    }

    /// What `count` quanta cost; `None` beyond 63 bits.
    pub fn cost(&self, count: u64) -> Option<u64> {
        fits(u128::from(self.amount).checked_mul(u128::from(count))?)
    }

    /// The bytes that `count` quanta hold; `None` beyond 63 bits.
    pub fn bytes(&self, count: u64) -> Option<u64> {
        if self.power > QUANTUM_POWER_MAX {
            return None;
        }
        fits(u128::from(count).checked_mul(1 << self.power)?)
    }

    /// The quanta that `volume` bytes need.
    pub fn quanta(&self, volume: u64) -> u64 {
        if self.power > QUANTUM_POWER_MAX {
            return u64::from(volume > 0);
        }
        volume.div_ceil(1 << self.power)
    }
}

fn fits(product: u128) -> Option<u64> {
    u64::try_from(product).ok().filter(|&p| p <= PRODUCT_MAX)
}

impl Contract {
    /// The most tokens that it can move.
    ///
    /// A contract that passed [`Contract::check`] has this product; any other counts as unpayable.
    pub fn cost(&self) -> u64 {
        self.price.cost(self.planned).unwrap_or(u64::MAX)
    }

    /// The most bytes that it can pay for.
    pub fn bytes(&self) -> u64 {
        self.price.bytes(self.planned).unwrap_or(u64::MAX)
    }

    /// Section 8.5, check 2, and the form of the channel id.
    ///
    /// # Errors
    /// `bad_message`, `bad_amount` or `overflow`.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.channel.is_empty() || self.channel.len() > CHANNEL_BYTES_MAX {
            return Err(Refusal::new(
                Code::BadMessage,
                format!("a channel id has 1 to {CHANNEL_BYTES_MAX} bytes"),
            ));
        }
        // Both are looked up by name: one that is both would hide the other.
        if Address::parse(&self.channel).is_ok() {
            return Err(Refusal::new(
                Code::BadMessage,
                "a channel id cannot be an address",
            ));
        }
        if self.price.power > QUANTUM_POWER_MAX {
            return Err(Refusal::new(
                Code::BadAmount,
                format!("a quantum power is 0 to {QUANTUM_POWER_MAX}"),
            ));
        }
        if self.planned == 0 {
            return Err(Refusal::new(
                Code::BadAmount,
                "at least one quantum must be planned",
            ));
        }
        if self.price.cost(self.planned).is_none() || self.price.bytes(self.planned).is_none() {
            return Err(Refusal::new(
                Code::Overflow,
                "the planned cost or volume exceeds 63 bits",
            ));
        }
        Ok(())
    }

    /// Section 8.6, checks 2 to 4, for a contract that passed [`Contract::check`].
    ///
    /// # Errors
    /// `bad_count`, `bad_volume` or `bad_amount`.
    pub fn check_settled(&self, settled: &Settled) -> Result<(), Refusal> {
        if settled.count > self.planned {
            return Err(Refusal::new(
                Code::BadCount,
                format!(
                    "{} quanta are more than the {} planned",
                    settled.count, self.planned
                ),
            ));
        }
        let paid = self.price.bytes(settled.count).unwrap_or(0);
        if settled.volume > paid {
            return Err(Refusal::new(
                Code::BadVolume,
                format!(
                    "volume {} exceeds the {paid} bytes that were paid for",
                    settled.volume
                ),
            ));
        }
        if self.price.cost(settled.count) != Some(settled.tokens) {
            return Err(Refusal::new(
                Code::BadAmount,
                "tokens are not price times count",
            ));
        }
        Ok(())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<KeyHash> for Vec<KeyHash> {
    fn from(hash: KeyHash) -> Vec<KeyHash> {
        vec![hash]
    }
}
