//! The wallet tracker: a WebSocket on the main listener, at `/`, `/ws` and `/tracker` (wallet tracker,
//! sections 2, 3, 8 and 17).

mod answer;
mod cursor;
mod info;
mod keys;
mod limits;
mod listing;
mod push;
mod reads;
mod refused;
mod session;

pub use keys::{BadRsaKey, TrackerKeys};

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use daybook_ledger::{
    BlockTime,
    tracker::{Address, Code, Nonces, Refusal, Settings, Suites, reply},
};
use daybook_pipeline::Node;
use daybook_store::Store;
use daybook_wire::tracker::SignedData;
use http::{Request, header};
use hyper::body::Incoming;
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};

pub(crate) use info::info;

use crate::{
    Rate,
    assets::Turns,
    connection::Connection,
    gate::lists,
    rate::{Rates, Shares},
    reply::{Refused, Reply},
    server::Gateway,
    websocket::handshake,
};
use keys::Signer;

/// Nonces of version 2 reads that are remembered: 40 bytes each. That many in ten minutes are 430 reads
/// a second; beyond it the oldest are forgotten early, which lets an attacker repeat a question.
const NONCES_MAX: usize = 1 << 18;

/// Listings that are made at once, past events of subscriptions among them: each holds a thread and signs
/// up to a thousand items.
const LISTINGS_MAX: usize = 4;

/// Of these, those of one network: whoever asks for many waits for himself.
const LISTINGS_PER_NETWORK_MAX: usize = 2;

/// Of what all networks share, one may have one part in so many: of the requests that the node takes at
/// once, and of the topics of subscriptions.
const NETWORK_PARTS: usize = 8;
const TOPIC_PARTS: usize = 16;

/// Requests beyond their network's bounds that are looked up at once, each on a thread: perhaps they were
/// done before.
const LOOKUPS_MAX: usize = 2;

/// How long a reply to command 65536 stands: nobody signs that request, so it may not cost a signature
/// each time.
const CAPABILITIES_MS: u64 = 1_000;

/// How the tracker's gateway runs.
#[derive(Clone, Debug)]
pub struct TrackerSettings {
    /// What it signs with.
    pub keys: Arc<TrackerKeys>,
    /// Suites of signatures that are taken.
    pub suites: Suites,
    /// Anyone may list everybody's transactions.
    pub public_log: bool,
    /// Bounds.
    pub limits: TrackerLimits,
}

/// Bounds on what peers may ask for. What one key may have open is a rule of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct TrackerLimits {
    /// Frames of one connection; `None` for any number.
    pub frames: Option<Rate>,
    /// Addresses that one network may open; `None` for any number.
    pub opens: Option<Rate>,
    /// Spend addresses of one network that are open at a time.
    pub open_spends_per_network: usize,
    /// Grants that one network may have in a day and not give back; `None` for any number.
    pub grants_per_network: Option<u64>,
    /// This machine's own addresses are no network: a proxy or a service of the operator's stands there.
    pub exempt_loopback: bool,
}

impl Default for TrackerLimits {
    fn default() -> TrackerLimits {
        TrackerLimits {
            frames: Some(Rate {
                per_second: 5_000.0,
                burst: 10_000.0,
            }),
            opens: Some(Rate {
                per_second: 1.0,
                burst: 60.0,
            }),
            open_spends_per_network: 16,
            grants_per_network: Some(8),
            exempt_loopback: true,
        }
    }
}

/// What all connections share.
pub(crate) struct Tracker {
    keys: Arc<TrackerKeys>,
    suites: Suites,
    pub(crate) public_log: bool,
    limits: TrackerLimits,
    opens: Option<Rates>,
    spends: Arc<limits::Spends>,
    under_way: limits::UnderWay,
    /// Topics of the subscriptions of each network.
    topics: Arc<Shares>,
    lookups: Semaphore,
    cursors: cursor::Cursors,
    nonces: Mutex<Nonces>,
    refused: refused::RefusedMessages,
    signatures: listing::Signatures,
    /// Turns at making listings.
    turns: Turns,
    pushes: Arc<push::Pushes>,
    capabilities: Mutex<Option<(BlockTime, SignedData)>>,
    runtime: Handle,
    meters: Meters,
}

impl Tracker {
    /// Must be called in the runtime that serves `node`.
    pub(crate) fn new(settings: &TrackerSettings, node: &Node) -> Arc<Tracker> {
        let limits = settings.limits;
        let exempts = limits.exempt_loopback;
        Arc::new(Tracker {
            keys: settings.keys.clone(),
            suites: settings.suites,
            public_log: settings.public_log,
            limits,
            opens: limits.opens.map(Rates::new),
            spends: limits::Spends::new(limits.open_spends_per_network, limits.grants_per_network),
            under_way: limits::UnderWay::new(node.capacity(), NETWORK_PARTS, exempts),
            topics: Shares::new(push::TOPICS_TOTAL_MAX / TOPIC_PARTS, exempts),
            lookups: Semaphore::new(LOOKUPS_MAX),
            cursors: cursor::Cursors::default(),
            nonces: Mutex::new(Nonces::new(NONCES_MAX)),
            refused: refused::RefusedMessages::default(),
            signatures: listing::Signatures::default(),
            turns: Turns::of(LISTINGS_MAX, LISTINGS_PER_NETWORK_MAX),
            pushes: Arc::default(),
            capabilities: Mutex::default(),
            runtime: Handle::current(),
            meters: Meters::new(),
        })
    }

