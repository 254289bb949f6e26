//! LIKE, ILIKE and SIMILAR TO.
//!
//! `x LIKE p ESCAPE e` is `x ~~ like_escape(p, e)`; `x SIMILAR TO p ESCAPE e` is `x ~ similar_to_escape(p, e)`. Matching walks text and pattern side by
//! side and goes back only to the last `%`, so it takes at most length times length, and no stack.

use super::FnCx;
use super::args;
use super::grow::Steps;
use super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use super::text::lower;
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Type};

const T: Type = Type::TEXT;

/// Adds LIKE and its kin, and the POSIX operators and functions of [`super::regexp`].
pub fn register(r: &mut Registry) {
    let like: ScalarImpl = |a, cx| test(args::text(a, 0)?, args::text(a, 1)?, cx).map(Datum::Bool);
    let not_like: ScalarImpl = |a, cx| test(args::text(a, 0)?, args::text(a, 1)?, cx).map(|m| Datum::Bool(!m));
    let ilike: ScalarImpl = |a, cx| test(&fold(args::text(a, 0)?), &fold(args::text(a, 1)?), cx).map(Datum::Bool);
    let not_ilike: ScalarImpl =
        |a, cx| test(&fold(args::text(a, 0)?), &fold(args::text(a, 1)?), cx).map(|m| Datum::Bool(!m));
    let operands: [(&'static [Type; 2], [&'static str; 4]); 3] = [
        (&[T, T], ["textlike", "textnlike", "texticlike", "texticnlike"]),
        (&[Type::BPCHAR, T], ["bpcharlike", "bpcharnlike", "bpchariclike", "bpcharicnlike"]),
        (&[Type::NAME, T], ["namelike", "namenlike", "nameiclike", "nameicnlike"]),
    ];
    for (args, [n1, n2, n3, n4]) in operands {
        r.binary("~~", n1, args, Type::BOOL, like);
        r.binary("!~~", n2, args, Type::BOOL, not_like);
        r.binary("~~*", n3, args, Type::BOOL, ilike);
        r.binary("!~~*", n4, args, Type::BOOL, not_ilike);
    }
    r.pure("like", &[T, T], Type::BOOL, like);
    r.pure("notlike", &[T, T], Type::BOOL, not_like);
    r.pure("like_escape", &[T, T], T, |a, _| like_escape(args::text(a, 0)?, args::text(a, 1)?).map(Datum::text));
    r.pure("similar_to_escape", &[T, T], T, |a, _| {
        similar_escape(args::text(a, 0)?, args::text(a, 1)?).map(Datum::text)
    });
    r.pure("similar_to_escape", &[T], T, |a, _| similar_escape(args::text(a, 0)?, "\\").map(Datum::text));
    r.scalar(ScalarFn {
        name: "similar_escape",
        args: &[T, T],
        variadic: None,
        optional: 0,
        ret: T,
        strict: false,
        volatility: Volatility::Immutable,
        imp: |a, _| {
            let Some(pattern) = args::text_or_null(a, 0)? else { return Ok(Datum::Null) };
            similar_escape(pattern, args::text_or_null(a, 1)?.unwrap_or("\\")).map(Datum::text)
        },
    });
    super::regexp::register(r);
}

fn test(s: &str, pattern: &str, cx: &FnCx<'_>) -> Result<bool> {
    matches(s, pattern, &mut Steps::new(cx))
}

fn fold(s: &str) -> String {
    s.chars().map(lower).collect()
}

/// Whether a text is LIKE a pattern: `%` is any characters, `_` is one, a backslash makes the next one ordinary.
///
/// # Errors
///
/// 22025 when the pattern's last character is a backslash and the text comes to it; what a cancel says.
fn matches(s: &str, pattern: &str, steps: &mut Steps<'_>) -> Result<bool> {
    let p = pattern.as_bytes();
    if !p.iter().any(|b| matches!(b, b'_' | b'\\')) {
        // The common shapes need no walk: abc, abc%, %abc, a%c, %abc%.
        let (Some(first), Some(last)) = (pattern.find('%'), pattern.rfind('%')) else { return Ok(s == pattern) };
        if first == last {
            let (start, end) = (&pattern[..first], &pattern[first + 1..]);
            return Ok(s.len() >= start.len() + end.len() && s.starts_with(start) && s.ends_with(end));
        }
        if first == 0 && last + 1 == pattern.len() && !pattern[1..last].contains('%') {
            return Ok(s.contains(&pattern[1..last]));
        }
    }
    walk(s.as_bytes(), p, steps, |t, i| i + char_width(t[i]))
}

/// [`matches`] for bytea, where `_` is one byte.
pub(super) fn like_bytes(s: &[u8], pattern: &[u8], steps: &mut Steps<'_>) -> Result<bool> {
    walk(s, pattern, steps, |_, i| i + 1)
}

