//! Checklist items 11 to 20 and 32 to 42: posting transactions.

use std::{sync::Barrier, thread};

use daybook_ledger::{AMOUNT_MAX, Draft, SigningKey, Version, condition::Details, json::Object};
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, TestNode, alice, bob, create, rehash, sale, shared, transfer, value,
};

fn post(body: &[u8]) -> Answer {
    shared().post("commit", body)
}

/// Posts what must be refused and gives the message.
fn refused(body: &[u8]) -> String {
    let answer = post(body);
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (400, "BAD REQUEST"),
        "{}",
        answer.text()
    );
    answer.message()
}

/// A draft's text although its rules are broken, as another client might make it.
fn text(draft: &Draft, keys: &[&SigningKey]) -> Vec<u8> {
    draft.signed_text(keys).unwrap().into_bytes()
}

#[test]
fn item_11_a_valid_create_answers_202_with_what_was_sent_in_each_mode() {
    for mode in ["async", "sync", "commit"] {
        let lamp = create(&format!("item 11 {mode}"), 1);
        let answer = shared().post(mode, lamp.canonical());
        assert_eq!((answer.status, answer.reason.as_str()), (202, "ACCEPTED"));
        assert_eq!(answer.json(), value(&lamp));
    }
}

#[test]
fn item_12_no_mode_is_async_and_an_unknown_mode_is_refused() {
    let lamp = create("item 12", 1);
    let mut client = shared().client();
    let answer = client.request("POST", "/api/v1/transactions/", &[], lamp.canonical());
    assert_eq!(answer.status, 202);
    for mode in ["nope", "COMMIT", ""] {
        let answer = shared().post(mode, b"{}");
        let message = "Mode must be \"async\", \"sync\" or \"commit\"";
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json(), json!({"message": {"mode": message}}));
    }
}

#[test]
fn item_13_after_commit_a_transaction_is_readable_with_every_number_of_its_kind() {
    let numbers = r#"{"whole":1,"real":1.0,"small":1e-05,"large":1e+16,"text":"\u000b\u2028"}"#;
    let data: daybook_ledger::json::Value =
        daybook_ledger::json::Value::parse(numbers.as_bytes(), 8).unwrap();
    let lamp_text = text(&Draft::create(data).output(1, &alice()), &[&alice()]);
    let answer = post(&lamp_text);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let lamp: Value = serde_json::from_slice(&lamp_text).unwrap();
    let id = lamp["id"].as_str().unwrap();
    let answer = shared().get(&format!("/api/v1/transactions/{id}"));
    assert_eq!(answer.status, 200);
    let stored = answer.json();
    assert_eq!(stored, lamp);
    assert!(stored["asset"]["data"]["whole"].is_u64());
    assert!(stored["asset"]["data"]["real"].is_f64());
}

#[test]
fn item_14_the_same_create_again_is_a_duplicate() {
    let lamp = shared().committed(create("item 14", 1));
    for mode in ["async", "sync", "commit"] {
        let answer = shared().post(mode, lamp.canonical());
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.message(),
            format!(
                "Invalid transaction (DuplicateTransaction): transaction `{}` already exists",
                lamp.id()
            )
        );
    }
}

#[test]
fn item_15_of_two_concurrent_posts_of_one_create_exactly_one_is_taken() {
    let node = shared();
    for round in 0..20 {
        let lamp = create(&format!("item 15 {round}"), 1);
        let together = Barrier::new(2);
        let statuses = thread::scope(|scope| {
            [(); 2]
                .map(|()| {
                    scope.spawn(|| {
                        let mut client = node.client();
                        together.wait();
                        let path = "/api/v1/transactions?mode=commit";
                        client.request("POST", path, &[], lamp.canonical()).status
                    })
                })
                .map(|thread| thread.join().unwrap())
        });
        let taken = statuses.iter().filter(|status| **status == 202).count();
        let refused = statuses.iter().filter(|status| **status == 400).count();
        assert_eq!((taken, refused), (1, 1), "{statuses:?}");
    }
}

#[test]
fn item_16_bodies_that_are_no_object_are_refused() {
    for body in [
        "[]",
        "null",
        "\"x\"",
        "5",
        "{nope",
        "",
        "{} {}",
        "\u{feff}{}",
    ] {
        let answer = post(body.as_bytes());
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (400, "BAD REQUEST"),
            "{body}"
        );
        assert!(answer.json()["message"].is_string(), "{body}");
    }
    assert_eq!(post(b"\xff\xfe\x00").status, 400);
}

