//! Payloads of events, read without being copied: a relayed message keeps its fields, their order and
//! the spelling of its numbers (service bus, section 5.2).

use std::borrow::Cow;

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{Code, Fault, Pattern};

/// Nesting of a payload at most: readers of other languages recurse into it.
pub const JSON_DEPTH_MAX: usize = 64;
/// Bytes of a request id at most (section 5.1).
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 256;
/// Bytes of a sticky key or of a queue's name at most.
const WORD_BYTES_MAX: usize = 256;
/// The longest deadline that a request may have.
pub(crate) const TIMEOUT_MS_MAX: u64 = 300_000;
/// The longest wait for an acknowledgement, or before a refused message is delivered again.
const ACK_WAIT_MS_MAX: u64 = 3_600_000;
/// Attempts that a durable subscription may ask for.
const MAX_DELIVER_MAX: u64 = 1_000;

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// There is none, or it is `null`.
    Missing,
    /// It is something else than an object.
    NotAnObject,
    /// It has one member twice; which of them counts would depend on the reader.
    Repeated,
}

/// The raw texts of the members called `names`, with `null` for absent. Others are skipped.
///
/// # Errors
/// See [`Malformed`].
pub fn fields<'a, const N: usize>(
    text: Option<&'a str>,
    names: &[&'static str; N],
) -> Result<[Option<&'a str>; N], Malformed> {
    struct Members<'n, const N: usize>(&'n [&'static str; N]);
    impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
        type Value = Result<[Option<&'de str>; N], Malformed>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            let mut seen = [false; N];
            let mut repeated = false;
            while let Some(Key(key)) = map.next_key()? {
                match self.0.iter().position(|name| *name == key) {
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                    Some(place) => {
                        let value = map.next_value::<&RawValue>()?.get();
                        repeated |= std::mem::replace(&mut seen[place], true);
                        found[place] = (value != "null").then_some(value);
                    }
                }
            }
            Ok(if repeated {
                Err(Malformed::Repeated)
            } else {
                Ok(found)
            })
        }
    }
    #[derive(serde::Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

    let text = text
        .filter(|text| *text != "null")
        .ok_or(Malformed::Missing)?;
    serde_json::Deserializer::from_str(text)
        .deserialize_map(Members(names))
        .map_err(|_| Malformed::NotAnObject)?
}

/// The string that a raw JSON text stands for.
pub fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// True when `text` nests no deeper than [`JSON_DEPTH_MAX`].
pub fn depth_within(text: &str, max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// How a request chooses its receivers (section 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The first answer counts.
    #[default]
    First,
    /// Every answer is passed on.
    All,
    /// Nobody answers.
    None,
}

/// `shake_i_am`.
pub(crate) struct Introduction<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) key: Option<Cow<'a, str>>,
    pub(crate) version: Option<String>,
    pub(crate) subscribes: bool,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) resume: Option<(String, String)>,
}

