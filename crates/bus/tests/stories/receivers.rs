//! Who gets a request: subscriptions, groups, slow and lost receivers (service bus, sections 6 and 10).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use daybook_bus::{ConnId, Event, Settings};
use serde_json::{Value, json};

use crate::world::{World, error_code};

#[test]
fn c15_an_old_client_hears_everything_until_it_subscribes() {
    let mut world = World::new();
    world.service(1, "meter");
    world.legacy(2, "old");
    world.request(1, "a", "one.thing", json!({}));
    assert_eq!(world.hear_one(2).0, "one.thing");
    world.subscribe(2, json!({"name": "another"}));
    world.request(1, "b", "one.thing", json!({}));
    assert!(world.hear(2).is_empty());
    world.request(1, "c", "another", json!({}));
    assert_eq!(world.hear_one(2).0, "another");
}

#[test]
fn an_old_client_alone_gets_its_own_request() {
    let mut world = World::new();
    world.legacy(1, "old");
    world.request(1, "a", "x", json!({}));
    assert_eq!(world.hear_one(1).0, "x");
}

#[test]
fn c16_a_group_shares_the_work_and_a_plain_subscriber_sees_all_of_it() {
    let mut world = World::new();
    world.service(1, "meter");
    for conn in 2..=4 {
        world.service(conn, "grid");
        world.subscribe(conn, json!({"name": "grid.read", "queue": "workers"}));
    }
    world.service(5, "auditor");
    world.subscribe(5, json!({"name": "grid.>"}));
    for n in 0..300 {
        world.request(1, &format!("r{n}"), "grid.read", json!({}));
    }
    assert_eq!(world.hear(5).len(), 300);
    for conn in 2..=4 {
        assert_eq!(world.hear(conn).len(), 100);
    }
}

#[test]
fn c17_one_reaches_one_and_all_reaches_every_instance_once() {
    let mut world = World::new();
    world.service(1, "meter");
    for conn in 2..=4 {
        world.service(conn, "grid");
        world.subscribe(conn, json!({"name": "grid.read", "queue": "workers"}));
        world.subscribe(conn, json!({"name": "grid.*"}));
    }
    world.service(5, "auditor");
    world.subscribe(5, json!({"name": "grid.read"}));
    world.request(1, "a", "grid.read", json!({"delivery": "one"}));
    let heard: Vec<usize> = (2..=5).map(|conn| world.hear(conn).len()).collect();
    assert_eq!(heard.iter().sum::<usize>(), 1);
    assert_eq!(heard[3], 0, "groups go before plain subscribers");
    world.request(1, "b", "grid.read", json!({"delivery": "all"}));
    assert!((2..=5).all(|conn| world.hear(conn).len() == 1));
}

#[test]
fn c20_the_work_of_a_lost_worker_is_done_by_others_if_the_caller_allows() {
    for retry in [true, false] {
        let mut world = World::new();
        world.service(1, "meter");
        for conn in 2..=4 {
            world.service(conn, "grid");
            let body = json!({"name": "grid.read", "queue": "w", "max_in_flight": 60});
            world.subscribe(conn, body);
        }
        for n in 0..150 {
            let more = json!({"retry": retry, "delivery": "one"});
            world.request(1, &format!("r{n}"), "grid.read", more);
        }
        assert_eq!(world.inbox[&2].len(), 50);
        world.lose(2);
        let heard = world.hear(1);
        if !retry {
            assert_eq!(heard.len(), 50);
            assert!(heard.iter().all(|h| error_code(h) == "recipient_gone"));
            continue;
        }
        assert!(heard.is_empty());
        // Both had room for ten more each; the rest waits until they answer.
        let mut answers = 0;
        while answers < 150 {
            for conn in [3, 4] {
                for (_, request) in world.hear(conn) {
                    world.answer(conn, &request, json!(conn));
                }
            }
            let heard = world.hear(1);
            assert!(!heard.is_empty() && heard.iter().all(|h| h.1["data"].is_number()));
            answers += heard.len();
        }
        assert_eq!(answers, 150);
    }
}

