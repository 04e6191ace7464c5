//! The general event stream as server-sent events (HTML standard, section 9.2).

use std::sync::Arc;

use bytes::Bytes;
use daybook_ledger::{Height, Position, block::Entry};
use daybook_pipeline::FollowError;
use daybook_wire::events;
use http::{HeaderValue, StatusCode, header};
use tokio::{
    sync::mpsc,
    time::{self, Instant, MissedTickBehavior},
};

use super::{SERVER_SENT_FRAMES, Shown};
use crate::{
    body::{Body, Piece},
    budget::{Cursor, Taken, Unread},
    connection::{Connection, LOOK_INTERVAL},
    reply::{Reply, with_type},
    server::{Gateway, Phase, reached},
};

/// The type of server-sent events; always UTF-8.
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Blocks of events that wait for a slow reader; the rest waits in the store.
const PIECES_WAITING_MAX: usize = 4;

/// Tells the client that it is subscribed, and how long to wait before it comes again, in milliseconds.
const GREETING: &[u8] = b": subscribed\nretry: 1000\n\n";

/// Answers with a stream that begins with `start`. A reader that takes nothing is cut off by the
/// connection's own clock, and comes back with `Last-Event-ID`.
pub(super) fn stream(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    shown: Shown,
    notices: bool,
    start: Position,
) -> Reply {
    let (pieces, body) = mpsc::channel(PIECES_WAITING_MAX);
    let follower = gateway.node.follow(start.height);
    let sender = Sender {
        pieces,
        shown,
        notices,
        start,
        next: start,
    };
    let gateway = gateway.clone();
    let mut cursor = Cursor::new(gateway.clone(), follower, sender.shown.shares_frames());
    let watching = too_slow(gateway.clone(), cursor.unread().clone());
    let connection = connection.clone();
    let serving = gateway.clone();
    let stream = async move {
        let _present = gateway.meters.subscriber();
        let mut sender = sender;
        let mut phase = gateway.phase.clone();
        let mut beat = time::interval_at(
            Instant::now() + gateway.settings.ping_interval,
            gateway.settings.ping_interval,
        );
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = !sender.notices;
        loop {
            if !told && cursor.follower.behind() == 0 {
                told = true;
                let next = sender.next;
                if !sender.notice(|out| events::caught_up(out, next)).await {
                    return;
                }
            }
            let going_on = tokio::select! {
                next = cursor.next() => match next {
                    Ok(taken) => sender.block(&gateway, taken).await,
                    Err(FollowError::Stopped) => false,
                    Err(FollowError::Store(error)) => {
                        tracing::error!(%error, "a stream broke off: the store could not be read");
                        false
                    }
                },
                _ = beat.tick() => {
                    let next = sender.next;
                    sender.notice(|out| events::head(out, next)).await
                }
                () = sender.pieces.closed() => false,
                () = reached(&mut phase, Phase::Stopping) => false,
            };
            if !going_on {
                return;
            }
        }
    };
    serving.streams.spawn(async move {
        tokio::select! {
            () = stream => {}
            () = watching => connection.cut("events were read too slowly"),
        }
    });
    let mut reply = with_type(
        StatusCode::OK,
        EVENT_STREAM,
        Body::pieces(Bytes::from_static(GREETING), body),
    );
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// Ends when the reader holds room that others want and should have read what is in it by now.
async fn too_slow(gateway: Arc<Gateway>, unread: Arc<Unread>) {
    let mut look = time::interval(LOOK_INTERVAL);
    loop {
        look.tick().await;
        if unread.is_overdue() && gateway.budget.is_short_for_followers() {
            return;
        }
    }
}

struct Sender {
    pieces: mpsc::Sender<Piece>,
    shown: Shown,
    notices: bool,
    start: Position,
    /// Where what was not delivered yet begins.
    next: Position,
}

impl Sender {
    /// Sends a block's events; waits for a slow reader. False when nobody reads any more.
    async fn block(&mut self, gateway: &Gateway, mut taken: Taken) -> bool {
        let published = taken.block.clone();
        let height = published.block.block.header.height;
        let skipped = if height == self.start.height {
            self.start.index
        } else {
            0
        };
        let (frames, count) = self
            .shown
            .frames(&published, SERVER_SENT_FRAMES, skipped, write);
        self.next = Position {
            height: Height(height.0.saturating_add(1)),
            index: 0,
        };
        gateway.meters.streamed(count, frames.len() as u64);
        let frames = taken.hold(frames);
        frames.is_empty() || self.pieces.send(Ok(frames)).await.is_ok()
    }

    async fn notice(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut frame = b"event: notice\ndata: ".to_vec();
        write(&mut frame);
        frame.extend_from_slice(b"\n\n");
        self.pieces.send(Ok(frame.into())).await.is_ok()
    }
}

/// One event: its JSON has no line breaks.
fn write(out: &mut Vec<u8>, position: Position, entry: &Entry, payload: &[u8]) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(position.to_string().as_bytes());
    out.extend_from_slice(b"\nevent: ");
    out.extend_from_slice(events::kind(entry).as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\n\n");
}
