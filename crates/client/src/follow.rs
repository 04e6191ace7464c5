//! Following a stream across broken connections and restarts of the node, without gap or repeat.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use daybook_ledger::{AssetId, Height, Operation, PublicKey};
use futures_util::{SinkExt, StreamExt};
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
    /// Behind the last event that another follower of the same stream and filter saw.
    Cursor(Cursor),
}

/// A place in a stream, under one filter. Its text form (`height:events`) can be stored and given to
/// a later follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The height that is being read.
    pub height: Height,
    /// Events of that height that were seen.
    pub events: u64,
}

/// The text is not a cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place in a stream is `height` or `height:events`")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.height.0, self.events)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;
    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let (height, events) = text.split_once(':').unwrap_or((text, "0"));
        Ok(Cursor {
            height: Height(height.parse().map_err(|_| NotACursor)?),
            events: events.parse().map_err(|_| NotACursor)?,
        })
    }
}

/// Which events a follower wants; members that are `None` let everything pass.
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
    from: From,
    /// Known once the first connection was made.
    cursor: Option<Cursor>,
    /// The last event, to check that the node still tells the same story.
    last: Option<String>,
    connection: Option<Connection>,
    give_up_after: Option<Duration>,
    reconnects: u64,
}

struct Connection {
    socket: WebSocketStream<Wire>,
    /// Events of the cursor's height that were seen on an earlier connection and come again.
    to_skip: u64,
    /// The height and count of the events of this connection.
    at: Cursor,
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
            From::Height(height) => Some(Cursor { height, events: 0 }),
            From::Cursor(cursor) => Some(cursor),
        };
        Follow {
            client,
            stream,
            filter,
            from,
            cursor,
            last: None,
            connection: None,
            give_up_after: None,
            reconnects: 0,
        }
    }

    /// Makes [`Follow::next`] fail when the node cannot be reached for this long. Without it a
    /// follower tries for ever.
    #[must_use]
    pub fn give_up_after(mut self, unreachable: Duration) -> Follow {
        self.give_up_after = Some(unreachable);
        self
    }

    /// The place behind the last event; `None` before the first connection of a follower that
    /// begins now.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// How often a connection was made again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
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
                // Pings are answered by the socket itself, but only when something is written.
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

    /// Counts one frame; `None` when it was seen on an earlier connection or is no event.
    fn take(&mut self, text: &str) -> Result<Option<Event>, Error> {
        if is_notice(text) {
            return Ok(None);
        }
        let frame = Frame::from_json(self.stream, text)?;
        let connection = self
            .connection
            .as_mut()
            .expect("frames come from a connection");
        let height = frame.height();
        if height < connection.at.height {
            return Err(Error::Protocol(format!(
                "an event of height {} after height {}",
                height.0, connection.at.height.0
            )));
        }
        if height > connection.at.height {
            if connection.to_skip > 0 {
                return Err(Error::Protocol(format!(
                    "height {} has fewer events than before: the node holds another history",
                    connection.at.height.0
                )));
            }
            connection.at = Cursor { height, events: 0 };
        }
        connection.at.events += 1;
        if connection.to_skip > 0 {
            connection.to_skip -= 1;
            if let (0, Some(last)) = (connection.to_skip, &self.last)
                && last != text
            {
                return Err(Error::Protocol(format!(
                    "height {} has other events than before: the node holds another history",
                    height.0
                )));
            }
            return Ok(None);
        }
        let cursor = connection.at;
        self.cursor = Some(cursor);
        self.last = Some(text.to_owned());
        Ok(Some(Event {
            frame,
            text: text.to_owned(),
            cursor,
        }))
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.reconnects += 1;
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let cursor = match (self.cursor, self.from) {
            (Some(cursor), _) => cursor,
            // A height is taken at once, so that a connection that breaks before the first event
            // does not lose what was committed meanwhile.
            (None, _) => {
                let latest = self.client.latest_block().await?.height;
                Cursor {
                    height: Height(latest.0 + 1),
                    events: 0,
                }
            }
        };
        let mut path = format!(
            "/api/v1/streams/{}?from={}",
            self.stream.name(),
            cursor.height.0
        );
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
            to_skip: cursor.events,
            at: Cursor {
                height: cursor.height,
                events: 0,
            },
        });
        Ok(())
    }
}

/// Notices (`lagging`, `caught_up`) are objects with a `notice` member and no event.
fn is_notice(text: &str) -> bool {
    text.starts_with("{\"notice\"")
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
    let stream = client
        .connector
        .connect(&endpoint.host, endpoint.port)
        .await
        .map_err(|e| Error::Unreachable {
            endpoint: endpoint.to_string(),
            reason: e.to_string(),
        })?;
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

/// The refusal of a frame, for sockets that were closed with a reason.
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
        for text in ["0:0", "7:3", "18446744073709551615:18446744073709551615"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert_eq!(
            "7".parse::<Cursor>().unwrap(),
            Cursor {
                height: Height(7),
                events: 0
            }
        );
        for text in ["", ":", "x", "7:", "-1", "7:3:1"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }
}
