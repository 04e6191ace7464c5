//! Listening: accepting connections within a bound, serving them, and stopping in good order.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use daybook_pipeline::Node;
use daybook_wire::assets::{Dialect, Discovery};
use http::{HeaderValue, Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Settings,
    assets::{Assets, Turns},
    budget::Budget,
    connection::{Connection, LOOK_INTERVAL, Socket, Transport},
    http::answer,
    machines::Machines,
    meters::Meters,
    rate::{Rates, Share, Shares},
    streams::Streams,
    tracker::Tracker,
};

/// Bytes of a request's head, and of hyper's read buffer: a list of hundreds of asset ids fits.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Headers of one request; browsers send about 20.
const HEADERS_MAX: usize = 100;

/// Bytes of answers that a connection gathers before it waits for the client to read, and the room for one
/// read. Each connection has both outside the budget; a request's head has to fit.
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// How long accepting rests after it failed, which it does when the process has no file descriptors
/// left. Meanwhile the kernel keeps connections waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long cut connections may take to notice: they look before every step.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections above the limit that are told so at once; more are closed without a word.
const REFUSALS_MAX: usize = 64;

/// How long telling one may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection above the limit is told before it is closed.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\ncontent-type: application/json\r\n\
    access-control-allow-origin: *\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 50\r\n\r\n\
    {\"message\": \"Too many connections\", \"status\": 503}";

/// What a listener offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// The whole API, the streams included.
    Api,
    /// The event streams alone (asset ledger, section 9).
    Streams,
}

/// A bound socket and what it offers.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What it offers.
    pub serves: Serves,
    /// The shapes it answers in.
    pub dialect: Dialect,
    /// TLS, from [`crate::tls_config`]; `None` speaks in the clear.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Room for connections, of all listeners together.
struct Places {
    all: Arc<Semaphore>,
    of_networks: Option<Arc<Shares>>,
}

/// Room for one connection.
pub(crate) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_network: Option<Share>,
}

impl Places {
    fn new(settings: &Settings) -> Places {
        let of_networks = settings.connections_per_network_max;
        Places {
            all: Arc::new(Semaphore::new(settings.connections_max)),
            of_networks: of_networks.map(|max| Shares::new(max, true)),
        }
    }

    /// Room for one more; `None` when there is none, or the peer's network has its share.
    fn take(&self, peer: IpAddr) -> Option<Place> {
        let of_network = match &self.of_networks {
            None => None,
            Some(shares) => Some(shares.take(peer, 1)?),
        };
        Some(Place {
            _of_all: self.all.clone().try_acquire_owned().ok()?,
            _of_network: of_network,
        })
    }
}

/// What all connections of one listener share.
pub(crate) struct Endpoint {
    pub(crate) serves: Serves,
    pub(crate) dialect: Dialect,
    /// Only this machine reaches it, so only its own names may be in a `Host`.
    pub(crate) loopback: bool,
    tls: Option<TlsAcceptor>,
}

impl Endpoint {
    /// Whether its connections are encrypted.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// What all connections share.
pub(crate) struct Gateway {
    pub(crate) node: Node,
    pub(crate) settings: Settings,
    pub(crate) assets: Assets,
    pub(crate) tracker: Option<Arc<Tracker>>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) rates: Option<Rates>,
    /// Where streams are served.
    pub(crate) streams: Streams,
    /// Memory for what is on its way in or out.
    pub(crate) budget: Budget,
    /// Turns at making lists.
    pub(crate) lists: Turns,
    /// Machines that said that they are there.
    pub(crate) machines: Machines,
    /// How far the stop has come.
    pub(crate) phase: watch::Receiver<Phase>,
    /// Held by every connection and every task that serves one.
    _alive: mpsc::Sender<()>,
    /// Hosts of `allowed_hosts` and `advertised_host`.
    pub(crate) hosts: Vec<String>,
    /// The configured write token's challenge.
    pub(crate) challenge: HeaderValue,
}

impl Gateway {
    /// Waits until an address may submit `count` further transactions.
    pub(crate) async fn pay(&self, peer: IpAddr, count: u32) {
        if let Some(rates) = &self.rates {
            while let Err(wait) = rates.take(peer, count, Instant::now()) {
                time::sleep(wait).await;
            }
        }
    }
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Everything is served.
    Serving,
    /// What is under way is finished.
    Stopping,
    /// Time is over.
    Over,
}

/// Waits until a stop has come as far as `phase`.
pub(crate) async fn reached(watched: &mut watch::Receiver<Phase>, phase: Phase) {
    // When the other end is gone, so is the gateway.
    let _ = watched.wait_for(|now| *now >= phase).await;
}

