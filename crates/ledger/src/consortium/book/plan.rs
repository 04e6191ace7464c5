//! What follows from a request or from time: worked out beside the book, so that deciding changes
//! nothing and recording does the same again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Book, Ledger, NETWORK, Opened, Pending, Seat, Slot};
use crate::{
    BlockTime, TransactionId,
    consortium::{
        command::{Action, Admission, Body, Command, Policy, Propose, Settings},
        container::shortened,
        did::Did,
        entry::{Effect, Entry},
        instant::time_text,
        limits::{GROUP_MIN, MEMBERS_MAX},
        member::{Card, Member},
        refusal::{Code, Refusal},
        state::{State, agreed},
        tree::{Frontier, TreeHash},
    },
};

/// A book with changes on top.
pub(super) struct Plan<'b> {
    book: &'b Book,
    /// The id of the entry that all this follows from.
    own: TransactionId,
    at: BlockTime,
    effects: Vec<Effect>,
    changes: Changes,
    /// The entry's own proposal, as long as its entry is not made.
    newcomer: Option<Newcomer>,
    /// Proposals that may have come to their turn, by number.
    ready: BTreeSet<(u64, TransactionId)>,
    next_ledger: u64,
}

/// What is new in a book.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) settings: Option<Settings>,
    pub(super) members: BTreeMap<Did, Member>,
    pub(super) slots: BTreeMap<Arc<str>, Slot>,
    pub(super) proposals: BTreeMap<TransactionId, Option<Pending>>,
}

/// A proposal without its entry.
struct Newcomer {
    number: u64,
    propose: Propose,
    opened: Option<Opened>,
    endorsed: BTreeSet<Did>,
    /// Whether it was committed at once.
    closed: bool,
}

