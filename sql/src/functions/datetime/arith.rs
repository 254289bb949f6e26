//! Arithmetic on times.
//!
//! Adding an interval goes in three steps: months (the day of the month is cut to what the month has), then days, then
//! the exact time. On a timestamptz months and days are added to what clocks of the session's zone show, so that
//! `+ 1 day` keeps the hour when daylight saving time begins, and `+ 24:00:00` does not.

use super::super::context::FnCx;
use super::super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use super::{date, float, local, span, stamp};
use crate::error::{Result, SqlError, state};
use crate::types::datetime::calendar::{days_in_month, from_days, to_days};
use crate::types::datetime::{
    Civil, DATE_INFINITY, DATE_NEG_INFINITY, DAY, INFINITY, NEG_INFINITY, date_in_range, date_is_finite,
    date_out_of_range, is_finite, timestamp_in_range, timestamp_out_of_range,
};
use crate::types::interval::interval_out_of_range;
use crate::types::timezone::TimeZone;
use crate::types::{Datum, Interval, Type};

/// timestamp + interval. The infinities stay.
///
/// # Errors
///
/// 22008 outside the range of timestamps.
pub fn add_interval(micros: i64, by: &Interval) -> Result<i64> {
    if !is_finite(micros) {
        return Ok(micros);
    }
    finish(check(add_calendar(micros, by)?)?, by)
}

/// timestamptz + interval, months and days by the zone's clocks. The infinities stay.
///
/// # Errors
///
/// 22008 outside the range of timestamps.
pub fn add_interval_tz(micros: i64, by: &Interval, zone: &TimeZone) -> Result<i64> {
    if !is_finite(micros) {
        return Ok(micros);
    }
    let mut moved = micros;
    // Months and days are separate steps: each lands on a time that exists.
    for step in [Interval { days: 0, ..*by }, Interval { months: 0, ..*by }] {
        if step.months != 0 || step.days != 0 {
            moved = zone.local_to_utc(add_calendar(local(zone, moved), &step)?);
            check(moved)?;
        }
    }
    finish(moved, by)
}

fn check(micros: i64) -> Result<i64> {
    if timestamp_in_range(micros) { Ok(micros) } else { Err(timestamp_out_of_range()) }
}

fn finish(micros: i64, by: &Interval) -> Result<i64> {
    check(micros.checked_add(by.micros).ok_or_else(timestamp_out_of_range)?)
}

/// Months and days only.
fn add_calendar(micros: i64, by: &Interval) -> Result<i64> {
    let mut days = micros.div_euclid(DAY);
    if by.months != 0 {
        let (year, month, day) = from_days(days as i32);
        let months = i64::from(year) * 12 + i64::from(month - 1) + i64::from(by.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as i32 + 1);
        // No range that months of 32 bits can lead to leaves 32 bits of years.
        let year = year as i32;
        days = i64::from(to_days(year, month, day.min(days_in_month(year, month))));
    }
    days += i64::from(by.days);
    let moved = i128::from(days) * i128::from(DAY) + i128::from(micros.rem_euclid(DAY));
    // A zone's offset has still to be taken off, so a day of leeway; the callers check the end of the range.
    i64::try_from(moved)
        .ok()
        .filter(|t| timestamp_in_range(*t) || timestamp_in_range(t.saturating_sub(t.signum() * DAY)))
        .ok_or_else(timestamp_out_of_range)
}

fn negated(by: Interval) -> Result<Interval> {
    by.checked_neg().ok_or_else(interval_out_of_range)
}

/// The midnight of a date as a timestamp.
pub(super) fn date_to_timestamp(days: i32) -> Result<i64> {
    match days {
        DATE_INFINITY => Ok(INFINITY),
        DATE_NEG_INFINITY => Ok(NEG_INFINITY),
        _ => i64::from(days)
            .checked_mul(DAY)
            .filter(|t| timestamp_in_range(*t))
            .ok_or_else(|| SqlError::new(state::DATETIME_FIELD_OVERFLOW, "date out of range for timestamp")),
    }
}

