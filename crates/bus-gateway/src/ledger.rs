//! The ledger on the bus: requests that the node answers itself, and its events. Ids and positions
//! are those of every other gateway.

use std::sync::Arc;

use bytes::Bytes;
use daybook_bus::{fields, packet_text, text_of};
use daybook_ledger::{PublicKey, Rejection, TransactionId};
use daybook_pipeline::{Acknowledge, Door, Node, Outcome, Status};
use daybook_wire::{
    assets::{status_committed, status_pending, status_rejected},
    events::{self, EventFilter, FILTER_VALUES_MAX, Sight},
};
use serde_json::{Value, json};

use crate::outbound::Outbound;
use daybook_bus::Rooms;

/// Names that the node answers.
pub const LOCAL_NAMES: [&str; 4] = [
    "ledger.submit",
    "ledger.get",
    "ledger.outputs",
    "ledger.head",
];
/// The name under which committed events are delivered.
pub(crate) const FEED: &str = "ledger.events";
/// What services are shown of the wallet tracker: they are guests, and what its peers do among each
/// other is told by its own subscriptions.
const SIGHT: Sight = Sight::Outline;
/// Outputs in one answer; a key with more is for the HTTP listing.
const OUTPUTS_MAX: usize = 1_000;

/// Answers one request: JSON of `data`, or of `error`.
pub(crate) async fn answer(node: &Node, name: &str, body: &str) -> Result<String, String> {
    let data = match fields(Some(body), &["data"]) {
        Ok([data]) => data,
        Err(_) => None,
    };
    match name {
        "ledger.submit" => submit(node, data).await,
        "ledger.get" => {
            let id = member(data, "id").and_then(|id| id.parse::<TransactionId>().ok());
            let Some(id) = id else {
                return Err(error(
                    "invalid_data",
                    400,
                    "data.id must be a transaction id",
                ));
            };
            let node = node.clone();
            blocking(move || get(&node, &id)).await
        }
        "ledger.outputs" => {
            let key = member(data, "public_key").and_then(|key| key.parse::<PublicKey>().ok());
            let Some(key) = key else {
                let what = "data.public_key must be a base58 public key";
                return Err(error("invalid_data", 400, what));
            };
            let spent = match fields(data, &["spent"]) {
                Ok([Some("true")]) => Some(true),
                Ok([Some("false")]) => Some(false),
                Ok([None]) => None,
                _ => {
                    return Err(error(
                        "invalid_data",
                        400,
                        "data.spent must be true or false",
                    ));
                }
            };
            let node = node.clone();
            blocking(move || outputs(&node, &key, spent)).await
        }
        "ledger.head" => {
            let (store, tip) = (node.store(), node.store().tip());
            Ok(json!({
                "chain": store.genesis().chain,
                "height": tip.height.0,
                "time": tip.time.0,
                "transactions": tip.transactions,
            })
            .to_string())
        }
        _ => Err(error("not_found", 404, "the ledger has no such request")),
    }
}

/// `data.transaction` is the signed transaction, exactly as it would be posted. Answered when it is on
/// disk.
async fn submit(node: &Node, data: Option<&str>) -> Result<String, String> {
    let transaction = match fields(data, &["transaction"]) {
        Ok([Some(transaction)]) => transaction,
        _ => {
            let what = "data.transaction must be a signed transaction";
            return Err(error("invalid_data", 400, what));
        }
    };
    let text = Bytes::copy_from_slice(transaction.as_bytes());
    match node.submit(text, Acknowledge::Durable, Door::Bulk).await {
        Outcome::Accepted { id } => {
            Ok(json!({"id": id.to_string(), "status": "accepted"}).to_string())
        }
        Outcome::Committed {
            id,
            position,
            repeated,
        } => Ok(json!({
            "id": id.to_string(),
            "status": "committed",
            "height": position.height.0,
            "index": position.index,
            "repeated": repeated,
        })
        .to_string()),
        Outcome::Rejected { id, rejection } => Err(rejected(id, &rejection)),
        Outcome::Busy => Err(error("busy", 503, "the pool is full: try again")),
        Outcome::Stopped => Err(error("stopped", 503, "the node is stopping")),
    }
}

fn rejected(id: Option<TransactionId>, rejection: &Rejection) -> String {
    json!({
        "message": rejection.message(),
        "code": rejection.class.name(),
        "status": 400,
        "entity": "transaction",
        "list": null,
        "id": id.map(|id| id.to_string()),
    })
    .to_string()
}

