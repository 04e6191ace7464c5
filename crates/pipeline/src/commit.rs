//! The committer: makes blocks durable one after the other, shows them to readers, answers their
//! submitters and tells followers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use daybook_order::Halted;
use daybook_store::{StoreError, Writer};
use parking_lot::Mutex;

use crate::{
    machine::{Answer, Built},
    node::Shared,
};

/// Blocks that wait for the disk behind the one being flushed. One is enough to keep the disk busy;
/// more would only make transactions wait in small blocks instead of gathering into a large one.
const WAITING_BLOCKS_MAX: usize = 1;

pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// `None` once closed or failed.
    writer: Mutex<Option<Writer>>,
    /// Blocks handed over and not yet answered.
    under_way: AtomicUsize,
    waiting: Sender<Built>,
}

impl Committer {
    /// The committer, and the blocks that its thread shall write.
    pub(crate) fn new(shared: Arc<Shared>, writer: Writer) -> (Arc<Committer>, Receiver<Built>) {
        let (waiting, blocks) = bounded(WAITING_BLOCKS_MAX);
        let writer = Mutex::new(Some(writer));
        let committer = Committer {
            shared,
            writer,
            under_way: AtomicUsize::new(0),
            waiting,
        };
        (Arc::new(committer), blocks)
    }

    /// The thread beside the orderer's, for blocks whose flush overlaps the next block's building.
    /// Ends when `order_ended` hangs up and all blocks are through.
    pub(crate) fn run(&self, blocks: &Receiver<Built>, order_ended: &Receiver<()>) {
        loop {
            let built = select! {
                recv(blocks) -> built => built.ok(),
                // Nothing is handed over any more; what was handed over before is still there.
                recv(order_ended) -> _ => blocks.try_recv().ok(),
            };
            let Some(built) = built else { return };
            // After a failure this only drops what was handed over, which tells the submitters.
            let _halted = self.write(built);
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Makes a block durable: here and now when nothing else is under way and nothing overlaps, else on
    /// the committer's thread.
    pub(crate) fn commit(&self, built: Built, overlap: bool) -> Result<(), Halted> {
        if !overlap && self.under_way.load(Ordering::SeqCst) == 0 {
            return self.write(built);
        }
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.waiting.send(built).map_err(|_| Halted)?;
        if self.shared.failure().is_some() {
            Err(Halted)
        } else {
            Ok(())
        }
    }

    fn write(&self, built: Built) -> Result<(), Halted> {
        if self.shared.failure().is_some() {
            return Err(Halted);
        }
        let Built {
            block,
            changes,
            answers,
        } = built;
        if let Some(block) = &block {
            let mut slot = self.writer.lock();
            let writer = slot.as_mut().ok_or(Halted)?;
            let begun = Instant::now();
            let written = writer.append(block);
            let flushed = begun.elapsed();
            if let Err(error) = written.and_then(|()| writer.publish(block, &changes)) {
                *slot = None;
                self.shared.fail(&format!("cannot write: {error}"));
                // The answers are dropped, which tells their submitters that the node stopped.
                return Err(Halted);
            }
            drop(slot);
            metrics::histogram!("daybook_flush_seconds").record(flushed.as_secs_f64());
            metrics::histogram!("daybook_block_transactions")
                .record(block.block.entries.len() as f64);
            metrics::counter!("daybook_blocks_total").increment(1);
            metrics::counter!("daybook_transactions_committed_total")
                .increment(block.block.entries.len() as u64);
            metrics::gauge!("daybook_height").set(block.block.header.height.0 as f64);
            self.shared.hub.publish(block.clone());
        }
        let assets = answers.iter().filter_map(|answer| match answer {
            Answer::Asset(id, ..) => Some(*id),
            _ => None,
        });
        self.shared.pending.remove_all(assets);
        for answer in answers {
            match answer {
                Answer::Asset(_, ticket, outcome) => ticket.settle(outcome),
                Answer::Tracker(ticket, answer) => self.shared.queue.answer(ticket, answer),
                Answer::Consortium(ticket, answer) => ticket.settle(answer),
                // Who asked may have gone.
                Answer::Configured(done) => drop(done.send(())),
            }
        }
        if let Some(block) = &block {
            self.shared.hub.announce(block.block.header.height);
        }
        Ok(())
    }

    /// Closes the store in good order. All blocks must be through.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        match self.writer.lock().take() {
            Some(writer) => writer.close(),
            None => Ok(()),
        }
    }
}
