//! The ledger as the orderer drives it: decides candidates on top of every block built so far, and
//! hands finished blocks to the committer.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use daybook_ledger::{
    BlockTime, Changes, Draft, DraftError, Operation, OutputRef, Overlay, Position, Rejection,
    RejectionClass, SigningKey, Transaction, TransactionId, Unspent, Verified, View,
    block::{Block, Entry, Height, Parent},
    consortium,
    tracker::{self, Book, Decision, Meets, PayoutPlan},
    verify_signatures,
};
use daybook_order::{Halted, Machine};
use daybook_store::{Allowance, CommittedView, Rejected, StoreError, StoredBlock, Withheld};
use tokio::sync::oneshot;

use crate::{
    Clock, ConsortiumAnswer, Outcome,
    commit::Committer,
    consortium::ConsortiumTicket,
    feed::Candidate,
    node::Shared,
    submission::{Door, Ticket},
    tracker::{TrackerAnswer, TrackerTicket},
};

/// Candidates decided under one hold of the state's lock, which the commit of the block before
/// waits for.
const APPLY_CANDIDATES_MAX: usize = 128;

/// Bytes of history that are read for one block, which the next waits for: some 16 ms of reading long
/// parents, or the parents of 4,096 ordinary transactions.
const HISTORY_BYTES_MAX: u64 = 16 << 20;

/// Tracker records that one expiry entry holds: 48 KB at the most. Whoever asks for one channel that ended
/// in it makes the node read all of it, again and again.
const EXPIRY_RECORDS_MAX: usize = 32;

/// Expiry entries of the tracker in one block, so that a block stays below 3 MB or so however much falls
/// due at once. Nothing else is decided before all that is due is done.
const EXPIRY_ENTRIES_MAX: usize = 64;

/// Expiry entries of the consortium in one block.
const CONSORTIUM_EXPIRY_ENTRIES_MAX: usize = 8;

/// Proposals of the consortium that one expiry entry closes: each names whoever is missing, and may bring
/// the next in its queues to its turn, so that an entry stays below a megabyte or so.
const EXPIRY_PROPOSALS_MAX: usize = 64;

/// A block and what follows from it.
pub(crate) struct Built {
    /// `None` when everything was refused and nobody but the submitters needs to know.
    pub(crate) block: Option<Arc<StoredBlock>>,
    pub(crate) changes: Arc<Changes>,
    /// Answers that are true once this block and all before it are durable.
    pub(crate) answers: Vec<Answer>,
}

/// An answer that waits for the disk.
pub(crate) enum Answer {
    Asset(TransactionId, Ticket, Outcome),
    Tracker(TrackerTicket, TrackerAnswer),
    Consortium(ConsortiumTicket, ConsortiumAnswer),
    Configured(oneshot::Sender<()>),
}

pub(crate) struct LedgerMachine {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
    clock: Arc<dyn Clock>,
    proposer: SigningKey,
    /// The key that holds the tracker's tokens.
    holder: Option<SigningKey>,
    parent: Parent,
    /// Blocks built but perhaps not yet visible in the store, oldest first.
    in_flight: VecDeque<InFlight>,
    /// The tracker's book after every block built so far.
    tracker: Book,
    /// The consortium's book after every block built so far.
    consortium: consortium::Book,
    /// Transactions whose clients were told that they are taken, and which could not be decided yet. They
    /// come first in the next block, in their order.
    undecided: VecDeque<Candidate>,
}

struct InFlight {
    block: Arc<StoredBlock>,
    changes: Arc<Changes>,
}

/// The block under construction.
struct Building {
    height: Height,
    time: BlockTime,
    entries: Vec<Entry>,
    answers: Vec<Answer>,
    refused: Vec<Refused>,
    /// Requests to the consortium's book that were recorded before, and the entries of the first time.
    repeated: Vec<(ConsortiumTicket, Arc<consortium::Entry>)>,
}

/// An asset transaction that lost.
struct Refused {
    id: TransactionId,
    ticket: Ticket,
    rejection: Rejection,
    /// It lost because it is there already.
    repeated: bool,
}

