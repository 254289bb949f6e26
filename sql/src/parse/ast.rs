//! The syntax tree: what was written, before any name means anything.
//!
//! It follows PostgreSQL's own raw parse tree, so that every rule of its documentation has one place to be applied. Identifiers are
//! folded and truncated already; keywords with a special form (EXTRACT, `x AT TIME ZONE z`, OVERLAPS ...) are the function calls that
//! PostgreSQL makes of them. A [`Pos`] is the byte offset in the string given to [`super::parse`]; it becomes a character position when an
//! error leaves [`crate::bind`]. What is recognised but has no field here is refused by the parser, never dropped.

use crate::lock::{Patience, RowMode};

/// Byte offset in the source string.
pub type Pos = u32;

/// A folded identifier and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As the catalog would store it.
    pub text: String,
    /// Where.
    pub pos: Pos,
}

/// A possibly qualified name, outermost part first; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QName {
    /// Its parts.
    pub parts: Vec<String>,
    /// Where it begins.
    pub pos: Pos,
}

impl QName {
    /// The last part.
    pub fn last(&self) -> &str {
        self.parts.last().map_or("", |p| p.as_str())
    }
    /// The part before the last: a schema.
    pub fn schema(&self) -> Option<&str> {
        self.parts.len().checked_sub(2).map(|i| self.parts[i].as_str())
    }
}

impl std::fmt::Display for QName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("."))
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where PostgreSQL would point: an operator's own place, a call's name, a constant's first character.
    pub pos: Pos,
}

/// The kinds of expression.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // fields are named as in PostgreSQL's grammar
pub enum ExprKind {
    /// A number as written, digits, point and exponent.
    Number(String),
    /// A string constant, escapes resolved.
    String(String),
    /// `B'..'` or `X'..'`, the letter kept in front.
    BitString(String),
    /// TRUE or FALSE.
    Bool(bool),
    /// NULL.
    Null,
    /// `$n`, from 1.
    Param(u32),
    /// `a`, `t.a`, `s.t.a`.
    Column(Vec<Name>),
    /// `*`, `t.*`: only in select lists, rows and count.
    Star(Vec<Name>),
    /// `(e).name`.
    Field {
        input: Box<Expr>,
        name: Name,
    },
    /// `(e).*`.
    FieldStar(Box<Expr>),
    /// `e[..][..]`.
    Subscript {
        input: Box<Expr>,
        items: Vec<Subscript>,
    },
    /// An operator; no left operand for a prefix one. `schema` from OPERATOR(schema.op).
    Op {
        schema: Option<String>,
        name: String,
        left: Option<Box<Expr>>,
        right: Box<Expr>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull {
        input: Box<Expr>,
        negated: bool,
    },
    /// `value` None is UNKNOWN.
    IsBool {
        input: Box<Expr>,
        value: Option<bool>,
        negated: bool,
    },
    IsDistinct {
        left: Box<Expr>,
        right: Box<Expr>,
        negated: bool,
    },
    Between {
        input: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        symmetric: bool,
        negated: bool,
    },
    InList {
        input: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    InQuery {
        input: Box<Expr>,
        query: Box<Query>,
        negated: bool,
    },
    /// LIKE, ILIKE, SIMILAR TO.
    Like {
        kind: LikeKind,
        input: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<Box<Expr>>,
        negated: bool,
    },
    /// `left op ANY (..)`; `op` as the operator is called (`~~` for LIKE).
    Quantified {
        left: Box<Expr>,
        op: String,
        all: bool,
        right: Quantified,
    },
    Exists(Box<Query>),
    ScalarQuery(Box<Query>),
    ArrayQuery(Box<Query>),
    /// ARRAY[..]; nested brackets are nested Arrays.
    Array(Vec<Expr>),
    Row {
        fields: Vec<Expr>,
        explicit: bool,
    },
    Case {
        operand: Option<Box<Expr>>,
        whens: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Coalesce(Vec<Expr>),
    NullIf(Box<Expr>, Box<Expr>),
    MinMax {
        args: Vec<Expr>,
        greatest: bool,
    },
    /// CAST, `::` and `type 'literal'`.
    Cast {
        input: Box<Expr>,
        ty: Box<TypeName>,
    },
    Collate {
        input: Box<Expr>,
        collation: QName,
    },
    Call(Box<Call>),
    /// CURRENT_DATE and its like.
    Keyword(KeywordValue),
    Grouping(Vec<Expr>),
    /// DEFAULT in VALUES and SET.
    Default,
}

/// Values spelled as a keyword, with their optional precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeywordValue {
    CurrentDate,
    CurrentTime(Option<i32>),
    CurrentTimestamp(Option<i32>),
    LocalTime(Option<i32>),
    LocalTimestamp(Option<i32>),
    CurrentUser,
    SessionUser,
    User,
    CurrentRole,
    CurrentCatalog,
    CurrentSchema,
}

/// Pattern matching by keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LikeKind {
    Like,
    ILike,
    Similar,
}

/// The right side of ANY/ALL.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Quantified {
    Array(Box<Expr>),
    Query(Box<Query>),
}

