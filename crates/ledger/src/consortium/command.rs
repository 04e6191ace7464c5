//! What members and validators ask for, as signed texts.

use std::{fmt, sync::Arc};

use base64::Engine as _;
use bytes::Bytes;

use super::{
    canonical::{canon, canon_object},
    container::{Documents, shortened},
    did::Did,
    limits::*,
    member::Card,
    refusal::{Code, Refusal},
    signed::{BASE64, METADATA},
    tree::TreeHash,
};
use crate::{
    BlockTime, PublicKey, SigningKey, TransactionId,
    block::BlockHash,
    json::{Object, Value},
};

/// What the signature of a request begins with, so that it can never be taken for one over anything
/// else.
const REQUEST_DOMAIN: &[u8] = b"daybook/consortium/request/1\0";

/// A signed request as it arrived: JSON text with the members `command`, `signer` (a verkey) and
/// `signature` (base64url over the command's canonical text). [`Prover::prove`](super::Prover::prove)
/// reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The text.
    pub text: Bytes,
}

impl Request {
    /// Signs what `body` asks of `network`.
    pub fn sign(network: BlockHash, body: &Body, key: &SigningKey) -> Request {
        let command = canon_object(&body.to_object(network));
        let signature = key.sign(&signed_bytes(&command));
        Request {
            text: Bytes::from(wrapped(&command, &key.public_key(), &signature)),
        }
    }
}

/// A request that was read; made by [`Prover::prove`](super::Prover::prove), which also verifies it.
#[derive(Clone, Debug)]
pub struct Command {
    pub(super) signer: PublicKey,
    pub(super) signature: [u8; 64],
    pub(super) network: BlockHash,
    pub(super) body: Body,
    /// The canonical text that the signature covers.
    pub(super) text: String,
    /// What the entries were found to be; known only when they were looked at.
    pub(super) quality: Quality,
}

/// What a prover finds out about the entries of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quality {
    /// The strictest level that all of them reach.
    pub(super) documents: Documents,
    /// Why they reach no stricter one.
    pub(super) fault: String,
    /// The earliest and the latest second at which one of them was signed.
    pub(super) signed: Option<(u64, u64)>,
}

impl Quality {
    /// Of entries that nothing can be said against.
    pub(super) const BEST: Quality = Quality {
        documents: Documents::Strict,
        fault: String::new(),
        signed: None,
    };
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The network's first members and its rules, by a validator of the genesis, once.
    Found {
        /// The members.
        members: Vec<Card>,
        /// The rules.
        settings: Settings,
    },
    /// A new member, by a validator, where the rules have it so.
    Admit {
        /// The member's first card.
        card: Card,
    },
    /// A member's next card, by the member with its present key.
    Announce {
        /// The card, signed with the key that it names.
        card: Card,
    },
    /// Something that several have to agree on.
    Propose(Propose),
    /// Agreement.
    Endorse {
        /// Who agrees.
        member: Did,
        /// To what.
        proposal: TransactionId,
        /// With which outcome: [`agreed`](super::agreed) over the states of the ledgers.
        agreed: TreeHash,
    },
    /// Disagreement.
    Refuse {
        /// Who disagrees.
        member: Did,
        /// With what.
        proposal: TransactionId,
        /// Why, for the proposer's user.
        reason: String,
    },
    /// The proposer's second thought.
    Withdraw {
        /// The proposer.
        member: Did,
        /// The proposal.
        proposal: TransactionId,
    },
}

/// The rules of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who lets new members in.
    pub admission: Admission,
    /// The longest time that a proposal may stay open, in milliseconds.
    pub deadline_ms_max: u64,
    /// What is demanded of entries.
    pub documents: Documents,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            admission: Admission::Validators,
            deadline_ms_max: DEADLINE_MS_DEFAULT,
            documents: Documents::Strict,
        }
    }
}

/// Who lets new members in. Whoever it is, a newcomer has no part in ledgers that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Any validator of the genesis, by [`Body::Admit`].
    Validators,
    /// More than half of the members, by [`Action::Admit`].
    Members,
}

