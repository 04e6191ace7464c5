//! The tracker's state, and the only way it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{
    AddressKind, Channel, Code, Entry, Fresh, IndexKey, KeyHash, Price, Refusal, Settings,
    SettingsError, Settled,
};
use crate::{
    Amount, Lock, OutputRef, Transaction,
    block::{BlockTime, Height},
};

mod decide;
mod fold;
mod nonces;
mod payout;
mod query;
mod snapshot;
mod sweep;

pub use nonces::Nonces;
pub use payout::PayoutPlan;
pub use query::{AddressState, ChannelState, CommonState, Owned};
pub use snapshot::MalformedBook;

/// Open spend and income addresses of one tracker: 300 bytes each, 600 MB at the most.
const OPEN_ADDRESSES_MAX: usize = 2_000_000;

/// Open transfer channels of one tracker: 600 bytes each, 1.2 GB at the most.
const OPEN_TRANSFERS_MAX: usize = 2_000_000;

/// Common addresses that something is owed to or on its way to: 150 bytes each, 600 MB at the most. What
/// is owed is paid out when its owner asks, which may be never.
const COMMONS_MAX: usize = 4_000_000;

/// How far the time in an address's derivation may run ahead of the ledger's, because each of one key's
/// addresses takes another millisecond. Beyond it the key has opened more than one a millisecond for a
/// whole second.
const DERIVED_AHEAD_MS_MAX: u64 = 1_000;

/// How long an idempotent request is remembered: 24 hours (section 17.5).
const IDEMPOTENT_MS: u64 = 24 * 3_600_000;

/// How long a nonce is remembered: 10 minutes (section 17.2).
pub(super) const NONCE_MS: u64 = 600_000;

/// How far a message's time may be from the ledger's: 5 minutes (section 17.2).
pub(super) const FRESH_MS: u64 = 300_000;

/// Nonces of one tracker that are remembered at a time: 40 bytes each. That many in ten minutes are
/// 1,700 commands a second.
const NONCES_MAX: usize = 1 << 20;

/// Closed objects and idempotent requests, from disk: memory holds only what is open.
pub trait History {
    /// The newest committed entry that has the key.
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>>;
}

/// What a command leads to.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made, and never kept"
)]
#[derive(Clone, Debug)]
pub enum Decision {
    /// A new entry: record it and put it into the block.
    Entry(Entry),
    /// Success, and nothing is written: the entry that repeats what the first time said.
    Repeat(Arc<Entry>),
    /// Success, if this TRANSFER is made.
    Payout(PayoutPlan),
}

/// What an asset transaction means for the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// Nothing.
    Nothing,
    /// It brings tokens: an entry of [`Book::deposit`] must follow it.
    Deposit {
        /// How many.
        amount: u128,
    },
    /// It spends outputs that back the tracker's balances: refused unless it is a payout's.
    Spends,
}

/// An invariant that does not hold: the node must stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `E1` to `E11` (section 10), or `backing`.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// The tracker's state after some entry.
///
/// Only [`Book::record`] changes it. Memory holds what is open, what is owed, and sums; what is closed
/// is read from [`History`] and, as long as that may not show it yet, from a short memory of its own.
#[derive(Clone, Default)]
pub struct Book {
    terms: Option<Terms>,
    /// How many settings there were.
    revision: u64,
    /// The newest record's number.
    sequence: u64,
    /// The newest entry's time.
    time: u64,
    /// Open spend and income addresses.
    accounts: BTreeMap<Arc<str>, Account>,
    /// Common addresses that something is owed to, or could be.
    commons: BTreeMap<Arc<str>, Common>,
    /// Open transfer channels by id.
    channels: BTreeMap<Arc<str>, OpenChannel>,
    /// What is open, by key.
    owned: BTreeSet<(KeyHash, Rank, Arc<str>)>,
    /// What is open, by kind and lock: transfers first.
    locks: BTreeSet<(Rank, u64, Arc<str>)>,
    /// The newest time in a derivation, by key and kind, as long as it is not past.
    derived: BTreeMap<(KeyHash, Rank), u64>,
    /// The outputs that back all balances.
    holdings: payout::Holdings,
    nonces: nonces::NonceSet,
    sums: Sums,
    recent: Recent,
}

