//! COPY: what the statement names, and the calls its data goes through.

use std::sync::Arc;

use super::transaction::{StatementCx, Status};
use super::{Active, CopyShape, CopyStep, Outcome, Session};
use crate::bind::{self, ParamTypes};
use crate::catalog::schema::{Relation, Table};
use crate::error::{Result, SqlError, state};
use crate::exec;
use crate::ir::{Expr, Field, Rel, RelKind};
use crate::lock::TableMode;
use crate::parse::ast::{Copy, CopyEndpoint, CopySource, Name, QName};
use crate::plan::{self, PlanCx};
use crate::types::Type;
use crate::write::copy::{CopyIn, CopyOptions, CopyOut, CopyRules};

impl Session {
    /// Begins a COPY.
    pub(super) fn copy(&mut self, copy: &Copy, source: &str) -> Result<Outcome> {
        match &copy.endpoint {
            CopyEndpoint::Client => {}
            CopyEndpoint::File(_) => {
                return Err(
                    SqlError::unsupported("COPY with a file of the server").hint("Use \\copy, STDIN or STDOUT.")
                );
            }
            CopyEndpoint::Program(_) => return Err(SqlError::unsupported("COPY with a program")),
        }
        if !copy.from && copy.filter.is_some() {
            return Err(SqlError::new(state::SYNTAX_ERROR, "WHERE clause not allowed with COPY TO")
                .hint("Try the COPY (SELECT ... WHERE ...) TO variant."));
        }
        let options = CopyOptions::new(&copy.options, copy.from)?;
        self.with_first_head(|session| session.begin_copy(copy, &options, source))
    }

    fn begin_copy(&mut self, copy: &Copy, options: &CopyOptions, source: &str) -> Result<Outcome> {
        let (cx, options) = (self.statement_under_locks(|s, cx| s.copied(copy, cx))?, options.clone());
        match (&copy.source, copy.from) {
            (CopySource::Table { name, columns }, true) => self.copy_from(name, columns, copy, options, source, &cx),
            (CopySource::Query(_), true) => Err(SqlError::new(state::SYNTAX_ERROR, "COPY FROM needs a table")),
            (CopySource::Table { name, columns }, false) => {
                let rel = self.table_rows(name, columns, &cx)?;
                self.copy_to(rel, options, &cx)
            }
            (CopySource::Query(query), false) => {
                let bound = self.with_env(&cx, &ParamTypes::none(), |env| bind::bind(query, env))?;
                if bound.writes() {
                    return Err(SqlError::unsupported("COPY of a statement that changes rows"));
                }
                let rel = bound
                    .rel()
                    .cloned()
                    .ok_or_else(|| SqlError::new(state::FEATURE_NOT_SUPPORTED, "COPY query must be a SELECT"))?;
                self.copy_to(rel, options, &cx)
            }
        }
    }

    /// What a COPY locks.
    fn copied(&self, copy: &Copy, cx: &StatementCx) -> Result<Vec<(u32, TableMode)>> {
        match &copy.source {
            CopySource::Table { name, .. } => {
                let mode = if copy.from { TableMode::RowExclusive } else { TableMode::AccessShare };
                Ok(match self.find(name, cx)? {
                    Relation::Table(table) if copy.from => plan::written(&table),
                    Relation::Virtual(_) => Vec::new(),
                    other => vec![(other.oid(), mode)],
                })
            }
            CopySource::Query(query) => {
                let bound = self.with_env(cx, &ParamTypes::none(), |env| bind::bind(query, env))?;
                Ok(bound.rel().map(|rel| plan::relations(rel, &cx.cx.catalog)).unwrap_or_default())
            }
        }
    }

