//! The reg types: oids that read and print as names.
//!
//! Names are split as identifiers (quoted or folded to lower case), looked up along the search path or in the schema given, and printed
//! quoted, and qualified where the search path would not find them. `-` is 0; digits are the oid itself.

use super::info::parse_type;
use super::io::{NAME_BYTES_MAX, cut_bytes, is_space};
use super::{Type, io};
use crate::catalog::{Catalog, Relation};
use crate::error::{Result, SqlError, state};
use crate::functions::{SessionCx, keywords, procs};

/// Oid of the one role every database has.
pub const SUPERUSER: u32 = 10;

/// An identifier, in quotes if it would not be read back the same: `quote_ident`.
pub fn quote_identifier(name: &str) -> String {
    let safe = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && keywords::find(name).is_none_or(|k| k.1 == b'U');
    if safe { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The parts of a dotted name; None if it is none.
pub fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
    loop {
        let part;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.peek().is_some_and(|c| c.1 == '"') => {
                        chars.next();
                        name.push('"');
                    }
                    (i, '"') => break i + 1,
                    (_, c) => name.push(c),
                }
            };
            part = name;
            rest = &quoted[end..];
        } else {
            let end = rest.find(|c: char| c == '.' || (c.is_ascii() && is_space(c as u8))).unwrap_or(rest.len());
            part = rest[..end].to_ascii_lowercase();
            if part.is_empty() {
                return None;
            }
            rest = &rest[end..];
        }
        parts.push(cut_bytes(&part, NAME_BYTES_MAX).to_owned());
        rest = rest.trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
        match rest.strip_prefix('.') {
            Some(more) => rest = more.trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8)),
            None if rest.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

fn invalid_name() -> SqlError {
    SqlError::new(state::INVALID_NAME, "invalid name syntax")
}

// `-` or an oid in digits.
fn number(s: &str, ty: &str) -> Result<Option<u32>> {
    if s == "-" {
        return Ok(Some(0));
    }
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) {
        return io::oid_in(s, ty).map(Some);
    }
    Ok(None)
}

/// regclass from a name.
///
/// # Errors
///
/// 42P01, 3F000 for the schema, 42602 and 42601 for what is no name.
pub fn class_in(s: &str, cx: &SessionCx) -> Result<u32> {
    if let Some(oid) = number(s, "oid")? {
        return Ok(oid);
    }
    let parts = split_name(s).ok_or_else(invalid_name)?;
    find_relation(&parts, cx).map(Relation::oid)
}

/// A relation by the parts of its name, along the session's search path if unqualified.
pub fn find_relation<'a>(parts: &[String], cx: &'a SessionCx) -> Result<&'a Relation> {
    let catalog = &cx.catalog;
    let (schema, name) = match parts {
        [name] => (None, name),
        [schema, name] => (Some(schema), name),
        [database, schema, name] if *database == cx.database => (Some(schema), name),
        [_, _, _] => {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                format!("cross-database references are not implemented: \"{}\"", parts.join(".")),
            ));
        }
        _ => {
            return Err(SqlError::new(
                state::SYNTAX_ERROR,
                format!("improper relation name (too many dotted names): {}", parts.join(".")),
            ));
        }
    };
    let Some(schema) = schema else {
        return catalog
            .find(&cx.search_path, name)
            .ok_or_else(|| SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")));
    };
    let oid = schema_oid(catalog, schema)?;
    catalog
        .relation(oid, name)
        .ok_or_else(|| SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{schema}.{name}\" does not exist")))
}

