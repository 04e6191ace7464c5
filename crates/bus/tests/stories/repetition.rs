//! One effect for a repeated request, over a restart too (service bus, section 5.1).

use std::collections::{BTreeMap, BTreeSet};

use daybook_bus::{Event, Settings};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::world::{World, error_code};

#[test]
fn a_repeated_request_has_one_effect_and_gets_the_stored_answer() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "pay"}));
    world.request(1, "r", "pay", json!({}));
    world.request(1, "r", "pay", json!({}));
    let request = world.hear_one(2).1;
    world.answer(2, &request, json!("paid"));
    assert_eq!(world.hear_one(1).1["data"], "paid");
    world.pass(119_000);
    world.request(1, "r", "pay", json!({}));
    assert!(world.hear(2).is_empty());
    assert_eq!(world.hear_one(1).1["data"], "paid");
    world.request(1, "r", "something else", json!({}));
    assert_eq!(error_code(&world.hear_one(1)), "duplicate_request");
    world.pass(130_000);
    world.request(1, "r", "pay", json!({}));
    assert_eq!(world.hear(2).len(), 1, "the window is over");
}

#[test]
fn a_repeated_request_has_one_effect_over_a_restart_too() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "bank");
    w.subscribe(2, json!({"name": "pay"}));
    w.request(1, "r", "pay", json!({"data": 7}));
    let asked = w.hear_one(2).1;
    w.answer(2, &asked, json!("paid"));
    assert_eq!(w.hear_one(1).1["data"], "paid");

    let mut w = w.killed();
    w.service(12, "bank");
    w.subscribe(12, json!({"name": "pay"}));
    w.comes_back(1, 11, "shop");
    assert_eq!(w.ids[&11], w.ids[&1]);
    assert_eq!(w.hear_one(11).0, "shake_online");
    w.request(11, "r", "pay", json!({"data": 7}));
    assert_eq!(w.hear_one(11).1["data"], "paid");
    assert_eq!(w.ack(11)["repeated"], true);
    assert!(w.hear(12).is_empty());
    // Another name under the same id is still a mistake.
    w.request(11, "r", "sell", json!({}));
    assert_eq!(error_code(&w.hear_one(11)), "duplicate_request");
    // And it is forgotten when its window is over.
    let mut w = w.killed();
    w.pass(29_000);
    w.comes_back(11, 21, "shop");
    w.hear(21);
    w.pass(100_000);
    w.request(21, "r", "pay", json!({}));
    assert_eq!(error_code(&w.hear_one(21)), "no_responders");
}

#[test]
fn a_request_that_a_restart_cuts_off_is_not_done_twice_unless_its_caller_allows_it() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "bank");
    w.subscribe(2, json!({"name": "pay"}));
    w.request(1, "once", "pay", json!({}));
    w.request(1, "twice", "pay", json!({"retry": true}));
    w.request(1, "told", "pay", json!({"reply": "none"}));
    assert_eq!(w.hear(2).len(), 3);

    let mut w = w.killed();
    w.service(12, "bank");
    w.subscribe(12, json!({"name": "pay"}));
    w.comes_back(1, 11, "shop");
    // Whether it was done is not known, so its caller is told so.
    let heard = w.hear(11);
    assert_eq!(heard[0].0, "shake_online");
    assert_eq!(error_code(&heard[1]), "recipient_gone");
    assert_eq!(heard[1].1["request_id"], "once");
    assert_eq!(heard.len(), 2);
    w.request(11, "once", "pay", json!({}));
    assert_eq!(error_code(&w.hear_one(11)), "recipient_gone");
    w.request(11, "told", "pay", json!({"reply": "none"}));
    assert!(w.hear(12).is_empty());
    w.request(11, "twice", "pay", json!({"retry": true}));
    assert_eq!(w.hear_one(12).1["request_id"], "twice");
}

#[test]
fn who_was_away_too_long_before_a_restart_does_not_come_back_after_it() {
    let mut w = World::noting();
    w.service(1, "early");
    w.service(2, "late");
    w.lose(1);
    w.pass(20_000);
    w.lose(2);
    let mut w = w.killed();
    w.pass(15_000);
    w.comes_back(1, 11, "early");
    assert_ne!(w.ids[&11], w.ids[&1]);
    w.comes_back(2, 12, "late");
    assert_eq!(w.ids[&12], w.ids[&2]);
}

#[test]
fn a_stop_in_good_order_lets_everyone_come_back_to_the_next_run() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "bank");
    w.subscribe(2, json!({"name": "pay"}));
    w.request(1, "r", "pay", json!({}));
    let asked = w.hear_one(2).1;
    w.answer(2, &asked, json!("paid"));
    let deadline = w.now.after_ms(1_000);
    w.handle(Event::Drain { deadline });
    w.bus.end();
    w.handle(Event::Tick);
    assert!(w.left.contains(&1));
    let mut w = w.killed();
    w.comes_back(1, 11, "shop");
    w.hear(11);
    w.request(11, "r", "pay", json!({}));
    assert_eq!(w.hear_one(11).1["data"], "paid");
}

