//! The recorded transactions and tables, reproduced byte for byte.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{key, parse, recorded, text_of, transactions, verify};
use daybook_ledger::{
    AssetId, Draft, OutputRef, Version, canonical,
    condition::{Condition, Details, Fulfillment},
    json::Value,
};

/// Elections are refused by this node; their ids and digests are checked at the lower level.
fn is_election(vector: &serde_json::Value) -> bool {
    let operation = vector["transaction"]["operation"].as_str().unwrap();
    operation.ends_with("ELECTION") || operation == "VOTE"
}

fn read(vector: &serde_json::Value) -> Value {
    Value::parse(text_of(vector).as_bytes(), 512).unwrap()
}

#[test]
fn every_recorded_transaction_is_taken_or_refused_as_recorded() {
    for vector in transactions() {
        let name = vector["name"].as_str().unwrap();
        let result = parse(text_of(&vector));
        if name.starts_with("12") {
            let message = result.unwrap_err().message();
            assert!(
                message.starts_with("Invalid transaction schema: "),
                "{name}: {message}"
            );
        } else if name.starts_with("37") {
            assert_eq!(result.unwrap_err().class.name(), "InvalidHash", "{name}");
        } else if is_election(&vector) {
            let message = result.unwrap_err().message();
            assert!(
                message.contains("elections are not enabled on this node"),
                "{message}"
            );
        } else {
            let transaction = result.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(
                transaction.id().to_string(),
                vector["transaction"]["id"].as_str().unwrap()
            );
            let explained = vector["explained"]["inputs"].as_array().unwrap();
            for (input, explained) in transaction.inputs().iter().zip(explained) {
                assert_eq!(
                    hex::encode(input.message),
                    explained["digest_sha3_256_hex"],
                    "{name}"
                );
                let uri = input.fulfillment.condition.uri();
                assert_eq!(uri, explained["fulfillment_condition_uri"], "{name}");
            }
            assert!(verify(transaction).is_ok(), "{name}");
        }
    }
}

/// Fills in a draft as the recording library was asked to.
fn draft_of(vector: &serde_json::Value, all: &[serde_json::Value]) -> Draft {
    let value = read(vector);
    let transaction = value.as_object().unwrap();
    let text = |name: &str| transaction.get(name).unwrap().as_str().unwrap();
    let assets: Vec<Value> = match (transaction.get("asset"), transaction.get("assets")) {
        (Some(asset), _) => vec![asset.clone()],
        (_, Some(Value::Array(assets))) => assets.clone(),
        _ => Vec::new(),
    };
    let member = |name: &str| -> Vec<Value> {
        assets
            .iter()
            .filter_map(|asset| asset.as_object().unwrap().get(name))
            .cloned()
            .collect()
    };
    let data = member("data");
    let ids: Vec<AssetId> = member("id")
        .iter()
        .map(|id| id.as_str().unwrap().parse().unwrap())
        .collect();
    let strings = data
        .iter()
        .filter_map(|data| Some(data.as_str()?.to_owned()));
    let mut draft = match text("operation") {
        "CREATE" => Draft::create(data.first().cloned().unwrap_or(Value::Null)),
        "TRANSFER" => Draft::transfer(ids[0]),
        "COMPOSE" => Draft::compose(data[0].as_str().unwrap(), ids),
        "DECOMPOSE" => Draft::decompose(ids[0], strings),
        other => panic!("{other}"),
    };
    if text("version") == "3.0" {
        draft = draft.version(Version::V3);
    }
    for spent in vector["spends"].as_array().unwrap() {
        let parent = all
            .iter()
            .find(|one| one["transaction"]["id"] == spent[0])
            .unwrap();
        let index = spent[1].as_u64().unwrap();
        let details = &parent["transaction"]["outputs"][index as usize]["condition"]["details"];
        let details = Value::parse(details.to_string().as_bytes(), 512).unwrap();
        let output = OutputRef {
            transaction: spent[0].as_str().unwrap().parse().unwrap(),
            index: index as u32,
        };
        draft = draft.spend(output, Details::from_value(&details).unwrap());
    }
    for output in transaction.get("outputs").unwrap().as_array().unwrap() {
        let output = output.as_object().unwrap();
        let condition = output.get("condition").unwrap().as_object().unwrap();
        let details = Details::from_value(condition.get("details").unwrap()).unwrap();
        let amount = output
            .get("amount")
            .unwrap()
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        draft = draft.output(amount, details);
    }
    draft.metadata(transaction.get("metadata").unwrap().clone())
}

