//! Moving conditions to where rows are made.
//!
//! [`Planner::push`] takes a relation and conditions on its rows and returns a relation with them applied, as deep as is right:
//! never below a LIMIT, a set-returning function, a window they do not partition or an aggregate they do not group, and never a volatile one.
//! Inner joins met on the way are handed to [`super::order`] as one cluster.

use std::collections::BTreeSet;

use super::expr::{as_column, is_never, rejects_nulls, substitute};
use super::logical::{ColId, Lp, Op, Planner};
use super::node::JoinType;
use crate::error::{Result, SqlError, state};
use crate::ir::{Expr, ExprKind, SetOp};
use crate::lock::RowMode;

/// Rewrites a relation: conditions pushed, subqueries turned into joins, joins ordered.
pub(crate) fn optimize(planner: &mut Planner<'_>, lp: Lp) -> Result<Lp> {
    planner.push(lp, Vec::new())
}

impl Planner<'_> {
    /// Applies conditions to a relation and rewrites it.
    pub(crate) fn push(&mut self, lp: Lp, mut preds: Vec<Expr>) -> Result<Lp> {
        self.cx.session.check_cancel()?;
        if preds.iter().any(is_never) {
            return Ok(self.nothing(lp));
        }
        let Lp { op, cols } = lp;
        Ok(match op {
            Op::Filter { input, preds: own } => {
                // Volatile conditions stay above, in their place.
                let (stay, mut moved): (Vec<Expr>, Vec<Expr>) = own.into_iter().partition(|p| self.volatile(p));
                if !stay.is_empty() {
                    // What came from above must not be evaluated on rows the volatile condition would have dropped: it may fail on them.
                    let input = self.push_filter(*input, moved)?;
                    return Ok(with_cols(input.filtered(stay).filtered(preds), cols));
                }
                moved.append(&mut preds);
                with_cols(self.push_filter(*input, moved)?, cols)
            }
            Op::Project { input, exprs } => {
                let computed: BTreeSet<ColId> = exprs.iter().map(|(id, _)| *id).collect();
                let movable: BTreeSet<ColId> = exprs
                    .iter()
                    .filter(|(_, e)| !self.volatile(e) && !Self::has_subquery(e))
                    .map(|(id, _)| *id)
                    .collect();
                let (mut down, mut up) = (Vec::new(), Vec::new());
                for mut p in preds {
                    let taken: BTreeSet<ColId> = self.used(&p).intersection(&computed).copied().collect();
                    if taken.is_subset(&movable) && !self.subquery_takes(&p, &computed) {
                        substitute(&mut p, &|id| exprs.iter().find(|(c, _)| *c == id).map(|(_, e)| e.clone()));
                        down.push(super::fold::simplify(p, self.cx));
                    } else {
                        up.push(p);
                    }
                }
                let input = self.push_filter(*input, down)?;
                Lp { op: Op::Project { input: Box::new(input), exprs }, cols }.filtered(up)
            }
            Op::Join { kind, left, right, on, lateral, .. } => {
                return self.push_join(kind, *left, *right, on, lateral, preds, cols);
            }
            Op::Aggregate { input, keys, sets, aggs, grouping } => {
                let plain = sets.len() == 1 && !keys.is_empty();
                let key_cols: BTreeSet<ColId> = keys.iter().map(|(id, _)| *id).collect();
                let made: BTreeSet<ColId> = cols.iter().copied().collect();
                let (mut down, mut up) = (Vec::new(), Vec::new());
                for mut p in preds {
                    let used = self.used(&p);
                    let local: BTreeSet<ColId> = used.intersection(&made).copied().collect();
                    let is_plain_key = |id: &ColId| keys.iter().any(|(k, e)| k == id && as_column(e) == Some(*id));
                    if plain
                        && !local.is_empty()
                        && local.is_subset(&key_cols)
                        && (!Self::has_subquery(&p) || local.iter().all(is_plain_key))
                    {
                        substitute(&mut p, &|id| keys.iter().find(|(k, _)| *k == id).map(|(_, e)| e.clone()));
                        down.push(p);
                    } else {
                        up.push(p);
                    }
                }
                let input = self.push_filter(*input, down)?;
                Lp { op: Op::Aggregate { input: Box::new(input), keys, sets, aggs, grouping }, cols }.filtered(up)
            }
            Op::Window { input, calls } => {
                // A condition on what all windows are partitioned by drops whole partitions.
                let in_all =
                    |id: &ColId| calls.iter().all(|(_, c)| c.partition_by.iter().any(|e| as_column(e) == Some(*id)));
                let inner = input.col_set();
                let made: BTreeSet<ColId> = calls.iter().map(|(id, _)| *id).collect();
                let (down, up): (Vec<_>, Vec<_>) = preds.into_iter().partition(|p| {
                    let used = self.used(p);
                    used.is_disjoint(&made)
                        && used.iter().any(|id| inner.contains(id))
                        && used.iter().filter(|id| inner.contains(id)).all(in_all)
                });
                let input = self.push(*input, down)?;
                Lp { op: Op::Window { input: Box::new(input), calls }, cols }.filtered(up)
            }
            Op::Sort { input, keys } => {
                let input = self.push_filter(*input, preds)?;
                Lp { op: Op::Sort { input: Box::new(input), keys }, cols }
            }
            Op::Distinct { input, on: None } => {
                let input = self.push_filter(*input, preds)?;
                Lp { op: Op::Distinct { input: Box::new(input), on: None }, cols }
            }
            Op::Distinct { input, on: Some(on) } => {
                let keys: BTreeSet<ColId> = on.iter().filter_map(as_column).collect();
                let inner = input.col_set();
                let (down, up): (Vec<_>, Vec<_>) = preds.into_iter().partition(|p| {
                    let local: Vec<ColId> = self.used(p).into_iter().filter(|id| inner.contains(id)).collect();
                    !local.is_empty() && local.iter().all(|id| keys.contains(id))
                });
                let input = self.push(*input, down)?;
                Lp { op: Op::Distinct { input: Box::new(input), on: Some(on) }, cols }.filtered(up)
            }
            Op::Append { inputs } => {
                let made = cols.iter().copied().collect();
                let (down, up): (Vec<_>, Vec<_>) = preds.into_iter().partition(|p| !self.subquery_takes(p, &made));
                let inputs = inputs
                    .into_iter()
                    .map(|input| self.push_by_position(input, &cols, &down))
                    .collect::<Result<_>>()?;
                Lp { op: Op::Append { inputs }, cols }.filtered(up)
            }
            Op::SetOp { op, all, left, right } => {
                debug_assert_ne!(op, SetOp::Union);
                let made = cols.iter().copied().collect();
                let (down, up): (Vec<_>, Vec<_>) = preds.into_iter().partition(|p| !self.subquery_takes(p, &made));
                let (left, right) =
                    (self.push_by_position(*left, &cols, &down)?, self.push_by_position(*right, &cols, &down)?);
                Lp { op: Op::SetOp { op, all, left: Box::new(left), right: Box::new(right) }, cols }.filtered(up)
            }
            Op::Scan(mut scan) => {
                // What is asked of system columns is asked above the scan, which knows a row's columns only.
                let system: BTreeSet<ColId> =
                    scan.row_key.into_iter().chain(scan.system.into_iter().flatten()).collect();
                let (above, mut inside): (Vec<_>, Vec<_>) =
                    preds.into_iter().partition(|p| !system.is_empty() && !self.used(p).is_disjoint(&system));
                scan.filter.append(&mut inside);
                Lp { op: Op::Scan(scan), cols }.filtered(above)
            }
            Op::Virtual { table, args, made, mut filter, alias } => {
                filter.append(&mut preds);
                Lp { op: Op::Virtual { table, args, made, filter, alias }, cols }
            }
            Op::With { ctes, body } => {
                let mut kept = Vec::with_capacity(ctes.len());
                for mut cte in ctes {
                    cte.definition = self.push(cte.definition, Vec::new())?;
                    cte.recursive = cte.recursive.map(|term| self.push(term, Vec::new())).transpose()?;
                    kept.push(cte);
                }
                let body = self.push_filter(*body, preds)?;
                Lp { op: Op::With { ctes: kept, body: Box::new(body) }, cols }
            }
            Op::ProjectSet { input, exprs } => {
                let input = self.push(*input, Vec::new())?;
                Lp { op: Op::ProjectSet { input: Box::new(input), exprs }, cols }.filtered(preds)
            }
            Op::LockRows { input, locks, keys } => {
                // Conditions are asked of what is read, so that no more is locked than need be, and again of what became of it.
                let down = preds.iter().filter(|p| !self.volatile(p) && !has_subquery(p)).cloned().collect();
                let input = self.push_filter(*input, down)?;
                let input = with_cols(input, cols.clone());
                self.check_nullable(&input, &keys)?;
                Lp { op: Op::LockRows { input: Box::new(input), locks, keys }, cols }.filtered(preds)
            }
            Op::Limit { input, limit, offset, ties } => {
                let input = self.push(*input, Vec::new())?;
                Lp { op: Op::Limit { input: Box::new(input), limit, offset, ties }, cols }.filtered(preds)
            }
            Op::Dml { dml, source } => {
                let source = self.push(*source, Vec::new())?;
                Lp { op: Op::Dml { dml, source: Box::new(source) }, cols }.filtered(preds)
            }
            op @ (Op::Values { .. } | Op::Function { .. } | Op::CteScan { .. } | Op::WorkScan { .. }) => {
                Lp { op, cols }.filtered(preds)
            }
        })
    }

    /// [`Planner::push`], with subqueries among the conditions turned into joins where that is right.
    pub(crate) fn push_filter(&mut self, input: Lp, preds: Vec<Expr>) -> Result<Lp> {
        let mut rest = Vec::with_capacity(preds.len());
        let mut joins = Vec::new();
        for p in preds {
            match self.as_join(&p, &input)? {
                Some(join) => joins.push(join),
                None => rest.push(p),
            }
        }
        if joins.is_empty() {
            return self.push(input, rest);
        }
        let cols = input.cols.clone();
        // Plain conditions first, then the joins on what is left; each join's own conditions are pushed by `push_join`.
        let mut lp = input.filtered(rest);
        for (kind, right, on) in joins {
            lp = Lp::join(kind, lp, right, on, false, cols.clone());
        }
        self.push(lp, Vec::new())
    }

    fn push_by_position(&mut self, input: Lp, cols: &[ColId], preds: &[Expr]) -> Result<Lp> {
        let inner = input.cols.clone();
        let mut down = Vec::with_capacity(preds.len());
        for p in preds {
            let mut p = p.clone();
            substitute(&mut p, &|id| cols.iter().position(|c| *c == id).map(|at| self.column_expr(inner[at])));
            down.push(p);
        }
        let lp = self.push_filter(input, down)?;
        Ok(with_cols(lp, inner))
    }

    #[allow(clippy::too_many_arguments)] // the parts of a join and what comes from above
    fn push_join(
        &mut self,
        kind: JoinType,
        left: Lp,
        right: Lp,
        mut on: Vec<Expr>,
        lateral: bool,
        mut preds: Vec<Expr>,
        cols: Vec<ColId>,
    ) -> Result<Lp> {
        let (right, lateral) = match kind {
            JoinType::Inner | JoinType::Left if lateral => self.unlateral(&left, right, &mut on),
            _ => (right, lateral),
        };
        let (left_cols, right_cols) = (left.col_set(), right.col_set());
        let kind = self.strengthen(kind, &preds, &left_cols, &right_cols);
        let touches = |planner: &Self, p: &Expr, cols: &BTreeSet<ColId>| !planner.used(p).is_disjoint(cols);
        match kind {
            JoinType::Inner => {
                preds.append(&mut on);
                let joined = self.order_joins(left, right, lateral, preds)?;
                Ok(with_cols(joined, cols))
            }
            JoinType::Left | JoinType::Right => {
                // `outer` keeps all its rows, `inner` is filled with NULLs.
                let is_left = kind == JoinType::Left;
                let (outer_cols, inner_cols) =
                    if is_left { (&left_cols, &right_cols) } else { (&right_cols, &left_cols) };
                let (mut to_outer, mut above) = (Vec::new(), Vec::new());
                for p in preds {
                    if touches(self, &p, inner_cols) {
                        above.push(p)
                    } else if touches(self, &p, outer_cols) {
                        to_outer.push(p)
                    } else {
                        above.push(p)
                    }
                }
                let (mut to_inner, mut stay) = (Vec::new(), Vec::new());
                for p in on {
                    if is_never(&p)
                        || self.volatile(&p)
                        || touches(self, &p, outer_cols)
                        || !touches(self, &p, inner_cols)
                    {
                        stay.push(p)
                    } else {
                        to_inner.push(p)
                    }
                }
                let (left, right) = if is_left {
                    (self.push_filter(left, to_outer)?, self.push_filter(right, to_inner)?)
                } else {
                    (self.push_filter(left, to_inner)?, self.push_filter(right, to_outer)?)
                };
                Ok(Lp::join(kind, left, right, stay, lateral, cols).filtered(above))
            }
            JoinType::Full => {
                let (left, right) = (self.push(left, Vec::new())?, self.push(right, Vec::new())?);
                Ok(Lp::join(kind, left, right, on, lateral, cols).filtered(preds))
            }
            JoinType::Semi | JoinType::Anti => {
                let (mut to_right, mut stay) = (Vec::new(), Vec::new());
                for p in on {
                    if touches(self, &p, &left_cols) || !touches(self, &p, &right_cols) {
                        stay.push(p)
                    } else {
                        to_right.push(p)
                    }
                }
                let (left, right) = (self.push_filter(left, preds)?, self.push_filter(right, to_right)?);
                Ok(Lp::join(kind, left, right, stay, lateral, cols))
            }
        }
    }

    /// Fails if a row to be locked may be one of NULLs that an outer join made up.
    fn check_nullable(&self, lp: &Lp, keys: &[(ColId, RowMode)]) -> Result<()> {
        if let Op::Join { kind, left, right, .. } = &lp.op {
            let filled: &[&Lp] = match kind {
                JoinType::Left => &[right],
                JoinType::Right => &[left],
                JoinType::Full => &[left, right],
                JoinType::Inner | JoinType::Semi | JoinType::Anti => &[],
            };
            if let Some((_, mode)) = keys.iter().find(|(key, _)| filled.iter().any(|side| side.cols.contains(key))) {
                let clause = crate::bind::clause_name(*mode);
                let message = format!("{clause} cannot be applied to the nullable side of an outer join");
                return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
            }
        }
        match &lp.op {
            Op::Join { .. } | Op::Filter { .. } | Op::Project { .. } | Op::Sort { .. } => {
                let mut result = Ok(());
                lp.op.inputs(&mut |input| {
                    if result.is_ok() {
                        result = self.check_nullable(input, keys);
                    }
                });
                result
            }
            _ => Ok(()),
        }
    }

    /// An outer join above which a condition drops the rows filled with NULLs is a simpler one.
    fn strengthen(
        &self,
        mut kind: JoinType,
        preds: &[Expr],
        left: &BTreeSet<ColId>,
        right: &BTreeSet<ColId>,
    ) -> JoinType {
        let rejects = |cols: &BTreeSet<ColId>| preds.iter().any(|p| rejects_nulls(p, cols));
        if matches!(kind, JoinType::Full) && rejects(left) {
            kind = JoinType::Left;
        }
        if matches!(kind, JoinType::Full) && rejects(right) {
            kind = JoinType::Right;
        }
        match kind {
            JoinType::Left if rejects(right) => JoinType::Inner,
            JoinType::Right if rejects(left) => JoinType::Inner,
            kind => kind,
        }
    }

    /// A relation of the same columns without rows; what changes rows is kept.
    fn nothing(&self, lp: Lp) -> Lp {
        if self.volatile_rel(&lp) {
            let never = Expr::constant(crate::types::Datum::Bool(false), crate::types::Type::BOOL);
            let cols = lp.cols.clone();
            return Lp { op: Op::Filter { input: Box::new(lp), preds: vec![never] }, cols };
        }
        Lp::empty(lp.cols)
    }

    /// A condition that is EXISTS, NOT EXISTS or IN as a join of `input` with the subquery, where that gives exactly the same rows.
    fn as_join(&mut self, p: &Expr, input: &Lp) -> Result<Option<(JoinType, Lp, Vec<Expr>)>> {
        use crate::ir::SubqueryKind;
        let (sub, kind) = match &p.kind {
            ExprKind::Subquery(sub) => (sub, JoinType::Semi),
            ExprKind::Not(inner) => match &inner.kind {
                ExprKind::Subquery(sub) if matches!(sub.kind, SubqueryKind::Exists) => (sub, JoinType::Anti),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let Some(known) = super::expr::handle(sub).and_then(|k| self.subs.get(k)) else { return Ok(None) };
        if known.volatile || known.reads_work {
            return Ok(None);
        }
        let plan = known.plan.clone();
        let outer = input.col_set();
        let mut on = Vec::new();
        let core = match &sub.kind {
            SubqueryKind::Exists => self.uncorrelate(plan, &outer, &mut on, Keep::Nothing),
            SubqueryKind::Quantified { tests, funcs, all: false } => {
                let equal = funcs
                    .iter()
                    .all(|f| super::compare::comparison(f).is_some_and(|c| c.op == crate::exec::code::CompareOp::Eq));
                if !equal || tests.iter().any(|t| self.volatile(t) || Self::has_subquery(t)) {
                    return Ok(None);
                }
                let values = plan.cols.clone();
                let core = self.uncorrelate(plan, &outer, &mut on, Keep::Values);
                for ((test, func), value) in tests.iter().zip(funcs).zip(values) {
                    let args = vec![test.clone(), self.column_expr(value)];
                    on.push(Expr { kind: ExprKind::Call { func, args }, ty: crate::types::Type::BOOL.plain() });
                }
                core
            }
            _ => return Ok(None),
        };
        let Some(core) = core else { return Ok(None) };
        let inner = core.col_set();
        // Without an equality between both sides there is nothing to hash, and evaluating the subquery stops at its first row.
        let equality = on.iter().any(|p| self.equality_between(p, &outer, &inner));
        Ok(equality.then_some((kind, core, on)))
    }

    /// Whether a condition says that something of one side equals something of the other.
    pub(crate) fn equality_between(&self, p: &Expr, left: &BTreeSet<ColId>, right: &BTreeSet<ColId>) -> bool {
        let ExprKind::Call { func, args } = &p.kind else { return false };
        let [a, b] = args.as_slice() else { return false };
        let eq = super::compare::comparison(func).is_some_and(|c| c.op == crate::exec::code::CompareOp::Eq);
        let only = |e: &Expr, mine: &BTreeSet<ColId>, other: &BTreeSet<ColId>| {
            let used = self.used(e);
            !used.is_disjoint(mine) && used.is_disjoint(other)
        };
        eq && ((only(a, left, right) && only(b, right, left)) || (only(b, left, right) && only(a, right, left)))
    }

    /// A lateral right side as a plain one, its conditions on the left row joining the others, if that gives the same rows.
    pub(crate) fn unlateral(&mut self, left: &Lp, right: Lp, on: &mut Vec<Expr>) -> (Lp, bool) {
        if self.volatile_rel(&right) {
            return (right, true);
        }
        let mut taken = Vec::new();
        match self.uncorrelate(right.clone(), &left.col_set(), &mut taken, Keep::Rows) {
            Some(core) => {
                on.append(&mut taken);
                (core, false)
            }
            None => (right, true),
        }
    }

    /// Takes the conditions that refer to `outer` out of a subquery, if they stand at its top and nothing else refers there. Its rows may come in
    /// any order then.
    fn uncorrelate(&mut self, plan: Lp, outer: &BTreeSet<ColId>, on: &mut Vec<Expr>, keep: Keep) -> Option<Lp> {
        let takes = |planner: &Self, lp: &Lp| planner.free(lp).iter().any(|id| outer.contains(id));
        if !takes(self, &plan) {
            return Some(plan);
        }
        let Lp { op, mut cols } = plan;
        match op {
            Op::Distinct { on: None, .. } if keep == Keep::Rows => None,
            Op::Sort { input, .. } | Op::Distinct { input, on: None } => {
                let mut lp = self.uncorrelate(*input, outer, on, keep)?;
                if keep != Keep::Nothing {
                    add_cols(&mut lp, &cols);
                }
                Some(lp)
            }
            Op::Filter { input, preds } => {
                let (out, stay): (Vec<_>, Vec<_>) =
                    preds.into_iter().partition(|p| self.used(p).iter().any(|id| outer.contains(id)));
                if out.iter().any(|p| self.volatile(p)) {
                    return None;
                }
                let inner = self.uncorrelate(*input, outer, on, keep)?;
                let mut lp = inner.filtered(stay);
                self.expose(&mut lp, &out);
                on.extend(out);
                Some(lp)
            }
            Op::Scan(mut scan) => {
                let (out, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut scan.filter)
                    .into_iter()
                    .partition(|p| self.used(p).iter().any(|id| outer.contains(id)));
                if out.iter().any(|p| self.volatile(p)) {
                    return None;
                }
                scan.filter = stay;
                let mut lp = Lp { op: Op::Scan(scan), cols };
                self.expose(&mut lp, &out);
                on.extend(out);
                Some(lp)
            }
            Op::Project { input, exprs } => {
                // They would be computed for rows that the conditions drop, and might fail there.
                if keep != Keep::Nothing && !exprs.iter().all(|(_, e)| cannot_fail(e)) {
                    return None;
                }
                let before = on.len();
                let inner = self.uncorrelate(*input, outer, on, keep.columns())?;
                // The columns the conditions need must come through.
                let made = inner.col_set();
                let mut needed = BTreeSet::new();
                on[before..].iter().for_each(|p| self.uses(p, &mut needed));
                for id in needed {
                    if made.contains(&id) && !cols.contains(&id) {
                        cols.push(id);
                    }
                }
                let lp = Lp { op: Op::Project { input: Box::new(inner), exprs }, cols };
                (!takes(self, &lp)).then_some(lp)
            }
            Op::Join { kind: JoinType::Inner, left, right, on: conditions, lateral: false, .. } => {
                let (out, stay): (Vec<_>, Vec<_>) =
                    conditions.into_iter().partition(|p| self.used(p).iter().any(|id| outer.contains(id)));
                if out.iter().any(|p| self.volatile(p)) {
                    return None;
                }
                let left = self.uncorrelate(*left, outer, on, keep.columns())?;
                let right = self.uncorrelate(*right, outer, on, keep.columns())?;
                let cols = left.cols.iter().chain(&right.cols).copied().collect();
                on.extend(out);
                Some(Lp::join(JoinType::Inner, left, right, stay, false, cols))
            }
            _ => None,
        }
    }

    /// Makes the columns that conditions need come out of a relation that can give them.
    fn expose(&self, lp: &mut Lp, preds: &[Expr]) {
        let mut needed = BTreeSet::new();
        preds.iter().for_each(|p| self.uses(p, &mut needed));
        let needed: Vec<ColId> = needed.into_iter().collect();
        match &lp.op {
            Op::Scan(scan) => {
                let some: Vec<ColId> = needed.into_iter().filter(|id| scan.made.contains(id)).collect();
                add_cols(lp, &some);
            }
            Op::Filter { input, .. } => {
                let some: Vec<ColId> = needed.into_iter().filter(|id| input.cols.contains(id)).collect();
                add_cols(lp, &some);
            }
            _ => {}
        }
    }
}

/// What matters of a subquery that becomes the side of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Whether there is a row.
    Nothing,
    /// Which different rows there are.
    Values,
    /// Each row.
    Rows,
}

