//! Templates for times: `YYYY-MM-DD "at" HH24:MI`, cut into nodes.
//!
//! The longest keyword wins because it stands first in the table, as `HH24` before `HH`. Keywords are all upper case, all lower
//! case, or (names of days and months) capitalised; anything else stands for itself.

/// A piece of a template.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// A field of a time.
    Field(Field),
    /// A character between fields that is neither letter nor digit.
    Separator(char),
    /// White space.
    Space(char),
    /// Any other character, and all quoted ones.
    Literal(char),
}

/// A keyword with what stood before and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub keyword: &'static Keyword,
    /// `FM`: no padding.
    pub fill: bool,
    /// `TM`: the locale's name, not padded.
    pub locale: bool,
    /// `TH` (true) or `th`.
    pub ordinal: Option<bool>,
}

/// A keyword.
#[derive(Debug)]
pub(super) struct Keyword {
    /// As it stands in templates and error messages.
    pub name: &'static str,
    pub key: Key,
    /// Whether what it reads begins with a digit: then the field before it has a fixed width.
    pub digits: bool,
    pub mode: Mode,
}

/// Which calendar a field belongs to; a template may not mix them when reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Any,
    Gregorian,
    Iso,
}

/// How a name is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Capital,
    Lower,
}

impl Case {
    pub(super) fn of(self, name: &str) -> String {
        match self {
            Case::Upper => name.to_ascii_uppercase(),
            Case::Capital => name.to_owned(),
            Case::Lower => name.to_ascii_lowercase(),
        }
    }
}

/// The fields. Where both spellings print the same, they are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// AD or BC; true with points.
    Era(Case, bool),
    /// AM or PM; true with points.
    Meridiem(Case, bool),
    Century,
    DayName(Case),
    DayShort(Case),
    DayOfYear,
    Day,
    DayOfWeek,
    /// FF1 to FF6.
    Fraction(u32),
    Fixed,
    Hour24,
    Hour12,
    IsoDayOfYear,
    IsoDayOfWeek,
    IsoWeek,
    /// Number of digits of the ISO year.
    IsoYear(usize),
    Julian,
    Minute,
    Month,
    MonthName(Case),
    MonthShort(Case),
    Millisecond,
    Offset,
    Quarter,
    Roman(Case),
    SecondOfDay,
    Second,
    ZoneHour,
    ZoneMinute,
    Zone(Case),
    Microsecond,
    WeekOfYear,
    WeekOfMonth,
    YearWithComma,
    /// Number of digits of the year.
    Year(usize),
}

const fn word(name: &'static str, key: Key, mode: Mode) -> Keyword {
    Keyword { name, key, digits: false, mode }
}
const fn digit(name: &'static str, key: Key, mode: Mode) -> Keyword {
    Keyword { name, key, digits: true, mode }
}

use Case::{Capital, Lower, Upper};
use Mode::{Any, Gregorian, Iso};

