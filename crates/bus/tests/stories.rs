//! The broker's rules, told without a socket (service bus, section 16).
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use daybook_bus::{
    Bus, CallId, ConnId, Effect, Event, Grant, KeyVerdict, Moment, Note, Packet, Pattern, Rooms,
    Settings, StoreOp, Stored, Ticket,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const START: u64 = 1_767_225_600_000;

/// An outbound queue that takes so many messages until somebody reads.
#[derive(Default)]
struct Queue {
    waiting: AtomicUsize,
    max: AtomicUsize,
}

impl Rooms for Queue {
    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.max.load(Ordering::Relaxed)
    }
}

struct World {
    bus: Bus,
    now: Moment,
    inbox: BTreeMap<u64, Vec<(String, Value)>>,
    acks: BTreeMap<u64, Vec<Value>>,
    left: BTreeSet<u64>,
    closed: BTreeSet<u64>,
    rooms: BTreeMap<u64, Arc<Queue>>,
    ids: BTreeMap<u64, String>,
    tokens: BTreeMap<u64, String>,
    store: BTreeMap<(u8, (u64, u64)), Stored>,
    store_works: bool,
    locals: Vec<(Option<CallId>, String)>,
    random: u8,
    grant: Grant,
    notes: Vec<Note>,
    notes_work: bool,
    /// Writes and flushes that are not told as done yet, where they are held back.
    disk_waits: Option<Vec<Ticket>>,
}

impl World {
    fn new() -> World {
        World::with(Settings::default())
    }

    fn with(settings: Settings) -> World {
        World::restart(settings, BTreeMap::new(), Moment(START * 1_000))
    }

    fn restart(
        settings: Settings,
        store: BTreeMap<(u8, (u64, u64)), Stored>,
        now: Moment,
    ) -> World {
        let stored: Vec<Stored> = store.values().cloned().collect();
        World {
            bus: Bus::new(settings, now, &stored).unwrap(),
            now,
            inbox: BTreeMap::new(),
            acks: BTreeMap::new(),
            left: BTreeSet::new(),
            closed: BTreeSet::new(),
            rooms: BTreeMap::new(),
            ids: BTreeMap::new(),
            tokens: BTreeMap::new(),
            store,
            store_works: true,
            locals: Vec::new(),
            random: 0,
            grant: Grant::everything("k1"),
            notes: Vec::new(),
            notes_work: true,
            disk_waits: None,
        }
    }

    /// A broker whose notes outlive it.
    fn noting() -> World {
        World::with(Settings {
            notes: true,
            ..Settings::default()
        })
    }

    /// The same broker, killed and started again: everyone is gone, and what is on disk is there.
    fn killed(self) -> World {
        let settings = Settings {
            notes: true,
            ..Settings::default()
        };
        let mut next = World::restart(settings, self.store, self.now);
        next.bus.recall(self.notes.iter().cloned());
        next.notes = self.notes;
        next.random = self.random;
        (next.ids, next.tokens) = (self.ids, self.tokens);
        next.handle(Event::Tick);
        next
    }

    /// The instance of the connection `old` comes back on another one.
    fn comes_back(&mut self, old: u64, conn: u64, name: &str) {
        let (id, token) = (self.ids[&old].clone(), self.tokens[&old].clone());
        self.introduce_as(
            conn,
            name,
            json!({"features": ["subscribe"], "resume": {"id": id, "token": token}}),
        );
    }

