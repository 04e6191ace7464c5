//! The parameters of each endpoint (asset ledger, section 3.3).

use std::borrow::Cow;

use daybook_ledger::{AssetId, Height, Operation, Position, PublicKey, TransactionId};

use super::query::{Query, Refusal, decode};

/// Which of two colliding answer shapes a listener gives (section 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// BigchainDB 2.x and Planetmint up to 2.1.
    #[default]
    Classic,
    /// Planetmint 2.2 and later.
    V2,
}

/// What a 202 to a posted transaction means (section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is sound.
    Async,
    /// The pool took it.
    Sync,
    /// It is in a committed block.
    Commit,
}

/// Reads the `mode` of a posted transaction; `async` when there is none.
///
/// # Errors
/// [`Refusal`] for any other text than the three modes.
pub fn mode(query: &Query<'_>) -> Result<Mode, Refusal> {
    match query.first("mode") {
        None | Some("async") => Ok(Mode::Async),
        Some("sync") => Ok(Mode::Sync),
        Some("commit") => Ok(Mode::Commit),
        Some(_) => Err(Refusal::parameter(
            "mode",
            "Mode must be \"async\", \"sync\" or \"commit\"",
        )),
    }
}

/// `GET /transactions` (section 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionParameters {
    /// The assets asked for, each once; at least one.
    pub assets: Vec<AssetId>,
    /// Only transactions that create, or only those that transfer.
    pub operation: Option<Operation>,
    /// Only the last one.
    pub last_only: bool,
}

impl TransactionParameters {
    /// Reads `asset_id`, `asset_ids`, `operation` and `last_tx`; others are ignored.
    ///
    /// # Errors
    /// The first [`Refusal`] in the order operation, assets, `last_tx`.
    pub fn from_query(query: &Query<'_>) -> Result<TransactionParameters, Refusal> {
        let operation = query
            .first("operation")
            .map(reading_operation)
            .transpose()?;
        let mut assets = Vec::new();
        if let Some(text) = query.first("asset_id") {
            let id = id(text).ok_or(Refusal::parameter("asset_id", "Invalid hash"))?;
            assets.push(id.as_asset());
        } else if query.first("asset_ids").is_none() {
            query.required("asset_id")?;
        }
        for text in query.all("asset_ids").flat_map(|list| list.split(',')) {
            let id = id(text).ok_or(Refusal::parameter(
                "asset_ids",
                "List contains invalid hash",
            ))?;
            assets.push(id.as_asset());
        }
        assets.sort_unstable();
        assets.dedup();
        let last_only = boolean(query, "last_tx")?.unwrap_or(false);
        Ok(TransactionParameters {
            assets,
            operation,
            last_only,
        })
    }
}

/// `GET /outputs` (section 3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputParameters {
    /// Whose outputs. `None` for a text that has the form of a key but is the key of nobody: 33 bytes
    /// in base58 can have 44 characters too.
    pub key: Option<PublicKey>,
    /// Only spent ones, only unspent ones, or both.
    pub spent: Option<bool>,
}

impl OutputParameters {
    /// Reads `public_key` and `spent`, and refuses others.
    ///
    /// # Errors
    /// The first [`Refusal`] in the order `public_key`, `spent`, unknown ones.
    pub fn from_query(query: &Query<'_>) -> Result<OutputParameters, Refusal> {
        let key = public_key(query.required("public_key")?)?;
        let spent = boolean(query, "spent")?;
        query.refuse_unknown(&["public_key", "spent"])?;
        Ok(OutputParameters { key, spent })
    }
}

/// `GET /blocks` (section 3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockParameters {
    /// The transaction whose block is asked for; `None` for a text that names none.
    pub transaction: Option<TransactionId>,
}

impl BlockParameters {
    /// Reads `transaction_id`, and refuses others.
    ///
    /// # Errors
    /// A [`Refusal`] when it is missing, or another parameter is there.
    pub fn from_query(query: &Query<'_>) -> Result<BlockParameters, Refusal> {
        let transaction = id(query.required("transaction_id")?);
        query.refuse_unknown(&["transaction_id"])?;
        Ok(BlockParameters { transaction })
    }
}

/// `GET /assets?search=` and `GET /metadata?search=` (section 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchParameters {
    /// What to look for; not empty.
    pub text: String,
    /// How many hits at most; `None` for all.
    pub limit: Option<usize>,
}

