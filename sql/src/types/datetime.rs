//! date, time, timestamp and timestamptz: what their numbers mean, and their text and binary forms.
//!
//! ```text
//! date         i32   days since 2000-01-01                      -2451545 (4714-11-24 BC) .. 2145031948 (5874897-12-31)
//! time         i64   microseconds since midnight                0 ..= 86_400_000_000
//! timestamp    i64   microseconds since 2000-01-01 00:00        4714-11-24 BC .. 294276-12-31 23:59:59.999999
//! timestamptz  i64   the same, at Greenwich
//! ```
//!
//! The least and the greatest number of each type but time stand for -infinity and infinity. Functions that make a
//! value check its range; what is stored is therefore always inside it, or infinite. Input is read in [`parse`]; the
//! calendar is in [`calendar`]. Output is ISO: `DateStyle` decides only the order in which ambiguous input is read.

pub mod calendar;
pub mod parse;

use std::fmt::Write;

use super::timezone::{TimeZone, offset_digits};
use crate::error::{Result, SqlError, state};
use crate::functions::context::{DateOrder, SessionCx};
use calendar::{DAYS_1970, from_days, is_julian, to_days};
use parse::{Decoded, Moment};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds of an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds of 24 hours.
pub const DAY: i64 = 24 * HOUR;

/// date '-infinity'.
pub const DATE_NEG_INFINITY: i32 = i32::MIN;
/// date 'infinity'.
pub const DATE_INFINITY: i32 = i32::MAX;
/// The first date.
pub const DATE_MIN: i32 = -2_451_545;
/// One after the last date.
pub const DATE_END: i32 = 2_145_031_949;

/// timestamp '-infinity'.
pub const NEG_INFINITY: i64 = i64::MIN;
/// timestamp 'infinity'.
pub const INFINITY: i64 = i64::MAX;
/// The first timestamp.
pub const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// One after the last timestamp.
pub const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
/// 1970-01-01 as a timestamp.
pub const UNIX_EPOCH: i64 = DAYS_1970 as i64 * DAY;

/// A date and a time of day in their parts. Year 0 is 1 BC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Civil {
    /// Astronomical year.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 24.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60 in input.
    pub second: i32,
    /// 0 to 999_999; 1_000_000 in input that rounds up.
    pub micros: i32,
}

/// What input depends on besides the text.
#[derive(Clone, Copy)]
pub struct InputCx<'a> {
    /// Zone of times without one, and the day `today` is in.
    pub zone: &'a TimeZone,
    /// How 1/2/2024 is read.
    pub order: DateOrder,
    /// What `now` means.
    pub now: i64,
}

impl<'a> From<&'a SessionCx> for InputCx<'a> {
    fn from(cx: &'a SessionCx) -> Self {
        InputCx { zone: &cx.time_zone, order: cx.date_order, now: cx.transaction_micros }
    }
}

impl Civil {
    /// The parts of a finite timestamp, or of a timestamptz already moved to local time.
    pub fn from_micros(micros: i64) -> Civil {
        let (year, month, day) = from_days(micros.div_euclid(DAY) as i32);
        Civil { year, month, day, ..Civil::from_time(micros.rem_euclid(DAY)) }
    }
    /// The parts of a time of day; the date is zero.
    pub fn from_time(micros: i64) -> Civil {
        Civil {
            hour: (micros / HOUR) as i32,
            minute: (micros / MINUTE % 60) as i32,
            second: (micros / SECOND % 60) as i32,
            micros: (micros % SECOND) as i32,
            ..Civil::default()
        }
    }
    /// Microseconds since midnight.
    pub fn time(&self) -> i64 {
        ((i64::from(self.hour) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second)) * SECOND
            + i64::from(self.micros)
    }
    /// Days since 2000-01-01.
    pub fn days(&self) -> i32 {
        to_days(self.year, self.month, self.day)
    }
    /// As a timestamp, `east` seconds of offset taken off; None outside the range of the type.
    pub fn timestamp(&self, east: i32) -> Option<i64> {
        if !is_julian(self.year, self.month) {
            return None;
        }
        let micros =
            i128::from(self.days()) * i128::from(DAY) + i128::from(self.time()) - i128::from(east) * i128::from(SECOND);
        i64::try_from(micros).ok().filter(|t| timestamp_in_range(*t))
    }
}

/// Whether a finite timestamp of this number exists.
pub fn timestamp_in_range(micros: i64) -> bool {
    (TIMESTAMP_MIN..TIMESTAMP_END).contains(&micros)
}

/// Whether a finite date of this number exists.
pub fn date_in_range(days: i32) -> bool {
    (DATE_MIN..DATE_END).contains(&days)
}

/// Whether a timestamp is neither infinity.
pub fn is_finite(micros: i64) -> bool {
    micros != NEG_INFINITY && micros != INFINITY
}

