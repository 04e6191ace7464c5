//! A naive tracker beside the real one: the same random wishes, valid and invalid, must get the same
//! answers and leave the same state (wallet tracker, section 18, item 40).
//!
//! The naive one keeps everything for ever in plain maps, adds up what the definitions of section 10 add
//! up, and never looks at a log. `TRACKER_MODEL_SEED` repeats a run, `TRACKER_MODEL_OPERATIONS` sets how many
//! operations there are in all.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{collections::BTreeMap, env};

use daybook_ledger::{
    BlockTime, Height, PublicKey, SigningKey,
    tracker::{
        Address, AddressKind, Book, Contract, KeyHash, Payload, Price, Proven, Request, Settled,
        command, draft, reply,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

mod tracker_common;
use tracker_common::{Peer, World};

/// Operations of one run; more of them are several runs. The naive model adds up everything that ever
/// was: a run twice as long takes four times as long.
const RUN_OPERATIONS: u64 = 100_000;

const PEERS: usize = 6;
const GRANT: u64 = 10_000;
const INCOME_MIN: u64 = 400;
const SPEND_MAX: u64 = 600;
const POWER: u8 = 25;
const LIFETIME: u64 = 1_800_000;
const TRANSFER_LIFETIME: u64 = 300_000;
const SPENDS_MAX: usize = 4;
const INCOMES_MAX: usize = 5;
const CHANNELS_MAX: usize = 6;

/// What somebody wants.
#[derive(Clone, Debug)]
enum Wish {
    Open {
        spend: bool,
        peer: usize,
    },
    OpenTransfer(Contract, usize, usize),
    CloseTransfer(Contract, Settled, usize, usize),
    Park(Contract, Settled, usize, usize),
    Close {
        /// The command is that for spend addresses.
        spend: bool,
        address: Address,
        peer: usize,
    },
    PayOut {
        wallet: Address,
        amount: u64,
        peer: usize,
    },
}

/// What stands around a wish.
#[derive(Clone, Debug)]
struct Envelope {
    correlation: String,
    idempotent: bool,
    /// Version 2: time and nonce.
    fresh: Option<(u64, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Peers,
    Lock,
}

struct ModelAddress {
    spend: bool,
    owner: usize,
    granted: u64,
    price: Price,
    lock: u64,
    channels: Vec<String>,
    closed: Option<End>,
}

struct ModelChannel {
    contract: Contract,
    payer: usize,
    payee: usize,
    opened: u64,
    lock: u64,
    parked: Option<Settled>,
    closed: Option<(Settled, End)>,
}

#[derive(Default)]
struct Model {
    now: u64,
    minted: u128,
    wallet: u128,
    tracker: String,
    pems: Vec<String>,
    addresses: BTreeMap<String, ModelAddress>,
    channels: BTreeMap<String, ModelChannel>,
    /// Channels to each wallet.
    wallets: BTreeMap<String, Vec<String>>,
    payouts: BTreeMap<String, u64>,
    /// Names of addresses and channels that may be open: only to find them sooner.
    open_addresses: Vec<String>,
    open_channels: Vec<String>,
    /// The newest time in a derivation.
    derived: BTreeMap<(usize, bool), u64>,
    nonces: BTreeMap<(usize, u8), u64>,
    /// Idempotent requests: when, what and the answer.
    first: BTreeMap<(usize, String), (u64, String, String)>,
}

type Answer = Result<String, &'static str>;

impl Model {
    fn tokens(&self, id: &str) -> u64 {
        self.channels[id].closed.map_or(0, |(end, _)| end.tokens)
    }

    /// bal(S) and bal(I).
    fn balance(&self, address: &str) -> u64 {
        let account = &self.addresses[address];
        let moved: u64 = account.channels.iter().map(|id| self.tokens(id)).sum();
        if account.spend {
            account.granted - moved
        } else {
            moved
        }
    }

    fn open_on<'m>(&'m self, ids: &'m [String]) -> impl Iterator<Item = &'m ModelChannel> {
        let channels = ids.iter().map(|id| &self.channels[id]);
        channels.filter(|channel| channel.closed.is_none())
    }

    /// res(S), or what open channels could bring.
    fn promised(&self, address: &str) -> u64 {
        let ids = &self.addresses[address].channels;
        self.open_on(ids)
            .map(|channel| channel.contract.price.amount * channel.contract.planned)
            .sum()
    }

    /// paid, volume and limQ.
    fn volumes(&self, address: &str) -> (u64, u64, u64) {
        let ids = &self.addresses[address].channels;
        let (mut paid, mut volume) = (0, 0);
        for channel in ids.iter().map(|id| &self.channels[id]) {
            if let Some((end, _)) = channel.closed {
                paid += end.count << channel.contract.price.power;
                volume += end.volume;
            }
        }
        let open: u64 = self
            .open_on(ids)
            .map(|channel| channel.contract.planned << channel.contract.price.power)
            .sum();
        (paid, volume, paid + open)
    }

    /// fact(K), plan(K) and profit(K).
    fn common(&self, wallet: &str) -> (u64, u64, u64) {
        let none = Vec::new();
        let ids = self.wallets.get(wallet).unwrap_or(&none);
        let earned: u64 = ids.iter().map(|id| self.tokens(id)).sum();
        let plan = self
            .open_on(ids)
            .map(|channel| channel.contract.price.amount * channel.contract.planned)
            .sum();
        let profit = self.payouts.get(wallet).copied().unwrap_or(0);
        (earned - profit, plan, profit)
    }

    /// Everything past its lock ends: transfers first.
    fn expire(&mut self) {
        let (channels, now) = (&mut self.channels, self.now);
        self.open_channels.retain(|id| {
            let channel = channels.get_mut(id).unwrap();
            if channel.closed.is_none() && now > channel.lock {
                channel.closed = Some((channel.parked.unwrap_or_default(), End::Lock));
            }
            channel.closed.is_none()
        });
        let addresses = &self.addresses;
        self.open_addresses
            .retain(|address| addresses[address].closed.is_none());
        let due: Vec<String> = self
            .open_addresses
            .iter()
            .filter(|address| self.now > self.addresses[*address].lock)
            .cloned()
            .collect();
        for address in due {
            self.wallet += u128::from(self.balance(&address));
            self.addresses.get_mut(&address).unwrap().closed = Some(End::Lock);
        }
    }

    /// An address that is open and `peer`'s.
    fn usable(&self, address: &str, peer: usize) -> Result<&ModelAddress, &'static str> {
        let account = self.addresses.get(address).ok_or("not_found")?;
        match account.closed {
            Some(End::Peers) => return Err("already_closed"),
            Some(End::Lock) => return Err("expired"),
            None => {}
        }
        if account.owner != peer {
            return Err("not_owner");
        }
        Ok(account)
    }

    /// What needs no state.
    fn form(&self, wish: &Wish, envelope: &Envelope) -> Result<(), &'static str> {
        match wish {
            Wish::Open { .. } => Ok(()),
            Wish::OpenTransfer(contract, ..) => self.contract_form(contract, None),
            Wish::CloseTransfer(contract, end, ..) | Wish::Park(contract, end, ..) => {
                self.contract_form(contract, Some(end))
            }
            Wish::Close { spend, address, .. } => {
                let kind = address.kind();
                let fits = match spend {
                    true => kind == AddressKind::Spend,
                    false => kind == AddressKind::Income,
                };
                if fits { Ok(()) } else { Err("bad_address") }
            }
            Wish::PayOut {
                wallet,
                amount,
                peer,
            } => {
                if envelope.fresh.is_none() {
                    Err("bad_message")
                } else if *wallet != Address::common(&self.pems[*peer]) {
                    Err("not_owner")
                } else if *amount == 0 {
                    Err("bad_amount")
                } else {
                    Ok(())
                }
            }
        }
    }

    fn contract_form(
        &self,
        contract: &Contract,
        end: Option<&Settled>,
    ) -> Result<(), &'static str> {
        let (price, planned) = (contract.price, u128::from(contract.planned));
        let count_max = (1u128 << 53) - 1;
        let counts = [planned]
            .into_iter()
            .chain(end.map(|end| u128::from(end.count)))
            .chain(end.map(|end| u128::from(end.volume)));
        if counts.into_iter().any(|count| count > count_max) {
            return Err("overflow");
        }
        if price.power > 62 || planned == 0 {
            return Err("bad_amount");
        }
        let limit = 1u128 << 63;
        if u128::from(price.amount) * planned >= limit || planned << price.power >= limit {
            return Err("overflow");
        }
        if let Some(end) = end {
            if u128::from(end.count) > planned {
                return Err("bad_count");
            }
            if u128::from(end.volume) > u128::from(end.count) << price.power {
                return Err("bad_volume");
            }
            if u128::from(end.tokens) != u128::from(price.amount) * u128::from(end.count) {
                return Err("bad_amount");
            }
        }
        let own = Address::common(&self.tracker);
        if !contract.from.starts_with("0x0c")
            || contract.to.starts_with("0x0c")
            || *contract.to == *own.as_str()
        {
            return Err("bad_address");
        }
        Ok(())
    }

    /// The whole answer to a wish, and what it changes.
    fn execute(&mut self, wish: &Wish, envelope: &Envelope) -> Answer {
        self.form(wish, envelope)?;
        let alone = match wish {
            Wish::Open { peer, .. } | Wish::Close { peer, .. } | Wish::PayOut { peer, .. } => {
                Some(*peer)
            }
            _ => None,
        };
        let name = alone.map(|peer| (peer, envelope.correlation.clone()));
        let idempotent = envelope.idempotent || envelope.fresh.is_some();
        let what = format!("{wish:?} {:?}", envelope.fresh);
        if let Some(name) = name.as_ref().filter(|_| idempotent)
            && let Some((time, first, answer)) = self.first.get(name)
            && self.now <= time + 24 * 3_600_000
        {
            return if *first == what {
                Ok(answer.clone())
            } else {
                Err("corr_token_reuse")
            };
        }
        if let (Some((time, nonce)), Some(peer)) = (envelope.fresh, alone) {
            if time.abs_diff(self.now) > 300_000 {
                return Err("stale");
            }
            let used = self.nonces.get(&(peer, nonce));
            if used.is_some_and(|used| self.now <= used + 600_000) {
                return Err("replayed");
            }
        }
        let answer = self.decide(wish)?;
        if let (Some((_, nonce)), Some(peer)) = (envelope.fresh, alone) {
            self.nonces.insert((peer, nonce), self.now);
        }
        if let Some(name) = name.filter(|_| idempotent) {
            self.first.insert(name, (self.now, what, answer.clone()));
        }
        Ok(answer)
    }

    fn decide(&mut self, wish: &Wish) -> Answer {
        match wish {
            Wish::Open { spend, peer } => self.open(*spend, *peer),
            Wish::OpenTransfer(contract, payer, payee) => {
                self.open_transfer(contract, *payer, *payee)
            }
            Wish::CloseTransfer(contract, end, payer, payee) => {
                if self.closable(contract, end, *payer, *payee)? {
                    let channel = self.channels.get_mut(&*contract.channel).unwrap();
                    let best = channel.parked.unwrap_or_default();
                    if (end.count, end.volume) < (best.count, best.volume) {
                        return Err("bad_count");
                    }
                    channel.closed = Some((*end, End::Peers));
                }
                Ok(self.done())
            }
            Wish::Park(contract, end, payer, payee) => {
                if self.closable(contract, end, *payer, *payee)? {
                    let channel = self.channels.get_mut(&*contract.channel).unwrap();
                    let best = channel.parked.unwrap_or_default();
                    if channel.parked != Some(*end) {
                        if (end.count, end.volume) <= (best.count, best.volume) {
                            return Err("bad_count");
                        }
                        channel.parked = Some(*end);
                    }
                }
                Ok(self.done())
            }
            Wish::Close { address, peer, .. } => self.close(address.as_str(), *peer),
            Wish::PayOut { wallet, amount, .. } => {
                let wallet = wallet.as_str();
                if self.common(wallet).0 < *amount {
                    return Err("insufficient_limit");
                }
                *self.payouts.entry(wallet.to_owned()).or_default() += amount;
                Ok("payout".into())
            }
        }
    }

    fn done(&self) -> String {
        format!("{{\"pk\":{}}}", quoted(&self.tracker))
    }

    fn open(&mut self, spend: bool, peer: usize) -> Answer {
        if spend && self.wallet == 0 {
            return Err("tracker_empty");
        }
        let open = self
            .open_addresses
            .iter()
            .map(|address| &self.addresses[address]);
        let mine = open.filter(|account| {
            account.closed.is_none() && account.owner == peer && account.spend == spend
        });
        if mine.count() >= if spend { SPENDS_MAX } else { INCOMES_MAX } {
            return Err("too_many_open");
        }
        let last = self.derived.get(&(peer, spend));
        let derived = last.map_or(self.now, |last| self.now.max(last + 1));
        self.derived.insert((peer, spend), derived);
        let kind = if spend {
            AddressKind::Spend
        } else {
            AddressKind::Income
        };
        let address = Address::channel_end(kind, &self.tracker, &self.pems[peer], derived);
        let granted = match spend {
            true => u64::try_from(self.wallet.min(GRANT.into())).unwrap(),
            false => 0,
        };
        self.wallet -= u128::from(granted);
        let price = Price {
            amount: if spend { SPEND_MAX } else { INCOME_MIN },
            power: POWER,
        };
        let lock = self.now + LIFETIME;
        let account = ModelAddress {
            spend,
            owner: peer,
            granted,
            price,
            lock,
            channels: Vec::new(),
            closed: None,
        };
        let before = self.addresses.insert(address.to_string(), account);
        assert!(before.is_none(), "no address comes twice");
        self.open_addresses.push(address.to_string());
        Ok(format!(
            "{{\"address\":\"{address}\",\
             \"current\":{{\"amount\":\"{granted}\",\"quantumVolume\":0,\"volume\":0}},\
             \"limit\":{{\"amount\":\"{granted}\",\"quantumVolume\":0}},\
             \"price\":{{\"amount\":\"{}\",\"quantumPower\":{POWER}}},\"pk\":{},\
             \"timelock\":{lock},\"timeLock\":{lock},\"lifetime\":{LIFETIME}}}",
            price.amount,
            quoted(&self.tracker),
        ))
    }

    fn opened(&self, channel: &ModelChannel) -> String {
        format!(
            "{{\"pk\":{},\"timelock\":{},\"timeLock\":{},\"lifetime\":{}}}",
            quoted(&self.tracker),
            channel.lock,
            channel.lock,
            channel.lock - channel.opened
        )
    }

    fn open_transfer(&mut self, contract: &Contract, payer: usize, payee: usize) -> Answer {
        if let Some(known) = self.channels.get(&*contract.channel) {
            let same = known.contract == *contract && (known.payer, known.payee) == (payer, payee);
            return if same {
                Ok(self.opened(known))
            } else {
                Err("channel_conflict")
            };
        }
        let to_income = contract.to.starts_with("0x0d");
        let mut lock = self.now + TRANSFER_LIFETIME;
        let mut low = None;
        if to_income {
            let income = self.usable(&contract.to, payee)?;
            lock = lock.min(income.lock);
            low = Some(income.price);
        }
        let spend = self.usable(&contract.from, payer)?;
        lock = lock.min(spend.lock);
        let lift = |price: Price| u128::from(price.amount) << (62 - price.power);
        if lift(contract.price) > lift(spend.price) {
            return Err("price_too_high");
        }
        if low.is_some_and(|low| lift(contract.price) < lift(low)) {
            return Err("price_too_low");
        }
        let cost = contract.price.amount * contract.planned;
        if self.balance(&contract.from) - self.promised(&contract.from) < cost {
            return Err("insufficient_limit");
        }
        let crowded = |address: &str| {
            let ids = &self.addresses[address].channels;
            self.open_on(ids).count() >= CHANNELS_MAX
        };
        if crowded(&contract.from) || to_income && crowded(&contract.to) {
            return Err("too_many_open");
        }
        let bytes = u128::from(contract.planned) << contract.price.power;
        let overflows = |address: &str| u128::from(self.volumes(address).2) + bytes >= 1u128 << 63;
        if overflows(&contract.from) || to_income && overflows(&contract.to) {
            return Err("overflow");
        }
        let id = contract.channel.to_string();
        for end in [&contract.from, &contract.to] {
            match self.addresses.get_mut(&**end) {
                Some(account) => account.channels.push(id.clone()),
                None => self
                    .wallets
                    .entry(end.to_string())
                    .or_default()
                    .push(id.clone()),
            }
        }
        let channel = ModelChannel {
            contract: contract.clone(),
            payer,
            payee,
            opened: self.now,
            lock,
            parked: None,
            closed: None,
        };
        let answer = self.opened(&channel);
        self.open_channels.push(id.clone());
        self.channels.insert(id, channel);
        Ok(answer)
    }

    /// Whether the channel is open and may be closed so; false: it was closed so.
    fn closable(
        &self,
        contract: &Contract,
        end: &Settled,
        payer: usize,
        payee: usize,
    ) -> Result<bool, &'static str> {
        let channel = self.channels.get(&*contract.channel).ok_or("not_found")?;
        if channel.contract != *contract {
            return Err("channel_conflict");
        }
        if (channel.payer, channel.payee) != (payer, payee) {
            return Err("not_owner");
        }
        match channel.closed {
            None => Ok(true),
            Some((closed, _)) if closed == *end => Ok(false),
            Some((_, End::Peers)) => Err("already_closed"),
            Some((_, End::Lock)) => Err("expired"),
        }
    }

    fn close(&mut self, address: &str, peer: usize) -> Answer {
        self.usable(address, peer)?;
        if self.promised_channels(address) > 0 {
            return Err("has_open_channels");
        }
        let balance = self.balance(address);
        let (paid, volume, _) = self.volumes(address);
        self.wallet += u128::from(balance);
        self.addresses.get_mut(address).unwrap().closed = Some(End::Peers);
        Ok(format!(
            "{{\"pk\":{},\"state\":{{\"amount\":\"{balance}\",\"quantumVolume\":{paid},\
             \"volume\":{volume}}}}}",
            quoted(&self.tracker)
        ))
    }

    fn promised_channels(&self, address: &str) -> usize {
        self.open_on(&self.addresses[address].channels).count()
    }

    /// What commands 128 and 256 answer.
    fn state(&self, address: &str) -> Answer {
        let account = self.addresses.get(address).ok_or("not_found")?;
        match account.closed {
            Some(End::Peers) => return Err("already_closed"),
            Some(End::Lock) => return Err("expired"),
            None => {}
        }
        let (balance, promised) = (self.balance(address), self.promised(address));
        let (paid, volume, limit_bytes) = self.volumes(address);
        let limit = if account.spend {
            balance - promised
        } else {
            balance + promised
        };
        Ok(format!(
            "{{\"address\":\"{address}\",\
             \"current\":{{\"amount\":\"{balance}\",\"quantumVolume\":{paid},\"volume\":{volume}}},\
             \"limit\":{{\"amount\":\"{limit}\",\"quantumVolume\":{limit_bytes}}},\
             \"price\":{{\"amount\":\"{}\",\"quantumPower\":{POWER}}},\"pk\":{},\
             \"timelock\":{},\"timeLock\":{}}}",
            account.price.amount,
            quoted(&self.tracker),
            account.lock,
            account.lock
        ))
    }

    fn channel_code(&self, id: &str) -> u8 {
        match self.channels.get(id) {
            None => 1,
            Some(channel) if channel.closed.is_none() => 2,
            Some(_) => 4,
        }
    }

    /// E1, E2, E3 and E8, by their definitions, over everything that ever was.
    fn check(&self, book: &Book) {
        let mut balances = self.wallet;
        let (mut spend, mut other) = ((0u128, 0u128), (0u128, 0u128));
        for (address, account) in &self.addresses {
            let (paid, volume, _) = self.volumes(address);
            let side = if account.spend {
                &mut spend
            } else {
                &mut other
            };
            side.0 += u128::from(paid);
            side.1 += u128::from(volume);
            if account.closed.is_none() {
                balances += u128::from(self.balance(address));
                if account.spend {
                    assert!(self.promised(address) <= self.balance(address), "E3");
                }
            }
        }
        let mut profit = 0u128;
        for (wallet, ids) in &self.wallets {
            let (fact, _, paid_out) = self.common(wallet);
            balances += u128::from(fact);
            profit += u128::from(paid_out);
            for id in ids {
                if let Some((end, _)) = self.channels[id].closed {
                    other.0 += u128::from(end.count) << self.channels[id].contract.price.power;
                    other.1 += u128::from(end.volume);
                }
            }
        }
        assert_eq!(spend, other, "E8");
        assert_eq!(balances + profit, self.minted, "E1");
        assert_eq!(balances, book.held(), "backing");
        assert_eq!(self.wallet, book.wallet());
    }
}

