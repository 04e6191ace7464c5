//! Answers: JSON, with the upper-case reason phrases that clients compare (asset ledger, section 3.1).

use bytes::Bytes;
use daybook_store::StoreError;
use daybook_wire::assets::{self, Refusal};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;

use crate::{
    body::Body,
    budget::{Budget, SHORT_BYTES_MAX},
};

pub(crate) type Reply = Response<Body>;

/// `application/json`; the encoding of JSON is UTF-8 by definition (RFC 8259, section 8.1).
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Seconds after which a busy node may be asked again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Headers that a typical answer has, so that the map grows once.
const HEADERS_TYPICAL: usize = 6;

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    with_type(status, JSON, Body::whole(body.into()))
}

/// A long answer, if there is room for it while it is sent.
pub(crate) fn json_within(budget: &Budget, status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let body = body.into();
    if body.len() <= SHORT_BYTES_MAX {
        return json(status, body);
    }
    match budget.try_hold(body.len()) {
        Some(held) => json(status, held.around(body)),
        None => unavailable("The node is busy: try again"),
    }
}

pub(crate) fn with_type(status: StatusCode, content_type: HeaderValue, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().reserve(HEADERS_TYPICAL);
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    reply
}

pub(crate) fn not_found() -> Reply {
    json(StatusCode::NOT_FOUND, assets::NOT_FOUND)
}

/// Understood and refused: `{"message": …, "status": …}`.
pub(crate) fn refused(status: StatusCode, message: &str) -> Reply {
    json(status, assets::error_body(status.as_u16(), message))
}

/// The node cannot take it now: try again.
pub(crate) fn unavailable(message: &str) -> Reply {
    let mut reply = refused(StatusCode::SERVICE_UNAVAILABLE, message);
    reply
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    reply
}

/// The store could not be read, now or at all. What happened goes to the log; the client gets no paths.
pub(crate) fn fault(error: &StoreError) -> Reply {
    tracing::error!(%error, "the store could not be read");
    if error.is_transient() {
        return unavailable("The store could not be read: try again");
    }
    refused(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The store could not be read",
    )
}

/// An answer that refuses. Boxed, because it is large and rare.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Box<Reply>);

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Refused {
        Refused(Box::new(reply))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        json(StatusCode::BAD_REQUEST, refusal.body()).into()
    }
}

/// Sets the reason phrase, unless the usual one is in upper case already.
pub(crate) fn set_reason(reply: &mut Reply) {
    let phrase: &'static [u8] = match reply.status().as_u16() {
        101 => b"SWITCHING PROTOCOLS",
        202 => b"ACCEPTED",
        400 => b"BAD REQUEST",
        401 => b"UNAUTHORIZED",
        403 => b"FORBIDDEN",
        404 => b"NOT FOUND",
        405 => b"METHOD NOT ALLOWED",
        408 => b"REQUEST TIMEOUT",
        409 => b"CONFLICT",
        413 => b"REQUEST ENTITY TOO LARGE",
        421 => b"MISDIRECTED REQUEST",
        426 => b"UPGRADE REQUIRED",
        429 => b"TOO MANY REQUESTS",
        500 => b"INTERNAL SERVER ERROR",
        503 => b"SERVICE UNAVAILABLE",
        _ => return,
    };
    reply
        .extensions_mut()
        .insert(ReasonPhrase::from_static(phrase));
}
