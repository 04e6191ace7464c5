//! The core under its lock, and the hands that do what it asks for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::Sender;
use daybook_bus::{
    Bus, CallId, ConnId, Effect, Event, KeyVerdict, Local, Moment, Packet, StoreOp, Ticket,
};
use daybook_pipeline::Node;
use engineioxide::{DisconnectReason, Str};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::AbortHandle,
};

use crate::{
    DiskError, Keyring, KeyringError, ServiceKey, Settings,
    journal::{Flusher, Journal},
    ledger::{self, Wanted},
    outbound::{Drained, Outbound},
    sockets::{NAMESPACE_LEFT, Socket},
};

/// Keys compared at once: hashing them is meant to be slow, and must not take the ledger's cores.
const CHECKS_AT_ONCE: usize = 1;
/// Introductions that wait for their key to be compared; further ones are told to come later.
const CHECKS_WAITING_MAX: usize = 512;
/// Requests to the node's own names that are answered at once, those without an answer included.
const LOCALS_AT_ONCE: usize = 512;
/// Ledger feeds of all connections together.
const FEEDS_MAX: usize = 1_024;
/// How often a receiver that others wait for is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Looks without a step forward after which a receiver holds nobody up any longer.
const WATCHES_WITHOUT_PROGRESS: u32 = 2;
/// Messages of one sender that is held back, those that its system had sent already.
const INBOX_MESSAGES_MAX: usize = 16_384;
/// Bytes of them.
const INBOX_BYTES_MAX: usize = 8 << 20;
/// How long a closed transport may take to write what is left, before its connection is cut.
const CUT_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Hub {
    state: Mutex<State>,
    began: Instant,
    began_micros: u64,
    armed: AtomicU64,
    alarm: Notify,
    drained: Arc<Drained>,
    pub(crate) keyring: Arc<Keyring>,
    checks: Semaphore,
    checks_waiting: AtomicUsize,
    node: Option<Node>,
    locals: Arc<Semaphore>,
    store: Sender<Write>,
    pub(crate) settings: Settings,
    /// Where everything of the bus runs; events may come from other threads.
    runtime: tokio::runtime::Handle,
    next_conn: AtomicU64,
    /// Notes wait to be written, and messages behind them.
    noted: Notify,
}

/// What the bus's store is asked for.
pub(crate) enum Write {
    /// To write, and to tell who waits.
    Ops(Vec<StoreOp>, Option<Ticket>),
    /// To copy itself into a new file.
    Copy(PathBuf, Sender<Result<(), DiskError>>),
}

struct State {
    bus: Bus,
    peers: HashMap<u64, Peer>,
    spans: HashMap<CallId, tracing::Span>,
    feeds: usize,
    journal: Option<Journal>,
    /// What follows from notes that are not written yet, in order.
    outbox: Vec<Out>,
}

/// What is to be done once the notes before it are written.
enum Out {
    Text(Arc<Socket>, Str),
    Left(Arc<Socket>),
    Close(Arc<Socket>),
    Local(Local),
    Store(Write),
}

/// One client in the namespace.
struct Peer {
    socket: Arc<Socket>,
    outbound: Arc<Outbound>,
    /// Receivers whose queues it has filled, and which it waits for.
    holds: HashSet<u64>,
    /// Senders that wait for it.
    waiters: Vec<u64>,
    watched: bool,
    /// It takes nothing, so nobody waits for it.
    stalled: bool,
    inbox: VecDeque<Str>,
    inbox_bytes: usize,
    feed: Option<AbortHandle>,
}

/// Orders to a running bus.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Hub>);

impl Handle {
    /// Takes other keys. Connections whose key is gone or changed are closed at once; their number is
    /// the answer.
    ///
    /// # Errors
    /// When a key makes no sense; then nothing changes.
    pub fn replace_keys(&self, keys: &[ServiceKey]) -> Result<usize, KeyringError> {
        let gone = self.0.keyring.replace(keys)?;
        let before = self.0.look(|bus| bus.report().online);
        for key_id in &gone {
            self.0.handle(Event::Revoked { key_id });
        }
        Ok(before - self.0.look(|bus| bus.report().online).min(before))
    }

