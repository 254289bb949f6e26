//! Time zones: from a name to offsets at any moment, by PostgreSQL's rules.
//!
//! Microseconds count from 2000-01-01, in UTC or on the zone's wall clock as each function says; offsets are seconds
//! *east* of Greenwich (PostgreSQL's C code counts west). The tz database is the one bundled with jiff, so results do
//! not depend on the machine.
//!
//! PostgreSQL reads a zone name in two ways, and they disagree about signs:
//!
//! * in SQL (`AT TIME ZONE '+02'`) it is an IANA name or a POSIX specification: [`TimeZone::get`]. POSIX counts west,
//!   so `+02` is two hours *behind* Greenwich;
//! * as the `TimeZone` setting a bare number counts hours east: [`TimeZone::setting`].
//!
//! jiff knows the years -9999 to 9999. Later times are moved back by whole 400-year cycles, after which weekdays and
//! leap years repeat, so the zone's last rule goes on for ever, as it does in PostgreSQL.

mod abbreviations;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZoneDatabase};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

pub use abbreviations::{Abbreviation, abbreviation};

/// Seconds from 1970-01-01 to 2000-01-01.
const EPOCH_2000: i64 = 946_684_800;
/// Seconds of 400 years: the calendar repeats.
const CYCLE: i64 = 146_097 * 86_400;
/// Unix seconds beyond which we shift back by cycles: some days before the end of jiff's range.
const LAST_SECOND: i64 = 253_402_207_200 - 7 * 86_400;
/// Names kept resolved. Bounded because names come from users.
const CACHE_LIMIT: usize = 2_048;
/// PostgreSQL's `TZDEFRULESTRING`: daylight saving time of a POSIX specification that names it without rules.
const DEFAULT_RULES: &str = ",M3.2.0,M11.1.0";

/// A time zone. Cheap to clone.
#[derive(Clone)]
pub struct TimeZone(Arc<Zone>);

struct Zone {
    name: Box<str>,
    rules: Rules,
}

enum Rules {
    Fixed { east: i32, abbreviation: Box<str> },
    Changing(jiff::tz::TimeZone),
}

impl TimeZone {
    /// UTC.
    pub fn utc() -> TimeZone {
        static UTC: OnceLock<TimeZone> = OnceLock::new();
        UTC.get_or_init(|| TimeZone::constant("UTC".into(), 0, "UTC".into())).clone()
    }

    /// The zone SQL means by this text: an IANA name in any case, or a POSIX specification such as `UTC-5` or `<+03>-3`.
    /// Abbreviations that are no zone names (EDT, MSK) are not among them: see [`abbreviation`].
    pub fn get(name: &str) -> Option<TimeZone> {
        static CACHE: OnceLock<RwLock<FxHashMap<Box<str>, TimeZone>>> = OnceLock::new();
        let cache = CACHE.get_or_init(RwLock::default);
        if let Some(zone) = cache.read().get(name) {
            return Some(zone.clone());
        }
        let zone = TimeZone::named(name).or_else(|| TimeZone::posix(name))?;
        let mut cache = cache.write();
        if cache.len() < CACHE_LIMIT {
            cache.insert(name.into(), zone.clone());
        }
        Some(zone)
    }

    /// The zone meant by a value of the `TimeZone` setting: as [`TimeZone::get`], but a number is hours east of
    /// Greenwich (`2`, `+02`, `-5.5`), and `INTERVAL '+02:00'` is an offset too.
    pub fn setting(value: &str) -> Option<TimeZone> {
        let value = value.trim();
        if value.get(..8).is_some_and(|p| p.eq_ignore_ascii_case("interval")) {
            let quoted = value[8..].trim();
            let text = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
            let span = super::interval::interval_in(text, -1).ok()?;
            if span.months != 0 || span.days != 0 {
                return None;
            }
            return TimeZone::fixed(i32::try_from(span.micros / 1_000_000).ok()?);
        }
        if value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
            && let Ok(hours) = value.parse::<f64>()
        {
            return (hours.abs() < 168.0).then(|| TimeZone::fixed((hours * 3600.0) as i32))?;
        }
        TimeZone::get(value)
    }

    /// The zone that is always this many seconds east of Greenwich, named as PostgreSQL names it: `<+02>-02`.
    /// None for a week or more.
    pub fn fixed(east: i32) -> Option<TimeZone> {
        if east.unsigned_abs() >= 168 * 3600 {
            return None;
        }
        let digits = offset_digits(east);
        let (shown, posix) = if east < 0 { ('-', '+') } else { ('+', '-') };
        let abbreviation = format!("{shown}{digits}");
        Some(TimeZone::constant(format!("<{abbreviation}>{posix}{digits}").into(), east, abbreviation.into()))
    }

    /// Name: what SHOW TimeZone prints.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the zone has had one offset for ever.
    pub fn is_constant(&self) -> bool {
        matches!(self.0.rules, Rules::Fixed { .. })
    }

