//! The rules that need no state, one test for each line of the conformance checklist (asset ledger,
//! section 15) and for each refusal of sections 4 to 8.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    key, lamp, parse, parse_value, refusal, rehash, resign, sale, text_of, transactions, vector,
    verify,
};
use daybook_ledger::{
    Draft, DraftError, Limits, Operation, OutputRef, Parser, Rejection, Rules, SigningKey,
    Transaction, TransactionId, Version, canonical,
    condition::{Condition, Details, Fulfillment},
    json::{self, Object},
};
use serde_json::{Value, json};

const SIGNATURE: &str = "Transaction signature is invalid.";

/// What a node says about a changed lamp that got its true id again.
fn lamp_with(change: impl FnOnce(&mut Value)) -> String {
    let mut lamp = lamp();
    change(&mut lamp);
    rehash(&mut lamp);
    refusal(&lamp)
}

fn sale_with(change: impl FnOnce(&mut Value)) -> String {
    let mut sale = sale();
    change(&mut sale);
    rehash(&mut sale);
    refusal(&sale)
}

/// A changed lamp, signed by Alice again.
fn signed_lamp(change: impl FnOnce(&mut Value)) -> Result<Transaction, Rejection> {
    let mut lamp = lamp();
    change(&mut lamp);
    resign(&mut lamp, &[&key("alice")]);
    parse_value(&lamp)
}

fn is_proven(result: Result<Transaction, Rejection>) -> bool {
    verify(result.unwrap()).is_ok()
}

/// A transfer of an output under `condition`, signed by `signers`.
fn spend(condition: &Details, signers: &[&str]) -> Result<Transaction, DraftError> {
    let output = OutputRef {
        transaction: TransactionId([7; 32]),
        index: 0,
    };
    let keys: Vec<SigningKey> = signers.iter().map(|name| key(name)).collect();
    Draft::transfer(TransactionId([7; 32]).as_asset())
        .spend(output, condition.clone())
        .output(1, &key("erin"))
        .sign(&keys.iter().collect::<Vec<_>>())
}

/// The condition that a transaction's first fulfillment opens, if its signatures are right.
fn opened(transaction: Transaction) -> Option<Condition> {
    let condition = transaction.inputs()[0].fulfillment.condition.clone();
    verify(transaction).is_ok().then_some(condition)
}

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
fn item_24_a_signature_over_anything_else_is_refused() {
    let sale = sale();
    let alice = key("alice");
    let value = common::canonical_value(&sale);
    let text = canonical::text_for_signing(value.as_object().unwrap());
    let link = format!(
        "{}0",
        sale["inputs"][0]["fulfills"]["transaction_id"]
            .as_str()
            .unwrap()
    );
    let linked = format!("{text}{link}");
    let hash = canonical::sha3(linked.as_bytes());
    let digits = hex::encode(hash);
    let unlinked = canonical::sha3(text.as_bytes());
    let messages: [(&[u8], bool); 4] = [
        (&hash, true),
        (linked.as_bytes(), false),
        (digits.as_bytes(), false),
        (&unlinked, false),
    ];
    for (message, good) in messages {
        let mut changed = sale.clone();
        let proof = Details::from(&alice).fulfill_with(&mut |_| Some(alice.sign(message)));
        changed["inputs"][0]["fulfillment"] = proof.unwrap().into();
        rehash(&mut changed);
        assert_eq!(is_proven(parse_value(&changed)), good);
    }
}

#[test]
fn item_25_exchanged_fulfillments_are_refused() {
    let mut merge = vector("10")["transaction"].clone();
    assert!(is_proven(parse_value(&merge)));
    let inputs = merge["inputs"].as_array_mut().unwrap();
    let first = inputs[0]["fulfillment"].take();
    let second = inputs[1]["fulfillment"].take();
    inputs[0]["fulfillment"] = second;
    inputs[1]["fulfillment"] = first;
    rehash(&mut merge);
    assert!(!is_proven(parse_value(&merge)));
}

