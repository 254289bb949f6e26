//! Guesses at how many rows there will be.
//!
//! We keep no statistics of columns. What is known: unique keys, which conditions compare by equality and which by range, and how many
//! rows a table had when it was last read or loaded whole in this process ([`note_rows`]).

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::compare::comparison;
use super::expr::as_column;
use super::logical::{ColId, Lp, Op, Planner, Scan};
use super::node::JoinType;
use crate::exec::code::CompareOp;
use crate::ir::{Expr, ExprKind, SetOp, SubqueryKind};
use crate::types::Datum;

/// A table of a database: its public key and the table's oid.
type TableKey = ([u8; 32], u32);

/// Row counts seen in this process.
static SEEN: Mutex<BTreeMap<TableKey, u64>> = Mutex::new(BTreeMap::new());

/// Tables remembered; beyond that all are forgotten.
const SEEN_MAX: usize = 100_000;

/// Remembers how many rows a table has: after reading or loading all of it.
pub fn note_rows(database: [u8; 32], table: u32, rows: u64) {
    let mut seen = SEEN.lock();
    if seen.len() >= SEEN_MAX {
        seen.clear();
    }
    seen.insert((database, table), rows);
}

fn seen_rows(database: [u8; 32], table: u32) -> Option<u64> {
    SEEN.lock().get(&(database, table)).copied()
}

/// Rows of a table nobody has counted.
pub(crate) const UNKNOWN_ROWS: f64 = 1000.0;

/// Rows of a foreign table.
const FOREIGN_ROWS: f64 = 10_000.0;

const EQUAL: f64 = 0.005;
const RANGE: f64 = 1.0 / 3.0;
const OTHER: f64 = 0.5;