    /// Seconds east of Greenwich at a moment.
    pub fn offset_at(&self, utc_micros: i64) -> i32 {
        match &self.0.rules {
            Rules::Fixed { east, .. } => *east,
            Rules::Changing(zone) => zone.to_offset(timestamp(utc_micros)).seconds(),
        }
    }

    /// What the zone calls itself at a moment: `CEST`.
    pub fn abbreviation_at(&self, utc_micros: i64) -> String {
        match &self.0.rules {
            Rules::Fixed { abbreviation, .. } => abbreviation.to_string(),
            Rules::Changing(zone) => zone.to_offset_info(timestamp(utc_micros)).abbreviation().to_owned(),
        }
    }

    /// The offset that holds when the zone's clocks show this time. A time that clocks skip is read with the offset
    /// before the change, one they show twice with the offset after it.
    pub fn offset_of_local(&self, local_micros: i64) -> i32 {
        match &self.0.rules {
            Rules::Fixed { east, .. } => *east,
            Rules::Changing(zone) => {
                let civil = Offset::UTC.to_datetime(timestamp(local_micros));
                match zone.to_ambiguous_timestamp(civil).offset() {
                    AmbiguousOffset::Unambiguous { offset } => offset.seconds(),
                    AmbiguousOffset::Gap { before, .. } => before.seconds(),
                    AmbiguousOffset::Fold { after, .. } => after.seconds(),
                }
            }
        }
    }

    /// The moment at which the zone's clocks show this time; see [`TimeZone::offset_of_local`]. Saturates.
    pub fn local_to_utc(&self, local_micros: i64) -> i64 {
        local_micros.saturating_sub(i64::from(self.offset_of_local(local_micros)) * 1_000_000)
    }

    /// What the zone's clocks show at a moment. Saturates.
    pub fn utc_to_local(&self, utc_micros: i64) -> i64 {
        utc_micros.saturating_add(i64::from(self.offset_at(utc_micros)) * 1_000_000)
    }

    /// The offset this zone meant by an abbreviation, at a moment or the last time before it, or else the first time after.
    /// None if the zone's history does not know the abbreviation.
    pub fn offset_of_abbreviation(&self, abbreviation: &str, utc_micros: i64) -> Option<i32> {
        let same = |a: &str| a.eq_ignore_ascii_case(abbreviation);
        match &self.0.rules {
            Rules::Fixed { east, abbreviation, .. } => same(abbreviation).then_some(*east),
            Rules::Changing(zone) => {
                let at = timestamp(utc_micros);
                let now = zone.to_offset_info(at);
                if same(now.abbreviation()) {
                    return Some(now.offset().seconds());
                }
                if let Some(t) = zone.preceding(at).find(|t| same(t.abbreviation())) {
                    return Some(t.offset().seconds());
                }
                let first = zone.to_offset_info(Timestamp::MIN);
                if same(first.abbreviation()) {
                    return Some(first.offset().seconds());
                }
                // Rules go on for ever; two centuries of changes are enough to have seen every name in use.
                zone.following(at).take(400).find(|t| same(t.abbreviation())).map(|t| t.offset().seconds())
            }
        }
    }

    fn constant(name: Box<str>, east: i32, abbreviation: Box<str>) -> TimeZone {
        TimeZone(Arc::new(Zone { name, rules: Rules::Fixed { east, abbreviation } }))
    }

    fn named(name: &str) -> Option<TimeZone> {
        static DATABASE: OnceLock<TimeZoneDatabase> = OnceLock::new();
        let zone = DATABASE.get_or_init(TimeZoneDatabase::bundled).get(name).ok()?;
        let name: Box<str> = zone.iana_name()?.into();
        if &*name == "Etc/Unknown" {
            return None;
        }
        if zone.following(Timestamp::MIN).next().is_none() {
            let info = zone.to_offset_info(Timestamp::UNIX_EPOCH);
            return Some(TimeZone::constant(name, info.offset().seconds(), info.abbreviation().into()));
        }
        Some(TimeZone(Arc::new(Zone { name, rules: Rules::Changing(zone) })))
    }

    /// `std offset [dst [offset] [,rules]]`, offsets counting west. The standard name may be empty. A zone with daylight
    /// saving time needs names of three letters, where PostgreSQL takes any: it reads even `America/New3York` so.
    fn posix(text: &str) -> Option<TimeZone> {
        let upper = text.to_ascii_uppercase();
        let (abbreviation, rest) = posix_name(&upper)?;
        let (west, rest) = posix_offset(rest)?;
        if rest.is_empty() {
            return Some(TimeZone::constant(upper.as_str().into(), -west, abbreviation.into()));
        }
        let (_, after_dst) = posix_name(rest).filter(|(name, _)| !name.is_empty())?;
        let rules = if after_dst.contains(',') { "" } else { DEFAULT_RULES };
        let zone = jiff::tz::TimeZone::posix(&format!("{upper}{rules}")).ok()?;
        Some(TimeZone(Arc::new(Zone { name: upper.as_str().into(), rules: Rules::Changing(zone) })))
    }
}