#[test]
fn c21_repeating_and_ending_subscriptions_is_harmless() {
    let mut world = World::new();
    world.service(1, "grid");
    for _ in 0..3 {
        world.subscribe(1, json!({"name": "grid.read"}));
        assert_eq!(world.ack(1), json!({"ok": true, "name": "grid.read"}));
    }
    world.subscribe(1, json!({"name": "grid.write"}));
    world.say(
        1,
        "_service:api:request:unsubscribe",
        json!({"name": "grid.read"}),
    );
    let services = world.bus.services();
    assert_eq!(services[0].json["subscribed_events"], json!(["grid.write"]));
    world.hear(1);
    for body in [Value::Null, json!({}), json!({"name": 7}), json!([])] {
        world.subscribe(1, body);
        let (name, error) = world.hear_one(1);
        assert_eq!(name, "_service:error");
        assert_eq!(
            error["code"],
            "invalid_data_on_service:api:request:subscribe"
        );
        assert_eq!(error["status"], 400);
        assert!(error["message"].is_string() && error["error"].is_null());
    }
}

#[test]
fn c25_a_receiver_that_stops_reading_is_skipped_told_and_finally_closed() {
    let mut world = World::new();
    world.service(1, "meter");
    for conn in [2, 3] {
        world.service(conn, "grid");
        world.subscribe(conn, json!({"name": "plain"}));
        world.subscribe(conn, json!({"name": "group", "queue": "q"}));
    }
    world.rooms[&2].max.store(5, Ordering::Relaxed);
    for n in 0..20 {
        world.request(1, &format!("p{n}"), "plain", json!({"reply": "none"}));
    }
    assert_eq!(world.inbox[&2].len(), 5);
    assert_eq!(world.hear(3).len(), 20);
    for n in 0..20 {
        world.request(1, &format!("g{n}"), "group", json!({"reply": "none"}));
    }
    assert_eq!(world.hear(3).len(), 20, "the group goes on without it");
    world.hear(2);
    world.handle(Event::Drained { conn: ConnId(2) });
    let (name, body) = world.hear_one(2);
    assert_eq!(
        (name.as_str(), &body["dropped"]),
        ("_service:slow_consumer", &json!(15))
    );
    world.rooms[&2].max.store(0, Ordering::Relaxed);
    world.request(1, "last", "plain", json!({"reply": "none"}));
    world.pass(9_999);
    assert!(world.closed.is_empty());
    world.pass(1);
    assert_eq!(world.closed, BTreeSet::from([2]));
    assert_eq!(world.bus.services().len(), 2);
}

#[test]
fn a_full_group_lets_requests_wait_in_order_of_priority_and_then_says_so() {
    let mut world = World::with(Settings {
        queue_max: 2,
        ..Settings::default()
    });
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "n", "queue": "q", "max_in_flight": 1}));
    world.request(1, "a", "n", json!({}));
    world.request(1, "b", "n", json!({}));
    world.request(1, "c", "n", json!({"priority": 9}));
    world.request(1, "d", "n", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "overloaded");
    let mut order = Vec::new();
    for _ in 0..3 {
        let request = world.hear_one(2).1;
        order.push(request["request_id"].clone());
        world.answer(2, &request, json!(1));
    }
    assert_eq!(order, ["a", "c", "b"]);
}

#[test]
fn a_sticky_key_stays_with_its_member() {
    let mut world = World::new();
    world.service(1, "meter");
    for conn in 2..=6 {
        world.service(conn, "grid");
        world.subscribe(conn, json!({"name": "n", "queue": "q"}));
    }
    let mut homes = BTreeMap::new();
    for round in 0..2 {
        for key in 0..40 {
            let id = format!("{round}.{key}");
            world.request(1, &id, "n", json!({"sticky": format!("k{key}")}));
            let conn = (2..=6).find(|conn| !world.hear(*conn).is_empty()).unwrap();
            assert_eq!(*homes.entry(key).or_insert(conn), conn);
        }
    }
    let used: BTreeSet<u64> = homes.values().copied().collect();
    assert!(used.len() >= 3, "{used:?}");
}

#[test]
fn comings_and_goings_are_told_to_those_who_ask() {
    let mut world = World::new();
    world.service(1, "watcher");
    world.subscribe(1, json!({"name": "_service.>"}));
    world.service(2, "meter");
    let (name, body) = world.hear_one(1);
    assert_eq!(
        (name.as_str(), &body["name"]),
        ("_service:joined", &json!("meter"))
    );
    world.lose(2);
    assert_eq!(world.hear_one(1).0, "_service:left");
}