/// Whether a date is neither infinity.
pub fn date_is_finite(days: i32) -> bool {
    days != DATE_NEG_INFINITY && days != DATE_INFINITY
}

/// 22008: timestamp out of range.
pub fn timestamp_out_of_range() -> SqlError {
    SqlError::new(state::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// 22008: date out of range.
pub fn date_out_of_range() -> SqlError {
    SqlError::new(state::DATETIME_FIELD_OVERFLOW, "date out of range")
}

// ---- text input ----

/// Reads a date: its days.
pub fn date_in(text: &str, cx: &InputCx<'_>) -> Result<i32> {
    let out_of_range = || SqlError::new(state::DATETIME_FIELD_OVERFLOW, format!("date out of range: \"{text}\""));
    let Decoded { moment, civil, .. } = parse::datetime(text, cx).map_err(|e| e.report(text, "date"))?;
    match moment {
        Moment::Epoch => Ok(DAYS_1970),
        Moment::Infinity => Ok(DATE_INFINITY),
        Moment::NegInfinity => Ok(DATE_NEG_INFINITY),
        Moment::Civil if is_julian(civil.year, civil.month) => {
            Some(civil.days()).filter(|d| date_in_range(*d)).ok_or_else(out_of_range)
        }
        Moment::Civil => Err(out_of_range()),
    }
}

/// Reads a time of day and rounds it to `typmod` digits. A zone in the text is read and ignored.
pub fn time_in(text: &str, typmod: i32, cx: &InputCx<'_>) -> Result<i64> {
    let civil = parse::time(text, cx).map_err(|e| e.report(text, "time"))?;
    Ok(round_micros(civil.time(), typmod))
}

/// Reads a timestamp and rounds it to `typmod` digits. A zone in the text is read and ignored.
pub fn timestamp_in(text: &str, typmod: i32, cx: &InputCx<'_>) -> Result<i64> {
    let decoded = parse::datetime(text, cx).map_err(|e| e.report(text, "timestamp"))?;
    timestamp_of(text, &decoded, 0, typmod)
}

/// Reads a timestamptz and rounds it to `typmod` digits.
pub fn timestamptz_in(text: &str, typmod: i32, cx: &InputCx<'_>) -> Result<i64> {
    let decoded = parse::datetime(text, cx).map_err(|e| e.report(text, "timestamp with time zone"))?;
    timestamp_of(text, &decoded, decoded.east, typmod)
}

fn timestamp_of(text: &str, decoded: &Decoded, east: i32, typmod: i32) -> Result<i64> {
    let micros = match decoded.moment {
        Moment::Epoch => UNIX_EPOCH,
        Moment::Infinity => INFINITY,
        Moment::NegInfinity => NEG_INFINITY,
        Moment::Civil => decoded.civil.timestamp(east).ok_or_else(|| {
            SqlError::new(state::DATETIME_FIELD_OVERFLOW, format!("timestamp out of range: \"{text}\""))
        })?,
    };
    Ok(round_timestamp(micros, typmod))
}

/// Rounds microseconds, half away from zero, to `typmod` decimal places of a second; outside 0 to 5 nothing happens.
pub fn round_micros(micros: i64, typmod: i32) -> i64 {
    let Ok(places @ 0..=5) = u32::try_from(typmod) else { return micros };
    let unit = 10_i64.pow(6 - places);
    let rounded = (micros.unsigned_abs() + unit.unsigned_abs() / 2) / unit.unsigned_abs() * unit.unsigned_abs();
    let rounded = i64::try_from(rounded).unwrap_or(i64::MAX);
    if micros < 0 { -rounded } else { rounded }
}

/// [`round_micros`] for timestamps, whose infinities stay.
pub fn round_timestamp(micros: i64, typmod: i32) -> i64 {
    if is_finite(micros) { round_micros(micros, typmod) } else { micros }
}

// ---- text output ----

/// Writes a date: `2024-02-03`, `0044-03-15 BC`, `infinity`.
pub fn date_out(days: i32, out: &mut String) {
    match days {
        DATE_INFINITY => out.push_str("infinity"),
        DATE_NEG_INFINITY => out.push_str("-infinity"),
        _ => {
            let (year, month, day) = from_days(days);
            push_date(out, year, month, day);
            push_era(out, year);
        }
    }
}

/// Writes a time of day: `10:11:12.5`.
pub fn time_out(micros: i64, out: &mut String) {
    push_time(out, &Civil::from_time(micros));
}

/// Writes a timestamp: `2024-02-03 10:11:12.5`.
pub fn timestamp_out(micros: i64, out: &mut String) {
    if push_infinity(out, micros) {
        return;
    }
    let c = Civil::from_micros(micros);
    push_date(out, c.year, c.month, c.day);
    out.push(' ');
    push_time(out, &c);
    push_era(out, c.year);
}

/// Writes a timestamptz as clocks of the zone show it: `2024-02-03 10:11:12+01`.
pub fn timestamptz_out(micros: i64, zone: &TimeZone, out: &mut String) {
    if push_infinity(out, micros) {
        return;
    }
    let east = zone.offset_at(micros);
    let c = Civil::from_micros(micros + i64::from(east) * SECOND);
    push_date(out, c.year, c.month, c.day);
    out.push(' ');
    push_time(out, &c);
    out.push(if east < 0 { '-' } else { '+' });
    match east % 3600 {
        0 => push_padded(out, east.unsigned_abs() / 3600, 2),
        _ => out.push_str(&offset_digits(east)),
    }
    push_era(out, c.year);
}

fn push_infinity(out: &mut String, micros: i64) -> bool {
    match micros {
        INFINITY => out.push_str("infinity"),
        NEG_INFINITY => out.push_str("-infinity"),
        _ => return false,
    }
    true
}

fn push_date(out: &mut String, year: i32, month: i32, day: i32) {
    push_padded(out, if year > 0 { year } else { 1 - year }.unsigned_abs(), 4);
    out.push('-');
    push_padded(out, month.unsigned_abs(), 2);
    out.push('-');
    push_padded(out, day.unsigned_abs(), 2);
}

fn push_era(out: &mut String, year: i32) {
    if year <= 0 {
        out.push_str(" BC");
    }
}

fn push_time(out: &mut String, c: &Civil) {
    push_padded(out, c.hour.unsigned_abs(), 2);
    out.push(':');
    push_padded(out, c.minute.unsigned_abs(), 2);
    out.push(':');
    push_padded(out, c.second.unsigned_abs(), 2);
    push_fraction(out, c.micros.unsigned_abs());
}

/// Writes `.5` for 500_000 microseconds, nothing for 0.
pub(super) fn push_fraction(out: &mut String, micros: u32) {
    if micros != 0 {
        out.push('.');
        let (mut digits, mut width) = (micros, 6);
        while digits % 10 == 0 {
            digits /= 10;
            width -= 1;
        }
        push_padded(out, digits, width);
    }
}

/// Writes a number with leading zeros. Written by hand for it is what every row of times spends its output in.
pub(super) fn push_padded(out: &mut String, number: u32, width: usize) {
    if width == 2 && number < 100 {
        out.push(char::from(b'0' + (number / 10) as u8));
        out.push(char::from(b'0' + (number % 10) as u8));
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "{number:0width$}");
    }
}

// ---- binary form ----

fn fixed_bytes<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    if bytes.len() < N {
        return Err(SqlError::new(state::PROTOCOL_VIOLATION, "insufficient data left in message"));
    }
    bytes.try_into().map_err(|_| {
        SqlError::new(state::INVALID_BINARY_REPRESENTATION, "incorrect binary data format in bind parameter")
    })
}

