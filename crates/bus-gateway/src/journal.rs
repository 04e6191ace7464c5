//! The core's notes on disk ([`daybook_bus::Note`]): files to which is only appended, and which are
//! deleted as a whole when nothing in them matters any longer.
//!
//! ```text
//! bus/notes-0000000000000001      8 bytes "DAYBUSN1", then for each note:
//!                                 length (u32), CRC-32C (u32) of the note, the note
//! ```
//!
//! Notes of one turn of the bus are written together, before the messages that follow from them are
//! sent: whatever ends the process, they are with the operating system. A thread of its own flushes
//! them, at once when somebody waits for it and soon otherwise. So a killed process loses nothing; a
//! loss of power loses at most what came within [`FLUSH_INTERVAL`] and was not acknowledged.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use daybook_bus::{Moment, Note, Ticket};

/// How long notes may stay unflushed when nobody waits for them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// What a file begins with: the format and its version.
const MAGIC: &[u8; 8] = b"DAYBUSN1";
/// Bytes before a note: its length and its checksum.
const HEAD_BYTES: usize = 8;
/// Bytes of a file at least, so that small bounds do not make many files.
const FILE_BYTES_MIN: u64 = 1 << 20;
/// How many full files are kept beside the one that is written to, if they are not too old first: with
/// half the bytes in each, twice as much as is kept in memory.
const OLD_FILES: u64 = 4;
/// What the names of the files begin with.
const PREFIX: &str = "notes-";

/// Where notes are written. Flushing is left to [`flush`].
pub(crate) struct Journal {
    folder: PathBuf,
    file: Arc<File>,
    number: u64,
    bytes: u64,
    began: Moment,
    /// Half of the time for which answers are kept.
    period_micros: u64,
    file_bytes_max: u64,
    old: VecDeque<Old>,
    buffer: Vec<u8>,
    tickets: Vec<Ticket>,
    orders: Sender<Order>,
    unflushed: Arc<AtomicBool>,
}

/// A file that is not written to any more.
struct Old {
    number: u64,
    bytes: u64,
    ended: Moment,
}

/// What the flusher is told.
pub(crate) enum Order {
    /// Something was written to the file. `created` is its folder when the file is new.
    Flush {
        file: Arc<File>,
        tickets: Vec<Ticket>,
        created: Option<PathBuf>,
    },
    /// A file is of no use any longer.
    Remove(PathBuf),
}