/// A proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propose {
    /// Who proposes; that it does is its agreement.
    pub member: Did,
    /// The proposer's name for this request (`@id`); used again for the same, it changes nothing.
    pub request: String,
    /// The block time from which on it can no longer be agreed to.
    pub deadline: BlockTime,
    /// What is proposed.
    pub action: Action,
}

/// What can be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// New ledgers, all with the same genesis entries.
    Create {
        /// Their names.
        ledgers: Vec<String>,
        /// Who shares them.
        participants: Vec<Did>,
        /// How many must agree, now and ever after.
        policy: Policy,
        /// The first entries.
        batch: Batch,
    },
    /// The same entries in each of some ledgers.
    Append {
        /// Their names.
        ledgers: Vec<String>,
        /// The entries.
        batch: Batch,
    },
    /// Other participants of a ledger, agreed by the present ones as ever and by all newcomers.
    Regroup {
        /// The ledger.
        ledger: String,
        /// Who shares it from then on.
        participants: Vec<Did>,
        /// How many must agree from then on.
        policy: Policy,
    },
    /// A new member, agreed by more than half of the members.
    Admit {
        /// The member's first card.
        card: Card,
    },
    /// A member less, agreed by all others.
    Remove {
        /// Who.
        subject: Did,
    },
}

/// How many of a group must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// All.
    Unanimous,
    /// So many, two at least.
    AtLeast(u32),
}

impl Policy {
    /// How many of `participants` must agree.
    pub fn needed(self, participants: usize) -> usize {
        match self {
            Policy::Unanimous => participants,
            Policy::AtLeast(count) => count as usize,
        }
    }

    /// The policy as it stands in requests.
    pub fn to_value(self) -> Value {
        match self {
            Policy::Unanimous => Value::from("unanimous"),
            Policy::AtLeast(count) => {
                Value::Object(Object::from_iter([("at_least", u64::from(count))]))
            }
        }
    }

    fn read(value: &Value) -> Option<Policy> {
        if value.as_str() == Some("unanimous") {
            return Some(Policy::Unanimous);
        }
        let object = value.as_object().filter(|object| object.len() == 1)?;
        let count = object.get("at_least")?.as_u64()?;
        Some(Policy::AtLeast(u32::try_from(count).ok()?))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Unanimous => f.write_str("unanimous"),
            Policy::AtLeast(count) => write!(f, "at least {count}"),
        }
    }
}

/// Entries and the Merkle root over their canonical texts without metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub(super) entries: Arc<[EntryText]>,
    pub(super) root: TreeHash,
}

impl Batch {
    /// The entries with their root. Each is signed already ([`sign_entry`](super::sign_entry)).
    pub fn new(entries: &[Object]) -> Batch {
        let entries: Arc<[EntryText]> = entries.iter().map(EntryText::new).collect();
        Batch {
            root: root_of(&entries),
            entries,
        }
    }

    /// The entries.
    pub fn entries(&self) -> &[EntryText] {
        &self.entries
    }

    /// The root over the entries as they were proposed.
    pub fn root(&self) -> TreeHash {
        self.root
    }
}

pub(super) fn root_of(entries: &[EntryText]) -> TreeHash {
    TreeHash::root(entries.iter().map(EntryText::bare))
}

/// The canonical text of one entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryText {
    text: Box<str>,
    /// Where the metadata goes when it is added.
    gap: usize,
}

impl EntryText {
    /// The text of an entry, its metadata left out.
    pub fn new(entry: &Object) -> EntryText {
        let mut text = String::from("{");
        let mut gap = None;
        for (name, value) in entry.sorted().filter(|(name, _)| *name != METADATA) {
            if text.len() > 1 {
                text.push(',');
            }
            if gap.is_none() && name > METADATA {
                gap = Some(text.len());
            }
            text.push_str(&canon(&Value::from(name)));
            text.push(':');
            text.push_str(&canon(value));
        }
        let gap = gap.unwrap_or(text.len());
        text.push('}');
        EntryText {
            text: text.into(),
            gap,
        }
    }

