//! Who may ask: host names, browser origins, rates and the write token. All of it is decided from the
//! head of a request.

use std::{net::IpAddr, time::Instant};

use daybook_wire::events::Sight;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    Origins, Route,
    connection::Connection,
    console::is_own as is_same_site,
    reply::{Refused, Reply, refused},
    server::Gateway,
};

/// What proxies add to a request that they pass on (RFC 7239, RFC 9110 section 7.6.3, and the usage
/// before them).
const PROXIES_SAY: [HeaderName; 5] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("via"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
];

const ANY: HeaderValue = HeaderValue::from_static("*");

/// What a preflight allows (asset ledger, section 3.1).
const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS, POST");

/// Seconds for which a browser remembers a preflight.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Refuses a request that may not be served.
pub(crate) fn check(
    gateway: &Gateway,
    connection: &Connection,
    route: Option<Route>,
    method: &Method,
    headers: &HeaderMap,
    now: Instant,
) -> Result<(), Refused> {
    if connection.endpoint.loopback && !is_own_host(&gateway.hosts, headers) {
        return Err(refused(
            StatusCode::MISDIRECTED_REQUEST,
            "This node listens on loopback only and does not know the host that the request names",
        )
        .into());
    }
    if let Some(rates) = &gateway.rates
        && let Err(wait) = rates.take(connection.peer, 1, now)
    {
        let mut reply = refused(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests: slow down",
        );
        let seconds = HeaderValue::from(wait.as_secs().saturating_add(1));
        reply.headers_mut().insert(header::RETRY_AFTER, seconds);
        return Err(reply.into());
    }
    let Some(route) = route else { return Ok(()) };
    let submits = *method == Method::POST || route.submits();
    if (submits || route.streams() || *method == Method::OPTIONS)
        && let Some(origin) = headers.get(header::ORIGIN)
        && !gateway.settings.allowed_origins.allow(origin.as_bytes())
    {
        return Err(refused(
            StatusCode::FORBIDDEN,
            "Pages of this origin may not use the node",
        )
        .into());
    }
    // A preflight carries no credentials by definition (Fetch standard, "CORS-preflight fetch").
    if submits
        && *method != Method::OPTIONS
        && let Some(token) = &gateway.settings.write_token
        && !bearer(headers).is_some_and(|shown| token.accepts(shown))
    {
        let mut reply = refused(StatusCode::UNAUTHORIZED, "Writing needs a bearer token");
        reply
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, gateway.challenge.clone());
        return Err(reply.into());
    }
    Ok(())
}

/// How much of the tracker's entries a request is shown beside its own protocol: everything where the
/// log is public, and to the operator. That is who shows the node's token; on a node without one, and
/// without a name for others, who asks from the machine itself and neither through a proxy, which would
/// stand for anybody, nor from a page of somebody else.
pub(crate) fn sight(gateway: &Gateway, connection: &Connection, headers: &HeaderMap) -> Sight {
    match usual_sight(gateway) {
        Sight::Outline if operates(gateway, connection, headers) => Sight::Whole,
        usual => usual,
    }
}

/// Whether the operator asks, or a program of the operator's.
pub(crate) fn operates(gateway: &Gateway, connection: &Connection, headers: &HeaderMap) -> bool {
    match &gateway.settings.write_token {
        Some(token) => bearer(headers).is_some_and(|shown| token.accepts(shown)),
        None => {
            connection.peer.to_canonical().is_loopback()
                && is_at_home(headers)
                && is_private(&gateway.hosts)
        }
    }
}

/// Whether a node's settings know it under names of this machine alone. One that others know by a name is
/// reached through something, and whatever that is would be taken for the operator.
fn is_private(hosts: &[String]) -> bool {
    hosts.iter().all(|host| is_loopback(host))
}

/// How much of them everybody is shown.
pub(crate) fn usual_sight(gateway: &Gateway) -> Sight {
    match &gateway.tracker {
        Some(tracker) if tracker.public_log => Sight::Whole,
        _ => Sight::Outline,
    }
}

/// Whether a request names this machine as only a program or a page of it would, and no proxy says that
/// it asks for another.
fn is_at_home(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    host.is_some_and(|host| is_loopback(host_name(host)))
        && is_same_site(headers)
        && !PROXIES_SAY.iter().any(|name| headers.contains_key(name))
}