impl Journal {
    /// Reads what is in `folder` and begins a new file there.
    ///
    /// # Errors
    /// When the folder cannot be read or written. A file that ends in the middle of a note is no error:
    /// that is how a loss of power leaves it.
    pub(crate) fn open(
        folder: &Path,
        now: Moment,
        remember_ms: u64,
        bytes_max: u64,
    ) -> io::Result<(Journal, Vec<Note>, Receiver<Order>)> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        numbers.sort_unstable();
        let mut notes = Vec::new();
        let mut old = VecDeque::with_capacity(numbers.len());
        for number in numbers {
            let path = path(folder, number);
            let bytes = fs::read(&path)?;
            if !read(&bytes, &mut notes) {
                tracing::info!(file = %path.display(), "the last notes of a file are not whole");
            }
            // When its last note was made is not known; from now on is long enough.
            old.push_back(Old {
                number,
                bytes: bytes.len() as u64,
                ended: now,
            });
        }
        let number = old.back().map_or(1, |last| last.number + 1);
        let (orders, ordered) = crossbeam_channel::unbounded();
        let journal = Journal {
            folder: folder.to_owned(),
            file: create(folder, number)?,
            number,
            bytes: 0,
            began: now,
            period_micros: remember_ms.saturating_mul(1_000) / 2,
            file_bytes_max: (bytes_max / 2).max(FILE_BYTES_MIN),
            old,
            buffer: Vec::new(),
            tickets: Vec::new(),
            orders,
            unflushed: Arc::new(AtomicBool::new(false)),
        };
        journal.order(journal.file.clone(), Vec::new(), Some(folder.to_owned()));
        Ok((journal, notes, ordered))
    }

    /// What the flusher clears before it flushes.
    pub(crate) fn unflushed(&self) -> Arc<AtomicBool> {
        self.unflushed.clone()
    }

    /// Adds a note to those of this turn.
    pub(crate) fn note(&mut self, note: &Note) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEAD_BYTES]);
        note.write(&mut self.buffer);
        let (head, body) = self.buffer[start..].split_at_mut(HEAD_BYTES);
        let length = u32::try_from(body.len()).expect("a packet is bounded far below 4 GiB");
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    }

    /// Tells `ticket` once every note so far is flushed.
    pub(crate) fn wait(&mut self, ticket: Ticket) {
        self.tickets.push(ticket);
    }

    /// The tickets that will not be told.
    pub(crate) fn abandoned(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.tickets)
    }

    /// Whether there is something to write.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.buffer.is_empty() || !self.tickets.is_empty()
    }

    /// Whether a new file should be begun.
    pub(crate) fn is_full(&self, now: Moment) -> bool {
        self.bytes >= self.file_bytes_max || now.micros_since(self.began) >= self.period_micros
    }

    /// Writes the notes of this turn.
    ///
    /// # Errors
    /// After an error nothing more may be written: how much of it arrived is not known.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            (&*self.file).write_all(&self.buffer)?;
            self.bytes += self.buffer.len() as u64;
            metrics::counter!("daybook_bus_notes_bytes_total").increment(self.buffer.len() as u64);
            self.buffer.clear();
            // A burst of large answers need not be paid for ever.
            self.buffer.shrink_to(1 << 20);
        }
        let tickets = std::mem::take(&mut self.tickets);
        let told = self.unflushed.swap(true, Ordering::AcqRel);
        if !tickets.is_empty() || !told {
            self.order(self.file.clone(), tickets, None);
        }
        Ok(())
    }

    /// Begins a new file with `notes`, which is what still matters of the older ones beside the answers
    /// of the last while, and lets go of files that are too old.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub(crate) fn begin_file(&mut self, now: Moment, notes: &[Note]) -> io::Result<()> {
        let file = create(&self.folder, self.number + 1)?;
        // What was written to the file before is flushed as well, whoever waits for it.
        self.order(self.file.clone(), Vec::new(), None);
        self.old.push_back(Old {
            number: self.number,
            bytes: self.bytes,
            ended: now,
        });
        self.number += 1;
        self.file = file;
        self.began = now;
        for note in notes {
            self.note(note);
        }
        self.write()?;
        // What had to be written again does not make the file full.
        self.bytes = 0;
        self.order(self.file.clone(), Vec::new(), Some(self.folder.clone()));
        while let Some(oldest) = self.old.front() {
            let past = now.micros_since(oldest.ended) >= 2 * self.period_micros;
            let bytes: u64 = self.old.iter().map(|old| old.bytes).sum();
            if !past && bytes <= OLD_FILES * self.file_bytes_max {
                break;
            }
            // In order, behind the flush of the file that replaces it.
            let _ = self
                .orders
                .send(Order::Remove(path(&self.folder, oldest.number)));
            self.old.pop_front();
        }
        Ok(())
    }

    fn order(&self, file: Arc<File>, tickets: Vec<Ticket>, created: Option<PathBuf>) {
        // The flusher lives as long as the journal.
        let _ = self.orders.send(Order::Flush {
            file,
            tickets,
            created,
        });
    }
}

