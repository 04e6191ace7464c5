//! Bits flip, files shrink and vanish: it is found, and nothing wrong is ever served.
#![allow(clippy::unwrap_used)]

mod support;

use std::{panic::AssertUnwindSafe, path::Path, sync::Arc};

use daybook_ledger::{Height, View};
use daybook_store::{
    Allowance, CheckOptions, Report, StoreError, Withheld, check,
    disk::{Disk, simulated::SimulatedDisk},
};
use support::*;

const BLOCKS: usize = 24;

fn closed(seed: u64) -> (SimulatedDisk, Vec<Made>, Vec<Naive>) {
    let (made, after) = chain(seed, BLOCKS, 4);
    let disk = SimulatedDisk::new();
    let (_, mut writer, _) = open(&disk, small()).unwrap();
    for made in &made {
        put(&mut writer, made).unwrap();
    }
    writer.close().unwrap();
    (disk, made, after)
}

fn checked(disk: &SimulatedDisk, rebuild: bool) -> Result<Report, StoreError> {
    let options = CheckOptions {
        rebuild,
        signatures: true,
        store: small(),
    };
    check(
        Path::new(DIR),
        Arc::new(disk.clone()),
        &options,
        &mut |_, _| {},
    )
}

#[test]
fn a_sound_store_has_no_findings() {
    let (disk, made, _) = closed(10);
    let report = checked(&disk, false).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.is_sound() && !report.rebuilt);
    assert_eq!(
        (report.tip.height, report.torn_bytes),
        (Height(BLOCKS as u64), 0)
    );
    assert_eq!(report.tip.hash, made[BLOCKS - 1].0.block.header.hash());
    assert_eq!(report.tip.state, made[BLOCKS - 1].0.block.state());
    assert_eq!(report.genesis, genesis());
}

#[test]
fn a_store_that_was_not_closed_has_no_findings_either() {
    let (made, _) = chain(11, BLOCKS, 4);
    let disk = SimulatedDisk::new();
    let (_, mut writer, _) = open(&disk, small()).unwrap();
    for made in &made {
        put(&mut writer, made).unwrap();
    }
    drop(writer);
    let report = checked(&disk, false).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.tip.height, Height(BLOCKS as u64));
}

#[test]
fn a_flipped_bit_anywhere_is_found_by_check_and_never_served() {
    let (sound, _, after) = closed(12);
    let seed = 3;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    for (path, bytes) in sound.files() {
        if bytes.is_empty() {
            continue;
        }
        for _ in 0..60 {
            let offset = dice.below(bytes.len()) as u64;
            let mask = 1 << dice.below(8);
            let disk = sound.fork();
            disk.flip(&path, offset, mask);
            let place = format!("seed {seed}: {} at {offset}, mask {mask}", path.display());
            match checked(&disk, false) {
                Ok(report) => {
                    assert!(
                        !report.is_sound() || report.torn_bytes > 0,
                        "check finds nothing: {place}"
                    );
                }
                Err(StoreError::Damaged { .. } | StoreError::Foreign(_)) => {}
                Err(error) => panic!("{place}: {error}"),
            }
            let (store, writer, _) = match open(&disk, small()) {
                Ok(opened) => opened,
                Err(StoreError::Damaged { .. } | StoreError::Foreign(_)) => continue,
                Err(error) => panic!("{place}: {error}"),
            };
            // It opened, so what it answers is right or an error.
            let compared = std::panic::catch_unwind(AssertUnwindSafe(|| {
                assert_same(&store, &after[BLOCKS], BLOCKS as u64);
            }));
            if let Err(panic) = compared {
                let text = panic
                    .downcast::<String>()
                    .map_or_else(|_| String::new(), |text| *text);
                assert!(text.contains("Damaged"), "wrong answer: {place}: {text}");
            }
            drop(writer);
        }
    }
}

#[test]
fn damage_is_named_with_its_place_and_height() {
    let (disk, made, _) = closed(13);
    // The text of a transaction in block 9: its bytes are found by searching the files for it.
    let text = made[8].0.block.entries[0].text().clone();
    let (path, offset) = disk
        .files()
        .into_iter()
        .find_map(|(path, bytes)| {
            let at = bytes
                .windows(text.len())
                .position(|window| window == &text[..])?;
            Some((path, at as u64))
        })
        .unwrap();
    disk.flip(&path, offset + 5, 1);
    let report = checked(&disk, false).unwrap();
    let finding = &report.findings[0];
    assert_eq!(
        (&finding.path, finding.height, finding.derived),
        (&path, Some(Height(9)), false)
    );
    assert!(
        finding.what.contains("checksum of transaction 0"),
        "{}",
        finding.what
    );
    assert_eq!(
        report.tip.height,
        Height(8),
        "the last sound block before the damage"
    );

    // A start does not read that far back; a reader does, and is told.
    let (store, ..) = open(&disk, small()).unwrap();
    assert!(matches!(
        store.block(Height(9)),
        Err(StoreError::Damaged { .. })
    ));
    let id = made[8].0.block.entries[0].id();
    assert!(matches!(
        store.transaction(&id),
        Err(StoreError::Damaged { .. })
    ));
    store.block(Height(10)).unwrap();
}

#[test]
fn a_damaged_log_is_not_rebuilt_from() {
    let (disk, ..) = closed(14);
    let segment = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with("00000001.seg"))
        .unwrap();
    disk.flip(&segment.0, 2_000, 4);
    let report = checked(&disk, true).unwrap();
    assert!(!report.rebuilt && !report.is_sound());
    assert!(
        disk.files()
            .iter()
            .any(|(path, _)| path.extension().is_some_and(|e| e == "checkpoint"))
    );
}

