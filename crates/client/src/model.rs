//! What a node says, typed.

use daybook_ledger::{AssetId, Height, OutputRef, Position, TransactionId};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{Error, Refusal};

/// When a submission over `POST /api/v1/transactions` is answered (asset ledger, section 3.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// When it passed the checks.
    #[default]
    Async,
    /// When it also waits for its block.
    Sync,
    /// When its block is on disk.
    Commit,
}

/// When a submission through a bulk door is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// As soon as it is sound and waits for its block.
    Accepted,
    /// When its block is on disk.
    #[default]
    Durable,
}

/// A transaction with its place in the log: its block is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub id: TransactionId,
    /// Its place.
    pub position: Position,
    /// It was committed by an earlier submission of the same transaction.
    pub repeated: bool,
}

/// What a node answered to one submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It passed the checks and waits for its block. It may still lose a race.
    Accepted {
        /// The transaction.
        id: TransactionId,
    },
    /// Its block is on disk.
    Committed(Receipt),
    /// It changes nothing, now or later.
    Refused {
        /// The transaction, where the text went far enough to tell.
        id: Option<TransactionId>,
        /// The reason.
        refusal: Refusal,
    },
    /// The node is full; it did not take this submission.
    Busy {
        /// What it said.
        message: String,
    },
    /// The node is stopping and does not know whether it will take this submission: to be asked for,
    /// or sent again, when it is back.
    Stopped,
}

/// How a submission ended, once and for all, or that this could not be learned.
#[derive(Debug)]
pub enum Fate {
    /// It is in the log.
    Committed(Receipt),
    /// It changes nothing.
    Refused(Refusal),
    /// No answer came, and asking by its id gave none either.
    Unknown(Error),
}

/// What a node knows of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never seen, or never durable.
    Unknown,
    /// It waits for its block.
    Pending,
    /// Its block is on disk.
    Committed(Position),
    /// It was taken and lost.
    Rejected {
        /// The height at which this was recorded, where the node says so.
        height: Option<Height>,
        /// The reason.
        refusal: Refusal,
    },
}

/// A block as the API shows it.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its place.
    pub height: Height,
    /// The chained commitment to everything applied up to it, in hexadecimal.
    pub app_hash: String,
    /// Its transactions, in order.
    pub transaction_ids: Vec<TransactionId>,
    /// Their full texts; empty for the latest block, which the API shows with ids only.
    pub transactions: Vec<serde_json::Value>,
}

/// A hit of a search: the transaction and the data or metadata that matched.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The asset for a search in assets, the transaction for a search in metadata.
    pub id: TransactionId,
    /// What was found.
    pub found: serde_json::Value,
}

/// One of those who decide.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Validator {
    /// Its key.
    pub public_key: ValidatorKey,
    /// Its weight.
    pub voting_power: u64,
}

/// A validator's key as the API writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValidatorKey {
    /// `ed25519-base64`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Standard base64 with padding.
    pub value: String,
}

/// What one event stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Each committed transaction.
    ValidTransactions,
    /// Each committed block.
    ValidBlocks,
    /// Each transaction that was taken and then lost.
    RejectedTransactions,
}

impl Stream {
    /// The stream's name in addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::ValidTransactions => "valid_transactions",
            Stream::ValidBlocks => "valid_blocks",
            Stream::RejectedTransactions => "rejected_transactions",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A transaction was committed.
    Transaction {
        /// Its block.
        height: Height,
        /// Its place in the block.
        index: u32,
        /// The transaction.
        id: TransactionId,
        /// The assets it concerns; the first one counts.
        assets: Vec<AssetId>,
    },
    /// A block was committed.
    Block {
        /// Its place.
        height: Height,
        /// The application hash after it, in hexadecimal.
        hash: String,
        /// Its transactions, in order.
        transactions: Vec<TransactionId>,
    },
    /// A transaction was taken and lost.
    Rejected {
        /// The height at which this was recorded.
        height: Height,
        /// The transaction.
        id: TransactionId,
        /// The reason.
        refusal: Refusal,
    },
}

impl Frame {
    /// The height the event belongs to.
    pub fn height(&self) -> Height {
        match self {
            Frame::Transaction { height, .. }
            | Frame::Block { height, .. }
            | Frame::Rejected { height, .. } => *height,
        }
    }

