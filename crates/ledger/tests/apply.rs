//! Applying transactions to a plain map: what COMPOSE and DECOMPOSE may and may not do, and that a
//! refusal leaves no trace.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use daybook_ledger::{
    Changes, Draft, OutputRef, Overlay, Rejection, RejectionClass, SigningKey, Transaction,
    TransactionId, Unspent, Verified, Version, View, condition::Details, json::Value,
};

/// A ledger in a map.
#[derive(Default)]
struct Book {
    changes: BTreeMap<OutputRef, Option<Unspent>>,
    transactions: BTreeMap<TransactionId, Arc<Verified<Transaction>>>,
    /// Transactions read from history.
    reads: Cell<usize>,
}

impl View for Book {
    fn unspent(&self, output: &OutputRef) -> Option<Unspent> {
        self.changes.get(output).copied().flatten()
    }

    fn is_committed(&self, transaction: &TransactionId) -> bool {
        self.transactions.contains_key(transaction)
    }

    fn transaction(&self, id: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
        self.reads.set(self.reads.get() + 1);
        self.transactions.get(id).cloned()
    }
}

impl Book {
    fn apply(&mut self, transaction: &Transaction) -> Result<(), RejectionClass> {
        let verified = Arc::new(Verified::from_stored(transaction.clone()));
        let mut overlay = Overlay::new(self);
        let outcome: Result<(), Rejection> = overlay.apply(verified);
        let Changes {
            outputs,
            transactions,
        } = overlay.into_changes();
        if outcome.is_err() {
            assert!(
                outputs.is_empty() && transactions.is_empty(),
                "a refusal leaves no trace"
            );
        }
        self.changes.extend(outputs);
        self.transactions.extend(transactions);
        outcome.map_err(|rejection| rejection.class)
    }
}

fn owner() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn thief() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

fn key(of: &SigningKey) -> Details {
    Details::Key(of.public_key())
}

fn asset(name: &str, amounts: &[u64]) -> Transaction {
    let mut draft = Draft::create(Value::from(name)).version(Version::V3);
    for amount in amounts {
        draft = draft.output(*amount, key(&owner()));
    }
    draft.sign(&[&owner()]).unwrap()
}

fn compose(of: &[&Transaction], named: &[&Transaction], by: &SigningKey) -> Transaction {
    let mut draft = Draft::compose("whole", named.iter().map(|part| part.asset()));
    for part in of {
        draft = draft.spend(part.output_ref(0), key(by));
    }
    let draft = draft.version(Version::V3).output(1, key(by));
    draft.sign(&[by]).unwrap()
}

fn decompose(whole: &Transaction, by: &SigningKey) -> Transaction {
    Draft::decompose(whole.asset(), ["one".to_owned(), "two".to_owned()])
        .version(Version::V3)
        .spend(whole.output_ref(0), key(by))
        .output(1, key(by))
        .output(1, key(by))
        .sign(&[by])
        .unwrap()
}

#[test]
fn a_compose_consumes_what_it_names_and_names_what_it_consumes() {
    let mut book = Book::default();
    let (frame, wheel) = (asset("frame", &[1]), asset("wheel", &[2]));
    assert_eq!(book.apply(&frame), Ok(()));
    assert_eq!(book.apply(&wheel), Ok(()));
    let forgotten = compose(&[&frame, &wheel], &[&frame], &owner());
    assert_eq!(book.apply(&forgotten), Err(RejectionClass::AssetIdMismatch));
    let idle = compose(&[&frame], &[&frame, &wheel], &owner());
    assert_eq!(book.apply(&idle), Err(RejectionClass::AssetIdMismatch));
    let stolen = compose(&[&frame, &wheel], &[&frame, &wheel], &thief());
    assert_eq!(book.apply(&stolen), Err(RejectionClass::InvalidSignature));
    let bicycle = compose(&[&frame, &wheel], &[&frame, &wheel], &owner());
    assert_eq!(book.apply(&bicycle), Ok(()));
    assert_eq!(book.unspent(&frame.output_ref(0)), None);
    assert_eq!(book.apply(&bicycle), Err(RejectionClass::DoubleSpend));
    let sold = Draft::transfer(bicycle.asset())
        .version(Version::V3)
        .spend(bicycle.output_ref(0), key(&owner()))
        .output(1, key(&thief()))
        .sign(&[&owner()])
        .unwrap();
    assert_eq!(
        book.apply(&sold),
        Ok(()),
        "what was composed is an asset like any other"
    );
}

