//! What must hold of rows, and the reports PostgreSQL makes when it does not.

use crate::catalog::ddl::quote_identifier;
use crate::catalog::schema::Table;
use crate::error::{SqlError, state};
use crate::functions::SessionCx;
use crate::types::{Datum, Type, io};

use super::foreign_key::ForeignKeyRule;

/// What a CHECK needs: NULL passes.
pub fn is_true_or_null(value: &Datum) -> bool {
    matches!(value, Datum::Bool(true) | Datum::Null)
}

fn of_table(error: SqlError, table: &Table, session: &SessionCx) -> SqlError {
    let schema = session.catalog.schemas.get(&table.schema).map(|s| s.name.clone());
    error.table(schema.unwrap_or_default(), &table.name)
}

/// 23502.
pub fn not_null_violation(table: &Table, position: usize, row: &[Datum], session: &SessionCx) -> SqlError {
    let column = table.columns().nth(position).map_or("", |c| &c.name);
    let message =
        format!("null value in column \"{column}\" of relation \"{}\" violates not-null constraint", table.name);
    of_table(SqlError::new(state::NOT_NULL_VIOLATION, message), table, session)
        .detail(failing_row(table, row, session))
        .column(column)
}

/// 23514.
pub fn check_violation(table: &Table, name: &str, row: &[Datum], session: &SessionCx) -> SqlError {
    let message = format!("new row for relation \"{}\" violates check constraint \"{name}\"", table.name);
    of_table(SqlError::new(state::CHECK_VIOLATION, message), table, session)
        .detail(failing_row(table, row, session))
        .constraint(name)
}

/// 23505.
pub fn unique_violation(
    table: &Table,
    name: &str,
    key: impl Iterator<Item = usize>,
    row: &[Datum],
    session: &SessionCx,
) -> SqlError {
    let message = format!("duplicate key value violates unique constraint \"{name}\"");
    let detail = format!("{} already exists.", describe_key(table, key, row, session));
    of_table(SqlError::new(state::UNIQUE_VIOLATION, message), table, session).detail(detail).constraint(name)
}

/// 23503 for a row that refers to what is not there; the values are those of the referring columns.
pub fn missing_reference(rule: &ForeignKeyRule, values: &[Datum], session: &SessionCx) -> SqlError {
    let detail = format!(
        "{} is not present in table \"{}\".",
        describe_reference(rule.referring(), values, session),
        rule.parent.table.name
    );
    of_referring(rule, session).detail(detail)
}

/// 23503 for a row that refers to something with some of its columns, where MATCH FULL wants all or none.
pub fn mixed_nulls(rule: &ForeignKeyRule, session: &SessionCx) -> SqlError {
    of_referring(rule, session).detail("MATCH FULL does not allow mixing of null and nonnull key values.")
}

fn of_referring(rule: &ForeignKeyRule, session: &SessionCx) -> SqlError {
    let (table, name) = (&rule.child.table, &rule.key.name);
    let message = format!("insert or update on table \"{}\" violates foreign key constraint \"{name}\"", table.name);
    of_table(SqlError::new(state::FOREIGN_KEY_VIOLATION, message), table, session).constraint(name)
}

/// 23503 for a row that others refer to; the values are those of the columns referred to.
pub fn still_referenced(rule: &ForeignKeyRule, values: &[Datum], session: &SessionCx) -> SqlError {
    let (table, name) = (&rule.child.table, &rule.key.name);
    let message = format!(
        "update or delete on table \"{}\" violates foreign key constraint \"{name}\" on table \"{}\"",
        rule.parent.table.name, table.name
    );
    let key = describe_reference(rule.referenced(), values, session);
    of_table(SqlError::new(state::FOREIGN_KEY_VIOLATION, message), table, session)
        .detail(format!("{key} is still referenced from table \"{}\".", table.name))
        .constraint(name)
}

/// `Key (a, b)=(1, x)`; unlike those of unique keys, PostgreSQL does not quote these names.
fn describe_reference<'n>(
    columns: impl Iterator<Item = (&'n str, Type)>,
    values: &[Datum],
    session: &SessionCx,
) -> String {
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for ((name, ty), value) in columns.zip(values) {
        names.push(name);
        texts.push(print(value, ty, session));
    }
    format!("Key ({})=({})", names.join(", "), texts.join(", "))
}

/// 23505 for rows that are there when a unique index is made.
pub fn duplicated(
    table: &Table,
    name: &str,
    key: impl Iterator<Item = usize>,
    row: &[Datum],
    session: &SessionCx,
) -> SqlError {
    let detail = format!("{} is duplicated.", describe_key(table, key, row, session));
    let error =
        SqlError::new(state::UNIQUE_VIOLATION, format!("could not create unique index \"{name}\"")).detail(detail);
    of_table(error, table, session).constraint(name)
}

/// `Key (a, b)=(1, x)`.
fn describe_key(table: &Table, key: impl Iterator<Item = usize>, row: &[Datum], session: &SessionCx) -> String {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for position in key {
        if let Some(column) = table.columns().nth(position) {
            names.push(quote_identifier(&column.name));
            values.push(print(&row[position], Type(column.ty), session));
        }
    }
    format!("Key ({})=({})", names.join(", "), values.join(", "))
}

/// `Failing row contains (1, null, abc).`, long values cut as PostgreSQL cuts them.
fn failing_row(table: &Table, row: &[Datum], session: &SessionCx) -> String {
    const VALUE_MAX: usize = 64;
    let values = table.columns().zip(row).map(|(column, value)| {
        let text = print(value, Type(column.ty), session);
        if text.len() <= VALUE_MAX { text } else { format!("{}...", io::cut_bytes(&text, VALUE_MAX)) }
    });
    format!("Failing row contains ({}).", values.collect::<Vec<_>>().join(", "))
}

fn print(value: &Datum, ty: Type, session: &SessionCx) -> String {
    if value.is_null() { "null".to_owned() } else { io::to_text(value, ty, session) }
}
