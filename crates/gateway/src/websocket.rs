//! WebSockets on an upgraded connection: the handshake, and a link that sends shared buffers without
//! copying them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use daybook_wire::websocket::{
    Decoder, Message, ProtocolError, frame_end, write_close, write_pong,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    body::Body,
    connection::Socket,
    gate::lists,
    reply::{Refused, Reply, refused},
};

/// Appended to the key of a handshake (RFC 6455, section 1.3).
const HANDSHAKE_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Room for one read from a client that submits.
pub(crate) const READ_BYTES: usize = 16 << 10;

/// Bytes that may wait for a peer before its Pings are left unanswered until it reads.
const PONG_PENDING_BYTES_MAX: usize = 64 << 10;

/// Buffers handed to the kernel in one call; IOV_MAX is 1,024 and fewer are as good.
const BUFFERS_PER_WRITE_MAX: usize = 64;

/// How long a closing handshake may take before the connection is dropped.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Close codes (RFC 6455, section 7.4.1, and the IANA registry).
pub(crate) mod code {
    /// All is done.
    pub(crate) const NORMAL: u16 = 1000;
    /// The node is stopping.
    pub(crate) const GOING_AWAY: u16 = 1001;
    /// The client reads too slowly, or the store failed: try again later.
    pub(crate) const TRY_AGAIN_LATER: u16 = 1013;
}

/// Answers a handshake with 101.
///
/// # Errors
/// 400 when the request asks for no WebSocket, 426 for another version than 13.
pub(crate) fn handshake(request: &mut Request<Incoming>) -> Result<(Reply, OnUpgrade), Refused> {
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(headers, header::CONNECTION, "upgrade")
        && lists(headers, header::UPGRADE, "websocket");
    if !asks {
        return Err(bad("This is a WebSocket: ask for it with an upgrade"));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let mut reply = refused(StatusCode::UPGRADE_REQUIRED, "Only version 13 is spoken");
        let version = HeaderValue::from_static("13");
        reply
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, version);
        return Err(reply.into());
    }
    let accept = accept_key(headers).ok_or_else(|| bad("Sec-WebSocket-Key is not 16 bytes"))?;
    let mut reply = Response::new(Body::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok((reply, upgrade::on(request)))
}

fn bad(message: &str) -> Refused {
    refused(StatusCode::BAD_REQUEST, message).into()
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    if BASE64_STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    // SHA-1 proves nothing here and is not meant to; the protocol asks for it.
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(HANDSHAKE_GUID);
    HeaderValue::from_str(&BASE64_STANDARD.encode(hash.finish())).ok()
}

/// Waits for the socket behind an upgrade, and what the client sent right behind its handshake.
pub(crate) async fn opened(upgrade: OnUpgrade) -> Option<(Socket, BytesMut)> {
    let parts = upgrade.await.ok()?.downcast::<TokioIo<Socket>>().ok()?;
    Some((parts.io.into_inner(), BytesMut::from(&parts.read_buf[..])))
}

/// A socket that mostly sends. What a client says is read and, but for control frames, forgotten.
pub(crate) struct Link<S = Socket> {
    socket: S,
    input: BytesMut,
    decoder: Decoder,
    outgoing: VecDeque<Bytes>,
    /// Bytes of the first outgoing buffer that were written.
    written: usize,
    outgoing_bytes: usize,
    unflushed: bool,
    /// The payload of the newest Ping that was not answered yet; older ones need no answer (RFC 6455,
    /// section 5.5.3).
    ping: Option<Bytes>,
    progress: Instant,
    heard: Instant,
}

