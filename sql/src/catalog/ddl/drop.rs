//! DROP with what depends on it; schemas, tags, comments.

use std::sync::Arc;

use super::names::quote_identifier;
use super::rename::{owned_sequences, rename_index};
use super::{DdlCx, INSUFFICIENT_PRIVILEGE, foreign, foreign_key, is_kind, kind_word, object_word, view};
use crate::bind::{self};
use crate::catalog::schema::{ForeignKey, Relation, Schema, Table, Tag, View};
use crate::catalog::{INFORMATION_SCHEMA, PG_CATALOG};
use crate::error::{Result, SqlError, state};
use crate::exec;
use crate::ir::Expr;
use crate::parse::ast::{AsOf, AsOfKind, CommentTarget, Name, ObjectKind, QName};
use crate::session::Notice;
use crate::types::{Datum, Type};

/// DROP TABLE, VIEW, INDEX, SEQUENCE, SCHEMA.
pub(super) fn run(
    kind: ObjectKind,
    names: &[QName],
    if_exists: bool,
    cascade: bool,
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    let tag = match kind {
        ObjectKind::Table => "DROP TABLE",
        ObjectKind::View => "DROP VIEW",
        ObjectKind::Index => "DROP INDEX",
        ObjectKind::Sequence => "DROP SEQUENCE",
        ObjectKind::ForeignTable => "DROP FOREIGN TABLE",
        ObjectKind::Server => {
            foreign::drop_servers(names, if_exists, cascade, cx)?;
            return Ok("DROP SERVER");
        }
        ObjectKind::Schema => {
            for name in names {
                drop_schema(name.last(), if_exists, cascade, cx)?;
            }
            return Ok("DROP SCHEMA");
        }
        ObjectKind::Database => return Err(SqlError::internal("DROP DATABASE is the session's")),
        ObjectKind::Other(word) => return Err(SqlError::unsupported(format!("DROP {}", word.to_uppercase()))),
    };
    let mut targets = Vec::new();
    for name in names {
        match cx.find(name) {
            Ok(Some(relation)) => targets.push(check_kind(relation, kind, cx)?),
            Ok(None) if !if_exists => {
                let message = format!("{} \"{name}\" does not exist", object_word(kind));
                let is_object = matches!(kind, ObjectKind::Index | ObjectKind::ForeignTable);
                let code = if is_object { state::UNDEFINED_OBJECT } else { state::UNDEFINED_TABLE };
                return Err(SqlError::new(code, message));
            }
            Err(e) if !(if_exists && e.state() == state::INVALID_SCHEMA_NAME) => return Err(e),
            Ok(None) => {
                cx.notices.push(Notice::new(format!("{} \"{name}\" does not exist, skipping", object_word(kind))))
            }
            Err(e) => cx.notices.push(Notice::new(format!("{}, skipping", e.message()))),
        }
    }
    drop_all(targets, cascade, None, cx)?;
    Ok(tag)
}

fn check_kind(relation: Relation, kind: ObjectKind, cx: &DdlCx<'_>) -> Result<Relation> {
    cx.refuse_system(relation.schema(), relation.name())?;
    if is_kind(&relation, kind) {
        return Ok(relation);
    }
    let article = |word: &str| if word == "index" { format!("an {word}") } else { format!("a {word}") };
    let word = kind_word(&relation);
    Err(SqlError::new(
        state::WRONG_OBJECT_TYPE,
        format!("\"{}\" is not {}", relation.name(), article(object_word(kind))),
    )
    .hint(format!("Use DROP {} to remove {}.", word.to_uppercase(), article(word))))
}

