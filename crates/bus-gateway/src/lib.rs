//! The service bus on sockets: Engine.IO 3 and 4 below, the routing core of `daybook-bus` above
//! (service bus protocol).
//!
//! The transport is `engineioxide`, on which `socketioxide` is built too. The layer above it is left
//! out on purpose: that one serves a message in a task of its own, which loses the order, writes
//! every copy of a message anew, and cannot close a connection whose queue is full. What a bus needs
//! of Socket.IO's packets is a page of `daybook-bus`.
//!
//! Everything that arrives is routed where it is read, under one lock that is held for microseconds.
//! Effects are performed under it too, so their order is the order of the core.

mod admin;
mod disk;
mod hub;
mod journal;
mod keyring;
mod ledger;
mod link;
mod meters;
mod mount;
mod outbound;
mod server;
mod settings;
mod sockets;

pub use disk::{Disk, DiskError, Memory, Redb};
pub use hub::Handle;
pub use keyring::{KEY_BYTES, Keyring, KeyringError, NewKey, ServiceKey, new_key};
pub use ledger::LOCAL_NAMES;
pub use mount::{Mount, MountBody};
pub use server::{Listener, Running, start};
pub use settings::{AdminToken, Settings};
