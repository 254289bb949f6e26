//! RENAME TO, SET SCHEMA, OWNER TO, and stored texts that must follow a new name.
//!
//! Checks, defaults and views are kept as text. When a name they use changes, it is replaced in the text just where binding the text had resolved a
//! word to what is renamed (`bind/trace.rs`), and the text is bound again: a rename by which a view would mean anything else is refused. Sequences in
//! defaults are named by one literal that nothing else looks like, and replaced as such.

use super::names::regclass_literal;
use super::{DdlCx, drop, foreign, is_kind, object_word, view};
use crate::catalog::schema::{Relation, Schema, Sequence, Table, View};
use crate::catalog::{INFORMATION_SCHEMA, PG_CATALOG};
use crate::error::{Result, SqlError, state};
use crate::parse::ast::{ObjectKind, QName};
use crate::session::Notice;

/// ALTER ... RENAME TO.
pub(super) fn rename(
    kind: ObjectKind,
    name: &QName,
    if_exists: bool,
    to: &str,
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    let tag = alter_tag(kind)?;
    if kind == ObjectKind::Schema {
        rename_schema(name.last(), to, cx)?;
        return Ok(tag);
    }
    if kind == ObjectKind::Server {
        foreign::rename_server(name.last(), to, cx)?;
        return Ok(tag);
    }
    let Some(relation) = target(kind, name, if_exists, cx)? else { return Ok(tag) };
    if cx.catalog().relation(relation.schema(), to).is_some() {
        return Err(SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{to}\" already exists")));
    }
    let old_name = relation.name().to_owned();
    let before = cx.catalog().clone();
    let readers = view::readers(relation.oid(), &before);
    match relation {
        Relation::Table(table) => {
            cx.change.put_table(Table { name: to.to_owned(), ..Table::clone(&table) })?;
        }
        Relation::View(v) => cx.change.put_view(View { name: to.to_owned(), ..View::clone(&v) })?,
        Relation::Sequence(s) => {
            let schema = cx.schema_name(s.schema);
            cx.change.put_sequence(Sequence { name: to.to_owned(), ..Sequence::clone(&s) })?;
            replace_in_defaults(&regclass_literal(&schema, &old_name), &regclass_literal(&schema, to), cx)?;
        }
        Relation::Index(table, oid) => rename_index(&table, oid, to, cx)?,
        Relation::Virtual(_) => {}
    }
    view::follow(&readers, &before, cx)?;
    Ok(tag)
}

fn alter_tag(kind: ObjectKind) -> Result<&'static str> {
    Ok(match kind {
        ObjectKind::Table => "ALTER TABLE",
        ObjectKind::View => "ALTER VIEW",
        ObjectKind::Index => "ALTER INDEX",
        ObjectKind::Sequence => "ALTER SEQUENCE",
        ObjectKind::ForeignTable => "ALTER FOREIGN TABLE",
        ObjectKind::Server => "ALTER SERVER",
        ObjectKind::Schema => "ALTER SCHEMA",
        ObjectKind::Database => return Err(SqlError::unsupported("ALTER DATABASE")),
        ObjectKind::Other(word) => return Err(SqlError::unsupported(format!("ALTER {}", word.to_uppercase()))),
    })
}

/// The relation to alter. ALTER TABLE may name any kind, as in PostgreSQL.
fn target(kind: ObjectKind, name: &QName, if_exists: bool, cx: &mut DdlCx<'_>) -> Result<Option<Relation>> {
    match cx.find(name)? {
        Some(relation) => {
            cx.refuse_system(relation.schema(), relation.name())?;
            if kind != ObjectKind::Table && !is_kind(&relation, kind) {
                let article = if kind == ObjectKind::Index { "an" } else { "a" };
                let message = format!("\"{}\" is not {article} {}", relation.name(), object_word(kind));
                return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
            }
            Ok(Some(relation))
        }
        None if if_exists => {
            cx.notices.push(Notice::new(format!("relation \"{name}\" does not exist, skipping")));
            Ok(None)
        }
        None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))),
    }
}

/// Renames an index, and with it the constraint it belongs to.
pub(super) fn rename_index(table: &Table, oid: u32, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let mut table = table.clone();
    if let Some(key) = table.primary_key.as_mut().filter(|k| k.oid == oid) {
        key.name = to.to_owned();
    }
    if let Some(index) = table.indexes.iter_mut().find(|i| i.oid == oid) {
        index.name = to.to_owned();
    }
    cx.change.put_table(table).map(|_| ())
}

