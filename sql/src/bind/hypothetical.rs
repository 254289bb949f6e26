//! rank, dense_rank, percent_rank and cume_dist WITHIN GROUP: where a row that is not there would stand among those that are.
//!
//! Each is a matter of counting the rows that would come before it, so the call is written out as such counts and bound:
//!
//! ```text
//! rank(a) WITHIN GROUP (ORDER BY x)          1 + count(*) FILTER (WHERE x sorts before a)
//! dense_rank                                 1 + count(DISTINCT ROW(x)) FILTER (..)
//! percent_rank                               count(*) FILTER (..) / count(*), 0 without rows
//! cume_dist                                  (1 + count(*) FILTER (WHERE x sorts before a or equals it)) / (1 + count(*))
//! ```

use super::binder::*;
use crate::error::{Result, SqlError, state};
use crate::parse::ast::{Arg, Call, Expr, ExprKind, OrderBy, Pos, QName, TypeName};

/// Whether a call is of this kind.
pub(super) fn is_hypothetical(name: &str, c: &Call) -> bool {
    !c.within_group.is_empty() && matches!(name, "rank" | "dense_rank" | "percent_rank" | "cume_dist")
}

impl Binder<'_> {
    /// Binds such a call.
    pub fn hypothetical(&mut self, name: &str, c: &Call, pos: Pos) -> Result<Val> {
        if c.over.is_some() {
            let message = format!("OVER is not supported for hypothetical-set aggregate {name}");
            return error(state::FEATURE_NOT_SUPPORTED, pos, message);
        }
        if c.args.len() != c.within_group.len() {
            let types = c.args.iter().map(|a| Ok(self.expr(&a.value)?.ty().sql_name())).collect::<Result<Vec<_>>>()?;
            let message = format!("function {name}({}) does not exist", types.join(", "));
            return Err(SqlError::new(state::UNDEFINED_FUNCTION, message)
                .hint(format!(
                    "To use the hypothetical-set aggregate {name}, the number of hypothetical direct arguments (here {}) must match the number of ordering columns (here {}).",
                    c.args.len(),
                    c.within_group.len()
                ))
                .at(Some(pos + 1)));
        }
        let make = Make { c, pos };
        let before = make.before(name == "cume_dist");
        let made = match name {
            "rank" => make.op("+", make.number("1"), make.count(false, Some(before))),
            "dense_rank" => make.op("+", make.number("1"), make.count(true, Some(before))),
            "percent_rank" => {
                let none = make.op("=", make.count(false, None), make.number("0"));
                let share = make.op("/", make.float(make.count(false, Some(before))), make.count(false, None));
                make.expr(ExprKind::Case {
                    operand: None,
                    whens: vec![(none, make.float(make.number("0")))],
                    otherwise: Some(Box::new(share)),
                })
            }
            _ => {
                let one_more = |e| make.op("+", make.number("1"), e);
                make.op("/", make.float(one_more(make.count(false, Some(before)))), one_more(make.count(false, None)))
            }
        };
        self.expr(&made)
    }
}

/// Makes the parts of what a call stands for.
struct Make<'c> {
    c: &'c Call,
    pos: Pos,
}

impl Make<'_> {
    fn expr(&self, kind: ExprKind) -> Expr {
        Expr { kind, pos: self.pos }
    }
    fn number(&self, text: &str) -> Expr {
        self.expr(ExprKind::Number(text.into()))
    }
    fn op(&self, name: &str, left: Expr, right: Expr) -> Expr {
        let (left, right) = (Some(Box::new(left)), Box::new(right));
        self.expr(ExprKind::Op { schema: None, name: name.into(), left, right })
    }
    fn name(&self, name: &str) -> QName {
        QName { parts: vec!["pg_catalog".into(), name.into()], pos: self.pos }
    }
    fn float(&self, input: Expr) -> Expr {
        let ty = TypeName { name: self.name("float8"), mods: vec![], interval_fields: None, dims: 0, pos: self.pos };
        self.expr(ExprKind::Cast { input: Box::new(input), ty: Box::new(ty) })
    }

    /// How many rows, or different keys, there are among those of the call's own FILTER that satisfy a condition.
    fn count(&self, distinct: bool, condition: Option<Expr>) -> Expr {
        let conditions: Vec<Expr> = self.c.filter.clone().into_iter().chain(condition).collect();
        let keys = self.c.within_group.iter().map(|k| k.expr.clone()).collect();
        // A row of keys is counted even where they are NULL.
        let key = Arg { name: None, value: self.expr(ExprKind::Row { fields: keys, explicit: true }) };
        self.expr(ExprKind::Call(Box::new(Call {
            name: self.name("count"),
            args: if distinct { vec![key] } else { vec![] },
            star: !distinct,
            variadic: false,
            distinct,
            order_by: vec![],
            within_group: vec![],
            filter: (!conditions.is_empty()).then(|| self.expr(ExprKind::And(conditions))),
            over: None,
            special: true,
        })))
    }

    /// Whether a row sorts before the one that is not there, or with `or_equal` beside it.
    fn before(&self, or_equal: bool) -> Expr {
        let mut later = self.expr(ExprKind::Bool(or_equal));
        for (key, arg) in self.c.within_group.iter().zip(&self.c.args).rev() {
            let equal = self.expr(ExprKind::IsDistinct {
                left: Box::new(key.expr.clone()),
                right: Box::new(arg.value.clone()),
                negated: true,
            });
            let tied = self.expr(ExprKind::And(vec![equal, later]));
            later = self.expr(ExprKind::Or(vec![self.key_before(key, &arg.value), tied]));
        }
        later
    }

    fn key_before(&self, key: &OrderBy, arg: &Expr) -> Expr {
        let is_null = |e: &Expr, negated| self.expr(ExprKind::IsNull { input: Box::new(e.clone()), negated });
        let nulls_first = key.nulls_first.unwrap_or(key.desc);
        let by_null = vec![is_null(&key.expr, !nulls_first), is_null(arg, nulls_first)];
        let by_value = self.op(if key.desc { ">" } else { "<" }, key.expr.clone(), arg.clone());
        self.expr(ExprKind::Or(vec![by_value, self.expr(ExprKind::And(by_null))]))
    }
}
