//! Coming in: the introduction, ids and their windows (service bus, sections 3 and 4).

use daybook_bus::{Event, Settings};
use serde_json::{Value, json};

use crate::world::{START, World, error_code};

#[test]
fn c01_a_client_is_asked_who_it_is_without_any_argument() {
    let mut world = World::new();
    world.connect(1);
    assert_eq!(world.hear_one(1), ("shake_who".to_owned(), Value::Null));
}

#[test]
fn c02_a_silent_client_is_told_408_after_two_seconds_and_has_to_leave() {
    let mut world = World::new();
    world.connect(1);
    world.hear(1);
    world.pass(1_999);
    assert!(world.hear(1).is_empty() && world.left.is_empty());
    world.pass(1);
    let heard = world.hear_one(1);
    assert_eq!(
        (heard.0.as_str(), error_code(&heard)),
        ("shake_error", "request_timeout")
    );
    assert_eq!(heard.1["error"]["status"], 408);
    assert!(world.left.contains(&1));
    world.pass(1_000);
    assert!(world.closed.contains(&1));
}

#[test]
fn c03_and_c04_a_bad_introduction_is_told_what_is_wrong_with_it() {
    for (body, code) in [
        (Value::Null, "invalid_name"),
        (json!({}), "invalid_name"),
        (json!({"name": ""}), "invalid_name"),
        (json!({"name": "a b", "key": "right"}), "invalid_name"),
        (json!({"name": 7, "key": "right"}), "invalid_name"),
        (json!([1]), "invalid_name"),
        (json!("meter"), "invalid_name"),
        (json!({"name": "meter"}), "invalid_key"),
        (json!({"name": "meter", "key": ""}), "invalid_key"),
        (json!({"name": "meter", "key": null}), "invalid_key"),
        (json!({"name": "meter", "key": "wrong"}), "invalid_key"),
    ] {
        let mut world = World::new();
        world.connect(1);
        world.hear(1);
        world.say(1, "shake_i_am", body.clone());
        let heard = world.hear_one(1);
        assert_eq!(
            (heard.0.as_str(), error_code(&heard)),
            ("shake_error", code),
            "{body}"
        );
        assert_eq!(heard.1["error"]["status"], 400);
        if code == "invalid_key" {
            assert_eq!(heard.1["error"]["legacy_code"], "invalid_secret_key");
        }
        assert!(world.left.contains(&1));
    }
}

#[test]
fn the_two_words_for_a_wrong_key_can_be_swapped() {
    let mut world = World::with(Settings {
        code_dialect: true,
        ..Settings::default()
    });
    world.connect(1);
    world.hear(1);
    world.say(1, "shake_i_am", json!({"name": "a", "key": "wrong"}));
    let heard = world.hear_one(1);
    assert_eq!(error_code(&heard), "invalid_secret_key");
    assert_eq!(heard.1["error"]["legacy_code"], "invalid_key");
}

#[test]
fn c05_an_id_is_name_milliseconds_and_hash() {
    let mut world = World::new();
    world.service(1, "grid.north");
    let hash = "01".repeat(16);
    assert_eq!(world.ids[&1], format!("grid.north.{START}.{hash}"));
}

#[test]
fn c06_a_ready_that_is_not_this_connections_is_refused() {
    for (early, body, code) in [
        (false, Value::Null, "no_id"),
        (false, json!({}), "no_id"),
        (false, json!({"id": ""}), "no_id"),
        (false, json!({"id": "x.1.2"}), "invalid_id"),
        (true, json!({"id": "x.1.2"}), "invalid_id"),
    ] {
        let mut world = World::new();
        world.connect(1);
        if !early {
            world.say(1, "shake_i_am", json!({"name": "meter", "key": "right"}));
        }
        world.hear(1);
        world.say(1, "shake_ready", body.clone());
        assert_eq!(error_code(&world.hear_one(1)), code, "{body}");
        assert!(world.left.contains(&1));
    }
}

