//! Listings and their cursors (items 36 to 39, section 17.11).

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    MINUTE,
    house::{Change, Client, House, Peer, contract, cosigned},
};

fn sequence_of(items: &Value) -> Vec<String> {
    let items = items["items"].as_array().unwrap();
    let id = |item: &Value| item["tx_id"].as_str().unwrap().to_owned();
    items.iter().map(id).collect()
}

fn open_incomes(client: &mut Client, peer: &Peer, count: usize) {
    for _ in 0..count {
        client.told(2, &peer.bare());
    }
}

fn many(change: fn(&mut daybook_gateway::TrackerSettings)) -> House {
    House::with(Change {
        book: |book| book.open_incomes_max = 10_000,
        gateway: change,
        ..Change::default()
    })
}

// Item 36.
#[test]
fn the_first_page_is_of_twenty_newest_first_with_exact_counts() {
    let house = many(|_| {});
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    open_incomes(&mut client, &peer, 41);
    let first = client.told(1024, &peer.about(json!({})));
    let meta = &first["_meta"];
    assert_eq!(
        (
            &meta["totalCount"],
            &meta["pageCount"],
            &meta["currentPage"],
            &meta["perPage"]
        ),
        (&json!(41), &json!(3), &json!(1), &json!(20))
    );
    let items = first["items"].as_array().unwrap();
    assert_eq!(items.len(), 20);
    let time = |item: &Value| item["timestamp"].as_u64().unwrap();
    assert!(
        items
            .windows(2)
            .all(|pair| time(&pair[0]) >= time(&pair[1]))
    );
    let beyond = json!({"cursorId": meta["cursorId"], "page": 4});
    assert_eq!(client.told(2048, &peer.about(beyond)), json!({"items": []}));
    let beyond = json!({"limits": {"page": 9, "pageSize": 20}});
    assert_eq!(client.told(1024, &peer.about(beyond))["items"], json!([]));
    let all = client.told(
        1024,
        &peer.about(json!({"limits": {"page": 1, "pageSize": -1}})),
    );
    assert_eq!(all["items"].as_array().unwrap().len(), 41);
}

// Items 37 and 39 in part.
#[test]
fn pages_of_one_cursor_are_the_frozen_list_while_new_records_come() {
    let house = many(|_| {});
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    open_incomes(&mut client, &peer, 25);
    for order in [1, 2] {
        let asked = json!({"order": order, "limits": {"page": 1, "pageSize": 7}});
        let first = client.told(1024, &peer.about(asked));
        let total = first["_meta"]["totalCount"].as_u64().unwrap();
        let mut gathered = Vec::new();
        for page in 1..=first["_meta"]["pageCount"].as_u64().unwrap() {
            open_incomes(&mut client, &peer, 1);
            let asked = json!({"cursorId": first["_meta"]["cursorId"], "page": page});
            let told = client.told(2048, &peer.about(asked));
            if page == 1 {
                assert_eq!(told["items"], first["items"]);
            }
            gathered.extend(sequence_of(&told));
        }
        let distinct: BTreeSet<&String> = gathered.iter().collect();
        assert_eq!(
            (gathered.len() as u64, distinct.len() as u64),
            (total, total)
        );
        let asked = json!({"order": order, "limits": {"page": 1, "pageSize": 1000}});
        let all = sequence_of(&client.told(1024, &peer.about(asked)));
        let expected = if order == 1 {
            &all[..gathered.len()]
        } else {
            &all[all.len() - gathered.len()..]
        };
        assert_eq!(gathered, expected);
    }
}

