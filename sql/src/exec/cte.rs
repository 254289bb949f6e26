//! WITH: definitions run once and read any number of times; recursion.
//!
//! A definition's rows are made when a reader first needs them and kept for the others, beyond `work_mem` in a file, so
//! `WITH RECURSIVE ... LIMIT 10` ends although the recursion would not. A definition that changes rows is run to its end first.

use std::sync::Arc;

use parking_lot::Mutex;

use super::batch::Batch;
use super::eval::Env;
use super::operator::{BoxOperator, Operator, open_node};
use super::set_op::RowSet;
use super::spill::{BufferPlace, RowBuffer};
use crate::error::Result;
use crate::memory::Reservation;
use crate::plan::node::{CteNode, Node, WithNode};
use crate::types::Type;

/// A definition's rows so far and what makes more of them.
pub(crate) struct CteStore {
    state: Mutex<CteState>,
}

struct CteState {
    rows: RowBuffer,
    maker: Maker,
    /// Enclosing rows around the WITH: a reader may stand deeper.
    depth: usize,
    batch: Batch,
}

enum Maker {
    Plain(BoxOperator),
    Recursive(Box<Recursion>),
    Done,
}

struct Recursion {
    id: usize,
    term: Arc<Node>,
    current: BoxOperator,
    /// Rows of this round: the next round's working table.
    round: RowBuffer,
    /// All rows so far, for UNION, with what they reserve: each new row is to be looked for among them.
    seen: Option<(RowSet, Reservation)>,
    types: Vec<Type>,
    limit: usize,
}

impl CteStore {
    fn open(cte: &CteNode, env: &Env<'_>) -> Result<CteStore> {
        let (width, limit) = (cte.definition.width, env.cx.session.work_mem_bytes);
        let definition = open_node(&cte.definition, env)?;
        let maker = match &cte.recursive {
            None => Maker::Plain(definition),
            Some(term) => Maker::Recursive(Box::new(Recursion {
                id: cte.id,
                term: term.clone(),
                current: definition,
                round: RowBuffer::new(width, limit),
                seen: (!cte.all).then(|| (RowSet::new(width), env.cx.session.memory.reservation("WITH RECURSIVE"))),
                types: cte.types.clone(),
                limit,
            })),
        };
        Ok(CteStore {
            state: Mutex::new(CteState {
                rows: RowBuffer::new(width, limit),
                maker,
                depth: env.depth(),
                batch: Batch::new(width),
            }),
        })
    }

    /// Makes all rows.
    fn complete(&self, env: &Env<'_>) -> Result<()> {
        let mut state = self.state.lock();
        while state.more(env)? {}
        Ok(())
    }

    fn read(&self, place: &mut BufferPlace, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let mut state = self.state.lock();
        out.reset(state.rows.width());
        loop {
            if state.rows.read(place, out)? {
                return Ok(true);
            }
            state.batch.target = out.target;
            if !state.more(env)? {
                return Ok(false);
            }
        }
    }
}

impl CteState {
    /// Makes some rows; false at the end.
    fn more(&mut self, env: &Env<'_>) -> Result<bool> {
        let env = &env.at_depth(self.depth);
        env.check_cancel()?;
        let some = match &mut self.maker {
            Maker::Done => return Ok(false),
            Maker::Plain(operator) => operator.next(env, &mut self.batch)?,
            Maker::Recursive(recursion) => recursion.next(env, &mut self.batch)?,
        };
        if some {
            self.rows.push_all(&self.batch)?;
        } else {
            self.maker = Maker::Done;
        }
        Ok(some)
    }
}

impl Recursion {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        loop {
            env.check_cancel()?;
            if self.current.next(env, out)? {
                if let Some((seen, held)) = &mut self.seen {
                    out.retain(0, |row| Ok(seen.insert(row, &self.types)))?;
                    held.set(seen.bytes())?;
                }
                if !out.is_empty() {
                    self.round.push_all(out)?;
                    return Ok(true);
                }
                continue;
            }
            if self.round.is_empty() {
                return Ok(false);
            }
            let round = std::mem::replace(&mut self.round, RowBuffer::new(out.width(), self.limit));
            env.cx.shared.set_working(self.id, Arc::new(Mutex::new(round)));
            self.current = open_node(&self.term, env)?;
        }
    }
}

/// WITH around a query.
pub(crate) struct With {
    /// Stores of definitions to be run first.
    first: Vec<Arc<CteStore>>,
    body: BoxOperator,
}

impl With {
    pub fn new(node: Arc<WithNode>, env: &Env<'_>) -> Result<With> {
        let mut first = Vec::new();
        for cte in &node.ctes {
            let store = Arc::new(CteStore::open(cte, env)?);
            if cte.writes {
                first.push(store.clone());
            }
            env.cx.shared.set_cte(cte.id, store);
        }
        Ok(With { first, body: open_node(&node.body, env)? })
    }
}

impl Operator for With {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        for store in std::mem::take(&mut self.first) {
            store.complete(env)?;
        }
        self.body.next(env, out)
    }
}

/// A reader of a CTE.
pub(crate) struct CteScan {
    store: Arc<CteStore>,
    place: BufferPlace,
}

impl CteScan {
    pub fn new(id: usize, env: &Env<'_>) -> Result<CteScan> {
        Ok(CteScan { store: env.cx.shared.cte(id)?, place: BufferPlace::default() })
    }
}

impl Operator for CteScan {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        self.store.read(&mut self.place, env, out)
    }
    fn rewind(&mut self) -> bool {
        // The store may be another one by now if the WITH was opened again; then this operator is, too.
        self.place = BufferPlace::default();
        true
    }
}

/// A reader of the last round's rows.
pub(crate) struct WorkScan {
    rows: Arc<Mutex<RowBuffer>>,
    place: BufferPlace,
}

impl WorkScan {
    pub fn new(id: usize, env: &Env<'_>) -> Result<WorkScan> {
        Ok(WorkScan { rows: env.cx.shared.working(id)?, place: BufferPlace::default() })
    }
}

impl Operator for WorkScan {
    fn next(&mut self, _: &Env<'_>, out: &mut Batch) -> Result<bool> {
        let mut rows = self.rows.lock();
        out.reset(rows.width());
        rows.read(&mut self.place, out)
    }
    fn rewind(&mut self) -> bool {
        self.place = BufferPlace::default();
        true
    }
}
