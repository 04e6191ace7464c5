//! The tracker's rules, one behaviour after the other. The numbers are those of the conformance
//! checklist (wallet tracker, section 18).
#![allow(clippy::unwrap_used)]

mod addresses;
mod book;
mod channels;
mod requests;
mod texts;
#[path = "../tracker_common/mod.rs"]
mod tracker_common;
mod wallets;

use daybook_ledger::tracker::Address;
use tracker_common::*;

const MIB_100: u64 = 100_000_000;
const QUANTUM: u64 = 1 << 25;

/// A payer with a spend address and a payee with an income address.
fn pair(world: &mut World) -> (Peer, Peer, Address, Address) {
    let (alice, bob) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = (world.spend(&alice), world.income(&bob));
    (alice, bob, spend, income)
}
