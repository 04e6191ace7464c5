//! `POST /api/v1/transactions/batch`: newline-delimited transactions in, one result per line out, both
//! at the same time.
//!
//! Two tasks share the work. One cuts the upload into lines and hands them to the node in runs. Each line
//! is a copy: a part of the upload would keep the piece that it came in for as long as the transaction is in
//! memory, whatever else the piece held. The other collects outcomes, which come in any
//! order, and writes them in the order of the lines. Their window is bounded: a client that sends
//! without reading its results is made to wait.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use daybook_ledger::{Rejection, RejectionClass};
use daybook_pipeline::{Acknowledge, Outcome, Outcomes, Submitter};
use daybook_wire::assets::{
    Label, Query, accepted_line, busy_line, committed_line, level, rejected_line, stopped_line,
};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use super::{Handled, acknowledge};
use crate::{
    body::{self, Body, Piece},
    budget::Held,
    connection::Connection,
    reply::with_type,
    server::{Gateway, Phase, reached},
};

/// Lines of one batch that are under way or whose results wait to be sent: enough to fill several
/// blocks, about 1 MB of results, or 5 MB of long refusals.
const LINES_UNDER_WAY_MAX: usize = 8_192;

/// Lines handed to the node at once: a share of the window, so that results come back meanwhile.
const RUN_LINES_MAX: usize = 1_024;

/// White space around a transaction that a line may have beyond the largest transaction.
const LINE_SPACE_MAX: usize = 64;

/// Bytes of results that are gathered before they are handed on.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces of results that wait for the client to read.
const PIECES_WAITING_MAX: usize = 4;

/// Lines that were answered before they came to the node and whose results wait.
const NOTES_WAITING_MAX: usize = 64;

/// JSON lines, one value each.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

