//! Reading times by template: `to_date` and `to_timestamp`.
//!
//! Reading is forgiving, as PostgreSQL's is: outside fixed mode (`FX`) blanks are skipped, a separator of the template
//! matches any separator or nothing, and other characters of the template swallow one character each. What the fields
//! said is collected in [`Found`], where 0 means "not said", and put together at the end.

use super::super::datetime::{DAY_NAMES, MONTH_NAMES};
use super::date::ROMAN;
use super::template::{Field, Key, Keyword, Mode, Node, is_space, nodes};
use crate::error::{Result, SqlError, state};
use crate::types::datetime::calendar::{JULIAN_2000, from_days, is_julian, is_leap, iso_year_start};
use crate::types::datetime::parse::{Bad, check_month_and_day, local_micros};
use crate::types::datetime::{Civil, date_in_range, round_timestamp, timestamp_out_of_range};
use crate::types::timezone::TimeZone;

/// Reads a date: its days.
pub(super) fn to_date(text: &str, template: &str) -> Result<i32> {
    let civil = read(text, template)?.civil;
    let days = Some(civil.days()).filter(|d| is_julian(civil.year, civil.month) && date_in_range(*d));
    days.ok_or_else(|| SqlError::new(state::DATETIME_FIELD_OVERFLOW, format!("date out of range: \"{text}\"")))
}

/// Reads a timestamptz; a time without a zone is one of `zone`'s clocks.
pub(super) fn to_timestamp(text: &str, template: &str, zone: &TimeZone) -> Result<i64> {
    let read = read(text, template)?;
    let east = match read.east {
        Some(east) => east,
        None => zone.offset_of_local(local_micros(&read.civil)),
    };
    let micros = read.civil.timestamp(east).ok_or_else(timestamp_out_of_range)?;
    Ok(if read.places == 0 { micros } else { round_timestamp(micros, read.places as i32) })
}

struct Read {
    civil: Civil,
    east: Option<i32>,
    /// n of FFn, or 0.
    places: u32,
}

/// What the fields said.
#[derive(Default)]
struct Found {
    mode: Option<Mode>,
    hour: i32,
    twelve_hours: bool,
    afternoon: i32,
    minute: i32,
    second: i32,
    second_of_day: i32,
    /// 1 is Sunday.
    weekday: i32,
    day: i32,
    day_of_year: i32,
    month: i32,
    millis: i32,
    micros: i32,
    year: i32,
    year_digits: usize,
    bc: i32,
    week: i32,
    week_of_month: i32,
    century: i32,
    julian: i32,
    places: u32,
    /// 1 or -1; 0 if there was no zone.
    zone_sign: i32,
    zone_hour: i32,
    zone_minute: i32,
}