/// Tells browsers which pages may read an answer.
pub(crate) fn allow_origin(
    origins: &Origins,
    route: Option<Route>,
    origin: Option<HeaderValue>,
    reply: &mut Reply,
) {
    // How the node runs is nobody's business but the operator's; the console is for itself alone.
    if route.is_some_and(|route| route.is_operational() || route.is_console()) {
        return;
    }
    let headers = reply.headers_mut();
    match origins {
        Origins::Any => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        }
        Origins::List(_) => {
            headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
            if let Some(origin) = origin.filter(|origin| origins.allow(origin.as_bytes())) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            }
        }
    }
}

/// Answers `OPTIONS`: methods, and every header that was asked for.
pub(crate) fn preflight(route: Route, asked: &HeaderMap, reply: &mut Reply) {
    let headers = reply.headers_mut();
    headers.insert(header::ALLOW, route.allow());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    if let Some(asked) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
}

/// A page of an attacker can have its own name resolve to 127.0.0.1 and then is of the same origin as
/// the node, as far as the browser can tell. Its name in `Host` gives it away.
fn is_own_host(hosts: &[String], headers: &HeaderMap) -> bool {
    // HTTP/1.0 without a host comes from no browser.
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = host_name(host);
    let plain = name.strip_suffix('.').unwrap_or(name);
    is_loopback(name) || hosts.iter().any(|own| own.eq_ignore_ascii_case(plain))
}

/// Whether a host's name is always that of the machine itself.
fn is_loopback(name: &str) -> bool {
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() >= 9
        && name.is_char_boundary(name.len() - 9)
        && name[name.len() - 9..].eq_ignore_ascii_case("localhost")
        && (name.len() == 9 || name.as_bytes()[name.len() - 10] == b'.')
}

/// A `Host` without its port and without the brackets of an IPv6 address.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = shown.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Whether `name` lists `token` among comma-separated values.
pub(crate) fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_home(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_at_home(&headers)
    }

    #[test]
    fn programs_and_pages_of_the_machine_are_at_home() {
        assert!(at_home(&[("host", "localhost:9984")]));
        assert!(at_home(&[("host", "[::1]:9984")]));
        let host = ("host", "127.0.0.1:9984");
        assert!(at_home(&[host, ("origin", "http://127.0.0.1:9984")]));
    }

    #[test]
    fn what_comes_through_a_proxy_or_from_another_page_is_not() {
        let host = ("host", "127.0.0.1:9984");
        for header in [
            ("x-forwarded-for", "203.0.113.7"),
            ("forwarded", "for=203.0.113.7"),
            ("via", "1.1 proxy"),
            ("x-real-ip", "203.0.113.7"),
            ("origin", "https://evil.example"),
            ("origin", "http://127.0.0.1:3000"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert!(!at_home(&[host, header]), "{header:?}");
        }
        assert!(!at_home(&[("host", "ledger.example")]));
        assert!(!at_home(&[]), "HTTP/1.0, as some proxies speak it");
    }

    #[test]
    fn a_node_that_others_know_by_a_name_is_not_private() {
        let private = |hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
            is_private(&hosts)
        };
        assert!(private(&[]) && private(&["localhost", "127.0.0.1"]));
        assert!(!private(&["localhost", "ledger.example"]));
    }

    fn own(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a header"));
        is_own_host(&["ledger.example".to_owned()], &headers)
    }

    #[test]
    fn loopback_names_and_the_advertised_host_are_the_nodes_own() {
        for host in [
            "localhost:9984",
            "LOCALHOST",
            "127.0.0.1:9984",
            "127.8.8.8",
            "[::1]:9984",
            "[::1]",
            "node.localhost:1",
            "localhost.",
            "ledger.example",
            "Ledger.Example:443",
        ] {
            assert!(own(host), "{host}");
        }
    }

    #[test]
    fn other_names_are_not_even_if_they_resolve_to_loopback() {
        for host in [
            "evil.example:9984",
            "notlocalhost",
            "localhost.evil.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!own(host), "{host}");
        }
    }
}
