//! The command channel (section 2).

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{client::*, common::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_at_the_handshake_and_is_good_for_a_second_socket() {
    let (_, members, _dir) = network(2).await;
    let token = members[0].token().await;
    for wrong in ["", "0", "==", "%20", "00000000000000000000000000000000"] {
        match members[0].socket(wrong).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => {
                assert_eq!(reply.status(), 403, "{wrong}");
            }
            other => panic!("{other:?}"),
        }
    }
    let foreign = members[1].token().await;
    assert!(members[0].socket(&foreign).await.is_err());
    for _ in 0..2 {
        let mut socket = members[0].socket(&token).await.unwrap();
        socket.send(Message::text("{}")).await.unwrap();
        assert_eq!(code(&events(&mut socket).await), "request_error");
    }
    let url = members[0].url.replace("http://", "ws://");
    let url = format!("{url}/transactions?TOKEN=wrong&other=1&Token={token}");
    assert!(tokio_tungstenite::connect_async(url).await.is_ok());
    let elsewhere = format!(
        "{}/elsewhere?token={token}",
        members[0].url.replace("http://", "ws://")
    );
    match tokio_tungstenite::connect_async(elsewhere).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => assert_eq!(reply.status(), 404),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_gets_one_report_and_a_close() {
    let (node, members, _dir) = network(2).await;
    let before = node.entries_of("propose");
    let mut messages: Vec<Message> = ["{", "5", "null", "[]", "true", "\"x\"", "{}"]
        .into_iter()
        .map(Message::text)
        .collect();
    messages.push(Message::binary(vec![0xff, 0xfe]));
    for kind in ["gu-11", "gu-12"] {
        let whole = plan(kind, "bad");
        for name in whole.as_object().unwrap().keys() {
            let optional = name == "~attach" || (name == "decade" && kind == "gu-12");
            if !optional {
                let mut message = whole.clone();
                message.as_object_mut().unwrap().remove(name);
                messages.push(Message::text(message.to_string()));
            }
        }
    }
    for name in ["@id", "mime_type", "filename", "data"] {
        let mut message = attaching("bad", "CONT-BAD", "u", &"0".repeat(32));
        message["~attach"][0][name] = json!("");
        messages.push(Message::text(message.to_string()));
        let mut genesis = creation("bad", "CONT-BAD");
        genesis["genesis"][0]["~attach"] = message["~attach"].clone();
        messages.push(Message::text(genesis.to_string()));
    }
    for kind in ["progress", "problem_report", "unknown"] {
        messages.push(Message::text(
            json!({"@type": format!("{TYPES}{kind}")}).to_string(),
        ));
    }
    for (name, value) in [
        ("name", json!("")),
        ("@id", json!(0)),
        ("time_to_live", json!(0)),
        ("time_to_live", json!("20")),
        ("genesis", json!([])),
        ("genesis", json!("x")),
        ("genesis", json!([1])),
    ] {
        let mut message = creation("bad", "CONT-BAD");
        message[name] = value;
        messages.push(Message::text(message.to_string()));
    }
    for name in [
        "no",
        "date",
        "cargo",
        "departure_station",
        "arrival_station",
        "doc_type",
        "ledger",
        "@id",
    ] {
        let mut message = entry("bad", json!("CONT-BAD"));
        message[name] = json!("");
        messages.push(Message::text(message.to_string()));
    }
    for (name, value) in [
        ("waybill", json!({"no": "", "wagon_no": ""})),
        ("doc_type", json!("Wish")),
        ("txnMetadata", json!({"seqNo": 1})),
        ("ledger", json!("CONT-BAD")),
        (
            "~attach",
            json!([{"@id": "d", "mime_type": "a/b", "filename": "f", "data": {"json": {"url": "u"}}}]),
        ),
    ] {
        let mut message = entry("bad", json!("CONT-BAD"));
        message[name] = value;
        messages.push(Message::text(message.to_string()));
    }
    let token = members[0].token().await;
    for message in messages {
        let mut socket = members[0].socket(&token).await.unwrap();
        let shown = format!("{message:?}");
        socket.send(message).await.unwrap();
        let events = events(&mut socket).await;
        assert_eq!(events.len(), 1, "{shown}: {events:?}");
        assert_eq!(code(&events), "request_error", "{shown}");
        assert!(!events[0]["explain"].as_str().unwrap().is_empty());
    }
    assert_eq!(node.entries_of("propose"), before);
    for member in &members {
        for list in ["/ledgers/", "/gu-11/", "/gu-12/"] {
            assert_eq!(member.get(list).await.json()["count"], 0, "{list}");
        }
        assert_eq!(member.get("/operations/bad/").await.status, 404);
    }
    // Both spellings of one type are taken, and an unknown ledger is a later fault.
    for letter in ["\u{421}", "C"] {
        let mut message = entry(&format!("unknown-{letter}"), json!("CONT-BAD"));
        message["doc_type"] = json!(format!("{letter}onnaissement"));
        let events = members[0].command(&message).await;
        assert_eq!(code(&events), "request_processing_error", "{events:?}");
        assert_eq!(values(&events)[0], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_one_transaction_however_often_it_is_sent() {
    let (node, members, _dir) = network(2).await;
    assert!(is_done(&members[0].command(&creation("c", "CONT-1")).await));
    // The node takes it, and its answer is lost.
    node.lose_answers.store(1, Ordering::SeqCst);
    assert!(is_done(
        &members[0].command(&entry("i", json!("CONT-1"))).await
    ));
    let message = entry("j", json!("CONT-1"));
    let (one, two) = tokio::join!(members[0].command(&message), members[0].command(&message));
    assert!(is_done(&one) && is_done(&two), "{one:?} {two:?}");
    let again = members[0].command(&entry("i", json!("CONT-1"))).await;
    assert!(is_done(&again));
    assert_eq!(node.tree("CONT-1").unwrap().1, 3);
    // Two requests with one name are not one request.
    let (mut first, mut second) = (entry("k", json!("CONT-1")), entry("k", json!("CONT-1")));
    first["no"] = json!("first");
    second["no"] = json!("second");
    let (first, second) = tokio::join!(members[0].command(&first), members[0].command(&second));
    assert!(is_done(&first) != is_done(&second), "{first:?} {second:?}");
    assert_eq!(node.tree("CONT-1").unwrap().1, 4);
    let mut other = entry("i", json!("CONT-1"));
    other["no"] = json!("another");
    assert_eq!(code(&members[0].command(&other).await), "request_error");
    let known = members[0].get("/operations/i/").await.json();
    assert_eq!(known["status"], "done");
    // The name is taken, and the ledger stays as it is.
    let root = node.tree("CONT-1");
    let events = members[1].command(&creation("c2", "CONT-1")).await;
    assert_eq!(code(&events), "request_processing_error");
    assert_eq!(node.tree("CONT-1"), root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_nothing() {
    let (node, members, _dir) = network(2).await;
    members[1].down.store(true, Ordering::SeqCst);
    let mut socket = members[0].socket(&members[0].token().await).await.unwrap();
    let message = creation("c", "CONT-1").to_string();
    socket.send(Message::text(message)).await.unwrap();
    until("it is proposed", async || node.entries_of("propose") == 1).await;
    drop(socket);
    members[1].down.store(false, Ordering::SeqCst);
    until("it is committed", async || node.tree("CONT-1").is_some()).await;
    until("its outcome is remembered", async || {
        members[0].get("/operations/c/").await.json()["status"] == "done"
    })
    .await;
    assert!(is_done(&members[0].command(&creation("c", "CONT-1")).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_reported_in_time_and_the_operation_goes_on() {
    let (node, members, _dir) = network(2).await;
    let socket_token = members[0].token().await;
    node.down.store(true, Ordering::SeqCst);
    let mut socket = members[0].socket(&socket_token).await.unwrap();
    let mut message = creation("c", "CONT-1");
    message["time_to_live"] = json!(1);
    socket
        .send(Message::text(message.to_string()))
        .await
        .unwrap();
    let events = events(&mut socket).await;
    assert_eq!(code(&events), "request_processing_error");
    assert_eq!(events.last().unwrap()["stage"], "proposing");
    assert!(
        events.last().unwrap()["explain"]
            .as_str()
            .unwrap()
            .contains("/operations/c/")
    );
    assert_eq!(
        members[0].get("/operations/c/").await.json()["status"],
        "running"
    );
    node.down.store(false, Ordering::SeqCst);
    until("its outcome is known", async || {
        members[0].get("/operations/c/").await.json()["status"] == "failed"
    })
    .await;
    assert_eq!(node.tree("CONT-1"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_time_is_over_opens_no_socket() {
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    let node = Node::new(2);
    let later = |settings: &mut daybook_member::Settings| {
        settings.clock = || daybook_member::system_clock() + AHEAD.load(Ordering::SeqCst);
        settings.token_seconds = 60 * 60;
    };
    let (members, _dir) = members_of(&node, 2, later).await;
    let token = members[0].token().await;
    assert!(members[0].socket(&token).await.is_ok());
    AHEAD.store(60 * 60 * 1_000, Ordering::SeqCst);
    match members[0].socket(&token).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => assert_eq!(reply.status(), 403),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waybill_has_a_number_or_that_of_its_wagon_or_is_empty() {
    let (_, members, _dir) = network(2).await;
    let one = &members[0];
    assert!(is_done(&one.command(&creation("c", "CONT-1")).await));
    for (number, waybill) in [json!({"no": "1"}), json!({"wagon_no": "2"}), json!({})]
        .into_iter()
        .enumerate()
    {
        let mut message = entry(&format!("i{number}"), json!("CONT-1"));
        message["waybill"] = waybill;
        let events = one.command(&message).await;
        assert!(is_done(&events), "{message}: {events:?}");
    }
    let mut message = entry("wrong", json!("CONT-1"));
    message["waybill"] = json!({"number": "1"});
    assert_eq!(code(&one.command(&message).await), "request_error");
}
