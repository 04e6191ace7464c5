//! What a block holds of this book: a request or an expiry, and what followed from it.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::{
    canonical::canon,
    command::{Action, Body, Command, Propose, Request},
    did::Did,
    limits::{DEPTH_MAX, ENTRIES_PER_PROPOSAL_MAX, LEDGERS_PER_PROPOSAL_MAX},
    refusal::{Code, MalformedEntry},
    state::State,
    tree::TreeHash,
};
use crate::{
    BlockTime, TransactionId, canonical,
    json::{Object, Value},
};

/// A transaction of the consortium's book. Cheap to clone.
///
/// Its text is canonical JSON: `at` (block time), `book`, `kind`, for requests `command`, `signer` and
/// `signature` just as they were signed, and the `effects` that followed. Its id is the text's
/// SHA3-256.
#[derive(Clone)]
pub struct Entry(Arc<Inner>);

struct Inner {
    id: TransactionId,
    text: Bytes,
    at: BlockTime,
    command: Option<Command>,
    effects: Vec<Effect>,
}

/// What followed from an entry, one step each, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The entry's own proposal waits for others.
    Queued {
        /// How many proposals stand before it, in the longest of its queues.
        behind: u64,
    },
    /// A proposal came to its turn: members are asked.
    Opened {
        /// The proposal; `None` for the entry's own.
        proposal: Option<TransactionId>,
        /// What endorsements must name: [`agreed`](super::agreed) over the states of its ledgers.
        agreed: TreeHash,
    },
    /// A proposal was agreed to and carried out.
    Committed {
        /// The proposal; `None` for the entry's own.
        proposal: Option<TransactionId>,
        /// When it was opened: the `txnTime` of appended entries.
        opened: BlockTime,
        /// Who agreed, the proposer first, the others by DID.
        endorsers: Vec<Did>,
        /// Its ledgers before and after, by name.
        states: Vec<State>,
    },
    /// A proposal's deadline passed.
    Expired {
        /// The proposal.
        proposal: TransactionId,
        /// Whether it was ever open.
        was_open: bool,
        /// Who was asked and said nothing.
        missing: Vec<Did>,
    },
    /// A proposal can no longer be agreed to, because too many refused.
    Refused {
        /// The proposal.
        proposal: TransactionId,
        /// Who refused.
        by: Vec<Did>,
    },
    /// A proposal's proposer took it back.
    Withdrawn {
        /// The proposal.
        proposal: TransactionId,
    },
    /// A proposal came to its turn when it was no longer possible.
    Dropped {
        /// The proposal.
        proposal: TransactionId,
        /// Why.
        code: Code,
        /// Why, in words.
        detail: String,
    },
}

