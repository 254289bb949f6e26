//! The order of inner joins.
//!
//! Neighbouring inner joins are one cluster: relations and conditions between them. The order is grown greedily from the relation
//! with the fewest rows, next always the one that, joined by a condition, gives the fewest. Ties keep the order of FROM, so equal queries
//! get equal plans.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::PlanCx;
use super::logical::{CLUSTER_MAX, ColId, Lp, Op, Planner, too_deep};
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
    /// Cost of making its rows once.
    cost: f64,
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
        debug_assert!(lateral || self.free(&right).is_disjoint(&left.col_set()));
        self.flatten(left, &mut rels, &mut all);
        self.flatten(right, &mut rels, &mut all);
        if rels.len() > CLUSTER_MAX {
            return Err(too_deep());
        }
        let sets: Vec<BTreeSet<ColId>> = rels.iter().map(Lp::col_set).collect();
        let owner: FxHashMap<ColId, usize> =
            sets.iter().enumerate().flat_map(|(i, set)| set.iter().map(move |id| (*id, i))).collect();
        let owners = |used: &BTreeSet<ColId>| -> BTreeSet<usize> {
            used.iter().filter_map(|id| owner.get(id)).copied().collect()
        };
        let mut own: Vec<Vec<Expr>> = rels.iter().map(|_| Vec::new()).collect();
        let (mut between, mut above) = (Vec::new(), Vec::new());
        for pred in all {
            let about = owners(&self.used(&pred));
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
        for (i, ((rel, preds), cols)) in rels.into_iter().zip(own).zip(&sets).enumerate() {
            self.cx.session.check_cancel()?;
            let mut needs = owners(&self.free(&rel));
            needs.remove(&i);
            let lp = self.push_filter(rel, preds)?;
            let rows = self.rows(&lp);
            let cost = self.cost(&lp);
            members.push(Member { lp, cols: cols.clone(), needs, rows, cost });
        }
        let conditions = between
            .into_iter()
            .map(|(pred, about)| {
                let selectivity = self.join_selectivity(&pred, about.iter().map(|i| &members[*i].lp));
                Condition { pred: Some(pred), about, selectivity }
            })
            .collect();
        Ok(join_greedily(members, conditions, self.cx)?.filtered(above))
    }

    fn flatten(&mut self, lp: Lp, rels: &mut Vec<Lp>, preds: &mut Vec<Expr>) {
        match lp.op {
            Op::Join { kind: JoinType::Inner, left, right, mut on, lateral, .. } => {
                let right = if lateral { self.unlateral(&left, *right, &mut on).0 } else { *right };
                self.flatten(*left, rels, preds);
                self.flatten(right, rels, preds);
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
}

/// Members beyond which not every one is tried as the first.
const STARTS_MAX: usize = 10;

fn join_greedily(members: Vec<Member>, mut conditions: Vec<Condition>, cx: &PlanCx<'_>) -> Result<Lp> {
    let mut starts: Vec<usize> = (0..members.len()).filter(|i| members[*i].needs.is_empty()).collect();
    starts.sort_by(|a, b| members[*a].rows.total_cmp(&members[*b].rows).then(a.cmp(b)));
    if members.len() > STARTS_MAX {
        starts.truncate(1);
    }
    let mut best: Option<(f64, Vec<usize>)> = None;
    for start in starts {
        let (cost, sequence) = grow(start, &members, &conditions, cx)?;
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, sequence));
        }
    }
    // Someone needs no other: each member only needs those left of it in FROM.
    let sequence = best.map_or_else(|| (0..members.len()).collect(), |(_, sequence)| sequence);
    let mut left: Vec<Option<Member>> = members.into_iter().map(Some).collect();
    let mut progress = Progress::new(left.len(), &conditions);
    let mut whole: Option<Lp> = None;
    for next in sequence {
        let Some(member) = left[next].take() else { continue };
        debug_assert!(member.cols.len() <= member.lp.cols.len());
        whole = Some(match whole {
            None => member.lp,
            Some(lp) => {
                let on = progress.ready[next].iter().filter_map(|c| conditions[*c].pred.take()).collect();
                let cols = lp.cols.iter().chain(&member.lp.cols).copied().collect();
                let lateral = !member.needs.is_empty();
                Lp::join(JoinType::Inner, lp, member.lp, on, lateral, cols)
            }
        });
        progress.join(next, &conditions);
    }
    Ok(whole.unwrap_or_else(|| Lp::empty(Vec::new())))
}

/// Which conditions wait for which member, as members are joined one after the other.
struct Progress {
    /// For each member the conditions, in order, that are about it and otherwise only about members already joined.
    ready: Vec<Vec<usize>>,
    /// For each member the conditions about it.
    about: Vec<Vec<usize>>,
    /// For each condition the members it is about that are not joined yet: how many, and the sum of their indexes, which is the last one's.
    missing: Vec<(usize, usize)>,
}

impl Progress {
    fn new(members: usize, conditions: &[Condition]) -> Progress {
        let mut about = vec![Vec::new(); members];
        for (c, condition) in conditions.iter().enumerate() {
            condition.about.iter().for_each(|i| about[*i].push(c));
        }
        let missing = conditions.iter().map(|c| (c.about.len(), c.about.iter().sum())).collect();
        Progress { ready: vec![Vec::new(); members], about, missing }
    }

    fn join(&mut self, member: usize, conditions: &[Condition]) {
        for c in std::mem::take(&mut self.about[member]) {
            debug_assert!(conditions[c].about.contains(&member));
            let (count, sum) = &mut self.missing[c];
            *count -= 1;
            *sum -= member;
            if *count == 1 {
                let waiting = &mut self.ready[*sum];
                waiting.insert(waiting.partition_point(|earlier| *earlier < c), c);
            }
        }
    }
}

/// The order grown from a member, and its cost: the rows that pass between the joins, and what lateral members cost for each row.
fn grow(start: usize, members: &[Member], conditions: &[Condition], cx: &PlanCx<'_>) -> Result<(f64, Vec<usize>)> {
    let (mut rows, mut cost) = (members[start].rows, 0.0);
    let (mut joined, mut sequence) = (BTreeSet::from([start]), vec![start]);
    let mut progress = Progress::new(members.len(), conditions);
    progress.join(start, conditions);
    while joined.len() < members.len() {
        cx.session.check_cancel()?;
        let mut best: Option<(bool, f64, usize)> = None;
        for (i, member) in members.iter().enumerate() {
            if joined.contains(&i) || !member.needs.is_subset(&joined) {
                continue;
            }
            let ready = &progress.ready[i];
            let connected = !member.needs.is_empty() || !ready.is_empty();
            let result = ready.iter().fold(rows * member.rows, |rows, c| rows * conditions[*c].selectivity);
            let better = best.is_none_or(|(was_connected, was_rows, _)| {
                (connected && !was_connected) || (connected == was_connected && result < was_rows)
            });
            if better {
                best = Some((connected, result, i));
            }
        }
        let Some((_, result, next)) = best else { break };
        if !members[next].needs.is_empty() {
            cost += rows * members[next].cost;
        }
        rows = result.max(1.0);
        cost += rows;
        joined.insert(next);
        progress.join(next, conditions);
        sequence.push(next);
    }
    // What could not be placed comes last, in the order of FROM.
    sequence.extend((0..members.len()).filter(|i| !joined.contains(i)));
    Ok((cost, sequence))
}
