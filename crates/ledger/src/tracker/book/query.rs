//! Questions (wallet tracker, sections 8.9 to 8.12), answered as of a time that may be later than the
//! newest block's: what is past its lock by then counts as expired, though nothing was recorded yet.

use std::sync::Arc;

use super::{Account, Book, History, OpenChannel, Rank, is_past, is_remembered};
use crate::{
    block::BlockTime,
    tracker::{
        Address, AddressKind, Channel, Code, IndexKey, KeyHash, Park, Price, Refusal, Settled,
        entry::request_key,
    },
};

/// The state of an open spend or income address (section 8.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// The address.
    pub address: Arc<str>,
    /// A spend address; else income.
    pub spend: bool,
    /// Whose it is.
    pub owner: KeyHash,
    /// Tokens on it.
    pub amount: u64,
    /// Bytes paid for in closed channels.
    pub quantum_volume: u64,
    /// Bytes moved in closed channels.
    pub volume: u64,
    /// Tokens that are free to promise; on an income address what it has and could get.
    pub limit_amount: u64,
    /// Bytes paid for, and those that open channels could pay for.
    pub limit_quantum_volume: u64,
    /// The most a contract may offer, or the least it may take.
    pub price: Price,
    /// Usable up to this time.
    pub timelock: u64,
}

/// The state of a transfer channel (section 8.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// No such channel known here.
    Unknown,
    /// Open.
    Open,
    /// Closed, by the peers or by its lock.
    Closed,
}

/// The state of a common address (section 8.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommonState {
    /// Tokens from closed channels, not paid out yet.
    pub fact: u64,
    /// The most that open channels could pay.
    pub plan: u64,
    /// Tokens paid out.
    pub profit: u64,
}

/// What a key has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Its spend addresses.
    pub spends: Vec<Arc<str>>,
    /// Its income addresses.
    pub incomes: Vec<Arc<str>>,
    /// The channels in which it pays or is paid.
    pub channels: Vec<Arc<str>>,
}

impl ChannelState {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            ChannelState::Unknown => 1,
            ChannelState::Open => 2,
            ChannelState::Closed => 4,
        }
    }
}

impl Book {
    /// Whether an idempotent request of this key with this token was done and is still remembered (section
    /// 17.5): asked again, it gets its old reply, or is refused if it is another request.
    pub fn has_done(
        &self,
        signer: &KeyHash,
        correlation: &str,
        now: BlockTime,
        history: &dyn History,
    ) -> bool {
        let name = request_key(signer, correlation);
        let first = self.newest(IndexKey::Request(name), history);
        first.is_some_and(|entry| is_remembered(&entry, now))
    }

    /// The state of a spend or income address.
    ///
    /// # Errors
    /// `bad_address`, `not_found`, `already_closed` or `expired`.
    pub fn address_state(
        &self,
        address: &Address,
        now: BlockTime,
        history: &dyn History,
    ) -> Result<AddressState, Refusal> {
        if address.kind() == AddressKind::Common {
            return Err(Refusal::new(Code::BadAddress, "an address of another kind"));
        }
        let Some(account) = self.accounts.get(address.as_str()) else {
            return Err(self.closed(address, history));
        };
        if is_past(account.timelock, now) {
            return Err(Refusal::new(Code::Expired, "the address's lock has passed"));
        }
        Ok(self.state_of(address.text(), account, now))
    }

    fn state_of(&self, address: &Arc<str>, account: &Account, now: BlockTime) -> AddressState {
        let spend = Rank::of_account(address) == Rank::Spend;
        let mut state = AddressState {
            address: address.clone(),
            spend,
            owner: account.owner,
            amount: account.balance,
            quantum_volume: account.paid,
            volume: account.volume,
            limit_amount: 0,
            limit_quantum_volume: 0,
            price: account.price,
            timelock: account.timelock,
        };
        let (mut promised, mut bytes) = (account.promised, account.promised_bytes);
        for open in self.unswept(account, now) {
            let contract = &open.channel.contract;
            promised = promised.saturating_sub(contract.cost());
            bytes = bytes.saturating_sub(contract.bytes());
            let settled = open.parked.unwrap_or_default();
            state.amount = if spend {
                state.amount.saturating_sub(settled.tokens)
            } else {
                state.amount.saturating_add(settled.tokens)
            };
            let paid = contract.price.bytes(settled.count).unwrap_or(0);
            state.quantum_volume = state.quantum_volume.saturating_add(paid);
            state.volume = state.volume.saturating_add(settled.volume);
        }
        state.limit_amount = if spend {
            state.amount.saturating_sub(promised)
        } else {
            state.amount.saturating_add(promised)
        };
        state.limit_quantum_volume = state.quantum_volume.saturating_add(bytes);
        state
    }

