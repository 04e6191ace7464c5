//! Whether a request may be.

use super::{
    Book, History, Pending, UNKNOWN, newest,
    plan::{Plan, exists, slots_of},
};
use crate::{
    BlockTime, TransactionId,
    consortium::{
        command::{Action, Admission, Body, Command, EntryText, Propose},
        container::shortened,
        did::Did,
        entry::{Entry, IndexKey},
        limits::*,
        member::Card,
        refusal::{Code, Refusal},
        signed::{ENTRY_SIGNATURE, ORIGIN_SIGNATURE},
        tree::TreeHash,
    },
    json::Object,
};

impl Book {
    /// The proposal of which `command` is a repetition.
    ///
    /// # Errors
    /// [`Code::RequestReused`] when the proposer gave the same name to something else.
    pub(super) fn repeated(
        &self,
        command: &Command,
        history: &dyn History,
    ) -> Result<Option<Entry>, Refusal> {
        let Body::Propose(propose) = command.body() else {
            return Ok(None);
        };
        // Nobody but the member has history read for its requests; why others are refused is told later.
        if self.speaks(command, propose.member).is_err() {
            return Ok(None);
        }
        let Some(first) = self.proposed(propose.member, &propose.request, history) else {
            return Ok(None);
        };
        match first.propose() {
            Some(known) if asks_the_same(known, propose) => Ok(Some(first)),
            _ => Err(Refusal::new(
                Code::RequestReused,
                format!(
                    "request \"{}\" was something else, proposal {}",
                    shortened(&propose.request),
                    first.id()
                ),
            )),
        }
    }

