//! Sockets and sessions: the asset protocol over HTTP/1.1 and WebSocket (asset ledger, sections 3
//! and 9).
//!
//! A gateway translates and does nothing else: bytes become a transaction or a question, the node's
//! handle answers, the answer becomes bytes. No rule about ownership stands here, and no file is
//! opened: listeners, keys and settings are arguments.

mod assets;
mod body;
mod budget;
mod connection;
mod console;
mod consortium;
mod events;
mod faucet;
mod gate;
mod guest;
mod http;
mod machines;
mod meters;
mod rate;
mod reply;
mod route;
mod server;
mod settings;
mod streams;
mod subscriber;
mod tls;
mod tracker;
mod websocket;

pub use faucet::Faucet;
pub use guest::{Guest, GuestAnswer};
pub use rate::Rate;
pub use route::Route;
pub use server::{Listener, Serves, serve};
pub use settings::{BusOverview, Origins, Settings, Token};
pub use tls::{TlsError, tls_config};
pub use tracker::{BadRsaKey, TrackerKeys, TrackerLimits, TrackerSettings};

/// The OpenAPI 3.1 description that the node serves at `/api/v1/openapi.json`.
pub const OPENAPI: &str = include_str!("openapi.json");