/// A name under which entries are found later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexKey<'a> {
    /// Everything about a proposal, itself included. The newest entry tells what became of it.
    Proposal(TransactionId),
    /// The proposal itself, and nothing else.
    Proposed(TransactionId),
    /// What a member said about a proposal.
    Vote(TransactionId, Did),
    /// Proposals for a ledger, and their commits.
    Ledger(&'a str),
    /// The entry that committed a ledger's entry with this sequence number.
    Sequence(&'a str, u64),
    /// What a member did, and what changed it.
    Member(Did),
    /// The proposal that a proposer made under its own name for it: [`request_key`].
    Request([u8; 32]),
}

/// The hash under which a proposer's request is found again.
pub fn request_key(member: Did, request: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&member.0);
    context.update(request.as_bytes());
    let hash = context.finish();
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl Effect {
    /// The word for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Effect::Queued { .. } => "queued",
            Effect::Opened { .. } => "opened",
            Effect::Committed { .. } => "committed",
            Effect::Expired { .. } => "expired",
            Effect::Refused { .. } => "refused",
            Effect::Withdrawn { .. } => "withdrawn",
            Effect::Dropped { .. } => "dropped",
        }
    }

    /// The proposal that it is about; `None` for the entry's own.
    pub const fn proposal(&self) -> Option<TransactionId> {
        match self {
            Effect::Queued { .. } => None,
            Effect::Opened { proposal, .. } | Effect::Committed { proposal, .. } => *proposal,
            Effect::Expired { proposal, .. }
            | Effect::Refused { proposal, .. }
            | Effect::Withdrawn { proposal }
            | Effect::Dropped { proposal, .. } => Some(*proposal),
        }
    }

    /// Whether nothing can become of the proposal any more.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Effect::Queued { .. } | Effect::Opened { .. })
    }

    /// The effect as it stands in an entry's text.
    pub fn to_value(&self) -> Value {
        let mut object = Object::from_iter([("effect", self.kind())]);
        if !matches!(self, Effect::Queued { .. }) {
            let proposal = self.proposal().map(|id| Value::from(id.to_string()));
            object.insert("proposal", proposal.unwrap_or(Value::Null));
        }
        let dids =
            |dids: &[Did]| Value::Array(dids.iter().map(|did| did.to_string().into()).collect());
        match self {
            Effect::Queued { behind } => object.insert("behind", (*behind).into()),
            Effect::Opened { agreed, .. } => object.insert("agreed", agreed.to_string().into()),
            Effect::Committed {
                opened,
                endorsers,
                states,
                ..
            } => {
                object.insert("opened", opened.0.into());
                object.insert("endorsers", dids(endorsers));
                let states = states.iter().map(|state| Value::Object(state.to_object()));
                object.insert("states", Value::Array(states.collect()));
            }
            Effect::Expired {
                was_open, missing, ..
            } => {
                object.insert("was_open", (*was_open).into());
                object.insert("missing", dids(missing));
            }
            Effect::Refused { by, .. } => object.insert("by", dids(by)),
            Effect::Withdrawn { .. } => {}
            Effect::Dropped { code, detail, .. } => {
                object.insert("code", code.as_str().into());
                object.insert("detail", detail.as_str().into());
            }
        }
        Value::Object(object)
    }

    fn read(value: &Value) -> Option<Effect> {
        let object = value.as_object()?;
        let text = |name| object.get(name)?.as_str();
        let count = |name| object.get(name)?.as_u64();
        let optional = || match object.get("proposal")? {
            Value::Null => Some(None),
            Value::String(id) => Some(Some(id.parse().ok()?)),
            _ => None,
        };
        let proposal = || text("proposal")?.parse().ok();
        let dids = |name| {
            let items = object.get(name)?.as_array()?.iter();
            items
                .map(|did| did.as_str()?.parse().ok())
                .collect::<Option<Vec<Did>>>()
        };
        Some(match text("effect")? {
            "queued" => Effect::Queued {
                behind: count("behind")?,
            },
            "opened" => Effect::Opened {
                proposal: optional()?,
                agreed: text("agreed")?.parse().ok()?,
            },
            "committed" => Effect::Committed {
                proposal: optional()?,
                opened: BlockTime(count("opened")?),
                endorsers: dids("endorsers")?,
                states: object
                    .get("states")?
                    .as_array()
                    .filter(|states| states.len() <= LEDGERS_PER_PROPOSAL_MAX)?
                    .iter()
                    .map(|state| State::read(state).filter(is_small))
                    .collect::<Option<_>>()?,
            },
            "expired" => Effect::Expired {
                proposal: proposal()?,
                was_open: match object.get("was_open")? {
                    Value::Bool(was_open) => *was_open,
                    _ => return None,
                },
                missing: dids("missing")?,
            },
            "refused" => Effect::Refused {
                proposal: proposal()?,
                by: dids("by")?,
            },
            "withdrawn" => Effect::Withdrawn {
                proposal: proposal()?,
            },
            "dropped" => Effect::Dropped {
                proposal: proposal()?,
                code: Code::from_name(text("code")?)?,
                detail: text("detail")?.to_owned(),
            },
            _ => return None,
        })
    }
}

/// Whether a state grows by no more than one proposal can make it grow, so that going through what is
/// new stays bounded.
fn is_small(state: &State) -> bool {
    let growth = state.uncommitted_size.checked_sub(state.size);
    growth.is_some_and(|growth| growth <= ENTRIES_PER_PROPOSAL_MAX as u64)
}

impl Entry {
    pub(super) fn new(at: BlockTime, command: Option<Command>, effects: Vec<Effect>) -> Entry {
        let text = Bytes::from(text_of(at, command.as_ref(), &effects));
        Entry(Arc::new(Inner {
            id: TransactionId(canonical::sha3(&text)),
            text,
            at,
            command,
            effects,
        }))
    }

    /// Reads a text that was stored; its signatures were verified before.
    ///
    /// # Errors
    /// [`MalformedEntry`] when it is not the canonical text of an entry.
    pub fn read(text: Bytes) -> Result<Entry, MalformedEntry> {
        let malformed = |what: &str| MalformedEntry(what.to_owned());
        // The request stands one level deeper than on its own.
        let value = Value::parse(&text, DEPTH_MAX.saturating_add(1))
            .map_err(|error| MalformedEntry(error.to_string()))?;
        let object = value
            .as_object()
            .ok_or_else(|| malformed("not an object"))?;
        let at = object.get("at").and_then(Value::as_u64);
        let at = BlockTime(at.ok_or_else(|| malformed("\"at\" is missing"))?);
        let command = match object.get("command") {
            None => None,
            Some(command) => {
                let member = |name| object.get(name).cloned().unwrap_or(Value::Null);
                let request = Object::from_iter([
                    ("command", command.clone()),
                    ("signature", member("signature")),
                    ("signer", member("signer")),
                ]);
                let command = Command::read(&Value::Object(request));
                Some(command.map_err(|refusal| MalformedEntry(refusal.detail))?)
            }
        };
        let effects = object.get("effects").and_then(Value::as_array);
        let effects = effects
            .and_then(|effects| effects.iter().map(Effect::read).collect::<Option<Vec<_>>>())
            .ok_or_else(|| malformed("\"effects\" are missing or unknown"))?;
        if text_of(at, command.as_ref(), &effects).as_bytes() != text {
            return Err(malformed("not in canonical form, or with other members"));
        }
        Ok(Entry(Arc::new(Inner {
            id: TransactionId(canonical::sha3(&text)),
            text,
            at,
            command,
            effects,
        })))
    }

