//! Constant folding: what does not depend on the row is computed when the statement is planned.
//!
//! Only immutable functions are called. A call that fails stays as it is: it may stand in a branch that is never
//! taken, and if it is reached it fails then.

use std::sync::Arc;

use super::PlanCx;
use crate::functions::FnCx;
use crate::functions::registry::Volatility;
use crate::ir::{Expr, ExprKind};
use crate::types::{Array, Datum, Type};

/// The expression with its constant parts computed.
pub(crate) fn simplify(mut e: Expr, cx: &PlanCx<'_>) -> Expr {
    simplify_in_place(&mut e, cx);
    e
}

fn simplify_in_place(e: &mut Expr, cx: &PlanCx<'_>) {
    super::expr::children_mut(e, &mut |child| simplify_in_place(child, cx));
    let ty = e.ty.ty;
    let folded = match &mut e.kind {
        ExprKind::Call { func, args } if func.volatility == Volatility::Immutable => {
            if func.strict && args.iter().any(|a| constant(a).is_some_and(Datum::is_null)) {
                Some(Datum::Null)
            } else {
                call(func, args, e.ty, cx)
            }
        }
        ExprKind::And(_) => return fold_logic(e, true),
        ExprKind::Or(_) => return fold_logic(e, false),
        ExprKind::Not(input) => match constant(input) {
            Some(Datum::Bool(b)) => Some(Datum::Bool(!*b)),
            Some(Datum::Null) => Some(Datum::Null),
            _ => None,
        },
        ExprKind::IsNull { input, negated } => match constant(input) {
            Some(Datum::Record(_)) | None => None,
            Some(d) => Some(Datum::Bool(d.is_null() != *negated)),
        },
        ExprKind::IsBool { input, value, negated } => match constant(input) {
            Some(Datum::Bool(b)) => Some(Datum::Bool((Some(*b) == *value) != *negated)),
            Some(Datum::Null) => Some(Datum::Bool(value.is_none() != *negated)),
            _ => None,
        },
        ExprKind::Coalesce(args) => {
            args.retain(|a| !constant(a).is_some_and(Datum::is_null));
            match args.first() {
                None => Some(Datum::Null),
                Some(first) if constant(first).is_some() || args.len() == 1 => {
                    let first = args.swap_remove(0);
                    let ty = e.ty;
                    *e = first;
                    e.ty = ty;
                    return;
                }
                Some(_) => None,
            }
        }
        ExprKind::Case { operand: None, whens, otherwise } => {
            whens.retain(|(when, _)| !super::expr::is_never(when));
            // What follows a condition that always holds is never reached.
            if let Some(at) = whens.iter().position(|(when, _)| matches!(constant(when), Some(Datum::Bool(true)))) {
                let (_, then) = whens.swap_remove(at);
                whens.truncate(at);
                *otherwise = Some(Box::new(then));
            }
            if whens.is_empty() {
                let ty = e.ty;
                *e = otherwise.take().map_or_else(|| Expr::constant(Datum::Null, ty.ty), |o| *o);
                e.ty = ty;
                return;
            }
            None
        }
        ExprKind::Array { elems, nested: false } => {
            elems.iter().map(|a| constant(a).cloned()).collect::<Option<Vec<_>>>().and_then(|values| {
                let elem = element_type(ty, elems.first())?;
                let dims = if values.is_empty() { vec![] } else { vec![(values.len() as i32, 1)] };
                Some(Datum::Array(Arc::new(Array { elem, dims, values })))
            })
        }
        _ => None,
    };
    if let Some(value) = folded {
        e.kind = ExprKind::Const(value);
    }
}

fn element_type(array: Type, first: Option<&Expr>) -> Option<Type> {
    array.element().or_else(|| first.map(|e| e.ty.ty))
}

fn constant(e: &Expr) -> Option<&Datum> {
    match &e.kind {
        ExprKind::Const(d) => Some(d),
        _ => None,
    }
}

fn call(
    func: &crate::functions::registry::ScalarFn,
    args: &[Expr],
    ty: crate::types::TypeMod,
    cx: &PlanCx<'_>,
) -> Option<Datum> {
    let values = args.iter().map(|a| constant(a).cloned()).collect::<Option<Vec<_>>>()?;
    let arg_types: Vec<Type> = args.iter().map(|a| a.ty.ty).collect();
    (func.imp)(&values, &FnCx { session: cx.session, arg_types: &arg_types, ret: ty.ty, typmod: ty.typmod }).ok()
}

/// Flattens AND or OR, drops what does not matter and decides it if a constant does.
fn fold_logic(e: &mut Expr, is_and: bool) {
    let (ExprKind::And(args) | ExprKind::Or(args)) = &mut e.kind else { return };
    let mut flat = Vec::with_capacity(args.len());
    for arg in args.drain(..) {
        match arg.kind {
            ExprKind::And(inner) if is_and => flat.extend(inner),
            ExprKind::Or(inner) if !is_and => flat.extend(inner),
            _ => flat.push(arg),
        }
    }
    let decides = |a: &Expr| matches!(constant(a), Some(Datum::Bool(b)) if *b != is_and);
    if flat.iter().any(decides) {
        e.kind = ExprKind::Const(Datum::Bool(!is_and));
        return;
    }
    flat.retain(|a| !matches!(constant(a), Some(Datum::Bool(b)) if *b == is_and));
    e.kind = match flat.len() {
        0 => ExprKind::Const(Datum::Bool(is_and)),
        1 => flat.swap_remove(0).kind,
        _ if is_and => ExprKind::And(flat),
        _ => ExprKind::Or(flat),
    };
}
