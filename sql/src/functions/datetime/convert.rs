//! Casts between the types of time, and `AT TIME ZONE`.

use super::super::context::FnCx;
use super::super::registry::{CastContext, CastMethod, Registry, ScalarFn, ScalarImpl, Volatility};
use super::arith::date_to_timestamp;
use super::{date, int, local, span, stamp, text, time, unknown_zone};
use crate::error::{Result, SqlError, state};
use crate::types::datetime::{
    DATE_INFINITY, DATE_NEG_INFINITY, DAY, INFINITY, NEG_INFINITY, SECOND, is_finite, round_micros, round_timestamp,
    timestamp_in_range, timestamp_out_of_range,
};
use crate::types::timezone::{Abbreviation, TimeZone, abbreviation};
use crate::types::{Datum, Interval, Type};

/// The zone a text names: an abbreviation first, then what [`TimeZone::get`] knows.
pub(super) fn zone_of_text(name: &str) -> Result<TimeZone> {
    let zone = match abbreviation(&name.to_ascii_lowercase()) {
        Some(Abbreviation::Fixed(east, _)) => TimeZone::fixed(east),
        Some(Abbreviation::Zone(zone)) => TimeZone::get(zone),
        None => TimeZone::get(name),
    };
    zone.ok_or_else(|| unknown_zone(name))
}

fn checked(micros: i64) -> Result<i64> {
    if timestamp_in_range(micros) { Ok(micros) } else { Err(timestamp_out_of_range()) }
}

/// What clocks show where `zone` says at a moment, or with `to_utc` the moment at which they show this.
fn shift(micros: i64, zone: &str, to_utc: bool) -> Result<i64> {
    if !is_finite(micros) {
        return Ok(micros);
    }
    let by = |east: i32| {
        let east = i64::from(east) * SECOND;
        checked(if to_utc { micros.saturating_sub(east) } else { micros.saturating_add(east) })
    };
    match abbreviation(&zone.to_ascii_lowercase()) {
        Some(Abbreviation::Fixed(east, _)) => by(east),
        Some(Abbreviation::Zone(name)) => {
            let dynamic = TimeZone::get(name).ok_or_else(|| unknown_zone(zone))?;
            let moment = if to_utc { dynamic.local_to_utc(micros) } else { micros };
            by(dynamic.offset_of_abbreviation(zone, moment).unwrap_or_else(|| dynamic.offset_at(moment)))
        }
        None => {
            let named = TimeZone::get(zone).ok_or_else(|| unknown_zone(zone))?;
            checked(if to_utc { named.local_to_utc(micros) } else { named.utc_to_local(micros) })
        }
    }
}

/// [`shift`] by an interval instead of a zone.
fn shift_by(micros: i64, zone: &Interval, sign: i64) -> Result<i64> {
    if !is_finite(micros) {
        return Ok(micros);
    }
    if zone.months != 0 || zone.days != 0 {
        return Err(SqlError::new(
            state::INVALID_PARAMETER_VALUE,
            format!("interval time zone \"{zone}\" must not include months or days"),
        ));
    }
    checked(micros.saturating_add(sign * (zone.micros / SECOND * SECOND)))
}

fn to_date(micros: i64) -> Datum {
    Datum::Date(match micros {
        INFINITY => DATE_INFINITY,
        NEG_INFINITY => DATE_NEG_INFINITY,
        _ => micros.div_euclid(DAY) as i32,
    })
}

fn to_time(micros: i64) -> Datum {
    if is_finite(micros) { Datum::Time(micros.rem_euclid(DAY)) } else { Datum::Null }
}

fn to_local(micros: i64, cx: &FnCx<'_>) -> i64 {
    if is_finite(micros) { local(&cx.session.time_zone, micros) } else { micros }
}

fn to_utc(micros: i64, cx: &FnCx<'_>) -> Result<i64> {
    if is_finite(micros) { checked(cx.session.time_zone.local_to_utc(micros)) } else { Ok(micros) }
}

fn date_to_timestamptz(days: i32, cx: &FnCx<'_>) -> Result<i64> {
    to_utc(date_to_timestamp(days)?, cx)
        .map_err(|_| SqlError::new(state::DATETIME_FIELD_OVERFLOW, "date out of range for timestamp"))
}

/// A date and a time of day, as a local timestamp.
fn joined(a: &[Datum]) -> Result<i64> {
    let midnight = date_to_timestamp(date(a, 0)?)?;
    if is_finite(midnight) { checked(midnight + time(a, 1)?) } else { Ok(midnight) }
}

