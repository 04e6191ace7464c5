//! What the console's pages read: lists by cursor, newest first, and what is behind one id.
//!
//! The answers are shaped for the pages and change with them; programs use the protocols' own doors.
//! Every answer is bounded in what it holds and in what is looked at for it.

mod blocks;
mod entries;
mod keys;
mod list;
mod node;
mod parameter;
mod search;
mod tracker;
mod transaction;

use std::time::{Duration, Instant};

use daybook_pipeline::Node;
use daybook_store::{Store, StoreError};
use daybook_wire::{
    assets::{Query, Refusal},
    events::Sight,
};
use http::{Request, StatusCode};
use hyper::body::Incoming;

pub(super) use self::list::append_event;
use crate::{
    connection::Connection,
    gate,
    reply::{Refused, Reply, fault, json, not_found, refused, unavailable},
    server::Gateway,
};

/// How long one answer may be looked for. What was found until then is answered, with a cursor to go on.
const PATIENCE: Duration = Duration::from_millis(500);

/// Inputs and outputs of a transaction that its page shows; its text has all of them.
const PARTS_MAX: usize = 200;

/// What somebody is told who asks about addresses and channels of others.
const VEILED: &str = "Addresses and channels of the wallet tracker are shown to the operator: on the \
                      node's own machine, or with its token; to everybody if tracker.public_log is set";

/// What somebody is told who asks about the service bus of others.
const BUS_VEILED: &str =
    "The service bus is shown to the operator: on the node's own machine, or with its token";

/// What a question came to: an answer's body, nothing under that name, or a bad question.
type Found = Result<Option<Vec<u8>>, Wrong>;

enum Wrong {
    Refused(Refusal),
    /// What peers of the tracker do among each other is not shown to the asker.
    Veiled,
    Store(StoreError),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Wrong {
        Wrong::Refused(refusal)
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Wrong {
        Wrong::Store(error)
    }
}

/// Answers `/console/data/…`. The looking is done on a thread that may wait for the disk, in turns that
/// are shared with the lists of the API.
pub(super) async fn answer(
    gateway: &Gateway,
    connection: &Connection,
    request: &Request<Incoming>,
) -> Result<Reply, Refused> {
    let uri = request.uri();
    let path = super::below(uri.path(), "/console/data/").unwrap_or_default();
    let path = path.to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    let facts = Facts {
        token_required: gateway.settings.write_token.is_some(),
        version: env!("CARGO_PKG_VERSION"),
        bus: gateway.settings.bus.is_some(),
    };
    if path == "bus" {
        return bus(gateway, connection, request).await;
    }
    let Some(turn) = gateway.lists.take(connection.peer).await else {
        return Err(unavailable("Too many lists are being read").into());
    };
    let node = gateway.node.clone();
    let sight = gate::sight(gateway, connection, request.headers());
    let looked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let deadline = Instant::now() + PATIENCE;
        let asker = Asker {
            store: node.store().while_wanted(move || Instant::now() < deadline),
            deadline,
            node: &node,
            sight,
        };
        asker.answer(&path, &Query::parse(&query), &facts)
    });
    Ok(match looked.await {
        Ok(Ok(Some(body))) => json(StatusCode::OK, body),
        Ok(Ok(None)) => not_found(),
        Ok(Err(Wrong::Refused(refusal))) => return Err(refusal.into()),
        Ok(Err(Wrong::Veiled)) => refused(StatusCode::FORBIDDEN, VEILED),
        Ok(Err(Wrong::Store(error))) => fault(&error),
        Err(_) => unavailable("The answer could not be made"),
    })
}

/// What the answers need to know of the gateway.
struct Facts {
    token_required: bool,
    version: &'static str,
    /// A service bus runs beside the node.
    bus: bool,
}

/// What goes on on the service bus. Names of services and of what they ask each other for are their
/// operator's.
async fn bus(
    gateway: &Gateway,
    connection: &Connection,
    request: &Request<Incoming>,
) -> Result<Reply, Refused> {
    let Some(overview) = gateway.settings.bus.clone() else {
        return Ok(not_found());
    };
    if !gate::operates(gateway, connection, request.headers()) {
        return Err(refused(StatusCode::FORBIDDEN, BUS_VEILED).into());
    }
    // It waits for the broker, which is quick and never idle.
    let looked = tokio::task::spawn_blocking(move || overview.look()).await;
    Ok(match looked {
        Ok(Some(body)) => json(StatusCode::OK, body),
        _ => unavailable("The service bus is not there"),
    })
}

struct Asker<'n> {
    node: &'n Node,
    /// Gives up when the deadline is over.
    store: Store,
    deadline: Instant,
    /// How much of the tracker's entries the asker is shown.
    sight: Sight,
}

impl Asker<'_> {
    fn answer(&self, path: &str, query: &Query<'_>, facts: &Facts) -> Found {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let named = (segments.next(), segments.next(), segments.next());
        match named {
            (Some("node"), None, None) => {
                query.refuse_unknown(&[])?;
                Ok(Some(self.node(facts)))
            }
            (Some("blocks"), None, None) => self.blocks(query),
            (Some("blocks"), Some(height), None) => self.block(height, query),
            (Some("entries"), None, None) => self.entries(query),
            (Some("transactions"), Some(id), None) => self.transaction(id),
            (Some("spenders"), Some(id), None) => self.spenders(id, query),
            (Some("outputs"), None, None) => self.outputs(query),
            (Some("keys"), Some(key), None) => self.key(key),
            (Some("object"), None, None) => self.object(query),
            (Some("search"), None, None) => self.search(query),
            _ => Ok(None),
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}
