//! Lists of any length in bounded memory: made on a thread that may wait for the disk, sent in pieces.
//! A list that fits one piece is an ordinary answer.

use bytes::Bytes;
use daybook_store::{Store, StoreError};
use http::StatusCode;
use tokio::sync::mpsc;

use crate::{
    body::{Body, Broken, Piece},
    reply::{JSON, Reply, fault, json, unavailable, with_type},
    server::Gateway,
};

/// Bytes of one piece: large enough that sending costs little.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 4;

/// Lists that are made at once: each holds a thread and a few pieces while it is read.
pub(crate) const LISTS_MAX: usize = 64;

/// How long a list waits for others to end before the client is asked to come again.
const TURN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Where a list is written. Every element is followed by a comma; the last one is taken back.
pub(super) struct Sink {
    pub(super) buffer: Vec<u8>,
    pieces: mpsc::Sender<Produced>,
}

enum Produced {
    Whole(Bytes),
    Piece(Bytes),
    Failed(StoreError),
}

impl Sink {
    /// Sends what is gathered if it is enough for a piece. False when nobody reads any more.
    pub(super) fn go_on(&mut self) -> bool {
        self.buffer.len() < PIECE_BYTES || self.flush()
    }

    /// True when nobody reads any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.pieces.is_closed()
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
    pub(super) fn end_elements(&mut self) {
        if self.buffer.last() == Some(&b',') {
            self.buffer.pop();
        }
    }
}

/// Answers with what `produce` writes. It runs on a thread of its own and stops when
/// [`Sink::go_on`] says so.
pub(super) async fn answer(
    gateway: &Gateway,
    produce: impl FnOnce(&Store, &mut Sink) -> Result<(), StoreError> + Send + 'static,
) -> Reply {
    let turn = tokio::time::timeout(TURN_TIMEOUT, gateway.lists.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return unavailable("Too many lists are being read");
    };
    let (pieces, mut produced) = mpsc::channel(1);
    let store = gateway.node.store().clone();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut sink = Sink {
            buffer: Vec::with_capacity(1 << 10),
            pieces,
        };
        let last = match produce(&store, &mut sink) {
            Ok(()) => Produced::Whole(sink.buffer.into()),
            Err(error) => Produced::Failed(error),
        };
        let _ = sink.pieces.blocking_send(last);
    });
    match produced.recv().await {
        Some(Produced::Whole(body)) => json(StatusCode::OK, body),
        Some(Produced::Piece(first)) => {
            with_type(StatusCode::OK, JSON, Body::pieces(first, forward(produced)))
        }
        Some(Produced::Failed(error)) => fault(&error),
        None => unavailable("The list could not be made"),
    }
}

/// A JSON array of what `produce` writes.
pub(super) async fn array(
    gateway: &Gateway,
    produce: impl FnOnce(&Store, &mut Sink) -> Result<(), StoreError> + Send + 'static,
) -> Reply {
    answer(gateway, move |store, sink| {
        sink.buffer.push(b'[');
        produce(store, sink)?;
        sink.end_elements();
        sink.buffer.push(b']');
        Ok(())
    })
    .await
}

fn forward(mut produced: mpsc::Receiver<Produced>) -> mpsc::Receiver<Piece> {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(async move {
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
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        if !ended {
            // The thread is gone without a last word: the client must not take the list for whole.
            let _ = sender.send(Err(Broken)).await;
        }
    });
    pieces
}
