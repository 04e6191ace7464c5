//! The verifiers: every core parses transactions and checks their signatures in batches.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use daybook_ledger::{
    Parser, Rules, SignatureChecker, Transaction, consortium, decide, decide_unproven,
    tracker::{Proven, Prover, Settings},
};
use daybook_store::Allowance;
use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use crate::{
    ConsortiumAnswer, TrackerAnswer, TrackerOptions,
    consortium::ConsortiumSubmission,
    feed::{Batch, Candidate, FeedSender},
    machine::{depends_on_history, unread},
    node::Shared,
    submission::{Acknowledge, Door, Outcome, Submission, Ticket},
    tracker::{TrackerSubmission, TrackerTicket, Wakes},
};

/// Transactions in one verification batch. Larger batches gain little per signature (measured: 12.9 µs
/// at 256, 11.4 at 1,024) and make neighbours wait longer.
pub(crate) const BATCH_TRANSACTIONS_MAX: usize = 256;

/// Transactions checked against committed state under one hold of its lock, which the commit of the
/// next block waits for.
const VIEW_TRANSACTIONS_MAX: usize = 64;

/// Bytes of history that are read for one batch, which those behind it wait for: some 16 ms of reading
/// long parents, or sixteen times what a batch of ordinary transactions needs.
const HISTORY_BYTES_MAX: u64 = 16 << 20;

/// How long a verifier answers before it looks at what came in: some forty signatures with RSA. Shorter
/// turns make smaller batches, and blocks of fewer requests.
const ANSWERING_MAX: Duration = Duration::from_millis(10);

/// Where submissions and answers wait for a verifier. Bounded by the pool's permits, which every one holds.
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    verifiers: usize,
}

/// What a verifier does.
pub(crate) enum Work {
    /// Parses and verifies a transaction of the asset ledger.
    Asset(Submission),
    /// Proves a request to the tracker. In a box: it is twice as large as a transaction's place, and those are
    /// many.
    Tracker(Box<TrackerSubmission>),
    /// Proves a request to the consortium's book.
    Consortium(ConsortiumSubmission),
    /// Lets the tracker's settings through, in their place among the rest.
    Configure(Box<Settings>, oneshot::Sender<()>),
    /// Lets a tick through.
    Tick,
}

/// What a verifier takes at a time.
enum Taken {
    /// Work that keeps its order, by the batch's number.
    Batch(u64, Vec<Work>),
    /// An answer of the tracker, which takes a signature and keeps no order. One at a time: with RSA each
    /// takes a third of a millisecond, and who took many would keep its neighbours idle and the requests
    /// in its batch waiting.
    Answer(TrackerTicket, TrackerAnswer),
}

struct QueueState {
    waiting: VecDeque<Work>,
    answers: VecDeque<(TrackerTicket, TrackerAnswer)>,
    /// The number of the next batch: blocks keep the order in which batches were taken.
    batch: u64,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(verifiers: usize) -> Queue {
        let state = QueueState {
            waiting: VecDeque::new(),
            answers: VecDeque::new(),
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
        self.push(submissions.into_iter().map(Work::Asset));
    }

    /// Hands out an answer. After the close, when no verifier may be left, the calling thread gives it.
    pub(crate) fn answer(&self, ticket: TrackerTicket, answer: TrackerAnswer) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            ticket.settle(answer, &mut Wakes::default());
            return;
        }
        state.answers.push_back((ticket, answer));
        drop(state);
        self.arrived.notify_one();
    }

    /// Appends work in order. After the close it is dropped, which tells those who wait for it.
    pub(crate) fn push(&self, work: impl IntoIterator<Item = Work>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.waiting.extend(work);
        }
        match state.waiting.len() {
            0 => {}
            1 => drop(self.arrived.notify_one()),
            _ => drop(self.arrived.notify_all()),
        }
    }

    /// Takes an answer or a batch, an answer first if they are preferred; `None` when nothing waits.
    fn try_take(&self, prefers_answers: bool) -> Option<Taken> {
        self.state.lock().take(self.verifiers, prefers_answers)
    }

    /// Takes an answer or a batch, waiting for one. `None` when closed and empty.
    fn take(&self) -> Option<Taken> {
        let mut state = self.state.lock();
        loop {
            if let Some(taken) = state.take(self.verifiers, true) {
                return Some(taken);
            }
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
    }

    /// Takes no more and drops what waits, which tells their senders: nothing can be committed.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        let answers = std::mem::take(&mut state.answers);
        drop(state);
        self.arrived.notify_all();
        drop((waiting, answers));
    }

    /// Takes no more. What waits is still verified.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