    /// Tells subscribers what happens, until the node stops.
    pub(crate) fn start(self: &Arc<Tracker>, gateway: &Arc<Gateway>) {
        tokio::spawn(push::run(
            gateway.node.clone(),
            self.following(&gateway.node),
            gateway.phase.clone(),
            self.clone(),
        ));
    }

    fn settings(&self, store: &Store) -> Result<Settings, Refusal> {
        store
            .tracker(|book| book.settings().cloned())
            .ok_or_else(|| Refusal::internal("the tracker is not open yet"))
    }

    /// Whether an address is open. Asked on threads that serve sockets: the disk is not read.
    fn is_open(&self, store: &Store, address: &str, now: BlockTime) -> bool {
        Address::parse(address).is_ok_and(|address| {
            store.tracker(|book| book.address_state(&address, now, &reads::Nothing).is_ok())
        })
    }

    fn fresh_capabilities(&self, now: BlockTime) -> Option<SignedData> {
        let kept = self.capabilities.lock();
        let (made, data) = kept.as_ref()?;
        let is_fresh = now.0.abs_diff(made.0) < CAPABILITIES_MS;
        is_fresh.then(|| data.clone())
    }

    /// Signs what the tracker speaks.
    fn capabilities(&self, store: &Store, now: BlockTime) -> Result<SignedData, Refusal> {
        let settings = self.settings(store)?;
        let mut kept = self.capabilities.lock();
        if let Some((made, data)) = &*kept
            && now.0.abs_diff(made.0) < CAPABILITIES_MS
        {
            return Ok(data.clone());
        }
        let frame = session::FRAME_BYTES_MAX as u64;
        let message = reply::capabilities(&settings, &self.suites, frame, now);
        let data = self.keys.signed(Signer::Rsa, &message);
        *kept = Some((now, data.clone()));
        Ok(data)
    }
}

/// Whether a request to `/` is for the tracker and not for the API's front page.
pub(crate) fn is_wanted(request: &Request<Incoming>) -> bool {
    lists(request.headers(), header::UPGRADE, "websocket")
}

/// Opens a connection to the tracker.
pub(crate) fn open(
    gateway: &Arc<Gateway>,
    tracker: &Arc<Tracker>,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Reply, Refused> {
    let (reply, upgrade) = handshake(&mut request)?;
    tokio::spawn(session::serve(
        gateway.clone(),
        tracker.clone(),
        connection.clone(),
        upgrade,
    ));
    Ok(reply)
}

/// A token bucket of one connection.
struct Pace {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn new(rate: Rate, now: Instant) -> Pace {
        Pace {
            rate,
            tokens: rate.burst,
            at: now,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + elapsed * self.rate.per_second).min(self.rate.burst);
        let allows = self.tokens >= 1.0;
        if allows {
            self.tokens -= 1.0;
        }
        allows
    }
}

/// What the tracker's gateway counts. Handles are looked up once.
struct Meters {
    answered: [OnceLock<(Counter, Histogram)>; COMMANDS],
    refused: [OnceLock<Counter>; Code::ALL.len()],
}

/// Commands are powers of two; the one beside a power counts with it.
const COMMANDS: usize = 64;

impl Meters {
    fn new() -> Meters {
        use metrics::{Unit, describe_counter, describe_histogram};
        describe_counter!(
            "daybook_tracker_replies_total",
            "Requests to the tracker that were answered, by command"
        );
        describe_counter!(
            "daybook_tracker_refusals_total",
            "Requests to the tracker that were refused, by code"
        );
        describe_histogram!(
            "daybook_tracker_reply_seconds",
            Unit::Seconds,
            "From a frame to its signed reply, by command"
        );
        Meters {
            answered: std::array::from_fn(|_| OnceLock::new()),
            refused: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    fn answered(&self, command: u64, took: Duration) {
        let place = command.max(1).ilog2() as usize;
        let (count, seconds) = self.answered[place].get_or_init(|| {
            let label = (1u64 << place).to_string();
            (
                counter!("daybook_tracker_replies_total", "command" => label.clone()),
                histogram!("daybook_tracker_reply_seconds", "command" => label),
            )
        });
        count.increment(1);
        seconds.record(took);
    }

    fn refused(&self, code: Code) {
        let place = Code::ALL.iter().position(|other| *other == code);
        let place = place.expect("all codes are among all codes");
        self.refused[place]
            .get_or_init(|| counter!("daybook_tracker_refusals_total", "code" => code.as_str()))
            .increment(1);
    }
}
