//! The fast lane, the slow lane and an obvious judge must agree on every text.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::{rehash, resign, text_of, transactions};
use daybook_ledger::{
    Draft, OutputRef, Parser, Rules, SigningKey, Transaction, TransactionId, Version,
    condition::{Details, Fulfillment},
    json,
};
use rand::{
    Rng, RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use serde_json::{Value, json};

/// Reads with both lanes and checks that they say the same.
fn both(parser: &mut Parser, text: &[u8]) -> Option<Transaction> {
    let fast = parser.parse(Bytes::copy_from_slice(text));
    let slow = parser.parse_by_value(text);
    let shown = String::from_utf8_lossy(text);
    match (fast, slow) {
        (Ok(fast), Ok(slow)) => {
            assert_eq!(format!("{fast:?}"), format!("{slow:?}"), "{shown}");
            // What is stored reads back as the same, but for what is not computed again.
            let mut stored = format!(
                "{:?}",
                parser.parse_stored(fast.canonical().clone()).unwrap()
            );
            let mut read = format!("{fast:?}");
            for input in fast.inputs() {
                let message = format!("{:?}", input.message);
                read = read.replace(&message, &format!("{:?}", [0u8; 32]));
            }
            stored = stored.replace("signers_named: true", "signers_named: _");
            read = read
                .replace("signers_named: true", "signers_named: _")
                .replace("signers_named: false", "signers_named: _");
            assert_eq!(stored, read);
            Some(fast)
        }
        (Err(fast), Err(slow)) => {
            assert_eq!(fast, slow, "{shown}");
            assert!(!fast.detail.contains("cannot be taken apart"), "{shown}");
            None
        }
        (fast, slow) => panic!("the lanes differ on {shown}:\n{fast:?}\n{slow:?}"),
    }
}

/// Reads all texts as batches of random sizes and checks that each says what it says alone.
fn in_batches(texts: &[Vec<u8>], random: &mut StdRng) {
    let mut alone = Parser::new(Rules::default());
    let mut batched = Parser::new(Rules::default());
    let mut rest = texts;
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(random.random_range(1..=rest.len().min(300)));
        rest = others;
        let texts: Vec<Bytes> = batch
            .iter()
            .map(|text| Bytes::copy_from_slice(text))
            .collect();
        let found = batched.parse_batch(texts.clone());
        assert_eq!(found.len(), texts.len());
        for (text, found) in texts.into_iter().zip(found) {
            let shown = String::from_utf8_lossy(&text).into_owned();
            let expected = alone.parse(text);
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{shown}");
        }
    }
}

// The judge: reads with serde_json and asks one plain question after the other.

