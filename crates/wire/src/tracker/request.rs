//! Frames from clients: the envelope and the signed container in it (wallet tracker, sections 3.1 and
//! 3.4). Nothing is proven here; signed texts are handed on exactly as they came.

use std::{borrow::Cow, fmt};

use daybook_ledger::tracker::{Code, Container, Payload, Request, command, container_of};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A frame that was understood.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A request that is signed.
    Signed(Request),
    /// A request for the tracker's capabilities, which is not.
    Capabilities {
        /// The client's token.
        correlation: String,
    },
}

/// A frame that was not, and what to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The number of the command, when the frame has one.
    pub command: Option<u64>,
    /// The client's token; `None` when the frame is no envelope at all.
    pub correlation: Option<String>,
    /// The stable code (section 14).
    pub code: Code,
    /// The text for people; section 14's where it gives one.
    pub error: String,
}

/// Reads a frame. Of members that come twice the last one counts, as for most JSON parsers; nothing that
/// is signed stands between them. Unknown members are passed over.
///
/// # Errors
/// [`Malformed`], in the order of section 8: the envelope, the command, the container.
pub fn read(text: &str) -> Result<Frame, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| Malformed {
        command: None,
        correlation: None,
        code: Code::BadJson,
        error: format!("invalid message: {error}"),
    })?;
    let correlation = match envelope.correlation {
        None | Some(Member::Null) => Cow::Borrowed(""),
        Some(Member::Text(text)) => text,
        Some(_) => {
            return Err(Malformed {
                command: None,
                correlation: None,
                code: Code::BadJson,
                error: "invalid message: corrToken is not a string".to_owned(),
            });
        }
    };
    let malformed = |command, code, error| Malformed {
        command,
        correlation: Some(correlation.clone().into_owned()),
        code,
        error,
    };
    let bad_command = |shown: &dyn fmt::Display| {
        let error = format!("invalid message command: {shown}");
        malformed(None, Code::BadCommand, error)
    };
    let number = match envelope.command {
        Some(Member::Unsigned(number)) => number,
        Some(Member::Signed(number)) => return Err(bad_command(&number)),
        Some(_) => return Err(bad_command(&"not an integer")),
        None => return Err(bad_command(&"none")),
    };
    let bad_payload = |error: &str| malformed(Some(number), Code::BadPayload, error.to_owned());
    if number == command::CAPABILITIES {
        let correlation = correlation.into_owned();
        return Ok(Frame::Capabilities { correlation });
    }
    let container = container_of(number).ok_or_else(|| Malformed {
        command: Some(number),
        ..bad_command(&number)
    })?;
    let fields = match envelope.payload {
        None | Some(Contained::Null) => return Err(bad_payload("nil payload")),
        Some(Contained::Object(fields)) if fields.is_empty => {
            return Err(bad_payload("empty payload"));
        }
        Some(Contained::Object(fields)) => fields,
        Some(Contained::Other) => return Err(bad_payload("payload is not an object")),
    };
    let text = |name: &str, member: Option<Member<'_>>| match member {
        Some(Member::Text(text)) => Ok(text.into_owned()),
        Some(_) => Err(bad_payload(&format!("payload: {name} is not a string"))),
        None => Err(bad_payload(&format!("payload: {name} is missing"))),
    };
    let message = text("message", fields.message)?;
    let payload = match container {
        Container::CoSigned => Payload::CoSigned {
            message,
            from_pk: text("fromPK", fields.from_pk)?,
            from_sign: text("fromSign", fields.from_sign)?,
            to_pk: text("toPK", fields.to_pk)?,
            to_sign: text("toSign", fields.to_sign)?,
        },
        Container::Single => Payload::Single {
            message,
            pk: text("pk", fields.pk)?,
            sign: text("sign", fields.sign)?,
        },
    };
    Ok(Frame::Signed(Request {
        command: number,
        idempotent: matches!(envelope.idempotent, Some(Member::True)),
        correlation: correlation.into_owned(),
        payload,
    }))
}

/// The members of a frame, whatever is in them.
#[derive(Default)]
struct Envelope<'t> {
    command: Option<Member<'t>>,
    correlation: Option<Member<'t>>,
    idempotent: Option<Member<'t>>,
    payload: Option<Contained<'t>>,
}

/// What stands in `payload`.
enum Contained<'t> {
    Null,
    Object(Box<Fields<'t>>),
    Other,
}

/// The members of a container.
#[derive(Default)]
struct Fields<'t> {
    is_empty: bool,
    message: Option<Member<'t>>,
    pk: Option<Member<'t>>,
    sign: Option<Member<'t>>,
    from_pk: Option<Member<'t>>,
    from_sign: Option<Member<'t>>,
    to_pk: Option<Member<'t>>,
    to_sign: Option<Member<'t>>,
}

/// Any JSON value, kept only as far as an envelope needs it.
enum Member<'t> {
    Null,
    True,
    Text(Cow<'t, str>),
    Unsigned(u64),
    Signed(i64),
    Other,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "cmd" => envelope.command = Some(map.next_value()?),
                "corrToken" => envelope.correlation = Some(map.next_value()?),
                "idem" => envelope.idempotent = Some(map.next_value()?),
                "payload" => envelope.payload = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(envelope)
    }
}

impl<'de> Deserialize<'de> for Contained<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContainedVisitor)
    }
}

struct ContainedVisitor;

/// Visits of values that are looked at no further.
macro_rules! other {
    ($value:ty, $other:expr; $($visit:ident: $from:ty),*) => {
        $(fn $visit<E>(self, _: $from) -> Result<$value, E> {
            Ok($other)
        })*
    };
}

impl<'de> Visitor<'de> for ContainedVisitor {
    type Value = Contained<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    other!(Contained<'de>, Contained::Other;
        visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Contained<'de>, E> {
        Ok(Contained::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Contained<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Contained::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Contained<'de>, A::Error> {
        let mut fields = Box::new(Fields {
            is_empty: true,
            ..Fields::default()
        });
        while let Some(Name(name)) = map.next_key()? {
            fields.is_empty = false;
            let field = match &*name {
                "message" => &mut fields.message,
                "pk" => &mut fields.pk,
                "sign" => &mut fields.sign,
                "fromPK" => &mut fields.from_pk,
                "fromSign" => &mut fields.from_sign,
                "toPK" => &mut fields.to_pk,
                "toSign" => &mut fields.to_sign,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(Contained::Object(fields))
    }
}

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    other!(Member<'de>, Member::Other; visit_f64: f64);

    fn visit_unit<E>(self) -> Result<Member<'de>, E> {
        Ok(Member::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Member<'de>, E> {
        Ok(if value { Member::True } else { Member::Other })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member<'de>, E> {
        Ok(Member::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Member<'de>, E> {
        Ok(Member::Signed(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }
}

/// A member's name.
struct Name<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}
