//! Comparisons, and `overlaps`.
//!
//! A date meets a timestamp as its midnight, a timestamp meets a timestamptz as clocks of the session's zone. Both are
//! compared in 128 bits, where no conversion can leave the range: the year 5874897 is simply later.

use std::cmp::Ordering;

use super::super::context::FnCx;
use super::super::registry::{Registry, ScalarFn, Volatility};
use super::add_interval_tz;
use crate::error::Result;
use crate::types::datetime::{DATE_INFINITY, DATE_NEG_INFINITY, DAY, INFINITY, NEG_INFINITY, SECOND};
use crate::types::{Datum, Type};

use super::arith::add_interval;

/// A place on a line of time that has its two ends.
fn place(value: &Datum, zoned: bool, cx: &FnCx<'_>) -> Result<i128> {
    // Offsets matter only when a local time meets a timestamptz.
    let as_utc = |local: i64| -> i128 {
        if zoned {
            i128::from(local) - i128::from(cx.session.time_zone.offset_of_local(local)) * i128::from(SECOND)
        } else {
            i128::from(local)
        }
    };
    Ok(match value {
        Datum::Date(DATE_INFINITY) | Datum::Timestamp(INFINITY) | Datum::TimestampTz(INFINITY) => i128::MAX,
        Datum::Date(DATE_NEG_INFINITY) | Datum::Timestamp(NEG_INFINITY) | Datum::TimestampTz(NEG_INFINITY) => i128::MIN,
        Datum::Date(days) => match i64::from(*days).checked_mul(DAY) {
            Some(midnight) => as_utc(midnight),
            None => i128::from(*days) * i128::from(DAY),
        },
        Datum::Timestamp(t) => as_utc(*t),
        Datum::TimestampTz(t) | Datum::Time(t) => i128::from(*t),
        Datum::Interval(span) => span.span(),
        _ => return Err(super::mismatch()),
    })
}

fn compare(args: &[Datum], cx: &FnCx<'_>) -> Result<Ordering> {
    let [a, b] = args else { return Err(super::mismatch()) };
    let zoned = matches!(a, Datum::TimestampTz(_)) || matches!(b, Datum::TimestampTz(_));
    Ok(place(a, zoned, cx)?.cmp(&place(b, zoned, cx)?))
}

/// The six operators and the three-way function of a pair of types.
macro_rules! comparisons {
    ($r:ident, $prefix:literal, $suffix:literal, $left:ident, $right:ident, $volatility:ident) => {{
        const ARGS: &[Type] = &[Type::$left, Type::$right];
        let mut operator = |op: &'static str, name: &'static str, imp| {
            let f = $r.scalar(function(name, ARGS, Type::BOOL, Volatility::$volatility, imp));
            $r.operator(op, Type::$left, Type::$right, f);
        };
        operator("<", concat!($prefix, "_lt", $suffix), |a, cx| Ok(Datum::Bool(compare(a, cx)?.is_lt())));
        operator("<=", concat!($prefix, "_le", $suffix), |a, cx| Ok(Datum::Bool(compare(a, cx)?.is_le())));
        operator("=", concat!($prefix, "_eq", $suffix), |a, cx| Ok(Datum::Bool(compare(a, cx)?.is_eq())));
        operator("<>", concat!($prefix, "_ne", $suffix), |a, cx| Ok(Datum::Bool(compare(a, cx)?.is_ne())));
        operator(">=", concat!($prefix, "_ge", $suffix), |a, cx| Ok(Datum::Bool(compare(a, cx)?.is_ge())));
        operator(">", concat!($prefix, "_gt", $suffix), |a, cx| Ok(Datum::Bool(compare(a, cx)?.is_gt())));
        $r.scalar(function(concat!($prefix, "_cmp", $suffix), ARGS, Type::INT4, Volatility::$volatility, |a, cx| {
            Ok(Datum::Int4(compare(a, cx)? as i32))
        }));
    }};
}

fn function(
    name: &'static str,
    args: &'static [Type],
    ret: Type,
    volatility: Volatility,
    imp: super::super::registry::ScalarImpl,
) -> ScalarFn {
    ScalarFn { name, args, variadic: None, optional: 0, ret, strict: true, volatility, imp }
}

fn larger(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    Ok(args[usize::from(!compare(args, cx)?.is_gt())].clone())
}

fn smaller(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    Ok(args[usize::from(!compare(args, cx)?.is_lt())].clone())
}

/// Whether two periods, each given by its ends in either order, have a moment in common; a period includes its start
/// but not its end. NULL where that cannot be known.
fn overlaps(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let at = |d: &Datum| if d.is_null() { Ok(None) } else { place(d, false, cx).map(Some) };
    let period = |a: Option<i128>, b: Option<i128>| match (a, b) {
        (None, None) => None,
        (Some(start), None) | (None, Some(start)) => Some((start, None)),
        (Some(a), Some(b)) => Some((a.min(b), Some(a.max(b)))),
    };
    let [a, b, c, d] = args else { return Err(super::mismatch()) };
    let (Some(one), Some(two)) = (period(at(a)?, at(b)?), period(at(c)?, at(d)?)) else { return Ok(Datum::Null) };
    if one.0 == two.0 {
        return Ok(if one.1.is_none() || two.1.is_none() { Datum::Null } else { Datum::Bool(true) });
    }
    let (first, second) = if one.0 < two.0 { (one, two) } else { (two, one) };
    Ok(match (first.1, second.1) {
        (None, _) => Datum::Null,
        (Some(end), _) if second.0 < end => Datum::Bool(true),
        (_, None) => Datum::Null,
        _ => Datum::Bool(false),
    })
}

