//! Names of services and requests, and patterns over them (service bus, sections 3, 6 and 14).

use std::fmt;

/// Bytes of a service name at most (section 3).
const SERVICE_NAME_BYTES_MAX: usize = 64;
/// Bytes of a request's name or of a pattern at most: names are words with dots between them.
pub const EVENT_NAME_BYTES_MAX: usize = 256;

/// What the broker and Socket.IO itself emit; without this list any service could forge them.
const RESERVED: [&str; 9] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "error",
    "ping",
    "pong",
    "newListener",
    "removeListener",
];
const RESERVED_PREFIXES: [&str; 5] = ["shake_", "_service:", "_service.", "_dead.", "api:"];

/// True for `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`.
pub fn is_service_name(text: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    text.len() <= SERVICE_NAME_BYTES_MAX
        && text
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && text.as_bytes().iter().all(plain)
}

/// True for names that no service may request under (section 6).
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Names, split at `.`: `*` stands for one part, `>` for the rest, one part or more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(std::sync::Arc<str>);

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is 1 to 256 bytes, and `>` may only be its last part")]
pub struct NotAPattern;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, too long, or has `>` before its end.
    pub fn new(text: &str) -> Result<Pattern, NotAPattern> {
        let parts: Vec<&str> = text.split('.').collect();
        let rest_is_last = parts.iter().rev().skip(1).all(|part| *part != ">");
        if text.is_empty() || text.len() > EVENT_NAME_BYTES_MAX || !rest_is_last {
            return Err(NotAPattern);
        }
        Ok(Pattern(text.into()))
    }

    /// The pattern of every name.
    pub fn everything() -> Pattern {
        Pattern(">".into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when it stands for exactly one name.
    pub fn is_plain(&self) -> bool {
        self.0.split('.').all(|part| part != "*" && part != ">")
    }

    /// True when `name` is one of those it stands for.
    pub fn matches(&self, name: &str) -> bool {
        let mut names = name.split('.');
        for part in self.0.split('.') {
            match (part, names.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (part, Some(name)) if part == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// True when every name that `other` stands for is one of this one's.
    pub fn covers(&self, other: &Pattern) -> bool {
        let mut others = other.0.split('.');
        for part in self.0.split('.') {
            match (part, others.next()) {
                (">", Some(_)) => return true,
                (_, Some(">")) => return false,
                ("*", Some(_)) => {}
                (part, Some(other)) if part == other => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn c23_a_star_stands_for_one_part_and_an_arrow_for_the_rest() {
        for (pattern, name, matches) in [
            ("grid.read", "grid.read", true),
            ("grid.read", "grid.readings", false),
            ("grid.*", "grid.read", true),
            ("grid.*", "grid", false),
            ("grid.*", "grid.read.now", false),
            ("grid.>", "grid.read", true),
            ("grid.>", "grid.read.now", true),
            ("grid.>", "grid", false),
            ("*.read", "grid.read", true),
            (">", "anything.at.all", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).unwrap().matches(name),
                matches,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_pattern_covers_what_it_cannot_be_outwitted_by() {
        for (wide, narrow, covers) in [
            ("grid.*", "grid.read", true),
            ("grid.*", "grid.*", true),
            ("grid.*", "grid.>", false),
            ("grid.>", "grid.*.now", true),
            ("grid.read", "grid.*", false),
            (">", ">", true),
            ("*", ">", false),
        ] {
            let (wide, narrow) = (Pattern::new(wide).unwrap(), Pattern::new(narrow).unwrap());
            assert_eq!(wide.covers(&narrow), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn what_the_broker_emits_itself_is_reserved() {
        for name in [
            "shake_error",
            "api:response",
            "disconnect",
            "_service:x",
            "_dead.x",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["grid.read", "apis", "connection", "serviceful"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn a_service_name_is_letters_digits_and_three_signs() {
        for (name, good) in [
            ("meter", true),
            ("a", true),
            ("A.b_c-9", true),
            ("", false),
            (".a", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(is_service_name(name), good, "{name}");
        }
        assert!(is_service_name(&"a".repeat(64)) && !is_service_name(&"a".repeat(65)));
    }
}
