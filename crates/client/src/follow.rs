//! Following a stream across broken connections and restarts of the node, without gap or repeat.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use daybook_ledger::{AssetId, Height, Operation, PublicKey};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tungstenite::{Message, protocol::WebSocketConfig};

use crate::{Client, Error, Frame, Refusal, Stream, client::BackOff, transport::Wire};

/// Silence after which a connection counts as dead: three of the node's pings (asset ledger,
/// section 9: one every 30 s).
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long an upgrade to a socket may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one frame at most: a block announcement names every transaction of its block.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Where a follower begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first block after the newest one of the moment.
    Now,
    /// With the first event of this height.
    Height(Height),
    /// Behind the last event that another follower of the same stream saw.
    Cursor(Cursor),
}

/// A place in a stream: what comes next is the first event at or behind it. Its text form
/// (`height.index`) can be stored and given to a later follower.
///
/// On `valid_transactions` the index is a transaction's place in its block, on
/// `rejected_transactions` it counts the events of the height, on `valid_blocks` it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The height.
    pub height: Height,
    /// The place at that height.
    pub index: u32,
}

/// The text is not a cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place in a stream is `height` or `height.index`")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.height.0, self.index)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;
    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let (height, index) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(height) || !digits(index) {
            return Err(NotACursor);
        }
        Ok(Cursor {
            height: Height(height.parse().map_err(|_| NotACursor)?),
            index: index.parse().map_err(|_| NotACursor)?,
        })
    }
}

/// Which events a follower wants; members that are `None` let everything pass. Only
/// `valid_transactions` has filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only what concerns this key.
    pub public_key: Option<PublicKey>,
    /// Only what concerns this asset.
    pub asset: Option<AssetId>,
    /// Only this operation.
    pub operation: Option<Operation>,
}

/// An event with the text it came in and the place behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event.
    pub frame: Frame,
    /// The frame's JSON as the node sent it.
    pub text: String,
    /// Where to go on after it.
    pub cursor: Cursor,
}

/// A follower. Reconnects by itself; see [`Follow::next`].
pub struct Follow {
    client: Client,
    stream: Stream,
    filter: Filter,
    /// What comes next. Known once the first connection was made.
    cursor: Option<Cursor>,
    /// The last event and its place. A connection that is made again begins with it, which shows that
    /// the node still tells the same story.
    last: Option<(Cursor, String)>,
    connection: Option<Connection>,
    give_up_after: Option<Duration>,
    reconnects: u64,
    behind: u64,
}

