//! ALTER TABLE, action by action.

use std::sync::Arc;

use super::column::{attach_sequence, check_collation, check_default, check_type, define, stored_default};
use super::foreign_key::{self, Rows, Written, has_constraint};
use super::rename::{owned_sequences, rename_index};
use super::rewrite::{check_not_null, check_rows, contains_nulls, each_row, fill_index, is_empty, rewrite};
use super::table::{add_check, check_flags, current, key_columns};
use super::{DdlCx, drop, foreign, index, sequence, view};
use crate::bind;
use crate::catalog::change::Change;
use crate::catalog::schema::{Column, Deferral, Table};
use crate::codec::row::storage_cx;
use crate::error::{Result, SqlError, state};
use crate::exec;
use crate::functions::registry::Volatility;
use crate::ir::{Expr, ExprKind};
use crate::parse::ast::{AlterAction, AlterTable, ColumnDef, Constraint, ConstraintKind, Name, ObjectKind, TypeName};
use crate::plan::PlanCx;
use crate::plan::expr::any;
use crate::session::Notice;
use crate::types::{Datum, Type, io};
use crate::write::constraints::is_true_or_null;

/// ALTER TABLE.
pub(super) fn run(alter: &AlterTable, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    let is_foreign = alter.kind == ObjectKind::ForeignTable;
    let tag = if is_foreign { "ALTER FOREIGN TABLE" } else { "ALTER TABLE" };
    let Some(table) = cx.table(&alter.name, alter.if_exists)? else {
        cx.notices.push(Notice::new(format!("relation \"{}\" does not exist, skipping", alter.name)));
        return Ok(tag);
    };
    if is_foreign && table.foreign.is_none() {
        return Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a foreign table", table.name)));
    }
    cx.txn.refuse_pending(table.oid, &table.name, "ALTER TABLE")?;
    for action in &alter.actions {
        // Each action sees what those before it made of the table.
        if foreign::alter_action(&current(table.oid, cx)?, action, cx)? {
            continue;
        }
        run_action(&current(table.oid, cx)?, action, cx)?;
        let after = current(table.oid, cx)?;
        if after.foreign.is_some() {
            foreign::check(&after, cx)?;
        }
    }
    Ok(tag)
}

