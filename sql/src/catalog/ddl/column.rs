//! What a column's definition means, for CREATE TABLE and ALTER TABLE ADD COLUMN alike.

use super::index::multiple_primary_keys;
use super::names::regclass_literal;
use super::{DdlCx, sequence};
use crate::bind;
use crate::catalog::schema::{Column, Deferral};
use crate::error::{Result, SqlError, state};
use crate::foreign::options::{self, Place};
use crate::ir::{Expr, ExprKind};
use crate::parse::ast::{ColumnConstraintKind, ColumnDef, Pos, QName, References, SequenceOption, TextExpr};
use crate::parse::lexemes;
use crate::plan::expr::any;
use crate::types::{Datum, Type};

/// A column as defined, with what its constraints ask of the table.
pub(super) struct NewColumn {
    /// The column; its sequence is not made yet.
    pub column: Column,
    /// serial or identity: the options of the sequence to make.
    pub sequence: Option<Vec<SequenceOption>>,
    /// PRIMARY KEY: its name if given, when it is checked, and where it stands.
    pub primary: Option<(Option<String>, Deferral, Pos)>,
    /// UNIQUE, with their names if given.
    pub uniques: Vec<(Option<String>, Deferral)>,
    /// REFERENCES, with their names if given.
    pub references: Vec<(Option<String>, References, Deferral)>,
    /// CHECK.
    pub checks: Vec<(Option<String>, TextExpr)>,
}

const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "ctid", "xmin", "cmin", "xmax", "cmax"];

/// Resolves a column's definition.
pub(super) fn define(def: &ColumnDef, table: &str, attnum: i16, cx: &mut DdlCx<'_>) -> Result<NewColumn> {
    let name = &def.name.text;
    if SYSTEM_COLUMNS.contains(&name.as_str()) {
        return Err(SqlError::new(
            state::DUPLICATE_COLUMN,
            format!("column name \"{name}\" conflicts with a system column name"),
        ));
    }
    let ty = cx.bind(|env| bind::resolve_type(&def.ty, cx.source, env))?;
    check_type(name, ty.ty)?;
    check_collation(def.collation.as_ref(), ty.ty)?;
    let mut new = NewColumn {
        column: Column {
            attnum,
            name: name.clone(),
            ty: ty.ty.0,
            typmod: ty.typmod,
            not_null: def.serial,
            default: None,
            identity: None,
            sequence: None,
            missing: None,
            dropped: false,
            options: options::given(&def.options, Place::Column)?,
            comment: None,
        },
        sequence: def.serial.then(Vec::new),
        primary: None,
        uniques: Vec::new(),
        references: Vec::new(),
        checks: Vec::new(),
    };
    let syntax =
        |what: &str| SqlError::new(state::SYNTAX_ERROR, format!("{what} for column \"{name}\" of table \"{table}\""));
    let mut nullable = None;
    for constraint in &def.constraints {
        let given = constraint.name.as_ref().map(|n| n.text.clone());
        match &constraint.kind {
            ColumnConstraintKind::NotNull if nullable == Some(true) => {
                return Err(syntax("conflicting NULL/NOT NULL declarations"));
            }
            ColumnConstraintKind::NotNull => {
                nullable = Some(false);
                new.column.not_null = true;
            }
            ColumnConstraintKind::Null if nullable == Some(false) || def.serial => {
                return Err(syntax("conflicting NULL/NOT NULL declarations"));
            }
            ColumnConstraintKind::Null => nullable = Some(true),
            ColumnConstraintKind::Default(_) if new.column.default.is_some() || def.serial => {
                return Err(syntax("multiple default values specified"));
            }
            ColumnConstraintKind::Default(value) => {
                let bound = check_default(value, &new.column, cx)?;
                new.column.default = stored_default(value, &bound, &new.column, cx)?;
            }
            ColumnConstraintKind::Check(check) => new.checks.push((given, check.clone())),
            ColumnConstraintKind::PrimaryKey => {
                if new.primary.is_some() {
                    return Err(multiple_primary_keys(table).at(Some(constraint.pos + 1)));
                }
                new.primary = Some((given, constraint.deferral, constraint.pos));
            }
            ColumnConstraintKind::Unique { nulls_not_distinct: true } => {
                return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
            }
            ColumnConstraintKind::Unique { .. } => new.uniques.push((given, constraint.deferral)),
            ColumnConstraintKind::References(references) => {
                new.references.push((given, references.clone(), constraint.deferral));
            }
            ColumnConstraintKind::Identity { always, options } => {
                if new.column.identity.is_some() {
                    return Err(syntax("multiple identity specifications"));
                }
                if new.sequence.is_some() {
                    return Err(syntax("both default and identity specified"));
                }
                if !matches!(ty.ty, Type::INT2 | Type::INT4 | Type::INT8) {
                    return Err(SqlError::new(
                        state::INVALID_PARAMETER_VALUE,
                        "identity column type must be smallint, integer, or bigint",
                    ));
                }
                new.column.identity = Some(if *always { 'a' } else { 'd' });
                new.column.not_null = true;
                new.sequence = Some(options.clone());
            }
            ColumnConstraintKind::Generated(_) => {
                return Err(SqlError::unsupported("GENERATED ALWAYS AS (...) STORED"));
            }
        }
    }
    if new.column.identity.is_some() && new.column.default.is_some() {
        return Err(syntax("both default and identity specified"));
    }
    if new.primary.is_some() {
        new.column.not_null = true;
    }
    Ok(new)
}

