//! Crypto-conditions: who may spend an output, and the proof that they did (asset ledger, section 5).

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use smallvec::SmallVec;

use crate::{
    PublicKey, Rejection, RejectionClass, SigningKey,
    json::{Object, Value},
};

/// The cost of one Ed25519 condition.
pub const ED25519_COST: u64 = 131_072;

/// What each sub-condition adds to the cost of a threshold.
const SUBCONDITION_COST: u64 = 1_024;

/// The largest threshold (section 6.7).
pub const THRESHOLD_MAX: u32 = 100;

/// The type name of a key's condition.
pub const ED25519_TYPE: &str = "ed25519-sha-256";

/// The type name of a threshold.
pub const THRESHOLD_TYPE: &str = "threshold-sha-256";

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

/// Signatures, each with the key it is of. One is the common case and needs no allocation.
pub type Signatures = SmallVec<[(PublicKey, [u8; 64]); 1]>;

/// A decoded fulfillment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fulfillment {
    /// The condition that it opens.
    pub condition: Condition,
    /// Every signature in it, in DER order: all of them must verify.
    pub signatures: Signatures,
}

/// A condition spelled out, as in `condition.details`: a key, or a number of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Details {
    /// Whoever has this key's private half.
    Key(PublicKey),
    /// Whoever can open so many of the parts.
    Threshold {
        /// How many, 1 to the number of parts and at most [`THRESHOLD_MAX`].
        threshold: u32,
        /// Of these.
        parts: Vec<Details>,
    },
}

impl Condition {
    /// The condition of one key (section 5.2).
    pub fn of_key(key: &PublicKey) -> Condition {
        let mut contents = [0; 36];
        contents[..4].copy_from_slice(&[0x30, 0x22, 0x80, 0x20]);
        contents[4..].copy_from_slice(&key.0);
        Condition {
            fingerprint: sha2(&contents),
            threshold: false,
            cost: ED25519_COST,
        }
    }

    /// The condition that `threshold` of `parts` open (section 5.3).
    pub fn of_threshold(threshold: u32, parts: &[Condition]) -> Condition {
        let parts = parts.iter().map(|part| (part.der(), part.cost)).collect();
        // Costs are sums over parts that fit in memory, so only decoded ones could overflow.
        threshold_of(threshold, parts).unwrap_or(Condition {
            fingerprint: [0; 32],
            threshold: true,
            cost: u64::MAX,
        })
    }

    /// The URI of section 5.2 or 5.3.
    pub fn uri(&self) -> String {
        let mut uri = String::with_capacity(128);
        uri.push_str("ni:///sha-256;");
        URL_SAFE_NO_PAD.encode_string(self.fingerprint, &mut uri);
        if self.threshold {
            uri.push_str("?fpt=threshold-sha-256&cost=");
            uri.push_str(&self.cost.to_string());
            uri.push_str("&subtypes=ed25519-sha-256");
        } else {
            uri.push_str("?fpt=ed25519-sha-256&cost=131072");
        }
        uri
    }

    /// The condition in DER, as thresholds hold and fulfillments carry it.
    pub fn to_der(&self) -> Vec<u8> {
        self.der().as_slice().to_vec()
    }

    fn der(&self) -> ConditionDer {
        let mut der = ConditionDer {
            bytes: [0; CONDITION_DER_MAX],
            length: 0,
        };
        let (digits, count) = integer(self.cost);
        let cost = &digits[9 - count..];
        let subtypes: &[u8] = if self.threshold {
            &[0x82, 0x02, 0x03, 0x08]
        } else {
            &[]
        };
        let length = 34 + 2 + count + subtypes.len();
        der.push(&[
            if self.threshold { 0xA2 } else { 0xA4 },
            length as u8,
            0x80,
            0x20,
        ]);
        der.push(&self.fingerprint);
        der.push(&[0x81, count as u8]);
        der.push(cost);
        der.push(subtypes);
        der
    }
}

impl Fulfillment {
    /// Decodes strict DER (section 5.5, steps 2 and 3). Cost is linear in the input.
    ///
    /// # Errors
    /// `InvalidSignature` for anything that is not exactly one fulfillment.
    pub fn from_der(bytes: &[u8], depth_max: usize) -> Result<Fulfillment, Rejection> {
        decode(bytes, depth_max).ok_or_else(undecodable)
    }

