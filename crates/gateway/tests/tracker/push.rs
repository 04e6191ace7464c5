//! Subscriptions (item 48, section 17.4).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    MINUTE, addresses,
    house::{Change, Client, House, Peer, contract, cosigned, settled, verify},
};

/// The record in an event.
fn record(event: &Value) -> Value {
    let message = event["data"]["message"].as_str().unwrap();
    serde_json::from_str::<Value>(message).unwrap()
}

fn subscribe(client: &mut Client, peer: &Peer, topics: Value, from: Option<u64>) -> Value {
    let mut message = json!({"topics": topics});
    if let Some(from) = from {
        message["fromSeq"] = from.into();
    }
    client.told(131_072, &peer.about(message))
}

#[test]
fn a_subscriber_hears_of_its_keys_channels_in_order_and_signed() {
    let house = House::open();
    let (mut client, mut listener) = (house.connect(), house.connect());
    let (payer, payee) = (Peer::ed25519(1), Peer::rsa());
    let pem = listener.told(1, &payee.bare());
    let own = json!([{"pk": payee.pem}]);
    let subscribed = subscribe(&mut listener, &payee, own, None);
    assert_eq!(subscribed["seq"], house.sequence());
    let (spend, income) = addresses(&mut client, &payer, &payee);
    let terms = contract("heard", &spend, &income, 8);
    client.told(8, &cosigned(&payer, &payee, terms.clone()));
    client.told(16, &cosigned(&payer, &payee, settled(terms, 3, 1)));
    let mut last = subscribed["seq"].as_u64().unwrap();
    for (kind, tx_type) in [
        ("address.opened", 2),
        ("channel.opened", 8),
        ("channel.closed", 16),
    ] {
        let event = listener.event();
        assert_eq!(
            (&event["event"], &event["subId"]),
            (&json!(kind), &subscribed["subId"])
        );
        assert!(event.get("corrToken").is_none());
        let sequence = event["seq"].as_u64().unwrap();
        assert!(sequence > last);
        last = sequence;
        verify(pem.as_str().unwrap(), &event["data"]);
        let told = record(&event);
        assert_eq!(
            (&told["event"], &told["seq"]),
            (&json!(kind), &json!(sequence))
        );
        assert_eq!(told["record"]["tx_type"], tx_type);
    }
    let ended = json!({"subId": subscribed["subId"]});
    listener.told(131_073, &payee.about(ended.clone()));
    assert_eq!(listener.refused(131_073, &payee.about(ended)), "not_found");
}

