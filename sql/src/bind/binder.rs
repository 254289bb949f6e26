//! The binder's state: query levels, names of CTEs, and how deep it is.
//!
//! A [`Level`] is one row that expressions may read: the FROM row of a query being bound, or the left row of a lateral join. The last level is
//! the innermost. An expression at the top of a level reads it by column; what a subquery reads of it is [`ExprKind::Outer`].
//!
//! Aggregates, GROUPING and window calls are bound before the row they live in exists. Until then they stand as columns with indexes from
//! [`AGGREGATES`], [`GROUPINGS`] and [`WINDOWS`] up, entries of the level's lists; [`super::group`] and [`super::window`] put real columns in their place.

use std::sync::Arc;

use super::env::BindEnv;
use super::scope::Item;
use super::trace::Trace;
use crate::catalog::Catalog;
use crate::error::{Result, SqlError, state};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Type, TypeMod};

/// First index of a column that stands for an aggregate.
pub(super) const AGGREGATES: usize = 1 << 40;
/// First index of a column that stands for GROUPING().
pub(super) const GROUPINGS: usize = 1 << 41;
/// First index of a column that stands for a window call.
pub(super) const WINDOWS: usize = 1 << 42;

/// Levels of expressions and queries the binder goes into. The parser bounds trees more tightly; this bounds what views and defaults add.
pub(super) const DEPTH_MAX: u32 = 4000;

/// Most entries of a target list, hidden ones for ORDER BY and GROUP BY included: PostgreSQL's MaxTupleAttributeNumber.
pub(super) const TARGETS_MAX: usize = 1664;

/// Most arguments of a call: PostgreSQL's FUNC_MAX_ARGS.
pub(super) const ARGUMENTS_MAX: usize = 100;

/// Most relations a statement may read, those in its views included: a view of two of a view of two doubles with every step.
pub(super) const RELATIONS_MAX: usize = 2048;

/// Names and types of a row value's fields.
pub(super) type Fields = Arc<[(Arc<str>, TypeMod)]>;

/// A bound expression, where it was written, and the fields of its value if that is a row.
#[derive(Clone, Debug)]
pub(super) struct Val {
    pub e: Expr,
    pub pos: Pos,
    pub fields: Option<Fields>,
}

impl Val {
    pub fn new(kind: ExprKind, ty: impl Into<TypeMod>, pos: Pos) -> Val {
        Val { e: Expr { kind, ty: ty.into() }, pos, fields: None }
    }
    pub fn ty(&self) -> Type {
        self.e.ty.ty
    }
    pub fn is_unknown(&self) -> bool {
        self.ty() == Type::UNKNOWN
    }
}

impl From<Type> for TypeMod {
    fn from(ty: Type) -> TypeMod {
        ty.plain()
    }
}

/// A bound query: its rows, and the fields of those columns that are rows themselves.
#[derive(Debug)]
pub(super) struct QueryOut {
    pub rel: Rel,
    pub fields: Vec<Option<Fields>>,
    /// Where each column was written, for errors about its type.
    pub positions: Vec<Pos>,
}

/// Where in a statement an expression stands: what may be in it, and what messages call the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    Select,
    Where,
    JoinOn,
    Having,
    GroupBy,
    OrderBy,
    DistinctOn,
    Limit,
    Offset,
    Values,
    FromFunction,
    Filter,
    WindowPartition,
    WindowOrder,
    WindowFrame,
    UpdateSet,
    Returning,
    Check,
    Default,
    Parameter,
    CopyWhere,
    Using,
    AsOf,
}

impl Clause {
    pub fn name(self) -> &'static str {
        match self {
            Clause::Select => "SELECT",
            Clause::Where => "WHERE",
            Clause::JoinOn => "JOIN conditions",
            Clause::Having => "HAVING",
            Clause::GroupBy => "GROUP BY",
            Clause::OrderBy => "ORDER BY",
            Clause::DistinctOn => "DISTINCT ON",
            Clause::Limit => "LIMIT",
            Clause::Offset => "OFFSET",
            Clause::Values => "VALUES",
            Clause::FromFunction => "functions in FROM",
            Clause::Filter => "FILTER",
            Clause::WindowPartition => "window PARTITION BY",
            Clause::WindowOrder => "window ORDER BY",
            Clause::WindowFrame => "window ROWS",
            Clause::UpdateSet => "UPDATE",
            Clause::Returning => "RETURNING",
            Clause::Check => "check constraints",
            Clause::Default => "DEFAULT expressions",
            Clause::Parameter => "EXECUTE parameters",
            Clause::CopyWhere => "COPY FROM WHERE conditions",
            Clause::Using => "transform expressions",
            Clause::AsOf => "AS OF",
        }
    }
    /// What a clause is called that may hold no subquery.
    pub fn without_subqueries(self) -> Option<&'static str> {
        Some(match self {
            Clause::Check => "check constraint",
            Clause::Default => "DEFAULT expression",
            Clause::Parameter => "EXECUTE parameter",
            Clause::CopyWhere => "COPY FROM WHERE condition",
            Clause::Using => "transform expression",
            _ => return None,
        })
    }
    pub fn allows_aggregates(self) -> bool {
        matches!(
            self,
            Clause::Select
                | Clause::Having
                | Clause::OrderBy
                | Clause::DistinctOn
                | Clause::WindowPartition
                | Clause::WindowOrder
                | Clause::WindowFrame
        )
    }
    pub fn allows_windows(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy | Clause::DistinctOn)
    }
    pub fn allows_sets(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy | Clause::DistinctOn | Clause::GroupBy | Clause::FromFunction)
    }
}

