//! Transactions of the asset ledger, read from text and sound by themselves.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    Amount, AssetId, Lock, OutputRef, PublicKey, Rejection, RejectionClass, TransactionId,
    canonical,
    condition::{Condition, Fulfillment},
    json::Value,
};

mod check;
mod hash;
mod known_keys;
mod read;

pub(crate) use check::details_from_value;
use hash::Gathered;
use known_keys::KnownKeys;
use read::{Mode, Read, Scratch};

/// The version of the transaction format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// BigchainDB 2.x, Planetmint up to 1.2: member `asset`.
    V2,
    /// Planetmint 1.3 and later: member `assets`.
    V3,
}

/// What a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Brings an asset into being.
    Create,
    /// Moves outputs of one asset to new owners.
    Transfer,
    /// Consumes outputs and makes one new asset of them (version 3.0).
    Compose,
    /// Consumes an asset and leaves its parts to be taken up by CREATEs (version 3.0).
    Decompose,
}

/// Public keys in a client's order. One is the common case and needs no allocation.
pub(crate) type Keys = SmallVec<[PublicKey; 1]>;

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    /// The output it spends; `None` in a CREATE.
    pub spends: Option<OutputRef>,
    /// The owners that the client named; informative.
    pub owners_before: Keys,
    /// What opens the condition.
    pub fulfillment: Fulfillment,
    /// The 32 bytes that every signature of this input covers (section 4.4).
    pub message: [u8; 32],
}

/// One output.
#[derive(Clone, Debug)]
pub struct Output {
    /// How many units it holds.
    pub amount: Amount,
    /// Who may spend it.
    pub condition: Condition,
    /// The keys of the condition, in the client's order: what the output is listed under.
    pub public_keys: Keys,
    /// The commitment to asset and condition under which the output is kept unspent: to
    /// [`Transaction::asset`] and the condition's fingerprint.
    pub lock: Lock,
}

/// Settings of the stateless checks. All nodes of one network use the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Refuse keys with `.`, a leading `$` or NUL (section 6.3).
    pub key_names: bool,
    /// Refuse unknown values of `language` members (section 6.4).
    pub language: bool,
    /// Every key of `owners_before` must sign a CREATE, not merely every signer be named (section 6.6).
    pub all_owners_sign: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the posted text.
    pub transaction_bytes_max: usize,
    /// Nesting of JSON arrays and objects.
    pub json_depth_max: usize,
    /// Nesting of threshold conditions (section 6.7).
    pub condition_depth_max: usize,
    /// Outputs of one transaction; places in stored records are 16 bits.
    pub outputs_max: usize,
}

/// A transaction that is sound by itself: canonical text, true id, valid members. Its signatures may
/// still be wrong; [`crate::Verified`] says that they are not.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub(crate) canonical: Bytes,
    pub(crate) id: TransactionId,
    pub(crate) version: Version,
    pub(crate) operation: Operation,
    pub(crate) asset: AssetId,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
    /// The assets that a COMPOSE or DECOMPOSE consumes.
    consumed: Vec<AssetId>,
    /// Where the asset data stand in the canonical text.
    data: Vec<Span>,
    /// Where the metadata stand in the canonical text.
    metadata: Option<Span>,
    /// The owners named and the keys that signed fit, where the operation asks for it: all that is
    /// wrong with a signature besides the signature itself (section 6.6).
    pub(crate) signers_named: bool,
}

/// A range of bytes in a text.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

/// Reads transactions. Keeps decoded keys and scratch space between calls; one per thread.
///
/// There are two lanes. Canonical text is checked and taken apart in one pass without building
/// values. Everything else is parsed to a [`Value`], written canonically and handed to the same pass,
/// so that there is one maker of transactions. What that pass refuses is looked at once more, member
/// by member, to name the error.
pub struct Parser {
    rules: Rules,
    keys: KnownKeys,
    scratch: Scratch,
    preimage: Vec<u8>,
    gathered: Gathered,
}

impl Operation {
    /// The name in the text.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Transfer => "TRANSFER",
            Operation::Compose => "COMPOSE",
            Operation::Decompose => "DECOMPOSE",
        }
    }
}

impl Version {
    /// The name in the text.
    pub const fn name(self) -> &'static str {
        match self {
            Version::V2 => "2.0",
            Version::V3 => "3.0",
        }
    }
}

impl Rules {
    /// The widest rules that a node may have. What a durable block holds was checked by those of its day,
    /// which may have allowed more than those of today do: it is read by these.
    pub const WIDEST: Rules = Rules {
        key_names: false,
        language: false,
        all_owners_sign: false,
        limits: Limits {
            // One must fit into a block and into memory many times.
            transaction_bytes_max: 64 << 20,
            // Each level takes some of a thread's stack.
            json_depth_max: 1_000,
            condition_depth_max: 1_000,
            outputs_max: 65_535,
        },
    };
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            key_names: true,
            language: true,
            all_owners_sign: false,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            transaction_bytes_max: 1 << 20,
            json_depth_max: 512,
            condition_depth_max: 100,
            outputs_max: Rules::WIDEST.limits.outputs_max,
        }
    }
}

