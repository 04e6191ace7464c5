//! The client library against a real node.

#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, time::Duration};

use common::Node;
use daybook_client::{
    Acknowledge, Answer, Client, Cursor, Error, Event, Fate, Filter, Follow, Frame, From, Mode,
    Status, Stream, Submission,
};
use daybook_ledger::{
    Draft, Height, Operation, OutputRef, SigningKey, Transaction,
    json::{Object, Value},
};
use tokio::time::timeout;

/// How long an event is waited for before a test counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

fn create(owner: &SigningKey, name: &str, units: u64) -> Transaction {
    Draft::create(Object::from_iter([("name", name)]))
        .output(units, owner)
        .sign(&[owner])
        .unwrap()
}

/// Moves a whole output on, with a word that tells two moves apart.
fn give(parent: &Transaction, from: &SigningKey, to: &SigningKey, word: &str) -> Transaction {
    Draft::transfer(parent.asset())
        .spend(parent.output_ref(0), from)
        .output(parent.outputs()[0].amount.units(), to)
        .metadata(Object::from_iter([("word", Value::from(word))]))
        .sign(&[from])
        .unwrap()
}

async fn commit(client: &Client, transaction: &Transaction) -> (u64, u32) {
    match client.commit(&Submission::from(transaction)).await {
        Fate::Committed(receipt) => (receipt.position.height.0, receipt.position.index),
        other => panic!("{other:?}"),
    }
}

async fn next(follow: &mut Follow) -> Event {
    timeout(PATIENCE, follow.next())
        .await
        .expect("an event")
        .unwrap()
}

#[tokio::test]
async fn a_submission_is_answered_with_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client();
    let (alice, bob) = (key(1), key(2));
    let lamp = create(&alice, "lamp", 5);
    let submission = Submission::from(&lamp);
    let Answer::Committed(receipt) = client.submit(&submission, Mode::Commit).await.unwrap() else {
        panic!("not committed");
    };
    assert_eq!(
        (receipt.id, receipt.position.height),
        (lamp.id(), Height(1))
    );
    let Answer::Refused { refusal, .. } = client.submit(&submission, Mode::Commit).await.unwrap()
    else {
        panic!("taken twice");
    };
    assert_eq!(
        (refusal.status, refusal.class.as_deref()),
        (400, Some("DuplicateTransaction"))
    );
    let Fate::Committed(again) = client.commit(&submission).await else {
        panic!("lost")
    };
    assert!(again.repeated && again.position == receipt.position);

    let sale = give(&lamp, &alice, &bob, "sale");
    let accepted = client
        .submit(&Submission::from(&sale), Mode::Async)
        .await
        .unwrap();
    assert_eq!(accepted, Answer::Accepted { id: sale.id() });
    let theft = give(&lamp, &alice, &alice, "theft");
    let Fate::Refused(refusal) = client.commit(&Submission::from(&theft)).await else {
        panic!("spent twice");
    };
    assert_eq!(refusal.class.as_deref(), Some("DoubleSpend"));
    let broken = Submission::from_text(&b"{nope"[..]);
    assert!(broken.id().is_none());
    assert!(matches!(client.commit(&broken).await, Fate::Refused(r) if r.status == 400));
}

#[tokio::test]
async fn everything_that_was_committed_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client();
    let (alice, bob) = (key(1), key(2));
    assert_eq!(client.latest_block().await.unwrap().height, Height(0));
    let lamp = create(&alice, "green lamp", 5);
    let sale = give(&lamp, &alice, &bob, "bargain");
    commit(&client, &lamp).await;
    let (height, _) = commit(&client, &sale).await;

    let text = client.transaction(&sale.id()).await.unwrap().unwrap();
    assert_eq!(text, sale.canonical());
    assert_eq!(
        client
            .transaction(&give(&lamp, &alice, &bob, "never").id())
            .await
            .unwrap(),
        None
    );
    assert!(
        matches!(client.status(&sale.id()).await.unwrap(), Status::Committed(p) if p.height.0 == height)
    );
    let history = client
        .transactions_of_asset(&lamp.asset(), None, false)
        .await
        .unwrap();
    assert_eq!(history.len(), 2);
    let moves = client
        .transactions_of_asset(&lamp.asset(), Some(Operation::Transfer), true)
        .await
        .unwrap();
    assert_eq!(moves[0]["id"], sale.id().to_string());
    let outputs = |key: &SigningKey, spent| {
        let (client, key) = (client.clone(), key.public_key());
        async move { client.outputs(&key, spent).await.unwrap() }
    };
    assert_eq!(
        outputs(&bob, Some(false)).await,
        [OutputRef {
            transaction: sale.id(),
            index: 0
        }]
    );
    assert_eq!(outputs(&alice, Some(true)).await, [lamp.output_ref(0)]);
    assert!(outputs(&alice, Some(false)).await.is_empty());
    let block = client.block(Height(height)).await.unwrap().unwrap();
    assert_eq!(
        (block.transaction_ids.as_slice(), block.transactions.len()),
        (&[sale.id()][..], 1)
    );
    assert!(client.block(Height(99)).await.unwrap().is_none());
    let hits = client.search_assets("GREEN & lamp", 0).await.unwrap();
    assert_eq!((hits.len(), hits[0].id), (1, lamp.id()));
    assert_eq!(
        client.search_metadata("bargain", 5).await.unwrap()[0].id,
        sale.id()
    );
    assert!(matches!(
        client.search_assets("", 0).await,
        Err(Error::Refused(_))
    ));
    assert_eq!(client.validators().await.unwrap()[0].voting_power, 10);
    assert!(client.is_ready().await.unwrap());
    assert_eq!(client.info().await.unwrap()["software"], "Planetmint");
}

