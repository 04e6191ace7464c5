//! `multipart/form-data` (RFC 7578), read as it arrives: nothing but one piece and one part's head is
//! held in memory.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a boundary (RFC 2046, section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Bytes of the head of one part: names and a type.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes between a boundary and the end of its line, which may only be blanks.
const PADDING_BYTES_MAX: usize = 64;

/// The body is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no multipart/form-data: {0}")]
pub(crate) struct NotMultipart(&'static str);

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A part begins.
    Part(Head),
    /// Some of its content.
    Data(Bytes),
    /// Its content is complete.
    PartEnd,
    /// There are no more parts.
    End,
}

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: String,
    pub(crate) filename: Option<String>,
    pub(crate) content_type: Option<String>,
}

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct Multipart {
    /// What stands between two parts, the line end before it included.
    delimiter: Vec<u8>,
    input: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary: what stands there is nobody's.
    Preamble,
    /// Behind a boundary.
    Boundary,
    Head,
    Content,
    Ended,
}

impl Multipart {
    /// Begins with the `Content-Type` of the request.
    pub(crate) fn new(content_type: &str) -> Result<Multipart, NotMultipart> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(NotMultipart("its Content-Type is another one"));
        }
        let boundary = parameter(parameters, "boundary")
            .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()))
            .ok_or(NotMultipart("its Content-Type names no boundary"))?;
        Ok(Multipart {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            // The first boundary stands at the beginning of a line, too.
            input: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble,
        })
    }

    /// Takes what arrived.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.state != State::Ended {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The next piece; `None` when more has to arrive.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, NotMultipart> {
        loop {
            match self.state {
                State::Ended => return Ok(Some(Piece::End)),
                State::Preamble => match find(&self.input, &self.delimiter) {
                    Some(at) => {
                        self.input.advance(at + self.delimiter.len());
                        self.state = State::Boundary;
                    }
                    None => {
                        let kept = self.input.len().min(self.delimiter.len() - 1);
                        self.input.advance(self.input.len() - kept);
                        return Ok(None);
                    }
                },
                State::Boundary => {
                    if self.input.starts_with(b"--") {
                        self.state = State::Ended;
                        self.input.clear();
                        continue;
                    }
                    let Some(at) = find(&self.input, b"\r\n") else {
                        if self.input.len() > PADDING_BYTES_MAX {
                            return Err(NotMultipart("a boundary's line does not end"));
                        }
                        return Ok(None);
                    };
                    if self.input[..at].iter().any(|c| !matches!(c, b' ' | b'\t')) {
                        return Err(NotMultipart("something stands behind a boundary"));
                    }
                    // The line end stays: it may be the first half of the empty line after no headers.
                    self.input.advance(at);
                    self.state = State::Head;
                }
                State::Head => {
                    let Some(at) = find(&self.input, b"\r\n\r\n") else {
                        if self.input.len() > HEAD_BYTES_MAX {
                            return Err(NotMultipart("a part's head is too long"));
                        }
                        return Ok(None);
                    };
                    if at > HEAD_BYTES_MAX {
                        return Err(NotMultipart("a part's head is too long"));
                    }
                    let head = head(&self.input[..at])?;
                    // The content may be empty: its delimiter begins with a line end of its own.
                    self.input.advance(at + 4);
                    self.state = State::Content;
                    return Ok(Some(Piece::Part(head)));
                }
                State::Content => {
                    if let Some(at) = find(&self.input, &self.delimiter) {
                        if at > 0 {
                            return Ok(Some(Piece::Data(self.input.split_to(at).freeze())));
                        }
                        self.input.advance(self.delimiter.len());
                        self.state = State::Boundary;
                        return Ok(Some(Piece::PartEnd));
                    }
                    // The end of what is there may be the beginning of a delimiter.
                    let certain = (self.input.len() + 1).saturating_sub(self.delimiter.len());
                    if certain == 0 {
                        return Ok(None);
                    }
                    return Ok(Some(Piece::Data(self.input.split_to(certain).freeze())));
                }
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|c| *c == first)?;
        let rest = &bytes[at..];
        if rest.len() < wanted.len() {
            return None;
        }
        if rest.starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn head(lines: &[u8]) -> Result<Head, NotMultipart> {
    let text = std::str::from_utf8(lines).map_err(|_| NotMultipart("a part's head is no UTF-8"))?;
    let mut head = Head::default();
    let mut named = false;
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        let (field, value) = line
            .split_once(':')
            .ok_or(NotMultipart("a line of a part's head is no field"))?;
        let value = value.trim();
        if field.trim().eq_ignore_ascii_case("content-disposition") {
            let (_, parameters) = value.split_once(';').unwrap_or((value, ""));
            head.name = parameter(parameters, "name").unwrap_or_default();
            head.filename = parameter(parameters, "filename*")
                .and_then(|text| extended(&text))
                .or_else(|| parameter(parameters, "filename"));
            named = true;
        } else if field.trim().eq_ignore_ascii_case("content-type") {
            head.content_type = Some(value.to_owned());
        }
    }
    match named {
        true => Ok(head),
        false => Err(NotMultipart("a part has no Content-Disposition")),
    }
}

