//! Checking a data directory that no node uses: every byte of the log, every rule again, and whether
//! what is derived from the log says the same.

mod past;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use daybook_ledger::{
    BlockTime, Changes, Height, OutputRef, Overlay, Parser, Rules, Transaction, TransactionId,
    Unspent, Verified, View,
    block::{Block, BlockHash, Entry, Genesis, HEADER_BYTES, Header, Parent},
    consortium,
    tracker::{
        self, Decision, EntryKind, History, IndexKey, Meets, Proven, Prover, Settings, Suites,
    },
    verify_signatures,
};

use self::past::Past;
use crate::{
    Options, StoreError, StoredBlock, Tip,
    blocks::BlockTable,
    checkpoint,
    disk::Disk,
    error::At,
    index::{
        Resting,
        entries::EntryMaker,
        run::{EntrySum, Run},
    },
    log::{
        Log, Scan, Segment, Start,
        record::{Record, Text},
    },
    open::{Folders, lock, open, read_genesis},
    place::Place,
    unspent::UnspentTable,
};

/// Findings that are listed; a directory with more is beyond listing.
pub const FINDINGS_MAX: usize = 1_000;

/// Bytes of unused space looked at together.
const ZEROS_BYTES: usize = 1 << 20;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Delete and make anew everything that follows from the log, if the log is sound.
    pub rebuild: bool,
    /// Verify every signature of every transaction again, not only the proposers'.
    pub signatures: bool,
    /// How the directory is used, for a rebuild.
    pub store: Options,
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How the chain began.
    pub genesis: Genesis,
    /// The last sound block before the first damage.
    pub tip: Tip,
    /// Bytes of records read.
    pub bytes: u64,
    /// Bytes of an unfinished last write: the next start drops them. Not damage.
    pub torn_bytes: u64,
    /// What is wrong, in the order found; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// What was derived from the log was made anew, so that findings in it are no more.
    pub rebuilt: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or folder.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The block concerned, where one is.
    pub height: Option<Height>,
    /// What is wrong, in words.
    pub what: String,
    /// It is in something that `rebuild` makes anew from the log.
    pub derived: bool,
}

impl Report {
    /// Whether the directory is sound now.
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.derived && self.rebuilt)
    }
}

/// Checks a data directory that no node uses. `progress` hears of bytes done and bytes in all.
///
/// # Errors
/// `Locked` when a node uses it, `Foreign` when there is no log or one of another version, `Io` when the
/// operating system refuses. Damage is no error but a finding, except when not even the genesis can be
/// read.
pub fn check(
    dir: &Path,
    disk: Arc<dyn Disk>,
    options: &CheckOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let folders = Folders::of(dir);
    require_log(&folders.log, &*disk)?;
    let lock = lock(dir, &*disk)?;
    folders.create(&*disk)?;
    let Some((log, _)) = Log::open(&folders.log, disk.clone())? else {
        return Err(no_log(&folders.log));
    };
    let genesis = read_genesis(&log)?;
    let run_entries = options.store.run_entries;
    let past = Past::begin(
        folders.past.clone(),
        &disk,
        &log,
        genesis.hash(),
        run_entries,
    )?;
    let mut check = Check {
        derived: Derived::open(&folders, &disk, genesis.hash()),
        ..Check::new(&log, &past, &genesis, options)
    };
    let missing = std::mem::take(&mut check.derived.findings);
    let checked = check.log(progress);
    missing.into_iter().for_each(|finding| check.note(finding));
    check.end();
    let mut report = check.report;
    past.end()?;
    checked?;
    if options.rebuild && report.findings.iter().all(|finding| finding.derived) {
        for folder in [&folders.index, &folders.checkpoint] {
            for name in disk.list(folder).at(folder)? {
                let path = folder.join(name);
                disk.remove(&path).at(&path)?;
            }
            disk.sync_dir(folder).at(folder)?;
        }
        drop(lock);
        let (_, writer, _) = open(dir, disk, &genesis, options.store.clone())?;
        writer.close()?;
        report.rebuilt = true;
    }
    Ok(report)
}