impl<'b> Plan<'b> {
    pub(super) fn new(book: &'b Book, own: TransactionId, at: BlockTime) -> Plan<'b> {
        Plan {
            book,
            own,
            at,
            effects: Vec::new(),
            changes: Changes::default(),
            newcomer: None,
            ready: BTreeSet::new(),
            next_ledger: book.next_ledger,
        }
    }

    pub(super) fn into_effects(self) -> Vec<Effect> {
        self.effects
    }

    /// The effects, and the changes when `entry` is what they follow from.
    pub(super) fn into_parts(mut self, entry: &Entry) -> (Vec<Effect>, Changes) {
        if let Some(newcomer) = self.newcomer.filter(|newcomer| !newcomer.closed) {
            let pending = Pending {
                number: newcomer.number,
                entry: entry.clone(),
                bytes: entry.text().len(),
                opened: newcomer.opened,
                endorsed: newcomer.endorsed,
                refused: BTreeSet::new(),
            };
            self.changes.proposals.insert(self.own, Some(pending));
        }
        (self.effects, self.changes)
    }

    /// What a request does, which was checked.
    pub(super) fn follow(&mut self, command: &Command) {
        match command.body() {
            Body::Found { members, settings } => {
                self.changes.settings = Some(settings.clone());
                for card in members {
                    self.admit(card);
                }
            }
            Body::Admit { card } => self.admit(card),
            Body::Announce { card } => {
                if let Some(member) = self.member(card.did()) {
                    let mut member = member.clone();
                    member.update(card.clone());
                    self.changes.members.insert(card.did(), member);
                }
            }
            Body::Propose(propose) => self.propose(propose),
            Body::Endorse {
                member, proposal, ..
            } => {
                if let Some(pending) = self.pending_mut(proposal) {
                    pending.endorsed.insert(*member);
                    if pending.is_satisfied() {
                        self.commit(*proposal);
                    }
                }
            }
            Body::Refuse {
                member, proposal, ..
            } => {
                if let Some(pending) = self.pending_mut(proposal) {
                    pending.refused.insert(*member);
                    if pending.is_hopeless() {
                        let by = pending.refused.iter().copied().collect();
                        let proposal = *proposal;
                        self.close(Effect::Refused { proposal, by });
                    }
                }
            }
            Body::Withdraw { proposal, .. } => self.close(Effect::Withdrawn {
                proposal: *proposal,
            }),
        }
    }

    /// Closes what is past its deadline, up to `count` proposals, the oldest deadline first.
    pub(super) fn expire(&mut self, count: usize) {
        let (book, at) = (self.book, self.at);
        let due = book.deadlines.iter();
        let due = due.take_while(|(deadline, ..)| *deadline <= at).take(count);
        for (_, _, id) in due {
            if let Some(pending) = book.proposals.get(id) {
                self.close(Effect::Expired {
                    proposal: *id,
                    was_open: pending.opened.is_some(),
                    missing: pending.missing(),
                });
            }
        }
    }

    /// Opens whatever came to its turn, oldest first. What is past its deadline waits for its expiry.
    pub(super) fn settle(&mut self) {
        while let Some((_, id)) = self.ready.pop_first() {
            let Some(propose) = self.waiting(&id).cloned() else {
                continue;
            };
            let turn = slots_of(&propose.action).all(|name| {
                self.slot(name)
                    .is_some_and(|slot| slot.queue.front() == Some(&id))
            });
            if turn && propose.deadline > self.at {
                self.open(id, &propose);
            }
        }
    }

    fn admit(&mut self, card: &Card) {
        let member = Member::new(card.clone());
        self.changes.members.insert(card.did(), member);
    }

    fn propose(&mut self, propose: &Propose) {
        let number = self.book.next_proposal;
        let mut behind = 0;
        for name in slots_of(&propose.action) {
            let own = self.own;
            let queue = &mut self.slot_mut(name).queue;
            behind = behind.max(queue.len() as u64);
            queue.push_back(own);
        }
        self.newcomer = Some(Newcomer {
            number,
            propose: propose.clone(),
            opened: None,
            endorsed: BTreeSet::from([propose.member]),
            closed: false,
        });
        if behind == 0 {
            self.ready.insert((number, self.own));
        } else {
            self.effects.push(Effect::Queued { behind });
        }
    }

    /// Asks the members about a proposal, or drops it when it is no longer possible.
    fn open(&mut self, id: TransactionId, propose: &Propose) {
        let proposal = (id != self.own).then_some(id);
        let seats = match (self.possible(propose), proposal) {
            (Ok(seats), _) => seats,
            (Err(refusal), Some(proposal)) => {
                self.close(Effect::Dropped {
                    proposal,
                    code: refusal.code,
                    detail: refusal.detail,
                });
                return;
            }
            (Err(_), None) => unreachable!("what is proposed is checked before"),
        };
        let (states, after) = self.growth(propose);
        let opened = Opened {
            at: self.at,
            agreed: agreed(&states),
            seats: seats.into(),
            states: states.into(),
            after: after.into(),
        };
        self.effects.push(Effect::Opened {
            proposal,
            agreed: opened.agreed,
        });
        let satisfied = match (&mut self.newcomer, proposal) {
            (Some(newcomer), None) => {
                let seats = Arc::clone(&opened.seats);
                newcomer.opened = Some(opened);
                seats
                    .iter()
                    .all(|seat| seat.count(&newcomer.endorsed) >= seat.needed)
            }
            _ => {
                let pending = self.pending_mut(&id).expect("it waits for its turn");
                pending.opened = Some(opened);
                pending.is_satisfied()
            }
        };
        if satisfied {
            self.commit(id);
        }
    }

    /// Carries out what was agreed to.
    fn commit(&mut self, id: TransactionId) {
        let proposal = (id != self.own).then_some(id);
        let (propose, opened, endorsed) = match (&self.newcomer, proposal) {
            (Some(newcomer), None) => (
                newcomer.propose.clone(),
                newcomer.opened.clone(),
                newcomer.endorsed.clone(),
            ),
            _ => {
                let pending = self.pending(&id).expect("only what is open is agreed to");
                (
                    pending.propose().clone(),
                    pending.opened.clone(),
                    pending.endorsed.clone(),
                )
            }
        };
        let opened = opened.expect("only what is open is agreed to");
        if let Action::Admit { card } = &propose.action {
            // Since it was opened, a member may have taken the newcomer's key for its own.
            if let Err(refusal) = self.admissible(card) {
                self.close(Effect::Dropped {
                    proposal: id,
                    code: refusal.code,
                    detail: refusal.detail,
                });
                return;
            }
        }
        let at = self.at;
        for (state, after) in opened.states.iter().zip(opened.after.iter()) {
            let next = self.next_ledger.saturating_add(1);
            let slot = self.slot_mut(&state.name);
            let ledger = match (&slot.ledger, &propose.action) {
                (
                    Some(ledger),
                    Action::Regroup {
                        participants,
                        policy,
                        ..
                    },
                ) => Ledger {
                    participants: participants.clone(),
                    policy: *policy,
                    ..Ledger::clone(ledger)
                },
                (Some(ledger), _) => Ledger {
                    frontier: after.clone(),
                    changed: at,
                    ..Ledger::clone(ledger)
                },
                (
                    None,
                    Action::Create {
                        participants,
                        policy,
                        ..
                    },
                ) => {
                    let ledger = Ledger {
                        name: state.name.as_str().into(),
                        number: next,
                        created: at,
                        creator: propose.member,
                        participants: participants.clone(),
                        policy: *policy,
                        frontier: after.clone(),
                        changed: at,
                    };
                    slot.ledger = Some(Arc::new(ledger));
                    self.next_ledger = next;
                    continue;
                }
                (None, _) => unreachable!("a ledger that exists is never taken away"),
            };
            slot.ledger = Some(Arc::new(ledger));
        }
        match &propose.action {
            Action::Admit { card } => self.admit(card),
            Action::Remove { subject } => {
                if let Some(member) = self.member(*subject) {
                    let member = Member {
                        active: false,
                        ..member.clone()
                    };
                    self.changes.members.insert(*subject, member);
                }
            }
            Action::Create { .. } | Action::Append { .. } | Action::Regroup { .. } => {}
        }
        let others = endorsed.into_iter().filter(|did| *did != propose.member);
        self.close(Effect::Committed {
            proposal,
            opened: opened.at,
            endorsers: [propose.member].into_iter().chain(others).collect(),
            states: opened.states.to_vec(),
        });
    }

    /// Takes a proposal away; those behind it may come to their turn.
    fn close(&mut self, effect: Effect) {
        let id = effect.proposal().unwrap_or(self.own);
        let action = match &mut self.newcomer {
            Some(newcomer) if id == self.own => {
                newcomer.closed = true;
                newcomer.propose.action.clone()
            }
            _ => {
                let pending = self.pending(&id).expect("only what is pending is closed");
                pending.propose().action.clone()
            }
        };
        self.effects.push(effect);
        for name in slots_of(&action) {
            let queue = &mut self.slot_mut(name).queue;
            queue.retain(|waiting| *waiting != id);
            if let Some(next) = queue.front().copied()
                && let Some(number) = self.pending(&next).map(|pending| pending.number)
            {
                self.ready.insert((number, next));
            }
        }
        if id != self.own {
            self.changes.proposals.insert(id, None);
        }
    }

    /// Whether something can be proposed, and who is to be asked.
    ///
    /// # Errors
    /// Why it is not possible, or no longer.
    pub(super) fn possible(&self, propose: &Propose) -> Result<Vec<Seat>, Refusal> {
        let proposer = propose.member;
        self.active(proposer)?;
        match &propose.action {
            Action::Create {
                ledgers,
                participants,
                policy,
                ..
            } => {
                participants
                    .iter()
                    .try_for_each(|did| self.active(*did).map(drop))?;
                if !participants.contains(&proposer) {
                    return Err(Refusal::new(
                        Code::BadGroup,
                        format!("the proposer {proposer} is not among the participants"),
                    ));
                }
                if let Some(name) = ledgers.iter().find(|name| self.ledger(name).is_some()) {
                    return Err(exists(name));
                }
                Ok(ledgers
                    .iter()
                    .map(|name| Seat {
                        ledger: name.clone(),
                        participants: participants.clone(),
                        needed: policy.needed(participants.len()),
                    })
                    .collect())
            }
            Action::Append { ledgers, .. } => ledgers
                .iter()
                .map(|name| {
                    let (participants, policy) = self.group(name, proposer)?;
                    let needed = policy.needed(participants.len());
                    if participants.len() < needed.max(GROUP_MIN) {
                        return Err(Refusal::new(
                            Code::TooFewMembers,
                            format!(
                                "ledger \"{}\" needs {} members to agree, and {} are left",
                                shortened(name),
                                needed.max(GROUP_MIN),
                                participants.len()
                            ),
                        ));
                    }
                    Ok(Seat {
                        ledger: name.clone(),
                        participants,
                        needed,
                    })
                })
                .collect(),
            Action::Regroup {
                ledger,
                participants,
                policy,
            } => {
                let (present, rule) = self.group(ledger, proposer)?;
                participants
                    .iter()
                    .try_for_each(|did| self.active(*did).map(drop))?;
                let known = self.ledger(ledger).ok_or_else(|| unknown(ledger))?;
                if known.participants == *participants && known.policy == *policy {
                    return Err(Refusal::new(
                        Code::NothingToDo,
                        "the ledger has these participants and this policy",
                    ));
                }
                let newcomers: Vec<Did> = participants
                    .iter()
                    .filter(|did| !known.participants.contains(did))
                    .copied()
                    .collect();
                // When members were removed, those who are left can still put the ledger right.
                let needed = rule.needed(present.len()).min(present.len());
                Ok(vec![
                    Seat {
                        ledger: ledger.clone(),
                        participants: present,
                        needed,
                    },
                    Seat {
                        ledger: ledger.clone(),
                        needed: newcomers.len(),
                        participants: newcomers,
                    },
                ])
            }
            Action::Admit { card } => {
                if self.settings()?.admission != Admission::Members {
                    return Err(Refusal::new(
                        Code::NotAdmittedSo,
                        "in this network a validator admits members",
                    ));
                }
                self.admissible(card)?;
                let participants: Vec<Did> = self.active_members().collect();
                Ok(vec![Seat {
                    ledger: NETWORK.to_owned(),
                    needed: participants.len() / 2 + 1,
                    participants,
                }])
            }
            Action::Remove { subject } => {
                self.active(*subject)?;
                if *subject == proposer {
                    return Err(Refusal::new(
                        Code::BadGroup,
                        "a member is removed by the others",
                    ));
                }
                let others: Vec<Did> = self.active_members().filter(|did| did != subject).collect();
                if others.len() < GROUP_MIN {
                    return Err(Refusal::new(
                        Code::TooFewMembers,
                        format!("at least {GROUP_MIN} members must remain"),
                    ));
                }
                Ok(vec![Seat {
                    ledger: NETWORK.to_owned(),
                    needed: others.len(),
                    participants: others,
                }])
            }
        }
    }

    /// Whether somebody can become a member.
    pub(super) fn admissible(&self, card: &Card) -> Result<(), Refusal> {
        let did = card.did();
        if self.member(did).is_some() {
            return Err(Refusal::new(
                Code::MemberExists,
                format!("{did} is a member, or was one"),
            ));
        }
        if card.revision() != 0 {
            return Err(Refusal::new(
                Code::WrongRevision,
                "a member begins with its first card",
            ));
        }
        self.free_key(card)?;
        let newcomers = self.changes.members.keys();
        let newcomers = newcomers
            .filter(|did| !self.book.members.contains_key(did))
            .count();
        if self.book.members.len().saturating_add(newcomers) >= MEMBERS_MAX {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("a network has at most {MEMBERS_MAX} members"),
            ));
        }
        Ok(())
    }

    /// Whether the key of a card is nobody's yet.
    pub(super) fn free_key(&self, card: &Card) -> Result<(), Refusal> {
        let key = card.verkey();
        let changed = self.changes.members.values();
        let taken = self.book.keys.contains_key(&key)
            || changed.into_iter().any(|member| member.keys.contains(&key));
        if taken {
            return Err(Refusal::new(
                Code::KeyInUse,
                format!("{key} is or was a member's key"),
            ));
        }
        Ok(())
    }

    /// A member who takes part.
    ///
    /// # Errors
    /// [`Code::UnknownMember`].
    pub(super) fn active(&self, did: Did) -> Result<&Member, Refusal> {
        let unknown = |what: &str| Refusal::new(Code::UnknownMember, format!("{did} {what}"));
        match self.member(did) {
            Some(member) if member.active => Ok(member),
            Some(_) => Err(unknown("was removed from the network")),
            None => Err(unknown("is no member of the network")),
        }
    }

    pub(super) fn settings(&self) -> Result<&Settings, Refusal> {
        let settings = self.changes.settings.as_ref().or(self.book.settings());
        settings.ok_or_else(|| {
            Refusal::new(
                Code::NotFounded,
                "the network has no members yet: found it first",
            )
        })
    }

    /// Who of a ledger's participants is left, and its policy.
    fn group(&self, name: &str, proposer: Did) -> Result<(Vec<Did>, Policy), Refusal> {
        let ledger = self.ledger(name).ok_or_else(|| unknown(name))?;
        if !ledger.participants.contains(&proposer) {
            return Err(Refusal::new(
                Code::ForeignProposer,
                format!("{proposer} takes no part in ledger \"{}\"", shortened(name)),
            ));
        }
        let participants = ledger.participants.iter().copied();
        let active = participants
            .filter(|did| self.active(*did).is_ok())
            .collect();
        Ok((active, ledger.policy))
    }

    /// The ledgers of a proposal before and after it, by name.
    fn growth(&self, propose: &Propose) -> (Vec<State>, Vec<Frontier>) {
        growth(propose, self.at, |name| {
            let ledger = self.ledger(name);
            ledger.map_or_else(Frontier::new, |ledger| ledger.frontier.clone())
        })
    }

    fn member(&self, did: Did) -> Option<&Member> {
        let changed = self.changes.members.get(&did);
        changed.or_else(|| self.book.members.get(&did).map(|member| &**member))
    }

    fn active_members(&self) -> impl Iterator<Item = Did> {
        let mut dids: BTreeSet<Did> = self.book.members.keys().copied().collect();
        dids.extend(self.changes.members.keys());
        dids.into_iter().filter(|did| self.active(*did).is_ok())
    }

    fn ledger(&self, name: &str) -> Option<&Ledger> {
        self.slot(name)?.ledger.as_deref()
    }

    pub(super) fn slot(&self, name: &str) -> Option<&Slot> {
        self.changes
            .slots
            .get(name)
            .or_else(|| self.book.slots.get(name))
    }

    fn slot_mut(&mut self, name: &str) -> &mut Slot {
        if !self.changes.slots.contains_key(name) {
            let known = self.book.slots.get_key_value(name);
            let (name, slot) = known.map_or_else(
                || (Arc::from(name), Slot::default()),
                |(name, slot)| (Arc::clone(name), slot.clone()),
            );
            self.changes.slots.insert(name, slot);
        }
        self.changes
            .slots
            .get_mut(name)
            .expect("it was just put there")
    }

    fn pending(&self, id: &TransactionId) -> Option<&Pending> {
        match self.changes.proposals.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.book.proposals.get(id).map(|pending| &**pending),
        }
    }

    fn pending_mut(&mut self, id: &TransactionId) -> Option<&mut Pending> {
        if !self.changes.proposals.contains_key(id) {
            let pending = Pending::clone(self.book.proposals.get(id)?);
            self.changes.proposals.insert(*id, Some(pending));
        }
        self.changes.proposals.get_mut(id)?.as_mut()
    }

    /// A proposal that was not opened yet.
    fn waiting(&self, id: &TransactionId) -> Option<&Propose> {
        match &self.newcomer {
            Some(newcomer) if *id == self.own => {
                (newcomer.opened.is_none() && !newcomer.closed).then_some(&newcomer.propose)
            }
            _ => {
                let pending = self.pending(id)?;
                pending.opened.is_none().then(|| pending.propose())
            }
        }
    }
}

