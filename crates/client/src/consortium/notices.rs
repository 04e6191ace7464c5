//! The relay of a node: small signed messages between members that are no part of the log.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{ConsortiumClient, answer};
use crate::{Error, client::percent_encoded};

/// Where the relay is.
const PATH: &str = "/api/v1/consortium/notices";

/// What a relay said to a notice that it did not take: a stable name and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRefused {
    /// The name.
    pub code: String,
    /// The sentence.
    pub message: String,
}

impl ConsortiumClient {
    /// Puts a signed notice on the node's relay; the relay's own refusal is the inner result.
    ///
    /// # Errors
    /// Anything between client and node.
    pub async fn post_notice(&self, notice: Bytes) -> Result<Result<(), NoticeRefused>, Error> {
        let sent = self.client.http.send(Method::POST, PATH, notice).await?;
        if sent.status == StatusCode::OK {
            return Ok(Ok(()));
        }
        if sent.status.is_client_error()
            && let Some((code, message)) = answer::coded(&sent.body)
        {
            return Ok(Err(NoticeRefused { code, message }));
        }
        Err(sent.error(PATH))
    }

    /// Waits, for some twenty seconds at most, for notices behind the kept one and the passing one of
    /// these numbers, the latter counted by the relay of this name. Gives the relay's answer as it is. The
    /// client's own timeout must be longer.
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when the node has no relay.
    pub async fn notices(&self, kept: u64, passing: u64, relay: &str) -> Result<Bytes, Error> {
        let relay = percent_encoded(relay);
        self.get(format!(
            "{PATH}?kept={kept}&passing={passing}&relay={relay}"
        ))
        .await
    }
}
