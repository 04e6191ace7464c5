//! What the broker counts.

use std::collections::BTreeMap;

use crate::{Code, Moment};

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub requests: u64,
    pub repeated: u64,
    pub deliveries: u64,
    pub redeliveries: u64,
    pub responses: u64,
    /// Answers to requesters that are gone.
    pub orphans: u64,
    /// Answers that came after the first, or after the deadline.
    pub late: u64,
    /// Messages that did not fit into a receiver's outbound queue.
    pub dropped: u64,
    pub stored: u64,
    pub acknowledged: u64,
    pub dead: u64,
    /// Answers that were forgotten before their window ended, for want of room.
    pub forgotten: u64,
    /// Refusals by code.
    pub refused: BTreeMap<Code, u64>,
}

/// Seconds over which the pace of requests is told: long enough to be steady, short enough to follow.
const PACE_SECONDS: u64 = 5;
/// Seconds that are counted apart: those, and the one that is not over.
const SLOTS: usize = PACE_SECONDS as usize + 1;

/// Requests of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The second that is not over, since 1970.
    second: u64,
    slots: [u64; SLOTS],
}

impl Pace {
    pub(crate) fn count(&mut self, now: Moment) {
        self.advance(now);
        self.slots[slot(self.second)] += 1;
    }

    /// Requests per second, over the last seconds that are over.
    pub(crate) fn per_second(&self, now: Moment) -> f64 {
        let this = second(now);
        let past = (this.saturating_sub(PACE_SECONDS)..this)
            .filter(|second| *second <= self.second && self.second - second < SLOTS as u64);
        let sum: u64 = past.map(|second| self.slots[slot(second)]).sum();
        sum as f64 / PACE_SECONDS as f64
    }

    fn advance(&mut self, now: Moment) {
        let this = second(now);
        let passed = this.saturating_sub(self.second).min(SLOTS as u64);
        for gone in 0..passed {
            self.slots[slot(this - gone)] = 0;
        }
        self.second = self.second.max(this);
    }
}

fn second(now: Moment) -> u64 {
    now.millis() / 1_000
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_five_seconds_and_falls_to_nothing() {
        let at = |ms: u64| Moment(1_767_225_600_000_000).after_ms(ms);
        let mut pace = Pace::default();
        for n in 0..100 {
            pace.count(at(n * 100));
        }
        // Ten in each second; the one that is not over does not count yet.
        assert_eq!(pace.per_second(at(9_950)), 10.0);
        assert_eq!(pace.per_second(at(12_000)), 6.0);
        assert_eq!(pace.per_second(at(14_999)), 2.0);
        assert_eq!(pace.per_second(at(15_000)), 0.0);
        pace.count(at(60_000));
        assert_eq!(pace.per_second(at(61_000)), 0.2);
    }
}
