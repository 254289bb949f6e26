//! CREATE INDEX, and the keys of constraints.

use super::names::columns_part;
use super::rewrite::fill_index;
use super::{DdlCx, column};
use crate::catalog::schema::{Deferral, Index, IndexColumn, Key, Table};
use crate::codec::key::is_key_type;
use crate::error::{Result, SqlError, state};
use crate::parse::ast::{CreateIndex, ExprKind, IndexElement};
use crate::types::Type;
use crate::types::info::format_type;

/// A table has one primary key.
pub(super) fn multiple_primary_keys(table: &str) -> SqlError {
    let message = format!("multiple primary keys for table \"{table}\" are not allowed");
    SqlError::new(state::INVALID_TABLE_DEFINITION, message)
}

/// Gives a table its primary key; its columns become NOT NULL. Rows are the caller's matter.
pub(super) fn add_primary(
    table: &mut Table,
    name: Option<String>,
    columns: Vec<i16>,
    deferral: Deferral,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    if table.primary_key.is_some() || table.indexes.iter().any(|i| i.primary) {
        return Err(multiple_primary_keys(&table.name));
    }
    for attnum in &columns {
        check_key_type(table, *attnum)?;
        if let Some(slot) = table.slots.iter_mut().find(|c| c.attnum == *attnum) {
            slot.not_null = true;
        }
    }
    let name = match name {
        Some(name) => free_name(table, name, cx)?,
        None => cx.choose_relation(table.schema, &table.name, None, "pkey", &names_of(table)),
    };
    let oid = cx.change.new_oid();
    if deferral.is_never() {
        table.primary_key = Some(Key { oid, name, columns, comment: None });
    } else {
        // Its entries are the caller's matter, as those of [`add_unique`] are.
        let index = key_index(oid, name, columns, deferral);
        table.indexes.push(Index { primary: true, ..index });
    }
    Ok(())
}

/// The index of a UNIQUE constraint.
fn key_index(oid: u32, name: String, columns: Vec<i16>, deferral: Deferral) -> Index {
    let columns = columns.into_iter().map(ascending).collect();
    Index { unique: deferral.is_never(), constraint: true, deferral, ..Index::new(oid, name, columns) }
}

fn ascending(attnum: i16) -> IndexColumn {
    IndexColumn { attnum, desc: false, nulls_first: false }
}

/// Gives a table the index of a UNIQUE constraint. Its entries are the caller's matter.
pub(super) fn add_unique(
    table: &mut Table,
    name: Option<String>,
    columns: Vec<i16>,
    deferral: Deferral,
    cx: &mut DdlCx<'_>,
) -> Result<Index> {
    for attnum in &columns {
        check_key_type(table, *attnum)?;
    }
    let name = match name {
        Some(name) => free_name(table, name, cx)?,
        None => {
            let columns: Vec<IndexColumn> = columns.iter().copied().map(ascending).collect();
            choose_name(table, &columns, "key", cx)
        }
    };
    let index = key_index(cx.change.new_oid(), name, columns, deferral);
    table.indexes.push(index.clone());
    Ok(index)
}

/// The name PostgreSQL would give an index of these columns.
pub(super) fn choose_name(table: &Table, columns: &[IndexColumn], label: &str, cx: &DdlCx<'_>) -> String {
    let names: Vec<&str> = columns
        .iter()
        .filter_map(|c| table.slots.iter().find(|s| s.attnum == c.attnum))
        .map(|c| c.name.as_str())
        .collect();
    cx.choose_relation(table.schema, &table.name, Some(&columns_part(names)), label, &names_of(table))
}

/// Names the table's definition takes that the catalog may not show yet.
fn names_of(table: &Table) -> Vec<String> {
    let indexes = table.indexes.iter().map(|i| &i.name).chain(table.primary_key.iter().map(|k| &k.name));
    indexes.chain([&table.name]).cloned().collect()
}