/// Flushes until the journal is gone. `done` is told of every ticket, `failed` of the first error,
/// after which nothing is acknowledged any more.
pub(crate) fn flush(
    orders: &Receiver<Order>,
    unflushed: &AtomicBool,
    done: &dyn Fn(Ticket, bool),
    failed: &dyn Fn(&io::Error),
) {
    let mut broken = false;
    let mut gone = false;
    while !gone {
        let mut gathered = Vec::new();
        let mut until: Option<Instant> = None;
        // Waits for more as long as nobody waits for it.
        loop {
            let order = match until {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => orders.recv_deadline(until),
            };
            match order {
                Ok(order) => {
                    let urgent =
                        matches!(&order, Order::Flush { tickets, .. } if !tickets.is_empty());
                    gathered.push(order);
                    if urgent {
                        gathered.extend(orders.try_iter());
                        break;
                    }
                    until.get_or_insert_with(|| Instant::now() + FLUSH_INTERVAL);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    gone = true;
                    break;
                }
            }
        }
        unflushed.store(false, Ordering::Release);
        let began = Instant::now();
        let mut told = Vec::new();
        let mut flushed: Option<Arc<File>> = None;
        // The same file is flushed once, behind the last of its orders; a file's end comes before its
        // successor's beginning.
        for order in gathered.iter().rev() {
            if let Order::Flush { file, tickets, .. } = order {
                told.extend_from_slice(tickets);
                if !broken
                    && flushed.as_ref().is_none_or(|last| !Arc::ptr_eq(last, file))
                    && let Err(error) = file.sync_data()
                {
                    broken = true;
                    failed(&error);
                }
                flushed = Some(file.clone());
            }
        }
        for order in gathered {
            let result = match order {
                _ if broken => Ok(()),
                Order::Flush { created: None, .. } => Ok(()),
                Order::Flush {
                    created: Some(folder),
                    ..
                } => File::open(folder).and_then(|folder| folder.sync_all()),
                Order::Remove(path) => {
                    if let Err(error) = fs::remove_file(&path) {
                        tracing::warn!(file = %path.display(), %error, "an old file stays");
                    }
                    Ok(())
                }
            };
            if let Err(error) = result {
                broken = true;
                failed(&error);
            }
        }
        metrics::histogram!("daybook_bus_notes_flush_seconds").record(began.elapsed());
        for ticket in told {
            done(ticket, !broken);
        }
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:016x}"))
}

fn create(folder: &Path, number: u64) -> io::Result<Arc<File>> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path(folder, number))?;
    file.write_all(MAGIC)?;
    Ok(Arc::new(file))
}

/// Reads the notes of one file up to where it is no longer whole. Answers whether all of it was.
fn read(bytes: &[u8], into: &mut Vec<Note>) -> bool {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return false;
    };
    while !rest.is_empty() {
        let Some((note, after)) = first(rest) else {
            return false;
        };
        into.push(note);
        rest = after;
    }
    true
}