fn judge(text: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let id = value.get("id")?.as_str()?.to_owned();
    let mut unnamed = value.clone();
    unnamed["id"] = Value::Null;
    let mut preimage = String::new();
    write(&mut preimage, &unnamed);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA3_256, preimage.as_bytes());
    if id != hex::encode(digest) {
        return None;
    }
    let (version, asset) = match value.get("version")?.as_str()? {
        "2.0" => (2, "asset"),
        "3.0" => (3, "assets"),
        _ => return None,
    };
    only(
        &value,
        &[
            asset,
            "id",
            "inputs",
            "metadata",
            "operation",
            "outputs",
            "version",
        ],
    )?;
    let operation = value["operation"].as_str()?;
    let composing = ["COMPOSE", "DECOMPOSE"].contains(&operation);
    (["CREATE", "TRANSFER"].contains(&operation) || version == 3 && composing).then_some(())?;
    let inputs = value["inputs"].as_array().filter(|list| !list.is_empty())?;
    for input in inputs {
        only(input, &["fulfillment", "fulfills", "owners_before"])?;
        keys(&input["owners_before"])?;
        let der = URL_SAFE_NO_PAD
            .decode(input["fulfillment"].as_str()?)
            .ok()?;
        Fulfillment::from_der(&der, 100).ok()?;
        if operation == "CREATE" {
            (inputs.len() == 1 && input["fulfills"].is_null()).then_some(())?;
        } else {
            only(&input["fulfills"], &["output_index", "transaction_id"])?;
            u32::try_from(input["fulfills"]["output_index"].as_u64()?).ok()?;
            hex64(&input["fulfills"]["transaction_id"])?;
        }
    }
    let entries: Vec<Value> = match (version, &value[asset]) {
        (2, asset @ Value::Object(_)) => vec![asset.clone()],
        (3, Value::Array(entries)) if !entries.is_empty() => entries.clone(),
        (3, Value::Null) if operation == "CREATE" => vec![json!({"data": null})],
        _ => return None,
    };
    let (mut data, mut ids) = (0, 0);
    for entry in &entries {
        if entry.get("data").is_some() {
            only(entry, &["data"])?;
            let fine = match &entry["data"] {
                Value::String(_) => true,
                Value::Null => operation == "CREATE",
                Value::Object(_) => version == 2 && operation == "CREATE",
                _ => false,
            };
            (fine && names(&entry["data"])).then_some(())?;
            data += 1;
        } else {
            only(entry, &["id"])?;
            hex64(&entry["id"])?;
            ids += 1;
        }
    }
    let outputs = value["outputs"]
        .as_array()
        .filter(|list| !list.is_empty())?;
    let counts = match operation {
        "CREATE" => data == 1 && ids == 0,
        "TRANSFER" => data == 0 && ids >= 1,
        "COMPOSE" => data == 1 && ids >= 1 && outputs.len() == 1,
        _ => data >= 1 && ids == 1 && outputs.len() == data && inputs.len() == 1,
    };
    counts.then_some(())?;
    let fine = match &value["metadata"] {
        Value::Null | Value::String(_) => true,
        Value::Object(object) => version == 2 && !object.is_empty(),
        _ => false,
    };
    (fine && names(&value["metadata"])).then_some(())?;
    for output in outputs {
        only(output, &["amount", "condition", "public_keys"])?;
        let amount = output["amount"].as_str()?;
        let digits = (1..=20).contains(&amount.len()) && amount.bytes().all(|c| c.is_ascii_digit());
        let units: u128 = digits.then(|| amount.parse().ok())??;
        (1..=9_000_000_000_000_000_000)
            .contains(&units)
            .then_some(())?;
        only(&output["condition"], &["details", "uri"])?;
        let mut named = BTreeSet::new();
        let condition = condition(&output["condition"]["details"], &mut named)?;
        (output["condition"]["uri"] == condition.uri.as_str()).then_some(())?;
        let listed: BTreeSet<String> = keys(&output["public_keys"])?.into_iter().collect();
        (listed == named).then_some(())?;
        if operation == "DECOMPOSE" {
            (output["public_keys"] == inputs[0]["owners_before"]
                && output["public_keys"].as_array()?.len() == 1)
                .then_some(())?;
        }
    }
    Some(id)
}

fn only(value: &Value, members: &[&str]) -> Option<()> {
    let object = value.as_object()?;
    let fits =
        object.len() == members.len() && members.iter().all(|name| object.contains_key(*name));
    fits.then_some(())
}

fn hex64(value: &Value) -> Option<()> {
    let text = value.as_str()?;
    let fits = text.len() == 64 && text.bytes().all(|c| b"0123456789abcdef".contains(&c));
    fits.then_some(())
}

fn keys(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    list.iter().map(key).collect()
}

fn key(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let bytes = bs58::decode(text).into_vec().ok()?;
    (bytes.len() == 32 && text.len() >= 43).then(|| text.to_owned())
}

fn names(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.iter().all(|(name, value)| {
            let fine = !name.starts_with('$') && !name.contains('.') && !name.contains('\0');
            let languages = ["english", "en", "none", "tr", "danish"];
            fine && match value {
                Value::String(text) if name == "language" => languages.contains(&text.as_str()),
                _ if name == "language" => false,
                value => names(value),
            }
        }),
        Value::Array(items) => items.iter().all(names),
        _ => true,
    }
}

struct Judged {
    der: Vec<u8>,
    cost: u64,
    uri: String,
}

