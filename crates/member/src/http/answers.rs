//! The shapes of answers, and what is said of each fault (section 1.1).

use std::time::Duration;

use bytes::Bytes;
use daybook_ledger::json::Value;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use super::{Body, Refused, Reply};
use crate::{
    disk::DiskError,
    documents::DocumentError,
    json::{object, write},
    users::Denied,
    view::NotShown,
};

/// The type of almost every answer.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    let body = Full::new(Bytes::from(write(value))).map_err(|never| match never {});
    let mut reply = Response::new(UnsyncBoxBody::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// `{"detail": …}` (section 1.1).
pub(crate) fn detail(status: StatusCode, words: &str) -> Reply {
    json(status, &object([("detail", words.into())]))
}

/// A refusal of the node's own kind, for what nodes and members say to each other.
pub(super) fn coded(status: StatusCode, code: &str, words: &str) -> Refused {
    let answer = object([
        ("code", code.into()),
        ("message", words.into()),
        ("status", u64::from(status.as_u16()).into()),
    ]);
    Box::new(json(status, &answer))
}

pub(crate) fn empty() -> Body {
    UnsyncBoxBody::new(Empty::new().map_err(|never| match never {}))
}

pub(super) fn not_found() -> Refused {
    Box::new(detail(StatusCode::NOT_FOUND, "Not found."))
}

pub(super) fn unknown(words: &str) -> Refused {
    let mut reply = detail(StatusCode::UNAUTHORIZED, words);
    reply.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"api\""),
    );
    Box::new(reply)
}

/// What a caller is told who is not let in.
pub(super) const fn denial(denied: Denied) -> &'static str {
    match denied {
        Denied::Wrong => "Invalid username/password.",
        Denied::Inactive => "User inactive or deleted.",
    }
}

pub(super) fn denied(denied: Denied) -> Refused {
    unknown(denial(denied))
}

/// Says when to come again, in whole seconds.
pub(super) fn later(mut reply: Reply, wait: Duration) -> Reply {
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    set(&mut reply, header::RETRY_AFTER, &seconds.to_string());
    reply
}

pub(super) fn broken(error: DiskError) -> Refused {
    tracing::error!(%error, "a request could not be answered");
    Box::new(detail(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The member's store cannot be used.",
    ))
}

pub(super) fn not_shown(error: NotShown) -> Refused {
    match error {
        NotShown::NotFound => not_found(),
        NotShown::NoSuchPage => Box::new(detail(StatusCode::NOT_FOUND, "Invalid page.")),
        NotShown::Unfit(words) => Box::new(detail(StatusCode::BAD_REQUEST, words)),
        NotShown::Disk(error) => broken(error),
    }
}

pub(super) fn not_taken(error: DocumentError) -> Refused {
    let status = match &error {
        DocumentError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        DocumentError::Type(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        DocumentError::File(_) | DocumentError::Disk(_) => {
            tracing::error!(%error, "a document could not be kept");
            return Box::new(detail(
                StatusCode::INSUFFICIENT_STORAGE,
                "The document could not be kept.",
            ));
        }
    };
    Box::new(detail(status, &error.to_string()))
}

pub(super) fn allow(methods: &[Method]) -> HeaderValue {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    names.push("OPTIONS");
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

pub(super) fn set(reply: &mut Reply, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}