/// A window call before its OVER clause is resolved.
#[derive(Clone)]
pub(super) struct PendingWindow {
    pub func: WindowFunc,
    pub args: Vec<Expr>,
    pub over: usize,
    pub ty: TypeMod,
}

/// What an OVER clause resolved to; shared by calls with the same one.
#[derive(Clone)]
pub(super) struct BoundWindow {
    pub name: Option<String>,
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<SortKey>,
    pub frame: Frame,
    pub has_frame: bool,
}

/// A row that expressions may read.
pub(super) struct Level {
    pub items: Vec<Item>,
    pub clause: Clause,
    /// The left row of a lateral join, not a query of its own.
    pub lateral: bool,
    pub aggs: Vec<AggCall>,
    /// GROUPING calls: their arguments, to be found among the keys.
    pub groupings: Vec<Vec<(Expr, Pos)>>,
    pub windows: Vec<PendingWindow>,
    pub window_defs: Vec<BoundWindow>,
    /// Inside CASE or COALESCE, whose branches may not return sets.
    pub no_sets_in: Option<&'static str>,
    /// Whether a set-returning call was met.
    pub has_sets: bool,
}

impl Level {
    pub fn new(items: Vec<Item>, clause: Clause) -> Level {
        Level {
            items,
            clause,
            lateral: false,
            aggs: vec![],
            groupings: vec![],
            windows: vec![],
            window_defs: vec![],
            no_sets_in: None,
            has_sets: false,
        }
    }
}

/// A CTE in scope.
#[derive(Clone)]
pub(super) struct CteEntry {
    pub name: String,
    pub id: usize,
    pub columns: Arc<[Field]>,
    pub fields: Vec<Option<Fields>>,
    /// Set while its own definition is being bound: what a reference means there.
    pub state: CteState,
    /// It changes rows and returns none.
    pub no_rows: bool,
}

/// Whether a CTE may be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CteState {
    /// Anywhere.
    Ready,
    /// Not yet: it comes later in the same WITH RECURSIVE.
    Later,
    /// In the non-recursive term of itself: an error.
    NonRecursiveTerm,
    /// In the body of itself where it is no UNION: an error.
    NotUnion,
    /// In the recursive term, not used yet.
    Recursive,
    /// In the recursive term, used.
    RecursiveUsed,
}

pub(super) struct Binder<'e> {
    pub env: &'e BindEnv<'e>,
    /// The catalog names are looked up in: the environment's, or that of another version inside a view AS OF.
    pub catalog: Arc<Catalog>,
    pub search_path: Vec<u32>,
    /// The version all tables are read at, inside a view AS OF.
    pub at: Option<u64>,
    pub levels: Vec<Level>,
    pub ctes: Vec<CteEntry>,
    pub next_cte: usize,
    pub depth: u32,
    /// Lowest level index read since it was last reset: tells whether a subquery is correlated.
    pub lowest_read: usize,
    /// Parameters (from 0) that were referred to before anything told their type, once a reference: those left over are an error.
    pub unsettled: Vec<usize>,
    /// Views being expanded, by oid: a view may not contain itself.
    pub views: Vec<u32>,
    /// How many queries are being bound around this one: changes in WITH only go at the top.
    pub nesting: usize,
    /// An AS OF was met whose version is another one at another time.
    pub relative: bool,
    /// What the words of the text mean, if someone asked.
    pub trace: Option<Box<Trace>>,
    /// Relations met so far, in views too.
    pub relations: usize,
    /// The query whose FROM is being bound locks rows.
    pub locks: Option<super::locking::LockScope>,
    /// The query to be bound next is part of one that locks all rows of it.
    pub inherited_lock: Option<super::locking::Strength>,
    /// The text names a system column: stored tables are read with theirs.
    pub system: bool,
    /// A RETURNING whose rows may have been there before is being bound.
    pub returns_updated: bool,
}

