//! Who puts transactions into blocks.
//!
//! An orderer knows nothing of what a transaction is: it moves opaque values from a [`Feed`] to a
//! [`Machine`]. [`Solo`] decides alone; an agreement among several nodes drives the same machine.

use std::collections::VecDeque;

/// Where transactions wait for their block, in the order in which they were taken.
pub trait Feed {
    /// A transaction that is sound by itself.
    type Transaction;

    /// Waits until something is there, then takes all that waits, up to the bounds of one block.
    /// `None` when the feed is closed and empty.
    fn gather(&mut self) -> Option<VecDeque<Self::Transaction>>;

    /// Whether nothing waits at the moment.
    fn is_idle(&self) -> bool;
}

/// The ledger, as an orderer sees it.
pub trait Machine {
    /// A transaction that is sound by itself.
    type Transaction;
    /// A block and what follows from it.
    type Block;

    /// Decides transactions in order on top of every block built so far and makes the next block of
    /// those that pass. `None` when there is nothing to write down. Takes from the front what it
    /// decides; what it leaves is for the block after.
    fn build(&mut self, transactions: &mut VecDeque<Self::Transaction>) -> Option<Self::Block>;

    /// Makes a decided block durable and known. With `overlap` it may return while the disk is still
    /// working, so that the next block is built meanwhile; it waits when too many blocks are under way.
    ///
    /// # Errors
    /// [`Halted`] when a block could not be written: nothing may follow it.
    fn commit(&mut self, block: Self::Block, overlap: bool) -> Result<(), Halted>;
}

/// The machine could not write a block and takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halted;

/// The orderer of a node that decides alone. Whatever waits when the previous block was handed over
/// becomes the next block: alone, a transaction waits for one flush; under load, blocks grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Solo {
    /// Orders until the feed is closed and empty.
    ///
    /// # Errors
    /// [`Halted`] when the machine is.
    pub fn run<T, F, M>(self, feed: &mut F, machine: &mut M) -> Result<(), Halted>
    where
        F: Feed<Transaction = T>,
        M: Machine<Transaction = T>,
    {
        while let Some(mut transactions) = feed.gather() {
            loop {
                if let Some(block) = machine.build(&mut transactions) {
                    // With nobody waiting there is nothing to do beside the flush, and a hand-over to
                    // another thread would only cost time.
                    let overlap = !transactions.is_empty() || !feed.is_idle();
                    machine.commit(block, overlap)?;
                }
                if transactions.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Vec<Vec<u32>>);
    impl Feed for Script {
        type Transaction = u32;
        fn gather(&mut self) -> Option<VecDeque<u32>> {
            (!self.0.is_empty()).then(|| self.0.remove(0).into())
        }
        fn is_idle(&self) -> bool {
            self.0.is_empty()
        }
    }

    struct Book {
        blocks: Vec<(Vec<u32>, bool)>,
        room: usize,
        at_once: usize,
    }
    impl Machine for Book {
        type Transaction = u32;
        type Block = Vec<u32>;
        fn build(&mut self, transactions: &mut VecDeque<u32>) -> Option<Vec<u32>> {
            let taken = transactions.len().min(self.at_once);
            let odd: Vec<u32> = transactions.drain(..taken).filter(|t| t % 2 == 1).collect();
            (!odd.is_empty()).then_some(odd)
        }
        fn commit(&mut self, block: Vec<u32>, overlap: bool) -> Result<(), Halted> {
            if self.blocks.len() == self.room {
                return Err(Halted);
            }
            self.blocks.push((block, overlap));
            Ok(())
        }
    }

    #[test]
    fn what_waits_becomes_the_next_block_and_the_last_one_is_not_overlapped() {
        let mut book = Book {
            blocks: vec![],
            room: 9,
            at_once: 9,
        };
        let done = Solo.run(
            &mut Script(vec![vec![1, 2, 3], vec![4], vec![5]]),
            &mut book,
        );
        assert_eq!(done, Ok(()));
        assert_eq!(book.blocks, [(vec![1, 3], true), (vec![5], false)]);
    }

    #[test]
    fn what_a_block_leaves_goes_into_the_next() {
        let mut book = Book {
            blocks: vec![],
            room: 9,
            at_once: 2,
        };
        let done = Solo.run(&mut Script(vec![vec![1, 3, 5]]), &mut book);
        assert_eq!(done, Ok(()));
        assert_eq!(book.blocks, [(vec![1, 3], true), (vec![5], false)]);
    }

    #[test]
    fn nothing_follows_a_block_that_could_not_be_written() {
        let mut book = Book {
            blocks: vec![],
            room: 1,
            at_once: 9,
        };
        let done = Solo.run(&mut Script(vec![vec![1], vec![3], vec![5]]), &mut book);
        assert_eq!(done, Err(Halted));
        assert_eq!(book.blocks.len(), 1);
    }
}
