//! INSERT, UPDATE and DELETE: rows found by a query, values brought to the columns' types, defaults and checks from the catalog's texts.
//!
//! Row shapes, which the executor of [`Dml`] relies on:
//!
//! * INSERT: the source has a column for each of `columns`. RETURNING is over the stored row. ON CONFLICT's parts are over the existing row, then
//!   the row proposed.
//! * UPDATE and DELETE: the source is the target's columns, its row key, then what FROM or USING brings. Assignments, WHERE and RETURNING count by
//!   that row; in RETURNING of an UPDATE the target's columns hold the new values.

use std::sync::Arc;

use super::binder::*;
use super::coerce::call;
use super::from::{FromOut, scan, without_position};
use super::operator::row_subquery;
use super::query::with_around;
use super::scope::{Item, ItemColumn};
use super::walk::{map_row, walk_expr};
use crate::catalog::schema::{Column, Index, Relation, Table};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::{Volatility, registry};
use crate::ir::*;
use crate::parse::ast::{self, Pos};
use crate::types::{Datum, Type, TypeMod};

/// generated_always.
const GENERATED_ALWAYS: &str = "428C9";

impl Binder<'_> {
    /// INSERT, UPDATE or DELETE, at the top or inside WITH.
    pub fn changing_statement(&mut self, kind: &ast::StatementKind) -> Result<Rel> {
        let mark = self.ctes.len();
        let with = match kind {
            ast::StatementKind::Insert(s) => &s.with,
            ast::StatementKind::Update(s) => &s.with,
            ast::StatementKind::Delete(s) => &s.with,
            _ => return Err(SqlError::internal("no statement that changes rows")),
        };
        let ctes = with.as_ref().map(|w| self.with_clause(w)).transpose()?.unwrap_or_default();
        self.nesting += 1;
        let dml = match kind {
            ast::StatementKind::Insert(s) => self.insert(s),
            ast::StatementKind::Update(s) => self.update(s),
            ast::StatementKind::Delete(s) => self.delete(s),
            _ => return Err(SqlError::internal("no statement that changes rows")),
        }?;
        self.nesting -= 1;
        self.ctes.truncate(mark);
        let schema = dml.schema.clone();
        Ok(with_around(ctes, Rel { kind: RelKind::Dml(Arc::new(dml)), schema }))
    }

    fn target_table(&self, name: &ast::QName, verb: &str) -> Result<Arc<Table>> {
        let wrong =
            |what: &str| error(state::WRONG_OBJECT_TYPE, name.pos, format!("cannot change {what} \"{}\"", name.last()));
        match self.lookup(&self.catalog, name)? {
            Some(Relation::Table(table)) if table.foreign.is_some() => Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                format!("cannot {verb} foreign table \"{}\"", table.name),
            )),
            Some(Relation::Table(table)) => Ok(table),
            Some(Relation::View(_)) => unsupported(name.pos, format!("changing rows through view \"{}\"", name.last())),
            Some(Relation::Sequence(_)) => wrong("sequence"),
            Some(Relation::Virtual(_)) => wrong("relation"),
            Some(Relation::Index(..)) => {
                Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("cannot open relation \"{}\"", name.last()))
                    .detail("This operation is not supported for indexes.")
                    .at(Some(name.pos + 1)))
            }
            None => error(state::UNDEFINED_TABLE, name.pos, format!("relation \"{name}\" does not exist")),
        }
    }

    /// The target as an item of FROM: its columns, not its row key.
    fn target_item(&self, table: &Table, rel: &Rel, alias: Option<&str>) -> Item {
        let name: Arc<str> = Arc::from(alias.unwrap_or(&table.name));
        let mut item = Item::over(Some(name), rel, &[], table.width());
        item.relation = table.oid;
        item.table_name = Some(Arc::from(table.name.as_str()));
        if alias.is_none() {
            item.schema = Some(table.schema);
        }
        item
    }

    fn insert(&mut self, s: &ast::Insert) -> Result<Dml> {
        let table = self.target_table(&s.table, "insert into")?;
        let all: Vec<&Column> = table.columns().collect();
        let mut columns = Vec::with_capacity(s.columns.len());
        for name in &s.columns {
            let position = self.target_column(&table, name)?;
            if columns.contains(&position) {
                return error(
                    state::DUPLICATE_COLUMN,
                    name.pos,
                    format!("column \"{}\" specified more than once", name.text),
                );
            }
            columns.push(position);
        }
        let explicit = !columns.is_empty();
        if !explicit {
            columns = (0..all.len()).collect();
        }
        let source = match &s.source {
            None => {
                columns.clear();
                one_row()
            }
            Some(query) => match &query.body {
                ast::Body::Values(rows)
                    if query.with.is_none()
                        && query.order_by.is_empty()
                        && query.limit.is_none()
                        && query.offset.is_none() =>
                {
                    self.insert_rows(s, &table, &mut columns, rows, explicit)?
                }
                _ => self.insert_query(s, &table, &mut columns, query, explicit)?,
            },
        };
        let mut defaults = Vec::with_capacity(all.len());
        for (i, column) in all.iter().enumerate() {
            defaults.push(if columns.contains(&i) { None } else { self.column_default(column)? });
        }
        let checks = self.checks(&table)?;
        let on_conflict =
            s.on_conflict.as_ref().map(|c| self.on_conflict(c, &table, s.alias.as_deref())).transpose()?;
        let stored = scan(&table, None, false, self.system);
        let item = self.target_item(&table, &stored, s.alias.as_deref());
        self.returns_updated = on_conflict.as_ref().is_some_and(|c: &OnConflict| c.update.is_some());
        let returning = self.returning(&s.returning, vec![item], &stored);
        self.returns_updated = false;
        let (returning, schema) = returning?;
        let kind = DmlKind::Insert { table, columns, source, defaults, checks, overriding: s.overriding, on_conflict };
        Ok(Dml { kind, returning, schema, system: self.system })
    }

    fn target_column(&self, table: &Table, name: &ast::Name) -> Result<usize> {
        match table.column(&name.text) {
            Some((position, _)) => Ok(position),
            None => error(
                state::UNDEFINED_COLUMN,
                name.pos,
                format!("column \"{}\" of relation \"{}\" does not exist", name.text, table.name),
            ),
        }
    }

    /// The lengths of the column list and of the values must agree; without a list, missing values are defaults.
    fn fit_columns(
        &self,
        s: &ast::Insert,
        columns: &mut Vec<usize>,
        values: usize,
        explicit: bool,
        pos: Pos,
    ) -> Result<()> {
        if values > columns.len() {
            return error(state::SYNTAX_ERROR, pos, "INSERT has more expressions than target columns");
        }
        if values < columns.len() {
            if explicit {
                let pos = s.columns.get(values).map_or(pos, |c| c.pos);
                return error(state::SYNTAX_ERROR, pos, "INSERT has more target columns than expressions");
            }
            columns.truncate(values);
        }
        Ok(())
    }

    fn insert_rows(
        &mut self,
        s: &ast::Insert,
        table: &Arc<Table>,
        columns: &mut Vec<usize>,
        rows: &[Vec<ast::Expr>],
        explicit: bool,
    ) -> Result<Rel> {
        let width = rows.first().map_or(0, Vec::len);
        let extra = rows.first().and_then(|r| r.get(columns.len())).or_else(|| rows.first().and_then(|r| r.first()));
        let pos = extra.map_or(s.table.pos, |e| e.pos);
        if let Some(row) = rows.iter().find(|r| r.len() != width) {
            let pos = row.first().map_or(s.table.pos, |e| e.pos);
            return error(state::SYNTAX_ERROR, pos, "VALUES lists must all be the same length");
        }
        self.fit_columns(s, columns, width, explicit, pos)?;
        let targets: Vec<&Column> = columns.iter().filter_map(|c| table.columns().nth(*c)).collect();
        let (bound, _) = self.in_level(Level::new(vec![], Clause::Values), |b| {
            let mut bound = Vec::with_capacity(rows.len());
            for row in rows {
                let mut cells = Vec::with_capacity(width);
                for (cell, column) in row.iter().zip(&targets) {
                    cells.push(b.insert_cell(s, cell, column)?);
                }
                bound.push(cells);
            }
            Ok(bound)
        })?;
        let schema = targets.iter().map(|c| field(&c.name, c.type_mod())).collect();
        Ok(Rel { kind: RelKind::Values(bound), schema })
    }

    fn insert_cell(&mut self, s: &ast::Insert, cell: &ast::Expr, column: &Column) -> Result<Expr> {
        let wants_default = matches!(cell.kind, ast::ExprKind::Default)
            || (column.identity.is_some() && s.overriding == Overriding::User);
        if wants_default {
            return Ok(self
                .column_default(column)?
                .unwrap_or_else(|| Expr { kind: ExprKind::Const(Datum::Null), ty: column.type_mod() }));
        }
        check_identity(s, column)?;
        let val = self.expr(cell)?;
        Ok(self.assign(val, column.type_mod(), &column.name)?.e)
    }

    fn insert_query(
        &mut self,
        s: &ast::Insert,
        table: &Arc<Table>,
        columns: &mut Vec<usize>,
        query: &ast::Query,
        explicit: bool,
    ) -> Result<Rel> {
        let QueryOut { mut rel, mut positions, .. } = self.query(query, false)?;
        let pos = positions.get(columns.len()).or(positions.first()).copied().unwrap_or(query.pos);
        self.fit_columns(s, columns, rel.schema.len(), explicit, pos)?;
        let all: Vec<&Column> = table.columns().collect();
        if s.overriding == Overriding::User && columns.iter().any(|c| all[*c].identity.is_some()) {
            // The values given for identity columns are left out; the defaults come in their place.
            let kept: Vec<usize> = (0..columns.len()).filter(|i| all[columns[*i]].identity.is_none()).collect();
            let exprs = kept.iter().map(|i| Expr::column(*i, rel.schema[*i].ty)).collect();
            let schema = kept.iter().map(|i| rel.schema[*i].clone()).collect();
            rel = project(rel, exprs, schema);
            *columns = kept.iter().map(|i| columns[*i]).collect();
            positions = kept.iter().map(|i| positions[*i]).collect();
        }
        for (c, _pos) in columns.iter().zip(&positions) {
            check_identity(s, all[*c])?;
        }
        let targets: Vec<(String, TypeMod)> =
            columns.iter().map(|c| (all[*c].name.clone(), all[*c].type_mod())).collect();
        self.assign_columns(rel, &targets, &positions)
    }

    /// What a column gets when nothing is given: its DEFAULT, or the next value of its identity.
    pub fn column_default(&mut self, column: &Column) -> Result<Option<Expr>> {
        if let (Some(_), Some(sequence)) = (column.identity, column.sequence) {
            let next = registry().scalars.get("nextval").and_then(|all| all.first());
            let next = next.ok_or_else(|| SqlError::internal("there is no function nextval"))?;
            let argument = Expr::constant(Datum::Oid(sequence), Type::REGCLASS);
            let val = Val { e: call(next, vec![argument], Type::INT8.plain()), pos: 0, fields: None };
            return Ok(Some(self.assign(val, column.type_mod(), &column.name)?.e));
        }
        match &column.default {
            None => Ok(None),
            Some(text) => {
                self.stored_expr(text, &[], Clause::Default, Some((column.type_mod(), &column.name))).map(Some)
            }
        }
    }

    /// A stored expression, bound with no other level in sight.
    pub fn stored_expr(
        &mut self,
        text: &str,
        columns: &[Field],
        clause: Clause,
        target: Option<(TypeMod, &str)>,
    ) -> Result<Expr> {
        let written = crate::parse::parse_expr(text).map_err(without_position)?;
        let mut inner = Binder::new(self.env);
        inner.catalog = self.catalog.clone();
        inner.depth = self.depth;
        inner.next_cte = self.next_cte;
        let made = inner.over_columns(&written, columns, clause, target).map_err(without_position);
        self.next_cte = inner.next_cte;
        made
    }

    /// Binds an expression over a row of columns.
    pub fn over_columns(
        &mut self,
        e: &ast::Expr,
        columns: &[Field],
        clause: Clause,
        target: Option<(TypeMod, &str)>,
    ) -> Result<Expr> {
        let items = columns
            .iter()
            .enumerate()
            .map(|(i, f)| ItemColumn {
                name: f.name.clone(),
                value: Expr::column(i, f.ty),
                fields: None,
                origin: (f.table_oid, f.attnum),
            })
            .collect();
        let relation = columns.first().map_or(0, |f| f.table_oid);
        let name = self.catalog.by_oid(relation).map(|r| Arc::from(r.name()));
        let item = Item {
            by_name: name.is_some(),
            name,
            schema: None,
            table_name: None,
            relation,
            columns: items,
            by_column: true,
            no_lateral: false,
            scalar: false,
            system: None,
        };
        let (val, _) = self.in_level(Level::new(vec![item], clause), |b| {
            let val = b.expr(e)?;
            match target {
                Some((ty, column)) => b.assign(val, ty, column),
                None => b.resolve_unknown(val),
            }
        })?;
        Ok(val.e)
    }

    fn checks(&mut self, table: &Table) -> Result<Vec<Check>> {
        let fields = table.fields();
        let mut checks = Vec::with_capacity(table.checks.len());
        for check in &table.checks {
            let e = self.stored_expr(&check.expr, &fields, Clause::Check, Some((Type::BOOL.plain(), "CHECK")))?;
            checks.push(Check { name: Arc::from(check.name.as_str()), expr: e });
        }
        Ok(checks)
    }

    fn on_conflict(&mut self, c: &ast::OnConflict, table: &Arc<Table>, alias: Option<&str>) -> Result<OnConflict> {
        if c.target.is_none()
            && let Some(index) = table.indexes.iter().find(|i| !i.deferral.is_never())
        {
            return Err(self.deferrable_arbiter(table, index));
        }
        let arbiter = match &c.target {
            None if c.update.is_some() => {
                return Err(SqlError::new(
                    state::SYNTAX_ERROR,
                    "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                )
                .hint("For example, ON CONFLICT (column_name).")
                .at(Some(c.pos + 1)));
            }
            None => None,
            Some(ast::ConflictTarget::Constraint(name)) => Some(self.constraint_index(table, name)?),
            Some(ast::ConflictTarget::Columns(columns, filter)) => {
                if let Some(filter) = filter {
                    return unsupported(filter.pos, "a predicate in ON CONFLICT");
                }
                Some(self.infer_index(table, columns, c.pos)?)
            }
        };
        let Some((sets, condition)) = &c.update else { return Ok(OnConflict { arbiter, update: None }) };
        let width = table.width();
        let stored = scan(table, None, false, false);
        let existing = self.target_item(table, &stored, alias);
        let mut excluded = Item::over(Some(Arc::from("excluded")), &stored, &[], width);
        excluded.shift(width);
        let (update, _) = self.in_level(Level::new(vec![existing, excluded], Clause::UpdateSet), |b| {
            let mut rows = vec![];
            let mut assignments = b.assignments(sets, table, 2 * width, &mut rows)?;
            // The existing row is at hand only where the values are computed: each column asks for itself.
            if rows.iter_mut().any(is_volatile) {
                return unsupported(c.pos, "a volatile subquery for several columns in ON CONFLICT DO UPDATE");
            }
            for (_, e) in &mut assignments {
                map_row(e, &mut |index| Ok(index.checked_sub(2 * width).and_then(|i| rows.get(i).cloned())))?;
            }
            let condition = match condition {
                None => None,
                Some(e) => {
                    let val = b.in_clause(Clause::Where, |b| b.expr(e))?;
                    Some(b.boolean(val, "WHERE")?)
                }
            };
            Ok((assignments, condition))
        })?;
        Ok(OnConflict { arbiter, update: Some(update) })
    }

    /// The unique index over exactly these columns.
    fn infer_index(&self, table: &Table, columns: &[ast::Expr], pos: Pos) -> Result<u32> {
        let mut wanted: Vec<i16> = Vec::with_capacity(columns.len());
        for column in columns {
            let name = match &column.kind {
                ast::ExprKind::Column(names) if names.len() == 1 => &names[0],
                _ => return unsupported(column.pos, "an expression in ON CONFLICT"),
            };
            match table.column(&name.text) {
                Some((_, c)) => wanted.push(c.attnum),
                None => {
                    return error(
                        state::UNDEFINED_COLUMN,
                        name.pos,
                        format!("column \"{}\" does not exist", name.text),
                    );
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let same = |mut have: Vec<i16>| {
            have.sort_unstable();
            have == wanted
        };
        if let Some(key) = table.primary_key.as_ref().filter(|k| same(k.columns.clone())) {
            return Ok(key.oid);
        }
        let found =
            table.indexes.iter().find(|i| i.unique && i.valid && same(i.columns.iter().map(|c| c.attnum).collect()));
        match found {
            Some(index) => Ok(index.oid),
            None => {
                let is_late = |i: &&Index| !i.deferral.is_never() && same(i.columns.iter().map(|c| c.attnum).collect());
                if let Some(index) = table.indexes.iter().find(is_late) {
                    return Err(self.deferrable_arbiter(table, index));
                }
                let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
                error(state::INVALID_COLUMN_REFERENCE, pos, message)
            }
        }
    }
    fn deferrable_arbiter(&self, table: &Table, index: &Index) -> SqlError {
        let message = "ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters";
        let schema = self.env.catalog.schemas.get(&table.schema).map(|s| s.name.clone()).unwrap_or_default();
        SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .table(schema, &table.name)
            .constraint(&index.name)
    }
    /// The index behind a named constraint.
    fn constraint_index(&self, table: &Table, name: &ast::Name) -> Result<u32> {
        if let Some(key) = table.primary_key.as_ref().filter(|k| k.name == name.text) {
            return Ok(key.oid);
        }
        let has_none = || {
            table.checks.iter().any(|c| c.name == name.text) || table.foreign_keys.iter().any(|k| k.name == name.text)
        };
        match table.indexes.iter().find(|i| i.name == name.text && i.constraint) {
            Some(index) if !index.deferral.is_never() => Err(self.deferrable_arbiter(table, index)),
            Some(index) => Ok(index.oid),
            None if has_none() => {
                error(state::WRONG_OBJECT_TYPE, name.pos, "constraint in ON CONFLICT clause has no associated index")
            }
            None => error(
                state::UNDEFINED_OBJECT,
                name.pos,
                format!("constraint \"{}\" for table \"{}\" does not exist", name.text, table.name),
            ),
        }
    }

    /// SET's list, bound in the present level. A subquery that gives several columns is put into `rows` and read from the place it has there
    /// behind a row of `width` columns: so it runs once for each row, though it be volatile.
    fn assignments(
        &mut self,
        sets: &[ast::SetClause],
        table: &Table,
        width: usize,
        rows: &mut Vec<Expr>,
    ) -> Result<Vec<(usize, Expr)>> {
        let mut made: Vec<(usize, Expr)> = Vec::with_capacity(sets.len());
        for set in sets {
            match set {
                ast::SetClause::One { column, subscripts, value } => {
                    let position = self.target_column(table, column)?;
                    if !subscripts.is_empty() {
                        return unsupported(column.pos, "assignment to a part of a column");
                    }
                    let e = self.assigned(table, position, value)?;
                    add_assignment(&mut made, position, e, column)?;
                }
                ast::SetClause::Many { columns, value } => match &value.kind {
                    ast::ExprKind::Row { fields, .. } => {
                        if fields.len() != columns.len() {
                            return error(
                                state::SYNTAX_ERROR,
                                value.pos,
                                "number of columns does not match number of values",
                            );
                        }
                        for (column, value) in columns.iter().zip(fields) {
                            let position = self.target_column(table, column)?;
                            let e = self.assigned(table, position, value)?;
                            add_assignment(&mut made, position, e, column)?;
                        }
                    }
                    ast::ExprKind::ScalarQuery(query) => {
                        let (out, correlated) = self.as_subquery(value.pos, |b| b.query(query, true))?;
                        if out.rel.schema.len() != columns.len() {
                            return error(
                                state::SYNTAX_ERROR,
                                value.pos,
                                "number of columns does not match number of values",
                            );
                        }
                        let row = Expr::column(width + rows.len(), Type::RECORD.plain());
                        rows.push(row_subquery(&out.rel, correlated));
                        for (index, column) in columns.iter().enumerate() {
                            let position = self.target_column(table, column)?;
                            let kind = ExprKind::Field { input: Box::new(row.clone()), index };
                            let e = Expr { kind, ty: out.rel.schema[index].ty };
                            let target = table.columns().nth(position).map_or(e.ty, Column::type_mod);
                            let val = self.assign(Val { e, pos: value.pos, fields: None }, target, &column.text)?;
                            add_assignment(&mut made, position, val.e, column)?;
                        }
                    }
                    _ => {
                        return error(
                            state::FEATURE_NOT_SUPPORTED,
                            value.pos,
                            "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
                        );
                    }
                },
            }
        }
        Ok(made)
    }

    fn assigned(&mut self, table: &Table, position: usize, value: &ast::Expr) -> Result<Expr> {
        let column = table.columns().nth(position).ok_or_else(|| SqlError::internal("no such column"))?;
        if matches!(value.kind, ast::ExprKind::Default) {
            return Ok(self
                .column_default(column)?
                .unwrap_or_else(|| Expr { kind: ExprKind::Const(Datum::Null), ty: column.type_mod() }));
        }
        if column.identity == Some('a') {
            return Err(SqlError::new(
                GENERATED_ALWAYS,
                format!("column \"{}\" can only be updated to DEFAULT", column.name),
            )
            .detail(format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", column.name)));
        }
        let val = self.expr(value)?;
        Ok(self.assign(val, column.type_mod(), &column.name)?.e)
    }

    fn update(&mut self, s: &ast::Update) -> Result<Dml> {
        let table = self.target_table(&s.table, "update")?;
        let from = self.change_source(&table, s.alias.as_deref(), &s.from)?;
        let FromOut { mut rel, items } = from;
        let mut rows = vec![];
        let width = rel.schema.len();
        let ((assignments, predicate), level) = self.in_level(Level::new(items, Clause::UpdateSet), |b| {
            let assignments = b.assignments(&s.sets, &table, width, &mut rows)?;
            Ok((assignments, b.change_condition(s.filter.as_ref())?))
        })?;
        let checks = self.checks(&table)?;
        if let Some(predicate) = predicate {
            rel = filter(rel, predicate);
        }
        if !rows.is_empty() {
            let mut schema = rel.schema.to_vec();
            schema.extend(rows.iter().map(|r| field("?column?", r.ty)));
            let exprs = columns_of(&rel.schema).into_iter().chain(rows).collect();
            rel = project(rel, exprs, schema.into());
        }
        let (returning, schema) = self.returning(&s.returning, level.items, &rel)?;
        let kind = DmlKind::Update { table, source: rel, assignments, checks };
        Ok(Dml { kind, returning, schema, system: self.system })
    }

    fn delete(&mut self, s: &ast::Delete) -> Result<Dml> {
        let table = self.target_table(&s.table, "delete from")?;
        let FromOut { mut rel, items } = self.change_source(&table, s.alias.as_deref(), &s.using)?;
        let (predicate, level) =
            self.in_level(Level::new(items, Clause::Where), |b| b.change_condition(s.filter.as_ref()))?;
        if let Some(predicate) = predicate {
            rel = filter(rel, predicate);
        }
        let (returning, schema) = self.returning(&s.returning, level.items, &rel)?;
        Ok(Dml { kind: DmlKind::Delete { table, source: rel }, returning, schema, system: self.system })
    }

    fn change_condition(&mut self, e: Option<&ast::Expr>) -> Result<Option<Expr>> {
        let Some(e) = e else { return Ok(None) };
        let val = self.in_clause(Clause::Where, |b| b.expr(e))?;
        self.boolean(val, "WHERE").map(Some)
    }

    /// The target with its row key, joined with what FROM or USING names.
    fn change_source(&mut self, table: &Arc<Table>, alias: Option<&str>, from: &[ast::FromItem]) -> Result<FromOut> {
        let rel = scan(table, None, true, self.system);
        let item = self.target_item(table, &rel, alias);
        let mut out = FromOut { rel, items: vec![item] };
        if !from.is_empty() {
            // The items of FROM see each other, but not the target.
            let others = self.from_clause(from)?;
            out = self.join_bound(out, others, from)?;
        }
        Ok(out)
    }

    /// RETURNING over a row with these names.
    fn returning(
        &mut self,
        targets: &[ast::Target],
        items: Vec<Item>,
        row: &Rel,
    ) -> Result<(Option<Vec<Expr>>, Arc<[Field]>)> {
        if targets.is_empty() {
            return Ok((None, Arc::from([])));
        }
        let (targets, _) = self.in_level(Level::new(items, Clause::Returning), |b| b.targets(targets, row, true))?;
        let schema = targets
            .iter()
            .map(|t| Field { name: t.name.clone(), ty: t.val.e.ty, table_oid: t.origin.0, attnum: t.origin.1 })
            .collect();
        Ok((Some(targets.into_iter().map(|t| t.val.e).collect()), schema))
    }
}

/// A value for a column GENERATED ALWAYS AS IDENTITY needs OVERRIDING.
fn check_identity(s: &ast::Insert, column: &Column) -> Result<()> {
    if column.identity == Some('a') && s.overriding == Overriding::None {
        return Err(SqlError::new(
            GENERATED_ALWAYS,
            format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name),
        )
        .detail(format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", column.name))
        .hint("Use OVERRIDING SYSTEM VALUE to override."));
    }
    Ok(())
}

/// Whether two evaluations may differ.
fn is_volatile(e: &mut Expr) -> bool {
    let mut found = false;
    let _ = walk_expr(e, 0, &mut |e, _| {
        found |= matches!(&e.kind, ExprKind::Call { func, .. } if func.volatility == Volatility::Volatile);
        Ok(found)
    });
    found
}

fn add_assignment(made: &mut Vec<(usize, Expr)>, position: usize, e: Expr, column: &ast::Name) -> Result<()> {
    if made.iter().any(|(p, _)| *p == position) {
        return error(
            state::SYNTAX_ERROR,
            column.pos,
            format!("multiple assignments to same column \"{}\"", column.text),
        );
    }
    made.push((position, e));
    Ok(())
}
