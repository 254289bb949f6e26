//! The relations of information_schema: PostgreSQL 15's columns over our definitions. Columns whose domains do not exist here have the
//! domains' base types. As in PostgreSQL, views show what the user may see: here that is everything.
//!
//! What SQL knows and we have nothing of (domains, triggers) is empty. Routines are those of pg_proc.

use std::sync::Arc;

use super::pg_catalog::value::{NULL, int4, text, text_or_null};
use super::pg_catalog::{Ask, Made, Rows, columns_of, definitions, describe::schema_name, index_attnums, proc_rows};
use super::schema::{Column, Deferral, ForeignKey, Relation, Sequence, Table, VirtualTable};
use super::{INFORMATION_SCHEMA, PG_CATALOG};
use crate::error::Result;
use crate::functions::SessionCx;
use crate::types::info::{format_type, numeric_typmod};
use crate::types::{Datum, Row, Type, TypeMod};

/// All of them.
pub fn tables() -> Vec<Arc<dyn VirtualTable>> {
    definitions()
        .iter()
        .filter(|d| d.schema == INFORMATION_SCHEMA)
        .map(|d| Arc::new(Made::new(d, rows_of(d.name))) as Arc<dyn VirtualTable>)
        .collect()
}

fn rows_of(name: &str) -> Rows {
    match name {
        "information_schema_catalog_name" => Rows::Computed(|ask| Ok(vec![vec![text(&ask.cx.database)]])),
        "enabled_roles" => Rows::Computed(|ask| Ok(vec![vec![text(&ask.cx.user)]])),
        "schemata" => Rows::Computed(schemata),
        "tables" => Rows::Defined(all_tables),
        "columns" => Rows::Defined(columns),
        "views" => Rows::Defined(views),
        "view_table_usage" => Rows::Defined(view_table_usage),
        "sequences" => Rows::Defined(sequences),
        "table_constraints" => Rows::Defined(table_constraints),
        "key_column_usage" => Rows::Defined(key_column_usage),
        "constraint_column_usage" => Rows::Defined(constraint_column_usage),
        "constraint_table_usage" => Rows::Defined(constraint_table_usage),
        "referential_constraints" => Rows::Defined(referential_constraints),
        "check_constraints" => Rows::Defined(check_constraints),
        "routines" => Rows::Computed(routines),
        "foreign_data_wrappers" => Rows::Computed(foreign_data_wrappers),
        "foreign_servers" => Rows::Computed(foreign_servers),
        "foreign_server_options" => Rows::Computed(foreign_server_options),
        "foreign_tables" => Rows::Defined(foreign_tables),
        "foreign_table_options" => Rows::Computed(foreign_table_options),
        "column_options" => Rows::Computed(column_options),
        _ => Rows::Empty,
    }
}

fn yes_or_no(b: bool) -> Datum {
    text(if b { "YES" } else { "NO" })
}

/// All relations but indexes, by oid, of a schema or of a name if the query asks for one.
fn relations<'a>(ask: &Ask<'a>) -> Vec<&'a Relation> {
    let schema = ask.name("table_schema");
    let name = ask.name("table_name");
    let wanted = |r: &&Relation| {
        !matches!(r, Relation::Index(..))
            && name.is_none_or(|n| n == r.name())
            && schema.is_none_or(|s| s == schema_name(ask.cx, r.schema()))
    };
    let mut all: Vec<&Relation> = ask.cx.catalog.relations.values().filter(wanted).collect();
    all.sort_unstable_by_key(|r| r.oid());
    all
}

fn stored_tables<'a>(ask: &Ask<'a>) -> impl Iterator<Item = &'a Arc<Table>> + use<'a> {
    relations(ask).into_iter().filter_map(|r| match r {
        Relation::Table(t) => Some(t),
        _ => None,
    })
}

fn schemata(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |s: &Arc<super::Schema>| {
        vec![text(&ask.cx.database), text(&s.name), text(&ask.cx.user), NULL, NULL, NULL, NULL]
    };
    Ok(ask.cx.catalog.schemas.values().map(row).collect())
}

/// Whether a relation is shown as a table or as a view; sequences are neither.
fn table_type(relation: &Relation) -> Option<&'static str> {
    match relation {
        Relation::Table(t) if t.foreign.is_some() => Some("FOREIGN"),
        Relation::Table(_) => Some("BASE TABLE"),
        Relation::View(_) => Some("VIEW"),
        Relation::Virtual(v) if definitions().iter().any(|d| d.oid == v.oid() && d.kind == 'r') => Some("BASE TABLE"),
        Relation::Virtual(_) => Some("VIEW"),
        Relation::Sequence(_) | Relation::Index(..) => None,
    }
}

