//! Bounds on what one network may ask for, by token buckets, and have at a time, by shares.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Addresses that are remembered at once: 65,536 × about 48 bytes is 3 MB. An address that is forgotten
/// starts with a full bucket.
const ADDRESSES_MAX: usize = 1 << 16;

/// What one address may ask for. A request costs one, and so does each transaction of a bulk door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests per second in the long run.
    pub per_second: f64,
    /// Requests at once after a pause.
    pub burst: f64,
}

impl Default for Rate {
    /// Far above what a person or a form needs, far below what hurts.
    fn default() -> Rate {
        Rate {
            per_second: 1_000.0,
            burst: 5_000.0,
        }
    }
}

/// The buckets of all addresses.
#[derive(Debug)]
pub(crate) struct Rates {
    rate: Rate,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    pub(crate) fn new(rate: Rate) -> Rates {
        Rates {
            rate,
            buckets: Mutex::default(),
        }
    }

    /// Takes `count` tokens from an address's bucket. A bucket that holds anything gives all of them and
    /// goes into debt, so that a large piece is never starved.
    ///
    /// # Errors
    /// How long to wait when the bucket is empty.
    pub(crate) fn take(&self, address: IpAddr, count: u32, now: Instant) -> Result<(), Duration> {
        let Rate { per_second, burst } = self.rate;
        let mut buckets = self.buckets.lock();
        let key = network(address);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&key) {
            let full = |bucket: &Bucket| bucket.filled(per_second, now) >= burst;
            buckets.retain(|_, bucket| !full(bucket));
            if buckets.len() >= ADDRESSES_MAX {
                // Every one of them is busy: forgetting costs less than refusing a stranger.
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            tokens: burst,
            at: now,
        });
        bucket.tokens = bucket.filled(per_second, now).min(burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            let seconds = (1.0 - bucket.tokens) / per_second.max(f64::MIN_POSITIVE);
            return Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
        bucket.tokens -= f64::from(count);
        Ok(())
    }
}

impl Bucket {
    fn filled(&self, per_second: f64, now: Instant) -> f64 {
        self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * per_second
    }
}

/// What each network has of something that there is only so much of. Who shares it out keeps one for each
/// such thing.
#[derive(Debug)]
pub(crate) struct Shares {
    /// For one network.
    max: usize,
    /// This machine's own addresses are no network: whoever is behind a proxy comes from there.
    exempts_loopback: bool,
    /// By network, of those that have any: no more than there are shares.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A part of a network's share; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    /// `None` for whom nothing is counted.
    network: Option<IpAddr>,
    count: usize,
}

impl Shares {
    pub(crate) fn new(max: usize, exempts_loopback: bool) -> Arc<Shares> {
        Arc::new(Shares {
            max,
            exempts_loopback,
            taken: Mutex::default(),
        })
    }

    /// Takes `count` for a peer's network; `None` when it has so much already that they do not fit.
    pub(crate) fn take(self: &Arc<Shares>, peer: IpAddr, count: usize) -> Option<Share> {
        let share = |network| Share {
            shares: self.clone(),
            network,
            count,
        };
        if self.exempts_loopback && peer.to_canonical().is_loopback() {
            return Some(share(None));
        }
        let key = network(peer);
        let mut all = self.taken.lock();
        let taken = all.get(&key).copied().unwrap_or_default();
        let taken = taken.checked_add(count).filter(|sum| *sum <= self.max)?;
        all.insert(key, taken);
        Some(share(Some(key)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut all = self.shares.taken.lock();
        let left = all.get(&network).copied().unwrap_or_default();
        match left.saturating_sub(self.count) {
            0 => drop(all.remove(&network)),
            left => drop(all.insert(network, left)),
        }
    }
}

/// One customer's addresses: a v6 customer has at least a /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_served_and_then_the_rate_holds() {
        let rates = Rates::new(Rate {
            per_second: 10.0,
            burst: 3.0,
        });
        let address: IpAddr = "10.0.0.1".parse().expect("an address");
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(rates.take(address, 1, start), Ok(()));
        }
        let wait = rates
            .take(address, 1, start)
            .expect_err("the bucket is empty");
        assert!(wait <= Duration::from_millis(101), "{wait:?}");
        assert_eq!(
            rates.take(address, 1, start + Duration::from_millis(150)),
            Ok(())
        );
        assert!(
            rates
                .take(address, 1, start + Duration::from_millis(160))
                .is_err()
        );
    }

    #[test]
    fn a_large_piece_is_taken_at_once_and_paid_for_later() {
        let rates = Rates::new(Rate {
            per_second: 10.0,
            burst: 5.0,
        });
        let address: IpAddr = "10.0.0.1".parse().expect("an address");
        let start = Instant::now();
        assert_eq!(rates.take(address, 25, start), Ok(()));
        let wait = rates.take(address, 1, start).expect_err("in debt");
        assert!(wait > Duration::from_secs(2), "{wait:?}");
    }

    #[test]
    fn one_network_has_its_share_and_no_more_and_gets_it_again() {
        let shares = Shares::new(3, true);
        let take = |text: &str, count| shares.take(text.parse().expect("an address"), count);
        let two = take("10.0.0.1", 2);
        let one = take("10.0.0.1", 1);
        assert!(two.is_some() && one.is_some());
        assert!(take("10.0.0.1", 1).is_none());
        assert!(take("::ffff:10.0.0.1", 1).is_none(), "the same address");
        assert!(take("10.0.0.2", 3).is_some(), "another one has its own");
        assert!(take("10.0.0.2", 4).is_none());
        drop(two);
        assert!(take("10.0.0.1", 3).is_none());
        assert!(take("10.0.0.1", 2).is_some());
        drop(one);
        assert!(take("10.0.0.1", usize::MAX).is_none());
        assert!(shares.taken.lock().is_empty(), "nothing is remembered");
    }

    #[test]
    fn this_machines_own_addresses_may_be_no_network() {
        let peer: IpAddr = "::1".parse().expect("an address");
        assert!(Shares::new(1, true).take(peer, 9).is_some());
        assert!(Shares::new(1, false).take(peer, 9).is_none());
    }

    #[test]
    fn addresses_do_not_share_a_bucket_unless_they_are_of_one_v6_network() {
        let rates = Rates::new(Rate {
            per_second: 1.0,
            burst: 1.0,
        });
        let now = Instant::now();
        let take = |text: &str| {
            rates
                .take(text.parse().expect("an address"), 1, now)
                .is_ok()
        };
        assert!(take("10.0.0.1") && take("10.0.0.2") && !take("10.0.0.1"));
        assert!(take("2001:db8::1") && !take("2001:db8::2") && take("2001:db8:0:1::1"));
        assert!(!take("::ffff:10.0.0.2"));
    }
}