fn quoted(pem: &str) -> String {
    format!("\"{}\"", pem.replace('\n', "\\n"))
}

/// Everything of a run.
struct Run {
    random: StdRng,
    world: World,
    model: Model,
    peers: Vec<Peer>,
    hashes: Vec<KeyHash>,
    pay_to: PublicKey,
    /// Channels that were tried, with who signed.
    contracts: Vec<(Contract, usize, usize)>,
    addresses: Vec<(Address, usize)>,
    /// Requests that may come again.
    sent: Vec<(Wish, Envelope)>,
    names: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let world = World::with(|settings| {
            settings.income_price_min = INCOME_MIN;
            settings.spend_price_max = SPEND_MAX;
            settings.spend_grant = GRANT;
            settings.open_spends_max = SPENDS_MAX as u32;
            settings.open_incomes_max = INCOMES_MAX as u32;
            settings.open_transfers_max = CHANNELS_MAX as u32;
        });
        let peers: Vec<Peer> = (0..PEERS).map(|i| Peer::ed25519(i as u8 + 1)).collect();
        let model = Model {
            now: world.now,
            minted: 100_000,
            wallet: 100_000,
            tracker: world.tracker.pem.clone(),
            pems: peers.iter().map(|peer| peer.pem.clone()).collect(),
            ..Model::default()
        };
        Run {
            random: StdRng::seed_from_u64(seed),
            hashes: peers.iter().map(|peer| peer.key().hash()).collect(),
            pay_to: SigningKey::from_seed([50; 32]).public_key(),
            world,
            model,
            peers,
            contracts: Vec::new(),
            addresses: Vec::new(),
            sent: Vec::new(),
            names: 0,
            counts: BTreeMap::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100u32) < percent
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn peer(&mut self) -> usize {
        self.below(PEERS)
    }