    /// Decodes the base64url text of strict DER: no padding, no spare bits.
    ///
    /// # Errors
    /// `InvalidSignature` for anything that is not exactly one fulfillment.
    pub fn from_text(text: &[u8], depth_max: usize) -> Result<Fulfillment, Rejection> {
        decode_text(text, depth_max).ok_or_else(undecodable)
    }
}

impl Details {
    /// All of `keys`, each once for every time it is named; a single key stands for itself, as in
    /// the client libraries.
    pub fn all_of(keys: &[PublicKey]) -> Details {
        match keys {
            [key] => Details::Key(*key),
            keys => Details::threshold_of_keys(keys.len() as u32, keys),
        }
    }

    /// Any `threshold` of `keys`.
    pub fn threshold_of_keys(threshold: u32, keys: &[PublicKey]) -> Details {
        Details::Threshold {
            threshold,
            parts: keys.iter().copied().map(Details::Key).collect(),
        }
    }

    /// Any `threshold` of `parts`.
    pub fn threshold_of(threshold: u32, parts: impl IntoIterator<Item = Details>) -> Details {
        Details::Threshold {
            threshold,
            parts: parts.into_iter().collect(),
        }
    }

    /// Reads `condition.details`.
    ///
    /// # Errors
    /// `SchemaValidationError` in the words of section 6.2.
    pub fn from_value(value: &Value) -> Result<Details, Rejection> {
        crate::transaction::details_from_value(value)
    }

    /// The value of `condition.details`.
    pub fn to_value(&self) -> Value {
        Value::Object(match self {
            Details::Key(key) => Object::from_iter([
                ("type", Value::from(ED25519_TYPE)),
                ("public_key", Value::from(key.to_string())),
            ]),
            Details::Threshold { threshold, parts } => Object::from_iter([
                ("type", Value::from(THRESHOLD_TYPE)),
                ("threshold", Value::from(u64::from(*threshold))),
                (
                    "subconditions",
                    parts
                        .iter()
                        .map(Details::to_value)
                        .collect::<Vec<_>>()
                        .into(),
                ),
            ]),
        })
    }

    /// The condition. Every node of the tree is visited once.
    pub fn condition(&self) -> Condition {
        match self {
            Details::Key(key) => Condition::of_key(key),
            Details::Threshold { threshold, parts } => {
                let parts: Vec<Condition> = parts.iter().map(Details::condition).collect();
                Condition::of_threshold(*threshold, &parts)
            }
        }
    }

    /// The keys in the order of the text; a key that occurs twice is listed twice.
    pub fn keys(&self) -> Vec<PublicKey> {
        let mut keys = Vec::new();
        self.collect_keys(&mut keys);
        keys
    }

    fn collect_keys(&self, keys: &mut Vec<PublicKey>) {
        match self {
            Details::Key(key) => keys.push(*key),
            Details::Threshold { parts, .. } => {
                parts.iter().for_each(|part| part.collect_keys(keys));
            }
        }
    }

    /// Levels of the tree; 1 for a key.
    pub fn depth(&self) -> usize {
        match self {
            Details::Key(_) => 1,
            Details::Threshold { parts, .. } => {
                1 + parts.iter().map(Details::depth).max().unwrap_or(0)
            }
        }
    }

    /// Whether every threshold in it can be met: it is at least one and no larger than the number
    /// of parts.
    pub fn is_possible(&self) -> bool {
        match self {
            Details::Key(_) => true,
            Details::Threshold { threshold, parts } => {
                (1..=THRESHOLD_MAX).contains(threshold)
                    && *threshold as usize <= parts.len()
                    && parts.iter().all(Details::is_possible)
            }
        }
    }

    /// The base64url text of a minimal fulfillment over `message`, made with those of `keys` that
    /// the condition names (section 5.4). `None` when they do not suffice.
    pub fn fulfill(&self, keys: &[&SigningKey], message: &[u8; 32]) -> Option<String> {
        let public: Vec<PublicKey> = keys.iter().map(|key| key.public_key()).collect();
        self.fulfill_with(&mut |key| {
            let place = public.iter().position(|one| one == key)?;
            Some(keys[place].sign(message))
        })
    }

    /// Like [`Details::fulfill`], with signatures made elsewhere: `signature` gives the one of a key.
    pub fn fulfill_with(
        &self,
        signature: &mut impl FnMut(&PublicKey) -> Option<[u8; 64]>,
    ) -> Option<String> {
        let (_, der) = self.prove(signature);
        der.map(|der| URL_SAFE_NO_PAD.encode(der))
    }

