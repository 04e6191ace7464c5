//! `daybook demo`: a node, made-up owners, real signed assets, and a reckoning at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use daybook_client::{Client, Fate, Filter, Frame, From, Receipt, Stream, Submission};
use daybook_ledger::{
    AssetId, Draft, OutputRef, SigningKey, Transaction, TransactionId,
    json::{Object, Value},
};
use futures_util::{TryStreamExt, future::join_all};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;
use tokio::{signal, sync::mpsc, time};

use crate::{
    cli::Demo,
    config::Config,
    failure::{Exit, Failure},
    keyfile, log,
    node::LiveNode,
    out::{Out, thousands},
    outputs,
    settings::Settings,
};

const OWNERS: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];
/// What is traded: name, unit, units, and who brings it.
const GOODS: [(&str, &str, u64, usize); 4] = [
    ("oranges", "kg", 500, 0),
    ("coffee", "bags", 120, 1),
    ("solar power", "kWh", 9_000, 2),
    ("tea", "boxes", 80, 3),
];
/// Between two rounds of trades: slow enough to read along.
const ROUND: Duration = Duration::from_millis(650);
/// Trades of one round at most; they are sent at once and often share a block.
const TRADES_MAX: usize = 3;
/// How long the stream may take to tell what the API has already acknowledged.
const STREAM_WITHIN: Duration = Duration::from_secs(5);

/// The demo's own books, kept beside the ledger to compare with it.
struct Market {
    owners: Vec<(String, SigningKey)>,
    goods: Vec<Good>,
    /// Unspent outputs, by owner and good.
    holdings: BTreeMap<(usize, usize), Vec<(OutputRef, u64)>>,
}

struct Good {
    name: &'static str,
    unit: &'static str,
    units: u64,
    asset: AssetId,
}

/// A trade that is signed and not yet committed.
struct Trade {
    transaction: Transaction,
    good: usize,
    from: usize,
    to: usize,
    units: u64,
    change: u64,
}

/// What the stream said, as it said it.
struct Seen {
    height: u64,
    index: u32,
    id: TransactionId,
}

pub(crate) async fn run(args: &Demo, out: Out) -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("daybook-demo-")
        .tempdir()
        .map_err(|e| Failure::system("a temporary directory", &e))?;
    let flags = [
        ("data_dir".to_owned(), folder.path().display().to_string()),
        ("listen".to_owned(), args.listen.clone()),
        ("streams_listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("bus_listen".to_owned(), "off".to_owned()),
        ("chain".to_owned(), "demo".to_owned()),
    ];
    let config = Config::from_settings(&Settings::load(&flags, [], None)?)?;
    log::start(config.log_format, "warn")?;
    let live = LiveNode::start(&config).await?;
    let url = live.listening.http_url(live.listening.http);
    out.say(
        &json!({"event": "listening", "http": url, "streams": live.listening.streams_url()}),
        &format!(
            "A Daybook node on {url}, its data in {} for the moment.\n",
            folder.path().display()
        ),
    );
    let client = Client::new(url.parse().expect("the node's own address is an address"))?;
    let result = trade(&client, Duration::from_secs(args.seconds), out).await;
    if args.keep && result.is_ok() {
        out.say(
            &json!({"event": "kept", "http": url}),
            &format!(
                "\nThe node stays up on {url} until Ctrl-C. Try: curl {url}/api/v1/blocks/latest"
            ),
        );
        let _ = signal::ctrl_c().await;
    }
    live.stop().await?;
    result
}

