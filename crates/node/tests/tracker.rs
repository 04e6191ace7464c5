//! The node's tracker from its first start on: keys, token, deposit, settings, and power cuts.
//!
//! `CRASH_ROUNDS` sets the number of kills, `CRASH_SEED` repeats a run's choices.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Node, check, daybook, get, post, power_cuts};
use daybook_client::{
    Client, Fate, Submission,
    tracker::{ChannelState, CoSigned, Contract, Listing, PeerKey, Price, Settled, Suite, Tracker},
};
use daybook_ledger::{
    Draft, Operation, OutputRef, PublicKey, SigningKey, TransactionId,
    tracker::{Address, draft},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};

/// Peers who open, pay and close without noticing the kills.
const WORKERS: usize = 4;
/// Peers whose tokens go through the asset ledger as well, meanwhile.
const EARNERS: u8 = 2;
/// Acknowledged commands after which a round's kill comes, at most.
const ACKNOWLEDGED_MAX: u64 = 60;
/// Between the last of them and the kill, at most: so that it falls anywhere in the work of a block.
const MICROSECONDS_MAX: u64 = 4_000;
/// How long anything is waited for before the test counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens of the first deposit.
const MINT: u64 = 100_000;
/// Tokens that the faucet gives at a time.
const GIFT: u64 = 50;
const PRICE: Price = Price {
    amount: 500,
    power: 25,
};

fn info(node: &Node) -> Value {
    get(&format!("{}/api/v1/tracker", node.url()))
}

fn height(node: &Node) -> u64 {
    info(node)["head"]["height"].as_u64().unwrap()
}

async fn connect(url: &str, key: PeerKey) -> Tracker {
    let builder = Tracker::builder(url.parse().unwrap(), key);
    builder.timeout(PATIENCE).connect().await.unwrap()
}

/// What two peers sign to open a channel, and to close it.
fn signed(text: String, payer: &PeerKey, payee: &PeerKey) -> CoSigned {
    CoSigned {
        from_pk: payer.pem().to_owned(),
        from_sign: payer.sign(&text),
        to_pk: payee.pem().to_owned(),
        to_sign: payee.sign(&text),
        message: text,
    }
}

#[test]
fn the_first_start_opens_the_tracker_and_later_ones_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let node = Node::start(&dir);
    let first = info(&node);
    assert_eq!(first["wallet"], MINT.to_string());
    assert_eq!(first["held"], first["wallet"]);
    for name in [
        "tracker-rsa.key",
        "tracker-ed25519.key",
        "tracker-holder.key",
        "token.key",
    ] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(node.stop().code(), Some(0));
    let node = Node::start(&dir);
    let second = info(&node);
    for member in [
        "pem", "keys", "token", "holder", "wallet", "held", "prices", "head",
    ] {
        assert_eq!(second[member], first[member], "{member}");
    }
    // A token of the node is an asset like any other.
    let token = first["token"].as_str().unwrap();
    let created = get(&format!("{}/api/v1/transactions/{token}", node.url()));
    assert_eq!(created["operation"], "CREATE");
    // Changed settings hold from the next start on, and are an entry of the log.
    assert_eq!(node.stop().code(), Some(0));
    let node = Node::start_with(&dir, &["--tracker-income-price", "400"]);
    assert_eq!(info(&node)["prices"]["incomeMin"]["amount"], "400");
    assert_eq!(height(&node), first["head"]["height"].as_u64().unwrap() + 1);
    assert_eq!(node.stop().code(), Some(0));
    let path = dir.display().to_string();
    daybook(&["check", "--data-dir", &path]).ok();
}

