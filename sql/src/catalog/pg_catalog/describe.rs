//! Definitions as SQL text, as PostgreSQL's pg_get_*def print them. Expressions are shown as stored.

use super::constraints::index_shape;
use crate::catalog::schema::{Action, Deferral, ForeignKey, Table, View};
use crate::functions::SessionCx;
use crate::types::reg::{is_visible, quote_identifier, relation_name};

/// A schema's name; empty if there is none of this oid.
pub(crate) fn schema_name(cx: &SessionCx, oid: u32) -> &str {
    cx.catalog.schemas.get(&oid).map_or("", |s| &s.name)
}

fn column_name(table: &Table, attnum: i16) -> String {
    table.slots.iter().find(|c| c.attnum == attnum).map_or_else(String::new, |c| quote_identifier(&c.name))
}

/// The CREATE INDEX that would make this index. `pretty` leaves out the schema of a table that the search path finds.
pub(crate) fn index_def(table: &Table, index: u32, cx: &SessionCx, pretty: bool) -> Option<String> {
    let shape = index_shape(table, index)?;
    let visible = pretty && cx.catalog.by_oid(table.oid).is_some_and(|r| is_visible(r, cx));
    let schema = if visible { String::new() } else { format!("{}.", quote_identifier(schema_name(cx, table.schema))) };
    let columns: Vec<String> = shape
        .columns
        .iter()
        .map(|c| {
            let order = match (c.desc, c.nulls_first) {
                (false, false) => "",
                (false, true) => " NULLS FIRST",
                (true, true) => " DESC",
                (true, false) => " DESC NULLS LAST",
            };
            column_name(table, c.attnum) + order
        })
        .collect();
    let unique = if shape.unique { "UNIQUE " } else { "" };
    let (name, table) = (quote_identifier(shape.name), quote_identifier(&table.name));
    Some(format!("CREATE {unique}INDEX {name} ON {schema}{table} USING btree ({})", columns.join(", ")))
}

/// One column of an index, from 1.
pub(crate) fn index_column_name(table: &Table, index: u32, position: i32) -> Option<String> {
    let at = usize::try_from(position).ok()?.checked_sub(1)?;
    Some(column_name(table, index_shape(table, index)?.columns.get(at)?.attnum))
}

/// FOREIGN KEY (..) REFERENCES ..; the other table with its schema, unless the search path finds it.
pub(crate) fn foreign_key_def(table: &Table, key: &ForeignKey, cx: &SessionCx) -> String {
    let names = |t: &Table, attnums: &[i16]| attnums.iter().map(|a| column_name(t, *a)).collect::<Vec<_>>().join(", ");
    let mut def = format!("FOREIGN KEY ({}) REFERENCES ", names(table, &key.columns));
    if let Some(parent) = cx.catalog.by_oid(key.table) {
        def.push_str(&relation_name(parent, cx));
    }
    if let Some(parent) = cx.catalog.table(key.table) {
        def.push_str(&format!("({})", names(parent, &key.referenced)));
    }
    if key.match_full {
        def.push_str(" MATCH FULL");
    }
    for (word, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
        if action != Action::NoAction {
            def.push_str(&format!(" ON {word} {}", action.words()));
        }
    }
    if !key.set_columns.is_empty() {
        def.push_str(&format!(" ({})", names(table, &key.set_columns)));
    }
    def.push_str(marks(key.deferral, key.not_valid));
    def
}

/// What stands behind a constraint.
pub(crate) fn marks(deferral: Deferral, not_valid: bool) -> &'static str {
    match (deferral, not_valid) {
        (Deferral::Never, false) => "",
        (Deferral::Never, true) => " NOT VALID",
        (Deferral::Immediate, false) => " DEFERRABLE",
        (Deferral::Immediate, true) => " DEFERRABLE NOT VALID",
        (Deferral::Deferred, false) => " DEFERRABLE INITIALLY DEFERRED",
        (Deferral::Deferred, true) => " DEFERRABLE INITIALLY DEFERRED NOT VALID",
    }
}

/// PRIMARY KEY (..) or UNIQUE (..); None if no constraint made the index.
pub(crate) fn key_def(table: &Table, index: u32) -> Option<String> {
    let shape = index_shape(table, index).filter(|s| s.constraint)?;
    let columns: Vec<String> = shape.columns.iter().map(|c| column_name(table, c.attnum)).collect();
    let kind = if shape.primary { "PRIMARY KEY" } else { "UNIQUE" };
    Some(format!("{kind} ({}){}", columns.join(", "), marks(shape.deferral, false)))
}

/// CHECK ((..)).
pub(crate) fn check_def(expr: &str) -> String {
    let expr = expr.trim();
    if is_parenthesised(expr) { format!("CHECK ({expr})") } else { format!("CHECK (({expr}))") }
}

/// Whether one pair of parentheses holds the whole expression.
fn is_parenthesised(expr: &str) -> bool {
    let mut depth = 0;
    let mut closed_at = None;
    for (at, token) in tokens(expr) {
        match token {
            "(" => depth += 1,
            ")" => {
                depth -= 1;
                if depth == 0 && closed_at.is_none() {
                    closed_at = Some(at);
                }
            }
            _ => {}
        }
    }
    expr.starts_with('(') && closed_at == Some(expr.len() - 1)
}

/// A view's query.
pub(crate) fn view_def(view: &View) -> String {
    format!(" {};", view.query.trim().trim_end_matches(';').trim_end())
}

/// The names an expression uses, folded as SQL folds them: columns, and also functions and types.
pub(crate) fn identifiers(expr: &str) -> Vec<String> {
    let name = |token: &str| match token.strip_prefix('"') {
        Some(quoted) => Some(quoted.strip_suffix('"').unwrap_or(quoted).replace("\"\"", "\"")),
        None => token.starts_with(|c: char| c == '_' || c.is_alphabetic()).then(|| token.to_lowercase()),
    };
    tokens(expr).into_iter().filter_map(|(_, t)| name(t)).collect()
}

/// Words, quoted names and strings (whole), and single other characters, each with its place.
fn tokens(expr: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(first) = expr[at..].chars().next() {
        let rest = &expr[at..];
        let is_word = |c: char| c == '_' || c.is_alphanumeric();
        let len = match first {
            '\'' | '"' => quoted_len(rest, first),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        if !first.is_whitespace() {
            out.push((at, &rest[..len]));
        }
        at += len;
    }
    out
}

/// Length of a quoted text up to and with its closing quote; doubled quotes do not close it.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_parenthesised_once() {
        for (expr, want) in [
            ("a > 0", "CHECK ((a > 0))"),
            ("(a > 0)", "CHECK ((a > 0))"),
            ("(a > 0) and (b = ')')", "CHECK (((a > 0) and (b = ')')))"),
            ("(a = ')')", "CHECK ((a = ')'))"),
        ] {
            assert_eq!(check_def(expr), want);
        }
    }

    #[test]
    fn identifiers_are_not_found_in_strings() {
        assert_eq!(identifiers(r#"Price > 0 AND "Two ""x""" <> 'b it''s c'"#), ["price", "and", "Two \"x\""]);
    }
}
