//! Functions of strings: lengths, cases, parts, padding, searching and joining.
//!
//! Positions and lengths count characters from 1, as SQL does. The character type is that of C.UTF-8: order is by code point, case and classes
//! are Unicode's, one character for one (so ß has no capital here, as in PostgreSQL with a C.UTF-8 locale).

use rustc_hash::{FxHashMap, FxHashSet};

use super::args::{self, count};
use super::grow::{self, Elements, Steps, Text};
use super::registry::{Registry, ScalarFn, Volatility};
use super::{FnCx, format};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Type, io};

const T: Type = Type::TEXT;
const I: Type = Type::INT4;

/// Adds them all.
pub fn register(r: &mut Registry) {
    lengths(r);
    cases(r);
    parts(r);
    padding(r);
    searching(r);
    joining(r);
}

fn lengths(r: &mut Registry) {
    for name in ["length", "char_length", "character_length"] {
        r.pure(name, &[T], I, |a, _| Ok(count(args::text(a, 0)?.chars().count())));
        r.pure(name, &[Type::BPCHAR], I, |a, _| Ok(count(args::text(a, 0)?.trim_end_matches(' ').chars().count())));
    }
    r.pure("octet_length", &[T], I, |a, _| Ok(count(args::text(a, 0)?.len())));
    r.pure("octet_length", &[Type::BPCHAR], I, |a, _| Ok(count(args::text(a, 0)?.len())));
    r.pure("bit_length", &[T], I, |a, _| Ok(count(args::text(a, 0)?.len() * 8)));
}

/// The lower-case form of a character, if it is one character.
pub fn lower(c: char) -> char {
    let mut all = c.to_lowercase();
    // The dotted capital I is the one letter whose lower case Unicode spells with two.
    if c == 'İ' { 'i' } else { all.next().filter(|_| all.next().is_none()).unwrap_or(c) }
}

/// The upper-case form of a character, if it is one character.
pub fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    all.next().filter(|_| all.next().is_none()).unwrap_or(c)
}

fn cases(r: &mut Registry) {
    r.pure("lower", &[T], T, |a, _| Ok(Datum::text(args::text(a, 0)?.chars().map(lower).collect::<String>())));
    r.pure("upper", &[T], T, |a, _| Ok(Datum::text(args::text(a, 0)?.chars().map(upper).collect::<String>())));
    r.pure("initcap", &[T], T, |a, _| {
        let mut inside = false;
        let capitalise = |c: char| {
            let c = if inside { lower(c) } else { upper(c) };
            inside = c.is_alphanumeric();
            c
        };
        Ok(Datum::text(args::text(a, 0)?.chars().map(capitalise).collect::<String>()))
    });
    r.pure("reverse", &[T], T, |a, _| Ok(Datum::text(args::text(a, 0)?.chars().rev().collect::<String>())));
    r.pure("chr", &[I], T, |a, _| chr(args::int4(a, 0)?));
    r.pure("ascii", &[T], I, |a, _| Ok(Datum::Int4(args::text(a, 0)?.chars().next().map_or(0, |c| c as i32))));
    r.pure("translate", &[T, T, T], T, |a, cx| translate(args::text(a, 0)?, args::text(a, 1)?, args::text(a, 2)?, cx));
}

fn translate(s: &str, from: &str, to: &str, cx: &FnCx<'_>) -> Result<Datum> {
    // Of a character named twice the first counts; what has no partner is dropped.
    let mut partners: FxHashMap<char, Option<char>> = FxHashMap::default();
    let mut to = to.chars();
    for c in from.chars() {
        let partner = to.next();
        partners.entry(c).or_insert(partner);
    }
    let mut steps = Steps::new(cx);
    let mut out = Text::with_capacity(s.len())?;
    for c in s.chars() {
        steps.take(1)?;
        if let Some(c) = partners.get(&c).copied().unwrap_or(Some(c)) {
            out.push(c)?;
        }
    }
    Ok(out.datum())
}

fn chr(code: i32) -> Result<Datum> {
    let limit = |m: String| SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, m);
    match u32::try_from(code) {
        Err(_) => Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "character number must be positive")),
        Ok(0) => Err(limit("null character not permitted".to_owned())),
        Ok(n) if n > 0x10_ffff => Err(limit(format!("requested character too large for encoding: {n}"))),
        Ok(n) => match char::from_u32(n) {
            Some(c) => Ok(Datum::text(c.to_string())),
            None => Err(limit(format!("requested character not valid for encoding: {n}"))),
        },
    }
}

