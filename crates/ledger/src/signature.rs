//! Ed25519 signatures, checked in batches.

use aws_lc_rs::digest;
use curve25519_dalek::{
    constants::ED25519_BASEPOINT_POINT,
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use rand_core::CryptoRng;

use crate::{PublicKey, Transaction};

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

/// Checks every signature of every transaction. `random` gives the batch's coefficients; nobody who
/// makes signatures may be able to foretell it.
///
/// The rule is ZIP-215's cofactored equation, so that a batch and a single check always agree, minus
/// the encodings that libsodium refuses: small-order keys and commitments and non-canonical keys
/// (asset ledger, section 5.5).
///
/// The answers stand in the order of the questions. A transaction whose owners and signers do not
/// fit (section 6.6) counts as one with a wrong signature.
///
/// Who checks batch after batch keeps a [`SignatureChecker`], which remembers decoded keys.
#[expect(
    clippy::result_large_err,
    reason = "an unproven transaction is still needed, and boxing the sound ones would cost more"
)]
pub fn verify_signatures(
    transactions: Vec<Transaction>,
    random: &mut impl CryptoRng,
) -> Vec<Result<Verified<Transaction>, Unproven<Transaction>>> {
    SignatureChecker::new().verify(transactions, random)
}

/// How many decoded keys a checker remembers. A key has one place; a newcomer takes it over. Fully
/// used, a checker holds 2 MB of them.
const KEYS: usize = 8_192;

/// Checks signatures in batches and remembers decoded keys from one batch to the next; one per thread.
///
/// With Bernstein et al., "High-speed high-security signatures", section 5, a batch holds when
/// `8·Σ zᵢ·(Rᵢ + kᵢ·Aᵢ − sᵢ·B) = 0` for random 128-bit `zᵢ`; terms of one key are added up. Decoding
/// points and hashing is done once per signature. When the sum is not zero, the sum over one half
/// is computed and the other half's sum is the difference, down to the bad ones: each further bad
/// signature costs less than checking its batch again.
pub struct SignatureChecker {
    keys: Vec<Option<Box<KnownKey>>>,
    /// The number of the present batch: tells which of the known keys it has met.
    batch: u64,
}

struct KnownKey {
    bytes: [u8; 32],
    point: EdwardsPoint,
    batch: u64,
    index: usize,
}

/// One signature, taken apart.
struct Claim {
    /// The transaction it belongs to.
    place: usize,
    /// The key among those of the batch.
    key: usize,
    commitment: EdwardsPoint,
    coefficient: Scalar,
    /// The coefficient times the challenge: the key's factor.
    key_factor: Scalar,
    /// The coefficient times the signature's scalar: the base point's factor, to be subtracted.
    base_factor: Scalar,
}

impl Default for SignatureChecker {
    fn default() -> SignatureChecker {
        SignatureChecker::new()
    }
}

impl SignatureChecker {
    /// A checker that knows no key yet.
    pub fn new() -> SignatureChecker {
        SignatureChecker {
            keys: Vec::new(),
            batch: 0,
        }
    }

