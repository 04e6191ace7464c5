//! Readers beside a busy writer.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use daybook_ledger::{Height, OutputRef, Position, View};
use daybook_store::{Options, SearchField, disk::simulated::SimulatedDisk};
use support::*;

#[test]
fn readers_see_whole_blocks_while_blocks_are_published_sealed_and_merged() {
    let (made, _) = chain(51, 250, 4);
    let options = Options {
        checkpoint_bytes: 8 << 10,
        run_entries: 40,
        ..small()
    };
    let (store, mut writer, _) = open(&SimulatedDisk::new(), options).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..2_u64 {
            let (store, made, done) = (store.clone(), &made, &done);
            scope.spawn(move || {
                let mut dice = Dice(reader);
                let mut seen = 0;
                let mut owned = 0;
                while !done.load(Ordering::Acquire) || seen < made.len() as u64 {
                    let tip = store.tip();
                    assert!(tip.height.0 >= seen, "a tip never goes back");
                    seen = tip.height.0;
                    if seen == 0 {
                        continue;
                    }
                    // The newest block and one of the older ones are whole.
                    for height in [seen, 1 + dice.below(seen as usize) as u64] {
                        let wanted = &made[height as usize - 1].0;
                        let block = store.block(Height(height)).unwrap().unwrap();
                        assert_eq!(block.block.header, wanted.block.header);
                        for (index, transaction) in wanted.block.assets() {
                            let id = transaction.id();
                            let place = Position {
                                height: Height(height),
                                index,
                            };
                            assert_eq!(store.position(&id).unwrap(), Some(place));
                            assert!(store.view().is_committed(&id));
                            let output = OutputRef {
                                transaction: id,
                                index: 0,
                            };
                            assert!(store.view().transaction(&output.transaction).is_some());
                        }
                        for lost in &wanted.rejected {
                            let found = store.rejection(&lost.id).unwrap();
                            assert_eq!(found, Some((Height(height), lost.rejection.clone())));
                        }
                    }
                    // What a key owns only grows, and in commit order.
                    let mut count = 0;
                    let each = &mut |_| {
                        count += 1;
                        true
                    };
                    store
                        .outputs_of_key(&key(9).public_key(), None, each)
                        .unwrap();
                    assert!(count >= owned);
                    owned = count;
                    let (mut hits, lamp) = (0, "lamp");
                    let each = &mut |_, _| {
                        hits += 1;
                        true
                    };
                    store
                        .search(SearchField::Asset, lamp, Some(3), each)
                        .unwrap();
                    assert!(hits <= 3);
                }
            });
        }
        for made in &made {
            put(&mut writer, made).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    writer.close().unwrap();
}
