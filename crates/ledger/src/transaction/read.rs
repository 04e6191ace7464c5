//! The fast lane: one pass over text that is canonical already.
//!
//! The members of a canonical transaction stand in a fixed order without white space, so they are
//! read like a fixed form. Only asset data and metadata can be anything; they are skipped by a
//! scanner that checks that they are canonical too and obeys the rules about key names. No value is
//! built, no error worded: whatever is not as expected gives `None`.

use std::collections::BTreeSet;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::{
    Input, Keys, Operation, Output, Rules, Span, Transaction, Version, known_keys::KnownKeys,
};
use crate::{
    Amount, AssetId, Lock, OutputRef, PublicKey, TransactionId, canonical,
    condition::{self, Condition, ConditionDer, ED25519_COST, Fulfillment, THRESHOLD_MAX},
    json::{Finite, Value},
};

/// Where a text comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// From a client: everything is checked but the id, which takes hashing.
    Posted,
    /// From a durable block: id, messages and who signed were checked before, by the rules of then.
    Stored,
}

/// Space that is used again for every transaction.
#[derive(Default)]
pub(super) struct Scratch {
    /// Where the fulfillments of the text read last stand.
    pub(super) fulfillments: Vec<Span>,
    owners: Vec<PublicKey>,
    keys: Vec<PublicKey>,
}

/// Nesting of the deepest array or object that every transaction has: `outputs`, one output, its
/// condition, its details.
const FORM_DEPTH: usize = 5;

/// What the `asset` or `assets` member holds.
#[derive(Default)]
struct Assets {
    ids: SmallVec<[AssetId; 1]>,
    data: Vec<Span>,
    /// Entries with data, JSON null counted too.
    entries: usize,
    nulls: usize,
    /// `assets` itself is null.
    absent: bool,
}

/// A transaction whose id and messages are still to be computed.
pub(super) struct Read {
    /// Its messages are zero.
    pub(super) transaction: Transaction,
    /// Where the id stands in the text, quotes included.
    pub(super) id: Span,
}

pub(super) fn read(
    text: &Bytes,
    mode: Mode,
    rules: &Rules,
    keys: &mut KnownKeys,
    scratch: &mut Scratch,
) -> Option<Read> {
    if rules.limits.json_depth_max < FORM_DEPTH || text.len() > u32::MAX as usize {
        return None;
    }
    std::str::from_utf8(text).ok()?;
    let mut at = Cursor { bytes: text, at: 0 };
    let names = Names {
        key_names: rules.key_names,
        language: rules.language,
        depth_max: rules.limits.json_depth_max,
    };

    at.literal(b"{\"asset")?;
    let mut assets = Assets::default();
    let version = if at.skip(b"s\":") {
        read_assets(&mut at, &names, &mut assets)?;
        Version::V3
    } else {
        at.literal(b"\":{\"")?;
        read_asset(&mut at, &names, &mut assets)?;
        Version::V2
    };

    at.literal(b",\"id\":")?;
    let id_start = at.at;
    let id = TransactionId::from_hex(at.plain()?).ok()?;
    let id_span = at.span_from(id_start);

    at.literal(b",\"inputs\":[")?;
    scratch.fulfillments.clear();
    let mut inputs = Vec::with_capacity(1);
    loop {
        inputs.push(read_input(&mut at, rules, keys, &mut scratch.fulfillments)?);
        if !at.skip(b",") {
            break;
        }
    }

    at.literal(b"],\"metadata\":")?;
    let metadata = read_metadata(&mut at, &names, version)?;

    at.literal(b",\"operation\":")?;
    let operation = match (at.plain()?, version) {
        (b"CREATE", _) => Operation::Create,
        (b"TRANSFER", _) => Operation::Transfer,
        (b"COMPOSE", Version::V3) => Operation::Compose,
        (b"DECOMPOSE", Version::V3) => Operation::Decompose,
        _ => return None,
    };
    let asset = match operation {
        Operation::Create | Operation::Compose | Operation::Decompose => id.as_asset(),
        Operation::Transfer => *assets.ids.first()?,
    };

    at.literal(b",\"outputs\":[")?;
    let mut outputs = Vec::with_capacity(1);
    loop {
        outputs.push(read_output(&mut at, rules, keys, scratch, &asset)?);
        if !at.skip(b",") {
            break;
        }
    }
    at.literal(match version {
        Version::V2 => b"],\"version\":\"2.0\"}",
        Version::V3 => b"],\"version\":\"3.0\"}",
    })?;
    if at.at != text.len() || outputs.len() > rules.limits.outputs_max {
        return None;
    }

    if operation == Operation::Decompose {
        for output in &mut outputs {
            output.lock = Lock::of_part(&id, &output.condition.fingerprint);
        }
    }

    check_operation(version, operation, &assets, &inputs, &outputs)?;
    let signers_named = mode == Mode::Stored
        || match operation {
            Operation::Create | Operation::Decompose => {
                signers_named(&inputs[0], &outputs, rules.all_owners_sign)
            }
            // What these spend says who must sign.
            Operation::Transfer | Operation::Compose => true,
        };
    let consumed = match operation {
        Operation::Create | Operation::Transfer => Vec::new(),
        Operation::Compose | Operation::Decompose => assets.ids.into_vec(),
    };
    Some(Read {
        transaction: Transaction {
            canonical: text.clone(),
            id,
            version,
            operation,
            asset,
            inputs,
            outputs,
            consumed,
            data: assets.data,
            metadata,
            signers_named,
        },
        id: id_span,
    })
}