    /// The condition, and the DER of a fulfillment if there can be one.
    fn prove(
        &self,
        signature: &mut impl FnMut(&PublicKey) -> Option<[u8; 64]>,
    ) -> (Condition, Option<Vec<u8>>) {
        match self {
            Details::Key(key) => {
                let der = signature(key).map(|signature| {
                    let mut der = Vec::with_capacity(ED25519_FULFILLMENT_BYTES);
                    der.extend([0xA4, 0x64, 0x80, 0x20]);
                    der.extend(key.0);
                    der.extend([0x81, 0x40]);
                    der.extend(signature);
                    der
                });
                (Condition::of_key(key), der)
            }
            Details::Threshold { threshold, parts } => {
                let parts: Vec<_> = parts.iter().map(|part| part.prove(signature)).collect();
                let conditions: Vec<Condition> = parts.iter().map(|part| part.0.clone()).collect();
                let condition = Condition::of_threshold(*threshold, &conditions);
                // The cheapest proofs are used, the other parts stay conditions (section 5.4).
                let mut proven: Vec<usize> =
                    (0..parts.len()).filter(|&i| parts[i].1.is_some()).collect();
                if proven.len() < *threshold as usize || *threshold == 0 {
                    return (condition, None);
                }
                let bytes = |i: &usize| parts[*i].1.as_ref().map_or(0, Vec::len);
                proven.sort_by_key(bytes);
                proven.truncate(*threshold as usize);
                let (mut fulfilled, mut unfulfilled) = (Vec::new(), Vec::new());
                for (i, (part, der)) in parts.into_iter().enumerate() {
                    match der {
                        Some(der) if proven.contains(&i) => fulfilled.push(der),
                        _ => unfulfilled.push(part.to_der()),
                    }
                }
                fulfilled.sort();
                unfulfilled.sort();
                let mut contents = Vec::new();
                push_value(&mut contents, 0xA0, &fulfilled.concat());
                push_value(&mut contents, 0xA1, &unfulfilled.concat());
                let mut der = Vec::new();
                push_value(&mut der, 0xA2, &contents);
                (condition, Some(der))
            }
        }
    }
}

impl From<PublicKey> for Details {
    fn from(key: PublicKey) -> Details {
        Details::Key(key)
    }
}

impl From<&PublicKey> for Details {
    fn from(key: &PublicKey) -> Details {
        Details::Key(*key)
    }
}

impl From<&SigningKey> for Details {
    fn from(key: &SigningKey) -> Details {
        Details::Key(key.public_key())
    }
}

/// The condition of `threshold` of parts, each given as DER and cost. `None` when the cost exceeds
/// 64 bits, which no condition of this ledger does.
pub(crate) fn threshold_of(
    threshold: u32,
    mut parts: Vec<(ConditionDer, u64)>,
) -> Option<Condition> {
    parts.sort_unstable_by(|a, b| a.0.as_slice().cmp(b.0.as_slice()));
    let mut inner = Vec::with_capacity(parts.len() * CONDITION_DER_MAX + 16);
    let (digits, count) = integer(u64::from(threshold));
    push_value(&mut inner, 0x80, &digits[9 - count..]);
    let subconditions: usize = parts.iter().map(|part| part.0.as_slice().len()).sum();
    push_header(&mut inner, 0xA1, subconditions);
    for part in &parts {
        inner.extend_from_slice(part.0.as_slice());
    }
    let mut contents = Vec::with_capacity(inner.len() + 6);
    push_value(&mut contents, 0x30, &inner);

    parts.sort_unstable_by_key(|part| std::cmp::Reverse(part.1));
    let cost = parts.iter().take(threshold as usize).try_fold(
        SUBCONDITION_COST.checked_mul(parts.len() as u64)?,
        |sum, part| sum.checked_add(part.1),
    )?;
    Some(Condition {
        fingerprint: sha2(&contents),
        threshold: true,
        cost,
    })
}

/// A condition's DER never exceeds 51 bytes: header 2, fingerprint 34, cost 11, sub-types 4.
const CONDITION_DER_MAX: usize = 51;

/// Bytes of an Ed25519 fulfillment.
const ED25519_FULFILLMENT_BYTES: usize = 102;

