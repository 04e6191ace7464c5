//! The writing side: one block after the other, durable first, visible then.

use std::{collections::VecDeque, sync::Arc, thread::JoinHandle};

use daybook_ledger::{BlockTime, Changes, Height, block::BlockHash, block::Entry};

use crate::{
    Options, StoreError, StoredBlock, Tip,
    checkpoint::{self, Mark},
    disk::Lock,
    error::At,
    index::{Index, entries::EntryMaker},
    log::Appender,
    open::Folders,
    place::Place,
    store::Shared,
    unspent::PREFETCH_OUTPUTS,
};

/// The writing side: there is one.
///
/// After an error nothing is known of the disk any more, so every later call returns that error: stop
/// the node and start again. Dropping a writer without [`Writer::close`] loses nothing; the next start
/// then replays more.
pub struct Writer {
    shared: Arc<Shared>,
    appender: Appender,
    /// `None` only while closing.
    index: Option<Index>,
    entries: EntryMaker,
    fresh: Vec<(u64, u64)>,
    options: Options,
    /// Appended and not published yet.
    appended: VecDeque<Appended>,
    last: Last,
    /// Bytes of log since the last checkpoint began.
    log_bytes: u64,
    /// Height at which the newest checkpoint begins.
    newest: Option<Height>,
    checkpointer: Option<JoinHandle<Result<Height, StoreError>>>,
    failed: Option<StoreError>,
    _lock: Lock,
}

/// The last block appended.
struct Last {
    height: Height,
    hash: BlockHash,
    time: BlockTime,
}

