//! Query strings, and how a bad one is refused (asset ledger, sections 3.2 and 3.3).

use std::borrow::Cow;

use super::answer::{append_text, error_body};

/// The parameters of a query string, decoded, in the order sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query<'q> {
    pairs: Vec<(Cow<'q, str>, Cow<'q, str>)>,
}

/// Why a request's parameters were refused; always status 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A parameter is missing or malformed: `{"message": {"<parameter>": "<text>"}}`.
    Parameter {
        /// Its name.
        name: &'static str,
        /// What is wrong with it, in the words that suites compare.
        text: Cow<'static, str>,
    },
    /// A strict endpoint got parameters it does not know: `{"message": "Unknown arguments: <names>"}`.
    Unknown(Vec<String>),
    /// Understood and refused: `{"message": "<text>", "status": 400}`.
    Message(&'static str),
}

impl<'q> Query<'q> {
    /// Reads `text` as `application/x-www-form-urlencoded`. Accepts anything: a broken escape stands for
    /// itself, bytes that are not UTF-8 become U+FFFD.
    pub fn parse(text: &'q str) -> Query<'q> {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => (decode(name, true), decode(value, true)),
                None => (decode(pair, true), Cow::Borrowed("")),
            })
            .collect();
        Query { pairs }
    }

    /// The value of a parameter. When it is repeated, the first one counts.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs
            .iter()
            .filter(move |(other, _)| other == name)
            .map(|(_, value)| &**value)
    }

    /// The value of a parameter that must be there.
    ///
    /// # Errors
    /// [`Refusal::Parameter`] when it is not.
    pub fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.first(name).ok_or(Refusal::parameter(
            name,
            "Missing required parameter in the JSON body or the post body or the query string",
        ))
    }

    /// Refuses parameters outside `known`, for the endpoints that are strict about them.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] with each unknown name once.
    pub fn refuse_unknown(&self, known: &[&str]) -> Result<(), Refusal> {
        let mut unknown: Vec<String> = Vec::new();
        for (name, _) in &self.pairs {
            if !known.contains(&&**name) && !unknown.iter().any(|other| other == name) {
                unknown.push(name.clone().into_owned());
                // One name is enough to act on; more than this would only echo a flood.
                if unknown.len() == UNKNOWN_NAMES_MAX {
                    break;
                }
            }
        }
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Unknown(unknown))
        }
    }
}

/// Names of unknown parameters that an answer lists: enough to find the mistake.
const UNKNOWN_NAMES_MAX: usize = 8;

impl Refusal {
    /// A malformed parameter.
    pub fn parameter(name: &'static str, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::Parameter {
            name,
            text: text.into(),
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        match self {
            Refusal::Parameter { name, text } => {
                body.extend_from_slice(b"{\"message\": {");
                append_text(&mut body, name);
                body.extend_from_slice(b": ");
                append_text(&mut body, text);
                body.extend_from_slice(b"}}");
            }
            Refusal::Unknown(names) => {
                body.extend_from_slice(b"{\"message\": ");
                append_text(
                    &mut body,
                    &format!("Unknown arguments: {}", names.join(", ")),
                );
                body.push(b'}');
            }
            Refusal::Message(text) => return error_body(400, text),
        }
        body
    }
}

/// Decodes percent escapes, and `+` as a space where `plus` says so (in queries, not in paths).
pub(crate) fn decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text
        .bytes()
        .any(|byte| byte == b'%' || (plus && byte == b'+'))
    {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) if plus => bytes.push(b' '),
            (b'%', [high, low, beyond @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = beyond;
                }
                _ => bytes.push(b'%'),
            },
            _ => bytes.push(byte),
        }
    }
    Cow::Owned(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}
