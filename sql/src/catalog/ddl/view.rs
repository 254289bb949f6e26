//! CREATE VIEW, and what views depend on.
//!
//! A view is kept as text with its meaning written into it: every column and table is named with its qualifiers, stars and NATURAL are lists
//! (`bind/trace.rs`). What it depends on are the relations those names were resolved to. A change of definitions leaves it alone if all its names
//! are resolved to the same relations and columns under the new ones; a renaming replaces just the words that named what is renamed. Where the
//! text would mean anything else the change is refused, or with CASCADE takes the view with it.

use std::sync::Arc;

use super::DdlCx;
use super::names::quote_identifier;
use crate::bind::{self, Trace};
use crate::catalog::Catalog;
use crate::catalog::change::Change;
use crate::catalog::schema::{Column, Relation, View};
use crate::error::{Result, SqlError, state};
use crate::ir::Rel;
use crate::parse::ast::{CreateView, StatementKind};
use crate::types::Type;
use crate::types::info::format_type;

/// CREATE [OR REPLACE] VIEW.
pub(super) fn create(create: &CreateView, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    const TAG: &str = "CREATE VIEW";
    refuse(create)?;
    let schema = cx.creation_schema(&create.name)?;
    let name = create.name.last().to_owned();
    let old = match cx.catalog().relation(schema, &name) {
        Some(Relation::View(v)) if create.or_replace => Some(v.clone()),
        Some(other) if create.or_replace => {
            return Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a view", other.name())));
        }
        Some(_) => return Err(SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))),
        None => None,
    };
    let rel = cx.bind(|env| bind::bind_query(&create.query, cx.source, env))?;
    if create.query.with.iter().flat_map(|w| &w.ctes).any(|c| !matches!(c.statement, StatementKind::Query(_))) {
        return Err(SqlError::new(
            state::FEATURE_NOT_SUPPORTED,
            "views must not contain data-modifying statements in WITH",
        ));
    }
    if create.columns.len() > rel.schema.len() {
        return Err(SqlError::new(state::SYNTAX_ERROR, "CREATE VIEW specifies more column names than columns"));
    }
    let columns = columns_of(&rel, create)?;
    if let Some(old) = &old {
        check_replacement(old, &columns)?;
    }
    let oid = old.as_ref().map_or_else(|| cx.change.new_oid(), |o| o.oid);
    let view = View {
        oid,
        schema,
        name,
        columns,
        query: create.text.clone(),
        search_path: cx.session.search_path.clone(),
        depends_on: Vec::new(),
        comment: old.and_then(|o| o.comment.clone()),
    };
    let view = written_out(view, cx)?;
    let mut after = Change::new(cx.catalog().clone(), 0);
    after.put_view(view.clone())?;
    refuse_broken(oid, after.catalog(), "a replacement", cx)?;
    cx.change.put_view(view)?;
    Ok(TAG)
}

fn refuse(create: &CreateView) -> Result<()> {
    if create.temporary {
        return Err(SqlError::unsupported("CREATE TEMPORARY VIEW"));
    }
    if create.recursive {
        return Err(SqlError::unsupported("CREATE RECURSIVE VIEW").hint("Write WITH RECURSIVE inside the view."));
    }
    if create.check_option {
        return Err(SqlError::unsupported("WITH CHECK OPTION"));
    }
    match create.options.first() {
        Some((name, _)) => Err(SqlError::unsupported(format!("view option \"{name}\""))),
        None => Ok(()),
    }
}

fn columns_of(rel: &Rel, create: &CreateView) -> Result<Vec<Column>> {
    super::table::check_count(rel.schema.len())?;
    let mut columns: Vec<Column> = Vec::new();
    for (i, field) in rel.schema.iter().enumerate() {
        let name = create.columns.get(i).map_or_else(|| field.name.to_string(), |n| n.text.clone());
        if columns.iter().any(|c| c.name == name) {
            return Err(SqlError::new(state::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
        let ty = if field.ty.ty == Type::UNKNOWN { Type::TEXT.plain() } else { field.ty };
        columns.push(Column::new(i as i16 + 1, name, ty));
    }
    Ok(columns)
}

fn check_replacement(old: &View, new: &[Column]) -> Result<()> {
    let invalid = |message: String| Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message));
    if new.len() < old.columns.len() {
        return invalid("cannot drop columns from view".into());
    }
    for (old, new) in old.columns.iter().zip(new) {
        if old.name != new.name {
            let message = format!("cannot change name of view column \"{}\" to \"{}\"", old.name, new.name);
            return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message)
                .hint("Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead."));
        }
        if (old.ty, old.typmod) != (new.ty, new.typmod) {
            let word = |c: &Column| format_type(Type(c.ty), c.typmod);
            return invalid(format!(
                "cannot change data type of view column \"{}\" from {} to {}",
                old.name,
                word(old),
                word(new)
            ));
        }
    }
    Ok(())
}

