//! `extract` and `date_part`: the same fields, as numeric with the decimal places the field has, and as float8.
//!
//! A field of an infinite time is infinite where it only grows (year, epoch) and NULL where it goes round (month, hour).

use super::super::context::FnCx;
use super::super::registry::Registry;
use super::arith::date_to_timestamp;
use super::{date, span, stamp, text, time};
use crate::error::{Result, SqlError, state};
use crate::types::datetime::calendar::{DAYS_1970, JULIAN_2000, day_of_year, from_days, iso_week, weekday};
use crate::types::datetime::{Civil, DATE_INFINITY, DAY, INFINITY, SECOND, UNIX_EPOCH, date_is_finite, is_finite};
use crate::types::{Datum, Interval, Numeric, Type};

/// What can be asked of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Dow,
    IsoDow,
    Doy,
    IsoYear,
    Julian,
    Epoch,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
    /// A word of date input that is no field: `today`, `infinity`.
    Reserved,
}

impl Field {
    /// A field by name. Ten characters decide, and case does not matter.
    pub(super) fn parse(name: &str) -> Option<Field> {
        let lower = name.to_ascii_lowercase();
        Some(match lower.get(..10).unwrap_or(&lower) {
            "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecon" => Field::Microseconds,
            "ms" | "msec" | "msecs" | "mseconds" | "millisecon" => Field::Milliseconds,
            "s" | "sec" | "secs" | "second" | "seconds" => Field::Second,
            "m" | "min" | "mins" | "minute" | "minutes" | "mm" => Field::Minute,
            "h" | "hr" | "hrs" | "hour" | "hours" => Field::Hour,
            "d" | "day" | "days" => Field::Day,
            "w" | "week" | "weeks" => Field::Week,
            "mon" | "mons" | "month" | "months" => Field::Month,
            "qtr" | "quarter" => Field::Quarter,
            "y" | "yr" | "yrs" | "year" | "years" => Field::Year,
            "dec" | "decs" | "decade" | "decades" => Field::Decade,
            "c" | "cent" | "century" | "centuries" => Field::Century,
            "mil" | "mils" | "millennia" | "millennium" => Field::Millennium,
            "dow" => Field::Dow,
            "isodow" => Field::IsoDow,
            "doy" => Field::Doy,
            "isoyear" => Field::IsoYear,
            "j" | "jd" | "julian" => Field::Julian,
            "epoch" => Field::Epoch,
            "timezone" => Field::Timezone,
            "timezone_h" => Field::TimezoneHour,
            "timezone_m" => Field::TimezoneMinute,
            "now" | "today" | "tomorrow" | "yesterday" | "allballs" | "infinity" | "-infinity" => Field::Reserved,
            _ => return None,
        })
    }

    /// A field by name, for functions that cut something down to it: days of the week and the like are not among them.
    pub(super) fn parse_unit(name: &str) -> Option<Field> {
        use Field::*;
        let special = |f: &Field| matches!(f, Dow | IsoDow | Doy | IsoYear | Julian | Epoch | Reserved);
        Field::parse(name).filter(|f| !special(f) && !name.eq_ignore_ascii_case("mm"))
    }

    /// Whether the field grows without end; the others go round.
    fn grows(self) -> bool {
        use Field::*;
        matches!(self, Year | Decade | Century | Millennium | Julian | IsoYear | Epoch)
    }
}

/// 0A000: this type does not have that field.
pub(super) fn not_supported(name: &str, ty: Type) -> SqlError {
    let name = name.to_ascii_lowercase();
    SqlError::new(state::FEATURE_NOT_SUPPORTED, format!("unit \"{name}\" not supported for type {}", type_name(ty)))
}

/// 22023: there is no such field.
pub(super) fn not_recognized(name: &str, ty: Type) -> SqlError {
    let name = name.to_ascii_lowercase();
    SqlError::new(state::INVALID_PARAMETER_VALUE, format!("unit \"{name}\" not recognized for type {}", type_name(ty)))
}

fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::DATE => "date",
        Type::TIME => "time without time zone",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        _ => "interval",
    }
}

/// The value of a field before it is known which type it goes out in.
enum Value {
    Null,
    Infinite(bool),
    Int(i64),
    /// Microseconds within a minute, shown as a number of this many decimal places: 6 for seconds, 3 for milliseconds.
    Part(i64, u16),
    /// Microseconds, shown as seconds.
    Seconds(i128),
    /// Days and a time of day in microseconds.
    Julian(i64, i64),
    /// The length of an interval.
    Epoch(Interval),
}

