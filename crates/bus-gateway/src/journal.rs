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
//! loss of power loses at most what came within [`FLUSH_INTERVAL`] and was not acknowledged. That thread
//! makes the next file too, before it is needed.
//!
//! A start reads all files and writes what still matters into one, which takes their place. So however
//! often and early a node dies, its files do not grow in number.

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
use parking_lot::Mutex;

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
/// Bytes of notes that a start writes at once.
const WRITE_BYTES: usize = 1 << 20;
/// What the names of the files begin with.
const PREFIX: &str = "notes-";
/// The file that a start writes, until it is whole and takes its name.
const UNFINISHED: &str = "notes.new";

/// Where notes are written. Flushing is left to the [`Flusher`].
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
    next: Next,
}

/// The file after the one that is written to, once it is made.
type Next = Arc<Mutex<Option<Arc<File>>>>;

/// A file that is not written to any more.
struct Old {
    number: u64,
    bytes: u64,
    ended: Moment,
}

/// What flushes files, makes them and takes them away, on a thread of its own.
pub(crate) struct Flusher {
    orders: Receiver<Order>,
    unflushed: Arc<AtomicBool>,
    next: Next,
}

/// What the flusher is told.
enum Order {
    /// Something was written to the file.
    Flush {
        file: Arc<File>,
        tickets: Vec<Ticket>,
    },
    /// The next file is to be made.
    Make(PathBuf),
    /// A file is of no use any longer.
    Remove(PathBuf),
}

impl Journal {
    /// Reads what is in `folder`, and writes what `recall` keeps of it into a file that takes the place of
    /// all others.
    ///
    /// # Errors
    /// When the folder cannot be read or written. A file that ends in the middle of a note is no error:
    /// that is how a loss of power leaves it.
    pub(crate) fn open(
        folder: &Path,
        now: Moment,
        remember_ms: u64,
        bytes_max: u64,
        recall: impl FnOnce(Vec<Note>) -> Vec<Note>,
    ) -> io::Result<(Journal, Flusher)> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        numbers.sort_unstable();
        let mut notes = Vec::new();
        for number in &numbers {
            let path = path(folder, *number);
            if !read(&fs::read(&path)?, &mut notes) {
                tracing::info!(file = %path.display(), "the last notes of a file are not whole");
            }
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let file = merged(folder, number, &recall(notes))?;
        for number in numbers {
            // It is read once more at the next start, and says nothing new.
            remove(&path(folder, number));
        }
        let (orders, ordered) = crossbeam_channel::unbounded();
        let journal = Journal {
            folder: folder.to_owned(),
            file,
            number,
            bytes: 0,
            began: now,
            period_micros: remember_ms.saturating_mul(1_000) / 2,
            file_bytes_max: (bytes_max / 2).max(FILE_BYTES_MIN),
            old: VecDeque::new(),
            buffer: Vec::new(),
            tickets: Vec::new(),
            orders,
            unflushed: Arc::default(),
            next: Next::default(),
        };
        journal.make_next();
        let flusher = Flusher {
            orders: ordered,
            unflushed: journal.unflushed.clone(),
            next: journal.next.clone(),
        };
        Ok((journal, flusher))
    }

    /// Adds a note to those of this turn.
    pub(crate) fn note(&mut self, note: &Note) {
        append(&mut self.buffer, note);
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

    /// Whether a new file should be begun. As long as it is not made, this one goes on: whoever writes
    /// waits for no folder.
    pub(crate) fn is_full(&self, now: Moment) -> bool {
        let full =
            self.bytes >= self.file_bytes_max || now.micros_since(self.began) >= self.period_micros;
        full && self.next.lock().is_some()
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
            self.buffer.shrink_to(WRITE_BYTES);
        }
        let tickets = std::mem::take(&mut self.tickets);
        let told = self.unflushed.swap(true, Ordering::AcqRel);
        if !tickets.is_empty() || !told {
            self.flush(tickets);
        }
        Ok(())
    }

