//! JSON objects as the tracker writes and reads them.

use std::sync::Arc;

use super::{KeyHash, MalformedEntry};
use crate::{
    canonical::write_string,
    json::{Object, Value},
};

/// Bytes that are made ready for an object; most records and replies have less.
const OBJECT_BYTES: usize = 512;

/// Writes one compact JSON object, its members in the order of the calls.
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn new() -> Writer {
        Writer::with_room(OBJECT_BYTES)
    }

    /// One that is to be some `bytes` long: what is written on the orderer's thread is not copied again and
    /// again while it grows.
    pub(super) fn with_room(bytes: usize) -> Writer {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Writer(text)
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        write_string(&mut self.0, name);
        self.0.push(':');
    }

    pub(super) fn string(&mut self, name: &str, text: &str) {
        self.name(name);
        write_string(&mut self.0, text);
    }

    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.0.push_str(&number.to_string());
    }

    /// A number as text: JavaScript keeps only 53 bits of a number.
    pub(super) fn amount(&mut self, name: &str, amount: u64) {
        self.name(name);
        self.0.push('"');
        self.0.push_str(&amount.to_string());
        self.0.push('"');
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.0.push_str(if value { "true" } else { "false" });
    }

    /// Text that is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.0.push_str(json);
    }

    pub(super) fn array<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut String, T),
    ) {
        self.name(name);
        self.0.push('[');
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            write(&mut self.0, item);
        }
        self.0.push(']');
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Reads the members of a stored object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'v>(&'v Object);

impl<'v> Fields<'v> {
    pub(super) fn of(value: &'v Value) -> Result<Fields<'v>, MalformedEntry> {
        value
            .as_object()
            .map(Fields)
            .ok_or(MalformedEntry("an object"))
    }

    pub(super) fn get(&self, name: &'static str) -> Result<&'v Value, MalformedEntry> {
        self.0.get(name).ok_or(MalformedEntry(name))
    }

    pub(super) fn optional(&self, name: &str) -> Option<&'v Value> {
        self.0.get(name)
    }

    pub(super) fn object(&self, name: &'static str) -> Result<Fields<'v>, MalformedEntry> {
        self.get(name)?
            .as_object()
            .map(Fields)
            .ok_or(MalformedEntry(name))
    }

    pub(super) fn array(&self, name: &'static str) -> Result<&'v [Value], MalformedEntry> {
        self.get(name)?.as_array().ok_or(MalformedEntry(name))
    }

    pub(super) fn string(&self, name: &'static str) -> Result<&'v str, MalformedEntry> {
        self.get(name)?.as_str().ok_or(MalformedEntry(name))
    }

    pub(super) fn shared(&self, name: &'static str) -> Result<Arc<str>, MalformedEntry> {
        self.string(name).map(Arc::from)
    }

    pub(super) fn number(&self, name: &'static str) -> Result<u64, MalformedEntry> {
        self.get(name)?.as_u64().ok_or(MalformedEntry(name))
    }

    pub(super) fn small(&self, name: &'static str) -> Result<u8, MalformedEntry> {
        u8::try_from(self.number(name)?).map_err(|_| MalformedEntry(name))
    }

    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, MalformedEntry> {
        match self.get(name)? {
            Value::Bool(value) => Ok(*value),
            _ => Err(MalformedEntry(name)),
        }
    }

    pub(super) fn amount(&self, name: &'static str) -> Result<u64, MalformedEntry> {
        amount(self.string(name)?).ok_or(MalformedEntry(name))
    }

    pub(super) fn hash(&self, name: &'static str) -> Result<[u8; 32], MalformedEntry> {
        let mut hash = [0; 32];
        hex::decode_to_slice(self.string(name)?, &mut hash).map_err(|_| MalformedEntry(name))?;
        Ok(hash)
    }

    pub(super) fn key(&self, name: &'static str) -> Result<KeyHash, MalformedEntry> {
        self.hash(name).map(KeyHash)
    }
}

/// Reads an amount as the wire writes it: 1 to 20 decimal digits, at most 2⁶⁴ − 1 (section 6).
pub(super) fn amount(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
