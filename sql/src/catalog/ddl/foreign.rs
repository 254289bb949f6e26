//! Foreign servers and foreign tables: CREATE, ALTER, DROP.
//!
//! A foreign table is a table of the catalog whose rows are elsewhere ([`Foreign`]): columns, checks, defaults, comments and views over it are as with
//! any other. It has no keys and no indexes. After each change its definition is read once as a scan would, so that what cannot be read is refused here.

use super::column::{NewColumn, attach_sequence, define};
use super::drop::{depended_on, drop_all, tell_cascade};
use super::names::quote_identifier;
use super::table::{add_check, blank, check_columns, check_flags};
use super::{DdlCx, view};
use crate::bind;
use crate::catalog::schema::{Foreign, Relation, Server, Table};
use crate::error::{Result, SqlError, state};
use crate::foreign::options::{self, Place};
use crate::foreign::{ForeignScan, Part, WRAPPER_NAME};
use crate::parse::ast::{
    AlterAction, ColumnConstraintKind, ColumnDef, Constraint, ConstraintKind, CreateServer, CreateTable,
    ForeignStatement, GenericOption, Name, OptionChange, Pos, QName, TableElement,
};
use crate::session::Notice;

/// Carries out a statement about foreign servers and tables.
pub(super) fn run(statement: &ForeignStatement, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    match statement {
        ForeignStatement::CreateServer(create) => create_server(create, cx),
        ForeignStatement::AlterServer { name, version, changes } => alter_server(name, version.as_ref(), changes, cx),
        ForeignStatement::CreateTable { table, server, options } => create_table(table, server, options, cx),
        ForeignStatement::Import(import) => super::import::run(import, cx),
    }
}

fn create_server(create: &CreateServer, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    const TAG: &str = "CREATE SERVER";
    let name = &create.name.text;
    if cx.catalog().server(name).is_some() {
        let message = format!("server \"{name}\" already exists");
        if create.if_not_exists {
            let report = SqlError::new(state::DUPLICATE_OBJECT, format!("{message}, skipping"));
            cx.notices.push(Notice { severity: "NOTICE", report });
            return Ok(TAG);
        }
        return Err(SqlError::new(state::DUPLICATE_OBJECT, message));
    }
    if create.wrapper.text != WRAPPER_NAME {
        let message = format!("foreign-data wrapper \"{}\" does not exist", create.wrapper.text);
        return Err(SqlError::new(state::UNDEFINED_OBJECT, message).hint("There is one: hyperbee."));
    }
    let options = options::given(&create.options, Place::Server)?;
    let oid = cx.change.new_oid();
    cx.change.put_server(Server {
        oid,
        name: name.clone(),
        kind: create.kind.clone(),
        version: create.version.clone(),
        options,
        comment: None,
    })?;
    Ok(TAG)
}

/// A server by name, to change it.
pub(super) fn server(name: &str, cx: &DdlCx<'_>) -> Result<Server> {
    let missing = || SqlError::new(state::UNDEFINED_OBJECT, format!("server \"{name}\" does not exist"));
    Ok(Server::clone(cx.catalog().server(name).ok_or_else(missing)?))
}

fn alter_server(
    name: &Name,
    version: Option<&Option<String>>,
    changes: &[OptionChange],
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    let mut server = server(&name.text, cx)?;
    if let Some(version) = version {
        server.version.clone_from(version);
    }
    server.options = options::changed(&server.options, changes, Place::Server)?;
    let oid = server.oid;
    cx.change.put_server(server)?;
    // Its tables must still find their bee.
    for table in tables_of(oid, cx) {
        check(&table, cx)?;
    }
    Ok("ALTER SERVER")
}

/// ALTER SERVER ... RENAME TO.
pub(super) fn rename_server(name: &str, to: &str, cx: &mut DdlCx<'_>) -> Result<()> {
    let found = server(name, cx)?;
    if cx.catalog().server(to).is_some() {
        return Err(SqlError::new(state::DUPLICATE_OBJECT, format!("server \"{to}\" already exists")));
    }
    cx.change.put_server(Server { name: to.to_owned(), ..found })
}

/// COMMENT ON SERVER.
pub(super) fn comment_server(name: &str, comment: Option<String>, cx: &mut DdlCx<'_>) -> Result<()> {
    let found = server(name, cx)?;
    cx.change.put_server(Server { comment, ..found })
}

/// The foreign tables of a server, by oid.
fn tables_of(server: u32, cx: &DdlCx<'_>) -> Vec<Table> {
    let of_server = cx.catalog().relations.values().filter_map(|r| match r {
        Relation::Table(t) if t.foreign.as_ref().is_some_and(|f| f.server == server) => Some(Table::clone(t)),
        _ => None,
    });
    let mut found: Vec<Table> = of_server.collect();
    found.sort_by_key(|t| t.oid);
    found
}