/// A parameter of a header: `; name=value` or `; name="value"`.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let found = name.trim().eq_ignore_ascii_case(wanted);
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if found {
            return Some(value);
        }
        rest = next;
    }
}

/// The text up to the closing quote, and what stands behind it.
fn quoted_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            // Old programs write paths of Windows without escaping them.
            '\\' => match characters.clone().next() {
                Some((_, escaped @ ('"' | '\\'))) => {
                    characters.next();
                    value.push(escaped);
                }
                _ => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    None
}

/// `UTF-8''percent%20encoded` (RFC 5987, section 3.2).
fn extended(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let (charset, _, value) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    percent_decoded(value)
}

/// A text with its `%xx` decoded; `None` when they are cut short or make no UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8], piece: usize) -> Result<Vec<(Head, Vec<u8>)>, NotMultipart> {
        let mut multipart = Multipart::new("multipart/form-data; boundary=XyZ")?;
        let mut parts: Vec<(Head, Vec<u8>)> = Vec::new();
        for bytes in body.chunks(piece) {
            multipart.feed(bytes);
            loop {
                match multipart.next()? {
                    None | Some(Piece::End) => break,
                    Some(Piece::Part(head)) => parts.push((head, Vec::new())),
                    Some(Piece::Data(data)) => parts.last_mut().unwrap().1.extend(data),
                    Some(Piece::PartEnd) => {}
                }
            }
        }
        match multipart.next()? {
            Some(Piece::End) => Ok(parts),
            _ => Err(NotMultipart("cut short")),
        }
    }

    #[test]
    fn parts_are_read_however_the_bytes_arrive() {
        let body = "nobody's\r\n--XyZ\r\nContent-Disposition: form-data; name=\"file\"; \
                    filename=\"Акт 7.PDF\"\r\nContent-Type: application/pdf\r\n\r\n\r\n--Xy\r\n--XyZ  \r\n\
                    Content-Disposition: form-data; filename*=UTF-8''%d0%90.txt; name=b\r\n\r\n\r\n--XyZ--\r\n";
        for piece in 1..body.len() {
            let parts = read(body.as_bytes(), piece).unwrap();
            assert_eq!(parts.len(), 2, "{piece}");
            assert_eq!(parts[0].0.name, "file");
            assert_eq!(parts[0].0.filename.as_deref(), Some("Акт 7.PDF"));
            assert_eq!(parts[0].0.content_type.as_deref(), Some("application/pdf"));
            assert_eq!(parts[0].1, b"\r\n--Xy");
            assert_eq!(parts[1].0.filename.as_deref(), Some("А.txt"));
            assert_eq!(parts[1].1, b"");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for wrong in [
            "text/plain",
            "multipart/form-data",
            "multipart/mixed; boundary=x",
            "multipart/form-data; boundary=\"\"",
        ] {
            assert!(Multipart::new(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            &b"--XyZ\r\nnothing\r\n\r\nx\r\n--XyZ--"[..],
            b"--XyZ\r\nA: b\r\n\r\nx\r\n--XyZ--",
            b"--XyZ what\r\n",
            b"--XyZ\r\nContent-Disposition: form-data; name=x\r\n\r\nno end",
            b"--XyZ\r\nContent-Disposition: \xff\r\n\r\nx\r\n--XyZ--",
        ] {
            assert!(read(wrong, 7).is_err());
        }
        let mut long = b"--XyZ\r\nContent-Disposition: form-data; name=".to_vec();
        long.resize(2 * HEAD_BYTES_MAX, b'x');
        assert!(read(&long, 100).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
            let _ = read(&bytes, piece);
        }

        #[test]
        fn any_content_comes_out_as_it_went_in(content in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            prop_assume!(find(&content, b"\r\n--XyZ").is_none());
            let mut body = b"--XyZ\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n".to_vec();
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n--XyZ--\r\n");
            prop_assert_eq!(&read(&body, piece).unwrap()[0].1, &content);
        }
    }
}