struct Appended {
    height: Height,
    hash: BlockHash,
    place: Place,
    /// Where the log goes on behind it.
    end: (u32, u64),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        appender: Appender,
        index: Index,
        options: Options,
        lock: Lock,
        newest: Option<Height>,
        log_bytes: u64,
    ) -> Writer {
        let tip = *shared.tip.read();
        Writer {
            entries: EntryMaker::new(shared.index.secret),
            shared,
            appender,
            index: Some(index),
            fresh: Vec::new(),
            options,
            appended: VecDeque::new(),
            last: Last {
                height: tip.height,
                hash: tip.hash,
                time: tip.time,
            },
            log_bytes,
            newest,
            checkpointer: None,
            failed: None,
            _lock: lock,
        }
    }

    /// Appends a block and what was rejected beside it, with one flush. When it returns, they are
    /// durable; readers do not see them yet.
    ///
    /// # Errors
    /// When the disk refuses, or when a reader found damage since. The node must stop then.
    ///
    /// # Panics
    /// When the block does not continue the chain: whoever ordered it is broken.
    pub fn append(&mut self, block: &StoredBlock) -> Result<(), StoreError> {
        self.guard(|writer| writer.try_append(block))
    }

    fn try_append(&mut self, stored: &StoredBlock) -> Result<(), StoreError> {
        let header = &stored.block.header;
        assert_eq!(
            header.chain, self.shared.chain,
            "a block belongs to the chain it is appended to"
        );
        assert_eq!(
            header.height,
            self.last.height.next(),
            "heights follow each other"
        );
        assert_eq!(header.parent, self.last.hash, "a block names its parent");
        assert!(
            header.time > self.last.time || header.height.0 == 1,
            "time goes forward from block to block"
        );
        // What a rule read from a damaged index must not become durable.
        self.shared.check_fault()?;
        let place = self.appender.append(stored)?;
        let hash = header.hash();
        self.last = Last {
            height: header.height,
            hash,
            time: header.time,
        };
        let end = self.appender.end();
        self.appended.push_back(Appended {
            height: header.height,
            hash,
            place,
            end,
        });
        Ok(())
    }

    /// Shows the appended block to readers: unspent outputs, positions, look-ups.
    ///
    /// # Errors
    /// When the disk refused to take what is written behind the commit point. The block is durable
    /// nevertheless. The node must stop.
    ///
    /// # Panics
    /// When the block is not the next of those appended, or the changes are not those of its
    /// transactions.
    pub fn publish(
        &mut self,
        block: &Arc<StoredBlock>,
        changes: &Changes,
    ) -> Result<(), StoreError> {
        self.guard(|writer| writer.try_publish(block, changes))
    }

    fn try_publish(&mut self, stored: &StoredBlock, changes: &Changes) -> Result<(), StoreError> {
        let block = &stored.block;
        let height = block.header.height;
        let appended = self
            .appended
            .pop_front()
            .expect("a block is published after it was appended");
        assert_eq!(
            appended.height, height,
            "blocks are published in the order they were appended"
        );
        self.fresh.clear();
        self.entries.block(block, &mut self.fresh);
        self.entries
            .rejected(&stored.rejected, height, &mut self.fresh);
        self.shared.blocks.write(height, appended.place)?;
        let index = self
            .index
            .as_ref()
            .expect("the index is there until the writer closes");
        // Nothing from here to the new tip can fail, so readers never see half a block. What names a
        // height above the tip is passed over by them.
        let indexed = index.add(height, &self.fresh);
        let tip = Tip {
            height,
            hash: appended.hash,
            state: block.state(),
            time: block.header.time,
            transactions: self.shared.tip.read().transactions + block.entries.len() as u64,
        };
        {
            let mut state = self.shared.state.write();
            for (number, (output, unspent)) in changes.outputs.iter().enumerate() {
                if number.is_multiple_of(PREFETCH_OUTPUTS) {
                    let end = changes.outputs.len().min(number + PREFETCH_OUTPUTS);
                    let next = changes.outputs.get_range(number..end);
                    state
                        .table
                        .prefetch(next.into_iter().flat_map(|next| next.keys()));
                }
                let taken = match unspent {
                    Some(unspent) => state.table.insert(output, *unspent),
                    // An output may be made and spent in one block.
                    None => {
                        state.table.remove(output)
                            || changes.transactions.contains_key(&output.transaction)
                    }
                };
                assert!(
                    taken,
                    "the rules found output {output:?} in another state than the table has it"
                );
            }
            for entry in &block.entries {
                match entry {
                    Entry::Asset(_) => {}
                    Entry::Tracker(entry) => {
                        let recorded = state.tracker.record(entry, height);
                        recorded
                            .expect("the rules let an entry pass that breaks the tracker's book");
                    }
                    Entry::Consortium(entry) => {
                        let recorded = state.consortium.record(entry, height);
                        recorded.expect(
                            "the rules let an entry pass that breaks the consortium's book",
                        );
                    }
                }
            }
            // Readers of history see what is closed from now on.
            state.tracker.forget(height);
            state.consortium.forget(height);
            state.mark = Mark {
                tip,
                segment: appended.end.0,
                offset: appended.end.1,
            };
            // Under the state's lock, so that no view sees one without the other.
            *self.shared.tip.write() = tip;
        }
        if indexed >= self.options.run_entries {
            index.seal()?;
        }
        self.log_bytes += u64::from(appended.place.length);
        self.checkpoint_if_due()
    }

    /// Begins a checkpoint in the background when enough log has come since the last one.
    fn checkpoint_if_due(&mut self) -> Result<(), StoreError> {
        if self.log_bytes < self.options.checkpoint_bytes {
            return Ok(());
        }
        if self
            .checkpointer
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return Ok(());
        }
        self.end_checkpoint();
        self.log_bytes = 0;
        // What the index holds in memory bounds a restart as the checkpoint does.
        self.index
            .as_ref()
            .expect("the index is there until the writer closes")
            .seal()?;
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || write_checkpoint(&shared));
        self.checkpointer = Some(thread.at(&self.shared.dir)?);
        Ok(())
    }

    /// Takes the outcome of the checkpoint that was being written. A failed one is no reason to stop:
    /// the log has everything, and the next one may succeed.
    fn end_checkpoint(&mut self) {
        let Some(thread) = self.checkpointer.take() else {
            return;
        };
        match thread.join() {
            Ok(Ok(height)) => self.newest = Some(height),
            Ok(Err(error)) => tracing::error!(%error, "could not write a checkpoint"),
            Err(_) => tracing::error!("the checkpoint thread panicked"),
        }
    }

    /// Writes what a start would otherwise have to replay. The checkpoint also says how far the log
    /// reaches, so a log that is shorter at the next start is known to be damaged.
    ///
    /// # Errors
    /// When the disk refuses. All blocks are durable nevertheless.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.end_checkpoint();
        if let Some(error) = &self.failed {
            return Err(error.again());
        }
        self.index
            .take()
            .expect("the index is there until the writer closes")
            .close()?;
        if self.newest != Some(self.shared.tip.read().height) {
            write_checkpoint(&self.shared)?;
        }
        Ok(())
    }

    fn guard(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.again());
        }
        let done = work(self);
        if let Err(error) = &done {
            self.failed = Some(error.again());
        }
        done
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // No thread may write after the lock is released.
        self.end_checkpoint();
    }
}

fn write_checkpoint(shared: &Shared) -> Result<Height, StoreError> {
    let folders = Folders::of(&shared.dir);
    let sync = || shared.blocks.sync();
    let header = checkpoint::write(
        &folders.checkpoint,
        &*shared.disk,
        shared.chain,
        &shared.state,
        sync,
    )?;
    Ok(header.start.tip.height)
}