    /// Whether `command` may be at block time `at`.
    pub(super) fn check(
        &self,
        command: &Command,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<(), Refusal> {
        let plan = Plan::new(self, UNKNOWN, at);
        if let Body::Found { members, .. } = command.body() {
            return self.check_found(members);
        }
        plan.settings()?;
        if let Some(member) = command.member() {
            self.speaks(command, member)?;
        }
        match command.body() {
            Body::Found { .. } => Ok(()),
            Body::Admit { card } => {
                if plan.settings()?.admission != Admission::Validators {
                    return Err(Refusal::new(
                        Code::NotAdmittedSo,
                        "in this network the members admit members",
                    ));
                }
                plan.admissible(card)
            }
            Body::Announce { card } => self.check_announce(card, &plan),
            Body::Propose(propose) => self.check_propose(command, propose, at, &plan),
            Body::Endorse {
                member,
                proposal,
                agreed,
            } => {
                let pending = self.asked_about(*proposal, *member, at, history)?;
                check_endorse(pending, *member, *agreed)
            }
            Body::Refuse {
                member, proposal, ..
            } => {
                let pending = self.asked_about(*proposal, *member, at, history)?;
                check_refuse(pending, *member)
            }
            Body::Withdraw { member, proposal } => {
                let pending = self.alive(*proposal, at, history)?;
                if pending.propose().member == *member {
                    Ok(())
                } else {
                    Err(Refusal::new(
                        Code::NotTheProposer,
                        format!("{} proposed it", pending.propose().member),
                    ))
                }
            }
        }
    }

    fn check_found(&self, members: &[Card]) -> Result<(), Refusal> {
        if self.settings.is_some() {
            return Err(Refusal::new(
                Code::AlreadyFounded,
                "the network has members, who decide themselves",
            ));
        }
        if members.is_empty() {
            return Err(Refusal::new(Code::TooFewMembers, "a network has a member"));
        }
        let mut seen = Vec::new();
        for card in members {
            if card.revision() != 0 {
                return Err(Refusal::new(
                    Code::WrongRevision,
                    "a member begins with its first card",
                ));
            }
            seen.push(card.did());
        }
        seen.sort_unstable();
        match seen.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Refusal::new(
                Code::MemberExists,
                format!("{} is named twice", pair[0]),
            )),
            None => Ok(()),
        }
    }

    fn check_announce(&self, card: &Card, plan: &Plan<'_>) -> Result<(), Refusal> {
        let member = plan.active(card.did())?;
        if member.card == *card {
            return Err(Refusal::new(
                Code::NothingToDo,
                "this is the member's present card",
            ));
        }
        if Some(card.revision()) != member.card.revision().checked_add(1) {
            return Err(Refusal::new(
                Code::WrongRevision,
                format!("the present card has revision {}", member.card.revision()),
            ));
        }
        if card.verkey() == member.card.verkey() {
            return Ok(());
        }
        if !member.has_room_for_a_key() {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("a member has at most {KEYS_PER_MEMBER_MAX} keys in its life"),
            ));
        }
        plan.free_key(card)
    }

    fn check_propose(
        &self,
        command: &Command,
        propose: &Propose,
        at: BlockTime,
        plan: &Plan<'_>,
    ) -> Result<(), Refusal> {
        let settings = plan.settings()?;
        let latest = at.0.saturating_add(settings.deadline_ms_max);
        if propose.deadline <= at || propose.deadline.0 > latest {
            return Err(Refusal::new(
                Code::BadDeadline,
                format!(
                    "the deadline {} is not within {} ms from now, {}",
                    propose.deadline.0, settings.deadline_ms_max, at.0
                ),
            ));
        }
        let quality = &command.quality;
        if quality.documents < settings.documents {
            return Err(Refusal::new(Code::BadEntry, quality.fault.clone()));
        }
        if let Some((earliest, latest)) = quality.signed {
            let earliest = earliest
                .saturating_mul(1_000)
                .saturating_add(CLOCK_BEHIND_MS_MAX);
            let latest = latest.saturating_mul(1_000);
            if earliest < at.0 || latest > at.0.saturating_add(CLOCK_AHEAD_MS_MAX) {
                return Err(Refusal::new(
                    Code::BadEntrySignature,
                    "an entry was signed long ago or in the future: set the clock right and sign anew",
                ));
            }
        }
        if let Action::Create { ledgers, .. } = &propose.action
            && let Some(name) = ledgers.iter().find(|name| plan.slot(name).is_some())
        {
            return Err(match self.ledger(name) {
                Some(_) => exists(name),
                None => Refusal::new(
                    Code::LedgerExists,
                    format!(
                        "another proposal is about to create ledger \"{}\"",
                        shortened(name)
                    ),
                ),
            });
        }
        plan.possible(propose)?;
        for name in slots_of(&propose.action) {
            let Some(slot) = plan.slot(name) else {
                continue;
            };
            let full = |whose: &str| {
                Refusal::new(
                    Code::QueueFull,
                    format!(
                        "too many proposals {whose}wait for ledger \"{}\": try again later",
                        shortened(name)
                    ),
                )
            };
            if slot.queue.len() >= QUEUE_MAX {
                return Err(full(""));
            }
            let own = slot.queue.iter().filter(|id| {
                let pending = self.proposals.get(*id);
                pending.is_some_and(|pending| pending.propose().member == propose.member)
            });
            if own.count() >= QUEUE_MAX / QUEUE_SHARES {
                return Err(full("of this member "));
            }
        }
        self.check_room(propose.member, command.text.len())
    }

    /// Whether there is room in memory for one proposal more.
    fn check_room(&self, member: Did, bytes: usize) -> Result<(), Refusal> {
        let own = self.load.get(&member).copied().unwrap_or_default();
        let full = |count: usize, held: usize, shares: usize| {
            count >= PENDING_MAX / shares || held.saturating_add(bytes) > PENDING_BYTES_MAX / shares
        };
        if full(self.total.proposals, self.total.bytes, 1) {
            return Err(Refusal::new(
                Code::TooManyProposals,
                "too many proposals wait in the network: try again later",
            ));
        }
        if full(own.proposals, own.bytes, PENDING_SHARES) {
            return Err(Refusal::new(
                Code::TooManyProposals,
                format!("too many proposals of {member} wait: try again later"),
            ));
        }
        Ok(())
    }

    /// Whether the member signed with its present key.
    fn speaks(&self, command: &Command, member: Did) -> Result<(), Refusal> {
        let key = Plan::new(self, UNKNOWN, BlockTime(0))
            .active(member)?
            .card
            .verkey();
        if key == command.signer() {
            return Ok(());
        }
        Err(Refusal::new(
            Code::ForeignKey,
            format!("{} is not the present key of {member}", command.signer()),
        ))
    }

    /// A proposal that can still be decided.
    fn alive(
        &self,
        proposal: TransactionId,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<&Pending, Refusal> {
        let Some(pending) = self.proposals.get(&proposal) else {
            let known = self.closed.get(&proposal).cloned();
            let known = known.or_else(|| newest(history, IndexKey::Proposal(proposal)));
            let outcome = known.as_ref().and_then(|entry| entry.outcome_of(&proposal));
            return Err(match outcome {
                Some(outcome) => Refusal::new(
                    Code::Closed,
                    format!("proposal {proposal} was {} already", outcome.kind()),
                ),
                None => Refusal::new(
                    Code::UnknownProposal,
                    format!("there is no proposal {proposal}"),
                ),
            });
        };
        if pending.propose().deadline <= at {
            return Err(Refusal::new(
                Code::Expired,
                format!("the deadline of proposal {proposal} has passed"),
            ));
        }
        Ok(pending)
    }

    /// A proposal about which a member is asked.
    fn asked_about(
        &self,
        proposal: TransactionId,
        member: Did,
        at: BlockTime,
        history: &dyn History,
    ) -> Result<&Pending, Refusal> {
        let pending = self.alive(proposal, at, history)?;
        let Some(opened) = &pending.opened else {
            return Err(Refusal::new(
                Code::NotOpenYet,
                format!("proposal {proposal} waits for its turn"),
            ));
        };
        if opened
            .seats
            .iter()
            .any(|seat| seat.participants.contains(&member))
        {
            Ok(pending)
        } else {
            Err(Refusal::new(
                Code::ForeignEndorser,
                format!("{member} is not asked about proposal {proposal}"),
            ))
        }
    }
}