/// Refuses a folder that holds no log before anything is made in it.
pub(crate) fn require_log(log: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    match disk.list(log) {
        Ok(names) if names.iter().any(|name| name.ends_with(".seg")) => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(log),
        _ => Err(no_log(log)),
    }
}

pub(crate) fn no_log(log: &Path) -> StoreError {
    StoreError::Foreign(format!("{} holds no log", log.display()))
}

/// What is derived from the log, as far as it could be opened.
#[derive(Default)]
struct Derived {
    findings: Vec<Finding>,
    blocks: Option<BlockTable>,
    index: Option<Resting>,
    runs: VecDeque<Arc<Run>>,
    /// The entries that the first of `runs` should have, up to the present height.
    sum: EntrySum,
    checkpoints: Vec<CheckedPoint>,
}

/// A checkpoint on its way from where it begins to where it is exact.
struct CheckedPoint {
    path: PathBuf,
    header: checkpoint::Header,
    table: Option<UnspentTable>,
}

impl Derived {
    fn open(folders: &Folders, disk: &Arc<dyn Disk>, chain: BlockHash) -> Derived {
        let mut derived = Derived::default();
        let mut findings = Vec::new();
        let paths = checkpoint::list(&folders.checkpoint, &**disk);
        for path in derived.take(paths, &mut findings).unwrap_or_default() {
            let header = checkpoint::read_header(&path, &**disk).map(|(header, _)| header);
            if let Some(header) = derived.take(header, &mut findings) {
                derived.checkpoints.push(CheckedPoint {
                    path,
                    header,
                    table: None,
                });
            }
        }
        let index = Resting::open(&folders.index, &**disk, chain);
        derived.index = derived.take(index, &mut findings).flatten();
        if let Some(index) = &derived.index {
            derived.runs = index.runs.clone().into();
        }
        let blocks = BlockTable::open(&folders.index, &**disk, chain, Height(0));
        derived.blocks = derived.take(blocks, &mut findings).flatten();
        if derived.blocks.is_none() && !derived.checkpoints.is_empty() {
            let path = folders.index.join(crate::blocks::NAME);
            let error = StoreError::damaged(
                &path,
                0,
                "the table of blocks is missing or is no such table",
            );
            findings.push(Finding::of(&error, None, true));
        }
        derived.findings = findings;
        derived
    }

    fn take<T>(&self, result: Result<T, StoreError>, findings: &mut Vec<Finding>) -> Option<T> {
        result
            .map_err(|error| findings.push(Finding::of(&error, None, true)))
            .ok()
    }
}

impl Finding {
    fn of(error: &StoreError, height: Option<Height>, derived: bool) -> Finding {
        let (path, offset, what) = match error {
            StoreError::Damaged { path, offset, what } => (path.clone(), *offset, what.clone()),
            StoreError::Io { path, source } => (path.clone(), 0, source.to_string()),
            StoreError::Foreign(what) => (PathBuf::new(), 0, what.clone()),
            StoreError::Locked(path) => (path.clone(), 0, error.to_string()),
        };
        Finding {
            path,
            offset,
            height,
            what,
            derived,
        }
    }
}

/// What is wrong in a record, and where from its start.
type Wrong = (u64, String);

struct Check<'c> {
    log: &'c Log,
    past: &'c Past<'c>,
    options: &'c CheckOptions,
    derived: Derived,
    report: Report,
    parser: Parser,
    view: NaiveView<'c>,
    tracker: NaiveTracker<'c>,
    consortium: NaiveConsortium<'c>,
    parent: Parent,
    /// False from the first damage on: the state is not known any more.
    state_known: bool,
    entries: Option<EntryMaker>,
}

