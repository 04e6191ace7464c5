//! A ledger as a file that proves itself: every entry, who proposed it and who agreed, so that the
//! file and the members' keys are all that is needed to check it.
//!
//! The file is JSON lines. The first is a header: `export`, `network`, `ledger`, `size`, `root_hash`. Then
//! come, batch by batch, `{"txn": …}` for each entry with its metadata, and `{"agreement": …}` for what
//! made the batch part of the ledger: the proposal (the log's entry without the batch's entries, which
//! precede it), the endorsements (as they were signed), and the place of the ledger's state among the states
//! that were agreed on. An agreement on other participants has no entries before it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    book::{Book, History, Ledger, newest, numbered},
    canonical::{canon, canon_object},
    command::{Action, Body, Command, Policy, root_of},
    did::Did,
    entry::{Effect, Entry, IndexKey},
    instant::time_text,
    limits::{DEPTH_MAX, ENTRIES_PER_PROPOSAL_MAX, LEDGERS_PER_PROPOSAL_MAX},
    signature,
    signed::{METADATA, check_entry},
    state::State,
    tree::{Frontier, TreeHash, inclusion_proof, verify_inclusion},
};
use crate::{
    PublicKey,
    block::BlockHash,
    json::{Object, Value},
};

/// What the header's `export` says.
pub const EXPORT_FORMAT: &str = "daybook-ledger/1";

/// Findings that are told; whoever has more has a worse problem than their number.
pub const FINDINGS_MAX: usize = 100;

/// Nesting of a line: an entry of the log, two levels deeper.
const LINE_DEPTH_MAX: usize = DEPTH_MAX + 4;

/// The keys by which an exported ledger is checked: what the members' cards say, from wherever whoever
/// checks trusts to have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// All keys that each member ever had.
    pub members: BTreeMap<Did, BTreeSet<PublicKey>>,
    /// Members that were removed from the network: their endorsements may be missing.
    pub removed: BTreeSet<Did>,
}

impl Keys {
    /// The keys that a book knows.
    pub fn of(book: &Book) -> Keys {
        let members = book.members();
        let mut keys = Keys::default();
        for member in members {
            let did = member.card.did();
            keys.members
                .insert(did, member.keys.iter().copied().collect());
            if !member.active {
                keys.removed.insert(did);
            }
        }
        keys
    }

    fn holds(&self, did: Did, key: &PublicKey) -> bool {
        self.members
            .get(&did)
            .is_some_and(|keys| keys.contains(key))
    }
}

/// What an exported ledger was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The ledger's name.
    pub ledger: String,
    /// The network's name, in hexadecimal.
    pub network: String,
    /// How many entries there are.
    pub size: u64,
    /// The root over them.
    pub root: String,
    /// How many agreements there are.
    pub agreements: u64,
    /// How many entries each member proposed.
    pub proposed: BTreeMap<Did, u64>,
    /// What is wrong, up to [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One thing that is wrong with an exported ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {code}: {detail}")]
pub struct Finding {
    /// The line, from 1.
    pub line: u64,
    /// Its class; stable across releases.
    pub code: &'static str,
    /// What it is, in words.
    pub detail: String,
}

/// A ledger could not be exported because history lacks something: the log is damaged, or is still
/// being indexed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history lacks {0}")]
pub struct Incomplete(pub String);

