//! Functions, operators and casts of date, time, timestamp, timestamptz and interval.
//!
//! Names are those of pg_proc. Volatility follows PostgreSQL: what depends on the session's time zone is stable, the
//! rest immutable. The sub-modules each register their own part:
//!
//! * [`compare`]: comparisons, across types too, and `overlaps`;
//! * [`arith`]: `+ - * /`, `age`, `justify_*`;
//! * [`extract`]: `extract` (numeric) and `date_part` (float8);
//! * [`trunc`]: `date_trunc`, `date_bin`;
//! * [`make`]: `make_*`, `to_timestamp(float8)`, the clocks;
//! * [`convert`]: casts, `AT TIME ZONE`.
//!
//! Where PostgreSQL 15 lets a number wrap round without a word (`age` of an infinite time, the difference of times
//! 290000 years apart, `make_interval` of huge parts), we answer 22008. There is no timetz, so `current_time` is 0A000.
//!
//! `extract(field FROM x)` is the function `extract(text, x)`, `x AT TIME ZONE z` is `timezone(z, x)`, and keywords such
//! as CURRENT_DATE are functions of that name.

mod arith;
mod compare;
mod convert;
mod extract;
mod make;
#[cfg(test)]
mod tests;
mod trunc;

use super::registry::Registry;
use crate::error::{Result, SqlError};
use crate::types::timezone::TimeZone;
use crate::types::{Datum, Interval};

pub use arith::{add_interval, add_interval_tz};

/// Days of the week in English, Sunday first. Three letters of each are its short name.
pub(super) const DAY_NAMES: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Months in English. Three letters of each are its short name.
pub(super) const MONTH_NAMES: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Adds everything of this module.
pub fn register(r: &mut Registry) {
    compare::register(r);
    arith::register(r);
    extract::register(r);
    trunc::register(r);
    make::register(r);
    convert::register(r);
}

/// Names of the parameters of a function that can be called with named arguments (`make_interval(days => 3)`), in order.
/// The shorter overload of `make_timestamptz` has the first six.
pub fn parameter_names(function: &str) -> Option<&'static [&'static str]> {
    Some(match function {
        "make_date" => &["year", "month", "day"],
        "make_time" => &["hour", "min", "sec"],
        "make_timestamp" => &["year", "month", "mday", "hour", "min", "sec"],
        "make_timestamptz" => &["year", "month", "mday", "hour", "min", "sec", "timezone"],
        "make_interval" => &["years", "months", "weeks", "days", "hours", "mins", "secs"],
        _ => return None,
    })
}

fn mismatch() -> SqlError {
    SqlError::internal("a date/time function was called with another type")
}

/// A date argument: days since 2000-01-01.
fn date(args: &[Datum], i: usize) -> Result<i32> {
    match args.get(i) {
        Some(Datum::Date(d)) => Ok(*d),
        _ => Err(mismatch()),
    }
}

/// A time argument: microseconds since midnight.
fn time(args: &[Datum], i: usize) -> Result<i64> {
    match args.get(i) {
        Some(Datum::Time(t)) => Ok(*t),
        _ => Err(mismatch()),
    }
}

/// A timestamp or timestamptz argument: microseconds since 2000-01-01.
pub(super) fn stamp(args: &[Datum], i: usize) -> Result<i64> {
    match args.get(i) {
        Some(Datum::Timestamp(t) | Datum::TimestampTz(t)) => Ok(*t),
        _ => Err(mismatch()),
    }
}

/// An interval argument.
pub(super) fn span(args: &[Datum], i: usize) -> Result<Interval> {
    match args.get(i) {
        Some(Datum::Interval(s)) => Ok(*s),
        _ => Err(mismatch()),
    }
}

/// A text argument.
pub(super) fn text(args: &[Datum], i: usize) -> Result<&str> {
    match args.get(i) {
        Some(Datum::Text(s)) => Ok(s),
        _ => Err(mismatch()),
    }
}

/// An int4 argument.
fn int(args: &[Datum], i: usize) -> Result<i32> {
    match args.get(i) {
        Some(Datum::Int4(v)) => Ok(*v),
        _ => Err(mismatch()),
    }
}

/// A float8 argument.
fn float(args: &[Datum], i: usize) -> Result<f64> {
    match args.get(i) {
        Some(Datum::Float8(v)) => Ok(*v),
        _ => Err(mismatch()),
    }
}

/// 22023: there is no such zone.
fn unknown_zone(name: &str) -> SqlError {
    SqlError::new(crate::error::state::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
}

/// What a zone's clocks show at a finite moment.
fn local(zone: &TimeZone, micros: i64) -> i64 {
    zone.utc_to_local(micros)
}
