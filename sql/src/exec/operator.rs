//! Operators: what a node of a plan becomes when it runs, and the cursor that callers hold.

use std::sync::Arc;
use std::time::Instant;

use super::ExecCx;
use super::batch::{BATCH_ROWS, Batch};
use super::eval::Env;
use super::spill::RowBuffer;
use super::{aggregate, cte, filter, foreign, hash_join, lock_rows, loop_join, scan, set_op, sort, source, window};
use crate::error::{Result, SqlError};
use crate::ir::{Dml, Field};
use crate::plan::node::{Access, Node, NodeKind, Physical};
use crate::types::Row;

/// A running node.
pub(crate) trait Operator: Send {
    /// Fills `out`, which it empties first, with at least one row; false, and no row, at the end (and ever after).
    /// About `out.target` rows are wanted. An error ends the operator.
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool>;

    /// Starts again for another enclosing row; false if it must be opened anew.
    fn rewind(&mut self) -> bool {
        false
    }
}

/// A running operator of any kind.
pub(crate) type BoxOperator = Box<dyn Operator>;

/// Makes the operators of a node and of all below it. Nothing is read yet.
pub(crate) fn open_node(node: &Arc<Node>, env: &Env<'_>) -> Result<BoxOperator> {
    let operator: BoxOperator = match &node.kind {
        NodeKind::Values(rows) => Box::new(source::Values::new(rows.clone(), node.width)),
        NodeKind::Constants(values) => Box::new(source::Constants::new(values.clone(), node.width)),
        NodeKind::Scan(scan) if matches!(scan.access, Access::Bee) => Box::new(foreign::BeeScan::new(scan.clone())?),
        NodeKind::Scan(scan) => Box::new(scan::Scan::new(scan.clone())),
        NodeKind::Virtual(n) => Box::new(source::Virtual::new(n.clone())),
        NodeKind::Function(n) => Box::new(source::Function::new(n.clone(), node.width)),
        NodeKind::Filter { input, conditions } => {
            Box::new(filter::Filter::new(open_node(input, env)?, conditions.clone()))
        }
        NodeKind::Project { input, exprs } => {
            Box::new(filter::Project::new(open_node(input, env)?, input.width, exprs.clone()))
        }
        NodeKind::Pick { input, columns } => {
            Box::new(filter::Pick::new(open_node(input, env)?, input.width, columns.clone()))
        }
        NodeKind::ProjectSet { input, items } => {
            Box::new(source::ProjectSet::new(open_node(input, env)?, input.width, items.clone()))
        }
        NodeKind::NestedLoop(n) => Box::new(loop_join::NestedLoop::new(n.clone(), env)?),
        NodeKind::HashJoin(n) => Box::new(hash_join::HashJoin::new(n.clone(), env)?),
        NodeKind::Aggregate(n) if n.sorted => Box::new(aggregate::SortedAggregate::new(n.clone(), env)?),
        NodeKind::Aggregate(n) => Box::new(aggregate::HashAggregate::new(n.clone(), env)?),
        NodeKind::Window(n) => Box::new(window::Window::new(n.clone(), node.id, env)?),
        NodeKind::Sort(n) => Box::new(sort::Sort::new(n.clone(), open_node(&n.input, env)?, node.id)),
        NodeKind::LockRows(n) => Box::new(lock_rows::LockRows::new(n.clone(), open_node(&n.input, env)?)),
        NodeKind::Limit(n) => Box::new(filter::Limit::new(n.clone(), open_node(&n.input, env)?)),
        NodeKind::Distinct { input, types } => Box::new(set_op::Distinct::new(open_node(input, env)?, types.clone())),
        NodeKind::Unique { input, keys } => {
            Box::new(set_op::Unique::new(open_node(input, env)?, input.width, keys.clone()))
        }
        NodeKind::Append(inputs) => {
            Box::new(set_op::Append::new(inputs.iter().map(|n| open_node(n, env)).collect::<Result<_>>()?))
        }
        NodeKind::SetOp(n) => Box::new(set_op::SetOperation::new(n.clone(), env)?),
        NodeKind::With(n) => Box::new(cte::With::new(n.clone(), env)?),
        NodeKind::CteScan { id, .. } => Box::new(cte::CteScan::new(*id, env)?),
        NodeKind::WorkScan { id, .. } => Box::new(cte::WorkScan::new(*id, env)?),
        NodeKind::Dml(n) => Box::new(source::Change::new(n.clone())),
    };
    Ok(match env.cx.shared.metrics() {
        Some(_) => Box::new(Measured { operator, id: node.id, opened: false }),
        None => operator,
    })
}

/// Reads an operator to its end.
pub(crate) fn drain(
    operator: &mut dyn Operator,
    env: &Env<'_>,
    mut take: impl FnMut(&mut Batch) -> Result<()>,
) -> Result<()> {
    let mut batch = Batch::default();
    while operator.next(env, &mut batch)? {
        env.check_cancel()?;
        take(&mut batch)?;
    }
    Ok(())
}

