//! Small bodies: forms, or the same as JSON.

use bytes::Bytes;
use daybook_ledger::json::{Object, Value};
use daybook_wire::multipart::percent_decoded;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time;

use super::{Asks, BODY_TIMEOUT, Refused, answers::detail};
use crate::{json::text, page::parameters};

/// Bytes of a small request's body: a log-in, a reason.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

impl Asks<'_> {
    /// The fields of a form, and what is wrong with those that have to be filled in.
    pub(super) async fn fields(
        &self,
        body: Incoming,
        required: &[&str],
    ) -> Result<(Value, Object), Refused> {
        let body = small(body).await?;
        let fields = Value::Object(form(&self.parts.headers, &body));
        let missing = required
            .iter()
            .filter(|name| text(&fields, name).is_empty());
        let errors = missing.map(|name| (*name, Value::from("This field is required.")));
        let errors = Object::from_iter(errors);
        Ok((fields, errors))
    }
}

pub(super) async fn small(body: Incoming) -> Result<Bytes, Refused> {
    let limited = Limited::new(body, SMALL_BODY_BYTES_MAX);
    match time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        _ => Err(Box::new(detail(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is too long, or did not arrive.",
        ))),
    }
}

/// The fields of a small body: JSON, or a form.
pub(super) fn form(headers: &HeaderMap, body: &[u8]) -> Object {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let Ok(body) = std::str::from_utf8(body) else {
        return Object::new();
    };
    if kind.starts_with("application/x-www-form-urlencoded") {
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        let fields = parameters(body);
        return fields
            .filter_map(|(name, value)| Some((decoded(name)?, decoded(value)?)))
            .collect();
    }
    crate::json::own_object(body)
}
