//! Reading dates and times out of text, with PostgreSQL's rules for what an ambiguous field means.
//!
//! Text is cut into fields by shape alone ([`fields`]): numbers, words, things with two delimiters (dates), with colons
//! (times), with a leading sign (zones). Then the fields are read from left to right; which parts of the date are
//! known already decides what a bare number is. `1/2/2024` is settled by [`DateOrder`]. What follows is deliberately
//! faithful to PostgreSQL 15, odd corners included, for people store text that only it can read.
//!
//! Range checks beyond a calendar's (does February have a 30th?) are left to the callers.

mod fields;
mod words;

use super::calendar::{JULIAN_2000, days_in_month, from_days, to_days};
use super::{Civil, DAY, InputCx};
use crate::error::{SqlError, state};
use crate::functions::context::DateOrder;
use crate::types::timezone::{Abbreviation, TimeZone, abbreviation};
use words::{Unit, Word, word};

use fields::{MAX_FIELDS, fraction_micros, integer};
pub(crate) use fields::{Shape, clock, displacement, fields, fraction_value};

/// Why text could not be read. Turned into an SQL error by [`Bad::report`], which knows the whole text.
#[derive(Debug)]
pub(crate) enum Bad {
    /// 22007.
    Format,
    /// 22008.
    Overflow,
    /// 22008 with a hint about DateStyle.
    MonthDay,
    /// 22015.
    Interval,
    /// 22009.
    Displacement,
    /// Something that has its own wording.
    Other(SqlError),
}

type Read<T> = Result<T, Bad>;

impl Bad {
    /// The SQL error about `text`, which should have been a `type_name`.
    pub(crate) fn report(self, text: &str, type_name: &str) -> SqlError {
        let out_of_range = |what: &str| format!("{what} out of range: \"{text}\"");
        match self {
            Bad::Format => SqlError::new(
                state::INVALID_DATETIME_FORMAT,
                format!("invalid input syntax for type {type_name}: \"{text}\""),
            ),
            Bad::Overflow => SqlError::new(state::DATETIME_FIELD_OVERFLOW, out_of_range("date/time field value")),
            Bad::MonthDay => SqlError::new(state::DATETIME_FIELD_OVERFLOW, out_of_range("date/time field value"))
                .hint("Perhaps you need a different \"datestyle\" setting."),
            Bad::Interval => SqlError::new(state::INTERVAL_FIELD_OVERFLOW, out_of_range("interval field value")),
            Bad::Displacement => {
                SqlError::new(state::INVALID_TIME_ZONE_DISPLACEMENT_VALUE, out_of_range("time zone displacement"))
            }
            Bad::Other(error) => error,
        }
    }
}

/// What a text turned out to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The parts in [`Decoded::civil`].
    Civil,
    /// 1970-01-01 00:00 UTC.
    Epoch,
    Infinity,
    NegInfinity,
}

/// A text read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    pub moment: Moment,
    pub civil: Civil,
    /// Seconds east of Greenwich.
    pub east: i32,
}

/// Reads a date with or without a time and a zone.
pub(crate) fn datetime(text: &str, cx: &InputCx<'_>) -> Read<Decoded> {
    if let Some(fast) = iso(text) {
        return Ok(Decoded { moment: Moment::Civil, civil: fast, east: cx.zone.offset_of_local(local_micros(&fast)) });
    }
    let list = fields(text, 128 + MAX_FIELDS)?;
    let mut reader = Reader::new(cx, false);
    reader.read_all(&list)?;
    reader.check_calendar()?;
    reader.apply_meridiem()?;
    if reader.moment == Moment::Civil {
        if reader.seen & DATE != DATE {
            return Err(Bad::Format);
        }
        reader.settle_zone()?;
    }
    Ok(Decoded { moment: reader.moment, civil: reader.tm, east: reader.east })
}

/// Reads a time of day. A date and a zone may stand beside it.
pub(crate) fn time(text: &str, cx: &InputCx<'_>) -> Read<Civil> {
    let list = fields(text, 128 + MAX_FIELDS)?;
    let mut reader = Reader::new(cx, true);
    reader.read_all(&list)?;
    reader.check_calendar()?;
    reader.apply_meridiem()?;
    let tm = &reader.tm;
    if time_overflows(tm) {
        return Err(Bad::Overflow);
    }
    if reader.seen & TIME != TIME {
        return Err(Bad::Format);
    }
    // A zone whose offset changes means nothing without a date. An abbreviation is taken as of today.
    let changing = matches!(&reader.zone, Some(LateZone::Named(z)) if !z.is_constant());
    if changing && reader.seen & DATE != DATE {
        return Err(Bad::Format);
    }
    if reader.zone.is_some() && reader.seen & ZONE_MODIFIER != 0 {
        return Err(Bad::Format);
    }
    if reader.seen & ZONE == 0 && reader.seen & ZONE_MODIFIER != 0 {
        return Err(Bad::Format);
    }
    Ok(Civil { year: 0, month: 0, day: 0, ..reader.tm })
}