    /// The channels on an account whose lock passed, and that are still to be closed.
    fn unswept(&self, account: &Account, now: BlockTime) -> impl Iterator<Item = &OpenChannel> {
        let due = self
            .first_lock(Rank::Transfer)
            .is_some_and(|lock| is_past(lock, now));
        account
            .channels
            .iter()
            .filter(move |_| due)
            .filter_map(|id| self.channels.get(id))
            .filter(move |open| is_past(open.channel.timelock, now))
    }

    /// The state of a transfer channel.
    pub fn channel_state(&self, id: &str, now: BlockTime, history: &dyn History) -> ChannelState {
        if let Some(open) = self.channels.get(id) {
            return if is_past(open.channel.timelock, now) {
                ChannelState::Closed
            } else {
                ChannelState::Open
            };
        }
        // An address is no channel, though both are looked up by name.
        match self.newest(IndexKey::Object(id), history) {
            Some(entry) if entry.channel(id).is_some() => ChannelState::Closed,
            _ => ChannelState::Unknown,
        }
    }

    /// The state of a common address; all zeros for one that nobody ever paid. The tracker's own holds
    /// its wallet.
    ///
    /// # Errors
    /// `bad_address` for other kinds.
    pub fn common_state(
        &self,
        address: &Address,
        now: BlockTime,
        history: &dyn History,
    ) -> Result<CommonState, Refusal> {
        if address.kind() != AddressKind::Common {
            return Err(Refusal::new(Code::BadAddress, "invalid common address"));
        }
        if let Some(terms) = &self.terms
            && *terms.wallet == *address.as_str()
        {
            return Ok(CommonState {
                fact: u64::try_from(self.sums.wallet).unwrap_or(u64::MAX),
                ..CommonState::default()
            });
        }
        let common = self.common_of(address.as_str(), history);
        let mut state = CommonState {
            fact: common.fact,
            plan: common.plan,
            profit: common.profit,
        };
        if common.channels > 0 {
            let from = (Rank::Transfer, 0, Arc::from(""));
            let due = self
                .locks
                .range(from..)
                .take_while(|(rank, lock, _)| *rank == Rank::Transfer && is_past(*lock, now))
                .filter_map(|(_, _, id)| self.channels.get(id))
                .filter(|open| *open.channel.contract.to == *address.as_str());
            for open in due {
                let settled = open.parked.unwrap_or_default();
                state.plan = state.plan.saturating_sub(open.channel.contract.cost());
                state.fact = state.fact.saturating_add(settled.tokens);
            }
        }
        Ok(state)
    }

    /// What a key has open at `now`.
    pub fn owned(&self, owner: KeyHash, now: BlockTime) -> Owned {
        let addresses = |rank| {
            let names = self.owned_of(owner, rank);
            let open = |name: &&Arc<str>| {
                let account = self.accounts.get(*name);
                account.is_some_and(|account| !is_past(account.timelock, now))
            };
            names.filter(open).cloned().collect()
        };
        let channels = self.owned_of(owner, Rank::Transfer);
        let open = |name: &&Arc<str>| self.open_channel(name, now).is_some();
        Owned {
            spends: addresses(Rank::Spend),
            incomes: addresses(Rank::Income),
            channels: channels.filter(open).cloned().collect(),
        }
    }

    /// An open transfer channel.
    pub fn open_channel(&self, id: &str, now: BlockTime) -> Option<&Channel> {
        let open = self.channels.get(id)?;
        (!is_past(open.channel.timelock, now)).then_some(&open.channel)
    }

    /// The receipt that is deposited for an open channel.
    pub fn parked(&self, id: &str, now: BlockTime) -> Option<Park> {
        let channel = self.open_channel(id, now)?.clone();
        let settled: Settled = self.channels.get(id)?.parked?;
        Some(Park { channel, settled })
    }

    /// The open channels of a spend or income address.
    pub fn channels_on(&self, address: &str, now: BlockTime) -> Vec<Arc<str>> {
        let Some(account) = self.accounts.get(address) else {
            return Vec::new();
        };
        let open = |id: &&Arc<str>| self.open_channel(id, now).is_some();
        account.channels.iter().filter(open).cloned().collect()
    }

    /// Everything that comes to its lock after `after` and by `until`, oldest lock first: addresses and
    /// channel ids, for reminders. At most `max`.
    pub fn locking(&self, after: BlockTime, until: BlockTime, max: usize) -> Vec<(u64, Arc<str>)> {
        let mut found: Vec<(u64, Arc<str>)> = Vec::new();
        for rank in [Rank::Transfer, Rank::Income, Rank::Spend] {
            let from = (rank, after.0.saturating_add(1), Arc::from(""));
            let due = self
                .locks
                .range(from..)
                .take_while(|(other, lock, _)| *other == rank && *lock <= until.0)
                .take(max);
            found.extend(due.map(|(_, lock, name)| (*lock, name.clone())));
        }
        found.sort_unstable();
        found.truncate(max);
        found
    }
}