/// Writes a ledger, line by line, each with its end. `entries` are those under
/// [`IndexKey::Ledger`] of its name, the oldest first; what does not belong to it is passed over.
/// The ledger is exported up to the newest of them.
///
/// # Errors
/// [`Incomplete`].
pub fn export(
    network: BlockHash,
    ledger: &Ledger,
    entries: impl IntoIterator<Item = Entry>,
    history: &dyn History,
    out: &mut dyn FnMut(String),
) -> Result<(), Incomplete> {
    let mut line = |value: Object| out(canon_object(&value) + "\n");
    line(Object::from_iter([
        ("export", Value::from(EXPORT_FORMAT)),
        ("network", Value::from(network.to_string())),
        ("ledger", Value::from(&*ledger.name)),
        ("size", Value::from(ledger.frontier.size())),
        ("root_hash", Value::from(ledger.frontier.root().to_string())),
    ]));
    for commit in entries {
        for effect in commit.effects() {
            let Effect::Committed {
                proposal,
                opened,
                endorsers,
                states,
            } = effect
            else {
                continue;
            };
            let Some(place) = states.iter().position(|state| *state.name == *ledger.name) else {
                continue;
            };
            let proposed = match proposal {
                None => commit.clone(),
                Some(id) => newest(history, IndexKey::Proposed(*id))
                    .ok_or_else(|| Incomplete(format!("proposal {id}")))?,
            };
            let propose = proposed
                .propose()
                .ok_or_else(|| Incomplete(format!("a proposal in {}", proposed.id())))?;
            let texts = propose
                .action
                .batch()
                .map_or(&[][..], |batch| batch.entries());
            let time = matches!(propose.action, Action::Append { .. }).then(|| time_text(*opened));
            for (_, text) in numbered(texts, states[place].size, time.as_deref()) {
                line(Object::from_iter([("txn", parsed(text.as_bytes())?)]));
            }
            let mut endorsements = Vec::new();
            for did in endorsers.iter().filter(|did| **did != propose.member) {
                let key = IndexKey::Vote(proposed.id(), *did);
                let vote = newest(history, key)
                    .ok_or_else(|| Incomplete(format!("the endorsement of {did}")))?;
                let request = vote
                    .request()
                    .ok_or_else(|| Incomplete(format!("a request in {}", vote.id())))?;
                endorsements.push(parsed(&request.text)?);
            }
            let leaves: Vec<TreeHash> = states
                .iter()
                .map(|state| TreeHash::leaf(state.text()))
                .collect();
            let path = inclusion_proof(&leaves, place).unwrap_or_default();
            let path = path.iter().map(|hash| hash.to_string().into()).collect();
            let agreement = Object::from_iter([
                ("endorsements", Value::Array(endorsements)),
                ("ledgers", Value::from(states.len() as u64)),
                ("path", Value::Array(path)),
                ("place", Value::from(place as u64)),
                ("proposal", without_entries(&proposed)?),
            ]);
            line(Object::from_iter([("agreement", Value::Object(agreement))]));
        }
    }
    Ok(())
}

fn parsed(text: &[u8]) -> Result<Value, Incomplete> {
    Value::parse(text, LINE_DEPTH_MAX).map_err(|error| Incomplete(error.to_string()))
}

/// An entry of the log with the entries of its batch taken out.
fn without_entries(entry: &Entry) -> Result<Value, Incomplete> {
    let mut value = parsed(entry.text())?;
    if let Some(action) = action_of(&mut value)
        && action.get("entries").is_some()
    {
        action.insert("entries", Value::Null);
    }
    Ok(value)
}

fn action_of(entry: &mut Value) -> Option<&mut Object> {
    let Value::Object(entry) = entry else {
        return None;
    };
    let Some(Value::Object(command)) = entry.get_mut("command") else {
        return None;
    };
    match command.get_mut("action") {
        Some(Value::Object(action)) => Some(action),
        _ => None,
    }
}

/// Checks an exported ledger as a whole.
pub fn verify_export(file: &[u8], keys: &Keys) -> Report {
    let mut check = ExportCheck::new(keys);
    let (lines, whole) = match file.strip_suffix(b"\n") {
        Some(lines) => (lines, true),
        None => (file, file.is_empty()),
    };
    for line in lines.split(|byte| *byte == b'\n') {
        check.line(line);
    }
    if !whole {
        check.find("truncated", "the last line has no end");
    }
    check.finish()
}

/// Checks an exported ledger line by line, for files that do not fit into memory.
pub struct ExportCheck<'k> {
    keys: &'k Keys,
    report: Report,
    line: u64,
    /// What the header promises.
    promised: Option<(u64, TreeHash)>,
    frontier: Frontier,
    group: Option<(Vec<Did>, Policy)>,
    /// The entries of the batch at hand: their lines and objects.
    batch: Vec<Object>,
    /// The `txnTime` of the newest entries.
    last_time: String,
}