#[test]
fn what_is_derived_is_rebuilt_from_a_sound_log() {
    let (disk, _, after) = closed(15);
    for (path, bytes) in disk.files() {
        let name = path.to_string_lossy().into_owned();
        if !name.contains("/log/") && bytes.len() > 40 {
            disk.flip(&path, 40, 1);
        }
    }
    assert!(open(&disk, small()).is_err());
    let report = checked(&disk, true).unwrap();
    assert!(report.rebuilt && report.is_sound(), "{report:?}");
    // How many index runs there were depends on what was merged by the close.
    assert!(report.findings.len() >= 2, "{report:?}");
    assert_eq!(checked(&disk, false).unwrap().findings, []);
    let (store, _, recovery) = open(&disk, small()).unwrap();
    assert_eq!(recovery.replayed_blocks, 0);
    assert_same(&store, &after[BLOCKS], BLOCKS as u64);
}

#[test]
fn a_log_shorter_than_its_checkpoint_is_damaged_and_not_a_torn_tail() {
    let (disk, ..) = closed(16);
    let (path, bytes) = disk
        .files()
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    // Wipe the last record.
    let last = bytes
        .windows(3)
        .rposition(|window| window == [0xF5, b'D', b'B'])
        .unwrap()
        - 1;
    for (offset, byte) in bytes.iter().enumerate().skip(last) {
        if *byte != 0 {
            disk.flip(&path, offset as u64, *byte);
        }
    }
    assert!(matches!(
        open(&disk, small()).err(),
        Some(StoreError::Damaged { .. })
    ));
    let report = checked(&disk, false).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.what.contains("the log ends at height"))
    );
    assert!(!checked(&disk, true).unwrap().rebuilt);
}

#[test]
fn a_missing_or_shortened_segment_is_damage() {
    let (disk, ..) = closed(17);
    let segments: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    assert!(segments.len() >= 3);
    for (path, bytes) in &segments {
        let gone = disk.fork();
        gone.remove(path).unwrap();
        assert!(open(&gone, small()).is_err(), "{}", path.display());
        for length in [0, 10, 64, 70, bytes.len() / 2, bytes.len() - 1] {
            let short = disk.fork();
            short.truncate(path, length);
            let opened = open(&short, small()).err();
            assert!(
                matches!(opened, Some(StoreError::Damaged { .. })),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn damage_that_a_rule_comes_upon_stops_the_writer() {
    use daybook_ledger::View;
    let (disk, made, _) = closed(18);
    // Every page of entries of every run is damaged; headers, fences and filters are not.
    for (path, bytes) in disk.files() {
        if path.extension().is_some_and(|e| e == "run") {
            let pages = u64::from_le_bytes(bytes[8..16].try_into().unwrap()).div_ceil(255);
            (1..=pages).for_each(|page| disk.flip(&path, page * 4_096 + 3, 1));
        }
    }
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    let known = made[3].0.block.entries[0].id();
    assert!(
        store.view().is_committed(&known),
        "in doubt the answer is the one that refuses"
    );
    let mut maker = Maker::new(18);
    for _ in 0..BLOCKS {
        let count = 1 + maker.dice.below(4);
        maker.random_block(count);
    }
    let next = maker.random_block(1);
    assert!(matches!(
        writer.append(&next.0),
        Err(StoreError::Damaged { .. })
    ));
    assert_eq!(store.tip().height, Height(BLOCKS as u64));
}

#[test]
fn a_view_that_cannot_read_for_a_moment_says_so_and_nothing_is_damaged() {
    let disk = SimulatedDisk::new();
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    let mut maker = Maker::new(12);
    let made = maker.random_block(3);
    put(&mut writer, &made).unwrap();
    let id = made.0.block.assets().next().unwrap().1.id();
    {
        let view = store.view();
        disk.fail_reads(true);
        assert!(view.transaction(&id).is_none());
        assert!(
            matches!(view.withheld(), Some(Withheld::Unreadable(error)) if error.is_transient())
        );
        assert!(view.is_committed(&id));
        assert!(view.withheld().is_some());
        disk.fail_reads(false);
        assert!(view.transaction(&id).is_some() && view.is_committed(&id));
        assert!(view.withheld().is_none());
    }
    let next = maker.random_block(3);
    put(&mut writer, &next).unwrap();
}

#[test]
fn a_view_reads_no_more_history_than_it_is_allowed() {
    let (store, mut writer, _) = open(&SimulatedDisk::new(), small()).unwrap();
    let mut maker = Maker::new(13);
    let made = maker.random_block(6);
    put(&mut writer, &made).unwrap();
    let ids: Vec<_> = made.0.block.assets().map(|(_, t)| t.id()).collect();
    // Each read counts 4 KiB at least.
    let allowance = Allowance::new(10 << 10);
    let view = store.view_within(&allowance);
    allowance.begin(false);
    for id in &ids[..3] {
        assert!(view.transaction(id).is_some());
    }
    assert!(view.transaction(&ids[3]).is_none());
    assert!(
        matches!(view.withheld(), Some(Withheld::TooMuch)),
        "one decision read all of it"
    );
    allowance.begin(false);
    assert!(view.transaction(&ids[3]).is_none());
    assert!(
        matches!(view.withheld(), Some(Withheld::Spent)),
        "others read all of it"
    );
    allowance.begin(true);
    assert!(view.transaction(&ids[3]).is_none());
    assert!(matches!(view.withheld(), Some(Withheld::Spent)));

    let allowance = Allowance::new(1);
    let view = store.view_within(&allowance);
    allowance.begin(true);
    assert!(
        ids.iter().all(|id| view.transaction(id).is_some()),
        "it depends on them"
    );
    assert!(view.withheld().is_none());
}
