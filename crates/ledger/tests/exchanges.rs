//! The recorded answers to POSTs of bad transactions, as far as they need no committed state.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::{collections::BTreeMap, fs};

use common::{folder, parse, verify};
use serde_json::{Value, value::RawValue};

/// What a node says that does not know the transaction's inputs: the parser's message, or the one
/// that follows from wrong signatures.
fn answer(body: &str) -> Option<String> {
    match parse(body) {
        Err(rejection) => Some(rejection.message()),
        Ok(transaction) => match verify(transaction) {
            Ok(_) => None,
            Err(_) => Some(SIGNATURE.to_owned()),
        },
    }
}

const SIGNATURE: &str = "Invalid transaction (InvalidSignature): Transaction signature is invalid.";

/// Where this ledger answers otherwise, and why. `None` leaves it to the state of the ledger.
fn deviation(label: &str) -> Option<(&'static str, &'static str)> {
    Some(match label {
        "version 3.0" => (
            "Invalid transaction schema: 'assets' is a required property",
            "version 3.0 is known here; its member is named `assets`",
        ),
        "metadata list" | "asset data list" => return None,
        "metadata string" | "asset data string" => (
            SIGNATURE,
            "strings are accepted in version 2.0; the change broke the signature",
        ),
        "no outputs" => (
            "Invalid transaction schema: [] is too short",
            "a transaction must have an output, which is found before signatures are looked at",
        ),
        "public_keys empty" => (
            "Invalid transaction schema: [] is too short",
            "an output must have a key, which is found before signatures are looked at",
        ),
        "public_keys null" => (
            "Invalid transaction schema: None is not of type 'array'",
            "an output must have a key, which is found before signatures are looked at",
        ),
        "condition uri mismatch" => (
            "Invalid transaction (ValidationError): The condition's uri \
             'ni:///sha-256;1AqSY3xm72xVBy5KrWjyv2Gajsd85FLXTHcBYdDLYiY?fpt=ed25519-sha-256&cost=131072' \
             does not follow from its details, which give \
             'ni:///sha-256;FH6K4ttZUUxj-bzXnHPhA8IgZt-lpPLqMeIxh7SdV2A?fpt=ed25519-sha-256&cost=131072'",
            "the uri must follow from the details, which is found before signatures are looked at",
        ),
        // Faults of the reference, which answered 500.
        "post array" | "post null" | "post string" | "post number" => (
            "The body must be a JSON object: one transaction",
            "the reference answered 500",
        ),
        "fulfillment zeros" | "fulfillment one char" => (
            "Invalid transaction (InvalidSignature): Fulfillment URI couldn't been parsed",
            "the reference answered 500",
        ),
        "owners_before null" => (
            "Invalid transaction schema: None is not of type 'array'",
            "the reference answered 500",
        ),
        _ => return None,
    })
}

/// Classes that only the ledger's state decides.
fn needs_state(message: &str) -> bool {
    [
        "DuplicateTransaction",
        "InputDoesNotExist",
        "DoubleSpend",
        "AssetIdMismatch",
        "The amount used",
    ]
    .iter()
    .any(|word| message.contains(word))
}

#[test]
fn recorded_refusals_are_worded_as_recorded() {
    let text = fs::read_to_string(folder().join("http-exchanges.json")).unwrap();
    let file: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
    let exchanges: Vec<BTreeMap<String, Box<RawValue>>> =
        serde_json::from_str(file["exchanges"].get()).unwrap();
    let (mut seen, mut deviations) = (0, 0);
    for exchange in exchanges {
        let label: String = serde_json::from_str(exchange["label"].get()).unwrap();
        let request: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(exchange["request"].get()).unwrap();
        let response: Value = serde_json::from_str(exchange["response"].get()).unwrap();
        let method: String = serde_json::from_str(request["method"].get()).unwrap();
        let path: String = serde_json::from_str(request["path"].get()).unwrap();
        if method != "POST" || !path.starts_with("/api/v1/transactions") {
            continue;
        }
        let body: String = match (request.get("json"), request.get("raw_body")) {
            (Some(json), _) => json.get().to_owned(),
            (None, Some(raw)) => serde_json::from_str(raw.get()).unwrap(),
            (None, None) => String::new(),
        };
        let recorded = response["json"]["message"].as_str();
        let ours = answer(&body);
        seen += 1;
        if let Some((expected, reason)) = deviation(&label) {
            assert_eq!(ours.as_deref(), Some(expected), "{label}: {reason}");
            deviations += 1;
        } else if recorded.is_some_and(needs_state) {
            // The state names the error before the signatures are looked at, so they may be wrong.
            assert!(
                ours.is_none() || ours.as_deref() == Some(SIGNATURE),
                "{label}: {ours:?}"
            );
        } else if response["status"] == 202 || recorded.is_none() {
            assert_eq!(ours, None, "{label}");
        } else if exchange.contains_key("conformant_status") {
            // An output index beyond the list: found against the state.
            assert_eq!(label, "transfer output index out of range");
        } else {
            assert_eq!(ours.as_deref(), recorded, "{label}");
        }
    }
    assert_eq!((seen, deviations), (83, 14));
}