#[test]
fn a_repeated_request_is_not_acknowledged_before_its_first_copy_is_noted() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "books");
    w.subscribe(2, json!({"name": "order"}));
    w.disk_waits = Some(Vec::new());
    w.request(1, "r", "order", json!({}));
    w.request(1, "r", "order", json!({}));
    assert!(w.acks.get(&1).is_none_or(Vec::is_empty));
    for ticket in w.disk_waits.take().unwrap() {
        w.handle(Event::Stored { ticket, ok: true });
    }
    assert_eq!(w.acks[&1].len(), 2);
}

#[test]
fn nothing_is_acknowledged_before_it_is_flushed_and_nothing_waits_for_that_but_acknowledgements() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "bank");
    w.subscribe(2, json!({"name": "pay"}));
    w.acks.clear();
    w.disk_waits = Some(Vec::new());
    w.request(1, "r", "pay", json!({}));
    let asked = w.hear_one(2).1;
    w.answer(2, &asked, json!("paid"));
    assert_eq!(w.hear_one(1).1["data"], "paid");
    assert!(w.acks.is_empty());
    for ticket in w.disk_waits.take().unwrap() {
        w.handle(Event::Stored { ticket, ok: true });
    }
    assert_eq!(w.ack(1)["delivered"], 1);
    assert_eq!(w.ack(2)["ok"], true);
}

#[test]
fn a_broker_that_cannot_note_takes_no_more_requests_and_says_so() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "bank");
    w.subscribe(2, json!({"name": "pay"}));
    w.notes_work = false;
    w.request(1, "r", "pay", json!({}));
    assert_eq!(w.ack(1)["error"]["code"], "overloaded");
    w.handle(Event::Forgetful);
    w.hear(1);
    w.request(1, "s", "pay", json!({}));
    assert_eq!(error_code(&w.hear_one(1)), "overloaded");
    // What was under way is finished.
    let asked = w.hear_one(2).1;
    w.answer(2, &asked, json!("paid"));
    assert_eq!(w.hear_one(1).1["data"], "paid");
}

#[test]
fn acknowledgements_that_wait_for_a_disk_that_hangs_are_bounded_and_what_needs_one_more_is_refused()
{
    for (of_one, of_all, taken) in [(3, 100, [3, 3]), (100, 4, [4, 0])] {
        let mut w = World::with(Settings {
            notes: true,
            noted_acks_max: of_one,
            noted_acks_of_all_max: of_all,
            ..Settings::default()
        });
        for (conn, name) in [(1, "shop"), (2, "kiosk"), (3, "bank")] {
            w.service(conn, name);
        }
        w.subscribe(3, json!({"name": "pay"}));
        w.acks.clear();
        w.disk_waits = Some(Vec::new());
        for (conn, taken) in [(1, taken[0]), (2, taken[1])] {
            for n in 0..6 {
                w.request(conn, &n.to_string(), "pay", json!({"reply": "none"}));
            }
            // Nothing is done for which no acknowledgement can wait.
            assert_eq!(w.hear(3).len(), taken);
            let refused = w.hear(conn);
            assert_eq!(refused.len(), 6 - taken);
            for refusal in &refused {
                assert_eq!(
                    (refusal.0.as_str(), error_code(refusal)),
                    ("api:request:error", "overloaded")
                );
                assert!(refusal.1["error"]["request_id"].is_string());
            }
        }
        // An acknowledgement that was not asked for needs no room.
        w.request_silently(1, "free", "pay");
        assert_eq!(w.hear(3).len(), 1);
        // The disk goes on: all that was taken is told, and there is room again.
        w.acks.clear();
        for ticket in w.disk_waits.take().unwrap() {
            w.handle(Event::Stored { ticket, ok: true });
        }
        for (conn, taken) in [(1, taken[0]), (2, taken[1])] {
            assert_eq!(w.acks.remove(&conn).unwrap_or_default().len(), taken);
            w.request(conn, "again", "pay", json!({"reply": "none"}));
            assert_eq!(w.ack(conn)["ok"], true);
        }
    }
}

#[test]
fn an_answer_whose_acknowledgement_cannot_wait_is_refused_as_a_whole() {
    let mut w = World::with(Settings {
        notes: true,
        noted_acks_max: 0,
        ..Settings::default()
    });
    w.service(1, "shop");
    w.legacy(2, "bank");
    w.request_silently(1, "r", "pay");
    let asked = w.hear_one(2).1;
    w.answer(2, &asked, json!("paid"));
    let refusal = w.hear_one(2);
    assert_eq!(
        (refusal.0.as_str(), error_code(&refusal)),
        ("api:response:error", "overloaded")
    );
    assert!(w.hear(1).is_empty());
}