fn bad_format(message: String) -> SqlError {
    SqlError::new(state::INVALID_DATETIME_FORMAT, message)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    fixed: bool,
    /// Characters skipped beyond what the template asked for.
    extra: i32,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }
    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }
    fn skip(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }
    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
            self.extra += 1;
        }
    }

    /// An integer of at most `width` characters, or of any number if no digit can follow it. Stored in `slot` unless that
    /// holds another value already. How many characters it took, blanks before it included.
    fn integer(&mut self, slot: &mut i32, width: usize, field: &Field, ends: bool) -> Result<usize> {
        let name = field.keyword.name;
        let start = self.at;
        let blanks = self.rest().len() - self.rest().trim_start_matches(is_space).len();
        let body = &self.text[start + blanks..];
        let piece: String = String::from_utf8_lossy(&body.as_bytes()[..body.len().min(width)]).into_owned();
        let fixed_width = "If your source string is not fixed-width, try using the \"FM\" modifier.";
        let number;
        if field.fill || ends {
            let length = number_length(body);
            number = body[..length].parse::<i64>();
            self.at = if length == 0 { start } else { start + blanks + length };
        } else {
            if body.len() < width {
                return Err(bad_format(format!("source string too short for \"{name}\" formatting field"))
                    .detail(format!("Field requires {width} characters, but only {} remain.", body.len()))
                    .hint(fixed_width));
            }
            // strtol skips blanks of its own, but there are none left here.
            let length = number_length(&piece);
            if length > 0 && length < width {
                return Err(bad_format(format!("invalid value \"{piece}\" for \"{name}\""))
                    .detail(format!("Field requires {width} characters, but only {length} could be parsed."))
                    .hint(fixed_width));
            }
            number = if length == 0 { Ok(0) } else { piece[..length].parse() };
            self.at = start + blanks + length;
        }
        if self.at == start {
            return Err(
                bad_format(format!("invalid value \"{piece}\" for \"{name}\"")).detail("Value must be an integer.")
            );
        }
        let Some(value) = number.ok().and_then(|n| i32::try_from(n).ok()) else {
            return Err(SqlError::new(
                state::DATETIME_FIELD_OVERFLOW,
                format!("value for \"{name}\" in source string is out of range"),
            )
            .detail("Value must be in the range -2147483648 to 2147483647."));
        };
        set(slot, value, field.keyword)?;
        Ok(self.at - start)
    }

    /// The first of some names that stands here, in any case: its index.
    fn name(&mut self, names: &[&str], keyword: &Keyword) -> Result<i32> {
        let rest = self.rest().as_bytes();
        let found =
            names.iter().position(|n| rest.len() >= n.len() && rest[..n.len()].eq_ignore_ascii_case(n.as_bytes()));
        match found {
            Some(i) => {
                self.at += names[i].len();
                Ok(i as i32)
            }
            None => {
                let shown = self.rest().split(is_space).next().unwrap_or_default();
                Err(bad_format(format!("invalid value \"{shown}\" for \"{}\"", keyword.name))
                    .detail("The given value did not match any of the allowed values for this field."))
            }
        }
    }
}

/// Length of the sign and digits a text begins with; 0 without digits.
fn number_length(text: &str) -> usize {
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 { 0 } else { sign + digits }
}

fn set(slot: &mut i32, value: i32, keyword: &Keyword) -> Result<()> {
    if *slot != 0 && *slot != value {
        return Err(bad_format(format!("conflicting values for \"{}\" field in formatting string", keyword.name))
            .detail("This value contradicts a previous setting for the same field type."));
    }
    *slot = value;
    Ok(())
}

/// Whether a field is known to end where digits end: no digit can begin what follows.
fn ends_number(field: &Field, next: Option<&Node>) -> bool {
    field.ordinal.is_some()
        || match next {
            None => true,
            Some(Node::Field(next)) => !next.keyword.digits,
            Some(Node::Separator(c) | Node::Space(c) | Node::Literal(c)) => !c.is_ascii_digit(),
        }
}

fn scan(text: &str, template: &str) -> Result<Found> {
    let nodes = nodes(template);
    let mut s = Scanner { text, at: 0, fixed: false, extra: 0 };
    let mut found = Found::default();
    for (i, node) in nodes.iter().enumerate() {
        if s.rest().is_empty() {
            break;
        }
        let fixed_keyword = matches!(node, Node::Field(f) if f.keyword.key == Key::Fixed);
        if !s.fixed && !fixed_keyword && (matches!(node, Node::Field(_)) || i == 0) {
            s.skip_spaces();
        }
        match node {
            Node::Separator(_) | Node::Space(_) if !s.fixed => {
                s.extra -= 1;
                if s.peek().is_some_and(|c| is_space(c) || c.is_ascii_punctuation()) {
                    s.skip();
                    s.extra += 1;
                }
            }
            Node::Literal(_) if !s.fixed && s.extra > 0 => s.extra -= 1,
            Node::Separator(_) | Node::Space(_) | Node::Literal(_) => s.skip(),
            Node::Field(field) => {
                scan_field(&mut s, &mut found, field, ends_number(field, nodes.get(i + 1)))?;
                if !s.fixed {
                    s.extra = 0;
                    s.skip_spaces();
                }
            }
        }
    }
    Ok(found)
}

