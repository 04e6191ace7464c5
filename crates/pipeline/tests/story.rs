//! What submitters and followers may rely on.

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
    BlockTime, Draft, Height, OutputRef, Position, RejectionClass, SigningKey, Transaction,
    Version,
    block::{Genesis, Validator},
    condition::Details,
    json::Value,
};
use daybook_pipeline::{
    Acknowledge, Clock, Door, FollowError, Node, Outcome, Running, StartOptions, Status, start,
};
use daybook_store::{
    Options,
    disk::simulated::{Fault, SimulatedDisk},
};

/// A clock that stands still unless it is set.
#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> BlockTime {
        BlockTime(self.0.load(Ordering::SeqCst))
    }
}

struct House {
    node: Node,
    running: Running,
    disk: SimulatedDisk,
}

fn alice() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn bob() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

fn house(change: impl FnOnce(&mut StartOptions)) -> House {
    house_on(SimulatedDisk::new(), change)
}

fn house_on(disk: SimulatedDisk, change: impl FnOnce(&mut StartOptions)) -> House {
    let proposer = SigningKey::from_seed([9; 32]);
    let genesis = Genesis {
        chain: "story".into(),
        time: BlockTime(1_000),
        validators: vec![Validator {
            key: proposer.public_key(),
            power: 10,
        }],
    };
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    let shared = Arc::new(disk.clone());
    let (store, writer, _) =
        daybook_store::open(Path::new("/data"), shared, &genesis, options).unwrap();
    let mut options = StartOptions::new(proposer);
    options.clock = Arc::new(SetClock::default());
    change(&mut options);
    let (node, running) = start(store, writer, options).unwrap();
    House {
        node,
        running,
        disk,
    }
}

fn create(number: u64) -> Transaction {
    let data = Value::parse(format!(r#"{{"lot":{number}}}"#).as_bytes(), 8).unwrap();
    Draft::create(data)
        .output(10, alice().public_key())
        .sign(&[&alice()])
        .unwrap()
}

/// Alice's output 0 of `parent` goes to bob, with a remark that makes it another transaction.
fn transfer(parent: &Transaction, remark: &str) -> Transaction {
    let metadata = Value::parse(format!(r#"{{"remark":"{remark}"}}"#).as_bytes(), 8).unwrap();
    Draft::transfer(parent.asset())
        .spend(
            OutputRef {
                transaction: parent.id(),
                index: 0,
            },
            Details::Key(alice().public_key()),
        )
        .output(10, bob().public_key())
        .metadata(metadata)
        .sign(&[&alice()])
        .unwrap()
}

fn text(transaction: &Transaction) -> Bytes {
    transaction.canonical().clone()
}

fn at(height: u64, index: u32) -> Position {
    Position {
        height: Height(height),
        index,
    }
}

async fn post(house: &House, transaction: &Transaction) -> Outcome {
    house
        .node
        .submit(text(transaction), Acknowledge::Durable, Door::Classic)
        .await
}

async fn stop(running: Running) {
    tokio::task::spawn_blocking(move || running.stop())
        .await
        .unwrap()
        .unwrap();
}

/// Sends all through the bulk door and returns the outcomes in the order sent.
async fn bulk(
    house: &House,
    transactions: &[&Transaction],
    acknowledge: Acknowledge,
) -> Vec<Outcome> {
    // Nothing is taken before all is sent, so the window must hold it all.
    let (submitter, mut outcomes) = house.node.submitter(transactions.len());
    let tagged = (0..).zip(transactions.iter().map(|transaction| text(transaction)));
    assert!(submitter.submit_all(tagged, acknowledge).await);
    drop(submitter);
    let mut letters = Vec::new();
    while outcomes.next(&mut letters).await {}
    letters.sort_by_key(|(tag, _)| *tag);
    letters.into_iter().map(|(_, outcome)| outcome).collect()
}

fn class(outcome: &Outcome) -> Option<RejectionClass> {
    match outcome {
        Outcome::Rejected { rejection, .. } => Some(rejection.class),
        _ => None,
    }
}

#[tokio::test]
async fn a_durable_answer_names_the_place_and_readers_see_it_there() {
    let house = house(|_| {});
    let created = create(1);
    let outcome = post(&house, &created).await;
    assert_eq!(
        outcome,
        Outcome::Committed {
            id: created.id(),
            position: at(1, 0),
            repeated: false
        }
    );
    let (position, stored) = house
        .node
        .store()
        .transaction(&created.id())
        .unwrap()
        .unwrap();
    assert_eq!((position, stored), (at(1, 0), text(&created)));
    assert_eq!(
        house.node.status(&created.id()).unwrap(),
        Status::Committed(at(1, 0))
    );
    stop(house.running).await;
}

#[tokio::test]
async fn through_the_classic_door_a_child_waits_for_its_parents_commit() {
    let house = house(|_| {});
    let parent = create(1);
    let child = transfer(&parent, "early");
    assert_eq!(
        class(&post(&house, &child).await),
        Some(RejectionClass::InputDoesNotExist)
    );
    post(&house, &parent).await;
    assert!(matches!(
        post(&house, &child).await,
        Outcome::Committed { .. }
    ));
    stop(house.running).await;
}

#[tokio::test]
async fn through_the_bulk_door_a_child_may_follow_at_once() {
    let house = house(|_| {});
    let parent = create(1);
    let child = transfer(&parent, "at once");
    let outcomes = bulk(&house, &[&parent, &child], Acknowledge::Durable).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Committed { .. })),
        "{outcomes:?}"
    );
    stop(house.running).await;
}

#[tokio::test]
async fn the_bulk_door_answers_a_repetition_with_its_first_outcome_and_the_classic_one_refuses_it()
{
    let house = house(|_| {});
    let (created, other) = (create(1), create(2));
    let moved = transfer(&created, "once");
    let outcomes = bulk(
        &house,
        &[&other, &created, &moved, &created, &moved],
        Acknowledge::Durable,
    )
    .await;
    let places: Vec<(Position, bool)> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Committed {
                position, repeated, ..
            } => (*position, *repeated),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places[3], (places[1].0, true));
    assert_eq!(places[4], (places[2].0, true));
    let again = bulk(&house, &[&created], Acknowledge::Durable).await;
    assert_eq!(
        again[0],
        Outcome::Committed {
            id: created.id(),
            position: places[1].0,
            repeated: true
        }
    );
    assert_eq!(
        class(&post(&house, &created).await),
        Some(RejectionClass::DuplicateTransaction)
    );
    assert_eq!(
        class(&post(&house, &moved).await),
        Some(RejectionClass::DoubleSpend)
    );
    stop(house.running).await;
}

