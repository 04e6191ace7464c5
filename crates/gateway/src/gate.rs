//! Who may ask: host names, browser origins, rates and the write token. All of it is decided from the
//! head of a request.

use std::{net::IpAddr, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    Origins, Route,
    connection::Connection,
    reply::{Refused, Reply, refused},
    server::Gateway,
};

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
    if name
        .parse::<IpAddr>()
        .is_ok_and(|address| address.to_canonical().is_loopback())
    {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let localhost = name.len() >= 9
        && name.is_char_boundary(name.len() - 9)
        && name[name.len() - 9..].eq_ignore_ascii_case("localhost")
        && (name.len() == 9 || name.as_bytes()[name.len() - 10] == b'.');
    localhost || hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
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
