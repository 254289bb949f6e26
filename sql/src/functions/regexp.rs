//! POSIX regular expressions: `~` and its kin, substring() by pattern, and the regexp_ functions.

use super::FnCx;
use super::args::{self, count};
use super::grow::{Elements, Text};
use super::pattern::similar_escape;
use super::regex_syntax::{Flags, Found, Pattern, compile};
use super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Type};

const T: Type = Type::TEXT;
const I: Type = Type::INT4;

/// Adds them all.
pub fn register(r: &mut Registry) {
    let operands: [(&'static [Type; 2], [&'static str; 4]); 3] = [
        (&[T, T], ["textregexeq", "textregexne", "texticregexeq", "texticregexne"]),
        (&[Type::BPCHAR, T], ["bpcharregexeq", "bpcharregexne", "bpcharicregexeq", "bpcharicregexne"]),
        (&[Type::NAME, T], ["nameregexeq", "nameregexne", "nameicregexeq", "nameicregexne"]),
    ];
    for (args, [n1, n2, n3, n4]) in operands {
        r.binary("~", n1, args, Type::BOOL, |a, _| Ok(Datum::Bool(is_match(a, false)?)));
        r.binary("!~", n2, args, Type::BOOL, |a, _| Ok(Datum::Bool(!is_match(a, false)?)));
        r.binary("~*", n3, args, Type::BOOL, |a, _| Ok(Datum::Bool(is_match(a, true)?)));
        r.binary("!~*", n4, args, Type::BOOL, |a, _| Ok(Datum::Bool(!is_match(a, true)?)));
    }
    r.pure("substring", &[T, T], T, |a, _| substring(args::text(a, 0)?, args::text(a, 1)?));
    r.pure("substring", &[T, T, T], T, |a, _| {
        substring(args::text(a, 0)?, &similar_escape(args::text(a, 1)?, args::text(a, 2)?)?)
    });
    let mut add = |name, args, optional, ret, imp: ScalarImpl| {
        r.scalar(ScalarFn {
            name,
            args,
            variadic: None,
            optional,
            ret,
            strict: true,
            volatility: Volatility::Immutable,
            imp,
        });
    };
    add("regexp_like", &[T, T, T], 1, Type::BOOL, |a, _| {
        let flags = flags_of(a, 2, "regexp_like")?;
        Ok(Datum::Bool(compile(args::text(a, 1)?, flags)?.is_match(args::text(a, 0)?)))
    });
    add("regexp_match", &[T, T, T], 1, Type::TEXT_ARRAY, |a, _| {
        let flags = flags_of(a, 2, "regexp_match")?;
        let found = compile(args::text(a, 1)?, flags)?;
        Ok(found.find_at(args::text(a, 0)?, 0)?.map_or(Datum::Null, |c| groups(&c)))
    });
    add("regexp_replace", &[T, T, T], 0, T, |a, cx| replace(a, Flags::default(), 0, 1, cx));
    add("regexp_replace", &[T, T, T, T], 0, T, |a, cx| {
        let letters = args::text(a, 3)?;
        let flags = Flags::parse(letters).map_err(|e| match letters.bytes().next() {
            Some(b'0'..=b'9') => e.hint("If you meant to use regexp_replace() with a start parameter, cast the fourth argument to integer explicitly."),
            _ => e,
        })?;
        replace(a, flags, 0, if flags.global { 0 } else { 1 }, cx)
    });
    add("regexp_replace", &[T, T, T, I, I, T], 2, T, |a, cx| {
        let flags = if a.len() > 5 { Flags::parse(args::text(a, 5)?)? } else { Flags::default() };
        let start = positive(a, 3, "start")?;
        let n = if a.len() > 4 { at_least(a, 4, "n", 0)? } else { 1 };
        replace(a, flags, start_byte(args::text(a, 0)?, start), n, cx)
    });
    add("regexp_split_to_array", &[T, T, T], 1, Type::TEXT_ARRAY, |a, cx| {
        let mut parts = Elements::default();
        for part in split(a, "regexp_split_to_array")? {
            cx.session.check_cancel()?;
            parts.push(part?)?;
        }
        Ok(parts.datum(T))
    });
    add("regexp_count", &[T, T, I, T], 2, I, |a, cx| {
        let flags = flags_of(a, 3, "regexp_count")?;
        let start = if a.len() > 2 { positive(a, 2, "start")? } else { 1 };
        let s = args::text(a, 0)?;
        let found = compile(args::text(a, 1)?, flags)?;
        let mut matches = 0;
        for found in Matches::new(&found, s, start_byte(s, start)) {
            found?;
            cx.session.check_cancel()?;
            matches += 1;
        }
        Ok(count(matches))
    });
    add("regexp_instr", &[T, T, I, I, I, T, I], 5, I, instr);
    add("regexp_substr", &[T, T, I, I, T, I], 4, T, substr);
}

