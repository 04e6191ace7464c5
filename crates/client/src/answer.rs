//! How the bulk doors and the status resource write their answers.

use daybook_ledger::{Height, Position, TransactionId};
use daybook_wire::assets::ResultLine;
use serde::Deserialize;

use crate::{Answer, Error, Receipt, Status, client::refusal};

/// An answer to one line of a batch or one frame of the submitting socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Which submission it answers: counted from 0 in the order of sending.
    pub number: u64,
    /// The answer.
    pub answer: Answer,
}

/// Reads one answer line.
pub(crate) fn numbered(text: &[u8]) -> Result<Numbered, Error> {
    let raw: ResultLine =
        serde_json::from_slice(text).map_err(|e| Error::Protocol(format!("bulk answer: {e}")))?;
    let missing = |what: &str| Error::Protocol(format!("bulk answer without {what}"));
    let number = raw
        .line
        .or_else(|| raw.tag.as_ref()?.as_u64())
        .ok_or_else(|| missing("number"))?;
    let id = raw
        .id
        .as_deref()
        .map(str::parse::<TransactionId>)
        .transpose();
    let id = id.map_err(Error::protocol)?;
    let message = raw.message.unwrap_or_default();
    let answer = match raw.status.as_str() {
        "accepted" => Answer::Accepted {
            id: id.ok_or_else(|| missing("id"))?,
        },
        "committed" => Answer::Committed(Receipt {
            id: id.ok_or_else(|| missing("id"))?,
            position: position(raw.height, raw.index)?,
            repeated: raw.repeated,
        }),
        "rejected" => Answer::Refused {
            id,
            refusal: refusal(400, raw.class, message),
        },
        "busy" => Answer::Busy { message },
        "stopped" => Answer::Stopped,
        other => {
            return Err(Error::Protocol(format!(
                "bulk answer with status `{other}`"
            )));
        }
    };
    Ok(Numbered { number, answer })
}

/// Reads the status resource.
pub(crate) fn status(text: &[u8]) -> Result<Status, Error> {
    #[derive(Deserialize)]
    struct Raw {
        status: String,
        height: Option<u64>,
        index: Option<u32>,
        class: Option<String>,
        message: Option<String>,
    }
    let raw: Raw =
        serde_json::from_slice(text).map_err(|e| Error::Protocol(format!("status: {e}")))?;
    match raw.status.as_str() {
        "pending" => Ok(Status::Pending),
        "committed" => Ok(Status::Committed(position(raw.height, raw.index)?)),
        "rejected" => Ok(Status::Rejected {
            height: raw.height.map(Height),
            refusal: refusal(400, raw.class, raw.message.unwrap_or_default()),
        }),
        other => Err(Error::Protocol(format!("status `{other}`"))),
    }
}

fn position(height: Option<u64>, index: Option<u32>) -> Result<Position, Error> {
    match (height, index) {
        (Some(height), Some(index)) => Ok(Position {
            height: Height(height),
            index,
        }),
        _ => Err(Error::protocol(
            "a committed transaction without height and index",
        )),
    }
}
