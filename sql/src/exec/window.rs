//! Window functions over rows that come sorted by partition and order.
//!
//! A partition is gathered, beyond `work_mem` in a file; then each row is given out with the values of the calls for it, which are made when they
//! are wanted: a running string_agg of all rows would be the square of them. What is kept of each peer group, and of each row's key for RANGE
//! offsets, is reserved.

use std::sync::Arc;

use super::batch::Batch;
use super::collect::Slot;
use super::eval::Env;
use super::frame::{Frame, Partition};
use super::operator::{BoxOperator, Operator, open_node};
use super::sort::normalised;
use super::spill::PagedRows;
use super::value::{self, KeyOrder};
use crate::error::{Result, SqlError, state};
use crate::functions::window::WindowKind;
use crate::memory::Reservation;
use crate::plan::node::{AggNode, BoundNode, Prog, WindowFuncNode, WindowNode};
use crate::types::{Datum, Row};

/// Window calls over one window.
pub(crate) struct Window {
    node: Arc<WindowNode>,
    input: BoxOperator,
    /// Input rows not yet taken.
    rows: Batch,
    at: usize,
    partition: Option<Gathered>,
    ended: bool,
    needs_keys: bool,
    id: usize,
}

/// The partition at hand.
struct Gathered {
    rows: PagedRows,
    shape: Partition,
    calls: Vec<Running>,
    /// The next row to give.
    at: usize,
    _held: Reservation,
}

impl Window {
    pub fn new(node: Arc<WindowNode>, id: usize, env: &Env<'_>) -> Result<Window> {
        let input = open_node(&node.input, env)?;
        let rows = Batch::new(node.input.width);
        let has_offset = |b: &BoundNode| matches!(b, BoundNode::Preceding(o) | BoundNode::Following(o) if o.minus.is_some() || o.plus.is_some());
        let needs_keys = node.calls.iter().any(|c| has_offset(&c.frame.start) || has_offset(&c.frame.end));
        Ok(Window { node, input, rows, at: 0, partition: None, ended: false, needs_keys, id })
    }

    /// Gathers the next partition; None at the end.
    fn gather(&mut self, env: &Env<'_>) -> Result<Option<Gathered>> {
        let node = self.node.clone();
        let key_order = node.order_by.first().map_or(KeyOrder { desc: false, nulls_first: false }, |(_, order)| *order);
        let mut rows = PagedRows::new(node.input.width, env.cx.session.work_mem_bytes);
        let mut p = Partition { len: 0, group_starts: Vec::new(), keys: Row::new(), key_order };
        let (mut held, mut key_bytes) = (env.cx.session.memory.reservation("A window"), 0);
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
                let key = order.first().cloned().unwrap_or_default();
                key_bytes += std::mem::size_of::<Datum>() + value::heap_bytes(&key);
                p.keys.push(key);
            }
            if peer.as_ref().is_none_or(|last| !value::same_rows(last, &order)) {
                p.group_starts.push(p.len);
                peer = Some(order);
            }
            held.set(p.group_starts.len() * std::mem::size_of::<usize>() + key_bytes)?;
            rows.push(row)?;
            p.len += 1;
            self.at += 1;
        }
        p.group_starts.push(p.len);
        if p.len == 0 {
            return Ok(None);
        }
        if let Some(metrics) = env.cx.shared.metrics() {
            metrics.gathered(self.id, rows.bytes(), rows.is_spilled());
        }
        let calls = (0..node.calls.len()).map(|call| Running::new(&node, call, &p, env)).collect::<Result<_>>()?;
        Ok(Some(Gathered { rows, shape: p, calls, at: 0, _held: held }))
    }
}

fn eval_all<'p>(progs: impl Iterator<Item = &'p Prog>, row: &[Datum], env: &Env<'_>) -> Result<Row> {
    progs.map(|p| Ok(normalised(p.code.eval(row, env)?, p.expr.ty.ty))).collect()
}

