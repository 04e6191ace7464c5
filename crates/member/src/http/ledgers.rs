//! What users read: ledgers and what is in them, plan documents, and what waits or became of something
//! (sections 1.2 to 1.4).

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode, header};

use daybook_wire::multipart::percent_decoded;

use super::{
    Asks, Known, Refused, Reply,
    answers::{JSON, json, not_shown},
    downloads::{self, PIECE_BYTES},
};
use crate::{
    disk::{DiskError, PlanKind},
    endorser, health,
    json::{object, write},
    member::{Shared, blocking},
    operation,
    view::{self, NotShown},
};

impl Asks<'_> {
    /// The address of a list, as its pages link to it.
    fn base(&self, shared: &Shared, segments: &[&str]) -> String {
        let origin = shared.settings.origin.as_str();
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let forwarded = self
            .parts
            .headers
            .get("x-forwarded-proto")
            .filter(|_| shared.settings.trust_forwarded)
            .and_then(|proto| proto.to_str().ok());
        let secure =
            self.peer.secure || forwarded == Some("https") || origin.starts_with("https://");
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{host}/{}/", segments.join("/"))
    }

    pub(super) async fn show(&self, known: Known, segments: &[&str]) -> Result<Reply, Refused> {
        let query = self.parts.uri.query().unwrap_or("").to_owned();
        let segments: Vec<String> = segments
            .iter()
            .map(|segment| segment.strip_suffix(".json").unwrap_or(segment).to_owned())
            .collect();
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let base = self.base(&known.shared, &names);
        let shown = blocking(move || {
            let names: Vec<&str> = segments.iter().map(String::as_str).collect();
            let shared = &known.shared;
            match names[..] {
                ["ledgers"] => view::ledgers(shared, &base, &query),
                ["ledgers", "list_with_meta"] => view::ledgers_with_meta(shared, &base, &query),
                ["ledgers", id] => view::ledger(shared, id),
                ["ledgers", id, _] => view::transactions(shared, id, &base, &query),
                ["ledgers", id, _, number] => view::transaction(shared, id, number),
                ["gu-11"] => view::plans(shared, PlanKind::Gu11, &base, &query),
                ["gu-12"] => view::plans(shared, PlanKind::Gu12, &base, &query),
                ["gu-11", id] => view::plan(shared, PlanKind::Gu11, id),
                ["gu-12", id] => view::plan(shared, PlanKind::Gu12, id),
                ["operations", id] => {
                    let id = percent_decoded(id).ok_or(NotShown::NotFound)?;
                    operation::describe(shared, &id)?.ok_or(NotShown::NotFound)
                }
                ["proposals"] => Ok(object([("results", endorser::waiting(shared))])),
                ["members"] => Ok(object([("results", health::members(shared))])),
                _ => Err(NotShown::NotFound),
            }
        });
        match shown.await {
            Ok(value) => Ok(json(StatusCode::OK, &value)),
            Err(error) => Err(not_shown(error)),
        }
    }

    /// All entries of a ledger in one answer, made while it is sent.
    pub(super) async fn whole(&self, known: Known, id: &str) -> Result<Reply, Refused> {
        let turn = self.turn(known.caller.name)?;
        let (shared, id) = (known.shared, id.to_owned());
        let head = {
            let shared = shared.clone();
            blocking(move || view::meta(&shared, &id)).await
        };
        let (id, size, days, approaching) = head.map_err(not_shown)?;
        let stopping = shared.stopping();
        let mut whole = Whole {
            shared,
            id,
            size,
            left: Some(size),
            piece: format!(
                "{{\"approaching_days\":{},\"days_in_way\":{},\"results\":[",
                write(&approaching),
                write(&days)
            ),
        };
        let read = move || {
            whole.next().map_err(|error| {
                tracing::error!(%error, "a list could not be finished");
                io::Error::other(error)
            })
        };
        let mut reply = Response::new(downloads::body(read, turn, stopping));
        reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Ok(reply)
    }
}

/// A ledger that is being sent, the newest entry first.
struct Whole {
    shared: Arc<Shared>,
    id: u64,
    size: u64,
    /// The number of the next entry; `None` when the end was sent.
    left: Option<u64>,
    /// What was begun and not sent.
    piece: String,
}

impl Whole {
    /// The next piece: some entries, at most one more than fit. Blocks on the disk.
    fn next(&mut self) -> Result<Option<Bytes>, DiskError> {
        let Some(mut number) = self.left else {
            return Ok(None);
        };
        while number > 0 && self.piece.len() < PIECE_BYTES {
            for (_, text) in self.shared.mirror.transactions(self.id, number..=number)? {
                if number != self.size {
                    self.piece.push(',');
                }
                let shown = view::transaction_object(&self.shared, &text);
                self.piece.push_str(&write(&shown));
            }
            number -= 1;
        }
        self.left = Some(number);
        if number == 0 {
            self.piece.push_str("]}");
            self.left = None;
        }
        Ok(Some(std::mem::take(&mut self.piece).into()))
    }
}
