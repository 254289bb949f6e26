//! Names of columns: which item of FROM they come from, and what `*` means.

use std::sync::Arc;

use super::binder::*;
use super::walk::lift;
use crate::error::{Result, SqlError, state};
use crate::ir::*;
use crate::parse::ast::{Name, Pos};
use crate::types::{Datum, Type, TypeMod};

/// A column that a name can mean.
#[derive(Clone, Debug)]
pub(super) struct ItemColumn {
    pub name: Arc<str>,
    /// Its value over the level's row: a column of it, or what USING merged.
    pub value: Expr,
    /// The fields of its value, if it is a row.
    pub fields: Option<Fields>,
    /// Table and attribute number it is a plain column of.
    pub origin: (u32, i16),
}

/// A table, subquery, function or join in FROM, as names see it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Alias or table name; a join has none.
    pub name: Option<Arc<str>>,
    /// Schema of a table without alias: `public.t.a` finds it.
    pub schema: Option<u32>,
    /// The table's own name, for the hint when it is hidden by an alias.
    pub table_name: Option<Arc<str>>,
    /// Oid of the relation, or 0: `tableoid`.
    pub relation: u32,
    pub columns: Vec<ItemColumn>,
    /// `name.column` finds it.
    pub by_name: bool,
    /// Its columns are found unqualified, and `*` shows them.
    pub by_column: bool,
    /// A lateral reference to it is an error: the join is RIGHT or FULL.
    pub no_lateral: bool,
    /// One column of a scalar type stands for the whole item: a function's alias.
    pub scalar: bool,
    /// Where in the level's row its xmin stands, ctid behind it, if rows are read with them.
    pub system: Option<usize>,
}

impl Item {
    /// An item whose columns are those of a relation, from the row's `offset` on.
    pub fn over(name: Option<Arc<str>>, rel: &Rel, fields: &[Option<Fields>], columns: usize) -> Item {
        let columns = rel
            .schema
            .iter()
            .take(columns)
            .enumerate()
            .map(|(i, f)| ItemColumn {
                name: f.name.clone(),
                value: Expr::column(i, f.ty),
                fields: fields.get(i).cloned().flatten(),
                origin: (f.table_oid, f.attnum),
            })
            .collect();
        Item {
            name,
            schema: None,
            table_name: None,
            relation: 0,
            columns,
            by_name: true,
            by_column: true,
            no_lateral: false,
            scalar: false,
            system: system_offset(rel),
        }
    }

    /// Moves it to another place in the row.
    pub fn shift(&mut self, offset: usize) {
        for column in &mut self.columns {
            super::walk::shift_columns(&mut column.value, offset);
        }
        self.system = self.system.map(|at| at + offset);
    }
}

/// Where a stored table's system columns stand among those of a relation that reads it.
fn system_offset(rel: &Rel) -> Option<usize> {
    match &rel.kind {
        RelKind::Scan { table, row_key, system: true, .. } => Some(table.width() + usize::from(*row_key)),
        _ => None,
    }
}

