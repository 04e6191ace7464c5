//! The broker's rules, told without a socket (service bus, section 16).
#![allow(clippy::unwrap_used, missing_docs)]

mod calls;
mod durable;
mod everything;
mod handshake;
mod operation;
mod receivers;
mod repetition;
mod world;
