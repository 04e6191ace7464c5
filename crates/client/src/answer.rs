//! How the bulk doors and the status resource write their answers.

use daybook_ledger::{Height, Position};
use serde::Deserialize;

use crate::{Answer, Error, Receipt, Status, client::refusal, http::class_of, model::Id};

/// An answer to one line of a batch or one frame of the submitting socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Which submission it answers: counted from 0 in the order of sending.
    pub number: u64,
    /// The answer.
    pub answer: Answer,
}

#[derive(Deserialize)]
struct RawAnswer {
    #[serde(alias = "line", alias = "tag")]
    number: Option<u64>,
    #[serde(alias = "transaction_id")]
    id: Option<Id>,
    status: Option<serde_json::Value>,
    height: Option<u64>,
    index: Option<u32>,
    #[serde(default)]
    repeated: bool,
    class: Option<String>,
    message: Option<String>,
}

/// Reads one answer line.
pub(crate) fn numbered(text: &[u8]) -> Result<Numbered, Error> {
    let raw: RawAnswer =
        serde_json::from_slice(text).map_err(|e| Error::Protocol(format!("bulk answer: {e}")))?;
    let missing = |what: &str| Error::Protocol(format!("bulk answer without {what}"));
    let number = raw.number.ok_or_else(|| missing("a number"))?;
    let id = raw.id.map(|id| id.0);
    let message = raw.message.unwrap_or_default();
    let status = raw
        .status
        .as_ref()
        .and_then(|status| status.as_str())
        .unwrap_or_default();
    let answer = match status {
        "accepted" => Answer::Accepted {
            id: id.ok_or_else(|| missing("id"))?,
        },
        "committed" => Answer::Committed(Receipt {
            id: id.ok_or_else(|| missing("id"))?,
            position: Position {
                height: Height(raw.height.ok_or_else(|| missing("height"))?),
                index: raw.index.ok_or_else(|| missing("index"))?,
            },
            repeated: raw.repeated,
        }),
        "rejected" => Answer::Refused {
            id,
            refusal: refusal(400, raw.class, message),
        },
        "busy" | "stopped" => Answer::Busy { message },
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
    let raw: RawAnswer =
        serde_json::from_slice(text).map_err(|e| Error::Protocol(format!("status: {e}")))?;
    let missing = |what: &str| Error::Protocol(format!("status without {what}"));
    let status = raw
        .status
        .as_ref()
        .and_then(|status| status.as_str())
        .unwrap_or_default();
    match status {
        "unknown" => Ok(Status::Unknown),
        "pending" | "accepted" => Ok(Status::Pending),
        "committed" => Ok(Status::Committed(Position {
            height: Height(raw.height.ok_or_else(|| missing("height"))?),
            index: raw.index.ok_or_else(|| missing("index"))?,
        })),
        "rejected" => {
            let message = raw.message.unwrap_or_default();
            let class = raw.class.or_else(|| class_of(&message));
            Ok(Status::Rejected {
                height: raw.height.map(Height),
                refusal: refusal(400, class, message),
            })
        }
        other => Err(Error::Protocol(format!("status `{other}`"))),
    }
}
