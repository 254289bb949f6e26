//! Key ranges of a scan, made when it opens: parameters and enclosing rows are known then.
//!
//! A bound's value may be of another width than the key column (int4 column, int8 constant): it is converted, and what
//! does not fit the column's type becomes an empty or an open range, so that no row is lost or gained.

use std::ops::Bound;

use pgbee_engine::bee::KeyRange;

use super::code::CompareOp;
use super::eval::Env;
use super::value;
use crate::codec::KeyColumn;
use crate::error::Result;
use crate::plan::node::{Bounds, Equal, Prog};
use crate::types::{Datum, Type};

/// Ranges beyond which a product of IN lists is not worth it; the rest is left to the filter, which is kept for lists.
const RANGES_MAX: usize = 16 * 1024;

/// The ranges under `prefix` in the order of their keys, without overlap. `equals` that would make too many are the caller's filter's.
pub(crate) fn resolve(bounds: &Bounds, prefix: &[u8], env: &Env<'_>) -> Result<Vec<KeyRange>> {
    let mut prefixes: Vec<Vec<u8>> = vec![prefix.to_vec()];
    let mut depth = 0;
    for (equal, column) in bounds.equals.iter().zip(&bounds.key) {
        let Some(values) = values_of(equal, column.ty, env)? else {
            prefixes.iter_mut().for_each(|p| column.encode(&Datum::Null, p));
            depth += 1;
            continue;
        };
        let mut encoded: Vec<Vec<u8>> = values
            .iter()
            .map(|v| {
                let mut bytes = Vec::new();
                column.encode(v, &mut bytes);
                bytes
            })
            .collect();
        encoded.sort_unstable();
        encoded.dedup();
        if prefixes.len() * encoded.len() > RANGES_MAX {
            break;
        }
        prefixes = prefixes.iter().flat_map(|p| encoded.iter().map(move |e| [p.as_slice(), e].concat())).collect();
        depth += 1;
    }
    let next = bounds.key.get(depth).filter(|_| depth == bounds.equals.len());
    let bounded = match next {
        Some(column) if !bounds.lower.is_empty() || !bounds.upper.is_empty() || bounds.not_null => {
            let Some((lower, upper)) = value_bounds(bounds, column, env)? else { return Ok(Vec::new()) };
            Some((column, lower, upper))
        }
        _ => None,
    };
    Ok(prefixes
        .into_iter()
        .map(|p| match &bounded {
            Some((column, lower, upper)) => column.range(&p, lower.as_ref(), upper.as_ref()),
            // A unique key is one key, which is quicker to read than a range.
            None if bounds.unique && depth == bounds.key.len() => KeyRange::point(&p),
            None => KeyRange::prefix(&p),
        })
        .filter(|range| !empty(range))
        .collect())
}

/// The values a key column is equal to; None: NULL.
fn values_of(equal: &Equal, ty: Type, env: &Env<'_>) -> Result<Option<Vec<Datum>>> {
    let mut values = Vec::new();
    match equal {
        Equal::Null => return Ok(None),
        Equal::Value(prog) => values.extend(fit_exactly(prog.code.eval(&[], env)?, ty)),
        Equal::List(progs) => {
            for prog in progs {
                values.extend(fit_exactly(prog.code.eval(&[], env)?, ty));
            }
        }
        Equal::Array(prog) => {
            if let Datum::Array(array) = prog.code.eval(&[], env)? {
                values.extend(array.values.iter().filter_map(|v| fit_exactly(v.clone(), ty)));
            }
        }
    }
    Ok(Some(values))
}

/// Which values of the one key column a scan is about.
pub(crate) enum Wanted {
    /// These; more than are worth looking up one by one are not told.
    Values(Vec<Datum>),
    /// Those between.
    Between(Bound<Datum>, Bound<Datum>),
}

/// The values of a key of one column (or none) that bounds ask for.
pub(crate) fn wanted(bounds: &Bounds, env: &Env<'_>) -> Result<Wanted> {
    let all = Wanted::Between(Bound::Unbounded, Bound::Unbounded);
    let Some(column) = bounds.key.first() else { return Ok(all) };
    if let Some(equal) = bounds.equals.first() {
        let values = values_of(equal, column.ty, env)?.unwrap_or_default();
        return Ok(if values.len() > RANGES_MAX { all } else { Wanted::Values(values) });
    }
    Ok(match value_bounds(bounds, column, env)? {
        Some((lower, upper)) => Wanted::Between(lower, upper),
        None => Wanted::Values(Vec::new()),
    })
}

pub(crate) fn empty(range: &KeyRange) -> bool {
    match (&range.start, &range.end) {
        (Bound::Included(start), Bound::Excluded(end)) => start >= end,
        _ => range.is_empty(),
    }
}

/// The tightest of the bounds; None if one is NULL or they contradict each other.
fn value_bounds(bounds: &Bounds, column: &KeyColumn, env: &Env<'_>) -> Result<Option<(Bound<Datum>, Bound<Datum>)>> {
    let (mut lower, mut upper) = (Bound::Unbounded, Bound::Unbounded);
    for (side, into, keep) in [
        (&bounds.lower, &mut lower, std::cmp::Ordering::Greater),
        (&bounds.upper, &mut upper, std::cmp::Ordering::Less),
    ] {
        for (op, prog) in side {
            let Some(bound) = fit_bound(*op, eval(prog, env)?, column.ty) else { return Ok(None) };
            let tighter = match (&bound, &*into) {
                (Bound::Unbounded, _) => false,
                (_, Bound::Unbounded) => true,
                (Bound::Included(new) | Bound::Excluded(new), Bound::Included(old) | Bound::Excluded(old)) => {
                    let order = value::order(new, old);
                    order == keep || (order.is_eq() && matches!(bound, Bound::Excluded(_)))
                }
            };
            if tighter {
                *into = bound;
            }
        }
    }
    Ok(Some((lower, upper)))
}

fn eval(prog: &Prog, env: &Env<'_>) -> Result<Datum> {
    prog.code.eval(&[], env)
}

/// The value as one of the column's type; None if it is NULL or equals no value of that type.
fn fit_exactly(d: Datum, ty: Type) -> Option<Datum> {
    match (&d, ty) {
        (Datum::Null, _) => None,
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), Type::INT2) => {
            value::integer(&d).and_then(|v| v.try_into().ok()).map(Datum::Int2)
        }
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), Type::INT4) => {
            value::integer(&d).and_then(|v| v.try_into().ok()).map(Datum::Int4)
        }
        (Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_), Type::INT8) => value::integer(&d).map(Datum::Int8),
        (Datum::Float4(v), Type::FLOAT8) => Some(Datum::Float8((*v).into())),
        _ => Some(d),
    }
}

/// `column op d` as a bound on values of the column's type; None if no value satisfies it.
fn fit_bound(op: CompareOp, d: Datum, ty: Type) -> Option<Bound<Datum>> {
    if d.is_null() {
        return None;
    }
    let wide = value::integer(&d);
    match fit_exactly(d, ty) {
        Some(d) => Some(match op {
            CompareOp::Lt | CompareOp::Gt => Bound::Excluded(d),
            _ => Bound::Included(d),
        }),
        // An integer outside of the column's range: all values are on one side of it.
        None => {
            let above = wide.is_some_and(|v| v > 0);
            let all =
                matches!((op, above), (CompareOp::Lt | CompareOp::Le, true) | (CompareOp::Gt | CompareOp::Ge, false));
            all.then_some(Bound::Unbounded)
        }
    }
}
