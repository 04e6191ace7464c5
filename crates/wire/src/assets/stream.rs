//! Event streams: what a subscriber asks for and the frames it gets (asset ledger, section 9).

use daybook_ledger::{
    AssetId, Height, Operation, Position, PublicKey, Rejection, Transaction, TransactionId,
};

use super::{
    answer::{append_hex, append_id, append_ids, append_number, append_text},
    parameters::{boolean, id, position, public_key},
    query::{Query, Refusal},
};

/// One of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// One frame for each committed transaction.
    ValidTransactions,
    /// One frame for each committed block.
    ValidBlocks,
    /// One frame for each transaction that was taken and lost.
    RejectedTransactions,
}

impl StreamKind {
    /// All streams.
    pub const ALL: [StreamKind; 3] = [
        StreamKind::ValidTransactions,
        StreamKind::ValidBlocks,
        StreamKind::RejectedTransactions,
    ];

    /// The last segment of its path.
    pub const fn name(self) -> &'static str {
        match self {
            StreamKind::ValidTransactions => "valid_transactions",
            StreamKind::ValidBlocks => "valid_blocks",
            StreamKind::RejectedTransactions => "rejected_transactions",
        }
    }

    /// The stream with that last segment.
    pub fn from_name(name: &str) -> Option<StreamKind> {
        StreamKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With what commits after the subscriber came.
    #[default]
    Live,
    /// With the transaction at this place, itself included: `from=<height>` is the height's first
    /// transaction, `from=<height>.<index>` the one at `index`.
    Position(Position),
}

/// Which transactions a subscriber wants: those that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This key is among an output's `public_keys` or an input's `owners_before`.
    pub key: Option<PublicKey>,
    /// The transaction makes, moves or consumes this asset.
    pub asset: Option<AssetId>,
    /// The transaction is of this operation.
    pub operation: Option<Operation>,
    /// The subscriber asked for a key that nobody can have: nothing meets it.
    pub nothing: bool,
}

impl Filter {
    /// True when every transaction meets it.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether a transaction meets it.
    pub fn matches(&self, transaction: &Transaction) -> bool {
        let key = |key: &PublicKey| {
            transaction
                .outputs()
                .iter()
                .any(|output| output.public_keys.contains(key))
                || transaction
                    .inputs()
                    .iter()
                    .any(|input| input.owners_before.contains(key))
        };
        let asset = |asset: &AssetId| {
            transaction.asset() == *asset || transaction.consumed_assets().contains(asset)
        };
        !self.nothing
            && self
                .operation
                .is_none_or(|operation| transaction.operation() == operation)
            && self.asset.as_ref().is_none_or(asset)
            && self.key.as_ref().is_none_or(key)
    }
}

/// What a subscriber asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamParameters {
    /// Where it begins.
    pub from: From,
    /// What it wants.
    pub filter: Filter,
    /// Frames about the stream itself are welcome.
    pub notices: bool,
}

impl StreamParameters {
    /// Reads `from`, `public_key`, `asset_id`, `operation` and `notices`, and refuses others: a filter
    /// that is silently ignored because of a slip in its name would be believed to work.
    ///
    /// # Errors
    /// The first [`Refusal`] in that order.
    pub fn from_query(kind: StreamKind, query: &Query<'_>) -> Result<StreamParameters, Refusal> {
        let from = match query.first("from") {
            None => From::Live,
            Some(text) => From::Position(begin(kind, text)?),
        };
        let mut filter = Filter::default();
        if kind != StreamKind::ValidTransactions {
            for name in ["public_key", "asset_id", "operation"] {
                if query.first(name).is_some() {
                    return Err(Refusal::parameter(
                        name,
                        "Only valid_transactions has filters",
                    ));
                }
            }
        }
        if let Some(text) = query.first("public_key") {
            filter.key = public_key(text)?;
            filter.nothing = filter.key.is_none();
        }
        if let Some(text) = query.first("asset_id") {
            let id = id(text).ok_or(Refusal::parameter("asset_id", "Invalid hash"))?;
            filter.asset = Some(id.as_asset());
        }
        filter.operation = query.first("operation").map(operation).transpose()?;
        let notices = boolean(query, "notices")?.unwrap_or(false);
        query.refuse_unknown(&["from", "public_key", "asset_id", "operation", "notices"])?;
        Ok(StreamParameters {
            from,
            filter,
            notices,
        })
    }
}

