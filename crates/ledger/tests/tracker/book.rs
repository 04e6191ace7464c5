//! The book as a whole: settings, snapshots, replay, invariants, bytes on disk.

use std::sync::Arc;

use daybook_ledger::{
    BlockTime, Height, SigningKey,
    tracker::{Address, Book, Entry, Payload, command, draft},
};

use crate::{MIB_100, pair, tracker_common::*};

#[test]
fn settings_change_for_what_opens_later_and_never_who_the_tracker_is() {
    let mut world = World::new();
    let (_, bob, spend, _) = pair(&mut world);
    let mut settings = world.book.settings().unwrap().clone();
    let at = BlockTime(world.now);
    assert!(world.book.configure(settings.clone(), at).is_none());
    settings.spend_price_max = 700;
    let entry = world.book.configure(settings.clone(), at).unwrap();
    world.record(&entry);
    assert_eq!(world.state(&spend).unwrap().price.amount, 500);
    let later = world.spend(&bob);
    assert_eq!(world.state(&later).unwrap().price.amount, 700);
    let mut other = settings.clone();
    other.holder = bob_key();
    assert!(world.book.check_settings(&other).is_err());
    assert!(world.book.configure(other, at).is_none());
    settings.spend_grant = 0;
    assert!(world.book.check_settings(&settings).is_err());
}

fn bob_key() -> daybook_ledger::PublicKey {
    SigningKey::from_seed([9; 32]).public_key()
}

#[test]
fn a_snapshot_goes_on_where_the_book_left_off() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let wallet = Address::common(&bob.pem);
    for (id, to) in [("c1", &income), ("c2", &wallet), ("c3", &income)] {
        world
            .open_transfer(&contract(id, &spend, to, 2), &alice, &bob)
            .unwrap();
    }
    let c1 = contract("c1", &spend, &income, 2);
    world
        .close_transfer(&c1, settled(1, 9), &alice, &bob)
        .unwrap();
    let bytes = world.book.encode();
    let book = Book::decode(&bytes).unwrap();
    assert_eq!(book.encode(), bytes);
    world.book = book;
    assert_eq!(
        code(world.close_transfer(&c1, settled(2, 9), &alice, &bob)),
        "already_closed"
    );
    world.wait(300_001);
    world.sweep();
    assert_eq!(world.replay().encode(), world.book.encode());
    for length in 0..bytes.len() {
        assert!(Book::decode(&bytes[..length]).is_err());
    }
    assert!(Book::decode(&[&bytes[..], &[0]].concat()).is_err());
    for place in (0..bytes.len()).step_by(3) {
        let mut spoilt = bytes.clone();
        spoilt[place] ^= 1;
        // It may be another sound book, but never a fault.
        let _ = Book::decode(&spoilt);
    }
}

#[test]
fn a_book_refuses_entries_that_break_an_invariant() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let before = world.book.clone();
    world
        .close_transfer(&c1, settled(3, MIB_100), &alice, &bob)
        .unwrap();
    let (_, entry) = world.log.entries.last().unwrap();
    let text = String::from_utf8(entry.text().to_vec()).unwrap();
    let breaks = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        let entry = Entry::read(bytes::Bytes::from(changed)).unwrap();
        let violation = before.clone().record(&entry, Height(9)).unwrap_err();
        violation.invariant
    };
    let tokens = "\"amount\":\"1500\"";
    assert_eq!(breaks(tokens, "\"amount\":\"1000\""), "E4");
    assert_eq!(breaks("\"volume\":100000000", "\"volume\":100663297"), "E5");
    assert_eq!(breaks("\"seq\":5", "\"seq\":6"), "E11");
    assert_eq!(breaks("\"cause\":\"peers\"", "\"cause\":\"expiry\""), "E11");
    assert_eq!(
        breaks("\"contract_id\":\"c1\"", "\"contract_id\":\"c2\""),
        "E10"
    );
    assert_eq!(
        breaks("\"planned_quantum_count\":8", "\"planned_quantum_count\":9"),
        "E10"
    );
    let mut again = world.book.clone();
    assert!(
        again.record(entry, Height(9)).is_err(),
        "no entry counts twice"
    );
}

