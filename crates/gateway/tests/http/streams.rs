//! Checklist items 52 to 55, and what streams offer beyond them.

use std::{io::Write, net::TcpStream, thread, time::Duration};

use daybook_gateway::Settings;
use daybook_ledger::{Draft, Transaction, json::Object};
use daybook_wire::assets::Dialect;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::{
    Answer, Client, PATIENCE, Subscriber, TestNode, alice, bob, create, sale, shared,
};

const TRANSACTIONS: &str = "/api/v1/streams/valid_transactions";
const BLOCKS: &str = "/api/v1/streams/valid_blocks";
const REJECTED: &str = "/api/v1/streams/rejected_transactions";

fn refusal(address: std::net::SocketAddr, path: &str) -> Answer {
    match Subscriber::open(address, path) {
        Ok(_) => panic!("{path} was accepted"),
        Err(answer) => answer,
    }
}

#[test]
fn item_52_everything_taken_appears_once_in_block_order_and_is_readable_when_announced() {
    let node = TestNode::start();
    let mut subscriber = node.subscribe(TRANSACTIONS);
    let made: Vec<Transaction> = (0..10)
        .map(|number| create(&format!("item 52 {number}"), 1))
        .collect();
    let mut client = node.client();
    for transaction in &made {
        let answer = client.request("POST", "/api/v1/transactions", &[], transaction.canonical());
        assert_eq!(answer.status, 202);
    }
    let mut seen = Vec::new();
    let mut last = (0, 0);
    for _ in &made {
        let frame = subscriber.json();
        let id = frame["transaction_id"].as_str().unwrap().to_owned();
        assert_eq!(frame["asset_id"], id);
        assert_eq!(frame["asset_ids"], json!([id]));
        let position = (
            frame["height"].as_u64().unwrap(),
            frame["index"].as_u64().unwrap(),
        );
        assert!(
            last < (position.0, position.1 + 1),
            "{last:?} then {position:?}"
        );
        last = (position.0, position.1 + 1);
        assert_eq!(
            client.get(&format!("/api/v1/transactions/{id}")).status,
            200
        );
        let blocks = client
            .get(&format!("/api/v1/blocks?transaction_id={id}"))
            .json();
        assert_eq!(blocks, json!([position.0]));
        seen.push(id);
    }
    seen.sort();
    let mut expected: Vec<String> = made.iter().map(|made| made.id().to_string()).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn a_transfer_is_announced_under_its_asset() {
    let node = TestNode::start();
    let mut subscriber = node.subscribe(TRANSACTIONS);
    let lamp = node.committed(create("announced", 1));
    let sale = node.committed(sale(&lamp, 1, &alice(), &bob()));
    subscriber.json();
    let text = subscriber.text();
    let expected = format!(
        "{{\"height\": 2, \"asset_id\": \"{0}\", \"asset_ids\": [\"{0}\"], \"transaction_id\": \"{1}\", \
         \"index\": 0}}",
        lamp.id(),
        sale.id()
    );
    assert_eq!(text, expected);
}

#[test]
fn item_53_blocks_are_announced_with_height_hash_and_ids() {
    let node = TestNode::start();
    let mut subscriber = node.subscribe(BLOCKS);
    let lamp = node.committed(create("item 53", 1));
    let frame = subscriber.json();
    let block = node.get("/api/v1/blocks/1").json();
    assert_eq!(
        frame,
        json!({"height": 1, "hash": block["app_hash"], "transaction_ids": [lamp.id().to_string()]})
    );
}

#[test]
fn item_54_what_a_client_sends_changes_nothing_and_a_ping_gets_its_pong() {
    let node = TestNode::start();
    let mut subscriber = node.subscribe(TRANSACTIONS);
    subscriber.send("{\"nope");
    subscriber.send("");
    subscriber
        .0
        .send(Message::binary(vec![0; 3 << 20]))
        .unwrap();
    subscriber
        .0
        .send(Message::Ping(Bytes::from_static(b"abc")))
        .unwrap();
    assert_eq!(
        subscriber.0.read().unwrap(),
        Message::Pong(Bytes::from_static(b"abc"))
    );
    let lamp = node.committed(create("item 54", 1));
    assert_eq!(subscriber.json()["transaction_id"], lamp.id().to_string());
}

#[test]
fn item_55_a_subscriber_that_never_reads_delays_nobody() {
    /// More frames than the socket's buffers and what is kept for one subscriber can hold.
    const MANY: usize = 12_000;
    let node = TestNode::start();
    let mut stuck = Subscriber::with_small_buffer(node.streams, TRANSACTIONS);
    let mut attentive = node.subscribe(TRANSACTIONS);
    let mut batch = Vec::new();
    for number in 0..MANY {
        batch.extend_from_slice(create(&format!("item 55 {number}"), 1).canonical());
        batch.push(b'\n');
    }
    let reading = thread::spawn(move || {
        (0..MANY).for_each(|_| drop(attentive.text()));
        attentive
    });
    let path = "/api/v1/transactions/batch?ack=accepted";
    assert_eq!(node.client().request("POST", path, &[], &batch).status, 200);
    let mut attentive = reading.join().unwrap();
    let last = node.committed(create("item 55, a commit", 1));
    assert_eq!(attentive.json()["transaction_id"], last.id().to_string());
    // When it reads at last, it gets everything, from the store where memory has forgotten it.
    for _ in 0..MANY {
        stuck.text();
    }
    assert_eq!(stuck.json()["transaction_id"], last.id().to_string());
}

#[test]
fn a_stream_is_replayed_from_a_height_or_a_place_and_goes_on_live() {
    let node = TestNode::start();
    let made: Vec<Transaction> = (0..5)
        .map(|number| node.committed(create(&format!("replay {number}"), 1)))
        .collect();
    let id = |frame: &Value| frame["transaction_id"].as_str().unwrap().to_owned();
    for (from, first) in [
        ("0", 0),
        ("1", 0),
        ("3", 2),
        ("3.0", 2),
        ("3.1", 3),
        ("6", 5),
    ] {
        let mut subscriber = node.subscribe(&format!("{TRANSACTIONS}?from={from}"));
        for made in &made[first..] {
            assert_eq!(id(&subscriber.json()), made.id().to_string(), "from={from}");
        }
    }
    let mut subscriber = node.subscribe(&format!("{TRANSACTIONS}?from=5"));
    assert_eq!(id(&subscriber.json()), made[4].id().to_string());
    let live = node.committed(create("replay, live", 1));
    assert_eq!(id(&subscriber.json()), live.id().to_string());
    let mut blocks = node.subscribe(&format!("{BLOCKS}?from=2"));
    for height in 2..=6 {
        assert_eq!(blocks.json()["height"], height);
    }
}

#[test]
fn a_stream_without_from_begins_with_what_commits_next() {
    let node = TestNode::start();
    node.committed(create("before", 1));
    let mut subscriber = node.subscribe(TRANSACTIONS);
    let after = node.committed(create("after", 1));
    assert_eq!(subscriber.json()["transaction_id"], after.id().to_string());
}

#[test]
fn filters_let_through_what_meets_all_of_them() {
    let node = TestNode::start();
    let lamp = node.committed(create("filtered", 1));
    let sale = node.committed(sale(&lamp, 1, &alice(), &bob()));
    let other = node.committed(
        Draft::create(Object::from_iter([("name", "other")]))
            .output(1, &bob())
            .sign(&[&bob()])
            .unwrap(),
    );
    let end = node.committed(create("the end", 1));
    let (a, b) = (alice().public_key(), bob().public_key());
    let of = |filters: String, count: usize| -> Vec<String> {
        let mut subscriber = node.subscribe(&format!("{TRANSACTIONS}?from=1&{filters}"));
        (0..count)
            .map(|_| {
                subscriber.json()["transaction_id"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let ids = |made: &[&Transaction]| -> Vec<String> {
        made.iter().map(|made| made.id().to_string()).collect()
    };
    assert_eq!(of(format!("public_key={b}"), 2), ids(&[&sale, &other]));
    // A seller is among the owners before.
    assert_eq!(of(format!("public_key={a}"), 3), ids(&[&lamp, &sale, &end]));
    assert_eq!(
        of(format!("asset_id={}", lamp.id()), 2),
        ids(&[&lamp, &sale])
    );
    assert_eq!(of("operation=transfer".to_owned(), 1), ids(&[&sale]));
    assert_eq!(
        of(format!("public_key={b}&operation=CREATE"), 1),
        ids(&[&other])
    );
    assert_eq!(
        of(format!("from=9&asset_id={}&public_key={b}", lamp.id()), 1),
        ids(&[&sale])
    );
}

#[test]
fn bad_stream_parameters_are_refused_before_the_upgrade() {
    for (path, name) in [
        (format!("{TRANSACTIONS}?from=x"), "from"),
        (format!("{TRANSACTIONS}?from=-1"), "from"),
        (format!("{TRANSACTIONS}?from=1."), "from"),
        (format!("{TRANSACTIONS}?from=1.2.3"), "from"),
        (format!("{TRANSACTIONS}?from="), "from"),
        (
            format!("{TRANSACTIONS}?from=99999999999999999999999"),
            "from",
        ),
        (format!("{TRANSACTIONS}?from=1000000"), "from"),
        (format!("{BLOCKS}?from=1.1"), "from"),
        (format!("{TRANSACTIONS}?public_key=abc"), "public_key"),
        (format!("{TRANSACTIONS}?asset_id=abc"), "asset_id"),
        (format!("{TRANSACTIONS}?operation=DESTROY"), "operation"),
        (format!("{TRANSACTIONS}?notices=1"), "notices"),
        (format!("{BLOCKS}?operation=CREATE"), "operation"),
    ] {
        for address in [shared().streams, shared().api] {
            let answer = refusal(address, &path);
            assert_eq!(answer.status, 400, "{path}");
            assert!(
                answer.json()["message"][name].is_string(),
                "{path}: {}",
                answer.text()
            );
        }
    }
    let answer = refusal(shared().streams, &format!("{TRANSACTIONS}?form=5"));
    assert_eq!(answer.json(), json!({"message": "Unknown arguments: form"}));
}

#[test]
fn a_stream_is_a_websocket_at_its_exact_path_and_nothing_else() {
    for address in [shared().streams, shared().api] {
        let mut client = Client::to(address);
        for path in [TRANSACTIONS, BLOCKS, REJECTED] {
            assert_eq!(client.get(path).status, 400, "{path}");
            assert_eq!(client.request("HEAD", path, &[], b"").status, 400, "{path}");
        }
        let upgrade = |version| {
            [
                ("Connection", "keep-alive, Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", version),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ]
        };
        let answer = client.request("GET", TRANSACTIONS, &upgrade("8"), b"");
        assert_eq!(
            (answer.status, answer.header("sec-websocket-version")),
            (426, "13")
        );
        for path in [
            "/api/v1/streams/valid_transactions/",
            "/api/v1//streams/valid_transactions",
        ] {
            assert_eq!(
                client.request("GET", path, &upgrade("13"), b"").status,
                404,
                "{path}"
            );
        }
        // The example of RFC 6455, section 1.3.
        let answer = client.request("GET", TRANSACTIONS, &upgrade("13"), b"");
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (101, "SWITCHING PROTOCOLS")
        );
        assert_eq!(
            answer.header("sec-websocket-accept"),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}

#[test]
fn a_transaction_that_was_taken_and_lost_is_announced_and_has_a_status() {
    let node = TestNode::start();
    let mut subscriber = node.subscribe(REJECTED);
    let lamp = create("lost", 1);
    // Both are sound when they are taken, and only one can win.
    let rivals = [
        sale(&lamp, 1, &alice(), &bob()),
        sale(&lamp, 1, &alice(), &alice()),
    ];
    let texts = [&lamp, &rivals[0], &rivals[1]].map(|made| &made.canonical()[..]);
    let path = "/api/v1/transactions/batch?ack=accepted";
    let answer = node
        .client()
        .request("POST", path, &[], &texts.join(&b'\n'));
    assert_eq!(
        answer.text().matches("\"status\":\"accepted\"").count(),
        3,
        "{}",
        answer.text()
    );
    let frame = subscriber.json();
    let lost = rivals[1].id().to_string();
    let message = format!(
        "Invalid transaction (DoubleSpend): input `{}` was already spent",
        lamp.id()
    );
    assert_eq!(frame["transaction_id"], lost);
    assert_eq!(
        (frame["class"].clone(), frame["message"].clone()),
        (json!("DoubleSpend"), json!(message))
    );
    let status = node
        .get(&format!("/api/v1/transactions/{lost}/status"))
        .json();
    assert_eq!(
        status,
        json!({"transaction_id": lost, "status": "rejected", "height": frame["height"],
            "class": "DoubleSpend", "message": message})
    );
    assert_eq!(
        node.get(&format!("/api/v1/transactions/{lost}")).status,
        404
    );
    // It can be heard again.
    let mut late = node.subscribe(&format!("{REJECTED}?from=1"));
    assert_eq!(late.json(), frame);
}

#[test]
fn notices_come_only_when_asked_for() {
    let node = TestNode::with(Settings {
        ping_interval: Duration::from_millis(50),
        ..Settings::default()
    });
    let lamp = node.committed(create("notices", 1));
    let mut subscriber = node.subscribe(&format!("{TRANSACTIONS}?from=1&notices=true"));
    assert_eq!(subscriber.json()["transaction_id"], lamp.id().to_string());
    assert_eq!(
        subscriber.json(),
        json!({"notice": "caught_up", "height": 1})
    );
    assert_eq!(subscriber.json(), json!({"notice": "head", "height": 1}));
    let mut live = node.subscribe(&format!("{TRANSACTIONS}?notices=true"));
    assert_eq!(live.json(), json!({"notice": "caught_up", "height": 1}));
    // A plain subscriber is pinged, and hears only events.
    let mut plain = node.subscribe(TRANSACTIONS);
    assert_eq!(plain.0.read().unwrap(), Message::Ping(Bytes::new()));
    let next = node.committed(create("notices, next", 1));
    assert_eq!(plain.json()["transaction_id"], next.id().to_string());
}

#[test]
fn a_client_that_breaks_the_protocol_is_closed_with_the_code_for_it() {
    let node = TestNode::start();
    for (bytes, code) in [
        (&b"\x81\x01x"[..], 1002),
        (b"\xf1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
    ] {
        let mut subscriber = node.subscribe(TRANSACTIONS);
        subscriber.0.get_mut().write_all(bytes).unwrap();
        assert_eq!(subscriber.close_code(), code, "{bytes:?}");
    }
    let mut subscriber = node.subscribe(TRANSACTIONS);
    subscriber.0.close(None).unwrap();
    subscriber.close_code();
}

#[test]
fn streams_close_with_1001_when_the_node_stops() {
    let mut node = TestNode::start();
    let mut subscribers = [TRANSACTIONS, BLOCKS, REJECTED].map(|path| node.subscribe(path));
    node.stop_gateway();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.close_code(), 1001);
    }
}

#[test]
fn a_thousand_subscribers_get_every_frame_in_order() {
    let node = TestNode::start();
    let streams: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut client = Client::to(node.streams);
            let headers = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            assert_eq!(
                client.request("GET", TRANSACTIONS, &headers, b"").status,
                101
            );
            client.into_stream()
        })
        .collect();
    for number in 0..3 {
        node.committed(create(&format!("thousand {number}"), 1));
    }
    let mut first: Option<Vec<u8>> = None;
    for mut stream in streams {
        // Three frames of equal length, each with a header of four bytes.
        let mut frames = vec![0; first.as_ref().map_or(4, Vec::len)];
        std::io::Read::read_exact(&mut stream, &mut frames).unwrap();
        let Some(first) = &first else {
            let length = 4 + usize::from(u16::from_be_bytes([frames[2], frames[3]]));
            frames.resize(3 * length, 0);
            std::io::Read::read_exact(&mut stream, &mut frames[4..]).unwrap();
            first = Some(frames);
            continue;
        };
        assert_eq!(*first, frames);
    }
}

#[test]
fn streams_are_the_same_in_both_dialects() {
    assert_eq!(Dialect::default(), Dialect::Classic);
    let mut subscriber = Subscriber::open(shared().v2, TRANSACTIONS).unwrap();
    let lamp = shared().committed(create("dialects", 1));
    while subscriber.json()["transaction_id"] != lamp.id().to_string() {}
}

#[test]
fn subscribers_that_read_from_the_store_take_turns_in_the_smallest_room() {
    // Nothing is kept in memory, and there is room for one block at a time.
    let settings = Settings {
        buffer_bytes_max: 0,
        ..Settings::default()
    };
    let node = TestNode::with_options(settings, None, |options| options.recent_bytes_max = 0);
    let made: Vec<String> = (0..30)
        .map(|number| {
            node.committed(create(&format!("turn {number}"), 1))
                .id()
                .to_string()
        })
        .collect();
    let key = alice().public_key();
    thread::scope(|scope| {
        for filter in [String::new(), format!("&public_key={key}")] {
            for _ in 0..10 {
                let (node, made) = (&node, &made);
                let query = format!("?from=1{filter}");
                scope.spawn(move || {
                    let mut subscriber = node.subscribe(&format!("{TRANSACTIONS}{query}"));
                    for id in made {
                        assert_eq!(subscriber.json()["transaction_id"], id.as_str());
                    }
                });
            }
        }
    });
}

#[test]
fn a_slow_reader_holds_no_room_that_others_wait_for() {
    // Nothing is kept in memory, and there is room for one block at a time.
    let settings = Settings {
        buffer_bytes_max: 0,
        list_patience: Duration::from_millis(100),
        list_rate_min: 1 << 40,
        ping_interval: Duration::from_secs(1),
        stall_timeout: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let node = TestNode::with_options(settings, None, |options| options.recent_bytes_max = 0);
    // Together their events are longer than all buffers between the node and a client that reads nothing.
    for block in 0..20 {
        let mut hoard = Draft::create(Object::from_iter([("name", format!("hoard {block}"))]));
        for amount in 1..=3_500 {
            hoard = hoard.output(amount, &alice());
        }
        node.committed(hoard.sign(&[&alice()]).unwrap());
    }
    let events = "/api/v1/streams/events?from=1";
    let mut slow = Subscriber::with_small_buffer(node.streams, events);
    // Between events there are heartbeats, which have no position: one a second while it waits.
    let event = |subscriber: &mut Subscriber| {
        let frames = (0..PATIENCE.as_secs()).map(|_| subscriber.json());
        let mut positions = frames.filter_map(|frame| Some(frame["position"].as_str()?.to_owned()));
        positions.next().expect("it has room at last")
    };
    assert_eq!(event(&mut slow), "1.0", "it has begun");
    let mut quick = node.subscribe(events);
    for height in 1..=20 {
        assert_eq!(event(&mut quick), format!("{height}.0"));
    }
    drop(slow);
}
