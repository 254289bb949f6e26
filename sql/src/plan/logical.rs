//! The planner's own tree: the relations of [`crate::ir`] with every column known by an id instead of a position.
//!
//! An id is given to a column where it is made and follows it up through joins, filters and plain projections, so moving a
//! condition or a join never renumbers anything. A column of an enclosing query is its id too. No subtree occurs twice, so an id is made in one place.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::PlanCx;
use super::node::JoinType;
use crate::catalog::schema::{Table, VirtualTable};
use crate::error::{Result, SqlError, state};
use crate::foreign::ForeignScan;
use crate::functions::registry::Volatility;
use crate::ir::{AggCall, AsOf, Dml, Expr, ExprKind, FrameBound, LockRows, SetOp, SortKey, WindowCall, WindowFunc};
use crate::lock::RowMode;
use crate::types::TypeMod;

/// A column of the statement.
pub(crate) type ColId = usize;

/// Ids below this stand for the values that embedded expressions (element casts, frame bounds) are applied to.
pub(crate) const FIRST_ID: ColId = 2;

/// Levels of relations a plan may have, joins counted twice.
const DEPTH_MAX: u32 = 600;

/// Relations that inner joins may join: they come out as so many levels.
pub(crate) const CLUSTER_MAX: usize = 256;

/// 54001, as the parser says it.
pub(crate) fn too_deep() -> SqlError {
    SqlError::new(state::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .hint("Simplify the statement: too many relations are joined, or queries are nested too deeply.")
}

/// What is known of a column.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// Label.
    pub name: Arc<str>,
    /// Table or alias it is a plain column of.
    pub table: Option<Arc<str>>,
    /// Type.
    pub ty: TypeMod,
    /// It is a stored column declared NOT NULL. (Above an outer join it may be NULL all the same.)
    pub not_null: bool,
}

/// Names of a statement's columns by id, for EXPLAIN.
#[derive(Clone, Debug, Default)]
pub struct ColumnNames(pub Arc<Vec<ColumnInfo>>);

/// A relation.
#[derive(Clone)]
pub(crate) struct Lp {
    /// What makes the rows.
    pub op: Op,
    /// Their columns, in order. After pruning: those that are needed.
    pub cols: Vec<ColId>,
}

/// The operators.
#[derive(Clone)]
#[allow(clippy::enum_variant_names)] // SetOp is the name in ir.rs too
pub(crate) enum Op {
    Values {
        rows: Vec<Vec<Expr>>,
    },
    Scan(Scan),
    Virtual {
        table: Arc<dyn VirtualTable>,
        args: Vec<Expr>,
        made: Vec<ColId>,
        filter: Vec<Expr>,
        alias: Arc<str>,
    },
    Function {
        calls: Vec<Expr>,
        ordinality: bool,
    },
    Filter {
        input: Box<Lp>,
        preds: Vec<Expr>,
    },
    /// Only computed columns are listed; others pass through.
    Project {
        input: Box<Lp>,
        exprs: Vec<(ColId, Expr)>,
    },
    ProjectSet {
        input: Box<Lp>,
        exprs: Vec<(ColId, Expr)>,
    },
    Join {
        kind: JoinType,
        left: Box<Lp>,
        right: Box<Lp>,
        on: Vec<Expr>,
        lateral: bool,
        guess: Guess,
    },
    Aggregate {
        input: Box<Lp>,
        keys: Vec<(ColId, Expr)>,
        sets: Vec<Vec<usize>>,
        aggs: Vec<(ColId, AggCall)>,
        grouping: Vec<(ColId, Vec<usize>)>,
    },
    Window {
        input: Box<Lp>,
        calls: Vec<(ColId, WindowCall)>,
    },
    Sort {
        input: Box<Lp>,
        keys: Vec<SortKey>,
    },
    Limit {
        input: Box<Lp>,
        limit: Option<Expr>,
        offset: Option<Expr>,
        ties: Option<Vec<SortKey>>,
    },
    /// All columns of the input are kept as they are: the locks count by them.
    LockRows {
        input: Box<Lp>,
        locks: Arc<LockRows>,
        keys: Vec<(ColId, RowMode)>,
    },
    Distinct {
        input: Box<Lp>,
        on: Option<Vec<Expr>>,
    },
    /// UNION ALL of any number: columns by position.
    Append {
        inputs: Vec<Lp>,
    },
    /// INTERSECT and EXCEPT: columns by position.
    SetOp {
        op: SetOp,
        all: bool,
        left: Box<Lp>,
        right: Box<Lp>,
    },
    With {
        ctes: Vec<LogicalCte>,
        body: Box<Lp>,
    },
    CteScan {
        id: usize,
        name: Arc<str>,
    },
    WorkScan {
        id: usize,
        name: Arc<str>,
    },
    Dml {
        dml: Arc<Dml>,
        source: Box<Lp>,
    },
}

