//! The typed intermediate form: what the binder makes of a statement and everything behind it reads.
//!
//! Nothing is left to resolve in it: names are column indexes, operators and functions are entries of the registry,
//! every conversion is written as a cast, every expression has its type. It knows neither text nor storage. A column
//! reference counts into the *row of the operator's input*; the row of a join is the left row followed by the right.
//! A reference out of a subquery (or LATERAL item) is [`ExprKind::Outer`]: how many query levels up, and which column of that level's
//! current row. Invariant: `Outer { depth: 1, .. }` inside a [`Subquery`] refers to the row on which the expression holding the
//! subquery is evaluated; inside the right side of a lateral join, to the left row.

use std::sync::Arc;

use crate::catalog::schema::{Table, VirtualTable};
use crate::functions::registry::{AggregateFn, ScalarFn, SetFn, WindowFn};
use crate::lock::{Patience, RowMode};
use crate::types::{Datum, Type, TypeMod};

/// An expression with its type.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Type and modifier of its value.
    pub ty: TypeMod,
}

/// The kinds of expression.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the variant says what its fields are
pub enum ExprKind {
    /// A constant.
    Const(Datum),
    /// A column of the input row.
    Column(usize),
    /// A column of an enclosing query's row; depth 1 is the nearest.
    Outer { depth: usize, index: usize },
    /// A parameter, from 0.
    Param(usize),
    /// A call. The executor does the strict check. `ty` of the expression is the result type given to the function;
    /// `typmod` too.
    Call { func: &'static ScalarFn, args: Vec<Expr> },
    /// Through text: output function of the argument's type, input function of this expression's type.
    CoerceViaIo(Box<Expr>),
    /// Element-wise cast of an array: `cast` is applied with its Column(0) standing for the element.
    ArrayCoerce { input: Box<Expr>, cast: Box<Expr> },
    /// AND of all, with three-valued logic, left to right.
    And(Vec<Expr>),
    /// OR of all.
    Or(Vec<Expr>),
    /// NOT.
    Not(Box<Expr>),
    /// IS NULL, or IS NOT NULL when negated. Rows: true when all fields are (not) null.
    IsNull { input: Box<Expr>, negated: bool },
    /// IS [NOT] TRUE / FALSE / UNKNOWN: `value` None is UNKNOWN.
    IsBool { input: Box<Expr>, value: Option<bool>, negated: bool },
    /// IS [NOT] DISTINCT FROM by this equality function.
    Distinct { eq: &'static ScalarFn, left: Box<Expr>, right: Box<Expr>, negated: bool },
    /// Searched CASE (a simple CASE is bound to one, its operand evaluated by `CaseOperand`). Without conditions: `otherwise` with a value that
    /// it uses more than once.
    Case { operand: Option<Box<Expr>>, whens: Vec<(Expr, Expr)>, otherwise: Option<Box<Expr>> },
    /// Inside a `whens` condition or the `otherwise` of a CASE with operand: its value.
    CaseOperand,
    /// COALESCE.
    Coalesce(Vec<Expr>),
    /// NULLIF(left, right) by this equality.
    NullIf { eq: &'static ScalarFn, left: Box<Expr>, right: Box<Expr> },
    /// GREATEST or LEAST: values of one type, ordered by the type's default order; NULLs ignored.
    MinMax { args: Vec<Expr>, greatest: bool },
    /// `left op ANY/ALL (array)`; also `IN (list)` with a list of constants.
    ScalarArray { func: &'static ScalarFn, left: Box<Expr>, array: Box<Expr>, all: bool },
    /// ARRAY[...]: elements of one type, or (nested) arrays to be stacked as a further dimension.
    Array { elems: Vec<Expr>, nested: bool },
    /// ROW(...).
    Row(Vec<Expr>),
    /// (record).field by position.
    Field { input: Box<Expr>, index: usize },
    /// a[i] or a[i][j].
    Subscript { input: Box<Expr>, indexes: Vec<Expr> },
    /// a[lo:hi], either bound may be missing.
    Slice { input: Box<Expr>, bounds: Vec<(Option<Expr>, Option<Expr>)> },
    /// Row comparison (a,b) < (c,d): pairs with their equality and ordering functions.
    RowCompare { op: RowCompareOp, pairs: Vec<RowPair> },
    /// A subquery as a value.
    Subquery(Box<Subquery>),
    /// A set-returning function in a select list; only directly in the expressions of [`RelKind::ProjectSet`].
    SetCall { func: &'static SetFn, args: Vec<Expr> },
    /// DEFAULT in VALUES or SET; replaced before execution.
    Default,
}

/// Comparison of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RowCompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// One column of a row comparison.
#[derive(Clone, Debug)]
pub struct RowPair {
    /// Left value.
    pub left: Expr,
    /// Right value.
    pub right: Expr,
}

/// A subquery in an expression.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What is asked of it.
    pub kind: SubqueryKind,
    /// The query.
    pub plan: Rel,
    /// Whether it refers to an enclosing row at all (depth counted from inside it); an uncorrelated one runs once a statement.
    pub correlated: bool,
}

/// The uses of a subquery.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the variant says what its fields are
pub enum SubqueryKind {
    /// Its one value; no row gives NULL, two rows 21000.
    Scalar,
    /// EXISTS.
    Exists,
    /// `test op ANY/ALL (subquery)` and IN: `tests[i] funcs[i] column i`, all must hold. Each test is evaluated on the outer row;
    /// `casts[i]`, if any, converts the subquery's column first (its Column(0) stands for the value).
    Quantified { tests: Vec<Expr>, funcs: Vec<&'static ScalarFn>, all: bool },
    /// ARRAY(subquery): its one column as an array.
    Array,
}

/// A relation: an operator tree whose rows have the shape of `schema`.
#[derive(Clone, Debug)]
pub struct Rel {
    /// What makes the rows.
    pub kind: RelKind,
    /// Their columns.
    pub schema: Arc<[Field]>,
}

/// A column of a relation.
#[derive(Clone, Debug)]
pub struct Field {
    /// Label.
    pub name: Arc<str>,
    /// Type.
    pub ty: TypeMod,
    /// Oid of the table it is a plain column of, or 0.
    pub table_oid: u32,
    /// Its attribute number there, or 0.
    pub attnum: i16,
}

/// Joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// A sort key.
#[derive(Clone, Debug)]
pub struct SortKey {
    /// By what.
    pub expr: Expr,
    /// Descending.
    pub desc: bool,
    /// NULLs before all values.
    pub nulls_first: bool,
}

/// A call of an aggregate.
#[derive(Clone, Debug)]
pub struct AggCall {
    /// Which.
    pub func: &'static AggregateFn,
    /// Arguments over the input row.
    pub args: Vec<Expr>,
    /// DISTINCT.
    pub distinct: bool,
    /// ORDER BY inside the call, or WITHIN GROUP.
    pub order_by: Vec<SortKey>,
    /// FILTER (WHERE ...).
    pub filter: Option<Expr>,
    /// Result type.
    pub ty: TypeMod,
}

/// What a window call computes.
#[derive(Clone, Debug)]
pub enum WindowFunc {
    /// A window function proper.
    Window(&'static WindowFn),
    /// An aggregate over the frame.
    Aggregate(AggCall),
}

/// A call with an OVER clause.
#[derive(Clone, Debug)]
pub struct WindowCall {
    /// Which.
    pub func: WindowFunc,
    /// Arguments (of a window function proper; an aggregate's are in its call).
    pub args: Vec<Expr>,
    /// PARTITION BY.
    pub partition_by: Vec<Expr>,
    /// ORDER BY.
    pub order_by: Vec<SortKey>,
    /// Frame.
    pub frame: Frame,
    /// Result type.
    pub ty: TypeMod,
}

/// A window frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// ROWS, RANGE or GROUPS.
    pub unit: FrameUnit,
    /// First row.
    pub start: FrameBound,
    /// Last row.
    pub end: FrameBound,
    /// EXCLUDE.
    pub exclude: FrameExclude,
}

/// Units of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FrameUnit {
    Rows,
    Range,
    Groups,
}

/// What a frame leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FrameExclude {
    NoOthers,
    CurrentRow,
    Group,
    Ties,
}

/// Where a frame begins or ends.
#[derive(Clone, Debug)]
pub enum FrameBound {
    /// UNBOUNDED PRECEDING.
    UnboundedPreceding,
    /// n PRECEDING. For RANGE: `in_range` functions compare `sort key - n` (operators resolved by the binder).
    Preceding(Box<FrameOffset>),
    /// CURRENT ROW.
    CurrentRow,
    /// n FOLLOWING.
    Following(Box<FrameOffset>),
    /// UNBOUNDED FOLLOWING.
    UnboundedFollowing,
}

/// The offset of a frame bound.
#[derive(Clone, Debug)]
pub struct FrameOffset {
    /// The number or interval; does not depend on the row.
    pub value: Expr,
    /// RANGE only: `sort key - offset` and `sort key + offset`, with Column(0) the key and Column(1) the offset.
    pub minus: Option<Expr>,
    /// See `minus`.
    pub plus: Option<Expr>,
}

/// The operators.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the variant says what its fields are
pub enum RelKind {
    /// Literal rows. One row without columns is the FROM-less SELECT.
    Values(Vec<Vec<Expr>>),
    /// A stored table: all its live columns in order. `at` is None for the statement's own view. With `row_key` a last
    /// column (bytea) holds the row's key in the bee: what UPDATE and DELETE find it by.
    /// With `system` its xmin and ctid follow.
    Scan { table: Arc<Table>, at: Option<AsOf>, row_key: bool, system: bool },
    /// A relation made on the fly: pg_catalog, information_schema, bee_*.
    Virtual { table: Arc<dyn VirtualTable>, args: Vec<Expr> },
    /// Functions in FROM: side by side (ROWS FROM), padded with NULLs; WITH ORDINALITY adds a bigint column.
    Function { calls: Vec<Expr>, ordinality: bool },
    /// Rows that satisfy the predicate.
    Filter { input: Box<Rel>, predicate: Expr },
    /// Computed columns.
    Project { input: Box<Rel>, exprs: Vec<Expr> },
    /// Like Project, but top-level SetCalls give several rows a row (in step, shorter ones padded with NULL).
    ProjectSet { input: Box<Rel>, exprs: Vec<Expr> },
    /// A join. `on` sees left ++ right. In a lateral join the right side may use Outer{1} for the left row.
    Join { kind: JoinKind, left: Box<Rel>, right: Box<Rel>, on: Option<Expr>, lateral: bool },
    /// GROUP BY: output is the group keys, then the aggregates, then, if `sets` has more than one, one int4 per entry of `grouping` calls.
    /// `sets` lists which keys are grouped by in each grouping set (the others are NULL); a plain GROUP BY has one set with all keys.
    Aggregate { input: Box<Rel>, keys: Vec<Expr>, sets: Vec<Vec<usize>>, aggs: Vec<AggCall>, grouping: Vec<Vec<usize>> },
    /// Window functions: input columns followed by one column a call.
    Window { input: Box<Rel>, calls: Vec<WindowCall> },
    /// ORDER BY.
    Sort { input: Box<Rel>, keys: Vec<SortKey> },
    /// FOR UPDATE and its kin: locks the rows that each row of the input was made of. A row that turns out to have been changed is made again of
    /// what it is made of now, and left out if the query no longer gives it.
    LockRows { input: Box<Rel>, locks: Arc<LockRows> },
    /// LIMIT and OFFSET; `with_ties` keeps peers of the last row by the first `ties` sort keys of the Sort below.
    Limit { input: Box<Rel>, limit: Option<Expr>, offset: Option<Expr>, with_ties: Option<Vec<SortKey>> },
    /// DISTINCT (all columns) or DISTINCT ON (the first row of each group of equal `on` values; input is sorted by them).
    Distinct { input: Box<Rel>, on: Option<Vec<Expr>> },
    /// UNION, INTERSECT, EXCEPT.
    SetOp { op: SetOp, all: bool, left: Box<Rel>, right: Box<Rel> },
    /// WITH: `id` names `definition` inside `body`. A definition used more than once or marked MATERIALIZED is run once.
    With { ctes: Vec<Cte>, body: Box<Rel> },
    /// The rows of a CTE.
    CteScan { id: usize },
    /// INSERT/UPDATE/DELETE inside WITH, or at the top: its RETURNING rows.
    Dml(Arc<Dml>),
}

/// What a [`RelKind::LockRows`] locks, and how it makes a row again.
#[derive(Clone, Debug)]
pub struct LockRows {
    /// The locks, in the order of FROM.
    pub locks: Vec<RowLock>,
    /// The items of FROM, in order.
    pub leaves: Vec<LockLeaf>,
    /// The input's columns from here on are values of enclosing rows that `recheck` reads behind those of the leaves.
    pub outer: std::ops::Range<usize>,
    /// The query's row as a record (NULL: there is none) over a row of all columns of all leaves, then `outer`. A leaf without a row has only NULLs.
    pub recheck: Expr,
}

/// One lock.
#[derive(Clone, Debug)]
pub struct RowLock {
    /// Index among the leaves; it is a [`LockLeaf::Row`].
    pub leaf: usize,
    /// How strong.
    pub mode: RowMode,
    /// NOWAIT, SKIP LOCKED, or neither.
    pub patience: Patience,
}

/// An item of FROM under a [`RelKind::LockRows`].
#[derive(Clone, Debug)]
pub enum LockLeaf {
    /// A stored row: the table's columns, its key, and, if asked for, its system columns.
    Row {
        /// The table.
        table: Arc<Table>,
        /// Column of the input with the row's key; NULL: there is no row.
        key: usize,
        /// Whether the leaf has system columns behind the key.
        system: bool,
    },
    /// Anything else: its columns are carried in these of the input.
    Values(std::ops::Range<usize>),
}

/// Set operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SetOp {
    Union,
    Intersect,
    Except,
}

/// A common table expression. Ids are unique in a statement.
#[derive(Clone, Debug)]
pub struct Cte {
    /// What CteScan refers to.
    pub id: usize,
    /// Name, for EXPLAIN.
    pub name: Arc<str>,
    /// The query; for a recursive one the non-recursive term.
    pub definition: Rel,
    /// The recursive term (scans `id` for the rows of the last round) and whether duplicates go on (UNION ALL).
    pub recursive: Option<(Rel, bool)>,
    /// MATERIALIZED asked for (Some(true)), forbidden (Some(false)) or left to us.
    pub materialized: Option<bool>,
}

/// Which version a table is read at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AsOf {
    /// Resolved at bind time; the [`Table`] beside it is the table as of that version.
    pub version: u64,
}

/// A change of rows.
#[derive(Clone, Debug)]
pub struct Dml {
    /// What is done.
    pub kind: DmlKind,
    /// RETURNING over (columns of the target row ++ other columns of the source row).
    pub returning: Option<Vec<Expr>>,
    /// Shape of the RETURNING rows; empty without.
    pub schema: Arc<[Field]>,
    /// The target's xmin and ctid stand behind its row key (INSERT: behind its columns, for RETURNING).
    pub system: bool,
}

/// The changes.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the variant says what its fields are
pub enum DmlKind {
    /// INSERT: `source` has one column for each of `columns` (positions among the table's columns);
    /// the others get `defaults` (one expression a table column, over no row; None is NULL).
    Insert {
        table: Arc<Table>,
        columns: Vec<usize>,
        source: Rel,
        defaults: Vec<Option<Expr>>,
        checks: Vec<Check>,
        overriding: Overriding,
        on_conflict: Option<OnConflict>,
    },
    /// UPDATE: `source` yields the target's columns, its row key (see `RelKind::Scan`), then the columns of FROM;
    /// assignments are (column position, value over the source row). A target row reached twice is changed once.
    Update { table: Arc<Table>, source: Rel, assignments: Vec<(usize, Expr)>, checks: Vec<Check> },
    /// DELETE: `source` as for UPDATE.
    Delete { table: Arc<Table>, source: Rel },
}

/// OVERRIDING clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Overriding {
    None,
    User,
    System,
}

/// A CHECK constraint bound to the table's columns.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its name.
    pub name: Arc<str>,
    /// False violates; NULL passes.
    pub expr: Expr,
}

/// ON CONFLICT.
#[derive(Clone, Debug)]
pub struct OnConflict {
    /// Oid of the arbiter index (the primary key's index oid or a unique index); None: any (DO NOTHING only).
    pub arbiter: Option<u32>,
    /// None: DO NOTHING. Else assignments and WHERE over (existing row ++ excluded row).
    pub update: Option<(Vec<(usize, Expr)>, Option<Expr>)>,
}

impl Expr {
    /// A constant of a type.
    pub fn constant(value: Datum, ty: Type) -> Expr {
        Expr { kind: ExprKind::Const(value), ty: ty.plain() }
    }
    /// A column of the input row.
    pub fn column(index: usize, ty: TypeMod) -> Expr {
        Expr { kind: ExprKind::Column(index), ty }
    }
}

/// What is called shows as its name.
macro_rules! debug_by_name {
    ($($ty:ty),*) => {$(
        impl std::fmt::Debug for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name)
            }
        }
    )*};
}
debug_by_name!(ScalarFn, AggregateFn, SetFn, WindowFn);

impl std::fmt::Debug for dyn VirtualTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