#[tokio::test]
async fn a_child_may_follow_its_parent_at_once_through_the_bulk_doors() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client();
    let (alice, bob) = (key(1), key(2));
    let lamp = create(&alice, "lamp", 5);
    let sale = give(&lamp, &alice, &bob, "sale");
    let theft = give(&lamp, &alice, &alice, "theft");
    let all = [&lamp, &sale, &theft, &lamp];

    let (mut sender, mut answers) = client.batch(Acknowledge::Durable).await.unwrap();
    for transaction in all {
        sender.send(transaction.canonical()).await.unwrap();
    }
    assert_eq!(sender.finish().await.unwrap(), 4);
    let mut by_line = vec![None; 4];
    while let Some(numbered) = answers.next().await.unwrap() {
        by_line[numbered.number as usize] = Some(numbered.answer);
    }
    let committed = |answer: &Option<Answer>, repeated| matches!(answer, Some(Answer::Committed(receipt)) if receipt.repeated == repeated);
    assert!(
        committed(&by_line[0], false) && committed(&by_line[1], false),
        "{by_line:?}"
    );
    assert!(
        matches!(&by_line[2], Some(Answer::Refused { refusal, .. })
        if refusal.class.as_deref() == Some("DoubleSpend")),
        "{by_line:?}"
    );
    assert!(committed(&by_line[3], true), "{by_line:?}");

    let (mut sender, mut answers) = client.socket(Acknowledge::Durable).await.unwrap();
    let gift = give(&sale, &bob, &alice, "gift");
    for transaction in [&gift, &give(&gift, &alice, &bob, "back"), &gift] {
        sender.feed(transaction.canonical()).await.unwrap();
    }
    sender.flush().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let numbered = answers.next().await.unwrap().unwrap();
        assert!(
            matches!(numbered.answer, Answer::Committed(_)),
            "{numbered:?}"
        );
        seen.push(numbered.number);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    sender.close().await.unwrap();
}

#[tokio::test]
async fn losers_of_a_race_are_told_and_their_stream_can_be_taken_up_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client();
    let alice = key(1);
    let lamp = create(&alice, "lamp", 5);
    commit(&client, &lamp).await;
    let winner = give(&lamp, &alice, &alice, "winner");
    let losers: Vec<Transaction> = (0..3)
        .map(|n| give(&lamp, &alice, &alice, &format!("loser {n}")))
        .collect();
    let (mut sender, mut answers) = client.batch(Acknowledge::Accepted).await.unwrap();
    for transaction in std::iter::once(&winner).chain(&losers) {
        sender.send(transaction.canonical()).await.unwrap();
    }
    sender.finish().await.unwrap();
    let mut taken = Vec::new();
    while let Some(numbered) = answers.next().await.unwrap() {
        if matches!(numbered.answer, Answer::Accepted { .. }) {
            taken.push(numbered.number);
        }
    }
    // Those that were refused at the door were told there; those that were taken are on the stream.
    let lost: Vec<_> = losers
        .iter()
        .zip(1..)
        .filter(|(_, number)| taken.contains(number))
        .map(|(loser, _)| loser.id())
        .collect();
    let from = From::Height(Height(1));
    let mut follow = client.follow(Stream::RejectedTransactions, from, Filter::default());
    let mut events = Vec::new();
    while events.len() < lost.len() {
        events.push(next(&mut follow).await);
    }
    for event in &events {
        let Frame::Rejected { id, refusal, .. } = &event.frame else {
            panic!("{event:?}")
        };
        assert!(lost.contains(id));
        assert_eq!(refusal.class.as_deref(), Some("DoubleSpend"));
        assert!(matches!(
            client.status(id).await.unwrap(),
            Status::Rejected { .. }
        ));
    }
    for (seen, event) in events.iter().enumerate() {
        let from = From::Cursor(event.cursor);
        let mut again = client.follow(Stream::RejectedTransactions, from, Filter::default());
        for later in &events[seen + 1..] {
            assert_eq!(next(&mut again).await, *later);
        }
    }
}

