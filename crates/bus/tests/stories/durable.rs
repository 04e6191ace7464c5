//! Durable subscriptions and dead letters (service bus, section 14).

use daybook_bus::{Event, Settings};
use serde_json::{Value, json};

use crate::world::{World, error_code};

#[test]
fn a_request_for_a_durable_subscription_is_stored_once_over_a_restart() {
    // The broker ends before it is told that the message is on disk, which it may be or not.
    for on_disk in [true, false] {
        let mut w = World::noting();
        w.service(1, "shop");
        w.service(2, "books");
        w.subscribe(2, json!({"name": "order", "durable": true}));
        w.lose(2);
        w.store_works = on_disk;
        w.disk_waits = Some(Vec::new());
        w.request(1, "r", "order", json!({"reply": "none"}));
        assert!(w.acks.get(&1).is_none_or(Vec::is_empty));
        let mut w = w.killed();
        w.comes_back(1, 11, "shop");
        w.request(11, "r", "order", json!({"reply": "none"}));
        assert_eq!(w.ack(11)["ok"], true);
        w.service(12, "books");
        w.subscribe(12, json!({"name": "order", "durable": true}));
        assert_eq!(w.hear(12).len(), 1, "on disk: {on_disk}");
    }
}

#[test]
fn of_many_requests_that_a_restart_cuts_off_only_those_are_stored_again_that_are_not_on_disk() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "books");
    w.subscribe(2, json!({"name": "order", "durable": true}));
    w.lose(2);
    w.disk_waits = Some(Vec::new());
    for n in 0..20 {
        w.store_works = n % 3 == 0;
        w.request(1, &n.to_string(), "order", json!({"reply": "none"}));
    }
    let mut w = w.killed();
    w.comes_back(1, 11, "shop");
    for n in 0..20 {
        w.request(11, &n.to_string(), "order", json!({"reply": "none"}));
        let repeated = w.ack(11)["repeated"] == true;
        assert_eq!(repeated, n % 3 == 0, "{n}");
    }
    w.service(12, "books");
    w.subscribe(12, json!({"name": "order", "durable": true}));
    let mut heard: Vec<_> = w
        .hear(12)
        .into_iter()
        .map(|h| h.1["request_id"].clone())
        .collect();
    heard.sort_by_key(|id| id.as_str().and_then(|id| id.parse::<u32>().ok()));
    let all: Vec<_> = (0..20).map(|n| json!(n.to_string())).collect();
    assert_eq!(heard, all);
}

#[test]
fn a_repeated_request_is_not_acknowledged_before_its_first_copy_is_on_disk() {
    for ok in [true, false] {
        let mut w = World::noting();
        w.service(1, "shop");
        w.service(2, "books");
        w.subscribe(2, json!({"name": "order", "durable": true}));
        w.lose(2);
        w.disk_waits = Some(Vec::new());
        for _ in 0..3 {
            w.request(1, "r", "order", json!({"reply": "none"}));
        }
        assert!(w.acks.get(&1).is_none_or(Vec::is_empty));
        let waits = w.disk_waits.take().unwrap();
        assert_eq!(waits.len(), 1);
        w.handle(Event::Stored {
            ticket: waits[0],
            ok,
        });
        let acks = w.acks.remove(&1).unwrap();
        let told: Vec<_> = acks.iter().map(|ack| ack["ok"] == true).collect();
        assert_eq!(told, [ok; 3], "{acks:?}");
        if ok {
            assert_eq!(acks[0]["queued"], 1);
            assert_eq!(acks[2]["repeated"], true);
        }
    }
}

#[test]
fn a_durable_subscription_is_not_acknowledged_before_it_is_on_disk() {
    for ok in [true, false] {
        let mut w = World::noting();
        w.service(2, "books");
        w.acks.clear();
        w.disk_waits = Some(Vec::new());
        for _ in 0..2 {
            w.subscribe(2, json!({"name": "order", "durable": true}));
        }
        assert!(w.acks.get(&2).is_none_or(Vec::is_empty));
        for ticket in w.disk_waits.take().unwrap() {
            w.handle(Event::Stored { ticket, ok });
        }
        let acks = w.acks.remove(&2).unwrap();
        let told: Vec<_> = acks.iter().map(|ack| ack["ok"] == true).collect();
        assert_eq!(told, [ok; 2], "{acks:?}");
        // Who was refused is not subscribed, and may try again.
        w.hear(2);
        w.service(1, "shop");
        w.request(1, "r", "order", json!({"reply": "none"}));
        assert_eq!(w.hear(2).len(), usize::from(ok));
        w.subscribe(2, json!({"name": "order", "durable": true}));
        assert_eq!(w.ack(2)["ok"], true);
        w.request(1, "s", "order", json!({"reply": "none"}));
        assert_eq!(w.hear(2).len(), 1);
    }
}

