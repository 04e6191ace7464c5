//! Counts of an asset's smallest unit.

use std::fmt;

/// The largest amount of one output: 9·10¹⁸ units (asset ledger, section 6.7).
pub const AMOUNT_MAX: u64 = 9_000_000_000_000_000_000;

/// A count of an asset's smallest unit in one output: 1 to [`AMOUNT_MAX`].
///
/// Sums of amounts can exceed 64 bits and are kept as `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u64);

impl Amount {
    /// The amount of `units`, or `None` when it is zero or above [`AMOUNT_MAX`].
    pub const fn new(units: u64) -> Option<Amount> {
        if units == 0 || units > AMOUNT_MAX {
            None
        } else {
            Some(Amount(units))
        }
    }

    /// The count of units.
    pub const fn units(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