    /// The text as it was proposed.
    pub fn bare(&self) -> &str {
        &self.text
    }

    /// The text as it is committed under a sequence number; entries of a genesis have no time
    /// (section 4.1).
    pub fn committed(&self, sequence: u64, time: Option<&str>) -> String {
        let (before, after) = self.text.split_at(self.gap);
        let time = time.map_or(String::new(), |time| format!(",\"txnTime\":\"{time}\""));
        let (front, back) = match (before, after) {
            ("{", "}") => ("", ""),
            (_, "}") => (",", ""),
            _ => ("", ","),
        };
        format!("{before}{front}\"{METADATA}\":{{\"seqNo\":{sequence}{time}}}{back}{after}")
    }

    /// The entry.
    pub fn to_object(&self) -> Object {
        match Value::parse(self.text.as_bytes(), DEPTH_MAX) {
            Ok(Value::Object(object)) => object,
            _ => Object::new(),
        }
    }
}

impl Command {
    /// Vouches for a request whose signatures were verified before, as those in a durable block were.
    ///
    /// # Errors
    /// As [`Prover::prove`](super::Prover::prove), for what is no request at all.
    pub fn from_stored(request: &Request) -> Result<Command, Refusal> {
        let value = parse(&request.text)?;
        Command::read(&value)
    }

    /// Reads a request and verifies nothing.
    pub(super) fn read(value: &Value) -> Result<Command, Refusal> {
        let request = Members::of(value, "a request", 3)?;
        let signature = BASE64.decode(request.text("signature")?);
        let command = request.get("command")?;
        let (network, body) = Body::read(command)?;
        Ok(Command {
            signer: request.parsed("signer")?,
            signature: signature
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| malformed("\"signature\" is base64url of 64 bytes"))?,
            network,
            body,
            text: canon(command),
            quality: Quality::BEST,
        })
    }

    /// What is asked for.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Who signed the request.
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// The member who asks; `None` for a validator.
    pub fn member(&self) -> Option<Did> {
        match &self.body {
            Body::Found { .. } | Body::Admit { .. } => None,
            Body::Announce { card } => Some(card.did()),
            Body::Propose(propose) => Some(propose.member),
            Body::Endorse { member, .. }
            | Body::Refuse { member, .. }
            | Body::Withdraw { member, .. } => Some(*member),
        }
    }

    /// The request, in canonical form.
    pub fn to_request(&self) -> Request {
        Request {
            text: Bytes::from(wrapped(&self.text, &self.signer, &self.signature)),
        }
    }

    /// What the signature covers.
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.text)
    }
}

/// Reads the text of a request.
pub(super) fn parse(text: &[u8]) -> Result<Value, Refusal> {
    if text.len() > REQUEST_BYTES_MAX {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("a request has at most {REQUEST_BYTES_MAX} bytes"),
        ));
    }
    Value::parse(text, DEPTH_MAX).map_err(|error| malformed(error.to_string()))
}

fn wrapped(command: &str, signer: &PublicKey, signature: &[u8; 64]) -> String {
    let signature = BASE64.encode(signature);
    format!("{{\"command\":{command},\"signature\":\"{signature}\",\"signer\":\"{signer}\"}}")
}

fn signed_bytes(command: &str) -> Vec<u8> {
    [REQUEST_DOMAIN, command.as_bytes()].concat()
}

