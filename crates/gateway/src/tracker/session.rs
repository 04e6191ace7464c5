//! One connection to the tracker: frames in, replies and events out. It carries no state of the
//! protocol but its subscriptions; a request whose connection is gone still happens.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use daybook_ledger::{
    BlockTime,
    tracker::{Code, command},
};
use daybook_pipeline::Wake;
use daybook_store::Store;
use daybook_wire::{
    tracker::{Frame, Malformed, Timings, error_reply, read},
    websocket::{Decoder, Message, write_close, write_ping, write_pong, write_text},
};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, Semaphore},
    time::{interval, timeout},
};

use super::{Pace, Tracker, answer::Caller, keys::Signer};
use crate::{
    connection::{Connection, Socket},
    server::{Gateway, Phase, reached},
    websocket::{CLOSE_TIMEOUT, READ_BYTES, code, opened},
};

/// Bytes of a frame (wallet tracker, section 2): the largest legitimate one has 5 KiB.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 10;

/// Requests of one connection that are under way: enough to fill a verifier's batch.
const UNDER_WAY_MAX: usize = 256;

/// Bytes of requests of one connection that are under way and perhaps not proven yet.
const UNDER_WAY_BYTES_MAX: usize = 512 << 10;

/// Bytes of replies that wait for a slow reader before no more of its requests are read.
const OUT_BYTES_MAX: usize = 128 << 10;

/// Events that wait for a slow reader (section 17.4).
pub(super) const EVENTS_WAITING_MAX: usize = 1_024;

/// Bytes of events that are handed to the socket at a time, so that replies are not behind all of them.
const EVENT_BYTES_AT_ONCE: usize = 64 << 10;

/// Bytes that the kernel holds unsent: what waits for a slow reader waits where it is counted.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Time between two Pings, and Pings that may stay unanswered (section 2).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PINGS_MISSED_MAX: u32 = 2;

/// `Close`: only text is spoken (section 2).
const UNSUPPORTED: u16 = 1003;

/// What reader, writer and answering threads share.
pub(super) struct Session {
    pub(super) gateway: Arc<Gateway>,
    pub(super) tracker: Arc<Tracker>,
    pub(super) connection: Arc<Connection>,
    /// The one listing that is made at a time.
    pub(super) listing: Semaphore,
    /// The one subscription that reads past events at a time.
    pub(super) catching_up: Semaphore,
    /// Names of its subscriptions.
    pub(super) subscribed: Mutex<Vec<String>>,
    state: Mutex<State>,
    /// Something is there to write, or the end.
    to_write: Notify,
    /// There may be room again for a request or for events.
    room: Notify,
    gone: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Replies, as whole frames.
    out: Vec<u8>,
    events: VecDeque<Bytes>,
    under_way: usize,
    under_way_bytes: usize,
    /// Pings since the client was last heard.
    unanswered: u32,
    /// Nothing more is read; close with this when everything is answered.
    end: Option<(u16, String)>,
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    tracker: Arc<Tracker>,
    connection: Arc<Connection>,
    upgrade: OnUpgrade,
) {
    let Some((socket, input)) = opened(upgrade).await else {
        return;
    };
    socket.limit_unsent(UNSENT_BYTES_MAX);
    let _present = gateway.meters.subscriber();
    let (read, write) = tokio::io::split(socket);
    let session = Arc::new(Session {
        gateway,
        tracker,
        connection,
        listing: Semaphore::new(1),
        catching_up: Semaphore::new(1),
        subscribed: Mutex::default(),
        state: Mutex::default(),
        to_write: Notify::new(),
        room: Notify::new(),
        gone: AtomicBool::new(false),
    });
    let reader = Reader {
        pace: session
            .tracker
            .limits
            .frames
            .map(|rate| Pace::new(rate, Instant::now())),
        session: session.clone(),
        input,
        decoder: Decoder::new(FRAME_BYTES_MAX),
    };
    let reading = tokio::spawn(reader.run(read));
    let in_order = session.write(write).await;
    session.gone.store(true, Ordering::Relaxed);
    session.room.notify_waiters();
    if !in_order {
        // When replies can no longer be written there is no use in reading on.
        reading.abort();
    }
    session.tracker.pushes.leave(&session);
}

impl Session {
    pub(super) fn store(&self) -> &Store {
        self.gateway.node.store()
    }

    /// The time of answers: the clock's, but never before the newest block's, which runs ahead when
    /// there are more blocks than milliseconds.
    pub(super) fn now(&self) -> BlockTime {
        self.gateway.node.now().max(self.store().tip().time)
    }

    /// True when nobody reads replies any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Queues a reply, and has it written.
    pub(super) fn reply(&self, payload: &[u8]) {
        self.gather_reply(payload);
        self.wake();
    }

    /// Queues a reply, which is written when the session is woken.
    pub(super) fn gather_reply(&self, payload: &[u8]) {
        if !self.is_gone() {
            write_text(&mut self.state.lock().out, payload);
        }
    }

