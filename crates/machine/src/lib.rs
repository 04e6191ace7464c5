//! A machine that takes orders, is paid on a Daybook ledger, pays its own supplier, and then works.

#![forbid(unsafe_code)]

mod address;
mod kerl;
mod seed;
mod trytes;

pub use address::{Address, NotAnAddress, SECURITY};
pub use seed::{NotASeed, Seed, TooClose};
