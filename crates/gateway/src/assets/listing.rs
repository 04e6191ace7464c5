//! Lists of any length in bounded memory: made on a thread that may wait for the disk, sent in pieces.
//! A list that fits one piece is an ordinary answer.
//!
//! A thread works for one who reads: not for a client that has left, nor for one that reads so slowly
//! that others would wait for its turn for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use daybook_store::{Store, StoreError};
use http::StatusCode;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::turns::Turn;
use crate::{
    Settings,
    body::{Body, Broken, Piece},
    connection::Connection,
    reply::{JSON, Reply, fault, json_within, not_found, unavailable, with_type},
    server::Gateway,
};

/// Bytes of one piece: large enough that sending costs little.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 4;

/// Where a list is written. Every element is followed by a comma; the last one is taken back.
pub(crate) struct Sink {
    pub(crate) buffer: Vec<u8>,
    pieces: mpsc::Sender<Produced>,
}

enum Produced {
    Whole(Bytes),
    Piece(Bytes),
    Failed(StoreError),
    /// It took longer than a list may.
    Overdue,
}

impl Sink {
    /// Sends what is gathered if it is enough for a piece. False when nobody reads any more.
    pub(crate) fn go_on(&mut self) -> bool {
        self.buffer.len() < PIECE_BYTES || self.flush()
    }

    fn flush(&mut self) -> bool {
        let comma = self.buffer.last() == Some(&b',');
        if comma {
            self.buffer.pop();
        }
        let mut next = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if comma {
            next.push(b',');
        }
        let piece = std::mem::replace(&mut self.buffer, next);
        self.pieces
            .blocking_send(Produced::Piece(piece.into()))
            .is_ok()
    }

    /// Takes back the comma behind the last element.
    pub(crate) fn end_elements(&mut self) {
        if self.buffer.last() == Some(&b',') {
            self.buffer.pop();
        }
    }
}

/// Answers with what `produce` writes. It runs on a thread of its own and stops when
/// [`Sink::go_on`] says so; its store asks before every candidate whether the client still reads.
pub(crate) async fn answer(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    produce: impl FnOnce(&Store, &mut Sink) -> Result<(), StoreError> + Send + 'static,
) -> Reply {
    let Some(turn) = gateway.lists.take(connection.peer).await else {
        return unavailable("Too many lists are being read");
    };
    let turn = Arc::new(turn);
    let (pieces, mut produced) = mpsc::channel(1);
    let overdue = Arc::new(AtomicBool::new(false));
    let until = Instant::now() + gateway.settings.list_timeout;
    let store = gateway.node.store().while_wanted({
        let (pieces, overdue) = (pieces.clone(), overdue.clone());
        move || {
            let late = Instant::now() > until;
            if late {
                overdue.store(true, Relaxed);
            }
            !late && !pieces.is_closed()
        }
    });
    tokio::task::spawn_blocking({
        let turn = turn.clone();
        move || {
            let _turn = turn;
            let mut sink = Sink {
                buffer: Vec::with_capacity(1 << 10),
                pieces,
            };
            let last = match produce(&store, &mut sink) {
                Err(error) => Produced::Failed(error),
                Ok(()) if overdue.load(Relaxed) => Produced::Overdue,
                Ok(()) => Produced::Whole(sink.buffer.into()),
            };
            let _ = sink.pieces.blocking_send(last);
        }
    });
    match produced.recv().await {
        Some(Produced::Whole(body)) => json_within(&gateway.budget, StatusCode::OK, body),
        Some(Produced::Piece(first)) => {
            let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
            let forward = Forward {
                sender,
                pace: Pace::new(&gateway.settings),
                connection: connection.clone(),
                _turn: turn,
            };
            tokio::spawn(forward.run(produced));
            with_type(StatusCode::OK, JSON, Body::pieces(first, pieces))
        }
        Some(Produced::Failed(error)) => fault(&error),
        Some(Produced::Overdue) => unavailable("The list takes too long"),
        None => unavailable("The list could not be made"),
    }
}

