//! Applying transactions: the only way the ledger changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aws_lc_rs::digest;
use indexmap::IndexMap;

use crate::{
    Amount, AssetId, IdHash, Input, Operation, OutputRef, Rejection, RejectionClass, Transaction,
    TransactionId, Unproven, Verified,
};

/// Transactions that one refusal reads from history to name what is wrong: more would let a megabyte of
/// input read gigabytes of log.
const HISTORY_TRANSACTIONS_MAX: usize = 256;

/// Transactions whose outputs one COMPOSE may bring together. Each is tried with each asset that the
/// COMPOSE names, so that this many cost 65,536 hashes: as much as checking as many signatures.
const COMPOSED_TRANSACTIONS_MAX: usize = 256;

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
        Lock::hash(&bytes)
    }

    /// The lock of a part that DECOMPOSE `transaction` leaves: no asset id opens it, because a part has
    /// none until a CREATE takes it up.
    pub fn of_part(transaction: &TransactionId, fingerprint: &[u8; 32]) -> Lock {
        let mut bytes = [0; 68];
        bytes[..4].copy_from_slice(b"part");
        bytes[4..36].copy_from_slice(&transaction.0);
        bytes[36..].copy_from_slice(fingerprint);
        Lock::hash(&bytes)
    }

    fn hash(bytes: &[u8]) -> Lock {
        let digest = digest::digest(&digest::SHA256, bytes);
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

/// What the name of a refusal depends on, of an output that was ever committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OutputFacts {
    /// The asset it holds units of.
    asset: AssetId,
    /// It is left by a DECOMPOSE and has no asset id of its own yet.
    part: bool,
}

/// The ledger at one height, as the rules read it. The store implements it, and a plain map in tests.
pub trait View {
    /// The output, if it exists and is unspent. On the path of every transaction: must be fast.
    fn unspent(&self, output: &OutputRef) -> Option<Unspent>;

    /// Whether the transaction was ever committed. On the path of every CREATE: must be fast when it
    /// was not.
    fn is_committed(&self, transaction: &TransactionId) -> bool;

    /// A committed transaction, from history. Asked only to name an error, and by a DECOMPOSE for the one
    /// that made its asset; may be slow, and is asked once for each transaction that is needed.
    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>>;
}

/// What a run of transactions changes. Both maps iterate in the order of the changes, the same on every
/// machine.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Every output that the run makes or spends, with its state after the run: `None` is spent.
    pub outputs: IndexMap<OutputRef, Option<Unspent>, IdHash>,
    /// The transactions of the run.
    pub transactions: IndexMap<TransactionId, Arc<Verified<Transaction>>, IdHash>,
}

/// A view with the changes of later transactions on top. Applying a transaction to it is the only way
/// the ledger changes.
pub struct Overlay<'v, V: ?Sized> {
    view: &'v V,
    changes: Changes,
}

impl OutputFacts {
    /// The output of `transaction` at `index`, if it has that many.
    fn of(transaction: &Transaction, index: u32) -> Option<OutputFacts> {
        transaction.outputs().get(usize::try_from(index).ok()?)?;
        Some(OutputFacts {
            asset: transaction.asset(),
            part: transaction.operation() == Operation::Decompose,
        })
    }
}

impl Changes {
    /// No changes yet, with room for those of so many ordinary transactions, which spend one output and make
    /// one.
    pub fn with_capacity(transactions: usize) -> Changes {
        Changes {
            outputs: IndexMap::with_capacity_and_hasher(2 * transactions, IdHash::default()),
            transactions: IndexMap::with_capacity_and_hasher(transactions, IdHash::default()),
        }
    }

    /// Records a transaction that [`decide`] let pass. Cannot fail, so nothing is ever half applied.
    pub fn record(&mut self, transaction: Arc<Verified<Transaction>>) {
        let id = transaction.id();
        for input in transaction.inputs() {
            if let Some(spent) = input.spends {
                self.outputs.insert(spent, None);
            }
        }
        for (index, output) in (0..).zip(transaction.outputs()) {
            let unspent = Unspent {
                amount: output.amount,
                lock: output.lock,
            };
            self.outputs.insert(
                OutputRef {
                    transaction: id,
                    index,
                },
                Some(unspent),
            );
        }
        self.transactions.insert(id, transaction);
    }