fn scan_field(s: &mut Scanner<'_>, found: &mut Found, field: &Field, ends: bool) -> Result<()> {
    let keyword = field.keyword;
    if keyword.mode != Mode::Any && *found.mode.get_or_insert(keyword.mode) != keyword.mode {
        return Err(bad_format("invalid combination of date conventions".into())
            .hint("Do not mix Gregorian and ISO week date conventions in a formatting template."));
    }
    let width = keyword.name.len();
    match keyword.key {
        Key::Fixed => {
            s.fixed = true;
            return Ok(());
        }
        Key::Meridiem(_, points) => {
            let names = if points { ["a.m.", "p.m."] } else { ["am", "pm"] };
            let value = s.name(&names, keyword)?;
            found.twelve_hours = true;
            return set(&mut found.afternoon, value, keyword);
        }
        Key::Era(_, points) => {
            let names = if points { ["a.d.", "b.c."] } else { ["ad", "bc"] };
            let value = s.name(&names, keyword)?;
            return set(&mut found.bc, value, keyword);
        }
        Key::MonthName(_) => {
            let value = s.name(&MONTH_NAMES, keyword)?;
            return set(&mut found.month, value + 1, keyword);
        }
        Key::MonthShort(_) => {
            let value = s.name(&MONTH_NAMES.map(|n| &n[..3]), keyword)?;
            return set(&mut found.month, value + 1, keyword);
        }
        Key::Roman(_) => {
            // Longer numerals first: XII begins with X.
            let mut names = ROMAN;
            names.reverse();
            let value = s.name(&names, keyword)?;
            return set(&mut found.month, 12 - value, keyword);
        }
        Key::DayName(_) | Key::DayShort(_) => {
            let value = if matches!(keyword.key, Key::DayName(_)) {
                s.name(&DAY_NAMES, keyword)?
            } else {
                s.name(&DAY_NAMES.map(|n| &n[..3]), keyword)?
            };
            set(&mut found.weekday, value, keyword)?;
            found.weekday += 1;
            return Ok(());
        }
        Key::Zone(_) | Key::Offset => {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                format!("formatting field \"{}\" is only supported in to_char", keyword.name),
            ));
        }
        Key::ZoneHour => {
            // The sign may have been taken for a separator already.
            found.zone_sign = match s.peek() {
                Some('-') => -1,
                Some('+' | ' ') => 1,
                _ if s.extra > 0 && s.text[..s.at].ends_with('-') => -1,
                _ => 1,
            };
            if matches!(s.peek(), Some('+' | '-' | ' ')) {
                s.skip();
            }
            s.integer(&mut found.zone_hour, 2, field, ends)?;
            return Ok(());
        }
        Key::ZoneMinute => {
            if found.zone_sign == 0 {
                found.zone_sign = 1;
            }
            s.integer(&mut found.zone_minute, 2, field, ends)?;
            return Ok(());
        }
        Key::Hour12 => {
            s.integer(&mut found.hour, 2, field, ends)?;
            found.twelve_hours = true;
        }
        Key::Hour24 => {
            s.integer(&mut found.hour, 2, field, ends)?;
        }
        Key::Minute => {
            s.integer(&mut found.minute, 2, field, ends)?;
        }
        Key::Second => {
            s.integer(&mut found.second, 2, field, ends)?;
        }
        Key::SecondOfDay => {
            s.integer(&mut found.second_of_day, width, field, ends)?;
        }
        Key::Millisecond => {
            // 25 is 250 milliseconds, 025 is 25.
            let length = s.integer(&mut found.millis, 3, field, ends)?;
            found.millis = found.millis.wrapping_mul(10_i32.pow(3_usize.saturating_sub(length) as u32));
        }
        Key::Microsecond | Key::Fraction(_) => {
            let mut places = 6;
            if let Key::Fraction(n) = keyword.key {
                found.places = n;
                places = n as usize;
            }
            let length = s.integer(&mut found.micros, places, field, ends)?;
            found.micros = found.micros.wrapping_mul(10_i32.pow(6_usize.saturating_sub(length) as u32));
        }
        Key::Month => {
            s.integer(&mut found.month, 2, field, ends)?;
        }
        Key::DayOfYear | Key::IsoDayOfYear => {
            s.integer(&mut found.day_of_year, 3, field, ends)?;
        }
        Key::Day => {
            s.integer(&mut found.day, 2, field, ends)?;
        }
        Key::DayOfWeek => {
            s.integer(&mut found.weekday, 1, field, ends)?;
        }
        Key::IsoDayOfWeek => {
            // Monday is 1 here, and 2 where the week begins with Sunday.
            s.integer(&mut found.weekday, 1, field, ends)?;
            found.weekday = if found.weekday >= 7 { 1 } else { found.weekday + 1 };
        }
        Key::WeekOfYear | Key::IsoWeek => {
            s.integer(&mut found.week, 2, field, ends)?;
        }
        Key::Quarter => {
            // Read and ignored: which of its days would be meant?
            s.integer(&mut 0, 1, field, ends)?;
        }
        Key::Century => {
            s.integer(&mut found.century, 2, field, ends)?;
        }
        Key::YearWithComma => {
            let (thousands, rest) =
                comma_year(s.rest()).ok_or_else(|| bad_format("invalid input string for \"Y,YYY\"".into()))?;
            let length = s.rest().len() - rest;
            s.at += length;
            set(&mut found.year, thousands, keyword)?;
            found.year_digits = 4;
        }
        Key::Year(digits) | Key::IsoYear(digits) => {
            let length = s.integer(&mut found.year, width, field, ends)?;
            if digits < 4 && length < 4 {
                found.year = near_2020(found.year);
            }
            found.year_digits = digits;
        }
        Key::WeekOfMonth => {
            s.integer(&mut found.week_of_month, 1, field, ends)?;
        }
        Key::Julian => {
            s.integer(&mut found.julian, 1, field, ends)?;
        }
    }
    if field.ordinal.is_some() {
        s.skip();
        s.skip();
    }
    Ok(())
}

