//! The asset protocol's resources (asset ledger, sections 3 and 9).

mod batch;
pub(crate) mod listing;
mod read;
mod socket;
mod stream;
mod submit;
mod turns;

pub(crate) use turns::Turns;

use std::sync::Arc;

use bytes::Bytes;
use daybook_pipeline::{Acknowledge, Node};
use daybook_wire::assets::{Discovery, Level, Query};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use crate::{
    Route,
    connection::Connection,
    reply::{Refused, Reply, json, not_found},
    server::Gateway,
};

/// Answers that stay the same as long as the node runs.
pub(crate) struct Assets {
    root: Bytes,
    v1: Bytes,
    validators: Bytes,
}

impl Assets {
    pub(crate) fn new(node: &Node, discovery: &Discovery<'_>) -> Assets {
        Assets {
            root: discovery.root().into(),
            v1: discovery.v1().into(),
            validators: read::validators(node.store().genesis()).into(),
        }
    }
}

/// A handler's answer; the error is an answer too.
type Handled = Result<Reply, Refused>;

pub(crate) async fn handle(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    route: Route,
    request: Request<Incoming>,
) -> Reply {
    let handled = dispatch(gateway, connection, route, request).await;
    handled.unwrap_or_else(|Refused(reply)| *reply)
}

async fn dispatch(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    route: Route,
    request: Request<Incoming>,
) -> Handled {
    if let Some(kind) = route.stream() {
        return stream::subscribe(gateway, kind, request);
    }
    match route {
        Route::Transactions if request.method() == Method::POST => {
            return submit::post(gateway, request).await;
        }
        Route::Batch => return batch::post(gateway, connection, request),
        Route::Submit => return socket::open(gateway, connection, request),
        _ => {}
    }
    let path = request.uri().path();
    let segment = Route::find(path).map_or("", |(_, segment)| segment);
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let assets = &gateway.assets;
    match route {
        Route::Root => Ok(json(StatusCode::OK, assets.root.clone())),
        Route::Api => Ok(json(StatusCode::OK, assets.v1.clone())),
        Route::Validators => Ok(json(StatusCode::OK, assets.validators.clone())),
        Route::Transaction => read::transaction(gateway, segment),
        Route::TransactionStatus => read::status(&gateway.node, segment),
        Route::Transactions => read::transactions(gateway, connection, &query).await,
        Route::Outputs => read::outputs(gateway, connection, &query).await,
        Route::Blocks => read::block_of_transaction(gateway, connection, &query).await,
        Route::LatestBlock => read::latest_block(gateway, connection).await,
        Route::Block => read::block(gateway, connection, segment).await,
        Route::Assets | Route::Metadata => read::search(gateway, connection, route, &query).await,
        Route::AssetsHolding | Route::MetadataHolding => {
            read::holding(gateway, connection, route, segment, &query).await
        }
        _ => Ok(not_found()),
    }
}

fn acknowledge(level: Level) -> Acknowledge {
    match level {
        Level::Accepted => Acknowledge::Accepted,
        Level::Durable => Acknowledge::Durable,
    }
}
