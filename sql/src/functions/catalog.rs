//! Functions that print definitions: pg_get_indexdef and its kin. What asks about visibility, comments and privileges is in [`super::inspection`].
//!
//! They answer from the catalog the statement sees, as the relations of pg_catalog do. An oid that means nothing gives NULL, as in
//! PostgreSQL. What we have nothing of (triggers, statistics objects, partitions) is always NULL or empty. Registered last: a signature that another
//! module has already is left as it is.

use std::sync::Arc;

use super::args::{int4, text};
use super::context::{FnCx, SessionCx};
use super::registry::{Registry, ScalarFn, ScalarImpl, SetFn, Volatility};
use crate::catalog::Relation;
use crate::catalog::pg_catalog::{
    check_def, foreign_key_def, index_column_name, index_def, key_def, marks, proc_row, view_def,
};
use crate::catalog::schema::{Deferral, Table, View};
use crate::error::{Result, SqlError, state};
use crate::types::reg::{self, quote_identifier};
use crate::types::{Datum, Type};

/// pg_node_tree: how defaults and checks are typed in the catalogs. Here it is their text.
const NODE_TREE: Type = Type(194);

fn add(r: &mut Registry, name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) {
    let there = r.scalars.get(name).is_some_and(|all| {
        all.iter().any(|f| {
            f.variadic.is_none() && f.args.get(..args.len()) == Some(args) && f.args.len() - f.optional <= args.len()
        })
    });
    if !there {
        r.scalar(ScalarFn {
            name,
            args,
            variadic: None,
            optional: 0,
            ret,
            strict: true,
            volatility: Volatility::Stable,
            imp,
        });
    }
}

/// Adds them.
pub fn register(r: &mut Registry) {
    const OID: Type = Type::OID;
    const TEXT: Type = Type::TEXT;
    const BOOL: Type = Type::BOOL;
    add(r, "pg_get_indexdef", &[OID], TEXT, pg_get_indexdef);
    add(r, "pg_get_indexdef", &[OID, Type::INT4, BOOL], TEXT, pg_get_indexdef);
    add(r, "pg_get_constraintdef", &[OID], TEXT, pg_get_constraintdef);
    add(r, "pg_get_constraintdef", &[OID, BOOL], TEXT, pg_get_constraintdef);
    add(r, "pg_get_viewdef", &[OID], TEXT, pg_get_viewdef);
    add(r, "pg_get_viewdef", &[OID, BOOL], TEXT, pg_get_viewdef);
    add(r, "pg_get_viewdef", &[OID, Type::INT4], TEXT, pg_get_viewdef);
    add(r, "pg_get_viewdef", &[TEXT], TEXT, pg_get_viewdef);
    add(r, "pg_get_viewdef", &[TEXT, BOOL], TEXT, pg_get_viewdef);
    add(r, "pg_get_expr", &[NODE_TREE, OID], TEXT, |args, _| Ok(args[0].clone()));
    add(r, "pg_get_expr", &[NODE_TREE, OID, BOOL], TEXT, |args, _| Ok(args[0].clone()));
    add(r, "pg_get_function_result", &[OID], TEXT, pg_get_function_result);
    add(r, "pg_get_function_arguments", &[OID], TEXT, pg_get_function_arguments);
    add(r, "pg_get_function_identity_arguments", &[OID], TEXT, pg_get_function_arguments);
    add(r, "pg_get_functiondef", &[OID], TEXT, pg_get_functiondef);
    add(r, "pg_get_function_arg_default", &[OID, Type::INT4], TEXT, null);
    add(r, "pg_get_function_sqlbody", &[OID], TEXT, null);
    add(r, "pg_get_triggerdef", &[OID], TEXT, null);
    add(r, "pg_get_triggerdef", &[OID, BOOL], TEXT, null);
    add(r, "pg_get_ruledef", &[OID], TEXT, pg_get_ruledef);
    add(r, "pg_get_ruledef", &[OID, BOOL], TEXT, pg_get_ruledef);
    for name in [
        "pg_get_statisticsobjdef",
        "pg_get_statisticsobjdef_columns",
        "pg_get_partkeydef",
        "pg_get_partition_constraintdef",
    ] {
        add(r, name, &[OID], TEXT, null);
    }
    add(r, "pg_tablespace_location", &[OID], TEXT, |_, _| Ok(Datum::text("")));
    add(r, "pg_relation_is_updatable", &[Type::REGCLASS, BOOL], Type::INT4, pg_relation_is_updatable);
    add(r, "pg_column_is_updatable", &[Type::REGCLASS, Type::INT2, BOOL], BOOL, pg_column_is_updatable);
    add(r, "pg_get_replica_identity_index", &[Type::REGCLASS], Type::REGCLASS, pg_get_replica_identity_index);
    add(r, "pg_partition_root", &[Type::REGCLASS], Type::REGCLASS, null);
    for (name, columns) in
        [("pg_partition_ancestors", &[("relid", Type::REGCLASS)][..]), ("pg_partition_tree", PARTITION_TREE)]
    {
        if !r.sets.contains_key(name) {
            r.set(SetFn {
                name,
                args: &[Type::REGCLASS],
                variadic: None,
                columns,
                strict: true,
                imp: |_, _| Ok(Box::new(std::iter::empty())),
            });
        }
    }
}