/// Settings, and what follows from them.
#[derive(Clone)]
struct Terms {
    settings: Settings,
    /// The tracker's common address.
    wallet: Arc<str>,
    /// Tails of all common addresses that the tracker's keys derive: none of them may be paid.
    own_tails: BTreeSet<[u8; 28]>,
    /// The lock of outputs that back the wallet.
    lock: Lock,
}

/// What closes first when several locks pass at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Transfer,
    Income,
    Spend,
}

/// An open spend or income address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    owner: KeyHash,
    price: Price,
    timelock: u64,
    /// `tx_id` of the opening record.
    open_id: Arc<str>,
    /// Tokens on it.
    balance: u64,
    /// Tokens that its open channels could move: away from a spend address, onto an income address.
    promised: u64,
    /// Bytes paid for in closed channels.
    paid: u64,
    /// Bytes that its open channels could pay for.
    promised_bytes: u64,
    /// Bytes moved in closed channels.
    volume: u64,
    /// Its open channels.
    channels: BTreeSet<Arc<str>>,
}

/// A common address with something on it or on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Common {
    fact: u64,
    plan: u64,
    profit: u64,
    /// Open channels that pay it.
    channels: u64,
}

/// An open transfer channel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenChannel {
    channel: Channel,
    /// The best receipt that was deposited.
    parked: Option<Settled>,
}

/// Running sums, for invariants over everything that ever was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// W.
    wallet: u128,
    /// Balances of open spend addresses.
    spend: u128,
    /// Balances of open income addresses.
    income: u128,
    /// Owed to common addresses.
    fact: u128,
    /// Paid out.
    profit: u128,
    /// All that came in.
    minted: u128,
    /// Bytes paid for, over all addresses ever.
    paid: Mirror,
    /// Bytes moved, over all addresses ever.
    volume: Mirror,
    /// The same over closed addresses only.
    closed_paid: Mirror,
    /// The same over closed addresses only.
    closed_volume: Mirror,
}

/// The two sides of E8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mirror {
    spend: u128,
    income: u128,
    common: u128,
}

/// What readers of [`History`] may not see yet.
#[derive(Clone, Default)]
struct Recent {
    entries: BTreeMap<Height, Vec<Entry>>,
    objects: BTreeMap<Arc<str>, (Height, Entry)>,
    requests: BTreeMap<[u8; 32], (Height, Entry)>,
}

impl Rank {
    fn of_kind(kind: AddressKind) -> Rank {
        match kind {
            AddressKind::Spend => Rank::Spend,
            AddressKind::Income | AddressKind::Common => Rank::Income,
        }
    }

    /// The kind of an account's address.
    fn of_account(address: &str) -> Rank {
        AddressKind::of(address).map_or(Rank::Income, Rank::of_kind)
    }
}

/// Whether it is past its lock (section 6): usable while `now ≤ timelock`.
fn is_past(timelock: u64, now: BlockTime) -> bool {
    now.0 > timelock
}

/// Whether an idempotent request that led to this entry is still answered as the first time.
fn is_remembered(entry: &Entry, now: BlockTime) -> bool {
    now.0 <= entry.time().0.saturating_add(IDEMPOTENT_MS)
}

impl Book {
    /// The settings; `None` until the first settings entry: the tracker is not open.
    pub fn settings(&self) -> Option<&Settings> {
        self.terms.as_ref().map(|terms| &terms.settings)
    }

    /// The number of the newest record; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The tokens in the tracker's wallet (W).
    pub fn wallet(&self) -> u128 {
        self.sums.wallet
    }

    /// The units that back all balances: those of the outputs that the tracker holds.
    pub fn held(&self) -> u128 {
        self.holdings.total()
    }

    /// The outputs that back all balances, oldest first.
    pub fn holdings(&self) -> impl Iterator<Item = (OutputRef, u64)> {
        self.holdings.iter()
    }

    /// How many things are open: addresses, and transfer channels.
    pub fn open_counts(&self) -> (usize, usize) {
        (self.accounts.len(), self.channels.len())
    }

    /// Whether these settings may follow the present ones.
    ///
    /// # Errors
    /// [`SettingsError`] for what is out of range, or would change the tracker's identity.
    pub fn check_settings(&self, settings: &Settings) -> Result<(), SettingsError> {
        settings.check()?;
        match self.settings() {
            Some(present) => present.check_change(settings),
            None => Ok(()),
        }
    }

