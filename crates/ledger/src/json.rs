//! JSON as the ledger reads it: duplicate keys, NaN, infinities, unpaired surrogates and trailing
//! bytes are refused, integers of any size are kept exactly (asset ledger, section 4.2).

use std::{fmt, fmt::Write as _, str::FromStr};

use crate::canonical;
pub use crate::float::Finite;

/// The longest value that a message repeats, in characters; what is longer is cut, so that an answer
/// never grows with the question.
pub const QUOTE_CHARS_MAX: usize = 2_048;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction and exponent.
    Integer(Integer),
    /// Any other number.
    Float(Finite),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// Named values.
    Object(Object),
}

/// An integer of any size, kept as its canonical decimal text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integer(Box<str>);

/// The members of an object: no name occurs twice. Both the written and the sorted order are kept,
/// because messages quote a value as it was written.
#[derive(Clone, Debug, Default)]
pub struct Object {
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    key: String,
    value: Value,
    /// The place, among the members as written, of the one that comes at this place when sorted.
    sorted: u32,
}

/// The text is not JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: line {line} column {column} (char {character})")]
pub struct NotJson {
    /// The fault, in the words of Python's `json` module where it knows it.
    pub what: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// Character in the text, from 0.
    pub character: usize,
}

impl Value {
    /// Reads one JSON text. Takes time and memory linear in its length (but for the sorting of
    /// members); recursion is bounded by `depth_max`, the nesting of arrays and objects.
    ///
    /// # Errors
    /// [`NotJson`] at the first fault.
    pub fn parse(text: &[u8], depth_max: usize) -> Result<Value, NotJson> {
        let checked = match std::str::from_utf8(text) {
            Ok(checked) => checked,
            Err(error) => {
                return Err(NotJson::at(
                    text,
                    error.valid_up_to(),
                    "The text is not UTF-8",
                ));
            }
        };
        let mut reader = Reader {
            text: checked,
            bytes: text,
            at: 0,
            depth_left: depth_max,
        };
        reader
            .document()
            .map_err(|what| NotJson::at(text, reader.at, what))
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// An integer that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Integer(integer) => integer.as_u64(),
            _ => None,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The value as Python writes it (`repr`), cut after [`QUOTE_CHARS_MAX`] characters: messages of
    /// section 6.2 quote values so.
    pub fn quoted(&self) -> String {
        let mut out = Quote {
            text: String::new(),
            left: QUOTE_CHARS_MAX,
        };
        // The only error is that the quotation is full; its text then ends in an ellipsis.
        let _ = python(&mut out, self);
        out.text
    }

    /// Like [`Value::quoted`], but a string stands for itself, as in Python's `str`.
    pub fn quoted_bare(&self) -> String {
        match self {
            Value::String(text) => {
                let mut out = Quote {
                    text: String::new(),
                    left: QUOTE_CHARS_MAX,
                };
                let _ = out.write_str(text);
                out.text
            }
            other => other.quoted(),
        }
    }
}

/// Nesting that [`Value`]'s `FromStr` takes: as deep as the default limits of a node.
const DEPTH_MAX: usize = 512;

impl FromStr for Value {
    type Err = NotJson;
    /// Reads JSON text; not to be confused with `From<&str>`, which makes a JSON string of it.
    fn from_str(text: &str) -> Result<Value, NotJson> {
        Value::parse(text.as_bytes(), DEPTH_MAX)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Integer(Integer::from(value))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(Integer(value.to_string().into()))
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Value {
        Value::Array(items)
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object)
    }
}

impl Integer {
    /// Reads decimal digits with an optional minus; leading zeros and the sign of zero are dropped.
    pub fn parse(text: &str) -> Option<Integer> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text),
        };
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let digits = digits.trim_start_matches('0');
        Some(Integer(match (sign, digits) {
            (_, "") => "0".into(),
            ("", digits) => digits.into(),
            (sign, digits) => format!("{sign}{digits}").into(),
        }))
    }

    /// The canonical decimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, if it is neither negative nor above 64 bits.
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.0.starts_with('-')
    }
}

impl From<u64> for Integer {
    fn from(value: u64) -> Integer {
        Integer(value.to_string().into())
    }
}

impl Object {
    /// An object without members.
    pub fn new() -> Object {
        Object::default()
    }