impl Operator for Window {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.input.width + self.node.calls.len());
        loop {
            if let Some(partition) = &mut self.partition {
                while partition.at < partition.shape.len && !out.is_full() {
                    env.check_cancel()?;
                    partition.give(&self.node, env, out)?;
                }
                if out.is_full() {
                    return Ok(true);
                }
            }
            // The old one's memory goes before the new one's comes.
            self.partition = None;
            self.partition = self.gather(env)?;
            if self.partition.is_none() {
                return Ok(!out.is_empty());
            }
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

impl Gathered {
    /// Appends the next row with the values of the calls.
    fn give(&mut self, node: &WindowNode, env: &Env<'_>, out: &mut Batch) -> Result<()> {
        out.values().extend_from_slice(self.rows.row(self.at)?);
        for (call, running) in node.calls.iter().zip(&mut self.calls) {
            let value = match (&call.func, running) {
                (WindowFuncNode::Aggregate(agg), Running::Aggregate(state)) => {
                    state.value(agg, self.at, &self.shape, &mut self.rows, env)?
                }
                (WindowFuncNode::Window { func, args, .. }, Running::Function(frame)) => {
                    let mut over = Over { args, frame, shape: &self.shape, rows: &mut self.rows, env };
                    over.value(func.kind, self.at)?
                }
                _ => return Err(SqlError::internal("a window call runs as another")),
            };
            out.values().push(value);
        }
        out.close_row();
        self.at += 1;
        Ok(())
    }
}

/// A call at work on one partition: it is asked for the value of each row, in order.
enum Running {
    Aggregate(Box<RunningAggregate>),
    /// With the frame, where the function looks at it.
    Function(Option<Frame>),
}

impl Running {
    fn new(node: &Arc<WindowNode>, call: usize, shape: &Partition, env: &Env<'_>) -> Result<Running> {
        let frame = || Frame::new(node, call, shape, env);
        Ok(match &node.calls[call].func {
            WindowFuncNode::Aggregate(agg) => Running::Aggregate(Box::new(RunningAggregate {
                frame: frame()?,
                slot: agg.slot(env, env.cx.session.work_mem_bytes),
                taken: 0,
                ranges: None,
                value: None,
                args: Row::new(),
            })),
            WindowFuncNode::Window { func, .. } => Running::Function(match func.kind {
                WindowKind::FirstValue | WindowKind::LastValue | WindowKind::NthValue => Some(frame()?),
                _ => None,
            }),
        })
    }
}

struct RunningAggregate {
    frame: Frame,
    slot: Slot,
    /// Rows in the slot, when frames only grow.
    taken: usize,
    /// The rows in the slot otherwise.
    ranges: Option<[(usize, usize); 3]>,
    /// The slot's result, if it was asked for.
    value: Option<Datum>,
    args: Row,
}

impl RunningAggregate {
    fn value(
        &mut self,
        agg: &AggNode,
        row: usize,
        shape: &Partition,
        rows: &mut PagedRows,
        env: &Env<'_>,
    ) -> Result<Datum> {
        if self.frame.grows_from_start() {
            // The end never moves back, so the state only ever takes more rows.
            let (_, end) = self.frame.span(shape, row, env)?;
            if self.taken < end {
                self.value = None;
                self.take(agg, self.taken..end, rows, env)?;
                self.taken = end;
            }
        } else {
            let ranges = self.frame.ranges(shape, row, env)?;
            if self.ranges != Some(ranges) {
                (self.value, self.ranges) = (None, Some(ranges));
                self.slot = agg.slot(env, env.cx.session.work_mem_bytes);
                for (start, end) in ranges {
                    self.take(agg, start..end, rows, env)?;
                }
            }
        }
        match &self.value {
            Some(value) => Ok(value.clone()),
            None => Ok(self.value.insert(agg.result(&mut self.slot, env)?).clone()),
        }
    }

    fn take(
        &mut self,
        agg: &AggNode,
        range: std::ops::Range<usize>,
        rows: &mut PagedRows,
        env: &Env<'_>,
    ) -> Result<()> {
        for at in range {
            env.check_cancel()?;
            agg.take(&mut self.slot, rows.row(at)?, &mut self.args, env)?;
        }
        Ok(())
    }
}

/// What a window function looks at.
struct Over<'a> {
    args: &'a [Prog],
    frame: &'a Option<Frame>,
    shape: &'a Partition,
    rows: &'a mut PagedRows,
    env: &'a Env<'a>,
}

impl Over<'_> {
    /// The value of an argument over a row; NULL if it was not given.
    fn arg(&mut self, i: usize, row: usize) -> Result<Datum> {
        match self.args.get(i) {
            Some(prog) => prog.code.eval(self.rows.row(row)?, self.env),
            None => Ok(Datum::Null),
        }
    }

    fn value(&mut self, kind: WindowKind, row: usize) -> Result<Datum> {
        let (shape, n) = (self.shape, self.shape.len);
        match kind {
            WindowKind::RowNumber => Ok(Datum::Int8(row as i64 + 1)),
            WindowKind::Rank => Ok(Datum::Int8(shape.peers_start(row) as i64 + 1)),
            WindowKind::DenseRank => Ok(Datum::Int8(shape.group(row) as i64 + 1)),
            WindowKind::PercentRank => {
                Ok(Datum::Float8(if n > 1 { shape.peers_start(row) as f64 / (n - 1) as f64 } else { 0.0 }))
            }
            WindowKind::CumeDist => Ok(Datum::Float8(shape.peers_end(row) as f64 / n as f64)),
            WindowKind::Ntile => {
                // The first row says how many buckets there are.
                let Some(buckets) = value::integer(&self.arg(0, 0)?) else { return Ok(Datum::Null) };
                let buckets = usize::try_from(buckets).ok().filter(|b| *b > 0).ok_or_else(|| {
                    SqlError::new(state::INVALID_ARGUMENT_FOR_NTILE, "argument of ntile must be greater than zero")
                })?;
                // The first `larger` buckets have one row more than the others.
                let (size, larger) = (n / buckets, n % buckets);
                let head = larger * (size + 1);
                let bucket = if row < head { row / (size + 1) } else { larger + (row - head) / size.max(1) };
                Ok(Datum::Int4(bucket as i32 + 1))
            }
            WindowKind::Lag | WindowKind::Lead => {
                let distance = match self.args.get(1) {
                    None => 1,
                    Some(_) => match value::integer(&self.arg(1, row)?) {
                        Some(d) => d,
                        None => return Ok(Datum::Null),
                    },
                };
                let distance = if matches!(kind, WindowKind::Lag) { distance.saturating_neg() } else { distance };
                match usize::try_from((row as i64).saturating_add(distance)).ok().filter(|at| *at < n) {
                    Some(at) => self.arg(0, at),
                    None => self.arg(2, row),
                }
            }
            WindowKind::FirstValue | WindowKind::LastValue | WindowKind::NthValue => {
                let Some(frame) = self.frame else { return Err(SqlError::internal("a window call has no frame")) };
                let ranges = frame.ranges(shape, row, self.env)?;
                let at = match kind {
                    WindowKind::FirstValue => ranges.iter().find(|(a, b)| a < b).map(|(a, _)| *a),
                    WindowKind::LastValue => ranges.iter().rev().find(|(a, b)| a < b).map(|(_, b)| b - 1),
                    _ => {
                        let Some(nth) = value::integer(&self.arg(1, row)?) else { return Ok(Datum::Null) };
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
                    Some(at) => self.arg(0, at),
                    None => Ok(Datum::Null),
                }
            }
        }
    }
}