fn add_days(days: i32, count: i64) -> Result<Datum> {
    if !date_is_finite(days) {
        return Ok(Datum::Date(days));
    }
    let sum = i32::try_from(i64::from(days) + count).ok().filter(|d| date_in_range(*d));
    sum.map(Datum::Date).ok_or_else(date_out_of_range)
}

fn interval(value: Option<Interval>) -> Result<Datum> {
    value.map(Datum::Interval).ok_or_else(interval_out_of_range)
}

fn date_plus_interval(days: i32, by: &Interval) -> Result<Datum> {
    Ok(Datum::Timestamp(add_interval(date_to_timestamp(days)?, by)?))
}

fn date_plus_time(days: i32, micros: i64) -> Result<Datum> {
    let midnight = date_to_timestamp(days)?;
    if !is_finite(midnight) {
        return Ok(Datum::Timestamp(midnight));
    }
    Ok(Datum::Timestamp(check(midnight + micros)?))
}

fn time_plus(micros: i64, by: i64) -> Datum {
    Datum::Time((micros + by % DAY).rem_euclid(DAY))
}

/// Difference of two timestamps in days and time.
fn difference(a: i64, b: i64) -> Result<Datum> {
    if !is_finite(a) || !is_finite(b) {
        return Err(SqlError::new(state::DATETIME_FIELD_OVERFLOW, "cannot subtract infinite timestamps"));
    }
    let micros = a.checked_sub(b).ok_or_else(interval_out_of_range)?;
    interval(Interval { months: 0, days: 0, micros }.justify_hours())
}

fn plus(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    match a {
        [Datum::Timestamp(t), Datum::Interval(s)] | [Datum::Interval(s), Datum::Timestamp(t)] => {
            Ok(Datum::Timestamp(add_interval(*t, s)?))
        }
        [Datum::TimestampTz(t), Datum::Interval(s)] | [Datum::Interval(s), Datum::TimestampTz(t)] => {
            Ok(Datum::TimestampTz(add_interval_tz(*t, s, &cx.session.time_zone)?))
        }
        [Datum::Date(d), Datum::Interval(s)] | [Datum::Interval(s), Datum::Date(d)] => date_plus_interval(*d, s),
        [Datum::Date(d), Datum::Time(t)] | [Datum::Time(t), Datum::Date(d)] => date_plus_time(*d, *t),
        [Datum::Date(d), Datum::Int4(n)] | [Datum::Int4(n), Datum::Date(d)] => add_days(*d, i64::from(*n)),
        [Datum::Time(t), Datum::Interval(s)] | [Datum::Interval(s), Datum::Time(t)] => Ok(time_plus(*t, s.micros)),
        [Datum::Interval(a), Datum::Interval(b)] => interval(a.checked_add(*b)),
        _ => Err(super::mismatch()),
    }
}

fn minus(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    match a {
        [Datum::Timestamp(t), Datum::Interval(s)] => Ok(Datum::Timestamp(add_interval(*t, &negated(*s)?)?)),
        [Datum::TimestampTz(t), Datum::Interval(s)] => {
            Ok(Datum::TimestampTz(add_interval_tz(*t, &negated(*s)?, &cx.session.time_zone)?))
        }
        [Datum::Timestamp(a), Datum::Timestamp(b)] | [Datum::TimestampTz(a), Datum::TimestampTz(b)] => {
            difference(*a, *b)
        }
        [Datum::Date(d), Datum::Interval(s)] => date_plus_interval(*d, &negated(*s)?),
        [Datum::Date(d), Datum::Int4(n)] => add_days(*d, -i64::from(*n)),
        [Datum::Date(a), Datum::Date(b)] => {
            if !date_is_finite(*a) || !date_is_finite(*b) {
                return Err(SqlError::new(state::DATETIME_FIELD_OVERFLOW, "cannot subtract infinite dates"));
            }
            Ok(Datum::Int4(a.wrapping_sub(*b)))
        }
        [Datum::Time(t), Datum::Interval(s)] => Ok(time_plus(*t, -(s.micros % DAY))),
        [Datum::Time(a), Datum::Time(b)] => Ok(Datum::Interval(Interval { months: 0, days: 0, micros: a - b })),
        [Datum::Interval(a), Datum::Interval(b)] => interval(a.checked_sub(*b)),
        _ => Err(super::mismatch()),
    }
}

