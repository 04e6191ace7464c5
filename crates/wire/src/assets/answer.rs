//! Bodies of answers (asset ledger, sections 3.2 and 3.6 to 3.12).
//!
//! Transactions travel as the canonical text that the ledger keeps, so nothing here builds JSON
//! values: members are written around texts that are JSON already.

use std::io::Write;

use daybook_ledger::{Height, OutputRef, Position, Rejection, TransactionId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The body for a missing resource or an unknown path.
pub const NOT_FOUND: &[u8] = br#"{"message": "Not found", "status": 404}"#;

/// The body for a wrong method.
pub const METHOD_NOT_ALLOWED: &[u8] =
    br#"{"message": "The method is not allowed for the requested URL."}"#;

/// `{"message": "<text>", "status": <code>}`. The order of the members is part of the protocol, and
/// nothing may follow `status`.
pub fn error_body(status: u16, message: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len() + 40);
    body.extend_from_slice(b"{\"message\": ");
    append_text(&mut body, message);
    let _ = write!(body, ", \"status\": {status}}}");
    body
}

/// Appends `text` as a JSON string.
pub fn append_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always serialises into memory");
}

/// Appends an id as a JSON string.
pub fn append_id(out: &mut Vec<u8>, id: &TransactionId) {
    append_hex(out, &id.0);
}

pub(crate) fn append_hex(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    let mut text = [b'"'; 66];
    hex::encode_to_slice(bytes, &mut text[1..65]).expect("64 digits hold 32 bytes");
    out.extend_from_slice(&text);
}

/// Appends a number in decimal.
pub(crate) fn append_number(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends one element of the list of outputs (section 3.8), and a comma.
pub fn append_output(out: &mut Vec<u8>, output: &OutputRef) {
    out.extend_from_slice(b"{\"transaction_id\":");
    append_id(out, &output.transaction);
    out.extend_from_slice(b",\"output_index\":");
    append_number(out, output.index.into());
    out.extend_from_slice(b"},");
}

/// What a text search lists of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchElement {
    /// `{"data": …, "id": …}`, one for each asset with data.
    Asset,
    /// `{"metadata": …, "id": …}`.
    Metadata,
}

/// The members of a stored transaction that searches answer with. Unlike the ledger's own reader it
/// keeps the texts as they are and looks at nothing else.
#[derive(Deserialize)]
struct Members<'t> {
    #[serde(borrow, default)]
    asset: Option<&'t RawValue>,
    #[serde(borrow, default)]
    assets: Option<Vec<&'t RawValue>>,
    #[serde(borrow, default)]
    metadata: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct Asset<'t> {
    #[serde(borrow, default)]
    data: Option<&'t RawValue>,
}

/// Appends what a text search answers for the transaction `id` with canonical text `text`, each element
/// followed by a comma. Returns how many elements that were; none if the text is not a transaction.
pub fn append_search_elements(
    out: &mut Vec<u8>,
    element: SearchElement,
    id: &TransactionId,
    text: &[u8],
) -> usize {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(text) else {
        return 0;
    };
    let mut count = 0;
    let mut append = |member: &str, value: &RawValue| {
        out.push(b'{');
        append_text(out, member);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
        out.extend_from_slice(b",\"id\":");
        append_id(out, id);
        out.extend_from_slice(b"},");
        count += 1;
    };
    match element {
        SearchElement::Metadata => {
            if let Some(metadata) = members.metadata {
                append("metadata", metadata);
            }
        }
        SearchElement::Asset => {
            for asset in members
                .asset
                .into_iter()
                .chain(members.assets.into_iter().flatten())
            {
                if let Ok(Asset { data: Some(data) }) = serde_json::from_str(asset.get()) {
                    append("data", data);
                }
            }
        }
    }
    count
}

