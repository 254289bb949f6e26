//! From the binder's form to the planner's: positions become ids, subqueries become handles, constants are folded.

use std::sync::Arc;

use super::expr::{FIRST_SCOPE, children, children_mut, conjuncts};
use super::fold;
use super::logical::{ColId, LogicalCte, Lp, Op, Planner, Scan, Sub};
use super::node::JoinType;
use crate::error::{Result, SqlError};
use crate::foreign::ForeignScan;
use crate::ir::{
    AggCall, Cte, DmlKind, Expr, ExprKind, FrameBound, JoinKind, LockLeaf, Rel, RelKind, RowLock, SetOp, SortKey,
    SubqueryKind, WindowCall, WindowFunc,
};
use crate::lock::RowMode;
use crate::types::Type;

/// The columns of the rows around an expression, nearest first.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub columns: &'a [ColId],
    pub up: Option<&'a Scope<'a>>,
}

impl Planner<'_> {
    /// Converts a relation that stands inside these rows.
    pub(crate) fn build(&mut self, rel: Rel, scope: Option<&Scope<'_>>) -> Result<Lp> {
        let is_join = matches!(rel.kind, RelKind::Join { .. });
        self.deeper(is_join, |planner| planner.build_kind(rel, scope))
    }

    fn build_kind(&mut self, rel: Rel, scope: Option<&Scope<'_>>) -> Result<Lp> {
        let schema = rel.schema;
        Ok(match rel.kind {
            RelKind::Values(rows) => {
                let rows = rows
                    .into_iter()
                    .map(|row| row.into_iter().map(|e| self.convert(e, &[], scope)).collect())
                    .collect::<Result<_>>()?;
                let cols = schema.iter().map(|f| self.column(&f.name, f.ty)).collect();
                Lp { op: Op::Values { rows }, cols }
            }
            RelKind::Scan { table, at, row_key, system } => {
                let alias: Arc<str> = Arc::from(table.name.as_str());
                let (foreign, table) = match ForeignScan::planned(&table, &self.cx.session.catalog)? {
                    Some((foreign, seen)) => (Some(foreign), seen),
                    None => (None, table),
                };
                let mut made = Vec::with_capacity(schema.len());
                for (column, field) in table.columns().zip(schema.iter()) {
                    let id = self.column(&field.name, field.ty);
                    self.columns[id].table = Some(alias.clone());
                    self.columns[id].not_null = column.not_null
                        || table.primary_key.as_ref().is_some_and(|k| k.columns.contains(&column.attnum));
                    made.push(id);
                }
                let row_key = row_key.then(|| self.column("row key", Type::BYTEA.plain()));
                let system = system.then(|| {
                    [("xmin", Type::XID), ("ctid", Type::TID)].map(|(name, ty)| {
                        let id = self.column(name, ty.plain());
                        self.columns[id].table = Some(alias.clone());
                        id
                    })
                });
                let cols = made.iter().copied().chain(row_key).chain(system.into_iter().flatten()).collect();
                Lp { op: Op::Scan(Scan { table, foreign, at, made, row_key, system, filter: Vec::new(), alias }), cols }
            }
            RelKind::Virtual { table, args } => {
                let args = args.into_iter().map(|e| self.convert(e, &[], scope)).collect::<Result<_>>()?;
                let alias: Arc<str> = Arc::from(table.name());
                let made: Vec<ColId> = schema.iter().map(|f| self.column(&f.name, f.ty)).collect();
                made.iter().for_each(|id| self.columns[*id].table = Some(alias.clone()));
                Lp { op: Op::Virtual { table, args, made: made.clone(), filter: Vec::new(), alias }, cols: made }
            }
            RelKind::Function { calls, ordinality } => {
                let calls = calls.into_iter().map(|e| self.convert(e, &[], scope)).collect::<Result<_>>()?;
                let cols = schema.iter().map(|f| self.column(&f.name, f.ty)).collect();
                Lp { op: Op::Function { calls, ordinality }, cols }
            }
            RelKind::Filter { input, predicate } => {
                let input = self.build(*input, scope)?;
                let mut preds = Vec::new();
                conjuncts(self.convert(predicate, &input.cols, scope)?, &mut preds);
                input.filtered(preds)
            }
            RelKind::Project { input, exprs } => {
                let input = self.build(*input, scope)?;
                let (cols, computed) = self.project(exprs, &schema, &input.cols, scope)?;
                if computed.is_empty() {
                    return Ok(super::push::with_cols(input, cols));
                }
                Lp { op: Op::Project { input: Box::new(input), exprs: computed }, cols }
            }
            RelKind::ProjectSet { input, exprs } => {
                let input = self.build(*input, scope)?;
                let mut made = Vec::with_capacity(exprs.len());
                for (e, field) in exprs.into_iter().zip(schema.iter()) {
                    let e = self.convert(e, &input.cols, scope)?;
                    made.push((self.column(&field.name, field.ty), e));
                }
                let cols = made.iter().map(|(id, _)| *id).collect();
                Lp { op: Op::ProjectSet { input: Box::new(input), exprs: made }, cols }
            }
            RelKind::Join { kind, left, right, on, lateral } => {
                let left = self.build(*left, scope)?;
                let right = if lateral {
                    let inner = Scope { columns: &left.cols, up: scope };
                    self.build(*right, Some(&inner))?
                } else {
                    self.build(*right, scope)?
                };
                let cols: Vec<ColId> = left.cols.iter().chain(&right.cols).copied().collect();
                let mut preds = Vec::new();
                if let Some(on) = on {
                    conjuncts(self.convert(on, &cols, scope)?, &mut preds);
                }
                let kind = match kind {
                    JoinKind::Inner => JoinType::Inner,
                    JoinKind::Left => JoinType::Left,
                    JoinKind::Right => JoinType::Right,
                    JoinKind::Full => JoinType::Full,
                };
                // A LATERAL that takes nothing from the left is a plain join.
                let lateral = lateral && self.free(&right).iter().any(|id| left.cols.contains(id));
                Lp::join(kind, left, right, preds, lateral, cols)
            }
            RelKind::Aggregate { input, keys, sets, aggs, grouping } => {
                let input = self.build(*input, scope)?;
                let plain = sets.len() == 1;
                let mut fields = schema.iter();
                let mut made_keys = Vec::with_capacity(keys.len());
                for key in keys {
                    let key = self.convert(key, &input.cols, scope)?;
                    let field = fields.next().ok_or_else(shape)?;
                    let id = match key.kind {
                        // With several grouping sets the key may become NULL: another column.
                        // What is not of the input is an enclosing row's: made here it would hide that the group takes it from there.
                        ExprKind::Column(id) if plain && input.cols.contains(&id) => id,
                        _ => self.column(&field.name, key.ty),
                    };
                    made_keys.push((id, key));
                }
                let mut made_aggs = Vec::with_capacity(aggs.len());
                for call in aggs {
                    let call = self.convert_agg(call, &input.cols, scope)?;
                    let field = fields.next().ok_or_else(shape)?;
                    made_aggs.push((self.column(&field.name, call.ty), call));
                }
                let mut made_grouping = Vec::new();
                if !plain {
                    for asked in grouping {
                        made_grouping.push((self.column("grouping", Type::INT4.plain()), asked));
                    }
                }
                let cols = made_keys
                    .iter()
                    .map(|(id, _)| *id)
                    .chain(made_aggs.iter().map(|(id, _)| *id))
                    .chain(made_grouping.iter().map(|(id, _)| *id))
                    .collect();
                Lp {
                    op: Op::Aggregate {
                        input: Box::new(input),
                        keys: made_keys,
                        sets,
                        aggs: made_aggs,
                        grouping: made_grouping,
                    },
                    cols,
                }
            }
            RelKind::Window { input, calls } => {
                let input = self.build(*input, scope)?;
                let mut made = Vec::with_capacity(calls.len());
                for call in calls {
                    let call = self.convert_window(call, &input.cols, scope)?;
                    made.push((self.column("window", call.ty), call));
                }
                let cols = input.cols.iter().copied().chain(made.iter().map(|(id, _)| *id)).collect();
                Lp { op: Op::Window { input: Box::new(input), calls: made }, cols }
            }
            RelKind::Sort { input, keys } => {
                let input = self.build(*input, scope)?;
                let keys = self.convert_keys(keys, &input.cols, scope)?;
                let cols = input.cols.clone();
                Lp { op: Op::Sort { input: Box::new(input), keys }, cols }
            }
            RelKind::Limit { input, limit, offset, with_ties } => {
                let input = self.build(*input, scope)?;
                // Counts see no row; a subquery in them stands directly inside the enclosing rows.
                let limit = limit.map(|e| self.convert(e, &[], scope)).transpose()?;
                let offset = offset.map(|e| self.convert(e, &[], scope)).transpose()?;
                let ties = with_ties.map(|keys| self.convert_keys(keys, &input.cols, scope)).transpose()?;
                let cols = input.cols.clone();
                Lp { op: Op::Limit { input: Box::new(input), limit, offset, ties }, cols }
            }
            RelKind::LockRows { input, locks } => {
                let input = self.build(*input, scope)?;
                let cols = input.cols.clone();
                let key = |lock: &RowLock| match &locks.leaves[lock.leaf] {
                    LockLeaf::Row { key, .. } => cols.get(*key).map(|id| (*id, lock.mode)),
                    LockLeaf::Values(_) => None,
                };
                let keys = locks.locks.iter().map(key).collect::<Option<_>>().ok_or_else(shape)?;
                Lp { op: Op::LockRows { input: Box::new(input), locks, keys }, cols }
            }
            RelKind::Distinct { input, on } => {
                let input = self.build(*input, scope)?;
                let on = on
                    .map(|on| on.into_iter().map(|e| self.convert(e, &input.cols, scope)).collect::<Result<_>>())
                    .transpose()?;
                let cols = input.cols.clone();
                Lp { op: Op::Distinct { input: Box::new(input), on }, cols }
            }
            RelKind::SetOp { op, all, left, right } => {
                let (left, right) = (self.build(*left, scope)?, self.build(*right, scope)?);
                let cols: Vec<ColId> = schema.iter().map(|f| self.column(&f.name, f.ty)).collect();
                if op != SetOp::Union {
                    return Ok(Lp { op: Op::SetOp { op, all, left: Box::new(left), right: Box::new(right) }, cols });
                }
                let mut inputs = Vec::new();
                for mut input in [left, right] {
                    // A union of unions is one; under a UNION without ALL inner duplicates do not matter either.
                    if !all
                        && let Op::Distinct { input: inner, on: None } = &mut input.op
                        && matches!(inner.op, Op::Append { .. })
                        && inner.cols == input.cols
                    {
                        input = std::mem::replace(&mut **inner, Lp::empty(Vec::new()));
                    }
                    match input.op {
                        Op::Append { inputs: inner } if is_whole(&inner, &input.cols) => inputs.extend(inner),
                        _ => inputs.push(input),
                    }
                }
                let union = Lp { op: Op::Append { inputs }, cols: cols.clone() };
                if all { union } else { Lp { op: Op::Distinct { input: Box::new(union), on: None }, cols } }
            }
            RelKind::With { ctes, body } => self.build_with(ctes, *body, scope)?,
            RelKind::CteScan { id } => {
                if let Some(definition) = self.inline.remove(&id) {
                    return Ok(definition);
                }
                let name = self.cte_names.get(&id).cloned().unwrap_or_else(|| Arc::from("cte"));
                let cols: Vec<ColId> = schema.iter().map(|f| self.column(&f.name, f.ty)).collect();
                cols.iter().for_each(|c| self.columns[*c].table = Some(name.clone()));
                let op =
                    if self.recursing.contains(&id) { Op::WorkScan { id, name } } else { Op::CteScan { id, name } };
                Lp { op, cols }
            }
            RelKind::Dml(mut dml) => {
                let source = match &mut Arc::make_mut(&mut dml).kind {
                    // Nobody asks for it again, and it may be all rows of a load.
                    DmlKind::Insert { source, .. } => {
                        let schema = source.schema.clone();
                        std::mem::replace(source, Rel { kind: RelKind::Values(Vec::new()), schema })
                    }
                    DmlKind::Update { source, .. } | DmlKind::Delete { source, .. } => source.clone(),
                };
                let source = self.build(source, scope)?;
                let cols = schema.iter().map(|f| self.column(&f.name, f.ty)).collect();
                Lp { op: Op::Dml { dml, source: Box::new(source) }, cols }
            }
        })
    }

    fn build_with(&mut self, ctes: Vec<Cte>, body: Rel, scope: Option<&Scope<'_>>) -> Result<Lp> {
        let mut kept = Vec::new();
        for cte in ctes {
            let Cte { id, name, definition, recursive, materialized } = cte;
            self.cte_names.insert(id, name.clone());
            let writes = matches!(definition.kind, RelKind::Dml(_)) || contains_dml(&definition);
            let reads = self.cte_reads.get(&id).copied().unwrap_or(0);
            if reads == 0 && !writes {
                continue;
            }
            let definition = self.build(definition, scope)?;
            let Some((term, all)) = recursive else {
                let inline = !writes && reads == 1 && materialized != Some(true) && !self.volatile_rel(&definition);
                if inline {
                    self.inline.insert(id, definition);
                } else {
                    self.cte_free.insert(id, self.free(&definition).into_iter().collect());
                    kept.push(LogicalCte { id, name, definition, recursive: None, all: true, writes });
                }
                continue;
            };
            self.recursing.push(id);
            let term = self.build(term, scope);
            self.recursing.pop();
            let term = term?;
            let free = self.free(&definition).into_iter().chain(self.free(&term)).collect();
            self.cte_free.insert(id, free);
            kept.push(LogicalCte { id, name, definition, recursive: Some(term), all, writes });
        }
        let body = self.build(body, scope)?;
        if kept.is_empty() {
            return Ok(body);
        }
        let cols = body.cols.clone();
        Ok(Lp { op: Op::With { ctes: kept, body: Box::new(body) }, cols })
    }

    /// Output columns of a select list, and those of them that are computed.
    fn project(
        &mut self,
        exprs: Vec<Expr>,
        schema: &[crate::ir::Field],
        columns: &[ColId],
        scope: Option<&Scope<'_>>,
    ) -> Result<(Vec<ColId>, Vec<(ColId, Expr)>)> {
        let (mut cols, mut computed) = (Vec::with_capacity(exprs.len()), Vec::new());
        for (e, field) in exprs.into_iter().zip(schema) {
            let e = self.convert(e, columns, scope)?;
            match e.kind {
                ExprKind::Column(id) if columns.contains(&id) => cols.push(id),
                _ => {
                    let id = self.column(&field.name, e.ty);
                    cols.push(id);
                    computed.push((id, e));
                }
            }
        }
        Ok((cols, computed))
    }

    /// Converts an expression over a row of these columns.
    pub(crate) fn convert(&mut self, mut e: Expr, columns: &[ColId], scope: Option<&Scope<'_>>) -> Result<Expr> {
        self.cx.session.check_cancel()?;
        self.convert_in_place(&mut e, columns, scope)?;
        Ok(fold::simplify(e, self.cx))
    }

    fn convert_in_place(&mut self, e: &mut Expr, columns: &[ColId], scope: Option<&Scope<'_>>) -> Result<()> {
        match &mut e.kind {
            ExprKind::Column(i) => *i = *columns.get(*i).ok_or_else(shape)?,
            ExprKind::Outer { depth, index } => {
                let mut level = scope;
                for _ in 1..*depth {
                    level = level.and_then(|s| s.up);
                }
                let id = level.and_then(|s| s.columns.get(*index)).ok_or_else(shape)?;
                e.kind = ExprKind::Column(*id);
            }
            ExprKind::ArrayCoerce { input, cast } => {
                self.convert_in_place(input, columns, scope)?;
                self.convert_in_place(cast, FIRST_SCOPE, scope)?;
            }
            ExprKind::Subquery(sub) => {
                if let SubqueryKind::Quantified { tests, .. } = &mut sub.kind {
                    for test in tests {
                        self.convert_in_place(test, columns, scope)?;
                    }
                }
                let empty = Rel { kind: RelKind::Values(Vec::new()), schema: Arc::from([]) };
                let rel = std::mem::replace(&mut sub.plan, empty);
                let schema = rel.schema.clone();
                let plan = self.build(rel, Some(&Scope { columns, up: scope }))?;
                let plan = super::push::optimize(self, plan)?;
                let free = self.free(&plan).into_iter().collect();
                let (volatile, reads_work) = (self.volatile_rel(&plan), self.reads_work(&plan));
                self.subs.push(Sub { plan, free, volatile, reads_work });
                sub.plan = Rel { kind: RelKind::CteScan { id: self.subs.len() - 1 }, schema };
            }
            _ => {
                let mut result = Ok(());
                children_mut(e, &mut |child| {
                    if result.is_ok() {
                        result = self.convert_in_place(child, columns, scope);
                    }
                });
                return result;
            }
        }
        Ok(())
    }

    fn convert_keys(
        &mut self,
        keys: Vec<SortKey>,
        columns: &[ColId],
        scope: Option<&Scope<'_>>,
    ) -> Result<Vec<SortKey>> {
        keys.into_iter().map(|k| Ok(SortKey { expr: self.convert(k.expr, columns, scope)?, ..k })).collect()
    }

    fn convert_agg(&mut self, mut call: AggCall, columns: &[ColId], scope: Option<&Scope<'_>>) -> Result<AggCall> {
        call.args = call.args.into_iter().map(|e| self.convert(e, columns, scope)).collect::<Result<_>>()?;
        call.order_by = self.convert_keys(call.order_by, columns, scope)?;
        call.filter = call.filter.map(|e| self.convert(e, columns, scope)).transpose()?;
        if let Some(direct) = call.func.ordered_set
            && call.args.len() == direct
        {
            // WITHIN GROUP: the sorted values are arguments too.
            call.args.extend(call.order_by.iter().map(|k| k.expr.clone()));
        }
        Ok(call)
    }

    fn convert_window(
        &mut self,
        mut call: WindowCall,
        columns: &[ColId],
        scope: Option<&Scope<'_>>,
    ) -> Result<WindowCall> {
        if let WindowFunc::Aggregate(agg) = call.func {
            call.func = WindowFunc::Aggregate(self.convert_agg(agg, columns, scope)?);
        }
        call.args = call.args.into_iter().map(|e| self.convert(e, columns, scope)).collect::<Result<_>>()?;
        call.partition_by =
            call.partition_by.into_iter().map(|e| self.convert(e, columns, scope)).collect::<Result<_>>()?;
        call.order_by = self.convert_keys(call.order_by, columns, scope)?;
        for bound in [&mut call.frame.start, &mut call.frame.end] {
            if let FrameBound::Preceding(o) | FrameBound::Following(o) = bound {
                o.value = self.convert(o.value.clone(), columns, scope)?;
                for edge in [&mut o.minus, &mut o.plus].into_iter().flatten() {
                    self.convert_in_place(edge, FIRST_SCOPE, scope)?;
                }
            }
        }
        Ok(call)
    }
}