impl Body {
    /// The word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Body::Found { .. } => "found",
            Body::Admit { .. } => "admit",
            Body::Announce { .. } => "announce",
            Body::Propose(_) => "propose",
            Body::Endorse { .. } => "endorse",
            Body::Refuse { .. } => "refuse",
            Body::Withdraw { .. } => "withdraw",
        }
    }

    fn to_object(&self, network: BlockHash) -> Object {
        let mut object = Object::from_iter([
            ("kind", self.kind().to_owned()),
            ("network", network.to_string()),
        ]);
        match self {
            Body::Found { members, settings } => {
                let cards = members.iter().map(|card| Value::Object(card.to_object()));
                object.insert("members", Value::Array(cards.collect()));
                object.insert("settings", Value::Object(settings.to_object()));
            }
            Body::Admit { card } | Body::Announce { card } => {
                object.insert("card", Value::Object(card.to_object()));
            }
            Body::Propose(propose) => {
                object.insert("member", propose.member.to_string().into());
                object.insert("request", propose.request.as_str().into());
                object.insert("deadline", propose.deadline.0.into());
                object.insert("action", Value::Object(propose.action.to_object()));
            }
            Body::Endorse {
                member,
                proposal,
                agreed,
            } => {
                object.insert("member", member.to_string().into());
                object.insert("proposal", proposal.to_string().into());
                object.insert("agreed", agreed.to_string().into());
            }
            Body::Refuse {
                member,
                proposal,
                reason,
            } => {
                object.insert("member", member.to_string().into());
                object.insert("proposal", proposal.to_string().into());
                object.insert("reason", reason.as_str().into());
            }
            Body::Withdraw { member, proposal } => {
                object.insert("member", member.to_string().into());
                object.insert("proposal", proposal.to_string().into());
            }
        }
        object
    }

    fn read(value: &Value) -> Result<(BlockHash, Body), Refusal> {
        let kind = value.as_object().and_then(|object| object.get("kind"));
        let (what, members) = match kind.and_then(Value::as_str) {
            Some("found") => ("a \"found\"", 4),
            Some("admit") => ("an \"admit\"", 3),
            Some("announce") => ("an \"announce\"", 3),
            Some("propose") => ("a \"propose\"", 6),
            Some("endorse") => ("an \"endorse\"", 5),
            Some("refuse") => ("a \"refuse\"", 5),
            Some("withdraw") => ("a \"withdraw\"", 4),
            _ => return Err(malformed("\"kind\" of a command is not known")),
        };
        let command = Members::of(value, what, members)?;
        let mut network = [0; 32];
        hex::decode_to_slice(command.text("network")?, &mut network)
            .map_err(|_| malformed("\"network\" is 64 hexadecimal digits"))?;
        let body = match what {
            "a \"found\"" => Body::Found {
                members: command
                    .array("members", MEMBERS_MAX)?
                    .iter()
                    .map(Card::read_unproven)
                    .collect::<Result<_, _>>()?,
                settings: Settings::read(command.get("settings")?)?,
            },
            "an \"admit\"" => Body::Admit {
                card: Card::read_unproven(command.get("card")?)?,
            },
            "an \"announce\"" => Body::Announce {
                card: Card::read_unproven(command.get("card")?)?,
            },
            "a \"propose\"" => Body::Propose(Propose {
                member: command.parsed("member")?,
                request: command.bounded("request", 1, REQUEST_ID_BYTES_MAX, Code::Malformed)?,
                deadline: BlockTime(command.count("deadline")?),
                action: Action::read(command.get("action")?)?,
            }),
            "an \"endorse\"" => Body::Endorse {
                member: command.parsed("member")?,
                proposal: command.parsed("proposal")?,
                agreed: command.parsed("agreed")?,
            },
            "a \"refuse\"" => Body::Refuse {
                member: command.parsed("member")?,
                proposal: command.parsed("proposal")?,
                reason: command.bounded("reason", 1, REASON_BYTES_MAX, Code::BadReason)?,
            },
            _ => Body::Withdraw {
                member: command.parsed("member")?,
                proposal: command.parsed("proposal")?,
            },
        };
        Ok((BlockHash(network), body))
    }
}

impl Settings {
    /// The rules as they stand in requests.
    pub fn to_object(&self) -> Object {
        let admission = match self.admission {
            Admission::Validators => "validators",
            Admission::Members => "members",
        };
        Object::from_iter([
            ("admission", Value::from(admission)),
            ("deadline_ms_max", Value::from(self.deadline_ms_max)),
            ("documents", Value::from(self.documents.as_str())),
        ])
    }

