//! Window functions over rows that come sorted by partition and order.
//!
//! A partition is gathered, each call computes its column, the rows are given out, the next partition begins.

use std::sync::Arc;

use super::batch::Batch;
use super::collect::Slot;
use super::eval::Env;
use super::frame::{Frame, Partition};
use super::operator::{BoxOperator, Operator, open_node};
use super::sort::normalised;
use super::value::{self, KeyOrder};
use crate::error::{Result, SqlError, state};
use crate::functions::window::WindowKind;
use crate::plan::node::{AggNode, BoundNode, Prog, WindowCallNode, WindowFuncNode, WindowNode};
use crate::types::{Datum, Row};

/// Window calls over one window.
pub(crate) struct Window {
    node: Arc<WindowNode>,
    input: BoxOperator,
    /// Input rows not yet taken.
    rows: Batch,
    at: usize,
    /// The partition at hand, its computed columns and the next row to give.
    partition: Option<(Partition, Vec<Row>, usize)>,
    ended: bool,
    needs_keys: bool,
}

impl Window {
    pub fn new(node: Arc<WindowNode>, env: &Env<'_>) -> Result<Window> {
        let input = open_node(&node.input, env)?;
        let rows = Batch::new(node.input.width);
        let has_offset = |b: &BoundNode| matches!(b, BoundNode::Preceding(o) | BoundNode::Following(o) if o.minus.is_some() || o.plus.is_some());
        let needs_keys = node.calls.iter().any(|c| has_offset(&c.frame.start) || has_offset(&c.frame.end));
        Ok(Window { node, input, rows, at: 0, partition: None, ended: false, needs_keys })
    }

    /// Gathers the next partition; None at the end.
    fn gather(&mut self, env: &Env<'_>) -> Result<Option<Partition>> {
        let node = self.node.clone();
        let key_order = node.order_by.first().map_or(KeyOrder { desc: false, nulls_first: false }, |(_, order)| *order);
        let mut p = Partition {
            rows: Batch::new(node.input.width),
            group: Vec::new(),
            group_starts: Vec::new(),
            keys: Row::new(),
            key_order,
        };
        let (mut part, mut peer): (Option<Row>, Option<Row>) = (None, None);
        loop {
            if self.at >= self.rows.len() {
                env.check_cancel()?;
                self.at = 0;
                self.rows.target = super::batch::BATCH_ROWS;
                if self.ended || !self.input.next(env, &mut self.rows)? {
                    self.ended = true;
                    self.rows.reset(node.input.width);
                    break;
                }
            }
            let row = self.rows.row(self.at);
            let keys = eval_all(node.partition_by.iter(), row, env)?;
            match &part {
                Some(current) if !value::same_rows(current, &keys) => break,
                Some(_) => {}
                None => part = Some(keys),
            }
            let order = eval_all(node.order_by.iter().map(|(k, _)| k), row, env)?;
            if self.needs_keys {
                p.keys.push(order.first().cloned().unwrap_or_default());
            }
            if peer.as_ref().is_none_or(|last| !value::same_rows(last, &order)) {
                p.group_starts.push(p.rows.len());
                peer = Some(order);
            }
            p.group.push(p.group_starts.len() - 1);
            p.rows.push_taken(&mut self.rows, self.at);
            self.at += 1;
        }
        p.group_starts.push(p.rows.len());
        Ok(if p.rows.is_empty() { None } else { Some(p) })
    }
}

fn eval_all<'p>(progs: impl Iterator<Item = &'p Prog>, row: &[Datum], env: &Env<'_>) -> Result<Row> {
    progs.map(|p| Ok(normalised(p.code.eval(row, env)?, p.expr.ty.ty))).collect()
}

impl Operator for Window {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.input.width + self.node.calls.len());
        loop {
            if let Some((partition, columns, at)) = &mut self.partition {
                while *at < partition.len() && !out.is_full() {
                    out.values().extend(partition.rows.row_mut(*at).iter_mut().map(std::mem::take));
                    out.values().extend(columns.iter_mut().map(|c| std::mem::take(&mut c[*at])));
                    out.close_row();
                    *at += 1;
                }
                if out.is_full() {
                    return Ok(true);
                }
            }
            let Some(partition) = self.gather(env)? else {
                self.partition = None;
                return Ok(!out.is_empty());
            };
            let columns = self.node.calls.iter().map(|c| compute(c, &partition, env)).collect::<Result<_>>()?;
            self.partition = Some((partition, columns, 0));
        }
    }
    fn rewind(&mut self) -> bool {
        self.rows.reset(self.rows.width());
        self.at = 0;
        self.partition = None;
        self.ended = false;
        self.input.rewind()
    }
}

/// A call's value for each row of a partition.
fn compute(call: &WindowCallNode, p: &Partition, env: &Env<'_>) -> Result<Row> {
    match &call.func {
        WindowFuncNode::Aggregate(agg) => aggregate(call, agg, p, env),
        WindowFuncNode::Window { func, args, .. } => function(call, func.kind, args, p, env),
    }
}