    /// Adds a member at the end, or replaces the value of the one with that name.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.search(&key) {
            Ok(place) => self.members[place].value = value,
            Err(rank) => {
                let place = self.members.len() as u32;
                self.members.push(Member {
                    key,
                    value,
                    sorted: place,
                });
                for i in (rank + 1..self.members.len()).rev() {
                    self.members[i].sorted = self.members[i - 1].sorted;
                }
                self.members[rank].sorted = place;
            }
        }
    }

    /// Removes a member.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.search(key).ok()?;
        let removed = self.members.remove(place);
        self.sort().expect("the names were distinct before");
        Some(removed.value)
    }

    /// The value of a member.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.search(key)
            .ok()
            .map(|place| &self.members[place].value)
    }

    /// The value of a member, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.search(key)
            .ok()
            .map(|place| &mut self.members[place].value)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members in the order of the text.
    pub fn as_written(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members
            .iter()
            .map(|member| (member.key.as_str(), &member.value))
    }

    /// The members sorted by the code points of their names.
    pub fn sorted(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|member| {
            let member = &self.members[member.sorted as usize];
            (member.key.as_str(), &member.value)
        })
    }

    /// The place of `key` as written, or its rank among the sorted names.
    fn search(&self, key: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.members.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let place = self.members[middle].sorted as usize;
            match self.members[place].key.as_str().cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(place),
            }
        }
        Err(low)
    }

    /// Puts the sorted order right. The error is that a name occurs twice.
    fn sort(&mut self) -> Result<(), ()> {
        // Most objects are short and written in one of few orders; a sorted one needs no sorting.
        let ascending = self.members.is_sorted_by(|a, b| a.key < b.key);
        let mut order: Vec<u32> = Vec::new();
        if !ascending {
            order.extend(0..self.members.len() as u32);
            order.sort_unstable_by(|&a, &b| {
                self.members[a as usize]
                    .key
                    .cmp(&self.members[b as usize].key)
            });
            let twice = order.windows(2).any(|pair| {
                self.members[pair[0] as usize].key == self.members[pair[1] as usize].key
            });
            if twice {
                return Err(());
            }
        }
        for (i, member) in self.members.iter_mut().enumerate() {
            member.sorted = if ascending { i as u32 } else { order[i] };
        }
        Ok(())
    }
}

