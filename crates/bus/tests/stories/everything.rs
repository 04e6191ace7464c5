//! Everything at once, and anything at all.

use std::collections::BTreeMap;

use daybook_bus::{ConnId, Event, Settings};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::world::World;

/// A caller counts what it gets: every call ends in exactly one of answer, error or timeout, whatever
/// comes and goes, and nothing is left over.
#[test]
fn every_call_ends_exactly_once_under_random_arrivals_losses_and_answers() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::with(Settings {
            queue_max: 8,
            in_flight_max: 4,
            ..Settings::default()
        });
        world.service(1, "caller");
        let (mut next_conn, mut workers) = (10, Vec::new());
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for step in 0..600 {
            match random.random_range(0..10) {
                0 if workers.len() < 6 => {
                    world.service(next_conn, "worker");
                    let name = ["job.a", "job.*", "job.>"][random.random_range(0..3)];
                    let mut body =
                        json!({"name": name, "queue": (["q", "p"][random.random_range(0..2)])});
                    if random.random_bool(0.2) {
                        body.as_object_mut().unwrap().remove("queue");
                    }
                    world.subscribe(next_conn, body);
                    workers.push(next_conn);
                    next_conn += 1;
                }
                1 if !workers.is_empty() && random.random_bool(0.4) => {
                    let at = random.random_range(0..workers.len());
                    let conn = workers.swap_remove(at);
                    world.hear(conn);
                    world.lose(conn);
                }
                2..6 => {
                    let id = format!("r{step}");
                    let more = json!({
                        "retry": random.random_bool(0.5),
                        "delivery": (["auto", "one", "all"][random.random_range(0..3)]),
                        "timeout_ms": random.random_range(1..500),
                        "priority": random.random_range(0..3),
                    });
                    world.request(1, &id, ["job.a", "job.b"][random.random_range(0..2)], more);
                    ends.insert(id, 0);
                }
                6 => world.pass(random.random_range(0..100)),
                _ => {
                    for conn in workers.clone() {
                        for (_, request) in world.hear(conn) {
                            if request["request_id"].is_string() && random.random_bool(0.8) {
                                world.answer(conn, &request, json!(1));
                            }
                        }
                    }
                }
            }
        }
        world.pass(1_000);
        for (name, body) in world.hear(1) {
            assert_eq!(name, "api:response", "seed {seed}: {body}");
            *ends.get_mut(body["request_id"].as_str().unwrap()).unwrap() += 1;
        }
        for (id, count) in &ends {
            assert_eq!(*count, 1, "seed {seed}: {id}");
        }
        let report = world.bus.report();
        assert_eq!(
            (report.open_calls, report.waiting, report.waiting_bytes),
            (0, 0, 0),
            "seed {seed}"
        );
        for service in world.bus.services() {
            assert_eq!(
                service.json["in_flight"], 0,
                "seed {seed}: {}",
                service.json
            );
        }
    }
}

#[test]
fn c27_no_payload_of_any_event_ends_the_broker() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let texts = [
        "null",
        "0",
        "-1.5e300",
        "true",
        "\"\"",
        "\"x\"",
        "[]",
        "[null]",
        "{}",
        "{\"name\":null}",
        "{\"name\":{}}",
        "{\"name\":[],\"id\":[]}",
        "{\"name\":\"x\",\"name\":\"y\"}",
        "{\"request_id\":7,\"sender_id\":false,\"name\":0}",
        "{\"delivery_id\":\"--\"}",
        "{\"delivery_id\":\"99999999999999999999-1-1\"}",
        "{\"name\":\"*.>.x\",\"queue\":3}",
        "{\"__proto__\":1,\"constructor\":{}}",
        "{\"error\":{\"list\":7}}",
        &deep,
        &long,
    ];
    let mut world = World::new();
    world.service(1, "witness");
    world.subscribe(1, json!({"name": "still.here"}));
    let mut conn = 10;
    for event in [
        "shake_i_am",
        "shake_ready",
        "iam",
        "api:request",
        "api:response",
        "_service:ack",
        "_service:nak",
        "_service:api:request:subscribe",
        "_service:api:request:unsubscribe",
        "unheard of",
        "",
    ] {
        for text in texts.iter().map(|t| Some(*t)).chain([None]) {
            for shaken in [false, true] {
                conn += 1;
                match shaken {
                    true => world.service(conn, "clumsy"),
                    false => world.connect(conn),
                }
                world.hear(conn);
                world.handle(Event::Packet {
                    conn: ConnId(conn),
                    name: event,
                    argument: text,
                    ack: None,
                });
                let heard = world.hear(conn);
                assert!(
                    heard.iter().any(|(name, _)| name.ends_with("error")),
                    "{event} {:?}: {heard:?}",
                    text.map(|t| &t[..t.len().min(40)])
                );
                world.lose(conn);
            }
        }
    }
    world.service(2, "caller");
    world.request(2, "r", "still.here", json!({}));
    assert_eq!(world.hear_one(1).0, "still.here");
}
