//! Strings inside canonical JSON, and the search terms inside strings.
//!
//! The texts come out of stored transactions, so they are canonical: no white space, sound escapes.
//! Anything else ends a walk early and never panics.

use std::borrow::Cow;

use daybook_ledger::TransactionId;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Walks over the string values of a JSON text at any depth; names of members are left out.
pub(crate) struct Strings<'t> {
    text: &'t str,
    at: usize,
}

/// The string values of `text`, in its order.
pub(crate) fn strings(text: &str) -> Strings<'_> {
    Strings { text, at: 0 }
}

impl<'t> Iterator for Strings<'t> {
    type Item = Cow<'t, str>;

    fn next(&mut self) -> Option<Cow<'t, str>> {
        loop {
            let bytes = self.text.as_bytes();
            let start = self.at
                + bytes
                    .get(self.at..)?
                    .iter()
                    .position(|byte| *byte == b'"')?;
            let end = string_end(bytes, start)?;
            self.at = end;
            if bytes.get(end) != Some(&b':') {
                return Some(unescape(&self.text[start + 1..end - 1]));
            }
        }
    }
}

/// The strings that a JSON text is or holds directly as items of an array.
pub(crate) fn exact_strings(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut at = match text.as_bytes().first() {
        Some(b'"') => 0,
        Some(b'[') => 1,
        _ => text.len(),
    };
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        loop {
            let start = at;
            let is_string = *bytes.get(start)? == b'"';
            at = value_end(bytes, start)?;
            let end = at;
            // Over the comma, or beyond the end.
            at += 1;
            if is_string {
                return Some(unescape(&text[start + 1..end - 1]));
            }
        }
    })
}

/// The id in a transaction's canonical text: the member `id` of the outermost object.
pub(crate) fn id_of(text: &[u8]) -> Option<TransactionId> {
    let mut at = 1;
    loop {
        let name_end = string_end(text, at)?;
        let name = &text[at..name_end];
        let start = name_end + 1;
        if name == b"\"id\"" {
            return TransactionId::from_hex(text.get(start + 1..start + 65)?).ok();
        }
        at = value_end(text, start)? + 1;
    }
}

/// One beyond the string whose opening quote is at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// One beyond the value that begins at `start`.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    loop {
        match bytes.get(at) {
            Some(b'"') => {
                at = string_end(bytes, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => match depth {
                // The end of what a bare number or word stands in.
                0 => return (at > start).then_some(at),
                1 => return Some(at + 1),
                _ => depth -= 1,
            },
            Some(b',') if depth == 0 => return (at > start).then_some(at),
            Some(_) => {}
            None => return (depth == 0 && at > start).then_some(at),
        }
        at += 1;
    }
}

fn unescape(inner: &str) -> Cow<'_, str> {
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut escape = rest[at + 1..].chars();
        let plain = match escape.next() {
            Some('b') => '\u{8}',
            Some('t') => '\t',
            Some('n') => '\n',
            Some('f') => '\u{c}',
            Some('r') => '\r',
            Some('u') => {
                let hex = escape
                    .as_str()
                    .get(..4)
                    .and_then(|hex| u32::from_str_radix(hex, 16).ok());
                escape = escape.as_str().get(4..).unwrap_or_default().chars();
                hex.and_then(char::from_u32)
                    .unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            Some(other) => other,
            None => break,
        };
        out.push(plain);
        rest = escape.as_str();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Cuts a string into search terms: split at all that is neither letter nor digit, case and accents
/// folded away.
pub(crate) fn terms(text: &str, mut each: impl FnMut(&str)) {
    let mut term = String::new();
    let mut take = |character: char| {
        if character.is_alphanumeric() {
            term.extend(character.to_lowercase());
        } else if !term.is_empty() {
            each(&term);
            term.clear();
        }
    };
    if text.is_ascii() {
        text.chars().for_each(&mut take);
    } else {
        // Compatibility decomposition parts a letter from its accents, which are then left out. Lower
        // case is taken after it and may decompose once more (as of İ), hence the second filter.
        let folded = text.nfkd().flat_map(char::to_lowercase).nfkd();
        folded
            .filter(|character| !is_combining_mark(*character))
            .for_each(&mut take);
    }
    take(' ');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn all_terms(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        terms(text, |term| found.push(term.to_owned()));
        found
    }

    #[test]
    fn values_are_walked_at_any_depth_and_names_are_not() {
        let text =
            r#"{"a":"one","b":[{"c":"two"},["three",4,null]],"d":{"e":{"f":"f\"our"}},"g":""}"#;
        assert_eq!(
            strings(text).collect::<Vec<_>>(),
            ["one", "two", "three", "f\"our", ""]
        );
        assert_eq!(strings(r#""alone""#).collect::<Vec<_>>(), ["alone"]);
        assert_eq!(strings("17").count(), 0);
    }

    #[test]
    fn escapes_are_read_as_the_canonical_text_writes_them() {
        assert_eq!(
            strings(r#""\"\\\b\t\n\f\r\u0001\u001F/é""#).next().unwrap(),
            "\"\\\u{8}\t\n\u{c}\r\u{1}\u{1f}/é"
        );
    }

    #[test]
    fn exact_strings_are_the_value_itself_or_items_of_an_array() {
        let found = |text| exact_strings(text).map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(found(r#""cid""#), ["cid"]);
        assert_eq!(
            found(r#"["a",1,["no"],{"k":"no"},"b",null,"c"]"#),
            ["a", "b", "c"]
        );
        assert_eq!(found(r#"{"k":"no"}"#), [""; 0]);
        assert_eq!(found("[]"), [""; 0]);
        assert_eq!(found("null"), [""; 0]);
    }

    #[test]
    fn the_id_is_found_behind_any_asset() {
        let id = "0c8be0e51ddd671a5b32da2e5ecd65c4ba0d68fef13d8c0de5df8fd2fba4bd47";
        let text =
            format!(r#"{{"asset":{{"data":{{"id":"x","s":"}}\"]"}}}},"id":"{id}","inputs":[]}}"#);
        assert_eq!(id_of(text.as_bytes()).unwrap().to_string(), id);
        for cut in 0..text.len() - 14 {
            assert_eq!(id_of(&text.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn broken_text_ends_a_walk_and_does_not_panic() {
        for text in [
            "",
            "\"",
            "\"\\",
            "[\"a\"",
            "[\"a\",",
            "{\"a\":\"b",
            "[}",
            "]",
            ",",
            "\"\\u12\"",
            "[[[",
        ] {
            let _ = strings(text).count();
            let _ = exact_strings(text).count();
            let _ = id_of(text.as_bytes());
        }
    }

    #[test]
    fn terms_know_neither_case_nor_accents_nor_punctuation() {
        assert_eq!(
            all_terms("Hello BigchainDB 1!"),
            ["hello", "bigchaindb", "1"]
        );
        assert_eq!(
            all_terms("Crème-brûlée; ÅNGSTRÖM, ﬁne"),
            ["creme", "brulee", "angstrom", "fine"]
        );
        assert_eq!(all_terms("İstanbul naïve ẞ"), ["istanbul", "naive", "ß"]);
        assert_eq!(all_terms("日本語 текст"), ["日本語", "текст"]);
        assert_eq!(all_terms("  ...  "), [""; 0]);
    }
}
