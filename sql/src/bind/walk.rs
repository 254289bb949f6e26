//! Walking bound expressions: moving them between query levels, shifting columns, comparing them.
//!
//! An expression at depth 0 reads its row by [`ExprKind::Column`]; inside `d` subqueries (or right sides of lateral joins) the same row is
//! `Outer { depth: d }`. Every function here that says "the row" means the one at depth 0 and follows it down.

use crate::error::Result;
use crate::ir::*;
use crate::types::Datum;

/// Calls `f` on every expression below and including `e`, parents first, with its depth. Where `f` says true, it does not go further down.
pub(super) fn walk_expr(e: &mut Expr, depth: usize, f: &mut dyn FnMut(&mut Expr, usize) -> Result<bool>) -> Result<()> {
    if f(e, depth)? {
        return Ok(());
    }
    for_each_child(e, &mut |child| walk_expr(child, depth, f))?;
    if let ExprKind::Subquery(sub) = &mut e.kind {
        if let SubqueryKind::Quantified { tests, .. } = &mut sub.kind {
            for test in tests {
                walk_expr(test, depth, f)?;
            }
        }
        walk_rel(&mut sub.plan, depth + 1, f)?;
    }
    Ok(())
}

/// The direct parts of an expression, those of subqueries left out.
pub(super) fn for_each_child(e: &mut Expr, f: &mut dyn FnMut(&mut Expr) -> Result<()>) -> Result<()> {
    match &mut e.kind {
        ExprKind::Const(_)
        | ExprKind::Column(_)
        | ExprKind::Outer { .. }
        | ExprKind::Param(_)
        | ExprKind::CaseOperand
        | ExprKind::Default
        | ExprKind::Subquery(_) => Ok(()),
        ExprKind::Call { args, .. } | ExprKind::SetCall { args, .. } | ExprKind::MinMax { args, .. } => {
            args.iter_mut().try_for_each(f)
        }
        ExprKind::And(parts) | ExprKind::Or(parts) | ExprKind::Coalesce(parts) | ExprKind::Row(parts) => {
            parts.iter_mut().try_for_each(f)
        }
        ExprKind::Array { elems, .. } => elems.iter_mut().try_for_each(f),
        ExprKind::CoerceViaIo(input) | ExprKind::Not(input) => f(input),
        ExprKind::IsNull { input, .. } | ExprKind::IsBool { input, .. } | ExprKind::Field { input, .. } => f(input),
        // The cast of an array's elements has a row of its own: the element.
        ExprKind::ArrayCoerce { input, .. } => f(input),
        ExprKind::Distinct { left, right, .. } | ExprKind::NullIf { left, right, .. } => {
            f(left)?;
            f(right)
        }
        ExprKind::ScalarArray { left, array, .. } => {
            f(left)?;
            f(array)
        }
        ExprKind::Case { operand, whens, otherwise } => {
            operand.iter_mut().try_for_each(|o| f(o))?;
            for (condition, value) in whens {
                f(condition)?;
                f(value)?;
            }
            otherwise.iter_mut().try_for_each(|o| f(o))
        }
        ExprKind::Subscript { input, indexes } => {
            f(input)?;
            indexes.iter_mut().try_for_each(f)
        }
        ExprKind::Slice { input, bounds } => {
            f(input)?;
            for (low, high) in bounds {
                low.iter_mut().try_for_each(&mut *f)?;
                high.iter_mut().try_for_each(&mut *f)?;
            }
            Ok(())
        }
        ExprKind::RowCompare { pairs, .. } => {
            for pair in pairs {
                f(&mut pair.left)?;
                f(&mut pair.right)?;
            }
            Ok(())
        }
    }
}

