//! Requests to the tracker on their way: proven on the verifiers' threads beside the asset
//! transactions, decided in order, answered on the verifiers' threads again, because answers are signed.

use std::sync::Arc;

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
    /// Takes the answer.
    fn answer(self: Box<Self>, answer: TrackerAnswer);
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
    pub(crate) fn settle(self, answer: TrackerAnswer) {
        self.caller.answer(answer);
        drop(self.permit);
    }
}
