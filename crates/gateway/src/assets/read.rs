//! Reading transactions, outputs, blocks, assets, metadata and validators (asset ledger, sections 3.6
//! to 3.12).
//!
//! Look-ups of one thing are made where the request is served: they end in memory or in one read of a
//! file. Everything longer is a list and has its own thread.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use daybook_ledger::{Height, TransactionId, block::Genesis};
use daybook_pipeline::{Node, Status};
use daybook_store::{SearchField, StoredBlock};
use daybook_wire::assets::{
    self, BlockParameters, Dialect, ListParameters, OutputParameters, Query, SearchElement,
    SearchParameters, TransactionParameters, append_exact_matches, append_output,
    append_search_elements, block_by_transaction, block_head, block_tail,
};
use http::StatusCode;

use super::{
    Handled,
    listing::{self, Sink},
};
use crate::{
    Route,
    connection::Connection,
    reply::{fault, json, json_within, not_found},
    server::Gateway,
};

pub(super) fn validators(genesis: &Genesis) -> Vec<u8> {
    assets::validators(
        genesis
            .validators
            .iter()
            .map(|validator| (BASE64_STANDARD.encode(validator.key.0), validator.power)),
    )
}

pub(super) fn transaction(gateway: &Gateway, id: &str) -> Handled {
    let Ok(id) = id.parse() else {
        return Ok(not_found());
    };
    Ok(match gateway.node.store().transaction(&id) {
        Ok(Some((_, text))) => json_within(&gateway.budget, StatusCode::OK, text),
        Ok(None) => not_found(),
        Err(error) => fault(&error),
    })
}

pub(super) fn status(node: &Node, id: &str) -> Handled {
    let Ok(id) = id.parse::<TransactionId>() else {
        return Ok(not_found());
    };
    let body = match node.status(&id) {
        Ok(Status::Committed(position)) => assets::status_committed(&id, position),
        Ok(Status::Pending) => assets::status_pending(&id),
        Ok(Status::Rejected(height, rejection)) => assets::status_rejected(&id, height, &rejection),
        Ok(Status::Unknown) => return Ok(not_found()),
        Err(error) => return Ok(fault(&error)),
    };
    Ok(json(StatusCode::OK, body))
}

pub(super) async fn transactions(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    query: &Query<'_>,
) -> Handled {
    let TransactionParameters {
        assets,
        operation,
        last_only,
    } = TransactionParameters::from_query(query)?;
    Ok(listing::array(gateway, connection, move |store, sink| {
        store.transactions_of_assets(&assets, operation, last_only, &mut |_, _, text| {
            append(sink, &text);
            sink.go_on()
        })
    })
    .await)
}

fn append(sink: &mut Sink, element: &[u8]) {
    sink.buffer.extend_from_slice(element);
    sink.buffer.push(b',');
}

pub(super) async fn outputs(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    query: &Query<'_>,
) -> Handled {
    let OutputParameters { key, spent } = OutputParameters::from_query(query)?;
    let Some(key) = key else {
        return Ok(json(StatusCode::OK, &b"[]"[..]));
    };
    Ok(listing::array(gateway, connection, move |store, sink| {
        store.outputs_of_key(&key, spent, &mut |output| {
            append_output(&mut sink.buffer, &output);
            sink.go_on()
        })
    })
    .await)
}

pub(super) async fn block_of_transaction(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    query: &Query<'_>,
) -> Handled {
    let BlockParameters { transaction } = BlockParameters::from_query(query)?;
    let found = match transaction
        .map(|id| gateway.node.store().position(&id))
        .transpose()
    {
        Ok(found) => found.flatten(),
        Err(error) => return Ok(fault(&error)),
    };
    Ok(match (connection.endpoint.dialect, found) {
        (Dialect::Classic, None) => json(StatusCode::OK, &b"[]"[..]),
        (Dialect::V2, None) => not_found(),
        (Dialect::Classic, Some(position)) => {
            json(StatusCode::OK, format!("[{}]", position.height.0))
        }
        (Dialect::V2, Some(position)) => {
            with_block(gateway, connection, position.height, |block, sink| {
                let (hash, ids) = (block.block.state().to_string(), ids(block));
                sink.buffer = block_by_transaction(height(block), &hash, ids);
            })
            .await
        }
    })
}

