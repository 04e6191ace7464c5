//! Machines that say to a node that they are there (docs/protocols/machines.md).

use daybook_gateway::{BusOverview, Settings, Token};
use serde_json::{Value, json};

use crate::support::{Answer, TestNode};

const PATH: &str = "/api/v1/machines";

fn announce(node: &TestNode, headers: &[(&str, &str)], body: &str) -> Answer {
    node.client()
        .request("POST", PATH, headers, body.as_bytes())
}

fn robot(name: &str, port: u16) -> String {
    json!({"name": name, "role": "robot", "url": format!("http://127.0.0.1:{port}")}).to_string()
}

fn listed(node: &TestNode) -> Vec<Value> {
    node.get(PATH).json()["machines"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn a_machine_is_listed_and_the_consoles_page_may_talk_to_it() {
    let node = TestNode::start();
    assert!(listed(&node).is_empty());
    let policy = |node: &TestNode| {
        let page = node.get("/console");
        page.header("content-security-policy").to_owned()
    };
    assert!(policy(&node).contains("connect-src 'self';"));
    let answer = announce(&node, &[], &robot("Robot1", 3001));
    assert_eq!(
        (answer.status, &answer.json()["known_for_seconds"]),
        (200, &json!(35))
    );
    // The same address again is the same machine, under its newest name.
    assert_eq!(announce(&node, &[], &robot("Robot one", 3001)).status, 200);
    assert_eq!(
        listed(&node),
        [json!({"name": "Robot one", "role": "robot", "url": "http://127.0.0.1:3001"})]
    );
    let policy = policy(&node);
    assert!(
        policy.contains("connect-src 'self' http://127.0.0.1:3001 ws://127.0.0.1:3001;"),
        "{policy}"
    );
    // A file's policy does not: only the page's counts.
    let file = node.get("/console/main.js");
    assert!(!file.header("content-security-policy").contains("3001"));
}

#[test]
fn nonsense_and_pages_and_proxies_announce_nothing() {
    let node = TestNode::start();
    for body in [
        "",
        "[]",
        "{}",
        r#"{"name":"R","role":"robot","url":"http://a b:1"}"#,
    ] {
        assert_eq!(announce(&node, &[], body).status, 400, "{body}");
    }
    let long = robot(&"x".repeat(4_096), 3001);
    assert_eq!(announce(&node, &[], &long).status, 413);
    for header in [
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "same-origin"),
        ("X-Forwarded-For", "192.0.2.1"),
    ] {
        let answer = announce(&node, &[header], &robot("Robot1", 3001));
        assert_eq!(answer.status, 403, "{header:?}");
    }
    assert!(listed(&node).is_empty());
}

#[test]
fn where_a_token_guards_writes_a_machine_shows_it() {
    let node = TestNode::with(Settings {
        write_token: Some(Token::new("open sesame")),
        ..Settings::default()
    });
    assert_eq!(announce(&node, &[], &robot("Robot1", 3001)).status, 401);
    let shown = [("Authorization", "Bearer open sesame")];
    assert_eq!(announce(&node, &shown, &robot("Robot1", 3001)).status, 200);
    assert_eq!(listed(&node).len(), 1);
}

#[test]
fn the_bus_is_shown_to_its_operator_and_where_there_is_one() {
    let without = TestNode::start();
    assert_eq!(without.get("/console/data/bus").status, 404);
    assert_eq!(without.get("/console/data/node").json()["bus"], false);
    let node = TestNode::with(Settings {
        write_token: Some(Token::new("open sesame")),
        bus: Some(BusOverview::new(|| Some(r#"{"online":3}"#.to_owned()))),
        ..Settings::default()
    });
    assert_eq!(node.get("/console/data/node").json()["bus"], true);
    assert_eq!(node.get("/console/data/bus").status, 403);
    let shown = [("Authorization", "Bearer open sesame")];
    let answer = node
        .client()
        .request("GET", "/console/data/bus", &shown, b"");
    assert_eq!((answer.status, &answer.json()["online"]), (200, &json!(3)));
    let starting = TestNode::with(Settings {
        bus: Some(BusOverview::new(|| None)),
        ..Settings::default()
    });
    assert_eq!(starting.get("/console/data/bus").status, 503);
}
