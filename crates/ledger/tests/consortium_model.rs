//! The consortium's book against a naive one that keeps everything in plain lists and works everything
//! out from the beginning: the same answers, effects, trees and fates under random requests, sound and
//! unsound. `CONSORTIUM_SEED` repeats a run.

#![allow(clippy::unwrap_used, missing_docs)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test repeats a run by a seed from its environment"
)]

mod consortium_common;

use std::collections::{BTreeMap, BTreeSet};

use consortium_common::*;
use daybook_ledger::{
    BlockTime, Height, SigningKey, TransactionId,
    consortium::*,
    json::{Object, Value},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Operations of one run, in networks of so many.
const OPERATIONS: usize = 100_000;
const OPERATIONS_PER_NETWORK: usize = 1_000;

/// Seeds of members: the first five found the network; strangers are among the others.
const SEEDS: std::ops::RangeInclusive<u8> = 1..=9;

/// The key of a member's so-many-th card.
fn key_of(seed: u8, revision: u64) -> SigningKey {
    if revision == 0 {
        key(seed)
    } else {
        let mut bytes = [seed; 32];
        bytes[0] = 250;
        bytes[1] = revision as u8;
        SigningKey::from_seed(bytes)
    }
}

// --- The naive book ---------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Open,
    Committed,
    Expired,
    Refused,
    Withdrawn,
    Dropped,
}

#[derive(Clone, Debug)]
struct Proposal {
    id: TransactionId,
    propose: Propose,
    fate: Fate,
    opened: u64,
    seats: Vec<(Vec<Did>, usize)>,
    agreed: Option<TreeHash>,
    yes: BTreeSet<Did>,
    no: BTreeSet<Did>,
}

#[derive(Clone, Debug)]
struct NaiveLedger {
    participants: Vec<Did>,
    policy: Policy,
    texts: Vec<String>,
}

#[derive(Default)]
struct Naive {
    by_vote: bool,
    members: BTreeMap<Did, (Card, bool)>,
    keys: BTreeSet<daybook_ledger::PublicKey>,
    ledgers: BTreeMap<String, NaiveLedger>,
    proposals: Vec<Proposal>,
    /// What happened in the entry at hand: proposal and fate.
    story: Vec<(TransactionId, Fate)>,
}

impl Naive {
    fn is_active(&self, did: &Did) -> bool {
        self.members.get(did).is_some_and(|(_, active)| *active)
    }

    fn active(&self) -> Vec<Did> {
        self.members
            .keys()
            .filter(|did| self.is_active(did))
            .copied()
            .collect()
    }

    fn speaks(&self, did: &Did, signer: &SigningKey) -> Result<(), Code> {
        match self.members.get(did) {
            Some((card, true)) if card.verkey() == signer.public_key() => Ok(()),
            Some((_, true)) => Err(Code::ForeignKey),
            _ => Err(Code::UnknownMember),
        }
    }

    fn slots(propose: &Propose) -> Vec<String> {
        match propose.action.ledgers() {
            [] => vec![String::new()],
            ledgers => ledgers.to_vec(),
        }
    }

    fn pending(&self) -> impl Iterator<Item = &Proposal> {
        let pending = |proposal: &&Proposal| matches!(proposal.fate, Fate::Waiting | Fate::Open);
        self.proposals.iter().filter(pending)
    }

    fn behind(&self, propose: &Propose, before: usize) -> usize {
        let earlier = |slot: &String| {
            let earlier = self.proposals[..before].iter();
            earlier
                .filter(|other| matches!(other.fate, Fate::Waiting | Fate::Open))
                .filter(|other| Naive::slots(&other.propose).contains(slot))
                .count()
        };
        Naive::slots(propose).iter().map(earlier).max().unwrap()
    }

    /// Proposals of the same member in the fullest of the queues that a new one joins.
    fn own_behind(&self, propose: &Propose) -> usize {
        let own = |slot: &String| {
            self.pending()
                .filter(|other| other.propose.member == propose.member)
                .filter(|other| Naive::slots(&other.propose).contains(slot))
                .count()
        };
        Naive::slots(propose).iter().map(own).max().unwrap()
    }

    fn admissible(&self, card: &Card) -> Result<(), Code> {
        if self.members.contains_key(&card.did()) {
            return Err(Code::MemberExists);
        }
        if card.revision() != 0 {
            return Err(Code::WrongRevision);
        }
        if self.keys.contains(&card.verkey()) {
            return Err(Code::KeyInUse);
        }
        Ok(())
    }

