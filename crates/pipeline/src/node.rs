//! The running node: its parts, its threads and its handle.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use daybook_ledger::{
    BlockTime, Height, IdHash, Position, Rejection, RejectionClass, Rules, SigningKey,
    TransactionId,
    block::Parent,
    consortium,
    tracker::{Book, Request, Settings, command},
};
use daybook_order::Solo;
use daybook_store::{Store, StoreError, Writer};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    Clock, ConsortiumAnswer, Follower, Outcomes, Submitter, SystemClock,
    commit::Committer,
    consortium::{ConsortiumSubmission, ConsortiumTicket},
    feed::{self, BlockLimits},
    follow::Hub,
    machine::LedgerMachine,
    mailbox, meters,
    pool::{NoRoom, Pool},
    submission::{Acknowledge, Door, Outcome, Reply, Submission, Ticket},
    tracker::{TrackerCaller, TrackerOptions, TrackerSubmission, TrackerTicket},
    verify::{self, Queue, Work},
};

/// How a node runs.
#[derive(Clone)]
pub struct StartOptions {
    /// The key that signs blocks.
    pub proposer: SigningKey,
    /// The stateless rules.
    pub rules: Rules,
    /// Threads that verify.
    pub verify_threads: usize,
    /// Transactions under way at once.
    pub pool_transactions_max: usize,
    /// Bytes of transactions under way at once.
    pub pool_bytes_max: usize,
    /// Transactions in one block.
    pub block_transactions_max: usize,
    /// Bytes of transactions in one block; a single larger transaction has a block of its own.
    /// Flushes of 0.25 to 2 MiB are where a disk gives most.
    pub block_bytes_max: usize,
    /// Bytes of recent blocks kept in memory for followers; as many again of older ones that followers
    /// read from the store.
    pub recent_bytes_max: usize,
    /// What blocks are stamped with.
    pub clock: Arc<dyn Clock>,
    /// The tracker, if one runs here.
    pub tracker: Option<TrackerOptions>,
    /// Whether requests to the consortium's book are taken.
    pub consortium: bool,
}

impl StartOptions {
    /// The defaults, with blocks signed by `proposer`.
    pub fn new(proposer: SigningKey) -> StartOptions {
        StartOptions {
            proposer,
            rules: Rules::default(),
            verify_threads: thread::available_parallelism().map_or(2, usize::from),
            pool_transactions_max: 1 << 15,
            pool_bytes_max: 64 << 20,
            block_transactions_max: 2_048,
            block_bytes_max: 2 << 20,
            recent_bytes_max: 16 << 20,
            clock: Arc::new(SystemClock),
            tracker: None,
            consortium: true,
        }
    }
}

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never seen, or forgotten because it was never durable.
    Unknown,
    /// It waits for its block.
    Pending,
    /// Its block is on disk.
    Committed(Position),
    /// It was taken and lost, as recorded at a height.
    Rejected(Height, Rejection),
}

/// The handle on a running node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

/// The running parts, held by who started them.
pub struct Running {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
    threads: Vec<JoinHandle<()>>,
}

/// What all parts see.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) pool: Arc<Pool>,
    pub(crate) pending: Pending,
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    runs_tracker: bool,
    runs_consortium: bool,
    /// Transactions wait that could not be decided when their turn came.
    pub(crate) has_undecided: AtomicBool,
    failure: OnceLock<String>,
    failed: watch::Sender<bool>,
}

/// Starts the threads that take transactions from submission to the store.
///
/// # Errors
/// When the operating system starts no thread.
pub fn start(store: Store, writer: Writer, options: StartOptions) -> io::Result<(Node, Running)> {
    meters::describe();
    let tip = store.tip();
    let parent = Parent {
        chain: store.genesis().hash(),
        height: tip.height,
        time: tip.time,
        hash: tip.hash,
        state: tip.state,
    };
    let verifiers = options.verify_threads.max(1);
    let shared = Arc::new(Shared {
        queue: Queue::new(verifiers),
        pool: Arc::new(Pool::new(
            options.pool_transactions_max,
            options.pool_bytes_max,
        )),
        pending: Pending::default(),
        hub: Arc::new(Hub::new(tip.height, options.recent_bytes_max)),
        store,
        clock: options.clock.clone(),
        runs_tracker: options.tracker.is_some(),
        runs_consortium: options.consortium,
        has_undecided: AtomicBool::new(false),
        failure: OnceLock::new(),
        failed: watch::Sender::new(false),
    });
    let (committer, blocks) = Committer::new(shared.clone(), writer);
    let (feed_sender, mut feed) = feed::pair(BlockLimits {
        transactions_max: options.block_transactions_max,
        bytes_max: options.block_bytes_max,
    });
    let mut machine = LedgerMachine::new(
        shared.clone(),
        committer.clone(),
        options.clock,
        options.proposer,
        options
            .tracker
            .as_ref()
            .map(|tracker| tracker.holder.clone()),
        parent,
    );

    let mut threads = Vec::with_capacity(verifiers + 2);
    let mut spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let guard = FailOnPanic(shared.clone());
        let guarded = move || {
            body();
            drop(guard);
        };
        thread::Builder::new()
            .name(name.into())
            .spawn(guarded)
            .map(|thread| threads.push(thread))
    };
    for _ in 0..verifiers {
        let (shared, rules, feed) = (shared.clone(), options.rules.clone(), feed_sender.clone());
        let tracker = options.tracker.clone();
        spawn(
            "verify",
            Box::new(move || verify::run(&shared, rules, tracker.as_ref(), &feed)),
        )?;
    }
    drop(feed_sender);
    // The commit thread goes on until the orderer hangs up its end of the channel, which it does by
    // ending; the committer itself, which is shared, must not hold it open.
    let (order_done, order_ended) = crossbeam_channel::bounded::<()>(0);
    if options.tracker.is_some() || options.consortium {
        let (shared, order_ended) = (shared.clone(), order_ended.clone());
        spawn("expire", Box::new(move || expire(&shared, &order_ended)))?;
    }
    spawn("order", {
        Box::new(move || {
            if Solo.run(&mut feed, &mut machine).is_err() {
                tracing::error!("ordering ends: a block could not be written");
            }
            drop(order_done);
        })
    })?;
    spawn("commit", {
        let committer = committer.clone();
        Box::new(move || committer.run(&blocks, &order_ended))
    })?;
    let node = Node {
        shared: shared.clone(),
    };
    Ok((
        node,
        Running {
            shared,
            committer,
            threads,
        },
    ))
}

