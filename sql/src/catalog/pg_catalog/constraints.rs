//! Indexes and constraints. A constraint with an index has the index's oid; a check has its own.

use super::classes::{operator_class, relations, tables, vector};
use super::describe::{identifiers, index_def, schema_name};
use super::made::{Ask, find_recorded};
use super::value::{NULL, bool, char, int2, int2s, int4, oid, text};
use crate::catalog::schema::{Deferral, ForeignKey, IndexColumn, Relation, Table};
use crate::error::Result;
use crate::types::{Array, Datum, Row, Type};

/// Key columns of a table's index, whether it is unique and the primary one, and whether a constraint made it.
pub(super) struct IndexShape<'a> {
    pub name: &'a str,
    pub columns: Vec<IndexColumn>,
    pub unique: bool,
    pub primary: bool,
    pub constraint: bool,
    pub valid: bool,
    pub ready: bool,
    pub deferral: Deferral,
}

pub(super) fn index_shape(table: &Table, index: u32) -> Option<IndexShape<'_>> {
    if let Some(key) = table.primary_key.as_ref().filter(|k| k.oid == index) {
        let columns = key.columns.iter().map(|a| IndexColumn { attnum: *a, desc: false, nulls_first: false }).collect();
        let deferral = Deferral::Never;
        return Some(IndexShape {
            name: &key.name,
            columns,
            unique: true,
            primary: true,
            constraint: true,
            valid: true,
            ready: true,
            deferral,
        });
    }
    let i = table.indexes.iter().find(|i| i.oid == index)?;
    Some(IndexShape {
        name: &i.name,
        columns: i.columns.clone(),
        unique: i.is_key(),
        primary: i.primary,
        constraint: i.constraint,
        valid: i.valid,
        ready: i.ready,
        deferral: i.deferral,
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
        bool(shape.deferral.is_never()),
        bool(false), // indisclustered
        bool(shape.valid),
        bool(false), // indcheckxmin
        bool(shape.ready),
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
                let kind = if shape.primary { 'p' } else { 'u' };
                let attnums = shape.columns.iter().map(|c| c.attnum).collect();
                let plain = Constraint { index, deferral: shape.deferral, ..Constraint::new(index, shape.name, kind) };
                rows.push(constraint_row(t, Constraint { attnums, ..plain }));
            }
        }
        for check in &t.checks {
            let (attnums, expr) = (columns_of(t, &check.expr), text(&check.expr));
            let plain = Constraint::new(check.oid, &check.name, 'c');
            rows.push(constraint_row(t, Constraint { attnums, expr, valid: !check.not_valid, ..plain }));
        }
        for key in &t.foreign_keys {
            rows.push(reference_row(t, key, ask));
        }
    }
    Ok(rows)
}

fn reference_row(table: &Table, key: &ForeignKey, ask: &Ask<'_>) -> Row {
    let type_of =
        |t: &Table, attnum: i16| t.slots.iter().find(|c| c.attnum == attnum).map_or(Type::NONE, |c| Type(c.ty));
    let parent = ask.cx.catalog.table(key.table);
    let types: Vec<(Type, Type)> = key
        .columns
        .iter()
        .zip(&key.referenced)
        .map(|(from, to)| (parent.map_or(Type::NONE, |p| type_of(p, *to)), type_of(table, *from)))
        .collect();
    let operators = |pick: fn((Type, Type)) -> (Type, Type)| {
        let oids = types.iter().map(|pair| Datum::Oid(equality_operator(pick(*pair))));
        Array::from_values(Type::OID, oids.collect()).datum()
    };
    let set = if key.set_columns.is_empty() { NULL } else { int2s(key.set_columns.clone()) };
    constraint_row(
        table,
        Constraint {
            index: key.index,
            deferral: key.deferral,
            valid: !key.not_valid,
            attnums: key.columns.clone(),
            reference: Some(key),
            operators: [
                operators(|(to, from)| (to, from)),
                operators(|(to, _)| (to, to)),
                operators(|(_, from)| (from, from)),
                set,
            ],
            ..Constraint::new(key.oid, &key.name, 'f')
        },
    )
}

/// Attribute numbers of the columns an expression's text names.
pub(in crate::catalog) fn columns_of(table: &Table, expr: &str) -> Vec<i16> {
    let names = identifiers(expr);
    table.columns().filter(|c| names.contains(&c.name)).map(|c| c.attnum).collect()
}

/// What differs between the rows of pg_constraint.
struct Constraint<'a> {
    oid: u32,
    name: &'a str,
    kind: char,
    index: u32,
    deferral: Deferral,
    valid: bool,
    attnums: Vec<i16>,
    expr: Datum,
    reference: Option<&'a ForeignKey>,
    /// conpfeqop, conppeqop, conffeqop, confdelsetcols.
    operators: [Datum; 4],
}

impl<'a> Constraint<'a> {
    fn new(oid: u32, name: &'a str, kind: char) -> Constraint<'a> {
        Constraint {
            oid,
            name,
            kind,
            index: 0,
            deferral: Deferral::Never,
            valid: true,
            attnums: Vec::new(),
            expr: NULL,
            reference: None,
            operators: [NULL, NULL, NULL, NULL],
        }
    }
}

fn constraint_row(table: &Table, c: Constraint<'_>) -> Row {
    let action = |of: fn(&ForeignKey) -> char| char(c.reference.map_or(' ', of));
    let [by_both, of_parent, of_child, set_columns] = c.operators;
    vec![
        oid(c.oid),
        text(c.name),
        oid(table.schema),
        char(c.kind),
        bool(!c.deferral.is_never()),
        bool(c.deferral == Deferral::Deferred),
        bool(c.valid),
        oid(table.oid),
        oid(0), // contypid
        oid(c.index),
        oid(0), // conparentid
        oid(c.reference.map_or(0, |k| k.table)),
        action(|k| k.on_update.code()),
        action(|k| k.on_delete.code()),
        action(|k| if k.match_full { 'f' } else { 's' }),
        bool(true),          // conislocal
        int4(0),             // coninhcount
        bool(c.kind != 'c'), // connoinherit
        int2s(c.attnums),
        c.reference.map_or(NULL, |k| int2s(k.referenced.clone())),
        by_both,
        of_parent,
        of_child,
        set_columns,
        NULL, // conexclop
        c.expr,
    ]
}

/// Oid of the operator that compares values of two types for equality, or of those their strings are compared as.
fn equality_operator((left, right): (Type, Type)) -> u32 {
    let base = |ty: Type| if ty == Type::VARCHAR { Type::TEXT } else { ty };
    let (left, right) = (base(left), base(right));
    let find = |left: Type, right: Type| {
        let wanted = [(1, "="), (7, &*left.0.to_string()), (8, &*right.0.to_string())];
        find_recorded(include_str!("../data/pg_operator.tsv"), &wanted).and_then(|o| o.parse().ok())
    };
    // An array's is anyarray's.
    let of_arrays = || find(Type::ANYARRAY, Type::ANYARRAY).filter(|_| left.is_array());
    find(left, right).or_else(|| find(left, left)).or_else(of_arrays).unwrap_or(0)
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
