//! A subscriber: a cursor on the committed blocks behind a WebSocket.
//!
//! It takes blocks from the node's handle, from memory near the head and from the store behind it, and
//! hands on frames that were encoded once for everybody. What waits for a slow reader is bounded, and
//! nobody waits for it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use daybook_ledger::{Height, Position};
use daybook_pipeline::{FollowError, Follower, Published};
use daybook_wire::{
    events,
    websocket::{write_ping, write_text},
};
use hyper::upgrade::OnUpgrade;
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::{
    budget::{Cursor, Taken},
    server::{Gateway, Phase, reached},
    websocket::{Event, Link, code, opened},
};

/// Bytes of frames that wait for one subscriber before it takes further blocks: a few blocks, so that a
/// burst is one write, and little enough for thousands of subscribers that read nothing.
const PENDING_BYTES_MAX: usize = 256 << 10;

/// Bytes that the kernel holds unsent for one subscriber: enough that the network never waits for us. It
/// would take megabytes, for each of thousands, and drop what arrives once its memory for all is used up.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// Blocks behind the head from which a subscriber is told that it lags: more than a burst leaves.
const LAGGING_BLOCKS: u64 = 64;

/// Looks at a subscriber's clocks within the shortest of its timeouts.
const LOOKS_PER_TIMEOUT: u32 = 4;

/// What a subscriber is sent.
pub(crate) trait Feed: Send + Sync + 'static {
    /// The frames of a block, the first `skipped` places of it left out, and how many they are.
    fn frames(&self, published: &Published, skipped: u32) -> (Bytes, u64);

    /// Whether its frames are those of all subscribers, encoded once.
    fn shares_frames(&self) -> bool {
        true
    }

    /// Whether the stream has a heartbeat even for those who asked for no notices.
    fn always_beats(&self) -> bool {
        true
    }

    /// Writes the heartbeat: everything before `next` was delivered.
    fn head(&self, out: &mut Vec<u8>, next: Position) {
        events::head(out, next);
    }

    /// Writes the notice that everything before `next` was delivered and the subscriber is live.
    fn caught_up(&self, out: &mut Vec<u8>, next: Position) {
        events::caught_up(out, next);
    }

    /// Writes the notice that the subscriber is `behind` blocks behind.
    fn lagging(&self, out: &mut Vec<u8>, behind: u64) {
        events::lagging(out, behind);
    }
}

pub(crate) struct Subscriber<F> {
    feed: F,
    notices: bool,
    start: Position,
    delivered: Height,
    lagging: bool,
    gateway: Arc<Gateway>,
}

/// The next block together with the follower that gave it, so that reading from the store goes on
/// while the socket is attended to.
type Fetch = Pin<Box<dyn Future<Output = (Cursor, Result<Taken, FollowError>)> + Send>>;

fn fetch(mut cursor: Cursor) -> Fetch {
    Box::pin(async move {
        let next = cursor.next().await;
        (cursor, next)
    })
}

impl<F: Feed> Subscriber<F> {
    /// A subscriber that begins with `start`.
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        feed: F,
        start: Position,
        notices: bool,
    ) -> Subscriber<F> {
        Subscriber {
            feed,
            notices,
            start,
            delivered: Height(start.height.0.saturating_sub(1)),
            // Whoever starts behind hears when it has everything; so does whoever starts at the head.
            lagging: true,
            gateway: gateway.clone(),
        }
    }

    pub(crate) async fn serve(mut self, upgrade: OnUpgrade, follower: Follower) {
        let Some((socket, input)) = opened(upgrade).await else {
            return;
        };
        socket.limit_unsent(UNSENT_BYTES_MAX);
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
        let cursor = Cursor::new(gateway.clone(), follower, self.feed.shares_frames());
        let unread = cursor.unread().clone();
        let mut fetching = fetch(cursor);
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
                (mut cursor, next) = &mut fetching, if has_room => {
                    match next {
                        Ok(taken) => self.take(&mut link, &mut cursor, taken),
                        Err(FollowError::Stopped) => {
                            return link.close(code::GOING_AWAY, "the node is stopping", false).await;
                        }
                        Err(FollowError::Store(error)) => {
                            tracing::error!(%error, "a stream broke off: the store could not be read");
                            let reason = "the store could not be read";
                            return link.close(code::TRY_AGAIN_LATER, reason, false).await;
                        }
                    }
                    fetching = fetch(cursor);
                }
                () = reached(&mut phase, Phase::Stopping) => {
                    return link.close(code::GOING_AWAY, "the node is stopping", true).await;
                }
                _ = look.tick() => {
                    // A reader may be as slow as it likes until others want the room that it holds.
                    let in_the_way = unread.is_overdue() && gateway.budget.is_short_for_followers();
                    if in_the_way || link.stalled_for() > settings.stall_timeout {
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
    fn take(&mut self, link: &mut Link, cursor: &mut Cursor, mut first: Taken) {
        let mut next = Some(first.block.clone());
        let (mut frames, before) = (0, link.pending_bytes());
        while let Some(published) = next {
            self.delivered = published.block.block.header.height;
            let (bytes, count) = self.feed.frames(&published, self.skipped(&published));
            frames += count;
            link.send(first.hold(bytes));
            next = if link.pending_bytes() < PENDING_BYTES_MAX {
                cursor.try_next()
            } else {
                None
            };
        }
        self.gateway
            .meters
            .streamed(frames, (link.pending_bytes() - before) as u64);
        if self.notices {
            let behind = cursor.follower.behind();
            if self.lagging && behind == 0 {
                self.tell_caught_up(link);
            } else if !self.lagging && behind >= LAGGING_BLOCKS {
                self.lagging = true;
                link.send(framed(|out| self.feed.lagging(out, behind)));
            }
        }
    }

    /// Places of a block that lie before where the subscription begins.
    fn skipped(&self, published: &Published) -> u32 {
        match self.start {
            Position { height, index } if height == published.block.block.header.height => index,
            _ => 0,
        }
    }

    /// Where what was not delivered yet begins.
    fn next(&self) -> Position {
        let behind = Position {
            height: self.delivered.next(),
            index: 0,
        };
        behind.max(self.start)
    }

    fn tell_caught_up(&mut self, link: &mut Link) {
        self.lagging = false;
        let next = self.next();
        link.send(framed(|out| self.feed.caught_up(out, next)));
    }

    fn beat(&self, link: &mut Link) {
        // What is unread proves that the connection is not idle, and a Ping behind it would be as late.
        if link.pending_bytes() > 0 {
            return;
        }
        let mut frame = Vec::new();
        write_ping(&mut frame, b"");
        if self.feed.always_beats() || (self.notices && !self.lagging) {
            let mut payload = Vec::new();
            self.feed.head(&mut payload, self.next());
            write_text(&mut frame, &payload);
        }
        link.send(frame.into());
    }
}

pub(crate) fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let (mut payload, mut frame) = (Vec::new(), Vec::new());
    write(&mut payload);
    write_text(&mut frame, &payload);
    frame.into()
}
