//! Payment channels on the command line, told as stories about real processes.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{Answer, Node, binary, daybook};
use serde_json::Value;

/// Quanta of 64 KiB at five tokens: small files take several.
const PRICES: [&str; 6] = [
    "--tracker-quantum-power",
    "16",
    "--tracker-income-price",
    "5",
    "--tracker-spend-price",
    "5",
];
/// A quantum, and the segment that every download of these tests is made of.
const QUANTUM: u64 = 1 << 16;

/// A folder with a node, and peers who keep their things beside it.
struct World {
    folder: tempfile::TempDir,
    node: Node,
}

impl World {
    fn new(more: &[&str]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start_with(&folder.path().join("node"), &[&PRICES, more].concat());
        World { folder, node }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A key file of a kind; answers its path.
    fn key(&self, name: &str, kind: &str) -> String {
        let path = self.path(name);
        daybook(&["keys", "generate", "--kind", kind, "--out", &path]).ok();
        path
    }

    /// A payer's and a payee's key file.
    fn peers(&self) -> (String, String) {
        (
            self.key("payer.key", "ed25519"),
            self.key("payee.key", "ed25519"),
        )
    }

    /// The arguments of a channel command, with those that all of them need.
    fn arguments(&self, args: &[&str], key: &str) -> Vec<String> {
        let known = self.path("trackers.json");
        let own = [
            "--key",
            key,
            "--known-trackers",
            &known,
            "--url",
            self.node.url(),
        ];
        let all = ["--json", "channel"].iter().chain(args).chain(&own);
        all.map(|text| (*text).to_owned()).collect()
    }

    fn channel(&self, args: &[&str], key: &str) -> Answer {
        let all = self.arguments(args, key);
        daybook(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn wallet(&self, key: &str) -> Value {
        self.channel(&["status", "wallet"], key).ok().one()
    }

    /// A file of so many bytes, none of which is like its neighbours.
    fn file(&self, name: &str, bytes: u64) -> String {
        let path = self.path(name);
        let text: Vec<u8> = (0..bytes).map(|i| (i * i % 251) as u8).collect();
        fs::write(&path, text).unwrap();
        path
    }

    fn serve(&self, file: &str, key: &str, more: &[&str]) -> Payee {
        self.serve_in_segments(file, QUANTUM, key, more)
    }

    fn serve_in_segments(&self, file: &str, bytes: u64, key: &str, more: &[&str]) -> Payee {
        let state = self.path("channels");
        let segment = bytes.to_string();
        let args = [
            "serve",
            file,
            "--listen",
            "127.0.0.1:0",
            "--state",
            &state,
            "--segment-bytes",
            &segment,
        ];
        let mut child = binary()
            .args(self.arguments(&[&args[..], more].concat(), key))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut payee = Payee {
            child,
            said,
            before: Vec::new(),
            url: String::new(),
            to: String::new(),
        };
        let serving = payee.event("serving");
        payee.url = serving["url"].as_str().unwrap().to_owned();
        payee.to = serving["to"].as_str().unwrap().to_owned();
        payee
    }

    fn fetch(&self, url: &str, out: &str, key: &str) -> Answer {
        self.channel(&["fetch", url, "--out", out], key)
    }

    /// One that goes on while the test does.
    fn fetching(&self, url: &str, out: &str, key: &str) -> Child {
        binary()
            .args(self.arguments(&["fetch", url, "--out", out], key))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

/// A running `channel serve`; killed when dropped.
struct Payee {
    child: Child,
    said: BufReader<ChildStdout>,
    /// Events that were said before the one that was waited for.
    before: Vec<Value>,
    url: String,
    /// The address that is paid.
    to: String,
}

impl Payee {
    /// Waits for an event of this name.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        self.one_of(&[name])
    }

    /// Waits for an event of one of these names.
    #[track_caller]
    fn one_of(&mut self, names: &[&str]) -> Value {
        loop {
            let mut line = String::new();
            self.said.read_line(&mut line).unwrap();
            assert!(!line.is_empty(), "the payee ended before {names:?}");
            let event: Value = serde_json::from_str(&line).unwrap();
            if names.iter().any(|name| event["event"] == *name) {
                return event;
            }
            self.before.push(event);
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Payee {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What becomes of the payee's bytes that a link does not let through.
enum Rest {
    /// They are lost.
    Lost,
    /// Nobody takes them.
    NotRead,
}

/// A link to a payee that lets so many bytes through and then no more; it tells when.
fn narrow_link(url: &str, bytes: u64) -> (String, mpsc::Receiver<()>) {
    narrow_link_with(url, bytes, Rest::Lost)
}

fn narrow_link_with(url: &str, bytes: u64, after: Rest) -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let payee = url.strip_prefix("tcp://").unwrap().to_owned();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (payer, _) = listener.accept().unwrap();
        let payee = TcpStream::connect(payee).unwrap();
        let (mut from_payer, mut to_payee) =
            (payer.try_clone().unwrap(), payee.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_payer, &mut to_payee));
        let (mut from_payee, mut to_payer) = (payee, payer);
        let _ = std::io::copy(&mut (&mut from_payee).take(bytes), &mut to_payer);
        to_payer.flush().unwrap();
        let _ = tell.send(());
        // Neither side learns more: the link is there and carries nothing.
        match after {
            Rest::Lost => drop(std::io::copy(&mut from_payee, &mut std::io::sink())),
            Rest::NotRead => loop {
                thread::park();
            },
        }
    });
    (format!("tcp://{place}"), told)
}

/// The only channel file in a folder of channels.
fn only_channel(folder: &str) -> Value {
    let files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    read_json(&files[0])
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_channel_goes_from_hand_to_hand_between_an_rsa_payer_and_an_ed25519_payee() {
    let world = World::new(&[]);
    let (payer, payee) = (
        world.key("payer.key", "rsa"),
        world.key("payee.key", "ed25519"),
    );
    let spend = world.channel(&["open-spend"], &payer).ok().one();
    let income = world.channel(&["open-income"], &payee).ok().one();
    assert_eq!(spend["current"]["amount"], 10_000);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (from, to) = (text(&spend["address"]), text(&income["address"]));
    let [file_a, file_b] = ["a.json", "b.json"].map(|name| world.path(name));
    let save = |name: &str, answer: Answer| {
        let path = world.path(name);
        fs::write(&path, answer.ok().stdout).unwrap();
        path
    };

    let open = ["open", "--from", &from, "--to", &to, "--payee", &payee];
    let terms = ["--price", "5@16", "--quanta", "8", "--file", &file_a];
    let contract = save(
        "contract",
        world.channel(&[&open[..], &terms].concat(), &payer),
    );
    let cheap = [
        "accept",
        &contract,
        "--file",
        &file_b,
        "--price-min",
        "6@16",
    ];
    assert_eq!(world.channel(&cheap, &payee).exit, 1);
    let accept = ["accept", &contract, "--file", &file_b, "--to", &to];
    let accepted = save("accepted", world.channel(&accept, &payee));
    save("again", world.channel(&accept, &payee));
    daybook(&["channel", "confirm", &file_a, &accepted]).ok();

    let pay = |volume: &str| {
        let pay = [
            "channel", "pay", &file_a, "--key", &payer, "--volume", volume,
        ];
        save(&format!("receipt {volume}"), daybook(&pay))
    };
    let take = |receipt: &str, served: &str| {
        daybook(&[
            "--json", "channel", "take", &file_b, receipt, "--served", served,
        ])
    };
    let first = pay("65537");
    assert_eq!(take(&first, "65537").ok().one()["tokens"], 10);
    let second = pay("200000");
    let refused = take(&second, "200001");
    assert_eq!(refused.exit, 1, "the payee counts for itself: {refused:?}");
    assert_eq!(take(&second, "200001").exit, 1);
    let third = pay("200001");
    assert_eq!(take(&third, "200001").ok().one()["tokens"], 20);
    assert_eq!(take(&first, "200001").exit, 1, "a receipt never takes back");

    assert_eq!(
        world.channel(&["park", &file_b], &payee).ok().one()["event"],
        "parked"
    );
    let settled = world.channel(&["settle", &file_b], &payee).ok().one();
    assert_eq!(
        (&settled["tokens"], &settled["volume"]),
        (&20.into(), &200_001.into())
    );
    world.channel(&["settle", &file_b], &payee).ok();
    let status = world.channel(&["status", &file_a], &payer).ok().one();
    assert_eq!(status["state"], "closed");
    let spent = world.channel(&["status", &from], &payer).ok().one();
    assert_eq!(spent["current"]["amount"], 9_980);
    let listed = world
        .channel(&["list", "--oldest-first"], &payee)
        .ok()
        .json();
    let types: Vec<u64> = listed
        .iter()
        .map(|item| item["tx_type"].as_u64().unwrap())
        .collect();
    assert_eq!(types, [2, 8, 16]);
    let closed = world.channel(&["close", &to], &payee).ok().one();
    assert_eq!(closed["state"]["amount"], 20);
    let twice = world.channel(&["close", &to], &payee);
    twice.fails(1, "already_closed");
}

#[test]
fn a_download_is_paid_segment_by_segment_and_what_it_earns_is_paid_out() {
    let world = World::new(&[]);
    let (payer, payee) = (
        world.key("payer.key", "p256"),
        world.key("payee.key", "rsa"),
    );
    let file = world.file("film", 5 * QUANTUM + 1);
    let mut serving = world.serve(&file, &payee, &[]);
    let out = world.path("copy");
    let fetched = world.fetch(&serving.url, &out, &payer).ok().one();
    assert_eq!(
        (&fetched["receipts"], &fetched["tokens"]),
        (&6.into(), &30.into())
    );
    assert_eq!(fs::read(&out).unwrap(), fs::read(&file).unwrap());
    assert_eq!(serving.event("settled")["tokens"], 30);
    assert!(!Path::new(&world.path("copy.part")).exists());
    assert_eq!(world.wallet(&payee)["fact"], "30");
    let again = world.fetch(&serving.url, &out, &payer);
    assert_eq!(again.exit, 1, "a file is never overwritten");
    serving.stop();

    let owner = world.path("owner.key");
    let made = daybook(&["--json", "keys", "generate", "--out", &owner])
        .ok()
        .one();
    let owner = made["public_key"].as_str().unwrap();
    let paid = world.channel(&["payout", "--to", owner], &payee).ok().one();
    assert_eq!(paid["amount"], "30");
    let held = daybook(&["--json", "outputs", owner, "--url", world.node.url()]);
    assert_eq!(held.ok().one()["amount"], "30");
    let wallet = world.wallet(&payee);
    assert_eq!(
        (&wallet["fact"], &wallet["profit"]),
        (&"0".into(), &"30".into())
    );
    assert_eq!(world.channel(&["payout", "--to", owner], &payee).exit, 1);
}

#[test]
fn a_file_that_costs_more_than_one_address_holds_takes_several_channels() {
    let world = World::new(&["--tracker-spend-grant", "12"]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 5 * QUANTUM);
    let serving = world.serve(&file, &payee, &["--income"]);
    let out = world.path("copy");
    let fetched = world.fetch(&serving.url, &out, &payer).ok().one();
    assert_eq!(
        (&fetched["channels"], &fetched["tokens"]),
        (&3.into(), &25.into())
    );
    assert_eq!(fs::read(&out).unwrap(), fs::read(&file).unwrap());
}

#[test]
fn a_payer_that_will_not_pay_so_much_signs_nothing() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", QUANTUM);
    let serving = world.serve(&file, &payee, &["--price", "6@16"]);
    let refused = world.fetch(&serving.url, &world.path("copy"), &payer);
    refused.fails(1, "6@16");
}

#[test]
fn what_may_be_spent_in_all_holds_across_starts_of_the_same_download() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 5 * QUANTUM);
    let serving = world.serve(&file, &payee, &[]);
    let out = world.path("copy");
    let fetch = |most: &str| {
        let args = ["fetch", &serving.url, "--out", &out, "--tokens-max", most];
        world.channel(&args, &payer)
    };
    for _ in 0..2 {
        let stopped = fetch("15");
        stopped.fails(1, "used up");
        assert_eq!(world.wallet(&payee)["fact"], "15");
    }
    assert_eq!(
        fetch("25").ok().one()["tokens"],
        25,
        "the first 15 included"
    );
    assert_eq!(world.wallet(&payee)["fact"], "25");
    assert_eq!(fs::read(&out).unwrap(), fs::read(&file).unwrap());
}

#[test]
fn a_channel_that_the_tracker_refuses_leaves_nothing_on_the_payees_disk() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", QUANTUM);
    let serving = world.serve(&file, &payee, &[]);
    let stream = TcpStream::connect(serving.url.strip_prefix("tcp://").unwrap()).unwrap();
    let mut line = BufReader::new(stream);
    let mut hear = |word: Option<Value>| {
        if let Some(word) = word {
            writeln!(line.get_mut(), "{word}").unwrap();
        }
        let mut text = String::new();
        line.read_line(&mut text).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let hello = hear(None);
    let to = hello["hello"]["to"].as_str().unwrap();
    // The tracker has closed the address to pay from.
    let spend = world.channel(&["open-spend"], &payer).ok().one();
    let from = spend["address"].as_str().unwrap();
    world.channel(&["close", from], &payer).ok();
    let kept = world.path("payer.json");
    let open = ["open", "--from", from, "--to", to, "--payee", &payee];
    let terms = ["--price", "5@16", "--quanta", "1", "--file", &kept];
    let contract = world
        .channel(&[&open[..], &terms].concat(), &payer)
        .ok()
        .one();
    let word = serde_json::json!({"open": {"contract": contract, "offset": 0}});
    let answer = hear(Some(word));
    assert!(answer["error"]["message"].is_string(), "{answer}");
    let left: Vec<_> = fs::read_dir(world.path("channels"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn a_payee_that_is_killed_settles_before_the_lock_after_its_restart() {
    let world = World::new(&["--tracker-transfer-lifetime-seconds", "60"]);
    let (payer, payee) = (
        world.key("payer.key", "ed25519"),
        world.key("payee.key", "rsa"),
    );
    let file = world.file("film", 8 * QUANTUM);
    let state = world.path("channels");
    let serving = world.serve(&file, &payee, &[]);
    // Enough for three segments and a part of the fourth.
    let (url, narrowed) = narrow_link(&serving.url, 3 * QUANTUM + QUANTUM / 2);
    let mut fetching = world.fetching(&url, &world.path("copy"), &payer);
    narrowed.recv().unwrap();
    serving.kill();
    let left = only_channel(&state);
    assert_eq!(
        left["receipt"]["tokens"], 15,
        "three receipts were on disk: {left}"
    );
    assert_eq!(left["offered"], 4 * QUANTUM);
    assert_eq!(world.wallet(&payee)["fact"], "0");
    fetching.kill().unwrap();
    fetching.wait().unwrap();

    let mut serving = world.serve(&file, &payee, &["--margin", "55"]);
    assert!(
        serving
            .before
            .iter()
            .any(|event| event["event"] == "parked" && event["tokens"] == 15),
        "{:?}",
        serving.before
    );
    let settled = serving.event("settled");
    assert_eq!(
        (&settled["tokens"], &settled["volume"]),
        (&15.into(), &(3 * QUANTUM).into())
    );
    assert_eq!(world.wallet(&payee)["fact"], "15");
    assert_eq!(only_channel(&state)["settled"], true);
    serving.stop();
}

#[test]
fn a_download_goes_on_in_the_same_channel_after_both_sides_were_killed() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 8 * QUANTUM);
    let serving = world.serve(&file, &payee, &[]);
    let (url, narrowed) = narrow_link(&serving.url, 5 * QUANTUM);
    let out = world.path("copy");
    let mut fetching = world.fetching(&url, &out, &payer);
    narrowed.recv().unwrap();
    fetching.kill().unwrap();
    fetching.wait().unwrap();
    serving.kill();

    let mut serving = world.serve(&file, &payee, &[]);
    let fetched = world.fetch(&serving.url, &out, &payer).ok().one();
    assert_eq!(
        (&fetched["channels"], &fetched["tokens"]),
        (&1.into(), &40.into())
    );
    assert!(
        fetched["receipts"].as_u64().unwrap() < 8,
        "what was paid is not paid again"
    );
    assert_eq!(fs::read(&out).unwrap(), fs::read(&file).unwrap());
    assert_eq!(serving.event("settled")["tokens"], 40);
    assert_eq!(world.wallet(&payee)["fact"], "40");
}

#[test]
fn a_payee_that_is_told_to_stop_settles_what_it_has() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 8 * QUANTUM);
    let serving = world.serve(&file, &payee, &[]);
    let (url, narrowed) = narrow_link(&serving.url, 2 * QUANTUM + QUANTUM / 2);
    let mut fetching = world.fetching(&url, &world.path("copy"), &payer);
    narrowed.recv().unwrap();
    serving.stop();
    assert_eq!(world.wallet(&payee)["fact"], "10");
    fetching.kill().unwrap();
    fetching.wait().unwrap();
}

#[test]
fn a_payer_that_stops_reading_in_the_middle_of_a_segment_is_settled_with_before_the_lock() {
    /// More than two sockets hold.
    const SEGMENT: u64 = 16 << 20;
    let world = World::new(&["--tracker-transfer-lifetime-seconds", "60"]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 2 * SEGMENT);
    let mut serving = world.serve_in_segments(&file, SEGMENT, &payee, &["--margin", "40"]);
    let (url, stuck) = narrow_link_with(&serving.url, SEGMENT + (1 << 20), Rest::NotRead);
    let mut fetching = world.fetching(&url, &world.path("copy"), &payer);
    stuck.recv().unwrap();
    // The payer is there, and takes nothing more.
    let ended = serving.one_of(&["settled", "not_settled"]);
    assert_eq!(ended["event"], "settled", "{ended}");
    let tokens = 5 * SEGMENT / QUANTUM;
    assert_eq!(ended["tokens"], tokens);
    assert_eq!(world.wallet(&payee)["fact"], tokens.to_string());
    fetching.kill().unwrap();
    fetching.wait().unwrap();
}

/// Lets a payee be killed who has three receipts of a download.
fn killed_with_three_receipts(world: &World, file: &str, payer: &str, payee: &str) {
    let serving = world.serve(file, payee, &[]);
    let (url, narrowed) = narrow_link(&serving.url, 3 * QUANTUM + QUANTUM / 2);
    let mut fetching = world.fetching(&url, &world.path("copy"), payer);
    narrowed.recv().unwrap();
    serving.kill();
    fetching.kill().unwrap();
    fetching.wait().unwrap();
    assert_eq!(
        only_channel(&world.path("channels"))["receipt"]["tokens"],
        15
    );
}

#[test]
fn receipts_survive_a_start_with_another_tracker() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 8 * QUANTUM);
    killed_with_three_receipts(&world, &file, &payer, &payee);
    let other = World::new(&[]);
    let state = world.path("channels");
    let serve = ["serve", &file, "--listen", "127.0.0.1:0", "--state", &state];
    let refused = other.channel(&serve, &payee);
    refused.fails(1, "another tracker");
    // Back at the right one, they are worth what they were.
    let serving = world.serve(&file, &payee, &[]);
    serving.stop();
    assert_eq!(world.wallet(&payee)["fact"], "15");
}

