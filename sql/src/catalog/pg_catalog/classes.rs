//! Schemas, relations and their columns: pg_namespace, pg_class, pg_attribute and what hangs on them.

use std::sync::{Arc, OnceLock};

use super::describe::{schema_name, view_def};
use super::made::{Ask, Definition, definitions, find_recorded};
use super::value::{NULL, bool, char, int2, int4, int8, oid, text, text_or_null};
use crate::catalog::schema::{Column, Relation, Sequence, Table};
use crate::codec::keyspace;
use crate::error::Result;
use crate::foreign::WRAPPER;
use crate::functions::SessionCx;
use crate::types::reg::SUPERUSER;
use crate::types::{Datum, Row, Type, array};
use crate::write::sequence::SequenceState;

/// Rows of pg_opclass.
pub(super) const OPCLASSES: &str = include_str!("../data/pg_opclass.tsv");

/// Oids of the catalogs that pg_depend and pg_description speak of.
const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
const PG_CONSTRAINT: u32 = 2606;
const PG_ATTRDEF: u32 = 2604;
const PG_REWRITE: u32 = 2618;
const PG_FOREIGN_SERVER: u32 = 1417;
const PG_FOREIGN_DATA_WRAPPER: u32 = 2328;
/// The access methods of tables and indexes.
const HEAP: u32 = 2;
const BTREE: u32 = 403;

/// The relations a query wants, by oid: all, or the one that `column` must equal.
pub(super) fn relations<'a>(ask: &Ask<'a>, column: &str) -> Vec<&'a Relation> {
    match ask.oid(column) {
        Some(oid) => ask.cx.catalog.by_oid(oid).into_iter().collect(),
        None => sorted(ask.cx),
    }
}

fn sorted(cx: &SessionCx) -> Vec<&Relation> {
    let mut all: Vec<&Relation> = cx.catalog.relations.values().collect();
    all.sort_unstable_by_key(|r| r.oid());
    all
}

/// The tables a query wants, by oid.
pub(super) fn tables<'a>(ask: &Ask<'a>, column: &str) -> impl Iterator<Item = &'a Arc<Table>> + use<'a> {
    relations(ask, column).into_iter().filter_map(|r| match r {
        Relation::Table(t) => Some(t),
        _ => None,
    })
}

fn system(oid: u32) -> Option<&'static Definition> {
    definitions().iter().find(|d| d.oid == oid)
}

pub(super) fn namespaces(ask: &Ask<'_>) -> Result<Vec<Row>> {
    Ok(ask.cx.catalog.schemas.values().map(|s| vec![oid(s.oid), text(&s.name), oid(SUPERUSER), NULL]).collect())
}

/// What differs between the rows of pg_class.
struct Class {
    kind: char,
    access_method: u32,
    natts: usize,
    checks: usize,
    has_index: bool,
    has_rules: bool,
    has_triggers: bool,
    replica_identity: char,
}

pub(super) fn classes(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let wanted = match ask.name("relname") {
        Some(name) => sorted(ask.cx).into_iter().filter(|r| r.name() == name).collect(),
        None => relations(ask, "oid"),
    };
    Ok(wanted.into_iter().map(|r| class(r, ask.cx)).collect())
}