async fn trade(client: &Client, lasting: Duration, out: Out) -> Result<(), Failure> {
    let began = Instant::now();
    // Everything printed about commits comes from here, not from the answers.
    let mut follow = client
        .follow(
            Stream::ValidTransactions,
            From::Height(daybook_ledger::Height(1)),
            Filter::default(),
        )
        .give_up_after(STREAM_WITHIN);
    follow.ready().await?;
    let (events, mut seen) = mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        loop {
            let event = follow.next().await?;
            let Frame::Transaction {
                height, index, id, ..
            } = event.frame
            else {
                continue;
            };
            if events
                .send(Seen {
                    height: height.0,
                    index,
                    id,
                })
                .is_err()
            {
                return Ok::<(), daybook_client::Error>(());
            }
        }
    });

    let mut stories: BTreeMap<TransactionId, String> = BTreeMap::new();
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut printed = Printed {
        out,
        last_height: 0,
        positions: BTreeSet::new(),
        own: 0,
    };
    let mut market = Market {
        owners: OWNERS
            .iter()
            .map(|name| ((*name).to_owned(), keyfile::generate()))
            .collect(),
        goods: Vec::new(),
        holdings: BTreeMap::new(),
    };
    let mut random: StdRng = rand::make_rng();

    for (good, (name, unit, units, owner)) in GOODS.into_iter().enumerate() {
        let (who, key) = &market.owners[owner];
        let data = Object::from_iter([
            ("kind", Value::from(name)),
            ("unit", Value::from(unit)),
            ("made_for", Value::from("daybook demo")),
        ]);
        let transaction = sign(Draft::create(data).output(units, key), key)?;
        stories.insert(
            transaction.id(),
            format!("{who:>6} brings  {:>6} {unit} of {name}", thousands(units)),
        );
        receipts.push(commit(client, &transaction).await?);
        market.goods.push(Good {
            name,
            unit,
            units,
            asset: transaction.asset(),
        });
        market
            .holdings
            .entry((owner, good))
            .or_default()
            .push((transaction.output_ref(0), units));
    }
    printed.drain(&mut seen, &stories, receipts.len()).await?;

    let mut rejected = 0;
    let mut rounds = 0_u32;
    let mut next_round = time::interval(ROUND);
    while began.elapsed() < lasting {
        next_round.tick().await;
        rounds += 1;
        let trades: Vec<Trade> = (0..random.random_range(1..=TRADES_MAX))
            .filter_map(|_| market.offer(&mut random).transpose())
            .collect::<Result<_, _>>()?;
        for trade in &trades {
            stories.insert(trade.transaction.id(), market.story(trade));
        }
        let fates = join_all(
            trades
                .iter()
                .map(|trade| commit(client, &trade.transaction)),
        )
        .await;
        for (trade, receipt) in trades.iter().zip(fates) {
            receipts.push(receipt?);
            market.settle(trade);
        }
        printed.drain(&mut seen, &stories, receipts.len()).await?;
        // Once in a while somebody tries to spend what is spent.
        if rounds % 4 == 2
            && let Some(trade) = trades.first()
        {
            cheat(client, &market, trade, out).await?;
            rejected += 1;
        }
    }

    let report = reckon(client, &market, &receipts, &printed).await;
    following.abort();
    let sums = report?;
    if !out.json {
        out.line("");
    }
    for (good, held) in market.goods.iter().zip(&sums) {
        let by: Vec<String> = market
            .owners
            .iter()
            .zip(held)
            .filter(|(_, units)| **units > 0)
            .map(|((name, _), units)| format!("{name} {}", thousands(*units)))
            .collect();
        out.say(
            &json!({
                "event": "holdings",
                "good": good.name,
                "asset_id": good.asset.to_string(),
                "created": good.units,
                "held": held.iter().sum::<u64>(),
                "owners": market.owners.iter().zip(held).map(|((name, _), units)| (name.clone(), json!(units))).collect::<serde_json::Map<_, _>>(),
            }),
            &format!(
                "{:>14}  {:>6} {:<5} = {}",
                good.name,
                thousands(good.units),
                good.unit,
                by.join(" + ")
            ),
        );
    }
    let blocks = printed.last_height;
    out.say(
        &json!({
            "event": "sums",
            "ok": true,
            "transactions": receipts.len(),
            "blocks": blocks,
            "refused": rejected,
        }),
        &format!(
            "\nEvery amount adds up: {} transactions in {blocks} blocks, {rejected} double spends refused, \
             stream, history and outputs agree.",
            receipts.len(),
        ),
    );
    Ok(())
}