/// Catalog, schema and name of a relation.
fn place(cx: &SessionCx, schema: u32, name: &str) -> [Datum; 3] {
    [text(&cx.database), text(schema_name(cx, schema)), text(name)]
}

fn all_tables(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |r: &Relation| {
        let kind = table_type(r)?;
        let mut row = place(ask.cx, r.schema(), r.name()).to_vec();
        row.extend([
            text(kind),
            NULL,
            NULL,
            NULL,
            NULL,
            NULL,
            yes_or_no(matches!(r, Relation::Table(t) if t.foreign.is_none())),
            text("NO"),
            NULL,
        ]);
        Some(row)
    };
    Ok(relations(ask).into_iter().filter_map(row).collect())
}

/// What the columns of information_schema say of a type: from data_type's character_maximum_length to interval_precision.
fn type_facts(ty: TypeMod) -> [Datum; 9] {
    let mut facts = [(); 9].map(|()| NULL);
    facts[0] = text(data_type(ty.ty));
    let integer = |bits: i32| [int4(bits), int4(2), int4(0)];
    let numbers = match ty.ty {
        Type::INT2 => Some(integer(16)),
        Type::INT4 => Some(integer(32)),
        Type::INT8 => Some(integer(64)),
        Type::FLOAT4 => Some([int4(24), int4(2), NULL]),
        Type::FLOAT8 => Some([int4(53), int4(2), NULL]),
        Type::NUMERIC if ty.typmod >= 4 => {
            let (precision, scale) = numeric_typmod(ty.typmod);
            Some([int4(precision), int4(10), int4(scale)])
        }
        Type::NUMERIC => Some([NULL, int4(10), NULL]),
        _ => None,
    };
    if let Some([precision, radix, scale]) = numbers {
        (facts[3], facts[4], facts[5]) = (precision, radix, scale);
    }
    match ty.ty {
        Type::VARCHAR | Type::BPCHAR if ty.typmod >= 4 => {
            facts[1] = int4(ty.typmod - 4);
            facts[2] = int4((ty.typmod - 4).saturating_mul(4));
        }
        Type::VARCHAR | Type::BPCHAR | Type::TEXT => facts[2] = int4(1 << 30),
        Type::DATE => facts[6] = int4(0),
        Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => facts[6] = int4(if ty.typmod >= 0 { ty.typmod } else { 6 }),
        Type::INTERVAL => {
            let precision = if ty.typmod >= 0 && ty.typmod & 0xffff != 0xffff { ty.typmod & 0xffff } else { 6 };
            facts[6] = int4(precision);
            let fields = format_type(ty.ty, ty.typmod);
            let fields =
                fields.trim_start_matches("interval").split('(').next().unwrap_or_default().trim().to_uppercase();
            facts[7] = text_or_null((!fields.is_empty()).then_some(fields));
        }
        _ => {}
    }
    facts
}

fn data_type(ty: Type) -> &'static str {
    if ty.is_array() && !matches!(ty, Type::INT2VECTOR | Type::OIDVECTOR) { "ARRAY" } else { ty.sql_name() }
}

/// One column as `columns` shows it.
struct ColumnFacts<'a> {
    name: &'a str,
    ty: TypeMod,
    attnum: i16,
    not_null: bool,
    column: Option<&'a Column>,
    sequence: Option<&'a Sequence>,
    updatable: bool,
}

impl ColumnFacts<'_> {
    fn row(&self, mut row: Row, cx: &SessionCx) -> Row {
        let identity = self.column.and_then(|c| c.identity);
        let default = self.column.filter(|_| identity.is_none()).and_then(|c| c.default.as_deref());
        let sequence = self.sequence.filter(|_| identity.is_some());
        let number = |f: fn(&Sequence) -> i64| text_or_null(sequence.map(|s| f(s).to_string()));
        row.extend([text(self.name), int4(self.attnum.into()), text_or_null(default), yes_or_no(!self.not_null)]);
        row.extend(type_facts(self.ty));
        // Sets, collation and domain: the defaults, which are told as NULL.
        row.extend(std::iter::repeat_n(NULL, 9));
        row.extend([text(&cx.database), text("pg_catalog"), text(self.ty.ty.info().map_or("", |t| t.name))]);
        row.extend([NULL, NULL, NULL, NULL, text(self.attnum.to_string()), text("NO"), yes_or_no(identity.is_some())]);
        row.push(text_or_null(identity.map(|i| if i == 'a' { "ALWAYS" } else { "BY DEFAULT" })));
        row.extend([number(|s| s.start), number(|s| s.increment), number(|s| s.max), number(|s| s.min)]);
        row.extend([yes_or_no(sequence.is_some_and(|s| s.cycle)), text("NEVER"), NULL, yes_or_no(self.updatable)]);
        row
    }
}