fn get(node: &Node, id: &TransactionId) -> Result<String, String> {
    let status = node.status(id).map_err(|_| fault())?;
    let mut text = match status {
        Status::Unknown => return Err(error("not_found", 404, "no such transaction")),
        Status::Pending => status_pending(id),
        Status::Rejected(height, rejection) => status_rejected(id, height, &rejection),
        Status::Committed(position) => {
            let mut text = status_committed(id, position);
            if let Some((_, transaction)) = node.store().transaction(id).map_err(|_| fault())? {
                text.pop();
                text.extend_from_slice(b",\"transaction\":");
                text.extend_from_slice(&transaction);
                text.push(b'}');
            }
            text
        }
    };
    text.shrink_to_fit();
    String::from_utf8(text).map_err(|_| fault())
}

fn outputs(node: &Node, key: &PublicKey, spent: Option<bool>) -> Result<String, String> {
    let mut found: Vec<Value> = Vec::new();
    let mut more = false;
    node.store()
        .outputs_of_key(key, spent, &mut |output| {
            more = found.len() >= OUTPUTS_MAX;
            if !more {
                found.push(json!({
                    "transaction_id": output.transaction.to_string(),
                    "output_index": output.index,
                }));
            }
            !more
        })
        .map_err(|_| fault())?;
    Ok(json!({"outputs": found, "more": more}).to_string())
}

async fn blocking(
    work: impl FnOnce() -> Result<String, String> + Send + 'static,
) -> Result<String, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(fault()))
}

fn fault() -> String {
    error("internal", 500, "the store could not be read")
}

fn error(code: &str, status: u16, message: &str) -> String {
    json!({"message": message, "code": code, "status": status, "entity": "ledger", "list": null})
        .to_string()
}

fn member(data: Option<&str>, name: &'static str) -> Option<String> {
    let [raw] = fields(data, &[name]).ok()?;
    Some(text_of(raw?)?.into_owned())
}

/// A subscription to `ledger.events`: `{name, from | after, kind, key}`, the filters a text or a list
/// of texts.
pub(crate) struct Wanted {
    from: Option<daybook_ledger::Position>,
    filter: EventFilter,
}

impl Wanted {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(arguments: &str) -> Result<Wanted, String> {
        let names = ["from", "after", "kind", "key"];
        let [from, after, kind, key] =
            fields(Some(arguments), &names).map_err(|_| "the payload must be an object")?;
        let place = |raw: Option<&str>| {
            raw.map(|raw| {
                // A height may be written as a number.
                let text = text_of(raw).unwrap_or(raw.into());
                events::position("from", &text)
                    .map_err(|_| "a position is `height` or `height.index`")
            })
            .transpose()
        };
        let list = |raw: Option<&str>| -> Result<Vec<String>, &'static str> {
            let wrong = "kind and key are a text or a list of at most 64 texts";
            let Some(raw) = raw else {
                return Ok(Vec::new());
            };
            let list = match text_of(raw) {
                Some(text) => vec![text.into_owned()],
                None => serde_json::from_str::<Vec<String>>(raw).map_err(|_| wrong)?,
            };
            match list.len() <= FILTER_VALUES_MAX {
                true => Ok(list),
                false => Err(wrong),
            }
        };
        Ok(Wanted {
            from: match (place(from)?, place(after)?) {
                (Some(_), Some(_)) => return Err("either from or after, not both".into()),
                (from, after) => from.or(after.map(events::behind)),
            },
            filter: EventFilter {
                kinds: list(kind)?,
                keys: list(key)?.into_iter().collect(),
            },
        })
    }
}

/// Delivers events until the subscriber or the node ends. A subscriber that reads slowly is waited
/// for: nothing is left out, and nothing is kept for it but its place.
pub(crate) async fn feed(
    node: Node,
    wanted: Wanted,
    outbound: Arc<Outbound>,
    send: impl Fn(Arc<str>) -> bool,
) {
    let first = wanted.from.map_or(node.head().next(), |from| from.height);
    let mut follower = node.follow(first);
    while let Ok(published) = follower.next().await {
        let block = &published.block.block;
        let height = block.header.height;
        for (index, entry) in (0u32..).zip(&block.entries) {
            let position = daybook_ledger::Position { height, index };
            let early = wanted.from.is_some_and(|from| position < from);
            if early || !wanted.filter.matches(entry, SIGHT) {
                continue;
            }
            while !outbound.has_room() {
                tokio::time::sleep(PAUSE).await;
            }
            let mut event = Vec::with_capacity(512);
            events::event(&mut event, position, block.header.time, entry, SIGHT);
            let Ok(event) = String::from_utf8(event) else {
                return;
            };
            let body = format!(
                "{{\"name\":\"{FEED}\",\"request_id\":\"{FEED}:{}.{index}\",\"sender_id\":\"eman\",\"data\":{event}}}",
                height.0
            );
            if !send(packet_text(&format!("\"{FEED}\""), Some(&body))) {
                return;
            }
        }
    }
}

/// How long a full outbound queue is left alone before it is looked at again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
