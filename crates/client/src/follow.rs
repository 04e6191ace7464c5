//! Following a stream across broken connections and restarts of the node, without gap or repeat.

use std::{fmt, time::Duration};

use daybook_ledger::{AssetId, Height, Operation, PublicKey};
use serde::Deserialize;

use crate::{
    Client, Error, Frame, Refusal, Stream,
    place::{Cursor, From, Place, other_history},
    socket::{Socket, Tries, open_socket},
};

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
    place: Place,
    socket: Socket,
    /// Events to drop because they lie before the cursor: the index of `rejected_transactions` counts
    /// events, and the node can only be asked for a height.
    to_skip: u32,
    give_up_after: Option<Duration>,
    behind: u64,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("stream", &self.stream)
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

impl Follow {
    pub(crate) fn new(client: Client, stream: Stream, from: From, filter: Filter) -> Follow {
        Follow {
            client,
            stream,
            filter,
            place: Place::new(from),
            socket: Socket::default(),
            to_skip: 0,
            give_up_after: None,
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
        self.place.next()
    }

    /// How often a connection broke and was, or is being, made again.
    pub fn reconnects(&self) -> u64 {
        self.socket.breaks()
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
        let mut tries = Tries::within(self.give_up_after);
        while !self.socket.is_open() {
            if let Err(error) = self.connect().await {
                tries.after(error, self.stream.name()).await?;
            }
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
            let Some(text) = self.socket.text().await else {
                continue;
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
        let cursor = self.cursor().expect("a connection has a cursor");
        if self.place.is_repeated(text)? {
            return Ok(None);
        }
        if self.to_skip > 0 {
            if frame.height() != cursor.height {
                return Err(other_history("fewer events than before", cursor));
            }
            self.to_skip -= 1;
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
        let next = match frame {
            Frame::Block { .. } => Cursor {
                height: place.height.next(),
                index: 0,
            },
            _ => Cursor {
                height: place.height,
                index: place.index.saturating_add(1),
            },
        };
        self.place.passed(place, next, text)?;
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
                    height: Height(height).next(),
                    index: 0,
                };
                if self.place.caught_up(next)? {
                    self.to_skip = 0;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let cursor = self.place.or_head(&self.client).await?;
        let (asked, to_skip) = match self.stream {
            Stream::RejectedTransactions => (Cursor { index: 0, ..cursor }, cursor.index),
            _ => (self.place.resume(cursor), 0),
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
        let repeats = self.stream != Stream::RejectedTransactions;
        self.place.connected(cursor, repeats);
        self.socket.put(socket);
        self.to_skip = to_skip;
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
    fn a_notice_is_told_from_an_event() {
        assert!(Notice::from_json("{\"notice\": \"head\", \"height\": 3}").is_some());
        assert!(Notice::from_json("{\"height\": 3, \"hash\": \"\"}").is_none());
    }
}
