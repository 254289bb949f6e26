//! `date_trunc` and `date_bin`.

use super::super::context::FnCx;
use super::super::registry::Registry;
use super::convert::zone_of_text;
use super::extract::{Field, not_recognized, not_supported};
use super::{local, span, stamp, text};
use crate::error::{Result, SqlError, state};
use crate::types::datetime::calendar::{iso_week, iso_year_start, to_days};
use crate::types::datetime::{Civil, DAY, HOUR, MINUTE, SECOND, is_finite, timestamp_in_range, timestamp_out_of_range};
use crate::types::interval::interval_out_of_range;
use crate::types::timezone::TimeZone;
use crate::types::{Datum, Interval, Type};

/// Cuts a local time down. The second value: whether it became the start of a day or more, so that the zone's offset may be another.
fn truncate(name: &str, ty: Type, micros: i64) -> Result<(i64, bool)> {
    let field = Field::parse_unit(name).ok_or_else(|| not_recognized(name, ty))?;
    let c = Civil::from_micros(micros);
    let midnight = |year: i32, month: i32, day: i32| i64::from(to_days(year, month, day)) * DAY;
    let first_year = |length: i32| match c.year {
        y if y > 0 => (y + length - 1) / length * length - length + 1,
        y => -((length - y) / length) * length + 1,
    };
    let start = match field {
        Field::Microseconds => return Ok((micros, false)),
        Field::Milliseconds => return Ok((micros - micros.rem_euclid(1000), false)),
        Field::Second => return Ok((micros - micros.rem_euclid(SECOND), false)),
        Field::Minute => return Ok((micros - micros.rem_euclid(MINUTE), false)),
        Field::Hour => return Ok((micros - micros.rem_euclid(HOUR), false)),
        Field::Day => micros - micros.rem_euclid(DAY),
        Field::Week => {
            let (year, week) = iso_week(c.days());
            (i64::from(iso_year_start(year)) + i64::from(week - 1) * 7) * DAY
        }
        Field::Month => midnight(c.year, c.month, 1),
        Field::Quarter => midnight(c.year, (c.month - 1) / 3 * 3 + 1, 1),
        Field::Year => midnight(c.year, 1, 1),
        Field::Decade => midnight(c.year.div_euclid(10) * 10, 1, 1),
        Field::Century => midnight(first_year(100), 1, 1),
        Field::Millennium => midnight(first_year(1000), 1, 1),
        _ => return Err(not_supported(name, ty)),
    };
    Ok((start, true))
}

fn in_range(micros: i64) -> Result<i64> {
    if timestamp_in_range(micros) { Ok(micros) } else { Err(timestamp_out_of_range()) }
}

fn timestamptz(name: &str, micros: i64, zone: &TimeZone) -> Result<Datum> {
    if !is_finite(micros) {
        return Ok(Datum::TimestampTz(micros));
    }
    let clocks = local(zone, micros);
    let (start, new_day) = truncate(name, Type::TIMESTAMPTZ, clocks)?;
    let utc = if new_day { zone.local_to_utc(start) } else { start - (clocks - micros) };
    in_range(utc).map(Datum::TimestampTz)
}

fn interval(name: &str, s: Interval) -> Result<Datum> {
    let field = Field::parse_unit(name).ok_or_else(|| not_recognized(name, Type::INTERVAL))?;
    let years = |n: i32| Interval { months: s.months / (12 * n) * (12 * n), days: 0, micros: 0 };
    let time = |unit: i64| Interval { micros: s.micros / unit * unit, ..s };
    Ok(Datum::Interval(match field {
        Field::Microseconds => s,
        Field::Milliseconds => time(1000),
        Field::Second => time(SECOND),
        Field::Minute => time(MINUTE),
        Field::Hour => time(HOUR),
        Field::Day => Interval { micros: 0, ..s },
        Field::Month => Interval { days: 0, micros: 0, ..s },
        Field::Quarter => Interval { months: s.months / 12 * 12 + s.months % 12 / 3 * 3, days: 0, micros: 0 },
        Field::Year => years(1),
        Field::Decade => years(10),
        Field::Century => years(100),
        Field::Millennium => years(1000),
        Field::Week => {
            return Err(not_supported(name, Type::INTERVAL).detail("Months usually have fractional weeks."));
        }
        _ => return Err(not_supported(name, Type::INTERVAL)),
    }))
}

/// The start of the bin a time falls in, bins being `stride` long and one of them starting at `origin`.
fn bin(stride: Interval, micros: i64, origin: i64) -> Result<i64> {
    let overflow = |message: &str| SqlError::new(state::DATETIME_FIELD_OVERFLOW, message);
    if !is_finite(micros) {
        return Ok(micros);
    }
    if !is_finite(origin) {
        return Err(overflow("origin out of range"));
    }
    if stride.months != 0 {
        return Err(SqlError::new(
            state::FEATURE_NOT_SUPPORTED,
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let length = i64::from(stride.days).checked_mul(DAY).and_then(|d| d.checked_add(stride.micros));
    let length = length.ok_or_else(interval_out_of_range)?;
    if length <= 0 {
        return Err(overflow("stride must be greater than zero"));
    }
    let distance = micros.checked_sub(origin).ok_or_else(interval_out_of_range)?;
    in_range(micros.checked_sub(distance.rem_euclid(length)).ok_or_else(timestamp_out_of_range)?)
}

fn date_bin(a: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    let start = bin(span(a, 0)?, stamp(a, 1)?, stamp(a, 2)?)?;
    Ok(if matches!(a[1], Datum::Timestamp(_)) { Datum::Timestamp(start) } else { Datum::TimestampTz(start) })
}

pub(super) fn register(r: &mut Registry) {
    use Type as T;
    r.pure("date_trunc", &[T::TEXT, T::TIMESTAMP], T::TIMESTAMP, |a, _| {
        let micros = stamp(a, 1)?;
        if !is_finite(micros) {
            return Ok(Datum::Timestamp(micros));
        }
        in_range(truncate(text(a, 0)?, Type::TIMESTAMP, micros)?.0).map(Datum::Timestamp)
    });
    r.stable("date_trunc", &[T::TEXT, T::TIMESTAMPTZ], T::TIMESTAMPTZ, |a, cx| {
        timestamptz(text(a, 0)?, stamp(a, 1)?, &cx.session.time_zone)
    });
    r.stable("date_trunc", &[T::TEXT, T::TIMESTAMPTZ, T::TEXT], T::TIMESTAMPTZ, |a, _| {
        timestamptz(text(a, 0)?, stamp(a, 1)?, &zone_of_text(text(a, 2)?)?)
    });
    r.pure("date_trunc", &[T::TEXT, T::INTERVAL], T::INTERVAL, |a, _| interval(text(a, 0)?, span(a, 1)?));
    r.pure("date_bin", &[T::INTERVAL, T::TIMESTAMP, T::TIMESTAMP], T::TIMESTAMP, date_bin);
    r.pure("date_bin", &[T::INTERVAL, T::TIMESTAMPTZ, T::TIMESTAMPTZ], T::TIMESTAMPTZ, date_bin);
}