#[test]
fn item_26_only_strict_der_is_a_fulfillment() {
    for number in ["01", "11", "17", "19"] {
        let vector = vector(number);
        let hex = vector["explained"]["inputs"][0]["fulfillment_der_hex"]
            .as_str()
            .unwrap();
        let der = hex::decode(hex).unwrap();
        let good = Fulfillment::from_der(&der, 100).unwrap();
        let mut trailing = der.clone();
        trailing.push(0);
        assert!(Fulfillment::from_der(&trailing, 100).is_err());
        // Every long form of the outer length.
        let (tag, body) = if der[1] < 0x80 {
            (der[0], &der[2..])
        } else {
            (der[0], &der[3..])
        };
        let length = body.len() as u8;
        for header in [
            vec![tag, 0x82, 0, length],
            vec![tag, 0x83, 0, 0, length],
            if length < 0x80 {
                vec![tag, 0x81, length]
            } else {
                vec![tag, 0x80]
            },
        ] {
            assert!(Fulfillment::from_der(&[&header[..], body].concat(), 100).is_err());
        }
        // No byte may be missing, and hardly any may differ without being seen.
        for cut in 0..der.len() {
            assert!(Fulfillment::from_der(&der[..cut], 100).is_err());
        }
        for place in 0..der.len() {
            let mut changed = der.clone();
            changed[place] ^= 0x01;
            if let Ok(other) = Fulfillment::from_der(&changed, 100) {
                assert_ne!(other, good);
            }
        }
    }
    let unparsed = "Invalid transaction (InvalidSignature): Fulfillment URI couldn't been parsed";
    let proof = lamp()["inputs"][0]["fulfillment"]
        .as_str()
        .unwrap()
        .to_owned();
    for wrong in [
        "",
        "a",
        "pGSAI",
        &format!("{proof}AA"),
        &proof[..135],
        &"0".repeat(64),
    ] {
        let message = lamp_with(|lamp| lamp["inputs"][0]["fulfillment"] = (*wrong).into());
        assert_eq!(message, unparsed, "{wrong}");
    }
    // Spare bits in the last character of base64 are another text for the same bytes.
    let threshold = vector("17")["transaction"]["inputs"][0]["fulfillment"].clone();
    let threshold = threshold.as_str().unwrap();
    assert_eq!(threshold.len() % 4, 2);
    let last = threshold.chars().last().unwrap();
    let spare = char::from(last as u8 + 1);
    let changed = format!("{}{spare}", &threshold[..threshold.len() - 1]);
    assert!(Fulfillment::from_text(threshold.as_bytes(), 100).is_ok());
    assert!(Fulfillment::from_text(changed.as_bytes(), 100).is_err());
}

#[test]
fn item_26_parts_of_a_fulfillment_stand_in_one_order_only() {
    let der = vector("11")["explained"]["inputs"][0]["fulfillment_der_hex"].clone();
    let der = hex::decode(der.as_str().unwrap()).unwrap();
    // A2 81 D0, A0 81 CC, two parts of 102 bytes, A1 00
    let (head, rest) = der.split_at(6);
    let (first, rest) = rest.split_at(102);
    let (second, tail) = rest.split_at(102);
    assert_eq!(tail, [0xA1, 0]);
    assert!(Fulfillment::from_der(&der, 100).is_ok());
    let swapped = [head, second, first, tail].concat();
    assert!(Fulfillment::from_der(&swapped, 100).is_err());
    // Nothing is needed of a threshold of nothing.
    assert!(Fulfillment::from_der(&[0xA2, 4, 0xA0, 0, 0xA1, 0], 100).is_err());
}

#[test]
fn item_27_the_order_of_subconditions_does_not_matter() {
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let keys: Vec<_> = names.iter().map(|name| key(name).public_key()).collect();
    let condition = Details::threshold_of_keys(3, &keys).condition();
    let mut other = keys.clone();
    other.reverse();
    assert_eq!(Details::threshold_of_keys(3, &other).condition(), condition);
    assert_ne!(Details::threshold_of_keys(2, &keys).condition(), condition);
}

#[test]
fn item_28_two_of_three_takes_any_two_and_nothing_less() {
    let keys = ["alice", "bob", "carol"].map(|name| key(name).public_key());
    let vault = Details::threshold_of_keys(2, &keys);
    let locked = Some(vault.condition());
    for signers in [["alice", "bob"], ["alice", "carol"], ["bob", "carol"]] {
        assert_eq!(opened(spend(&vault, &signers).unwrap()), locked);
    }
    assert_eq!(
        opened(spend(&vault, &["alice", "bob", "carol"]).unwrap()),
        locked
    );
    assert_eq!(
        spend(&vault, &["alice"]).unwrap_err(),
        DraftError::MissingKeys { input: 0 }
    );
    // Proofs that are well-formed but open another condition.
    for other in [
        Details::threshold_of_keys(1, &keys),
        Details::threshold_of_keys(3, &keys),
        Details::threshold_of_keys(2, &keys[..2]),
        Details::threshold_of_keys(2, &[keys[0], keys[0], keys[2]]),
    ] {
        let signed = spend(&other, &["alice", "bob", "carol"]).unwrap();
        assert_ne!(opened(signed), locked);
    }
}