/// [`walk_expr`] on every expression of an operator tree.
pub(super) fn walk_rel(rel: &mut Rel, depth: usize, f: &mut dyn FnMut(&mut Expr, usize) -> Result<bool>) -> Result<()> {
    fn all<'a>(
        exprs: impl IntoIterator<Item = &'a mut Expr>,
        depth: usize,
        f: &mut dyn FnMut(&mut Expr, usize) -> Result<bool>,
    ) -> Result<()> {
        exprs.into_iter().try_for_each(|e| walk_expr(e, depth, f))
    }
    match &mut rel.kind {
        RelKind::Values(rows) => rows.iter_mut().try_for_each(|row| all(row, depth, f)),
        RelKind::Scan { .. } | RelKind::CteScan { .. } | RelKind::Dml(_) => Ok(()),
        RelKind::Virtual { args, .. } => all(args, depth, f),
        RelKind::Function { calls, .. } => all(calls, depth, f),
        // What makes a row again reads nothing from outside of itself.
        RelKind::LockRows { input, .. } => walk_rel(input, depth, f),
        RelKind::Filter { input, predicate } => {
            walk_rel(input, depth, f)?;
            walk_expr(predicate, depth, f)
        }
        RelKind::Project { input, exprs } | RelKind::ProjectSet { input, exprs } => {
            walk_rel(input, depth, f)?;
            all(exprs, depth, f)
        }
        RelKind::Join { left, right, on, lateral, .. } => {
            walk_rel(left, depth, f)?;
            walk_rel(right, depth + usize::from(*lateral), f)?;
            all(on, depth, f)
        }
        RelKind::Aggregate { input, keys, aggs, .. } => {
            walk_rel(input, depth, f)?;
            all(keys, depth, f)?;
            aggs.iter_mut().try_for_each(|agg| walk_agg(agg, depth, f))
        }
        RelKind::Window { input, calls } => {
            walk_rel(input, depth, f)?;
            calls.iter_mut().try_for_each(|call| walk_window(call, depth, f))
        }
        RelKind::Sort { input, keys } => {
            walk_rel(input, depth, f)?;
            all(keys.iter_mut().map(|k| &mut k.expr), depth, f)
        }
        RelKind::Limit { input, limit, offset, with_ties } => {
            walk_rel(input, depth, f)?;
            all(limit, depth, f)?;
            all(offset, depth, f)?;
            all(with_ties.iter_mut().flatten().map(|k| &mut k.expr), depth, f)
        }
        RelKind::Distinct { input, on } => {
            walk_rel(input, depth, f)?;
            all(on.iter_mut().flatten(), depth, f)
        }
        RelKind::SetOp { left, right, .. } => {
            walk_rel(left, depth, f)?;
            walk_rel(right, depth, f)
        }
        RelKind::With { ctes, body } => {
            for cte in ctes {
                walk_rel(&mut cte.definition, depth, f)?;
                if let Some((term, _)) = &mut cte.recursive {
                    walk_rel(term, depth, f)?;
                }
            }
            walk_rel(body, depth, f)
        }
    }
}

/// [`walk_expr`] on the parts of an aggregate call.
pub(super) fn walk_agg(
    agg: &mut AggCall,
    depth: usize,
    f: &mut dyn FnMut(&mut Expr, usize) -> Result<bool>,
) -> Result<()> {
    let AggCall { args, order_by, filter, .. } = agg;
    args.iter_mut()
        .chain(order_by.iter_mut().map(|k| &mut k.expr))
        .chain(filter)
        .try_for_each(|e| walk_expr(e, depth, f))
}

/// [`walk_expr`] on the parts of a window call.
pub(super) fn walk_window(
    call: &mut WindowCall,
    depth: usize,
    f: &mut dyn FnMut(&mut Expr, usize) -> Result<bool>,
) -> Result<()> {
    if let WindowFunc::Aggregate(agg) = &mut call.func {
        walk_agg(agg, depth, f)?;
    }
    let WindowCall { args, partition_by, order_by, frame, .. } = call;
    let parts = args.iter_mut().chain(partition_by).chain(order_by.iter_mut().map(|k| &mut k.expr));
    parts.into_iter().try_for_each(|e| walk_expr(e, depth, f))?;
    for bound in [&mut frame.start, &mut frame.end] {
        if let FrameBound::Preceding(offset) | FrameBound::Following(offset) = bound {
            walk_expr(&mut offset.value, depth, f)?;
        }
    }
    Ok(())
}

/// Calls `f` with the index of every reference to the row, and replaces it where `f` gives an expression (over the new row, at depth 0).
pub(super) fn map_row(e: &mut Expr, f: &mut dyn FnMut(usize) -> Result<Option<Expr>>) -> Result<()> {
    walk_expr(e, 0, &mut |e, depth| replace_row(e, depth, f))
}

fn replace_row(e: &mut Expr, depth: usize, f: &mut dyn FnMut(usize) -> Result<Option<Expr>>) -> Result<bool> {
    let index = match e.kind {
        ExprKind::Column(index) if depth == 0 => index,
        ExprKind::Outer { depth: d, index } if d == depth && depth > 0 => index,
        _ => return Ok(false),
    };
    if let Some(mut new) = f(index)? {
        if depth > 0 {
            lift(&mut new, depth);
        }
        *e = new;
    }
    Ok(true)
}