    /// Begins a new file with `notes`, which is what still matters of the older ones beside the answers
    /// of the last while, and lets go of files that are too old.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub(crate) fn begin_file(&mut self, now: Moment, notes: &[Note]) -> io::Result<()> {
        let Some(file) = self.next.lock().take() else {
            return Ok(());
        };
        // What was written to the file before is flushed as well, whoever waits for it.
        self.flush(Vec::new());
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
        self.flush(Vec::new());
        while let Some(oldest) = self.old.front() {
            let past = now.micros_since(oldest.ended) >= 2 * self.period_micros;
            let bytes: u64 = self.old.iter().map(|old| old.bytes).sum();
            if !past && bytes <= OLD_FILES * self.file_bytes_max {
                break;
            }
            // In order, behind the flush of the file that replaces it.
            self.order(Order::Remove(path(&self.folder, oldest.number)));
            self.old.pop_front();
        }
        self.make_next();
        Ok(())
    }

    fn make_next(&self) {
        self.order(Order::Make(path(&self.folder, self.number + 1)));
    }

    fn flush(&self, tickets: Vec<Ticket>) {
        self.order(Order::Flush {
            file: self.file.clone(),
            tickets,
        });
    }

    fn order(&self, order: Order) {
        // The flusher lives as long as the journal.
        let _ = self.orders.send(order);
    }
}

impl Flusher {
    /// Does what it is told until the journal is gone. `done` is told of every ticket, `failed` of the
    /// first error, after which nothing is acknowledged any more.
    pub(crate) fn run(self, done: &dyn Fn(Ticket, bool), failed: &dyn Fn(&io::Error)) {
        let mut broken = false;
        while let Some(gathered) = self.gather() {
            self.unflushed.store(false, Ordering::Release);
            let began = Instant::now();
            let mut told = Vec::new();
            let mut flushed: Option<Arc<File>> = None;
            // The same file is flushed once, behind the last of its orders; a file's end comes before its
            // successor's beginning.
            for order in gathered.iter().rev() {
                if let Order::Flush { file, tickets } = order {
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
            metrics::histogram!("daybook_bus_notes_flush_seconds").record(began.elapsed());
            for ticket in told {
                done(ticket, !broken);
            }
            for order in gathered {
                match order {
                    _ if broken => {}
                    Order::Flush { .. } => {}
                    Order::Make(path) => match make(&path) {
                        Ok(file) => *self.next.lock() = Some(file),
                        Err(error) => {
                            broken = true;
                            failed(&error);
                        }
                    },
                    Order::Remove(path) => remove(&path),
                }
            }
        }
    }

    /// The next orders: those of a while, as long as nobody waits for them. `None` when the journal is gone.
    fn gather(&self) -> Option<Vec<Order>> {
        let mut gathered = vec![self.orders.recv().ok()?];
        let until = Instant::now() + FLUSH_INTERVAL;
        while !gathered.last().is_some_and(Order::is_urgent) {
            match self.orders.recv_deadline(until) {
                Ok(order) => gathered.push(order),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        gathered.extend(self.orders.try_iter());
        Some(gathered)
    }
}

impl Order {
    fn is_urgent(&self) -> bool {
        matches!(self, Order::Flush { tickets, .. } if !tickets.is_empty())
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:016x}"))
}

/// Begins a file.
fn create(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(MAGIC)?;
    Ok(file)
}

/// Makes a file that is there after a loss of power too.
fn make(path: &Path) -> io::Result<Arc<File>> {
    let file = create(path)?;
    file.sync_data()?;
    sync_folder(path)?;
    Ok(Arc::new(file))
}

/// Makes a file of `notes`: all of them, or there is no such file.
fn merged(folder: &Path, number: u64, notes: &[Note]) -> io::Result<Arc<File>> {
    let unfinished = folder.join(UNFINISHED);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create(&unfinished)?;
    let mut buffer = Vec::new();
    for note in notes {
        append(&mut buffer, note);
        if buffer.len() >= WRITE_BYTES {
            file.write_all(&buffer)?;
            buffer.clear();
        }
    }
    file.write_all(&buffer)?;
    file.sync_data()?;
    let path = path(folder, number);
    fs::rename(&unfinished, &path)?;
    sync_folder(&path)?;
    Ok(Arc::new(file))
}

fn sync_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().unwrap_or(of);
    File::open(folder)?.sync_all()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "an old file stays");
    }
}

/// Appends a note with its head.
fn append(buffer: &mut Vec<u8>, note: &Note) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    note.write(buffer);
    let (head, body) = buffer[start..].split_at_mut(HEAD_BYTES);
    let length = u32::try_from(body.len()).expect("a packet is bounded far below 4 GiB");
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
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
    use daybook_bus::Done;

