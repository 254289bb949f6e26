//! The physical plan: a tree of nodes that says which operators run, on what, with which compiled expressions.
//!
//! It is immutable and shared; running it makes operators (`exec::operator::open`). Columns have positions here: an expression's
//! `Column(i)` is the i-th value of the row its node's description names.

use std::sync::{Arc, OnceLock};

use crate::catalog::schema::{Table, VirtualTable};
use crate::codec::{IndexCodec, KeyColumn, RowKeyCodec};
use crate::exec::code::{Call, Code, CompareOp};
use crate::exec::value::KeyOrder;
use crate::exec::{Prepared, SubPlan};
use crate::foreign::ForeignScan;
use crate::functions::registry::{AggregateFn, SetFn, WindowFn};
use crate::ir::{AsOf, Dml, Expr, Field, FrameExclude, FrameUnit, LockRows, SetOp};
use crate::types::{Datum, Type, TypeMod};

use super::logical::ColumnNames;

/// A plan ready to be run, any number of times, by any number of sessions, with any parameters.
pub struct Physical {
    /// The tree.
    pub root: Arc<Node>,
    /// Shape of the rows.
    pub schema: Arc<[Field]>,
    /// How many nodes there are, subplans included; their ids are below it.
    pub nodes: usize,
    /// Names of columns, for EXPLAIN.
    pub names: ColumnNames,
    /// Subqueries of expressions by the number that stands in the expressions kept for EXPLAIN.
    pub subplans: Vec<(usize, Arc<SubPlan>)>,
}

/// A node of the plan.
pub struct Node {
    /// Its number in the plan.
    pub id: usize,
    /// What it does.
    pub kind: NodeKind,
    /// Columns of its rows.
    pub width: usize,
    /// Estimates.
    pub estimate: Estimate,
}

/// What the planner thinks of a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimate {
    /// Rows it will give.
    pub rows: f64,
    /// Cost before the first row.
    pub startup: f64,
    /// Cost of all rows; the unit is about one row read in order.
    pub total: f64,
    /// Bytes of a row.
    pub row_bytes: usize,
}

/// A compiled expression and what it was made of (columns by planner id), for EXPLAIN.
pub struct Prog {
    /// To evaluate.
    pub code: Code,
    /// To print.
    pub expr: Expr,
}

/// The operators.
#[allow(missing_docs)] // the fields are named after what they hold
pub enum NodeKind {
    /// Literal rows.
    Values(Arc<Vec<Vec<Prog>>>),
    /// Many rows of constants: their values, row by row.
    Constants(Arc<[Datum]>),
    /// A stored table.
    Scan(Arc<ScanNode>),
    /// A relation made on the fly.
    Virtual(Arc<VirtualNode>),
    /// Functions in FROM.
    Function(Arc<FunctionNode>),
    /// Rows for which all conditions hold.
    Filter { input: Arc<Node>, conditions: Arc<Vec<Prog>> },
    /// Computed columns.
    Project { input: Arc<Node>, exprs: Arc<Vec<Prog>> },
    /// Columns of the input in another order.
    Pick { input: Arc<Node>, columns: Arc<[usize]> },
    /// Computed columns with set-returning functions among them.
    ProjectSet { input: Arc<Node>, items: Arc<Vec<SetItem>> },
    /// For each left row all right rows.
    NestedLoop(Arc<LoopNode>),
    /// Join by equality.
    HashJoin(Arc<HashJoinNode>),
    /// GROUP BY.
    Aggregate(Arc<AggregateNode>),
    /// Window functions over one window.
    Window(Arc<WindowNode>),
    /// ORDER BY.
    Sort(Arc<SortNode>),
    /// FOR UPDATE and its kin.
    LockRows(Arc<LockNode>),
    /// LIMIT and OFFSET.
    Limit(Arc<LimitNode>),
    /// Each different row once.
    Distinct { input: Arc<Node>, types: Arc<[Type]> },
    /// The first of neighbouring rows with equal keys.
    Unique { input: Arc<Node>, keys: Arc<Vec<Prog>> },
    /// One after the other.
    Append(Vec<Arc<Node>>),
    /// INTERSECT and EXCEPT.
    SetOp(Arc<SetOpNode>),
    /// WITH.
    With(Arc<WithNode>),
    /// The rows of a CTE.
    CteScan { id: usize, name: Arc<str> },
    /// Inside a recursive term: the rows of the last round.
    WorkScan { id: usize, name: Arc<str> },
    /// A change of rows.
    Dml(Arc<DmlNode>),
}

