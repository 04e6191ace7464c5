//! Reading the node's answers.

use bytes::Bytes;
use daybook_ledger::{
    BlockTime, Height, Position,
    block::{Genesis, Validator},
    consortium::{Admission, Code, Documents, Entry, Refusal, Settings},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{LedgerEntry, LedgerPage, Network, Outcome, Page};
use crate::{Error, http::json};

#[derive(Deserialize)]
struct RawOutcome {
    position: String,
    repeated: bool,
    entry: Box<RawValue>,
}

#[derive(Deserialize)]
struct RawPage {
    entries: Vec<RawPlaced>,
    next: String,
    is_last: bool,
}

#[derive(Deserialize)]
struct RawPlaced {
    position: String,
    entry: Box<RawValue>,
}

#[derive(Deserialize)]
struct RawLedgerPage {
    size: u64,
    entries: Vec<RawLedgerEntry>,
    next: Option<u64>,
}

#[derive(Deserialize)]
struct RawLedgerEntry {
    seq_no: u64,
    txn: Box<RawValue>,
    time: u64,
    committed_by: String,
}

#[derive(Deserialize)]
struct RawRefusal {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct RawNetwork {
    network: String,
    genesis: RawGenesis,
    settings: Option<RawSettings>,
    height: u64,
    block_time: u64,
    now: u64,
}

#[derive(Deserialize)]
struct RawGenesis {
    chain: String,
    time: u64,
    validators: Vec<RawValidator>,
}

#[derive(Deserialize)]
struct RawValidator {
    public_key: String,
    power: u64,
}

#[derive(Deserialize)]
struct RawSettings {
    admission: String,
    deadline_ms_max: u64,
    documents: String,
}

/// Reads the answer to a request that was taken.
pub(super) fn outcome(body: &Bytes) -> Result<Outcome, Error> {
    let raw: RawOutcome = json(body)?;
    Ok(Outcome {
        position: position(&raw.position)?,
        entry: entry(&raw.entry)?,
        repeated: raw.repeated,
    })
}

/// The refusal in the answer to a request that was not taken; `None` when it is not the book's.
pub(super) fn refusal(body: &Bytes) -> Option<Refusal> {
    let raw: RawRefusal = serde_json::from_slice(body).ok()?;
    Some(Refusal::new(Code::from_name(&raw.code)?, raw.message))
}

pub(super) fn page(body: &Bytes) -> Result<Page, Error> {
    let raw: RawPage = json(body)?;
    let mut entries = Vec::with_capacity(raw.entries.len());
    for placed in raw.entries {
        entries.push((position(&placed.position)?, entry(&placed.entry)?));
    }
    let page = Page {
        entries,
        next: position(&raw.next)?,
        is_last: raw.is_last,
    };
    let ordered = page.entries.is_sorted_by(|a, b| a.0 < b.0);
    let last = page.entries.last();
    if !ordered || last.is_some_and(|last| last.0 >= page.next) {
        return Err(Error::protocol("entries out of order"));
    }
    Ok(page)
}

pub(super) fn ledger_page(body: &Bytes) -> Result<LedgerPage, Error> {
    let raw: RawLedgerPage = json(body)?;
    let entries = raw.entries.into_iter().map(|entry| {
        Ok(LedgerEntry {
            sequence: entry.seq_no,
            text: entry.txn.get().to_owned(),
            time: BlockTime(entry.time),
            committed_by: entry
                .committed_by
                .parse()
                .map_err(|_| Error::protocol("an entry without an id"))?,
        })
    });
    Ok(LedgerPage {
        size: raw.size,
        entries: entries.collect::<Result<_, Error>>()?,
        next: raw.next,
    })
}

pub(super) fn network(body: &Bytes) -> Result<Network, Error> {
    let raw: RawNetwork = json(body)?;
    let validators = raw.genesis.validators.into_iter().map(|validator| {
        let key = validator.public_key.parse();
        Ok(Validator {
            key: key.map_err(|_| Error::protocol("a validator without a key"))?,
            power: validator.power,
        })
    });
    let genesis = Genesis {
        chain: raw.genesis.chain,
        time: BlockTime(raw.genesis.time),
        validators: validators.collect::<Result<_, Error>>()?,
    };
    let network = genesis.hash();
    if network.to_string() != raw.network {
        return Err(Error::protocol("a network that is not its genesis's hash"));
    }
    let settings = raw.settings.map(|settings| {
        let admission = match &*settings.admission {
            "validators" => Admission::Validators,
            "members" => Admission::Members,
            _ => return Err(Error::protocol("an unknown way of admission")),
        };
        let documents = Documents::from_name(&settings.documents);
        Ok(Settings {
            admission,
            deadline_ms_max: settings.deadline_ms_max,
            documents: documents.ok_or_else(|| Error::protocol("an unknown kind of documents"))?,
        })
    });
    Ok(Network {
        network,
        genesis,
        settings: settings.transpose()?,
        height: Height(raw.height),
        block_time: BlockTime(raw.block_time),
        now: BlockTime(raw.now),
    })
}

/// Reads an entry; its id and the place of each effect follow from its text.
fn entry(raw: &RawValue) -> Result<Entry, Error> {
    let text = Bytes::copy_from_slice(raw.get().as_bytes());
    Entry::read(text).map_err(Error::protocol)
}

fn position(text: &str) -> Result<Position, Error> {
    let read = || {
        let (height, index) = text.split_once('.')?;
        Some(Position {
            height: Height(height.parse().ok()?),
            index: index.parse().ok()?,
        })
    };
    read().ok_or_else(|| Error::protocol("a place that is not `height.index`"))
}

/// The code and the sentence of an answer that refuses, whoever's the code is.
pub(super) fn coded(body: &Bytes) -> Option<(String, String)> {
    let raw: RawRefusal = serde_json::from_slice(body).ok()?;
    Some((raw.code, raw.message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXPIRY: &str = r#"{"at":7,"book":"consortium","effects":[],"kind":"expiry"}"#;

    #[test]
    fn an_outcome_carries_the_entry_to_the_byte() {
        let body = format!(r#"{{"position":"3.1","repeated":true,"entry":{EXPIRY}}}"#);
        let outcome = outcome(&body.into()).unwrap();
        assert_eq!(outcome.entry.text(), EXPIRY);
        assert_eq!(outcome.entry.at(), BlockTime(7));
        assert_eq!(outcome.position.to_string(), "3.1");
        assert!(outcome.repeated);
    }

    #[test]
    fn a_page_out_of_order_is_refused() {
        let page_of = |first: &str, second: &str, next: &str| {
            let body = format!(
                r#"{{"entries":[{{"position":"{first}","entry":{EXPIRY}}},{{"position":"{second}","entry":{EXPIRY}}}],"next":"{next}","is_last":false}}"#
            );
            page(&body.into())
        };
        assert!(page_of("1.0", "1.1", "1.2").is_ok());
        assert!(page_of("1.1", "1.0", "1.2").is_err());
        assert!(page_of("1.0", "1.0", "1.2").is_err());
        assert!(page_of("1.0", "1.1", "1.1").is_err());
    }

    #[test]
    fn a_refusal_of_the_book_is_told_from_others() {
        let book = r#"{"message":"the deadline has passed","status":409,"code":"expired"}"#;
        assert_eq!(
            refusal(&Bytes::from(book)),
            Some(Refusal::new(Code::Expired, "the deadline has passed"))
        );
        for other in [
            r#"{"message":"busy","status":503}"#,
            r#"{"message":"x","code":"of tomorrow"}"#,
            "<html>",
        ] {
            assert_eq!(refusal(&Bytes::from(other)), None, "{other}");
        }
    }
}
