//! Dates and times as texts, both ways, by whole numbers.

use crate::BlockTime;

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1_000;

/// A day: a count of days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day of a date of the Gregorian calendar; `None` when there is no such date.
    pub fn of_date(year: u32, month: u32, day: u32) -> Option<Day> {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let length = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        if year > 9_999 || day == 0 || day > length {
            return None;
        }
        // Years that begin in March have their leap day at the end.
        let (year, month) = match month {
            1 | 2 => (i64::from(year) - 1, i64::from(month) + 9),
            _ => (i64::from(year), i64::from(month) - 3),
        };
        let of_years =
            365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let of_months = (153 * month + 2) / 5;
        /// Days from 1 March of the year 0 to 1 January 1970, less one because days count from 1.
        const EPOCH: i64 = 719_468 + 1;
        Some(Day(of_years + of_months + i64::from(day) - EPOCH))
    }

    /// Reads `DD.MM.YY` or `DD.MM.YYYY`; two digits of a year mean 20YY (section 1.3). Parts of fewer
    /// digits are read as the numbers that they are.
    pub fn parse(text: &str) -> Option<Day> {
        let mut parts = text.split('.');
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |part: &str| {
            let digits = (1..=4).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        };
        if parts.next().is_some() || !matches!(year.len(), 2 | 4) {
            return None;
        }
        let century = if year.len() == 2 { 2_000 } else { 0 };
        Day::of_date(number(year)? + century, number(month)?, number(day)?)
    }

    /// The day that a moment belongs to, in UTC.
    pub fn of(at: BlockTime) -> Day {
        Day((at.0 / MS_PER_DAY) as i64)
    }

    /// How many days lie between `earlier` and this one; negative when it comes first.
    pub fn since(self, earlier: Day) -> i64 {
        self.0 - earlier.0
    }

    /// Year, month and day.
    fn date(self) -> (i64, i64, i64) {
        let days = self.0 + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        (era * 400 + year_of_era + later, month, day)
    }
}

/// A moment as the original writes it: `YYYY-MM-DD HH:MM:SS.ffffff`, UTC (section 4.1).
pub fn time_text(at: BlockTime) -> String {
    let (year, month, day) = Day::of(at).date();
    let ms = at.0 % MS_PER_DAY;
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, thousandths) = (ms / 1_000 % 60, ms % 1_000);
    format!(
        "{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{thousandths:03}000"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_moment_is_written_as_the_original_writes_it() {
        assert_eq!(time_text(BlockTime(0)), "1970-01-01 00:00:00.000000");
        assert_eq!(
            time_text(BlockTime(1_772_356_527_004)),
            "2026-03-01 09:15:27.004000"
        );
        assert_eq!(
            time_text(BlockTime(951_827_696_789)),
            "2000-02-29 12:34:56.789000"
        );
        assert_eq!(
            time_text(BlockTime(253_402_300_799_999)),
            "9999-12-31 23:59:59.999000"
        );
    }

    #[test]
    fn every_day_of_eight_centuries_is_the_day_after_the_one_before() {
        let mut expected = Day::of_date(1600, 1, 1).unwrap();
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in (1..=31).filter_map(|day| Day::of_date(year, month, day)) {
                    assert_eq!(day, expected);
                    let (y, m, d) = day.date();
                    assert_eq!(Day::of_date(y as u32, m as u32, d as u32), Some(day));
                    expected = Day(expected.0 + 1);
                }
            }
        }
        assert_eq!(Day::of_date(1970, 1, 1), Some(Day(0)));
    }

    #[test]
    fn dates_of_two_and_four_digit_years_are_read_and_others_are_not() {
        let day = Day::of_date(2026, 3, 1);
        assert_eq!(Day::parse("01.03.26"), day);
        assert_eq!(Day::parse("01.03.2026"), day);
        assert_eq!(Day::parse("1.3.26"), day);
        for wrong in [
            "",
            "01.03",
            "01.03.26.",
            "01/03/2026",
            "32.01.26",
            "29.02.26",
            "0.1.26",
            "01.03.026",
            "a.b.cc",
            "+1.03.26",
            "01.13.26",
            "1 .03.26",
            "00001.03.26",
            "01.03.99999",
        ] {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
        assert!(Day::parse("29.02.24").is_some());
    }
}
