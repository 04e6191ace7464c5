//! What the broker counts.

use std::collections::BTreeMap;

use crate::Code;

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub requests: u64,
    pub repeated: u64,
    pub deliveries: u64,
    pub redeliveries: u64,
    pub responses: u64,
    /// Answers to requesters that are gone.
    pub orphans: u64,
    /// Answers that came after the first, or after the deadline.
    pub late: u64,
    /// Messages that did not fit into a receiver's outbound queue.
    pub dropped: u64,
    pub stored: u64,
    pub acknowledged: u64,
    pub dead: u64,
    /// Answers that were forgotten before their window ended, for want of room.
    pub forgotten: u64,
    /// Refusals by code.
    pub refused: BTreeMap<Code, u64>,
}