fn class(relation: &Relation, cx: &SessionCx) -> Row {
    let plain = Class {
        kind: 'r',
        access_method: 0,
        natts: 0,
        checks: 0,
        has_index: false,
        has_rules: false,
        has_triggers: false,
        replica_identity: 'n',
    };
    let c = match relation {
        Relation::Table(t) if t.foreign.is_some() => {
            Class { kind: 'f', natts: t.slots.len(), checks: t.checks.len(), ..plain }
        }
        Relation::Table(t) => Class {
            access_method: HEAP,
            natts: t.slots.len(),
            checks: t.checks.len(),
            has_index: t.primary_key.is_some() || !t.indexes.is_empty(),
            // PostgreSQL's foreign keys are triggers of both tables, and clients look for them only where there are any.
            has_triggers: !t.foreign_keys.is_empty() || cx.catalog.is_referenced(t.oid),
            replica_identity: 'd',
            ..plain
        },
        Relation::View(v) => Class { kind: 'v', natts: v.columns.len(), has_rules: true, ..plain },
        Relation::Sequence(_) => Class { kind: 'S', natts: 3, ..plain },
        Relation::Index(t, index) => {
            Class { kind: 'i', access_method: BTREE, natts: index_attnums(t, *index).len(), ..plain }
        }
        Relation::Virtual(v) => match system(v.oid()) {
            Some(d) if d.kind == 'r' => Class { access_method: HEAP, natts: d.fields.len(), ..plain },
            _ => Class { kind: 'v', natts: v.columns().len(), ..plain },
        },
    };
    let stored = matches!(c.kind, 'r' | 'i' | 'S');
    vec![
        oid(relation.oid()),
        text(relation.name()),
        oid(relation.schema()),
        oid(0),         // reltype: tables have no row type
        oid(0),         // reloftype
        oid(SUPERUSER), // relowner
        oid(c.access_method),
        oid(if stored { relation.oid() } else { 0 }), // relfilenode
        oid(0),                                       // reltablespace
        int4(0),                                      // relpages
        Datum::Float4(-1.0),                          // reltuples: unknown
        int4(0),                                      // relallvisible
        oid(0),                                       // reltoastrelid
        bool(c.has_index),
        bool(false), // relisshared
        char('p'),   // relpersistence
        char(c.kind),
        int2(c.natts),
        int2(c.checks),
        bool(c.has_rules),
        bool(c.has_triggers),
        bool(false), // relhassubclass
        bool(false), // relrowsecurity
        bool(false), // relforcerowsecurity
        bool(true),  // relispopulated
        char(c.replica_identity),
        bool(false),   // relispartition
        oid(0),        // relrewrite
        Datum::Oid(0), // relfrozenxid
        Datum::Oid(0), // relminmxid
        NULL,
        NULL,
        NULL,
    ]
}

/// Attribute numbers of an index's columns.
pub(in crate::catalog) fn index_attnums(table: &Table, index: u32) -> Vec<i16> {
    match &table.primary_key {
        Some(key) if key.oid == index => key.columns.clone(),
        _ => table
            .indexes
            .iter()
            .find(|i| i.oid == index)
            .map_or_else(Vec::new, |i| i.columns.iter().map(|c| c.attnum).collect()),
    }
}

/// What pg_attribute says of a column.
struct Attribute<'a> {
    name: &'a str,
    ty: Type,
    typmod: i32,
    attnum: i16,
    not_null: bool,
    has_default: bool,
    has_missing: bool,
    identity: Option<char>,
}

