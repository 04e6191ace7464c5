//! A network in memory for members: a real book, a log that is a plain list, and a relay in a
//! temporary file. It can be cut off from its members.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use daybook_ledger::{
    BlockTime, Height, Position, SigningKey, TransactionId,
    block::{Genesis, Validator},
    consortium::*,
};
use daybook_member::{
    Answer, Committed, Hosted, Identity, Logged, Member, Network, NotTaken, NoticeCursor, Notices,
    Relay, Settings, Unavailable, new_user, serve, system_clock, users_file, users_text,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, time::timeout};

pub const PASSWORD: &str = "correct horse";

/// How long anything may take before a test gives up: only a fault takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing may happen before a test looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub fn did(seed: u8) -> Did {
    Did::of(&key(seed).public_key())
}

pub fn genesis() -> Genesis {
    Genesis {
        chain: "test".to_owned(),
        time: BlockTime(1),
        validators: vec![Validator {
            key: key(200).public_key(),
            power: 1,
        }],
    }
}

/// Member `seed`'s next card, which tells where its gateway is.
pub fn announce(node: &Node, seed: u8, endpoint: &str) {
    let first = card(seed);
    let profile = Profile {
        endpoint: endpoint.to_owned(),
        ..first.profile().clone()
    };
    let card = first.next(profile, &key(seed));
    node.ask(&Body::Announce { card }, seed).unwrap();
}

pub fn card(seed: u8) -> Card {
    let profile = Profile {
        label: format!("Member {seed}"),
        organization: format!("Organisation {seed}"),
        icon: format!("/icons/{seed}.png"),
        ..Profile::default()
    };
    Card::first(profile, &key(seed))
}

#[derive(Default)]
struct Archive(BTreeMap<Vec<u8>, Entry>);

impl History for Archive {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>> {
        let key = format!("{key:?}").into_bytes();
        self.0.get(&key).cloned().map(Arc::new)
    }
}

struct Log {
    book: Book,
    prover: Prover,
    archive: Archive,
    entries: Vec<Logged>,
    time: u64,
    /// Milliseconds that the log's clock is ahead of the system's.
    ahead: u64,
}

/// The node of a test.
pub struct Node {
    log: Mutex<Log>,
    grown: watch::Sender<usize>,
    relay: Mutex<Arc<Relay>>,
    /// Requests that are still taken before the node is cut off; none is counted when it is negative.
    pub down: AtomicBool,
    /// Answers of submissions that get lost after the request was taken.
    pub lose_answers: AtomicUsize,
    /// Requests that each member handed in.
    submissions: Mutex<BTreeMap<u8, usize>>,
    folder: tempfile::TempDir,
}

/// Counts what happened anywhere in this test: on its node and in its members.
static NEWS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

fn tell() {
    NEWS.send_modify(|count| *count += 1);
}

