//! `daybook tx`.

use std::{
    io::{self, BufRead, Read},
    path::Path,
};

use daybook_client::{Acknowledge, Answer, Client, Fate, Receipt, Submission, reader};
use daybook_ledger::{
    AssetId, Draft, DraftError, Limits, PublicKey, SigningKey, condition::Condition, json::Value,
};
use futures_util::TryStreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cli::{NodeFlags, Payment, Sending, Tx},
    failure::{Exit, Failure},
    out::Out,
    outputs, remote,
};

/// Bytes of a file with data or metadata at most: more than any node takes.
const DATA_BYTES_MAX: u64 = 64 << 20;
/// Lines of a file that are read ahead of the connection.
const LINES_MAX: usize = 1024;

pub(crate) async fn run(args: &Tx, out: Out) -> Result<(), Failure> {
    match args {
        Tx::Create {
            key,
            data,
            amount,
            to,
            sending,
        } => {
            let key = key.read()?;
            let data = data
                .as_deref()
                .map(|text| value("--data", text))
                .transpose()?;
            let mut draft = Draft::create(data.unwrap_or(Value::Null));
            if to.is_empty() {
                draft = draft.output(*amount, &key);
            }
            for payment in to {
                draft = draft.output(payment.units, payment.key);
            }
            finish(draft, &key, sending, out).await
        }
        Tx::Transfer {
            key,
            asset,
            to,
            sending,
        } => {
            let key = key.read()?;
            let draft = transfer(&remote::client(&sending.node)?, &key, asset, to).await?;
            finish(draft, &key, sending, out).await
        }
        Tx::Get { id, node } => {
            let client = remote::client(node)?;
            let Some(text) = client.transaction(id).await? else {
                return Err(match client.status(id).await? {
                    daybook_client::Status::Rejected { refusal, .. } => {
                        Failure::refused(format!("transaction {id} was refused: {refusal}"))
                    }
                    daybook_client::Status::Pending => {
                        Failure::refused(format!("transaction {id} waits for its block"))
                    }
                    _ => Failure::refused(format!("no transaction {id}")),
                });
            };
            let transaction: serde_json::Value = serde_json::from_slice(&text)
                .map_err(|e| Failure::refused(format!("the node sent no JSON: {e}")))?;
            let position = client.position(id).await?.ok_or_else(|| {
                Failure::refused(format!("the node has {id} and does not know its place"))
            })?;
            let pretty = serde_json::to_string_pretty(&transaction).expect("JSON came in");
            out.say(
                &json!({
                    "transaction": transaction,
                    "height": position.height.0,
                    "index": position.index,
                }),
                &format!(
                    "{pretty}\nblock {}, index {}",
                    position.height.0, position.index
                ),
            );
            Ok(())
        }
        Tx::Submit { file, node } => submit(file, node, out).await,
    }
}

/// A transfer of `asset` by `key`: its oldest unspent outputs first, change back to it.
async fn transfer(
    client: &Client,
    key: &SigningKey,
    asset: &AssetId,
    to: &[Payment],
) -> Result<Draft, Failure> {
    let owner = key.public_key();
    let own = Condition::of_key(&owner);
    let wanted: u128 = to.iter().map(|payment| u128::from(payment.units)).sum();
    let mut draft = Draft::transfer(*asset);
    let mut held: u128 = 0;
    let outputs = client.outputs(&owner, Some(false)).await?;
    let mut found = std::pin::pin!(outputs::fetch(client, outputs));
    while held < wanted {
        let Some((output, transaction)) = found.try_next().await? else {
            return Err(Failure::refused(format!(
                "{owner} holds {held} of asset {asset}, {wanted} are wanted"
            )));
        };
        let facts = &transaction.outputs()[output.index as usize];
        // An output that others must sign for as well cannot be spent by this key alone.
        if transaction.asset() == *asset && facts.condition == own {
            draft = draft.spend(output, key);
            held += u128::from(facts.amount.units());
        }
    }
    for payment in to {
        draft = draft.output(payment.units, payment.key);
    }
    Ok(change(draft, held - wanted, &owner))
}

