//! One upload through the batch door.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::Instant,
};

use memchr::memmem::Finder;

use crate::stats::{lines, processor_time};

/// Bytes sent at once.
const CHUNK_BYTES: usize = 256 << 10;

pub fn run(node: &str, file: &Path, ack: &str) {
    let text = fs::read(file).expect("the corpus is readable");
    let sent = lines(&text).count();
    let mut socket = TcpStream::connect(node).expect("the node listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let mut reading = socket.try_clone().expect("a second handle");
    let begun = Instant::now();
    let processor = processor_time();
    let head = format!(
        "POST /api/v1/transactions/batch?ack={ack} HTTP/1.1\r\nHost: {node}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let reader = thread::spawn(move || {
        let (mut committed, mut rejected, mut results) = (0_usize, 0_usize, 0_usize);
        let mut buffer = vec![0; CHUNK_BYTES];
        let committed_mark = Finder::new(b"\"committed\"");
        let accepted_mark = Finder::new(b"\"accepted\"");
        let rejected_mark = Finder::new(b"\"rejected\"");
        let result_mark = Finder::new(b"{\"line\"");
        // What a result begins with is rare enough to be counted by its marks; a mark cut by the buffer's
        // end is completed by keeping the last bytes.
        let mut held = 0;
        loop {
            let read = reading.read(&mut buffer[held..]).expect("the node answers");
            let filled = held + read;
            let end = if read == 0 {
                filled
            } else {
                buffer[..filled]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1)
            };
            // A line has at most one mark of a status, once: quotes in messages are escaped.
            let whole = &buffer[..end];
            committed += committed_mark.find_iter(whole).count();
            committed += accepted_mark.find_iter(whole).count();
            rejected += rejected_mark.find_iter(whole).count();
            results += result_mark.find_iter(whole).count();
            buffer.copy_within(end..filled, 0);
            held = filled - end;
            if read == 0 {
                return (committed, rejected, results);
            }
        }
    });
    socket.write_all(head.as_bytes()).expect("the node reads");
    for chunk in text.chunks(CHUNK_BYTES) {
        socket.write_all(chunk).expect("the node reads");
    }
    let (committed, rejected, results) = reader.join().expect("the reader counts");
    let elapsed = begun.elapsed();
    println!(
        "{}",
        serde_json::json!({
            "measure": "upload", "ack": ack, "sent": sent, "results": results, "committed": committed,
            "rejected": rejected, "seconds": elapsed.as_secs_f64(),
            "per_second": sent as f64 / elapsed.as_secs_f64(),
            "generator_cpu_us": (processor_time() - processor).as_secs_f64() * 1e6 / sent as f64,
        })
    );
}