/// DROP SERVER.
pub(super) fn drop_servers(names: &[QName], if_exists: bool, cascade: bool, cx: &mut DdlCx<'_>) -> Result<()> {
    for name in names {
        let name = name.last();
        let Some(server) = cx.catalog().server(name).cloned() else {
            let message = format!("server \"{name}\" does not exist");
            if if_exists {
                cx.notices.push(Notice::new(format!("{message}, skipping")));
                continue;
            }
            return Err(SqlError::new(state::UNDEFINED_OBJECT, message));
        };
        let tables: Vec<Relation> = tables_of(server.oid, cx).into_iter().map(|t| Relation::Table(t.into())).collect();
        // Who depends on whom, each thing once, what stands on a table behind it.
        let what = format!("server {}", quote_identifier(name));
        let (mut seen, mut words, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for table in &tables {
            dependents(table, &what, &mut seen, &mut words, &mut lines, cx);
        }
        if !cascade && !lines.is_empty() {
            return Err(depended_on(&what, &lines, names.len() == 1));
        }
        tell_cascade(&words, cx);
        drop_all(tables, true, Some(""), cx)?;
        cx.change.drop_server(server.oid)?;
    }
    Ok(())
}

fn dependents(
    relation: &Relation,
    on: &str,
    seen: &mut Vec<u32>,
    words: &mut Vec<String>,
    lines: &mut Vec<String>,
    cx: &DdlCx<'_>,
) {
    if seen.contains(&relation.oid()) {
        return;
    }
    seen.push(relation.oid());
    let word = view::describe(relation, cx);
    lines.push(format!("{word} depends on {on}"));
    words.push(word.clone());
    for reader in view::readers(relation.oid(), cx.catalog()) {
        dependents(&Relation::View(reader), &word, seen, words, lines, cx);
    }
}

fn create_table(
    create: &CreateTable,
    server_name: &Name,
    given: &[GenericOption],
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    const TAG: &str = "CREATE FOREIGN TABLE";
    for element in &create.elements {
        refuse_element(element)?;
    }
    let schema = cx.creation_schema(&create.name)?;
    let name = create.name.last().to_owned();
    if cx.is_taken(schema, &name, create.if_not_exists)? {
        return Ok(TAG);
    }
    let server = server(&server_name.text, cx)?.oid;
    let options = options::given(given, Place::Table)?;
    if let Some(option) = ["schema_name", "table_name"].into_iter().find(|o| options::get(&options, o).is_some()) {
        return Err(SqlError::unsupported(format!("CREATE FOREIGN TABLE with option \"{option}\""))
            .hint("IMPORT FOREIGN SCHEMA makes foreign tables of the tables of a database that pgbee wrote."));
    }
    let mut table = blank(cx.change.new_oid(), schema, name);
    let mut columns: Vec<NewColumn> = Vec::new();
    for element in &create.elements {
        if let TableElement::Column(def) = element {
            columns.push(define(def, &table.name, columns.len() as i16 + 1, cx)?);
        }
    }
    check_columns(columns.iter().map(|c| c.column.name.as_str()))?;
    let taken = [table.name.clone()];
    for column in &mut columns {
        attach_sequence(column, table.oid, schema, &table.name, &taken, cx)?;
    }
    table.slots = columns.iter().map(|c| c.column.clone()).collect();
    for column in &columns {
        for (name, expr) in &column.checks {
            add_check(&mut table, name.clone(), expr, cx)?;
        }
    }
    for element in &create.elements {
        if let TableElement::Constraint(constraint) = element {
            check_flags(constraint)?;
            if let ConstraintKind::Check(expr) = &constraint.kind {
                add_check(&mut table, constraint.name.as_ref().map(|n| n.text.clone()), expr, cx)?;
            }
        }
    }
    table.foreign = Some(Box::new(Foreign { server, options, remote: None }));
    check(&table, cx)?;
    let table = cx.change.put_table(table)?;
    for expr in &table.checks {
        cx.bind(|env| bind::bind_check(&expr.expr, &table.fields(), env))?;
    }
    Ok(TAG)
}

/// Reads the definition as a scan will.
pub(super) fn check(table: &Table, cx: &DdlCx<'_>) -> Result<()> {
    ForeignScan::planned(table, cx.catalog()).map(|_| ())
}

fn refuse_element(element: &TableElement) -> Result<()> {
    match element {
        TableElement::Like { table, .. } => {
            Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, "LIKE is not supported for creating foreign tables")
                .at(Some(table.pos + 1)))
        }
        TableElement::Constraint(constraint) => refuse_constraint(constraint),
        TableElement::Column(def) => refuse_column(def),
    }
}

