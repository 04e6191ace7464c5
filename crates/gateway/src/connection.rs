//! One connection: its socket, and the clock that closes it when nothing goes on.
//!
//! Timers of the HTTP layer would be armed for every request. Instead the socket notes what happens,
//! and the connection's task looks at the notes now and then.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::{
    Settings,
    meters::Present,
    server::{Endpoint, Place},
};

/// How often a connection's notes are looked at: timeouts are exact to this.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection from accept to close, through an upgrade if there is one.
pub(crate) struct Connection {
    /// Who is at the other end.
    pub(crate) peer: IpAddr,
    /// The listener it came to.
    pub(crate) endpoint: Arc<Endpoint>,
    notes: Notes,
    /// Why it is to be closed, if somebody said so.
    cut: OnceLock<&'static str>,
    _place: Place,
    _counted: Present,
}

/// What the socket did last, in milliseconds since it was opened; 0 is never.
struct Notes {
    opened: Instant,
    /// Something was read, written or finished.
    active: AtomicU64,
    /// The first byte of a request whose head is not complete.
    head_began: AtomicU64,
    /// The other end takes nothing since then.
    write_blocked: AtomicU64,
    /// Requests that are being read, served or answered.
    in_flight: AtomicU64,
}

/// A request under way; dropped when its answer is sent.
pub(crate) struct InFlight(Arc<Connection>);

impl Connection {
    pub(crate) fn new(
        peer: IpAddr,
        endpoint: Arc<Endpoint>,
        place: Place,
        counted: Present,
    ) -> Arc<Connection> {
        let notes = Notes {
            opened: Instant::now(),
            active: AtomicU64::new(1),
            head_began: AtomicU64::new(0),
            write_blocked: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        };
        Arc::new(Connection {
            peer,
            endpoint,
            notes,
            cut: OnceLock::new(),
            _place: place,
            _counted: counted,
        })
    }

    /// A request's head is complete.
    pub(crate) fn begin(self: &Arc<Connection>) -> InFlight {
        self.notes.in_flight.fetch_add(1, Relaxed);
        self.notes.head_began.store(0, Relaxed);
        InFlight(self.clone())
    }

    /// Lets the connection be closed at the next look, whatever it is doing.
    pub(crate) fn cut(&self, reason: &'static str) {
        // The first reason is the one that counts.
        let _ = self.cut.set(reason);
    }

    /// Why the connection should be closed now, if it should.
    pub(crate) fn overdue(&self, settings: &Settings) -> Option<&'static str> {
        if let Some(reason) = self.cut.get() {
            return Some(reason);
        }
        let notes = &self.notes;
        let now = notes.now();
        let over = |since: u64, limit: Duration| {
            since != 0 && Duration::from_millis(now.saturating_sub(since)) > limit
        };
        if over(notes.write_blocked.load(Relaxed), settings.stall_timeout) {
            return Some("the client reads nothing");
        }
        if notes.in_flight.load(Relaxed) != 0 {
            return None;
        }
        if over(notes.head_began.load(Relaxed), settings.header_timeout) {
            return Some("a request's head came too slowly");
        }
        over(notes.active.load(Relaxed), settings.idle_timeout).then_some("nothing was asked")
    }
}

impl Notes {
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let notes = &self.0.notes;
        notes.active.store(notes.now(), Relaxed);
        notes.in_flight.fetch_sub(1, Relaxed);
    }
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlight")
    }
}

/// The bytes of a connection, in the clear or through TLS.
pub(crate) struct Socket {
    transport: Transport,
    connection: Arc<Connection>,
}

/// What carries the bytes.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(crate) fn new(transport: Transport, connection: Arc<Connection>) -> Socket {
        Socket {
            transport,
            connection,
        }
    }

    /// Lets the kernel hold at most about `bytes` that it has not sent yet, so that what waits for a slow
    /// reader waits where it is counted and shared.
    pub(crate) fn limit_unsent(&self, bytes: u32) {
        let stream = match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(bytes) {
            tracing::debug!(%error, "the kernel holds as much as it likes");
        }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let notes = &self.connection.notes;
        match &result {
            Poll::Ready(_) => {
                notes.active.store(notes.now(), Relaxed);
                notes.write_blocked.store(0, Relaxed);
            }
            Poll::Pending if notes.write_blocked.load(Relaxed) == 0 => {
                notes.write_blocked.store(notes.now(), Relaxed);
            }
            Poll::Pending => {}
        }
        result
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        })?;
        let notes = &self.connection.notes;
        if buffer.filled().len() > before && notes.in_flight.load(Relaxed) == 0 {
            let now = notes.now();
            notes.active.store(now, Relaxed);
            // Only the first byte sets it: a head that comes drop by drop does not renew its time.
            let _ = notes.head_began.compare_exchange(0, now, Relaxed, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, buffer),
        };
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
