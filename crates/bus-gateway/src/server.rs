//! Listening, and stopping in good order.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use daybook_bus::{Event, StoreOp};
use daybook_pipeline::Node;
use engineioxide::{
    config::EngineIoConfig,
    service::{EngineIoService, NotFoundService},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinHandle,
    time,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Disk, DiskError, Handle, Keyring, Mount, Settings, admin,
    hub::{Hub, Write},
    link::{Link, Wire},
    meters,
    sockets::Sockets,
};

/// The path of Socket.IO.
const PATH: &str = "/socket.io";
/// Bytes of a packet beside the payload that is allowed: names and envelope.
const ENVELOPE_BYTES: usize = 64 << 10;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes read from a WebSocket at once.
const READ_BYTES: usize = 16 << 10;
/// Packets in the transport's queue beyond those that the core counts: pings, errors, farewells.
const CONTROL_PACKETS_MAX: usize = 512;
/// How long accepting rests after it failed, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a TLS handshake may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long farewells may take to be written when the bus stops.
const FAREWELL_TIME: Duration = Duration::from_millis(300);
/// How often a stopping bus looks whether everything is answered.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// Threads for what blocks: key checks and reads of the ledger.
const BLOCKING_THREADS_MAX: usize = 8;
/// Writes that are flushed together at most.
const WRITES_AT_ONCE: usize = 4_096;

pub(crate) type Body = UnsyncBoxBody<bytes::Bytes, Infallible>;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS; `None` speaks in the clear.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A bus that runs.
pub struct Running {
    hub: Arc<Hub>,
    front: Arc<Front>,
    stop: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    end: oneshot::Sender<()>,
}

/// What every connection reaches, whichever listener it came to.
pub(crate) struct Front {
    pub(crate) hub: Arc<Hub>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) engine: EngineIoService<Sockets, NotFoundService>,
    /// Places for connections.
    pub(crate) places: Arc<Semaphore>,
    /// Where everything of the bus runs.
    pub(crate) runtime: runtime::Handle,
}

impl Front {
    /// A place for one more connection, if there is one.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            metrics::counter!("daybook_bus_connections_refused_total").increment(1);
        }
        place
    }
}

struct Endpoint {
    front: Arc<Front>,
    loopback: bool,
    tls: Option<TlsAcceptor>,
}

/// Starts a bus. `node` gives it the ledger; without one it only routes. Must be called in a tokio
/// runtime, in which the listeners were bound.
///
/// It runs on one thread of its own. A message's way is shorter than a wake-up of another thread would
/// be, and however much it has to do, the ledger's threads do not notice.
///
/// # Errors
/// When the disk cannot be read, or the operating system starts no thread.
pub fn start(
    listeners: Vec<Listener>,
    node: Option<Node>,
    keyring: Arc<Keyring>,
    disk: Box<dyn Disk>,
    settings: Settings,
) -> Result<(Handle, Running), DiskError> {
    meters::describe();
    let stored = disk.load()?;
    let (writes, written) = crossbeam_channel::unbounded();
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let system = |e: std::io::Error| DiskError(e.to_string());
    let own = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(system)?;
    let runtime = own.handle().clone();
    let (end, ended) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || {
            // Dropped or sent, it means the same.
            let _ = own.block_on(ended);
            own.shutdown_background();
        })
        .map_err(system)?;
    let (hub, notes) =
        Hub::new(settings, keyring, node, writes, &stored, runtime.clone()).map_err(DiskError)?;
    if let Some(flusher) = notes {
        let hub = Arc::downgrade(&hub);
        thread::Builder::new()
            .name("bus-notes".to_owned())
            .spawn(move || {
                let done = |ticket, ok| {
                    if let Some(hub) = hub.upgrade() {
                        hub.handle(Event::Stored { ticket, ok });
                    }
                };
                let failed = |error: &std::io::Error| {
                    if let Some(hub) = hub.upgrade() {
                        hub.forgetful(error);
                    }
                };
                flusher.run(&done, &failed);
            })
            .map_err(system)?;
    }
    {
        let hub = Arc::downgrade(&hub);
        thread::Builder::new()
            .name("bus-store".to_owned())
            .spawn(move || {
                write(disk, &written, &|ticket, ok| {
                    if let Some(hub) = hub.upgrade() {
                        hub.handle(Event::Stored { ticket, ok });
                    }
                });
            })
            .map_err(system)?;
    }
    let sockets = Sockets::new(hub.clone());
    let front = Arc::new(Front {
        engine: EngineIoService::with_config(sockets.clone(), engine_config(&hub.settings)),
        sockets,
        hub: hub.clone(),
        places,
        runtime: runtime.clone(),
    });
    let (stop, stopping) = watch::channel(false);
    let mut accepting = Vec::new();
    for listener in listeners {
        let loopback = listener
            .socket
            .local_addr()
            .map_err(system)?
            .ip()
            .to_canonical()
            .is_loopback();
        let endpoint = Arc::new(Endpoint {
            front: front.clone(),
            loopback,
            tls: listener.tls.map(TlsAcceptor::from),
        });
        // It is watched by the runtime that it was bound in, which is another one.
        let socket = listener.socket.into_std().map_err(system)?;
        let socket = {
            let _runtime = runtime.enter();
            TcpListener::from_std(socket).map_err(system)?
        };
        accepting.push(runtime.spawn(accept(socket, endpoint, stopping.clone())));
    }
    let tasks = vec![
        runtime.spawn(hub.clone().run_timers()),
        runtime.spawn(hub.clone().run_drained()),
        runtime.spawn(hub.clone().run_notes()),
    ];
    Ok((
        Handle(hub.clone()),
        Running {
            hub,
            front,
            stop,
            accepting,
            tasks,
            end,
        },
    ))
}