fn columns(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let sequence = |oid: Option<u32>| match ask.cx.catalog.by_oid(oid?)? {
        Relation::Sequence(s) => Some(&**s),
        _ => None,
    };
    for relation in relations(ask) {
        let place = place(ask.cx, relation.schema(), relation.name()).to_vec();
        let stored = |c: &Column, updatable: bool| {
            let facts = ColumnFacts {
                name: &c.name,
                ty: c.type_mod(),
                attnum: c.attnum,
                not_null: c.not_null,
                column: Some(c),
                sequence: sequence(c.sequence),
                updatable,
            };
            facts.row(place.clone(), ask.cx)
        };
        match relation {
            Relation::Table(t) => rows.extend(t.columns().map(|c| stored(c, t.foreign.is_none()))),
            Relation::View(v) => rows.extend(v.columns.iter().map(|c| stored(c, false))),
            Relation::Virtual(v) => {
                let not_null = definitions().iter().find(|d| d.oid == v.oid()).map_or(&[][..], |d| &d.not_null);
                for (i, (attnum, f)) in (1..).zip(v.columns().iter()).enumerate() {
                    let not_null = not_null.get(i).copied().unwrap_or(false);
                    let facts = ColumnFacts {
                        name: &f.name,
                        ty: f.ty,
                        attnum,
                        not_null,
                        column: None,
                        sequence: None,
                        updatable: false,
                    };
                    rows.push(facts.row(place.clone(), ask.cx));
                }
            }
            Relation::Sequence(_) | Relation::Index(..) => {}
        }
    }
    Ok(rows)
}

fn views(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |r: &Relation| {
        let definition = match r {
            Relation::View(v) => Some(super::pg_catalog::view_def(v)),
            _ if table_type(r) == Some("VIEW") => None,
            _ => return None,
        };
        let mut row = place(ask.cx, r.schema(), r.name()).to_vec();
        row.extend([
            text_or_null(definition),
            text("NONE"),
            text("NO"),
            text("NO"),
            text("NO"),
            text("NO"),
            text("NO"),
        ]);
        Some(row)
    };
    Ok(relations(ask).into_iter().filter_map(row).collect())
}

fn view_table_usage(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut views: Vec<_> = ask
        .cx
        .catalog
        .relations
        .values()
        .filter_map(|r| if let Relation::View(v) = r { Some(v) } else { None })
        .collect();
    views.sort_unstable_by_key(|v| v.oid);
    for view in views {
        for used in view.depends_on.iter().filter_map(|o| ask.cx.catalog.by_oid(*o)).filter(|r| table_type(r).is_some())
        {
            rows.push([place(ask.cx, view.schema, &view.name), place(ask.cx, used.schema(), used.name())].concat());
        }
    }
    Ok(rows)
}

fn sequences(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |r: &Relation| {
        let Relation::Sequence(s) = r else { return None };
        let ty = Type(s.ty);
        let bits = ty.info().map_or(64, |t| i32::from(t.len) * 8);
        let mut row = place(ask.cx, s.schema, &s.name).to_vec();
        row.extend([text(ty.sql_name()), int4(bits), int4(2), int4(0)]);
        row.extend([s.start, s.min, s.max, s.increment].map(|n| text(n.to_string())));
        row.push(yes_or_no(s.cycle));
        Some(row)
    };
    Ok(relations(ask).into_iter().filter_map(row).collect())
}

/// A constraint: its name, its kind and its columns.
struct Constraint<'a> {
    name: String,
    kind: &'static str,
    attnums: Vec<i16>,
    table: &'a Table,
    /// The condition of a check.
    clause: Option<String>,
    deferral: Deferral,
    /// A foreign key.
    reference: Option<&'a ForeignKey>,
}