#[test]
fn item_17_an_object_without_an_id_says_so() {
    assert_eq!(
        refused(b"{}"),
        "Invalid transaction (InvalidHash): No transaction id found!"
    );
}

#[test]
fn item_18_a_wrong_id_is_named() {
    let mut lamp = value(&create("item 18", 1));
    let wrong = "abcd".repeat(16);
    lamp["id"] = wrong.clone().into();
    assert_eq!(
        refused(lamp.to_string().as_bytes()),
        format!(
            "Invalid transaction (InvalidHash): The transaction's id '{wrong}' isn't equal to the \
             hash of its body, i.e. it's not valid."
        )
    );
}

#[test]
fn item_19_a_missing_version_is_a_matter_of_the_schema() {
    let mut lamp = value(&create("item 19", 1));
    lamp.as_object_mut().unwrap().remove("version");
    assert_eq!(
        refused(&rehash(&mut lamp)),
        "Invalid transaction schema: 'version' is a required property"
    );
}

#[test]
fn item_20_an_extra_member_is_refused() {
    let mut lamp = value(&create("item 20", 1));
    lamp["extra"] = 1.into();
    assert!(refused(&rehash(&mut lamp)).starts_with("Invalid transaction schema: "));
}

#[test]
fn item_32_a_transfer_of_an_unknown_input_is_refused() {
    let lamp = create("item 32", 1);
    let sale = sale(&lamp, 1, &alice(), &bob());
    assert_eq!(
        refused(sale.canonical()),
        format!(
            "Invalid transaction (InputDoesNotExist): input `{}` doesn't exist",
            lamp.id()
        )
    );
    shared().committed(lamp.clone());
    let beyond = daybook_ledger::OutputRef {
        transaction: lamp.id(),
        index: 7,
    };
    let sale = transfer(lamp.asset(), beyond, 1, &alice(), &bob());
    assert!(refused(sale.canonical()).contains("(InputDoesNotExist)"));
}

#[test]
fn item_33_an_output_is_spent_once() {
    let lamp = shared().committed(create("item 33", 1));
    shared().committed(sale(&lamp, 1, &alice(), &bob()));
    let again = sale(&lamp, 1, &alice(), &alice());
    assert_eq!(
        refused(again.canonical()),
        format!(
            "Invalid transaction (DoubleSpend): input `{}` was already spent",
            lamp.id()
        )
    );
    let other = shared().committed(create("item 33, twice", 2));
    let twice = Draft::transfer(other.asset())
        .spend(other.output_ref(0), &alice())
        .spend(other.output_ref(0), &alice())
        .output(4, &bob());
    assert!(refused(&text(&twice, &[&alice()])).ends_with("spends inputs twice"));
}

#[test]
fn item_34_assets_cannot_be_mixed_or_mistaken() {
    let one = shared().committed(create("item 34, one", 1));
    let two = shared().committed(create("item 34, two", 1));
    let mixed = Draft::transfer(one.asset())
        .spend(one.output_ref(0), &alice())
        .spend(two.output_ref(0), &alice())
        .output(2, &bob());
    assert_eq!(
        refused(&text(&mixed, &[&alice()])),
        "Invalid transaction (AssetIdMismatch): All inputs of all transactions passed need to have \
         the same asset id"
    );
    let mistaken = transfer(two.asset(), one.output_ref(0), 1, &alice(), &bob());
    assert_eq!(
        refused(mistaken.canonical()),
        "Invalid transaction (AssetIdMismatch): The asset id of the input does not match the asset \
         id of the transaction"
    );
}

#[test]
fn item_35_sums_that_differ_are_named() {
    let coins = shared().committed(create("item 35", 10));
    let sale = sale(&coins, 11, &alice(), &bob());
    assert_eq!(
        refused(sale.canonical()),
        "Invalid transaction (AmountError): The amount used in the inputs `10` needs to be same as \
         the amount used in the outputs `11`"
    );
}

#[test]
fn item_36_two_outputs_of_the_largest_amount_move_together() {
    let node = shared();
    let coins = Draft::create(Object::from_iter([("name", "item 36")]))
        .output(AMOUNT_MAX, &alice())
        .output(AMOUNT_MAX, &alice())
        .sign(&[&alice()])
        .unwrap();
    node.committed(coins.clone());
    node.committed(
        Draft::transfer(coins.asset())
            .spend(coins.output_ref(0), &alice())
            .spend(coins.output_ref(1), &alice())
            .output(AMOUNT_MAX, &bob())
            .output(AMOUNT_MAX, &bob())
            .sign(&[&alice()])
            .unwrap(),
    );
}

