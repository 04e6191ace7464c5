//! Requests and their answers (service bus, sections 5 and 7).

use std::sync::Arc;

use daybook_bus::{ConnId, Effect, Event, Pattern, Settings};
use serde_json::{Value, json};

use crate::world::{World, error_code};

#[test]
fn c29_a_round_trip_takes_no_time_of_its_own() {
    // In simulated time, and with a disk that never answers: neither a timer nor a flush is on the way.
    let mut w = World::noting();
    w.service(1, "meter");
    w.service(2, "grid");
    w.subscribe(2, json!({"name": "grid.read"}));
    w.disk_waits = Some(Vec::new());
    let began = w.now;
    for n in 0..1_000 {
        w.request(1, &n.to_string(), "grid.read", json!({}));
        let asked = w.hear_one(2).1;
        w.answer(2, &asked, json!(n));
        assert_eq!(w.hear_one(1).1["data"], n);
    }
    assert_eq!(w.now, began);
}

#[test]
fn c09_a_missing_field_is_told_with_what_was_readable() {
    let mut world = World::new();
    world.service(1, "meter");
    let id = world.ids[&1].clone();
    for missing in ["name", "request_id", "sender_id"] {
        let mut body = json!({"name": "x", "request_id": "r", "sender_id": id});
        body.as_object_mut().unwrap().remove(missing);
        world.say(1, "api:request", body);
        let heard = world.hear_one(1);
        assert_eq!(heard.0, "api:request:error");
        assert_eq!(error_code(&heard), "no_required_fields");
        let expected = (missing != "request_id").then_some("r");
        assert_eq!(heard.1["error"]["request_id"].as_str(), expected);
    }
}

#[test]
fn c10_a_request_keeps_every_byte_on_its_way() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "grid.read"}));
    let id = &world.ids[&1];
    let text = format!(
        r#"{{"z":1.0,"name":"grid.read","request_id":"r","sender_id":"{id}","big":12345678901234567890,"a":[1e3]}}"#
    );
    world.bus.handle(
        world.now,
        Event::Packet {
            conn: ConnId(1),
            name: "api:request",
            argument: Some(&text),
            ack: None,
        },
    );
    let sent = world.bus.effects().find_map(|effect| match effect {
        Effect::Send {
            to: ConnId(2),
            frame,
        } => Some(frame),
        _ => None,
    });
    let expected = format!("2/communication,[\"grid.read\",{text}]");
    assert_eq!(sent.as_deref(), Some(&*expected));
}

#[test]
fn c11_and_c12_an_answer_reaches_the_requester_alone_with_all_its_members() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.legacy(3, "other");
    world.subscribe(2, json!({"name": "grid.read"}));
    world.request(
        1,
        "r",
        "grid.read",
        json!({"delivery": "one", "x": [1, {"y": null}]}),
    );
    let (name, mut request) = world.hear_one(if world.inbox.contains_key(&2) { 2 } else { 3 });
    assert_eq!(name, "grid.read");
    let answerer = if request.is_null() { 3 } else { 2 };
    let error = json!({"message": "no", "code": "not_found", "status": 404, "entity": "grid",
        "list": [{"message": "m", "path": "p"}, "text"]});
    request["error"] = error.clone();
    request["recipient_id"] = world.ids[&answerer].clone().into();
    world.say(answerer, "api:response", request);
    let heard = world.hear_one(1);
    assert_eq!(
        (heard.0.as_str(), &heard.1["error"]),
        ("api:response", &error)
    );
    assert!(world.hear(2).is_empty() && world.hear(3).is_empty());
}

#[test]
fn c13_a_forged_sender_is_refused_or_corrected_and_never_believed() {
    for strict in [true, false] {
        let mut world = World::with(Settings {
            strict,
            ..Settings::default()
        });
        for (conn, name) in [(1, "meter"), (2, "grid"), (3, "victim")] {
            world.service(conn, name);
        }
        world.subscribe(2, json!({"name": "grid.read"}));
        let victim = world.ids[&3].clone();
        world.request(1, "r", "grid.read", json!({"sender_id": victim}));
        if strict {
            assert_eq!(error_code(&world.hear_one(1)), "invalid_sender");
            assert!(world.hear(2).is_empty());
        } else {
            let request = world.hear_one(2).1;
            assert_eq!(request["sender_id"], world.ids[&1]);
            world.answer(2, &request, json!(1));
            assert_eq!(world.hear_one(1).1["data"], 1);
        }
        assert!(world.hear(3).is_empty());
    }
}

