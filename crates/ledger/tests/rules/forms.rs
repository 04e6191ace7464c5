//! What members must look like (items 37, 40 and 41).

use daybook_ledger::{Parser, Rules};
use serde_json::{Value, json};

use crate::{
    common::{key, lamp, resign, sale, verify},
    is_proven, lamp_with, sale_with, signed_lamp,
};

#[test]
fn outputs_inputs_owners_and_keys_must_be_there() {
    for pointer in [
        "/outputs",
        "/inputs",
        "/inputs/0/owners_before",
        "/outputs/0/public_keys",
    ] {
        let message = lamp_with(|lamp| *lamp.pointer_mut(pointer).unwrap() = json!([]));
        assert_eq!(
            message, "Invalid transaction schema: [] is too short",
            "{pointer}"
        );
        let message = lamp_with(|lamp| *lamp.pointer_mut(pointer).unwrap() = Value::Null);
        assert_eq!(
            message, "Invalid transaction schema: None is not of type 'array'",
            "{pointer}"
        );
    }
}

#[test]
fn item_37_amounts_out_of_range_or_form_are_refused() {
    let with = |amount: Value| lamp_with(|lamp| lamp["outputs"][0]["amount"] = amount);
    let amount = "Invalid transaction (AmountError): `amount` must be ";
    for zero in ["0", "00000000000000000000"] {
        assert_eq!(with(json!(zero)), format!("{amount}greater than 0"));
    }
    for large in [
        "9000000000000000001",
        "18446744073709551616",
        "99999999999999999999",
    ] {
        assert_eq!(
            with(json!(large)),
            format!("{amount}<= 9000000000000000000")
        );
    }
    let pattern = "does not match '^[0-9]{1,20}$'";
    for form in [
        "-1",
        "",
        "1.0",
        "1e3",
        " 1",
        "+1",
        "111111111111111111111",
        "٣",
    ] {
        assert_eq!(
            with(json!(form)),
            format!("Invalid transaction schema: '{form}' {pattern}")
        );
    }
    assert_eq!(
        with(json!(1)),
        "Invalid transaction schema: 1 is not of type 'string'"
    );
}

#[test]
fn amounts_count_by_value_up_to_the_largest() {
    for (text, units) in [
        ("007", 7),
        ("00000000000000000001", 1),
        ("9000000000000000000", 9_000_000_000_000_000_000),
    ] {
        let lamp = signed_lamp(|lamp| lamp["outputs"][0]["amount"] = text.into()).unwrap();
        assert_eq!(lamp.outputs()[0].amount.units(), units);
        assert!(verify(lamp).is_ok());
    }
}

#[test]
fn item_40_key_names_of_document_stores_are_refused_at_any_depth() {
    let text = |name: &str, place: &str| {
        format!(
            "Invalid transaction (ValidationError): Invalid key name \"{name}\" in {place} object. \
             The key name cannot contain characters \".\", \"$\" or null characters"
        )
    };
    for name in ["a.b", "$b", "x\0", ".", "$", "\0\0", "a\\u0000.b"] {
        for value in [
            json!({name: 1}),
            json!({"a": {name: 1}}),
            json!({"a": [1, [{name: 1}]]}),
        ] {
            let message = lamp_with(|lamp| lamp["asset"]["data"] = value.clone());
            assert_eq!(message, text(name, "asset"));
            let message = lamp_with(|lamp| lamp["metadata"] = value.clone());
            assert_eq!(message, text(name, "metadata"));
        }
    }
    for name in [
        "a$", "\u{1}", "a\\u0000", "\\", "", "é", "\"", "\u{7f}", "a,b",
    ] {
        let fine = signed_lamp(|lamp| lamp["metadata"] = json!({name: {name: name}}));
        assert!(is_proven(fine), "{name:?}");
    }
}

