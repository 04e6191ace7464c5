//! What others read of a book.

use super::{
    Book, Decision, History, Ledger, Opened, Pending, Seat, expired_in, newest, plan::slots_of,
};
use crate::{
    BlockTime, PublicKey, TransactionId,
    consortium::{
        command::EntryText,
        did::Did,
        entry::{Effect, Entry, IndexKey, request_key},
        instant::time_text,
        member::Member,
        prove::Prover,
        refusal::Violation,
        state::State,
        tree::TreeHash,
    },
};

/// How far a proposal has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The proposal.
    pub entry: Entry,
    /// Whether it is its turn.
    pub status: ProposalStatus,
    /// Who agreed: the proposer first, the others by DID.
    pub endorsed: Vec<Did>,
    /// Who refused.
    pub refused: Vec<Did>,
    /// Who is asked and has said nothing yet.
    pub missing: Vec<Did>,
}

/// Whether it is a proposal's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalStatus {
    /// It waits.
    Waiting {
        /// How many proposals stand before it, in the longest of its queues.
        behind: usize,
    },
    /// Members are asked.
    Open {
        /// Since when.
        since: BlockTime,
        /// Who, and how many must agree.
        seats: Vec<Seat>,
    },
}

/// What a member is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The proposal.
    pub entry: Entry,
    /// Since when it is open: the `txnTime` of appended entries.
    pub since: BlockTime,
    /// What an endorsement names.
    pub agreed: TreeHash,
    /// The ledgers before and after, by name.
    pub states: Vec<State>,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Pending(Progress),
    /// It is decided; [`Entry::outcome_of`] tells how.
    Decided(Entry),
}

impl Book {
    /// A member, present or removed.
    pub fn member(&self, did: Did) -> Option<&Member> {
        self.members.get(&did).map(|member| &**member)
    }

    /// All members, present and removed, by DID.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|member| &**member)
    }

    /// Whose key this is or was.
    pub fn owner(&self, key: &PublicKey) -> Option<&Member> {
        self.member(*self.keys.get(key)?)
    }

    /// A ledger.
    pub fn ledger(&self, name: &str) -> Option<&Ledger> {
        self.slots.get(name)?.ledger.as_deref()
    }

    /// A ledger by its number.
    pub fn ledger_numbered(&self, number: u64) -> Option<&Ledger> {
        self.ledger(self.created.get(&number)?)
    }

    /// All ledgers, the newest first.
    pub fn ledgers(&self) -> impl Iterator<Item = &Ledger> {
        self.created
            .values()
            .rev()
            .filter_map(|name| self.ledger(name))
    }

    /// The ledgers in which a member takes part, the newest first.
    pub fn ledgers_of(&self, did: Did) -> impl Iterator<Item = &Ledger> {
        let numbers = self.shares.get(&did).into_iter().flatten().rev();
        numbers.filter_map(|number| self.ledger_numbered(*number))
    }

    /// The ledgers with numbers below `before`, the newest first: all, or those of a member. Where a page
    /// begins costs nothing.
    pub fn ledgers_before(
        &self,
        member: Option<Did>,
        before: u64,
    ) -> Box<dyn Iterator<Item = &Ledger> + '_> {
        match member {
            None => {
                let names = self.created.range(..before).rev();
                Box::new(names.filter_map(|(_, name)| self.ledger(name)))
            }
            Some(did) => {
                let numbers = self.shares.get(&did).into_iter();
                let numbers = numbers.flat_map(move |numbers| numbers.range(..before).rev());
                Box::new(numbers.filter_map(|number| self.ledger_numbered(*number)))
            }
        }
    }

    /// How many proposals wait for a ledger, the open one included.
    pub fn queue_len(&self, ledger: &str) -> usize {
        self.slots.get(ledger).map_or(0, |slot| slot.queue.len())
    }

    /// In how many ledgers a member takes part.
    pub fn ledger_count_of(&self, did: Did) -> usize {
        self.shares.get(&did).map_or(0, |numbers| numbers.len())
    }

    /// How many ledgers there are.
    pub fn ledger_count(&self) -> u64 {
        self.next_ledger
    }

    /// How many proposals are open or wait.
    pub fn pending_count(&self) -> usize {
        self.proposals.len()
    }

    /// The proposals for a ledger, in the order in which they came; those about the network's members
    /// for the empty name.
    pub fn queue(&self, ledger: &str) -> impl Iterator<Item = Progress> {
        let queue = self.slots.get(ledger).map(|slot| &slot.queue);
        queue
            .into_iter()
            .flatten()
            .filter_map(|id| self.progress(id))
    }

    /// How far a proposal has come; `None` when it is decided or was never made.
    pub fn progress(&self, proposal: &TransactionId) -> Option<Progress> {
        let pending = self.proposals.get(proposal)?;
        let propose = pending.propose();
        let status = match &pending.opened {
            Some(Opened { at, seats, .. }) => ProposalStatus::Open {
                since: *at,
                seats: seats.to_vec(),
            },
            None => ProposalStatus::Waiting {
                behind: slots_of(&propose.action)
                    .filter_map(|name| self.slots.get(name))
                    .filter_map(|slot| slot.queue.iter().position(|id| id == proposal))
                    .max()
                    .unwrap_or(0),
            },
        };
        let others = pending
            .endorsed
            .iter()
            .filter(|did| **did != propose.member);
        Some(Progress {
            entry: pending.entry.clone(),
            status,
            endorsed: [&propose.member]
                .into_iter()
                .chain(others)
                .copied()
                .collect(),
            refused: pending.refused.iter().copied().collect(),
            missing: pending.missing(),
        })
    }

    /// What a member is asked about a proposal; `None` when it need not answer (any more).
    pub fn asked(&self, proposal: &TransactionId, member: Did) -> Option<Asked> {
        asked(self.proposals.get(proposal)?, member)
    }

    /// Everything that a member is asked, the oldest proposal first: where an endorser begins that
    /// starts again. Looks at all proposals.
    pub fn questions(&self, member: Did) -> Vec<Asked> {
        let mut pending: Vec<&Pending> =
            self.proposals.values().map(|pending| &**pending).collect();
        pending.sort_unstable_by_key(|pending| pending.number);
        let asked = pending
            .into_iter()
            .filter_map(|pending| asked(pending, member));
        asked.collect()
    }

    /// The proposal that a member made under its own name for it.
    pub fn proposed(&self, member: Did, request: &str, history: &dyn History) -> Option<Entry> {
        let key = request_key(member, request);
        let recent = self.requests.get(&key).cloned();
        recent.or_else(|| newest(history, IndexKey::Request(key)))
    }

    /// What became of a proposal; `None` when there was none.
    pub fn outcome(&self, proposal: &TransactionId, history: &dyn History) -> Option<Outcome> {
        if let Some(progress) = self.progress(proposal) {
            return Some(Outcome::Pending(progress));
        }
        let recent = self.closed.get(proposal).cloned();
        let newest = recent.or_else(|| newest(history, IndexKey::Proposal(*proposal)))?;
        newest.outcome_of(proposal)?;
        Some(Outcome::Decided(newest))
    }

    /// Whether an entry from somebody else follows from this book: its request is proven and decided
    /// anew. Who takes nothing on trust asks this before [`Book::record`].
    ///
    /// # Errors
    /// [`Violation`] when it does not.
    pub fn verify(
        &self,
        entry: &Entry,
        prover: &mut Prover,
        history: &dyn History,
    ) -> Result<(), Violation> {
        let wrong = |detail: String| Violation::new("follows", detail);
        let expected = match entry.request() {
            Some(request) => {
                let command = prover
                    .prove(request)
                    .map_err(|refusal| wrong(format!("{}: {refusal}", entry.id())))?;
                match self.decide(&command, entry.at(), history) {
                    Ok(Decision::Entry(expected)) => expected,
                    Ok(Decision::Repeat(_)) => {
                        return Err(wrong(format!("{} repeats what was recorded", entry.id())));
                    }
                    Err(refusal) => return Err(wrong(format!("{}: {refusal}", entry.id()))),
                }
            }
            None => self
                .due(entry.at(), expired_in(entry))
                .ok_or_else(|| wrong(format!("{}: nothing is due", entry.id())))?,
        };
        if expected == *entry {
            Ok(())
        } else {
            Err(wrong(format!("{} has other effects", entry.id())))
        }
    }

    /// An entry of a ledger as it was committed (its canonical text with metadata), and the entry of
    /// the log that committed it.
    pub fn committed(
        &self,
        ledger: &str,
        sequence: u64,
        history: &dyn History,
    ) -> Option<(String, Entry)> {
        let commit = newest(history, IndexKey::Sequence(ledger, sequence))?;
        let text = committed_in(&commit, ledger, history)?
            .into_iter()
            .find(|(number, _)| *number == sequence)?
            .1;
        Some((text, commit))
    }
}