fn condition(details: &Value, named: &mut BTreeSet<String>) -> Option<Judged> {
    let tlv = |tag: u8, body: &[u8]| {
        let mut out = vec![tag];
        match body.len() {
            length @ 0..128 => out.push(length as u8),
            length @ 128..256 => out.extend([0x81, length as u8]),
            length => out.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        out.extend(body);
        out
    };
    let sha2 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let number = |value: u64| {
        let mut digits: Vec<u8> = value
            .to_be_bytes()
            .into_iter()
            .skip_while(|byte| *byte == 0)
            .collect();
        if digits.first().is_none_or(|first| *first >= 0x80) {
            digits.insert(0, 0);
        }
        digits
    };
    if details["type"] == "ed25519-sha-256" {
        only(details, &["public_key", "type"])?;
        let text = key(&details["public_key"])?;
        let bytes = bs58::decode(&text).into_vec().ok()?;
        named.insert(text);
        let fingerprint = sha2(&tlv(0x30, &tlv(0x80, &bytes)));
        let body = [tlv(0x80, fingerprint.as_ref()), tlv(0x81, &number(131_072))].concat();
        let text = URL_SAFE_NO_PAD.encode(fingerprint);
        return Some(Judged {
            der: tlv(0xA4, &body),
            cost: 131_072,
            uri: format!("ni:///sha-256;{text}?fpt=ed25519-sha-256&cost=131072"),
        });
    }
    (details["type"] == "threshold-sha-256").then_some(())?;
    only(details, &["subconditions", "threshold", "type"])?;
    let parts = details["subconditions"].as_array()?;
    let threshold = details["threshold"].as_u64()?;
    (1..=100.min(parts.len() as u64))
        .contains(&threshold)
        .then_some(())?;
    let parts: Vec<Judged> = parts
        .iter()
        .map(|part| condition(part, named))
        .collect::<Option<_>>()?;
    let mut ders: Vec<&[u8]> = parts.iter().map(|part| &part.der[..]).collect();
    ders.sort();
    let mut costs: Vec<u64> = parts.iter().map(|part| part.cost).collect();
    costs.sort();
    let largest: u64 = costs.iter().rev().take(threshold as usize).sum();
    let cost = largest + 1_024 * parts.len() as u64;
    let contents = [tlv(0x80, &number(threshold)), tlv(0xA1, &ders.concat())].concat();
    let fingerprint = sha2(&tlv(0x30, &contents));
    let body = [
        tlv(0x80, fingerprint.as_ref()),
        tlv(0x81, &number(cost)),
        vec![0x82, 2, 3, 8],
    ];
    let text = URL_SAFE_NO_PAD.encode(fingerprint);
    Some(Judged {
        der: tlv(0xA2, &body.concat()),
        cost,
        uri: format!(
            "ni:///sha-256;{text}?fpt=threshold-sha-256&cost={cost}&subtypes=ed25519-sha-256"
        ),
    })
}

/// Canonical text, written plainly. Floats are those that have one spelling everywhere.
fn write(out: &mut String, value: &Value) {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, &Value::String(name.clone()));
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, item);
            }
            out.push(']');
        }
        Value::String(text) => {
            out.push('"');
            for c in text.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\u{8}' => out.push_str("\\b"),
                    '\t' => out.push_str("\\t"),
                    '\n' => out.push_str("\\n"),
                    '\u{c}' => out.push_str("\\f"),
                    '\r' => out.push_str("\\r"),
                    c if c < ' ' => out.push_str(&format!("\\u{:04X}", c as u32)),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        other => out.push_str(&other.to_string()),
    }
}

// Random transactions and what can happen to them.