impl Market {
    /// Signs a trade of some units of one output to somebody else. The output is set aside, so that
    /// two trades of one round never meet.
    fn offer(&mut self, random: &mut StdRng) -> Result<Option<Trade>, Failure> {
        let sellers: Vec<(usize, usize)> = self
            .holdings
            .iter()
            .filter(|(_, outputs)| !outputs.is_empty())
            .map(|(place, _)| *place)
            .collect();
        let Some((from, good)) = sellers.choose(random).copied() else {
            return Ok(None);
        };
        let outputs = self
            .holdings
            .get_mut(&(from, good))
            .expect("chosen from the holdings");
        let (output, held) = outputs.swap_remove(random.random_range(0..outputs.len()));
        let to = (from + random.random_range(1..self.owners.len())) % self.owners.len();
        let units = random.random_range(1..=held.div_ceil(2));
        let change = held - units;
        let (seller, buyer) = (&self.owners[from].1, &self.owners[to].1);
        let mut draft = Draft::transfer(self.goods[good].asset)
            .spend(output, seller)
            .output(units, buyer)
            .metadata(Object::from_iter([(
                "note",
                Value::from("a trade of the demo"),
            )]));
        if change > 0 {
            draft = draft.output(change, seller);
        }
        Ok(Some(Trade {
            transaction: sign(draft, seller)?,
            good,
            from,
            to,
            units,
            change,
        }))
    }

    fn settle(&mut self, trade: &Trade) {
        let mut give = |owner, index, units| {
            let output = trade.transaction.output_ref(index);
            self.holdings
                .entry((owner, trade.good))
                .or_default()
                .push((output, units));
        };
        give(trade.to, 0, trade.units);
        if trade.change > 0 {
            give(trade.from, 1, trade.change);
        }
    }

    fn story(&self, trade: &Trade) -> String {
        let good = &self.goods[trade.good];
        format!(
            "{:>6} gives   {:>6} {} of {} to {}",
            self.owners[trade.from].0,
            thousands(trade.units),
            good.unit,
            good.name,
            self.owners[trade.to].0
        )
    }
}

/// What was printed of the stream.
struct Printed {
    out: Out,
    last_height: u64,
    /// Transactions of the owners.
    positions: BTreeSet<(u64, u32, TransactionId)>,
    /// Transactions of the node itself, which makes its tracker's token before it serves.
    own: usize,
}

/// The token comes into being, and some of it goes to the tracker, where one runs.
const OWN_TRANSACTIONS: usize = 2;

impl Printed {
    /// Prints what commits until `count` transactions were seen.
    async fn drain(
        &mut self,
        seen: &mut mpsc::UnboundedReceiver<Seen>,
        stories: &BTreeMap<TransactionId, String>,
        count: usize,
    ) -> Result<(), Failure> {
        while self.positions.len() < count {
            let event = match time::timeout(STREAM_WITHIN, seen.recv()).await {
                Ok(Some(event)) => event,
                _ => {
                    return Err(Failure::refused(
                        "the stream does not tell what was committed",
                    ));
                }
            };
            let known = stories.get(&event.id).map(String::as_str);
            let story = known.unwrap_or(" daybook opens   its wallet tracker");
            let block = if event.height == self.last_height {
                " ".repeat(12)
            } else {
                format!("block {:<6}", event.height)
            };
            self.last_height = event.height;
            let id = event.id.to_string();
            self.out.say(
                &json!({
                    "event": "committed",
                    "height": event.height,
                    "index": event.index,
                    "id": id,
                    "story": story.trim(),
                }),
                &format!(
                    "{block} {:>8}  {}…  {story}",
                    format!("{}.{}", event.height, event.index),
                    &id[..12]
                ),
            );
            if known.is_some() {
                self.positions.insert((event.height, event.index, event.id));
            } else {
                self.own += 1;
            }
        }
        Ok(())
    }
}

