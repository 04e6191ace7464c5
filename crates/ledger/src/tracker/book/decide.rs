//! Deciding commands: reads the book, changes nothing (wallet tracker, section 8).

use std::{cmp::Ordering, sync::Arc};

use aws_lc_rs::digest::{SHA224, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE};

use super::{
    Account, Book, COMMONS_MAX, Common, DERIVED_AHEAD_MS_MAX, Decision, History, NONCES_MAX,
    OPEN_ADDRESSES_MAX, OPEN_TRANSFERS_MAX, PayoutPlan, Rank, Terms, is_past, is_remembered,
    nonces,
};
use crate::{
    PublicKey, TransactionId,
    block::BlockTime,
    tracker::{
        Act, Address, AddressKind, Cause, Channel, Closing, CoSigned, Code, Command, Entry, Fact,
        IndexKey, Key, Opening, PRODUCT_MAX, Paid, Park, Payload, Record, Refusal, Settled,
        command,
        entry::{Body, Mark, request_key},
    },
};

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// The id of a record: the first generation's derivation with the record's number appended, so that no
/// two records of one millisecond share it (section 12).
pub(super) fn record_id(pem: &str, timestamp: u64, seq: u64) -> Arc<str> {
    let hash = digest(&SHA224, format!("{pem};{timestamp:x};{seq:x}").as_bytes());
    URL_SAFE.encode(hash).into()
}

/// What became of a channel.
enum Known {
    Open(Channel, Option<Settled>),
    Closed(Channel, Settled, Cause, Arc<Entry>),
}

impl Book {
    /// What `command` leads to at the time of the block that is being built. Locks that passed by then
    /// are to be swept before ([`Book::due`] gives none any more); where they are not, what they bind
    /// counts as still bound.
    ///
    /// # Errors
    /// The first failure in the order of section 8.
    pub fn decide(
        &self,
        command: &Command,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        let terms = self.terms()?;
        if command.is_idempotent()
            && let Some(first) = self.first_time(command, at, history)?
        {
            return Ok(Decision::Repeat(first));
        }
        self.check_fresh(command, terms, at)?;
        match &command.act {
            Act::OpenIncome(key) => self.open_address(command, terms, key, false, at),
            Act::OpenSpend(key) => self.open_address(command, terms, key, true, at),
            Act::OpenTransfer(signed) => self.open_transfer(command, terms, signed, at, history),
            Act::CloseTransfer(signed, settled) => {
                self.close_transfer(command, terms, signed, settled, at, history)
            }
            Act::Park(signed, settled) => self.park(command, terms, signed, settled, at, history),
            Act::CloseIncome(address, key) | Act::CloseSpend(address, key) => {
                self.close_address(command, terms, address, key, at, history)
            }
            Act::PayOut {
                address,
                signer,
                pay_to,
                amount,
            } => self.pay_out(command, terms, (address, signer), (*pay_to, *amount), at),
        }
    }