/// Turns columns of the row into others.
pub(crate) fn shift_columns(e: &mut Expr, offset: usize) {
    if offset > 0 {
        let _ = walk_expr(e, 0, &mut |e, depth| {
            match &mut e.kind {
                ExprKind::Column(index) if depth == 0 => *index += offset,
                ExprKind::Outer { depth: d, index } if *d == depth && depth > 0 => *index += offset,
                _ => {}
            }
            Ok(false)
        });
    }
}

/// Turns columns of the row around a subquery, to which an expression directly in it refers, into others.
pub(crate) fn shift_outer(e: &mut Expr, offset: usize) {
    let _ = walk_expr(e, 1, &mut |e, depth| {
        if let ExprKind::Outer { depth: d, index } = &mut e.kind
            && *d == depth
        {
            *index += offset;
        }
        Ok(false)
    });
}

/// Makes an expression over a row mean the same `by` levels further in.
pub(super) fn lift(e: &mut Expr, by: usize) {
    let _ = walk_expr(e, 0, &mut |e, depth| {
        match &mut e.kind {
            ExprKind::Column(index) if depth == 0 => e.kind = ExprKind::Outer { depth: by, index: *index },
            ExprKind::Outer { depth: d, .. } if *d >= depth => *d += by,
            _ => {}
        }
        Ok(false)
    });
}

/// Makes an expression that reads nothing of the innermost `by` levels mean the same that many levels further out.
pub(super) fn lower(e: &mut Expr, by: usize) {
    let _ = walk_expr(e, 0, &mut |e, depth| {
        if let ExprKind::Outer { depth: d, index } = &mut e.kind {
            if depth == 0 && *d == by {
                e.kind = ExprKind::Column(*index);
            } else if *d >= depth + by {
                *d -= by;
            }
        }
        Ok(false)
    });
}

/// The nearest level an expression reads: 0 its own row, 1 the query around it; None if no row at all.
pub(super) fn nearest_level(e: &mut Expr) -> Option<usize> {
    let mut nearest: Option<usize> = None;
    let _ = walk_expr(e, 0, &mut |e, depth| {
        let level = match e.kind {
            ExprKind::Column(_) if depth == 0 => Some(0),
            ExprKind::Outer { depth: d, .. } => d.checked_sub(depth),
            _ => None,
        };
        nearest = match (nearest, level) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(false)
    });
    nearest
}

/// Whether an expression reads its own row.
pub(super) fn reads_row(e: &mut Expr) -> bool {
    nearest_level(e) == Some(0)
}

/// Whether some part of an expression (subqueries left out) satisfies a condition.
pub(super) fn any_part(e: &mut Expr, test: &mut dyn FnMut(&Expr) -> bool) -> bool {
    let mut found = false;
    let _ = walk_expr(e, 0, &mut |e, _| {
        found |= test(e);
        Ok(found || matches!(e.kind, ExprKind::Subquery(_)))
    });
    found
}