/// A scan of a table.
pub struct ScanNode {
    /// The table, as of the version read.
    pub table: Arc<Table>,
    /// Where its rows are if it is a foreign table.
    pub foreign: Option<Arc<ForeignScan>>,
    /// The version, if not the statement's; of a foreign table one of its own bee's.
    pub at: Option<AsOf>,
    /// Positions among the table's live columns of the columns read.
    pub columns: Vec<usize>,
    /// How many of them are given; those behind are for the filter.
    pub keep: usize,
    /// Whether the row's key follows them as a last column.
    pub row_key: bool,
    /// System columns that follow then.
    pub system: Vec<SystemColumn>,
    /// Where rows are found.
    pub access: Access,
    /// Which ranges of keys.
    pub bounds: Bounds,
    /// Descending.
    pub reverse: bool,
    /// For each of the columns read whether the filter looks at it.
    pub filtered: Vec<bool>,
    /// What the ranges do not ensure; over the columns read.
    pub filter: Vec<Prog>,
    /// The same, to print.
    pub residual: Vec<Expr>,
    /// Conditions the ranges were made of, for EXPLAIN.
    pub conditions: Vec<Expr>,
    /// Alias in the query, for EXPLAIN.
    pub alias: Arc<str>,
}

/// What a row is known by besides its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemColumn {
    /// The number of the transaction that wrote it.
    Xmin,
    /// Where it is written.
    Ctid,
}

/// By what a table is read.
#[allow(missing_docs)] // the fields are named after what they hold
pub enum Access {
    /// By rows, in the order of their keys.
    Rows(RowKeyCodec),
    /// By an index; the row is looked up unless `covering` gives all columns asked for.
    Index {
        /// Its keys.
        codec: IndexCodec,
        /// Its name.
        name: Arc<str>,
        /// For each column given, its place among the index's columns: no row is read.
        covering: Option<Vec<usize>>,
    },
    /// Entries of a bee that pgbee did not write.
    Bee,
}

/// Key ranges, resolved when the scan opens.
#[derive(Default)]
pub struct Bounds {
    /// How the key columns are written.
    pub key: Vec<KeyColumn>,
    /// Values the first key columns are equal to, one or several each.
    pub equals: Vec<Equal>,
    /// Bounds on the next key column.
    pub lower: Vec<(CompareOp, Prog)>,
    /// See `lower`.
    pub upper: Vec<(CompareOp, Prog)>,
    /// The next column must not be NULL (no bound says so yet).
    pub not_null: bool,
    /// The ranges give at most one row each.
    pub unique: bool,
}

/// What a key column is equal to.
pub enum Equal {
    /// A value.
    Value(Prog),
    /// Each of several values.
    List(Vec<Prog>),
    /// Each element of an array.
    Array(Prog),
    /// NULL.
    Null,
}

/// A relation made on the fly.
pub struct VirtualNode {
    /// Which.
    pub table: Arc<dyn VirtualTable>,
    /// Arguments of a table function.
    pub args: Vec<Prog>,
    /// The columns wanted, by position.
    pub columns: Vec<usize>,
    /// `column = value` hints.
    pub equals: Vec<(usize, Prog)>,
    /// Conditions over the columns wanted.
    pub filter: Vec<Prog>,
    /// No more rows than this are read from it.
    pub limit: Option<Arc<LimitCount>>,
    /// Alias, for EXPLAIN.
    pub alias: Arc<str>,
}

/// Functions side by side.
pub struct FunctionNode {
    /// Each with the number of its columns.
    pub calls: Vec<FunctionCall>,
    /// A last bigint column counts rows.
    pub ordinality: bool,
}

/// A function in FROM.
pub struct FunctionCall {
    /// Columns it gives.
    pub width: usize,
    /// What is called.
    pub item: SetItem,
    /// A scalar function of a record type: its fields are the columns.
    pub expand: bool,
}