impl<'c> Check<'c> {
    fn new(
        log: &'c Log,
        past: &'c Past<'c>,
        genesis: &Genesis,
        options: &'c CheckOptions,
    ) -> Check<'c> {
        let parent = Parent::of_genesis(genesis);
        let tip = Tip {
            height: parent.height,
            hash: parent.hash,
            state: parent.state,
            time: parent.time,
            transactions: 0,
        };
        Check {
            log,
            past,
            options,
            derived: Derived::default(),
            report: Report {
                genesis: genesis.clone(),
                tip,
                bytes: 0,
                torn_bytes: 0,
                findings: Vec::new(),
                rebuilt: false,
            },
            // What was taken once is no damage, though less may be taken today.
            parser: Parser::new(Rules::WIDEST),
            tracker: NaiveTracker {
                past,
                book: tracker::Book::default(),
                signatures: options.signatures,
            },
            consortium: NaiveConsortium {
                past,
                book: consortium::Book::default(),
                prover: consortium::Prover::new(genesis),
                signatures: options.signatures,
            },
            view: NaiveView {
                past,
                outputs: BTreeMap::new(),
            },
            parent,
            state_known: true,
            entries: None,
        }
    }

    fn note(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    fn log(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
        let segments = self.log.segments();
        let total = segments.iter().map(|segment| segment.bytes).sum();
        let mut scan = Scan::new(self.log, Start::BEGINNING)?;
        self.entries = self
            .derived
            .index
            .as_ref()
            .map(|index| EntryMaker::new(index.secret));
        let mut at = scan.end();
        loop {
            let (segment, offset) = scan.end();
            let before: u64 = segments[..segment as usize - 1]
                .iter()
                .map(|segment| segment.bytes)
                .sum();
            progress(before + offset, total);
            match scan.next() {
                Ok(Some((place, record))) => {
                    let segment = &segments[place.segment as usize - 1];
                    if place.segment > at.0 {
                        let left = &segments[at.0 as usize - 1];
                        self.zeros(left, at.1, left.bytes)?;
                    }
                    at = scan.end();
                    self.zeros(segment, place.offset + u64::from(place.length), at.1)?;
                    self.report.bytes += record.prefix.stride();
                    if record.prefix.height.0 > 0 {
                        self.block(segment, place, &record, scan.end())?;
                    } else {
                        self.at_height(scan.end());
                    }
                }
                Ok(None) => break,
                Err(error @ StoreError::Damaged { .. }) => {
                    let height = Some(scan.next_height());
                    self.note(Finding::of(&error, height, false));
                    self.state_known = false;
                    if !scan.pass_over_damage()? {
                        break;
                    }
                    at = scan.end();
                }
                Err(error) => return Err(error),
            }
        }
        self.report.torn_bytes = scan.torn().bytes;
        progress(total, total);
        Ok(())
    }

    /// Finds bytes where nothing was written.
    fn zeros(&mut self, segment: &Segment, from: u64, to: u64) -> Result<(), StoreError> {
        let mut bytes = vec![0; ZEROS_BYTES.min((to - from) as usize)];
        let mut offset = from;
        while offset < to {
            let piece = ((to - offset) as usize).min(ZEROS_BYTES);
            segment
                .file()?
                .read_at(&mut bytes[..piece], offset)
                .reading(&segment.path, offset)?;
            if let Some(place) = bytes[..piece].iter().position(|byte| *byte != 0) {
                let error = StoreError::damaged(
                    &segment.path,
                    offset + place as u64,
                    "bytes between records",
                );
                self.note(Finding::of(&error, None, false));
                return Ok(());
            }
            offset += piece as u64;
        }
        Ok(())
    }

    /// Checks one block's record; its checksums are right already.
    ///
    /// # Errors
    /// When what came before can be neither noted nor found.
    fn block(
        &mut self,
        segment: &Segment,
        place: Place,
        record: &Record,
        end: (u32, u64),
    ) -> Result<(), StoreError> {
        let height = record.prefix.height;
        let mut wrong = Vec::new();
        match self.read(record) {
            Err(what) => {
                wrong.push(what);
                self.state_known = false;
            }
            Ok((stored, mut whats)) => {
                wrong.append(&mut whats);
                self.follow(&stored.block, place, &mut wrong)?;
                self.indexed(&stored);
            }
        }
        for (at, what) in wrong {
            let offset = place.offset + at;
            self.note(Finding {
                path: segment.path.clone(),
                offset,
                height: Some(height),
                what,
                derived: false,
            });
        }
        if let Some(blocks) = &self.derived.blocks {
            match blocks.place(height) {
                Ok(found) if found == place => {}
                Ok(_) => {
                    let what = "the table of blocks names another place".into();
                    let error = StoreError::Damaged {
                        path: blocks.path().to_owned(),
                        offset: 0,
                        what,
                    };
                    self.note(Finding::of(&error, Some(height), true));
                }
                Err(error) => {
                    // Entries behind the checkpoint are written anew at a start.
                    let needed = self
                        .derived
                        .checkpoints
                        .iter()
                        .any(|point| point.header.start.tip.height >= height);
                    if needed {
                        self.note(Finding::of(&error, Some(height), true));
                    }
                }
            }
        }
        self.at_height(end);
        Ok(())
    }

    /// Reads a record's block as if its transactions had just been posted to a node that takes all that any
    /// takes. A flaw that leaves a block
    /// is listed beside it.
    fn read(&mut self, record: &Record) -> Result<(StoredBlock, Vec<Wrong>), Wrong> {
        let header = record.header().map_err(|flaw| (flaw.offset, flaw.what))?;
        let rejected = record.rejected().map_err(|flaw| (flaw.offset, flaw.what))?;
        let signature = record.head()[HEADER_BYTES..]
            .try_into()
            .expect("header() checked the length");
        // The asset transactions, and every entry with their places left open.
        let mut transactions = Vec::with_capacity(record.prefix.count as usize);
        let mut entries = Vec::with_capacity(record.prefix.count as usize);
        for index in 0..record.prefix.count {
            let at = record.text_offset(index);
            let wrong = |what: String| (at, format!("transaction {index}: {what}"));
            match record.text(index) {
                Text::Asset(text) => {
                    let transaction = self
                        .parser
                        .parse(text.clone())
                        .map_err(|error| wrong(error.to_string()))?;
                    if *transaction.canonical() != text {
                        return Err(wrong("the text is not canonical".into()));
                    }
                    transactions.push((index, transaction));
                    entries.push(None);
                }
                Text::Tracker(text) => {
                    let entry = tracker::Entry::read(text).map_err(|e| wrong(e.to_string()))?;
                    entries.push(Some(Entry::Tracker(Arc::new(entry))));
                }
                Text::Consortium(text) => {
                    let entry = consortium::Entry::read(text).map_err(|e| wrong(e.to_string()))?;
                    entries.push(Some(Entry::Consortium(entry)));
                }
            }
        }
        let (places, transactions): (Vec<u32>, Vec<Transaction>) = transactions.into_iter().unzip();
        let mut wrong = Vec::new();
        let transactions: Vec<_> = if self.options.signatures {
            verify_signatures(transactions, &mut rand::rng())
                .into_iter()
                .zip(&places)
                .map(|(verified, index)| {
                    let unproven = |unproven: daybook_ledger::Unproven<Transaction>| {
                        let at = record.text_offset(*index);
                        wrong.push((at, format!("transaction {index}: a signature is wrong")));
                        Verified::from_stored(unproven.0)
                    };
                    verified.unwrap_or_else(unproven)
                })
                .collect()
        } else {
            transactions
                .into_iter()
                .map(Verified::from_stored)
                .collect()
        };
        let mut transactions = transactions.into_iter();
        let entries = entries
            .into_iter()
            .filter_map(|other| {
                other.or_else(|| Some(Entry::Asset(Arc::new(transactions.next()?))))
            })
            .collect();
        Ok((
            StoredBlock {
                block: Block::new(header, signature, entries),
                rejected,
            },
            wrong,
        ))
    }

    /// Checks that the block continues the chain and that every transaction may follow the state.
    fn follow(
        &mut self,
        block: &Block,
        place: Place,
        wrong: &mut Vec<Wrong>,
    ) -> Result<(), StoreError> {
        let header = &block.header;
        if let Err(error) = block.check() {
            wrong.push((0, error.to_string()));
        }
        if !self
            .report
            .genesis
            .validators
            .iter()
            .any(|validator| validator.key == header.proposer)
        {
            wrong.push((0, format!("{} may not propose blocks", header.proposer)));
        }
        if header.chain != self.parent.chain {
            wrong.push((0, "the block is of another chain".into()));
        }
        let continues = header.height == self.parent.height.next();
        if continues && header.parent != self.parent.hash {
            wrong.push((
                0,
                "the block does not name the one before it as its parent".into(),
            ));
        }
        if continues && header.time <= self.parent.time {
            wrong.push((0, "the block's time is not after its parent's".into()));
        }
        if self.state_known {
            if header.parent_state != self.parent.state {
                wrong.push((0, "the block follows another state".into()));
            }
            self.past.block(header.height, place)?;
            let mut overlay = Overlay::new(&self.view);
            let mut before: Option<&Arc<Verified<Transaction>>> = None;
            for (index, entry) in (0..).zip(&block.entries) {
                let applied = match entry {
                    Entry::Asset(transaction) => {
                        let next = block.entries.get(index as usize + 1);
                        let met = self.tracker.meet(transaction, next);
                        let applied = overlay.apply(transaction.clone());
                        applied.map_err(|rejection| rejection.to_string()).and(met)
                    }
                    Entry::Tracker(entry) => self.tracker.follow(entry, before, header),
                    Entry::Consortium(entry) => self.consortium.follow(entry, header),
                };
                before = entry.as_asset();
                if let Err(why) = applied {
                    wrong.push((0, format!("transaction {index} does not apply: {why}")));
                }
                // Transactions of this block are on the overlay.
                if !matches!(entry, Entry::Asset(_)) {
                    self.past.passed(entry, header.height, index);
                }
            }
            self.tracker.book.forget(header.height);
            self.consortium.book.forget(header.height);
            let changes = overlay.into_changes();
            self.view.follow(&changes);
            for (index, entry) in (0..).zip(&block.entries) {
                if matches!(entry, Entry::Asset(_)) {
                    self.past.passed(entry, header.height, index);
                }
            }
            self.past.block_ended(header.height)?;
            self.report.tip = Tip {
                height: header.height,
                hash: header.hash(),
                state: block.state(),
                time: header.time,
                transactions: self.report.tip.transactions + block.entries.len() as u64,
            };
            for point in &mut self.derived.checkpoints {
                if let Some(table) = &mut point.table {
                    for (output, unspent) in &changes.outputs {
                        match unspent {
                            Some(unspent) => table.insert(output, *unspent),
                            None => table.remove(output),
                        };
                    }
                }
            }
        }
        self.parent = block.as_parent();
        Ok(())
    }

    /// Adds the block's entries to what the run that covers it should have.
    fn indexed(&mut self, stored: &StoredBlock) {
        let height = stored.block.header.height;
        let (Some(entries), Some(run)) = (&mut self.entries, self.derived.runs.front()) else {
            return;
        };
        if !(run.facts.from..=run.facts.to).contains(&height) {
            return;
        }
        let mut fresh = Vec::new();
        entries.block(&stored.block, &mut fresh);
        entries.rejected(&stored.rejected, height, &mut fresh);
        for (key, value) in fresh {
            self.derived.sum.add(key, value);
        }
    }

    /// Compares what says something of the height just reached; the log goes on at `end`.
    fn at_height(&mut self, end: (u32, u64)) {
        let height = self.parent.height;
        if self.state_known {
            let mut points = std::mem::take(&mut self.derived.checkpoints);
            for point in &mut points {
                if let Err(error) = self.compare(point, end) {
                    self.note(Finding::of(&error, Some(height), true));
                    point.table = None;
                }
            }
            self.derived.checkpoints = points;
        }
        while let Some(run) = self.derived.runs.pop_front_if(|run| run.facts.to <= height) {
            let should = std::mem::take(&mut self.derived.sum);
            let error = match run.check() {
                Ok(sum) if sum == should || !self.state_known => continue,
                Ok(_) => StoreError::damaged(
                    run.path(),
                    0,
                    "the run has other entries than its blocks give",
                ),
                Err(error) => error,
            };
            self.note(Finding::of(&error, None, true));
        }
    }

    fn compare(&self, point: &mut CheckedPoint, end: (u32, u64)) -> Result<(), StoreError> {
        let (height, header) = (self.report.tip.height, point.header);
        for mark in [header.start, header.end] {
            if mark.tip.height == height
                && (mark.tip != self.report.tip || (mark.segment, mark.offset) != end)
            {
                return Err(StoreError::damaged(
                    &point.path,
                    0,
                    "the checkpoint names another block than the log has",
                ));
            }
        }
        if header.start.tip.height == height {
            let (_, file) = checkpoint::read_header(&point.path, self.log.disk())?;
            let (table, books) = checkpoint::load(&point.path, &header, &*file)?;
            let other = |whose: &str| {
                let what = format!("the checkpoint has another {whose} book than the log gives");
                Err(StoreError::damaged(&point.path, 0, what))
            };
            if books.tracker.encode() != self.tracker.book.encode() {
                return other("tracker's");
            }
            if books.consortium.encode() != self.consortium.book.encode() {
                return other("consortium's");
            }
            point.table = Some(table);
        }
        if header.end.tip.height == height
            && let Some(table) = point.table.take()
        {
            let same = table.len() == self.view.outputs.len()
                && table
                    .iter()
                    .all(|(output, unspent)| self.view.outputs.get(&output) == Some(&unspent));
            if !same {
                return Err(StoreError::damaged(
                    &point.path,
                    0,
                    "the checkpoint has other outputs than the log gives",
                ));
            }
        }
        Ok(())
    }

    /// Compares what is derived with where the log ended.
    fn end(&mut self) {
        let end = self.parent.height;
        let checkpoints = self
            .derived
            .checkpoints
            .iter()
            .map(|point| (point.header.end.tip.height, "a checkpoint"));
        let index = self
            .derived
            .index
            .iter()
            .map(|index| (index.through, "the index"));
        let furthest = checkpoints.chain(index).max();
        // Not derived: the log has lost blocks that it once had.
        if let Some((height, who)) = furthest.filter(|(height, _)| *height > end) {
            let segments = self.log.segments();
            let last = segments.last().expect("a log has a first segment");
            let what =
                format!("the log ends at height {end}, and {who} says that it reached {height}");
            self.note(Finding {
                path: last.path.clone(),
                offset: 0,
                height: Some(end),
                what,
                derived: false,
            });
        }
    }
}

