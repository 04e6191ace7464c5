//! Versions and operations (items 57 to 60).

use daybook_ledger::{Operation, Version, condition::Condition};
use serde_json::{Value, json};

use crate::{
    common::{key, lamp, parse_value, refusal, rehash, resign, vector},
    is_proven, lamp_with, signed_lamp,
};

#[test]
fn item_57_broken_or_foreign_signatures_are_refused_in_version_3() {
    for (number, owner) in [("41", "alice"), ("50", "bob"), ("51", "bob")] {
        let recorded = vector(number)["transaction"].clone();
        assert!(is_proven(parse_value(&recorded)), "{number}");
        let mut broken = recorded.clone();
        let proof = broken["inputs"][0]["fulfillment"]
            .as_str()
            .unwrap()
            .to_owned();
        let flipped = if &proof[100..101] == "A" { "B" } else { "A" };
        let proof = format!("{}{flipped}{}", &proof[..100], &proof[101..]);
        broken["inputs"][0]["fulfillment"] = proof.into();
        rehash(&mut broken);
        assert!(!is_proven(parse_value(&broken)), "{number}");

        let mut foreign = recorded.clone();
        let carol = key("carol");
        let owners = foreign["inputs"].clone();
        for input in foreign["inputs"].as_array_mut().unwrap() {
            input["owners_before"] = json!([carol.public_key().to_string()]);
        }
        resign(&mut foreign, &[&carol]);
        for (input, recorded) in foreign["inputs"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip(owners.as_array().unwrap())
        {
            input["owners_before"] = recorded["owners_before"].clone();
        }
        rehash(&mut foreign);
        assert!(!is_proven(parse_value(&foreign)), "{number} of {owner}");
    }
}

#[test]
fn item_58_members_of_the_other_version_are_refused() {
    let cid = || vector("41")["transaction"].clone();
    let with = |mut value: Value, change: &dyn Fn(&mut Value)| {
        change(&mut value);
        rehash(&mut value);
        refusal(&value)
    };
    let schema = "Invalid transaction schema: ";
    let move_asset = |from: &'static str, to: &'static str| {
        move |value: &mut Value| {
            let asset = value.as_object_mut().unwrap().remove(from).unwrap();
            value[to] = asset;
        }
    };
    assert_eq!(
        with(cid(), &|value| value["metadata"] = json!({"a": 1})),
        format!("{schema}{{'a': 1}} is not of type 'string'")
    );
    assert_eq!(
        with(cid(), &|value| value["assets"][0]["data"] = json!({"a": 1})),
        format!("{schema}{{'a': 1}} is not of type 'string'")
    );
    assert_eq!(
        with(cid(), &move_asset("assets", "asset")),
        format!("{schema}'assets' is a required property")
    );
    assert_eq!(
        with(lamp(), &move_asset("asset", "assets")),
        format!("{schema}'asset' is a required property")
    );
    assert_eq!(
        with(cid(), &|value| value["asset"] = Value::Null),
        format!("{schema}Additional properties are not allowed ('asset' was unexpected)")
    );
    assert_eq!(
        with(lamp(), &|value| value["version"] = json!("4.0")),
        format!("{schema}'4.0' does not match '^2\\\\.0$'")
    );
    assert_eq!(
        with(lamp(), &|value| value["version"] = json!("1.0")),
        format!("{schema}'1.0' does not match '^2\\\\.0$'")
    );
    let script = json!({"code": "", "state": "", "inputs": {}, "outputs": {}});
    assert!(
        with(cid(), &|value| value["script"] = script.clone())
            .contains("'script' is not supported")
    );
    assert!(with(lamp(), &|value| value["operation"] = json!("COMPOSE")).contains("is not one of"));
}

#[test]
fn asset_data_and_metadata_are_the_union_of_both_families_in_version_2() {
    for data in [json!({"a": 1}), json!({}), json!("cid"), Value::Null] {
        assert!(is_proven(signed_lamp(|lamp| lamp["asset"]["data"] = data)));
    }
    for metadata in [json!({"a": 1}), json!("cid"), Value::Null] {
        assert!(is_proven(signed_lamp(|lamp| lamp["metadata"] = metadata)));
    }
    for wrong in [json!(1), json!([1]), json!(true)] {
        let message = lamp_with(|lamp| lamp["asset"]["data"] = wrong.clone());
        assert!(message.contains("is not of type 'object'"), "{message}");
        let message = lamp_with(|lamp| lamp["metadata"] = wrong);
        assert!(message.contains("is not of type 'object'"), "{message}");
    }
    let message = lamp_with(|lamp| lamp["metadata"] = json!({}));
    assert_eq!(
        message,
        "Invalid transaction schema: {} does not have enough properties"
    );
}

#[test]
fn item_60_elections_and_votes_are_known_and_refused() {
    for number in ["21", "22", "23"] {
        let message = refusal(&vector(number)["transaction"]);
        assert!(
            message.starts_with("Invalid transaction (ValidationError): "),
            "{message}"
        );
        assert!(
            message.ends_with("elections are not enabled on this node"),
            "{message}"
        );
        let mut wrong = vector(number)["transaction"].clone();
        wrong["id"] = "00".repeat(32).into();
        assert!(refusal(&wrong).contains("InvalidHash"));
    }
}

#[test]
fn a_compose_makes_one_asset_of_others() {
    let recorded = parse_value(&vector("50")["transaction"]).unwrap();
    assert_eq!(
        (recorded.operation(), recorded.version()),
        (Operation::Compose, Version::V3)
    );
    assert_eq!(recorded.asset(), recorded.id().as_asset());
    assert_eq!(recorded.consumed_assets().len(), 2);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = vector("50")["transaction"].clone();
        change(&mut value);
        rehash(&mut value);
        refusal(&value)
    };
    let two = with(&|value| {
        let output = value["outputs"][0].clone();
        value["outputs"].as_array_mut().unwrap().push(output);
    });
    assert!(two.ends_with("A COMPOSE has exactly one output"), "{two}");
    let no_data = with(&|value| {
        value["assets"].as_array_mut().unwrap().remove(0);
    });
    assert!(no_data.contains("'assets' of a COMPOSE"), "{no_data}");
    let no_id = with(&|value| value["assets"].as_array_mut().unwrap().truncate(1));
    assert!(no_id.contains("'assets' of a COMPOSE"), "{no_id}");
}

