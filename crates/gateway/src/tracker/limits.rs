//! Bounds on what one network may have of what all share: requests under way, open spend addresses and
//! the tokens that were granted to them (wallet tracker, section 17.9). What one key may is a rule of the
//! book.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Weak},
};

use daybook_ledger::{
    BlockTime,
    tracker::{AddressKind, Fact, Record, command},
};
use parking_lot::Mutex;

use crate::rate::{Share, Shares, network};

/// Networks that are remembered: 200 bytes each and 70 for each address. Beyond it those that have
/// nothing open or owed any more are forgotten, and then newcomers are not counted.
const NETWORKS_MAX: usize = 1 << 16;

/// How long tokens that left the tracker count for the network that they were granted to, in hours: a day.
const GONE_HOURS: u64 = 24;

const HOUR_MS: u64 = 3_600_000;

/// What may be under way of each network. Receipts are counted apart from all other requests, as they
/// have room of their own in the node.
pub(super) struct UnderWay {
    asking: Weights,
    settling: Weights,
}

/// Requests, and the bytes of them.
struct Weights {
    requests: Arc<Shares>,
    bytes: Arc<Shares>,
}

impl UnderWay {
    /// One part in `parts` of what the node takes at once, in requests and in bytes.
    pub(super) fn new(capacity: (usize, usize), parts: usize, exempts_loopback: bool) -> UnderWay {
        let share = |all: usize| Shares::new((all / parts.max(1)).max(1), exempts_loopback);
        let weights = || Weights {
            requests: share(capacity.0),
            bytes: share(capacity.1.max(parts << 16)),
        };
        UnderWay {
            asking: weights(),
            settling: weights(),
        }
    }

    /// Room for one more request; `None` when the peer's network has enough of them under way.
    pub(super) fn begin(&self, peer: IpAddr, code: u64, bytes: usize) -> Option<[Share; 2]> {
        let weights = match code {
            command::CLOSE_TRANSFER | command::PARK => &self.settling,
            _ => &self.asking,
        };
        Some([
            weights.requests.take(peer, 1)?,
            weights.bytes.take(peer, bytes)?,
        ])
    }
}

/// Open spend addresses, and the tokens that were granted to them, by the network that opened them. A
/// restart forgets them.
///
/// Whoever opens an address can keep what it holds, by a channel to a wallet of his own. So tokens count for
/// a network until they are back in the tracker's wallet: those on its spend addresses, those that these
/// paid to income addresses, and for a day those that left.
pub(super) struct Spends {
    /// Addresses that one network may have open.
    open_max: usize,
    /// Grants that one network may have out in a day; `None` for any number.
    grants_max: Option<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    networks: HashMap<IpAddr, Network>,
    /// Whose tokens are on an open address. No more than the book has open addresses.
    addresses: HashMap<Arc<str>, Vec<(IpAddr, u64)>>,
}

#[derive(Default)]
struct Network {
    /// Opens that wait for their block.
    waiting: usize,
    /// Addresses and their locks in milliseconds.
    open: Vec<(Arc<str>, u64)>,
    /// Tokens on open addresses.
    out: u64,
    /// Tokens that left, by the hour since 1970.
    gone: VecDeque<(u64, u64)>,
}

/// Room for one more address.
pub(super) struct Place {
    spends: Weak<Spends>,
    network: IpAddr,
}

impl Network {
    /// Tokens that are not back in the tracker's wallet, those that left more than a day ago aside.
    fn unreturned(&mut self, now: BlockTime) -> u64 {
        let hour = now.0 / HOUR_MS;
        self.gone.retain(|(then, _)| then + GONE_HOURS > hour);
        let gone = self.gone.iter().map(|(_, tokens)| *tokens);
        gone.fold(self.out, u64::saturating_add)
    }

    fn leave(&mut self, tokens: u64, now: BlockTime) {
        self.out = self.out.saturating_sub(tokens);
        let hour = now.0 / HOUR_MS;
        match self.gone.back_mut() {
            Some((newest, sum)) if *newest == hour => *sum = sum.saturating_add(tokens),
            _ => self.gone.push_back((hour, tokens)),
        }
        while self.gone.len() as u64 > GONE_HOURS {
            self.gone.pop_front();
        }
    }

    fn is_idle(&mut self, now: BlockTime) -> bool {
        self.open.retain(|(_, lock)| *lock >= now.0);
        self.waiting == 0 && self.open.is_empty() && self.unreturned(now) == 0
    }
}

impl Spends {
    pub(super) fn new(open_max: usize, grants_max: Option<u64>) -> Arc<Spends> {
        Arc::new(Spends {
            open_max,
            grants_max,
            state: Mutex::default(),
        })
    }

