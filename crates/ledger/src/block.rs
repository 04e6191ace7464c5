//! Blocks: transactions agreed at one height, and the bytes they are stored and signed as.

use std::{fmt, ops::Range, sync::Arc};

use crate::{PublicKey, SigningKey, Transaction, Verified};

/// The place of a block in the log: 1 for the first, 0 for the empty beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u64);

/// Milliseconds since 1970-01-01 UTC; strictly increasing from block to block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockTime(pub u64);

/// The place of a transaction in the log: the cursor of every stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The block.
    pub height: Height,
    /// The transaction in the block, from 0.
    pub index: u32,
}

/// SHA-256 of a header: what the next block names as its parent and what the proposer signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

/// The chained commitment to everything that was ever applied, as 64 hexadecimal digits on the wire
/// (`app_hash`; asset ledger, section 10). `None` before the first transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(pub Option<[u8; 32]>);

/// How a chain begins: the same for all nodes of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The network's name.
    pub chain: String,
    /// When it began.
    pub time: BlockTime,
    /// Who may propose blocks, with voting powers.
    pub validators: Vec<Validator>,
}

/// One of those who decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The key it signs blocks with.
    pub key: PublicKey,
    /// Its weight.
    pub power: u64,
}

/// What a block says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`Genesis::hash`] of its chain.
    pub chain: BlockHash,
    /// Its place.
    pub height: Height,
    /// Its time.
    pub time: BlockTime,
    /// The block before it; the genesis for the first.
    pub parent: BlockHash,
    /// Who made it.
    pub proposer: PublicKey,
    /// Merkle root (RFC 6962) over the transactions' ids.
    pub transactions_root: [u8; 32],
    /// The state before this block.
    pub parent_state: StateHash,
    /// How many transactions it holds.
    pub count: u32,
}

/// A block. Every transaction in it applies cleanly in order; losers are not part of blocks.
#[derive(Clone, Debug)]
pub struct Block {
    /// What it says about itself.
    pub header: Header,
    /// The proposer's Ed25519 signature over [`Header::hash`].
    pub signature: [u8; 64],
    /// The transactions, in order.
    pub transactions: Vec<Arc<Verified<Transaction>>>,
}
