//! The WebSocket codec with tungstenite as judge.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor, Read, Write};

use bytes::{Bytes, BytesMut};
use daybook_wire::websocket::{
    Decoder, Message, ProtocolError, frame_end, write_close, write_ping, write_pong, write_text,
};
use proptest::prelude::*;
use tungstenite::{
    WebSocket,
    protocol::{Role, WebSocketConfig},
};

const LIMIT: usize = 1_000;

/// What a client sent, all of it at once, to a server that never answers.
struct Sent(Cursor<Vec<u8>>);

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything a decoder gives, and why it then failed. Nothing counts behind a close. Of the judge's
/// failures only `Utf8` is told apart.
type Heard = (Vec<Message>, Option<ProtocolError>);

fn judge(bytes: &[u8]) -> Heard {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let sent = Sent(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(sent, Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Message::Text(text.into()),
            Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes),
            Ok(tungstenite::Message::Ping(payload)) => Message::Ping(payload),
            Ok(tungstenite::Message::Pong(payload)) => Message::Pong(payload),
            Ok(tungstenite::Message::Close(frame)) => {
                heard.push(Message::Close(frame.map(|frame| frame.code.into())));
                return (heard, None);
            }
            Ok(tungstenite::Message::Frame(_)) => continue,
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (heard, None);
            }
            Err(tungstenite::Error::Utf8(_)) => return (heard, Some(ProtocolError::Utf8)),
            Err(_) => return (heard, Some(ProtocolError::Opcode)),
        });
    }
}

fn ours(pieces: &[&[u8]], mut decoder: Decoder) -> Heard {
    let mut input = BytesMut::new();
    let mut heard = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let closing = matches!(message, Message::Close(_));
                    heard.push(message);
                    if closing {
                        return (heard, None);
                    }
                }
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error), "a failure is final");
                    return (heard, Some(error));
                }
            }
        }
    }
    (heard, None)
}

fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => frame.push(masked | length as u8),
        length @ 126..=0xffff => {
            frame.push(masked | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask
        .inspect(|mask| frame.extend_from_slice(mask))
        .unwrap_or_default();
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Frames as clients send them: mostly fine, some not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop::sample::select(vec![0u8, 0, 1, 1, 1, 2, 2, 9, 9, 10, 8, 3, 11]);
    let first = (
        opcode,
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.02),
    )
        .prop_map(|(opcode, last, reserved)| {
            opcode | if last { 0x80 } else { 0 } | if reserved { 0x40 } else { 0 }
        });
    let payload = prop_oneof![
        6 => "[ -~äß€😀]{0,40}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..140),
        1 => prop::collection::vec(any::<u8>(), 400..1_100),
        1 => (990u16..5_010).prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    let mask = prop::option::weighted(0.98, any::<[u8; 4]>());
    prop::collection::vec((first, mask, payload), 0..12).prop_map(|frames| {
        frames
            .iter()
            .flat_map(|(first, mask, payload)| frame(*first, *mask, payload))
            .collect()
    })
}

/// Where the two agree: what was heard before a failure, and that there was one. The judge looks at a
/// text piece by piece and may find sooner that it is not UTF-8, and a close with a code that nobody
/// may send is a close with 1002 to it.
fn agree(ours: &Heard, judge: &Heard) -> bool {
    match (ours.1, judge.1) {
        (None, None) => ours.0 == judge.0,
        (Some(ProtocolError::Close), None) => {
            let mut closed = ours.0.clone();
            closed.push(Message::Close(Some(1002)));
            closed == judge.0
        }
        (_, Some(ProtocolError::Utf8)) => ours.0.starts_with(&judge.0),
        (Some(_), Some(_)) => ours.0 == judge.0,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn frames_are_read_as_the_judge_reads_them(bytes in frames()) {
        let (given, expected) = (ours(&[&bytes], Decoder::new(LIMIT)), judge(&bytes));
        prop_assert!(agree(&given, &expected), "{given:?}\n{expected:?}");
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (given, expected) = (ours(&[&bytes], Decoder::new(LIMIT)), judge(&bytes));
        // The judge waits for a whole header before it looks at it, so it may fail later.
        prop_assert!(given.0.starts_with(&expected.0) || expected.0.starts_with(&given.0));
        ours(&[&bytes], Decoder::controls_only());
    }

    #[test]
    fn where_reads_end_does_not_matter(
        bytes in frames(),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut ends: Vec<usize> = ends.iter().map(|end| end.index(bytes.len() + 1)).collect();
        ends.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for end in ends {
            pieces.push(&bytes[start..end]);
            start = end;
        }
        pieces.push(&bytes[start..]);
        for decoder in [|| Decoder::new(LIMIT), Decoder::controls_only] {
            prop_assert_eq!(ours(&pieces, decoder()), ours(&[&bytes], decoder()));
        }
    }

    #[test]
    fn what_is_written_is_read_by_the_judge(
        texts in prop::collection::vec("\\PC{0,300}", 0..5),
        long in prop::option::of(65_000usize..66_000),
    ) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        let mut ends = vec![0];
        for text in texts.into_iter().chain(long.map(|length| "x".repeat(length))) {
            write_text(&mut bytes, text.as_bytes());
            expected.push(tungstenite::Message::text(text));
            ends.push(bytes.len());
        }
        write_ping(&mut bytes, b"ping");
        expected.push(tungstenite::Message::Ping(Bytes::from_static(b"ping")));
        ends.push(bytes.len());
        write_pong(&mut bytes, b"pong");
        expected.push(tungstenite::Message::Pong(Bytes::from_static(b"pong")));
        ends.push(bytes.len());
        for at in 0..=bytes.len() {
            let end = ends.iter().copied().find(|end| *end >= at).unwrap();
            prop_assert_eq!(frame_end(&bytes, at), end);
        }
        write_close(&mut bytes, 1013, "too slow");
        let mut socket =
            WebSocket::from_raw_socket(Sent(Cursor::new(bytes)), Role::Client, None);
        for expected in expected {
            prop_assert_eq!(socket.read().unwrap(), expected);
        }
        let close = socket.read().unwrap();
        let tungstenite::Message::Close(Some(frame)) = close else { panic!("{close:?}") };
        prop_assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1013, "too slow"));
    }

    #[test]
    fn frame_ends_of_any_bytes_lie_inside(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        at in 0usize..100,
    ) {
        let at = at.min(bytes.len());
        let end = frame_end(&bytes, at);
        prop_assert!((at..=bytes.len()).contains(&end));
    }
}

