//! Ledgers that five members share: each operation proposes an entry, and the other four endorse it, all
//! of them over connections of their own. An operation is done when the last endorsement, with which the
//! entry is committed, is on disk.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use daybook_ledger::{
    BlockTime, SigningKey,
    block::BlockHash,
    consortium::{
        Action, Batch, Body, Card, DEPTH_MAX, Did, LEDGERS_PER_PROPOSAL_MAX, Policy, Profile,
        Propose, Request, TreeHash, canon_object, sign_entry,
    },
    json::Object,
};
use serde_json::Value;

use crate::stats::{Latencies, processor_time};

/// Members of the network, all of whom share every ledger.
const MEMBERS: u8 = 5;
/// How long members may agree, in milliseconds.
const TTL_MS: u64 = 60_000;
/// Nothing answered for so long is a failed run.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Bytes of one answer that are kept.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What is measured.
pub struct Shape {
    /// Ledgers that there are.
    pub ledgers: usize,
    /// Operations in all.
    pub operations: usize,
    /// Operations under way at once, each on a ledger of its own.
    pub workers: usize,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn did(seed: u8) -> Did {
    Did::of(&key(seed).public_key())
}

/// Writes the members' cards, for the node's `consortium.members`.
pub fn cards(folder: &Path) {
    let names: Vec<String> = (1..=MEMBERS)
        .map(|seed| {
            let profile = Profile {
                label: format!("Member {seed}"),
                ..Profile::default()
            };
            let card = Card::first(profile, &key(seed));
            let path = folder.join(format!("{seed}.card"));
            fs::write(&path, canon_object(&card.to_object())).expect("the folder is writable");
            path.display().to_string()
        })
        .collect();
    println!("{}", serde_json::json!({ "cards": names }));
}

/// A kept-alive connection with one request under way.
struct Connection {
    socket: TcpStream,
    node: String,
    answer: Vec<u8>,
}

impl Connection {
    fn new(node: &str) -> Connection {
        let socket = TcpStream::connect(node).expect("the node listens");
        socket.set_nodelay(true).expect("a TCP socket");
        socket
            .set_read_timeout(Some(SILENCE_MAX))
            .expect("a TCP socket");
        Connection {
            socket,
            node: node.to_owned(),
            answer: Vec::new(),
        }
    }

    fn send(&mut self, method: &str, path: &str, body: &[u8]) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.node,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        self.socket.write_all(&request).expect("the node reads");
    }

    fn receive(&mut self) -> Value {
        self.answer.clear();
        let mut buffer = [0; 16 << 10];
        loop {
            let read = self.socket.read(&mut buffer).expect("the node answers");
            assert!(read > 0, "the node closed a connection");
            self.answer.extend_from_slice(&buffer[..read]);
            assert!(
                self.answer.len() < ANSWER_BYTES_MAX,
                "an answer without end"
            );
            if let Some(body) = self.body() {
                return serde_json::from_slice(body).expect("the answer is JSON");
            }
        }
    }

    /// The body, once it is whole.
    fn body(&self) -> Option<&[u8]> {
        let head = self.answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&self.answer[..head]).expect("a head is ASCII");
        let length = text
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let is_length = name.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().ok())?
            })
            .expect("these answers name their length");
        self.answer.get(head..head + length)
    }
}

/// A worker's view of the network: the connections of all members.
struct Members {
    network: BlockHash,
    connections: Vec<Connection>,
    /// What the node's clock said, and when it was asked.
    clock: (u64, Instant),
    name: String,
    proposed: u64,
}

impl Members {
    fn new(node: &str, name: String) -> Members {
        let mut connections: Vec<Connection> =
            (0..MEMBERS).map(|_| Connection::new(node)).collect();
        connections[0].send("GET", "/api/v1/consortium", b"");
        let facts = connections[0].receive();
        let digits = facts["network"].as_str().expect("the network has a name");
        let mut network = [0; 32];
        for (place, byte) in network.iter_mut().enumerate() {
            let pair = &digits[2 * place..2 * place + 2];
            *byte = u8::from_str_radix(pair, 16).expect("a name is hexadecimal");
        }
        Members {
            network: BlockHash(network),
            connections,
            clock: (facts["now"].as_u64().expect("a time"), Instant::now()),
            name,
            proposed: 0,
        }
    }

    fn now(&self) -> u64 {
        let (told, at) = self.clock;
        told + at.elapsed().as_millis() as u64
    }

    fn entry(&self, text: &[(&str, &str)]) -> Object {
        let entry = Object::from_iter(text.iter().map(|(name, value)| (*name, *value)));
        sign_entry(entry, self.now() / 1_000, &key(1), DEPTH_MAX).expect("it has no signature yet")
    }

