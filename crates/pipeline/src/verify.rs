//! The verifiers: every core parses transactions and checks their signatures in batches.

use std::{collections::VecDeque, sync::Arc};

use daybook_ledger::{Parser, Rules, SignatureChecker, Transaction, decide, decide_unproven};
use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;

use crate::{
    feed::{Batch, Candidate, FeedSender},
    node::Shared,
    submission::{Acknowledge, Door, Outcome, Submission, Ticket},
};

/// Transactions in one verification batch. Larger batches gain little per signature (measured: 12.9 µs
/// at 256, 11.4 at 1,024) and make neighbours wait longer.
pub(crate) const BATCH_TRANSACTIONS_MAX: usize = 256;

/// Transactions checked against committed state under one hold of its lock, which the commit of the
/// next block waits for.
const VIEW_TRANSACTIONS_MAX: usize = 64;

/// Where submissions wait for a verifier. Bounded by the pool's permits, which every one holds.
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    verifiers: usize,
}

struct QueueState {
    waiting: VecDeque<Submission>,
    /// The number of the next batch: blocks keep the order in which batches were taken.
    batch: u64,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(verifiers: usize) -> Queue {
        let state = QueueState {
            waiting: VecDeque::new(),
            batch: 0,
            closed: false,
        };
        Queue {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            verifiers,
        }
    }

    /// Appends submissions in order. After the close they are dropped, which tells their senders.
    pub(crate) fn push_all(&self, submissions: impl IntoIterator<Item = Submission>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.waiting.extend(submissions);
        }
        match state.waiting.len() {
            0 => {}
            1 => drop(self.arrived.notify_one()),
            _ => drop(self.arrived.notify_all()),
        }
    }

    /// Takes a batch: a fair share of what waits. `None` when closed and empty.
    fn take(&self) -> Option<(u64, Vec<Submission>)> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
        let share = state
            .waiting
            .len()
            .div_ceil(self.verifiers)
            .min(BATCH_TRANSACTIONS_MAX);
        let taken = state.waiting.drain(..share).collect();
        let number = state.batch;
        state.batch += 1;
        Some((number, taken))
    }

    /// Takes no more and drops what waits, which tells their senders: nothing can be committed.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.arrived.notify_all();
        drop(waiting);
    }

    /// Takes no more. What waits is still verified.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

/// What a verifier keeps from batch to batch.
struct Tools {
    parser: Parser,
    checker: SignatureChecker,
    random: StdRng,
}

/// One verifier's life.
pub(crate) fn run(shared: &Arc<Shared>, rules: Rules, feed: &FeedSender) {
    let mut tools = Tools {
        parser: Parser::new(rules),
        checker: SignatureChecker::new(),
        // Batch coefficients must be unpredictable to who makes signatures; the generator is seeded by
        // the operating system.
        random: rand::make_rng(),
    };
    while let Some((number, submissions)) = shared.queue.take() {
        let candidates = verify(shared, &mut tools, submissions);
        if !feed.send(Batch { number, candidates }) {
            return;
        }
    }
}

fn verify(shared: &Shared, tools: &mut Tools, submissions: Vec<Submission>) -> Vec<Candidate> {
    let (transactions, mut tickets) = parse(&mut tools.parser, submissions);
    let verified = tools.checker.verify(transactions, &mut tools.random);
    let mut candidates = Vec::with_capacity(verified.len());
    let mut verified = verified.into_iter().zip(tickets.drain(..)).peekable();
    while verified.peek().is_some() {
        let mut view = None;
        for (transaction, mut ticket) in verified.by_ref().take(VIEW_TRANSACTIONS_MAX) {
            let refused = match &transaction {
                Err(unproven) => {
                    let view = view.get_or_insert_with(|| shared.store.view());
                    Some((unproven.0.id(), decide_unproven(view, unproven)))
                }
                Ok(transaction) if ticket.door == Door::Classic => {
                    let view = view.get_or_insert_with(|| shared.store.view());
                    decide(view, transaction)
                        .err()
                        .map(|rejection| (transaction.id(), rejection))
                }
                Ok(_) => None,
            };
            match (transaction, refused) {
                (_, Some((id, rejection))) => {
                    // Naming the error may have read history; commits wait for the view.
                    view = None;
                    shared.count_rejection(&rejection);
                    ticket.settle(Outcome::Rejected {
                        id: Some(id),
                        rejection,
                    });
                }
                (Ok(transaction), None) => {
                    let id = transaction.id();
                    shared.pending.insert(id);
                    if ticket.acknowledge == Acknowledge::Accepted {
                        ticket.answer(Outcome::Accepted { id });
                    }
                    candidates.push(Candidate {
                        transaction: Arc::new(transaction),
                        ticket,
                    });
                }
                (Err(_), None) => unreachable!("an unproven transaction is always refused"),
            }
        }
    }
    candidates
}

fn parse(parser: &mut Parser, submissions: Vec<Submission>) -> (Vec<Transaction>, Vec<Ticket>) {
    let mut transactions = Vec::with_capacity(submissions.len());
    let mut tickets = Vec::with_capacity(submissions.len());
    let (texts, posted): (Vec<_>, Vec<_>) = submissions
        .into_iter()
        .map(|Submission { text, ticket }| (text, ticket))
        .unzip();
    for (result, ticket) in parser.parse_batch(texts).into_iter().zip(posted) {
        match result {
            Ok(transaction) => {
                transactions.push(transaction);
                tickets.push(ticket);
            }
            Err(rejection) => {
                Shared::count_rejection_class(rejection.class);
                ticket.settle(Outcome::Rejected {
                    id: None,
                    rejection,
                });
            }
        }
    }
    (transactions, tickets)
}
