//! A store is closed or dropped and opened again.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use daybook_ledger::{Height, Position, TransactionId};
use daybook_store::{Options, StoreError, disk::simulated::SimulatedDisk};
use support::*;

#[test]
fn an_empty_store_shows_its_genesis() {
    let disk = SimulatedDisk::new();
    let (store, writer, recovery) = open(&disk, small()).unwrap();
    assert_eq!(store.genesis(), &genesis());
    assert_eq!(
        (store.tip().height, store.tip().hash),
        (Height(0), genesis().hash())
    );
    assert_eq!(
        (
            recovery.checkpoint,
            recovery.replayed_blocks,
            recovery.torn_bytes
        ),
        (Height(0), 0, 0)
    );
    assert!(store.block(Height(0)).unwrap().is_none());
    assert!(store.block(Height(1)).unwrap().is_none());
    assert!(
        store
            .transaction(&TransactionId([1; 32]))
            .unwrap()
            .is_none()
    );
    let nowhere = Position {
        height: Height(u64::MAX),
        index: u32::MAX,
    };
    assert!(store.transaction_at(nowhere).unwrap().is_none());
    writer.close().unwrap();
    let (store, ..) = open(&disk, small()).unwrap();
    assert_eq!(store.tip().height, Height(0));
}

#[test]
fn published_blocks_are_readable_at_once_and_after_every_kind_of_restart() {
    let (made, after) = chain(1, 60, 6);
    let disk = SimulatedDisk::new();
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    for (height, made) in made.iter().enumerate() {
        writer.append(&made.0).unwrap();
        assert_eq!(
            store.tip().height.0,
            height as u64,
            "readers do not see what is not published"
        );
        writer.publish(&made.0, &made.1).unwrap();
        if height % 20 == 7 {
            assert_same(&store, &after[height + 1], height as u64 + 1);
        }
    }
    assert_same(&store, &after[60], 60);
    drop(writer);

    // Dropped: the tail is replayed.
    let (store, writer, recovery) = open(&disk.fork(), small()).unwrap();
    assert_same(&store, &after[60], 60);
    assert!(
        recovery.replayed_blocks < 60,
        "the checkpoints bound what is replayed"
    );
    writer.close().unwrap();

    // Closed: nothing is replayed.
    let (_, writer, _) = open(&disk, small()).unwrap();
    writer.close().unwrap();
    let (store, _, recovery) = open(&disk, small()).unwrap();
    assert_same(&store, &after[60], 60);
    assert_eq!(
        (recovery.checkpoint, recovery.replayed_blocks),
        (Height(60), 0)
    );
}

#[test]
fn what_is_derived_may_be_deleted_and_comes_back() {
    let (made, after) = chain(2, 30, 5);
    let disk = SimulatedDisk::new();
    let (_, mut writer, _) = open(&disk, small()).unwrap();
    for made in &made {
        put(&mut writer, made).unwrap();
    }
    writer.close().unwrap();
    let all = |path: &str| {
        ["index", "checkpoint"]
            .iter()
            .any(|part| path.contains(part))
    };
    let index = |path: &str| path.contains("index");
    let table = |path: &str| path.contains("blocks.table");
    let checkpoint = |path: &str| path.contains("checkpoint");
    for gone in [&all as &dyn Fn(&str) -> bool, &index, &table, &checkpoint] {
        let disk = disk.fork();
        for (path, _) in disk.files() {
            if gone(path.to_str().unwrap()) {
                use daybook_store::disk::Disk;
                disk.remove(&path).unwrap();
            }
        }
        let (store, writer, _) = open(&disk, small()).unwrap();
        assert_same(&store, &after[30], 30);
        writer.close().unwrap();
        let (store, ..) = open(&disk, small()).unwrap();
        assert_same(&store, &after[30], 30);
    }
}

#[test]
fn a_block_larger_than_a_segment_gets_one_of_its_own() {
    let (made, after) = chain(3, 12, 40);
    let disk = SimulatedDisk::new();
    let options = Options {
        segment_bytes: 4_096,
        ..small()
    };
    let (store, mut writer, _) = open(&disk, options.clone()).unwrap();
    for made in &made {
        put(&mut writer, made).unwrap();
    }
    assert_same(&store, &after[12], 12);
    drop(writer);
    let (store, ..) = open(&disk, options).unwrap();
    assert_same(&store, &after[12], 12);
}