impl Node {
    /// Submits one transaction and waits for the acknowledgement. A caller that leaves does not stop
    /// its transaction.
    pub async fn submit(&self, text: Bytes, acknowledge: Acknowledge, door: Door) -> Outcome {
        let permit = match self.shared.pool.try_enter(text.len()) {
            Ok(permit) => permit,
            Err(NoRoom::Full) => return Outcome::Busy,
            Err(NoRoom::Closed) => return Outcome::Stopped,
        };
        let (reply, outcome) = oneshot::channel();
        let ticket = Ticket {
            acknowledge,
            door,
            reply: Reply::One(reply),
            permit,
        };
        self.shared.queue.push_all([Submission { text, ticket }]);
        outcome.await.unwrap_or(Outcome::Stopped)
    }

    /// Asks the tracker; `bytes` is what the request weighs in the pool. The caller is dropped when the
    /// node stops before it has an answer.
    ///
    /// # Errors
    /// The caller, when the pool is full or the node takes no more.
    pub fn ask_tracker(
        &self,
        request: Request,
        bytes: usize,
        caller: Box<dyn TrackerCaller>,
    ) -> Result<(), Box<dyn TrackerCaller>> {
        if !self.shared.runs_tracker {
            return Err(caller);
        }
        let pool = &self.shared.pool;
        let entered = match request.command {
            // A receipt is worth nothing after its channel's lock, however busy the node is then.
            command::CLOSE_TRANSFER | command::PARK => pool.try_enter_urgent(bytes),
            _ => pool.try_enter(bytes),
        };
        let Ok(permit) = entered else {
            return Err(caller);
        };
        let ticket = TrackerTicket {
            caller,
            permit,
            bytes,
        };
        let work = Work::Tracker(Box::new(TrackerSubmission { request, ticket }));
        self.shared.queue.push([work]);
        Ok(())
    }

    /// Asks for a change of the consortium's book, and waits until it is on disk. A caller that leaves does
    /// not stop its request.
    pub async fn ask_consortium(&self, request: consortium::Request) -> ConsortiumAnswer {
        if !self.shared.runs_consortium {
            return ConsortiumAnswer::Off;
        }
        let bytes = request.text.len();
        let permit = match self.shared.pool.try_enter(bytes) {
            Ok(permit) => permit,
            Err(NoRoom::Full) => return ConsortiumAnswer::Busy,
            Err(NoRoom::Closed) => return ConsortiumAnswer::Stopped,
        };
        let (reply, answer) = oneshot::channel();
        let ticket = ConsortiumTicket {
            reply,
            permit,
            bytes,
        };
        let work = Work::Consortium(ConsortiumSubmission { request, ticket });
        self.shared.queue.push([work]);
        answer.await.unwrap_or(ConsortiumAnswer::Stopped)
    }

    /// Whether requests to the consortium's book are taken.
    pub fn runs_consortium(&self) -> bool {
        self.shared.runs_consortium
    }

    /// Makes the tracker run by `settings` from now on; returns when that is durable. False when the
    /// node stopped before.
    pub async fn configure_tracker(&self, settings: Settings) -> bool {
        let (done, durable) = oneshot::channel();
        let work = Work::Configure(Box::new(settings), done);
        self.shared.queue.push([work]);
        durable.await.is_ok()
    }

    /// Does what is due in the tracker's and the consortium's books, in a block of its own if nothing else waits. The node
    /// sees to it by itself; tests that set the clock need not wait for that.
    pub fn tick(&self) {
        self.shared.queue.push([Work::Tick]);
    }

