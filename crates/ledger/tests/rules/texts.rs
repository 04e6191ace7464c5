//! Texts, ids and what bounds them (items 16 to 23).

use daybook_ledger::{
    Draft, DraftError, Limits, OutputRef, Parser, Rules, TransactionId, canonical,
    json::{self, Object},
};
use serde_json::{Value, json};

use crate::{
    common::{
        key, lamp, parse, parse_value, refusal, resign, sale, text_of, transactions, vector, verify,
    },
    lamp_with, sale_with, signed_lamp,
};

#[test]
fn item_16_bodies_that_are_no_object_are_malformed() {
    for body in [
        "[]",
        "null",
        "\"x\"",
        "5",
        "{nope",
        "",
        "{\"a\":1,\"a\":1}",
        "{} x",
        "\u{feff}{}",
    ] {
        let rejection = parse(body).unwrap_err();
        assert_eq!(rejection.class.name(), "MalformedJson", "{body}");
    }
    let exact = |body: &[u8]| parse(body).unwrap_err().message();
    assert_eq!(
        exact(b""),
        "Failed to decode JSON object: Expecting value: line 1 column 1 (char 0)"
    );
    assert_eq!(
        exact(b"{nope"),
        "Failed to decode JSON object: Expecting property name enclosed in double quotes: \
         line 1 column 2 (char 1)"
    );
    assert_eq!(
        exact("{\n \"é\": x}".as_bytes()),
        "Failed to decode JSON object: Expecting value: line 2 column 7 (char 8)"
    );
    assert!(exact(b"\"\xff\"").contains("not UTF-8"));
}

#[test]
fn item_17_an_empty_object_has_no_id() {
    let message = parse("{}").unwrap_err().message();
    assert_eq!(
        message,
        "Invalid transaction (InvalidHash): No transaction id found!"
    );
}

#[test]
fn item_18_a_wrong_id_is_named_in_full() {
    let mut lamp = lamp();
    lamp["id"] = "abcd".repeat(16).into();
    assert_eq!(
        refusal(&lamp),
        format!(
            "Invalid transaction (InvalidHash): The transaction's id '{}' isn't equal to the hash \
             of its body, i.e. it's not valid.",
            "abcd".repeat(16)
        )
    );
    lamp["id"] = Value::Null;
    assert!(refusal(&lamp).contains("The transaction's id 'None' isn't equal"));
    lamp["id"] = json!([1, {"a": true}]);
    assert!(refusal(&lamp).contains("The transaction's id '[1, {'a': True}]' isn't equal"));
}

#[test]
fn item_19_a_missing_version_is_a_missing_property() {
    let message = lamp_with(|lamp| {
        lamp.as_object_mut().unwrap().remove("version");
    });
    assert_eq!(
        message,
        "Invalid transaction schema: 'version' is a required property"
    );
}

#[test]
fn item_20_an_extra_member_is_refused_wherever_it_stands() {
    for pointer in [
        "",
        "/inputs/0",
        "/outputs/0",
        "/outputs/0/condition",
        "/outputs/0/condition/details",
    ] {
        let message = lamp_with(|lamp| lamp.pointer_mut(pointer).unwrap()["extra"] = json!(1));
        assert_eq!(
            message,
            "Invalid transaction schema: Additional properties are not allowed \
             ('extra' was unexpected)",
            "{pointer}"
        );
    }
    let message = sale_with(|sale| sale["inputs"][0]["fulfills"]["extra"] = json!(1));
    assert!(message.contains("('extra' was unexpected)"), "{message}");
}

#[test]
fn item_21_every_recorded_transaction_verifies() {
    let mut proven = 0;
    for vector in transactions() {
        let Ok(transaction) = parse(text_of(&vector)) else {
            continue;
        };
        assert_eq!(
            transaction.id().to_string(),
            vector["transaction"]["id"].as_str().unwrap()
        );
        assert!(verify(transaction).is_ok(), "{}", vector["name"]);
        proven += 1;
    }
    // All but the nested public_keys, the JavaScript spelling and the six of an election.
    assert_eq!(proven, 43 - 8);
}

