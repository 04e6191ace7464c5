//! Calls over a service bus: closed loops of callers, and workers that answer at once, all driven by one
//! thread, so that as much as possible of a small machine is left to the broker. Speaks Engine.IO 4 over
//! WebSocket, to any broker of the protocol, and nats-server's own protocol.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use polling::{Event, Events, PollMode, Poller};
use serde_json::{Value, json};

use crate::stats::{Latencies, processor_time};

/// No byte for so long is a failed run.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Calls before those that are counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// Bytes read at once: more than all that one peer has under way.
const READ_BYTES: usize = 64 << 10;

/// The request that is called.
const NAME: &str = "bench.call";

/// What to measure.
pub struct Shape {
    pub protocol: String,
    pub key: String,
    pub callers: usize,
    pub workers: usize,
    pub seconds: f64,
    /// The broker's process, whose processor time is read.
    pub pid: Option<u32>,
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    dialect: Dialect,
    caller: bool,
    number: usize,
    id: String,
    ready: bool,
    count: u64,
    sent: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Bus,
    Nats,
}

pub fn run(broker: &str, shape: &Shape) {
    let dialect = match shape.protocol.as_str() {
        "bus" => Dialect::Bus,
        "nats" => Dialect::Nats,
        other => panic!("no protocol {other}: bus or nats"),
    };
    let (callers, workers) = (shape.callers.max(1), shape.workers.max(1));
    let mut peers: Vec<Peer> = (0..workers + callers)
        .map(|number| Peer::open(broker, dialect, number, number >= workers))
        .collect();
    let poller = Poller::new().expect("the operating system polls");
    for (place, peer) in peers.iter().enumerate() {
        // Sockets outlive the poller's use of them: both live to the end of this function.
        unsafe {
            poller
                .add_with_mode(&peer.stream, Event::readable(place), PollMode::Level)
                .expect("a socket is polled");
        }
    }
    let mut events = Events::new();
    let mut latencies = Vec::new();
    while !peers.iter().all(|peer| peer.ready) {
        turn(&poller, &mut events, &mut peers, &shape.key, &mut |_| ());
    }
    let begun = Instant::now();
    for peer in peers.iter_mut().filter(|peer| peer.caller) {
        peer.call();
        peer.write();
    }
    while begun.elapsed() < WARM_UP {
        turn(&poller, &mut events, &mut peers, &shape.key, &mut |_| ());
    }
    let (broker_before, own_before) = (shape.pid.map(time_of), processor_time());
    let counted = Instant::now();
    let enough = Duration::from_secs_f64(shape.seconds);
    while counted.elapsed() < enough {
        turn(&poller, &mut events, &mut peers, &shape.key, &mut |took| {
            latencies.push(took)
        });
    }
    let elapsed = counted.elapsed().as_secs_f64();
    let own = (processor_time() - own_before).as_secs_f64();
    let broker_time = shape.pid.map(time_of).zip(broker_before);
    let calls = latencies.len() as f64;
    let latencies = Latencies::new(latencies);
    println!(
        "{}",
        json!({
            "protocol": shape.protocol, "callers": callers, "workers": workers,
            "calls": calls, "calls_per_second": calls / elapsed,
            "p50_us": latencies.percentile(50), "p99_us": latencies.percentile(99),
            "broker_cpu_us": broker_time.map(|(after, before)| (after - before) * 1e6 / calls),
            "generator_cpu_us": own * 1e6 / calls,
        })
    );
}

/// Processor seconds of a process.
fn time_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the broker runs");
    // The second field is a name in parentheses, which may hold spaces.
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |place: usize| -> f64 {
        let field = rest.split(' ').nth(place).unwrap_or_default();
        field.parse().expect("a count of clock ticks")
    };
    // User and system time, in hundredths of a second on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}

fn turn(
    poller: &Poller,
    events: &mut Events,
    peers: &mut [Peer],
    key: &str,
    answered: &mut dyn FnMut(Duration),
) {
    events.clear();
    poller
        .wait(events, Some(SILENCE_MAX))
        .expect("the operating system polls");
    assert!(!events.is_empty(), "the broker fell silent");
    for event in events.iter() {
        let peer = &mut peers[event.key];
        peer.read();
        peer.hear(key, answered);
        peer.write();
    }
}