#[test]
fn drafts_signed_with_the_recorded_seeds_are_the_recorded_transactions() {
    let all = transactions();
    for vector in &all {
        let name = vector["name"].as_str().unwrap();
        if is_election(vector) || name.starts_with("12") || name.starts_with("37") {
            continue;
        }
        let signers: Vec<_> = vector["signers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|signer| key(signer.as_str().unwrap()))
            .collect();
        let signers: Vec<_> = signers.iter().collect();
        let signed = draft_of(vector, &all)
            .sign(&signers)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let recorded = canonical::canon(&read(vector));
        assert_eq!(
            std::str::from_utf8(signed.canonical()).unwrap(),
            recorded,
            "{name}"
        );
        assert!(verify(signed).is_ok(), "{name}");
    }
}

#[test]
fn the_texts_for_ids_and_signatures_are_reproduced() {
    for vector in transactions() {
        let name = vector["name"].as_str().unwrap();
        // The JavaScript driver hashed and signed its own spelling of numbers and control
        // characters, which is why this one is refused.
        if name.starts_with("37") {
            continue;
        }
        let value = read(&vector);
        let transaction = value.as_object().unwrap();
        let explained = &vector["explained"];
        let for_id = canonical::text_for_id(transaction);
        assert_eq!(
            for_id,
            explained["canonical_for_id"].as_str().unwrap(),
            "{name}"
        );
        let for_signing = canonical::text_for_signing(transaction);
        assert_eq!(
            for_signing,
            explained["canonical_for_signing"].as_str().unwrap(),
            "{name}"
        );
        let id = hex::encode(canonical::sha3(for_id.as_bytes()));
        let recorded_id = vector["transaction"]["id"].as_str().unwrap();
        assert_eq!(id, recorded_id, "{name}");
        for input in explained["inputs"].as_array().unwrap() {
            let text = format!("{for_signing}{}", input["appended"].as_str().unwrap());
            let digest = hex::encode(canonical::sha3(text.as_bytes()));
            assert_eq!(digest, input["digest_sha3_256_hex"], "{name}");
        }
    }
}

#[test]
fn every_recorded_fulfillment_decodes_to_its_recorded_condition() {
    for vector in transactions() {
        let name = vector["name"].as_str().unwrap();
        for input in vector["explained"]["inputs"].as_array().unwrap() {
            let der = hex::decode(input["fulfillment_der_hex"].as_str().unwrap()).unwrap();
            let fulfillment = Fulfillment::from_der(&der, 100).unwrap();
            assert_eq!(
                fulfillment.condition.uri(),
                input["fulfillment_condition_uri"],
                "{name}"
            );
        }
    }
}

#[test]
fn every_recorded_output_has_the_uri_of_its_details() {
    for vector in transactions() {
        let value = read(&vector);
        let outputs = value
            .as_object()
            .unwrap()
            .get("outputs")
            .unwrap()
            .as_array()
            .unwrap();
        for output in outputs {
            let condition = output.as_object().unwrap().get("condition").unwrap();
            let condition = condition.as_object().unwrap();
            let details = Details::from_value(condition.get("details").unwrap()).unwrap();
            assert_eq!(
                Some(&*details.condition().uri()),
                condition.get("uri").unwrap().as_str()
            );
        }
    }
}

#[test]
fn the_table_of_canonical_texts_is_reproduced() {
    let table = recorded("canonical-json.json");
    for case in table["cases"].as_array().unwrap() {
        let input = case["input"].as_str().unwrap();
        let text = canonical::canon(&Value::parse(input.as_bytes(), 512).unwrap());
        assert_eq!(text, case["canonical"].as_str().unwrap(), "{input}");
        assert_eq!(
            hex::encode(&text),
            case["canonical_utf8_hex"].as_str().unwrap(),
            "{input}"
        );
        // Canonical text is its own canonical text.
        assert_eq!(
            canonical::canon(&Value::parse(text.as_bytes(), 512).unwrap()),
            text
        );
    }
}

#[test]
fn the_table_of_conditions_is_reproduced() {
    let table = recorded("conditions.json");
    let cases = table["conditions"].as_array().unwrap();
    assert_eq!(cases.len(), 16);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let json = serde_json::to_string(&case["details"]).unwrap();
        let details = Details::from_value(&Value::parse(json.as_bytes(), 512).unwrap()).unwrap();
        let condition: Condition = details.condition();
        assert_eq!(condition.uri(), case["uri"].as_str().unwrap(), "{name}");
        assert_eq!(condition.cost, case["cost"].as_u64().unwrap(), "{name}");
        assert_eq!(
            hex::encode(condition.fingerprint),
            case["fingerprint_hex"],
            "{name}"
        );
        assert_eq!(
            hex::encode(condition.to_der()),
            case["condition_der_hex"],
            "{name}"
        );
        assert_eq!(
            Details::from_value(&details.to_value()).unwrap(),
            details,
            "{name}"
        );
    }
}
