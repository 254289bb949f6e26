//! Reading intervals: verbose (`1 year 2 days ago`), SQL (`1-2`, `3 04:05:06`) and ISO 8601 (`P1Y2M3DT4H`).

use super::{Interval, MONTH_DAYS, interval_out_of_range, range};
use crate::error::Result;
use crate::types::datetime::parse::{Bad, Shape, clock, fields, fraction_value};
use crate::types::datetime::{DAY, HOUR, MINUTE, SECOND};

/// Reads an interval. The fields of `typmod` decide what a bare number is, and what is kept of the result.
pub fn interval_in(text: &str, typmod: i32) -> Result<Interval> {
    let sum = match verbose(text, range::of(typmod)) {
        Err(Bad::Format) => iso8601(text),
        other => other,
    };
    let sum = sum.map_err(|e| if matches!(e, Bad::Overflow) { Bad::Interval } else { e }.report(text, "interval"))?;
    let months = i64::from(sum.years) * 12 + i64::from(sum.months);
    let months = i32::try_from(months).map_err(|_| interval_out_of_range())?;
    Interval { months, days: sum.days, micros: sum.micros }.with_typmod(typmod)
}

type Read<T> = std::result::Result<T, Bad>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
    /// A word that is known, but counts nothing.
    Other,
}

enum Word {
    Unit(Unit),
    Ago,
    Bad,
}

fn word(lower: &str) -> Word {
    Word::Unit(match lower.get(..10).unwrap_or(lower) {
        "ago" => return Word::Ago,
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecon" => Unit::Microsecond,
        "ms" | "msec" | "msecs" | "mseconds" | "millisecon" => Unit::Millisecond,
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennia" | "millennium" => Unit::Millennium,
        "qtr" | "quarter" => Unit::Other,
        _ => return Word::Bad,
    })
}

/// What has been read so far. Years are kept apart until the end, where their sum with the months is checked.
#[derive(Default)]
struct Sum {
    years: i32,
    months: i32,
    days: i32,
    micros: i64,
}

impl Sum {
    fn add(&mut self, unit: Unit, value: i64, fraction: f64) -> Read<()> {
        self.try_add(unit, value, fraction).unwrap_or(Err(Bad::Overflow))
    }

    /// None: overflow.
    fn try_add(&mut self, unit: Unit, value: i64, fraction: f64) -> Option<Read<()>> {
        let int = |v: i64| i32::try_from(v).ok();
        let (time, years) = match unit {
            Unit::Microsecond => (1, 0),
            Unit::Millisecond => (1_000, 0),
            Unit::Second => (SECOND, 0),
            Unit::Minute => (MINUTE, 0),
            Unit::Hour => (HOUR, 0),
            Unit::Year => (0, 1),
            Unit::Decade => (0, 10),
            Unit::Century => (0, 100),
            Unit::Millennium => (0, 1_000),
            Unit::Day | Unit::Week => {
                let size = if unit == Unit::Week { 7 } else { 1 };
                self.days = self.days.checked_add(int(value)?.checked_mul(size)?)?;
                return Some(if unit == Unit::Week {
                    self.add_fraction_of_days(fraction * 7.0).ok_or(Bad::Overflow)
                } else {
                    self.add_fraction_of_micros(fraction, DAY).ok_or(Bad::Overflow)
                });
            }
            Unit::Month => {
                self.months = self.months.checked_add(int(value)?)?;
                return Some(self.add_fraction_of_days(fraction * f64::from(MONTH_DAYS)).ok_or(Bad::Overflow));
            }
            Unit::Other => return Some(Err(Bad::Format)),
        };
        if time != 0 {
            self.micros = self.micros.checked_add(value.checked_mul(time)?)?;
            self.add_fraction_of_micros(fraction, time)?;
        } else {
            self.years = self.years.checked_add(int(value)?.checked_mul(years)?)?;
            let months = (fraction * f64::from(years) * 12.0).round_ties_even();
            self.months = self.months.checked_add(months as i32)?;
        }
        Some(Ok(()))
    }

    fn add_fraction_of_days(&mut self, days: f64) -> Option<()> {
        if days != 0.0 {
            let whole = days.trunc();
            self.days = self.days.checked_add(whole as i32)?;
            self.add_fraction_of_micros(days - whole, DAY)?;
        }
        Some(())
    }

    fn add_fraction_of_micros(&mut self, fraction: f64, unit: i64) -> Option<()> {
        if fraction != 0.0 {
            let exact = fraction * unit as f64;
            let mut micros = exact as i64;
            let rest = exact - micros as f64;
            if rest > 0.5 {
                micros += 1;
            } else if rest < -0.5 {
                micros -= 1;
            }
            self.micros = self.micros.checked_add(micros)?;
        }
        Some(())
    }

