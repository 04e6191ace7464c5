//! Opening a data directory: the newest sound checkpoint, and the log's tail on top of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use daybook_ledger::{
    BlockTime, Header, Height, OutputRef, Parser, Rules, Unspent,
    block::{BlockHash, Genesis, StateHash},
};
use parking_lot::RwLock;

use crate::{
    Options, Recovery, Store, StoreError, Tip, Writer,
    blocks::BlockTable,
    checkpoint::{self, Books, Mark, State},
    disk::{Disk, Lock},
    error::At,
    index::{Index, entries::EntryMaker, key::Secret},
    log::{
        Appender, Log, SEGMENT_BYTES_MIN, Scan, Segment, Start,
        record::{ReadEntry, Record},
    },
    store::Shared,
    unspent::UnspentTable,
};

/// The folders of a data directory.
pub(crate) struct Folders {
    pub(crate) log: PathBuf,
    pub(crate) index: PathBuf,
    pub(crate) checkpoint: PathBuf,
    /// What a check keeps on disk meanwhile.
    pub(crate) past: PathBuf,
}

impl Folders {
    pub(crate) fn of(dir: &Path) -> Folders {
        Folders {
            log: dir.join("log"),
            index: dir.join("index"),
            checkpoint: dir.join("checkpoint"),
            past: dir.join("check"),
        }
    }

    pub(crate) fn create(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        for dir in [&self.log, &self.index, &self.checkpoint] {
            disk.create_dir(dir).at(dir)?;
        }
        Ok(())
    }
}

/// Locks the data directory for this process.
pub(crate) fn lock(dir: &Path, disk: &dyn Disk) -> Result<Lock, StoreError> {
    disk.create_dir(dir).at(dir)?;
    let path = dir.join("LOCK");
    disk.lock(&path)
        .at(&path)?
        .ok_or_else(|| StoreError::Locked(dir.to_owned()))
}

/// Reads the genesis that a log begins with.
pub(crate) fn read_genesis(log: &Log) -> Result<Genesis, StoreError> {
    let mut scan = Scan::new(log, Start::BEGINNING)?;
    let segment = log.segments()[0].clone();
    let Some((place, record)) = scan.next()? else {
        return Err(StoreError::damaged(
            &segment.path,
            Start::BEGINNING.offset,
            "the genesis is missing",
        ));
    };
    let bytes = record
        .genesis()
        .map_err(|flaw| segment.damaged(place.offset, flaw))?;
    Genesis::from_bytes(bytes)
        .map_err(|error| StoreError::damaged(&segment.path, place.offset, error.to_string()))
}

