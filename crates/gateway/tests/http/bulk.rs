//! The batch door and the submitting socket.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    thread,
    time::Duration,
};

use daybook_ledger::Transaction;
use daybook_wire::assets::ResultLine;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::{Answer, Subscriber, TestNode, alice, bob, create, sale, shared};

const BATCH: &str = "/api/v1/transactions/batch";
const SUBMIT: &str = "/api/v1/transactions/submit";

fn lines(made: &[&[u8]]) -> Vec<u8> {
    let mut lines = made.join(&b'\n');
    lines.push(b'\n');
    lines
}

fn results(answer: &Answer) -> Vec<ResultLine> {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/x-ndjson")
    );
    let body = answer.text();
    assert!(body.is_empty() || body.ends_with('\n'));
    body.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn batch(node: &TestNode, query: &str, made: &[&[u8]]) -> Vec<ResultLine> {
    results(
        &node
            .client()
            .request("POST", &format!("{BATCH}{query}"), &[], &lines(made)),
    )
}

#[test]
fn a_batch_is_answered_line_by_line_in_order_with_the_place_of_each() {
    let node = TestNode::start();
    let made: Vec<Transaction> = (0..300)
        .map(|number| create(&format!("batch {number}"), 1))
        .collect();
    let texts: Vec<&[u8]> = made.iter().map(|made| &made.canonical()[..]).collect();
    let results = batch(&node, "", &texts);
    assert_eq!(results.len(), made.len());
    for (line, (result, made)) in (0..).zip(results.iter().zip(&made)) {
        assert_eq!(result.line, Some(line));
        assert_eq!(result.id, Some(made.id().to_string()));
        assert_eq!(
            (result.status.as_str(), result.repeated),
            ("committed", false)
        );
        let block = node
            .get(&format!("/api/v1/blocks/{}", result.height.unwrap()))
            .json();
        let index = result.index.unwrap() as usize;
        assert_eq!(block["transaction_ids"][index], made.id().to_string());
    }
}

#[test]
fn a_child_may_follow_its_parent_in_one_batch() {
    let lamp = create("parent and child", 1);
    let sold = sale(&lamp, 1, &alice(), &bob());
    let back = sale(&sold, 1, &bob(), &alice());
    let texts = [&lamp, &sold, &back].map(|made| &made.canonical()[..]);
    for result in batch(shared(), "?ack=durable", &texts) {
        assert_eq!(result.status, "committed");
    }
}

#[test]
fn a_repeated_line_is_answered_with_the_first_outcome() {
    let lamp = create("repeated line", 1);
    let text = &lamp.canonical()[..];
    let first = batch(shared(), "", &[text]).remove(0);
    let again = batch(shared(), "", &[text]).remove(0);
    assert!(!first.repeated && again.repeated);
    assert_eq!((first.height, first.index), (again.height, again.index));
}

#[test]
fn accepted_is_answered_before_the_block() {
    let node = TestNode::start();
    let lamp = create("accepted", 1);
    let result = batch(&node, "?ack=accepted", &[lamp.canonical()]).remove(0);
    assert_eq!(result.status, "accepted");
    assert_eq!((result.height, result.index), (None, None));
    let path = format!("/api/v1/transactions/{}/status", lamp.id());
    while node.get(&path).json()["status"] != "committed" {}
}

#[test]
fn a_bad_line_has_its_own_result_and_spoils_no_other() {
    let settings = daybook_gateway::Settings {
        transaction_bytes_max: 4_000,
        ..daybook_gateway::Settings::default()
    };
    let node = TestNode::with(settings);
    let (first, last) = (create("first", 1), create("last", 1));
    let long = vec![b'x'; 100_000];
    let orphan = sale(&create("never sent", 1), 1, &alice(), &bob());
    let results = batch(
        &node,
        "",
        &[
            first.canonical(),
            b"{nope",
            b"",
            &long,
            b"[]",
            orphan.canonical(),
            b"  \r",
            last.canonical(),
        ],
    );
    let seen: Vec<_> = results
        .iter()
        .map(|result| {
            (
                result.line.unwrap(),
                result.status.as_str(),
                result.class.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0, "committed", None),
            (1, "rejected", Some("MalformedJson")),
            (3, "rejected", Some("TooLarge")),
            (4, "rejected", Some("MalformedJson")),
            (5, "rejected", Some("InputDoesNotExist")),
            (7, "committed", None),
        ]
    );
    assert_eq!(results[4].id, Some(orphan.id().to_string()));
    assert!(
        results[4]
            .message
            .as_ref()
            .unwrap()
            .starts_with("Invalid transaction (")
    );
}

