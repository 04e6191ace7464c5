//! Requests to the wallet tracker, signed beforehand, over WebSockets driven by one thread; and what the
//! machine's signatures allow at best.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use daybook_client::tracker::{PeerKey, Suite};
use daybook_ledger::tracker::{Key, Suites};
use polling::{Event, Events, PollMode, Poller};
use serde_json::{Value, json};

use crate::stats::{Latencies, processor_time};

/// Nothing answered for so long is a failed run.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How long each of the machine's own rates is measured, on all cores at once.
const CEILING_TIME: Duration = Duration::from_secs(1);

/// What to measure.
pub struct Shape {
    pub command: u64,
    pub suite: String,
    pub connections: usize,
    pub window: usize,
    pub requests: usize,
    /// Requests a second; as fast as they are answered when there is none.
    pub rate: Option<f64>,
}

/// A key of a suite that the command line names.
fn key_of(suite: &str) -> PeerKey {
    PeerKey::generate(match suite {
        "rsa" => Suite::Rsa,
        "ed25519" => Suite::Ed25519,
        "p256" => Suite::P256,
        other => panic!("no suite {other}: rsa, ed25519 or p256"),
    })
}

fn single(peer: &PeerKey, message: &str) -> Value {
    json!({"message": message, "pk": peer.pem(), "sign": peer.sign(message)})
}

fn cosigned(from: &PeerKey, to: &PeerKey, mut message: Value) -> Value {
    message["fromPK"] = from.pem().into();
    message["toPK"] = to.pem().into();
    let message = message.to_string();
    json!({"fromPK": from.pem(), "fromSign": from.sign(&message),
        "toPK": to.pem(), "toSign": to.sign(&message), "message": message})
}

pub fn run(node: &str, shape: &Shape) {
    let connections = shape.connections.max(1);
    let payers: Vec<PeerKey> = in_parallel(connections, |_| key_of(&shape.suite));
    let payee = key_of(&shape.suite);
    let wallet = payee.common_address();
    let mut sockets: Vec<Socket> = (0..connections).map(|_| Socket::open(node)).collect();

    let opens = payers.iter().enumerate();
    let opens = opens.map(|(number, payer)| frame(4, number, &single(payer, payer.pem())));
    let opened = exchange(&mut sockets, opens.collect(), 1, None);
    let spends: Vec<String> = opened
        .replies
        .iter()
        .map(|reply| address_in(reply))
        .collect();

    let contract = |number: usize| {
        json!({"channelId": format!("bench-{number}-{}", std::process::id()),
            "fromAddress": spends[number % connections], "toAddress": wallet.as_str(),
            "priceTokens": "1", "priceQuantumPower": 25, "plannedQuantumCount": 1})
    };
    let open_of = |number: usize| {
        let payload = cosigned(&payers[number % connections], &payee, contract(number));
        frame(8, number, &payload)
    };
    let frames = match shape.command {
        256 => in_parallel(shape.requests, |number| {
            let payer = &payers[number % connections];
            let message = json!({"address": spends[number % connections], "pk": payer.pem()});
            frame(256, number, &single(payer, &message.to_string()))
        }),
        8 => in_parallel(shape.requests, open_of),
        16 => {
            let opens = in_parallel(shape.requests, open_of);
            exchange(&mut sockets, opens, shape.window, None);
            in_parallel(shape.requests, |number| {
                let mut receipt = contract(number);
                receipt["quantumCount"] = 1.into();
                receipt["tokens"] = "1".into();
                receipt["volume"] = 1.into();
                let payload = cosigned(&payers[number % connections], &payee, receipt);
                frame(16, number, &payload)
            })
        }
        other => panic!("no command {other}: 256, 8 or 16"),
    };
    let bytes = frames.iter().map(Vec::len).sum::<usize>() / frames.len().max(1);
    // Before and after, because a shared machine's speed drifts.
    let before = rates(&payee);
    let processor = processor_time();
    let done = exchange(&mut sockets, frames, shape.window, shape.rate);
    let generator = (processor_time() - processor).as_secs_f64();
    let (verifications, signatures) = match shape.command {
        256 => (1.0, 1.0),
        8 => (2.0, 1.0),
        // Its reply is the same for everybody and was signed once.
        _ => (2.0, 0.0),
    };
    let after = rates(&payee);
    let (sign, verify) = (mean(before.0, after.0), mean(before.1, after.1));
    // What this side, which shares the cores, takes of them the node cannot sign with.
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    let left = 1.0 - generator / (cores * done.elapsed.as_secs_f64());
    let ceiling = left / (verifications / verify + signatures / sign);
    let latencies = Latencies::new(done.latencies);
    let per_second = shape.requests as f64 / done.elapsed.as_secs_f64();
    println!(
        "{}",
        json!({
            "command": shape.command, "suite": shape.suite, "requests": shape.requests,
            "request_bytes": bytes, "per_second": per_second,
            "p50_us": latencies.percentile(50), "p99_us": latencies.percentile(99),
            "generator_cpu_us": generator * 1e6 / shape.requests as f64, "sign_per_second": sign, "verify_per_second": verify,
            "ceiling_per_second": ceiling, "of_ceiling": per_second / ceiling,
        })
    );
}