/// Appends what an exact search answers for a transaction (section 3.11): its asset objects, or its
/// metadata, each followed by a comma. Returns how many elements that were, at most `limit`.
pub fn append_exact_matches(
    out: &mut Vec<u8>,
    element: SearchElement,
    text: &[u8],
    limit: usize,
) -> usize {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(text) else {
        return 0;
    };
    let values: Vec<&RawValue> = match element {
        SearchElement::Metadata => members.metadata.into_iter().collect(),
        SearchElement::Asset => members
            .asset
            .into_iter()
            .chain(members.assets.into_iter().flatten())
            .collect(),
    };
    let count = values.len().min(limit);
    for value in &values[..count] {
        out.extend_from_slice(value.get().as_bytes());
        out.push(b',');
    }
    count
}

/// Opens a block's answer: everything before the first full transaction (section 3.9). The caller
/// appends the transactions' texts with commas between them, then [`block_tail`].
pub fn block_head(
    out: &mut Vec<u8>,
    height: Height,
    app_hash: &str,
    ids: impl Iterator<Item = TransactionId>,
) {
    out.extend_from_slice(b"{\"app_hash\":");
    append_text(out, app_hash);
    out.extend_from_slice(b",\"height\":");
    append_number(out, height.0);
    out.extend_from_slice(b",\"transaction_ids\":");
    append_ids(out, ids);
    out.extend_from_slice(b",\"transactions\":[");
}

/// Closes what [`block_head`] opened.
pub fn block_tail(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}");
}

/// The block of one transaction as the `v2` dialect gives it.
pub fn block_by_transaction(
    height: Height,
    app_hash: &str,
    ids: impl Iterator<Item = TransactionId>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"app_hash\":");
    append_text(&mut out, app_hash);
    out.extend_from_slice(b",\"height\":");
    append_number(&mut out, height.0);
    out.extend_from_slice(b",\"transaction_ids\":");
    append_ids(&mut out, ids);
    out.push(b'}');
    out
}

pub(super) fn append_ids(out: &mut Vec<u8>, ids: impl Iterator<Item = TransactionId>) {
    out.push(b'[');
    for (index, id) in ids.enumerate() {
        if index != 0 {
            out.push(b',');
        }
        append_id(out, &id);
    }
    out.push(b']');
}

/// The validators (section 3.12), given as standard base64 texts with padding, and voting powers.
pub fn validators(validators: impl Iterator<Item = (String, u64)>) -> Vec<u8> {
    let mut out = vec![b'['];
    for (index, (key, power)) in validators.enumerate() {
        if index != 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"public_key\":{\"type\":\"ed25519-base64\",\"value\":");
        append_text(&mut out, &key);
        out.extend_from_slice(b"},\"voting_power\":");
        append_number(&mut out, power);
        out.push(b'}');
    }
    out.push(b']');
    out
}

/// The fate of a transaction that is in a block.
pub fn status_committed(id: &TransactionId, position: Position) -> Vec<u8> {
    let mut out = status(id, "committed");
    let _ = write!(
        out,
        ",\"height\":{},\"index\":{}}}",
        position.height.0, position.index
    );
    out
}

/// The fate of a transaction that waits for its block.
pub fn status_pending(id: &TransactionId) -> Vec<u8> {
    let mut out = status(id, "pending");
    out.push(b'}');
    out
}

/// The fate of a transaction that was taken and lost, as recorded at `height`.
pub fn status_rejected(id: &TransactionId, height: Height, rejection: &Rejection) -> Vec<u8> {
    let mut out = status(id, "rejected");
    let _ = write!(
        out,
        ",\"height\":{},\"class\":\"{}\"",
        height.0,
        rejection.class.name()
    );
    out.extend_from_slice(b",\"message\":");
    append_text(&mut out, &rejection.message());
    out.push(b'}');
    out
}

fn status(id: &TransactionId, status: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    out.extend_from_slice(b"{\"transaction_id\":");
    append_id(&mut out, id);
    out.extend_from_slice(b",\"status\":");
    append_text(&mut out, status);
    out
}
