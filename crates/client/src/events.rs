//! Following the node's general event stream across broken connections and restarts of the node,
//! without gap or repeat (docs/protocols/events.md).

use std::{
    fmt,
    time::{Duration, Instant},
};

use daybook_ledger::{Height, TransactionId};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    Client, Cursor, Error, From,
    client::{BackOff, percent_encoded},
    follow::open_socket,
    transport::Wire,
};

/// Silence after which a connection counts as dead: three of the node's heartbeats (one every 30 s).
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Which events a follower wants; an empty list lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only these kinds, such as `asset.transfer`, or whole books, such as `tracker`.
    pub kinds: Vec<String>,
    /// Only what touches one of these public keys, assets, addresses or channels.
    pub keys: Vec<String>,
}

/// One entry of one book, as it was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct BookEvent {
    /// Its place in the log.
    pub position: Cursor,
    /// The time of its block, in milliseconds since 1970.
    pub time: u64,
    /// What it is: its book, a dot, what it did.
    pub kind: String,
    /// Its id.
    pub id: TransactionId,
    /// What it touches.
    pub keys: Vec<String>,
    /// What moved.
    pub body: serde_json::Value,
    /// The JSON as the node sent it.
    pub text: String,
}

/// A follower of all books. Reconnects by itself; see [`Events::next`].
pub struct Events {
    client: Client,
    filter: EventFilter,
    /// What comes next. Known once the first connection was made.
    cursor: Option<Cursor>,
    /// The last event and its place. A connection that is made again begins with it, which shows that
    /// the node still tells the same story.
    last: Option<(Cursor, String)>,
    socket: Option<WebSocketStream<Wire>>,
    /// The next event is the last one of an earlier connection, come again.
    repeats: bool,
    give_up_after: Option<Duration>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("filter", &self.filter)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

/// A frame of the stream: an event, or a notice about the stream itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Frame {
    Notice {
        notice: String,
        from: Option<String>,
    },
    Event {
        position: String,
        time: u64,
        kind: String,
        id: String,
        #[serde(default)]
        keys: Vec<String>,
        #[serde(default)]
        body: serde_json::Value,
    },
}

impl Client {
    /// Follows every book of the node. Nothing is sent before [`Events::ready`] or [`Events::next`].
    pub fn events(&self, from: From, filter: EventFilter) -> Events {
        let cursor = match from {
            From::Now => None,
            From::Height(height) => Some(Cursor { height, index: 0 }),
            From::Cursor(cursor) => Some(cursor),
        };
        Events {
            client: self.clone(),
            filter,
            cursor,
            last: None,
            socket: None,
            repeats: false,
            give_up_after: None,
        }
    }
}

impl Events {
    /// Makes [`Events::next`] fail when the node cannot be reached for this long. Without it a follower
    /// tries for ever.
    #[must_use]
    pub fn give_up_after(mut self, unreachable: Duration) -> Events {
        self.give_up_after = Some(unreachable);
        self
    }

    /// What comes next; `None` before the first connection of a follower that begins now.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// Connects, so that everything committed from here on will be seen.
    ///
    /// # Errors
    /// As for [`Events::next`].
    pub async fn ready(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut back_off = BackOff::default();
        while self.socket.is_none() {
            let Err(error) = self.connect().await else {
                break;
            };
            let given_up = self
                .give_up_after
                .is_some_and(|limit| began.elapsed() >= limit);
            if !error.is_transient() || given_up {
                return Err(error);
            }
            tracing::debug!(%error, "connecting to the event stream again");
            back_off.pause().await;
        }
        Ok(())
    }