fn is_whole(inputs: &[Lp], cols: &[ColId]) -> bool {
    inputs.iter().all(|i| i.cols.len() == cols.len())
}

fn shape() -> SqlError {
    SqlError::internal("the plan refers to a column that does not exist")
}

/// How often each CTE is read in a relation, subqueries included.
pub(crate) fn count_reads(rel: &Rel, count: &mut dyn FnMut(usize)) {
    if let RelKind::CteScan { id } = rel.kind {
        count(id);
    }
    rel_exprs(rel, &mut |e| count_in_expr(e, count));
    // These are compiled by whoever carries out the change or makes a row again, so what they read must be kept: more than one reader.
    let mut count_twice = |id| (0..2).for_each(|_| count(id));
    match &rel.kind {
        RelKind::Dml(dml) => {
            dml_exprs(dml, &mut |e| count_in_expr(e, &mut count_twice));
            if let DmlKind::Update { source, .. } | DmlKind::Delete { source, .. } = &dml.kind {
                rechecked(source, &mut |e| count_in_expr(e, &mut count_twice));
            }
        }
        RelKind::LockRows { locks, .. } => count_in_expr(&locks.recheck, &mut count_twice),
        _ => {}
    }
    rel_inputs(rel, &mut |input| count_reads(input, count));
}