/// What is unspent in an ordered map, and all that was in the log: slow, obvious, and the judge of the
/// store.
struct NaiveView<'l> {
    past: &'l Past<'l>,
    outputs: BTreeMap<OutputRef, Unspent>,
}

impl NaiveView<'_> {
    fn follow(&mut self, changes: &Changes) {
        for (output, unspent) in &changes.outputs {
            match unspent {
                Some(unspent) => self.outputs.insert(*output, *unspent),
                None => self.outputs.remove(output),
            };
        }
    }
}

impl View for NaiveView<'_> {
    fn unspent(&self, output: &OutputRef) -> Option<Unspent> {
        self.outputs.get(output).copied()
    }

    fn is_committed(&self, transaction: &TransactionId) -> bool {
        self.past.transaction(transaction).is_some()
    }

    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
        let text = self.past.transaction(id)?;
        let transaction = Parser::new(Rules::WIDEST).parse_stored(text).ok()?;
        Some(Arc::new(Verified::from_stored(transaction)))
    }
}

/// The tracker's book and its entries so far: the slow way to decide every entry once more.
struct NaiveTracker<'l> {
    past: &'l Past<'l>,
    book: tracker::Book,
    /// Whether signatures are verified again.
    signatures: bool,
}

/// What a tracker took once is no damage, though it may take less today.
const EVERY_SUITE: Suites = Suites {
    rsa: true,
    ed25519: true,
    p256: true,
    legacy_md5: true,
};

