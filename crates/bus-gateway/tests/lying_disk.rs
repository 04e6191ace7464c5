//! The bus's store over a disk that loses what was not flushed: what was acknowledged is there after
//! the crash, and nothing is half there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use daybook_bus::{StoreOp, Stored};
use daybook_bus_gateway::{Disk, Redb};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

/// A file whose unflushed writes are kept apart, in order.
#[derive(Clone, Debug, Default)]
struct LyingFile(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    flushed: Vec<u8>,
    pending: Vec<Change>,
    /// Writes until the disk fails, as on a loss of power.
    writes_left: Option<u32>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
            Change::Write(offset, data) => {
                let at = usize::try_from(*offset).unwrap();
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl State {
    fn now(&self) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        for change in &self.pending {
            change.apply(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        match &mut self.writes_left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.pending.push(change);
        Ok(())
    }
}

impl LyingFile {
    /// The file after a loss of power: of the unflushed writes any may have arrived, or a part of one.
    fn after_crash(&self, random: &mut StdRng) -> LyingFile {
        let state = self.0.lock().unwrap();
        let mut bytes = state.flushed.clone();
        for change in &state.pending {
            match change {
                _ if random.random_bool(0.5) => {}
                Change::Write(offset, data) if random.random_bool(0.3) => {
                    let part = random.random_range(0..=data.len());
                    Change::Write(*offset, data[..part].to_vec()).apply(&mut bytes);
                }
                change => change.apply(&mut bytes),
            }
        }
        LyingFile(Arc::new(Mutex::new(State {
            flushed: bytes,
            ..State::default()
        })))
    }
}

impl StorageBackend for LyingFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap().now();
        let at = usize::try_from(offset).unwrap();
        let found = bytes.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.writes_left == Some(0) {
            return Err(io::Error::other("the power is gone"));
        }
        state.flushed = state.now();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0
            .lock()
            .unwrap()
            .change(Change::Write(offset, data.to_vec()))
    }
}

type Values = BTreeMap<(u8, (u64, u64)), Arc<str>>;

fn load(disk: &Redb) -> Values {
    let stored = disk.load().unwrap();
    stored
        .into_iter()
        .map(|s| ((s.shelf, s.key), s.value))
        .collect()
}

fn random_ops(random: &mut StdRng) -> Vec<StoreOp> {
    (0..random.random_range(1..20))
        .map(|_| {
            let (shelf, key) = (random.random_range(0..4), (random.random_range(0..20), 0));
            if random.random_bool(0.3) {
                return StoreOp::Delete { shelf, key };
            }
            let length = random.random_range(0..300);
            let value = "x".repeat(length) + &random.random_range(0..1_000).to_string();
            StoreOp::Put(Stored {
                shelf,
                key,
                value: value.into(),
            })
        })
        .collect()
}

fn apply(values: &mut Values, ops: &[StoreOp]) {
    for op in ops {
        match op {
            StoreOp::Put(s) => drop(values.insert((s.shelf, s.key), s.value.clone())),
            StoreOp::Delete { shelf, key } => drop(values.remove(&(*shelf, *key))),
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_loss_of_power_and_a_failed_write_is_whole_or_absent() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut file = LyingFile::default();
        let mut expected = Values::new();
        for _ in 0..6 {
            let mut disk = Redb::on(file.clone()).unwrap();
            assert_eq!(load(&disk), expected, "seed {seed}");
            for _ in 0..random.random_range(0..6) {
                let ops = random_ops(&mut random);
                disk.write(&ops).unwrap();
                apply(&mut expected, &ops);
            }
            // The power goes somewhere in the next write.
            file.0.lock().unwrap().writes_left = Some(random.random_range(0..12));
            let ops = random_ops(&mut random);
            let mut with = expected.clone();
            apply(&mut with, &ops);
            let acknowledged = disk.write(&ops).is_ok();
            let crashed = file.after_crash(&mut random);
            // What the program still does while it ends reaches no disk.
            drop(disk);
            file = crashed;
            let found = load(&Redb::on(file.clone()).unwrap());
            file.0.lock().unwrap().writes_left = None;
            if acknowledged {
                assert_eq!(found, with, "seed {seed}");
            } else {
                assert!(found == with || found == expected, "seed {seed}");
            }
            expected = found;
        }
    }
}