impl Value {
    fn numeric(self) -> Result<Datum> {
        Ok(Datum::Numeric(match self {
            Value::Null => return Ok(Datum::Null),
            Value::Infinite(true) => Numeric::INFINITY,
            Value::Infinite(false) => Numeric::NEG_INFINITY,
            Value::Int(i) => Numeric::from_i64(i),
            Value::Part(micros, scale) => Numeric::from_scaled(i128::from(micros), scale),
            Value::Seconds(micros) => Numeric::from_scaled(micros, 6),
            Value::Epoch(s) => {
                // A year is 365.25 days, a month 30: in quarters of a day.
                let quarters =
                    i128::from(s.months / 12) * 1461 + i128::from(s.months % 12) * 120 + i128::from(s.days) * 4;
                Numeric::from_scaled(quarters * i128::from(DAY / 4) + i128::from(s.micros), 6)
            }
            Value::Julian(day, micros) => {
                let fraction = Numeric::from_i64(micros).div(&Numeric::from_i64(DAY))?;
                Numeric::from_i64(day).add(&fraction)?
            }
        }))
    }

    fn float(self) -> Result<Datum> {
        Ok(Datum::Float8(match self {
            Value::Null => return Ok(Datum::Null),
            Value::Infinite(true) => f64::INFINITY,
            Value::Infinite(false) => f64::NEG_INFINITY,
            Value::Int(i) => i as f64,
            // Seconds and their fraction apart, as PostgreSQL adds them: the last bit can depend on it.
            Value::Part(micros, scale) => {
                let unit = 10_f64.powi(i32::from(scale));
                (micros / SECOND) as f64 * (SECOND as f64 / unit) + (micros % SECOND) as f64 / unit
            }
            Value::Seconds(micros) => micros as f64 / 1e6,
            Value::Epoch(s) => {
                s.micros as f64 / 1e6
                    + 365.25 * 86_400.0 * f64::from(s.months / 12)
                    + 30.0 * 86_400.0 * f64::from(s.months % 12)
                    + 86_400.0 * f64::from(s.days)
            }
            Value::Julian(day, micros) => day as f64 + micros as f64 / DAY as f64,
        }))
    }
}

fn infinite(field: Field, positive: bool) -> Value {
    if field.grows() { Value::Infinite(positive) } else { Value::Null }
}

/// Of a day. None: a field only times have.
fn of_day(field: Field, days: i32, c: &Civil) -> Option<Value> {
    let year = i64::from(c.year);
    let before_christ = |y: i64| if y > 0 { y } else { y - 1 };
    Some(Value::Int(match field {
        Field::Day => i64::from(c.day),
        Field::Month => i64::from(c.month),
        Field::Quarter => i64::from((c.month - 1) / 3 + 1),
        Field::Week => i64::from(iso_week(days).1),
        Field::Year => before_christ(year),
        Field::IsoYear => before_christ(i64::from(iso_week(days).0)),
        Field::Decade => year.div_euclid(10),
        Field::Century => period(year, 100),
        Field::Millennium => period(year, 1000),
        Field::Julian => i64::from(days) + i64::from(JULIAN_2000),
        Field::Dow => i64::from(weekday(days)),
        Field::IsoDow => i64::from((weekday(days) + 6) % 7 + 1),
        Field::Doy => i64::from(day_of_year(c.year, c.month, c.day)),
        _ => return None,
    }))
}

/// Number of the century (or other period) of a year: years 1 to 100 are the first, 100 to 1 BC the first before.
fn period(year: i64, length: i64) -> i64 {
    if year > 0 { (year + length - 1) / length } else { -((length - year) / length) }
}

/// Of a time of day.
fn of_time(field: Field, c: &Civil) -> Option<Value> {
    let micros = i64::from(c.second) * SECOND + i64::from(c.micros);
    Some(match field {
        Field::Microseconds => Value::Int(micros),
        Field::Milliseconds => Value::Part(micros, 3),
        Field::Second => Value::Part(micros, 6),
        Field::Minute => Value::Int(i64::from(c.minute)),
        Field::Hour => Value::Int(i64::from(c.hour)),
        _ => return None,
    })
}

fn timestamp(name: &str, micros: i64, ty: Type, east: i32) -> Result<Value> {
    let field = Field::parse(name).ok_or_else(|| not_recognized(name, ty))?;
    if field == Field::Reserved {
        return Err(not_supported(name, ty));
    }
    if !is_finite(micros) {
        return Ok(infinite(field, micros == INFINITY));
    }
    let zone = matches!(field, Field::Timezone | Field::TimezoneHour | Field::TimezoneMinute);
    if zone && ty != Type::TIMESTAMPTZ {
        return Err(not_supported(name, ty));
    }
    let local = micros.saturating_add(i64::from(east) * SECOND);
    let days = local.div_euclid(DAY) as i32;
    let c = Civil::from_micros(local);
    Ok(match field {
        Field::Epoch => Value::Seconds(i128::from(micros) - i128::from(UNIX_EPOCH)),
        Field::Julian => Value::Julian(i64::from(days) + i64::from(JULIAN_2000), local.rem_euclid(DAY)),
        Field::Timezone => Value::Int(i64::from(east)),
        Field::TimezoneHour => Value::Int(i64::from(east / 3600)),
        Field::TimezoneMinute => Value::Int(i64::from(east / 60 % 60)),
        _ => of_day(field, days, &c).or_else(|| of_time(field, &c)).ok_or_else(|| not_supported(name, ty))?,
    })
}

