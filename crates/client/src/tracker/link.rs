//! One connection to the tracker, made again when it breaks; replies find their requests by token.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message},
};

use super::Error;
use crate::{
    Client,
    client::BackOff,
    socket::{SILENCE_MAX, open_socket},
    transport::Wire,
};

/// Where the tracker listens on a node's main listener (wallet tracker, section 2).
pub(super) const PATH: &str = "/tracker";
/// Requests under way on one connection; further ones wait. The tracker has a bound of its own.
const REQUESTS_MAX: usize = 64;

/// A signed answer, not checked yet.
#[derive(Debug, Deserialize)]
pub(super) struct Signed {
    pub(super) message: String,
    pub(super) sign: String,
}

/// What becomes of a request when the connection breaks before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The same bytes are sent again: the tracker takes them once.
    SameBytes,
    /// It fails, and the caller makes another one: its nonce is used up.
    Anew,
}

/// A handle on the connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Link {
    asks: mpsc::Sender<Ask>,
    /// Why the newest attempt to connect failed.
    trouble: Arc<Mutex<Option<String>>>,
}

#[derive(Debug)]
struct Ask {
    correlation: String,
    frame: String,
    again: Again,
    answer: oneshot::Sender<Result<Signed, Failed>>,
}

/// Why a request has no signed answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The tracker refused.
    Refused { code: String, message: String },
    /// The connection broke; a new request may do.
    Broken(String),
    /// There will be no connection.
    Hopeless(crate::Error),
    /// Not an answer.
    Protocol(String),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        match failed {
            Failed::Refused { code, message } => Error::Refused { code, message },
            Failed::Broken(reason) => Error::Unknown(reason),
            Failed::Hopeless(error) => Error::Connection(error),
            Failed::Protocol(what) => Error::Protocol(what),
        }
    }
}

/// Any frame from the tracker, as far as it must be understood here.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "corrToken")]
    correlation: Option<String>,
    data: Option<serde_json::Value>,
    error: Option<String>,
    #[serde(default)]
    code: String,
    event: Option<String>,
}

impl Link {
    /// A link over a connection that was made already.
    pub(super) fn new(client: Client, socket: WebSocketStream<Wire>) -> Link {
        let (asks, waiting) = mpsc::channel(REQUESTS_MAX);
        let trouble = Arc::new(Mutex::new(None));
        let run = Run {
            client,
            asks: waiting,
            under_way: BTreeMap::new(),
            trouble: trouble.clone(),
        };
        tokio::spawn(run.run(socket));
        Link { asks, trouble }
    }

