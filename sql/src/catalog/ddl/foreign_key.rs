//! Foreign keys as definitions: made, checked against the rows that are there, dropped with what they need.
//!
//! A foreign key is kept with the table whose rows refer. It needs the unique index, or primary key, of the columns referred to: neither that
//! nor a column of it goes without the foreign key ([`dependents`]).

use std::sync::Arc;

use super::drop::{depended_on, tell_cascade};
use super::names::{columns_part, quote_identifier};
use super::{DdlCx, view};
use crate::bind;
use crate::catalog::schema::{Deferral, ForeignKey, Relation, Table};
use crate::error::{Result, SqlError, state};
use crate::exec;
use crate::parse::ast::{Name, References, StatementKind};
use crate::plan::{self, PlanCx};
use crate::types::{Row, Type, info::format_type};
use crate::write::foreign_key::ForeignKeyRule;
use crate::write::referring::may_refer;

/// Columns a foreign key may have: PostgreSQL's INDEX_MAX_KEYS.
const COLUMNS_MAX: usize = 32;
/// invalid_foreign_key.
const INVALID_FOREIGN_KEY: &str = "42830";
/// invalid_column_reference.
const INVALID_COLUMN_REFERENCE: &str = "42P10";

/// A foreign key as written.
pub(super) struct Written<'a> {
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The referring columns.
    pub columns: Vec<Name>,
    /// All that follows REFERENCES.
    pub references: &'a References,
    /// When it is checked.
    pub deferral: Deferral,
}

/// What is done about rows that are there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// There are none: the table was made by this statement.
    None,
    /// They are checked.
    Check,
    /// NOT VALID.
    Leave,
}

/// Adds a foreign key to a table.
pub(super) fn add(table: &Table, written: &Written<'_>, rows: Rows, cx: &mut DdlCx<'_>) -> Result<()> {
    let names: Vec<&str> = written.columns.iter().map(|c| c.text.as_str()).collect();
    let name = match &written.name {
        Some(name) if has_constraint(table, name) => {
            let message = format!("constraint \"{name}\" for relation \"{}\" already exists", table.name);
            return Err(SqlError::new(state::DUPLICATE_OBJECT, message));
        }
        Some(name) => name.clone(),
        None => {
            let column = columns_part(names.iter().copied());
            cx.choose_constraint(table.schema, &table.name, Some(&column), "fkey", &[])
        }
    };
    let parent = referenced_table(written.references, table, cx)?;
    let columns = attnums(table, &written.columns)?;
    let set_columns = attnums(table, &written.references.set_columns)?;
    if let Some(outside) = set_columns.iter().position(|c| !columns.contains(c)) {
        let column = &written.references.set_columns[outside].text;
        let message = format!("column \"{column}\" referenced in ON DELETE SET action must be part of foreign key");
        return Err(SqlError::new(INVALID_COLUMN_REFERENCE, message));
    }
    let (index, referenced) = match &written.references.columns[..] {
        [] => primary_key(&parent)?,
        named => {
            let referenced = attnums(&parent, named)?;
            (unique_index(&parent, &referenced)?, referenced)
        }
    };
    if columns.len() != referenced.len() {
        let message = "number of referencing and referenced columns for foreign key disagree";
        return Err(SqlError::new(INVALID_FOREIGN_KEY, message));
    }
    let key = ForeignKey {
        oid: cx.change.new_oid(),
        name,
        columns,
        table: parent.oid,
        referenced,
        index,
        match_full: written.references.match_full,
        on_update: written.references.on_update.unwrap_or_default(),
        on_delete: written.references.on_delete.unwrap_or_default(),
        set_columns,
        deferral: written.deferral,
        not_valid: rows == Rows::Leave,
        comment: None,
    };
    check_types(table, &parent, &key)?;
    let mut changed = table.clone();
    changed.foreign_keys.push(key.clone());
    let table = cx.change.put_table(changed)?;
    if rows == Rows::Check { check_rows(&table, &key, cx) } else { Ok(()) }
}

fn referenced_table(references: &References, table: &Table, cx: &DdlCx<'_>) -> Result<Arc<Table>> {
    let name = &references.table;
    match cx.find(name)? {
        // As it is in this statement: it may be the very table that is changed.
        Some(Relation::Table(parent)) if parent.oid == table.oid => Ok(Arc::new(table.clone())),
        Some(Relation::Table(parent)) if parent.foreign.is_none() => Ok(parent),
        Some(other) => {
            if matches!(other, Relation::Virtual(_)) {
                cx.refuse_system(other.schema(), other.name())?;
            }
            let message = format!("referenced relation \"{}\" is not a table", other.name());
            Err(SqlError::new(state::WRONG_OBJECT_TYPE, message))
        }
        None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))),
    }
}