impl NaiveTracker<'_> {
    /// Whether the tracker's entry that an asset transaction calls for is the next in the block: none of
    /// its tokens comes or goes without one.
    fn meet(&self, transaction: &Transaction, next: Option<&Entry>) -> Result<(), String> {
        let follows = |kind: EntryKind| match next {
            Some(Entry::Tracker(entry)) => {
                entry.kind() == kind && entry.transfer() == Some(transaction.id())
            }
            _ => false,
        };
        match self.book.meets(transaction) {
            Meets::Deposit { .. } if !follows(EntryKind::Deposit) => {
                Err("it brings tokens to the tracker, and their deposit does not follow".into())
            }
            Meets::Spends if !follows(EntryKind::Payout) => {
                Err("it spends the tracker's tokens, and no payout follows".into())
            }
            Meets::Nothing | Meets::Deposit { .. } | Meets::Spends => Ok(()),
        }
    }

    /// Whether the entry is the one that follows here, and what it changes. `before` is the asset
    /// transaction right before it.
    fn follow(
        &mut self,
        entry: &tracker::Entry,
        before: Option<&Arc<Verified<Transaction>>>,
        header: &Header,
    ) -> Result<(), String> {
        let expected = self.expected(entry, before, header.time)?;
        if expected.is_some_and(|expected| expected.id() != entry.id()) {
            return Err("another entry of the tracker follows here".into());
        }
        self.book
            .record(entry, header.height)
            .map_err(|violation| violation.to_string())
    }

    /// The entry that the rules give; `None` for the settings, which are the operator's.
    fn expected(
        &self,
        entry: &tracker::Entry,
        before: Option<&Arc<Verified<Transaction>>>,
        time: BlockTime,
    ) -> Result<Option<tracker::Entry>, String> {
        let transfer = || before.ok_or("the transaction that moved the tokens is missing");
        match entry.kind() {
            EntryKind::Settings => Ok(None),
            EntryKind::Expiry => self
                .book
                .due(time, entry.records().len())
                .map(Some)
                .ok_or("nothing is due".into()),
            EntryKind::Deposit => Ok(Some(self.book.deposit(transfer()?, time))),
            EntryKind::Command | EntryKind::Payout => {
                let request = entry.request().ok_or("it has no request")?;
                let ids = self.book.settings().map(Settings::ids).unwrap_or_default();
                let mut prover = Prover::new(EVERY_SUITE, ids);
                let proven = if self.signatures {
                    prover.prove(request.clone())
                } else {
                    prover.restore(request.clone())
                };
                let proven = proven.map_err(|refusal| refusal.to_string())?;
                let Proven::Command(command) = proven else {
                    return Err("its request changes nothing".into());
                };
                match self.book.decide(&command, time, self) {
                    Ok(Decision::Entry(entry)) => Ok(Some(entry)),
                    Ok(Decision::Payout(plan)) => {
                        let transfer = transfer()?;
                        plan.check(transfer)?;
                        Ok(Some(plan.entry(transfer)))
                    }
                    Ok(Decision::Repeat(_)) => Err("it repeats an earlier one".into()),
                    Err(refusal) => Err(refusal.to_string()),
                }
            }
        }
    }
}