    /// The output's state after these changes; `None` when they do not touch it.
    pub fn unspent(&self, output: &OutputRef) -> Option<Option<Unspent>> {
        self.outputs.get(output).copied()
    }
}

impl<'v, V: View + ?Sized> Overlay<'v, V> {
    /// Nothing changed yet on top of `view`.
    pub fn new(view: &'v V) -> Overlay<'v, V> {
        Overlay::resume(view, Changes::default())
    }

    /// Goes on where an overlay left off; `view` is the state that `changes` was begun on.
    pub fn resume(view: &'v V, changes: Changes) -> Overlay<'v, V> {
        Overlay { view, changes }
    }

    /// Applies one ordered transaction: all of it, or none of it.
    ///
    /// # Errors
    /// The first failure in the order of section 6.6; the overlay is as it was.
    pub fn apply(&mut self, transaction: Arc<Verified<Transaction>>) -> Result<(), Rejection> {
        decide(self, &transaction)?;
        self.changes.record(transaction);
        Ok(())
    }

    /// What the applied transactions change.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl<V: View + ?Sized> View for Overlay<'_, V> {
    fn unspent(&self, output: &OutputRef) -> Option<Unspent> {
        self.changes
            .unspent(output)
            .unwrap_or_else(|| self.view.unspent(output))
    }

    fn is_committed(&self, transaction: &TransactionId) -> bool {
        self.changes.transactions.contains_key(transaction) || self.view.is_committed(transaction)
    }

    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
        let changed = self.changes.transactions.get(id).cloned();
        changed.or_else(|| self.view.transaction(id))
    }
}

/// Whether `transaction` may follow the state that `view` shows (asset ledger, section 6.6).
///
/// # Errors
/// The first failure in that section's order.
pub fn decide(view: &impl View, transaction: &Verified<Transaction>) -> Result<(), Rejection> {
    decide_state(view, transaction)
}

/// Names the error of a transaction whose signatures are wrong: what stands before signatures in the
/// order of section 6.6 is told first.
pub fn decide_unproven(view: &impl View, transaction: &Unproven<Transaction>) -> Rejection {
    decide_state(view, &transaction.0)
        .err()
        .unwrap_or_else(invalid_signature)
}

fn decide_state(view: &impl View, transaction: &Transaction) -> Result<(), Rejection> {
    match transaction.operation() {
        Operation::Create => decide_create(view, transaction),
        Operation::Transfer => decide_transfer(view, transaction),
        Operation::Compose => decide_compose(view, transaction),
        Operation::Decompose => decide_decompose(view, transaction),
    }
}

fn decide_create(view: &impl View, transaction: &Transaction) -> Result<(), Rejection> {
    let id = transaction.id();
    if view.is_committed(&id) {
        return Err(Rejection::new(
            RejectionClass::DuplicateTransaction,
            format!("transaction `{id}` already exists"),
        ));
    }
    Ok(())
}

/// The path of nearly all traffic: one look-up and one hash per input. Only when something does not
/// fit is history asked, to name the error.
fn decide_transfer(view: &impl View, transaction: &Transaction) -> Result<(), Rejection> {
    let asset = transaction.asset();
    let mut spent: u128 = 0;
    let mut fits = true;
    for input in transaction.inputs() {
        let output = spent_output(input);
        let unspent = view
            .unspent(&output)
            .ok_or_else(|| not_spendable(view, &output))?;
        spent = sum(spent, unspent.amount);
        fits &= unspent.lock == Lock::new(&asset, &input.fulfillment.condition.fingerprint);
    }
    refuse_repeated_inputs(transaction)?;
    if !fits {
        let inputs = facts_of_inputs(view, transaction)?;
        refuse_foreign_assets(&inputs, &asset)?;
    }
    let made = transaction
        .outputs()
        .iter()
        .fold(0, |made, output| sum(made, output.amount));
    if spent != made {
        return Err(Rejection::new(
            RejectionClass::AmountError,
            format!(
                "The amount used in the inputs `{spent}` needs to be same as the amount used in the outputs `{made}`"
            ),
        ));
    }
    if fits {
        Ok(())
    } else {
        Err(invalid_signature())
    }
}

/// COMPOSE (section 8): consumes every named asset's inputs and makes one new asset. As in a TRANSFER the
/// locks say whether everything fits, and history is asked only to name what does not.
fn decide_compose(view: &impl View, transaction: &Transaction) -> Result<(), Rejection> {
    let locks = spendable_locks(view, transaction)?;
    if makers(transaction) > COMPOSED_TRANSACTIONS_MAX {
        return Err(Rejection::new(
            RejectionClass::ValidationError,
            format!(
                "COMPOSE may spend outputs of at most {COMPOSED_TRANSACTIONS_MAX} transactions"
            ),
        ));
    }
    let named = named_assets(transaction);
    match consumed_assets(transaction, &locks, &named) {
        Some(consumed) if consumed == named && !named.contains(&transaction.asset()) => Ok(()),
        Some(_) => Err(foreign_asset()),
        None => {
            refuse_assets_not_named(view, transaction, &named)?;
            Err(invalid_signature())
        }
    }
}

/// DECOMPOSE (section 8): consumes one asset entirely.
fn decide_decompose(view: &impl View, transaction: &Transaction) -> Result<(), Rejection> {
    let locks = spendable_locks(view, transaction)?;
    let named = named_assets(transaction);
    let fits = consumed_assets(transaction, &locks, &named).is_some();
    if !fits {
        refuse_assets_not_named(view, transaction, &named)?;
    }
    // The whole supply was made by the transaction that the asset is named after: assets never grow.
    let consumed = locks
        .iter()
        .fold(0, |consumed, unspent| sum(consumed, unspent.amount));
    let supply = named
        .iter()
        .filter_map(|asset| view.transaction(&asset.as_transaction()))
        .flat_map(|creation| {
            creation
                .outputs()
                .iter()
                .map(|output| output.amount)
                .collect::<Vec<_>>()
        })
        .fold(0, sum);
    if consumed != supply {
        return Err(Rejection::new(
            RejectionClass::AmountError,
            format!(
                "DECOMPOSE consumes an asset entirely: the inputs hold `{consumed}` of `{supply}`"
            ),
        ));
    }
    if fits {
        Ok(())
    } else {
        Err(invalid_signature())
    }
}

/// What is kept of each input's output.
fn spendable_locks(view: &impl View, transaction: &Transaction) -> Result<Vec<Unspent>, Rejection> {
    let mut locks = Vec::with_capacity(transaction.inputs().len());
    for input in transaction.inputs() {
        let output = spent_output(input);
        let unspent = view.unspent(&output);
        locks.push(unspent.ok_or_else(|| not_spendable(view, &output))?);
    }
    refuse_repeated_inputs(transaction)?;
    Ok(locks)
}

/// How many transactions made what the inputs spend.
fn makers(transaction: &Transaction) -> usize {
    let inputs = transaction.inputs().iter();
    inputs
        .map(|input| spent_output(input).transaction)
        .collect::<BTreeSet<_>>()
        .len()
}

fn named_assets(transaction: &Transaction) -> BTreeSet<AssetId> {
    transaction.consumed_assets().iter().copied().collect()
}

/// The assets that the inputs hold, if each input's lock opens with one of `named` and the condition that
/// its fulfillment fulfills. A part's lock opens with none.
fn consumed_assets(
    transaction: &Transaction,
    locks: &[Unspent],
    named: &BTreeSet<AssetId>,
) -> Option<BTreeSet<AssetId>> {
    if named.len() > COMPOSED_TRANSACTIONS_MAX {
        return None;
    }
    // The outputs of one transaction are of one asset.
    let mut found: BTreeMap<TransactionId, AssetId> = BTreeMap::new();
    for (input, unspent) in transaction.inputs().iter().zip(locks) {
        let maker = spent_output(input).transaction;
        let fingerprint = &input.fulfillment.condition.fingerprint;
        let opens = |asset: &AssetId| unspent.lock == Lock::new(asset, fingerprint);
        match found.get(&maker) {
            Some(asset) if opens(asset) => {}
            Some(_) => return None,
            None => {
                found.insert(maker, named.iter().copied().find(opens)?);
            }
        }
    }
    Some(found.into_values().collect())
}

/// Names the assets as what is wrong, unless they are right and only a condition is not.
fn refuse_assets_not_named(
    view: &impl View,
    transaction: &Transaction,
    named: &BTreeSet<AssetId>,
) -> Result<(), Rejection> {
    let inputs = facts_of_inputs(view, transaction)?;
    let consumed: BTreeSet<AssetId> = inputs.iter().map(|input| input.asset).collect();
    if consumed != *named || inputs.iter().any(|input| input.part) {
        return Err(foreign_asset());
    }
    Ok(())
}

/// What each input spends, for as many transactions that made it as one decision may read. Each is read
/// once and let go before the next, so that many inputs of one large transaction cost no more than its
/// length, and many large ones take turns in memory.
fn facts_of_inputs(
    view: &impl View,
    transaction: &Transaction,
) -> Result<Vec<OutputFacts>, Rejection> {
    let mut spent: Vec<OutputRef> = transaction.inputs().iter().map(spent_output).collect();
    spent.sort_unstable();
    let mut facts = BTreeMap::new();
    let of_one_maker = |one: &OutputRef, other: &OutputRef| one.transaction == other.transaction;
    for outputs in spent.chunk_by(of_one_maker).take(HISTORY_TRANSACTIONS_MAX) {
        let maker = view.transaction(&outputs[0].transaction);
        for output in outputs {
            let found = maker
                .as_ref()
                .and_then(|maker| OutputFacts::of(maker, output.index));
            facts.insert(*output, found.ok_or_else(|| unknown_input(output))?);
        }
    }
    let in_order = transaction.inputs().iter().map(spent_output);
    Ok(in_order
        .filter_map(|output| facts.get(&output).copied())
        .collect())
}

fn spent_output(input: &Input) -> OutputRef {
    input
        .spends
        .expect("the parser gives every input but a CREATE's an output to spend")
}

/// Sums of at most 65,535 amounts below 2⁶³ fit 128 bits with room to spare.
fn sum(units: u128, amount: Amount) -> u128 {
    units
        .checked_add(u128::from(amount.units()))
        .expect("65,535 amounts stay below 2^79")
}

fn refuse_repeated_inputs(transaction: &Transaction) -> Result<(), Rejection> {
    if transaction.inputs().len() > 1 {
        let mut outputs: Vec<OutputRef> = transaction.inputs().iter().map(spent_output).collect();
        outputs.sort_unstable();
        if outputs.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Rejection::new(
                RejectionClass::DoubleSpend,
                format!("tx \"{}\" spends inputs twice", transaction.id()),
            ));
        }
    }
    Ok(())
}