/// The rules of sections 6.2 and 8 that bind members to the operation.
fn check_operation(
    version: Version,
    operation: Operation,
    assets: &Assets,
    inputs: &[Input],
    outputs: &[Output],
) -> Option<()> {
    let strings = assets.entries - assets.nulls;
    let all_spend = inputs.iter().all(|input| input.spends.is_some());
    let holds = match operation {
        Operation::Create => {
            inputs.len() == 1
                && inputs[0].spends.is_none()
                && assets.ids.is_empty()
                && (assets.entries == 1 || assets.absent)
        }
        Operation::Transfer => {
            all_spend
                && assets.entries == 0
                && !assets.ids.is_empty()
                && (version == Version::V3 || assets.ids.len() == 1)
        }
        Operation::Compose => {
            all_spend
                && strings == 1
                && assets.nulls == 0
                && !assets.ids.is_empty()
                && outputs.len() == 1
        }
        Operation::Decompose => {
            let [owner] = inputs[0].owners_before[..] else {
                return None;
            };
            all_spend
                && inputs.len() == 1
                && strings >= 1
                && assets.nulls == 0
                && assets.ids.len() == 1
                && outputs.len() == strings
                && outputs
                    .iter()
                    .all(|output| output.public_keys[..] == [owner])
        }
    };
    holds.then_some(())
}

/// Whether the proof of a CREATE or DECOMPOSE is one that its owners stand for: a single owner's plain
/// signature; of several owners, so many of them as signed, or what opens an output that they share with
/// others. Nothing else binds the fulfillment of an input that spends nothing, so any other shape would let a
/// stranger wrap the same signatures anew and commit the asset again under another id. Every signer is an
/// owner. Where the rule is that all owners sign, there is one shape only.
fn signers_named(input: &Input, outputs: &[Output], all_owners_sign: bool) -> bool {
    let Fulfillment {
        condition,
        signatures,
    } = &input.fulfillment;
    let owners = &input.owners_before;
    if let ([owner], [(signer, _)]) = (&owners[..], &signatures[..]) {
        return owner == signer && !condition.threshold;
    }
    if owners.len() < 2 {
        return false;
    }
    let all = signatures.len() == owners.len();
    let some = signatures.len() < owners.len() && !all_owners_sign;
    let parts: Vec<Condition> = owners.iter().map(Condition::of_key).collect();
    let of_owners =
        |signed: u32| (all || some) && *condition == Condition::of_threshold(signed, &parts);
    let of_output = || {
        if all_owners_sign || !condition.threshold {
            return false;
        }
        let same = |output: &&Output| output.condition == *condition;
        let Some(output) = outputs.iter().find(same) else {
            return false;
        };
        let owners: BTreeSet<&PublicKey> = owners.iter().collect();
        // One that names owners only would be a second shape beside the usual one.
        output.public_keys.iter().any(|key| !owners.contains(key))
            && signatures.iter().all(|(signer, _)| owners.contains(signer))
    };
    u32::try_from(signatures.len()).is_ok_and(of_owners) || of_output()
}

fn sorted_set(set: &mut Vec<PublicKey>, keys: impl Iterator<Item = PublicKey>) {
    set.clear();
    set.extend(keys);
    set.sort_unstable();
    set.dedup();
}

