//! A fold trusts no entry: spoilt ones are refused, or change the book in a way that breaks nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use bytes::Bytes;
use daybook_ledger::{
    Height,
    tracker::{Address, Book, Entry, command, draft},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

mod tracker_common;
use tracker_common::*;

/// The books before each entry of a short life, and the entry.
fn life() -> Vec<(Book, Entry)> {
    let mut world = World::new();
    let (alice, bob) = (Peer::ed25519(1), Peer::ed25519(2));
    let (spend, income) = (world.spend(&alice), world.income(&bob));
    let wallet = Address::common(&bob.pem);
    let pay_to = world.owner.public_key();
    for (id, to) in [
        ("a", &income),
        ("b", &wallet),
        ("c", &income),
        ("d", &wallet),
    ] {
        let terms = contract(id, &spend, to, 4);
        world.open_transfer(&terms, &alice, &bob).unwrap();
        if id < "c" {
            world
                .close_transfer(&terms, settled(2, 9), &alice, &bob)
                .unwrap();
        } else {
            let text = draft::close_transfer(&terms, &settled(1, 7), &alice.pem, &bob.pem, None);
            world
                .send(cosigned(command::PARK, text, &alice, &bob))
                .unwrap();
        }
    }
    let version = world.version2("1", 1);
    let text = draft::pay_out(&wallet, &pay_to, 600, &bob.pem, &version);
    world.send(bob.request(command::PAY_OUT, text)).unwrap();
    world.deposit(5_000);
    world.wait(300_001);
    world.sweep();
    world.close(&income, &bob).unwrap();
    world.wait(1_800_000);
    world.sweep();
    let mut book = Book::default();
    let mut life = Vec::new();
    for (height, entry) in &world.log.entries {
        life.push((book.clone(), (**entry).clone()));
        book.record(entry, *height).unwrap();
    }
    life
}

/// Another number or word in one place of a text.
fn spoil(text: &str, random: &mut StdRng) -> String {
    let starts: Vec<usize> = text
        .match_indices(|c: char| c.is_ascii_digit())
        .map(|(at, _)| at)
        .filter(|at| *at == 0 || !text.as_bytes()[at - 1].is_ascii_digit())
        .collect();
    let start = starts[random.random_range(0..starts.len())];
    let end = text[start..]
        .find(|c: char| !c.is_ascii_digit())
        .map_or(text.len(), |length| start + length);
    let number: u128 = text[start..end].parse().unwrap_or(7);
    let other = match random.random_range(0..8u32) {
        0 => 0,
        1 => 1,
        2 => u128::from(u64::MAX),
        3 => u128::from(u64::MAX) + 1,
        4 => (1 << 63) - 1,
        5 => number.saturating_sub(1),
        6 => number * 2,
        _ => number + 1,
    };
    let mut spoilt = format!("{}{other}{}", &text[..start], &text[end..]);
    let words = [
        ("peers", "parked"),
        ("expiry", "peers"),
        ("parked", "expiry"),
        ("\"command\"", "\"expiry\""),
        ("\"payout\"", "\"command\""),
        ("0x0b", "0x0d"),
        ("0x0d", "0x0c"),
    ];
    if random.random_range(0..4u32) == 0 {
        let (from, to) = words[random.random_range(0..words.len())];
        spoilt = spoilt.replacen(from, to, 1);
    }
    spoilt
}

#[test]
fn spoilt_entries_are_refused_or_break_nothing() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let life = life();
    let (mut read, mut taken) = (0, 0);
    for round in 0..10_000 {
        let (book, entry) = &life[round % life.len()];
        let text = std::str::from_utf8(entry.text()).unwrap();
        let spoilt = spoil(text, &mut random);
        let Ok(entry) = Entry::read(Bytes::from(spoilt.clone())) else {
            continue;
        };
        assert_eq!(entry.text(), spoilt.as_bytes());
        read += 1;
        let mut book = book.clone();
        if book.record(&entry, Height(9)).is_ok() {
            taken += 1;
            book.audit()
                .unwrap_or_else(|violation| panic!("{violation}: {spoilt}"));
            let bytes = book.encode();
            let again = Book::decode(&bytes).unwrap_or_else(|error| panic!("{error}: {spoilt}"));
            assert_eq!(again.encode(), bytes);
        }
    }
    println!("{read} read, {taken} taken");
    assert!(read > 1_000 && taken > 100);
    for (_, entry) in &life {
        let text = entry.text();
        for length in 0..text.len() {
            assert!(Entry::read(text.slice(..length)).is_err());
        }
    }
}