    /// Recent things are asked for more often.
    fn recent(&mut self, length: usize) -> Option<usize> {
        if length == 0 {
            return None;
        }
        let back = if self.chance(85) {
            self.below(length.min(24))
        } else {
            self.below(length)
        };
        Some(length - 1 - back)
    }

    fn address(&mut self, spend: bool) -> (Address, usize) {
        for _ in 0..12 {
            if let Some(place) = self.recent(self.addresses.len()) {
                let (address, owner) = self.addresses[place].clone();
                if (address.kind() == AddressKind::Spend) == spend {
                    return (address, owner);
                }
            }
        }
        let peer = self.peer();
        let kind = if spend {
            AddressKind::Spend
        } else {
            AddressKind::Income
        };
        (Address::channel_end(kind, "nobody", "nobody", 1), peer)
    }

    fn new_contract(&mut self) -> (Contract, usize, usize) {
        let (from, payer) = self.address(true);
        let (to, payee) = if self.chance(35) {
            let payee = self.peer();
            let wallet = match self.below(40) {
                0 => Address::common(&self.world.tracker.pem),
                1 => Address::common("somebody"),
                _ => Address::common(&self.peers[payee].pem),
            };
            (wallet, payee)
        } else {
            self.address(false)
        };
        self.names += 1;
        let mut price = Price {
            amount: self.random.random_range(400..=600),
            power: POWER,
        };
        match self.below(30) {
            0 => price.amount = self.random.random_range(0..1_000),
            1 => {
                price = Price {
                    amount: self.random.random_range(10..25),
                    power: 20,
                }
            }
            2 => {
                price = Price {
                    amount: self.random.random_range(700..1_300),
                    power: 26,
                }
            }
            3 => {
                let amounts = [0, 1, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX];
                price = Price {
                    amount: amounts[self.below(6)],
                    power: [0, 25, 61, 62, 63, 255][self.below(6)],
                }
            }
            _ => {}
        }
        let planned = match self.below(40) {
            0 => 0,
            1 => [1, 2, (1 << 53) - 1, 1 << 53, 1 << 60][self.below(5)],
            _ => self.random.random_range(1..9),
        };
        let contract = Contract {
            channel: format!("channel-{}", self.names).into(),
            from: from.text().clone(),
            to: to.text().clone(),
            price,
            planned,
        };
        let (mut payer, mut payee) = (payer, payee);
        if self.chance(3) {
            payer = self.peer();
        }
        if self.chance(3) {
            payee = self.peer();
        }
        (contract, payer, payee)
    }

