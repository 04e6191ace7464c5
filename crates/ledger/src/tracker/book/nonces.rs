//! Nonces of version 2 messages: each counts once (wallet tracker, section 17.2).

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;

use super::{FRESH_MS, Fresh, KeyHash, NONCE_MS, Refusal};
use crate::{block::BlockTime, tracker::Code};

/// A key's nonce: the first half of SHA-256 over both.
type Mark = [u8; 16];

/// Nonces that commands used, with the time of their block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NonceSet {
    times: BTreeMap<Mark, u64>,
    by_time: BTreeSet<(u64, Mark)>,
}

/// Remembers the nonces of queries, which leave no trace in the book; for a gateway. Bounded: when it is
/// full, the oldest are forgotten early, which harms nobody, because a query changes nothing.
#[derive(Clone, Debug)]
pub struct Nonces {
    set: NonceSet,
    max: usize,
}

fn mark(signer: &KeyHash, nonce: &[u8; 16]) -> Mark {
    let mut bytes = [0; 48];
    bytes[..32].copy_from_slice(&signer.0);
    bytes[32..].copy_from_slice(nonce);
    let digest = digest::digest(&digest::SHA256, &bytes);
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

pub(super) fn check_time(fresh: &Fresh, now: BlockTime) -> Result<(), Refusal> {
    if fresh.time.0.abs_diff(now.0) > FRESH_MS {
        return Err(Refusal::new(
            Code::Stale,
            "the message's time is more than 5 minutes from the tracker's",
        ));
    }
    Ok(())
}

pub(super) fn replayed() -> Refusal {
    Refusal::new(Code::Replayed, "the nonce was used before")
}

impl NonceSet {
    pub(super) fn contains(&self, signer: &KeyHash, nonce: &[u8; 16], now: BlockTime) -> bool {
        self.times
            .get(&mark(signer, nonce))
            .is_some_and(|time| now.0 <= time.saturating_add(NONCE_MS))
    }

    /// How many are remembered that still count.
    pub(super) fn is_full(&self, max: usize, now: BlockTime) -> bool {
        let oldest_counts = |(time, _): &(u64, Mark)| now.0 <= time.saturating_add(NONCE_MS);
        self.times.len() >= max && self.by_time.first().is_some_and(oldest_counts)
    }

    pub(super) fn add(&mut self, signer: &KeyHash, nonce: &[u8; 16], time: u64) {
        self.insert(mark(signer, nonce), time);
    }

    pub(super) fn insert(&mut self, mark: [u8; 16], time: u64) {
        if let Some(before) = self.times.insert(mark, time) {
            self.by_time.remove(&(before, mark));
        }
        self.by_time.insert((time, mark));
    }

    /// Forgets what counts no more.
    pub(super) fn pass(&mut self, time: u64) {
        while let Some(&(used, mark)) = self.by_time.first() {
            if time <= used.saturating_add(NONCE_MS) {
                break;
            }
            self.drop_oldest(used, mark);
        }
    }

    fn drop_oldest(&mut self, used: u64, mark: Mark) {
        self.by_time.remove(&(used, mark));
        self.times.remove(&mark);
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, [u8; 16])> {
        self.by_time.iter().copied()
    }
}

impl Nonces {
    /// Remembers at most `max` nonces.
    pub fn new(max: usize) -> Nonces {
        Nonces {
            set: NonceSet::default(),
            max: max.max(1),
        }
    }

    /// Takes a nonce that was not there in the last ten minutes.
    ///
    /// # Errors
    /// `stale` or `replayed`.
    pub fn admit(
        &mut self,
        signer: &KeyHash,
        fresh: &Fresh,
        now: BlockTime,
    ) -> Result<(), Refusal> {
        check_time(fresh, now)?;
        self.set.pass(now.0);
        if self.set.contains(signer, &fresh.nonce, now) {
            return Err(replayed());
        }
        while self.set.times.len() >= self.max {
            let Some(&(used, mark)) = self.set.by_time.first() else {
                break;
            };
            self.set.drop_oldest(used, mark);
        }
        self.set.add(signer, &fresh.nonce, now.0);
        Ok(())
    }
}