fn mean(one: f64, other: f64) -> f64 {
    (one + other) / 2.0
}

/// Signatures made and verified in a second on all cores together.
fn rates(peer: &PeerKey) -> (f64, f64) {
    let message = json!({"address": "0".repeat(60), "pk": peer.pem()}).to_string();
    let signature = peer.sign(&message);
    let suites = Suites::default();
    let measure = |work: &(dyn Fn(&Key) + Sync)| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let counts = in_parallel(cores, |_| {
            let key = Key::read(peer.pem()).expect("the peer's own key");
            let begun = Instant::now();
            let mut count = 0u64;
            while begun.elapsed() < CEILING_TIME {
                work(&key);
                count += 1;
            }
            count as f64 / begun.elapsed().as_secs_f64()
        });
        counts.iter().sum::<f64>()
    };
    let sign = measure(&|_| drop(peer.sign(&message)));
    let verify = measure(&|key| assert!(key.verify(&suites, message.as_bytes(), &signature)));
    (sign, verify)
}

/// Makes things on all cores, in order.
fn in_parallel<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(cores).max(1);
    thread::scope(|scope| {
        let make = &make;
        let parts: Vec<_> = (0..count)
            .step_by(share)
            .map(|from| {
                scope.spawn(move || {
                    (from..count.min(from + share))
                        .map(make)
                        .collect::<Vec<T>>()
                })
            })
            .collect();
        let done = parts
            .into_iter()
            .map(|part| part.join().expect("it is made"));
        done.flatten().collect()
    })
}

/// A masked text frame; the mask is zero, so the payload stands as it is.
fn frame(command: u64, number: usize, payload: &Value) -> Vec<u8> {
    let text =
        json!({"cmd": command, "corrToken": number.to_string(), "payload": payload}).to_string();
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => panic!("a request is shorter than 64 KiB"),
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn address_in(reply: &str) -> String {
    let reply: Value = serde_json::from_str(reply).expect("a reply is JSON");
    let message = reply["data"]["message"].as_str();
    let message = message.unwrap_or_else(|| panic!("{reply}"));
    let message: Value = serde_json::from_str(message).expect("a message is JSON");
    message["address"]
        .as_str()
        .expect("it names the address")
        .to_owned()
}

struct Socket {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    under_way: usize,
}

impl Socket {
    fn open(node: &str) -> Socket {
        let mut stream = TcpStream::connect(node).expect("the node listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let request = format!(
            "GET /tracker HTTP/1.1\r\nHost: {node}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .expect("the node reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the node answers");
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        stream.set_nonblocking(true).expect("a TCP socket");
        Socket {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            under_way: 0,
        }
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the node hung up: {error}"),
            }
        }
    }

    /// Reads what is there and gives the texts of whole frames.
    fn read(&mut self, mut each: impl FnMut(&str)) {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the node closed"),
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the node hung up: {error}"),
            }
        }
        let mut rest = &self.input[..];
        loop {
            let (opcode, head, length) = match rest {
                [first, length @ 0..=125, ..] => (first & 0x0f, 2, usize::from(*length)),
                [first, 126, a, b, ..] => {
                    (first & 0x0f, 4, usize::from(u16::from_be_bytes([*a, *b])))
                }
                _ => break,
            };
            let Some(payload) = rest.get(head..head + length) else {
                break;
            };
            if opcode == 1 {
                each(std::str::from_utf8(payload).expect("texts are UTF-8"));
            }
            rest = &rest[head + length..];
        }
        let left = rest.len();
        self.input.drain(..self.input.len() - left);
    }
}

