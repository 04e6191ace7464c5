//! A disk in memory that loses what was not synced, tears what was being written, and fails on demand.
//!
//! The model is the harshest that a POSIX file system allows: of the writes since a file's last sync,
//! any may be lost, also sector by sector; names that were made, changed or removed since a folder's
//! last sync are lost from the newest on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Disk, File, Lock, Map};

/// Bytes that reach the disk together or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// What shall go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails: this operation and all later ones report an error, and what was not synced is
    /// at [`SimulatedDisk::restart`]'s mercy.
    PowerCut,
    /// This one operation reports an error; a write has then written nothing, a sync synced nothing.
    Error,
    /// This one operation reports an error; if it is a sync, it also forgets what it had to write, as
    /// Linux does: everybody can still read it, and no later sync brings it to the disk.
    ForgetfulSync,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    folders: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    off: bool,
    unreadable: bool,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

enum NameChange {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl NameChange {
    fn folder(&self) -> Option<&Path> {
        match self {
            NameChange::Link(path, _) | NameChange::Rename(_, path) | NameChange::Unlink(path) => {
                path.parent()
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
        }
    }
}

impl Write {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Write::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            Write::Length(length) => file.resize(*length, 0),
        }
    }

    /// Lets some sectors of the write reach the disk and others not.
    fn tear(&self, file: &mut Vec<u8>, dice: &mut Dice) {
        let Write::Bytes { offset, bytes } = self else {
            return self.apply(file);
        };
        let mut start = *offset;
        let end = offset + bytes.len();
        while start < end {
            let stop = (start / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(end);
            if dice.below(2) == 0 {
                let piece = &bytes[start - offset..stop - offset];
                Write::Bytes {
                    offset: start,
                    bytes: piece.to_vec(),
                }
                .apply(file);
            }
            start = stop;
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for dice, and the same for every seed for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// Files that were made so far, those included that were removed since.
    pub fn files_made(&self) -> usize {
        self.state.lock().inodes.len()
    }

    /// Operations so far that change something: writes, syncs, reservations, changes of names.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets the changing operation number `operation`, counted from 0 as in
    /// [`SimulatedDisk::operations`], go wrong.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state.lock().fault = Some((operation, fault));
    }

    /// Cuts the power now.
    pub fn power_cut(&self) {
        self.state.lock().off = true;
    }

    /// Lets every read of a file fail from now on, or work again. Maps are not concerned.
    pub fn fail_reads(&self, fail: bool) {
        self.state.lock().unreadable = fail;
    }

    /// Whether the power is cut.
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// The disk as it is found when the power comes back: `seed` decides what of the unsynced survived.
    pub fn restart(&self, seed: u64) -> SimulatedDisk {
        let state = self.state.lock();
        let mut dice = Dice(seed);
        let mut names = state.durable_names.clone();
        let kept = dice.below(state.pending_names.len() as u64 + 1) as usize;
        for change in &state.pending_names[..kept] {
            change.apply(&mut names);
        }
        let inodes: Vec<Inode> = state
            .inodes
            .iter()
            .map(|inode| {
                let mut file = inode.durable.clone();
                for write in &inode.pending {
                    match dice.below(3) {
                        0 => {}
                        1 => write.apply(&mut file),
                        _ => write.tear(&mut file, &mut dice),
                    }
                }
                Inode {
                    now: file.clone(),
                    durable: file,
                    pending: Vec::new(),
                }
            })
            .collect();
        let restarted = State {
            inodes,
            names: names.clone(),
            durable_names: names,
            folders: state.folders.clone(),
            ..State::default()
        };
        SimulatedDisk {
            state: Arc::new(Mutex::new(restarted)),
        }
    }

    /// A copy of the disk as processes see it now.
    pub fn fork(&self) -> SimulatedDisk {
        let state = self.state.lock();
        let inodes = state
            .inodes
            .iter()
            .map(|inode| Inode {
                now: inode.now.clone(),
                durable: inode.now.clone(),
                pending: Vec::new(),
            })
            .collect();
        let forked = State {
            inodes,
            names: state.names.clone(),
            durable_names: state.names.clone(),
            folders: state.folders.clone(),
            ..State::default()
        };
        SimulatedDisk {
            state: Arc::new(Mutex::new(forked)),
        }
    }

    /// Every file with its bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state.lock();
        state
            .names
            .iter()
            .map(|(path, inode)| (path.clone(), state.inodes[*inode].now.clone()))
            .collect()
    }

    /// Changes bits behind everybody's back.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        let mut state = self.state.lock();
        let inode = state.names[path];
        let offset = usize::try_from(offset).expect("a file in memory fits the address space");
        state.inodes[inode].now[offset] ^= mask;
        state.inodes[inode].durable[offset] ^= mask;
    }

