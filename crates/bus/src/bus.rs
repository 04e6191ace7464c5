//! The broker's state, and the one door to change it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use serde_json::json;

use crate::{
    Code, Counters, Fault, Grant, Moment, Note, Settings, Subscription,
    counters::Pace,
    durable::{Durables, Shelf},
    index::Index,
    message::{Reply, quoted},
    packet::{ack_text, packet_text},
    remember::Memory,
};

/// Numbers of the bus's own, and times in microseconds, that are read back: no broker comes to them in a
/// hundred thousand years, and counting goes on after them.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 2;

/// A connection, numbered by the gateway; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A request that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(crate) u64);

/// A write whose end the core waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The text of one packet, shared by all who receive it.
pub type Frame = Arc<str>;

/// The room in a connection's outbound queue, as the gateway counts it.
pub trait Rooms: Send + Sync {
    /// True when one more message fits. After a `false` the gateway tells [`Event::Drained`] once
    /// there is room again.
    fn has_room(&self) -> bool;
}

/// Room without end, for the node's own services and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unbounded;

impl Rooms for Unbounded {
    fn has_room(&self) -> bool {
        true
    }
}

/// What became of a key check.
#[derive(Clone)]
pub enum KeyVerdict {
    /// The key is right and grants this.
    Granted(Arc<Grant>),
    /// The key is wrong, or nobody has this name.
    Wrong,
    /// Too many checks are waiting.
    Busy,
}

/// What happened.
pub enum Event<'a> {
    /// A client entered the namespace.
    Connected {
        /// Its number.
        conn: ConnId,
        /// The revision of Engine.IO that it speaks.
        protocol: u8,
        /// Its outbound queue.
        room: Arc<dyn Rooms>,
    },
    /// A client sent an event.
    Packet {
        /// Who.
        conn: ConnId,
        /// The event's name.
        name: &'a str,
        /// The text of its first argument.
        argument: Option<&'a str>,
        /// The number of the acknowledgement that it asks for.
        ack: Option<u64>,
    },
    /// A client sent attachments, which are not taken.
    Binary {
        /// Who.
        conn: ConnId,
    },
    /// The connection ended, or left the namespace.
    Disconnected {
        /// Which.
        conn: ConnId,
    },
    /// There is room again in an outbound queue that had none.
    Drained {
        /// Whose.
        conn: ConnId,
    },
    /// A key was compared.
    KeyChecked {
        /// For whom.
        conn: ConnId,
        /// The outcome.
        verdict: KeyVerdict,
        /// Fresh random bytes: half for the id, half for the resume token.
        random: [u8; 32],
    },
    /// A key holds no longer.
    Revoked {
        /// Which.
        key_id: &'a str,
    },
    /// A write ended.
    Stored {
        /// Which.
        ticket: Ticket,
        /// It is on disk.
        ok: bool,
    },
    /// The node answered a request to one of its own names.
    LocalAnswer {
        /// Which.
        call: CallId,
        /// JSON of `data`, or of `error`.
        result: Result<String, String>,
    },
    /// Notes cannot be written any more, so nothing is taken whose repetition would not be known.
    Forgetful,
    /// Put the dead letters of a name back to where they came from.
    Replay {
        /// The name.
        name: &'a str,
    },
    /// The node is going to stop.
    Drain {
        /// When it will.
        deadline: Moment,
    },
    /// Time passed; see [`Bus::next_deadline`].
    Tick,
}

