//! Indexes and constraints. A constraint with an index has the index's oid; a check has its own.

use super::classes::{operator_class, relations, tables, vector};
use super::describe::{identifiers, index_def, schema_name};
use super::made::Ask;
use super::value::{NULL, bool, char, int2, int2s, int4, oid, text};
use crate::catalog::schema::{IndexColumn, Relation, Table};
use crate::error::Result;
use crate::types::{Datum, Row, Type};

/// Key columns of a table's index, whether it is unique and the primary one, and whether a constraint made it.
pub(super) struct IndexShape<'a> {
    pub name: &'a str,
    pub columns: Vec<IndexColumn>,
    pub unique: bool,
    pub primary: bool,
    pub constraint: bool,
    pub valid: bool,
}

pub(super) fn index_shape(table: &Table, index: u32) -> Option<IndexShape<'_>> {
    if let Some(key) = table.primary_key.as_ref().filter(|k| k.oid == index) {
        let columns = key.columns.iter().map(|a| IndexColumn { attnum: *a, desc: false, nulls_first: false }).collect();
        return Some(IndexShape { name: &key.name, columns, unique: true, primary: true, constraint: true, valid: true });
    }
    let i = table.indexes.iter().find(|i| i.oid == index)?;
    Some(IndexShape {
        name: &i.name,
        columns: i.columns.clone(),
        unique: i.unique,
        primary: false,
        constraint: i.constraint,
        valid: i.valid,
    })
}

/// Oids of a table's indexes, the primary key's first.
fn index_oids(table: &Table) -> impl Iterator<Item = u32> + '_ {
    table.primary_key.iter().map(|k| k.oid).chain(table.indexes.iter().map(|i| i.oid))
}

pub(super) fn indexes(ask: &Ask<'_>) -> Result<Vec<Row>> {
    if ask.oid("indexrelid").is_some() {
        let one = |r: &Relation| match r {
            Relation::Index(table, index) => index_row(table, *index),
            _ => None,
        };
        return Ok(relations(ask, "indexrelid").into_iter().filter_map(one).collect());
    }
    Ok(tables(ask, "indrelid")
        .flat_map(|t| index_oids(t).filter_map(|i| index_row(t, i)).collect::<Vec<_>>())
        .collect())
}

fn index_row(table: &Table, index: u32) -> Option<Row> {
    let shape = index_shape(table, index)?;
    let types: Vec<Type> = shape
        .columns
        .iter()
        .map(|c| table.slots.iter().find(|s| s.attnum == c.attnum).map_or(Type::NONE, |s| Type(s.ty)))
        .collect();
    let option = |c: &IndexColumn| Datum::Int2(i16::from(c.desc) | i16::from(c.nulls_first) << 1);
    Some(vec![
        oid(index),
        oid(table.oid),
        int2(shape.columns.len()),
        int2(shape.columns.len()),
        bool(shape.unique),
        bool(false), // indnullsnotdistinct
        bool(shape.primary),
        bool(false), // indisexclusion
        bool(true),  // indimmediate
        bool(false), // indisclustered
        bool(shape.valid),
        bool(false), // indcheckxmin
        bool(true),  // indisready
        bool(true),  // indislive
        bool(false), // indisreplident
        vector(Type::INT2VECTOR, shape.columns.iter().map(|c| Datum::Int2(c.attnum))),
        vector(Type::OIDVECTOR, types.iter().map(|t| Datum::Oid(t.info().map_or(0, |i| i.collation)))),
        vector(Type::OIDVECTOR, types.iter().map(|t| Datum::Oid(operator_class(*t)))),
        vector(Type::INT2VECTOR, shape.columns.iter().map(option)),
        NULL,
        NULL,
    ])
}

pub(super) fn constraints(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for t in tables(ask, "conrelid") {
        for index in index_oids(t) {
            if let Some(shape) = index_shape(t, index).filter(|s| s.constraint) {
                let attnums = shape.columns.iter().map(|c| c.attnum).collect();
                rows.push(constraint_row(
                    t,
                    index,
                    shape.name,
                    if shape.primary { 'p' } else { 'u' },
                    index,
                    attnums,
                    NULL,
                ));
            }
        }
        for check in &t.checks {
            rows.push(constraint_row(t, check.oid, &check.name, 'c', 0, columns_of(t, &check.expr), text(&check.expr)));
        }
    }
    Ok(rows)
}

/// Attribute numbers of the columns an expression's text names.
pub(in crate::catalog) fn columns_of(table: &Table, expr: &str) -> Vec<i16> {
    let names = identifiers(expr);
    table.columns().filter(|c| names.contains(&c.name)).map(|c| c.attnum).collect()
}

fn constraint_row(table: &Table, id: u32, name: &str, kind: char, index: u32, attnums: Vec<i16>, expr: Datum) -> Row {
    vec![
        oid(id),
        text(name),
        oid(table.schema),
        char(kind),
        bool(false), // condeferrable
        bool(false), // condeferred
        bool(true),  // convalidated
        oid(table.oid),
        oid(0), // contypid
        oid(index),
        oid(0), // conparentid
        oid(0), // confrelid
        char(' '),
        char(' '),
        char(' '),
        bool(true),        // conislocal
        int4(0),           // coninhcount
        bool(kind != 'c'), // connoinherit
        int2s(attnums),
        NULL, // confkey
        NULL,
        NULL,
        NULL,
        NULL,
        NULL,
        expr,
    ]
}

pub(super) fn indexes_view(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for t in tables(ask, "") {
        for index in index_oids(t) {
            let (Some(shape), Some(definition)) = (index_shape(t, index), index_def(t, index, ask.cx, false)) else {
                continue;
            };
            rows.push(vec![
                text(schema_name(ask.cx, t.schema)),
                text(&t.name),
                text(shape.name),
                NULL,
                text(definition),
            ]);
        }
    }
    Ok(rows)
}
