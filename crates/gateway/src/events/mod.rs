//! The general event stream: every applied transaction of every book, over WebSocket and as
//! server-sent events (docs/protocols/events.md).

mod sse;

use std::sync::Arc;

use bytes::Bytes;
use daybook_ledger::{Height, Position, block::Entry};
use daybook_pipeline::Published;
use daybook_store::StoredBlock;
use daybook_wire::{
    assets::{Query, Refusal},
    events::{self, EventFilter, EventParameters, Sight},
    websocket::write_text,
};
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    connection::Connection,
    gate::{self, lists},
    reply::{Refused, Reply, refused},
    server::Gateway,
    subscriber::{Feed, Subscriber},
    websocket::handshake,
};

/// What somebody is told who asks for an address that is not theirs to watch.
const VEILED: &str = "What happens at addresses of the wallet tracker is told to their owners by its own \
                      subscriptions, and here to the operator only, unless tracker.public_log is set";

/// Where a block's frames are kept for all subscribers without a filter; the asset protocol's streams
/// have the places before.
const FRAMES: usize = 3;
const SERVER_SENT_FRAMES: usize = 4;

/// Answers a subscription: a WebSocket if the client asks for an upgrade, else server-sent events.
pub(crate) fn subscribe(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Reply, Refused> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let mut parameters = EventParameters::from_query(&query)?;
    if let Some(last) = last_event(request.headers()) {
        // A browser that comes back says so by header, and asks with the query of the first time.
        parameters.from = Some(events::behind(events::position("Last-Event-ID", last)?));
    }
    let head = gateway.node.head();
    let start = match parameters.from {
        None => Position {
            height: head.next(),
            index: 0,
        },
        Some(start) if start.height > head.next() => {
            // A cursor from another ledger, most likely; waiting for it would look like silence.
            let text = format!("Beyond the newest block, which is {}", head.0);
            return Err(Refusal::parameter("from", text).into());
        }
        // There is no block 0; the heartbeat shall not name it.
        Some(start) if start.height == Height(0) => Position {
            height: Height(1),
            index: 0,
        },
        Some(start) => start,
    };
    let sight = gate::sight(gateway, connection, request.headers());
    if sight == Sight::Outline && parameters.filter.names_address() {
        // To find nothing under it would look as if nothing happened.
        return Err(refused(StatusCode::FORBIDDEN, VEILED).into());
    }
    let shown = Shown {
        filter: parameters.filter,
        sight,
        is_shared: sight == gate::usual_sight(gateway),
    };
    if !lists(request.headers(), header::UPGRADE, "websocket") {
        return Ok(sse::stream(
            gateway,
            connection,
            shown,
            parameters.notices,
            start,
        ));
    }
    let (reply, upgrade) = handshake(&mut request)?;
    // Made before the client hears that it is subscribed, so that what commits from then on is seen.
    let follower = gateway.node.follow(start.height);
    let subscriber = Subscriber::new(gateway, EventFeed(shown), start, parameters.notices);
    gateway.streams.spawn(subscriber.serve(upgrade, follower));
    Ok(reply)
}

fn last_event(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id")?.to_str().ok()
}

/// What one subscriber is shown.
struct Shown {
    filter: EventFilter,
    sight: Sight,
    /// It is what the node shows to most, whose frames are kept for all of them.
    is_shared: bool,
}

impl Shown {
    /// Whether all events of all blocks are its frames, encoded once for all subscribers like it.
    fn shares_frames(&self) -> bool {
        self.is_shared && self.filter.is_empty()
    }

    /// The frames of a block as `write` makes them, the first `skipped` places of it left out, and how
    /// many they are.
    fn frames(
        &self,
        published: &Published,
        place: usize,
        skipped: u32,
        write: impl Fn(&mut Vec<u8>, Position, &Entry, &[u8]),
    ) -> (Bytes, u64) {
        let block = &published.block;
        if skipped > 0 || !self.shares_frames() {
            return self.encode(block, skipped, write);
        }
        let frames = published.frames[place].get_or_init(|| self.encode(block, 0, write).0);
        (frames.clone(), block.block.entries.len() as u64)
    }

    fn encode(
        &self,
        block: &StoredBlock,
        skipped: u32,
        write: impl Fn(&mut Vec<u8>, Position, &Entry, &[u8]),
    ) -> (Bytes, u64) {
        let header = &block.block.header;
        let mut frames = Vec::new();
        let mut payload = Vec::new();
        let mut count = 0;
        for (index, entry) in (0..).zip(&block.block.entries).skip(skipped as usize) {
            if self.filter.matches(entry, self.sight) {
                let position = Position {
                    height: header.height,
                    index,
                };
                payload.clear();
                events::event(&mut payload, position, header.time, entry, self.sight);
                write(&mut frames, position, entry, &payload);
                count += 1;
            }
        }
        (frames.into(), count)
    }
}

struct EventFeed(Shown);

impl Feed for EventFeed {
    fn frames(&self, published: &Published, skipped: u32) -> (Bytes, u64) {
        let write = |out: &mut Vec<u8>, _, _: &Entry, payload: &[u8]| write_text(out, payload);
        self.0.frames(published, FRAMES, skipped, write)
    }

    fn shares_frames(&self) -> bool {
        self.0.shares_frames()
    }
}
