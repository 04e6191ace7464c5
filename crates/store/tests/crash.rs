//! The power fails at every moment, and the disk forgets and tears what was not flushed.
#![allow(clippy::unwrap_used)]

mod support;

use daybook_store::{
    Options, StoreError,
    disk::simulated::{Fault, SimulatedDisk},
};
use support::*;

const BLOCKS: usize = 16;

/// Small enough that segments, runs, merges and checkpoints all happen within a few blocks.
fn tiny() -> Options {
    Options {
        segment_bytes: 8 << 10,
        checkpoint_bytes: 6 << 10,
        run_entries: 12,
    }
}

/// Puts blocks behind those that are there until one fails; returns how many are durable.
fn run(disk: &SimulatedDisk, made: &[Made]) -> usize {
    let Ok((store, mut writer, _)) = open(disk, tiny()) else {
        return 0;
    };
    let mut durable = store.tip().height.0 as usize;
    for made in &made[durable..] {
        if writer.append(&made.0).is_err() {
            return durable;
        }
        durable += 1;
        if writer.publish(&made.0, &made.1).is_err() {
            return durable;
        }
    }
    let _ = writer.close();
    durable
}

#[test]
fn whatever_append_returned_for_survives_a_power_cut_at_any_moment_and_nothing_is_half_there() {
    let seed = 77;
    println!("seed {seed}");
    let (made, after) = chain(seed, BLOCKS, 3);
    let whole = SimulatedDisk::new();
    assert_eq!(run(&whole, &made), BLOCKS);
    let operations = whole.operations();
    assert!(
        operations > 300,
        "the story is long enough: {operations} operations"
    );
    let (mut unfinished, mut torn) = (0, 0);
    for crash in 0..operations {
        let disk = SimulatedDisk::new();
        disk.fail_at(crash, Fault::PowerCut);
        let durable = run(&disk, &made);
        let disk = disk.restart(seed * 1_000_003 + crash);

        // Every third time the power fails again while the store recovers.
        let disk = if crash % 3 == 0 {
            disk.fail_at(crash % 17, Fault::PowerCut);
            let _ = open(&disk, tiny());
            disk.restart(crash)
        } else {
            disk
        };

        let opened = open(&disk, tiny());
        let (store, mut writer, recovery) =
            opened.unwrap_or_else(|error| panic!("seed {seed}, power cut at {crash}: {error}"));
        let height = store.tip().height.0 as usize;
        assert!(
            height == durable || height == durable + 1,
            "seed {seed}, power cut at {crash}: {durable} blocks were durable, {height} are there"
        );
        unfinished += usize::from(height > durable);
        torn += usize::from(recovery.torn_bytes > 0);
        assert_same(&store, &after[height], height as u64);
        for (next, made) in made[height..].iter().enumerate().take(2) {
            put(&mut writer, made).unwrap();
            assert_eq!(store.tip().height.0 as usize, height + next + 1);
        }
        writer.close().unwrap();
        let (store, ..) = open(&disk, tiny()).unwrap();
        let height = store.tip().height.0;
        assert_same(&store, &after[height as usize], height);
    }
    println!(
        "{operations} power cuts: {torn} torn tails dropped, {unfinished} unfinished blocks kept"
    );
    assert!(torn > 0, "some of the power cuts tore a write");
}

#[test]
fn after_a_failed_write_or_flush_the_writer_writes_no_more() {
    let (made, after) = chain(78, BLOCKS, 3);
    let whole = SimulatedDisk::new();
    run(&whole, &made);
    for fault in (0..whole.operations()).step_by(7) {
        let disk = SimulatedDisk::new();
        disk.fail_at(fault, Fault::Error);
        let Ok((store, mut writer, _)) = open(&disk, tiny()) else {
            continue;
        };
        let mut durable = 0;
        let mut failed = None;
        for made in &made {
            let appended = writer.append(&made.0);
            durable += usize::from(appended.is_ok());
            if let Err(error) = appended.and_then(|()| writer.publish(&made.0, &made.1)) {
                failed = Some(error);
                break;
            }
        }
        if let Some(error) = failed {
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
            let next = &made[durable.min(BLOCKS - 1)];
            assert!(writer.append(&next.0).is_err(), "fault at {fault}");
            assert!(writer.publish(&next.0, &next.1).is_err());
            assert!(store.tip().height.0 as usize <= durable);
            // Readers go on with what they see.
            let seen = store.tip().height.0;
            assert_same(&store, &after[seen as usize], seen);
            assert!(writer.close().is_err());
        } else {
            drop(writer);
        }
        // The fault may not have come yet; it belongs to the disk that was left.
        let (store, ..) = open(&disk.fork(), tiny()).unwrap();
        let height = store.tip().height.0 as usize;
        assert!(
            height == durable || height == durable + 1,
            "fault at {fault}: {durable}, {height}"
        );
        assert_same(&store, &after[height], height as u64);
    }
}

#[test]
fn a_record_whose_flush_failed_is_written_again_before_it_is_served() {
    let (made, after) = chain(79, BLOCKS, 3);
    let whole = SimulatedDisk::new();
    run(&whole, &made);
    let mut kept = 0;
    for fault in 0..whole.operations() {
        let disk = SimulatedDisk::new();
        disk.fail_at(fault, Fault::ForgetfulSync);
        let durable = run(&disk, &made);
        // The process ends and starts again; the machine goes on, and with it the page cache.
        let Ok((store, writer, _)) = open(&disk, tiny()) else {
            continue;
        };
        let served = store.tip().height.0 as usize;
        assert!(served >= durable);
        kept += usize::from(served > durable);
        drop(writer);
        // Then the power fails.
        for seed in 0..4 {
            let (store, ..) = open(&disk.restart(seed), tiny())
                .unwrap_or_else(|error| panic!("flush {fault}, seed {seed}: {error}"));
            let height = store.tip().height.0 as usize;
            assert_eq!(
                height, served,
                "flush {fault}, seed {seed}: what was served is there"
            );
            assert_same(&store, &after[height], height as u64);
        }
    }
    assert!(
        kept > 0,
        "some records were whole though their flush failed"
    );
}