    fn seats(&self, propose: &Propose) -> Result<Vec<(Vec<Did>, usize)>, Code> {
        let proposer = propose.member;
        if !self.is_active(&proposer) {
            return Err(Code::UnknownMember);
        }
        let of_ledger = |name: &String| {
            let ledger = self.ledgers.get(name).ok_or(Code::UnknownLedger)?;
            if !ledger.participants.contains(&proposer) {
                return Err(Code::ForeignProposer);
            }
            let mut left = ledger.participants.clone();
            left.retain(|did| self.is_active(did));
            Ok((ledger, left))
        };
        let known = |dids: &[Did]| {
            dids.iter()
                .all(|did| self.is_active(did))
                .then_some(())
                .ok_or(Code::UnknownMember)
        };
        match &propose.action {
            Action::Create {
                ledgers,
                participants,
                policy,
                ..
            } => {
                known(participants)?;
                if !participants.contains(&proposer) {
                    return Err(Code::BadGroup);
                }
                if ledgers.iter().any(|name| self.ledgers.contains_key(name)) {
                    return Err(Code::LedgerExists);
                }
                Ok(vec![(
                    participants.clone(),
                    policy.needed(participants.len()),
                )])
            }
            Action::Append { ledgers, .. } => {
                let mut seats = Vec::new();
                for name in ledgers {
                    let (ledger, left) = of_ledger(name)?;
                    let needed = match ledger.policy {
                        Policy::Unanimous => left.len(),
                        Policy::AtLeast(count) => count as usize,
                    };
                    if left.len() < 2 || left.len() < needed {
                        return Err(Code::TooFewMembers);
                    }
                    seats.push((left, needed));
                }
                Ok(seats)
            }
            Action::Regroup {
                ledger,
                participants,
                policy,
            } => {
                let (present, left) = of_ledger(ledger)?;
                known(participants)?;
                if present.participants == *participants && present.policy == *policy {
                    return Err(Code::NothingToDo);
                }
                let mut newcomers = participants.clone();
                newcomers.retain(|did| !present.participants.contains(did));
                let needed = match present.policy {
                    Policy::Unanimous => left.len(),
                    Policy::AtLeast(count) => left.len().min(count as usize),
                };
                let all = newcomers.len();
                Ok(vec![(left, needed), (newcomers, all)])
            }
            Action::Admit { card } => {
                if !self.by_vote {
                    return Err(Code::NotAdmittedSo);
                }
                self.admissible(card)?;
                let all = self.active();
                let needed = all.len() / 2 + 1;
                Ok(vec![(all, needed)])
            }
            Action::Remove { subject } => {
                if !self.is_active(subject) {
                    return Err(Code::UnknownMember);
                }
                if *subject == proposer {
                    return Err(Code::BadGroup);
                }
                let mut others = self.active();
                others.retain(|did| did != subject);
                if others.len() < 2 {
                    return Err(Code::TooFewMembers);
                }
                let all = others.len();
                Ok(vec![(others, all)])
            }
        }
    }

