//! Following the committed blocks: from memory near the head, from the store behind it.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use daybook_ledger::Height;
use daybook_store::{Store, StoreError, StoredBlock};
use parking_lot::RwLock;
use tokio::sync::watch;

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
    announced: RwLock<Option<watch::Sender<Height>>>,
    bytes_max: usize,
}

struct Recent {
    head: Height,
    blocks: VecDeque<Arc<Published>>,
    bytes: usize,
}

impl Hub {
    /// Nothing kept yet; the store's newest block is at `head`.
    pub(crate) fn new(head: Height, bytes_max: usize) -> Hub {
        Hub {
            recent: RwLock::new(Recent {
                head,
                blocks: VecDeque::new(),
                bytes: 0,
            }),
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

    fn recent(&self, height: Height) -> Option<Arc<Published>> {
        let recent = self.recent.read();
        let first = recent.blocks.front()?.block.block.header.height;
        let place = usize::try_from(height.0.checked_sub(first.0)?).ok()?;
        recent.blocks.get(place).cloned()
    }

    fn watch(&self) -> Option<watch::Receiver<Height>> {
        self.announced.read().as_ref().map(watch::Sender::subscribe)
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
                let (store, height) = (self.store.clone(), self.next);
                let read = tokio::task::spawn_blocking(move || store.block(height)).await;
                let block = read.map_err(|_| FollowError::Stopped)??;
                // A block at or below the head is in the store; the memory may have got it meanwhile.
                if let Some(block) = block {
                    self.next = self.next.next();
                    return Ok(Arc::new(Published::new(block)));
                }
                return Err(FollowError::Stopped);
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
        let published = self.hub.recent(self.next)?;
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