#[tokio::test]
async fn of_two_posts_of_one_transaction_at_once_exactly_one_commits() {
    let house = house(|_| {});
    for number in 0..50 {
        let created = create(number);
        let (one, other) = tokio::join!(post(&house, &created), post(&house, &created));
        let committed = |outcome: &Outcome| matches!(outcome, Outcome::Committed { .. });
        assert_eq!(
            usize::from(committed(&one)) + usize::from(committed(&other)),
            1
        );
        let refused = if committed(&one) { &other } else { &one };
        assert_eq!(class(refused), Some(RejectionClass::DuplicateTransaction));
    }
    stop(house.running).await;
}

#[tokio::test]
async fn who_loses_after_being_taken_finds_the_reason_in_the_status_and_on_the_stream() {
    let house = house(|_| {});
    let created = create(1);
    post(&house, &created).await;
    let (winner, loser) = (transfer(&created, "first"), transfer(&created, "second"));
    let mut follower = house.node.follow(Height(2));
    let outcomes = bulk(&house, &[&winner, &loser], Acknowledge::Accepted).await;
    assert_eq!(outcomes[1], Outcome::Accepted { id: loser.id() });
    let lost = loop {
        let published = follower.next().await.unwrap();
        if let [lost] = &published.block.rejected[..] {
            break lost.clone();
        }
    };
    assert_eq!(
        (lost.id, lost.rejection.class),
        (loser.id(), RejectionClass::DoubleSpend)
    );
    match house.node.status(&loser.id()).unwrap() {
        Status::Rejected(_, rejection) => assert_eq!(rejection, lost.rejection),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        house.node.status(&winner.id()).unwrap(),
        Status::Committed(_)
    ));
    stop(house.running).await;
}

#[tokio::test]
async fn blocks_are_stamped_with_the_clock_and_never_stand_still() {
    let clock = Arc::new(SetClock::default());
    let house = house(|options| options.clock = clock.clone());
    for (number, set, stamped) in [
        (1, 5_000, 5_000),
        (2, 5_000, 5_001),
        (3, 10, 5_002),
        (4, 6_000, 6_000),
    ] {
        clock.0.store(set, Ordering::SeqCst);
        post(&house, &create(number)).await;
        assert_eq!(house.node.store().tip().time, BlockTime(stamped));
    }
    stop(house.running).await;
}

