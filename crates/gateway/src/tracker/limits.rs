//! Bounds on what one network may open (wallet tracker, section 17.9). What one key may is a rule of the
//! book.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use daybook_ledger::BlockTime;
use parking_lot::Mutex;

use crate::rate::network;

/// Networks that are remembered: 100 bytes each and 70 for each address. Beyond it those that have
/// nothing open any more are forgotten, and then newcomers are not counted.
const NETWORKS_MAX: usize = 1 << 16;

/// Open spend addresses by the network that opened them. A restart forgets them; they live half an hour.
pub(super) struct Spends {
    max: usize,
    networks: Mutex<HashMap<IpAddr, Network>>,
}

#[derive(Default)]
struct Network {
    /// Opens that wait for their block.
    waiting: usize,
    /// Addresses and their locks in milliseconds.
    open: Vec<(Arc<str>, u64)>,
}

/// Room for one more address.
pub(super) struct Place {
    spends: Weak<Spends>,
    network: IpAddr,
}

impl Spends {
    pub(super) fn new(max: usize) -> Arc<Spends> {
        Arc::new(Spends {
            max,
            networks: Mutex::default(),
        })
    }

    /// Room for one more spend address of a peer's network; `None` when it has enough. `is_open` tells
    /// whether an address before its lock is still open.
    pub(super) fn place(
        self: &Arc<Spends>,
        peer: IpAddr,
        now: BlockTime,
        is_open: impl Fn(&str) -> bool,
    ) -> Option<Place> {
        let key = network(peer);
        let mut networks = self.networks.lock();
        if networks.len() >= NETWORKS_MAX && !networks.contains_key(&key) {
            networks.retain(|_, network| {
                network.open.retain(|(_, lock)| *lock >= now.0);
                network.waiting > 0 || !network.open.is_empty()
            });
        }
        let is_uncounted = networks.len() >= NETWORKS_MAX && !networks.contains_key(&key);
        // Made only when it is given away: giving it back takes the lock.
        let place = || Place {
            spends: if is_uncounted {
                Weak::new()
            } else {
                Arc::downgrade(self)
            },
            network: key,
        };
        if is_uncounted {
            return Some(place());
        }
        let network = networks.entry(key).or_default();
        network.open.retain(|(_, lock)| *lock >= now.0);
        if network.waiting + network.open.len() >= self.max {
            network.open.retain(|(address, _)| is_open(address));
        }
        if network.waiting + network.open.len() >= self.max {
            return None;
        }
        network.waiting += 1;
        Some(place())
    }
}

impl Place {
    /// The address is open.
    pub(super) fn take(self, address: Arc<str>, lock: u64) {
        if let Some(spends) = self.spends.upgrade()
            && let Some(network) = spends.networks.lock().get_mut(&self.network)
            && !network.open.iter().any(|(other, _)| *other == address)
        {
            network.open.push((address, lock));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(spends) = self.spends.upgrade()
            && let Some(network) = spends.networks.lock().get_mut(&self.network)
        {
            network.waiting = network.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_room_again_when_its_addresses_close_or_pass_their_lock() {
        let spends = Spends::new(2);
        let now = BlockTime(1_000);
        let open = |_: &str| true;
        let first = spends.place(peer("10.0.0.1"), now, open).unwrap();
        let second = spends.place(peer("10.0.0.1"), now, open).unwrap();
        assert!(spends.place(peer("10.0.0.1"), now, open).is_none());
        assert!(spends.place(peer("10.0.0.2"), now, open).is_some());
        first.take("a".into(), 2_000);
        drop(second);
        let third = spends.place(peer("10.0.0.1"), now, open).unwrap();
        third.take("b".into(), 3_000);
        assert!(spends.place(peer("10.0.0.1"), now, open).is_none());
        assert!(
            spends
                .place(peer("10.0.0.1"), now, |name| name != "b")
                .is_some()
        );
        assert!(
            spends
                .place(peer("10.0.0.1"), BlockTime(2_001), open)
                .is_some()
        );
    }

    #[test]
    fn a_v6_customer_is_one_network() {
        let spends = Spends::new(1);
        let open = |_: &str| true;
        let _place = spends
            .place(peer("2001:db8::1"), BlockTime(1), open)
            .unwrap();
        assert!(
            spends
                .place(peer("2001:db8::2"), BlockTime(1), open)
                .is_none()
        );
        assert!(
            spends
                .place(peer("2001:db8:0:1::1"), BlockTime(1), open)
                .is_some()
        );
    }
}