    /// A contract that was tried before, sometimes with a change.
    fn old_contract(&mut self) -> Option<(Contract, usize, usize)> {
        let place = self.recent(self.contracts.len())?;
        let (mut contract, mut payer, mut payee) = self.contracts[place].clone();
        if self.chance(6) {
            match self.below(6) {
                0 => contract.planned = contract.planned.wrapping_add(1),
                1 => contract.price.amount = contract.price.amount.wrapping_add(1),
                2 => contract.price.power = contract.price.power.wrapping_sub(1),
                3 => contract.to = Address::common(&self.peers[0].pem).text().clone(),
                4 => payer = self.peer(),
                _ => payee = self.peer(),
            }
        }
        Some((contract, payer, payee))
    }

    fn end(&mut self, contract: &Contract) -> Settled {
        let count = match self.below(20) {
            0 => contract.planned.wrapping_add(1),
            1 => contract.planned,
            2 => 0,
            _ => self.random.random_range(0..=contract.planned.clamp(1, 8)),
        };
        let full = u128::from(count) << contract.price.power.min(62);
        let full = u64::try_from(full).unwrap_or(u64::MAX);
        let volume = match self.below(20) {
            0 => full.saturating_add(1),
            1 => full,
            _ => full.saturating_sub(self.random.random_range(0..1_000)),
        };
        let tokens = u128::from(contract.price.amount) * u128::from(count);
        let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
        Settled {
            count,
            tokens: if self.chance(2) {
                tokens.wrapping_add(1)
            } else {
                tokens
            },
            volume,
        }
    }

