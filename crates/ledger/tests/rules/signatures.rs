//! Conditions and signatures (items 24 to 31 and 38).

use daybook_ledger::{
    Draft, DraftError, Parser, Rules, SigningKey, TransactionId, canonical,
    condition::{Condition, Details, Fulfillment},
    json,
};
use serde_json::{Value, json};

use crate::{
    SIGNATURE,
    common::{self, key, lamp, parse_value, refusal, rehash, resign, sale, vector, verify},
    is_proven, lamp_with, opened, signed_lamp, spend,
};

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