#[test]
fn results_come_while_the_upload_goes_on() {
    let node = TestNode::start();
    let mut client = node.client();
    let head =
        format!("POST {BATCH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.raw(head.as_bytes());
    assert_eq!(client.head().status, 200);
    let mut rest = Vec::new();
    for number in 0..5 {
        let lamp = create(&format!("while {number}"), 1);
        let line = lines(&[lamp.canonical()]);
        client.raw(&[format!("{:x}\r\n", line.len()).as_bytes(), &line, b"\r\n"].concat());
        let result = loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                break rest.drain(..=end).collect::<Vec<u8>>();
            }
            rest.extend(client.chunk().unwrap());
        };
        let result: ResultLine = serde_json::from_slice(&result).unwrap();
        assert_eq!(
            (result.line, result.id),
            (Some(number), Some(lamp.id().to_string()))
        );
    }
    client.raw(b"0\r\n\r\n");
    assert_eq!(client.chunk(), None);
    // The connection can be used again.
    assert_eq!(client.get("/api/v1").status, 200);
}

#[test]
fn a_last_line_without_its_newline_counts_and_an_empty_batch_is_empty() {
    let lamp = create("no newline", 1);
    let mut client = shared().client();
    let answer = client.request("POST", BATCH, &[], lamp.canonical());
    assert_eq!(results(&answer).len(), 1);
    assert_eq!(results(&client.request("POST", BATCH, &[], b"")), []);
    assert_eq!(results(&client.request("POST", BATCH, &[], b"\n\n\n")), []);
}