#[test]
fn config_show_tells_the_public_ids_of_the_tracker_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let path = dir.display().to_string();
    let shown = || {
        let shown = daybook(&["--json", "config", "show", "--data-dir", &path]).ok();
        let made = shown.json().into_iter();
        let made = made.filter_map(|line| Some((line["made"].as_str()?.to_owned(), line)));
        let values = made.map(|(name, line)| (name, line["value"].as_str().unwrap().to_owned()));
        (values.collect::<BTreeMap<_, _>>(), shown.stdout)
    };
    assert!(shown().0.is_empty(), "nothing was made yet");
    let node = Node::start(&dir);
    let told = info(&node);
    // Beside the running node, and after it.
    let beside = shown().0;
    assert_eq!(node.stop().code(), Some(0));
    let (made, text) = shown();
    assert_eq!(beside, made);
    for name in ["token", "holder", "id", "address"] {
        assert_eq!(made[&format!("tracker.{name}")], told[name], "{name}");
    }
    assert_eq!(made["tracker.key_1"], told["pem"]);
    for (place, key) in (1..).zip(told["keys"].as_array().unwrap()) {
        assert_eq!(made[&format!("tracker.key_{place}")], key["pk"]);
    }
    for name in [
        "tracker-rsa.key",
        "tracker-ed25519.key",
        "tracker-holder.key",
        "token.key",
    ] {
        let file: Value = serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap();
        let secret = file["private_key"].as_str().unwrap();
        assert!(!text.contains(&secret[..40]), "{name}");
    }
    // A copy of what the log says: lost, it is written anew.
    std::fs::remove_file(dir.join("tracker.json")).unwrap();
    assert_eq!(Node::start(&dir).stop().code(), Some(0));
    assert_eq!(shown().0, made);
}

#[test]
fn a_tracker_without_its_keys_is_not_begun_anew_and_may_be_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    assert_eq!(Node::start(&dir).stop().code(), Some(0));
    let path = dir.display().to_string();
    let off = [
        "--listen",
        "127.0.0.1:0",
        "--streams-listen",
        "off",
        "--bus-listen",
        "off",
    ];
    let start = |more: &[&str]| {
        let flags = [&["start", "--data-dir", &*path][..], &off, more].concat();
        daybook(&flags)
    };
    for name in ["tracker-rsa.key", "tracker-holder.key"] {
        let (here, away) = (dir.join(name), folder.path().join(name));
        std::fs::rename(&here, &away).unwrap();
        let refused = start(&[]);
        assert_ne!(refused.exit, 0);
        assert!(
            refused.complaint().contains(&format!("{name} is missing")),
            "{refused:?}"
        );
        std::fs::rename(&away, &here).unwrap();
    }
    std::fs::remove_file(dir.join("token.key")).unwrap();
    let node = Node::start_with(&dir, &["--tracker-enabled", "false"]);
    assert_eq!(info(&node)["status"], 404);
}

#[test]
fn a_restored_backup_holds_the_keys_of_all_that_the_tracker_owes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (dir, backup, restored) = (path("data"), path("backup"), path("restored"));
    let node = Node::start(Path::new(&dir));
    let before = info(&node);
    daybook(&["backup", "--data-dir", &dir, "--to", &backup]).ok();
    assert_eq!(node.stop().code(), Some(0));
    daybook(&["restore", "--from", &backup, "--data-dir", &restored]).ok();
    // It would refuse to go on with other keys than those that the ledger names.
    let node = Node::start(Path::new(&restored));
    for member in ["pem", "keys", "token", "holder", "wallet", "head"] {
        assert_eq!(info(&node)[member], before[member], "{member}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").display().to_string();
    for (flag, value, name) in [
        ("--tracker-quantum-power", "63", "tracker.quantum_power"),
        ("--tracker-mint", "9000000000001", "tracker.mint"),
        ("--tracker-token-owner", "nobody", "tracker.token_owner"),
        ("--tracker-spend-grant", "0", "tracker.spend_grant"),
        ("--tracker-token-name", "", "tracker.token_name"),
    ] {
        let refused = daybook(&["start", "--data-dir", &path, flag, value]);
        assert_ne!(refused.exit, 0);
        assert!(refused.complaint().contains(name), "{refused:?}");
    }
}

