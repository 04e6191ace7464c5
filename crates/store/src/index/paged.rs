//! A key's values from a place on, so that a page of a long list costs no more than its own length.

use std::ops::Range;

use super::{Run, Shared, VALUES_AT_ONCE, in_memory};
use crate::StoreError;

impl Shared {
    /// The values of a key that are less than `below`, newest first, until `each` returns false.
    pub(crate) fn newest_below(
        &self,
        key: u64,
        below: u64,
        mut each: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (sealed, active) = self.snapshot(key);
        let values = in_memory(active, &sealed, key);
        for value in values.skip_while(|value| *value >= below) {
            if !each(value)? {
                return Ok(());
            }
        }
        for (_, run) in sealed.runs.iter().rev() {
            if !run.may_hold(key)? {
                continue;
            }
            let numbers = run.find(key)?;
            let mut end = first(run, numbers.clone(), |value| value >= below)?;
            while numbers.start < end {
                let start = numbers.start.max(end.saturating_sub(VALUES_AT_ONCE));
                for value in run.values(start..end)?.into_iter().rev() {
                    if !each(value)? {
                        return Ok(());
                    }
                }
                end = start;
            }
        }
        Ok(())
    }

    /// The values of a key that are greater than `above`, oldest first, until `each` returns false.
    pub(crate) fn oldest_above(
        &self,
        key: u64,
        above: u64,
        mut each: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (sealed, active) = self.snapshot(key);
        for (_, run) in &sealed.runs {
            if !run.may_hold(key)? {
                continue;
            }
            let numbers = run.find(key)?;
            let mut start = first(run, numbers.clone(), |value| value > above)?;
            while start < numbers.end {
                let end = numbers.end.min(start + VALUES_AT_ONCE);
                for value in run.values(start..end)? {
                    if !each(value)? {
                        return Ok(());
                    }
                }
                start = end;
            }
        }
        let mut values: Vec<u64> = in_memory(active, &sealed, key)
            .take_while(|value| *value > above)
            .collect();
        while let Some(value) = values.pop() {
            if !each(value)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The first of these numbers of a run whose value is `beyond`, as all behind it are; their end when
/// none is.
fn first(run: &Run, numbers: Range<u64>, beyond: impl Fn(u64) -> bool) -> Result<u64, StoreError> {
    let Range { mut start, mut end } = numbers;
    while start < end {
        let middle = start + (end - start) / 2;
        let value = run.values(middle..middle + 1)?;
        if value.into_iter().any(&beyond) {
            end = middle;
        } else {
            start = middle + 1;
        }
    }
    Ok(start)
}