// Item 48.
#[test]
fn a_subscriber_that_comes_back_hears_everything_it_missed_in_order() {
    let house = House::with(Change {
        book: |book| book.open_incomes_max = 10_000,
        ..Change::default()
    });
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    let own = json!([{"pk": peer.pem}]);
    let mut listener = house.connect();
    subscribe(&mut listener, &peer, own.clone(), None);
    for _ in 0..3 {
        client.told(2, &peer.bare());
    }
    let mut seen: Vec<u64> = (0..3)
        .map(|_| listener.event()["seq"].as_u64().unwrap())
        .collect();
    drop(listener);
    for _ in 0..200 {
        client.told(2, &peer.bare());
    }
    let mut listener = house.connect();
    subscribe(&mut listener, &peer, own.clone(), seen.last().copied());
    for _ in 0..5 {
        client.told(2, &peer.bare());
    }
    seen.extend((0..205).map(|_| listener.event()["seq"].as_u64().unwrap()));
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(seen.len(), 208);
    // From the beginning, after a restart.
    let house = house.restart();
    let mut listener = house.connect();
    subscribe(&mut listener, &peer, own, Some(0));
    let again: Vec<u64> = (0..208)
        .map(|_| listener.event()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(again, seen);
}

#[test]
fn a_subscriber_hears_of_the_wallet_what_touched_its_own_key() {
    let house = House::open();
    let mut client = house.connect();
    let (peer, other) = (Peer::ed25519(1), Peer::ed25519(2));
    let wallet = house.get("/api/v1/tracker").1["address"].clone();
    let mut seen = Vec::new();
    for opener in [&peer, &other, &peer] {
        client.told(4, &opener.bare());
        seen.push(house.sequence());
    }
    let mut listener = house.connect();
    subscribe(&mut listener, &peer, json!([{"address": wallet}]), Some(0));
    for sequence in [seen[0], seen[2]] {
        let event = listener.event();
        assert_eq!(
            (&event["event"], &event["seq"]),
            (&json!("address.opened"), &json!(sequence))
        );
    }
}

#[test]
fn a_past_that_takes_too_long_to_find_is_given_up_and_said_so() {
    let house = House::with(Change {
        node: |settings| settings.list_timeout = Duration::ZERO,
        ..Change::default()
    });
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    client.told(2, &peer.bare());
    let mut listener = house.connect();
    subscribe(&mut listener, &peer, json!([{"pk": peer.pem}]), Some(0));
    let event = listener.event();
    assert_eq!(
        (&event["event"], &event["seq"]),
        (&json!("lagged"), &json!(0))
    );
}

#[test]
fn limits_and_locks_that_come_near_are_told() {
    let house = House::open();
    let (mut client, mut listener) = (house.connect(), house.connect());
    let (payer, payee, other) = (Peer::ed25519(1), Peer::ed25519(2), Peer::ed25519(3));
    let (spend, income) = addresses(&mut client, &payer, &payee);
    // Anyone may ask for the state of an address, and be told of it.
    subscribe(&mut listener, &other, json!([{"address": spend}]), None);
    client.told(
        8,
        &cosigned(&payer, &payee, contract("c", &spend, &income, 8)),
    );
    let event = listener.event();
    assert_eq!(event["event"], "address.limit");
    assert_eq!(record(&event)["limit"]["amount"], "6000");
    // What is between others is not shown.
    subscribe(&mut listener, &payee, json!([{"channelId": "c"}]), None);
    house.pass(5 * MINUTE - 20_000);
    let event = listener.event();
    assert_eq!(event["event"], "channel.expiring");
    assert_eq!(record(&event)["channelId"], "c");
    house.pass(20_100);
    let closed = loop {
        let event = listener.event();
        if event["event"] == "channel.closed" {
            break event;
        }
        assert_eq!(event["event"], "address.limit");
    };
    assert_eq!(record(&closed)["cause"], "expiry");
}

#[test]
fn topics_of_other_keys_are_refused_unless_the_log_is_public() {
    let house = House::open();
    let mut client = house.connect();
    let (peer, other) = (Peer::ed25519(1), Peer::ed25519(2));
    let message = json!({"topics": [{"pk": other.pem}]});
    assert_eq!(client.refused(131_072, &peer.about(message)), "not_owner");
    for _ in 0..16 {
        subscribe(&mut client, &peer, json!([{"pk": peer.pem}]), None);
    }
    let message = json!({"topics": [{"pk": peer.pem}]});
    assert_eq!(
        client.refused(131_072, &peer.about(message)),
        "rate_limited"
    );
}

/// Subscriptions of a slow reader: so many frames come of one record.
const SLOW_SUBSCRIPTIONS: usize = 16;
/// Records that are more than its queue and all buffers between it and the node hold, in that many
/// frames of a kilobyte each.
const FLOOD_RECORDS: u64 = 600;

/// A reader that subscribed and then read nothing while records came, and the last record.
fn flooded(house: &House, peer: &Peer) -> (Client, u64) {
    let own = json!([{"pk": peer.pem}]);
    let (mut slow, mut quick) = (house.connect(), house.connect());
    for _ in 0..SLOW_SUBSCRIPTIONS {
        subscribe(&mut slow, peer, own.clone(), None);
    }
    // Who subscribes last hears last: what it has heard was handed to all others before.
    subscribe(&mut quick, peer, own, None);
    let (mut client, mut last) = (house.connect(), 0);
    for _ in 0..FLOOD_RECORDS {
        client.told(2, &peer.bare());
        last = quick.event()["seq"].as_u64().unwrap();
    }
    assert_eq!(last, house.sequence());
    (slow, last)
}

fn many_addresses() -> Change {
    Change {
        book: |book| book.open_incomes_max = 10_000,
        ..Change::default()
    }
}

#[test]
fn a_reader_that_is_too_slow_is_told_once_where_it_stopped_and_gets_nothing_more() {
    let house = House::with(many_addresses());
    let peer = Peer::ed25519(1);
    let before = house.sequence();
    let (mut slow, last) = flooded(&house, &peer);
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    let mut lagged: BTreeMap<String, u64> = BTreeMap::new();
    while lagged.len() < SLOW_SUBSCRIPTIONS {
        let event = slow.event();
        let name = event["subId"].as_str().unwrap().to_owned();
        let sequence = event["seq"].as_u64().unwrap();
        assert!(!lagged.contains_key(&name), "{event}");
        if event["event"] == "lagged" {
            assert_eq!(event["code"], "lagged");
            assert!(event.get("data").is_none(), "it is not signed");
            lagged.insert(name, sequence);
        } else {
            // Nothing is left out before the end.
            let place = reached.entry(name).or_insert(before);
            assert_eq!(sequence, *place + 1);
            *place = sequence;
        }
    }
    assert_eq!(lagged, reached, "the last record that each had is told");
    assert!(lagged.values().all(|place| *place < last));
    // The subscriptions are over: replies come, and no events before them.
    let mut client = house.connect();
    client.told(2, &peer.bare());
    let name = lagged.keys().next().unwrap();
    let ended = peer.about(json!({"subId": name}));
    assert_eq!(slow.refused(131_073, &ended), "not_found");
    assert!(slow.has_no_event());
    // Nor do they count any more.
    subscribe(&mut slow, &peer, json!([{"pk": peer.pem}]), None);
}

#[test]
fn a_reader_that_lagged_resumes_where_it_stopped_without_a_gap() {
    let house = House::with(many_addresses());
    let peer = Peer::ed25519(1);
    let (mut slow, last) = flooded(&house, &peer);
    let (mut name, mut place, mut over) = (None, 0, 0);
    while over < SLOW_SUBSCRIPTIONS {
        let event = slow.event();
        let is_first = *name.get_or_insert(event["subId"].clone()) == event["subId"];
        if event["event"] == "lagged" {
            over += 1;
            if is_first {
                assert_eq!(event["seq"], place);
            }
        } else if is_first {
            place = event["seq"].as_u64().unwrap();
        }
    }
    assert!(place < last);
    let own = json!([{"pk": peer.pem}]);
    subscribe(&mut slow, &peer, own, Some(place));
    let mut client = house.connect();
    client.told(2, &peer.bare());
    for expected in place + 1..=last + 1 {
        assert_eq!(slow.event()["seq"], expected);
    }
}