const PARTITION_TREE: &[(&str, Type)] =
    &[("relid", Type::REGCLASS), ("parentrelid", Type::REGCLASS), ("isleaf", Type::BOOL), ("level", Type::INT4)];

fn null(_: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    Ok(Datum::Null)
}

fn oid(args: &[Datum], i: usize) -> Result<u32> {
    match args.get(i) {
        Some(Datum::Oid(n)) => Ok(*n),
        _ => Err(SqlError::internal("a function was called with an argument that is no oid")),
    }
}

fn maybe(text: Option<String>) -> Datum {
    text.map_or(Datum::Null, Datum::text)
}

fn flag(args: &[Datum], i: usize) -> bool {
    matches!(args.get(i), Some(Datum::Bool(true)))
}

fn pg_get_indexdef(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let Some(Relation::Index(table, index)) = cx.session.catalog.by_oid(oid(args, 0)?) else { return Ok(Datum::Null) };
    let column = if args.len() > 1 { int4(args, 1)? } else { 0 };
    Ok(match column {
        0 => maybe(index_def(table, *index, cx.session, flag(args, 2))),
        n => Datum::text(index_column_name(table, *index, n).unwrap_or_default()),
    })
}

fn tables(cx: &SessionCx) -> impl Iterator<Item = &Arc<Table>> {
    cx.catalog.relations.values().filter_map(|r| match r {
        Relation::Table(t) => Some(t),
        _ => None,
    })
}

fn pg_get_constraintdef(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let id = oid(args, 0)?;
    if let Some(Relation::Index(table, index)) = cx.session.catalog.by_oid(id) {
        return Ok(maybe(key_def(table, *index)));
    }
    for table in tables(cx.session) {
        if let Some(key) = table.foreign_keys.iter().find(|k| k.oid == id) {
            return Ok(Datum::text(foreign_key_def(table, key, cx.session)));
        }
    }
    let check = tables(cx.session).flat_map(|t| &t.checks).find(|c| c.oid == id);
    let def = check.map(|c| check_def(&c.expr));
    // Printed prettily, the outer parentheses go: CHECK ((a > 0)) is CHECK (a > 0).
    let pretty = matches!(args.get(1), Some(Datum::Bool(true)));
    let end = check.map_or("", |c| marks(Deferral::Never, c.not_valid));
    let def = def.map(|d| match d.strip_prefix("CHECK ((").and_then(|rest| rest.strip_suffix("))")) {
        Some(inner) if pretty => format!("CHECK ({inner})"),
        _ => d,
    });
    Ok(maybe(def.map(|d| d + end)))
}

fn view_of<'a>(args: &[Datum], cx: &'a SessionCx) -> Result<Option<&'a Arc<View>>> {
    let relation = match args.first() {
        Some(Datum::Text(name)) => Some(relation_named(name, cx)?),
        _ => cx.catalog.by_oid(oid(args, 0)?),
    };
    Ok(match relation {
        Some(Relation::View(view)) => Some(view),
        _ => None,
    })
}

fn pg_get_viewdef(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    Ok(maybe(view_of(args, cx.session)?.map(|v| view_def(v))))
}