pub(super) async fn latest_block(gateway: &Gateway, connection: &Arc<Connection>) -> Handled {
    let tip = gateway.node.store().tip().height;
    if tip == Height(0) {
        return Ok(genesis_block());
    }
    Ok(with_block(gateway, connection, tip, |block, sink| {
        // Both members hold ids here: that is what the two lines of clients read.
        let hash = block.block.state().to_string();
        block_head(&mut sink.buffer, height(block), &hash, ids(block));
        for id in ids(block) {
            assets::append_id(&mut sink.buffer, &id);
            sink.buffer.push(b',');
        }
        sink.end_elements();
        block_tail(&mut sink.buffer);
    })
    .await)
}

pub(super) async fn block(gateway: &Gateway, connection: &Arc<Connection>, text: &str) -> Handled {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(not_found());
    }
    let tip = gateway.node.store().tip().height;
    let wanted = match text.parse().map(Height) {
        Ok(Height(0)) => return Ok(genesis_block()),
        Ok(wanted) if wanted <= tip => wanted,
        _ => return Ok(not_found()),
    };
    Ok(with_block(gateway, connection, wanted, |block, sink| {
        let hash = block.block.state().to_string();
        block_head(&mut sink.buffer, height(block), &hash, ids(block));
        for (_, transaction) in block.block.assets() {
            append(sink, transaction.canonical());
            if !sink.go_on() {
                return;
            }
        }
        sink.end_elements();
        block_tail(&mut sink.buffer);
    })
    .await)
}

fn genesis_block() -> crate::reply::Reply {
    const GENESIS: &[u8] = br#"{"app_hash":"","height":0,"transaction_ids":[],"transactions":[]}"#;
    json(StatusCode::OK, GENESIS)
}

/// Answers with what `write` makes of a block at or below the tip.
async fn with_block(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    height: Height,
    write: impl FnOnce(&StoredBlock, &mut Sink) + Send + 'static,
) -> crate::reply::Reply {
    listing::answer(gateway, connection, move |store, sink| {
        let block = store
            .block(height)?
            .expect("every height up to the tip has a block");
        write(&block, sink);
        Ok(())
    })
    .await
}

fn height(block: &StoredBlock) -> Height {
    block.block.header.height
}

fn ids(block: &StoredBlock) -> impl Iterator<Item = TransactionId> {
    block
        .block
        .assets()
        .map(|(_, transaction)| transaction.id())
}

fn field(route: Route) -> (SearchField, SearchElement) {
    match route {
        Route::Metadata | Route::MetadataHolding => {
            (SearchField::Metadata, SearchElement::Metadata)
        }
        _ => (SearchField::Asset, SearchElement::Asset),
    }
}

pub(super) async fn search(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    route: Route,
    query: &Query<'_>,
) -> Handled {
    let SearchParameters { text, limit } = SearchParameters::from_query(query)?;
    let (field, element) = field(route);
    Ok(listing::array(gateway, connection, move |store, sink| {
        store.search(field, &text, limit, &mut |id, transaction| {
            append_search_elements(&mut sink.buffer, element, &id, &transaction);
            sink.go_on()
        })
    })
    .await)
}

pub(super) async fn holding(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    route: Route,
    segment: &str,
    query: &Query<'_>,
) -> Handled {
    let ListParameters { cid, limit } = ListParameters::from_path(segment, query)?;
    let (cid, mut left) = (cid.into_owned(), limit.unwrap_or(usize::MAX));
    let (field, element) = field(route);
    Ok(listing::array(gateway, connection, move |store, sink| {
        store.holding(field, &cid, &mut |_, text| {
            left -= append_exact_matches(&mut sink.buffer, element, &text, left);
            left > 0 && sink.go_on()
        })
    })
    .await)
}