#[test]
fn a_decompose_gives_each_part_to_the_single_owner() {
    let recorded = parse_value(&vector("51")["transaction"]).unwrap();
    assert_eq!(recorded.operation(), Operation::Decompose);
    assert_eq!(recorded.consumed_assets().len(), 1);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = vector("51")["transaction"].clone();
        change(&mut value);
        rehash(&mut value);
        refusal(&value)
    };
    let fewer = with(&|value| {
        value["outputs"].as_array_mut().unwrap().pop();
    });
    assert!(fewer.contains("one output for each"), "{fewer}");
    let carol = key("carol").public_key();
    let other = with(&|value| {
        value["outputs"][1]["public_keys"] = json!([carol.to_string()]);
        value["outputs"][1]["condition"] = json!({
            "details": {"type": "ed25519-sha-256", "public_key": carol.to_string()},
            "uri": Condition::of_key(&carol).uri(),
        });
    });
    assert!(other.contains("that of its input's owner"), "{other}");
    let inputs = with(&|value| {
        let input = value["inputs"][0].clone();
        value["inputs"].as_array_mut().unwrap().push(input);
    });
    assert!(inputs.contains("is too long"), "{inputs}");
}

#[test]
fn version_3_transfers_may_name_several_assets_and_the_first_counts() {
    let mut transfer = vector("44")["transaction"].clone();
    let first = transfer["assets"][0]["id"].as_str().unwrap().to_owned();
    transfer["assets"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": "ab".repeat(32)}));
    rehash(&mut transfer);
    let transfer = parse_value(&transfer).unwrap();
    assert_eq!(transfer.asset().to_string(), first);
    assert_eq!(transfer.consumed_assets(), [transfer.asset()]);
}
