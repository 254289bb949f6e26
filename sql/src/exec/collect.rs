//! The states of aggregates over one group.
//!
//! A state that grows with its rows cannot be put on disk: it reserves what it holds. DISTINCT, ORDER BY and WITHIN GROUP sort their rows
//! first, beyond `work_mem` in files; what then takes the sorted rows may grow again.

use super::batch::Batch;
use super::eval::Env;
use super::sorter::{SortColumn, Sorter};
use super::value::{self, KeyOrder};
use crate::error::Result;
use crate::functions::FnCx;
use crate::functions::registry::AggState;
use crate::memory::Reservation;
use crate::plan::node::AggNode;
use crate::types::{Datum, Row};

/// One aggregate over one group.
pub(crate) enum Slot {
    /// count(*) and count(x).
    Count(i64),
    /// Any other, with what it reserved if it grows.
    State(Box<dyn AggState>, Option<Reservation>),
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
            let mut width = args + self.order_by.len();
            if self.distinct {
                let order = KeyOrder { desc: false, nulls_first: false };
                for (column, ty) in self.arg_types[..args].iter().enumerate() {
                    // What equality overlooks is kept out of the key behind the row.
                    let normalised = value::needs_normalising(*ty);
                    keys.push(SortColumn { column: if normalised { width } else { column }, order });
                    width += usize::from(normalised);
                }
            }
            Slot::Sorted(Box::new(Sorter::new(width, keys, limit, None)))
        } else if self.counts() {
            Slot::Count(0)
        } else {
            Slot::State((self.func.new)(&self.fn_cx(env)), self.reservation(env))
        }
    }

    /// Whether what a group holds may grow with its rows, so that it must be watched.
    pub(crate) fn grows(&self) -> bool {
        self.sorts() || self.state_grows()
    }

    fn state_grows(&self) -> bool {
        match self.func.name {
            // One value; but the next may be larger.
            "min" | "max" | "any_value" => self.arg_types.iter().any(|t| t.info().is_none_or(|info| info.len < 0)),
            name => !FIXED.contains(&name),
        }
    }

    fn reservation(&self, env: &Env<'_>) -> Option<Reservation> {
        self.state_grows().then(|| env.cx.session.memory.reservation(self.func.name))
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
            Slot::State(state, held) => {
                state.update(scratch, &self.fn_cx(env))?;
                if let Some(held) = held {
                    held.set(state.heap_bytes())?;
                }
            }
            Slot::Sorted(sorter) => {
                for (key, _) in &self.order_by {
                    scratch.push(super::sort::normalised(key.code.eval(row, env)?, key.expr.ty.ty));
                }
                for (i, ty) in self.arg_types[..self.args.len()].iter().enumerate() {
                    if self.distinct && value::needs_normalising(*ty) {
                        scratch.push(super::sort::normalised(scratch[i].clone(), *ty));
                    }
                }
                sorter.push(scratch, env)?;
            }
        }
        Ok(())
    }

    fn same_args(&self, a: &[Datum], b: &[Datum]) -> bool {
        a.iter().zip(b).zip(self.arg_types.iter()).all(|((a, b), ty)| match (a.is_null(), b.is_null()) {
            (false, false) => value::order_as(*ty, a, b).is_eq(),
            (a, b) => a == b,
        })
    }

    /// The result of a slot over the rows it took until now.
    pub(crate) fn result(&self, slot: &mut Slot, env: &Env<'_>) -> Result<Datum> {
        match slot {
            Slot::Count(n) => Ok(Datum::Int8(*n)),
            Slot::State(state, _) => state.finish(&self.fn_cx(env)),
            // Over a window no aggregate sorts.
            other => self.finish(std::mem::replace(other, Slot::Count(0)), env),
        }
    }

    /// The result of a slot that is done with.
    pub(crate) fn finish(&self, slot: Slot, env: &Env<'_>) -> Result<Datum> {
        match slot {
            Slot::Count(n) => Ok(Datum::Int8(n)),
            Slot::State(state, _held) => state.finish_last(&self.fn_cx(env)),
            Slot::Sorted(mut sorter) => {
                let cx = self.fn_cx(env);
                let (mut state, mut held) = ((self.func.new)(&cx), self.reservation(env));
                sorter.finish(env)?;
                let args = self.args.len();
                let (mut batch, mut last) = (Batch::new(args), None::<Row>);
                loop {
                    batch.reset(args);
                    if !sorter.read(&mut batch, args)? {
                        return state.finish_last(&cx);
                    }
                    env.check_cancel()?;
                    for row in batch.iter() {
                        if self.distinct {
                            if last.as_ref().is_some_and(|last| self.same_args(last, row)) {
                                continue;
                            }
                            last = Some(row.to_vec());
                        }
                        state.update(row, &cx)?;
                        if let Some(held) = &mut held {
                            held.set(state.heap_bytes())?;
                        }
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
            Slot::State(state, _) => state.heap_bytes() + 64,
            Slot::Sorted(sorter) => sorter.bytes() + 256,
        }
    }
}

/// Aggregates whose states do not grow with the rows they take.
const FIXED: &[&str] = &[
    "count",
    "sum",
    "avg",
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
];