    fn handle(&mut self, event: Event<'_>) {
        self.bus.handle(self.now, event);
        loop {
            let effects: Vec<Effect> = self.bus.effects().collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, frame } => {
                if let Some(rest) = frame.strip_prefix("3/communication,") {
                    let list = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                    let list: Vec<Value> = serde_json::from_str(list).unwrap();
                    self.acks.entry(to.0).or_default().push(list[0].clone());
                    return;
                }
                self.rooms[&to.0].waiting.fetch_add(1, Ordering::Relaxed);
                let Packet::Event { name, argument, .. } = Packet::read(&frame).unwrap() else {
                    panic!("{frame}")
                };
                let argument = argument.map_or(Value::Null, |a| serde_json::from_str(a).unwrap());
                self.inbox
                    .entry(to.0)
                    .or_default()
                    .push((name.into_owned(), argument));
            }
            Effect::Farewell { conn } => drop(self.left.insert(conn.0)),
            Effect::Close { conn, .. } => drop(self.closed.insert(conn.0)),
            Effect::CheckKey { conn, key, .. } => {
                self.random = self.random.wrapping_add(1);
                let verdict = match key.0 == "right" {
                    true => KeyVerdict::Granted(Arc::new(self.grant.clone())),
                    false => KeyVerdict::Wrong,
                };
                let random = [self.random; 32];
                self.bus.handle(
                    self.now,
                    Event::KeyChecked {
                        conn,
                        verdict,
                        random,
                    },
                );
            }
            Effect::Local(local) => self.locals.push((local.call, local.body.to_string())),
            Effect::Store { ops, ticket } => {
                if self.store_works {
                    for op in ops {
                        match op {
                            StoreOp::Put(stored) => {
                                self.store.insert((stored.shelf, stored.key), stored);
                            }
                            StoreOp::Delete { shelf, key } => {
                                self.store.remove(&(shelf, key));
                            }
                        }
                    }
                }
                if let Some(ticket) = ticket {
                    self.told(ticket, self.store_works);
                }
            }
            Effect::Note(note) => {
                if self.notes_work {
                    self.notes.push(note);
                }
            }
            Effect::Flush { ticket } => self.told(ticket, self.notes_work),
            Effect::Feed { .. }
            | Effect::EndFeed { .. }
            | Effect::Began { .. }
            | Effect::Ended { .. } => {}
        }
    }

    fn told(&mut self, ticket: Ticket, ok: bool) {
        match &mut self.disk_waits {
            Some(waits) => waits.push(ticket),
            None => self.bus.handle(self.now, Event::Stored { ticket, ok }),
        }
    }

    fn connect(&mut self, conn: u64) {
        let room = Arc::new(Queue {
            waiting: AtomicUsize::new(0),
            max: AtomicUsize::new(usize::MAX),
        });
        self.rooms.insert(conn, room.clone());
        self.handle(Event::Connected {
            conn: ConnId(conn),
            protocol: 4,
            room,
        });
    }

    fn say(&mut self, conn: u64, name: &str, body: Value) {
        let text = body.to_string();
        self.handle(Event::Packet {
            conn: ConnId(conn),
            name,
            argument: (!body.is_null()).then_some(&text),
            ack: Some(1),
        });
    }

    fn introduce(&mut self, conn: u64, name: &str, more: Value) {
        self.introduce_as(conn, name, more);
        assert_eq!(self.hear(conn)[0].0, "shake_online");
    }

    /// As [`World::introduce`]; what came with `shake_online` is still to be heard.
    fn introduce_as(&mut self, conn: u64, name: &str, more: Value) {
        let mut body = json!({"name": name, "key": "right"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.connect(conn);
        self.say(conn, "shake_i_am", body);
        let heard = self.hear(conn);
        let (name, id) = heard.last().unwrap();
        assert_eq!(name, "shake_id");
        self.ids.insert(conn, id["id"].as_str().unwrap().to_owned());
        self.tokens
            .insert(conn, id["resume_token"].as_str().unwrap().to_owned());
        let id = self.ids[&conn].clone();
        self.say(conn, "shake_ready", json!({"id": id}));
    }

    /// A service of today: it hears what it subscribes to.
    fn service(&mut self, conn: u64, name: &str) {
        self.introduce(conn, name, json!({"features": ["subscribe"]}));
    }

    /// An untouched old service.
    fn legacy(&mut self, conn: u64, name: &str) {
        self.introduce(conn, name, json!({}));
    }

    fn subscribe(&mut self, conn: u64, body: Value) {
        self.say(conn, "_service:api:request:subscribe", body);
    }

    fn request(&mut self, conn: u64, id: &str, name: &str, more: Value) {
        let mut body = json!({"name": name, "request_id": id, "sender_id": self.ids[&conn]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.say(conn, "api:request", body);
    }

    /// Answers a delivered request.
    fn answer(&mut self, conn: u64, request: &Value, data: Value) {
        let mut body = request.clone();
        body["recipient_id"] = self.ids[&conn].clone().into();
        body["data"] = data;
        self.say(conn, "api:response", body);
    }

    fn hear(&mut self, conn: u64) -> Vec<(String, Value)> {
        if let Some(room) = self.rooms.get(&conn) {
            room.waiting.store(0, Ordering::Relaxed);
        }
        self.inbox.remove(&conn).unwrap_or_default()
    }

    fn hear_one(&mut self, conn: u64) -> (String, Value) {
        let mut heard = self.hear(conn);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    fn ack(&mut self, conn: u64) -> Value {
        self.acks.get_mut(&conn).unwrap().pop().unwrap()
    }

    fn pass(&mut self, millis: u64) {
        let until = self.now.after_ms(millis);
        while let Some(next) = self.bus.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(next);
            self.handle(Event::Tick);
        }
        self.now = until;
    }

    fn lose(&mut self, conn: u64) {
        self.handle(Event::Disconnected { conn: ConnId(conn) });
    }
}

fn error_code(heard: &(String, Value)) -> &str {
    heard.1["error"]["code"].as_str().unwrap()
}

// --- handshake ---------------------------------------------------------------------------------------

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

// --- requests and answers ----------------------------------------------------------------------------

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

// --- durable subscriptions ---------------------------------------------------------------------------

/// What the overview says, with times and ids left out.
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

// --- everything at once ------------------------------------------------------------------------------

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