/// Makes the sequence of a serial or identity column and links the two. The table has its oid and name already.
pub(super) fn attach_sequence(
    new: &mut NewColumn,
    table: u32,
    schema: u32,
    table_name: &str,
    taken: &[String],
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    let Some(options) = new.sequence.take() else { return Ok(()) };
    let given = options.iter().find_map(|o| match o {
        SequenceOption::SequenceName(name) => Some(name.last().to_owned()),
        _ => None,
    });
    let name = given.unwrap_or_else(|| cx.choose_relation(schema, table_name, Some(&new.column.name), "seq", taken));
    let owner = Some((table, new.column.attnum));
    let oid = sequence::create_named(schema, name.clone(), Type(new.column.ty), &options, owner, cx)?;
    new.column.sequence = Some(oid);
    if new.column.identity.is_none() {
        new.column.default = Some(format!("nextval({})", regclass_literal(&cx.schema_name(schema), &name)));
    }
    Ok(())
}

/// Types a column cannot have.
pub(super) fn check_type(column: &str, ty: Type) -> Result<()> {
    if ty == Type::UNKNOWN || ty.category() == b'P' {
        let message = format!("column \"{column}\" has pseudo-type {}", crate::types::info::format_type(ty, -1));
        return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message));
    }
    Ok(())
}

/// C is the one collation we have; its other names are accepted.
pub(super) fn check_collation(collation: Option<&QName>, ty: Type) -> Result<()> {
    let Some(name) = collation else { return Ok(()) };
    let pos = Some(name.pos + 1);
    match name.last() {
        _ if ty.element().unwrap_or(ty).category() != b'S' => {
            let message = format!("collations are not supported by type {}", crate::types::info::format_type(ty, -1));
            Err(SqlError::new(state::DATATYPE_MISMATCH, message).at(pos))
        }
        "C" | "POSIX" | "default" | "ucs_basic" => Ok(()),
        other => Err(SqlError::unsupported(format!("collation \"{other}\"")).at(pos)),
    }
}

/// A DEFAULT bound as its column's, which shows that it fits.
pub(super) fn check_default(value: &TextExpr, column: &Column, cx: &DdlCx<'_>) -> Result<Expr> {
    let target = Some((column.type_mod(), column.name.as_str()));
    cx.bind(|env| bind::bind_expr(bind::Clause::Default, &value.expr, cx.source, &[], target, env))
}

/// What is kept of a DEFAULT. DEFAULT NULL is the same as none, as in PostgreSQL; a plain nextval names its sequence so that nothing can mislead it.
pub(super) fn stored_default(
    value: &TextExpr,
    bound: &Expr,
    column: &Column,
    cx: &DdlCx<'_>,
) -> Result<Option<String>> {
    if value.text.trim().eq_ignore_ascii_case("null") {
        return Ok(None);
    }
    let mut sequences = Vec::new();
    any(bound, &mut |e| {
        if let (ExprKind::Const(Datum::Oid(oid)), Type::REGCLASS) = (&e.kind, e.ty.ty) {
            sequences.push(*oid);
        }
        false
    });
    let words: Vec<String> = lexemes(&value.text).into_iter().filter_map(|l| l.name).collect();
    let is_plain = words.iter().all(|w| matches!(w.as_str(), "nextval" | "pg_catalog" | "regclass" | "text"));
    let sequence = if let [oid] = sequences[..] { cx.catalog().by_oid(oid) } else { None };
    Ok(Some(match sequence {
        Some(sequence) if is_plain && words.iter().any(|w| w == "nextval") => {
            format!("nextval({})", regclass_literal(&cx.schema_name(sequence.schema()), sequence.name()))
        }
        _ => cx.bind(|env| bind::written_out(bind::Clause::Default, &value.text, &[], column.type_mod(), env))?,
    }))
}