#[test]
fn c07_only_ready_makes_an_instance_online() {
    let mut world = World::new();
    world.connect(1);
    world.say(1, "shake_i_am", json!({"name": "meter", "key": "right"}));
    assert!(world.bus.services().is_empty());
    let id = world.hear(1).pop().unwrap().1["id"].clone();
    world.say(1, "shake_ready", json!({"id": id}));
    assert_eq!(world.hear_one(1), ("shake_online".to_owned(), Value::Null));
    assert_eq!(world.bus.services()[0].json["state"], "online");
}

#[test]
fn a_second_introduction_or_ready_ends_the_connection_and_leaves_no_ghost() {
    for event in ["shake_i_am", "shake_ready"] {
        let mut world = World::new();
        world.service(1, "meter");
        let id = world.ids[&1].clone();
        world.say(1, event, json!({"name": "meter", "key": "right", "id": id}));
        assert_eq!(error_code(&world.hear_one(1)), "already_identified");
        assert!(world.left.contains(&1) && world.bus.services().is_empty());
    }
}

#[test]
fn traffic_before_online_is_refused() {
    let mut world = World::new();
    world.connect(1);
    world.hear(1);
    for (event, error) in [
        ("api:request", "api:request:error"),
        ("api:response", "api:response:error"),
    ] {
        let body = json!({"name": "x", "request_id": "r", "sender_id": "s", "recipient_id": "t"});
        world.say(1, event, body);
        let heard = world.hear_one(1);
        assert_eq!(
            (heard.0.as_str(), error_code(&heard)),
            (error, "not_online")
        );
    }
}

#[test]
fn a_revoked_key_ends_its_connections_at_once_and_for_good() {
    let mut world = World::new();
    world.service(1, "meter");
    world.handle(Event::Revoked { key_id: "k2" });
    assert!(world.hear(1).is_empty());
    world.handle(Event::Revoked { key_id: "k1" });
    assert_eq!(error_code(&world.hear_one(1)), "revoked");
    assert!(world.left.contains(&1) && world.bus.services().is_empty());
    world.lose(1);
    let resume = json!({"id": world.ids[&1], "token": world.tokens[&1]});
    world.introduce(2, "meter", json!({"resume": resume}));
    assert_ne!(world.ids[&1], world.ids[&2]);
}

#[test]
fn a_lost_connection_comes_back_under_its_id_and_gets_the_answer_it_missed() {
    let mut world = World::new();
    world.service(1, "meter");
    world.service(2, "grid");
    world.subscribe(2, json!({"name": "grid.read"}));
    world.request(1, "r1", "grid.read", json!({}));
    world.lose(1);
    let request = world.hear_one(2).1;
    world.answer(2, &request, json!(1));
    let resume = json!({"id": world.ids[&1], "token": world.tokens[&1]});
    world.connect(3);
    world.say(
        3,
        "shake_i_am",
        json!({"name": "meter", "key": "right", "resume": resume}),
    );
    let id = world.hear(3).pop().unwrap().1;
    assert_eq!(id["id"], world.ids[&1]);
    assert_ne!(id["resume_token"], world.tokens[&1]);
    world.say(3, "shake_ready", json!({"id": id["id"]}));
    let heard = world.hear(3);
    assert_eq!(heard[1].1["data"], 1);
}

#[test]
fn an_id_is_not_given_to_a_wrong_token_or_after_its_window() {
    for (wait, token) in [(0, "guess"), (30_001, "right")] {
        let mut world = World::new();
        world.service(1, "meter");
        world.lose(1);
        world.pass(wait);
        let token = match token {
            "right" => world.tokens[&1].clone(),
            guess => guess.to_owned(),
        };
        let resume = json!({"id": world.ids[&1], "token": token});
        world.introduce(2, "meter", json!({"resume": resume}));
        assert_ne!(world.ids[&1], world.ids[&2]);
    }
}