fn run_action(table: &Table, action: &AlterAction, cx: &mut DdlCx<'_>) -> Result<()> {
    match action {
        AlterAction::AddColumn { column, if_not_exists } => add_column(table.clone(), column, *if_not_exists, cx),
        AlterAction::DropColumn { name, if_exists, cascade } => drop_column(table, name, *if_exists, *cascade, cx),
        AlterAction::RenameColumn { from, to } => rename_column(table.clone(), from, &to.text, cx),
        AlterAction::RenameConstraint { from, to } => rename_constraint(table.clone(), &from.text, &to.text, cx),
        AlterAction::SetDefault { column, value } => edit(table, column, cx, |c, cx| {
            if c.identity.is_some() {
                return Err(identity_error(c, table));
            }
            let bound = check_default(value, c, cx)?;
            c.default = stored_default(value, &bound, c, cx)?;
            Ok(())
        }),
        AlterAction::DropDefault { column } => edit(table, column, cx, |c, _| {
            if c.identity.is_some() {
                return Err(
                    identity_error(c, table).hint("Use ALTER TABLE ... ALTER COLUMN ... DROP IDENTITY instead.")
                );
            }
            c.default = None;
            Ok(())
        }),
        AlterAction::SetNotNull { column } => {
            let position = find(table, column)?.0;
            check_not_null(table, position, cx)?;
            edit(table, column, cx, |c, _| {
                c.not_null = true;
                Ok(())
            })
        }
        AlterAction::DropNotNull { column } => edit(table, column, cx, |c, _| {
            if table.primary_key.as_ref().is_some_and(|k| k.columns.contains(&c.attnum)) {
                return Err(SqlError::new(
                    state::INVALID_TABLE_DEFINITION,
                    format!("column \"{}\" is in a primary key", c.name),
                ));
            }
            if c.identity.is_some() {
                return Err(identity_error(c, table));
            }
            c.not_null = false;
            Ok(())
        }),
        AlterAction::SetType { column, ty, collation, using } => {
            let to = cx.bind(|env| bind::resolve_type(ty, cx.source, env))?.ty;
            check_collation(collation.as_ref(), to)?;
            set_type(table, column, ty, using.as_ref(), cx)
        }
        AlterAction::AddIdentity { column, always, options } => {
            let (_, found) = find(table, column)?;
            let state_error = |what: &str| {
                let message = format!("column \"{}\" of relation \"{}\" {what}", found.name, table.name);
                Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message))
            };
            if found.identity.is_some() {
                return state_error("is already an identity column");
            }
            if !found.not_null {
                return state_error("must be declared NOT NULL before identity can be added");
            }
            if found.default.is_some() {
                return state_error("already has a default value");
            }
            let (oid, schema, attnum, ty) = (table.oid, table.schema, found.attnum, Type(found.ty));
            let name = cx.choose_relation(schema, &table.name, Some(&found.name), "seq", &[]);
            let sequence = sequence::create_named(schema, name, ty, options, Some((oid, attnum)), cx)?;
            edit(table, column, cx, |c, _| {
                c.identity = Some(if *always { 'a' } else { 'd' });
                c.sequence = Some(sequence);
                Ok(())
            })
        }
        AlterAction::DropIdentity { column, if_exists } => {
            let (_, found) = find(table, column)?;
            if found.identity.is_none() {
                let message =
                    format!("column \"{}\" of relation \"{}\" is not an identity column", found.name, table.name);
                if *if_exists {
                    cx.notices.push(Notice::new(format!("{message}, skipping")));
                    return Ok(());
                }
                return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
            }
            if let Some(oid) = found.sequence {
                cx.change.drop_relation(oid)?;
            }
            edit(table, column, cx, |c, _| {
                (c.identity, c.sequence) = (None, None);
                Ok(())
            })
        }
        AlterAction::SetIdentity { column, always, options } => {
            let (_, found) = find(table, column)?;
            let Some(oid) = found.sequence.filter(|_| found.identity.is_some()) else {
                let message =
                    format!("column \"{}\" of relation \"{}\" is not an identity column", found.name, table.name);
                return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
            };
            if !options.is_empty()
                && let Some(s) = owned_sequences(table.oid, cx).into_iter().find(|s| s.oid == oid)
            {
                sequence::change(s, options, cx)?;
            }
            edit(table, column, cx, |c, _| {
                c.identity = always.map_or(c.identity, |a| Some(if a { 'a' } else { 'd' }));
                Ok(())
            })
        }
        AlterAction::AddConstraint(constraint) => add_constraint(table, constraint, cx),
        AlterAction::DropConstraint { name, if_exists, cascade } => {
            drop_constraint(table, &name.text, *if_exists, *cascade, cx)
        }
        AlterAction::ValidateConstraint(name) => validate_constraint(table, &name.text, cx),
        AlterAction::AlterConstraint { name, deferral } => {
            let mut changed = table.clone();
            match changed.foreign_keys.iter_mut().find(|k| k.name == name.text) {
                Some(key) => key.deferral = *deferral,
                None => return Err(other_constraint(table, &name.text, "a foreign key constraint")),
            }
            cx.change.put_table(changed).map(|_| ())
        }
        AlterAction::Options(_) | AlterAction::ColumnOptions { .. } => {
            Err(SqlError::internal("options are foreign tables' alone"))
        }
        AlterAction::Unsupported(words) => Err(SqlError::unsupported(format!("ALTER TABLE ... {words}"))),
    }
}

fn find<'t>(table: &'t Table, name: &Name) -> Result<(usize, &'t Column)> {
    table.column(&name.text).ok_or_else(|| missing_column(table, &name.text))
}

fn missing_column(table: &Table, name: &str) -> SqlError {
    SqlError::new(state::UNDEFINED_COLUMN, format!("column \"{name}\" of relation \"{}\" does not exist", table.name))
}

fn identity_error(column: &Column, table: &Table) -> SqlError {
    let message = format!("column \"{}\" of relation \"{}\" is an identity column", column.name, table.name);
    SqlError::new(state::SYNTAX_ERROR, message)
}

