//! A machine that takes orders, is paid on a Daybook ledger, pays its own supplier, and then works.
//!
//! [`Agent`] is a running one; several may run in one process. It is a client of a Daybook node and
//! knows nothing of the node's inside.

#![forbid(unsafe_code)]

mod address;
mod agent;
mod announce;
mod hook;
mod journal;
mod kerl;
mod ledger;
mod machine;
mod order;
mod provider;
mod request;
mod seed;
mod server;
mod sockets;
mod state;
mod status;
mod terms;
mod text;
mod time;
mod trytes;
mod web;

pub use address::{Address, NotAnAddress, SECURITY};
pub use agent::{Agent, Config, MachineError, run};
pub use hook::Hook;
pub use journal::JournalError;
pub use machine::NotMine;
pub use seed::{NotASeed, Seed, TooClose};
pub use status::Status;
pub use terms::{OnPayoutFailure, Product, SpendingLimits, Terms};
pub use time::Moment;
pub use web::{Answer as WebAnswer, NotAUrl, Url, Web, WebError};
