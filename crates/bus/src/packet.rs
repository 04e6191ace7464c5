//! Socket.IO packets as text, revision 4 and 5, which are the same for everything but the connect
//! packet (service bus, section 2). What arrives is cut into parts and not copied.

use std::sync::Arc;

use serde::{
    Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The namespace of the bus.
pub const NAMESPACE: &str = "/communication";

/// What a client says in one packet.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    /// It wants to enter a namespace.
    Connect {
        /// Without the query that old clients append.
        namespace: &'a str,
    },
    /// It leaves a namespace.
    Disconnect {
        /// The one it leaves.
        namespace: &'a str,
    },
    /// An event.
    Event {
        /// Where.
        namespace: &'a str,
        /// Its name.
        name: std::borrow::Cow<'a, str>,
        /// The text of the first argument; further ones mean nothing here.
        argument: Option<&'a str>,
        /// The number under which the client waits for an acknowledgement.
        ack: Option<u64>,
    },
    /// An answer to an acknowledgement, which the broker never asks for.
    Ack,
    /// An event with attachments in following frames. They are not taken.
    Binary {
        /// Where.
        namespace: &'a str,
    },
}

/// The text is no Socket.IO packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Socket.IO packet")]
pub struct NotAPacket;

impl<'a> Packet<'a> {
    /// Reads one packet.
    ///
    /// # Errors
    /// When it is none. Such a connection is closed, as the reference server does.
    pub fn read(text: &'a str) -> Result<Packet<'a>, NotAPacket> {
        let kind = *text.as_bytes().first().ok_or(NotAPacket)?;
        let mut rest = text.get(1..).ok_or(NotAPacket)?;
        if matches!(kind, b'5' | b'6') {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest = rest[digits..].strip_prefix('-').ok_or(NotAPacket)?;
        }
        let namespace = if rest.starts_with('/') {
            let (namespace, after) = rest.split_once(',').unwrap_or((rest, ""));
            rest = after;
            // Old clients write their query behind the namespace.
            namespace.split('?').next().unwrap_or(namespace)
        } else {
            "/"
        };
        match kind {
            b'0' => Ok(Packet::Connect { namespace }),
            b'1' => Ok(Packet::Disconnect { namespace }),
            b'2' => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                let ack = match digits {
                    0 => None,
                    _ => Some(rest[..digits].parse().map_err(|_| NotAPacket)?),
                };
                let (name, argument) = arguments(&rest[digits..])?;
                Ok(Packet::Event {
                    namespace,
                    name,
                    argument,
                    ack,
                })
            }
            b'3' | b'6' => Ok(Packet::Ack),
            b'5' => Ok(Packet::Binary { namespace }),
            _ => Err(NotAPacket),
        }
    }
}

type Arguments<'a> = (std::borrow::Cow<'a, str>, Option<&'a str>);

/// Name and first argument of `["name", argument, …]`.
fn arguments(text: &str) -> Result<Arguments<'_>, NotAPacket> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = (&'de RawValue, Option<&'de RawValue>);
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array that begins with an event name")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let name = list
                .next_element()?
                .ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
            let argument = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok((name, argument))
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let (name, argument) = json.deserialize_seq(List).map_err(|_| NotAPacket)?;
    json.end().map_err(|_| NotAPacket)?;
    let name = crate::text_of(name.get()).ok_or(NotAPacket)?;
    Ok((name, argument.map(RawValue::get)))
}

/// The text of an event packet in the bus's namespace. `name` and `arguments` are JSON.
pub fn packet_text(name: &str, argument: Option<&str>) -> Arc<str> {
    const HEAD: &str = "2/communication,[";
    let mut text =
        String::with_capacity(HEAD.len() + name.len() + argument.map_or(0, |a| a.len() + 1) + 1);
    text.push_str(HEAD);
    text.push_str(name);
    if let Some(argument) = argument {
        text.push(',');
        text.push_str(argument);
    }
    text.push(']');
    text.into()
}

/// The text of an acknowledgement in the bus's namespace.
pub(crate) fn ack_text(ack: u64, argument: &str) -> Arc<str> {
    format!("3{NAMESPACE},{ack}[{argument}]").into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_is_cut_into_its_parts() {
        let text = r#"2/communication,17["api:request",{"a":[1,2]},"more"]"#;
        assert_eq!(
            Packet::read(text).unwrap(),
            Packet::Event {
                namespace: "/communication",
                name: "api:request".into(),
                argument: Some(r#"{"a":[1,2]}"#),
                ack: Some(17),
            }
        );
        let Packet::Event { name, argument, .. } = Packet::read("2[\"x\\u0041\"]").unwrap() else {
            panic!("no event")
        };
        assert_eq!((&*name, argument), ("xA", None));
    }

    #[test]
    fn a_namespace_may_end_the_packet_and_may_carry_a_query() {
        for text in [
            "0/communication",
            "0/communication,",
            "0/communication?b64=1,",
            "0/communication,{\"token\":1}",
        ] {
            assert_eq!(
                Packet::read(text),
                Ok(Packet::Connect {
                    namespace: NAMESPACE
                }),
                "{text}"
            );
        }
        assert_eq!(Packet::read("0"), Ok(Packet::Connect { namespace: "/" }));
        assert_eq!(Packet::read("1"), Ok(Packet::Disconnect { namespace: "/" }));
    }

    #[test]
    fn attachments_are_recognised() {
        let text = "51-/communication,[\"x\",{\"_placeholder\":true,\"num\":0}]";
        assert_eq!(
            Packet::read(text),
            Ok(Packet::Binary {
                namespace: NAMESPACE
            })
        );
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for text in [
            "",
            "9",
            "é",
            "2",
            "2[]",
            "2[1]",
            "2{}",
            "2[\"a\"",
            "2[\"a\"]x",
            "5x",
            "299999999999999999999[\"a\"]",
        ] {
            assert_eq!(Packet::read(text), Err(NotAPacket), "{text}");
        }
    }

    #[test]
    fn no_argument_is_no_argument_and_not_null() {
        assert_eq!(
            &*packet_text("\"shake_who\"", None),
            "2/communication,[\"shake_who\"]"
        );
    }
}