    /// As [`verify_signatures`].
    #[expect(
        clippy::result_large_err,
        reason = "an unproven transaction is still needed, and boxing the sound ones would cost more"
    )]
    pub fn verify(
        &mut self,
        transactions: Vec<Transaction>,
        random: &mut impl CryptoRng,
    ) -> Vec<Result<Verified<Transaction>, Unproven<Transaction>>> {
        self.batch += 1;
        let mut batch = Batch {
            keys: Vec::new(),
            claims: Vec::with_capacity(transactions.len()),
        };
        let mut sound: Vec<bool> = transactions
            .iter()
            .enumerate()
            .map(|(place, transaction)| {
                let start = batch.claims.len();
                let promising = transaction.signers_named
                    && transaction.inputs().iter().all(|input| {
                        input.fulfillment.signatures.iter().all(|(key, signature)| {
                            self.claim(&mut batch, place, key, signature, &input.message, random)
                                .is_some()
                        })
                    });
                if !promising {
                    batch.claims.truncate(start);
                }
                promising
            })
            .collect();
        let mut slots = vec![usize::MAX; batch.keys.len()];
        let total = batch.sum(&batch.claims, &mut slots);
        if !is_zero(&total) {
            batch.locate(&batch.claims, total, &mut slots, &mut |place| {
                sound[place] = false
            });
        }
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

    /// Adds a signature to the batch; `None` when it is bad by itself.
    fn claim(
        &mut self,
        batch: &mut Batch,
        place: usize,
        key: &PublicKey,
        signature: &[u8; 64],
        message: &[u8; 32],
        random: &mut impl CryptoRng,
    ) -> Option<()> {
        let (commitment, scalar) = signature.split_at(32);
        let commitment: [u8; 32] = commitment.try_into().expect("half of 64 bytes");
        let scalar: [u8; 32] = scalar.try_into().expect("half of 64 bytes");
        if is_small_order(&commitment) {
            return None;
        }
        let scalar: Scalar = Option::from(Scalar::from_canonical_bytes(scalar))?;
        let key_index = self.key(batch, key)?;
        let mut hashed = [0; 96];
        hashed[..32].copy_from_slice(&commitment);
        hashed[32..64].copy_from_slice(&key.0);
        hashed[64..].copy_from_slice(message);
        let challenge = digest::digest(&digest::SHA512, &hashed);
        let challenge = challenge.as_ref().try_into().expect("SHA-512 has 64 bytes");
        let challenge = Scalar::from_bytes_mod_order_wide(challenge);
        let commitment = CompressedEdwardsY(commitment).decompress()?;
        let mut coefficient = [0; 16];
        random.fill_bytes(&mut coefficient);
        let coefficient = Scalar::from(u128::from_le_bytes(coefficient));
        batch.claims.push(Claim {
            place,
            key: key_index,
            commitment,
            coefficient,
            key_factor: coefficient * challenge,
            base_factor: coefficient * scalar,
        });
        Some(())
    }

    /// The place of a key among those of the batch; `None` for one that can sign nothing.
    fn key(&mut self, batch: &mut Batch, key: &PublicKey) -> Option<usize> {
        if self.keys.is_empty() {
            self.keys.resize_with(KEYS, || None);
        }
        let eight = *key.0.first_chunk().expect("a key has 32 bytes");
        let place = &mut self.keys[u64::from_le_bytes(eight) as usize % KEYS];
        let known = match place {
            Some(known) if known.bytes == key.0 => known,
            _ => {
                if is_small_order(&key.0) || !is_canonical(&key.0) {
                    return None;
                }
                let point = CompressedEdwardsY(key.0).decompress()?;
                place.insert(Box::new(KnownKey {
                    bytes: key.0,
                    point,
                    batch: 0,
                    index: 0,
                }))
            }
        };
        // A key that lost its place within a batch is met anew, which costs a little and harms nothing.
        if known.batch != self.batch {
            known.batch = self.batch;
            known.index = batch.keys.len();
            batch.keys.push(known.point);
        }
        Some(known.index)
    }
}

/// The signatures that are checked together.
struct Batch {
    keys: Vec<EdwardsPoint>,
    claims: Vec<Claim>,
}

impl Batch {
    /// The sum over some of the claims. `slots` has a place for every key and is given back clean.
    fn sum(&self, claims: &[Claim], slots: &mut [usize]) -> EdwardsPoint {
        let mut points = Vec::with_capacity(2 * claims.len() + 1);
        let mut factors = Vec::with_capacity(2 * claims.len() + 1);
        points.push(ED25519_BASEPOINT_POINT);
        factors.push(-claims.iter().map(|claim| claim.base_factor).sum::<Scalar>());
        for claim in claims {
            points.push(claim.commitment);
            factors.push(claim.coefficient);
            let slot = &mut slots[claim.key];
            if *slot == usize::MAX {
                *slot = points.len();
                points.push(self.keys[claim.key]);
                factors.push(claim.key_factor);
            } else {
                factors[*slot] += claim.key_factor;
            }
        }
        for claim in claims {
            slots[claim.key] = usize::MAX;
        }
        EdwardsPoint::vartime_multiscalar_mul(&factors, &points)
    }

    /// Names the transactions of the bad claims; `sum` over the claims is not zero.
    fn locate(
        &self,
        claims: &[Claim],
        sum: EdwardsPoint,
        slots: &mut [usize],
        bad: &mut impl FnMut(usize),
    ) {
        if let [claim] = claims {
            bad(claim.place);
            return;
        }
        let (left, right) = claims.split_at(claims.len() / 2);
        let left_sum = self.sum(left, slots);
        let right_sum = sum - left_sum;
        if !is_zero(&left_sum) {
            self.locate(left, left_sum, slots, bad);
        }
        if !is_zero(&right_sum) {
            self.locate(right, right_sum, slots, bad);
        }
    }
}

/// Zero but for a part of small order, which ZIP-215 ignores.
fn is_zero(sum: &EdwardsPoint) -> bool {
    sum.mul_by_cofactor().is_identity()
}

/// The y-coordinates of the points of small order, sign bit clear, as libsodium lists them: the last
/// two are encodings of 0 and 1 beyond the field prime, which decoders take. Whatever the sign bit,
/// a signature with one of them is refused.
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

fn is_small_order(point: &[u8; 32]) -> bool {
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