/// The view's query and what its names mean with these definitions.
fn trace(view: &View, catalog: Arc<Catalog>, cx: &DdlCx<'_>) -> Result<(Rel, Trace)> {
    cx.bind_in(catalog, |env| bind::trace_view(view, env))
}

/// The view with its meaning written into its text, and what it depends on.
fn written_out(view: View, cx: &DdlCx<'_>) -> Result<View> {
    let (_, found) = trace(&view, cx.catalog().clone(), cx)?;
    let depends_on = found
        .relations()
        .into_iter()
        .filter(|oid| !matches!(cx.catalog().by_oid(*oid), None | Some(Relation::Virtual(_))));
    let out = View { query: found.written_out(), depends_on: depends_on.collect(), ..view };
    let is_same = |(_, again): (Rel, Trace)| again.meanings() == found.meanings();
    if !trace(&out, cx.catalog().clone(), cx).is_ok_and(is_same) {
        let message = format!("view \"{}\", some of whose columns cannot be named unambiguously,", out.name);
        return Err(SqlError::unsupported(message).hint("Give tables and columns different names by aliases."));
    }
    Ok(out)
}

/// Views that read a relation themselves.
pub(super) fn readers(oid: u32, catalog: &Catalog) -> Vec<Arc<View>> {
    let mut found: Vec<Arc<View>> = catalog
        .relations
        .values()
        .filter_map(|r| match r {
            Relation::View(v) if v.depends_on.contains(&oid) => Some(v.clone()),
            _ => None,
        })
        .collect();
    found.sort_by_key(|v| v.oid);
    found
}

/// Views that read a relation and would not mean the same with these definitions.
pub(super) fn broken(oid: u32, after: &Arc<Catalog>, cx: &DdlCx<'_>) -> Vec<Arc<View>> {
    let stands = |view: &View| match trace(view, cx.catalog().clone(), cx) {
        Ok((_, before)) => stands(view, &before, after, cx),
        Err(_) => false,
    };
    readers(oid, cx.catalog()).into_iter().filter(|v| !stands(v)).collect()
}

/// Whether a view still means with these definitions what it meant before, and its columns have their types.
fn stands(view: &View, before: &Trace, after: &Arc<Catalog>, cx: &DdlCx<'_>) -> bool {
    trace(view, after.clone(), cx).is_ok_and(|(rel, now)| {
        now.meanings() == before.meanings()
            && rel.schema.len() == view.columns.len()
            && rel.schema.iter().zip(&view.columns).all(|(f, c)| f.ty == c.type_mod() || f.ty.ty == Type::UNKNOWN)
    })
}

/// Refuses a change of a table that a view does not survive, though the change takes nothing away that the view reads.
pub(super) fn refuse_broken(oid: u32, after: &Arc<Catalog>, what: &str, cx: &DdlCx<'_>) -> Result<()> {
    match broken(oid, after, cx).first() {
        Some(view) => Err(SqlError::unsupported(format!("{what} that changes what view \"{}\" means", view.name))
            .hint("Drop the view, make the change, and create it again.")),
        None => Ok(()),
    }
}

/// Makes views follow new names; `before` has the old ones.
pub(super) fn follow(readers: &[Arc<View>], before: &Arc<Catalog>, cx: &mut DdlCx<'_>) -> Result<()> {
    for view in readers {
        // One that meant nothing before loses nothing.
        let Ok((_, meant)) = trace(view, before.clone(), cx) else { continue };
        let now = cx.catalog().clone();
        let renamed = View { query: meant.renamed(before, &now), ..View::clone(view) };
        if !stands(&renamed, &meant, &now, cx) {
            let message = format!("a renaming that view \"{}\" cannot follow", view.name);
            return Err(SqlError::unsupported(message).hint("Drop the view, rename, and create it again."));
        }
        if renamed.query != view.query {
            cx.change.put_view(renamed)?;
        }
    }
    Ok(())
}

/// How a relation is called in messages about dependencies: qualified unless the search path finds it.
pub(super) fn describe(relation: &Relation, cx: &DdlCx<'_>) -> String {
    let visible =
        cx.catalog().find(&cx.session.search_path, relation.name()).is_some_and(|r| r.oid() == relation.oid());
    let name = quote_identifier(relation.name());
    let word = super::kind_word(relation);
    if visible {
        format!("{word} {name}")
    } else {
        format!("{word} {}.{name}", quote_identifier(&cx.schema_name(relation.schema())))
    }
}