fn refuse_column(def: &ColumnDef) -> Result<()> {
    for constraint in &def.constraints {
        match constraint.kind {
            ColumnConstraintKind::PrimaryKey => return Err(no_constraint("primary key", constraint.pos)),
            ColumnConstraintKind::Unique { .. } => return Err(no_constraint("unique", constraint.pos)),
            ColumnConstraintKind::References(_) => return Err(no_constraint("foreign key", constraint.pos)),
            _ => {}
        }
    }
    Ok(())
}

fn refuse_constraint(constraint: &Constraint) -> Result<()> {
    Err(match constraint.kind {
        ConstraintKind::Check(_) => return Ok(()),
        ConstraintKind::ForeignKey { .. } => no_constraint("foreign key", constraint.pos),
        ConstraintKind::Unique { .. } | ConstraintKind::UsingIndex { primary: false, .. } => {
            no_constraint("unique", constraint.pos)
        }
        ConstraintKind::PrimaryKey { .. } | ConstraintKind::UsingIndex { primary: true, .. } => {
            no_constraint("primary key", constraint.pos)
        }
        ConstraintKind::Exclude => no_constraint("exclusion", constraint.pos),
    })
}

fn no_constraint(what: &str, pos: Pos) -> SqlError {
    let message = format!("{what} constraints are not supported on foreign tables");
    SqlError::new(state::FEATURE_NOT_SUPPORTED, message).at(Some(pos + 1))
}

/// Column options on what is no foreign table.
pub(super) fn refuse_options(def: &ColumnDef, table: &str) -> Result<()> {
    if def.options.is_empty() {
        return Ok(());
    }
    Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{table}\" is not a foreign table")))
}

/// What an action of ALTER TABLE may do to a table, seen before it is done. True: it was done here.
pub(super) fn alter_action(table: &Table, action: &AlterAction, cx: &mut DdlCx<'_>) -> Result<bool> {
    let Some(foreign) = &table.foreign else {
        return match action {
            AlterAction::Options(_) => Err(not_for_tables("OPTIONS", table)),
            AlterAction::ColumnOptions { .. } => Err(not_for_tables("ALTER COLUMN ... OPTIONS", table)),
            AlterAction::AddColumn { column, .. } => refuse_options(column, &table.name).map(|()| false),
            _ => Ok(false),
        };
    };
    let mut new = table.clone();
    match action {
        AlterAction::Options(changes) => {
            let options = options::changed(&foreign.options, changes, Place::Table)?;
            new.foreign = Some(Box::new(Foreign { options, ..Foreign::clone(foreign) }));
        }
        AlterAction::ColumnOptions { column, changes } => {
            let slot = slot(&mut new, column)?;
            slot.options = options::changed(&slot.options, changes, Place::Column)?;
        }
        AlterAction::RenameColumn { from, .. } => {
            // What the column shows was told by its name; now its options tell it.
            let remote = foreign.remote.is_some();
            let slot = slot(&mut new, from)?;
            if !remote && slot.options.is_empty() {
                slot.options.push(match Part::of(slot) {
                    Part::Key => ("column".into(), "key".into()),
                    Part::Value => ("column".into(), "value".into()),
                    Part::Seq => ("column".into(), "seq".into()),
                    Part::Member(name) => ("member".into(), name.to_string()),
                });
            }
            cx.change.put_table(new)?;
            return Ok(false);
        }
        AlterAction::AddConstraint(constraint) => return refuse_constraint(constraint).map(|()| false),
        AlterAction::AddColumn { column, .. } if foreign.remote.is_none() => {
            return refuse_column(column).map(|()| false);
        }
        AlterAction::AddColumn { .. } | AlterAction::DropColumn { .. } | AlterAction::SetType { .. }
            if foreign.remote.is_some() =>
        {
            return Err(SqlError::unsupported("changing the columns of an imported foreign table"));
        }
        AlterAction::AddIdentity { .. } => return Err(SqlError::unsupported("identity columns of foreign tables")),
        _ => return Ok(false),
    }
    check(&new, cx)?;
    cx.change.put_table(new)?;
    Ok(true)
}

fn slot<'t>(table: &'t mut Table, name: &Name) -> Result<&'t mut crate::catalog::schema::Column> {
    let message = format!("column \"{}\" of relation \"{}\" does not exist", name.text, table.name);
    let found = table.slots.iter_mut().find(|c| !c.dropped && c.name == name.text);
    found.ok_or_else(|| SqlError::new(state::UNDEFINED_COLUMN, message))
}

fn not_for_tables(action: &str, table: &Table) -> SqlError {
    let message = format!("ALTER action {action} cannot be performed on relation \"{}\"", table.name);
    SqlError::new(state::WRONG_OBJECT_TYPE, message).detail("This operation is not supported for tables.")
}
