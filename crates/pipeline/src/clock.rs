//! Time behind a trait, so that tests and simulations set it.

use std::time::{SystemTime, UNIX_EPOCH};

use daybook_ledger::BlockTime;

/// Tells the time that blocks are stamped with.
pub trait Clock: Send + Sync {
    /// Now. May stand still or step back; blocks stay strictly increasing regardless.
    fn now(&self) -> BlockTime;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> BlockTime {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        BlockTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