/// The entries of a ledger that were committed together with the one of a sequence number (canonical
/// texts with metadata), and the entry of the log that committed them. `None` when there is no such
/// entry, or history lacks it.
pub fn committed_with(
    ledger: &str,
    sequence: u64,
    history: &dyn History,
) -> Option<(Vec<(u64, String)>, Entry)> {
    let commit = newest(history, IndexKey::Sequence(ledger, sequence))?;
    let batch = committed_in(&commit, ledger, history)?;
    Some((batch, commit))
}

/// The entries of `ledger` that `commit` committed: sequence numbers and canonical texts.
pub(in crate::consortium) fn committed_in(
    commit: &Entry,
    ledger: &str,
    history: &dyn History,
) -> Option<Vec<(u64, String)>> {
    for effect in commit.effects() {
        let Effect::Committed {
            proposal,
            opened,
            states,
            ..
        } = effect
        else {
            continue;
        };
        let Some(state) = states.iter().find(|state| state.name == ledger) else {
            continue;
        };
        if state.size == state.uncommitted_size {
            continue;
        }
        let proposed = match proposal {
            Some(id) => newest(history, IndexKey::Proposed(*id))?,
            None => commit.clone(),
        };
        let propose = proposed.propose()?;
        let batch = propose.action.batch()?;
        let time = (propose.action.kind() == "append").then(|| time_text(*opened));
        return Some(numbered(batch.entries(), state.size, time.as_deref()));
    }
    None
}

/// Entries as they are committed after `size` others.
pub(in crate::consortium) fn numbered(
    entries: &[EntryText],
    size: u64,
    time: Option<&str>,
) -> Vec<(u64, String)> {
    let numbers = size.saturating_add(1)..;
    let numbered = numbers.zip(entries);
    numbered
        .map(|(number, entry)| (number, entry.committed(number, time)))
        .collect()
}

fn asked(pending: &Pending, member: Did) -> Option<Asked> {
    let opened = pending.opened.as_ref()?;
    let has_a_say = opened
        .seats
        .iter()
        .any(|seat| seat.participants.contains(&member));
    let said = pending.endorsed.contains(&member) || pending.refused.contains(&member);
    (has_a_say && !said).then(|| Asked {
        entry: pending.entry.clone(),
        since: opened.at,
        agreed: opened.agreed,
        states: opened.states.to_vec(),
    })
}