fn attnums(table: &Table, names: &[Name]) -> Result<Vec<i16>> {
    if names.len() > COLUMNS_MAX {
        let message = format!("cannot have more than {COLUMNS_MAX} keys in a foreign key");
        return Err(SqlError::new("54011", message));
    }
    let one = |name: &Name| {
        let missing = || {
            let message = format!("column \"{}\" referenced in foreign key constraint does not exist", name.text);
            SqlError::new(state::UNDEFINED_COLUMN, message)
        };
        Ok(table.column(&name.text).ok_or_else(missing)?.1.attnum)
    };
    names.iter().map(one).collect()
}

/// What REFERENCES without columns means.
fn primary_key(parent: &Table) -> Result<(u32, Vec<i16>)> {
    if let Some(key) = &parent.primary_key {
        return Ok((key.oid, key.columns.clone()));
    }
    if parent.indexes.iter().any(|i| i.primary) {
        let message = format!("cannot use a deferrable primary key for referenced table \"{}\"", parent.name);
        return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    let message = format!("there is no primary key for referenced table \"{}\"", parent.name);
    Err(SqlError::new(state::UNDEFINED_OBJECT, message))
}

/// The oldest unique index of exactly these columns, in whatever order.
fn unique_index(parent: &Table, columns: &[i16]) -> Result<u32> {
    if columns.iter().enumerate().any(|(i, c)| columns[..i].contains(c)) {
        let message = "foreign key referenced-columns list must not contain duplicates";
        return Err(SqlError::new(INVALID_FOREIGN_KEY, message));
    }
    let is_of = |of: &[i16]| of.len() == columns.len() && columns.iter().all(|c| of.contains(c));
    let of_index = |i: &crate::catalog::schema::Index| i.columns.iter().map(|c| c.attnum).collect::<Vec<i16>>();
    let primary = parent.primary_key.iter().filter(|k| is_of(&k.columns)).map(|k| k.oid);
    let same = || parent.indexes.iter().filter(|i| is_of(&of_index(i)));
    if let Some(oid) = primary.chain(same().filter(|i| i.unique && i.valid).map(|i| i.oid)).min() {
        return Ok(oid);
    }
    let name = &parent.name;
    if same().any(|i| i.is_key()) {
        let message = format!("cannot use a deferrable unique constraint for referenced table \"{name}\"");
        return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    let message = format!("there is no unique constraint matching given keys for referenced table \"{name}\"");
    Err(SqlError::new(INVALID_FOREIGN_KEY, message))
}

fn check_types(table: &Table, parent: &Table, key: &ForeignKey) -> Result<()> {
    let column = |t: &Table, attnum: i16| {
        let found = t.slots.iter().find(|c| c.attnum == attnum);
        found.map(|c| (c.name.clone(), Type(c.ty))).unwrap_or((String::new(), Type::NONE))
    };
    for (from, to) in key.columns.iter().zip(&key.referenced) {
        let ((name, from), (parent_name, to)) = (column(table, *from), column(parent, *to));
        if !may_refer(from, to) {
            let message = format!("foreign key constraint \"{}\" cannot be implemented", key.name);
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message).detail(format!(
                "Key columns \"{name}\" and \"{parent_name}\" are of incompatible types: {} and {}.",
                format_type(from, -1),
                format_type(to, -1)
            )));
        }
    }
    Ok(())
}

/// Whether a table has a constraint of this name.
pub(super) fn has_constraint(table: &Table, name: &str) -> bool {
    table.checks.iter().any(|c| c.name == name)
        || table.primary_key.as_ref().is_some_and(|k| k.name == name)
        || table.indexes.iter().any(|i| i.constraint && i.name == name)
        || table.foreign_keys.iter().any(|k| k.name == name)
}

/// Fails with 23503 if a row refers to what is not there. One join finds it, as fast as joins are: neither table is looked up row by row.
pub(super) fn check_rows(table: &Arc<Table>, key: &ForeignKey, cx: &DdlCx<'_>) -> Result<()> {
    let Some(Relation::Table(parent)) = cx.catalog().by_oid(key.table).cloned() else {
        return Err(SqlError::internal("a foreign key to no table"));
    };
    cx.sees_all_rows(table)?;
    cx.sees_all_rows(&parent)?;
    let source = orphans_query(table, &parent, key, cx);
    let statement = crate::parse::parse(&source)?.pop();
    let Some(StatementKind::Query(query)) = statement.map(|s| s.kind) else {
        return Err(SqlError::internal("a query that is none"));
    };
    let rel = cx.bind(|env| bind::bind_query(&query, &source, env))?;
    let physical = Arc::new(plan::plan(rel, &PlanCx::new(cx.session))?);
    let mut cursor = exec::open(&physical, Arc::new(cx.exec()?))?;
    let Some(orphan) = cursor.next_batch()?.into_iter().flatten().next() else { return Ok(()) };
    let missing = || SqlError::internal("a foreign key of damaged definitions");
    let rule = ForeignKeyRule::new(table, key, cx.catalog()).ok_or_else(missing)?;
    Err(rule.refused(&orphan, cx.session))
}

