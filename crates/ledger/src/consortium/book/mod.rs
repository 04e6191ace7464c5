//! The state of a network: members, ledgers, proposals; and the only two ways to ask it for more:
//! decide, which reads, and record, which cannot be refused.

mod audit;
mod decide;
mod plan;
mod read;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    command::{Command, Policy, Propose, Settings},
    did::Did,
    entry::{Effect, Entry, IndexKey, request_key},
    member::Member,
    refusal::{Refusal, Violation},
    state::State,
    tree::{Frontier, TreeHash},
};
use crate::{BlockTime, Height, PublicKey, TransactionId};
use plan::{Changes, Plan};

pub(super) use plan::growth;
pub(super) use read::numbered;
pub use read::{Asked, Outcome, Progress, ProposalStatus, committed_with};

/// Entries of blocks that are on disk, found by their keys: memory holds only what is open.
pub trait History {
    /// The newest committed entry that has `key`.
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>>;
}

/// What a request would do.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is to be recorded.
    Entry(Entry),
    /// It repeats what was recorded before: nothing is written, and this is the entry of the first time.
    Repeat(Arc<Entry>),
}

/// The book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    settings: Option<Settings>,
    members: BTreeMap<Did, Arc<Member>>,
    /// Whose every key is or was.
    keys: BTreeMap<PublicKey, Did>,
    /// Everything that proposals queue for, by name; the network's own members under [`NETWORK`].
    slots: BTreeMap<Arc<str>, Slot>,
    /// Ledgers in the order in which they were created.
    created: BTreeMap<u64, Arc<str>>,
    /// The numbers of the ledgers in which a member takes part.
    shares: BTreeMap<Did, BTreeSet<u64>>,
    proposals: BTreeMap<TransactionId, Arc<Pending>>,
    deadlines: BTreeSet<(BlockTime, u64, TransactionId)>,
    /// What the proposals of each member take of memory.
    load: BTreeMap<Did, Load>,
    total: Load,
    /// The number of the next proposal.
    next_proposal: u64,
    /// The number of the next ledger.
    next_ledger: u64,
    /// Proposals by their proposers' names for them, until history tells.
    requests: BTreeMap<[u8; 32], Entry>,
    /// What became of proposals, until history tells.
    closed: BTreeMap<TransactionId, Entry>,
    /// What of the two above belongs to which block.
    marks: BTreeMap<Height, Vec<Mark>>,
}

/// The slot in which proposals about the network's members queue. No ledger has this name.
const NETWORK: &str = "";

/// A ledger, or the room for one, and the proposals for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    ledger: Option<Arc<Ledger>>,
    /// In the order in which they came; the first may be open.
    queue: VecDeque<TransactionId>,
}

/// A ledger, but for its entries, which history holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Its name.
    pub name: Arc<str>,
    /// Its number among all ledgers of the network, from 1.
    pub number: u64,
    /// When it was created.
    pub created: BlockTime,
    /// Who proposed it.
    pub creator: Did,
    /// Who shares it, in the order in which they were named.
    pub participants: Vec<Did>,
    /// How many of them must agree.
    pub policy: Policy,
    /// The Merkle tree of its entries.
    pub frontier: Frontier,
    /// When its newest entries were committed.
    pub changed: BlockTime,
}

/// A proposal that is open or waits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    /// Its place among all proposals.
    number: u64,
    entry: Entry,
    /// What it counts towards the limits.
    bytes: usize,
    opened: Option<Opened>,
    /// Who agreed, the proposer included.
    endorsed: BTreeSet<Did>,
    refused: BTreeSet<Did>,
}

/// What members are asked about an open proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opened {
    at: BlockTime,
    agreed: TreeHash,
    seats: Arc<[Seat]>,
    /// Its ledgers before and after, by name.
    states: Arc<[State]>,
    /// The trees after, in the same order.
    after: Arc<[Frontier]>,
}

/// Those who are asked for one ledger, and how many of them must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The ledger; empty for the network itself.
    pub ledger: String,
    /// Who is asked. Fixed when the proposal was opened.
    pub participants: Vec<Did>,
    /// How many must agree.
    pub needed: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    proposals: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Request([u8; 32]),
    Closed(TransactionId),
}