    /// The next event. A broken connection is made again and taken up behind the last event, so the
    /// caller sees each event once, in order. Cancel-safe.
    ///
    /// # Errors
    /// What trying again cannot mend: `Refused`, `Unauthorised`, `NotFound`, `Protocol`; and
    /// `Unreachable` or `Broken` after [`Events::give_up_after`].
    pub async fn next(&mut self) -> Result<BookEvent, Error> {
        loop {
            self.ready().await?;
            let socket = self.socket.as_mut().expect("ready() connects");
            let text = match tokio::time::timeout(SILENCE_MAX, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => text,
                // The socket prepares the pong by itself, but sends it only with the next write.
                Ok(Some(Ok(Message::Ping(_)))) => {
                    if socket.flush().await.is_err() {
                        self.socket = None;
                    }
                    continue;
                }
                Ok(Some(Ok(Message::Pong(_) | Message::Binary(_) | Message::Frame(_)))) => continue,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => {
                    self.socket = None;
                    continue;
                }
            };
            if let Some(event) = self.take(&text)? {
                return Ok(event);
            }
        }
    }

    /// Takes one frame; `None` when it was seen on an earlier connection or is no event.
    fn take(&mut self, text: &str) -> Result<Option<BookEvent>, Error> {
        let cursor = self.cursor.expect("a connection has a cursor");
        let (position, event) = match serde_json::from_str(text).map_err(Error::protocol)? {
            Frame::Notice { notice, from } => {
                self.note(&notice, from.as_deref())?;
                return Ok(None);
            }
            Frame::Event {
                position,
                time,
                kind,
                id,
                keys,
                body,
            } => {
                let position: Cursor = position.parse().map_err(Error::protocol)?;
                let event = BookEvent {
                    position,
                    time,
                    kind,
                    id: id
                        .parse()
                        .map_err(|_| Error::protocol("an event without an id"))?,
                    keys,
                    body,
                    text: text.to_owned(),
                };
                (position, event)
            }
        };
        if self.repeats {
            self.repeats = false;
            return match &self.last {
                Some((_, last)) if last == text => Ok(None),
                _ => Err(Error::Protocol(format!(
                    "another event than before at {position}: the node holds another history"
                ))),
            };
        }
        if position < cursor {
            return Err(Error::Protocol(format!(
                "an event at {position} where {cursor} comes next"
            )));
        }
        self.cursor = Some(Cursor {
            height: position.height,
            index: position.index.saturating_add(1),
        });
        self.last = Some((position, text.to_owned()));
        Ok(Some(event))
    }

    /// Takes a notice. A heartbeat carries the place up to which everything was delivered.
    fn note(&mut self, notice: &str, from: Option<&str>) -> Result<(), Error> {
        let (Some(from), "head" | "caught_up") = (from, notice) else {
            return Ok(());
        };
        let next: Cursor = from.parse().map_err(Error::protocol)?;
        let missing = self.last.as_ref().filter(|(place, _)| *place < next);
        if self.repeats
            && let Some((place, _)) = missing
        {
            return Err(Error::Protocol(format!(
                "no event at {place} any more: the node holds another history"
            )));
        }
        if self.cursor.is_some_and(|cursor| cursor < next) {
            self.cursor = Some(next);
            // The last event is kept to compare histories by as long as it is of the newest height. An
            // older one is not: a quiet stream would be read again from it.
            if missing.is_some_and(|(place, _)| place.height.0 + 1 < next.height.0) {
                self.last = None;
            }
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            // A height is taken at once, so that a connection that breaks before the first event
            // does not lose what was committed meanwhile.
            None => Cursor {
                height: Height(self.client.latest_block().await?.height.0 + 1),
                index: 0,
            },
        };
        let asked = self.last.as_ref().map_or(cursor, |(last, _)| *last);
        let mut path = format!("/api/v1/streams/events?notices=true&from={asked}");
        for (name, values) in [("kind", &self.filter.kinds), ("key", &self.filter.keys)] {
            for value in values {
                path.push_str(&format!("&{name}={}", percent_encoded(value)));
            }
        }
        let socket = open_socket(&self.client, &path).await?;
        self.repeats = self.last.is_some();
        self.cursor = Some(cursor);
        self.socket = Some(socket);
        Ok(())
    }
}
