//! The order of inner joins.
//!
//! Neighbouring inner joins are one cluster: relations and conditions between them. The order is grown greedily from the relation
//! with the fewest rows, next always the one that, joined by a condition, gives the fewest. Ties keep the order of FROM, so equal queries
//! get equal plans.

use std::collections::BTreeSet;

use super::logical::{ColId, Lp, Op, Planner};
use super::node::JoinType;
use crate::error::Result;
use crate::ir::Expr;

/// A relation of a cluster.
struct Member {
    lp: Lp,
    cols: BTreeSet<ColId>,
    /// Members whose rows it must see (LATERAL).
    needs: BTreeSet<usize>,
    rows: f64,
}

/// A condition of a cluster and the members it is about.
struct Condition {
    pred: Option<Expr>,
    about: BTreeSet<usize>,
    selectivity: f64,
}

impl Planner<'_> {
    /// Joins two relations (and all that are inner joins below them) under conditions.
    pub(crate) fn order_joins(&mut self, left: Lp, right: Lp, lateral: bool, preds: Vec<Expr>) -> Result<Lp> {
        let (mut rels, mut all) = (Vec::new(), preds);
        self.flatten(left, &mut rels, &mut all);
        if lateral && !self.may_flatten_lateral(&right) {
            rels.push(right)
        } else {
            self.flatten(right, &mut rels, &mut all)
        }
        let sets: Vec<BTreeSet<ColId>> = rels.iter().map(Lp::col_set).collect();
        let mut own: Vec<Vec<Expr>> = rels.iter().map(|_| Vec::new()).collect();
        let (mut between, mut above) = (Vec::new(), Vec::new());
        for pred in all {
            let used = self.used(&pred);
            let about: BTreeSet<usize> = (0..rels.len()).filter(|i| !used.is_disjoint(&sets[*i])).collect();
            match about.first() {
                Some(only) if about.len() == 1 && !self.volatile(&pred) => own[*only].push(pred),
                Some(_) if !self.volatile(&pred) => between.push((pred, about)),
                _ => above.push(pred),
            }
        }
        if above.iter().any(super::expr::is_never) {
            return Ok(Lp::empty(sets.into_iter().flatten().collect()));
        }
        let mut members = Vec::with_capacity(rels.len());
        for ((rel, preds), cols) in rels.into_iter().zip(own).zip(&sets) {
            let free = self.free(&rel);
            let needs = (0..sets.len()).filter(|i| &sets[*i] != cols && !free.is_disjoint(&sets[*i])).collect();
            let lp = self.push_filter(rel, preds)?;
            let rows = self.rows(&lp);
            members.push(Some(Member { lp, cols: cols.clone(), needs, rows }));
        }
        let conditions = between
            .into_iter()
            .map(|(pred, about)| {
                let selectivity =
                    self.join_selectivity(&pred, about.iter().filter_map(|i| members[*i].as_ref()).map(|m| &m.lp));
                Condition { pred: Some(pred), about, selectivity }
            })
            .collect();
        Ok(join_greedily(members, conditions).filtered(above))
    }

    fn flatten(&self, lp: Lp, rels: &mut Vec<Lp>, preds: &mut Vec<Expr>) {
        match lp.op {
            Op::Join { kind: JoinType::Inner, left, right, on, lateral } => {
                self.flatten(*left, rels, preds);
                if lateral && !self.may_flatten_lateral(&right) {
                    rels.push(*right)
                } else {
                    self.flatten(*right, rels, preds)
                }
                preds.extend(on);
            }
            Op::Filter { input, preds: own }
                if matches!(input.op, Op::Join { kind: JoinType::Inner, .. })
                    && !own.iter().any(|p| self.volatile(p)) =>
            {
                self.flatten(*input, rels, preds);
                preds.extend(own);
            }
            Op::Project { input, exprs }
                if exprs.is_empty() && matches!(input.op, Op::Join { kind: JoinType::Inner, .. }) =>
            {
                self.flatten(*input, rels, preds)
            }
            op => rels.push(Lp { op, cols: lp.cols }),
        }
    }

    /// Whether the members of a lateral right side may be joined one by one: yes, dependencies are found for each.
    fn may_flatten_lateral(&self, right: &Lp) -> bool {
        matches!(right.op, Op::Join { kind: JoinType::Inner, .. })
    }
}

fn join_greedily(mut members: Vec<Option<Member>>, mut conditions: Vec<Condition>) -> Lp {
    let first = (0..members.len())
        .filter(|i| members[*i].as_ref().is_some_and(|m| m.needs.is_empty()))
        .min_by(|a, b| rows_of(&members, *a).total_cmp(&rows_of(&members, *b)).then(a.cmp(b)))
        .unwrap_or(0);
    let Some(start) = members[first].take() else { unreachable!("a cluster has members") };
    let (mut lp, mut rows) = (start.lp, start.rows);
    let mut joined = BTreeSet::from([first]);
    while joined.len() < members.len() {
        let mut best: Option<(bool, f64, usize)> = None;
        for (i, member) in members.iter().enumerate() {
            let Some(member) = member else { continue };
            if !member.needs.is_subset(&joined) {
                continue;
            }
            let (mut connected, mut result) = (!member.needs.is_empty(), rows * member.rows);
            for c in conditions.iter().filter(|c| applies(c, &joined, i)) {
                connected = true;
                result *= c.selectivity;
            }
            let better = best.is_none_or(|(was_connected, was_rows, _)| {
                (connected && !was_connected) || (connected == was_connected && result < was_rows)
            });
            if better {
                best = Some((connected, result, i));
            }
        }
        // Dependencies cannot be circular: each member only needs those left of it in FROM.
        let Some((_, result, next)) = best else { break };
        let Some(member) = members[next].take() else { break };
        let on = conditions.iter_mut().filter(|c| applies(c, &joined, next)).filter_map(|c| c.pred.take()).collect();
        joined.insert(next);
        rows = result.max(1.0);
        let cols = lp.cols.iter().chain(&member.lp.cols).copied().collect();
        debug_assert!(member.cols.len() <= member.lp.cols.len());
        lp = Lp {
            op: Op::Join {
                kind: JoinType::Inner,
                left: Box::new(lp),
                right: Box::new(member.lp),
                on,
                lateral: !member.needs.is_empty(),
            },
            cols,
        };
    }
    lp
}

/// Whether a condition, not used yet, is about `next` and otherwise only about members already joined.
fn applies(c: &Condition, joined: &BTreeSet<usize>, next: usize) -> bool {
    c.pred.is_some() && c.about.contains(&next) && c.about.iter().all(|i| *i == next || joined.contains(i))
}

fn rows_of(members: &[Option<Member>], index: usize) -> f64 {
    members[index].as_ref().map_or(f64::INFINITY, |m| m.rows)
}
