//! Dropping what nobody reads: columns of scans, computed columns, aggregates, window calls.

use std::collections::BTreeSet;

use super::logical::{ColId, Lp, Op, Planner};
use super::node::JoinType;
use crate::ir::Expr;

type Needed = BTreeSet<ColId>;

impl Planner<'_> {
    /// The relation giving only the needed columns, in the order they had, and computing nothing else. `needed` may name columns of enclosing rows.
    pub(crate) fn prune(&self, lp: Lp, needed: &Needed) -> Lp {
        let Lp { op, mut cols } = lp;
        match op {
            Op::Values { rows } => {
                let keep: Vec<bool> = cols.iter().map(|c| needed.contains(c)).collect();
                let rows = rows
                    .into_iter()
                    .map(|row| row.into_iter().zip(&keep).filter(|(_, k)| **k).map(|(e, _)| e).collect())
                    .collect();
                cols.retain(|c| needed.contains(c));
                Lp { op: Op::Values { rows }, cols }
            }
            Op::Scan(_) | Op::Virtual { .. } => {
                let mut seen = Needed::new();
                cols.retain(|c| needed.contains(c) && seen.insert(*c));
                Lp { op, cols }
            }
            Op::Filter { input, preds } => {
                let input = self.prune(*input, &self.with_uses(needed, preds.iter()));
                retain(&mut cols, needed);
                Lp { op: Op::Filter { input: Box::new(input), preds }, cols }
            }
            Op::Project { input, mut exprs } => {
                exprs.retain(|(id, _)| needed.contains(id));
                let input = self.prune(*input, &self.with_uses(needed, exprs.iter().map(|(_, e)| e)));
                retain(&mut cols, needed);
                if exprs.is_empty() {
                    // Only a choice of columns, which everything above makes for itself.
                    let given = input.col_set();
                    if cols.iter().all(|c| given.contains(c)) {
                        return input;
                    }
                }
                Lp { op: Op::Project { input: Box::new(input), exprs }, cols }
            }
            Op::ProjectSet { input, exprs } => {
                // All are kept: whether a row comes at all depends on every set-returning function.
                let input = self.prune(*input, &self.with_uses(&Needed::new(), exprs.iter().map(|(_, e)| e)));
                Lp { op: Op::ProjectSet { input: Box::new(input), exprs }, cols }
            }
            Op::Join { kind, left, right, on, lateral, .. } => {
                let mut below = self.with_uses(needed, on.iter());
                if lateral {
                    below.extend(self.free(&right));
                }
                let left = self.prune(*left, &below);
                let right = self.prune(*right, &below);
                cols = match kind {
                    JoinType::Semi | JoinType::Anti => left.cols.clone(),
                    _ => left.cols.iter().chain(&right.cols).copied().collect(),
                };
                Lp::join(kind, left, right, on, lateral, cols)
            }
            Op::Aggregate { input, keys, sets, mut aggs, mut grouping } => {
                aggs.retain(|(id, _)| needed.contains(id));
                grouping.retain(|(id, _)| needed.contains(id));
                let mut below = self.with_uses(&Needed::new(), keys.iter().map(|(_, e)| e));
                aggs.iter().for_each(|(_, call)| super::logical::agg_exprs(call, &mut |e| self.uses(e, &mut below)));
                let input = self.prune(*input, &below);
                cols = keys
                    .iter()
                    .map(|(id, _)| *id)
                    .chain(aggs.iter().map(|(id, _)| *id))
                    .chain(grouping.iter().map(|(id, _)| *id))
                    .collect();
                Lp { op: Op::Aggregate { input: Box::new(input), keys, sets, aggs, grouping }, cols }
            }
            Op::Window { input, mut calls } => {
                calls.retain(|(id, _)| needed.contains(id));
                let mut below = needed.clone();
                calls
                    .iter()
                    .for_each(|(_, call)| super::logical::window_exprs(call, &mut |e| self.uses(e, &mut below)));
                let input = self.prune(*input, &below);
                if calls.is_empty() {
                    return input;
                }
                cols = input.cols.iter().copied().chain(calls.iter().map(|(id, _)| *id)).collect();
                Lp { op: Op::Window { input: Box::new(input), calls }, cols }
            }
            Op::Sort { input, keys } => {
                let input = self.prune(*input, &self.with_uses(needed, keys.iter().map(|k| &k.expr)));
                retain(&mut cols, needed);
                Lp { op: Op::Sort { input: Box::new(input), keys }, cols }
            }
            Op::LockRows { input, locks, keys } => {
                let input = self.prune_all(*input, needed);
                let cols = input.cols.clone();
                Lp { op: Op::LockRows { input: Box::new(input), locks, keys }, cols }
            }
            Op::Limit { input, limit, offset, ties } => {
                let input = self.prune(*input, &self.with_uses(needed, ties.iter().flatten().map(|k| &k.expr)));
                retain(&mut cols, needed);
                Lp { op: Op::Limit { input: Box::new(input), limit, offset, ties }, cols }
            }
            Op::Distinct { input, on: Some(on) } => {
                let input = self.prune(*input, &self.with_uses(needed, on.iter()));
                retain(&mut cols, needed);
                Lp { op: Op::Distinct { input: Box::new(input), on: Some(on) }, cols }
            }
            Op::Distinct { input, on: None } => {
                let all = self.with_free(needed, &input);
                Lp { op: Op::Distinct { input: Box::new(self.prune(*input, &all)), on: None }, cols }
            }
            Op::Append { inputs } => {
                let keep: Vec<usize> = (0..cols.len()).filter(|i| needed.contains(&cols[*i])).collect();
                let inputs = inputs
                    .into_iter()
                    .map(|input| {
                        let wanted: Vec<ColId> = keep.iter().map(|i| input.cols[*i]).collect();
                        let mut below = needed.clone();
                        below.extend(&wanted);
                        exactly(self.prune(input, &below), wanted)
                    })
                    .collect();
                Lp { op: Op::Append { inputs }, cols: keep.iter().map(|i| cols[*i]).collect() }
            }
            Op::SetOp { op, all, left, right } => {
                let (l, r) = (self.prune_all(*left, needed), self.prune_all(*right, needed));
                Lp { op: Op::SetOp { op, all, left: Box::new(l), right: Box::new(r) }, cols }
            }
            Op::With { ctes, body } => {
                let ctes = ctes
                    .into_iter()
                    .map(|mut cte| {
                        cte.definition = self.prune_all(cte.definition, needed);
                        cte.recursive = cte.recursive.map(|term| self.prune_all(term, needed));
                        cte
                    })
                    .collect();
                retain(&mut cols, needed);
                let body = exactly(self.prune(*body, needed), cols.clone());
                Lp { op: Op::With { ctes, body: Box::new(body) }, cols }
            }
            Op::Dml { dml, source } => {
                let source = self.prune_all(*source, needed);
                Lp { op: Op::Dml { dml, source: Box::new(source) }, cols }
            }
            op @ (Op::Function { .. } | Op::CteScan { .. } | Op::WorkScan { .. }) => Lp { op, cols },
        }
    }

    /// Prunes below a relation all of whose columns are needed, in their order.
    pub(crate) fn prune_all(&self, lp: Lp, needed: &Needed) -> Lp {
        let cols = lp.cols.clone();
        let all = self.with_free(needed, &lp);
        exactly(self.prune(lp, &all), cols)
    }

    fn with_free(&self, needed: &Needed, lp: &Lp) -> Needed {
        let mut all = needed.clone();
        all.extend(&lp.cols);
        all
    }

    fn with_uses<'e>(&self, needed: &Needed, exprs: impl Iterator<Item = &'e Expr>) -> Needed {
        let mut all = needed.clone();
        exprs.for_each(|e| self.uses(e, &mut all));
        all
    }
}

/// The relation with exactly these columns in this order.
fn exactly(lp: Lp, cols: Vec<ColId>) -> Lp {
    if lp.cols == cols { lp } else { Lp { op: Op::Project { input: Box::new(lp), exprs: Vec::new() }, cols } }
}

fn retain(cols: &mut Vec<ColId>, needed: &Needed) {
    cols.retain(|c| needed.contains(c));
}