/// Counts rows and time of an operator for EXPLAIN ANALYZE.
struct Measured {
    operator: BoxOperator,
    id: usize,
    opened: bool,
}

impl Operator for Measured {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let waiting = env.cx.waiting.as_ref();
        let (start, before) = (Instant::now(), waiting.map(|w| w.fetched()).unwrap_or_default());
        let some = self.operator.next(env, out);
        if let Some(metrics) = env.cx.shared.metrics() {
            let fetched = waiting.map(|w| w.fetched().since(before)).unwrap_or_default();
            metrics.add(self.id, start, if matches!(some, Ok(true)) { out.len() } else { 0 }, fetched, !self.opened);
            self.opened = true;
        }
        some
    }
    fn rewind(&mut self) -> bool {
        let again = self.operator.rewind();
        if again {
            self.opened = false;
        }
        again
    }
}

/// A running statement: hands out its rows. Dropping it ends the statement and removes its temporary files.
pub struct Cursor {
    plan: Arc<Physical>,
    cx: Arc<ExecCx>,
    operator: BoxOperator,
    batch: Batch,
    at: usize,
    done: bool,
}

/// Starts a plan. Nothing is read before the first rows are asked for.
pub fn open(plan: &Arc<Physical>, cx: Arc<ExecCx>) -> Result<Cursor> {
    let operator = open_node(&plan.root, &Env::new(&cx))?;
    Ok(Cursor { plan: plan.clone(), cx, operator, batch: Batch::default(), at: 0, done: false })
}

impl Cursor {
    /// Shape of the rows.
    pub fn schema(&self) -> &Arc<[Field]> {
        &self.plan.schema
    }
    /// The plan it runs.
    pub fn plan(&self) -> &Arc<Physical> {
        &self.plan
    }
    /// The statement's surroundings.
    pub fn cx(&self) -> &Arc<ExecCx> {
        &self.cx
    }
    /// Rows changed by the statement's own INSERT, UPDATE or DELETE so far (not those inside WITH).
    pub fn changed(&self) -> u64 {
        self.cx.shared.changed()
    }
    /// The next rows, up to 1024; None at the end.
    pub fn next_batch(&mut self) -> Result<Option<Vec<Row>>> {
        self.next_rows(BATCH_ROWS)
    }
    /// The next rows, up to `max` (at least 1); None at the end.
    pub fn next_rows(&mut self, max: usize) -> Result<Option<Vec<Row>>> {
        if self.at >= self.batch.len() && !self.fetch(max)? {
            return Ok(None);
        }
        if self.at == 0 && self.batch.len() <= max {
            return Ok(Some(self.batch.take_rows()));
        }
        let end = self.batch.len().min(self.at + max);
        let rows = (self.at..end).map(|i| self.batch.take_row(i)).collect();
        self.at = end;
        Ok(Some(rows))
    }
    /// Calls `each` with rows until it has seen `max` of them or there are no more, without making vectors of them; true if
    /// there may be more.
    pub fn for_each(&mut self, max: usize, mut each: impl FnMut(&[crate::types::Datum]) -> Result<()>) -> Result<bool> {
        let mut seen = 0;
        while seen < max {
            if self.at >= self.batch.len() && !self.fetch(max - seen)? {
                return Ok(false);
            }
            while self.at < self.batch.len() && seen < max {
                each(self.batch.row(self.at))?;
                self.at += 1;
                seen += 1;
            }
        }
        Ok(true)
    }
    /// All rows that are left, beyond work_mem in a file.
    pub fn gather(&mut self) -> Result<RowBuffer> {
        let mut all = RowBuffer::new(self.plan.root.width, self.cx.session.work_mem_bytes);
        self.for_each(usize::MAX, |row| all.push(row))?;
        Ok(all)
    }
    /// All rows that are left, in memory: for queries known to give few.
    pub fn collect(&mut self) -> Result<Vec<Row>> {
        let mut all = Vec::new();
        while let Some(rows) = self.next_batch()? {
            all.extend(rows);
        }
        Ok(all)
    }

    fn fetch(&mut self, max: usize) -> Result<bool> {
        self.at = 0;
        self.batch.reset(0);
        if self.done {
            return Ok(false);
        }
        let env = Env::new(&self.cx);
        env.check_cancel()?;
        self.batch.target = max.clamp(1, BATCH_ROWS);
        let some = self.operator.next(&env, &mut self.batch);
        self.done = !matches!(some, Ok(true));
        some
    }
}

/// The rows of a change's source, for [`super::DmlRunner`]: by the plan that was made together with the statement's.
pub fn dml_source(dml: &Dml, cx: &ExecCx) -> Result<Cursor> {
    let Some(root) = cx.shared.source(dml) else {
        return Err(SqlError::internal("a change runs outside its plan"));
    };
    let plan =
        Arc::new(Physical { root, schema: Arc::from([]), nodes: 0, names: Default::default(), subplans: Vec::new() });
    open(&plan, Arc::new(cx.clone()))
}
