//! One Ed25519 signature, by the same rule as everywhere in the ledger.

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_zebra::{Signature, VerificationKey};

use crate::PublicKey;

/// Whether `signature` is `key`'s over `message`: ZIP-215's equation, minus the encodings that
/// libsodium refuses (small-order keys and commitments, non-canonical keys), as `verify_signatures`
/// has it for batches.
pub(super) fn holds(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    let commitment = *signature.first_chunk().expect("a signature has 64 bytes");
    let point = |bytes: [u8; 32]| CompressedEdwardsY(bytes).decompress();
    let (Some(key_point), Some(commitment)) = (point(key.0), point(commitment)) else {
        return false;
    };
    !key_point.is_small_order()
        && !commitment.is_small_order()
        && key_point.compress().to_bytes() == key.0
        && VerificationKey::try_from(key.0).is_ok_and(|key| {
            key.verify(&Signature::from_bytes(signature), message)
                .is_ok()
        })
}
