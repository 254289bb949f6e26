//! CREATE VIEW, and what views depend on.
//!
//! A view is kept as text. What it depends on is found by trying: a relation named in the text is one of its own if the text no longer means
//! the same without it. The same way DROP COLUMN and the renames find out whether a view still stands.

use std::sync::Arc;

use super::DdlCx;
use super::names::quote_identifier;
use super::rename::identifiers;
use crate::bind;
use crate::catalog::Catalog;
use crate::catalog::schema::{Column, Relation, View};
use crate::error::{Result, SqlError, state};
use crate::ir::Rel;
use crate::parse::ast::{CreateView, QName};
use crate::types::info::format_type;
use crate::types::{Type, TypeMod};

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
    if create.columns.len() > rel.schema.len() {
        return Err(SqlError::new(state::SYNTAX_ERROR, "CREATE VIEW specifies more column names than columns"));
    }
    let columns = columns_of(&rel, create)?;
    if let Some(old) = &old {
        check_replacement(old, &columns)?;
    }
    let oid = old.as_ref().map_or_else(|| cx.change.new_oid(), |o| o.oid);
    let mut view = View {
        oid,
        schema,
        name,
        columns,
        query: create.text.clone(),
        search_path: cx.session.search_path.clone(),
        depends_on: Vec::new(),
        comment: old.and_then(|o| o.comment.clone()),
    };
    view.depends_on = dependencies(&view, cx)?;
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
    let mut columns: Vec<Column> = Vec::new();
    for (i, field) in rel.schema.iter().enumerate() {
        let name = create.columns.get(i).map_or_else(|| field.name.to_string(), |n| n.text.clone());
        if columns.iter().any(|c| c.name == name) {
            return Err(SqlError::new(state::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
        let ty = if field.ty.ty == Type::UNKNOWN { Type::TEXT.plain() } else { field.ty };
        columns.push(Column {
            attnum: i as i16 + 1,
            name,
            ty: ty.ty.0,
            typmod: ty.typmod,
            not_null: false,
            default: None,
            identity: None,
            sequence: None,
            missing: None,
            dropped: false,
            comment: None,
        });
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

/// The view's columns as its text gives them with these definitions.
fn shape(view: &View, catalog: Arc<Catalog>, cx: &DdlCx<'_>) -> Result<Vec<TypeMod>> {
    Ok(cx.bind_in(catalog, |env| bind::bind_view(view, env))?.schema.iter().map(|f| f.ty).collect())
}

/// Oids of the relations the view's text means.
fn dependencies(view: &View, cx: &DdlCx<'_>) -> Result<Vec<u32>> {
    let mut candidates: Vec<u32> = Vec::new();
    let words = identifiers(&view.query);
    for (i, word) in words.iter().enumerate() {
        let mut names = vec![vec![word.text.clone()]];
        if word.after_dot && i > 0 {
            names.push(vec![words[i - 1].text.clone(), word.text.clone()]);
        }
        for parts in names {
            // An unknown schema is a word that names no relation.
            if let Ok(Some(relation)) = cx.find(&QName { parts, pos: 0 })
                && relation.oid() != view.oid
                && !candidates.contains(&relation.oid())
            {
                candidates.push(relation.oid());
            }
        }
    }
    candidates.retain(|oid| match cx.catalog().by_oid(*oid) {
        Some(Relation::Virtual(_)) | None => false,
        Some(_) => {
            let mut without = Catalog::clone(cx.catalog());
            without.remove(*oid);
            shape(view, Arc::new(without), cx).is_err()
        }
    });
    candidates.sort_unstable();
    Ok(candidates)
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
    let stands = |view: &View| {
        shape(view, after.clone(), cx).is_ok_and(|types| {
            types.len() == view.columns.len() && types.iter().zip(&view.columns).all(|(t, c)| *t == c.type_mod())
        })
    };
    readers(oid, cx.catalog()).into_iter().filter(|v| !stands(v)).collect()
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