fn open_relay(folder: &Path, name: &str, network: daybook_ledger::block::BlockHash) -> Arc<Relay> {
    let known = |_: Did, _: &daybook_ledger::PublicKey| true;
    Arc::new(Relay::open(&folder.join(name), network, Box::new(known)).unwrap())
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

impl Log {
    fn now(&self) -> u64 {
        system_clock() + self.ahead
    }

    fn tick(&mut self) -> u64 {
        self.time = self.now().max(self.time + 1);
        let at = BlockTime(self.time);
        while let Some(expiry) = self.book.due(at, 64) {
            self.record(expiry);
        }
        self.time
    }

    fn record(&mut self, entry: Entry) -> Committed {
        let height = Height(self.entries.len() as u64 + 1);
        self.book.record(&entry, height).unwrap();
        let archive = &mut self.archive.0;
        entry.index_keys(&mut |key| {
            archive.insert(format!("{key:?}").into_bytes(), entry.clone());
        });
        let position = Position { height, index: 0 };
        self.entries.push(Logged {
            position,
            entry: entry.clone(),
        });
        Committed { position, entry }
    }

    fn ask(&mut self, request: Request) -> Result<Committed, Refusal> {
        let command = self.prover.prove(request)?;
        let at = BlockTime(self.tick());
        match self.book.decide(&command, at, &self.archive)? {
            Decision::Entry(entry) => Ok(self.record(entry)),
            Decision::Repeat(entry) => {
                let found = self.entries.iter().find(|logged| logged.entry == *entry);
                let position = found.unwrap().position;
                Ok(Committed {
                    position,
                    entry: Entry::clone(&entry),
                })
            }
        }
    }
}

impl Node {
    /// A network of members 1 to `members`.
    pub fn new(members: u8) -> Arc<Node> {
        Node::with(members, ConsortiumSettings::default())
    }

    pub fn with(members: u8, settings: ConsortiumSettings) -> Arc<Node> {
        let prover = Prover::new(&genesis());
        let network = prover.network();
        let mut log = Log {
            book: Book::default(),
            prover,
            archive: Archive::default(),
            entries: Vec::new(),
            time: 0,
            ahead: 0,
        };
        let body = Body::Found {
            members: (1..=members).map(card).collect(),
            settings,
        };
        log.ask(Request::sign(network, &body, &key(200))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let relay = open_relay(folder.path(), "relay.redb", network);
        Arc::new(Node {
            log: Mutex::new(log),
            grown: watch::Sender::new(1),
            relay: Mutex::new(relay),
            down: AtomicBool::new(false),
            lose_answers: AtomicUsize::new(0),
            submissions: Mutex::default(),
            folder,
        })
    }

    fn relay(&self) -> Arc<Relay> {
        self.relay.lock().clone()
    }

    /// How many requests a member has handed in.
    pub fn submissions_by(&self, seed: u8) -> usize {
        let submissions = self.submissions.lock();
        submissions.get(&seed).copied().unwrap_or(0)
    }

    /// Copies what the relay keeps.
    pub fn back_up_relay(&self) {
        let to = self.folder.path().join("backup.redb");
        self.relay().copy_store(&to).unwrap();
    }

    /// Puts the copy in the relay's place, as often as wanted.
    pub fn restore_relay(&self) {
        let folder = self.folder.path();
        let count = std::fs::read_dir(folder).unwrap().count();
        let name = format!("restored-{count}.redb");
        std::fs::copy(folder.join("backup.redb"), folder.join(&name)).unwrap();
        let network = self.log.lock().prover.network();
        *self.relay.lock() = open_relay(folder, &name, network);
    }

    fn reach(&self) -> Result<(), Unavailable> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(Unavailable("it is cut off".to_owned())),
            false => Ok(()),
        }
    }

    /// Signs and takes a request as a node takes it.
    pub fn ask(&self, body: &Body, by: u8) -> Result<Committed, Refusal> {
        let mut log = self.log.lock();
        let network = log.prover.network();
        let taken = log.ask(Request::sign(network, body, &key(by)));
        self.grow(&log);
        taken
    }

    fn grow(&self, log: &Log) {
        self.grown.send_replace(log.entries.len());
        tell();
    }

    pub fn entries_of(&self, kind: &str) -> usize {
        let log = self.log.lock();
        log.entries
            .iter()
            .filter(|logged| logged.entry.kind() == kind)
            .count()
    }

    pub fn tree(&self, ledger: &str) -> Option<(String, u64)> {
        let log = self.log.lock();
        let ledger = log.book.ledger(ledger)?;
        Some((ledger.frontier.root().to_string(), ledger.frontier.size()))
    }

    /// Lets time go by in the log at once, which expires what is due.
    pub fn pass(&self, time: Duration) {
        let mut log = self.log.lock();
        log.ahead += time.as_millis() as u64;
        log.tick();
        self.grow(&log);
    }

    /// What became of the proposal that was made under this name.
    pub fn outcome(&self, request: &str) -> Option<Outcome> {
        let log = self.log.lock();
        let named = |entry: &&Entry| {
            let propose = entry.propose();
            propose.is_some_and(|propose| propose.request == request)
        };
        let mut entries = log.entries.iter().map(|logged| &logged.entry);
        let proposal = entries.find(named)?.id();
        log.book.outcome(&proposal, &log.archive)
    }

    pub fn pending(&self) -> usize {
        self.log.lock().book.pending_count()
    }
}

/// One member's way to the node: it can be cut off by itself.
#[derive(Debug)]
pub struct Wire {
    pub seed: u8,
    pub node: Arc<Node>,
    pub down: Arc<AtomicBool>,
    /// Whether the member has come to the relay a second time: no notice escapes it from then on.
    pub listens: Arc<AtomicBool>,
}

impl Wire {
    fn reach(&self) -> Result<(), Unavailable> {
        self.node.reach()?;
        match self.down.load(Ordering::SeqCst) {
            true => Err(Unavailable("the wire is cut".to_owned())),
            false => Ok(()),
        }
    }
}