#[test]
fn receipts_of_a_channel_that_the_tracker_has_forgotten_are_kept() {
    let world = World::new(&[]);
    let (payer, payee) = world.peers();
    let file = world.file("film", 8 * QUANTUM);
    let [data, backup, restored] = ["node", "backup", "restored"].map(|name| world.path(name));
    daybook(&["backup", "--data-dir", &data, "--to", &backup]).ok();
    killed_with_three_receipts(&world, &file, &payer, &payee);
    daybook(&["restore", "--from", &backup, "--data-dir", &restored]).ok();
    let World { folder, node } = world;
    drop(node);
    let node = Node::start_with(Path::new(&restored), &PRICES);
    let world = World { folder, node };
    let serving = world.serve(&file, &payee, &[]);
    let is_told = |event: &Value| event["event"] == "not_settled" && event["tokens"] == 15;
    assert!(serving.before.iter().any(is_told), "{:?}", serving.before);
    serving.stop();
    let kept = only_channel(&world.path("channels"));
    assert_eq!(kept["receipt"]["tokens"], 15);
    assert_eq!(kept["settled"], false);
}

#[test]
fn a_payee_is_paid_to_another_income_address_before_the_first_one_locks() {
    /// How long the address is waited for; it comes after half of the life of the first one.
    const PATIENCE: Duration = Duration::from_secs(60);
    let world = World::new(&["--tracker-income-lifetime-seconds", "10"]);
    let payee = world.key("payee.key", "ed25519");
    let file = world.file("film", QUANTUM);
    let serving = world.serve(&file, &payee, &["--income"]);
    let place = serving.url.strip_prefix("tcp://").unwrap();
    let begun = Instant::now();
    let to = loop {
        assert!(begun.elapsed() < PATIENCE, "it is paid to a locked address");
        let mut line = String::new();
        let stream = TcpStream::connect(place).unwrap();
        BufReader::new(stream).read_line(&mut line).unwrap();
        if line.is_empty() {
            // As many connections as it takes are not closed yet.
            continue;
        }
        let hello: Value = serde_json::from_str(&line).unwrap();
        if hello["hello"]["to"] != *serving.to {
            break hello["hello"]["to"].as_str().unwrap().to_owned();
        }
    };
    world.channel(&["status", &to], &payee).ok();
}