/// What nearly all input looks like, without taking the long way: `2024-02-03`, or `2024-02-03 10:11:12.5`.
fn iso(text: &str) -> Option<Civil> {
    let b = text.as_bytes();
    let two = |at: usize| -> Option<i32> {
        let (tens, ones) = (b.get(at)?.wrapping_sub(b'0'), b.get(at + 1)?.wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i32::from(tens) * 10 + i32::from(ones))
    };
    if !(b.len() == 10 || (19..=26).contains(&b.len())) || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let mut c = Civil { year: two(0)? * 100 + two(2)?, month: two(5)?, day: two(8)?, ..Civil::default() };
    if c.year < 1 || !(1..=12).contains(&c.month) || c.day < 1 || c.day > days_in_month(c.year, c.month) {
        return None;
    }
    if b.len() > 10 {
        if !matches!(b[10], b' ' | b'T') || b[13] != b':' || b[16] != b':' {
            return None;
        }
        (c.hour, c.minute, c.second) = (two(11)?, two(14)?, two(17)?);
        if c.hour > 23 || c.minute > 59 || c.second > 59 {
            return None;
        }
        if b.len() > 19 {
            if b[19] != b'.' || b.len() == 20 {
                return None;
            }
            for at in 20..26 {
                let digit = match b.get(at) {
                    Some(d @ b'0'..=b'9') => i32::from(d - b'0'),
                    Some(_) => return None,
                    None => 0,
                };
                c.micros = c.micros * 10 + digit;
            }
        }
    }
    Some(c)
}

/// Local microseconds of parts whose year may be far out of range: good enough to ask a zone for its offset.
pub(crate) fn local_micros(c: &Civil) -> i64 {
    i64::from(c.days()).saturating_mul(DAY).saturating_add(c.time())
}

fn time_overflows(tm: &Civil) -> bool {
    tm.hour < 0
        || !(0..=59).contains(&tm.minute)
        || !(0..=60).contains(&tm.second)
        || !(0..=1_000_000).contains(&tm.micros)
        || tm.time() > DAY
}

// Parts of a moment, as bits of a set.
const YEAR: u32 = 1;
const MONTH: u32 = 1 << 1;
const DAY_OF_MONTH: u32 = 1 << 2;
const HOUR: u32 = 1 << 3;
const MINUTE: u32 = 1 << 4;
const SECOND: u32 = 1 << 5;
const SUBSECOND: u32 = 1 << 6;
const ZONE: u32 = 1 << 7;
const ZONE_MODIFIER: u32 = 1 << 8;
const DAYLIGHT: u32 = 1 << 9;
const DAY_OF_YEAR: u32 = 1 << 10;
const WEEKDAY: u32 = 1 << 11;
const MERIDIEM: u32 = 1 << 12;
const ERA: u32 = 1 << 13;
const RESERVED: u32 = 1 << 14;
const DYNAMIC: u32 = 1 << 15;
const DATE: u32 = YEAR | MONTH | DAY_OF_MONTH;
const ALL_SECONDS: u32 = SECOND | SUBSECOND;
const TIME: u32 = HOUR | MINUTE | ALL_SECONDS;

/// A zone whose offset has to wait for the date.
enum LateZone {
    Named(TimeZone),
    Abbreviated(TimeZone, String),
}

struct Reader<'a> {
    cx: &'a InputCx<'a>,
    time_only: bool,
    seen: u32,
    tm: Civil,
    day_of_year: i32,
    moment: Moment,
    east: i32,
    /// `y`, `j`, `t` ... before the number it is about.
    prefix: Option<Unit>,
    afternoon: Option<bool>,
    bc: bool,
    text_month: bool,
    julian: bool,
    short_year: bool,
    zone: Option<LateZone>,
}

