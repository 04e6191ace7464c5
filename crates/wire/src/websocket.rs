//! The server's side of WebSocket frames (RFC 6455), without sockets: masked frames in, unmasked
//! frames out. No extension is spoken.

use bytes::{Buf, Bytes, BytesMut};

/// Payload bytes of a control frame (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Header bytes of the longest unmasked frame.
const HEADER_BYTES_MAX: usize = 10;

/// A message or control frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A whole text message, in UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// The client wants a Pong with this payload.
    Ping(Bytes),
    /// The client answers a Ping.
    Pong(Bytes),
    /// The client closes, with a code unless it gave none.
    Close(Option<u16>),
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set, and no extension was agreed.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// The kind of frame is not defined.
    #[error("the opcode is not defined")]
    Opcode,
    /// A client must mask what it sends.
    #[error("a frame from a client is not masked")]
    Unmasked,
    /// A control frame is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation without a beginning, or a beginning inside a message.
    #[error("fragments are out of order")]
    Fragments,
    /// The 64-bit length has its top bit set.
    #[error("the length is not valid")]
    Length,
    /// A close frame with one byte, or a code that nobody may send.
    #[error("the close frame is not valid")]
    Close,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A message longer than the limit.
    #[error("a message is too long")]
    TooLong,
}

impl ProtocolError {
    /// The code to close with (RFC 6455, section 7.4.1).
    pub const fn close_code(self) -> u16 {
        match self {
            ProtocolError::Utf8 => 1007,
            ProtocolError::TooLong => 1009,
            _ => 1002,
        }
    }
}

/// Reads a client's frames from a buffer as bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    keep: Keep,
    /// The message under way: its opcode, its payload so far.
    fragments: Option<(Opcode, BytesMut)>,
    /// Payload bytes of the present frame that are still to be skipped.
    skip: u64,
    failed: Option<ProtocolError>,
}

/// What a decoder does with text and binary messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Messages { bytes_max: usize },
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

struct Header {
    last: bool,
    opcode: Opcode,
    mask: [u8; 4],
    length: u64,
    bytes: usize,
}

impl Decoder {
    /// A decoder that gives every message, of at most `message_bytes_max` bytes each.
    pub fn new(message_bytes_max: usize) -> Decoder {
        Decoder::with(Keep::Messages {
            bytes_max: message_bytes_max,
        })
    }

    /// A decoder that skips text and binary messages of any length without keeping a byte of them,
    /// and gives only control frames.
    pub fn controls_only() -> Decoder {
        Decoder::with(Keep::Nothing)
    }

    fn with(keep: Keep) -> Decoder {
        Decoder {
            keep,
            fragments: None,
            skip: 0,
            failed: None,
        }
    }

