//! Walking and asking about expressions.
//!
//! In the planner's form `Column(id)` names a column by its [`ColId`], unique in the statement, whether it is of the row at hand or of an
//! enclosing one. Ids below [`FIRST_ID`] stand for the values that a cast of array elements or a frame bound is applied to.

use std::collections::BTreeSet;

use super::logical::{ColId, FIRST_ID, Planner};

/// The columns that element casts and frame bounds count by.
pub(crate) const FIRST_SCOPE: &[ColId] = &[0, 1];
use crate::functions::registry::Volatility;
use crate::ir::{Expr, ExprKind, RelKind, Subquery, SubqueryKind};
use crate::types::Datum;

/// Calls `f` on each expression directly inside. The bodies of subqueries are not entered, their tests are.
pub(crate) fn children<'e>(e: &'e Expr, f: &mut dyn FnMut(&'e Expr)) {
    match &e.kind {
        ExprKind::Const(_)
        | ExprKind::Column(_)
        | ExprKind::Outer { .. }
        | ExprKind::Param(_)
        | ExprKind::CaseOperand
        | ExprKind::Default => {}
        ExprKind::Call { args, .. }
        | ExprKind::And(args)
        | ExprKind::Or(args)
        | ExprKind::Coalesce(args)
        | ExprKind::MinMax { args, .. }
        | ExprKind::Array { elems: args, .. }
        | ExprKind::Row(args)
        | ExprKind::SetCall { args, .. } => args.iter().for_each(f),
        ExprKind::CoerceViaIo(input)
        | ExprKind::Not(input)
        | ExprKind::IsNull { input, .. }
        | ExprKind::IsBool { input, .. }
        | ExprKind::Field { input, .. } => f(input),
        ExprKind::ArrayCoerce { input, cast } => {
            f(input);
            f(cast);
        }
        ExprKind::Distinct { left, right, .. } | ExprKind::NullIf { left, right, .. } => {
            f(left);
            f(right);
        }
        ExprKind::ScalarArray { left, array, .. } => {
            f(left);
            f(array);
        }
        ExprKind::Case { operand, whens, otherwise } => {
            if let Some(operand) = operand {
                f(operand);
            }
            for (when, then) in whens {
                f(when);
                f(then);
            }
            if let Some(otherwise) = otherwise {
                f(otherwise);
            }
        }
        ExprKind::Subscript { input, indexes } => {
            f(input);
            indexes.iter().for_each(f);
        }
        ExprKind::Slice { input, bounds } => {
            f(input);
            for (low, high) in bounds {
                low.iter().chain(high).for_each(&mut *f);
            }
        }
        ExprKind::RowCompare { pairs, .. } => {
            for pair in pairs {
                f(&pair.left);
                f(&pair.right);
            }
        }
        ExprKind::Subquery(sub) => {
            if let SubqueryKind::Quantified { tests, .. } = &sub.kind {
                tests.iter().for_each(f);
            }
        }
    }
}

/// Calls `f` on each expression directly inside, to change it.
pub(crate) fn children_mut(e: &mut Expr, f: &mut dyn FnMut(&mut Expr)) {
    match &mut e.kind {
        ExprKind::Const(_)
        | ExprKind::Column(_)
        | ExprKind::Outer { .. }
        | ExprKind::Param(_)
        | ExprKind::CaseOperand
        | ExprKind::Default => {}
        ExprKind::Call { args, .. }
        | ExprKind::And(args)
        | ExprKind::Or(args)
        | ExprKind::Coalesce(args)
        | ExprKind::MinMax { args, .. }
        | ExprKind::Array { elems: args, .. }
        | ExprKind::Row(args)
        | ExprKind::SetCall { args, .. } => args.iter_mut().for_each(f),
        ExprKind::CoerceViaIo(input)
        | ExprKind::Not(input)
        | ExprKind::IsNull { input, .. }
        | ExprKind::IsBool { input, .. }
        | ExprKind::Field { input, .. } => f(input),
        ExprKind::ArrayCoerce { input, cast } => {
            f(input);
            f(cast);
        }
        ExprKind::Distinct { left, right, .. } | ExprKind::NullIf { left, right, .. } => {
            f(left);
            f(right);
        }
        ExprKind::ScalarArray { left, array, .. } => {
            f(left);
            f(array);
        }
        ExprKind::Case { operand, whens, otherwise } => {
            if let Some(operand) = operand {
                f(operand);
            }
            for (when, then) in whens {
                f(when);
                f(then);
            }
            if let Some(otherwise) = otherwise {
                f(otherwise);
            }
        }
        ExprKind::Subscript { input, indexes } => {
            f(input);
            indexes.iter_mut().for_each(f);
        }
        ExprKind::Slice { input, bounds } => {
            f(input);
            for (low, high) in bounds {
                low.iter_mut().chain(high).for_each(&mut *f);
            }
        }
        ExprKind::RowCompare { pairs, .. } => {
            for pair in pairs {
                f(&mut pair.left);
                f(&mut pair.right);
            }
        }
        ExprKind::Subquery(sub) => {
            if let SubqueryKind::Quantified { tests, .. } = &mut sub.kind {
                tests.iter_mut().for_each(f);
            }
        }
    }
}

/// Whether `found` holds for the expression or one inside it.
pub(crate) fn any(e: &Expr, found: &mut dyn FnMut(&Expr) -> bool) -> bool {
    if found(e) {
        return true;
    }
    let mut some = false;
    children(e, &mut |child| some = some || any(child, found));
    some
}