    /// The code of the refusal, or the earlier proposal that is repeated.
    fn check(
        &self,
        body: &Body,
        signer: &SigningKey,
        at: u64,
    ) -> Result<Option<TransactionId>, Code> {
        match body {
            Body::Found { .. } => return Err(Code::AlreadyFounded),
            Body::Admit { card } => {
                if self.by_vote {
                    return Err(Code::NotAdmittedSo);
                }
                return self.admissible(card).map(|()| None);
            }
            Body::Announce { card } => {
                self.speaks(&card.did(), signer)?;
                let (present, _) = &self.members[&card.did()];
                if present == card {
                    return Err(Code::NothingToDo);
                }
                if card.revision() != present.revision() + 1 {
                    return Err(Code::WrongRevision);
                }
                if card.verkey() != present.verkey() && self.keys.contains(&card.verkey()) {
                    return Err(Code::KeyInUse);
                }
                return Ok(None);
            }
            Body::Propose(propose) => {
                let same_name = self.proposals.iter().find(|known| {
                    known.propose.member == propose.member
                        && known.propose.request == propose.request
                });
                self.speaks(&propose.member, signer)?;
                if let Some(known) = same_name {
                    return if known.propose.action == propose.action {
                        Ok(Some(known.id))
                    } else {
                        Err(Code::RequestReused)
                    };
                }
                if propose.deadline.0 <= at || propose.deadline.0 > at + DEADLINE_MS_DEFAULT {
                    return Err(Code::BadDeadline);
                }
                if let Action::Create { ledgers, .. } = &propose.action {
                    let taken = |name: &String| {
                        self.ledgers.contains_key(name)
                            || self
                                .pending()
                                .any(|other| Naive::slots(&other.propose).contains(name))
                    };
                    if ledgers.iter().any(taken) {
                        return Err(Code::LedgerExists);
                    }
                }
                self.seats(propose)?;
                if self.behind(propose, self.proposals.len()) >= QUEUE_MAX
                    || self.own_behind(propose) >= QUEUE_MAX / QUEUE_SHARES
                {
                    return Err(Code::QueueFull);
                }
                return Ok(None);
            }
            Body::Endorse { .. } | Body::Refuse { .. } | Body::Withdraw { .. } => {}
        }
        let (Body::Endorse {
            member, proposal, ..
        }
        | Body::Refuse {
            member, proposal, ..
        }
        | Body::Withdraw { member, proposal }) = body
        else {
            unreachable!()
        };
        self.speaks(member, signer)?;
        let known = self.proposals.iter().find(|known| known.id == *proposal);
        let known = known.ok_or(Code::UnknownProposal)?;
        if !matches!(known.fate, Fate::Waiting | Fate::Open) {
            return Err(Code::Closed);
        }
        if known.propose.deadline.0 <= at {
            return Err(Code::Expired);
        }
        if let Body::Withdraw { .. } = body {
            let own = known.propose.member == *member;
            return own.then_some(None).ok_or(Code::NotTheProposer);
        }
        if known.fate == Fate::Waiting {
            return Err(Code::NotOpenYet);
        }
        if !known.seats.iter().any(|(who, _)| who.contains(member)) {
            return Err(Code::ForeignEndorser);
        }
        let (yes, no) = (known.yes.contains(member), known.no.contains(member));
        match body {
            Body::Endorse { agreed, .. } => match (yes, no, Some(*agreed) == known.agreed) {
                (_, true, _) | (true, _, false) => Err(Code::Equivocation),
                (true, _, true) => Err(Code::AlreadyEndorsed),
                (false, false, true) => Ok(None),
                (false, false, false) => Err(Code::WrongRoot),
            },
            _ if yes || known.propose.member == *member => Err(Code::Equivocation),
            _ if no => Err(Code::AlreadyRefused),
            _ => Ok(None),
        }
    }

    /// Does what was decided, in the entry with this id.
    fn follow(&mut self, body: &Body, id: TransactionId, at: u64) {
        self.story.clear();
        match body {
            Body::Found { members, settings } => {
                self.by_vote = settings.admission == Admission::Members;
                for card in members {
                    self.admit(card);
                }
            }
            Body::Admit { card } => self.admit(card),
            Body::Announce { card } => {
                self.keys.insert(card.verkey());
                self.members.insert(card.did(), (card.clone(), true));
            }
            Body::Propose(propose) => self.proposals.push(Proposal {
                id,
                propose: propose.clone(),
                fate: Fate::Waiting,
                opened: 0,
                seats: Vec::new(),
                agreed: None,
                yes: BTreeSet::from([propose.member]),
                no: BTreeSet::new(),
            }),
            Body::Endorse {
                member, proposal, ..
            } => {
                let place = self.place(proposal);
                self.proposals[place].yes.insert(*member);
                self.tally(place, at);
            }
            Body::Refuse {
                member, proposal, ..
            } => {
                let place = self.place(proposal);
                self.proposals[place].no.insert(*member);
                self.tally(place, at);
            }
            Body::Withdraw { proposal, .. } => {
                let place = self.place(proposal);
                self.end(place, Fate::Withdrawn);
            }
        }
        self.settle(at);
    }

    fn expire(&mut self, at: u64, max: usize) {
        self.story.clear();
        let mut due: Vec<(u64, usize)> = (0..self.proposals.len())
            .filter(|place| matches!(self.proposals[*place].fate, Fate::Waiting | Fate::Open))
            .map(|place| (self.proposals[place].propose.deadline.0, place))
            .filter(|(deadline, _)| *deadline <= at)
            .collect();
        due.sort_unstable();
        for (_, place) in due.into_iter().take(max) {
            self.end(place, Fate::Expired);
        }
        self.settle(at);
    }

