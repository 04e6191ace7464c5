//! Ledgers that organisations share, on a real node: over its API, from the command line, and through
//! power cuts.
//!
//! `CRASH_ROUNDS` sets the number of kills, `CRASH_SEED` repeats a run's choices.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{Node, check, daybook, get, power_cuts};
use daybook_client::{
    BookEvent, Client, EventFilter, From,
    consortium::{ConsortiumClient, Outcome, SubmitError},
};
use daybook_ledger::{
    BlockTime, Height, Position, PublicKey, SigningKey, TransactionId,
    consortium::{
        Action, Batch, Body, Book, Card, Code, DEPTH_MAX, Did, Effect, Endorser, EndorserRules,
        Entry, Keys, Policy, Profile, Propose, Request, Verdict, canon_object, sign_entry,
        verify_export,
    },
    json::{Object, Value},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

/// Members of the network of these tests.
const MEMBERS: u8 = 5;
/// Proposals under way at once while the node is killed.
const PROPOSALS_MAX: usize = 8;
/// Entries of the log after which a round's kill comes, at most.
const ENTRIES_MAX: u64 = 40;
/// Between the last of them and the kill, at most: so that it falls anywhere in the work of a block.
const MICROSECONDS_MAX: u64 = 4_000;
/// How long members may agree, in milliseconds: longer than a node takes to come back.
const TTL_MS: u64 = 300_000;
/// How long anything is waited for before a test counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn did(seed: u8) -> Did {
    Did::of(&key(seed).public_key())
}

/// Makes the data directory of a node whose network has all members.
fn prepare(folder: &Path) -> PathBuf {
    let dir = folder.join("data");
    std::fs::create_dir_all(&dir).unwrap();
    let mut cards = Vec::new();
    for seed in 1..=MEMBERS {
        let profile = Profile {
            label: format!("Member {seed}"),
            ..Profile::default()
        };
        let card = Card::first(profile, &key(seed));
        let path = folder.join(format!("{seed}.card"));
        std::fs::write(&path, canon_object(&card.to_object())).unwrap();
        cards.push(format!("\"{}\"", path.display()));
    }
    let settings = format!(
        "[consortium]\nmembers = [{}]\ndocuments = \"any\"\n",
        cards.join(", ")
    );
    std::fs::write(dir.join("daybook.toml"), settings).unwrap();
    dir
}

fn client(node: &Node) -> ConsortiumClient {
    let client = Client::builder(node.url().parse().unwrap())
        .settle_within(PATIENCE)
        .build()
        .unwrap();
    ConsortiumClient::new(client)
}

fn signed(seed: u8, text: &str) -> Object {
    let value: Value = text.parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let object = value.as_object().unwrap().clone();
    sign_entry(object, now.as_secs(), &key(seed), DEPTH_MAX).unwrap()
}

