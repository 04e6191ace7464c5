//! The consortium's book: ledgers that organisations share and agree on.
//!
//! A network has members. A member proposes entries for a ledger, or a new ledger; the others endorse
//! or refuse; with the last endorsement that the ledger's policy asks for, the entries are committed,
//! and at the deadline an unfinished proposal expires. Every step is an [`Entry`] in the log, so
//! nothing is lost when anybody stops. Sections in comments are those of the consortium ledgers'
//! protocol.
//!
//! [`Prover`] proves requests without state, [`Book::decide`] only reads, [`Book::record`] is the only
//! way in which a book changes.

mod book;
mod canonical;
mod command;
pub mod container;
mod did;
mod endorser;
mod entry;
mod export;
mod instant;
mod limits;
mod member;
mod prove;
mod refusal;
mod signature;
mod signed;
mod state;
mod tree;

pub use book::{
    Asked, Book, Decision, History, Ledger, Outcome, Progress, ProposalStatus, Seat, committed_with,
};
pub use canonical::{canon, canon_object, dumps, has_fractions};
pub use command::{
    Action, Admission, Batch, Body, Command, EntryText, Policy, Propose, Request, Settings,
};
pub use container::Documents;
pub use did::{Did, NotADid};
pub use endorser::{Answer, Endorser, EndorserRules, Verdict};
pub use entry::{Effect, Entry, IndexKey, request_key};
pub use export::{
    EXPORT_FORMAT, ExportCheck, FINDINGS_MAX, Finding, Incomplete, Keys, Report, export,
    verify_export,
};
pub use instant::{Day, time_text};
pub use limits::*;
pub use member::{Card, Member, Profile};
pub use prove::Prover;
pub use refusal::{Code, MalformedEntry, MalformedSnapshot, Refusal, Violation};
pub use signed::{
    BadSignature, ENTRY_SIGNATURE, METADATA, ORIGIN_SIGNATURE, SIGNATURE_TYPE, SignatureObject,
    check_entry, sign_entry,
};
pub use state::{State, agreed, ledger_hash, legacy_parallel_hash};
pub use tree::{
    Frontier, NotATreeHash, TreeHash, consistency_proof, inclusion_proof, verify_consistency,
    verify_inclusion,
};
