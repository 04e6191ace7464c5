//! Durable subscriptions and dead letters (service bus, section 14): messages wait on the store until
//! they are acknowledged, also while nobody is there to take them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map},
    sync::Arc,
};

use serde_json::json;

use crate::{
    Begun, Code, ConnId, Effect, Fault, Note, Pattern, StoreOp, Stored, Subscription, Ticket,
    bus::{Bus, InstanceNo, NUMBER_MAX, Open, Timer},
    index::Entry,
    message::{Acknowledgement, Reply, extended, fields, quoted, text_of},
    packet::packet_text,
    remember::Known,
    request::{Job, Taken},
};

/// Unacknowledged deliveries to one instance, unless its subscription says otherwise.
const OUT_MAX: u32 = 64;
/// Acknowledgements that wait for one request to be written, or for one subscription of an instance:
/// of the first, and of its repetitions meanwhile.
const ACKS_MAX: usize = 16;
/// Characters of an error that are kept beside a dead letter.
const ERROR_CHARS_MAX: usize = 1_000;

/// What kinds of values are stored. The numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Shelf {
    /// (subscription, 0): what it listens to.
    Subscriptions = 0,
    /// (subscription, message): the request.
    Messages = 1,
    /// (subscription, message): how often it was delivered.
    Attempts = 2,
    /// (dead letter, 0): the request, and why it is dead.
    Dead = 3,
}

#[derive(Default)]
pub(crate) struct Durables {
    pub(crate) all: BTreeMap<u64, Durable>,
    waiting: HashMap<u64, Waiting>,
    /// Subscriptions in `waiting`, those that were forgotten meanwhile included.
    subscribing: usize,
    /// Acknowledgements in `waiting` that wait for notes to be flushed, and how many of each connection.
    notes: usize,
    notes_of: HashMap<ConnId, usize>,
    pub(crate) dead: BTreeMap<u64, Dead>,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    dead_bytes: usize,
}

pub(crate) struct Durable {
    pub(crate) pattern: Pattern,
    /// The group's name, or the service's.
    pub(crate) owner: String,
    pub(crate) group: bool,
    terms: Terms,
    /// The terms that are on disk.
    written: Option<Terms>,
    /// Writes of it that are under way, the newest last.
    writing: Vec<u64>,
    pub(crate) members: Vec<Member>,
    pub(crate) messages: BTreeMap<u64, Message>,
    ready: BTreeSet<u64>,
}

/// What is written of a subscription and may change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Terms {
    ack_wait_ms: u64,
    max_deliver: u32,
}

pub(crate) struct Member {
    pub(crate) no: InstanceNo,
    max: u32,
    out: u32,
}

pub(crate) struct Message {
    body: Arc<str>,
    attempt: u32,
    /// The highest attempt that is on disk, so that a delivery is never counted twice as the first.
    counted: u32,
    state: State,
    error: Option<String>,
    /// Who asked, as long as it may hear the answer.
    asked: Option<(InstanceNo, Arc<str>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Delayed(crate::Moment),
    Out(InstanceNo, crate::Moment),
}

#[derive(Clone)]
pub(crate) struct Dead {
    pub(crate) name: String,
    pub(crate) body: Arc<str>,
    pub(crate) subscription: u64,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    pub(crate) at_ms: u64,
}

/// What goes on when a write is done.
enum Waiting {
    Request {
        job: Box<Job>,
        body: Arc<str>,
        copies: Vec<Copy>,
        /// Who is told: the request's own connection, and those that it was repeated on.
        acks: Vec<(ConnId, Option<u64>)>,
    },
    /// A subscription that is told to its subscribers once it outlives the broker.
    Subscription {
        durable: u64,
        terms: Terms,
        asked: Vec<Asked>,
    },
    Replay {
        copies: Vec<(u64, u64, Arc<str>)>,
    },
    Delivery {
        to: InstanceNo,
        durable: u64,
        seq: u64,
        attempt: u32,
    },
    /// Notes are flushed, and what follows from them may be acknowledged.
    Notes {
        conn: ConnId,
        ack: u64,
        body: serde_json::Value,
    },
}

/// Who asked for a subscription that is being written.
struct Asked {
    no: InstanceNo,
    conn: ConnId,
    ack: Option<u64>,
    wanted: Subscription,
    /// It had not subscribed before; what was acknowledged once is not taken back.
    new: bool,
}

impl Durables {
    /// How many acknowledgements of a subscription an instance waits for.
    fn asked_by(&self, place: &Durable, no: InstanceNo) -> usize {
        let waiting = place.writing.iter().filter_map(|t| self.waiting.get(t));
        let asked = waiting.map(|waiting| match waiting {
            Waiting::Subscription { asked, .. } => asked.iter().filter(|a| a.no == no).count(),
            _ => 0,
        });
        asked.sum()
    }