/// The rule of a view has the view's oid with the highest bit set, see pg_rewrite.
fn pg_get_ruledef(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let id = oid(args, 0)?;
    let Some(Relation::View(view)) = cx.session.catalog.by_oid(id & 0x7fff_ffff).filter(|_| id >= 0x8000_0000) else {
        return Ok(Datum::Null);
    };
    let schema = cx.session.catalog.schemas.get(&view.schema).map_or("", |s| &s.name);
    let name = format!("{}.{}", quote_identifier(schema), quote_identifier(&view.name));
    Ok(Datum::text(format!("CREATE RULE \"_RETURN\" AS\n    ON SELECT TO {name} DO INSTEAD {}", view_def(view))))
}

fn relation_named<'a>(name: &str, cx: &'a SessionCx) -> Result<&'a Relation> {
    let parts = reg::split_name(name).ok_or_else(|| SqlError::new(state::INVALID_NAME, "invalid name syntax"))?;
    reg::find_relation(&parts, cx)
}

// Columns of pg_proc.
const PRONAME: usize = 1;
const PROVARIADIC: usize = 7;
const PROKIND: usize = 9;
const PRORETSET: usize = 13;
const PRORETTYPE: usize = 18;
const PROARGTYPES: usize = 19;
const PROALLARGTYPES: usize = 20;
const PROARGMODES: usize = 21;
const PROARGNAMES: usize = 22;

/// `amount integer, VARIADIC rest text[]`: the arguments whose mode is among these (i in, o out, v variadic, t of the result table).
fn arguments(row: &[Datum], modes: &str) -> Vec<String> {
    let list = |at: usize| match &row[at] {
        Datum::Array(a) => Some(&a.values[..]),
        _ => None,
    };
    let types = list(PROALLARGTYPES).or_else(|| list(PROARGTYPES)).unwrap_or_default();
    let last = types.len().saturating_sub(1);
    let show = |(i, ty): (usize, &Datum)| {
        let ty = Type(if let Datum::Oid(n) = ty { *n } else { 0 });
        let mode = match list(PROARGMODES).and_then(|m| m.get(i)) {
            Some(Datum::Text(m)) => m.to_string(),
            _ if i == last && !matches!(row[PROVARIADIC], Datum::Oid(0)) => "v".to_owned(),
            _ => "i".to_owned(),
        };
        if !modes.contains(&mode) {
            return None;
        }
        let name = match list(PROARGNAMES).and_then(|n| n.get(i)) {
            Some(Datum::Text(n)) if !n.is_empty() => format!("{} ", quote_identifier(n)),
            _ => String::new(),
        };
        let prefix = match mode.as_str() {
            "v" => "VARIADIC ",
            "o" => "OUT ",
            "b" => "INOUT ",
            _ => "",
        };
        Some(format!("{prefix}{name}{}", ty.sql_name()))
    };
    types.iter().enumerate().filter_map(show).collect()
}

fn pg_get_function_arguments(args: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    Ok(maybe(proc_row(oid(args, 0)?).map(|row| arguments(row, "iovb").join(", "))))
}

fn result_of(row: &[Datum]) -> String {
    let table = arguments(row, "t");
    if !table.is_empty() {
        return format!("TABLE({})", table.join(", "));
    }
    let ty = Type(if let Datum::Oid(n) = row[PRORETTYPE] { n } else { 0 }).sql_name();
    if flag(row, PRORETSET) { format!("SETOF {ty}") } else { ty.to_owned() }
}

fn pg_get_function_result(args: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    Ok(maybe(proc_row(oid(args, 0)?).map(|row| result_of(row))))
}

fn pg_get_functiondef(args: &[Datum], _: &FnCx<'_>) -> Result<Datum> {
    let Some(row) = proc_row(oid(args, 0)?) else { return Ok(Datum::Null) };
    let name = text(row, PRONAME)?;
    if text(row, PROKIND)? == "a" {
        return Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{name}\" is an aggregate function")));
    }
    let parts = (quote_identifier(name), arguments(row, "iovb").join(", "), result_of(row));
    Ok(Datum::text(format!(
        "CREATE OR REPLACE FUNCTION pg_catalog.{}({})\n RETURNS {}\n LANGUAGE internal\nAS $function${name}$function$\n",
        parts.0, parts.1, parts.2
    )))
}