    /// Proposes as the first member, and lets the others endorse: returns when it is committed.
    fn agree(&mut self, action: Action) {
        self.proposed += 1;
        let body = Body::Propose(Propose {
            member: did(1),
            request: format!("{}-{}", self.name, self.proposed),
            deadline: BlockTime(self.now() + TTL_MS),
            action,
        });
        self.post(0, 1, &body);
        let proposed = self.connections[0].receive();
        let proposal = proposed["id"].as_str().and_then(|id| id.parse().ok());
        let proposal = proposal.unwrap_or_else(|| panic!("not taken: {proposed}"));
        let agreed: TreeHash = proposed["entry"]["effects"][0]["agreed"]
            .as_str()
            .and_then(|agreed| agreed.parse().ok())
            .unwrap_or_else(|| panic!("not opened: {proposed}"));
        for seed in 2..=MEMBERS {
            let body = Body::Endorse {
                member: did(seed),
                proposal,
                agreed,
            };
            self.post(usize::from(seed) - 1, seed, &body);
        }
        let mut committed = false;
        for connection in &mut self.connections[1..] {
            let endorsed = connection.receive();
            let effects = endorsed["entry"]["effects"].as_array();
            let effects = effects.unwrap_or_else(|| panic!("not endorsed: {endorsed}"));
            committed |= effects.iter().any(|effect| effect["effect"] == "committed");
        }
        assert!(committed, "four endorsements and no commit");
    }

    fn post(&mut self, connection: usize, seed: u8, body: &Body) {
        let request = Request::sign(self.network, body, &key(seed));
        let path = "/api/v1/consortium/requests";
        self.connections[connection].send("POST", path, &request.text);
    }
}

fn ledger(number: usize) -> String {
    format!("CONT-{number:07}")
}

pub fn run(node: &str, shape: &Shape) {
    let mut members = Members::new(node, "create".to_owned());
    let begun = Instant::now();
    let names: Vec<String> = (0..shape.ledgers).map(ledger).collect();
    for names in names.chunks(LEDGERS_PER_PROPOSAL_MAX) {
        let action = Action::Create {
            ledgers: names.to_vec(),
            participants: (1..=MEMBERS).map(did).collect(),
            policy: Policy::Unanimous,
            batch: Batch::new(&[members.entry(&[("no", "genesis")])]),
        };
        members.agree(action);
    }
    let created = begun.elapsed();

    // A ledger has one open proposal at a time, so each worker has ledgers of its own.
    let workers = shape.workers.min(shape.ledgers).max(1);
    let next = AtomicUsize::new(0);
    let processor = processor_time();
    let begun = Instant::now();
    let latencies: Vec<Duration> = thread::scope(|scope| {
        let all: Vec<_> = (0..workers)
            .map(|worker| {
                let next = &next;
                scope.spawn(move || {
                    let mut members = Members::new(node, format!("append-{worker}"));
                    let mut latencies = Vec::new();
                    let mut place = worker;
                    while next.fetch_add(1, Ordering::Relaxed) < shape.operations {
                        let number = members.proposed.to_string();
                        let entry = members.entry(&[
                            ("no", number.as_str()),
                            ("date", "01.03.2026"),
                            ("cargo", "Copper rod"),
                            ("departure_station", "Balkhash"),
                            ("arrival_station", "Aktau-Port"),
                            ("doc_type", "WayBill"),
                        ]);
                        let began = Instant::now();
                        members.agree(Action::Append {
                            ledgers: vec![ledger(place)],
                            batch: Batch::new(&[entry]),
                        });
                        latencies.push(began.elapsed());
                        place += workers;
                        if place >= shape.ledgers {
                            place = worker;
                        }
                    }
                    latencies
                })
            })
            .collect();
        all.into_iter()
            .flat_map(|worker| worker.join().expect("a worker does not panic"))
            .collect()
    });
    let elapsed = begun.elapsed();
    let done = latencies.len();
    let latencies = Latencies::new(latencies);
    println!(
        "{}",
        serde_json::json!({
            "measure": "consortium", "ledgers": shape.ledgers, "workers": workers, "operations": done,
            "create_seconds": created.as_secs_f64(),
            "seconds": elapsed.as_secs_f64(), "per_second": done as f64 / elapsed.as_secs_f64(),
            "p50_us": latencies.percentile(50), "p99_us": latencies.percentile(99),
            "generator_cpu_us": (processor_time() - processor).as_secs_f64() * 1e6 / done as f64,
        })
    );
}
