//! Recording entries: the only way a book changes, and the invariants of section 10.
//!
//! The fold trusts no entry. Every record is checked against the state it changes, and the sums after
//! it, so that a fault of ours, or of a disk, stops the node instead of moving money.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{
    Account, Book, Common, Height, KeyHash, Mirror, OpenChannel, Rank, Recent, Sums, Terms,
    Violation,
};
use crate::{
    OutputRef,
    tracker::{
        AddressKind, Cause, Channel, Closing, Entry, EntryKind, Fact, Opening, PRODUCT_MAX, Paid,
        Record, Settled, entry::Body,
    },
};

type Checked<T = ()> = Result<T, Violation>;

fn ensure(holds: bool, invariant: &'static str, what: impl Fn() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(invariant, what()))
    }
}

/// A checked sum of 64 bits.
fn more(sum: u64, by: u64, invariant: &'static str) -> Checked<u64> {
    sum.checked_add(by)
        .ok_or_else(|| Violation::new(invariant, format!("{sum} + {by} exceeds 64 bits")))
}

/// A checked difference of 64 bits.
fn less(sum: u64, by: u64, invariant: &'static str) -> Checked<u64> {
    sum.checked_sub(by)
        .ok_or_else(|| Violation::new(invariant, format!("{sum} - {by} is below zero")))
}

/// A checked sum of everything.
fn raise(sum: &mut u128, by: u64, invariant: &'static str) -> Checked {
    *sum = sum
        .checked_add(by.into())
        .ok_or_else(|| Violation::new(invariant, format!("{sum} + {by} exceeds 128 bits")))?;
    Ok(())
}

/// A checked difference of everything.
fn lower(sum: &mut u128, by: u64, invariant: &'static str) -> Checked {
    *sum = sum
        .checked_sub(by.into())
        .ok_or_else(|| Violation::new(invariant, format!("{sum} - {by} is below zero")))?;
    Ok(())
}

impl Book {
    /// Folds in an entry of the block at `height`. After an error the book is of no more use.
    ///
    /// # Errors
    /// The invariant that does not hold. An entry that [`Book::decide`], [`Book::due`],
    /// [`Book::configure`] or [`Book::deposit`] made on this very state gives none.
    pub fn record(&mut self, entry: &Entry, height: Height) -> Result<(), Violation> {
        let time = entry.time().0;
        ensure(time >= self.time, "E11", || {
            format!("time went back from {} to {time}", self.time)
        })?;
        if time > self.time {
            self.time = time;
            self.derived.retain(|_, derived| *derived >= time);
            self.nonces.pass(time);
        }
        self.fold_body(entry)?;
        for record in entry.records() {
            ensure(may_hold(entry.kind(), &record.fact), "E11", || {
                format!("record {} in another kind of entry", record.seq)
            })?;
            self.fold_record(record, time)?;
        }
        self.check_sums()?;
        self.recent.remember(entry, height);
        Ok(())
    }

    /// Drops what readers of history can see, now that they see the block at `through`.
    pub fn forget(&mut self, through: Height) {
        self.recent.forget(through);
    }