#[test]
fn a_repeated_durable_subscription_is_written_once_and_never_taken_back() {
    let order = || json!({"name": "order", "durable": true});
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "books");
    w.acks.clear();
    w.disk_waits = Some(Vec::new());
    // Sixteen wait for one write; more than that are refused.
    for _ in 0..20 {
        w.subscribe(2, order());
    }
    assert_eq!(w.acks.remove(&2).unwrap().len(), 4);
    let waits = w.disk_waits.take().unwrap();
    assert_eq!(waits.len(), 1);
    w.handle(Event::Stored {
        ticket: waits[0],
        ok: true,
    });
    let acks = w.acks.remove(&2).unwrap();
    assert_eq!(acks.len(), 16);
    assert!(acks.iter().all(|ack| ack["ok"] == true), "{acks:?}");
    // What is on disk needs no further write, whoever asks for it.
    w.disk_waits = Some(Vec::new());
    w.subscribe(2, order());
    assert_eq!(w.ack(2)["ok"], true);
    w.service(3, "books");
    w.acks.clear();
    w.subscribe(3, order());
    assert_eq!(w.ack(3)["ok"], true);
    assert_eq!(w.disk_waits.take().unwrap(), []);
    w.lose(3);
    // Other terms do; when they cannot be written, the old ones hold.
    let other = || json!({"name": "order", "durable": true, "max_deliver": 1});
    w.store_works = false;
    for _ in 0..2 {
        w.subscribe(2, other());
        assert_eq!(w.ack(2)["ok"], false);
    }
    w.store_works = true;
    w.hear(2);
    w.request(1, "r", "order", json!({"reply": "none"}));
    for attempt in 1..=2 {
        assert_eq!(w.hear_one(2).1["attempt"], attempt);
        w.pass(30_000);
    }
}

#[test]
fn subscriptions_that_are_forgotten_while_the_disk_hangs_do_not_gather() {
    let mut w = World::with(Settings {
        notes: true,
        durable_max: 3,
        ..Settings::default()
    });
    w.service(1, "books");
    w.acks.clear();
    w.disk_waits = Some(Vec::new());
    let forget = json!({"name": "order", "forget": true});
    for n in 0..6 {
        w.subscribe(1, json!({"name": "order", "durable": true}));
        w.say(1, "_service:api:request:unsubscribe", forget.clone());
        assert_eq!(w.disk_waits.as_ref().unwrap().len(), (n + 1).min(3));
    }
    assert_eq!(w.hear(1).len(), 3, "what was refused");
    // The disk goes on, and so do subscriptions.
    for ticket in w.disk_waits.take().unwrap() {
        w.handle(Event::Stored { ticket, ok: true });
    }
    w.acks.clear();
    w.subscribe(1, json!({"name": "order", "durable": true}));
    assert_eq!(w.ack(1)["ok"], true);
}

#[test]
fn a_durable_subscription_whose_second_write_is_good_stays() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "books");
    w.acks.clear();
    w.disk_waits = Some(Vec::new());
    for most in [2, 3] {
        w.subscribe(
            2,
            json!({"name": "order", "durable": true, "max_deliver": most}),
        );
    }
    let waits = w.disk_waits.take().unwrap();
    assert_eq!(waits.len(), 2);
    for (ticket, ok) in waits.into_iter().zip([false, true]) {
        w.handle(Event::Stored { ticket, ok });
        assert_eq!(w.ack(2)["ok"], ok);
    }
    w.hear(2);
    w.request(1, "r", "order", json!({"reply": "none"}));
    assert_eq!(w.hear(2).len(), 1);
}

