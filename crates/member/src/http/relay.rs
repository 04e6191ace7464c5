//! The node's side of what members tell each other beside the log (docs/protocols/consortium-node.md).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use daybook_ledger::json::Value;
use daybook_wire::consortium::NOTICE_READER;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time;

use super::{
    Asks, BODY_TIMEOUT, Refused, Reply,
    answers::{broken, coded, json, not_found},
};
use crate::{
    json::{object, own, text, write},
    member::{blocking, system_clock},
    network::NoticeCursor,
    notice::NOTICE_BYTES_MAX,
    page::parameters,
    relay::{ID_REUSED, NotPosted, Relay},
};

/// Seconds after which a member that posted too much may post again: its allowance is that of a minute.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("60");

impl Asks<'_> {
    /// The node's side of notices.
    pub(super) async fn relay(&self, body: Incoming) -> Result<Reply, Refused> {
        let Some(relay) = self.hosted.relay.clone() else {
            return Err(not_found());
        };
        if self.parts.method == Method::POST {
            let limited = Limited::new(body, NOTICE_BYTES_MAX);
            let collected = time::timeout(BODY_TIMEOUT, limited.collect()).await;
            let Ok(Ok(bytes)) = collected else {
                return Err(coded(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    "the notice is too long, or did not arrive",
                ));
            };
            let bytes = bytes.to_bytes();
            let posted = blocking(move || relay.post(&bytes, system_clock())).await;
            return match posted {
                Ok(()) => Ok(json(StatusCode::OK, &object([("taken", true.into())]))),
                Err(refused) => Err(not_posted(&refused)),
            };
        }
        if !self.may_read(&relay).await {
            return Err(coded(
                StatusCode::UNAUTHORIZED,
                "not_a_member",
                "notices are for the members of this network, who show a signature that was made just now",
            ));
        }
        let query = self.parts.uri.query().unwrap_or("");
        let parameter = |wanted: &str| {
            let mut found = parameters(query).filter(|(name, _)| *name == wanted);
            found.next().map_or("", |(_, value)| value)
        };
        let after = NoticeCursor {
            kept: parameter("kept").parse().unwrap_or(0),
            epoch: parameter("epoch").to_owned(),
            passing: parameter("passing").parse().unwrap_or(0),
            relay: parameter("relay").to_owned(),
        };
        relay.wait(&after).await;
        let fetched = blocking(move || relay.fetch(&after))
            .await
            .map_err(broken)?;
        let notices = fetched
            .notices
            .iter()
            .map(|notice| own(&String::from_utf8_lossy(notice)));
        Ok(json(
            StatusCode::OK,
            &object([
                ("kept", fetched.next.kept.into()),
                ("epoch", fetched.next.epoch.as_str().into()),
                ("passing", fetched.next.passing.into()),
                ("relay", fetched.next.relay.as_str().into()),
                ("notices", Value::Array(notices.collect())),
            ]),
        ))
    }

    async fn may_read(&self, relay: &std::sync::Arc<Relay>) -> bool {
        let shown = self.parts.headers.get(NOTICE_READER);
        let Some(shown) = shown.and_then(|shown| STANDARD.decode(shown.as_bytes()).ok()) else {
            return false;
        };
        // A signature is verified, and the book asked who the member is.
        let relay = relay.clone();
        blocking(move || relay.may_read(&shown, system_clock())).await
    }
}

fn not_posted(refused: &NotPosted) -> Refused {
    let status = match refused.code {
        ID_REUSED => StatusCode::CONFLICT,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "too_many" => StatusCode::TOO_MANY_REQUESTS,
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut reply = coded(status, refused.code, &refused.detail);
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        reply
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    reply
}

/// Reads what a relay answered.
pub fn read_notices(body: &[u8]) -> Option<crate::Notices> {
    let value = own(std::str::from_utf8(body).ok()?);
    let notices = crate::json::member(&value, "notices")?.as_array()?.iter();
    Some(crate::Notices {
        next: NoticeCursor {
            kept: crate::json::count(&value, "kept"),
            epoch: text(&value, "epoch").to_owned(),
            passing: crate::json::count(&value, "passing"),
            relay: text(&value, "relay").to_owned(),
        },
        notices: notices.map(|notice| write(notice).into()).collect(),
    })
}