    fn place(&self, id: &TransactionId) -> usize {
        self.proposals
            .iter()
            .position(|known| known.id == *id)
            .unwrap()
    }

    fn admit(&mut self, card: &Card) {
        self.keys.insert(card.verkey());
        self.members.insert(card.did(), (card.clone(), true));
    }

    fn end(&mut self, place: usize, fate: Fate) {
        self.proposals[place].fate = fate;
        self.story.push((self.proposals[place].id, fate));
    }

    fn texts_after(&self, place: usize, name: &str) -> Vec<String> {
        let proposal = &self.proposals[place];
        let mut texts = self
            .ledgers
            .get(name)
            .map_or(Vec::new(), |ledger| ledger.texts.clone());
        let time = matches!(proposal.propose.action, Action::Append { .. })
            .then(|| time_text(BlockTime(proposal.opened)));
        for entry in proposal
            .propose
            .action
            .batch()
            .map_or(&[][..], |batch| batch.entries())
        {
            let mut object = entry.to_object();
            let mut metadata = Object::from_iter([("seqNo", texts.len() as u64 + 1)]);
            if let Some(time) = &time {
                metadata.insert("txnTime", time.as_str().into());
            }
            object.insert(METADATA, Value::Object(metadata));
            texts.push(canon_object(&object));
        }
        texts
    }

    /// Opens what can be opened, the oldest first, until nothing changes any more.
    fn settle(&mut self, at: u64) {
        'again: loop {
            for place in 0..self.proposals.len() {
                let proposal = &self.proposals[place];
                if proposal.fate != Fate::Waiting
                    || proposal.propose.deadline.0 <= at
                    || self.behind(&proposal.propose, place) > 0
                {
                    continue;
                }
                match self.seats(&proposal.propose.clone()) {
                    Err(_) => self.end(place, Fate::Dropped),
                    Ok(seats) => {
                        self.proposals[place].opened = at;
                        self.proposals[place].seats = seats;
                        self.proposals[place].fate = Fate::Open;
                        let names = self.proposals[place].propose.action.ledgers().to_vec();
                        let states: Vec<State> = names
                            .into_iter()
                            .map(|name| {
                                let before = self
                                    .ledgers
                                    .get(&name)
                                    .map_or(&[][..], |ledger| &ledger.texts);
                                let after = self.texts_after(place, &name);
                                State {
                                    root: TreeHash::root(before),
                                    size: before.len() as u64,
                                    uncommitted_root: TreeHash::root(&after),
                                    uncommitted_size: after.len() as u64,
                                    name,
                                }
                            })
                            .collect();
                        self.proposals[place].agreed = Some(agreed(&states));
                        self.story.push((self.proposals[place].id, Fate::Open));
                        self.tally(place, at);
                    }
                }
                continue 'again;
            }
            return;
        }
    }

    fn tally(&mut self, place: usize, _at: u64) {
        let proposal = &self.proposals[place];
        let count =
            |who: &[Did], of: &BTreeSet<Did>| who.iter().filter(|did| of.contains(did)).count();
        if proposal
            .seats
            .iter()
            .all(|(who, needed)| count(who, &proposal.yes) >= *needed)
        {
            self.commit(place);
        } else if proposal
            .seats
            .iter()
            .any(|(who, needed)| who.len() - count(who, &proposal.no) < *needed)
        {
            self.end(place, Fate::Refused);
        }
    }

    fn commit(&mut self, place: usize) {
        let propose = self.proposals[place].propose.clone();
        match &propose.action {
            Action::Create {
                ledgers,
                participants,
                policy,
                ..
            } => {
                for name in ledgers {
                    let texts = self.texts_after(place, name);
                    let (participants, policy) = (participants.clone(), *policy);
                    self.ledgers.insert(
                        name.clone(),
                        NaiveLedger {
                            participants,
                            policy,
                            texts,
                        },
                    );
                }
            }
            Action::Append { ledgers, .. } => {
                for name in ledgers {
                    let texts = self.texts_after(place, name);
                    self.ledgers.get_mut(name).unwrap().texts = texts;
                }
            }
            Action::Regroup {
                ledger,
                participants,
                policy,
            } => {
                let ledger = self.ledgers.get_mut(ledger).unwrap();
                ledger.participants = participants.clone();
                ledger.policy = *policy;
            }
            Action::Admit { card } => {
                if self.admissible(card).is_err() {
                    return self.end(place, Fate::Dropped);
                }
                self.admit(card);
            }
            Action::Remove { subject } => self.members.get_mut(subject).unwrap().1 = false,
        }
        self.end(place, Fate::Committed);
    }
}