    /// Copies durable subscriptions, what waits in them and dead letters into the new file `to`, as of
    /// one moment, while the bus runs. Blocks until that is done.
    ///
    /// # Errors
    /// When the store cannot be read or the file cannot be written.
    pub fn copy_store(&self, to: &Path) -> Result<(), DiskError> {
        let (done, told) = crossbeam_channel::bounded(1);
        let ended = |_| DiskError("the bus has ended".to_owned());
        let order = Write::Copy(to.to_owned(), done);
        self.0.store.send(order).map_err(|_| ended(()))?;
        told.recv().map_err(|_| ended(()))?
    }

    /// Numbers of this moment.
    pub fn report(&self) -> daybook_bus::Report {
        self.0.look(Bus::report)
    }

    /// What is going on, for a page that people look at: who is online, calls per second, where
    /// requests wait, dead letters. No key and no payload is in it.
    pub fn overview(&self) -> serde_json::Value {
        // The pace is told for the moment of the question, also when nothing has come since.
        self.0.handle(Event::Tick);
        self.0.look(Bus::overview)
    }
}

impl Hub {
    pub(crate) fn new(
        settings: Settings,
        keyring: Arc<Keyring>,
        node: Option<Node>,
        store: Sender<Write>,
        stored: &[daybook_bus::Stored],
        runtime: tokio::runtime::Handle,
    ) -> Result<(Arc<Hub>, Option<Flusher>), String> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let began_micros = u64::try_from(since.as_micros()).unwrap_or(0);
        let mut rules = settings.bus.clone();
        if node.is_some() {
            rules.local = Arc::new(ledger::LOCAL_NAMES);
            rules.feed = Some(ledger::FEED);
        }
        rules.tracing = tracing::enabled!(target: "daybook_bus", tracing::Level::DEBUG);
        rules.notes = settings.notes.is_some() && rules.remember_ms > 0;
        let notes = settings.notes.as_deref().filter(|_| rules.notes);
        let (remember_ms, bytes_max) = (rules.remember_ms, rules.remember_bytes_max as u64);
        let now = Moment(began_micros);
        let mut bus = Bus::new(rules, now, stored)?;
        let (mut journal, mut flusher) = (None, None);
        if let Some(folder) = notes {
            let opened = Journal::open(folder, now, remember_ms, bytes_max, |found| {
                bus.recall(found)
            });
            let opened = opened.map_err(|e| format!("{}: {e}", folder.display()))?;
            (journal, flusher) = (Some(opened.0), Some(opened.1));
        }
        let hub = Arc::new(Hub {
            state: Mutex::new(State {
                bus,
                peers: HashMap::new(),
                spans: HashMap::new(),
                feeds: 0,
                journal,
                outbox: Vec::new(),
            }),
            began: Instant::now(),
            began_micros,
            armed: AtomicU64::new(u64::MAX),
            alarm: Notify::new(),
            drained: Arc::default(),
            keyring,
            checks: Semaphore::new(CHECKS_AT_ONCE),
            checks_waiting: AtomicUsize::new(0),
            node,
            locals: Arc::new(Semaphore::new(LOCALS_AT_ONCE)),
            store,
            settings,
            runtime,
            next_conn: AtomicU64::new(1),
            noted: Notify::new(),
        });
        // Who was away for too long before the restart is gone.
        hub.handle(Event::Tick);
        hub.write_notes();
        Ok((hub, flusher))
    }

    pub(crate) fn now(&self) -> Moment {
        let passed = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Moment(self.began_micros.saturating_add(passed))
    }

    /// Reads the core.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&Bus) -> T) -> T {
        read(&self.state.lock().bus)
    }

    pub(crate) fn handle(self: &Arc<Hub>, event: Event<'_>) {
        let _runtime = self.runtime.enter();
        let state = &mut *self.state.lock();
        state.bus.handle(self.now(), event);
        self.perform(state, None);
    }

    pub(crate) fn end(self: &Arc<Hub>) {
        let _runtime = self.runtime.enter();
        let state = &mut *self.state.lock();
        state.bus.end();
        self.perform(state, None);
    }

    /// A client entered the namespace.
    pub(crate) fn connected(self: &Arc<Hub>, socket: &Arc<Socket>, protocol: u8) -> ConnId {
        let conn = ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed));
        let outbound = Arc::new(Outbound::new(
            conn,
            self.settings.outbound_messages_max,
            self.settings.outbound_bytes_max,
            self.drained.clone(),
        ));
        let state = &mut *self.state.lock();
        state.peers.insert(
            conn.0,
            Peer {
                socket: socket.clone(),
                outbound: outbound.clone(),
                holds: HashSet::new(),
                waiters: Vec::new(),
                watched: false,
                stalled: false,
                inbox: VecDeque::new(),
                inbox_bytes: 0,
                feed: None,
            },
        );
        let event = Event::Connected {
            conn,
            protocol,
            room: outbound,
        };
        state.bus.handle(self.now(), event);
        self.perform(state, None);
        conn
    }

    pub(crate) fn disconnected(self: &Arc<Hub>, conn: ConnId) {
        let _runtime = self.runtime.enter();
        let state = &mut *self.state.lock();
        let Some(peer) = state.peers.remove(&conn.0) else {
            return;
        };
        if let Some(feed) = peer.feed {
            feed.abort();
            state.feeds -= 1;
        }
        state.bus.handle(self.now(), Event::Disconnected { conn });
        self.perform(state, None);
        self.release(state, conn.0, peer.waiters);
    }

    /// A client sent an event. While it is held back, what its system had sent already waits here.
    pub(crate) fn incoming(self: &Arc<Hub>, conn: ConnId, text: &Str, packet: &Packet<'_>) {
        let state = &mut *self.state.lock();
        let Some(peer) = state.peers.get_mut(&conn.0) else {
            return;
        };
        if peer.holds.is_empty() && peer.inbox.is_empty() {
            self.route(state, conn, packet);
            return;
        }
        peer.inbox_bytes += text.len();
        peer.inbox.push_back(text.clone());
        if peer.inbox.len() > INBOX_MESSAGES_MAX || peer.inbox_bytes > INBOX_BYTES_MAX {
            tracing::debug!("closing a connection that sends faster than its receivers read");
            close(&peer.socket);
        }
    }

    fn route(self: &Arc<Hub>, state: &mut State, conn: ConnId, packet: &Packet<'_>) {
        let event = match packet {
            Packet::Event {
                name,
                argument,
                ack,
                ..
            } => Event::Packet {
                conn,
                name,
                argument: *argument,
                ack: *ack,
            },
            Packet::Binary { .. } => Event::Binary { conn },
            _ => return,
        };
        state.bus.handle(self.now(), event);
        self.perform(state, Some(conn));
    }

    /// Does what the core asks for. `sender` is whose message this follows from: it waits when it has
    /// filled somebody's queue.
    fn perform(self: &Arc<Hub>, state: &mut State, sender: Option<ConnId>) {
        let State {
            bus,
            peers,
            spans,
            feeds,
            journal,
            outbox,
        } = state;
        let mut filled = Vec::new();
        let mut waiting = journal.as_ref().is_some_and(Journal::is_waiting);
        let was_waiting = waiting;
        let mut go = |out: Out, waiting: bool| match waiting {
            true => outbox.push(out),
            false => self.go(out),
        };
        for effect in bus.effects() {
            match effect {
                Effect::Send { to, frame } => {
                    if let Some(peer) = peers.get(&to.0) {
                        let text = peer.outbound.count(frame);
                        go(Out::Text(peer.socket.clone(), text), waiting);
                        if sender.is_some() && peer.outbound.is_over_mark() {
                            filled.push(to);
                        }
                    }
                }
                Effect::Note(note) => {
                    if let Some(journal) = journal {
                        journal.note(&note);
                        waiting = true;
                    }
                }
                Effect::Flush { ticket } => match journal {
                    Some(journal) => {
                        journal.wait(ticket);
                        waiting = true;
                    }
                    None => self.refuse(vec![ticket]),
                },
                Effect::Farewell { conn } => {
                    if let Some(peer) = peers.get(&conn.0) {
                        go(Out::Left(peer.socket.clone()), waiting);
                    }
                }
                Effect::Close { conn, reason } => {
                    if let Some(peer) = peers.get(&conn.0) {
                        tracing::debug!(reason, "closing a connection");
                        go(Out::Close(peer.socket.clone()), waiting);
                    }
                }
                Effect::CheckKey { conn, name, key } => self.check_key(conn, name, key.0),
                Effect::Local(local) => go(Out::Local(local), waiting),
                Effect::Feed { conn, arguments } => {
                    if let Some(peer) = peers.get_mut(&conn.0) {
                        self.begin_feed(peer, conn, &arguments, feeds);
                    }
                }
                Effect::EndFeed { conn } => {
                    if let Some(peer) = peers.get_mut(&conn.0)
                        && let Some(feed) = peer.feed.take()
                    {
                        feed.abort();
                        *feeds -= 1;
                    }
                }
                Effect::Store { ops, ticket } => go(Out::Store(Write::Ops(ops, ticket)), waiting),
                Effect::Began {
                    call,
                    name,
                    request_id,
                    trace,
                } => {
                    let span = tracing::debug_span!(
                        target: "daybook_bus",
                        "call",
                        name = &*name,
                        request_id = &*request_id,
                        trace,
                    );
                    spans.insert(call, span);
                }
                Effect::Ended {
                    call,
                    outcome,
                    micros,
                } => {
                    if let Some(span) = spans.remove(&call) {
                        tracing::debug!(target: "daybook_bus", parent: &span, outcome, micros, "ended");
                    }
                }
            }
        }
        if waiting && !was_waiting {
            // Everything that is readable now is routed first; its notes go into the same write.
            self.noted.notify_one();
        }
        if let Some(sender) = sender {
            for to in filled {
                self.hold(peers, sender.0, to.0);
            }
        }
        if let Some(next) = state.bus.next_deadline()
            && next.0 < self.armed.load(Ordering::Acquire)
        {
            self.armed.store(next.0, Ordering::Release);
            self.alarm.notify_one();
        }
    }

    /// Lets a sender wait for a receiver that reads, but not as fast as it is written to.
    fn hold(self: &Arc<Hub>, peers: &mut HashMap<u64, Peer>, sender: u64, to: u64) {
        let Some(receiver) = peers.get_mut(&to) else {
            return;
        };
        if receiver.stalled {
            return;
        }
        receiver.outbound.want();
        let watch = !std::mem::replace(&mut receiver.watched, true);
        if !receiver.waiters.contains(&sender) {
            receiver.waiters.push(sender);
        }
        if let Some(peer) = peers.get_mut(&sender)
            && peer.holds.insert(to)
            && peer.holds.len() == 1
        {
            peer.socket.data.pause();
        }
        if watch {
            tokio::spawn(self.clone().watch(to));
        }
    }

    /// Looks after a receiver that others wait for. One that takes nothing is waited for no longer:
    /// what does not fit into its queue is lost to it, and to it alone.
    async fn watch(self: Arc<Hub>, to: u64) {
        let (mut last, mut idle) = (None, 0);
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let state = &mut *self.state.lock();
            let Some(peer) = state.peers.get_mut(&to) else {
                return;
            };
            if peer.waiters.is_empty() {
                peer.watched = false;
                return;
            }
            let taken = Some(peer.outbound.taken());
            idle = if taken == last { idle + 1 } else { 0 };
            last = taken;
            if !peer.outbound.is_over_mark() || idle >= WATCHES_WITHOUT_PROGRESS {
                peer.stalled = peer.outbound.is_over_mark();
                peer.watched = false;
                let waiters = std::mem::take(&mut peer.waiters);
                self.release(state, to, waiters);
                return;
            }
        }
    }

    /// Whoever waited for a receiver goes on, unless it waits for another one too.
    fn release(self: &Arc<Hub>, state: &mut State, receiver: u64, waiters: Vec<u64>) {
        for waiter in waiters {
            let Some(peer) = state.peers.get_mut(&waiter) else {
                continue;
            };
            peer.holds.remove(&receiver);
            if !peer.holds.is_empty() {
                continue;
            }
            peer.socket.data.resume();
            while let Some(peer) = state.peers.get_mut(&waiter) {
                if !peer.holds.is_empty() {
                    break;
                }
                let Some(text) = peer.inbox.pop_front() else {
                    break;
                };
                peer.inbox_bytes -= text.len();
                if let Ok(packet) = Packet::read(&text) {
                    self.route(state, ConnId(waiter), &packet);
                }
            }
        }
    }

    fn check_key(self: &Arc<Hub>, conn: ConnId, name: String, key: String) {
        let hub = self.clone();
        tokio::spawn(async move {
            let changes = hub.keyring.changes();
            let mut verdict = match hub.keyring.remembered(&name, &key) {
                Some(grant) => KeyVerdict::Granted(grant),
                None => hub.compare(name, key).await,
            };
            let mut random = [0; 32];
            if aws_lc_rs::rand::fill(&mut random).is_err() {
                tracing::error!("no randomness for an id");
                verdict = KeyVerdict::Busy;
            }
            hub.key_checked(conn, verdict, changes, random);
        });
    }

    /// Tells the core what a key is worth. Keys are replaced first and revoked in the core behind that, so
    /// under the core's lock a verdict is from before both or its keys are the ones of now.
    fn key_checked(
        self: &Arc<Hub>,
        conn: ConnId,
        verdict: KeyVerdict,
        changes: u64,
        random: [u8; 32],
    ) {
        let _runtime = self.runtime.enter();
        let state = &mut *self.state.lock();
        let event = Event::KeyChecked {
            conn,
            verdict: self.keyring.still(changes, verdict),
            random,
        };
        state.bus.handle(self.now(), event);
        self.perform(state, None);
    }

    async fn compare(&self, name: String, key: String) -> KeyVerdict {
        if self.checks_waiting.fetch_add(1, Ordering::AcqRel) >= CHECKS_WAITING_MAX {
            self.checks_waiting.fetch_sub(1, Ordering::AcqRel);
            return KeyVerdict::Busy;
        }
        let turn = self.checks.acquire().await;
        self.checks_waiting.fetch_sub(1, Ordering::AcqRel);
        // Others with the same key may have been first.
        if let Some(grant) = self.keyring.remembered(&name, &key) {
            return KeyVerdict::Granted(grant);
        }
        let (keyring, began) = (self.keyring.clone(), Instant::now());
        let compared = tokio::task::spawn_blocking(move || keyring.check(&name, &key)).await;
        drop(turn);
        metrics::histogram!("daybook_bus_key_check_seconds").record(began.elapsed());
        match compared {
            Ok(Some(grant)) => KeyVerdict::Granted(grant),
            Ok(None) => KeyVerdict::Wrong,
            Err(_) => KeyVerdict::Busy,
        }
    }

    fn answer_local(self: &Arc<Hub>, local: Local) {
        let Some(node) = self.node.clone() else {
            return;
        };
        let hub = self.clone();
        let turn = self.locals.clone().try_acquire_owned();
        tokio::spawn(async move {
            let result = match turn {
                Ok(_turn) => ledger::answer(&node, &local.name, &local.body).await,
                Err(_) => Err(
                    "{\"message\":\"too many requests at once\",\"code\":\"busy\",\"status\":503}"
                        .to_owned(),
                ),
            };
            if let Some(call) = local.call {
                hub.handle(Event::LocalAnswer { call, result });
            }
        });
    }

    fn begin_feed(
        self: &Arc<Hub>,
        peer: &mut Peer,
        conn: ConnId,
        arguments: &str,
        feeds: &mut usize,
    ) {
        let Some(node) = self.node.clone() else {
            return;
        };
        if let Some(old) = peer.feed.take() {
            old.abort();
            *feeds -= 1;
        }
        let wanted = match Wanted::read(arguments) {
            Ok(wanted) if *feeds < FEEDS_MAX => Ok(wanted),
            Ok(_) => Err("too many connections follow the ledger".to_owned()),
            Err(error) => Err(error),
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(message) => {
                let body = serde_json::json!({
                    "message": message,
                    "code": "invalid_data_on_service:api:request:subscribe",
                    "status": 400,
                });
                let text = daybook_bus::packet_text("\"_service:error\"", Some(&body.to_string()));
                let _ = peer.socket.emit(peer.outbound.count(text));
                return;
            }
        };
        let (socket, outbound) = (peer.socket.clone(), peer.outbound.clone());
        let counted = outbound.clone();
        let task = tokio::spawn(ledger::feed(node, wanted, outbound, move |frame| {
            socket.emit(counted.count(frame)).is_ok()
        }));
        tracing::debug!(conn = conn.0, "a connection follows the ledger");
        peer.feed = Some(task.abort_handle());
        *feeds += 1;
    }

    /// Tells the core that time has passed, whenever it has something to do then.
    pub(crate) async fn run_timers(self: Arc<Hub>) {
        loop {
            let armed = self.armed.load(Ordering::Acquire);
            let wait = Moment(armed).micros_since(self.now());
            tokio::select! {
                () = tokio::time::sleep(Duration::from_micros(wait.min(MAX_WAIT_MICROS))) => {}
                () = self.alarm.notified() => continue,
            }
            let state = &mut *self.state.lock();
            self.armed.store(u64::MAX, Ordering::Release);
            state.bus.handle(self.now(), Event::Tick);
            self.perform(state, None);
        }
    }

    /// Writes notes, and sends what follows from them, once for all events of a turn of the runtime.
    pub(crate) async fn run_notes(self: Arc<Hub>) {
        loop {
            self.noted.notified().await;
            self.write_notes();
        }
    }

    /// Writes notes, and sends what follows from them.
    pub(crate) fn write_notes(self: &Arc<Hub>) {
        let _runtime = self.runtime.enter();
        let state = &mut *self.state.lock();
        if let Some(journal) = &mut state.journal {
            let now = self.now();
            let mut written = journal.write();
            if written.is_ok() && journal.is_full(now) {
                written = journal.begin_file(now, &state.bus.notes());
            }
            if let Err(error) = written {
                // What is under way goes on; it is only not acknowledged.
                self.refuse(journal.abandoned());
                state.journal = None;
                self.forgetful(&error);
            }
        }
        for out in state.outbox.drain(..) {
            self.go(out);
        }
    }

    fn go(self: &Arc<Hub>, out: Out) {
        match out {
            // The transport's own queue is longer than what the core puts in; what is refused is gone
            // with its connection.
            Out::Text(socket, text) => drop(socket.emit(text)),
            Out::Left(socket) => drop(socket.emit(NAMESPACE_LEFT)),
            Out::Close(socket) => close(&socket),
            Out::Local(local) => self.answer_local(local),
            // The writer lives as long as the hub; what it cannot write it answers with no.
            Out::Store(write) => drop(self.store.send(write)),
        }
    }

    /// Nothing that waits for these is acknowledged.
    fn refuse(self: &Arc<Hub>, tickets: Vec<Ticket>) {
        let hub = self.clone();
        self.runtime.spawn(async move {
            for ticket in tickets {
                hub.handle(Event::Stored { ticket, ok: false });
            }
        });
    }

    /// Notes cannot be kept: nothing new is taken, because its repetition would not be known.
    pub(crate) fn forgetful(self: &Arc<Hub>, error: &std::io::Error) {
        tracing::error!(%error, "the bus's notes cannot be written; it takes no more requests");
        let hub = self.clone();
        self.runtime
            .spawn(async move { hub.handle(Event::Forgetful) });
    }

    /// Goes on with what waited for room.
    pub(crate) async fn run_drained(self: Arc<Hub>) {
        loop {
            for conn in self.drained.next().await {
                let state = &mut *self.state.lock();
                let Some(peer) = state.peers.get_mut(&conn.0) else {
                    continue;
                };
                peer.stalled = false;
                let waiters = std::mem::take(&mut peer.waiters);
                state.bus.handle(self.now(), Event::Drained { conn });
                self.perform(state, None);
                self.release(state, conn.0, waiters);
            }
        }
    }

    /// Ends every transport.
    pub(crate) fn close_all(&self) {
        let _runtime = self.runtime.enter();
        for peer in self.state.lock().peers.values() {
            close(&peer.socket);
        }
    }
}

/// The longest sleep of the timer, so that it follows a clock that was set.
const MAX_WAIT_MICROS: u64 = 3_600_000_000;

/// Ends a connection: by the transport's rules first, and then for good.
pub(crate) fn close(socket: &Arc<Socket>) {
    socket.close(DisconnectReason::ClosingServer);
    let socket = socket.clone();
    tokio::spawn(async move {
        tokio::time::sleep(CUT_AFTER).await;
        socket.data.cut();
    });
}