/// One answer that is read from the disk; 404 when there is none.
pub(crate) async fn one(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    look: impl FnOnce(&Store) -> Result<Option<Vec<u8>>, StoreError> + Send + 'static,
) -> Reply {
    let missing = Arc::new(AtomicBool::new(false));
    let found = answer(gateway, connection, {
        let missing = missing.clone();
        move |store, sink| {
            match look(store)? {
                Some(body) => sink.buffer = body,
                None => missing.store(true, Relaxed),
            }
            Ok(())
        }
    })
    .await;
    match missing.load(Relaxed) {
        true => not_found(),
        false => found,
    }
}

/// A JSON array of what `produce` writes.
pub(crate) async fn array(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    produce: impl FnOnce(&Store, &mut Sink) -> Result<(), StoreError> + Send + 'static,
) -> Reply {
    answer(gateway, connection, move |store, sink| {
        sink.buffer.push(b'[');
        produce(store, sink)?;
        sink.end_elements();
        sink.buffer.push(b']');
        Ok(())
    })
    .await
}

/// Hands pieces on to the connection.
struct Forward {
    sender: mpsc::Sender<Piece>,
    pace: Pace,
    connection: Arc<Connection>,
    /// Held until the last piece is handed on: those that wait for the client count too.
    _turn: Arc<Turn>,
}

impl Forward {
    async fn run(mut self, mut produced: mpsc::Receiver<Produced>) {
        let mut ended = false;
        while let Some(next) = produced.recv().await {
            let piece = match next {
                Produced::Piece(piece) => Ok(piece),
                Produced::Whole(last) => {
                    ended = true;
                    Ok(last)
                }
                Produced::Failed(error) => {
                    tracing::error!(%error, "a list broke off: the store could not be read");
                    Err(Broken)
                }
                Produced::Overdue => {
                    tracing::warn!(peer = %self.connection.peer, "a list broke off: it took too long");
                    Err(Broken)
                }
            };
            ended |= piece.is_err();
            if !self.send(piece).await {
                return;
            }
        }
        if !ended {
            // The thread is gone without a last word: the client must not take the list for whole.
            self.send(Err(Broken)).await;
        }
    }

    /// False when the client left or is too slow, which ends its connection.
    async fn send(&mut self, piece: Piece) -> bool {
        let bytes = piece.as_ref().map_or(0, Bytes::len);
        let began = Instant::now();
        match timeout(self.pace.patience(), self.sender.send(piece)).await {
            Ok(sent) => {
                self.pace.sent(bytes, began.elapsed());
                sent.is_ok()
            }
            Err(_) => {
                self.connection.cut("a list was read too slowly");
                false
            }
        }
    }
}

/// How slowly a list may be read: the time that is spent waiting for the client is held against what
/// the client took.
struct Pace {
    /// How much longer the client may be waited for.
    left: Duration,
    bytes_per_second_min: f64,
}

impl Pace {
    fn new(settings: &Settings) -> Pace {
        Pace {
            left: settings.list_patience,
            bytes_per_second_min: settings.list_rate_min.max(1) as f64,
        }
    }

    fn patience(&self) -> Duration {
        self.left
    }

    fn sent(&mut self, bytes: usize, waited: Duration) {
        let earned = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second_min);
        self.left = self.left.saturating_sub(waited) + earned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_may_be_slow_for_a_while_but_not_in_the_long_run() {
        let mut pace = Pace::new(&Settings {
            list_patience: Duration::from_secs(10),
            list_rate_min: 1_000,
            ..Settings::default()
        });
        pace.sent(2_000, Duration::from_secs(9));
        assert_eq!(pace.patience(), Duration::from_secs(3));
        pace.sent(1_000, Duration::from_secs(1));
        assert_eq!(pace.patience(), Duration::from_secs(3), "exactly the rate");
        pace.sent(1_000, Duration::from_secs(3));
        assert_eq!(pace.patience(), Duration::from_secs(1), "slower");
    }
}
