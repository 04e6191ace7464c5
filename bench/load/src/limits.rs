//! What the machine can do at best: validation on one core, and the disk's flush.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::Instant,
};

use bytes::Bytes;
use daybook_ledger::{Parser, Rules, SignatureChecker};
use rand::rngs::StdRng;

use crate::stats::{Latencies, lines, processor_time};

/// Rounds over the corpus; the median is reported.
const ROUNDS: usize = 5;

/// Bytes of one probing append.
const APPEND_BYTES: usize = 4_096;

pub fn validate(file: &Path, batch: usize) {
    let text = Bytes::from(fs::read(file).expect("the corpus is readable"));
    let all: Vec<Bytes> = lines(&text).map(|line| text.slice_ref(line)).collect();
    let mut parser = Parser::new(Rules::default());
    let mut checker = SignatureChecker::new();
    let mut random: StdRng = rand::make_rng();
    let mut parse_us = Vec::new();
    let mut verify_us = Vec::new();
    let mut proven = 0;
    for _ in 0..ROUNDS {
        let (mut parsing, mut verifying) = (0.0, 0.0);
        proven = 0;
        for chunk in all.chunks(batch) {
            let begun = processor_time();
            let transactions: Vec<_> = parser
                .parse_batch(chunk.to_vec())
                .into_iter()
                .filter_map(Result::ok)
                .collect();
            let parsed = processor_time();
            let results = checker.verify(transactions, &mut random);
            verifying += (processor_time() - parsed).as_secs_f64();
            parsing += (parsed - begun).as_secs_f64();
            proven += results.iter().filter(|result| result.is_ok()).count();
        }
        parse_us.push(parsing * 1e6 / all.len() as f64);
        verify_us.push(verifying * 1e6 / all.len() as f64);
    }
    let median = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    let (parse_us, verify_us) = (median(&mut parse_us), median(&mut verify_us));
    println!(
        "{}",
        serde_json::json!({
            "measure": "validate", "batch": batch, "transactions": all.len(), "proven": proven,
            "bytes": text.len(), "parse_us": parse_us, "verify_us": verify_us,
            "per_second_per_core": 1e6 / (parse_us + verify_us),
        })
    );
}

pub fn disk(folder: &Path, appends: usize) {
    let path = folder.join("flush-probe");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .expect("a new file");
    let mut samples = Vec::with_capacity(appends);
    for _ in 0..appends {
        let begun = Instant::now();
        file.write_all(&[0x5a; APPEND_BYTES])
            .expect("room on the disk");
        file.sync_data().expect("a flush");
        samples.push(begun.elapsed());
    }
    drop(file);
    fs::remove_file(&path).expect("the probe's own file");
    let samples = Latencies::new(samples);
    println!(
        "{}",
        serde_json::json!({
            "measure": "disk", "append_bytes": APPEND_BYTES, "appends": appends,
            "p50_us": samples.percentile(50), "p99_us": samples.percentile(99),
        })
    );
}