impl Pending {
    fn propose(&self) -> &Propose {
        self.entry
            .propose()
            .expect("only entries with a proposal become pending")
    }

    fn is_satisfied(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| {
            opened
                .seats
                .iter()
                .all(|seat| seat.count(&self.endorsed) >= seat.needed)
        })
    }

    fn is_hopeless(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| {
            opened.seats.iter().any(|seat| {
                let willing = seat
                    .participants
                    .len()
                    .saturating_sub(seat.count(&self.refused));
                willing < seat.needed
            })
        })
    }

    /// Who is asked and has said nothing.
    fn missing(&self) -> Vec<Did> {
        let seats = self.opened.as_ref().map_or(&[][..], |opened| &opened.seats);
        let asked: BTreeSet<Did> = seats
            .iter()
            .flat_map(|seat| seat.participants.iter().copied())
            .collect();
        let said = |did: &Did| self.endorsed.contains(did) || self.refused.contains(did);
        asked.into_iter().filter(|did| !said(did)).collect()
    }
}

impl Seat {
    fn count(&self, of: &BTreeSet<Did>) -> usize {
        self.participants
            .iter()
            .filter(|did| of.contains(did))
            .count()
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.ledger.is_none() && self.queue.is_empty()
    }
}

impl Book {
    /// The network's rules; `None` until it is founded.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// What a request would do at block time `at`. Reads, and changes nothing.
    ///
    /// # Errors
    /// Why it may not be.
    pub fn decide(
        &self,
        command: &Command,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<Decision, Refusal> {
        if let Some(first) = self.repeated(command, history)? {
            return Ok(Decision::Repeat(Arc::new(first)));
        }
        self.check(command, at, history)?;
        // The entry's id depends on the effects and is not known before them.
        let effects = self.plan(UNKNOWN, Some(command), at, 0).into_effects();
        Ok(Decision::Entry(Entry::new(
            at,
            Some(command.clone()),
            effects,
        )))
    }

    /// The expiry of what is past its deadline at block time `at`, up to `proposals_max` proposals; to be
    /// recorded before the other entries of its block. `None` when there is nothing.
    pub fn due(&self, at: BlockTime, proposals_max: usize) -> Option<Entry> {
        if proposals_max == 0 || self.next_due().is_none_or(|due| due > at) {
            return None;
        }
        let effects = self.plan(UNKNOWN, None, at, proposals_max).into_effects();
        Some(Entry::new(at, None, effects))
    }

    /// The block time from which on [`Book::due`] gives something.
    pub fn next_due(&self) -> Option<BlockTime> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Takes an entry of the block at `height`: the only way in which the book changes. What was decided is
    /// checked again, as far as memory alone tells, and what follows is computed anew and compared with
    /// what the entry says.
    ///
    /// # Errors
    /// [`Violation`] when the entry does not follow from this book; the book is unchanged then.
    pub fn record(&mut self, entry: &Entry, height: Height) -> Result<(), Violation> {
        if let Some(command) = entry.command() {
            self.check(command, entry.at(), &Forgotten)
                .map_err(|refusal| {
                    Violation::new("decided", format!("{}: {refusal}", entry.id()))
                })?;
        }
        let plan = self.plan(entry.id(), entry.command(), entry.at(), expired_in(entry));
        let (effects, changes) = plan.into_parts(entry);
        if effects != entry.effects() {
            return Err(Violation::new(
                "effects",
                format!("{entry:?} does not follow from the book: expected {effects:?}"),
            ));
        }
        self.install(changes);
        for effect in effects {
            if effect.is_final() {
                let proposal = effect.proposal().unwrap_or(entry.id());
                self.closed.insert(proposal, entry.clone());
                self.mark(height, Mark::Closed(proposal));
            }
        }
        if let Some(propose) = entry.propose() {
            let key = request_key(propose.member, &propose.request);
            self.requests.insert(key, entry.clone());
            self.mark(height, Mark::Request(key));
        }
        Ok(())
    }

    /// Drops what readers of `History` can find in the blocks through `through`.
    pub fn forget(&mut self, through: Height) {
        let kept = self.marks.split_off(&through.next());
        let seen = std::mem::replace(&mut self.marks, kept);
        for mark in seen.into_values().flatten() {
            match mark {
                Mark::Request(key) => drop(self.requests.remove(&key)),
                Mark::Closed(proposal) => drop(self.closed.remove(&proposal)),
            }
        }
    }

    fn mark(&mut self, height: Height, mark: Mark) {
        self.marks.entry(height).or_default().push(mark);
    }

    fn plan(
        &self,
        own: TransactionId,
        command: Option<&Command>,
        at: BlockTime,
        expired_max: usize,
    ) -> Plan<'_> {
        let mut plan = Plan::new(self, own, at);
        match command {
            Some(command) => plan.follow(command),
            None => plan.expire(expired_max),
        }
        plan.settle();
        plan
    }