impl<'a> Introduction<'a> {
    pub(crate) fn read(text: Option<&'a str>) -> Introduction<'a> {
        let names = [
            "name",
            "key",
            "version",
            "features",
            "max_in_flight",
            "resume",
        ];
        let [name, key, version, features, max_in_flight, resume] =
            fields(text, &names).unwrap_or_default();
        let resume = resume
            .and_then(|raw| fields(Some(raw), &["id", "token"]).ok())
            .and_then(|[id, token]| {
                Some((text_of(id?)?.into_owned(), text_of(token?)?.into_owned()))
            });
        let features: Vec<String> = features
            .and_then(|raw| serde_json::from_str(raw).ok())
            .unwrap_or_default();
        Introduction {
            name: name.and_then(text_of),
            key: key.and_then(text_of).filter(|key| !key.is_empty()),
            version: version
                .and_then(text_of)
                .map(|v| v.chars().take(WORD_BYTES_MAX / 4).collect()),
            subscribes: features.iter().any(|feature| feature == "subscribe"),
            max_in_flight: max_in_flight.and_then(|raw| raw.parse().ok()),
            resume,
        }
    }
}

/// `api:request`.
pub(crate) struct Request<'a> {
    /// The name as JSON, quotes included: it becomes the name of the delivered event.
    pub(crate) name_json: &'a str,
    pub(crate) name: Cow<'a, str>,
    pub(crate) request_id: Cow<'a, str>,
    pub(crate) sender_id: Cow<'a, str>,
    pub(crate) sender_json: &'a str,
    pub(crate) delivery: Option<crate::Delivery>,
    pub(crate) reply: Reply,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) retry: bool,
    pub(crate) sticky: Option<Cow<'a, str>>,
    pub(crate) priority: u8,
    pub(crate) trace: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(crate) fn read(text: Option<&'a str>) -> Result<Request<'a>, Fault> {
        let names = [
            "name",
            "request_id",
            "sender_id",
            "delivery",
            "reply",
            "timeout_ms",
            "retry",
            "sticky",
            "priority",
            "trace",
        ];
        let [
            name,
            id,
            sender,
            delivery,
            reply,
            timeout,
            retry,
            sticky,
            priority,
            trace,
        ] = fields(text, &names).map_err(unreadable)?;
        let request_id = id.and_then(full_text);
        let name_json = name.unwrap_or_default();
        let name = name.and_then(full_text);
        let about = |fault: Fault| fault.about(request_id.as_deref(), name.as_deref());
        let wrong = |what: &'static str| about(Fault::because(Code::InvalidData, what));
        let missing = |what: &'static str| about(Fault::because(Code::NoRequiredFields, what));
        let choice = |raw: Option<&'a str>, all: &[&str]| match raw.map(text_of) {
            None => Ok(None),
            Some(Some(word)) => all.iter().position(|w| *w == word).map(Some).ok_or(()),
            Some(None) => Err(()),
        };
        let sender_id = sender
            .and_then(full_text)
            .ok_or_else(|| missing("sender_id is missing"))?;
        let delivery = match choice(delivery, &["auto", "one", "all"]) {
            Ok(None) => None,
            Ok(Some(0)) => Some(crate::Delivery::Auto),
            Ok(Some(1)) => Some(crate::Delivery::One),
            Ok(Some(_)) => Some(crate::Delivery::All),
            Err(()) => return Err(wrong("delivery must be auto, one or all")),
        };
        let reply = match choice(reply, &["first", "all", "none"]) {
            Ok(None | Some(0)) => Reply::First,
            Ok(Some(1)) => Reply::All,
            Ok(Some(_)) => Reply::None,
            Err(()) => return Err(wrong("reply must be first, all or none")),
        };
        let timeout_ms = match timeout.map(str::parse::<u64>) {
            None => None,
            Some(Ok(ms)) if (1..=TIMEOUT_MS_MAX).contains(&ms) => Some(ms),
            Some(_) => return Err(wrong("timeout_ms must be 1 to 300000")),
        };
        let retry = switch(retry).ok_or_else(|| wrong("retry must be true or false"))?;
        let sticky = match sticky.map(text_of) {
            None => None,
            Some(Some(key)) if key.len() <= WORD_BYTES_MAX => Some(key),
            Some(_) => return Err(wrong("sticky must be a text of at most 256 bytes")),
        };
        let priority = match priority.map(str::parse) {
            None => 0,
            Some(Ok(priority)) => priority,
            Some(Err(_)) => return Err(wrong("priority must be 0 to 255")),
        };
        let request_id = match &request_id {
            None => return Err(missing("request_id is missing")),
            Some(id) if id.len() > REQUEST_ID_BYTES_MAX => {
                let what = "request_id has more than 256 bytes";
                return Err(Fault::because(Code::InvalidData, what));
            }
            Some(id) => id.clone(),
        };
        Ok(Request {
            name_json,
            name: name.clone().ok_or_else(|| missing("name is missing"))?,
            request_id,
            sender_id,
            sender_json: sender.unwrap_or_default(),
            delivery,
            reply,
            timeout_ms,
            retry,
            sticky,
            priority,
            trace,
        })
    }
}

/// `api:response`.
pub(crate) struct Response<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) request_id: Cow<'a, str>,
    pub(crate) sender_id: Cow<'a, str>,
    pub(crate) recipient_id: Cow<'a, str>,
    pub(crate) recipient_json: &'a str,
    pub(crate) failed: bool,
}