    /// Queues frames of events, all or none.
    pub(super) fn offer(&self, events: &[Bytes]) -> bool {
        let mut state = self.state.lock();
        if state.events.len() + events.len() > EVENTS_WAITING_MAX {
            return false;
        }
        state.events.extend(events.iter().cloned());
        drop(state);
        self.to_write.notify_one();
        true
    }

    /// Queues frames of events though the queue may be full: the one that says so, and those that were
    /// held back until now.
    pub(super) fn extend(&self, events: impl IntoIterator<Item = Bytes>) {
        self.state.lock().events.extend(events);
        self.to_write.notify_one();
    }

    /// Waits until half of the queue for events is free. False when the connection is gone.
    pub(super) async fn has_room(&self) -> bool {
        loop {
            let room = self.room.notified();
            if self.is_gone() {
                return false;
            }
            if self.state.lock().events.len() <= EVENTS_WAITING_MAX / 2 {
                return true;
            }
            room.await;
        }
    }

    /// Waits until few replies wait for the client. False when the connection is gone.
    pub(super) async fn has_read(&self) -> bool {
        loop {
            let room = self.room.notified();
            if self.is_gone() {
                return false;
            }
            if self.state.lock().out.len() < OUT_BYTES_MAX {
                return true;
            }
            room.await;
        }
    }

    /// A request is through.
    pub(super) fn settle(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        state.under_way_bytes -= bytes;
        let ends = state.under_way == 0 && state.end.is_some();
        drop(state);
        self.room.notify_waiters();
        if ends {
            self.to_write.notify_one();
        }
    }

    /// Waits until one more request may be under way. False when the connection is gone.
    async fn begin(&self, bytes: usize) -> bool {
        loop {
            let room = self.room.notified();
            if self.is_gone() {
                return false;
            }
            {
                let mut state = self.state.lock();
                if state.under_way < UNDER_WAY_MAX
                    && state.under_way_bytes < UNDER_WAY_BYTES_MAX
                    && state.out.len() < OUT_BYTES_MAX
                {
                    state.under_way += 1;
                    state.under_way_bytes += bytes;
                    return true;
                }
            }
            room.await;
        }
    }

    fn end(&self, code: u16, reason: impl Into<String>) {
        self.state.lock().end.get_or_insert((code, reason.into()));
        self.to_write.notify_one();
    }

    /// Writes replies and events until the end. False when the socket broke.
    async fn write(&self, mut socket: WriteHalf<Socket>) -> bool {
        let mut frames: Vec<u8> = Vec::new();
        let mut ping = interval(PING_INTERVAL);
        ping.reset();
        loop {
            frames.clear();
            let end = self.gather(&mut frames);
            if frames.is_empty() {
                match end {
                    Some((code, reason)) => {
                        write_close(&mut frames, code, &reason);
                        let goodbye = async {
                            let _ = self.flush(&mut socket, &frames).await;
                            let _ = socket.shutdown().await;
                        };
                        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
                        return true;
                    }
                    None => tokio::select! {
                        () = self.to_write.notified() => continue,
                        _ = ping.tick() => {
                            let mut state = self.state.lock();
                            state.unanswered += 1;
                            if state.unanswered > PINGS_MISSED_MAX {
                                return false;
                            }
                            write_ping(&mut state.out, b"");
                            continue;
                        }
                    },
                }
            }
            if !self.flush(&mut socket, &frames).await {
                return false;
            }
            self.room.notify_waiters();
        }
    }

    /// Takes what is to be written. The end is told when nothing is left and nothing under way.
    fn gather(&self, frames: &mut Vec<u8>) -> Option<(u16, String)> {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.out, frames);
        while frames.len() < EVENT_BYTES_AT_ONCE
            && let Some(event) = state.events.pop_front()
        {
            write_text(frames, &event);
        }
        state.end.clone().filter(|_| state.under_way == 0)
    }

    /// Writes all of it. False when the client takes nothing for too long or is gone.
    async fn flush(&self, socket: &mut WriteHalf<Socket>, mut rest: &[u8]) -> bool {
        let stall = self.gateway.settings.stall_timeout;
        while !rest.is_empty() {
            match timeout(stall, socket.write(rest)).await {
                Ok(Ok(written)) if written > 0 => rest = &rest[written..],
                _ => return false,
            }
        }
        matches!(timeout(stall, socket.flush()).await, Ok(Ok(())))
    }
}

impl Wake for Session {
    fn wake(&self) {
        self.to_write.notify_one();
    }
}

struct Reader {
    session: Arc<Session>,
    input: BytesMut,
    decoder: Decoder,
    /// How fast frames may come.
    pace: Option<Pace>,
}

impl Reader {
    async fn run(mut self, mut socket: ReadHalf<Socket>) {
        let (code, reason) = self.read(&mut socket).await;
        self.session.end(code, reason);
    }