/// What was worked out of a join's rows and cost. Asked again at every join above, in a chain of n joins each would be n walks of all below.
///
/// It holds as long as the join stays as it is: whoever takes one apart makes a new one, and a copy, which may be changed, knows nothing.
#[derive(Default)]
pub(crate) struct Guess {
    pub rows: Cell<Option<f64>>,
    pub cost: Cell<Option<f64>>,
}

impl Clone for Guess {
    fn clone(&self) -> Guess {
        Guess::default()
    }
}

/// A stored table.
#[derive(Clone)]
pub(crate) struct Scan {
    pub table: Arc<Table>,
    /// Where its rows are if it is a foreign table; `table` is then as [`ForeignScan::planned`] makes it.
    pub foreign: Option<Arc<ForeignScan>>,
    pub at: Option<AsOf>,
    /// Id of each live column, by position.
    pub made: Vec<ColId>,
    pub row_key: Option<ColId>,
    /// xmin and ctid.
    pub system: Option<[ColId; 2]>,
    pub filter: Vec<Expr>,
    pub alias: Arc<str>,
}

/// A definition that is kept.
#[derive(Clone)]
pub(crate) struct LogicalCte {
    pub id: usize,
    pub name: Arc<str>,
    pub definition: Lp,
    pub recursive: Option<Lp>,
    pub all: bool,
    pub writes: bool,
}

/// A subquery of an expression.
#[derive(Clone)]
pub(crate) struct Sub {
    pub plan: Lp,
    /// Columns of enclosing rows it takes.
    pub free: Vec<ColId>,
    pub volatile: bool,
    /// It reads the last round of a recursive CTE: its answers are not to be kept.
    pub reads_work: bool,
}

/// The state of planning one statement.
pub(crate) struct Planner<'a> {
    pub cx: &'a PlanCx<'a>,
    pub columns: Vec<ColumnInfo>,
    pub subs: Vec<Sub>,
    /// How often each CTE is read.
    pub cte_reads: FxHashMap<usize, usize>,
    /// Definitions to be put in the place of their only reader.
    pub inline: FxHashMap<usize, Lp>,
    /// Columns of enclosing rows that definitions kept take.
    pub cte_free: FxHashMap<usize, Vec<ColId>>,
    /// Names of CTEs.
    pub cte_names: FxHashMap<usize, Arc<str>>,
    /// CTEs whose recursive term is being built.
    pub recursing: Vec<usize>,
    pub next_node: usize,
    /// A change met now is the statement itself, not inside a CTE.
    pub dml_on_top: bool,
    /// How deep in the tree the walk at hand is; see [`Planner::deeper`].
    depth: u32,
    /// Planned subqueries by handle, for EXPLAIN.
    pub subplans: FxHashMap<usize, Arc<crate::exec::SubPlan>>,
}

