//! The consortium's book over HTTP: answers as JSON (docs/protocols/consortium-node.md).

use std::{borrow::Cow, fmt::Display, io::Write};

use daybook_ledger::{
    BlockTime, Height, Position, TransactionId,
    block::Genesis,
    consortium::{
        Body, Code, Did, Effect, Entry, Ledger, Member, Outcome, Progress, ProposalStatus, Refusal,
        Settings, TreeHash, canon, canon_object,
    },
    json::Value,
};

use crate::{
    assets::{
        Query, Refusal as BadQuery, append_id, append_number, append_text, decode, error_body,
    },
    events::{self, append_list},
};

/// Items of one page at most: what a reader gets through at once.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// Items of one page when the reader does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;

/// The header with which a member shows that it may read notices: its signed wish, in base64.
/// `Authorization` is the write token's.
pub const NOTICE_READER: &str = "daybook-member";

/// The HTTP status of a refusal of the book.
pub const fn status(code: Code) -> u16 {
    match code {
        Code::Malformed
        | Code::WrongNetwork
        | Code::BadSignature
        | Code::BadCard
        | Code::BadLedgerName
        | Code::BadGroup
        | Code::BadPolicy
        | Code::BadEntry
        | Code::BadEntrySignature
        | Code::WrongRoot
        | Code::BadDeadline
        | Code::BadReason => 400,
        Code::NotAFounder
        | Code::NotAdmittedSo
        | Code::ForeignKey
        | Code::ForeignProposer
        | Code::ForeignEndorser
        | Code::NotTheProposer => 403,
        Code::UnknownMember | Code::UnknownLedger | Code::UnknownProposal => 404,
        Code::NotFounded
        | Code::AlreadyFounded
        | Code::MemberExists
        | Code::KeyInUse
        | Code::WrongRevision
        | Code::LedgerExists
        | Code::RequestReused
        | Code::NotOpenYet
        | Code::Expired
        | Code::Closed
        | Code::AlreadyEndorsed
        | Code::AlreadyRefused
        | Code::Equivocation
        | Code::TooFewMembers
        | Code::NothingToDo => 409,
        Code::TooLarge => 413,
        Code::QueueFull | Code::TooManyProposals => 503,
    }
}

/// `{"message": …, "status": …, "code": …}`.
pub fn refusal_body(refusal: &Refusal) -> Vec<u8> {
    let mut body = error_body(status(refusal.code), &refusal.detail);
    body.pop();
    body.extend_from_slice(b", \"code\": ");
    append_text(&mut body, refusal.code.as_str());
    body.push(b'}');
    body
}

/// The answer to a request that was taken.
pub fn outcome_body(position: Position, repeated: bool, entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.text().len() + 256);
    out.push(b'{');
    append_place(&mut out, position, entry);
    let _ = write!(out, ",\"repeated\":{repeated},\"kind\":");
    append_text(&mut out, entry.kind());
    out.extend_from_slice(b",\"entry\":");
    out.extend_from_slice(entry.text());
    out.push(b'}');
    out
}

/// Appends an entry of the log with its place, and a comma.
pub fn append_entry(out: &mut Vec<u8>, position: Position, entry: &Entry) {
    out.push(b'{');
    append_place(out, position, entry);
    out.extend_from_slice(b",\"entry\":");
    out.extend_from_slice(entry.text());
    out.extend_from_slice(b"},");
}

fn append_place(out: &mut Vec<u8>, position: Position, entry: &Entry) {
    let _ = write!(out, "\"position\":\"{position}\",\"id\":");
    append_id(out, &entry.id());
}

/// What the network is, and how far it is.
#[derive(Debug)]
pub struct Facts {
    /// How its chain began: whose hash its name is.
    pub genesis: Genesis,
    /// Its rules, once it has members.
    pub settings: Option<Settings>,
    /// Members, present and removed.
    pub members: usize,
    /// Ledgers.
    pub ledgers: u64,
    /// Proposals that are open or wait.
    pub pending: usize,
    /// Height of the newest block.
    pub height: Height,
    /// Its time.
    pub block_time: BlockTime,
    /// What the node's clock says.
    pub now: BlockTime,
}