struct Maker {
    random: StdRng,
    keys: Vec<SigningKey>,
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let keys = (1..=6).map(|i| SigningKey::from_seed([i; 32])).collect();
        Maker {
            random: StdRng::seed_from_u64(seed),
            keys,
        }
    }

    fn owner(&mut self, depth: usize) -> Details {
        if depth == 0 || self.random.random_bool(0.6) {
            return Details::from(self.keys.choose(&mut self.random).unwrap());
        }
        let count = self.random.random_range(1..4);
        let parts: Vec<Details> = (0..count).map(|_| self.owner(depth - 1)).collect();
        Details::threshold_of(self.random.random_range(1..=count), parts)
    }

    /// One key, or so many of several: what may stand behind a CREATE.
    fn issuer(&mut self) -> Details {
        let count = self.random.random_range(1..4);
        let keys: Vec<_> = self
            .keys
            .sample(&mut self.random, count)
            .map(SigningKey::public_key)
            .collect();
        match &keys[..] {
            [key] => Details::Key(*key),
            keys => {
                let threshold = self.random.random_range(1..=keys.len());
                Details::threshold_of_keys(u32::try_from(threshold).unwrap(), keys)
            }
        }
    }

    fn value(&mut self, depth: usize) -> json::Value {
        let kinds = if depth == 0 { 5 } else { 7 };
        match self.random.random_range(0..kinds) {
            0 => json::Value::Null,
            1 => self.random.random::<bool>().into(),
            2 => json::Value::from(i64::from(self.random.random::<i16>())),
            3 => {
                let floats = [1.5, -0.25, 100.0, 0.0001, 12345.678];
                let number = *floats.choose(&mut self.random).unwrap();
                json::Value::Float(json::Finite::new(number).unwrap())
            }
            4 => self.text().into(),
            5 => (0..self.random.random_range(0..4))
                .map(|_| self.value(depth - 1))
                .collect::<Vec<_>>()
                .into(),
            _ => json::Value::Object(self.object(depth - 1)),
        }
    }

    fn object(&mut self, depth: usize) -> json::Object {
        (0..self.random.random_range(0..4))
            .map(|_| (self.text(), self.value(depth)))
            .collect()
    }

    fn text(&mut self) -> String {
        let parts = [
            "a", "lamp", "é", "😀", "\u{e000}", "\"", "\\", "\n", "\u{1}", "\u{b}", "/", "\u{7f}",
            "\u{2028}", "z", "language", "0", "$x", "a$", ",", "}",
        ];
        (0..self.random.random_range(0..4))
            .map(|_| *parts.choose(&mut self.random).unwrap())
            .collect()
    }

    fn transaction(&mut self) -> String {
        let keys: Vec<SigningKey> = self.keys.clone();
        let keys: Vec<&SigningKey> = keys.iter().collect();
        let third = self.random.random_bool(0.4);
        let some_id = |random: &mut StdRng| TransactionId(random.random());
        let kind = self.random.random_range(0..if third { 4 } else { 2 });
        let owner = self.owner(0);
        let mut draft = match (kind, third) {
            (0, false) => Draft::create(match self.random.random_range(0..4) {
                0 => json::Value::Null,
                1 => self.text().into(),
                _ => json::Value::Object(self.object(3)),
            })
            .issued_by(self.issuer()),
            (0, true) => Draft::create(match self.random.random_range(0..3) {
                0 => json::Value::Null,
                _ => self.text().into(),
            }),
            (1, _) => Draft::transfer(some_id(&mut self.random).as_asset()),
            (2, _) => {
                let ids: Vec<_> = (0..self.random.random_range(1..4))
                    .map(|_| some_id(&mut self.random).as_asset())
                    .collect();
                Draft::compose(self.text(), ids)
            }
            _ => {
                let data: Vec<String> = (0..self.random.random_range(1..4))
                    .map(|_| self.text())
                    .collect();
                let mut draft =
                    Draft::decompose(some_id(&mut self.random).as_asset(), data.clone());
                for _ in data {
                    draft = draft.output(self.random.random_range(1..100), owner.clone());
                }
                draft
            }
        };
        if third {
            draft = draft.version(Version::V3);
        }
        if kind > 0 {
            let inputs = if kind == 3 {
                1
            } else {
                self.random.random_range(1..4)
            };
            for _ in 0..inputs {
                let output = OutputRef {
                    transaction: some_id(&mut self.random),
                    index: self.random.random_range(0..3) * 1_000,
                };
                let condition = if kind == 3 {
                    owner.clone()
                } else {
                    self.owner(2)
                };
                draft = draft.spend(output, condition);
            }
        }
        if kind < 3 {
            let outputs = if kind == 2 {
                1
            } else {
                self.random.random_range(1..4)
            };
            for _ in 0..outputs {
                let owner = self.owner(3);
                draft = draft.output(
                    self.random.random_range(1..=9_000_000_000_000_000_000),
                    owner,
                );
            }
        }
        draft = match self.random.random_range(0..3) {
            0 => draft,
            1 => draft.metadata(self.text()),
            _ if third => draft,
            _ => match self.object(3) {
                object if object.is_empty() => draft,
                object => draft.metadata(object),
            },
        };
        draft.signed_text(&keys).unwrap()
    }

    /// Another value in some place of the tree.
    fn mutate(&mut self, value: &mut Value) {
        let mut pointers = Vec::new();
        collect(value, String::new(), &mut pointers);
        let pointer = pointers.choose(&mut self.random).unwrap().clone();
        let other = pointers.choose(&mut self.random).unwrap().clone();
        let copied = value.pointer(&other).unwrap().clone();
        let place = value.pointer_mut(&pointer).unwrap();
        match self.random.random_range(0..8) {
            0 => *place = copied,
            1 => *place = Value::Null,
            2 => *place = json!([]),
            3 => {
                let others = json!(["language", {"language": "xx"}, 0, "0", 1, -1, true, "", {}]);
                *place = others
                    .as_array()
                    .unwrap()
                    .choose(&mut self.random)
                    .unwrap()
                    .clone();
            }
            4 => match place {
                Value::Object(object) => {
                    let names: Vec<String> = object.keys().cloned().collect();
                    if let Some(name) = names.choose(&mut self.random) {
                        object.remove(name);
                    }
                }
                Value::Array(items) => {
                    items.pop();
                }
                _ => *place = json!({"data": "x"}),
            },
            5 => match place {
                Value::Object(object) => {
                    let names = ["$x", "a.b", "language", "data", "id", "q\0"];
                    object.insert((*names.choose(&mut self.random).unwrap()).into(), copied);
                }
                Value::Array(items) => items.push(copied),
                Value::String(text) => text.push('1'),
                _ => *place = json!({"id": "00".repeat(32)}),
            },
            6 => match place {
                Value::String(text) => {
                    let mut letters: Vec<char> = text.chars().collect();
                    if !letters.is_empty() {
                        let at = self.random.random_range(0..letters.len());
                        letters[at] = *['0', 'a', '=', '1', 'Z'].choose(&mut self.random).unwrap();
                    }
                    *text = letters.into_iter().collect();
                }
                Value::Number(number) => {
                    let number = number.as_f64().unwrap();
                    *place = json!(number as i64 + 1);
                }
                _ => {}
            },
            _ => match place {
                Value::Array(items) => items.reverse(),
                Value::String(text) => *text = text.to_uppercase(),
                _ => *place = json!("x"),
            },
        }
    }

    /// The same value in another spelling.
    fn respell(&mut self, value: &Value) -> String {
        let space = |random: &mut StdRng| *["", " ", "\n", "\t "].choose(random).unwrap();
        match value {
            Value::Object(object) => {
                let mut members: Vec<String> = object
                    .iter()
                    .map(|(name, value)| {
                        let gap = space(&mut self.random);
                        let name = self.respell(&Value::String(name.clone()));
                        format!("{gap}{name}{gap}:{gap}{}", self.respell(value))
                    })
                    .collect();
                if self.random.random::<bool>() {
                    members.reverse();
                }
                format!("{{{}}}", members.join(","))
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.respell(item)).collect();
                format!("[{}{}]", space(&mut self.random), items.join(", "))
            }
            Value::String(text) if self.random.random_bool(0.2) => {
                let units: String = text
                    .encode_utf16()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect();
                format!("\"{units}\"")
            }
            other => other.to_string(),
        }
    }
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{at}/{name}"), pointers);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(item, format!("{at}/{i}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(at);
}