/// Rounds a value to a precision: the modifier is the second argument, or else the cast's.
fn round(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let typmod = if a.len() > 1 { int(a, 1)? } else { cx.typmod };
    Ok(match a[0] {
        Datum::Time(t) => Datum::Time(round_micros(t, typmod)),
        Datum::Timestamp(t) => Datum::Timestamp(round_timestamp(t, typmod)),
        Datum::TimestampTz(t) => Datum::TimestampTz(round_timestamp(t, typmod)),
        Datum::Interval(s) => Datum::Interval(s.with_typmod(typmod)?),
        _ => return Err(super::mismatch()),
    })
}

pub(super) fn register(r: &mut Registry) {
    use CastContext::{Assignment, Implicit};
    use Type as T;

    let mut cast = |name, args: &'static [Type; 1], to, context, volatility, imp: ScalarImpl| {
        let f = ScalarFn { name, args, variadic: None, optional: 0, ret: to, strict: true, volatility, imp };
        let f = r.scalar(f);
        r.cast(args[0], to, context, CastMethod::Function(f));
    };
    let (immutable, stable) = (Volatility::Immutable, Volatility::Stable);
    cast("timestamp", &[T::DATE], T::TIMESTAMP, Implicit, immutable, |a, _| {
        Ok(Datum::Timestamp(date_to_timestamp(date(a, 0)?)?))
    });
    cast("timestamptz", &[T::DATE], T::TIMESTAMPTZ, Implicit, stable, |a, cx| {
        Ok(Datum::TimestampTz(date_to_timestamptz(date(a, 0)?, cx)?))
    });
    cast("date", &[T::TIMESTAMP], T::DATE, Assignment, immutable, |a, _| Ok(to_date(stamp(a, 0)?)));
    cast("date", &[T::TIMESTAMPTZ], T::DATE, Assignment, stable, |a, cx| Ok(to_date(to_local(stamp(a, 0)?, cx))));
    cast("time", &[T::TIMESTAMP], T::TIME, Assignment, immutable, |a, _| Ok(to_time(stamp(a, 0)?)));
    cast("time", &[T::TIMESTAMPTZ], T::TIME, Assignment, stable, |a, cx| Ok(to_time(to_local(stamp(a, 0)?, cx))));
    cast("time", &[T::INTERVAL], T::TIME, Assignment, immutable, |a, _| {
        Ok(Datum::Time(span(a, 0)?.micros.rem_euclid(DAY)))
    });
    cast("interval", &[T::TIME], T::INTERVAL, Implicit, immutable, |a, _| {
        Ok(Datum::Interval(Interval { months: 0, days: 0, micros: time(a, 0)? }))
    });
    cast("timestamptz", &[T::TIMESTAMP], T::TIMESTAMPTZ, Implicit, stable, |a, cx| {
        Ok(Datum::TimestampTz(to_utc(stamp(a, 0)?, cx)?))
    });
    cast("timestamp", &[T::TIMESTAMPTZ], T::TIMESTAMP, Assignment, stable, |a, cx| {
        Ok(Datum::Timestamp(to_local(stamp(a, 0)?, cx)))
    });

    const ROUNDED: [(&str, Type, &[Type; 2]); 4] = [
        ("time", T::TIME, &[T::TIME, T::INT4]),
        ("timestamp", T::TIMESTAMP, &[T::TIMESTAMP, T::INT4]),
        ("timestamptz", T::TIMESTAMPTZ, &[T::TIMESTAMPTZ, T::INT4]),
        ("interval", T::INTERVAL, &[T::INTERVAL, T::INT4]),
    ];
    for (name, ty, args) in ROUNDED {
        let f = r.pure(name, args, ty, round);
        r.cast(ty, ty, Implicit, CastMethod::Function(f));
    }

    r.pure("timestamp", &[T::DATE, T::TIME], T::TIMESTAMP, |a, _| Ok(Datum::Timestamp(joined(a)?)));
    r.stable("timestamptz", &[T::DATE, T::TIME], T::TIMESTAMPTZ, |a, cx| {
        Ok(Datum::TimestampTz(to_utc(joined(a)?, cx)?))
    });

    r.pure("timezone", &[T::TEXT, T::TIMESTAMPTZ], T::TIMESTAMP, |a, _| {
        Ok(Datum::Timestamp(shift(stamp(a, 1)?, text(a, 0)?, false)?))
    });
    r.pure("timezone", &[T::TEXT, T::TIMESTAMP], T::TIMESTAMPTZ, |a, _| {
        Ok(Datum::TimestampTz(shift(stamp(a, 1)?, text(a, 0)?, true)?))
    });
    r.pure("timezone", &[T::INTERVAL, T::TIMESTAMPTZ], T::TIMESTAMP, |a, _| {
        Ok(Datum::Timestamp(shift_by(stamp(a, 1)?, &span(a, 0)?, 1)?))
    });
    r.pure("timezone", &[T::INTERVAL, T::TIMESTAMP], T::TIMESTAMPTZ, |a, _| {
        Ok(Datum::TimestampTz(shift_by(stamp(a, 1)?, &span(a, 0)?, -1)?))
    });
}
