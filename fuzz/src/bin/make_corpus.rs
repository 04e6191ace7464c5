//! Writes the committed corpora: a few inputs of every shape, made with made-up keys.

use std::{fs, path::Path};

use daybook_bus::{Begun, Done, Moment, Note, Secret};
use daybook_ledger::{
    Draft, OutputRef, SigningKey, TransactionId, Version,
    canonical::canon,
    condition::Details,
    json::{Object, Value},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [alice, bob, carol] = [1, 2, 3].map(|seed| SigningKey::from_seed([seed; 32]));
    let keys = [&alice, &bob, &carol];
    let public = keys.map(SigningKey::public_key);
    let spent = OutputRef {
        transaction: TransactionId([9; 32]),
        index: 1,
    };
    let asset = spent.transaction.as_asset();
    let vault = Details::threshold_of_keys(2, &public);
    let nested = Details::threshold_of(1, [(&alice).into(), vault.clone()]);

    let data = r#"{"list":[1,-2,1.5,1e-05,"é\n\u001F",null,true,{}],"language":"en"}"#;
    let rich = Value::parse(data.as_bytes(), 10)?;
    let note = Object::from_iter([("note", "a")]);
    let transactions = [
        Draft::create(rich).metadata(note).output(7, &alice),
        Draft::create("cid")
            .output(1, vault.clone())
            .issued_by(nested.clone()),
        Draft::create(Value::Null)
            .version(Version::V3)
            .output(1, &bob),
        Draft::create("cid")
            .version(Version::V3)
            .output(1, &bob)
            .metadata("cid"),
        Draft::transfer(asset).spend(spent, &alice).output(1, &bob),
        Draft::transfer(asset)
            .spend(spent, vault.clone())
            .spend(spent, &bob)
            .output(1, nested.clone()),
        Draft::compose("cid", [asset, asset])
            .spend(spent, &alice)
            .output(1, &alice),
        Draft::decompose(asset, ["a".to_owned()])
            .spend(spent, &alice)
            .output(1, &alice),
    ];
    let mut batch = String::new();
    for (i, draft) in transactions.iter().enumerate() {
        let signers = if i == 0 { &keys[..1] } else { &keys[..] };
        let text = draft.signed_text(signers)?;
        save("transaction", i, text.as_bytes())?;
        batch.push_str(&text);
        batch.push('\n');
        // Batches of one, of a few, and of more than there are lanes.
        if i.is_power_of_two() {
            save("batch", i.ilog2() as usize, batch.as_bytes())?;
        }
    }
    save("batch", 3, batch.repeat(2).as_bytes())?;

    for (i, details) in [Details::from(&alice), vault, nested].iter().enumerate() {
        let text = details
            .fulfill(&keys, &[5; 32])
            .ok_or("the keys are all there")?;
        save("condition", 3 * i, text.as_bytes())?;
        save("condition", 3 * i + 1, &base64url(&text))?;
        save(
            "condition",
            3 * i + 2,
            canon(&details.to_value()).as_bytes(),
        )?;
    }

    let texts = [
        data,
        r#"{"b":[{}, []], "a":"\ud83d\ude00\u000b\/", "":-0}"#,
        "[0.1, -0.0, 1E5, 1e16, 123456789012345680000.0, 5e-324, 12345678901234567890]",
        "\"\\\"\\\\\\b\\f\\n\\r\\t\"",
    ];
    for (i, text) in texts.iter().enumerate() {
        save("canonical_json", i, text.as_bytes())?;
    }
    tracker()?;
    bus()?;
    multipart()?;
    consortium()
}

/// Forms as browsers, programs and attackers send them.
fn multipart() -> Result<(), Box<dyn std::error::Error>> {
    let bodies = [
        "multipart/form-data; boundary=XyZ\n--XyZ\r\nContent-Disposition: form-data; name=\"file\"; \
         filename=\"Акт 7.PDF\"\r\nContent-Type: application/pdf\r\n\r\n\r\n--Xy\r\n--XyZ--\r\n",
        "multipart/form-data; boundary=\"a b\"\nnobody's\r\n--a b  \r\ncontent-disposition: form-data; \
         filename*=UTF-8''%d0%90.txt; name=b\r\n\r\n\r\n--a b\r\nContent-Disposition: x;name=c\r\n\r\n\
         y\r\n--a b--",
        "multipart/form-data;boundary=-\n---\r\nContent-Disposition:;;name=\"\\\"\\\\\r\n\r\n\r\n-----",
        "multipart/form-data; boundary=XyZ\n--XyZ\r\n\r\nno head\r\n--XyZ--",
        "multipart/form-data; boundary=XyZ\n--XyZ \t\r\nContent-Disposition: form-data; name=cut",
    ];
    for (i, body) in bodies.iter().enumerate() {
        save("multipart", i, body.as_bytes())?;
    }
    Ok(())
}

