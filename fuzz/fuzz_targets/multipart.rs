//! Bodies of uploads: however one is cut into pieces, the same is read of it, and what was read can be
//! sent and read again.
#![no_main]

use daybook_wire::multipart::{HEAD_BYTES_MAX, Head, Multipart, NotMultipart, Piece};
use libfuzzer_sys::fuzz_target;

/// How one body is fed: so many bytes at once.
const PIECES: [usize; 4] = [1, 3, 64, usize::MAX];

/// What was read of a body: its parts, and whether it came to its end.
type Parts = (Vec<(Head, Vec<u8>)>, Result<bool, NotMultipart>);

fn read(content_type: &str, body: &[u8], piece: usize) -> Option<Parts> {
    let mut multipart = Multipart::new(content_type).ok()?;
    let mut parts: Vec<(Head, Vec<u8>)> = Vec::new();
    for bytes in body.chunks(piece.min(body.len().max(1))) {
        multipart.feed(bytes);
        loop {
            match multipart.next_piece() {
                Err(error) => return Some((parts, Err(error))),
                Ok(None) => break,
                Ok(Some(Piece::End)) => return Some((parts, Ok(true))),
                Ok(Some(Piece::Part(head))) => {
                    assert!(head.name.len() <= HEAD_BYTES_MAX);
                    parts.push((head, Vec::new()));
                }
                Ok(Some(Piece::Data(data))) => {
                    assert!(!data.is_empty(), "a piece of nothing");
                    let (_, content) = parts.last_mut().expect("content belongs to a part");
                    content.extend_from_slice(&data);
                }
                Ok(Some(Piece::PartEnd)) => {}
            }
        }
    }
    Some((parts, Ok(false)))
}

fuzz_target!(|bytes: &[u8]| {
    // The first line is the request's type, the rest its body.
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (content_type, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let Ok(content_type) = std::str::from_utf8(content_type) else {
        return;
    };
    let body = body.get(1..).unwrap_or(&[]);
    let whole = read(content_type, body, usize::MAX);
    for piece in PIECES {
        assert_eq!(
            read(content_type, body, piece),
            whole,
            "in pieces of {piece}"
        );
    }
    // What was read of a body can be sent again, and is the same.
    let Some((parts, Ok(true))) = whole else {
        return;
    };
    let boundary = "never-in-an-input-7f3a";
    let mut again = Vec::new();
    for (head, content) in &parts {
        if content
            .windows(boundary.len())
            .any(|window| window == boundary.as_bytes())
            || head.name.len() > HEAD_BYTES_MAX / 2
            || head.name.contains(['"', '\\', '\r', '\n'])
        {
            return;
        }
        let field = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n",
            head.name
        );
        again.extend_from_slice(field.as_bytes());
        again.extend_from_slice(content);
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(format!("--{boundary}--").as_bytes());
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let (read, ended) = read(&content_type, &again, 7).expect("the type is one");
    assert_eq!(ended, Ok(true));
    let contents = |parts: &[(Head, Vec<u8>)]| -> Vec<_> {
        let parts = parts.iter();
        parts
            .map(|(head, content)| (head.name.clone(), content.clone()))
            .collect()
    };
    assert_eq!(contents(&read), contents(&parts));
});