    fn wish(&mut self) -> Wish {
        match self.below(100) {
            0..11 => Wish::Open {
                spend: true,
                peer: self.peer(),
            },
            11..20 => Wish::Open {
                spend: false,
                peer: self.peer(),
            },
            20..50 => {
                let old = if self.chance(8) {
                    self.old_contract()
                } else {
                    None
                };
                let (contract, payer, payee) = match old {
                    Some(old) => old,
                    None => {
                        let made = self.new_contract();
                        self.contracts.push(made.clone());
                        made
                    }
                };
                Wish::OpenTransfer(contract, payer, payee)
            }
            50..86 => {
                let Some((contract, payer, payee)) = self.old_contract() else {
                    return self.wish();
                };
                let end = self.end(&contract);
                if self.chance(18) {
                    Wish::Park(contract, end, payer, payee)
                } else {
                    Wish::CloseTransfer(contract, end, payer, payee)
                }
            }
            86..96 => {
                let kind = self.chance(50);
                let (address, owner) = self.address(kind);
                let spend = if self.chance(3) {
                    !kind
                } else {
                    address.kind() == AddressKind::Spend
                };
                let peer = if self.chance(5) { self.peer() } else { owner };
                Wish::Close {
                    spend,
                    address,
                    peer,
                }
            }
            _ => {
                let peer = self.peer();
                let owner = if self.chance(90) { peer } else { self.peer() };
                let wallet = Address::common(&self.peers[owner].pem);
                let fact = self.model.common(wallet.as_str()).0;
                let amount = match self.below(10) {
                    0 => 0,
                    1 => fact + 1,
                    2..4 => fact,
                    _ => self.random.random_range(0..=fact.max(1)),
                };
                Wish::PayOut {
                    wallet,
                    amount,
                    peer,
                }
            }
        }
    }