/// Packets, payloads and notes of a small bus.
fn bus() -> Result<(), Box<dyn std::error::Error>> {
    let packets = [
        "0",
        "0/communication?b64=1,",
        "1/communication,",
        "2/communication,[\"shake_who\"]",
        "2/communication,17[\"api:request\",{\"name\":\"grid.read\",\"data\":[1.0,null]},\"more\"]",
        "2[\"x\\u0041\"]",
        "3/communication,1[{}]",
        "51-/communication,[\"x\",{\"_placeholder\":true,\"num\":0}]",
    ];
    for (i, packet) in packets.iter().enumerate() {
        save("bus_packet", i, packet.as_bytes())?;
    }
    let id = format!("a.1767225600000.{}", "0".repeat(32));
    let payloads = [
        "null".to_owned(),
        "{\"name\":\"meter\",\"key\":\"k\",\"features\":[\"subscribe\"],\"max_in_flight\":8,\
          \"resume\":{\"id\":\"x\",\"token\":\"t\"}}"
            .to_owned(),
        format!("{{\"id\":\"{id}\"}}"),
        format!(
            "{{\"name\":\"grid.read\",\"request_id\":\"r\",\"sender_id\":\"{id}\",\"delivery\":\"one\",\
             \"reply\":\"all\",\"timeout_ms\":200,\"retry\":true,\"sticky\":\"k\",\"priority\":9,\
             \"trace\":{{}},\"data\":{{\"kw\":41.50}}}}"
        ),
        format!(
            "{{\"name\":\"grid.read\",\"request_id\":\"r\",\"sender_id\":\"{id}\",\"recipient_id\":\"{id}\",\
             \"error\":{{\"message\":\"no\",\"code\":\"no\",\"list\":[\"x\"]}}}}"
        ),
        "{\"name\":\"grid.>\",\"queue\":\"w\",\"max_in_flight\":2,\"durable\":true,\"ack_wait_ms\":9,\
          \"max_deliver\":3,\"forget\":false}"
            .to_owned(),
        "{\"delivery_id\":\"1-2-3\",\"delay_ms\":5,\"error\":\"no \\u0072oom\"}".to_owned(),
        "{\"name\":1,\"name\":[[[]]]}".to_owned(),
    ];
    for (i, payload) in payloads.iter().enumerate() {
        save("bus_fields", i, payload.as_bytes())?;
    }
    let (request_id, name): (std::sync::Arc<str>, std::sync::Arc<str>) = ("r".into(), "n".into());
    let begun = |how| Note::Begun {
        no: 1,
        request_id: request_id.clone(),
        name: name.clone(),
        how,
    };
    let notes = [
        Note::Instance {
            no: 1,
            id: "a.1.2".into(),
            name: "a".into(),
            token: Secret("t".to_owned()),
            key_id: "k".to_owned(),
        },
        begun(Begun::Once),
        Note::Done {
            no: 1,
            at: Moment(1_767_225_600_000_000),
            request_id: request_id.clone(),
            done: Done {
                name: name.clone(),
                quiet: false,
                answer: Some("2/communication,[\"api:response\",{}]".into()),
            },
        },
        begun(Begun::Storing),
        Note::Dropped {
            no: 1,
            request_id: request_id.clone(),
        },
        Note::Away {
            no: 1,
            at: Moment(1_767_225_600_000_000),
        },
        Note::Gone { no: 1 },
    ];
    let mut all = Vec::new();
    for (i, note) in notes.iter().enumerate() {
        let mut bytes = Vec::new();
        note.write(&mut bytes);
        all.push(u8::try_from(bytes.len())?);
        all.extend(bytes);
        save("bus_note", i, &all)?;
    }
    Ok(())
}

/// Entries, requests, a snapshot and a ledger's export of a small consortium.
fn consortium() -> Result<(), Box<dyn std::error::Error>> {
    let stage = daybook_fuzz::consortium::Stage::new();
    for (i, entry) in stage.entries.iter().enumerate() {
        save("consortium_entry", i, entry.text())?;
        if let Some(request) = entry.request() {
            save("consortium_request", i, &request.text)?;
        }
    }
    save("consortium_book", 0, &stage.book.encode())?;
    save(
        "consortium_book",
        1,
        &daybook_ledger::consortium::Book::default().encode(),
    )?;
    save("consortium_export", 0, stage.export.as_bytes())?;
    for (i, document) in stage.documents.iter().enumerate() {
        save("consortium_document", i, document.as_bytes())?;
    }
    Ok(())
}

/// Entries, messages and a snapshot of a small tracker's life.
fn tracker() -> Result<(), Box<dyn std::error::Error>> {
    let stage = daybook_fuzz::Stage::new();
    for (i, entry) in stage.entries.iter().enumerate() {
        save("tracker_entry", i, entry.text())?;
    }
    save("tracker_book", 0, &stage.book.encode())?;
    save(
        "tracker_book",
        1,
        &daybook_ledger::tracker::Book::default().encode(),
    )?;
    for (i, (code, message)) in stage.messages.iter().enumerate() {
        let text = format!("{}{message}", char::from(daybook_fuzz::letter(*code)));
        save("tracker_message", i, text.as_bytes())?;
    }
    Ok(())
}

fn save(target: &str, number: usize, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{number:02}")), bytes)
}

/// The bytes of unpadded base64url text that we wrote ourselves.
fn base64url(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for c in text.bytes() {
        let value = ALPHABET.iter().position(|one| *one == c).unwrap_or(0);
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    bytes
}
