//! What the gateway counts, through the `metrics` facade. Handles are looked up once and kept: a
//! look-up by labels costs more than the counting.

use std::{sync::OnceLock, time::Duration};

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::Route;

/// Statuses with a place of their own; others share the last.
const STATUSES: [u16; 17] = [
    101, 200, 202, 400, 401, 403, 404, 405, 408, 409, 413, 421, 426, 429, 500, 503, 0,
];

/// Routes, a place for unknown paths, and one for those of guests.
const ROUTES: usize = Route::ALL.len() + 2;

pub(crate) struct Meters {
    requests: Box<[[OnceLock<Counter>; STATUSES.len()]; ROUTES]>,
    durations: Box<[OnceLock<Histogram>; ROUTES]>,
    connections: Gauge,
    subscribers: Gauge,
    frames: Counter,
    stream_bytes: Counter,
    response_bytes: Counter,
    pub(crate) refused_connections: Counter,
    pub(crate) stalled: Counter,
    pub(crate) bulk_lines: Counter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

/// Which of the counted things is there now; counted down when dropped.
pub(crate) struct Present(Gauge);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Meters {
    pub(crate) fn new() -> Meters {
        describe();
        Meters {
            requests: Box::new(std::array::from_fn(|_| {
                std::array::from_fn(|_| OnceLock::new())
            })),
            durations: Box::new(std::array::from_fn(|_| OnceLock::new())),
            connections: gauge!("daybook_gateway_connections"),
            subscribers: gauge!("daybook_gateway_subscribers"),
            frames: counter!("daybook_gateway_frames_total"),
            stream_bytes: counter!("daybook_gateway_stream_bytes_total"),
            response_bytes: counter!("daybook_gateway_response_bytes_total"),
            refused_connections: counter!("daybook_gateway_connections_refused_total"),
            stalled: counter!("daybook_gateway_subscribers_stalled_total"),
            bulk_lines: counter!("daybook_gateway_bulk_transactions_total"),
        }
    }

    pub(crate) fn request(&self, route: Option<Route>, status: StatusCode, took: Duration) {
        let place = route.map_or(ROUTES - 2, |route| route as usize);
        self.count(
            place,
            route.map_or("unknown", Route::template),
            status,
            took,
        );
    }

    /// A request that a guest answered.
    pub(crate) fn guest(&self, status: StatusCode, took: Duration) {
        self.count(ROUTES - 1, "guest", status, took);
    }

    fn count(&self, place: usize, name: &'static str, status: StatusCode, took: Duration) {
        let code = status.as_u16();
        let slot = STATUSES
            .iter()
            .position(|other| *other == code)
            .unwrap_or(STATUSES.len() - 1);
        self.requests[place][slot]
            .get_or_init(|| {
                let label = if STATUSES[slot] == 0 {
                    "other".to_owned()
                } else {
                    code.to_string()
                };
                counter!("daybook_gateway_requests_total", "route" => name, "status" => label)
            })
            .increment(1);
        self.durations[place]
            .get_or_init(|| histogram!("daybook_gateway_request_seconds", "route" => name))
            .record(took);
    }

    pub(crate) fn connection(&self) -> Present {
        self.connections.increment(1.0);
        Present(self.connections.clone())
    }

    pub(crate) fn subscriber(&self) -> Present {
        self.subscribers.increment(1.0);
        Present(self.subscribers.clone())
    }

    pub(crate) fn streamed(&self, frames: u64, bytes: u64) {
        self.frames.increment(frames);
        self.stream_bytes.increment(bytes);
    }

    pub(crate) fn sent_bytes(&self, bytes: usize) {
        self.response_bytes.increment(bytes as u64);
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "daybook_gateway_requests_total",
        "HTTP requests answered, by route and status"
    );
    describe_histogram!(
        "daybook_gateway_request_seconds",
        Unit::Seconds,
        "From a request's head to its answer's head, by route"
    );
    describe_gauge!("daybook_gateway_connections", "Open connections");
    describe_gauge!(
        "daybook_gateway_subscribers",
        "Open event stream subscriptions"
    );
    describe_counter!(
        "daybook_gateway_frames_total",
        "Event frames handed to subscribers"
    );
    describe_counter!(
        "daybook_gateway_stream_bytes_total",
        Unit::Bytes,
        "Bytes of event frames handed to subscribers"
    );
    describe_counter!(
        "daybook_gateway_response_bytes_total",
        Unit::Bytes,
        "Bytes of HTTP answers' bodies"
    );
    describe_counter!(
        "daybook_gateway_connections_refused_total",
        "Connections closed because too many were open"
    );
    describe_counter!(
        "daybook_gateway_subscribers_stalled_total",
        "Subscribers closed because they read nothing"
    );
    describe_counter!(
        "daybook_gateway_bulk_transactions_total",
        "Transactions that came through the batch door or a submitting socket"
    );
}
