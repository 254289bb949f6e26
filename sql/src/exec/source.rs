//! Operators whose rows come from somewhere else than a table: literals, relations made on the fly, functions, changes.

use std::sync::Arc;

use super::batch::Batch;
use super::eval::Env;
use super::filter::all_hold;
use super::operator::{BoxOperator, Operator};
use super::spill::{BufferPlace, RowBuffer};
use crate::error::{Result, SqlError, state};
use crate::functions::FnCx;
use crate::functions::registry::{SetFn, SetIter};
use crate::ir::DmlKind;
use crate::plan::node::{DmlNode, FunctionNode, Prog, SetItem, VirtualNode};
use crate::types::datum::Record;
use crate::types::{Datum, Row};

/// Literal rows.
pub(crate) struct Values {
    rows: Arc<Vec<Vec<Prog>>>,
    width: usize,
    at: usize,
}

impl Values {
    pub fn new(rows: Arc<Vec<Vec<Prog>>>, width: usize) -> Values {
        Values { rows, width, at: 0 }
    }
}

impl Operator for Values {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.width);
        while self.at < self.rows.len() && !out.is_full() {
            for expr in &self.rows[self.at] {
                let value = expr.code.eval(&[], env)?;
                out.values().push(value);
            }
            out.close_row();
            self.at += 1;
        }
        Ok(!out.is_empty())
    }
    fn rewind(&mut self) -> bool {
        self.at = 0;
        true
    }
}

/// Many rows of constants.
pub(crate) struct Constants {
    values: Arc<[Datum]>,
    width: usize,
    at: usize,
}

impl Constants {
    pub fn new(values: Arc<[Datum]>, width: usize) -> Constants {
        Constants { values, width, at: 0 }
    }
}

impl Operator for Constants {
    fn next(&mut self, _: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.width);
        while self.at < self.values.len() && !out.is_full() {
            out.push(&self.values[self.at..self.at + self.width]);
            self.at += self.width;
        }
        Ok(!out.is_empty())
    }
    fn rewind(&mut self) -> bool {
        self.at = 0;
        true
    }
}

/// A relation made on the fly. Its iterator borrows the statement, so its rows (those wanted) are gathered at once.
pub(crate) struct Virtual {
    node: Arc<VirtualNode>,
    rows: Option<(RowBuffer, BufferPlace)>,
}

impl Virtual {
    pub fn new(node: Arc<VirtualNode>) -> Virtual {
        Virtual { node, rows: None }
    }

    fn gather(&self, env: &Env<'_>) -> Result<RowBuffer> {
        let node = &*self.node;
        let mut kept = RowBuffer::new(node.columns.len(), env.cx.session.work_mem_bytes);
        let limit = match &node.limit {
            Some(count) => count.rows(env)?,
            None => None,
        };
        let args = node.args.iter().map(|a| a.code.eval(&[], env)).collect::<Result<Row>>()?;
        let mut equals = Vec::with_capacity(node.equals.len());
        for (column, value) in &node.equals {
            let value = value.code.eval(&[], env)?;
            if value.is_null() {
                return Ok(kept);
            }
            equals.push((*column, value));
        }
        if limit == Some(0) {
            return Ok(kept);
        }
        let mut wanted = Row::new();
        for (count, row) in node.table.rows(&args, &equals, env.cx)?.enumerate() {
            if count % 256 == 0 {
                env.check_cancel()?;
            }
            let mut row = row?;
            wanted.clear();
            wanted.extend(node.columns.iter().map(|c| row.get_mut(*c).map(std::mem::take).unwrap_or_default()));
            if all_hold(&node.filter, &wanted, env)? {
                kept.push(&wanted)?;
                if limit == Some(kept.len()) {
                    break;
                }
            }
        }
        Ok(kept)
    }
}

impl Operator for Virtual {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.columns.len());
        if self.rows.is_none() {
            self.rows = Some((self.gather(env)?, BufferPlace::default()));
        }
        match &mut self.rows {
            Some((rows, place)) => rows.read(place, out),
            None => Ok(false),
        }
    }
    fn rewind(&mut self) -> bool {
        self.rows = None;
        true
    }
}

/// An item of a row being expanded.
enum Running {
    Scalar(Datum),
    Set(Option<SetIter>),
}

fn start(item: &SetItem, row: &[Datum], env: &Env<'_>) -> Result<Running> {
    match item {
        SetItem::Scalar(prog) => Ok(Running::Scalar(prog.code.eval(row, env)?)),
        SetItem::Set { func, arg_types, ret, args, .. } => {
            let args = args.iter().map(|a| a.code.eval(row, env)).collect::<Result<Row>>()?;
            if func.strict && args.iter().any(Datum::is_null) {
                return Ok(Running::Set(None));
            }
            let cx = FnCx { session: &env.cx.session, arg_types, ret: ret.ty, typmod: ret.typmod };
            Ok(Running::Set(Some((func.imp)(&args, &cx)?)))
        }
    }
}

/// The next row of a set; the iterator is dropped at its end.
fn pull(set: &mut Option<SetIter>) -> Result<Option<Row>> {
    let next = set.as_mut().and_then(Iterator::next).transpose()?;
    if next.is_none() {
        *set = None;
    }
    Ok(next)
}

fn as_value(mut row: Row, func: &SetFn) -> Datum {
    if row.len() == 1 {
        return row.pop().unwrap_or_default();
    }
    let fields = func.columns.iter().map(|(name, ty)| (Arc::from(*name), ty.plain())).collect();
    Datum::Record(Arc::new(Record { fields, values: row }))
}

