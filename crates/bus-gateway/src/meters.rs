//! What is counted, told to the `metrics` recorder when somebody looks (service bus, section 9).

use daybook_bus::{Bus, Code};
use metrics::{counter, gauge};

pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("daybook_bus_requests_total", "Requests that arrived");
    describe_counter!(
        "daybook_bus_repeated_total",
        "Requests that came before and had no second effect"
    );
    describe_counter!(
        "daybook_bus_deliveries_total",
        "Requests handed to receivers"
    );
    describe_counter!(
        "daybook_bus_redeliveries_total",
        "Deliveries after the first of the same request"
    );
    describe_counter!("daybook_bus_responses_total", "Answers that arrived");
    describe_counter!(
        "daybook_bus_orphans_total",
        "Answers whose requester was gone"
    );
    describe_counter!(
        "daybook_bus_late_total",
        "Answers after the first or the deadline"
    );
    describe_counter!(
        "daybook_bus_dropped_total",
        "Messages that found a full outbound queue"
    );
    describe_counter!(
        "daybook_bus_stored_total",
        "Requests written for durable subscriptions"
    );
    describe_counter!(
        "daybook_bus_acknowledged_total",
        "Durable deliveries acknowledged"
    );
    describe_counter!(
        "daybook_bus_dead_total",
        "Messages that became dead letters"
    );
    describe_counter!(
        "daybook_bus_forgotten_total",
        "Answers forgotten before their window ended"
    );
    describe_counter!("daybook_bus_refused_total", "Refusals, by code");
    describe_gauge!("daybook_bus_connections", "Connections in the namespace");
    describe_gauge!("daybook_bus_online", "Instances that are online");
    describe_gauge!(
        "daybook_bus_open_calls",
        "Requests that wait for their answer"
    );
    describe_gauge!(
        "daybook_bus_waiting",
        "Requests that wait for a free member of a group"
    );
    describe_gauge!(
        "daybook_bus_remembered_bytes",
        Unit::Bytes,
        "Answers kept for repeated requests"
    );
    describe_gauge!(
        "daybook_bus_durable_messages",
        "Messages that wait in durable subscriptions"
    );
    describe_gauge!("daybook_bus_durable_bytes", Unit::Bytes, "Bytes of them");
    describe_gauge!("daybook_bus_dead_letters", "Dead letters that are kept");
    describe_counter!(
        "daybook_bus_notes_bytes_total",
        Unit::Bytes,
        "Notes of requests and answers written for a restart"
    );
    describe_histogram!(
        "daybook_bus_notes_flush_seconds",
        Unit::Seconds,
        "Time to flush them"
    );
    describe_histogram!(
        "daybook_bus_key_check_seconds",
        Unit::Seconds,
        "Time to compare a key"
    );
}

pub(crate) fn publish(bus: &Bus) {
    let c = bus.counters();
    for (name, value) in [
        ("daybook_bus_requests_total", c.requests),
        ("daybook_bus_repeated_total", c.repeated),
        ("daybook_bus_deliveries_total", c.deliveries),
        ("daybook_bus_redeliveries_total", c.redeliveries),
        ("daybook_bus_responses_total", c.responses),
        ("daybook_bus_orphans_total", c.orphans),
        ("daybook_bus_late_total", c.late),
        ("daybook_bus_dropped_total", c.dropped),
        ("daybook_bus_stored_total", c.stored),
        ("daybook_bus_acknowledged_total", c.acknowledged),
        ("daybook_bus_dead_total", c.dead),
        ("daybook_bus_forgotten_total", c.forgotten),
    ] {
        counter!(name).absolute(value);
    }
    for code in Code::ALL {
        if let Some(count) = c.refused.get(code) {
            counter!("daybook_bus_refused_total", "code" => code.code()).absolute(*count);
        }
    }
    let r = bus.report();
    for (name, value) in [
        ("daybook_bus_connections", r.connections),
        ("daybook_bus_online", r.online),
        ("daybook_bus_open_calls", r.open_calls),
        ("daybook_bus_waiting", r.waiting),
        ("daybook_bus_remembered_bytes", r.remembered_bytes),
        ("daybook_bus_durable_messages", r.durable_messages),
        ("daybook_bus_durable_bytes", r.durable_bytes),
        ("daybook_bus_dead_letters", r.dead_letters),
    ] {
        gauge!(name).set(value as f64);
    }
}