impl QueueState {
    fn take(&mut self, verifiers: usize, prefers_answers: bool) -> Option<Taken> {
        if (prefers_answers || self.waiting.is_empty())
            && let Some((ticket, answer)) = self.answers.pop_front()
        {
            return Some(Taken::Answer(ticket, answer));
        }
        if self.waiting.is_empty() {
            return None;
        }
        // A fair share of what waits.
        let share = self.waiting.len().div_ceil(verifiers);
        let taken = self.waiting.drain(..share.min(BATCH_TRANSACTIONS_MAX));
        let number = self.batch;
        self.batch += 1;
        Some(Taken::Batch(number, taken.collect()))
    }
}

/// What a verifier keeps from batch to batch.
struct Tools {
    parser: Parser,
    checker: SignatureChecker,
    random: StdRng,
    /// `None` where no tracker runs.
    prover: Option<Prover>,
    consortium: consortium::Prover,
}

/// One verifier's life.
pub(crate) fn run(
    shared: &Arc<Shared>,
    rules: Rules,
    tracker: Option<&TrackerOptions>,
    feed: &FeedSender,
) {
    let mut tools = Tools {
        parser: Parser::new(rules),
        checker: SignatureChecker::new(),
        // Batch coefficients must be unpredictable to who makes signatures; the generator is seeded by
        // the operating system.
        random: rand::make_rng(),
        prover: tracker.map(|options| Prover::new(options.suites, options.ids.clone())),
        consortium: consortium::Prover::new(shared.store.genesis()),
    };
    // Who was answered is woken for several answers together.
    let mut wakes = Wakes::default();
    let mut answering_since: Option<Instant> = None;
    loop {
        let prefers_answers = answering_since.is_none_or(|since| since.elapsed() < ANSWERING_MAX);
        let taken = shared.queue.try_take(prefers_answers).or_else(|| {
            wakes.wake();
            shared.queue.take()
        });
        match taken {
            None => return,
            Some(Taken::Answer(ticket, answer)) => {
                answering_since.get_or_insert_with(Instant::now);
                ticket.settle(answer, &mut wakes);
            }
            Some(Taken::Batch(number, work)) => {
                answering_since = None;
                wakes.wake();
                let candidates = work_off(shared, &mut tools, work);
                if !feed.send(Batch { number, candidates }) {
                    return;
                }
            }
        }
    }
}

/// Does a batch of work; what is left of it waits for its block. Entries of different books keep no
/// order among each other: they come over different connections.
fn work_off(shared: &Shared, tools: &mut Tools, work: Vec<Work>) -> Vec<Candidate> {
    let mut texts = Vec::with_capacity(work.len());
    let mut tickets = Vec::with_capacity(work.len());
    let mut requests = Vec::new();
    let mut others = Vec::new();
    for work in work {
        match work {
            Work::Asset(Submission { text, ticket }) => {
                texts.push(text);
                tickets.push(ticket);
            }
            Work::Tracker(submission) => requests.push(*submission),
            Work::Consortium(submission) => others.extend(prove_consortium(tools, submission)),
            Work::Configure(settings, done) => others.push(Candidate::Configure { settings, done }),
            Work::Tick => others.push(Candidate::Tick),
        }
    }
    let mut candidates = verify(shared, tools, texts, tickets);
    prove(tools, requests, &mut candidates);
    candidates.append(&mut others);
    candidates
}

/// Proves a request to the consortium's book; one that is refused is answered at once.
fn prove_consortium(tools: &mut Tools, submission: ConsortiumSubmission) -> Option<Candidate> {
    let ConsortiumSubmission { request, ticket } = submission;
    match tools.consortium.prove(request) {
        Ok(command) => Some(Candidate::Consortium {
            command: Box::new(command),
            ticket,
        }),
        Err(refusal) => {
            ticket.settle(ConsortiumAnswer::Refused(refusal));
            None
        }
    }
}

