//! Following the node's general event stream across broken connections and restarts of the node,
//! without gap or repeat (docs/protocols/events.md).

use std::{fmt, time::Duration};

use daybook_ledger::TransactionId;
use serde::Deserialize;

use crate::{
    Client, Cursor, Error, From,
    client::percent_encoded,
    place::Place,
    socket::{Socket, Tries, open_socket},
};

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
    /// It is told that this happened, but neither to whom nor what: keys and body are empty.
    pub outline: bool,
    /// The JSON as the node sent it.
    pub text: String,
}

/// A follower of all books. Reconnects by itself; see [`Events::next`].
pub struct Events {
    client: Client,
    filter: EventFilter,
    place: Place,
    socket: Socket,
    give_up_after: Option<Duration>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("filter", &self.filter)
            .field("cursor", &self.cursor())
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
        #[serde(default)]
        outline: bool,
    },
}

impl Client {
    /// Follows every book of the node. Nothing is sent before [`Events::ready`] or [`Events::next`].
    pub fn events(&self, from: From, filter: EventFilter) -> Events {
        Events {
            client: self.clone(),
            filter,
            place: Place::new(from),
            socket: Socket::default(),
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
        self.place.next()
    }

    /// Connects, so that everything committed from here on will be seen.
    ///
    /// # Errors
    /// As for [`Events::next`].
    pub async fn ready(&mut self) -> Result<(), Error> {
        let mut tries = Tries::within(self.give_up_after);
        while !self.socket.is_open() {
            if let Err(error) = self.connect().await {
                tries.after(error, "the event stream").await?;
            }
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
            let Some(text) = self.socket.text().await else {
                continue;
            };
            if let Some(event) = self.take(&text)? {
                return Ok(event);
            }
        }
    }

    /// Takes one frame; `None` when it was seen on an earlier connection or is no event.
    fn take(&mut self, text: &str) -> Result<Option<BookEvent>, Error> {
        match serde_json::from_str(text).map_err(Error::protocol)? {
            Frame::Notice { notice, from } => {
                // A heartbeat carries the place up to which everything was delivered.
                if let (Some(from), "head" | "caught_up") = (from, &*notice) {
                    let next: Cursor = from.parse().map_err(Error::protocol)?;
                    self.place.caught_up(next)?;
                }
                Ok(None)
            }
            Frame::Event {
                position,
                time,
                kind,
                id,
                keys,
                body,
                outline,
            } => {
                // By its id and not by its text: how much a node tells of an event may change.
                if self.place.is_repeated(&id)? {
                    return Ok(None);
                }
                let position: Cursor = position.parse().map_err(Error::protocol)?;
                let next = Cursor {
                    height: position.height,
                    index: position.index.saturating_add(1),
                };
                self.place.passed(position, next, &id)?;
                let id = id
                    .parse()
                    .map_err(|_| Error::protocol("an event without an id"))?;
                Ok(Some(BookEvent {
                    position,
                    time,
                    kind,
                    id,
                    keys,
                    body,
                    outline,
                    text: text.to_owned(),
                }))
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let cursor = self.place.or_head(&self.client).await?;
        let asked = self.place.resume(cursor);
        let mut path = format!("/api/v1/streams/events?notices=true&from={asked}");
        for (name, values) in [("kind", &self.filter.kinds), ("key", &self.filter.keys)] {
            for value in values {
                path.push_str(&format!("&{name}={}", percent_encoded(value)));
            }
        }
        let socket = open_socket(&self.client, &path).await?;
        self.place.connected(cursor, true);
        self.socket.put(socket);
        Ok(())
    }
}