struct Done {
    /// By number, when there are few.
    replies: Vec<String>,
    latencies: Vec<Duration>,
    elapsed: Duration,
}

/// How long replies gather while as much is under way as windows allow.
const GATHER: Duration = Duration::from_millis(1);

/// Replies that are kept.
const REPLIES_MAX: usize = 4_096;

/// Sends frames, the n-th over the n-th connection in turn, `window` of each under way, and waits for
/// all replies. With a rate each frame has its time, and waiting for it counts.
fn exchange(
    sockets: &mut [Socket],
    frames: Vec<Vec<u8>>,
    window: usize,
    rate: Option<f64>,
) -> Done {
    let poller = Poller::new().expect("the operating system polls");
    for (place, socket) in sockets.iter().enumerate() {
        // Sockets outlive the poller's use of them; they are taken out again below.
        unsafe {
            poller
                .add_with_mode(&socket.stream, Event::all(place), PollMode::Edge)
                .expect("a socket is polled");
        }
    }
    let (count, step) = (frames.len(), sockets.len());
    let mut next: Vec<usize> = (0..sockets.len()).collect();
    let mut sent: Vec<Option<Instant>> = vec![None; count];
    let mut latencies = Vec::with_capacity(count);
    let mut replies = vec![String::new(); if count <= REPLIES_MAX { count } else { 0 }];
    let begun = Instant::now();
    let due =
        |number: usize| rate.map(|rate| begun + Duration::from_secs_f64(number as f64 / rate));
    let mut events = Events::new();
    let mut progress = begun;
    while latencies.len() < count {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        for (socket, next) in sockets.iter_mut().zip(&mut next) {
            while *next < count && socket.under_way < window {
                if let Some(due) = due(*next)
                    && due > now
                {
                    wake = Some(wake.map_or(due, |wake| wake.min(due)));
                    break;
                }
                sent[*next] = Some(due(*next).unwrap_or(now));
                socket.output.extend_from_slice(&frames[*next]);
                socket.under_way += 1;
                *next += step;
            }
            socket.write();
        }
        events.clear();
        let wait = wake.map_or(SILENCE_MAX, |wake| wake.saturating_duration_since(now));
        poller
            .wait(&mut events, Some(wait))
            .expect("the operating system polls");
        if rate.is_none() && window > 1 {
            // Windows are deep: replies that gather cost this side, which shares the cores, less.
            thread::sleep(GATHER);
        }
        for event in events.iter().filter(|event| event.readable) {
            let socket = &mut sockets[event.key];
            let mut answered = 0;
            socket.read(|text| {
                assert!(!text.contains("\"error\":"), "{text}");
                let number = number_in(text);
                let sent = sent[number].take().expect("asked once and answered once");
                latencies.push(sent.elapsed());
                if let Some(place) = replies.get_mut(number) {
                    *place = text.to_owned();
                }
                answered += 1;
            });
            socket.under_way -= answered;
            progress = Instant::now();
        }
        assert!(progress.elapsed() < SILENCE_MAX, "the node fell silent");
    }
    let elapsed = begun.elapsed();
    for socket in sockets.iter() {
        poller.delete(&socket.stream).expect("it was polled");
    }
    Done {
        replies,
        latencies,
        elapsed,
    }
}

fn number_in(reply: &str) -> usize {
    const NAME: &str = "\"corrToken\":\"";
    let at = reply.find(NAME).map(|at| at + NAME.len());
    let rest = at.and_then(|at| reply.get(at..)).unwrap_or_default();
    let digits = rest.split('"').next().unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("a reply to nothing: {reply}"))
}