#[tokio::test]
async fn a_follower_gets_every_block_once_from_memory_and_from_the_store() {
    // Room in memory for a handful of blocks only, so that whoever starts at 1 begins on disk.
    let house = house(|options| options.recent_bytes_max = 8 << 10);
    let mut early = house.node.follow(Height(0));
    let mut seen = 0;
    for number in 1..=40 {
        post(&house, &create(number)).await;
        if number % 7 == 0 {
            while seen < number {
                seen += 1;
                assert_eq!(
                    early.next().await.unwrap().block.block.header.height,
                    Height(seen)
                );
            }
        }
    }
    let mut late = house.node.follow(Height(1));
    assert_eq!(late.behind(), 40);
    for height in 1..=40 {
        assert_eq!(
            late.next().await.unwrap().block.block.header.height,
            Height(height)
        );
    }
    assert!(late.try_next().is_none());
    let waiting = tokio::spawn(async move { late.next().await });
    post(&house, &create(41)).await;
    let live = waiting.await.unwrap().unwrap();
    assert_eq!(live.block.block.header.height, Height(41));
    let mut last = house.node.follow(Height(42));
    stop(house.running).await;
    assert!(matches!(last.next().await, Err(FollowError::Stopped)));
}

#[tokio::test]
async fn a_full_pool_says_so_and_a_bulk_sender_waits() {
    let house = house(|options| {
        options.pool_transactions_max = 4;
        options.block_transactions_max = 2;
    });
    let many: Vec<Transaction> = (0..200).map(create).collect();
    let all: Vec<&Transaction> = many.iter().collect();
    let outcomes = bulk(&house, &all, Acknowledge::Durable).await;
    assert_eq!(outcomes.len(), 200);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Committed { .. }))
    );
    assert_eq!(house.node.load(), (0, 0), "all room is given back");
    stop(house.running).await;
}

#[tokio::test]
async fn a_node_that_cannot_write_stops_acknowledges_nothing_and_shows_nothing() {
    let house = house(|_| {});
    let (before, lost) = (create(1), create(2));
    post(&house, &before).await;
    house.disk.fail_at(house.disk.operations(), Fault::Error);
    assert_eq!(post(&house, &lost).await, Outcome::Stopped);
    house.node.failed().await;
    assert!(!house.node.is_ready());
    assert!(house.node.failure().is_some());
    assert_eq!(house.node.store().position(&lost.id()).unwrap(), None);
    assert_eq!(post(&house, &create(3)).await, Outcome::Stopped);
    let (submitter, mut outcomes) = house.node.submitter(10);
    assert!(
        !submitter
            .submit(0, text(&create(4)), Acknowledge::Durable)
            .await
    );
    drop(submitter);
    assert!(!outcomes.next(&mut Vec::new()).await);
    stop(house.running).await;
}