    /// Reads until the socket is to be closed; tells with which code and why.
    async fn read(&mut self, socket: &mut ReadHalf<Socket>) -> (u16, String) {
        let mut phase = self.session.gateway.phase.clone();
        loop {
            if let Err(close) = self.take_messages().await {
                return close;
            }
            self.input.reserve(READ_BYTES);
            let read = tokio::select! {
                read = socket.read_buf(&mut self.input) => read,
                () = reached(&mut phase, Phase::Stopping) => {
                    return (code::GOING_AWAY, "the node is stopping".to_owned());
                }
            };
            match read {
                Ok(bytes) if bytes > 0 => self.session.state.lock().unanswered = 0,
                _ => return (code::NORMAL, String::new()),
            }
        }
    }

    async fn take_messages(&mut self) -> Result<(), (u16, String)> {
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(None) => return Ok(()),
                Ok(Some(Message::Text(text))) => {
                    if !self.session.begin(text.len()).await {
                        return Err((code::NORMAL, String::new()));
                    }
                    self.take(&text);
                }
                Ok(Some(Message::Binary(_))) => {
                    return Err((UNSUPPORTED, "only text is spoken here".to_owned()));
                }
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Ping(payload))) => {
                    let mut state = self.session.state.lock();
                    // A client that sends Pings and reads nothing piles up no Pongs.
                    if state.out.len() < OUT_BYTES_MAX {
                        write_pong(&mut state.out, &payload);
                    }
                    drop(state);
                    self.session.to_write.notify_one();
                }
                Ok(Some(Message::Close(code))) => {
                    return Err((code.unwrap_or(code::NORMAL), String::new()));
                }
                Err(error) => return Err((error.close_code(), error.to_string())),
            }
        }
    }

    /// Takes one frame; its reply comes when it comes.
    fn take(&mut self, text: &Bytes) {
        let received = Received::now();
        let session = &self.session;
        let frame = std::str::from_utf8(text).expect("the decoder gives text in UTF-8 only");
        let bytes = text.len();
        let rates = &session.gateway.rates;
        let too_fast = if self
            .pace
            .as_mut()
            .is_some_and(|pace| !pace.allows(received.at))
        {
            Some("too many frames: slow down")
        } else if rates.as_ref().is_some_and(|rates| {
            let peer = session.connection.peer;
            rates.take(peer, 1, received.at).is_err()
        }) {
            Some("too many requests: slow down")
        } else {
            None
        };
        match read(frame) {
            Err(malformed) => {
                // Whoever is too fast does not get his frame back.
                let (code, why, data) = match too_fast {
                    Some(why) => (Code::RateLimited, why, ""),
                    None => (malformed.code, &*malformed.error, frame),
                };
                refuse_frame(session, &malformed, (code, why), data, received);
                session.settle(bytes);
            }
            Ok(Frame::Capabilities { correlation }) => {
                let caller = Caller::new(
                    session.clone(),
                    command::CAPABILITIES,
                    correlation,
                    Signer::Rsa,
                    bytes,
                    received,
                );
                if let Some(why) = too_fast {
                    return caller.refuse(Code::RateLimited, why);
                }
                caller.capabilities();
            }
            Ok(Frame::Signed(request)) => {
                let mut caller = Caller::of(session.clone(), &request, bytes, received);
                if let Some(why) = too_fast {
                    return caller.refuse(Code::RateLimited, why);
                }
                if !caller.begin() {
                    let why = "too many requests of this network are under way: try again";
                    return caller.refuse(Code::RateLimited, why);
                }
                if let Some(refusal) = caller.refused_before() {
                    return caller.tell(&refusal);
                }
                match caller.admit(received.at) {
                    Ok(()) => caller.ask(request),
                    Err(why) => caller.ask_if_done(request, why),
                }
            }
        }
    }
}

fn refuse_frame(
    session: &Session,
    malformed: &Malformed,
    (code, why): (Code, &str),
    data: &str,
    received: Received,
) {
    let mut out = Vec::new();
    error_reply(
        &mut out,
        malformed.command,
        malformed.correlation.as_deref(),
        data,
        code.as_str(),
        why,
        Some(Timings {
            received: received.nanoseconds,
            proven: 0,
            handled: received.elapsed(),
        }),
    );
    session.tracker.meters.refused(code);
    session.reply(&out);
}

/// When a frame came.
#[derive(Clone, Copy)]
pub(super) struct Received {
    pub(super) at: Instant,
    /// Since 1970.
    pub(super) nanoseconds: u64,
}

impl Received {
    fn now() -> Received {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Received {
            at: Instant::now(),
            nanoseconds: nanoseconds(since.unwrap_or_default()),
        }
    }

    /// Nanoseconds since 1970 now. It never runs backwards, whatever is done to the system's clock.
    pub(super) fn elapsed(self) -> u64 {
        self.nanoseconds
            .saturating_add(nanoseconds(self.at.elapsed()))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
