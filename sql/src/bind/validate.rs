//! Checks that bound trees keep what [`crate::ir`] promises: every reference points into its row and has that column's type, every schema fits its
//! expressions. Tests run it over all that they bind.

use super::coerce::binary_coercible;
use crate::ir::*;
use crate::types::{Type, TypeMod};

type Row = Vec<TypeMod>;

/// What is wrong with a bound relation, if anything.
pub(super) fn validate(rel: &Rel) -> Result<(), String> {
    Checker { outer: vec![], ctes: vec![] }.rel(rel)
}

struct Checker {
    /// Rows of the enclosing levels, outermost first.
    outer: Vec<Row>,
    /// CTEs in scope: id and columns.
    ctes: Vec<(usize, Row)>,
}

fn row(schema: &[Field]) -> Row {
    schema.iter().map(|f| f.ty).collect()
}

/// Types that share a representation: a column of varchar may be read as text without a cast.
fn alike(a: Type, b: Type) -> bool {
    a == b
        || binary_coercible(a, b)
        || binary_coercible(b, a)
        || a.element().zip(b.element()).is_some_and(|(a, b)| alike(a, b))
}

fn same_types(what: &str, a: &[TypeMod], b: &[TypeMod]) -> Result<(), String> {
    let fits = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a.ty, b.ty));
    if fits { Ok(()) } else { Err(format!("{what}: {a:?} is not {b:?}")) }
}