/// The expressions of a change's source that are evaluated again over a row that changed.
fn rechecked<'r>(source: &'r Rel, f: &mut dyn FnMut(&'r Expr)) {
    let mut below = source;
    if let RelKind::Project { input, exprs } = &below.kind {
        exprs.iter().for_each(&mut *f);
        below = input;
    }
    if let RelKind::Filter { predicate, .. } = &below.kind {
        f(predicate);
    }
}

/// Calls `f` on every relation in an expression's subqueries.
pub(crate) fn each_rel<'r>(e: &'r Expr, f: &mut dyn FnMut(&'r Rel)) {
    if let ExprKind::Subquery(sub) = &e.kind {
        each_rel_of(&sub.plan, f);
    }
    children(e, &mut |child| each_rel(child, f));
}

/// Whether a statement locks rows it reads: in what mode the first of them.
pub(crate) fn locks_rows(rel: &Rel) -> Option<RowMode> {
    let mut first = None;
    each_rel_of(rel, &mut |rel| {
        if let RelKind::LockRows { locks, .. } = &rel.kind {
            first = first.or(locks.locks.first().map(|lock| lock.mode));
        }
    });
    first
}

/// Calls `f` on a relation and every one in it, those in subqueries of its expressions too.
pub(crate) fn each_rel_of<'r>(rel: &'r Rel, f: &mut dyn FnMut(&'r Rel)) {
    f(rel);
    rel_exprs(rel, &mut |e| each_rel(e, f));
    if let RelKind::Dml(dml) = &rel.kind {
        dml_exprs(dml, &mut |e| each_rel(e, f));
    }
    rel_inputs(rel, &mut |input| each_rel_of(input, f));
}

