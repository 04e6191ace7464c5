//! WebSocket frames from a client: whole or in pieces, the same messages and the same failure.
#![no_main]

use bytes::BytesMut;
use daybook_wire::{
    assets::socket_message,
    websocket::{Decoder, Message, ProtocolError, frame_end},
};
use libfuzzer_sys::fuzz_target;

/// Bytes of the longest message that is taken.
const LIMIT: usize = 1 << 12;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let step = usize::from(cut).max(1);
    for decoder in [|| Decoder::new(LIMIT), Decoder::controls_only] {
        let whole = read(decoder(), &[bytes]);
        let pieces = read(decoder(), &bytes.chunks(step).collect::<Vec<_>>());
        assert_eq!(whole, pieces);
        for message in whole.0 {
            if let Message::Text(text) | Message::Binary(text) = message {
                assert!(text.len() <= LIMIT);
                let _ = socket_message(&text);
            }
        }
    }
    let at = step.min(bytes.len());
    assert!((at..=bytes.len()).contains(&frame_end(bytes, at)));
});

fn read(mut decoder: Decoder, pieces: &[&[u8]]) -> (Vec<Message>, Option<ProtocolError>) {
    let mut input = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
