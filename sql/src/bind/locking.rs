//! FOR UPDATE, NO KEY UPDATE, SHARE and KEY SHARE: which items of FROM they lock, and how a row of the query is made again.
//!
//! While FROM of such a query is bound, every item that is no join gets a column more that tells whether it has a row: a stored table its row's key, anything
//! else a constant. These columns have no name. Above ORDER BY and below LIMIT comes [`RelKind::LockRows`]; behind the select list its input carries what a
//! row is made of: the keys of stored rows, and all columns of what is not stored.
//!
//! To make a row again there is the query once more, with values in the place of the items of FROM: PostgreSQL's EvalPlanQual.

use std::ops::Range;
use std::sync::Arc;

use super::binder::*;
use super::from::FromOut;
use super::operator::row_subquery;
use super::walk::walk_rel;
use crate::catalog::schema::Table;
use crate::error::{Result, SqlError, state};
use crate::ir::*;
use crate::lock::{Patience, RowMode};
use crate::parse::ast::{self, Pos};
use crate::types::{Datum, Type, TypeMod};

/// A mode with what to do if the row is not free.
pub(super) type Strength = (RowMode, Patience);

/// How a clause of this mode is written.
pub(crate) fn clause_name(mode: RowMode) -> &'static str {
    match mode {
        RowMode::KeyShare => "FOR KEY SHARE",
        RowMode::Share => "FOR SHARE",
        RowMode::NoKeyUpdate => "FOR NO KEY UPDATE",
        RowMode::Update => "FOR UPDATE",
    }
}

/// The locking clauses of the query whose FROM is being bound, and the items met so far.
pub(super) struct LockScope {
    clauses: Vec<ClauseScope>,
    leaves: Vec<Leaf>,
}

struct ClauseScope {
    strength: Strength,
    /// The items it names and whether they were met; empty: it is about all of them.
    of: Vec<(String, Pos, bool)>,
}

/// An item of FROM that is no join.
struct Leaf {
    table: Option<Arc<Table>>,
    system: bool,
    width: usize,
    lock: Option<Strength>,
}

/// What an item of FROM is to a locking clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeafKind {
    /// A stored table.
    Table,
    /// A subquery or view, which the clause goes on into.
    Query,
    /// Something made on the fly by the system, which nobody changes.
    Virtual,
    /// No clause can name it: what it is called.
    Other(&'static str),
}

fn refused(message: String) -> SqlError {
    SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
}

/// The stronger of two locks: of two modes the stronger, and NOWAIT before SKIP LOCKED before waiting.
fn stronger(a: Strength, b: Strength) -> Strength {
    let rank = |p: Patience| match p {
        Patience::Wait => 0,
        Patience::Skip => 1,
        Patience::Nowait => 2,
    };
    (a.0.max(b.0), if rank(a.1) >= rank(b.1) { a.1 } else { b.1 })
}

