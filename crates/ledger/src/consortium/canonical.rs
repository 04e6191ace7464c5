//! The two ways in which JSON becomes bytes here: `C`, which hashes cover (section 4.3), and `J`,
//! which the original's signatures cover (section 5.2).

use std::fmt::Write as _;

use crate::json::{Object, Value};

/// `C(value)`: members sorted by code point, no spaces, escapes only where JSON demands them, in
/// lower-case hexadecimal.
pub fn canon(value: &Value) -> String {
    let mut out = String::new();
    write_canon(&mut out, value);
    out
}

/// As [`canon`], of an object.
pub fn canon_object(object: &Object) -> String {
    let mut out = String::new();
    write_object(&mut out, object);
    out
}

fn write_canon(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canon(out, item);
            }
            out.push(']');
        }
        Value::Object(object) => write_object(out, object),
        plain => write_plain(out, plain),
    }
}

fn write_object(out: &mut String, object: &Object) {
    out.push('{');
    for (i, (name, value)) in object.sorted().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        write_canon(out, value);
    }
    out.push('}');
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        let plain = crate::canonical::plain_bytes(rest.as_bytes());
        let (before, after) = rest.split_at(plain);
        out.push_str(before);
        let mut characters = after.chars();
        let Some(escaped) = characters.next() else {
            break;
        };
        write_escape(out, escaped);
        rest = characters.as_str();
    }
    out.push('"');
}

/// `J(value)`: what Python's `json.dumps` writes by default. Members as they were written, a space
/// after `,` and `:`, everything beyond printable ASCII escaped.
pub fn dumps(value: &Value) -> String {
    let mut out = String::new();
    write_dumps(&mut out, value);
    out
}

fn write_dumps(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_ascii(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_dumps(out, item);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (i, (name, value)) in object.as_written().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_ascii(out, name);
                out.push_str(": ");
                write_dumps(out, value);
            }
            out.push('}');
        }
        plain => write_plain(out, plain),
    }
}

fn write_ascii(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' | '\0'..='\u{1f}' => write_escape(out, character),
            ' '..='~' => out.push(character),
            beyond => {
                for unit in beyond.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// The escape of a quote, a backslash or a control character; both forms have the same.
fn write_escape(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\t' => out.push_str("\\t"),
        '\n' => out.push_str("\\n"),
        '\u{c}' => out.push_str("\\f"),
        '\r' => out.push_str("\\r"),
        control => {
            let _ = write!(out, "\\u{:04x}", u32::from(control));
        }
    }
}

/// What has no parts; both forms write it alike.
fn write_plain(out: &mut String, value: &Value) {
    match value {
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Integer(integer) => out.push_str(integer.as_str()),
        Value::Float(number) => {
            let _ = write!(out, "{number}");
        }
        _ => out.push_str("null"),
    }
}

/// Whether the value holds a number that is not an integer; its spelling depends on the language that
/// wrote it.
pub fn has_fractions(value: &Value) -> bool {
    match value {
        Value::Float(_) => true,
        Value::Array(items) => items.iter().any(has_fractions),
        Value::Object(object) => object.as_written().any(|(_, value)| has_fractions(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Value {
        text.parse().unwrap()
    }

    #[test]
    fn members_are_sorted_by_code_point_and_not_by_utf_16_unit() {
        let value = parse("{\"b\":1,\"\u{1f600}\":2,\"\u{ffff}\":3,\"a\":4}");
        assert_eq!(
            canon(&value),
            "{\"a\":4,\"b\":1,\"\u{ffff}\":3,\"\u{1f600}\":2}"
        );
    }

    #[test]
    fn only_what_json_demands_is_escaped_in_the_canonical_form() {
        let value = parse("\"/\\u007f\\u2028\\u0001\\u001F\\b\\f\\n\\r\\t\\\"\\\\\\u0439\"");
        assert_eq!(
            canon(&value),
            "\"/\u{7f}\u{2028}\\u0001\\u001f\\b\\f\\n\\r\\t\\\"\\\\й\""
        );
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let value = parse("[1.0,1e16,1e-7,-0.0,1.5,-0,123456789012345678901234567890]");
        assert_eq!(
            canon(&value),
            "[1.0,1e+16,1e-07,-0.0,1.5,0,123456789012345678901234567890]"
        );
    }

    #[test]
    fn the_signed_form_keeps_the_order_and_escapes_all_but_printable_ascii() {
        let value = parse("{\"b\":[1,\"\u{7f}\u{1f600}й/\"],\"a\":{},\"c\":[]}");
        assert_eq!(
            dumps(&value),
            "{\"b\": [1, \"\\u007f\\ud83d\\ude00\\u0439/\"], \"a\": {}, \"c\": []}"
        );
    }
}