fn free_name(table: &Table, name: String, cx: &DdlCx<'_>) -> Result<String> {
    if cx.catalog().relation(table.schema, &name).is_some() || names_of(table).contains(&name) {
        return Err(SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
    }
    Ok(name)
}

fn check_key_type(table: &Table, attnum: i16) -> Result<()> {
    let Some(slot) = table.slots.iter().find(|c| c.attnum == attnum) else { return Ok(()) };
    if is_key_type(Type(slot.ty)) {
        return Ok(());
    }
    let message = format!(
        "data type {} has no default operator class for access method \"btree\"",
        format_type(Type(slot.ty), -1)
    );
    Err(SqlError::new(state::UNDEFINED_OBJECT, message)
        .hint("You must specify an operator class for the index or define a default operator class for the data type."))
}

/// CREATE INDEX.
pub(super) fn create(create: &CreateIndex, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    const TAG: &str = "CREATE INDEX";
    let missing = || SqlError::internal("a missing table was no error");
    let table = cx.table(&create.table, false)?.ok_or_else(missing)?;
    if table.foreign.is_some() {
        let message = format!("cannot create index on relation \"{}\"", table.name);
        return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message)
            .detail("This operation is not supported for foreign tables."));
    }
    if let Some(name) = &create.name
        && cx.is_taken(table.schema, &name.text, create.if_not_exists)?
    {
        return Ok(TAG);
    }
    refuse(create)?;
    let mut changed = Table::clone(&table);
    let columns: Vec<IndexColumn> = create.columns.iter().map(|c| index_column(&table, c)).collect::<Result<_>>()?;
    for c in &columns {
        check_key_type(&table, c.attnum)?;
    }
    let name = match &create.name {
        Some(name) => name.text.clone(),
        None => choose_name(&table, &columns, "idx", cx),
    };
    cx.change.claim_name(table.schema, &name, false)?;
    // One that is made CONCURRENTLY is filled and declared valid by the session, in transactions of their own.
    let valid = !create.concurrently;
    let index = Index { unique: create.unique, valid, ..Index::new(cx.change.new_oid(), name, columns) };
    changed.indexes.push(index.clone());
    let table = cx.change.put_table(changed)?;
    if valid {
        fill_index(&table, &index, cx)?;
    }
    Ok(TAG)
}

fn refuse(create: &CreateIndex) -> Result<()> {
    match create.method.as_deref() {
        None | Some("btree") => {}
        Some(known @ ("hash" | "gist" | "spgist" | "gin" | "brin")) => {
            return Err(SqlError::unsupported(format!("access method \"{known}\"")));
        }
        Some(other) => {
            return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("access method \"{other}\" does not exist")));
        }
    }
    if create.filter.is_some() {
        return Err(SqlError::unsupported("a partial index"));
    }
    if !create.include.is_empty() {
        return Err(SqlError::unsupported("INCLUDE"));
    }
    if create.nulls_not_distinct {
        return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
    }
    create.unsupported.as_ref().map_or(Ok(()), |clause| Err(SqlError::unsupported(clause)))
}

fn index_column(table: &Table, element: &IndexElement) -> Result<IndexColumn> {
    let ExprKind::Column(names) = &element.expr.expr.kind else {
        return Err(SqlError::unsupported("an index on an expression"));
    };
    let [name] = &names[..] else { return Err(SqlError::unsupported("an index on an expression")) };
    let missing = || SqlError::new(state::UNDEFINED_COLUMN, format!("column \"{}\" does not exist", name.text));
    let (_, slot) = table.column(&name.text).ok_or_else(missing)?;
    column::check_collation(element.collation.as_ref(), Type(slot.ty))?;
    if let Some(class) = &element.opclass
        && !is_default_class(class.last(), Type(slot.ty))
    {
        return Err(SqlError::unsupported(format!("operator class \"{class}\"")));
    }
    Ok(IndexColumn {
        attnum: slot.attnum,
        desc: element.desc,
        nulls_first: element.nulls_first.unwrap_or(element.desc),
    })
}

/// Operator classes that order as we do: the default ones, and those that ask for the order of bytes, which collation C gives anyway.
fn is_default_class(class: &str, ty: Type) -> bool {
    let wanted = match ty {
        Type::TEXT | Type::VARCHAR => {
            return matches!(class, "text_ops" | "varchar_ops" | "text_pattern_ops" | "varchar_pattern_ops");
        }
        Type::BPCHAR => return matches!(class, "bpchar_ops" | "bpchar_pattern_ops"),
        _ if ty.element().is_some() => "array_ops",
        _ => return ty.info().is_some_and(|i| class == format!("{}_ops", i.name)),
    };
    class == wanted
}
