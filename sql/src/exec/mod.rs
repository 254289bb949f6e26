//! Running a plan: operators that pull batches of rows from the ones below.
//!
//! Execution is synchronous and single-threaded a statement: a caller on a blocking-capable thread asks for the next batch. The
//! only shared state of a statement is [`ExecCx`]. Every operator that can hold many rows (sort, hash, aggregate, CTE) counts its bytes and
//! spills beyond `work_mem`.

use std::sync::Arc;

use pgbee_engine::txn::{Database, ReadView};

use crate::error::Result;
use crate::functions::SessionCx;
use crate::types::{Datum, Row};

/// What all operators of a running statement share.
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
}

/// Carries out INSERT, UPDATE and DELETE nodes found in a plan. Implemented in `write`.
pub trait DmlRunner: Send + Sync {
    /// Runs the change to its end; returns the RETURNING rows (empty without) and how many rows were changed.
    fn run(&self, dml: &crate::ir::Dml, cx: &ExecCx) -> Result<(Vec<Row>, u64)>;
}