/// What the gateway has to do, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Send a packet.
    Send {
        /// To whom.
        to: ConnId,
        /// What.
        frame: Frame,
    },
    /// Tell a client that it has left the namespace. Nothing is sent to it afterwards.
    Farewell {
        /// Whom.
        conn: ConnId,
    },
    /// End a connection, whatever its state.
    Close {
        /// Which.
        conn: ConnId,
        /// Why, for the log.
        reason: &'static str,
    },
    /// Compare a key, then tell [`Event::KeyChecked`].
    CheckKey {
        /// For whom.
        conn: ConnId,
        /// The name that it claims.
        name: String,
        /// The key that it shows.
        key: Secret,
    },
    /// Answer a request to one of the node's own names.
    Local(Local),
    /// Deliver the node's own events to a connection.
    Feed {
        /// To whom.
        conn: ConnId,
        /// The subscription's payload.
        arguments: String,
    },
    /// Deliver them no longer.
    EndFeed {
        /// To whom.
        conn: ConnId,
    },
    /// Write, all or nothing, then tell [`Event::Stored`] if there is a ticket.
    Store {
        /// What.
        ops: Vec<StoreOp>,
        /// Who waits.
        ticket: Option<Ticket>,
    },
    /// Write a note ([`Settings::notes`]). It is written before anything that is asked for after it is
    /// done, and flushed soon.
    Note(Note),
    /// Tell [`Event::Stored`] once every note so far is flushed.
    Flush {
        /// Who waits.
        ticket: Ticket,
    },
    /// A call began ([`Settings::tracing`]).
    Began {
        /// Which.
        call: CallId,
        /// Its request's name.
        name: Arc<str>,
        /// Its request's id.
        request_id: Arc<str>,
        /// JSON of the `trace` field.
        trace: Option<String>,
    },
    /// A call ended ([`Settings::tracing`]).
    Ended {
        /// Which.
        call: CallId,
        /// `answer`, `error` or the broker's code.
        outcome: &'static str,
        /// How long it took.
        micros: u64,
    },
}

/// A request to one of the node's own names.
#[derive(Debug)]
pub struct Local {
    /// What to answer to; `None` when nobody waits.
    pub call: Option<CallId>,
    /// The name.
    pub name: Arc<str>,
    /// The whole request.
    pub body: Arc<str>,
}

/// One change of what survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Put a value under a key.
    Put(Stored),
    /// Take it away.
    Delete {
        /// Which shelf.
        shelf: u8,
        /// The key.
        key: (u64, u64),
    },
}

/// A value that survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which shelf it lies on.
    pub shelf: u8,
    /// Its key there.
    pub key: (u64, u64),
    /// The value.
    pub value: Arc<str>,
}

/// A key on its way to be compared, or a token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

pub(crate) type InstanceNo = u64;
pub(crate) type ById<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;
pub(crate) type IdSet = HashSet<u64, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers that we count up ourselves, which nobody outside can choose.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// How far a connection's handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Silent,
    Checking,
    Named,
    Online,
    /// The broker has said good-bye.
    Leaving,
}

pub(crate) struct Conn {
    pub(crate) phase: Phase,
    pub(crate) protocol: u8,
    pub(crate) room: Arc<dyn Rooms>,
    pub(crate) timer: Option<Moment>,
    pub(crate) instance: Option<InstanceNo>,
    /// Between the introduction and its verdict.
    pub(crate) introduced: Option<Introduced>,
}

pub(crate) struct Introduced {
    pub(crate) name: Arc<str>,
    pub(crate) version: Option<String>,
    pub(crate) subscribes: bool,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) resume: Option<(String, String)>,
}

/// One service instance. It outlives its connection for a while, so that it may come back.
pub(crate) struct Instance {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) conn: Option<ConnId>,
    pub(crate) room: Arc<dyn Rooms>,
    pub(crate) online: bool,
    pub(crate) local: bool,
    pub(crate) grant: Arc<Grant>,
    pub(crate) token: String,
    pub(crate) version: Option<String>,
    pub(crate) protocol: u8,
    pub(crate) connected_at: Moment,
    pub(crate) catch_all: bool,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) feed: bool,
    pub(crate) in_flight: u32,
    pub(crate) in_flight_max: u32,
    pub(crate) queues: BTreeMap<Arc<str>, QueueUse>,
    /// Calls that wait for this instance's answer.
    pub(crate) assigned: IdSet,
    /// Its own requests.
    pub(crate) memory: Memory,
    pub(crate) open_calls: usize,
    /// Answers that came while it was away.
    pub(crate) parked: Vec<Frame>,
    pub(crate) slow: Option<Slow>,
    pub(crate) bucket: Bucket,
    pub(crate) forget_at: Option<Moment>,
}

