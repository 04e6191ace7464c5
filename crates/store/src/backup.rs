//! Copies of the log: an image of a running node's, and a verified way back.

use std::{path::Path, sync::Arc};

use daybook_ledger::Height;

use crate::{
    CheckOptions, Report, Store, StoreError, Tip, check,
    check::{no_log, require_log},
    disk::{Disk, File},
    error::At,
    log::{Log, SEGMENT_HEADER_BYTES, Scan, Segment, Start},
    open::{Folders, lock},
};

/// Bytes collected before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// What a segment's name ends in until the copy is whole.
const PARTIAL: &str = "partial";

impl Store {
    /// Copies a sound image of the log, up to the present tip, into an empty folder while the node runs.
    /// Every checksum is checked on the way. The copy opens as a data directory; its state and indexes
    /// are made anew then. `progress` hears of heights done and heights in all.
    ///
    /// # Errors
    /// `Foreign` when the folder is not empty, `Damaged` when a record is, `Io` when the operating system
    /// refuses.
    pub fn backup(
        &self,
        target: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Tip, StoreError> {
        let tip = self.tip();
        let disk = &self.shared.disk;
        require_empty(target, &**disk)?;
        copy(
            &self.shared.log,
            Some(tip.height),
            target,
            &**disk,
            progress,
        )?;
        Ok(tip)
    }
}

/// Copies the log of a backup, or of a data directory that no node uses, into an empty folder, checks
/// every byte and every rule, and makes state and indexes, so that a node can start on it at once.
/// `progress` hears of steps done and steps in all, first of the copy, then of the check.
///
/// # Errors
/// `Foreign` when the target is not empty or the source holds no log, `Locked` when a node uses the
/// source, `Damaged` when a record is, `Io` when the operating system refuses.
pub fn restore(
    from: &Path,
    to: &Path,
    disk: Arc<dyn Disk>,
    options: &CheckOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let folders = Folders::of(from);
    require_log(&folders.log, &*disk)?;
    require_empty(to, &*disk)?;
    // A backup may lie on a medium that takes no lock file; then no node can run on it either.
    let _lock = match lock(from, &*disk) {
        Err(StoreError::Io { .. }) => None,
        held => Some(held?),
    };
    let Some((log, _)) = Log::open(&folders.log, disk.clone())? else {
        return Err(no_log(&folders.log));
    };
    copy(&log, None, to, &*disk, progress)?;
    check(
        to,
        disk,
        &CheckOptions {
            rebuild: true,
            ..options.clone()
        },
        progress,
    )
}

fn require_empty(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    disk.create_dir(dir).at(dir)?;
    let names = disk.list(dir).at(dir)?;
    if names.is_empty() {
        return Ok(());
    }
    Err(StoreError::Foreign(format!(
        "{} is not empty",
        dir.display()
    )))
}

/// Copies the records up to a height, or all of them.
fn copy(
    log: &Log,
    until: Option<Height>,
    target: &Path,
    disk: &dyn Disk,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), StoreError> {
    let dir = Folders::of(target).log;
    disk.create_dir(&dir).at(&dir)?;
    let segments = log.segments();
    let total = until.map_or_else(
        || segments.iter().map(|segment| segment.bytes).sum(),
        |height| height.0,
    );
    let mut scan = Scan::new(log, Start::BEGINNING)?;
    let mut copied: Vec<Copied> = Vec::new();
    let mut done = 0;
    while let Some((place, record)) = scan.next()? {
        if copied.len() < place.segment as usize {
            if let Some(last) = copied.last_mut() {
                last.finish()?;
            }
            let segment = &log.segments()[place.segment as usize - 1];
            copied.push(Copied::begin(segment, &dir, disk)?);
        }
        let last = copied.last_mut().expect("a segment was just begun");
        last.put(place.offset, record.as_bytes())?;
        done = if until.is_some() {
            record.prefix.height.0
        } else {
            done + record.prefix.stride()
        };
        progress(done, total);
        // What lies behind may be half written by now.
        if Some(record.prefix.height) == until {
            break;
        }
    }
    if let Some(last) = copied.last_mut() {
        last.finish()?;
    }
    // The first segment gets its name last: until then the folder holds no log.
    for segment in copied.iter().rev() {
        let name = dir.join(&segment.name);
        disk.rename(&segment.path, &name).at(&segment.path)?;
        disk.sync_dir(&dir).at(&dir)?;
    }
    disk.sync_dir(target).at(target)?;
    progress(total, total);
    Ok(())
}

/// A segment being copied.
struct Copied {
    name: String,
    path: std::path::PathBuf,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    start: u64,
}

impl Copied {
    fn begin(segment: &Segment, dir: &Path, disk: &dyn Disk) -> Result<Copied, StoreError> {
        let name = segment
            .path
            .file_name()
            .expect("a segment is a file")
            .to_string_lossy()
            .into_owned();
        let path = dir.join(format!("{name}.{PARTIAL}"));
        let file = disk.create(&path).at(&path)?;
        file.allocate(segment.bytes).at(&path)?;
        let mut header = vec![0; SEGMENT_HEADER_BYTES];
        segment
            .file()?
            .read_at(&mut header, 0)
            .reading(&segment.path, 0)?;
        Ok(Copied {
            name,
            path,
            file,
            buffer: header,
            start: 0,
        })
    }

    fn put(&mut self, offset: u64, record: &[u8]) -> Result<(), StoreError> {
        if self.buffer.len() >= WRITE_BYTES {
            self.drain()?;
        }
        // Padding between records is zero.
        self.buffer.resize((offset - self.start) as usize, 0);
        self.buffer.extend_from_slice(record);
        Ok(())
    }

    fn drain(&mut self) -> Result<(), StoreError> {
        self.file
            .write_at(&self.buffer, self.start)
            .at(&self.path)?;
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.drain()?;
        self.file.sync_data().at(&self.path)
    }
}