impl<'a> Response<'a> {
    pub(crate) fn read(text: Option<&'a str>) -> Result<Response<'a>, Fault> {
        let names = ["name", "request_id", "sender_id", "recipient_id", "error"];
        let [name, id, sender, recipient, error] = fields(text, &names).map_err(unreadable)?;
        let request_id = id.and_then(full_text);
        let name = name.and_then(full_text);
        let missing = |what: &'static str| {
            Fault::because(Code::NoRequiredFields, what)
                .about(request_id.as_deref(), name.as_deref())
        };
        Ok(Response {
            sender_id: sender
                .and_then(full_text)
                .ok_or_else(|| missing("sender_id is missing"))?,
            recipient_id: recipient
                .and_then(full_text)
                .ok_or_else(|| missing("recipient_id is missing"))?,
            recipient_json: recipient.unwrap_or_default(),
            name: name.clone().ok_or_else(|| missing("name is missing"))?,
            request_id: request_id
                .clone()
                .ok_or_else(|| missing("request_id is missing"))?,
            failed: error.is_some(),
        })
    }
}

/// `_service:api:request:subscribe` and `…:unsubscribe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// What it listens to.
    pub pattern: Pattern,
    /// The group it shares the work with.
    pub queue: Option<String>,
    /// Unanswered deliveries at once.
    pub max_in_flight: Option<u32>,
    /// Messages wait for it, also while it is away.
    pub durable: bool,
    /// How long a delivery may stay unacknowledged.
    pub ack_wait_ms: Option<u64>,
    /// Attempts before a message is a dead letter.
    pub max_deliver: Option<u32>,
    /// Unsubscribing: what waits for the durable subscription is forgotten too.
    pub forget: bool,
}

impl Subscription {
    pub(crate) fn read(text: Option<&str>, code: Code) -> Result<Subscription, Fault> {
        let names = [
            "name",
            "queue",
            "max_in_flight",
            "durable",
            "ack_wait_ms",
            "max_deliver",
            "forget",
        ];
        let wrong = |what: &'static str| Fault::because(code, what);
        let [
            name,
            queue,
            in_flight,
            durable,
            ack_wait,
            max_deliver,
            forget,
        ] = fields(text, &names).map_err(|_| Fault::new(code))?;
        let name = name.and_then(full_text).ok_or(Fault::new(code))?;
        let pattern = Pattern::new(&name).map_err(|e| Fault::because(code, e.to_string()))?;
        let queue = match queue.map(full_text) {
            None => None,
            Some(Some(queue)) if queue.len() <= WORD_BYTES_MAX => Some(queue.into_owned()),
            Some(_) => return Err(wrong("queue must be a text of 1 to 256 bytes")),
        };
        let within = |raw: Option<&str>, max: u64, what: &'static str| match raw.map(str::parse) {
            None => Ok(None),
            Some(Ok(count)) if (1..=max).contains(&count) => Ok(Some(count)),
            Some(_) => Err(wrong(what)),
        };
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Subscription {
            pattern,
            queue,
            max_in_flight: within(
                in_flight,
                u32::MAX.into(),
                "max_in_flight must be 1 or more",
            )?
            .map(small),
            durable: switch(durable).ok_or_else(|| wrong("durable must be true or false"))?,
            ack_wait_ms: within(
                ack_wait,
                ACK_WAIT_MS_MAX,
                "ack_wait_ms must be 1 to 3600000",
            )?,
            max_deliver: within(
                max_deliver,
                MAX_DELIVER_MAX,
                "max_deliver must be 1 to 1000",
            )?
            .map(small),
            forget: switch(forget).ok_or_else(|| wrong("forget must be true or false"))?,
        })
    }
}

/// `_service:ack` and `_service:nak`.
pub(crate) struct Acknowledgement<'a> {
    pub(crate) delivery_id: Cow<'a, str>,
    pub(crate) delay_ms: u64,
    /// What the consumer says: a text, or the JSON of something else.
    pub(crate) error: Option<Cow<'a, str>>,
}

