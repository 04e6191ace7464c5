//! Limits and rights.

use std::sync::Arc;

use crate::Pattern;

/// How the receivers of a request are chosen (service bus, section 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Every plain subscriber and one member of each group.
    #[default]
    Auto,
    /// Exactly one instance, groups before plain subscribers.
    One,
    /// Every instance once.
    All,
}

/// What an operator fixes for the names of a pattern; it wins over the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Which names.
    pub pattern: Pattern,
    /// The receivers.
    pub delivery: Option<Delivery>,
    /// The deadline.
    pub timeout_ms: Option<u64>,
}

/// What the holder of a key may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Names the key; shown in logs instead of it.
    pub key_id: String,
    /// Names that it may request.
    pub publish: Vec<Pattern>,
    /// Names that it may listen to.
    pub subscribe: Vec<Pattern>,
    /// Its limits.
    pub limits: Limits,
}

impl Grant {
    /// Everything is allowed, within the broker's limits.
    pub fn everything(key_id: &str) -> Grant {
        Grant {
            key_id: key_id.to_owned(),
            publish: vec![Pattern::everything()],
            subscribe: vec![Pattern::everything()],
            limits: Limits::default(),
        }
    }

    pub(crate) fn may_request(&self, name: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(name))
    }

    pub(crate) fn may_hear(&self, name: &str) -> bool {
        self.subscribe.iter().any(|pattern| pattern.matches(name))
    }

    pub(crate) fn may_subscribe(&self, wanted: &Pattern) -> bool {
        self.subscribe.iter().any(|pattern| pattern.covers(wanted))
    }
}

/// Bounds for one service; `None` leaves the broker's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Requests per second in the long run.
    pub requests_per_second: Option<u32>,
    /// Unanswered deliveries at once.
    pub max_in_flight: Option<u32>,
}

/// How the broker behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From connect to `shake_i_am` (section 3, T1).
    pub introduce_ms: u64,
    /// From `shake_id` to `shake_ready` (section 3, T2).
    pub ready_ms: u64,
    /// How long a wrong id is an error instead of being corrected (section 4).
    pub strict: bool,
    /// An instance that never subscribes hears everything (section 6).
    pub legacy_broadcast: bool,
    /// `invalid_secret_key` is the code of a wrong key and `invalid_key` its other name (section 3).
    pub code_dialect: bool,
    /// Fixed modes and deadlines.
    pub subjects: Vec<Subject>,
    /// Deadline of requests that name none; long, so that old clients' own 500 ms rule them.
    pub timeout_ms: u64,
    /// How long an answer is kept for a repeated request.
    pub remember_ms: u64,
    /// Bytes of answers kept, of all instances together; the asking instance's oldest give way.
    pub remember_bytes_max: usize,
    /// How long a lost connection may come back under its id.
    pub resume_ms: u64,
    /// Bytes of one event's payload; larger ones are refused.
    pub payload_bytes_max: usize,
    /// Unanswered deliveries to one instance; it may ask for less.
    pub in_flight_max: u32,
    /// Requests that wait for a free member of one group.
    pub queue_max: usize,
    /// Bytes of requests that wait for free members, of all groups together.
    pub queue_bytes_max: usize,
    /// Requests of one instance that wait for their answer.
    pub calls_per_instance_max: usize,
    /// Requests that wait for their answer, of all instances together.
    pub calls_max: usize,
    /// Subscriptions of one instance.
    pub subscriptions_max: usize,
    /// Requests per second of one instance in the long run; 0 for any number. A second's worth may
    /// come at once.
    pub requests_per_second: u32,
    /// How long a receiver may leave its outbound queue full.
    pub slow_ms: u64,
    /// How long a connection lives on after the broker has said good-bye, so that it arrives.
    pub farewell_ms: u64,
    /// Messages that wait in durable subscriptions, all together.
    pub durable_messages_max: usize,
    /// Bytes of them, and as much again of dead letters.
    pub durable_bytes_max: usize,
    /// Durable subscriptions.
    pub durable_max: usize,
    /// Dead letters that are kept; the oldest give way.
    pub dead_max: usize,
    /// How long a delivery of a durable subscription may stay unacknowledged.
    pub ack_wait_ms: u64,
    /// Attempts before a message is a dead letter.
    pub max_deliver: u32,
    /// Names that are answered by the node itself.
    pub local: Arc<[&'static str]>,
    /// The name under which the node's own events are delivered, from a position on.
    pub feed: Option<&'static str>,
    /// Notes are made, from which a restart knows requests that came before ([`crate::Note`]).
    pub notes: bool,
    /// Acknowledgements of one connection that wait for notes to be flushed, which a disk that hangs does
    /// not do; what would need one more is refused. As many as an outbound queue takes by default, because
    /// they all come at once when the disk goes on.
    pub noted_acks_max: usize,
    /// The same of all connections together; each is some hundred bytes.
    pub noted_acks_of_all_max: usize,
    /// Starts and ends of calls are told, for tracing.
    pub tracing: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            introduce_ms: 2_000,
            ready_ms: 2_000,
            strict: true,
            legacy_broadcast: true,
            code_dialect: false,
            subjects: Vec::new(),
            timeout_ms: 30_000,
            remember_ms: 120_000,
            remember_bytes_max: 64 << 20,
            resume_ms: 30_000,
            payload_bytes_max: 1 << 20,
            in_flight_max: 1_024,
            queue_max: 4_096,
            queue_bytes_max: 64 << 20,
            calls_per_instance_max: 1 << 16,
            calls_max: 1 << 18,
            subscriptions_max: 1_024,
            requests_per_second: 0,
            slow_ms: 10_000,
            farewell_ms: 1_000,
            durable_messages_max: 100_000,
            durable_bytes_max: 64 << 20,
            durable_max: 1_024,
            dead_max: 10_000,
            ack_wait_ms: 30_000,
            max_deliver: 5,
            local: Arc::new([]),
            feed: None,
            notes: false,
            noted_acks_max: 1_024,
            noted_acks_of_all_max: 1 << 16,
            tracing: false,
        }
    }
}