#[test]
fn c14_only_who_got_a_request_may_answer_it() {
    let mut world = World::new();
    for (conn, name) in [(1, "meter"), (2, "grid"), (3, "thief")] {
        world.service(conn, name);
    }
    world.subscribe(2, json!({"name": "grid.read"}));
    world.request(1, "r", "grid.read", json!({}));
    let request = world.hear_one(2).1;
    world.answer(3, &request, json!("stolen"));
    assert_eq!(error_code(&world.hear_one(3)), "not_a_recipient");
    let mut unknown = request.clone();
    unknown["request_id"] = "never asked".into();
    world.answer(2, &unknown, json!(0));
    assert_eq!(error_code(&world.hear_one(2)), "unknown_request");
    // Naming somebody else as the one who answers does not help.
    let mut forged = request.clone();
    forged["recipient_id"] = world.ids[&2].clone().into();
    world.say(3, "api:response", forged);
    assert_eq!(error_code(&world.hear_one(3)), "invalid_sender");
    assert!(world.hear(1).is_empty());
    world.answer(2, &request, json!("own"));
    assert_eq!(world.hear_one(1).1["data"], "own");
}

#[test]
fn c18_nobody_listening_is_told_at_once_and_the_same_id_may_try_again() {
    let mut world = World::new();
    world.service(1, "meter");
    world.request(1, "r", "grid.read", json!({}));
    let heard = world.hear_one(1);
    assert_eq!(
        (heard.0.as_str(), error_code(&heard)),
        ("api:response", "no_responders")
    );
    assert_eq!(heard.1["recipient_id"], "eman");
    assert_eq!(heard.1["error"]["entity"], Value::Null);
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "grid.read"}));
    world.request(1, "r", "grid.read", json!({}));
    assert_eq!(world.hear(2).len(), 1);
    world.request(1, "s", "nobody", json!({"reply": "none"}));
    assert!(world.hear(1).is_empty());
    assert_eq!(
        world.ack(1),
        json!({"ok": true, "request_id": "s", "delivered": 0, "queued": 0})
    );
}

#[test]
fn c19_a_deadline_is_kept_and_what_comes_later_is_not_delivered() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "grid.read"}));
    world.request(1, "r", "grid.read", json!({"timeout_ms": 200}));
    let request = world.hear_one(2).1;
    world.pass(199);
    assert!(world.hear(1).is_empty());
    world.pass(1);
    assert_eq!(error_code(&world.hear_one(1)), "timeout");
    world.answer(2, &request, json!(1));
    assert!(world.hear(1).is_empty());
    assert_eq!(error_code(&world.hear_one(2)), "unknown_request");
    assert_eq!(world.bus.open_calls(), 0);
}

#[test]
fn c22_the_brokers_own_names_cannot_be_requested() {
    let mut world = World::new();
    world.legacy(1, "old");
    for name in [
        "shake_error",
        "api:response",
        "disconnect",
        "_service:x",
        "_dead.x",
    ] {
        world.request(1, name, name, json!({}));
        assert_eq!(error_code(&world.hear_one(1)), "reserved_name", "{name}");
    }
}

#[test]
fn c24_order_is_kept_from_one_sender_to_one_receiver() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "n"}));
    for n in 0..20_000 {
        world.request(1, &n.to_string(), "n", json!({"data": n, "reply": "none"}));
    }
    let heard = world.hear(2);
    assert_eq!(heard.len(), 20_000);
    assert!(heard.iter().enumerate().all(|(n, h)| h.1["data"] == n));
}

#[test]
fn every_answer_is_passed_on_when_all_are_wanted_and_the_end_is_told() {
    let mut world = World::new();
    world.service(1, "meter");
    for conn in 2..=4 {
        world.service(conn, "grid");
        world.subscribe(conn, json!({"name": "n"}));
    }
    world.request(1, "r", "n", json!({"reply": "all", "timeout_ms": 100}));
    for conn in [2, 3] {
        let request = world.hear_one(conn).1;
        world.answer(conn, &request, json!(conn));
    }
    let heard = world.hear(1);
    assert_eq!(heard[0].1["reply_index"], 0);
    assert_eq!(heard[1].1["reply_index"], 1);
    world.pass(100);
    let (name, body) = world.hear_one(1);
    assert_eq!(name, "api:response:end");
    assert_eq!(
        body,
        json!({"request_id": "r", "expected": 3, "received": 2})
    );
}

