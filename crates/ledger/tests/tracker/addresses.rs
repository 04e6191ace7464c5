//! Addresses: opened, bounded, closed, past their locks.

use daybook_ledger::tracker::{Address, AddressKind, command, draft};

use crate::{pair, tracker_common::*};

/// 10, 13 and 16
#[test]
fn an_income_address_opens_empty_at_the_least_price() {
    let mut world = World::new();
    let bob = Peer::ed25519(2);
    let answer = world
        .send(bob.request(command::OPEN_INCOME, &*bob.pem))
        .unwrap();
    let address = Address::parse(text(&answer, &["address"])).unwrap();
    assert_eq!(address.kind(), AddressKind::Income);
    assert_eq!(text(&answer, &["current", "amount"]), "0");
    assert_eq!(number(&answer, &["current", "quantumVolume"]), 0);
    assert_eq!(text(&answer, &["limit", "amount"]), "0");
    assert_eq!(text(&answer, &["price", "amount"]), "500");
    assert_eq!(number(&answer, &["price", "quantumPower"]), 25);
    assert_eq!(number(&answer, &["timelock"]), START + 1_800_000);
    assert_eq!(number(&answer, &["lifetime"]), 1_800_000);
    assert_eq!(text(&answer, &["pk"]), world.tracker.pem);
    // It is derived as clients can derive it.
    let derived = Address::channel_end(AddressKind::Income, &world.tracker.pem, &bob.pem, START);
    assert_eq!(address, derived);
    let state = daybook_ledger::tracker::reply::address_state(
        &world.state(&address).unwrap(),
        &world.tracker.pem,
    );
    assert!(!state.contains("lifetime") && state.contains("\"timelock\""));
}

/// 14
#[test]
fn a_spend_address_gets_the_grant_or_what_is_left_of_the_wallet() {
    let mut world = World::with(|settings| settings.spend_grant = 60_000);
    let alice = Peer::ed25519(1);
    let open = || alice.request(command::OPEN_SPEND, &*alice.pem);
    let first = world.send(open()).unwrap();
    assert_eq!(text(&first, &["current", "amount"]), "60000");
    assert_eq!(text(&first, &["limit", "amount"]), "60000");
    let second = world.send(open()).unwrap();
    assert_eq!(text(&second, &["current", "amount"]), "40000");
    let records = world.records();
    assert_eq!(world.refused(open()), "tracker_empty");
    assert_eq!(world.records(), records);
}

/// 15
#[test]
fn opens_of_one_key_in_one_millisecond_give_different_addresses() {
    let mut world = World::new();
    let alice = Peer::ed25519(1);
    let addresses: Vec<Address> = (0..4).map(|_| world.spend(&alice)).collect();
    for (i, address) in addresses.iter().enumerate() {
        assert!(!addresses[..i].contains(address));
    }
    let open = alice.request(command::OPEN_SPEND, &*alice.pem);
    assert_eq!(world.refused(open), "too_many_open");
    let bob = Peer::ed25519(2);
    for _ in 0..16 {
        world.income(&bob);
    }
    let open = bob.request(command::OPEN_INCOME, &*bob.pem);
    assert_eq!(world.refused(open), "too_many_open");
}

#[test]
fn a_key_cannot_open_and_close_addresses_faster_than_time_passes() {
    let mut world = World::new();
    let bob = Peer::ed25519(2);
    for _ in 0..=1_000 {
        let address = world.income(&bob);
        world.close(&address, &bob).unwrap();
    }
    let open = || bob.request(command::OPEN_INCOME, &*bob.pem);
    assert_eq!(world.refused(open()), "rate_limited");
    world.wait(1);
    world.send(open()).unwrap();
}

#[test]
fn an_address_past_its_lock_is_swept_and_told_as_expired() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    world.wait(1_800_000);
    world.state(&spend).unwrap();
    world.wait(1);
    for _ in 0..4 {
        assert_eq!(code(world.state(&spend)), "expired");
        assert_eq!(code(world.close(&spend, &alice)), "expired");
        assert_eq!(code(world.close(&income, &bob)), "expired");
        let late = contract("late", &spend, &income, 1);
        assert_eq!(code(world.open_transfer(&late, &alice, &bob)), "expired");
        world.wait(1);
    }
    assert_eq!(world.book.wallet(), 100_000);
    let none = Address::channel_end(AddressKind::Spend, "T", "nobody", 1);
    assert_eq!(code(world.state(&none)), "not_found");
    assert_eq!(code(world.close(&none, &alice)), "not_found");
}

/// 32 and 33
#[test]
fn an_address_is_closed_once_by_its_owner_when_nothing_is_open_on_it() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let (c1, c2) = (
        contract("c1", &spend, &income, 1),
        contract("c2", &spend, &income, 1),
    );
    world.open_transfer(&c1, &alice, &bob).unwrap();
    world.open_transfer(&c2, &alice, &bob).unwrap();
    world
        .close_transfer(&c1, settled(0, 0), &alice, &bob)
        .unwrap();
    assert_eq!(code(world.close(&spend, &alice)), "has_open_channels");
    assert_eq!(code(world.close(&income, &bob)), "has_open_channels");
    world
        .close_transfer(&c2, settled(1, 0), &alice, &bob)
        .unwrap();
    assert_eq!(code(world.close(&spend, &bob)), "not_owner");
    assert_eq!(code(world.close(&income, &alice)), "not_owner");
    world.close(&spend, &alice).unwrap();
    world.close(&income, &bob).unwrap();
    for _ in 0..4 {
        assert_eq!(code(world.close(&spend, &alice)), "already_closed");
        assert_eq!(code(world.state(&spend)), "already_closed");
        assert_eq!(code(world.state(&income)), "already_closed");
        world.wait(1);
    }
}

/// 10
#[test]
fn commands_and_record_types_number_the_closes_the_other_way_round() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    world.close(&spend, &alice).unwrap();
    world.close(&income, &bob).unwrap();
    let types: Vec<u8> = world
        .log
        .entries
        .iter()
        .flat_map(|(_, entry)| entry.records().to_vec())
        .map(|record| record.record_type().code())
        .collect();
    assert_eq!(types, [1, 4, 2, 32, 64]);
    let wrong = alice.request(
        command::CLOSE_INCOME,
        draft::about_address(command::CLOSE_INCOME, &spend, &alice.pem, None),
    );
    assert_eq!(world.refused(wrong), "bad_address");
}
