//! Cutting text into fields by their shape, and reading the numbers in them.

use super::words::word;
use super::{Bad, Read};

/// Shapes of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Digits, perhaps with a decimal point.
    Number,
    /// Digits with delimiters, perhaps with letters among them; or a zone name with punctuation.
    Date,
    /// Digits and colons.
    Time,
    /// Letters.
    Word,
    /// A sign, then letters.
    SignedWord,
    /// A sign, then digits, colons, points or minuses.
    Zone,
}

/// Most fields a text may have.
pub(super) const MAX_FIELDS: usize = 25;

/// Cuts text into fields, in lower case. `limit` is how many characters may be in them altogether.
pub(crate) fn fields(text: &str, limit: usize) -> Read<Vec<(Shape, String)>> {
    let b = text.as_bytes();
    let peek = |at: usize| b.get(at).copied().unwrap_or(0);
    let run = |mut at: usize, accept: fn(u8) -> bool| {
        while accept(peek(at)) {
            at += 1;
        }
        at
    };
    let mut out: Vec<(Shape, String)> = Vec::with_capacity(6);
    let (mut at, mut used) = (0, 0);
    while at < b.len() {
        let c = b[at];
        if is_space(c) {
            at += 1;
            continue;
        }
        if out.len() >= MAX_FIELDS {
            return Err(Bad::Format);
        }
        let start = at;
        let shape;
        if c.is_ascii_digit() {
            at = run(at, |c| c.is_ascii_digit());
            let delimiter = peek(at);
            if delimiter == b':' {
                shape = Shape::Time;
                at = run(at, |c| c.is_ascii_digit() || c == b':' || c == b'.');
            } else if matches!(delimiter, b'-' | b'/' | b'.') {
                at += 1;
                if peek(at).is_ascii_digit() {
                    at = run(at, |c| c.is_ascii_digit());
                    if peek(at) == delimiter {
                        shape = Shape::Date;
                        while peek(at).is_ascii_digit() || peek(at) == delimiter {
                            at += 1;
                        }
                    } else {
                        shape = if delimiter == b'.' { Shape::Number } else { Shape::Date };
                    }
                } else {
                    shape = Shape::Date;
                    while peek(at).is_ascii_alphanumeric() || peek(at) == delimiter {
                        at += 1;
                    }
                }
            } else {
                shape = Shape::Number;
            }
        } else if c == b'.' {
            shape = Shape::Number;
            at = run(at + 1, |c| c.is_ascii_digit());
        } else if c.is_ascii_alphabetic() {
            at = run(at, |c| c.is_ascii_alphabetic());
            let next = peek(at);
            // A word with punctuation is a date or a zone name; one with a digit or plus too, unless it is a keyword (t, j).
            let more = matches!(next, b'-' | b'/' | b'.')
                || (next == b'+' || next.is_ascii_digit()) && word(&text[start..at].to_ascii_lowercase()).is_none();
            shape = if more { Shape::Date } else { Shape::Word };
            if more {
                at = run(at, |c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'/' | b'_' | b'.' | b':'));
            }
        } else if c == b'+' || c == b'-' {
            let first = run(at + 1, is_space);
            let mut field = char::from(c).to_string();
            if peek(first).is_ascii_digit() {
                shape = Shape::Zone;
                at = run(first, |c| c.is_ascii_digit() || matches!(c, b':' | b'.' | b'-'));
            } else if peek(first).is_ascii_alphabetic() {
                shape = Shape::SignedWord;
                at = run(first, |c| c.is_ascii_alphabetic());
            } else {
                return Err(Bad::Format);
            }
            field.push_str(&text[first..at].to_ascii_lowercase());
            used += field.len() + 1;
            out.push((shape, field));
            continue;
        } else if c.is_ascii_punctuation() {
            at += 1;
            continue;
        } else {
            return Err(Bad::Format);
        }
        used += at - start + 1;
        out.push((shape, text[start..at].to_ascii_lowercase()));
    }
    if used > limit { Err(Bad::Format) } else { Ok(out) }
}

