//! Which join is used.
//!
//! An equality between both sides makes a hash join of the smaller one. If the inner side is a table with a key on the
//! joined columns and the outer side is small (or only a few rows are read), each outer row looks its partners up instead.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::{Delivered, Path, Want};
use super::build::Scope;
use super::compare::comparison;
use super::logical::{ColId, Lp, Op, Planner};
use super::lower::{Ask, Low};
use super::node::{HashJoinNode, HashKey, JoinType, LoopNode, NodeKind};
use crate::error::Result;
use crate::exec::code::CompareOp;
use crate::ir::{Expr, ExprKind};
use crate::types::Type;

/// An equality between the sides of a join.
struct Equality {
    /// Place in the join's conditions.
    at: usize,
    left: Expr,
    right: Expr,
    ty: Type,
}

/// A way to look up the inner rows of a join.
struct LookUp {
    cost: f64,
    filters: Vec<Expr>,
    path: Path,
    /// The left side is the inner one.
    swapped: bool,
}

impl Planner<'_> {
    #[allow(clippy::too_many_arguments)] // the parts of a join and its surroundings
    pub(crate) fn lower_join(
        &mut self,
        kind: JoinType,
        left: &Lp,
        right: &Lp,
        on: &[Expr],
        lateral: bool,
        rows: f64,
        up: Option<&Scope<'_>>,
        ask: &Ask,
    ) -> Result<Low> {
        if lateral {
            let l = self.lower(left, up, &self.ask_of_outer(left, ask, rows))?;
            let r = self.lower(right, Some(&Scope { columns: &l.layout, up }), &Ask::default())?;
            return self.nested_loop(kind, l, r, on, true, rows, up);
        }
        let equalities = self.equalities(left, right, on);
        let (l_rows, r_rows) = (self.rows(left), self.rows(right));
        let (l_cost, r_cost) = (self.cost(left), self.cost(right));
        let part = ask.want.rows.map_or(1.0, |n| (n / rows.max(1.0)).min(1.0));
        let hash_cost = l_cost + r_cost + l_rows + r_rows;
        let loop_cost = l_cost + r_cost + l_rows * r_rows;
        let best_other = if equalities.is_empty() { loop_cost } else { hash_cost };
        if let Some(look_up) = self.best_look_up(kind, left, right, on, part)
            && look_up.cost < best_other
        {
            let (outer, inner) = if look_up.swapped { (right, left) } else { (left, right) };
            let Op::Scan(scan) = &inner.op else { unreachable!("only tables are looked up in") };
            let l = self.lower(outer, up, &self.ask_of_outer(outer, ask, rows))?;
            let r = self.lower_path(
                scan,
                look_up.filters,
                &inner.cols,
                Some(&Scope { columns: &l.layout, up }),
                look_up.path,
            )?;
            return self.nested_loop(kind, l, r, &[], true, rows, up);
        }
        if let Some((distinct, cost)) = self.distinct_partners(kind, left, right, on, &equalities)
            && cost < best_other
        {
            return self.lower_join(JoinType::Inner, &distinct, left, on, false, rows, up, ask);
        }
        if equalities.is_empty() {
            let l = self.lower(left, up, &Ask::default())?;
            let r = self.lower(right, up, &Ask::default())?;
            return self.nested_loop(kind, l, r, on, false, rows, up);
        }
        let l = self.lower(left, up, &Ask::default())?;
        let r = self.lower(right, up, &Ask::default())?;
        self.hash_join(kind, l, r, on, equalities, rows, up)
    }

    /// For a semi join by nothing but equalities with columns of the right side: those columns' different values, to look left rows up by, and
    /// what that costs. Each left row then has at most one partner among them.
    fn distinct_partners(
        &self,
        kind: JoinType,
        left: &Lp,
        right: &Lp,
        on: &[Expr],
        equalities: &[Equality],
    ) -> Option<(Lp, f64)> {
        if kind != JoinType::Semi || equalities.is_empty() || equalities.len() != on.len() {
            return None;
        }
        let mut cols = Vec::with_capacity(equalities.len());
        for e in equalities {
            let id = super::expr::as_column(&e.right)?;
            if !cols.contains(&id) {
                cols.push(id);
            }
        }
        let input = Lp { op: Op::Project { input: Box::new(right.clone()), exprs: Vec::new() }, cols: cols.clone() };
        let distinct = Lp { op: Op::Distinct { input: Box::new(input), on: None }, cols };
        let look_up = self.look_up(&distinct, left, on, 1.0, true)?;
        Some((distinct, look_up.cost))
    }

    /// What is asked of the outer side of a loop, whose order is the join's.
    fn ask_of_outer(&self, outer: &Lp, ask: &Ask, rows: f64) -> Ask {
        let cols = outer.col_set();
        let passes = ask.want.order.iter().all(|k| cols.contains(&k.col));
        let part = ask.want.rows.map(|n| (n / rows.max(1.0)).min(1.0));
        Ask {
            want: Want {
                order: if passes { ask.want.order.clone() } else { Vec::new() },
                rows: part.filter(|_| passes).map(|p| (self.rows(outer) * p).max(1.0)),
            },
            count: None,
        }
    }

    /// The cost of reading a relation, by its plain scans and the rows that pass through.
    pub(crate) fn cost(&self, lp: &Lp) -> f64 {
        if let Op::Scan(scan) = &lp.op {
            return self.choose_path(scan, &scan.filter, &lp.cols, &Want::default()).cost;
        }
        let known = match &lp.op {
            Op::Join { guess, .. } => Some(&guess.cost),
            _ => None,
        };
        if let Some(cost) = known.and_then(Cell::get) {
            return cost;
        }
        let mut cost = self.rows(lp) * 0.2;
        lp.op.inputs(&mut |input| cost += self.cost(input));
        if let Some(known) = known {
            known.set(Some(cost));
        }
        cost
    }

    fn best_look_up(&self, kind: JoinType, left: &Lp, right: &Lp, on: &[Expr], part: f64) -> Option<LookUp> {
        if on.iter().any(|p| self.volatile(p)) {
            return None;
        }
        let plain = match kind {
            JoinType::Inner | JoinType::Left | JoinType::Semi | JoinType::Anti => {
                self.look_up(left, right, on, part, false)
            }
            JoinType::Right | JoinType::Full => None,
        };
        let swapped = if kind == JoinType::Inner { self.look_up(right, left, on, part, true) } else { None };
        match (plain, swapped) {
            (Some(a), Some(b)) => Some(if b.cost < a.cost { b } else { a }),
            (a, b) => a.or(b),
        }
    }

    fn look_up(&self, outer: &Lp, inner: &Lp, on: &[Expr], part: f64, swapped: bool) -> Option<LookUp> {
        let Op::Scan(scan) = &inner.op else { return None };
        let own = scan.filter.len();
        let filters: Vec<Expr> = scan.filter.iter().chain(on).cloned().collect();
        let path = self.choose_path(scan, &filters, &inner.cols, &Want::default());
        // A key whose range depends on the outer row: else it is no look-up but a scan for each.
        if path.equals.is_empty() || !path.conditions.iter().any(|c| *c >= own) {
            return None;
        }
        let cost = (self.cost(outer) + self.rows(outer) * path.cost) * part;
        Some(LookUp { cost, filters, path, swapped })
    }

    /// Conditions of a join that a hash table can answer.
    fn equalities(&self, left: &Lp, right: &Lp, on: &[Expr]) -> Vec<Equality> {
        let (left, right) = (left.col_set(), right.col_set());
        let mut found = Vec::new();
        for (at, p) in on.iter().enumerate() {
            let ExprKind::Call { func, args } = &p.kind else { continue };
            let (Some(c), [a, b]) = (comparison(func), args.as_slice()) else { continue };
            if c.op != CompareOp::Eq || !c.hashes() || self.volatile(p) {
                continue;
            }
            let of = |e: &Expr, mine: &BTreeSet<ColId>, other: &BTreeSet<ColId>| {
                let used = self.used(e);
                !used.is_disjoint(mine) && used.is_disjoint(other)
            };
            if of(a, &left, &right) && of(b, &right, &left) {
                found.push(Equality { at, left: a.clone(), right: b.clone(), ty: c.left });
            } else if of(b, &left, &right) && of(a, &right, &left) {
                found.push(Equality { at, left: b.clone(), right: a.clone(), ty: c.left });
            }
        }
        found
    }

    #[allow(clippy::too_many_arguments)] // the parts of a join and its surroundings
    fn hash_join(
        &mut self,
        kind: JoinType,
        l: Low,
        r: Low,
        on: &[Expr],
        equalities: Vec<Equality>,
        rows: f64,
        up: Option<&Scope<'_>>,
    ) -> Result<Low> {
        let mut keys = Vec::with_capacity(equalities.len());
        for e in &equalities {
            let left = self.prog(&e.left, &Scope { columns: &l.layout, up })?;
            let right = self.prog(&e.right, &Scope { columns: &r.layout, up })?;
            keys.push(HashKey { left, right, ty: e.ty });
        }
        let pair: Vec<ColId> = l.layout.iter().chain(&r.layout).copied().collect();
        let rest = on.iter().enumerate().filter(|(i, _)| !equalities.iter().any(|e| e.at == *i)).map(|(_, p)| p);
        let conditions = self.progs(rest, &Scope { columns: &pair, up })?;
        let (le, re) = (l.node.estimate, r.node.estimate);
        let build_left = le.rows * le.row_bytes.max(1) as f64 * 1.5 < re.rows * re.row_bytes.max(1) as f64;
        let layout = if matches!(kind, JoinType::Semi | JoinType::Anti) { l.layout.clone() } else { pair };
        let startup = if build_left { le.total + le.rows } else { re.total + re.rows };
        let total = le.total + re.total + le.rows + re.rows + rows * 0.1;
        let node = HashJoinNode { join: kind, left: l.node, right: r.node, build_left, keys, conditions };
        let node = self.node(NodeKind::HashJoin(Arc::new(node)), &layout, rows, startup, total);
        Ok(Low { node, layout, order: Delivered::default() })
    }

    #[allow(clippy::too_many_arguments)] // the parts of a join and its surroundings
    pub(crate) fn nested_loop(
        &mut self,
        kind: JoinType,
        l: Low,
        r: Low,
        on: &[Expr],
        lateral: bool,
        rows: f64,
        up: Option<&Scope<'_>>,
    ) -> Result<Low> {
        let pair: Vec<ColId> = l.layout.iter().chain(&r.layout).copied().collect();
        let conditions = self.progs(on, &Scope { columns: &pair, up })?;
        let layout = if matches!(kind, JoinType::Semi | JoinType::Anti) { l.layout.clone() } else { pair };
        let (le, re) = (l.node.estimate, r.node.estimate);
        let total = if lateral { le.total + le.rows * re.total } else { le.total + re.total + le.rows * re.rows * 0.1 };
        // Left rows come in their order, right rows within them.
        let order = match kind {
            JoinType::Inner | JoinType::Left => Delivered { unique: false, ..l.order },
            JoinType::Semi | JoinType::Anti => l.order,
            JoinType::Right | JoinType::Full => Delivered::default(),
        };
        let node = LoopNode { join: kind, left: l.node, right: r.node, lateral, conditions };
        let node = self.node(NodeKind::NestedLoop(Arc::new(node)), &layout, rows, le.startup, total);
        Ok(Low { node, layout, order })
    }

    /// The column of `made` that a condition sets equal to a value from outside.
    pub(crate) fn equal_to_value(&self, p: &Expr, made: &BTreeSet<ColId>) -> Option<(ColId, Expr)> {
        let ExprKind::Call { func, args } = &p.kind else { return None };
        let (Some(c), [a, b]) = (comparison(func), args.as_slice()) else { return None };
        if c.op != CompareOp::Eq || c.left != c.right {
            return None;
        }
        let of = |column: &Expr, value: &Expr| {
            let id = super::expr::as_column(column).filter(|id| made.contains(id))?;
            (self.used(value).is_disjoint(made) && !self.volatile(value)).then(|| (id, value.clone()))
        };
        of(a, b).or_else(|| of(b, a))
    }
}