#[test]
fn sound_transactions_are_taken_by_both_lanes_and_the_judge() {
    let seed = 0x5EED_0002;
    println!("seed {seed:#x}");
    let mut maker = Maker::new(seed);
    let mut parser = Parser::new(Rules::default());
    let mut taken = 0;
    let mut texts = Vec::new();
    for _ in 0..1_500 {
        let text = maker.transaction();
        let expected = judge(text.as_bytes());
        let found = both(&mut parser, text.as_bytes());
        assert_eq!(
            found.as_ref().map(|one| one.id().to_string()),
            expected,
            "{text}"
        );
        texts.push(text.clone().into_bytes());
        let Some(found) = found else { continue };
        taken += 1;
        assert!(common::verify(found.clone()).is_ok(), "{text}");
        // In any other spelling it is the same transaction.
        let respelt = maker.respell(&serde_json::from_str(&text).unwrap());
        let again = both(&mut parser, respelt.as_bytes()).unwrap_or_else(|| panic!("{respelt}"));
        assert_eq!(format!("{again:?}"), format!("{found:?}"));
        texts.push(respelt.into_bytes());
    }
    in_batches(&texts, &mut maker.random);
    // The others have keys with a dollar sign or a stray language.
    assert!(taken > 1_000, "{taken}");
}

