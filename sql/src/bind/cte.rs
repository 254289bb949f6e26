//! WITH: common table expressions, recursive ones, and changes inside WITH.

use std::sync::Arc;

use super::binder::*;
use super::from::{FromOut, rename};
use super::query::{common_column, renamed};
use super::scope::Item;
use crate::error::{Result, SqlError, state};
use crate::ir::*;
use crate::parse::ast;
use crate::types::info::format_type;

impl Binder<'_> {
    /// Binds the entries of a WITH in order and leaves their names in scope; the caller takes them out again.
    pub fn with_clause(&mut self, with: &ast::With) -> Result<Vec<Cte>> {
        let mut ctes = Vec::with_capacity(with.ctes.len());
        if with.recursive {
            // All of the names are in scope from the start, hiding tables: an entry is found behind its placeholder once it is bound.
            self.ctes.extend(with.ctes.iter().map(|cte| entry(cte, usize::MAX, CteState::Later)));
        }
        for (i, cte) in with.ctes.iter().enumerate() {
            if with.ctes[..i].iter().any(|c| c.name.text == cte.name.text) {
                return error(
                    state::DUPLICATE_ALIAS,
                    cte.name.pos,
                    format!("WITH query name \"{}\" specified more than once", cte.name.text),
                );
            }
            self.deeper(3, |b| b.cte(cte, with.recursive, &mut ctes))?;
        }
        Ok(ctes)
    }

    fn cte(&mut self, cte: &ast::Cte, recursive: bool, ctes: &mut Vec<Cte>) -> Result<()> {
        if (cte.search.is_some() || cte.cycle.is_some()) && !recursive {
            return error(state::SYNTAX_ERROR, cte.name.pos, "WITH query is not recursive");
        }
        match &cte.statement {
            ast::StatementKind::Query(query) => {
                if let Some(rewritten) = super::cycle::expand(cte)? {
                    let start = cte.search.iter().map(|s| s.pos).chain(cte.cycle.iter().map(|c| c.pos)).min();
                    self.note_rewritten(cte.name.pos, query.pos);
                    self.note_rewritten(start.unwrap_or(cte.end), cte.end);
                    return self.cte(&rewritten, recursive, ctes);
                }
                if recursive {
                    if let ast::Body::SetOp { op: SetOp::Union, all, left, right, .. } = &query.body {
                        return self.recursive_cte(cte, query, *all, left, right, ctes);
                    }
                    self.ctes.push(entry(cte, self.next_cte, CteState::NotUnion));
                }
                self.nesting += 1;
                let out = self.query(query, true)?;
                self.nesting -= 1;
                if recursive {
                    self.ctes.pop();
                }
                self.finish_cte(cte, out, None, ctes)
            }
            changing => {
                if self.nesting > 0 {
                    return error(
                        state::FEATURE_NOT_SUPPORTED,
                        cte.name.pos,
                        "WITH clause containing a data-modifying statement must be at the top level",
                    );
                }
                self.nesting += 1;
                let rel = self.changing_statement(changing)?;
                self.nesting -= 1;
                let no_rows = matches!(&rel.kind, RelKind::Dml(dml) if dml.returning.is_none());
                let width = rel.schema.len();
                self.finish_cte(
                    cte,
                    QueryOut { rel, fields: vec![None; width], positions: vec![cte.name.pos; width] },
                    None,
                    ctes,
                )?;
                if let Some(entry) = self.ctes.last_mut() {
                    entry.no_rows = no_rows;
                }
                Ok(())
            }
        }
    }

    /// Enters a bound definition under its name.
    fn finish_cte(
        &mut self,
        cte: &ast::Cte,
        out: QueryOut,
        recursive: Option<(Rel, bool)>,
        ctes: &mut Vec<Cte>,
    ) -> Result<()> {
        let QueryOut { mut rel, fields, .. } = out;
        if cte.columns.len() > rel.schema.len() {
            return error(
                state::INVALID_COLUMN_REFERENCE,
                cte.name.pos,
                format!(
                    "WITH query \"{}\" has {} columns available but {} columns specified",
                    cte.name.text,
                    rel.schema.len(),
                    cte.columns.len()
                ),
            );
        }
        rel.schema = renamed(&rel.schema, &cte.columns);
        let id = self.new_cte_id();
        let mut named = entry(cte, id, CteState::Ready);
        named.columns = rel.schema.clone();
        named.fields = fields;
        self.ctes.push(named);
        ctes.push(Cte {
            id,
            name: Arc::from(cte.name.text.as_str()),
            definition: rel,
            recursive,
            materialized: cte.materialized,
        });
        Ok(())
    }

    fn recursive_cte(
        &mut self,
        cte: &ast::Cte,
        query: &ast::Query,
        all: bool,
        left: &ast::Query,
        right: &ast::Query,
        ctes: &mut Vec<Cte>,
    ) -> Result<()> {
        let name = &cte.name.text;
        let mark = self.ctes.len();
        // CTEs inside the recursive query serve both of its terms, so they stand before it.
        self.nesting += 1;
        if let Some(with) = &query.with {
            ctes.extend(self.with_clause(with)?);
        }
        self.ctes.push(entry(cte, usize::MAX, CteState::NonRecursiveTerm));
        let place = self.ctes.len() - 1;
        let mut start = self.query(left, true)?;
        if cte.columns.len() > start.rel.schema.len() {
            return error(
                state::INVALID_COLUMN_REFERENCE,
                cte.name.pos,
                format!(
                    "WITH query \"{name}\" has {} columns available but {} columns specified",
                    start.rel.schema.len(),
                    cte.columns.len()
                ),
            );
        }
        start.rel.schema = renamed(&start.rel.schema, &cte.columns);
        let id = self.new_cte_id();
        let named = &mut self.ctes[place];
        named.id = id;
        named.state = CteState::Recursive;
        named.columns = start.rel.schema.clone();
        named.fields = start.fields.clone();
        let term = self.query(right, false)?;
        self.nesting -= 1;
        let used = self.ctes[place].state == CteState::RecursiveUsed;
        self.ctes.truncate(mark);
        if !used {
            let out = self.combine(SetOp::Union, all, start, term, right.pos)?;
            return self.finish_cte(cte, out, None, ctes);
        }
        if !query.order_by.is_empty() {
            return error(
                state::FEATURE_NOT_SUPPORTED,
                query.order_by[0].expr.pos,
                "ORDER BY in a recursive query is not implemented",
            );
        }
        if let Some(e) = query.offset.as_ref().or(query.limit.as_ref()) {
            let what = if query.offset.is_some() { "OFFSET" } else { "LIMIT" };
            return error(
                state::FEATURE_NOT_SUPPORTED,
                e.pos,
                format!("{what} in a recursive query is not implemented"),
            );
        }
        if start.rel.schema.len() != term.rel.schema.len() {
            return error(state::SYNTAX_ERROR, right.pos, "each UNION query must have the same number of columns");
        }
        // The rows of the start give the types; what the whole would have besides is an error.
        for (i, (l, r)) in start.rel.schema.iter().zip(term.rel.schema.iter()).enumerate() {
            let overall = common_column(self, l, r, "UNION", start.positions[i], term.positions[i])?;
            if overall != l.ty {
                return Err(SqlError::new(
                    state::DATATYPE_MISMATCH,
                    format!(
                        "recursive query \"{name}\" column {} has type {} in non-recursive term but type {} overall",
                        i + 1,
                        format_type(l.ty.ty, l.ty.typmod),
                        format_type(overall.ty, overall.typmod)
                    ),
                )
                .hint("Cast the output of the non-recursive term to the correct type.")
                .at(Some(start.positions[i] + 1)));
            }
        }
        let types: Vec<_> = start.rel.schema.iter().map(|f| f.ty).collect();
        let term = self.retype(term.rel, &types, "UNION", &term.positions)?;
        let mut named = entry(cte, id, CteState::Ready);
        named.columns = start.rel.schema.iter().map(|f| field(&f.name, f.ty)).collect();
        named.fields = start.fields;
        self.ctes.push(named);
        ctes.push(Cte {
            id,
            name: Arc::from(name.as_str()),
            definition: start.rel,
            recursive: Some((term, all)),
            materialized: cte.materialized,
        });
        Ok(())
    }

    /// A CTE by this name, as an item of FROM.
    pub fn cte_item(&mut self, name: &ast::QName, alias: Option<&ast::Alias>) -> Result<Option<FromOut>> {
        let Some(place) = self.ctes.iter().rposition(|c| c.name == name.parts[0]) else { return Ok(None) };
        let shown = &name.parts[0];
        let recursion = |message: String| error(state::INVALID_RECURSION, name.pos, message);
        match self.ctes[place].state {
            CteState::Ready => {}
            CteState::Later => {
                return unsupported(name.pos, format!("a reference to WITH query \"{shown}\" before it"));
            }
            CteState::NonRecursiveTerm => {
                return recursion(format!(
                    "recursive reference to query \"{shown}\" must not appear within its non-recursive term"
                ));
            }
            CteState::NotUnion => {
                return recursion(format!(
                    "recursive query \"{shown}\" does not have the form non-recursive-term UNION [ALL] recursive-term"
                ));
            }
            CteState::RecursiveUsed => {
                return recursion(format!("recursive reference to query \"{shown}\" must not appear more than once"));
            }
            CteState::Recursive => self.ctes[place].state = CteState::RecursiveUsed,
        }
        let found = &self.ctes[place];
        if found.no_rows {
            return error(
                state::FEATURE_NOT_SUPPORTED,
                name.pos,
                format!("WITH query \"{shown}\" does not have a RETURNING clause"),
            );
        }
        let rel = Rel { kind: RelKind::CteScan { id: found.id }, schema: found.columns.clone() };
        let item_name: Arc<str> = Arc::from(alias.map_or(shown.as_str(), |a| a.name.as_str()));
        let mut item = Item::over(Some(item_name), &rel, &found.fields, rel.schema.len());
        rename(&mut item, alias, name.pos)?;
        Ok(Some(FromOut { rel, items: vec![item] }))
    }
}

fn entry(cte: &ast::Cte, id: usize, state: CteState) -> CteEntry {
    CteEntry { name: cte.name.text.clone(), id, columns: Arc::from([]), fields: vec![], state, no_rows: false }
}