fn aggregate(call: &WindowCallNode, agg: &AggNode, p: &Partition, env: &Env<'_>) -> Result<Row> {
    let frame = Frame::new(&call.frame, p, env)?;
    let limit = env.cx.session.work_mem_bytes;
    let (mut column, mut args) = (Row::with_capacity(p.len()), Row::new());
    let mut slot = agg.slot(env, limit);
    let mut steps = 0usize;
    let mut take = |slot: &mut Slot, row: usize| {
        steps += 1;
        if steps.is_multiple_of(1024) {
            env.check_cancel()?;
        }
        agg.take(slot, p.rows.row(row), &mut args, env)
    };
    if frame.grows_from_start() {
        // The end never moves back, so the state only ever takes more rows.
        let (mut taken, mut last) = (0, None);
        for row in 0..p.len() {
            let (_, end) = frame.span(p, row, env)?;
            while taken < end {
                take(&mut slot, taken)?;
                taken += 1;
                last = None;
            }
            let value = match last.take() {
                Some(value) => value,
                None => agg.result(&mut slot, env)?,
            };
            column.push(value.clone());
            last = Some(value);
        }
        return Ok(column);
    }
    let mut previous = None;
    for row in 0..p.len() {
        let ranges = frame.ranges(p, row, env)?;
        if previous == Some(ranges) {
            let value = column[row - 1].clone();
            column.push(value);
            continue;
        }
        slot = agg.slot(env, limit);
        for (start, end) in ranges {
            for at in start..end {
                take(&mut slot, at)?;
            }
        }
        column.push(agg.result(&mut slot, env)?);
        previous = Some(ranges);
    }
    Ok(column)
}

fn function(call: &WindowCallNode, kind: WindowKind, args: &[Prog], p: &Partition, env: &Env<'_>) -> Result<Row> {
    let n = p.len();
    let arg = |i: usize, row: usize| match args.get(i) {
        Some(prog) => prog.code.eval(p.rows.row(row), env),
        None => Ok(Datum::Null),
    };
    let each = |f: &dyn Fn(usize) -> Result<Datum>| {
        (0..n)
            .map(|row| {
                if row % 1024 == 0 {
                    env.check_cancel()?;
                }
                f(row)
            })
            .collect::<Result<Row>>()
    };
    match kind {
        WindowKind::RowNumber => each(&|row| Ok(Datum::Int8(row as i64 + 1))),
        WindowKind::Rank => each(&|row| Ok(Datum::Int8(p.peers_start(row) as i64 + 1))),
        WindowKind::DenseRank => each(&|row| Ok(Datum::Int8(p.group[row] as i64 + 1))),
        WindowKind::PercentRank => {
            each(&|row| Ok(Datum::Float8(if n > 1 { p.peers_start(row) as f64 / (n - 1) as f64 } else { 0.0 })))
        }
        WindowKind::CumeDist => each(&|row| Ok(Datum::Float8(p.peers_end(row) as f64 / n as f64))),
        WindowKind::Ntile => {
            let Some(buckets) = value::integer(&arg(0, 0)?) else { return Ok(vec![Datum::Null; n]) };
            let buckets = usize::try_from(buckets).ok().filter(|b| *b > 0).ok_or_else(|| {
                SqlError::new(state::INVALID_ARGUMENT_FOR_NTILE, "argument of ntile must be greater than zero")
            })?;
            // The first `larger` buckets have one row more than the others.
            let (size, larger) = (n / buckets, n % buckets);
            each(&|row| {
                let head = larger * (size + 1);
                let bucket = if row < head { row / (size + 1) } else { larger + (row - head) / size.max(1) };
                Ok(Datum::Int4(bucket as i32 + 1))
            })
        }
        WindowKind::Lag | WindowKind::Lead => each(&|row| {
            let distance = match args.get(1) {
                None => 1,
                Some(_) => match value::integer(&arg(1, row)?) {
                    Some(d) => d,
                    None => return Ok(Datum::Null),
                },
            };
            let distance = if matches!(kind, WindowKind::Lag) { distance.saturating_neg() } else { distance };
            match usize::try_from((row as i64).saturating_add(distance)).ok().filter(|at| *at < n) {
                Some(at) => arg(0, at),
                None => arg(2, row),
            }
        }),
        WindowKind::FirstValue | WindowKind::LastValue | WindowKind::NthValue => {
            let frame = Frame::new(&call.frame, p, env)?;
            each(&|row| {
                let ranges = frame.ranges(p, row, env)?;
                let at = match kind {
                    WindowKind::FirstValue => ranges.iter().find(|(a, b)| a < b).map(|(a, _)| *a),
                    WindowKind::LastValue => ranges.iter().rev().find(|(a, b)| a < b).map(|(_, b)| b - 1),
                    _ => {
                        let Some(nth) = value::integer(&arg(1, row)?) else { return Ok(Datum::Null) };
                        let nth = usize::try_from(nth).ok().filter(|n| *n > 0).ok_or_else(|| {
                            SqlError::new(
                                state::INVALID_ARGUMENT_FOR_NTH_VALUE,
                                "argument of nth_value must be greater than zero",
                            )
                        })?;
                        let mut left = nth - 1;
                        ranges.iter().find_map(|(a, b)| {
                            let size = b.saturating_sub(*a);
                            if left < size {
                                return Some(a + left);
                            }
                            left -= size;
                            None
                        })
                    }
                };
                match at {
                    Some(at) => arg(0, at),
                    None => Ok(Datum::Null),
                }
            })
        }
    }
}
