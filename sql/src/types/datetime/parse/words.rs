//! The words that may stand in a date or a time.

use super::Moment;

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// `at`, `on`.
    Noise,
    /// The start of the transaction.
    Now,
    /// Midnight UTC.
    AllBalls,
    /// Today and so many days.
    Day(i32),
    /// `epoch` and the infinities.
    Moment(Moment),
    /// 1 to 12.
    Month(i32),
    /// A day of the week: read, and not compared with the date.
    Weekday,
    /// PM is true.
    Meridiem(bool),
    /// BC is true.
    Era(bool),
    /// `dst` after a zone.
    Daylight,
    /// `t`: a time follows.
    TimeFollows,
    /// Says what the number after it is.
    Unit(Unit),
}

/// What a number after a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Julian,
    Time,
    /// Known as a word, but no number may follow.
    Other,
}

/// The meaning of a word in lower case. Only its first ten letters count.
pub(crate) fn word(lower: &str) -> Option<Word> {
    Some(match lower.get(..10).unwrap_or(lower) {
        "at" | "on" => Word::Noise,
        "now" => Word::Now,
        "allballs" => Word::AllBalls,
        "today" => Word::Day(0),
        "tomorrow" => Word::Day(1),
        "yesterday" => Word::Day(-1),
        "epoch" => Word::Moment(Moment::Epoch),
        "infinity" => Word::Moment(Moment::Infinity),
        "-infinity" => Word::Moment(Moment::NegInfinity),
        "jan" | "january" => Word::Month(1),
        "feb" | "february" => Word::Month(2),
        "mar" | "march" => Word::Month(3),
        "apr" | "april" => Word::Month(4),
        "may" => Word::Month(5),
        "jun" | "june" => Word::Month(6),
        "jul" | "july" => Word::Month(7),
        "aug" | "august" => Word::Month(8),
        "sep" | "sept" | "september" => Word::Month(9),
        "oct" | "october" => Word::Month(10),
        "nov" | "november" => Word::Month(11),
        "dec" | "december" => Word::Month(12),
        "sun" | "sunday" | "mon" | "monday" | "tue" | "tues" | "tuesday" | "wed" | "weds" | "wednesday" | "thu"
        | "thur" | "thurs" | "thursday" | "fri" | "friday" | "sat" | "saturday" => Word::Weekday,
        "am" => Word::Meridiem(false),
        "pm" => Word::Meridiem(true),
        "ad" => Word::Era(false),
        "bc" => Word::Era(true),
        "dst" => Word::Daylight,
        "t" => Word::TimeFollows,
        "y" => Word::Unit(Unit::Year),
        "m" => Word::Unit(Unit::Month),
        "d" => Word::Unit(Unit::Day),
        "h" => Word::Unit(Unit::Hour),
        "mm" => Word::Unit(Unit::Minute),
        "s" => Word::Unit(Unit::Second),
        "j" | "jd" | "julian" => Word::Unit(Unit::Julian),
        "dow" | "doy" | "isodow" | "isoyear" => Word::Unit(Unit::Other),
        _ => return None,
    })
}