fn rename_schema(from: &str, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let oid = cx.schema_oid(from)?;
    drop::check_schema_name(to)?;
    if oid == PG_CATALOG || oid == INFORMATION_SCHEMA {
        return Err(SqlError::new(super::INSUFFICIENT_PRIVILEGE, format!("must be owner of schema {from}")));
    }
    if cx.catalog().schema_oid(to).is_some() {
        return Err(SqlError::new(state::DUPLICATE_SCHEMA, format!("schema \"{to}\" already exists")));
    }
    let inside: Vec<Relation> = cx.catalog().relations.values().filter(|r| r.schema() == oid).cloned().collect();
    let schema = Schema {
        name: to.to_owned(),
        ..cx.catalog().schemas.get(&oid).map(|s| Schema::clone(s)).unwrap_or(Schema {
            oid,
            name: String::new(),
            comment: None,
        })
    };
    let before = cx.catalog().clone();
    cx.change.put_schema(schema)?;
    let mut readers: Vec<u32> = Vec::new();
    for relation in &inside {
        if let Relation::Sequence(s) = relation {
            replace_in_defaults(&regclass_literal(from, &s.name), &regclass_literal(to, &s.name), cx)?;
        }
        readers.extend(view::readers(relation.oid(), &before).iter().map(|v| v.oid));
    }
    readers.sort_unstable();
    readers.dedup();
    let views = readers.iter().filter_map(|oid| match before.by_oid(*oid) {
        Some(Relation::View(v)) => Some(v.clone()),
        _ => None,
    });
    view::follow(&views.collect::<Vec<_>>(), &before, cx)
}

/// ALTER ... SET SCHEMA.
pub(super) fn set_schema(
    kind: ObjectKind,
    name: &QName,
    if_exists: bool,
    schema: &str,
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    let tag = alter_tag(kind)?;
    let Some(relation) = target(kind, name, if_exists, cx)? else { return Ok(tag) };
    let to = cx.schema_oid(schema)?;
    cx.refuse_system(to, relation.name())?;
    if to == relation.schema() {
        return Ok(tag);
    }
    let mut moved = vec![relation.clone()];
    if let Relation::Table(table) = &relation {
        moved.extend(owned_sequences(table.oid, cx).into_iter().map(|s| Relation::Sequence(s.into())));
    }
    let from = cx.schema_name(relation.schema());
    for relation in moved {
        let (oid, name) = (relation.oid(), relation.name().to_owned());
        if cx.catalog().relation(to, &name).is_some() {
            return Err(SqlError::new(
                state::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists in schema \"{schema}\""),
            ));
        }
        let before = cx.catalog().clone();
        let readers = view::readers(oid, &before);
        match relation {
            Relation::Table(t) => {
                cx.change.put_table(Table { schema: to, ..Table::clone(&t) })?;
            }
            Relation::View(v) => cx.change.put_view(View { schema: to, ..View::clone(&v) })?,
            Relation::Sequence(s) => {
                cx.change.put_sequence(Sequence { schema: to, ..Sequence::clone(&s) })?;
                replace_in_defaults(&regclass_literal(&from, &name), &regclass_literal(schema, &name), cx)?;
            }
            Relation::Index(..) | Relation::Virtual(_) => {
                return Err(SqlError::new(
                    state::WRONG_OBJECT_TYPE,
                    format!("\"{name}\" is not a table, view, or sequence"),
                ));
            }
        }
        view::follow(&readers, &before, cx)?;
    }
    Ok(tag)
}

/// OWNER TO: there are no owners, so it changes nothing; the object must be there.
pub(super) fn set_owner(kind: ObjectKind, name: &QName, if_exists: bool, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    match kind {
        ObjectKind::Schema => {
            cx.schema_oid(name.last())?;
        }
        ObjectKind::Database => return Ok("ALTER DATABASE"),
        ObjectKind::Server => {
            foreign::server(name.last(), cx)?;
        }
        _ => {
            target(kind, name, if_exists, cx)?;
        }
    }
    alter_tag(kind)
}

/// Sequences that belong to a table's columns.
pub(super) fn owned_sequences(table: u32, cx: &DdlCx<'_>) -> Vec<Sequence> {
    let owned = cx.catalog().relations.values().filter_map(|r| match r {
        Relation::Sequence(s) if s.owner.is_some_and(|(t, _)| t == table) => Some(Sequence::clone(s)),
        _ => None,
    });
    let mut owned: Vec<Sequence> = owned.collect();
    owned.sort_by_key(|s| s.oid);
    owned
}

fn replace_in_defaults(from: &str, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let uses = |t: &Table| t.slots.iter().any(|c| c.default.as_ref().is_some_and(|d| d.contains(from)));
    let tables: Vec<Table> = cx
        .catalog()
        .relations
        .values()
        .filter_map(|r| match r {
            Relation::Table(t) if uses(t) => Some(Table::clone(t)),
            _ => None,
        })
        .collect();
    for mut table in tables {
        for default in table.slots.iter_mut().filter_map(|c| c.default.as_mut()) {
            *default = default.replace(from, to);
        }
        cx.change.put_table(table)?;
    }
    Ok(())
}