/// Changes one column's definition.
fn edit(
    table: &Table,
    name: &Name,
    cx: &mut DdlCx<'_>,
    f: impl FnOnce(&mut Column, &DdlCx<'_>) -> Result<()>,
) -> Result<()> {
    let attnum = find(table, name)?.1.attnum;
    let mut table = table.clone();
    if let Some(slot) = table.slots.iter_mut().find(|c| c.attnum == attnum) {
        f(slot, cx)?;
    }
    cx.change.put_table(table).map(|_| ())
}

fn add_column(mut table: Table, def: &ColumnDef, if_not_exists: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    if table.column(&def.name.text).is_some() {
        let message = format!("column \"{}\" of relation \"{}\" already exists", def.name.text, table.name);
        if if_not_exists {
            let report = SqlError::new(state::DUPLICATE_COLUMN, format!("{message}, skipping"));
            cx.notices.push(Notice { severity: "NOTICE", report });
            return Ok(());
        }
        return Err(SqlError::new(state::DUPLICATE_COLUMN, message));
    }
    let old = table.clone();
    super::table::check_count(table.slots.len() + 1)?;
    let mut new = define(def, &table.name, table.slots.len() as i16 + 1, cx)?;
    attach_sequence(&mut new, table.oid, table.schema, &table.name, &[], cx)?;
    let empty = is_empty(&old, cx)?;
    if empty {
        cx.sees_all_rows(&old)?;
    }
    let identity = new.column.sequence.filter(|_| new.column.identity.is_some());
    let next_value = identity.map(|sequence| format!("nextval({sequence}::oid::regclass)"));
    let default = match new.column.default.as_ref().or(next_value.as_ref()).filter(|_| !empty) {
        Some(text) => Some(cx.bind(|env| bind::bind_default(text, &new.column.name, new.column.type_mod(), env))?),
        None => None,
    };
    let volatile = default.as_ref().is_some_and(is_volatile);
    if let Some(expr) = default.as_ref().filter(|_| !volatile) {
        let value = exec::eval(expr, &[], &cx.exec()?)?;
        new.column.missing = (!value.is_null()).then(|| io::to_text(&value, Type(new.column.ty), storage_cx()));
    }
    let position = table.width();
    table.slots.push(new.column.clone());
    if new.column.not_null && !empty && !volatile && new.column.missing.is_none() {
        return Err(contains_nulls(&table, position, cx));
    }
    let mut after = Change::new(cx.catalog().clone(), 0);
    after.put_table(table.clone())?;
    view::refuse_broken(table.oid, after.catalog(), "a new column", cx)?;
    let table = cx.change.put_table(table)?;
    if let Some(expr) = default.filter(|_| volatile) {
        let (prepared, exec_cx) = (exec::prepare(&expr, &PlanCx::new(cx.session))?, cx.exec()?);
        rewrite(&old, &table, cx, |mut row| {
            row.push(prepared.eval(&[], &exec_cx)?);
            if new.column.not_null && row[position].is_null() {
                return Err(contains_nulls(&table, position, cx));
            }
            Ok(row)
        })?;
    }
    for (name, check) in &new.checks {
        let mut table = current(table.oid, cx)?;
        let def = add_check(&mut table, name.clone(), check, cx)?;
        let table = cx.change.put_table(table)?;
        check_rows(&table, &def, cx)?;
    }
    for (name, deferral) in &new.uniques {
        add_unique(current(table.oid, cx)?, name.clone(), vec![new.column.attnum], *deferral, cx)?;
    }
    if let Some((name, deferral, _)) = new.primary {
        add_primary(&current(table.oid, cx)?, name, vec![new.column.attnum], deferral, cx)?;
    }
    for (name, references, deferral) in &new.references {
        let columns = vec![def.name.clone()];
        let written = Written { name: name.clone(), columns, references, deferral: *deferral };
        foreign_key::add(&current(table.oid, cx)?, &written, Rows::Check, cx)?;
    }
    Ok(())
}

/// Whether two evaluations may differ. What is not looked into counts as such.
fn is_volatile(expr: &Expr) -> bool {
    any(expr, &mut |e| match &e.kind {
        ExprKind::Call { func, .. } => func.volatility == Volatility::Volatile,
        ExprKind::Subquery(_) | ExprKind::SetCall { .. } => true,
        _ => false,
    })
}

fn drop_column(table: &Table, name: &Name, if_exists: bool, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    let Some((position, column)) = table.column(&name.text) else {
        let missing = missing_column(table, &name.text);
        if if_exists {
            cx.notices.push(Notice::new(format!("{}, skipping", missing.message())));
            return Ok(());
        }
        return Err(missing);
    };
    let attnum = column.attnum;
    let mut new = table.clone();
    // Checks that read the column go with it.
    let fields = table.fields();
    new.checks.retain(|check| {
        let trace = cx.bind(|env| bind::trace_expr(bind::Clause::Check, &check.expr, &fields, Type::BOOL.plain(), env));
        trace.is_ok_and(|t| !t.reads(table.oid, attnum))
    });
    new.indexes.retain(|i| i.columns.iter().all(|c| c.attnum != attnum));
    new.foreign_keys.retain(|k| !k.columns.contains(&attnum));
    let loses_key = new.primary_key.as_ref().is_some_and(|k| k.columns.contains(&attnum));
    if loses_key {
        new.primary_key = None;
    }
    for slot in new.slots.iter_mut().filter(|c| c.attnum == attnum) {
        *slot = Column {
            name: format!("........pg.dropped.{attnum}........"),
            dropped: true,
            options: Vec::new(),
            not_null: false,
            default: None,
            identity: None,
            sequence: None,
            missing: None,
            comment: None,
            ..slot.clone()
        };
    }
    let mut after = Change::new(cx.catalog().clone(), 0);
    after.put_table(new.clone())?;
    let views = view::broken(table.oid, after.catalog(), cx);
    if !views.is_empty() {
        let what =
            format!("column {} of table {}", super::quote_identifier(&name.text), super::quote_identifier(&table.name));
        drop::drop_views(&views, &what, cascade, cx)?;
    }
    let mut needing = foreign_key::dependents(table.oid, |k| k.referenced.contains(&attnum), cx);
    // Its own foreign keys go with the column they are of; those that only refer to it do not.
    needing.retain(|(t, k)| t.oid != table.oid || !k.columns.contains(&attnum));
    let what =
        format!("column {} of table {}", super::quote_identifier(&name.text), super::quote_identifier(&table.name));
    foreign_key::drop_dependents(&needing, &what, &what, cascade, cx)?;
    new.foreign_keys.retain(|k| !needing.iter().any(|(_, gone)| gone.oid == k.oid));
    for sequence in owned_sequences(table.oid, cx).into_iter().filter(|s| s.owner.is_some_and(|(_, a)| a == attnum)) {
        cx.change.drop_relation(sequence.oid)?;
    }
    let new = cx.change.put_table(new)?;
    if loses_key {
        rewrite(table, &new, cx, |mut row| {
            row.remove(position);
            Ok(row)
        })?;
    }
    Ok(())
}

fn rename_column(mut table: Table, from: &Name, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let attnum = find(&table, from)?.1.attnum;
    if table.column(to).is_some() {
        let message = format!("column \"{to}\" of relation \"{}\" already exists", table.name);
        return Err(SqlError::new(state::DUPLICATE_COLUMN, message));
    }
    let before = cx.catalog().clone();
    let readers = view::readers(table.oid, &before);
    let old_fields = table.fields();
    for slot in table.slots.iter_mut().filter(|c| c.attnum == attnum) {
        slot.name = to.to_owned();
    }
    let mut renamed = Change::new(before.clone(), 0);
    renamed.put_table(table.clone())?;
    for check in &mut table.checks {
        let trace =
            cx.bind(|env| bind::trace_expr(bind::Clause::Check, &check.expr, &old_fields, Type::BOOL.plain(), env))?;
        check.expr = trace.renamed(&before, renamed.catalog());
    }
    cx.change.put_table(table)?;
    view::follow(&readers, &before, cx)
}

/// VALIDATE CONSTRAINT.
fn validate_constraint(table: &Table, name: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let Some(at) = table.checks.iter().position(|c| c.name == name) else {
        if !table.foreign_keys.iter().any(|k| k.name == name) {
            return Err(other_constraint(table, name, "a foreign key or check constraint"));
        }
        return foreign_key::validate(table, name, cx);
    };
    if !table.checks[at].not_valid {
        return Ok(());
    }
    let mut changed = table.clone();
    changed.checks[at].not_valid = false;
    let table = cx.change.put_table(changed)?;
    check_rows(&table, &table.checks[at], cx)
}

/// The error for a constraint that is not of the kind asked for, or not there.
fn other_constraint(table: &Table, name: &str, wanted: &str) -> SqlError {
    if !has_constraint(table, name) {
        return missing_constraint(table, name);
    }
    let message = format!("constraint \"{name}\" of relation \"{}\" is not {wanted}", table.name);
    SqlError::new(state::WRONG_OBJECT_TYPE, message)
}

fn missing_constraint(table: &Table, name: &str) -> SqlError {
    SqlError::new(
        state::UNDEFINED_OBJECT,
        format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name),
    )
}

