//! Event streams (asset ledger, section 9).
//!
//! A subscriber is a cursor: it takes committed blocks from the node's handle, from memory near the
//! head and from the store behind it, and hands on frames that were encoded once for everybody. What
//! waits for a slow reader is bounded, and nobody waits for it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use daybook_ledger::{Height, Position};
use daybook_pipeline::{FollowError, Follower, Published};
use daybook_store::StoredBlock;
use daybook_wire::{
    assets::{
        Filter, From, Query, Refusal, StreamKind, StreamParameters, block_frame, caught_up_notice,
        head_notice, lagging_notice, rejected_frame, transaction_frame,
    },
    websocket::{write_ping, write_text},
};
use http::Request;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::Handled;
use crate::{
    server::{Gateway, Phase, reached},
    websocket::{Event, Link, code, handshake, opened},
};

/// Bytes of frames that wait for one subscriber before it takes further blocks: a few blocks, so that a
/// burst is one write, and little enough for thousands of subscribers that read nothing.
const PENDING_BYTES_MAX: usize = 256 << 10;

/// Blocks behind the head from which a subscriber is told that it lags: more than a burst leaves.
const LAGGING_BLOCKS: u64 = 64;

/// Looks at a subscriber's clocks within the shortest of its timeouts.
const LOOKS_PER_TIMEOUT: u32 = 4;

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
    let subscriber = Subscriber {
        kind,
        filter: parameters.filter,
        notices: parameters.notices,
        start,
        delivered: Height(start.height.0.saturating_sub(1)),
        // Whoever starts behind hears when it has everything; so does whoever starts at the head.
        lagging: true,
        gateway: gateway.clone(),
    };
    tokio::spawn(subscriber.serve(upgrade, follower));
    Ok(reply)
}

struct Subscriber {
    kind: StreamKind,
    filter: Filter,
    notices: bool,
    start: Position,
    delivered: Height,
    lagging: bool,
    gateway: Arc<Gateway>,
}

/// The next block together with the follower that gave it, so that reading from the store goes on
/// while the socket is attended to.
type Fetch = Pin<Box<dyn Future<Output = (Follower, Result<Arc<Published>, FollowError>)> + Send>>;

fn fetch(mut follower: Follower) -> Fetch {
    Box::pin(async move {
        let next = follower.next().await;
        (follower, next)
    })
}

impl Subscriber {
    async fn serve(mut self, upgrade: OnUpgrade, follower: Follower) {
        let Some((socket, input)) = opened(upgrade).await else {
            return;
        };
        let gateway = self.gateway.clone();
        let settings = &gateway.settings;
        let _present = gateway.meters.subscriber();
        let mut link = Link::new(socket, input);
        let mut phase = gateway.phase.clone();
        let shortest = settings
            .ping_interval
            .min(settings.stall_timeout)
            .min(settings.silence_timeout);
        let mut look = time::interval((shortest / LOOKS_PER_TIMEOUT).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pinged = Instant::now();
        if self.notices && follower.behind() == 0 {
            self.tell_caught_up(&mut link);
        }
        let mut fetching = fetch(follower);
        loop {
            let has_room = link.pending_bytes() < PENDING_BYTES_MAX;
            tokio::select! {
                biased;
                event = link.run() => match event {
                    Event::Drained => {}
                    Event::Closing(code) => {
                        return link.close(code.unwrap_or(code::NORMAL), "", false).await;
                    }
                    Event::Wrong(error) => {
                        return link.close(error.close_code(), &error.to_string(), true).await;
                    }
                    Event::Gone => return,
                },
                (mut follower, next) = &mut fetching, if has_room => {
                    match next {
                        Ok(block) => self.take(&mut link, &mut follower, block),
                        Err(FollowError::Stopped) => {
                            return link.close(code::GOING_AWAY, "the node is stopping", false).await;
                        }
                        Err(FollowError::Store(error)) => {
                            tracing::error!(%error, "a stream broke off: the store could not be read");
                            let reason = "the store could not be read";
                            return link.close(code::TRY_AGAIN_LATER, reason, false).await;
                        }
                    }
                    fetching = fetch(follower);
                }
                () = reached(&mut phase, Phase::Stopping) => {
                    return link.close(code::GOING_AWAY, "the node is stopping", true).await;
                }
                _ = look.tick() => {
                    if link.stalled_for() > settings.stall_timeout {
                        gateway.meters.stalled.increment(1);
                        let reason = "too slow: come back with `from`";
                        return link.close(code::TRY_AGAIN_LATER, reason, true).await;
                    }
                    if link.silent_for() > settings.silence_timeout {
                        return;
                    }
                    if pinged.elapsed() >= settings.ping_interval {
                        pinged = Instant::now();
                        self.beat(&mut link);
                    }
                }
            }
        }
    }

    /// Queues a block's frames, and those of every further block that is at hand.
    fn take(&mut self, link: &mut Link, follower: &mut Follower, first: Arc<Published>) {
        let mut next = Some(first);
        let (mut frames, before) = (0, link.pending_bytes());
        while let Some(published) = next {
            self.delivered = published.block.block.header.height;
            let (bytes, count) = self.frames(&published);
            frames += count;
            link.send(bytes);
            next = if link.pending_bytes() < PENDING_BYTES_MAX {
                follower.try_next()
            } else {
                None
            };
        }
        self.gateway
            .meters
            .streamed(frames, (link.pending_bytes() - before) as u64);
        if self.notices {
            let behind = follower.behind();
            if self.lagging && behind == 0 {
                self.tell_caught_up(link);
            } else if !self.lagging && behind >= LAGGING_BLOCKS {
                self.lagging = true;
                link.send(framed(|out| lagging_notice(out, behind)));
            }
        }
    }

    /// The frames of a block that this subscriber gets, and how many they are.
    fn frames(&self, published: &Published) -> (Bytes, u64) {
        let block = &published.block;
        let skipped = match self.start {
            Position { height, index } if height == block.block.header.height => index,
            _ => 0,
        };
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

    fn tell_caught_up(&mut self, link: &mut Link) {
        self.lagging = false;
        let height = self.delivered;
        link.send(framed(|out| caught_up_notice(out, height)));
    }

    fn beat(&self, link: &mut Link) {
        // What is unread proves that the connection is not idle, and a Ping behind it would be as late.
        if link.pending_bytes() > 0 {
            return;
        }
        let mut frame = Vec::new();
        write_ping(&mut frame, b"");
        if self.notices && !self.lagging {
            let mut payload = Vec::new();
            head_notice(&mut payload, self.delivered);
            write_text(&mut frame, &payload);
        }
        link.send(frame.into());
    }
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

fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let (mut payload, mut frame) = (Vec::new(), Vec::new());
    write(&mut payload);
    write_text(&mut frame, &payload);
    frame.into()
}
