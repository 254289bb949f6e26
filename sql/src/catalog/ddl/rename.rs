//! RENAME TO, SET SCHEMA, OWNER TO, and stored texts that must follow a new name.
//!
//! Checks, defaults and views are kept as text. When a name they use changes, the word is replaced in the text, and the text is bound again: if
//! it no longer means what it did, the rename is refused.

use super::names::{quote_identifier, regclass_literal};
use super::{DdlCx, drop, is_kind, object_word, view};
use crate::bind;
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
    let Some(relation) = target(kind, name, if_exists, cx)? else { return Ok(tag) };
    if cx.catalog().relation(relation.schema(), to).is_some() {
        return Err(SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{to}\" already exists")));
    }
    let old_name = relation.name().to_owned();
    let readers = view::readers(relation.oid(), cx.catalog());
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
    follow(&readers, &old_name, to, cx)?;
    Ok(tag)
}

fn alter_tag(kind: ObjectKind) -> Result<&'static str> {
    Ok(match kind {
        ObjectKind::Table => "ALTER TABLE",
        ObjectKind::View => "ALTER VIEW",
        ObjectKind::Index => "ALTER INDEX",
        ObjectKind::Sequence => "ALTER SEQUENCE",
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
    cx.change.put_schema(schema)?;
    for relation in &inside {
        if let Relation::Sequence(s) = relation {
            replace_in_defaults(&regclass_literal(from, &s.name), &regclass_literal(to, &s.name), cx)?;
        }
        let readers = view::readers(relation.oid(), cx.catalog());
        follow(&readers, from, to, cx)?;
    }
    Ok(())
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
        let readers = view::readers(oid, cx.catalog());
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
        follow(&readers, &from, schema, cx)?;
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

/// Makes views that read something renamed follow; the new definitions are in place.
pub(super) fn follow(readers: &[std::sync::Arc<View>], from: &str, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    for view in readers {
        let stands = |text: &str, cx: &DdlCx<'_>| {
            let view = View { query: text.to_owned(), ..View::clone(view) };
            let rel = cx.bind(|env| bind::bind_view(&view, env));
            rel.is_ok_and(|r| {
                r.schema.len() == view.columns.len()
                    && r.schema.iter().zip(&view.columns).all(|(f, c)| f.ty == c.type_mod())
            })
        };
        if stands(&view.query, cx) {
            continue;
        }
        let text = replace_identifier(&view.query, from, to);
        if !stands(&text, cx) {
            let message = format!("renaming \"{from}\" while view \"{}\" depends on it is not supported", view.name);
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
                .hint("Drop the view, rename, and create it again."));
        }
        cx.change.put_view(View { query: text, ..View::clone(view) })?;
    }
    Ok(())
}

/// A word of a SQL text that may be an identifier.
pub(super) struct Word {
    /// Folded, or as quoted.
    pub text: String,
    start: usize,
    end: usize,
    /// A dot stands before it.
    pub after_dot: bool,
    /// It calls something, or begins a literal (`date '...'`).
    is_call: bool,
}

/// The words of a text, strings and comments skipped.
pub(super) fn identifiers(text: &str) -> Vec<Word> {
    let bytes = text.as_bytes();
    let mut words: Vec<Word> = Vec::new();
    let (mut at, mut after_dot) = (0, false);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\'' => at = skip_quoted(bytes, at, b'\'', words.last().is_some_and(|w| w.end == at && w.text == "e")),
            b'"' => {
                at = skip_quoted(bytes, at, b'"', false);
                let inner = text[start + 1..at.saturating_sub(1).max(start + 1)].replace("\"\"", "\"");
                words.push(Word { text: inner, start, end: at, after_dot, is_call: false });
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = find(bytes, at, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = find(bytes, at + 2, b"*/"),
            b'$' => at = skip_dollar(bytes, at),
            b if b.is_ascii_alphabetic() || b == b'_' || b >= 0x80 => {
                while at < bytes.len()
                    && (bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'_' | b'$') || bytes[at] >= 0x80)
                {
                    at += 1;
                }
                words.push(Word {
                    text: text[start..at].to_ascii_lowercase(),
                    start,
                    end: at,
                    after_dot,
                    is_call: false,
                });
            }
            b if b.is_ascii_digit() => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'.') {
                    at += 1;
                }
            }
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ => at += 1,
        }
        after_dot = bytes[start] == b'.' && at == start + 1;
    }
    for word in &mut words {
        let next = bytes[word.end..].iter().find(|b| !b.is_ascii_whitespace());
        word.is_call = matches!(next, Some(b'(' | b'\''));
    }
    words
}

/// The text with every identifier `from` written as `to`; calls and types of literals are left alone.
pub(super) fn replace_identifier(text: &str, from: &str, to: &str) -> String {
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for word in identifiers(text).iter().filter(|w| w.text == from && !w.is_call) {
        out.push_str(&text[copied..word.start]);
        out.push_str(&quote_identifier(to));
        copied = word.end;
    }
    out.push_str(&text[copied..]);
    out
}

/// Past the end of a quoted piece that begins at `at`.
fn skip_quoted(bytes: &[u8], at: usize, quote: u8, backslash: bool) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        if backslash && bytes[at] == b'\\' {
            at += 1;
        } else if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

fn skip_dollar(bytes: &[u8], at: usize) -> usize {
    let tag = bytes[at + 1..].iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
    match tag.map(|len| &bytes[at..=at + 1 + len]) {
        Some(tag) if tag.ends_with(b"$") && !tag.get(1).is_some_and(u8::is_ascii_digit) => {
            find(bytes, at + tag.len(), tag)
        }
        _ => at + 1,
    }
}

/// Past the next `needle` from `at` on, or the end.
fn find(bytes: &[u8], at: usize, needle: &[u8]) -> usize {
    let rest = &bytes[at.min(bytes.len())..];
    rest.windows(needle.len()).position(|w| w == needle).map_or(bytes.len(), |i| at + i + needle.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_replaced_where_they_are_names() {
        let text = "SELECT a, t.A, \"a\", 'a', a(1), date 'x', E'\\'a', $$a$$ /* a */ FROM a -- a\n WHERE a > 1";
        let expected = "SELECT \"B c\", t.\"B c\", \"B c\", 'a', a(1), date 'x', E'\\'a', $$a$$ /* a */ FROM \"B c\" -- a\n WHERE \"B c\" > 1";
        assert_eq!(replace_identifier(text, "a", "B c"), expected);
        assert_eq!(replace_identifier("date > date '2020-01-01'", "date", "day"), "day > date '2020-01-01'");
        assert_eq!(replace_identifier("1e5 + a1", "e5", "x"), "1e5 + a1");
        assert_eq!(replace_identifier("$1 + a", "a", "b"), "$1 + b");
    }
}