impl<'k> ExportCheck<'k> {
    /// A check by these keys.
    pub fn new(keys: &'k Keys) -> ExportCheck<'k> {
        ExportCheck {
            keys,
            report: Report::default(),
            line: 0,
            promised: None,
            frontier: Frontier::new(),
            group: None,
            batch: Vec::new(),
            last_time: String::new(),
        }
    }

    /// Takes the next line, without its end.
    pub fn line(&mut self, text: &[u8]) {
        self.line = self.line.saturating_add(1);
        let outcome = match Value::parse(text, LINE_DEPTH_MAX) {
            Err(error) => Err(("malformed", error.to_string())),
            Ok(Value::Object(line)) if self.line == 1 => self.header(&line),
            Ok(Value::Object(line)) => match (line.get("txn"), line.get("agreement")) {
                (Some(Value::Object(entry)), None) => self.entry(entry.clone()),
                (None, Some(Value::Object(agreement))) => {
                    let outcome = self.agreement(agreement);
                    self.batch.clear();
                    outcome
                }
                _ => Err(("malformed", "neither an entry nor an agreement".to_owned())),
            },
            Ok(_) => Err(("malformed", "not an object".to_owned())),
        };
        if let Err((code, detail)) = outcome {
            self.find(code, detail);
        }
    }

    /// What was found.
    pub fn finish(mut self) -> Report {
        if !self.batch.is_empty() {
            self.find(
                "not_agreed",
                "the last entries are followed by no agreement",
            );
        }
        let (size, root) = (self.frontier.size(), self.frontier.root());
        match self.promised {
            None => self.find("malformed", "there is no header"),
            Some(promised) if promised != (size, root) => {
                let (promised_size, promised_root) = promised;
                self.find(
                    "wrong_root",
                    format!(
                        "the header promises {promised_size} entries with root {promised_root}, \
                         and there are {size} with root {root}"
                    ),
                );
            }
            Some(_) => {}
        }
        self.report.size = size;
        self.report.root = root.to_string();
        self.report
    }

    fn find(&mut self, code: &'static str, detail: impl Into<String>) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding {
                line: self.line,
                code,
                detail: detail.into(),
            });
        }
    }

    fn header(&mut self, header: &Object) -> Result<(), Fault> {
        let text = |name| header.get(name).and_then(Value::as_str);
        if text("export") != Some(EXPORT_FORMAT) {
            return Err((
                "malformed",
                format!("the header's \"export\" is not {EXPORT_FORMAT}"),
            ));
        }
        let missing = |name: &str| ("malformed", format!("the header's \"{name}\" is missing"));
        self.report.ledger = text("ledger").ok_or_else(|| missing("ledger"))?.to_owned();
        self.report.network = text("network")
            .ok_or_else(|| missing("network"))?
            .to_owned();
        let size = header.get("size").and_then(Value::as_u64);
        let size = size.ok_or_else(|| missing("size"))?;
        let root = text("root_hash").and_then(|text| text.parse().ok());
        self.promised = Some((size, root.ok_or_else(|| missing("root_hash"))?));
        Ok(())
    }

    fn entry(&mut self, entry: Object) -> Result<(), Fault> {
        if self.batch.len() >= ENTRIES_PER_PROPOSAL_MAX {
            return Err((
                "not_agreed",
                "more entries than one agreement can have".to_owned(),
            ));
        }
        let signed = check_entry(&entry, LINE_DEPTH_MAX);
        self.batch.push(entry);
        let (signer, _) = signed.map_err(|error| ("bad_entry_signature", error.to_string()))?;
        let mut keys = self.keys.members.values();
        if keys.any(|keys| keys.contains(&signer)) {
            Ok(())
        } else {
            Err(("unknown_key", format!("{signer} is no member's key")))
        }
    }

    fn agreement(&mut self, agreement: &Object) -> Result<(), Fault> {
        let malformed = |what: &str| ("malformed", format!("\"{what}\" of the agreement"));
        let proposed = self.rebuild(agreement.get("proposal").unwrap_or(&Value::Null))?;
        let command = proposed.command().ok_or_else(|| malformed("proposal"))?;
        let propose = proposed.propose().ok_or_else(|| malformed("proposal"))?;
        self.signed(command, propose.member)?;
        let action = &propose.action;
        if !action.ledgers().contains(&self.report.ledger) {
            return Err((
                "wrong_ledger",
                "the proposal is for other ledgers".to_owned(),
            ));
        }
        if let Some(batch) = action.batch()
            && root_of(batch.entries()) != batch.root()
        {
            return Err((
                "wrong_root",
                "the proposal has another root than its entries".to_owned(),
            ));
        }

        // What the ledger becomes.
        let time = match action {
            Action::Append { .. } => Some(self.batch_time().ok_or_else(|| malformed("txnTime"))?),
            _ => None,
        };
        let texts = action.batch().map_or(&[][..], |batch| batch.entries());
        let mut after = self.frontier.clone();
        let numbered = numbered(texts, self.frontier.size(), time.as_deref());
        for ((_, text), given) in numbered.iter().zip(&self.batch) {
            if *text != canon_object(given) {
                let what = "its number or its time is another one than was agreed on";
                return Err(("wrong_metadata", what.to_owned()));
            }
            after.push(TreeHash::leaf(text));
        }
        let state = State {
            name: self.report.ledger.clone(),
            root: self.frontier.root(),
            size: self.frontier.size(),
            uncommitted_root: after.root(),
            uncommitted_size: after.size(),
        };

        // Who agreed to it.
        let endorsements = agreement.get("endorsements").and_then(Value::as_array);
        let endorsements = endorsements.ok_or_else(|| malformed("endorsements"))?;
        let mut endorsed = BTreeSet::from([propose.member]);
        let mut outcome = None;
        for endorsement in endorsements {
            let command =
                Command::read(endorsement).map_err(|refusal| ("malformed", refusal.detail))?;
            let Body::Endorse {
                member,
                proposal,
                agreed,
            } = command.body()
            else {
                return Err(malformed("endorsements"));
            };
            self.signed(&command, *member)?;
            if *proposal != proposed.id() {
                return Err((
                    "foreign_endorsement",
                    format!(
                        "{member} endorsed proposal {proposal}, not {}",
                        proposed.id()
                    ),
                ));
            }
            if *outcome.get_or_insert(*agreed) != *agreed {
                return Err(("equivocation", format!("{member} endorsed another outcome")));
            }
            endorsed.insert(*member);
        }
        let agreed = outcome.ok_or(("not_agreed", "nobody but the proposer agreed".to_owned()))?;
        let path = agreement.get("path").and_then(Value::as_array);
        let path = path.ok_or_else(|| malformed("path"))?.iter();
        let path: Option<Vec<TreeHash>> = path.map(|hash| hash.as_str()?.parse().ok()).collect();
        let path = path.ok_or_else(|| malformed("path"))?;
        let count = |name| {
            let count = agreement.get(name).and_then(Value::as_u64);
            count.filter(|count| *count <= LEDGERS_PER_PROPOSAL_MAX as u64)
        };
        let ledgers = count("ledgers").ok_or_else(|| malformed("ledgers"))?;
        let place = count("place").ok_or_else(|| malformed("place"))?;
        let leaf = TreeHash::leaf(state.text());
        if !verify_inclusion(leaf, place.saturating_add(1), ledgers, &path, agreed) {
            return Err((
                "wrong_root",
                format!("members agreed to something else than {}", state.text()),
            ));
        }
        self.enough(action, propose.member, &endorsed)?;

        match action {
            Action::Create {
                participants,
                policy,
                ..
            }
            | Action::Regroup {
                participants,
                policy,
                ..
            } => self.group = Some((participants.clone(), *policy)),
            _ => {}
        }
        if let Some(time) = time {
            // These texts sort as the moments do.
            if time < self.last_time {
                let what = "its entries are older than those before them";
                return Err(("wrong_time", what.to_owned()));
            }
            self.last_time = time;
        }
        self.frontier = after;
        self.report.agreements = self.report.agreements.saturating_add(1);
        let proposed = self.report.proposed.entry(propose.member).or_default();
        *proposed = proposed.saturating_add(texts.len() as u64);
        Ok(())
    }

    /// What the entries at hand say of their time; that all say the same is checked with their texts.
    fn batch_time(&self) -> Option<String> {
        let metadata = self.batch.first()?.get(METADATA)?.as_object()?;
        Some(metadata.get("txnTime")?.as_str()?.to_owned())
    }

    /// Whether those who endorsed were enough, by the rules that held then.
    fn enough(
        &self,
        action: &Action,
        proposer: Did,
        endorsed: &BTreeSet<Did>,
    ) -> Result<(), Fault> {
        let (participants, policy) = match (action, &self.group) {
            (
                Action::Create {
                    participants,
                    policy,
                    ..
                },
                None,
            ) => (participants, policy),
            (Action::Create { .. }, Some(_)) => {
                return Err(("wrong_ledger", "the ledger is created twice".to_owned()));
            }
            (_, Some((participants, policy))) => (participants, policy),
            (_, None) => {
                return Err(("wrong_ledger", "the ledger is not created first".to_owned()));
            }
        };
        if !participants.contains(&proposer) {
            return Err((
                "foreign_proposer",
                format!("{proposer} takes no part in the ledger"),
            ));
        }
        let active = |did: &&Did| !self.keys.removed.contains(did) || endorsed.contains(did);
        let asked: Vec<&Did> = participants.iter().filter(active).collect();
        let agreed = asked.iter().filter(|did| endorsed.contains(did)).count();
        let needed = match action {
            Action::Regroup { .. } => policy.needed(asked.len()).min(asked.len()),
            _ => policy.needed(asked.len()),
        };
        if agreed < needed {
            return Err((
                "not_agreed",
                format!(
                    "{agreed} of {} agreed, and {needed} were needed",
                    asked.len()
                ),
            ));
        }
        if let Action::Regroup {
            participants: next, ..
        } = action
        {
            let newcomers = next.iter().filter(|did| !participants.contains(did));
            if let Some(did) = newcomers.into_iter().find(|did| !endorsed.contains(did)) {
                return Err(("not_agreed", format!("{did} did not agree to take part")));
            }
        }
        Ok(())
    }

    /// The log's entry with the proposal: the entries at hand are put back into it.
    fn rebuild(&self, proposal: &Value) -> Result<Entry, Fault> {
        let mut value = proposal.clone();
        if let Some(action) = action_of(&mut value)
            && action.get("entries").is_some()
        {
            let bare = self.batch.iter().map(|entry| {
                let mut bare = entry.clone();
                bare.remove(METADATA);
                Value::Object(bare)
            });
            action.insert("entries", Value::Array(bare.collect()));
        } else if !self.batch.is_empty() {
            return Err((
                "not_agreed",
                "the agreement before them is not about entries".to_owned(),
            ));
        }
        Entry::read(Bytes::from(canon(&value))).map_err(|error| {
            (
                "malformed",
                format!("\"proposal\" of the agreement: {error}"),
            )
        })
    }

    /// Whether a member signed a request for this network.
    fn signed(&self, command: &Command, member: Did) -> Result<(), Fault> {
        if command.network.to_string() != self.report.network {
            return Err((
                "wrong_network",
                "a request is for another network".to_owned(),
            ));
        }
        let signer = command.signer();
        if !self.keys.holds(member, &signer) {
            return Err(("unknown_key", format!("{signer} is no key of {member}")));
        }
        if signature::holds(&signer, &command.signed_bytes(), &command.signature) {
            Ok(())
        } else {
            Err((
                "bad_signature",
                format!("a \"{}\" is not signed by {member}", command.body().kind()),
            ))
        }
    }
}

/// A finding's code and detail.
type Fault = (&'static str, String);
