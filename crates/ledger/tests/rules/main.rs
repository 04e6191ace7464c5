//! The rules that need no state, one test for each line of the conformance checklist (asset ledger,
//! section 15) and for each refusal of sections 4 to 8.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod forms;
mod signatures;
mod texts;
mod versions;

use common::{key, lamp, parse_value, refusal, rehash, resign, sale, verify};
use daybook_ledger::{
    Draft, DraftError, OutputRef, Rejection, SigningKey, Transaction, TransactionId,
    condition::{Condition, Details},
};
use serde_json::Value;

const SIGNATURE: &str = "Transaction signature is invalid.";

/// What a node says about a changed lamp that got its true id again.
fn lamp_with(change: impl FnOnce(&mut Value)) -> String {
    let mut lamp = lamp();
    change(&mut lamp);
    rehash(&mut lamp);
    refusal(&lamp)
}

fn sale_with(change: impl FnOnce(&mut Value)) -> String {
    let mut sale = sale();
    change(&mut sale);
    rehash(&mut sale);
    refusal(&sale)
}

/// A changed lamp, signed by Alice again.
fn signed_lamp(change: impl FnOnce(&mut Value)) -> Result<Transaction, Rejection> {
    let mut lamp = lamp();
    change(&mut lamp);
    resign(&mut lamp, &[&key("alice")]);
    parse_value(&lamp)
}

fn is_proven(result: Result<Transaction, Rejection>) -> bool {
    verify(result.unwrap()).is_ok()
}

/// A transfer of an output under `condition`, signed by `signers`.
fn spend(condition: &Details, signers: &[&str]) -> Result<Transaction, DraftError> {
    let output = OutputRef {
        transaction: TransactionId([7; 32]),
        index: 0,
    };
    let keys: Vec<SigningKey> = signers.iter().map(|name| key(name)).collect();
    Draft::transfer(TransactionId([7; 32]).as_asset())
        .spend(output, condition.clone())
        .output(1, &key("erin"))
        .sign(&keys.iter().collect::<Vec<_>>())
}

/// The condition that a transaction's first fulfillment opens, if its signatures are right.
fn opened(transaction: Transaction) -> Option<Condition> {
    let condition = transaction.inputs()[0].fulfillment.condition.clone();
    verify(transaction).is_ok().then_some(condition)
}
