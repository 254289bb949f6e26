//! From syntax to meaning: names, types, overloads and parameters, by PostgreSQL's own rules, into [`crate::ir`].
//!
//! [`bind`] takes a statement; [`bind_scalar`] and its kin take stored expressions. Positions inside are byte offsets; the entry
//! points here turn them into the characters that clients count, and drop those of stored texts, which no client wrote now.

mod env;

pub use env::{AsOfResolver, BindEnv, Bound, ParamTypes};

use crate::catalog::schema::{Relation, View};
use crate::error::Result;
use crate::ir::{Expr, Field, Rel};
use crate::parse::ast;
use crate::types::TypeMod;

/// Binds a statement: SELECT, VALUES, INSERT, UPDATE, DELETE. Others are [`Bound::Utility`].
pub fn bind(stmt: &ast::Statement, env: &BindEnv<'_>) -> Result<Bound> {
    todo(stmt, env)
}
/// Binds a query inside another statement (CREATE TABLE AS, CREATE VIEW), whose positions count in `source`.
pub fn bind_query(query: &ast::Query, source: &str, env: &BindEnv<'_>) -> Result<Rel> {
    todo((query, source), env)
}
/// Binds a stored expression (DEFAULT, CHECK) over a row of `columns`. Its type is what it is; see [`bind_default`], [`bind_check`].
pub fn bind_scalar(sql: &str, columns: &[Field], env: &BindEnv<'_>) -> Result<Expr> {
    todo((sql, columns), env)
}
/// A stored DEFAULT, converted to its column's type as an assignment.
pub fn bind_default(sql: &str, column: &str, target: TypeMod, env: &BindEnv<'_>) -> Result<Expr> {
    todo((sql, column, target), env)
}
/// A stored CHECK: a boolean over a row of `columns`.
pub fn bind_check(sql: &str, columns: &[Field], env: &BindEnv<'_>) -> Result<Expr> {
    todo((sql, columns), env)
}
/// A written expression over a row of `columns` (COPY .. WHERE, ALTER .. USING, EXECUTE's arguments), converted to `target` as an assignment if given.
/// `what` names the column in a 42804.
pub fn bind_expr(expr: &ast::Expr, source: &str, columns: &[Field], target: Option<(TypeMod, &str)>, env: &BindEnv<'_>) -> Result<Expr> {
    todo((expr, source, columns, target), env)
}
/// A view's query, its names looked up along the view's own search path.
pub fn bind_view(view: &View, env: &BindEnv<'_>) -> Result<Rel> {
    todo(view, env)
}
/// A type as written. 42704 if there is none, 0A000 if PostgreSQL has it and we do not.
pub fn resolve_type(ty: &ast::TypeName, env: &BindEnv<'_>) -> Result<TypeMod> {
    todo(ty, env)
}
/// A relation by name: None if there is none in the schema, or on the search path. 3F000 for an unknown schema.
pub fn find_relation(name: &ast::QName, env: &BindEnv<'_>) -> Result<Option<Relation>> {
    todo(name, env)
}
/// The conversion of a value of one type to another as an assignment makes it, over a row whose only column is the value; None if there is none.
pub fn assignment_cast(from: TypeMod, to: TypeMod, env: &BindEnv<'_>) -> Result<Option<Expr>> {
    todo((from, to), env)
}

fn todo<A, T>(_: A, _: &BindEnv<'_>) -> Result<T> {
    Err(crate::error::SqlError::internal("the binder is being written"))
}
