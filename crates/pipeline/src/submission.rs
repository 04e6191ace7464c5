//! What a gateway hands in and what it gets back.

use bytes::Bytes;
use daybook_ledger::{Position, Rejection, TransactionId};
use tokio::sync::oneshot;

use crate::{mailbox::Slip, pool::Permit};

/// When a submission is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// As soon as the transaction is sound, proven and waits for its block (`mode=async`, `mode=sync`,
    /// `accepted`).
    Accepted,
    /// When its block is on disk (`mode=commit`, `durable`).
    Durable,
}

/// How strictly a submission is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// BigchainDB's rules (asset ledger, section 3.5): checked against committed state before it is
    /// taken, so a child must wait for its parent's commit, and a repeated transaction is refused.
    Classic,
    /// In the order sent: a child may follow its parent at once; a repeated transaction is answered
    /// with its first outcome.
    Bulk,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for its block.
    Accepted {
        /// The transaction.
        id: TransactionId,
    },
    /// Its block is on disk.
    Committed {
        /// The transaction.
        id: TransactionId,
        /// Its place.
        position: Position,
        /// It was committed by an earlier submission of the same transaction.
        repeated: bool,
    },
    /// It changes nothing.
    Rejected {
        /// The transaction, where the text went far enough to tell.
        id: Option<TransactionId>,
        /// The reason.
        rejection: Rejection,
    },
    /// Try again: the pool is full, or what the decision depends on could not be read now.
    Busy,
    /// The node is stopping or could not write. Whether the transaction is durable is unknown; its
    /// status tells after the restart.
    Stopped,
}

/// One transaction on its way to the verifiers.
pub(crate) struct Submission {
    pub(crate) text: Bytes,
    pub(crate) ticket: Ticket,
}

/// What remains of a submission once its text is read: who waits for what, and its share of the pool.
pub(crate) struct Ticket {
    pub(crate) acknowledge: Acknowledge,
    pub(crate) door: Door,
    pub(crate) reply: Reply,
    /// Gives the pool its room back when the ticket is settled or dropped.
    pub(crate) permit: Permit,
}

/// Where the outcome goes.
pub(crate) enum Reply {
    One(oneshot::Sender<Outcome>),
    Tagged(Slip),
    /// Already answered.
    Done,
}

impl Ticket {
    /// Answers, unless it was answered before.
    pub(crate) fn answer(&mut self, outcome: Outcome) {
        std::mem::replace(&mut self.reply, Reply::Done).send(outcome);
    }

    /// The transaction is through: gives the room back, then answers.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        let reply = std::mem::replace(&mut self.reply, Reply::Done);
        drop(self.permit);
        reply.send(outcome);
    }

    /// Whether the client was told already that the transaction is taken.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.reply, Reply::Done)
    }
}

impl Reply {
    fn send(self, outcome: Outcome) {
        match self {
            // A client that left does not stop its transaction; nobody hears the answer.
            Reply::One(sender) => drop(sender.send(outcome)),
            Reply::Tagged(slip) => slip.answer(outcome),
            Reply::Done => {}
        }
    }
}