fn create(seed: u8, names: &[&str], policy: Policy) -> Action {
    Action::Create {
        ledgers: names.iter().map(ToString::to_string).collect(),
        participants: (1..=MEMBERS).map(did).collect(),
        policy,
        batch: Batch::new(&[signed(seed, r#"{"no":"genesis"}"#)]),
    }
}

fn append(seed: u8, names: &[&str], text: &str) -> Action {
    Action::Append {
        ledgers: names.iter().map(ToString::to_string).collect(),
        batch: Batch::new(&[signed(seed, text)]),
    }
}

async fn proposal(client: &ConsortiumClient, seed: u8, name: &str, action: Action) -> Request {
    let network = client.network().await.unwrap();
    let body = Body::Propose(Propose {
        member: did(seed),
        request: name.to_owned(),
        deadline: BlockTime(network.now.0 + TTL_MS),
        action,
    });
    Request::sign(network.network, &body, &key(seed))
}

/// How far a member's own copy of the book is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// The newest entry.
    position: Position,
    /// Entries in all.
    entries: u64,
    /// Proposals that are not decided.
    pending: usize,
}

/// A member that follows the log with a copy of the book, and endorses what it finds sound.
struct Member {
    book: Arc<Mutex<Book>>,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Member {
    /// A permit is given for every proposal that is decided.
    async fn start(client: &ConsortiumClient, seed: u8, decided: Option<Arc<Semaphore>>) -> Member {
        let facts = client.network().await.unwrap();
        let (network, genesis) = (facts.network, facts.genesis);
        let book = Arc::new(Mutex::new(Book::default()));
        let (tell, seen) = watch::channel(Seen {
            position: Position::default(),
            entries: 0,
            pending: 0,
        });
        let (client, kept) = (client.clone(), book.clone());
        let task = tokio::spawn(async move {
            let prover = daybook_ledger::consortium::Prover::new(&genesis);
            let rules = EndorserRules::default();
            let mut endorser = Endorser::new(did(seed), rules, prover);
            let mut followed = client.follow(ConsortiumClient::BEGINNING);
            let mut entries = 0;
            loop {
                let (position, _, entry) = followed.next().await.unwrap();
                entries += 1;
                let questions = {
                    let mut book = kept.lock().unwrap();
                    book.record(&entry, position.height).unwrap();
                    book.forget(position.height);
                    let questions = book.questions(did(seed));
                    let requests: Vec<Request> = questions
                        .iter()
                        .map(|asked| {
                            let verdict = endorser.judge(asked, &book);
                            assert_eq!(verdict, Verdict::Endorse);
                            let body = Body::Endorse {
                                member: did(seed),
                                proposal: asked.entry.id(),
                                agreed: asked.agreed,
                            };
                            Request::sign(network, &body, &key(seed))
                        })
                        .collect();
                    tell.send_replace(Seen {
                        position,
                        entries,
                        pending: book.pending_count(),
                    });
                    requests
                };
                let done = entry.effects().iter().filter(|effect| effect.is_final());
                if let Some(decided) = &decided {
                    decided.add_permits(done.count());
                }
                for request in questions {
                    match client.submit(&request).await {
                        Ok(_) => {}
                        // Taken before the node was killed, or decided by others meanwhile.
                        Err(SubmitError::Refused(refusal))
                            if matches!(
                                refusal.code,
                                Code::AlreadyEndorsed | Code::Closed | Code::Expired
                            ) => {}
                        Err(error) => panic!("member {seed}: {error}"),
                    }
                }
            }
        });
        Member { book, seen, task }
    }

    async fn wait(&mut self, what: impl FnMut(&Seen) -> bool) {
        let waited = timeout(PATIENCE, self.seen.wait_for(what)).await;
        waited.expect("the log goes on").unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rebuilds the book from nothing but the log, as a node shows it.
async fn replay(client: &ConsortiumClient) -> (Book, Vec<(Position, Entry)>) {
    let mut all = Vec::new();
    let mut next = ConsortiumClient::BEGINNING;
    loop {
        let page = client.entries(next, 50).await.unwrap();
        next = page.next;
        all.extend(page.entries);
        if page.is_last {
            break;
        }
    }
    let mut book = Book::default();
    for (position, entry) in &all {
        book.record(entry, position.height).unwrap();
        book.forget(position.height);
    }
    book.audit().unwrap();
    (book, all)
}

#[test]
fn items_31_and_36_a_node_killed_at_any_stage_ends_every_proposal_in_one_way() {
    power_cuts(killed);
}

const LEDGERS: [&str; 4] = ["CONT-1", "CONT-2", "CONT-3", "CONT-4"];

async fn killed(seed: u64, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let dir = prepare(folder.path());
    let mut random = StdRng::seed_from_u64(seed);
    let mut node = Node::start_with(&dir, &[]);
    let address = node.address().to_owned();
    let client = client(&node);
    let room = Arc::new(Semaphore::new(0));
    let mut members = vec![Member::start(&client, 1, Some(room.clone())).await];
    for seed in 2..=MEMBERS {
        members.push(Member::start(&client, seed, None).await);
    }
    for (place, name) in LEDGERS.into_iter().enumerate() {
        let policy = if place % 2 == 0 {
            Policy::Unanimous
        } else {
            Policy::AtLeast(3)
        };
        let request = proposal(&client, 1, name, create(1, &[name], policy)).await;
        client.submit(&request).await.unwrap();
    }
    members[0]
        .wait(|seen| seen.entries > 1 && seen.pending == 0)
        .await;
    // Permits so far were for what was just decided.
    room.forget_permits(usize::MAX);
    room.add_permits(PROPOSALS_MAX);

    let over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let mut proposers = Vec::new();
    for seed in 1..=3 {
        let random = StdRng::seed_from_u64(random.random());
        proposers.push(tokio::spawn(propose(
            client.clone(),
            seed,
            random,
            room.clone(),
            over.clone(),
            acknowledged.clone(),
        )));
    }

    for round in 1..=rounds {
        let before = members[1].seen.borrow().entries;
        let target = before + random.random_range(1..=ENTRIES_MAX);
        let after = Duration::from_micros(random.random_range(0..=MICROSECONDS_MAX));
        members[1].wait(|seen| seen.entries >= target).await;
        tokio::time::sleep(after).await;
        node.kill();
        node = Node::start_with(&dir, &["--listen", &address]);
        let (book, _) = replay(&client).await;
        println!("round {round}: {} proposals pending", book.pending_count());
    }
    over.store(true, Ordering::Release);
    for proposer in proposers {
        proposer.await.unwrap();
    }
    let acknowledged = Arc::try_unwrap(acknowledged).unwrap().into_inner().unwrap();
    let newest = acknowledged.values().map(|(position, _)| *position).max();
    for member in &mut members {
        member
            .wait(|seen| seen.position >= newest.unwrap() && seen.pending == 0)
            .await;
    }
    compare(&client, &members, &acknowledged).await;
    drop(members);
    assert_eq!(node.stop().code(), Some(0));
    check(&dir);
}

/// What every proposer was told of its requests: by member and its own name for them.
type Acknowledged = Arc<Mutex<BTreeMap<(Did, String), (Position, TransactionId)>>>;

/// Proposes until it is over, and never notices that the node is killed.
async fn propose(
    client: ConsortiumClient,
    seed: u8,
    mut random: StdRng,
    room: Arc<Semaphore>,
    over: Arc<AtomicBool>,
    acknowledged: Acknowledged,
) {
    let mut number = 0;
    while !over.load(Ordering::Acquire) {
        timeout(PATIENCE, room.acquire())
            .await
            .expect("proposals are decided")
            .unwrap()
            .forget();
        number += 1;
        let first = random.random_range(0..LEDGERS.len());
        let second = (first + random.random_range(1..LEDGERS.len())) % LEDGERS.len();
        let both = [LEDGERS[first], LEDGERS[second]];
        let names = if random.random_bool(0.4) {
            &both[..]
        } else {
            &both[..1]
        };
        let name = format!("request-{number}");
        let action = append(seed, names, &format!(r#"{{"by":{seed},"no":{number}}}"#));
        let request = loop {
            // The node may be down when it is asked for its time.
            match timeout(PATIENCE, client.network()).await.unwrap() {
                Ok(network) => {
                    let body = Body::Propose(Propose {
                        member: did(seed),
                        request: name.clone(),
                        deadline: BlockTime(network.now.0 + TTL_MS),
                        action,
                    });
                    break Request::sign(network.network, &body, &key(seed));
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        };
        let outcome: Outcome = client.submit(&request).await.unwrap();
        let told = (outcome.position, outcome.entry.id());
        acknowledged.lock().unwrap().insert((did(seed), name), told);
        if random.random_bool(0.2) {
            let again = client.submit(&request).await.unwrap();
            assert!(again.repeated);
            assert_eq!((again.position, again.entry.id()), told);
        }
    }
}

/// Compares everything with everything.
async fn compare(
    client: &ConsortiumClient,
    members: &[Member],
    acknowledged: &BTreeMap<(Did, String), (Position, TransactionId)>,
) {
    let (book, log) = replay(client).await;
    let places: BTreeMap<TransactionId, Position> = log
        .iter()
        .map(|(position, entry)| (entry.id(), *position))
        .collect();
    assert_eq!(places.len(), log.len(), "no entry comes twice");
    for (request, (position, id)) in acknowledged {
        assert_eq!(places.get(id), Some(position), "{request:?}");
    }
    let mut requests = BTreeMap::new();
    let mut ends = BTreeMap::new();
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for (_, entry) in &log {
        if let Some(propose) = entry.propose() {
            let name = (propose.member, propose.request.clone());
            assert_eq!(requests.insert(name, entry.clone()), None, "proposed twice");
        }
        for effect in entry.effects().iter().filter(|effect| effect.is_final()) {
            let proposal = effect.proposal().unwrap_or(entry.id());
            assert_eq!(ends.insert(proposal, effect.clone()), None, "decided twice");
            if let Effect::Committed { states, .. } = effect {
                for state in states {
                    let size = sizes.entry(state.name.clone()).or_default();
                    assert_eq!(*size, state.size, "{} follows itself", state.name);
                    *size = state.uncommitted_size;
                }
            }
        }
    }
    for proposed in requests.values() {
        let end = ends.get(&proposed.id()).expect("every proposal ends");
        let Effect::Committed { states, .. } = end else {
            panic!("nobody refused and nothing was late, yet {end:?}");
        };
        let mut names: Vec<&String> = states.iter().map(|state| &state.name).collect();
        let mut wanted: Vec<&String> = proposed
            .propose()
            .unwrap()
            .action
            .ledgers()
            .iter()
            .collect();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "all of its ledgers, or none");
    }
    println!("{} proposals in {} entries", requests.len(), log.len());
    for name in LEDGERS {
        let ledger = book.ledger(name).unwrap();
        let shown = client.ledger(name).await.unwrap().unwrap();
        assert_eq!(shown["size"], ledger.frontier.size());
        assert_eq!(shown["root_hash"], ledger.frontier.root().to_string());
        assert_eq!(sizes[name], ledger.frontier.size());
        let file = client.export(name).await.unwrap();
        let report = verify_export(&file, &Keys::of(&book));
        assert_eq!(report.findings, [], "{name}");
        assert_eq!(report.size, ledger.frontier.size());
    }
    for member in members {
        assert_eq!(member.book.lock().unwrap().encode(), book.encode());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_founded_once_and_new_members_are_admitted_at_a_later_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = prepare(folder.path());
    let node = Node::start_with(&dir, &["--tracker-enabled", "false"]);
    let facts = get(&format!("{}/api/v1/consortium", node.url()));
    assert_eq!(
        (&facts["founded"], &facts["members"]),
        (&true.into(), &5.into())
    );
    let height = facts["height"].as_u64().unwrap();
    assert_eq!(node.stop().code(), Some(0));

    let card = Card::first(
        Profile {
            label: "Member 6".to_owned(),
            ..Profile::default()
        },
        &key(6),
    );
    let path = folder.path().join("6.card");
    std::fs::write(&path, canon_object(&card.to_object())).unwrap();
    let settings = std::fs::read_to_string(dir.join("daybook.toml")).unwrap();
    let settings = settings.replace(
        "]\ndocuments",
        &format!(", \"{}\"]\ndocuments", path.display()),
    );
    std::fs::write(dir.join("daybook.toml"), settings).unwrap();
    let node = Node::start_with(&dir, &["--tracker-enabled", "false"]);
    let facts = get(&format!("{}/api/v1/consortium", node.url()));
    assert_eq!(facts["members"], 6);
    assert_eq!(
        facts["height"],
        height + 1,
        "one block for the one who is new"
    );
    let member = client(&node).member(did(6)).await.unwrap().unwrap();
    assert_eq!(member["card"]["label"], "Member 6");
    assert_eq!(client(&node).member(did(7)).await.unwrap(), None);
}

#[test]
fn a_node_that_names_no_members_writes_nothing_for_a_consortium() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), &["--tracker-enabled", "false"]);
    let facts = get(&format!("{}/api/v1/consortium", node.url()));
    assert_eq!(
        (&facts["founded"], &facts["height"]),
        (&false.into(), &0.into())
    );
    let page = get(&format!("{}/api/v1/consortium/entries", node.url()));
    assert_eq!(
        page,
        serde_json::json!({ "entries": [], "next": "1.0", "is_last": true })
    );
    assert_eq!(node.stop().code(), Some(0));
    let node = Node::start_with(folder.path(), &["--consortium-enabled", "false"]);
    let missing = get(&format!("{}/api/v1/consortium", node.url()));
    assert_eq!(missing["status"], 404);
}

/// Writes the key file of a member.
fn key_file(folder: &Path, seed: u8) -> String {
    let path = folder.join(format!("{seed}.key"));
    let file = serde_json::json!({
        "type": "ed25519",
        "public_key": key(seed).public_key().to_string(),
        "private_key": PublicKey([seed; 32]).to_string(),
    });
    std::fs::write(&path, file.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_26_a_ledger_is_made_read_proven_and_verified_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let dir = prepare(folder.path());
    let node = Node::start_with(&dir, &[]);
    let client = client(&node);
    let mut members = Vec::new();
    for seed in 2..=MEMBERS {
        members.push(Member::start(&client, seed, None).await);
    }
    let (key, url) = (key_file(folder.path(), 1), node.url().to_owned());
    // A name that shells, paths and queries would all trip over (item 19).
    let name = "CONT \"$(x)\"; a/b, ü?#%";
    let participants: Vec<String> = (2..=MEMBERS).map(|seed| did(seed).to_string()).collect();
    let run = |args: Vec<String>| async move {
        tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            daybook(&args)
        })
        .await
        .unwrap()
    };
    let args = |words: &[&str]| -> Vec<String> {
        let words = ["--json", "ledger"].iter().chain(words);
        words.map(ToString::to_string).collect()
    };

    let mut making = args(&["create", name, "--key", &key, "--url", &url]);
    making.extend(["--entry".to_owned(), r#"{"no":"A-1"}"#.to_owned()]);
    for participant in &participants {
        making.extend(["--participant".to_owned(), participant.clone()]);
    }
    let made = run(making.clone()).await.ok().json();
    let committed = made.last().unwrap();
    assert_eq!(
        (&committed["event"], &committed["size"]),
        (&"committed".into(), &1.into())
    );
    let again = run(making).await;
    assert_eq!(again.exit, 1);
    assert!(again.stderr.contains("ledger_exists"), "{}", again.stderr);

    let appending = ["append", name, "--key", &key, "--url", &url, "--entry"];
    let entry = r#"{"no":"A-2","cargo":"Арбузы","txnMetadata":{}}"#;
    let appending = [&appending[..], &[entry, "--request", "mine"]].concat();
    let added = run(args(&appending)).await.ok().json();
    assert_eq!(added.last().unwrap()["size"], 2);
    let added = run(args(&appending)).await.ok().json();
    assert_eq!(
        added[0]["repeated"], true,
        "the same request changes nothing"
    );
    assert_eq!(added.last().unwrap()["size"], 2);

    let listed = run(args(&["list", "--url", &url])).await.ok().one();
    assert_eq!(
        (&listed["name"], &listed["size"]),
        (&name.into(), &2.into())
    );
    let shown = run(args(&["show", name, "--url", &url])).await.ok().json();
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[2]["txn"]["cargo"], "Арбузы");
    for words in [
        &["prove", name, "2"][..],
        &["prove", name, "1", "--size", "1"],
        &["prove", name, "--since", "1"],
    ] {
        let words = [words, &["--url", &url]].concat();
        assert_eq!(run(args(&words)).await.ok().one()["proven"], true);
    }
    let beyond = run(args(&["prove", name, "3", "--url", &url])).await;
    assert_eq!(beyond.exit, 1);

    let file = folder.path().join("export.jsonl").display().to_string();
    run(args(&["export", name, "--out", &file, "--url", &url]))
        .await
        .ok();
    let keys = run(args(&["members", "--url", &url])).await.ok();
    let known = folder.path().join("members.json").display().to_string();
    std::fs::write(&known, keys.stdout).unwrap();
    drop(members);
    assert_eq!(node.stop().code(), Some(0));

    // From here on there is no node.
    let sound = run(args(&["verify", &file, "--members", &known]))
        .await
        .ok()
        .one();
    assert_eq!((&sound["sound"], &sound["size"]), (&true.into(), &2.into()));
    let mut cards = args(&["verify", &file]);
    for seed in 1..=MEMBERS {
        let card = folder.path().join(format!("{seed}.card"));
        cards.extend(["--card".to_owned(), card.display().to_string()]);
    }
    assert_eq!(run(cards).await.ok().one()["sound"], true);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("Арбузы", "Арбузя")).unwrap();
    let forged = run(args(&["verify", &file, "--members", &known])).await;
    assert_eq!(forged.exit, 1);
    assert_eq!(forged.one()["sound"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_a_status_a_code_and_a_sentence_and_pages_end() {
    let folder = tempfile::tempdir().unwrap();
    let dir = prepare(folder.path());
    let node = Node::start_with(&dir, &[]);
    let client = client(&node);
    let request = proposal(&client, 1, "a", create(1, &["CONT-1"], Policy::Unanimous)).await;
    let first = client.submit(&request).await.unwrap();
    let id = first.entry.id();
    let refused = async |request: Request| match client.submit(&request).await {
        Err(SubmitError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    let other = proposal(&client, 1, "a", create(1, &["CONT-2"], Policy::Unanimous)).await;
    assert_eq!(refused(other).await, Code::RequestReused);
    let unknown = proposal(&client, 1, "b", append(1, &["CONT-9"], "{}")).await;
    assert_eq!(refused(unknown).await, Code::UnknownLedger);
    let text = bytes::Bytes::from_static(b"{}");
    assert_eq!(refused(Request { text }).await, Code::Malformed);
    // A body that is signed by somebody who is not in the network.
    let foreign = proposal(&client, 9, "c", create(9, &["CONT-3"], Policy::Unanimous)).await;
    assert_eq!(refused(foreign).await, Code::UnknownMember);

    let shown = client.proposal(&id).await.unwrap().unwrap();
    assert_eq!(shown["status"], "open");
    assert_eq!(shown["missing"].as_array().unwrap().len(), 4);
    let network = client.network().await.unwrap().network;
    let body = Body::Refuse {
        member: did(2),
        proposal: id,
        reason: "the seal is broken".to_owned(),
    };
    client
        .submit(&Request::sign(network, &body, &key(2)))
        .await
        .unwrap();
    let shown = client.proposal(&id).await.unwrap().unwrap();
    assert_eq!(shown["status"], "refused");
    assert_eq!(shown["votes"][0]["reason"], "the seal is broken");
    assert_eq!(client.ledger("CONT-1").await.unwrap(), None);

    // One entry at a time is the same as all at once.
    let (book, all) = replay(&client).await;
    let mut next = ConsortiumClient::BEGINNING;
    let mut one_by_one = Vec::new();
    loop {
        let page = client.entries(next, 1).await.unwrap();
        next = page.next;
        one_by_one.extend(page.entries);
        if page.is_last {
            break;
        }
    }
    assert_eq!(one_by_one, all);
    let members = client.members(None).await.unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 5);
    assert_eq!(book.members().count(), 5);
    let base = format!("{}/api/v1/consortium", node.url());
    let nobody = format!("/proposals/{}", TransactionId([0; 32]));
    for (path, status) in [
        (nobody.as_str(), Some(404)),
        ("/entries?from=x", None),
        ("/entries?limit=0", None),
        ("/entries?form=1", None),
        ("/ledgers/none", Some(404)),
        ("/ledgers/none/entries", Some(404)),
        ("/ledgers/none/proof?seq_no=1", Some(404)),
        ("/ledgers/none/export", Some(404)),
        ("/members/none", Some(404)),
        ("/proposals/none", Some(404)),
        ("/requests", None),
    ] {
        let answer = get(&format!("{base}{path}"));
        assert!(answer.get("message").is_some(), "{path}: {answer}");
        if let Some(status) = status {
            assert_eq!(answer["status"], status, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_stream_tells_each_step_to_whoever_asks_for_a_member_or_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let dir = prepare(folder.path());
    let node = Node::start_with(&dir, &[]);
    let client = client(&node);
    let action = create(1, &["CONT-1"], Policy::AtLeast(2));
    let first = client
        .submit(&proposal(&client, 1, "a", action).await)
        .await
        .unwrap();
    let Effect::Opened { agreed, .. } = first.entry.effects()[0] else {
        panic!("{:?}", first.entry);
    };
    let network = client.network().await.unwrap().network;
    let body = Body::Endorse {
        member: did(2),
        proposal: first.entry.id(),
        agreed,
    };
    let last = client
        .submit(&Request::sign(network, &body, &key(2)))
        .await
        .unwrap();

    let told = async |keys: Vec<String>, count: usize| {
        let filter = EventFilter {
            kinds: vec!["consortium".to_owned()],
            keys,
        };
        let mut events = client.client().events(From::Height(Height(1)), filter);
        let mut told = Vec::new();
        while told.len() < count {
            told.push(timeout(PATIENCE, events.next()).await.unwrap().unwrap());
        }
        told
    };
    let kinds = |events: &[BookEvent]| -> Vec<String> {
        events.iter().map(|event| event.kind.clone()).collect()
    };
    let all = told(vec![], 3).await;
    let every = [
        "consortium.found",
        "consortium.propose",
        "consortium.endorse",
    ];
    assert_eq!(kinds(&all), every);
    let of_ledger = told(vec!["CONT-1".to_owned()], 2).await;
    assert_eq!(kinds(&of_ledger), every[1..]);
    let of_member = told(vec![did(2).to_string()], 3).await;
    assert_eq!(kinds(&of_member), every);
    let end = &all[2];
    assert_eq!(end.id, last.entry.id());
    assert_eq!(end.time, last.entry.at().0);
    let effect = &end.body["effects"][0];
    assert_eq!(effect["effect"], "committed");
    assert_eq!(effect["proposal"], first.entry.id().to_string());
    assert_eq!(effect["ledgers"][0]["name"], "CONT-1");
    assert_eq!(effect["ledgers"][0]["size"], 1);
}

#[test]
fn a_command_that_nobody_answers_ends_at_the_deadline_and_names_who_was_missing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = prepare(folder.path());
    let node = Node::start_with(&dir, &[]);
    let key = key_file(folder.path(), 1);
    let (two, three) = (did(2).to_string(), did(3).to_string());
    let making = [
        &["ledger", "create", "CONT-1", "--url", node.url()][..],
        &["--key", &key, "--entry", r#"{"no":"A-1"}"#],
        &["--participant", &two, "--participant", &three],
        &["--deadline-seconds", "3"],
    ];
    let made = daybook(&making.concat());
    assert_eq!(made.exit, 1);
    assert!(made.complaint().contains("expired; missing: "), "{made:?}");
    assert!(made.complaint().contains(&two), "{made:?}");
    assert!(made.complaint().contains(&three), "{made:?}");
    let listed = daybook(&["ledger", "list", "--url", node.url()]).ok();
    assert_eq!(listed.stdout, "", "nothing is left of it");
}
