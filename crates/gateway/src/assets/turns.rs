//! Turns at making lists: so many at once, and so many of them for one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::rate::network;

/// Lists that are made at once: each holds a thread and a few pieces while it is read.
const LISTS_MAX: usize = 64;

/// How long a list waits for others to end before the client is asked to come again.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that are noted before those that nobody uses any more are looked for: 4,096 × about 64 bytes.
const ADDRESSES_NOTED: usize = 4_096;

/// Who may make a list now.
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// Turns of each address that has or wants any.
    of_addresses: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    per_address_max: usize,
}

/// A turn; over when dropped.
pub(crate) struct Turn {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(per_address_max: usize) -> Turns {
        Turns::of(LISTS_MAX, per_address_max)
    }

    /// Turns at lists of another kind: `all_max` at once.
    pub(crate) fn of(all_max: usize, per_address_max: usize) -> Turns {
        Turns {
            all: Arc::new(Semaphore::new(all_max)),
            of_addresses: Mutex::default(),
            per_address_max,
        }
    }

    /// Waits for a turn, within a bound: first among the lists of the same address, then among all, so
    /// that whoever asks for many waits for himself. `None` when it did not come.
    pub(crate) async fn take(&self, peer: IpAddr) -> Option<Turn> {
        let of_address = self.of_address(network(peer));
        let turn = async {
            Some(Turn {
                _of_address: of_address.acquire_owned().await.ok()?,
                _of_all: self.all.clone().acquire_owned().await.ok()?,
            })
        };
        timeout(TURN_TIMEOUT, turn).await.ok().flatten()
    }

    fn of_address(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut noted = self.of_addresses.lock();
        if let Some(turns) = noted.get(&address).and_then(Weak::upgrade) {
            return turns;
        }
        if noted.len() >= ADDRESSES_NOTED {
            noted.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Arc::new(Semaphore::new(self.per_address_max));
        noted.insert(address, Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_address_takes_its_share_and_no_more_and_another_still_has_its_own() {
        let turns = Turns::new(3);
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(turns.take(one).await.expect("a share of three"));
        }
        assert!(turns.take(one).await.is_none(), "a fourth waits in vain");
        assert!(turns.take(other).await.is_some());
        held.pop();
        assert!(turns.take(one).await.is_some(), "what ended makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_together_take_what_there_is() {
        let turns = Turns::new(LISTS_MAX);
        let mut held = Vec::new();
        for last in 0..LISTS_MAX {
            let peer = [10, 0, 1, last as u8].into();
            held.push(turns.take(peer).await.expect("there is room"));
        }
        assert!(turns.take([10, 0, 2, 1].into()).await.is_none());
        held.clear();
        assert!(turns.take([10, 0, 2, 1].into()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn another_kind_of_lists_has_its_own_number_and_no_address_takes_all() {
        let turns = Turns::of(4, 2);
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held = Vec::new();
        for peer in [one, one, other, other] {
            held.push(turns.take(peer).await.expect("a share of two"));
        }
        assert!(turns.take([10, 0, 0, 3].into()).await.is_none());
    }

    #[tokio::test]
    async fn addresses_that_left_are_forgotten() {
        let turns = Turns::new(1);
        for number in 0..3 * ADDRESSES_NOTED as u32 {
            let peer = std::net::Ipv4Addr::from(number).into();
            turns.take(peer).await.expect("nobody else is there");
        }
        assert!(turns.of_addresses.lock().len() <= ADDRESSES_NOTED);
    }
}
