//! The way of a transaction from bytes to a durable block to every follower, and the one handle that
//! gateways hold: submit, view, follow.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use daybook_ledger::{Height, Position, Rejection, TransactionId};
use daybook_store::{Store, StoredBlock};

/// When a submission is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// As soon as the transaction is sound, proven and waits for its block (`mode=async`, `mode=sync`, `accepted`).
    Accepted,
    /// When its block is on disk (`mode=commit`, `durable`).
    Durable,
}

/// How strictly a submission is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// BigchainDB's rules (section 3.5): checked against committed state before it is taken, so a child
    /// must wait for its parent's commit, and a repeated transaction is refused.
    Classic,
    /// In the order sent: a child may follow its parent at once; a repeated transaction is answered
    /// with its first outcome.
    Bulk,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for its block.
    Accepted {
        /// The transaction.
        id: TransactionId,
    },
    /// Its block is on disk.
    Committed {
        /// The transaction.
        id: TransactionId,
        /// Its place.
        position: Position,
        /// It was committed by an earlier submission of the same transaction.
        repeated: bool,
    },
    /// It changes nothing.
    Rejected {
        /// The transaction, where the text went far enough to tell.
        id: Option<TransactionId>,
        /// The reason.
        rejection: Rejection,
    },
    /// The pool is full: try again.
    Busy,
    /// The node is stopping or could not write.
    Stopped,
}

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never seen, or forgotten because it was never durable.
    Unknown,
    /// It waits for its block.
    Pending,
    /// Its block is on disk.
    Committed(Position),
    /// It was taken and lost, as recorded at a height.
    Rejected(Height, Rejection),
}

/// The handle on a running node. Cheap to clone.
#[derive(Clone)]
pub struct Node {}

/// One sender of many transactions: outcomes come back in any order, each with its sender's tag.
pub struct Submitter {}
/// The other end of a [`Submitter`].
pub struct Outcomes {}

impl Node {
    /// Submits one transaction and waits for the acknowledgement.
    pub async fn submit(&self, text: Bytes, acknowledge: Acknowledge, door: Door) -> Outcome { todo!() }
    /// A pair for many submissions through the bulk door; at most `window` are under way.
    pub fn submitter(&self, window: usize) -> (Submitter, Outcomes) { todo!() }
    /// Reading.
    pub fn store(&self) -> &Store { todo!() }
    /// What is known of a transaction.
    pub fn status(&self, id: &TransactionId) -> Result<Status, daybook_store::StoreError> { todo!() }
    /// Every committed block from `from` on, then live; gap-free.
    pub fn follow(&self, from: Height) -> Follower { todo!() }
    /// True while the node takes writes.
    pub fn is_ready(&self) -> bool { todo!() }
}

impl Submitter {
    /// Hands over one transaction; waits while `window` submissions are under way or the pool is full.
    /// False when the node is stopping.
    pub async fn submit(&self, tag: u64, text: Bytes, acknowledge: Acknowledge) -> bool { todo!() }
}

impl Outcomes {
    /// Waits for outcomes and appends all that are there to `into`. False when the submitter is gone and everything is answered.
    pub async fn next(&mut self, into: &mut Vec<(u64, Outcome)>) -> bool { todo!() }
}

/// A committed block on its way to followers.
pub struct Published {
    /// The block.
    pub block: Arc<StoredBlock>,
    /// One place per stream for its encoded frames, so that each is encoded once for all subscribers.
    pub frames: [OnceLock<Bytes>; 4],
}

/// A cursor on the committed blocks. Reads from memory near the head and from the store behind it.
pub struct Follower {}

/// Why a follower cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The node stopped.
    #[error("the node is stopping")]
    Stopped,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] daybook_store::StoreError),
}

impl Follower {
    /// The next block; waits when the follower is at the head.
    pub async fn next(&mut self) -> Result<Arc<Published>, FollowError> { todo!() }
    /// The next block if it is committed already; never waits.
    pub fn try_next(&mut self) -> Result<Option<Arc<Published>>, FollowError> { todo!() }
    /// Blocks committed but not yet read by this follower.
    pub fn behind(&self) -> u64 { todo!() }
}
