//! Machines that use this node and say so, again and again, so that its console can show them
//! (docs/protocols/machines.md). Nothing of it is kept: a machine that falls silent is forgotten.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use daybook_ledger::json::Value;
use daybook_wire::assets::append_text;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::{
    body::{Unread, read_whole},
    connection::Connection,
    gate,
    reply::{Refused, Reply, json, refused, unavailable},
    server::Gateway,
};

/// Machines that are known at once: more than a page shows, and one header names all of them.
const MACHINES_MAX: usize = 64;
/// How long a machine is known after it last said that it is there: three of its own intervals and a
/// little more.
const KNOWN_FOR: Duration = Duration::from_secs(35);
/// Bytes of what a machine says of itself.
const BODY_BYTES_MAX: usize = 2 << 10;
/// How long it may take to say it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Nesting of it: one object.
const DEPTH_MAX: usize = 2;
/// Characters of a machine's name and role, and of its address.
const NAME_CHARS_MAX: usize = 64;
const URL_CHARS_MAX: usize = 128;

/// The machines that are there.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    known: Mutex<BTreeMap<Origin, Machine>>,
}

/// Where a machine is: scheme, host and port, in the one way of writing that a page's policy can name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin(String);

#[derive(Debug)]
struct Machine {
    name: String,
    role: String,
    seen: Instant,
}

/// Answers `GET` and `POST /api/v1/machines`.
pub(crate) async fn answer(
    gateway: &Gateway,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Reply, Refused> {
    let machines = &gateway.machines;
    if *request.method() != Method::POST {
        return Ok(json(StatusCode::OK, machines.list(Instant::now())));
    }
    if !may_announce(gateway, connection, request.headers()) {
        let text = "A machine on another computer shows the node's token, and no page is a machine";
        return Err(refused(StatusCode::FORBIDDEN, text).into());
    }
    let body = request.into_body();
    let read = read_whole(body, &gateway.budget, BODY_BYTES_MAX, BODY_TIMEOUT).await;
    let (text, _held) = read.map_err(|unread| match unread {
        Unread::TooLong => refused(StatusCode::PAYLOAD_TOO_LARGE, "Too much for a machine"),
        Unread::TooSlow => refused(StatusCode::REQUEST_TIMEOUT, "The body did not come in time"),
        Unread::Broken => refused(StatusCode::BAD_REQUEST, "The body broke off"),
        Unread::NoRoom => unavailable("The node is busy: try again"),
    })?;
    let (origin, machine) = read_machine(&text, Instant::now())
        .map_err(|reason| refused(StatusCode::BAD_REQUEST, reason))?;
    if !machines.take(origin, machine) {
        return Err(unavailable("As many machines are known as can be shown").into());
    }
    let seconds = KNOWN_FOR.as_secs();
    Ok(json(
        StatusCode::OK,
        format!("{{\"known_for_seconds\":{seconds}}}"),
    ))
}

/// A page of a stranger must not be able to put a machine beside those of the house, and neither must
/// who only reaches the listener.
fn may_announce(gateway: &Gateway, connection: &Connection, headers: &HeaderMap) -> bool {
    let is_page = ["origin", "sec-fetch-site"]
        .iter()
        .any(|name| headers.contains_key(*name));
    !is_page && gate::operates(gateway, connection, headers)
}

fn read_machine(text: &[u8], now: Instant) -> Result<(Origin, Machine), &'static str> {
    let value = Value::parse(text, DEPTH_MAX).map_err(|_| "The body is no JSON")?;
    let object = value.as_object().ok_or("The body is no object")?;
    let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let short = |text: &str| (1..=NAME_CHARS_MAX).contains(&text.chars().count());
    let (name, role) = (field("name"), field("role"));
    if !short(name) || !short(role) {
        return Err("`name` and `role` have 1 to 64 characters each");
    }
    let origin = Origin::read(field("url"))
        .ok_or("`url` is http:// or https://, a name or an IPv4 address, and a port")?;
    let machine = Machine {
        name: name.to_owned(),
        role: role.to_owned(),
        seen: now,
    };
    Ok((origin, machine))
}

impl Origin {
    /// Reads an address. What stands in a policy beside others must hold neither blanks nor
    /// semicolons; brackets of IPv6 have no meaning there.
    fn read(text: &str) -> Option<Origin> {
        if text.len() > URL_CHARS_MAX {
            return None;
        }
        let text = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = authority.rsplit_once(':')?;
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'.';
        let sound = ["http", "https"].contains(&scheme)
            && !host.is_empty()
            && host.bytes().all(plain)
            && port.bytes().all(|c| c.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0);
        sound.then_some(Origin(text))
    }
}