impl Facts {
    /// The answer.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let genesis = &self.genesis;
        let _ = write!(
            out,
            "{{\"network\":\"{}\",\"genesis\":{{\"chain\":",
            genesis.hash()
        );
        append_text(&mut out, &genesis.chain);
        let _ = write!(out, ",\"time\":{},\"validators\":", genesis.time.0);
        append_list(&mut out, &genesis.validators, |out, validator| {
            let _ = write!(
                out,
                "{{\"public_key\":\"{}\",\"power\":{}}}",
                validator.key, validator.power
            );
        });
        out.push(b'}');
        let _ = write!(
            out,
            ",\"founded\":{},\"settings\":",
            self.settings.is_some()
        );
        match &self.settings {
            Some(settings) => out.extend(canon_object(&settings.to_object()).into_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        let _ = write!(
            out,
            ",\"members\":{},\"ledgers\":{},\"pending\":{},\"height\":{},\"block_time\":{},\"now\":{}}}",
            self.members, self.ledgers, self.pending, self.height, self.block_time.0, self.now.0
        );
        out
    }
}

/// Appends a member: its card, every key that it had, and in how many ledgers it takes part.
pub fn append_member(out: &mut Vec<u8>, member: &Member, ledgers: usize) {
    let _ = write!(out, "{{\"did\":\"{}\",\"card\":", member.card.did());
    out.extend(canon_object(&member.card.to_object()).into_bytes());
    let _ = write!(out, ",\"verkey\":\"{}\",\"keys\":", member.card.verkey());
    append_names(out, &member.keys);
    let _ = write!(out, ",\"active\":{},\"ledgers\":{ledgers}}}", member.active);
}

/// Appends a ledger; `pending` proposals wait for it.
pub fn append_ledger(out: &mut Vec<u8>, ledger: &Ledger, pending: usize) {
    out.extend_from_slice(b"{\"name\":");
    append_text(out, &ledger.name);
    let _ = write!(
        out,
        ",\"number\":{},\"size\":{},\"root_hash\":\"{}\",\"creator\":\"{}\",\"created\":{},\"changed\":{},\"participants\":",
        ledger.number,
        ledger.frontier.size(),
        ledger.frontier.root(),
        ledger.creator,
        ledger.created.0,
        ledger.changed.0,
    );
    append_names(out, &ledger.participants);
    out.extend_from_slice(b",\"policy\":");
    append_value(out, &ledger.policy.to_value());
    let _ = write!(out, ",\"pending\":{pending}}}");
}

/// Appends a ledger's entry, which is JSON, and a comma.
pub fn append_ledger_entry(
    out: &mut Vec<u8>,
    sequence: u64,
    text: &str,
    position: Option<Position>,
    commit: &Entry,
) {
    let _ = write!(
        out,
        "{{\"seq_no\":{sequence},\"txn\":{text},\"time\":{}",
        commit.at().0
    );
    out.extend_from_slice(b",\"committed_by\":");
    append_id(out, &commit.id());
    if let Some(position) = position {
        let _ = write!(out, ",\"position\":\"{position}\"");
    }
    out.extend_from_slice(b"},");
}

/// What a member said about a proposal.
#[derive(Debug)]
pub struct Vote {
    /// Who.
    pub member: Did,
    /// About what.
    pub proposal: TransactionId,
    /// Why not; `None` for an endorsement.
    pub reason: Option<String>,
    /// When.
    pub at: BlockTime,
}

impl Vote {
    /// The vote in an entry, if it is one.
    pub fn of(entry: &Entry) -> Option<Vote> {
        let (member, proposal, reason) = match entry.command()?.body() {
            Body::Endorse {
                member, proposal, ..
            } => (*member, *proposal, None),
            Body::Refuse {
                member,
                proposal,
                reason,
            } => (*member, *proposal, Some(reason.clone())),
            _ => return None,
        };
        Some(Vote {
            member,
            proposal,
            reason,
            at: entry.at(),
        })
    }
}

/// Appends a short telling of a pending proposal: id, status, who proposed it, until when.
pub fn append_progress(out: &mut Vec<u8>, progress: &Progress) {
    out.extend_from_slice(b"{\"id\":");
    append_id(out, &progress.entry.id());
    append_progress_parts(out, progress);
    out.push(b'}');
}

fn append_progress_parts(out: &mut Vec<u8>, progress: &Progress) {
    if let Some(propose) = progress.entry.propose() {
        let _ = write!(
            out,
            ",\"member\":\"{}\",\"deadline\":{},\"do\":\"{}\"",
            propose.member,
            propose.deadline.0,
            propose.action.kind()
        );
    }
    match &progress.status {
        ProposalStatus::Waiting { behind } => {
            let _ = write!(out, ",\"status\":\"waiting\",\"behind\":{behind}");
        }
        ProposalStatus::Open { since, seats } => {
            let _ = write!(out, ",\"status\":\"open\",\"since\":{},\"seats\":", since.0);
            append_list(out, seats, |out, seat| {
                out.extend_from_slice(b"{\"ledger\":");
                append_text(out, &seat.ledger);
                let _ = write!(out, ",\"needed\":{},\"participants\":", seat.needed);
                append_names(out, &seat.participants);
                out.push(b'}');
            });
        }
    }
    for (name, dids) in [
        ("endorsed", &progress.endorsed),
        ("refused", &progress.refused),
        ("missing", &progress.missing),
    ] {
        let _ = write!(out, ",\"{name}\":");
        append_names(out, dids);
    }
}

/// The answer about one proposal: what was proposed and where, how far it has come or what became of it,
/// what an endorsement must name once it is open, and what members said.
pub fn proposal_body(
    proposed: &Entry,
    position: Position,
    outcome: &Outcome,
    agreed: Option<TreeHash>,
    votes: &[Vote],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(proposed.text().len() + 1_024);
    out.push(b'{');
    append_place(&mut out, position, proposed);
    match outcome {
        Outcome::Pending(progress) => append_progress_parts(&mut out, progress),
        Outcome::Decided(entry) => {
            let effect = entry.outcome_of(&proposed.id());
            let status = effect.map_or("unknown", Effect::kind);
            let _ = write!(out, ",\"status\":\"{status}\",\"decided\":{}", entry.at().0);
            out.extend_from_slice(b",\"decided_by\":");
            append_id(&mut out, &entry.id());
            out.extend_from_slice(b",\"outcome\":");
            append_value(&mut out, &effect.map_or(Value::Null, Effect::to_value));
        }
    }
    if let Some(agreed) = agreed {
        let _ = write!(out, ",\"agreed\":\"{agreed}\"");
    }
    out.extend_from_slice(b",\"votes\":");
    append_list(&mut out, votes, |out, vote| {
        let word = match vote.reason {
            Some(_) => "refuse",
            None => "endorse",
        };
        let _ = write!(
            out,
            "{{\"member\":\"{}\",\"vote\":\"{word}\",\"at\":{}",
            vote.member, vote.at.0
        );
        if let Some(reason) = &vote.reason {
            out.extend_from_slice(b",\"reason\":");
            append_text(out, reason);
        }
        out.push(b'}');
    });
    out.extend_from_slice(b",\"proposed\":");
    out.extend_from_slice(proposed.text());
    out.push(b'}');
    out
}

/// What a proof is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That an entry is in the tree (RFC 6962, section 2.1.1).
    Inclusion {
        /// Its sequence number.
        sequence: u64,
    },
    /// That the tree begins with a smaller one (section 2.1.2).
    Consistency {
        /// The size of the smaller one.
        first: u64,
    },
}