/// Opens the data directory's log, making it from `genesis` when it is empty.
///
/// # Errors
/// `Locked` when another process has it, `Foreign` when it is another network's or another version's,
/// `Damaged` when it is not what was written, `Io` when the operating system refuses.
pub fn open(
    dir: &Path,
    disk: Arc<dyn Disk>,
    genesis: &Genesis,
    options: Options,
) -> Result<(Store, Writer, Recovery), StoreError> {
    let lock = lock(dir, &*disk)?;
    let folders = Folders::of(dir);
    folders.create(&*disk)?;
    let genesis_hash = genesis.hash();
    let checkpoints = checkpoint::list(&folders.checkpoint, &*disk)?;
    let options = Options {
        segment_bytes: options.segment_bytes.max(SEGMENT_BYTES_MIN),
        ..options
    };
    let log = match Log::open(&folders.log, disk.clone())? {
        Some((log, _)) => {
            let found = read_genesis(&log)?;
            if found != *genesis {
                return Err(StoreError::Foreign(format!(
                    "{} holds the chain {:?} with genesis {}, not {:?} with genesis {genesis_hash}",
                    dir.display(),
                    found.chain,
                    found.hash(),
                    genesis.chain,
                )));
            }
            log
        }
        None if !checkpoints.is_empty() => {
            return Err(StoreError::damaged(
                &folders.log,
                0,
                "the log is gone; there is only a checkpoint of it",
            ));
        }
        None => Log::create(
            &folders.log,
            disk.clone(),
            &genesis.to_bytes(),
            genesis_hash,
            options.segment_bytes,
        )?,
    };
    let log = Arc::new(log);

    let loaded = load_checkpoint(&checkpoints, &*disk, genesis)?;
    let (start, reaches) = (loaded.start, loaded.reaches);
    let state = State {
        table: loaded.table,
        tracker: loaded.books.tracker,
        consortium: loaded.books.consortium,
        mark: start,
    };
    let loaded_newest = loaded.newest;
    let index = Index::open(&folders.index, disk.clone(), genesis_hash, Secret::new())?;
    let through = index.through();
    let blocks = match BlockTable::open(&folders.index, &*disk, genesis_hash, start.tip.height)? {
        Some(blocks) => blocks,
        None => {
            let blocks = BlockTable::create(&folders.index, &*disk, genesis_hash)?;
            blocks.fill(&log, start.tip.height)?;
            blocks
        }
    };

    // The log reaches as far as the checkpoint says, and by the same blocks.
    if start.tip.height.0 > 0 {
        let place = blocks.place(start.tip.height)?;
        let (segment, record) = log.record(place)?;
        let hash = record
            .hash()
            .map_err(|flaw| segment.damaged(place.offset, flaw))?;
        let end = (place.segment, place.offset + record.prefix.stride());
        if hash != start.tip.hash || end != (start.segment, start.offset) {
            let what = format!(
                "the checkpoint names another block at height {}",
                start.tip.height
            );
            return Err(StoreError::damaged(&segment.path, place.offset, what));
        }
    }

    // Where reading begins: behind the checkpoint, or where the index ends if that is earlier.
    let (from, parent) = if through < start.tip.height {
        let place = blocks.place(through.next())?;
        let from = Start {
            segment: place.segment,
            offset: place.offset,
            height: through.next(),
        };
        let parent = if through.0 == 0 {
            genesis_hash
        } else {
            let place = blocks.place(through)?;
            let (segment, record) = log.record(place)?;
            record
                .hash()
                .map_err(|flaw| segment.damaged(place.offset, flaw))?
        };
        (from, parent)
    } else {
        let from = Start {
            segment: start.segment,
            offset: start.offset,
            height: start.tip.height.next(),
        };
        (from, start.tip.hash)
    };
    let mut replay = Replay {
        chain: genesis_hash,
        parent,
        state,
        exact_from: reaches,
        parser: Parser::new(Rules::WIDEST),
    };
    let mut scan = Scan::new(&log, from)?;
    let mut entries = EntryMaker::new(index.shared().secret);
    let mut fresh = Vec::new();
    let mut recovery = Recovery {
        checkpoint: start.tip.height,
        replayed_blocks: 0,
        replayed_transactions: 0,
        torn_bytes: 0,
    };
    let mut replayed_bytes = 0;
    while let Some((place, record)) = scan.next()? {
        let height = record.prefix.height;
        let segment = log.segments()[place.segment as usize - 1].clone();
        let at = |flaw| segment.damaged(place.offset, flaw);
        let header = record.header().map_err(at)?;
        replay.follow(&header, &segment, place.offset)?;
        let read = replay.entries(&record, &segment, place.offset)?;
        if height > through {
            fresh.clear();
            for (index, entry) in (0..).zip(&read) {
                match entry {
                    ReadEntry::Asset(transaction) => {
                        entries.transaction(transaction, height, index, &mut fresh);
                    }
                    ReadEntry::Tracker(entry) => entries.tracker(entry, height, index, &mut fresh),
                    ReadEntry::Consortium(entry) => {
                        entries.consortium(entry, height, index, &mut fresh);
                    }
                }
            }
            let rejected = record.rejected().map_err(at)?;
            entries.rejected(&rejected, height, &mut fresh);
            if index.add(height, &fresh) >= options.run_entries {
                index.seal()?;
            }
        }
        if height > start.tip.height {
            blocks.write(height, place)?;
            let (segment_number, offset) = scan.end();
            replay.apply(&header, &read, &record, &segment, place.offset)?;
            replay.state.mark.segment = segment_number;
            replay.state.mark.offset = offset;
            recovery.replayed_blocks += 1;
            recovery.replayed_transactions += read.len() as u64;
            replayed_bytes += u64::from(place.length);
            if height == reaches.tip.height && replay.state.mark.tip != reaches.tip {
                let what = "the block is not the one that the checkpoint ends with";
                return Err(StoreError::damaged(&segment.path, place.offset, what));
            }
        }
    }
    // Every entry was checked as it came; this looks at what they add up to.
    if let Err(violation) = replay.state.consortium.audit() {
        return Err(StoreError::damaged(&folders.log, 0, violation.to_string()));
    }
    let torn = scan.torn();
    recovery.torn_bytes = torn.bytes;
    let tip = replay.state.mark.tip;
    let known = reaches.tip.height.max(loaded_newest).max(through);
    if tip.height < known {
        let (segment, offset) = scan.end();
        let path = log.segments()[segment as usize - 1].path.clone();
        let what = format!(
            "the log ends at height {} and had reached {known}",
            tip.height
        );
        return Err(StoreError::damaged(&path, offset, what));
    }
    if torn.bytes > 0 {
        tracing::warn!(bytes = torn.bytes, height = %tip.height, "dropped an unfinished last write");
    }
    let (_, end) = scan.end();
    let appender = Appender::open(
        log.clone(),
        genesis_hash,
        end,
        scan.last(),
        &torn,
        options.segment_bytes,
    )?;
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        disk,
        genesis: genesis.clone(),
        chain: genesis_hash,
        log,
        blocks,
        state: RwLock::new(replay.state),
        index: index.shared().clone(),
        tip: RwLock::new(tip),
        parsers: Default::default(),
        fault: Default::default(),
    });
    let newest = (!checkpoints.is_empty()).then_some(start.tip.height);
    let writer = Writer::new(
        shared.clone(),
        appender,
        index,
        options,
        lock,
        newest,
        replayed_bytes,
    );
    Ok((Store::new(shared), writer, recovery))
}

