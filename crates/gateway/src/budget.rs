//! The memory that may be taken by what is on its way in or out: bodies of requests, long answers, and
//! frames that were made for one follower alone.
//!
//! One limit for the process, cut into shares that do not starve each other. A body that finds no room is
//! refused with 503; a follower waits for its turn.

use std::sync::Arc;

use bytes::Bytes;
use daybook_pipeline::{FollowError, Follower, Published};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::Gateway;

/// Bodies and answers up to this many bytes are short: nearly all are, and long ones leave them a share
/// to themselves.
pub(crate) const SHORT_BYTES_MAX: usize = 32 << 10;

/// Room for reading a block from the store and encoding its frames: some 2 MiB of text, that again parsed,
/// and its frames.
const CATCH_UP_BYTES: usize = 8 << 20;

/// What an entry's frame has beside what it takes from the entry's text.
const FRAME_BYTES: usize = 512;

/// The budget. One per gateway.
pub(crate) struct Budget {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    followers_bytes: usize,
}

/// A part of the budget; given back when dropped.
pub(crate) struct Held {
    permit: OwnedSemaphorePermit,
    long: bool,
}

impl Budget {
    /// Shares out `bytes_max`: half to followers, an eighth to what is short, the rest to what is long. Each
    /// share holds one of its kind at least.
    pub(crate) fn new(bytes_max: usize, transaction_bytes_max: usize) -> Budget {
        let followers_bytes = (bytes_max / 2).max(CATCH_UP_BYTES);
        let short = (bytes_max / 8).max(SHORT_BYTES_MAX);
        let long = (bytes_max / 8 * 3).max(2 * transaction_bytes_max);
        let share = |bytes: usize| Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Budget {
            short: share(short),
            long: share(long),
            followers: share(followers_bytes),
            followers_bytes,
        }
    }

    /// Room for a body or an answer of `bytes`; `None` when there is none now.
    pub(crate) fn try_hold(&self, bytes: usize) -> Option<Held> {
        let long = bytes > SHORT_BYTES_MAX;
        let share = if long { &self.long } else { &self.short };
        let permit = share.clone().try_acquire_many_owned(permits(bytes)).ok()?;
        Some(Held { permit, long })
    }

    /// Room for what has grown or shrunk to `bytes`. False when there is none now; `held` is then as it
    /// was.
    pub(crate) fn try_resize(&self, held: &mut Option<Held>, bytes: usize) -> bool {
        let fits_its_share = held
            .as_ref()
            .is_some_and(|held| held.long == (bytes > SHORT_BYTES_MAX));
        match held {
            _ if bytes == 0 => *held = None,
            Some(now) if now.bytes() >= bytes => now.shrink(bytes),
            Some(now) if fits_its_share => {
                let share = now.permit.semaphore().clone();
                match share.try_acquire_many_owned(permits(bytes - now.bytes())) {
                    Ok(more) => now.permit.merge(more),
                    Err(_) => return false,
                }
            }
            _ => match self.try_hold(bytes) {
                Some(new) => *held = Some(new),
                None => return false,
            },
        }
        true
    }

    /// Room for what a follower is sent; waits for it behind followers that came before.
    async fn hold_for_follower(&self, bytes: usize) -> Option<Held> {
        // What is larger than the whole share waits for all of it.
        let bytes = bytes.min(self.followers_bytes);
        let waiting = self.followers.clone().acquire_many_owned(permits(bytes));
        let permit = waiting.await.ok()?;
        Some(Held { permit, long: true })
    }
}

/// A follower that waits for room before it takes what costs memory.
pub(crate) struct Cursor {
    pub(crate) follower: Follower,
    gateway: Arc<Gateway>,
    /// Its frames are those of all followers, encoded once.
    shares_frames: bool,
    block: Option<Arc<Published>>,
    held: Option<Held>,
}

/// A block that was taken, and the room for what is made of it.
pub(crate) struct Taken {
    pub(crate) block: Arc<Published>,
    held: Option<Held>,
}

impl Cursor {
    pub(crate) fn new(gateway: Arc<Gateway>, follower: Follower, shares_frames: bool) -> Cursor {
        Cursor {
            follower,
            gateway,
            shares_frames,
            block: None,
            held: None,
        }
    }