impl Transaction {
    /// The transaction's name.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The canonical text, `id` included: what is stored, hashed and sent.
    pub fn canonical(&self) -> &Bytes {
        &self.canonical
    }

    /// The version of its format.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it does.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The asset of its outputs: its own id where it creates one. The outputs of a DECOMPOSE have no
    /// asset until a CREATE takes them up: no asset id opens their lock.
    pub fn asset(&self) -> AssetId {
        self.asset
    }

    /// Its inputs, at least one.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Its outputs, at least one.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The name of the output at `index`.
    pub fn output_ref(&self, index: u32) -> OutputRef {
        OutputRef {
            transaction: self.id,
            index,
        }
    }

    /// Every asset that a COMPOSE or DECOMPOSE consumes, or the one that a TRANSFER moves, in the order
    /// of the text; empty for a CREATE.
    pub fn consumed_assets(&self) -> &[AssetId] {
        match self.operation {
            Operation::Create => &[],
            Operation::Transfer => std::slice::from_ref(&self.asset),
            Operation::Compose | Operation::Decompose => &self.consumed,
        }
    }

    /// The canonical text of each `data` member of `asset` or `assets`, JSON null left out.
    pub fn asset_data(&self) -> impl Iterator<Item = &str> {
        self.data.iter().map(|span| self.text_of(*span))
    }

    /// The canonical text of `metadata`, unless it is JSON null.
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.map(|span| self.text_of(span))
    }

    fn text_of(&self, span: Span) -> &str {
        let bytes = &self.canonical[span.start as usize..span.end as usize];
        std::str::from_utf8(bytes).expect("the whole text was checked when it was read")
    }
}

impl Parser {
    /// A parser for transactions under `rules`.
    pub fn new(rules: Rules) -> Parser {
        Parser {
            rules,
            keys: KnownKeys::new(),
            scratch: Scratch::default(),
            preimage: Vec::new(),
            gathered: Gathered::default(),
        }
    }

    /// The rules it goes by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Reads one transaction as a client sent it: canonical or not.
    ///
    /// # Errors
    /// The first failure in the order of sections 6.1 to 6.5.
    pub fn parse(&mut self, text: Bytes) -> Result<Transaction, Rejection> {
        if text.len() > self.rules.limits.transaction_bytes_max {
            return Err(too_large(&self.rules));
        }
        match self.parse_canonical(&text) {
            Some(transaction) => Ok(transaction),
            None => self.parse_any(&text),
        }
    }

    /// Reads many transactions as clients sent them: for each what [`Parser::parse`] gives, in the
    /// same order. Their hashes are computed side by side.
    pub fn parse_batch(&mut self, texts: Vec<Bytes>) -> Vec<Result<Transaction, Rejection>> {
        let mut results = Vec::with_capacity(texts.len());
        // The places of the transactions that are gathered, and what was posted there.
        let mut waiting = Vec::new();
        for text in texts {
            if text.len() > self.rules.limits.transaction_bytes_max {
                results.push(Err(too_large(&self.rules)));
                continue;
            }
            let read = match self.read_canonical(&text) {
                Some(read) => Ok(read),
                None => self.read_any(&text),
            };
            match read {
                Err(rejection) => results.push(Err(rejection)),
                Ok(read) if Gathered::takes(&read) => {
                    self.gathered.add(&read, &self.scratch.fulfillments);
                    waiting.push((results.len(), text));
                    results.push(Ok(read.transaction));
                    if self.gathered.is_full() {
                        self.finish_gathered(&mut waiting, &mut results);
                    }
                }
                Ok(read) => results.push(match self.hash(read) {
                    Some(transaction) => Ok(transaction),
                    None => self.parse_any(&text),
                }),
            }
        }
        self.finish_gathered(&mut waiting, &mut results);
        results
    }

    /// Hashes what is gathered. A transaction that has another id is looked at once more.
    fn finish_gathered(
        &mut self,
        waiting: &mut Vec<(usize, Bytes)>,
        results: &mut [Result<Transaction, Rejection>],
    ) {
        self.gathered.hash();
        for (place, text) in waiting.drain(..) {
            if let Ok(transaction) = &mut results[place]
                && !self.gathered.settle(transaction)
            {
                results[place] = self.parse_any(&text);
            }
        }
        self.gathered.clear();
    }