impl History for NaiveTracker<'_> {
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<tracker::Entry>> {
        self.past.newest(key)
    }
}

/// The consortium's book and its entries so far: the slow way to decide every entry once more.
struct NaiveConsortium<'l> {
    past: &'l Past<'l>,
    book: consortium::Book,
    prover: consortium::Prover,
    /// Whether signatures are verified again.
    signatures: bool,
}

impl NaiveConsortium<'_> {
    /// Whether the entry is the one that follows here, and what it changes.
    fn follow(&mut self, entry: &consortium::Entry, header: &Header) -> Result<(), String> {
        if entry.at() != header.time {
            return Err("its time is not that of its block".into());
        }
        if self.signatures {
            let mut prover = self.prover.clone();
            let followed = self.book.verify(entry, &mut prover, self);
            followed.map_err(|violation| violation.to_string())?;
        } else if let Some(command) = entry.command() {
            match self.book.decide(command, entry.at(), self) {
                Ok(consortium::Decision::Entry(expected)) if expected == *entry => {}
                Ok(consortium::Decision::Entry(_)) => {
                    return Err("another entry of the consortium follows here".into());
                }
                Ok(consortium::Decision::Repeat(_)) => {
                    return Err("it repeats an earlier one".into());
                }
                Err(refusal) => return Err(refusal.to_string()),
            }
        }
        // An expiry is worked out anew when it is recorded.
        self.book
            .record(entry, header.height)
            .map_err(|violation| violation.to_string())
    }
}

impl consortium::History for NaiveConsortium<'_> {
    fn newest(&self, key: consortium::IndexKey<'_>) -> Option<Arc<consortium::Entry>> {
        self.past.newest(key)
    }
}