impl Keep {
    /// The same for what is below a node that reads columns.
    fn columns(self) -> Keep {
        if self == Keep::Nothing { Keep::Values } else { self }
    }
}

/// Whether an expression has a value for every row.
fn cannot_fail(e: &Expr) -> bool {
    !super::expr::any(e, &mut |e| {
        !matches!(
            e.kind,
            ExprKind::Column(_)
                | ExprKind::Const(_)
                | ExprKind::Param(_)
                | ExprKind::CaseOperand
                | ExprKind::IsNull { .. }
                | ExprKind::IsBool { .. }
                | ExprKind::And(_)
                | ExprKind::Or(_)
                | ExprKind::Not(_)
                | ExprKind::Coalesce(_)
                | ExprKind::Case { .. }
                | ExprKind::Row(_)
        )
    })
}

/// Whether a subquery is part of an expression.
fn has_subquery(e: &Expr) -> bool {
    super::expr::any(e, &mut |e| matches!(e.kind, ExprKind::Subquery(_)))
}

/// Adds columns to those a relation gives; it must be able to.
fn add_cols(lp: &mut Lp, cols: &[ColId]) {
    for id in cols {
        if !lp.cols.contains(id) {
            lp.cols.push(*id);
        }
    }
}

/// The relation with its columns in this order.
pub(crate) fn with_cols(mut lp: Lp, cols: Vec<ColId>) -> Lp {
    if lp.cols == cols {
        return lp;
    }
    match &mut lp.op {
        Op::Scan(_)
        | Op::Virtual { .. }
        | Op::Filter { .. }
        | Op::Join { .. }
        | Op::Sort { .. }
        | Op::Limit { .. }
        | Op::Window { .. }
        | Op::Aggregate { .. }
        | Op::Project { .. } => {
            lp.cols = cols;
            lp
        }
        _ => Lp { op: Op::Project { input: Box::new(lp), exprs: Vec::new() }, cols },
    }
}
