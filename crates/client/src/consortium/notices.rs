//! The relay of a node: small signed messages between members that are no part of the log.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daybook_wire::consortium::NOTICE_READER;
use http::{HeaderValue, Method, StatusCode};

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

/// How far a reader of a relay has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoticesAfter<'a> {
    /// The number of the last kept notice.
    pub kept: u64,
    /// What the relay called the file that counts them.
    pub epoch: &'a str,
    /// The number of the last passing notice.
    pub passing: u64,
    /// What the relay that counts them called itself.
    pub relay: &'a str,
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

    /// Waits, for some twenty seconds at most, for notices behind `after`. `shown` is a member's signed wish to
    /// read. Gives the relay's answer as it is. The client's own timeout must be longer.
    ///
    /// # Errors
    /// Anything between client and node; `NotFound` when the node has no relay, `Unauthorised` when it does not
    /// take `shown` for a present member's.
    pub async fn notices(&self, after: NoticesAfter<'_>, shown: &[u8]) -> Result<Bytes, Error> {
        let path = format!(
            "{PATH}?kept={}&epoch={}&passing={}&relay={}",
            after.kept,
            percent_encoded(after.epoch),
            after.passing,
            percent_encoded(after.relay)
        );
        let shown = HeaderValue::try_from(STANDARD.encode(shown))
            .expect("base64 is made of characters that headers may have");
        let answer = self.client.http.ask_as(&path, NOTICE_READER, shown).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            _ => Err(answer.error(PATH)),
        }
    }
}