#[test]
fn whoever_owns_the_token_deposits_by_an_ordinary_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let owner = SigningKey::from_seed([7; 32]);
    let key = owner.public_key().to_string();
    let flags = [
        "--tracker-token-owner",
        &key,
        "--tracker-token-amount",
        "5000",
    ];
    let flags = [&flags[..], &["--tracker-mint", "0"]].concat();
    let node = Node::start_with(&folder.path().join("data"), &flags);
    let before = info(&node);
    assert_eq!(before["wallet"], "0");
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let peer = connect(node.url(), PeerKey::generate(Suite::Ed25519)).await;
        let refused = peer.open_spend().await.unwrap_err();
        assert_eq!(refused.code(), Some("tracker_empty"));
        let token: daybook_ledger::TransactionId =
            before["token"].as_str().unwrap().parse().unwrap();
        let holder: daybook_ledger::PublicKey = before["holder"].as_str().unwrap().parse().unwrap();
        let output = daybook_ledger::OutputRef {
            transaction: token,
            index: 0,
        };
        let deposit = Draft::transfer(token.as_asset())
            .spend(output, &owner)
            .output(4_000, holder)
            .output(1_000, &owner)
            .sign(&[&owner])
            .unwrap();
        let fate = node.client().commit(&Submission::from(&deposit)).await;
        assert!(matches!(fate, Fate::Committed(_)), "{fate:?}");
        assert_eq!(peer.open_spend().await.unwrap().current.amount, 4_000);
    });
    assert_eq!(
        (&info(&node)["wallet"], &info(&node)["held"]),
        (&"0".into(), &"4000".into())
    );
}

/// Sends the whole of one output of the token to the tracker's holder.
async fn deposit_all(node: &Node, output: daybook_ledger::OutputRef, owner: &SigningKey) -> Fate {
    let facts = info(node);
    let token: daybook_ledger::TransactionId = facts["token"].as_str().unwrap().parse().unwrap();
    let holder: PublicKey = facts["holder"].as_str().unwrap().parse().unwrap();
    let deposit = Draft::transfer(token.as_asset())
        .spend(output, owner)
        .output(GIFT, holder)
        .sign(&[owner])
        .unwrap();
    node.client().commit(&Submission::from(&deposit)).await
}

#[test]
fn the_faucet_of_a_development_node_gives_the_trackers_token() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let node = Node::start_with(&dir, &["--dev"]);
    let faucet = format!("{}/send_tokens", node.url());
    assert_eq!(get(&faucet)["asset_id"], info(&node)["token"]);
    let owner = SigningKey::from_seed([9; 32]);
    let given = post(&format!("{faucet}?address={}", owner.public_key()));
    assert_eq!(given["status"], "ok", "{given}");
    assert_eq!(given["asset_id"], info(&node)["token"]);
    // What was got at one door is spent at another: a deposit raises the tracker's wallet.
    let gift = daybook_ledger::OutputRef {
        transaction: given["transaction_id"].as_str().unwrap().parse().unwrap(),
        index: 0,
    };
    let runtime = Runtime::new().unwrap();
    let fate = runtime.block_on(deposit_all(&node, gift, &owner));
    assert!(matches!(fate, Fate::Committed(_)), "{fate:?}");
    assert_eq!(info(&node)["wallet"], (MINT + GIFT).to_string());
    assert_eq!(node.stop().code(), Some(0));
    // It is the same token after a restart, and there is no faucet but on a development node.
    let node = Node::start_with(&dir, &["--dev"]);
    let faucet = format!("{}/send_tokens", node.url());
    assert_eq!(get(&faucet)["asset_id"], given["asset_id"]);
    let again = post(&format!("{faucet}?address={}", owner.public_key()));
    assert_eq!(again["status"], "ok", "{again}");
    assert_eq!(node.stop().code(), Some(0));
    let node = Node::start(&dir);
    let faucet = format!("{}/send_tokens", node.url());
    assert_eq!(get(&faucet)["status"], 404);
}