    fn envelope(&mut self, wish: &Wish) -> Envelope {
        self.names += 1;
        let payout = matches!(wish, Wish::PayOut { .. });
        let alone = payout || matches!(wish, Wish::Open { .. } | Wish::Close { .. });
        let version2 = alone && (self.chance(25) || payout && self.chance(96));
        let now = self.world.now;
        let skew = match self.below(30) {
            0 => 300_001,
            1 => 300_000,
            _ => self.random.random_range(0..1_000),
        };
        let time = if self.chance(50) {
            now + skew
        } else {
            now - skew
        };
        Envelope {
            correlation: if self.chance(5) {
                format!("{}", self.below(10))
            } else {
                format!("token-{}", self.names)
            },
            idempotent: self.chance(10),
            fresh: version2.then(|| (time, self.random.random::<u8>())),
        }
    }

    fn request(&self, wish: &Wish, envelope: &Envelope) -> Request {
        let version = envelope.fresh.map(|(time_ms, nonce)| draft::Version2 {
            correlation: &envelope.correlation,
            tracker: self.world.tracker_id(),
            time_ms,
            nonce: [nonce; 16],
        });
        let version = version.as_ref();
        let pem = |peer: usize| self.peers[peer].pem.as_str();
        let single = |peer: usize, message: String| Payload::Single {
            message,
            pk: pem(peer).to_owned(),
            sign: String::new(),
        };
        let both = |payer: usize, payee: usize, message: String| Payload::CoSigned {
            message,
            from_pk: pem(payer).to_owned(),
            from_sign: String::new(),
            to_pk: pem(payee).to_owned(),
            to_sign: String::new(),
        };
        let (code, payload) = match wish {
            Wish::Open { spend, peer } => {
                let code = if *spend {
                    command::OPEN_SPEND
                } else {
                    command::OPEN_INCOME
                };
                (code, single(*peer, draft::bare(code, pem(*peer), version)))
            }
            Wish::OpenTransfer(contract, payer, payee) => {
                let text = draft::open_transfer(contract, pem(*payer), pem(*payee), None);
                (command::OPEN_TRANSFER, both(*payer, *payee, text))
            }
            Wish::CloseTransfer(contract, end, payer, payee) => {
                let text = draft::close_transfer(contract, end, pem(*payer), pem(*payee), None);
                (command::CLOSE_TRANSFER, both(*payer, *payee, text))
            }
            Wish::Park(contract, end, payer, payee) => {
                let text = draft::close_transfer(contract, end, pem(*payer), pem(*payee), None);
                (command::PARK, both(*payer, *payee, text))
            }
            Wish::Close {
                spend,
                address,
                peer,
            } => {
                let code = if *spend {
                    command::CLOSE_SPEND
                } else {
                    command::CLOSE_INCOME
                };
                let text = draft::about_address(code, address, pem(*peer), version);
                (code, single(*peer, text))
            }
            Wish::PayOut {
                wallet,
                amount,
                peer,
            } => {
                let text = match version {
                    Some(version) => {
                        draft::pay_out(wallet, &self.pay_to, *amount, pem(*peer), version)
                    }
                    None => draft::about_address(command::PAY_OUT, wallet, pem(*peer), None),
                };
                (command::PAY_OUT, single(*peer, text))
            }
        };
        Request {
            command: code,
            correlation: envelope.correlation.clone(),
            idempotent: envelope.idempotent,
            payload,
        }
    }