/// A condition in DER, without an allocation of its own.
#[derive(Clone, Copy)]
pub(crate) struct ConditionDer {
    bytes: [u8; CONDITION_DER_MAX],
    length: u8,
}

impl ConditionDer {
    pub(crate) fn of(condition: &Condition) -> ConditionDer {
        condition.der()
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len() as u8;
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

pub(crate) fn undecodable() -> Rejection {
    Rejection::new(
        RejectionClass::InvalidSignature,
        "Fulfillment URI couldn't been parsed",
    )
}

pub(crate) fn decode_text(text: &[u8], depth_max: usize) -> Option<Fulfillment> {
    // A single signature, the common case, needs no allocation for its bytes.
    let mut single = [0; 105];
    if text.len() == 136 {
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut single).ok()?;
        return decode(&single[..length], depth_max);
    }
    decode(&URL_SAFE_NO_PAD.decode(text).ok()?, depth_max)
}

/// The key and the signature of a fulfillment that is a single signature.
pub(crate) fn decode_single(text: &[u8]) -> Option<(PublicKey, [u8; 64])> {
    let mut der = [0; 105];
    if text.len() != 136 || URL_SAFE_NO_PAD.decode_slice(text, &mut der).ok()? != 102 {
        return None;
    }
    if der[..4] != [0xA4, 0x64, 0x80, 0x20] || der[36..38] != [0x81, 0x40] {
        return None;
    }
    let key = der[4..36].try_into().expect("32 bytes");
    let signature = der[38..102].try_into().expect("64 bytes");
    Some((PublicKey(key), signature))
}

fn decode(bytes: &[u8], depth_max: usize) -> Option<Fulfillment> {
    let mut signatures = Signatures::new();
    let mut der = Der { rest: bytes };
    let condition = fulfillment(&mut der, depth_max, &mut signatures)?;
    der.rest.is_empty().then_some(Fulfillment {
        condition,
        signatures,
    })
}

fn fulfillment(
    der: &mut Der<'_>,
    levels_left: usize,
    signatures: &mut Signatures,
) -> Option<Condition> {
    let levels_left = levels_left.checked_sub(1)?;
    let (tag, contents) = der.any()?;
    let mut inside = Der { rest: contents };
    match tag {
        0xA4 => {
            let key = PublicKey(inside.value(0x80)?.try_into().ok()?);
            let signature = inside.value(0x81)?.try_into().ok()?;
            signatures.push((key, signature));
            inside.rest.is_empty().then(|| Condition::of_key(&key))
        }
        0xA2 => {
            let mut fulfilled = Der {
                rest: inside.value(0xA0)?,
            };
            let mut unfulfilled = Der {
                rest: inside.value(0xA1)?,
            };
            if !inside.rest.is_empty() {
                return None;
            }
            let mut parts = Vec::new();
            // Both lists are sets: DER sorts them, and another order would be a second text, with
            // another id, for the same fulfillment.
            let mut before: &[u8] = &[];
            while !fulfilled.rest.is_empty() {
                let start = fulfilled.rest;
                let part = fulfillment(&mut fulfilled, levels_left, signatures)?;
                let whole = &start[..start.len() - fulfilled.rest.len()];
                if whole < before {
                    return None;
                }
                before = whole;
                parts.push((part.der(), part.cost));
            }
            let threshold = u32::try_from(parts.len()).ok().filter(|count| *count > 0)?;
            before = &[];
            while !unfulfilled.rest.is_empty() {
                let start = unfulfilled.rest;
                let part = condition(&mut unfulfilled)?;
                let whole = &start[..start.len() - unfulfilled.rest.len()];
                if whole < before {
                    return None;
                }
                before = whole;
                parts.push((part.der(), part.cost));
            }
            threshold_of(threshold, parts)
        }
        _ => None,
    }
}

/// One condition in DER, of a type that an output can have.
fn condition(der: &mut Der<'_>) -> Option<Condition> {
    let (tag, contents) = der.any()?;
    let mut inside = Der { rest: contents };
    let fingerprint = inside.value(0x80)?.try_into().ok()?;
    let cost = inside.integer(0x81)?;
    let threshold = match tag {
        0xA4 if cost == ED25519_COST => false,
        0xA2 if inside.value(0x82)? == [0x03, 0x08] => true,
        _ => return None,
    };
    inside.rest.is_empty().then_some(Condition {
        fingerprint,
        threshold,
        cost,
    })
}

/// Strict DER: minimal lengths, known tags.
struct Der<'b> {
    rest: &'b [u8],
}