    pub(crate) fn from_json(stream: Stream, text: &str) -> Result<Frame, Error> {
        let raw: RawFrame = serde_json::from_str(text)
            .map_err(|e| Error::Protocol(format!("event on {}: {e}", stream.name())))?;
        let missing =
            |what: &str| Error::Protocol(format!("event on {} without {what}", stream.name()));
        let height = Height(raw.height.ok_or_else(|| missing("height"))?);
        match stream {
            Stream::ValidTransactions => {
                let mut assets = raw.asset_ids.unwrap_or_default();
                if let (true, Some(asset)) = (assets.is_empty(), raw.asset_id) {
                    assets.push(asset);
                }
                Ok(Frame::Transaction {
                    height,
                    index: raw.index.ok_or_else(|| missing("index"))?,
                    id: raw
                        .transaction_id
                        .ok_or_else(|| missing("transaction_id"))?
                        .0,
                    assets: assets.into_iter().map(|asset| asset.0.as_asset()).collect(),
                })
            }
            Stream::ValidBlocks => Ok(Frame::Block {
                height,
                hash: raw.hash.ok_or_else(|| missing("hash"))?,
                transactions: ids(raw
                    .transaction_ids
                    .ok_or_else(|| missing("transaction_ids"))?),
            }),
            Stream::RejectedTransactions => Ok(Frame::Rejected {
                height,
                id: raw
                    .transaction_id
                    .ok_or_else(|| missing("transaction_id"))?
                    .0,
                refusal: Refusal {
                    status: 400,
                    class: Some(raw.class.ok_or_else(|| missing("class"))?),
                    message: raw.message.unwrap_or_default(),
                },
            }),
        }
    }
}

/// An id as JSON text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) TransactionId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map(Id).map_err(D::Error::custom)
    }
}

pub(crate) fn ids(from: Vec<Id>) -> Vec<TransactionId> {
    from.into_iter().map(|id| id.0).collect()
}

#[derive(Deserialize)]
struct RawFrame {
    height: Option<u64>,
    index: Option<u32>,
    transaction_id: Option<Id>,
    asset_id: Option<Id>,
    asset_ids: Option<Vec<Id>>,
    hash: Option<String>,
    transaction_ids: Option<Vec<Id>>,
    class: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct RawOutput {
    pub(crate) transaction_id: Id,
    pub(crate) output_index: u32,
}

impl From<RawOutput> for OutputRef {
    fn from(raw: RawOutput) -> OutputRef {
        OutputRef {
            transaction: raw.transaction_id.0,
            index: raw.output_index,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct RawBlock {
    pub(crate) height: u64,
    #[serde(default)]
    pub(crate) app_hash: String,
    #[serde(default)]
    pub(crate) transaction_ids: Vec<Id>,
    #[serde(default)]
    pub(crate) transactions: Vec<serde_json::Value>,
}

impl From<RawBlock> for Block {
    fn from(raw: RawBlock) -> Block {
        let mut transactions = raw.transactions;
        // The latest block lists ids where a block by height lists transactions.
        transactions.retain(serde_json::Value::is_object);
        Block {
            height: Height(raw.height),
            app_hash: raw.app_hash,
            transaction_ids: ids(raw.transaction_ids),
            transactions,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct RawAssetHit {
    pub(crate) id: Id,
    pub(crate) data: serde_json::Value,
}

#[derive(Deserialize)]
pub(crate) struct RawMetadataHit {
    pub(crate) id: Id,
    pub(crate) metadata: serde_json::Value,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "0c8be0e51ddd671a5b32da2e5ecd65c4ba0d68fef13d8c0de5df8fd2fba4bd47";

    #[test]
    fn an_event_with_a_single_asset_id_is_understood() {
        let text = format!(r#"{{"height":3,"index":0,"asset_id":"{ID}","transaction_id":"{ID}"}}"#);
        let Frame::Transaction { height, assets, .. } =
            Frame::from_json(Stream::ValidTransactions, &text).unwrap()
        else {
            panic!("another frame");
        };
        assert_eq!((height, assets.len()), (Height(3), 1));
    }

    #[test]
    fn an_event_of_another_shape_is_a_protocol_error_and_no_panic() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"height":-1}"#,
            r#"{"height":1,"transaction_id":"x"}"#,
        ] {
            for stream in [
                Stream::ValidTransactions,
                Stream::ValidBlocks,
                Stream::RejectedTransactions,
            ] {
                assert!(
                    matches!(Frame::from_json(stream, text), Err(Error::Protocol(_))),
                    "{text}"
                );
            }
        }
    }
}