    /// Requests that are being written: who asked, the request's id and its name.
    pub(crate) fn storing(&self) -> impl Iterator<Item = (InstanceNo, &Arc<str>, &Arc<str>)> {
        self.waiting.values().filter_map(|waiting| match waiting {
            Waiting::Request { job, .. } => Some((job.requester, &job.request_id, &job.name)),
            _ => None,
        })
    }

    /// Acknowledges one more copy of a request when it is written.
    pub(crate) fn acknowledge_too(
        &mut self,
        ticket: u64,
        conn: ConnId,
        ack: Option<u64>,
    ) -> Result<Taken, Code> {
        match self.waiting.get_mut(&ticket) {
            Some(Waiting::Request { acks, .. }) if acks.len() < ACKS_MAX => {
                acks.push((conn, ack));
                Ok(Taken::Storing)
            }
            _ => Err(Code::Overloaded),
        }
    }

    /// The senders and ids of all requests that wait in subscriptions.
    pub(crate) fn requests(&self) -> HashSet<(String, String)> {
        let messages = self.all.values().flat_map(|place| place.messages.values());
        let ids = messages.filter_map(|message| {
            let [sender, request] =
                fields(Some(&message.body), &["sender_id", "request_id"]).ok()?;
            let (sender, request) = (text_of(sender?)?, text_of(request?)?);
            Some((sender.into_owned(), request.into_owned()))
        });
        ids.collect()
    }

    /// One more acknowledgement of a connection waits for the disk.
    fn begin_note(&mut self, conn: ConnId) {
        self.notes += 1;
        *self.notes_of.entry(conn).or_default() += 1;
    }

