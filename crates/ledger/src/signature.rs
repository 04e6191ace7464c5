//! Ed25519 signatures, checked in batches.

use rand_core::CryptoRng;

use crate::Transaction;

/// A value whose signatures were checked. Only this module makes one from a client's bytes.
#[derive(Clone, Debug)]
pub struct Verified<T>(T);

/// A transaction whose signatures are wrong. It is kept only to find the error that clients are told:
/// a missing input or a double spend comes first (asset ledger, section 6.6).
#[derive(Clone, Debug)]
pub struct Unproven<T>(pub T);

impl<T> Verified<T> {
    /// Vouches for a value that a durable block holds: its signatures were checked before it was
    /// stored, and the block's checksum says it is the same.
    pub fn from_stored(value: T) -> Verified<T> {
        Verified(value)
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Checks every signature of every transaction, in one batch; a failing batch is halved until the
/// bad ones are found. `random` gives the batch's coefficients.
///
/// The rule is ZIP-215's cofactored equation, so that a batch and a single check always agree, minus
/// the encodings that libsodium refuses: small-order keys and commitments and non-canonical keys
/// (asset ledger, section 5.5).
pub fn verify_signatures(
    transactions: Vec<Transaction>,
    random: &mut impl CryptoRng,
) -> Vec<Result<Verified<Transaction>, Unproven<Transaction>>> {
    let _ = (transactions, random);
    todo!()
}