#[test]
fn item_29_a_nested_condition_opens_through_either_branch() {
    let [a, b, c] = ["alice", "bob", "carol"].map(|name| key(name).public_key());
    let condition = Details::threshold_of(1, [a.into(), Details::threshold_of_keys(2, &[b, c])]);
    let locked = Some(condition.condition());
    assert_eq!(opened(spend(&condition, &["alice"]).unwrap()), locked);
    assert_eq!(
        opened(spend(&condition, &["bob", "carol"]).unwrap()),
        locked
    );
    // With all keys at hand the cheaper branch is taken.
    assert_eq!(
        opened(spend(&condition, &["alice", "bob", "carol"]).unwrap()),
        locked
    );
    assert!(spend(&condition, &["bob"]).is_err());
}

#[test]
fn item_30_deep_nesting_costs_no_more_than_its_length() {
    let alice = key("alice");
    let nested = |levels: usize| {
        (1..levels).fold(Details::from(&alice), |inside, _| {
            Details::threshold_of(2, [inside, Details::from(&alice)])
        })
    };
    // One hundred levels are the limit. That every node is visited once is counted in the unit tests
    // of conditions; were it not so, this test would not end.
    let deepest = nested(100);
    assert_eq!(deepest.depth(), 100);
    let created = Draft::create(json::Value::Null)
        .output(1, deepest.clone())
        .sign(&[&alice]);
    assert!(verify(created.unwrap()).is_ok());
    assert_eq!(
        opened(spend(&deepest, &["alice"]).unwrap()),
        Some(deepest.condition())
    );
    for levels in [101, 150, 200] {
        let error = Draft::create(json::Value::Null)
            .output(1, nested(levels))
            .sign(&[&alice]);
        let Err(DraftError::Refused(rejection)) = error else {
            panic!("it must be refused")
        };
        assert_eq!(rejection.class.name(), "ThresholdTooDeep");
        let text = nested(levels).fulfill(&[&alice], &[0; 32]).unwrap();
        assert!(Fulfillment::from_text(text.as_bytes(), 100).is_err());
    }
    let beyond = Draft::create(json::Value::Null)
        .output(1, nested(400))
        .sign(&[&alice]);
    let Err(DraftError::Refused(rejection)) = beyond else {
        panic!("it must be refused")
    };
    assert_eq!(rejection.class.name(), "MalformedJson");
}

#[test]
fn item_31_a_uri_that_does_not_follow_from_the_details_is_refused() {
    let bob = Condition::of_key(&key("bob").public_key()).uri();
    let message = lamp_with(|lamp| lamp["outputs"][0]["condition"]["uri"] = bob.into());
    assert!(message.starts_with("Invalid transaction (ValidationError): The condition's uri"));
    let keys = ["alice", "bob"].map(|name| key(name).public_key());
    let uri = Details::threshold_of_keys(2, &keys).condition().uri();
    for wrong in [
        uri.replace("264192", "264193"),
        uri.replace("2641", "02641"),
        format!("{uri}&"),
    ] {
        let mut shared = vector("06")["transaction"].clone();
        shared["outputs"][0]["condition"]["uri"] = wrong.into();
        rehash(&mut shared);
        assert!(refusal(&shared).contains("The condition's uri"));
    }
}

#[test]
fn public_keys_that_are_not_the_keys_of_the_details_are_refused() {
    let refused = "Invalid transaction (ValidationError): An output's public_keys are not the keys \
                   of its condition's details";
    let [alice, bob] = ["alice", "bob"].map(|name| key(name).public_key().to_string());
    for keys in [json!([bob]), json!([alice, bob])] {
        assert_eq!(
            lamp_with(|lamp| lamp["outputs"][0]["public_keys"] = keys),
            refused
        );
    }
    // The order and the count do not matter, the set does.
    let twice = signed_lamp(|lamp| lamp["outputs"][0]["public_keys"] = json!([alice, alice]));
    assert!(is_proven(twice));
    let mut shared = vector("06")["transaction"].clone();
    shared["outputs"][0]["public_keys"] = json!([bob, alice]);
    resign(&mut shared, &[&key("alice")]);
    assert!(is_proven(parse_value(&shared)));
}