    /// Cuts a file off behind everybody's back.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn truncate(&self, path: &Path, length: usize) {
        let mut state = self.state.lock();
        let inode = state.names[path];
        state.inodes[inode].now.truncate(length);
        state.inodes[inode].durable.truncate(length);
    }
}

impl State {
    /// Counts a changing operation and lets it fail when its turn has come.
    fn step(&mut self) -> io::Result<()> {
        self.powered()?;
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::PowerCut)) if at == now => {
                self.off = true;
                self.powered()
            }
            Some((at, Fault::Error | Fault::ForgetfulSync)) if at == now => {
                Err(io::Error::other("simulated input/output error"))
            }
            _ => Ok(()),
        }
    }

    fn powered(&self) -> io::Result<()> {
        if self.off {
            Err(io::Error::other("simulated power cut"))
        } else {
            Ok(())
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = self.state.lock();
        state.powered()?;
        let inode = state.find(path)?;
        Ok(Arc::new(SimulatedFile {
            state: self.state.clone(),
            inode,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.step()?;
        if !path
            .parent()
            .is_some_and(|folder| state.folders.contains(folder))
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = match state.names.get(path) {
            Some(inode) => *inode,
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.change_name(NameChange::Link(path.to_owned(), inode));
                inode
            }
        };
        state.inodes[inode].now.clear();
        state.inodes[inode].pending.push(Write::Length(0));
        Ok(Arc::new(SimulatedFile {
            state: self.state.clone(),
            inode,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.find(from)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.find(path)?;
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.powered()?;
        if !state.folders.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = state
            .names
            .keys()
            .chain(&state.folders)
            .filter(|path| path.parent() == Some(dir));
        let names =
            within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.powered()?;
        for folder in dir.ancestors() {
            state.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let state = &mut *state;
        let durable_names = &mut state.durable_names;
        state.pending_names.retain(|change| {
            let here = change.folder() == Some(dir);
            if here {
                change.apply(durable_names);
            }
            !here
        });
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut state = self.state.lock();
        state.powered()?;
        if !state.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Lock::new(SimulatedLock {
            state: self.state.clone(),
            path: path.to_owned(),
        })))
    }
}

struct SimulatedLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.state.lock().locked.remove(&self.path);
    }
}

struct SimulatedFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl File for SimulatedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state.lock();
        state.powered()?;
        if state.unreadable {
            return Err(io::Error::other("simulated input/output error"));
        }
        let start = place(offset)?;
        let bytes = start
            .checked_add(into.len())
            .and_then(|end| state.inodes[self.inode].now.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let write = Write::Bytes {
            offset: place(offset)?,
            bytes: bytes.to_vec(),
        };
        state.powered()?;
        let stepped = state.step();
        if stepped.is_ok() || state.off {
            // A write that the power cut interrupts may have reached the disk in part.
            let inode = &mut state.inodes[self.inode];
            write.apply(&mut inode.now);
            inode.pending.push(write);
        }
        stepped
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let forgets = state.fault == Some((state.operations, Fault::ForgetfulSync));
        let stepped = state.step();
        if forgets {
            state.inodes[self.inode].pending.clear();
        }
        stepped?;
        let inode = &mut state.inodes[self.inode];
        for write in std::mem::take(&mut inode.pending) {
            write.apply(&mut inode.durable);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let length = place(bytes)?;
        let inode = &mut state.inodes[self.inode];
        if inode.now.len() < length {
            inode.now.resize(length, 0);
            inode.pending.push(Write::Length(length));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.powered()?;
        Ok(state.inodes[self.inode].now.len() as u64)
    }

    fn map(&self) -> io::Result<Map> {
        let state = self.state.lock();
        state.powered()?;
        Ok(Map::Copy(state.inodes[self.inode].now.clone()))
    }
}
