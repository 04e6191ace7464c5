//! Makes signed transactions: CREATEs of one output each, then a TRANSFER of every one of them.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Outcome,
    verify::{condition_uri, digest},
};

/// Keys that sign and receive; real owners are few compared with their transactions.
const KEYS: usize = 200;

/// The schema wants at least this many characters (4.1); one key in a thousand has fewer.
const PUBLIC_KEY_CHARACTERS_MIN: usize = 43;

struct Owner {
    signing: SigningKey,
    text: String,
}

pub(crate) fn write(count: usize, file: &Path) -> Outcome<()> {
    let owners: Vec<Owner> = (0_u32..)
        .map(|number| {
            let seed = Sha256::digest(format!("baseline/owner/{number}"));
            let signing = SigningKey::from_bytes(&seed.into());
            let text = bs58::encode(signing.verifying_key().as_bytes()).into_string();
            Owner { signing, text }
        })
        .filter(|owner| owner.text.len() >= PUBLIC_KEY_CHARACTERS_MIN)
        .take(KEYS)
        .collect();

    let mut out = BufWriter::new(File::create(file)?);
    let mut created = Vec::with_capacity(count);
    for number in 0..count {
        let owner = &owners[number % KEYS];
        let draft = draft(
            "CREATE",
            json!({"data": {"kind": "widget", "serial": format!("SN-{number:08}")}}),
            json!({"batch": format!("2024-{number:05}")}),
            Value::Null,
            owner,
            owner,
        );
        let (id, text) = sign(draft, owner, "")?;
        out.write_all(&text)?;
        out.write_all(b"\n")?;
        created.push(id);
    }
    for (number, id) in created.iter().enumerate() {
        let (from, to) = (&owners[number % KEYS], &owners[(number * 7 + 3) % KEYS]);
        let draft = draft(
            "TRANSFER",
            json!({"id": id}),
            json!({"memo": format!("part {number}")}),
            json!({"transaction_id": id, "output_index": 0}),
            from,
            to,
        );
        let (_, text) = sign(draft, from, &format!("{id}0"))?;
        out.write_all(&text)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

fn draft(
    operation: &str,
    asset: Value,
    metadata: Value,
    fulfills: Value,
    from: &Owner,
    to: &Owner,
) -> Value {
    json!({
        "version": "2.0",
        "operation": operation,
        "asset": asset,
        "metadata": metadata,
        "inputs": [{
            "fulfillment": null,
            "fulfills": fulfills,
            "owners_before": [from.text],
        }],
        "outputs": [{
            "amount": "1000",
            "condition": {
                "details": {"type": "ed25519-sha-256", "public_key": to.text},
                "uri": condition_uri(to.signing.verifying_key().as_bytes()),
            },
            "public_keys": [to.text],
        }],
        "id": null,
    })
}

/// The id and the canonical text of the signed transaction; serde_json's maps are sorted, and
/// nothing in these texts is written differently by the canonical rules.
fn sign(mut draft: Value, owner: &Owner, link: &str) -> Outcome<(String, Vec<u8>)> {
    let mut message = serde_json::to_vec(&draft)?;
    message.extend_from_slice(link.as_bytes());
    let signature = owner.signing.sign(&digest(&message)).to_bytes();
    let key = owner.signing.verifying_key().to_bytes();
    let fulfillment = [
        &[0xa4, 0x64, 0x80, 0x20][..],
        &key,
        &[0x81, 0x40],
        &signature,
    ]
    .concat();
    draft["inputs"][0]["fulfillment"] = Value::from(URL_SAFE_NO_PAD.encode(fulfillment));
    let id: String = digest(&serde_json::to_vec(&draft)?)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    draft["id"] = Value::from(id.clone());
    Ok((id, serde_json::to_vec(&draft)?))
}