/// One subscript.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Subscript {
    Index(Expr),
    Slice(Option<Expr>, Option<Expr>),
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Function.
    pub name: QName,
    /// Arguments, named ones last.
    pub args: Vec<Arg>,
    /// `f(*)`.
    pub star: bool,
    /// The last argument is VARIADIC.
    pub variadic: bool,
    /// DISTINCT.
    pub distinct: bool,
    /// ORDER BY inside the parentheses.
    pub order_by: Vec<OrderBy>,
    /// WITHIN GROUP (ORDER BY ..).
    pub within_group: Vec<OrderBy>,
    /// FILTER.
    pub filter: Option<Expr>,
    /// OVER.
    pub over: Option<Over>,
    /// Made of a keyword form (EXTRACT ..), so the name is pg_catalog's whatever the search path says.
    pub special: bool,
}

/// An argument.
#[derive(Clone, Debug)]
pub struct Arg {
    /// `name =>`.
    pub name: Option<Name>,
    /// Value.
    pub value: Expr,
}

/// OVER.
#[derive(Clone, Debug)]
pub enum Over {
    /// OVER w.
    Name(Name),
    /// OVER (..).
    Spec(WindowSpec),
}

/// A window definition.
#[derive(Clone, Debug)]
pub struct WindowSpec {
    /// The window it copies.
    pub base: Option<Name>,
    /// PARTITION BY.
    pub partition_by: Vec<Expr>,
    /// ORDER BY.
    pub order_by: Vec<OrderBy>,
    /// Frame, if written.
    pub frame: Option<Frame>,
    /// Where.
    pub pos: Pos,
}

/// A frame clause.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Frame {
    pub unit: crate::ir::FrameUnit,
    pub start: FrameBound,
    pub end: FrameBound,
    pub exclude: crate::ir::FrameExclude,
    pub pos: Pos,
}

/// A frame's end.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum FrameBound {
    UnboundedPreceding,
    Preceding(Expr),
    CurrentRow,
    Following(Expr),
    UnboundedFollowing,
}

/// A type as written; keyword spellings are pg_catalog names already (`int` is int4).
#[derive(Clone, Debug)]
pub struct TypeName {
    /// Name, qualified or not.
    pub name: QName,
    /// Modifiers in parentheses.
    pub mods: Vec<Expr>,
    /// Fields of an interval as PostgreSQL's bit mask (`INTERVAL_MASK`), if written.
    pub interval_fields: Option<i32>,
    /// Number of `[]` behind it (any bound is ignored, as in PostgreSQL).
    pub dims: usize,
    /// Where.
    pub pos: Pos,
}

/// ORDER BY item.
#[derive(Clone, Debug)]
pub struct OrderBy {
    /// Key.
    pub expr: Expr,
    /// DESC (true), ASC (false), or what USING's operator means.
    pub desc: bool,
    /// NULLS FIRST / LAST, if written.
    pub nulls_first: Option<bool>,
}

