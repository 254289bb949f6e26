//! Quoting and formatting: quote_ident and its kin, format(), parse_ident, unistr, to_hex.

use super::FnCx;
use super::args;
use super::grow::{Text, check_len};
use super::registry::{Registry, ScalarFn, Volatility};
use super::text::{arg_type, cast_text};
use crate::error::{Result, SqlError, state};
use crate::types::reg::quote_identifier;
use crate::types::{Datum, Type, io};

const T: Type = Type::TEXT;

/// Adds them all. format() itself is registered with the other functions of any arguments, in [`super::text`].
pub fn register(r: &mut Registry) {
    r.pure("quote_ident", &[T], T, |a, _| checked(quote_identifier(args::text(a, 0)?)));
    r.pure("quote_literal", &[T], T, |a, _| checked(quote_literal(args::text(a, 0)?)));
    r.stable("quote_literal", &[Type::ANYELEMENT], T, |a, cx| checked(quote_any(a, cx)));
    for (arg, volatility) in [(&[T], Volatility::Immutable), (&[Type::ANYELEMENT], Volatility::Stable)] {
        r.scalar(ScalarFn {
            name: "quote_nullable",
            args: arg,
            variadic: None,
            optional: 0,
            ret: T,
            strict: false,
            volatility,
            imp: |a, cx| checked(if a[0].is_null() { "NULL".to_owned() } else { quote_any(a, cx) }),
        });
    }
    r.pure("to_hex", &[Type::INT4], T, |a, _| Ok(Datum::text(format!("{:x}", args::int4(a, 0)?))));
    r.pure("to_hex", &[Type::INT8], T, |a, _| Ok(Datum::text(format!("{:x}", args::int8(a, 0)?))));
    r.pure("unistr", &[T], T, |a, _| unistr(args::text(a, 0)?).map(Datum::text));
    r.scalar(ScalarFn {
        name: "parse_ident",
        args: &[T, Type::BOOL],
        variadic: None,
        optional: 1,
        ret: Type::TEXT_ARRAY,
        strict: true,
        volatility: Volatility::Immutable,
        imp: |a, _| {
            let strict = if a.len() > 1 { args::boolean(a, 1)? } else { true };
            Ok(args::text_array(parse_ident(args::text(a, 0)?, strict)?.into_iter().map(Some)))
        },
    });
}

// Quoting at most doubles a text.
fn checked(quoted: impl AsRef<str>) -> Result<Datum> {
    check_len(quoted.as_ref().len())?;
    Ok(Datum::text(quoted))
}

// The literal of `value::text`.
fn quote_any(a: &[Datum], cx: &FnCx<'_>) -> String {
    let mut text = String::new();
    cast_text(&a[0], arg_type(cx, 0), cx, &mut text);
    quote_literal(&text)
}

/// A string as an SQL literal; with `E` and doubled backslashes if it has any.
pub fn quote_literal(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    if s.contains('\\') {
        out.push('E');
    }
    out.push('\'');
    for c in s.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message)
}

// One `%...` of a format string.
#[derive(Default)]
struct Spec {
    position: Option<usize>,
    left: bool,
    width: Option<i64>,
    // `*` gives None here, `*n$` the argument.
    width_from: Option<Option<usize>>,
}

/// format(): `%s`, `%I`, `%L`, `%%`, with positions (`%2$s`), widths (`%-10s`, `%*s`, `%*2$s`).
pub(super) fn format(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let Some(template) = args::text_or_null(a, 0)? else { return Ok(Datum::Null) };
    let too_few = || bad("too few arguments for format()");
    let mut out = Text::default();
    let mut next = 1;
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%')?;
            rest = after;
            continue;
        }
        let mut spec = Spec::default();
        rest = read_spec(rest, &mut spec)?;
        let kind = rest.chars().next().ok_or_else(unterminated)?;
        rest = &rest[kind.len_utf8()..];
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(
                bad(format!("unrecognized format() type specifier \"{kind}\"")).hint("For a single \"%\" use \"%%\".")
            );
        }
        if let Some(from) = spec.width_from {
            let i = from.unwrap_or(next);
            if i == 0 {
                return Err(argument_zero());
            }
            let value = a.get(i).ok_or_else(too_few)?;
            // After an explicit position, the next argument is the one behind it.
            next = i + 1;
            spec.width = Some(match value {
                Datum::Null => 0,
                Datum::Int2(n) => i64::from(*n),
                Datum::Int4(n) => i64::from(*n),
                other => {
                    let text = io::to_text(other, arg_type(cx, i), cx.session);
                    match io::text_in(&text, Type::INT4.plain(), cx.session)? {
                        Datum::Int4(n) => i64::from(n),
                        _ => 0,
                    }
                }
            });
        }
        let i = spec.position.unwrap_or(next);
        let value = a.get(i).ok_or_else(too_few)?;
        next = i + 1;
        let text = match (kind, value) {
            ('s', Datum::Null) => String::new(),
            ('L', Datum::Null) => "NULL".to_owned(),
            (_, Datum::Null) => {
                return Err(SqlError::new(
                    state::NULL_VALUE_NOT_ALLOWED,
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            (_, value) => {
                let text = io::to_text(value, arg_type(cx, i), cx.session);
                match kind {
                    'I' => quote_identifier(&text),
                    'L' => quote_literal(&text),
                    _ => text,
                }
            }
        };
        let width = spec.width.unwrap_or(0);
        let left = spec.left || width < 0;
        let missing = (width.unsigned_abs() as usize).saturating_sub(text.chars().count());
        if !left {
            out.blanks(missing)?;
        }
        out.push_str(&text)?;
        if left {
            out.blanks(missing)?;
        }
    }
    out.push_str(rest)?;
    Ok(out.datum())
}

fn unterminated() -> SqlError {
    bad("unterminated format() type specifier").hint("For a single \"%\" use \"%%\".")
}

fn argument_zero() -> SqlError {
    bad("format specifies argument 0, but arguments are numbered from 1")
}

// What stands between `%` and the type letter; the rest begins with that letter.
fn read_spec<'a>(mut rest: &'a str, spec: &mut Spec) -> Result<&'a str> {
    let digits = |s: &'a str| -> Result<(Option<usize>, &'a str)> {
        let end = s.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(s.len());
        if end == 0 {
            return Ok((None, s));
        }
        let n: i32 = s[..end].parse().map_err(|_| bad("number is out of range"))?;
        if end == s.len() {
            return Err(unterminated());
        }
        Ok((Some(n as usize), &s[end..]))
    };
    let (first, after) = digits(rest)?;
    if let Some(n) = first {
        match after.strip_prefix('$') {
            Some(tail) => {
                if n == 0 {
                    return Err(argument_zero());
                }
                spec.position = Some(n);
                rest = tail;
            }
            None => {
                spec.width = Some(n as i64);
                return Ok(after);
            }
        }
    }
    while let Some(tail) = rest.strip_prefix('-') {
        spec.left = true;
        rest = tail;
    }
    if let Some(tail) = rest.strip_prefix('*') {
        let (n, after) = digits(tail)?;
        rest = after;
        if n.is_some() {
            rest = rest.strip_prefix('$').ok_or_else(|| bad("width argument position must be ended by \"$\""))?;
        }
        spec.width_from = Some(n);
    } else {
        let (n, after) = digits(rest)?;
        spec.width = n.map(|n| n as i64);
        rest = after;
    }
    if rest.is_empty() { Err(unterminated()) } else { Ok(rest) }
}

