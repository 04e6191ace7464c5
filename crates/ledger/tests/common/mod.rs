//! Recorded vectors, as the tests read them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::result_large_err,
    clippy::disallowed_methods
)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use bytes::Bytes;
use daybook_ledger::{
    Parser, PublicKey, Rejection, Rules, SigningKey, Transaction, Unproven, Verified, canonical,
    condition::Details, verify_signatures,
};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, value::RawValue};

/// The folder of recorded vectors.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// One recorded file.
pub fn recorded(name: &str) -> Value {
    let path = folder().join(name);
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"))).unwrap()
}

/// Every recorded transaction, in the order of the file names.
pub fn transactions() -> Vec<Value> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.as_bytes()[0].is_ascii_digit())
        .collect();
    names.sort();
    assert_eq!(names.len(), 43);
    names
        .iter()
        .map(|name| {
            let mut vector = recorded(name);
            // Reading numbers into floats and back would change some, so the text is kept as well.
            let text = fs::read_to_string(folder().join(name)).unwrap();
            let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
            vector["text"] = members["transaction"].get().into();
            vector
        })
        .collect()
}

/// The text of a recorded transaction, as it is posted.
pub fn text_of(vector: &Value) -> &str {
    vector["text"].as_str().unwrap()
}

/// The recorded transaction with this number.
pub fn vector(number: &str) -> Value {
    transactions()
        .into_iter()
        .find(|vector| vector["name"].as_str().unwrap().starts_with(number))
        .unwrap()
}

/// A key of the vectors.
pub fn key(name: &str) -> SigningKey {
    for file in ["keys.json", "keys-validators.json"] {
        for key in recorded(file).as_array().unwrap() {
            if key["name"] == name {
                let key_pair =
                    SigningKey::from_base58(key["private_key"].as_str().unwrap()).unwrap();
                assert_eq!(
                    key_pair.public_key().to_string(),
                    key["public_key"].as_str().unwrap()
                );
                return key_pair;
            }
        }
    }
    panic!("no key of {name}")
}

/// Reads a transaction under the default rules.
pub fn parse(text: impl Into<Vec<u8>>) -> Result<Transaction, Rejection> {
    Parser::new(Rules::default()).parse(Bytes::from(text.into()))
}

/// Reads a transaction given as a value.
pub fn parse_value(value: &Value) -> Result<Transaction, Rejection> {
    parse(serde_json::to_vec(value).unwrap())
}

/// Checks the signatures of one transaction.
pub fn verify(transaction: Transaction) -> Result<Verified<Transaction>, Unproven<Transaction>> {
    let mut random = StdRng::seed_from_u64(7);
    verify_signatures(vec![transaction], &mut random).remove(0)
}

/// The message of a refusal.
pub fn refusal(value: &Value) -> String {
    parse_value(value)
        .expect_err("it must be refused")
        .message()
}

/// Gives a changed transaction its true id again.
pub fn rehash(value: &mut Value) {
    let text = canonical::text_for_id(canonical_value(value).as_object().unwrap());
    value["id"] = hex::encode(canonical::sha3(text.as_bytes())).into();
}

/// Signs a changed transaction again: every input as the owners that it names, all of them.
pub fn resign(value: &mut Value, keys: &[&SigningKey]) {
    let text = canonical::text_for_signing(canonical_value(value).as_object().unwrap());
    for input in value["inputs"].as_array_mut().unwrap() {
        let mut message = text.clone();
        if let Some(link) = input["fulfills"].as_object() {
            message.push_str(link["transaction_id"].as_str().unwrap());
            message.push_str(&link["output_index"].to_string());
        }
        let owners: Vec<PublicKey> = input["owners_before"]
            .as_array()
            .unwrap()
            .iter()
            .map(|owner| owner.as_str().unwrap().parse().unwrap())
            .collect();
        let proof = Details::all_of(&owners).fulfill(keys, &canonical::sha3(message.as_bytes()));
        input["fulfillment"] = proof.unwrap().into();
    }
    rehash(value);
}

/// The value as the ledger reads it.
pub fn canonical_value(value: &Value) -> daybook_ledger::json::Value {
    daybook_ledger::json::Value::parse(value.to_string().as_bytes(), 1_000).unwrap()
}

/// The first recorded transaction: Alice creates a lamp.
pub fn lamp() -> Value {
    vector("01")["transaction"].clone()
}

/// The eighth: Alice hands the lamp to Bob.
pub fn sale() -> Value {
    vector("08")["transaction"].clone()
}