/// `2,024` as a year and the length of what is left.
fn comma_year(text: &str) -> Option<(i32, usize)> {
    let body = text.trim_start_matches(is_space);
    let length = number_length(body);
    let thousands: i32 = body[..length].parse().ok()?;
    let rest = body[length..].strip_prefix(',')?;
    let rest = rest.trim_start_matches(is_space);
    let length = number_length(rest).min(3);
    let years: i32 = rest[..length].parse().ok()?;
    Some((thousands.checked_mul(1000)?.checked_add(years)?, rest.len() - length))
}

/// A year of fewer than four digits, moved close to 2020.
fn near_2020(year: i32) -> i32 {
    match year {
        ..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

fn read(text: &str, template: &str) -> Result<Read> {
    let mut f = scan(text, template)?;
    let mut c = Civil { month: 1, day: 1, ..Civil::default() };
    let (mut year_known, mut month_known, mut day_known) = (false, false, false);

    if f.second_of_day != 0 {
        c.hour = f.second_of_day / 3600;
        c.minute = f.second_of_day / 60 % 60;
        c.second = f.second_of_day % 60;
    }
    for (slot, value) in [(&mut c.second, f.second), (&mut c.minute, f.minute), (&mut c.hour, f.hour)] {
        if value != 0 {
            *slot = value;
        }
    }
    if f.twelve_hours {
        if !(1..=12).contains(&c.hour) {
            return Err(bad_format(format!("hour \"{}\" is invalid for the 12-hour clock", c.hour))
                .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
        }
        if f.afternoon != 0 && c.hour < 12 {
            c.hour += 12;
        } else if f.afternoon == 0 && c.hour == 12 {
            c.hour = 0;
        }
    }

    // Beyond any year there is, so that multiplying cannot overflow and the range check still fails.
    let century = f.century.clamp(-10_000_000, 10_000_000);
    let century = if f.bc != 0 { -century } else { century };
    if f.year != 0 {
        if f.century != 0 && f.year_digits <= 2 {
            // The year is two digits of that century; centuries end with their 100th year.
            let year = f.year % 100;
            c.year = match (year, century >= 0) {
                (0, true) => century * 100,
                (0, false) => century * 100 + 1,
                (_, true) => (century - 1) * 100 + year,
                (_, false) => (century + 1) * 100 - year + 1,
            };
        } else {
            c.year = if f.bc != 0 { f.year.wrapping_neg() } else { f.year };
            if c.year < 0 {
                c.year += 1;
            }
        }
        year_known = true;
    } else if f.century != 0 {
        c.year = if century >= 0 { (century - 1) * 100 + 1 } else { century * 100 + 1 };
        year_known = true;
    }

    let mut set_date = |c: &mut Civil, days: i64| {
        (c.year, c.month, c.day) = from_days(days.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32);
        (year_known, month_known, day_known) = (true, true, true);
    };
    if f.julian != 0 {
        set_date(&mut c, i64::from(f.julian) - i64::from(JULIAN_2000));
    }
    if f.week != 0 {
        if f.mode == Some(Mode::Iso) {
            let monday = i64::from(iso_year_start(c.year)) + i64::from(f.week - 1) * 7;
            let offset = match f.weekday {
                0 => 0,
                1 => 6,
                d => d - 2,
            };
            set_date(&mut c, monday + i64::from(offset));
        } else {
            f.day_of_year = (f.week.saturating_sub(1)).saturating_mul(7).saturating_add(1);
        }
    }
    if f.week_of_month != 0 {
        f.day = (f.week_of_month.saturating_sub(1)).saturating_mul(7).saturating_add(1);
    }
    if f.day != 0 {
        c.day = f.day;
        day_known = true;
    }
    if f.month != 0 {
        c.month = f.month;
        month_known = true;
    }
    if f.day_of_year != 0 && (c.month <= 1 || c.day <= 1) {
        if c.year == 0 && f.bc == 0 {
            return Err(bad_format("cannot calculate day of year without year information".into()));
        }
        if f.mode == Some(Mode::Iso) {
            let days = i64::from(iso_year_start(c.year)) + i64::from(f.day_of_year) - 1;
            (c.year, c.month, c.day) = from_days(days as i32);
            (year_known, month_known, day_known) = (true, true, true);
        } else {
            const BEFORE: [[i32; 13]; 2] = [
                [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365],
                [0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366],
            ];
            let before = &BEFORE[usize::from(is_leap(c.year))];
            let month = (1..=12).find(|m| f.day_of_year <= before[*m]).unwrap_or(13);
            if c.month <= 1 {
                c.month = month as i32;
            }
            if c.day <= 1 {
                c.day = f.day_of_year.saturating_sub(before[month - 1]);
            }
            (month_known, day_known) = (true, true);
        }
    }
    let micros = i64::from(f.millis) * 1000 + i64::from(f.micros);

    let overflow = || Bad::Overflow.report(text, "timestamp");
    if check_month_and_day(&c, month_known, day_known, year_known && month_known && day_known).is_err() {
        return Err(overflow());
    }
    let time_fits = (0..24).contains(&c.hour) && (0..60).contains(&c.minute) && (0..60).contains(&c.second);
    if !time_fits || !(0..1_000_000).contains(&micros) {
        return Err(overflow());
    }
    c.micros = micros as i32;
    let mut east = None;
    if f.zone_sign != 0 {
        if !(0..=15).contains(&f.zone_hour) || !(0..60).contains(&f.zone_minute) {
            return Err(Bad::Displacement.report(text, "timestamp"));
        }
        east = Some(f.zone_sign * (f.zone_hour * 3600 + f.zone_minute * 60));
    }
    Ok(Read { civil: c, east, places: f.places })
}
