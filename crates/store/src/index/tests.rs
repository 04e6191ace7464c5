//! The index as a whole, its runs byte by byte, and what becomes of damage.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::disk::{Map, RealDisk, simulated::SimulatedDisk};

const CHAIN: BlockHash = BlockHash([5; 32]);

fn open(disk: &SimulatedDisk) -> Index {
    disk.create_dir(Path::new("/index")).unwrap();
    Index::open(
        Path::new("/index"),
        Arc::new(disk.clone()),
        CHAIN,
        Secret([1, 2]),
    )
    .unwrap()
}

fn mix(number: u64) -> u64 {
    Secret([3, 4]).key(key::Family::Transaction, &number.to_le_bytes())
}

fn values(index: &Index, key: u64) -> Vec<u64> {
    let (mut oldest, mut newest) = (Vec::new(), Vec::new());
    let shared = index.shared();
    let each = |value| {
        oldest.push(value);
        Ok(true)
    };
    shared.oldest_first(key, each).unwrap();
    let each = |value| {
        newest.push(value);
        Ok(true)
    };
    shared.newest_first(key, each).unwrap();
    newest.reverse();
    assert_eq!(oldest, newest, "both directions name the same values");
    oldest
}

#[test]
fn the_index_does_what_an_ordered_multimap_does_through_runs_and_merges() {
    let disk = SimulatedDisk::new();
    let mut index = open(&disk);
    let mut model: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut entries = Vec::new();
    for height in 1..=600_u64 {
        entries.clear();
        for number in 0..20 {
            let value = height << 24 | number;
            // Keys that occur once, keys that recur, and two that are everywhere.
            let keys = [mix(value), mix(value % 301), key::KEY_MASK, 0];
            entries.extend(keys.map(|key| (key, value)));
        }
        for (key, value) in &entries {
            model.entry(*key).or_default().push(*value);
        }
        if index.add(Height(height), &entries) >= 900 {
            index.seal().unwrap();
        }
        if height % 150 == 0 {
            index.close().unwrap();
            index = open(&disk);
            assert_eq!(index.through(), Height(height));
        }
        if height % 200 == 0 {
            index.settle().unwrap();
            assert!(
                index.shared().sealed().runs.len() <= 3 * 4,
                "runs are merged"
            );
        }
    }
    for (key, wanted) in &model {
        assert_eq!(values(&index, *key), *wanted);
    }
    let sealed = index.shared().sealed();
    let mut read_for_nothing = 0;
    for absent in 1_000_000..1_010_000 {
        assert_eq!(values(&index, mix(absent)), [0; 0]);
        let maybe = sealed
            .runs
            .iter()
            .filter(|(_, run)| run.may_hold(mix(absent)).unwrap());
        read_for_nothing += maybe.count();
    }
    let asked = 10_000 * sealed.runs.len();
    assert!(
        read_for_nothing * 40 < asked,
        "{read_for_nothing} of {asked} said perhaps"
    );
    for (_, run) in &sealed.runs {
        run.check().unwrap();
    }
}

#[test]
fn a_walk_over_a_hot_key_takes_a_few_values_at_a_time_and_sees_one_moment() {
    let disk = SimulatedDisk::new();
    let index = open(&disk);
    let hot = mix(1);
    let count = 10 * VALUES_AT_ONCE;
    let entries: Vec<_> = (0..count).map(|number| (hot, 1 << 24 | number)).collect();
    index.add(Height(1), &entries);
    let (_, mut walk) = index.shared().snapshot(hot);
    assert_eq!(walk.next(), entries.last().map(|entry| entry.1));
    assert!(walk.taken.len() < VALUES_AT_ONCE as usize);
    // What comes meanwhile is not of that moment, and a table that is sealed is read to its end.
    index.add(Height(2), &[(hot, 2 << 24)]);
    index.seal().unwrap();
    index.add(Height(3), &[(hot, 3 << 24)]);
    index.wait_until(0).unwrap();
    let rest: Vec<u64> = walk.collect();
    let wanted = entries.iter().rev().skip(1).map(|entry| entry.1);
    assert!(rest.into_iter().eq(wanted));
    assert_eq!(values(&index, hot).len() as u64, count + 2);
}