/// The inclusion proof of an entry (section 4.5 of the consortium ledgers' protocol).
pub fn inclusion_body(
    ledger: &str,
    sequence: u64,
    leaf: TreeHash,
    size: u64,
    root: TreeHash,
    path: &[TreeHash],
) -> Vec<u8> {
    let mut out = b"{\"ledger\":".to_vec();
    append_text(&mut out, ledger);
    let _ = write!(
        out,
        ",\"seq_no\":{sequence},\"leaf_hash\":\"{leaf}\",\"size\":{size},\"root_hash\":\"{root}\",\"audit_path\":"
    );
    append_names(&mut out, path);
    out.push(b'}');
    out
}

/// The proof that a ledger of `size` entries begins with the one of `first` entries.
pub fn consistency_body(
    ledger: &str,
    (first, first_root): (u64, TreeHash),
    (size, root): (u64, TreeHash),
    path: &[TreeHash],
) -> Vec<u8> {
    let mut out = b"{\"ledger\":".to_vec();
    append_text(&mut out, ledger);
    let _ = write!(
        out,
        ",\"first\":{first},\"first_root_hash\":\"{first_root}\",\"size\":{size},\"root_hash\":\"{root}\",\"consistency_path\":"
    );
    append_names(&mut out, path);
    out.push(b'}');
    out
}

/// Appends DIDs, keys or hashes, whose texts need no escapes.
fn append_names(out: &mut Vec<u8>, names: &[impl Display]) {
    append_list(out, names, |out, name| {
        let _ = write!(out, "\"{name}\"");
    });
}

fn append_value(out: &mut Vec<u8>, value: &Value) {
    out.extend(canon(value).into_bytes());
}

/// The tail of a page of the log: where the next one begins, and whether there is nothing yet.
pub fn append_log_tail(out: &mut Vec<u8>, next: Position, is_last: bool) {
    let _ = write!(out, "],\"next\":\"{next}\",\"is_last\":{is_last}}}");
}