fn is_match(a: &[Datum], ignore_case: bool) -> Result<bool> {
    Ok(compile(args::text(a, 1)?, Flags { ignore_case, ..Flags::default() })?.is_match(args::text(a, 0)?))
}

// The option letters in argument i, if it is there, for a function that does not know `g`.
fn flags_of(a: &[Datum], i: usize, function: &str) -> Result<Flags> {
    let flags = if a.len() > i { Flags::parse(args::text(a, i)?)? } else { Flags::default() };
    if flags.global {
        let error = SqlError::new(
            state::INVALID_PARAMETER_VALUE,
            format!("{function}() does not support the \"global\" option"),
        );
        return Err(if function == "regexp_match" {
            error.hint("Use the regexp_matches function instead.")
        } else {
            error
        });
    }
    Ok(flags)
}

fn at_least(a: &[Datum], i: usize, name: &str, min: i32) -> Result<usize> {
    let n = args::int4(a, i)?;
    if n < min {
        return Err(SqlError::new(
            state::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{name}\": {n}"),
        ));
    }
    Ok(n as usize)
}

fn positive(a: &[Datum], i: usize, name: &str) -> Result<usize> {
    at_least(a, i, name, 1)
}

// Where the character of this number (from 1) begins; beyond the end for one after the last.
fn start_byte(s: &str, start: usize) -> usize {
    s.char_indices().map(|(i, _)| i).chain([s.len()]).nth(start - 1).unwrap_or(s.len() + 1)
}

/// Matches from left to right. After an empty one the search goes on a character further, so one may touch the end of the last.
struct Matches<'r, 't> {
    regex: &'r Pattern,
    text: &'t str,
    at: usize,
}

impl<'r, 't> Matches<'r, 't> {
    fn new(regex: &'r Pattern, text: &'t str, at: usize) -> Self {
        Matches { regex, text, at }
    }
}

impl<'t> Iterator for Matches<'_, 't> {
    type Item = Result<Found<'t>>;
    fn next(&mut self) -> Option<Result<Found<'t>>> {
        if self.at > self.text.len() {
            return None;
        }
        let found = match self.regex.find_at(self.text, self.at).transpose()? {
            Ok(found) => found,
            Err(e) => return Some(Err(e)),
        };
        let whole = found.whole();
        self.at = whole.end;
        if whole.is_empty() {
            self.at += self.text[whole.end..].chars().next().map_or(1, char::len_utf8);
        }
        Some(Ok(found))
    }
}

// The parenthesised parts of a match, or all of it if there are none, as a text[].
fn groups(found: &Found<'_>) -> Datum {
    let skip = usize::from(found.len() > 1);
    args::text_array((skip..found.len()).map(|g| found.text(g)))
}

fn substring(s: &str, pattern: &str) -> Result<Datum> {
    let found = compile(pattern, Flags::default())?.find_at(s, 0)?;
    let shown = found.and_then(|c| c.text(usize::from(c.len() > 1)));
    Ok(shown.map_or(Datum::Null, Datum::text))
}

// Replaces the n-th match from a place on, or all for 0.
fn replace(a: &[Datum], flags: Flags, from: usize, n: usize, cx: &FnCx<'_>) -> Result<Datum> {
    let (s, new) = (args::text(a, 0)?, args::text(a, 2)?);
    let regex = compile(args::text(a, 1)?, flags)?;
    let mut out = Text::default();
    let mut copied = 0;
    for (i, found) in Matches::new(&regex, s, from).enumerate() {
        cx.session.check_cancel()?;
        let found = found?;
        if n > 0 && i + 1 != n {
            continue;
        }
        let whole = found.whole();
        out.push_str(&s[copied..whole.start])?;
        push_replacement(new, &found, &mut out)?;
        copied = whole.end;
        if n > 0 {
            break;
        }
    }
    if copied == 0 && out.is_empty() {
        return Ok(a[0].clone());
    }
    out.push_str(&s[copied..])?;
    Ok(out.datum())
}