fn count_in_expr(e: &Expr, count: &mut dyn FnMut(usize)) {
    if let ExprKind::Subquery(sub) = &e.kind {
        count_reads(&sub.plan, count);
    }
    children(e, &mut |child| count_in_expr(child, count));
}

fn contains_dml(rel: &Rel) -> bool {
    let mut found = matches!(rel.kind, RelKind::Dml(_));
    rel_inputs(rel, &mut |input| found = found || contains_dml(input));
    found
}

fn rel_inputs<'r>(rel: &'r Rel, f: &mut dyn FnMut(&'r Rel)) {
    match &rel.kind {
        RelKind::Values(_)
        | RelKind::Scan { .. }
        | RelKind::Virtual { .. }
        | RelKind::Function { .. }
        | RelKind::CteScan { .. } => {}
        RelKind::Filter { input, .. }
        | RelKind::Project { input, .. }
        | RelKind::ProjectSet { input, .. }
        | RelKind::Aggregate { input, .. }
        | RelKind::Window { input, .. }
        | RelKind::Sort { input, .. }
        | RelKind::LockRows { input, .. }
        | RelKind::Limit { input, .. }
        | RelKind::Distinct { input, .. } => f(input),
        RelKind::Join { left, right, .. } | RelKind::SetOp { left, right, .. } => {
            f(left);
            f(right);
        }
        RelKind::With { ctes, body } => {
            for cte in ctes {
                f(&cte.definition);
                cte.recursive.iter().for_each(|(term, _)| f(term));
            }
            f(body);
        }
        RelKind::Dml(dml) => match &dml.kind {
            DmlKind::Insert { source, .. } | DmlKind::Update { source, .. } | DmlKind::Delete { source, .. } => {
                f(source)
            }
        },
    }
}