    fn read(value: &Value) -> Result<Settings, Refusal> {
        let settings = Members::of(value, "\"settings\"", 3)?;
        let admission = match settings.text("admission")? {
            "validators" => Admission::Validators,
            "members" => Admission::Members,
            _ => return Err(malformed("\"admission\" is \"validators\" or \"members\"")),
        };
        let deadline_ms_max = settings.count("deadline_ms_max")?;
        if !(1..=DEADLINE_MS_MAX).contains(&deadline_ms_max) {
            return Err(malformed(format!(
                "\"deadline_ms_max\" is from 1 to {DEADLINE_MS_MAX}"
            )));
        }
        let documents = Documents::from_name(settings.text("documents")?);
        Ok(Settings {
            admission,
            deadline_ms_max,
            documents: documents.ok_or_else(|| {
                malformed("\"documents\" is \"any\", \"compatible\" or \"strict\"")
            })?,
        })
    }
}

impl Action {
    /// The word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Action::Create { .. } => "create",
            Action::Append { .. } => "append",
            Action::Regroup { .. } => "regroup",
            Action::Admit { .. } => "admit",
            Action::Remove { .. } => "remove",
        }
    }

    /// The ledgers that it concerns.
    pub fn ledgers(&self) -> &[String] {
        match self {
            Action::Create { ledgers, .. } | Action::Append { ledgers, .. } => ledgers,
            Action::Regroup { ledger, .. } => std::slice::from_ref(ledger),
            Action::Admit { .. } | Action::Remove { .. } => &[],
        }
    }

    /// The entries that it brings.
    pub fn batch(&self) -> Option<&Batch> {
        match self {
            Action::Create { batch, .. } | Action::Append { batch, .. } => Some(batch),
            _ => None,
        }
    }

    fn to_object(&self) -> Object {
        let mut object = Object::from_iter([("do", self.kind())]);
        let names = |names: &[String]| {
            Value::Array(names.iter().map(|name| name.as_str().into()).collect())
        };
        let members =
            |dids: &[Did]| Value::Array(dids.iter().map(|did| did.to_string().into()).collect());
        match self {
            Action::Create {
                ledgers,
                participants,
                policy,
                batch,
            } => {
                object.insert("ledgers", names(ledgers));
                object.insert("participants", members(participants));
                object.insert("policy", policy.to_value());
                batch.write(&mut object);
            }
            Action::Append { ledgers, batch } => {
                object.insert("ledgers", names(ledgers));
                batch.write(&mut object);
            }
            Action::Regroup {
                ledger,
                participants,
                policy,
            } => {
                object.insert("ledger", ledger.as_str().into());
                object.insert("participants", members(participants));
                object.insert("policy", policy.to_value());
            }
            Action::Admit { card } => object.insert("card", Value::Object(card.to_object())),
            Action::Remove { subject } => object.insert("subject", subject.to_string().into()),
        }
        object
    }

    fn read(value: &Value) -> Result<Action, Refusal> {
        let kind = value.as_object().and_then(|object| object.get("do"));
        match kind.and_then(Value::as_str) {
            Some("create") => {
                let action = Members::of(value, "a \"create\"", 6)?;
                let batch = Batch::read(&action)?;
                let ledgers = action.ledgers(&batch)?;
                let (participants, policy) = action.group()?;
                Ok(Action::Create {
                    ledgers,
                    participants,
                    policy,
                    batch,
                })
            }
            Some("append") => {
                let action = Members::of(value, "an \"append\"", 4)?;
                let batch = Batch::read(&action)?;
                Ok(Action::Append {
                    ledgers: action.ledgers(&batch)?,
                    batch,
                })
            }
            Some("regroup") => {
                let action = Members::of(value, "a \"regroup\"", 4)?;
                let (participants, policy) = action.group()?;
                Ok(Action::Regroup {
                    ledger: ledger_name(action.get("ledger")?)?,
                    participants,
                    policy,
                })
            }
            Some("admit") => Ok(Action::Admit {
                card: Card::read_unproven(Members::of(value, "an \"admit\"", 2)?.get("card")?)?,
            }),
            Some("remove") => Ok(Action::Remove {
                subject: Members::of(value, "a \"remove\"", 2)?.parsed("subject")?,
            }),
            _ => Err(malformed("\"do\" of an action is not known")),
        }
    }
}

