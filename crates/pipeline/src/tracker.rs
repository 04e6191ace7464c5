//! Requests to the tracker on their way: proven on the verifiers' threads beside the asset
//! transactions, decided in order, answered on the verifiers' threads again, because answers are signed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use daybook_ledger::{
    Position, SigningKey,
    tracker::{Entry, Proven, Refusal, Request, Suites, TrackerId},
};

use crate::pool::Permit;

/// What the pipeline must know to run a tracker.
#[derive(Clone)]
pub struct TrackerOptions {
    /// Suites of signatures that are taken.
    pub suites: Suites,
    /// The names of the tracker's keys, one of which messages of version 2 carry.
    pub ids: Vec<TrackerId>,
    /// The key that holds the tracker's tokens and signs payouts.
    pub holder: SigningKey,
}

/// What became of a request to the tracker.
#[derive(Debug)]
pub enum TrackerAnswer {
    /// It is sound and changes nothing: read and reply.
    Query(Box<Proven>),
    /// It is recorded in a durable block.
    Recorded {
        /// The record of it.
        entry: Arc<Entry>,
        /// Its place; `None` when it was recorded by an earlier request that this one repeats.
        position: Option<Position>,
    },
    /// It changes nothing, because it may not be.
    Refused(Refusal),
}

/// Who waits for a [`TrackerAnswer`]. It is answered on one of the verifiers' threads, where signing is
/// in place and waiting is not. Dropped unanswered when the node stops: then the outcome is unknown.
pub trait TrackerCaller: Send {
    /// Takes the answer. Returns whom to wake so that it is sent, unless that is done already: a
    /// verifier gives several answers and then wakes.
    fn answer(self: Box<Self>, answer: TrackerAnswer) -> Option<Arc<dyn Wake>>;
}

/// Who sends what was answered.
pub trait Wake: Send + Sync {
    /// Answers are there to be sent.
    fn wake(&self);
}

/// How long answers gather before they are sent. A signature with RSA takes a third of a millisecond,
/// and a thread that is woken for each takes a tenth of it.
const GATHER: Duration = Duration::from_millis(2);

/// Those to wake for answers given one after another.
#[derive(Default)]
pub(crate) struct Wakes {
    waiting: Vec<Arc<dyn Wake>>,
    since: Option<Instant>,
}

impl Wakes {
    /// Adds one, and wakes all when the first has waited long enough.
    pub(crate) fn add(&mut self, wake: Option<Arc<dyn Wake>>) {
        self.waiting.extend(wake);
        if self.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        if now.duration_since(*self.since.get_or_insert(now)) >= GATHER {
            self.wake();
        }
    }

    /// Wakes all.
    pub(crate) fn wake(&mut self) {
        self.since = None;
        for wake in self.waiting.drain(..) {
            wake.wake();
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}

/// A request that waits for a verifier.
pub(crate) struct TrackerSubmission {
    pub(crate) request: Request,
    pub(crate) ticket: TrackerTicket,
}

/// Who waits, and the share of the pool.
pub(crate) struct TrackerTicket {
    pub(crate) caller: Box<dyn TrackerCaller>,
    pub(crate) permit: Permit,
    /// Bytes of the request.
    pub(crate) bytes: usize,
}

impl TrackerTicket {
    /// The request is through: answers, then gives the room back.
    pub(crate) fn settle(self, answer: TrackerAnswer, wakes: &mut Wakes) {
        wakes.add(self.caller.answer(answer));
        drop(self.permit);
    }
}