/// Where a stream begins: the index of an event counts in `valid_transactions` only.
fn begin(kind: StreamKind, text: &str) -> Result<Position, Refusal> {
    match kind {
        StreamKind::ValidTransactions => position("from", text),
        _ if text.contains('.') => Err(Refusal::parameter("from", "A height")),
        _ => position("from", text).map_err(|_| Refusal::parameter("from", "A height")),
    }
}

fn operation(text: &str) -> Result<Operation, Refusal> {
    [
        ("CREATE", Operation::Create),
        ("TRANSFER", Operation::Transfer),
        ("COMPOSE", Operation::Compose),
        ("DECOMPOSE", Operation::Decompose),
    ]
    .into_iter()
    .find_map(|(name, operation)| text.eq_ignore_ascii_case(name).then_some(operation))
    .ok_or(Refusal::parameter(
        "operation",
        "Operation must be \"CREATE\", \"TRANSFER\", \"COMPOSE\" or \"DECOMPOSE\"",
    ))
}

/// Appends the frame of one committed transaction.
///
/// `asset_id` is what BigchainDB and early Planetmint clients read, `asset_ids` what later ones read,
/// and `index` completes the position from which a stream can be resumed.
pub fn transaction_frame(out: &mut Vec<u8>, position: Position, transaction: &Transaction) {
    let asset = transaction.asset();
    out.extend_from_slice(b"{\"height\": ");
    append_number(out, position.height.0);
    out.extend_from_slice(b", \"asset_id\": ");
    append_hex(out, &asset.0);
    out.extend_from_slice(b", \"asset_ids\": [");
    match transaction.consumed_assets() {
        [] => append_hex(out, &asset.0),
        consumed => {
            for (index, asset) in consumed.iter().enumerate() {
                if index != 0 {
                    out.extend_from_slice(b", ");
                }
                append_hex(out, &asset.0);
            }
        }
    }
    out.extend_from_slice(b"], \"transaction_id\": ");
    append_id(out, &transaction.id());
    out.extend_from_slice(b", \"index\": ");
    append_number(out, position.index.into());
    out.push(b'}');
}

/// Appends the frame of one committed block. `hash` is the application hash after it.
pub fn block_frame(
    out: &mut Vec<u8>,
    height: Height,
    hash: &str,
    ids: impl Iterator<Item = TransactionId>,
) {
    out.extend_from_slice(b"{\"height\": ");
    append_number(out, height.0);
    out.extend_from_slice(b", \"hash\": ");
    append_text(out, hash);
    out.extend_from_slice(b", \"transaction_ids\": ");
    append_ids(out, ids);
    out.push(b'}');
}

/// Appends the frame of one transaction that was taken and lost, as recorded at `height`.
pub fn rejected_frame(
    out: &mut Vec<u8>,
    height: Height,
    id: &TransactionId,
    rejection: &Rejection,
) {
    out.extend_from_slice(b"{\"height\": ");
    append_number(out, height.0);
    out.extend_from_slice(b", \"transaction_id\": ");
    append_id(out, id);
    out.extend_from_slice(b", \"class\": ");
    append_text(out, rejection.class.name());
    out.extend_from_slice(b", \"message\": ");
    append_text(out, &rejection.message());
    out.push(b'}');
}

/// Appends the notice that a subscriber is `behind` blocks behind and is served from the store.
pub fn lagging_notice(out: &mut Vec<u8>, behind: u64) {
    out.extend_from_slice(b"{\"notice\": \"lagging\", \"behind\": ");
    append_number(out, behind);
    out.push(b'}');
}

/// Appends the notice that a subscriber has everything up to `height` and is live.
pub fn caught_up_notice(out: &mut Vec<u8>, height: Height) {
    notice(out, "caught_up", height);
}

/// Appends the heartbeat: everything up to `height` was delivered.
pub fn head_notice(out: &mut Vec<u8>, height: Height) {
    notice(out, "head", height);
}

fn notice(out: &mut Vec<u8>, name: &str, height: Height) {
    out.extend_from_slice(b"{\"notice\": ");
    append_text(out, name);
    out.extend_from_slice(b", \"height\": ");
    append_number(out, height.0);
    out.push(b'}');
}
