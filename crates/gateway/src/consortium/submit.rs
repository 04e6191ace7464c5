//! `POST /api/v1/consortium/requests`.

use daybook_ledger::consortium::{REQUEST_BYTES_MAX, Request};
use daybook_pipeline::ConsortiumAnswer;
use daybook_wire::consortium::{outcome_body, refusal_body, status};
use http::StatusCode;
use hyper::body::Incoming;

use super::Handled;
use crate::{
    body::{Unread, read_whole},
    reply::{Reply, json, json_within, not_found, refused, unavailable},
    server::Gateway,
};

pub(super) async fn post(gateway: &Gateway, request: http::Request<Incoming>) -> Handled {
    // The room for the text is held until the answer is made.
    let (text, _held) = read_whole(
        request.into_body(),
        &gateway.budget,
        REQUEST_BYTES_MAX,
        gateway.settings.body_timeout,
    )
    .await
    .map_err(unread)?;
    Ok(match gateway.node.ask_consortium(Request { text }).await {
        ConsortiumAnswer::Recorded {
            entry,
            position,
            repeated,
        } => {
            let body = outcome_body(position, repeated, &entry);
            json_within(&gateway.budget, StatusCode::OK, body)
        }
        ConsortiumAnswer::Refused(refusal) => {
            let code = StatusCode::from_u16(status(refusal.code));
            let code = code.expect("the statuses of refusals are statuses");
            json(code, refusal_body(&refusal))
        }
        ConsortiumAnswer::Busy => unavailable("The node is busy: try again"),
        ConsortiumAnswer::Off => not_found(),
        ConsortiumAnswer::Stopped => unavailable("The node is stopping"),
    })
}

fn unread(unread: Unread) -> Reply {
    match unread {
        Unread::TooLong => refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "A request to the consortium's book has at most 1,048,576 bytes",
        ),
        Unread::TooSlow => refused(StatusCode::REQUEST_TIMEOUT, "The body came too slowly"),
        Unread::Broken => refused(StatusCode::BAD_REQUEST, "The body broke off"),
        Unread::NoRoom => unavailable("The node is busy: try again"),
    }
}