impl Running {
    /// The bus as a guest of another listener.
    pub fn mount(&self) -> Mount {
        Mount::new(self.front.clone())
    }

    /// Takes no new requests, finishes open ones until `within` is over, says good-bye and ends.
    pub async fn stop(mut self, within: Duration) {
        let end = Instant::now() + within;
        self.hub.handle(Event::Drain {
            deadline: self.hub.now().after_ms(millis(within)),
        });
        while !self.hub.look(daybook_bus::Bus::is_drained) && Instant::now() < end {
            time::sleep(DRAIN_INTERVAL).await;
        }
        self.hub.end();
        self.hub.write_notes();
        time::sleep(FAREWELL_TIME.min(end.saturating_duration_since(Instant::now()))).await;
        self.stop.send_replace(true);
        self.hub.close_all();
        for task in self.accepting.drain(..).chain(self.tasks.drain(..)) {
            task.abort();
        }
        // What is left on the thread ends with it. The writer ends when nobody can ask it for anything
        // any more; whoever waited for a write has been answered or refused.
        let _ = self.end.send(());
    }
}

fn engine_config(settings: &Settings) -> EngineIoConfig {
    let bytes = settings.bus.payload_bytes_max + ENVELOPE_BYTES;
    EngineIoConfig::builder()
        .req_path(PATH)
        .ping_interval(settings.ping_interval)
        .ping_timeout(settings.ping_timeout)
        .max_buffer_size(settings.outbound_messages_max + CONTROL_PACKETS_MAX)
        .max_payload(bytes as u64)
        .ws_read_buffer_size(READ_BYTES)
        .ws_max_message_size(bytes)
        .ws_max_frame_size(bytes)
        .build()
}

/// Writes what has gathered, flushes once, and tells who waits. After a failed write nothing more is
/// written: what is on the disk is not known any longer.
fn write(
    mut disk: Box<dyn Disk>,
    written: &Receiver<Write>,
    done: &dyn Fn(daybook_bus::Ticket, bool),
) {
    let mut broken = false;
    while let Ok(first) = written.recv() {
        let mut tickets = Vec::new();
        let mut ops: Vec<StoreOp> = Vec::new();
        let mut copies = Vec::new();
        let mut take = |order: Write| match order {
            Write::Ops(more, ticket) => {
                ops.extend(more);
                tickets.extend(ticket);
            }
            Write::Copy(to, done) => copies.push((to, done)),
        };
        take(first);
        written.try_iter().take(WRITES_AT_ONCE).for_each(take);
        if !broken
            && !ops.is_empty()
            && let Err(error) = disk.write(&ops)
        {
            tracing::error!(%error, "durable subscriptions take no more messages");
            broken = true;
        }
        for ticket in tickets {
            done(ticket, !broken);
        }
        for (to, told) in copies {
            // Whoever asked may have gone.
            let _ = told.send(disk.copy(&to));
        }
    }
}

