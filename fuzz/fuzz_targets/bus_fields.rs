//! Payloads of the bus: the members that are cut out of them are those that a parser of the whole finds,
//! and a broker that hears them goes on.
#![no_main]

use std::sync::Arc;

use daybook_bus::{
    Bus, ConnId, Effect, Event, Grant, KeyVerdict, Malformed, Moment, Packet, Settings, Unbounded,
    depth_within, fields, text_of,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NAMES: [&str; 4] = ["name", "request_id", "data", "error"];
const EVENTS: [&str; 8] = [
    "shake_i_am",
    "shake_ready",
    "api:request",
    "api:response",
    "_service:api:request:subscribe",
    "_service:api:request:unsubscribe",
    "_service:ack",
    "_service:nak",
];
const NOW: Moment = Moment(1_767_225_600_000_000);

fuzz_target!(|text: &str| {
    // Nothing else than JSON gets past the packet.
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        let _ = fields(Some(text), &NAMES);
        let _ = (text_of(text), depth_within(text, 8));
        return;
    };
    match (fields(Some(text.trim()), &NAMES), &whole) {
        (Ok(found), Value::Object(members)) => {
            for (name, raw) in NAMES.iter().zip(found) {
                let other = members.get(*name).filter(|value| !value.is_null());
                let own = raw.map(|raw| serde_json::from_str::<Value>(raw).expect("a part"));
                assert_eq!(own.as_ref(), other);
                if let Some(Value::String(other)) = other {
                    assert_eq!(raw.and_then(text_of).as_deref(), Some(&**other));
                }
            }
        }
        (Err(Malformed::Repeated), Value::Object(_)) => {}
        (Err(Malformed::Missing), Value::Null) => {}
        (Err(Malformed::NotAnObject), other) => assert!(!other.is_object()),
        (found, other) => panic!("{found:?} of {other}"),
    }
    hear(text.trim());
});

/// Lets a broker hear the payload with every event, from a client that is online and from one that is not.
fn hear(text: &str) {
    let mut bus = Bus::new(Settings::default(), NOW, &[]).expect("nothing is stored");
    let conn = ConnId(1);
    let say = |bus: &mut Bus, conn, name, argument| {
        bus.handle(
            NOW,
            Event::Packet {
                conn,
                name,
                argument: Some(argument),
                ack: Some(1),
            },
        );
        for effect in bus.effects() {
            if let Effect::Send { frame, .. } = effect {
                assert!(
                    frame.starts_with('3') || Packet::read(&frame).is_ok(),
                    "{frame}"
                );
            }
        }
    };
    let enter = |bus: &mut Bus, conn| {
        let room = Arc::new(Unbounded);
        bus.handle(
            NOW,
            Event::Connected {
                conn,
                protocol: 4,
                room,
            },
        );
        bus.effects().for_each(drop);
    };
    enter(&mut bus, conn);
    say(&mut bus, conn, "shake_i_am", r#"{"name":"a","key":"k"}"#);
    let verdict = KeyVerdict::Granted(Arc::new(Grant::everything("k")));
    bus.handle(
        NOW,
        Event::KeyChecked {
            conn,
            verdict,
            random: [0; 32],
        },
    );
    let id = format!("{{\"id\":\"a.{}.{}\"}}", NOW.millis(), "0".repeat(32));
    say(&mut bus, conn, "shake_ready", &id);
    // Those of the handshake end the connection, so they come last.
    for name in EVENTS.iter().rev() {
        say(&mut bus, conn, name, text);
    }
    for (number, name) in (2..).zip(EVENTS) {
        enter(&mut bus, ConnId(number));
        say(&mut bus, ConnId(number), name, text);
    }
}
