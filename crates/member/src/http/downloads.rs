//! Answers that are made while they are sent: documents, and ledgers whole.
//!
//! Each piece is read in a step of its own on a thread that may block, and waits for its reader in
//! memory, so that a reader that stops holds no thread. It holds its turn, of which there are so many,
//! until its connection is closed: by itself, or by the listener, which waits for no one for long.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time,
};

use http::StatusCode;

use super::{
    Asks, Body, Refused,
    answers::{detail, later},
};
use crate::member::{blocking, stopped};

/// Downloads at once: each holds an open file and about three pieces of it, 64 MB for all.
pub(super) const DOWNLOADS_MAX: usize = 256;
/// Downloads of one caller at once: a browser opens six connections, a program that syncs some more.
pub(super) const OF_ONE_CALLER_MAX: usize = 16;
/// Bytes of a piece.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// Pieces that are read ahead of the connection: the next one, while one is being sent.
const PIECES_WAITING_MAX: usize = 1;
/// How long a reader may take for one piece: at least 2 KB a second.
pub(super) const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// When to come again for a turn: many downloads end meanwhile.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// The downloads under way.
#[derive(Debug)]
pub(super) struct Downloads {
    places: Arc<Semaphore>,
    callers: Arc<Mutex<HashMap<String, usize>>>,
}

/// One download's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    caller: String,
    callers: Arc<Mutex<HashMap<String, usize>>>,
}

/// Why there is no turn now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// This caller has as many as it may.
    OfCaller,
    /// All are taken.
    OfAll,
}

impl Default for Downloads {
    fn default() -> Downloads {
        Downloads {
            places: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            callers: Arc::default(),
        }
    }
}

impl Downloads {
    /// A turn for a caller, who is known by this name.
    pub(super) fn turn(&self, caller: String) -> Result<Turn, NoTurn> {
        let mut callers = self.callers.lock();
        if callers.get(&caller).copied().unwrap_or(0) >= OF_ONE_CALLER_MAX {
            return Err(NoTurn::OfCaller);
        }
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| NoTurn::OfAll)?;
        *callers.entry(caller.clone()).or_default() += 1;
        drop(callers);
        Ok(Turn {
            _place: place,
            caller,
            callers: self.callers.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut callers = self.callers.lock();
        if let Some(count) = callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

impl Asks<'_> {
    /// A turn for whoever asks to download something.
    pub(super) fn turn(&self, caller: String) -> Result<Turn, Refused> {
        let turn = self.hosted.downloads.turn(caller);
        turn.map_err(|none| {
            let refusal = match none {
                NoTurn::OfCaller => detail(
                    StatusCode::TOO_MANY_REQUESTS,
                    "Too many downloads at once: wait until one of yours ends.",
                ),
                NoTurn::OfAll => detail(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Too many downloads at once: try again later.",
                ),
            };
            Box::new(later(refusal, COME_AGAIN))
        })
    }
}

/// A body of what `read` gives, until it gives nothing more. Each call may block.
pub(super) fn body<F>(read: F, turn: Turn, mut stopping: watch::Receiver<bool>) -> Body
where
    F: FnMut() -> io::Result<Option<Bytes>> + Send + 'static,
{
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = send(read, pieces) => {}
            // What is being read must be closed when the member is.
            () = stopped(&mut stopping) => {}
        }
    });
    UnsyncBoxBody::new(Pieces {
        waiting,
        over: false,
        _turn: turn,
    })
}

async fn send<F>(mut read: F, pieces: mpsc::Sender<io::Result<Option<Bytes>>>)
where
    F: FnMut() -> io::Result<Option<Bytes>> + Send + 'static,
{
    loop {
        let (piece, back) = blocking(move || {
            let piece = read();
            (piece, read)
        })
        .await;
        read = back;
        let is_last = !matches!(piece, Ok(Some(_)));
        let sent = time::timeout(PIECE_TIMEOUT, pieces.send(piece)).await;
        if is_last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// What a connection takes its answer from.
struct Pieces {
    /// Pieces, and nothing behind the last one.
    waiting: mpsc::Receiver<io::Result<Option<Bytes>>>,
    over: bool,
    _turn: Turn,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = match ready!(self.waiting.poll_recv(context)) {
            Some(Ok(Some(piece))) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some(Err(error)),
            // The end was not reached, and must not look as if it had been.
            None => Some(Err(io::ErrorKind::TimedOut.into())),
        };
        self.over = true;
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;

    use super::*;

    /// A body of so many pieces, and what tells whether it is still read from.
    fn pieces(count: usize) -> (Body, watch::Sender<bool>, std::sync::Weak<()>, Downloads) {
        let downloads = Downloads::default();
        let turn = downloads.turn("alice".to_owned()).unwrap();
        let (stop, stopping) = watch::channel(false);
        let alive = Arc::new(());
        let held = Arc::downgrade(&alive);
        let mut left = count;
        let read = move || {
            let _alive = &alive;
            let more = left > 0;
            left = left.saturating_sub(1);
            Ok(more.then(|| Bytes::from_static(b"piece")))
        };
        (body(read, turn, stopping), stop, held, downloads)
    }

    /// Waits until what was read from is closed.
    async fn gone(held: &std::sync::Weak<()>) {
        while held.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn all_pieces_come_in_their_order_and_then_the_end() {
        let (body, _stop, _, downloads) = pieces(100);
        let whole = body.collect().await.unwrap().to_bytes();
        assert_eq!(whole, "piece".repeat(100));
        assert_eq!(downloads.places.available_permits(), DOWNLOADS_MAX);
        assert!(downloads.callers.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_left_after_a_time_and_never_told_that_it_was_all() {
        let (mut body, _stop, held, _) = pieces(100);
        body.frame().await.unwrap().unwrap();
        time::sleep(2 * PIECE_TIMEOUT).await;
        gone(&held).await;
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            rest.push(frame.is_ok());
        }
        assert_eq!(rest.last(), Some(&false));
        assert!(rest.len() <= PIECES_WAITING_MAX + 1, "{rest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_its_time_gets_all() {
        let (mut body, _stop, _, _) = pieces(5);
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            count += 1;
            time::sleep(PIECE_TIMEOUT / 2).await;
        }
        assert_eq!(count, 5);
    }

    #[tokio::test]
    async fn a_member_that_stops_closes_what_is_being_read() {
        let (mut body, stop, held, _) = pieces(100);
        body.frame().await.unwrap().unwrap();
        stop.send_replace(true);
        while let Some(Ok(_)) = body.frame().await {}
        gone(&held).await;
    }

    #[test]
    fn a_caller_has_so_many_turns_and_all_callers_have_so_many() {
        let downloads = Downloads::default();
        let mut turns = Vec::new();
        for _ in 0..OF_ONE_CALLER_MAX {
            turns.push(downloads.turn("alice".to_owned()).unwrap());
        }
        let refused = downloads.turn("alice".to_owned());
        assert_eq!(refused.unwrap_err(), NoTurn::OfCaller);
        turns.pop();
        turns.push(downloads.turn("alice".to_owned()).unwrap());
        for number in turns.len()..DOWNLOADS_MAX {
            turns.push(downloads.turn(number.to_string()).unwrap());
        }
        assert_eq!(downloads.turn("bob".to_owned()).unwrap_err(), NoTurn::OfAll);
        turns.clear();
        assert!(downloads.turn("bob".to_owned()).is_ok());
        assert!(downloads.callers.lock().is_empty());
    }
}