/// Compares the demo's books with what the API says, in three ways: the outputs of every owner, the
/// history of every asset, and the stream.
async fn reckon(
    client: &Client,
    market: &Market,
    receipts: &[Receipt],
    printed: &Printed,
) -> Result<Vec<Vec<u64>>, Failure> {
    let mut sums = vec![vec![0_u64; market.owners.len()]; market.goods.len()];
    for (owner, (_, key)) in market.owners.iter().enumerate() {
        let unspent = client.outputs(&key.public_key(), Some(false)).await?;
        let mut found = std::pin::pin!(outputs::fetch(client, unspent));
        while let Some((output, transaction)) = found.try_next().await? {
            let good = market
                .goods
                .iter()
                .position(|good| good.asset == transaction.asset())
                .ok_or_else(|| wrong("an output of an asset that nobody made"))?;
            sums[good][owner] += transaction.outputs()[output.index as usize].amount.units();
        }
    }
    for (good, held) in market.goods.iter().zip(&sums) {
        if held.iter().sum::<u64>() != good.units {
            return Err(wrong(&format!(
                "{} {} were made, {held:?} are held",
                good.units, good.name
            )));
        }
    }
    for (good, held) in sums.iter().enumerate() {
        for (owner, units) in held.iter().enumerate() {
            let booked: u64 = market
                .holdings
                .get(&(owner, good))
                .map_or(0, |outputs| outputs.iter().map(|(_, units)| units).sum());
            if booked != *units {
                return Err(wrong(&format!(
                    "{} holds {units}, not {booked}",
                    market.owners[owner].0
                )));
            }
        }
    }
    let mut history = 0;
    for good in &market.goods {
        history += client
            .transactions_of_asset(&good.asset, None, false)
            .await?
            .len();
    }
    let told: BTreeSet<_> = receipts
        .iter()
        .map(|receipt| {
            (
                receipt.position.height.0,
                receipt.position.index,
                receipt.id,
            )
        })
        .collect();
    if history != receipts.len()
        || told != printed.positions
        || ![0, OWN_TRANSACTIONS].contains(&printed.own)
    {
        return Err(wrong("history, stream and acknowledgements do not agree"));
    }
    Ok(sums)
}

/// Spends the input of a committed trade a second time; the node must refuse.
async fn cheat(client: &Client, market: &Market, trade: &Trade, out: Out) -> Result<(), Failure> {
    let (name, key) = &market.owners[trade.from];
    let spent = trade.transaction.inputs()[0]
        .spends
        .expect("a transfer spends");
    let draft = Draft::transfer(market.goods[trade.good].asset)
        .spend(spent, key)
        .output(trade.units + trade.change, key);
    let second = sign(draft, key)?;
    match client.commit(&Submission::from(&second)).await {
        Fate::Refused(refusal) if refusal.class.as_deref() == Some("DoubleSpend") => {
            let class = refusal.class.unwrap_or_default();
            out.say(
                &json!({"event": "refused", "class": class, "message": refusal.message, "owner": name}),
                &format!(
                    "{:12} {:>8}  {}…  {name:>6} tries to spend the same twice: {class}",
                    "refused",
                    "",
                    &second.id().to_string()[..12]
                ),
            );
            Ok(())
        }
        Fate::Unknown(error) => Err(error.into()),
        other => Err(wrong(&format!("a double spend ended as {other:?}"))),
    }
}

fn sign(draft: Draft, key: &SigningKey) -> Result<Transaction, Failure> {
    draft
        .sign(&[key])
        .map_err(|e| Failure::refused(e.to_string()))
}

async fn commit(client: &Client, transaction: &Transaction) -> Result<Receipt, Failure> {
    match client.commit(&Submission::from(transaction)).await {
        Fate::Committed(receipt) => Ok(receipt),
        Fate::Refused(refusal) => Err(Failure::refused(format!("refused: {refusal}"))),
        Fate::Unknown(error) => Err(error.into()),
    }
}

fn wrong(what: &str) -> Failure {
    Failure::new(Exit::Refused, format!("the books do not add up: {what}"))
}
