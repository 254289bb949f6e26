//! Values of settings: read from what was written, kept, printed.

use super::{Definition, Kind, Unit};
use crate::catalog::ddl::quote_identifier;
use crate::error::{Result, SqlError, state};
use crate::functions::context::DateOrder;
use crate::types::timezone::TimeZone;

/// Isolation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl IsolationLevel {
    /// From a setting's value, which was checked.
    pub fn parse(text: &str) -> IsolationLevel {
        match text {
            "serializable" => IsolationLevel::Serializable,
            "repeatable read" => IsolationLevel::RepeatableRead,
            "read uncommitted" => IsolationLevel::ReadUncommitted,
            _ => IsolationLevel::ReadCommitted,
        }
    }
    /// As SHOW prints it.
    pub fn name(self) -> &'static str {
        match self {
            IsolationLevel::ReadUncommitted => "read uncommitted",
            IsolationLevel::ReadCommitted => "read committed",
            IsolationLevel::RepeatableRead => "repeatable read",
            IsolationLevel::Serializable => "serializable",
        }
    }
    /// One snapshot for the whole transaction.
    pub fn is_fixed(self) -> bool {
        matches!(self, IsolationLevel::RepeatableRead | IsolationLevel::Serializable)
    }
}

fn invalid(d: &Definition, value: &str) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{}\": \"{value}\"", d.name))
}

fn unsupported(d: &Definition, value: &str) -> SqlError {
    SqlError::unsupported(format!("{} = {value}", d.name))
}

/// A value as it is given: the arguments of SET, or one text (set_config, startup options), which may itself be a list.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    Arguments(&'a [String]),
    Text(&'a str),
}

/// The value as it is kept, or why it cannot be had.
pub(super) fn check(d: &Definition, given: Given<'_>) -> Result<String> {
    let one;
    let values = match given {
        Given::Arguments(values) => values,
        Given::Text(text) => {
            one = [text.to_owned()];
            &one
        }
    };
    let is_list = matches!(
        d.name,
        "search_path" | "DateStyle" | "temp_tablespaces" | "session_preload_libraries" | "local_preload_libraries"
    );
    if values.len() > 1 && !is_list {
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("SET {} takes only one argument", d.name)));
    }
    let value = values.first().map_or("", String::as_str);
    let kept = match d.kind {
        Kind::Bool => boolean(value)
            .ok_or_else(|| {
                SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("parameter \"{}\" requires a Boolean value", d.name),
                )
            })?
            .to_owned(),
        Kind::Int(min, max, unit) => integer(d, value, min, max, unit)?.to_string(),
        Kind::Real => {
            let number: f64 = value.trim().parse().map_err(|_| invalid(d, value))?;
            number.to_string()
        }
        Kind::Enum(options) => one_of(d, value, options)?,
        Kind::Text => match d.name {
            "TimeZone" | "log_timezone" => TimeZone::setting(value).ok_or_else(|| invalid(d, value))?.name().to_owned(),
            "DateStyle" => date_style(d, values)?,
            "search_path" => match given {
                Given::Arguments(names) => names.iter().map(|n| quote_identifier(n)).collect::<Vec<_>>().join(", "),
                Given::Text(list) => list.to_owned(),
            },
            // Compared as PostgreSQL does, by letters and digits alone: asyncpg says 'utf-8', quotes included.
            "client_encoding" => match letters_and_digits(value).as_str() {
                "utf8" | "unicode" => "UTF8".to_owned(),
                "sqlascii" | "latin1" | "iso88591" | "latin9" | "win1252" | "windows1252" | "eucjp" | "sjis"
                | "gbk" | "koi8r" => {
                    return Err(unsupported(d, value));
                }
                _ => return Err(invalid(d, value)),
            },
            "role" if !matches!(value, "none") => return Err(SqlError::unsupported("SET ROLE")),
            "default_tablespace" | "temp_tablespaces" if !value.is_empty() => {
                return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("tablespace \"{value}\" does not exist")));
            }
            "default_table_access_method" if value != "heap" => return Err(invalid(d, value)),
            "application_name" => {
                value.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).take(63).collect()
            }
            _ => value.to_owned(),
        },
    };
    // What would change the meaning of statements and is not done here is refused, not remembered.
    let honoured = match d.name {
        "standard_conforming_strings" | "array_nulls" => kept == "on",
        "transform_null_equals" | "quote_all_identifiers" => kept == "off",
        // Where it would matter, in E'\\'', the client's encoding is a safe one.
        "backslash_quote" => kept != "off",
        // setseed() is how to set it.
        "seed" => kept == "unavailable",
        "IntervalStyle" => kept == "postgres",
        "extra_float_digits" => kept.parse::<i64>().is_ok_and(|n| n > 0),
        _ => true,
    };
    if honoured { Ok(kept) } else { Err(unsupported(d, value)) }
}

/// `on`, `true`, `yes`, `1` and what they begin with.
fn boolean(value: &str) -> Option<&'static str> {
    let lower = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if lower == "1" || begins("true", 1) || begins("yes", 1) || lower == "on" {
        Some("on")
    } else if lower == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some("off")
    } else {
        None
    }
}

