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
    stream: TcpStream,
    paused: AtomicBool,
    reader: AtomicWaker,
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Arc<Link> {
        // A packet is whole when it is written; without this an answer waits for an acknowledgement,
        // 44 ms long (service bus, section 15, note 4).
        let _ = stream.set_nodelay(true);
        Arc::new(Link {
            stream,
            paused: AtomicBool::new(false),
            reader: AtomicWaker::new(),
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
        let _ = shutdown(&self.stream, Shutdown::Both);
        self.resume();
    }
}

/// The connection as the layers above read and write it.
pub(crate) struct Wire(pub(crate) Arc<Link>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &self.0;
        if link.paused.load(Ordering::Acquire) {
            link.reader.register(cx.waker());
            if link.paused.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        loop {
            ready!(link.stream.poll_read_ready(cx))?;
            let room = into.initialize_unfilled();
            let whole = room.len();
            match link.stream.try_read(room) {
                Ok(read) => {
                    into.advance(read);
                    if 0 < read && read < whole {
                        // The socket is empty, so the next read would only be told so. What comes
                        // from now on is told by the poller, which this thread has still to ask.
                        let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                        let _ = link.stream.try_io(Interest::READABLE, empty);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Wire {
    fn write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match write(&self.0.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
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
        let _ = shutdown(&self.0.stream, Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Arc<Link>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (Link::new(accepted.unwrap().0), client.unwrap())
    }

    #[tokio::test]
    async fn c29_no_packet_waits_for_the_one_before_it_to_be_acknowledged() {
        let (link, _client) = pair().await;
        assert!(link.stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn everything_is_read_however_the_pieces_fall() {
        let (link, mut client) = pair().await;
        let mut wire = Wire(link);
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
}