impl<'e> Binder<'e> {
    pub fn new(env: &'e BindEnv<'e>) -> Binder<'e> {
        Binder {
            env,
            catalog: env.catalog.clone(),
            search_path: env.search_path.clone(),
            at: None,
            levels: vec![],
            ctes: vec![],
            next_cte: 0,
            depth: 0,
            lowest_read: usize::MAX,
            locks: None,
            inherited_lock: None,
            system: false,
            returns_updated: false,
            unsettled: vec![],
            views: vec![],
            nesting: 0,
            relative: false,
            trace: None,
            relations: 0,
        }
    }

    /// Notes one more relation of FROM; cancels are looked for here too, for views may hold many.
    pub fn count_relation(&mut self) -> Result<()> {
        self.env.session.check_cancel()?;
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "too many range table entries")
                .detail(format!("A statement reads at most {RELATIONS_MAX} relations, those in views included.")));
        }
        Ok(())
    }

    /// Runs `f` a level further down.
    pub fn deeper<T>(&mut self, weight: u32, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += weight;
        if self.depth > DEPTH_MAX {
            return Err(SqlError::new(state::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded"));
        }
        let made = f(self);
        self.depth -= weight;
        made
    }

    /// The innermost level.
    pub fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("an expression is bound in a level")
    }

    /// Runs `f` with another clause set.
    pub fn in_clause<T>(&mut self, clause: Clause, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = std::mem::replace(&mut self.level().clause, clause);
        let made = f(self);
        self.level().clause = outer;
        made
    }

    /// Runs `f` with another level inside all others.
    pub fn in_level<T>(&mut self, level: Level, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Level)> {
        self.levels.push(level);
        let made = f(self);
        let level = self.levels.pop().expect("pushed above");
        made.map(|made| (made, level))
    }

    /// Runs `f` as a subquery written here; the flag tells whether it read anything outside.
    pub fn as_subquery<T>(&mut self, pos: Pos, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, bool)> {
        if let Some(clause) = self.level().clause.without_subqueries() {
            return error(state::FEATURE_NOT_SUPPORTED, pos, format!("cannot use subquery in {clause}"));
        }
        let outer = std::mem::replace(&mut self.lowest_read, usize::MAX);
        let inside = self.levels.len();
        let made = self.deeper(5, f);
        let correlated = self.lowest_read < inside;
        self.lowest_read = self.lowest_read.min(outer);
        Ok((made?, correlated))
    }

    /// Notes that the level with this index was read.
    pub fn note_read(&mut self, level: usize) {
        self.lowest_read = self.lowest_read.min(level);
    }

    pub fn new_cte_id(&mut self) -> usize {
        self.next_cte += 1;
        self.next_cte - 1
    }
}

/// An error with PostgreSQL's words at a place.
pub(super) fn error<T>(state: &'static str, pos: Pos, message: impl Into<String>) -> Result<T> {
    Err(SqlError::new(state, message).at(Some(pos + 1)))
}

/// Refuses a target list that has grown too long.
pub(super) fn check_targets(count: usize) -> Result<()> {
    if count > TARGETS_MAX {
        return Err(SqlError::new(
            state::TOO_MANY_COLUMNS,
            format!("target lists can have at most {TARGETS_MAX} entries"),
        ));
    }
    Ok(())
}

/// 0A000 at a place.
pub(super) fn unsupported<T>(pos: Pos, what: impl std::fmt::Display) -> Result<T> {
    Err(SqlError::unsupported(what).at(Some(pos + 1)))
}

/// A position for errors that come from where none is known.
pub(super) trait At<T> {
    fn at_pos(self, pos: Pos) -> Result<T>;
}
impl<T> At<T> for Result<T> {
    fn at_pos(self, pos: Pos) -> Result<T> {
        self.map_err(|e| e.at(Some(pos + 1)))
    }
}

/// The relation with one row and no columns: what a SELECT without FROM reads.
pub(super) fn one_row() -> Rel {
    Rel { kind: RelKind::Values(vec![vec![]]), schema: Arc::from([]) }
}

/// A relation of computed columns.
pub(super) fn project(input: Rel, exprs: Vec<Expr>, schema: Arc<[Field]>) -> Rel {
    Rel { kind: RelKind::Project { input: Box::new(input), exprs }, schema }
}

/// Rows that satisfy a predicate.
pub(super) fn filter(input: Rel, predicate: Expr) -> Rel {
    let schema = input.schema.clone();
    Rel { kind: RelKind::Filter { input: Box::new(input), predicate }, schema }
}

/// All columns of a relation, as expressions over its row.
pub(super) fn columns_of(schema: &[Field]) -> Vec<Expr> {
    schema.iter().enumerate().map(|(i, f)| Expr::column(i, f.ty)).collect()
}

/// A field that is no column of a table.
pub(super) fn field(name: impl AsRef<str>, ty: TypeMod) -> Field {
    Field { name: Arc::from(name.as_ref()), ty, table_oid: 0, attnum: 0 }
}

/// Whether a written expression is the constant NULL.
pub(super) fn is_null_literal(e: &ast::Expr) -> bool {
    matches!(e.kind, ast::ExprKind::Null)
}