#[test]
fn a_faucet_whose_token_somebody_else_owns_says_how_to_fill_it() {
    let folder = tempfile::tempdir().unwrap();
    let owner = SigningKey::from_seed([7; 32]);
    let key = owner.public_key().to_string();
    let flags = ["--dev", "--tracker-token-owner", &key];
    let node = Node::start_with(&folder.path().join("data"), &flags);
    let refused = post(&format!("{}/send_tokens?address={key}", node.url()));
    assert_eq!(refused["status"], "error");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("the faucet is empty"), "{message}");
    let token = info(&node)["token"].as_str().unwrap().to_owned();
    assert!(message.contains(&token), "{message}");
}

#[test]
fn without_a_tracker_the_faucet_has_a_token_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--dev", "--tracker-enabled", "false"];
    let node = Node::start_with(&folder.path().join("data"), &flags);
    let owner = SigningKey::from_seed([9; 32]).public_key();
    let given = post(&format!("{}/send_tokens?address={owner}", node.url()));
    assert_eq!(given["status"], "ok", "{given}");
    let asset = given["asset_id"].as_str().unwrap();
    let created = get(&format!("{}/api/v1/transactions/{asset}", node.url()));
    assert_eq!(created["operation"], "CREATE");
}

/// What one worker did: cycles of six commands.
struct Worker {
    tracker: Tracker,
    payer: PeerKey,
    payee: Tracker,
    name: String,
    cycles: u64,
}

impl Worker {
    /// Opens two addresses and a channel between them, pays, and closes all of it.
    async fn cycle(&mut self, acknowledged: &AtomicU64) {
        let done = || acknowledged.fetch_add(1, Ordering::Release);
        let spend = self.tracker.open_spend().await.unwrap();
        assert_eq!(spend.current.amount, 10_000);
        done();
        let income = self.payee.open_income().await.unwrap();
        done();
        let contract = Contract {
            channel: format!("{}-{}", self.name, self.cycles).into(),
            from: spend.address.as_str().into(),
            to: income.address.as_str().into(),
            price: PRICE,
            planned: 4,
        };
        let payee = self.payee.key();
        let text = draft::open_transfer(&contract, self.payer.pem(), payee.pem(), None);
        let opened = self
            .payee
            .open_transfer(&signed(text, &self.payer, payee))
            .await;
        opened.unwrap();
        done();
        let settled = Settled {
            count: 3,
            tokens: 1_500,
            volume: 100_000_000,
        };
        let text = draft::close_transfer(&contract, &settled, self.payer.pem(), payee.pem(), None);
        let closed = self
            .payee
            .close_transfer(&signed(text, &self.payer, payee))
            .await;
        closed.unwrap();
        done();
        let address = Address::parse(&spend.address).unwrap();
        let closed = self.tracker.close_address(&address).await.unwrap();
        assert_eq!(closed.state.amount, 8_500);
        done();
        let address = Address::parse(&income.address).unwrap();
        let closed = self.payee.close_address(&address).await.unwrap();
        assert_eq!(closed.state.amount, 1_500);
        done();
        self.cycles += 1;
    }

    /// Compares what the log says with what was acknowledged.
    async fn reckon(&self) {
        for (peer, types) in [(&self.tracker, [4, 32]), (&self.payee, [2, 64])] {
            for tx_type in types.into_iter().chain([8, 16]) {
                let listing = Listing {
                    tx_type: Some(tx_type),
                    page_size: Some(1),
                    ..Listing::default()
                };
                let listed = peer.first_transactions(&listing, 1).await.unwrap();
                let total = listed.meta.unwrap().total_count;
                assert_eq!(total, self.cycles, "{} type {tx_type}", self.name);
            }
        }
    }
}

/// What became of one channel that was left to its lock.
struct Left {
    name: String,
    /// Tokens of the receipt that was deposited; 0 for none.
    parked: u64,
}