#[test]
fn a_restart_right_after_a_restart_forgets_nothing() {
    let mut w = World::noting();
    w.service(1, "shop");
    w.service(2, "bank");
    w.subscribe(2, json!({"name": "pay"}));
    w.request(1, "done", "pay", json!({}));
    let asked = w.hear_one(2).1;
    w.answer(2, &asked, json!("paid"));
    w.hear(1);
    w.request(1, "cut", "pay", json!({}));
    w.pass(10_000);
    let noted = w.notes.len();
    for _ in 0..4 {
        w = w.killed();
        // Nobody had the time to come back, so the time for it begins anew.
        w.pass(20_000);
        assert!(w.notes.len() < noted, "{:?}", w.notes);
    }
    w.comes_back(1, 11, "shop");
    assert_eq!(w.ids[&11], w.ids[&1]);
    w.hear(11);
    w.request(11, "done", "pay", json!({}));
    assert_eq!(w.hear_one(11).1["data"], "paid");
    w.request(11, "cut", "pay", json!({}));
    assert_eq!(error_code(&w.hear_one(11)), "recipient_gone");
}

#[test]
fn no_request_is_delivered_twice_under_random_restarts() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut w = World::noting();
        let mut heard: BTreeMap<String, u32> = BTreeMap::new();
        let mut answers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut conn = 1;
        w.service(conn, "caller");
        for _ in 0..8 {
            let worker = conn + 1;
            w.service(worker, "worker");
            w.subscribe(worker, json!({"name": "work", "queue": "q"}));
            for _ in 0..random.random_range(0..20) {
                let id = random.random_range(0..12).to_string();
                w.request(conn, &id, "work", json!({}));
                for (_, asked) in w.hear(worker) {
                    let id = asked["request_id"].as_str().unwrap().to_owned();
                    *heard.entry(id).or_default() += 1;
                    if random.random_bool(0.7) {
                        w.answer(worker, &asked, json!("done"));
                    }
                }
                for (name, answer) in w.hear(conn) {
                    assert_eq!(name, "api:response", "seed {seed}");
                    let id = answer["request_id"].as_str().unwrap().to_owned();
                    let code = answer["error"]["code"].as_str().unwrap_or("done");
                    answers.entry(id).or_default().insert(code.to_owned());
                }
            }
            w = w.killed();
            w.comes_back(conn, conn + 2, "caller");
            w.hear(conn + 2);
            conn += 2;
        }
        assert!(
            heard.values().all(|count| *count == 1),
            "seed {seed}: {heard:?}"
        );
        // A call that was told its end is told the same one ever after.
        assert!(
            answers.values().all(|ends| ends.len() == 1),
            "seed {seed}: {answers:?}"
        );
    }
}

#[test]
fn notes_that_are_written_anew_say_what_all_notes_before_them_said() {
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut w = World::noting();
        w.service(1, "caller");
        w.service(2, "worker");
        w.subscribe(2, json!({"name": "work"}));
        for n in 0..random.random_range(0..30) {
            let more = match random.random_range(0..3) {
                0 => json!({}),
                1 => json!({"retry": true}),
                _ => json!({"reply": "none"}),
            };
            w.request(1, &n.to_string(), "work", more);
            let asked = w.hear_one(2).1;
            if random.random_bool(0.5) {
                w.answer(2, &asked, json!(n));
            }
        }
        if random.random_bool(0.5) {
            w.lose(2);
        }
        let anew = w.bus.notes();
        let mut ends = Vec::new();
        let (now, ids, tokens) = (w.now, w.ids, w.tokens);
        for notes in [w.notes, anew] {
            let mut again = World::noting();
            (again.now, again.notes) = (now, notes);
            (again.ids, again.tokens) = (ids.clone(), tokens.clone());
            let mut again = again.killed();
            again.comes_back(1, 11, "caller");
            assert_eq!(again.ids[&11], ids[&1]);
            ends.push(again.hear(11));
        }
        assert_eq!(ends[0], ends[1], "seed {seed}");
    }
}

#[test]
fn kept_answers_give_way_when_there_are_too_many() {
    let mut world = World::with(Settings {
        remember_bytes_max: 10_000,
        ..Settings::default()
    });
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "n"}));
    for n in 0..1_000 {
        world.request(1, &n.to_string(), "n", json!({"reply": "none"}));
    }
    assert!(world.bus.report().remembered_bytes <= 10_000);
    assert!(world.bus.counters().forgotten > 900);
}

#[test]
fn whoever_fills_the_memory_for_answers_makes_room_itself() {
    let mut world = World::with(Settings {
        remember_bytes_max: 100_000,
        ..Settings::default()
    });
    world.service(1, "meter");
    world.service(2, "grid");
    world.service(3, "flood");
    world.subscribe(2, json!({"name": "n"}));
    for n in 0..20 {
        world.request(1, &n.to_string(), "n", json!({"reply": "none"}));
    }
    for n in 0..2_000 {
        world.request(3, &n.to_string(), "n", json!({"reply": "none"}));
    }
    assert!(world.bus.report().remembered_bytes <= 100_000);
    for n in 20..100 {
        world.request(1, &n.to_string(), "n", json!({"reply": "none"}));
    }
    assert!(world.bus.report().remembered_bytes <= 100_000);
    world.hear(2);
    for n in 0..100 {
        world.request(1, &n.to_string(), "n", json!({"reply": "none"}));
    }
    assert!(world.hear(2).is_empty(), "all are remembered");
    world.request(3, "0", "n", json!({"reply": "none"}));
    assert_eq!(world.hear(2).len(), 1, "its own oldest made room");
}
