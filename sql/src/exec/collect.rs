//! The states of aggregates over one group.

use super::batch::Batch;
use super::eval::Env;
use super::sorter::{SortColumn, Sorter};
use super::value::{self, KeyOrder};
use crate::error::Result;
use crate::functions::FnCx;
use crate::functions::registry::AggState;
use crate::plan::node::AggNode;
use crate::types::{Datum, Row};

/// One aggregate over one group.
pub(crate) enum Slot {
    /// count(*) and count(x).
    Count(i64),
    /// Any other.
    State(Box<dyn AggState>),
    /// DISTINCT, ORDER BY or WITHIN GROUP: arguments are kept, sorted, and fed to the state at the end.
    Sorted(Box<Sorter>),
}

impl AggNode {
    pub(crate) fn fn_cx<'a>(&'a self, env: &Env<'a>) -> FnCx<'a> {
        FnCx { session: &env.cx.session, arg_types: &self.arg_types, ret: self.ret.ty, typmod: self.ret.typmod }
    }

    fn counts(&self) -> bool {
        self.func.name == "count" && self.args.len() <= 1
    }

    fn sorts(&self) -> bool {
        self.distinct || !self.order_by.is_empty() || self.func.ordered_set.is_some()
    }

    /// A state of no rows. A sorted one may hold `limit` bytes.
    pub(crate) fn slot(&self, env: &Env<'_>, limit: usize) -> Slot {
        if self.sorts() {
            let args = self.args.len();
            let mut keys: Vec<SortColumn> = self
                .order_by
                .iter()
                .enumerate()
                .map(|(i, (_, order))| SortColumn { column: args + i, order: *order })
                .collect();
            if self.distinct {
                let order = KeyOrder { desc: false, nulls_first: false };
                keys.extend((0..args).map(|column| SortColumn { column, order }));
            }
            Slot::Sorted(Box::new(Sorter::new(args + self.order_by.len(), keys, limit, None)))
        } else if self.counts() {
            Slot::Count(0)
        } else {
            Slot::State((self.func.new)(&self.fn_cx(env)))
        }
    }

    /// Whether a state keeps something of every row, so that its memory must be watched.
    pub(crate) fn grows(&self) -> bool {
        self.sorts() || !FIXED.contains(&self.func.name)
    }

    /// Takes a row into a slot. `scratch` is for the arguments.
    #[inline]
    pub(crate) fn take(&self, slot: &mut Slot, row: &[Datum], scratch: &mut Row, env: &Env<'_>) -> Result<()> {
        if let Some(filter) = &self.filter
            && filter.code.eval_bool(row, env)? != Some(true)
        {
            return Ok(());
        }
        scratch.clear();
        for arg in &self.args {
            let value = arg.code.eval(row, env)?;
            if self.func.strict && value.is_null() {
                return Ok(());
            }
            scratch.push(value);
        }
        match slot {
            Slot::Count(n) => *n += i64::from(!scratch.first().is_some_and(Datum::is_null)),
            Slot::State(state) => state.update(scratch, &self.fn_cx(env))?,
            Slot::Sorted(sorter) => {
                for (key, _) in &self.order_by {
                    scratch.push(super::sort::normalised(key.code.eval(row, env)?, key.expr.ty.ty));
                }
                sorter.push(scratch, env)?;
            }
        }
        Ok(())
    }

    /// The result of a slot.
    pub(crate) fn finish(&self, slot: &mut Slot, env: &Env<'_>) -> Result<Datum> {
        match slot {
            Slot::Count(n) => Ok(Datum::Int8(*n)),
            Slot::State(state) => state.finish(&self.fn_cx(env)),
            Slot::Sorted(sorter) => {
                let cx = self.fn_cx(env);
                let mut state = (self.func.new)(&cx);
                sorter.finish(env)?;
                let args = self.args.len();
                let (mut batch, mut last) = (Batch::new(args), None::<Row>);
                loop {
                    batch.reset(args);
                    if !sorter.read(&mut batch, args)? {
                        return state.finish(&cx);
                    }
                    env.check_cancel()?;
                    for row in batch.iter() {
                        if self.distinct {
                            if last.as_ref().is_some_and(|last| value::same_rows(last, row)) {
                                continue;
                            }
                            last = Some(row.to_vec());
                        }
                        state.update(row, &cx)?;
                    }
                }
            }
        }
    }
}

impl Slot {
    /// Bytes held beyond the slot.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Slot::Count(_) => 0,
            Slot::State(state) => state.heap_bytes() + 64,
            Slot::Sorted(sorter) => sorter.bytes() + 256,
        }
    }
}

/// Aggregates whose states do not grow with the rows they take.
const FIXED: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "bit_and",
    "bit_or",
    "bit_xor",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "any_value",
];