impl<'a> Planner<'a> {
    pub fn new(cx: &'a PlanCx<'a>) -> Planner<'a> {
        let mut planner = Planner {
            cx,
            columns: Vec::new(),
            subs: Vec::new(),
            cte_reads: FxHashMap::default(),
            inline: FxHashMap::default(),
            cte_free: FxHashMap::default(),
            cte_names: FxHashMap::default(),
            recursing: Vec::new(),
            next_node: 0,
            dml_on_top: true,
            depth: 0,
            subplans: FxHashMap::default(),
        };
        for _ in 0..FIRST_ID {
            planner.column("?", crate::types::Type::NONE.plain());
        }
        planner
    }
    /// Runs `f` a relation further down, or two for a join: planning and running it recurse, and a level of joins takes up to 50 KiB of the
    /// sessions' 16 MiB in a build without optimisation. Looks for a cancel too.
    pub fn deeper<T>(&mut self, is_join: bool, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.cx.session.check_cancel()?;
        let weight = if is_join { 2 } else { 1 };
        self.depth += weight;
        if self.depth > DEPTH_MAX {
            return Err(too_deep());
        }
        let made = f(self);
        self.depth -= weight;
        made
    }
    /// A new column.
    pub fn column(&mut self, name: &str, ty: TypeMod) -> ColId {
        self.columns.push(ColumnInfo { name: Arc::from(name), table: None, ty, not_null: false });
        self.columns.len() - 1
    }
    /// A reference to a column.
    pub fn column_expr(&self, id: ColId) -> Expr {
        Expr::column(id, self.columns[id].ty)
    }
    pub fn ty(&self, id: ColId) -> TypeMod {
        self.columns[id].ty
    }

    /// The columns that a relation and its subqueries take from outside.
    pub fn free(&self, lp: &Lp) -> BTreeSet<ColId> {
        let (mut used, mut made) = (BTreeSet::new(), BTreeSet::new());
        self.collect(lp, &mut used, &mut made);
        used.retain(|id| !made.contains(id));
        used
    }

    fn collect(&self, lp: &Lp, used: &mut BTreeSet<ColId>, made: &mut BTreeSet<ColId>) {
        made.extend(lp.cols.iter().copied());
        lp.op.exprs(&mut |e| self.uses(e, used));
        match &lp.op {
            Op::Scan(scan) => {
                made.extend(scan.made.iter().copied());
                made.extend(scan.row_key);
                made.extend(scan.system.iter().flatten());
            }
            Op::Virtual { made: ids, .. } => made.extend(ids.iter().copied()),
            Op::Project { exprs, .. } | Op::ProjectSet { exprs, .. } => made.extend(exprs.iter().map(|(id, _)| *id)),
            Op::Aggregate { keys, aggs, grouping, .. } => {
                made.extend(
                    keys.iter()
                        .map(|(id, _)| *id)
                        .chain(aggs.iter().map(|(id, _)| *id))
                        .chain(grouping.iter().map(|(id, _)| *id)),
                );
            }
            Op::Window { calls, .. } => made.extend(calls.iter().map(|(id, _)| *id)),
            Op::CteScan { id, .. } => used.extend(self.cte_free.get(id).into_iter().flatten()),
            _ => {}
        }
        lp.op.inputs(&mut |input| self.collect(input, used, made));
    }

    /// Whether a relation calls a volatile function or changes rows.
    pub fn volatile_rel(&self, lp: &Lp) -> bool {
        let mut volatile = matches!(lp.op, Op::Dml { .. } | Op::LockRows { .. });
        lp.op.exprs(&mut |e| {
            // Set functions are not moved, but they are not volatile.
            volatile = volatile
                || super::expr::any(e, &mut |e| match &e.kind {
                    ExprKind::Call { func, .. } => func.volatility == Volatility::Volatile,
                    ExprKind::Subquery(sub) => {
                        super::expr::handle(sub).and_then(|k| self.subs.get(k)).is_some_and(|s| s.volatile)
                    }
                    _ => false,
                });
        });
        lp.op.inputs(&mut |input| volatile = volatile || self.volatile_rel(input));
        volatile
    }

    /// Whether a relation reads a recursive CTE's last round.
    pub fn reads_work(&self, lp: &Lp) -> bool {
        let mut reads = matches!(lp.op, Op::WorkScan { .. });
        lp.op.inputs(&mut |input| reads = reads || self.reads_work(input));
        lp.op.exprs(&mut |e| {
            reads = reads
                || super::expr::any(e, &mut |e| match &e.kind {
                    ExprKind::Subquery(sub) => {
                        super::expr::handle(sub).and_then(|k| self.subs.get(k)).is_some_and(|s| s.reads_work)
                    }
                    _ => false,
                });
        });
        reads
    }
}

impl Lp {
    /// A relation without rows.
    pub fn empty(cols: Vec<ColId>) -> Lp {
        Lp { op: Op::Values { rows: Vec::new() }, cols }
    }
    /// Two relations joined, with these columns of theirs. Nothing is known of its rows yet.
    pub fn join(kind: JoinType, left: Lp, right: Lp, on: Vec<Expr>, lateral: bool, cols: Vec<ColId>) -> Lp {
        let (left, right) = (Box::new(left), Box::new(right));
        Lp { op: Op::Join { kind, left, right, on, lateral, guess: Guess::default() }, cols }
    }
    /// This relation, filtered.
    pub fn filtered(self, preds: Vec<Expr>) -> Lp {
        if preds.is_empty() {
            return self;
        }
        let cols = self.cols.clone();
        Lp { op: Op::Filter { input: Box::new(self), preds }, cols }
    }
    /// Its columns as a set.
    pub fn col_set(&self) -> BTreeSet<ColId> {
        self.cols.iter().copied().collect()
    }
}

