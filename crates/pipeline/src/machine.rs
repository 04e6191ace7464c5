//! The ledger as the orderer drives it: decides candidates on top of every block built so far, and
//! hands finished blocks to the committer.

use std::{collections::VecDeque, sync::Arc};

use daybook_ledger::{
    Block, Changes, OutputRef, Overlay, Position, SigningKey, Transaction, TransactionId, Unspent,
    Verified, View,
    block::{Height, Parent},
};
use daybook_order::{Halted, Machine};
use daybook_store::{Rejected, StoreError, StoredBlock};

use crate::{
    Clock, Outcome,
    commit::Committer,
    feed::Candidate,
    node::Shared,
    submission::{Door, Ticket},
};

/// Transactions applied under one hold of the state's lock, which the commit of the block before
/// waits for.
const APPLY_TRANSACTIONS_MAX: usize = 128;

/// A block and what follows from it.
pub(crate) struct Built {
    /// `None` when everything was refused and nobody but the submitters needs to know.
    pub(crate) block: Option<Arc<StoredBlock>>,
    pub(crate) changes: Arc<Changes>,
    /// Answers that are true once this block and all before it are durable.
    pub(crate) answers: Vec<(TransactionId, Ticket, Outcome)>,
}

pub(crate) struct LedgerMachine {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
    clock: Arc<dyn Clock>,
    proposer: SigningKey,
    parent: Parent,
    /// Blocks built but perhaps not yet visible in the store, oldest first.
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    block: Arc<StoredBlock>,
    changes: Arc<Changes>,
}

/// The committed state with the blocks in flight on top.
struct InFlightView<'f, V> {
    committed: V,
    in_flight: &'f VecDeque<InFlight>,
}

impl<V: View> View for InFlightView<'_, V> {
    fn unspent(&self, output: &OutputRef) -> Option<Unspent> {
        let newest = self
            .in_flight
            .iter()
            .rev()
            .find_map(|built| built.changes.unspent(output));
        newest.unwrap_or_else(|| self.committed.unspent(output))
    }

    fn is_committed(&self, transaction: &TransactionId) -> bool {
        let in_flight = |built: &InFlight| built.changes.transactions.contains_key(transaction);
        self.in_flight.iter().any(in_flight) || self.committed.is_committed(transaction)
    }

    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
        let in_flight = self
            .in_flight
            .iter()
            .find_map(|built| built.changes.transactions.get(id).cloned());
        in_flight.or_else(|| self.committed.transaction(id))
    }
}

impl LedgerMachine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        committer: Arc<Committer>,
        clock: Arc<dyn Clock>,
        proposer: SigningKey,
        parent: Parent,
    ) -> LedgerMachine {
        LedgerMachine {
            shared,
            committer,
            clock,
            proposer,
            parent,
            in_flight: VecDeque::new(),
        }
    }

    fn forget_published(&mut self) {
        let published = self.shared.hub.head();
        while self
            .in_flight
            .front()
            .is_some_and(|built| built.block.block.header.height <= published)
        {
            self.in_flight.pop_front();
        }
    }

    /// Where a transaction stands that was committed already, be it in the block under construction.
    fn place_of(
        &self,
        id: &TransactionId,
        building: &Changes,
    ) -> Result<Option<Position>, StoreError> {
        // Changes keep the order of the block.
        let find = |height: Height, changes: &Changes| {
            let index = changes.transactions.get_index_of(id)?;
            let index = u32::try_from(index).ok()?;
            Some(Position { height, index })
        };
        let in_flight = self
            .in_flight
            .iter()
            .map(|built| (built.block.block.header.height, &*built.changes))
            .chain([(self.parent.height.next(), building)])
            .find_map(|(height, changes)| find(height, changes));
        match in_flight {
            Some(position) => Ok(Some(position)),
            None => self.shared.store.position(id),
        }
    }
}

impl Machine for LedgerMachine {
    type Transaction = Candidate;
    type Block = Built;

    fn build(&mut self, candidates: Vec<Candidate>) -> Option<Built> {
        self.forget_published();
        let height = self.parent.height.next();
        let mut changes = Changes::default();
        let mut transactions: Vec<Arc<Verified<Transaction>>> =
            Vec::with_capacity(candidates.len());
        let mut answers = Vec::with_capacity(candidates.len());
        let mut refused = Vec::new();
        let mut candidates = candidates.into_iter().peekable();
        while candidates.peek().is_some() {
            let view = InFlightView {
                committed: self.shared.store.view(),
                in_flight: &self.in_flight,
            };
            let mut overlay = Overlay::resume(&view, changes);
            for Candidate {
                transaction,
                ticket,
            } in candidates.by_ref().take(APPLY_TRANSACTIONS_MAX)
            {
                let id = transaction.id();
                match overlay.apply(transaction.clone()) {
                    Ok(()) => {
                        let index = u32::try_from(transactions.len())
                            .expect("a block holds fewer than 2^32 transactions");
                        let position = Position { height, index };
                        transactions.push(transaction);
                        answers.push((
                            id,
                            ticket,
                            Outcome::Committed {
                                id,
                                position,
                                repeated: false,
                            },
                        ));
                    }
                    Err(rejection) => {
                        let repeated = overlay.is_committed(&id);
                        refused.push((id, ticket, rejection, repeated));
                    }
                }
            }
            changes = overlay.into_changes();
        }

        let mut lost = Vec::new();
        for (id, ticket, rejection, repeated) in refused {
            let place = if repeated {
                self.place_of(&id, &changes)
            } else {
                Ok(None)
            };
            let outcome = match place {
                Ok(Some(position)) if ticket.door == Door::Bulk => Outcome::Committed {
                    id,
                    position,
                    repeated: true,
                },
                Ok(place) => {
                    self.shared.count_rejection(&rejection);
                    if place.is_none() && ticket.is_answered() {
                        lost.push(Rejected {
                            id,
                            rejection: rejection.clone(),
                        });
                    }
                    Outcome::Rejected {
                        id: Some(id),
                        rejection,
                    }
                }
                Err(error) => {
                    tracing::error!(%id, %error, "cannot look up a repeated transaction");
                    Outcome::Stopped
                }
            };
            answers.push((id, ticket, outcome));
        }

        let changes = Arc::new(changes);
        let block = (!transactions.is_empty() || !lost.is_empty()).then(|| {
            let block = Block::seal(&self.parent, self.clock.now(), transactions, &self.proposer);
            self.parent = block.as_parent();
            let block = Arc::new(StoredBlock {
                block,
                rejected: lost,
            });
            let in_flight = InFlight {
                block: block.clone(),
                changes: changes.clone(),
            };
            self.in_flight.push_back(in_flight);
            block
        });
        Some(Built {
            block,
            changes,
            answers,
        })
    }

    fn commit(&mut self, built: Built, overlap: bool) -> Result<(), Halted> {
        self.committer.commit(built, overlap)
    }
}
