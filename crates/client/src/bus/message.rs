//! What is asked, and what can be wrong with it.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::Error;

/// The key of a service. `Debug` does not show it.
#[derive(Clone)]
pub struct BusKey(pub(super) String);

impl BusKey {
    /// The key with this text; white space around it is ignored.
    pub fn new(text: &str) -> BusKey {
        BusKey(text.trim().to_owned())
    }
}

impl fmt::Debug for BusKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusKey(…)")
    }
}

/// Who gets a request (service bus, section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every plain subscriber and one member of each group.
    Auto,
    /// Exactly one instance.
    One,
    /// Every instance.
    All,
}

/// Which answers count (section 5.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// The first.
    #[default]
    First,
    /// All of them; the call ends when the last one has come, or at its deadline.
    All,
    /// None: the call ends when the broker has taken it.
    None,
}

/// How a call is made.
#[derive(Clone, Debug)]
pub struct Call {
    /// How long the answer may take, 1 ms to 5 minutes.
    pub timeout: Duration,
    /// Who gets it; `None` leaves it to the broker, which takes `auto`.
    pub delivery: Option<Delivery>,
    /// Which answers count.
    pub reply: Reply,
    /// It may be delivered to somebody else when its receiver goes away.
    pub retry: bool,
    /// The same key goes to the same member of a group.
    pub sticky: Option<String>,
    /// Passed on for tracing.
    pub trace: Option<Value>,
    /// Its id; the same id has one effect. `None` makes a new one.
    pub request_id: Option<String>,
}

impl Default for Call {
    fn default() -> Call {
        Call {
            timeout: Duration::from_secs(5),
            delivery: None,
            reply: Reply::First,
            retry: false,
            sticky: None,
            trace: None,
            request_id: None,
        }
    }
}

impl Call {
    /// A call that waits this long.
    pub fn within(timeout: Duration) -> Call {
        Call {
            timeout,
            ..Call::default()
        }
    }

    pub(super) fn members(&self, request: &mut Value) {
        let ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        request["timeout_ms"] = ms.clamp(1, 300_000).into();
        if let Some(delivery) = self.delivery {
            request["delivery"] = match delivery {
                Delivery::Auto => "auto",
                Delivery::One => "one",
                Delivery::All => "all",
            }
            .into();
        }
        match self.reply {
            Reply::First => {}
            Reply::All => request["reply"] = "all".into(),
            Reply::None => request["reply"] = "none".into(),
        }
        if self.retry {
            request["retry"] = true.into();
        }
        if let Some(sticky) = &self.sticky {
            request["sticky"] = sticky.as_str().into();
        }
        if let Some(trace) = &self.trace {
            request["trace"] = trace.clone();
        }
    }
}

/// How a name is listened to.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    /// Share the work with all who name the same queue.
    pub queue: Option<String>,
    /// Unanswered deliveries at once.
    pub max_in_flight: Option<u32>,
    /// Messages wait on the broker until they are acknowledged ([`super::Incoming::acknowledge`]).
    pub durable: bool,
    /// How long a durable delivery may stay unacknowledged.
    pub ack_wait: Option<Duration>,
    /// Attempts before a message is a dead letter.
    pub max_deliver: Option<u32>,
    /// `ledger.events`: begin at this position (`height` or `height.index`).
    pub from: Option<String>,
    /// `ledger.events`: only these kinds.
    pub kinds: Vec<String>,
    /// `ledger.events`: only what touches one of these keys, assets, addresses or channels.
    pub keys: Vec<String>,
}

impl Subscribe {
    /// As a member of a group.
    pub fn queue(name: &str) -> Subscribe {
        Subscribe {
            queue: Some(name.to_owned()),
            ..Subscribe::default()
        }
    }

    pub(super) fn body(&self, name: &str) -> Value {
        let mut body = json!({"name": name});
        if let Some(queue) = &self.queue {
            body["queue"] = queue.as_str().into();
        }
        if let Some(max) = self.max_in_flight {
            body["max_in_flight"] = max.into();
        }
        if self.durable {
            body["durable"] = true.into();
        }
        if let Some(wait) = self.ack_wait {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            body["ack_wait_ms"] = ms.into();
        }
        if let Some(max) = self.max_deliver {
            body["max_deliver"] = max.into();
        }
        if let Some(from) = &self.from {
            body["from"] = from.as_str().into();
        }
        if !self.kinds.is_empty() {
            body["kind"] = self.kinds.clone().into();
        }
        if !self.keys.is_empty() {
            body["key"] = self.keys.clone().into();
        }
        body
    }
}

/// An error that a service, or the broker, answers with.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceError {
    /// What programs match on: the service's own word, or the broker's (section 7).
    pub code: String,
    /// The reason in words.
    pub message: String,
    /// After HTTP's.
    pub status: u16,
    /// The whole error, as it came.
    pub whole: Value,
}

impl ServiceError {
    /// An error to answer with.
    pub fn new(code: &str, status: u16, message: &str) -> ServiceError {
        ServiceError {
            code: code.to_owned(),
            message: message.to_owned(),
            status,
            whole: json!({"code": code, "status": status, "message": message, "entity": null, "list": null}),
        }
    }

    pub(super) fn read(error: &Value) -> ServiceError {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        ServiceError {
            code: text("code"),
            message: text("message"),
            status: error["status"]
                .as_u64()
                .and_then(|status| u16::try_from(status).ok())
                .unwrap_or(0),
            whole: error.clone(),
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Why something did not happen on the bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// A service or the broker said no, or nobody answered in time (`timeout`, `no_responders`, …).
    #[error("{0}")]
    Answered(ServiceError),
    /// The broker does not let this service in: its name, its key, or it was revoked.
    #[error("the broker refused the connection: {0}")]
    Refused(ServiceError),
    /// The connection is closed for good.
    #[error("the connection to the bus is closed")]
    Closed,
    /// The broker cannot be reached.
    #[error(transparent)]
    Connection(#[from] Error),
}
