//! Ed25519 signatures, checked in batches.

use ed25519_zebra::{Signature, VerificationKeyBytes, batch};
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
///
/// The answers stand in the order of the questions. A transaction whose owners and signers do not
/// fit (section 6.6) counts as one with a wrong signature.
#[expect(
    clippy::result_large_err,
    reason = "an unproven transaction is still needed, and boxing the sound ones would cost more"
)]
pub fn verify_signatures(
    transactions: Vec<Transaction>,
    random: &mut impl CryptoRng,
) -> Vec<Result<Verified<Transaction>, Unproven<Transaction>>> {
    let mut sound: Vec<bool> = Vec::with_capacity(transactions.len());
    let mut claims = Vec::with_capacity(transactions.len());
    for (place, transaction) in transactions.iter().enumerate() {
        let start = claims.len();
        let mut promising = transaction.signers_named;
        for input in transaction.inputs() {
            for (key, signature) in &input.fulfillment.signatures {
                promising &= is_acceptable(&key.0, signature);
                let key = VerificationKeyBytes::from(key.0);
                let signature = Signature::from_bytes(signature);
                let item = batch::Item::from((key, signature, &input.message));
                claims.push(Claim { place, item });
            }
        }
        if !promising {
            claims.truncate(start);
        }
        sound.push(promising);
    }
    find_bad(&claims, random, &mut |place| sound[place] = false);
    transactions
        .into_iter()
        .zip(sound)
        .map(|(transaction, sound)| {
            if sound {
                Ok(Verified(transaction))
            } else {
                Err(Unproven(transaction))
            }
        })
        .collect()
}

/// Below this many signatures single checks cost less than halving on.
const HALVING_MIN: usize = 4;

/// One signature and the transaction it belongs to.
struct Claim {
    place: usize,
    item: batch::Item,
}

/// Names the transactions with a bad signature.
fn find_bad(claims: &[Claim], random: &mut impl CryptoRng, bad: &mut impl FnMut(usize)) {
    if !holds(claims, random) {
        split(claims, random, bad);
    }
}

/// Finds the bad ones among claims of which at least one is bad.
fn split(claims: &[Claim], random: &mut impl CryptoRng, bad: &mut impl FnMut(usize)) {
    if claims.len() < HALVING_MIN {
        for claim in claims {
            if claim.item.clone().verify_single().is_err() {
                bad(claim.place);
            }
        }
        return;
    }
    let (left, right) = claims.split_at(claims.len() / 2);
    if holds(left, random) {
        split(right, random, bad);
    } else {
        split(left, random, bad);
        find_bad(right, random, bad);
    }
}

fn holds(claims: &[Claim], random: &mut impl CryptoRng) -> bool {
    let mut verifier = batch::Verifier::new();
    for claim in claims {
        verifier.queue(claim.item.clone());
    }
    verifier.verify(random).is_ok()
}

/// The order of the group, 2²⁵² + 27742317777372353535851937790883648493, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// What libsodium refuses by looking at the bytes: a scalar not below the group order, small-order
/// points, a key that is not canonically encoded.
fn is_acceptable(key: &[u8; 32], signature: &[u8; 64]) -> bool {
    let (commitment, scalar) = signature.split_at(32);
    let below_order = scalar.iter().rev().lt(ORDER.iter().rev());
    below_order && !is_small_order(commitment) && !is_small_order(key) && is_canonical(key)
}

/// The y-coordinates of the points of small order, sign bit clear; the last two are encodings of 0
/// and 1 beyond the field prime that decoders take.
const SMALL_ORDER: [[u8; 32]; 7] = [
    // 0, of order 4
    [0; 32],
    // 1, the identity
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    // of order 8
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    // of order 8
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

/// The encoding with `first` followed by thirty bytes 0xff and 0x7f: 0xed gives the field prime.
const fn near_prime(first: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}

fn is_small_order(point: &[u8]) -> bool {
    SMALL_ORDER
        .iter()
        .any(|small| small[..31] == point[..31] && small[31] == point[31] & 0x7f)
}

/// Whether the y-coordinate is below the field prime 2²⁵⁵ − 19.
fn is_canonical(point: &[u8; 32]) -> bool {
    let prime = near_prime(0xed);
    let y = point[..31].iter().copied().chain([point[31] & 0x7f]);
    y.rev().lt(prime.iter().rev().copied())
}
