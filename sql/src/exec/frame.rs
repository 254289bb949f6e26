//! Window frames: which rows of a partition a row's window function sees.

use std::cmp::Ordering;
use std::sync::Arc;

use super::eval::Env;
use super::value::{self, KeyOrder};
use crate::error::{Result, SqlError, state};
use crate::ir::{FrameExclude, FrameUnit};
use crate::plan::node::{BoundNode, FrameNode, OffsetNode, WindowNode};
use crate::types::{Datum, Row};

/// A partition: how many rows it has, in order, and which are peers.
pub(crate) struct Partition {
    /// How many rows.
    pub len: usize,
    /// First row of each peer group, and the number of rows behind the last.
    pub group_starts: Vec<usize>,
    /// The single sort key of each row, where a frame with RANGE offsets needs it.
    pub keys: Row,
    /// Its order.
    pub key_order: KeyOrder,
}

impl Partition {
    /// Number of the peer group of a row.
    pub fn group(&self, row: usize) -> usize {
        self.group_starts.partition_point(|start| *start <= row) - 1
    }
    /// First row of the peers of a row.
    pub fn peers_start(&self, row: usize) -> usize {
        self.group_starts[self.group(row)]
    }
    /// The row after the peers of a row.
    pub fn peers_end(&self, row: usize) -> usize {
        self.group_starts[self.group(row) + 1]
    }
}

/// Frame of a call within one partition: offsets are evaluated.
pub(crate) struct Frame {
    window: Arc<WindowNode>,
    call: usize,
    start: Datum,
    end: Datum,
    /// Rows whose sort key is not NULL, for RANGE offsets.
    not_null: (usize, usize),
}

impl Frame {
    /// That of one call of a window: evaluates the offsets.
    pub fn new(window: &Arc<WindowNode>, call: usize, partition: &Partition, env: &Env<'_>) -> Result<Frame> {
        let node = &window.calls[call].frame;
        let offset = |bound: &BoundNode, which: &str| match bound {
            BoundNode::Preceding(o) | BoundNode::Following(o) => {
                let value = o.value.code.eval(&[], env)?;
                let bad = |what: &str| SqlError::new(state::INVALID_PRECEDING_OR_FOLLOWING_SIZE, what.to_owned());
                if value.is_null() {
                    return Err(SqlError::new(
                        state::NULL_VALUE_NOT_ALLOWED,
                        format!("frame {which} offset must not be null"),
                    ));
                }
                if node.unit == FrameUnit::Range {
                    if is_negative(&value) {
                        return Err(bad("invalid preceding or following size in window function"));
                    }
                } else if value::integer(&value).is_some_and(|n| n < 0) {
                    return Err(bad(&format!("frame {which} offset must not be negative")));
                }
                Ok(value)
            }
            _ => Ok(Datum::Null),
        };
        let (start, end) = (offset(&node.start, "starting")?, offset(&node.end, "ending")?);
        let nulls = partition.keys.iter().filter(|k| k.is_null()).count();
        let not_null =
            if partition.key_order.nulls_first { (nulls, partition.len) } else { (0, partition.len - nulls) };
        Ok(Frame { window: window.clone(), call, start, end, not_null })
    }

    fn node(&self) -> &FrameNode {
        &self.window.calls[self.call].frame
    }

    /// Whether every frame starts with the partition's first row and leaves nothing out.
    pub fn grows_from_start(&self) -> bool {
        matches!(self.node().start, BoundNode::UnboundedPreceding) && self.node().exclude == FrameExclude::NoOthers
    }

    /// First row of a row's frame and the row after its last, EXCLUDE not regarded.
    pub fn span(&self, p: &Partition, row: usize, env: &Env<'_>) -> Result<(usize, usize)> {
        let start = match &self.node().start {
            BoundNode::UnboundedPreceding => 0,
            BoundNode::UnboundedFollowing => p.len,
            BoundNode::CurrentRow => match self.node().unit {
                FrameUnit::Rows => row,
                _ => p.peers_start(row),
            },
            BoundNode::Preceding(o) => self.edge(p, row, o, &self.start, true, true, env)?,
            BoundNode::Following(o) => self.edge(p, row, o, &self.start, false, true, env)?,
        };
        let end = match &self.node().end {
            BoundNode::UnboundedPreceding => 0,
            BoundNode::UnboundedFollowing => p.len,
            BoundNode::CurrentRow => match self.node().unit {
                FrameUnit::Rows => row + 1,
                _ => p.peers_end(row),
            },
            BoundNode::Preceding(o) => self.edge(p, row, o, &self.end, true, false, env)?,
            BoundNode::Following(o) => self.edge(p, row, o, &self.end, false, false, env)?,
        };
        Ok((start, end.max(start)))
    }