fn rename_constraint(mut table: Table, from: &str, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    if !has_constraint(&table, from) {
        return Err(SqlError::new(
            state::UNDEFINED_OBJECT,
            format!("constraint \"{from}\" for table \"{}\" does not exist", table.name),
        ));
    }
    if has_constraint(&table, to) {
        let message = format!("constraint \"{to}\" for relation \"{}\" already exists", table.name);
        return Err(SqlError::new(state::DUPLICATE_OBJECT, message));
    }
    let index =
        table.primary_key.iter().map(|k| (k.oid, &k.name)).chain(table.indexes.iter().map(|i| (i.oid, &i.name)));
    if let Some(oid) = index.clone().find(|(_, name)| *name == from).map(|(oid, _)| oid) {
        if cx.catalog().relation(table.schema, to).is_some() {
            return Err(SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{to}\" already exists")));
        }
        return rename_index(&table, oid, to, cx);
    }
    table.checks.iter_mut().filter(|c| c.name == from).for_each(|c| c.name = to.to_owned());
    table.foreign_keys.iter_mut().filter(|k| k.name == from).for_each(|k| k.name = to.to_owned());
    table.checks.sort_by(|a, b| a.name.cmp(&b.name));
    cx.change.put_table(table).map(|_| ())
}

fn add_constraint(table: &Table, constraint: &Constraint, cx: &mut DdlCx<'_>) -> Result<()> {
    check_flags(constraint)?;
    let name = constraint.name.as_ref().map(|n| n.text.clone());
    if let Some(name) = name.as_ref().filter(|n| has_constraint(table, n)) {
        let message = format!("constraint \"{name}\" for relation \"{}\" already exists", table.name);
        return Err(SqlError::new(state::DUPLICATE_OBJECT, message));
    }
    match &constraint.kind {
        ConstraintKind::Check(check) => {
            let mut table = table.clone();
            let def = add_check(&mut table, name, check, cx)?;
            table.checks.iter_mut().filter(|c| c.oid == def.oid).for_each(|c| c.not_valid = constraint.not_valid);
            let table = cx.change.put_table(table)?;
            if constraint.not_valid { Ok(()) } else { check_rows(&table, &def, cx) }
        }
        ConstraintKind::PrimaryKey { columns, .. } => {
            add_primary(table, name, key_columns(table, columns, "primary key")?, constraint.deferral, cx)
        }
        ConstraintKind::Unique { columns, .. } => {
            add_unique(table.clone(), name, key_columns(table, columns, "unique")?, constraint.deferral, cx)
        }
        ConstraintKind::ForeignKey { columns, references } => {
            let (columns, deferral) = (columns.clone(), constraint.deferral);
            let rows = if constraint.not_valid { Rows::Leave } else { Rows::Check };
            foreign_key::add(table, &Written { name, columns, references, deferral }, rows, cx)
        }
        ConstraintKind::UsingIndex { .. } if !constraint.deferral.is_never() => {
            Err(SqlError::unsupported("DEFERRABLE with USING INDEX"))
        }
        ConstraintKind::UsingIndex { index, primary: false } => {
            let mut table = table.clone();
            let missing = || SqlError::new(state::UNDEFINED_OBJECT, format!("index \"{}\" does not exist", index.text));
            let found = table.indexes.iter_mut().find(|i| i.name == index.text).ok_or_else(missing)?;
            if !found.unique {
                return Err(SqlError::new(
                    state::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is not a unique index", index.text),
                )
                .detail("Cannot create a primary key or unique constraint using such an index."));
            }
            found.constraint = true;
            if let Some(name) = name {
                found.name = name;
            }
            cx.change.put_table(table).map(|_| ())
        }
        ConstraintKind::UsingIndex { primary: true, .. } => Err(SqlError::unsupported("PRIMARY KEY USING INDEX")),
        ConstraintKind::Exclude => Err(SqlError::unsupported("this constraint")),
    }
}