/// The number of the planned subquery that a planner-form subquery stands for.
pub(crate) fn handle(sub: &Subquery) -> Option<usize> {
    match sub.plan.kind {
        RelKind::CteScan { id } => Some(id),
        _ => None,
    }
}

/// Splits a condition into those that must all hold.
pub(crate) fn conjuncts(e: Expr, out: &mut Vec<Expr>) {
    match e.kind {
        ExprKind::And(args) => args.into_iter().for_each(|a| conjuncts(a, out)),
        ExprKind::Const(Datum::Bool(true)) => {}
        _ => out.push(e),
    }
}

/// Whether the expression is a constant that is not true: a condition that no row passes.
pub(crate) fn is_never(e: &Expr) -> bool {
    matches!(e.kind, ExprKind::Const(Datum::Bool(false) | Datum::Null))
}

/// The expression as a column.
pub(crate) fn as_column(e: &Expr) -> Option<ColId> {
    match e.kind {
        ExprKind::Column(id) => Some(id),
        _ => None,
    }
}

impl Planner<'_> {
    /// Adds the columns an expression reads, those its subqueries take included.
    pub(crate) fn uses(&self, e: &Expr, out: &mut BTreeSet<ColId>) {
        match &e.kind {
            ExprKind::Column(id) if *id >= FIRST_ID => {
                out.insert(*id);
            }
            ExprKind::Subquery(sub) => {
                if let Some(free) = handle(sub).and_then(|k| self.subs.get(k)).map(|s| &s.free) {
                    out.extend(free);
                }
            }
            _ => {}
        }
        children(e, &mut |child| self.uses(child, out));
    }
    /// The columns an expression reads.
    pub(crate) fn used(&self, e: &Expr) -> BTreeSet<ColId> {
        let mut out = BTreeSet::new();
        self.uses(e, &mut out);
        out
    }
    /// Whether an expression may give another value at each call, or must not be moved for another reason.
    pub(crate) fn volatile(&self, e: &Expr) -> bool {
        any(e, &mut |e| match &e.kind {
            ExprKind::Call { func, .. }
            | ExprKind::Distinct { eq: func, .. }
            | ExprKind::NullIf { eq: func, .. }
            | ExprKind::ScalarArray { func, .. } => func.volatility == Volatility::Volatile,
            ExprKind::SetCall { .. } => true,
            ExprKind::Subquery(sub) => handle(sub).and_then(|k| self.subs.get(k)).is_none_or(|s| s.volatile),
            _ => false,
        })
    }
    /// Whether an expression holds a subquery.
    pub(crate) fn has_subquery(e: &Expr) -> bool {
        any(e, &mut |e| matches!(e.kind, ExprKind::Subquery(_)))
    }
    /// Whether a subquery inside takes one of these columns: then they cannot be replaced by expressions.
    pub(crate) fn subquery_takes(&self, e: &Expr, columns: &BTreeSet<ColId>) -> bool {
        any(e, &mut |e| match &e.kind {
            ExprKind::Subquery(sub) => {
                handle(sub).and_then(|k| self.subs.get(k)).is_none_or(|s| s.free.iter().any(|c| columns.contains(c)))
            }
            _ => false,
        })
    }
}

/// Puts expressions in place of columns.
pub(crate) fn substitute(e: &mut Expr, replacement: &dyn Fn(ColId) -> Option<Expr>) {
    if let ExprKind::Column(id) = e.kind {
        if let Some(with) = replacement(id) {
            // The reference may be relabelled (varchar as text): its type stays.
            let ty = e.ty;
            *e = with;
            e.ty = ty;
        }
        return;
    }
    children_mut(e, &mut |child| substitute(child, replacement));
}

/// Whether the condition cannot be true when all of `columns` are NULL.
pub(crate) fn rejects_nulls(e: &Expr, columns: &BTreeSet<ColId>) -> bool {
    match &e.kind {
        ExprKind::Const(Datum::Bool(false) | Datum::Null) => true,
        ExprKind::And(args) => args.iter().any(|a| rejects_nulls(a, columns)),
        ExprKind::Or(args) => args.iter().all(|a| rejects_nulls(a, columns)),
        ExprKind::IsNull { input, negated: true } => null_if_null(input, columns),
        ExprKind::IsBool { input, value: Some(_), negated: false } => null_if_null(input, columns),
        // Unknown, or false if the array is empty.
        ExprKind::ScalarArray { func, left, all: false, .. } => func.strict && null_if_null(left, columns),
        _ => null_if_null(e, columns),
    }
}

/// Whether the value is surely NULL when all of `columns` are.
fn null_if_null(e: &Expr, columns: &BTreeSet<ColId>) -> bool {
    match &e.kind {
        ExprKind::Column(id) => columns.contains(id),
        ExprKind::Const(Datum::Null) => true,
        ExprKind::Call { func, args } => func.strict && args.iter().any(|a| null_if_null(a, columns)),
        ExprKind::CoerceViaIo(input) | ExprKind::Not(input) => null_if_null(input, columns),
        ExprKind::ArrayCoerce { input, .. } | ExprKind::Field { input, .. } => null_if_null(input, columns),
        ExprKind::And(args) => !args.is_empty() && args.iter().all(|a| null_if_null(a, columns)),
        ExprKind::Or(args) => !args.is_empty() && args.iter().all(|a| null_if_null(a, columns)),
        _ => false,
    }
}
