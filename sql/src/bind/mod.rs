//! From syntax to meaning: names, types, overloads and parameters, by PostgreSQL's own rules, into [`crate::ir`].
//!
//! [`bind`] takes a statement; [`bind_scalar`] and its kin take stored expressions. Read on in `binder` (the state), `scope` (names), `expr`, `select`.
//! Positions inside are byte offsets; the entry points here turn them into the characters that clients count, and drop those of stored texts,
//! which no client wrote now.
//!
//! Invariants of what comes out: every expression has its type, and none is of type unknown but arguments declared "any"; every conversion is
//! written as a cast; columns and outer references count as [`crate::ir`] says; what PostgreSQL would refuse, and what we do not honour, is an error here.

mod as_of;
mod binder;
mod coerce;
mod constant;
mod cte;
mod cycle;
mod dml;
mod env;
mod expr;
mod from;
mod function;
mod group;
mod hypothetical;
mod label;
mod locking;
mod operator;
mod overload;
mod query;
mod scope;
mod select;
#[cfg(test)]
mod tests;
mod trace;
#[cfg(test)]
mod validate;
mod walk;
mod window;

pub use env::{AsOfResolver, BindEnv, Bound, ParamTypes};

use crate::catalog::schema::{Relation, View};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::CastContext;
use crate::ir::{Expr, Field, Rel};
use crate::parse::{ast, with_char_position};
use crate::types::{Type, TypeMod};
pub(crate) use binder::Clause;
use binder::{Binder, Level, Val};
pub(crate) use locking::clause_name;
pub(crate) use trace::Trace;
pub(crate) use walk::{shift_columns, shift_outer};

/// Binds a statement: SELECT, VALUES, INSERT, UPDATE, DELETE. Others are [`Bound::Utility`]. See [`bind_to_keep`] for one that is kept.
///
/// Parameter types are inferred into `env.params`; ask [`ParamTypes::finish`] for them afterwards.
///
/// # Errors
/// As PostgreSQL's parse analysis, positions counting in the statement's source string.
pub fn bind(stmt: &ast::Statement, env: &BindEnv<'_>) -> Result<Bound> {
    bind_to_keep(stmt, env).map(|(bound, _)| bound)
}

/// [`bind`], and whether the result holds only for now: an AS OF in it counts from the time of the statement.
pub fn bind_to_keep(stmt: &ast::Statement, env: &BindEnv<'_>) -> Result<(Bound, bool)> {
    let mut binder = Binder::new(env);
    binder.system = from::names_system_column(&stmt.source);
    let bound = match &stmt.kind {
        ast::StatementKind::Query(query) => binder.query(query, true).map(|out| Bound::Query(out.rel)),
        ast::StatementKind::Insert(_) | ast::StatementKind::Update(_) | ast::StatementKind::Delete(_) => {
            binder.changing_statement(&stmt.kind).map(Bound::Dml)
        }
        _ => Ok(Bound::Utility),
    };
    let bound = bound.map_err(|e| with_char_position(e, &stmt.source))?;
    // A reference made before the type was known, where nothing wanted one: it would have another type than the parameter.
    match binder.unsettled.iter().find(|i| env.params.is_settled(**i)) {
        Some(i) => Err(SqlError::new(
            state::AMBIGUOUS_PARAMETER,
            format!("could not determine data type of parameter ${}", i + 1),
        )),
        None => Ok((bound, binder.relative)),
    }
}

/// Binds a query inside another statement (CREATE TABLE AS, CREATE VIEW), whose positions count in `source`.
pub fn bind_query(query: &ast::Query, source: &str, env: &BindEnv<'_>) -> Result<Rel> {
    let mut binder = Binder::new(env);
    binder.system = from::names_system_column(source);
    binder.query(query, true).map(|out| out.rel).map_err(|e| with_char_position(e, source))
}

/// Binds a stored expression (DEFAULT, CHECK) over a row of `columns`. Its type is what it is; see [`bind_default`], [`bind_check`].
pub fn bind_scalar(sql: &str, columns: &[Field], env: &BindEnv<'_>) -> Result<Expr> {
    Binder::new(env).stored_expr(sql, columns, Clause::Check, None)
}

/// A stored DEFAULT, converted to its column's type as an assignment.
pub fn bind_default(sql: &str, column: &str, target: TypeMod, env: &BindEnv<'_>) -> Result<Expr> {
    Binder::new(env).stored_expr(sql, &[], Clause::Default, Some((target, column)))
}

/// What a column gets when nothing is given: its DEFAULT, or the next value of its identity.
pub fn column_default(column: &crate::catalog::schema::Column, env: &BindEnv<'_>) -> Result<Option<Expr>> {
    Binder::new(env).column_default(column)
}

/// A stored CHECK: a boolean over a row of `columns`.
pub fn bind_check(sql: &str, columns: &[Field], env: &BindEnv<'_>) -> Result<Expr> {
    let e = bind_scalar(sql, columns, env)?;
    let val = Val { e, pos: 0, fields: None };
    Binder::new(env).boolean(val, "CHECK").map_err(from::without_position)
}