fn rel_exprs<'r>(rel: &'r Rel, f: &mut dyn FnMut(&'r Expr)) {
    match &rel.kind {
        RelKind::Values(rows) => rows.iter().flatten().for_each(f),
        RelKind::Virtual { args, .. } => args.iter().for_each(f),
        RelKind::Function { calls, .. } => calls.iter().for_each(f),
        RelKind::Filter { predicate, .. } => f(predicate),
        RelKind::Project { exprs, .. } | RelKind::ProjectSet { exprs, .. } => exprs.iter().for_each(f),
        RelKind::Join { on, .. } => on.iter().for_each(f),
        RelKind::Aggregate { keys, aggs, .. } => {
            keys.iter().for_each(&mut *f);
            aggs.iter().for_each(|call| super::logical::agg_exprs(call, f));
        }
        RelKind::Window { calls, .. } => calls.iter().for_each(|call| super::logical::window_exprs(call, f)),
        RelKind::Sort { keys, .. } => keys.iter().for_each(|k| f(&k.expr)),
        RelKind::Limit { limit, offset, with_ties, .. } => {
            limit.iter().chain(offset).for_each(&mut *f);
            with_ties.iter().flatten().for_each(|k| f(&k.expr));
        }
        RelKind::Distinct { on, .. } => on.iter().flatten().for_each(f),
        RelKind::Dml(_)
        | RelKind::Scan { .. }
        | RelKind::LockRows { .. }
        | RelKind::SetOp { .. }
        | RelKind::With { .. }
        | RelKind::CteScan { .. } => {}
    }
}