    /// Takes the next message out of `input`. `None` when more bytes are needed; what was read so far is
    /// remembered. Never holds more than one message and one frame.
    ///
    /// # Errors
    /// [`ProtocolError`], and the same one on every later call: the connection must be closed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.step(input).inspect_err(|error| {
            self.failed = Some(*error);
            self.fragments = None;
        })
    }

    /// Bytes of the message under way that were taken out of the input already.
    pub fn held_bytes(&self) -> usize {
        self.fragments
            .as_ref()
            .map_or(0, |(_, payload)| payload.len())
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Option<Message>, ProtocolError> {
        loop {
            let skipped = self.skip.min(input.len() as u64);
            input.advance(skipped as usize);
            self.skip -= skipped;
            if self.skip != 0 {
                return Ok(None);
            }
            let Some(header) = Header::read(input)? else {
                return Ok(None);
            };
            self.check(&header)?;
            if header.opcode.is_data() && self.keep == Keep::Nothing {
                input.advance(header.bytes);
                self.skip = header.length;
                self.fragments = match (header.last, header.opcode) {
                    (true, _) => None,
                    (false, opcode) => Some((opcode, BytesMut::new())),
                };
                continue;
            }
            let length = header.length as usize;
            if input.len() - header.bytes < length {
                input.reserve(header.bytes + length - input.len());
                return Ok(None);
            }
            input.advance(header.bytes);
            let mut payload = input.split_to(length);
            unmask(&mut payload, header.mask);
            if let Some(message) = self.take(header, payload)? {
                return Ok(Some(message));
            }
        }
    }

    /// Refuses a frame by its header, before any of its payload is waited for.
    fn check(&self, header: &Header) -> Result<(), ProtocolError> {
        let under_way = self.fragments.is_some();
        match header.opcode {
            Opcode::Continuation if !under_way => return Err(ProtocolError::Fragments),
            Opcode::Text | Opcode::Binary if under_way => return Err(ProtocolError::Fragments),
            opcode
                if !opcode.is_data()
                    && (!header.last || header.length > CONTROL_BYTES_MAX as u64) =>
            {
                return Err(ProtocolError::Control);
            }
            _ => {}
        }
        if let (Keep::Messages { bytes_max }, true) = (self.keep, header.opcode.is_data()) {
            let before = self.held_bytes();
            if header.length > (bytes_max - before.min(bytes_max)) as u64 {
                return Err(ProtocolError::TooLong);
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        header: Header,
        payload: BytesMut,
    ) -> Result<Option<Message>, ProtocolError> {
        let (opcode, payload) = match header.opcode {
            Opcode::Ping => return Ok(Some(Message::Ping(payload.freeze()))),
            Opcode::Pong => return Ok(Some(Message::Pong(payload.freeze()))),
            Opcode::Close => return close(&payload).map(|code| Some(Message::Close(code))),
            Opcode::Continuation => {
                let (opcode, mut whole) = self
                    .fragments
                    .take()
                    .expect("check() refuses a continuation of nothing");
                whole.extend_from_slice(&payload);
                (opcode, whole)
            }
            opcode => (opcode, payload),
        };
        if !header.last {
            self.fragments = Some((opcode, payload));
            return Ok(None);
        }
        let payload = payload.freeze();
        if opcode == Opcode::Binary {
            return Ok(Some(Message::Binary(payload)));
        }
        match std::str::from_utf8(&payload) {
            Ok(_) => Ok(Some(Message::Text(payload))),
            Err(_) => Err(ProtocolError::Utf8),
        }
    }
}

impl Opcode {
    fn is_data(self) -> bool {
        matches!(self, Opcode::Continuation | Opcode::Text | Opcode::Binary)
    }
}

impl Header {
    fn read(input: &[u8]) -> Result<Option<Header>, ProtocolError> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(ProtocolError::Opcode),
        };
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest {
                [a, b, rest @ ..] => (u16::from_be_bytes([*a, *b]).into(), rest),
                _ => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if length >> 63 != 0 {
            return Err(ProtocolError::Length);
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        Ok(Some(Header {
            last: first & 0x80 != 0,
            opcode,
            mask: *mask,
            length,
            bytes: input.len() - rest.len(),
        }))
    }
}

fn close(payload: &[u8]) -> Result<Option<u16>, ProtocolError> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // RFC 6455, section 7.4: defined and sendable, or registered, or private.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(ProtocolError::Close);
            }
            std::str::from_utf8(reason).map_err(|_| ProtocolError::Utf8)?;
            Ok(Some(code))
        }
        [_] => Err(ProtocolError::Close),
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a text frame.
pub fn write_text(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, 0x81, payload);
}

/// Appends a Ping.
///
/// # Panics
/// When `payload` is longer than [`CONTROL_BYTES_MAX`]; that is ours to choose.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    assert!(
        payload.len() <= CONTROL_BYTES_MAX,
        "a ping carries at most 125 bytes"
    );
    write_frame(out, 0x89, payload);
}

/// Appends a Pong that answers a Ping, with that Ping's payload.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, 0x8a, &payload[..payload.len().min(CONTROL_BYTES_MAX)]);
}

/// Appends a Close.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    write_frame(out, 0x88, &payload);
}

fn write_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    out.push(first);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Where the frame that contains byte `at` of `frames` ends. `frames` is a run of whole unmasked frames;
/// a byte at which a frame begins ends the one before it.
pub fn frame_end(frames: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        let rest = &frames[end..];
        let length = match rest {
            [_, length @ 0..=125, ..] => 2 + usize::from(*length),
            [_, 126, a, b, ..] => 4 + usize::from(u16::from_be_bytes([*a, *b])),
            [_, 127, length @ ..] if length.len() >= 8 => {
                let length: [u8; 8] = length[..8].try_into().expect("eight bytes were asked for");
                10usize.saturating_add(u64::from_be_bytes(length) as usize)
            }
            _ => return frames.len(),
        };
        end = end.saturating_add(length).min(frames.len());
    }
    end
}