/// The names of the slots in which a proposal queues.
pub(super) fn slots_of(action: &Action) -> impl Iterator<Item = &str> {
    let network = action.ledgers().is_empty().then_some(NETWORK);
    action.ledgers().iter().map(String::as_str).chain(network)
}

/// What a proposal that is opened at `at` makes of its ledgers, which are `before` now.
pub(in crate::consortium) fn growth(
    propose: &Propose,
    at: BlockTime,
    before: impl Fn(&str) -> Frontier,
) -> (Vec<State>, Vec<Frontier>) {
    let time = match propose.action {
        Action::Append { .. } => Some(time_text(at)),
        _ => None,
    };
    let entries = propose
        .action
        .batch()
        .map_or(&[][..], |batch| batch.entries());
    let mut names: Vec<&String> = propose.action.ledgers().iter().collect();
    names.sort_unstable();
    names
        .into_iter()
        .map(|name| {
            let before = before(name);
            let mut after = before.clone();
            for entry in entries {
                let sequence = after.size().saturating_add(1);
                after.push(TreeHash::leaf(entry.committed(sequence, time.as_deref())));
            }
            let state = State {
                name: name.clone(),
                root: before.root(),
                size: before.size(),
                uncommitted_root: after.root(),
                uncommitted_size: after.size(),
            };
            (state, after)
        })
        .unzip()
}

pub(super) fn exists(name: &str) -> Refusal {
    Refusal::new(
        Code::LedgerExists,
        format!(
            "there is a ledger \"{}\"; it was not touched",
            shortened(name)
        ),
    )
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(
        Code::UnknownLedger,
        format!("there is no ledger \"{}\"", shortened(name)),
    )
}
