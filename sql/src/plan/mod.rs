//! Planning: from what a statement means ([`crate::ir`]) to how it is carried out ([`node::Physical`]).
//!
//! ```text
//! build    positions become ids, subqueries handles, constants are folded      (fold, expr)
//! push     conditions move down; EXISTS and IN become joins; outer joins weaken (push)
//! order    neighbouring inner joins are put in a good order                     (order, estimate)
//! prune    columns nobody reads are dropped                                     (prune)
//! lower    access paths, join methods, orders; expressions are compiled         (access, lower*)
//! ```
//!
//! What must stay true: a plan gives the rows the statement means, whatever the estimates say; nothing volatile is moved, copied or
//! left out; an expression that fails for a row is not evaluated on rows that SQL's order of clauses keeps from it.

pub(crate) mod access;
pub(crate) mod build;
pub(crate) mod compare;
mod estimate;
pub mod explain;
pub(crate) mod expr;
pub(crate) mod fold;
pub(crate) mod logical;
mod lower;
mod lower_expr;
mod lower_join;
mod lower_scan;
mod lower_window;
pub mod node;
mod order;
pub mod print;
mod prune;
mod push;
mod relations;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use estimate::note_rows;
pub use explain::{ExplainOptions, Planning, explain};
pub use logical::{ColumnInfo, ColumnNames};
pub use node::Physical;
pub use relations::{relations, written};

use crate::error::Result;
use crate::exec::code::Code;
use crate::functions::SessionCx;
use crate::ir::{Dml, Expr, ExprKind, Rel, RelKind};

use build::Scope;
pub(crate) use build::{each_rel, locks_rows};
use logical::{ColId, Planner};
use lower::Ask;

/// What the planner asks about data.
pub trait Statistics: Send + Sync {
    /// About how many rows a table has; None if nobody knows.
    fn table_rows(&self, table: u32) -> Option<u64>;
}

/// What planning needs besides the statement.
pub struct PlanCx<'a> {
    /// For folding constants.
    pub session: &'a SessionCx,
    /// Row counts, if there are any.
    pub statistics: Option<&'a dyn Statistics>,
}

impl<'a> PlanCx<'a> {
    /// Without statistics.
    pub fn new(session: &'a SessionCx) -> PlanCx<'a> {
        PlanCx { session, statistics: None }
    }
}

/// Plans a query (or, as [`RelKind::Dml`], a change).
pub fn plan(rel: Rel, cx: &PlanCx<'_>) -> Result<Physical> {
    let mut planner = Planner::new(cx);
    let schema = rel.schema.clone();
    build::count_reads(&rel, &mut |id| *planner.cte_reads.entry(id).or_default() += 1);
    let lp = planner.build(rel, None)?;
    let cols = lp.cols.clone();
    let lp = push::optimize(&mut planner, lp)?;
    let lp = planner.prune_all(lp, &BTreeSet::new());
    let root = planner.lower_exactly(&lp, &cols, None, &Ask::default())?.node;
    let mut subplans: Vec<_> = planner.subplans.into_iter().collect();
    subplans.sort_by_key(|(number, _)| *number);
    Ok(Physical { root, schema, nodes: planner.next_node, names: ColumnNames(Arc::new(planner.columns)), subplans })
}

/// Plans an INSERT, UPDATE or DELETE that is a statement by itself.
pub fn plan_dml(dml: Arc<Dml>, cx: &PlanCx<'_>) -> Result<Physical> {
    let schema = dml.schema.clone();
    plan(Rel { kind: RelKind::Dml(dml), schema }, cx)
}

/// Compiles an expression whose Column(i) is the i-th value of a row of any width.
pub(crate) fn compile_single(expr: &Expr, cx: &PlanCx<'_>) -> Result<Code> {
    let mut planner = Planner::new(cx);
    let width = row_width(expr, 0);
    let columns: Vec<ColId> =
        (0..width).map(|_| planner.column("?column?", crate::types::Type::NONE.plain())).collect();
    let e = planner.convert(expr.clone(), &columns, None)?;
    planner.compile(&e, &Scope { columns: &columns, up: None })
}

/// How many columns a row must have for an expression, which stands `depth` queries inside it.
fn row_width(e: &Expr, depth: usize) -> usize {
    let mut width = match &e.kind {
        ExprKind::Column(i) if depth == 0 => i + 1,
        ExprKind::Outer { depth: d, index } if *d == depth => index + 1,
        ExprKind::Subquery(sub) => build::widest(&sub.plan, depth + 1, &mut row_width),
        _ => 0,
    };
    expr::children(e, &mut |child| width = width.max(row_width(child, depth)));
    width
}
