//! The memory that may be taken by what is on its way in or out: bodies of requests, long answers, and
//! frames that were made for one follower alone.
//!
//! One limit for the process, cut into shares that do not starve each other. A body that finds no room is
//! refused with 503; a follower waits for its turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use daybook_pipeline::{FollowError, Follower, Published};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{Settings, server::Gateway};

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
    /// Followers that wait for room.
    followers_waiting: AtomicUsize,
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
            followers_waiting: AtomicUsize::new(0),
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
        let share = self.followers.clone();
        if let Ok(permit) = share.clone().try_acquire_many_owned(permits(bytes)) {
            return Some(Held { permit, long: true });
        }
        let _waiting = Waiting::new(&self.followers_waiting);
        let permit = share.acquire_many_owned(permits(bytes)).await.ok()?;
        Some(Held { permit, long: true })
    }

    /// Whether followers wait for room that others hold.
    pub(crate) fn is_short_for_followers(&self) -> bool {
        self.followers_waiting.load(Relaxed) > 0
    }
}

/// Counted while it lives.
struct Waiting<'b>(&'b AtomicUsize);

impl<'b> Waiting<'b> {
    fn new(count: &'b AtomicUsize) -> Waiting<'b> {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What one follower's frames hold of the share, and until when it should have taken them: a reader may be
/// slow for a while, but not in the long run, while others wait for the room.
#[derive(Debug)]
pub(crate) struct Unread {
    patience: Duration,
    bytes_per_second_min: f64,
    /// Bytes held, and when they should be gone.
    held: Mutex<(usize, Instant)>,
}

impl Unread {
    fn new(settings: &Settings) -> Arc<Unread> {
        Arc::new(Unread {
            patience: settings.list_patience,
            bytes_per_second_min: settings.list_rate_min.max(1) as f64,
            held: Mutex::new((0, Instant::now())),
        })
    }

    /// Notes further frames. Time that a fast reader had left is not kept for when it is slow.
    fn add(&self, bytes: usize) {
        let takes =
            |bytes: usize| Duration::from_secs_f64(bytes as f64 / self.bytes_per_second_min);
        let mut held = self.held.lock();
        let in_full = Instant::now() + self.patience;
        let since = if held.0 == 0 { in_full } else { held.1 };
        held.0 += bytes;
        held.1 = (since + takes(bytes)).min(in_full + takes(held.0));
    }

    fn remove(&self, bytes: usize) {
        let mut held = self.held.lock();
        held.0 = held.0.saturating_sub(bytes);
    }

    /// Whether the follower holds what it should have taken by now.
    pub(crate) fn is_overdue(&self) -> bool {
        let held = self.held.lock();
        held.0 > 0 && held.1 < Instant::now()
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
    unread: Arc<Unread>,
}

/// A block that was taken, and the room for what is made of it.
pub(crate) struct Taken {
    pub(crate) block: Arc<Published>,
    held: Option<Held>,
    unread: Arc<Unread>,
}

impl Cursor {
    pub(crate) fn new(gateway: Arc<Gateway>, follower: Follower, shares_frames: bool) -> Cursor {
        Cursor {
            follower,
            unread: Unread::new(&gateway.settings),
            gateway,
            shares_frames,
            block: None,
            held: None,
        }
    }

    /// What the frames made for this follower hold.
    pub(crate) fn unread(&self) -> &Arc<Unread> {
        &self.unread
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
            unread: self.unread.clone(),
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
            Some(held) => held.until_read(frames, &self.unread),
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
    pub(crate) fn around(self, bytes: Bytes) -> Bytes {
        self.owned(bytes, None)
    }

    /// The same, and notes that a follower has them to read.
    fn until_read(self, bytes: Bytes, unread: &Arc<Unread>) -> Bytes {
        self.owned(bytes, Some(unread))
    }

    fn owned(mut self, bytes: Bytes, unread: Option<&Arc<Unread>>) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.shrink(bytes.len());
        if let Some(unread) = unread {
            unread.add(bytes.len());
        }
        Bytes::from_owner(Owned {
            bytes,
            unread: unread.cloned(),
            _held: self,
        })
    }
}

struct Owned {
    bytes: Bytes,
    unread: Option<Arc<Unread>>,
    _held: Held,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(unread) = &self.unread {
            unread.remove(self.bytes.len());
        }
    }
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

    #[tokio::test(start_paused = true)]
    async fn a_follower_may_be_slow_for_a_while_but_not_in_the_long_run() {
        let settings = Settings {
            list_patience: Duration::from_secs(10),
            list_rate_min: 1_000,
            ..Settings::default()
        };
        let budget = Budget::new(2 * CATCH_UP_BYTES, TRANSACTION_BYTES_MAX);
        let unread = Unread::new(&settings);
        let frames = async |bytes: usize| {
            let held = budget
                .hold_for_follower(bytes)
                .await
                .expect("there is room");
            held.until_read(vec![0; bytes].into(), &unread)
        };
        let passed = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        // Ten seconds, and two for the bytes.
        let first = frames(2_000).await;
        passed(11).await;
        assert!(!unread.is_overdue());
        passed(2).await;
        assert!(unread.is_overdue());
        drop(first);
        assert!(!unread.is_overdue(), "it has read them at last");
        // Whoever always has something left is measured by what it takes.
        let mut waiting = std::collections::VecDeque::from([frames(1_000).await]);
        for _ in 0..20 {
            passed(1).await;
            waiting.push_back(frames(1_000).await);
            waiting.pop_front();
            assert!(!unread.is_overdue(), "exactly the rate");
        }
        for _ in 0..12 {
            passed(2).await;
            waiting.push_back(frames(1_000).await);
            waiting.pop_front();
        }
        assert!(unread.is_overdue(), "half of it");
    }

    #[tokio::test]
    async fn who_waits_for_room_is_known_until_it_has_some_or_leaves() {
        let budget = Budget::new(2 * CATCH_UP_BYTES, TRANSACTION_BYTES_MAX);
        let held = budget.hold_for_follower(usize::MAX).await;
        assert!(!budget.is_short_for_followers());
        {
            let second = budget.hold_for_follower(1);
            tokio::pin!(second);
            tokio::select! {
                biased;
                _ = &mut second => panic!("the bytes are still there"),
                () = std::future::ready(()) => {}
            }
            assert!(budget.is_short_for_followers());
        }
        assert!(!budget.is_short_for_followers());
        drop(held);
    }

    #[test]
    fn the_smallest_budget_still_lets_one_of_each_kind_through() {
        let budget = Budget::new(0, TRANSACTION_BYTES_MAX);
        assert!(budget.try_hold(TRANSACTION_BYTES_MAX).is_some());
        assert!(budget.try_hold(SHORT_BYTES_MAX).is_some());
    }
}