struct Loaded {
    /// Every change up to here is in the table.
    start: Mark,
    /// No change after this is.
    reaches: Mark,
    /// Where the newest checkpoint says that the log reaches, be it sound or not.
    newest: Height,
    table: UnspentTable,
    /// Exact at `start`.
    books: Books,
}

/// Loads the newest checkpoint that is sound; without one, the beginning.
fn load_checkpoint(
    paths: &[PathBuf],
    disk: &dyn Disk,
    genesis: &Genesis,
) -> Result<Loaded, StoreError> {
    let chain = genesis.hash();
    let mut newest_end: Option<Mark> = None;
    for path in paths {
        let found = checkpoint::read_header(path, disk).and_then(|(header, file)| {
            if header.chain != chain {
                return Err(StoreError::damaged(
                    path,
                    8,
                    "the checkpoint is of another chain",
                ));
            }
            newest_end = newest_end.or(Some(header.end));
            let (table, books) = checkpoint::load(path, &header, &*file)?;
            Ok((header, table, books))
        });
        match found {
            Ok((header, table, books)) => {
                return Ok(Loaded {
                    start: header.start,
                    reaches: header.end,
                    newest: newest_end.map_or(header.end.tip.height, |newest| {
                        newest.tip.height.max(header.end.tip.height)
                    }),
                    table,
                    books,
                });
            }
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!(%error, "passing over a checkpoint");
            }
            Err(error) => return Err(error),
        }
    }
    let tip = Tip {
        height: Height(0),
        hash: chain,
        state: StateHash(None),
        time: genesis.time,
        transactions: 0,
    };
    let record_bytes = crate::log::record::genesis_record_bytes(&genesis.to_bytes());
    let start = Mark {
        tip,
        segment: 1,
        offset: Start::BEGINNING.offset + record_bytes,
    };
    Ok(Loaded {
        start,
        reaches: start,
        newest: newest_end.map_or(Height(0), |end| end.tip.height),
        table: UnspentTable::new(),
        books: Books::default(),
    })
}

