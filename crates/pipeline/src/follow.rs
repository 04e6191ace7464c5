//! Following the committed blocks: from memory near the head, from the store behind it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use daybook_ledger::Height;
use daybook_store::{Store, StoreError, StoredBlock};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OnceCell, watch};

/// Streams that share encoded frames through [`Published::frames`].
pub const STREAMS: usize = 5;

/// A committed block on its way to followers.
pub struct Published {
    /// The block.
    pub block: Arc<StoredBlock>,
    /// One place per stream for its encoded frames, so that each is encoded once for all subscribers.
    pub frames: [OnceLock<Bytes>; STREAMS],
}

impl Published {
    fn new(block: Arc<StoredBlock>) -> Published {
        Published {
            block,
            frames: Default::default(),
        }
    }
}

/// Why a follower cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The node stopped.
    #[error("the node is stopping")]
    Stopped,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The newest blocks, kept for followers.
pub(crate) struct Hub {
    recent: RwLock<Recent>,
    older: Mutex<Older>,
    announced: RwLock<Option<watch::Sender<Height>>>,
    bytes_max: usize,
}

struct Recent {
    head: Height,
    blocks: VecDeque<Arc<Published>>,
    bytes: usize,
}

/// Blocks that were read from the store for followers behind the recent ones, each read and encoded once
/// for all that come by within a while: followers that a burst leaves behind are behind together.
#[derive(Default)]
struct Older {
    blocks: BTreeMap<Height, Reading>,
    /// In the order in which they were asked for.
    order: VecDeque<Height>,
    bytes: usize,
    /// Blocks published since a follower last asked here.
    unasked: u32,
}

/// A block that is read by whoever comes first.
type Reading = Arc<OnceCell<Arc<Published>>>;

/// Blocks that are kept for followers behind the recent ones, however small they are.
const OLDER_BLOCKS_MAX: usize = 4_096;

/// Blocks published without anybody asking for an older one before these are let go.
const UNASKED_BLOCKS_MAX: u32 = 256;

impl Hub {
    /// Nothing kept yet; the store's newest block is at `head`.
    pub(crate) fn new(head: Height, bytes_max: usize) -> Hub {
        Hub {
            recent: RwLock::new(Recent {
                head,
                blocks: VecDeque::new(),
                bytes: 0,
            }),
            older: Mutex::default(),
            announced: RwLock::new(Some(watch::Sender::new(head))),
            bytes_max,
        }
    }

    /// Height of the newest block that readers see.
    pub(crate) fn head(&self) -> Height {
        self.recent.read().head
    }

    /// Keeps a block that readers see already.
    pub(crate) fn publish(&self, block: Arc<StoredBlock>) {
        let mut recent = self.recent.write();
        recent.head = block.block.header.height;
        recent.bytes += weight(&block);
        recent.blocks.push_back(Arc::new(Published::new(block)));
        while recent.bytes > self.bytes_max && recent.blocks.len() > 1 {
            if let Some(oldest) = recent.blocks.pop_front() {
                recent.bytes -= weight(&oldest.block);
            }
        }
        drop(recent);
        let mut older = self.older.lock();
        older.unasked += 1;
        if older.unasked > UNASKED_BLOCKS_MAX {
            *older = Older::default();
        }
    }

    /// Wakes followers that wait for `head`.
    pub(crate) fn announce(&self, head: Height) {
        if let Some(announced) = &*self.announced.read() {
            announced.send_replace(head);
        }
    }

    /// Tells followers at the head that nothing more comes.
    pub(crate) fn close(&self) {
        *self.announced.write() = None;
    }

    /// The block, if it is in memory.
    fn at_hand(&self, height: Height) -> Option<Arc<Published>> {
        let recent = self.recent.read();
        if height > recent.head {
            return None;
        }
        let first = recent
            .blocks
            .front()
            .map(|first| first.block.block.header.height);
        match first.and_then(|first| height.0.checked_sub(first.0)) {
            Some(place) => recent.blocks.get(usize::try_from(place).ok()?).cloned(),
            None => {
                drop(recent);
                let mut older = self.older.lock();
                older.unasked = 0;
                older.blocks.get(&height)?.get().cloned()
            }
        }
    }

