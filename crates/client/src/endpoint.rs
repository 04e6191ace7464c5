//! Where a node listens.

use std::{fmt, str::FromStr};

/// The port that clients of this protocol try when an address names none (asset ledger, section 3.1).
const PORT_DEFAULT: u16 = 9984;
/// The port of `https` addresses that name none: such a node stands behind a proxy.
const PORT_TLS_DEFAULT: u16 = 443;

/// The address of a node: `http://host:port`, `https://host:port`, or just `host:port`. A path in
/// front of `/api/v1` (a proxy's) is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) prefix: String,
}

/// The text is not the address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the address of a node, such as http://127.0.0.1:9984")]
pub struct NotAnEndpoint(String);

impl Endpoint {
    /// True when the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port as they appear in a `Host` header and in a connection attempt.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(crate) fn url(&self, path_and_query: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!(
            "{scheme}://{}{}{path_and_query}",
            self.authority(),
            self.prefix
        )
    }

    pub(crate) fn socket_url(&self, path_and_query: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!(
            "{scheme}://{}{}{path_and_query}",
            self.authority(),
            self.prefix
        )
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(""))
    }
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, NotAnEndpoint> {
        let wrong = || NotAnEndpoint(text.to_owned());
        let (secure, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("http" | "ws", rest)) => (false, rest),
            Some(("https" | "wss", rest)) => (true, rest),
            Some(_) => return Err(wrong()),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let prefix = path.trim_end_matches('/').trim_end_matches("/api/v1");
        let authority: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        // A user name or password in an address would end up in logs and process lists.
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let named = authority.as_str().len() > authority.host().len();
        let port = match (authority.port_u16(), named) {
            (Some(port), _) => port,
            (None, false) if secure => PORT_TLS_DEFAULT,
            (None, false) => PORT_DEFAULT,
            (None, true) => return Err(wrong()),
        };
        let endpoint = Endpoint {
            secure,
            host: host.to_owned(),
            port,
            prefix: prefix.to_owned(),
        };
        if host.is_empty() || endpoint.url("/").parse::<http::Uri>().is_err() {
            return Err(wrong());
        }
        Ok(endpoint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_the_one_that_its_scheme_implies() {
        let url = |text: &str| text.parse::<Endpoint>().unwrap().url("/x");
        assert_eq!(url("node"), "http://node:9984/x");
        assert_eq!(url("http://node"), "http://node:9984/x");
        assert_eq!(url("https://node"), "https://node:443/x");
        assert_eq!(url("127.0.0.1:1"), "http://127.0.0.1:1/x");
        assert_eq!(url("http://[::1]:7"), "http://[::1]:7/x");
    }

    #[test]
    fn a_proxy_path_is_kept_and_the_api_root_is_not_doubled() {
        let url = |text: &str| text.parse::<Endpoint>().unwrap().url("/api/v1/outputs");
        assert_eq!(
            url("https://h/ledger/"),
            "https://h:443/ledger/api/v1/outputs"
        );
        assert_eq!(url("http://h:9/api/v1/"), "http://h:9/api/v1/outputs");
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            "http://",
            "ftp://h",
            "http://h:",
            "http://h:99999",
            "http://u:p@h",
            "a b",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
