//! The gateway over real sockets, in front of a real node on a real disk (asset ledger, section 15).
#![allow(missing_docs)]
#![allow(unreachable_pub, dead_code)]
#![allow(clippy::unwrap_used)]

mod bulk;
mod console;
mod documentation;
mod events;
mod exchanges;
mod machines;
mod openapi;
mod operations;
mod posting;
mod reading;
mod streams;
mod support;
mod transport;