// `\XXXX`, `\+XXXXXX`, `\uXXXX`, `\UXXXXXXXX` and `\\`, with surrogate pairs.
fn unistr(s: &str) -> Result<String> {
    let invalid = || {
        SqlError::new(state::SYNTAX_ERROR, "invalid Unicode escape")
            .hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    let pair_error = || SqlError::new(state::SYNTAX_ERROR, "invalid Unicode surrogate pair");
    let mut out = String::with_capacity(s.len());
    let mut high: Option<u32> = None;
    let mut rest = s;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' || rest.starts_with('\\') {
            if high.is_some() {
                return Err(pair_error());
            }
            if c == '\\' {
                rest = &rest[1..];
            }
            out.push(c);
            continue;
        }
        let (skip, len) = match rest.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let digits =
            rest.get(skip..skip + len).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(invalid)?;
        let code = u32::from_str_radix(digits, 16).map_err(|_| invalid())?;
        rest = &rest[skip + len..];
        match (high.take(), code) {
            (None, 0xd800..=0xdbff) => high = Some(code),
            (Some(h), 0xdc00..=0xdfff) => out.extend(char::from_u32(0x10000 + ((h & 0x3ff) << 10) + (code & 0x3ff))),
            (Some(_), _) | (None, 0xdc00..=0xdfff) => return Err(pair_error()),
            (None, 0) => return Err(SqlError::new(state::SYNTAX_ERROR, "invalid Unicode code point: 0000")),
            (None, _) => out.push(char::from_u32(code).ok_or_else(|| {
                SqlError::new(state::SYNTAX_ERROR, format!("invalid Unicode code point: {code:04X}"))
            })?),
        }
    }
    if high.is_some() { Err(pair_error()) } else { Ok(out) }
}

fn parse_ident(whole: &str, strict: bool) -> Result<Vec<String>> {
    let invalid = || bad(format!("string is not a valid identifier: \"{whole}\""));
    let skip = |s: &'_ str| s.trim_start_matches(|c: char| c.is_ascii() && io::is_space(c as u8)).len();
    let mut parts = Vec::new();
    let mut rest = &whole[whole.len() - skip(whole)..];
    let mut after_dot = false;
    loop {
        let part;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    None => return Err(invalid().detail("String has unclosed double quotes.")),
                    Some((_, '"')) if chars.peek().is_some_and(|c| c.1 == '"') => {
                        chars.next();
                        name.push('"');
                    }
                    Some((i, '"')) => break i + 1,
                    Some((_, c)) => name.push(c),
                }
            };
            if name.is_empty() {
                return Err(invalid().detail("Quoted identifier must not be empty."));
            }
            part = name;
            rest = &quoted[end..];
        } else {
            let starts = rest.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii());
            if !starts {
                return Err(match (after_dot, rest.starts_with('.')) {
                    (false, true) => invalid().detail("No valid identifier before \".\"."),
                    (true, _) => invalid().detail("No valid identifier after \".\"."),
                    _ => invalid(),
                });
            }
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()))
                .unwrap_or(rest.len());
            part = rest[..end].to_ascii_lowercase();
            rest = &rest[end..];
        }
        parts.push(part);
        rest = &rest[rest.len() - skip(rest)..];
        match rest.strip_prefix('.') {
            Some(tail) => {
                after_dot = true;
                rest = &tail[tail.len() - skip(tail)..];
            }
            None if rest.is_empty() || !strict => return Ok(parts),
            None => return Err(invalid()),
        }
    }
}
