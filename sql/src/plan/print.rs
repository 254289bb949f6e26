//! Expressions as SQL text, the way EXPLAIN shows them.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::expr::handle;
use super::logical::ColumnNames;
use crate::functions::SessionCx;
use crate::functions::registry::{CastMethod, ScalarFn, registry};
use crate::ir::{AggCall, Expr, ExprKind, RowCompareOp, SortKey, SubqueryKind};
use crate::types::info::format_type;
use crate::types::{Datum, Type, TypeMod, io};

/// Prints expressions in planner form.
pub struct Printer<'a> {
    /// Names of the columns.
    pub names: &'a ColumnNames,
    /// For the text of constants.
    pub session: &'a SessionCx,
    /// Whether columns are shown with their tables.
    pub qualify: bool,
}

impl Printer<'_> {
    /// An expression.
    pub fn expr(&self, e: &Expr) -> String {
        match &e.kind {
            ExprKind::Const(d) => self.constant(d, e.ty),
            ExprKind::Column(id) => self.column(*id),
            ExprKind::Outer { index, .. } => format!("outer.{index}"),
            ExprKind::Param(i) => format!("${}", i + 1),
            ExprKind::CaseOperand => "CASE_TEST_EXPR".to_owned(),
            ExprKind::Call { func, args } => self.call(func, args, e.ty),
            ExprKind::CoerceViaIo(input) => format!("({})::{}", self.expr(input), format_type(e.ty.ty, e.ty.typmod)),
            ExprKind::ArrayCoerce { input, .. } => {
                format!("({})::{}", self.expr(input), format_type(e.ty.ty, e.ty.typmod))
            }
            ExprKind::And(args) => self.joined(args, " AND "),
            ExprKind::Or(args) => self.joined(args, " OR "),
            ExprKind::Not(input) => format!("(NOT {})", self.expr(input)),
            ExprKind::IsNull { input, negated } => {
                format!("({} IS {}NULL)", self.expr(input), if *negated { "NOT " } else { "" })
            }
            ExprKind::IsBool { input, value, negated } => {
                let what = match value {
                    Some(true) => "TRUE",
                    Some(false) => "FALSE",
                    None => "UNKNOWN",
                };
                format!("({} IS {}{what})", self.expr(input), if *negated { "NOT " } else { "" })
            }
            ExprKind::Distinct { left, right, negated, .. } => format!(
                "({} IS {}DISTINCT FROM {})",
                self.expr(left),
                if *negated { "NOT " } else { "" },
                self.expr(right)
            ),
            ExprKind::Case { operand, whens, otherwise } => {
                let mut text = "CASE".to_owned();
                if let Some(operand) = operand {
                    text += &format!(" {}", self.expr(operand));
                }
                for (when, then) in whens {
                    text += &format!(" WHEN {} THEN {}", self.expr(when), self.expr(then));
                }
                if let Some(otherwise) = otherwise {
                    text += &format!(" ELSE {}", self.expr(otherwise));
                }
                text + " END"
            }
            ExprKind::Coalesce(args) => format!("COALESCE({})", self.list(args)),
            ExprKind::NullIf { left, right, .. } => format!("NULLIF({}, {})", self.expr(left), self.expr(right)),
            ExprKind::MinMax { args, greatest } => {
                format!("{}({})", if *greatest { "GREATEST" } else { "LEAST" }, self.list(args))
            }
            ExprKind::ScalarArray { func, left, array, all } => format!(
                "({} {} {} ({}))",
                self.expr(left),
                operator(func).unwrap_or("="),
                if *all { "ALL" } else { "ANY" },
                self.expr(array)
            ),
            ExprKind::Array { elems, .. } => format!("ARRAY[{}]", self.list(elems)),
            ExprKind::Row(args) => format!("ROW({})", self.list(args)),
            ExprKind::Field { input, index } => format!("({}).f{}", self.expr(input), index + 1),
            ExprKind::Subscript { input, indexes } => {
                indexes.iter().fold(self.expr(input), |text, i| format!("{text}[{}]", self.expr(i)))
            }
            ExprKind::Slice { input, bounds } => {
                let bound = |b: &Option<Expr>| b.as_ref().map_or(String::new(), |b| self.expr(b));
                bounds
                    .iter()
                    .fold(self.expr(input), |text, (low, high)| format!("{text}[{}:{}]", bound(low), bound(high)))
            }
            ExprKind::RowCompare { op, pairs } => {
                let op = match op {
                    RowCompareOp::Eq => "=",
                    RowCompareOp::Ne => "<>",
                    RowCompareOp::Lt => "<",
                    RowCompareOp::Le => "<=",
                    RowCompareOp::Gt => ">",
                    RowCompareOp::Ge => ">=",
                };
                let side = |left: bool| {
                    pairs
                        .iter()
                        .map(|p| self.expr(if left { &p.left } else { &p.right }))
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                format!("(ROW({}) {op} ROW({}))", side(true), side(false))
            }
            ExprKind::Subquery(sub) => {
                let name = format!("SubPlan {}", handle(sub).map_or(0, |n| n + 1));
                match &sub.kind {
                    SubqueryKind::Exists => format!("EXISTS({name})"),
                    SubqueryKind::Quantified { tests, funcs, all } => {
                        format!(
                            "({} {} {} ({name}))",
                            self.list(tests),
                            funcs.first().and_then(|f| operator(f)).unwrap_or("="),
                            if *all { "ALL" } else { "ANY" }
                        )
                    }
                    SubqueryKind::Scalar | SubqueryKind::Array => format!("({name})"),
                }
            }
            ExprKind::SetCall { func, args } => format!("{}({})", func.name, self.list(args)),
            ExprKind::Default => "DEFAULT".to_owned(),
        }
    }

    /// A sort key.
    pub fn key(&self, e: &Expr, desc: bool, nulls_first: bool) -> String {
        let nulls = match (desc, nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{}{nulls}", self.expr(e), if desc { " DESC" } else { "" })
    }

    /// An aggregate call.
    pub fn agg(&self, call: &AggCall) -> String {
        let order = |k: &SortKey| self.key(&k.expr, k.desc, k.nulls_first);
        let mut text = format!(
            "{}({}{}",
            call.func.name,
            if call.distinct { "DISTINCT " } else { "" },
            if call.args.is_empty() { "*".to_owned() } else { self.list(&call.args) }
        );
        if !call.order_by.is_empty() {
            text += &format!(" ORDER BY {}", call.order_by.iter().map(order).collect::<Vec<_>>().join(", "));
        }
        text + ")"
    }

    /// Several, with commas.
    pub fn list(&self, exprs: &[Expr]) -> String {
        exprs.iter().map(|e| self.expr(e)).collect::<Vec<_>>().join(", ")
    }

    /// Conditions that must all hold.
    pub fn all<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>) -> String {
        let texts: Vec<String> = exprs.into_iter().map(|e| self.expr(e)).collect();
        if texts.len() == 1 { texts.concat() } else { format!("({})", texts.join(" AND ")) }
    }

    fn joined(&self, args: &[Expr], with: &str) -> String {
        format!("({})", args.iter().map(|a| self.expr(a)).collect::<Vec<_>>().join(with))
    }

    fn column(&self, id: usize) -> String {
        let Some(column) = self.names.0.get(id) else { return format!("column{id}") };
        match &column.table {
            Some(table) if self.qualify => format!("{}.{}", identifier(table), identifier(&column.name)),
            _ => identifier(&column.name),
        }
    }

    fn constant(&self, d: &Datum, ty: TypeMod) -> String {
        let named = |text: &str| format!("'{}'::{}", text.replace('\'', "''"), format_type(ty.ty, ty.typmod));
        match d {
            Datum::Null => format!("NULL::{}", format_type(ty.ty, ty.typmod)),
            Datum::Bool(b) => b.to_string(),
            Datum::Int4(n) if *n >= 0 => n.to_string(),
            d => {
                let mut text = String::new();
                io::text_out(d, ty.ty, self.session, &mut text);
                named(&text)
            }
        }
    }

    fn call(&self, func: &'static ScalarFn, args: &[Expr], ty: TypeMod) -> String {
        match (operator(func), args) {
            (Some(op), [left, right]) => format!("({} {op} {})", self.operand(left), self.operand(right)),
            (Some(op), [operand]) => format!("({op} {})", self.operand(operand)),
            (_, [input, ..]) if is_cast(func, input.ty.ty, ty.ty) => {
                format!("({})::{}", self.expr(input), format_type(ty.ty, ty.typmod))
            }
            _ => format!("{}({})", identifier(func.name), self.list(args)),
        }
    }

    /// An operand; a text column that is stored as something else shows its cast, as in PostgreSQL.
    fn operand(&self, e: &Expr) -> String {
        let text = self.expr(e);
        match &e.kind {
            ExprKind::Column(id) => match self.names.0.get(*id) {
                Some(column) if column.ty.ty != e.ty.ty && column.ty.ty != Type::NONE => {
                    format!("({text})::{}", format_type(e.ty.ty, -1))
                }
                _ => text,
            },
            _ => text,
        }
    }
}

/// A name, quoted where it must be.
pub fn identifier(name: &str) -> String {
    let plain = name
        .chars()
        .enumerate()
        .all(|(i, c)| c == '_' || c.is_ascii_lowercase() || (i > 0 && (c.is_ascii_digit() || c == '$')))
        && !name.is_empty();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The operator that calls a function.
pub(crate) fn operator(func: &'static ScalarFn) -> Option<&'static str> {
    static BY_FUNCTION: OnceLock<FxHashMap<usize, &'static str>> = OnceLock::new();
    let table = BY_FUNCTION.get_or_init(|| {
        let mut table = FxHashMap::default();
        for (name, operators) in &registry().operators {
            for o in operators {
                table.entry(std::ptr::from_ref(o.func).addr()).or_insert(*name);
            }
        }
        table
    });
    table.get(&std::ptr::from_ref(func).addr()).copied()
}

fn is_cast(func: &'static ScalarFn, from: Type, to: Type) -> bool {
    from != to
        && registry()
            .casts
            .get(&(from, to))
            .is_some_and(|c| matches!(c.method, CastMethod::Function(f) if std::ptr::eq(f, func)))
}
