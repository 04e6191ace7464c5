//! A member of a consortium: its mirror of the shared log, its endorser, and the gateway that its
//! users and their programs work with (consortium ledgers, sections 1, 2, 5 to 7).
//!
//! Everything that organisations agree on stands in the log, which is reached through [`Network`];
//! this crate knows nothing of what is behind it. The rules are `daybook_ledger::consortium`'s.

#![forbid(unsafe_code)]

mod check;
mod disk;
mod documents;
mod endorser;
mod fetch;
mod health;
mod http;
mod json;
mod member;
mod message;
mod mirror;
mod network;
mod notice;
mod operation;
mod page;
mod relay;
mod server;
mod socket;
mod users;
mod view;

pub use check::Check;
pub use disk::DiskError;
pub use http::{Body, Hosted, Peer, read_notices};
pub use member::{
    Ended, Identity, LEFT_OUT, Member, MemberError, Settings, copy_store, system_clock, users_file,
};
pub use mirror::MirrorError;
pub use network::{
    Answer, Committed, Logged, Network, NotTaken, NoticeCursor, Notices, Unavailable,
};
pub use notice::NOTICE_BYTES_MAX;
pub use operation::read_policy;
pub use relay::{IsKeyOf, NotPosted, Relay, copy_relay};
pub use server::{serve, tls_config};
pub use users::{User, UsersError, change_users, new_user, read_users, users_text};