/// Gives what is over back, in as many outputs as the largest amount of one needs.
fn change(mut draft: Draft, mut over: u128, owner: &PublicKey) -> Draft {
    while over > 0 {
        let units = over.min(u128::from(daybook_ledger::AMOUNT_MAX));
        draft = draft.output(
            u64::try_from(units).expect("within the largest amount"),
            owner,
        );
        over -= units;
    }
    draft
}

async fn finish(
    draft: Draft,
    key: &SigningKey,
    sending: &Sending,
    out: Out,
) -> Result<(), Failure> {
    let draft = match sending.metadata.as_deref() {
        Some(text) => draft.metadata(value("--metadata", text)?),
        None => draft,
    };
    let transaction = draft
        .sign_with(&mut reader(), &[key])
        .map_err(|error| match error {
            DraftError::Refused(rejection) => Failure::refused(rejection.to_string()),
            other => Failure::refused(other.to_string()),
        })?;
    if sending.dry_run {
        out.line(&String::from_utf8_lossy(transaction.canonical()));
        return Ok(());
    }
    let client = remote::client(&sending.node)?;
    let receipt = commit(&client, &Submission::from(&transaction)).await?;
    say(&receipt, &transaction.asset(), out);
    Ok(())
}

/// Commits, staying with it through a restart of the node, but not where there is none at all.
async fn commit(client: &Client, submission: &Submission) -> Result<Receipt, Failure> {
    client.info().await?;
    match client.commit(submission).await {
        Fate::Committed(receipt) => Ok(receipt),
        Fate::Refused(refusal) => Err(Failure::refused(format!("refused: {refusal}"))),
        Fate::Unknown(error) => Err(error.into()),
    }
}

fn say(receipt: &Receipt, asset: &AssetId, out: Out) {
    let (id, position) = (receipt.id, receipt.position);
    out.say(
        &json!({
            "event": "committed",
            "id": id.to_string(),
            "asset_id": asset.to_string(),
            "height": position.height.0,
            "index": position.index,
            "repeated": receipt.repeated,
        }),
        &format!(
            "transaction  {id}\nasset        {asset}\nblock        {}, index {}{}",
            position.height.0,
            position.index,
            before(receipt)
        ),
    );
}

/// Reads JSON from the command line, or from a file behind an `@`.
pub(crate) fn value(flag: &str, text: &str) -> Result<Value, Failure> {
    let bytes = match text.strip_prefix('@') {
        None => text.as_bytes().to_vec(),
        Some(path) => {
            let about = std::fs::metadata(path).map_err(|e| Failure::system(path, &e))?;
            if about.len() > DATA_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "{path} is larger than any transaction"
                )));
            }
            std::fs::read(path).map_err(|e| Failure::system(path, &e))?
        }
    };
    Value::parse(&bytes, Limits::default().json_depth_max)
        .map_err(|e| Failure::usage(format!("{flag}: {e}")))
}