fn add_unique(
    mut table: Table,
    name: Option<String>,
    columns: Vec<i16>,
    deferral: Deferral,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    let index = index::add_unique(&mut table, name, columns, deferral, cx)?;
    let table = cx.change.put_table(table)?;
    fill_index(&table, &index, cx)
}

/// A new primary key moves every row to its new key.
fn add_primary(
    old: &Table,
    name: Option<String>,
    columns: Vec<i16>,
    deferral: Deferral,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    let mut table = old.clone();
    index::add_primary(&mut table, name, columns.clone(), deferral, cx)?;
    for attnum in columns {
        if let Some(position) = old.position(attnum)
            && !old.columns().nth(position).is_some_and(|c| c.not_null)
        {
            check_not_null(old, position, cx)?;
        }
    }
    let table = cx.change.put_table(table)?;
    match table.indexes.iter().find(|i| i.primary) {
        Some(index) => fill_index(&table, index, cx),
        None => rewrite(old, &table, cx, Ok),
    }
}

fn drop_constraint(table: &Table, name: &str, if_exists: bool, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    if !has_constraint(table, name) {
        let missing = missing_constraint(table, name);
        if if_exists {
            cx.notices.push(Notice::new(format!("{}, skipping", missing.message())));
            return Ok(());
        }
        return Err(missing);
    }
    let mut new = table.clone();
    new.checks.retain(|c| c.name != name);
    new.indexes.retain(|i| !(i.constraint && i.name == name));
    new.foreign_keys.retain(|k| k.name != name);
    drop_needing(table, &mut new, name, cascade, cx)?;
    let loses_key = new.primary_key.as_ref().is_some_and(|k| k.name == name);
    if loses_key {
        new.primary_key = None;
        // GROUP BY a primary key lets a view show the other columns.
        let mut after = Change::new(cx.catalog().clone(), 0);
        after.put_table(new.clone())?;
        let views = view::broken(table.oid, after.catalog(), cx);
        if !views.is_empty() {
            let quote = super::quote_identifier;
            let what = format!("constraint {} on table {}", quote(name), quote(&table.name));
            drop::drop_views(&views, &what, cascade, cx)?;
        }
    }
    let new = cx.change.put_table(new)?;
    if loses_key {
        rewrite(table, &new, cx, Ok)?;
    }
    Ok(())
}