struct Connection {
    socket: WebSocketStream<Wire>,
    /// Events to drop because they lie before the cursor: the index of `rejected_transactions` counts
    /// events, and the node can only be asked for a height.
    to_skip: u32,
    /// The next event is the last one of an earlier connection, come again.
    repeats: bool,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("stream", &self.stream)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Follow {
    pub(crate) fn new(client: Client, stream: Stream, from: From, filter: Filter) -> Follow {
        let cursor = match from {
            From::Now => None,
            From::Height(height) => Some(Cursor { height, index: 0 }),
            From::Cursor(cursor) => Some(cursor),
        };
        Follow {
            client,
            stream,
            filter,
            cursor,
            last: None,
            connection: None,
            give_up_after: None,
            reconnects: 0,
            behind: 0,
        }
    }

    /// Makes [`Follow::next`] fail when the node cannot be reached for this long. Without it a
    /// follower tries for ever.
    #[must_use]
    pub fn give_up_after(mut self, unreachable: Duration) -> Follow {
        self.give_up_after = Some(unreachable);
        self
    }

    /// What comes next; `None` before the first connection of a follower that begins now.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// How often a connection broke and was, or is being, made again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Blocks that this follower is behind, when the node said that it lags.
    pub fn behind(&self) -> u64 {
        self.behind
    }

    /// Connects, so that everything committed from here on will be seen. [`Follow::next`] does the
    /// same when it is called first.
    ///
    /// # Errors
    /// As for [`Follow::next`].
    pub async fn ready(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut back_off = BackOff::default();
        while self.connection.is_none() {
            let Err(error) = self.connect().await else {
                break;
            };
            let given_up = self
                .give_up_after
                .is_some_and(|limit| began.elapsed() >= limit);
            if !error.is_transient() || given_up {
                return Err(error);
            }
            tracing::debug!(%error, stream = self.stream.name(), "connecting again");
            back_off.pause().await;
        }
        Ok(())
    }

    /// The next event. A broken connection is made again and taken up behind the last event, so the
    /// caller sees each event once, in order. Cancel-safe: an event is lost by no dropped future.
    ///
    /// # Errors
    /// What trying again cannot mend: `Refused`, `Unauthorised`, `NotFound`, `Protocol`; and
    /// `Unreachable` or `Broken` after [`Follow::give_up_after`].
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            self.ready().await?;
            let connection = self.connection.as_mut().expect("ready() connects");
            let message = tokio::time::timeout(SILENCE_MAX, connection.socket.next()).await;
            let text = match message {
                Ok(Some(Ok(Message::Text(text)))) => text,
                // The socket prepares the pong by itself, but sends it only with the next write.
                Ok(Some(Ok(Message::Ping(_)))) => {
                    if connection.socket.flush().await.is_err() {
                        self.disconnect();
                    }
                    continue;
                }
                Ok(Some(Ok(Message::Pong(_) | Message::Binary(_) | Message::Frame(_)))) => continue,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => {
                    self.disconnect();
                    continue;
                }
            };
            if let Some(event) = self.take(&text)? {
                return Ok(event);
            }
        }
    }

    /// Takes one frame; `None` when it was seen on an earlier connection or is no event.
    fn take(&mut self, text: &str) -> Result<Option<Event>, Error> {
        if let Some(notice) = Notice::from_json(text) {
            self.note(&notice)?;
            return Ok(None);
        }
        let frame = Frame::from_json(self.stream, text)?;
        let cursor = self.cursor.expect("a connection has a cursor");
        let connection = self
            .connection
            .as_mut()
            .expect("frames come from a connection");
        let other_history = |what: &str| {
            Error::Protocol(format!(
                "{what} at {cursor}: the node holds another history"
            ))
        };
        if connection.repeats {
            connection.repeats = false;
            return match &self.last {
                Some((_, last)) if last == text => Ok(None),
                _ => Err(other_history("another event than before")),
            };
        }
        if connection.to_skip > 0 {
            if frame.height() != cursor.height {
                return Err(other_history("fewer events than before"));
            }
            connection.to_skip -= 1;
            return Ok(None);
        }
        let place = match (&frame, frame.height()) {
            (Frame::Transaction { index, .. }, height) => Cursor {
                height,
                index: *index,
            },
            (Frame::Rejected { .. }, height) if height == cursor.height => cursor,
            (_, height) => Cursor { height, index: 0 },
        };
        if place < cursor {
            return Err(Error::Protocol(format!(
                "an event at {place} where {cursor} comes next"
            )));
        }
        let next = match frame {
            Frame::Block { .. } => Cursor {
                height: Height(place.height.0 + 1),
                index: 0,
            },
            _ => Cursor {
                height: place.height,
                index: place.index + 1,
            },
        };
        self.cursor = Some(next);
        self.last = Some((place, text.to_owned()));
        self.behind = 0;
        Ok(Some(Event {
            frame,
            text: text.to_owned(),
            cursor: next,
        }))
    }

    fn note(&mut self, notice: &Notice) -> Result<(), Error> {
        match (notice.notice.as_str(), notice.height) {
            ("lagging", _) => self.behind = notice.behind.unwrap_or_default(),
            ("head" | "caught_up", Some(height)) => {
                self.behind = 0;
                let next = Cursor {
                    height: Height(height + 1),
                    index: 0,
                };
                let awaited = self
                    .connection
                    .as_ref()
                    .is_some_and(|connection| connection.repeats);
                if let (true, Some((place, _))) = (awaited, &self.last)
                    && place.height.0 <= height
                {
                    return Err(Error::Protocol(format!(
                        "no event at {place} any more: the node holds another history"
                    )));
                }
                if self.cursor.is_some_and(|cursor| cursor < next) {
                    self.cursor = Some(next);
                    // The last event of the newest height is kept to compare histories by. An older
                    // one is not: a quiet stream would be read again from it.
                    if self
                        .last
                        .as_ref()
                        .is_some_and(|(place, _)| place.height.0 < height)
                    {
                        self.last = None;
                    }
                    if let Some(connection) = &mut self.connection {
                        connection.to_skip = 0;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.reconnects += 1;
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            // A height is taken at once, so that a connection that breaks before the first event
            // does not lose what was committed meanwhile.
            None => {
                let latest = self.client.latest_block().await?.height;
                Cursor {
                    height: Height(latest.0 + 1),
                    index: 0,
                }
            }
        };
        let (asked, to_skip, repeats) = match (self.stream, &self.last) {
            (Stream::RejectedTransactions, _) => {
                (Cursor { index: 0, ..cursor }, cursor.index, false)
            }
            (_, Some((last, _))) => (*last, 0, true),
            (_, None) => (cursor, 0, false),
        };
        let mut path = match asked.index {
            0 => format!(
                "/api/v1/streams/{}?notices=true&from={}",
                self.stream.name(),
                asked.height.0
            ),
            _ => format!(
                "/api/v1/streams/{}?notices=true&from={asked}",
                self.stream.name()
            ),
        };
        if let Some(key) = &self.filter.public_key {
            path.push_str(&format!("&public_key={key}"));
        }
        if let Some(asset) = &self.filter.asset {
            path.push_str(&format!("&asset_id={asset}"));
        }
        match self.filter.operation {
            None => {}
            Some(Operation::Create) => path.push_str("&operation=CREATE"),
            Some(Operation::Transfer) => path.push_str("&operation=TRANSFER"),
            Some(Operation::Compose) => path.push_str("&operation=COMPOSE"),
            Some(Operation::Decompose) => path.push_str("&operation=DECOMPOSE"),
        }
        let socket = open_socket(&self.client, &path).await?;
        self.cursor = Some(cursor);
        self.connection = Some(Connection {
            socket,
            to_skip,
            repeats,
        });
        Ok(())
    }
}

/// A frame about the stream itself.
#[derive(Deserialize)]
struct Notice {
    notice: String,
    height: Option<u64>,
    behind: Option<u64>,
}

impl Notice {
    /// Reads a notice; its name comes first, which tells it from an event without reading it.
    fn from_json(text: &str) -> Option<Notice> {
        let first = text.trim_start().strip_prefix('{')?.trim_start();
        if first.starts_with("\"notice\"") {
            serde_json::from_str(text).ok()
        } else {
            None
        }
    }
}

/// Opens a WebSocket on the client's node.
pub(crate) async fn open_socket(
    client: &Client,
    path_and_query: &str,
) -> Result<WebSocketStream<Wire>, Error> {
    use tungstenite::client::IntoClientRequest;
    let endpoint = client.endpoint();
    let mut request = endpoint
        .socket_url(path_and_query)
        .into_client_request()
        .map_err(|e| Error::Configuration(e.to_string()))?;
    if let Some(token) = &client.token {
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, token.header());
    }
    let connected = client
        .connector
        .connect(&endpoint.host, endpoint.port)
        .await;
    let stream = connected.map_err(|error| Error::no_connection(endpoint, &error))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(response))) => {
            let (parts, body) = response.into_parts();
            Err(crate::http::Whole {
                status: parts.status,
                headers: parts.headers,
                body: body.unwrap_or_default().into(),
            }
            .error(path_and_query))
        }
        Ok(Err(error)) => Err(client.http.broken(error)),
        Err(_) => Err(client.http.broken("no answer to the upgrade")),
    }
}

/// The refusal that a socket was closed with.
pub(crate) fn close_refusal(code: u16, reason: &str) -> Refusal {
    Refusal {
        status: code,
        class: None,
        message: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        for text in ["0.0", "7.3", "18446744073709551615.4294967295"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert_eq!(
            "7".parse::<Cursor>().unwrap(),
            Cursor {
                height: Height(7),
                index: 0
            }
        );
        for text in ["", ".", "x", "7.", "-1", "+1", "7.3.1", "7:3"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }

    #[test]
    fn a_notice_is_told_from_an_event() {
        assert!(Notice::from_json("{\"notice\": \"head\", \"height\": 3}").is_some());
        assert!(Notice::from_json("{\"height\": 3, \"hash\": \"\"}").is_none());
    }
}