/// What happened on a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Everything that was pending is written.
    Drained,
    /// The client closes, with this code if it gave one.
    Closing(Option<u16>),
    /// The client broke the protocol.
    Wrong(ProtocolError),
    /// The connection is gone.
    Gone,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(crate) fn new(socket: S, input: BytesMut) -> Link<S> {
        let now = Instant::now();
        Link {
            socket,
            input,
            decoder: Decoder::controls_only(),
            outgoing: VecDeque::new(),
            written: 0,
            outgoing_bytes: 0,
            unflushed: false,
            ping: None,
            progress: now,
            heard: now,
        }
    }

    /// Queues whole frames.
    pub(crate) fn send(&mut self, frames: Bytes) {
        if frames.is_empty() {
            return;
        }
        if self.outgoing.is_empty() {
            self.progress = Instant::now();
        }
        self.outgoing_bytes += frames.len();
        self.outgoing.push_back(frames);
    }

    /// Bytes that wait to be written.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.outgoing_bytes - self.written
    }

    /// How long the client has taken nothing of what waits for it.
    pub(crate) fn stalled_for(&self) -> Duration {
        if self.outgoing.is_empty() {
            Duration::ZERO
        } else {
            self.progress.elapsed()
        }
    }

    /// How long the client has sent nothing at all.
    pub(crate) fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Writes and reads until there is something to tell. Dropping the future loses nothing.
    pub(crate) async fn run(&mut self) -> Event {
        poll_fn(|context| self.poll_run(context)).await
    }

    fn poll_run(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        // Reading comes first, so that a Ping is answered in the same turn.
        if let Poll::Ready(event) = self.poll_read(context) {
            return Poll::Ready(event);
        }
        // Of several Pings that wait, the newest is answered (RFC 6455, section 5.5.3); a peer that sends
        // them and reads nothing piles up no answers.
        if self.pending_bytes() < PONG_PENDING_BYTES_MAX
            && let Some(payload) = self.ping.take()
        {
            let mut frame = Vec::new();
            write_pong(&mut frame, &payload);
            self.send(frame.into());
        }
        match self.poll_write(context) {
            Poll::Ready(Ok(true)) => Poll::Ready(Event::Drained),
            Poll::Ready(Ok(false)) | Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Event::Gone),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            loop {
                match self.decoder.decode(&mut self.input) {
                    Ok(Some(Message::Ping(payload))) => self.ping = Some(payload),
                    Ok(Some(Message::Close(code))) => return Poll::Ready(Event::Closing(code)),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(Event::Wrong(error)),
                }
            }
            // A frame that is incomplete is a control frame or a header: under 140 bytes.
            self.input.reserve(READ_BYTES_SPARE);
            let mut chunk = [MaybeUninit::uninit(); CHUNK_BYTES];
            let mut buffer = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut self.socket).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.heard = Instant::now();
                    self.input.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return Poll::Ready(Event::Gone),
            }
        }
    }

    /// True when something was pending and now is not.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let was_pending = self.unflushed || !self.outgoing.is_empty();
        while !self.outgoing.is_empty() {
            let written = {
                let mut slices = [IoSlice::new(&[]); BUFFERS_PER_WRITE_MAX];
                let mut count = 0;
                for (slice, frames) in slices.iter_mut().zip(&self.outgoing) {
                    let start = if count == 0 { self.written } else { 0 };
                    *slice = IoSlice::new(&frames[start..]);
                    count += 1;
                }
                let slices = &slices[..count];
                match Pin::new(&mut self.socket).poll_write_vectored(context, slices) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => written,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            };
            self.progress = Instant::now();
            self.unflushed = true;
            self.written += written;
            while let Some(first) = self.outgoing.front()
                && self.written >= first.len()
            {
                self.written -= first.len();
                self.outgoing_bytes -= first.len();
                self.outgoing.pop_front();
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result?,
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(was_pending))
    }

    /// Closes with a code: finishes the frame that is being written, says goodbye, and waits shortly for
    /// it to leave. Frames that were not begun are dropped if `now` says so.
    pub(crate) async fn close(mut self, code: u16, reason: &str, now: bool) {
        if now && let Some(first) = self.outgoing.front() {
            let end = frame_end(first, self.written);
            let rest = first.slice(..end);
            self.outgoing.clear();
            self.outgoing_bytes = 0;
            if rest.len() > self.written {
                self.send(rest);
            } else {
                self.written = 0;
            }
        }
        let mut frame = Vec::new();
        write_close(&mut frame, code, reason);
        self.send(frame.into());
        let goodbye = async {
            while !matches!(
                poll_fn(|context| self.poll_write(context)).await,
                Ok(_) | Err(_)
            ) {}
            let _ = poll_fn(|context| Pin::new(&mut self.socket).poll_shutdown(context)).await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

/// Room kept for the incomplete frame at the end of the input.
const READ_BYTES_SPARE: usize = 256;

/// Bytes read at once from a client that is not expected to say much.
const CHUNK_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use daybook_wire::websocket::write_text;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Room between the two ends: less than one of the test's frames.
    const ROOM: usize = 64;

    fn link() -> (Link<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(ROOM);
        (Link::new(ours, BytesMut::new()), theirs)
    }

    fn frame(payload: &[u8]) -> Bytes {
        let mut frame = Vec::new();
        write_text(&mut frame, payload);
        frame.into()
    }

    /// Polls once, so that what can be written is written.
    async fn turn(link: &mut Link<DuplexStream>) -> Option<Event> {
        poll_fn(|context| {
            Poll::Ready(match link.poll_run(context) {
                Poll::Ready(event) => Some(event),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_however_little_room_there_is() {
        let (mut link, mut client) = link();
        let frames: Vec<Bytes> = (0..100u8)
            .map(|number| frame(&[b'a' + number % 26; 99]))
            .collect();
        frames.iter().for_each(|frame| link.send(frame.clone()));
        assert_eq!(link.pending_bytes(), 100 * 101);
        let expected = frames.concat();
        let reading = async {
            let mut read = vec![0; expected.len()];
            client.read_exact(&mut read).await.expect("all of it");
            read
        };
        let (event, read) = tokio::join!(link.run(), reading);
        assert_eq!(event, Event::Drained);
        assert_eq!(read, expected);
        assert_eq!(link.pending_bytes(), 0);
    }

    #[tokio::test]
    async fn a_closing_link_finishes_its_frame_and_drops_those_behind_it() {
        let (mut link, mut client) = link();
        let (first, second) = (frame(&[b'x'; 100]), frame(&[b'y'; 100]));
        link.send([first.clone(), second.clone()].concat().into());
        link.send(second);
        assert_eq!(turn(&mut link).await, None);
        assert_eq!(link.pending_bytes(), 3 * 102 - ROOM);
        let mut read = Vec::new();
        let ((), result) = tokio::join!(
            link.close(code::TRY_AGAIN_LATER, "too slow", true),
            client.read_to_end(&mut read)
        );
        result.expect("it was closed in order");
        let mut expected = first.to_vec();
        write_close(&mut expected, code::TRY_AGAIN_LATER, "too slow");
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn pings_are_answered_and_everything_else_is_forgotten() {
        let (mut link, mut client) = link();
        // A text of any length and kind, then a ping, then another text without its end.
        let mask = [0u8; 4];
        let mut input = vec![0x81, 0xfe, 0x03, 0xe8];
        input.extend_from_slice(&mask);
        input.extend_from_slice(&[0xff; 1_000]);
        input.extend_from_slice(&[0x89, 0x83]);
        input.extend_from_slice(&mask);
        input.extend_from_slice(b"abc\x81\xfe\x03\xe8");
        let client_side = async {
            client.write_all(&input).await.expect("it is read");
            let mut pong = [0; 5];
            client.read_exact(&mut pong).await.expect("a pong");
            pong
        };
        let (event, pong) = tokio::join!(link.run(), client_side);
        assert_eq!(event, Event::Drained);
        assert_eq!(&pong, b"\x8a\x03abc");
        assert!(link.input.len() < READ_BYTES_SPARE);
        drop(client);
        assert_eq!(link.run().await, Event::Gone);
    }
}