    fn pass_time(&mut self) {
        let ms = match self.below(400) {
            0 => self.random.random_range(0..7_200_000),
            1..4 => self.random.random_range(0..400_000),
            4..120 => 0,
            _ => self.random.random_range(0..8_000),
        };
        self.world.now += ms;
        if ms > 0 || self.chance(30) {
            self.world.height = self.world.height.next();
            // History may lag a little or not at all.
            let lag = self.random.random_range(1..4);
            let seen = Height(self.world.height.0.saturating_sub(lag));
            if seen > self.world.log.visible {
                self.world.log.visible = seen;
            }
            if self.chance(50) {
                self.world.book.forget(self.world.log.visible);
            }
        }
        self.model.now = self.world.now;
        self.model.expire();
    }

    /// Questions about now, before anything is swept.
    fn ask(&mut self) {
        let (book, log) = (&self.world.book, &self.world.log);
        let now = BlockTime(self.world.now);
        let place = match self.addresses.len() {
            0 => return,
            length => self.random.random_range(length.saturating_sub(40)..length),
        };
        let (address, owner) = &self.addresses[place];
        let state = book
            .address_state(address, now, log)
            .map(|state| reply::address_state(&state, &self.model.tracker))
            .map_err(|refusal| refusal.code.as_str());
        assert_eq!(state, self.model.state(address.as_str()));
        if !self.contracts.is_empty() {
            let length = self.contracts.len();
            let place = self.random.random_range(length.saturating_sub(40)..length);
            let id = &self.contracts[place].0.channel;
            assert_eq!(
                book.channel_state(id, now, log).code(),
                self.model.channel_code(id)
            );
        }
        let wallet = Address::common(&self.peers[*owner].pem);
        let state = book.common_state(&wallet, now, log).unwrap();
        assert_eq!(
            (state.fact, state.plan, state.profit),
            self.model.common(wallet.as_str())
        );
        let owned = book.owned(self.hashes[*owner], now);
        let open = |spend: bool| {
            let names = self.model.open_addresses.iter();
            let accounts = names.map(|address| &self.model.addresses[address]);
            let mine = accounts.filter(|account| {
                account.owner == *owner && account.spend == spend && account.closed.is_none()
            });
            mine.count()
        };
        assert_eq!(
            (owned.spends.len(), owned.incomes.len()),
            (open(true), open(false))
        );
    }