impl Binder<'_> {
    /// The locking clauses of a SELECT: its own, and one that a query around it has for all of it.
    pub fn lock_scope(&mut self, s: &ast::Select, q: &ast::Query) -> Result<Option<LockScope>> {
        let mut clauses = Vec::new();
        for clause in &q.locking {
            let name = clause_name(clause.mode);
            let mut of = Vec::with_capacity(clause.of.len());
            for item in &clause.of {
                if item.parts.len() > 1 {
                    let message = format!("{name} must specify unqualified relation names");
                    return error(state::SYNTAX_ERROR, item.pos, message);
                }
                of.push((item.last().to_owned(), item.pos, false));
            }
            clauses.push(ClauseScope { strength: (clause.mode, clause.patience), of });
        }
        clauses.extend(self.inherited_lock.take().map(|strength| ClauseScope { strength, of: vec![] }));
        let Some(first) = clauses.first() else { return Ok(None) };
        let not_with =
            |what: &str| Err(refused(format!("{} is not allowed with {what}", clause_name(first.strength.0))));
        if !matches!(s.distinct, ast::Distinct::No) {
            return not_with("DISTINCT clause");
        }
        if !s.group_by.is_empty() {
            return not_with("GROUP BY clause");
        }
        if s.having.is_some() {
            return not_with("HAVING clause");
        }
        Ok(Some(LockScope { clauses, leaves: Vec::new() }))
    }

    /// How an item of FROM about to be bound is to be locked, if at all.
    pub fn lock_of_item(&mut self, name: Option<&str>, kind: LeafKind) -> Result<Option<Strength>> {
        let Some(scope) = &mut self.locks else { return Ok(None) };
        let mut lock: Option<Strength> = None;
        for clause in &mut scope.clauses {
            let is_about_all = clause.of.is_empty();
            // A clause may name an item more than once.
            let is_it = |of: &str| name == Some(of);
            let named = clause.of.iter().find(|(of, ..)| is_it(of)).map(|(_, pos, met)| (*pos, *met));
            match (named, kind) {
                (Some((pos, false)), _) => {
                    clause.of.iter_mut().filter(|(of, ..)| is_it(of)).for_each(|(.., met)| *met = true);
                    if let LeafKind::Other(what) = kind {
                        let message = format!("{} cannot be applied to {what}", clause_name(clause.strength.0));
                        return error(state::FEATURE_NOT_SUPPORTED, pos, message);
                    }
                }
                (None, LeafKind::Table | LeafKind::Query) if is_about_all => {}
                _ => continue,
            }
            lock = Some(lock.map_or(clause.strength, |l| stronger(l, clause.strength)));
        }
        Ok(lock)
    }

    /// Notes an item of FROM that is bound, and gives it the column that tells whether it has a row. A stored table's is there already.
    pub fn lock_leaf(&mut self, mut out: FromOut, lock: Option<Strength>) -> Result<FromOut> {
        let Some(scope) = &mut self.locks else { return Ok(out) };
        let (table, system) = match &out.rel.kind {
            RelKind::Scan { table, row_key: true, system, .. } => (Some(table.clone()), *system),
            _ => (None, false),
        };
        if table.is_none() {
            let mut schema = out.rel.schema.to_vec();
            schema.push(field("is there", Type::BOOL.plain()));
            let mut exprs = columns_of(&out.rel.schema);
            exprs.push(Expr::constant(Datum::Bool(true), Type::BOOL));
            out.rel = project(out.rel, exprs, schema.into());
        }
        let lock = lock.filter(|_| table.is_some());
        scope.leaves.push(Leaf { table, system, width: out.rel.schema.len(), lock });
        Ok(out)
    }

    /// All items are bound: what a clause names must have been among them.
    pub fn check_locks(&self) -> Result<()> {
        let Some(scope) = &self.locks else { return Ok(()) };
        for clause in &scope.clauses {
            if let Some((name, pos, _)) = clause.of.iter().find(|(.., met)| !met) {
                let clause = clause_name(clause.strength.0);
                let message = format!("relation \"{name}\" in {clause} clause not found in FROM clause");
                return error(state::UNDEFINED_TABLE, *pos, message);
            }
        }
        Ok(())
    }
}

impl LockScope {
    /// Fails for what a query that locks may not have besides what its syntax tells.
    pub fn check_level(&self, level: &Level) -> Result<()> {
        let Some(first) = self.clauses.first() else { return Ok(()) };
        let what = if !level.aggs.is_empty() || !level.groupings.is_empty() {
            "aggregate functions"
        } else if !level.windows.is_empty() {
            "window functions"
        } else if level.has_sets {
            "set-returning functions in the target list"
        } else {
            return Ok(());
        };
        Err(refused(format!("{} is not allowed with {what}", clause_name(first.strength.0))))
    }

    /// Whether there is a row to lock: not without FROM, nor where all of it is made on the fly.
    pub fn locks_anything(&self) -> bool {
        self.leaves.iter().any(|leaf| leaf.lock.is_some())
    }