// `\1` to `\9` are groups, `\&` the whole match, `\\` a backslash; any other backslash is itself.
fn push_replacement(new: &str, found: &Found<'_>, out: &mut Text) -> Result<()> {
    let mut rest = new;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at])?;
        rest = &rest[at + 1..];
        match rest.as_bytes().first() {
            Some(d @ b'1'..=b'9') => out.push_str(found.text(usize::from(d - b'0')).unwrap_or_default())?,
            Some(b'&') => out.push_str(found.text(0).unwrap_or_default())?,
            Some(b'\\') => out.push('\\')?,
            _ => {
                out.push('\\')?;
                continue;
            }
        }
        rest = &rest[1..];
    }
    out.push_str(rest)
}

/// The parts between matches, one by one, for regexp_split_to_array and regexp_split_to_table. Empty matches at either end, or right behind a
/// match, split nothing.
pub(super) fn split(a: &[Datum], function: &str) -> Result<impl Iterator<Item = Result<Datum>> + Send + use<>> {
    let (pattern, flags) = (args::text(a, 1)?.to_owned(), flags_of(a, 2, function)?);
    compile(&pattern, flags)?;
    let s = args::shared_text(a, 0)?;
    // Where the next part begins, or None behind the last; where the search goes on, and the last match ended.
    let (mut next, mut at, mut last_end) = (Some(0), 0, 0);
    Ok(std::iter::from_fn(move || {
        let from = next?;
        // Compiled patterns stay with their thread, which may be another one for each part.
        let regex = match compile(&pattern, flags) {
            Ok(regex) => regex,
            Err(e) => return Some(Err(e)),
        };
        let mut matches = Matches::new(&regex, &s, at);
        while let Some(found) = matches.next() {
            let whole = match found {
                Ok(found) => found.whole(),
                Err(e) => {
                    next = None;
                    return Some(Err(e));
                }
            };
            let splits = whole.start < s.len() && whole.end > last_end;
            last_end = whole.end;
            if splits {
                (next, at) = (Some(whole.end), matches.at);
                return Some(Ok(Datum::text(&s[from..whole.start])));
            }
        }
        next = None;
        Some(Ok(Datum::text(&s[from..])))
    }))
}

/// The groups of the first match, or with `g` of all, one by one, for regexp_matches.
pub(super) fn matches(a: &[Datum]) -> Result<impl Iterator<Item = Result<Datum>> + Send + use<>> {
    let flags = if a.len() > 2 { Flags::parse(args::text(a, 2)?)? } else { Flags::default() };
    let pattern = args::text(a, 1)?.to_owned();
    compile(&pattern, flags)?;
    let s = args::shared_text(a, 0)?;
    let mut at = 0;
    let all = std::iter::from_fn(move || {
        let regex = match compile(&pattern, flags) {
            Ok(regex) => regex,
            Err(e) => return Some(Err(e)),
        };
        let mut matches = Matches::new(&regex, &s, at);
        let found = matches.next()?;
        at = matches.at;
        Some(found.map(|found| groups(&found)))
    });
    Ok(all.take(if flags.global { usize::MAX } else { 1 }))
}

// The n-th match from the start argument on.
fn nth_match<'t>(a: &'t [Datum], flags: Flags, function: &str) -> Result<Option<Found<'t>>> {
    let start = if a.len() > 2 { positive(a, 2, "start")? } else { 1 };
    let n = if a.len() > 3 { positive(a, 3, "n")? } else { 1 };
    debug_assert!(!flags.global, "{function} refused it");
    let s = args::text(a, 0)?;
    let regex = compile(args::text(a, 1)?, flags)?;
    Matches::new(&regex, s, start_byte(s, start)).nth(n - 1).transpose()
}

fn instr(a: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    let flags = flags_of(a, 5, "regexp_instr")?;
    let at_end = match a.get(4) {
        None => false,
        Some(_) => match args::int4(a, 4)? {
            0 => false,
            1 => true,
            n => {
                return Err(SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("invalid value for parameter \"endoption\": {n}"),
                ));
            }
        },
    };
    let group = if a.len() > 6 { at_least(a, 6, "subexpr", 0)? } else { 0 };
    let found = nth_match(a, flags, "regexp_instr")?.and_then(|c| c.range(group));
    let s = args::text(a, 0)?;
    Ok(found.map_or(Datum::Int4(0), |m| count(s[..if at_end { m.end } else { m.start }].chars().count() + 1)))
}

fn substr(a: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    let flags = flags_of(a, 4, "regexp_substr")?;
    let group = if a.len() > 5 { at_least(a, 5, "subexpr", 0)? } else { 0 };
    let found = nth_match(a, flags, "regexp_substr")?.and_then(|c| c.text(group));
    Ok(found.map_or(Datum::Null, Datum::text))
}
