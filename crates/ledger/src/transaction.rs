//! Transactions of the asset ledger, read from text and sound by themselves.

use bytes::Bytes;

use crate::{
    Amount, AssetId, Lock, OutputRef, PublicKey, Rejection, TransactionId,
    condition::{Condition, Fulfillment},
};

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

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    /// The output it spends; `None` in a CREATE.
    pub spends: Option<OutputRef>,
    /// The owners that the client named; informative.
    pub owners_before: Vec<PublicKey>,
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
    pub public_keys: Vec<PublicKey>,
    /// The commitment to asset and condition under which the output is kept unspent.
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
    // private fields; see accessors
    pub(crate) canonical: Bytes,
    pub(crate) id: TransactionId,
    pub(crate) version: Version,
    pub(crate) operation: Operation,
    pub(crate) asset: AssetId,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
}

/// Reads transactions. Keeps decoded keys and scratch space between calls; one per thread.
pub struct Parser {
    rules: Rules,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { key_names: true, language: true, all_owners_sign: false, limits: Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            transaction_bytes_max: 1 << 20,
            json_depth_max: 512,
            condition_depth_max: 100,
            outputs_max: 65_535,
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

    /// The asset of its outputs: its own id where it creates one.
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

    /// Every asset that a COMPOSE or DECOMPOSE consumes, or the one that a TRANSFER moves, in the order
    /// of the text; empty for a CREATE.
    pub fn consumed_assets(&self) -> &[AssetId] {
        todo!()
    }

    /// The canonical text of each `data` member of `asset` or `assets`, JSON null left out.
    pub fn asset_data(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// The canonical text of `metadata`, unless it is JSON null.
    pub fn metadata(&self) -> Option<&str> {
        todo!()
    }
}

impl Parser {
    /// A parser for transactions under `rules`.
    pub fn new(rules: Rules) -> Parser {
        Parser { rules }
    }

    /// Reads one transaction as a client sent it: canonical or not.
    ///
    /// # Errors
    /// The first failure in the order of sections 6.1 to 6.5.
    pub fn parse(&mut self, text: Bytes) -> Result<Transaction, Rejection> {
        let _ = (&self.rules, text);
        todo!()
    }

    /// Reads a transaction that a block holds: canonical text whose id and signatures were checked
    /// before it was stored. The id is taken from the text and not computed again, and
    /// [`Input::message`] is left zero.
    ///
    /// # Errors
    /// A [`Rejection`] when the text is no such transaction: the store is damaged.
    pub fn parse_stored(&mut self, text: Bytes) -> Result<Transaction, Rejection> {
        let _ = text;
        todo!()
    }
}
