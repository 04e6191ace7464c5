//! Points in time, as the driver tells them.

/// Microseconds since 1970 on a clock that never steps back. The milliseconds in instance ids are
/// taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This long after.
    pub fn after_ms(self, millis: u64) -> Moment {
        Moment(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Microseconds since `earlier`; 0 when it is not earlier.
    pub fn micros_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