/// Select list with set-returning functions: several rows for each row of the input.
pub(crate) struct ProjectSet {
    input: BoxOperator,
    rows: Batch,
    at: usize,
    items: Arc<Vec<SetItem>>,
    running: Vec<Running>,
}

impl ProjectSet {
    pub fn new(input: BoxOperator, width: usize, items: Arc<Vec<SetItem>>) -> ProjectSet {
        ProjectSet { input, rows: Batch::new(width), at: 0, items, running: Vec::new() }
    }

    /// Appends the next row made of the current input row; false when there is none left.
    fn expand(&mut self, out: &mut Batch) -> Result<bool> {
        let mut some = false;
        let mut values = Row::with_capacity(self.items.len());
        for (running, item) in self.running.iter_mut().zip(self.items.iter()) {
            values.push(match (running, item) {
                (Running::Scalar(value), _) => value.clone(),
                (Running::Set(set), SetItem::Set { func, .. }) => match pull(set)? {
                    Some(row) => {
                        some = true;
                        as_value(row, func)
                    }
                    None => Datum::Null,
                },
                (Running::Set(_), SetItem::Scalar(_)) => Datum::Null,
            });
        }
        if some {
            out.push_owned(values);
        }
        Ok(some)
    }
}

impl Operator for ProjectSet {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.items.len());
        let mut steps = 0u32;
        loop {
            while !self.running.is_empty() && !out.is_full() {
                if !self.expand(out)? {
                    self.running.clear();
                }
            }
            if out.is_full() {
                return Ok(true);
            }
            steps += 1;
            if steps.is_multiple_of(256) {
                env.check_cancel()?;
            }
            if self.at >= self.rows.len() {
                if !out.is_empty() {
                    return Ok(true);
                }
                self.rows.target = out.target;
                self.at = 0;
                if !self.input.next(env, &mut self.rows)? {
                    return Ok(false);
                }
            }
            let row = self.rows.row(self.at);
            self.running = self.items.iter().map(|item| start(item, row, env)).collect::<Result<_>>()?;
            self.at += 1;
        }
    }
    fn rewind(&mut self) -> bool {
        self.rows.reset(self.rows.width());
        self.at = 0;
        self.running.clear();
        self.input.rewind()
    }
}

/// Functions in FROM, side by side.
pub(crate) struct Function {
    node: Arc<FunctionNode>,
    width: usize,
    running: Option<Vec<Running>>,
    count: i64,
}

impl Function {
    pub fn new(node: Arc<FunctionNode>, width: usize) -> Function {
        Function { node, width, running: None, count: 0 }
    }
}

impl Operator for Function {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.width);
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(self.node.calls.iter().map(|call| start(&call.item, &[], env)).collect::<Result<_>>()?),
        };
        let mut row = Row::with_capacity(self.width);
        while !out.is_full() {
            let mut some = false;
            for (running, call) in running.iter_mut().zip(&self.node.calls) {
                let values = match running {
                    Running::Set(set) => pull(set)?,
                    // A scalar function gives one row; its value is taken, so that there is no second.
                    Running::Scalar(value) if self.count == 0 => Some(match (std::mem::take(value), call.expand) {
                        (Datum::Record(r), true) => r.values.clone(),
                        (Datum::Null, true) => vec![Datum::Null; call.width],
                        (value, _) => vec![value],
                    }),
                    Running::Scalar(_) => None,
                };
                some |= values.is_some();
                let end = row.len() + call.width;
                row.extend(values.into_iter().flatten().take(call.width));
                row.resize(end, Datum::Null);
            }
            if !some {
                break;
            }
            self.count += 1;
            if self.node.ordinality {
                row.push(Datum::Int8(self.count));
            }
            out.push_owned(row.drain(..));
        }
        if self.count % 4096 < 1024 {
            env.check_cancel()?;
        }
        Ok(!out.is_empty())
    }
    fn rewind(&mut self) -> bool {
        self.running = None;
        self.count = 0;
        true
    }
}

/// A change of rows: done at the first call, whole; then its RETURNING rows.
pub(crate) struct Change {
    node: Arc<DmlNode>,
    rows: Option<(RowBuffer, BufferPlace)>,
}

impl Change {
    pub fn new(node: Arc<DmlNode>) -> Change {
        Change { node, rows: None }
    }

    fn run(&self, env: &Env<'_>) -> Result<RowBuffer> {
        let dml = &*self.node.dml;
        let Some(writer) = &env.cx.writer else {
            let what = match dml.kind {
                DmlKind::Insert { .. } => "INSERT",
                DmlKind::Update { .. } => "UPDATE",
                DmlKind::Delete { .. } => "DELETE",
            };
            return Err(SqlError::new(
                state::READ_ONLY_SQL_TRANSACTION,
                format!("cannot execute {what} in a read-only transaction"),
            ));
        };
        env.cx.shared.set_source(dml, &self.node.source);
        let (rows, changed) = writer.run(dml, env.cx)?;
        if self.node.top {
            env.cx.shared.add_changed(changed);
        }
        Ok(rows)
    }
}

impl Operator for Change {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.dml.schema.len());
        if self.rows.is_none() {
            self.rows = Some((self.run(env)?, BufferPlace::default()));
        }
        match &mut self.rows {
            Some((rows, place)) => rows.read(place, out),
            None => Ok(false),
        }
    }
}