impl<'b> Der<'b> {
    fn any(&mut self) -> Option<(u8, &'b [u8])> {
        let (&tag, rest) = self.rest.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            // More than four bytes of length exceed any text that is accepted.
            let count = usize::from(first & 0x7F);
            if count == 0 || count > 4 {
                return None;
            }
            let (bytes, after) = rest.split_at_checked(count)?;
            length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            let minimal = if count == 1 {
                length >= 0x80
            } else {
                bytes[0] != 0
            };
            if !minimal {
                return None;
            }
            rest = after;
        }
        let (contents, after) = rest.split_at_checked(length)?;
        self.rest = after;
        Some((tag, contents))
    }

    fn value(&mut self, tag: u8) -> Option<&'b [u8]> {
        let (found, contents) = self.any()?;
        (found == tag).then_some(contents)
    }

    /// A minimal integer that is not negative.
    fn integer(&mut self, tag: u8) -> Option<u64> {
        let contents = self.value(tag)?;
        let digits = match contents {
            [first, ..] if *first >= 0x80 => return None,
            [0, second, ..] if *second < 0x80 => return None,
            [0, digits @ ..] => digits,
            [] => return None,
            digits => digits,
        };
        if digits.len() > 8 {
            return None;
        }
        Some(
            digits
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    }
}

/// The DER digits of an integer at the end of nine bytes, and how many they are.
fn integer(value: u64) -> ([u8; 9], usize) {
    let mut digits = [0; 9];
    digits[1..].copy_from_slice(&value.to_be_bytes());
    let mut start = 8 - (63 - (value | 1).leading_zeros() as usize) / 8;
    if digits[start] >= 0x80 {
        start -= 1;
    }
    (digits, 9 - start)
}

fn push_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let start = bytes
            .iter()
            .position(|byte| *byte != 0)
            .expect("the length is not zero");
        out.push(0x80 | (bytes.len() - start) as u8);
        out.extend_from_slice(&bytes[start..]);
    }
}

fn push_value(out: &mut Vec<u8>, tag: u8, contents: &[u8]) {
    push_header(out, tag, contents.len());
    out.extend_from_slice(contents);
}

fn sha2(bytes: &[u8]) -> [u8; 32] {
    #[cfg(test)]
    tests::HASHES.with(|count| count.set(count.get() + 1));
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Fingerprints computed by this thread.
        pub(super) static HASHES: Cell<usize> = const { Cell::new(0) };
    }

    fn counted<T>(work: impl FnOnce() -> T) -> (usize, T) {
        let before = HASHES.get();
        let result = work();
        (HASHES.get() - before, result)
    }

    #[test]
    fn every_node_of_a_tree_is_fingerprinted_once_however_deep() {
        let key = SigningKey::from_seed([1; 32]);
        for levels in [2, 10, 50, 100] {
            let details = (1..levels).fold(Details::from(&key), |inside, _| {
                Details::threshold_of(2, [inside, Details::from(&key)])
            });
            let nodes = 2 * levels - 1;
            let (hashes, condition) = counted(|| details.condition());
            assert_eq!(hashes, nodes);
            let text = details.fulfill(&[&key], &[0; 32]).unwrap();
            let (hashes, fulfillment) = counted(|| Fulfillment::from_text(text.as_bytes(), 100));
            assert_eq!(hashes, nodes);
            assert_eq!(fulfillment.unwrap().condition, condition);
        }
    }

    #[test]
    fn integers_are_written_in_as_few_bytes_as_der_allows() {
        for (value, expected) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0, 128]),
            (255, vec![0, 255]),
            (256, vec![1, 0]),
            (131_072, vec![2, 0, 0]),
            (u64::MAX, [vec![0], vec![255; 8]].concat()),
        ] {
            let (digits, count) = integer(value);
            assert_eq!(digits[9 - count..], expected);
            let mut der = vec![0x81, count as u8];
            der.extend_from_slice(&expected);
            assert_eq!(Der { rest: &der }.integer(0x81), Some(value));
        }
        for wrong in [
            &[0x81, 0][..],
            &[0x81, 2, 0, 1],
            &[0x81, 1, 0x80],
            &[0x81, 1],
        ] {
            assert_eq!(Der { rest: wrong }.integer(0x81), None);
        }
    }
}