#[test]
fn item_37_amounts_out_of_range_or_form_are_refused() {
    for (amount, class) in [
        (
            json!("0"),
            "Invalid transaction (AmountError): `amount` must be greater than 0",
        ),
        (json!("-1"), "Invalid transaction schema: "),
        (
            json!("9000000000000000001"),
            "Invalid transaction (AmountError): `amount` must be <= 9000000000000000000",
        ),
        (json!(1), "Invalid transaction schema: "),
        (
            json!("111111111111111111111"),
            "Invalid transaction schema: ",
        ),
    ] {
        let mut lamp = value(&create("item 37", 1));
        lamp["outputs"][0]["amount"] = amount;
        let message = refused(&rehash(&mut lamp));
        assert!(message.starts_with(class), "{message}");
    }
}

#[test]
fn item_38_a_strangers_signature_is_refused() {
    let lamp = shared().committed(create("item 38", 1));
    let theft = Draft::transfer(lamp.asset())
        .spend(lamp.output_ref(0), &bob())
        .output(1, &bob());
    assert_eq!(
        refused(&text(&theft, &[&bob()])),
        "Invalid transaction (InvalidSignature): Transaction signature is invalid."
    );
}

#[test]
fn a_refused_transfer_leaves_no_trace() {
    let coins = shared().committed(create("no trace", 10));
    let wrong = sale(&coins, 11, &alice(), &bob());
    refused(wrong.canonical());
    assert_eq!(
        shared()
            .get(&format!("/api/v1/transactions/{}", wrong.id()))
            .status,
        404
    );
    shared().committed(sale(&coins, 10, &alice(), &bob()));
}

