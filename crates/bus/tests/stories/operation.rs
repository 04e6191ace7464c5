//! What an operator sees, and a stop in good order.

use daybook_bus::Event;
use serde_json::json;

use crate::world::{World, error_code};

#[test]
fn a_stopping_broker_finishes_what_is_open_and_takes_nothing_new() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "n"}));
    world.request(1, "a", "n", json!({}));
    let deadline = world.now.after_ms(5_000);
    world.handle(Event::Drain { deadline });
    assert_eq!(
        world.hear_one(1),
        ("_service:draining".into(), json!({"deadline_ms": 5000}))
    );
    world.request(1, "b", "n", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "overloaded");
    assert!(!world.bus.is_drained());
    let request = world.hear(2).remove(0).1;
    world.answer(2, &request, json!(1));
    assert_eq!(world.hear_one(1).1["data"], 1);
    assert!(world.bus.is_drained());
    world.pass(5_000);
    assert_eq!(world.left.len(), 2);
}

#[test]
fn an_overview_tells_who_is_there_where_requests_wait_and_what_is_dead() {
    let mut w = World::new();
    w.service(1, "caller");
    w.service(2, "worker");
    w.subscribe(2, json!({"name": "work", "queue": "q", "max_in_flight": 1}));
    w.subscribe(
        2,
        json!({"name": "keep", "durable": true, "max_deliver": 1}),
    );
    for id in ["a", "b", "c"] {
        w.request(1, id, "work", json!({}));
    }
    w.request(1, "d", "keep", json!({"reply": "none"}));
    let kept = w.hear(2).pop().unwrap().1;
    w.say(
        2,
        "_service:nak",
        json!({"delivery_id": kept["delivery_id"], "error": "no room"}),
    );
    w.pass(1_000);
    w.handle(Event::Tick);
    let o = w.bus.overview();
    assert_eq!(o["online"], 2);
    assert_eq!(o["calls_per_second"], 0.8);
    assert_eq!(o["open_calls"], 3);
    assert_eq!(o["queues"], json!([{"queue": "q", "waiting": 2}]));
    assert_eq!(o["durable"][0]["name"], "keep");
    assert_eq!(o["dead"][0]["name"], "keep");
    assert_eq!(o["dead"][0]["count"], 1);
    assert_eq!(o["dead"][0]["newest"]["error"], "no room");
    let names: Vec<&str> = o["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["caller", "worker"]);
    assert!(!o.to_string().contains("right"));
}