/// A query with all that may surround it.
#[derive(Clone, Debug)]
pub struct Query {
    /// WITH.
    pub with: Option<With>,
    /// The rows.
    pub body: Body,
    /// ORDER BY.
    pub order_by: Vec<OrderBy>,
    /// LIMIT / FETCH; `LIMIT ALL` is none.
    pub limit: Option<Expr>,
    /// FETCH .. WITH TIES.
    pub with_ties: bool,
    /// OFFSET.
    pub offset: Option<Expr>,
    /// FOR UPDATE and the like.
    pub locking: Vec<Locking>,
    /// Where it begins.
    pub pos: Pos,
    /// Where it ends.
    pub end: Pos,
}

/// FOR UPDATE, NO KEY UPDATE, SHARE or KEY SHARE.
#[derive(Clone, Debug)]
pub struct Locking {
    /// How strong.
    pub mode: RowMode,
    /// OF these; empty: of all.
    pub of: Vec<QName>,
    /// NOWAIT, SKIP LOCKED, or neither.
    pub patience: Patience,
}

/// What a query consists of.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Expr>>),
    SetOp { op: crate::ir::SetOp, all: bool, left: Box<Query>, right: Box<Query>, pos: Pos },
}

/// SELECT.
#[derive(Clone, Debug)]
pub struct Select {
    /// DISTINCT.
    pub distinct: Distinct,
    /// Select list.
    pub targets: Vec<Target>,
    /// SELECT INTO.
    pub into: Option<QName>,
    /// FROM.
    pub from: Vec<FromItem>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub group_by: Vec<GroupItem>,
    /// GROUP BY DISTINCT.
    pub group_distinct: bool,
    /// HAVING.
    pub having: Option<Expr>,
    /// WINDOW.
    pub windows: Vec<(Name, WindowSpec)>,
}

/// DISTINCT.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Distinct {
    No,
    All,
    On(Vec<Expr>),
}

/// An entry of a select list or RETURNING.
#[derive(Clone, Debug)]
pub struct Target {
    /// Value, or a star.
    pub expr: Expr,
    /// AS.
    pub alias: Option<String>,
    /// Where it ends.
    pub end: Pos,
}

/// An entry of GROUP BY.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum GroupItem {
    Expr(Expr),
    Empty,
    Rollup(Vec<Expr>),
    Cube(Vec<Expr>),
    Sets(Vec<GroupItem>),
}

/// WITH.
#[derive(Clone, Debug)]
pub struct With {
    /// RECURSIVE.
    pub recursive: bool,
    /// The entries.
    pub ctes: Vec<Cte>,
}

/// A common table expression.
#[derive(Clone, Debug)]
pub struct Cte {
    /// Name.
    pub name: Name,
    /// Column names.
    pub columns: Vec<Name>,
    /// [NOT] MATERIALIZED.
    pub materialized: Option<bool>,
    /// SELECT, or a changing statement with RETURNING.
    pub statement: StatementKind,
    /// SEARCH clause.
    pub search: Option<SearchClause>,
    /// CYCLE clause.
    pub cycle: Option<CycleClause>,
    /// Where it ends.
    pub end: Pos,
}

/// SEARCH {DEPTH|BREADTH} FIRST BY .. SET ..
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SearchClause {
    pub depth_first: bool,
    pub columns: Vec<Name>,
    pub set: Name,
    pub pos: Pos,
}

/// CYCLE .. SET .. TO .. DEFAULT .. USING ..
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CycleClause {
    pub columns: Vec<Name>,
    pub mark: Name,
    pub values: Option<(Expr, Expr)>,
    pub path: Name,
    pub pos: Pos,
}

/// An alias with optional column names.
#[derive(Clone, Debug)]
pub struct Alias {
    /// Name.
    pub name: String,
    /// Column names.
    pub columns: Vec<Name>,
}