    /// Its name: the text's SHA3-256. A proposal is named by the entry that made it.
    pub fn id(&self) -> TransactionId {
        self.0.id
    }

    /// The canonical text.
    pub fn text(&self) -> &Bytes {
        &self.0.text
    }

    /// The time of its block.
    pub fn at(&self) -> BlockTime {
        self.0.at
    }

    /// The request; `None` in an expiry.
    pub fn command(&self) -> Option<&Command> {
        self.0.command.as_ref()
    }

    /// The word for it: that of the request, or `expiry`.
    pub fn kind(&self) -> &'static str {
        self.command()
            .map_or("expiry", |command| command.body().kind())
    }

    /// What followed.
    pub fn effects(&self) -> &[Effect] {
        &self.0.effects
    }

    /// The proposal in it.
    pub fn propose(&self) -> Option<&Propose> {
        match self.command()?.body() {
            Body::Propose(propose) => Some(propose),
            _ => None,
        }
    }

    /// What became of `proposal` by this entry.
    pub fn outcome_of(&self, proposal: &TransactionId) -> Option<&Effect> {
        self.effects()
            .iter()
            .find(|effect| effect.is_final() && effect.proposal().unwrap_or(self.id()) == *proposal)
    }

    /// The request, just as it can be sent again.
    pub fn request(&self) -> Option<Request> {
        self.command().map(Command::to_request)
    }

    /// Every name under which it is looked up later. One may come twice.
    pub fn index_keys(&self, each: &mut dyn FnMut(IndexKey<'_>)) {
        if let Some(command) = self.command() {
            if let Some(member) = command.member() {
                each(IndexKey::Member(member));
            }
            match command.body() {
                Body::Found { members, .. } => {
                    for card in members {
                        each(IndexKey::Member(card.did()));
                    }
                }
                Body::Admit { card } => each(IndexKey::Member(card.did())),
                Body::Announce { .. } => {}
                Body::Propose(propose) => {
                    each(IndexKey::Proposal(self.id()));
                    each(IndexKey::Proposed(self.id()));
                    each(IndexKey::Request(request_key(
                        propose.member,
                        &propose.request,
                    )));
                    for ledger in propose.action.ledgers() {
                        each(IndexKey::Ledger(ledger));
                    }
                    match &propose.action {
                        Action::Admit { card } => each(IndexKey::Member(card.did())),
                        Action::Remove { subject } => each(IndexKey::Member(*subject)),
                        _ => {}
                    }
                }
                Body::Endorse {
                    member, proposal, ..
                }
                | Body::Refuse {
                    member, proposal, ..
                } => {
                    each(IndexKey::Proposal(*proposal));
                    each(IndexKey::Vote(*proposal, *member));
                }
                Body::Withdraw { proposal, .. } => each(IndexKey::Proposal(*proposal)),
            }
        }
        for effect in self.effects() {
            if let Some(proposal) = effect.proposal() {
                each(IndexKey::Proposal(proposal));
            }
            if let Effect::Committed { states, .. } = effect {
                for state in states {
                    each(IndexKey::Ledger(&state.name));
                    for sequence in state.size..state.uncommitted_size {
                        each(IndexKey::Sequence(&state.name, sequence.saturating_add(1)));
                    }
                }
            }
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.text());
        write!(f, "Entry({} {text})", self.id())
    }
}

/// The canonical text of an entry.
fn text_of(at: BlockTime, command: Option<&Command>, effects: &[Effect]) -> String {
    let effects = canon(&Value::Array(
        effects.iter().map(Effect::to_value).collect(),
    ));
    let at = at.0;
    match command {
        None => format!(
            "{{\"at\":{at},\"book\":\"consortium\",\"effects\":{effects},\"kind\":\"expiry\"}}"
        ),
        Some(command) => {
            let request = command.to_request();
            let request = std::str::from_utf8(&request.text).expect("a request is made of texts");
            // The request's members follow each other in the entry's order: command, then signature
            // and signer, with effects and kind between them.
            let signed = request
                .get(SIGNED_FROM + command.text.len()..request.len() - 1)
                .expect("a request ends with its signature and its signer");
            format!(
                "{{\"at\":{at},\"book\":\"consortium\",\"command\":{},\"effects\":{effects},\"kind\":\"{}\"{signed}}}",
                command.text,
                command.body.kind(),
            )
        }
    }
}

/// Bytes of a request before its command.
const SIGNED_FROM: usize = "{\"command\":".len();
