//! The routing core of the service bus (service bus protocol): events in, effects out, time as input.
//!
//! Nothing here opens a socket, reads a clock or draws a random number, so every rule of the protocol
//! is tested without any of them. The gateway feeds [`Bus::handle`] and performs what it asks for, in
//! order.
//!
//! ```text
//! packet ─► Packet ─► Event ─► Bus::handle ─► Effect… ─► packets, key checks, writes
//! text      parse     + time   pure                      performed by the gateway
//! ```

mod answer;
mod bus;
mod code;
mod counters;
mod durable;
mod handshake;
mod index;
mod message;
mod moment;
mod name;
mod note;
mod packet;
mod presence;
mod remember;
mod report;
mod request;
mod settings;
mod subscribe;

pub use bus::{
    Bus, CallId, ConnId, Effect, Event, Frame, KeyVerdict, Local, Rooms, Secret, StoreOp, Stored,
    Ticket, Unbounded,
};
pub use code::{Code, Fault};
pub use counters::Counters;
pub use message::{JSON_DEPTH_MAX, Malformed, Subscription, depth_within, fields, text_of};
pub use moment::Moment;
pub use name::{EVENT_NAME_BYTES_MAX, NotAPattern, Pattern, is_reserved, is_service_name};
pub use note::{Begun, Note};
pub use packet::{NAMESPACE, NotAPacket, Packet, packet_text};
pub use remember::Done;
pub use report::{DeadLetter, Report, ServiceReport, SubjectReport};
pub use settings::{Delivery, Grant, Limits, Settings, Subject};
