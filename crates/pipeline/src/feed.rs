//! Verified transactions in the order in which they were taken, though verifiers finish in any order.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use daybook_ledger::{Input, Transaction, Verified, consortium, tracker};
use daybook_order::Feed;
use tokio::sync::oneshot;

use crate::{consortium::ConsortiumTicket, submission::Ticket, tracker::TrackerTicket};

/// What waits for its block.
pub(crate) enum Candidate {
    /// A verified transaction of the asset ledger.
    Asset {
        transaction: Arc<Verified<Transaction>>,
        ticket: Ticket,
    },
    /// A proven command to the tracker.
    Tracker {
        command: Box<tracker::Command>,
        ticket: TrackerTicket,
    },
    /// A proven request to the consortium's book.
    Consortium {
        command: Box<consortium::Command>,
        ticket: ConsortiumTicket,
    },
    /// How the tracker runs from now on.
    Configure {
        settings: Box<tracker::Settings>,
        done: oneshot::Sender<()>,
    },
    /// Nothing but the wish that what is due is done.
    Tick,
}

impl Candidate {
    /// The inputs of an asset transaction; `None` for anything else.
    pub(crate) fn asset_inputs(&self) -> Option<&[Input]> {
        match self {
            Candidate::Asset { transaction, .. } => Some(transaction.inputs()),
            _ => None,
        }
    }

    /// Bytes that it takes in a block, roughly.
    fn bytes(&self) -> usize {
        match self {
            Candidate::Asset { transaction, .. } => transaction.canonical().len(),
            Candidate::Tracker { ticket, .. } => ticket.bytes,
            Candidate::Consortium { ticket, .. } => ticket.bytes,
            Candidate::Configure { .. } | Candidate::Tick => 0,
        }
    }
}

/// What one verifier finished.
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) candidates: Vec<Candidate>,
}

/// A verifier's end. The channel has no bound of its own: what is in it holds the pool's permits.
#[derive(Clone)]
pub(crate) struct FeedSender(Sender<Batch>);

impl FeedSender {
    /// False when nobody orders any more.
    pub(crate) fn send(&self, batch: Batch) -> bool {
        self.0.send(batch).is_ok()
    }
}

/// The orderer's end.
pub(crate) struct VerifiedFeed {
    batches: Receiver<Batch>,
    /// Batches that finished before one that was taken earlier.
    early: BTreeMap<u64, Vec<Candidate>>,
    next: u64,
    waiting: VecDeque<Candidate>,
    limits: BlockLimits,
}

/// Bounds of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLimits {
    pub(crate) transactions_max: usize,
    pub(crate) bytes_max: usize,
}

pub(crate) fn pair(limits: BlockLimits) -> (FeedSender, VerifiedFeed) {
    let (sender, batches) = unbounded();
    let feed = VerifiedFeed {
        batches,
        early: BTreeMap::new(),
        next: 0,
        waiting: VecDeque::new(),
        limits,
    };
    (FeedSender(sender), feed)
}

impl VerifiedFeed {
    fn receive(&mut self, batch: Batch) {
        self.early.insert(batch.number, batch.candidates);
        while let Some(candidates) = self.early.remove(&self.next) {
            self.waiting.extend(candidates);
            self.next += 1;
        }
    }

    fn cut(&mut self) -> VecDeque<Candidate> {
        let mut bytes = 0;
        let mut count = 0;
        for candidate in self.waiting.iter().take(self.limits.transactions_max) {
            bytes += candidate.bytes();
            if count > 0 && bytes > self.limits.bytes_max {
                break;
            }
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }
}

impl Feed for VerifiedFeed {
    type Transaction = Candidate;

    fn gather(&mut self) -> Option<VecDeque<Candidate>> {
        while let Ok(batch) = self.batches.try_recv() {
            self.receive(batch);
        }
        while self.waiting.is_empty() {
            let batch = self.batches.recv().ok()?;
            self.receive(batch);
        }
        Some(self.cut())
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.batches.is_empty()
    }
}
