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
                            let coefficient = coefficient(random);
                            let message = &input.message;
                            self.claim(&mut batch, place, key, signature, message, coefficient)
                                .is_some()
                        })
                    });
                if !promising {
                    batch.claims.truncate(start);
                }
                promising
            })
            .collect();
        batch.judge(&mut sound);
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

    /// Checks signatures over messages of any length: for each whether it is the key's over the message,
    /// by the same rule as [`SignatureChecker::verify`].
    pub(crate) fn verify_messages(
        &mut self,
        signed: &[(PublicKey, [u8; 64], &[u8])],
        random: &mut impl CryptoRng,
    ) -> Vec<bool> {
        self.batch += 1;
        let mut batch = Batch {
            keys: Vec::new(),
            claims: Vec::with_capacity(signed.len()),
        };
        let mut sound: Vec<bool> = (0..)
            .zip(signed)
            .map(|(place, (key, signature, message))| {
                let coefficient = coefficient(random);
                self.claim(&mut batch, place, key, signature, message, coefficient)
                    .is_some()
            })
            .collect();
        batch.judge(&mut sound);
        sound
    }

    /// Adds a signature to the batch; `None` when it is bad by itself.
    fn claim(
        &mut self,
        batch: &mut Batch,
        place: usize,
        key: &PublicKey,
        signature: &[u8; 64],
        message: &[u8],
        coefficient: Scalar,
    ) -> Option<()> {
        let (commitment, scalar) = take_apart(signature)?;
        let key_index = self.key(batch, key)?;
        let challenge = challenge(&commitment, key, message);
        let commitment = CompressedEdwardsY(commitment).decompress()?;
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
    /// Marks the places of bad claims as not sound.
    fn judge(&self, sound: &mut [bool]) {
        let mut slots = vec![usize::MAX; self.keys.len()];
        let total = self.sum(&self.claims, &mut slots);
        if !is_zero(&total) {
            self.locate(&self.claims, total, &mut slots, &mut |place| {
                sound[place] = false
            });
        }
    }

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

/// Checks one signature by the rule of [`SignatureChecker`], with nothing random about it: there is
/// nothing else it could be weighed against.
pub(crate) fn verify_one(key: &PublicKey, signature: &[u8; 64], message: &[u8]) -> bool {
    let holds = || {
        let (commitment, scalar) = take_apart(signature)?;
        if !can_sign(key) {
            return None;
        }
        let point = CompressedEdwardsY(key.0).decompress()?;
        let challenge = challenge(&commitment, key, message);
        let commitment = CompressedEdwardsY(commitment).decompress()?;
        let found = EdwardsPoint::vartime_double_scalar_mul_basepoint(&challenge, &-point, &scalar);
        Some(is_zero(&(found - commitment)))
    };
    holds().unwrap_or(false)
}

/// Commitment and scalar of a signature, unless libsodium would refuse them.
fn take_apart(signature: &[u8; 64]) -> Option<([u8; 32], Scalar)> {
    let (commitment, scalar) = signature.split_at(32);
    let commitment: [u8; 32] = commitment.try_into().expect("half of 64 bytes");
    let scalar: [u8; 32] = scalar.try_into().expect("half of 64 bytes");
    if is_small_order(&commitment) {
        return None;
    }
    let scalar: Scalar = Option::from(Scalar::from_canonical_bytes(scalar))?;
    Some((commitment, scalar))
}

fn challenge(commitment: &[u8; 32], key: &PublicKey, message: &[u8]) -> Scalar {
    let mut start = [0; 96];
    start[..32].copy_from_slice(commitment);
    start[32..64].copy_from_slice(&key.0);
    // Transactions are signed as hashes of 32 bytes: one call, without a context, for most of all.
    let challenge = match <&[u8; 32]>::try_from(message) {
        Ok(message) => {
            start[64..].copy_from_slice(message);
            digest::digest(&digest::SHA512, &start)
        }
        Err(_) => {
            let mut hashed = digest::Context::new(&digest::SHA512);
            hashed.update(&start[..64]);
            hashed.update(message);
            hashed.finish()
        }
    };
    let challenge = challenge.as_ref().try_into().expect("SHA-512 has 64 bytes");
    Scalar::from_bytes_mod_order_wide(challenge)
}

/// A factor that nobody who makes signatures can foretell.
fn coefficient(random: &mut impl CryptoRng) -> Scalar {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    Scalar::from(u128::from_le_bytes(bytes))
}

/// Whether the key is one that signatures can verify with.
pub(crate) fn can_sign(key: &PublicKey) -> bool {
    !is_small_order(&key.0)
        && is_canonical(&key.0)
        && CompressedEdwardsY(key.0).decompress().is_some()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use curve25519_dalek::constants::EIGHT_TORSION;
    use ed25519_zebra::{Signature, VerificationKey};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{Draft, SigningKey, json::Value};

    /// A CREATE whose only signature is replaced.
    fn signed_as(
        template: &Transaction,
        key: [u8; 32],
        signature: [u8; 64],
        message: [u8; 32],
    ) -> Transaction {
        let mut transaction = template.clone();
        transaction.inputs[0].fulfillment.signatures = [(PublicKey(key), signature)].into();
        transaction.inputs[0].message = message;
        transaction
    }

    fn template() -> Transaction {
        let key = SigningKey::from_seed([1; 32]);
        Draft::create(Value::Null)
            .output(1, &key)
            .sign(&[&key])
            .unwrap()
    }

    /// What each signature is by itself: ZIP-215 as ed25519-zebra implements it, minus what
    /// libsodium refuses.
    fn alone(key: &[u8; 32], signature: &[u8; 64], message: &[u8]) -> bool {
        let commitment: [u8; 32] = signature[..32].try_into().unwrap();
        let point = |bytes: &[u8; 32]| CompressedEdwardsY(*bytes).decompress();
        let (Some(key_point), Some(commitment)) = (point(key), point(&commitment)) else {
            return false;
        };
        let canonical = key_point.compress().to_bytes() == *key;
        !key_point.is_small_order()
            && !commitment.is_small_order()
            && canonical
            && VerificationKey::try_from(*key).is_ok_and(|key| {
                key.verify(&Signature::from_bytes(signature), message)
                    .is_ok()
            })
    }

    #[test]
    fn the_table_of_small_order_points_is_complete() {
        for point in EIGHT_TORSION {
            for sign in [0, 0x80] {
                let mut bytes = point.compress().to_bytes();
                bytes[31] ^= sign;
                assert!(is_small_order(&bytes), "{}", hex::encode(bytes));
            }
        }
        for small in SMALL_ORDER {
            let point = CompressedEdwardsY(small).decompress().unwrap();
            assert!(point.is_small_order(), "{}", hex::encode(small));
        }
        // Every encoding of a coordinate beyond the prime.
        for first in 0xed..=0xff {
            assert!(!is_canonical(&near_prime(first)));
        }
        assert!(is_canonical(&near_prime(0xec)));
    }

    #[test]
    fn a_batch_and_single_checks_agree_on_honest_crafted_and_spoilt_signatures() {
        let seed = 0x5EED_0001;
        println!("seed {seed:#x}");
        let mut random = StdRng::seed_from_u64(seed);
        let template = template();
        let mut cases = Vec::new();
        for round in 0..1_500u32 {
            let secret = Scalar::from_bytes_mod_order_wide(&random.random());
            let nonce = Scalar::from_bytes_mod_order_wide(&random.random());
            let message: [u8; 32] = random.random();
            let torsion = |random: &mut StdRng| EIGHT_TORSION[random.random_range(0..8)];
            let mut point = ED25519_BASEPOINT_POINT * secret;
            let mut commitment = ED25519_BASEPOINT_POINT * nonce;
            // A part of small order in the key or the commitment: checks with and without the
            // cofactor would differ here.
            if round % 3 == 1 {
                commitment += torsion(&mut random);
            }
            if round % 3 == 2 {
                point += torsion(&mut random);
            }
            let mut key = point.compress().to_bytes();
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&commitment.compress().to_bytes());
            match round % 50 {
                10 => signature[..32].copy_from_slice(&SMALL_ORDER[round as usize % 7]),
                11 => key = SMALL_ORDER[round as usize % 7],
                12 => key = near_prime(random.random_range(0xed..=0xff)),
                13 => {
                    signature[..32].copy_from_slice(&near_prime(random.random_range(0xed..=0xff)))
                }
                14 => signature[..32].copy_from_slice(&random.random::<[u8; 32]>()),
                _ => {}
            }
            let mut hashed = signature[..32].to_vec();
            hashed.extend_from_slice(&key);
            hashed.extend_from_slice(&message);
            let challenge = digest::digest(&digest::SHA512, &hashed);
            let challenge = challenge.as_ref().try_into().unwrap();
            let challenge = Scalar::from_bytes_mod_order_wide(challenge);
            let scalar = nonce + challenge * secret;
            signature[32..].copy_from_slice(scalar.as_bytes());
            match round % 50 {
                20 => signature[random.random_range(0..64)] ^= 1 << random.random_range(0..8),
                21 => key[random.random_range(0..32)] ^= 1 << random.random_range(0..8),
                22 => signature[63] |= 0x10,
                _ => {}
            }
            cases.push((key, signature, message));
        }
        for size in [1, 2, 3, 64, 500, 1_500] {
            let mut checker = SignatureChecker::new();
            for chunk in cases.chunks(size) {
                let batch = chunk
                    .iter()
                    .map(|(key, signature, message)| {
                        signed_as(&template, *key, *signature, *message)
                    })
                    .collect();
                let results = checker.verify(batch, &mut random);
                for ((key, signature, message), result) in chunk.iter().zip(results) {
                    let expected = alone(key, signature, message);
                    assert_eq!(verify_one(&PublicKey(*key), signature, message), expected);
                    assert_eq!(
                        result.is_ok(),
                        expected,
                        "{} {}",
                        hex::encode(key),
                        hex::encode(signature)
                    );
                }
            }
        }
        let signed: Vec<_> = cases
            .iter()
            .map(|(key, signature, message)| (PublicKey(*key), *signature, &message[..]))
            .collect();
        let sound = SignatureChecker::new().verify_messages(&signed, &mut random);
        for ((key, signature, message), sound) in cases.iter().zip(sound) {
            assert_eq!(sound, alone(key, signature, message));
        }
        let good = cases.iter().filter(|(k, s, m)| alone(k, s, m)).count();
        assert!(good > 1_200 && good < 1_400, "{good}");
    }

    #[test]
    fn every_bad_signature_of_a_batch_is_found_wherever_it_stands() {
        let template = template();
        let mut random = StdRng::seed_from_u64(3);
        let (key, signature) = template.inputs[0].fulfillment.signatures[0];
        let message = template.inputs[0].message;
        for bad_one in 0..33 {
            let batch: Vec<Transaction> = (0..33)
                .map(|place| {
                    let mut signature = signature;
                    signature[40] ^= u8::from(place == bad_one);
                    signed_as(&template, key.0, signature, message)
                })
                .collect();
            let results = verify_signatures(batch, &mut random);
            for (place, result) in results.iter().enumerate() {
                assert_eq!(result.is_ok(), place != bad_one);
            }
        }
        assert!(verify_signatures(Vec::new(), &mut random).is_empty());
    }

    #[test]
    fn a_scalar_with_the_group_order_added_is_refused() {
        let mut transaction = template();
        let mut carry = 0u16;
        let order: [u8; 32] = {
            let minus_one = (-Scalar::ONE).to_bytes();
            let mut order = minus_one;
            order[0] += 1;
            order
        };
        let signature = &mut transaction.inputs[0].fulfillment.signatures[0].1;
        for (digit, order) in signature[32..].iter_mut().zip(order) {
            carry += u16::from(*digit) + u16::from(order);
            *digit = carry as u8;
            carry >>= 8;
        }
        let mut random = StdRng::seed_from_u64(3);
        assert!(verify_signatures(vec![transaction], &mut random)[0].is_err());
    }
}
