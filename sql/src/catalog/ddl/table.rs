//! CREATE TABLE, CREATE TABLE AS, TRUNCATE.

use std::sync::Arc;

use pgbee_engine::bee::{Direction, KeyRange};

use super::column::{NewColumn, attach_sequence, check_type, define};
use super::foreign::refuse_options;
use super::foreign_key::{self, Rows, Written};
use super::{DdlCx, index, sequence};
use crate::bind;
use crate::catalog::schema::{CheckDef, Column, Deferral, Index, Relation, Table};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::exec;
use crate::ir::{Expr, ExprKind};
use crate::parse::ast::{
    Constraint, ConstraintKind, CreateTable, CreateTableAs, Name, Pos, QName, StatementKind, TableElement, TextExpr,
};
use crate::plan::expr::children;
use crate::plan::{self, PlanCx};
use crate::session::Notice;
use crate::types::Type;
use crate::write::insert::Inserter;
use crate::write::sequence::SequenceState;

const COLUMNS_MAX: usize = 1600;

/// CREATE TABLE.
pub(super) fn create(create: &CreateTable, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    refuse(create.temporary, create.unlogged, create.unsupported.as_deref())?;
    let schema = cx.creation_schema(&create.name)?;
    let name = create.name.last().to_owned();
    if cx.is_taken(schema, &name, create.if_not_exists)? {
        return Ok("CREATE TABLE");
    }
    cx.change.claim_name(schema, &name, true)?;
    let mut table = blank(cx.change.new_oid(), schema, name);
    let mut columns: Vec<NewColumn> = Vec::new();
    let mut likes = Vec::new();
    for element in &create.elements {
        match element {
            TableElement::Column(def) => {
                refuse_options(def, &table.name)?;
                columns.push(define(def, &table.name, columns.len() as i16 + 1, cx)?)
            }
            TableElement::Like { table: source, including } => {
                let source =
                    cx.table(source, false)?.ok_or_else(|| SqlError::internal("a missing table was no error"))?;
                let first = columns.len();
                columns.extend(copy_columns(&source, including, first));
                likes.push((source, including.clone()));
            }
            TableElement::Constraint(_) => {}
        }
    }
    check_columns(columns.iter().map(|c| c.column.name.as_str()))?;
    // Each sequence exists before the next one's name is chosen, so they cannot collide; the table's own name is taken too.
    let taken = [table.name.clone()];
    for column in &mut columns {
        attach_sequence(column, table.oid, schema, &table.name, &taken, cx)?;
    }
    table.slots = columns.iter().map(|c| c.column.clone()).collect();
    for column in &columns {
        for (name, check) in &column.checks {
            add_check(&mut table, name.clone(), check, cx)?;
        }
    }
    let constraints =
        || create.elements.iter().filter_map(|e| if let TableElement::Constraint(c) = e { Some(&**c) } else { None });
    for constraint in constraints() {
        check_flags(constraint)?;
        if let ConstraintKind::Check(check) = &constraint.kind {
            add_check(&mut table, constraint.name.as_ref().map(|n| n.text.clone()), check, cx)?;
        }
    }
    add_keys(&mut table, &columns, constraints(), cx)?;
    for (source, including) in &likes {
        copy_constraints(&mut table, source, including, cx)?;
    }
    let table = cx.change.put_table(table)?;
    // Bound only now that the table is there: an expression may name it.
    for check in &table.checks {
        cx.bind(|env| bind::bind_check(&check.expr, &table.fields(), env))?;
    }
    add_foreign_keys(table.oid, &create.elements, &columns, cx)?;
    Ok("CREATE TABLE")
}

/// Foreign keys, in the order written. They may refer to the table itself, which is there by now.
fn add_foreign_keys(table: u32, elements: &[TableElement], columns: &[NewColumn], cx: &mut DdlCx<'_>) -> Result<()> {
    for element in elements {
        match element {
            TableElement::Column(def) => {
                let new = columns.iter().find(|c| c.column.name == def.name.text);
                for (name, references, deferral) in new.iter().flat_map(|c| &c.references) {
                    let columns = vec![def.name.clone()];
                    let written = Written { name: name.clone(), columns, references, deferral: *deferral };
                    foreign_key::add(&current(table, cx)?, &written, Rows::None, cx)?;
                }
            }
            TableElement::Constraint(constraint) => {
                if let ConstraintKind::ForeignKey { columns, references } = &constraint.kind {
                    let name = constraint.name.as_ref().map(|n| n.text.clone());
                    let (columns, deferral) = (columns.clone(), constraint.deferral);
                    let written = Written { name, columns, references, deferral };
                    foreign_key::add(&current(table, cx)?, &written, Rows::None, cx)?;
                }
            }
            TableElement::Like { .. } => {}
        }
    }
    Ok(())
}

