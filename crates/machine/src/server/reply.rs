//! Answers: orders and lists as JSON, pages, and refusals (machines, sections 3.6 and 8).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use crate::request::OrderError;

/// What the page may do: nothing but what comes from this very port.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
pub(super) type Reply = Response<Body>;

pub(super) fn body(bytes: impl Into<Bytes>) -> Body {
    UnsyncBoxBody::new(Full::new(bytes.into()).map_err(|never| match never {}))
}

pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(body(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

pub(super) fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut reply = Response::new(body(value.to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    reply
}

pub(super) fn page(text: &'static str, kind: &'static str) -> Reply {
    let mut reply = Response::new(body(text));
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    reply
}

pub(super) fn preflight() -> Reply {
    let mut reply = empty(StatusCode::NO_CONTENT);
    for (name, value) in [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, POST, OPTIONS",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "content-type, accept, idempotency-key",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    reply
}

pub(super) fn failed(error: &OrderError) -> Reply {
    let status = StatusCode::from_u16(error.code.status()).expect("statuses are named in the code");
    json_reply(status, &json!({ "error": error.json() }))
}

pub(super) fn refuse(status: StatusCode, message: &str) -> Reply {
    let reason = status.canonical_reason().unwrap_or("error");
    json_reply(
        status,
        &json!({"error": {
            "message": message,
            "code": reason.to_lowercase().replace(' ', "_"),
            "status": status.as_u16(),
        }}),
    )
}

pub(super) fn stopping() -> Reply {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the machine is stopping")
}
