//! `POST /api/v1/transactions` (asset ledger, section 3.5).

use bytes::Bytes;
use daybook_ledger::RejectionClass;
use daybook_pipeline::{Acknowledge, Door, Outcome};
use daybook_wire::assets::{Mode, Query, mode};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use super::Handled;
use crate::{
    body::{Unread, read_whole},
    budget::{Held, SHORT_BYTES_MAX},
    reply::{Reply, json, refused, unavailable},
    server::Gateway,
};

/// Where a committed transaction stands, as `height.index`. The body is what was sent and has no place
/// for it.
const POSITION: HeaderName = HeaderName::from_static("daybook-position");

/// Lets pages read it too.
const EXPOSED: HeaderValue = HeaderValue::from_static("Daybook-Position");

pub(super) async fn post(gateway: &Gateway, request: Request<Incoming>) -> Handled {
    let (head, body) = request.into_parts();
    let mode = mode(&Query::parse(head.uri.query().unwrap_or_default()))?;
    let settings = &gateway.settings;
    let (text, held) = read_whole(
        body,
        &gateway.budget,
        settings.transaction_bytes_max,
        settings.body_timeout,
    )
    .await
    .map_err(unread_reply)?;
    let acknowledge = match mode {
        Mode::Async | Mode::Sync => Acknowledge::Accepted,
        Mode::Commit => Acknowledge::Durable,
    };
    Ok(
        match gateway
            .node
            .submit(text.clone(), acknowledge, Door::Classic)
            .await
        {
            // What the client sent is the cheapest text that equals what it sent.
            Outcome::Accepted { .. } => taken(text, held),
            Outcome::Committed { position, .. } => {
                let mut reply = taken(text, held);
                let headers = reply.headers_mut();
                // Digits and a point.
                if let Ok(place) = HeaderValue::try_from(position.to_string()) {
                    headers.insert(POSITION, place);
                }
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
                reply
            }
            Outcome::Rejected { rejection, .. } => {
                let status = match rejection.class {
                    RejectionClass::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    _ => StatusCode::BAD_REQUEST,
                };
                refused(status, &rejection.message())
            }
            Outcome::Busy => unavailable("The node is busy: try again"),
            Outcome::Stopped => unavailable("The node is stopping"),
        },
    )
}

/// The text back, in the room that it was read into.
fn taken(text: Bytes, held: Option<Held>) -> Reply {
    let body = match held {
        Some(held) if text.len() > SHORT_BYTES_MAX => held.around(text),
        _ => text,
    };
    json(StatusCode::ACCEPTED, body)
}

pub(super) fn unread_reply(unread: Unread) -> Reply {
    match unread {
        Unread::TooLong => refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The transaction is larger than `max_transaction_size`",
        ),
        Unread::TooSlow => refused(StatusCode::REQUEST_TIMEOUT, "The body came too slowly"),
        Unread::Broken => refused(StatusCode::BAD_REQUEST, "The body broke off"),
        Unread::NoRoom => unavailable("The node is busy: try again"),
    }
}
