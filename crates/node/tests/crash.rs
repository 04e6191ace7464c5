//! Power cuts: a node killed at random moments under load, again and again.
//!
//! After each restart every durable acknowledgement is there with its id and position, every asset
//! still has the units it was made with, and followers go on exactly where they were. `CRASH_ROUNDS`
//! sets the number of rounds, `CRASH_SEED` repeats a run's choices.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Node, check, power_cuts};
use daybook_client::{
    Acknowledge, Answer, Client, Error, Fate, Filter, Follow, Frame, From, Receipt, Stream,
    Submission,
};
use daybook_ledger::{
    AssetId, Draft, Height, OutputRef, Parser, Position, Rules, SigningKey, Transaction,
    TransactionId, json::Object,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::timeout};

/// Units of every asset of the test.
const UNITS: u64 = 1_000;
/// Chains of transfers that go through the batch door at once.
const BATCH_CHAINS: usize = 24;
/// Transfers of one round that are signed for the batch door; more than a round commits.
const BATCH_TRANSFERS: usize = 1_200;
/// Owners who post one transfer at a time.
const POSTERS: usize = 4;
/// Durable acknowledgements after which a round's kill comes, at most.
const ACKNOWLEDGED_MAX: u64 = 700;
/// Between the last of them and the kill, at most: so that it falls anywhere in the work of a block.
const MICROSECONDS_MAX: u64 = 4_000;
/// How long anything is waited for before the test counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// An asset whose units move among the outputs of one key.
struct Chain {
    key: SigningKey,
    asset: AssetId,
    /// Every output that any signed transaction made, with its units.
    made: BTreeMap<OutputRef, u64>,
    /// What is unspent now, as far as is known.
    unspent: Vec<(OutputRef, u64)>,
}

impl Chain {
    fn begin(random: &mut StdRng, parser: &mut Parser) -> (Chain, Transaction) {
        let key = SigningKey::from_seed(random.random());
        let create = Draft::create(Object::from_iter([("kind", "crash test")]))
            .output(UNITS, &key)
            .sign_with(parser, &[&key])
            .unwrap();
        let mut chain = Chain {
            key,
            asset: create.asset(),
            made: BTreeMap::new(),
            unspent: Vec::new(),
        };
        chain.take(&create);
        (chain, create)
    }

    /// The next transfer: splits one output in two, or merges all into one.
    fn next(&mut self, random: &mut StdRng, parser: &mut Parser) -> Transaction {
        let mut draft = Draft::transfer(self.asset);
        let merge = self.unspent.len() > 3 || random.random_bool(0.3);
        let spent: Vec<(OutputRef, u64)> = if merge {
            std::mem::take(&mut self.unspent)
        } else {
            let place = random.random_range(0..self.unspent.len());
            vec![self.unspent.swap_remove(place)]
        };
        let mut units = 0;
        for (output, held) in spent {
            draft = draft.spend(output, &self.key);
            units += held;
        }
        if !merge && units > 1 {
            let part = random.random_range(1..units);
            draft = draft
                .output(part, &self.key)
                .output(units - part, &self.key);
        } else {
            draft = draft.output(units, &self.key);
        }
        let transfer = draft.sign_with(parser, &[&self.key]).unwrap();
        self.take(&transfer);
        transfer
    }

    fn take(&mut self, transaction: &Transaction) {
        for (index, output) in transaction.outputs().iter().enumerate() {
            let place = transaction.output_ref(u32::try_from(index).unwrap());
            self.made.insert(place, output.amount.units());
            self.unspent.push((place, output.amount.units()));
        }
    }

    /// Reads what is unspent from the node, and checks that nothing was lost or made.
    async fn reckon(&mut self, client: &Client) {
        let outputs = client
            .outputs(&self.key.public_key(), Some(false))
            .await
            .unwrap();
        self.unspent = outputs
            .iter()
            .map(|output| (*output, self.made[output]))
            .collect();
        let sum: u64 = self.unspent.iter().map(|(_, units)| units).sum();
        assert_eq!(
            sum, UNITS,
            "asset {} has other units than it was made with",
            self.asset
        );
    }
}

/// What was acknowledged as durable, and what was seen of it since.
#[derive(Default)]
struct Acknowledged {
    count: AtomicU64,
    positions: Mutex<BTreeMap<TransactionId, Position>>,
}