impl SearchParameters {
    /// Reads `search` and `limit`; others are ignored.
    ///
    /// # Errors
    /// A [`Refusal`] when `search` is missing or empty, or `limit` is no count.
    pub fn from_query(query: &Query<'_>) -> Result<SearchParameters, Refusal> {
        let text = query.required("search")?;
        let limit = limit(query)?;
        if text.is_empty() {
            return Err(Refusal::Message("text_search cannot be empty"));
        }
        Ok(SearchParameters {
            text: text.to_owned(),
            limit,
        })
    }
}

/// `GET /assets/<cid>` and `GET /metadata/<cid>` (section 3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListParameters<'q> {
    /// The exact string to look for.
    pub cid: Cow<'q, str>,
    /// How many elements at most; `None` for all.
    pub limit: Option<usize>,
}

impl<'q> ListParameters<'q> {
    /// Reads the path's last segment and `limit`; others are ignored.
    ///
    /// # Errors
    /// A [`Refusal`] when `limit` is no count.
    pub fn from_path(segment: &'q str, query: &Query<'_>) -> Result<ListParameters<'q>, Refusal> {
        Ok(ListParameters {
            cid: decode(segment, false),
            limit: limit(query)?,
        })
    }
}

/// A transaction or asset id in a query: 64 hexadecimal digits in any case.
pub(super) fn id(text: &str) -> Option<TransactionId> {
    let mut folded = [0; 64];
    folded.copy_from_slice(text.as_bytes().get(..64).filter(|_| text.len() == 64)?);
    folded.make_ascii_lowercase();
    TransactionId::from_hex(&folded).ok()
}

/// A public key by its form alone; `None` inside when no key has that text.
pub(super) fn public_key(text: &str) -> Result<Option<PublicKey>, Refusal> {
    let base58 =
        |byte: u8| byte.is_ascii_alphanumeric() && !matches!(byte, b'0' | b'O' | b'I' | b'l');
    if !matches!(text.len(), 43 | 44) || !text.bytes().all(base58) {
        return Err(Refusal::parameter(
            "public_key",
            "Invalid base58 ed25519 key",
        ));
    }
    Ok(text.parse().ok())
}

/// Reads a position: `<height>.<index>`, or a height alone for its first place.
///
/// # Errors
/// [`Refusal`] of the parameter `name` for another text.
pub fn position(name: &'static str, text: &str) -> Result<Position, Refusal> {
    fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
        text.parse()
            .ok()
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
    }
    let (height, index) = text.split_once('.').unwrap_or((text, "0"));
    number(height)
        .zip(number(index))
        .map(|(height, index)| Position {
            height: Height(height),
            index,
        })
        .ok_or(Refusal::parameter(
            name,
            "A height, or a height and an index with a dot between them",
        ))
}

/// `true` or `false` in any case; the sentence is the protocol's (asset ledger, section 3.2).
pub(crate) fn boolean(query: &Query<'_>, name: &'static str) -> Result<Option<bool>, Refusal> {
    match query.first(name) {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(Refusal::parameter(
            name,
            "Boolean value must be \"true\" or \"false\" (lowercase)",
        )),
    }
}

fn reading_operation(text: &str) -> Result<Operation, Refusal> {
    match text {
        _ if text.eq_ignore_ascii_case("CREATE") => Ok(Operation::Create),
        _ if text.eq_ignore_ascii_case("TRANSFER") => Ok(Operation::Transfer),
        _ => Err(Refusal::parameter(
            "operation",
            "Operation must be \"CREATE\" or \"TRANSFER\"",
        )),
    }
}

fn limit(query: &Query<'_>) -> Result<Option<usize>, Refusal> {
    let Some(text) = query.first("limit") else {
        return Ok(None);
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Shown shortened: the text is the client's and may be long.
        let shown: String = text.chars().take(LIMIT_CHARS_SHOWN).collect();
        return Err(Refusal::parameter(
            "limit",
            format!("invalid literal for int() with base 10: '{shown}'"),
        ));
    }
    // More digits than a count of transactions can have mean the same as no limit.
    Ok(text.parse().ok().filter(|limit| *limit != 0))
}

/// Characters of a bad `limit` that the answer repeats.
const LIMIT_CHARS_SHOWN: usize = 64;
