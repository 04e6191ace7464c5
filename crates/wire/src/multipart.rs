//! `multipart/form-data` (RFC 7578), read as it arrives: nothing but what was fed and not yet taken is
//! held in memory, and of a part's head at most [`HEAD_BYTES_MAX`]. However a body is cut into pieces,
//! the same is read of it.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a boundary (RFC 2046, section 5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;
/// Bytes of the head of one part: names and a type.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes between a boundary and the end of its line, which may only be blanks.
const PADDING_BYTES_MAX: usize = 64;

/// The body is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no multipart/form-data: {0}")]
pub struct NotMultipart(&'static str);

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
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
pub struct Head {
    /// The name of the form's field; empty when it has none.
    pub name: String,
    /// The name of the file, if it is one.
    pub filename: Option<String>,
    /// The type that the client believes it has.
    pub content_type: Option<String>,
}

/// A body that is being read.
#[derive(Debug)]
pub struct Multipart {
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
    ///
    /// # Errors
    /// When it is another type, or names no boundary of 1 to [`BOUNDARY_BYTES_MAX`] bytes.
    pub fn new(content_type: &str) -> Result<Multipart, NotMultipart> {
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
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.state != State::Ended {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The next piece; `None` when more has to arrive.
    ///
    /// # Errors
    /// When the body is no form; what was read before stands, and nothing more comes.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, NotMultipart> {
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
                    let Some(at) = line_end(&self.input, b"\r\n", PADDING_BYTES_MAX)
                        .map_err(|_| NotMultipart("a boundary's line does not end"))?
                    else {
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
                    let Some(at) = line_end(&self.input, b"\r\n\r\n", HEAD_BYTES_MAX)
                        .map_err(|_| NotMultipart("a part's head is too long"))?
                    else {
                        return Ok(None);
                    };
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

/// What stands before an end is longer than it may be.
struct TooLong;

/// Where `end` stands behind at most `bytes_max` bytes; `None` when it may still come.
fn line_end(input: &[u8], end: &[u8], bytes_max: usize) -> Result<Option<usize>, TooLong> {
    // No more is looked at than counts, so that it does not matter how much has arrived.
    let reach = bytes_max + end.len();
    match find(&input[..input.len().min(reach)], end) {
        Some(at) => Ok(Some(at)),
        None if input.len() >= reach => Err(TooLong),
        None => Ok(None),
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
pub fn percent_decoded(text: &str) -> Option<String> {
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
                match multipart.next_piece()? {
                    None | Some(Piece::End) => break,
                    Some(Piece::Part(head)) => parts.push((head, Vec::new())),
                    Some(Piece::Data(data)) => parts.last_mut().unwrap().1.extend(data),
                    Some(Piece::PartEnd) => {}
                }
            }
        }
        match multipart.next_piece()? {
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

    #[test]
    fn what_stands_before_an_end_has_a_bound_however_it_arrives() {
        let part = |padding: usize, name: usize| {
            let (padding, name) = (" ".repeat(padding), "n".repeat(name));
            let head = format!("Content-Disposition: form-data; name={name}");
            format!("--XyZ{padding}\r\n{head}\r\n\r\ncontent\r\n--XyZ--\r\n")
        };
        // The head's bound counts from the line end before it.
        let fixed = "\r\nContent-Disposition: form-data; name=".len();
        for (padding, name, right) in [
            (PADDING_BYTES_MAX, 1, true),
            (PADDING_BYTES_MAX + 1, 1, false),
            (0, HEAD_BYTES_MAX - fixed, true),
            (0, HEAD_BYTES_MAX - fixed + 1, false),
        ] {
            let body = part(padding, name);
            for piece in [1, 2, 3, 7, 64, 4_096, body.len()] {
                let read = read(body.as_bytes(), piece);
                assert_eq!(read.is_ok(), right, "{padding} {name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_hostile_body_is_read_as_it_stands_or_refused() {
        let disposition = "Content-Disposition: form-data; name=file";
        let content = |body: &str| read(body.as_bytes(), 5).map(|parts| parts[0].1.clone());
        // A boundary that only begins like ours, or stands inside a line, is content.
        for inside in [
            "\r\n--Xy", "--XyZ", "x--XyZ--", "\n--XyZ", "\r--XyZ", "\r\r\n-",
        ] {
            let body = format!("--XyZ\r\n{disposition}\r\n\r\n{inside}\r\n--XyZ--");
            assert_eq!(content(&body).unwrap(), inside.as_bytes(), "{inside:?}");
        }
        // Nothing behind the end counts, not even more parts.
        let behind = format!("--XyZ\r\n{disposition}\r\n\r\na\r\n--XyZ--\r\n--XyZ\r\nrubbish");
        assert_eq!(content(&behind).unwrap(), b"a");
        for (wrong, why) in [
            ("", "nothing at all"),
            ("--XyZ", "only half a boundary's line"),
            ("--XyZ-", "only half an end"),
            ("--XyZ-\r\n\r\n\r\n--XyZ--", "half an end"),
            ("--XyZmore\r\n\r\n\r\n--XyZ--", "a longer boundary"),
            ("--XyZ\r\n\r\ncontent\r\n--XyZ--", "a part without a head"),
            (
                "--XyZ\n\nContent-Disposition: x\n\n--XyZ--",
                "bare line feeds",
            ),
            ("--XyZ\r\n: x\r\n\r\n\r\n--XyZ--", "a field without a name"),
            (
                "--XyZ\r\nContent-Disposition\r\n\r\n\r\n--XyZ--",
                "a field without a value",
            ),
        ] {
            assert!(content(wrong).is_err(), "{why}");
        }
        // Ten thousand parts are ten thousand parts, and take no more room than one.
        let part = format!("--XyZ\r\n{disposition}\r\n\r\n\r\n");
        let many = part.repeat(10_000) + "--XyZ--";
        assert_eq!(read(many.as_bytes(), 1_000).unwrap().len(), 10_000);
    }

    #[test]
    fn names_of_files_are_taken_as_programs_write_them_and_never_by_half() {
        let name = |parameters: &str| {
            let body =
                format!("--XyZ\r\nContent-Disposition: form-data; {parameters}\r\n\r\n\r\n--XyZ--");
            read(body.as_bytes(), 9).unwrap()[0].0.filename.clone()
        };
        for (parameters, expected) in [
            ("filename=\"a\\\"b\\\\c\"", Some("a\"b\\c")),
            ("filename=\"C:\\papers\\x.pdf\"", Some("C:\\papers\\x.pdf")),
            ("filename=\"no end", None),
            ("filename=", Some("")),
            ("filename*=UTF-8''%zz; filename=plain", Some("plain")),
            ("filename*=UTF-8''%ff; filename=plain", Some("plain")),
            ("filename*=UTF-8''%4; filename=plain", Some("plain")),
            ("filename*=latin1''%e9; filename=plain", Some("plain")),
            ("filename*=half; filename=plain", Some("plain")),
            ("name=\"filename=x\"", None),
            (";;;=;= ;filename=x", Some("x")),
        ] {
            assert_eq!(name(parameters).as_deref(), expected, "{parameters}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_body_is_cut(bytes in "[\r\n a-z:=;\\-]{0,60}(\r\n--XyZ[- ]{0,3}\r\n(content-disposition: ;name=x)?\r\n\r\n[a-z\r\n-]{0,20}){0,3}(\r\n--XyZ--)?", piece in 1usize..20) {
            let whole = read(bytes.as_bytes(), bytes.len().max(1));
            prop_assert_eq!(read(bytes.as_bytes(), piece), whole);
        }

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