    /// What the node's clock says.
    pub fn now(&self) -> BlockTime {
        self.shared.clock.now()
    }

    /// A pair for many submissions through the bulk door; at most `window` are under way.
    pub fn submitter(&self, window: usize) -> (Submitter, Outcomes) {
        mailbox::pair(self.shared.clone(), window)
    }

    /// Reading.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// What is known of a transaction. Reads the disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn status(&self, id: &TransactionId) -> Result<Status, StoreError> {
        // In this order: a transaction leaves the pending ones only after the store shows its outcome.
        let pending = self.shared.pending.contains(id);
        if let Some(position) = self.shared.store.position(id)? {
            return Ok(Status::Committed(position));
        }
        if pending {
            return Ok(Status::Pending);
        }
        let rejection = self.shared.store.rejection(id)?;
        Ok(rejection.map_or(Status::Unknown, |(height, why)| {
            Status::Rejected(height, why)
        }))
    }

    /// Every committed block from `from` on, then live; gap-free.
    pub fn follow(&self, from: Height) -> Follower {
        Follower::new(self.shared.hub.clone(), self.shared.store.clone(), from)
    }

    /// Height of the newest block that readers see.
    pub fn head(&self) -> Height {
        self.shared.hub.head()
    }

    /// True while the node takes writes.
    pub fn is_ready(&self) -> bool {
        !self.shared.pool.is_closed()
    }

    /// Transactions and bytes of them that may be under way at once.
    pub fn capacity(&self) -> (usize, usize) {
        self.shared.pool.capacity()
    }

    /// Transactions and bytes of them that are under way.
    pub fn load(&self) -> (usize, usize) {
        self.shared.pool.load()
    }

    /// Why the node stopped taking writes by itself, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure()
    }

    /// Waits until the node stops taking writes by itself.
    pub async fn failed(&self) {
        let mut failed = self.shared.failed.subscribe();
        if failed.wait_for(|failed| *failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Running {
    /// Refuses new transactions, commits those under way, closes the store in good order and ends
    /// every thread. Blocks the calling thread.
    ///
    /// # Errors
    /// When the store could not be closed in good order; what was acknowledged is durable regardless.
    pub fn stop(self) -> Result<(), StoreError> {
        self.shared.pool.close();
        self.shared.queue.close();
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        self.shared.hub.close();
        self.committer.close()
    }
}

impl Shared {
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// A node that cannot write stops.
    pub(crate) fn fail(&self, reason: &str) {
        tracing::error!(reason, "the node takes no more transactions");
        // Only the first failure is told; those that follow are its consequence.
        drop(self.failure.set(reason.to_owned()));
        self.pool.close();
        self.queue.abandon();
        self.hub.close();
        self.failed.send_replace(true);
    }

    pub(crate) fn count_rejection(&self, rejection: &Rejection) {
        Shared::count_rejection_class(rejection.class);
    }

    pub(crate) fn count_rejection_class(class: RejectionClass) {
        metrics::counter!("daybook_transactions_rejected_total", "class" => class.name())
            .increment(1);
    }
}

/// How often the books are looked at for what is due.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(250);

/// Asks for a block whenever something is due in a book or waits to be decided again, so that the log is
/// prompt.
fn expire(shared: &Shared, order_ended: &Receiver<()>) {
    while order_ended.recv_timeout(EXPIRY_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let tracker = shared.store.tracker(Book::next_due);
        let consortium = shared.store.consortium(consortium::Book::next_due);
        let due = [tracker, consortium].into_iter().flatten().min();
        let undecided = shared.has_undecided.load(Ordering::Relaxed);
        if undecided || due.is_some_and(|due| due <= shared.clock.now()) {
            shared.queue.push([Work::Tick]);
        }
    }
}

/// Stops the node when the thread that holds it panics: a mistake of ours, after which nothing may be
/// acknowledged.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .fail("an internal error ended one of the node's threads");
        }
    }
}

/// Transactions that wait for their block, by id. Several submissions may carry the same one.
#[derive(Default)]
pub(crate) struct Pending(Mutex<HashMap<TransactionId, u32, IdHash>>);

/// Transactions that leave under one hold of the lock, which verifiers wait for.
const LEAVING_MAX: usize = 256;

impl Pending {
    /// Takes in several under one hold of the lock, which costs the most when it goes from one processor to
    /// another.
    pub(crate) fn insert_all(&self, ids: impl Iterator<Item = TransactionId>) {
        let mut waiting = self.0.lock();
        for id in ids {
            *waiting.entry(id).or_insert(0) += 1;
        }
    }

    pub(crate) fn remove_all(&self, ids: impl Iterator<Item = TransactionId>) {
        let mut ids = ids.peekable();
        while ids.peek().is_some() {
            let mut waiting = self.0.lock();
            for id in ids.by_ref().take(LEAVING_MAX) {
                if let Entry::Occupied(mut count) = waiting.entry(id) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
        }
    }

    fn contains(&self, id: &TransactionId) -> bool {
        self.0.lock().contains_key(id)
    }
}