impl Batch {
    fn write(&self, object: &mut Object) {
        let entries = self
            .entries
            .iter()
            .map(|entry| Value::Object(entry.to_object()));
        object.insert("entries", Value::Array(entries.collect()));
        object.insert("root", self.root.to_string().into());
    }

    fn read(action: &Members<'_>) -> Result<Batch, Refusal> {
        let entries = action.array("entries", ENTRIES_PER_PROPOSAL_MAX)?;
        if entries.is_empty() {
            return Err(Refusal::new(Code::BadEntry, "there are no entries"));
        }
        let entries = entries.iter().enumerate().map(|(place, entry)| {
            let bad = |what: String| Err(Refusal::new(Code::BadEntry, what));
            let place = place + 1;
            match entry.as_object() {
                None => bad(format!("entry {place} is not an object")),
                Some(entry) if entry.get(METADATA).is_some() => bad(format!(
                    "entry {place} has {METADATA}, which the ledger gives"
                )),
                Some(entry) => {
                    let text = EntryText::new(entry);
                    if text.bare().len() > ENTRY_BYTES_MAX {
                        let what = format!("entry {place} has more than {ENTRY_BYTES_MAX} bytes");
                        return Err(Refusal::new(Code::TooLarge, what));
                    }
                    Ok(text)
                }
            }
        });
        Ok(Batch {
            entries: entries.collect::<Result<_, _>>()?,
            root: action.parsed("root")?,
        })
    }
}

fn ledger_name(value: &Value) -> Result<String, Refusal> {
    let name = value.as_str().unwrap_or_default();
    if name.is_empty() || name.chars().count() > LEDGER_NAME_CHARS_MAX {
        return Err(Refusal::new(
            Code::BadLedgerName,
            format!("a ledger's name has from 1 to {LEDGER_NAME_CHARS_MAX} characters"),
        ));
    }
    Ok(name.to_owned())
}

/// The members of an object of which none is missing and none is too many.
struct Members<'v> {
    object: &'v Object,
    what: &'static str,
}