// --- Random requests --------------------------------------------------------------------------------

struct Run {
    random: StdRng,
    naive: Naive,
    book: Book,
    archive: Archive,
    now: u64,
    height: u64,
    requests: u64,
    counts: BTreeMap<String, usize>,
}

impl Run {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn member(&mut self) -> u8 {
        // Mostly members, sometimes strangers.
        let last = if self.chance(90) { 6 } else { *SEEDS.end() };
        self.random.random_range(1..=last)
    }

    fn signer(&mut self, did: &Did, seed: u8) -> SigningKey {
        let revision = self
            .naive
            .members
            .get(did)
            .map_or(0, |(card, _)| card.revision());
        let wrong = self.chance(2);
        // Cards without a new key keep the old one: look for the one that fits.
        let verkey = self.naive.members.get(did).map(|(card, _)| card.verkey());
        let candidates = (0..=revision).rev().map(|revision| key_of(seed, revision));
        let fitting = candidates
            .chain(SEEDS.map(key))
            .find(|key| Some(key.public_key()) == verkey);
        match fitting {
            Some(key) if !wrong => key,
            _ => key(self.random.random_range(1..=9)),
        }
    }

    fn group(&mut self, proposer: u8) -> Vec<Did> {
        let mut seeds: BTreeSet<u8> = (0..self.random.random_range(1..=4))
            .map(|_| self.member())
            .collect();
        if self.chance(95) {
            seeds.insert(proposer);
        }
        while seeds.len() < 2 {
            let seed = self.member();
            seeds.insert(seed);
        }
        seeds.into_iter().map(did).collect()
    }

    fn policy(&mut self, participants: usize) -> Policy {
        if self.chance(50) {
            Policy::Unanimous
        } else {
            Policy::AtLeast(self.random.random_range(2..=participants as u32))
        }
    }

    fn batch(&mut self) -> Batch {
        let count = self.random.random_range(1..=3);
        let entries: Vec<Object> = (0..count)
            .map(|_| {
                let number = self.random.random_range(0..1_000u64);
                let name = *["a", "no", "zz"].choose(&mut self.random).unwrap();
                Object::from_iter([(name, Value::from(number))])
            })
            .collect();
        Batch::new(&entries)
    }

    /// Mostly names of ledgers in which the member takes part.
    fn ledgers(&mut self, proposer: u8) -> Vec<String> {
        let strange = self.chance(8);
        let mut names: Vec<String> = self
            .naive
            .ledgers
            .iter()
            .filter(|(_, ledger)| strange || ledger.participants.contains(&did(proposer)))
            .map(|(name, _)| name.clone())
            .collect();
        if strange || names.is_empty() {
            names.push("nowhere".to_owned());
        }
        let count = if self.chance(75) {
            1
        } else {
            self.random.random_range(1..=4)
        };
        let chosen: BTreeSet<String> = (0..count)
            .map(|_| names.choose(&mut self.random).unwrap().clone())
            .collect();
        chosen.into_iter().collect()
    }

    fn action(&mut self, proposer: u8) -> Action {
        match self.random.random_range(0..100) {
            0..12 => {
                let count = if self.chance(85) { 1 } else { 3 };
                let names: BTreeSet<String> = (0..count)
                    .map(|_| format!("L{}", self.random.random_range(0..60)))
                    .collect();
                let participants = self.group(proposer);
                Action::Create {
                    ledgers: names.into_iter().collect(),
                    policy: self.policy(participants.len()),
                    participants,
                    batch: self.batch(),
                }
            }
            12..19 => {
                let participants = self.group(proposer);
                Action::Regroup {
                    ledger: self.ledgers(proposer).remove(0),
                    policy: self.policy(participants.len()),
                    participants,
                }
            }
            19..22 => Action::Admit {
                card: card(self.random.random_range(SEEDS)),
            },
            22 => Action::Remove {
                subject: did(self.member()),
            },
            _ => Action::Append {
                ledgers: self.ledgers(proposer),
                batch: self.batch(),
            },
        }
    }