    /// The ranges of rows in a row's frame, in order; some may be empty.
    pub fn ranges(&self, p: &Partition, row: usize, env: &Env<'_>) -> Result<[(usize, usize); 3]> {
        let (start, end) = self.span(p, row, env)?;
        let clip = |a: usize, b: usize| (a.clamp(start, end), b.clamp(start, end));
        let (first, last) = (p.peers_start(row), p.peers_end(row));
        Ok(match self.node().exclude {
            FrameExclude::NoOthers => [(start, end), (end, end), (end, end)],
            FrameExclude::CurrentRow => [clip(start, row), clip(row + 1, end), (end, end)],
            FrameExclude::Group => [clip(start, first), clip(last, end), (end, end)],
            FrameExclude::Ties => [clip(start, first), clip(row, row + 1), clip(last, end)],
        })
    }

    /// Where an offset bound lies: the first row of the frame, or the row after its last.
    #[allow(clippy::too_many_arguments)] // one for each thing a bound depends on
    fn edge(
        &self,
        p: &Partition,
        row: usize,
        offset: &OffsetNode,
        by: &Datum,
        preceding: bool,
        is_start: bool,
        env: &Env<'_>,
    ) -> Result<usize> {
        match self.node().unit {
            FrameUnit::Rows => {
                let n = count(by);
                let at = if preceding { row.checked_sub(n) } else { Some(row.saturating_add(n)) };
                Ok(match (at, is_start) {
                    (Some(at), true) => at.min(p.len),
                    (Some(at), false) => at.saturating_add(1).min(p.len),
                    (None, _) => 0,
                })
            }
            FrameUnit::Groups => {
                let (n, groups) = (count(by), p.group_starts.len() - 1);
                let at = if preceding { p.group(row).checked_sub(n) } else { Some(p.group(row).saturating_add(n)) };
                Ok(match (at, is_start) {
                    (Some(at), true) => p.group_starts[at.min(groups)],
                    (Some(at), false) => p.group_starts[at.saturating_add(1).min(groups)],
                    (None, _) => 0,
                })
            }
            FrameUnit::Range => self.range_edge(p, row, offset, by, preceding, is_start, env),
        }
    }

    #[allow(clippy::too_many_arguments)] // as `edge`
    fn range_edge(
        &self,
        p: &Partition,
        row: usize,
        offset: &OffsetNode,
        by: &Datum,
        preceding: bool,
        is_start: bool,
        env: &Env<'_>,
    ) -> Result<usize> {
        let key = &p.keys[row];
        if key.is_null() {
            // NULLs are peers of each other and near to nothing else.
            return Ok(if is_start { p.peers_start(row) } else { p.peers_end(row) });
        }
        let subtract = preceding != p.key_order.desc;
        let code = if subtract { &offset.minus } else { &offset.plus };
        let code = code.as_ref().ok_or_else(|| SqlError::internal("RANGE without an operator for its offset"))?;
        let (first, last) = self.not_null;
        let bound = match code.eval(&[key.clone(), by.clone()], env) {
            Ok(bound) => bound,
            // Beyond all values of the type.
            Err(e) if e.state() == state::NUMERIC_VALUE_OUT_OF_RANGE || e.state() == state::DATETIME_FIELD_OVERFLOW => {
                return Ok(if preceding { first } else { last });
            }
            Err(e) => return Err(e),
        };
        let keys = &p.keys[first..last];
        let before = |k: &Datum| {
            let order = value::order(k, &bound);
            let order = if p.key_order.desc { order.reverse() } else { order };
            if is_start { order == Ordering::Less } else { order != Ordering::Greater }
        };
        Ok(first + keys.partition_point(before))
    }
}

fn count(d: &Datum) -> usize {
    usize::try_from(value::integer(d).unwrap_or(0)).unwrap_or(0)
}

fn is_negative(d: &Datum) -> bool {
    match d {
        Datum::Float4(v) => *v < 0.0 || v.is_nan(),
        Datum::Float8(v) => *v < 0.0 || v.is_nan(),
        Datum::Numeric(v) => *v < crate::types::Numeric::from_i64(0),
        Datum::Interval(v) => {
            i128::from(v.months) * 30 * 86_400_000_000 + i128::from(v.days) * 86_400_000_000 + i128::from(v.micros) < 0
        }
        d => value::integer(d).is_some_and(|n| n < 0),
    }
}