fn times(a: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    match a {
        [Datum::Interval(s), Datum::Float8(f)] | [Datum::Float8(f), Datum::Interval(s)] => interval(s.checked_mul(*f)),
        _ => Err(super::mismatch()),
    }
}

fn divided(a: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    let by = float(a, 1)?;
    if by == 0.0 {
        return Err(SqlError::new(state::DIVISION_BY_ZERO, "division by zero"));
    }
    interval(span(a, 0)?.checked_div(by))
}

/// The symbolic difference of two local times: years, months, days and time, all of one sign.
fn age(later: i64, earlier: i64) -> Result<Datum> {
    if !is_finite(later) || !is_finite(earlier) {
        return Err(timestamp_out_of_range());
    }
    let negative = later < earlier;
    let (a, b) = (Civil::from_micros(later), Civil::from_micros(earlier));
    let (late, early) = if negative { (b, a) } else { (a, b) };
    let mut micros = late.time() - early.time();
    let mut days = late.day - early.day;
    let mut months = (late.year - early.year) * 12 + late.month - early.month;
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    while days < 0 {
        // The month borrowed from is that of the second argument, or of the first if that is the earlier one.
        days += if negative { days_in_month(a.year, a.month) } else { days_in_month(b.year, b.month) };
        months -= 1;
    }
    let age = Interval { months, days, micros };
    interval(if negative { age.checked_neg() } else { Some(age) })
}

fn age_now(cx: &FnCx<'_>) -> i64 {
    local(&cx.session.time_zone, cx.session.transaction_micros).div_euclid(DAY) * DAY
}