/// The disk forgets everything that was not flushed, and may keep parts of it, at every step of a run.
#[tokio::test]
async fn after_a_power_cut_at_any_step_every_durable_answer_still_holds_and_nothing_is_half_there()
{
    let seed: u64 =
        std::env::var("POWER_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("POWER_SEED={seed}");
    let transactions: Vec<Transaction> = (0..60)
        .flat_map(|number| {
            let created = create(number);
            let moved = transfer(&created, "on");
            [created, moved]
        })
        .collect();
    let all: Vec<&Transaction> = transactions.iter().collect();
    let steps = {
        let house = house(|options| options.block_transactions_max = 7);
        bulk(&house, &all, Acknowledge::Durable).await;
        let steps = house.disk.operations();
        stop(house.running).await;
        steps
    };
    for round in 0..40_u64 {
        let house = house(|options| options.block_transactions_max = 7);
        let opened = house.disk.operations();
        let step = opened + (seed.wrapping_add(round * 7_919)) % (steps - opened).max(1);
        house.disk.fail_at(step, Fault::PowerCut);
        let outcomes = bulk(&house, &all, Acknowledge::Durable).await;
        drop(house.running.stop());
        let after = house_on(house.disk.restart(seed ^ round), |_| {});
        let mut told = 0;
        for (transaction, outcome) in transactions.iter().zip(&outcomes) {
            let place = after.node.store().position(&transaction.id()).unwrap();
            if let Outcome::Committed { position, .. } = outcome {
                assert_eq!(place, Some(*position), "round {round}, step {step}");
                told += 1;
            }
            if let Some(position) = place {
                let (_, stored) = after
                    .node
                    .store()
                    .transaction_at(position)
                    .unwrap()
                    .unwrap();
                assert_eq!(stored, text(transaction));
            }
        }
        // Whole blocks only, in order: what is there is a beginning of what was sent.
        let there = after.node.store().tip().transactions;
        assert!(there >= told, "round {round}: {there} < {told}");
        let in_order = transactions.iter().take(usize::try_from(there).unwrap());
        for transaction in in_order {
            assert!(
                after
                    .node
                    .store()
                    .position(&transaction.id())
                    .unwrap()
                    .is_some()
            );
        }
        // And the chain goes on.
        assert!(matches!(
            post(&after, &create(1_000 + round)).await,
            Outcome::Committed { .. }
        ));
        stop(after.running).await;
    }
}

#[tokio::test]
async fn what_could_not_be_read_for_a_moment_is_to_be_sent_again_and_never_refused_for_good() {
    let house = house(|_| {});
    let (created, moved, again) = (
        create(1),
        transfer(&create(1), "first"),
        transfer(&create(1), "second"),
    );
    assert!(matches!(
        post(&house, &created).await,
        Outcome::Committed { .. }
    ));
    assert!(matches!(
        post(&house, &moved).await,
        Outcome::Committed { .. }
    ));

    house.disk.fail_reads(true);
    assert_eq!(post(&house, &again).await, Outcome::Busy, "a double spend");
    assert_eq!(
        post(&house, &created).await,
        Outcome::Busy,
        "a repeated CREATE"
    );
    let outcomes = bulk(&house, &[&again, &created], Acknowledge::Durable).await;
    assert_eq!(outcomes, [Outcome::Busy, Outcome::Busy]);
    let taken = bulk(&house, &[&again], Acknowledge::Accepted).await;
    assert_eq!(taken, [Outcome::Accepted { id: again.id() }]);
    // What needs no history goes on meanwhile, and comes behind what was taken before.
    let other = create(2);
    assert!(matches!(
        post(&house, &other).await,
        Outcome::Committed { .. }
    ));
    house.disk.fail_reads(false);

    // Who was told that it is taken hears what becomes of it, as soon as that can be said.
    assert_eq!(
        class(&post(&house, &again).await),
        Some(RejectionClass::DoubleSpend)
    );
    house.node.tick();
    assert_eq!(
        lost(&house, &again).await,
        Some(RejectionClass::DoubleSpend)
    );
    assert_eq!(
        class(&post(&house, &created).await),
        Some(RejectionClass::DuplicateTransaction)
    );
    assert!(house.node.is_ready() && house.node.failure().is_none());
    stop(house.running).await;
}

/// What was recorded of a transaction that was taken and lost, as soon as a block says so.
async fn lost(house: &House, transaction: &Transaction) -> Option<RejectionClass> {
    let mut follower = house.node.follow(Height(1));
    loop {
        let published = follower.next().await.unwrap();
        let mut lost = published.block.rejected.iter();
        if let Some(lost) = lost.find(|lost| lost.id == transaction.id()) {
            let Status::Rejected(_, rejection) = house.node.status(&lost.id).unwrap() else {
                return None;
            };
            return Some(rejection.class);
        }
    }
}

/// A CREATE by alice whose text is about `bytes` long.
fn long(number: u64, bytes: usize) -> Transaction {
    Draft::create(format!("{number}{}", "x".repeat(bytes)).as_str())
        .version(Version::V3)
        .output(10, alice().public_key())
        .sign(&[&alice()])
        .unwrap()
}

/// Spends all of them as if they were of the first one's asset, which they are not.
fn mixed(parents: &[Transaction], draft: Draft) -> Transaction {
    let spend = |draft: Draft, parent: &Transaction| {
        draft.spend(parent.output_ref(0), Details::Key(alice().public_key()))
    };
    parents
        .iter()
        .fold(draft, spend)
        .output(10 * parents.len() as u64, bob().public_key())
        .sign(&[&alice()])
        .unwrap()
}

#[tokio::test]
async fn naming_a_refusal_reads_a_bounded_amount_of_history_and_compositions_none() {
    let house = house(|_| {});
    // Together they are longer than what may be read to name a refusal.
    let parents: Vec<Transaction> = (0..20).map(|number| long(number, 900 << 10)).collect();
    for parent in &parents {
        assert!(matches!(
            post(&house, parent).await,
            Outcome::Committed { .. }
        ));
    }
    let transfer = || Draft::transfer(parents[0].asset()).version(Version::V3);
    let few = mixed(&parents[..5], transfer());
    let many = mixed(&parents, transfer());
    for door in [Door::Classic, Door::Bulk] {
        let submit = |transaction: &Transaction| {
            house
                .node
                .submit(text(transaction), Acknowledge::Durable, door)
        };
        assert_eq!(
            class(&submit(&few).await),
            Some(RejectionClass::AssetIdMismatch)
        );
        assert_eq!(
            class(&submit(&many).await),
            Some(RejectionClass::ValidationError)
        );
    }
    let parts = || parents.iter().map(Transaction::asset);
    let forgotten = mixed(&parents, Draft::compose("all but one", parts().skip(1)));
    assert_eq!(
        class(&post(&house, &forgotten).await),
        Some(RejectionClass::ValidationError)
    );
    let composed = mixed(&parents, Draft::compose("all of them", parts()));
    assert!(matches!(
        post(&house, &composed).await,
        Outcome::Committed { .. }
    ));
    stop(house.running).await;
}

#[tokio::test]
async fn whoever_was_told_that_it_is_taken_hears_of_it_however_much_history_others_read() {
    // One verifier, so that what is sent together is decided together.
    let house = house(|options| options.verify_threads = 1);
    let parents: Vec<Transaction> = (0..20).map(|number| long(number, 900 << 10)).collect();
    let (whole, spent) = (long(20, 10), create(1));
    let sold = transfer(&spent, "first");
    for before in parents.iter().chain([&whole, &spent, &sold]) {
        assert!(matches!(
            post(&house, before).await,
            Outcome::Committed { .. }
        ));
    }
    // The first uses up what may be read for one block, and the others come in the same one.
    let greedy = mixed(
        &parents,
        Draft::transfer(parents[0].asset()).version(Version::V3),
    );
    let again = transfer(&spent, "second");
    let apart = Draft::decompose(whole.asset(), ["one".to_owned(), "two".to_owned()])
        .spend(whole.output_ref(0), Details::Key(alice().public_key()))
        .output(1, alice().public_key())
        .output(1, alice().public_key())
        .sign(&[&alice()])
        .unwrap();
    let taken = bulk(&house, &[&greedy, &again, &apart], Acknowledge::Accepted).await;
    assert!(
        taken
            .iter()
            .all(|taken| matches!(taken, Outcome::Accepted { .. }))
    );
    assert_eq!(
        lost(&house, &greedy).await,
        Some(RejectionClass::ValidationError)
    );
    let again = lost(&house, &again).await;
    assert!(again.is_some(), "it is refused, be it that not all is said");
    // What depends on history comes in the next block.
    house.node.tick();
    let mut follower = house.node.follow(Height(1));
    loop {
        let published = follower.next().await.unwrap();
        if published
            .block
            .block
            .entries
            .iter()
            .any(|entry| entry.id() == apart.id())
        {
            break;
        }
    }
    stop(house.running).await;
}

#[tokio::test]
async fn followers_that_are_behind_together_share_what_is_read_for_them() {
    // Room for a few blocks in memory, and for as many older ones.
    let house = house(|options| options.recent_bytes_max = 8 << 10);
    for number in 0..20 {
        assert!(matches!(
            post(&house, &create(number)).await,
            Outcome::Committed { .. }
        ));
    }
    let (mut one, mut other) = (house.node.follow(Height(1)), house.node.follow(Height(1)));
    assert!(one.try_next().is_none(), "the first block is not in memory");
    let read = one.next().await.unwrap();
    let shared = other.try_next().expect("it is by now");
    assert!(Arc::ptr_eq(&read, &shared));
    // Both go on to the end, whoever reads first.
    let mut heights = Vec::new();
    for _ in 1..20 {
        let (read, shared) = tokio::join!(one.next(), other.next());
        let (read, shared) = (read.unwrap(), shared.unwrap());
        assert!(Arc::ptr_eq(&read, &shared), "one read serves both");
        heights.push(read.block.block.header.height.0);
    }
    assert_eq!(heights, (2..=20).collect::<Vec<_>>());
    // What nobody asks for is let go of.
    for number in 20..320 {
        assert!(matches!(
            post(&house, &create(number)).await,
            Outcome::Committed { .. }
        ));
    }
    assert!(house.node.follow(Height(12)).try_next().is_none());
    stop(house.running).await;
}
