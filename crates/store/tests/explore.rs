//! What people page through, against the naive ledger.
#![allow(clippy::unwrap_used)]

mod support;

use daybook_ledger::{AssetId, Height, Position, TransactionId, block::Entry};
use daybook_store::{Name, Store, disk::simulated::SimulatedDisk};
use support::*;

/// Everything under a name, newest first, read in pages of `page`.
fn paged(store: &Store, name: Name<'_>, page: usize) -> Vec<(Position, TransactionId)> {
    let mut all: Vec<(Position, TransactionId)> = Vec::new();
    loop {
        let before = all.last().map(|(position, _)| *position);
        let had = all.len();
        store
            .entries_before(name, before, &mut |position, entry| {
                all.push((position, entry.id()));
                all.len() < had + page
            })
            .unwrap();
        if all.len() < had + page {
            return all;
        }
    }
}

/// A store whose index has runs, tables and fresh entries, and the naive ledger beside it.
fn filled(seed: u64) -> (Store, daybook_store::Writer, Naive) {
    println!("seed {seed}");
    let (store, mut writer, _) = open(&SimulatedDisk::new(), small()).unwrap();
    let (made, mut after) = chain(seed, 60, 12);
    for each in &made {
        put(&mut writer, each).unwrap();
    }
    (store, writer, after.pop().unwrap())
}

/// Assets, not the ids of those that move them.
fn assets(naive: &Naive) -> Vec<AssetId> {
    let made = naive.transactions.iter();
    made.filter(|(id, (_, transaction))| transaction.asset() == id.as_asset())
        .map(|(id, _)| id.as_asset())
        .collect()
}

#[test]
fn pages_of_a_keys_entries_are_whole_and_newest_first() {
    let (store, _writer, naive) = filled(21);
    for number in 1..=9 {
        let owner = key(number).public_key();
        let mut wanted: Vec<_> = naive
            .transactions
            .iter()
            .filter(|(_, (_, transaction))| {
                let mut outputs = transaction.outputs().iter();
                outputs.any(|output| output.public_keys.contains(&owner))
            })
            .map(|(id, (position, _))| (*position, *id))
            .collect();
        wanted.sort_unstable();
        wanted.reverse();
        for page in [1, 7, 1_000] {
            assert_eq!(paged(&store, Name::Owner(&owner), page), wanted);
        }
    }
}

#[test]
fn pages_of_an_assets_entries_end_with_the_transaction_that_made_it() {
    let (store, _writer, naive) = filled(22);
    for asset in assets(&naive) {
        let mut wanted: Vec<_> = naive
            .transactions_of_asset(&asset, None)
            .into_iter()
            .map(|id| (naive.transactions[&id].0, id))
            .collect();
        let moves: Vec<_> = wanted.iter().skip(1).map(|(at, _)| *at).collect();
        let made = wanted.first().map(|(at, _)| *at);
        wanted.reverse();
        for page in [1, 3, 1_000] {
            assert_eq!(paged(&store, Name::Asset(&asset), page), wanted);
        }
        if let Some(made) = made {
            for (number, after) in std::iter::once(made).chain(moves.clone()).enumerate() {
                let mut found = Vec::new();
                store
                    .moves_of_asset_after(&asset, after, &mut |position, _| {
                        found.push(position);
                        true
                    })
                    .unwrap();
                assert_eq!(found, moves[number..], "after {after}");
            }
        }
    }
}

#[test]
fn every_entry_is_read_by_its_place_and_nothing_beside() {
    let (store, _writer, naive) = filled(23);
    for (id, (position, _)) in &naive.transactions {
        let entry = store.entry_at(*position).unwrap().unwrap();
        assert!(matches!(entry, Entry::Asset(_)));
        assert_eq!(entry.id(), *id);
    }
    let tip = store.tip();
    for (height, index) in [(0, 0), (1, u32::MAX), (tip.height.0 + 1, 0), (u64::MAX, 0)] {
        let height = Height(height);
        assert!(
            store
                .entry_at(Position { height, index })
                .unwrap()
                .is_none()
        );
    }
    let heading = store.heading(tip.height).unwrap().unwrap();
    assert_eq!((heading.hash, heading.header.time), (tip.hash, tip.time));
    assert!(heading.bytes > 0);
    assert!(store.heading(Height(0)).unwrap().is_none());
    assert!(store.heading(tip.height.next()).unwrap().is_none());
}

#[test]
fn a_page_may_begin_anywhere_even_beyond_what_there_can_be() {
    let (store, _writer, naive) = filled(24);
    let asset = assets(&naive)[0];
    let read = |before| {
        let mut count = 0;
        let each = &mut |_, _| {
            count += 1;
            true
        };
        store
            .entries_before(Name::Asset(&asset), Some(before), each)
            .unwrap();
        count
    };
    let height = Height(u64::MAX);
    let all = naive.transactions_of_asset(&asset, None).len();
    assert_eq!(
        read(Position {
            height,
            index: u32::MAX
        }),
        all
    );
    assert_eq!(
        read(Position {
            height: Height(0),
            index: 0
        }),
        0
    );
    assert_eq!(read(naive.transactions[&asset.as_transaction()].0), 0);
}
