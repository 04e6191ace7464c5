//! Bounds on guessing passwords: how many attempts to log in may fail, from one address and for one
//! user, before both have to wait.
//!
//! An attempt is counted before its password is looked at and given back when it was right, so that
//! attempts at the same moment are bounded, too.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;

/// What may fail: so many at once, and one more each time so many milliseconds are over.
#[derive(Clone, Copy, Debug)]
struct Bound {
    at_once: u64,
    again_ms: u64,
}

/// Of one address: a person who mistypes, a program with an old password; 2,880 guesses a day.
const OF_ADDRESS: Bound = Bound {
    at_once: 20,
    again_ms: 30_000,
};
/// Of one user, from wherever: it comes back faster than one address can use it up, so that one guesser
/// does not lock a user out.
const OF_USER: Bound = Bound {
    at_once: 60,
    again_ms: 10_000,
};
/// Places for addresses and for users, of 8 bytes each. Which place is whose is decided by a secret of
/// the process: two share one by chance only, and nobody is forgotten because strangers come.
const PLACES: usize = 1 << 14;

/// Attempts to log in that failed lately.
#[derive(Debug)]
pub(super) struct Attempts {
    secret: RandomState,
    addresses: Places,
    users: Places,
}

/// For each place the moment, in milliseconds since 1970, at which all that failed is forgotten.
#[derive(Debug)]
struct Places {
    bound: Bound,
    forgotten_at: Mutex<Vec<u64>>,
}

/// An attempt that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    address: usize,
    user: usize,
}

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts {
            secret: RandomState::new(),
            addresses: Places::new(OF_ADDRESS),
            users: Places::new(OF_USER),
        }
    }
}

impl Attempts {
    /// Counts an attempt as one that failed. A name counts whether there is such a user or not: the
    /// answer must not tell.
    ///
    /// # Errors
    /// How long to wait when too many failed.
    pub(super) fn begin(&self, from: IpAddr, name: &str, now_ms: u64) -> Result<Attempt, Duration> {
        let attempt = Attempt {
            address: self.place(network(from)),
            user: self.place(name),
        };
        // An address that has to wait does not use up what others may try for the user.
        self.addresses.take(attempt.address, now_ms)?;
        self.users.take(attempt.user, now_ms).inspect_err(|_| {
            self.addresses.give_back(attempt.address);
        })?;
        Ok(attempt)
    }

    /// Takes back that an attempt failed: its password was right, or was never looked at.
    pub(super) fn forgive(&self, attempt: Attempt) {
        self.addresses.give_back(attempt.address);
        self.users.give_back(attempt.user);
    }

    fn place(&self, of: impl Hash) -> usize {
        // A remainder of the number of places is below it.
        (self.secret.hash_one(of) % PLACES as u64) as usize
    }
}

impl Places {
    fn new(bound: Bound) -> Places {
        Places {
            bound,
            forgotten_at: Mutex::new(vec![0; PLACES]),
        }
    }

    fn take(&self, place: usize, now_ms: u64) -> Result<(), Duration> {
        let Bound { at_once, again_ms } = self.bound;
        let latest = now_ms.saturating_add(at_once.saturating_mul(again_ms));
        let mut places = self.forgotten_at.lock();
        let forgotten_at = &mut places[place];
        // A clock that was set back locks nobody out for longer than the bound does.
        *forgotten_at = (*forgotten_at).clamp(now_ms, latest);
        let next = forgotten_at.saturating_add(again_ms);
        if next > latest {
            return Err(Duration::from_millis(next - latest));
        }
        *forgotten_at = next;
        Ok(())
    }

    fn give_back(&self, place: usize) {
        let mut places = self.forgotten_at.lock();
        let forgotten_at = &mut places[place];
        *forgotten_at = forgotten_at.saturating_sub(self.bound.again_ms);
    }
}