/// Characters `start` (from 1) and on, `len` of them (None: all) counted from `start` even where that lies before the first.
///
/// # Errors
///
/// 22011 for a negative length.
pub(super) fn substring(s: &str, start: i32, len: Option<i32>) -> Result<&str> {
    let (from, to) = substring_range(start, len)?;
    let at = |n: usize| s.char_indices().nth(n).map_or(s.len(), |(i, _)| i);
    let begin = at(from);
    match to {
        Some(to) => {
            let rest = &s[begin..];
            let end = rest.char_indices().nth(to - from).map_or(rest.len(), |(i, _)| i);
            Ok(&rest[..end])
        }
        None => Ok(&s[begin..]),
    }
}

/// The half-open range from 0 that a substring call means.
pub(super) fn substring_range(start: i32, len: Option<i32>) -> Result<(usize, Option<usize>)> {
    let start = i64::from(start) - 1;
    let from = usize::try_from(start).unwrap_or(0);
    let Some(len) = len else { return Ok((from, None)) };
    if len < 0 {
        return Err(SqlError::new(state::SUBSTRING_ERROR, "negative substring length not allowed"));
    }
    let end = usize::try_from(start + i64::from(len)).unwrap_or(0);
    Ok((from, Some(end.max(from))))
}

fn parts(r: &mut Registry) {
    for name in ["substring", "substr"] {
        r.pure(name, &[T, I], T, |a, _| Ok(Datum::text(substring(args::text(a, 0)?, args::int4(a, 1)?, None)?)));
        r.pure(name, &[T, I, I], T, |a, _| {
            Ok(Datum::text(substring(args::text(a, 0)?, args::int4(a, 1)?, Some(args::int4(a, 2)?))?))
        });
    }
    r.pure("left", &[T, I], T, |a, _| {
        let (s, n) = (args::text(a, 0)?, args::int4(a, 1)?);
        let kept = if n >= 0 { n as usize } else { s.chars().count().saturating_sub(n.unsigned_abs() as usize) };
        Ok(Datum::text(s.char_indices().nth(kept).map_or(s, |(i, _)| &s[..i])))
    });
    r.pure("right", &[T, I], T, |a, _| {
        let (s, n) = (args::text(a, 0)?, args::int4(a, 1)?);
        let skipped = match n {
            // Its negation is itself: nothing is skipped.
            i32::MIN => 0,
            n if n < 0 => n.unsigned_abs() as usize,
            n => s.chars().count().saturating_sub(n as usize),
        };
        Ok(Datum::text(s.char_indices().nth(skipped).map_or("", |(i, _)| &s[i..])))
    });
    r.pure("overlay", &[T, T, I, I], T, |a, _| {
        overlay(args::text(a, 0)?, args::text(a, 1)?, args::int4(a, 2)?, args::int4(a, 3)?)
    });
    r.pure("overlay", &[T, T, I], T, |a, _| {
        let new = args::text(a, 1)?;
        overlay(args::text(a, 0)?, new, args::int4(a, 2)?, i32::try_from(new.chars().count()).unwrap_or(i32::MAX))
    });
    r.pure("split_part", &[T, T, I], T, |a, _| split_part(args::text(a, 0)?, args::text(a, 1)?, args::int4(a, 2)?));
    for args in [&[T][..], &[T, T]] {
        r.pure("btrim", args, T, |a, _| trim(a, true, true));
        r.pure("ltrim", args, T, |a, _| trim(a, true, false));
        r.pure("rtrim", args, T, |a, _| trim(a, false, true));
    }
    r.scalar(ScalarFn {
        name: "string_to_array",
        args: &[T, T],
        variadic: None,
        optional: 0,
        ret: Type::TEXT_ARRAY,
        strict: false,
        volatility: Volatility::Immutable,
        imp: string_to_array,
    });
    r.scalar(ScalarFn {
        name: "string_to_array",
        args: &[T, T, T],
        variadic: None,
        optional: 0,
        ret: Type::TEXT_ARRAY,
        strict: false,
        volatility: Volatility::Immutable,
        imp: string_to_array,
    });
}