/// Follows the chain from block to block and keeps the state that comes of it.
pub(crate) struct Replay {
    pub(crate) chain: BlockHash,
    pub(crate) parent: BlockHash,
    pub(crate) state: State,
    /// Up to here the table may know changes already.
    pub(crate) exact_from: Mark,
    pub(crate) parser: Parser,
}

impl Replay {
    /// Checks that a header continues the chain.
    pub(crate) fn follow(
        &mut self,
        header: &Header,
        segment: &Segment,
        offset: u64,
    ) -> Result<(), StoreError> {
        let wrong = |what: &str| Err(StoreError::damaged(&segment.path, offset, what));
        if header.chain != self.chain {
            return wrong("the block is of another chain");
        }
        if header.parent != self.parent {
            return wrong("the block does not name the one before it as its parent");
        }
        self.parent = header.hash();
        Ok(())
    }

    /// Reads a record's entries.
    pub(crate) fn entries(
        &mut self,
        record: &Record,
        segment: &Segment,
        offset: u64,
    ) -> Result<Vec<ReadEntry>, StoreError> {
        (0..record.prefix.count)
            .map(|index| {
                record
                    .read(index, &mut self.parser)
                    .map_err(|flaw| segment.damaged(offset, flaw))
            })
            .collect()
    }

    /// Applies a block to the state. Nothing is decided again: what is in a block was.
    pub(crate) fn apply(
        &mut self,
        header: &Header,
        entries: &[ReadEntry],
        record: &Record,
        segment: &Segment,
        offset: u64,
    ) -> Result<(), StoreError> {
        let tip = &mut self.state.mark.tip;
        let wrong =
            |at: u64, what: String| Err(StoreError::damaged(&segment.path, offset + at, what));
        if header.parent_state != tip.state {
            return wrong(0, "the block follows another state".into());
        }
        if header.time <= tip.time && header.height.0 > 1 {
            return wrong(0, "the block's time is not after its parent's".into());
        }
        let exact = header.height > self.exact_from.tip.height;
        for (index, entry) in (0..).zip(entries) {
            let transaction = match entry {
                ReadEntry::Asset(transaction) => transaction,
                ReadEntry::Tracker(entry) => {
                    if let Err(violation) = self.state.tracker.record(entry, header.height) {
                        let what =
                            format!("transaction {index} breaks the tracker's book: {violation}");
                        return wrong(record.text_offset(index), what);
                    }
                    continue;
                }
                ReadEntry::Consortium(entry) => {
                    if let Err(violation) = self.state.consortium.record(entry, header.height) {
                        let what = format!("transaction {index}: {violation}");
                        return wrong(record.text_offset(index), what);
                    }
                    continue;
                }
            };
            for spent in transaction.inputs().iter().filter_map(|input| input.spends) {
                if !self.state.table.remove(&spent) && exact {
                    let what = format!("transaction {index} spends an output that is not unspent");
                    return wrong(record.text_offset(index), what);
                }
            }
            for (place, output) in (0..).zip(transaction.outputs()) {
                let reference = OutputRef {
                    transaction: transaction.id(),
                    index: place,
                };
                let unspent = Unspent {
                    amount: output.amount,
                    lock: output.lock,
                };
                if !self.state.table.insert(&reference, unspent) && exact {
                    let what = format!("transaction {index} makes an output that exists");
                    return wrong(record.text_offset(index), what);
                }
            }
        }
        self.state.tracker.forget(header.height);
        self.state.consortium.forget(header.height);
        tip.height = header.height;
        tip.hash = self.parent;
        tip.state = header.parent_state.next(entries.iter().map(ReadEntry::id));
        tip.time = BlockTime(header.time.0);
        tip.transactions += entries.len() as u64;
        Ok(())
    }
}