    /// Mostly one that is pending, sometimes an old one or none.
    fn proposal(&mut self) -> Option<Proposal> {
        if self.chance(2) {
            return None;
        }
        let old = self.chance(6);
        let candidates: Vec<&Proposal> = if old {
            self.naive.proposals.iter().collect()
        } else {
            self.naive.pending().collect()
        };
        candidates
            .choose(&mut self.random)
            .map(|proposal| (*proposal).clone())
    }

    fn voter(&mut self, proposal: &Proposal) -> u8 {
        let asked: Vec<u8> = SEEDS
            .filter(|seed| {
                proposal
                    .seats
                    .iter()
                    .any(|(who, _)| who.contains(&did(*seed)))
            })
            .filter(|seed| !proposal.yes.contains(&did(*seed)))
            .collect();
        match asked.choose(&mut self.random) {
            Some(seed) if self.random.random_range(0..100) < 92 => *seed,
            _ => self.member(),
        }
    }

    fn body(&mut self) -> (Body, SigningKey) {
        match self.random.random_range(0..100) {
            0..36 => {
                let seed = self.member();
                let member = did(seed);
                let deadline = match self.random.random_range(0..60) {
                    0 => self.now,
                    1 => u64::MAX,
                    2 => self.now + DEADLINE_MS_DEFAULT + 1,
                    _ => self.now + self.random.random_range(1..20_000),
                };
                let repeated = self
                    .chance(4)
                    .then(|| self.naive.proposals.choose(&mut self.random).cloned());
                let propose = match repeated.flatten() {
                    Some(known) if self.chance(70) => Propose {
                        deadline: BlockTime(deadline),
                        ..known.propose
                    },
                    Some(known) => Propose {
                        action: self.action(seed),
                        ..known.propose
                    },
                    None => {
                        self.requests += 1;
                        Propose {
                            member,
                            request: format!("r{}", self.requests),
                            deadline: BlockTime(deadline),
                            action: self.action(seed),
                        }
                    }
                };
                let seed = SEEDS
                    .into_iter()
                    .find(|seed| did(*seed) == propose.member)
                    .unwrap();
                let signer = self.signer(&propose.member, seed);
                (Body::Propose(propose), signer)
            }
            36..88 => {
                let proposal = self.proposal();
                let seed = match &proposal {
                    Some(proposal) => self.voter(proposal),
                    None => self.member(),
                };
                let member = did(seed);
                let id = proposal
                    .as_ref()
                    .map_or(TransactionId([5; 32]), |proposal| proposal.id);
                let signer = self.signer(&member, seed);
                let body = if self.chance(88) {
                    let right = proposal.and_then(|proposal| proposal.agreed);
                    let agreed = match right {
                        Some(agreed) if !self.chance(3) => agreed,
                        _ => TreeHash([3; 32]),
                    };
                    Body::Endorse {
                        member,
                        proposal: id,
                        agreed,
                    }
                } else {
                    let reason = "because".to_owned();
                    Body::Refuse {
                        member,
                        proposal: id,
                        reason,
                    }
                };
                (body, signer)
            }
            88..94 => {
                let proposal = self.proposal();
                let seed = match &proposal {
                    Some(proposal) if self.chance(80) => SEEDS
                        .into_iter()
                        .find(|seed| did(*seed) == proposal.propose.member)
                        .unwrap(),
                    _ => self.member(),
                };
                let id = proposal.map_or(TransactionId([5; 32]), |proposal| proposal.id);
                let signer = self.signer(&did(seed), seed);
                (
                    Body::Withdraw {
                        member: did(seed),
                        proposal: id,
                    },
                    signer,
                )
            }
            94..97 => {
                let seed = self.member();
                let signer = self.signer(&did(seed), seed);
                let present = self
                    .naive
                    .members
                    .get(&did(seed))
                    .map(|(card, _)| card.clone());
                let present = present.unwrap_or_else(|| card(seed));
                let revision = present.revision() + 1;
                let next_key = match self.random.random_range(0..4) {
                    0 => key(self.random.random_range(1..=9)),
                    1 | 2 if revision < 60 => key_of(seed, revision),
                    _ => signer.clone(),
                };
                let mut next = present.next(present.profile().clone(), &next_key);
                match self.random.random_range(0..20) {
                    0 => next = next.next(present.profile().clone(), &next_key),
                    1 => next = present,
                    _ => {}
                }
                (Body::Announce { card: next }, signer)
            }
            97 | 98 => {
                let card = card(self.random.random_range(SEEDS));
                (Body::Admit { card }, validator())
            }
            _ => {
                let body = Body::Found {
                    members: vec![card(1)],
                    settings: Settings::default(),
                };
                (body, validator())
            }
        }
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn compare(&mut self, entry: &Entry) {
        let fates: Vec<(TransactionId, Fate)> = entry
            .effects()
            .iter()
            .filter_map(|effect| {
                let id = effect.proposal().unwrap_or(entry.id());
                Some(match effect {
                    Effect::Queued { .. } => return None,
                    Effect::Opened { agreed, .. } => {
                        let place = self.naive.place(&id);
                        assert_eq!(Some(*agreed), self.naive.proposals[place].agreed);
                        (id, Fate::Open)
                    }
                    Effect::Committed { .. } => (id, Fate::Committed),
                    Effect::Expired { missing, .. } => {
                        let known = &self.naive.proposals[self.naive.place(&id)];
                        let asked: BTreeSet<Did> = known
                            .seats
                            .iter()
                            .flat_map(|(who, _)| who.clone())
                            .collect();
                        let silent =
                            |did: &Did| !known.yes.contains(did) && !known.no.contains(did);
                        assert_eq!(
                            *missing,
                            asked.into_iter().filter(silent).collect::<Vec<_>>()
                        );
                        (id, Fate::Expired)
                    }
                    Effect::Refused { by, .. } => {
                        let known = &self.naive.proposals[self.naive.place(&id)];
                        assert!(known.no.iter().eq(by));
                        (id, Fate::Refused)
                    }
                    Effect::Withdrawn { .. } => (id, Fate::Withdrawn),
                    Effect::Dropped { .. } => (id, Fate::Dropped),
                })
            })
            .collect();
        assert_eq!(fates, self.naive.story, "{entry:?}");
        for effect in entry.effects() {
            self.count(effect.kind());
            if let Effect::Committed { states, .. } = effect {
                for state in states {
                    let ledger = self.book.ledger(&state.name).unwrap();
                    let naive = &self.naive.ledgers[&state.name];
                    assert_eq!(ledger.frontier.size(), naive.texts.len() as u64);
                    assert_eq!(ledger.frontier.root(), TreeHash::root(&naive.texts));
                    assert_eq!(ledger.participants, naive.participants);
                    assert_eq!(ledger.policy, naive.policy);
                }
            }
        }
    }

    fn record(&mut self, entry: &Entry) {
        self.height += 1;
        self.book.record(entry, Height(self.height)).unwrap();
        self.archive.add(entry);
        if self.chance(20)
            && let Some(seen) = self.height.checked_sub(self.random.random_range(0..4))
        {
            self.book.forget(Height(seen));
        }
    }

    fn step(&mut self) {
        self.now += match self.random.random_range(0..50) {
            0 => self.random.random_range(0..8_000),
            _ => self.random.random_range(1..40),
        };
        // A block lets only so many expire; the others wait for the next.
        let max = self.random.random_range(0..4);
        let due = self.book.due(BlockTime(self.now), max);
        let naive_due = self
            .naive
            .pending()
            .any(|known| known.propose.deadline.0 <= self.now);
        assert_eq!(due.is_some(), naive_due && max > 0);
        if let Some(expiry) = due {
            self.record(&expiry);
            self.naive.expire(self.now, max);
            self.compare(&expiry);
        }
        let (body, signer) = self.body();
        let request = Request::sign(genesis().hash(), &body, &signer);
        let command = Command::from_stored(&request).unwrap();
        let decision = self
            .book
            .decide(&command, BlockTime(self.now), &self.archive);
        let expected = self.naive.check(&body, &signer, self.now);
        match (decision, expected) {
            (Ok(Decision::Entry(entry)), Ok(None)) => {
                self.count(entry.kind());
                self.record(&entry);
                self.naive.follow(&body, entry.id(), self.now);
                self.compare(&entry);
            }
            (Ok(Decision::Repeat(entry)), Ok(Some(id))) => {
                assert_eq!(entry.id(), id);
                self.count("repeat");
            }
            (Err(refusal), Err(code)) => {
                assert_eq!(refusal.code, code, "{refusal} {body:?}");
                self.count(code.as_str());
            }
            (decision, expected) => panic!("{decision:?}, expected {expected:?} for {body:?}"),
        }
    }

    /// Looks at everything.
    fn review(&mut self) {
        self.book.audit().unwrap();
        assert_eq!(Book::decode(&self.book.encode()), Ok(self.book.clone()));
        assert_eq!(self.book.ledgers().count(), self.naive.ledgers.len());
        assert_eq!(self.book.pending_count(), self.naive.pending().count());
        for known in &self.naive.proposals {
            let fate = match self.book.outcome(&known.id, &self.archive).unwrap() {
                Outcome::Pending(progress) => match progress.status {
                    ProposalStatus::Waiting { .. } => Fate::Waiting,
                    ProposalStatus::Open { .. } => Fate::Open,
                },
                Outcome::Decided(entry) => match entry.outcome_of(&known.id).unwrap() {
                    Effect::Committed { .. } => Fate::Committed,
                    Effect::Expired { .. } => Fate::Expired,
                    Effect::Refused { .. } => Fate::Refused,
                    Effect::Withdrawn { .. } => Fate::Withdrawn,
                    _ => Fate::Dropped,
                },
            };
            assert_eq!(fate, known.fate);
        }
        for (name, ledger) in &self.naive.ledgers {
            for (number, text) in (1..).zip(&ledger.texts) {
                let (found, _) = self.book.committed(name, number, &self.archive).unwrap();
                assert_eq!(found, *text);
            }
        }
        for seed in SEEDS {
            let of = |ledger: &&NaiveLedger| ledger.participants.contains(&did(seed));
            assert_eq!(
                self.book.ledger_count_of(did(seed)),
                self.naive.ledgers.values().filter(of).count()
            );
            let present = self.naive.members.get(&did(seed));
            let known = self
                .book
                .member(did(seed))
                .map(|member| (member.card.clone(), member.active));
            assert_eq!(known.as_ref(), present);
        }
        // From the first entry on.
        let mut replayed = Book::default();
        for (height, entry) in (1..).zip(&self.archive.all) {
            let read = Entry::read(entry.text().clone()).unwrap();
            replayed.record(&read, Height(height)).unwrap();
        }
        let everything = Height(u64::MAX - 1);
        replayed.forget(everything);
        let mut live = self.book.clone();
        live.forget(everything);
        assert_eq!(replayed, live);
        assert_eq!(replayed.encode(), live.encode());
    }
}

#[test]
fn the_book_does_what_the_naive_one_does() {
    let seed = match std::env::var("CONSORTIUM_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("CONSORTIUM_SEED={seed}");
    let mut counts = BTreeMap::new();
    for network in 0..OPERATIONS / OPERATIONS_PER_NETWORK {
        let random = StdRng::seed_from_u64(u64::wrapping_add(seed, network as u64));
        let mut run = Run {
            random,
            naive: Naive::default(),
            book: Book::default(),
            archive: Archive::default(),
            now: START,
            height: 0,
            requests: 0,
            counts: std::mem::take(&mut counts),
        };
        let founding = Body::Found {
            members: (1..=5).map(card).collect(),
            settings: Settings {
                admission: if network % 2 == 0 {
                    Admission::Members
                } else {
                    Admission::Validators
                },
                documents: Documents::Any,
                ..Settings::default()
            },
        };
        let request = Request::sign(genesis().hash(), &founding, &validator());
        let command = Command::from_stored(&request).unwrap();
        let decision = run.book.decide(&command, BlockTime(run.now), &run.archive);
        let Ok(Decision::Entry(entry)) = decision else {
            panic!("{decision:?}")
        };
        run.record(&entry);
        run.naive.follow(&founding, entry.id(), run.now);
        for _ in 0..OPERATIONS_PER_NETWORK {
            run.step();
        }
        run.review();
        counts = run.counts;
    }
    println!("{counts:?}");
    for what in [
        "committed",
        "expired",
        "refused",
        "withdrawn",
        "dropped",
        "queued",
        "repeat",
        "announce",
        "wrong_root",
        "equivocation",
        "foreign_endorser",
        "foreign_proposer",
        "foreign_key",
        "already_endorsed",
        "closed",
        "not_open_yet",
        "request_reused",
        "ledger_exists",
        "too_few_members",
        "bad_deadline",
        "unknown_member",
        "unknown_proposal",
    ] {
        assert!(
            counts.get(what).is_some_and(|count| *count > 20),
            "{what} hardly happened"
        );
    }
}