fn first(bytes: &[u8]) -> Option<(Note, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((Note::read(body)?, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;

    const NOW: Moment = Moment(1_767_225_600_000_000);
    const REMEMBER_MS: u64 = 120_000;

    fn open(folder: &Path) -> (Journal, Vec<Note>, Receiver<Order>) {
        Journal::open(folder, NOW, REMEMBER_MS, 64 << 20).unwrap()
    }

    fn gone(no: u64) -> Note {
        Note::Gone { no }
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    /// Does what the flusher was told so far; answers the tickets that were told.
    fn flushed(orders: &Receiver<Order>) -> Vec<(Ticket, bool)> {
        let (sender, taken) = crossbeam_channel::unbounded();
        for order in orders.try_iter() {
            sender.send(order).unwrap();
        }
        drop(sender);
        let told = Mutex::new(Vec::new());
        flush(
            &taken,
            &AtomicBool::new(true),
            &|ticket, ok| told.lock().unwrap().push((ticket, ok)),
            &|error| panic!("{error}"),
        );
        told.into_inner().unwrap()
    }

    #[test]
    fn what_was_written_is_there_after_the_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, found, orders) = open(folder.path());
        assert_eq!(found, []);
        journal.note(&gone(1));
        journal.note(&gone(2));
        journal.wait(Ticket(7));
        journal.write().unwrap();
        // Written, and lost from memory before it was made part of a file.
        journal.note(&gone(3));
        assert_eq!(flushed(&orders), [(Ticket(7), true)]);
        drop(journal);
        let (mut journal, found, _orders) = open(folder.path());
        assert_eq!(found, [gone(1), gone(2)]);
        journal.note(&gone(4));
        journal.write().unwrap();
        let (_, found, _orders) = open(folder.path());
        assert_eq!(found, [gone(1), gone(2), gone(4)]);
    }

    #[test]
    fn a_file_that_ends_anywhere_gives_the_notes_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, _orders) = open(folder.path());
        for no in 0..5 {
            journal.note(&gone(no));
        }
        journal.write().unwrap();
        let bytes = fs::read(path(folder.path(), 1)).unwrap();
        let each = (bytes.len() - MAGIC.len()) / 5;
        for cut in 0..=bytes.len() {
            let mut notes = Vec::new();
            let whole = read(&bytes[..cut], &mut notes);
            let expected = cut.saturating_sub(MAGIC.len()) / each;
            assert_eq!(notes.len(), expected, "{cut} bytes");
            let even = cut >= MAGIC.len() && (cut - MAGIC.len()).is_multiple_of(each);
            assert_eq!(whole, even, "{cut} bytes");
        }
        // A changed bit ends it as well.
        for place in MAGIC.len()..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 4;
            let mut notes = Vec::new();
            assert!(!read(&changed, &mut notes));
            assert_eq!(notes.len(), (place - MAGIC.len()) / each);
        }
    }

    #[test]
    fn old_files_go_when_the_window_of_their_answers_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, orders) = open(folder.path());
        let mut now = NOW;
        for round in 0..20 {
            assert!(!journal.is_full(now));
            journal.note(&gone(round));
            journal.write().unwrap();
            now = now.after_ms(REMEMBER_MS / 2);
            assert!(journal.is_full(now));
            journal.begin_file(now, &[gone(1_000)]).unwrap();
            flushed(&orders);
            // The one that is written to, and those whose end is less than a window ago.
            assert!(files(folder.path()) <= 3, "round {round}");
        }
        let (_, found, _orders) = open(folder.path());
        assert_eq!(found.last(), Some(&gone(1_000)));
        assert!(found.contains(&gone(19)) && !found.contains(&gone(10)));
    }

    #[test]
    fn many_bytes_make_more_files_but_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, orders) = Journal::open(folder.path(), NOW, REMEMBER_MS, 0).unwrap();
        let large = Note::Done {
            no: 1,
            at: NOW,
            request_id: "r".into(),
            name: "n".into(),
            quiet: false,
            answer: Some("x".repeat(1 << 19).into()),
        };
        for _ in 0..40 {
            if journal.is_full(NOW) {
                journal.begin_file(NOW, &[]).unwrap();
            }
            journal.note(&large);
            journal.write().unwrap();
            flushed(&orders);
            assert!(files(folder.path()) as u64 <= OLD_FILES + 1);
        }
    }

    #[test]
    fn on_a_full_disk_nobody_is_told_that_notes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, orders) = open(folder.path());
        // Every write to it fails for want of room, and every flush because it is no file.
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        journal.file = Arc::new(full);
        journal.note(&gone(1));
        journal.wait(Ticket(1));
        assert!(journal.write().is_err());
        assert_eq!(journal.abandoned(), [Ticket(1)]);
        for ticket in [2, 3] {
            journal.order(journal.file.clone(), vec![Ticket(ticket)], None);
        }
        drop(journal);
        let (told, failures) = (Mutex::new(Vec::new()), Mutex::new(0));
        flush(
            &orders,
            &AtomicBool::new(true),
            &|ticket, ok| told.lock().unwrap().push((ticket, ok)),
            &|_| *failures.lock().unwrap() += 1,
        );
        let mut told = told.into_inner().unwrap();
        told.sort_by_key(|(ticket, _)| ticket.0);
        assert_eq!(told, [(Ticket(2), false), (Ticket(3), false)]);
        assert_eq!(failures.into_inner().unwrap(), 1);
    }

    #[test]
    fn a_ticket_is_told_once_the_notes_before_it_are_in_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, orders) = open(folder.path());
        journal.note(&gone(1));
        journal.wait(Ticket(1));
        journal.write().unwrap();
        journal.begin_file(NOW, &[gone(2)]).unwrap();
        journal.wait(Ticket(2));
        journal.write().unwrap();
        let mut told = flushed(&orders);
        told.sort_by_key(|(ticket, _)| ticket.0);
        assert_eq!(told, [(Ticket(1), true), (Ticket(2), true)]);
    }
}
