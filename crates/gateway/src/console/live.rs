//! The stream behind the console's pages: one small frame for each block, however large the block is,
//! so that a page keeps up with any rate.

use std::{collections::BTreeMap, io::Write as _, sync::Arc};

use bytes::Bytes;
use daybook_ledger::{Height, Position};
use daybook_pipeline::Published;
use daybook_store::StoredBlock;
use daybook_wire::{
    assets::{Query, Refusal},
    events::{self, Sight},
    websocket::write_text,
};
use http::Request;
use hyper::body::Incoming;

use super::data::append_event;
use crate::{
    connection::Connection,
    gate,
    reply::{Refused, Reply},
    server::Gateway,
    subscriber::{Feed, Subscriber},
    websocket::handshake,
};

/// Events of a block that its frame tells, the last ones: more than a page shows of one block.
const EVENTS_MAX: usize = 10;

/// Bytes of the events of one frame; a page asks for those that did not fit.
const EVENTS_BYTES_MAX: usize = 32 << 10;

/// Answers `/console/live?after=<height>`; without a height it begins with the next block.
pub(super) fn subscribe(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    mut request: Request<Incoming>,
) -> Result<Reply, Refused> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    query.refuse_unknown(&["after"])?;
    let head = gateway.node.head();
    let after = match query.first("after") {
        None => head,
        Some(text) => events::position("after", text)?.height,
    };
    if after > head {
        let text = format!("Beyond the newest block, which is {}", head.0);
        return Err(Refusal::parameter("after", text).into());
    }
    let start = Position {
        height: after.next(),
        index: 0,
    };
    let live = Live(gate::sight(gateway, connection, request.headers()));
    let (reply, upgrade) = handshake(&mut request)?;
    let follower = gateway.node.follow(start.height);
    let subscriber = Subscriber::new(gateway, live, start, true);
    gateway.streams.spawn(subscriber.serve(upgrade, follower));
    Ok(reply)
}

struct Live(Sight);

impl Feed for Live {
    fn frames(&self, published: &Published, _skipped: u32) -> (Bytes, u64) {
        let mut frame = Vec::new();
        write_text(&mut frame, &summary(&published.block, self.0));
        (frame.into(), 1)
    }
}

/// A block in a few words: heading, how many entries of which kind, and the last of them.
fn summary(stored: &StoredBlock, sight: Sight) -> Vec<u8> {
    let block = &stored.block;
    let header = &block.header;
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &block.entries {
        *kinds.entry(events::kind(entry)).or_default() += 1;
    }
    let mut out = Vec::with_capacity(1 << 10);
    let Height(height) = header.height;
    let _ = write!(
        out,
        "{{\"height\":{height},\"time\":{},\"hash\":\"{}\",\"count\":{},\"rejected\":{},\"kinds\":{{",
        header.time.0,
        header.hash(),
        block.entries.len(),
        stored.rejected.len(),
    );
    for (place, (kind, count)) in kinds.into_iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{kind}\":{count}");
    }
    out.extend_from_slice(b"},\"events\":[");
    let (start, mut told) = (out.len(), 0);
    for (index, entry) in block.entries.iter().enumerate().rev().take(EVENTS_MAX) {
        let end = out.len();
        if told > 0 {
            out.push(b',');
        }
        let position = Position {
            height: header.height,
            index: index as u32,
        };
        append_event(&mut out, position, header.time, entry, sight);
        if out.len() - start > EVENTS_BYTES_MAX {
            out.truncate(end);
            break;
        }
        told += 1;
    }
    out.extend_from_slice(b"]}");
    out
}
