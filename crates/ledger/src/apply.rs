//! Applying transactions: the only way the ledger changes.

use std::collections::BTreeMap;

use aws_lc_rs::digest;

use crate::{
    Amount, AssetId, Operation, OutputRef, Rejection, RejectionClass, Transaction, TransactionId,
    Unproven, Verified, condition::Condition,
};

/// A commitment to the asset and the condition of an output: SHA-256 of asset id and condition
/// fingerprint. Together with the amount it is all that the ledger keeps of an unspent output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock(pub [u8; 32]);

impl Lock {
    /// The lock of an output of `asset` under a condition with `fingerprint`.
    pub fn new(asset: &AssetId, fingerprint: &[u8; 32]) -> Lock {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&asset.0);
        bytes[32..].copy_from_slice(fingerprint);
        let digest = digest::digest(&digest::SHA256, &bytes);
        Lock(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// What is kept of an unspent output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unspent {
    /// Its units.
    pub amount: Amount,
    /// Its asset and condition.
    pub lock: Lock,
}

/// All there is to know about an output that was ever committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFacts {
    /// The asset it holds units of.
    pub asset: AssetId,
    /// Its units.
    pub amount: Amount,
    /// Who may spend it.
    pub condition: Condition,
    /// It is left by a DECOMPOSE and has no asset id of its own yet.
    pub part: bool,
}

/// The ledger at one height, as the rules read it. The store implements it, and a plain map in tests.
pub trait View {
    /// The output, if it exists and is unspent. On the path of every transaction: must be fast.
    fn unspent(&self, output: &OutputRef) -> Option<Unspent>;

    /// Whether the transaction was ever committed. On the path of every CREATE: must be fast when it
    /// was not.
    fn is_committed(&self, transaction: &TransactionId) -> bool;

    /// The output, spent or not, from history. Asked only to name an error and by COMPOSE; may be slow.
    fn output(&self, output: &OutputRef) -> Option<OutputFacts>;
}

/// What a run of transactions changes.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Outputs that were unspent before and are not any more, and outputs that are new, each with its
    /// state after the run: `None` is spent.
    pub outputs: BTreeMap<OutputRef, Option<Unspent>>,
    /// The transactions, by id, with the asset and condition of each of their outputs at hand.
    pub transactions: BTreeMap<TransactionId, Vec<OutputFacts>>,
}

/// A view with the changes of later transactions on top.
pub struct Overlay<'v, V: ?Sized> {
    view: &'v V,
    changes: Changes,
}
