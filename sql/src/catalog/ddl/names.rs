//! Where new objects go, and the names PostgreSQL chooses for those that were given none.

use super::{DdlCx, INSUFFICIENT_PRIVILEGE};
use crate::catalog::schema::Relation;
use crate::catalog::{INFORMATION_SCHEMA, PG_CATALOG};
use crate::error::{Result, SqlError, state};
use crate::parse::ast::QName;

/// Bytes an identifier may have.
const NAME_MAX: usize = 63;

impl DdlCx<'_> {
    /// Schema a new object of this name goes to.
    pub(super) fn creation_schema(&self, name: &QName) -> Result<u32> {
        if let [database, _, _] = &name.parts[..]
            && *database != self.session.database
        {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                format!("cross-database references are not implemented: \"{name}\""),
            ));
        }
        let oid = match name.schema() {
            Some(schema) => self.schema_oid(schema)?,
            None => {
                let found = self
                    .session
                    .search_path
                    .iter()
                    .find(|s| **s != PG_CATALOG && self.catalog().schemas.contains_key(s));
                *found.ok_or_else(|| {
                    SqlError::new(state::INVALID_SCHEMA_NAME, "no schema has been selected to create in")
                })?
            }
        };
        if oid == PG_CATALOG || oid == INFORMATION_SCHEMA {
            let full = format!("{}.{}", self.schema_name(oid), name.last());
            return Err(SqlError::new(INSUFFICIENT_PRIVILEGE, format!("permission denied to create \"{full}\""))
                .detail("System catalog modifications are currently disallowed."));
        }
        Ok(oid)
    }
    /// A schema by name.
    pub(super) fn schema_oid(&self, name: &str) -> Result<u32> {
        let missing = || SqlError::new(state::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"));
        self.catalog().schema_oid(name).ok_or_else(missing)
    }
    /// Fails if the name is taken. True: it is, and the statement is to be skipped with a notice.
    pub(super) fn is_taken(&mut self, schema: u32, name: &str, if_not_exists: bool) -> Result<bool> {
        if self.catalog().relation(schema, name).is_none() {
            return Ok(false);
        }
        if !if_not_exists {
            return Err(SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
        }
        self.notices.push(crate::session::Notice {
            severity: "NOTICE",
            report: SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{name}\" already exists, skipping")),
        });
        Ok(true)
    }
    /// `table_column_label`, cut to fit and numbered until no relation has it.
    pub(super) fn choose_relation(
        &self,
        schema: u32,
        table: &str,
        column: Option<&str>,
        label: &str,
        taken: &[String],
    ) -> String {
        let is_free = |name: &str| {
            self.catalog().relation(schema, name).is_none()
                && !self.is_constraint(schema, name)
                && !taken.iter().any(|t| t == name)
        };
        choose(table, column, label, is_free)
    }
    /// The same among the constraints of a schema.
    pub(super) fn choose_constraint(
        &self,
        schema: u32,
        table: &str,
        column: Option<&str>,
        label: &str,
        taken: &[String],
    ) -> String {
        choose(table, column, label, |name| !self.is_constraint(schema, name) && !taken.iter().any(|t| t == name))
    }
    fn is_constraint(&self, schema: u32, name: &str) -> bool {
        self.catalog().relations.values().any(|r| match r {
            Relation::Table(t) if t.schema == schema => {
                t.checks.iter().any(|c| c.name == name)
                    || t.primary_key.as_ref().is_some_and(|k| k.name == name)
                    || t.indexes.iter().any(|i| i.constraint && i.name == name)
                    || t.foreign_keys.iter().any(|k| k.name == name)
            }
            _ => false,
        })
    }
}

fn choose(table: &str, column: Option<&str>, label: &str, is_free: impl Fn(&str) -> bool) -> String {
    let mut pass = 0;
    loop {
        let numbered = if pass == 0 { label.to_owned() } else { format!("{label}{pass}") };
        let name = make_name(table, column, &numbered);
        if is_free(&name) {
            return name;
        }
        pass += 1;
    }
}

/// `makeObjectName`: the longer of the two first parts gives way, whole characters at a time.
fn make_name(table: &str, column: Option<&str>, label: &str) -> String {
    let room = NAME_MAX - label.len() - 1 - usize::from(column.is_some());
    let (mut a, mut b) = (table.len(), column.map_or(0, str::len));
    while a + b > room {
        if a > b { a -= 1 } else { b -= 1 }
    }
    let mut name = clip(table, a).to_owned();
    for part in column.map(|c| clip(c, b)).into_iter().chain([label]) {
        name.push('_');
        name.push_str(part);
    }
    name
}