    fn add_clock(&mut self, field: &str, negative: bool, minutes_first: bool) -> Read<()> {
        let (hour, minute, second, micros) = clock(field, minutes_first)?;
        let total = hour
            .checked_mul(HOUR)
            .and_then(|t| t.checked_add(i64::from(minute) * MINUTE + i64::from(second) * SECOND + i64::from(micros)))
            .ok_or(Bad::Overflow)?;
        self.micros = if negative { -total } else { total };
        Ok(())
    }
}

/// The unit a bare number at the end counts.
fn last_unit(fields: i32) -> Unit {
    match fields {
        range::YEAR => Unit::Year,
        f if f & !(range::YEAR | range::MONTH) == 0 => Unit::Month,
        range::DAY => Unit::Day,
        f if f & range::SECOND != 0 => Unit::Second,
        f if f & range::MINUTE != 0 => Unit::Minute,
        f if f & range::HOUR != 0 => Unit::Hour,
        _ => Unit::Second,
    }
}

/// Anything that is a sequence of fields. Read from the right, for units follow their numbers.
fn verbose(text: &str, range: i32) -> Read<Sum> {
    const TIME: u32 = 1 << 31;
    let minutes_first = range == range::MINUTE | range::SECOND;
    let mut sum = Sum::default();
    let mut seen = 0;
    let mut ago = false;
    let mut unit = None;
    for (shape, field) in fields(text, 256)?.iter().rev() {
        let bit = |unit: Unit, fraction: f64| match unit {
            // Fractions of a second are milliseconds and microseconds as well.
            Unit::Second if fraction != 0.0 => 0b111,
            unit => 1 << unit as u32,
        };
        // Clock time is hours, minutes and seconds.
        let time_bits = TIME | 0b11111;
        let signed_clock = *shape == Shape::Zone && field.contains(':');
        let found = match shape {
            Shape::Time => {
                sum.add_clock(field, false, minutes_first)?;
                unit = Some(Unit::Day);
                time_bits
            }
            Shape::Zone
                if signed_clock && sum.add_clock(&field[1..], field.starts_with('-'), minutes_first).is_ok() =>
            {
                unit = Some(Unit::Day);
                time_bits
            }
            Shape::Zone | Shape::Date | Shape::Number => {
                let mut counted = unit.unwrap_or_else(|| last_unit(range));
                let (value, fraction) = number(field, &mut counted)?;
                sum.add(counted, value, fraction)?;
                unit = Some(if counted == Unit::Hour { Unit::Day } else { counted });
                bit(counted, fraction)
            }
            Shape::Word | Shape::SignedWord => {
                match word(field) {
                    Word::Unit(u) => unit = Some(u),
                    Word::Ago => {
                        ago = true;
                        unit = Some(Unit::Other);
                    }
                    Word::Bad => return Err(Bad::Format),
                }
                0
            }
        };
        if seen & found != 0 {
            return Err(Bad::Format);
        }
        seen |= found;
    }
    if seen == 0 {
        return Err(Bad::Format);
    }
    if ago {
        let negated = (|| {
            Some(Sum {
                years: sum.years.checked_neg()?,
                months: sum.months.checked_neg()?,
                days: sum.days.checked_neg()?,
                micros: sum.micros.checked_neg()?,
            })
        })();
        sum = negated.ok_or(Bad::Overflow)?;
    }
    Ok(sum)
}

