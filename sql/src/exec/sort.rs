//! ORDER BY.

use std::sync::Arc;

use super::batch::Batch;
use super::code::Code;
use super::eval::Env;
use super::operator::{BoxOperator, Operator};
use super::sorter::{SortColumn, Sorter};
use super::value;
use crate::error::Result;
use crate::plan::node::SortNode;
use crate::types::Type;

/// A sort: gathers all, or the first few, rows of its input.
pub(crate) struct Sort {
    node: Arc<SortNode>,
    input: BoxOperator,
    width: usize,
    sorter: Option<Sorter>,
    id: usize,
}

impl Sort {
    pub fn new(node: Arc<SortNode>, input: BoxOperator, id: usize) -> Sort {
        let width = node.input.width;
        Sort { node, input, width, sorter: None, id }
    }

    fn gather(&mut self, env: &Env<'_>) -> Result<Sorter> {
        // Keys that are plain columns are read where they stand; others are computed once and kept behind the row.
        let (mut columns, mut computed) = (Vec::new(), Vec::new());
        for ((prog, order), ty) in self.node.keys.iter().zip(&self.node.types) {
            let column = match &prog.code {
                Code::Column(c) if !value::needs_normalising(*ty) => *c,
                code => {
                    computed.push((code, *ty));
                    self.width + computed.len() - 1
                }
            };
            columns.push(SortColumn { column, order: *order });
        }
        let top = match &self.node.limit {
            Some(count) => count.rows(env)?,
            None => None,
        };
        let mut sorter = Sorter::new(self.width + computed.len(), columns, env.cx.session.work_mem_bytes, top);
        let mut batch = Batch::new(self.width);
        while self.input.next(env, &mut batch)? {
            env.check_cancel()?;
            for i in 0..batch.len() {
                let values = sorter.begin_row();
                values.extend_from_slice(batch.row(i));
                for (code, ty) in &computed {
                    values.push(normalised(code.eval(batch.row(i), env)?, *ty));
                }
                sorter.end_row(env)?;
            }
        }
        sorter.finish(env)?;
        if let Some(metrics) = env.cx.shared.metrics() {
            metrics.gathered(self.id, sorter.bytes(), sorter.memory_used().is_none());
        }
        Ok(sorter)
    }
}

pub(crate) fn normalised(d: crate::types::Datum, ty: Type) -> crate::types::Datum {
    if value::needs_normalising(ty) { value::normalise(d, ty) } else { d }
}

impl Operator for Sort {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.width);
        if self.sorter.is_none() {
            self.sorter = Some(self.gather(env)?);
        }
        let Some(sorter) = &mut self.sorter else { return Ok(false) };
        sorter.read(out, self.width)
    }
    fn rewind(&mut self) -> bool {
        self.sorter = None;
        self.input.rewind()
    }
}
