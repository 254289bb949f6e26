//! Times made of their parts, and the clocks.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH as SYSTEM_EPOCH};

use super::super::context::FnCx;
use super::super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use super::{DAY_NAMES, MONTH_NAMES, float, int, local, text, unknown_zone};
use crate::error::{Result, SqlError, state};
use crate::types::datetime::calendar::{days_in_month, is_julian, to_days, weekday};
use crate::types::datetime::parse::{Bad, displacement};
use crate::types::datetime::{
    Civil, DAY, HOUR, INFINITY, MINUTE, NEG_INFINITY, SECOND, UNIX_EPOCH, date_in_range, round_micros,
    timestamp_in_range,
};
use crate::types::interval::interval_out_of_range;
use crate::types::timezone::{Abbreviation, TimeZone, abbreviation};
use crate::types::{Datum, Interval, Type};

fn overflow(message: String) -> SqlError {
    SqlError::new(state::DATETIME_FIELD_OVERFLOW, message)
}

/// Days of a date given by its parts, which may be beyond the last date. A negative year is BC.
fn make_days(year: i32, month: i32, day: i32) -> Result<i32> {
    let astronomical = if year < 0 { year.saturating_add(1) } else { year };
    if year == 0 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(astronomical, month) {
        return Err(overflow(format!("date field value out of range: {year}-{month:02}-{day:02}")));
    }
    if !is_julian(astronomical, month) {
        return Err(overflow(format!("date out of range: {astronomical}-{month:02}-{day:02}")));
    }
    Ok(to_days(astronomical, month, day))
}

fn make_date(a: &[Datum]) -> Result<Datum> {
    let (year, month, day) = (int(a, 0)?, int(a, 1)?, int(a, 2)?);
    let days = make_days(year, month, day)?;
    if !date_in_range(days) {
        let year = if year < 0 { year + 1 } else { year };
        return Err(overflow(format!("date out of range: {year}-{month:02}-{day:02}")));
    }
    Ok(Datum::Date(days))
}

/// Microseconds since midnight of a time of day given by its parts.
fn make_micros(hour: i32, minute: i32, second: f64) -> Result<i64> {
    let micros = (second * SECOND as f64).round_ties_even();
    let field_fits = (0..=24).contains(&hour) && (0..=59).contains(&minute) && (0.0..=MINUTE as f64).contains(&micros);
    let total = i64::from(hour) * HOUR + i64::from(minute) * MINUTE + if field_fits { micros as i64 } else { 0 };
    if !field_fits || total > DAY {
        return Err(overflow(format!("time field value out of range: {}", clock(hour, minute, second))));
    }
    Ok(total)
}

/// A time of day in an error message, where C has `%d:%02d:%02g`.
fn clock(hour: i32, minute: i32, second: f64) -> String {
    format!("{hour}:{minute:02}:{:0>2}", general(second))
}