#[test]
fn blocks_may_be_appended_ahead_of_publishing_and_survive_without_it() {
    let (made, after) = chain(4, 6, 3);
    let disk = SimulatedDisk::new();
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    for made in &made[..5] {
        writer.append(&made.0).unwrap();
    }
    for made in &made[..2] {
        writer.publish(&made.0, &made.1).unwrap();
    }
    assert_same(&store, &after[2], 2);
    writer.close().unwrap();
    let (store, mut writer, recovery) = open(&disk, small()).unwrap();
    assert_same(&store, &after[5], 5);
    assert_eq!(
        (recovery.checkpoint, recovery.replayed_blocks),
        (Height(2), 3)
    );
    put(&mut writer, &made[5]).unwrap();
    assert_same(&store, &after[6], 6);
}

#[test]
fn another_networks_data_is_refused() {
    let disk = SimulatedDisk::new();
    open(&disk, small()).unwrap().1.close().unwrap();
    let mut other = genesis();
    other.chain = "another".into();
    let opened = daybook_store::open(DIR.as_ref(), Arc::new(disk), &other, small());
    assert!(matches!(opened.err(), Some(StoreError::Foreign(_))));
}

#[test]
fn a_data_directory_is_used_by_one_process_at_a_time() {
    let disk = SimulatedDisk::new();
    let (_store, writer, _) = open(&disk, small()).unwrap();
    assert!(matches!(
        open(&disk, small()).err(),
        Some(StoreError::Locked(_))
    ));
    drop(writer);
    open(&disk, small()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let open = || {
        daybook_store::open(
            dir.path(),
            Arc::new(daybook_store::disk::RealDisk),
            &genesis(),
            small(),
        )
    };
    let (_store, writer, _) = open().unwrap();
    assert!(matches!(open().err(), Some(StoreError::Locked(_))));
    writer.close().unwrap();
    open().unwrap();
}

#[test]
fn a_real_disk_holds_what_the_simulated_one_does() {
    let (made, after) = chain(5, 40, 6);
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        daybook_store::open(
            dir.path(),
            Arc::new(daybook_store::disk::RealDisk),
            &genesis(),
            small(),
        )
    };
    let (store, mut writer, _) = open().unwrap();
    for made in &made[..30] {
        put(&mut writer, made).unwrap();
    }
    assert_same(&store, &after[30], 30);
    drop(writer);
    let (_, mut writer, _) = open().unwrap();
    for made in &made[30..] {
        put(&mut writer, made).unwrap();
    }
    writer.close().unwrap();
    let (store, _, recovery) = open().unwrap();
    assert_same(&store, &after[40], 40);
    assert_eq!(recovery.replayed_blocks, 0);
}

#[test]
fn a_log_of_more_segments_than_are_held_open_is_read_from_end_to_end() {
    let mut maker = Maker::new(6);
    let made: Vec<_> = (0..300).map(|_| maker.random_block(4)).collect();
    let disk = SimulatedDisk::new();
    let options = Options {
        segment_bytes: 4_096,
        ..Options::default()
    };
    let (store, mut writer, _) = open(&disk, options.clone()).unwrap();
    made.iter().for_each(|made| put(&mut writer, made).unwrap());
    let is_segment = |path: &std::path::Path| path.extension().is_some_and(|end| end == "seg");
    let segments = disk
        .files()
        .iter()
        .filter(|(path, _)| is_segment(path))
        .count();
    assert!(segments > 256, "{segments} segments");
    for height in [1, 299, 2, 150, 300, 1] {
        store.block(Height(height)).unwrap().unwrap();
    }
    drop(writer);
    let (store, _, recovery) = open(&disk, options).unwrap();
    assert_eq!(recovery.replayed_blocks, 300);
    let known = maker.naive.transactions.iter().next().unwrap();
    assert_eq!(store.position(known.0).unwrap(), Some(known.1.0));
}