    /// Where a block that is not in memory is read, or being read.
    fn reading(&self, height: Height) -> Reading {
        let mut older = self.older.lock();
        if let Some(reading) = older.blocks.get(&height) {
            return reading.clone();
        }
        let reading = Reading::default();
        older.blocks.insert(height, reading.clone());
        older.order.push_back(height);
        older.shrink(usize::MAX);
        reading
    }

    /// Counts a block that was just read, and lets go of others for it.
    fn keep_read(&self, height: Height, reading: &Reading) {
        let mut older = self.older.lock();
        let is_kept = older
            .blocks
            .get(&height)
            .is_some_and(|kept| Arc::ptr_eq(kept, reading));
        if let (true, Some(published)) = (is_kept, reading.get()) {
            older.bytes += weight(&published.block);
            older.shrink(self.bytes_max);
        }
    }

    fn watch(&self) -> Option<watch::Receiver<Height>> {
        self.announced.read().as_ref().map(watch::Sender::subscribe)
    }
}

impl Older {
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max || self.order.len() > OLDER_BLOCKS_MAX {
            let Some(first) = self.order.pop_front() else {
                return;
            };
            let reading = self.blocks.remove(&first);
            if let Some(published) = reading.as_ref().and_then(|reading| reading.get()) {
                self.bytes = self.bytes.saturating_sub(weight(&published.block));
            }
        }
    }
}

/// Bytes that a kept block stands for.
fn weight(block: &StoredBlock) -> usize {
    /// What a transaction costs beside its text, roughly.
    const PARSED_BYTES: usize = 512;
    block
        .block
        .entries
        .iter()
        .map(|entry| entry.text().len() + PARSED_BYTES)
        .sum::<usize>()
        + PARSED_BYTES
}

/// A cursor on the committed blocks: every block from its start on, in order, none twice, none left out.
pub struct Follower {
    hub: Arc<Hub>,
    store: Store,
    next: Height,
    announced: Option<watch::Receiver<Height>>,
}

impl Follower {
    pub(crate) fn new(hub: Arc<Hub>, store: Store, from: Height) -> Follower {
        let announced = hub.watch();
        Follower {
            hub,
            store,
            next: from.max(Height(1)),
            announced,
        }
    }

    /// The next block; waits when the follower is at the head. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`FollowError::Stopped`] at the head of a stopped node; [`FollowError::Store`] when the block
    /// cannot be read.
    pub async fn next(&mut self) -> Result<Arc<Published>, FollowError> {
        loop {
            if let Some(published) = self.try_next() {
                return Ok(published);
            }
            if self.next <= self.hub.head() {
                let reading = self.hub.reading(self.next);
                let mut first = false;
                let read = reading.get_or_try_init(|| {
                    first = true;
                    let (store, height) = (self.store.clone(), self.next);
                    async move {
                        let read = tokio::task::spawn_blocking(move || store.block(height)).await;
                        let block = read.map_err(|_| FollowError::Stopped)??;
                        // A block at or below the head is in the store.
                        let block = block.ok_or(FollowError::Stopped)?;
                        Ok::<_, FollowError>(Arc::new(Published::new(block)))
                    }
                });
                let published = read.await?.clone();
                if first {
                    self.hub.keep_read(self.next, &reading);
                }
                self.next = self.next.next();
                return Ok(published);
            }
            let announced = self.announced.as_mut().ok_or(FollowError::Stopped)?;
            announced.borrow_and_update();
            // A block published after the look above and before the mark just set would not wake this.
            if self.next > self.hub.head() {
                announced
                    .changed()
                    .await
                    .map_err(|_| FollowError::Stopped)?;
            }
        }
    }

    /// The next block, if it is committed and still in memory; never waits.
    pub fn try_next(&mut self) -> Option<Arc<Published>> {
        let published = self.hub.at_hand(self.next)?;
        self.next = self.next.next();
        Some(published)
    }

    /// Height of the block that comes next.
    pub fn next_height(&self) -> Height {
        self.next
    }

    /// Blocks committed but not yet taken by this follower.
    pub fn behind(&self) -> u64 {
        self.hub.head().next().0.saturating_sub(self.next.0)
    }
}