/// The longest prefix of whole characters within `max` bytes.
fn clip(s: &str, max: usize) -> &str {
    let mut end = max.min(s.len());
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    &s[..end]
}

/// The columns' part of an index's name.
pub(super) fn columns_part<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    let joined = columns.into_iter().collect::<Vec<_>>().join("_");
    clip(&joined, NAME_MAX).to_owned()
}

/// An identifier as SQL needs it written.
pub fn quote_identifier(name: &str) -> String {
    let plain =
        name.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_lowercase() || i > 0 && b.is_ascii_digit());
    if plain && !name.is_empty() && !is_reserved(name) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Keywords that cannot stand as a column's name without quotes.
fn is_reserved(word: &str) -> bool {
    const RESERVED: &[&str] = &[
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "authorization",
        "between",
        "bigint",
        "binary",
        "bit",
        "boolean",
        "both",
        "case",
        "cast",
        "char",
        "character",
        "check",
        "coalesce",
        "collate",
        "collation",
        "column",
        "concurrently",
        "constraint",
        "create",
        "cross",
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "dec",
        "decimal",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "exists",
        "extract",
        "false",
        "fetch",
        "float",
        "for",
        "foreign",
        "freeze",
        "from",
        "full",
        "grant",
        "greatest",
        "group",
        "grouping",
        "having",
        "ilike",
        "in",
        "initially",
        "inner",
        "inout",
        "int",
        "integer",
        "intersect",
        "interval",
        "into",
        "is",
        "isnull",
        "join",
        "lateral",
        "leading",
        "least",
        "left",
        "like",
        "limit",
        "localtime",
        "localtimestamp",
        "national",
        "natural",
        "nchar",
        "none",
        "normalize",
        "not",
        "notnull",
        "null",
        "nullif",
        "numeric",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "out",
        "outer",
        "overlaps",
        "overlay",
        "placing",
        "position",
        "precision",
        "primary",
        "real",
        "references",
        "returning",
        "right",
        "row",
        "select",
        "session_user",
        "setof",
        "similar",
        "smallint",
        "some",
        "substring",
        "symmetric",
        "table",
        "tablesample",
        "then",
        "time",
        "timestamp",
        "to",
        "trailing",
        "treat",
        "trim",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "values",
        "varchar",
        "variadic",
        "verbose",
        "when",
        "where",
        "window",
        "with",
        "xmlattributes",
        "xmlconcat",
        "xmlelement",
        "xmlexists",
        "xmlforest",
        "xmlnamespaces",
        "xmlparse",
        "xmlpi",
        "xmlroot",
        "xmlserialize",
        "xmltable",
    ];
    RESERVED.binary_search(&word).is_ok()
}

/// The literal `'schema.name'::regclass` that a stored default names a sequence by. It is qualified, so that no search path can mislead it.
pub(crate) fn regclass_literal(schema: &str, name: &str) -> String {
    let full = format!("{}.{}", quote_identifier(schema), quote_identifier(name));
    format!("'{}'::regclass", full.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_postgres_chooses_them() {
        let taken = ["t_a_key", "t_a_key1"];
        assert_eq!(choose("t", Some("a"), "key", |n| !taken.contains(&n)), "t_a_key2");
        assert_eq!(choose("t", None, "pkey", |_| true), "t_pkey");
        let (long, half) = ("x".repeat(63), "y".repeat(20));
        assert_eq!(make_name(&long, None, "pkey"), format!("{}_pkey", "x".repeat(58)));
        assert_eq!(make_name(&long, Some(&half), "key"), format!("{}_{half}_key", "x".repeat(38)));
        assert_eq!(make_name(&long, Some(&long), "seq").len(), 63);
        assert_eq!(make_name(&"é".repeat(31), None, "pkey"), format!("{}_pkey", "é".repeat(29)));
    }

    #[test]
    fn reserved_words_are_found() {
        for word in ["all", "desc", "intersect", "notnull", "xmltable", "user"] {
            assert!(is_reserved(word), "{word}");
        }
    }

    #[test]
    fn identifiers_are_quoted_when_they_must_be() {
        for (name, quoted) in [
            ("a", "a"),
            ("A", "\"A\""),
            ("a b", "\"a b\""),
            ("order", "\"order\""),
            ("a\"b", "\"a\"\"b\""),
            ("1a", "\"1a\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(quote_identifier(name), quoted);
        }
        assert_eq!(regclass_literal("public", "it's"), "'public.\"it''s\"'::regclass");
    }
}