/// Serves `node` on `listeners` until `shutdown` is done, then stops: accepts nothing new, finishes
/// requests under way within [`Settings::shutdown_timeout`], and closes streams with 1001. Must run in
/// a multi-threaded tokio runtime.
///
/// # Errors
/// When a listener's own address cannot be read, or no thread can be started.
pub async fn serve(
    listeners: Vec<Listener>,
    node: Node,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let streams = streams_url(&listeners, &settings)?;
    let assets = Assets::new(
        &node,
        &Discovery {
            software: &settings.software,
            version: &settings.version,
            docs: &settings.docs,
            streams: &streams,
            max_transaction_size: settings.transaction_bytes_max,
        },
    );
    let (stop, phase) = watch::channel(Phase::Serving);
    let (alive, mut ended) = mpsc::channel(1);
    let hosts = settings
        .allowed_hosts
        .iter()
        .chain(&settings.advertised_host)
        .cloned()
        .collect();
    let gateway = Arc::new(Gateway {
        assets,
        tracker: settings
            .tracker
            .as_ref()
            .map(|tracker| Tracker::new(tracker, &node)),
        meters: Arc::new(Meters::new()),
        rates: settings.rate.map(Rates::new),
        streams: Streams::start()?,
        budget: Budget::new(settings.buffer_bytes_max, settings.transaction_bytes_max),
        lists: Turns::new(settings.lists_per_address_max),
        machines: Machines::default(),
        phase,
        _alive: alive,
        hosts,
        challenge: HeaderValue::from_static("Bearer realm=\"daybook\""),
        node,
        settings,
    });
    if let Some(tracker) = &gateway.tracker {
        tracker.start(&gateway);
    }
    let shutdown_timeout = gateway.settings.shutdown_timeout;
    let places = Arc::new(Places::new(&gateway.settings));
    for listener in listeners {
        let address = listener.socket.local_addr()?;
        let endpoint = Arc::new(Endpoint {
            serves: listener.serves,
            dialect: listener.dialect,
            loopback: address.ip().to_canonical().is_loopback(),
            tls: listener.tls.map(TlsAcceptor::from),
        });
        tracing::info!(%address, serves = ?endpoint.serves, tls = endpoint.tls.is_some(), "listening");
        tokio::spawn(accept(
            listener.socket,
            endpoint,
            gateway.clone(),
            places.clone(),
        ));
    }
    // From here on only connections and accepting tasks keep the gateway.
    drop(gateway);
    shutdown.await;
    stop.send_replace(Phase::Stopping);
    // The last holder of a sender is the last connection.
    if time::timeout(shutdown_timeout, ended.recv()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut off");
        stop.send_replace(Phase::Over);
        let _ = time::timeout(CUT_TIMEOUT, ended.recv()).await;
    }
    Ok(())
}

fn streams_url(listeners: &[Listener], settings: &Settings) -> io::Result<String> {
    let listener = listeners
        .iter()
        .find(|listener| listener.serves == Serves::Streams)
        .or(listeners.first())
        .ok_or(io::Error::new(io::ErrorKind::InvalidInput, "no listener"))?;
    let address = listener.socket.local_addr()?;
    let scheme = match (&settings.advertised_scheme, &listener.tls) {
        (Some(scheme), _) => scheme,
        (None, Some(_)) => "wss",
        (None, None) => "ws",
    };
    let host = match (&settings.advertised_host, address) {
        (Some(host), _) => host.clone(),
        (None, address) if address.ip().is_loopback() || address.ip().is_unspecified() => {
            "localhost".to_owned()
        }
        (None, SocketAddr::V4(address)) => address.ip().to_string(),
        (None, SocketAddr::V6(address)) => format!("[{}]", address.ip()),
    };
    let port = settings.advertised_port.unwrap_or(address.port());
    Ok(format!("{scheme}://{host}:{port}"))
}

async fn accept(
    socket: TcpListener,
    endpoint: Arc<Endpoint>,
    gateway: Arc<Gateway>,
    places: Arc<Places>,
) {
    let mut phase = gateway.phase.clone();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = reached(&mut phase, Phase::Stopping) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take(peer.ip()) else {
            gateway.meters.refused_connections.increment(1);
            if endpoint.tls.is_none()
                && let Ok(turn) = refusals.clone().try_acquire_owned()
            {
                tokio::spawn(refuse(stream, turn));
            }
            continue;
        };
        // Answers are written when they are whole, so there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let counted = gateway.meters.connection();
        let connection = Connection::new(peer.ip(), endpoint.clone(), place, counted);
        tokio::spawn(serve_connection(stream, connection, gateway.clone()));
    }
}

/// Tells a connection above the limit to come again. What the client has sent is read, or its own
/// system would throw the answer away.
async fn refuse(mut stream: TcpStream, _turn: OwnedSemaphorePermit) {
    let farewell = async {
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(HEAD_BYTES_MAX as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = time::timeout(REFUSAL_TIMEOUT, farewell).await;
}

async fn serve_connection(stream: TcpStream, connection: Arc<Connection>, gateway: Arc<Gateway>) {
    let transport = match &connection.endpoint.tls {
        None => Transport::Plain(stream),
        Some(tls) => {
            match time::timeout(gateway.settings.header_timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => Transport::Tls(Box::new(stream)),
                Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
                Err(_) => return tracing::debug!("TLS took too long"),
            }
        }
    };
    let socket = TokioIo::new(Socket::new(transport, connection.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        answer(gateway.clone(), connection.clone(), request, Instant::now())
    });
    let serving = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .half_close(true)
        // Not `pipeline_flush`: while anything of a next request is there, it writes nothing, and what
        // waits to be written has no bound.
        .serve_connection(socket, service)
        .with_upgrades();
    tokio::pin!(serving);
    let mut phase = gateway.phase.clone();
    let mut look = time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut until = Phase::Stopping;
    loop {
        tokio::select! {
            result = &mut serving => {
                if let Err(error) = result {
                    tracing::debug!(%error, peer = %connection.peer, "a connection broke");
                }
                return;
            }
            _ = look.tick() => {
                if let Some(reason) = connection.overdue(&gateway.settings) {
                    tracing::debug!(reason, peer = %connection.peer, "closing a connection");
                    return;
                }
            }
            () = reached(&mut phase, until) => {
                if until == Phase::Over {
                    return;
                }
                until = Phase::Over;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