/// An expression of a ProjectSet or FROM function.
#[allow(missing_docs)] // the fields are named after what they hold
pub enum SetItem {
    /// One value a row.
    Scalar(Prog),
    /// Several rows.
    Set {
        /// Which function.
        func: &'static SetFn,
        /// Actual argument types.
        arg_types: Arc<[Type]>,
        /// Actual result.
        ret: TypeMod,
        /// Arguments.
        args: Vec<Prog>,
        /// The call, for EXPLAIN.
        expr: Expr,
    },
}

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinType {
    /// Pairs.
    Inner,
    /// And left rows without a partner.
    Left,
    /// And right rows without a partner.
    Right,
    /// And both.
    Full,
    /// Left rows with a partner.
    Semi,
    /// Left rows without one.
    Anti,
}

/// A nested loop.
pub struct LoopNode {
    /// Which rows.
    pub join: JoinType,
    /// Outer side.
    pub left: Arc<Node>,
    /// Inner side.
    pub right: Arc<Node>,
    /// The inner side sees the left row as its Outer{1} and is run for each.
    pub lateral: bool,
    /// Over left ++ right.
    pub conditions: Vec<Prog>,
}

/// A hash join. Its rows are left ++ right, or left alone for Semi and Anti.
pub struct HashJoinNode {
    /// Which rows.
    pub join: JoinType,
    /// Left side.
    pub left: Arc<Node>,
    /// Right side.
    pub right: Arc<Node>,
    /// The hash table is made of the left side.
    pub build_left: bool,
    /// Equal expressions, over the left and over the right row.
    pub keys: Vec<HashKey>,
    /// Other conditions, over left ++ right.
    pub conditions: Vec<Prog>,
}

/// A pair of join keys.
pub struct HashKey {
    /// Over the left row.
    pub left: Prog,
    /// Over the right row.
    pub right: Prog,
    /// For values that must be normalised first.
    pub ty: Type,
}

/// An aggregation.
pub struct AggregateNode {
    /// Rows.
    pub input: Arc<Node>,
    /// Group keys.
    pub keys: Vec<Prog>,
    /// Their types.
    pub key_types: Vec<Type>,
    /// Which keys each grouping set has.
    pub sets: Vec<Vec<usize>>,
    /// GROUPING() columns: the keys each asks about.
    pub grouping: Vec<Vec<usize>>,
    /// Aggregates.
    pub aggs: Vec<AggNode>,
    /// Rows of a group are neighbours.
    pub sorted: bool,
}

/// An aggregate call.
pub struct AggNode {
    /// Which.
    pub func: &'static AggregateFn,
    /// Actual argument types.
    pub arg_types: Arc<[Type]>,
    /// Actual result.
    pub ret: TypeMod,
    /// Arguments.
    pub args: Vec<Prog>,
    /// DISTINCT.
    pub distinct: bool,
    /// ORDER BY.
    pub order_by: Vec<(Prog, KeyOrder)>,
    /// FILTER.
    pub filter: Option<Prog>,
}

/// Window calls over one window. The input comes sorted by partition and order.
pub struct WindowNode {
    /// Rows.
    pub input: Arc<Node>,
    /// PARTITION BY.
    pub partition_by: Vec<Prog>,
    /// ORDER BY.
    pub order_by: Vec<(Prog, KeyOrder)>,
    /// Calls, each a column after those of the input.
    pub calls: Vec<WindowCallNode>,
}

/// A window call.
pub struct WindowCallNode {
    /// What is computed.
    pub func: WindowFuncNode,
    /// Frame.
    pub frame: FrameNode,
    /// Actual result.
    pub ret: TypeMod,
}