/// `%g` as PostgreSQL prints it: six significant digits.
fn general(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{value:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim =
        |s: &str| if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s.to_owned() };
    if (-4..6).contains(&exponent) {
        return trim(&format!("{value:.*}", (5 - exponent) as usize));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
}

fn make_timestamp(a: &[Datum]) -> Result<i64> {
    let (year, month, day, hour, minute, second) =
        (int(a, 0)?, int(a, 1)?, int(a, 2)?, int(a, 3)?, int(a, 4)?, float(a, 5)?);
    let days = make_days(year, month, day)?;
    let time = make_micros(hour, minute, second)?;
    let micros = i64::from(days).checked_mul(DAY).and_then(|d| d.checked_add(time)).filter(|t| timestamp_in_range(*t));
    micros.ok_or_else(|| {
        overflow(format!("timestamp out of range: {year}-{month:02}-{day:02} {}", clock(hour, minute, second)))
    })
}

fn in_range(micros: i64) -> Result<Datum> {
    if timestamp_in_range(micros) {
        Ok(Datum::TimestampTz(micros))
    } else {
        Err(crate::types::datetime::timestamp_out_of_range())
    }
}

/// The moment at which clocks show `local` where `zone` says. Numbers must have a sign, and count hours east.
fn zoned(local: i64, zone: &str) -> Result<Datum> {
    let invalid = |message: String| SqlError::new(state::INVALID_PARAMETER_VALUE, message);
    if zone.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(invalid(format!("invalid input syntax for type numeric time zone: \"{zone}\""))
            .hint("Numeric time zones must have \"-\" or \"+\" as first character."));
    }
    let minus = |east: i32| in_range(local.saturating_sub(i64::from(east) * SECOND));
    match displacement(zone) {
        Ok(east) => return minus(east),
        Err(Bad::Displacement) => return Err(invalid(format!("numeric time zone \"{zone}\" out of range"))),
        Err(_) => {}
    }
    let lower = zone.to_ascii_lowercase();
    match abbreviation(&lower) {
        Some(Abbreviation::Fixed(east, _)) => minus(east),
        Some(Abbreviation::Zone(name)) => {
            let dynamic = TimeZone::get(name).ok_or_else(|| unknown_zone(zone))?;
            let east = dynamic.offset_of_abbreviation(zone, dynamic.local_to_utc(local));
            minus(east.unwrap_or_else(|| dynamic.offset_of_local(local)))
        }
        None => in_range(TimeZone::get(zone).ok_or_else(|| unknown_zone(zone))?.local_to_utc(local)),
    }
}

fn make_interval(a: &[Datum]) -> Result<Datum> {
    let part = |i: usize| if i < a.len() { int(a, i).map(i64::from) } else { Ok(0) };
    let seconds = if a.len() > 6 { float(a, 6)? } else { 0.0 };
    let micros = (seconds * SECOND as f64).round_ties_even();
    if !(-9.2e18..=9.2e18).contains(&micros) {
        return Err(interval_out_of_range());
    }
    let int = |v: i64| i32::try_from(v).map_err(|_| interval_out_of_range());
    let time = i128::from(part(4)?) * i128::from(HOUR) + i128::from(part(5)?) * i128::from(MINUTE) + micros as i128;
    Ok(Datum::Interval(Interval {
        months: int(part(0)? * 12 + part(1)?)?,
        days: int(part(2)? * 7 + part(3)?)?,
        micros: i64::try_from(time).map_err(|_| interval_out_of_range())?,
    }))
}

fn from_unix(seconds: f64) -> Result<Datum> {
    if seconds.is_nan() {
        return Err(overflow("timestamp cannot be NaN".into()));
    }
    if seconds.is_infinite() {
        return Ok(Datum::TimestampTz(if seconds > 0.0 { INFINITY } else { NEG_INFINITY }));
    }
    let out_of_range = || overflow(format!("timestamp out of range: \"{}\"", general(seconds)));
    let micros = ((seconds + (UNIX_EPOCH / SECOND) as f64) * SECOND as f64).round_ties_even();
    if !(-3e17..1e19).contains(&micros) || !timestamp_in_range(micros as i64) {
        return Err(out_of_range());
    }
    Ok(Datum::TimestampTz(micros as i64))
}

/// The clock, in microseconds since 2000-01-01 UTC.
fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SYSTEM_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(0).saturating_add(UNIX_EPOCH)
}

/// `Wed Feb 21 10:11:12.131415 2024 CET`
fn timeofday(micros: i64, zone: &TimeZone) -> String {
    let clocks = local(zone, micros);
    let c = Civil::from_micros(clocks);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{} {} {:02} {:02}:{:02}:{:02}.{:06} {} {}",
        &DAY_NAMES[weekday(c.days()) as usize][..3],
        &MONTH_NAMES[(c.month - 1) as usize][..3],
        c.day,
        c.hour,
        c.minute,
        c.second,
        c.micros,
        c.year,
        zone.abbreviation_at(micros)
    );
    out
}

/// The precision asked for, as in CURRENT_TIMESTAMP(3); more than 6 is 6.
fn precision(a: &[Datum]) -> Result<i32> {
    if a.is_empty() {
        return Ok(6);
    }
    match int(a, 0)? {
        p if p < 0 => {
            Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("TIMESTAMP({p}) precision must not be negative")))
        }
        p => Ok(p.min(6)),
    }
}

