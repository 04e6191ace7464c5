//! Requests to the consortium's book on their way: proven on the verifiers' threads beside everything
//! else, decided in order, answered when their block is on disk.

use daybook_ledger::{
    Position,
    consortium::{Entry, Refusal, Request},
};
use tokio::sync::oneshot;

use crate::pool::Permit;

/// What became of a request to the consortium's book.
#[derive(Clone, Debug)]
pub enum ConsortiumAnswer {
    /// It is recorded in a durable block.
    Recorded {
        /// The record of it.
        entry: Entry,
        /// Its place.
        position: Position,
        /// It was recorded by an earlier request that this one repeats.
        repeated: bool,
    },
    /// It changes nothing, because it may not be.
    Refused(Refusal),
    /// Try again: the pool is full, or what the answer depends on could not be read now.
    Busy,
    /// This node takes no requests to the consortium's book.
    Off,
    /// The node is stopping or could not write. Whether the request is recorded is unknown: the same can
    /// be sent again after the restart.
    Stopped,
}

/// A request that waits for a verifier.
pub(crate) struct ConsortiumSubmission {
    pub(crate) request: Request,
    pub(crate) ticket: ConsortiumTicket,
}

/// Who waits, and the share of the pool. Dropped unanswered when the node stops.
pub(crate) struct ConsortiumTicket {
    pub(crate) reply: oneshot::Sender<ConsortiumAnswer>,
    pub(crate) permit: Permit,
    /// Bytes of the request.
    pub(crate) bytes: usize,
}

impl ConsortiumTicket {
    /// The request is through: gives the room back, then answers.
    pub(crate) fn settle(self, answer: ConsortiumAnswer) {
        match &answer {
            ConsortiumAnswer::Refused(refusal) => {
                let code = refusal.code.as_str();
                metrics::counter!("daybook_consortium_refusals_total", "code" => code).increment(1);
            }
            ConsortiumAnswer::Recorded { entry, .. } => {
                let kind = entry.kind();
                metrics::counter!("daybook_consortium_requests_total", "kind" => kind).increment(1);
            }
            ConsortiumAnswer::Busy | ConsortiumAnswer::Off | ConsortiumAnswer::Stopped => {}
        }
        drop(self.permit);
        // A client that left does not stop its request; nobody hears the answer.
        drop(self.reply.send(answer));
    }
}
