//! Signed containers (wallet tracker, section 3.4), and what makes a message unique (section 17.2).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use daybook_ledger::tracker::{TrackerId, draft::Version2};
use serde::{Deserialize, Serialize};

use super::PeerKey;

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

/// What makes a version 2 message unique.
pub(super) fn version2(correlation: &str, tracker: TrackerId, time_ms: u64) -> Version2<'_> {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).expect("the operating system gives random bytes");
    Version2 {
        correlation,
        tracker,
        time_ms,
        nonce,
    }
}