impl PartialEq for Object {
    /// Members decide, their written order does not.
    fn eq(&self, other: &Object) -> bool {
        self.len() == other.len() && self.sorted().eq(other.sorted())
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Object {
    /// Of members with one name the last one stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Object {
        let mut object = Object::new();
        for (key, value) in members {
            object.insert(key, value.into());
        }
        object
    }
}

impl NotJson {
    fn at(text: &[u8], offset: usize, what: &'static str) -> NotJson {
        let before = &text[..offset.min(text.len())];
        // Continuation bytes of UTF-8 do not count as characters.
        let characters = |bytes: &[u8]| bytes.iter().filter(|&&c| c & 0xC0 != 0x80).count();
        let line_start = before
            .iter()
            .rposition(|&c| c == b'\n')
            .map_or(0, |place| place + 1);
        NotJson {
            what,
            line: 1 + before.iter().filter(|&&c| c == b'\n').count(),
            column: 1 + characters(&before[line_start..]),
            character: characters(before),
        }
    }
}

const EXPECTING_VALUE: &str = "Expecting value";
const EXPECTING_NAME: &str = "Expecting property name enclosed in double quotes";
const EXPECTING_COLON: &str = "Expecting ':' delimiter";
const EXPECTING_COMMA: &str = "Expecting ',' delimiter";
const EXTRA_DATA: &str = "Extra data";
const UNTERMINATED: &str = "Unterminated string starting at";
const CONTROL: &str = "Invalid control character at";
const ESCAPE: &str = "Invalid \\escape";
const ESCAPE_U: &str = "Invalid \\uXXXX escape";
const SURROGATE: &str = "Unpaired surrogate";
const TWICE: &str = "A property name occurs twice";
const TOO_DEEP: &str = "Nested too deeply";
const TOO_LARGE: &str = "The number is too large";

/// Where an error is found, `at` stands at the place that the message names.
struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    depth_left: usize,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Value, &'static str> {
        self.space();
        let value = self.value()?;
        self.space();
        if self.at == self.bytes.len() {
            Ok(value)
        } else {
            Err(EXTRA_DATA)
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, &'static str> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(EXPECTING_VALUE)
        }
    }

    fn value(&mut self) -> Result<Value, &'static str> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(EXPECTING_VALUE),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value, &'static str>,
    ) -> Result<Value, &'static str> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(TOO_DEEP)?;
        self.at += 1;
        self.space();
        let value = read(self)?;
        self.depth_left += 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, &'static str> {
        let mut object = Object::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(object));
        }
        let start = self.at;
        loop {
            if self.peek() != Some(b'"') {
                return Err(EXPECTING_NAME);
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(EXPECTING_COLON);
            }
            self.at += 1;
            self.space();
            let value = self.value()?;
            object.members.push(Member {
                key,
                value,
                sorted: 0,
            });
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b'}') => {
                    self.at += 1;
                    break;
                }
                _ => return Err(EXPECTING_COMMA),
            }
        }
        if object.sort().is_err() {
            self.at = start;
            return Err(TWICE);
        }
        Ok(Value::Object(object))
    }

    fn array(&mut self) -> Result<Value, &'static str> {
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(EXPECTING_COMMA),
            }
        }
    }

    fn number(&mut self) -> Result<Value, &'static str> {
        let start = self.at;
        let mut end = start;
        let digits = |bytes: &[u8], mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        if self.bytes[end] == b'-' {
            end += 1;
        }
        match self.bytes.get(end) {
            Some(b'0') => end += 1,
            Some(b'1'..=b'9') => end = digits(self.bytes, end),
            _ => return Err(EXPECTING_VALUE),
        }
        let mut float = false;
        if self.bytes.get(end) == Some(&b'.') {
            let after = digits(self.bytes, end + 1);
            if after > end + 1 {
                (float, end) = (true, after);
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(end) {
            let sign = usize::from(matches!(self.bytes.get(end + 1), Some(b'+' | b'-')));
            let after = digits(self.bytes, end + 1 + sign);
            if after > end + 1 + sign {
                (float, end) = (true, after);
            }
        }
        let text = &self.text[start..end];
        let value = if float {
            let number = Finite::parse(text).ok_or(TOO_LARGE)?;
            Value::Float(number)
        } else {
            Value::Integer(Integer::parse(text).ok_or(EXPECTING_VALUE)?)
        };
        self.at = end;
        Ok(value)
    }

    fn string(&mut self) -> Result<String, &'static str> {
        let open = self.at;
        let mut at = open + 1;
        let mut text = String::new();
        let mut copied = at;
        loop {
            at += canonical::plain_bytes(&self.bytes[at..]);
            match self.bytes.get(at) {
                Some(b'"') => {
                    text.push_str(&self.text[copied..at]);
                    self.at = at + 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    text.push_str(&self.text[copied..at]);
                    let (character, length) = match self.escape(at) {
                        Ok(found) => found,
                        Err(UNTERMINATED) => {
                            self.at = open;
                            return Err(UNTERMINATED);
                        }
                        Err(what) => {
                            self.at = at;
                            return Err(what);
                        }
                    };
                    text.push(character);
                    at += length;
                    copied = at;
                }
                Some(_) => {
                    self.at = at;
                    return Err(CONTROL);
                }
                None => {
                    self.at = open;
                    return Err(UNTERMINATED);
                }
            }
        }
    }

    /// The character of the escape at `at` and the escape's length.
    fn escape(&self, at: usize) -> Result<(char, usize), &'static str> {
        let simple = match self.bytes.get(at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex4(at + 2).ok_or(ESCAPE_U)?;
                return match first {
                    0xD800..=0xDBFF => {
                        if self.bytes.get(at + 6..at + 8) != Some(b"\\u") {
                            return Err(SURROGATE);
                        }
                        let second = self.hex4(at + 8).ok_or(ESCAPE_U)?;
                        if !(0xDC00..=0xDFFF).contains(&second) {
                            return Err(SURROGATE);
                        }
                        let point = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                        char::from_u32(point).map(|c| (c, 12)).ok_or(SURROGATE)
                    }
                    _ => char::from_u32(first).map(|c| (c, 6)).ok_or(SURROGATE),
                };
            }
            Some(_) => return Err(ESCAPE),
            None => return Err(UNTERMINATED),
        };
        Ok((simple, 2))
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 4)?;
        digits.iter().try_fold(0, |value, &c| {
            Some(value << 4 | char::from(c).to_digit(16)?)
        })
    }
}

/// Text that stops growing at a limit.
struct Quote {
    text: String,
    left: usize,
}

impl fmt::Write for Quote {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.left == 0 {
                self.text.push('…');
                return Err(fmt::Error);
            }
            self.left -= 1;
            self.text.push(character);
        }
        Ok(())
    }
}

fn python(out: &mut Quote, value: &Value) -> fmt::Result {
    match value {
        Value::Null => out.write_str("None"),
        Value::Bool(true) => out.write_str("True"),
        Value::Bool(false) => out.write_str("False"),
        Value::Integer(integer) => out.write_str(integer.as_str()),
        Value::Float(number) => out.write_str(&number.to_string()),
        Value::String(text) => python_string(out, text),
        Value::Array(items) => {
            out.write_char('[')?;
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                python(out, item)?;
            }
            out.write_char(']')
        }
        Value::Object(object) => {
            out.write_char('{')?;
            for (i, (key, value)) in object.as_written().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                python_string(out, key)?;
                out.write_str(": ")?;
                python(out, value)?;
            }
            out.write_char('}')
        }
    }
}

fn python_string(out: &mut Quote, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c < ' ' || ('\u{7f}'..='\u{a0}').contains(&c) || c == '\u{ad}' => {
                write!(out, "\\x{:02x}", c as u32)?;
            }
            c @ ('\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}') => {
                write!(out, "\\u{:04x}", c as u32)?;
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}