fn one_of(d: &Definition, value: &str, options: &[&str]) -> Result<String> {
    let wanted = match (d.name, value.to_ascii_lowercase().as_str()) {
        (
            "synchronous_commit" | "backslash_quote" | "constraint_exclusion" | "compute_query_id" | "huge_pages",
            word,
        ) => boolean(word).unwrap_or(word).to_owned(),
        (_, word) => word.to_owned(),
    };
    if let Some(found) = options.iter().find(|o| o.eq_ignore_ascii_case(&wanted)) {
        return Ok((*found).to_owned());
    }
    Err(invalid(d, value).hint(format!("Available values: {}.", options.join(", "))))
}

/// Units by name, each with its size in the smallest of its kind.
const MEMORY: [(&str, i64); 5] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];
const TIME: [(&str, i64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

fn units(unit: Unit) -> Option<(&'static [(&'static str, i64)], i64)> {
    Some(match unit {
        Unit::None => return None,
        Unit::Ms => (&TIME, 1_000),
        Unit::S => (&TIME, 1_000_000),
        Unit::Min => (&TIME, 60_000_000),
        Unit::Bytes => (&MEMORY, 1),
        Unit::Kb => (&MEMORY, 1 << 10),
        Unit::Blocks => (&MEMORY, 8 << 10),
        Unit::Mb => (&MEMORY, 1 << 20),
    })
}

fn integer(d: &Definition, value: &str, min: i64, max: i64, unit: Unit) -> Result<i64> {
    let text = value.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| invalid(d, value))?;
    let suffix = text[digits..].trim();
    let scaled = match (suffix, units(unit)) {
        ("", _) => number,
        (_, None) => return Err(invalid(d, value)),
        (suffix, Some((known, base))) => {
            let hint = if base < 1_000 || base >= 1_024 && known.len() == 5 {
                "Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\"."
            } else {
                "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\"."
            };
            let size = known.iter().find(|(name, _)| *name == suffix).ok_or_else(|| invalid(d, value).hint(hint))?.1;
            number * size as f64 / base as f64
        }
    };
    let rounded = scaled.round();
    let shown = units(unit).map_or("", |(known, base)| known.iter().find(|(_, s)| *s == base).map_or("", |(n, _)| n));
    let space = if shown.is_empty() { "" } else { " " };
    if !(min as f64..=max as f64).contains(&rounded) {
        let message =
            format!("{rounded}{space}{shown} is outside the valid range for parameter \"{}\" ({min} .. {max})", d.name);
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
    }
    Ok(rounded as i64)
}

/// A kept value as SHOW prints it: numbers in the greatest unit that leaves them whole.
pub(super) fn print(kind: Kind, kept: &str) -> String {
    let Kind::Int(_, _, unit) = kind else { return kept.to_owned() };
    let (Some((known, base)), Ok(number)) = (units(unit), kept.parse::<i64>()) else { return kept.to_owned() };
    if number <= 0 {
        return kept.to_owned();
    }
    let size = number.saturating_mul(base);
    let fits = known.iter().find(|(_, s)| size % s == 0);
    fits.map_or_else(|| kept.to_owned(), |(name, s)| format!("{}{name}", size / s))
}

/// DateStyle: output is ISO; what is said about input stays.
fn date_style(d: &Definition, values: &[String]) -> Result<String> {
    let mut order = None;
    let given = values.join(",");
    for word in given.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "iso" | "default" => {}
            "sql" | "german" | "postgres" => return Err(unsupported(d, word)),
            "ymd" => order = Some("YMD"),
            "dmy" | "european" | "euro" => order = Some("DMY"),
            "mdy" | "us" | "noneuropean" | "noneuro" => order = Some("MDY"),
            _ => return Err(invalid(d, &given)),
        }
    }
    Ok(format!("ISO, {}", order.unwrap_or("MDY")))
}

/// The order of a kept DateStyle.
pub(super) fn date_order(kept: &str) -> DateOrder {
    match kept.rsplit(' ').next() {
        Some("YMD") => DateOrder::Ymd,
        Some("DMY") => DateOrder::Dmy,
        _ => DateOrder::Mdy,
    }
}

/// The names of a list: unquoted ones folded.
pub(super) fn split_list(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list.trim_start();
    while !rest.is_empty() {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = quoted.char_indices().peekable();
            let mut end = quoted.len();
            while let Some((i, c)) = chars.next() {
                if c == '"' {
                    if chars.peek().is_some_and(|(_, n)| *n == '"') {
                        chars.next();
                    } else {
                        end = i + 1;
                        break;
                    }
                }
                text.push(c);
            }
            name = text;
            rest = quoted[end..].trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        } else {
            let (word, tail) = rest.split_once(',').unwrap_or((rest, ""));
            name = word.trim().to_ascii_lowercase();
            rest = tail.trim_start();
        }
        names.push(name);
    }
    names
}

/// Rank of a message level: those below client_min_messages are not sent.
pub(super) fn severity(name: &str) -> u8 {
    match name {
        "debug5" | "debug4" | "debug3" | "debug2" | "debug1" => 0,
        "log" => 1,
        "notice" => 2,
        "warning" => 3,
        _ => 4,
    }
}

fn letters_and_digits(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