impl Checker {
    fn exprs<'a>(&mut self, exprs: impl IntoIterator<Item = &'a Expr>, row: &Row) -> Result<Row, String> {
        exprs.into_iter().map(|e| self.expr(e, row).map(|()| e.ty)).collect()
    }

    fn rel(&mut self, rel: &Rel) -> Result<(), String> {
        let out = row(&rel.schema);
        let none = vec![];
        match &rel.kind {
            RelKind::Values(rows) => {
                for r in rows {
                    let types = self.exprs(r, &none)?;
                    same_types("VALUES", &types, &out)?;
                }
            }
            RelKind::Scan { table, row_key, system, .. } => {
                let mut types = row(&table.fields());
                if *row_key {
                    types.push(Type::BYTEA.plain());
                }
                if *system {
                    types.extend([Type::XID.plain(), Type::TID.plain()]);
                }
                same_types("scan", &types, &out)?;
            }
            RelKind::Virtual { table, args } => {
                self.exprs(args, &none)?;
                same_types("virtual table", &row(&table.columns()), &out)?;
            }
            RelKind::Function { calls, .. } => {
                self.exprs(calls, &none)?;
            }
            RelKind::Filter { input, predicate } => {
                self.rel(input)?;
                same_types("filter", &row(&input.schema), &out)?;
                self.expr(predicate, &out)?;
                same_types("predicate", &[predicate.ty], &[Type::BOOL.plain()])?;
            }
            RelKind::Project { input, exprs } | RelKind::ProjectSet { input, exprs } => {
                self.rel(input)?;
                let types = self.exprs(exprs, &row(&input.schema))?;
                same_types("project", &types, &out)?;
            }
            RelKind::Join { left, right, on, lateral, .. } => {
                self.rel(left)?;
                let left_row = row(&left.schema);
                if *lateral {
                    self.outer.push(left_row.clone());
                }
                self.rel(right)?;
                if *lateral {
                    self.outer.pop();
                }
                let both: Row = left_row.into_iter().chain(row(&right.schema)).collect();
                same_types("join", &both, &out)?;
                self.exprs(on, &both)?;
            }
            RelKind::Aggregate { input, keys, sets, aggs, grouping } => {
                self.rel(input)?;
                let from = row(&input.schema);
                let mut types = self.exprs(keys, &from)?;
                for agg in aggs {
                    self.agg(agg, &from)?;
                    types.push(agg.ty);
                }
                types.extend(grouping.iter().map(|_| Type::INT4.plain()));
                if sets.len() < 2 && !grouping.is_empty() {
                    return Err("GROUPING over one set".into());
                }
                if sets.iter().chain(grouping).flatten().any(|k| *k >= keys.len()) {
                    return Err("a grouping set without its key".into());
                }
                same_types("aggregate", &types, &out)?;
            }
            RelKind::Window { input, calls } => {
                self.rel(input)?;
                let from = row(&input.schema);
                let mut types = from.clone();
                for call in calls {
                    if let WindowFunc::Aggregate(agg) = &call.func {
                        self.agg(agg, &from)?;
                    }
                    self.exprs(
                        call.args.iter().chain(&call.partition_by).chain(call.order_by.iter().map(|k| &k.expr)),
                        &from,
                    )?;
                    for bound in [&call.frame.start, &call.frame.end] {
                        if let FrameBound::Preceding(o) | FrameBound::Following(o) = bound {
                            self.expr(&o.value, &none)?;
                            if let Some(key) = call.order_by.first() {
                                let pair = vec![key.expr.ty, o.value.ty];
                                self.exprs(o.minus.iter().chain(&o.plus), &pair)?;
                            }
                        }
                    }
                    types.push(call.ty);
                }
                same_types("window", &types, &out)?;
            }
            RelKind::Sort { input, keys } => {
                self.rel(input)?;
                same_types("sort", &row(&input.schema), &out)?;
                self.exprs(keys.iter().map(|k| &k.expr), &out)?;
            }
            RelKind::LockRows { input, .. } => {
                self.rel(input)?;
                same_types("locks", &row(&input.schema), &out)?;
            }
            RelKind::Limit { input, limit, offset, with_ties } => {
                self.rel(input)?;
                same_types("limit", &row(&input.schema), &out)?;
                self.exprs(limit.iter().chain(offset), &none)?;
                self.exprs(with_ties.iter().flatten().map(|k| &k.expr), &out)?;
            }
            RelKind::Distinct { input, on } => {
                self.rel(input)?;
                same_types("distinct", &row(&input.schema), &out)?;
                self.exprs(on.iter().flatten(), &out)?;
            }
            RelKind::SetOp { left, right, .. } => {
                self.rel(left)?;
                self.rel(right)?;
                same_types("left side", &row(&left.schema), &out)?;
                same_types("right side", &row(&right.schema), &out)?;
            }
            RelKind::With { ctes, body } => {
                let mark = self.ctes.len();
                for cte in ctes {
                    self.rel(&cte.definition)?;
                    self.ctes.push((cte.id, row(&cte.definition.schema)));
                    if let Some((term, _)) = &cte.recursive {
                        self.rel(term)?;
                        same_types("recursive term", &row(&term.schema), &row(&cte.definition.schema))?;
                    }
                }
                self.rel(body)?;
                same_types("with", &row(&body.schema), &out)?;
                self.ctes.truncate(mark);
            }
            RelKind::CteScan { id } => {
                let Some((_, columns)) = self.ctes.iter().rev().find(|(i, _)| i == id) else {
                    return Err(format!("CTE {id} is not in scope"));
                };
                same_types("CTE", columns, &out)?;
            }
            RelKind::Dml(dml) => self.dml(dml, &out)?,
        }
        Ok(())
    }

    fn dml(&mut self, dml: &Dml, out: &Row) -> Result<(), String> {
        let returning_row = match &dml.kind {
            DmlKind::Insert { table, columns, source, defaults, checks, on_conflict, .. } => {
                let stored = row(&table.fields());
                self.rel(source)?;
                let wanted: Row = columns.iter().map(|c| stored[*c]).collect();
                same_types("insert", &row(&source.schema), &wanted)?;
                for (default, ty) in defaults.iter().zip(&stored) {
                    let types = self.exprs(default, &vec![])?;
                    types.iter().try_for_each(|t| same_types("default", &[*t], &[*ty]))?;
                }
                self.exprs(checks.iter().map(|c| &c.expr), &stored)?;
                if let Some((assignments, condition)) = on_conflict.as_ref().and_then(|c| c.update.as_ref()) {
                    let both: Row = stored.iter().chain(&stored).copied().collect();
                    for (column, e) in assignments {
                        self.expr(e, &both)?;
                        same_types("conflict", &[e.ty], &[stored[*column]])?;
                    }
                    self.exprs(condition, &both)?;
                }
                stored
            }
            DmlKind::Update { table, source, assignments, checks } => {
                self.rel(source)?;
                let from = row(&source.schema);
                let stored = row(&table.fields());
                same_types("update", &from[..stored.len()], &stored)?;
                for (column, e) in assignments {
                    self.expr(e, &from)?;
                    same_types("assignment", &[e.ty], &[stored[*column]])?;
                }
                self.exprs(checks.iter().map(|c| &c.expr), &stored)?;
                from
            }
            DmlKind::Delete { table, source } => {
                self.rel(source)?;
                let from = row(&source.schema);
                same_types("delete", &from[..table.width()], &row(&table.fields()))?;
                from
            }
        };
        let types = self.exprs(dml.returning.iter().flatten(), &returning_row)?;
        same_types("returning", &types, out)
    }

    fn agg(&mut self, agg: &AggCall, from: &Row) -> Result<(), String> {
        self.exprs(agg.args.iter().chain(agg.order_by.iter().map(|k| &k.expr)).chain(&agg.filter), from).map(|_| ())
    }

    fn expr(&mut self, e: &Expr, row: &Row) -> Result<(), String> {
        let referred = match &e.kind {
            ExprKind::Column(i) => Some((row.get(*i).copied(), format!("column {i} of {row:?}"))),
            ExprKind::Outer { depth, index } => {
                let level = self.outer.len().checked_sub(*depth).map(|l| &self.outer[l]);
                Some((level.and_then(|l| l.get(*index)).copied(), format!("outer {depth}.{index} of {:?}", self.outer)))
            }
            _ => None,
        };
        if let Some((ty, shown)) = referred {
            return match ty {
                Some(ty) if alike(ty.ty, e.ty.ty) => Ok(()),
                Some(ty) => Err(format!("{shown} has type {ty:?}, not {:?}", e.ty)),
                None => Err(format!("{shown} does not exist")),
            };
        }
        match &e.kind {
            ExprKind::ArrayCoerce { input, cast } => {
                self.expr(input, row)?;
                let element = input.ty.ty.element().ok_or("an array cast of no array")?;
                return self.expr(cast, &vec![element.plain()]);
            }
            ExprKind::Call { args, .. }
                if args.iter().any(|a| {
                    a.ty.ty == Type::UNKNOWN && !matches!(a.kind, ExprKind::Const(_) | ExprKind::Param(_))
                }) =>
            {
                return Err(format!("an argument of unknown type in {e:?}"));
            }
            ExprKind::Subquery(sub) => {
                if let SubqueryKind::Quantified { tests, funcs, .. } = &sub.kind {
                    self.exprs(tests, row)?;
                    if tests.len() != funcs.len() || tests.len() != sub.plan.schema.len() {
                        return Err("tests and columns of a subquery differ in number".into());
                    }
                }
                self.outer.push(row.clone());
                self.rel(&sub.plan)?;
                self.outer.pop();
                return Ok(());
            }
            _ => {}
        }
        let mut failed = Ok(());
        let mut copy = e.clone();
        let _ = super::walk::for_each_child(&mut copy, &mut |child| {
            if failed.is_ok() {
                failed = self.expr(child, row);
            }
            Ok(())
        });
        failed
    }
}