#[tokio::test]
async fn a_filtered_follower_sees_what_concerns_it_and_moves_on_past_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client();
    let (alice, bob, carol) = (key(1), key(2), key(3));
    let filter = |key: &SigningKey| Filter {
        public_key: Some(key.public_key()),
        ..Filter::default()
    };
    let mut live = client.follow(Stream::ValidTransactions, From::Now, filter(&bob));
    live.ready().await.unwrap();
    assert_eq!(
        live.cursor(),
        Some(Cursor {
            height: Height(1),
            index: 0
        })
    );
    let lamp = create(&alice, "lamp", 5);
    commit(&client, &lamp).await;
    commit(&client, &create(&carol, "vase", 1)).await;
    commit(&client, &give(&lamp, &alice, &bob, "sale")).await;
    let event = next(&mut live).await;
    assert_eq!(
        (event.frame.height(), event.cursor.to_string().as_str()),
        (Height(3), "3.1")
    );
    // A follower of somebody silent learns how far it is without an event.
    let from = From::Height(Height(1));
    let mut silent = client.follow(Stream::ValidTransactions, from, filter(&key(9)));
    silent.ready().await.unwrap();
    let moved = timeout(PATIENCE, async {
        while silent.cursor()
            != Some(Cursor {
                height: Height(4),
                index: 0,
            })
        {
            let _ = timeout(Duration::from_millis(20), silent.next()).await;
        }
    });
    moved.await.expect("the head is told");
}

#[tokio::test]
async fn the_fate_of_a_submission_is_found_out_after_a_kill_or_said_to_be_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let address = node.address().to_owned();
    let client = Client::builder(node.url().parse().unwrap())
        .settle_within(PATIENCE)
        .build()
        .unwrap();
    let hasty = Client::builder(node.url().parse().unwrap())
        .settle_within(Duration::from_millis(50))
        .build()
        .unwrap();
    let alice = key(1);
    node.kill();
    let lamp = Submission::from(&create(&alice, "lamp", 5));
    let Fate::Unknown(error) = hasty.commit(&lamp).await else {
        panic!("no node, yet a fate")
    };
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let patient = tokio::spawn(async move { client.commit(&lamp).await });
    let _node = Node::start_with(folder.path(), &["--listen", &address]);
    assert!(matches!(patient.await.unwrap(), Fate::Committed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so_and_patient_clients_get_everything_in() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), &["--limits-pool-transactions", "2"]);
    let client = node.client();
    let alice = key(1);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..40 {
        let lamp = create(&alice, &format!("lamp {number}"), 1);
        let client = client.clone();
        waiting.spawn(async move { commit(&client, &lamp).await });
    }
    let mut places = Vec::new();
    while let Some(place) = waiting.join_next().await {
        places.push(place.unwrap());
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 40);
}

#[test]
fn another_history_under_the_same_address_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = |name: &str, flags: &[&str]| Node::start_with(&folder.path().join(name), flags);
    let tell = |node: &Node, name: &str| {
        let lamp = create(&key(1), name, 1);
        runtime.block_on(async { commit(&node.client(), &lamp).await });
    };
    let node = start("one", &[]);
    let address = node.address().to_owned();
    let mut follow = node.client().follow(
        Stream::ValidTransactions,
        From::Height(Height(1)),
        Filter::default(),
    );
    tell(&node, "lamp");
    runtime.block_on(next(&mut follow));
    node.kill();
    let node = start("two", &["--listen", &address]);
    tell(&node, "vase");
    let error = runtime
        .block_on(async { timeout(PATIENCE, follow.next()).await })
        .unwrap();
    let Err(Error::Protocol(what)) = error else {
        panic!("{error:?}")
    };
    assert!(what.contains("another history"), "{what}");
    assert!(Path::new(&folder.path().join("one")).exists());
}

#[tokio::test]
async fn a_commit_is_answered_with_its_place_and_exact_strings_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let client = node.client();
    let alice = key(1);
    let cid = "bafkreiignwcoye67vn6edp23mj4llhpzzkgyuefu7xesjzjxcv2bz3p4nq / 1%";
    let deed = Draft::create(cid)
        .output(1, &alice)
        .metadata("a deed")
        .sign(&[&alice])
        .unwrap();
    let posted = client.post(&Submission::from(&deed), Mode::Commit).await;
    let Ok(Answer::Committed(receipt)) = posted else {
        panic!("{posted:?}")
    };
    assert_eq!((receipt.id, receipt.repeated), (deed.id(), false));
    assert_eq!(
        client.assets_holding(cid, 0).await.unwrap(),
        [serde_json::json!({"data": cid})]
    );
    assert_eq!(
        client.metadata_holding("a deed", 5).await.unwrap(),
        ["a deed"]
    );
    assert!(
        client
            .assets_holding("another", 0)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(client.metadata_holding("", 0).await.unwrap().is_empty());
    let position = client.position(&deed.id()).await.unwrap();
    assert_eq!(
        position,
        Some(receipt.position),
        "it is the one that is told later"
    );
}