/// An item of FROM.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum FromItem {
    Table {
        name: QName,
        as_of: Option<AsOf>,
        alias: Option<Alias>,
        /// Where it ends.
        end: Pos,
    },
    Subquery {
        lateral: bool,
        query: Box<Query>,
        alias: Option<Alias>,
        pos: Pos,
    },
    /// Functions; more than one only for ROWS FROM.
    Function {
        lateral: bool,
        calls: Vec<Expr>,
        rows_from: bool,
        ordinality: bool,
        alias: Option<Alias>,
        pos: Pos,
    },
    Join(Box<Join>),
}

/// A join.
#[derive(Clone, Debug)]
pub struct Join {
    /// Kind.
    pub kind: crate::ir::JoinKind,
    /// NATURAL.
    pub natural: bool,
    /// USING (..) [AS alias].
    pub using: Option<(Vec<Name>, Option<String>)>,
    /// ON.
    pub on: Option<Expr>,
    /// Left.
    pub left: FromItem,
    /// Right.
    pub right: FromItem,
    /// Alias of the whole, hiding the names inside.
    pub alias: Option<Alias>,
    /// Where.
    pub pos: Pos,
    /// Where the right side ends.
    pub right_end: Pos,
}

/// AS OF of one table.
#[derive(Clone, Debug)]
pub struct AsOf {
    /// Which form.
    pub kind: AsOfKind,
    /// Where.
    pub pos: Pos,
}

/// The forms of AS OF.
#[derive(Clone, Debug)]
pub enum AsOfKind {
    /// AS OF [VERSION] n, FOR SYSTEM_VERSION AS OF n.
    Version(Expr),
    /// AS OF TIMESTAMP e, FOR SYSTEM_TIME AS OF e, AS OF SYSTEM TIME e: a time, or (as a string or interval) a span before now when negative.
    Time(Expr),
    /// AS OF TAG x.
    Tag(String),
}

/// INSERT.
#[derive(Clone, Debug)]
pub struct Insert {
    /// WITH.
    pub with: Option<With>,
    /// Target.
    pub table: QName,
    /// AS.
    pub alias: Option<String>,
    /// Column list; empty: all.
    pub columns: Vec<Name>,
    /// OVERRIDING.
    pub overriding: crate::ir::Overriding,
    /// VALUES or SELECT; None: DEFAULT VALUES.
    pub source: Option<Box<Query>>,
    /// ON CONFLICT.
    pub on_conflict: Option<OnConflict>,
    /// RETURNING.
    pub returning: Vec<Target>,
}

/// ON CONFLICT.
#[derive(Clone, Debug)]
pub struct OnConflict {
    /// Arbiter.
    pub target: Option<ConflictTarget>,
    /// DO UPDATE SET .. WHERE ..; None: DO NOTHING.
    pub update: Option<(Vec<SetClause>, Option<Expr>)>,
    /// Where.
    pub pos: Pos,
}

/// What ON CONFLICT names.
#[derive(Clone, Debug)]
pub enum ConflictTarget {
    /// (a, b) [WHERE ..].
    Columns(Vec<Expr>, Option<Expr>),
    /// ON CONSTRAINT.
    Constraint(Name),
}

/// An assignment of SET.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum SetClause {
    /// `a = e`, `a[1] = e`.
    One { column: Name, subscripts: Vec<Subscript>, value: Expr },
    /// `(a, b) = ROW(..)` or a subquery.
    Many { columns: Vec<Name>, value: Expr },
}

/// UPDATE.
#[derive(Clone, Debug)]
pub struct Update {
    /// WITH.
    pub with: Option<With>,
    /// Target.
    pub table: QName,
    /// Alias.
    pub alias: Option<String>,
    /// SET.
    pub sets: Vec<SetClause>,
    /// FROM.
    pub from: Vec<FromItem>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// RETURNING.
    pub returning: Vec<Target>,
}

/// DELETE.
#[derive(Clone, Debug)]
pub struct Delete {
    /// WITH.
    pub with: Option<With>,
    /// Target.
    pub table: QName,
    /// Alias.
    pub alias: Option<String>,
    /// USING.
    pub using: Vec<FromItem>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// RETURNING.
    pub returning: Vec<Target>,
}

pub use super::ast_foreign::*;
pub use super::ast_utility::*;
