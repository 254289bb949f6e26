//! Writing times by template.

use std::fmt::Write;

use super::super::datetime::{DAY_NAMES, MONTH_NAMES};
use super::push_ordinal;
use super::template::{Case, Field, Key, Node, nodes};
use crate::error::{Result, SqlError, state};
use crate::types::Interval;
use crate::types::datetime::calendar::{JULIAN_2000, day_of_year, iso_week, iso_year_start, to_days, weekday};
use crate::types::datetime::{Civil, HOUR, MINUTE, SECOND};
use crate::types::timezone::TimeZone;

/// Months in Roman numerals.
pub(super) const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// What is written: the parts of a moment, or of an interval, whose parts may be negative and have no calendar.
struct Parts {
    civil: Civil,
    /// An interval has many.
    hour: i64,
    day_of_year: i32,
    weekday: i32,
    east: i32,
    zone: Option<String>,
    interval: bool,
}

/// A finite timestamp, or with a zone a finite timestamptz.
pub(super) fn timestamp(micros: i64, zone: Option<&TimeZone>, template: &str) -> Result<String> {
    let east = zone.map_or(0, |z| z.offset_at(micros));
    let civil = Civil::from_micros(micros + i64::from(east) * SECOND);
    write_all(
        &Parts {
            hour: i64::from(civil.hour),
            day_of_year: day_of_year(civil.year, civil.month, civil.day),
            weekday: weekday(civil.days()),
            east,
            zone: zone.map(|z| z.abbreviation_at(micros)),
            interval: false,
            civil,
        },
        template,
    )
}

/// An interval.
pub(super) fn interval(span: &Interval, template: &str) -> Result<String> {
    let civil = Civil {
        year: span.months / 12,
        month: span.months % 12,
        day: span.days,
        hour: 0,
        minute: (span.micros / MINUTE % 60) as i32,
        second: (span.micros / SECOND % 60) as i32,
        micros: (span.micros % SECOND) as i32,
    };
    write_all(
        &Parts {
            hour: span.micros / HOUR,
            day_of_year: span.months.wrapping_mul(30).wrapping_add(span.days),
            weekday: 0,
            east: 0,
            zone: None,
            interval: true,
            civil,
        },
        template,
    )
}

fn write_all(parts: &Parts, template: &str) -> Result<String> {
    let mut out = String::with_capacity(template.len() * 2);
    for node in nodes(template) {
        match node {
            Node::Field(field) => write_field(parts, &field, &mut out)?,
            Node::Separator(c) | Node::Space(c) | Node::Literal(c) => out.push(c),
        }
    }
    Ok(out)
}

