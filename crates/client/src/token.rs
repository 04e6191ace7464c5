//! Bearer tokens: read from files, never shown.

use std::{fmt, path::Path};

use crate::Error;

/// Longest token that is accepted, in bytes: a header line has to stay within what servers take.
const TOKEN_BYTES_MAX: usize = 4096;

/// A bearer token. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads a token from a file; white space around it is ignored.
    ///
    /// # Errors
    /// `Configuration` when the file cannot be read or holds no token.
    pub fn from_file(path: &Path) -> Result<Token, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Configuration(format!("token file {}: {e}", path.display())))?;
        Token::from_text(&text)
            .map_err(|e| Error::Configuration(format!("token file {}: {e}", path.display())))
    }

    /// A token from its text; white space around it is ignored.
    ///
    /// # Errors
    /// `Configuration` when it is empty, too long or not printable ASCII.
    pub fn from_text(text: &str) -> Result<Token, Error> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() <= TOKEN_BYTES_MAX;
        if !fits || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Configuration(format!(
                "a token is 1 to {TOKEN_BYTES_MAX} printable ASCII characters without spaces"
            )));
        }
        Ok(Token(text.to_owned()))
    }

    pub(crate) fn header(&self) -> http::HeaderValue {
        let mut value = http::HeaderValue::try_from(format!("Bearer {}", self.0))
            .expect("from_text admits printable ASCII only");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let token = Token::from_text(" s3cret\n").unwrap();
        assert_eq!(token.header(), "Bearer s3cret");
        assert!(!format!("{token:?} {:?}", token.header()).contains("s3cret"));
    }

    #[test]
    fn empty_long_and_unprintable_tokens_are_refused() {
        for text in ["", " \n", "a b", "é", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(Token::from_text(text).is_err());
        }
    }
}
