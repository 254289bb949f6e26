//! Functions that look definitions up: pg_get_indexdef and its kin, comments, visibility, names to oids.
//!
//! They answer from the catalog the statement sees, as the relations of pg_catalog do. An oid that means nothing gives NULL, as in
//! PostgreSQL. What we have nothing of (triggers, statistics objects, partitions) is always NULL or empty. Registered last: a signature that another
//! module has already is left as it is.

use std::sync::Arc;

use super::args::{int4, text};
use super::context::{FnCx, SessionCx};
use super::registry::{Registry, ScalarFn, ScalarImpl, SetFn, Volatility};
use crate::catalog::pg_catalog::{check_def, index_column_name, index_def, key_def, proc_row, view_def};
use crate::catalog::schema::{Column, Table, View};
use crate::catalog::{FIRST_USER_OID, Relation};
use crate::error::{Result, SqlError, state};
use crate::types::reg::{self, quote_identifier};
use crate::types::{Datum, Type, io};

/// pg_node_tree: how defaults and checks are typed in the catalogs. Here it is their text.
const NODE_TREE: Type = Type(194);

fn add(r: &mut Registry, name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) {
    let there = r.scalars.get(name).is_some_and(|all| all.iter().any(|f| f.variadic.is_none() && f.args.get(..args.len()) == Some(args) && f.args.len() - f.optional <= args.len()));
    if !there {
        r.scalar(ScalarFn { name, args, variadic: None, optional: 0, ret, strict: true, volatility: Volatility::Stable, imp });
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
    add(r, "pg_get_serial_sequence", &[TEXT, TEXT], TEXT, pg_get_serial_sequence);
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
    for name in ["pg_get_statisticsobjdef", "pg_get_statisticsobjdef_columns", "pg_get_partkeydef", "pg_get_partition_constraintdef"] {
        add(r, name, &[OID], TEXT, null);
    }
    add(r, "pg_tablespace_location", &[OID], TEXT, |_, _| Ok(Datum::text("")));
    add(r, "pg_relation_is_publishable", &[Type::REGCLASS], BOOL, pg_relation_is_publishable);
    add(r, "pg_relation_is_updatable", &[Type::REGCLASS, BOOL], Type::INT4, pg_relation_is_updatable);
    add(r, "pg_column_is_updatable", &[Type::REGCLASS, Type::INT2, BOOL], BOOL, pg_column_is_updatable);
    add(r, "pg_get_replica_identity_index", &[Type::REGCLASS], Type::REGCLASS, pg_get_replica_identity_index);
    add(r, "pg_partition_root", &[Type::REGCLASS], Type::REGCLASS, null);
    add(r, "to_regclass", &[TEXT], Type::REGCLASS, to_reg);
    add(r, "to_regtype", &[TEXT], Type::REGTYPE, to_reg);
    add(r, "to_regnamespace", &[TEXT], Type::REGNAMESPACE, to_reg);
    add(r, "to_regrole", &[TEXT], Type::REGROLE, to_reg);
    add(r, "to_regproc", &[TEXT], Type::REGPROC, to_reg);
    add(r, "to_regprocedure", &[TEXT], Type::REGPROCEDURE, to_reg);
    add(r, "obj_description", &[OID, Type::NAME], TEXT, obj_description);
    add(r, "obj_description", &[OID], TEXT, obj_description);
    add(r, "shobj_description", &[OID, Type::NAME], TEXT, null);
    add(r, "col_description", &[OID, Type::INT4], TEXT, col_description);
    add(r, "pg_table_is_visible", &[OID], BOOL, pg_table_is_visible);
    // All of these are in pg_catalog, which is always searched.
    for name in [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
    ] {
        add(r, name, &[OID], BOOL, |_, _| Ok(Datum::Bool(true)));
    }
    for (name, columns) in [("pg_partition_ancestors", &[("relid", Type::REGCLASS)][..]), ("pg_partition_tree", PARTITION_TREE)] {
        if !r.sets.contains_key(name) {
            r.set(SetFn { name, args: &[Type::REGCLASS], variadic: None, columns, strict: true, imp: |_, _| Ok(Box::new(std::iter::empty())) });
        }
    }
}

const PARTITION_TREE: &[(&str, Type)] = &[("relid", Type::REGCLASS), ("parentrelid", Type::REGCLASS), ("isleaf", Type::BOOL), ("level", Type::INT4)];

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
    let check = tables(cx.session).flat_map(|t| &t.checks).find(|c| c.oid == id);
    Ok(maybe(check.map(|c| check_def(&c.expr))))
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
    let Some(Relation::View(view)) = cx.session.catalog.by_oid(id & 0x7fff_ffff).filter(|_| id >= 0x8000_0000) else { return Ok(Datum::Null) };
    let schema = cx.session.catalog.schemas.get(&view.schema).map_or("", |s| &s.name);
    let name = format!("{}.{}", quote_identifier(schema), quote_identifier(&view.name));
    Ok(Datum::text(format!("CREATE RULE \"_RETURN\" AS\n    ON SELECT TO {name} DO INSTEAD {}", view_def(view))))
}