#[test]
fn a_tracker_with_another_key_than_before_is_refused() {
    let world = World::new(&[]);
    let key = world.key("peer.key", "ed25519");
    world.channel(&["status", "wallet"], &key).ok();
    let known = world.folder.path().join("trackers.json");
    let other = World::new(&[]);
    other.channel(&["status", "wallet"], &key).ok();
    // The address of the one with the keys of the other: what a man in the middle looks like.
    let theirs = read_json(&other.folder.path().join("trackers.json"));
    let (_, keys) = theirs.as_object().unwrap().iter().next().unwrap();
    let mut own = read_json(&known);
    let entries = own.as_object_mut().unwrap();
    let name = entries.keys().next().unwrap().clone();
    entries.insert(name, keys.clone());
    fs::write(&known, own.to_string()).unwrap();
    let refused = world.channel(&["open-spend"], &key);
    refused.fails(1, "not the tracker");
}

#[test]
fn every_book_is_followed_in_one_stream() {
    let world = World::new(&[]);
    let key = world.key("peer.key", "ed25519");
    let spend = world.channel(&["open-spend"], &key).ok().one();
    let address = spend["address"].as_str().unwrap();
    let url = world.node.url();
    let events = |more: &[&str]| {
        let all = ["events", "--url", url, "--from", "0", "--until-idle", "2"];
        daybook(&[&all[..], more].concat()).ok().json()
    };
    let all = events(&[]);
    let kinds: Vec<&str> = all
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    for kind in ["asset.create", "tracker.deposit", "tracker.open_spend"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let own = events(&["--kind", "tracker", "--key", address]);
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["kind"], "tracker.open_spend");
    let position = own[0]["position"].as_str().unwrap();
    let from = daybook(&["events", "--url", url, "--from", position, "--max", "1"]);
    assert_eq!(from.ok().one(), own[0]);
    let watched = world
        .channel(&["watch", "--from", "0", "--max", "1"], &key)
        .ok()
        .one();
    assert_eq!(watched["event"], "address.opened");
}