/// Foreign keys that need the index of a constraint that goes.
fn drop_needing(table: &Table, new: &mut Table, name: &str, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    let primary = table.primary_key.iter().filter(|k| k.name == name).map(|k| k.oid);
    let index = primary.chain(table.indexes.iter().filter(|i| i.constraint && i.name == name).map(|i| i.oid)).next();
    let Some(index) = index else { return Ok(()) };
    let needing = foreign_key::dependents(table.oid, |k| k.index == index, cx);
    let (quoted, owner) = (super::quote_identifier(name), super::quote_identifier(&table.name));
    let what = format!("constraint {quoted} on table {owner}");
    foreign_key::drop_dependents(&needing, &what, &format!("index {quoted}"), cascade, cx)?;
    // Its own were dropped too.
    new.foreign_keys.retain(|k| !(k.table == table.oid && k.index == index));
    Ok(())
}

/// ALTER COLUMN TYPE: every row is written again with the converted value.
fn set_type(
    old: &Table,
    name: &Name,
    ty: &TypeName,
    using: Option<&crate::parse::ast::Expr>,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    let (position, column) = find(old, name)?;
    let (column, target) = (column.clone(), cx.bind(|env| bind::resolve_type(ty, cx.source, env))?);
    check_type(&column.name, target.ty)?;
    if column.identity.is_some() && !matches!(target.ty, Type::INT2 | Type::INT4 | Type::INT8) {
        let message = "identity column type must be smallint, integer, or bigint";
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
    }
    let type_word = crate::types::info::format_type(target.ty, target.typmod);
    let cannot = || {
        let message = format!("column \"{}\" cannot be cast automatically to type {type_word}", column.name);
        SqlError::new(state::DATATYPE_MISMATCH, message)
            .hint(format!("You might need to specify \"USING {}::{type_word}\".", column.name))
    };
    // Over the whole row; an assignment cast is over a row of just the value.
    let (convert, whole_row) = match using {
        Some(expr) => {
            let fields = old.fields();
            let to = Some((target, column.name.as_str()));
            (Some(cx.bind(|env| bind::bind_expr(bind::Clause::Using, expr, cx.source, &fields, to, env))?), true)
        }
        None if column.type_mod() == target => return Ok(()),
        None => {
            (Some(cx.bind(|env| bind::assignment_cast(column.type_mod(), target, env))?.ok_or_else(cannot)?), false)
        }
    };
    let mut new = old.clone();
    for slot in new.slots.iter_mut().filter(|c| c.attnum == column.attnum) {
        (slot.ty, slot.typmod, slot.missing) = (target.ty.0, target.typmod, None);
    }
    if let Some(text) = &column.default {
        cx.bind(|env| bind::bind_default(text, &column.name, target, env)).map_err(|_| {
            let message =
                format!("default for column \"{}\" cannot be cast automatically to type {type_word}", column.name);
            SqlError::new(state::DATATYPE_MISMATCH, message)
        })?;
    }
    let mut after = Change::new(cx.catalog().clone(), 0);
    after.put_table(new.clone())?;
    if let Some(view) = view::broken(old.oid, after.catalog(), cx).first() {
        return Err(SqlError::new(
            state::FEATURE_NOT_SUPPORTED,
            "cannot alter type of a column used by a view or rule",
        )
        .detail(format!("rule _RETURN on view {} depends on column \"{}\"", view.name, column.name)));
    }
    let new = cx.change.put_table(new)?;
    let Some(convert) = convert else { return foreign_key::recheck(new.oid, column.attnum, cx) };
    let (prepared, exec_cx) = (exec::prepare(&convert, &PlanCx::new(cx.session))?, cx.exec()?);
    rewrite(old, &new, cx, |mut row| {
        let value = if whole_row {
            prepared.eval(&row, &exec_cx)?
        } else {
            prepared.eval(std::slice::from_ref(&row[position]), &exec_cx)?
        };
        if value.is_null() && column.not_null {
            return Err(contains_nulls(&new, position, cx));
        }
        row[position] = value;
        Ok(row)
    })?;
    recheck(&new, cx)?;
    foreign_key::recheck(new.oid, column.attnum, cx)
}

/// Checks hold for the converted values too.
fn recheck(table: &Arc<Table>, cx: &DdlCx<'_>) -> Result<()> {
    let fields = table.fields();
    for check in table.checks.iter().filter(|c| !c.not_valid) {
        let expr = cx.bind(|env| bind::bind_check(&check.expr, &fields, env))?;
        let (prepared, exec_cx) = (exec::prepare(&expr, &PlanCx::new(cx.session))?, cx.exec()?);
        each_row(table, cx, |_, row: Vec<Datum>| {
            if is_true_or_null(&prepared.eval(&row, &exec_cx)?) {
                return Ok(());
            }
            let message =
                format!("check constraint \"{}\" of relation \"{}\" is violated by some row", check.name, table.name);
            Err(SqlError::new(state::CHECK_VIOLATION, message))
        })?;
    }
    Ok(())
}