pub(super) fn register(r: &mut Registry) {
    use Type as T;
    type Row = (&'static str, &'static str, &'static [Type; 2], Type);
    const OPERATORS: &[Row] = &[
        ("+", "date_pli", &[T::DATE, T::INT4], T::DATE),
        ("+", "integer_pl_date", &[T::INT4, T::DATE], T::DATE),
        ("+", "date_pl_interval", &[T::DATE, T::INTERVAL], T::TIMESTAMP),
        ("+", "interval_pl_date", &[T::INTERVAL, T::DATE], T::TIMESTAMP),
        ("+", "datetime_pl", &[T::DATE, T::TIME], T::TIMESTAMP),
        ("+", "timedate_pl", &[T::TIME, T::DATE], T::TIMESTAMP),
        ("+", "time_pl_interval", &[T::TIME, T::INTERVAL], T::TIME),
        ("+", "interval_pl_time", &[T::INTERVAL, T::TIME], T::TIME),
        ("+", "timestamp_pl_interval", &[T::TIMESTAMP, T::INTERVAL], T::TIMESTAMP),
        ("+", "interval_pl_timestamp", &[T::INTERVAL, T::TIMESTAMP], T::TIMESTAMP),
        ("+", "timestamptz_pl_interval", &[T::TIMESTAMPTZ, T::INTERVAL], T::TIMESTAMPTZ),
        ("+", "interval_pl_timestamptz", &[T::INTERVAL, T::TIMESTAMPTZ], T::TIMESTAMPTZ),
        ("+", "interval_pl", &[T::INTERVAL, T::INTERVAL], T::INTERVAL),
        ("-", "date_mii", &[T::DATE, T::INT4], T::DATE),
        ("-", "date_mi", &[T::DATE, T::DATE], T::INT4),
        ("-", "date_mi_interval", &[T::DATE, T::INTERVAL], T::TIMESTAMP),
        ("-", "time_mi_time", &[T::TIME, T::TIME], T::INTERVAL),
        ("-", "time_mi_interval", &[T::TIME, T::INTERVAL], T::TIME),
        ("-", "timestamp_mi", &[T::TIMESTAMP, T::TIMESTAMP], T::INTERVAL),
        ("-", "timestamp_mi_interval", &[T::TIMESTAMP, T::INTERVAL], T::TIMESTAMP),
        ("-", "timestamptz_mi", &[T::TIMESTAMPTZ, T::TIMESTAMPTZ], T::INTERVAL),
        ("-", "timestamptz_mi_interval", &[T::TIMESTAMPTZ, T::INTERVAL], T::TIMESTAMPTZ),
        ("-", "interval_mi", &[T::INTERVAL, T::INTERVAL], T::INTERVAL),
        ("*", "interval_mul", &[T::INTERVAL, T::FLOAT8], T::INTERVAL),
        ("*", "mul_d_interval", &[T::FLOAT8, T::INTERVAL], T::INTERVAL),
        ("/", "interval_div", &[T::INTERVAL, T::FLOAT8], T::INTERVAL),
    ];
    for &(op, name, args, ret) in OPERATORS {
        let imp: ScalarImpl = match op {
            "+" => plus,
            "-" => minus,
            "*" => times,
            _ => divided,
        };
        // Days and months of a timestamptz are those of the session's zone.
        let zoned = args.contains(&T::TIMESTAMPTZ) && args.contains(&T::INTERVAL);
        let volatility = if zoned { Volatility::Stable } else { Volatility::Immutable };
        let f = r.scalar(ScalarFn { name, args, variadic: None, optional: 0, ret, strict: true, volatility, imp });
        r.operator(op, args[0], args[1], f);
    }
    let um = r.pure("interval_um", &[T::INTERVAL], T::INTERVAL, |a, _| interval(span(a, 0)?.checked_neg()));
    r.operator("-", T::NONE, T::INTERVAL, um);

    r.pure("age", &[T::TIMESTAMP, T::TIMESTAMP], T::INTERVAL, |a, _| age(stamp(a, 0)?, stamp(a, 1)?));
    r.pure("age", &[T::TIMESTAMPTZ, T::TIMESTAMPTZ], T::INTERVAL, |a, cx| {
        let zone = &cx.session.time_zone;
        age(local_or_infinite(zone, stamp(a, 0)?), local_or_infinite(zone, stamp(a, 1)?))
    });
    r.stable("age", &[T::TIMESTAMP], T::INTERVAL, |a, cx| age(age_now(cx), stamp(a, 0)?));
    r.stable("age", &[T::TIMESTAMPTZ], T::INTERVAL, |a, cx| {
        age(age_now(cx), local_or_infinite(&cx.session.time_zone, stamp(a, 0)?))
    });
    r.pure("justify_hours", &[T::INTERVAL], T::INTERVAL, |a, _| interval(span(a, 0)?.justify_hours()));
    r.pure("justify_days", &[T::INTERVAL], T::INTERVAL, |a, _| interval(span(a, 0)?.justify_days()));
    r.pure("justify_interval", &[T::INTERVAL], T::INTERVAL, |a, _| interval(span(a, 0)?.justify_interval()));
    r.pure("isfinite", &[T::DATE], T::BOOL, |a, _| Ok(Datum::Bool(date_is_finite(date(a, 0)?))));
    r.pure("isfinite", &[T::TIMESTAMP], T::BOOL, |a, _| Ok(Datum::Bool(is_finite(stamp(a, 0)?))));
    r.pure("isfinite", &[T::TIMESTAMPTZ], T::BOOL, |a, _| Ok(Datum::Bool(is_finite(stamp(a, 0)?))));
    r.pure("isfinite", &[T::INTERVAL], T::BOOL, |a, _| span(a, 0).map(|_| Datum::Bool(true)));
}

fn local_or_infinite(zone: &TimeZone, micros: i64) -> i64 {
    if is_finite(micros) { local(zone, micros) } else { micros }
}
