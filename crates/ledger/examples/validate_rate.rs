//! Prints what validating a transaction costs on one core, stage by stage:
//! `cargo run --release -p daybook-ledger --example validate_rate`.
// A measurement needs a clock and averages; the fence is around the rules.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use daybook_ledger::{
    Draft, Parser, Rules, SignatureChecker, SigningKey, Transaction, json::Object,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Transactions per measurement: more than the caches hold.
const TRANSACTIONS: usize = 8_192;
/// Measurements of which the fastest counts.
const ROUNDS: usize = 3;

fn main() {
    let mut random = StdRng::seed_from_u64(1);
    let mut seed = || {
        let mut seed = [0; 32];
        random.fill_bytes(&mut seed);
        seed
    };
    let keys: Vec<SigningKey> = (0..TRANSACTIONS)
        .map(|_| SigningKey::from_seed(seed()))
        .collect();
    for (name, owners) in [("200 keys", 200), ("all-new keys", TRANSACTIONS)] {
        let creates = creates(&keys[..owners]);
        let transfers = transfers(&creates, &keys[..owners]);
        let bytes = |all: &[Transaction]| {
            all.iter().map(|one| one.canonical().len()).sum::<usize>() / all.len()
        };
        for (kind, all) in [("CREATE", &creates), ("TRANSFER", &transfers)] {
            println!("{kind}, {name}, {} bytes", bytes(all));
            measure(all);
        }
    }
}

fn creates(keys: &[SigningKey]) -> Vec<Transaction> {
    let mut parser = Parser::new(Rules::default());
    (0..TRANSACTIONS)
        .map(|i| {
            let owner = &keys[i % keys.len()];
            let data = Object::from_iter([
                ("kind", "lamp".to_owned()),
                ("serial", format!("LX-{i:08}")),
            ]);
            let draft = Draft::create(data).output(1 + i as u64, owner);
            draft.sign_with(&mut parser, &[owner]).unwrap()
        })
        .collect()
}

fn transfers(creates: &[Transaction], keys: &[SigningKey]) -> Vec<Transaction> {
    let mut parser = Parser::new(Rules::default());
    creates
        .iter()
        .enumerate()
        .map(|(i, create)| {
            let (from, to) = (&keys[i % keys.len()], &keys[(i + 1) % keys.len()]);
            let draft = Draft::transfer(create.asset())
                .spend(create.output_ref(0), from)
                .output(1 + i as u64, to);
            draft.sign_with(&mut parser, &[from]).unwrap()
        })
        .collect()
}

fn measure(all: &[Transaction]) {
    let canonical: Vec<Bytes> = all.iter().map(|one| one.canonical().clone()).collect();
    // As Python's `requests` sends it: spaced, members in another order.
    let spaced: Vec<Bytes> = canonical
        .iter()
        .map(|text| Bytes::from(respaced(text)))
        .collect();
    let mut parser = Parser::new(Rules::default());
    rate("parse, canonical text", all.len(), || {
        for text in &canonical {
            black_box(parser.parse(text.clone()).unwrap());
        }
    });
    rate("parse, spaced text", all.len(), || {
        for text in &spaced {
            black_box(parser.parse(text.clone()).unwrap());
        }
    });
    for (name, texts) in [("canonical", &canonical), ("spaced", &spaced)] {
        rate(&format!("parse, batches of 256, {name}"), all.len(), || {
            for chunk in texts.chunks(256) {
                let results = parser.parse_batch(chunk.to_vec());
                assert!(black_box(results).iter().all(Result::is_ok));
            }
        });
    }
    rate("parse, stored text", all.len(), || {
        for text in &canonical {
            black_box(parser.parse_stored(text.clone()).unwrap());
        }
    });
    let mut random = StdRng::seed_from_u64(2);
    let mut checker = SignatureChecker::new();
    for batch in [64, 256, 1_024] {
        let clean = time(|| {
            for chunk in all.chunks(batch) {
                let results = checker.verify(chunk.to_vec(), &mut random);
                assert!(black_box(results).iter().all(Result::is_ok));
            }
        });
        report(&format!("verify, batches of {batch}"), all.len(), clean);
        if batch == 256 {
            let mut spoilt = all.to_vec();
            let every_hundredth: Vec<Bytes> = canonical
                .iter()
                .step_by(100)
                .map(|text| Bytes::from(spoil(text)))
                .collect();
            for (place, text) in every_hundredth.into_iter().enumerate() {
                spoilt[place * 100] = parser.parse(text).unwrap();
            }
            let dirty = time(|| {
                for chunk in spoilt.chunks(batch) {
                    let results = checker.verify(chunk.to_vec(), &mut random);
                    assert!(black_box(results).iter().any(Result::is_ok));
                }
            });
            report("verify, batches of 256, 1 % bad", all.len(), dirty);
            println!("    rate with 1 % bad / clean rate: {:.2}", clean / dirty);
        }
    }
}

fn rate(name: &str, count: usize, work: impl FnMut()) {
    let best = time(work);
    report(name, count, best);
}

/// Seconds of the fastest of some rounds.
fn time(mut work: impl FnMut()) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn report(name: &str, count: usize, seconds: f64) {
    let each = seconds / count as f64;
    println!(
        "    {name:<34} {:>7.2} µs  {:>9.0} /s",
        each * 1e6,
        1.0 / each
    );
}

fn respaced(text: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(text).unwrap();
    let mut members: Vec<String> = value
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("\"{key}\": {}", pretty(value)))
        .collect();
    members.reverse();
    format!("{{{}}}", members.join(", "))
}

fn pretty(value: &serde_json::Value) -> String {
    value
        .to_string()
        .replace("\":", "\": ")
        .replace(",\"", ", \"")
}

/// Another signature and the id that goes with it.
fn spoil(text: &[u8]) -> String {
    let mut value: serde_json::Value = serde_json::from_slice(text).unwrap();
    let proof = value["inputs"][0]["fulfillment"]
        .as_str()
        .unwrap()
        .to_owned();
    // The scalar's second lowest byte: the signature stays well-formed.
    let at = 94;
    let changed = if &proof[at..=at] == "A" { "B" } else { "A" };
    value["inputs"][0]["fulfillment"] =
        format!("{}{changed}{}", &proof[..at], &proof[at + 1..]).into();
    value["id"] = serde_json::Value::Null;
    let id = daybook_ledger::canonical::sha3(value.to_string().as_bytes());
    value["id"] = hex::encode(id).into();
    value.to_string()
}
