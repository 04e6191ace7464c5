//! Signed transactions in files, one per line, in canonical text as the drivers make it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use daybook_ledger::{
    Draft, OutputRef, Parser, Rules, SigningKey, Transaction, TransactionId, canonical,
    condition::Details, json::Value,
};

pub struct Shape {
    pub transactions: usize,
    pub keys: usize,
    pub rounds: usize,
    pub spoil_every: usize,
    pub seed: u64,
}

/// What the next round spends.
struct Held {
    output: OutputRef,
    asset: daybook_ledger::AssetId,
    owner: usize,
}

pub fn write(folder: &Path, shape: &Shape) {
    fs::create_dir_all(folder).expect("a writable folder");
    let keys: Vec<SigningKey> = (0..shape.keys as u64)
        .map(|key| key_of(shape.seed, key))
        .collect();
    let mut parser = Parser::new(Rules::default());
    let mut file = lines(folder, "create");
    let mut held = Vec::with_capacity(shape.transactions);
    for number in 0..shape.transactions {
        let owner = number % keys.len();
        let data = format!(
            r#"{{"kind":"bench","lot":{number},"seed":{},"text":"a lot of goods made for measuring"}}"#,
            shape.seed
        );
        let data = Value::parse(data.as_bytes(), 8).expect("the text above is JSON");
        let transaction = Draft::create(data)
            .output(100, keys[owner].public_key())
            .sign_with(&mut parser, &[&keys[owner]])
            .expect("a sound draft");
        put(&mut file, &transaction, false);
        held.push(hold(&transaction, owner));
    }
    for round in 1..=shape.rounds {
        let mut file = lines(folder, &format!("transfer-{round}"));
        for (number, held) in held.iter_mut().enumerate() {
            let owner = (held.owner + round) % keys.len();
            let transaction = Draft::transfer(held.asset)
                .spend(held.output, Details::Key(keys[held.owner].public_key()))
                .output(100, keys[owner].public_key())
                .sign_with(&mut parser, &[&keys[held.owner]])
                .expect("a sound draft");
            let spoiled =
                shape.spoil_every > 0 && number % shape.spoil_every == shape.spoil_every / 2;
            put(&mut file, &transaction, spoiled);
            *held = hold(&transaction, owner);
        }
    }
    println!(
        "{}",
        serde_json::json!({"measure": "corpus", "transactions": shape.transactions, "rounds": shape.rounds})
    );
}

fn key_of(seed: u64, key: u64) -> SigningKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.to_le_bytes());
    SigningKey::from_seed(bytes)
}

fn hold(transaction: &Transaction, owner: usize) -> Held {
    let output = OutputRef {
        transaction: transaction.id(),
        index: 0,
    };
    Held {
        output,
        asset: transaction.asset(),
        owner,
    }
}

fn lines(folder: &Path, name: &str) -> BufWriter<File> {
    let path = folder.join(format!("{name}.ndjson"));
    BufWriter::with_capacity(1 << 20, File::create(path).expect("a writable folder"))
}

/// A spoiled transaction has a signature with one bit flipped and an id that fits it: everything but the
/// signature is right, so it costs a verifier as much as can be.
fn put(file: &mut impl Write, transaction: &Transaction, spoiled: bool) {
    let mut text = transaction.canonical().to_vec();
    if spoiled {
        const MARK: &[u8] = b"\"fulfillment\":\"";
        let start = text
            .windows(MARK.len())
            .position(|window| window == MARK)
            .expect("an input")
            + MARK.len();
        // A letter in the middle of s: the number stays below the group's order.
        let at = start + 120;
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        let value = Value::parse(&text, 64).expect("canonical text");
        let unnamed = canonical::text_for_id(value.as_object().expect("a transaction"));
        let id = TransactionId(canonical::sha3(unnamed.as_bytes())).to_string();
        text = String::from_utf8(text)
            .expect("canonical text")
            .replace(&transaction.id().to_string(), &id)
            .into_bytes();
    }
    file.write_all(&text)
        .and_then(|()| file.write_all(b"\n"))
        .expect("room on the disk");
}