impl Planner<'_> {
    /// Rows of a stored table.
    pub(crate) fn table_rows(&self, scan: &Scan) -> f64 {
        if scan.foreign.is_some() {
            return FOREIGN_ROWS;
        }
        let told = self.cx.statistics.and_then(|s| s.table_rows(scan.table.oid));
        let known = told.or_else(|| seen_rows(self.cx.session.services.key(), scan.table.oid));
        known.map_or(UNKNOWN_ROWS, |n| n.max(10) as f64)
    }

    /// Rows of a relation.
    pub(crate) fn rows(&self, lp: &Lp) -> f64 {
        let rows = match &lp.op {
            Op::Values { rows } => return rows.len() as f64,
            Op::Scan(scan) => self.scan_rows(scan),
            Op::Virtual { filter, .. } => 200.0 * self.selectivity_of(filter),
            Op::Function { .. } => 100.0,
            Op::Filter { input, preds } => self.rows(input) * self.selectivity_of(preds),
            Op::Project { input, .. }
            | Op::Window { input, .. }
            | Op::Sort { input, .. }
            | Op::LockRows { input, .. } => self.rows(input),
            Op::ProjectSet { input, .. } => self.rows(input) * 10.0,
            Op::Join { kind, left, right, on, guess, .. } => {
                if let Some(rows) = guess.rows.get() {
                    return rows;
                }
                let (l, r) = (self.rows(left), self.rows(right));
                let inner =
                    on.iter().fold(l * r, |rows, p| rows * self.join_selectivity(p, [&**left, &**right].into_iter()));
                let rows = match kind {
                    JoinType::Inner => inner,
                    JoinType::Left => inner.max(l),
                    JoinType::Right => inner.max(r),
                    JoinType::Full => inner.max(l + r),
                    JoinType::Semi | JoinType::Anti => (l * 0.5).min(l),
                };
                guess.rows.set(Some(rows.max(1.0)));
                rows
            }
            Op::Aggregate { input, keys, sets, .. } => {
                if keys.is_empty() {
                    return sets.len() as f64;
                }
                let rows = self.rows(input);
                // A tenth for one key, more for several, never more than there are.
                (rows * (0.1 * keys.len() as f64).min(0.5)).max(rows.min(10.0)) * sets.len() as f64
            }
            Op::Limit { input, limit, .. } => {
                let rows = self.rows(input);
                match limit.as_ref().map(|l| &l.kind) {
                    Some(ExprKind::Const(d)) => {
                        crate::exec::value::integer(d).map_or(rows, |n| rows.min(n.max(0) as f64))
                    }
                    Some(_) => rows.min(100.0),
                    None => rows,
                }
            }
            Op::Distinct { input, .. } => (self.rows(input) * 0.3).max(1.0),
            Op::Append { inputs } => return inputs.iter().map(|i| self.rows(i)).sum(),
            Op::SetOp { op, left, right, .. } => match op {
                SetOp::Intersect => self.rows(left).min(self.rows(right)) * 0.5,
                _ => self.rows(left) * 0.5,
            },
            Op::With { body, .. } => self.rows(body),
            Op::CteScan { .. } => 500.0,
            Op::WorkScan { .. } => 100.0,
            Op::Dml { source, .. } => self.rows(source),
        };
        rows.max(1.0)
    }

    /// Rows of a scan after its filter.
    pub(crate) fn scan_rows(&self, scan: &Scan) -> f64 {
        let equal: BTreeSet<ColId> = scan.filter.iter().filter_map(|p| self.column_equal_to_value(p, scan)).collect();
        if self.unique_by(scan, &equal) {
            return 1.0;
        }
        (self.table_rows(scan) * self.selectivity_of(&scan.filter)).max(1.0)
    }

    /// The column of this scan that a condition sets equal to something not of this scan.
    fn column_equal_to_value(&self, p: &Expr, scan: &Scan) -> Option<ColId> {
        let ExprKind::Call { func, args } = &p.kind else { return None };
        let [a, b] = args.as_slice() else { return None };
        comparison(func).filter(|c| c.op == CompareOp::Eq)?;
        let made: BTreeSet<ColId> = scan.made.iter().copied().collect();
        let column =
            |e: &Expr, other: &Expr| as_column(e).filter(|id| made.contains(id) && self.used(other).is_disjoint(&made));
        column(a, b).or_else(|| column(b, a))
    }

    /// Whether these columns hold a unique key of the scan.
    pub(crate) fn unique_by(&self, scan: &Scan, columns: &BTreeSet<ColId>) -> bool {
        let has = |attnum: i16| scan.table.position(attnum).is_some_and(|at| columns.contains(&scan.made[at]));
        let primary = scan.table.primary_key.as_ref().is_some_and(|k| k.columns.iter().all(|a| has(*a)));
        primary || scan.table.indexes.iter().any(|i| i.unique && i.valid && i.columns.iter().all(|c| has(c.attnum)))
    }

    /// What part of rows satisfies all conditions.
    pub(crate) fn selectivity_of(&self, preds: &[Expr]) -> f64 {
        preds.iter().map(|p| self.selectivity(p)).product::<f64>().max(1e-6)
    }

    /// What part of rows satisfies a condition.
    pub(crate) fn selectivity(&self, p: &Expr) -> f64 {
        match &p.kind {
            ExprKind::Const(Datum::Bool(true)) => 1.0,
            ExprKind::Const(_) => 1e-6,
            ExprKind::And(args) => self.selectivity_of(args),
            ExprKind::Or(args) => args.iter().map(|a| self.selectivity(a)).sum::<f64>().min(1.0),
            ExprKind::Not(inner) => (1.0 - self.selectivity(inner)).max(0.01),
            ExprKind::IsNull { negated, .. } => {
                if *negated {
                    0.95
                } else {
                    0.05
                }
            }
            ExprKind::Call { func, .. } => match comparison(func).map(|c| c.op) {
                Some(CompareOp::Eq) => EQUAL,
                Some(CompareOp::Ne) => 1.0 - EQUAL,
                Some(_) => RANGE,
                None => 0.1,
            },
            ExprKind::ScalarArray { array, all: false, .. } => {
                let elements = match &array.kind {
                    ExprKind::Array { elems, .. } => elems.len(),
                    ExprKind::Const(Datum::Array(a)) => a.values.len(),
                    _ => 10,
                };
                (EQUAL * elements as f64).min(0.9)
            }
            ExprKind::Subquery(sub) if matches!(sub.kind, SubqueryKind::Quantified { .. } | SubqueryKind::Exists) => {
                OTHER
            }
            ExprKind::Column(_) | ExprKind::IsBool { .. } => OTHER,
            _ => OTHER,
        }
    }

    /// What part of the pairs of rows satisfies a condition between relations.
    pub(crate) fn join_selectivity<'l>(&self, p: &Expr, sides: impl Iterator<Item = &'l Lp>) -> f64 {
        let ExprKind::Call { func, args } = &p.kind else { return self.selectivity(p) };
        if comparison(func).map(|c| c.op) != Some(CompareOp::Eq) || args.len() != 2 {
            return self.selectivity(p);
        }
        // Each row of the side with more different values finds at most one partner for each of them.
        let sides: Vec<&Lp> = sides.collect();
        let mut distinct: f64 = 1.0;
        for arg in args {
            if let Some(id) = as_column(arg) {
                distinct = sides.iter().filter_map(|s| self.distinct_values(s, id)).fold(distinct, f64::max);
            }
        }
        if distinct > 1.0 { 1.0 / distinct } else { EQUAL }
    }

    /// A guess at how many values a column has where it is stored.
    fn distinct_values(&self, lp: &Lp, id: ColId) -> Option<f64> {
        if let Op::Scan(scan) = &lp.op
            && scan.made.contains(&id)
        {
            let rows = self.table_rows(scan);
            return Some(if self.unique_by(scan, &BTreeSet::from([id])) { rows } else { (rows * 0.1).max(1.0) });
        }
        let mut found = None;
        lp.op.inputs(&mut |input| found = found.or_else(|| self.distinct_values(input, id)));
        found
    }
}