/// Whether two expressions are the same computation. Subqueries never are.
pub(super) fn same(a: &Expr, b: &Expr) -> bool {
    use ExprKind as K;
    let all = |x: &[Expr], y: &[Expr]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y));
    let option = |x: &Option<Box<Expr>>, y: &Option<Box<Expr>>| match (x, y) {
        (None, None) => true,
        (Some(x), Some(y)) => same(x, y),
        _ => false,
    };
    if a.ty != b.ty {
        return false;
    }
    match (&a.kind, &b.kind) {
        (K::Const(x), K::Const(y)) => identical(x, y),
        (K::Column(x), K::Column(y)) | (K::Param(x), K::Param(y)) => x == y,
        (K::Outer { depth: d, index: x }, K::Outer { depth: e, index: y }) => d == e && x == y,
        (K::Call { func: f, args: x }, K::Call { func: g, args: y }) => std::ptr::eq(*f, *g) && all(x, y),
        (K::SetCall { func: f, args: x }, K::SetCall { func: g, args: y }) => std::ptr::eq(*f, *g) && all(x, y),
        (K::CoerceViaIo(x), K::CoerceViaIo(y)) | (K::Not(x), K::Not(y)) => same(x, y),
        (K::ArrayCoerce { input: x, cast: c }, K::ArrayCoerce { input: y, cast: d }) => same(x, y) && same(c, d),
        (K::And(x), K::And(y)) | (K::Or(x), K::Or(y)) | (K::Coalesce(x), K::Coalesce(y)) | (K::Row(x), K::Row(y)) => {
            all(x, y)
        }
        (K::IsNull { input: x, negated: n }, K::IsNull { input: y, negated: m }) => n == m && same(x, y),
        (K::IsBool { input: x, value: v, negated: n }, K::IsBool { input: y, value: w, negated: m }) => {
            v == w && n == m && same(x, y)
        }
        (
            K::Distinct { eq: f, left: a, right: b, negated: n },
            K::Distinct { eq: g, left: c, right: d, negated: m },
        ) => std::ptr::eq(*f, *g) && n == m && same(a, c) && same(b, d),
        (K::Case { operand: a, whens: b, otherwise: c }, K::Case { operand: d, whens: e, otherwise: f }) => {
            option(a, d)
                && option(c, f)
                && b.len() == e.len()
                && b.iter().zip(e).all(|(x, y)| same(&x.0, &y.0) && same(&x.1, &y.1))
        }
        (K::CaseOperand, K::CaseOperand) | (K::Default, K::Default) => true,
        (K::NullIf { eq: f, left: a, right: b }, K::NullIf { eq: g, left: c, right: d }) => {
            std::ptr::eq(*f, *g) && same(a, c) && same(b, d)
        }
        (K::MinMax { args: x, greatest: g }, K::MinMax { args: y, greatest: h }) => g == h && all(x, y),
        (
            K::ScalarArray { func: f, left: a, array: b, all: p },
            K::ScalarArray { func: g, left: c, array: d, all: q },
        ) => std::ptr::eq(*f, *g) && p == q && same(a, c) && same(b, d),
        (K::Array { elems: x, nested: n }, K::Array { elems: y, nested: m }) => n == m && all(x, y),
        (K::Field { input: x, index: i }, K::Field { input: y, index: j }) => i == j && same(x, y),
        (K::Subscript { input: a, indexes: x }, K::Subscript { input: b, indexes: y }) => same(a, b) && all(x, y),
        (K::Slice { input: a, bounds: x }, K::Slice { input: b, bounds: y }) => {
            let bound = |x: &Option<Expr>, y: &Option<Expr>| match (x, y) {
                (None, None) => true,
                (Some(x), Some(y)) => same(x, y),
                _ => false,
            };
            same(a, b) && x.len() == y.len() && x.iter().zip(y).all(|(x, y)| bound(&x.0, &y.0) && bound(&x.1, &y.1))
        }
        (K::RowCompare { op: o, pairs: x }, K::RowCompare { op: p, pairs: y }) => {
            o == p
                && x.len() == y.len()
                && x.iter().zip(y).all(|(x, y)| same(&x.left, &y.left) && same(&x.right, &y.right))
        }
        _ => false,
    }
}

/// Whether two constants are the same to the last digit: 1.0 equals 1.00, but a sum of either prints differently.
fn identical(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Text(x), Datum::Text(y)) => x == y,
        (Datum::Int4(x), Datum::Int4(y)) => x == y,
        (Datum::Float8(x), Datum::Float8(y)) => x.to_bits() == y.to_bits(),
        (Datum::Numeric(x), Datum::Numeric(y)) => x.to_string() == y.to_string(),
        _ => format!("{a:?}") == format!("{b:?}"),
    }
}

/// Whether two aggregate calls compute the same.
pub(super) fn same_agg(a: &AggCall, b: &AggCall) -> bool {
    let keys = |x: &[SortKey], y: &[SortKey]| {
        x.len() == y.len()
            && x.iter()
                .zip(y)
                .all(|(x, y)| x.desc == y.desc && x.nulls_first == y.nulls_first && same(&x.expr, &y.expr))
    };
    std::ptr::eq(a.func, b.func)
        && a.distinct == b.distinct
        && a.args.len() == b.args.len()
        && a.args.iter().zip(&b.args).all(|(x, y)| same(x, y))
        && keys(&a.order_by, &b.order_by)
        && match (&a.filter, &b.filter) {
            (None, None) => true,
            (Some(x), Some(y)) => same(x, y),
            _ => false,
        }
}