impl<'v> Members<'v> {
    fn of(value: &'v Value, what: &'static str, count: usize) -> Result<Members<'v>, Refusal> {
        match value.as_object() {
            Some(object) if object.len() == count => Ok(Members { object, what }),
            Some(_) => Err(malformed(format!("{what} has {count} members"))),
            None => Err(malformed(format!("{what} is an object"))),
        }
    }

    fn get(&self, name: &str) -> Result<&'v Value, Refusal> {
        self.object
            .get(name)
            .ok_or_else(|| malformed(format!("\"{name}\" of {} is missing", self.what)))
    }

    fn text(&self, name: &str) -> Result<&'v str, Refusal> {
        self.get(name)?
            .as_str()
            .ok_or_else(|| malformed(format!("\"{name}\" of {} is a text", self.what)))
    }

    fn bounded(&self, name: &str, min: usize, max: usize, code: Code) -> Result<String, Refusal> {
        let text = self.text(name)?;
        if (min..=max).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err(Refusal::new(
                code,
                format!("\"{name}\" of {} has from {min} to {max} bytes", self.what),
            ))
        }
    }

    fn count(&self, name: &str) -> Result<u64, Refusal> {
        self.get(name)?
            .as_u64()
            .ok_or_else(|| malformed(format!("\"{name}\" of {} is a count", self.what)))
    }

    fn parsed<T: std::str::FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, Refusal> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|error| malformed(format!("\"{name}\" of {}: {error}", self.what)))
    }

    fn array(&self, name: &str, max: usize) -> Result<&'v [Value], Refusal> {
        match self.get(name)?.as_array() {
            Some(items) if items.len() <= max => Ok(items),
            Some(_) => Err(Refusal::new(
                Code::TooLarge,
                format!("\"{name}\" of {} has at most {max} items", self.what),
            )),
            None => Err(malformed(format!(
                "\"{name}\" of {} is an array",
                self.what
            ))),
        }
    }

    fn ledgers(&self, batch: &Batch) -> Result<Vec<String>, Refusal> {
        let names = self.array("ledgers", LEDGERS_PER_PROPOSAL_MAX)?;
        let names: Vec<String> = names.iter().map(ledger_name).collect::<Result<_, _>>()?;
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if names.is_empty() {
            return Err(Refusal::new(
                Code::BadLedgerName,
                "there is no ledger's name",
            ));
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refusal::new(
                Code::BadLedgerName,
                format!("ledger \"{}\" is named twice", shortened(pair[0])),
            ));
        }
        if names.len() * batch.entries.len() > SEQUENCES_PER_PROPOSAL_MAX {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("entries times ledgers are at most {SEQUENCES_PER_PROPOSAL_MAX}"),
            ));
        }
        let bytes: usize = batch.entries.iter().map(|entry| entry.bare().len()).sum();
        if names.len() * bytes > SEQUENCE_BYTES_PER_PROPOSAL_MAX {
            return Err(Refusal::new(
                Code::TooLarge,
                format!(
                    "bytes of entries times ledgers are at most {SEQUENCE_BYTES_PER_PROPOSAL_MAX}: \
                     propose for fewer ledgers at a time"
                ),
            ));
        }
        Ok(names)
    }

    fn group(&self) -> Result<(Vec<Did>, Policy), Refusal> {
        let bad = |what: String| Refusal::new(Code::BadGroup, what);
        let dids = self.array("participants", GROUP_MAX)?.iter().map(|did| {
            let text = did.as_str().unwrap_or_default();
            text.parse()
                .map_err(|error| bad(format!("\"participants\": {error}")))
        });
        let dids: Vec<Did> = dids.collect::<Result<_, _>>()?;
        let mut sorted = dids.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(bad(format!("participant {} is named twice", pair[0])));
        }
        if dids.len() < GROUP_MIN {
            return Err(bad(format!(
                "a group has at least {GROUP_MIN} participants"
            )));
        }
        let policy = Policy::read(self.get("policy")?)
            .ok_or_else(|| malformed("\"policy\" is \"unanimous\" or {\"at_least\": a count}"))?;
        if !(GROUP_MIN..=dids.len()).contains(&policy.needed(dids.len())) {
            return Err(Refusal::new(
                Code::BadPolicy,
                format!("at least {GROUP_MIN} and at most all participants must agree"),
            ));
        }
        Ok((dids, policy))
    }
}

fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::Malformed, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn metadata_finds_its_place_among_the_members() {
        for (entry, expected) in [
            ("{}", r#"{"txnMetadata":{"seqNo":1}}"#),
            (r#"{"a":1}"#, r#"{"a":1,"txnMetadata":{"seqNo":1}}"#),
            (r#"{"z":1}"#, r#"{"txnMetadata":{"seqNo":1},"z":1}"#),
            (
                r#"{"z":1,"a":2,"txnMetadata":{}}"#,
                r#"{"a":2,"txnMetadata":{"seqNo":1},"z":1}"#,
            ),
        ] {
            let value: Value = entry.parse().unwrap();
            let text = EntryText::new(value.as_object().unwrap());
            assert_eq!(text.committed(1, None), expected);
            let mut expected = value.as_object().unwrap().clone();
            let metadata = r#"{"txnTime":"2026-03-01 09:15:27.004210","seqNo":77}"#;
            expected.insert(METADATA, metadata.parse().unwrap());
            assert_eq!(
                text.committed(77, Some("2026-03-01 09:15:27.004210")),
                canon_object(&expected)
            );
        }
    }
}