impl<'a> Acknowledgement<'a> {
    pub(crate) fn read(text: Option<&'a str>) -> Result<Acknowledgement<'a>, Fault> {
        let [id, delay, error] = fields(text, &["delivery_id", "delay_ms", "error"])
            .map_err(|_| Fault::new(Code::InvalidData))?;
        let delivery_id = id
            .and_then(full_text)
            .ok_or(Fault::because(Code::InvalidData, "delivery_id is missing"))?;
        let delay_ms = match delay.map(str::parse) {
            None => 0,
            Some(Ok(ms)) if ms <= ACK_WAIT_MS_MAX => ms,
            Some(_) => {
                let what = "delay_ms must be 0 to 3600000";
                return Err(Fault::because(Code::InvalidData, what));
            }
        };
        Ok(Acknowledgement {
            delivery_id,
            delay_ms,
            error: error.map(|raw| text_of(raw).unwrap_or(Cow::Borrowed(raw))),
        })
    }
}

/// `text` with the part `old`, which lies inside it, replaced by `new`.
pub(crate) fn spliced(text: &str, old: &str, new: &str) -> String {
    let at = (old.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    debug_assert!(at <= text.len() && at + old.len() <= text.len());
    let mut whole = String::with_capacity(text.len() + new.len());
    whole.push_str(&text[..at]);
    whole.push_str(new);
    whole.push_str(&text[at + old.len()..]);
    whole
}

/// The object `text` with further members at its end.
pub(crate) fn extended(text: &str, members: &str) -> String {
    let body = text.trim_end();
    let body = body.strip_suffix('}').unwrap_or(body);
    // An object that is relayed has required members, so there is always one to follow.
    format!("{body},{members}}}")
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn full_text(raw: &str) -> Option<Cow<'_, str>> {
    text_of(raw).filter(|text| !text.is_empty())
}

fn switch(raw: Option<&str>) -> Option<bool> {
    match raw {
        None | Some("false") => Some(false),
        Some("true") => Some(true),
        Some(_) => None,
    }
}

fn unreadable(why: Malformed) -> Fault {
    match why {
        Malformed::Missing => Fault::new(Code::NoRequiredFields),
        Malformed::NotAnObject => {
            Fault::because(Code::NoRequiredFields, "the payload must be an object")
        }
        Malformed::Repeated => Fault::because(Code::InvalidData, "a field stands there twice"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn members_are_found_raw_and_the_rest_is_skipped() {
        let text = r#" {"x":{"name":1},"name":"a\u0062","n": 1.0 ,"z":null} "#;
        let [name, n, z] = fields(Some(text), &["name", "n", "z"]).unwrap();
        assert_eq!((name, n, z), (Some(r#""a\u0062""#), Some("1.0"), None));
        assert_eq!(text_of(name.unwrap()).unwrap(), "ab");
    }

    #[test]
    fn what_is_no_object_or_says_a_thing_twice_is_refused() {
        for (text, why) in [
            (None, Malformed::Missing),
            (Some("null"), Malformed::Missing),
            (Some("[]"), Malformed::NotAnObject),
            (Some("7"), Malformed::NotAnObject),
            (Some(r#"{"name":1,"name":1}"#), Malformed::Repeated),
        ] {
            assert_eq!(fields(text, &["name"]), Err(why), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_measured_outside_texts() {
        assert!(depth_within(r#"{"a":"[[[[","b":[1]}"#, 2));
        assert!(!depth_within("[[[]]]", 2));
        assert!(depth_within(r#"["\"[[[["]"#, 1));
    }

    #[test]
    fn a_part_is_replaced_in_place_and_members_are_added_at_the_end() {
        let text = r#"{"a":1, "sender_id":"x","b":2.0}"#;
        let [sender] = fields(Some(text), &["sender_id"]).unwrap();
        let changed = spliced(text, sender.unwrap(), "\"me\"");
        assert_eq!(changed, r#"{"a":1, "sender_id":"me","b":2.0}"#);
        assert_eq!(extended(" {\"a\":1} ", "\"i\":0"), " {\"a\":1,\"i\":0}");
    }

    #[test]
    fn a_request_tells_what_is_missing_and_whom_it_concerns() {
        let fault = Request::read(Some(r#"{"name":"x","request_id":"r"}"#))
            .err()
            .unwrap();
        assert_eq!(fault.code, Code::NoRequiredFields);
        assert_eq!(fault.request_id.as_deref(), Some("r"));
        for text in [
            r#"{"name":"x","request_id":"r","sender_id":"s","delivery":"two"}"#,
            r#"{"name":"x","request_id":"r","sender_id":"s","timeout_ms":0}"#,
            r#"{"name":"x","request_id":"r","sender_id":"s","timeout_ms":"9"}"#,
            r#"{"name":"x","request_id":"r","sender_id":"s","retry":1}"#,
            r#"{"name":"x","request_id":"r","sender_id":"s","priority":-1}"#,
        ] {
            assert_eq!(
                Request::read(Some(text)).err().unwrap().code,
                Code::InvalidData,
                "{text}"
            );
        }
    }
}
