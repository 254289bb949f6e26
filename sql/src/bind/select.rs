//! SELECT: from its clauses to operators.
//!
//! ```text
//! FROM -> WHERE -> [Aggregate -> HAVING] -> [Window] -> Project: select list, then what ORDER BY and DISTINCT ON need besides ("junk")
//!      -> [DISTINCT] -> [Sort] -> [Distinct on] -> [Limit] -> [Project: junk dropped]
//! ```
//!
//! All clauses are bound over the FROM row first; then what stands above an operator is rewritten to that operator's row, in the order above.

use std::sync::Arc;

use super::binder::*;
use super::from::FromOut;
use super::function::sort_key;
use super::group::{Grouping, aggregate};
use super::label::label;
use super::locking::{LockScope, lock_rows};
use super::operator::check_equality;
use super::query::{has_set, limit, position, sort};
use super::walk::{for_each_child, same};
use super::window::add_windows;
use crate::error::{Result, state};
use crate::ir::*;
use crate::parse::ast::{self, Pos};

/// An entry of the select list.
pub(super) struct Target {
    pub name: Arc<str>,
    pub val: Val,
    /// Table and attribute number it is a plain column of, or zeros.
    pub origin: (u32, i16),
}

/// A sort key before the operators are made: an output column by index (junk behind the list), and how.
struct OrderKey<'q> {
    column: usize,
    written: &'q ast::OrderBy,
}

/// What the clauses of a SELECT were bound to.
struct Parts<'q> {
    targets: Vec<Target>,
    junk: Vec<Val>,
    filter: Option<Expr>,
    having: Option<Expr>,
    grouping: Option<Grouping>,
    order: Vec<OrderKey<'q>>,
    distinct_on: Vec<usize>,
    limits: (Option<Expr>, Option<Expr>),
}

