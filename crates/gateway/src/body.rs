//! Bodies: reading a request's within bounds, sending an answer whole or in pieces.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;

use crate::{
    budget::{Budget, Held, SHORT_BYTES_MAX},
    connection::InFlight,
    meters::Meters,
};

/// The body of an answer.
#[derive(Debug, Default)]
pub(crate) struct Body {
    content: Content,
    /// While this lives, the connection counts as busy.
    pub(crate) in_flight: Option<InFlight>,
    /// Counts what is sent.
    pub(crate) meters: Option<Arc<Meters>>,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    Whole(Bytes),
    Pieces {
        first: Bytes,
        rest: mpsc::Receiver<Piece>,
    },
    Guest(UnsyncBoxBody<Bytes, io::Error>),
}

/// A piece of an answer that is made while it is sent; an error breaks the connection off, so that
/// the client sees that something is missing.
pub(crate) type Piece = Result<Bytes, Broken>;

/// An answer could not be finished.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer could not be finished")]
pub(crate) struct Broken;

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Body {
        Body {
            content: Content::Whole(bytes),
            ..Body::default()
        }
    }

    /// The body of a guest's answer.
    pub(crate) fn of_guest(body: UnsyncBoxBody<Bytes, io::Error>) -> Body {
        Body {
            content: Content::Guest(body),
            ..Body::default()
        }
    }

    pub(crate) fn pieces(first: Bytes, rest: mpsc::Receiver<Piece>) -> Body {
        Body {
            content: Content::Pieces { first, rest },
            ..Body::default()
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = match &mut self.content {
            Content::Empty => None,
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                (!bytes.is_empty()).then_some(Ok(bytes))
            }
            Content::Pieces { first, rest } => {
                if first.is_empty() {
                    match rest.poll_recv(context) {
                        Poll::Ready(piece) => piece,
                        Poll::Pending => return Poll::Pending,
                    }
                } else {
                    Some(Ok(std::mem::take(first)))
                }
            }
            Content::Guest(body) => match Pin::new(body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => None,
                // Trailers are nothing that a guest sends.
                Poll::Ready(Some(Ok(frame))) => Some(Ok(frame.into_data().unwrap_or_default())),
                Poll::Ready(Some(Err(_))) => Some(Err(Broken)),
            },
        };
        match (&frame, &self.meters) {
            (Some(Ok(bytes)), Some(meters)) => meters.sent_bytes(bytes.len()),
            (Some(Err(_)) | None, _) => self.in_flight = None,
            _ => {}
        }
        Poll::Ready(frame.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Pieces { .. } => false,
            Content::Guest(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pieces { .. } => SizeHint::default(),
            Content::Guest(body) => body.size_hint(),
        }
    }
}

/// Why a request's body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is longer than the limit.
    TooLong,
    /// It came too slowly.
    TooSlow,
    /// The client broke it off.
    Broken,
    /// There is no room for it now.
    NoRoom,
}

/// Bodies up to this many bytes are copied out of the connection's buffer. A piece of that buffer would
/// keep all of it alive for as long as the transaction is in memory, several times its size, and the
/// connection would need a new one for its next request.
const COPIED_BYTES_MAX: usize = SHORT_BYTES_MAX;

/// Reads a whole body of at most `bytes_max` bytes within `timeout`, and gives it with its room in the
/// budget; `None` for an empty one.
pub(crate) async fn read_whole(
    body: Incoming,
    budget: &Budget,
    bytes_max: usize,
    timeout: Duration,
) -> Result<(Bytes, Option<Held>), Unread> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Unread::TooLong);
    }
    tokio::time::timeout(timeout, collect(body, budget, bytes_max))
        .await
        .unwrap_or(Err(Unread::TooSlow))
}

async fn collect(
    mut body: Incoming,
    budget: &Budget,
    bytes_max: usize,
) -> Result<(Bytes, Option<Held>), Unread> {
    let mut held = None;
    let mut first = Bytes::new();
    while first.is_empty() {
        match next(&mut body).await? {
            Some(piece) => first = piece,
            None => return Ok((first, None)),
        }
    }
    let mut hold = |bytes: usize| {
        let there = budget.try_resize(&mut held, bytes);
        there.then_some(()).ok_or(Unread::NoRoom)
    };
    hold(first.len().min(bytes_max))?;
    if body.is_end_stream() && first.len() <= bytes_max {
        let copied = first.len() <= COPIED_BYTES_MAX;
        let whole = if copied {
            Bytes::copy_from_slice(&first)
        } else {
            first
        };
        return Ok((whole, held));
    }
    // What is told of the length is believed only as far as the body has come: room doubles up to it.
    let told = body.size_hint().exact().map_or(usize::MAX, |rest| {
        usize::try_from(rest).map_or(usize::MAX, |rest| rest.saturating_add(first.len()))
    });
    // A copy, for the same reason.
    let mut whole = first.to_vec();
    drop(first);
    while whole.len() <= bytes_max {
        let Some(piece) = next(&mut body).await? else {
            return Ok((whole.into(), held));
        };
        let needed = whole.len() + piece.len();
        if needed > whole.capacity() {
            let room = (2 * whole.capacity()).min(told).max(needed);
            hold(room)?;
            whole.reserve_exact(room - whole.len());
        }
        whole.extend_from_slice(&piece);
    }
    Err(Unread::TooLong)
}

/// The next piece of a body; `None` at its end. Trailers are read over.
pub(crate) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Unread> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Unread::Broken),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