fn table_of<'a>(args: &[Datum], cx: &'a SessionCx) -> Result<Option<&'a Arc<Table>>> {
    Ok(match cx.catalog.by_oid(oid(args, 0)?) {
        Some(Relation::Table(t)) => Some(t),
        _ => None,
    })
}

/// Bits of PostgreSQL's CmdType: UPDATE 4, INSERT 8, DELETE 16. Views are read only.
fn pg_relation_is_updatable(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    Ok(Datum::Int4(if table_of(args, cx.session)?.is_some() { 28 } else { 0 }))
}

fn pg_column_is_updatable(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    Ok(Datum::Bool(table_of(args, cx.session)?.is_some() && int4(args, 1)? > 0))
}

fn pg_get_replica_identity_index(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let key = table_of(args, cx.session)?.and_then(|t| t.primary_key.as_ref());
    Ok(key.map_or(Datum::Null, |k| Datum::Oid(k.oid)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::pg_catalog::tests::sample;
    use crate::functions::registry::registry;
    use crate::types::io;

    /// Calls a function of the registry by its name and argument types.
    fn call(name: &str, arg_types: &[Type], args: &[Datum], cx: &SessionCx) -> String {
        let f = registry().scalars[name].iter().find(|f| f.args == arg_types).expect("a function of these arguments");
        let value = (f.imp)(args, &FnCx { session: cx, arg_types, ret: f.ret, typmod: -1 }).unwrap();
        if value.is_null() { "NULL".to_owned() } else { io::to_text(&value, f.ret, cx) }
    }

    #[test]
    fn definitions_as_text() {
        let cx = sample();
        let by_oid = |name: &str, oid: u32| call(name, &[Type::OID], &[Datum::Oid(oid)], &cx);
        assert_eq!(
            by_oid("pg_get_indexdef", 16387),
            "CREATE INDEX t_price ON public.t USING btree (\"Price\" DESC, id)"
        );
        let args = [Datum::Oid(16387), Datum::Int4(0), Datum::Bool(true)];
        assert_eq!(
            call("pg_get_indexdef", &[Type::OID, Type::INT4, Type::BOOL], &args, &cx),
            "CREATE INDEX t_price ON t USING btree (\"Price\" DESC, id)"
        );
        let args = [Datum::Oid(16387), Datum::Int4(1), Datum::Bool(true)];
        assert_eq!(call("pg_get_indexdef", &[Type::OID, Type::INT4, Type::BOOL], &args, &cx), "\"Price\"");
        assert_eq!(by_oid("pg_get_constraintdef", 16385), "PRIMARY KEY (id)");
        assert_eq!(by_oid("pg_get_constraintdef", 16386), "UNIQUE (name)");
        assert_eq!(by_oid("pg_get_constraintdef", 16387), "NULL");
        assert_eq!(by_oid("pg_get_constraintdef", 16388), "CHECK ((\"Price\" > 0))");
        assert_eq!(by_oid("pg_get_viewdef", 16389), " SELECT id FROM t;");
        assert_eq!(by_oid("pg_get_viewdef", 16384), "NULL");
    }

    #[test]
    fn functions_as_postgresql_describes_them() {
        let cx = sample();
        let by_oid = |name: &str, oid: u32| call(name, &[Type::OID], &[Datum::Oid(oid)], &cx);
        assert_eq!(
            (by_oid("pg_get_function_arguments", 177), by_oid("pg_get_function_result", 177)),
            ("integer, integer".into(), "integer".into())
        );
        assert_eq!(by_oid("pg_get_function_result", 1067), "SETOF integer", "generate_series");
        assert_eq!(by_oid("pg_get_function_arguments", 3058), "VARIADIC \"any\"", "concat");
        assert_eq!(by_oid("pg_get_function_result", 1), "NULL");
    }

    #[test]
    fn no_signature_is_there_twice() {
        for all in registry().scalars.values() {
            for (i, f) in all.iter().enumerate() {
                let twin = all[..i].iter().find(|g| g.args == f.args && g.variadic == f.variadic);
                assert!(twin.is_none(), "{} {:?}", f.name, f.args.iter().map(|t| t.0).collect::<Vec<_>>());
            }
        }
    }
}
