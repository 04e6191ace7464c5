//! Crypto-conditions: who may spend an output, and the proof that they did (asset ledger, section 5).

use crate::{PublicKey, Rejection};

/// The cost of one Ed25519 condition.
pub const ED25519_COST: u64 = 131_072;

/// What identifies a condition: equal conditions have equal URIs and the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// SHA-256 of the condition's DER contents. Determines type, cost and sub-types as well, because
    /// the hashed contents do.
    pub fingerprint: [u8; 32],
    /// A threshold rather than a single key.
    pub threshold: bool,
    /// The cost of section 5.1.
    pub cost: u64,
}

/// A decoded fulfillment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fulfillment {
    /// The condition that it opens.
    pub condition: Condition,
    /// Every signature in it, in DER order: all of them must verify.
    pub signatures: Vec<(PublicKey, [u8; 64])>,
}

impl Condition {
    /// The condition of one key.
    pub fn of_key(key: &PublicKey) -> Condition {
        let _ = key;
        todo!()
    }

    /// The condition that `threshold` of `parts` open.
    pub fn of_threshold(threshold: u32, parts: &[Condition]) -> Condition {
        let _ = (threshold, parts);
        todo!()
    }

    /// The URI of section 5.2 or 5.3.
    pub fn uri(&self) -> String {
        todo!()
    }
}

impl Fulfillment {
    /// Decodes strict DER (section 5.5, steps 2 and 3). Cost is linear in the input.
    ///
    /// # Errors
    /// `InvalidSignature` for anything that is not exactly one fulfillment.
    pub fn from_der(bytes: &[u8], depth_max: usize) -> Result<Fulfillment, Rejection> {
        let _ = (bytes, depth_max);
        todo!()
    }
}
