//! Many subscribers of one stream, and the plain writes that they are compared with.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use polling::{Event, Events, PollMode, Poller};

use crate::stats::{Latencies, processor_time};

/// No byte for so long is a failed run.
const SILENCE_MAX: Duration = Duration::from_secs(30);

struct Subscriber {
    socket: TcpStream,
    /// Bytes of the frame under way that are still to come.
    open: usize,
    head: Vec<u8>,
    frames: usize,
    done_at: Option<Instant>,
}

pub fn subscribe(node: &str, path: &str, subscribers: usize, stuck: usize, frames: usize) {
    let open = |_| upgrade(node, path);
    let idle: Vec<TcpStream> = (0..stuck).map(open).collect();
    let mut all: Vec<Subscriber> = (0..subscribers)
        .map(open)
        .map(|socket| Subscriber {
            socket,
            open: 0,
            head: Vec::new(),
            frames: 0,
            done_at: None,
        })
        .collect();
    // The line that tells the script to begin sending.
    println!(
        "{}",
        serde_json::json!({"measure": "subscribed", "subscribers": subscribers, "stuck": stuck})
    );
    let poller = Poller::new().expect("the operating system polls");
    for (key, subscriber) in all.iter().enumerate() {
        subscriber
            .socket
            .set_nonblocking(true)
            .expect("a TCP socket");
        // Safety: every socket outlives the poller's use of it; both live to the end of this function.
        unsafe {
            poller
                .add_with_mode(&subscriber.socket, Event::readable(key), PollMode::Level)
                .expect("the operating system polls");
        }
    }
    let processor = processor_time();
    let mut begun: Option<Instant> = None;
    let (mut left, mut bytes, mut reads) = (subscribers, 0_usize, 0_usize);
    let mut events = Events::new();
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        events.clear();
        poller
            .wait(&mut events, Some(SILENCE_MAX))
            .expect("the operating system polls");
        assert!(
            !events.is_empty(),
            "no frame for {SILENCE_MAX:?}, {left} subscribers are not done"
        );
        let begun = *begun.get_or_insert_with(Instant::now);
        let _ = begun;
        for event in events.iter() {
            let subscriber = &mut all[event.key];
            match subscriber.socket.read(&mut buffer) {
                Ok(0) => panic!("the node closed a stream"),
                Ok(read) => {
                    bytes += read;
                    reads += 1;
                    subscriber.take(&buffer[..read]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            if subscriber.frames >= frames && subscriber.done_at.is_none() {
                subscriber.done_at = Some(Instant::now());
                left -= 1;
            }
        }
    }
    let begun = begun.expect("frames came");
    let elapsed = begun.elapsed();
    let done = Latencies::new(
        all.iter()
            .filter_map(|s| Some(s.done_at? - begun))
            .collect(),
    );
    let delivered = subscribers * frames;
    println!(
        "{}",
        serde_json::json!({
            "measure": "subscribe", "subscribers": subscribers, "stuck": idle.len(), "frames": frames,
            "seconds": elapsed.as_secs_f64(), "deliveries_per_second": delivered as f64 / elapsed.as_secs_f64(),
            "bytes_per_delivery": bytes as f64 / delivered as f64,
            "deliveries_per_read": delivered as f64 / reads as f64,
            "done_p50_us": done.percentile(50), "done_p99_us": done.percentile(99),
            "generator_cpu_us": (processor_time() - processor).as_secs_f64() * 1e6 / delivered as f64,
        })
    );
}

fn upgrade(node: &str, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(node).expect("the node listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {node}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket
        .write_all(request.as_bytes())
        .expect("the node reads");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("the node answers");
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    socket
}

impl Subscriber {
    /// Counts text frames; RFC 6455, section 5.2, as servers send them (unmasked).
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open > 0 {
                let taken = self.open.min(bytes.len());
                self.open -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let length = match self.head.as_slice() {
                [_, short] if *short < 126 => Some(usize::from(*short)),
                [_, 126, high, low] => Some(usize::from(u16::from_be_bytes([*high, *low]))),
                [_, 127, long @ ..] if long.len() == 8 => {
                    let long = u64::from_be_bytes(long.try_into().expect("eight bytes"));
                    Some(usize::try_from(long).expect("a frame fits memory"))
                }
                _ => None,
            };
            if let Some(length) = length {
                self.open = length;
                self.frames += usize::from(self.head[0] == 0x81);
                self.head.clear();
            }
        }
    }
}

/// One thread writes, one reads, as node and generator do; no frame is parsed.
pub fn raw(subscribers: usize, frame_bytes: usize, frames_per_write: usize, frames: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let reader = thread::spawn(move || {
        let mut sockets: Vec<TcpStream> = Vec::with_capacity(subscribers);
        let poller = Poller::new().expect("the operating system polls");
        for key in 0..subscribers {
            let (socket, _) = listener.accept().expect("a connection");
            socket.set_nonblocking(true).expect("a TCP socket");
            // Safety: every socket outlives the poller's use of it; both live to the end of this closure.
            unsafe {
                poller
                    .add_with_mode(&socket, Event::readable(key), PollMode::Level)
                    .expect("the operating system polls");
            }
            sockets.push(socket);
        }
        let mut left = subscribers * frames * frame_bytes;
        let mut events = Events::new();
        let mut buffer = vec![0; 256 << 10];
        while left > 0 {
            events.clear();
            poller
                .wait(&mut events, Some(SILENCE_MAX))
                .expect("the operating system polls");
            for event in events.iter() {
                if let Ok(read) = sockets[event.key].read(&mut buffer) {
                    left -= read;
                }
            }
        }
    });
    let mut sockets: Vec<TcpStream> = (0..subscribers)
        .map(|_| {
            let socket = TcpStream::connect(address).expect("the reader listens");
            socket.set_nodelay(true).expect("a TCP socket");
            socket
        })
        .collect();
    let bytes = vec![0x5a; frame_bytes * frames_per_write];
    let begun = Instant::now();
    let mut left = frames;
    while left > 0 {
        let burst = left.min(frames_per_write);
        for socket in &mut sockets {
            socket
                .write_all(&bytes[..burst * frame_bytes])
                .expect("the reader reads");
        }
        left -= burst;
    }
    reader.join().expect("the reader counts");
    let elapsed = begun.elapsed();
    println!(
        "{}",
        serde_json::json!({
            "measure": "fan", "subscribers": subscribers, "frames": frames, "frames_per_write": frames_per_write,
            "seconds": elapsed.as_secs_f64(),
            "deliveries_per_second": (subscribers * frames) as f64 / elapsed.as_secs_f64(),
        })
    );
}
