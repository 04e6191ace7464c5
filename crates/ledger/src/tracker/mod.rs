//! The tracker's book: payment channels for traffic sold between peers, paid in units of one asset
//! (wallet tracker, profile S, and of profile X versions 2 of messages, idempotency, parked receipts and
//! payouts).
//!
//! A request is proven without state ([`Prover`]), decided against the [`Book`], and what follows from
//! it is an [`Entry`] of a block. Only [`Book::record`] changes a book, and it reads nothing but entries:
//! the log alone gives the state.

mod address;
mod book;
mod contract;
pub mod draft;
mod entry;
mod key;
mod prove;
mod receipt;
mod record;
mod refusal;
pub mod reply;
mod request;
mod settings;
mod text;

pub use address::{ADDRESS_CHARS_MAX, Address, AddressKind};
pub use book::{
    AddressState, Book, ChannelState, CommonState, Decision, History, MalformedBook, Meets, Nonces,
    Owned, PayoutPlan, Violation,
};
pub use contract::{
    CHANNEL_BYTES_MAX, COUNT_MAX, Contract, KeyHash, PRODUCT_MAX, Price, QUANTUM_POWER_MAX,
    Settled, TrackerId,
};
pub use entry::{Entry, EntryKind, IndexKey, MalformedEntry, Park};
pub use key::{Key, PEM_CHARS_MAX, SIGNATURE_CHARS_MAX, Suite, Suites, pem_of};
pub use prove::Prover;
pub use receipt::{Agreement, Payee, Payer, Receipt, SETTLE_MARGIN_MS, Stop};
pub use record::{Cause, Channel, Closing, Fact, Opening, Paid, Record, RecordType};
pub use refusal::{Code, Refusal};
pub use request::{
    Act, Ask, CoSigned, Command, Container, Fresh, Handshake, Listing, PAGE_SIZE, PAGE_SIZE_MAX,
    Payload, Proven, Query, Request, TOPICS_MAX, Topic, command, container_of,
};
pub use settings::{LIFETIME_MS_MAX, Settings, SettingsError, TRACKER_KEYS_MAX};