/// The function of a window call.
#[allow(missing_docs)] // the fields are named after what they hold
pub enum WindowFuncNode {
    /// A window function proper.
    Window { func: &'static WindowFn, args: Vec<Prog>, arg_types: Arc<[Type]> },
    /// An aggregate.
    Aggregate(AggNode),
}

/// A frame.
pub struct FrameNode {
    /// ROWS, RANGE or GROUPS.
    pub unit: FrameUnit,
    /// First row.
    pub start: BoundNode,
    /// Last row.
    pub end: BoundNode,
    /// EXCLUDE.
    pub exclude: FrameExclude,
}

/// A frame bound.
pub enum BoundNode {
    /// UNBOUNDED PRECEDING.
    UnboundedPreceding,
    /// n PRECEDING.
    Preceding(OffsetNode),
    /// CURRENT ROW.
    CurrentRow,
    /// n FOLLOWING.
    Following(OffsetNode),
    /// UNBOUNDED FOLLOWING.
    UnboundedFollowing,
}

/// The offset of a frame bound.
pub struct OffsetNode {
    /// Its value.
    pub value: Prog,
    /// RANGE: sort key minus offset, over (key, offset).
    pub minus: Option<Code>,
    /// RANGE: sort key plus offset.
    pub plus: Option<Code>,
}

/// A sort.
pub struct SortNode {
    /// Rows.
    pub input: Arc<Node>,
    /// Keys.
    pub keys: Vec<(Prog, KeyOrder)>,
    /// Types of the keys.
    pub types: Vec<Type>,
    /// Only the first rows are read.
    pub limit: Option<Arc<LimitCount>>,
}

/// How many rows are read at most: OFFSET plus LIMIT.
pub struct LimitCount {
    /// LIMIT.
    pub limit: Option<Prog>,
    /// OFFSET.
    pub offset: Option<Prog>,
}

/// A limit.
pub struct LimitNode {
    /// Rows.
    pub input: Arc<Node>,
    /// How many.
    pub count: Arc<LimitCount>,
    /// WITH TIES: by these keys.
    pub ties: Option<Vec<Prog>>,
}

/// Row locks.
pub struct LockNode {
    /// Rows, exactly the columns that the locks count by.
    pub input: Arc<Node>,
    /// What is locked.
    pub locks: Arc<LockRows>,
    /// What makes a row again, once it was asked for.
    pub recheck: OnceLock<Prepared>,
}

/// INTERSECT or EXCEPT.
pub struct SetOpNode {
    /// Which.
    pub op: SetOp,
    /// ALL.
    pub all: bool,
    /// Left rows.
    pub left: Arc<Node>,
    /// Right rows.
    pub right: Arc<Node>,
    /// Types of the columns.
    pub types: Vec<Type>,
}

/// WITH.
pub struct WithNode {
    /// The definitions kept.
    pub ctes: Vec<CteNode>,
    /// The query.
    pub body: Arc<Node>,
}

/// A CTE that is run once.
pub struct CteNode {
    /// Id.
    pub id: usize,
    /// Name.
    pub name: Arc<str>,
    /// Definition or non-recursive term.
    pub definition: Arc<Node>,
    /// Recursive term.
    pub recursive: Option<Arc<Node>>,
    /// UNION ALL.
    pub all: bool,
    /// It changes rows: it is run to its end before the body.
    pub writes: bool,
    /// Types of its columns.
    pub types: Vec<Type>,
}

/// A change of rows.
pub struct DmlNode {
    /// What is changed.
    pub dml: Arc<Dml>,
    /// The plan of its source.
    pub source: Arc<Node>,
    /// It is the statement itself, not inside a CTE.
    pub top: bool,
}

/// A quantified comparison of a subquery.
pub struct Quantified {
    /// The operators, one a column.
    pub calls: Vec<Call>,
    /// ALL instead of ANY.
    pub all: bool,
    /// All operators are equalities on hashable types: the subquery's rows may be kept in a hash table.
    pub hashed: bool,
    /// Types for normalising.
    pub types: Vec<Type>,
}

impl Node {
    /// The nodes below, in the order EXPLAIN shows them.
    pub fn children(&self) -> Vec<&Arc<Node>> {
        match &self.kind {
            NodeKind::Filter { input, .. }
            | NodeKind::Project { input, .. }
            | NodeKind::Pick { input, .. }
            | NodeKind::ProjectSet { input, .. }
            | NodeKind::Distinct { input, .. }
            | NodeKind::Unique { input, .. } => vec![input],
            NodeKind::NestedLoop(n) => vec![&n.left, &n.right],
            NodeKind::HashJoin(n) => vec![&n.left, &n.right],
            NodeKind::Aggregate(n) => vec![&n.input],
            NodeKind::Window(n) => vec![&n.input],
            NodeKind::Sort(n) => vec![&n.input],
            NodeKind::LockRows(n) => vec![&n.input],
            NodeKind::Limit(n) => vec![&n.input],
            NodeKind::Append(inputs) => inputs.iter().collect(),
            NodeKind::SetOp(n) => vec![&n.left, &n.right],
            NodeKind::With(n) => vec![&n.body],
            NodeKind::Dml(n) => vec![&n.source],
            NodeKind::Values(_)
            | NodeKind::Constants(_)
            | NodeKind::Scan(_)
            | NodeKind::Virtual(_)
            | NodeKind::Function(_)
            | NodeKind::CteScan { .. }
            | NodeKind::WorkScan { .. } => vec![],
        }
    }
}
