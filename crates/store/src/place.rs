//! Places: of a transaction packed into one word, and of a block in the log.

use daybook_ledger::{Height, Position};

/// Bits of the index in a packed position.
const INDEX_BITS: u32 = 24;
/// The most transactions of one block.
pub(crate) const COUNT_MAX: usize = 1 << INDEX_BITS;
/// The highest height that packs.
pub(crate) const HEIGHT_MAX: u64 = u64::MAX >> INDEX_BITS;

/// `height << 24 | index`: sorts as positions do.
pub(crate) fn pack(height: Height, index: u32) -> u64 {
    debug_assert!(height.0 <= HEIGHT_MAX && (index as usize) < COUNT_MAX);
    height.0 << INDEX_BITS | u64::from(index)
}

/// The position that [`pack`] packed.
pub(crate) fn unpack(packed: u64) -> Position {
    Position {
        height: Height(packed >> INDEX_BITS),
        index: packed as u32 & (COUNT_MAX as u32 - 1),
    }
}

/// Where a block's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment's number, from 1.
    pub(crate) segment: u32,
    /// The record's first byte in it.
    pub(crate) offset: u64,
    /// Bytes of the record without padding.
    pub(crate) length: u32,
    /// Transactions in it.
    pub(crate) count: u32,
}
