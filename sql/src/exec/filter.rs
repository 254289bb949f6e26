//! Operators that look at one row at a time: conditions, computed columns, LIMIT.

use std::sync::Arc;

use super::batch::{BATCH_ROWS, Batch};
use super::eval::Env;
use super::operator::{BoxOperator, Operator};
use super::value;
use crate::error::{Result, SqlError, state};
use crate::plan::node::{LimitCount, LimitNode, Prog};
use crate::types::{Datum, Row};

/// Whether all conditions hold for a row.
#[inline]
pub(crate) fn all_hold(conditions: &[Prog], row: &[Datum], env: &Env<'_>) -> Result<bool> {
    for condition in conditions {
        if condition.code.eval_bool(row, env)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows that satisfy conditions.
pub(crate) struct Filter {
    input: BoxOperator,
    conditions: Arc<Vec<Prog>>,
    /// Rows asked of the input: grows while few rows pass, so that LIMIT 1 reads little and a full read reads in bulk.
    ask: usize,
}

impl Filter {
    pub fn new(input: BoxOperator, conditions: Arc<Vec<Prog>>) -> Filter {
        Filter { input, conditions, ask: 1 }
    }
}

impl Operator for Filter {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let target = out.target;
        loop {
            out.target = target.max(self.ask).min(BATCH_ROWS);
            self.ask = (self.ask * 2).min(BATCH_ROWS);
            let some = self.input.next(env, out);
            out.target = target;
            if !some? {
                return Ok(false);
            }
            // One row may take long: a condition can be as expensive as it likes.
            out.retain(0, |row| {
                env.check_cancel()?;
                all_hold(&self.conditions, row, env)
            })?;
            if !out.is_empty() {
                return Ok(true);
            }
        }
    }
    fn rewind(&mut self) -> bool {
        self.ask = 1;
        self.input.rewind()
    }
}

/// Computed columns. They may be much larger than what they are computed from, so a batch of the input may take several calls.
pub(crate) struct Project {
    input: BoxOperator,
    rows: Batch,
    /// The next of `rows`.
    at: usize,
    exprs: Arc<Vec<Prog>>,
}

impl Project {
    pub fn new(input: BoxOperator, width: usize, exprs: Arc<Vec<Prog>>) -> Project {
        Project { input, rows: Batch::new(width), at: 0, exprs }
    }
}

impl Operator for Project {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.exprs.len());
        if self.at >= self.rows.len() {
            self.at = 0;
            self.rows.target = out.target;
            if !self.input.next(env, &mut self.rows)? {
                return Ok(false);
            }
        }
        while self.at < self.rows.len() && !out.is_full() {
            env.check_cancel()?;
            let row = self.rows.row(self.at);
            for expr in self.exprs.iter() {
                let value = expr.code.eval(row, env)?;
                out.values().push(value);
            }
            out.close_row();
            self.at += 1;
        }
        Ok(true)
    }
    fn rewind(&mut self) -> bool {
        self.rows.reset(self.rows.width());
        self.at = 0;
        self.input.rewind()
    }
}

/// Columns in another order.
pub(crate) struct Pick {
    input: BoxOperator,
    rows: Batch,
    columns: Arc<[usize]>,
}

impl Pick {
    pub fn new(input: BoxOperator, width: usize, columns: Arc<[usize]>) -> Pick {
        Pick { input, rows: Batch::new(width), columns }
    }
}

impl Operator for Pick {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.columns.len());
        self.rows.target = out.target;
        if !self.input.next(env, &mut self.rows)? {
            return Ok(false);
        }
        for row in self.rows.iter() {
            out.push_owned(self.columns.iter().map(|c| row[*c].clone()));
        }
        Ok(true)
    }
    fn rewind(&mut self) -> bool {
        self.input.rewind()
    }
}

/// LIMIT and OFFSET.
pub(crate) struct Limit {
    node: Arc<LimitNode>,
    input: BoxOperator,
    state: Option<LimitState>,
}

struct LimitState {
    skip: u64,
    left: Option<u64>,
    /// The last row's keys, once all counted rows are out and only its peers may follow.
    last: Option<Row>,
    done: bool,
}

impl Limit {
    pub fn new(node: Arc<LimitNode>, input: BoxOperator) -> Limit {
        Limit { node, input, state: None }
    }
}

impl LimitCount {
    /// OFFSET and LIMIT; None is no limit.
    pub(crate) fn resolve(&self, env: &Env<'_>) -> Result<(u64, Option<u64>)> {
        let value = |p: &Option<Prog>| match p {
            Some(p) => p.code.eval(&[], env),
            None => Ok(Datum::Null),
        };
        let offset = match value::integer(&value(&self.offset)?) {
            Some(n) => u64::try_from(n)
                .map_err(|_| SqlError::new(state::INVALID_ROW_COUNT_IN_OFFSET, "OFFSET must not be negative"))?,
            None => 0,
        };
        let limit = match value::integer(&value(&self.limit)?) {
            Some(n) => Some(
                u64::try_from(n)
                    .map_err(|_| SqlError::new(state::INVALID_ROW_COUNT_IN_LIMIT, "LIMIT must not be negative"))?,
            ),
            None => None,
        };
        Ok((offset, limit))
    }
    /// Rows read at most.
    pub(crate) fn rows(&self, env: &Env<'_>) -> Result<Option<usize>> {
        let (offset, limit) = self.resolve(env)?;
        Ok(limit.map(|l| usize::try_from(l.saturating_add(offset)).unwrap_or(usize::MAX)))
    }
}

impl Operator for Limit {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let state = match &mut self.state {
            Some(state) => state,
            none => {
                let (skip, left) = self.node.count.resolve(env)?;
                none.insert(LimitState { skip, left, last: None, done: left == Some(0) })
            }
        };
        loop {
            if state.done {
                out.reset(out.width());
                return Ok(false);
            }
            let target = out.target;
            if state.last.is_none()
                && let Some(left) = state.left
            {
                out.target = left.saturating_add(state.skip).min(target as u64) as usize;
            }
            let some = self.input.next(env, out);
            out.target = target;
            if !some? {
                state.done = true;
                return Ok(false);
            }
            if state.skip > 0 {
                let skipped = state.skip.min(out.len() as u64);
                out.skip(skipped as usize);
                state.skip -= skipped;
                env.check_cancel()?;
            }
            let counted = state.left.map_or(out.len(), |left| left.min(out.len() as u64) as usize);
            if let Some(left) = &mut state.left {
                *left -= counted as u64;
                if *left == 0 {
                    let kept = match &self.node.ties {
                        None => counted,
                        Some(ties) => with_peers(ties, &mut state.last, counted, out, env)?,
                    };
                    state.done = self.node.ties.is_none() || kept < out.len();
                    out.truncate(kept);
                }
            }
            if !out.is_empty() {
                return Ok(true);
            }
        }
    }
    fn rewind(&mut self) -> bool {
        self.state = None;
        self.input.rewind()
    }
}

/// How many rows to keep: the counted ones and the peers of the last of them. `last` are the keys of the last counted row.
fn with_peers(ties: &[Prog], last: &mut Option<Row>, counted: usize, out: &Batch, env: &Env<'_>) -> Result<usize> {
    let keys = |row: &[Datum]| ties.iter().map(|t| t.code.eval(row, env)).collect::<Result<Row>>();
    if counted > 0 {
        *last = Some(keys(out.row(counted - 1))?);
    }
    let Some(last) = last else { return Ok(counted) };
    for at in counted..out.len() {
        if !value::same_rows(last, &keys(out.row(at))?) {
            return Ok(at);
        }
    }
    Ok(out.len())
}
