//! Checkpoints beside a busy ledger, backups and the way back.
#![allow(clippy::unwrap_used)]

mod support;

use std::{path::Path, sync::Arc};

use daybook_ledger::{Draft, Height, Parser, Rules, json::Object};
use daybook_store::{
    CheckOptions, Options, StoreError, check,
    disk::{Disk, RealDisk, simulated::SimulatedDisk},
    restore,
};
use support::*;

#[test]
fn a_checkpoint_written_while_blocks_are_published_is_exact_once_replayed() {
    // Checkpoints are begun at every block and end whenever their thread gets there; each image of the
    // disk on the way must open to the naive ledger.
    let (made, after) = chain(31, 60, 8);
    let disk = SimulatedDisk::new();
    let options = Options {
        checkpoint_bytes: 1,
        ..small()
    };
    let (_, mut writer, _) = open(&disk, options.clone()).unwrap();
    let mut fuzzy = 0;
    for (height, block) in made.iter().enumerate() {
        put(&mut writer, block).unwrap();
        if height % 4 == 3 {
            let image = disk.fork();
            let (store, mut again, recovery) = open(&image, options.clone()).unwrap();
            let height = height + 1;
            fuzzy += usize::from(recovery.checkpoint.0 > 0 && recovery.replayed_blocks > 0);
            assert_same(&store, &after[height], height as u64);
            if let Some(next) = made.get(height) {
                put(&mut again, next).unwrap();
            }
            drop(again);
            let report = check(
                Path::new(DIR),
                Arc::new(image),
                &CheckOptions {
                    store: options.clone(),
                    ..CheckOptions::default()
                },
                &mut |_, _| {},
            );
            assert_eq!(report.unwrap().findings, []);
        }
    }
    println!("{fuzzy} images had a checkpoint below their tip");
}

#[test]
fn what_was_taken_by_wider_rules_of_an_earlier_day_is_no_damage() {
    let wide = Draft::create(Object::from_iter([("a.b", "language")]))
        .metadata(json(r#"{"language":"klingon"}"#))
        .output(1, &key(1));
    let mut parser = Parser::new(Rules::WIDEST);
    let wide = wide.sign_with(&mut parser, &[&key(1)]).unwrap();
    assert!(
        Parser::new(Rules::default())
            .parse(wide.canonical().clone())
            .is_err(),
        "by the usual rules it would be refused"
    );
    let disk = SimulatedDisk::new();
    let (_, mut writer, _) = open(&disk, small()).unwrap();
    let made = Maker::new(1).block(vec![wide.clone()], vec![]);
    put(&mut writer, &made).unwrap();
    writer.close().unwrap();
    let report = check(
        Path::new(DIR),
        Arc::new(disk.fork()),
        &CheckOptions {
            signatures: true,
            ..CheckOptions::default()
        },
        &mut |_, _| {},
    );
    assert_eq!(report.unwrap().findings, []);
    let (store, ..) = open(&disk, small()).unwrap();
    assert!(store.transaction(&wide.id()).unwrap().is_some());
}

#[test]
fn a_check_looks_up_what_came_before_on_disk_and_leaves_nothing_behind() {
    let (made, _) = chain(35, 40, 8);
    let disk = SimulatedDisk::new();
    let (_, mut writer, _) = open(&disk, small()).unwrap();
    made.iter().for_each(|made| put(&mut writer, made).unwrap());
    writer.close().unwrap();
    // A check that was cut off left a file that is no run.
    let dir = Path::new(DIR).join("check");
    disk.create_dir(&dir).unwrap();
    let left = disk.create(&dir.join("00000001.run")).unwrap();
    left.write_at(b"half a run", 0).unwrap();
    let before = disk.files_made();
    let report = check(
        Path::new(DIR),
        Arc::new(disk.clone()),
        &CheckOptions {
            store: small(),
            ..CheckOptions::default()
        },
        &mut |_, _| {},
    );
    assert_eq!(report.unwrap().findings, []);
    let made = disk.files_made() - before;
    assert!(made > 2, "a check has runs on disk meanwhile: {made}");
    assert_eq!(disk.list(&dir).unwrap(), [""; 0]);
}

#[test]
fn two_checkpoints_are_kept_and_the_older_serves_when_the_newer_is_unreadable() {
    let (made, after) = chain(32, 40, 6);
    let disk = SimulatedDisk::new();
    for part in made.chunks(10) {
        let (_, mut writer, _) = open(&disk, small()).unwrap();
        part.iter().for_each(|made| put(&mut writer, made).unwrap());
        writer.close().unwrap();
    }
    let checkpoints: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "checkpoint"))
        .collect();
    assert_eq!(checkpoints.len(), 2);
    let (newest, bytes) = checkpoints.last().unwrap();
    disk.flip(newest, bytes.len() as u64 / 2, 1);
    let (store, _, recovery) = open(&disk, small()).unwrap();
    assert!(recovery.checkpoint < Height(40) && recovery.checkpoint >= Height(30));
    assert_same(&store, &after[40], 40);
}