    /// The next block. One that must be read from the store waits for room first, and so does one whose
    /// frames are made for this follower alone. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Taken, FollowError> {
        let budget = &self.gateway.budget;
        let block = match self.block.take().or_else(|| self.follower.try_next()) {
            Some(block) => block,
            None => {
                if self.held.is_none() && self.follower.behind() > 0 {
                    self.held = budget.hold_for_follower(CATCH_UP_BYTES).await;
                }
                match self.follower.try_next() {
                    // Another follower has read it meanwhile.
                    Some(block) => {
                        self.held = None;
                        block
                    }
                    None => self.follower.next().await?,
                }
            }
        };
        if self.held.is_none() && !self.shares_frames {
            let entries = &block.block.block.entries;
            let bytes = entries.iter().map(|entry| entry.text().len() + FRAME_BYTES);
            let bytes = bytes.sum();
            self.block = Some(block.clone());
            self.held = budget.hold_for_follower(bytes).await;
            self.block = None;
        }
        Ok(Taken {
            block,
            held: self.held.take(),
        })
    }

    /// The next block, if it takes no room that would have to be waited for and is there.
    pub(crate) fn try_next(&mut self) -> Option<Arc<Published>> {
        if self.shares_frames {
            self.follower.try_next()
        } else {
            None
        }
    }
}

impl Taken {
    /// The frames made of the block, in the room that was taken for them.
    pub(crate) fn hold(&mut self, frames: Bytes) -> Bytes {
        match self.held.take() {
            Some(held) => held.around(frames),
            None => frames,
        }
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    fn shrink(&mut self, bytes: usize) {
        drop(self.permit.split(self.bytes().saturating_sub(bytes)));
    }

    /// Holds the room for as long as these bytes are in memory.
    pub(crate) fn around(mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.shrink(bytes.len());
        Bytes::from_owner(Owned { bytes, _held: self })
    }
}

struct Owned {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn permits(bytes: usize) -> u32 {
    // No body comes near it; what does is refused or waits for the whole share.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION_BYTES_MAX: usize = 1 << 20;

    fn budget() -> Budget {
        Budget::new(64 << 20, TRANSACTION_BYTES_MAX)
    }

    #[test]
    fn long_bodies_are_refused_when_their_share_is_taken_and_short_ones_are_not() {
        let budget = budget();
        let mut held = Vec::new();
        while let Some(one) = budget.try_hold(TRANSACTION_BYTES_MAX) {
            held.push(one);
        }
        assert_eq!(held.len(), 24, "three eighths of 64 MiB");
        let short = budget.try_hold(SHORT_BYTES_MAX);
        assert!(short.is_some(), "short ones have room of their own");
        held.pop();
        assert!(budget.try_hold(TRANSACTION_BYTES_MAX).is_some());
    }

    #[test]
    fn a_body_that_grows_takes_more_room_and_gives_all_of_it_back() {
        let budget = budget();
        let before = (
            budget.short.available_permits(),
            budget.long.available_permits(),
        );
        let mut held = None;
        for bytes in [
            10,
            100,
            SHORT_BYTES_MAX,
            SHORT_BYTES_MAX + 1,
            900_000,
            90_000,
            5,
        ] {
            assert!(budget.try_resize(&mut held, bytes));
            let taken = (before.0 - budget.short.available_permits())
                + (before.1 - budget.long.available_permits());
            assert_eq!(taken, bytes);
        }
        assert!(!budget.try_resize(&mut held, 1 << 30), "more than there is");
        assert_eq!(held.as_ref().map(Held::bytes), Some(5), "it is as it was");
        assert!(budget.try_resize(&mut held, 0));
        let after = (
            budget.short.available_permits(),
            budget.long.available_permits(),
        );
        assert_eq!(before, after);
    }

    #[tokio::test]
    async fn a_follower_waits_until_the_frames_of_others_are_gone() {
        let budget = Budget::new(2 * CATCH_UP_BYTES, TRANSACTION_BYTES_MAX);
        let held = budget.hold_for_follower(usize::MAX).await;
        let frames = held.map(|held| held.around(Bytes::from_static(b"frames")));
        let second = budget.hold_for_follower(CATCH_UP_BYTES);
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("the bytes are still there"),
            () = std::future::ready(()) => {}
        }
        drop(frames);
        assert!(second.await.is_some());
    }

    #[test]
    fn the_smallest_budget_still_lets_one_of_each_kind_through() {
        let budget = Budget::new(0, TRANSACTION_BYTES_MAX);
        assert!(budget.try_hold(TRANSACTION_BYTES_MAX).is_some());
        assert!(budget.try_hold(SHORT_BYTES_MAX).is_some());
    }
}
