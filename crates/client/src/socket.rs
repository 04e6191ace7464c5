//! A WebSocket on the node that is made again when it breaks: what every follower shares.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig};

use crate::{Client, Error, client::BackOff, transport::Wire};

/// Silence after which a connection counts as dead: three of the node's Pings or heartbeats (one every
/// 30 s, asset ledger, section 9, and wallet tracker, section 2).
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long an upgrade to a socket may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one frame at most: a block announcement names every transaction of its block.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A connection, or the place for one.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    open: Option<WebSocketStream<Wire>>,
    breaks: u64,
}

impl Socket {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the place of the one that broke.
    pub(crate) fn put(&mut self, open: WebSocketStream<Wire>) {
        self.open = Some(open);
    }

    /// Counts as broken from here on.
    pub(crate) fn cut(&mut self) {
        if self.open.take().is_some() {
            self.breaks += 1;
        }
    }

    /// How often it broke.
    pub(crate) fn breaks(&self) -> u64 {
        self.breaks
    }

    /// The text of the next frame; `None` when there is no connection any more. Cancel-safe.
    pub(crate) async fn text(&mut self) -> Option<Utf8Bytes> {
        while let Some(open) = &mut self.open {
            match tokio::time::timeout(SILENCE_MAX, open.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return Some(text),
                // The socket prepares the pong by itself, but sends it only with the next write.
                Ok(Some(Ok(Message::Ping(_)))) => {
                    if open.flush().await.is_err() {
                        self.cut();
                    }
                }
                Ok(Some(Ok(Message::Pong(_) | Message::Binary(_) | Message::Frame(_)))) => {}
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => self.cut(),
            }
        }
        None
    }
}

/// Tries to reach a node, one after the other with growing pauses, until there were enough.
pub(crate) struct Tries {
    began: Instant,
    limit: Option<Duration>,
    back_off: BackOff,
}

impl Tries {
    /// For so long; without a limit for ever.
    pub(crate) fn within(limit: Option<Duration>) -> Tries {
        Tries {
            began: Instant::now(),
            limit,
            back_off: BackOff::default(),
        }
    }

    /// Pauses before the next try of `what`.
    ///
    /// # Errors
    /// The one that the last try failed with, if no other try can mend it or the time is over.
    pub(crate) async fn after(&mut self, error: Error, what: &str) -> Result<(), Error> {
        let given_up = self
            .limit
            .is_some_and(|limit| self.began.elapsed() >= limit);
        if !error.is_transient() || given_up {
            return Err(error);
        }
        tracing::debug!(%error, "trying {what} again");
        self.back_off.pause().await;
        Ok(())
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
