//! The bulk doors: lines of a batch and messages of a submitting socket.

use bytes::Bytes;
use daybook_ledger::{Position, Rejection, TransactionId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    answer::{append_id, append_number, append_text},
    query::{Query, Refusal},
};

/// Bytes of a tag's JSON text: room for a UUID or a counter, not for a payload that the node would
/// have to keep for every submission under way.
pub const TAG_BYTES_MAX: usize = 128;

/// When a submission is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// As soon as it is sound and waits for its block.
    Accepted,
    /// When its block is on disk.
    #[default]
    Durable,
}

/// Reads `ack` of a batch or a submitting socket; `durable` when there is none.
///
/// # Errors
/// [`Refusal`] for any other text than the two levels.
pub fn level(query: &Query<'_>) -> Result<Level, Refusal> {
    match query.first("ack") {
        None => Ok(Level::default()),
        Some(text) => Level::from_name(text).ok_or(Refusal::parameter(
            "ack",
            "Ack must be \"accepted\" or \"durable\"",
        )),
    }
}

impl Level {
    fn from_name(name: &str) -> Option<Level> {
        match name {
            "accepted" => Some(Level::Accepted),
            "durable" => Some(Level::Durable),
            _ => None,
        }
    }
}

/// One message of a submitting socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketMessage {
    /// The transaction's text, as sent: a copy, because a part of the message would keep all of the buffer
    /// that it was read into for as long as the transaction is in memory.
    pub transaction: Bytes,
    /// The acknowledgement asked for, if the message says.
    pub level: Option<Level>,
    /// What the reply shall carry, as JSON text: a string or a number.
    pub tag: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'t> {
    #[serde(borrow)]
    transaction: &'t RawValue,
    #[serde(borrow, default)]
    tag: Option<&'t RawValue>,
    #[serde(borrow, default)]
    ack: Option<&'t RawValue>,
}

/// Reads one message: a transaction, or `{"ack": …, "tag": …, "transaction": {…}}` with `ack` and `tag`
/// optional. The first member tells which: no transaction has a member of these names.
///
/// # Errors
/// What is wrong with the envelope, for people. The transaction inside is not looked at.
pub fn socket_message(text: &[u8]) -> Result<SocketMessage, String> {
    if !is_envelope(text) {
        return Ok(SocketMessage {
            transaction: Bytes::copy_from_slice(text),
            level: None,
            tag: None,
        });
    }
    let envelope: Envelope<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let level = match envelope.ack {
        None => None,
        Some(ack) => Some(
            serde_json::from_str::<&str>(ack.get())
                .ok()
                .and_then(Level::from_name)
                .ok_or("`ack` must be \"accepted\" or \"durable\"")?,
        ),
    };
    let tag = match envelope.tag.map(RawValue::get) {
        None => None,
        Some(tag) if tag.len() > TAG_BYTES_MAX => {
            return Err(format!("`tag` is longer than {TAG_BYTES_MAX} bytes"));
        }
        Some(tag)
            if tag.starts_with(|first: char| {
                first == '"' || first == '-' || first.is_ascii_digit()
            }) =>
        {
            Some(tag.into())
        }
        Some(_) => return Err("`tag` must be a string or a number".to_owned()),
    };
    let transaction = Bytes::copy_from_slice(envelope.transaction.get().as_bytes());
    Ok(SocketMessage {
        transaction,
        level,
        tag,
    })
}

fn is_envelope(text: &[u8]) -> bool {
    let Some(members) = text.trim_ascii_start().strip_prefix(b"{") else {
        return false;
    };
    let members = members.trim_ascii_start();
    [&b"\"ack\""[..], b"\"tag\"", b"\"transaction\""]
        .iter()
        .any(|name| members.starts_with(name))
}

/// What ties a result to its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// The line of a batch, from 0.
    Line(u64),
    /// The number of an untagged message on its socket, from 0.
    Number(u64),
    /// The tag that the client gave, as JSON text.
    Tag(&'a str),
}

impl Label<'_> {
    fn open(self, out: &mut Vec<u8>) {
        match self {
            Label::Line(line) => {
                out.extend_from_slice(b"{\"line\":");
                append_number(out, line);
            }
            Label::Number(number) => {
                out.extend_from_slice(b"{\"tag\":");
                append_number(out, number);
            }
            Label::Tag(tag) => {
                out.extend_from_slice(b"{\"tag\":");
                out.extend_from_slice(tag.as_bytes());
            }
        }
    }
}

/// Appends the result of a submission that waits for its block. No line end follows.
pub fn accepted_line(out: &mut Vec<u8>, label: Label<'_>, id: &TransactionId) {
    label.open(out);
    out.extend_from_slice(b",\"id\":");
    append_id(out, id);
    out.extend_from_slice(b",\"status\":\"accepted\"}");
}

/// Appends the result of a submission whose block is on disk.
pub fn committed_line(
    out: &mut Vec<u8>,
    label: Label<'_>,
    id: &TransactionId,
    position: Position,
    repeated: bool,
) {
    label.open(out);
    out.extend_from_slice(b",\"id\":");
    append_id(out, id);
    out.extend_from_slice(b",\"status\":\"committed\",\"height\":");
    append_number(out, position.height.0);
    out.extend_from_slice(b",\"index\":");
    append_number(out, position.index.into());
    out.extend_from_slice(if repeated {
        b",\"repeated\":true}"
    } else {
        b"}"
    });
}

/// Appends the result of a submission that changed nothing.
pub fn rejected_line(
    out: &mut Vec<u8>,
    label: Label<'_>,
    id: Option<&TransactionId>,
    rejection: &Rejection,
) {
    label.open(out);
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        append_id(out, id);
    }
    out.extend_from_slice(b",\"status\":\"rejected\",\"class\":\"");
    out.extend_from_slice(rejection.class.name().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    append_text(out, &rejection.message());
    out.push(b'}');
}

/// Appends the result of a submission that the node could not take or decide now: it may be sent again.
pub fn busy_line(out: &mut Vec<u8>, label: Label<'_>) {
    label.open(out);
    out.extend_from_slice(b",\"status\":\"busy\",\"message\":\"The node is busy: try again\"}");
}

/// Appends the result of a submission that a stopping node did not take, or whose fate it does not
/// know: to be asked for, or sent again, when it is back.
pub fn stopped_line(out: &mut Vec<u8>, label: Label<'_>) {
    label.open(out);
    out.extend_from_slice(b",\"status\":\"stopped\",\"message\":\"The node is stopping\"}");
}

/// A result as clients read it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResultLine {
    /// The line of the batch it belongs to, from 0.
    #[serde(default)]
    pub line: Option<u64>,
    /// The tag of the message it belongs to, or the message's number on the socket.
    #[serde(default)]
    pub tag: Option<serde_json::Value>,
    /// The transaction, where the text went far enough to tell.
    #[serde(default)]
    pub id: Option<String>,
    /// `accepted`, `committed`, `rejected`, `busy` or `stopped`.
    pub status: String,
    /// The block it is in.
    #[serde(default)]
    pub height: Option<u64>,
    /// Its place in that block.
    #[serde(default)]
    pub index: Option<u32>,
    /// An earlier submission of the same transaction committed it.
    #[serde(default)]
    pub repeated: bool,
    /// The class of the refusal.
    #[serde(default)]
    pub class: Option<String>,
    /// The refusal in words.
    #[serde(default)]
    pub message: Option<String>,
}
