//! What the tracker tells without being asked, across broken connections (wallet tracker, section
//! 17.4).

use std::time::Duration;

use daybook_ledger::tracker::{self as rules, Address, command, draft};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{
    Error, Tracker,
    link::{PATH, Signed},
};
use crate::{
    client::BackOff,
    socket::{Socket, open_socket},
};

/// How long the answer to a subscription may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a subscription is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Everything on one address.
    Address(Address),
    /// Everything about one channel.
    Channel(String),
    /// Everything of the key with this PEM.
    Key(String),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct PushEvent {
    /// What, such as `channel.closed`.
    pub event: String,
    /// The number of the record that it follows from. Several events may have one.
    pub seq: u64,
    /// What the tracker says about it.
    pub data: Value,
}

/// A subscription. Connects again by itself and goes on behind the last event.
#[derive(Debug)]
pub struct Subscription {
    tracker: Tracker,
    topics: Vec<Topic>,
    /// The last record whose events were seen, perhaps not all of them.
    seq: Option<u64>,
    /// The events of that record which were seen.
    seen: Vec<(String, String)>,
    socket: Socket,
}

#[derive(Deserialize)]
struct Frame {
    event: Option<String>,
    seq: Option<u64>,
    data: Option<Value>,
    #[serde(rename = "corrToken")]
    correlation: Option<String>,
    error: Option<String>,
    #[serde(default)]
    code: String,
}

#[derive(Deserialize)]
struct Subscribed {
    seq: u64,
}

impl Tracker {
    /// Follows what happens about `topics`: from now on, or behind the record with number `from`.
    /// Nothing is sent before [`Subscription::next`].
    pub fn subscribe(&self, topics: Vec<Topic>, from: Option<u64>) -> Subscription {
        Subscription {
            tracker: self.clone(),
            topics,
            seq: from,
            seen: Vec::new(),
            socket: Socket::default(),
        }
    }
}

impl Subscription {
    /// The number to give to [`Tracker::subscribe`] to go on from here later; the events of that record
    /// may come again. `None` before the first connection.
    pub fn resume_from(&self) -> Option<u64> {
        match self.seen.is_empty() {
            true => self.seq,
            false => self.seq.map(|seq| seq.saturating_sub(1)),
        }
    }

    /// Connects, so that everything from here on will be seen.
    ///
    /// # Errors
    /// As [`Subscription::next`]; `Connection` when the node is away.
    pub async fn ready(&mut self) -> Result<(), Error> {
        if self.socket.is_open() {
            return Ok(());
        }
        let mut socket = open_socket(self.tracker.client(), PATH).await?;
        let (topics, keys) = self.topics();
        let from = self.resume_from();
        let (correlation, frame) = self.tracker.single(command::SUBSCRIBE, |pk, version| {
            draft::subscribe(&topics, &keys, from, pk, version)
        });
        let broken = |reason: &dyn std::fmt::Display| {
            Error::Connection(self.tracker.client().http.broken(reason.to_string()))
        };
        let answered = async {
            socket
                .send(Message::text(frame))
                .await
                .map_err(|e| broken(&e))?;
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Frame = read(&text)?;
                        if frame.correlation.as_deref() != Some(&correlation) {
                            continue;
                        }
                        if let Some(message) = frame.error {
                            return Err(Error::Refused {
                                code: frame.code,
                                message,
                            });
                        }
                        let data = frame.data.unwrap_or_default();
                        let signed: Signed = serde_json::from_value(data)
                            .map_err(|error| Error::Protocol(error.to_string()))?;
                        return self.tracker.read::<Subscribed>(&signed);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(&error)),
                    None => return Err(broken(&"the tracker closed the connection")),
                }
            }
        };
        let subscribed = match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err(broken(&"no answer to the subscription")),
        };
        if self.seq.is_none() {
            self.seq = Some(subscribed.seq);
        }
        self.socket.put(socket);
        Ok(())
    }

    /// The next event. A broken connection is made again; each event is seen once, in order. Cancel-safe
    /// once connected.
    ///
    /// # Errors
    /// What trying again cannot mend: `Refused`, `Impostor`, `Protocol`.
    pub async fn next(&mut self) -> Result<PushEvent, Error> {
        let mut back_off = BackOff::default();
        loop {
            match self.ready().await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "subscribing again");
                    back_off.pause().await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let Some(text) = self.socket.text().await else {
                continue;
            };
            let frame: Frame = read(&text)?;
            let (Some(event), Some(seq)) = (frame.event, frame.seq) else {
                continue;
            };
            if event == "lagged" {
                // What was dropped is in the log: the subscription begins again behind the last event.
                self.socket.cut();
                continue;
            }
            let signed: Signed = serde_json::from_value(frame.data.unwrap_or_default())
                .map_err(|error| Error::Protocol(error.to_string()))?;
            let data: Value = self.tracker.read(&signed)?;
            if self.is_new(&event, seq, &signed.message) {
                return Ok(PushEvent { event, seq, data });
            }
        }
    }

    /// The topics, and beside them those that are keys.
    fn topics(&self) -> (Vec<rules::Topic>, Vec<&str>) {
        let mut topics = Vec::new();
        let mut keys = Vec::new();
        for topic in &self.topics {
            match topic {
                Topic::Address(address) => {
                    topics.push(rules::Topic::Address(address.as_str().to_owned()));
                }
                Topic::Channel(channel) => topics.push(rules::Topic::Channel(channel.clone())),
                Topic::Key(pem) => keys.push(pem.as_str()),
            }
        }
        (topics, keys)
    }

    /// Notes an event; false when it was seen before.
    fn is_new(&mut self, event: &str, seq: u64, message: &str) -> bool {
        let last = self.seq.unwrap_or_default();
        let this = (event.to_owned(), message.to_owned());
        if seq > last {
            self.seq = Some(seq);
            self.seen.clear();
        } else if seq == last && self.seen.contains(&this) {
            return false;
        }
        // Notices from the clock have the number of a record that is long past.
        if seq >= last {
            self.seen.push(this);
        }
        true
    }
}

fn read(text: &str) -> Result<Frame, Error> {
    serde_json::from_str(text).map_err(|error| Error::Protocol(error.to_string()))
}