// Item 38.
#[test]
fn a_cursor_dies_after_five_idle_minutes_unless_it_is_updated() {
    let house = House::open();
    let mut client = house.connect();
    let (peer, other) = (Peer::ed25519(1), Peer::ed25519(2));
    let cursor = |client: &mut Client| {
        client.told(1024, &peer.about(json!({})))["_meta"]["cursorId"].clone()
    };
    let (kept, left) = (cursor(&mut client), cursor(&mut client));
    house.pass(4 * MINUTE);
    client.told(4096, &peer.about(json!({"cursorId": kept})));
    house.pass(90_001);
    let next = |cursor: &Value| json!({"cursorId": cursor, "page": 1});
    client.told(2048, &peer.about(next(&kept)));
    let reply = client.ask(2048, &peer.about(next(&left)));
    assert_eq!(
        (&reply["error"], &reply["code"]),
        (&json!("query not find"), &json!("cursor_unknown"))
    );
    assert_eq!(
        client.refused(2048, &other.about(next(&kept))),
        "cursor_unknown"
    );
    let zero = json!({"cursorId": kept, "page": 0});
    assert_eq!(client.refused(2048, &peer.about(zero)), "bad_message");
}

// Section 17.11.
#[test]
fn a_listing_shows_only_what_touches_the_callers_key_unless_the_log_is_public() {
    let house = House::open();
    let mut client = house.connect();
    let (payer, payee, other) = (Peer::ed25519(1), Peer::ed25519(2), Peer::ed25519(3));
    let (spend, income) = crate::addresses(&mut client, &payer, &payee);
    client.told(
        8,
        &cosigned(&payer, &payee, contract("c", &spend, &income, 1)),
    );
    let mut total = |peer: &Peer, message: Value| {
        client.told(1024, &peer.about(message))["_meta"]["totalCount"].clone()
    };
    assert_eq!(total(&payer, json!({})), 2);
    assert_eq!(total(&payee, json!({})), 2);
    assert_eq!(total(&other, json!({})), 0);
    let by_channel = json!({"fields": {"channel_id": {"value": "c"}}});
    assert_eq!(total(&payee, by_channel.clone()), 1);
    assert_eq!(total(&other, by_channel), 0);
    drop(house);

    let house = many(|tracker| tracker.public_log = true);
    let mut client = house.connect();
    open_incomes(&mut client, &payer, 3);
    let mut total =
        |message: Value| client.told(1024, &other.about(message))["_meta"]["totalCount"].clone();
    // The first deposit is a record, too.
    assert_eq!(total(json!({})), 4);
    assert_eq!(total(json!({"fields": {"tx_type": {"value": 2}}})), 3);
    assert_eq!(
        total(json!({"fields": {"tx_type": {"value": 2}, "status": {"value": 0}}})),
        0
    );
    assert_eq!(total(json!({"fields": {"tx_type": {"value": 512}}})), 0);
}

#[test]
fn a_listing_by_an_empty_field_finds_the_records_that_leave_it_empty() {
    let house = many(|tracker| tracker.public_log = true);
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    open_incomes(&mut client, &peer, 2);
    let mut total = |name: &str| {
        let fields = json!({"fields": {name: {"value": ""}}});
        client.told(1024, &peer.about(fields))["_meta"]["totalCount"].clone()
    };
    // A deposit comes from no address of the tracker's.
    assert_eq!(total("from"), 1);
    assert_eq!(total("channel_id"), 3);
    assert_eq!(total("to"), 0);
}

#[test]
fn a_listing_that_takes_too_long_is_given_up_and_says_so() {
    let house = House::with(Change {
        node: |settings| settings.list_timeout = Duration::ZERO,
        ..Change::default()
    });
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    client.told(2, &peer.bare());
    assert_eq!(client.refused(1024, &peer.about(json!({}))), "rate_limited");
}

// Item 39.
#[test]
fn every_record_has_an_id_of_its_own_also_those_of_one_sweep() {
    let house = many(|_| {});
    let mut client = house.connect();
    let peer = Peer::ed25519(1);
    open_incomes(&mut client, &peer, 30);
    let before = house.sequence();
    house.pass(31 * MINUTE);
    house.recorded(before + 30);
    let asked = json!({"limits": {"page": 1, "pageSize": 1000}});
    let listed = client.told(1024, &peer.about(asked));
    let ids = sequence_of(&listed);
    assert_eq!(ids.len(), 60);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 60);
    let times: Vec<u64> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["timestamp"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    // Commands and records number closing the other way round.
    let types: BTreeSet<u64> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["tx_type"].as_u64().unwrap())
        .collect();
    assert_eq!(types, BTreeSet::from([2, 64]));
}