/// A table as it is in this statement.
pub(super) fn current(oid: u32, cx: &DdlCx<'_>) -> Result<Table> {
    match cx.catalog().by_oid(oid) {
        Some(Relation::Table(t)) => Ok(Table::clone(t)),
        _ => Err(SqlError::internal("the changed table is gone")),
    }
}

fn refuse(temporary: bool, unlogged: bool, unsupported: Option<&str>) -> Result<()> {
    if temporary {
        return Err(SqlError::unsupported("CREATE TEMPORARY TABLE"));
    }
    if unlogged {
        return Err(SqlError::unsupported("UNLOGGED"));
    }
    unsupported.map_or(Ok(()), |clause| Err(SqlError::unsupported(clause)))
}

pub(super) fn blank(oid: u32, schema: u32, name: String) -> Table {
    Table {
        oid,
        schema,
        name,
        slots: Vec::new(),
        primary_key: None,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        foreign: None,
        comment: None,
    }
}

/// Refuses more columns than a table or view may have; dropped ones count, for their numbers are not given again.
pub(super) fn check_count(columns: usize) -> Result<()> {
    if columns > COLUMNS_MAX {
        return Err(SqlError::new(state::TOO_MANY_COLUMNS, format!("tables can have at most {COLUMNS_MAX} columns")));
    }
    Ok(())
}

pub(super) fn check_columns<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    check_count(names.clone().count())?;
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(SqlError::new(state::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
    }
    Ok(())
}

/// Refuses what a constraint asks for and we do not keep.
pub(super) fn check_flags(constraint: &Constraint) -> Result<()> {
    match &constraint.kind {
        ConstraintKind::Exclude => Err(SqlError::unsupported("EXCLUDE")),
        ConstraintKind::Unique { nulls_not_distinct: true, .. } => Err(SqlError::unsupported("NULLS NOT DISTINCT")),
        ConstraintKind::Unique { include, .. } | ConstraintKind::PrimaryKey { include, .. } if !include.is_empty() => {
            Err(SqlError::unsupported("INCLUDE"))
        }
        _ => Ok(()),
    }
}

/// Adds a CHECK, named by PostgreSQL's rule: after the one column it uses, if it is one.
pub(super) fn add_check(
    table: &mut Table,
    name: Option<String>,
    check: &TextExpr,
    cx: &mut DdlCx<'_>,
) -> Result<CheckDef> {
    let fields = table.fields();
    let bool_target = Some((Type::BOOL.plain(), "check"));
    let bound =
        cx.bind(|env| bind::bind_expr(bind::Clause::Check, &check.expr, cx.source, &fields, bool_target, env))?;
    let taken: Vec<String> = table.checks.iter().map(|c| c.name.clone()).collect();
    let name = match name {
        Some(name) if taken.contains(&name) => {
            return Err(SqlError::new(
                state::DUPLICATE_OBJECT,
                format!("constraint \"{name}\" for relation \"{}\" already exists", table.name),
            ));
        }
        Some(name) => name,
        None => {
            let mut used = Vec::new();
            columns_read(&bound, &mut used);
            let column = if let [only] = used[..] { Some(fields[only].name.to_string()) } else { None };
            cx.choose_constraint(table.schema, &table.name, column.as_deref(), "check", &taken)
        }
    };
    let expr = cx.bind(|env| bind::written_out(bind::Clause::Check, &check.text, &fields, Type::BOOL.plain(), env))?;
    let def = CheckDef { oid: cx.change.new_oid(), name, expr, not_valid: false };
    table.checks.push(def.clone());
    table.checks.sort_by(|a, b| a.name.cmp(&b.name)); // the order they are checked in
    Ok(def)
}

/// Adds the columns of its row that an expression reads, each once.
fn columns_read(e: &Expr, used: &mut Vec<usize>) {
    match &e.kind {
        ExprKind::Column(i) if !used.contains(i) => used.push(*i),
        // Its cast counts by a row of its own: the element.
        ExprKind::ArrayCoerce { input, .. } => columns_read(input, used),
        _ => children(e, &mut |child| columns_read(child, used)),
    }
}