impl<'a> Reader<'a> {
    fn new(cx: &'a InputCx<'a>, time_only: bool) -> Self {
        Reader {
            cx,
            time_only,
            seen: 0,
            tm: Civil::default(),
            day_of_year: 0,
            moment: Moment::Civil,
            east: 0,
            prefix: None,
            afternoon: None,
            bc: false,
            text_month: false,
            julian: false,
            short_year: false,
            zone: None,
        }
    }

    fn read_all(&mut self, list: &[(Shape, String)]) -> Read<()> {
        for (at, (shape, field)) in list.iter().enumerate() {
            let found = match shape {
                Shape::Date => self.date_shape(field, at, list)?,
                Shape::Time => self.time_shape(field)?,
                Shape::Zone => {
                    self.east = displacement(field)?;
                    ZONE
                }
                Shape::Number => match self.prefix.take() {
                    Some(prefix) => self.labelled(field, prefix)?,
                    None => self.number_shape(field, at, list)?,
                },
                Shape::Word | Shape::SignedWord => match self.word(field, list.get(at + 1).map(|f| f.0))? {
                    Some(found) => found,
                    None => continue,
                },
            };
            if found & self.seen != 0 {
                return Err(Bad::Format);
            }
            self.seen |= found;
        }
        Ok(())
    }

    /// In a time only, numbers are read as if the date were known.
    fn known(&self) -> u32 {
        if self.time_only { self.seen | DATE } else { self.seen }
    }

    fn date_shape(&mut self, field: &str, at: usize, list: &[(Shape, String)]) -> Read<u32> {
        if self.time_only {
            let dated = list.len() >= 2 && (list[list.len() - 1].0 == Shape::Date || list[1].0 == Shape::Time);
            if at == 0 && dated {
                return self.date(field);
            }
            if field.as_bytes()[0].is_ascii_digit() {
                return self.time_with_zone(field);
            }
            return self.zone_name(field);
        }
        if self.prefix == Some(Unit::Julian) {
            self.prefix = None;
            let (day, used) = integer(field).filter(|(v, _)| *v >= 0).ok_or(Bad::Overflow)?;
            self.set_julian(day);
            self.east = displacement(&field[used..])?;
            return Ok(DATE | TIME | ZONE);
        }
        if self.prefix.is_some() || self.seen & (MONTH | DAY_OF_MONTH) == MONTH | DAY_OF_MONTH {
            if self.prefix.is_some() || field.as_bytes()[0].is_ascii_digit() {
                if self.prefix.take().is_some_and(|p| p != Unit::Time) {
                    return Err(Bad::Format);
                }
                return self.time_with_zone(field);
            }
            return self.zone_name(field);
        }
        self.date(field)
    }

    /// `hhmmss-zz`
    fn time_with_zone(&mut self, field: &str) -> Read<u32> {
        if self.seen & TIME == TIME {
            return Err(Bad::Format);
        }
        let minus = field.find('-').ok_or(Bad::Format)?;
        self.east = displacement(&field[minus..])?;
        Ok(self.run_together(&field[..minus], self.known())? | ZONE)
    }

