//! A machine's memory on disk: steps appended to one file, each whole or not there at all.
//!
//! ```text
//! <data dir>/        0700
//!   lock             held by the running machine
//!   machine.journal  0600; one step a line: CRC-32C in hexadecimal, a blank, a JSON list of records
//! ```
//!
//! A line that the crash cut short is dropped at the next start; its step was never acted on. A damaged
//! line before others is no crash, and the machine does not start on it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use crate::state::{Record, State};

const FILE: &str = "machine.journal";
const FILE_NEW: &str = "machine.journal.new";
const LOCK: &str = "lock";
/// The first line: what the file is, and its version.
const HEAD: &str = "daybook machine journal 1\n";
/// Bytes beyond which the file is written anew, if that would make it much smaller.
const COMPACT_BYTES: u64 = 4 << 20;
/// How many times larger than its content the file may become.
const COMPACT_FACTOR: u64 = 4;

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    file: File,
    bytes: u64,
    /// Bytes when it was last written anew.
    compact: u64,
    _lock: File,
}

/// Why a memory cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process uses it.
    #[error("{0} is in use by another machine")]
    InUse(PathBuf),
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{path}, line {line}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Journal {
    /// Opens the memory in `dir`, which is made if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<(Journal, State), JournalError> {
        let about = |path: PathBuf| move |error| JournalError::Io { path, error };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(about(dir.to_owned()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join(LOCK))
            .map_err(about(dir.join(LOCK)))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| JournalError::InUse(dir.to_owned()))?;
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(about(path)(error)),
        };
        let (state, sound) = read(&path, &bytes)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(about(path.clone()))?;
        let prepared = (|| {
            file.set_len(sound)?;
            file.seek(io::SeekFrom::End(0))?;
            if sound == 0 {
                file.write_all(HEAD.as_bytes())?;
            }
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            file.stream_position()
        })();
        let bytes = prepared.map_err(about(path))?;
        let mut journal = Journal {
            dir: dir.to_owned(),
            file,
            bytes,
            compact: 0,
            _lock: lock,
        };
        journal.compact_if_worth(&state)?;
        Ok((journal, state))
    }

    /// Puts a step on disk; durable when this returns. After an error nothing may be appended: what
    /// is in the file is not known.
    pub(crate) fn append(&mut self, records: &[Record], state: &State) -> Result<(), JournalError> {
        let line = line(records);
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| self.error(FILE, error))?;
        self.bytes += line.len() as u64;
        self.compact_if_worth(state)
    }

    /// Writes the file anew when most of it is history. `state` is what the file says.
    fn compact_if_worth(&mut self, state: &State) -> Result<(), JournalError> {
        if self.bytes < COMPACT_BYTES.max(self.compact * COMPACT_FACTOR) {
            return Ok(());
        }
        let (path, beside) = (self.dir.join(FILE), self.dir.join(FILE_NEW));
        let written = (|| {
            let file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            let mut buffered = BufWriter::new(file);
            buffered.write_all(HEAD.as_bytes())?;
            for record in state.records() {
                buffered.write_all(&line(&[record]))?;
            }
            let mut file = buffered
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.dir)?.sync_all()?;
            let bytes = file.stream_position()?;
            Ok((file, bytes))
        })();
        let (file, bytes) = written.map_err(|error| self.error(FILE_NEW, error))?;
        self.file = file;
        self.bytes = bytes;
        self.compact = bytes;
        Ok(())
    }

    fn error(&self, file: &str, error: io::Error) -> JournalError {
        JournalError::Io {
            path: self.dir.join(file),
            error,
        }
    }
}

fn line(records: &[Record]) -> Vec<u8> {
    let text = serde_json::to_string(records).expect("records are plain data");
    format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes())).into_bytes()
}

/// The state, and how many bytes of the file are sound.
fn read(path: &Path, bytes: &[u8]) -> Result<(State, u64), JournalError> {
    let mut state = State::default();
    if bytes.len() < HEAD.len() && HEAD.as_bytes().starts_with(bytes) {
        return Ok((state, 0));
    }
    let damaged = |line: usize, reason: &str| JournalError::Damaged {
        path: path.to_owned(),
        line,
        reason: reason.to_owned(),
    };
    let Some(mut rest) = bytes.strip_prefix(HEAD.as_bytes()) else {
        return Err(damaged(1, "no journal of a machine"));
    };
    let mut number = 1;
    while !rest.is_empty() {
        number += 1;
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        match records(&rest[..end]) {
            Some(records) => records.iter().for_each(|record| state.apply(record)),
            // Only the last line can be half written, even if its end is not missing.
            None if end + 1 == rest.len() => break,
            None => return Err(damaged(number, "the line is not what was written")),
        }
        rest = &rest[end + 1..];
    }
    Ok((state, (bytes.len() - rest.len()) as u64))
}

fn records(line: &[u8]) -> Option<Vec<Record>> {
    let (checksum, text) = line.split_at_checked(8)?;
    let text = text.strip_prefix(b" ")?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    if crc32c::crc32c(text) != checksum {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Meta;

    fn meta(number: u64) -> Record {
        Record::Meta(Meta {
            number,
            ..Meta::default()
        })
    }

    #[test]
    fn a_step_cut_short_at_any_byte_never_happened() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, state) = Journal::open(dir.path()).unwrap();
        for number in 1..=3 {
            journal.append(&[meta(number)], &state).unwrap();
        }
        drop(journal);
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let last = line(&[meta(3)]).len();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, state) = Journal::open(dir.path()).unwrap();
            if cut == whole.len() {
                assert_eq!(state.meta.number, 3);
            } else if cut >= whole.len() - last {
                assert_eq!(state.meta.number, 2);
            }
            journal.append(&[meta(9)], &state).unwrap();
            drop(journal);
            assert_eq!(Journal::open(dir.path()).unwrap().1.meta.number, 9);
        }
    }

    #[test]
    fn a_damaged_line_before_others_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, state) = Journal::open(dir.path()).unwrap();
        journal.append(&[meta(1)], &state).unwrap();
        journal.append(&[meta(2)], &state).unwrap();
        drop(journal);
        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEAD.len() + 20] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(
            Journal::open(dir.path()),
            Err(JournalError::Damaged { line: 2, .. })
        ));
        fs::write(&path, b"something else\n").unwrap();
        assert!(matches!(
            Journal::open(dir.path()),
            Err(JournalError::Damaged { line: 1, .. })
        ));
    }

    #[test]
    fn a_data_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = Journal::open(dir.path()).unwrap();
        assert!(matches!(
            Journal::open(dir.path()),
            Err(JournalError::InUse(_))
        ));
        drop(first);
        Journal::open(dir.path()).unwrap();
    }

    #[test]
    fn a_long_history_is_written_anew_and_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut state) = Journal::open(dir.path()).unwrap();
        let padding = "x".repeat(100_000);
        for number in 1..=60 {
            let record = Record::Meta(Meta {
                number,
                owner: padding.clone(),
                ..Meta::default()
            });
            state.apply(&record);
            journal.append(&[record], &state).unwrap();
        }
        drop(journal);
        assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() < COMPACT_BYTES);
        assert_eq!(Journal::open(dir.path()).unwrap().1, state);
    }
}