    fn install(&mut self, changes: Changes) {
        if let Some(settings) = changes.settings {
            self.settings = Some(settings);
        }
        for (did, member) in changes.members {
            for key in &member.keys {
                self.keys.insert(*key, did);
            }
            self.members.insert(did, Arc::new(member));
        }
        for (id, pending) in changes.proposals {
            if let Some(old) = self.proposals.remove(&id) {
                self.deadlines
                    .remove(&(old.propose().deadline, old.number, id));
                self.unload(&old);
            }
            if let Some(new) = pending {
                self.deadlines
                    .insert((new.propose().deadline, new.number, id));
                self.next_proposal = self.next_proposal.max(new.number.saturating_add(1));
                self.load(&new);
                self.proposals.insert(id, Arc::new(new));
            }
        }
        for (name, slot) in changes.slots {
            let old = self.slots.remove(&name).and_then(|slot| slot.ledger);
            if let Some(ledger) = &slot.ledger {
                self.share(old.as_deref(), ledger);
            }
            if !slot.is_empty() {
                self.slots.insert(name, slot);
            }
        }
    }

    /// Notes who takes part in a ledger that changed.
    fn share(&mut self, old: Option<&Ledger>, new: &Ledger) {
        if old.is_some_and(|old| old.participants == new.participants) {
            return;
        }
        for did in old.map_or(&[][..], |old| &old.participants) {
            if let Some(numbers) = self.shares.get_mut(did) {
                numbers.remove(&new.number);
                if numbers.is_empty() {
                    self.shares.remove(did);
                }
            }
        }
        for did in &new.participants {
            self.shares.entry(*did).or_default().insert(new.number);
        }
        self.created.insert(new.number, Arc::clone(&new.name));
        self.next_ledger = self.next_ledger.max(new.number);
    }

    fn load(&mut self, pending: &Pending) {
        let load = self.load.entry(pending.propose().member).or_default();
        for load in [load, &mut self.total] {
            load.proposals = load.proposals.saturating_add(1);
            load.bytes = load.bytes.saturating_add(pending.bytes);
        }
    }

    fn unload(&mut self, pending: &Pending) {
        let member = pending.propose().member;
        let load = self.load.entry(member).or_default();
        for load in [load, &mut self.total] {
            load.proposals = load.proposals.saturating_sub(1);
            load.bytes = load.bytes.saturating_sub(pending.bytes);
        }
        if self.load.get(&member) == Some(&Load::default()) {
            self.load.remove(&member);
        }
    }
}

/// The newest entry of history under a key. Entries are shared already.
pub(super) fn newest(history: &dyn History, key: IndexKey<'_>) -> Option<Entry> {
    history.newest(key).map(|entry| Entry::clone(&entry))
}

/// A history that tells nothing.
struct Forgotten;

impl History for Forgotten {
    fn newest(&self, _: IndexKey<'_>) -> Option<Arc<Entry>> {
        None
    }
}

/// How many proposals an entry lets expire.
fn expired_in(entry: &Entry) -> usize {
    let expired = |effect: &&Effect| matches!(effect, Effect::Expired { .. });
    entry.effects().iter().filter(expired).count()
}

/// Stands for the id of an entry that is not made yet. Nothing orders by ids, so it changes nothing.
const UNKNOWN: TransactionId = TransactionId([0; 32]);
