//! Hands messages out to lanes: which block goes where, padding, and reading the digests.

use crate::DIGEST_BYTES;

/// Bytes that SHA3-256 absorbs before each permutation.
pub(crate) const BLOCK_BYTES: usize = 136;

/// 64-bit words of a Keccak state.
pub(crate) const STATE_WORDS: usize = 25;

/// What stands after the message: SHA-3's two bits and the first bit of the padding.
const PADDING_FIRST: u8 = 0x06;
/// The last bit of the padding, in the last byte of a block.
const PADDING_LAST: u8 = 0x80;

/// The states of `W` messages, interleaved: the same word of every lane side by side, so that one
/// vector holds it. Aligned for the widest vector.
#[repr(C, align(64))]
pub(crate) struct States<const W: usize>(pub(crate) [[u64; W]; STATE_WORDS]);

/// A permutation of all lanes.
pub(crate) type Permute<const W: usize> = fn(&mut States<W>);

/// What a lane without a message absorbs; nobody reads its digest.
const IDLE: &[u8; BLOCK_BYTES] = &[0; BLOCK_BYTES];

/// One lane's work.
#[derive(Clone, Copy)]
struct Lane<'m> {
    /// The place of its message; `None` when there are no more messages.
    message: Option<usize>,
    /// The whole blocks not absorbed yet. The padded last one follows.
    blocks: &'m [[u8; BLOCK_BYTES]],
}

/// Hashes every message into the digest at its place.
pub(crate) fn hash<const W: usize>(
    permute: Permute<W>,
    messages: &[&[u8]],
    digests: &mut [[u8; DIGEST_BYTES]],
) {
    let mut states = States([[0; W]; STATE_WORDS]);
    let mut last_blocks = [[0; BLOCK_BYTES]; W];
    let mut waiting = messages.iter().enumerate();
    let mut lanes: [Lane<'_>; W] =
        std::array::from_fn(|lane| next_message(waiting.next(), &mut last_blocks[lane]));
    while lanes.iter().any(|lane| lane.message.is_some()) {
        let blocks: [&[u8; BLOCK_BYTES]; W] =
            std::array::from_fn(
                |lane| match (lanes[lane].blocks.first(), lanes[lane].message) {
                    (Some(block), _) => block,
                    (None, Some(_)) => &last_blocks[lane],
                    (None, None) => IDLE,
                },
            );
        absorb(&mut states, &blocks);
        permute(&mut states);
        for (at, lane) in lanes.iter_mut().enumerate() {
            if let Some((_, rest)) = lane.blocks.split_first() {
                lane.blocks = rest;
            } else if let Some(message) = lane.message {
                digests[message] = digest(&states, at);
                states.0.iter_mut().for_each(|words| words[at] = 0);
                *lane = next_message(waiting.next(), &mut last_blocks[at]);
            }
        }
    }
}

/// A lane set to the start of a message; its padded last block is written to `last_block`.
fn next_message<'m>(
    next: Option<(usize, &&'m [u8])>,
    last_block: &mut [u8; BLOCK_BYTES],
) -> Lane<'m> {
    let Some((place, message)) = next else {
        return Lane {
            message: None,
            blocks: &[],
        };
    };
    let (blocks, rest) = message.as_chunks();
    last_block[..rest.len()].copy_from_slice(rest);
    last_block[rest.len()..].fill(0);
    last_block[rest.len()] = PADDING_FIRST;
    // Both bits fall into one byte when a single byte is left.
    last_block[BLOCK_BYTES - 1] |= PADDING_LAST;
    Lane {
        message: Some(place),
        blocks,
    }
}

#[inline(always)]
fn absorb<const W: usize>(states: &mut States<W>, blocks: &[&[u8; BLOCK_BYTES]; W]) {
    // Word by word over all lanes: the words of one vector lie in one cache line.
    for (at, words) in states.0[..BLOCK_BYTES / 8].iter_mut().enumerate() {
        for (word, block) in words.iter_mut().zip(blocks) {
            *word ^= u64::from_le_bytes(block.as_chunks().0[at]);
        }
    }
}

fn digest<const W: usize>(states: &States<W>, lane: usize) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    for (bytes, words) in digest.as_chunks_mut().0.iter_mut().zip(&states.0) {
        *bytes = words[lane].to_le_bytes();
    }
    digest
}