/// A number with an optional fraction, or `years-months`, which sets the unit to months.
fn number(field: &str, unit: &mut Unit) -> Read<(i64, f64)> {
    let negative = field.starts_with('-');
    let sign = usize::from(matches!(field.as_bytes().first(), Some(b'+' | b'-')));
    let digits = field[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let mut value: i64 = if digits == 0 { 0 } else { field[..sign + digits].parse().map_err(|_| Bad::Overflow)? };
    let rest = &field[sign + digits..];
    if let Some(months) = rest.strip_prefix('-') {
        let end = months.bytes().take_while(u8::is_ascii_digit).count();
        let extra: i64 = if end == 0 { 0 } else { months[..end].parse().map_err(|_| Bad::Overflow)? };
        if extra >= 12 {
            return Err(Bad::Overflow);
        }
        if end != months.len() {
            return Err(Bad::Format);
        }
        *unit = Unit::Month;
        value = value
            .checked_mul(12)
            .and_then(|v| v.checked_add(if negative { -extra } else { extra }))
            .ok_or(Bad::Overflow)?;
        return Ok((value, 0.0));
    }
    match rest {
        "" => Ok((value, 0.0)),
        _ if rest.starts_with('.') => {
            let fraction = fraction_value(rest)?;
            Ok((value, if negative { -fraction } else { fraction }))
        }
        _ => Err(Bad::Format),
    }
}

/// `P1Y2M3W4DT5H6M7.8S`, or `P0001-02-03T04:05:06`, or `P00010203T040506`.
fn iso8601(text: &str) -> Read<Sum> {
    let mut rest = text.strip_prefix('P').filter(|r| !r.is_empty()).ok_or(Bad::Format)?;
    let mut sum = Sum::default();
    let mut in_date = true;
    let mut any = false;
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T') {
            (in_date, any, rest) = (false, false, time);
            continue;
        }
        let start = rest;
        let (value, fraction) = iso_number(&mut rest)?;
        let width = start.strip_prefix('-').unwrap_or(start).bytes().take_while(u8::is_ascii_digit).count();
        let mut letters = rest.chars();
        let unit = letters.next();
        rest = letters.as_str();
        let counted = match (in_date, unit) {
            (true, Some('Y')) => Unit::Year,
            (true, Some('M')) => Unit::Month,
            (true, Some('W')) => Unit::Week,
            (true, Some('D')) => Unit::Day,
            (false, Some('H')) => Unit::Hour,
            (false, Some('M')) => Unit::Minute,
            (false, Some('S')) => Unit::Second,
            (true, Some('T') | None) if width == 8 && !any => {
                sum.add(Unit::Year, value / 10_000, 0.0)?;
                sum.add(Unit::Month, value / 100 % 100, 0.0)?;
                sum.add(Unit::Day, value % 100, fraction)?;
                in_date = false;
                continue;
            }
            (true, Some('T' | '-') | None) => {
                if any {
                    return Err(Bad::Format);
                }
                sum.add(Unit::Year, value, fraction)?;
                for part in [Unit::Month, Unit::Day] {
                    if unit != Some('-') || rest.starts_with('T') {
                        break;
                    }
                    if part == Unit::Day {
                        match rest.strip_prefix('-') {
                            Some(day) => rest = day,
                            None if rest.is_empty() => break,
                            None => return Err(Bad::Format),
                        }
                    }
                    let (value, fraction) = iso_number(&mut rest)?;
                    sum.add(part, value, fraction)?;
                    if part == Unit::Day && !rest.is_empty() && !rest.starts_with('T') {
                        return Err(Bad::Format);
                    }
                }
                rest = rest.strip_prefix('T').unwrap_or(rest);
                in_date = false;
                continue;
            }
            (false, None) if width == 6 && !any => {
                sum.add(Unit::Hour, value / 10_000, 0.0)?;
                sum.add(Unit::Minute, value / 100 % 100, 0.0)?;
                sum.add(Unit::Second, value % 100, 0.0)?;
                sum.add(Unit::Microsecond, 0, fraction)?;
                return Ok(sum);
            }
            (false, Some(':') | None) => {
                if any {
                    return Err(Bad::Format);
                }
                sum.add(Unit::Hour, value, fraction)?;
                if unit.is_none() {
                    return Ok(sum);
                }
                let (value, fraction) = iso_number(&mut rest)?;
                sum.add(Unit::Minute, value, fraction)?;
                if rest.is_empty() {
                    return Ok(sum);
                }
                rest = rest.strip_prefix(':').ok_or(Bad::Format)?;
                let (value, fraction) = iso_number(&mut rest)?;
                sum.add(Unit::Second, value, fraction)?;
                return if rest.is_empty() { Ok(sum) } else { Err(Bad::Format) };
            }
            _ => return Err(Bad::Format),
        };
        sum.add(counted, value, fraction)?;
        any = true;
    }
    Ok(sum)
}

/// A decimal number, an exponent allowed, split in its integral and fractional part. Moves `rest` behind it.
fn iso_number(rest: &mut &str) -> Read<(i64, f64)> {
    let b = rest.as_bytes();
    if !b.first().is_some_and(|c| c.is_ascii_digit() || matches!(c, b'-' | b'.')) {
        return Err(Bad::Format);
    }
    let digits = |at: usize| at + b[at..].iter().take_while(|c| c.is_ascii_digit()).count();
    let mut end = digits(usize::from(b[0] == b'-'));
    if b.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(b.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(b.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits((end + 1 + sign).min(b.len()));
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    let value: f64 = rest[..end].parse().map_err(|_| Bad::Format)?;
    if !(-1.0e15..=1.0e15).contains(&value) {
        return Err(Bad::Overflow);
    }
    *rest = &rest[end..];
    Ok((value.trunc() as i64, value - value.trunc()))
}