/// Earns into a wallet, is paid out, and deposits what it got: each cycle sends the same tokens through both
/// books. Some of its channels are left to their locks, with a deposited receipt and without.
struct Earner {
    tracker: Tracker,
    payee: Tracker,
    wallet: Address,
    assets: Client,
    token: TransactionId,
    holder: PublicKey,
    /// Who is paid, and deposits.
    owner: SigningKey,
    /// A spend address whose channels nobody closes.
    patient: Address,
    left: Vec<Left>,
    paid: Vec<TransactionId>,
    cycles: u64,
}

/// Channels of one earner that are left to their locks: what its patient address can pay.
const LEFT_MAX: usize = 20;
/// What a cycle earns.
const EARNED: u64 = 1_500;

impl Earner {
    async fn new(node: &Node, name: u8) -> Earner {
        let (payer, payee) = (
            PeerKey::generate(Suite::Ed25519),
            PeerKey::generate(Suite::Rsa),
        );
        let facts = info(node);
        let tracker = connect(node.url(), payer).await;
        let patient = tracker.open_spend().await.unwrap();
        assert_eq!(patient.current.amount, 10_000);
        Earner {
            wallet: payee.common_address(),
            payee: connect(node.url(), payee).await,
            assets: Client::builder(node.url().parse().unwrap())
                .settle_within(PATIENCE)
                .build()
                .unwrap(),
            token: facts["token"].as_str().unwrap().parse().unwrap(),
            holder: facts["holder"].as_str().unwrap().parse().unwrap(),
            owner: SigningKey::from_seed([200 + name; 32]),
            patient: Address::parse(&patient.address).unwrap(),
            left: Vec::new(),
            paid: Vec::new(),
            cycles: 0,
            tracker,
        }
    }

    /// Opens a channel to the wallet.
    async fn open(&self, name: String, from: &Address, planned: u64) -> Contract {
        let contract = Contract {
            channel: name.into(),
            from: from.text().clone(),
            to: self.wallet.text().clone(),
            price: PRICE,
            planned,
        };
        let (payer, payee) = (self.tracker.key(), self.payee.key());
        let text = draft::open_transfer(&contract, payer.pem(), payee.pem(), None);
        let opened = self.payee.open_transfer(&signed(text, payer, payee)).await;
        opened.unwrap();
        contract
    }

    fn receipt(&self, contract: &Contract, settled: &Settled) -> CoSigned {
        let (payer, payee) = (self.tracker.key(), self.payee.key());
        let text = draft::close_transfer(contract, settled, payer.pem(), payee.pem(), None);
        signed(text, payer, payee)
    }

    async fn cycle(&mut self, acknowledged: &AtomicU64) {
        let done = || acknowledged.fetch_add(1, Ordering::Release);
        let spend = self.tracker.open_spend().await.unwrap();
        assert_eq!(spend.current.amount, 10_000);
        done();
        let address = Address::parse(&spend.address).unwrap();
        let name = format!("{} {}", self.owner.public_key(), self.cycles);
        let contract = self.open(name.clone(), &address, 4).await;
        done();
        let settled = Settled {
            count: 3,
            tokens: EARNED,
            volume: 100_000_000,
        };
        let receipt = self.receipt(&contract, &settled);
        self.payee.close_transfer(&receipt).await.unwrap();
        done();
        let closed = self.tracker.close_address(&address).await.unwrap();
        assert_eq!(closed.state.amount, 10_000 - EARNED);
        done();
        if self.left.len() < LEFT_MAX && !self.cycles.is_multiple_of(3) {
            self.leave(format!("{name} left"), self.cycles % 3 == 1)
                .await;
            done();
        }
        let owner = self.owner.public_key();
        let paid = self.payee.pay_out(&self.wallet, &owner, EARNED).await;
        let paid = paid.unwrap();
        done();
        let paid: TransactionId = paid["transactionId"].as_str().unwrap().parse().unwrap();
        assert!(!self.paid.contains(&paid), "one TRANSFER for each payout");
        self.paid.push(paid);
        let output = OutputRef {
            transaction: paid,
            index: 0,
        };
        let deposit = Draft::transfer(self.token.as_asset())
            .spend(output, &self.owner)
            .output(EARNED, self.holder)
            .sign(&[&self.owner])
            .unwrap();
        let fate = self.assets.commit(&Submission::from(&deposit)).await;
        assert!(matches!(fate, Fate::Committed(_)), "{fate:?}");
        done();
        self.cycles += 1;
    }

