//! What a member's own endorser does without a person: it works everything out again on its own copy
//! of the book and says yes, no, or that somebody has to look.

use std::collections::BTreeSet;

use super::{
    book::{Asked, Book, growth},
    command::{Action, Body, Propose, Request},
    container::shortened,
    did::Did,
    limits::REASON_BYTES_MAX,
    prove::Prover,
    state::agreed,
    tree::Frontier,
};
use crate::{SigningKey, block::BlockHash};

/// What an endorser may decide by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorserRules {
    /// With whom new ledgers are shared: a new ledger's participants must all be in one of these
    /// groups. `None` takes any group (section 3.5, d).
    pub groups: Option<Vec<BTreeSet<Did>>>,
    /// What is done about entries that are sound.
    pub entries: Answer,
    /// What is done about members: theirs of a ledger, and those of the network.
    pub members: Answer,
}

impl Default for EndorserRules {
    /// Entries are endorsed, whoever shares the ledger; about members a person is asked.
    fn default() -> EndorserRules {
        EndorserRules {
            groups: None,
            entries: Answer::Endorse,
            members: Answer::Ask,
        }
    }
}

/// What to do about something sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Agree.
    Endorse,
    /// Ask a person, or a program of the member's own.
    Ask,
}

/// What an endorser says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Endorse,
    /// No, and why: a sentence for the proposer's user.
    Refuse(String),
    /// It is sound, and somebody else decides.
    Ask,
}

/// A member's endorser.
#[derive(Clone, Debug)]
pub struct Endorser {
    member: Did,
    rules: EndorserRules,
    prover: Prover,
}

impl Endorser {
    /// The endorser of `member`; `prover` is that of the network.
    pub fn new(member: Did, rules: EndorserRules, prover: Prover) -> Endorser {
        Endorser {
            member,
            rules,
            prover,
        }
    }

    /// Judges what the member is asked. `book` is the member's own copy, with everything recorded that
    /// came before and with the entry that opened the proposal; nothing is taken from the question that
    /// does not follow from it.
    pub fn judge(&mut self, asked: &Asked, book: &Book) -> Verdict {
        match self.objection(asked, book) {
            Some(reason) => Verdict::Refuse(reason),
            None => {
                let about_entries = asked
                    .entry
                    .propose()
                    .is_some_and(|propose| propose.action.batch().is_some());
                let answer = if about_entries {
                    self.rules.entries
                } else {
                    self.rules.members
                };
                match answer {
                    Answer::Endorse => Verdict::Endorse,
                    Answer::Ask => Verdict::Ask,
                }
            }
        }
    }

    fn objection(&mut self, asked: &Asked, book: &Book) -> Option<String> {
        let (Some(request), Some(propose)) = (asked.entry.request(), asked.entry.propose()) else {
            return Some("it is no proposal".to_owned());
        };
        let command = match self.prover.prove(request) {
            Ok(command) => command,
            Err(refusal) => return Some(refusal.detail),
        };
        let proposer = propose.member;
        // A key that the proposer has given up was its own when it proposed.
        if book
            .member(proposer)
            .is_none_or(|member| !member.keys.contains(&command.signer()))
        {
            return Some(format!(
                "{proposer} does not sign with {}",
                command.signer()
            ));
        }
        if let Some(reason) = self.objection_to_group(propose) {
            return Some(reason);
        }
        let (states, _) = growth(propose, asked.since, |name| {
            let ledger = book.ledger(name);
            ledger.map_or_else(Frontier::new, |ledger| ledger.frontier.clone())
        });
        if let Some((mine, _)) = states
            .iter()
            .zip(&asked.states)
            .find(|(mine, theirs)| mine != theirs)
        {
            return Some(format!(
                "the copy of {} has {} entries of ledger \"{}\" with root {}, and comes to {}",
                self.member,
                mine.size,
                shortened(&mine.name),
                mine.root,
                mine.uncommitted_root
            ));
        }
        if agreed(&states) != asked.agreed {
            return Some(format!(
                "the copy of {} comes to another outcome: {}",
                self.member,
                agreed(&states)
            ));
        }
        None
    }

    fn objection_to_group(&self, propose: &Propose) -> Option<String> {
        let (Action::Create { participants, .. } | Action::Regroup { participants, .. }) =
            &propose.action
        else {
            return None;
        };
        let groups = self.rules.groups.as_ref()?;
        let allowed = groups
            .iter()
            .any(|group| participants.iter().all(|did| group.contains(did)));
        (!allowed).then(|| format!("{} shares no ledger with this group", self.member))
    }

    /// The signed endorsement.
    pub fn endorse(&self, asked: &Asked, key: &SigningKey) -> Request {
        let body = Body::Endorse {
            member: self.member,
            proposal: asked.entry.id(),
            agreed: asked.agreed,
        };
        Request::sign(self.network(), &body, key)
    }

    /// The signed refusal; a reason that is too long is cut, and an empty one filled in.
    pub fn refuse(&self, asked: &Asked, reason: &str, key: &SigningKey) -> Request {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let reason = match &reason[..end] {
            "" => "no reason was given",
            reason => reason,
        };
        let body = Body::Refuse {
            member: self.member,
            proposal: asked.entry.id(),
            reason: reason.to_owned(),
        };
        Request::sign(self.network(), &body, key)
    }

    fn network(&self) -> BlockHash {
        self.prover.network()
    }
}
