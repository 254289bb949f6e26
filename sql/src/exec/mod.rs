//! Running a plan: operators that pull batches of rows from the ones below.
//!
//! Execution is synchronous and single-threaded a statement: a caller on a blocking-capable thread asks for the next batch. The
//! only shared state of a statement is [`ExecCx`]. Every operator that can hold many rows (sort, hash, aggregate, CTE, window) counts its bytes and
//! spills beyond `work_mem`. What cannot be put on disk (an array being collected, the rows a recursion has seen) is reserved of the statement's
//! [`Account`](crate::memory::Account) and fails with 53200 at its limit, so that no query ends the process.
//!
//! ```text
//! plan::Physical --open--> Cursor --next_batch--> rows
//!    Node tree             Operator tree: one struct an open node, made by `operator::open`
//!    Code (expressions)    Env: statement + stack of enclosing rows, handed down at every call
//! ```
//!
//! Rows travel in a [`batch::Batch`], one flat vector of values that is filled, read and filled again: an operator
//! allocates nothing a row. A batch is full at 1024 rows or a megabyte of values. A plan is never changed by running it; two sessions may run one plan at once.

mod aggregate;
pub mod batch;
pub mod code;
mod collect;
mod cte;
mod eval;
mod filter;
mod foreign;
mod frame;
mod hash;
mod hash_join;
mod lock_rows;
mod loop_join;
mod metrics;
mod operator;
mod pattern;
mod range;
mod scan;
mod set_op;
mod sort;
mod sorter;
mod source;
mod spill;
mod subplan;
pub mod value;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use pgbee_engine::txn::{Database, ReadView};

pub use batch::Batch;
pub use eval::{Env, Outer};
pub use metrics::{Metrics, NodeMetrics};
pub use operator::{Cursor, dml_source, open};
pub(crate) use pattern::Pattern;
pub(crate) use scan::{nowhere, place_of};
pub use spill::{BufferPlace, RowBuffer};
pub use subplan::{Shared, SubKind, SubPlan};

use crate::error::Result;
use crate::functions::SessionCx;
use crate::types::Datum;
use crate::wait::Waiting;

/// What all operators of a running statement share.
#[derive(Clone)]
pub struct ExecCx {
    /// Settings, time, catalog, cancellation.
    pub session: Arc<SessionCx>,
    /// The database, for reads at other versions, history and diff.
    pub database: Arc<Database>,
    /// What this statement reads: a snapshot and the transaction's own earlier writes.
    pub view: ReadView,
    /// Parameter values.
    pub params: Vec<Datum>,
    /// Carries out Dml nodes; None in read-only contexts (then a Dml node is 25006).
    pub writer: Option<Arc<dyn DmlRunner>>,
    /// What the statement's operators keep for each other: CTEs, results of subqueries, measurements. `Arc::default()` for a new statement.
    pub shared: Arc<Shared>,
    /// How blocks of peers are waited for; None where all of them are here.
    pub waiting: Option<Arc<Waiting>>,
}

impl ExecCx {
    /// Surroundings of a new statement.
    pub fn new(
        session: Arc<SessionCx>,
        database: Arc<Database>,
        view: ReadView,
        params: Vec<Datum>,
        writer: Option<Arc<dyn DmlRunner>>,
    ) -> ExecCx {
        ExecCx { session, database, view, params, writer, shared: Arc::default(), waiting: None }
    }
}

/// Carries out INSERT, UPDATE and DELETE nodes found in a plan. Implemented in `write`.
pub trait DmlRunner: Send + Sync {
    /// Runs the change to its end; returns the RETURNING rows (none without; beyond work_mem they are in a file) and how many rows were changed. The rows of
    /// the change's `source` come from [`dml_source`], which knows the plan made for it and the CTEs around it.
    fn run(&self, dml: &crate::ir::Dml, cx: &ExecCx) -> Result<(RowBuffer, u64)>;
    /// The transaction that rows are locked for.
    fn txn(&self) -> &crate::write::TxnHandle;
}

/// An expression made ready to be evaluated many times: DEFAULT, CHECK, SET, RETURNING. Column(i) is `row[i]`.
#[derive(Clone)]
pub struct Prepared {
    code: Arc<code::Code>,
}

/// Prepares an expression for [`Prepared::eval`]. It may hold subqueries; they see the row as their Outer{1}.
pub fn prepare(expr: &crate::ir::Expr, cx: &crate::plan::PlanCx<'_>) -> Result<Prepared> {
    Ok(Prepared { code: Arc::new(crate::plan::compile_single(expr, cx)?) })
}

impl Prepared {
    /// The value over a row.
    pub fn eval(&self, row: &[Datum], cx: &ExecCx) -> Result<Datum> {
        self.code.eval(row, &Env::new(cx))
    }
}

/// Evaluates an expression once. For more than one row, [`prepare`] it.
pub fn eval(expr: &crate::ir::Expr, row: &[Datum], cx: &ExecCx) -> Result<Datum> {
    let plan_cx = crate::plan::PlanCx::new(&cx.session);
    prepare(expr, &plan_cx)?.eval(row, cx)
}
