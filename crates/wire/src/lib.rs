//! The wire dialects as bytes and values, one module each.
//!
//! Nothing here opens a socket, keeps a session or knows a rule of the ledger. Every function takes
//! any bytes whatever: it reads them or refuses them, and never panics.

pub mod assets;
pub mod consortium;
pub mod events;
pub mod multipart;
pub mod tracker;
pub mod websocket;
