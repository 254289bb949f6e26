//! A foreign key in words: the statements PostgreSQL says it runs (CONTEXT of an error), and the columns an error names.
//!
//! ```text
//! check    SELECT 1 FROM ONLY "public"."p" x WHERE "id" OPERATOR(pg_catalog.=) $1 FOR KEY SHARE OF x
//! act      DELETE FROM ONLY "public"."c" WHERE $1 OPERATOR(pg_catalog.=) "pid"
//! ```
//!
//! A varchar has no operators of its own: it stands there as the text it is compared as.

use super::{ForeignKeyRule, Set};
use crate::catalog::schema::Table;
use crate::codec::key::KeyColumn;
use crate::types::Type;

impl ForeignKeyRule {
    pub(super) fn lookup_text(&self) -> String {
        let types = self.types();
        let terms = self.parent_names().enumerate().map(|(i, name)| {
            let (child, parent) = types[i];
            format!("{} OPERATOR(pg_catalog.=) {}", operand(&name, parent), operand(&format!("${}", i + 1), child))
        });
        let terms = terms.collect::<Vec<_>>().join(" AND ");
        format!("SQL statement \"SELECT 1 FROM ONLY {} x WHERE {terms} FOR KEY SHARE OF x\"", self.parent_text())
    }
    pub(super) fn referrers_text(&self, verb: &str, end: &str) -> String {
        let alias = if end.is_empty() { "" } else { " x" };
        format!("SQL statement \"{verb} {}{alias} WHERE {}{end}\"", self.child_text(), self.condition(1))
    }
    pub(super) fn update_text(&self, columns: &[usize], set: Set) -> String {
        let names: Vec<String> = self.child_names().collect();
        let sets = columns.iter().enumerate().map(|(at, i)| match set {
            Set::New => format!("{} = ${}", names[*i], at + 1),
            Set::Null => format!("{} = NULL", names[*i]),
            Set::Default => format!("{} = DEFAULT", names[*i]),
        });
        let first = if set == Set::New { columns.len() + 1 } else { 1 };
        let sets = sets.collect::<Vec<_>>().join(", ");
        format!("SQL statement \"UPDATE ONLY {} SET {sets} WHERE {}\"", self.child_text(), self.condition(first))
    }
    fn condition(&self, first: usize) -> String {
        let types = self.types();
        let terms = self.child_names().enumerate().map(|(i, name)| {
            let (child, parent) = types[i];
            format!("{} OPERATOR(pg_catalog.=) {}", operand(&format!("${}", first + i), parent), operand(&name, child))
        });
        terms.collect::<Vec<_>>().join(" AND ")
    }
    /// Types of each referring column and of the one it refers to.
    fn types(&self) -> Vec<(Type, Type)> {
        self.child_columns.iter().zip(&self.parent_columns).map(|((_, c), (_, p))| (c.ty, p.ty)).collect()
    }
    fn child_names(&self) -> impl Iterator<Item = String> + '_ {
        names(&self.child.table, &self.child_columns).map(quoted)
    }
    fn parent_names(&self) -> impl Iterator<Item = String> + '_ {
        names(&self.parent.table, &self.parent_columns).map(quoted)
    }
    fn child_text(&self) -> String {
        format!("{}.{}", quoted(&self.schemas[0]), quoted(&self.child.table.name))
    }
    fn parent_text(&self) -> String {
        format!("{}.{}", quoted(&self.schemas[1]), quoted(&self.parent.table.name))
    }

    /// Names and types of the referring columns.
    pub(in crate::write) fn referring(&self) -> impl Iterator<Item = (&str, Type)> {
        names(&self.child.table, &self.child_columns).zip(self.child_columns.iter().map(|(_, c)| c.ty))
    }
    /// Names and types of the columns referred to.
    pub(in crate::write) fn referenced(&self) -> impl Iterator<Item = (&str, Type)> {
        names(&self.parent.table, &self.parent_columns).zip(self.parent_columns.iter().map(|(_, c)| c.ty))
    }
}

fn operand(text: &str, ty: Type) -> String {
    let cast = if ty == Type::VARCHAR { "::pg_catalog.text" } else { "" };
    format!("{text}{cast}")
}

fn names<'t>(table: &'t Table, columns: &'t [(usize, KeyColumn)]) -> impl Iterator<Item = &'t str> {
    columns.iter().map(|(position, _)| table.columns().nth(*position).map_or("", |c| c.name.as_str()))
}

fn quoted(name: impl AsRef<str>) -> String {
    format!("\"{}\"", name.as_ref().replace('"', "\"\""))
}