impl Instance {
    /// One that is not online, and has asked for nothing.
    pub(crate) fn new(
        id: Arc<str>,
        name: Arc<str>,
        grant: Arc<Grant>,
        room: Arc<dyn Rooms>,
    ) -> Instance {
        Instance {
            id,
            name,
            conn: None,
            room,
            online: false,
            local: false,
            grant,
            token: String::new(),
            version: None,
            protocol: 0,
            connected_at: Moment::default(),
            catch_all: false,
            subscriptions: Vec::new(),
            feed: false,
            in_flight: 0,
            in_flight_max: 1,
            queues: BTreeMap::new(),
            assigned: IdSet::default(),
            memory: Memory::default(),
            open_calls: 0,
            parked: Vec::new(),
            slow: None,
            bucket: Bucket::default(),
            forget_at: None,
        }
    }

    /// Keeps an answer until the instance comes back, if there is room.
    pub(crate) fn park(&mut self, frame: Frame) -> bool {
        let fits = self.parked.len() < PARKED_MAX;
        if fits {
            self.parked.push(frame);
        }
        fits
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueUse {
    pub(crate) in_flight: u32,
    pub(crate) max: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    pub(crate) since: Moment,
    pub(crate) dropped: u64,
    pub(crate) deadline: Moment,
}

/// Requests that may still come at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) micro_tokens: u64,
    pub(crate) at: Moment,
}

pub(crate) struct Call {
    pub(crate) requester: InstanceNo,
    pub(crate) request_id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) reply: Reply,
    pub(crate) retry: bool,
    pub(crate) one: bool,
    pub(crate) sticky: Option<u64>,
    pub(crate) frame: Frame,
    pub(crate) body: Option<Arc<str>>,
    pub(crate) expected: u32,
    pub(crate) received: u32,
    pub(crate) open: Vec<Open>,
    pub(crate) answered: Vec<InstanceNo>,
    pub(crate) waiting: Vec<(Arc<str>, WaitKey)>,
    /// Copies in durable subscriptions, which may be answered as long as the call is open.
    pub(crate) durable: u32,
    pub(crate) began: Moment,
    pub(crate) deadline: Moment,
    /// It was delivered at least once.
    pub(crate) delivered: bool,
    pub(crate) overloaded: bool,
}

/// A delivery that may be answered.
pub(crate) struct Open {
    pub(crate) instance: InstanceNo,
    pub(crate) queue: Option<Arc<str>>,
    /// It counts among the instance's unanswered deliveries.
    pub(crate) counted: bool,
}

/// Higher priority first, then in the order of coming.
pub(crate) type WaitKey = (u8, u64);

#[derive(Default)]
pub(crate) struct Line {
    pub(crate) calls: BTreeMap<WaitKey, CallId>,
    pub(crate) cursor: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Handshake(ConnId),
    Call(CallId),
    Close(ConnId),
    Slow(InstanceNo),
    Forget(InstanceNo),
    Delivery(u64, u64),
    Sweep,
    DrainEnds,
}

/// How often answers whose window ended are thrown away, in milliseconds.
const SWEEP_MS: u64 = 5_000;
/// Answers kept for an instance that is away.
pub(crate) const PARKED_MAX: usize = 1_024;
/// Instances that are away and may come back; the oldest are forgotten early.
const AWAY_MAX: usize = 10_000;
/// The name of the node's own service on the bus.
const LOCAL_NAME: &str = "ledger";
/// Unanswered requests at the node's own services.
const LOCAL_IN_FLIGHT_MAX: u32 = 256;
/// No client can name this queue.
pub(crate) const LOCAL_QUEUE: &str = "";

