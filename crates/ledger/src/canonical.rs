//! The canonical text: the one serialisation that ids and signatures are taken over (asset ledger,
//! section 4.2).

use crate::json::{Object, Value};

/// The canonical text of a value.
pub fn canon(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// The text whose SHA3-256 is a transaction's id: the canonical text with `id` null (section 4.3).
pub fn text_for_id(transaction: &Object) -> String {
    let mut out = String::new();
    write_object(&mut out, transaction, |out, key, value| match key {
        "id" => out.push_str("null"),
        _ => write_value(out, value),
    });
    out
}

/// The text that every input's signatures cover before the spent output is appended: the canonical
/// text with `id` and every `fulfillment` null (section 4.4, step 2).
pub fn text_for_signing(transaction: &Object) -> String {
    let mut out = String::new();
    write_object(&mut out, transaction, |out, key, value| {
        match (key, value) {
            ("id", _) => out.push_str("null"),
            ("inputs", Value::Array(inputs)) => {
                write_array(out, inputs, |out, input| match input {
                    Value::Object(input) => write_object(out, input, |out, key, value| match key {
                        "fulfillment" => out.push_str("null"),
                        _ => write_value(out, value),
                    }),
                    other => write_value(out, other),
                })
            }
            (_, value) => write_value(out, value),
        }
    });
    out
}

/// SHA3-256.
pub fn sha3(bytes: &[u8]) -> [u8; 32] {
    daybook_keccak::sha3_256(bytes)
}

/// Appends the canonical text of a string, quotes included.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let plain = plain_bytes(&bytes[at..]);
        out.push_str(&text[at..at + plain]);
        at += plain;
        let Some(&c) = bytes.get(at) else { break };
        match c {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0A => out.push_str("\\n"),
            0x0C => out.push_str("\\f"),
            0x0D => out.push_str("\\r"),
            _ => {
                out.push_str("\\u00");
                for digit in [c >> 4, c & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
        at += 1;
    }
    out.push('"');
}

/// How many bytes from the start need no escape in canonical text: up to the next `"`, `\` or byte
/// below 0x20. Looks at eight bytes at a time.
#[inline]
pub(crate) fn plain_bytes(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (LOW * b'"' as u64);
        let slash = word ^ (LOW * b'\\' as u64);
        // A byte's high bit is set where the byte is zero (or below 0x20). Borrows can only set
        // bits above a true hit, and the lowest one is taken.
        let hit = (quote.wrapping_sub(LOW) & !quote
            | slash.wrapping_sub(LOW) & !slash
            | word.wrapping_sub(LOW * 0x20) & !word)
            & HIGH;
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&c) = bytes.get(at) {
        if c == b'"' || c == b'\\' || c < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Integer(integer) => out.push_str(integer.as_str()),
        Value::Float(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => write_array(out, items, write_value),
        Value::Object(object) => write_object(out, object, |out, _, value| write_value(out, value)),
    }
}

fn write_array(out: &mut String, items: &[Value], mut item: impl FnMut(&mut String, &Value)) {
    out.push('[');
    for (i, value) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        item(out, value);
    }
    out.push(']');
}

fn write_object(
    out: &mut String,
    object: &Object,
    mut member: impl FnMut(&mut String, &str, &Value),
) {
    out.push('{');
    for (i, (key, value)) in object.sorted().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        member(out, key, value);
    }
    out.push('}');
}