pub(super) fn post(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Handled {
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let acknowledge = acknowledge(level(&query)?);
    query.refuse_unknown(&["ack"])?;
    let (submitter, outcomes) = gateway.node.submitter(LINES_UNDER_WAY_MAX);
    let (notes, noted) = mpsc::channel(NOTES_WAITING_MAX);
    let (pieces, sent) = mpsc::channel(PIECES_WAITING_MAX);
    let room = Arc::new(Semaphore::new(LINES_UNDER_WAY_MAX));
    let upload = Upload {
        gateway: gateway.clone(),
        connection: connection.clone(),
        acknowledge,
        submitter,
        notes,
        room: room.clone(),
        cutter: Cutter::new(gateway.settings.transaction_bytes_max + LINE_SPACE_MAX),
        held: None,
        begun: None,
        next: 0,
    };
    tokio::spawn(upload.run(body));
    tokio::spawn(write_results(outcomes, noted, pieces, room));
    Ok(with_type(
        StatusCode::OK,
        NDJSON,
        Body::pieces(Bytes::new(), sent),
    ))
}

/// What is known of a line without asking the node.
enum Note {
    /// It is blank and has no result.
    Blank,
    /// It is longer than a transaction may be.
    TooLong,
    /// There was no room for it.
    NoRoom,
    /// The node is stopping: lines up to this one that have no outcome will not get one.
    Stopped,
}

struct Upload {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    acknowledge: Acknowledge,
    submitter: Submitter,
    notes: mpsc::Sender<(u64, Note)>,
    room: Arc<Semaphore>,
    cutter: Cutter,
    /// Room for the line that is begun, and for those that are cut and not handed over yet.
    held: Option<Held>,
    /// Since when the rest of the line that is begun is waited for.
    begun: Option<Instant>,
    /// Number of the next line, from 0.
    next: u64,
}

impl Upload {
    async fn run(mut self, mut body: Incoming) {
        let patience = self.gateway.settings.body_timeout;
        let mut phase = self.gateway.phase.clone();
        let mut lines = Vec::new();
        loop {
            // Whoever begins a line holds room that others want, and may not make it last.
            let until = self.begun.unwrap_or_else(Instant::now) + patience;
            let piece = tokio::select! {
                piece = timeout_at(until, body::next(&mut body)) => piece,
                () = reached(&mut phase, Phase::Stopping) => return,
            };
            let ended = match piece {
                Ok(Ok(Some(piece))) => {
                    self.cutter.cut(&piece, &mut lines);
                    false
                }
                Ok(Ok(None)) => {
                    self.cutter.end(&mut lines);
                    true
                }
                // What came is answered; what did not come cannot be.
                Ok(Err(_)) | Err(_) => return,
            };
            self.hold(&mut lines);
            let is_another = !lines.is_empty();
            if !self.submit(&mut lines).await || ended {
                return;
            }
            self.hold(&mut lines);
            self.begun = match self.begun {
                _ if self.cutter.begun.is_empty() => None,
                // Bytes that are always there are no excuse for a line that never ends.
                Some(since) if !is_another && since.elapsed() > patience => return,
                Some(since) if !is_another => Some(since),
                _ => Some(Instant::now()),
            };
        }
    }

    /// Takes room for what is in memory. What finds none is thrown away: first lines that are whole, then the
    /// one that is begun.
    fn hold(&mut self, lines: &mut [Line]) {
        let budget = &self.gateway.budget;
        let begun = self.cutter.begun.capacity();
        let whole: usize = lines.iter().map(Line::bytes).sum();
        if budget.try_resize(&mut self.held, begun + whole) {
            return;
        }
        let texts = lines.iter_mut().filter(|line| line.bytes() > 0);
        texts.for_each(|line| *line = Line::NoRoom);
        if !budget.try_resize(&mut self.held, begun) {
            self.cutter.drop_line();
            self.held = None;
        }
    }

    /// Hands lines over in order, in runs for which there is room. False when nobody wants results any
    /// more or the node is stopping.
    async fn submit(&mut self, lines: &mut Vec<Line>) -> bool {
        self.gateway.meters.bulk_lines.increment(lines.len() as u64);
        let mut lines = lines.drain(..);
        while lines.len() > 0 {
            let count = lines.len().min(RUN_LINES_MAX) as u32;
            self.gateway.pay(self.connection.peer, count).await;
            // Room is given back when results are written, and is closed when they cannot be.
            match self.room.acquire_many(count).await {
                Ok(room) => room.forget(),
                Err(_) => return false,
            }
            let mut run = Vec::with_capacity(count as usize);
            for line in lines.by_ref().take(count as usize) {
                let number = self.next;
                self.next += 1;
                let note = match line {
                    Line::Text(text) => {
                        run.push((number, text));
                        continue;
                    }
                    Line::Blank => Note::Blank,
                    Line::TooLong => Note::TooLong,
                    Line::NoRoom => Note::NoRoom,
                };
                if self.notes.send((number, note)).await.is_err() {
                    return false;
                }
            }
            if !self.submitter.submit_all(run, self.acknowledge).await {
                let _ = self.notes.send((self.next - 1, Note::Stopped)).await;
                return false;
            }
        }
        true
    }
}

enum Line {
    Text(Bytes),
    Blank,
    TooLong,
    NoRoom,
}

impl Line {
    fn bytes(&self) -> usize {
        match self {
            Line::Text(text) => text.len(),
            Line::Blank | Line::TooLong | Line::NoRoom => 0,
        }
    }
}

/// Cuts pieces of a stream into lines.
struct Cutter {
    /// The beginning of a line whose end has not come yet.
    begun: BytesMut,
    /// The line under way is not kept, for this reason; the rest of it is thrown away.
    skipping: Option<Skipped>,
    line_bytes_max: usize,
}

#[derive(Clone, Copy)]
enum Skipped {
    TooLong,
    NoRoom,
}

impl Cutter {
    fn new(line_bytes_max: usize) -> Cutter {
        Cutter {
            begun: BytesMut::new(),
            skipping: None,
            line_bytes_max,
        }
    }

    fn cut(&mut self, mut piece: &[u8], lines: &mut Vec<Line>) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            self.line(&piece[..end], lines);
            piece = &piece[end + 1..];
        }
        if self.skipping.is_some() {
            return;
        }
        if self.begun.len() + piece.len() > self.line_bytes_max {
            self.skipping = Some(Skipped::TooLong);
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    /// There is no room for the line that is begun.
    fn drop_line(&mut self) {
        self.skipping = Some(Skipped::NoRoom);
        self.begun = BytesMut::new();
    }

    /// The stream is over: what was begun is the last line.
    fn end(&mut self, lines: &mut Vec<Line>) {
        if self.skipping.is_some() || !self.begun.is_empty() {
            self.line(&[], lines);
        }
    }

    fn line(&mut self, end: &[u8], lines: &mut Vec<Line>) {
        let too_long = self.begun.len() + end.len() > self.line_bytes_max;
        if let Some(why) = self
            .skipping
            .take()
            .or(too_long.then_some(Skipped::TooLong))
        {
            self.begun = BytesMut::new();
            return lines.push(match why {
                Skipped::TooLong => Line::TooLong,
                Skipped::NoRoom => Line::NoRoom,
            });
        }
        let text = if self.begun.is_empty() {
            end.trim_ascii()
        } else {
            self.begun.extend_from_slice(end);
            self.begun.trim_ascii()
        };
        lines.push(match text {
            [] => Line::Blank,
            text => Line::Text(Bytes::copy_from_slice(text)),
        });
        self.begun = BytesMut::new();
    }
}

/// The results of lines in order, each in its place as soon as it is known.
#[derive(Default)]
struct Results {
    places: VecDeque<Option<Known>>,
    /// Number of the first place.
    first: u64,
}

enum Known {
    Outcome(Outcome),
    Blank,
    TooLong,
}

impl Results {
    fn put(&mut self, number: u64, known: Known) {
        let place = (number - self.first) as usize;
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(known);
    }

    fn is_unknown(&self, number: u64) -> bool {
        !matches!(
            self.places.get((number - self.first) as usize),
            Some(Some(_))
        )
    }

    /// Writes what is next in order until the piece is full. Returns how many places became free.
    fn write(&mut self, out: &mut Vec<u8>) -> usize {
        let before = self.first;
        while out.len() < PIECE_BYTES
            && let Some(Some(_)) = self.places.front()
        {
            let known = self
                .places
                .pop_front()
                .flatten()
                .expect("the front was just seen");
            let label = Label::Line(self.first);
            self.first += 1;
            match known {
                Known::Blank => continue,
                Known::Outcome(outcome) => write_outcome(out, label, &outcome),
                Known::TooLong => rejected_line(out, label, None, &too_large()),
            }
            out.push(b'\n');
        }
        (self.first - before) as usize
    }
}

fn too_large() -> Rejection {
    Rejection::new(
        RejectionClass::TooLarge,
        "the line is longer than `max_transaction_size`",
    )
}

/// Appends the result of one submission.
pub(super) fn write_outcome(out: &mut Vec<u8>, label: Label<'_>, outcome: &Outcome) {
    match outcome {
        Outcome::Accepted { id } => accepted_line(out, label, id),
        Outcome::Committed {
            id,
            position,
            repeated,
        } => {
            committed_line(out, label, id, *position, *repeated);
        }
        Outcome::Rejected { id, rejection } => rejected_line(out, label, id.as_ref(), rejection),
        Outcome::Busy => busy_line(out, label),
        Outcome::Stopped => stopped_line(out, label),
    }
}

async fn write_results(
    mut outcomes: Outcomes,
    mut notes: mpsc::Receiver<(u64, Note)>,
    pieces: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
) {
    // Closed when this ends for whatever reason, so that the upload ends too.
    let room = CloseOnDrop(room);
    let mut results = Results::default();
    let mut arrived = Vec::new();
    let mut out = Vec::new();
    let mut more = (true, true);
    while more != (false, false) {
        tokio::select! {
            there = outcomes.next(&mut arrived), if more.0 => more.0 = there,
            note = notes.recv(), if more.1 => match note {
                Some((number, Note::Blank)) => results.put(number, Known::Blank),
                Some((number, Note::TooLong)) => results.put(number, Known::TooLong),
                Some((number, Note::NoRoom)) => {
                    results.put(number, Known::Outcome(Outcome::Busy));
                }
                Some((last, Note::Stopped)) => {
                    // What was taken before the stop is still answered.
                    while outcomes.next(&mut arrived).await {}
                    more.0 = false;
                    take(&mut results, &mut arrived);
                    for number in results.first..=last {
                        if results.is_unknown(number) {
                            results.put(number, Known::Outcome(Outcome::Stopped));
                        }
                    }
                }
                None => more.1 = false,
            },
            // The client is gone.
            () = pieces.closed() => return,
        }
        take(&mut results, &mut arrived);
        loop {
            let freed = results.write(&mut out);
            if out.is_empty() {
                room.0.add_permits(freed);
                break;
            }
            let piece = std::mem::take(&mut out);
            if pieces.send(Ok(piece.into())).await.is_err() {
                return;
            }
            // Only now: what waits for the client counts as under way.
            room.0.add_permits(freed);
        }
    }
}

fn take(results: &mut Results, arrived: &mut Vec<(u64, Outcome)>) {
    for (number, outcome) in arrived.drain(..) {
        results.put(number, Known::Outcome(outcome));
    }
}

struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], line_bytes_max: usize) -> Vec<Option<Vec<u8>>> {
        let mut cutter = Cutter::new(line_bytes_max);
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.cut(piece, &mut lines);
        }
        cutter.end(&mut lines);
        lines
            .into_iter()
            .map(|line| match line {
                Line::Text(text) => Some(text.to_vec()),
                Line::Blank => Some(Vec::new()),
                Line::TooLong | Line::NoRoom => None,
            })
            .collect()
    }

    #[test]
    fn lines_end_at_newlines_and_the_last_one_at_the_end() {
        let some = |text: &[u8]| Some(text.to_vec());
        assert_eq!(
            cut(&[b"a\nb\r\n", b"\nc"], 9),
            [some(b"a"), some(b"b"), some(b""), some(b"c")]
        );
        assert_eq!(cut(&[b"a", b"b", b"c\n"], 9), [some(b"abc")]);
        assert_eq!(cut(&[b""], 9), []);
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let long = [b'x'; 100];
        let lines = cut(&[b"a\n", &long, &long, b"\nb\n", &long], 10);
        assert_eq!(
            lines,
            [Some(b"a".to_vec()), None, Some(b"b".to_vec()), None]
        );
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_does_not_matter(
            text in prop::collection::vec(prop::sample::select(b"ab \n\r".to_vec()), 0..200),
            ends in prop::collection::vec(0usize..200, 0..8),
            line_bytes_max in 1usize..20,
        ) {
            let whole = cut(&[&text], line_bytes_max);
            let mut ends: Vec<usize> = ends.into_iter().map(|end| end.min(text.len())).collect();
            ends.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for end in ends {
                pieces.push(&text[start..end]);
                start = end;
            }
            pieces.push(&text[start..]);
            prop_assert_eq!(cut(&pieces, line_bytes_max), whole);
        }
    }
}
