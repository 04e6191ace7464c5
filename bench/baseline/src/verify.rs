//! Everything that needs no state: identity, shape, conditions, signatures (asset ledger 4-6).

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;

use crate::Outcome;

/// `A4 64 80 20`: an Ed25519 fulfillment, and the key that follows (5.4).
const FULFILLMENT_HEAD: [u8; 4] = [0xa4, 0x64, 0x80, 0x20];
/// `81 40`: the signature that follows the key.
const SIGNATURE_HEAD: [u8; 2] = [0x81, 0x40];
const FULFILLMENT_BYTES: usize = 102;
const AMOUNT_MAX: u64 = 9_000_000_000_000_000_000;

pub(crate) type Id = [u8; 32];

/// A transaction that holds by itself.
pub(crate) struct Verified {
    pub(crate) id: Id,
    pub(crate) asset: Id,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
}

pub(crate) struct Input {
    pub(crate) transaction: Id,
    pub(crate) index: u32,
    pub(crate) key: Arc<Key>,
}

pub(crate) struct Output {
    pub(crate) amount: u64,
    pub(crate) key: Arc<Key>,
}

pub(crate) struct Key {
    pub(crate) bytes: [u8; 32],
    verifying: VerifyingKey,
    uri: String,
}

/// Verifies one transaction after the other and remembers decoded keys.
#[derive(Default)]
pub(crate) struct Verifier {
    keys: HashMap<String, Arc<Key>>,
}

impl Verifier {
    pub(crate) fn verify(&mut self, text: &[u8]) -> Outcome<Verified> {
        let mut transaction: Value = serde_json::from_slice(text)?;
        let id = hex(&transaction["id"].take())?;
        if id != digest(&serde_json::to_vec(&transaction)?) {
            return Err("InvalidHash".into());
        }
        let members = transaction.as_object().ok_or("schema: not an object")?;
        let known = [
            "asset",
            "id",
            "inputs",
            "metadata",
            "operation",
            "outputs",
            "version",
        ];
        if !members.keys().map(String::as_str).eq(known) || transaction["version"] != "2.0" {
            return Err("schema: members".into());
        }
        let creates = match transaction["operation"].as_str() {
            Some("CREATE") => true,
            Some("TRANSFER") => false,
            _ => return Err("schema: operation".into()),
        };
        let asset = if creates {
            id
        } else {
            hex(&transaction["asset"]["id"])?
        };

        let mut outputs = Vec::new();
        for output in transaction["outputs"].as_array().ok_or("schema: outputs")? {
            let details = &output["condition"]["details"];
            if details["type"] != "ed25519-sha-256" {
                return Err("schema: condition".into());
            }
            let key = self.key(&details["public_key"])?;
            let owners = output["public_keys"]
                .as_array()
                .ok_or("schema: public_keys")?;
            if output["condition"]["uri"] != key.uri
                || owners[..] != [details["public_key"].clone()]
            {
                return Err("ValidationError".into());
            }
            let amount: u64 = output["amount"].as_str().ok_or("schema: amount")?.parse()?;
            if !(1..=AMOUNT_MAX).contains(&amount) {
                return Err("AmountError".into());
            }
            outputs.push(Output { amount, key });
        }

        let mut fulfillments = Vec::new();
        for input in transaction["inputs"]
            .as_array_mut()
            .ok_or("schema: inputs")?
        {
            fulfillments.push(input["fulfillment"].take());
        }
        let message = serde_json::to_vec(&transaction)?;
        let mut inputs = Vec::new();
        for (input, fulfillment) in transaction["inputs"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(fulfillments)
        {
            let key = self.key(&input["owners_before"][0])?;
            let text = fulfillment.as_str().ok_or("InvalidSignature")?;
            let bytes: [u8; FULFILLMENT_BYTES] = URL_SAFE_NO_PAD
                .decode(text)?
                .try_into()
                .map_err(|_| "InvalidSignature: length")?;
            let [head, public, middle, signature] =
                [&bytes[..4], &bytes[4..36], &bytes[36..38], &bytes[38..]];
            if head != FULFILLMENT_HEAD || middle != SIGNATURE_HEAD || public != key.bytes {
                return Err("InvalidSignature: form".into());
            }
            let mut hash = Sha3_256::new();
            hash.update(&message);
            let link = &input["fulfills"];
            if link.is_null() != creates {
                return Err("schema: fulfills".into());
            }
            if !creates {
                let name = link["transaction_id"]
                    .as_str()
                    .ok_or("schema: transaction_id")?;
                let index = link["output_index"]
                    .as_u64()
                    .ok_or("schema: output_index")?;
                hash.update(name);
                hash.update(index.to_string());
                inputs.push(Input {
                    transaction: hex(&link["transaction_id"])?,
                    index: index.try_into()?,
                    key: key.clone(),
                });
            }
            key.verifying
                .verify(&hash.finalize(), &Signature::from_slice(signature)?)?;
        }
        Ok(Verified {
            id,
            asset,
            inputs,
            outputs,
        })
    }

    fn key(&mut self, text: &Value) -> Outcome<Arc<Key>> {
        let text = text.as_str().ok_or("schema: public key")?;
        if let Some(key) = self.keys.get(text) {
            return Ok(key.clone());
        }
        let mut bytes = [0; 32];
        if bs58::decode(text).onto(&mut bytes[..])? != bytes.len() {
            return Err("schema: public key".into());
        }
        let key = Arc::new(Key {
            bytes,
            verifying: VerifyingKey::from_bytes(&bytes)?,
            uri: condition_uri(&bytes),
        });
        self.keys.insert(text.to_owned(), key.clone());
        Ok(key)
    }
}

/// The condition of a single key (5.2).
pub(crate) fn condition_uri(key: &[u8; 32]) -> String {
    let fingerprint = Sha256::new()
        .chain_update([0x30, 0x22, 0x80, 0x20])
        .chain_update(key);
    let fingerprint = URL_SAFE_NO_PAD.encode(fingerprint.finalize());
    format!("ni:///sha-256;{fingerprint}?fpt=ed25519-sha-256&cost=131072")
}

pub(crate) fn digest(text: &[u8]) -> Id {
    Sha3_256::digest(text).into()
}

/// 32 bytes from 64 lower-case hexadecimal digits.
fn hex(text: &Value) -> Outcome<Id> {
    let digits = text
        .as_str()
        .map(str::as_bytes)
        .filter(|digits| digits.len() == 64);
    let mut id = [0; 32];
    for (byte, pair) in id
        .iter_mut()
        .zip(digits.ok_or("schema: id")?.chunks_exact(2))
    {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err("schema: id".into()),
            };
            *byte = *byte << 4 | value;
        }
    }
    Ok(id)
}