#[test]
fn changed_transactions_are_judged_alike() {
    let seed = 0x5EED_0003;
    println!("seed {seed:#x}");
    let mut maker = Maker::new(seed);
    let mut parser = Parser::new(Rules::default());
    let mut taken = 0;
    let mut texts = Vec::new();
    for _ in 0..6_000 {
        let mut value: Value = serde_json::from_str(&maker.transaction()).unwrap();
        for _ in 0..maker.random.random_range(1..3) {
            maker.mutate(&mut value);
        }
        if value.is_object() && maker.random.random_bool(0.9) {
            let mut text = String::new();
            value["id"] = Value::Null;
            write(&mut text, &value);
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA3_256, text.as_bytes());
            value["id"] = hex::encode(digest).into();
        }
        let mut text = String::new();
        write(&mut text, &value);
        if maker.random.random_bool(0.3) {
            text = maker.respell(&value);
        }
        let found = both(&mut parser, text.as_bytes());
        taken += u32::from(found.is_some());
        assert_eq!(
            found.map(|one| one.id().to_string()),
            judge(text.as_bytes()),
            "{text}"
        );
        texts.push(text.into_bytes());
    }
    in_batches(&texts, &mut maker.random);
    assert!(taken > 300, "{taken}");
}

#[test]
fn changed_bytes_are_judged_alike_and_never_panic() {
    let seed = 0x5EED_0004;
    println!("seed {seed:#x}");
    let mut maker = Maker::new(seed);
    let mut parser = Parser::new(Rules::default());
    let recorded = transactions();
    let mut texts = Vec::new();
    for round in 0..8_000 {
        let mut text = if round % 4 == 0 {
            text_of(&recorded[round % recorded.len()])
                .as_bytes()
                .to_vec()
        } else {
            maker.transaction().into_bytes()
        };
        for _ in 0..maker.random.random_range(1..4) {
            if text.is_empty() {
                break;
            }
            let at = maker.random.random_range(0..text.len());
            match maker.random.random_range(0..4) {
                0 => text[at] = maker.random.random(),
                1 => text[at] = *b"\"\\{}[],:0 -.e\0".choose(&mut maker.random).unwrap(),
                2 => {
                    text.remove(at);
                }
                _ => text.truncate(at),
            }
        }
        both(&mut parser, &text);
        let _ = parser.parse_stored(Bytes::from(text.clone()));
        texts.push(text);
    }
    for _ in 0..20_000 {
        let mut bytes = vec![0; maker.random.random_range(0..120)];
        maker.random.fill_bytes(&mut bytes);
        if let Some(first) = bytes.first_mut() {
            *first = *[0xA2, 0xA4, 0xA0, b'{', b'[']
                .choose(&mut maker.random)
                .unwrap();
        }
        let _ = Fulfillment::from_der(&bytes, 100);
        let _ = Fulfillment::from_text(&bytes, 100);
        both(&mut parser, &bytes);
        texts.push(bytes);
    }
    texts.shuffle(&mut maker.random);
    in_batches(&texts, &mut maker.random);
}