/// Drops relations and, with CASCADE, what depends on them. `within` is the schema being dropped with them, for the messages.
pub(super) fn drop_all(targets: Vec<Relation>, cascade: bool, within: Option<&str>, cx: &mut DdlCx<'_>) -> Result<()> {
    let mut going: Vec<u32> = targets.iter().map(Relation::oid).collect();
    // What belongs to a table goes with it.
    for relation in &targets {
        if let Relation::Table(table) = relation {
            going.extend(owned_sequences(table.oid, cx).iter().map(|s| s.oid));
        }
    }
    // Views over views: one round finds the readers of what the round before found.
    let mut extra: Vec<(Arc<View>, String)> = Vec::new();
    let mut at = 0;
    while at < going.len() {
        let oid = going[at];
        at += 1;
        for reader in view::readers(oid, cx.catalog()) {
            if !going.contains(&reader.oid) {
                let on = cx.catalog().by_oid(oid).map(|r| view::describe(r, cx)).unwrap_or_default();
                going.push(reader.oid);
                extra.push((reader, on));
            }
        }
    }
    let defaults = defaults_on(&going, cx);
    for relation in &targets {
        if let Relation::Table(table) = relation {
            cx.txn.refuse_pending(table.oid, &table.name, "DROP TABLE")?;
        }
    }
    for relation in &targets {
        if let Relation::Index(table, oid) = relation {
            refuse_constraint_index(table, *oid, cx)?;
        }
    }
    let needing = needing(&targets, &going, cx);
    if within.is_none() {
        refuse_or_tell(&targets, &extra, &defaults, &needing, cascade, cx)?;
    }
    let keys: Vec<_> = needing.into_iter().map(|(table, key, _)| (table, key)).collect();
    foreign_key::remove(&keys, cx)?;
    for (table, attnum, _) in &defaults {
        if let Some(Relation::Table(table)) = cx.catalog().by_oid(*table) {
            let mut table = Table::clone(table);
            table.slots.iter_mut().filter(|c| c.attnum == *attnum).for_each(|c| (c.default, c.sequence) = (None, None));
            cx.change.put_table(table)?;
        }
    }
    for relation in &targets {
        match relation {
            Relation::Index(table, oid) => drop_index(table.oid, *oid, cx)?,
            Relation::Sequence(s) => forget_owner(s.owner, cx)?,
            _ => {}
        }
    }
    for oid in going {
        cx.change.drop_relation(oid)?;
    }
    Ok(())
}

/// Foreign keys outside of what is dropped that need it, with the words for what they need.
fn needing(targets: &[Relation], going: &[u32], cx: &DdlCx<'_>) -> Vec<(Arc<Table>, ForeignKey, String)> {
    let mut found = Vec::new();
    for relation in targets {
        let (table, index) = match relation {
            Relation::Table(table) => (table.oid, None),
            Relation::Index(table, oid) => (table.oid, Some(*oid)),
            _ => continue,
        };
        let on = view::describe(relation, cx);
        for (child, key) in foreign_key::dependents(table, |k| index.is_none_or(|i| i == k.index), cx) {
            if index.is_some() || !going.contains(&child.oid) {
                found.push((child, key, on.clone()));
            }
        }
    }
    found
}

/// Columns outside of what is dropped whose default calls a sequence that is: (table, attnum, words for the message).
fn defaults_on(going: &[u32], cx: &DdlCx<'_>) -> Vec<(u32, i16, String)> {
    let mut found = Vec::new();
    for oid in going {
        let Some(sequence @ Relation::Sequence(s)) = cx.catalog().by_oid(*oid) else { continue };
        let literal = super::names::regclass_literal(&cx.schema_name(s.schema), &s.name);
        for relation in cx.catalog().relations.values() {
            let Relation::Table(table) = relation else { continue };
            if going.contains(&table.oid) {
                continue;
            }
            for c in table
                .columns()
                .filter(|c| c.default.as_ref().is_some_and(|d| d.contains(&literal) || c.sequence == Some(*oid)))
            {
                let words = format!(
                    "default value for column {} of {} depends on {}",
                    quote_identifier(&c.name),
                    view::describe(relation, cx),
                    view::describe(sequence, cx)
                );
                found.push((table.oid, c.attnum, words));
            }
        }
    }
    found.sort();
    found
}