#[test]
fn item_40_keys_that_stores_cannot_hold_are_named_exactly() {
    for (key, place) in [("a.b", "asset"), ("$b", "metadata"), ("x\0", "metadata")] {
        let inner = Object::from_iter([(key, "1")]);
        let outer = Object::from_iter([("deep", inner)]);
        let draft = match place {
            "asset" => Draft::create(outer),
            _ => Draft::create(Object::from_iter([("a", "b")])).metadata(outer),
        };
        let answer = post(&text(&draft.output(1, &alice()), &[&alice()]));
        assert_eq!(
            answer.message(),
            format!(
                "Invalid transaction (ValidationError): Invalid key name \"{key}\" in {place} \
                 object. The key name cannot contain characters \".\", \"$\" or null characters"
            )
        );
        // A suite of third parties matches the raw text: the status is the last member.
        assert!(
            answer.text().trim_end().ends_with("\"status\": 400}"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn item_41_the_language_must_be_one_that_the_reference_knows() {
    let with = |language: &str| {
        let data = Object::from_iter([("language", language)]);
        text(&Draft::create(data).output(1, &alice()), &[&alice()])
    };
    assert_eq!(
        refused(&with("klingon")),
        "Invalid transaction (ValidationError): MongoDB does not support text search for the \
         language \"klingon\". If you do not understand this error message then please rename \
         key/field \"language\" to something else like \"lang\"."
    );
    assert_eq!(post(&with("english")).status, 202);
}

#[test]
fn item_42_naughty_strings_come_back_unchanged_as_keys_and_as_values() {
    let naughty = [
        "",
        "undefined",
        "\u{202e}\u{200b}",
        "𝕿𝖍𝖊",
        "田中さんにあげて下さい",
        "\\\"'`",
        "<script>alert(1)</script>",
        "\u{feff}",
        "1/0",
        "\u{1}\u{b}\u{1f}",
        "/dev/null; touch x",
        "Ω≈ç√∫˜µ≤≥÷",
        "👾 🙇",
        "%s%n",
        "{}",
        "\u{7f}\u{85}",
    ];
    for string in naughty {
        let data = Object::from_iter([(string, string)]);
        let sent = text(&Draft::create(data).output(1, &alice()), &[&alice()]);
        let answer = post(&sent);
        assert_eq!(answer.status, 202, "{string:?}: {}", answer.text());
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        let id = sent["id"].as_str().unwrap();
        assert_eq!(
            shared().get(&format!("/api/v1/transactions/{id}")).json(),
            sent
        );
    }
}

#[test]
fn item_56_version_3_creates_transfers_splits_merges_and_composes() {
    let node = shared();
    let both = Details::all_of(&[alice().public_key(), bob().public_key()]);
    let coins = node.committed(
        Draft::create("bafkreicoins")
            .version(Version::V3)
            .output(10, &alice())
            .sign(&[&alice()])
            .unwrap(),
    );
    let split = node.committed(
        Draft::transfer(coins.asset())
            .version(Version::V3)
            .spend(coins.output_ref(0), &alice())
            .output(4, both.clone())
            .output(6, &alice())
            .sign(&[&alice()])
            .unwrap(),
    );
    let merged = node.committed(
        Draft::transfer(coins.asset())
            .version(Version::V3)
            .spend(split.output_ref(0), both)
            .spend(split.output_ref(1), &alice())
            .output(10, &bob())
            .sign(&[&alice(), &bob()])
            .unwrap(),
    );
    let composed = node.committed(
        Draft::compose("bafkreicomposed", [coins.asset()])
            .spend(merged.output_ref(0), &bob())
            .output(1, &alice())
            .sign(&[&bob()])
            .unwrap(),
    );
    let answer = node.get(&format!("/api/v1/transactions?asset_ids={}", coins.id()));
    let ids: Vec<Value> = answer
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["id"].clone())
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[3], composed.id().to_string());
}

#[test]
fn a_body_above_the_limit_answers_413() {
    let settings = daybook_gateway::Settings {
        transaction_bytes_max: 2_000,
        ..daybook_gateway::Settings::default()
    };
    let node = TestNode::with(settings);
    assert_eq!(node.get("/api/v1").json()["max_transaction_size"], 2_000);
    let answer = node.post("commit", &[b' '; 2_001]);
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (413, "REQUEST ENTITY TOO LARGE")
    );
    assert_eq!(answer.json()["status"], 413);
    // A body that does not say how long it is, is read no further than the limit.
    let mut client = node.client();
    client.raw(b"POST /api/v1/transactions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        client.raw(format!("{:x}\r\n{}\r\n", 1_000, " ".repeat(1_000)).as_bytes());
    }
    assert_eq!(client.answer(false).status, 413);
    assert_eq!(node.commit(&create("small", 1)).status, 202);
}

#[test]
fn a_body_in_many_pieces_is_one_body() {
    let lamp = create("in pieces", 1);
    let mut client = Client::to(shared().api);
    client.raw(b"POST /api/v1/transactions?mode=commit HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in lamp.canonical().chunks(100) {
        client.raw(format!("{:x}\r\n", piece.len()).as_bytes());
        client.raw(piece);
        client.raw(b"\r\n");
    }
    client.raw(b"0\r\n\r\n");
    assert_eq!(client.answer(false).json(), value(&lamp));
}

#[test]
fn the_status_of_a_transaction_tells_its_fate() {
    let node = shared();
    let lamp = create("status", 1);
    let path = format!("/api/v1/transactions/{}/status", lamp.id());
    let unknown = node.get(&path);
    assert_eq!(
        (unknown.status, unknown.message().as_str()),
        (404, "Not found")
    );
    node.committed(lamp.clone());
    let status = node.get(&path).json();
    assert_eq!(status["transaction_id"], lamp.id().to_string());
    assert_eq!(status["status"], "committed");
    let height = status["height"].as_u64().unwrap();
    let index = status["index"].as_u64().unwrap() as usize;
    let block = node.get(&format!("/api/v1/blocks/{height}")).json();
    assert_eq!(block["transaction_ids"][index], lamp.id().to_string());
}

#[test]
fn a_commit_tells_the_place_of_the_transaction_and_other_modes_do_not() {
    let node = TestNode::start();
    let lamp = create("placed", 1);
    let answer = node.commit(&lamp);
    assert_eq!(answer.header("daybook-position"), "1.0");
    // A page of another origin may read it.
    assert_eq!(
        answer.header("access-control-expose-headers"),
        "Daybook-Position"
    );
    let sent = node.post("async", create("on its way", 1).canonical());
    assert_eq!((sent.status, sent.header("daybook-position")), (202, ""));
    let refused = node.commit(&lamp);
    assert_eq!(
        (refused.status, refused.header("daybook-position")),
        (400, "")
    );
}