/// The primary key first, then UNIQUEs; one that says the same as another without a name of its own is left out.
fn add_keys<'c>(
    table: &mut Table,
    columns: &[NewColumn],
    constraints: impl Iterator<Item = &'c Constraint>,
    cx: &mut DdlCx<'_>,
) -> Result<()> {
    let mut primary: Vec<(Option<String>, Vec<i16>, Deferral, Pos)> = Vec::new();
    let mut uniques: Vec<(Option<String>, Vec<i16>, Deferral)> = Vec::new();
    for new in columns {
        let attnum = new.column.attnum;
        primary.extend(new.primary.iter().map(|(name, deferral, pos)| (name.clone(), vec![attnum], *deferral, *pos)));
        uniques.extend(new.uniques.iter().map(|(name, deferral)| (name.clone(), vec![attnum], *deferral)));
    }
    for constraint in constraints {
        let given = constraint.name.as_ref().map(|n| n.text.clone());
        match &constraint.kind {
            ConstraintKind::PrimaryKey { columns, .. } => {
                let columns = key_columns(table, columns, "primary key")?;
                primary.push((given, columns, constraint.deferral, constraint.pos));
            }
            ConstraintKind::Unique { columns, .. } => {
                uniques.push((given, key_columns(table, columns, "unique")?, constraint.deferral));
            }
            _ => {}
        }
    }
    if let Some((.., second)) = primary.get(1) {
        return Err(index::multiple_primary_keys(&table.name).at(Some(second + 1)));
    }
    for (name, columns, deferral, _) in primary {
        index::add_primary(table, name, columns, deferral, cx)?;
    }
    for (name, columns, deferral) in uniques {
        let same = |i: &Index| i.deferral == deferral && i.columns.iter().map(|c| c.attnum).eq(columns.iter().copied());
        let is_primary = deferral.is_never() && table.primary_key.as_ref().is_some_and(|k| k.columns == columns);
        if name.is_none() && (is_primary || table.indexes.iter().any(same)) {
            continue;
        }
        index::add_unique(table, name, columns, deferral, cx)?;
    }
    Ok(())
}

/// Attribute numbers of the columns a key names.
pub(super) fn key_columns(table: &Table, names: &[Name], what: &str) -> Result<Vec<i16>> {
    let mut attnums = Vec::new();
    for name in names {
        let missing =
            || SqlError::new(state::UNDEFINED_COLUMN, format!("column \"{}\" named in key does not exist", name.text));
        let attnum = table.column(&name.text).ok_or_else(missing)?.1.attnum;
        if attnums.contains(&attnum) {
            let message = format!("column \"{}\" appears twice in {what} constraint", name.text);
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message));
        }
        attnums.push(attnum);
    }
    Ok(attnums)
}

/// LIKE: the columns, and what of them `including` names.
fn copy_columns(source: &Table, including: &[String], first: usize) -> Vec<NewColumn> {
    let with = |what: &str| including.iter().any(|i| i == what);
    let copy = |(i, c): (usize, &Column)| {
        let identity = c.identity.filter(|_| with("identity"));
        NewColumn {
            column: Column {
                attnum: (first + i) as i16 + 1,
                default: c.default.clone().filter(|_| with("defaults")),
                identity,
                sequence: None,
                missing: None,
                options: Vec::new(),
                comment: c.comment.clone().filter(|_| with("comments")),
                ..c.clone()
            },
            sequence: identity.map(|_| Vec::new()),
            primary: None,
            uniques: Vec::new(),
            references: Vec::new(),
            checks: Vec::new(),
        }
    };
    source.columns().enumerate().map(copy).collect()
}

/// LIKE: checks and indexes. Names of checks are kept, those of indexes chosen anew.
fn copy_constraints(table: &mut Table, source: &Table, including: &[String], cx: &mut DdlCx<'_>) -> Result<()> {
    let with = |what: &str| including.iter().any(|i| i == what);
    if with("constraints") {
        for check in &source.checks {
            table.checks.push(CheckDef { oid: cx.change.new_oid(), ..check.clone() });
        }
    }
    if !with("indexes") {
        return Ok(());
    }
    let attnum = |table: &Table, old: i16| {
        let name = source.slots.iter().find(|c| c.attnum == old).map(|c| c.name.as_str());
        name.and_then(|n| table.column(n)).map_or(0, |(_, c)| c.attnum)
    };
    if let Some(key) = &source.primary_key {
        let columns = key.columns.iter().map(|c| attnum(table, *c)).collect();
        index::add_primary(table, None, columns, Deferral::Never, cx)?;
    }
    for old in &source.indexes {
        let columns: Vec<i16> = old.columns.iter().map(|c| attnum(table, c.attnum)).collect();
        if old.primary {
            index::add_primary(table, None, columns, old.deferral, cx)?;
            continue;
        }
        if old.constraint {
            index::add_unique(table, None, columns, old.deferral, cx)?;
            continue;
        }
        let mut new = old.clone();
        new.oid = cx.change.new_oid();
        new.columns.iter_mut().zip(columns).for_each(|(c, attnum)| c.attnum = attnum);
        new.name = index::choose_name(table, &new.columns, "idx", cx);
        table.indexes.push(new);
    }
    Ok(())
}