    /// Sends a request and waits for its answer, through broken connections if `again` allows. The
    /// caller bounds the time.
    pub(super) async fn ask(
        &self,
        correlation: String,
        frame: String,
        again: Again,
    ) -> Result<Signed, Failed> {
        let gone = || Failed::Broken("the connection's task has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            correlation,
            frame,
            again,
            answer,
        };
        self.asks.send(ask).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Why there is no connection at the moment, if there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

struct Run {
    client: Client,
    asks: mpsc::Receiver<Ask>,
    under_way: BTreeMap<String, Ask>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Run {
    async fn run(mut self, socket: WebSocketStream<Wire>) {
        let mut socket = Some(socket);
        let mut back_off = BackOff::default();
        loop {
            if let Some(open) = &mut socket {
                match self.serve(open).await {
                    Ended::NobodyAsks => {
                        // The tracker drops a connection that does not say goodbye as well.
                        let _ = open.close(None).await;
                        return;
                    }
                    Ended::Broken(reason) => {
                        socket = None;
                        self.broken(&reason);
                    }
                }
            }
            // A connection that nobody needs is not made.
            self.forget_given_up();
            if self.under_way.is_empty() {
                match self.asks.recv().await {
                    Some(ask) => drop(self.under_way.insert(ask.correlation.clone(), ask)),
                    None => return,
                }
            }
            match open_socket(&self.client, PATH).await {
                Ok(open) => {
                    *self.trouble.lock() = None;
                    back_off = BackOff::default();
                    socket = Some(open);
                }
                Err(error) if error.is_transient() => {
                    *self.trouble.lock() = Some(error.to_string());
                    back_off.pause().await;
                }
                Err(error) => {
                    // Every caller is told; one of them gets the error itself.
                    let reason = error.to_string();
                    let mut error = Some(error);
                    for (_, ask) in std::mem::take(&mut self.under_way) {
                        let failed = match error.take() {
                            Some(error) => Failed::Hopeless(error),
                            None => Failed::Broken(reason.clone()),
                        };
                        let _ = ask.answer.send(Err(failed));
                    }
                }
            }
        }
    }

    /// Serves one connection until it breaks.
    async fn serve(&mut self, socket: &mut WebSocketStream<Wire>) -> Ended {
        let broken = |error: tungstenite::Error| Ended::Broken(error.to_string());
        for ask in self.under_way.values() {
            if let Err(error) = socket.send(Message::text(ask.frame.clone())).await {
                return broken(error);
            }
        }
        loop {
            let room = self.under_way.len() < REQUESTS_MAX;
            tokio::select! {
                ask = self.asks.recv(), if room => {
                    let Some(ask) = ask else { return Ended::NobodyAsks };
                    let frame = ask.frame.clone();
                    self.under_way.insert(ask.correlation.clone(), ask);
                    if let Err(error) = socket.send(Message::text(frame)).await {
                        return broken(error);
                    }
                }
                message = tokio::time::timeout(SILENCE_MAX, socket.next()) => match message {
                    Ok(Some(Ok(Message::Text(text)))) => {
                        if let Err(reason) = self.take(&text) {
                            return Ended::Broken(reason);
                        }
                        self.forget_given_up();
                    }
                    // The socket prepares the pong by itself, but sends it only with the next write.
                    Ok(Some(Ok(Message::Ping(_)))) => {
                        if let Err(error) = socket.flush().await {
                            return broken(error);
                        }
                    }
                    Ok(Some(Ok(Message::Close(frame)))) => {
                        let reason = frame.map(|frame| frame.reason.to_string());
                        return Ended::Broken(reason.unwrap_or_default());
                    }
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(error))) => return broken(error),
                    Ok(None) => return Ended::Broken("the tracker closed the connection".to_owned()),
                    Err(_) => return Ended::Broken("the tracker is silent".to_owned()),
                }
            }
        }
    }

    /// Takes one frame to whom it concerns.
    fn take(&mut self, text: &str) -> Result<(), String> {
        let envelope: Envelope = serde_json::from_str(text)
            .map_err(|error| format!("a frame that is no JSON: {error}"))?;
        if envelope.event.is_some() {
            return Ok(());
        }
        let mut correlation = envelope.correlation.unwrap_or_default();
        if correlation.is_empty()
            && envelope.error.is_some()
            && let Some(serde_json::Value::String(data)) = &envelope.data
        {
            // Section 3.3: errors are correlated by `data` where the token is missing.
            correlation.clone_from(data);
        }
        let Some(ask) = self.under_way.remove(&correlation) else {
            // The answer to a request that was given up, or that came twice.
            return Ok(());
        };
        let answer = match (envelope.error, envelope.data) {
            (Some(message), _) => Err(Failed::Refused {
                code: envelope.code,
                message,
            }),
            (None, Some(data)) => serde_json::from_value(data)
                .map_err(|error| Failed::Protocol(format!("a reply without signed data: {error}"))),
            (None, None) => Err(Failed::Protocol("a reply without data".to_owned())),
        };
        // Whoever asked may have given up meanwhile.
        let _ = ask.answer.send(answer);
        Ok(())
    }

    fn broken(&mut self, reason: &str) {
        tracing::debug!(reason, "the connection to the tracker broke");
        *self.trouble.lock() = Some(reason.to_owned());
        let under_way = std::mem::take(&mut self.under_way);
        for (correlation, ask) in under_way {
            match ask.again {
                Again::SameBytes => drop(self.under_way.insert(correlation, ask)),
                Again::Anew => {
                    let _ = ask.answer.send(Err(Failed::Broken(reason.to_owned())));
                }
            }
        }
    }

    fn forget_given_up(&mut self) {
        self.under_way.retain(|_, ask| !ask.answer.is_closed());
    }
}

enum Ended {
    NobodyAsks,
    Broken(String),
}
