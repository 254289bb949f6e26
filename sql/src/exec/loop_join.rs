//! Nested loops: joins without a usable equality, lateral joins, and look-ups by key.
//!
//! A lateral inner side is started again for each left row, which it sees as its enclosing row; any other is read once
//! and kept (beyond `work_mem` in a file).

use std::sync::Arc;

use super::batch::{BATCH_ROWS, Batch};
use super::eval::Env;
use super::filter::all_hold;
use super::operator::{BoxOperator, Operator, open_node};
use super::spill::{BufferPlace, RowBuffer};
use crate::error::Result;
use crate::plan::node::{JoinType, LoopNode};
use crate::types::{Datum, Row};

/// A nested loop.
pub(crate) struct NestedLoop {
    node: Arc<LoopNode>,
    left: BoxOperator,
    /// The inner side; None for a lateral one until its first row.
    right: Option<BoxOperator>,
    /// Rows of an inner side that does not depend on the left row.
    kept: Option<RowBuffer>,
    /// Which of them had a partner, for RIGHT and FULL.
    partnered: Vec<bool>,
    rows: Batch,
    /// The left row at hand.
    at: usize,
    /// It is being joined: the inner side stands somewhere.
    inside: bool,
    found: bool,
    place: BufferPlace,
    /// Number in `kept` of the first row of `inner`.
    inner_first: usize,
    inner: Batch,
    /// The next row of `inner`.
    inner_at: usize,
    pair: Row,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Join,
    RightRest,
    Done,
}

impl NestedLoop {
    pub fn new(node: Arc<LoopNode>, env: &Env<'_>) -> Result<NestedLoop> {
        let left = open_node(&node.left, env)?;
        let right = if node.lateral { None } else { Some(open_node(&node.right, env)?) };
        let (rows, inner) = (Batch::new(node.left.width), Batch::new(node.right.width));
        Ok(NestedLoop {
            node,
            left,
            right,
            kept: None,
            partnered: Vec::new(),
            rows,
            at: 0,
            inside: false,
            found: false,
            place: BufferPlace::default(),
            inner_first: 0,
            inner,
            inner_at: 0,
            pair: Row::new(),
            phase: Phase::Join,
        })
    }

    fn keep_right(&mut self, env: &Env<'_>) -> Result<()> {
        let mut kept = RowBuffer::new(self.node.right.width, env.cx.session.work_mem_bytes);
        if let Some(right) = &mut self.right {
            super::operator::drain(&mut **right, env, |batch| kept.push_all(batch))?;
        }
        if matches!(self.node.join, JoinType::Right | JoinType::Full) {
            self.partnered = vec![false; kept.len()];
        }
        self.kept = Some(kept);
        Ok(())
    }

    /// Reads the next rows of the inner side into `inner`; false at its end.
    fn read_inner(&mut self, env: &Env<'_>, target: usize) -> Result<bool> {
        self.inner_first += self.inner.len();
        self.inner_at = 0;
        if let Some(kept) = &mut self.kept {
            self.inner.reset(self.node.right.width);
            self.inner.target = BATCH_ROWS;
            return kept.read(&mut self.place, &mut self.inner);
        }
        let outer = env.enclose(self.rows.row(self.at));
        let env = &Env::within(env.cx, &outer);
        // A pair is enough for Semi and Anti joins; conditions may need more.
        self.inner.target = target;
        match &mut self.right {
            Some(right) => right.next(env, &mut self.inner),
            None => Ok(false),
        }
    }

    /// Begins the join of the left row at hand.
    fn enter(&mut self, env: &Env<'_>) -> Result<()> {
        self.inside = true;
        self.found = false;
        self.place = BufferPlace::default();
        self.inner.reset(self.node.right.width);
        (self.inner_first, self.inner_at) = (0, 0);
        self.pair.clear();
        self.pair.extend_from_slice(self.rows.row(self.at));
        if self.node.lateral && !self.right.as_mut().is_some_and(|right| right.rewind()) {
            let outer = env.enclose(self.rows.row(self.at));
            self.right = Some(open_node(&self.node.right, &Env::within(env.cx, &outer))?);
        }
        Ok(())
    }

