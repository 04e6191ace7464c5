//! The hashes over a transaction's text: its id and the message of every input (sections 4.3, 4.4).
//! Either of one transaction at a time, or gathered and computed side by side.

use std::ops::Range;

use aws_lc_rs::digest;

use super::{Read, Span, Transaction};
use crate::{OutputRef, canonical};

/// From this many bytes on, a prefix that both texts share is worth a hashing context of its own.
const SHARED_PREFIX_MIN: usize = 1_024;

/// Bytes of the longest text that is gathered. A longer one is hashed by itself, where what its
/// preimages have in common is absorbed once; it would also keep other lanes waiting for its end.
const GATHERED_TEXT_BYTES_MAX: usize = 16 << 10;

/// The most inputs of a transaction that is gathered, as each adds a preimage of the text's length.
/// With more, absorbing the common text once costs less than the lanes save.
const GATHERED_INPUTS_MAX: usize = 4;

/// Bytes from which on the gathered preimages are hashed before more are added: enough to fill all
/// lanes many times, few enough to stay in a core's cache.
const GATHERED_BYTES_FULL: usize = 128 << 10;

/// Preimages of many transactions, and their digests.
#[derive(Default)]
pub(super) struct Gathered {
    preimages: Vec<u8>,
    /// Where each preimage ends, in the order of adding: of every transaction the one of the id,
    /// then those of the inputs.
    ends: Vec<usize>,
    digests: Vec<[u8; 32]>,
    /// How many digests were handed out.
    settled: usize,
}

impl Gathered {
    /// Whether this transaction is better gathered than hashed by itself.
    pub(super) fn takes(read: &Read) -> bool {
        let Transaction {
            canonical, inputs, ..
        } = &read.transaction;
        canonical.len() <= GATHERED_TEXT_BYTES_MAX && inputs.len() <= GATHERED_INPUTS_MAX
    }

    /// Whether it is time to hash.
    pub(super) fn is_full(&self) -> bool {
        self.preimages.len() >= GATHERED_BYTES_FULL
    }

    /// Adds the preimages of a transaction whose fulfillments stand in these places.
    pub(super) fn add(&mut self, read: &Read, fulfillments: &[Span]) {
        let text = &read.transaction.canonical[..];
        let preimages = &mut self.preimages;
        let prefix = append_prefix(preimages, text, read.id);
        preimages.extend_from_slice(&text[read.id.end as usize..]);
        self.ends.push(preimages.len());

        let common = preimages.len();
        preimages.extend_from_within(prefix);
        append_unsigned(preimages, text, read.id, fulfillments);
        let common = common..preimages.len();
        for (at, input) in read.transaction.inputs.iter().enumerate() {
            if at > 0 {
                preimages.extend_from_within(common.clone());
            }
            if let Some(spent) = &input.spends {
                append_link(preimages, spent);
            }
            self.ends.push(preimages.len());
        }
    }

    /// Computes all digests.
    pub(super) fn hash(&mut self) {
        let mut start = 0;
        let preimages: Vec<&[u8]> = self
            .ends
            .iter()
            .map(|end| {
                let preimage = &self.preimages[start..*end];
                start = *end;
                preimage
            })
            .collect();
        daybook_keccak::sha3_256_many(&preimages, &mut self.digests);
        self.settled = 0;
    }

    /// Gives the transaction that was added next its messages; false when its id is another one.
    pub(super) fn settle(&mut self, transaction: &mut Transaction) -> bool {
        let first = self.settled;
        self.settled += 1 + transaction.inputs.len();
        let digests = &self.digests[first..self.settled];
        for (input, message) in transaction.inputs.iter_mut().zip(&digests[1..]) {
            input.message = *message;
        }
        digests[0] == transaction.id.0
    }

    /// Forgets all preimages.
    pub(super) fn clear(&mut self) {
        self.preimages.clear();
        self.ends.clear();
    }
}

/// Computes id and messages of one transaction; `None` when the id is another one. `preimage` is
/// space to work in.
pub(super) fn complete(
    read: Read,
    fulfillments: &[Span],
    preimage: &mut Vec<u8>,
) -> Option<Transaction> {
    let mut transaction = read.transaction;
    let text = &transaction.canonical[..];
    preimage.clear();
    let prefix = append_prefix(preimage, text, read.id).end;
    // Both texts begin with the asset; a large one is absorbed only once.
    let shared = (prefix >= SHARED_PREFIX_MIN).then(|| {
        let mut context = digest::Context::new(&digest::SHA3_256);
        context.update(preimage);
        context
    });
    preimage.extend_from_slice(&text[read.id.end as usize..]);
    if finish(&shared, prefix, preimage) != transaction.id.0 {
        return None;
    }

    preimage.truncate(prefix);
    append_unsigned(preimage, text, read.id, fulfillments);
    match &mut transaction.inputs[..] {
        [only] => {
            if let Some(spent) = &only.spends {
                append_link(preimage, spent);
            }
            only.message = finish(&shared, prefix, preimage);
        }
        several => {
            // The common text is absorbed once, so that many inputs cost no more than their own
            // length.
            let mut common = digest::Context::new(&digest::SHA3_256);
            common.update(preimage);
            for input in several {
                let mut context = common.clone();
                if let Some(spent) = &input.spends {
                    preimage.clear();
                    append_link(preimage, spent);
                    context.update(preimage);
                }
                input.message = output_of(context);
            }
        }
    }
    Some(transaction)
}

/// Appends what all preimages begin with, the text up to a null id, and says where it stands.
fn append_prefix(preimage: &mut Vec<u8>, text: &[u8], id: Span) -> Range<usize> {
    let start = preimage.len();
    preimage.extend_from_slice(&text[..id.start as usize]);
    preimage.extend_from_slice(b"null");
    start..preimage.len()
}

/// Appends the text after the id with every fulfillment null.
fn append_unsigned(preimage: &mut Vec<u8>, text: &[u8], id: Span, fulfillments: &[Span]) {
    let mut from = id.end as usize;
    for span in fulfillments {
        preimage.extend_from_slice(&text[from..span.start as usize]);
        preimage.extend_from_slice(b"null");
        from = span.end as usize;
    }
    preimage.extend_from_slice(&text[from..]);
}

/// SHA3-256 of `preimage`, whose first `prefix` bytes `shared` may have absorbed already.
fn finish(shared: &Option<digest::Context>, prefix: usize, preimage: &[u8]) -> [u8; 32] {
    match shared {
        Some(shared) => {
            let mut context = shared.clone();
            context.update(&preimage[prefix..]);
            output_of(context)
        }
        None => canonical::sha3(preimage),
    }
}

fn output_of(context: digest::Context) -> [u8; 32] {
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA3-256 has 32 bytes")
}

fn append_link(preimage: &mut Vec<u8>, spent: &OutputRef) {
    let start = preimage.len();
    preimage.resize(start + 64, 0);
    hex::encode_to_slice(spent.transaction.0, &mut preimage[start..])
        .expect("64 digits hold 32 bytes");
    let mut digits = [0; 10];
    let mut first = digits.len();
    let mut rest = spent.index;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    preimage.extend_from_slice(&digits[first..]);
}
