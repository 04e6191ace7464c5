//! The general event stream (docs/protocols/events.md).

use std::time::Duration;

use daybook_gateway::Settings;
use daybook_ledger::Transaction;
use serde_json::{Value, json};

use crate::support::{Subscriber, TestNode, alice, bob, create, sale};

const EVENTS: &str = "/api/v1/streams/events";

/// The data of the next event, and its id.
fn server_sent(client: &mut crate::support::Client, gathered: &mut String) -> (String, Value) {
    loop {
        if let Some((event, rest)) = gathered.split_once("\n\n") {
            let field = |name: &str| {
                let found = event.lines().find_map(|line| line.strip_prefix(name));
                found.map(|value| value.trim_start().to_owned())
            };
            let (id, data) = (field("id:"), field("data:"));
            *gathered = rest.to_owned();
            if let (Some(id), Some(data)) = (id, data) {
                return (id, serde_json::from_str(&data).unwrap());
            }
            continue;
        }
        let chunk = client.chunk().expect("the stream goes on");
        gathered.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

fn lamps(node: &TestNode, name: &str, count: usize) -> Vec<Transaction> {
    (0..count)
        .map(|number| node.committed(create(&format!("{name} {number}"), 1)))
        .collect()
}

#[test]
fn an_event_says_who_moved_what_and_where_it_stands() {
    let node = TestNode::start();
    let mut subscriber = node.subscribe(EVENTS);
    let lamp = node.committed(create("an event", 3));
    let sold = node.committed(sale(&lamp, 3, &alice(), &bob()));
    assert_eq!(subscriber.json()["kind"], "asset.create");
    let event = subscriber.json();
    let time = node
        .node
        .store()
        .block(daybook_ledger::Height(2))
        .unwrap()
        .unwrap()
        .block
        .header
        .time
        .0;
    let (from, to) = (
        alice().public_key().to_string(),
        bob().public_key().to_string(),
    );
    let mut keys = vec![lamp.id().to_string(), from.clone(), to.clone()];
    keys.sort();
    let expected = json!({
        "position": "2.0",
        "time": time,
        "kind": "asset.transfer",
        "id": sold.id().to_string(),
        "keys": keys,
        "body": {
            "asset": lamp.id().to_string(),
            "inputs": [{"owners": [from], "spends": format!("{}:0", lamp.id())}],
            "outputs": [{"amount": "3", "owners": [to]}],
        },
    });
    assert_eq!(event, expected);
}

#[test]
fn a_stream_resumes_behind_the_last_event_without_gap_or_repeat() {
    let node = TestNode::start();
    let made = lamps(&node, "resumed", 6);
    let ids = |subscriber: &mut Subscriber, count: usize| -> Vec<String> {
        let read = |_| subscriber.json()["id"].as_str().unwrap().to_owned();
        (0..count).map(read).collect()
    };
    let expected: Vec<String> = made.iter().map(|made| made.id().to_string()).collect();
    let all = ids(&mut node.subscribe(&format!("{EVENTS}?from=0")), 6);
    assert_eq!(all, expected);
    for (place, height) in (1..=6).enumerate() {
        let rest = expected.len() - place;
        let at = ids(
            &mut node.subscribe(&format!("{EVENTS}?from={height}.0")),
            rest,
        );
        assert_eq!(at, expected[place..]);
        let behind = ids(
            &mut node.subscribe(&format!("{EVENTS}?after={height}.0")),
            rest - 1,
        );
        assert_eq!(behind, expected[place + 1..]);
    }
    let mut live = node.subscribe(&format!("{EVENTS}?after=6.0"));
    let next = lamps(&node, "resumed, live", 1);
    assert_eq!(live.json()["id"], next[0].id().to_string());
}

#[test]
fn filters_by_kind_and_key_leave_out_the_rest() {
    let node = TestNode::start();
    let lamp = node.committed(create("filtered", 1));
    let sold = node.committed(sale(&lamp, 1, &alice(), &bob()));
    lamps(&node, "filtered, and others", 3);
    let last = node.committed(create("filtered, last", 1));
    let first_two = |query: &str| {
        let mut subscriber = node.subscribe(&format!("{EVENTS}?from=0&{query}"));
        [
            subscriber.json()["id"].clone(),
            subscriber.json()["id"].clone(),
        ]
    };
    let (lamp, sold) = (lamp.id().to_string(), sold.id().to_string());
    assert_eq!(first_two(&format!("key={lamp}")), [&lamp[..], &sold]);
    assert_eq!(
        first_two(&format!(
            "kind=asset.transfer,tracker&key={lamp}&kind=asset.create"
        )),
        [&lamp[..], &sold]
    );
    let mut bobs = node.subscribe(&format!("{EVENTS}?from=0&key={}", bob().public_key()));
    assert_eq!(bobs.json()["id"], sold);
    let mut transfers = node.subscribe(&format!("{EVENTS}?from=0&kind=asset.transfer"));
    assert_eq!(transfers.json()["id"], sold);
    let mut created = node.subscribe(&format!("{EVENTS}?from=6.0&kind=asset"));
    assert_eq!(created.json()["id"], last.id().to_string());
}

#[test]
fn the_heartbeat_says_from_where_to_come_back() {
    let node = TestNode::with(Settings {
        ping_interval: Duration::from_millis(50),
        ..Settings::default()
    });
    lamps(&node, "beating", 2);
    let mut subscriber = node.subscribe(&format!("{EVENTS}?kind=tracker&from=1"));
    assert_eq!(subscriber.json()["notice"], "head");
    while subscriber.json() != json!({"notice": "head", "from": "3.0"}) {}
    let mut noticed = node.subscribe(&format!("{EVENTS}?kind=tracker&from=0&notices=true"));
    while noticed.json() != json!({"notice": "caught_up", "from": "3.0"}) {}
}

#[test]
fn bad_parameters_are_refused() {
    let node = TestNode::start();
    for query in [
        "from=1&after=1",
        "from=x",
        "from=+1",
        "after=1.x",
        "from=99",
        "notices=maybe",
        "kinds=asset",
        &format!("key={}", vec!["k"; 65].join(",")),
    ] {
        let Err(answer) = Subscriber::open(node.streams, &format!("{EVENTS}?{query}")) else {
            panic!("{query} was accepted");
        };
        assert_eq!(answer.status, 400, "{query}");
        let answer = node.get(&format!("{EVENTS}?{query}"));
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[test]
fn server_sent_events_are_the_same_and_resume_by_their_id() {
    let node = TestNode::start();
    let made = lamps(&node, "server-sent", 3);
    let mut frames = node.subscribe(&format!("{EVENTS}?from=0"));
    let mut client = node.client();
    client.send("GET", &format!("{EVENTS}?from=0"), &[], b"");
    let head = client.head();
    assert_eq!(
        (
            head.status,
            head.header("content-type"),
            head.header("cache-control")
        ),
        (200, "text/event-stream", "no-store")
    );
    let mut gathered = String::new();
    for made in &made {
        let (id, event) = server_sent(&mut client, &mut gathered);
        assert_eq!(event, frames.json());
        assert_eq!(
            (&event["position"], &event["id"]),
            (&json!(id), &json!(made.id().to_string()))
        );
    }
    let live = lamps(&node, "server-sent, live", 1);
    let (id, event) = server_sent(&mut client, &mut gathered);
    assert_eq!(
        (id.as_str(), &event["id"]),
        ("4.0", &json!(live[0].id().to_string()))
    );

    let mut again = node.client();
    again.send(
        "GET",
        &format!("{EVENTS}?from=0"),
        &[("Last-Event-ID", "2.0")],
        b"",
    );
    again.head();
    let (id, _) = server_sent(&mut again, &mut String::new());
    assert_eq!(id, "3.0");
}

#[test]
fn a_stopping_node_ends_its_streams() {
    let mut node = TestNode::start();
    let mut subscriber = node.subscribe(EVENTS);
    let mut client = node.client();
    client.send("GET", EVENTS, &[], b"");
    client.head();
    assert!(client.chunk().is_some());
    node.stop_gateway();
    assert_eq!(subscriber.close_code(), 1001);
    assert_eq!(client.chunk(), None);
}