impl std::fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TimeZone({})", self.0.name)
    }
}

impl PartialEq for TimeZone {
    /// Zones are equal when their names are.
    fn eq(&self, other: &TimeZone) -> bool {
        self.0.name == other.0.name
    }
}
impl Eq for TimeZone {}

/// `HH`, `HH:MM` or `HH:MM:SS` of an offset without its sign, as short as it can be.
pub(crate) fn offset_digits(east: i32) -> String {
    let seconds = east.unsigned_abs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (m, s) {
        (0, 0) => format!("{h:02}"),
        (_, 0) => format!("{h:02}:{m:02}"),
        _ => format!("{h:02}:{m:02}:{s:02}"),
    }
}

fn timestamp(micros: i64) -> Timestamp {
    let mut second = micros.div_euclid(1_000_000) + EPOCH_2000;
    if second > LAST_SECOND {
        second -= ((second - LAST_SECOND - 1) / CYCLE + 1) * CYCLE;
    }
    Timestamp::from_second(second).unwrap_or(Timestamp::MIN)
}

fn posix_name(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('<') {
        let (name, rest) = quoted.split_once('>')?;
        return Some((name, rest));
    }
    let end = text.find(|c: char| c.is_ascii_digit() || matches!(c, ',' | '-' | '+')).unwrap_or(text.len());
    Some(text.split_at(end))
}

/// Seconds of `[+-]hh[:mm[:ss]]`, hours below a week, and what follows.
fn posix_offset(text: &str) -> Option<(i32, &str)> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let mut seconds = 0;
    for (unit, limit) in [(3600, 167), (60, 59), (1, 60)] {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let value: i32 = rest[..end].parse().ok().filter(|v| *v <= limit)?;
        seconds += value * unit;
        rest = &rest[end..];
        match rest.strip_prefix(':') {
            Some(more) if unit > 1 => rest = more,
            _ => break,
        }
    }
    Some((sign * seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn names_are_found_in_any_case_and_shown_in_their_own() {
        assert_eq!(TimeZone::get("america/new_york").expect("zone").name(), "America/New_York");
        assert_eq!(TimeZone::get("utc").expect("zone").name(), "UTC");
        assert!(TimeZone::get("foo/bar").is_none());
        assert!(TimeZone::get("etc/unknown").is_none());
    }

    #[test]
    fn posix_counts_west_and_the_setting_east() {
        assert_eq!(TimeZone::get("+02").expect("zone").offset_at(0), -7200);
        assert_eq!(TimeZone::get("UTC-5").expect("zone").offset_at(0), 18_000);
        assert_eq!(TimeZone::get("<+0330>-3:30").expect("zone").offset_at(0), 12_600);
        let east = TimeZone::setting("+02").expect("zone");
        assert_eq!((east.offset_at(0), east.name()), (7200, "<+02>-02"));
        assert_eq!(TimeZone::setting("-5.5").expect("zone").name(), "<-05:30>+05:30");
        assert_eq!(TimeZone::setting("0").expect("zone").name(), "<+00>-00");
        assert_eq!(TimeZone::setting("INTERVAL '-08:00'").expect("zone").name(), "<-08>+08");
    }

    #[test]
    fn gaps_take_the_offset_before_and_folds_the_one_after() {
        let berlin = TimeZone::get("Europe/Berlin").expect("zone");
        // 2024-03-31 02:30 does not exist; 2024-10-27 02:30 exists twice. Days since 2000-01-01: 8856 and 9066.
        assert_eq!(berlin.offset_of_local(8856 * 24 * HOUR + 5 * HOUR / 2), 3600);
        assert_eq!(berlin.offset_of_local(9066 * 24 * HOUR + 5 * HOUR / 2), 3600);
        assert_eq!(berlin.offset_of_local(8856 * 24 * HOUR + 4 * HOUR), 7200);
    }

    #[test]
    fn rules_go_on_beyond_the_year_9999() {
        let berlin = TimeZone::get("Europe/Berlin").expect("zone");
        // 2024-07-01 and 400 and 200_000 years later.
        let july = 8948 * 24 * HOUR;
        for cycles in [0, 1, 25, 500] {
            assert_eq!(berlin.offset_at(july + cycles * CYCLE * 1_000_000), 7200, "{cycles}");
        }
    }

    #[test]
    fn an_abbreviation_follows_its_zone() {
        let moscow = TimeZone::get("Europe/Moscow").expect("zone");
        // MSK was +03 in 2010, +04 in 2012 and +03 again since 2014.
        let year = 8766 * HOUR;
        assert_eq!(moscow.offset_of_abbreviation("MSK", 10 * year), Some(10_800));
        assert_eq!(moscow.offset_of_abbreviation("msk", 12 * year), Some(14_400));
        assert_eq!(moscow.offset_of_abbreviation("MSK", 20 * year), Some(10_800));
        assert_eq!(moscow.offset_of_abbreviation("XYZ", 20 * year), None);
    }
}