/// A book's rules were broken by an entry that they let pass.
struct Broken;

/// The committed state with the blocks in flight on top.
struct InFlightView<'f, V> {
    committed: V,
    in_flight: &'f VecDeque<InFlight>,
}

/// What is decided on top of the committed state.
type OnState<'s, 'f> = Overlay<'s, InFlightView<'f, CommittedView<'f>>>;

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

impl Building {
    fn next_position(&self) -> Position {
        let index =
            u32::try_from(self.entries.len()).expect("a block holds fewer than 2^32 entries");
        Position {
            height: self.height,
            index,
        }
    }
}

impl LedgerMachine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        committer: Arc<Committer>,
        clock: Arc<dyn Clock>,
        proposer: SigningKey,
        holder: Option<SigningKey>,
        parent: Parent,
    ) -> LedgerMachine {
        let tracker = shared.store.tracker(Book::clone);
        let consortium = shared.store.consortium(consortium::Book::clone);
        LedgerMachine {
            shared,
            committer,
            clock,
            proposer,
            holder,
            parent,
            in_flight: VecDeque::new(),
            tracker,
            consortium,
            undecided: VecDeque::new(),
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
        // Readers of the store find there what was closed up to here.
        self.tracker.forget(published);
        self.consortium.forget(published);
    }

    /// Where a transaction stands that was committed already, be it in the block under construction.
    fn place_of(
        &self,
        id: &TransactionId,
        building: &Building,
    ) -> Result<Option<Position>, StoreError> {
        let find = |height: Height, entries: &[Entry]| {
            let index = entries.iter().position(|entry| entry.id() == *id)?;
            let index = u32::try_from(index).ok()?;
            Some(Position { height, index })
        };
        let in_flight = self
            .in_flight
            .iter()
            .map(|built| &built.block.block)
            .map(|block| (block.header.height, &block.entries[..]))
            .chain([(building.height, &building.entries[..])])
            .find_map(|(height, entries)| find(height, entries));
        match in_flight {
            Some(position) => Ok(Some(position)),
            None => self.shared.store.position(id),
        }
    }

    /// Does what is due in the books: no request sees as open what is past its time. False when more is
    /// due than one block takes.
    fn expire(&mut self, building: &mut Building) -> Result<bool, Broken> {
        Ok(self.expire_tracker(building)? & self.expire_consortium(building)?)
    }

    fn expire_consortium(&mut self, building: &mut Building) -> Result<bool, Broken> {
        for _ in 0..CONSORTIUM_EXPIRY_ENTRIES_MAX {
            let Some(entry) = self.consortium.due(building.time, EXPIRY_PROPOSALS_MAX) else {
                return Ok(true);
            };
            self.record_consortium(entry, building)?;
        }
        let next = self.consortium.next_due();
        Ok(next.is_none_or(|next| next > building.time))
    }

    fn expire_tracker(&mut self, building: &mut Building) -> Result<bool, Broken> {
        for _ in 0..EXPIRY_ENTRIES_MAX {
            let Some(entry) = self.tracker.due(building.time, EXPIRY_RECORDS_MAX) else {
                return Ok(true);
            };
            self.record(entry, building)?;
        }
        Ok(self.tracker.due(building.time, 1).is_none())
    }

    /// Appends an entry of the tracker's book to the block.
    fn record(
        &mut self,
        entry: tracker::Entry,
        building: &mut Building,
    ) -> Result<Arc<tracker::Entry>, Broken> {
        if let Err(violation) = self.tracker.record(&entry, building.height) {
            self.shared
                .fail(&format!("the tracker's book is broken: {violation}"));
            return Err(Broken);
        }
        let entry = Arc::new(entry);
        building.entries.push(Entry::Tracker(entry.clone()));
        Ok(entry)
    }

    /// Appends an entry of the consortium's book to the block.
    fn record_consortium(
        &mut self,
        entry: consortium::Entry,
        building: &mut Building,
    ) -> Result<(), Broken> {
        if let Err(violation) = self.consortium.record(&entry, building.height) {
            self.shared.fail(&violation.to_string());
            return Err(Broken);
        }
        building.entries.push(Entry::Consortium(entry));
        Ok(())
    }

    fn decide_consortium(
        &mut self,
        command: &consortium::Command,
        ticket: ConsortiumTicket,
        allowance: &Allowance,
        building: &mut Building,
    ) -> Result<(), Broken> {
        let shared = self.shared.clone();
        let history = shared.store.consortium_history_counted(allowance);
        let decision = self.consortium.decide(command, building.time, &history);
        if let Some(error) = history.failure() {
            tracing::warn!(%error, "a request to the consortium's book was not decided");
            let answer = ConsortiumAnswer::Busy;
            building.answers.push(Answer::Consortium(ticket, answer));
            return Ok(());
        }
        let answer = match decision {
            Ok(consortium::Decision::Entry(entry)) => {
                let position = building.next_position();
                self.record_consortium(entry.clone(), building)?;
                ConsortiumAnswer::Recorded {
                    entry,
                    position,
                    repeated: false,
                }
            }
            Ok(consortium::Decision::Repeat(first)) => {
                building.repeated.push((ticket, first));
                return Ok(());
            }
            Err(refusal) => ConsortiumAnswer::Refused(refusal),
        };
        building.answers.push(Answer::Consortium(ticket, answer));
        Ok(())
    }

    /// Answers those whose requests were recorded before.
    fn answer_repeated(&self, building: &mut Building) {
        for (ticket, first) in std::mem::take(&mut building.repeated) {
            let answer = match self.place_of(&first.id(), building) {
                Ok(Some(position)) => ConsortiumAnswer::Recorded {
                    entry: consortium::Entry::clone(&first),
                    position,
                    repeated: true,
                },
                Ok(None) => ConsortiumAnswer::Busy,
                Err(error) => {
                    put_off(&first.id(), &Withheld::Unreadable(error));
                    ConsortiumAnswer::Busy
                }
            };
            building.answers.push(Answer::Consortium(ticket, answer));
        }
    }

    /// Decides an asset transaction. Gives it back if that was not possible now and nobody is there to be
    /// told so.
    fn decide_asset<V: View>(
        &mut self,
        transaction: Arc<Verified<Transaction>>,
        ticket: Ticket,
        overlay: &mut Overlay<'_, V>,
        committed: &CommittedView<'_>,
        building: &mut Building,
    ) -> Result<Option<Candidate>, Broken> {
        let id = transaction.id();
        let meets = self.tracker.meets(&transaction);
        let applied = match meets {
            Meets::Spends => Err(Rejection::new(
                RejectionClass::ValidationError,
                "the tracker's tokens are moved by payouts only",
            )),
            Meets::Nothing | Meets::Deposit { .. } => overlay.apply(transaction.clone()),
        };
        match applied {
            Ok(()) => {
                let position = building.next_position();
                building.entries.push(Entry::Asset(transaction.clone()));
                building.answers.push(Answer::Asset(
                    id,
                    ticket,
                    Outcome::Committed {
                        id,
                        position,
                        repeated: false,
                    },
                ));
                if matches!(meets, Meets::Deposit { .. }) {
                    let deposit = self.tracker.deposit(&transaction, building.time);
                    self.record(deposit, building)?;
                }
            }
            Err(rejection) => {
                let repeated = overlay.is_committed(&id);
                // Whoever still waits for an answer is asked to try again; who was told that the transaction
                // is taken hears what becomes of it.
                let certain = ticket.is_answered() && !depends_on_history(&transaction);
                let rejection = match committed.withheld() {
                    None => Some(rejection),
                    Some(Withheld::TooMuch) => Some(too_long_to_say()),
                    Some(Withheld::Spent) if certain => Some(too_long_to_say()),
                    Some(why) => {
                        put_off(&id, &why);
                        None
                    }
                };
                match rejection {
                    Some(rejection) => building.refused.push(Refused {
                        id,
                        ticket,
                        rejection,
                        repeated,
                    }),
                    None if ticket.is_answered() => {
                        return Ok(Some(Candidate::Asset {
                            transaction,
                            ticket,
                        }));
                    }
                    None => building
                        .answers
                        .push(Answer::Asset(id, ticket, Outcome::Busy)),
                }
            }
        }
        Ok(None)
    }

    /// Lets `work` apply transactions on top of all that was decided so far. The state's lock is held
    /// meanwhile, and the commit of the block before waits for it: nothing is read from disk here but what
    /// `allowance` allows.
    fn on_state<T>(
        &mut self,
        changes: &mut Changes,
        allowance: &Allowance,
        work: impl FnOnce(&mut LedgerMachine, &mut OnState<'_, '_>, &CommittedView<'_>) -> T,
    ) -> T {
        let shared = self.shared.clone();
        let in_flight = std::mem::take(&mut self.in_flight);
        let view = InFlightView {
            committed: shared.store.view_within(allowance),
            in_flight: &in_flight,
        };
        let mut overlay = Overlay::resume(&view, std::mem::take(changes));
        let done = work(self, &mut overlay, &view.committed);
        *changes = overlay.into_changes();
        drop(view);
        self.in_flight = in_flight;
        done
    }

    /// Decides the asset transactions that come next, as many as may share one hold of the state's lock.
    fn decide_assets(
        &mut self,
        candidates: &mut VecDeque<Candidate>,
        changes: &mut Changes,
        allowance: &Allowance,
        building: &mut Building,
    ) -> Result<(), Broken> {
        self.on_state(changes, allowance, |machine, overlay, committed| {
            let is_asset = |next: &mut Candidate| matches!(next, Candidate::Asset { .. });
            let next = candidates.iter().take(APPLY_CANDIDATES_MAX);
            let inputs = next.map_while(Candidate::asset_inputs).flatten();
            committed.prefetch(inputs.filter_map(|input| input.spends.as_ref()));
            for _ in 0..APPLY_CANDIDATES_MAX {
                let Some(Candidate::Asset {
                    transaction,
                    ticket,
                }) = candidates.pop_front_if(is_asset)
                else {
                    break;
                };
                allowance.begin(depends_on_history(&transaction));
                let decided =
                    machine.decide_asset(transaction, ticket, overlay, committed, building)?;
                machine.undecided.extend(decided);
            }
            Ok(())
        })
    }

    /// Decides the transactions that could not be decided for the block before, until the first that still
    /// cannot be.
    fn decide_undecided(
        &mut self,
        changes: &mut Changes,
        allowance: &Allowance,
        building: &mut Building,
    ) -> Result<(), Broken> {
        let mut waiting = std::mem::take(&mut self.undecided);
        while !waiting.is_empty() && self.undecided.is_empty() {
            let mut next: VecDeque<_> = waiting.drain(..1).collect();
            self.decide_assets(&mut next, changes, allowance, building)?;
        }
        self.undecided.append(&mut waiting);
        Ok(())
    }

    /// Decides what reads the log at leisure: the state's lock is not held.
    fn decide_tracker(
        &mut self,
        command: &tracker::Command,
        ticket: TrackerTicket,
        changes: &mut Changes,
        allowance: &Allowance,
        building: &mut Building,
    ) -> Result<(), Broken> {
        let shared = self.shared.clone();
        let history = shared.store.tracker_history_counted(allowance);
        let decision = self.tracker.decide(command, building.time, &history);
        if let Some(error) = history.failure() {
            let answer = TrackerAnswer::Refused(undecided(&error));
            building.answers.push(Answer::Tracker(ticket, answer));
            return Ok(());
        }
        let answer = match decision {
            Ok(Decision::Entry(entry)) => {
                let position = Some(building.next_position());
                let entry = self.record(entry, building)?;
                TrackerAnswer::Recorded { entry, position }
            }
            Ok(Decision::Payout(plan)) => {
                allowance.begin(false);
                let paid = self.on_state(changes, allowance, |machine, overlay, committed| {
                    let paid = machine.pay(&plan, overlay);
                    paid.map_err(|why| match committed.withheld() {
                        Some(Withheld::Unreadable(error)) => undecided(&error),
                        _ => tracker::Refusal::internal(why),
                    })
                });
                match paid {
                    Ok(transfer) => {
                        building.entries.push(Entry::Asset(transfer.clone()));
                        let position = Some(building.next_position());
                        let entry = self.record(plan.entry(&transfer), building)?;
                        TrackerAnswer::Recorded { entry, position }
                    }
                    Err(refusal) => TrackerAnswer::Refused(refusal),
                }
            }
            Ok(Decision::Repeat(entry)) => TrackerAnswer::Recorded {
                entry,
                position: None,
            },
            Err(refusal) => TrackerAnswer::Refused(refusal),
        };
        building.answers.push(Answer::Tracker(ticket, answer));
        Ok(())
    }

    /// Makes, signs and applies the TRANSFER of a payout.
    fn pay<V: View>(
        &self,
        plan: &PayoutPlan,
        overlay: &mut Overlay<'_, V>,
    ) -> Result<Arc<Verified<Transaction>>, String> {
        let holder = self
            .holder
            .as_ref()
            .ok_or("this node does not hold the tracker's tokens")?;
        let transfer = sign_payout(plan, holder).map_err(|error| error.to_string())?;
        let mut verified = verify_signatures(vec![transfer], &mut rand::rng());
        let transfer = verified
            .pop()
            .and_then(Result::ok)
            .ok_or("the payout's own signature is wrong")?;
        let transfer = Arc::new(transfer);
        overlay
            .apply(transfer.clone())
            .map_err(|rejection| rejection.to_string())?;
        Ok(transfer)
    }

    /// Answers those who lost, and says which of them others must be told of.
    fn refuse(&self, building: &mut Building) -> Vec<Rejected> {
        let mut lost = Vec::new();
        for refused in std::mem::take(&mut building.refused) {
            let Refused {
                id,
                ticket,
                rejection,
                repeated,
            } = refused;
            let place = if repeated {
                self.place_of(&id, building)
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
                    put_off(&id, &Withheld::Unreadable(error));
                    Outcome::Busy
                }
            };
            building.answers.push(Answer::Asset(id, ticket, outcome));
        }
        lost
    }

    fn decide(
        &mut self,
        candidates: &mut VecDeque<Candidate>,
        building: &mut Building,
    ) -> Result<Changes, Broken> {
        let mut changes = Changes::with_capacity(candidates.len());
        if !self.expire(building)? {
            return Ok(changes);
        }
        let allowance = Allowance::new(HISTORY_BYTES_MAX);
        self.decide_undecided(&mut changes, &allowance, building)?;
        // The next block waits while the log is read for a book. When that was much, the rest is decided
        // for that one. Assets are told what they may not read instead.
        let mut reads_on = true;
        while reads_on && let Some(candidate) = candidates.pop_front() {
            let is_of_book = matches!(
                candidate,
                Candidate::Tracker { .. } | Candidate::Consortium { .. }
            );
            match candidate {
                asset @ Candidate::Asset { .. } => {
                    candidates.push_front(asset);
                    self.decide_assets(candidates, &mut changes, &allowance, building)?;
                }
                Candidate::Tracker { command, ticket } => {
                    self.decide_tracker(&command, ticket, &mut changes, &allowance, building)?;
                }
                Candidate::Consortium { command, ticket } => {
                    self.decide_consortium(&command, ticket, &allowance, building)?;
                }
                Candidate::Configure { settings, done } => {
                    let entry = self.tracker.configure(*settings, building.time);
                    building.answers.push(Answer::Configured(done));
                    if let Some(entry) = entry {
                        self.record(entry, building)?;
                    }
                }
                Candidate::Tick => {}
            }
            reads_on = !(is_of_book && allowance.is_used_up());
        }
        Ok(changes)
    }
}

