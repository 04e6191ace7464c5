//! Parameters, bodies and lines of the asset protocol.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use daybook_ledger::{
    Height, Operation, OutputRef, Position, Rejection, RejectionClass, TransactionId,
};
use daybook_wire::assets::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const KEY: &str = "n655MWeb71sJe7iSvp6svN7WJF5wkY3TYpcobjHt9P8";

fn json(body: Vec<u8>) -> Value {
    serde_json::from_slice(&body).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Value {
    json(result.unwrap_err().body())
}

#[test]
fn queries_are_decoded_and_the_first_of_equal_names_counts() {
    let query = Query::parse("a=1&b=x+y%20z&a=2&c&=d&e=%C3%A9%ff%zz%4&&f=a=b");
    assert_eq!(query.first("a"), Some("1"));
    assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(query.first("b"), Some("x y z"));
    assert_eq!(query.first("c"), Some(""));
    assert_eq!(query.first(""), Some("d"));
    assert_eq!(query.first("e"), Some("é\u{fffd}%zz%4"));
    assert_eq!(query.first("f"), Some("a=b"));
    assert_eq!(query.first("g"), None);
    assert_eq!(Query::parse(""), Query::default());
}

#[test]
fn assets_are_one_or_a_list_or_lists() {
    let parse = |text: &str| TransactionParameters::from_query(&Query::parse(text));
    let ids = |text: &str| -> Vec<String> {
        parse(text)
            .unwrap()
            .assets
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(ids(&format!("asset_id={}", A.to_uppercase())), [A]);
    assert_eq!(ids(&format!("asset_id={A}&asset_id=nonsense")), [A]);
    assert_eq!(ids(&format!("asset_ids={B},{A}&asset_ids={A}")), [A, B]);
    assert_eq!(ids(&format!("asset_id={A}&asset_ids={B}")), [A, B]);
    for text in [
        "asset_id=",
        "asset_id=abc",
        &format!("asset_id={A}0"),
        "asset_id=%C3%A9",
    ] {
        assert_eq!(
            refusal(parse(text)),
            json!({"message": {"asset_id": "Invalid hash"}})
        );
    }
    for text in [
        "asset_ids=",
        "asset_ids=,",
        &format!("asset_ids={A},"),
        &format!("asset_ids={A};{B}"),
    ] {
        assert_eq!(
            refusal(parse(text)),
            json!({"message": {"asset_ids": "List contains invalid hash"}})
        );
    }
}

#[test]
fn operations_and_booleans_are_read_in_any_case() {
    let parse = |text: &str| {
        TransactionParameters::from_query(&Query::parse(&format!("asset_id={A}&{text}"))).unwrap()
    };
    assert_eq!(parse("operation=cReAtE").operation, Some(Operation::Create));
    assert_eq!(
        parse("operation=transfer").operation,
        Some(Operation::Transfer)
    );
    assert!(parse("last_tx=TRUE").last_only && !parse("last_tx=False").last_only);
    assert!(!parse("").last_only);
}

#[test]
fn keys_are_recognised_by_their_form_alone() {
    let parse = |text: &str| OutputParameters::from_query(&Query::parse(text));
    assert_eq!(
        parse(&format!("public_key={KEY}")).unwrap().key,
        Some(KEY.parse().unwrap())
    );
    // 44 characters of the alphabet that decode to 33 bytes: no key, and no error either.
    assert_eq!(
        parse(&format!("public_key={}", "z".repeat(44)))
            .unwrap()
            .key,
        None
    );
    for text in [
        "",
        "abc",
        &"0".repeat(43),
        &"O".repeat(44),
        &"I".repeat(43),
        &"l".repeat(43),
        &"é".repeat(22),
    ] {
        assert_eq!(
            refusal(parse(&format!("public_key={text}"))),
            json!({"message": {"public_key": "Invalid base58 ed25519 key"}})
        );
    }
}

#[test]
fn limits_are_counts_and_nothing_else() {
    let parse = |text: &str| {
        SearchParameters::from_query(&Query::parse(&format!("search=x&limit={text}")))
            .map(|parameters| parameters.limit)
    };
    assert_eq!(parse("0"), Ok(None));
    assert_eq!(parse("007"), Ok(Some(7)));
    assert_eq!(parse("99999999999999999999999999"), Ok(None));
    for text in ["", "-1", "%2B1", "1.0", "1e3", "abc", "%20"] {
        assert!(parse(text).is_err(), "{text}");
    }
    let long = refusal(parse(&"x".repeat(10_000)));
    assert!(long["message"]["limit"].as_str().unwrap().len() < 200);
}

#[test]
fn error_bodies_have_the_message_first_and_the_status_last() {
    assert_eq!(
        error_body(404, "No \"x\""),
        br#"{"message": "No \"x\"", "status": 404}"#
    );
    assert_eq!(
        json(NOT_FOUND.to_vec()),
        json!({"message": "Not found", "status": 404})
    );
    let empty = SearchParameters::from_query(&Query::parse("search=")).unwrap_err();
    assert_eq!(
        empty.body(),
        br#"{"message": "text_search cannot be empty", "status": 400}"#
    );
}

#[test]
fn discovery_is_relative_in_the_api_root_and_absolute_in_the_root() {
    let discovery = Discovery {
        software: "Planetmint",
        version: "1.0",
        docs: "https://docs.example",
        streams: "wss://ledger.example:443",
        max_transaction_size: 7,
    };
    let (root, v1) = (json(discovery.root()), json(discovery.v1()));
    assert_eq!(v1["assets"], "/assets/");
    assert_eq!(root["api"]["v1"]["assets"], "/api/v1/assets/");
    assert_eq!(
        v1["streams"],
        "wss://ledger.example:443/api/v1/streams/valid_transactions"
    );
    assert_eq!(root["api"]["v1"]["streams"], v1["streams"]);
    assert_eq!(root["software"], "Planetmint");
}

#[test]
fn search_answers_keep_texts_as_they_are() {
    let id = TransactionId([0xab; 32]);
    let mut out = Vec::new();
    let text = br#"{"asset":{"data":{"a":1.0,"b":1e-05}},"id":"x","metadata":"m"}"#;
    assert_eq!(
        append_search_elements(&mut out, SearchElement::Asset, &id, text),
        1
    );
    assert_eq!(
        append_search_elements(&mut out, SearchElement::Metadata, &id, text),
        1
    );
    let ab = "ab".repeat(32);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!(
            "{{\"data\":{{\"a\":1.0,\"b\":1e-05}},\"id\":\"{ab}\"}},{{\"metadata\":\"m\",\"id\":\"{ab}\"}},"
        )
    );
    let mut out = Vec::new();
    let composed = br#"{"assets":[{"id":"one"},{"data":"new"}],"metadata":null}"#;
    assert_eq!(
        append_search_elements(&mut out, SearchElement::Asset, &id, composed),
        1
    );
    out.clear();
    assert_eq!(
        append_exact_matches(&mut out, SearchElement::Asset, composed, 9),
        2
    );
    assert_eq!(out, br#"{"id":"one"},{"data":"new"},"#);
    out.clear();
    assert_eq!(
        append_exact_matches(&mut out, SearchElement::Asset, composed, 1),
        1
    );
    assert_eq!(
        append_exact_matches(&mut out, SearchElement::Metadata, composed, 1),
        0
    );
    assert_eq!(
        append_exact_matches(&mut out, SearchElement::Metadata, b"nonsense", 1),
        0
    );
}

#[test]
fn streams_begin_where_they_are_asked_to() {
    let parse = |kind, text: &str| StreamParameters::from_query(kind, &Query::parse(text));
    let at = |height, index| {
        From::Position(Position {
            height: Height(height),
            index,
        })
    };
    let valid = StreamKind::ValidTransactions;
    assert_eq!(parse(valid, "").unwrap(), StreamParameters::default());
    assert_eq!(parse(valid, "from=7").unwrap().from, at(7, 0));
    assert_eq!(parse(valid, "from=7.3&from=9").unwrap().from, at(7, 3));
    assert_eq!(
        parse(StreamKind::ValidBlocks, "from=7").unwrap().from,
        at(7, 0)
    );
    for text in ["+7", "7.", ".7", "7.-1", "7.4294967296", "seven", ""] {
        assert!(parse(valid, &format!("from={text}")).is_err(), "{text}");
    }
    assert!(parse(StreamKind::RejectedTransactions, "from=7.0").is_err());
}

#[test]
fn a_key_that_nobody_has_matches_nothing() {
    let text = format!("public_key={}", "z".repeat(44));
    let parameters =
        StreamParameters::from_query(StreamKind::ValidTransactions, &Query::parse(&text)).unwrap();
    assert!(parameters.filter.nothing && !parameters.filter.is_empty());
}

#[test]
fn lines_say_what_became_of_each_submission() {
    let id = TransactionId([0xab; 32]);
    let position = Position {
        height: Height(12),
        index: 3,
    };
    let rejection = Rejection::new(RejectionClass::DoubleSpend, "input `x` was already spent");
    let mut out = Vec::new();
    accepted_line(&mut out, Label::Line(0), &id);
    out.push(b'\n');
    committed_line(&mut out, Label::Number(u64::MAX), &id, position, true);
    out.push(b'\n');
    rejected_line(&mut out, Label::Tag("\"t\""), Some(&id), &rejection);
    out.push(b'\n');
    busy_line(&mut out, Label::Line(3));
    out.push(b'\n');
    stopped_line(&mut out, Label::Line(4));
    let lines: Vec<ResultLine> = out
        .split(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(
        (lines[0].line, lines[0].status.as_str()),
        (Some(0), "accepted")
    );
    assert_eq!(
        (lines[1].height, lines[1].index, lines[1].repeated),
        (Some(12), Some(3), true)
    );
    assert_eq!(lines[2].tag, Some(json!("t")));
    assert_eq!(lines[2].class.as_deref(), Some("DoubleSpend"));
    assert_eq!(
        lines[2].message.as_deref(),
        Some("Invalid transaction (DoubleSpend): input `x` was already spent")
    );
    assert_eq!(
        (lines[3].status.as_str(), lines[4].status.as_str()),
        ("busy", "stopped")
    );
}

#[test]
fn socket_messages_are_bare_or_in_an_envelope() {
    let read = |text: &'static str| socket_message(&Bytes::from_static(text.as_bytes()));
    let bare = read(r#" {"asset": 1, "ack": "x"}"#).unwrap();
    assert_eq!((bare.level, bare.tag), (None, None));
    let full = read(r#"{"tag": "a", "ack": "accepted", "transaction": {"id": 1}}"#).unwrap();
    assert_eq!(&full.transaction[..], br#"{"id": 1}"#);
    assert_eq!(
        (full.level, full.tag.as_deref()),
        (Some(Level::Accepted), Some("\"a\""))
    );
    let reversed = read(r#"{"transaction": 5, "tag": -1.5}"#).unwrap();
    assert_eq!(
        (&reversed.transaction[..], reversed.tag.as_deref()),
        (&b"5"[..], Some("-1.5"))
    );
    for bad in [
        r#"{"tag": "a"}"#,
        r#"{"tag": null, "transaction": {}, "more": 1}"#,
        r#"{"tag": [1], "transaction": {}}"#,
        r#"{"ack": 1, "transaction": {}}"#,
        r#"{"ack": "later", "transaction": {}}"#,
        r#"{"transaction": {}"#,
        r#"{"transaction": {}, "transaction": {}}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    let long = format!(
        r#"{{"tag": "{}", "transaction": {{}}}}"#,
        "x".repeat(TAG_BYTES_MAX)
    );
    assert!(socket_message(&Bytes::from(long)).is_err());
}

#[test]
fn frames_are_json_of_the_documented_members() {
    let id = TransactionId([0xab; 32]);
    let frame = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        json(out)
    };
    let ab = "ab".repeat(32);
    assert_eq!(
        frame(&|out| block_frame(out, Height(3), "ff", [id].into_iter())),
        json!({"height": 3, "hash": "ff", "transaction_ids": [ab]})
    );
    let rejection = Rejection::new(RejectionClass::DoubleSpend, "twice");
    assert_eq!(
        frame(&|out| rejected_frame(out, Height(3), &id, &rejection)),
        json!({"height": 3, "transaction_id": ab, "class": "DoubleSpend",
            "message": "Invalid transaction (DoubleSpend): twice"})
    );
    assert_eq!(
        frame(&|out| lagging_notice(out, 9)),
        json!({"notice": "lagging", "behind": 9})
    );
    assert_eq!(
        frame(&|out| caught_up_notice(out, Height(9))),
        json!({"notice": "caught_up", "height": 9})
    );
    assert_eq!(
        frame(&|out| head_notice(out, Height(9))),
        json!({"notice": "head", "height": 9})
    );
    let mut out = Vec::new();
    append_output(
        &mut out,
        &OutputRef {
            transaction: id,
            index: 7,
        },
    );
    assert_eq!(out.pop(), Some(b','));
    assert_eq!(json(out), json!({"transaction_id": ab, "output_index": 7}));
}

proptest! {
    #[test]
    fn any_query_is_read_or_refused_with_json(text in "[a-z_&=%+,.A-F0-9é]{0,200}") {
        let query = Query::parse(&text);
        let bodies = [
            mode(&query).err(),
            level(&query).err(),
            TransactionParameters::from_query(&query).err(),
            OutputParameters::from_query(&query).err(),
            BlockParameters::from_query(&query).err(),
            SearchParameters::from_query(&query).err(),
            ListParameters::from_path(&text, &query).err(),
        ];
        let streams = StreamKind::ALL.map(|kind| StreamParameters::from_query(kind, &query).err());
        for refusal in bodies.into_iter().chain(streams).flatten() {
            prop_assert!(json(refusal.body())["message"] != Value::Null);
        }
    }

    #[test]
    fn encoding_a_value_and_reading_it_gives_the_value(value in "\\PC{0,40}") {
        let mut text = String::from("x=");
        for byte in value.bytes() {
            text += &format!("%{byte:02x}");
        }
        let query = Query::parse(&text);
        prop_assert_eq!(query.first("x"), Some(value.as_str()));
    }

    #[test]
    fn ids_are_read_in_any_case_and_nothing_else_is(bytes in any::<[u8; 32]>(), spoil in 0usize..64) {
        let id = TransactionId(bytes);
        let parse = |text: &str| BlockParameters::from_query(&Query::parse(&format!("transaction_id={text}")));
        prop_assert_eq!(parse(&id.to_string().to_uppercase()).unwrap().transaction, Some(id));
        let mut spoiled = id.to_string();
        spoiled.replace_range(spoil..=spoil, "g");
        prop_assert_eq!(parse(&spoiled).unwrap().transaction, None);
    }

    #[test]
    fn any_socket_message_is_read_or_refused(text in prop_oneof![
        "\\PC{0,60}",
        "\\{\"(ack|tag|transaction)\": ?[\"a-z0-9{}, :]{0,40}\\}?",
    ]) {
        let bytes = Bytes::from(text);
        if let Ok(message) = socket_message(&bytes) {
            prop_assert!(message.transaction.len() <= bytes.len());
        }
    }
}