#[test]
fn item_22_canonical_text_has_the_forms_that_ports_get_wrong() {
    let canon = |text: &str| canonical::canon(&json::Value::parse(text.as_bytes(), 10).unwrap());
    for (written, canonical) in [
        ("0.00001", "1e-05"),
        ("1e16", "1e+16"),
        ("9999999999999999.0", "1e+16"),
        ("999999999999999.9", "999999999999999.9"),
        ("-0.0", "-0.0"),
        ("-0", "0"),
        ("1e-400", "0.0"),
        ("5e-324", "5e-324"),
        ("123456789.12345679", "123456789.12345679"),
        (
            "12345678901234567890123456789",
            "12345678901234567890123456789",
        ),
        ("\"\\u000b\\u001f\\u0008\\/\"", "\"\\u000B\\u001F\\b/\""),
        (
            "{\"\\ue000\":1,\"\\ud83d\\ude00\":2}",
            "{\"\u{e000}\":1,\"😀\":2}",
        ),
    ] {
        assert_eq!(canon(written), canonical);
    }
}

#[test]
fn item_22_what_has_no_canonical_text_is_refused() {
    for text in [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e999",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "{\"a\":1,\"b\":2,\"a\":3}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "\"\t\"",
        "[1,]",
        "{\"a\":1,}",
        "nul",
        "\"\\x41\"",
        "\"\\u12g4\"",
        "'a'",
        "[1 2]",
        "\"abc",
        "--1",
    ] {
        assert!(json::Value::parse(text.as_bytes(), 10).is_err(), "{text}");
    }
    assert!(json::Value::parse(b"[[[]]]", 2).is_err());
    assert!(json::Value::parse(b"[[]]", 2).is_ok());
}

#[test]
fn item_23_an_id_over_anything_else_is_refused() {
    let lamp = lamp();
    let mut without_id = lamp.clone();
    without_id.as_object_mut().unwrap().remove("id");
    let mut with_null = lamp.clone();
    with_null["id"] = Value::Null;
    let spaced = with_null.to_string().replace("\":", "\": ");
    let mut unsigned = with_null.clone();
    unsigned["inputs"][0]["fulfillment"] = Value::Null;
    let sha2 =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, with_null.to_string().as_bytes());
    let ids = [
        hex::encode(canonical::sha3(without_id.to_string().as_bytes())),
        hex::encode(sha2),
        hex::encode(canonical::sha3(spaced.as_bytes())),
        hex::encode(canonical::sha3(unsigned.to_string().as_bytes())),
        lamp["id"].as_str().unwrap().to_uppercase(),
    ];
    for id in ids {
        let mut wrong = lamp.clone();
        wrong["id"] = id.into();
        assert!(refusal(&wrong).starts_with("Invalid transaction (InvalidHash): "));
    }
}

#[test]
fn asset_data_and_metadata_are_given_back_as_canonical_text() {
    let lamp = signed_lamp(|lamp| {
        lamp["asset"]["data"] = json!({"b": [1, null], "a": "é"});
        lamp["metadata"] = json!("note");
    });
    let lamp = lamp.unwrap();
    assert_eq!(
        lamp.asset_data().collect::<Vec<_>>(),
        ["{\"a\":\"é\",\"b\":[1,null]}"]
    );
    assert_eq!(lamp.metadata(), Some("\"note\""));
    let sale = parse_value(&sale()).unwrap();
    assert_eq!((sale.asset_data().count(), sale.metadata()), (0, None));
    let decompose = parse_value(&vector("51")["transaction"]).unwrap();
    assert_eq!(decompose.asset_data().count(), 2);
}

