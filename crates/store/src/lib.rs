//! The log of blocks on disk, the state that follows from it, and the indexes behind it.
//!
//! The log is the truth. Everything else here (unspent outputs, positions, look-ups, search) is its
//! consequence: written behind the commit point, rebuilt from the log's tail after a crash, and from
//! the whole log on demand. `docs/format.md` has the bytes.

mod backup;
mod blocks;
mod book;
mod check;
mod checkpoint;
mod consortium;
pub mod disk;
mod error;
mod explore;
#[cfg(test)]
mod golden;
mod index;
mod log;
mod open;
mod place;
mod prefetch;
mod search;
mod store;
mod text;
mod tracker;
mod unspent;
mod writer;

use daybook_ledger::{
    Block, BlockTime, Height, Rejection, TransactionId,
    block::{BlockHash, StateHash},
};

pub use backup::restore;
pub use book::{History, Order};
pub use check::{CheckOptions, FINDINGS_MAX, Finding, Report, check};
pub use consortium::ConsortiumHistory;
pub use error::StoreError;
pub use explore::{Heading, Name};
pub use open::open;
pub use search::{CANDIDATES_MAX, QUERY_TERMS_MAX, SCORED_BYTES_MAX, SCORED_MAX, SearchField};
pub use store::{Allowance, CommittedView, Store, Withheld};
pub use tracker::TrackerHistory;
pub use writer::Writer;

/// A transaction that was taken and then lost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The transaction.
    pub id: TransactionId,
    /// The reason. Of its detail, 1,024 bytes are kept.
    pub rejection: Rejection,
}

/// A block as the log holds it, with the rejections that were recorded beside it.
#[derive(Clone, Debug)]
pub struct StoredBlock {
    /// The block.
    pub block: Block,
    /// Transactions that were taken but lost since the block before. Not part of the block's hash.
    pub rejected: Vec<Rejected>,
}

/// The newest durable block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height; 0 on an empty log.
    pub height: Height,
    /// Its hash; the genesis hash on an empty log.
    pub hash: BlockHash,
    /// The state after it.
    pub state: StateHash,
    /// Its time.
    pub time: BlockTime,
    /// Transactions committed in all blocks up to it.
    pub transactions: u64,
}

/// Bounds and intervals of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of one preallocated log segment.
    pub segment_bytes: u64,
    /// Bytes of log after which the next checkpoint of the state is written: bounds a restart.
    pub checkpoint_bytes: u64,
    /// Index entries kept in memory before they are written as a sorted run.
    pub run_entries: usize,
}

impl Default for Options {
    /// Segments of 64 MiB, a checkpoint every 256 MiB of log, runs of half a million entries (some
    /// 100,000 transactions, 16 MB of memory).
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 256 << 20,
            run_entries: 1 << 19,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Height of the checkpoint that was loaded; 0 when there was none.
    pub checkpoint: Height,
    /// Blocks applied from the log behind it.
    pub replayed_blocks: u64,
    /// Transactions in those blocks.
    pub replayed_transactions: u64,
    /// Bytes of an unfinished last write that were dropped.
    pub torn_bytes: u64,
}