fn durable(more: Value) -> Value {
    let mut body = json!({"name": "order.>", "durable": true});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn c26_an_unacknowledged_message_comes_again_and_is_dead_after_five_attempts() {
    let mut world = World::new();
    world.service(1, "shop");
    world.service(2, "books");
    world.subscribe(2, durable(json!({})));
    world.request(1, "r", "order.new", json!({"reply": "none", "data": 5}));
    assert_eq!(world.ack(1)["queued"], 1);
    let (name, first) = world.hear_one(2);
    assert_eq!(
        (name.as_str(), &first["attempt"], &first["data"]),
        ("order.new", &json!(1), &json!(5))
    );
    world.lose(2);
    // The broker restarts while nobody is there.
    let mut world = World::restart(Settings::default(), world.store, world.now);
    world.service(1, "shop");
    world.service(3, "books");
    world.subscribe(3, durable(json!({})));
    assert_eq!(world.hear_one(3).1["attempt"], 2);
    for attempt in 3..=5 {
        world.pass(30_000);
        assert_eq!(world.hear_one(3).1["attempt"], attempt);
    }
    world.service(4, "undertaker");
    world.subscribe(4, json!({"name": "_dead.order.new"}));
    world.pass(30_000);
    assert!(world.hear(3).is_empty());
    assert_eq!(world.hear_one(4).0, "_dead.order.new");
    // The dead letter survives a restart too, and comes back on demand.
    let mut world = World::restart(Settings::default(), world.store, world.now);
    let dead = world.bus.dead("order.new");
    let letter: Value = serde_json::from_str(&dead[0].json).unwrap();
    assert_eq!(
        (&letter["attempts"], &letter["request"]["data"]),
        (&json!(5), &json!(5))
    );
    world.handle(Event::Replay { name: "order.new" });
    assert!(world.bus.dead("order.new").is_empty());
    world.service(3, "books");
    world.subscribe(3, durable(json!({})));
    let message = world.hear_one(3).1;
    assert_eq!(message["attempt"], 1);
    world.say(
        3,
        "_service:ack",
        json!({"delivery_id": message["delivery_id"]}),
    );
    assert_eq!(world.bus.report().durable_messages, 0);
    assert_eq!(
        world.store.len(),
        1,
        "only the subscription is left: {:?}",
        world.store
    );
}

#[test]
fn a_message_is_delivered_five_times_at_most_over_restarts_too() {
    let mut world = World::new();
    world.service(1, "shop");
    world.service(2, "books");
    world.subscribe(2, durable(json!({})));
    world.request(1, "r", "order.new", json!({"reply": "none"}));
    for attempt in 1..=5 {
        let conn = world.rooms.keys().last().copied().unwrap();
        assert_eq!(world.hear_one(conn).1["attempt"], attempt);
        // The broker is killed, and the worker comes to the next one.
        world = World::restart(Settings::default(), world.store, world.now);
        world.service(3, "books");
        world.subscribe(3, durable(json!({})));
    }
    assert!(world.hear(3).is_empty());
    let dead = world.bus.dead("order.new");
    let letter: Value = serde_json::from_str(&dead[0].json).unwrap();
    assert_eq!(letter["attempts"], 5);
    assert!(letter["error"].as_str().unwrap().contains("broker ended"));
    assert_eq!(world.bus.report().durable_messages, 0);
}

#[test]
fn a_message_waits_while_nobody_is_there_and_is_not_taken_unless_it_is_stored() {
    let mut world = World::new();
    world.service(1, "shop");
    world.service(2, "books");
    world.subscribe(2, durable(json!({})));
    world.lose(2);
    world.request(1, "a", "order.new", json!({"timeout_ms": 100}));
    assert_eq!(
        world.ack(1),
        json!({"ok": true, "request_id": "a", "delivered": 0, "queued": 1})
    );
    world.pass(100);
    assert_eq!(error_code(&world.hear_one(1)), "timeout", "but it waits on");
    world.store_works = false;
    world.request(1, "b", "order.new", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "overloaded");
    world.store_works = true;
    world.service(3, "books");
    world.subscribe(3, durable(json!({})));
    assert_eq!(world.hear_one(3).1["request_id"], "a");
}

#[test]
fn a_refused_message_comes_again_after_the_pause_that_was_asked_for() {
    let mut world = World::new();
    world.service(1, "shop");
    world.service(2, "books");
    world.subscribe(2, durable(json!({"max_deliver": 2})));
    world.request(1, "a", "order.new", json!({}));
    let first = world.hear_one(2).1;
    let nak = json!({"delivery_id": first["delivery_id"], "delay_ms": 500, "error": "no ink"});
    world.say(2, "_service:nak", nak.clone());
    world.say(2, "_service:nak", nak);
    assert_eq!(world.hear_one(2).1["code"], "unknown_delivery");
    world.pass(499);
    assert!(world.hear(2).is_empty());
    world.pass(1);
    let second = world.hear_one(2).1;
    // A consumer may answer the request as well.
    world.answer(2, &second, json!("noted"));
    assert_eq!(world.hear_one(1).1["data"], "noted");
    world.say(
        2,
        "_service:nak",
        json!({"delivery_id": second["delivery_id"], "error": "torn"}),
    );
    assert!(world.bus.dead("order.new")[0].json.contains("torn"));
}

#[test]
fn a_durable_group_shares_its_messages_and_can_be_forgotten() {
    let mut world = World::new();
    world.service(1, "shop");
    for conn in [2, 3] {
        world.service(conn, &format!("books{conn}"));
        world.subscribe(conn, durable(json!({"queue": "b", "max_in_flight": 2})));
    }
    for n in 0..10 {
        world.request(1, &n.to_string(), "order.new", json!({"reply": "none"}));
    }
    assert_eq!((world.hear(2).len(), world.inbox[&3].len()), (2, 2));
    let body = json!({"name": "order.>", "queue": "b", "forget": true});
    world.say(2, "_service:api:request:unsubscribe", body);
    assert_eq!(world.bus.report().durable_messages, 0);
    assert!(world.store.is_empty());
}
