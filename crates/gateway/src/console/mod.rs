//! The web console: its files, what its pages read, and the stream that keeps them current
//! (docs/console.md).
//!
//! It belongs to the node that serves it. No other page may use it, whatever `allowed_origins` says:
//! that setting is for the protocols' clients.

mod data;
mod files;
mod live;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    Route,
    connection::Connection,
    reply::{Refused, Reply, not_found, refused},
    server::Gateway,
};

/// Everything that a page may do: run our scripts, use our styles, talk to the node that served it. No
/// inline script or style, no frame around it, no text that becomes markup.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The same for the page itself, whose policy counts for all scripts in it: it may also talk to the
/// machines that are known when it is loaded, each by its address.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'{machines}; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What every answer to the console carries.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    // For browsers that know no frame-ancestors.
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
];

/// Answers a request of the console.
pub(crate) async fn handle(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    route: Route,
    request: Request<Incoming>,
) -> Reply {
    let handled = match route {
        // A link from another site leads to the pages; what they are made of is for themselves.
        Route::Console => Ok(files::page()),
        _ if !is_own(request.headers()) => Err(refused(
            StatusCode::FORBIDDEN,
            "The console is for its own pages only",
        )
        .into()),
        Route::ConsoleLive => live::subscribe(gateway, connection, request),
        Route::ConsoleData => data::answer(gateway, connection, &request).await,
        _ => Ok(match below(request.uri().path(), "/console/") {
            Some(path) => files::file(path, request.headers()),
            None => not_found(),
        }),
    };
    let mut reply = handled.unwrap_or_else(|Refused(reply)| *reply);
    let headers = reply.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    if matches!(route, Route::Console) {
        let policy = gateway.machines.policy(PAGE_POLICY);
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    reply
}

/// What stands behind a prefix of a path, if anything does.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| !rest.is_empty())
}

/// Whether a request comes from a page of this very node, or from no page at all.
///
/// Browsers name the origin with every WebSocket, and say of the rest where it comes from. The scheme is
/// left out of account: behind a proxy that speaks TLS the node sees the other one.
pub(crate) fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let origin = text(header::ORIGIN);
    let same_host = |origin: &[u8]| {
        let authority = memchr::memmem::find(origin, b"://").map(|at| &origin[at + 3..]);
        authority
            .zip(text(header::HOST))
            .is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    };
    let site = text(HeaderName::from_static("sec-fetch-site"));
    origin.is_none_or(same_host) && matches!(site, None | Some(b"same-origin" | b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_own(&headers)
    }

    #[test]
    fn pages_of_the_node_and_clients_that_are_no_pages_are_its_own() {
        let host = ("host", "127.0.0.1:9984");
        assert!(own(&[host]));
        assert!(own(&[host, ("origin", "http://127.0.0.1:9984")]));
        assert!(own(&[host, ("origin", "https://127.0.0.1:9984")]));
        assert!(own(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(own(&[
            ("host", "Ledger.example"),
            ("origin", "https://ledger.EXAMPLE")
        ]));
    }

    #[test]
    fn other_pages_are_not_even_on_another_port_of_the_same_machine() {
        let host = ("host", "127.0.0.1:9984");
        for origin in [
            "http://127.0.0.1:3000",
            "http://localhost:9984",
            "https://evil.example",
            "http://evil.example/127.0.0.1:9984",
            "null",
            "",
        ] {
            assert!(!own(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(!own(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!own(&[host, ("sec-fetch-site", "same-site")]));
        assert!(!own(&[("origin", "http://127.0.0.1:9984")]));
    }
}