#[test]
fn item_41_a_language_must_be_one_of_the_list() {
    let text = |language: &str| {
        format!(
            "Invalid transaction (ValidationError): MongoDB does not support text search for the \
             language \"{language}\". If you do not understand this error message then please \
             rename key/field \"language\" to something else like \"lang\"."
        )
    };
    for (language, shown) in [
        (json!("klingon"), "klingon"),
        (json!(5), "5"),
        (json!(null), "None"),
        (json!({"language": "en"}), "{'language': 'en'}"),
        (json!("English"), "English"),
    ] {
        let message = lamp_with(|lamp| lamp["asset"]["data"] = json!({"language": language}));
        assert_eq!(message, text(shown));
        let message = lamp_with(|lamp| lamp["metadata"] = json!({"a": [{"language": language}]}));
        assert_eq!(message, text(shown));
    }
    let fine = signed_lamp(|lamp| {
        lamp["asset"]["data"] = json!({"language": "english", "a": {"language": "sv"}});
    });
    assert!(is_proven(fine));
}

#[test]
fn the_document_store_rules_can_be_switched_off() {
    let rules = Rules {
        key_names: false,
        language: false,
        ..Rules::default()
    };
    let mut lamp = lamp();
    lamp["metadata"] = json!({"$a.b": {"language": "klingon"}});
    resign(&mut lamp, &[&key("alice")]);
    let text = || bytes::Bytes::from(lamp.to_string());
    assert!(Parser::new(rules).parse(text()).is_ok());
    assert!(Parser::new(Rules::default()).parse(text()).is_err());
}

#[test]
fn the_links_of_inputs_fit_the_operation() {
    let schema = "Invalid transaction schema: ";
    let link = sale()["inputs"][0]["fulfills"].clone();
    assert!(
        lamp_with(|lamp| lamp["inputs"][0]["fulfills"] = link).contains("is not of type 'null'")
    );
    let missing = lamp_with(|lamp| {
        lamp["inputs"][0]
            .as_object_mut()
            .unwrap()
            .remove("fulfills");
    });
    assert_eq!(
        missing,
        format!("{schema}'fulfills' is a required property")
    );
    let null = sale_with(|sale| sale["inputs"][0]["fulfills"] = Value::Null);
    assert_eq!(null, format!("{schema}None is not of type 'object'"));
    let index =
        |index: Value| sale_with(|sale| sale["inputs"][0]["fulfills"]["output_index"] = index);
    assert_eq!(
        index(json!(-1)),
        format!("{schema}-1 is less than the minimum of 0")
    );
    assert_eq!(
        index(json!("0")),
        format!("{schema}'0' is not of type 'integer'")
    );
    assert_eq!(
        index(json!(true)),
        format!("{schema}True is not of type 'integer'")
    );
    assert_eq!(
        index(json!(0.5)),
        format!("{schema}0.5 is not of type 'integer'")
    );
    let id = sale()["inputs"][0]["fulfills"]["transaction_id"].clone();
    let beyond = format!(
        "Invalid transaction (InputDoesNotExist): input `{}` doesn't exist",
        id.as_str().unwrap()
    );
    assert_eq!(index(json!(4_294_967_296u64)), beyond);
    assert_eq!(index(json!(u64::MAX)), beyond);
}

#[test]
fn keys_have_43_or_44_base58_characters_and_32_bytes() {
    let schema = "Invalid transaction schema: ";
    let with = |text: &str| lamp_with(|lamp| lamp["inputs"][0]["owners_before"] = json!([text]));
    for wrong in ["", "abc", &"0".repeat(44), &"I".repeat(43), &"2".repeat(45)] {
        let pattern = "^[1-9a-zA-Z^OIl]{43,44}$";
        assert_eq!(
            with(wrong),
            format!("{schema}'{wrong}' does not match '{pattern}'")
        );
    }
    for length in [&"z".repeat(44), &"1".repeat(43)] {
        assert_eq!(
            with(length),
            format!("{schema}'{length}' is not the base58 text of 32 bytes")
        );
    }
}
