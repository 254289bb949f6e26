//! Values of constant expressions, where binding itself needs them: AS OF, and the arguments of table functions.

use crate::error::{Result, SqlError};
use crate::functions::{FnCx, SessionCx};
use crate::ir::{Expr, ExprKind};
use crate::types::{Datum, Type, io};

/// The value of an expression made of constants and calls; None if it is made of more.
pub(super) fn evaluate(e: &Expr, session: &SessionCx) -> Option<Result<Datum>> {
    match &e.kind {
        ExprKind::Const(value) => Some(Ok(value.clone())),
        ExprKind::Call { func, args } => {
            let mut values = Vec::with_capacity(args.len());
            for arg in args {
                match evaluate(arg, session)? {
                    Ok(value) => values.push(value),
                    Err(e) => return Some(Err(e)),
                }
            }
            if func.strict && values.iter().any(Datum::is_null) {
                return Some(Ok(Datum::Null));
            }
            let arg_types: Vec<Type> = args.iter().map(|a| a.ty.ty).collect();
            Some((func.imp)(&values, &FnCx { session, arg_types: &arg_types, ret: e.ty.ty, typmod: e.ty.typmod }))
        }
        ExprKind::CoerceViaIo(input) => Some(evaluate(input, session)?.and_then(|value| {
            if value.is_null() {
                return Ok(Datum::Null);
            }
            let text = io::to_text(&value, input.ty.ty, session);
            io::text_in(&text, e.ty, session)
        })),
        _ => None,
    }
}

/// The value of an expression that must be constant.
pub(super) fn require(e: &Expr, session: &SessionCx, what: &str) -> Result<Datum> {
    evaluate(e, session).unwrap_or_else(|| Err(SqlError::unsupported(format!("{what} other than a constant"))))
}