    fn fold_body(&mut self, entry: &Entry) -> Checked {
        if let Some(mark) = entry.mark()
            && let Some(nonce) = &mark.nonce
        {
            self.nonces.add(&mark.signer, nonce, self.time);
        }
        match entry.body() {
            Body::Command { park, .. } => {
                if let Some(park) = park {
                    self.fold_park(&park.channel, &park.settled)?;
                }
            }
            Body::Expiry => {}
            Body::Settings { settings, revision } => {
                let follows = self.revision.checked_add(1) == Some(*revision);
                ensure(
                    follows && self.check_settings(settings).is_ok(),
                    "E11",
                    || format!("settings {revision} do not follow {}", self.revision),
                )?;
                self.revision = *revision;
                self.terms = Some(Terms::new(settings.clone()));
            }
            Body::Deposit {
                transaction,
                outputs,
            } => {
                for (index, amount) in outputs {
                    let output = OutputRef {
                        transaction: *transaction,
                        index: *index,
                    };
                    ensure(self.holdings.add(output, *amount), "backing", || {
                        format!("output {index} of {transaction} came twice")
                    })?;
                }
            }
            Body::Payout { spent, change, .. } => {
                for output in spent {
                    ensure(self.holdings.spend(output).is_some(), "backing", || {
                        format!("output {output:?} is spent but was not held")
                    })?;
                }
                if let (Some((index, amount)), Some(transaction)) = (change, entry.transfer()) {
                    let output = OutputRef {
                        transaction,
                        index: *index,
                    };
                    ensure(self.holdings.add(output, *amount), "backing", || {
                        format!("output {index} of {transaction} came twice")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn fold_park(&mut self, channel: &Channel, settled: &Settled) -> Checked {
        let id = &channel.contract.channel;
        check_settled(channel, settled)?;
        let time = self.time;
        let Some(open) = self.channels.get_mut(id) else {
            return Err(Violation::new("E10", format!("{id} is not open")));
        };
        ensure(open.channel == *channel, "E10", || {
            format!("a receipt for another opening of {id}")
        })?;
        ensure(time <= channel.timelock, "E7", || {
            format!("a receipt for {id} after its lock")
        })?;
        open.parked = Some(*settled);
        Ok(())
    }

    fn fold_record(&mut self, record: &Record, time: u64) -> Checked {
        ensure(
            self.sequence.checked_add(1) == Some(record.seq) && record.timestamp == time,
            "E11",
            || format!("record {} does not follow {}", record.seq, self.sequence),
        )?;
        self.sequence = record.seq;
        match &record.fact {
            Fact::Init { amount } => {
                raise(&mut self.sums.wallet, *amount, "E1")?;
                raise(&mut self.sums.minted, *amount, "E1")
            }
            Fact::OpenAddress(opening) => self.fold_open_address(record, opening),
            Fact::OpenTransfer(channel) => self.fold_open_transfer(record, channel),
            Fact::CloseTransfer {
                channel,
                settled,
                cause,
            } => self.fold_close_transfer(record, channel, settled, *cause),
            Fact::CloseAddress(closing) => self.fold_close_address(record, closing),
            Fact::Payout(paid) => self.fold_payout(paid),
        }
    }

    fn fold_open_address(&mut self, record: &Record, opening: &Opening) -> Checked {
        let address = &record.to;
        let rank = if opening.spend {
            Rank::Spend
        } else {
            Rank::Income
        };
        let kind = if opening.spend {
            AddressKind::Spend
        } else {
            AddressKind::Income
        };
        ensure(
            AddressKind::of(address) == Some(kind) && !self.accounts.contains_key(address),
            "E10",
            || format!("{address} opens twice, or as another kind"),
        )?;
        ensure(opening.timelock >= record.timestamp, "E7", || {
            format!("{address} opens after its lock")
        })?;
        ensure(opening.spend || opening.amount == 0, "E1", || {
            format!("{address} is paid by its opening")
        })?;
        lower(&mut self.sums.wallet, opening.amount, "E2")?;
        raise(&mut self.sums.spend, opening.amount, "E1")?;
        self.accounts.insert(
            address.clone(),
            Account {
                owner: opening.owner,
                price: opening.price,
                timelock: opening.timelock,
                open_id: record.id.clone(),
                balance: opening.amount,
                promised: 0,
                paid: 0,
                promised_bytes: 0,
                volume: 0,
                channels: Default::default(),
            },
        );
        self.owned.insert((opening.owner, rank, address.clone()));
        self.locks.insert((rank, opening.timelock, address.clone()));
        if opening.derived >= self.time {
            let newest = self.derived.entry((opening.owner, rank)).or_default();
            *newest = opening.derived.max(*newest);
        }
        Ok(())
    }

    fn fold_open_transfer(&mut self, record: &Record, channel: &Channel) -> Checked {
        let contract = &channel.contract;
        let (id, cost, bytes) = (&contract.channel, contract.cost(), contract.bytes());
        ensure(contract.check().is_ok(), "E4", || {
            format!("{id} has terms that cannot be")
        })?;
        ensure(!self.channels.contains_key(id), "E10", || {
            format!("{id} opens twice")
        })?;
        ensure(
            AddressKind::of(&contract.from) == Some(AddressKind::Spend),
            "E10",
            || format!("{id} pays from no spend address"),
        )?;
        let spend = self.account_mut(&contract.from)?;
        ensure(spend.owner == channel.payer, "E10", || {
            format!("{id} spends what is another key's")
        })?;
        ensure(
            contract.price.compare(&spend.price) != Ordering::Greater,
            "E6",
            || format!("{id} is priced above its spend address"),
        )?;
        ensure(
            channel.timelock <= spend.timelock && channel.timelock >= record.timestamp,
            "E7",
            || format!("{id} outlives its spend address"),
        )?;
        spend.promise(id, cost, bytes)?;
        ensure(spend.promised <= spend.balance, "E3", || {
            format!("{id} promises more than its spend address holds")
        })?;
        if AddressKind::of(&contract.to) == Some(AddressKind::Income) {
            let income = self.account_mut(&contract.to)?;
            ensure(income.owner == channel.payee, "E10", || {
                format!("{id} pays what is another key's")
            })?;
            ensure(
                contract.price.compare(&income.price) != Ordering::Less,
                "E6",
                || format!("{id} is priced below its income address"),
            )?;
            ensure(channel.timelock <= income.timelock, "E7", || {
                format!("{id} outlives its income address")
            })?;
            ensure(channel.profit.is_none(), "E11", || {
                format!("{id} pays out of an income address")
            })?;
            income.promise(id, cost, bytes)?;
        } else {
            let profit = channel.profit.ok_or_else(|| {
                Violation::new("E11", format!("{id} does not know its wallet's profit"))
            })?;
            let common = self.commons.entry(contract.to.clone()).or_insert(Common {
                profit,
                ..Common::default()
            });
            ensure(common.profit == profit, "E11", || {
                format!("{id} tells another profit of {}", contract.to)
            })?;
            common.plan = more(common.plan, cost, "E2")?;
            common.channels = more(common.channels, 1, "E10")?;
            ensure(common.total().is_some(), "E2", || {
                format!("{} exceeds 64 bits", contract.to)
            })?;
        }
        for key in [channel.payer, channel.payee] {
            self.owned.insert((key, Rank::Transfer, id.clone()));
        }
        self.locks
            .insert((Rank::Transfer, channel.timelock, id.clone()));
        self.channels.insert(
            id.clone(),
            OpenChannel {
                channel: channel.clone(),
                parked: None,
            },
        );
        Ok(())
    }

    fn fold_close_transfer(
        &mut self,
        record: &Record,
        channel: &Channel,
        settled: &Settled,
        cause: Cause,
    ) -> Checked {
        let contract = &channel.contract;
        let id = &contract.channel;
        let Some(open) = self.channels.remove(id) else {
            return Err(Violation::new("E10", format!("{id} is not open")));
        };
        // A payout may have come in between.
        let same = Channel {
            profit: channel.profit,
            ..open.channel.clone()
        };
        ensure(
            same == *channel && open.channel.profit.is_some() == channel.profit.is_some(),
            "E10",
            || format!("the end of another opening of {id}"),
        )?;
        let past = record.timestamp > channel.timelock;
        ensure(past == (cause != Cause::Peers), "E7", || {
            format!("{id} is closed on the wrong side of its lock")
        })?;
        let expected = match cause {
            Cause::Peers => *settled,
            Cause::Expiry | Cause::Parked => open.parked.unwrap_or_default(),
        };
        ensure(
            expected == *settled && (cause != Cause::Parked || open.parked.is_some()),
            "E10",
            || format!("{id} expires with another payment"),
        )?;
        let paid = check_settled(channel, settled)?;
        self.locks
            .remove(&(Rank::Transfer, channel.timelock, id.clone()));
        for key in [channel.payer, channel.payee] {
            self.owned.remove(&(key, Rank::Transfer, id.clone()));
        }
        let (cost, bytes) = (contract.cost(), contract.bytes());
        let spend = self.account_mut(&contract.from)?;
        spend.release(id, cost, bytes)?;
        spend.balance = less(spend.balance, settled.tokens, "E3")?;
        spend.count(paid, settled.volume)?;
        ensure(spend.promised <= spend.balance, "E3", || {
            format!("{} promises more than it holds", contract.from)
        })?;
        lower(&mut self.sums.spend, settled.tokens, "E2")?;
        raise(&mut self.sums.paid.spend, paid, "E8")?;
        raise(&mut self.sums.volume.spend, settled.volume, "E8")?;
        if open.channel.profit.is_none() {
            let income = self.account_mut(&contract.to)?;
            income.release(id, cost, bytes)?;
            income.balance = more(income.balance, settled.tokens, "E2")?;
            income.count(paid, settled.volume)?;
            raise(&mut self.sums.income, settled.tokens, "E1")?;
            raise(&mut self.sums.paid.income, paid, "E8")?;
            raise(&mut self.sums.volume.income, settled.volume, "E8")?;
        } else {
            let Some(common) = self.commons.get_mut(&contract.to) else {
                return Err(Violation::new("E10", format!("{id} pays nobody")));
            };
            ensure(channel.profit == Some(common.profit), "E11", || {
                format!("{id} tells another profit of {}", contract.to)
            })?;
            common.plan = less(common.plan, cost, "E2")?;
            common.fact = more(common.fact, settled.tokens, "E2")?;
            common.channels = less(common.channels, 1, "E10")?;
            raise(&mut self.sums.fact, settled.tokens, "E1")?;
            raise(&mut self.sums.paid.common, paid, "E8")?;
            raise(&mut self.sums.volume.common, settled.volume, "E8")?;
            self.drop_common_if_idle(&contract.to);
        }
        Ok(())
    }

    fn fold_close_address(&mut self, record: &Record, closing: &Closing) -> Checked {
        let address = &record.from;
        let Some(account) = self.accounts.remove(address) else {
            return Err(Violation::new("E10", format!("{address} is not open")));
        };
        let spend = AddressKind::of(address) == Some(AddressKind::Spend);
        ensure(account.channels.is_empty(), "E9", || {
            format!("{address} closes with open channels")
        })?;
        ensure(
            closing.amount == account.balance
                && closing.quantum_volume == account.paid
                && closing.volume == account.volume,
            "E9",
            || format!("{address} closes with another balance"),
        )?;
        ensure(
            closing.spend == spend
                && closing.open_id == account.open_id
                && closing.owner == account.owner,
            "E10",
            || format!("the end of another opening of {address}"),
        )?;
        let past = record.timestamp > account.timelock;
        ensure(past == (closing.cause != Cause::Peers), "E7", || {
            format!("{address} is closed on the wrong side of its lock")
        })?;
        let rank = if spend { Rank::Spend } else { Rank::Income };
        self.owned.remove(&(account.owner, rank, address.clone()));
        self.locks
            .remove(&(rank, account.timelock, address.clone()));
        let sums = &mut self.sums;
        if spend {
            lower(&mut sums.spend, account.balance, "E2")?;
            raise(&mut sums.closed_paid.spend, account.paid, "E8")?;
            raise(&mut sums.closed_volume.spend, account.volume, "E8")?;
        } else {
            lower(&mut sums.income, account.balance, "E2")?;
            raise(&mut sums.closed_paid.income, account.paid, "E8")?;
            raise(&mut sums.closed_volume.income, account.volume, "E8")?;
        }
        raise(&mut sums.wallet, account.balance, "E1")
    }

    fn fold_payout(&mut self, paid: &Paid) -> Checked {
        let Some(common) = self.commons.get_mut(&paid.address) else {
            return Err(Violation::new(
                "E2",
                format!("{} has nothing to be paid out", paid.address),
            ));
        };
        common.fact = less(common.fact, paid.amount, "E2")?;
        common.profit = more(common.profit, paid.amount, "E2")?;
        ensure(
            common.fact == paid.fact && common.profit == paid.profit,
            "E11",
            || format!("a payout tells another state of {}", paid.address),
        )?;
        lower(&mut self.sums.fact, paid.amount, "E2")?;
        raise(&mut self.sums.profit, paid.amount, "E1")?;
        self.drop_common_if_idle(&paid.address);
        Ok(())
    }

    fn drop_common_if_idle(&mut self, address: &Arc<str>) {
        if self
            .commons
            .get(address)
            .is_some_and(|common| common.fact == 0 && common.channels == 0)
        {
            self.commons.remove(address);
        }
    }

    fn account_mut(&mut self, address: &Arc<str>) -> Checked<&mut Account> {
        self.accounts
            .get_mut(address)
            .ok_or_else(|| Violation::new("E10", format!("{address} is not open")))
    }

    /// What can be said about everything at once: E1, E8 and the backing of all balances.
    fn check_sums(&self) -> Checked {
        let sums = &self.sums;
        let held = sums.balances();
        let total = held.and_then(|held| held.checked_add(sums.profit));
        ensure(total == Some(sums.minted), "E1", || {
            format!("{total:?} tokens of {} minted", sums.minted)
        })?;
        ensure(held == Some(self.holdings.total()), "backing", || {
            format!("{held:?} tokens backed by {}", self.holdings.total())
        })?;
        ensure(sums.paid.is_even() && sums.volume.is_even(), "E8", || {
            format!("{:?} and {:?}", sums.paid, sums.volume)
        })
    }

    /// Checks every invariant over everything that is open: for a start and for tests.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn audit(&self) -> Result<(), Violation> {
        self.check_sums()?;
        let mut found = Sums {
            wallet: self.sums.wallet,
            profit: self.sums.profit,
            minted: self.sums.minted,
            closed_paid: self.sums.closed_paid,
            closed_volume: self.sums.closed_volume,
            paid: self.sums.closed_paid,
            volume: self.sums.closed_volume,
            ..Sums::default()
        };
        let mut locks = 0usize;
        for (address, account) in &self.accounts {
            let rank = Rank::of_account(address);
            self.audit_account(address, account)?;
            ensure(
                self.locks
                    .contains(&(rank, account.timelock, address.clone()))
                    && self.owned.contains(&(account.owner, rank, address.clone())),
                "E11",
                || format!("{address} is missing in a list"),
            )?;
            locks = locks.saturating_add(1);
            let (tokens, paid, volume) = if rank == Rank::Spend {
                (
                    &mut found.spend,
                    &mut found.paid.spend,
                    &mut found.volume.spend,
                )
            } else {
                (
                    &mut found.income,
                    &mut found.paid.income,
                    &mut found.volume.income,
                )
            };
            raise(tokens, account.balance, "E1")?;
            raise(paid, account.paid, "E8")?;
            raise(volume, account.volume, "E8")?;
        }
        // What common addresses were paid is not kept by address.
        found.paid.common = self.sums.paid.common;
        found.volume.common = self.sums.volume.common;
        let mut planned: BTreeMap<&Arc<str>, (u64, u64)> = BTreeMap::new();
        for open in self.channels.values() {
            if open.channel.profit.is_some() {
                let contract = &open.channel.contract;
                let (plan, channels) = planned.entry(&contract.to).or_default();
                *plan = more(*plan, contract.cost(), "E2")?;
                *channels = channels.saturating_add(1);
            }
        }
        for (address, common) in &self.commons {
            let planned = planned.get(address).copied().unwrap_or_default();
            ensure(planned == (common.plan, common.channels), "E2", || {
                format!("{address} plans {common:?} where {planned:?} is promised")
            })?;
            ensure(common.total().is_some(), "E2", || {
                format!("{address} exceeds 64 bits")
            })?;
            raise(&mut found.fact, common.fact, "E1")?;
        }
        for (id, open) in &self.channels {
            self.audit_channel(id, open)?;
            locks = locks.saturating_add(1);
        }
        ensure(locks == self.locks.len(), "E11", || {
            format!("{} locks on {locks} things", self.locks.len())
        })?;
        ensure(found == self.sums, "E1", || {
            format!("sums are {found:?}, not {:?}", self.sums)
        })
    }

    fn audit_account(&self, address: &Arc<str>, account: &Account) -> Checked {
        let (mut promised, mut bytes) = (0u64, 0u64);
        for id in &account.channels {
            let Some(open) = self.channels.get(id) else {
                return Err(Violation::new("E10", format!("{id} is not open")));
            };
            let contract = &open.channel.contract;
            ensure(
                contract.from == *address || contract.to == *address,
                "E10",
                || format!("{id} is not on {address}"),
            )?;
            promised = more(promised, contract.cost(), "E3")?;
            bytes = more(bytes, contract.bytes(), "E5")?;
            ensure(open.channel.timelock <= account.timelock, "E7", || {
                format!("{id} outlives {address}")
            })?;
        }
        ensure(
            promised == account.promised && bytes == account.promised_bytes,
            "E3",
            || format!("{address} promises {promised}, not {}", account.promised),
        )?;
        let funded = Rank::of_account(address) != Rank::Spend || promised <= account.balance;
        ensure(funded, "E3", || {
            format!("{address} promises more than it holds")
        })?;
        ensure(account.volume <= account.paid, "E5", || {
            format!("{address} moved more than was paid for")
        })
    }

    fn audit_channel(&self, id: &Arc<str>, open: &OpenChannel) -> Checked {
        let channel = &open.channel;
        let contract = &channel.contract;
        ensure(
            contract.channel == *id
                && self
                    .locks
                    .contains(&(Rank::Transfer, channel.timelock, id.clone()))
                && [channel.payer, channel.payee]
                    .into_iter()
                    .all(|key| self.owned.contains(&(key, Rank::Transfer, id.clone()))),
            "E11",
            || format!("{id} is missing in a list"),
        )?;
        let on = |address: &Arc<str>| {
            self.accounts
                .get(address)
                .is_some_and(|account| account.channels.contains(id))
        };
        let ends = if channel.profit.is_some() {
            self.commons.contains_key(&contract.to)
        } else {
            on(&contract.to)
        };
        ensure(on(&contract.from) && ends, "E10", || {
            format!("{id} hangs on no open address")
        })?;
        match &open.parked {
            Some(settled) => check_settled(channel, settled).map(|_| ()),
            None => Ok(()),
        }
    }

    pub(super) fn owned_of(&self, owner: KeyHash, rank: Rank) -> impl Iterator<Item = &Arc<str>> {
        let from = (owner, rank, Arc::from(""));
        self.owned
            .range(from..)
            .take_while(move |(other, other_rank, _)| *other == owner && *other_rank == rank)
            .map(|(_, _, name)| name)
    }
}

/// Which records an entry may hold.
fn may_hold(kind: EntryKind, fact: &Fact) -> bool {
    match kind {
        EntryKind::Command => match fact {
            Fact::OpenAddress(_) | Fact::OpenTransfer(_) => true,
            Fact::CloseTransfer { cause, .. } => *cause == Cause::Peers,
            Fact::CloseAddress(closing) => closing.cause == Cause::Peers,
            Fact::Init { .. } | Fact::Payout(_) => false,
        },
        EntryKind::Expiry => match fact {
            Fact::CloseTransfer { cause, .. } => *cause != Cause::Peers,
            Fact::CloseAddress(closing) => closing.cause != Cause::Peers,
            _ => false,
        },
        EntryKind::Deposit => matches!(fact, Fact::Init { .. }),
        EntryKind::Payout => matches!(fact, Fact::Payout(_)),
        EntryKind::Settings => false,
    }
}

/// E4 and E5 of one end; gives the bytes that were paid for.
fn check_settled(channel: &Channel, settled: &Settled) -> Checked<u64> {
    let contract = &channel.contract;
    let cost = contract.price.cost(settled.count);
    ensure(
        cost == Some(settled.tokens) && settled.count <= contract.planned,
        "E4",
        || format!("{} pays {} tokens", contract.channel, settled.tokens),
    )?;
    let paid = contract.price.bytes(settled.count).unwrap_or(0);
    ensure(settled.volume <= paid, "E5", || {
        format!(
            "{} moved {} bytes of {paid} paid for",
            contract.channel, settled.volume
        )
    })?;
    Ok(paid)
}

impl Account {
    fn promise(&mut self, id: &Arc<str>, cost: u64, bytes: u64) -> Checked {
        self.promised = more(self.promised, cost, "E3")?;
        self.promised_bytes = more(self.promised_bytes, bytes, "E5")?;
        more(self.balance, self.promised, "E2")?;
        let sum = more(self.paid, self.promised_bytes, "E5")?;
        ensure(sum <= PRODUCT_MAX, "E5", || {
            format!("{id} takes the bytes of its address beyond 63 bits")
        })?;
        ensure(self.channels.insert(id.clone()), "E10", || {
            format!("{id} opens twice")
        })
    }

    fn release(&mut self, id: &Arc<str>, cost: u64, bytes: u64) -> Checked {
        self.promised = less(self.promised, cost, "E3")?;
        self.promised_bytes = less(self.promised_bytes, bytes, "E5")?;
        ensure(self.channels.remove(id), "E10", || {
            format!("{id} was not on its address")
        })
    }

    fn count(&mut self, paid: u64, volume: u64) -> Checked {
        self.paid = more(self.paid, paid, "E5")?;
        self.volume = more(self.volume, volume, "E5")?;
        Ok(())
    }
}

impl Mirror {
    fn is_even(&self) -> bool {
        self.income.checked_add(self.common) == Some(self.spend)
    }
}

impl Sums {
    /// What the tracker owes, its own wallet included: all that must be backed.
    pub(super) fn balances(&self) -> Option<u128> {
        self.wallet
            .checked_add(self.spend)?
            .checked_add(self.income)?
            .checked_add(self.fact)
    }
}

impl Recent {
    fn remember(&mut self, entry: &Entry, height: Height) {
        each_name(entry, &mut |name| {
            self.objects.insert(name, (height, entry.clone()));
        });
        if let Some(request) = entry.request_key() {
            self.requests.insert(request, (height, entry.clone()));
        }
        self.entries.entry(height).or_default().push(entry.clone());
    }

    fn forget(&mut self, through: Height) {
        while let Some(oldest) = self.entries.first_entry() {
            if *oldest.key() > through {
                break;
            }
            for entry in oldest.remove() {
                each_name(&entry, &mut |name| {
                    if self
                        .objects
                        .get(&name)
                        .is_some_and(|(at, _)| *at <= through)
                    {
                        self.objects.remove(&name);
                    }
                });
                if let Some(request) = entry.request_key()
                    && self
                        .requests
                        .get(&request)
                        .is_some_and(|(at, _)| *at <= through)
                {
                    self.requests.remove(&request);
                }
            }
        }
    }

    /// Takes up entries from a snapshot.
    pub(super) fn restore(&mut self, entry: &Entry, height: Height) {
        self.remember(entry, height);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Height, &Entry)> {
        self.entries
            .iter()
            .flat_map(|(height, entries)| entries.iter().map(|entry| (*height, entry)))
    }
}

/// The names of an entry that are looked up while they are not open: channels, closed addresses, and
/// common addresses.
fn each_name(entry: &Entry, each: &mut dyn FnMut(Arc<str>)) {
    for record in entry.records() {
        match &record.fact {
            Fact::OpenTransfer(channel) | Fact::CloseTransfer { channel, .. } => {
                each(channel.contract.channel.clone());
                if channel.profit.is_some() {
                    each(channel.contract.to.clone());
                }
            }
            Fact::CloseAddress(_) => each(record.from.clone()),
            Fact::Payout(paid) => each(paid.address.clone()),
            Fact::Init { .. } | Fact::OpenAddress(_) => {}
        }
    }
    if let Some(park) = entry.park() {
        each(park.channel.contract.channel.clone());
    }
}
