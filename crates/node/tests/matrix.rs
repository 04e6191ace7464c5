//! One act, seen everywhere: what is done through one door is found through all others, under the same
//! id and at the same place of the log.
//!
//! A row is an act, a column a door. A cell either finds the act there or says why it cannot be there;
//! nothing is left out. The whole table is printed.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::BufReader,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use common::{binary, daybook, get, next};
use daybook_client::{
    Client, EventFilter, Fate, Filter, Frame, From, Stream, Submission,
    bus::{Bus, BusKey, Call, Subscribe},
};
use daybook_ledger::{
    Draft, Height, OutputRef, SigningKey, Transaction, TransactionId, json::Object,
};
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long anything is waited for before the test counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running town; killed when dropped.
struct Town {
    child: Child,
    said: BufReader<ChildStdout>,
    facts: Value,
    client: Client,
}

/// Something that was done, as whoever did it was told of it.
struct Act {
    what: &'static str,
    id: TransactionId,
    /// Where it stands, if whoever did it was told that.
    told: Option<String>,
    /// Its kind on the event stream.
    kind: &'static str,
    /// The order that it pays for, at this machine.
    order: Option<String>,
}

/// What one door says of an act.
enum Cell {
    /// It is there, at this position.
    At(String),
    /// It is there under its id; this door tells no positions.
    Named,
    /// Such an act is not for this door.
    NotHere,
    /// It should be there.
    Missing,
}