#[test]
fn each_mistake_has_its_code() {
    let masked = |first, payload: &[u8]| frame(first, Some([7; 4]), payload);
    let close = |payload: &[u8]| masked(0x88, payload);
    let mut huge = vec![0x82, 0xff];
    huge.extend_from_slice(&u64::MAX.to_be_bytes());
    huge.extend_from_slice(&[0; 4]);
    for (bytes, error, code) in [
        (frame(0x81, None, b"x"), ProtocolError::Unmasked, 1002),
        (masked(0xc1, b"x"), ProtocolError::ReservedBits, 1002),
        (masked(0x83, b"x"), ProtocolError::Opcode, 1002),
        (masked(0x80, b"x"), ProtocolError::Fragments, 1002),
        (
            [masked(0x01, b"x"), masked(0x81, b"y")].concat(),
            ProtocolError::Fragments,
            1002,
        ),
        (masked(0x09, b"x"), ProtocolError::Control, 1002),
        (masked(0x89, &[0; 126]), ProtocolError::Control, 1002),
        (huge, ProtocolError::Length, 1002),
        (close(b"x"), ProtocolError::Close, 1002),
        (close(&1005u16.to_be_bytes()), ProtocolError::Close, 1002),
        (close(b"\x03\xe8\xff"), ProtocolError::Utf8, 1007),
        (masked(0x81, b"\xff"), ProtocolError::Utf8, 1007),
        (masked(0x82, &[0; LIMIT + 1]), ProtocolError::TooLong, 1009),
        (
            [masked(0x01, &[b'x'; LIMIT]), masked(0x80, b"y")].concat(),
            ProtocolError::TooLong,
            1009,
        ),
    ] {
        let mut input = BytesMut::from(&bytes[..]);
        let mut decoder = Decoder::new(LIMIT);
        assert_eq!(decoder.decode(&mut input), Err(error), "{bytes:?}");
        assert_eq!(error.close_code(), code);
    }
}

#[test]
fn a_message_that_is_too_long_is_refused_before_its_payload_comes() {
    let bytes = frame(0x82, Some([0; 4]), &[0; LIMIT + 1]);
    let mut input = BytesMut::from(&bytes[..8]);
    assert_eq!(
        Decoder::new(LIMIT).decode(&mut input),
        Err(ProtocolError::TooLong)
    );
}

#[test]
fn skipped_messages_are_not_kept() {
    let mut decoder = Decoder::controls_only();
    let mut input = BytesMut::from(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4][..]);
    for _ in 0..1_000 {
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(input.is_empty());
        input.extend_from_slice(&[0; 1_000]);
    }
}
