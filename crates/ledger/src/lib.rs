//! The rules of the ledger, and nothing else: what a transaction is, when it is valid, what it
//! changes, and what a block of them looks like in bytes.
//!
//! This crate is pure. It reads no file, no clock and no random source, starts no thread and knows
//! no wire protocol beyond the text that signatures cover. Time arrives with the block; randomness
//! for signature batches is an argument.

#![forbid(unsafe_code)]
#![deny(
    clippy::float_arithmetic,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "same block, same result, on every machine; the list is in clippy.toml"
)]

mod amount;
mod apply;
pub mod block;
pub mod canonical;
pub mod condition;
pub mod consortium;
mod draft;
mod float;
mod id;
pub mod json;
mod key;
pub mod merkle;
mod rejection;
mod signature;
pub mod tracker;
mod transaction;

pub use amount::{AMOUNT_MAX, Amount};
pub use apply::{Changes, Lock, Overlay, Unspent, View, decide, decide_unproven};
pub use block::{Block, BlockTime, Header, Height, Position};
pub use draft::{Draft, DraftError};
pub use id::{AssetId, IdHash, IdHasher, NotAnId, OutputRef, TransactionId};
pub use key::{NotAKey, PublicKey, SigningKey};
pub use rejection::{Rejection, RejectionClass};
pub use signature::{SignatureChecker, Unproven, Verified, verify_signatures};
pub use transaction::{Input, Limits, Operation, Output, Parser, Rules, Transaction, Version};
