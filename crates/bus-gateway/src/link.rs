//! A TCP connection that can be held back and cut from outside: what the transport below cannot do
//! with a client that stopped reading.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use rustix::net::{Shutdown, shutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// The handle on a connection.
pub(crate) struct Link {
    paused: AtomicBool,
    reader: AtomicWaker,
    end: End,
}

/// How a connection is cut.
enum End {
    /// By its socket, which the bus accepted itself.
    Socket(Arc<TcpStream>),
    /// By telling [`Lent`], because the socket is somebody else's.
    Told {
        cut: AtomicBool,
        writer: AtomicWaker,
    },
}

impl Link {
    fn new(end: End) -> Arc<Link> {
        Arc::new(Link {
            paused: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            end,
        })
    }

    /// The handle on a connection that another listener hands over ([`Lent`]).
    pub(crate) fn of_another() -> Arc<Link> {
        Link::new(End::Told {
            cut: AtomicBool::new(false),
            writer: AtomicWaker::new(),
        })
    }

    /// Reads nothing until [`Link::resume`]; the client's own system then makes it wait.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Release);
        self.reader.wake();
    }

    /// Ends the connection. Whoever waits for it is woken and told.
    pub(crate) fn cut(&self) {
        match &self.end {
            // A connection that is gone already is cut enough.
            End::Socket(stream) => drop(shutdown(&**stream, Shutdown::Both)),
            End::Told { cut, writer } => {
                cut.store(true, Ordering::Release);
                writer.wake();
            }
        }
        self.resume();
    }

    /// Whether its reader has to wait, which is woken then.
    fn holds_back(&self, cx: &Context<'_>) -> bool {
        if !self.paused.load(Ordering::Acquire) {
            return false;
        }
        self.reader.register(cx.waker());
        self.paused.load(Ordering::Acquire)
    }

    fn is_cut(&self) -> bool {
        match &self.end {
            End::Socket(_) => false,
            End::Told { cut, .. } => cut.load(Ordering::Acquire),
        }
    }
}

/// A connection of the bus's own listener, as the layers above read and write it.
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    pub(crate) link: Arc<Link>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        // A packet is whole when it is written; without this an answer waits for an acknowledgement,
        // 44 ms long (service bus, section 15, note 4).
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let link = Link::new(End::Socket(stream.clone()));
        Wire { stream, link }
    }

    fn write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.link.holds_back(cx) {
            return Poll::Pending;
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let room = into.initialize_unfilled();
            let whole = room.len();
            match self.stream.try_read(room) {
                Ok(read) => {
                    into.advance(read);
                    if 0 < read && read < whole {
                        // The socket is empty, so the next read would only be told so. What comes
                        // from now on is told by the poller, which this thread has still to ask.
                        let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                        let _ = self.stream.try_io(Interest::READABLE, empty);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A connection that is gone already is shut down enough.
        let _ = shutdown(&*self.stream, Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// A connection that another listener has accepted and handed over. The link cannot reach its socket,
/// so whoever reads and writes looks at the link.
pub(crate) struct Lent<S, H> {
    stream: S,
    link: Arc<Link>,
    /// What ends with the connection.
    _held: H,
}

impl<S, H> Lent<S, H> {
    pub(crate) fn new(stream: S, link: Arc<Link>, held: H) -> Lent<S, H> {
        Lent {
            stream,
            link,
            _held: held,
        }
    }

    /// Writes, unless the connection is cut; a cut wakes who waits.
    fn write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        S: Unpin,
    {
        if let End::Told { writer, .. } = &self.link.end {
            writer.register(cx.waker());
        }
        if self.link.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        write(Pin::new(&mut self.stream), cx)
    }
}

impl<S: AsyncRead + Unpin, H: Unpin> AsyncRead for Lent<S, H> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.link.reader.register(cx.waker());
        if this.link.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.link.holds_back(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Lent<S, H> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.write_with(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.write_with(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed =
            |stream: Pin<&mut S>, cx: &mut Context<'_>| stream.poll_flush(cx).map_ok(|()| 0);
        this.write_with(cx, flushed).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended =
            |stream: Pin<&mut S>, cx: &mut Context<'_>| stream.poll_shutdown(cx).map_ok(|()| 0);
        this.write_with(cx, ended).map_ok(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (Wire::new(accepted.unwrap().0), client.unwrap())
    }

    #[tokio::test]
    async fn c29_no_packet_waits_for_the_one_before_it_to_be_acknowledged() {
        let (wire, _client) = pair().await;
        assert!(wire.stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn everything_is_read_however_the_pieces_fall() {
        let (mut wire, mut client) = pair().await;
        // Larger and smaller than the room for a read, and just as large.
        for length in [1_usize, 15, 16, 17, 32, 1_000, 16, 1] {
            let sent: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            client.write_all(&sent).await.unwrap();
            let (mut room, mut read) = ([0; 16], Vec::new());
            while read.len() < length {
                let count = wire.read(&mut room).await.unwrap();
                assert_ne!(count, 0);
                read.extend_from_slice(&room[..count]);
            }
            assert_eq!(read, sent);
        }
        drop(client);
        assert_eq!(wire.read(&mut [0; 16]).await.unwrap(), 0);
    }

    /// A lent connection, its link, and its other end.
    fn lent() -> (Lent<DuplexStream, ()>, Arc<Link>, DuplexStream) {
        let (near, far) = tokio::io::duplex(16);
        let link = Link::of_another();
        (Lent::new(near, link.clone(), ()), link, far)
    }

    #[tokio::test]
    async fn a_lent_connection_that_is_held_back_reads_nothing_until_it_may_go_on() {
        let (mut lent, link, mut far) = lent();
        link.pause();
        far.write_all(b"abc").await.unwrap();
        let mut room = [0; 16];
        let mut read = look(&mut lent, &mut room);
        assert!(read.is_pending());
        link.resume();
        read = look(&mut lent, &mut room);
        assert!(matches!(read, Poll::Ready(Ok(3))), "{read:?}");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_lent_connection_is_told_when_it_is_cut() {
        let (lent, link, _far) = lent();
        let (mut reading, mut writing) = tokio::io::split(lent);
        let reader = tokio::spawn(async move { reading.read(&mut [0; 16]).await });
        // More than the other end takes.
        let writer = tokio::spawn(async move { writing.write_all(&[0; 100]).await });
        tokio::task::yield_now().await;
        link.cut();
        assert!(reader.await.unwrap().is_err());
        assert!(writer.await.unwrap().is_err());
    }

    /// One look at what can be read.
    fn look(lent: &mut Lent<DuplexStream, ()>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let read = Pin::new(lent).poll_read(&mut cx, &mut room);
        read.map_ok(|()| room.filled().len())
    }
}