fn transaction_local(cx: &FnCx<'_>) -> i64 {
    local(&cx.session.time_zone, cx.session.transaction_micros)
}

pub(super) fn register(r: &mut Registry) {
    use Type as T;
    r.pure("make_date", &[T::INT4; 3], T::DATE, |a, _| make_date(a));
    r.pure("make_time", &[T::INT4, T::INT4, T::FLOAT8], T::TIME, |a, _| {
        Ok(Datum::Time(make_micros(int(a, 0)?, int(a, 1)?, float(a, 2)?)?))
    });
    const PARTS: &[Type] = &[T::INT4, T::INT4, T::INT4, T::INT4, T::INT4, T::FLOAT8];
    r.pure("make_timestamp", PARTS, T::TIMESTAMP, |a, _| Ok(Datum::Timestamp(make_timestamp(a)?)));
    r.stable("make_timestamptz", PARTS, T::TIMESTAMPTZ, |a, cx| {
        in_range(cx.session.time_zone.local_to_utc(make_timestamp(a)?))
    });
    r.stable(
        "make_timestamptz",
        &[T::INT4, T::INT4, T::INT4, T::INT4, T::INT4, T::FLOAT8, T::TEXT],
        T::TIMESTAMPTZ,
        |a, _| zoned(make_timestamp(a)?, text(a, 6)?),
    );
    r.scalar(ScalarFn {
        name: "make_interval",
        args: &[T::INT4, T::INT4, T::INT4, T::INT4, T::INT4, T::INT4, T::FLOAT8],
        variadic: None,
        optional: 7,
        ret: T::INTERVAL,
        strict: true,
        volatility: Volatility::Immutable,
        imp: |a, _| make_interval(a),
    });
    r.pure("to_timestamp", &[T::FLOAT8], T::TIMESTAMPTZ, |a, _| from_unix(float(a, 0)?));

    let transaction: ScalarImpl = |_, cx| Ok(Datum::TimestampTz(cx.session.transaction_micros));
    r.stable("now", &[], T::TIMESTAMPTZ, transaction);
    r.stable("transaction_timestamp", &[], T::TIMESTAMPTZ, transaction);
    r.stable("statement_timestamp", &[], T::TIMESTAMPTZ, |_, cx| Ok(Datum::TimestampTz(cx.session.statement_micros)));
    r.stable("current_date", &[], T::DATE, |_, cx| Ok(Datum::Date(transaction_local(cx).div_euclid(DAY) as i32)));
    let volatile = |name, ret, imp| ScalarFn {
        name,
        args: &[],
        variadic: None,
        optional: 0,
        ret,
        strict: true,
        volatility: Volatility::Volatile,
        imp,
    };
    r.scalar(volatile("clock_timestamp", T::TIMESTAMPTZ, |_, _| Ok(Datum::TimestampTz(now()))));
    r.scalar(volatile("timeofday", T::TEXT, |_, cx| Ok(Datum::text(timeofday(now(), &cx.session.time_zone)))));

    // Keywords that take a precision.
    let mut keyword = |name, ret, imp: ScalarImpl| {
        r.scalar(ScalarFn {
            name,
            args: &[T::INT4],
            variadic: None,
            optional: 1,
            ret,
            strict: true,
            volatility: Volatility::Stable,
            imp,
        });
    };
    keyword("current_timestamp", T::TIMESTAMPTZ, |a, cx| {
        Ok(Datum::TimestampTz(round_micros(cx.session.transaction_micros, precision(a)?)))
    });
    keyword("localtimestamp", T::TIMESTAMP, |a, cx| {
        Ok(Datum::Timestamp(round_micros(transaction_local(cx), precision(a)?)))
    });
    keyword("localtime", T::TIME, |a, cx| {
        Ok(Datum::Time(round_micros(transaction_local(cx).rem_euclid(DAY), precision(a)?)))
    });
    // Its type would be timetz, which we lack; a plain time in its place would be a silent difference.
    keyword("current_time", T::TIME, |_, _| Err(SqlError::unsupported("type time with time zone")));
}