/// All constraints of a table, NOT NULL too: PostgreSQL tells those here as checks.
fn constraints(table: &Table) -> Vec<Constraint<'_>> {
    let make = |name: &str, kind, attnums, clause| {
        let (deferral, reference) = (Deferral::Never, None);
        Constraint { name: name.to_owned(), kind, attnums, table, clause, deferral, reference }
    };
    let mut all = Vec::new();
    if let Some(key) = &table.primary_key {
        all.push(make(&key.name, "PRIMARY KEY", key.columns.clone(), None));
    }
    for i in table.indexes.iter().filter(|i| i.constraint) {
        let kind = if i.primary { "PRIMARY KEY" } else { "UNIQUE" };
        let made = make(&i.name, kind, i.columns.iter().map(|c| c.attnum).collect(), None);
        all.push(Constraint { deferral: i.deferral, ..made });
    }
    for key in &table.foreign_keys {
        let made = make(&key.name, "FOREIGN KEY", key.columns.clone(), None);
        all.push(Constraint { deferral: key.deferral, reference: Some(key), ..made });
    }
    for check in &table.checks {
        all.push(make(
            &check.name,
            "CHECK",
            columns_of(table, &check.expr),
            Some(super::pg_catalog::check_def(&check.expr).trim_start_matches("CHECK ").to_owned()),
        ));
    }
    for c in table.columns().filter(|c| c.not_null) {
        all.push(make(
            &format!("{}_{}_{}_not_null", table.schema, table.oid, c.attnum),
            "CHECK",
            Vec::new(),
            Some(format!("{} IS NOT NULL", c.name)),
        ));
    }
    all
}

fn table_constraints(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for t in stored_tables(ask) {
        for c in constraints(t) {
            let mut row = place(ask.cx, t.schema, &c.name).to_vec();
            row.extend(place(ask.cx, t.schema, &t.name));
            row.extend([
                text(c.kind),
                yes_or_no(!c.deferral.is_never()),
                yes_or_no(c.deferral == Deferral::Deferred),
                text("YES"),
                if c.kind == "UNIQUE" { text("YES") } else { NULL },
            ]);
            rows.push(row);
        }
    }
    Ok(rows)
}

fn column_name(table: &Table, attnum: i16) -> Datum {
    text_or_null(table.slots.iter().find(|c| c.attnum == attnum).map(|c| &c.name))
}

