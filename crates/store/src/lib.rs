//! The log of blocks on disk, the state that follows from it, and the indexes behind it.
//!
//! The log is the truth. Everything else here (unspent outputs, positions, look-ups, search) is its
//! consequence: written behind the commit point, rebuilt from the log's tail after a crash, and from
//! the whole log on demand.

use std::{path::{Path, PathBuf}, sync::Arc};

use bytes::Bytes;
use daybook_ledger::{
    AssetId, Block, BlockTime, Changes, Height, Operation, OutputFacts, OutputRef, Position,
    PublicKey, Rejection, TransactionId, Unspent, View,
    block::{BlockHash, Genesis, StateHash},
};

/// A transaction that was taken and then lost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The transaction.
    pub id: TransactionId,
    /// The reason.
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
    /// How stored transactions are read.
    pub rules: daybook_ledger::Rules,
}

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The data directory was written by another version or for another network.
    #[error("{0}")]
    Foreign(String),
    /// Another process uses the data directory.
    #[error("another process uses {0}")]
    Locked(PathBuf),
}

/// The reading side: a handle on the committed state, cheap to clone.
#[derive(Clone)]
pub struct Store {}

/// The writing side: there is one.
pub struct Writer {}

/// What opening found.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Height of the checkpoint that was loaded.
    pub checkpoint: Height,
    /// Blocks applied from the log behind it.
    pub replayed_blocks: u64,
    /// Transactions in those blocks.
    pub replayed_transactions: u64,
    /// Bytes of an unfinished last write that were dropped.
    pub torn_bytes: u64,
}

/// Opens the data directory's log, making it from `genesis` when it is empty.
pub fn open(dir: &Path, disk: Arc<dyn disk::Disk>, genesis: &Genesis, options: Options) -> Result<(Store, Writer, Recovery), StoreError> {
    todo!()
}

impl Writer {
    /// Appends a block and what was rejected beside it, with one flush. When it returns, they are
    /// durable; readers do not see them yet.
    pub fn append(&mut self, block: &StoredBlock) -> Result<(), StoreError> {
        todo!()
    }

    /// Shows the appended block to readers: unspent outputs, positions, look-ups.
    pub fn publish(&mut self, block: &Arc<StoredBlock>, changes: &Changes) -> Result<(), StoreError> {
        todo!()
    }

    /// Writes what a start would otherwise have to replay, and marks the log as cleanly closed.
    pub fn close(self) -> Result<(), StoreError> {
        todo!()
    }
}

impl Store {
    /// The newest block that readers see.
    pub fn tip(&self) -> Tip { todo!() }
    /// The committed state for the rules, under a read lock on the unspent outputs.
    pub fn view(&self) -> StoreView<'_> { todo!() }
    /// How the chain began.
    pub fn genesis(&self) -> &Genesis { todo!() }
    /// Where a transaction stands.
    pub fn position(&self, id: &TransactionId) -> Result<Option<Position>, StoreError> { todo!() }
    /// A transaction's canonical text and place.
    pub fn transaction(&self, id: &TransactionId) -> Result<Option<(Position, Bytes)>, StoreError> { todo!() }
    /// The canonical text of the transaction at a place.
    pub fn transaction_at(&self, position: Position) -> Result<Option<(TransactionId, Bytes)>, StoreError> { todo!() }
    /// A whole block. `None` beyond the tip and for height 0.
    pub fn block(&self, height: Height) -> Result<Option<Arc<StoredBlock>>, StoreError> { todo!() }
    /// The rejection on record for a transaction that was taken and lost.
    pub fn rejection(&self, id: &TransactionId) -> Result<Option<(Height, Rejection)>, StoreError> { todo!() }
    /// Places of the transactions of an asset, in commit order: the one that made it and all that move it.
    pub fn transactions_of_asset(&self, asset: &AssetId, operation: Option<Operation>, last_only: bool, each: &mut dyn FnMut(Position, TransactionId, Bytes) -> bool) -> Result<(), StoreError> { todo!() }
    /// Outputs whose condition names `key`, in commit order; `spent` filters. `each` returns false to stop.
    pub fn outputs_of_key(&self, key: &PublicKey, spent: Option<bool>, each: &mut dyn FnMut(OutputRef) -> bool) -> Result<(), StoreError> { todo!() }
    /// Full-text search over asset data (section 3.10): best first. Each hit is the transaction's id and its canonical text.
    pub fn search(&self, field: SearchField, query: &str, limit: Option<usize>) -> Result<Vec<(TransactionId, Bytes)>, StoreError> { todo!() }
    /// Transactions whose asset data or metadata is, or has as an item, exactly the string `cid` (section 3.11), in commit order.
    pub fn holding(&self, field: SearchField, cid: &str, each: &mut dyn FnMut(TransactionId, Bytes) -> bool) -> Result<(), StoreError> { todo!() }
    /// Copies a sound image of the log, up to the present tip, into an empty folder while the node runs.
    pub fn backup(&self, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Tip, StoreError> { todo!() }
}

/// What a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchField {
    /// `asset.data`, or `data` of `assets`.
    Asset,
    /// `metadata`.
    Metadata,
}

pub mod disk {
    //! Files behind a small trait.
    /// A file system.
    pub trait Disk: Send + Sync {}
}

/// The committed state, held still while it lives.
pub struct StoreView<'s>(std::marker::PhantomData<&'s ()>);
impl View for StoreView<'_> {
    fn unspent(&self, _: &OutputRef) -> Option<Unspent> { todo!() }
    fn is_committed(&self, _: &TransactionId) -> bool { todo!() }
    fn output(&self, _: &OutputRef) -> Option<OutputFacts> { todo!() }
}