    fn find(&self, name: &QName, cx: &StatementCx) -> Result<Relation> {
        let found = self.with_env(cx, &ParamTypes::none(), |env| bind::find_relation(name, env))?;
        found.ok_or_else(|| SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")))
    }

    /// A table's rows, as COPY TO takes them.
    fn table_rows(&self, name: &QName, columns: &[Name], cx: &StatementCx) -> Result<Rel> {
        let refuse = |what: &str, name: &str| {
            Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("cannot copy from {what} \"{name}\"")))
        };
        let (kind, fields) = match self.find(name, cx)? {
            Relation::Table(t) if t.foreign.is_some() => {
                return refuse("foreign table", &t.name)
                    .map_err(|e: SqlError| e.hint("Try the COPY (SELECT ...) TO variant."));
            }
            Relation::Table(table) => {
                let fields = table.fields();
                (RelKind::Scan { table, at: None, row_key: false, system: false }, fields)
            }
            Relation::Virtual(table) => {
                let fields = table.columns();
                (RelKind::Virtual { table, args: Vec::new() }, fields)
            }
            Relation::View(v) => {
                return refuse("view", &v.name).map_err(|e| e.hint("Try the COPY (SELECT ...) TO variant."));
            }
            Relation::Sequence(s) => return refuse("sequence", &s.name),
            index @ Relation::Index(..) => return refuse("index", index.name()),
        };
        let input = Rel { kind, schema: fields.clone() };
        if columns.is_empty() {
            return Ok(input);
        }
        let positions = column_positions(columns, &fields, name.last())?;
        let exprs = positions.iter().map(|p| Expr::column(*p, fields[*p].ty)).collect();
        let schema = positions.iter().map(|p| fields[*p].clone()).collect();
        Ok(Rel { kind: RelKind::Project { input: Box::new(input), exprs }, schema })
    }

    fn copy_to(&mut self, rel: Rel, options: CopyOptions, cx: &StatementCx) -> Result<Outcome> {
        let locks = plan::locks_rows(&rel);
        let plan = Arc::new(plan::plan(rel, &PlanCx::new(&cx.cx))?);
        let writer = locks.map(|mode| self.lock_writer(mode, Arc::default(), cx)).transpose()?;
        let exec_cx = self.exec_cx(cx, Vec::new(), writer)?;
        let cursor = exec::open(&plan, Arc::new(exec_cx))?;
        let copy = CopyOut::new(cursor, plan.schema.clone(), options, cx.cx.clone())?;
        let shape = CopyShape { binary: copy.is_binary(), columns: copy.width() };
        self.active = Active::CopyOut(Box::new(copy));
        Ok(Outcome::CopyOut(shape))
    }

    fn copy_from(
        &mut self,
        name: &QName,
        columns: &[Name],
        copy: &Copy,
        options: CopyOptions,
        source: &str,
        cx: &StatementCx,
    ) -> Result<Outcome> {
        let table = match self.find(name, cx)? {
            Relation::Table(t) if t.foreign.is_some() => {
                let message = format!("cannot insert into foreign table \"{}\"", t.name);
                return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
            }
            Relation::Table(table) => table,
            Relation::View(v) => {
                let message = format!("cannot copy to view \"{}\"", v.name);
                return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message)
                    .hint("To enable copying to a view, provide an INSTEAD OF INSERT trigger."));
            }
            other => {
                return Err(SqlError::new(
                    state::WRONG_OBJECT_TYPE,
                    format!("cannot copy to non-table relation \"{}\"", other.name()),
                ));
            }
        };
        let fields = table.fields();
        let positions = if columns.is_empty() {
            (0..fields.len()).collect()
        } else {
            column_positions(columns, &fields, &table.name)?
        };
        self.begin_writes(cx, "COPY FROM")?;
        let rules = self.copy_rules(&table, &fields, &positions, copy, source, cx)?;
        let exec_cx = self.exec_cx(cx, Vec::new(), None)?;
        let copy = CopyIn::new(&table, &positions, options, rules, &self.shared.txn, exec_cx)?;
        let shape = CopyShape { binary: copy.is_binary(), columns: copy.width() };
        self.active = Active::CopyIn(Box::new(copy));
        Ok(Outcome::CopyIn(shape))
    }

    fn copy_rules(
        &self,
        table: &Arc<Table>,
        fields: &[Field],
        positions: &[usize],
        copy: &Copy,
        source: &str,
        cx: &StatementCx,
    ) -> Result<CopyRules> {
        let none = ParamTypes::none();
        let plan_cx = PlanCx::new(&cx.cx);
        let mut rules = CopyRules::default();
        for (position, column) in table.columns().enumerate().filter(|(p, _)| !positions.contains(p)) {
            let text = match (&column.default, column.identity, column.sequence) {
                (Some(text), ..) => text.clone(),
                (None, Some(_), Some(oid)) => format!("pg_catalog.nextval({oid}::pg_catalog.regclass)"),
                _ => continue,
            };
            let expr =
                self.with_env(cx, &none, |env| bind::bind_default(&text, &column.name, column.type_mod(), env))?;
            rules.defaults.push((position, exec::prepare(&expr, &plan_cx)?));
        }
        for check in &table.checks {
            let expr = self.with_env(cx, &none, |env| bind::bind_check(&check.expr, fields, env))?;
            rules.checks.push((Arc::from(check.name.as_str()), exec::prepare(&expr, &plan_cx)?));
        }
        if let Some(filter) = &copy.filter {
            let target = Some((Type::BOOL.plain(), "WHERE"));
            let expr = self.with_env(cx, &none, |env| {
                bind::bind_expr(bind::Clause::CopyWhere, filter, source, fields, target, env)
            })?;
            rules.filter = Some(exec::prepare(&expr, &plan_cx)?);
        }
        Ok(rules)
    }

    /// A piece of COPY FROM STDIN, cut anywhere. After an error go on reading and dropping CopyData until CopyDone or CopyFail.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<()> {
        let result = match &mut self.active {
            Active::CopyIn(copy) => copy.push(data),
            _ => Err(SqlError::new(state::PROTOCOL_VIOLATION, "there is no COPY FROM to send data to")),
        };
        self.guard(result)
    }

    /// CopyDone: the tag.
    pub fn copy_done(&mut self) -> Result<String> {
        let result = self.end_copy();
        self.guard(result)
    }

    fn end_copy(&mut self) -> Result<String> {
        let Active::CopyIn(mut copy) = std::mem::replace(&mut self.active, Active::None) else {
            return Err(SqlError::new(state::PROTOCOL_VIOLATION, "there is no COPY FROM to end"));
        };
        let rows = copy.finish()?;
        self.end_writes()?;
        self.block.rows += rows;
        // A COPY that is all of a simple string is committed before it is answered.
        if self.block.status == Status::Implicit && self.script.as_ref().is_some_and(|s| s.single) {
            self.commit()?;
        }
        Ok(format!("COPY {rows}"))
    }

    /// CopyFail: undoes the COPY and gives the error to answer with (57014).
    pub fn copy_fail(&mut self, reason: &str) -> SqlError {
        let error = SqlError::new(state::QUERY_CANCELED, format!("COPY from stdin failed: {reason}"));
        let failed: Result<()> = self.guard(Err(error.clone()));
        failed.err().unwrap_or(error)
    }

    /// The next piece of COPY TO STDOUT.
    pub fn copy_out(&mut self) -> Result<CopyStep> {
        let result = match &mut self.active {
            Active::CopyOut(copy) => copy.next_piece().map(|piece| match piece {
                Some(data) => CopyStep::Data(data),
                None => CopyStep::Done { tag: format!("COPY {}", copy.rows()) },
            }),
            _ => Err(SqlError::new(state::PROTOCOL_VIOLATION, "there is no COPY TO to take data from")),
        };
        if matches!(result, Ok(CopyStep::Done { .. })) {
            self.active = Active::None;
        }
        self.guard(result)
    }
}

/// Positions of the columns a COPY names.
fn column_positions(columns: &[Name], fields: &[Field], table: &str) -> Result<Vec<usize>> {
    let mut positions = Vec::new();
    for name in columns {
        let missing = || {
            SqlError::new(
                state::UNDEFINED_COLUMN,
                format!("column \"{}\" of relation \"{table}\" does not exist", name.text),
            )
        };
        let position = fields.iter().position(|f| *f.name == *name.text).ok_or_else(missing)?;
        if positions.contains(&position) {
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", name.text),
            ));
        }
        positions.push(position);
    }
    Ok(positions)
}
