//! Records: the lines of the tracker's log (wallet tracker, section 12).

use std::sync::Arc;

use super::{Contract, KeyHash, Price, Settings, Settled, text::Writer};
use crate::{PublicKey, TransactionId, canonical::write_string};

/// The kind of a record. Closing income and spend addresses is numbered the other way round than the
/// commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordType {
    /// Tokens come to the tracker's wallet.
    Init,
    /// An income address opens.
    OpenIncome,
    /// A spend address opens.
    OpenSpend,
    /// A transfer channel opens.
    OpenTransfer,
    /// A transfer channel closes.
    CloseTransfer,
    /// A spend address closes.
    CloseSpend,
    /// An income address closes.
    CloseIncome,
    /// Earnings leave.
    Payout,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log: 1 for the first, without gaps.
    pub seq: u64,
    /// `tx_id`: unique.
    pub id: Arc<str>,
    /// Milliseconds since 1970: the time of its block.
    pub timestamp: u64,
    /// Where tokens come from; empty when from outside.
    pub from: Arc<str>,
    /// Where tokens go to; empty when outside.
    pub to: Arc<str>,
    /// What happened.
    pub fact: Fact,
}

/// What a record says. Closing facts repeat what later questions need, because only open things are kept
/// in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// So many tokens came to the wallet.
    Init {
        /// Tokens.
        amount: u64,
    },
    /// An address opened: income, or spend with a grant.
    OpenAddress(Opening),
    /// A channel opened.
    OpenTransfer(Channel),
    /// A channel closed.
    CloseTransfer {
        /// The channel as it was opened.
        channel: Channel,
        /// What was paid.
        settled: Settled,
        /// Why.
        cause: Cause,
    },
    /// An address closed.
    CloseAddress(Closing),
    /// Earnings left.
    Payout(Paid),
}

/// An address at its opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// A spend address; else income.
    pub spend: bool,
    /// Tokens granted; 0 for income.
    pub amount: u64,
    /// Whose it is.
    pub owner: KeyHash,
    /// The most a contract may offer, or the least it may take.
    pub price: Price,
    /// Usable up to this time.
    pub timelock: u64,
    /// The time in the address's derivation: that of the record, or a little later where the owner
    /// opened several at once.
    pub derived: u64,
}

/// A transfer channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What both signed.
    pub contract: Contract,
    /// Who pays.
    pub payer: KeyHash,
    /// Who signed as payee.
    pub payee: KeyHash,
    /// When it opened.
    pub opened: u64,
    /// Usable up to this time.
    pub timelock: u64,
    /// `tx_id` of the opening record.
    pub open_id: Arc<str>,
    /// What was paid out of the common address that it pays, so far; `None` if it pays an income address.
    pub profit: Option<u64>,
}

/// An address at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// A spend address; else income.
    pub spend: bool,
    /// Tokens that return to the wallet.
    pub amount: u64,
    /// Whose it was.
    pub owner: KeyHash,
    /// Bytes that were paid for.
    pub quantum_volume: u64,
    /// Bytes that moved.
    pub volume: u64,
    /// `tx_id` of the opening record.
    pub open_id: Arc<str>,
    /// Why.
    pub cause: Cause,
}

/// A payout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The common address.
    pub address: Arc<str>,
    /// Who asked.
    pub owner: KeyHash,
    /// Who was paid.
    pub pay_to: PublicKey,
    /// Tokens.
    pub amount: u64,
    /// What the address still holds.
    pub fact: u64,
    /// What was paid out of it, this included.
    pub profit: u64,
    /// The TRANSFER that paid.
    pub transfer: TransactionId,
}

/// Why something closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Those who opened it closed it.
    Peers,
    /// Its lock passed.
    Expiry,
    /// Its lock passed, and the receipt that was deposited was executed.
    Parked,
}

impl RecordType {
    /// `tx_type`.
    pub const fn code(self) -> u8 {
        match self {
            RecordType::Init => 1,
            RecordType::OpenIncome => 2,
            RecordType::OpenSpend => 4,
            RecordType::OpenTransfer => 8,
            RecordType::CloseTransfer => 16,
            RecordType::CloseSpend => 32,
            RecordType::CloseIncome => 64,
            RecordType::Payout => 128,
        }
    }

    /// The name in section 12.
    pub const fn name(self) -> &'static str {
        match self {
            RecordType::Init => "TX_INIT",
            RecordType::OpenIncome => "TX_OPEN_INCOME",
            RecordType::OpenSpend => "TX_OPEN_SPEND",
            RecordType::OpenTransfer => "TX_OPEN_TRANSFER",
            RecordType::CloseTransfer => "TX_CLOSE_TRANSFER",
            RecordType::CloseSpend => "TX_CLOSE_SPEND",
            RecordType::CloseIncome => "TX_CLOSE_INCOME",
            RecordType::Payout => "TX_FINANCIAL_BLOCK",
        }
    }
}

impl Cause {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Cause::Peers => "peers",
            Cause::Expiry => "expiry",
            Cause::Parked => "parked",
        }
    }
}