    /// Joins the left row at hand until `out` is full (false) or the row is done (true).
    fn join_row(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let join = self.node.join;
        let left_width = self.node.left.width;
        loop {
            while self.inner_at < self.inner.len() {
                if out.is_full() {
                    return Ok(false);
                }
                let at = self.inner_at;
                self.inner_at += 1;
                let holds = self.node.conditions.is_empty() || {
                    self.pair.truncate(left_width);
                    self.pair.extend_from_slice(self.inner.row(at));
                    all_hold(&self.node.conditions, &self.pair, env)?
                };
                if !holds {
                    continue;
                }
                self.found = true;
                match join {
                    JoinType::Semi => {
                        out.push(&self.pair[..left_width]);
                        return Ok(true);
                    }
                    JoinType::Anti => return Ok(true),
                    _ => out.push_pair(&self.pair[..left_width], self.inner.row(at)),
                }
                if let Some(partnered) = self.partnered.get_mut(self.inner_first + at) {
                    *partnered = true;
                }
            }
            env.check_cancel()?;
            if !self.read_inner(env, out.target)? {
                break;
            }
        }
        if !self.found {
            match join {
                JoinType::Left | JoinType::Full => {
                    out.values().extend_from_slice(&self.pair[..left_width]);
                    out.values().extend(std::iter::repeat_n(Datum::Null, self.node.right.width));
                    out.close_row();
                }
                JoinType::Anti => out.push(&self.pair[..left_width]),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Right rows without a partner.
    fn right_rest(&mut self, out: &mut Batch) -> Result<bool> {
        let Some(kept) = &mut self.kept else { return Ok(false) };
        while !out.is_full() {
            if self.inner_at >= self.inner.len() {
                self.inner_first += self.inner.len();
                self.inner_at = 0;
                self.inner.reset(self.node.right.width);
                if !kept.read(&mut self.place, &mut self.inner)? {
                    return Ok(false);
                }
            }
            if !self.partnered[self.inner_first + self.inner_at] {
                out.values().extend(std::iter::repeat_n(Datum::Null, self.node.left.width));
                out.values().extend_from_slice(self.inner.row(self.inner_at));
                out.close_row();
            }
            self.inner_at += 1;
        }
        Ok(true)
    }
}

impl Operator for NestedLoop {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let width = match self.node.join {
            JoinType::Semi | JoinType::Anti => self.node.left.width,
            _ => self.node.left.width + self.node.right.width,
        };
        out.reset(width);
        if !self.node.lateral && self.kept.is_none() {
            self.keep_right(env)?;
        }
        while self.phase == Phase::Join && !out.is_full() {
            if self.inside {
                if self.join_row(env, out)? {
                    self.inside = false;
                    self.at += 1;
                }
                continue;
            }
            if self.at < self.rows.len() {
                self.enter(env)?;
                continue;
            }
            self.rows.target = out.target;
            self.at = 0;
            if !self.left.next(env, &mut self.rows)? {
                self.rows.reset(self.node.left.width);
                self.place = BufferPlace::default();
                self.inner.reset(self.node.right.width);
                (self.inner_first, self.inner_at) = (0, 0);
                self.phase = if self.partnered.is_empty() { Phase::Done } else { Phase::RightRest };
            }
        }
        if self.phase == Phase::RightRest && !out.is_full() && !self.right_rest(out)? {
            self.phase = Phase::Done;
        }
        Ok(!out.is_empty())
    }
    fn rewind(&mut self) -> bool {
        // An inner side that is kept may depend on a row further out.
        if !self.left.rewind() || (!self.node.lateral && !self.right.as_mut().is_some_and(|right| right.rewind())) {
            return false;
        }
        self.kept = None;
        self.partnered.clear();
        self.rows.reset(self.node.left.width);
        self.at = 0;
        self.inside = false;
        self.phase = Phase::Join;
        true
    }
}