/// `asset` of version 2.0, after its opening brace and quote.
fn read_asset(at: &mut Cursor<'_>, names: &Names, assets: &mut Assets) -> Option<()> {
    if at.skip(b"data\":") {
        let start = at.at;
        match at.peek()? {
            b'{' | b'"' => {
                names.value(at, 2)?;
                assets.data.push(at.span_from(start));
            }
            _ => {
                at.literal(b"null")?;
                assets.nulls += 1;
            }
        }
        assets.entries += 1;
    } else {
        at.literal(b"id\":")?;
        assets.ids.push(AssetId::from_hex(at.plain()?).ok()?);
    }
    at.literal(b"}")
}

/// `assets` of version 3.0.
fn read_assets(at: &mut Cursor<'_>, names: &Names, assets: &mut Assets) -> Option<()> {
    if at.skip(b"null") {
        assets.absent = true;
        return Some(());
    }
    at.literal(b"[")?;
    loop {
        at.literal(b"{\"")?;
        if at.skip(b"data\":") {
            let start = at.at;
            if at.peek()? == b'"' {
                names.value(at, 3)?;
                assets.data.push(at.span_from(start));
            } else {
                at.literal(b"null")?;
                assets.nulls += 1;
            }
            assets.entries += 1;
        } else {
            at.literal(b"id\":")?;
            assets.ids.push(AssetId::from_hex(at.plain()?).ok()?);
        }
        at.literal(b"}")?;
        if !at.skip(b",") {
            break;
        }
    }
    at.literal(b"]")
}

fn read_metadata(at: &mut Cursor<'_>, names: &Names, version: Version) -> Option<Option<Span>> {
    let start = at.at;
    match at.peek()? {
        b'"' => names.value(at, 1)?,
        b'{' if version == Version::V2 && at.bytes.get(start + 1) != Some(&b'}') => {
            names.value(at, 1)?;
        }
        _ => {
            at.literal(b"null")?;
            return Some(None);
        }
    }
    Some(Some(at.span_from(start)))
}

fn read_input(
    at: &mut Cursor<'_>,
    rules: &Rules,
    keys: &mut KnownKeys,
    fulfillments: &mut Vec<Span>,
) -> Option<Input> {
    at.literal(b"{\"fulfillment\":")?;
    let start = at.at;
    let proof = at.plain()?;
    fulfillments.push(at.span_from(start));

    at.literal(b",\"fulfills\":")?;
    let spends = if at.skip(b"null") {
        None
    } else {
        at.literal(b"{\"output_index\":")?;
        let index = at.integer()?;
        at.literal(b",\"transaction_id\":")?;
        let transaction = TransactionId::from_hex(at.plain()?).ok()?;
        at.literal(b"}")?;
        Some(OutputRef { transaction, index })
    };

    at.literal(b",\"owners_before\":[")?;
    let first = keys.get(at.plain()?)?;
    // One key signing for itself is the common case; its condition is known with the key.
    let single = condition::decode_single(proof)
        .filter(|(key, _)| *key == first.key)
        .map(|(key, signature)| Fulfillment {
            condition: Condition {
                fingerprint: first.fingerprint,
                threshold: false,
                cost: ED25519_COST,
            },
            signatures: smallvec![(key, signature)],
        });
    let mut owners_before = smallvec![first.key];
    while at.skip(b",") {
        owners_before.push(keys.get(at.plain()?)?.key);
    }
    at.literal(b"]}")?;
    let fulfillment = match single {
        Some(fulfillment) => fulfillment,
        None => condition::decode_text(proof, rules.limits.condition_depth_max)?,
    };
    Some(Input {
        spends,
        owners_before,
        fulfillment,
        message: [0; 32],
    })
}

