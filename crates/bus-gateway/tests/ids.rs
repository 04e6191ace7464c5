//! Ids of instances as they are made in a running bus: the core's text out of the system's random
//! numbers (service bus, section 16, item 5).
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::HashSet, sync::Arc};

use daybook_bus::{
    Bus, ConnId, Effect, Event, Grant, KeyVerdict, Moment, Packet, Settings, Unbounded,
};

const MILLIS: u64 = 1_767_225_600_123;

#[test]
fn c05_a_hundred_thousand_ids_of_one_name_and_one_millisecond_differ() {
    let now = Moment(MILLIS * 1_000);
    let mut bus = Bus::new(Settings::default(), now, &[]).unwrap();
    let grant = Arc::new(Grant::everything("k"));
    let mut ids = HashSet::new();
    for conn in (0..100_000).map(ConnId) {
        bus.handle(
            now,
            Event::Connected {
                conn,
                protocol: 4,
                room: Arc::new(Unbounded),
            },
        );
        bus.handle(
            now,
            Event::Packet {
                conn,
                name: "shake_i_am",
                argument: Some(r#"{"name":"meter","key":"right"}"#),
                ack: None,
            },
        );
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        bus.effects().for_each(drop);
        bus.handle(
            now,
            Event::KeyChecked {
                conn,
                verdict: KeyVerdict::Granted(grant.clone()),
                random,
            },
        );
        let said = bus.effects().find_map(|effect| match effect {
            Effect::Send { frame, .. } => Some(frame),
            _ => None,
        });
        let said = said.unwrap();
        let Packet::Event {
            name,
            argument: Some(body),
            ..
        } = Packet::read(&said).unwrap()
        else {
            panic!("{said}")
        };
        assert_eq!(name, "shake_id");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let id = body["id"].as_str().unwrap();
        let hash = id.strip_prefix(&format!("meter.{MILLIS}.")).unwrap();
        assert_eq!(hash.len(), 32);
        assert!(hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')));
        assert!(ids.insert(id.to_owned()), "{id} came twice");
        bus.handle(now, Event::Disconnected { conn });
    }
    assert_eq!(ids.len(), 100_000);
}