#[test]
fn a_backup_of_a_running_store_opens_as_it_was() {
    let (made, after) = chain(33, 50, 6);
    let disk = SimulatedDisk::new();
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    made[..30]
        .iter()
        .for_each(|made| put(&mut writer, made).unwrap());
    // One block is durable but not shown yet: it is not part of the image.
    writer.append(&made[30].0).unwrap();
    let mut heard = Vec::new();
    let tip = store
        .backup(Path::new("/backup"), &mut |done, all| {
            heard.push((done, all))
        })
        .unwrap();
    assert_eq!((tip.height, heard.last()), (Height(30), Some(&(30, 30))));
    writer.publish(&made[30].0, &made[30].1).unwrap();
    made[31..]
        .iter()
        .for_each(|made| put(&mut writer, made).unwrap());
    assert_same(&store, &after[50], 50);

    let again = store.backup(Path::new("/backup"), &mut |_, _| {});
    assert!(
        matches!(again, Err(StoreError::Foreign(_))),
        "a folder that is not empty is refused"
    );

    let options = CheckOptions {
        store: small(),
        ..CheckOptions::default()
    };
    let report = restore(
        Path::new("/backup"),
        Path::new("/restored"),
        Arc::new(disk.clone()),
        &options,
        &mut |_, _| {},
    )
    .unwrap();
    assert!(report.is_sound() && report.rebuilt);
    assert_eq!(report.tip, tip);
    for dir in ["/restored", "/backup"] {
        let opened =
            daybook_store::open(Path::new(dir), Arc::new(disk.clone()), &genesis(), small());
        let (store, mut writer, recovery) = opened.unwrap();
        assert_eq!(recovery.replayed_blocks == 0, dir == "/restored");
        assert_same(&store, &after[30], 30);
        put(&mut writer, &made[30]).unwrap();
        assert_same(&store, &after[31], 31);
    }
    let refused = restore(
        Path::new("/backup"),
        Path::new("/restored"),
        Arc::new(disk.clone()),
        &options,
        &mut |_, _| {},
    );
    assert!(matches!(refused, Err(StoreError::Foreign(_))));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let (made, _) = chain(34, 10, 4);
    let disk = SimulatedDisk::new();
    let (store, mut writer, _) = open(&disk, small()).unwrap();
    made.iter().for_each(|made| put(&mut writer, made).unwrap());
    store.backup(Path::new("/backup"), &mut |_, _| {}).unwrap();
    disk.flip(Path::new("/backup/log/00000001.seg"), 1_500, 2);
    let options = CheckOptions {
        store: small(),
        ..CheckOptions::default()
    };
    let restored = restore(
        Path::new("/backup"),
        Path::new("/restored"),
        Arc::new(disk.clone()),
        &options,
        &mut |_, _| {},
    );
    assert!(matches!(restored, Err(StoreError::Damaged { .. })));
}

#[test]
fn a_backup_on_a_real_disk_goes_there_and_back() {
    let (made, after) = chain(35, 20, 6);
    let dir = tempfile::tempdir().unwrap();
    let [data, backup, restored] = ["data", "backup", "restored"].map(|name| dir.path().join(name));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (store, mut writer, _) =
        daybook_store::open(&data, disk.clone(), &genesis(), small()).unwrap();
    made.iter().for_each(|made| put(&mut writer, made).unwrap());
    store.backup(&backup, &mut |_, _| {}).unwrap();
    let options = CheckOptions {
        store: small(),
        signatures: true,
        ..CheckOptions::default()
    };
    assert!(
        restore(&backup, &restored, disk.clone(), &options, &mut |_, _| {})
            .unwrap()
            .is_sound()
    );
    let (store, ..) = daybook_store::open(&restored, disk.clone(), &genesis(), small()).unwrap();
    assert_same(&store, &after[20], 20);
    let busy = check(&data, disk, &options, &mut |_, _| {});
    assert!(
        matches!(busy, Err(StoreError::Locked(_))),
        "a store in use is not checked"
    );
}

#[test]
fn a_folder_without_a_log_is_neither_checked_nor_restored_from_and_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = CheckOptions::default();
    for from in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let checked = check(&from, disk.clone(), &options, &mut |_, _| {});
        assert!(matches!(checked, Err(StoreError::Foreign(_))));
        let to = dir.path().join("to");
        let restored = restore(&from, &to, disk.clone(), &options, &mut |_, _| {});
        assert!(matches!(restored, Err(StoreError::Foreign(_))));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
