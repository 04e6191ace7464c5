//! The texts that peers sign (wallet tracker, sections 3.4, 8 and 17.2).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use daybook_ledger::tracker::{Contract, KeyHash, Settled};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::PeerKey;

/// Bytes of a nonce (section 17.2).
const NONCE_BYTES: usize = 16;
/// Bytes of a token that matches replies to requests.
const CORRELATION_BYTES: usize = 16;

/// A text with one signature under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HalfSigned {
    /// The contract or receipt.
    pub message: String,
    /// The payer's PEM.
    #[serde(rename = "fromPK")]
    pub from_pk: String,
    /// The payer's signature in base64.
    pub from_sign: String,
    /// The payee's PEM.
    #[serde(rename = "toPK")]
    pub to_pk: String,
}

/// A text that payer and payee signed: the payload of commands 8, 16 and 524288.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CoSigned {
    /// The contract or receipt.
    pub message: String,
    /// The payer's PEM.
    #[serde(rename = "fromPK")]
    pub from_pk: String,
    /// The payer's signature in base64.
    pub from_sign: String,
    /// The payee's PEM.
    #[serde(rename = "toPK")]
    pub to_pk: String,
    /// The payee's signature in base64.
    pub to_sign: String,
}

impl HalfSigned {
    /// Signs as the payee.
    pub fn countersign(&self, payee: &PeerKey) -> CoSigned {
        CoSigned {
            message: self.message.clone(),
            from_pk: self.from_pk.clone(),
            from_sign: self.from_sign.clone(),
            to_pk: self.to_pk.clone(),
            to_sign: payee.sign(&self.message),
        }
    }
}

impl CoSigned {
    /// Without the payee's signature.
    pub fn half(&self) -> HalfSigned {
        HalfSigned {
            message: self.message.clone(),
            from_pk: self.from_pk.clone(),
            from_sign: self.from_sign.clone(),
            to_pk: self.to_pk.clone(),
        }
    }
}

/// A new token that matches a reply to its request.
pub(super) fn correlation() -> String {
    let mut token = [0; CORRELATION_BYTES];
    aws_lc_rs::rand::fill(&mut token).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(token)
}

/// How version 2 messages name a tracker.
pub(super) fn tracker_name(tracker: &KeyHash) -> String {
    URL_SAFE_NO_PAD.encode(tracker.0)
}

/// The text of a single-signed command of version 2.
pub(super) fn single_v2(
    command: u64,
    correlation: &str,
    tracker: &KeyHash,
    time_ms: u64,
    key: &PeerKey,
    members: Map<String, Value>,
) -> String {
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).expect("the operating system gives random bytes");
    let mut message = json!({
        "v": 2,
        "cmd": command,
        "corrToken": correlation,
        "tracker": tracker_name(tracker),
        "ts": time_ms,
        "nonce": URL_SAFE_NO_PAD.encode(nonce),
        "pk": key.pem(),
    });
    let object = message.as_object_mut().expect("an object was made");
    object.extend(members);
    message.to_string()
}

/// The text of a single-signed command of version 1; the bare key where no members are wanted.
pub(super) fn single_v1(key: &PeerKey, members: Option<Map<String, Value>>) -> String {
    match members {
        None => key.pem().to_owned(),
        Some(mut members) => {
            members.insert("pk".to_owned(), key.pem().into());
            Value::Object(members).to_string()
        }
    }
}

/// The text of a contract, or with `settled` that of a receipt. With `tracker` it is of version 2 and
/// good for that tracker only.
pub(super) fn contract(
    contract: &Contract,
    from_pk: &str,
    to_pk: &str,
    tracker: Option<&KeyHash>,
    settled: Option<&Settled>,
) -> String {
    use daybook_ledger::tracker::command;
    let mut message = json!({
        "fromPK": from_pk,
        "toPK": to_pk,
        "channelId": &*contract.channel,
        "fromAddress": &*contract.from,
        "toAddress": &*contract.to,
        "priceTokens": contract.price.amount.to_string(),
        "priceQuantumPower": contract.price.power,
        "plannedQuantumCount": contract.planned,
    });
    let mut code = command::OPEN_TRANSFER;
    if let Some(settled) = settled {
        code = command::CLOSE_TRANSFER;
        message["tokens"] = settled.tokens.to_string().into();
        message["quantumCount"] = settled.count.into();
        message["volume"] = settled.volume.into();
    }
    if let Some(tracker) = tracker {
        message["v"] = 2.into();
        message["cmd"] = code.into();
        message["tracker"] = tracker_name(tracker).into();
    }
    message.to_string()
}