impl Machines {
    /// Takes a machine; false when there are too many.
    fn take(&self, origin: Origin, machine: Machine) -> bool {
        let mut known = self.known.lock();
        forget(&mut known, machine.seen);
        if known.len() >= MACHINES_MAX && !known.contains_key(&origin) {
            return false;
        }
        known.insert(origin, machine);
        true
    }

    fn list(&self, now: Instant) -> Vec<u8> {
        let mut known = self.known.lock();
        forget(&mut known, now);
        let mut out = b"{\"machines\":[".to_vec();
        for (place, (Origin(url), machine)) in known.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            for (before, text) in [
                ("{\"url\":", url),
                (",\"name\":", &machine.name),
                (",\"role\":", &machine.role),
            ] {
                out.extend_from_slice(before.as_bytes());
                append_text(&mut out, text);
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// The policy of a page that talks to this node and to the machines that are there now: `policy` with
    /// their addresses where `{machines}` stands in it.
    pub(crate) fn policy(&self, policy: &str) -> HeaderValue {
        let mut known = self.known.lock();
        forget(&mut known, Instant::now());
        let mut sources = String::new();
        for Origin(url) in known.keys() {
            // A WebSocket has a scheme of its own.
            let socket = url.replacen("http", "ws", 1);
            sources.push_str(&format!(" {url} {socket}"));
        }
        HeaderValue::try_from(policy.replace("{machines}", &sources))
            .expect("an origin has plain characters only")
    }
}

fn forget(known: &mut BTreeMap<Origin, Machine>, now: Instant) {
    known.retain(|_, machine| now.saturating_duration_since(machine.seen) < KNOWN_FOR);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn machine(seen: Instant) -> Machine {
        Machine {
            name: "Robot1".to_owned(),
            role: "robot".to_owned(),
            seen,
        }
    }

    #[test]
    fn an_address_is_an_origin_and_nothing_that_changes_a_policy() {
        let read = |text: &str| Origin::read(text).map(|origin| origin.0);
        assert_eq!(
            read("http://127.0.0.1:3001/").unwrap(),
            "http://127.0.0.1:3001"
        );
        assert_eq!(
            read("HTTPS://Robot-1.Example:443").unwrap(),
            "https://robot-1.example:443"
        );
        for text in [
            "",
            "http://127.0.0.1",
            "http://:3001",
            "http://127.0.0.1:0",
            "http://127.0.0.1:65536",
            "http://127.0.0.1:3001/a",
            "http://a b:1",
            "http://a;script-src *:1",
            "http://*:1",
            "http://user@host:1",
            "http://[::1]:1",
            "ftp://host:1",
            "javascript://host:1",
            "http://höst:1",
            "http://host:1,http://other:2",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_machine_says_is_bounded() {
        let now = Instant::now();
        let said = |text: &str| read_machine(text.as_bytes(), now).map(|(origin, _)| origin.0);
        let sound = r#"{"name":"R","role":"robot","url":"http://h:1","more":1}"#;
        assert_eq!(said(sound).unwrap(), "http://h:1");
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        for text in [
            "",
            "[]",
            "{}",
            r#"{"name":"","role":"robot","url":"http://h:1"}"#,
            r#"{"name":7,"role":"robot","url":"http://h:1"}"#,
            r#"{"name":"R","role":"robot","url":"h"}"#,
            &sound.replace("\"R\"", &format!("\"{long}\"")),
        ] {
            said(text).unwrap_err();
        }
    }

    #[test]
    fn a_silent_machine_is_forgotten_and_makes_room() {
        let machines = Machines::default();
        let (then, soon) = (Instant::now(), Instant::now() + KNOWN_FOR / 2);
        for port in 1..=MACHINES_MAX {
            let origin = Origin::read(&format!("http://h:{port}")).unwrap();
            assert!(machines.take(origin, machine(then)));
        }
        let (first, other) = (Origin("http://h:1".into()), Origin("http://h:9999".into()));
        assert!(!machines.take(other.clone(), machine(soon)));
        assert!(machines.take(first, machine(soon)));
        let later = then + KNOWN_FOR;
        assert!(machines.take(other, machine(later)));
        let listed = String::from_utf8(machines.list(later)).unwrap();
        assert_eq!(listed.matches("\"url\"").count(), 2);
        assert!(listed.contains(r#"{"url":"http://h:1","name":"Robot1","role":"robot"}"#));
    }

    #[test]
    fn a_policy_names_the_machines_that_are_there() {
        let machines = Machines::default();
        let policy = "connect-src 'self'{machines}; base-uri 'none'";
        assert_eq!(
            machines.policy(policy),
            "connect-src 'self'; base-uri 'none'"
        );
        machines.take(Origin("https://h:1".into()), machine(Instant::now()));
        assert_eq!(
            machines.policy(policy),
            "connect-src 'self' https://h:1 wss://h:1; base-uri 'none'"
        );
    }
}