impl Record {
    /// Its kind.
    pub fn record_type(&self) -> RecordType {
        match &self.fact {
            Fact::Init { .. } => RecordType::Init,
            Fact::OpenAddress(opening) if opening.spend => RecordType::OpenSpend,
            Fact::OpenAddress(_) => RecordType::OpenIncome,
            Fact::OpenTransfer(_) => RecordType::OpenTransfer,
            Fact::CloseTransfer { .. } => RecordType::CloseTransfer,
            Fact::CloseAddress(closing) if closing.spend => RecordType::CloseSpend,
            Fact::CloseAddress(_) => RecordType::CloseIncome,
            Fact::Payout(_) => RecordType::Payout,
        }
    }

    /// `tx_id` of the record that opened what this one closes; empty for others.
    pub fn parent_id(&self) -> &str {
        match &self.fact {
            Fact::CloseTransfer { channel, .. } => &channel.open_id,
            Fact::CloseAddress(closing) => &closing.open_id,
            _ => "",
        }
    }

    /// The tokens that it moves.
    pub fn amount(&self) -> u64 {
        match &self.fact {
            Fact::Init { amount } => *amount,
            Fact::OpenAddress(opening) => opening.amount,
            Fact::OpenTransfer(_) => 0,
            Fact::CloseTransfer { settled, .. } => settled.tokens,
            Fact::CloseAddress(closing) => closing.amount,
            Fact::Payout(paid) => paid.amount,
        }
    }

    /// The channel that it is about.
    pub fn channel(&self) -> Option<&Channel> {
        match &self.fact {
            Fact::OpenTransfer(channel) | Fact::CloseTransfer { channel, .. } => Some(channel),
            _ => None,
        }
    }

    /// The keys that it concerns.
    pub fn owners(&self) -> impl Iterator<Item = KeyHash> {
        let (first, second) = match &self.fact {
            Fact::Init { .. } => (None, None),
            Fact::OpenAddress(opening) => (Some(opening.owner), None),
            Fact::CloseAddress(closing) => (Some(closing.owner), None),
            Fact::Payout(paid) => (Some(paid.owner), None),
            Fact::OpenTransfer(channel) | Fact::CloseTransfer { channel, .. } => {
                (Some(channel.payer), Some(channel.payee))
            }
        };
        first.into_iter().chain(second)
    }

    /// The item of a listing without its signature: compact, its members in the order that the
    /// signature covers. `pk` is that of the tracker's first key.
    pub fn listing(&self, settings: &Settings) -> String {
        let zero = Price::default();
        let (price, planned, count, volume) = match &self.fact {
            Fact::Init { .. } | Fact::Payout(_) => (zero, 0, 0, 0),
            Fact::OpenAddress(opening) => (opening.price, 0, 0, 0),
            Fact::OpenTransfer(channel) => (channel.contract.price, channel.contract.planned, 0, 0),
            Fact::CloseTransfer {
                channel, settled, ..
            } => (
                channel.contract.price,
                channel.contract.planned,
                settled.count,
                settled.volume,
            ),
            Fact::CloseAddress(closing) => (zero, 0, 0, closing.volume),
        };
        let timelock = match &self.fact {
            Fact::OpenAddress(opening) => opening.timelock,
            Fact::OpenTransfer(channel) => channel.timelock,
            _ => 0,
        };
        let channel = self
            .channel()
            .map_or("", |channel| &channel.contract.channel);
        let mut out = Writer::new();
        out.number("amount", self.amount());
        out.string("contract_id", channel);
        out.string("from", &self.from);
        out.string("tx_id", &self.id);
        out.string("parent_tx_id", self.parent_id());
        out.number("planned_quantum_count", planned);
        out.number("price_amount", price.amount);
        out.number("price_quantum_power", u64::from(price.power));
        out.string("pk", &settings.pem);
        out.number("quantum_count", count);
        out.number("status", 1);
        out.number("timelock", timelock);
        out.number("timestamp", self.timestamp);
        out.string("to", &self.to);
        out.number("tx_type", u64::from(self.record_type().code()));
        out.string("version", "");
        out.number("volume", volume);
        out.finish()
    }

    /// The signed item of a listing: what [`Record::listing`] gives with `sign`, and the amounts once
    /// more as text, because numbers above 2⁵³ lose digits in JavaScript. Those are not signed.
    pub fn listed(&self, unsigned: &str, signature: &str) -> String {
        let price = match &self.fact {
            Fact::OpenAddress(opening) => opening.price.amount,
            Fact::OpenTransfer(channel) | Fact::CloseTransfer { channel, .. } => {
                channel.contract.price.amount
            }
            _ => 0,
        };
        let mut out = unsigned.strip_suffix('}').unwrap_or(unsigned).to_owned();
        out.push_str(",\"sign\":");
        write_string(&mut out, signature);
        out.push_str(&format!(
            ",\"amount_str\":\"{}\",\"price_amount_str\":\"{price}\"}}",
            self.amount()
        ));
        out
    }
}