impl Town {
    fn start() -> Town {
        let mut child = binary()
            .args(["--json", "demo", "--free-ports"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let facts = next(&mut said, |value| value["event"] == "town");
        let client = Client::new(facts["http"].as_str().unwrap().parse().unwrap()).unwrap();
        Town {
            child,
            said,
            facts,
            client,
        }
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap()
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.fact("folder"))
    }

    fn machine(&self, name: &str) -> String {
        let machines = self.facts["machines"].as_array().unwrap();
        let found = machines.iter().find(|each| each["name"] == name).unwrap();
        found["url"].as_str().unwrap().to_owned()
    }

    /// What a command says, one JSON value per line.
    fn run(&self, args: &[&str]) -> Vec<Value> {
        let all = [&["--json"], args, &["--url", self.fact("http")]].concat();
        daybook(&all).ok().json()
    }

    fn peer(&self, args: &[&str], key: &str) -> Vec<Value> {
        let (key, known) = (self.file(key), self.file("trackers.json"));
        let own = ["--key", &key, "--known-trackers", &known];
        self.run(&[&["channel"], args, &own].concat())
    }

    async fn bus(&self, name: &str) -> Bus {
        let key = std::fs::read_to_string(self.file("bus.key")).unwrap();
        let url = self.fact("bus").parse().unwrap();
        let bus = Bus::builder(url, name, BusKey::new(&key)).connect();
        bus.await.unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(self.fact("folder"));
    }
}

fn id(value: &Value) -> TransactionId {
    value.as_str().unwrap().parse().unwrap()
}

/// An asset of a new owner, and a transfer of all of it to somebody.
fn thing(name: &str) -> (Transaction, Transaction) {
    let owner = SigningKey::from_seed([7; 32]);
    let other = SigningKey::from_seed([8; 32]);
    let made = Draft::create(Object::from_iter([("kind", name)]))
        .output(1, &owner)
        .sign(&[&owner])
        .unwrap();
    let output = OutputRef {
        transaction: made.id(),
        index: 0,
    };
    let given = Draft::transfer(made.asset())
        .spend(output, &owner)
        .output(1, &other)
        .sign(&[&owner])
        .unwrap();
    (made, given)
}

async fn commit(client: &Client, transaction: &Transaction) -> String {
    match client.commit(&Submission::from(transaction)).await {
        Fate::Committed(receipt) => receipt.position.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Everything that is done, one act through each door and what follows from it.
async fn act(town: &mut Town) -> Vec<Act> {
    let plain = |what, id, told, kind| Act {
        what,
        id,
        told,
        kind,
        order: None,
    };
    let mut acts = Vec::new();

    // The organisations were the first; the last of their steps commits.
    let agreed = next(&mut town.said, |value| value["step"] == "committed");
    let told = agreed["position"].as_str().unwrap().to_owned();
    let kind = "consortium.endorse";
    acts.push(plain(
        "a container's entry, agreed to",
        id(&agreed["id"]),
        Some(told),
        kind,
    ));

    let (lamp, given) = thing("lamp");
    commit(&town.client, &lamp).await;
    let told = commit(&town.client, &given).await;
    acts.push(plain(
        "a transfer over HTTP",
        given.id(),
        Some(told),
        "asset.transfer",
    ));

    let (book, lent) = thing("book");
    commit(&town.client, &book).await;
    let bus = town.bus("lender").await;
    let text = std::str::from_utf8(lent.canonical()).unwrap();
    let submitted: Value = serde_json::from_str(text).unwrap();
    let answer = bus
        .call(
            "ledger.submit",
            &json!({"transaction": submitted}),
            Call::default(),
        )
        .await
        .unwrap();
    let told = format!("{}.{}", answer["height"], answer["index"]);
    acts.push(plain(
        "a transfer over the bus",
        id(&answer["id"]),
        Some(told),
        "asset.transfer",
    ));

    // A deposit is an ordinary transfer of tokens to the tracker's holder.
    let tracker = get(&format!("{}/api/v1/tracker", town.fact("http")));
    let customer = town.file("customer.key");
    let to = format!("{}:3", tracker["holder"].as_str().unwrap());
    let token = tracker["token"].as_str().unwrap();
    let deposit = town.run(&[
        "tx", "transfer", "--key", &customer, "--asset", token, "--to", &to,
    ]);
    let deposit = id(&deposit.last().unwrap()["id"]);
    acts.push(plain(
        "a deposit's transfer",
        deposit,
        None,
        "asset.transfer",
    ));

    let (url, key) = (town.machine("Robot1"), town.file("customer.key"));
    let said = town.run(&["order", &url, "--key", &key]);
    let paid = said.iter().find(|value| value["event"] == "paid").unwrap();
    let order = format!("{url}/orders/{}", paid["order_id"].as_str().unwrap());
    acts.push(Act {
        what: "a customer pays a machine",
        id: id(&paid["id"]),
        told: Some(format!("{}.{}", paid["height"], paid["index"])),
        kind: "asset.transfer",
        order: Some(order.clone()),
    });
    acts.push(Act {
        what: "a machine pays its provider",
        id: id(&get(&order)["provider_order"]["transaction_id"]),
        told: None,
        kind: "asset.transfer",
        order: Some(order),
    });

    let (shop, copy) = (town.fact("shop").to_owned(), town.file("copy-2"));
    town.peer(&["fetch", &shop, "--out", &copy], "reader.key");
    let owner = SigningKey::from_seed([9; 32]).public_key().to_string();
    town.peer(&["payout", "--to", &owner], "shop.key");

    // What follows from acts of the tracker has ids of its own, which the log tells.
    let seen = events(town, |events| {
        events.iter().any(|event| event.1 == "tracker.payout")
    })
    .await;
    let newest = |kind: &str| {
        seen.iter()
            .rev()
            .find(|event| event.1 == kind)
            .unwrap()
            .clone()
    };
    for (what, kind) in [
        ("a deposit is booked", "tracker.deposit"),
        ("a channel is opened", "tracker.open_transfer"),
        ("a channel is settled", "tracker.close_transfer"),
        ("a payout is booked", "tracker.payout"),
    ] {
        let (id, ..) = newest(kind);
        acts.push(plain(what, id, None, kind));
    }
    let (_, _, _, payout) = newest("tracker.payout");
    let moved = id(&payout["transaction"]);
    acts.push(plain("a payout's transfer", moved, None, "asset.transfer"));
    acts
}

/// Id, kind, position and body.
type Seen = (TransactionId, String, String, Value);

/// The general event stream, from its beginning until it told enough.
async fn events(town: &Town, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let mut stream = town
        .client
        .events(From::Height(Height(1)), EventFilter::default());
    let mut seen = Vec::new();
    while !enough(&seen) {
        let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
        seen.push((event.id, event.kind, event.position.to_string(), event.body));
    }
    seen
}

/// Positions by id, as one door told them.
type Told = BTreeMap<TransactionId, String>;

/// Every door, read from its beginning until it has told of the last act.
async fn doors(town: &Town, acts: &[Act]) -> [Told; 3] {
    let all = |found: &Told, wanted: &dyn Fn(&Act) -> bool| {
        acts.iter()
            .filter(|act| wanted(act))
            .all(|act| found.contains_key(&act.id))
    };
    let mut general = Told::new();
    let seen = events(town, |seen| {
        acts.iter()
            .all(|act| seen.iter().any(|event| event.0 == act.id))
    });
    for (id, _, position, _) in seen.await {
        general.insert(id, position);
    }
    let mut valid = Told::new();
    let mut stream = town.client.follow(
        Stream::ValidTransactions,
        From::Height(Height(1)),
        Filter::default(),
    );
    while !all(&valid, &|act| act.is_asset()) {
        let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
        if let Frame::Transaction {
            height, index, id, ..
        } = event.frame
        {
            valid.insert(id, format!("{}.{index}", height.0));
        }
    }
    let mut over_bus = Told::new();
    let bus = town.bus("listener").await;
    let how = Subscribe {
        from: Some("1".to_owned()),
        ..Subscribe::default()
    };
    let mut messages = bus.subscribe("ledger.events", how).await.unwrap();
    while !all(&over_bus, &|_| true) {
        let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
        let data = message.data();
        over_bus.insert(
            id(&data["id"]),
            data["position"].as_str().unwrap().to_owned(),
        );
    }
    [general, valid, over_bus]
}

impl Act {
    fn is_asset(&self) -> bool {
        self.kind.starts_with("asset.")
    }

    fn book(&self) -> &str {
        self.kind.split_once('.').unwrap().0
    }
}

fn told(found: Option<&String>) -> Cell {
    found.map_or(Cell::Missing, |position| Cell::At(position.clone()))
}

/// `GET /api/v1/transactions/{id}` and its place.
async fn over_http(town: &Town, act: &Act) -> Cell {
    if !act.is_asset() {
        return Cell::NotHere;
    }
    let shown = get(&format!(
        "{}/api/v1/transactions/{}",
        town.fact("http"),
        act.id
    ));
    let position = town.client.position(&act.id).await.unwrap();
    match position {
        Some(position) if shown["id"] == act.id.to_string() => Cell::At(position.to_string()),
        _ => Cell::Missing,
    }
}

fn in_the_console(town: &Town, act: &Act) -> Cell {
    let url = format!("{}/console/data/transactions/{}", town.fact("http"), act.id);
    let event = &get(&url)["event"];
    match event["position"].as_str() {
        Some(position) if event["id"] == act.id.to_string() && event["kind"] == act.kind => {
            Cell::At(position.to_owned())
        }
        _ => Cell::Missing,
    }
}

/// The order at its machine names the transactions that paid it and that paid its provider.
fn at_the_machine(act: &Act) -> Cell {
    let Some(url) = &act.order else {
        return Cell::NotHere;
    };
    let order = get(url);
    let wanted = act.id.to_string();
    let mut named = vec![order["provider_order"]["transaction_id"].clone()];
    let payments = order["payments"].as_array().unwrap();
    named.extend(
        payments
            .iter()
            .map(|payment| payment["transaction_id"].clone()),
    );
    match named.iter().any(|id| *id == wanted) {
        true => Cell::Named,
        false => Cell::Missing,
    }
}

/// The tracker's own log names its records in its own way; the event of the entry tells which those are.
fn at_the_tracker(town: &Town, act: &Act, records: &[Value], listed: &[Value]) -> Cell {
    match act.kind {
        // Deposits are between the operator and the wallet: the tracker tells its sum.
        "tracker.deposit" => {
            let wallet = get(&format!("{}/api/v1/tracker", town.fact("http")));
            match wallet["head"]["seq"].as_u64() >= records[0]["seq"].as_u64() {
                true => Cell::Named,
                false => Cell::Missing,
            }
        }
        _ if act.book() != "tracker" => Cell::NotHere,
        _ => {
            let there = |record: &Value| listed.iter().any(|item| item["tx_id"] == record["tx_id"]);
            match !records.is_empty() && records.iter().all(there) {
                true => Cell::Named,
                false => Cell::Missing,
            }
        }
    }
}

fn at_the_consortium(town: &Town, act: &Act, position: &str) -> Cell {
    if act.book() != "consortium" {
        return Cell::NotHere;
    }
    let path = format!("/api/v1/consortium/entries?from={position}&limit=1");
    let page = get(&format!("{}{path}", town.fact("http")));
    let entry = &page["entries"][0];
    match entry["id"] == act.id.to_string() {
        true => Cell::At(entry["position"].as_str().unwrap().to_owned()),
        false => Cell::Missing,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_act_is_seen_everywhere() {
    let mut town = Town::start();
    let acts = act(&mut town).await;
    let town = town;
    let [general, valid, over_bus] = doors(&town, &acts).await;
    let listed = town.peer(&["list"], "shop.key");
    let bodies: BTreeMap<TransactionId, Value> = events(&town, |seen| {
        acts.iter()
            .all(|act| seen.iter().any(|event| event.0 == act.id))
    })
    .await
    .into_iter()
    .map(|(id, _, _, body)| (id, body))
    .collect();

    let names = [
        "events",
        "HTTP",
        "valid",
        "bus",
        "console",
        "machine",
        "tracker",
        "consortium",
    ];
    let mut table = format!("{:<32}{:>9}", "", "position");
    for name in names {
        let _ = write!(table, "{name:>12}");
    }
    let mut wrong = Vec::new();
    for act in &acts {
        let position = general.get(&act.id).unwrap();
        if act.told.as_ref().is_some_and(|told| told != position) {
            wrong.push(format!(
                "{}: answered {:?}, stands at {position}",
                act.what, act.told
            ));
        }
        let records = bodies[&act.id]["records"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let cells = [
            told(general.get(&act.id)),
            over_http(&town, act).await,
            if act.is_asset() {
                told(valid.get(&act.id))
            } else {
                Cell::NotHere
            },
            told(over_bus.get(&act.id)),
            in_the_console(&town, act),
            at_the_machine(act),
            at_the_tracker(&town, act, &records, &listed),
            at_the_consortium(&town, act, position),
        ];
        let _ = write!(table, "\n{:<32}{position:>9}", act.what);
        for (name, cell) in names.iter().zip(&cells) {
            let text = match cell {
                Cell::At(at) if at == position => "same",
                Cell::At(_) => "ELSEWHERE",
                Cell::Named => "by its id",
                Cell::NotHere => "-",
                Cell::Missing => "MISSING",
            };
            let _ = write!(table, "{text:>12}");
            if text == text.to_uppercase() && text != "-" {
                wrong.push(format!("{}: {text} in {name}", act.what));
            }
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{}\n{table}", wrong.join("\n"));
    assert_eq!(acts.len(), 11);
}
