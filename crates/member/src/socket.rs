//! The command channel: one WebSocket per request of a user's program (section 2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use daybook_ledger::consortium::{Documents, REQUEST_BYTES_MAX};
use daybook_wire::websocket::{
    Decoder, Message as Frame, ProtocolError, write_close, write_ping, write_pong, write_text,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{self, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time,
};

use crate::{
    http::{Hosted, Peer, Reply, detail, empty},
    json::write,
    member::{Shared, stopped},
    message::{self, REQUEST_ERROR, problem, told},
    operation::{self, Operation},
    page::parameters,
    users::Caller,
};

/// How often the server asks whether the client is still there (section 2.1).
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to answer.
const PONG_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may last at all.
const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a write may take, and the closing handshake.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Room for one read.
const READ_BYTES: usize = 16 << 10;
/// Appended to the key of a handshake (RFC 6455, section 1.3).
const HANDSHAKE_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Close codes (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;

/// Answers a handshake: the token first, then the protocol.
pub(crate) async fn open(
    hosted: &Arc<Hosted>,
    mut request: Request<Incoming>,
    peer: Peer,
) -> Reply {
    let (shared, caller) = match whose(hosted, &request).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return detail(
                StatusCode::FORBIDDEN,
                "The token is missing, unknown or expired.",
            );
        }
        Err(error) => {
            tracing::error!(%error, "a token could not be looked up");
            return detail(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The member's store cannot be used.",
            );
        }
    };
    let Some(accept) = accept_key(&request) else {
        return detail(
            StatusCode::UPGRADE_REQUIRED,
            "This is a WebSocket of version 13: ask for it with an upgrade.",
        );
    };
    let Some(place) = hosted.socket_place() else {
        return detail(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many sockets are open.",
        );
    };
    let upgraded = upgrade::on(&mut request);
    tokio::spawn(async move {
        let _place = place;
        match upgraded.await {
            Ok(upgraded) => Session::new(upgraded, shared, caller).run().await,
            Err(error) => tracing::debug!(%error, peer = %peer.address, "no socket"),
        }
    });
    let mut reply = Response::new(empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

/// Whose token the request shows: in its query, under any spelling of the name, or as a bearer. The
/// first that is valid counts.
async fn whose(
    hosted: &Hosted,
    request: &Request<Incoming>,
) -> Result<Option<(Arc<Shared>, Caller)>, crate::DiskError> {
    /// Tokens of one request that are looked up.
    const TOKENS_MAX: usize = 4;
    let query = request.uri().query().unwrap_or("");
    let shown = parameters(query)
        .filter(|(name, _)| name.eq_ignore_ascii_case("token"))
        .map(|(_, token)| token);
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    for token in shown.chain(bearer).take(TOKENS_MAX) {
        if let Some(found) = hosted.token(token).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn accept_key(request: &Request<Incoming>) -> Option<HeaderValue> {
    let headers = request.headers();
    let lists = |name: header::HeaderName, token: &str| {
        let values = headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    let asks = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(header::CONNECTION, "upgrade")
        && lists(header::UPGRADE, "websocket")
        && headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_some_and(|version| version == "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    if !asks || STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    // SHA-1 proves nothing here and is not meant to; the protocol asks for it.
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(HANDSHAKE_GUID);
    HeaderValue::from_str(&STANDARD.encode(hash.finish())).ok()
}

type Socket = TokioIo<Upgraded>;

/// One connection.
struct Session {
    reader: ReadHalf<Socket>,
    writer: WriteHalf<Socket>,
    input: BytesMut,
    decoder: Decoder,
    shared: Arc<Shared>,
    caller: Caller,
    /// When the client was last heard, and whether it owes a pong since.
    heard: Instant,
    pinged: Option<Instant>,
}

/// What a client's bytes amount to.
enum Heard {
    Request(Bytes),
    Ping(Bytes),
    Pong,
    Close,
    /// The protocol was broken.
    Wrong(ProtocolError),
    Gone,
}

/// The connection is over.
struct Over;

impl Session {
    fn new(upgraded: Upgraded, shared: Arc<Shared>, caller: Caller) -> Session {
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        Session {
            reader,
            writer,
            input: BytesMut::new(),
            decoder: Decoder::new(REQUEST_BYTES_MAX),
            shared,
            caller,
            heard: Instant::now(),
            pinged: None,
        }
    }

    async fn run(mut self) {
        // Whatever ends it, the operation goes on by itself.
        let _ = time::timeout(LIFE_MAX, self.serve()).await;
    }

    async fn serve(&mut self) -> Result<(), Over> {
        let mut stopping = self.shared.stopping();
        let mut look = time::interval(PING_INTERVAL);
        look.tick().await;
        let mut running: Option<(Arc<Operation>, usize)> = None;
        loop {
            let event = async {
                match &running {
                    Some((operation, at)) => operation.event(*at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => {
                    return self.close(GOING_AWAY, "the member is stopping").await;
                }
                (happened, next) = event => {
                    let thread = match &mut running {
                        Some((operation, at)) => {
                            *at = next;
                            operation.id().to_owned()
                        }
                        None => continue,
                    };
                    let text = write(&told(&happened.event, Some(&thread)));
                    self.send(text.as_bytes()).await?;
                    if happened.last {
                        return self.close(NORMAL, "").await;
                    }
                }
                heard = hear(&mut self.reader, &mut self.decoder, &mut self.input) => {
                    self.heard = Instant::now();
                    match heard {
                        Heard::Request(text) if running.is_none() => {
                            running = Some((self.begin(&text).await?, 0));
                        }
                        Heard::Request(text) => {
                            let read = message::read(&text, Documents::Any, u64::MAX);
                            let thread = match read {
                                Ok(message) => Some(message.id),
                                Err(fault) => fault.thread,
                            };
                            let explain = "another request is under way on this socket: open one for each";
                            self.report(REQUEST_ERROR, explain, thread.as_deref()).await?;
                        }
                        Heard::Ping(payload) => {
                            let mut frame = Vec::new();
                            write_pong(&mut frame, &payload);
                            self.write(&frame).await?;
                        }
                        Heard::Pong => self.pinged = None,
                        Heard::Close => return self.close(NORMAL, "").await,
                        Heard::Gone => return Err(Over),
                        Heard::Wrong(error) => {
                            self.report(REQUEST_ERROR, &error.to_string(), None).await?;
                            let code = match error {
                                // What is no text is no request, and is told as every other.
                                ProtocolError::Utf8 => NORMAL,
                                error => error.close_code(),
                            };
                            return self.close(code, "").await;
                        }
                    }
                }
                _ = look.tick() => {
                    if self.pinged.is_some_and(|since| since.elapsed() > PONG_TIMEOUT) {
                        return Err(Over);
                    }
                    let mut frame = Vec::new();
                    write_ping(&mut frame, b"");
                    self.write(&frame).await?;
                    self.pinged.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// Begins what a client asks for; a client that asks for nothing sensible is told so and left.
    async fn begin(&mut self, text: &[u8]) -> Result<Arc<Operation>, Over> {
        let level = {
            let book = self.shared.mirror.book();
            let settings = book.settings();
            settings.map_or(Documents::Strict, |settings| settings.documents)
        };
        let read = message::read(text, level, self.shared.settings.ttl_seconds_max);
        let begun = match read {
            Ok(message) => operation::begin(&self.shared, message, &self.caller.name).await,
            Err(fault) => Err(fault),
        };
        match begun {
            Ok(operation) => Ok(operation),
            Err(fault) => {
                self.report(fault.code, &fault.explain, fault.thread.as_deref())
                    .await?;
                self.close(NORMAL, "").await?;
                Err(Over)
            }
        }
    }

    async fn report(
        &mut self,
        code: &str,
        explain: &str,
        thread: Option<&str>,
    ) -> Result<(), Over> {
        let report = problem(code, explain, "request", &[]);
        let text = write(&told(&report, thread));
        self.send(text.as_bytes()).await
    }

    async fn send(&mut self, text: &[u8]) -> Result<(), Over> {
        let mut frame = Vec::with_capacity(text.len() + 10);
        write_text(&mut frame, text);
        self.write(&frame).await
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), Over> {
        let writing = async {
            self.writer.write_all(frame).await?;
            self.writer.flush().await
        };
        match time::timeout(WRITE_TIMEOUT, writing).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }

    /// Says goodbye and waits a little for the client to say it too, so that it reads all that was sent.
    async fn close(&mut self, code: u16, reason: &str) -> Result<(), Over> {
        let mut frame = Vec::new();
        write_close(&mut frame, code, reason);
        self.write(&frame).await?;
        let farewell = async {
            while !matches!(
                hear(&mut self.reader, &mut self.decoder, &mut self.input).await,
                Heard::Close | Heard::Gone | Heard::Wrong(_)
            ) {}
        };
        let _ = time::timeout(CLOSE_TIMEOUT, farewell).await;
        let _ = time::timeout(CLOSE_TIMEOUT, self.writer.shutdown()).await;
        Ok(())
    }
}

/// The next thing that the client says. Dropping the future loses nothing.
async fn hear(reader: &mut ReadHalf<Socket>, decoder: &mut Decoder, input: &mut BytesMut) -> Heard {
    loop {
        match decoder.decode(input) {
            Ok(Some(Frame::Text(text) | Frame::Binary(text))) => return Heard::Request(text),
            Ok(Some(Frame::Ping(payload))) => return Heard::Ping(payload),
            Ok(Some(Frame::Pong(_))) => return Heard::Pong,
            Ok(Some(Frame::Close(_))) => return Heard::Close,
            Ok(None) => {}
            Err(error) => return Heard::Wrong(error),
        }
        input.reserve(READ_BYTES);
        match reader.read_buf(input).await {
            Ok(1..) => {}
            _ => return Heard::Gone,
        }
    }
}
