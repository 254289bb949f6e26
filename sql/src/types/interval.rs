//! Intervals: months, days and microseconds, kept apart as PostgreSQL keeps them.
//!
//! A month is not a number of days, nor a day 24 hours, until two intervals must be compared: then they are 30 days
//! and 24 hours ([`Interval::span`]). `1 mon` and `30 days` are therefore equal, hash equal, and print differently.
//! The three parts may differ in sign. Text input is read in [`parse`].

pub mod parse;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::datetime::{DAY, HOUR, MINUTE, SECOND, push_fraction};
use crate::error::{Result, SqlError, state};

pub use parse::interval_in;

/// A span of time. The three parts have signs of their own; equality and order use months of 30 days and days of 24 hours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Whole months; years are 12 of them.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// The rest, in microseconds.
    pub micros: i64,
}

/// Days of a month where one has to be assumed.
const MONTH_DAYS: i32 = 30;
const DAY_SECONDS: f64 = 86_400.0;

/// Fields of `INTERVAL YEAR TO MONTH` and the like: bits of the upper half of a type modifier.
pub(crate) mod range {
    pub const MONTH: i32 = 1 << 1;
    pub const YEAR: i32 = 1 << 2;
    pub const DAY: i32 = 1 << 3;
    pub const HOUR: i32 = 1 << 10;
    pub const MINUTE: i32 = 1 << 11;
    pub const SECOND: i32 = 1 << 12;
    pub const FULL: i32 = 0x7fff;

    /// The fields of a modifier; all of them if it names none.
    pub fn of(typmod: i32) -> i32 {
        match typmod >> 16 & FULL {
            _ if typmod < 0 => FULL,
            0 => FULL,
            some => some,
        }
    }
}

/// Decimal places in a type modifier that names none.
const FULL_PRECISION: i32 = 0xffff;

