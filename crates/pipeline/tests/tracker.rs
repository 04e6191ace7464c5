//! The tracker's book behind the pipeline: what a block holds of it, and what a restart gives back.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daybook_ledger::{
    AssetId, Block, BlockTime, Draft, Height, Position, RejectionClass, SigningKey, Transaction,
    Verified,
    block::{Entry, Genesis, Parent, Validator},
    json::Object,
    tracker::{
        self, Address, Book, Code, Contract, EntryKind, Fact, History, IndexKey, Key, Payload,
        Price, RecordType, Request, Settings, Settled, Suites, command, draft,
    },
};
use daybook_pipeline::{
    Acknowledge, Clock, Door, Node, Outcome, Running, StartOptions, TrackerAnswer, TrackerCaller,
    TrackerOptions, Wake, start,
};
use daybook_store::{
    Allowance, CheckOptions, Options, StoredBlock, check,
    disk::{Disk, simulated::SimulatedDisk},
};
use support::{GatedDisk, PATIENCE};

const START_MS: u64 = 1_700_000_000_000;

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> BlockTime {
        BlockTime(self.0.load(Ordering::SeqCst))
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn holder() -> SigningKey {
    key(101)
}

fn pem(key: &SigningKey) -> String {
    Key::ed25519_pem(&key.public_key())
}

fn single(code: u64, message: String, signer: &SigningKey) -> Request {
    Request {
        command: code,
        correlation: "1".into(),
        idempotent: false,
        payload: Payload::Single {
            pk: pem(signer),
            sign: STANDARD.encode(signer.sign(message.as_bytes())),
            message,
        },
    }
}

fn cosigned(code: u64, message: String, from: &SigningKey, to: &SigningKey) -> Request {
    Request {
        command: code,
        correlation: "1".into(),
        idempotent: false,
        payload: Payload::CoSigned {
            from_pk: pem(from),
            from_sign: STANDARD.encode(from.sign(message.as_bytes())),
            to_pk: pem(to),
            to_sign: STANDARD.encode(to.sign(message.as_bytes())),
            message,
        },
    }
}

struct Caller(mpsc::Sender<TrackerAnswer>);

impl TrackerCaller for Caller {
    fn answer(self: Box<Self>, answer: TrackerAnswer) -> Option<Arc<dyn Wake>> {
        self.0.send(answer).unwrap();
        None
    }
}

/// A node with a tracker, whose token alice has made.
struct House {
    node: Node,
    running: Running,
    disk: SimulatedDisk,
    clock: Arc<SetClock>,
    token: Transaction,
}

fn alice() -> SigningKey {
    key(1)
}

fn token() -> Transaction {
    Draft::create(Object::from_iter([("token", "traffic")]))
        .output(1_000_000, &alice())
        .sign(&[&alice()])
        .unwrap()
}

fn genesis() -> Genesis {
    Genesis {
        chain: "tracker".into(),
        time: BlockTime(1_000),
        validators: vec![Validator {
            key: key(9).public_key(),
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

impl House {
    fn on(disk: SimulatedDisk, now: u64) -> House {
        let shared = Arc::new(disk.clone());
        House::over(shared, disk, now, |_| {})
    }

    /// On `disk` as the node sees it through `shared`.
    fn over(
        shared: Arc<dyn Disk>,
        disk: SimulatedDisk,
        now: u64,
        change: impl FnOnce(&mut StartOptions),
    ) -> House {
        let (store, writer, _) =
            daybook_store::open(Path::new("/data"), shared, &genesis(), options()).unwrap();
        let clock = Arc::new(SetClock(AtomicU64::new(now)));
        let mut options = StartOptions::new(key(9));
        options.clock = clock.clone();
        options.tracker = Some(TrackerOptions {
            suites: Suites::default(),
            ids: House::settings().ids(),
            holder: holder(),
        });
        change(&mut options);
        let (node, running) = start(store, writer, options).unwrap();
        House {
            node,
            running,
            disk,
            clock,
            token: token(),
        }
    }

    fn settings() -> Settings {
        Settings::new(
            pem(&key(100)),
            token().id().as_asset(),
            holder().public_key(),
        )
    }

    /// Open, with 100,000 tokens in the wallet.
    async fn open() -> House {
        let house = House::on(SimulatedDisk::new(), START_MS);
        house.commit(&house.token).await;
        assert!(house.node.configure_tracker(House::settings()).await);
        let deposit = Draft::transfer(house.asset())
            .spend(house.token.output_ref(0), &alice())
            .output(100_000, &holder())
            .output(900_000, &alice())
            .sign(&[&alice()])
            .unwrap();
        house.commit(&deposit).await;
        house
    }

    fn asset(&self) -> AssetId {
        self.token.id().as_asset()
    }

    async fn commit(&self, transaction: &Transaction) -> Position {
        match self.post(transaction).await {
            Outcome::Committed { position, .. } => position,
            other => panic!("{other:?}"),
        }
    }

    async fn post(&self, transaction: &Transaction) -> Outcome {
        let text: Bytes = transaction.canonical().clone();
        self.node
            .submit(text, Acknowledge::Durable, Door::Bulk)
            .await
    }

    fn ask(&self, request: Request) -> mpsc::Receiver<TrackerAnswer> {
        let (sender, answer) = mpsc::channel();
        assert!(
            self.node
                .ask_tracker(request, 1_000, Box::new(Caller(sender)))
                .is_ok()
        );
        answer
    }

    fn recorded(&self, request: Request) -> (Arc<tracker::Entry>, Option<Position>) {
        match self.ask(request).recv().unwrap() {
            TrackerAnswer::Recorded { entry, position } => (entry, position),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self, request: Request) -> Code {
        match self.ask(request).recv().unwrap() {
            TrackerAnswer::Refused(refusal) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    fn book<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        self.node.store().tracker(read)
    }

    fn entries(&self, height: u64) -> Vec<Entry> {
        let block = self.node.store().block(Height(height)).unwrap().unwrap();
        block.block.entries.clone()
    }

    fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Opens a spend address of `payer` and, to `to`, a channel; returns its contract.
    fn channel(&self, name: &str, payer: &SigningKey, payee: &SigningKey, to: Address) -> Contract {
        let (opened, _) = self.recorded(single(command::OPEN_SPEND, pem(payer), payer));
        let contract = Contract {
            channel: name.into(),
            from: opened.records()[0].to.clone(),
            to: to.text().clone(),
            price: Price {
                amount: 500,
                power: 25,
            },
            planned: 8,
        };
        let text = draft::open_transfer(&contract, &pem(payer), &pem(payee), None);
        self.recorded(cosigned(command::OPEN_TRANSFER, text, payer, payee));
        contract
    }

    fn close(&self, contract: &Contract, count: u64, payer: &SigningKey, payee: &SigningKey) {
        let settled = Settled {
            count,
            tokens: count * 500,
            volume: count << 25,
        };
        let text = draft::close_transfer(contract, &settled, &pem(payer), &pem(payee), None);
        self.recorded(cosigned(command::CLOSE_TRANSFER, text, payer, payee));
    }

    fn pay_out(&self, owner: &SigningKey, to: &SigningKey, amount: u64, nonce: u8) -> Request {
        let version = draft::Version2 {
            correlation: "1",
            tracker: House::settings().id().unwrap(),
            time_ms: self.clock.now().0,
            nonce: [nonce; 16],
        };
        let address = Address::common(&pem(owner));
        let text = draft::pay_out(&address, &to.public_key(), amount, &pem(owner), &version);
        single(command::PAY_OUT, text, owner)
    }

    /// Stops, opens the same disk again and compares; then lets a check read everything.
    fn restart(self) -> House {
        let before = self.book(Book::encode);
        let (disk, now) = (self.disk.clone(), self.clock.now().0);
        self.running.stop().unwrap();
        let again = House::on(disk, now);
        assert_eq!(again.book(Book::encode), before);
        again
    }

    fn stop_and_check(self) {
        let disk = self.disk.clone();
        self.running.stop().unwrap();
        assert_eq!(findings(disk), [""; 0]);
    }

    /// What a check says if whoever has the node's keys had made the newest block of what `forge` leaves of
    /// it.
    fn check_forged(self, forge: impl FnOnce(&mut Vec<Entry>)) -> Vec<String> {
        let store = self.node.store();
        let mut blocks: Vec<_> = (1..=self.node.head().0)
            .map(|height| store.block(Height(height)).unwrap().unwrap())
            .map(|stored| (stored.block.header.time, stored.block.entries.clone()))
            .collect();
        self.running.stop().unwrap();
        forge(&mut blocks.last_mut().unwrap().1);
        let disk = SimulatedDisk::new();
        let shared = Arc::new(disk.clone());
        let (_, mut writer, _) =
            daybook_store::open(Path::new("/data"), shared, &genesis(), options()).unwrap();
        let mut parent = Parent::of_genesis(&genesis());
        for (time, entries) in blocks {
            let block = Block::seal(&parent, time, entries, &key(9));
            parent = block.as_parent();
            let rejected = Vec::new();
            writer.append(&StoredBlock { block, rejected }).unwrap();
        }
        drop(writer);
        findings(disk)
    }
}

fn findings(disk: SimulatedDisk) -> Vec<String> {
    let options = CheckOptions {
        signatures: true,
        store: options(),
        ..CheckOptions::default()
    };
    let report = check(Path::new("/data"), Arc::new(disk), &options, &mut |_, _| {}).unwrap();
    let findings = report.findings.into_iter();
    findings.map(|finding| finding.what).collect()
}

fn asset_entry(transaction: Transaction) -> Entry {
    Entry::Asset(Arc::new(Verified::from_stored(transaction)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transfer_to_the_holder_is_a_deposit_in_the_same_block() {
    let house = House::open().await;
    assert_eq!(house.book(Book::wallet), 100_000);
    let entries = house.entries(3);
    assert!(matches!(&entries[0], Entry::Asset(_)));
    let Entry::Tracker(deposit) = &entries[1] else {
        panic!("{entries:?}");
    };
    assert_eq!(
        (
            deposit.kind(),
            deposit.transfer(),
            deposit.records()[0].record_type()
        ),
        (EntryKind::Deposit, Some(entries[0].id()), RecordType::Init)
    );
    let found = house.node.store().position(&deposit.id()).unwrap();
    let place = Position {
        height: Height(3),
        index: 1,
    };
    assert_eq!(found, Some(place));
    house.restart().stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_channel_lives_through_a_restart_and_its_closing_is_found_again() {
    let house = House::open().await;
    let (payer, payee) = (key(20), key(21));
    let (opened, _) = house.recorded(single(command::OPEN_INCOME, pem(&payee), &payee));
    let to = Address::parse(&opened.records()[0].to).unwrap();
    let contract = house.channel("c1", &payer, &payee, to);
    let house = house.restart();
    house.close(&contract, 3, &payer, &payee);
    let house = house.restart();
    // The same once more is the first answer; another is refused. Both are read from the log.
    let settled = Settled {
        count: 3,
        tokens: 1_500,
        volume: 3 << 25,
    };
    let text = draft::close_transfer(&contract, &settled, &pem(&payer), &pem(&payee), None);
    let (_, position) = house.recorded(cosigned(command::CLOSE_TRANSFER, text, &payer, &payee));
    assert_eq!(position, None);
    let other = Settled {
        count: 4,
        tokens: 2_000,
        volume: 0,
    };
    let text = draft::close_transfer(&contract, &other, &pem(&payer), &pem(&payee), None);
    let code = house.refused(cosigned(command::CLOSE_TRANSFER, text, &payer, &payee));
    assert_eq!(code, Code::AlreadyClosed);
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_commands_read_of_the_log_is_taken_from_the_block_s_allowance() {
    let house = House::open().await;
    let (payer, payee) = (key(20), key(21));
    let contract = house.channel("c1", &payer, &payee, Address::common(&pem(&payee)));
    house.close(&contract, 3, &payer, &payee);
    let house = house.restart();
    // Each read counts 4 KiB at least.
    let allowance = Allowance::new(10 << 10);
    let history = house.node.store().tracker_history_counted(&allowance);
    for used_up in [false, false, true, true] {
        assert!(history.newest(IndexKey::Object("none")).is_none());
        assert!(history.newest(IndexKey::Object("c1")).is_some());
        assert_eq!(allowance.is_used_up(), used_up);
    }
    assert!(history.failure().is_none());
}

/// A CREATE of alice's.
fn lamp(number: u64) -> Bytes {
    let lamp = Draft::create(Object::from_iter([("lamp", number.to_string())]))
        .output(1, &alice())
        .sign(&[&alice()])
        .unwrap();
    lamp.canonical().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_block_is_shown_while_the_next_one_s_commands_read_the_log() {
    let house = House::open().await;
    let (payer, payee) = (key(20), key(21));
    let contract = house.channel("c1", &payer, &payee, Address::common(&pem(&payee)));
    house.close(&contract, 3, &payer, &payee);
    let (disk, now) = (house.disk.clone(), house.clock.now().0);
    house.running.stop().unwrap();
    let gated = GatedDisk::new(disk.clone());
    let house = House::over(Arc::new(gated.clone()), disk, now, |options| {
        // Each in a block of its own, in the order in which they are sent.
        options.block_transactions_max = 1;
        options.verify_threads = 1;
    });
    let node = house.node.clone();
    let accepted = |number| node.submit(lamp(number), Acknowledge::Accepted, Door::Bulk);
    let mut follower = node.follow(node.head().next());
    // While the first is on its way to the disk, the second and the command come to wait.
    gated.flushes.shut();
    accepted(1).await;
    gated.flushes.somebody_waits();
    accepted(2).await;
    let settled = Settled {
        count: 3,
        tokens: 1_500,
        volume: 3 << 25,
    };
    let text = draft::close_transfer(&contract, &settled, &pem(&payer), &pem(&payee), None);
    let again = house.ask(cosigned(command::CLOSE_TRANSFER, text, &payer, &payee));
    // One thread verifies: what came before these two is ready when both are taken.
    for number in [3, 4] {
        accepted(number).await;
    }
    gated.reads.shut();
    gated.flushes.let_one();
    gated.reads.somebody_waits();
    gated.flushes.let_one();
    let mut shown = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(PATIENCE, follower.next()).await;
        shown.push(next.is_ok());
    }
    gated.reads.open();
    gated.flushes.open();
    assert_eq!(shown, [true, true]);
    assert!(matches!(
        again.recv().unwrap(),
        TrackerAnswer::Recorded { position: None, .. }
    ));
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_payout_and_its_transfer_stand_side_by_side() {
    let house = House::open().await;
    let (payer, payee, purse) = (key(20), key(21), key(22));
    let contract = house.channel("c1", &payer, &payee, Address::common(&pem(&payee)));
    house.close(&contract, 3, &payer, &payee);
    let too_much = house.pay_out(&payee, &purse, 1_501, 1);
    house.refused(too_much);
    let request = house.pay_out(&payee, &purse, 1_200, 2);
    let (paid, position) = house.recorded(request.clone());
    let position = position.unwrap();
    let entries = house.entries(position.height.0);
    let transfer = entries[position.index as usize - 1].as_asset().unwrap();
    assert_eq!(paid.transfer(), Some(transfer.id()));
    assert_eq!(transfer.outputs()[0].public_keys[..], [purse.public_key()]);
    assert_eq!(transfer.outputs()[0].amount.units(), 1_200);
    let Fact::Payout(fact) = &paid.records()[0].fact else {
        panic!("{paid:?}");
    };
    assert_eq!((fact.fact, fact.profit), (300, 1_200));
    // The money left the tracker: what it holds still backs what it owes, and the purse can spend it.
    assert_eq!(house.book(Book::held), 98_800);
    let onwards = Draft::transfer(house.asset())
        .spend(transfer.output_ref(0), &purse)
        .output(1_200, &alice())
        .sign(&[&purse])
        .unwrap();
    house.commit(&onwards).await;
    // The same request again is the same payout, also after a restart.
    let house = house.restart();
    let (again, position) = house.recorded(request);
    assert_eq!((again.id(), position), (paid.id(), None));
    assert_eq!(house.book(Book::held), 98_800);
    house.stop_and_check();
}

/// A house whose newest block pays 1,200 of 1,500 earned tokens out to `purse`.
async fn paid_out(purse: &SigningKey) -> House {
    let house = House::open().await;
    let (payer, payee) = (key(20), key(21));
    let contract = house.channel("c1", &payer, &payee, Address::common(&pem(&payee)));
    house.close(&contract, 3, &payer, &payee);
    let request = house.pay_out(&payee, purse, 1_200, 1);
    house.recorded(request);
    house
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_check_finds_a_payout_that_pays_somebody_else_and_change_that_does_not_come_back() {
    let purse = key(22);
    for (paid, change) in [(alice(), holder()), (purse.clone(), alice())] {
        let house = paid_out(&purse).await;
        let token = house.asset();
        let found = house.check_forged(|entries| {
            let planned = entries[0].as_asset().unwrap().clone();
            let mut draft = Draft::transfer(token);
            for input in planned.inputs() {
                draft = draft.spend(input.spends.unwrap(), &holder());
            }
            let [first, second] = planned.outputs() else {
                panic!("a payment and change: {planned:?}");
            };
            let forged = draft
                .output(first.amount.units(), &paid)
                .output(second.amount.units(), &change)
                .sign(&[&holder()])
                .unwrap();
            let text = String::from_utf8(entries[1].text().to_vec()).unwrap();
            let text = text.replace(&planned.id().to_string(), &forged.id().to_string());
            let payout = tracker::Entry::read(text.into()).unwrap();
            assert_eq!(payout.transfer(), Some(forged.id()));
            *entries = vec![asset_entry(forged), Entry::Tracker(Arc::new(payout))];
        });
        assert!(
            matches!(&found[..], [one] if one.contains("go to somebody else")),
            "{found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_check_finds_a_payout_behind_another_transaction_than_its_own() {
    let house = paid_out(&key(22)).await;
    let lamp = Draft::create(Object::from_iter([("kind", "lamp")]))
        .output(1, &alice())
        .sign(&[&alice()])
        .unwrap();
    let found = house.check_forged(|entries| entries.insert(1, asset_entry(lamp)));
    assert!(
        matches!(&found[..], [first, second]
            if first.contains("no payout follows") && second.contains("moves another asset")),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_check_finds_tokens_that_come_without_a_deposit_or_go_without_a_payout() {
    let house = House::open().await;
    let found = house.check_forged(|entries| assert!(entries.pop().is_some()));
    assert!(
        matches!(&found[..], [one] if one.contains("their deposit does not follow")),
        "{found:?}"
    );
    let house = House::open().await;
    let (held, amount) = house.book(|book| book.holdings().next().unwrap());
    let theft = Draft::transfer(house.asset())
        .spend(held, &holder())
        .output(amount, &alice())
        .sign(&[&holder()])
        .unwrap();
    let lamp = Draft::create(Object::from_iter([("kind", "lamp")]))
        .output(1, &alice())
        .sign(&[&alice()])
        .unwrap();
    house.commit(&lamp).await;
    let found = house.check_forged(|entries| *entries = vec![asset_entry(theft)]);
    assert!(
        matches!(&found[..], [one] if one.contains("no payout follows")),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_spends_the_tracker_s_tokens_but_by_a_payout() {
    let house = House::open().await;
    let (held, amount) = house.book(|book| book.holdings().next().unwrap());
    let theft = Draft::transfer(house.asset())
        .spend(held, &holder())
        .output(amount, &alice())
        .sign(&[&holder()])
        .unwrap();
    match house.post(&theft).await {
        Outcome::Rejected { rejection, .. } => {
            assert_eq!(rejection.class, RejectionClass::ValidationError);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(house.book(Book::wallet), 100_000);
    house.stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_past_its_lock_is_swept_before_anything_else_and_without_anybody_asking() {
    let house = House::open().await;
    let (payer, payee) = (key(20), key(21));
    let contract = house.channel("c1", &payer, &payee, Address::common(&pem(&payee)));
    // Blocks in one millisecond of the clock are a millisecond apart.
    house.pass(5 * 60_000 + 100);
    let settled = Settled {
        count: 1,
        tokens: 500,
        volume: 0,
    };
    let text = draft::close_transfer(&contract, &settled, &pem(&payer), &pem(&payee), None);
    let code = house.refused(cosigned(command::CLOSE_TRANSFER, text, &payer, &payee));
    assert_eq!(code, Code::Expired);
    let head = house.node.head();
    let Entry::Tracker(expiry) = &house.entries(head.0)[0] else {
        panic!("the block begins with what was due");
    };
    assert_eq!(expiry.kind(), EntryKind::Expiry);
    // The spend address follows by itself.
    let mut follower = house.node.follow(head.next());
    house.pass(30 * 60_000);
    let block = follower.next().await.unwrap();
    let Entry::Tracker(expiry) = &block.block.block.entries[0] else {
        panic!("the block begins with what was due");
    };
    assert_eq!(expiry.records()[0].record_type(), RecordType::CloseSpend);
    assert_eq!(house.book(Book::wallet), 100_000);
    house.restart().stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_falls_due_at_once_is_spread_over_blocks() {
    /// More than one block sweeps.
    const MANY: usize = 64 * 32 + 100;
    /// Whoever asks for one channel that ended in a sweep makes the node read the whole entry.
    const ENTRY_BYTES_MAX: usize = 64 << 10;
    let house = House::open().await;
    let mut opened = 0;
    // Sixteen addresses a key, all with nearly the same lock.
    let keys: Vec<SigningKey> = (0..=MANY / 16)
        .map(|number| {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
            SigningKey::from_seed(seed)
        })
        .collect();
    for owner in &keys {
        let request = single(command::OPEN_INCOME, pem(owner), owner);
        let answers: Vec<_> = (0..16).map(|_| house.ask(request.clone())).collect();
        for answer in answers {
            assert!(matches!(
                answer.recv().unwrap(),
                TrackerAnswer::Recorded { .. }
            ));
            opened += 1;
        }
    }
    assert_eq!(house.book(Book::open_counts), (opened, 0));
    let before = house.node.head();
    let mut follower = house.node.follow(before.next());
    house.pass(60 * 60_000);
    let mut swept = Vec::new();
    while swept.iter().sum::<usize>() < opened {
        let block = follower.next().await.unwrap();
        let mut records = 0;
        for entry in &block.block.block.entries {
            let Entry::Tracker(entry) = entry else {
                panic!("{entry:?}");
            };
            assert!(entry.text().len() <= ENTRY_BYTES_MAX);
            records += entry.records().len();
        }
        swept.push(records);
    }
    assert!(swept.len() > 1, "{swept:?}");
    assert_eq!(house.book(Book::open_counts), (0, 0));
    house.restart().stop_and_check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_command_whose_history_cannot_be_read_is_put_off_and_nothing_is_recorded() {
    let house = House::open().await;
    let (payer, payee) = (key(21), key(22));
    let wallet = Address::common(&pem(&payee));
    let contract = house.channel("closed", &payer, &payee, wallet);
    house.close(&contract, 3, &payer, &payee);
    // From memory the book still knows the newest blocks.
    for _ in 0..3 {
        house.recorded(single(command::OPEN_INCOME, pem(&payee), &payee));
    }
    let text = draft::open_transfer(&contract, &pem(&payer), &pem(&payee), None);
    let again = || cosigned(command::OPEN_TRANSFER, text.clone(), &payer, &payee);
    let (records, head) = (house.book(Book::sequence), house.node.head());
    house.disk.fail_reads(true);
    assert_eq!(house.refused(again()), Code::RateLimited);
    assert_eq!(house.book(Book::sequence), records);
    // What needs no history goes on.
    house.recorded(single(command::OPEN_INCOME, pem(&payee), &payee));
    house.disk.fail_reads(false);
    assert!(house.node.is_ready() && house.node.failure().is_none());
    let (entry, position) = house.recorded(again());
    assert_eq!(position, None, "it is the first answer, repeated");
    assert_eq!(entry.records()[0].from, contract.from);
    assert_eq!(house.node.head(), head.next());
    house.restart().stop_and_check();
}