    /// Puts what rows are made of behind the select list. `from` is FROM's relation; `outputs` are over it.
    pub fn carry(
        self,
        from: &Rel,
        predicate: Option<&Expr>,
        outputs: &mut Vec<Expr>,
        schema: &mut Vec<Field>,
    ) -> Result<LockRows> {
        let width: usize = self.leaves.iter().map(|l| l.width).sum();
        if width != from.schema.len() {
            return Err(SqlError::internal("FROM has other columns than its items"));
        }
        // The query again, with nothing yet in the place of the items.
        let mut again = from.clone();
        empty_leaves(&mut again);
        if let Some(predicate) = predicate {
            again = filter(again, predicate.clone());
        }
        again = project(again, outputs.clone(), schema.clone().into());
        let outer = take_outer(&mut again, width)?;
        let mut first = 0;
        fill_leaves(&mut again, 0, &mut first, &self.leaves, &mut 0)?;

        let mut carry = |e: Expr, schema: &mut Vec<Field>| {
            schema.push(field("?column?", e.ty));
            outputs.push(e);
            outputs.len() - 1
        };
        let (mut leaves, mut locks, mut at) = (Vec::new(), Vec::new(), 0);
        for leaf in &self.leaves {
            let column = |i: usize| Expr::column(i, from.schema[i].ty);
            leaves.push(match &leaf.table {
                Some(table) => {
                    let key = carry(column(at + table.width()), schema);
                    LockLeaf::Row { table: table.clone(), key, system: leaf.system }
                }
                None => {
                    let start = schema.len();
                    (at..at + leaf.width).for_each(|i| _ = carry(column(i), schema));
                    LockLeaf::Values(start..schema.len())
                }
            });
            if let Some((mode, patience)) = leaf.lock {
                locks.push(RowLock { leaf: leaves.len() - 1, mode, patience });
            }
            at += leaf.width;
        }
        let start = schema.len();
        for (depth, index, ty) in outer {
            carry(Expr { kind: ExprKind::Outer { depth, index }, ty }, schema);
        }
        let outer: Range<usize> = start..schema.len();
        // The columns carried are no part of what is made again.
        Ok(LockRows { locks, leaves, outer, recheck: row_subquery(&again, true) })
    }
}

/// The relation with its rows locked.
pub(super) fn lock_rows(input: Rel, locks: LockRows) -> Rel {
    if locks.locks.is_empty() {
        return input;
    }
    let schema = input.schema.clone();
    Rel { kind: RelKind::LockRows { input: Box::new(input), locks: Arc::new(locks) }, schema }
}

/// Takes the items out of FROM; their shape stays.
fn empty_leaves(rel: &mut Rel) {
    match &mut rel.kind {
        RelKind::Join { left, right, .. } => {
            empty_leaves(left);
            empty_leaves(right);
        }
        kind => *kind = RelKind::Values(vec![]),
    }
}

/// What a query reads of enclosing rows is read behind the leaves' columns of the one row around it; (level, column, type) of each value.
fn take_outer(rel: &mut Rel, width: usize) -> Result<Vec<(usize, usize, TypeMod)>> {
    let mut outer: Vec<(usize, usize, TypeMod)> = Vec::new();
    walk_rel(rel, 0, &mut |e, inside| {
        if let ExprKind::Outer { depth, index } = &mut e.kind
            && *depth > inside
        {
            let value = (*depth - inside, *index, e.ty);
            let at = outer.iter().position(|o| (o.0, o.1) == (value.0, value.1)).unwrap_or_else(|| {
                outer.push(value);
                outer.len() - 1
            });
            (*depth, *index) = (inside + 1, width + at);
        }
        Ok(false)
    })?;
    Ok(outer)
}

/// Puts values of the row around the query in the place of FROM's items, `depth` lateral joins inside it.
fn fill_leaves(rel: &mut Rel, depth: usize, first: &mut usize, leaves: &[Leaf], next: &mut usize) -> Result<()> {
    match &mut rel.kind {
        RelKind::Join { left, right, lateral, .. } => {
            fill_leaves(left, depth, first, leaves, next)?;
            fill_leaves(right, depth + usize::from(*lateral), first, leaves, next)
        }
        RelKind::Project { input, .. } | RelKind::Filter { input, .. } => {
            fill_leaves(input, depth, first, leaves, next)
        }
        _ => {
            let leaf = leaves.get(*next).ok_or_else(|| SqlError::internal("FROM has more items than were bound"))?;
            let value =
                |i: usize| Expr { kind: ExprKind::Outer { depth: depth + 1, index: *first + i }, ty: rel.schema[i].ty };
            let row = (0..leaf.width).map(value).collect();
            let marker = leaf.table.as_ref().map_or(leaf.width - 1, |t| t.width());
            let there = ExprKind::IsNull { input: Box::new(value(marker)), negated: true };
            let values = Rel { kind: RelKind::Values(vec![row]), schema: rel.schema.clone() };
            *rel = filter(values, Expr { kind: there, ty: Type::BOOL.plain() });
            *first += leaf.width;
            *next += 1;
            Ok(())
        }
    }
}