/// Reads the binary form of a date.
pub fn date_recv(bytes: &[u8]) -> Result<i32> {
    let days = i32::from_be_bytes(fixed_bytes(bytes)?);
    if date_is_finite(days) && !date_in_range(days) {
        return Err(date_out_of_range());
    }
    Ok(days)
}

/// Reads the binary form of a time.
pub fn time_recv(bytes: &[u8], typmod: i32) -> Result<i64> {
    let micros = i64::from_be_bytes(fixed_bytes(bytes)?);
    if !(0..=DAY).contains(&micros) {
        return Err(SqlError::new(state::DATETIME_FIELD_OVERFLOW, "time out of range"));
    }
    Ok(round_micros(micros, typmod))
}

/// Reads the binary form of a timestamp or timestamptz.
pub fn timestamp_recv(bytes: &[u8], typmod: i32) -> Result<i64> {
    let micros = i64::from_be_bytes(fixed_bytes(bytes)?);
    if is_finite(micros) && !timestamp_in_range(micros) {
        return Err(timestamp_out_of_range());
    }
    Ok(round_timestamp(micros, typmod))
}

/// Reads the binary form of an interval: microseconds, days, months.
pub fn interval_recv(bytes: &[u8], typmod: i32) -> Result<super::Interval> {
    let b: [u8; 16] = fixed_bytes(bytes)?;
    let int = |at: usize| i32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let micros = i64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    super::Interval { months: int(12), days: int(8), micros }.with_typmod(typmod)
}

/// Appends the binary form of a date.
pub fn date_send(days: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&days.to_be_bytes());
}

/// Appends the binary form of a time, timestamp or timestamptz.
pub fn micros_send(micros: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&micros.to_be_bytes());
}

/// Appends the binary form of an interval.
pub fn interval_send(span: &super::Interval, out: &mut Vec<u8>) {
    out.extend_from_slice(&span.micros.to_be_bytes());
    out.extend_from_slice(&span.days.to_be_bytes());
    out.extend_from_slice(&span.months.to_be_bytes());
}