impl Binder<'_> {
    /// SELECT with the ORDER BY and LIMIT of its query.
    pub fn select(&mut self, s: &ast::Select, q: &ast::Query, resolve: bool) -> Result<QueryOut> {
        if let Some(into) = &s.into {
            return error(state::SYNTAX_ERROR, into.pos, "SELECT ... INTO is not allowed here");
        }
        self.locks = self.lock_scope(s, q)?;
        let FromOut { rel, items } = self.from_clause(&s.from)?;
        self.check_locks()?;
        let locks = self.locks.take();
        let (parts, level) =
            self.in_level(Level::new(items, Clause::Select), |b| b.select_parts(s, q, &rel, resolve).map(Box::new))?;
        if let Some(locks) = &locks {
            locks.check_level(&level)?;
        }
        let locks = locks.filter(LockScope::locks_anything);
        self.select_operators(*parts, level, rel, s, q, locks)
    }

    fn select_parts<'q>(
        &mut self,
        s: &'q ast::Select,
        q: &'q ast::Query,
        from: &Rel,
        resolve: bool,
    ) -> Result<Parts<'q>> {
        self.window_clause(&s.windows)?;
        let targets = self.targets(&s.targets, from, resolve)?;
        let mut parts = Parts {
            targets,
            junk: vec![],
            filter: None,
            having: None,
            grouping: None,
            order: vec![],
            distinct_on: vec![],
            limits: (None, None),
        };
        parts.filter = self.condition(s.filter.as_ref(), Clause::Where, "WHERE")?;
        parts.having = self.condition(s.having.as_ref(), Clause::Having, "HAVING")?;
        for key in &q.order_by {
            let column = self.output_entry(&key.expr, Clause::OrderBy, "ORDER BY", &mut parts)?;
            // Of two equal keys the second decides nothing.
            if !parts.order.iter().any(|k| k.column == column) {
                parts.order.push(OrderKey { column, written: key });
            }
        }
        if !s.group_by.is_empty() {
            parts.grouping = Some(self.group_by(&s.group_by, s.group_distinct, &parts.targets)?);
        }
        if let ast::Distinct::On(exprs) = &s.distinct {
            for e in exprs {
                let column = self.output_entry(e, Clause::DistinctOn, "DISTINCT ON", &mut parts)?;
                if !parts.distinct_on.contains(&column) {
                    parts.distinct_on.push(column);
                }
            }
        }
        parts.limits = self.limit_exprs(q)?;
        let aggregated = !self.level().aggs.is_empty() || !self.level().groupings.is_empty() || parts.having.is_some();
        if parts.grouping.is_none() && aggregated {
            parts.grouping = Some(Grouping { keys: vec![], sets: vec![vec![]] });
        }
        Ok(parts)
    }

    fn condition(&mut self, e: Option<&ast::Expr>, clause: Clause, what: &str) -> Result<Option<Expr>> {
        let Some(e) = e else { return Ok(None) };
        let val = self.in_clause(clause, |b| b.expr(e))?;
        self.boolean(val, what).map(Some)
    }

    /// A select list or RETURNING, stars expanded.
    pub fn targets(&mut self, written: &[ast::Target], from: &Rel, resolve: bool) -> Result<Vec<Target>> {
        let mut targets = Vec::with_capacity(written.len());
        for target in written {
            check_targets(targets.len())?;
            let pos = target.expr.pos;
            match &target.expr.kind {
                ast::ExprKind::Star(names) => {
                    for (name, val) in self.expand_star(names, pos)? {
                        targets.push(self.target(name, val, from, resolve)?);
                    }
                }
                ast::ExprKind::FieldStar(input) => {
                    for (name, val) in self.field_star(input, pos)? {
                        targets.push(self.target(name, val, from, resolve)?);
                    }
                }
                _ => {
                    let val = self.expr(&target.expr)?;
                    let name = match (&target.alias, &target.expr.kind, &val.e.kind) {
                        (Some(alias), _, _) => Arc::from(alias.as_str()),
                        (None, ast::ExprKind::ScalarQuery(_), ExprKind::Subquery(sub)) => {
                            sub.plan.schema[0].name.clone()
                        }
                        _ => Arc::from(label(&target.expr)),
                    };
                    if target.alias.is_none() {
                        self.note_label(target, &name);
                    }
                    targets.push(self.target(name, val, from, resolve)?);
                }
            }
        }
        check_targets(targets.len())?;
        Ok(targets)
    }

    fn field_star(&mut self, input: &ast::Expr, pos: Pos) -> Result<Vec<(Arc<str>, Val)>> {
        if let ast::ExprKind::Column(names) = &input.kind
            && let [table] = &names[..]
            && self.find_item(None, &table.text, pos)?.is_some()
        {
            return self.expand_star(names, pos);
        }
        let input = self.expr(input)?;
        self.expand_fields(input, pos)
    }

    fn target(&mut self, name: Arc<str>, val: Val, from: &Rel, resolve: bool) -> Result<Target> {
        let val = if resolve { self.resolve_unknown(val)? } else { val };
        let origin = match val.e.kind {
            ExprKind::Column(i) if i < from.schema.len() => (from.schema[i].table_oid, from.schema[i].attnum),
            _ => (0, 0),
        };
        Ok(Target { name, val, origin })
    }

    /// The output column an entry of ORDER BY or DISTINCT ON means, made if it is not in the list.
    fn output_entry(&mut self, e: &ast::Expr, clause: Clause, what: &str, parts: &mut Parts<'_>) -> Result<usize> {
        if let Some(index) = output_name(e, &parts.targets, what)? {
            return Ok(index);
        }
        let val = self.in_clause(clause, |b| b.expr(e))?;
        let val = self.resolve_unknown(val)?;
        let in_list = parts.targets.iter().map(|t| &t.val).chain(&parts.junk).position(|v| same(&v.e, &val.e));
        if let Some(index) = in_list {
            return Ok(index);
        }
        parts.junk.push(val);
        let entries = parts.targets.len() + parts.junk.len();
        check_targets(entries)?;
        Ok(entries - 1)
    }

    fn select_operators(
        &mut self,
        parts: Parts<'_>,
        mut level: Level,
        from: Rel,
        s: &ast::Select,
        q: &ast::Query,
        locks: Option<LockScope>,
    ) -> Result<QueryOut> {
        let Parts { targets, junk, filter, having, grouping, order, distinct_on, limits } = parts;
        let visible = targets.len();
        let mut fields: Vec<Option<Fields>> = targets.iter().map(|t| t.val.fields.clone()).collect();
        let mut schema: Vec<Field> = targets
            .iter()
            .map(|t| Field { name: t.name.clone(), ty: t.val.e.ty, table_oid: t.origin.0, attnum: t.origin.1 })
            .collect();
        schema.extend(junk.iter().map(|j| field("?column?", j.e.ty)));
        let positions: Vec<Pos> = targets.iter().map(|t| t.val.pos).chain(junk.iter().map(|j| j.pos)).collect();
        let mut outputs: Vec<Expr> =
            targets.into_iter().map(|t| t.val.e).chain(junk.into_iter().map(|j| j.e)).collect();

        let locks = locks.map(|l| l.carry(&from, filter.as_ref(), &mut outputs, &mut schema)).transpose()?;
        let mut rel = from;
        if let Some(predicate) = filter {
            rel = super::binder::filter(rel, predicate);
        }
        if let Some(grouping) = grouping {
            rel = aggregate(self, grouping, &mut level, rel, &mut outputs, &positions, having)?;
        } else {
            rel = add_windows(&mut level, rel, &mut outputs, &mut |_| Ok(()))?;
        }
        rel = project_sets(rel, outputs, schema.clone().into());

        let junk_count = schema.len() - visible;
        if matches!(s.distinct, ast::Distinct::All) {
            schema.iter().zip(&positions).try_for_each(|(f, pos)| check_equality(f.ty.ty, *pos))?;
            if junk_count > 0 {
                let pos = order.iter().find(|k| k.column >= visible).map_or(q.pos, |k| k.written.expr.pos);
                return error(
                    state::INVALID_COLUMN_REFERENCE,
                    pos,
                    "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                );
            }
            rel = distinct(rel, None);
        }
        let column = |i: usize| Expr::column(i, schema[i].ty);
        let mut keys: Vec<SortKey> =
            order.iter().map(|k| sort_key(column(k.column), k.written)).collect::<Result<_>>()?;
        if !distinct_on.is_empty() {
            distinct_on.iter().try_for_each(|on| check_equality(schema[*on].ty.ty, positions[*on]))?;
            check_distinct_on(&order, &distinct_on, positions[distinct_on[0]])?;
            for on in distinct_on.iter().filter(|on| !order.iter().any(|k| k.column == **on)) {
                keys.push(SortKey { expr: column(*on), desc: false, nulls_first: false });
            }
        }
        if !keys.is_empty() {
            rel = sort(rel, keys.clone());
        }
        if !distinct_on.is_empty() {
            rel = distinct(rel, Some(distinct_on.iter().map(|on| column(*on)).collect()));
        }
        if let Some(locks) = locks {
            rel = lock_rows(rel, locks);
        }
        rel = limit(rel, limits, q.with_ties.then_some(keys));
        if junk_count > 0 {
            schema.truncate(visible);
            let exprs = columns_of(&schema);
            rel = project(rel, exprs, schema.into());
        }
        fields.truncate(visible);
        let mut positions = positions;
        positions.truncate(visible);
        Ok(QueryOut { rel, fields, positions })
    }
}