fn read_output(
    at: &mut Cursor<'_>,
    rules: &Rules,
    keys: &mut KnownKeys,
    scratch: &mut Scratch,
    asset: &AssetId,
) -> Option<Output> {
    at.literal(b"{\"amount\":")?;
    let amount = read_amount(at.plain()?)?;
    at.literal(b",\"condition\":{\"details\":{\"")?;
    scratch.keys.clear();
    let condition = if at.skip(b"public_key\":") {
        let known = keys.get(at.plain()?)?;
        at.literal(b",\"type\":\"ed25519-sha-256\"},\"uri\":")?;
        if rules.limits.condition_depth_max == 0 || !known.is_uri(at.plain()?) {
            return None;
        }
        scratch.keys.push(known.key);
        Condition {
            fingerprint: known.fingerprint,
            threshold: false,
            cost: ED25519_COST,
        }
    } else {
        let condition = read_threshold(at, rules, keys, &mut scratch.keys, 1)?;
        at.literal(b",\"uri\":")?;
        if condition.uri().as_bytes() != at.plain()? {
            return None;
        }
        condition
    };

    at.literal(b"},\"public_keys\":[")?;
    let mut public_keys = Keys::new();
    loop {
        public_keys.push(keys.get(at.plain()?)?.key);
        if !at.skip(b",") {
            break;
        }
    }
    at.literal(b"]}")?;
    if public_keys[..] != scratch.keys[..] {
        sorted_set(&mut scratch.owners, public_keys.iter().copied());
        scratch.keys.sort_unstable();
        scratch.keys.dedup();
        if scratch.owners != scratch.keys {
            return None;
        }
    }
    let lock = Lock::new(asset, &condition.fingerprint);
    Some(Output {
        amount,
        condition,
        public_keys,
        lock,
    })
}

/// The details of a threshold, after the opening brace and quote; `level` counts from 1.
fn read_threshold(
    at: &mut Cursor<'_>,
    rules: &Rules,
    keys: &mut KnownKeys,
    named: &mut Vec<PublicKey>,
    level: usize,
) -> Option<Condition> {
    // The parts stand one level below, each in an array and an object of its own.
    let limits = &rules.limits;
    if level >= limits.condition_depth_max || FORM_DEPTH + 2 * level > limits.json_depth_max {
        return None;
    }
    at.literal(b"subconditions\":[")?;
    let mut parts = Vec::new();
    loop {
        at.literal(b"{\"")?;
        let part = if at.skip(b"public_key\":") {
            let known = keys.get(at.plain()?)?;
            at.literal(b",\"type\":\"ed25519-sha-256\"}")?;
            named.push(known.key);
            Condition {
                fingerprint: known.fingerprint,
                threshold: false,
                cost: ED25519_COST,
            }
        } else {
            read_threshold(at, rules, keys, named, level + 1)?
        };
        parts.push((ConditionDer::of(&part), part.cost));
        if !at.skip(b",") {
            break;
        }
    }
    at.literal(b"],\"threshold\":")?;
    let threshold = at.integer()?;
    at.literal(b",\"type\":\"threshold-sha-256\"}")?;
    if !(1..=THRESHOLD_MAX).contains(&threshold) || threshold as usize > parts.len() {
        return None;
    }
    condition::threshold_of(threshold, parts)
}

/// One to twenty digits, leading zeros allowed; their value counts (section 4.1).
fn read_amount(digits: &[u8]) -> Option<Amount> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let units = digits.iter().try_fold(0u64, |units, &c| {
        let digit = c.is_ascii_digit().then_some(u64::from(c & 15))?;
        units.checked_mul(10)?.checked_add(digit)
    })?;
    Amount::new(units)
}

/// The values of a `language` member that are accepted (section 6.4).
pub(super) const LANGUAGES: [&str; 31] = [
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "turkish",
    "none",
    "da",
    "nl",
    "en",
    "fi",
    "fr",
    "de",
    "hu",
    "it",
    "nb",
    "pt",
    "ro",
    "ru",
    "es",
    "sv",
    "tr",
];

/// Skips values of any kind, checking that they are canonical and keep the rules about members.
struct Names {
    key_names: bool,
    language: bool,
    depth_max: usize,
}

impl Names {
    /// Skips one value that stands inside `depth` arrays and objects.
    fn value(&self, at: &mut Cursor<'_>, depth: usize) -> Option<()> {
        match at.peek()? {
            b'"' => at.string().map(|_| ()),
            b'{' => self.object(at, depth + 1),
            b'[' => self.array(at, depth + 1),
            b'n' => at.literal(b"null"),
            b't' => at.literal(b"true"),
            b'f' => at.literal(b"false"),
            b'-' | b'0'..=b'9' => at.number(),
            _ => None,
        }
    }

    fn array(&self, at: &mut Cursor<'_>, depth: usize) -> Option<()> {
        if depth > self.depth_max {
            return None;
        }
        at.literal(b"[")?;
        if at.skip(b"]") {
            return Some(());
        }
        loop {
            self.value(at, depth)?;
            if !at.skip(b",") {
                return at.literal(b"]");
            }
        }
    }