/// The tail of a page whose next one begins at a number.
pub fn append_number_tail(out: &mut Vec<u8>, next: Option<u64>) {
    out.extend_from_slice(b"],\"next\":");
    match next {
        Some(next) => append_number(out, next),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// The tail of a page whose next one begins behind a member.
pub fn append_member_tail(out: &mut Vec<u8>, next: Option<Did>) {
    match next {
        Some(next) => {
            let _ = write!(out, "],\"next\":\"{next}\"}}");
        }
        None => out.extend_from_slice(b"],\"next\":null}"),
    }
}

/// A ledger's name as it stands in a path.
pub fn ledger_name(segment: &str) -> Cow<'_, str> {
    decode(segment, false)
}

/// Reads `limit`: from 1 to [`PAGE_ITEMS_MAX`].
///
/// # Errors
/// [`BadQuery`] for anything else.
pub fn limit(query: &Query<'_>) -> Result<usize, BadQuery> {
    let Some(text) = query.first("limit") else {
        return Ok(PAGE_ITEMS_DEFAULT);
    };
    let limit = number("limit", text)?;
    match usize::try_from(limit) {
        Ok(limit) if (1..=PAGE_ITEMS_MAX).contains(&limit) => Ok(limit),
        _ => Err(BadQuery::parameter("limit", "From 1 to 1000")),
    }
}

/// Reads a number that may be left out.
///
/// # Errors
/// [`BadQuery`] for anything that is not one.
pub fn optional_number(query: &Query<'_>, name: &'static str) -> Result<Option<u64>, BadQuery> {
    query.first(name).map(|text| number(name, text)).transpose()
}

/// Reads a DID that may be left out.
///
/// # Errors
/// [`BadQuery`] for anything that is not one.
pub fn optional_did(query: &Query<'_>, name: &'static str) -> Result<Option<Did>, BadQuery> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_| BadQuery::parameter(name, "A DID: base58 of 16 bytes"))
    };
    query.first(name).map(parse).transpose()
}

/// Reads `from`: a position; without it, the beginning.
///
/// # Errors
/// [`BadQuery`] for anything that is not one.
pub fn from(query: &Query<'_>) -> Result<Position, BadQuery> {
    match query.first("from") {
        Some(text) => events::position("from", text),
        None => Ok(Position {
            height: Height(1),
            index: 0,
        }),
    }
}

/// Reads what a proof is asked for: `seq_no`, or `first`; and `size`.
///
/// # Errors
/// [`BadQuery`] for neither, both, or anything that is not a count.
pub fn wanted(query: &Query<'_>) -> Result<(Wanted, Option<u64>), BadQuery> {
    let sequence = optional_number(query, "seq_no")?;
    let first = optional_number(query, "first")?;
    let size = optional_number(query, "size")?;
    query.refuse_unknown(&["seq_no", "first", "size"])?;
    let wanted = match (sequence, first) {
        (Some(sequence), None) => Wanted::Inclusion { sequence },
        (None, Some(first)) => Wanted::Consistency { first },
        _ => {
            let what = "Either seq_no, for an inclusion proof, or first, for a consistency proof";
            return Err(BadQuery::parameter("seq_no", what));
        }
    };
    Ok((wanted, size))
}

fn number(name: &'static str, text: &str) -> Result<u64, BadQuery> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(BadQuery::parameter(
            name,
            "A whole number in decimal digits",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_refusal_carries_its_code_behind_what_every_error_has() {
        let refusal = Refusal::new(Code::Closed, "proposal \"x\" was committed already");
        assert_eq!(
            String::from_utf8(refusal_body(&refusal)).unwrap(),
            r#"{"message": "proposal \"x\" was committed already", "status": 409, "code": "closed"}"#
        );
    }

    #[test]
    fn every_code_has_a_status_of_an_error() {
        for code in Code::ALL {
            let status = status(*code);
            assert!((400..=503).contains(&status), "{code} {status}");
        }
    }

    #[test]
    fn parameters_are_read_or_refused() {
        let limit_of = |text: &str| limit(&Query::parse(text));
        assert_eq!(limit_of(""), Ok(PAGE_ITEMS_DEFAULT));
        assert_eq!(limit_of("limit=1000"), Ok(1_000));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=+1"] {
            assert!(limit_of(wrong).is_err(), "{wrong}");
        }
        let wanted_of = |text: &str| wanted(&Query::parse(text)).ok();
        assert_eq!(
            wanted_of("seq_no=3&size=5"),
            Some((Wanted::Inclusion { sequence: 3 }, Some(5)))
        );
        assert_eq!(
            wanted_of("first=3"),
            Some((Wanted::Consistency { first: 3 }, None))
        );
        for wrong in ["", "seq_no=1&first=1", "seq_no=x", "seq_no=1&sise=5"] {
            assert_eq!(wanted_of(wrong), None, "{wrong}");
        }
        let start = from(&Query::parse("from=7.3")).unwrap();
        assert_eq!(start.to_string(), "7.3");
        assert!(optional_did(&Query::parse("member=0"), "member").is_err());
    }
}
