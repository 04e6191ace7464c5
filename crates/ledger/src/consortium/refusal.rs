//! Why the book refuses a request, and what a broken book or a broken text is called.

use std::fmt;

/// Why nothing happened: a code that programs match on, and a sentence that says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The sentence.
    pub detail: String,
}

impl Refusal {
    /// A refusal with `code` because of `detail`.
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal {
            code,
            detail: detail.into(),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal,)+) => {
        /// The class of a refusal. The names are a public promise: new ones may be added, none renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])+ $variant,)+ }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$variant,)+];

            /// The name that programs match on. Stable across releases.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)+ }
            }

            /// The code of a name.
            pub fn from_name(name: &str) -> Option<Code> {
                Code::ALL.iter().copied().find(|code| code.as_str() == name)
            }
        }
    };
}

codes! {
    /// Not JSON, or not the members that a request has.
    Malformed = "malformed",
    /// Larger than a named limit.
    TooLarge = "too_large",
    /// For another network.
    WrongNetwork = "wrong_network",
    /// The signature is not over this request, or not by this key.
    BadSignature = "bad_signature",
    /// The network has no members yet.
    NotFounded = "not_founded",
    /// The network's members were named already.
    AlreadyFounded = "already_founded",
    /// The signer is none of the genesis's validators.
    NotAFounder = "not_a_founder",
    /// Members admit members by proposal in this network, or validators do.
    NotAdmittedSo = "not_admitted_so",
    /// Nobody with this DID is a member.
    UnknownMember = "unknown_member",
    /// The DID belongs to a member, present or removed.
    MemberExists = "member_exists",
    /// The key is not the member's present key.
    ForeignKey = "foreign_key",
    /// The key is or was another member's.
    KeyInUse = "key_in_use",
    /// The card is not the next revision of the member's.
    WrongRevision = "wrong_revision",
    /// The card cannot be a member's.
    BadCard = "bad_card",
    /// No ledger has this name.
    UnknownLedger = "unknown_ledger",
    /// A ledger has this name, or a proposal is about to create it.
    LedgerExists = "ledger_exists",
    /// The name cannot be a ledger's.
    BadLedgerName = "bad_ledger_name",
    /// The group is too small, too large, names somebody twice, or leaves the proposer out.
    BadGroup = "bad_group",
    /// The policy does not fit the group.
    BadPolicy = "bad_policy",
    /// The proposer is not in the ledger's group.
    ForeignProposer = "foreign_proposer",
    /// Who decides is not among those who are asked.
    ForeignEndorser = "foreign_endorser",
    /// An entry is not what this network takes.
    BadEntry = "bad_entry",
    /// An entry's signature is missing, wrong, by another key, of another time or over something else.
    BadEntrySignature = "bad_entry_signature",
    /// The Merkle root is another one.
    WrongRoot = "wrong_root",
    /// The deadline is past or too far away.
    BadDeadline = "bad_deadline",
    /// The proposer used this request's name for something else.
    RequestReused = "request_reused",
    /// Too many proposals wait for this ledger.
    QueueFull = "queue_full",
    /// Too many proposals wait in the network, or too many of this member.
    TooManyProposals = "too_many_proposals",
    /// No proposal has this id.
    UnknownProposal = "unknown_proposal",
    /// The proposal waits for another one; there is nothing to agree on yet.
    NotOpenYet = "not_open_yet",
    /// The deadline has passed.
    Expired = "expired",
    /// The proposal was decided already.
    Closed = "closed",
    /// The member endorsed this proposal already.
    AlreadyEndorsed = "already_endorsed",
    /// The member refused this proposal already.
    AlreadyRefused = "already_refused",
    /// The member said the opposite before.
    Equivocation = "equivocation",
    /// Only its proposer can withdraw a proposal.
    NotTheProposer = "not_the_proposer",
    /// The reason of a refusal is missing or too long.
    BadReason = "bad_reason",
    /// The member cannot be removed: too few would remain.
    TooFewMembers = "too_few_members",
    /// Nothing would change.
    NothingToDo = "nothing_to_do",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The book contradicts itself or the log: a fault of ours or of the disk, never of a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the consortium's book is broken: {rule}: {detail}")]
pub struct Violation {
    /// The broken rule, by its name.
    pub rule: &'static str,
    /// What was found.
    pub detail: String,
}

impl Violation {
    pub(super) fn new(rule: &'static str, detail: impl Into<String>) -> Violation {
        Violation {
            rule,
            detail: detail.into(),
        }
    }
}

/// The text is no entry of this book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry of the consortium's book: {0}")]
pub struct MalformedEntry(pub String);

/// The bytes are no snapshot of a book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedSnapshot {
    /// Of an unknown format, cut short or too long.
    #[error("not a snapshot of the consortium's book: {0}")]
    Format(String),
    /// Readable, but contradictory.
    #[error(transparent)]
    Broken(#[from] Violation),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.as_str()), Some(*code));
        }
    }
}