#[test]
fn batches_mix_texts_that_are_hashed_together_and_alone() {
    let seed = 0x5EED_0005;
    println!("seed {seed:#x}");
    let mut random = StdRng::seed_from_u64(seed);
    let key = SigningKey::from_seed([7; 32]);
    let mut texts = vec![vec![b' '; (1 << 20) + 1], Vec::new()];
    // Around and far beyond the length of what is gathered, and once too long to be taken.
    for length in [
        10,
        900,
        1_100,
        15_000,
        15_800,
        16_200,
        60_000,
        300_000,
        1 << 20,
    ] {
        for _ in 0..3 {
            let draft = Draft::create("x".repeat(length)).output(1, &key);
            texts.push(draft.signed_text(&[&key]).unwrap().into_bytes());
        }
    }
    // From one input to more than are gathered.
    for inputs in 1..9u32 {
        for _ in 0..20 {
            let asset = TransactionId([9; 32]).as_asset();
            let mut draft = Draft::transfer(asset).output(1, &key);
            for _ in 0..inputs {
                let mut transaction = [0; 32];
                random.fill_bytes(&mut transaction);
                let spent = OutputRef {
                    transaction: TransactionId(transaction),
                    index: random.random_range(0..1_000_000_000) >> random.random_range(0..30),
                };
                draft = draft.spend(spent, &key);
            }
            texts.push(draft.signed_text(&[&key]).unwrap().into_bytes());
        }
    }
    // One in four has another id, in canonical spelling or not.
    for at in 0..texts.len() {
        if random.random_bool(0.25) {
            let text = String::from_utf8(texts[at].clone()).unwrap();
            let id = text.find("\"id\":\"").filter(|_| text.len() < 1 << 20);
            texts.push(match id {
                Some(id) if random.random_bool(0.5) => {
                    format!("{} {}", &text[..id], &text[id..]).into_bytes()
                }
                Some(_) => text
                    .replacen("\"amount\":\"1\"", "\"amount\":\"2\"", 1)
                    .into_bytes(),
                None => text.into_bytes(),
            });
            let last = texts.len() - 1;
            if random.random_bool(0.5) {
                let mut spaced = texts[last].clone();
                spaced.push(b' ');
                texts.push(spaced);
            }
        }
    }
    for _ in 0..3 {
        texts.shuffle(&mut random);
        in_batches(&texts, &mut random);
    }
    assert!(
        Parser::new(Rules::default())
            .parse_batch(Vec::new())
            .is_empty()
    );
}

#[test]
fn a_parser_remembers_keys_without_mixing_them_up() {
    let mut parser = Parser::new(Rules::default());
    // More keys than a parser remembers.
    for round in 0..2 {
        for i in 0..10_000u32 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&i.to_le_bytes());
            if round == 1 && i % 10 != 0 {
                continue;
            }
            let key = SigningKey::from_seed(seed);
            let text = Draft::create(json::Value::Null)
                .output(1, &key)
                .signed_text(&[&key]);
            let read = parser.parse(Bytes::from(text.unwrap())).unwrap();
            assert_eq!(read.outputs()[0].public_keys[..], [key.public_key()]);
            assert_eq!(read.outputs()[0].condition, Details::from(&key).condition());
        }
    }
}

#[test]
fn signing_again_after_a_change_gives_a_sound_transaction() {
    let mut sale = common::sale();
    sale["metadata"] = json!({"price": 5});
    resign(&mut sale, &[&common::key("alice")]);
    let mut parser = Parser::new(Rules::default());
    let read = both(&mut parser, sale.to_string().as_bytes()).unwrap();
    assert!(common::verify(read).is_ok());
    rehash(&mut sale);
    assert!(both(&mut parser, sale.to_string().as_bytes()).is_some());
}