impl<'a> Attribute<'a> {
    fn of(column: &'a Column) -> Attribute<'a> {
        Attribute {
            name: &column.name,
            ty: Type(column.ty),
            typmod: column.typmod,
            attnum: column.attnum,
            not_null: column.not_null,
            has_default: column.default.is_some() && column.identity.is_none(),
            has_missing: column.missing.is_some(),
            identity: column.identity,
        }
    }
    fn plain(name: &'a str, ty: Type, typmod: i32, attnum: i16, not_null: bool) -> Attribute<'a> {
        Attribute { name, ty, typmod, attnum, not_null, has_default: false, has_missing: false, identity: None }
    }
    fn row(&self, relation: u32) -> Row {
        self.row_as(relation, self.name, self.ty, false)
    }
    /// A column that was dropped: its number stays taken.
    fn dropped_row(&self, relation: u32) -> Row {
        self.row_as(relation, &format!("........pg.dropped.{}........", self.attnum), Type::NONE, true)
    }
    fn row_as(&self, relation: u32, name: &str, ty: Type, dropped: bool) -> Row {
        let info = self.ty.info();
        vec![
            oid(relation),
            text(name),
            oid(ty.0),
            int4(if dropped { 0 } else { -1 }), // attstattarget
            int2(info.map_or(-1, |i| i.len)),
            int2(self.attnum),
            int4(i32::from(ty.is_array() && !matches!(ty, Type::INT2VECTOR | Type::OIDVECTOR))), // attndims
            int4(-1),                                                                            // attcacheoff
            int4(self.typmod),
            bool(info.is_some_and(|i| i.by_value)),
            char(info.map_or('i', |i| char::from(i.align))),
            char(info.map_or('x', |i| char::from(i.storage))),
            text(""), // attcompression
            bool(self.not_null && !dropped),
            bool(self.has_default && !dropped),
            bool(self.has_missing && !dropped),
            self.identity.filter(|_| !dropped).map_or_else(|| text(""), char),
            text(""), // attgenerated
            bool(dropped),
            bool(true), // attislocal
            int4(0),    // attinhcount
            oid(if dropped { 0 } else { info.map_or(0, |i| i.collation) }),
            NULL,
            NULL,
            NULL,
            NULL,
        ]
    }
}

/// Rows of pg_attribute for the relations that never change.
fn system_attributes(relation: u32) -> Vec<Row> {
    let attributes = |d: &Definition| -> Vec<Row> {
        let fields = d.fields.iter().zip(&d.not_null);
        fields
            .map(|(f, not_null)| Attribute::plain(&f.name, f.ty.ty, f.ty.typmod, f.attnum, *not_null).row(d.oid))
            .collect()
    };
    system(relation).map_or_else(Vec::new, attributes)
}

pub(super) fn attributes(ask: &Ask<'_>) -> Result<Vec<Row>> {
    static SYSTEM: OnceLock<Vec<Row>> = OnceLock::new();
    let mut rows = Vec::new();
    let one = ask.oid("attrelid").is_some();
    for relation in relations(ask, "attrelid") {
        let id = relation.oid();
        match relation {
            Relation::Table(t) => rows.extend(t.slots.iter().map(|c| match c.dropped {
                true => Attribute::of(c).dropped_row(id),
                false => {
                    let mut row = Attribute::of(c).row(id);
                    if let [.., options, _missing] = row.as_mut_slice() {
                        *options = super::foreign::options(&c.options);
                    }
                    row
                }
            })),
            Relation::View(v) => rows.extend(v.columns.iter().map(|c| Attribute::of(c).row(id))),
            Relation::Sequence(_) => {
                for (attnum, (name, ty)) in
                    (1..).zip([("last_value", Type::INT8), ("log_cnt", Type::INT8), ("is_called", Type::BOOL)])
                {
                    rows.push(Attribute::plain(name, ty, -1, attnum, true).row(id));
                }
            }
            Relation::Index(t, index) => {
                for (position, attnum) in (1..).zip(index_attnums(t, *index)) {
                    if let Some(c) = t.slots.iter().find(|c| c.attnum == attnum) {
                        rows.push(Attribute::plain(&c.name, Type(c.ty), c.typmod, position, false).row(id));
                    }
                }
            }
            Relation::Virtual(v) if system(v.oid()).is_none() => {
                let columns = v.columns();
                rows.extend(
                    (1..)
                        .zip(columns.iter())
                        .map(|(n, f)| Attribute::plain(&f.name, f.ty.ty, f.ty.typmod, n, false).row(id)),
                );
            }
            Relation::Virtual(_) if one => rows.extend(system_attributes(id)),
            Relation::Virtual(_) => {}
        }
    }
    if !one {
        rows.extend_from_slice(
            SYSTEM.get_or_init(|| definitions().iter().flat_map(|d| system_attributes(d.oid)).collect()),
        );
    }
    Ok(rows)
}

/// A default has no oid of its own: one made of its column's, the same as long as the column lives.
pub(crate) fn attrdef_oid(table: u32, attnum: i16) -> u32 {
    0x8000_0000 | (table.wrapping_mul(1601).wrapping_add(attnum.unsigned_abs().into()) & 0x7fff_ffff)
}

pub(super) fn defaults(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let of_table = |t: &Arc<Table>| -> Vec<Row> {
        let columns = t.columns().filter(|c| c.identity.is_none());
        columns
            .filter_map(|c| {
                Some(vec![oid(attrdef_oid(t.oid, c.attnum)), oid(t.oid), int2(c.attnum), text(c.default.as_ref()?)])
            })
            .collect()
    };
    Ok(tables(ask, "adrelid").flat_map(of_table).collect())
}

fn of_sequences<'a>(ask: &Ask<'a>, column: &str) -> impl Iterator<Item = &'a Arc<Sequence>> + use<'a> {
    relations(ask, column).into_iter().filter_map(|r| match r {
        Relation::Sequence(s) => Some(s),
        _ => None,
    })
}

pub(super) fn sequences(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |s: &Arc<Sequence>| {
        vec![
            oid(s.oid),
            oid(s.ty),
            int8(s.start),
            int8(s.increment),
            int8(s.max),
            int8(s.min),
            int8(s.cache),
            bool(s.cycle),
        ]
    };
    Ok(of_sequences(ask, "seqrelid").map(row).collect())
}

/// pg_sequences. `last_value` is what is stored: as with PostgreSQL's CACHE it may be ahead of the last value given out.
pub(super) fn sequences_view(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for s in of_sequences(ask, "") {
        let state = match ask.exec {
            Some(exec) => SequenceState::parse(exec.view.get(&keyspace::sequence(s.oid))?.as_deref(), s)?,
            None => SequenceState::fresh(s),
        };
        rows.push(vec![
            text(schema_name(ask.cx, s.schema)),
            text(&s.name),
            text(&ask.cx.user),
            oid(s.ty),
            int8(s.start),
            int8(s.min),
            int8(s.max),
            int8(s.increment),
            bool(s.cycle),
            int8(s.cache),
            if state.called { int8(state.last) } else { NULL },
        ]);
    }
    Ok(rows)
}

/// Comments on schemas, relations, columns and primary keys' constraints.
pub(super) fn descriptions(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |object: u32, catalog: u32, column: i16, comment: &Option<String>| {
        if let Some(comment) = comment {
            rows.push(vec![oid(object), oid(catalog), int4(column.into()), text(comment)]);
        }
    };
    for schema in ask.cx.catalog.schemas.values() {
        add(schema.oid, PG_NAMESPACE, 0, &schema.comment);
    }
    for server in ask.cx.catalog.servers.values() {
        add(server.oid, PG_FOREIGN_SERVER, 0, &server.comment);
    }
    for relation in sorted(ask.cx) {
        match relation {
            Relation::Table(t) => {
                add(t.oid, PG_CLASS, 0, &t.comment);
                t.columns().for_each(|c| add(t.oid, PG_CLASS, c.attnum, &c.comment));
                t.primary_key.iter().for_each(|k| add(k.oid, PG_CLASS, 0, &k.comment));
                t.indexes.iter().for_each(|i| add(i.oid, PG_CLASS, 0, &i.comment));
                t.foreign_keys.iter().for_each(|k| add(k.oid, PG_CONSTRAINT, 0, &k.comment));
            }
            Relation::View(v) => {
                add(v.oid, PG_CLASS, 0, &v.comment);
                v.columns.iter().for_each(|c| add(v.oid, PG_CLASS, c.attnum, &c.comment));
            }
            Relation::Sequence(s) => add(s.oid, PG_CLASS, 0, &s.comment),
            Relation::Index(..) | Relation::Virtual(_) => {}
        }
    }
    Ok(rows)
}

/// A view's rule has no oid of its own.
fn rewrite_oid(view: u32) -> u32 {
    0x8000_0000 | view
}

/// The rule of each view. Its action is told as the query's text.
pub(super) fn rewrites(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |r: &Relation| match r {
        Relation::View(v) => Some(vec![
            oid(rewrite_oid(v.oid)),
            text("_RETURN"),
            oid(v.oid),
            char('1'),
            char('O'),
            bool(true),
            text("<>"),
            text(&v.query),
        ]),
        _ => None,
    };
    Ok(relations(ask, "ev_class").into_iter().filter_map(row).collect())
}

/// Who owns or reads whom: sequences of columns, defaults, indexes and constraints of tables, what views read.
pub(super) fn dependencies(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add =
        |(class, object, sub): (u32, u32, i16), (ref_class, ref_object, ref_sub): (u32, u32, i16), kind: char| {
            rows.push(vec![
                oid(class),
                oid(object),
                int4(sub.into()),
                oid(ref_class),
                oid(ref_object),
                int4(ref_sub.into()),
                char(kind),
            ]);
        };
    for server in ask.cx.catalog.servers.keys() {
        add((PG_FOREIGN_SERVER, *server, 0), (PG_FOREIGN_DATA_WRAPPER, WRAPPER, 0), 'n');
    }
    for relation in sorted(ask.cx) {
        match relation {
            Relation::Table(t) => {
                add((PG_CLASS, t.oid, 0), (PG_NAMESPACE, t.schema, 0), 'n');
                if let Some(foreign) = &t.foreign {
                    add((PG_CLASS, t.oid, 0), (PG_FOREIGN_SERVER, foreign.server, 0), 'n');
                }
                for c in t.columns().filter(|c| c.default.is_some() && c.identity.is_none()) {
                    add((PG_ATTRDEF, attrdef_oid(t.oid, c.attnum), 0), (PG_CLASS, t.oid, c.attnum), 'a');
                    if let Some(sequence) = c.sequence {
                        add((PG_ATTRDEF, attrdef_oid(t.oid, c.attnum), 0), (PG_CLASS, sequence, 0), 'n');
                    }
                }
                if let Some(key) = &t.primary_key {
                    key.columns.iter().for_each(|a| add((PG_CONSTRAINT, key.oid, 0), (PG_CLASS, t.oid, *a), 'a'));
                    add((PG_CLASS, key.oid, 0), (PG_CONSTRAINT, key.oid, 0), 'i');
                }
                for i in &t.indexes {
                    let dependent = if i.constraint { PG_CONSTRAINT } else { PG_CLASS };
                    i.columns.iter().for_each(|c| add((dependent, i.oid, 0), (PG_CLASS, t.oid, c.attnum), 'a'));
                    if i.constraint {
                        add((PG_CLASS, i.oid, 0), (PG_CONSTRAINT, i.oid, 0), 'i');
                    }
                }
                t.checks.iter().for_each(|c| add((PG_CONSTRAINT, c.oid, 0), (PG_CLASS, t.oid, 0), 'a'));
                for key in &t.foreign_keys {
                    let constraint = (PG_CONSTRAINT, key.oid, 0);
                    key.columns.iter().for_each(|a| add(constraint, (PG_CLASS, t.oid, *a), 'a'));
                    key.referenced.iter().for_each(|a| add(constraint, (PG_CLASS, key.table, *a), 'n'));
                    add(constraint, (PG_CLASS, key.index, 0), 'n');
                }
            }
            Relation::View(v) => {
                add((PG_CLASS, v.oid, 0), (PG_NAMESPACE, v.schema, 0), 'n');
                add((PG_REWRITE, rewrite_oid(v.oid), 0), (PG_CLASS, v.oid, 0), 'i');
                v.depends_on.iter().for_each(|o| add((PG_REWRITE, rewrite_oid(v.oid), 0), (PG_CLASS, *o, 0), 'n'));
            }
            Relation::Sequence(s) => {
                add((PG_CLASS, s.oid, 0), (PG_NAMESPACE, s.schema, 0), 'n');
                if let Some((table, attnum)) = s.owner {
                    add(
                        (PG_CLASS, s.oid, 0),
                        (PG_CLASS, table, attnum),
                        if is_identity(ask.cx, table, attnum) { 'i' } else { 'a' },
                    );
                }
            }
            Relation::Index(..) | Relation::Virtual(_) => {}
        }
    }
    Ok(rows)
}

fn is_identity(cx: &SessionCx, table: u32, attnum: i16) -> bool {
    match cx.catalog.by_oid(table) {
        Some(Relation::Table(t)) => t.slots.iter().any(|c| c.attnum == attnum && c.identity.is_some()),
        _ => false,
    }
}

pub(super) fn tables_view(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |r: &Relation| {
        let has_index = match r {
            Relation::Table(t) if t.foreign.is_none() => t.primary_key.is_some() || !t.indexes.is_empty(),
            Relation::Virtual(v) if system(v.oid()).is_some_and(|d| d.kind == 'r') => false,
            _ => return None,
        };
        let schema = schema_name(ask.cx, r.schema());
        Some(vec![
            text(schema),
            text(r.name()),
            text(&ask.cx.user),
            NULL,
            bool(has_index),
            bool(false),
            bool(false),
            bool(false),
        ])
    };
    Ok(sorted(ask.cx).into_iter().filter_map(row).collect())
}

/// pg_views. Of the system's own views there is no definition to show.
pub(super) fn views_view(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |r: &Relation| {
        let definition = match r {
            Relation::View(v) => Some(view_def(v)),
            Relation::Virtual(v) if system(v.oid()).is_none_or(|d| d.kind == 'v') => None,
            _ => return None,
        };
        Some(vec![text(schema_name(ask.cx, r.schema())), text(r.name()), text(&ask.cx.user), text_or_null(definition)])
    };
    Ok(sorted(ask.cx).into_iter().filter_map(row).collect())
}

/// The operator class an index uses for a type by default; 0 if there is none.
pub(super) fn operator_class(ty: Type) -> u32 {
    let class_type = match ty {
        Type::VARCHAR => Type::TEXT,
        _ if ty.is_array() && ty != Type::OIDVECTOR => Type::ANYARRAY,
        _ => ty,
    };
    let found = find_recorded(OPCLASSES, &[(6, &class_type.0.to_string()), (7, "t")]);
    found.and_then(|o| o.parse().ok()).unwrap_or(0)
}

/// An int2vector or oidvector.
pub(super) fn vector(ty: Type, values: impl IntoIterator<Item = Datum>) -> Datum {
    array::vector(ty, values.into_iter().collect())
}