/// A written expression of a clause over a row of `columns` (COPY .. WHERE, ALTER .. USING, DEFAULT and CHECK of a new column), converted to `target`
/// as an assignment if given; the name beside it is what a 42804 calls the column. Positions count in `source`.
pub(crate) fn bind_expr(
    clause: Clause,
    expr: &ast::Expr,
    source: &str,
    columns: &[Field],
    target: Option<(TypeMod, &str)>,
    env: &BindEnv<'_>,
) -> Result<Expr> {
    Binder::new(env).over_columns(expr, columns, clause, target).map_err(|e| with_char_position(e, source))
}

/// The arguments of EXECUTE, converted to the parameters' types. 42601 if there are more or fewer than those.
pub fn bind_arguments(
    name: &str,
    args: &[ast::Expr],
    types: &[Type],
    source: &str,
    env: &BindEnv<'_>,
) -> Result<Vec<Expr>> {
    if args.len() != types.len() {
        return Err(SqlError::new(
            state::SYNTAX_ERROR,
            format!("wrong number of parameters for prepared statement \"{name}\""),
        )
        .detail(format!("Expected {} parameters but got {}.", types.len(), args.len())));
    }
    let mut binder = Binder::new(env);
    let made: Result<Vec<Expr>> = binder
        .in_level(Level::new(vec![], Clause::Parameter), |b| {
            args.iter()
                .zip(types)
                .enumerate()
                .map(|(i, (arg, ty))| {
                    let val = b.expr(arg)?;
                    b.assign_argument(val, *ty, i + 1)
                })
                .collect()
        })
        .map(|(made, _)| made);
    made.map_err(|e| with_char_position(e, source))
}

/// A view's query and what its names mean, looked up along the view's own search path.
pub(crate) fn trace_view(view: &View, env: &BindEnv<'_>) -> Result<(Rel, Trace)> {
    let query = from::view_query(&view.query)?;
    let mut binder = Binder::new(env);
    binder.search_path.clone_from(&view.search_path);
    binder.views.push(view.oid);
    binder.trace = Some(Box::new(Trace::new(&view.query)));
    let rel = binder.query(&query, true).map_err(from::without_position)?.rel;
    Ok((rel, binder.trace.map(|t| *t).ok_or_else(|| SqlError::internal("a trace was lost"))?))
}

/// The text to keep of a DEFAULT (over no columns) or CHECK that was found to bind: literals that depend on settings or the time as they are now.
pub(crate) fn written_out(
    clause: Clause,
    sql: &str,
    columns: &[Field],
    target: TypeMod,
    env: &BindEnv<'_>,
) -> Result<String> {
    trace_expr(clause, sql, columns, target, env).map(|trace| trace.written_out())
}

/// What the names of a stored expression over a row of `columns` mean.
pub(crate) fn trace_expr(
    clause: Clause,
    sql: &str,
    columns: &[Field],
    target: TypeMod,
    env: &BindEnv<'_>,
) -> Result<Trace> {
    let written = crate::parse::parse_expr(sql).map_err(from::without_position)?;
    let mut binder = Binder::new(env);
    binder.trace = Some(Box::new(Trace::of_one_row(sql)));
    binder.over_columns(&written, columns, clause, Some((target, ""))).map_err(from::without_position)?;
    binder.trace.map(|t| *t).ok_or_else(|| SqlError::internal("a trace was lost"))
}

/// The version that a written AS OF names: CREATE TAG .. AS OF.
pub fn resolve_as_of(as_of: &ast::AsOf, source: &str, env: &BindEnv<'_>) -> Result<u64> {
    Binder::new(env).resolve_as_of(as_of).map_err(|e| with_char_position(e, source))
}

/// A type as written, its position counting in `source`. 42704 if there is none, 0A000 if PostgreSQL has it and we do not.
pub fn resolve_type(ty: &ast::TypeName, source: &str, env: &BindEnv<'_>) -> Result<TypeMod> {
    Binder::new(env).type_name(ty).map_err(|e| with_char_position(e, source))
}

/// A relation by name: None if there is none of that name in the schema, or along the search path.
pub fn find_relation(name: &ast::QName, env: &BindEnv<'_>) -> Result<Option<Relation>> {
    Binder::new(env).lookup(&env.catalog, name).map_err(from::without_position)
}

/// The conversion of a value of one type to another as an assignment makes it, over a row whose only column is the value; None if there is none.
pub fn assignment_cast(from: TypeMod, to: TypeMod, env: &BindEnv<'_>) -> Result<Option<Expr>> {
    let val = Val { e: Expr::column(0, from), pos: 0, fields: None };
    Ok(Binder::new(env).coerce_to(val, to, CastContext::Assignment)?.map(|v| v.e))
}