/// Per first letter, the more specific first.
static KEYWORDS: &[Keyword] = &[
    word("A.D.", Key::Era(Upper, true), Any),
    word("A.M.", Key::Meridiem(Upper, true), Any),
    word("AD", Key::Era(Upper, false), Any),
    word("AM", Key::Meridiem(Upper, false), Any),
    word("B.C.", Key::Era(Upper, true), Any),
    word("BC", Key::Era(Upper, false), Any),
    digit("CC", Key::Century, Any),
    word("DAY", Key::DayName(Upper), Any),
    digit("DDD", Key::DayOfYear, Gregorian),
    digit("DD", Key::Day, Gregorian),
    word("DY", Key::DayShort(Upper), Any),
    word("Day", Key::DayName(Capital), Any),
    word("Dy", Key::DayShort(Capital), Any),
    digit("D", Key::DayOfWeek, Gregorian),
    digit("FF1", Key::Fraction(1), Any),
    digit("FF2", Key::Fraction(2), Any),
    digit("FF3", Key::Fraction(3), Any),
    digit("FF4", Key::Fraction(4), Any),
    digit("FF5", Key::Fraction(5), Any),
    digit("FF6", Key::Fraction(6), Any),
    word("FX", Key::Fixed, Any),
    digit("HH24", Key::Hour24, Any),
    digit("HH12", Key::Hour12, Any),
    digit("HH", Key::Hour12, Any),
    digit("IDDD", Key::IsoDayOfYear, Iso),
    digit("ID", Key::IsoDayOfWeek, Iso),
    digit("IW", Key::IsoWeek, Iso),
    digit("IYYY", Key::IsoYear(4), Iso),
    digit("IYY", Key::IsoYear(3), Iso),
    digit("IY", Key::IsoYear(2), Iso),
    digit("I", Key::IsoYear(1), Iso),
    digit("J", Key::Julian, Any),
    digit("MI", Key::Minute, Any),
    digit("MM", Key::Month, Gregorian),
    word("MONTH", Key::MonthName(Upper), Gregorian),
    word("MON", Key::MonthShort(Upper), Gregorian),
    digit("MS", Key::Millisecond, Any),
    word("Month", Key::MonthName(Capital), Gregorian),
    word("Mon", Key::MonthShort(Capital), Gregorian),
    word("OF", Key::Offset, Any),
    word("P.M.", Key::Meridiem(Upper, true), Any),
    word("PM", Key::Meridiem(Upper, false), Any),
    digit("Q", Key::Quarter, Any),
    word("RM", Key::Roman(Upper), Gregorian),
    digit("SSSSS", Key::SecondOfDay, Any),
    digit("SSSS", Key::SecondOfDay, Any),
    digit("SS", Key::Second, Any),
    word("TZH", Key::ZoneHour, Any),
    digit("TZM", Key::ZoneMinute, Any),
    word("TZ", Key::Zone(Upper), Any),
    digit("US", Key::Microsecond, Any),
    digit("WW", Key::WeekOfYear, Gregorian),
    digit("W", Key::WeekOfMonth, Gregorian),
    digit("Y,YYY", Key::YearWithComma, Gregorian),
    digit("YYYY", Key::Year(4), Gregorian),
    digit("YYY", Key::Year(3), Gregorian),
    digit("YY", Key::Year(2), Gregorian),
    digit("Y", Key::Year(1), Gregorian),
    word("a.d.", Key::Era(Lower, true), Any),
    word("a.m.", Key::Meridiem(Lower, true), Any),
    word("ad", Key::Era(Lower, false), Any),
    word("am", Key::Meridiem(Lower, false), Any),
    word("b.c.", Key::Era(Lower, true), Any),
    word("bc", Key::Era(Lower, false), Any),
    digit("cc", Key::Century, Any),
    word("day", Key::DayName(Lower), Any),
    digit("ddd", Key::DayOfYear, Gregorian),
    digit("dd", Key::Day, Gregorian),
    word("dy", Key::DayShort(Lower), Any),
    digit("d", Key::DayOfWeek, Gregorian),
    digit("ff1", Key::Fraction(1), Any),
    digit("ff2", Key::Fraction(2), Any),
    digit("ff3", Key::Fraction(3), Any),
    digit("ff4", Key::Fraction(4), Any),
    digit("ff5", Key::Fraction(5), Any),
    digit("ff6", Key::Fraction(6), Any),
    word("fx", Key::Fixed, Any),
    digit("hh24", Key::Hour24, Any),
    digit("hh12", Key::Hour12, Any),
    digit("hh", Key::Hour12, Any),
    digit("iddd", Key::IsoDayOfYear, Iso),
    digit("id", Key::IsoDayOfWeek, Iso),
    digit("iw", Key::IsoWeek, Iso),
    digit("iyyy", Key::IsoYear(4), Iso),
    digit("iyy", Key::IsoYear(3), Iso),
    digit("iy", Key::IsoYear(2), Iso),
    digit("i", Key::IsoYear(1), Iso),
    digit("j", Key::Julian, Any),
    digit("mi", Key::Minute, Any),
    digit("mm", Key::Month, Gregorian),
    word("month", Key::MonthName(Lower), Gregorian),
    word("mon", Key::MonthShort(Lower), Gregorian),
    digit("ms", Key::Millisecond, Any),
    word("of", Key::Offset, Any),
    word("p.m.", Key::Meridiem(Lower, true), Any),
    word("pm", Key::Meridiem(Lower, false), Any),
    digit("q", Key::Quarter, Any),
    word("rm", Key::Roman(Lower), Gregorian),
    digit("sssss", Key::SecondOfDay, Any),
    digit("ssss", Key::SecondOfDay, Any),
    digit("ss", Key::Second, Any),
    word("tzh", Key::ZoneHour, Any),
    digit("tzm", Key::ZoneMinute, Any),
    word("tz", Key::Zone(Lower), Any),
    digit("us", Key::Microsecond, Any),
    digit("ww", Key::WeekOfYear, Gregorian),
    digit("w", Key::WeekOfMonth, Gregorian),
    digit("y,yyy", Key::YearWithComma, Gregorian),
    digit("yyyy", Key::Year(4), Gregorian),
    digit("yyy", Key::Year(3), Gregorian),
    digit("yy", Key::Year(2), Gregorian),
    digit("y", Key::Year(1), Gregorian),
];

/// Cuts a template into nodes.
pub(super) fn nodes(template: &str) -> Vec<Node> {
    let mut out = Vec::with_capacity(template.len());
    let mut rest = template;
    while !rest.is_empty() {
        let (mut fill, mut locale) = (false, false);
        match rest.get(..2) {
            Some("FM" | "fm") => fill = true,
            Some("TM" | "tm") => locale = true,
            _ => {}
        }
        if fill || locale {
            rest = &rest[2..];
        }
        if let Some(keyword) = KEYWORDS.iter().find(|k| rest.starts_with(k.name)) {
            rest = &rest[keyword.name.len()..];
            let ordinal = match rest.get(..2) {
                Some("TH") => Some(true),
                Some("th") => Some(false),
                _ => None,
            };
            // SP (spelt out) is read, and means nothing.
            if ordinal.is_some() || rest.starts_with("SP") {
                rest = &rest[2..];
            }
            out.push(Node::Field(Field { keyword, fill, locale, ordinal }));
        } else {
            rest = literal(rest, &mut out, |c| {
                if c.is_ascii_punctuation() {
                    Node::Separator(c)
                } else if is_space(c) {
                    Node::Space(c)
                } else {
                    Node::Literal(c)
                }
            });
        }
    }
    out
}

/// Takes one character, or a quoted string, off a template. Inside quotes a backslash takes the next character as it is;
/// outside it does so before a quote only. Shared with the templates for numbers.
pub(super) fn literal<'a>(template: &'a str, out: &mut Vec<Node>, plain: impl Fn(char) -> Node) -> &'a str {
    let mut chars = template.chars();
    match chars.next() {
        Some('"') => {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => out.push(Node::Literal(chars.next().unwrap_or('\\'))),
                    _ => out.push(Node::Literal(c)),
                }
            }
        }
        Some('\\') if chars.as_str().starts_with('"') => {
            chars.next();
            out.push(plain('"'));
        }
        Some(c) => out.push(plain(c)),
        None => {}
    }
    chars.as_str()
}

/// C's isspace.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}