    /// Room for one more spend address of a peer's network, which would get `grant` tokens.
    ///
    /// # Errors
    /// What there is too much of. `is_open` tells whether an address before its lock is still open.
    pub(super) fn place(
        self: &Arc<Spends>,
        peer: IpAddr,
        now: BlockTime,
        grant: u64,
        is_open: impl Fn(&str) -> bool,
    ) -> Result<Place, &'static str> {
        let key = network(peer);
        let mut state = self.state.lock();
        let networks = &mut state.networks;
        if networks.len() >= NETWORKS_MAX && !networks.contains_key(&key) {
            networks.retain(|_, network| !network.is_idle(now));
        }
        // Made only when it is given away: giving it back takes the lock.
        let place = |spends| Place {
            spends,
            network: key,
        };
        if networks.len() >= NETWORKS_MAX && !networks.contains_key(&key) {
            return Ok(place(Weak::new()));
        }
        let network = networks.entry(key).or_default();
        network.open.retain(|(_, lock)| *lock >= now.0);
        if network.waiting + network.open.len() >= self.open_max {
            network.open.retain(|(address, _)| is_open(address));
        }
        if network.waiting + network.open.len() >= self.open_max {
            return Err("too many spend addresses of this network are open");
        }
        if let Some(grants) = self.grants_max {
            let waiting = (network.waiting as u64).saturating_add(1);
            let wanted = network
                .unreturned(now)
                .saturating_add(grant.saturating_mul(waiting));
            if wanted > grant.saturating_mul(grants) {
                return Err("too many tokens granted to this network have not come back today");
            }
        }
        network.waiting += 1;
        Ok(place(Arc::downgrade(self)))
    }

    /// Follows what becomes of granted tokens: each record of the log once, in order.
    pub(super) fn follow(&self, record: &Record) {
        let now = BlockTime(record.timestamp);
        match &record.fact {
            Fact::CloseTransfer { settled, .. } if settled.tokens > 0 => {
                self.state
                    .lock()
                    .pay(&record.from, &record.to, settled.tokens, now);
            }
            Fact::CloseAddress(_) => self.state.lock().come_back(&record.from),
            _ => {}
        }
    }
}

impl State {
    /// Tokens go from a spend address to an income address, or away.
    fn pay(&mut self, from: &Arc<str>, to: &Arc<str>, tokens: u64, now: BlockTime) {
        let Some([(network, left)]) = self.addresses.get_mut(from).map(Vec::as_mut_slice) else {
            return;
        };
        let (network, tokens) = (*network, tokens.min(*left));
        *left -= tokens;
        if AddressKind::of(to) == Some(AddressKind::Income) {
            let there = self.addresses.entry(to.clone()).or_default();
            match there.iter_mut().find(|(other, _)| *other == network) {
                Some((_, sum)) => *sum = sum.saturating_add(tokens),
                None => there.push((network, tokens)),
            }
        } else if let Some(network) = self.networks.get_mut(&network) {
            network.leave(tokens, now);
        }
    }

    /// An address closes, and what is on it is the tracker's again.
    fn come_back(&mut self, address: &Arc<str>) {
        for (network, tokens) in self.addresses.remove(address).unwrap_or_default() {
            if let Some(network) = self.networks.get_mut(&network) {
                network.out = network.out.saturating_sub(tokens);
                network.open.retain(|(other, _)| other != address);
            }
        }
    }
}