fn ambiguous(name: &str, pos: Pos) -> SqlError {
    SqlError::new(state::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous")).at(Some(pos + 1))
}

/// Columns every stored table has in PostgreSQL and none here, `tableoid` apart.
fn is_system_column(name: &str) -> bool {
    matches!(name, "ctid" | "xmin" | "cmin" | "xmax" | "cmax" | "tableoid")
}

impl Binder<'_> {
    /// What a name of one to four parts means.
    pub fn column_ref(&mut self, names: &[Name], pos: Pos) -> Result<Val> {
        if self.level().clause == Clause::Default {
            return error(state::FEATURE_NOT_SUPPORTED, pos, "cannot use column reference in DEFAULT expression");
        }
        let (qualifier, name) = match names {
            [name] => return self.unqualified(name, pos),
            [table, name] => ((None, table.text.as_str()), name),
            [schema, table, name] => ((Some(schema.text.as_str()), table.text.as_str()), name),
            [database, schema, table, name] => {
                self.check_database(&database.text, names, pos)?;
                ((Some(schema.text.as_str()), table.text.as_str()), name)
            }
            _ => {
                return error(
                    state::SYNTAX_ERROR,
                    pos,
                    format!("improper qualified name (too many dotted names): {}", join(names)),
                );
            }
        };
        match self.find_item(qualifier.0, qualifier.1, pos)? {
            Some((level, item)) => match self.item_column(level, item, names, pos)? {
                Some(val) => Ok(val),
                None => {
                    error(state::UNDEFINED_COLUMN, pos, format!("column {}.{} does not exist", qualifier.1, name.text))
                }
            },
            // `column.field` of a row-valued column is written `(column).field`; without parentheses it is a missing table, as in PostgreSQL.
            None => Err(self.missing_item(qualifier.0, qualifier.1, pos)),
        }
    }

    fn check_database(&self, database: &str, names: &[Name], pos: Pos) -> Result<()> {
        if database != self.env.session.database {
            let full = join(names);
            return error(
                state::FEATURE_NOT_SUPPORTED,
                pos,
                format!("cross-database references are not implemented: {full}"),
            );
        }
        Ok(())
    }

    fn unqualified(&mut self, written: &Name, pos: Pos) -> Result<Val> {
        let name = written.text.as_str();
        for level in (0..self.levels.len()).rev() {
            let mut found: Option<(usize, usize)> = None;
            for (i, item) in self.levels[level].items.iter().enumerate().filter(|(_, item)| item.by_column) {
                for (c, column) in item.columns.iter().enumerate() {
                    if &*column.name == name {
                        if found.is_some() {
                            return Err(ambiguous(name, pos));
                        }
                        found = Some((i, c));
                    }
                }
            }
            if let Some((item, column)) = found {
                self.note_column(level, item, column, std::slice::from_ref(written));
                return self.read(level, item, column, pos);
            }
        }
        if is_system_column(name) {
            for level in (0..self.levels.len()).rev() {
                let tables: Vec<usize> = (0..self.levels[level].items.len())
                    .filter(|i| self.levels[level].items[*i].relation != 0)
                    .collect();
                match tables[..] {
                    [] => {}
                    [item] => return self.system_column(level, item, name, pos),
                    _ => return Err(ambiguous(name, pos)),
                }
            }
        }
        if let Some((level, item)) = self.find_item(None, name, pos)? {
            return self.whole_row(level, item, pos);
        }
        let mut missing =
            SqlError::new(state::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist")).at(Some(pos + 1));
        let mut hidden = self.levels.iter().rev().flat_map(|l| &l.items).filter(|i| !i.by_column && i.name.is_some());
        if let Some(item) = hidden.find(|i| i.columns.iter().any(|c| &*c.name == name)) {
            let table = item.name.as_deref().unwrap_or_default();
            missing = missing.hint(format!("There is a column named \"{name}\" in table \"{table}\", but it cannot be referenced from this part of the query."));
        }
        Err(missing)
    }

    /// The item a table name means: (level, index in it).
    pub fn find_item(&self, schema: Option<&str>, name: &str, pos: Pos) -> Result<Option<(usize, usize)>> {
        let schema = match schema {
            None => None,
            Some(schema) => match self.catalog.schema_oid(schema) {
                Some(oid) => Some(oid),
                None => return Ok(None),
            },
        };
        for (l, level) in self.levels.iter().enumerate().rev() {
            let mut found = None;
            for (i, item) in level.items.iter().enumerate() {
                let here =
                    item.by_name && item.name.as_deref() == Some(name) && (schema.is_none() || item.schema == schema);
                if here {
                    if found.is_some() {
                        return error("42P09", pos, format!("table reference \"{name}\" is ambiguous"));
                    }
                    found = Some(i);
                }
            }
            if let Some(item) = found {
                if level.items[item].no_lateral && level.lateral {
                    return Err(SqlError::new(
                        state::INVALID_COLUMN_REFERENCE,
                        format!("invalid reference to FROM-clause entry for table \"{name}\""),
                    )
                    .detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference.")
                    .at(Some(pos + 1)));
                }
                return Ok(Some((l, item)));
            }
        }
        Ok(None)
    }

    /// 42P01 for a table that FROM does not have under this name.
    pub fn missing_item(&self, schema: Option<&str>, name: &str, pos: Pos) -> SqlError {
        let hidden = self
            .levels
            .iter()
            .rev()
            .flat_map(|l| &l.items)
            .find(|i| i.by_name && i.table_name.as_deref() == Some(name));
        if let (Some(item), None) = (hidden, schema) {
            let alias = item.name.as_deref().unwrap_or_default();
            return SqlError::new(
                state::UNDEFINED_TABLE,
                format!("invalid reference to FROM-clause entry for table \"{name}\""),
            )
            .hint(format!("Perhaps you meant to reference the table alias \"{alias}\"."))
            .at(Some(pos + 1));
        }
        SqlError::new(state::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{name}\""))
            .at(Some(pos + 1))
    }

    fn item_column(&mut self, level: usize, item: usize, names: &[Name], pos: Pos) -> Result<Option<Val>> {
        let name = names.last().map_or("", |n| n.text.as_str());
        let mut found = None;
        for (c, column) in self.levels[level].items[item].columns.iter().enumerate() {
            if &*column.name == name {
                if found.is_some() {
                    return Err(ambiguous(name, pos));
                }
                found = Some(c);
            }
        }
        match found {
            Some(column) => {
                self.note_column(level, item, column, names);
                self.read(level, item, column, pos).map(Some)
            }
            None if is_system_column(name) && self.levels[level].items[item].relation != 0 => {
                self.system_column(level, item, name, pos).map(Some)
            }
            None => Ok(None),
        }
    }

    fn system_column(&mut self, level: usize, item: usize, name: &str, pos: Pos) -> Result<Val> {
        if name == "tableoid" {
            let oid = self.levels[level].items[item].relation;
            return Ok(Val::new(ExprKind::Const(Datum::Oid(oid)), Type::OID, pos));
        }
        // Nobody sees what was deleted, and commands of one transaction are not told apart.
        let never = match name {
            // An updated row's is the transaction's number in PostgreSQL: `xmax = 0` tells there which rows were inserted.
            "xmax" if self.returns_updated => return unsupported(pos, "xmax of a row that may have been updated"),
            "xmax" => Some(Type::XID),
            "cmin" | "cmax" => Some(Type::CID),
            _ => None,
        };
        if let Some(ty) = never {
            return Ok(Val::new(ExprKind::Const(Datum::Oid(0)), ty, pos));
        }
        let Some(at) = self.levels[level].items[item].system else {
            return unsupported(pos, format!("system column \"{name}\" of this relation"));
        };
        let mut e = match name {
            "xmin" => Expr::column(at, Type::XID.plain()),
            _ => Expr::column(at + 1, Type::TID.plain()),
        };
        let by = self.levels.len() - 1 - level;
        if by > 0 {
            lift(&mut e, by);
        }
        self.note_read(level);
        Ok(Val { e, pos, fields: None })
    }

    fn read(&mut self, level: usize, item: usize, column: usize, pos: Pos) -> Result<Val> {
        let by = self.levels.len() - 1 - level;
        let from = &self.levels[level].items[item];
        if from.no_lateral && self.levels[level].lateral {
            let table = from.name.as_deref().unwrap_or_default();
            return Err(SqlError::new(
                state::INVALID_COLUMN_REFERENCE,
                format!("invalid reference to FROM-clause entry for table \"{table}\""),
            )
            .detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference.")
            .at(Some(pos + 1)));
        }
        let found = &from.columns[column];
        let mut val = Val { e: found.value.clone(), pos, fields: found.fields.clone() };
        if by > 0 {
            lift(&mut val.e, by);
        }
        self.note_read(level);
        Ok(val)
    }

    /// `t.*` as one value: the whole row.
    pub fn whole_item(&mut self, names: &[Name], pos: Pos) -> Result<Val> {
        let (schema, table) = match names {
            [table] => (None, table),
            [.., schema, table] => (Some(schema.text.as_str()), table),
            [] => return error(state::SYNTAX_ERROR, pos, "row expansion via \"*\" is not supported here"),
        };
        match self.find_item(schema, &table.text, pos)? {
            Some((level, item)) => self.whole_row(level, item, pos),
            None => Err(self.missing_item(schema, &table.text, pos)),
        }
    }

    /// A row of all columns of an item; the value itself where a function's alias stands for its one scalar.
    fn whole_row(&mut self, level: usize, item: usize, pos: Pos) -> Result<Val> {
        if self.levels[level].items[item].scalar {
            return self.read(level, item, 0, pos);
        }
        self.note_row(level, item);
        let count = self.levels[level].items[item].columns.len();
        let mut parts = Vec::with_capacity(count);
        let mut fields: Vec<(Arc<str>, TypeMod)> = Vec::with_capacity(count);
        for column in 0..count {
            let val = self.read(level, item, column, pos)?;
            fields.push((self.levels[level].items[item].columns[column].name.clone(), val.e.ty));
            parts.push(val.e);
        }
        self.note_read(level);
        Ok(Val { e: Expr { kind: ExprKind::Row(parts), ty: Type::RECORD.plain() }, pos, fields: Some(fields.into()) })
    }

    /// What `*` or `t.*` stands for: names and values.
    pub fn expand_star(&mut self, names: &[Name], pos: Pos) -> Result<Vec<(Arc<str>, Val)>> {
        let here = self.levels.len() - 1;
        let items: Vec<(usize, usize)> = match names {
            [] => (0..self.levels[here].items.len())
                .filter(|i| self.levels[here].items[*i].by_column)
                .map(|i| (here, i))
                .collect(),
            _ => {
                let (schema, table) = match names {
                    [table] => (None, table),
                    [schema, table] => (Some(schema.text.as_str()), table),
                    [database, schema, table] => {
                        self.check_database(&database.text, names, pos)?;
                        (Some(schema.text.as_str()), table)
                    }
                    _ => {
                        return error(
                            state::SYNTAX_ERROR,
                            pos,
                            format!("improper qualified name (too many dotted names): {}.*", join(names)),
                        );
                    }
                };
                match self.find_item(schema, &table.text, pos)? {
                    Some(found) => vec![found],
                    None => return Err(self.missing_item(schema, &table.text, pos)),
                }
            }
        };
        if names.is_empty() && items.is_empty() {
            return error(state::SYNTAX_ERROR, pos, "SELECT * with no tables specified is not valid");
        }
        let all = |(level, item): &(usize, usize)| {
            let (level, item) = (*level, *item);
            (0..self.levels[level].items[item].columns.len()).map(move |column| (level, item, column))
        };
        let shown: Vec<(usize, usize, usize)> = items.iter().flat_map(all).collect();
        self.note_star(pos, &shown);
        let mut columns = Vec::new();
        for (level, item) in items {
            for column in 0..self.levels[level].items[item].columns.len() {
                let name = self.levels[level].items[item].columns[column].name.clone();
                columns.push((name, self.read(level, item, column, pos)?));
            }
        }
        Ok(columns)
    }
}

fn join(names: &[Name]) -> String {
    names.iter().map(|n| n.text.as_str()).collect::<Vec<_>>().join(".")
}