    /// The entry of an idempotent request that came before (section 17.5).
    fn first_time(
        &self,
        command: &Command,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Option<Arc<Entry>>, Refusal> {
        let Some(signer) = command.signer() else {
            return Ok(None);
        };
        let name = request_key(&signer.hash(), &command.request.correlation);
        let Some(entry) = self.newest(IndexKey::Request(name), history) else {
            return Ok(None);
        };
        if !is_remembered(&entry, at) {
            return Ok(None);
        }
        // The signature may differ: some suites sign one text in many ways.
        let same = entry.request().is_some_and(|first| {
            first.command == command.request.command
                && match (&first.payload, &command.request.payload) {
                    (
                        Payload::Single { message, pk, .. },
                        Payload::Single {
                            message: other,
                            pk: other_pk,
                            ..
                        },
                    ) => message == other && pk == other_pk,
                    _ => false,
                }
        });
        if same {
            Ok(Some(entry))
        } else {
            refuse(
                Code::CorrTokenReuse,
                "the token named another request of this key within 24 hours",
            )
        }
    }

    /// Section 17.2: what a version 2 message must be, and where version 1 is not enough.
    fn check_fresh(&self, command: &Command, terms: &Terms, at: BlockTime) -> Result<(), Refusal> {
        let (Some(fresh), Some(signer)) = (command.fresh(), command.signer()) else {
            let replayable = matches!(
                command.request.command,
                command::OPEN_INCOME
                    | command::OPEN_SPEND
                    | command::CLOSE_INCOME
                    | command::CLOSE_SPEND
            );
            if terms.settings.strict_v2 && replayable {
                return refuse(
                    Code::BadMessage,
                    "this tracker takes this command in messages of version 2 only",
                );
            }
            return Ok(());
        };
        self.admit(&signer.hash(), fresh, at)?;
        if self.nonces.is_full(NONCES_MAX, at) {
            return refuse(
                Code::RateLimited,
                "too many version 2 messages in ten minutes",
            );
        }
        debug_assert!(nonces::check_time(fresh, at).is_ok());
        Ok(())
    }

    /// The entry of a command with the one record that follows from it.
    fn entry(
        &self,
        command: &Command,
        terms: &Terms,
        (from, to): (Arc<str>, Arc<str>),
        fact: impl FnOnce(&Arc<str>) -> Fact,
        at: BlockTime,
    ) -> Decision {
        let record = self.next_record(terms, (from, to), fact, at, 0);
        let body = Body::Command {
            request: command.request.clone(),
            mark: mark(command),
            park: None,
        };
        Decision::Entry(Entry::new(at, body, vec![record]))
    }

    /// The record that is `ahead` records behind the next one.
    pub(super) fn next_record(
        &self,
        terms: &Terms,
        (from, to): (Arc<str>, Arc<str>),
        fact: impl FnOnce(&Arc<str>) -> Fact,
        at: BlockTime,
        ahead: u64,
    ) -> Record {
        let seq = self.sequence.saturating_add(1).saturating_add(ahead);
        let id = record_id(&terms.settings.pem, at.0, seq);
        Record {
            seq,
            fact: fact(&id),
            id,
            timestamp: at.0,
            from,
            to,
        }
    }

    /// Sections 8.2 and 8.3.
    fn open_address(
        &self,
        command: &Command,
        terms: &Terms,
        key: &Arc<Key>,
        spend: bool,
        at: BlockTime,
    ) -> Result<Decision, Refusal> {
        let settings = &terms.settings;
        let (kind, rank, max) = if spend {
            (AddressKind::Spend, Rank::Spend, settings.open_spends_max)
        } else {
            (AddressKind::Income, Rank::Income, settings.open_incomes_max)
        };
        if spend && self.sums.wallet == 0 {
            return refuse(Code::TrackerEmpty, "the tracker's wallet is empty");
        }
        let owner = key.hash();
        if self.owned_of(owner, rank).take(max as usize).count() >= max as usize {
            return refuse(
                Code::TooManyOpen,
                format!("a key may have {max} addresses of this kind open"),
            );
        }
        if self.accounts.len() >= OPEN_ADDRESSES_MAX {
            return refuse(Code::TooManyOpen, "the tracker has too many open addresses");
        }
        let derived = match self.derived.get(&(owner, rank)) {
            Some(last) => at.0.max(last.saturating_add(1)),
            None => at.0,
        };
        if derived > at.0.saturating_add(DERIVED_AHEAD_MS_MAX) {
            return refuse(
                Code::RateLimited,
                "the key opened more addresses than time has milliseconds",
            );
        }
        let Payload::Single { pk, .. } = &command.request.payload else {
            return refuse(Code::BadPayload, "another container");
        };
        let address = Address::channel_end(kind, &settings.pem, pk, derived);
        let (amount, price, lifetime) = if spend {
            let grant = u128::from(settings.spend_grant).min(self.sums.wallet);
            (
                u64::try_from(grant).unwrap_or(settings.spend_grant),
                settings.spend_price(),
                settings.spend_lifetime_ms,
            )
        } else {
            (0, settings.income_price(), settings.income_lifetime_ms)
        };
        let opening = Opening {
            spend,
            amount,
            owner,
            price,
            timelock: at.0.saturating_add(lifetime),
            derived,
        };
        let ends = (terms.wallet.clone(), address.text().clone());
        Ok(self.entry(command, terms, ends, |_| Fact::OpenAddress(opening), at))
    }

    /// Section 8.5; the numbers are those of its checks.
    fn open_transfer(
        &self,
        command: &Command,
        terms: &Terms,
        signed: &CoSigned,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        let contract = &signed.contract;
        terms.refuse_own(&signed.to)?; // 3
        if let Some(known) = self.known(&contract.channel, history)? {
            return self.repeat_open(known, signed, history); // 4
        }
        let income = match signed.to.kind() {
            AddressKind::Income => {
                Some(self.usable(&signed.to, &signed.payee, at, history)?) // 5
            }
            AddressKind::Common | AddressKind::Spend => None,
        };
        let spend = self.usable(&signed.from, &signed.payer, at, history)?; // 6
        if contract.price.compare(&spend.price) == Ordering::Greater {
            return refuse(
                Code::PriceTooHigh,
                "the price is above the spend address's price", // 7
            );
        }
        if income.is_some_and(|income| contract.price.compare(&income.price) == Ordering::Less) {
            return refuse(
                Code::PriceTooLow,
                "the price is below the income address's price", // 8
            );
        }
        let (cost, limit) = (contract.cost(), spend.limit());
        if limit < cost {
            return refuse(
                Code::InsufficientLimit,
                format!("planned cost {cost} exceeds limit {limit}"), // 9
            );
        }
        let max = terms.settings.open_transfers_max as usize;
        if spend.channels.len() >= max || income.is_some_and(|income| income.channels.len() >= max)
        {
            return refuse(
                Code::TooManyOpen,
                format!("an address may have {max} transfer channels open"),
            );
        }
        if self.channels.len() >= OPEN_TRANSFERS_MAX {
            return refuse(Code::TooManyOpen, "the tracker has too many open channels");
        }
        if signed.to.kind() == AddressKind::Common
            && self.commons.len() >= COMMONS_MAX
            && !self.commons.contains_key(signed.to.as_str())
        {
            return refuse(
                Code::TooManyOpen,
                "the tracker owes too many common addresses",
            );
        }
        // A price of zero can be planned for ever; the sums of bytes must stay numbers.
        let sums = [Some(spend), income].into_iter().flatten().all(|account| {
            let bytes = account
                .bytes_limit()
                .checked_add(contract.bytes())
                .is_some_and(|bytes| bytes <= PRODUCT_MAX);
            let tokens = account
                .balance
                .checked_add(account.promised)
                .and_then(|tokens| tokens.checked_add(cost))
                .is_some();
            bytes && tokens
        });
        let profit = match signed.to.kind() {
            AddressKind::Common => {
                let common = self.common_of(signed.to.as_str(), history);
                if common
                    .total()
                    .and_then(|total| total.checked_add(cost))
                    .is_none()
                {
                    return refuse(Code::Overflow, "the wallet would exceed 64 bits");
                }
                Some(common.profit)
            }
            AddressKind::Income | AddressKind::Spend => None,
        };
        if !sums {
            return refuse(Code::Overflow, "the address's sums would exceed 63 bits");
        }
        let lifetime = at.0.saturating_add(terms.settings.transfer_lifetime_ms);
        let timelock = [Some(spend), income]
            .into_iter()
            .flatten()
            .fold(lifetime, |lock, account| lock.min(account.timelock));
        let ends = (contract.from.clone(), contract.to.clone());
        let open = |id: &Arc<str>| {
            Fact::OpenTransfer(Channel {
                contract: contract.clone(),
                payer: signed.payer.hash(),
                payee: signed.payee.hash(),
                opened: at.0,
                timelock,
                open_id: id.clone(),
                profit,
            })
        };
        Ok(self.entry(command, terms, ends, open, at))
    }

    fn repeat_open(
        &self,
        known: Known,
        signed: &CoSigned,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        let (Known::Open(channel, _) | Known::Closed(channel, ..)) = &known;
        if !is_of(channel, signed) || !has_keys(channel, signed) {
            return conflict();
        }
        match known {
            Known::Closed(_, _, _, entry) => Ok(Decision::Repeat(entry)),
            Known::Open(channel, _) => self.repeat(&channel, history),
        }
    }

    /// The newest entry of an open channel: all of them say when it opened and when it locks.
    fn repeat(&self, channel: &Channel, history: &dyn History) -> Result<Decision, Refusal> {
        self.newest(IndexKey::Object(&channel.contract.channel), history)
            .map(Decision::Repeat)
            .ok_or_else(|| Refusal::internal("the channel's entry cannot be read"))
    }

    /// Section 8.6 from check 5 on.
    fn close_transfer(
        &self,
        command: &Command,
        terms: &Terms,
        signed: &CoSigned,
        settled: &Settled,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        let (channel, parked) = match self.closable(terms, signed, settled, at, history)? {
            Ok(open) => open,
            Err(entry) => return Ok(Decision::Repeat(entry)),
        };
        // Both signed the lower one, too, but the other was deposited since: whoever saw an older text must
        // not undo it.
        if let Some(best) = parked
            && (settled.count, settled.volume) < (best.count, best.volume)
        {
            return refuse_below(&best);
        }
        let profit = match signed.to.kind() {
            AddressKind::Common => Some(self.common_of(signed.to.as_str(), history).profit),
            AddressKind::Income | AddressKind::Spend => None,
        };
        let ends = (channel.contract.from.clone(), channel.contract.to.clone());
        let fact = Fact::CloseTransfer {
            channel: Channel { profit, ..channel },
            settled: *settled,
            cause: Cause::Peers,
        };
        Ok(self.entry(command, terms, ends, |_| fact, at))
    }

    /// Section 17.7, `park`: like a close, but for the lock. The best receipt stays; one that is not
    /// better is refused, so that whoever deposits it knows.
    fn park(
        &self,
        command: &Command,
        terms: &Terms,
        signed: &CoSigned,
        settled: &Settled,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        let (channel, parked) = match self.closable(terms, signed, settled, at, history)? {
            Ok(open) => open,
            Err(entry) => return Ok(Decision::Repeat(entry)),
        };
        if parked.as_ref() == Some(settled) {
            return self.repeat(&channel, history);
        }
        let best = parked.unwrap_or_default();
        if (settled.count, settled.volume) <= (best.count, best.volume) {
            return refuse_below(&best);
        }
        let body = Body::Command {
            request: command.request.clone(),
            mark: mark(command),
            park: Some(Park {
                channel,
                settled: *settled,
            }),
        };
        Ok(Decision::Entry(Entry::new(at, body, Vec::new())))
    }

    /// The open channel that `signed` may close with `settled`, and its deposited receipt; or the entry
    /// that closed it in the same way already.
    #[expect(
        clippy::type_complexity,
        reason = "both halves are taken apart at once by the two callers"
    )]
    fn closable(
        &self,
        terms: &Terms,
        signed: &CoSigned,
        settled: &Settled,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Result<(Channel, Option<Settled>), Arc<Entry>>, Refusal> {
        terms.refuse_own(&signed.to)?; // 5
        let Some(known) = self.known(&signed.contract.channel, history)? else {
            return refuse(Code::NotFound, "no such transfer channel"); // 6
        };
        let (Known::Open(channel, _) | Known::Closed(channel, ..)) = &known;
        if !is_of(channel, signed) {
            return conflict(); // 6
        }
        if !has_keys(channel, signed) {
            return refuse(Code::NotOwner, "other keys opened the channel"); // 7
        }
        match known {
            Known::Closed(_, closed, _, entry) if closed == *settled => Ok(Err(entry)), // 8
            Known::Closed(_, _, Cause::Peers, _) => {
                refuse(Code::AlreadyClosed, "the channel is closed") // 8
            }
            Known::Closed(..) => refuse(Code::Expired, "the channel's lock has passed"), // 9
            Known::Open(channel, _) if is_past(channel.timelock, at) => {
                refuse(Code::Expired, "the channel's lock has passed") // 9
            }
            Known::Open(channel, parked) => Ok(Ok((channel, parked))),
        }
    }

    /// Sections 8.7 and 8.8.
    fn close_address(
        &self,
        command: &Command,
        terms: &Terms,
        address: &Address,
        key: &Arc<Key>,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        let Some(account) = self.accounts.get(address.as_str()) else {
            return Err(self.closed(address, history));
        };
        if account.owner != key.hash() {
            return refuse(Code::NotOwner, "another key opened the address");
        }
        if is_past(account.timelock, at) {
            return refuse(Code::Expired, "the address's lock has passed");
        }
        if !account.channels.is_empty() {
            return refuse(
                Code::HasOpenChannels,
                format!("{} transfer channels are open", account.channels.len()),
            );
        }
        let fact = account.closing(address.kind() == AddressKind::Spend, Cause::Peers);
        let ends = (address.text().clone(), terms.wallet.clone());
        Ok(self.entry(command, terms, ends, |_| Fact::CloseAddress(fact), at))
    }

    /// Command 2097152.
    fn pay_out(
        &self,
        command: &Command,
        terms: &Terms,
        (address, signer): (&Address, &Arc<Key>),
        (pay_to, amount): (PublicKey, u64),
        at: BlockTime,
    ) -> Result<Decision, Refusal> {
        terms.refuse_own(address)?;
        if pay_to == terms.settings.holder {
            return refuse(Code::BadMessage, "the tracker does not pay itself");
        }
        let common = self.commons.get(address.as_str()).copied();
        let common = common.unwrap_or_default();
        let Some(fact) = common.fact.checked_sub(amount) else {
            return refuse(
                Code::InsufficientLimit,
                format!("payout {amount} exceeds fact {}", common.fact),
            );
        };
        let Some(inputs) = self.holdings.select(amount) else {
            return refuse(
                Code::BadAmount,
                "the tracker's outputs are too small to pay that much at once; ask for less",
            );
        };
        let held = inputs.iter().fold(0u128, |sum, (_, held)| {
            sum.saturating_add(u128::from(*held))
        });
        let change = held
            .checked_sub(amount.into())
            .and_then(|change| u64::try_from(change).ok())
            .ok_or_else(|| Refusal::internal("the tracker's outputs were chosen badly"))?;
        let paid = Paid {
            address: address.text().clone(),
            owner: signer.hash(),
            pay_to,
            amount,
            fact,
            profit: common.profit.saturating_add(amount),
            transfer: TransactionId([0; 32]),
        };
        let ends = (terms.wallet.clone(), Arc::from(""));
        let record = self.next_record(terms, ends, |_| Fact::Payout(paid.clone()), at, 0);
        Ok(Decision::Payout(PayoutPlan {
            token: terms.settings.token,
            holder: terms.settings.holder,
            inputs,
            change,
            time: at,
            request: command.request.clone(),
            mark: mark(command),
            record,
            paid,
        }))
    }

    /// What is known of a channel id: in memory while open, else from its newest entry.
    fn known(&self, id: &str, history: &dyn History) -> Result<Option<Known>, Refusal> {
        if let Some(open) = self.channels.get(id) {
            return Ok(Some(Known::Open(open.channel.clone(), open.parked)));
        }
        let Some(entry) = self.newest(IndexKey::Object(id), history) else {
            return Ok(None);
        };
        let closed = entry
            .records()
            .iter()
            .find_map(|record| match &record.fact {
                Fact::CloseTransfer {
                    channel,
                    settled,
                    cause,
                } if *channel.contract.channel == *id => Some((channel.clone(), *settled, *cause)),
                _ => None,
            });
        match closed {
            Some((channel, settled, cause)) => {
                Ok(Some(Known::Closed(channel, settled, cause, entry)))
            }
            None => Err(Refusal::internal("the channel's end cannot be read")),
        }
    }

    /// An address that is open at `at` and belongs to `key`.
    fn usable(
        &self,
        address: &Address,
        key: &Key,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<&Account, Refusal> {
        let Some(account) = self.accounts.get(address.as_str()) else {
            return Err(self.closed(address, history));
        };
        if is_past(account.timelock, at) {
            return refuse(Code::Expired, "the address's lock has passed");
        }
        if account.owner != key.hash() {
            return refuse(Code::NotOwner, "another key opened the address");
        }
        Ok(account)
    }

    /// Why an address is not open.
    pub(super) fn closed(&self, address: &Address, history: &dyn History) -> Refusal {
        let entry = self.newest(IndexKey::Object(address.as_str()), history);
        let cause = entry.as_ref().and_then(|entry| {
            entry
                .records()
                .iter()
                .find_map(|record| match &record.fact {
                    Fact::CloseAddress(closing) if *record.from == *address.as_str() => {
                        Some(closing.cause)
                    }
                    _ => None,
                })
        });
        match (entry, cause) {
            (None, _) => Refusal::new(Code::NotFound, "no such address"),
            (_, Some(Cause::Peers)) => Refusal::new(Code::AlreadyClosed, "the address is closed"),
            (_, Some(_)) => Refusal::new(Code::Expired, "the address's lock has passed"),
            (Some(_), None) => Refusal::internal("the address's end cannot be read"),
        }
    }

    /// A common address, as the book or its newest record knows it.
    pub(super) fn common_of(&self, address: &str, history: &dyn History) -> Common {
        if let Some(common) = self.commons.get(address) {
            return *common;
        }
        // Not in memory: nothing is owed and nothing is on its way.
        let profit = self
            .newest(IndexKey::Object(address), history)
            .and_then(|entry| {
                let records = entry.records().iter().rev();
                records
                    .filter_map(|record| record.profit_of(address))
                    .next()
            });
        Common {
            profit: profit.unwrap_or(0),
            ..Common::default()
        }
    }
}

/// Who signed a command alone, for the entry.
fn mark(command: &Command) -> Option<Mark> {
    command.signer().map(|key| Mark {
        signer: key.hash(),
        nonce: command.fresh().map(|fresh| fresh.nonce),
    })
}

/// A receipt that is worth no more than the one that the tracker keeps.
fn refuse_below<T>(best: &Settled) -> Result<T, Refusal> {
    refuse(
        Code::BadCount,
        format!(
            "a receipt over {} quanta and {} bytes is deposited already",
            best.count, best.volume
        ),
    )
}

fn conflict<T>() -> Result<T, Refusal> {
    refuse(
        Code::ChannelConflict,
        "the channel id names another contract",
    )
}

fn is_of(channel: &Channel, signed: &CoSigned) -> bool {
    channel.contract == signed.contract
}

fn has_keys(channel: &Channel, signed: &CoSigned) -> bool {
    channel.payer == signed.payer.hash() && channel.payee == signed.payee.hash()
}

impl Terms {
    /// Payment to the tracker's own wallet would be no payment.
    fn refuse_own(&self, address: &Address) -> Result<(), Refusal> {
        if address.kind() == AddressKind::Common && self.own_tails.contains(address.tail()) {
            return refuse(Code::BadAddress, "the tracker's own address");
        }
        Ok(())
    }
}

impl Account {
    /// Tokens that are free to promise.
    pub(super) fn limit(&self) -> u64 {
        self.balance.saturating_sub(self.promised)
    }

    /// Bytes paid for, and those that open channels could pay for.
    pub(super) fn bytes_limit(&self) -> u64 {
        self.paid.saturating_add(self.promised_bytes)
    }

    pub(super) fn closing(&self, spend: bool, cause: Cause) -> Closing {
        Closing {
            spend,
            amount: self.balance,
            owner: self.owner,
            quantum_volume: self.paid,
            volume: self.volume,
            open_id: self.open_id.clone(),
            cause,
        }
    }
}

impl Common {
    /// All that the wallet had, has or could get; `None` beyond 64 bits.
    pub(super) fn total(&self) -> Option<u64> {
        self.fact.checked_add(self.plan)?.checked_add(self.profit)
    }
}

impl Record {
    /// What it says was paid out of a common address so far.
    fn profit_of(&self, address: &str) -> Option<u64> {
        match &self.fact {
            Fact::Payout(paid) if *paid.address == *address => Some(paid.profit),
            Fact::OpenTransfer(channel) | Fact::CloseTransfer { channel, .. }
                if *channel.contract.to == *address =>
            {
                channel.profit
            }
            _ => None,
        }
    }
}