fn char_width(first: u8) -> usize {
    match first {
        0..=0xbf => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    }
}

fn walk(t: &[u8], p: &[u8], steps: &mut Steps<'_>, next: impl Fn(&[u8], usize) -> usize) -> Result<bool> {
    let (mut ti, mut pi) = (0, 0);
    // Behind the last `%`: where the pattern goes on, and where the text is tried next.
    let mut back: Option<(usize, usize)> = None;
    loop {
        steps.take(1)?;
        if p.get(pi) == Some(&b'%') {
            pi += 1;
            if pi == p.len() {
                return Ok(true);
            }
            back = Some((pi, ti));
            continue;
        }
        if ti >= t.len() {
            break;
        }
        let advanced = match p.get(pi) {
            Some(b'_') => Some((next(t, ti), pi + 1)),
            Some(b'\\') => {
                let literal = p.get(pi + 1).ok_or_else(|| {
                    SqlError::new(state::INVALID_ESCAPE_SEQUENCE, "LIKE pattern must not end with escape character")
                })?;
                (*literal == t[ti]).then_some((ti + 1, pi + 2))
            }
            Some(c) => (*c == t[ti]).then_some((ti + 1, pi + 1)),
            None => None,
        };
        match (advanced, back) {
            (Some((t_next, p_next)), _) => (ti, pi) = (t_next, p_next),
            (None, Some((p_back, t_back))) => {
                ti = next(t, t_back);
                pi = p_back;
                back = Some((p_back, ti));
            }
            (None, None) => return Ok(false),
        }
    }
    Ok(p[pi..].iter().all(|b| *b == b'%'))
}

fn escape_char(escape: &str) -> Result<Option<char>> {
    let mut chars = escape.chars();
    let first = chars.next();
    if chars.next().is_some() {
        return Err(SqlError::new(state::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
            .hint("Escape string must be empty or one character."));
    }
    Ok(first)
}

/// A LIKE pattern with another escape character as one with the backslash.
fn like_escape(pattern: &str, escape: &str) -> Result<String> {
    let escape = escape_char(escape)?;
    if escape == Some('\\') {
        return Ok(pattern.to_owned());
    }
    let mut out = String::with_capacity(pattern.len());
    let mut after_escape = false;
    for c in pattern.chars() {
        if Some(c) == escape && !after_escape {
            out.push('\\');
            after_escape = true;
        } else {
            if c == '\\' && !after_escape {
                out.push('\\');
            }
            out.push(c);
            after_escape = false;
        }
    }
    Ok(out)
}

/// A SIMILAR TO pattern as a POSIX one. Two escaped double quotes mark the part that substring() returns.
pub(super) fn similar_escape(pattern: &str, escape: &str) -> Result<String> {
    let escape = escape_char(escape)?;
    let mut out = String::from("^(?:");
    let (mut after_escape, mut in_class, mut quotes) = (false, false, 0);
    for c in pattern.chars() {
        if after_escape {
            after_escape = false;
            if c == '"' && !in_class {
                match quotes {
                    0 => out.push_str("){1,1}?("),
                    1 => out.push_str("){1,1}(?:"),
                    _ => {
                        return Err(SqlError::new(
                            "2200C",
                            "SQL regular expression may not contain more than two escape-double-quote separators",
                        ));
                    }
                }
                quotes += 1;
            } else {
                out.push('\\');
                out.push(c);
            }
        } else if Some(c) == escape {
            after_escape = true;
        } else if in_class {
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
            in_class = c != ']';
        } else {
            match c {
                '[' => {
                    out.push(c);
                    in_class = true;
                }
                '%' => out.push_str(".*"),
                '_' => out.push('.'),
                '(' => out.push_str("(?:"),
                '\\' | '.' | '^' | '$' => {
                    out.push('\\');
                    out.push(c);
                }
                _ => out.push(c),
            }
        }
    }
    out.push_str(")$");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, run_cases};
    use super::*;

    #[test]
    fn as_postgresql_answers() {
        run_cases(include_str!("cases/pattern.txt"));
    }

    #[test]
    fn many_percents_take_no_stack_and_little_time() {
        let session = testing::session();
        let like = |s: &str, pattern: &str| {
            let cx = FnCx { session: &session, arg_types: &[T, T], ret: Type::BOOL, typmod: -1 };
            matches(s, pattern, &mut Steps::new(&cx))
        };
        let pattern = "%a".repeat(10_000);
        assert_eq!(like(&"b".repeat(10_000), &pattern), Ok(false));
        assert_eq!(like(&"a".repeat(10_000), &pattern), Ok(true));
        session.cancel.raise(SqlError::new(state::QUERY_CANCELED, "stop"));
        assert_eq!(like(&"a".repeat(100_000), &"%a_".repeat(40_000)).unwrap_err().message(), "stop");
    }
}