fn schema_oid(catalog: &Catalog, name: &str) -> Result<u32> {
    catalog
        .schema_oid(name)
        .ok_or_else(|| SqlError::new(state::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")))
}

/// Whether an unqualified use of its name would find this relation.
pub fn is_visible(relation: &Relation, cx: &SessionCx) -> bool {
    cx.catalog.find(&cx.search_path, relation.name()).is_some_and(|r| r.oid() == relation.oid())
}

/// A relation's name, quoted, and qualified unless visible.
pub fn relation_name(relation: &Relation, cx: &SessionCx) -> String {
    let name = quote_identifier(relation.name());
    if is_visible(relation, cx) {
        return name;
    }
    match cx.catalog.schemas.get(&relation.schema()) {
        Some(schema) => format!("{}.{name}", quote_identifier(&schema.name)),
        None => name,
    }
}

/// Prints a regclass.
pub fn class_out(oid: u32, cx: &SessionCx, out: &mut String) {
    match cx.catalog.by_oid(oid) {
        Some(relation) => out.push_str(&relation_name(relation, cx)),
        None => number_out(oid, out),
    }
}

/// regtype from a type's name, without its modifier.
pub fn type_in(s: &str) -> Result<u32> {
    match number(s, "oid")? {
        Some(oid) => Ok(oid),
        None => parse_type(s).map(|t| t.ty.0),
    }
}

/// Prints a regtype.
pub fn type_out(oid: u32, out: &mut String) {
    match Type(oid).info() {
        Some(info) => out.push_str(info.sql_name),
        None => number_out(oid, out),
    }
}

/// regproc and regprocedure: the functions of [`procs`].
pub fn proc_in(s: &str, ty: Type) -> Result<u32> {
    if let Some(oid) = number(s, "oid")? {
        return Ok(oid);
    }
    let undefined = || SqlError::new(state::UNDEFINED_FUNCTION, format!("function \"{s}\" does not exist"));
    let (name, args) = match s.split_once('(') {
        Some((name, args)) if ty == Type::REGPROCEDURE => (
            name,
            Some(
                args.strip_suffix(')')
                    .ok_or_else(|| SqlError::new(state::INVALID_TEXT_REPRESENTATION, "expected a right parenthesis"))?,
            ),
        ),
        None if ty == Type::REGPROCEDURE => {
            return Err(SqlError::new(state::INVALID_TEXT_REPRESENTATION, "expected a left parenthesis"));
        }
        _ => (s, None),
    };
    let parts = split_name(name).ok_or_else(invalid_name)?;
    let name = match parts.as_slice() {
        [name] => name,
        [schema, name] if schema == "pg_catalog" => name,
        _ => return Err(undefined()),
    };
    let mut found = procs::named(name);
    if let Some(args) = args {
        let wanted: Vec<Type> = args
            .split(',')
            .filter(|a| !a.trim().is_empty())
            .map(|a| parse_type(a).map(|t| t.ty))
            .collect::<Result<_>>()?;
        return found.find(|p| p.args().eq(wanted.iter().copied())).map(|p| p.oid).ok_or_else(undefined);
    }
    match (found.next(), found.next()) {
        (None, _) => Err(undefined()),
        (Some(p), None) => Ok(p.oid),
        _ => Err(SqlError::new(state::AMBIGUOUS_FUNCTION, format!("more than one function named \"{s}\""))),
    }
}

/// Prints a regproc (its name) or regprocedure (with argument types).
pub fn proc_out(oid: u32, ty: Type, out: &mut String) {
    let Some(p) = procs::by_oid(oid) else { return number_out(oid, out) };
    // Qualified if the name alone would not be read back.
    if ty == Type::REGPROC && procs::named(p.name).nth(1).is_some() {
        out.push_str("pg_catalog.");
    }
    out.push_str(&quote_identifier(p.name));
    if ty == Type::REGPROCEDURE {
        let args: Vec<&str> = p.args().map(Type::sql_name).collect();
        out.push('(');
        out.push_str(&args.join(","));
        out.push(')');
    }
}

/// regnamespace from a schema's name.
pub fn namespace_in(s: &str, cx: &SessionCx) -> Result<u32> {
    if let Some(oid) = number(s, "oid")? {
        return Ok(oid);
    }
    match split_name(s).ok_or_else(invalid_name)?.as_slice() {
        [name] => schema_oid(&cx.catalog, name),
        _ => Err(invalid_name()),
    }
}

/// Prints a regnamespace.
pub fn namespace_out(oid: u32, cx: &SessionCx, out: &mut String) {
    match cx.catalog.schemas.get(&oid) {
        Some(schema) => out.push_str(&quote_identifier(&schema.name)),
        None => number_out(oid, out),
    }
}

/// regrole: only the session's own user is known here, roles are the server's.
pub fn role_in(s: &str, cx: &SessionCx) -> Result<u32> {
    if let Some(oid) = number(s, "oid")? {
        return Ok(oid);
    }
    match split_name(s).ok_or_else(invalid_name)?.as_slice() {
        [name] if *name == cx.user => Ok(SUPERUSER),
        [name] => Err(SqlError::new(state::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"))),
        _ => Err(invalid_name()),
    }
}

/// Prints a regrole.
pub fn role_out(oid: u32, cx: &SessionCx, out: &mut String) {
    if oid == SUPERUSER { out.push_str(&quote_identifier(&cx.user)) } else { number_out(oid, out) }
}

/// regoper and regoperator: by number only, for operators have no oids here.
pub fn operator_in(s: &str) -> Result<u32> {
    match number(if s == "0" { "-" } else { s }, "oid")? {
        Some(oid) => Ok(oid),
        None => Err(SqlError::unsupported("looking up an operator by name")),
    }
}

/// Prints a regoper.
pub fn operator_out(oid: u32, out: &mut String) {
    out.push_str(&oid.to_string());
}

fn number_out(oid: u32, out: &mut String) {
    if oid == 0 { out.push('-') } else { out.push_str(&oid.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::{PUBLIC, Schema, Table};
    use crate::functions::testing::session;

    #[test]
    fn names_split_as_identifiers() {
        let split = |s: &str| split_name(s).map(|p| p.join("|"));
        assert_eq!(split(" Foo . \"B\"\"a r\" ").as_deref(), Some("foo|B\"a r"));
        assert_eq!(split("a.b.c").as_deref(), Some("a|b|c"));
        for bad in ["", " ", "a.", ".a", "\"a", "a b"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn relations_print_quoted_and_qualified_where_needed() {
        let mut cx = session();
        let mut catalog = Catalog::clone(&cx.catalog);
        catalog.schemas.insert(16384, Arc::new(Schema { oid: 16384, name: "S x".into(), comment: None }));
        for (oid, schema, name) in
            [(16385, PUBLIC, "t"), (16386, 16384, "t"), (16387, 16384, "Odd"), (16388, PUBLIC, "Odd one")]
        {
            let table = Table {
                oid,
                schema,
                name: name.into(),
                slots: vec![],
                primary_key: None,
                indexes: vec![],
                checks: vec![],
                foreign_keys: Vec::new(),
                foreign: None,
                comment: None,
            };
            catalog.relations.insert(oid, Relation::Table(Arc::new(table)));
            catalog.names.insert((schema, name.to_owned()), oid);
        }
        cx.catalog = Arc::new(catalog);
        for (oid, name) in [(16385, "t"), (16386, "\"S x\".t"), (16387, "\"S x\".\"Odd\""), (16388, "\"Odd one\"")] {
            let mut out = String::new();
            class_out(oid, &cx, &mut out);
            assert_eq!(out, name);
            assert_eq!(class_in(name, &cx), Ok(oid));
        }
        cx.search_path = vec![16384, PUBLIC];
        assert_eq!(class_in(" T ", &cx), Ok(16386));
        assert_eq!(class_in("postgres.public.t", &cx), Ok(16385));
    }

    #[test]
    fn functions_print_as_they_are_read_back() {
        let print = |oid, ty| {
            let mut out = String::new();
            proc_out(oid, ty, &mut out);
            out
        };
        assert_eq!(print(2005, Type::REGPROC), "bytealike");
        assert_eq!(print(877, Type::REGPROC), "pg_catalog.substr");
        assert_eq!(print(1397, Type::REGPROCEDURE), "abs(integer)");
        assert_eq!(print(99999, Type::REGPROC), "99999");
        assert_eq!(proc_in("abs(int4)", Type::REGPROCEDURE), Ok(1397));
        assert_eq!(proc_in("abs", Type::REGPROC).unwrap_err().message(), "more than one function named \"abs\"");
    }

    #[test]
    fn identifiers_are_quoted_when_needed() {
        for (name, quoted) in [
            ("a_1", "a_1"),
            ("A b", "\"A b\""),
            ("select", "\"select\""),
            ("1a", "\"1a\""),
            ("é", "\"é\""),
            ("x\"y", "\"x\"\"y\""),
            ("", "\"\""),
            ("name", "name"),
            ("int", "\"int\""),
        ] {
            assert_eq!(quote_identifier(name), quoted);
        }
    }
}