fn refuse_foreign_assets(inputs: &[OutputFacts], asset: &AssetId) -> Result<(), Rejection> {
    if inputs.windows(2).any(|pair| pair[0].asset != pair[1].asset) {
        return Err(Rejection::new(
            RejectionClass::AssetIdMismatch,
            "All inputs of all transactions passed need to have the same asset id",
        ));
    }
    if inputs
        .iter()
        .any(|input| input.part || input.asset != *asset)
    {
        return Err(foreign_asset());
    }
    Ok(())
}

fn not_spendable(view: &impl View, output: &OutputRef) -> Rejection {
    let maker = view.transaction(&output.transaction);
    if maker.is_none_or(|maker| OutputFacts::of(&maker, output.index).is_none()) {
        return unknown_input(output);
    }
    Rejection::new(
        RejectionClass::DoubleSpend,
        format!("input `{}` was already spent", output.transaction),
    )
}

fn unknown_input(output: &OutputRef) -> Rejection {
    Rejection::new(
        RejectionClass::InputDoesNotExist,
        format!("input `{}` doesn't exist", output.transaction),
    )
}

fn foreign_asset() -> Rejection {
    Rejection::new(
        RejectionClass::AssetIdMismatch,
        "The asset id of the input does not match the asset id of the transaction",
    )
}

fn invalid_signature() -> Rejection {
    Rejection::new(
        RejectionClass::InvalidSignature,
        "Transaction signature is invalid.",
    )
}