impl Op {
    /// Calls `f` on each relation directly below.
    pub fn inputs<'l>(&'l self, f: &mut dyn FnMut(&'l Lp)) {
        match self {
            Op::Values { .. }
            | Op::Scan(_)
            | Op::Virtual { .. }
            | Op::Function { .. }
            | Op::CteScan { .. }
            | Op::WorkScan { .. } => {}
            Op::Filter { input, .. }
            | Op::Project { input, .. }
            | Op::ProjectSet { input, .. }
            | Op::Aggregate { input, .. }
            | Op::Window { input, .. }
            | Op::Sort { input, .. }
            | Op::Limit { input, .. }
            | Op::LockRows { input, .. }
            | Op::Distinct { input, .. } => f(input),
            Op::Join { left, right, .. } | Op::SetOp { left, right, .. } => {
                f(left);
                f(right);
            }
            Op::Append { inputs } => inputs.iter().for_each(f),
            Op::With { ctes, body } => {
                for cte in ctes {
                    f(&cte.definition);
                    cte.recursive.iter().for_each(&mut *f);
                }
                f(body);
            }
            Op::Dml { source, .. } => f(source),
        }
    }

    /// Calls `f` on each expression of the operator itself.
    pub fn exprs<'l>(&'l self, f: &mut dyn FnMut(&'l Expr)) {
        match self {
            Op::Values { rows } => rows.iter().flatten().for_each(f),
            Op::Scan(scan) => scan.filter.iter().for_each(f),
            Op::Virtual { args, filter, .. } => args.iter().chain(filter).for_each(f),
            Op::Function { calls, .. } => calls.iter().for_each(f),
            Op::Filter { preds, .. } => preds.iter().for_each(f),
            Op::Project { exprs, .. } | Op::ProjectSet { exprs, .. } => exprs.iter().for_each(|(_, e)| f(e)),
            Op::Join { on, .. } => on.iter().for_each(f),
            Op::Aggregate { keys, aggs, .. } => {
                keys.iter().for_each(|(_, e)| f(e));
                aggs.iter().for_each(|(_, call)| agg_exprs(call, f));
            }
            Op::Window { calls, .. } => calls.iter().for_each(|(_, call)| window_exprs(call, f)),
            Op::Sort { keys, .. } => keys.iter().for_each(|k| f(&k.expr)),
            Op::Limit { limit, offset, ties, .. } => {
                limit.iter().chain(offset).for_each(&mut *f);
                ties.iter().flatten().for_each(|k| f(&k.expr));
            }
            Op::Distinct { on, .. } => on.iter().flatten().for_each(f),
            Op::Append { .. }
            | Op::LockRows { .. }
            | Op::SetOp { .. }
            | Op::With { .. }
            | Op::CteScan { .. }
            | Op::WorkScan { .. }
            | Op::Dml { .. } => {}
        }
    }
}

/// Calls `f` on each expression of an aggregate call.
pub(crate) fn agg_exprs<'l>(call: &'l AggCall, f: &mut dyn FnMut(&'l Expr)) {
    call.args.iter().for_each(&mut *f);
    call.order_by.iter().for_each(|k| f(&k.expr));
    call.filter.iter().for_each(f);
}

/// Calls `f` on each expression of a window call; those that belong to frame bounds included.
pub(crate) fn window_exprs<'l>(call: &'l WindowCall, f: &mut dyn FnMut(&'l Expr)) {
    if let WindowFunc::Aggregate(agg) = &call.func {
        agg_exprs(agg, f);
    }
    call.args.iter().chain(&call.partition_by).for_each(&mut *f);
    call.order_by.iter().for_each(|k| f(&k.expr));
    for bound in [&call.frame.start, &call.frame.end] {
        if let FrameBound::Preceding(o) | FrameBound::Following(o) = bound {
            f(&o.value);
        }
    }
}