/// One customer's addresses: a v6 customer has at least a /64.
fn network(address: IpAddr) -> IpAddr {
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn so_many_attempts_of_an_address_may_fail_and_then_one_each_time() {
        let attempts = Attempts::default();
        let one = address("10.0.0.1");
        for number in 0..OF_ADDRESS.at_once {
            let name = format!("user{number}");
            assert!(attempts.begin(one, &name, NOW).is_ok(), "{number}");
        }
        let wait = attempts.begin(one, "other", NOW).unwrap_err();
        assert_eq!(wait, Duration::from_millis(OF_ADDRESS.again_ms));
        let early = attempts.begin(one, "other", NOW + 10_000).unwrap_err();
        assert_eq!(early, Duration::from_millis(OF_ADDRESS.again_ms - 10_000));
        let later = NOW + OF_ADDRESS.again_ms;
        assert!(attempts.begin(one, "other", later).is_ok());
        assert!(attempts.begin(one, "other", later).is_err());
        assert!(attempts.begin(address("10.0.0.2"), "other", later).is_ok());
    }

    #[test]
    fn so_many_attempts_for_a_user_may_fail_from_wherever_they_come() {
        let attempts = Attempts::default();
        let from = |number: u64| address(&format!("10.0.1.{number}"));
        for number in 0..OF_USER.at_once {
            assert!(attempts.begin(from(number), "alice", NOW).is_ok());
        }
        assert!(attempts.begin(address("10.0.2.1"), "alice", NOW).is_err());
        let later = NOW + OF_USER.again_ms;
        assert!(attempts.begin(address("10.0.2.1"), "alice", later).is_ok());
    }

    #[test]
    fn one_address_alone_locks_no_user_out() {
        let attempts = Attempts::default();
        let guesser = address("10.0.0.1");
        let mut tried = 0;
        // Three hours of nothing but guesses, ten each second of the first minutes and then slower.
        for second in 0..10_800 {
            let now = NOW + second * 1_000;
            while attempts.begin(guesser, "alice", now).is_ok() {
                tried += 1;
            }
        }
        assert_eq!(tried, OF_ADDRESS.at_once + 10_799_000 / OF_ADDRESS.again_ms);
        let now = NOW + 10_800_000;
        assert!(attempts.begin(address("10.0.0.2"), "alice", now).is_ok());
    }

    #[test]
    fn a_right_password_is_no_attempt_however_often_it_is_shown() {
        let attempts = Attempts::default();
        let one = address("10.0.0.1");
        for _ in 0..1_000 {
            let attempt = attempts.begin(one, "alice", NOW).unwrap();
            attempts.forgive(attempt);
        }
    }

    #[test]
    fn addresses_of_one_v6_network_are_one_and_a_mapped_v4_address_is_itself() {
        let attempts = Attempts::default();
        for number in 0..OF_ADDRESS.at_once {
            let from = address(&format!("2001:db8::{number:x}"));
            assert!(attempts.begin(from, &format!("u{number}"), NOW).is_ok());
        }
        assert!(attempts.begin(address("2001:db8::ffff"), "x", NOW).is_err());
        assert!(attempts.begin(address("2001:db8:0:1::1"), "x", NOW).is_ok());
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer() {
        let attempts = Attempts::default();
        let one = address("10.0.0.1");
        for _ in 0..OF_ADDRESS.at_once {
            attempts.begin(one, "alice", NOW).unwrap();
        }
        let year_before = NOW - 365 * 24 * 60 * 60 * 1_000;
        let wait = attempts.begin(one, "alice", year_before).unwrap_err();
        assert_eq!(wait, Duration::from_millis(OF_ADDRESS.again_ms));
        let later = year_before + OF_ADDRESS.again_ms;
        assert!(attempts.begin(one, "bob", later).is_ok());
        let other = address("10.0.0.2");
        let wait = attempts.begin(other, "alice", later).unwrap_err();
        assert_eq!(wait, Duration::from_millis(OF_USER.again_ms));
        let later = later + OF_USER.again_ms;
        assert!(attempts.begin(other, "alice", later).is_ok());
    }
}