fn refuse_or_tell(
    targets: &[Relation],
    extra: &[(Arc<View>, String)],
    defaults: &[(u32, i16, String)],
    needing: &[(Arc<Table>, ForeignKey, String)],
    cascade: bool,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    let view_word = |v: &Arc<View>, cx: &DdlCx<'_>| view::describe(&Relation::View(v.clone()), cx);
    if !cascade {
        let mut lines: Vec<String> = defaults.iter().map(|(_, _, words)| words.clone()).collect();
        lines.extend(needing.iter().map(|(t, k, on)| format!("{} depends on {on}", foreign_key::describe(t, k, cx))));
        lines.extend(extra.iter().map(|(v, on)| format!("{} depends on {on}", view_word(v, cx))));
        if lines.is_empty() {
            return Ok(());
        }
        let what = match targets {
            [one] => view::describe(one, cx),
            _ => "desired object(s)".to_owned(),
        };
        return Err(depended_on(&what, &lines, targets.len() == 1));
    }
    let mut words: Vec<String> =
        defaults.iter().map(|(_, _, w)| w.split(" depends on ").next().unwrap_or_default().to_owned()).collect();
    words.extend(needing.iter().map(|(t, k, _)| foreign_key::describe(t, k, cx)));
    words.extend(extra.iter().map(|(v, _)| view_word(v, cx)));
    tell_cascade(&words, cx);
    Ok(())
}

pub(super) fn depended_on(what: &str, lines: &[String], single: bool) -> SqlError {
    let others = if single { "other objects depend on it" } else { "other objects depend on them" };
    SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, format!("cannot drop {what} because {others}"))
        .detail(lines.join("\n"))
        .hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

pub(super) fn tell_cascade(words: &[String], cx: &mut DdlCx<'_>) {
    match words {
        [] => {}
        [one] => cx.notices.push(Notice::new(format!("drop cascades to {one}"))),
        many => {
            let lines: Vec<String> = many.iter().map(|w| format!("drop cascades to {w}")).collect();
            let report = SqlError::new("00000", format!("drop cascades to {} other objects", many.len()))
                .detail(lines.join("\n"));
            cx.notices.push(Notice { severity: "NOTICE", report });
        }
    }
}

/// Drops views (and views over them) that something else stands in the way of; without CASCADE it is the error.
pub(super) fn drop_views(views: &[Arc<View>], what: &str, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    let word = |v: &Arc<View>| view::describe(&Relation::View(v.clone()), cx);
    let mut found: Vec<(Arc<View>, String)> = views.iter().map(|v| (v.clone(), what.to_owned())).collect();
    let mut at = 0;
    while at < found.len() {
        let (view, on) = (found[at].0.oid, word(&found[at].0));
        at += 1;
        for reader in view::readers(view, cx.catalog()) {
            if !found.iter().any(|(v, _)| v.oid == reader.oid) {
                found.push((reader, on.clone()));
            }
        }
    }
    if !cascade {
        let lines: Vec<String> = found.iter().map(|(v, on)| format!("{} depends on {on}", word(v))).collect();
        return Err(depended_on(what, &lines, true));
    }
    let words: Vec<String> = found.iter().map(|(v, _)| word(v)).collect();
    tell_cascade(&words, cx);
    drop_all(views.iter().map(|v| Relation::View(v.clone())).collect(), true, Some(""), cx)
}

fn drop_index(table: u32, oid: u32, cx: &mut DdlCx<'_>) -> Result<()> {
    let Some(Relation::Table(table)) = cx.catalog().by_oid(table).cloned() else { return Ok(()) };
    let mut changed = Table::clone(&table);
    changed.indexes.retain(|i| i.oid != oid);
    cx.change.put_table(changed).map(|_| ())
}

/// An index that a constraint made goes with it, not by itself.
fn refuse_constraint_index(table: &Arc<Table>, oid: u32, cx: &DdlCx<'_>) -> Result<()> {
    let constraint = table.primary_key.iter().find(|k| k.oid == oid).map(|k| &k.name);
    let constraint =
        constraint.or_else(|| table.indexes.iter().find(|i| i.oid == oid && i.constraint).map(|i| &i.name));
    if let Some(name) = constraint {
        let on = view::describe(&Relation::Table(table.clone()), cx);
        let name = quote_identifier(name);
        let message = format!("cannot drop index {name} because constraint {name} on {on} requires it");
        return Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .hint(format!("You can drop constraint {name} on {on} instead.")));
    }
    Ok(())
}