/// `[+-]hh[:mm[:ss]]` or `[+-]hhmm` as seconds east.
pub(crate) fn displacement(field: &str) -> Read<i32> {
    let (east, digits) = match field.as_bytes().first() {
        Some(b'+') => (1, &field[1..]),
        Some(b'-') => (-1, &field[1..]),
        _ => return Err(Bad::Format),
    };
    let number = |s: &str| integer(s).ok_or(Bad::Displacement);
    let (mut hour, mut used) = number(digits)?;
    let (mut minute, mut second) = (0, 0);
    if digits[used..].starts_with(':') {
        let (m, n) = number(&digits[used + 1..])?;
        minute = m;
        used += 1 + n;
        if digits[used..].starts_with(':') {
            let (s, n) = number(&digits[used + 1..])?;
            second = s;
            used += 1 + n;
        }
    } else if used == digits.len() && field.len() > 3 {
        minute = hour % 100;
        hour /= 100;
    }
    if !(0..=15).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
        return Err(Bad::Displacement);
    }
    if used != digits.len() {
        return Err(Bad::Format);
    }
    Ok(east * (hour * 3600 + minute * 60 + second))
}

/// `.5` as microseconds, rounded to even as C's rint does; up to a whole second.
pub(crate) fn fraction_micros(fraction: &str) -> Read<i32> {
    Ok((fraction_value(fraction)? * 1_000_000.0).round_ties_even() as i32)
}

/// `.5` as a number; a lone point is 0.
pub(crate) fn fraction_value(fraction: &str) -> Read<f64> {
    let digits = fraction.strip_prefix('.').ok_or(Bad::Format)?;
    if digits.is_empty() {
        return Ok(0.0);
    }
    let mut exponent = digits.split(['e', 'E']);
    let plain = exponent.next().is_some_and(|m| m.bytes().all(|b| b.is_ascii_digit()));
    if !plain {
        return Err(Bad::Format);
    }
    fraction.parse().map_err(|_| Bad::Format)
}

/// Hours, minutes, seconds and microseconds of a field with colons. With `minutes_first`, two parts are mm:ss.
/// Hours have no upper limit here.
pub(crate) fn clock(field: &str, minutes_first: bool) -> Read<(i64, i32, i32, i32)> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let part = |s: &str| -> Read<i32> { if s.is_empty() { Ok(0) } else { s.parse().map_err(|_| Bad::Overflow) } };
    let n = digits(field);
    let mut hour: i64 = if n == 0 { 0 } else { field[..n].parse().map_err(|_| Bad::Overflow)? };
    let rest = field[n..].strip_prefix(':').ok_or(Bad::Format)?;
    let n = digits(rest);
    let mut minute = part(&rest[..n])?;
    let rest = &rest[n..];
    let (mut second, mut micros) = (0, 0);
    if rest.is_empty() {
        if minutes_first {
            second = minute;
            minute = i32::try_from(hour).map_err(|_| Bad::Overflow)?;
            hour = 0;
        }
    } else if rest.starts_with('.') {
        micros = fraction_micros(rest)?;
        second = minute;
        minute = i32::try_from(hour).map_err(|_| Bad::Overflow)?;
        hour = 0;
    } else {
        let rest = rest.strip_prefix(':').ok_or(Bad::Format)?;
        let n = digits(rest);
        second = part(&rest[..n])?;
        match &rest[n..] {
            "" => {}
            fraction if fraction.starts_with('.') => micros = fraction_micros(fraction)?,
            _ => return Err(Bad::Format),
        }
    }
    if minute > 59 || second > 60 || micros > 1_000_000 {
        return Err(Bad::Overflow);
    }
    Ok((hour, minute, second, micros))
}

/// The integer a text begins with (a sign allowed) and its length. None if it does not fit. No digits: 0 and 0.
pub(crate) fn integer(text: &str) -> Option<(i32, usize)> {
    let b = text.as_bytes();
    let sign = usize::from(matches!(b.first(), Some(b'+' | b'-')));
    let digits = b[sign..].iter().take_while(|c| c.is_ascii_digit()).count();
    if digits == 0 {
        return Some((0, 0));
    }
    text[..sign + digits].parse().ok().map(|v| (v, sign + digits))
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