/// What is told of a request to the tracker that nothing was decided on, because history could not be
/// read.
fn undecided(error: &StoreError) -> tracker::Refusal {
    tracing::warn!(%error, "a request to the tracker was not decided");
    if error.is_transient() {
        let why = "the log could not be read, and nothing was done: try again";
        return tracker::Refusal::new(tracker::Code::RateLimited, why);
    }
    tracker::Refusal::internal("the log could not be read")
}

/// The TRANSFER that a payout makes, signed by the key that holds the tracker's tokens.
fn sign_payout(plan: &PayoutPlan, holder: &SigningKey) -> Result<Transaction, DraftError> {
    let mut draft = Draft::transfer(plan.token()).metadata(plan.metadata());
    for output in plan.inputs() {
        draft = draft.spend(output, holder);
    }
    draft = draft.output(plan.amount(), plan.pay_to());
    if plan.change() > 0 {
        draft = draft.output(plan.change(), holder);
    }
    draft.sign(&[holder])
}

/// What a refusal is worth if the view did not tell everything: `None` when the transaction was not
/// decided at all and its sender is to try again.
pub(crate) fn unread(
    rejection: Rejection,
    view: &CommittedView<'_>,
    id: &TransactionId,
) -> Option<Rejection> {
    match view.withheld() {
        None => Some(rejection),
        Some(Withheld::TooMuch) => Some(too_long_to_say()),
        Some(why) => {
            put_off(id, &why);
            None
        }
    }
}