impl Peer {
    fn open(broker: &str, dialect: Dialect, number: usize, caller: bool) -> Peer {
        let mut stream = TcpStream::connect(broker).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut peer_output = Vec::new();
        if dialect == Dialect::Bus {
            let request = format!(
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {broker}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).expect("it reads");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("it answers");
                head.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&head);
            assert!(text.starts_with("HTTP/1.1 101"), "{text}");
        } else {
            peer_output.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
            let subscription = match caller {
                true => format!("SUB _INBOX.{number} 1\r\n"),
                false => format!("SUB {NAME} w 1\r\n"),
            };
            peer_output.extend_from_slice(subscription.as_bytes());
            // The answer says that the broker has taken the subscription.
            peer_output.extend_from_slice(b"PING\r\n");
        }
        stream.set_nonblocking(true).expect("a TCP socket");
        let mut peer = Peer {
            stream,
            input: Vec::new(),
            output: peer_output,
            dialect,
            caller,
            number,
            id: String::new(),
            ready: false,
            count: 0,
            sent: Instant::now(),
        };
        peer.write();
        peer
    }

    fn read(&mut self) {
        let mut chunk = [0; READ_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => panic!("the broker closed"),
            Ok(read) => self.input.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the broker hung up: {error}"),
        }
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                // A few hundred bytes are under way on each; a socket holds more.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the broker hung up: {error}"),
            }
        }
    }

    fn call(&mut self) {
        let request_id = format!("c{}:{}", self.number, self.count);
        self.count += 1;
        let note = "x".repeat(64);
        let data = format!("{{\"zone\":\"north\",\"reading\":41.5,\"note\":\"{note}\"}}");
        match self.dialect {
            Dialect::Bus => {
                let text = format!(
                    "42/communication,[\"api:request\",{{\"name\":\"{NAME}\",\
                     \"request_id\":\"{request_id}\",\"sender_id\":\"{}\",\"data\":{data}}}]",
                    self.id
                );
                self.send(&text);
            }
            Dialect::Nats => {
                let body = format!(
                    "{{\"name\":\"{NAME}\",\"request_id\":\"{request_id}\",\"data\":{data}}}"
                );
                let reply = format!("{NAME} _INBOX.{}", self.number);
                self.publish(&reply, body.as_bytes());
            }
        }
        self.sent = Instant::now();
    }

    /// A masked text frame; the mask is zero, so the payload stands as it is.
    fn send(&mut self, text: &str) {
        self.output.push(0x81);
        match text.len() {
            length @ 0..=125 => self.output.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                self.output.push(0x80 | 126);
                self.output
                    .extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => panic!("a call is shorter than 64 KiB"),
        }
        self.output.extend_from_slice(&[0; 4]);
        self.output.extend_from_slice(text.as_bytes());
    }

    fn publish(&mut self, subject: &str, body: &[u8]) {
        let head = format!("PUB {subject} {}\r\n", body.len());
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body);
        self.output.extend_from_slice(b"\r\n");
    }

    fn hear(&mut self, key: &str, answered: &mut dyn FnMut(Duration)) {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(used) = match self.dialect {
            Dialect::Bus => self.hear_frame(rest, key, answered),
            Dialect::Nats => self.hear_line(rest, answered),
        } {
            rest = &rest[used..];
        }
        let left = rest.len();
        self.input = input;
        self.input.drain(..self.input.len() - left);
    }

    /// Takes one frame; answers its length, or `None` when it is not whole.
    fn hear_frame(
        &mut self,
        bytes: &[u8],
        key: &str,
        answered: &mut dyn FnMut(Duration),
    ) -> Option<usize> {
        let (head, length) = match bytes {
            [_, length @ 0..=125, ..] => (2, usize::from(*length)),
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return None,
        };
        let payload = bytes.get(head..head + length)?;
        assert_eq!(bytes[0], 0x81, "a whole text frame");
        let text = std::str::from_utf8(payload).expect("texts are UTF-8");
        self.hear_text(text, key, answered);
        Some(head + length)
    }

    fn hear_text(&mut self, text: &str, key: &str, answered: &mut dyn FnMut(Duration)) {
        const EVENT: &str = "42/communication,[\"";
        let Some(event) = text.strip_prefix(EVENT) else {
            match text.as_bytes() {
                b"2" => self.send("3"),
                [b'0', ..] => self.send("40/communication,"),
                // The acknowledgement of the subscription.
                [b'4', b'3', ..] => self.ready = true,
                [b'4', b'0', ..] => {}
                _ => panic!("{text}"),
            }
            return;
        };
        let (name, rest) = event.split_once('"').expect("a name ends");
        let body = rest
            .strip_prefix(',')
            .and_then(|body| body.strip_suffix(']'));
        match name {
            NAME => {
                let body = body.and_then(|body| body.strip_suffix('}'));
                let answer = format!(
                    "{EVENT}api:response\",{},\"recipient_id\":\"{}\"}}]",
                    body.expect("a request is an object"),
                    self.id
                );
                self.send(&answer);
            }
            "api:response" => {
                assert!(!text.contains("\"error\":"), "{text}");
                answered(self.sent.elapsed());
                self.call();
            }
            "shake_who" => {
                let kind = if self.caller { "caller" } else { "worker" };
                let own = json!({"name": kind, "key": key, "features": ["subscribe"]});
                self.send(&format!("{EVENT}shake_i_am\",{own}]"));
            }
            "shake_id" => {
                let body: Value = serde_json::from_str(body.unwrap_or_default()).expect("JSON");
                body["id"].as_str().expect("an id").clone_into(&mut self.id);
                self.send(&format!("{EVENT}shake_ready\",{{\"id\":\"{}\"}}]", self.id));
            }
            "shake_online" if self.caller => self.ready = true,
            "shake_online" => {
                let wanted = json!({"name": NAME, "queue": "w"});
                let event = "_service:api:request:subscribe";
                self.send(&format!("42/communication,1[\"{event}\",{wanted}]"));
            }
            _ => panic!("{text}"),
        }
    }

    /// Takes one message of nats-server's; answers its length, or `None` when it is not whole.
    fn hear_line(&mut self, bytes: &[u8], answered: &mut dyn FnMut(Duration)) -> Option<usize> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..end]).expect("a line is text");
        let Some(rest) = line.strip_prefix("MSG ") else {
            match line {
                "PING" => self.output.extend_from_slice(b"PONG\r\n"),
                "PONG" => self.ready = true,
                line => assert!(!line.starts_with("-ERR"), "{line}"),
            }
            return Some(end + 2);
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let length: usize = words[words.len() - 1].parse().expect("a length");
        let whole = end + 2 + length + 2;
        let body = bytes.get(end + 2..whole)?;
        if self.caller {
            answered(self.sent.elapsed());
            self.call();
        } else {
            let body = body[..length].to_vec();
            self.publish(words[2], &body);
        }
        Some(whole)
    }
}