impl Acknowledged {
    fn take(&self, receipt: Receipt) {
        let before = self
            .positions
            .lock()
            .unwrap()
            .insert(receipt.id, receipt.position);
        assert!(
            before.is_none_or(|before| before == receipt.position),
            "a place that moved"
        );
        self.count.fetch_add(1, Ordering::Release);
    }
}

#[test]
fn item_63_a_node_killed_under_load_loses_nothing_that_it_acknowledged() {
    power_cuts(run);
}

async fn run(seed: u64, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let mut random = StdRng::seed_from_u64(seed);
    let mut parser = Parser::new(Rules::default());
    let mut node = Node::start(&dir);
    let address = node.address().to_owned();
    let client = Client::builder(node.url().parse().unwrap())
        .settle_within(PATIENCE)
        .build()
        .unwrap();
    let acknowledged = Arc::new(Acknowledged::default());

    // Two followers from the very beginning to the very end, through every kill.
    let from = From::Height(Height(1));
    let transactions =
        spawn_follower(client.follow(Stream::ValidTransactions, from, Filter::default()));
    let blocks = spawn_follower(client.follow(Stream::ValidBlocks, from, Filter::default()));

    let mut chains = Vec::new();
    for _ in 0..BATCH_CHAINS {
        let (chain, create) = Chain::begin(&mut random, &mut parser);
        acknowledged.take(commit(&client, &create).await);
        chains.push(chain);
    }
    // Owners who never notice the kills: their client sends again and asks until it knows.
    let mut posters = JoinSet::new();
    let over = Arc::new(AtomicU64::new(0));
    for _ in 0..POSTERS {
        let (mut chain, create) = Chain::begin(&mut random, &mut parser);
        let (client, acknowledged, over) = (client.clone(), acknowledged.clone(), over.clone());
        let mut random = StdRng::seed_from_u64(random.random());
        posters.spawn(async move {
            let mut parser = Parser::new(Rules::default());
            acknowledged.take(commit(&client, &create).await);
            while over.load(Ordering::Acquire) == 0 {
                let transfer = chain.next(&mut random, &mut parser);
                acknowledged.take(commit(&client, &transfer).await);
            }
            chain
        });
    }

    let mut checked = 0;
    for round in 1..=rounds {
        let target =
            acknowledged.count.load(Ordering::Acquire) + random.random_range(1..=ACKNOWLEDGED_MAX);
        let after = Duration::from_micros(random.random_range(0..=MICROSECONDS_MAX));
        let transfers: Vec<Transaction> = (0..BATCH_TRANSFERS)
            .map(|number| chains[number % BATCH_CHAINS].next(&mut random, &mut parser))
            .collect();
        let sending = tokio::spawn(batch(client.clone(), transfers, acknowledged.clone()));
        timeout(PATIENCE, async {
            while acknowledged.count.load(Ordering::Acquire) < target {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the node commits");
        tokio::time::sleep(after).await;
        node.kill();
        sending.await.unwrap();

        node = Node::start_with(&dir, &["--listen", &address]);
        // Those who post go on at once, so the tip moves; what was acknowledged before lies below.
        let known: BTreeMap<TransactionId, Position> =
            acknowledged.positions.lock().unwrap().clone();
        let tip = known
            .values()
            .map(|position| position.height.0)
            .max()
            .unwrap();
        let found = ids_of_blocks(&client, checked + 1, tip).await;
        for (id, position) in &known {
            if position.height.0 > checked {
                let there = found
                    .get(&position.height.0)
                    .and_then(|ids| ids.get(position.index as usize));
                assert_eq!(
                    there,
                    Some(id),
                    "round {round}: acknowledged at {position:?}"
                );
            }
        }
        // The newest block may have been checked only in part of its acknowledgements.
        checked = tip.saturating_sub(1);
        for chain in &mut chains {
            chain.reckon(&client).await;
        }
    }

    over.store(1, Ordering::Release);
    while let Some(chain) = posters.join_next().await {
        chain.unwrap().reckon(&client).await;
    }
    finish(&client, node, &dir, &acknowledged, transactions, blocks).await;
}

/// Compares everything with everything, and has the ledger checked from its first byte.
async fn finish(
    client: &Client,
    node: Node,
    dir: &Path,
    acknowledged: &Acknowledged,
    transactions: Following,
    blocks: Following,
) {
    let tip = client.latest_block().await.unwrap().height.0;
    let found = ids_of_blocks(client, 1, tip).await;
    let committed: Vec<(Position, TransactionId)> = found
        .iter()
        .flat_map(|(height, ids)| {
            ids.iter().zip(0..).map(|(id, index)| {
                (
                    Position {
                        height: Height(*height),
                        index,
                    },
                    *id,
                )
            })
        })
        .collect();
    for (id, position) in acknowledged.positions.lock().unwrap().iter() {
        assert!(
            committed.binary_search(&(*position, *id)).is_ok(),
            "{id} at {position:?}"
        );
    }
    let ids: std::collections::BTreeSet<TransactionId> =
        committed.iter().map(|(_, id)| *id).collect();
    assert_eq!(
        ids.len(),
        committed.len(),
        "no transaction was committed twice"
    );

    let seen = transactions.all(committed.len()).await;
    let seen: Vec<(Position, TransactionId)> = seen
        .into_iter()
        .map(|frame| match frame {
            Frame::Transaction {
                height, index, id, ..
            } => (Position { height, index }, id),
            other => panic!("{other:?} on valid_transactions"),
        })
        .collect();
    assert_eq!(
        seen, committed,
        "the follower saw every transaction once, in order"
    );
    let heights: Vec<u64> = blocks
        .all(tip as usize)
        .await
        .iter()
        .map(|f| f.height().0)
        .collect();
    assert!(
        heights.iter().copied().eq(1..=tip),
        "the follower saw every block once, in order"
    );
    println!("{} transactions in {tip} blocks", committed.len());

    assert_eq!(node.stop().code(), Some(0));
    let report = check(dir);
    assert_eq!(report["height"], tip, "{report}");
}

/// Sends a round's transfers through the batch door until the node is gone.
async fn batch(client: Client, transfers: Vec<Transaction>, acknowledged: Arc<Acknowledged>) {
    let Ok((mut sender, mut answers)) = client.batch(Acknowledge::Durable).await else {
        return;
    };
    let sending = async {
        for transfer in &transfers {
            sender.send(transfer.canonical()).await?;
        }
        sender.finish().await
    };
    let answering = async {
        loop {
            match answers.next().await {
                Ok(Some(numbered)) => match numbered.answer {
                    Answer::Committed(receipt) => {
                        let sent = &transfers[usize::try_from(numbered.number).unwrap()];
                        assert_eq!(receipt.id, sent.id(), "an answer to another line");
                        acknowledged.take(receipt);
                    }
                    Answer::Stopped => {}
                    other => panic!("{other:?} to a sound transfer"),
                },
                Ok(None) | Err(Error::Broken { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    // A send that fails says what the answers say: the node is gone.
    let _ = tokio::join!(sending, answering);
}

async fn commit(client: &Client, transaction: &Transaction) -> Receipt {
    match client.commit(&Submission::from(transaction)).await {
        Fate::Committed(receipt) => receipt,
        other => panic!("{}: {other:?}", transaction.id()),
    }
}

/// The ids of every block of a range of heights.
async fn ids_of_blocks(client: &Client, from: u64, to: u64) -> BTreeMap<u64, Vec<TransactionId>> {
    let mut found = BTreeMap::new();
    if from > to {
        return found;
    }
    let mut follow = client.follow(
        Stream::ValidBlocks,
        From::Height(Height(from)),
        Filter::default(),
    );
    while found.len() as u64 <= to - from {
        let event = timeout(PATIENCE, follow.next())
            .await
            .expect("blocks up to the tip")
            .unwrap();
        if let Frame::Block {
            height,
            transactions,
            ..
        } = event.frame
        {
            found.insert(height.0, transactions);
        }
    }
    found
}

/// A follower that gathers all it sees.
struct Following {
    task: tokio::task::JoinHandle<()>,
    seen: Arc<Mutex<Vec<Frame>>>,
}

fn spawn_follower(mut follow: Follow) -> Following {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let task = tokio::spawn({
        let seen = seen.clone();
        async move {
            loop {
                let event = follow.next().await.unwrap();
                seen.lock().unwrap().push(event.frame);
            }
        }
    });
    Following { task, seen }
}

impl Following {
    /// What was seen once there were `count` frames.
    async fn all(self, count: usize) -> Vec<Frame> {
        let complete = timeout(PATIENCE, async {
            while self.seen.lock().unwrap().len() < count {
                assert!(!self.task.is_finished(), "the follower failed");
                tokio::task::yield_now().await;
            }
        });
        complete.await.expect("the follower reaches the tip");
        self.task.abort();
        self.seen.lock().unwrap().clone()
    }
}
