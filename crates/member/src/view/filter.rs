//! Which ledgers, and which entries of one, a list is asked for: a name, and what is new, so that a
//! program that looks again and again reads only that.

use daybook_ledger::{BlockTime, consortium::Day};
use daybook_wire::multipart::percent_decoded;

use super::NotShown;
use crate::{
    member::Shared,
    page::{Page, parameters},
};

/// Ledgers that the beginning of a name may fit: their ids are sorted in memory.
const MATCHES_MAX: usize = 100_000;
/// Milliseconds of a day.
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1_000;

/// The page that is asked for, and the ids of the ledgers on it: the newest first, or with `since` those
/// that changed last. Blocks on the disk.
///
/// * `name` is a ledger's name, `name_prefix` the beginning of names.
/// * `since` is the number of a change, as `changed` of a ledger tells it: those that changed after it.
///   Or a moment, as `changed_timestamp_utc` tells it: those that changed then or later.
pub(super) fn ledgers(shared: &Shared, query: &str) -> Result<(Page, Vec<u64>), NotShown> {
    let lists = shared.mirror.lists();
    let since = match parameter(query, "since")? {
        None => None,
        Some(since) => Some(change(shared, &since)?),
    };
    let name = parameter(query, "name")?;
    let prefix = parameter(query, "name_prefix")?;
    let mut named = match (name, prefix) {
        (None, None) => None,
        (Some(name), prefix) => {
            let fits = prefix.is_none_or(|prefix| name.starts_with(&prefix));
            let id = shared.mirror.ledger_named(&name)?.filter(|_| fits);
            Some(Vec::from_iter(id))
        }
        (None, Some(prefix)) => {
            let ids = lists.ledgers_named(&prefix, MATCHES_MAX)?;
            Some(ids.ok_or(NotShown::Unfit(
                "\"name_prefix\" fits more than 100000 ledgers: make it longer.",
            ))?)
        }
    };
    let count = match (&mut named, since) {
        (None, None) => shared.mirror.ledger_count()?,
        (None, Some(since)) => lists.changed_count(since)?,
        (Some(ids), None) => {
            ids.sort_unstable_by(|one, other| other.cmp(one));
            ids.len() as u64
        }
        (Some(ids), Some(since)) => {
            let mut changed = Vec::new();
            for id in ids.iter() {
                let (change, _) = lists.last_change(*id)?;
                if change > since {
                    changed.push((change, *id));
                }
            }
            changed.sort_unstable_by(|one, other| other.cmp(one));
            *ids = changed.into_iter().map(|(_, id)| id).collect();
            ids.len() as u64
        }
    };
    let page = Page::new(query, count).ok_or(NotShown::NoSuchPage)?;
    let (from, size) = page.places();
    let ids = match (named, since) {
        (Some(ids), _) => ids.into_iter().skip(from).take(size).collect(),
        (None, Some(since)) => lists.changed(since, from, size)?,
        // Local ids are the numbers from 1 on.
        (None, None) => page.numbers().rev().collect(),
    };
    Ok((page, ids))
}

/// The number of the change behind which ledgers are asked for.
fn change(shared: &Shared, since: &str) -> Result<u64, NotShown> {
    let lists = shared.mirror.lists();
    if let Some(ms) = moment(since) {
        return Ok(lists.change_before(ms)?);
    }
    let since = number(since).ok_or(NotShown::Unfit(
        "\"since\" is the number of a change, or a moment as 2026-03-01 09:15:27.004.",
    ))?;
    // Who counts on from another network, or before a mirror is made anew, would wait for ever and see
    // nothing.
    match since > lists.newest_change()? {
        true => Err(NotShown::Unfit(
            "\"since\" is ahead of all changes: begin again with 0.",
        )),
        false => Ok(since),
    }
}

/// The sequence number behind which the entries of a ledger are asked for: 0 for all.
pub(super) fn sequence_number(query: &str) -> Result<u64, NotShown> {
    match parameter(query, "since")? {
        None => Ok(0),
        Some(since) => number(&since).ok_or(NotShown::Unfit("\"since\" is a sequence number.")),
    }
}

/// A parameter, decoded.
fn parameter(query: &str, wanted: &str) -> Result<Option<String>, NotShown> {
    let found = parameters(query).find(|(name, _)| *name == wanted);
    let decoded = found.map(|(_, value)| percent_decoded(&value.replace('+', " ")));
    match decoded {
        None => Ok(None),
        Some(Some(value)) => Ok(Some(value)),
        Some(None) => Err(NotShown::Unfit("A parameter is not percent-encoded UTF-8.")),
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Milliseconds since 1970 of `YYYY-MM-DD`, `YYYY-MM-DD HH:MM:SS` or `YYYY-MM-DD HH:MM:SS.ffffff`, UTC;
/// `T` may stand between day and time, and `Z` at the end. What is below a millisecond does not count.
fn moment(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let day = match parts(date, '-')? {
        [(year, 4), (month, 2), (day, 2)] => Day::of_date(year, month, day)?,
        _ => return None,
    };
    let days = u64::try_from(day.since(Day::of(BlockTime(0)))).ok()?;
    let Some(time) = time else {
        return days.checked_mul(MS_PER_DAY);
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let seconds = match parts(time, ':')? {
        [
            (hours @ 0..24, 2),
            (minutes @ 0..60, 2),
            (seconds @ 0..60, 2),
        ] => (hours * 60 + minutes) * 60 + seconds,
        _ => return None,
    };
    if !(1..=6).contains(&fraction.len()) || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    days.checked_mul(MS_PER_DAY)?
        .checked_add(u64::from(seconds) * 1_000 + thousandths)
}

/// Three numbers, and how many digits each has.
fn parts(text: &str, between: char) -> Option<[(u32, usize); 3]> {
    let mut parts = text.split(between).map(|part| {
        let number = number(part)?.try_into().ok()?;
        Some((number, part.len()))
    });
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

#[cfg(test)]
mod tests {
    use daybook_ledger::consortium::time_text;

    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        for ms in [0, 1_772_356_527_004, 951_827_696_789, 253_402_300_799_999] {
            assert_eq!(moment(&time_text(BlockTime(ms))), Some(ms));
        }
        let expected = Some(1_772_356_527_000);
        assert_eq!(moment("2026-03-01 09:15:27"), expected);
        assert_eq!(moment("2026-03-01T09:15:27Z"), expected);
        assert_eq!(moment("2026-03-01T09:15:27.0009Z"), expected);
        assert_eq!(moment("2026-03-01 09:15:27.1"), Some(1_772_356_527_100));
        assert_eq!(moment("2026-03-01"), Some(1_772_323_200_000));
        for wrong in [
            "",
            "2026",
            "2026-03",
            "2026-02-29",
            "2026-3-1",
            "1969-12-31",
            "+2026-03-01",
            "2026-03-01 ",
            "2026-03-01 09:15",
            "2026-03-01 24:00:00",
            "2026-03-01 09:60:00",
            "2026-03-01 09:15:27.",
            "2026-03-01 09:15:27.1234567",
            "2026-03-01 09:15:27+01:00",
            "2026-03-01-01",
            "99999-01-01",
        ] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_is_digits_alone() {
        assert_eq!(number("17"), Some(17));
        for wrong in ["", "-1", "+1", "1.0", " 1", "99999999999999999999"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
