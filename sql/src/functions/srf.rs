//! Set-returning functions: generate_series, unnest, and the table forms of splitting and matching.

use super::args;
use super::datetime::{add_interval, add_interval_tz};
use super::keywords::KEYWORDS;
use super::registry::{Registry, SetFn, SetIter};
use super::{FnCx, regexp, text};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Interval, Numeric, Type};

const T: Type = Type::TEXT;
const I: Type = Type::INT4;

/// Adds them all.
pub fn register(r: &mut Registry) {
    series(r);
    let mut add = |name, args, columns, strict, imp| r.set(SetFn { name, args, variadic: None, columns, strict, imp });
    add("unnest", &[Type::ANYARRAY], &[("unnest", Type::ANYELEMENT)], true, |a, _| {
        let array = args::array(a, 0)?.clone();
        Ok(Box::new((0..array.values.len()).map(move |i| Ok(vec![array.values[i].clone()]))))
    });
    // What JDBC asks for the columns of a key with: the elements and their numbers.
    add("_pg_expandarray", &[Type::ANYARRAY], &[("x", Type::ANYELEMENT), ("n", I)], true, |a, _| {
        let array = args::array(a, 0)?.clone();
        Ok(Box::new((0..array.values.len()).map(move |i| Ok(vec![array.values[i].clone(), args::count(i + 1)]))))
    });
    add("pg_listening_channels", &[], &[("pg_listening_channels", T)], true, |_, cx| {
        Ok(column(cx.session.services.listening().0.into_iter().map(Datum::text)))
    });
    add("generate_subscripts", &[Type::ANYARRAY, I], &[("generate_subscripts", I)], true, subscripts);
    add("generate_subscripts", &[Type::ANYARRAY, I, Type::BOOL], &[("generate_subscripts", I)], true, subscripts);
    for args in [&[T, T][..], &[T, T, T]] {
        add("regexp_matches", args, &[("regexp_matches", Type::TEXT_ARRAY)], true, |a, _| {
            Ok(Box::new(regexp::matches(a)?.map(|v| Ok(vec![v?]))))
        });
        add("regexp_split_to_table", args, &[("regexp_split_to_table", T)], true, |a, _| {
            Ok(Box::new(regexp::split(a, "regexp_split_to_table")?.map(|v| Ok(vec![v?]))))
        });
        add("string_to_table", args, &[("string_to_table", T)], false, |a, _| {
            Ok(match text::fields(a)? {
                Some(fields) => column(fields),
                None => column(std::iter::empty()),
            })
        });
    }
    add("pg_options_to_table", &[Type::TEXT_ARRAY], &[("option_name", T), ("option_value", T)], true, |a, _| {
        let array = args::array(a, 0)?.clone();
        Ok(Box::new((0..array.values.len()).map(move |i| match &array.values[i] {
            Datum::Text(option) => Ok(match option.split_once('=') {
                Some((name, value)) => vec![Datum::text(name), Datum::text(value)],
                None => vec![Datum::text(option), Datum::Null],
            }),
            _ => Ok(vec![Datum::Null, Datum::Null]),
        })))
    });
    let columns = &[("word", T), ("catcode", Type::CHAR), ("barelabel", Type::BOOL), ("catdesc", T), ("baredesc", T)];
    add("pg_get_keywords", &[], columns, true, |_, _| {
        Ok(Box::new(KEYWORDS.iter().map(|(word, category, bare)| {
            let description = match category {
                b'U' => "unreserved",
                b'C' => "unreserved (cannot be function or type name)",
                b'T' => "reserved (can be function or type name)",
                _ => "reserved",
            };
            let label = if *bare { "can be bare label" } else { "requires AS" };
            Ok(vec![
                Datum::text(word),
                Datum::text(char::from(*category).to_string()),
                Datum::Bool(*bare),
                Datum::text(description),
                Datum::text(label),
            ])
        })))
    });
}

fn column(values: impl Iterator<Item = Datum> + Send + 'static) -> SetIter {
    Box::new(values.map(|v| Ok(vec![v])))
}

