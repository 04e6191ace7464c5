//! The tracker's envelopes.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use daybook_ledger::tracker::{Code, Payload};
use daybook_wire::tracker::{
    Envelope, Frame, Malformed, Page, PageMeta, SignedData, Timings, error_reply, event,
    lagged_event, read, reply,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn signed(text: &str) -> daybook_ledger::tracker::Request {
    match read(text) {
        Ok(Frame::Signed(request)) => request,
        other => panic!("{text}: {other:?}"),
    }
}

fn malformed(text: &str) -> Malformed {
    match read(text) {
        Err(malformed) => malformed,
        Ok(frame) => panic!("{text}: {frame:?}"),
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).expect("what is written is JSON")
}

#[test]
fn a_single_signed_request_is_split_into_its_members() {
    let request = signed(
        r#"{"cmd":256,"corrToken":"b3f1","payload":{"message":"{\"a\":\"\u0444\"}","pk":"P\nK","sign":"S="},"x":[1,{}]}"#,
    );
    assert_eq!(request.command, 256);
    assert_eq!(request.correlation, "b3f1");
    assert!(!request.idempotent);
    assert_eq!(
        request.payload,
        Payload::Single {
            message: "{\"a\":\"ф\"}".to_owned(),
            pk: "P\nK".to_owned(),
            sign: "S=".to_owned(),
        }
    );
}

#[test]
fn a_co_signed_request_is_split_into_its_members() {
    let request = signed(
        r#"{"payload":{"toSign":"d","toPK":"c","fromSign":"b","fromPK":"a","message":"m","pk":7},"idem":true,"cmd":16}"#,
    );
    assert!(request.idempotent);
    assert_eq!(request.correlation, "");
    assert_eq!(
        request.payload,
        Payload::CoSigned {
            message: "m".to_owned(),
            from_pk: "a".to_owned(),
            from_sign: "b".to_owned(),
            to_pk: "c".to_owned(),
            to_sign: "d".to_owned(),
        }
    );
}

#[test]
fn the_last_of_members_that_come_twice_counts() {
    let request = signed(
        r#"{"cmd":3,"cmd":1,"corrToken":"a","corrToken":"b","payload":null,"payload":{"message":1,"message":"m","pk":"p","sign":"s"}}"#,
    );
    assert_eq!((request.command, &*request.correlation), (1, "b"));
}

#[test]
fn what_is_no_envelope_has_no_token() {
    for text in [
        "",
        "x",
        "[]",
        "7",
        "null",
        "\"cmd\"",
        r#"{"cmd":1"#,
        r#"{"cmd":1}}"#,
        r#"{"cmd":1,"corrToken":7}"#,
        r#"{"cmd":1,"corrToken":"\ud800"}"#,
        &"[".repeat(10_000),
        &format!("{{\"x\":{}", "[".repeat(10_000)),
    ] {
        let refused = malformed(text);
        assert_eq!(refused.code, Code::BadJson, "{text}");
        assert_eq!(refused.correlation, None, "{text}");
        assert!(refused.error.starts_with("invalid message: "), "{text}");
    }
}

#[test]
fn an_unknown_command_is_named_and_keeps_its_token() {
    for (cmd, shown, known) in [
        ("3", "3", Some(3)),
        ("0", "0", Some(0)),
        (
            "18446744073709551615",
            "18446744073709551615",
            Some(u64::MAX),
        ),
        ("-1", "-1", None),
        ("1.0", "not an integer", None),
        ("1e0", "not an integer", None),
        ("18446744073709551616", "not an integer", None),
        ("\"1\"", "not an integer", None),
        ("null", "not an integer", None),
    ] {
        // The command is looked at before the payload.
        let refused = malformed(&format!(r#"{{"cmd":{cmd},"corrToken":"t"}}"#));
        assert_eq!(
            refused,
            Malformed {
                command: known,
                correlation: Some("t".to_owned()),
                code: Code::BadCommand,
                error: format!("invalid message command: {shown}"),
            }
        );
    }
    assert_eq!(malformed(r#"{"corrToken":"t"}"#).code, Code::BadCommand);
}

#[test]
fn a_container_with_a_hole_is_refused() {
    for (payload, error) in [
        ("null", "nil payload"),
        ("{}", "empty payload"),
        ("[]", "payload is not an object"),
        ("\"\"", "payload is not an object"),
        ("true", "payload is not an object"),
        (r#"{"x":1}"#, "payload: message is missing"),
        (
            r#"{"message":1,"pk":"","sign":""}"#,
            "payload: message is not a string",
        ),
        (r#"{"message":"","pk":""}"#, "payload: sign is missing"),
        (
            r#"{"message":"","pk":{},"sign":""}"#,
            "payload: pk is not a string",
        ),
    ] {
        let refused = malformed(&format!(r#"{{"cmd":2,"payload":{payload}}}"#));
        assert_eq!(refused.code, Code::BadPayload);
        assert_eq!(refused.command, Some(2));
        assert_eq!(refused.error, error);
    }
    assert_eq!(malformed(r#"{"cmd":2}"#).error, "nil payload");
    let refused = malformed(r#"{"cmd":8,"payload":{"message":"","pk":"","sign":""}}"#);
    assert_eq!(refused.error, "payload: fromPK is missing");
}

#[test]
fn capabilities_are_asked_for_without_a_signature() {
    for payload in ["", r#","payload":{"v":[1,2]}"#, r#","payload":{}"#] {
        let text = format!(r#"{{"cmd":65536,"corrToken":"c"{payload}}}"#);
        assert!(
            matches!(read(&text), Ok(Frame::Capabilities { correlation }) if correlation == "c")
        );
    }
}

#[test]
fn a_reply_carries_the_signed_message_and_times_if_there_are_any() {
    let data = SignedData::new("{\"pk\":\"P\\n\"}", &[0xff, 0xfe, 0xfd, 0xfc]);
    let envelope = Envelope {
        command: 512,
        correlation: "a\"\n😀",
    };
    assert_eq!(
        written(|out| reply(out, envelope, &data, None)),
        json!({"cmd": 512, "corrToken": "a\"\n😀",
            "data": {"message": "{\"pk\":\"P\\n\"}", "sign": "//79/A=="}})
    );
    let timings = Timings {
        received: 1_531_000_000_000_000_000,
        proven: 0,
        handled: 1_531_000_000_000_000_001,
    };
    assert_eq!(
        written(|out| reply(out, envelope, &data, Some(timings)))["exData"],
        json!({"beforeCreate": 1_531_000_000_000_000_000_u64,
            "handled": 1_531_000_000_000_000_001_u64})
    );
}

#[test]
fn an_error_reply_repeats_the_token_or_else_the_frame() {
    let write = |command, correlation, frame: &str| {
        written(|out| error_reply(out, command, correlation, frame, "code", "text", None))
    };
    assert_eq!(
        write(Some(8), Some("t"), "{}"),
        json!({"cmd": 8, "corrToken": "t", "data": "t", "error": "text", "code": "code"})
    );
    assert_eq!(
        write(None, None, "not\u{0} JSON"),
        json!({"corrToken": "", "data": "not\u{0} JSON", "error": "text", "code": "code"})
    );
    let long = format!("x{}", "ф".repeat(4_096));
    let shown = write(None, None, &long)["data"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(shown, long[..4_095], "cut between two characters");
}

#[test]
fn an_event_has_no_token() {
    let data = SignedData::new("m", b"s");
    assert_eq!(
        written(|out| event(out, "channel.closed", "s1", 9, &data)),
        json!({"event": "channel.closed", "subId": "s1", "seq": 9,
            "data": {"message": "m", "sign": "cw=="}})
    );
    assert_eq!(
        written(|out| lagged_event(out, "s1", 9)),
        json!({"event": "lagged", "subId": "s1", "seq": 9, "code": "lagged"})
    );
}

#[test]
fn a_page_is_json_whatever_number_of_items_it_has() {
    let meta = PageMeta {
        cursor: "c",
        total: 41,
        pages: 3,
        page: 1,
        per_page: 20,
    };
    let mut page = Page::new(Some(meta));
    page.push("{\"a\":1}");
    page.push("{\"a\":2}");
    assert_eq!(
        serde_json::from_str::<Value>(&page.finish()).unwrap(),
        json!({"_meta": {"cursorId": "c", "totalCount": 41, "pageCount": 3, "currentPage": 1,
            "perPage": 20}, "items": [{"a": 1}, {"a": 2}]})
    );
    assert_eq!(Page::new(None).finish(), "{\"items\":[]}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_a_refusal_can_be_sent(text in ".{0,300}") {
        if let Err(refused) = read(&text) {
            let back = written(|out| {
                let token = refused.correlation.as_deref();
                error_reply(out, refused.command, token, &text, "c", &refused.error, None);
            });
            prop_assert_eq!(back["data"].as_str().unwrap(), refused.correlation.as_deref().unwrap_or(&text));
        }
    }

    #[test]
    fn every_token_and_message_comes_back_byte_for_byte(token in any::<String>(), message in any::<String>()) {
        let frame = json!({"cmd": 1, "corrToken": token,
            "payload": {"message": message, "pk": "p", "sign": "s"}}).to_string();
        let request = signed(&frame);
        prop_assert_eq!(request.payload.message(), &message);
        let data = SignedData::new(&message, b"");
        let envelope = Envelope { command: 1, correlation: &request.correlation };
        let back = written(|out| reply(out, envelope, &data, None));
        prop_assert_eq!(back["corrToken"].as_str().unwrap(), token);
        prop_assert_eq!(back["data"]["message"].as_str().unwrap(), message);
    }
}