#[test]
fn the_first_answer_counts_and_the_others_are_no_mistake() {
    let mut world = World::new();
    world.legacy(1, "old");
    world.legacy(2, "grid");
    world.legacy(3, "grid");
    world.request(1, "r", "n", json!({}));
    for conn in [2, 3] {
        let request = world.hear_one(conn).1;
        world.answer(conn, &request, json!(conn));
    }
    world.hear(2);
    let heard: Vec<Value> = world
        .hear(1)
        .into_iter()
        .map(|h| h.1["data"].clone())
        .collect();
    assert!(heard.contains(&json!(2)) && !heard.contains(&json!(3)));
    assert!(world.hear(3).is_empty());
}

#[test]
fn a_key_that_may_not_is_told_forbidden() {
    let mut world = World::new();
    world.grant.publish = vec![Pattern::new("grid.*").unwrap()];
    world.grant.subscribe = vec![Pattern::new("meter.>").unwrap()];
    world.legacy(1, "meter");
    world.request(1, "a", "bank.pay", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "forbidden");
    world.request(1, "b", "grid.read", json!({}));
    assert_eq!(
        error_code(&world.hear_one(1)),
        "no_responders",
        "nor does it hear it"
    );
    for name in [">", "*", "grid.read", "meter"] {
        world.subscribe(1, json!({"name": name}));
        assert_eq!(world.hear_one(1).1["code"], "forbidden", "{name}");
    }
    world.subscribe(1, json!({"name": "meter.*"}));
    assert!(world.hear(1).is_empty());
}

#[test]
fn a_sender_above_its_rate_is_told_when_to_come_again() {
    let mut world = World::with(Settings {
        requests_per_second: 10,
        ..Settings::default()
    });
    world.service(1, "meter");
    for n in 0..10 {
        world.request(1, &n.to_string(), "n", json!({}));
    }
    assert!(
        world
            .hear(1)
            .iter()
            .all(|h| error_code(h) == "no_responders")
    );
    world.request(1, "x", "n", json!({}));
    let heard = world.hear_one(1);
    assert_eq!(error_code(&heard), "rate_limited");
    assert_eq!(heard.1["error"]["retry_after_ms"], 100);
    world.pass(100);
    world.request(1, "y", "n", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "no_responders");
}

#[test]
fn an_operator_fixes_mode_and_deadline() {
    let mut world = World::with(Settings {
        subjects: vec![daybook_bus::Subject {
            pattern: Pattern::new("grid.*").unwrap(),
            delivery: Some(daybook_bus::Delivery::One),
            timeout_ms: Some(50),
        }],
        ..Settings::default()
    });
    world.service(1, "meter");
    for conn in [2, 3] {
        world.service(conn, "grid");
        world.subscribe(conn, json!({"name": "grid.read"}));
    }
    world.request(
        1,
        "r",
        "grid.read",
        json!({"delivery": "all", "timeout_ms": 9_000}),
    );
    assert_eq!(world.hear(2).len() + world.hear(3).len(), 1);
    world.pass(50);
    assert_eq!(error_code(&world.hear_one(1)), "timeout");
}

#[test]
fn the_nodes_own_names_are_answered_by_the_node_alone() {
    let mut world = World::with(Settings {
        local: Arc::new(["ledger.head"]),
        feed: Some("ledger.events"),
        ..Settings::default()
    });
    world.legacy(1, "old");
    world.legacy(2, "spy");
    world.subscribe(2, json!({"name": "ledger.>"}));
    world.request(1, "r", "ledger.head", json!({}));
    assert!(world.hear(2).is_empty());
    let (call, body) = world.locals.pop().unwrap();
    assert!(body.contains("ledger.head"));
    world.handle(Event::LocalAnswer {
        call: call.unwrap(),
        result: Ok("{\"height\":7}".into()),
    });
    assert_eq!(world.hear_one(1).1["data"]["height"], 7);
    world.request(1, "s", "ledger.events", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "reserved_name");
}
