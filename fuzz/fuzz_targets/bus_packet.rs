//! Packets of Socket.IO as a client of the bus sends them: cut into parts, and the same parts again when
//! they are put together.
#![no_main]

use daybook_bus::{NAMESPACE, Packet, packet_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(packet) = Packet::read(text) else {
        return;
    };
    let Packet::Event { name, argument, .. } = packet else {
        return;
    };
    // Spelled in another way, the name is the same one.
    let quoted = serde_json::Value::from(&*name).to_string();
    let again = packet_text(&quoted, argument);
    let Ok(Packet::Event {
        namespace,
        name: same_name,
        argument: same_argument,
        ack: None,
    }) = Packet::read(&again)
    else {
        panic!("{again}")
    };
    assert_eq!(namespace, NAMESPACE);
    assert_eq!(same_name, name);
    assert_eq!(same_argument, argument);
});