fn timestamptz(a: &[Datum], cx: &FnCx<'_>) -> Result<Value> {
    let micros = stamp(a, 1)?;
    let east = if is_finite(micros) { cx.session.time_zone.offset_at(micros) } else { 0 };
    timestamp(text(a, 0)?, micros, Type::TIMESTAMPTZ, east)
}

fn of_date(name: &str, days: i32) -> Result<Value> {
    let field = Field::parse(name).ok_or_else(|| not_recognized(name, Type::DATE))?;
    if field == Field::Epoch && date_is_finite(days) {
        return Ok(Value::Int((i64::from(days) - i64::from(DAYS_1970)) * 86_400));
    }
    let finite = date_is_finite(days);
    // Which fields a date has does not depend on the day.
    let day = if finite { days } else { 0 };
    let (year, month, day_of_month) = from_days(day);
    match of_day(field, day, &Civil { year, month, day: day_of_month, ..Civil::default() }) {
        Some(value) if finite => Ok(value),
        None if field != Field::Epoch => Err(not_supported(name, Type::DATE)),
        _ => Ok(infinite(field, days == DATE_INFINITY)),
    }
}

fn of_time_type(name: &str, micros: i64) -> Result<Value> {
    let field = Field::parse(name).filter(|f| *f != Field::Reserved);
    let field = field.ok_or_else(|| not_recognized(name, Type::TIME))?;
    if field == Field::Epoch {
        return Ok(Value::Seconds(i128::from(micros)));
    }
    of_time(field, &Civil::from_time(micros)).ok_or_else(|| not_supported(name, Type::TIME))
}

fn of_interval(a: &[Datum]) -> Result<Value> {
    let (name, s) = (text(a, 0)?, span(a, 1)?);
    let field = Field::parse(name).filter(|f| *f != Field::Reserved);
    let field = field.ok_or_else(|| not_recognized(name, Type::INTERVAL))?;
    let (years, months) = (i64::from(s.months / 12), i64::from(s.months % 12));
    let micros = s.micros % (60 * SECOND);
    Ok(match field {
        Field::Microseconds => Value::Int(micros),
        Field::Milliseconds => Value::Part(micros, 3),
        Field::Second => Value::Part(micros, 6),
        Field::Minute => Value::Int(s.micros / (60 * SECOND) % 60),
        Field::Hour => Value::Int(s.micros / (3600 * SECOND)),
        Field::Day => Value::Int(i64::from(s.days)),
        Field::Month => Value::Int(months),
        Field::Quarter => Value::Int(months / 3 + 1),
        Field::Year => Value::Int(years),
        Field::Decade => Value::Int(years / 10),
        Field::Century => Value::Int(years / 100),
        Field::Millennium => Value::Int(years / 1000),
        Field::Epoch => Value::Epoch(s),
        _ => return Err(not_supported(name, Type::INTERVAL)),
    })
}

pub(super) fn register(r: &mut Registry) {
    use Type as T;
    let (numeric, float) = ("extract", "date_part");
    r.pure(numeric, &[T::TEXT, T::DATE], T::NUMERIC, |a, _| of_date(text(a, 0)?, date(a, 1)?)?.numeric());
    r.pure(float, &[T::TEXT, T::DATE], T::FLOAT8, |a, _| {
        timestamp(text(a, 0)?, date_to_timestamp(date(a, 1)?)?, Type::TIMESTAMP, 0)?.float()
    });
    r.pure(numeric, &[T::TEXT, T::TIME], T::NUMERIC, |a, _| of_time_type(text(a, 0)?, time(a, 1)?)?.numeric());
    r.pure(float, &[T::TEXT, T::TIME], T::FLOAT8, |a, _| of_time_type(text(a, 0)?, time(a, 1)?)?.float());
    r.pure(numeric, &[T::TEXT, T::TIMESTAMP], T::NUMERIC, |a, _| {
        timestamp(text(a, 0)?, stamp(a, 1)?, Type::TIMESTAMP, 0)?.numeric()
    });
    r.pure(float, &[T::TEXT, T::TIMESTAMP], T::FLOAT8, |a, _| {
        timestamp(text(a, 0)?, stamp(a, 1)?, Type::TIMESTAMP, 0)?.float()
    });
    r.stable(numeric, &[T::TEXT, T::TIMESTAMPTZ], T::NUMERIC, |a, cx| timestamptz(a, cx)?.numeric());
    r.stable(float, &[T::TEXT, T::TIMESTAMPTZ], T::FLOAT8, |a, cx| timestamptz(a, cx)?.float());
    r.pure(numeric, &[T::TEXT, T::INTERVAL], T::NUMERIC, |a, _| of_interval(a)?.numeric());
    r.pure(float, &[T::TEXT, T::INTERVAL], T::FLOAT8, |a, _| of_interval(a)?.float());
}