#[test]
fn a_panic_of_a_thread_behind_fails_the_index_and_nobody_waits_for_it() {
    let disk = SimulatedDisk::new();
    let index = open(&disk);
    // No block has this place, which the writer of runs takes for a mistake of ours.
    index.add(Height(1), &[(mix(1), u64::MAX)]);
    index.seal().unwrap();
    let failed = index.wait_until(0).unwrap_err();
    assert!(failed.to_string().contains("internal error"), "{failed}");
    assert!(index.close().is_err());
}

fn facts(entries: u64, keys: u64) -> Facts {
    Facts {
        entries,
        keys,
        from: Height(3),
        to: Height(9),
    }
}

/// A position in the heights of [`facts`]; they ascend with their numbers.
fn at(number: u64) -> u64 {
    (3 << 24) + number
}

fn run_bytes(entries: &[(u64, u64)], keys: u64) -> Vec<u8> {
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new("/")).unwrap();
    let facts = facts(entries.len() as u64, keys);
    let mut writer = RunWriter::create(Path::new("/run"), &disk, facts).unwrap();
    for (key, value) in entries {
        writer.push(*key, *value).unwrap();
    }
    writer.finish().unwrap();
    disk.files().remove(0).1
}

#[test]
fn runs_of_every_size_read_back() {
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new("/")).unwrap();
    let page = facts(1, 1).page_entries();
    for count in [
        1,
        2,
        page - 1,
        page,
        page + 1,
        2 * page - 1,
        2 * page,
        2 * page + 1,
        3_000,
    ] {
        // Keys come in threes, so that one may end a page and begin the next.
        let mut entries: Vec<_> = (0..count)
            .map(|number| (mix(number / 3 * 2), at(number)))
            .collect();
        entries.sort_unstable();
        let bytes = run_bytes(&entries, count);
        let path = Path::new("/run");
        disk.create(path).unwrap().write_at(&bytes, 0).unwrap();
        let run = Run::open(path, &disk).unwrap();
        for number in 0..count {
            let key = mix(number / 3 * 2);
            let same = |entry: &&(u64, u64)| entry.0 == key;
            let wanted: Vec<_> = entries.iter().filter(same).map(|entry| entry.1).collect();
            assert!(run.may_hold(key).unwrap());
            assert_eq!(run.values(run.find(key).unwrap()).unwrap(), wanted);
            assert!(run.find(key.wrapping_add(1 << 16)).unwrap().is_empty());
        }
        assert!(run.find(0).unwrap().is_empty() && run.find(u64::MAX).unwrap().is_empty());
        run.check().unwrap();
    }
}

#[test]
fn a_position_takes_as_many_bytes_as_the_heights_of_its_run_need() {
    for (to, bytes) in [
        (3, 3),
        (4, 4),
        (3 + 0xff, 4),
        (3 + 0x100, 5),
        (3 + 0xffff, 5),
        (3 + 0x1_0000, 6),
        (3 + 0x100_0000, 7),
        (crate::place::HEIGHT_MAX, 8),
    ] {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new("/")).unwrap();
        let path = Path::new("/run");
        let facts = Facts {
            to: Height(to),
            ..facts(2, 2)
        };
        let last = crate::place::pack(Height(to), 0x00ff_ffff);
        let mut writer = RunWriter::create(path, &disk, facts).unwrap();
        writer.push(1 << 16, at(0)).unwrap();
        writer.push(2 << 16, last).unwrap();
        writer.finish().unwrap();
        assert_eq!(facts.page_entries(), 4_080 / (6 + bytes));
        let run = Run::open(path, &disk).unwrap();
        assert_eq!(run.values(0..2).unwrap(), [at(0), last]);
        run.check().unwrap();

        // A full page and a begun one, each key and position with all its bits.
        let count = facts.page_entries() + 3;
        let entries: Vec<_> = (1..=count)
            .map(|number| {
                (
                    (key::KEY_MASK / count * number) & key::KEY_MASK,
                    last - count + number,
                )
            })
            .collect();
        let facts = Facts {
            entries: count,
            keys: count,
            ..facts
        };
        let path = Path::new("/full");
        let mut writer = RunWriter::create(path, &disk, facts).unwrap();
        for (key, value) in &entries {
            writer.push(*key, *value).unwrap();
        }
        writer.finish().unwrap();
        let run = Arc::new(Run::open(path, &disk).unwrap());
        run.check().unwrap();
        let mut cursor = Cursor::new(run);
        let read: Vec<_> = std::iter::from_fn(|| cursor.next().unwrap()).collect();
        assert_eq!(read, entries);
    }
}