#[test]
fn a_decompose_consumes_an_asset_entirely() {
    let mut book = Book::default();
    let (split, whole) = (asset("split", &[1, 1]), asset("whole", &[5]));
    assert_eq!(book.apply(&split), Ok(()));
    assert_eq!(book.apply(&whole), Ok(()));
    let partly = decompose(&split, &owner());
    assert_eq!(book.apply(&partly), Err(RejectionClass::AmountError));
    let stolen = decompose(&whole, &thief());
    assert_eq!(book.apply(&stolen), Err(RejectionClass::InvalidSignature));
    assert_eq!(book.apply(&decompose(&whole, &owner())), Ok(()));
}

#[test]
fn a_part_has_no_asset_id_that_a_transfer_could_name() {
    let mut book = Book::default();
    let whole = asset("whole", &[2]);
    assert_eq!(book.apply(&whole), Ok(()));
    let parts = decompose(&whole, &owner());
    assert_eq!(book.apply(&parts), Ok(()));
    for named in [parts.id().as_asset(), whole.asset()] {
        let moved = Draft::transfer(named)
            .version(Version::V3)
            .spend(parts.output_ref(0), key(&owner()))
            .output(1, key(&thief()))
            .sign(&[&owner()])
            .unwrap();
        assert_eq!(book.apply(&moved), Err(RejectionClass::AssetIdMismatch));
    }
    let composed = compose(&[&parts], &[&parts], &owner());
    assert_eq!(book.apply(&composed), Err(RejectionClass::AssetIdMismatch));
}

#[test]
fn however_many_outputs_of_one_transaction_are_claimed_it_is_read_once() {
    let mut book = Book::default();
    let amounts: Vec<u64> = vec![1; 200];
    let (wide, other) = (asset("wide", &amounts), asset("other", &[1]));
    assert_eq!(book.apply(&wide), Ok(()));
    assert_eq!(book.apply(&other), Ok(()));
    let mut claim = Draft::transfer(other.asset()).version(Version::V3);
    for index in 0..200 {
        claim = claim.spend(wide.output_ref(index), key(&owner()));
    }
    let claim = claim.output(200, key(&owner())).sign(&[&owner()]).unwrap();
    assert_eq!(book.apply(&claim), Err(RejectionClass::AssetIdMismatch));
    assert_eq!(book.reads.get(), 1);
    assert_eq!(
        book.apply(&decompose(&wide, &owner())),
        Err(RejectionClass::AmountError)
    );
    assert_eq!(book.reads.get(), 2, "the creation of the whole supply");
}

#[test]
fn a_composition_is_decided_without_history_and_reads_little_of_it_to_name_what_is_wrong() {
    let mut book = Book::default();
    let parts: Vec<Transaction> = (0..257)
        .map(|number| asset(&format!("part {number}"), &[1, 1]))
        .collect();
    for part in &parts {
        assert_eq!(book.apply(part), Ok(()));
    }
    let all: Vec<&Transaction> = parts.iter().collect();
    let (most, rest) = all.split_at(256);
    let too_many = compose(&all, &all, &owner());
    assert_eq!(book.apply(&too_many), Err(RejectionClass::ValidationError));
    let forgotten = compose(most, &most[..255], &owner());
    assert_eq!(book.reads.get(), 0);
    assert_eq!(book.apply(&forgotten), Err(RejectionClass::AssetIdMismatch));
    let idle = compose(&most[..255], most, &owner());
    assert_eq!(book.apply(&idle), Err(RejectionClass::AssetIdMismatch));
    let stolen = compose(most, most, &thief());
    assert_eq!(book.apply(&stolen), Err(RejectionClass::InvalidSignature));
    assert_eq!(book.reads.get(), 2 * 256, "once for each, to name it");
    assert_eq!(book.apply(&compose(most, most, &owner())), Ok(()));
    let second = |part: &&Transaction| part.output_ref(1);
    let both = Draft::compose("again", most.iter().map(|part| part.asset()))
        .version(Version::V3)
        .spend(rest[0].output_ref(0), key(&owner()));
    let both = most
        .iter()
        .fold(both, |draft, part| draft.spend(second(part), key(&owner())));
    let both = both.output(1, key(&owner())).sign(&[&owner()]).unwrap();
    assert_eq!(book.apply(&both), Err(RejectionClass::ValidationError));
    assert_eq!(book.reads.get(), 2 * 256, "none of these needed any");
}