fn overlay(s: &str, new: &str, start: i32, len: i32) -> Result<Datum> {
    if start <= 0 {
        return Err(SqlError::new(state::SUBSTRING_ERROR, "negative substring length not allowed"));
    }
    let rest = start
        .checked_add(len)
        .ok_or_else(|| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range"))?;
    grow::concat(&[substring(s, 1, Some(start - 1))?, new, substring(s, rest, None)?])
}

fn trim(a: &[Datum], start: bool, end: bool) -> Result<Datum> {
    let set: FxHashSet<char> =
        if a.len() > 1 { args::text(a, 1)?.chars().collect() } else { [' '].into_iter().collect() };
    let whole = args::text(a, 0)?;
    let mut s = whole;
    if start {
        s = s.trim_start_matches(|c| set.contains(&c));
    }
    if end {
        s = s.trim_end_matches(|c| set.contains(&c));
    }
    Ok(if s.len() == whole.len() { a[0].clone() } else { Datum::text(s) })
}

fn split_part(s: &str, separator: &str, n: i32) -> Result<Datum> {
    if n == 0 {
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "field position must not be zero"));
    }
    if s.is_empty() {
        return Ok(Datum::text(""));
    }
    if separator.is_empty() {
        return Ok(Datum::text(if n == 1 || n == -1 { s } else { "" }));
    }
    let field = n.unsigned_abs() as usize - 1;
    if n > 0 {
        return Ok(Datum::text(s.split(separator).nth(field).unwrap_or("")));
    }
    // Fields are those a scan from the left finds, even when counted from the right.
    let fields: Vec<&str> = s.split(separator).collect();
    Ok(Datum::text(fields.len().checked_sub(field + 1).map_or("", |i| fields[i])))
}

/// The fields of string_to_array and string_to_table, one by one; None where the text is NULL.
pub(super) fn fields(a: &[Datum]) -> Result<Option<impl Iterator<Item = Datum> + Send + use<>>> {
    let Some(Datum::Text(s)) = a.first().filter(|s| !s.is_null()).cloned() else { return Ok(None) };
    let null = args::text_or_null(a, 2)?.map(str::to_owned);
    let separator = args::text_or_null(a, 1)?.map(str::to_owned);
    // Where the next field begins; none behind the last one, and none at all in an empty text.
    let mut next = (!s.is_empty()).then_some(0);
    Ok(Some(std::iter::from_fn(move || {
        let from = next?;
        let rest = &s[from..];
        let (len, step) = match &separator {
            None => {
                let len = rest.chars().next().map_or(0, char::len_utf8);
                (len, (len < rest.len()).then_some(len))
            }
            Some(separator) if separator.is_empty() => (rest.len(), None),
            Some(separator) => match rest.find(separator.as_str()) {
                Some(at) => (at, Some(at + separator.len())),
                None => (rest.len(), None),
            },
        };
        next = step.map(|step| from + step);
        let field = &rest[..len];
        Some(if null.as_deref() == Some(field) { Datum::Null } else { Datum::text(field) })
    })))
}

fn string_to_array(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let Some(fields) = fields(a)? else { return Ok(Datum::Null) };
    let (mut out, mut steps) = (Elements::default(), Steps::new(cx));
    for field in fields {
        steps.take(1)?;
        out.push(field)?;
    }
    Ok(out.datum(Type::TEXT))
}

fn padding(r: &mut Registry) {
    r.pure("lpad", &[T, I], T, |a, _| pad(args::text(a, 0)?, args::int4(a, 1)?, " ", true));
    r.pure("lpad", &[T, I, T], T, |a, _| pad(args::text(a, 0)?, args::int4(a, 1)?, args::text(a, 2)?, true));
    r.pure("rpad", &[T, I], T, |a, _| pad(args::text(a, 0)?, args::int4(a, 1)?, " ", false));
    r.pure("rpad", &[T, I, T], T, |a, _| pad(args::text(a, 0)?, args::int4(a, 1)?, args::text(a, 2)?, false));
    r.pure("repeat", &[T, I], T, |a, _| {
        let (s, n) = (args::text(a, 0)?, usize::try_from(args::int4(a, 1)?).unwrap_or(0));
        grow::check_len(s.len().saturating_mul(n))?;
        Ok(Datum::text(s.repeat(n)))
    });
}

fn pad(s: &str, len: i32, fill: &str, left: bool) -> Result<Datum> {
    let have = s.chars().count();
    let mut len = usize::try_from(len).unwrap_or(0);
    if fill.is_empty() {
        len = len.min(have);
    }
    grow::check_len(len.saturating_mul(4))?;
    if have >= len {
        return Ok(Datum::text(substring(s, 1, Some(len as i32))?));
    }
    let filling: String = fill.chars().cycle().take(len - have).collect();
    Ok(Datum::text(if left { filling + s } else { format!("{s}{filling}") }))
}

fn searching(r: &mut Registry) {
    for name in ["position", "strpos"] {
        r.pure(name, &[T, T], I, |a, _| {
            let s = args::text(a, 0)?;
            Ok(s.find(args::text(a, 1)?).map_or(Datum::Int4(0), |at| count(s[..at].chars().count() + 1)))
        });
    }
    r.pure("replace", &[T, T, T], T, |a, cx| {
        let (s, from, to) = (args::text(a, 0)?, args::text(a, 1)?, args::text(a, 2)?);
        if from.is_empty() || !s.contains(from) {
            return Ok(a[0].clone());
        }
        let (mut steps, mut count) = (Steps::new(cx), 0usize);
        for _ in s.match_indices(from) {
            steps.take(1)?;
            count += 1;
        }
        let mut out =
            Text::with_capacity((s.len() - count * from.len()).saturating_add(count.saturating_mul(to.len())))?;
        let mut copied = 0;
        for (at, _) in s.match_indices(from) {
            steps.take(1)?;
            out.push_str(&s[copied..at])?;
            out.push_str(to)?;
            copied = at + from.len();
        }
        out.push_str(&s[copied..])?;
        Ok(out.datum())
    });
    r.binary("^@", "starts_with", &[T, T], Type::BOOL, |a, _| {
        Ok(Datum::Bool(args::text(a, 0)?.starts_with(args::text(a, 1)?)))
    });
}

