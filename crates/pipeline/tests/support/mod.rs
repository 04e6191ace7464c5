//! A disk whose flushes and reads of the log can be held up, one after the other.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use daybook_store::disk::{Disk, File, Lock, Map, simulated::SimulatedDisk};

/// Nobody takes this long to come to a gate; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where whoever comes by waits while it is shut.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// Who may pass though it is shut.
    passes: usize,
    waiting: usize,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.change(|state| state.is_shut = true);
    }

    pub(crate) fn open(&self) {
        self.change(|state| state.is_shut = false);
    }

    /// Lets one pass.
    pub(crate) fn let_one(&self) {
        self.change(|state| state.passes += 1);
    }

    /// Waits until somebody stands there for whom there is no pass.
    pub(crate) fn somebody_waits(&self) {
        let state = self.state.lock().unwrap();
        let nobody_waits = |state: &mut State| state.waiting <= state.passes;
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, nobody_waits);
        assert!(!waited.unwrap().1.timed_out(), "nobody came to the gate");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.is_shut {
            return;
        }
        state.waiting += 1;
        self.changed.notify_all();
        let is_held = |state: &mut State| state.is_shut && state.passes == 0;
        state = self.changed.wait_while(state, is_held).unwrap();
        state.waiting -= 1;
        state.passes = state.passes.saturating_sub(1);
        self.changed.notify_all();
    }
}

/// A disk with a gate before flushes of the log, and one before reads of it.
#[derive(Clone)]
pub(crate) struct GatedDisk {
    pub(crate) disk: SimulatedDisk,
    pub(crate) flushes: Arc<Gate>,
    pub(crate) reads: Arc<Gate>,
}

impl GatedDisk {
    pub(crate) fn new(disk: SimulatedDisk) -> GatedDisk {
        GatedDisk {
            disk,
            flushes: Arc::default(),
            reads: Arc::default(),
        }
    }

    fn gated(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        if path.extension().is_none_or(|extension| extension != "seg") {
            return file;
        }
        Arc::new(GatedFile {
            file,
            flushes: self.flushes.clone(),
            reads: self.reads.clone(),
        })
    }
}

struct GatedFile {
    file: Arc<dyn File>,
    flushes: Arc<Gate>,
    reads: Arc<Gate>,
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.gated(path, self.disk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.gated(path, self.disk.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.disk.lock(path)
    }
}

impl File for GatedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.pass();
        self.file.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.flushes.pass();
        self.file.sync_data()
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn map(&self) -> io::Result<Map> {
        self.file.map()
    }
}
