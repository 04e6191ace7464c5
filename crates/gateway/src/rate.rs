//! A bound on the requests of one address: token buckets.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
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