/// The broker.
pub struct Bus {
    pub(crate) settings: Settings,
    pub(crate) now: Moment,
    pub(crate) effects: Vec<Effect>,
    pub(crate) counters: Counters,
    pub(crate) pace: Pace,
    pub(crate) conns: ById<Conn>,
    pub(crate) instances: ById<Instance>,
    pub(crate) by_id: HashMap<Arc<str>, InstanceNo>,
    pub(crate) away: VecDeque<InstanceNo>,
    pub(crate) index: Index,
    pub(crate) calls: ById<Call>,
    pub(crate) lines: HashMap<Arc<str>, Line>,
    pub(crate) line_bytes: usize,
    pub(crate) timers: BTreeSet<(Moment, Timer)>,
    pub(crate) remembered_bytes: usize,
    pub(crate) presence: BTreeSet<InstanceNo>,
    pub(crate) dead_listeners: BTreeSet<InstanceNo>,
    pub(crate) durables: Durables,
    pub(crate) local: Option<InstanceNo>,
    pub(crate) draining: bool,
    /// Notes cannot be written.
    pub(crate) forgetful: bool,
    next_number: u64,
}

impl Bus {
    /// A broker at `now`. `stored` is everything that was put on the store and not taken away.
    ///
    /// # Errors
    /// When a stored value is not what this program writes.
    pub fn new(settings: Settings, now: Moment, stored: &[Stored]) -> Result<Bus, String> {
        let mut bus = Bus {
            now,
            effects: Vec::new(),
            counters: Counters::default(),
            pace: Pace::default(),
            conns: ById::default(),
            instances: ById::default(),
            by_id: HashMap::new(),
            away: VecDeque::new(),
            index: Index::default(),
            calls: ById::default(),
            lines: HashMap::new(),
            line_bytes: 0,
            timers: BTreeSet::new(),
            remembered_bytes: 0,
            presence: BTreeSet::new(),
            dead_listeners: BTreeSet::new(),
            durables: Durables::default(),
            local: None,
            draining: false,
            forgetful: false,
            next_number: 1,
            settings,
        };
        bus.restore(stored)?;
        bus.timers.insert((now.after_ms(SWEEP_MS), Timer::Sweep));
        if !bus.settings.local.is_empty() {
            bus.add_local();
        }
        Ok(bus)
    }

    /// Takes in what happened at `now`. What has to be done is in [`Bus::effects`] afterwards.
    pub fn handle(&mut self, now: Moment, event: Event<'_>) {
        self.now = self.now.max(now);
        match event {
            Event::Connected {
                conn,
                protocol,
                room,
            } => self.connected(conn, protocol, room),
            Event::Packet {
                conn,
                name,
                argument,
                ack,
            } => self.packet(conn, name, argument, ack),
            Event::Binary { conn } => self.binary(conn),
            Event::Disconnected { conn } => self.disconnected(conn),
            Event::Drained { conn } => self.drained(conn),
            Event::KeyChecked {
                conn,
                verdict,
                random,
            } => self.key_checked(conn, verdict, &random),
            Event::Revoked { key_id } => self.revoked(key_id),
            Event::Stored { ticket, ok } => self.stored(ticket, ok),
            Event::LocalAnswer { call, result } => self.local_answer(call, result),
            Event::Forgetful => self.forgetful = true,
            Event::Replay { name } => self.replay(name),
            Event::Drain { deadline } => self.drain(deadline),
            Event::Tick => {}
        }
        self.run_timers();
    }