fn subscripts(a: &[Datum], _: &FnCx<'_>) -> Result<SetIter> {
    let n = args::int4(a, 1)?;
    let dim = usize::try_from(i64::from(n) - 1).ok().and_then(|n| args::array(a, 0).ok()?.dims.get(n).copied());
    let Some((len, lower)) = dim else { return Ok(column(std::iter::empty())) };
    let reverse = a.len() > 2 && args::boolean(a, 2)?;
    Ok(Box::new((0..len).map(move |i| Ok(vec![Datum::Int4(if reverse { lower + len - 1 - i } else { lower + i })]))))
}

fn zero_step() -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn series(r: &mut Registry) {
    const N: Type = Type::NUMERIC;
    const L: Type = Type::INT8;
    let mut add = |args, ty: &'static [(&'static str, Type)], imp| {
        r.set(SetFn { name: "generate_series", args, variadic: None, columns: ty, strict: true, imp })
    };
    for args in [&[I, I][..], &[I, I, I]] {
        add(args, &[("generate_series", I)], |a, _| integers(a, |n| Datum::Int4(n as i32)));
    }
    for args in [&[L, L][..], &[L, L, L]] {
        add(args, &[("generate_series", L)], |a, _| integers(a, Datum::Int8));
    }
    for args in [&[N, N][..], &[N, N, N]] {
        add(args, &[("generate_series", N)], |a, _| numerics(a));
    }
    add(&[Type::TIMESTAMP, Type::TIMESTAMP, Type::INTERVAL], &[("generate_series", Type::TIMESTAMP)], |a, _| match a {
        [Datum::Timestamp(start), Datum::Timestamp(stop), Datum::Interval(step)] => {
            times(*start, *stop, *step, add_interval, Datum::Timestamp)
        }
        _ => Err(SqlError::internal("generate_series of other types")),
    });
    add(&[Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::INTERVAL], &[("generate_series", Type::TIMESTAMPTZ)], |a, cx| {
        match a {
            [Datum::TimestampTz(start), Datum::TimestampTz(stop), Datum::Interval(step)] => {
                let zone = cx.session.time_zone.clone();
                times(*start, *stop, *step, move |t, by| add_interval_tz(t, by, &zone), Datum::TimestampTz)
            }
            _ => Err(SqlError::internal("generate_series of other types")),
        }
    });
}

fn integers(a: &[Datum], make: fn(i64) -> Datum) -> Result<SetIter> {
    let (start, stop) = (args::int8(a, 0)?, args::int8(a, 1)?);
    let step = if a.len() > 2 { args::int8(a, 2)? } else { 1 };
    if step == 0 {
        return Err(zero_step());
    }
    // A step over the end of the type ends the series.
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let n = next.filter(|n| if step > 0 { *n <= stop } else { *n >= stop })?;
        next = n.checked_add(step);
        Some(Ok(vec![make(n)]))
    })))
}

fn numerics(a: &[Datum]) -> Result<SetIter> {
    let step = if a.len() > 2 { args::numeric(a, 2)?.clone() } else { Numeric::from_i64(1) };
    let (start, stop) = (args::numeric(a, 0)?.clone(), args::numeric(a, 1)?.clone());
    for (value, what) in [(&start, "start value"), (&stop, "stop value"), (&step, "step size")] {
        if !value.is_finite() {
            let kind = if value.is_nan() { "NaN" } else { "infinity" };
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("{what} cannot be {kind}")));
        }
    }
    if step.is_zero() {
        return Err(zero_step());
    }
    let up = step.signum() > 0;
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let n = next.take().filter(|n| if up { *n <= stop } else { *n >= stop })?;
        match n.add(&step) {
            Ok(sum) => next = Some(sum),
            Err(e) => return Some(Err(e)),
        }
        Some(Ok(vec![Datum::Numeric(n)]))
    })))
}

fn times(
    start: i64,
    stop: i64,
    step: Interval,
    add: impl Fn(i64, &Interval) -> Result<i64> + Send + 'static,
    make: fn(i64) -> Datum,
) -> Result<SetIter> {
    let sign = step.span().signum();
    if sign == 0 {
        return Err(zero_step());
    }
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let t = next.take().filter(|t| if sign > 0 { *t <= stop } else { *t >= stop })?;
        match add(t, &step) {
            Ok(sum) => next = Some(sum),
            Err(e) => return Some(Err(e)),
        }
        Some(Ok(vec![make(t)]))
    })))
}
