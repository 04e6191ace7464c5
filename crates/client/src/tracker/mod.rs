//! Payment channels: a client of the node's wallet tracker (wallet tracker, sections 2 to 12 and 17).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use daybook_client::tracker::{PeerKey, Suite, Tracker};
//!
//! let key = PeerKey::generate(Suite::Ed25519);
//! let tracker = Tracker::builder("http://127.0.0.1:9984".parse()?, key).connect().await?;
//! let spend = tracker.open_spend().await?;
//! println!("{} holds {} tokens", spend.address, spend.current.amount);
//! # Ok(())
//! # }
//! ```
//!
//! Every reply is checked against the tracker's key, which is taken on the first connection and
//! expected ever after; see [`Tracker::keys`]. Where the tracker speaks version 2 of the messages, they
//! carry time, nonce and command, and a lost reply is asked for again with the same request: nothing
//! happens twice. [`Payer`] and [`Payee`] keep the contract and its newest receipt on disk before they
//! go on.

mod answer;
mod channel_file;
mod client;
mod error;
mod key;
mod link;
mod list;
mod message;
mod payee;
mod payer;
mod push;
mod trust;

pub use answer::{
    AddressState, Balance, Capabilities, ChannelState, Closed, CommonState, Item, Limit, Meta,
    Opened, Own, Page, Prices,
};
pub use channel_file::{ChannelFile, Role};
pub use client::{Builder, Tracker, Version};
pub use daybook_ledger::tracker::{
    Address, AddressKind, Agreement, Contract, Price, Settled, Stop, Suite,
};
pub use error::Error;
pub use key::{NotASigningKey, PeerKey};
pub use list::{Listing, Order, Pages};
pub use message::{CoSigned, HalfSigned};
pub use payee::Payee;
pub use payer::Payer;
pub use push::{PushEvent, Subscription, Topic};
pub use trust::{KnownTrackers, TrackerKeys};
