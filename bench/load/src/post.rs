//! One request per transaction over many connections, each with one request under way.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use polling::{Event, Events, PollMode, Poller};

use crate::stats::{Latencies, lines, processor_time};

/// Bytes of one answer that are kept: the whole head, and a body as long as a transaction.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Nothing answered for so long is a failed run.
const SILENCE_MAX: Duration = Duration::from_secs(20);

struct Connection {
    socket: TcpStream,
    answer: Vec<u8>,
    sent_at: Instant,
}

pub fn run(node: &str, file: &Path, connections: usize, most: usize) {
    let text = fs::read(file).expect("the corpus is readable");
    let requests: Vec<Vec<u8>> = lines(&text)
        .take(most)
        .map(|line| {
            let head = format!(
                "POST /api/v1/transactions?mode=commit HTTP/1.1\r\nHost: {node}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                line.len()
            );
            [head.as_bytes(), line].concat()
        })
        .collect();
    let poller = Poller::new().expect("the operating system polls");
    let mut all: Vec<Connection> = (0..connections.min(requests.len()))
        .map(|_| {
            let socket = TcpStream::connect(node).expect("the node listens");
            socket.set_nodelay(true).expect("a TCP socket");
            Connection {
                socket,
                answer: Vec::new(),
                sent_at: Instant::now(),
            }
        })
        .collect();
    let begun = Instant::now();
    let processor = processor_time();
    let mut next = 0;
    for (key, connection) in all.iter_mut().enumerate() {
        connection.send(&requests[next]);
        next += 1;
        connection
            .socket
            .set_nonblocking(true)
            .expect("a TCP socket");
        // Safety: every socket outlives the poller's use of it; both live to the end of this function.
        unsafe {
            poller
                .add_with_mode(&connection.socket, Event::readable(key), PollMode::Level)
                .expect("the operating system polls");
        }
    }
    let mut latencies = Vec::with_capacity(requests.len());
    let mut accepted = 0;
    let mut events = Events::new();
    let mut buffer = vec![0; 64 << 10];
    while latencies.len() < requests.len() {
        events.clear();
        poller
            .wait(&mut events, Some(SILENCE_MAX))
            .expect("the operating system polls");
        assert!(!events.is_empty(), "no answer for {SILENCE_MAX:?}");
        for event in events.iter() {
            let connection = &mut all[event.key];
            match connection.socket.read(&mut buffer) {
                Ok(0) => panic!("the node closed a connection"),
                Ok(read) => connection.answer.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            let Some(status) = connection.whole_answer() else {
                continue;
            };
            accepted += usize::from(status == *b"202");
            latencies.push(connection.sent_at.elapsed());
            connection.answer.clear();
            if next < requests.len() {
                connection.send(&requests[next]);
                next += 1;
            }
        }
    }
    let elapsed = begun.elapsed();
    let sent = requests.len();
    let latencies = Latencies::new(latencies);
    println!(
        "{}",
        serde_json::json!({
            "measure": "post", "connections": connections, "sent": sent, "accepted": accepted,
            "seconds": elapsed.as_secs_f64(), "per_second": sent as f64 / elapsed.as_secs_f64(),
            "p50_us": latencies.percentile(50), "p99_us": latencies.percentile(99),
            "generator_cpu_us": (processor_time() - processor).as_secs_f64() * 1e6 / sent as f64,
        })
    );
}

impl Connection {
    fn send(&mut self, request: &[u8]) {
        self.sent_at = Instant::now();
        let mut rest = request;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The status digits once head and body are complete.
    fn whole_answer(&self) -> Option<[u8; 3]> {
        assert!(
            self.answer.len() < ANSWER_BYTES_MAX,
            "an answer without end"
        );
        let head = self
            .answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")?
            + 4;
        let text = std::str::from_utf8(&self.answer[..head]).expect("a head is ASCII");
        let length = text
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            })
            .expect("answers name their length");
        (self.answer.len() >= head + length)
            .then(|| self.answer[9..12].try_into().expect("three digits"))
    }
}
