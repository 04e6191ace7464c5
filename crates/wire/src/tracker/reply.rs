//! Frames to clients: replies, error replies and events (wallet tracker, sections 3.2, 3.3 and 17.4).

use std::io::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::assets::append_text;

/// Bytes of a frame that was not understood which come back in its error reply (section 3.3).
pub const UNPARSED_BYTES_MAX: usize = 4 << 10;

/// What a reply repeats of its request.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'t> {
    /// The command's number.
    pub command: u64,
    /// The client's token.
    pub correlation: &'t str,
}

/// When things happened to a request, in nanoseconds since 1970 (section 3.2, `exData`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The frame is there.
    pub received: u64,
    /// The request is built and its signatures are checked; 0 when it never was.
    pub proven: u64,
    /// The result is there.
    pub handled: u64,
}

/// A message with the tracker's signature, as JSON: the value of `data`. Made once where a reply stays
/// the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedData(Vec<u8>);

impl SignedData {
    /// `message` with `signature` over its UTF-8 bytes.
    pub fn new(message: &str, signature: &[u8]) -> SignedData {
        let mut out = Vec::with_capacity(message.len() * 9 / 8 + signature.len() * 4 / 3 + 64);
        out.extend_from_slice(b"{\"message\":");
        append_text(&mut out, message);
        out.extend_from_slice(b",\"sign\":\"");
        out.extend_from_slice(BASE64_STANDARD.encode(signature).as_bytes());
        out.extend_from_slice(b"\"}");
        SignedData(out)
    }

    /// Its JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes a reply.
pub fn reply(
    out: &mut Vec<u8>,
    envelope: Envelope<'_>,
    data: &SignedData,
    timings: Option<Timings>,
) {
    out.reserve(data.0.len() + envelope.correlation.len() + 160);
    let _ = write!(out, "{{\"cmd\":{},\"corrToken\":", envelope.command);
    append_text(out, envelope.correlation);
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(&data.0);
    append_timings(out, timings);
    out.push(b'}');
}

/// Writes an error reply. `command` and `correlation` are those of the request as far as it was
/// understood; without a token, `frame` comes back in its place, cut to [`UNPARSED_BYTES_MAX`].
pub fn error_reply(
    out: &mut Vec<u8>,
    command: Option<u64>,
    correlation: Option<&str>,
    frame: &str,
    code: &str,
    error: &str,
    timings: Option<Timings>,
) {
    out.push(b'{');
    if let Some(command) = command {
        let _ = write!(out, "\"cmd\":{command},");
    }
    out.extend_from_slice(b"\"corrToken\":");
    append_text(out, correlation.unwrap_or_default());
    out.extend_from_slice(b",\"data\":");
    append_text(out, correlation.unwrap_or_else(|| truncated(frame)));
    out.extend_from_slice(b",\"error\":");
    append_text(out, error);
    out.extend_from_slice(b",\"code\":");
    append_text(out, code);
    append_timings(out, timings);
    out.push(b'}');
}

/// Writes an event for a subscription.
pub fn event(out: &mut Vec<u8>, event: &str, subscription: &str, sequence: u64, data: &SignedData) {
    out.reserve(data.0.len() + subscription.len() + event.len() + 64);
    event_head(out, event, subscription, sequence);
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(&data.0);
    out.push(b'}');
}

/// Writes that a subscription's queue was full: what comes after the record `sequence` was dropped, and
/// nothing more is sent until it is subscribed again from there. It is not signed: it tells no fact.
pub fn lagged_event(out: &mut Vec<u8>, subscription: &str, sequence: u64) {
    event_head(out, "lagged", subscription, sequence);
    out.extend_from_slice(b",\"code\":\"lagged\"}");
}

fn event_head(out: &mut Vec<u8>, event: &str, subscription: &str, sequence: u64) {
    out.extend_from_slice(b"{\"event\":");
    append_text(out, event);
    out.extend_from_slice(b",\"subId\":");
    append_text(out, subscription);
    let _ = write!(out, ",\"seq\":{sequence}");
}

fn append_timings(out: &mut Vec<u8>, timings: Option<Timings>) {
    let Some(timings) = timings else { return };
    let _ = write!(out, ",\"exData\":{{\"beforeCreate\":{}", timings.received);
    if timings.proven != 0 {
        let _ = write!(out, ",\"created\":{}", timings.proven);
    }
    if timings.handled != 0 {
        let _ = write!(out, ",\"handled\":{}", timings.handled);
    }
    out.push(b'}');
}

/// The beginning of a text, cut between two characters.
fn truncated(text: &str) -> &str {
    let mut end = text.len().min(UNPARSED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