    use super::*;

    const NOW: Moment = Moment(1_767_225_600_000_000);
    const REMEMBER_MS: u64 = 120_000;

    /// Opens the folder with everything that is in it.
    fn open_within(folder: &Path, bytes_max: u64) -> (Journal, Vec<Note>, Flusher) {
        let mut found = Vec::new();
        let (journal, flusher) = Journal::open(folder, NOW, REMEMBER_MS, bytes_max, |notes| {
            found.clone_from(&notes);
            notes
        })
        .unwrap();
        (journal, found, flusher)
    }

    fn open(folder: &Path) -> (Journal, Vec<Note>, Flusher) {
        open_within(folder, 64 << 20)
    }

    fn gone(no: u64) -> Note {
        Note::Gone { no }
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    /// Does what the flusher was told so far; answers the tickets that were told.
    fn flushed(flusher: &Flusher) -> Vec<(Ticket, bool)> {
        let (told, failures) = ran(flusher);
        assert_eq!(failures, 0);
        told
    }

    /// As [`flushed`]; answers the failures as well.
    fn ran(flusher: &Flusher) -> (Vec<(Ticket, bool)>, u32) {
        let (sender, orders) = crossbeam_channel::unbounded();
        for order in flusher.orders.try_iter() {
            sender.send(order).unwrap();
        }
        drop(sender);
        let (told, failures) = (Mutex::new(Vec::new()), Mutex::new(0));
        let once = Flusher {
            orders,
            unflushed: flusher.unflushed.clone(),
            next: flusher.next.clone(),
        };
        once.run(&|ticket, ok| told.lock().push((ticket, ok)), &|_| {
            *failures.lock() += 1;
        });
        let mut told = told.into_inner();
        told.sort_by_key(|(ticket, _)| ticket.0);
        (told, failures.into_inner())
    }

    #[test]
    fn what_was_written_is_there_after_the_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, found, flusher) = open(folder.path());
        assert_eq!(found, []);
        journal.note(&gone(1));
        journal.note(&gone(2));
        journal.wait(Ticket(7));
        journal.write().unwrap();
        // Written, and lost from memory before it was made part of a file.
        journal.note(&gone(3));
        assert_eq!(flushed(&flusher), [(Ticket(7), true)]);
        drop(journal);
        let (mut journal, found, _flusher) = open(folder.path());
        assert_eq!(found, [gone(1), gone(2)]);
        journal.note(&gone(4));
        journal.write().unwrap();
        let (_, found, _flusher) = open(folder.path());
        assert_eq!(found, [gone(1), gone(2), gone(4)]);
    }

    #[test]
    fn restarts_leave_one_file_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        for restart in 0..20 {
            // The node dies at once, or after the flusher has made the next file.
            let (mut journal, found, flusher) = open(folder.path());
            assert_eq!(found, (0..restart).map(gone).collect::<Vec<_>>());
            assert_eq!(files(folder.path()), 1);
            journal.note(&gone(restart));
            journal.write().unwrap();
            if restart % 2 == 0 {
                flushed(&flusher);
            }
        }
    }

    #[test]
    fn a_start_that_dies_on_the_way_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, _flusher) = open(folder.path());
        journal.note(&gone(1));
        journal.write().unwrap();
        // In the middle of the file that shall take the others' place.
        fs::write(folder.path().join(UNFINISHED), b"DAYBUS").unwrap();
        let (_, found, _flusher) = open(folder.path());
        assert_eq!(found, [gone(1)]);
        // When that is in its place, and the others are still there.
        fs::copy(path(folder.path(), 2), path(folder.path(), 1)).unwrap();
        let (_, found, _flusher) = open(folder.path());
        assert_eq!(found, [gone(1), gone(1)]);
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn a_start_keeps_what_still_matters() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, _flusher) = open(folder.path());
        for no in 0..100 {
            journal.note(&gone(no));
        }
        journal.write().unwrap();
        let last = |mut notes: Vec<Note>| notes.split_off(99);
        Journal::open(folder.path(), NOW, REMEMBER_MS, 0, last).unwrap();
        let (_, found, _flusher) = open(folder.path());
        assert_eq!(found, [gone(99)]);
    }

    #[test]
    fn a_full_file_goes_on_until_the_flusher_has_made_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, flusher) = open(folder.path());
        let later = NOW.after_ms(REMEMBER_MS);
        // It hangs in a flush, or has not come to it.
        assert!(!journal.is_full(later));
        journal.begin_file(later, &[gone(1)]).unwrap();
        assert_eq!(journal.number, 1);
        flushed(&flusher);
        assert!(journal.is_full(later) && !journal.is_full(NOW));
        journal.begin_file(later, &[gone(1)]).unwrap();
        assert_eq!(journal.number, 2);
        // And so on for the one after that.
        assert!(!journal.is_full(later.after_ms(REMEMBER_MS)));
        flushed(&flusher);
        assert!(journal.is_full(later.after_ms(REMEMBER_MS)));
    }

    #[test]
    fn a_file_that_ends_anywhere_gives_the_notes_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, _flusher) = open(folder.path());
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
        let (mut journal, _, flusher) = open(folder.path());
        let mut now = NOW;
        for round in 0..20 {
            flushed(&flusher);
            assert!(!journal.is_full(now));
            journal.note(&gone(round));
            journal.write().unwrap();
            now = now.after_ms(REMEMBER_MS / 2);
            assert!(journal.is_full(now));
            journal.begin_file(now, &[gone(1_000)]).unwrap();
            flushed(&flusher);
            // The next one, the one that is written to, and those whose end is less than a window ago.
            assert!(files(folder.path()) <= 4, "round {round}");
        }
        let (_, found, _flusher) = open(folder.path());
        assert_eq!(found.last(), Some(&gone(1_000)));
        assert!(found.contains(&gone(19)) && !found.contains(&gone(10)));
    }

    #[test]
    fn many_bytes_make_more_files_but_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, flusher) = open_within(folder.path(), 0);
        let large = Note::Done {
            no: 1,
            at: NOW,
            request_id: "r".into(),
            done: Done {
                name: "n".into(),
                quiet: false,
                answer: Some("x".repeat(1 << 19).into()),
            },
        };
        for _ in 0..40 {
            if journal.is_full(NOW) {
                journal.begin_file(NOW, &[]).unwrap();
            }
            journal.note(&large);
            journal.write().unwrap();
            flushed(&flusher);
            assert!(files(folder.path()) as u64 <= OLD_FILES + 2);
        }
    }

    #[test]
    fn on_a_full_disk_nobody_is_told_that_notes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, flusher) = open(folder.path());
        // Every write to it fails for want of room, and every flush because it is no file.
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        journal.file = Arc::new(full);
        journal.note(&gone(1));
        journal.wait(Ticket(1));
        assert!(journal.write().is_err());
        assert_eq!(journal.abandoned(), [Ticket(1)]);
        for ticket in [2, 3] {
            journal.flush(vec![Ticket(ticket)]);
        }
        drop(journal);
        let (told, failures) = ran(&flusher);
        assert_eq!(told, [(Ticket(2), false), (Ticket(3), false)]);
        assert_eq!(failures, 1);
    }

    #[test]
    fn a_ticket_is_told_once_the_notes_before_it_are_in_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, flusher) = open(folder.path());
        journal.note(&gone(1));
        journal.wait(Ticket(1));
        journal.write().unwrap();
        let earlier = flushed(&flusher);
        journal.wait(Ticket(2));
        journal.begin_file(NOW, &[gone(2)]).unwrap();
        journal.wait(Ticket(3));
        journal.write().unwrap();
        assert_eq!(earlier, [(Ticket(1), true)]);
        assert_eq!(flushed(&flusher), [(Ticket(2), true), (Ticket(3), true)]);
    }
}
