//! How fast one thread proves, decides and records the tracker's commands.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]
#![allow(clippy::float_arithmetic)]

use std::{sync::Arc, time::Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daybook_ledger::{
    BlockTime, Draft, Height, SigningKey,
    json::Value,
    tracker::{
        Address, AddressKind, Book, Command, Contract, Decision, Entry, History, IndexKey, Key,
        Payload, Price, Proven, Prover, Request, Settings, Settled, Suites, command, draft,
    },
};

/// Channels that are opened, then closed.
const CHANNELS: usize = 20_000;
const NOW: BlockTime = BlockTime(1_700_000_000_000);

struct Nothing;

impl History for Nothing {
    fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
        None
    }
}

fn main() {
    let [holder, tracker, alice, bob] = [1, 2, 3, 4].map(|i| SigningKey::from_seed([i; 32]));
    let pem = |key: &SigningKey| Key::ed25519_pem(&key.public_key());
    let token = Draft::create(Value::Null)
        .output(1_000_000_000_000, &holder)
        .sign(&[&holder])
        .unwrap();
    let mut settings = Settings::new(pem(&tracker), token.id().as_asset(), holder.public_key());
    settings.open_transfers_max = 1 << 30;
    settings.spend_grant = 100_000_000_000;
    let mut prover = Prover::new(Suites::default(), settings.ids());
    let mut book = Book::default();
    let entry = book.configure(settings, NOW).unwrap();
    book.record(&entry, Height(1)).unwrap();
    let entry = book.deposit(&token, NOW);
    book.record(&entry, Height(1)).unwrap();

    let signed = |code: u64, message: String, cosigned: bool, key: &SigningKey| {
        let sign = |key: &SigningKey| STANDARD.encode(key.sign(message.as_bytes()));
        let payload = if cosigned {
            Payload::CoSigned {
                from_pk: pem(&alice),
                from_sign: sign(&alice),
                to_pk: pem(&bob),
                to_sign: sign(&bob),
                message: message.clone(),
            }
        } else {
            Payload::Single {
                pk: pem(key),
                sign: sign(key),
                message: message.clone(),
            }
        };
        Request {
            command: code,
            correlation: "1".into(),
            idempotent: false,
            payload,
        }
    };
    let run = |book: &mut Book, commands: &[Command]| -> Vec<Entry> {
        let start = Instant::now();
        let mut entries = Vec::new();
        for (i, command) in commands.iter().enumerate() {
            let Decision::Entry(entry) = book.decide(command, NOW, &Nothing).unwrap() else {
                panic!("a command leads to an entry");
            };
            book.record(&entry, Height(1 + i as u64 / 100)).unwrap();
            entries.push(entry);
        }
        report("decide and record", commands.len(), start);
        entries
    };
    let prove = |prover: &mut Prover, requests: Vec<Request>| -> Vec<Command> {
        let (start, count) = (Instant::now(), requests.len());
        let mut random = rand::rng();
        let mut commands = Vec::new();
        for chunk in requests.chunks(64) {
            for proven in prover.prove_batch(chunk.to_vec(), &mut random) {
                let Ok(Proven::Command(command)) = proven else {
                    panic!("the request is sound");
                };
                commands.push(command);
            }
        }
        report("prove, in batches of 64", count, start);
        commands
    };
    let open = |code, key: &SigningKey| signed(code, pem(key), false, key);
    let requests = vec![
        open(command::OPEN_SPEND, &alice),
        open(command::OPEN_INCOME, &bob),
    ];
    let commands = prove(&mut prover, requests);
    run(&mut book, &commands);

    let address =
        |kind, key: &SigningKey| Address::channel_end(kind, &pem(&tracker), &pem(key), NOW.0);
    let contracts: Vec<Contract> = (0..CHANNELS)
        .map(|i| Contract {
            channel: format!("channel-{i}").into(),
            from: address(AddressKind::Spend, &alice).text().clone(),
            to: address(AddressKind::Income, &bob).text().clone(),
            price: Price {
                amount: 500,
                power: 25,
            },
            planned: 8,
        })
        .collect();
    println!("opens of transfer channels");
    let requests = contracts
        .iter()
        .map(|contract| draft::open_transfer(contract, &pem(&alice), &pem(&bob), None))
        .map(|text| signed(command::OPEN_TRANSFER, text, true, &alice))
        .collect();
    let commands = prove(&mut prover, requests);
    let mut entries = run(&mut book, &commands);
    let start = Instant::now();
    let bytes = book.encode();
    println!(
        "  snapshot: {} bytes, encoded in {:?}",
        bytes.len(),
        start.elapsed()
    );
    book.forget(Height(u64::MAX));
    let start = Instant::now();
    book.audit().unwrap();
    println!("  audit of {CHANNELS} channels: {:?}", start.elapsed());
    println!("closes");
    let end = Settled {
        count: 3,
        tokens: 1_500,
        volume: 100_000_000,
    };
    let requests = contracts
        .iter()
        .map(|contract| draft::close_transfer(contract, &end, &pem(&alice), &pem(&bob), None))
        .map(|text| signed(command::CLOSE_TRANSFER, text, true, &alice))
        .collect();
    let commands = prove(&mut prover, requests);
    entries.extend(run(&mut book, &commands));
    let start = Instant::now();
    let texts: Vec<Bytes> = entries.iter().map(|entry| entry.text().clone()).collect();
    let count = texts.len();
    for text in texts {
        Entry::read(text).unwrap();
    }
    report("read a stored entry", count, start);
}

fn report(what: &str, count: usize, start: Instant) {
    let each = start.elapsed().as_nanos() / count.max(1) as u128;
    println!("  {what}: {each} ns each");
}
