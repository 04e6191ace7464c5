//! The state of a ledger that members agree on, and its hashes (section 3.3).

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest as _, Md5};

use super::{
    canonical::{canon, canon_object},
    tree::TreeHash,
};
use crate::json::{Object, Value};

/// A ledger before and after the entries that are proposed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The ledger's name.
    pub name: String,
    /// The root of what is committed.
    pub root: TreeHash,
    /// How many entries are committed; also the sequence number of the last.
    pub size: u64,
    /// The root with the proposed entries.
    pub uncommitted_root: TreeHash,
    /// How many entries there are with the proposed ones.
    pub uncommitted_size: u64,
}

impl State {
    /// The state's canonical text.
    pub fn text(&self) -> String {
        canon_object(&self.to_object())
    }

    /// The state as it stands in messages and entries.
    pub fn to_object(&self) -> Object {
        Object::from_iter([
            ("name", Value::from(self.name.as_str())),
            ("root_hash", Value::from(self.root.to_string())),
            ("seq_no", Value::from(self.size)),
            ("size", Value::from(self.size)),
            (
                "uncommitted_root_hash",
                Value::from(self.uncommitted_root.to_string()),
            ),
            ("uncommitted_size", Value::from(self.uncommitted_size)),
        ])
    }

    /// Reads what [`State::to_object`] wrote.
    pub fn read(value: &Value) -> Option<State> {
        let object = value.as_object()?;
        let text = |name| object.get(name)?.as_str();
        let count = |name| object.get(name)?.as_u64();
        let state = State {
            name: text("name")?.to_owned(),
            root: text("root_hash")?.parse().ok()?,
            size: count("size")?,
            uncommitted_root: text("uncommitted_root_hash")?.parse().ok()?,
            uncommitted_size: count("uncommitted_size")?,
        };
        // The sequence number of the last entry is the size, and nothing stands beside these members.
        let grows = state.size <= state.uncommitted_size;
        (grows && object.len() == 6 && count("seq_no")? == state.size).then_some(state)
    }

    /// The state hash of the original: MD5, in hexadecimal. Peers of the original compare it; nothing
    /// here rests on it.
    pub fn legacy_hash(&self) -> String {
        hex::encode(Md5::digest(self.text()))
    }
}

/// The parallel hash of the original over several states: SHA-256 of their state hashes, sorted by
/// name.
pub fn legacy_parallel_hash(states: &[State]) -> String {
    let hashes: String = sorted(states).into_iter().map(State::legacy_hash).collect();
    hex::encode(digest(&SHA256, hashes.as_bytes()))
}

/// What endorsements are over: the Merkle root (RFC 6962) whose leaves are the canonical texts of the
/// states, sorted by name. One ledger's state can so be proven without showing the others.
pub fn agreed(states: &[State]) -> TreeHash {
    TreeHash::root(sorted(states).into_iter().map(State::text))
}

fn sorted(states: &[State]) -> Vec<&State> {
    let mut sorted: Vec<&State> = states.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted
}

/// The ledger hash of the original: over the name, the root and the genesis entries with their
/// metadata.
pub fn ledger_hash(name: &str, root: TreeHash, genesis: Vec<Value>) -> Value {
    let ledger = Object::from_iter([
        ("name", Value::from(name)),
        ("root_hash", Value::from(root.to_string())),
        ("genesis", Value::Array(genesis)),
    ]);
    let hash = digest(&SHA256, canon(&Value::Object(ledger)).as_bytes());
    Value::Object(Object::from_iter([
        ("func", "sha256".to_owned()),
        ("base58", bs58::encode(hash).into_string()),
    ]))
}