/// Proves requests to the tracker. Commands go on to their block, everything else is answered.
fn prove(tools: &mut Tools, submissions: Vec<TrackerSubmission>, candidates: &mut Vec<Candidate>) {
    let Some(prover) = &mut tools.prover else {
        // Nobody serves a tracker here; the callers hear it by being dropped.
        return;
    };
    let (requests, tickets): (Vec<_>, Vec<_>) = submissions
        .into_iter()
        .map(|TrackerSubmission { request, ticket }| (request, ticket))
        .unzip();
    let proven = prover.prove_batch(requests, &mut tools.random);
    let mut wakes = Wakes::default();
    for (proven, ticket) in proven.into_iter().zip(tickets) {
        match proven {
            Ok(Proven::Command(command)) => candidates.push(Candidate::Tracker {
                command: Box::new(command),
                ticket,
            }),
            Ok(query) => ticket.settle(TrackerAnswer::Query(Box::new(query)), &mut wakes),
            Err(refusal) => ticket.settle(TrackerAnswer::Refused(refusal), &mut wakes),
        }
    }
}

/// Verifies texts, each with its ticket. Those that pass wait for their block, the others are answered.
fn verify(
    shared: &Shared,
    tools: &mut Tools,
    texts: Vec<Bytes>,
    tickets: Vec<Ticket>,
) -> Vec<Candidate> {
    let (transactions, mut tickets) = parse(&mut tools.parser, texts, tickets);
    let verified = tools.checker.verify(transactions, &mut tools.random);
    let mut candidates = Vec::with_capacity(verified.len());
    let mut verified = verified.into_iter().zip(tickets.drain(..)).peekable();
    let allowance = Allowance::new(HISTORY_BYTES_MAX);
    let mut passed = Vec::with_capacity(VIEW_TRANSACTIONS_MAX);
    while verified.peek().is_some() {
        let mut view = None;
        for (transaction, ticket) in verified.by_ref().take(VIEW_TRANSACTIONS_MAX) {
            let refused = match &transaction {
                Ok(_) if ticket.door == Door::Bulk => None,
                proven => {
                    let view = view.get_or_insert_with(|| shared.store.view_within(&allowance));
                    let (id, decided) = match proven {
                        Ok(transaction) => {
                            allowance.begin(depends_on_history(transaction));
                            (transaction.id(), decide(view, transaction))
                        }
                        Err(unproven) => {
                            allowance.begin(false);
                            (unproven.0.id(), Err(decide_unproven(view, unproven)))
                        }
                    };
                    decided
                        .err()
                        .map(|rejection| (id, unread(rejection, view, &id)))
                }
            };
            match (transaction, refused) {
                (_, Some((id, rejection))) => {
                    // Naming the error may have read history; commits wait for the view.
                    view = None;
                    ticket.settle(match rejection {
                        None => Outcome::Busy,
                        Some(rejection) => {
                            shared.count_rejection(&rejection);
                            Outcome::Rejected {
                                id: Some(id),
                                rejection,
                            }
                        }
                    });
                }
                (Ok(transaction), None) => passed.push((Arc::new(transaction), ticket)),
                (Err(_), None) => unreachable!("an unproven transaction is always refused"),
            }
        }
        drop(view);
        let ids = passed.iter().map(|(transaction, _)| transaction.id());
        shared.pending.insert_all(ids);
        for (transaction, mut ticket) in passed.drain(..) {
            if ticket.acknowledge == Acknowledge::Accepted {
                let id = transaction.id();
                ticket.answer(Outcome::Accepted { id });
            }
            candidates.push(Candidate::Asset {
                transaction,
                ticket,
            });
        }
    }
    candidates
}

fn parse(
    parser: &mut Parser,
    texts: Vec<Bytes>,
    posted: Vec<Ticket>,
) -> (Vec<Transaction>, Vec<Ticket>) {
    let mut transactions = Vec::with_capacity(texts.len());
    let mut tickets = Vec::with_capacity(texts.len());
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