    /// The entry that puts `settings` into force; `None` when nothing changes, or when
    /// [`Book::check_settings`] refuses them.
    pub fn configure(&self, settings: Settings, at: BlockTime) -> Option<Entry> {
        if self.settings() == Some(&settings) || self.check_settings(&settings).is_err() {
            return None;
        }
        let body = super::entry::Body::Settings {
            settings,
            revision: self.revision.saturating_add(1),
        };
        Some(Entry::new(at, body, Vec::new()))
    }

    /// What an asset transaction means for the tracker; cheap for those that do not move its token.
    pub fn meets(&self, transaction: &Transaction) -> Meets {
        let Some(terms) = &self.terms else {
            return Meets::Nothing;
        };
        let token = terms.settings.token;
        let moves = transaction.consumed_assets().contains(&token);
        if moves {
            let mut spent = transaction.inputs().iter().filter_map(|input| input.spends);
            if spent.any(|output| self.holdings.contains(&output)) {
                return Meets::Spends;
            }
        }
        if !moves && transaction.asset() != token {
            return Meets::Nothing;
        }
        let amount = terms
            .backing(transaction)
            .fold(0u128, |sum, (_, amount)| sum.saturating_add(amount.into()));
        if amount == 0 {
            Meets::Nothing
        } else {
            Meets::Deposit { amount }
        }
    }

    /// The first member of a list of open things past its lock comes due at this time.
    pub fn next_due(&self) -> Option<BlockTime> {
        [Rank::Transfer, Rank::Income, Rank::Spend]
            .into_iter()
            .filter_map(|rank| self.first_lock(rank))
            .min()
            .map(|lock| BlockTime(lock.saturating_add(1)))
    }

    fn first_lock(&self, rank: Rank) -> Option<u64> {
        let from = (rank, 0, Arc::from(""));
        let first = self.locks.range(from..).next()?;
        (first.0 == rank).then_some(first.1)
    }

    /// Checks what makes a version 2 query new: its time, and that no command used its nonce. Queries
    /// leave no trace in the book; [`Nonces`] remembers theirs.
    ///
    /// # Errors
    /// `stale` or `replayed`.
    pub fn admit(&self, signer: &KeyHash, fresh: &Fresh, now: BlockTime) -> Result<(), Refusal> {
        nonces::check_time(fresh, now)?;
        if self.nonces.contains(signer, &fresh.nonce, now) {
            return Err(nonces::replayed());
        }
        Ok(())
    }

    /// The newest entry with a key: from memory while history may not show it, else from history.
    fn newest(&self, key: IndexKey<'_>, history: &dyn History) -> Option<Arc<Entry>> {
        let recent = match key {
            IndexKey::Object(name) => self.recent.objects.get(name),
            IndexKey::Request(name) => self.recent.requests.get(&name),
            _ => None,
        };
        match recent {
            Some((_, entry)) => Some(Arc::new(entry.clone())),
            None => history.newest(key),
        }
    }

    fn terms(&self) -> Result<&Terms, Refusal> {
        self.terms
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Internal, "the tracker is not open yet"))
    }
}

impl Terms {
    fn new(settings: Settings) -> Terms {
        let own_tails = settings
            .keys
            .iter()
            .flat_map(|pem| {
                // Whatever ends the last line, it is the tracker's own wallet.
                let bare = pem.trim_end_matches(['\r', '\n']).to_owned();
                [
                    pem.clone(),
                    format!("{bare}\n"),
                    format!("{bare}\r\n"),
                    bare,
                ]
            })
            .map(|pem| *super::Address::common(&pem).tail())
            .collect();
        Terms {
            wallet: settings.wallet().text().clone(),
            own_tails,
            lock: settings.lock(),
            settings,
        }
    }

    /// The outputs of `transaction` that back the wallet.
    fn backing(&self, transaction: &Transaction) -> impl Iterator<Item = (u32, u64)> {
        (0..)
            .zip(transaction.outputs())
            .filter(|(_, output)| output.lock == self.lock)
            .map(|(index, output)| (index, Amount::units(output.amount)))
    }
}

impl Violation {
    fn new(invariant: &'static str, detail: impl Into<String>) -> Violation {
        Violation {
            invariant,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.detail)
    }
}

impl std::error::Error for Violation {}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book")
            .field("sequence", &self.sequence)
            .field("sums", &self.sums)
            .finish_non_exhaustive()
    }
}