fn write_field(p: &Parts, field: &Field, out: &mut String) -> Result<()> {
    use Key::*;
    let c = &p.civil;
    let key = field.keyword.key;
    let calendar_only = matches!(
        key,
        Zone(_)
            | ZoneHour
            | ZoneMinute
            | Offset
            | Era(..)
            | MonthName(_)
            | MonthShort(_)
            | DayName(_)
            | DayShort(_)
            | DayOfWeek
            | IsoDayOfWeek
    );
    if p.interval && calendar_only {
        return Err(SqlError::new(
            state::INVALID_DATETIME_FORMAT,
            "invalid format specification for an interval value",
        )
        .hint("Intervals are not tied to specific calendar dates."));
    }
    let start = out.len();
    let fill = field.fill;
    // Writing to a String cannot fail. Widths count the sign.
    let number = |out: &mut String, value: i64, width: usize| {
        let width = if fill { 0 } else { width };
        let _ = write!(out, "{value:0width$}");
    };
    // One place more where the value has a sign.
    let signed = |out: &mut String, value: i64, width: usize| number(out, value, width + usize::from(value < 0));
    let name = |out: &mut String, text: String, width: usize| {
        let width = if fill || field.locale { 0 } else { width };
        let _ = write!(out, "{text:<width$}");
    };
    // 1 BC is year 0 of the calendar.
    let shown = |year: i32| i64::from(if p.interval || year > 0 { year } else { 1 - year });
    let days = || to_days(c.year, c.month, c.day);
    match key {
        Meridiem(case, points) => {
            let text = match (p.hour % 24 >= 12, points) {
                (true, false) => "PM",
                (true, true) => "P.M.",
                (false, false) => "AM",
                (false, true) => "A.M.",
            };
            out.push_str(&case.of(text));
        }
        Era(case, points) => {
            let text = match (c.year <= 0, points) {
                (true, false) => "BC",
                (true, true) => "B.C.",
                (false, false) => "AD",
                (false, true) => "A.D.",
            };
            out.push_str(&case.of(text));
        }
        Hour12 => {
            let hour = if p.hour % 12 == 0 { 12 } else { p.hour % 12 };
            number(out, hour, 2 + usize::from(p.hour < 0));
        }
        Hour24 => signed(out, p.hour, 2),
        Minute => signed(out, i64::from(c.minute), 2),
        Second => signed(out, i64::from(c.second), 2),
        // FM does not shorten fractions: their leading zeros count.
        Fraction(places) => push_fraction(out, c.micros, places),
        Millisecond => push_fraction(out, c.micros, 3),
        Microsecond => push_fraction(out, c.micros, 6),
        SecondOfDay => {
            let _ = write!(out, "{}", p.hour * 3600 + i64::from(c.minute) * 60 + i64::from(c.second));
        }
        Zone(case) => {
            if let Some(zone) = &p.zone {
                out.push_str(&if case == Case::Lower { zone.to_ascii_lowercase() } else { zone.clone() });
            }
            return Ok(());
        }
        ZoneHour => {
            let _ = write!(out, "{}{:02}", if p.east < 0 { '-' } else { '+' }, p.east.abs() / 3600);
            return Ok(());
        }
        ZoneMinute => {
            let _ = write!(out, "{:02}", p.east.abs() % 3600 / 60);
            return Ok(());
        }
        Offset => {
            out.push(if p.east < 0 { '-' } else { '+' });
            number(out, i64::from(p.east.abs() / 3600), 2);
            if p.east % 3600 != 0 {
                let _ = write!(out, ":{:02}", p.east.abs() % 3600 / 60);
            }
            return Ok(());
        }
        MonthName(case) => {
            name(out, case.of(MONTH_NAMES[(c.month - 1) as usize]), 9);
            return Ok(());
        }
        MonthShort(case) => {
            out.push_str(&case.of(&MONTH_NAMES[(c.month - 1) as usize][..3]));
            return Ok(());
        }
        Month => signed(out, i64::from(c.month), 2),
        DayName(case) => {
            name(out, case.of(DAY_NAMES[p.weekday as usize]), 9);
            return Ok(());
        }
        DayShort(case) => {
            out.push_str(&case.of(&DAY_NAMES[p.weekday as usize][..3]));
            return Ok(());
        }
        DayOfYear => number(out, i64::from(p.day_of_year), 3),
        IsoDayOfYear => {
            let start = iso_year_start(iso_week(days()).0);
            number(out, i64::from(days()) - i64::from(start) + 1, 3);
        }
        Day => number(out, i64::from(c.day), 2),
        DayOfWeek => number(out, i64::from(p.weekday + 1), 1),
        IsoDayOfWeek => number(out, i64::from((p.weekday + 6) % 7 + 1), 1),
        WeekOfYear => number(out, (i64::from(p.day_of_year) - 1) / 7 + 1, 2),
        IsoWeek => number(out, i64::from(iso_week(days()).1), 2),
        Quarter => {
            if c.month == 0 {
                return Ok(());
            }
            number(out, i64::from((c.month - 1) / 3 + 1), 1);
        }
        Century => {
            let century = match c.year {
                y if p.interval => y / 100,
                y if y > 0 => (y - 1) / 100 + 1,
                y => y / 100 - 1,
            };
            signed(out, i64::from(century), 2);
        }
        YearWithComma => {
            let year = shown(c.year);
            let thousands = year / 1000;
            let _ = write!(out, "{thousands},{:03}", year - thousands * 1000);
        }
        Year(digits) | IsoYear(digits) => {
            let year = if matches!(key, Year(_)) { shown(c.year) } else { shown(iso_week(days()).0) };
            let modulus = 10_i64.pow(digits as u32);
            let value = if digits == 4 { year } else { year % modulus };
            // The width follows the whole year's sign, and of the Gregorian one.
            let width = if digits == 1 { 1 } else { digits + usize::from(shown(c.year) < 0) };
            number(out, value, width);
        }
        Roman(case) => {
            if c.month == 0 && c.year == 0 {
                return Ok(());
            }
            let month = match c.month {
                0 if c.year >= 0 => 12,
                0 => 1,
                m if m < 0 => 13 + m,
                m => m,
            };
            let width = if fill { 0 } else { 4 };
            let _ = write!(out, "{:<width$}", case.of(ROMAN[(month - 1) as usize]));
            return Ok(());
        }
        WeekOfMonth => number(out, (i64::from(c.day) - 1) / 7 + 1, 1),
        Julian => {
            let _ = write!(out, "{}", i64::from(days()) + i64::from(JULIAN_2000));
        }
        Fixed => return Ok(()),
    }
    match field.ordinal {
        // Only numbers have one.
        Some(upper) if !matches!(key, Meridiem(..) | Era(..)) => push_ordinal(out, start, upper),
        _ => Ok(()),
    }
}

fn push_fraction(out: &mut String, micros: i32, places: u32) {
    let value = micros / 10_i32.pow(6 - places);
    let _ = write!(out, "{value:0width$}", width = places as usize);
}