    fn object(&self, at: &mut Cursor<'_>, depth: usize) -> Option<()> {
        if depth > self.depth_max {
            return None;
        }
        at.literal(b"{")?;
        if at.skip(b"}") {
            return Some(());
        }
        let mut before: Option<Text<'_>> = None;
        loop {
            let key = at.string()?;
            if before.is_some_and(|before| !before.is_less(&key)) {
                return None;
            }
            before = Some(key);
            if self.key_names
                && (key.raw.first() == Some(&b'$') || key.nul || key.raw.contains(&b'.'))
            {
                return None;
            }
            at.literal(b":")?;
            if self.language && key.raw == b"language" {
                let value = at.plain()?;
                if !LANGUAGES
                    .iter()
                    .any(|language| language.as_bytes() == value)
                {
                    return None;
                }
            } else {
                self.value(at, depth)?;
            }
            if !at.skip(b",") {
                return at.literal(b"}");
            }
        }
    }
}

/// The inside of a string as it stands in the text.
#[derive(Clone, Copy)]
struct Text<'t> {
    raw: &'t [u8],
    escapes: bool,
    nul: bool,
}

impl Text<'_> {
    /// Whether it comes before `other` by code points.
    fn is_less(&self, other: &Text<'_>) -> bool {
        if !self.escapes && !other.escapes {
            return self.raw < other.raw;
        }
        self.unescaped() < other.unescaped()
    }

    fn unescaped(&self) -> Option<String> {
        let mut quoted = Vec::with_capacity(self.raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.raw);
        quoted.push(b'"');
        match Value::parse(&quoted, 0) {
            Ok(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

struct Cursor<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Cursor<'t> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn skip(&mut self, literal: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    #[inline]
    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.skip(literal).then_some(())
    }

    fn span_from(&self, start: usize) -> Span {
        Span {
            start: start as u32,
            end: self.at as u32,
        }
    }

    /// The inside of a string without escapes.
    #[inline]
    fn plain(&mut self) -> Option<&'t [u8]> {
        self.literal(b"\"")?;
        let rest = &self.bytes[self.at..];
        let length = canonical::plain_bytes(rest);
        if rest.get(length) != Some(&b'"') {
            return None;
        }
        self.at += length + 1;
        Some(&rest[..length])
    }

    /// A string whose escapes are the canonical ones.
    fn string(&mut self) -> Option<Text<'t>> {
        self.literal(b"\"")?;
        let start = self.at;
        let (mut escapes, mut nul) = (false, false);
        loop {
            self.at += canonical::plain_bytes(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escapes = true;
                    let rest = &self.bytes[self.at + 1..];
                    match rest.first()? {
                        b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r' => self.at += 2,
                        b'u' => {
                            let code = control_code(rest.get(1..5)?)?;
                            nul |= code == 0;
                            self.at += 6;
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        let raw = &self.bytes[start..self.at];
        self.at += 1;
        Some(Text { raw, escapes, nul })
    }

    /// A whole number below 2³² in canonical form.
    fn integer(&mut self) -> Option<u32> {
        let start = self.at;
        let mut value = 0u32;
        while let Some(c @ b'0'..=b'9') = self.peek() {
            value = value.checked_mul(10)?.checked_add(u32::from(c & 15))?;
            self.at += 1;
        }
        let length = self.at - start;
        let canonical = length == 1 || length > 1 && self.bytes[start] != b'0';
        canonical.then_some(value)
    }

    /// Any number in canonical form.
    fn number(&mut self) -> Option<()> {
        let start = self.at;
        let mut float = false;
        while let Some(c) = self.peek() {
            match c {
                b'0'..=b'9' | b'-' => {}
                b'.' | b'e' | b'+' => float = true,
                _ => break,
            }
            self.at += 1;
        }
        let token = &self.bytes[start..self.at];
        if float {
            let text = std::str::from_utf8(token).ok()?;
            return (Finite::parse(text)?.to_string() == text).then_some(());
        }
        let digits = token.strip_prefix(b"-").unwrap_or(token);
        let canonical = match digits {
            [b'0'] => digits.len() == token.len(),
            [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        canonical.then_some(())
    }
}

/// The code of `00XX` when it is written as canonical text writes control characters.
fn control_code(digits: &[u8]) -> Option<u8> {
    let value = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    };
    let [b'0', b'0', high, low] = *digits else {
        return None;
    };
    let code = value(high)? << 4 | value(low)?;
    (code < 0x20 && !matches!(code, 0x08 | 0x09 | 0x0A | 0x0C | 0x0D)).then_some(code)
}