fn relation_named<'a>(name: &str, cx: &'a SessionCx) -> Result<&'a Relation> {
    let parts = reg::split_name(name).ok_or_else(|| SqlError::new(state::INVALID_NAME, "invalid name syntax"))?;
    reg::find_relation(&parts, cx)
}

fn pg_get_serial_sequence(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let column = text(args, 1)?;
    let relation = relation_named(text(args, 0)?, cx.session)?;
    let undefined = || SqlError::new(state::UNDEFINED_COLUMN, format!("column \"{column}\" of relation \"{}\" does not exist", relation.name()));
    let Relation::Table(table) = relation else { return Err(undefined()) };
    let (_, column) = table.column(column).ok_or_else(undefined)?;
    let Some(sequence) = column.sequence.and_then(|s| cx.session.catalog.by_oid(s)) else { return Ok(Datum::Null) };
    let schema = cx.session.catalog.schemas.get(&sequence.schema()).map_or("", |s| &s.name);
    Ok(Datum::text(format!("{}.{}", quote_identifier(schema), quote_identifier(sequence.name()))))
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
    Ok(Datum::text(format!("CREATE OR REPLACE FUNCTION pg_catalog.{}({})\n RETURNS {}\n LANGUAGE internal\nAS $function${name}$function$\n", parts.0, parts.1, parts.2)))
}

fn table_of<'a>(args: &[Datum], cx: &'a SessionCx) -> Result<Option<&'a Arc<Table>>> {
    Ok(match cx.catalog.by_oid(oid(args, 0)?) {
        Some(Relation::Table(t)) => Some(t),
        _ => None,
    })
}

fn pg_relation_is_publishable(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let Some(relation) = cx.session.catalog.by_oid(oid(args, 0)?) else { return Ok(Datum::Null) };
    Ok(Datum::Bool(matches!(relation, Relation::Table(_)) && relation.oid() >= FIRST_USER_OID))
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

/// The oid a name means, NULL if nothing: what the result's input function says, but for what does not exist. A number is no name.
fn to_reg(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let name = text(args, 0)?;
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) || name == "-" {
        return Ok(Datum::Null);
    }
    match io::text_in(name, cx.ret.plain(), cx.session) {
        Err(e) if [state::UNDEFINED_TABLE, state::INVALID_SCHEMA_NAME, state::UNDEFINED_OBJECT, state::UNDEFINED_FUNCTION, state::AMBIGUOUS_FUNCTION].contains(&e.state()) => Ok(Datum::Null),
        other => other,
    }
}

/// The comment on a relation's column.
fn column_comment(columns: &[Column], attnum: i32) -> Option<String> {
    columns.iter().find(|c| i32::from(c.attnum) == attnum && !c.dropped).and_then(|c| c.comment.clone())
}

fn obj_description(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let id = oid(args, 0)?;
    let catalog = &cx.session.catalog;
    let of_class = args.len() < 2 || text(args, 1)? == "pg_class";
    let of_schema = args.len() < 2 || text(args, 1)? == "pg_namespace";
    let comment = match catalog.by_oid(id).filter(|_| of_class) {
        Some(Relation::Table(t)) => t.comment.clone(),
        Some(Relation::View(v)) => v.comment.clone(),
        Some(Relation::Sequence(s)) => s.comment.clone(),
        Some(Relation::Index(t, _)) => match t.primary_key.as_ref().filter(|k| k.oid == id) {
            Some(key) => key.comment.clone(),
            None => t.indexes.iter().find(|i| i.oid == id).and_then(|i| i.comment.clone()),
        },
        Some(Relation::Virtual(_)) => None,
        None => catalog.schemas.get(&id).filter(|_| of_schema).and_then(|s| s.comment.clone()),
    };
    Ok(maybe(comment))
}

fn col_description(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let attnum = int4(args, 1)?;
    Ok(maybe(match cx.session.catalog.by_oid(oid(args, 0)?) {
        Some(Relation::Table(t)) => column_comment(&t.slots, attnum),
        Some(Relation::View(v)) => column_comment(&v.columns, attnum),
        _ => None,
    }))
}

fn pg_table_is_visible(args: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let relation = cx.session.catalog.by_oid(oid(args, 0)?);
    Ok(relation.map_or(Datum::Null, |r| Datum::Bool(reg::is_visible(r, cx.session))))
}