/// A dropped sequence no longer belongs to its column.
fn forget_owner(owner: Option<(u32, i16)>, cx: &mut DdlCx<'_>) -> Result<()> {
    let Some((table, attnum)) = owner else { return Ok(()) };
    let Some(Relation::Table(table)) = cx.catalog().by_oid(table) else { return Ok(()) };
    if let Some(c) = table.slots.iter().find(|c| c.attnum == attnum && c.identity.is_some()) {
        let message = format!(
            "cannot drop sequence because column {} of table {} requires it",
            quote_identifier(&c.name),
            table.name
        );
        return Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message).hint(format!(
            "You can drop column {} of table {} instead.",
            quote_identifier(&c.name),
            table.name
        )));
    }
    let mut table = Table::clone(table);
    table.slots.iter_mut().filter(|c| c.attnum == attnum).for_each(|c| c.sequence = None);
    cx.change.put_table(table).map(|_| ())
}

/// A name no user's schema may have.
pub(super) fn check_schema_name(name: &str) -> Result<()> {
    if name.starts_with("pg_") {
        return Err(SqlError::new(state::RESERVED_NAME, format!("unacceptable schema name \"{name}\""))
            .detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    Ok(())
}

/// CREATE SCHEMA.
pub(super) fn create_schema(
    name: Option<&Name>,
    if_not_exists: bool,
    elements: bool,
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    const TAG: &str = "CREATE SCHEMA";
    if elements {
        return Err(SqlError::unsupported("CREATE SCHEMA with elements"));
    }
    let name = name.map(|n| n.text.clone()).unwrap_or_default();
    check_schema_name(&name)?;
    if cx.catalog().schema_oid(&name).is_some() {
        let message = format!("schema \"{name}\" already exists");
        if if_not_exists {
            let report = SqlError::new(state::DUPLICATE_SCHEMA, format!("{message}, skipping"));
            cx.notices.push(Notice { severity: "NOTICE", report });
            return Ok(TAG);
        }
        return Err(SqlError::new(state::DUPLICATE_SCHEMA, message));
    }
    let oid = cx.change.new_oid();
    cx.change.put_schema(Schema { oid, name, comment: None })?;
    Ok(TAG)
}

fn drop_schema(name: &str, if_exists: bool, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    let Some(oid) = cx.catalog().schema_oid(name) else {
        let message = format!("schema \"{name}\" does not exist");
        if if_exists {
            cx.notices.push(Notice::new(format!("{message}, skipping")));
            return Ok(());
        }
        return Err(SqlError::new(state::INVALID_SCHEMA_NAME, message));
    };
    if oid == PG_CATALOG || oid == INFORMATION_SCHEMA {
        let message = format!("cannot drop schema {name} because it is required by the database system");
        return Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message));
    }
    let mut inside: Vec<Relation> = cx
        .catalog()
        .relations
        .values()
        .filter(|r| r.schema() == oid && !matches!(r, Relation::Index(..)))
        .cloned()
        .collect();
    inside.sort_by_key(Relation::oid);
    let owned: Vec<u32> = inside
        .iter()
        .filter_map(|r| if let Relation::Table(t) = r { Some(owned_sequences(t.oid, cx)) } else { None })
        .flatten()
        .map(|s| s.oid)
        .collect();
    inside.retain(|r| !owned.contains(&r.oid()));
    let all: Vec<u32> = inside.iter().map(Relation::oid).collect();
    let what = format!("schema {}", quote_identifier(name));
    let mut lines: Vec<(String, String)> = Vec::new();
    for relation in &inside {
        lines.push((view::describe(relation, cx), what.clone()));
        let needing = needing(std::slice::from_ref(relation), &all, cx);
        lines.extend(needing.into_iter().map(|(t, k, on)| (foreign_key::describe(&t, &k, cx), on)));
    }
    let words: Vec<String> = lines.iter().map(|(word, _)| word.clone()).collect();
    if !cascade && !words.is_empty() {
        let lines: Vec<String> = lines.iter().map(|(word, on)| format!("{word} depends on {on}")).collect();
        return Err(depended_on(&what, &lines, true));
    }
    tell_cascade(&words, cx);
    drop_all(inside, true, Some(name), cx)?;
    cx.change.drop_schema(oid)?;
    Ok(())
}