/// Rows of the child, its referring columns of them, that refer to nothing.
fn orphans_query(table: &Table, parent: &Table, key: &ForeignKey, cx: &DdlCx<'_>) -> String {
    let name = |t: &Table, attnum: &i16| {
        let found = t.slots.iter().find(|c| c.attnum == *attnum);
        found.map(|c| quote_identifier(&c.name)).unwrap_or_default()
    };
    let full = |t: &Table| format!("{}.{}", quote_identifier(&cx.schema_name(t.schema)), quote_identifier(&t.name));
    let columns: Vec<String> = key.columns.iter().map(|c| format!("fk.{}", name(table, c))).collect();
    let referenced: Vec<String> = key.referenced.iter().map(|c| format!("pk.{}", name(parent, c))).collect();
    let pairs: Vec<String> = columns.iter().zip(&referenced).map(|(c, r)| format!("{r} = {c}")).collect();
    let present: Vec<String> = columns.iter().map(|c| format!("{c} IS NOT NULL")).collect();
    format!(
        "SELECT {} FROM {} fk LEFT OUTER JOIN {} pk ON ({}) WHERE {} IS NULL AND ({}) LIMIT 1",
        columns.join(", "),
        full(table),
        full(parent),
        pairs.join(" AND "),
        referenced[0],
        present.join(if key.match_full { " OR " } else { " AND " })
    )
}

/// VALIDATE CONSTRAINT.
pub(super) fn validate(table: &Table, name: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let mut changed = table.clone();
    let Some(key) = changed.foreign_keys.iter_mut().find(|k| k.name == name) else { return Ok(()) };
    if !std::mem::take(&mut key.not_valid) {
        return Ok(());
    }
    let key = key.clone();
    let table = cx.change.put_table(changed)?;
    check_rows(&table, &key, cx)
}

/// Foreign keys of other tables that need this of a table: a column, an index, or any of it.
pub(super) fn dependents(
    table: u32,
    needs: impl Fn(&ForeignKey) -> bool,
    cx: &DdlCx<'_>,
) -> Vec<(Arc<Table>, ForeignKey)> {
    let all = cx.catalog().references_to(table).into_iter();
    all.filter(|(_, k)| needs(k)).map(|(t, k)| (t.clone(), k.clone())).collect()
}

/// `constraint c on table t`.
pub(super) fn describe(table: &Arc<Table>, key: &ForeignKey, cx: &DdlCx<'_>) -> String {
    let on = view::describe(&Relation::Table(table.clone()), cx);
    format!("constraint {} on {on}", quote_identifier(&key.name))
}

/// Drops foreign keys that need what is going; without CASCADE they are the error. `what` goes, and the lines say they depend on `on`.
pub(super) fn drop_dependents(
    found: &[(Arc<Table>, ForeignKey)],
    what: &str,
    on: &str,
    cascade: bool,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = found.iter().map(|(t, k)| describe(t, k, cx)).collect();
    if !cascade {
        let lines: Vec<String> = words.iter().map(|w| format!("{w} depends on {on}")).collect();
        return Err(depended_on(what, &lines, true));
    }
    tell_cascade(&words, cx);
    remove(found, cx)
}

/// Takes foreign keys away from their tables.
pub(super) fn remove(found: &[(Arc<Table>, ForeignKey)], cx: &mut DdlCx<'_>) -> Result<()> {
    for (table, key) in found {
        if let Some(Relation::Table(table)) = cx.catalog().by_oid(table.oid) {
            let mut table = Table::clone(table);
            table.foreign_keys.retain(|k| k.oid != key.oid);
            cx.change.put_table(table)?;
        }
    }
    Ok(())
}

/// After a column's type changed: foreign keys of either side must still compare, and hold.
pub(super) fn recheck(table: u32, attnum: i16, cx: &DdlCx<'_>) -> Result<()> {
    let Some(Relation::Table(changed)) = cx.catalog().by_oid(table).cloned() else { return Ok(()) };
    let own = changed.foreign_keys.iter().filter(|k| k.columns.contains(&attnum)).map(|k| (changed.clone(), k.clone()));
    let mut all: Vec<(Arc<Table>, ForeignKey)> = own.collect();
    for (child, key) in dependents(table, |k| k.referenced.contains(&attnum), cx) {
        if !all.iter().any(|(_, k)| k.oid == key.oid) {
            all.push((child, key));
        }
    }
    for (child, key) in all {
        if let Some(Relation::Table(parent)) = cx.catalog().by_oid(key.table) {
            check_types(&child, parent, &key)?;
        }
        if !key.not_valid {
            check_rows(&child, &key, cx)?;
        }
    }
    Ok(())
}

impl ForeignKeyRule {
    /// The error for a row with these values of the referring columns.
    fn refused(&self, values: &Row, session: &crate::functions::SessionCx) -> SqlError {
        use crate::write::constraints::{missing_reference, mixed_nulls};
        match values.iter().any(crate::types::Datum::is_null) {
            true => mixed_nulls(self, session),
            false => missing_reference(self, values, session),
        }
    }
}
