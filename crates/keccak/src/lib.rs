//! SHA3-256 of many messages at once.
//!
//! One Keccak permutation cannot use the width of a modern processor, but several can run side by
//! side, one in each 64-bit lane of its vectors: eight with AVX-512, four with AVX2. Which of them
//! the processor has is asked at run time; without either, messages are hashed one by one. The
//! digests are the same everywhere.

#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod x86;

use aws_lc_rs::digest;

/// Bytes of a SHA3-256 digest.
pub const DIGEST_BYTES: usize = 32;

/// Fewer messages than this are hashed one by one: a permutation of all lanes takes longer than the
/// one of a single message.
#[cfg(target_arch = "x86_64")]
const LANES_USED_MIN: usize = 2;

/// Replaces what `digests` holds by the SHA3-256 of every message, in the order of the messages.
/// They can have any lengths; a lane that is done with one goes on with the next.
pub fn sha3_256_many(messages: &[&[u8]], digests: &mut Vec<[u8; DIGEST_BYTES]>) {
    digests.clear();
    digests.resize(messages.len(), [0; DIGEST_BYTES]);
    #[cfg(target_arch = "x86_64")]
    if messages.len() >= LANES_USED_MIN {
        if let Some(permute) = x86::permute_8() {
            return lanes::hash(permute, messages, digests);
        } else if let Some(permute) = x86::permute_4() {
            return lanes::hash(permute, messages, digests);
        }
    }
    one_by_one(messages, digests);
}

/// SHA3-256 of one message.
pub fn sha3_256(message: &[u8]) -> [u8; DIGEST_BYTES] {
    let digest = digest::digest(&digest::SHA3_256, message);
    digest.as_ref().try_into().expect("SHA3-256 has 32 bytes")
}

fn one_by_one(messages: &[&[u8]], digests: &mut [[u8; DIGEST_BYTES]]) {
    for (message, digest) in messages.iter().zip(digests) {
        *digest = sha3_256(message);
    }
}

#[cfg(test)]
mod tests;