    fn end_note(&mut self, conn: ConnId) {
        self.notes -= 1;
        if let hash_map::Entry::Occupied(mut entry) = self.notes_of.entry(conn) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// A request's place in one subscription.
struct Copy {
    durable: u64,
    seq: u64,
    /// Its first attempt was written with it, because somebody was there to take it.
    counted: u32,
}

impl Bus {
    pub(crate) fn room_for_durable(&self, job: &Job, copies: usize) -> Result<(), Code> {
        let bytes = job.body.as_ref().map_or(0, |body| body.len()) * copies;
        let full = self.durables.messages + copies > self.settings.durable_messages_max
            || self.durables.bytes + bytes > self.settings.durable_bytes_max;
        if full { Err(Code::Overloaded) } else { Ok(()) }
    }

    /// Writes a request for every durable subscription that wants it. What else has to be done with
    /// it waits for the write, so that a failed one has no effect.
    pub(crate) fn store_job(&mut self, job: Job, durables: Vec<u64>, ack: Option<u64>) {
        let body = job.body.clone().unwrap_or_else(|| "{}".into());
        let mut copies = Vec::with_capacity(durables.len());
        let mut ops = Vec::with_capacity(durables.len());
        for durable in durables {
            let seq = self.number();
            ops.push(put(Shelf::Messages, (durable, seq), body.clone()));
            let place = self.durables.all.get(&durable);
            let soon = place
                .is_some_and(|d| d.ready.is_empty() && d.members.iter().any(|m| m.out < m.max));
            if soon {
                ops.push(put(Shelf::Attempts, (durable, seq), "1".into()));
            }
            copies.push(Copy {
                durable,
                seq,
                counted: u32::from(soon),
            });
        }
        self.durables.messages += copies.len();
        self.durables.bytes += body.len() * copies.len();
        self.note(|| Note::Begun {
            no: job.requester,
            request_id: job.request_id.clone(),
            name: job.name.clone(),
            how: Begun::Storing,
        });
        let ticket = self.number();
        let conn = self.instances.get_mut(&job.requester).and_then(|instance| {
            let storing = Known::Storing(job.name.clone(), ticket);
            instance.memory.begin(job.request_id.clone(), storing);
            instance.conn
        });
        let waiting = Waiting::Request {
            job: Box::new(job),
            body,
            copies,
            acks: conn.map(|conn| (conn, ack)).into_iter().collect(),
        };
        self.durables.waiting.insert(ticket, waiting);
        self.store(ops, Some(Ticket(ticket)));
    }

    pub(crate) fn stored(&mut self, ticket: Ticket, ok: bool) {
        match self.durables.waiting.remove(&ticket.0) {
            None => {}
            Some(Waiting::Request {
                job,
                body,
                copies,
                acks,
            }) => self.request_stored(*job, &body, &copies, &acks, ok),
            Some(Waiting::Subscription {
                durable,
                terms,
                asked,
            }) => {
                self.durables.subscribing -= 1;
                self.subscription_stored((ticket.0, durable, terms), asked, ok);
            }
            Some(Waiting::Replay { copies }) => {
                for (durable, seq, body) in copies {
                    let copy = Copy {
                        durable,
                        seq,
                        counted: 0,
                    };
                    self.admit_copy(&copy, &body, None, ok);
                    self.serve_durable(durable);
                }
            }
            // Also when the count could not be written: the message itself is on disk.
            Some(Waiting::Delivery {
                to,
                durable,
                seq,
                attempt,
            }) => self.hand_over(to, durable, seq, attempt),
            Some(Waiting::Notes { conn, ack, body }) => {
                self.durables.end_note(conn);
                let body = match ok {
                    true => body,
                    false => {
                        let mut refusal =
                            Fault::new(Code::Overloaded).wrapped(self.settings.code_dialect);
                        refusal["ok"] = false.into();
                        refusal
                    }
                };
                if self.conns.contains_key(&conn.0) {
                    self.acknowledge_packet(conn, Some(ack), body);
                }
            }
        }
    }

    /// Whether an acknowledgement that is asked for can wait until what it is about is on disk. Nothing is
    /// done for which it cannot.
    pub(crate) fn room_for_acknowledgement(
        &self,
        conn: ConnId,
        ack: Option<u64>,
    ) -> Result<(), Fault> {
        let of_conn = self.durables.notes_of.get(&conn).copied().unwrap_or(0);
        let fits = of_conn < self.settings.noted_acks_max
            && self.durables.notes < self.settings.noted_acks_of_all_max;
        if fits || ack.is_none() {
            return Ok(());
        }
        let what = "too many acknowledgements wait for the disk";
        Err(Fault::because(Code::Overloaded, what))
    }

    /// Acknowledges what has been done once it outlives the broker.
    pub(crate) fn acknowledge_when_noted(
        &mut self,
        conn: ConnId,
        ack: Option<u64>,
        body: serde_json::Value,
    ) {
        let Some(number) = ack else {
            return;
        };
        if !self.settings.notes {
            return self.acknowledge_packet(conn, ack, body);
        }
        let ticket = self.number();
        let ack = number;
        self.durables.begin_note(conn);
        self.durables
            .waiting
            .insert(ticket, Waiting::Notes { conn, ack, body });
        self.effects.push(Effect::Flush {
            ticket: Ticket(ticket),
        });
    }

    fn request_stored(
        &mut self,
        mut job: Job,
        body: &Arc<str>,
        copies: &[Copy],
        acks: &[(ConnId, Option<u64>)],
        ok: bool,
    ) {
        let (requester, request_id) = (job.requester, job.request_id.clone());
        match self.instances.get_mut(&requester) {
            Some(instance) => instance.memory.remove(&request_id),
            // Nobody is left to hear an answer.
            None => job.reply = Reply::None,
        }
        let taken = if ok {
            let asked = (job.reply != Reply::None).then(|| (requester, request_id.clone()));
            for copy in copies {
                self.admit_copy(copy, body, asked.clone(), true);
            }
            self.counters.stored += 1;
            let count = u32::try_from(copies.len()).unwrap_or(u32::MAX);
            let taken = self.dispatch(job, count);
            for copy in copies {
                self.serve_durable(copy.durable);
            }
            taken
        } else {
            for copy in copies {
                self.admit_copy(copy, body, None, false);
            }
            self.note(|| Note::Dropped {
                no: requester,
                request_id: request_id.clone(),
            });
            self.answer_at_once(&job, Code::Overloaded);
            Err(Code::Overloaded)
        };
        for (place, (conn, ack)) in acks.iter().enumerate() {
            if !self.conns.contains_key(&conn.0) {
                continue;
            }
            let taken = match &taken {
                Err(code) => Err(*code),
                Ok(_) if place > 0 => Ok(Taken::Repeated),
                Ok(Taken::Accepted { delivered, queued }) => Ok(Taken::Accepted {
                    delivered: *delivered,
                    queued: (*queued).max(copies.len()),
                }),
                Ok(Taken::Repeated) => Ok(Taken::Repeated),
                Ok(Taken::Storing) => Ok(Taken::Storing),
            };
            self.taken(*conn, *ack, &request_id, taken);
        }
    }

    /// A stored message takes its place in its subscription, if that is still there.
    fn admit_copy(
        &mut self,
        &Copy {
            durable,
            seq,
            counted,
        }: &Copy,
        body: &Arc<str>,
        asked: Option<(InstanceNo, Arc<str>)>,
        ok: bool,
    ) {
        match self.durables.all.get_mut(&durable) {
            Some(place) if ok => {
                place.ready.insert(seq);
                place.messages.insert(
                    seq,
                    Message {
                        body: body.clone(),
                        attempt: 0,
                        counted,
                        state: State::Ready,
                        error: None,
                        asked,
                    },
                );
            }
            _ => {
                self.durables.messages -= 1;
                self.durables.bytes -= body.len();
                if ok {
                    let ops = [Shelf::Messages, Shelf::Attempts];
                    let ops = ops.map(|shelf| Bus::delete(shelf, (durable, seq)));
                    self.store(ops.into(), None);
                }
            }
        }
    }

    /// Who a durable subscription of an instance belongs to, and whether that is a group.
    fn owner_of(&self, no: InstanceNo, wanted: &Subscription) -> Option<(String, bool)> {
        Some(match &wanted.queue {
            Some(queue) => (queue.clone(), true),
            None => (self.instances.get(&no)?.name.to_string(), false),
        })
    }

    fn durable_of(&self, no: InstanceNo, wanted: &Subscription) -> Option<u64> {
        let (owner, group) = self.owner_of(no, wanted)?;
        let mut all = self.durables.all.iter();
        let found =
            all.find(|(_, d)| d.pattern == wanted.pattern && d.owner == owner && d.group == group);
        found.map(|(durable, _)| *durable)
    }

    /// Subscribes, or does so again. Answers whether that is on disk already; if not, the
    /// acknowledgement follows when it is.
    pub(crate) fn subscribe_durable(
        &mut self,
        no: InstanceNo,
        wanted: &Subscription,
        conn: ConnId,
        ack: Option<u64>,
    ) -> Result<bool, Fault> {
        let Some((owner, group)) = self.owner_of(no, wanted) else {
            return Err(Code::NotOnline.into());
        };
        let durable = match self.durable_of(no, wanted) {
            Some(durable) => durable,
            // One that is forgotten while the disk hangs goes on being written.
            None if self.durables.all.len().max(self.durables.subscribing)
                >= self.settings.durable_max =>
            {
                let what = "too many durable subscriptions";
                return Err(Fault::because(Code::Overloaded, what));
            }
            None => {
                let durable = self.number();
                self.index.add(&wanted.pattern, Entry::Durable(durable));
                self.durables.all.insert(
                    durable,
                    Durable {
                        pattern: wanted.pattern.clone(),
                        owner,
                        group,
                        terms: Terms {
                            ack_wait_ms: self.settings.ack_wait_ms,
                            max_deliver: self.settings.max_deliver,
                        },
                        written: None,
                        writing: Vec::new(),
                        members: Vec::new(),
                        messages: BTreeMap::new(),
                        ready: BTreeSet::new(),
                    },
                );
                durable
            }
        };
        let waits = self.durables.all.get(&durable);
        if waits.is_some_and(|place| self.durables.asked_by(place, no) >= ACKS_MAX) {
            let what = "the subscription is still being written down";
            return Err(Fault::because(Code::Overloaded, what));
        }
        let Some(place) = self.durables.all.get_mut(&durable) else {
            return Ok(true);
        };
        let terms = Terms {
            ack_wait_ms: wanted.ack_wait_ms.unwrap_or(place.terms.ack_wait_ms),
            max_deliver: wanted.max_deliver.unwrap_or(place.terms.max_deliver),
        };
        place.terms = terms;
        let new = !place.members.iter().any(|member| member.no == no);
        if new {
            place.members.push(Member {
                no,
                max: wanted.max_in_flight.unwrap_or(OUT_MAX),
                out: 0,
            });
            if let Some(instance) = self.instances.get_mut(&no) {
                instance.subscriptions.push(wanted.clone());
            }
        }
        let on_disk = place.writing.is_empty() && place.written == Some(terms);
        if !on_disk {
            let asked = Asked {
                no,
                conn,
                ack,
                wanted: wanted.clone(),
                new,
            };
            self.store_subscription(durable, asked);
        }
        self.serve_durable(durable);
        Ok(on_disk)
    }

    /// Writes a subscription as it is, unless that is being done; its acknowledgement waits for that.
    fn store_subscription(&mut self, durable: u64, who: Asked) {
        let ticket = self.number();
        let Some(place) = self.durables.all.get_mut(&durable) else {
            return;
        };
        let newest = place.writing.last();
        if let Some(Waiting::Subscription { terms, asked, .. }) =
            newest.and_then(|newest| self.durables.waiting.get_mut(newest))
            && *terms == place.terms
        {
            return asked.push(who);
        }
        place.writing.push(ticket);
        let value = json!({
            "pattern": place.pattern.as_str(),
            "owner": place.owner,
            "group": place.group,
            "ack_wait_ms": place.terms.ack_wait_ms,
            "max_deliver": place.terms.max_deliver,
        });
        let value = value.to_string().into();
        let waiting = Waiting::Subscription {
            durable,
            terms: place.terms,
            asked: vec![who],
        };
        self.durables.waiting.insert(ticket, waiting);
        self.durables.subscribing += 1;
        let op = put(Shelf::Subscriptions, (durable, 0), value);
        self.store(vec![op], Some(Ticket(ticket)));
    }

    fn subscription_stored(
        &mut self,
        (ticket, durable, terms): (u64, u64, Terms),
        asked: Vec<Asked>,
        ok: bool,
    ) {
        if let Some(place) = self.durables.all.get_mut(&durable) {
            place.writing.retain(|other| *other != ticket);
            if ok {
                place.written = Some(terms);
            } else if place.writing.is_empty() {
                // What was refused does not hold until the next start only.
                place.terms = place.written.unwrap_or(place.terms);
            }
        }
        if !ok {
            for who in asked.iter().filter(|who| who.new) {
                self.take_back(durable, who);
            }
        }
        for Asked {
            conn, ack, wanted, ..
        } in asked
        {
            if !self.conns.contains_key(&conn.0) {
                continue;
            }
            if ok {
                let body = json!({"ok": true, "name": wanted.pattern.as_str()});
                self.acknowledge_packet(conn, ack, body);
            } else {
                let what = "the subscription could not be written down";
                let fault = Fault::because(Code::Overloaded, what);
                self.refuse(conn, "_service:subscribe", fault, ack);
            }
        }
    }

    /// An instance whose first subscription could not be written is not subscribed, unless it asked
    /// again in the meantime and that is still being written.
    fn take_back(&mut self, durable: u64, who: &Asked) {
        let Some(place) = self.durables.all.get(&durable) else {
            return;
        };
        for ticket in &place.writing {
            if let Some(Waiting::Subscription { asked, .. }) = self.durables.waiting.get_mut(ticket)
                && let Some(again) = asked.iter_mut().find(|again| again.no == who.no)
            {
                again.new = true;
                return;
            }
        }
        // Whatever one that never was on disk would have got had been lost with the broker.
        let idle = place.written.is_none()
            && place.messages.is_empty()
            && place.members.iter().all(|member| member.no == who.no);
        self.withdraw(who.no, &who.wanted, idle);
    }

    pub(crate) fn unsubscribe_durable(
        &mut self,
        no: InstanceNo,
        subscription: &Subscription,
        forget: bool,
    ) {
        let found = self.durables.all.iter().find(|(_, d)| {
            d.pattern == subscription.pattern
                && subscription
                    .queue
                    .as_ref()
                    .map_or(!d.group, |queue| d.group && d.owner == *queue)
                && d.members.iter().any(|member| member.no == no)
        });
        let Some((durable, _)) = found else {
            return;
        };
        let durable = *durable;
        if forget {
            return self.forget_durable(durable);
        }
        let Some(place) = self.durables.all.get_mut(&durable) else {
            return;
        };
        place.members.retain(|member| member.no != no);
        let out: Vec<(u64, crate::Moment)> = place
            .messages
            .iter()
            .filter_map(|(seq, message)| match message.state {
                State::Out(to, deadline) if to == no => Some((*seq, deadline)),
                _ => None,
            })
            .collect();
        for (seq, deadline) in out {
            self.timers
                .remove(&(deadline, Timer::Delivery(durable, seq)));
            self.again(durable, seq, 0, "the connection was lost");
        }
        self.serve_durable(durable);
    }

    fn forget_durable(&mut self, durable: u64) {
        let Some(place) = self.durables.all.remove(&durable) else {
            return;
        };
        self.index.remove(&place.pattern, &Entry::Durable(durable));
        let mut ops = vec![Bus::delete(Shelf::Subscriptions, (durable, 0))];
        for (seq, message) in place.messages {
            if let State::Out(_, at) | State::Delayed(at) = message.state {
                self.timers.remove(&(at, Timer::Delivery(durable, seq)));
            }
            self.durables.messages -= 1;
            self.durables.bytes -= message.body.len();
            ops.push(Bus::delete(Shelf::Messages, (durable, seq)));
            ops.push(Bus::delete(Shelf::Attempts, (durable, seq)));
        }
        self.store(ops, None);
    }

    pub(crate) fn serve_durables_of(&mut self, no: InstanceNo) {
        let mine: Vec<u64> = self
            .durables
            .all
            .iter()
            .filter(|(_, d)| !d.ready.is_empty() && d.members.iter().any(|m| m.no == no))
            .map(|(durable, _)| *durable)
            .collect();
        for durable in mine {
            self.serve_durable(durable);
        }
    }

    /// Delivers what is ready to members that may take more, the oldest first.
    fn serve_durable(&mut self, durable: u64) {
        loop {
            let Some(place) = self.durables.all.get_mut(&durable) else {
                return;
            };
            let Some(seq) = place.ready.first().copied() else {
                return;
            };
            let mut full = Vec::new();
            let instances = &self.instances;
            let free = place
                .members
                .iter_mut()
                .filter(|member| member.out < member.max)
                .filter(|member| {
                    let room = instances
                        .get(&member.no)
                        .is_some_and(|i| i.online && i.room.has_room());
                    if !room {
                        full.push(member.no);
                    }
                    room
                })
                .min_by_key(|member| member.out);
            let chosen = free.map(|member| {
                member.out += 1;
                member.no
            });
            let Some(no) = chosen else {
                for no in full {
                    self.note_slow(no, 0);
                }
                return;
            };
            let deadline = self.now.after_ms(place.terms.ack_wait_ms);
            place.ready.remove(&seq);
            let Some(message) = place.messages.get_mut(&seq) else {
                continue;
            };
            message.attempt += 1;
            message.state = State::Out(no, deadline);
            let (attempt, counted) = (message.attempt, message.counted);
            self.timers
                .insert((deadline, Timer::Delivery(durable, seq)));
            if attempt <= counted {
                self.hand_over(no, durable, seq, attempt);
                continue;
            }
            // The attempt is on disk before it is made: after a crash the next one has the next number.
            message.counted = attempt;
            let ticket = self.number();
            let waiting = Waiting::Delivery {
                to: no,
                durable,
                seq,
                attempt,
            };
            self.durables.waiting.insert(ticket, waiting);
            let attempts = attempt.to_string().into();
            let op = put(Shelf::Attempts, (durable, seq), attempts);
            self.store(vec![op], Some(Ticket(ticket)));
        }
    }

    /// Sends a message to the member that was chosen for it, if that is still to be done.
    fn hand_over(&mut self, to: InstanceNo, durable: u64, seq: u64, attempt: u32) {
        let place = self.durables.all.get(&durable);
        let Some(message) = place.and_then(|place| place.messages.get(&seq)) else {
            return;
        };
        if message.attempt != attempt || !matches!(message.state, State::Out(no, _) if no == to) {
            return;
        }
        let (body, asked) = (message.body.clone(), message.asked.clone());
        self.counters.deliveries += 1;
        self.counters.redeliveries += u64::from(attempt > 1);
        let members =
            format!("\"delivery_id\":\"{durable}-{seq}-{attempt}\",\"attempt\":{attempt}");
        let name = name_of(&body).map_or_else(|| "\"\"".to_owned(), |name| quoted(&name));
        self.send_to(to, packet_text(&name, Some(&extended(&body, &members))));
        self.let_answer(to, asked);
    }

    /// A consumer of a durable subscription may answer as well, as long as the call is open.
    fn let_answer(&mut self, no: InstanceNo, asked: Option<(InstanceNo, Arc<str>)>) {
        let Some((requester, request_id)) = asked else {
            return;
        };
        let known = self
            .instances
            .get(&requester)
            .and_then(|instance| instance.memory.get(&request_id));
        if let Some(Known::Open(id)) = known
            && let Some(call) = self.calls.get_mut(&id.0)
            && !call.open.iter().any(|open| open.instance == no)
        {
            call.delivered = true;
            call.open.push(Open {
                instance: no,
                queue: None,
                counted: false,
            });
        }
    }

    /// `_service:ack` and `_service:nak`.
    pub(crate) fn acknowledge(
        &mut self,
        conn: ConnId,
        argument: Option<&str>,
        good: bool,
        ack: Option<u64>,
    ) {
        let done = self.online(conn).map_err(Fault::new).and_then(|no| {
            let said = Acknowledgement::read(argument)?;
            let (durable, seq) = self
                .open_delivery(no, &said.delivery_id)
                .ok_or(Fault::new(Code::UnknownDelivery))?;
            if let Some(place) = self.durables.all.get_mut(&durable)
                && let Some(message) = place.messages.get(&seq)
                && let State::Out(_, deadline) = message.state
            {
                self.timers
                    .remove(&(deadline, Timer::Delivery(durable, seq)));
            }
            if good {
                self.counters.acknowledged += 1;
                self.settle(durable, seq, no);
                self.remove_message(durable, seq, Vec::new());
            } else {
                self.settle(durable, seq, no);
                let error = said.error.as_deref().unwrap_or("refused by the consumer");
                self.again(durable, seq, said.delay_ms, error);
            }
            self.serve_durable(durable);
            Ok(())
        });
        match done {
            Ok(()) => self.acknowledge_packet(conn, ack, json!({"ok": true})),
            Err(fault) => self.refuse(conn, "_service:ack", fault, ack),
        }
    }

    fn open_delivery(&self, no: InstanceNo, delivery_id: &str) -> Option<(u64, u64)> {
        let mut parts = delivery_id.split('-').map(str::parse::<u64>);
        let (durable, seq, attempt) = (
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next()?.ok()?,
        );
        let message = self.durables.all.get(&durable)?.messages.get(&seq)?;
        let mine = matches!(message.state, State::Out(to, _) if to == no);
        (mine && u64::from(message.attempt) == attempt).then_some((durable, seq))
    }

    /// A member has one unacknowledged delivery less.
    fn settle(&mut self, durable: u64, _seq: u64, no: InstanceNo) {
        if let Some(place) = self.durables.all.get_mut(&durable)
            && let Some(member) = place.members.iter_mut().find(|member| member.no == no)
        {
            member.out = member.out.saturating_sub(1);
        }
    }

    /// Nobody acknowledged in time, or the pause after a refusal is over.
    pub(crate) fn delivery_late(&mut self, durable: u64, seq: u64) {
        let state = self
            .durables
            .all
            .get(&durable)
            .and_then(|place| place.messages.get(&seq))
            .map(|message| message.state);
        match state {
            Some(State::Out(no, _)) => {
                self.settle(durable, seq, no);
                self.again(durable, seq, 0, "no acknowledgement came in time");
            }
            Some(State::Delayed(_)) => {
                if let Some(place) = self.durables.all.get_mut(&durable) {
                    place.ready.insert(seq);
                    if let Some(message) = place.messages.get_mut(&seq) {
                        message.state = State::Ready;
                    }
                }
            }
            Some(State::Ready) | None => {}
        }
        self.serve_durable(durable);
    }

    /// A delivery failed: once more, or never.
    fn again(&mut self, durable: u64, seq: u64, delay_ms: u64, error: &str) {
        let at = self.now.after_ms(delay_ms);
        let Some(place) = self.durables.all.get_mut(&durable) else {
            return;
        };
        let max = place.terms.max_deliver;
        let Some(message) = place.messages.get_mut(&seq) else {
            return;
        };
        message.error = Some(error.chars().take(ERROR_CHARS_MAX).collect());
        if message.attempt >= max {
            return self.bury(durable, seq);
        }
        if delay_ms == 0 {
            message.state = State::Ready;
            place.ready.insert(seq);
        } else {
            message.state = State::Delayed(at);
            self.timers.insert((at, Timer::Delivery(durable, seq)));
        }
    }

    /// Puts a message among the dead letters.
    fn bury(&mut self, durable: u64, seq: u64) {
        let Some(message) = self
            .durables
            .all
            .get(&durable)
            .and_then(|place| place.messages.get(&seq))
        else {
            return;
        };
        let dead = Dead {
            name: name_of(&message.body).unwrap_or_default(),
            body: message.body.clone(),
            subscription: durable,
            attempts: message.attempt,
            error: message.error.clone().unwrap_or_default(),
            at_ms: self.now.millis(),
        };
        self.counters.dead += 1;
        let number = self.number();
        let mut ops = vec![put(Shelf::Dead, (number, 0), dead.text().into())];
        self.durables.dead_bytes += dead.body.len();
        let frame = packet_text(
            &quoted(&format!("_dead.{}", dead.name)),
            Some(&dead.event_text()),
        );
        let name = format!("_dead.{}", dead.name);
        self.durables.dead.insert(number, dead);
        while self.durables.dead.len() > self.settings.dead_max
            || self.durables.dead_bytes > self.settings.durable_bytes_max
        {
            let Some((oldest, letter)) = self.durables.dead.pop_first() else {
                break;
            };
            self.durables.dead_bytes -= letter.body.len();
            ops.push(Bus::delete(Shelf::Dead, (oldest, 0)));
        }
        self.remove_message(durable, seq, ops);
        let listeners: Vec<InstanceNo> = self
            .dead_listeners
            .iter()
            .copied()
            .filter(|no| {
                self.instances.get(no).is_some_and(|instance| {
                    let mut all = instance.subscriptions.iter();
                    all.any(|s| s.pattern.matches(&name))
                })
            })
            .collect();
        for no in listeners {
            self.send_to(no, frame.clone());
        }
    }

    fn remove_message(&mut self, durable: u64, seq: u64, mut ops: Vec<StoreOp>) {
        if let Some(place) = self.durables.all.get_mut(&durable)
            && let Some(message) = place.messages.remove(&seq)
        {
            place.ready.remove(&seq);
            self.durables.messages -= 1;
            self.durables.bytes -= message.body.len();
            ops.push(Bus::delete(Shelf::Messages, (durable, seq)));
            ops.push(Bus::delete(Shelf::Attempts, (durable, seq)));
        }
        self.store(ops, None);
    }

    /// Puts the dead letters of a name back into the subscriptions that they came from.
    pub(crate) fn replay(&mut self, name: &str) {
        let letters: Vec<u64> = self
            .durables
            .dead
            .iter()
            .filter(|(_, dead)| {
                dead.name == name && self.durables.all.contains_key(&dead.subscription)
            })
            .map(|(number, _)| *number)
            .collect();
        let mut copies = Vec::with_capacity(letters.len());
        let mut ops = Vec::with_capacity(letters.len() * 2);
        for number in letters {
            let Some(dead) = self.durables.dead.remove(&number) else {
                continue;
            };
            self.durables.dead_bytes -= dead.body.len();
            self.durables.messages += 1;
            self.durables.bytes += dead.body.len();
            let seq = self.number();
            ops.push(Bus::delete(Shelf::Dead, (number, 0)));
            let key = (dead.subscription, seq);
            ops.push(put(Shelf::Messages, key, dead.body.clone()));
            copies.push((dead.subscription, seq, dead.body));
        }
        if ops.is_empty() {
            return;
        }
        let ticket = self.number();
        self.durables
            .waiting
            .insert(ticket, Waiting::Replay { copies });
        self.store(ops, Some(Ticket(ticket)));
    }

    /// Takes everything up again that was stored.
    pub(crate) fn restore(&mut self, stored: &[Stored]) -> Result<(), String> {
        let mut in_order: Vec<&Stored> = stored.iter().collect();
        in_order.sort_by_key(|value| (value.shelf, value.key));
        for value in in_order {
            let (a, b) = value.key;
            let bad = || format!("the stored value {}/{a}/{b} cannot be read", value.shelf);
            if a.max(b) > NUMBER_MAX {
                return Err(bad());
            }
            self.numbers_begin_after(a.max(b));
            match value.shelf {
                0 => {
                    let parsed: serde_json::Value =
                        serde_json::from_str(&value.value).map_err(|_| bad())?;
                    let text = |name: &str| parsed[name].as_str().map(str::to_owned);
                    let pattern = text("pattern").ok_or_else(bad)?;
                    let pattern = Pattern::new(&pattern).map_err(|_| bad())?;
                    let max_deliver = parsed["max_deliver"].as_u64().ok_or_else(bad)?;
                    let terms = Terms {
                        ack_wait_ms: parsed["ack_wait_ms"].as_u64().ok_or_else(bad)?,
                        max_deliver: u32::try_from(max_deliver).map_err(|_| bad())?,
                    };
                    self.index.add(&pattern, Entry::Durable(a));
                    self.durables.all.insert(
                        a,
                        Durable {
                            pattern,
                            owner: text("owner").ok_or_else(bad)?,
                            group: parsed["group"].as_bool().ok_or_else(bad)?,
                            terms,
                            written: Some(terms),
                            writing: Vec::new(),
                            members: Vec::new(),
                            messages: BTreeMap::new(),
                            ready: BTreeSet::new(),
                        },
                    );
                }
                1 => {
                    self.durables.messages += 1;
                    self.durables.bytes += value.value.len();
                    let copy = Copy {
                        durable: a,
                        seq: b,
                        counted: 0,
                    };
                    self.admit_copy(&copy, &value.value, None, true);
                }
                2 => {
                    let attempt = value.value.parse().map_err(|_| bad())?;
                    let place = self.durables.all.get_mut(&a);
                    if let Some(message) = place.and_then(|p| p.messages.get_mut(&b)) {
                        message.attempt = attempt;
                        message.counted = attempt;
                    }
                }
                3 => {
                    let dead = Dead::read(&value.value).ok_or_else(bad)?;
                    self.durables.dead_bytes += dead.body.len();
                    self.durables.dead.insert(a, dead);
                }
                _ => return Err(bad()),
            }
        }
        // The broker ended during their last attempt.
        let mut used_up = Vec::new();
        for (durable, place) in &self.durables.all {
            for (seq, message) in &place.messages {
                if message.attempt >= place.terms.max_deliver {
                    used_up.push((*durable, *seq));
                }
            }
        }
        for (durable, seq) in used_up {
            self.again(
                durable,
                seq,
                0,
                "the broker ended before it was acknowledged",
            );
        }
        Ok(())
    }
}

impl Dead {
    /// As it is stored.
    fn text(&self) -> String {
        format!(
            "{{\"name\":{},\"subscription\":{},\"attempts\":{},\"at\":{},\"error\":{},\"request\":{}}}",
            quoted(&self.name),
            self.subscription,
            self.attempts,
            self.at_ms,
            quoted(&self.error),
            self.body,
        )
    }

    /// As it is told to those who listen to dead letters.
    fn event_text(&self) -> String {
        format!(
            "{{\"name\":{},\"attempts\":{},\"at\":{},\"error\":{},\"request\":{}}}",
            quoted(&self.name),
            self.attempts,
            self.at_ms,
            quoted(&self.error),
            self.body,
        )
    }

    fn read(text: &str) -> Option<Dead> {
        let names = ["name", "subscription", "attempts", "at", "error", "request"];
        let [name, subscription, attempts, at, error, request] = fields(Some(text), &names).ok()?;
        Some(Dead {
            name: text_of(name?)?.into_owned(),
            subscription: subscription?.parse().ok()?,
            attempts: attempts?.parse().ok()?,
            at_ms: at?.parse().ok()?,
            error: text_of(error?)?.into_owned(),
            body: request?.into(),
        })
    }
}

fn put(shelf: Shelf, key: (u64, u64), value: Arc<str>) -> StoreOp {
    StoreOp::Put(Stored {
        shelf: shelf as u8,
        key,
        value,
    })
}

fn name_of(body: &str) -> Option<String> {
    let [name] = fields(Some(body), &["name"]).ok()?;
    Some(text_of(name?)?.into_owned())
}