    fn zone_name(&mut self, field: &str) -> Read<u32> {
        let zone = TimeZone::get(field).ok_or_else(|| {
            Bad::Other(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("time zone \"{field}\" not recognized")))
        })?;
        self.zone = Some(LateZone::Named(zone));
        Ok(ZONE)
    }

    fn time_shape(&mut self, field: &str) -> Read<u32> {
        if self.prefix.take().is_some_and(|p| p != Unit::Time) {
            return Err(Bad::Format);
        }
        let (hour, minute, second, micros) = clock(field, false)?;
        self.tm.hour = i32::try_from(hour).map_err(|_| Bad::Overflow)?;
        (self.tm.minute, self.tm.second, self.tm.micros) = (minute, second, micros);
        if !self.time_only && time_overflows(&self.tm) {
            return Err(Bad::Overflow);
        }
        Ok(TIME)
    }

    /// A number after a word that says what it is: `y2001m02d04`, `J2451187`, `T040506`.
    fn labelled(&mut self, field: &str, prefix: Unit) -> Read<u32> {
        let (value, used) = integer(field).ok_or(Bad::Overflow)?;
        let rest = &field[used..];
        let decimal = rest.starts_with('.');
        if decimal && !matches!(prefix, Unit::Julian | Unit::Time | Unit::Second) || !decimal && !rest.is_empty() {
            return Err(Bad::Format);
        }
        let found = match prefix {
            Unit::Year => {
                self.tm.year = value;
                YEAR
            }
            Unit::Month if self.seen & (MONTH | HOUR) == MONTH | HOUR => {
                self.tm.minute = value;
                MINUTE
            }
            Unit::Month => {
                self.tm.month = value;
                MONTH
            }
            Unit::Day => {
                self.tm.day = value;
                DAY_OF_MONTH
            }
            Unit::Hour => {
                self.tm.hour = value;
                HOUR
            }
            Unit::Minute => {
                self.tm.minute = value;
                MINUTE
            }
            Unit::Second => {
                self.tm.second = value;
                if decimal {
                    self.tm.micros = fraction_micros(rest)?;
                    ALL_SECONDS
                } else {
                    SECOND
                }
            }
            Unit::Julian => {
                if value < 0 {
                    return Err(Bad::Overflow);
                }
                self.set_julian(value);
                if decimal {
                    let time = Civil::from_time((fraction_value(rest)? * DAY as f64) as i64);
                    (self.tm.hour, self.tm.minute, self.tm.second, self.tm.micros) =
                        (time.hour, time.minute, time.second, time.micros);
                    DATE | TIME
                } else {
                    DATE
                }
            }
            Unit::Time => {
                let found = self.run_together(field, self.seen | DATE)?;
                if found != TIME {
                    return Err(Bad::Format);
                }
                found
            }
            Unit::Other => return Err(Bad::Format),
        };
        self.moment = Moment::Civil;
        Ok(found)
    }

    fn number_shape(&mut self, field: &str, at: usize, list: &[(Shape, String)]) -> Read<u32> {
        let point = field.find('.');
        if self.time_only {
            return match point {
                Some(_) if at == 0 && list.len() >= 2 && list[list.len() - 1].0 == Shape::Date => self.date(field),
                Some(point) if point > 2 => self.run_together(field, self.known()),
                Some(_) => Err(Bad::Format),
                None if field.len() > 4 => self.run_together(field, self.known()),
                None => self.number(field, false, self.known()),
            };
        }
        match point {
            Some(_) if self.seen & DATE == 0 => self.date(field),
            Some(point) if point > 2 => self.run_together(field, self.seen),
            // Five digits are a year; six or more are a date or a time, unless there is some of both already.
            _ if field.len() >= 6 && (self.seen & DATE == 0 || self.seen & TIME == 0) => {
                self.run_together(field, self.seen)
            }
            _ => self.number(field, self.text_month, self.seen),
        }
    }

    /// A word. None: it means nothing.
    fn word(&mut self, field: &str, next: Option<Shape>) -> Read<Option<u32>> {
        if let Some(meaning) = abbreviation(field) {
            match meaning {
                Abbreviation::Fixed(east, daylight) => {
                    self.east = east;
                    return Ok(Some(if daylight { ZONE | DAYLIGHT } else { ZONE }));
                }
                Abbreviation::Zone(name) => {
                    let zone = TimeZone::get(name).ok_or(Bad::Format)?;
                    self.zone = Some(LateZone::Abbreviated(zone, field.to_owned()));
                    return Ok(Some(ZONE | DYNAMIC));
                }
            }
        }
        let Some(meaning) = word(field) else {
            let zone = TimeZone::get(field).ok_or(Bad::Format)?;
            self.zone = Some(LateZone::Named(zone));
            return Ok(Some(ZONE));
        };
        let found = match meaning {
            Word::Noise => return Ok(None),
            Word::Now => {
                let now = Civil::from_micros(self.cx.zone.utc_to_local(self.cx.now));
                if self.time_only {
                    (self.tm.hour, self.tm.minute, self.tm.second, self.tm.micros) =
                        (now.hour, now.minute, now.second, now.micros);
                    TIME
                } else {
                    self.tm = now;
                    self.east = self.cx.zone.offset_at(self.cx.now);
                    self.moment = Moment::Civil;
                    DATE | TIME | ZONE
                }
            }
            Word::AllBalls => {
                (self.tm.hour, self.tm.minute, self.tm.second) = (0, 0, 0);
                self.east = 0;
                self.moment = Moment::Civil;
                TIME | ZONE
            }
            Word::Meridiem(afternoon) => {
                self.afternoon = Some(afternoon);
                MERIDIEM
            }
            Word::Era(bc) => {
                self.bc = bc;
                ERA
            }
            Word::Unit(unit) => {
                self.prefix = Some(unit);
                0
            }
            Word::TimeFollows => {
                if !self.time_only && self.seen & DATE != DATE {
                    return Err(Bad::Format);
                }
                if !matches!(next, Some(Shape::Number | Shape::Time | Shape::Date)) {
                    return Err(Bad::Format);
                }
                self.prefix = Some(Unit::Time);
                0
            }
            Word::Daylight => {
                self.east += 3600;
                ZONE_MODIFIER | DAYLIGHT
            }
            _ if self.time_only => return Err(Bad::Format),
            Word::Day(offset) => {
                let today = self.cx.zone.utc_to_local(self.cx.now).div_euclid(DAY) as i32;
                (self.tm.year, self.tm.month, self.tm.day) = from_days(today + offset);
                self.moment = Moment::Civil;
                DATE
            }
            Word::Moment(moment) => {
                self.moment = moment;
                RESERVED
            }
            Word::Month(month) => {
                let mut found = MONTH;
                // What was taken for a month was the day: "5 January".
                if self.seen & MONTH != 0
                    && !self.text_month
                    && self.seen & DAY_OF_MONTH == 0
                    && (1..=31).contains(&self.tm.month)
                {
                    self.tm.day = self.tm.month;
                    found = DAY_OF_MONTH;
                }
                self.text_month = true;
                self.tm.month = month;
                found
            }
            Word::Weekday => WEEKDAY,
        };
        Ok(Some(found))
    }

    /// A date with delimiters: `2024-02-03`, `3-Feb-2024`, `2024.045`.
    fn date(&mut self, field: &str) -> Read<u32> {
        let mut seen = self.seen;
        let mut found = 0;
        let mut text_month = false;
        let mut numbers = Vec::with_capacity(3);
        let b = field.as_bytes();
        let (mut at, mut count) = (0, 0);
        while at < b.len() && count < MAX_FIELDS {
            while at < b.len() && !b[at].is_ascii_alphanumeric() {
                at += 1;
            }
            if at == b.len() {
                return Err(Bad::Format);
            }
            let start = at;
            let same: fn(&u8) -> bool =
                if b[at].is_ascii_digit() { u8::is_ascii_digit } else { u8::is_ascii_alphabetic };
            while at < b.len() && same(&b[at]) {
                at += 1;
            }
            let part = &field[start..at];
            // Whatever ends the part goes with it, a letter after digits included.
            at += 1;
            count += 1;
            if part.as_bytes()[0].is_ascii_digit() {
                numbers.push(part);
                continue;
            }
            match word(part) {
                Some(Word::Month(month)) => {
                    self.tm.month = month;
                    text_month = true;
                    if seen & MONTH != 0 {
                        return Err(Bad::Format);
                    }
                    seen |= MONTH;
                    found |= MONTH;
                }
                _ => return Err(Bad::Format),
            }
        }
        for part in numbers {
            let more = self.number(part, text_month, seen)?;
            if seen & more != 0 {
                return Err(Bad::Format);
            }
            seen |= more;
            found |= more;
        }
        if seen & !(DAY_OF_YEAR | ZONE) != DATE { Err(Bad::Format) } else { Ok(found) }
    }

    /// A bare number, meaning what is still missing.
    fn number(&mut self, field: &str, text_month: bool, seen: u32) -> Read<u32> {
        let (value, used) = integer(field).ok_or(Bad::Overflow)?;
        if used == 0 {
            return Err(Bad::Format);
        }
        let rest = &field[used..];
        if rest.starts_with('.') {
            if used > 2 {
                return self.run_together(field, seen | DATE);
            }
            self.tm.micros = fraction_micros(rest)?;
        } else if !rest.is_empty() {
            return Err(Bad::Format);
        }
        let length = field.len();
        if length == 3 && seen & DATE == YEAR && (1..=366).contains(&value) {
            self.day_of_year = value;
            return Ok(DAY_OF_YEAR | MONTH | DAY_OF_MONTH);
        }
        let year_first = length >= 3 || self.cx.order == DateOrder::Ymd;
        let part = match seen & DATE {
            0 if year_first => YEAR,
            0 if self.cx.order == DateOrder::Dmy => DAY_OF_MONTH,
            0 | YEAR | DAY_OF_MONTH => MONTH,
            MONTH if text_month && year_first => YEAR,
            MONTH => DAY_OF_MONTH,
            s if s == YEAR | MONTH => {
                if text_month && length >= 3 && self.short_year {
                    // The first number was the day after all: DD-MON-YYYY although years come first.
                    self.tm.day = self.tm.year;
                    self.tm.year = value;
                    self.short_year = false;
                    return Ok(DAY_OF_MONTH);
                }
                DAY_OF_MONTH
            }
            s if s == MONTH | DAY_OF_MONTH => YEAR,
            DATE => return self.run_together(field, seen),
            _ => return Err(Bad::Format),
        };
        match part {
            YEAR => {
                self.tm.year = value;
                self.short_year = length <= 2;
            }
            MONTH => self.tm.month = value,
            _ => self.tm.day = value,
        }
        Ok(part)
    }

    /// `yyyymmdd`, `yymmdd`, `hhmmss`, `hhmm`: which one depends on what is known.
    fn run_together(&mut self, field: &str, seen: u32) -> Read<u32> {
        let mut digits = field;
        let part = |s: &str| s.parse::<i32>().map_err(|_| Bad::Overflow);
        if let Some(point) = field.find('.') {
            self.tm.micros = fraction_micros(&field[point..])?;
            digits = &field[..point];
        } else if seen & DATE != DATE && digits.len() >= 6 {
            let n = digits.len();
            self.tm.day = part(&digits[n - 2..])?;
            self.tm.month = part(&digits[n - 4..n - 2])?;
            self.tm.year = part(&digits[..n - 4])?;
            if n == 6 {
                self.short_year = true;
            }
            return Ok(DATE);
        }
        if seen & TIME != TIME && matches!(digits.len(), 4 | 6) {
            self.tm.hour = part(&digits[..2])?;
            self.tm.minute = part(&digits[2..4])?;
            self.tm.second = if digits.len() == 6 { part(&digits[4..])? } else { 0 };
            return Ok(TIME);
        }
        Err(Bad::Format)
    }

    fn set_julian(&mut self, day: i32) {
        let days = i64::from(day) - i64::from(JULIAN_2000);
        (self.tm.year, self.tm.month, self.tm.day) = from_days(days as i32);
        self.julian = true;
    }

    /// The year as it was meant, the day of the year as a date, and whether the calendar has that day.
    fn check_calendar(&mut self) -> Read<()> {
        let tm = &mut self.tm;
        if self.seen & YEAR != 0 && !self.julian {
            if self.bc {
                if tm.year <= 0 {
                    return Err(Bad::Overflow);
                }
                tm.year = 1 - tm.year;
            } else if self.short_year {
                if tm.year < 0 {
                    return Err(Bad::Overflow);
                }
                tm.year += match tm.year {
                    0..=69 => 2000,
                    70..=99 => 1900,
                    _ => 0,
                };
            } else if tm.year <= 0 {
                return Err(Bad::Overflow);
            }
        }
        if self.seen & DAY_OF_YEAR != 0 {
            (tm.year, tm.month, tm.day) = from_days(to_days(tm.year, 1, 1).saturating_add(self.day_of_year - 1));
        }
        check_month_and_day(tm, self.seen & MONTH != 0, self.seen & DAY_OF_MONTH != 0, self.seen & DATE == DATE)
    }

    fn apply_meridiem(&mut self) -> Read<()> {
        let Some(afternoon) = self.afternoon else { return Ok(()) };
        match self.tm.hour {
            13.. => return Err(Bad::Overflow),
            12 if !afternoon => self.tm.hour = 0,
            12 => {}
            _ if afternoon => self.tm.hour += 12,
            _ => {}
        }
        Ok(())
    }

    fn settle_zone(&mut self) -> Read<()> {
        let local = local_micros(&self.tm);
        if let Some(zone) = &self.zone {
            if self.seen & ZONE_MODIFIER != 0 {
                return Err(Bad::Format);
            }
            self.east = match zone {
                LateZone::Named(zone) => zone.offset_of_local(local),
                LateZone::Abbreviated(zone, name) => zone
                    .offset_of_abbreviation(name, zone.local_to_utc(local))
                    .unwrap_or_else(|| zone.offset_of_local(local)),
            };
        }
        if self.seen & ZONE == 0 {
            if self.seen & ZONE_MODIFIER != 0 {
                return Err(Bad::Format);
            }
            self.east = self.cx.zone.offset_of_local(local);
        }
        Ok(())
    }
}

/// Whether the calendar has this month, day, and day of this month. [`Bad::MonthDay`] where another order of the parts
/// might have been meant.
pub(crate) fn check_month_and_day(tm: &Civil, month: bool, day: bool, full: bool) -> Read<()> {
    if month && !(1..=12).contains(&tm.month) || day && !(1..=31).contains(&tm.day) {
        return Err(Bad::MonthDay);
    }
    if full && tm.day > days_in_month(tm.year, tm.month) {
        return Err(Bad::Overflow);
    }
    Ok(())
}