    fn step(&mut self) {
        self.pass_time();
        if self.chance(20) {
            self.ask();
        }
        if self.chance(1) {
            let amount = self.random.random_range(1..4_000);
            self.sweep();
            self.world.deposit(amount);
            self.model.minted += u128::from(amount);
            self.model.wallet += u128::from(amount);
        }
        let (wish, envelope) = match self.recent(self.sent.len()) {
            Some(place) if self.chance(5) => self.sent[place].clone(),
            _ => {
                let wish = self.wish();
                let envelope = self.envelope(&wish);
                self.sent.push((wish.clone(), envelope.clone()));
                (wish, envelope)
            }
        };
        self.sweep();
        let request = self.request(&wish, &envelope);
        let entries = self.world.log.entries.len();
        let found = self
            .world
            .prover
            .restore(request.clone())
            .and_then(|proven| match proven {
                Proven::Command(command) => self.world.decide(&command),
                other => panic!("no command: {other:?}"),
            })
            .and_then(|entry| reply::recorded(&request, &entry, &self.model.tracker))
            .map_err(|refusal| refusal.code.as_str());
        let recorded = self.world.log.entries.len() - entries;
        let expected = self.model.execute(&wish, &envelope);
        let found = match wish {
            // Names the TRANSFER that paid.
            Wish::PayOut { .. } => found.map(|_| "payout".to_owned()),
            _ => found,
        };
        assert_eq!(found, expected, "{wish:?} {envelope:?}");
        if found.is_err() {
            assert_eq!(recorded, 0, "a refusal leaves no trace");
        }
        if let (Wish::Open { peer, .. }, Ok(answer)) = (&wish, &found)
            && recorded > 0
        {
            let address = &answer[12..answer[12..].find('"').unwrap() + 12];
            self.addresses
                .push((Address::parse(address).unwrap(), *peer));
        }
        *self
            .counts
            .entry(expected.err().unwrap_or("ok"))
            .or_default() += 1;
    }

    /// In entries of any length.
    fn sweep(&mut self) {
        let at = BlockTime(self.world.now);
        loop {
            let max = self.random.random_range(1..6);
            let Some(entry) = self.world.book.due(at, max) else {
                break;
            };
            assert!(entry.records().len() <= max);
            self.world.record(&entry);
        }
        let due = self.world.book.next_due();
        assert!(due.is_none_or(|due| due > at));
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a whole number"))
}

#[test]
fn the_book_and_a_naive_model_answer_alike_and_stay_alike() {
    let mut seed = setting("TRACKER_MODEL_SEED").unwrap_or_else(|| rand::rng().random());
    let mut left = setting("TRACKER_MODEL_OPERATIONS").unwrap_or(RUN_OPERATIONS);
    while left > 0 {
        let operations = left.min(RUN_OPERATIONS);
        run(seed, operations);
        left -= operations;
        seed = seed.wrapping_add(1);
    }
}

fn run(seed: u64, operations: u64) {
    println!("TRACKER_MODEL_SEED={seed}");
    let mut run = Run::new(seed);
    for operation in 0..operations {
        run.step();
        if operation % 2_000 == 0 {
            run.model.check(&run.world.book);
            let bytes = run.world.book.encode();
            run.world.book = Book::decode(&bytes).unwrap();
            assert_eq!(run.world.book.encode(), bytes);
        }
    }
    run.model.check(&run.world.book);
    println!("{:?}", run.counts);
    // E11: the log alone gives the state.
    run.world.book.forget(run.world.log.visible);
    assert_eq!(run.world.replay().encode(), run.world.book.encode());
    if operations >= RUN_OPERATIONS {
        for code in [
            "ok",
            "already_closed",
            "bad_address",
            "bad_amount",
            "bad_count",
            "bad_message",
            "bad_volume",
            "channel_conflict",
            "corr_token_reuse",
            "expired",
            "has_open_channels",
            "insufficient_limit",
            "not_found",
            "not_owner",
            "overflow",
            "price_too_high",
            "price_too_low",
            "replayed",
            "stale",
            "too_many_open",
            "tracker_empty",
        ] {
            assert!(run.counts.contains_key(code), "{code} never came up");
        }
    }
}