impl Place {
    /// The address is open, with so many tokens.
    pub(super) fn take(self, address: Arc<str>, lock: u64, tokens: u64) {
        let Some(spends) = self.spends.upgrade() else {
            return;
        };
        let mut state = spends.state.lock();
        let State {
            networks,
            addresses,
        } = &mut *state;
        if let Some(network) = networks.get_mut(&self.network)
            && !network.open.iter().any(|(other, _)| *other == address)
        {
            network.open.push((address.clone(), lock));
            network.out = network.out.saturating_add(tokens);
            addresses.insert(address, vec![(self.network, tokens)]);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(spends) = self.spends.upgrade()
            && let Some(network) = spends.state.lock().networks.get_mut(&self.network)
        {
            network.waiting = network.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::tracker::Address;

    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const GRANT: u64 = 10_000;

    #[test]
    fn a_network_has_room_again_when_its_addresses_close_or_pass_their_lock() {
        let spends = Spends::new(2, None);
        let now = BlockTime(1_000);
        let open = |_: &str| true;
        let place = |text: &str, now, is_open: &dyn Fn(&str) -> bool| {
            spends.place(peer(text), now, GRANT, is_open).ok()
        };
        let first = place("10.0.0.1", now, &open).unwrap();
        let second = place("10.0.0.1", now, &open).unwrap();
        assert!(place("10.0.0.1", now, &open).is_none());
        assert!(place("10.0.0.2", now, &open).is_some());
        first.take("a".into(), 2_000, GRANT);
        drop(second);
        let third = place("10.0.0.1", now, &open).unwrap();
        third.take("b".into(), 3_000, GRANT);
        assert!(place("10.0.0.1", now, &open).is_none());
        assert!(place("10.0.0.1", now, &|name| name != "b").is_some());
        assert!(place("10.0.0.1", BlockTime(2_001), &open).is_some());
    }

    #[test]
    fn a_v6_customer_is_one_network() {
        let spends = Spends::new(1, None);
        let place = |text: &str| spends.place(peer(text), BlockTime(1), GRANT, |_| true).ok();
        let _place = place("2001:db8::1").unwrap();
        assert!(place("2001:db8::2").is_none());
        assert!(place("2001:db8:0:1::1").is_some());
    }

    /// A network that may have three grants out, and the addresses that it opens.
    struct Stranger {
        spends: Arc<Spends>,
        now: BlockTime,
        opened: u64,
    }

    impl Stranger {
        fn new() -> Stranger {
            Stranger {
                spends: Spends::new(100, Some(3)),
                now: BlockTime(1_700_000_000_000),
                opened: 0,
            }
        }

        fn address(&mut self, kind: AddressKind) -> Arc<str> {
            self.opened += 1;
            let address = Address::channel_end(kind, "T", "P", self.opened);
            address.text().clone()
        }

        /// Opens a spend address, if it may.
        fn open(&mut self) -> Option<Arc<str>> {
            let place = self
                .spends
                .place(peer("10.0.0.1"), self.now, GRANT, |_| true);
            let place = place.ok()?;
            let address = self.address(AddressKind::Spend);
            place.take(address.clone(), self.now.0 + 1_800_000, GRANT);
            Some(address)
        }

        fn pay(&mut self, from: &Arc<str>, to: &Arc<str>, tokens: u64) {
            self.spends.state.lock().pay(from, to, tokens, self.now);
        }

        fn close(&mut self, address: &Arc<str>) {
            self.spends.state.lock().come_back(address);
        }
    }

    #[test]
    fn who_keeps_the_grants_gets_no_more_until_the_next_day() {
        let mut stranger = Stranger::new();
        let wallet: Arc<str> = Address::common("P").text().clone();
        for _ in 0..3 {
            let address = stranger.open().unwrap();
            stranger.pay(&address, &wallet, GRANT);
            stranger.close(&address);
        }
        assert!(stranger.open().is_none(), "nothing of it came back");
        let other = stranger
            .spends
            .place(peer("10.0.0.2"), stranger.now, GRANT, |_| true);
        assert!(other.is_ok(), "another network has its own");
        stranger.now.0 += 23 * HOUR_MS;
        assert!(stranger.open().is_none());
        stranger.now.0 += HOUR_MS;
        assert!(stranger.open().is_some());
    }

    #[test]
    fn who_gives_back_what_he_did_not_spend_never_notices() {
        let mut stranger = Stranger::new();
        for _ in 0..50 {
            let (spend, income) = (
                stranger.open().unwrap(),
                stranger.address(AddressKind::Income),
            );
            stranger.pay(&spend, &income, 4_000);
            stranger.pay(&spend, &income, 2_000);
            stranger.close(&spend);
            stranger.close(&income);
        }
        assert_eq!(stranger.spends.state.lock().addresses.len(), 0);
        let wallet: Arc<str> = Address::common("P").text().clone();
        let spend = stranger.open().unwrap();
        stranger.pay(&spend, &wallet, 1);
        stranger.close(&spend);
        assert!(stranger.open().is_some() && stranger.open().is_some());
        assert!(stranger.open().is_none(), "a token less than a grant");
    }

    #[test]
    fn tokens_on_an_income_address_are_out_until_it_closes() {
        let mut stranger = Stranger::new();
        let income = stranger.address(AddressKind::Income);
        for _ in 0..3 {
            let spend = stranger.open().unwrap();
            stranger.pay(&spend, &income, GRANT);
            stranger.close(&spend);
        }
        assert!(stranger.open().is_none());
        stranger.close(&income);
        assert!(stranger.open().is_some());
    }

    #[test]
    fn opens_that_wait_for_their_block_count_as_granted() {
        let spends = Spends::new(100, Some(2));
        let place = || spends.place(peer("10.0.0.1"), BlockTime(1), GRANT, |_| true);
        let (one, two) = (place(), place());
        assert!(one.is_ok() && two.is_ok() && place().is_err());
        drop(one);
        assert!(place().is_ok());
    }

    #[test]
    fn a_network_has_a_share_of_what_is_under_way_and_receipts_have_one_of_their_own() {
        let under_way = UnderWay::new((16, 16 << 16), 8, true);
        let begin = |text: &str, code| under_way.begin(peer(text), code, 5_000);
        let held = [begin("10.0.0.1", 256), begin("10.0.0.1", 4)];
        assert!(held.iter().all(Option::is_some));
        assert!(begin("10.0.0.1", 256).is_none());
        assert!(begin("10.0.0.1", command::CLOSE_TRANSFER).is_some());
        assert!(begin("10.0.0.1", command::PARK).is_some());
        assert!(begin("10.0.0.2", 256).is_some() && begin("127.0.0.1", 256).is_some());
        drop(held);
        assert!(begin("10.0.0.1", 256).is_some());
        // The longest frame always fits.
        assert!(
            UnderWay::new((8, 100), 8, true)
                .begin(peer("10.0.0.1"), 4, 1 << 16)
                .is_some()
        );
    }
}