/// 22008: interval out of range.
pub fn interval_out_of_range() -> SqlError {
    SqlError::new(state::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

impl Interval {
    /// No time at all.
    pub const ZERO: Interval = Interval { months: 0, days: 0, micros: 0 };

    /// Microseconds, a month being 30 days and a day 24 hours: what order and equality go by.
    pub fn span(&self) -> i128 {
        let days = i128::from(self.months) * i128::from(MONTH_DAYS) + i128::from(self.days);
        days * i128::from(DAY) + i128::from(self.micros)
    }

    /// Whether the parts are the same, which `1 mon` and `30 days` are not.
    pub fn identical(&self, other: &Interval) -> bool {
        (self.months, self.days, self.micros) == (other.months, other.days, other.micros)
    }

    /// Part by part.
    pub fn checked_add(self, other: Interval) -> Option<Interval> {
        Some(Interval {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    /// Part by part.
    pub fn checked_sub(self, other: Interval) -> Option<Interval> {
        Some(Interval {
            months: self.months.checked_sub(other.months)?,
            days: self.days.checked_sub(other.days)?,
            micros: self.micros.checked_sub(other.micros)?,
        })
    }

    /// Part by part.
    pub fn checked_neg(self) -> Option<Interval> {
        Interval::ZERO.checked_sub(self)
    }

    /// Multiplied; fractions of months become days and fractions of days time, but never the other way.
    pub fn checked_mul(self, factor: f64) -> Option<Interval> {
        self.scaled(|part| part * factor)
    }

    /// Divided by a number that is not 0; see [`Interval::checked_mul`].
    pub fn checked_div(self, divisor: f64) -> Option<Interval> {
        self.scaled(|part| part / divisor)
    }

    fn scaled(self, scale: impl Fn(f64) -> f64) -> Option<Interval> {
        let (month, day) = (scale(f64::from(self.months)), scale(f64::from(self.days)));
        let (months, mut days) = (int(month)?, int(day)?);
        let month_rest = round_micros((month - f64::from(months)) * f64::from(MONTH_DAYS));
        let mut seconds = round_micros((day - f64::from(days) + month_rest - month_rest.trunc()) * DAY_SECONDS);
        if seconds.abs() >= DAY_SECONDS {
            let whole = (seconds / DAY_SECONDS).trunc();
            days = days.checked_add(int(whole)?)?;
            seconds -= whole * DAY_SECONDS;
        }
        days = days.checked_add(int(month_rest)?)?;
        let micros = (scale(self.micros as f64) + seconds * SECOND as f64).round_ties_even();
        // 2^63 is the first float that does not fit.
        if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&micros) {
            return None;
        }
        Some(Interval { months, days, micros: micros as i64 })
    }

    /// 24 hours become a day, and time gets the sign of the days.
    pub fn justify_hours(mut self) -> Option<Interval> {
        self.days = self.days.checked_add((self.micros / DAY) as i32)?;
        self.micros %= DAY;
        self.time_takes_sign_of_days();
        Some(self)
    }

    /// 30 days become a month, and days get the sign of the months.
    pub fn justify_days(mut self) -> Option<Interval> {
        self.carry_days()?;
        if self.months > 0 && self.days < 0 {
            self.days += MONTH_DAYS;
            self.months -= 1;
        } else if self.months < 0 && self.days > 0 {
            self.days -= MONTH_DAYS;
            self.months += 1;
        }
        Some(self)
    }

    /// Both, and all parts get one sign.
    pub fn justify_interval(mut self) -> Option<Interval> {
        if self.days > 0 && self.micros > 0 || self.days < 0 && self.micros < 0 {
            // Done first so that the days of the time cannot overflow the days.
            self.carry_days()?;
        }
        self.days = self.days.checked_add((self.micros / DAY) as i32)?;
        self.micros %= DAY;
        self.carry_days()?;
        let rest = (self.days, self.micros);
        if self.months > 0 && rest < (0, 0) {
            self.days += MONTH_DAYS;
            self.months -= 1;
        } else if self.months < 0 && rest > (0, 0) {
            self.days -= MONTH_DAYS;
            self.months += 1;
        }
        self.time_takes_sign_of_days();
        Some(self)
    }

    fn carry_days(&mut self) -> Option<()> {
        self.months = self.months.checked_add(self.days / MONTH_DAYS)?;
        self.days %= MONTH_DAYS;
        Some(())
    }

    fn time_takes_sign_of_days(&mut self) {
        if self.days > 0 && self.micros < 0 {
            self.micros += DAY;
            self.days -= 1;
        } else if self.days < 0 && self.micros > 0 {
            self.micros -= DAY;
            self.days += 1;
        }
    }

    /// Reduced to the fields and decimal places a type modifier names: `interval day to minute`, `interval(3)`.
    /// The modifier is PostgreSQL's: fields in the upper half, places in the lower; -1 names nothing.
    pub fn with_typmod(mut self, typmod: i32) -> Result<Interval> {
        if typmod < 0 {
            return Ok(self);
        }
        let time_unit = match range::of(typmod) {
            range::YEAR => {
                self = Interval { months: self.months / 12 * 12, days: 0, micros: 0 };
                0
            }
            r if r & !(range::YEAR | range::MONTH) == 0 => {
                self = Interval { days: 0, micros: 0, ..self };
                0
            }
            range::DAY => {
                self.micros = 0;
                0
            }
            r if r & range::SECOND != 0 => 0,
            r if r & range::MINUTE != 0 => MINUTE,
            r if r & range::HOUR != 0 => HOUR,
            _ => 0,
        };
        if time_unit != 0 {
            self.micros -= self.micros % time_unit;
        }
        let precision = typmod & FULL_PRECISION;
        if precision != FULL_PRECISION {
            if precision > 6 {
                return Err(SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("interval({precision}) precision must be between 0 and 6"),
                ));
            }
            self.micros = super::datetime::round_micros(self.micros, precision);
        }
        Ok(self)
    }
}

/// Truncated, if it fits.
fn int(value: f64) -> Option<i32> {
    (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value).then_some(value as i32)
}

/// Noise of floating point below a microsecond taken off: PostgreSQL's TSROUND.
fn round_micros(seconds: f64) -> f64 {
    (seconds * 1_000_000.0).round_ties_even() / 1_000_000.0
}

impl PartialEq for Interval {
    fn eq(&self, other: &Interval) -> bool {
        self.span() == other.span()
    }
}
impl Eq for Interval {}
impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Interval) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Interval {
    fn cmp(&self, other: &Interval) -> Ordering {
        self.span().cmp(&other.span())
    }
}
impl Hash for Interval {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.span().hash(state);
    }
}

/// `1 year 2 mons -3 days +04:05:06.5`: IntervalStyle postgres.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        let mut negative = false;
        for (value, unit) in [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")] {
            if value != 0 {
                let space = if out.is_empty() { "" } else { " " };
                let plus = if negative && value > 0 { "+" } else { "" };
                let plural = if value == 1 { "" } else { "s" };
                out.push_str(&format!("{space}{plus}{value} {unit}{plural}"));
                negative = value < 0;
            }
        }
        if self.micros != 0 || out.is_empty() {
            if !out.is_empty() {
                out.push(' ');
            }
            if self.micros < 0 {
                out.push('-');
            } else if negative {
                out.push('+');
            }
            let micros = self.micros.unsigned_abs();
            let second = SECOND.unsigned_abs();
            let (seconds, fraction) = (micros / second, micros % second);
            out.push_str(&format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
            push_fraction(&mut out, fraction as u32);
        }
        f.write_str(&out)
    }
}
