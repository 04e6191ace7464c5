//! Event streams (asset ledger, section 9).

use std::sync::Arc;

use bytes::Bytes;
use daybook_ledger::{Height, Position};
use daybook_pipeline::Published;
use daybook_store::StoredBlock;
use daybook_wire::{
    assets::{
        Filter, From, Query, Refusal, StreamKind, StreamParameters, block_frame, caught_up_notice,
        head_notice, lagging_notice, rejected_frame, transaction_frame,
    },
    websocket::write_text,
};
use http::Request;
use hyper::body::Incoming;

use super::Handled;
use crate::{
    server::Gateway,
    subscriber::{Feed, Subscriber},
    websocket::handshake,
};

pub(super) fn subscribe(
    gateway: &Arc<Gateway>,
    kind: StreamKind,
    mut request: Request<Incoming>,
) -> Handled {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parameters = StreamParameters::from_query(kind, &query)?;
    let head = gateway.node.head();
    let start = match parameters.from {
        From::Live => Position {
            height: head.next(),
            index: 0,
        },
        From::Position(start) if start.height > head.next() => {
            // A cursor from another ledger, most likely; waiting for it would look like silence.
            let text = format!("Beyond the newest block, which is {}", head.0);
            return Err(Refusal::parameter("from", text).into());
        }
        From::Position(start) => start,
    };
    let (reply, upgrade) = handshake(&mut request)?;
    // Made before the client hears that it is subscribed, so that what commits from then on is seen.
    let follower = gateway.node.follow(start.height);
    let feed = AssetFeed {
        kind,
        filter: parameters.filter,
    };
    let subscriber = Subscriber::new(gateway, feed, start, parameters.notices);
    gateway.streams.spawn(subscriber.serve(upgrade, follower));
    Ok(reply)
}

/// One of the asset protocol's streams.
struct AssetFeed {
    kind: StreamKind,
    filter: Filter,
}

impl Feed for AssetFeed {
    fn frames(&self, published: &Published, skipped: u32) -> (Bytes, u64) {
        let block = &published.block;
        if self.kind == StreamKind::ValidTransactions && (skipped > 0 || !self.filter.is_empty()) {
            return matching(block, &self.filter, skipped);
        }
        let frames = published.frames[self.kind as usize].get_or_init(|| encode(self.kind, block));
        let count = match self.kind {
            StreamKind::ValidTransactions => block.block.assets().count(),
            StreamKind::ValidBlocks => 1,
            StreamKind::RejectedTransactions => block.rejected.len(),
        };
        (frames.clone(), count as u64)
    }

    fn shares_frames(&self) -> bool {
        self.filter.is_empty()
    }

    fn always_beats(&self) -> bool {
        false
    }

    fn head(&self, out: &mut Vec<u8>, next: Position) {
        head_notice(out, delivered(next));
    }

    fn caught_up(&self, out: &mut Vec<u8>, next: Position) {
        caught_up_notice(out, delivered(next));
    }

    fn lagging(&self, out: &mut Vec<u8>, behind: u64) {
        lagging_notice(out, behind);
    }
}

/// The last block of which everything was delivered.
fn delivered(next: Position) -> Height {
    Height(next.height.0.saturating_sub(1))
}

/// Bytes of one transaction's frame, roughly, so that the buffer of a block grows once.
const FRAME_BYTES: usize = 304;

fn encode(kind: StreamKind, block: &StoredBlock) -> Bytes {
    let height = block.block.header.height;
    let mut frames = Vec::new();
    let mut payload = Vec::with_capacity(FRAME_BYTES);
    match kind {
        StreamKind::ValidTransactions => return matching(block, &Filter::default(), 0).0,
        StreamKind::ValidBlocks => {
            let ids = block
                .block
                .assets()
                .map(|(_, transaction)| transaction.id());
            block_frame(&mut payload, height, &block.block.state().to_string(), ids);
            write_text(&mut frames, &payload);
        }
        StreamKind::RejectedTransactions => {
            for rejected in &block.rejected {
                payload.clear();
                rejected_frame(&mut payload, height, &rejected.id, &rejected.rejection);
                write_text(&mut frames, &payload);
            }
        }
    }
    frames.into()
}

fn matching(block: &StoredBlock, filter: &Filter, skipped: u32) -> (Bytes, u64) {
    let height = block.block.header.height;
    let mut frames = Vec::new();
    if filter.is_empty() {
        frames.reserve_exact(block.block.entries.len() * FRAME_BYTES);
    }
    let mut payload = Vec::with_capacity(FRAME_BYTES);
    let mut count = 0;
    let wanted = |(index, _): &(u32, _)| *index >= skipped;
    for (index, transaction) in block.block.assets().filter(wanted) {
        if filter.matches(transaction) {
            payload.clear();
            transaction_frame(&mut payload, Position { height, index }, transaction);
            write_text(&mut frames, &payload);
            count += 1;
        }
    }
    (frames.into(), count)
}