#[test]
fn thresholds_that_can_never_be_met_are_refused() {
    let alice = key("alice");
    let keys = [alice.public_key(); 2];
    let sign = |owner: Details| {
        let Err(DraftError::Refused(rejection)) = Draft::create(json::Value::Null)
            .output(1, owner)
            .sign(&[&alice])
        else {
            panic!("it must be refused")
        };
        rejection.message()
    };
    let impossible = "Invalid transaction (ValidationError): A condition's threshold is larger than \
                      the number of its subconditions";
    assert_eq!(sign(Details::threshold_of_keys(3, &keys)), impossible);
    let nested = Details::threshold_of_keys(3, &keys);
    assert_eq!(
        sign(Details::threshold_of(1, [nested, (&alice).into()])),
        impossible
    );
    let schema = "Invalid transaction schema: ";
    let zero = sign(Details::threshold_of_keys(0, &keys));
    assert_eq!(zero, format!("{schema}0 is less than the minimum of 1"));
    let many = sign(Details::threshold_of_keys(101, &[alice.public_key(); 101]));
    assert_eq!(
        many,
        format!("{schema}101 is greater than the maximum of 100")
    );
}

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
fn item_38_a_strangers_signature_is_not_the_owners() {
    let mut sale = sale();
    let carol = key("carol");
    sale["inputs"][0]["owners_before"] = json!([carol.public_key().to_string()]);
    resign(&mut sale, &[&carol]);
    // The signature is right, but the condition that it opens is Carol's: the ledger's state tells.
    let transaction = parse_value(&sale).unwrap();
    let alice = Condition::of_key(&key("alice").public_key());
    assert_ne!(transaction.inputs()[0].fulfillment.condition, alice);
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

/// The signatures of a CREATE cover neither its fulfillment's shape nor its id: only the shape that its
/// owners stand for may pass, or a stranger could commit the asset again under another id.
#[test]
fn a_creates_signature_cannot_be_wrapped_anew() {
    let [alice, bob] = ["alice", "bob"].map(key);
    let refused = |transaction: &Value, fulfillment: &[u8]| {
        let mut wrapped = transaction.clone();
        let text = base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            fulfillment,
        );
        wrapped["inputs"][0]["fulfillment"] = json!(text);
        let value = common::canonical_value(&wrapped);
        let unnamed = canonical::text_for_id(value.as_object().unwrap());
        wrapped["id"] = json!(TransactionId(canonical::sha3(unnamed.as_bytes())).to_string());
        verify(parse_value(&wrapped).unwrap()).is_err()
    };
    let plain = |transaction: &Value| {
        let text = transaction["inputs"][0]["fulfillment"]
            .as_str()
            .unwrap()
            .to_owned();
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text).unwrap()
    };
    let lamp = lamp();
    let signed = plain(&lamp);
    assert_eq!(signed.len(), 102);
    // A threshold of one around the same signature, alone or beside somebody else's condition.
    assert!(refused(
        &lamp,
        &[&[0xa2, 0x6a, 0xa0, 0x66], &signed[..], &[0xa1, 0x00]].concat()
    ));
    let stranger = Condition::of_key(&bob.public_key()).to_der();
    let body = [&[0xa0, 0x66], &signed[..], &[0xa1, 0x29], &stranger[..]].concat();
    assert!(refused(
        &lamp,
        &[&[0xa2, 0x81, body.len() as u8], &body[..]].concat()
    ));
    // Half of a proof by both, and both without saying so.
    let both = Draft::create(json::Value::Null)
        .output(1, &alice)
        .sign(&[&alice, &bob])
        .unwrap();
    let both: Value = serde_json::from_slice(both.canonical()).unwrap();
    let proof = plain(&both);
    let first = &proof[proof.len() - 2 - 204..proof.len() - 2 - 102];
    assert!(refused(&both, first));
    assert!(refused(
        &both,
        &[&[0xa2, 0x6a, 0xa0, 0x66], first, &[0xa1, 0x00]].concat()
    ));
}