/// CREATE TABLE AS.
pub(super) fn create_as(create: &CreateTableAs, cx: &mut DdlCx<'_>) -> Result<String> {
    if create.materialized_view {
        return Err(SqlError::unsupported("CREATE MATERIALIZED VIEW"));
    }
    refuse(create.temporary, false, create.unsupported.as_deref())?;
    let StatementKind::Query(query) = &create.statement else {
        return Err(SqlError::unsupported("CREATE TABLE AS EXECUTE"));
    };
    let schema = cx.creation_schema(&create.name)?;
    let name = create.name.last().to_owned();
    if cx.is_taken(schema, &name, create.if_not_exists)? {
        return Ok("CREATE TABLE AS".into());
    }
    let rel = cx.bind(|env| bind::bind_query(query, cx.source, env))?;
    if create.columns.len() > rel.schema.len() {
        return Err(SqlError::new(state::SYNTAX_ERROR, "too many column names were specified"));
    }
    let mut table = blank(cx.change.new_oid(), schema, name);
    for (i, field) in rel.schema.iter().enumerate() {
        let name = create.columns.get(i).map_or_else(|| field.name.to_string(), |n| n.text.clone());
        let ty = if field.ty.ty == Type::UNKNOWN { Type::TEXT.plain() } else { field.ty };
        check_type(&name, ty.ty)?;
        table.slots.push(Column::new(i as i16 + 1, name, ty));
    }
    check_columns(table.slots.iter().map(|c| c.name.as_str()))?;
    let table = cx.change.put_table(table)?;
    if !create.with_data {
        return Ok("CREATE TABLE AS".into());
    }
    let exec_cx = Arc::new(cx.exec()?);
    let physical = Arc::new(plan::plan(rel, &PlanCx::new(cx.session))?);
    let mut cursor = exec::open(&physical, exec_cx)?;
    let mut inserter = Inserter::bulk(&table, cx.txn, cx.session)?;
    while let Some(rows) = cursor.next_batch()? {
        for row in rows {
            inserter.insert(&row)?;
            cx.rows += 1;
        }
    }
    Ok(format!("SELECT {}", cx.rows))
}

/// TRUNCATE.
pub(super) fn truncate(
    names: &[QName],
    restart_identity: bool,
    cascade: bool,
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    let mut tables: Vec<Arc<Table>> = Vec::new();
    for name in names {
        let table = cx.table(name, false)?.ok_or_else(|| SqlError::internal("a missing table was no error"))?;
        if table.foreign.is_some() {
            let message = format!("cannot truncate foreign table \"{}\"", table.name);
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
        }
        if !tables.iter().any(|t| t.oid == table.oid) {
            tables.push(table);
        }
    }
    add_referring(&mut tables, cascade, cx)?;
    for table in &tables {
        cx.txn.refuse_pending(table.oid, &table.name, "TRUNCATE")?;
    }
    for table in &tables {
        let ranges = std::iter::once(keyspace::table_range(table.oid))
            .chain(table.indexes.iter().map(|i| keyspace::index_range(i.oid)));
        cx.sees_all_rows(table)?;
        for range in ranges {
            delete_all(range, cx)?;
        }
        if restart_identity {
            let owned = cx.catalog().relations.values().filter_map(|r| match r {
                Relation::Sequence(s) if s.owner.is_some_and(|(t, _)| t == table.oid) => Some((s.oid, s.start)),
                _ => None,
            });
            for (oid, start) in owned.collect::<Vec<_>>() {
                sequence::set_state(oid, SequenceState { last: start, called: false }, cx)?;
            }
        }
    }
    Ok("TRUNCATE TABLE")
}

/// Tables that refer to one of these are emptied with them, or stand in the way.
fn add_referring(tables: &mut Vec<Arc<Table>>, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    let mut at = 0;
    while at < tables.len() {
        let table = tables[at].clone();
        at += 1;
        for (child, _) in foreign_key::dependents(table.oid, |_| true, cx) {
            if tables.iter().any(|t| t.oid == child.oid) {
                continue;
            }
            if !cascade {
                let message = "cannot truncate a table referenced in a foreign key constraint";
                return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
                    .detail(format!("Table \"{}\" references \"{}\".", child.name, table.name))
                    .hint(format!(
                        "Truncate table \"{}\" at the same time, or use TRUNCATE ... CASCADE.",
                        child.name
                    )));
            }
            cx.notices.push(Notice::new(format!("truncate cascades to table \"{}\"", child.name)));
            tables.push(child);
        }
    }
    Ok(())
}

fn delete_all(range: KeyRange, cx: &DdlCx<'_>) -> Result<()> {
    let mut scan = cx.txn.with(|t| Ok(t.view()))?.scan_keys(range, Direction::Forward)?;
    let mut batch = Vec::new();
    while scan.next_batch(&mut batch, 1024)? > 0 {
        cx.session.check_cancel()?;
        cx.txn.with(|t| Ok(batch.drain(..).try_for_each(|(key, _)| t.delete_guarded(key))?))?;
    }
    Ok(())
}