/// CREATE TAG.
pub(super) fn create_tag(
    name: &Name,
    at: Option<&AsOf>,
    if_not_exists: bool,
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    const TAG: &str = "CREATE TAG";
    if cx.catalog().tags.contains_key(&name.text) {
        let message = format!("tag \"{}\" already exists", name.text);
        if if_not_exists {
            cx.notices.push(Notice::new(format!("{message}, skipping")));
            return Ok(TAG);
        }
        return Err(SqlError::new(state::DUPLICATE_OBJECT, message));
    }
    let version = match at {
        Some(at) => version_of(at, cx)?,
        None => cx.txn.with(|t| Ok(t.base().version().0))?,
    };
    // Known to be one before it is kept.
    cx.resolver.catalog_at(version)?;
    let oid = cx.change.new_oid();
    cx.change.put_tag(Tag { oid, name: name.text.clone(), version })?;
    Ok(TAG)
}

fn version_of(at: &AsOf, cx: &DdlCx<'_>) -> Result<u64> {
    let value = |expr, ty: Type| -> Result<Datum> {
        let bound: Expr =
            cx.bind(|env| bind::bind_expr(bind::Clause::AsOf, expr, cx.source, &[], Some((ty.plain(), "AS OF")), env))?;
        exec::eval(&bound, &[], &cx.exec()?)
    };
    match &at.kind {
        AsOfKind::Tag(tag) => {
            let missing = || SqlError::new(state::UNDEFINED_OBJECT, format!("tag \"{tag}\" does not exist"));
            Ok(cx.catalog().tags.get(tag).ok_or_else(missing)?.version)
        }
        AsOfKind::Version(expr) => match value(expr, Type::INT8)? {
            Datum::Int8(v) if v >= 0 => Ok(v as u64),
            _ => Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "a version must be a number that is not negative")),
        },
        AsOfKind::Time(expr) => match value(expr, Type::TIMESTAMPTZ)? {
            Datum::TimestampTz(micros) => cx.resolver.version_at(micros),
            _ => Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "the time of AS OF must not be null")),
        },
    }
}

/// DROP TAG.
pub(super) fn drop_tag(name: &Name, if_exists: bool, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    if cx.catalog().tags.contains_key(&name.text) {
        cx.change.drop_tag(&name.text)?;
    } else if if_exists {
        cx.notices.push(Notice::new(format!("tag \"{}\" does not exist, skipping", name.text)));
    } else {
        return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("tag \"{}\" does not exist", name.text)));
    }
    Ok("DROP TAG")
}