/// The refusal of a transaction whose history is not read to name the rule that it breaks. It is refused for
/// certain, because no decision that depends on history ends in this.
fn too_long_to_say() -> Rejection {
    Rejection::new(
        RejectionClass::ValidationError,
        "what its inputs spend is too long to say which rule is broken",
    )
}

fn put_off(id: &TransactionId, why: &Withheld) {
    tracing::warn!(%id, %why, "a transaction was not decided now");
    metrics::counter!("daybook_transactions_put_off_total").increment(1);
}

/// Whether a decision on it depends on history, and not only the name of its refusal.
pub(crate) fn depends_on_history(transaction: &Transaction) -> bool {
    transaction.operation() == Operation::Decompose
}

impl Machine for LedgerMachine {
    type Transaction = Candidate;
    type Block = Built;

    fn build(&mut self, candidates: &mut VecDeque<Candidate>) -> Option<Built> {
        self.forget_published();
        let mut building = Building {
            height: self.parent.height.next(),
            time: self.parent.time_of_next(self.clock.now()),
            entries: Vec::with_capacity(candidates.len()),
            answers: Vec::with_capacity(candidates.len()),
            refused: Vec::new(),
            repeated: Vec::new(),
        };
        let Ok(changes) = self.decide(candidates, &mut building) else {
            // The node has failed: the answers are dropped, which tells their submitters, and the
            // committer takes no more.
            candidates.clear();
            return Some(Built {
                block: None,
                changes: Arc::default(),
                answers: Vec::new(),
            });
        };
        let is_left = !self.undecided.is_empty();
        self.shared.has_undecided.store(is_left, Ordering::Relaxed);
        let rejected = self.refuse(&mut building);
        self.answer_repeated(&mut building);
        let Building {
            time,
            entries,
            answers,
            ..
        } = building;
        let changes = Arc::new(changes);
        let block = (!entries.is_empty() || !rejected.is_empty()).then(|| {
            let block = Block::seal(&self.parent, time, entries, &self.proposer);
            self.parent = block.as_parent();
            let block = Arc::new(StoredBlock { block, rejected });
            let in_flight = InFlight {
                block: block.clone(),
                changes: changes.clone(),
            };
            self.in_flight.push_back(in_flight);
            block
        });
        (block.is_some() || !answers.is_empty()).then_some(Built {
            block,
            changes,
            answers,
        })
    }

    fn commit(&mut self, built: Built, overlap: bool) -> Result<(), Halted> {
        self.committer.commit(built, overlap)
    }
}