    /// What has to be done, in order. Taking it empties it.
    pub fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// When [`Event::Tick`] is due, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests under way.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    fn packet(&mut self, conn: ConnId, name: &str, argument: Option<&str>, ack: Option<u64>) {
        let Some(phase) = self.conns.get(&conn.0).map(|c| c.phase) else {
            return;
        };
        if phase == Phase::Leaving {
            return;
        }
        if let Some(text) = argument {
            let code = if text.len() > self.settings.payload_bytes_max {
                Some(Code::PayloadTooLarge)
            } else if !crate::depth_within(text, crate::JSON_DEPTH_MAX) {
                Some(Code::InvalidData)
            } else {
                None
            };
            if let Some(code) = code {
                return self.refuse(conn, name, Fault::new(code), ack);
            }
        }
        match name {
            "api:request" => self.request(conn, argument, ack),
            "api:response" => self.response(conn, argument, ack),
            "shake_i_am" | "iam" => self.introduced(conn, argument),
            "shake_ready" => self.ready(conn, argument),
            "_service:api:request:subscribe" => self.subscribe(conn, argument, ack),
            "_service:api:request:unsubscribe" => self.unsubscribe(conn, argument, ack),
            "_service:ack" => self.acknowledge(conn, argument, true, ack),
            "_service:nak" => self.acknowledge(conn, argument, false, ack),
            _ => {
                let what = "this broker does not know the event";
                self.refuse(conn, name, Fault::because(Code::InvalidData, what), ack);
            }
        }
    }

    fn binary(&mut self, conn: ConnId) {
        let what = "attachments are not taken; send text";
        self.refuse(
            conn,
            "api:request",
            Fault::because(Code::InvalidData, what),
            None,
        );
    }

    /// Answers an event with the error event that belongs to it (section 7).
    pub(crate) fn refuse(&mut self, conn: ConnId, event: &str, fault: Fault, ack: Option<u64>) {
        *self.counters.refused.entry(fault.code).or_default() += 1;
        if event.starts_with("shake_") || event == "iam" {
            return self.farewell(conn, fault);
        }
        let dialect = self.settings.code_dialect;
        let (name, body) = match event {
            "api:response" => ("\"api:response:error\"", fault.wrapped(dialect)),
            "api:request" => ("\"api:request:error\"", fault.wrapped(dialect)),
            _ => ("\"_service:error\"", fault.flat()),
        };
        self.send(conn, packet_text(name, Some(&body.to_string())));
        if let Some(ack) = ack {
            let mut body = fault.wrapped(dialect);
            body["ok"] = false.into();
            self.send(conn, ack_text(ack, &body.to_string()));
        }
    }

    pub(crate) fn acknowledge_packet(
        &mut self,
        conn: ConnId,
        ack: Option<u64>,
        body: serde_json::Value,
    ) {
        if let Some(ack) = ack {
            self.send(conn, ack_text(ack, &body.to_string()));
        }
    }

    /// Sends control traffic, which is small and bounded by what it answers.
    pub(crate) fn send(&mut self, to: ConnId, frame: Frame) {
        self.effects.push(Effect::Send { to, frame });
    }

    /// Makes a note, if notes are made.
    pub(crate) fn note(&mut self, note: impl FnOnce() -> Note) {
        if self.settings.notes {
            self.effects.push(Effect::Note(note()));
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// # Panics
    ///
    /// When what was read has a number beyond [`NUMBER_MAX`]; readers refuse such.
    pub(crate) fn numbers_begin_after(&mut self, used: u64) {
        self.next_number = self.next_number.max(used + 1);
    }

    /// The instance of a connection that has finished its handshake.
    pub(crate) fn online(&self, conn: ConnId) -> Result<InstanceNo, Code> {
        match self.conns.get(&conn.0) {
            Some(Conn {
                phase: Phase::Online,
                instance: Some(no),
                ..
            }) => Ok(*no),
            _ => Err(Code::NotOnline),
        }
    }

    /// Sends to an instance, unless its outbound queue is full. An instance that is away gets answers
    /// when it comes back.
    pub(crate) fn send_to(&mut self, no: InstanceNo, frame: Frame) -> bool {
        let Some(instance) = self.instances.get_mut(&no) else {
            return false;
        };
        let Some(conn) = instance.conn else {
            return instance.park(frame);
        };
        if !instance.room.has_room() {
            self.counters.dropped += 1;
            self.note_slow(no, 1);
            return false;
        }
        self.effects.push(Effect::Send { to: conn, frame });
        true
    }

    /// An outbound queue was found full.
    pub(crate) fn note_slow(&mut self, no: InstanceNo, dropped: u64) {
        let deadline = self.now.after_ms(self.settings.slow_ms);
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        match &mut instance.slow {
            Some(slow) => slow.dropped += dropped,
            None => {
                instance.slow = Some(Slow {
                    since: self.now,
                    dropped,
                    deadline,
                });
                self.timers.insert((deadline, Timer::Slow(no)));
            }
        }
    }

    fn drained(&mut self, conn: ConnId) {
        let Some(no) = self.conns.get(&conn.0).and_then(|c| c.instance) else {
            return;
        };
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        if let Some(slow) = instance.slow.take() {
            self.timers.remove(&(slow.deadline, Timer::Slow(no)));
            let body = json!({"dropped": slow.dropped, "since": slow.since.millis()});
            let text = packet_text("\"_service:slow_consumer\"", Some(&body.to_string()));
            self.send(conn, text);
        }
        self.capacity_returned(no);
    }

    /// An instance may have become able to take work.
    pub(crate) fn capacity_returned(&mut self, no: InstanceNo) {
        let Some(instance) = self.instances.get(&no) else {
            return;
        };
        let queues: Vec<Arc<str>> = instance.queues.keys().cloned().collect();
        for queue in queues {
            self.serve_line(&queue);
        }
        self.serve_durables_of(no);
    }

    fn run_timers(&mut self) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > self.now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Handshake(conn) => self.handshake_late(conn),
                Timer::Call(call) => self.call_late(call),
                Timer::Close(conn) => {
                    if self.conns.contains_key(&conn.0) {
                        let reason = "the client did not leave";
                        self.effects.push(Effect::Close { conn, reason });
                    }
                }
                Timer::Slow(no) => self.too_slow(no),
                Timer::Forget(no) => self.forget_instance(no),
                Timer::Delivery(queue, seq) => self.delivery_late(queue, seq),
                Timer::Sweep => {
                    self.sweep();
                    let next = self.now.after_ms(SWEEP_MS);
                    self.timers.insert((next, Timer::Sweep));
                }
                Timer::DrainEnds => self.end(),
            }
        }
    }

    fn too_slow(&mut self, no: InstanceNo) {
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        instance.slow = None;
        if let Some(conn) = instance.conn {
            let reason = "it reads too slowly";
            self.effects.push(Effect::Close { conn, reason });
            self.gone(conn, true);
        }
    }

    fn drain(&mut self, deadline: Moment) {
        self.draining = true;
        let left = deadline.micros_since(self.now) / 1_000;
        let text = packet_text(
            "\"_service:draining\"",
            Some(&json!({"deadline_ms": left}).to_string()),
        );
        let conns: Vec<ConnId> = self
            .instances
            .values()
            .filter(|i| i.online)
            .filter_map(|i| i.conn)
            .collect();
        for conn in conns {
            self.send(conn, text.clone());
        }
        self.timers.insert((deadline, Timer::DrainEnds));
    }

    /// The broker is draining and nothing is left to finish.
    pub fn is_drained(&self) -> bool {
        self.draining && self.calls.is_empty()
    }

    /// Tells every client that it has left. Where notes are made, it may come back after the restart.
    pub fn end(&mut self) {
        let conns: Vec<u64> = self.conns.keys().copied().collect();
        for conn in conns {
            self.leave(ConnId(conn), true);
        }
    }

    fn revoked(&mut self, key_id: &str) {
        let conns: Vec<ConnId> = self
            .instances
            .values()
            .filter(|instance| instance.grant.key_id == key_id)
            .filter_map(|instance| instance.conn)
            .collect();
        for conn in conns {
            self.farewell(conn, Fault::new(Code::Revoked));
        }
        // Those that are away must not come back either.
        let away: Vec<InstanceNo> = self
            .instances
            .iter()
            .filter(|(_, i)| i.conn.is_none() && !i.local && i.grant.key_id == key_id)
            .map(|(no, _)| *no)
            .collect();
        for no in away {
            self.forget_instance(no);
        }
    }

    fn sweep(&mut self) {
        let before = Moment(
            self.now
                .0
                .saturating_sub(self.settings.remember_ms.saturating_mul(1_000)),
        );
        let mut freed = 0;
        for instance in self.instances.values_mut() {
            freed += instance.memory.forget_before(before);
        }
        self.remembered_bytes -= freed;
        // A group's turn is forgotten with its line; the next one begins anew.
        self.lines.retain(|_, line| !line.calls.is_empty());
    }

    /// Keeps an instance whose connection was lost, for as long as it may come back.
    pub(crate) fn keep_away(&mut self, no: InstanceNo) {
        let at = self.now;
        self.note(|| Note::Away { no, at });
        self.keep_away_since(no, at);
    }

    /// Whether a further away instance is too many; the oldest goes then.
    pub(crate) fn keep_away_since(&mut self, no: InstanceNo, since: Moment) {
        let at = since.after_ms(self.settings.resume_ms);
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.forget_at = Some(at);
        }
        self.timers.insert((at, Timer::Forget(no)));
        self.away.push_back(no);
        while self.away.len() > AWAY_MAX {
            if let Some(oldest) = self.away.pop_front()
                && self
                    .instances
                    .get(&oldest)
                    .is_some_and(|i| i.conn.is_none())
            {
                self.forget_instance(oldest);
            }
        }
    }

    pub(crate) fn forget_instance(&mut self, no: InstanceNo) {
        if self
            .instances
            .get(&no)
            .is_none_or(|i| i.conn.is_some() || i.local)
        {
            return;
        }
        let Some(instance) = self.instances.remove(&no) else {
            return;
        };
        if let Some(at) = instance.forget_at {
            self.timers.remove(&(at, Timer::Forget(no)));
        }
        self.note(|| Note::Gone { no });
        self.away.retain(|other| *other != no);
        self.by_id.remove(&instance.id);
        self.remembered_bytes -= instance.memory.bytes();
        for call in instance.memory.open_calls() {
            self.drop_call(call);
        }
    }

    fn add_local(&mut self) {
        let no = self.number();
        let id: Arc<str> = format!("{LOCAL_NAME}.{}.{:032x}", self.now.millis(), 0).into();
        let mut queues = BTreeMap::new();
        queues.insert(LOCAL_QUEUE.into(), QueueUse::default());
        let grant = Arc::new(Grant::everything(""));
        let instance = Instance {
            online: true,
            local: true,
            connected_at: self.now,
            in_flight_max: LOCAL_IN_FLIGHT_MAX,
            queues,
            ..Instance::new(id.clone(), LOCAL_NAME.into(), grant, Arc::new(Unbounded))
        };
        self.instances.insert(no, instance);
        self.by_id.insert(id, no);
        self.local = Some(no);
    }

    pub(crate) fn store(&mut self, ops: Vec<StoreOp>, ticket: Option<Ticket>) {
        if !ops.is_empty() {
            self.effects.push(Effect::Store { ops, ticket });
        }
    }

    pub(crate) fn delete(shelf: Shelf, key: (u64, u64)) -> StoreOp {
        StoreOp::Delete {
            shelf: shelf as u8,
            key,
        }
    }

    /// An answer of the broker's own, in the shape of a service's (section 7).
    pub(crate) fn broker_answer(
        &self,
        name: &str,
        request_id: &str,
        sender: &str,
        fault: &Fault,
    ) -> Frame {
        let error = json!({
            "message": fault.message,
            "code": fault.code.code(),
            "status": fault.code.status(),
            "entity": null,
            "list": null,
        });
        let body = format!(
            "{{\"name\":{},\"request_id\":{},\"sender_id\":{},\"recipient_id\":\"eman\",\"error\":{error}}}",
            quoted(name),
            quoted(request_id),
            quoted(sender),
        );
        packet_text("\"api:response\"", Some(&body))
    }
}
