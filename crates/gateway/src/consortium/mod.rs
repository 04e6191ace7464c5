//! The consortium's book: signed requests in, and everything that members read out
//! (docs/protocols/consortium-node.md).
//!
//! What the book holds in memory is copied under its lock, a page at a time; what lies on the disk is read
//! on the threads that lists are made on.

mod read;
mod submit;

use std::sync::Arc;

use daybook_wire::assets::Query;
use http::Request;
use hyper::body::Incoming;

use crate::{
    Route,
    connection::Connection,
    reply::{Refused, Reply, not_found},
    server::Gateway,
};

/// A handler's answer; the error is an answer too.
type Handled = Result<Reply, Refused>;

pub(crate) async fn handle(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    route: Route,
    request: Request<Incoming>,
) -> Reply {
    if !gateway.node.runs_consortium() {
        return not_found();
    }
    let handled = if route == Route::ConsortiumRequests {
        submit::post(gateway, request).await
    } else {
        dispatch(gateway, connection, route, request).await
    };
    handled.unwrap_or_else(|Refused(reply)| *reply)
}

async fn dispatch(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    route: Route,
    request: Request<Incoming>,
) -> Handled {
    let segment = Route::find(request.uri().path()).map_or("", |(_, segment)| segment);
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match route {
        Route::Consortium => Ok(read::facts(&gateway.node)),
        Route::ConsortiumEntries => read::entries(gateway, connection, &query).await,
        Route::ConsortiumMembers => read::members(gateway, &query),
        Route::ConsortiumMember => Ok(read::member(gateway, segment)),
        Route::ConsortiumLedgers => read::ledgers(gateway, &query),
        Route::ConsortiumLedger => Ok(read::ledger(gateway, segment)),
        Route::ConsortiumLedgerEntries => {
            read::ledger_entries(gateway, connection, segment, &query).await
        }
        Route::ConsortiumLedgerProof => read::proof(gateway, connection, segment, &query).await,
        Route::ConsortiumLedgerExport => Ok(read::export(gateway, connection, segment).await),
        Route::ConsortiumProposal => Ok(read::proposal(gateway, connection, segment).await),
        _ => Ok(not_found()),
    }
}
