//! The consortium's book, told in stories: each follows the protocol's checklist (section 11), whose
//! numbers stand beside the tests.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../consortium_common/mod.rs"]
mod consortium_common;
mod decisions;
mod entries;
mod evidence;
mod members;
mod queues;
mod requests;
mod stored;
mod trees;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consortium_common::*;
use daybook_ledger::{
    BlockTime, Height, TransactionId,
    consortium::*,
    json::{Object, Value},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const ALL: [u8; 5] = [1, 2, 3, 4, 5];
const UNANIMOUS: Policy = Policy::Unanimous;

fn parse(text: &str) -> Value {
    text.parse().unwrap()
}

fn five() -> [&'static str; 5] {
    [
        r#"{"cargo":"Арбузы","no":"A-1","qty":3,"txnMetadata":{"seqNo":1}}"#,
        r#"{"cargo":"steel \"coil\"","no":"A-2","qty":1.5,"txnMetadata":{"seqNo":2}}"#,
        r#"{"cargo":"tea/чай","hazard":null,"no":"A-3","txnMetadata":{"seqNo":3}}"#,
        r#"{"list":[{"a":2,"b":1}],"no":"A-4","txnMetadata":{"seqNo":4,"txnTime":"2026-03-01 09:15:27.004210"}}"#,
        r#"{"empty":{},"no":"A-5","txnMetadata":{"seqNo":5,"txnTime":"2026-03-01 09:15:27.004210"}}"#,
    ]
}

fn hash(text: &str) -> TreeHash {
    text.parse().unwrap()
}
