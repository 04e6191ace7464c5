//! What the broker says when it refuses (service bus, sections 3 and 7).

use std::borrow::Cow;

use serde_json::{Value, json};

macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $message:literal;)+) => {
        /// A refusal's code: a public promise, never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)]
        pub enum Code { $($variant,)+ }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The code on the wire.
            pub const fn code(self) -> &'static str {
                match self { $(Code::$variant => $code,)+ }
            }

            /// The status beside it, after HTTP's.
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)+ }
            }

            /// What it means, for people.
            pub const fn message(self) -> &'static str {
                match self { $(Code::$variant => $message,)+ }
            }
        }
    };
}

codes! {
    RequestTimeout "request_timeout" 408 "the handshake took too long";
    InvalidName "invalid_name" 400 "the service name is missing or malformed";
    InvalidKey "invalid_key" 400 "the key is missing or wrong";
    NoId "no_id" 400 "shake_ready carries no id";
    InvalidId "invalid_id" 400 "shake_ready carries an id that is not this connection's";
    AlreadyIdentified "already_identified" 409 "this connection has introduced itself already";
    NotOnline "not_online" 403 "the handshake is not finished";
    NoRequiredFields "no_required_fields" 400 "a required field is missing";
    InvalidData "invalid_data" 400 "the payload is not what this event takes";
    ReservedName "reserved_name" 400 "this name is the broker's own";
    Forbidden "forbidden" 403 "the key does not allow this name";
    InvalidSender "invalid_sender" 403 "the id is not this connection's";
    NotARecipient "not_a_recipient" 403 "the request was not delivered to this connection";
    UnknownRequest "unknown_request" 404 "there is no such open request";
    DuplicateRequest "duplicate_request" 409 "this request id belongs to another request";
    NoResponders "no_responders" 503 "nobody listens to this name";
    Timeout "timeout" 504 "no answer came in time";
    Overloaded "overloaded" 503 "everybody who could answer is busy";
    RateLimited "rate_limited" 429 "too many requests from this connection";
    PayloadTooLarge "payload_too_large" 413 "the message is too large";
    RecipientGone "recipient_gone" 502 "the instance that had the request went away before it answered";
    InvalidSubscribe "invalid_data_on_service:api:request:subscribe" 400 "a subscription needs a name";
    InvalidUnsubscribe "invalid_data_on_service:api:request:unsubscribe" 400 "an unsubscription needs a name";
    UnknownDelivery "unknown_delivery" 404 "there is no such open delivery";
    Revoked "revoked" 403 "the key was revoked";
}

/// A refusal with what is known of the message that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code.
    pub code: Code,
    /// Why, where that is more than the code's own sentence.
    pub message: Cow<'static, str>,
    /// The request's id, where it could be read.
    pub request_id: Option<String>,
    /// The request's name, where it could be read.
    pub name: Option<String>,
    /// When the same may be tried again.
    pub retry_after_ms: Option<u64>,
}

impl Fault {
    /// The plain refusal.
    pub fn new(code: Code) -> Fault {
        Fault {
            code,
            message: Cow::Borrowed(code.message()),
            request_id: None,
            name: None,
            retry_after_ms: None,
        }
    }

    /// A refusal with a sentence of its own.
    pub fn because(code: Code, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault {
            message: message.into(),
            ..Fault::new(code)
        }
    }

    pub(crate) fn about(mut self, request_id: Option<&str>, name: Option<&str>) -> Fault {
        self.request_id = request_id.map(str::to_owned);
        self.name = name.map(str::to_owned);
        self
    }

    /// `{error:{message, code, status}}` with `request_id` and `name` (section 7, first shape).
    pub(crate) fn wrapped(&self, code_dialect: bool) -> Value {
        json!({"error": self.members(code_dialect)})
    }

    /// `{message, code, status}` (section 7, second shape).
    pub(crate) fn flat(&self) -> Value {
        json!({"message": self.message, "code": self.code.code(), "status": self.code.status()})
    }

    fn members(&self, code_dialect: bool) -> Value {
        let mut members = json!({
            "message": self.message,
            "code": self.code.code(),
            "status": self.code.status(),
        });
        // The note says one word for a wrong key and the original's code another (section 3).
        if self.code == Code::InvalidKey {
            let (code, legacy) = match code_dialect {
                false => ("invalid_key", "invalid_secret_key"),
                true => ("invalid_secret_key", "invalid_key"),
            };
            members["code"] = code.into();
            members["legacy_code"] = legacy.into();
        }
        if let Some(request_id) = &self.request_id {
            members["request_id"] = request_id.as_str().into();
        }
        if let Some(name) = &self.name {
            members["name"] = name.as_str().into();
        }
        if let Some(wait) = self.retry_after_ms {
            members["retry_after_ms"] = wait.into();
        }
        members
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Fault {
        Fault::new(code)
    }
}