#[test]
fn a_create_is_signed_by_owners_it_names() {
    let [alice, bob] = ["alice", "bob"].map(key);
    let either = Details::threshold_of_keys(1, &[alice.public_key(), bob.public_key()]);
    // One of two named issuers signs: taken, as a third-party suite does it.
    let draft = Draft::create(json::Value::Null)
        .issued_by(either)
        .output(1, &alice);
    let signed = draft.sign(&[&alice]).unwrap();
    let text = signed.canonical().clone();
    assert!(verify(signed).is_ok());
    // Under the strict rule both must sign.
    let strict = Rules {
        all_owners_sign: true,
        ..Rules::default()
    };
    assert!(verify(Parser::new(strict.clone()).parse(text).unwrap()).is_err());
    let both = Draft::create(json::Value::Null)
        .output(1, &alice)
        .sign(&[&alice, &bob])
        .unwrap();
    let text = both.canonical().clone();
    assert!(verify(Parser::new(strict.clone()).parse(text).unwrap()).is_ok());
    // Two named issuers sign through the condition of what they make, as another suite does it: it may
    // name somebody who is no issuer, who then cannot sign for them.
    let keys = ["alice", "bob", "carol"].map(|name| key(name).public_key());
    let two_of_three = Details::threshold_of_keys(2, &keys);
    let create = || {
        Draft::create(json::Value::Null)
            .issued_by(two_of_three.clone())
            .output(1, two_of_three.clone())
    };
    let signed = create().sign(&[&alice, &bob]).unwrap();
    let issued_by = |owners: &[&SigningKey], signers: &[&SigningKey], rules: &Rules| {
        let mut value: Value = serde_json::from_slice(signed.canonical()).unwrap();
        let named: Vec<String> = owners
            .iter()
            .map(|key| key.public_key().to_string())
            .collect();
        value["inputs"][0]["owners_before"] = json!(named);
        let canonical = common::canonical_value(&value);
        let message =
            canonical::sha3(canonical::text_for_signing(canonical.as_object().unwrap()).as_bytes());
        let proof = two_of_three.fulfill(signers, &message).unwrap();
        value["inputs"][0]["fulfillment"] = proof.into();
        rehash(&mut value);
        let text = bytes::Bytes::from(value.to_string());
        verify(Parser::new(rules.clone()).parse(text).unwrap()).is_ok()
    };
    let carol = key("carol");
    let (usual, issuers) = (Rules::default(), [&alice, &bob]);
    assert!(issued_by(&issuers, &[&alice, &bob], &usual));
    assert!(!issued_by(&issuers, &[&alice, &carol], &usual));
    assert!(!issued_by(&[&alice], &[&alice, &bob], &usual));
    assert!(!issued_by(&issuers, &[&alice, &bob], &strict));
    // A stranger cannot name an issuer.
    let mut forged = lamp();
    forged["inputs"][0]["owners_before"] = json!([bob.public_key().to_string()]);
    let value = common::canonical_value(&forged);
    let message =
        canonical::sha3(canonical::text_for_signing(value.as_object().unwrap()).as_bytes());
    let proof = Details::from(&alice).fulfill(&[&alice], &message).unwrap();
    forged["inputs"][0]["fulfillment"] = proof.into();
    rehash(&mut forged);
    assert!(verify(parse_value(&forged).unwrap()).is_err());
}

#[test]
fn unsigned_drafts_are_refused() {
    let details = lamp()["outputs"][0]["condition"]["details"].clone();
    let message = lamp_with(|lamp| lamp["inputs"][0]["fulfillment"] = details);
    assert_eq!(
        message,
        format!("Invalid transaction (InvalidSignature): {SIGNATURE}")
    );
    let message = lamp_with(|lamp| lamp["inputs"][0]["fulfillment"] = Value::Null);
    assert_eq!(
        message,
        "Invalid transaction schema: None is not of type 'object'"
    );
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

#[test]
fn conditions_of_other_types_are_refused() {
    for kind in ["preimage-sha-256", "zenroom-sha-256", "rsa-sha-256"] {
        let message =
            lamp_with(|lamp| lamp["outputs"][0]["condition"]["details"]["type"] = kind.into());
        assert_eq!(
            message,
            format!("Invalid transaction schema: '{kind}' does not match '^ed25519-sha-256$'")
        );
    }
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