/// `overlaps` with lengths in place of some ends: they are added to the starts first.
fn overlaps_spans(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let mut ends = args.to_vec();
    for i in [1, 3] {
        if let Some(Datum::Interval(span)) = args.get(i) {
            ends[i] = match &args[i - 1] {
                Datum::Timestamp(t) => Datum::Timestamp(add_interval(*t, span)?),
                Datum::TimestampTz(t) => Datum::TimestampTz(add_interval_tz(*t, span, &cx.session.time_zone)?),
                Datum::Time(t) => Datum::Time((t + span.micros % DAY).rem_euclid(DAY)),
                _ => Datum::Null,
            };
        }
    }
    overlaps(&ends, cx)
}

pub(super) fn register(r: &mut Registry) {
    comparisons!(r, "date", "", DATE, DATE, Immutable);
    comparisons!(r, "time", "", TIME, TIME, Immutable);
    comparisons!(r, "timestamp", "", TIMESTAMP, TIMESTAMP, Immutable);
    comparisons!(r, "timestamptz", "", TIMESTAMPTZ, TIMESTAMPTZ, Immutable);
    comparisons!(r, "interval", "", INTERVAL, INTERVAL, Immutable);
    comparisons!(r, "date", "_timestamp", DATE, TIMESTAMP, Immutable);
    comparisons!(r, "date", "_timestamptz", DATE, TIMESTAMPTZ, Stable);
    comparisons!(r, "timestamp", "_date", TIMESTAMP, DATE, Immutable);
    comparisons!(r, "timestamp", "_timestamptz", TIMESTAMP, TIMESTAMPTZ, Stable);
    comparisons!(r, "timestamptz", "_date", TIMESTAMPTZ, DATE, Stable);
    comparisons!(r, "timestamptz", "_timestamp", TIMESTAMPTZ, TIMESTAMP, Stable);

    const PAIRS: [(&str, &str, Type, &[Type]); 5] = [
        ("date_larger", "date_smaller", Type::DATE, &[Type::DATE; 2]),
        ("time_larger", "time_smaller", Type::TIME, &[Type::TIME; 2]),
        ("timestamp_larger", "timestamp_smaller", Type::TIMESTAMP, &[Type::TIMESTAMP; 2]),
        ("timestamptz_larger", "timestamptz_smaller", Type::TIMESTAMPTZ, &[Type::TIMESTAMPTZ; 2]),
        ("interval_larger", "interval_smaller", Type::INTERVAL, &[Type::INTERVAL; 2]),
    ];
    for (large, small, ty, args) in PAIRS {
        r.pure(large, args, ty, larger);
        r.pure(small, args, ty, smaller);
    }

    use Type as T;
    const OVERLAPS: [&[Type]; 12] = [
        &[T::TIME, T::TIME, T::TIME, T::TIME],
        &[T::TIME, T::INTERVAL, T::TIME, T::INTERVAL],
        &[T::TIME, T::TIME, T::TIME, T::INTERVAL],
        &[T::TIME, T::INTERVAL, T::TIME, T::TIME],
        &[T::TIMESTAMP, T::TIMESTAMP, T::TIMESTAMP, T::TIMESTAMP],
        &[T::TIMESTAMP, T::INTERVAL, T::TIMESTAMP, T::INTERVAL],
        &[T::TIMESTAMP, T::TIMESTAMP, T::TIMESTAMP, T::INTERVAL],
        &[T::TIMESTAMP, T::INTERVAL, T::TIMESTAMP, T::TIMESTAMP],
        &[T::TIMESTAMPTZ, T::TIMESTAMPTZ, T::TIMESTAMPTZ, T::TIMESTAMPTZ],
        &[T::TIMESTAMPTZ, T::INTERVAL, T::TIMESTAMPTZ, T::INTERVAL],
        &[T::TIMESTAMPTZ, T::TIMESTAMPTZ, T::TIMESTAMPTZ, T::INTERVAL],
        &[T::TIMESTAMPTZ, T::INTERVAL, T::TIMESTAMPTZ, T::TIMESTAMPTZ],
    ];
    for args in OVERLAPS {
        let spans = args.contains(&T::INTERVAL);
        r.scalar(ScalarFn {
            strict: false,
            volatility: if spans && args[0] == T::TIMESTAMPTZ { Volatility::Stable } else { Volatility::Immutable },
            ..function("overlaps", args, T::BOOL, Volatility::Immutable, if spans { overlaps_spans } else { overlaps })
        });
    }
}