fn check_endorse(pending: &Pending, member: Did, agreed: TreeHash) -> Result<(), Refusal> {
    let expected = pending.opened.as_ref().map(|opened| opened.agreed);
    let right = expected == Some(agreed);
    if pending.refused.contains(&member) {
        return Err(equivocation(member, "refused it before"));
    }
    match (pending.endorsed.contains(&member), right) {
        (true, true) => Err(Refusal::new(
            Code::AlreadyEndorsed,
            format!("{member} endorsed it already"),
        )),
        (true, false) => Err(equivocation(member, "endorsed another outcome before")),
        (false, true) => Ok(()),
        (false, false) => Err(Refusal::new(
            Code::WrongRoot,
            format!("the proposal leads to another outcome than {agreed}"),
        )),
    }
}

fn check_refuse(pending: &Pending, member: Did) -> Result<(), Refusal> {
    if pending.propose().member == member {
        return Err(equivocation(member, "proposed it, and can withdraw it"));
    }
    if pending.endorsed.contains(&member) {
        return Err(equivocation(member, "endorsed it before"));
    }
    if pending.refused.contains(&member) {
        return Err(Refusal::new(
            Code::AlreadyRefused,
            format!("{member} refused it already"),
        ));
    }
    Ok(())
}

fn equivocation(member: Did, what: &str) -> Refusal {
    Refusal::new(Code::Equivocation, format!("{member} {what}"))
}

/// Whether two proposals ask for the same: deadlines and the times of signatures aside, because who
/// asks again signs again.
fn asks_the_same(first: &Propose, second: &Propose) -> bool {
    let entries = |propose: &Propose| -> Vec<Object> {
        let batch = propose.action.batch();
        let entries = batch.map_or(&[][..], |batch| batch.entries());
        let bare = |entry: &EntryText| {
            let mut object = entry.to_object();
            object.remove(ENTRY_SIGNATURE);
            object.remove(ORIGIN_SIGNATURE);
            object
        };
        entries.iter().map(bare).collect()
    };
    let frame = match (&first.action, &second.action) {
        (
            Action::Create {
                ledgers,
                participants,
                policy,
                ..
            },
            Action::Create {
                ledgers: other_ledgers,
                participants: other_participants,
                policy: other_policy,
                ..
            },
        ) => {
            ledgers == other_ledgers && participants == other_participants && policy == other_policy
        }
        (
            Action::Append { ledgers, .. },
            Action::Append {
                ledgers: others, ..
            },
        ) => ledgers == others,
        (one, other) => one == other,
    };
    frame && entries(first) == entries(second)
}