/// The entry of the select list that a bare name or a position means: names of output columns, as SQL-92 had it.
pub(super) fn output_name(e: &ast::Expr, targets: &[Target], what: &str) -> Result<Option<usize>> {
    match &e.kind {
        ast::ExprKind::Number(n) => position(n, targets.len(), what, e.pos).map(Some),
        ast::ExprKind::String(_) | ast::ExprKind::Null | ast::ExprKind::Bool(_) | ast::ExprKind::BitString(_) => {
            error(state::SYNTAX_ERROR, e.pos, format!("non-integer constant in {what}"))
        }
        ast::ExprKind::Column(names) if names.len() == 1 => {
            let mut found: Option<usize> = None;
            for (i, target) in targets.iter().enumerate().filter(|(_, t)| *t.name == names[0].text) {
                match found {
                    Some(first) if !same(&targets[first].val.e, &target.val.e) => {
                        return error(
                            state::AMBIGUOUS_COLUMN,
                            e.pos,
                            format!("{what} \"{}\" is ambiguous", names[0].text),
                        );
                    }
                    Some(_) => {}
                    None => found = Some(i),
                }
            }
            Ok(found)
        }
        _ => Ok(None),
    }
}

/// DISTINCT ON keeps the first row of each group, so ORDER BY must begin with its expressions.
fn check_distinct_on(order: &[OrderKey<'_>], on: &[usize], pos: Pos) -> Result<()> {
    let leading = order.iter().take_while(|k| on.contains(&k.column)).count();
    let covered = on.iter().all(|c| order[..leading].iter().any(|k| k.column == *c));
    match order.get(leading) {
        Some(_) if !covered => error(
            state::INVALID_COLUMN_REFERENCE,
            pos,
            "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
        ),
        _ => Ok(()),
    }
}

fn distinct(input: Rel, on: Option<Vec<Expr>>) -> Rel {
    let schema = input.schema.clone();
    Rel { kind: RelKind::Distinct { input: Box::new(input), on }, schema }
}

/// Computes the outputs. Set-returning calls inside larger expressions are run in an operator below, side by side with those at the top.
pub(super) fn project_sets(input: Rel, mut outputs: Vec<Expr>, schema: Arc<[Field]>) -> Rel {
    let mut rel = input;
    loop {
        let nested = outputs.iter_mut().any(|e| match &mut e.kind {
            ExprKind::SetCall { args, .. } => args.iter_mut().any(has_set),
            _ => has_set(e),
        });
        if !nested {
            break;
        }
        let width = rel.schema.len();
        let mut calls: Vec<Expr> = Vec::new();
        outputs.iter_mut().for_each(|e| take_innermost_sets(e, width, &mut calls));
        let below = rel.schema.iter().cloned().chain(calls.iter().map(|c| field("?column?", c.ty))).collect();
        let exprs = columns_of(&rel.schema).into_iter().chain(calls).collect();
        rel = Rel { kind: RelKind::ProjectSet { input: Box::new(rel), exprs }, schema: below };
    }
    if outputs.iter().any(|e| matches!(e.kind, ExprKind::SetCall { .. })) {
        return Rel { kind: RelKind::ProjectSet { input: Box::new(rel), exprs: outputs }, schema };
    }
    project(rel, outputs, schema)
}

/// Replaces every set-returning call that has none in its arguments by a column behind the row.
fn take_innermost_sets(e: &mut Expr, width: usize, calls: &mut Vec<Expr>) {
    let innermost = match &mut e.kind {
        ExprKind::SetCall { args, .. } => !args.iter_mut().any(has_set),
        _ => false,
    };
    if innermost {
        let ty = e.ty;
        calls.push(std::mem::replace(e, Expr::column(width + calls.len(), ty)));
        return;
    }
    let _ = for_each_child(e, &mut |child| {
        take_innermost_sets(child, width, calls);
        Ok(())
    });
}