    /// Opens a channel of one quantum that nobody closes.
    async fn leave(&mut self, name: String, parks: bool) {
        let contract = self.open(name.clone(), &self.patient, 1).await;
        let settled = Settled {
            count: 1,
            tokens: PRICE.amount,
            volume: 1,
        };
        if parks {
            let receipt = self.receipt(&contract, &settled);
            self.payee.park(&receipt).await.unwrap();
        }
        self.left.push(Left {
            name,
            parked: if parks { settled.tokens } else { 0 },
        });
    }

    /// Waits for all locks, and compares what the log says with what was acknowledged. Answers what is owed
    /// to the wallet in the end.
    async fn reckon(&self) -> u64 {
        for left in &self.left {
            let closed = async {
                while self.payee.channel_state(&left.name).await.unwrap() != ChannelState::Closed {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, closed).await.unwrap();
        }
        let executed: u64 = self.left.iter().map(|left| left.parked).sum();
        let closed = self.tracker.close_address(&self.patient).await.unwrap();
        assert_eq!(closed.state.amount, 10_000 - executed);
        let wallet = self.payee.common_state(&self.wallet).await.unwrap();
        assert_eq!((wallet.own.fact, wallet.own.plan), (executed, 0));
        assert_eq!(wallet.profit, self.cycles * EARNED);
        let channels = self.cycles + self.left.len() as u64;
        for (tx_type, count) in [(8, channels), (16, channels), (128, self.cycles)] {
            let listing = Listing {
                tx_type: Some(tx_type),
                page_size: Some(1),
                ..Listing::default()
            };
            let listed = self.payee.first_transactions(&listing, 1).await.unwrap();
            assert_eq!(listed.meta.unwrap().total_count, count, "type {tx_type}");
        }
        let owner = self.owner.public_key();
        let held = self.assets.outputs(&owner, Some(false)).await.unwrap();
        assert_eq!(held, [], "all of it was deposited");
        let mut got = self.assets.outputs(&owner, Some(true)).await.unwrap();
        let mut paid: Vec<OutputRef> = self
            .paid
            .iter()
            .map(|id| OutputRef {
                transaction: *id,
                index: 0,
            })
            .collect();
        got.sort();
        paid.sort();
        assert_eq!(got, paid, "what was paid came once, and nothing else did");
        executed
    }
}

#[test]
fn a_node_killed_under_load_loses_no_acknowledged_command_and_does_none_twice() {
    power_cuts(run);
}

async fn run(seed: u64, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let mut random = StdRng::seed_from_u64(seed);
    // Long enough for a node to be killed and started in between, short enough to be waited for.
    let locks = ["--tracker-transfer-lifetime-seconds", "30"];
    let mut node = Node::start_with(&dir, &locks);
    let address = node.address().to_owned();
    let pem = info(&node)["pem"].clone();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for name in 0..WORKERS {
        // One with RSA keys, as the first clients have.
        let suite = if name == 0 {
            Suite::Rsa
        } else {
            Suite::Ed25519
        };
        let (payer, payee) = (PeerKey::generate(suite), PeerKey::generate(Suite::Ed25519));
        let mut worker = Worker {
            tracker: connect(node.url(), payer.clone()).await,
            payer,
            payee: connect(node.url(), payee).await,
            name: format!("worker {name}"),
            cycles: 0,
        };
        let (acknowledged, over) = (acknowledged.clone(), over.clone());
        workers.spawn(async move {
            while over.load(Ordering::Acquire) == 0 {
                worker.cycle(&acknowledged).await;
            }
            worker
        });
    }
    let mut earners = JoinSet::new();
    for name in 0..EARNERS {
        let mut earner = Earner::new(&node, name).await;
        let (acknowledged, over) = (acknowledged.clone(), over.clone());
        earners.spawn(async move {
            while over.load(Ordering::Acquire) == 0 {
                earner.cycle(&acknowledged).await;
            }
            earner
        });
    }
    for round in 1..=rounds {
        let target =
            acknowledged.load(Ordering::Acquire) + random.random_range(1..=ACKNOWLEDGED_MAX);
        let after = Duration::from_micros(random.random_range(0..=MICROSECONDS_MAX));
        timeout(PATIENCE, async {
            while acknowledged.load(Ordering::Acquire) < target {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("round {round}: the node serves"));
        tokio::time::sleep(after).await;
        node.kill();
        node = Node::start_with(&dir, &[&locks[..], &["--listen", &address]].concat());
        assert_eq!(
            info(&node)["pem"],
            pem,
            "round {round}: the tracker kept its key"
        );
    }
    over.store(1, Ordering::Release);
    let mut cycles = 0;
    while let Some(worker) = workers.join_next().await {
        let worker = worker.unwrap();
        worker.reckon().await;
        cycles += worker.cycles;
    }
    let (mut owed, mut payouts) = (0, 0);
    while let Some(earner) = earners.join_next().await {
        let earner = earner.unwrap();
        owed += earner.reckon().await;
        payouts += earner.cycles;
        cycles += earner.cycles;
    }
    let last = info(&node);
    assert_eq!(last["held"], MINT.to_string());
    assert_eq!(last["wallet"], (MINT - owed).to_string());
    let token: TransactionId = last["token"].as_str().unwrap().parse().unwrap();
    let (client, token) = (node.client(), token.as_asset());
    let moved = client.transactions_of_asset(&token, Some(Operation::Transfer), false);
    let moved = moved.await.unwrap().len() as u64;
    assert_eq!(
        moved,
        1 + 2 * payouts,
        "the first deposit, and two for each payout"
    );
    assert_eq!(last["open"]["channels"], 0);
    println!("{cycles} channels in {} blocks", last["head"]["height"]);
    assert_eq!(node.stop().code(), Some(0));
    check(&dir);
}

#[test]
fn what_fell_due_while_the_node_was_away_is_applied_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let flags = ["--tracker-transfer-lifetime-seconds", "1"];
    let node = Node::start_with(&dir, &flags);
    let address = node.address().to_owned();
    Runtime::new().unwrap().block_on(async {
        let (payer, payee) = (
            PeerKey::generate(Suite::Ed25519),
            PeerKey::generate(Suite::Rsa),
        );
        let from = connect(node.url(), payer.clone()).await;
        let to = connect(node.url(), payee.clone()).await;
        let spend = from.open_spend().await.unwrap();
        let contract = Contract {
            channel: "short".into(),
            from: spend.address.as_str().into(),
            to: payee.common_address().text().clone(),
            price: PRICE,
            planned: 4,
        };
        let text = draft::open_transfer(&contract, payer.pem(), payee.pem(), None);
        let opened = to
            .open_transfer(&signed(text, &payer, &payee))
            .await
            .unwrap();
        node.kill();
        let node = Node::start_with(&dir, &["--listen", &address]);
        let expired = timeout(PATIENCE, async {
            while from.channel_state("short").await.unwrap() != ChannelState::Closed {
                tokio::task::yield_now().await;
            }
            // The log is prompt, too: the sweep is recorded without anybody asking.
            loop {
                let listing = Listing {
                    tx_type: Some(16),
                    ..Listing::default()
                };
                let listed = from.first_transactions(&listing, 1).await.unwrap();
                if let Some(item) = listed.items.into_iter().next() {
                    return item;
                }
                tokio::task::yield_now().await;
            }
        });
        let expired = expired.await.unwrap();
        assert_eq!(
            (expired.amount, expired.quantum_count, expired.volume),
            (0, 0, 0)
        );
        assert!(expired.timestamp > opened.timelock);
        assert!(expired.timestamp < opened.timelock + 20_000);
        drop(node);
    });
}