#[test]
fn an_unknown_acknowledgement_is_refused() {
    for query in ["?ack=maybe", "?ack=", "?mode=commit"] {
        let answer = shared()
            .client()
            .request("POST", &format!("{BATCH}{query}"), &[], b"");
        assert_eq!(answer.status, 400, "{query}");
        let refused = Subscriber::open(shared().api, &format!("{SUBMIT}{query}"))
            .err()
            .unwrap();
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_batch_disturbs_nobody() {
    let node = TestNode::start();
    let made: Vec<Transaction> = (0..200)
        .map(|number| create(&format!("leaving {number}"), 1))
        .collect();
    let mut client = node.client();
    let head =
        format!("POST {BATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n");
    client.raw(head.as_bytes());
    for made in &made {
        client.raw(&lines(&[made.canonical()]));
    }
    client.into_stream().shutdown(Shutdown::Both).unwrap();
    let after = create("after leaving", 1);
    assert_eq!(
        batch(&node, "", &[after.canonical()])[0].status,
        "committed"
    );
}

#[test]
fn large_batches_outgrow_no_window() {
    let node = TestNode::start();
    // Cheap lines, far more than may be under way.
    let mut body = b"{\"id\":1}\n".repeat(30_000);
    let lamp = create("at the end", 1);
    body.extend_from_slice(lamp.canonical());
    let answer = node.client().request("POST", BATCH, &[], &body);
    let results = results(&answer);
    assert_eq!(results.len(), 30_001);
    assert!(
        results[..30_000]
            .iter()
            .all(|result| result.status == "rejected")
    );
    assert_eq!(results[30_000].status, "committed");
    assert!(
        (0..)
            .zip(&results)
            .all(|(line, result)| result.line == Some(line))
    );
}

#[test]
fn a_socket_answers_every_message_under_its_tag_or_number() {
    let node = TestNode::start();
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    let made: Vec<Transaction> = (0..6)
        .map(|number| create(&format!("socket {number}"), 1))
        .collect();
    let text = |number: usize| String::from_utf8(made[number].canonical().to_vec()).unwrap();
    socket.send(&text(0));
    socket.send(&format!(
        r#"{{"tag": "a tag", "transaction": {}}}"#,
        text(1)
    ));
    socket.send(&format!(
        r#"{{"transaction": {}, "ack": "accepted", "tag": 17}}"#,
        text(2)
    ));
    socket.send(&format!(
        r#"{{"ack": "durable", "transaction": {}}}"#,
        text(3)
    ));
    socket
        .0
        .send(Message::binary(text(4).into_bytes()))
        .unwrap();
    socket.send("{nope");
    socket.send(r#"{"tag": {}, "transaction": {}}"#);
    socket.send(r#"{"ack": "maybe", "transaction": {}}"#);
    socket.send(r#"{"transaction": {}, "other": 1}"#);
    let mut replies: BTreeMap<String, Value> = BTreeMap::new();
    for _ in 0..9 {
        let reply = socket.json();
        replies.insert(reply["tag"].to_string(), reply);
    }
    for (tag, number) in [("0", 0), ("\"a tag\"", 1), ("3", 3), ("4", 4)] {
        let reply = &replies[tag];
        assert_eq!(reply["id"], made[number].id().to_string());
        assert_eq!(reply["status"], "committed");
        assert!(reply["height"].is_u64() && reply["index"].is_u64());
    }
    assert_eq!(replies["17"]["status"], "accepted");
    for tag in ["5", "6", "7", "8"] {
        assert_eq!(replies[tag]["status"], "rejected", "{tag}");
        assert_eq!(replies[tag]["class"], "MalformedJson", "{tag}");
    }
}

#[test]
fn a_socket_takes_chains_pipelined() {
    let mut socket = Subscriber::open(shared().api, &format!("{SUBMIT}?ack=durable")).unwrap();
    let mut made = vec![create("pipelined", 1)];
    for _ in 0..20 {
        let last = made.last().unwrap();
        let (from, to) = if made.len() % 2 == 1 {
            (alice(), bob())
        } else {
            (bob(), alice())
        };
        made.push(sale(last, 1, &from, &to));
    }
    for transaction in &made {
        let text = std::str::from_utf8(transaction.canonical()).unwrap();
        socket.0.write(Message::text(text)).unwrap();
    }
    socket.0.flush().unwrap();
    for _ in &made {
        let reply = socket.json();
        let number = reply["tag"].as_u64().unwrap() as usize;
        assert_eq!(reply["status"], "committed", "{reply}");
        assert_eq!(reply["id"], made[number].id().to_string());
    }
}

#[test]
fn a_socket_answers_pings_and_closes_after_its_last_reply() {
    let mut socket = Subscriber::open(shared().api, SUBMIT).unwrap();
    socket
        .0
        .send(Message::Ping(Bytes::from_static(b"here")))
        .unwrap();
    assert_eq!(
        socket.0.read().unwrap(),
        Message::Pong(Bytes::from_static(b"here"))
    );
    let lamp = create("closing", 1);
    socket.send(std::str::from_utf8(lamp.canonical()).unwrap());
    socket.0.close(None).unwrap();
    assert_eq!(socket.json()["status"], "committed");
    socket.close_code();
}

#[test]
fn a_message_that_is_too_long_or_no_text_ends_the_socket() {
    let node = TestNode::with(daybook_gateway::Settings {
        transaction_bytes_max: 4_000,
        ..daybook_gateway::Settings::default()
    });
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    socket.send(&"x".repeat(6_000));
    assert_eq!(socket.close_code(), 1009);
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    socket
        .0
        .get_mut()
        .write_all(b"\x81\x81\0\0\0\0\xff")
        .unwrap();
    assert_eq!(socket.close_code(), 1007);
    let answer = node.client().get(SUBMIT);
    assert_eq!(
        (answer.status, answer.json()["status"].clone()),
        (400, json!(400))
    );
}

#[test]
fn a_stopping_node_answers_what_is_under_way_and_closes_with_1001() {
    let mut node = TestNode::start();
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    let lamp = create("stopping", 1);
    socket.send(std::str::from_utf8(lamp.canonical()).unwrap());
    assert_eq!(socket.json()["status"], "committed");
    node.stop_gateway();
    assert_eq!(socket.close_code(), 1001);
}

#[test]
fn a_message_or_line_that_is_begun_must_be_whole_within_the_time_of_a_body() {
    let node = TestNode::with(daybook_gateway::Settings {
        body_timeout: Duration::from_millis(200),
        ..daybook_gateway::Settings::default()
    });
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    // The head of a message of 100 bytes and the first of them; Pings do not lengthen its time.
    let begun = b"\x01\x80\0\0\0\0\x89\x80\0\0\0\0\x80\xe4\0\0\0\0{";
    socket.0.get_mut().write_all(begun).unwrap();
    assert_eq!(socket.close_code(), 1013);

    let mut client = node.client();
    let head =
        format!("POST {BATCH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.raw(head.as_bytes());
    assert_eq!(client.head().status, 200);
    let mut stream = client.into_stream();
    let mut dripping = stream.try_clone().unwrap();
    // A byte now and then, for ever.
    let drip = thread::spawn(move || while dripping.write_all(b"1\r\n{\r\n").is_ok() {});
    let ended = stream.read_to_end(&mut Vec::new());
    let kind = ended.map_err(|error| error.kind()).err();
    assert!(
        matches!(kind, None | Some(ErrorKind::ConnectionReset)),
        "{kind:?}"
    );
    drop(stream);
    drip.join().unwrap();

    // What comes whole has all the time between.
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    for number in 0..3 {
        let lamp = create(&format!("in time {number}"), 1);
        socket.send(std::str::from_utf8(lamp.canonical()).unwrap());
        assert_eq!(socket.json()["status"], "committed");
    }
}

#[test]
fn a_node_that_has_stopped_says_so_of_every_message_that_it_did_not_take() {
    let mut node = TestNode::start();
    let mut socket = Subscriber::open(node.api, SUBMIT).unwrap();
    node.stop_behind();
    for number in 0..5 {
        let lamp = create(&format!("too late {number}"), 1);
        let text = std::str::from_utf8(lamp.canonical()).unwrap();
        socket.0.write(Message::text(text)).unwrap();
    }
    socket.0.flush().unwrap();
    for number in 0..5 {
        let reply = socket.json();
        assert_eq!(
            (&reply["tag"], &reply["status"]),
            (&json!(number), &json!("stopped"))
        );
    }
    assert_eq!(socket.close_code(), 1001);
}