fn dml_exprs<'r>(dml: &'r crate::ir::Dml, f: &mut dyn FnMut(&'r Expr)) {
    dml.returning.iter().flatten().for_each(&mut *f);
    match &dml.kind {
        DmlKind::Insert { defaults, on_conflict, .. } => {
            defaults.iter().flatten().for_each(&mut *f);
            if let Some((assignments, condition)) = on_conflict.as_ref().and_then(|c| c.update.as_ref()) {
                assignments.iter().for_each(|(_, e)| f(e));
                condition.iter().for_each(f);
            }
        }
        DmlKind::Update { assignments, .. } => assignments.iter().for_each(|(_, e)| f(e)),
        DmlKind::Delete { .. } => {}
    }
}

/// The greatest of what `f` says of the expressions in a relation, each standing `depth` queries inside the row asked about.
pub(crate) fn widest(rel: &Rel, depth: usize, f: &mut dyn FnMut(&Expr, usize) -> usize) -> usize {
    let mut width = 0;
    rel_exprs(rel, &mut |e| width = width.max(f(e, depth)));
    if let RelKind::Join { left, right, lateral: true, .. } = &rel.kind {
        // The right side stands one row further in.
        return width.max(widest(left, depth, f)).max(widest(right, depth + 1, f));
    }
    let mut inputs = Vec::new();
    rel_inputs(rel, &mut |input| inputs.push(input));
    inputs.into_iter().fold(width, |width, input| width.max(widest(input, depth, f)))
}
