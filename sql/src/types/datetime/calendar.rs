//! The calendar: days counted from 2000-01-01 and what they are called.
//!
//! The Gregorian calendar goes on for ever in both directions. Years are astronomical: year 0 is 1 BC, year -1 is 2 BC.
//! Nothing here checks ranges of days and months: adding 40 to a day of the month is a legal way to count on.

/// Days from 4714-11-24 BC (Julian day 0) to 2000-01-01.
pub const JULIAN_2000: i32 = 2_451_545;
/// 1970-01-01 as days from 2000-01-01.
pub const DAYS_1970: i32 = -10_957;

/// Days of each month, in common and leap years.
const MONTH_DAYS: [[u8; 12]; 2] =
    [[31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]];

/// Whether the year has a 29th of February.
pub fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Number of days of a month from 1 to 12.
pub fn days_in_month(year: i32, month: i32) -> i32 {
    i32::from(MONTH_DAYS[usize::from(is_leap(year))][(month - 1) as usize])
}

/// Days from 2000-01-01 to a date. `month` is 1 to 12; `day` may be anything. Saturates.
pub fn to_days(year: i32, month: i32, day: i32) -> i32 {
    // Years begin in March, so that the leap day is the last one.
    let (y, m) = if month > 2 { (i64::from(year), month - 3) } else { (i64::from(year) - 1, month + 9) };
    let before_year = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let before_month = i64::from((153 * m + 2) / 5);
    let days = before_year + before_month + i64::from(day) - 1 - 730_425;
    days.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// Year, month and day of a day counted from 2000-01-01.
pub fn from_days(days: i32) -> (i32, i32, i32) {
    let z = i64::from(days) + 730_425;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let (month, next) = if mp < 10 { (mp + 3, 0) } else { (mp - 9, 1) };
    ((yoe + era * 400 + next) as i32, month as i32, day as i32)
}

/// Day of the week, Sunday is 0.
pub fn weekday(days: i32) -> i32 {
    (i64::from(days) + 6).rem_euclid(7) as i32
}

/// Day of the year, from 1.
pub fn day_of_year(year: i32, month: i32, day: i32) -> i32 {
    to_days(year, month, day).saturating_sub(to_days(year, 1, 1)).saturating_add(1)
}

/// The Monday with which an ISO year begins: its week has the 4th of January.
pub fn iso_year_start(year: i32) -> i32 {
    let fourth = to_days(year, 1, 4);
    fourth.saturating_sub((weekday(fourth) + 6) % 7)
}

/// ISO year and week (from 1) of a day.
pub fn iso_week(days: i32) -> (i32, i32) {
    let (year, _, _) = from_days(days);
    let year = if days >= iso_year_start(year + 1) {
        year + 1
    } else if days < iso_year_start(year) {
        year - 1
    } else {
        year
    };
    (year, days.saturating_sub(iso_year_start(year)) / 7 + 1)
}

/// Whether a date lies where Julian days can be counted: 4714-11 BC to 5874898-05.
pub fn is_julian(year: i32, month: i32) -> bool {
    (year, month) >= (-4713, 11) && (year, month) < (5_874_898, 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree() {
        for days in (-2_451_545..3_000_000).step_by(97) {
            let (y, m, d) = from_days(days);
            assert_eq!(to_days(y, m, d), days, "{y}-{m}-{d}");
            assert!(d >= 1 && d <= days_in_month(y, m));
        }
        assert_eq!(to_days(2000, 1, 1), 0);
        assert_eq!(to_days(1970, 1, 1), DAYS_1970);
        assert_eq!(to_days(-4713, 11, 24), -JULIAN_2000);
        assert_eq!(from_days(2_147_483_493 - JULIAN_2000), (5_874_897, 12, 31));
    }

    #[test]
    fn iso_weeks_of_the_turn_of_years() {
        for (y, m, d, iso) in [
            (2005, 1, 1, (2004, 53)),
            (2005, 12, 31, (2005, 52)),
            (2006, 1, 1, (2005, 52)),
            (2007, 1, 1, (2007, 1)),
            (2008, 12, 29, (2009, 1)),
            (2010, 1, 3, (2009, 53)),
        ] {
            assert_eq!(iso_week(to_days(y, m, d)), iso, "{y}-{m}-{d}");
        }
        assert_eq!(weekday(to_days(2024, 1, 7)), 0);
    }
}