#[test]
fn a_stored_command_can_be_proven_and_decided_again() {
    let mut world = World::new();
    let before = world.book.clone();
    let alice = Peer::ed25519(1);
    world.spend(&alice);
    let (_, entry) = world.log.entries.last().unwrap().clone();
    let request = entry.request().unwrap().clone();
    let command = world.prove(request.clone()).unwrap();
    let again = before.decide(&command, entry.time(), &world.log).unwrap();
    let daybook_ledger::tracker::Decision::Entry(again) = again else {
        panic!()
    };
    assert_eq!(again, *entry);
    let Payload::Single { message, pk, .. } = request.payload else {
        panic!()
    };
    assert_eq!((message, pk), (alice.pem.clone(), alice.pem));
}

#[test]
fn a_key_finds_what_it_has_open_and_what_locks_soon() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 4);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let end = settled(1, 7);
    let text = draft::close_transfer(&c1, &end, &alice.pem, &bob.pem, None);
    world
        .send(cosigned(command::PARK, text, &alice, &bob))
        .unwrap();
    let at = |ms: u64| BlockTime(START + ms);
    let (of_alice, of_bob) = (alice.key().hash(), bob.key().hash());
    let owned = world.book.owned(of_alice, at(0));
    assert_eq!(owned.spends, [spend.text().clone()]);
    assert!(owned.incomes.is_empty());
    assert_eq!(owned.channels, [Arc::from("c1")]);
    let owned = world.book.owned(of_bob, at(300_001));
    assert_eq!(owned.incomes, [income.text().clone()]);
    assert!(owned.channels.is_empty(), "past its lock");
    assert_eq!(
        world.book.channels_on(spend.as_str(), at(0)),
        [Arc::from("c1")]
    );
    assert!(
        world
            .book
            .channels_on(spend.as_str(), at(300_001))
            .is_empty()
    );
    assert_eq!(world.book.parked("c1", at(0)).unwrap().settled, end);
    assert!(world.book.parked("c1", at(300_001)).is_none());
    assert_eq!(world.book.open_channel("c1", at(0)).unwrap().contract, c1);
    let locking = |after, until, max| world.book.locking(at(after), at(until), max);
    assert_eq!(locking(0, 299_999, 9), []);
    assert_eq!(locking(0, 300_000, 9), [(START + 300_000, Arc::from("c1"))]);
    assert_eq!(locking(300_000, 1_800_000, 9).len(), 2);
    assert_eq!(locking(0, 1_800_000, 1).len(), 1);
    assert_eq!(world.book.next_due(), Some(at(300_001)));
}

/// Golden bytes: a change here is a change of the format on disk.
#[test]
fn entries_and_snapshots_keep_their_bytes() {
    let mut world = World::new();
    let (alice, bob, spend, income) = pair(&mut world);
    let c1 = contract("c1", &spend, &income, 8);
    world.open_transfer(&c1, &alice, &bob).unwrap();
    let (_, entry) = world.log.entries.last().unwrap();
    let text = std::str::from_utf8(entry.text()).unwrap();
    assert!(text.starts_with(
        "{\"book\":\"tracker\",\"kind\":\"command\",\"records\":[{\"contract_id\":\"c1\""
    ));
    assert_eq!(
        entry.id().to_string(),
        "3ffe67084204acc4f283f90e0d60a2c7ddbd113d3f918447e83610de0f9ecb54"
    );
    let hash = daybook_ledger::canonical::sha3(&world.book.encode());
    assert_eq!(
        hex::encode(hash),
        "56cc7163746cb3a4e86af4a2ee0b966474e577cad15f0b0b2fa9b3fb899fa3d0"
    );
}