    /// Reads one transaction by way of a [`Value`], canonical or not: what [`Parser::parse`] does
    /// with text that is not canonical. For tests that hold the two ways against each other.
    ///
    /// # Errors
    /// The same as [`Parser::parse`].
    pub fn parse_by_value(&mut self, text: &[u8]) -> Result<Transaction, Rejection> {
        if text.len() > self.rules.limits.transaction_bytes_max {
            return Err(too_large(&self.rules));
        }
        let value = parse_json(text, &self.rules)?;
        check::check(&value, &self.rules)?;
        let canonical = Bytes::from(canonical::canon(&value));
        if canonical.len() > self.rules.limits.transaction_bytes_max {
            return Err(too_large(&self.rules));
        }
        self.parse_canonical(&canonical).ok_or_else(lanes_differ)
    }

    /// Reads a transaction that a block holds: canonical text whose id and signatures were checked
    /// before it was stored. The id is taken from the text and not computed again, and
    /// [`Input::message`] is left zero. It is read by [`Rules::WIDEST`], whatever the rules are today.
    ///
    /// # Errors
    /// A [`Rejection`] when the text is no such transaction: the store is damaged.
    pub fn parse_stored(&mut self, text: Bytes) -> Result<Transaction, Rejection> {
        read::read(
            &text,
            Mode::Stored,
            &Rules::WIDEST,
            &mut self.keys,
            &mut self.scratch,
        )
        .map(|read| read.transaction)
        .ok_or_else(|| {
            Rejection::new(
                RejectionClass::MalformedJson,
                "The stored text is not a canonical transaction",
            )
        })
    }

    /// The fast lane: `None` for text that is not a sound transaction in canonical form.
    fn parse_canonical(&mut self, text: &Bytes) -> Option<Transaction> {
        let read = self.read_canonical(text)?;
        self.hash(read)
    }

    /// The fast lane without hashing: the id may be another one.
    fn read_canonical(&mut self, text: &Bytes) -> Option<Read> {
        read::read(
            text,
            Mode::Posted,
            &self.rules,
            &mut self.keys,
            &mut self.scratch,
        )
    }

    /// Completes what was read last; `None` when the id is another one.
    fn hash(&mut self, read: Read) -> Option<Transaction> {
        hash::complete(read, &self.scratch.fulfillments, &mut self.preimage)
    }

    /// The slow lane, for text that the fast lane did not take.
    fn parse_any(&mut self, text: &Bytes) -> Result<Transaction, Rejection> {
        let (value, spelling) = self.respell(text)?;
        if let Spelling::Other(canonical) = &spelling
            && let Some(transaction) = self.parse_canonical(canonical)
        {
            return Ok(transaction);
        }
        Err(self.refusal(&value, &spelling))
    }

    /// The slow lane without hashing: the id may be another one.
    fn read_any(&mut self, text: &Bytes) -> Result<Read, Rejection> {
        let (value, spelling) = self.respell(text)?;
        if let Spelling::Other(canonical) = &spelling
            && let Some(read) = self.read_canonical(canonical)
        {
            return Ok(read);
        }
        Err(self.refusal(&value, &spelling))
    }

    fn respell(&self, text: &Bytes) -> Result<(Value, Spelling), Rejection> {
        let value = parse_json(text, &self.rules)?;
        let canonical = canonical::canon(&value);
        let spelling = if canonical.len() > self.rules.limits.transaction_bytes_max {
            Spelling::TooLong
        } else if canonical.as_bytes() == text.as_ref() {
            Spelling::Same
        } else {
            Spelling::Other(Bytes::from(canonical))
        };
        Ok((value, spelling))
    }

    /// Why the fast lane did not take a text.
    fn refusal(&self, value: &Value, spelling: &Spelling) -> Rejection {
        match (check::check(value, &self.rules), spelling) {
            (Err(rejection), _) => rejection,
            (Ok(()), Spelling::TooLong) => too_large(&self.rules),
            (Ok(()), Spelling::Same | Spelling::Other(_)) => lanes_differ(),
        }
    }
}

/// The canonical text, next to the one posted.
enum Spelling {
    /// Longer than a transaction may be.
    TooLong,
    /// What was posted.
    Same,
    /// This one.
    Other(Bytes),
}

fn parse_json(text: &[u8], rules: &Rules) -> Result<Value, Rejection> {
    Value::parse(text, rules.limits.json_depth_max).map_err(|error| {
        Rejection::new(
            RejectionClass::MalformedJson,
            format!("Failed to decode JSON object: {error}"),
        )
    })
}

fn too_large(rules: &Rules) -> Rejection {
    Rejection::new(
        RejectionClass::TooLarge,
        format!(
            "A transaction has at most {} bytes",
            rules.limits.transaction_bytes_max
        ),
    )
}

/// The two lanes are tested to agree; should they not, refusing is safe.
fn lanes_differ() -> Rejection {
    Rejection::new(
        RejectionClass::ValidationError,
        "The transaction cannot be taken apart",
    )
}