/// Submits a file: one transaction in JSON of any layout, or one per line through the batch door.
async fn submit(file: &Path, node: &NodeFlags, out: Out) -> Result<(), Failure> {
    let client = remote::client(node)?;
    let name = file.display().to_string();
    let open = || -> io::Result<Box<dyn BufRead + Send>> {
        if file == Path::new("-") {
            return Ok(Box::new(io::BufReader::new(io::stdin())));
        }
        Ok(Box::new(io::BufReader::new(std::fs::File::open(file)?)))
    };
    let mut input = open().map_err(|e| Failure::system(&name, &e))?;
    // One transaction may be laid out over many lines; many stand on one line each. The first line
    // tells: by itself it is JSON, or it is not.
    let mut first = Vec::new();
    read_line(&mut input, &mut first).map_err(|e| Failure::system(&name, &e))?;
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(&first).is_ok();
    if !whole {
        input
            .take(DATA_BYTES_MAX)
            .read_to_end(&mut first)
            .map_err(|e| Failure::system(&name, &e))?;
        let submission = Submission::from_text(first);
        let receipt = commit(&client, &submission).await?;
        say_receipt(None, &receipt, out);
        return Ok(());
    }
    let (lines, mut waiting) = mpsc::channel::<Vec<u8>>(LINES_MAX);
    let reading = std::thread::spawn(move || -> io::Result<()> {
        let mut line = first;
        loop {
            if !line.trim_ascii().is_empty() && lines.blocking_send(line).is_err() {
                return Ok(());
            }
            line = Vec::new();
            if read_line(&mut input, &mut line)? == 0 {
                return Ok(());
            }
        }
    });
    let (mut sender, mut answers) = client.batch(Acknowledge::Durable).await?;
    let sending = async move {
        while let Some(line) = waiting.recv().await {
            sender.send(line.trim_ascii_end()).await?;
            if waiting.is_empty() {
                sender.flush().await?;
            }
        }
        sender.finish().await
    };
    let answering = async {
        let (mut answered, mut refused, mut lost) = (0_u64, 0_u64, 0_u64);
        while let Some(numbered) = answers.next().await? {
            answered += 1;
            match numbered.answer {
                Answer::Committed(receipt) => say_receipt(Some(numbered.number), &receipt, out),
                Answer::Refused { id, refusal } => {
                    refused += 1;
                    out.say(
                        &json!({
                            "event": "refused",
                            "line": numbered.number,
                            "id": id.map(|id| id.to_string()),
                            "class": refusal.class,
                            "message": refusal.message,
                        }),
                        &format!("line {}: refused: {refusal}", numbered.number),
                    );
                }
                Answer::Accepted { .. } | Answer::Busy { .. } | Answer::Stopped => {
                    lost += 1;
                    out.say(
                        &json!({"event": "not_taken", "line": numbered.number}),
                        &format!("line {}: not taken; send it again", numbered.number),
                    );
                }
            }
        }
        Ok::<_, daybook_client::Error>((answered, refused, lost))
    };
    let (sent, answered) = tokio::join!(sending, answering);
    let (answered, refused, lost) = answered?;
    let sent = sent?;
    match reading.join() {
        Ok(read) => read.map_err(|e| Failure::system(&name, &e))?,
        Err(_) => {
            return Err(Failure::new(
                Exit::System,
                "an internal error while reading",
            ));
        }
    }
    match (sent - answered + lost, refused) {
        (0, 0) => Ok(()),
        (0, refused) => Err(Failure::refused(format!(
            "{refused} of {sent} transactions refused"
        ))),
        (lost, _) => Err(Failure::new(
            Exit::Unknown,
            format!("{lost} of {sent} transactions have no outcome; send them again"),
        )),
    }
}

fn read_line(input: &mut (impl BufRead + ?Sized), line: &mut Vec<u8>) -> io::Result<usize> {
    let read = input.take(DATA_BYTES_MAX).read_until(b'\n', line)?;
    if read as u64 == DATA_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line longer than any transaction",
        ));
    }
    Ok(read)
}

fn say_receipt(line: Option<u64>, receipt: &Receipt, out: Out) {
    let (id, position) = (receipt.id, receipt.position);
    let mut json = json!({
        "event": "committed",
        "id": id.to_string(),
        "height": position.height.0,
        "index": position.index,
        "repeated": receipt.repeated,
    });
    if let Some(line) = line {
        json["line"] = line.into();
    }
    let text = format!(
        "{id}  block {}, index {}",
        position.height.0, position.index
    );
    out.say(&json, &(text + before(receipt)));
}

/// Equal transactions are one transaction: whoever sends one again shall know.
fn before(receipt: &Receipt) -> &'static str {
    if receipt.repeated {
        " (committed before; nothing new happened)"
    } else {
        ""
    }
}
