//! The tracker's book: payment channels for traffic sold between peers.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use rand_core::CryptoRng;

use crate::{AssetId, BlockTime, Height, OutputRef, PublicKey, Transaction, TransactionId, json::Value};

/// A request as it arrived, only split into its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command's code.
    pub command: u64,
    /// `corrToken`.
    pub correlation: String,
    /// The envelope's `idem`.
    pub idempotent: bool,
    /// The signed container.
    pub payload: Payload,
}

/// A signed container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Signed by one.
    Single {
        /// The signed text.
        message: String,
        /// The signer's key.
        pk: String,
        /// The signature, base64.
        sign: String,
    },
    /// Signed by payer and payee.
    CoSigned {
        /// The signed text.
        message: String,
        /// The payer's key.
        from_pk: String,
        /// The payer's signature, base64.
        from_sign: String,
        /// The payee's key.
        to_pk: String,
        /// The payee's signature, base64.
        to_sign: String,
    },
}

/// Suites of signatures that are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Suites;

/// SHA-256 of the tracker's SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerId(pub [u8; 32]);

/// Proves requests.
#[derive(Debug)]
pub struct Prover;

impl Prover {
    /// A prover that knows no key yet.
    pub fn new(_: Suites, _: TrackerId) -> Prover {
        Prover
    }

    /// Checks everything that needs no state.
    pub fn prove_batch(
        &mut self,
        requests: Vec<Request>,
        _: &mut impl CryptoRng,
    ) -> Vec<Result<Proven, Refusal>> {
        requests.into_iter().map(|_| Err(Refusal)).collect()
    }
}

/// What a sound request asks for.
#[derive(Clone, Debug)]
pub enum Proven {
    /// It may change the book.
    Command(Command),
}

/// A sound command.
#[derive(Clone, Debug)]
pub struct Command;

/// Why nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal;

impl Refusal {
    /// Nobody's fault but ours.
    pub fn internal(_: impl Into<String>) -> Refusal {
        Refusal
    }
}

/// A transaction of the tracker's book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Bytes);

/// The text is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry of the tracker")]
pub struct MalformedEntry;

impl Entry {
    /// Its name.
    pub fn id(&self) -> TransactionId {
        TransactionId([0; 32])
    }

    /// Its text.
    pub fn text(&self) -> &Bytes {
        &self.0
    }

    /// Reads a stored text.
    ///
    /// # Errors
    /// [`MalformedEntry`] for any other text.
    pub fn read(_: Bytes) -> Result<Entry, MalformedEntry> {
        Err(MalformedEntry)
    }

    /// Every name under which it is looked up later.
    pub fn index_keys(&self, _: &mut dyn FnMut(IndexKey<'_>)) {}
}

/// A name of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKey<'a> {
    /// An address or a channel's id.
    Object(&'a str),
    /// SHA-256 of a SubjectPublicKeyInfo.
    Owner([u8; 32]),
    /// A record's type.
    Type(u8),
    /// A record's number.
    Sequence(u64),
    /// SHA-256 of owner and correlation token.
    Request([u8; 32]),
}

/// Closed objects, from disk.
pub trait History {
    /// The newest committed entry with that key.
    fn newest(&self, key: IndexKey<'_>) -> Option<Arc<Entry>>;
}

/// How the tracker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings;

/// A broken invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a broken invariant")
    }
}

/// What an asset transaction means for the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// Nothing.
    Nothing,
    /// It brings tokens.
    Deposit {
        /// How many.
        amount: u64,
    },
    /// It takes tokens.
    Spends,
}

/// What a command leads to.
#[derive(Clone, Debug)]
pub enum Decision {
    /// A new entry.
    Entry(Entry),
    /// The entry of the first time.
    Repeat(Arc<Entry>),
    /// A payout.
    Payout(PayoutPlan),
}

/// A payout to be signed.
#[derive(Clone, Debug)]
pub struct PayoutPlan;

impl PayoutPlan {
    /// The asset to move.
    pub fn token(&self) -> AssetId {
        AssetId([0; 32])
    }

    /// The outputs to spend.
    pub fn inputs(&self) -> impl Iterator<Item = OutputRef> {
        std::iter::empty()
    }

    /// Units to pay.
    pub fn amount(&self) -> u64 {
        0
    }

    /// Units that come back.
    pub fn change(&self) -> u64 {
        0
    }

    /// Who is paid.
    pub fn pay_to(&self) -> PublicKey {
        PublicKey([0; 32])
    }

    /// What links the TRANSFER to the request.
    pub fn metadata(&self) -> Value {
        Value::Null
    }

    /// The entry behind the TRANSFER.
    pub fn entry(self, _: &Transaction) -> Entry {
        Entry(Bytes::new())
    }
}

/// The bytes are no book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tracker's book")]
pub struct MalformedBook;

/// The tracker's state.
#[derive(Clone, Debug, Default)]
pub struct Book;

impl Book {
    /// How the tracker runs.
    pub fn settings(&self) -> Option<&Settings> {
        None
    }

    /// What a command leads to.
    ///
    /// # Errors
    /// Why nothing.
    pub fn decide(&self, _: &Command, _: BlockTime, _: &dyn History) -> Result<Decision, Refusal> {
        Err(Refusal)
    }

    /// What is due.
    pub fn due(&self, _: BlockTime, _: usize) -> Option<Entry> {
        None
    }

    /// When the next thing is due.
    pub fn next_due(&self) -> Option<BlockTime> {
        None
    }

    /// New settings.
    pub fn configure(&self, _: Settings, _: BlockTime) -> Option<Entry> {
        None
    }

    /// What an asset transaction means.
    pub fn meets(&self, _: &Transaction) -> Meets {
        Meets::Nothing
    }

    /// The entry behind a deposit.
    pub fn deposit(&self, _: &Transaction, _: BlockTime) -> Entry {
        Entry(Bytes::new())
    }

    /// Folds an entry in.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn record(&mut self, _: &Entry, _: Height) -> Result<(), Violation> {
        Ok(())
    }

    /// Drops what history shows.
    pub fn forget(&mut self, _: Height) {}

    /// Checks everything.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn audit(&self) -> Result<(), Violation> {
        Ok(())
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`MalformedBook`] for others.
    pub fn decode(_: &[u8]) -> Result<Book, MalformedBook> {
        Ok(Book)
    }
}