impl Network for Wire {
    fn submit(&self, request: Request) -> Answer<'_, Result<Committed, NotTaken>> {
        Box::pin(async move {
            self.reach()?;
            *self.node.submissions.lock().entry(self.seed).or_default() += 1;
            let taken = {
                let mut log = self.node.log.lock();
                let taken = log.ask(request);
                self.node.grow(&log);
                taken
            };
            let lose = &self.node.lose_answers;
            let lost = lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if lost.is_ok() {
                return Err(Unavailable("the answer was lost".to_owned()).into());
            }
            taken.map_err(|refusal| NotTaken::Refused {
                code: refusal.code.as_str().to_owned(),
                detail: refusal.detail,
            })
        })
    }

    fn entries(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Logged>, Unavailable>> {
        Box::pin(async move {
            self.reach()?;
            let log = self.node.log.lock();
            let behind = log
                .entries
                .iter()
                .filter(|logged| Some(logged.position) > after);
            Ok(behind.take(limit).cloned().collect())
        })
    }

    fn grown(&self, after: Option<Position>) -> Answer<'_, ()> {
        Box::pin(async move {
            let seen = after.map_or(0, |after| after.height.0);
            let mut grown = self.node.grown.subscribe();
            let more = grown.wait_for(|count| *count as u64 > seen);
            let _ = timeout(Duration::from_millis(200), more).await;
        })
    }

    fn post(&self, notice: Bytes) -> Answer<'_, Result<(), NotTaken>> {
        Box::pin(async move {
            self.reach()?;
            self.node
                .relay()
                .post(&notice, system_clock())
                .map_err(|refused| NotTaken::Refused {
                    code: refused.code.to_owned(),
                    detail: refused.detail,
                })
        })
    }

    fn notices(
        &self,
        after: NoticeCursor,
        shown: Bytes,
    ) -> Answer<'_, Result<Notices, Unavailable>> {
        Box::pin(async move {
            self.reach()?;
            let relay = self.node.relay();
            if !relay.may_read(&shown, system_clock()) {
                return Err(Unavailable("it is not for you".to_owned()));
            }
            if !after.relay.is_empty() {
                self.listens.store(true, Ordering::SeqCst);
                tell();
            }
            let _ = timeout(Duration::from_millis(200), relay.wait(&after)).await;
            self.reach()?;
            relay
                .fetch(&after)
                .map_err(|error| Unavailable(error.to_string()))
        })
    }
}

/// A member with a listener of its own.
pub struct Running {
    pub seed: u8,
    pub url: String,
    pub folder: PathBuf,
    pub down: Arc<AtomicBool>,
    pub listens: Arc<AtomicBool>,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
    hosted: Arc<Hosted>,
    /// Ends when nothing uses the member any more, not even a socket that closes.
    told: tokio::task::JoinHandle<()>,
}

/// Starts member `seed` in `folder`; its only user has the member's number as its name.
pub async fn start(node: &Arc<Node>, seed: u8, folder: &Path) -> Running {
    start_with(node, seed, folder, |_| {}).await
}

pub async fn start_with(
    node: &Arc<Node>,
    seed: u8,
    folder: &Path,
    change: impl FnOnce(&mut Settings),
) -> Running {
    let folder = folder.join(format!("member-{seed}"));
    std::fs::create_dir_all(&folder).unwrap();
    let users = users_file(&folder);
    if !users.exists() {
        let name = format!("user{seed}");
        let user = new_user(&name, PASSWORD, true, 1).unwrap();
        std::fs::write(users, users_text(vec![user])).unwrap();
    }
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let mut settings = Settings::new(folder.clone(), url.clone());
    settings.route = vec![did(1), did(2), did(3)];
    settings.travel_days = vec![(did(2), 10)];
    change(&mut settings);
    let identity = Identity {
        did: did(seed),
        key: key(seed),
    };
    let down = Arc::new(AtomicBool::new(false));
    let listens = Arc::new(AtomicBool::new(false));
    let wire = Wire {
        seed,
        node: node.clone(),
        down: down.clone(),
        listens: listens.clone(),
    };
    let member = Member::start(identity, &genesis(), Arc::new(wire), settings).unwrap();
    let mut changes = member.changes();
    let told = tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            tell();
        }
    });
    let hosted = Arc::new(Hosted::new(vec![member], None));
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(serve(socket, None, hosted.clone(), async {
        let _ = stopping.await;
    }));
    Running {
        seed,
        url,
        folder,
        down,
        listens,
        stop,
        served,
        hosted,
        told,
    }
}

impl Running {
    pub fn member(&self) -> &Member {
        &self.hosted.members()[0]
    }

    /// Stops it in good order.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.served.await.unwrap();
        match Arc::try_unwrap(self.hosted) {
            Ok(hosted) => hosted.stop().await,
            Err(_) => panic!("somebody still uses the member"),
        }
        timeout(PATIENCE, self.told).await.unwrap().unwrap();
    }
}

pub type ConsortiumSettings = daybook_ledger::consortium::Settings;

/// Waits until something holds; it is looked at again whenever anything happened, and now and then because time
/// alone changes some answers.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut news = NEWS.subscribe();
    let waiting = async {
        loop {
            news.mark_unchanged();
            if holds().await {
                return;
            }
            let _ = timeout(LOOK_AGAIN, news.changed()).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn id_of(committed: &Committed) -> TransactionId {
    committed.entry.id()
}
