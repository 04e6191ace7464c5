//! The consortium's book behind the pipeline: what a block holds of it, and what a restart gives back.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use daybook_ledger::{
    BlockTime, Height, Position, SigningKey, TransactionId,
    block::{self, Genesis, Validator},
    consortium::{
        Action, Batch, Body, Book, Card, Code, DEPTH_MAX, Did, Documents, Effect, Entry, History,
        IndexKey, Policy, Profile, Propose, Prover, Request, Settings, TreeHash, committed_with,
        sign_entry,
    },
    json::Value,
};
use daybook_pipeline::{Clock, ConsortiumAnswer, Node, Running, StartOptions, start};
use daybook_store::{CheckOptions, Options, Order, check, disk::simulated::SimulatedDisk};

const START_MS: u64 = 1_772_356_527_000;

/// How long proposals of these tests stay open, in milliseconds.
const TTL_MS: u64 = 20_000;

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> BlockTime {
        BlockTime(self.0.load(Ordering::SeqCst))
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn did(seed: u8) -> Did {
    Did::of(&key(seed).public_key())
}

fn genesis() -> Genesis {
    Genesis {
        chain: "consortium".into(),
        time: BlockTime(1_000),
        validators: vec![Validator {
            key: key(200).public_key(),
            power: 10,
        }],
    }
}

fn options() -> Options {
    Options {
        segment_bytes: 4 << 20,
        ..Options::default()
    }
}

/// A node with a network of members 1 to 5.
struct House {
    node: Node,
    running: Running,
    disk: SimulatedDisk,
    clock: Arc<SetClock>,
}

impl House {
    fn on(disk: SimulatedDisk, now: u64) -> House {
        let shared = Arc::new(disk.clone());
        let (store, writer, _) =
            daybook_store::open(Path::new("/data"), shared, &genesis(), options()).unwrap();
        let clock = Arc::new(SetClock(AtomicU64::new(now)));
        let mut options = StartOptions::new(key(200));
        options.clock = clock.clone();
        let (node, running) = start(store, writer, options).unwrap();
        House {
            node,
            running,
            disk,
            clock,
        }
    }

    async fn founded() -> House {
        let house = House::on(SimulatedDisk::new(), START_MS);
        let card = |seed: u8| {
            let profile = Profile {
                label: format!("Member {seed}"),
                ..Profile::default()
            };
            Card::first(profile, &key(seed))
        };
        let body = Body::Found {
            members: (1..=5).map(card).collect(),
            settings: Settings {
                documents: Documents::Any,
                ..Settings::default()
            },
        };
        house.recorded(house.request(&body, 200)).await;
        house
    }

    fn request(&self, body: &Body, seed: u8) -> Request {
        let network = Prover::new(self.node.store().genesis()).network();
        Request::sign(network, body, &key(seed))
    }

    async fn recorded(&self, request: Request) -> (Entry, Position, bool) {
        match self.node.ask_consortium(request).await {
            ConsortiumAnswer::Recorded {
                entry,
                position,
                repeated,
            } => (entry, position, repeated),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, request: Request) -> Code {
        match self.node.ask_consortium(request).await {
            ConsortiumAnswer::Refused(refusal) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    fn batch(&self, seed: u8, text: &str) -> Batch {
        let value: Value = text.parse().unwrap();
        let entry = value.as_object().unwrap().clone();
        let seconds = self.clock.now().0 / 1_000;
        Batch::new(&[sign_entry(entry, seconds, &key(seed), DEPTH_MAX).unwrap()])
    }

    fn create(&self, seed: u8, names: &[&str], policy: Policy) -> Action {
        Action::Create {
            ledgers: names.iter().map(ToString::to_string).collect(),
            participants: (1..=5).map(did).collect(),
            policy,
            batch: self.batch(seed, r#"{"no":"genesis"}"#),
        }
    }

    fn append(&self, seed: u8, names: &[&str], text: &str) -> Action {
        Action::Append {
            ledgers: names.iter().map(ToString::to_string).collect(),
            batch: self.batch(seed, text),
        }
    }

    fn proposal(&self, seed: u8, name: &str, action: Action) -> Request {
        let body = Body::Propose(Propose {
            member: did(seed),
            request: name.to_owned(),
            deadline: BlockTime(self.clock.now().0 + TTL_MS),
            action,
        });
        self.request(&body, seed)
    }

    fn endorsement(&self, seed: u8, proposal: TransactionId, agreed: TreeHash) -> Request {
        let body = Body::Endorse {
            member: did(seed),
            proposal,
            agreed,
        };
        self.request(&body, seed)
    }

    /// Proposes, and lets these members endorse.
    async fn agree(&self, seed: u8, name: &str, action: Action, by: &[u8]) -> Entry {
        let (proposed, _, _) = self.recorded(self.proposal(seed, name, action)).await;
        let mut last = proposed.clone();
        for member in by {
            let asked = self.book(|book| book.asked(&proposed.id(), did(*member)));
            let request = self.endorsement(*member, proposed.id(), asked.unwrap().agreed);
            (last, _, _) = self.recorded(request).await;
        }
        last
    }

    fn book<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        self.node.store().consortium(read)
    }

    fn size(&self, name: &str) -> u64 {
        self.book(|book| book.ledger(name).map_or(0, |ledger| ledger.frontier.size()))
    }

    /// All entries of the book in the order of the log.
    fn log(&self) -> Vec<Entry> {
        let mut all = Vec::new();
        let from = Position::default();
        let mut take = |_, entry| {
            all.push(entry);
            true
        };
        self.node.store().consortium_log(from, &mut take).unwrap();
        all
    }

    /// A book that takes nothing on trust and sees nothing but the log.
    fn replayed(&self) -> Book {
        let mut book = Book::default();
        let mut prover = Prover::new(self.node.store().genesis());
        let history = self.node.store().consortium_history();
        for entry in self.log() {
            let height = self
                .node
                .store()
                .position(&entry.id())
                .unwrap()
                .unwrap()
                .height;
            // What lies before is all that history may tell; here it tells more, and nothing
            // that is decided depends on it but repetitions, which are not in the log.
            let request = entry.propose().map(|p| p.request.clone());
            if request.is_none() {
                book.verify(&entry, &mut prover, &history).unwrap();
            }
            book.record(&entry, height).unwrap();
            book.forget(height);
        }
        book
    }

    /// Stops, opens the same disk again and compares; `bare` lets only the log be there.
    fn restart(self, bare: bool) -> House {
        let before = self.book(Book::encode);
        let (disk, now) = (self.disk.clone(), self.clock.now().0);
        self.running.stop().unwrap();
        if bare {
            use daybook_store::disk::Disk;
            for (path, _) in disk.files() {
                if !path.starts_with("/data/log") {
                    disk.remove(&path).unwrap();
                }
            }
        }
        let again = House::on(disk, now);
        assert_eq!(again.book(Book::encode), before);
        again
    }

    fn stop_and_check(self) {
        let disk = self.disk.clone();
        self.running.stop().unwrap();
        for signatures in [false, true] {
            let options = CheckOptions {
                signatures,
                store: options(),
                ..CheckOptions::default()
            };
            let report = check(
                Path::new("/data"),
                Arc::new(disk.clone()),
                &options,
                &mut |_, _| {},
            )
            .unwrap();
            assert_eq!(report.findings, []);
        }
    }
}

fn committed(entry: &Entry) -> bool {
    let mut effects = entry.effects().iter();
    effects.any(|effect| matches!(effect, Effect::Committed { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_last_endorsement_commits_in_its_own_block_and_all_of_it_is_found() {
    let house = House::founded().await;
    let created = house.create(1, &["CONT-1"], Policy::Unanimous);
    let last = house.agree(1, "a", created, &[2, 3, 4, 5]).await;
    assert!(committed(&last));
    let Some(position) = house.node.store().position(&last.id()).unwrap() else {
        panic!("the commit has no place");
    };
    let block = house.node.store().block(position.height).unwrap().unwrap();
    let block::Entry::Consortium(stored) = &block.block.entries[position.index as usize] else {
        panic!("{block:?}");
    };
    assert_eq!(stored, &last);

    let appended = house.append(3, &["CONT-1"], r#"{"no":"A-1"}"#);
    house.agree(3, "b", appended, &[1, 2, 4, 5]).await;
    let history = house.node.store().consortium_history();
    let (batch, commit) = committed_with("CONT-1", 2, &history).unwrap();
    assert_eq!(batch[0].0, 2);
    let mut tree = daybook_ledger::consortium::Frontier::new();
    let (genesis, _) = committed_with("CONT-1", 1, &history).unwrap();
    for (_, text) in genesis.iter().chain(&batch) {
        tree.push(TreeHash::leaf(text));
    }
    let root = house.book(|book| book.ledger("CONT-1").unwrap().frontier.root());
    assert_eq!(tree.root(), root);
    assert!(committed(&commit));
    assert!(history.failure().is_none());
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_and_a_replay_from_the_first_block_give_the_same_book_and_roots() {
    let house = House::founded().await;
    let created = house.create(1, &["CONT-1", "CONT-2"], Policy::AtLeast(3));
    house.agree(1, "a", created, &[2, 3]).await;
    let appended = house.append(2, &["CONT-1"], r#"{"no":"A-1"}"#);
    house.agree(2, "b", appended, &[3, 4]).await;
    // One is open, and one waits behind it.
    let appended = house.append(3, &["CONT-1"], r#"{"no":"A-2"}"#);
    house.agree(3, "c", appended, &[4]).await;
    let waits = house.append(4, &["CONT-1", "CONT-2"], r#"{"no":"A-3"}"#);
    house.recorded(house.proposal(4, "d", waits)).await;
    assert_eq!(house.book(Book::pending_count), 2);

    assert_eq!(house.replayed(), house.book(Book::clone));
    let house = house.restart(false);
    let house = house.restart(true);
    assert_eq!(house.replayed(), house.book(Book::clone));
    // What waited goes on where it was.
    let open = house.book(|book| book.queue("CONT-1").next().unwrap());
    let asked = house.book(|book| book.asked(&open.entry.id(), did(5)).unwrap());
    let request = house.endorsement(5, open.entry.id(), asked.agreed);
    let (last, _, _) = house.recorded(request).await;
    assert!(committed(&last));
    assert_eq!((house.size("CONT-1"), house.size("CONT-2")), (3, 1));
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_same_request_again_is_answered_with_its_first_outcome_also_after_a_restart() {
    let house = House::founded().await;
    let request = house.proposal(1, "once", house.create(1, &["CONT-1"], Policy::AtLeast(2)));
    let (first, place, repeated) = house.recorded(request.clone()).await;
    assert!(!repeated);
    let height = house.node.head();
    let (again, same, repeated) = house.recorded(request.clone()).await;
    assert_eq!((again, same, repeated), (first.clone(), place, true));
    assert_eq!(house.node.head(), height, "nothing is written");

    let other = house.proposal(1, "once", house.create(1, &["CONT-2"], Policy::AtLeast(2)));
    assert_eq!(house.refused(other).await, Code::RequestReused);

    let house = house.restart(true);
    let (again, same, repeated) = house.recorded(request).await;
    assert_eq!((again, same, repeated), (first, place, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_who_send_the_same_at_once_are_all_answered_with_one_entry() {
    let house = House::founded().await;
    let request = house.proposal(1, "once", house.create(1, &["CONT-1"], Policy::AtLeast(2)));
    let mut asked = Vec::new();
    for _ in 0..50 {
        let (node, request) = (house.node.clone(), request.clone());
        asked.push(tokio::spawn(
            async move { node.ask_consortium(request).await },
        ));
    }
    let mut seen = Vec::new();
    for asked in asked {
        match asked.await.unwrap() {
            ConsortiumAnswer::Recorded {
                entry,
                position,
                repeated,
            } => seen.push((entry.id(), position, repeated)),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1)
    );
    assert_eq!(seen.iter().filter(|(_, _, repeated)| !repeated).count(), 1);
    assert_eq!(house.log().len(), 2);
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn several_ledgers_get_their_entries_together_or_not_at_all() {
    let house = House::founded().await;
    let names: Vec<String> = (0..100).map(|number| format!("CONT-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let created = house.create(1, &names, Policy::AtLeast(2));
    house.agree(1, "a", created, &[2]).await;
    // One of them is busy: the proposal for all waits, and takes none of them.
    let busy = house.append(2, &["CONT-57"], r#"{"no":"busy"}"#);
    let (busy, _, _) = house.recorded(house.proposal(2, "b", busy)).await;
    let all = house.append(3, &names, r#"{"no":"all"}"#);
    let (all, _, _) = house.recorded(house.proposal(3, "c", all)).await;
    assert_eq!(all.effects(), [Effect::Queued { behind: 1 }]);
    let total = |house: &House| names.iter().map(|name| house.size(name)).sum::<u64>();
    assert_eq!(total(&house), 100);
    let asked = house.book(|book| book.asked(&busy.id(), did(4)).unwrap());
    house
        .recorded(house.endorsement(4, busy.id(), asked.agreed))
        .await;
    assert_eq!(total(&house), 101);
    let asked = house.book(|book| book.asked(&all.id(), did(4)).unwrap());
    let (last, _, _) = house
        .recorded(house.endorsement(4, all.id(), asked.agreed))
        .await;
    assert!(committed(&last));
    assert_eq!(total(&house), 201);
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_proposal_expires_at_block_time_and_names_who_is_missing() {
    let house = House::founded().await;
    let created = house.create(1, &["CONT-1"], Policy::Unanimous);
    house.agree(1, "a", created, &[3, 4]).await;
    let before = house.node.head();
    house.node.tick();
    house.clock.0.fetch_add(TTL_MS, Ordering::SeqCst);
    house.node.tick();
    let mut follower = house.node.follow(before.next());
    let block = follower.next().await.unwrap();
    let block::Entry::Consortium(expiry) = &block.block.block.entries[0] else {
        panic!("{:?}", block.block);
    };
    assert_eq!(expiry.kind(), "expiry");
    let mut missing = vec![did(2), did(5)];
    missing.sort_unstable();
    let proposal = house.log()[1].id();
    assert_eq!(
        expiry.effects(),
        [Effect::Expired {
            proposal,
            was_open: true,
            missing,
        }]
    );
    assert_eq!(house.size("CONT-1"), 0);
    // Whoever comes late is told, and the name is free again.
    let late = house.endorsement(2, proposal, TreeHash([0; 32]));
    assert_eq!(house.refused(late).await, Code::Closed);
    let created = house.create(1, &["CONT-1"], Policy::AtLeast(2));
    assert!(committed(&house.agree(1, "b", created, &[2]).await));
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_who_propose_at_the_same_instant_both_come_to_their_turn() {
    let house = House::founded().await;
    let created = house.create(1, &["CONT-1"], Policy::AtLeast(2));
    house.agree(1, "a", created, &[2]).await;
    for round in 0..100 {
        let text = format!(r#"{{"no":"{round}"}}"#);
        let one = house.proposal(1, &text, house.append(1, &["CONT-1"], &text));
        let two = house.proposal(2, &text, house.append(2, &["CONT-1"], &text));
        let (one, two) = tokio::join!(house.recorded(one), house.recorded(two));
        let mut both = [(one.1, one.0), (two.1, two.0)];
        both.sort_by_key(|(position, _)| *position);
        for (_, proposed) in both {
            let asked = house.book(|book| book.asked(&proposed.id(), did(3)).unwrap());
            let request = house.endorsement(3, proposed.id(), asked.agreed);
            assert!(committed(&house.recorded(request).await.0));
        }
    }
    assert_eq!(house.size("CONT-1"), 201);
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_refused_is_not_written_and_says_why() {
    let house = House::on(SimulatedDisk::new(), START_MS);
    let early = house.proposal(1, "a", house.create(1, &["CONT-1"], Policy::Unanimous));
    assert_eq!(house.refused(early).await, Code::NotFounded);
    for (text, code) in [
        ("", Code::Malformed),
        ("{}", Code::Malformed),
        ("[1]", Code::Malformed),
    ] {
        let text = Bytes::from(text);
        assert_eq!(house.refused(Request { text }).await, code);
    }
    let large = Bytes::from(vec![
        b' ';
        daybook_ledger::consortium::REQUEST_BYTES_MAX + 1
    ]);
    assert_eq!(house.refused(Request { text: large }).await, Code::TooLarge);
    let stranger = Body::Found {
        members: vec![],
        settings: Settings::default(),
    };
    let stranger = house.request(&stranger, 7);
    assert_eq!(house.refused(stranger).await, Code::NotAFounder);
    assert_eq!(house.node.head(), Height(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_without_a_consortium_takes_no_requests() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, writer, _) =
        daybook_store::open(Path::new("/data"), disk, &genesis(), options()).unwrap();
    let mut options = StartOptions::new(key(200));
    options.consortium = false;
    let (node, running) = start(store, writer, options).unwrap();
    let text = Bytes::from_static(b"{}");
    let answer = node.ask_consortium(Request { text }).await;
    assert!(matches!(answer, ConsortiumAnswer::Off));
    running.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_index_finds_everything_about_a_proposal_a_member_and_a_ledger() {
    let house = House::founded().await;
    let created = house.create(1, &["CONT-1"], Policy::AtLeast(2));
    let last = house.agree(1, "a", created, &[2]).await;
    let proposal = house.log()[1].clone();
    let found = |key: IndexKey<'_>, order: Order| {
        let mut found = Vec::new();
        let mut take = |_, entry: Entry| {
            found.push(entry.id());
            true
        };
        let store = house.node.store();
        store.consortium_entries(key, order, &mut take).unwrap();
        found
    };
    let both = vec![proposal.id(), last.id()];
    for key in [
        IndexKey::Proposal(proposal.id()),
        IndexKey::Ledger("CONT-1"),
    ] {
        assert_eq!(found(key, Order::OldestFirst), both);
        let newest: Vec<_> = both.iter().rev().copied().collect();
        assert_eq!(found(key, Order::NewestFirst), newest);
    }
    let vote = IndexKey::Vote(proposal.id(), did(2));
    assert_eq!(found(vote, Order::OldestFirst), vec![last.id()]);
    assert_eq!(
        found(IndexKey::Ledger("CONT-2"), Order::OldestFirst),
        vec![]
    );
    let history = house.node.store().consortium_history();
    let newest = history.newest(IndexKey::Member(did(2))).unwrap();
    assert_eq!(newest.id(), last.id());
}
