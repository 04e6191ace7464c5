//! A broker without sockets, disk or clock, and the services on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use daybook_bus::{
    Bus, CallId, ConnId, Effect, Event, Grant, KeyVerdict, Moment, Note, Packet, Rooms, Settings,
    StoreOp, Stored, Ticket,
};
use serde_json::{Value, json};

pub(crate) const START: u64 = 1_767_225_600_000;

/// An outbound queue that takes so many messages until somebody reads.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) waiting: AtomicUsize,
    pub(crate) max: AtomicUsize,
}

impl Rooms for Queue {
    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.max.load(Ordering::Relaxed)
    }
}

pub(crate) struct World {
    pub(crate) bus: Bus,
    pub(crate) now: Moment,
    pub(crate) inbox: BTreeMap<u64, Vec<(String, Value)>>,
    pub(crate) acks: BTreeMap<u64, Vec<Value>>,
    pub(crate) left: BTreeSet<u64>,
    pub(crate) closed: BTreeSet<u64>,
    pub(crate) rooms: BTreeMap<u64, Arc<Queue>>,
    pub(crate) ids: BTreeMap<u64, String>,
    pub(crate) tokens: BTreeMap<u64, String>,
    pub(crate) store: BTreeMap<(u8, (u64, u64)), Stored>,
    pub(crate) store_works: bool,
    pub(crate) locals: Vec<(Option<CallId>, String)>,
    pub(crate) random: u8,
    pub(crate) grant: Grant,
    pub(crate) notes: Vec<Note>,
    pub(crate) notes_work: bool,
    /// Writes and flushes that are not told as done yet, where they are held back.
    pub(crate) disk_waits: Option<Vec<Ticket>>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> World {
        World::restart(settings, BTreeMap::new(), Moment(START * 1_000))
    }

    pub(crate) fn restart(
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
    pub(crate) fn noting() -> World {
        World::with(Settings {
            notes: true,
            ..Settings::default()
        })
    }

    /// The same broker, killed and started again: everyone is gone, and what is on disk is there.
    pub(crate) fn killed(self) -> World {
        let settings = Settings {
            notes: true,
            ..Settings::default()
        };
        let mut next = World::restart(settings, self.store, self.now);
        // What is kept takes the place of all notes before it.
        next.notes = next.bus.recall(self.notes);
        next.random = self.random;
        (next.ids, next.tokens) = (self.ids, self.tokens);
        next.handle(Event::Tick);
        next
    }

    /// The instance of the connection `old` comes back on another one.
    pub(crate) fn comes_back(&mut self, old: u64, conn: u64, name: &str) {
        let (id, token) = (self.ids[&old].clone(), self.tokens[&old].clone());
        self.introduce_as(
            conn,
            name,
            json!({"features": ["subscribe"], "resume": {"id": id, "token": token}}),
        );
    }

    pub(crate) fn handle(&mut self, event: Event<'_>) {
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

    pub(crate) fn perform(&mut self, effect: Effect) {
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

    pub(crate) fn told(&mut self, ticket: Ticket, ok: bool) {
        match &mut self.disk_waits {
            Some(waits) => waits.push(ticket),
            None => self.bus.handle(self.now, Event::Stored { ticket, ok }),
        }
    }

    pub(crate) fn connect(&mut self, conn: u64) {
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

    pub(crate) fn say(&mut self, conn: u64, name: &str, body: Value) {
        let text = body.to_string();
        self.handle(Event::Packet {
            conn: ConnId(conn),
            name,
            argument: (!body.is_null()).then_some(&text),
            ack: Some(1),
        });
    }

    pub(crate) fn introduce(&mut self, conn: u64, name: &str, more: Value) {
        self.introduce_as(conn, name, more);
        assert_eq!(self.hear(conn)[0].0, "shake_online");
    }

    /// As [`World::introduce`]; what came with `shake_online` is still to be heard.
    pub(crate) fn introduce_as(&mut self, conn: u64, name: &str, more: Value) {
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
    pub(crate) fn service(&mut self, conn: u64, name: &str) {
        self.introduce(conn, name, json!({"features": ["subscribe"]}));
    }

    /// An untouched old service.
    pub(crate) fn legacy(&mut self, conn: u64, name: &str) {
        self.introduce(conn, name, json!({}));
    }

    pub(crate) fn subscribe(&mut self, conn: u64, body: Value) {
        self.say(conn, "_service:api:request:subscribe", body);
    }

    pub(crate) fn request(&mut self, conn: u64, id: &str, name: &str, more: Value) {
        let mut body = json!({"name": name, "request_id": id, "sender_id": self.ids[&conn]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.say(conn, "api:request", body);
    }

    /// As [`World::request`], without a wish to hear that it was taken.
    pub(crate) fn request_silently(&mut self, conn: u64, id: &str, name: &str) {
        let body = json!({"name": name, "request_id": id, "sender_id": self.ids[&conn]});
        self.handle(Event::Packet {
            conn: ConnId(conn),
            name: "api:request",
            argument: Some(&body.to_string()),
            ack: None,
        });
    }

    /// Answers a delivered request.
    pub(crate) fn answer(&mut self, conn: u64, request: &Value, data: Value) {
        let mut body = request.clone();
        body["recipient_id"] = self.ids[&conn].clone().into();
        body["data"] = data;
        self.say(conn, "api:response", body);
    }

    pub(crate) fn hear(&mut self, conn: u64) -> Vec<(String, Value)> {
        if let Some(room) = self.rooms.get(&conn) {
            room.waiting.store(0, Ordering::Relaxed);
        }
        self.inbox.remove(&conn).unwrap_or_default()
    }

    pub(crate) fn hear_one(&mut self, conn: u64) -> (String, Value) {
        let mut heard = self.hear(conn);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    pub(crate) fn ack(&mut self, conn: u64) -> Value {
        self.acks.get_mut(&conn).unwrap().pop().unwrap()
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        let until = self.now.after_ms(millis);
        while let Some(next) = self.bus.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(next);
            self.handle(Event::Tick);
        }
        self.now = until;
    }

    pub(crate) fn lose(&mut self, conn: u64) {
        self.handle(Event::Disconnected { conn: ConnId(conn) });
    }
}

pub(crate) fn error_code(heard: &(String, Value)) -> &str {
    heard.1["error"]["code"].as_str().unwrap()
}