async fn accept(socket: TcpListener, endpoint: Arc<Endpoint>, mut stopping: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = endpoint.front.place() else {
            continue;
        };
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            let _place = place;
            serve(Wire::new(stream), peer.ip(), &endpoint).await;
        });
    }
}

async fn serve(wire: Wire, peer: IpAddr, endpoint: &Arc<Endpoint>) {
    let link = wire.link.clone();
    match &endpoint.tls {
        None => speak(wire, link, peer, endpoint).await,
        Some(tls) => match time::timeout(TLS_TIMEOUT, tls.accept(wire)).await {
            Ok(Ok(stream)) => speak(stream, link, peer, endpoint).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("TLS took too long"),
        },
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    link: Arc<Link>,
    peer: IpAddr,
    endpoint: &Arc<Endpoint>,
) {
    let service = service_fn(|request| {
        let (endpoint, link) = (endpoint.clone(), link.clone());
        async move { Ok::<_, Infallible>(answer(&endpoint, &link, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(endpoint.front.hub.settings.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        tracing::trace!(%error, %peer, "a connection broke");
    }
}

async fn answer(
    endpoint: &Arc<Endpoint>,
    link: &Arc<Link>,
    request: Request<Incoming>,
) -> Response<Body> {
    let front = &endpoint.front;
    let settings = &front.hub.settings;
    if endpoint.loopback && !names_this_machine(&request, &settings.allowed_hosts) {
        return whole(admin::error(StatusCode::MISDIRECTED_REQUEST, "wrong_host"));
    }
    respond(front, link, request).await
}

/// Answers a request whose host's name is in order.
pub(crate) async fn respond(
    front: &Arc<Front>,
    link: &Arc<Link>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let settings = &front.hub.settings;
    let origin = request.headers().get(header::ORIGIN).cloned();
    if let (Some(origin), Some(allowed)) = (&origin, &settings.allowed_origins)
        && !allowed.iter().any(|a| a.as_bytes() == origin.as_bytes())
    {
        return whole(admin::error(StatusCode::FORBIDDEN, "wrong_origin"));
    }
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = admin::error(StatusCode::NO_CONTENT, "");
        *response.body_mut() = Default::default();
        whole(response)
    } else if is_engine(request.uri().path()) {
        if let Some(sid) = upgraded_session(&request) {
            front.sockets.upgrading(sid, link);
        }
        request.extensions_mut().insert(link.clone());
        let posted = request.method() == Method::POST;
        let answering = front.engine.call(request);
        let answered = match posted {
            false => answering.await,
            true => match time::timeout(settings.body_timeout, answering).await {
                Ok(answered) => answered,
                Err(_) => return whole(admin::error(StatusCode::REQUEST_TIMEOUT, "too_slow")),
            },
        };
        match answered {
            Ok(response) => response.map(|body| body.boxed_unsync()),
            Err(never) => match never {},
        }
    } else {
        whole(admin::answer(&front.hub, &request))
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        // Old clients poll with credentials, which forbids a star. There are no cookies to be had.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "content-type, authorization",
            ),
            (header::VARY, "origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

pub(crate) fn whole(response: Response<http_body_util::Full<bytes::Bytes>>) -> Response<Body> {
    response.map(|body| body.boxed_unsync())
}

/// Whether a path is that of Socket.IO.
pub(crate) fn is_engine(path: &str) -> bool {
    path.strip_prefix(PATH)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a request asks for a WebSocket.
pub(crate) fn wants_websocket<B>(request: &Request<B>) -> bool {
    let mut parts = request.uri().query().unwrap_or_default().split('&');
    parts.any(|part| part == "transport=websocket")
}

/// The session that a request wants to go on with over a WebSocket.
pub(crate) fn upgraded_session<B>(request: &Request<B>) -> Option<&str> {
    let mut parts = request.uri().query()?.split('&');
    parts
        .find_map(|part| part.strip_prefix("sid="))
        .filter(|_| wants_websocket(request))
}

/// True when the request calls the node by a name of this machine: a page of another site that made
/// its own name lead here does not.
fn names_this_machine<B>(request: &Request<B>, allowed: &[String]) -> bool {
    let Some(host) = request.headers().get(header::HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || allowed.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