fn key_column_usage(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for c in stored_tables(ask).flat_map(|t| constraints(t)).filter(|c| c.clause.is_none()) {
        for (n, attnum) in (1..).zip(&c.attnums) {
            let mut row = place(ask.cx, c.table.schema, &c.name).to_vec();
            row.extend(place(ask.cx, c.table.schema, &c.table.name));
            let place = c.reference.and_then(|key| {
                let parent = ask.cx.catalog.table(key.table)?;
                let referenced = key.referenced.get(n as usize - 1)?;
                index_attnums(parent, key.index).iter().position(|a| a == referenced)
            });
            row.extend([column_name(c.table, *attnum), int4(n), place.map_or(NULL, |p| int4(p as i32 + 1))]);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The table and columns a constraint uses: a foreign key those it refers to.
fn used<'a>(ask: &Ask<'a>, c: &'a Constraint<'a>) -> (&'a Table, &'a [i16]) {
    match c.reference.and_then(|key| Some((ask.cx.catalog.table(key.table)?, key))) {
        Some((parent, key)) => (parent, &key.referenced),
        None => (c.table, &c.attnums),
    }
}

fn constraint_column_usage(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for c in stored_tables(ask).flat_map(|t| constraints(t)) {
        let (table, attnums) = used(ask, &c);
        for attnum in attnums {
            let mut row = place(ask.cx, table.schema, &table.name).to_vec();
            row.push(column_name(table, *attnum));
            row.extend(place(ask.cx, c.table.schema, &c.name));
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Only keys use a table in this sense.
fn constraint_table_usage(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let keys = stored_tables(ask).flat_map(|t| constraints(t)).filter(|c| c.clause.is_none());
    Ok(keys
        .map(|c| {
            let (table, _) = used(ask, &c);
            [place(ask.cx, table.schema, &table.name), place(ask.cx, c.table.schema, &c.name)].concat()
        })
        .collect())
}

fn referential_constraints(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for t in stored_tables(ask) {
        for key in &t.foreign_keys {
            let mut row = place(ask.cx, t.schema, &key.name).to_vec();
            let parent = ask.cx.catalog.table(key.table);
            let name = parent.and_then(|p| constraint_of(p, key.index));
            match (parent, name) {
                (Some(parent), Some(name)) => row.extend(place(ask.cx, parent.schema, name)),
                _ => row.extend([NULL, NULL, NULL]),
            }
            let matching = if key.match_full { "FULL" } else { "NONE" };
            row.extend([matching, key.on_update.words(), key.on_delete.words()].map(text));
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Name of the constraint that made an index.
fn constraint_of(table: &Table, index: u32) -> Option<&str> {
    let primary = table.primary_key.iter().filter(|k| k.oid == index).map(|k| k.name.as_str());
    let others = table.indexes.iter().filter(|i| i.oid == index && i.constraint).map(|i| i.name.as_str());
    primary.chain(others).next()
}

fn check_constraints(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |c: Constraint<'_>| {
        let mut row = place(ask.cx, c.table.schema, &c.name).to_vec();
        row.push(text(c.clause?));
        Some(row)
    };
    Ok(stored_tables(ask).flat_map(|t| constraints(t)).filter_map(row).collect())
}

fn foreign_data_wrappers(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let name = text(crate::foreign::WRAPPER_NAME);
    Ok(vec![vec![text(&ask.cx.database), name, text(&ask.cx.user), NULL, text("rust")]])
}

fn foreign_servers(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |s: &Arc<super::Server>| {
        vec![
            text(&ask.cx.database),
            text(&s.name),
            text(&ask.cx.database),
            text(crate::foreign::WRAPPER_NAME),
            text_or_null(s.kind.as_ref()),
            text_or_null(s.version.as_ref()),
            text(&ask.cx.user),
        ]
    };
    Ok(ask.cx.catalog.servers.values().map(row).collect())
}

/// Options behind what they are of.
fn options_of(of: &[Datum], options: &super::schema::FdwOptions) -> Vec<Row> {
    options.iter().map(|(name, value)| [of, &[text(name), text(value)]].concat()).collect()
}

fn foreign_server_options(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let servers = ask.cx.catalog.servers.values();
    Ok(servers.flat_map(|s| options_of(&[text(&ask.cx.database), text(&s.name)], &s.options)).collect())
}

fn foreign_tables(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |t: &Arc<Table>| {
        let server = ask.cx.catalog.servers.get(&t.foreign.as_ref()?.server)?;
        let mut row = place(ask.cx, t.schema, &t.name).to_vec();
        row.extend([text(&ask.cx.database), text(&server.name)]);
        Some(row)
    };
    Ok(stored_tables(ask).filter_map(row).collect())
}

fn foreign_table_options(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let rows = |t: &Arc<Table>| {
        let options = t.foreign.as_ref().map(|f| &f.options)?;
        Some(options_of(&place(ask.cx, t.schema, &t.name), options))
    };
    Ok(stored_tables(ask).filter_map(rows).flatten().collect())
}

fn column_options(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for t in stored_tables(ask) {
        for c in t.columns() {
            let mut of = place(ask.cx, t.schema, &t.name).to_vec();
            of.push(text(&c.name));
            rows.extend(options_of(&of, &c.options));
        }
    }
    Ok(rows)
}

/// Functions of pg_proc, without aggregates and window functions.
fn routines(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let fields = definitions().iter().find(|d| d.name == "routines").map_or(&[][..], |d| &d.fields);
    let at = |name: &str| fields.iter().position(|f| &*f.name == name).expect("a column of routines");
    let place = [
        ("specific_catalog", at("specific_catalog")),
        ("routine_catalog", at("routine_catalog")),
        ("type_udt_catalog", at("type_udt_catalog")),
    ];
    let constants = [
        (at("specific_schema"), "pg_catalog"),
        (at("routine_schema"), "pg_catalog"),
        (at("routine_type"), "FUNCTION"),
        (at("type_udt_schema"), "pg_catalog"),
        (at("routine_body"), "EXTERNAL"),
        (at("external_language"), "INTERNAL"),
        (at("parameter_style"), "GENERAL"),
        (at("sql_data_access"), "MODIFIES"),
        (at("schema_level_routine"), "YES"),
        (at("security_type"), "INVOKER"),
        (at("as_locator"), "NO"),
        (at("is_udt_dependent"), "NO"),
        (at("dtd_identifier"), "0"),
    ];
    let (specific_name, routine_name, data, udt) =
        (at("specific_name"), at("routine_name"), at("data_type"), at("type_udt_name"));
    let (deterministic, null_call) = (at("is_deterministic"), at("is_null_call"));
    let schema = schema_name(ask.cx, PG_CATALOG);
    let mut rows = Vec::new();
    for f in proc_rows().iter().filter(|f| f.kind == "f") {
        let mut row = vec![NULL; fields.len()];
        place.iter().for_each(|(_, i)| row[*i] = text(&ask.cx.database));
        constants.iter().for_each(|(i, value)| row[*i] = text(if *value == "pg_catalog" { schema } else { value }));
        row[specific_name] = text(format!("{}_{}", f.name, f.oid));
        row[routine_name] = text(f.name);
        row[data] = text(data_type(f.ret));
        row[udt] = text(f.ret.info().map_or("", |t| t.name));
        row[deterministic] = yes_or_no(f.immutable);
        row[null_call] = yes_or_no(f.strict);
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