fn joining(r: &mut Registry) {
    r.binary("||", "textcat", &[T, T], T, |a, _| grow::concat(&[args::text(a, 0)?, args::text(a, 1)?]));
    let f = r.stable("anytextcat", &[Type::ANYNONARRAY, T], T, cat_any);
    r.operator("||", Type::ANYNONARRAY, T, f);
    let f = r.stable("textanycat", &[T, Type::ANYNONARRAY], T, cat_any);
    r.operator("||", T, Type::ANYNONARRAY, f);
    let any = |name, args, imp| ScalarFn {
        name,
        args,
        variadic: Some(Type::ANY),
        optional: 0,
        ret: T,
        strict: false,
        volatility: Volatility::Stable,
        imp,
    };
    r.scalar(any("concat", &[], |a, cx| join(a, 0, "", cx)));
    r.scalar(any("concat_ws", &[T], |a, cx| match args::text_or_null(a, 0)? {
        Some(separator) => join(a, 1, separator, cx),
        None => Ok(Datum::Null),
    }));
    r.scalar(any("format", &[T], format::format));
    r.scalar(ScalarFn {
        name: "format",
        args: &[T],
        variadic: None,
        optional: 0,
        ret: T,
        strict: false,
        volatility: Volatility::Stable,
        imp: format::format,
    });
}

// `||` of text and anything else: the other's text, as its cast to text gives it.
fn cat_any(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let mut out = Text::default();
    for (i, value) in a.iter().enumerate() {
        out.write(|out| cast_text(value, arg_type(cx, i), cx, out))?;
    }
    Ok(out.datum())
}

// What `value::text` is: booleans in full, char(n) without its padding, else the output function.
pub(super) fn cast_text(value: &Datum, ty: Type, cx: &FnCx<'_>, out: &mut String) {
    match value {
        Datum::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Datum::Text(s) if ty == Type::BPCHAR => out.push_str(s.trim_end_matches(' ')),
        other => io::text_out(other, ty, cx.session, out),
    }
}

/// The actual type of an argument. Of variadic arguments the last type given stands for all that follow.
pub(super) fn arg_type(cx: &FnCx<'_>, i: usize) -> Type {
    cx.arg_types.get(i).or(cx.arg_types.last()).copied().unwrap_or(T)
}

// The output functions' texts of all but NULLs.
fn join(a: &[Datum], from: usize, separator: &str, cx: &FnCx<'_>) -> Result<Datum> {
    let mut out = Text::default();
    let mut first = true;
    for (i, value) in a.iter().enumerate().skip(from).filter(|(_, v)| !v.is_null()) {
        if !first {
            out.push_str(separator)?;
        }
        first = false;
        out.write(|out| io::text_out(value, arg_type(cx, i), cx.session, out))?;
    }
    Ok(out.datum())
}

#[cfg(test)]
mod tests {
    use super::super::testing::run_cases;
    use super::*;

    #[test]
    fn as_postgresql_answers() {
        run_cases(include_str!("cases/text.txt"));
    }

    #[test]
    fn fields_come_one_by_one() {
        let split = |a: &[&str]| {
            let args: Vec<Datum> = a.iter().map(Datum::text).collect();
            let text = |d: Datum| if let Datum::Text(s) = d { s.to_string() } else { "NULL".into() };
            fields(&args).unwrap().unwrap().map(text).collect::<Vec<_>>().join("|")
        };
        assert_eq!(split(&["a,b,,", ","]), "a|b||");
        assert_eq!(split(&["", ","]), "");
        assert_eq!(split(&["ab", ""]), "ab");
        assert_eq!(split(&["aXYbXYc", "XY", "b"]), "a|NULL|c");
    }

    /// As PostgreSQL 15 answers with COLLATE "C.utf8".
    #[test]
    fn case_is_unicode_one_for_one() {
        assert_eq!("ÀÉÎİIΣ".chars().map(lower).collect::<String>(), "àéîiiσ");
        assert_eq!("straße é ŉı".chars().map(upper).collect::<String>(), "STRAßE É ŉI");
    }
}