/// COMMENT ON.
pub(super) fn comment(on: &CommentTarget, text: Option<&str>, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    const TAG: &str = "COMMENT";
    let comment = text.filter(|t| !t.is_empty()).map(str::to_owned);
    match on {
        CommentTarget::Object(ObjectKind::Schema, name) => {
            let oid = cx.schema_oid(name.last())?;
            if oid == PG_CATALOG || oid == INFORMATION_SCHEMA {
                return Err(SqlError::new(INSUFFICIENT_PRIVILEGE, format!("must be owner of schema {name}")));
            }
            if let Some(schema) = cx.catalog().schemas.get(&oid) {
                let schema = Schema { comment, ..Schema::clone(schema) };
                cx.change.put_schema(schema)?;
            }
        }
        CommentTarget::Object(ObjectKind::Database, _) => return Err(SqlError::unsupported("COMMENT ON DATABASE")),
        CommentTarget::Object(ObjectKind::Other(word), _) => {
            return Err(SqlError::unsupported(format!("COMMENT ON {}", word.to_uppercase())));
        }
        CommentTarget::Object(ObjectKind::Server, name) => foreign::comment_server(name.last(), comment, cx)?,
        CommentTarget::Object(kind, name) => {
            let missing = || SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
            let relation = check_kind(cx.find(name)?.ok_or_else(missing)?, *kind, cx)?;
            comment_relation(relation, comment, cx)?;
        }
        CommentTarget::Column(name) => comment_column(name, comment, cx)?,
        CommentTarget::Constraint { name, table } => {
            let missing = || {
                SqlError::new(
                    state::UNDEFINED_OBJECT,
                    format!("constraint \"{}\" for table \"{table}\" does not exist", name.text),
                )
            };
            let found = cx.table(table, false)?.ok_or_else(missing)?;
            let key = found.primary_key.iter().find(|k| k.name == name.text).map(|k| k.oid);
            let oid = key.or_else(|| found.indexes.iter().find(|i| i.constraint && i.name == name.text).map(|i| i.oid));
            match oid {
                Some(oid) => comment_relation(Relation::Index(found, oid), comment, cx)?,
                None if found.foreign_keys.iter().any(|k| k.name == name.text) => {
                    let mut table = Table::clone(&found);
                    table
                        .foreign_keys
                        .iter_mut()
                        .filter(|k| k.name == name.text)
                        .for_each(|k| k.comment = comment.clone());
                    cx.change.put_table(table)?;
                }
                None if found.checks.iter().any(|c| c.name == name.text) => {
                    return Err(SqlError::unsupported("COMMENT ON CONSTRAINT of a CHECK"));
                }
                None => return Err(missing()),
            }
        }
    }
    Ok(TAG)
}

fn comment_relation(relation: Relation, comment: Option<String>, cx: &mut DdlCx<'_>) -> Result<()> {
    match relation {
        Relation::Table(t) => cx.change.put_table(Table { comment, ..Table::clone(&t) }).map(|_| ()),
        Relation::View(v) => cx.change.put_view(View { comment, ..View::clone(&v) }),
        Relation::Sequence(s) => {
            cx.change.put_sequence(crate::catalog::Sequence { comment, ..crate::catalog::Sequence::clone(&s) })
        }
        Relation::Index(table, oid) => {
            let mut table = Table::clone(&table);
            table.primary_key.iter_mut().filter(|k| k.oid == oid).for_each(|k| k.comment = comment.clone());
            table.indexes.iter_mut().filter(|i| i.oid == oid).for_each(|i| i.comment = comment.clone());
            let name = Relation::Index(Arc::new(table.clone()), oid).name().to_owned();
            rename_index(&table, oid, &name, cx)
        }
        Relation::Virtual(_) => Ok(()),
    }
}

fn comment_column(name: &QName, comment: Option<String>, cx: &mut DdlCx<'_>) -> Result<()> {
    let Some((column, table)) = name.parts.split_last().filter(|(_, t)| !t.is_empty()) else {
        return Err(SqlError::new(state::SYNTAX_ERROR, "column name must be qualified"));
    };
    let table = QName { parts: table.to_vec(), pos: name.pos };
    let missing = |relation: &str| {
        SqlError::new(state::UNDEFINED_COLUMN, format!("column \"{column}\" of relation \"{relation}\" does not exist"))
    };
    match cx.find(&table)? {
        Some(Relation::Table(t)) => {
            let attnum = t.column(column).ok_or_else(|| missing(&t.name))?.1.attnum;
            let mut t = Table::clone(&t);
            t.slots.iter_mut().filter(|c| c.attnum == attnum).for_each(|c| c.comment = comment.clone());
            cx.change.put_table(t).map(|_| ())
        }
        Some(Relation::View(v)) => {
            let mut v = View::clone(&v);
            let found = v.columns.iter_mut().find(|c| c.name == *column).ok_or_else(|| missing(table.last()))?;
            found.comment = comment;
            cx.change.put_view(v)
        }
        Some(other) => Err(SqlError::new(
            state::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a table, view, materialized view, composite type, or foreign table", other.name()),
        )),
        None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{table}\" does not exist"))),
    }
}