#[test]
fn objects_keep_both_their_orders() {
    let object = Object::from_iter([("b", 1u64), ("a", 2), ("é", 3), ("b", 4)]);
    let names = |members: Vec<(&str, &json::Value)>| -> Vec<String> {
        members
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    assert_eq!(names(object.as_written().collect()), ["b", "a", "é"]);
    assert_eq!(names(object.sorted().collect()), ["a", "b", "é"]);
    assert_eq!(object.get("b").and_then(json::Value::as_u64), Some(4));
    let value = json::Value::Object(object);
    assert_eq!(value.quoted(), "{'b': 4, 'a': 2, 'é': 3}");
    assert_eq!(
        json::Value::from("it's \"x\"\n\u{1}").quoted(),
        "'it\\'s \"x\"\\n\\x01'"
    );
    assert_eq!(json::Value::from("it's").quoted(), "\"it's\"");
}

#[test]
fn large_assets_are_hashed_like_small_ones() {
    let alice = key("alice");
    for length in [900, 1_000, 1_100, 5_000, 200_000] {
        let text = "x".repeat(length);
        let created = Draft::create(text.as_str())
            .output(1, &alice)
            .sign(&[&alice])
            .unwrap();
        let other = TransactionId([3; 32]).as_asset();
        let composed = Draft::compose(text, [created.asset(), other])
            .spend(created.output_ref(0), &alice)
            .spend(
                OutputRef {
                    transaction: TransactionId([3; 32]),
                    index: 12,
                },
                &alice,
            )
            .output(1, &alice)
            .sign(&[&alice])
            .unwrap();
        assert!(verify(created).is_ok());
        assert!(verify(composed).is_ok());
    }
}

#[test]
fn nesting_is_taken_up_to_the_limit() {
    let nested = |levels: usize| {
        // The transaction and its metadata are two levels themselves.
        let lists = format!("{}{}", "[".repeat(levels - 2), "]".repeat(levels - 2));
        let metadata: json::Value =
            json::Value::parse(format!("{{\"a\":{lists}}}").as_bytes(), 1_000).unwrap();
        let alice = key("alice");
        Draft::create(json::Value::Null)
            .metadata(metadata)
            .output(1, &alice)
            .sign(&[&alice])
    };
    assert!(verify(nested(512).unwrap()).is_ok());
    let Err(DraftError::Refused(rejection)) = nested(513) else {
        panic!("it must be refused")
    };
    assert!(
        rejection.message().contains("Nested too deeply"),
        "{rejection}"
    );
}

#[test]
fn messages_do_not_grow_with_what_they_quote() {
    let message = lamp_with(|lamp| lamp["operation"] = "x".repeat(100_000).into());
    assert!(message.len() < 3_000, "{}", message.len());
    let message = lamp_with(|lamp| {
        for i in 0..1_000 {
            lamp[format!("extra {i}")] = json!(1);
        }
    });
    assert!(message.len() < 3_000, "{}", message.len());
}

#[test]
fn what_a_block_holds_is_read_by_the_widest_rules_whatever_those_of_today_are() {
    let mut lamp = lamp();
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let deep: Value = serde_json::from_str(&deep).unwrap();
    lamp["metadata"] = json!({ "a.b": 1, "language": "klingon", "deep": deep });
    resign(&mut lamp, &[&key("alice")]);
    let text = bytes::Bytes::from(lamp.to_string());
    let taken = Parser::new(Rules::WIDEST).parse(text.clone()).unwrap();
    let narrow = Rules {
        limits: Limits {
            transaction_bytes_max: 10,
            json_depth_max: 8,
            condition_depth_max: 1,
            outputs_max: 1,
        },
        ..Rules::default()
    };
    let mut parser = Parser::new(narrow);
    assert!(parser.parse(text).is_err(), "today it is refused");
    let stored = parser.parse_stored(taken.canonical().clone()).unwrap();
    assert_eq!(stored.id(), taken.id());
}

#[test]
fn bounds_are_kept() {
    let parser = |limits: Limits| {
        Parser::new(Rules {
            limits,
            ..Rules::default()
        })
    };
    let text = bytes::Bytes::from(lamp().to_string());
    let tight = Limits {
        transaction_bytes_max: text.len(),
        ..Limits::default()
    };
    assert!(parser(tight).parse(text.clone()).is_ok());
    let less = Limits {
        transaction_bytes_max: text.len() - 1,
        ..Limits::default()
    };
    assert_eq!(
        parser(less).parse(text).unwrap_err().class.name(),
        "TooLarge"
    );
    // Text can grow when it is written canonically, and what is stored is bounded as well.
    let growing = |limit: usize| {
        let mut lamp = lamp();
        let floats = vec![json!(1.5); 200];
        lamp["metadata"] = json!({ "a": floats });
        resign(&mut lamp, &[&key("alice")]);
        // 1e15 is written as 1000000000000000.0.
        let text = lamp.to_string().replace("1.5", "1e15");
        let limits = Limits {
            transaction_bytes_max: limit,
            ..Limits::default()
        };
        parser(limits)
            .parse(bytes::Bytes::from(text))
            .unwrap_err()
            .class
            .name()
    };
    assert_eq!(growing(1 << 20), "InvalidHash");
    let outputs = Limits {
        outputs_max: 2,
        ..Limits::default()
    };
    let three = bytes::Bytes::from(vector("05")["text"].as_str().unwrap().to_owned());
    let message = parser(outputs).parse(three).unwrap_err().message();
    assert!(
        message.ends_with("A transaction has at most 2 outputs"),
        "{message}"
    );
}