#[test]
fn the_entries_of_a_hot_key_are_found_without_reading_the_pages_between() {
    // Four pages, of which the key has everything but the first and the last entry.
    let hot = 1 << 40;
    let last = 4 * facts(1, 1).page_entries() - 1;
    let key_of = |number| match number {
        0 => hot - (1 << 16),
        number if number == last => hot + (1 << 16),
        _ => hot,
    };
    let entries: Vec<_> = (0..=last)
        .map(|number| (key_of(number), at(number)))
        .collect();
    let mut bytes = run_bytes(&entries, 3);
    // Behind the header and the first page are two of which nobody needs to read a byte.
    bytes[2 * run::PAGE_BYTES] ^= 1;
    bytes[3 * run::PAGE_BYTES] ^= 1;
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new("/")).unwrap();
    let path = Path::new("/run");
    disk.create(path).unwrap().write_at(&bytes, 0).unwrap();
    let run = Run::open(path, &disk).unwrap();
    assert_eq!(run.find(hot).unwrap(), 1..last);
    assert!(run.values(1..last).is_err(), "what is read is checked");
    let wanted: Vec<_> = (1..200).map(at).collect();
    assert_eq!(run.values(1..200).unwrap(), wanted);
}

#[test]
fn a_key_that_fills_whole_pages_ends_where_the_next_one_begins() {
    let page = facts(1, 1).page_entries();
    for (first, count) in [
        (0, page),
        (page, page),
        (page, 2 * page),
        (page - 1, page + 2),
    ] {
        let total = first + count + page;
        let key_of = |number: u64| match number {
            number if number < first => 4 << 16,
            number if number < first + count => 5 << 16,
            _ => key::KEY_MASK,
        };
        let entries: Vec<_> = (0..total)
            .map(|number| (key_of(number), at(number)))
            .collect();
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new("/")).unwrap();
        let path = Path::new("/run");
        let bytes = run_bytes(&entries, 3);
        disk.create(path).unwrap().write_at(&bytes, 0).unwrap();
        let run = Run::open(path, &disk).unwrap();
        assert_eq!(run.find(4 << 16).unwrap(), 0..first);
        assert_eq!(run.find(5 << 16).unwrap(), first..first + count);
        assert_eq!(run.find(key::KEY_MASK).unwrap(), first + count..total);
        assert!(run.find(6 << 16).unwrap().is_empty() && run.find(3 << 16).unwrap().is_empty());
    }
}

#[test]
fn a_run_is_mapped_from_a_real_disk_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.run");
    let entries: Vec<_> = (0..1_000_u64)
        .map(|number| (number << 50, at(number)))
        .collect();
    let bytes = run_bytes(&entries, 1_000);
    RealDisk.create(&path).unwrap().write_at(&bytes, 0).unwrap();
    let run = Run::open(&path, &RealDisk).unwrap();
    assert_eq!(run.values(run.find(77 << 50).unwrap()).unwrap(), [at(77)]);
    assert!(matches!(
        RealDisk.open(&path).unwrap().map().unwrap(),
        Map::Pages(_)
    ));
    run.check().unwrap();
}

#[test]
fn a_run_and_a_manifest_have_the_bytes_that_the_format_says() {
    let entries: Vec<_> = (0..300_u64)
        .map(|number| (number << 55, (3 + number % 7) << 24 | 1))
        .collect();
    crate::golden::check("run", &run_bytes(&entries, 300));

    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new("/")).unwrap();
    let manifest = Manifest {
        through: Height(0x0102),
        next_number: 8,
    };
    let runs = [
        Listed {
            number: 5,
            level: 1,
            from: Height(1),
            to: Height(0x0100),
        },
        Listed {
            number: 7,
            level: 0,
            from: Height(0x0101),
            to: Height(0x0102),
        },
    ];
    write_manifest(
        Path::new("/"),
        &disk,
        CHAIN,
        Secret([1, 2]),
        &manifest,
        &runs,
    )
    .unwrap();
    crate::golden::check("manifest", &disk.files().remove(0).1);
    let (read, secret, listed) = read_manifest(Path::new("/"), &disk, CHAIN)
        .unwrap()
        .unwrap();
    assert_eq!((read.through, read.next_number), (Height(0x0102), 8));
    assert_eq!((secret, &listed[..]), (Secret([1, 2]), &runs[..]));
}
