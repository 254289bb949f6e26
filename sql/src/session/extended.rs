//! The extended protocol: prepared statements, portals, parameters; and PREPARE and EXECUTE, which share them.
//!
//! A prepared statement keeps its plan as long as the definitions stay the same. Between two Syncs all statements are one transaction, which
//! Sync commits.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::plans;
use super::query::{Planned, Ran, Rows, Tag, is_query};
use super::transaction::{StatementCx, Status};
use super::{Active, Outcome, Session, StatementShape, one_statement};
use crate::bind::ParamTypes;
use crate::codec::row::storage_cx;
use crate::error::{Result, SqlError, state};
use crate::exec::value;
use crate::ir::Field;
use crate::memory::{self, Reservation};
use crate::parse::ast::{self, StatementKind};
use crate::types::{Datum, Type, io};

/// A prepared statement.
pub(super) struct Prepared {
    /// None if the text had none.
    pub statement: Option<Arc<ast::Statement>>,
    /// Parameter types.
    pub params: Vec<Type>,
    /// Shape of its rows.
    pub fields: Option<Arc<[Field]>>,
    planned: Mutex<Option<Arc<Planned>>>,
    /// What it holds as long as it is prepared.
    _held: Option<Reservation>,
}

/// A statement with its parameters, ready to run.
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    params: Vec<Datum>,
    binary: Arc<[bool]>,
    state: PortalState,
    /// The memory of its parameters.
    _held: Reservation,
}

enum PortalState {
    Ready,
    /// It gave some rows and has more.
    Suspended(Box<Rows>),
    Done,
}

impl Session {
    /// Parse. An empty name replaces the unnamed statement; type 0 (or a missing one) is inferred.
    pub fn parse(&mut self, name: &str, sql: &str, param_types: &[Type]) -> Result<()> {
        self.hear(sql);
        let result = self.parse_inner(name, sql, param_types);
        self.guard(result)
    }

    /// A message about a statement that is prepared; Execute behind Bind says nothing new.
    fn hear_of(&mut self, prepared: Option<Arc<Prepared>>) {
        if self.has_heard && prepared.as_ref().is_some_and(|p| self.shown.as_ref().is_some_and(|s| Arc::ptr_eq(s, p))) {
            self.start_clock();
            return;
        }
        let text = prepared.as_ref().and_then(|p| p.statement.as_ref()).map(|s| s.source.clone());
        self.hear(text.as_deref().unwrap_or(""));
        self.shown = prepared;
    }

    fn parse_inner(&mut self, name: &str, sql: &str, param_types: &[Type]) -> Result<()> {
        if name.is_empty() {
            self.statements.remove(name);
        }
        let held = self.instance.memory().reserve("A prepared statement", memory::of_text(sql))?;
        let known = self.prepare_known(name, sql, param_types)?;
        let prepared = match known {
            Some(prepared) => prepared,
            None => {
                let statement = one_statement(&self.shared.cancel, sql)?;
                if !name.is_empty() && self.statements.contains_key(name) {
                    return Err(duplicate(name));
                }
                self.prepare(statement, param_types.to_vec(), Some(sql))?
            }
        };
        self.statements.insert(name.to_owned(), Arc::new(Prepared { _held: Some(held), ..prepared }));
        Ok(())
    }

    /// A statement that a session prepared before, if the plan cache has it.
    fn prepare_known(&mut self, name: &str, sql: &str, types: &[Type]) -> Result<Option<Prepared>> {
        let is_taken = !name.is_empty() && self.statements.contains_key(name);
        if is_taken || self.block.status == Status::Failed || self.awaits_first_head() {
            return Ok(None);
        }
        let mut found = None;
        let planned = self.plan_under_locks(|session, cx| {
            found = session.find_shared(sql, types, cx);
            found.as_ref().map(|shared| shared.planned.clone()).ok_or_else(plans::not_kept)
        });
        let Some(shared) = found else { return Ok(None) };
        planned?;
        Ok(Some(Prepared {
            statement: Some(shared.statement.clone()),
            params: shared.params.clone(),
            fields: shared.planned.gives_rows.then(|| shared.planned.fields.clone()),
            planned: Mutex::new(Some(shared.planned.clone())),
            _held: None,
        }))
    }

    /// Binds a statement as far as its parameters' types and its shape. `sql`: it is the statement of this text, which others may prepare, too.
    pub(super) fn prepare(
        &mut self,
        statement: Option<ast::Statement>,
        types: Vec<Type>,
        sql: Option<&str>,
    ) -> Result<Prepared> {
        let statement = statement.map(Arc::new);
        let Some(found) = &statement else {
            return Ok(Prepared { statement, params: types, fields: None, planned: Mutex::new(None), _held: None });
        };
        self.check_not_failed(&found.kind)?;
        if !is_query(&found.kind) {
            let fields = self.utility_fields(&found.kind);
            return Ok(Prepared { statement, params: types, fields, planned: Mutex::new(None), _held: None });
        }
        let (params, planned) = self.with_first_head(|session| {
            let mut params = ParamTypes::none();
            let (planned, cx) = session.plan_under_locks(|session, cx| {
                params = ParamTypes::declared(types.clone());
                session.plan(found, &params, cx).map(Arc::new)
            })?;
            if let (Some(sql), Ok(params)) = (sql, params.finish()) {
                let shared = plans::Shared { statement: found.clone(), params, planned: planned.clone() };
                session.share(sql, &types, shared, &cx);
            }
            Ok((params, planned))
        })?;
        Ok(Prepared {
            params: params.finish()?,
            fields: planned.gives_rows.then(|| planned.fields.clone()),
            planned: Mutex::new(Some(planned)),
            _held: None,
            statement,
        })
    }

    /// The prepared statement's plan under today's definitions.
    fn planned(&self, prepared: &Prepared, cx: &StatementCx) -> Result<Arc<Planned>> {
        let kept = prepared.planned.lock().clone();
        if let Some(planned) = kept.filter(|p| p.is_current(cx)) {
            return Ok(planned);
        }
        let Some(statement) = &prepared.statement else {
            return Err(SqlError::internal("an empty statement has no plan"));
        };
        let planned = Arc::new(self.plan(statement, &ParamTypes::fixed(prepared.params.clone()), cx)?);
        let is_alike =
            |a: &[Field], b: &[Field]| a.iter().map(|f| (f.ty, &f.name)).eq(b.iter().map(|f| (f.ty, &f.name)));
        if prepared.fields.as_ref().is_some_and(|f| !is_alike(f, &planned.fields)) {
            // Drivers that keep statements themselves know by the routine to prepare it anew.
            let error = SqlError::new(state::FEATURE_NOT_SUPPORTED, "cached plan must not change result type");
            return Err(error.routine("RevalidateCachedQuery"));
        }
        *prepared.planned.lock() = Some(planned.clone());
        Ok(planned)
    }

    /// Describe of a statement.
    pub fn describe_statement(&mut self, name: &str) -> Result<StatementShape> {
        let found =
            self.find_statement(name).map(|p| StatementShape { params: p.params.clone(), fields: p.fields.clone() });
        self.guard(found)
    }

    pub(super) fn find_statement(&self, name: &str) -> Result<Arc<Prepared>> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let what = if name.is_empty() {
                "unnamed prepared statement".to_owned()
            } else {
                format!("prepared statement \"{name}\"")
            };
            SqlError::new(state::INVALID_SQL_STATEMENT_NAME, format!("{what} does not exist"))
        })
    }

    /// Bind. Formats are the wire's: none (all text), one for all, or one each; 0 text, 1 binary.
    pub fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        params: Vec<Option<Bytes>>,
        param_formats: &[i16],
        result_formats: &[i16],
    ) -> Result<()> {
        self.hear_of(self.statements.get(statement).cloned());
        let result = self.bind_inner(portal, statement, &params, param_formats, result_formats);
        self.guard(result)
    }

    fn bind_inner(
        &mut self,
        portal: &str,
        name: &str,
        params: &[Option<Bytes>],
        param_formats: &[i16],
        result_formats: &[i16],
    ) -> Result<()> {
        let prepared = self.find_statement(name)?;
        if let Some(code) = param_formats.iter().chain(result_formats).find(|code| !matches!(code, 0 | 1)) {
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("unsupported format code: {code}")));
        }
        let protocol = |message: String| SqlError::new(state::PROTOCOL_VIOLATION, message);
        if params.len() != prepared.params.len() {
            let (given, wanted) = (params.len(), prepared.params.len());
            return Err(protocol(format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
            )));
        }
        if let Some(found) = &prepared.statement {
            self.check_not_failed(&found.kind)?;
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(SqlError::new(state::DUPLICATE_CURSOR, format!("cursor \"{portal}\" already exists")));
        }
        let formats = expand(param_formats, params.len()).ok_or_else(|| {
            protocol(format!(
                "bind message has {} parameter formats but {} parameters",
                param_formats.len(),
                params.len()
            ))
        })?;
        let mut values = Vec::with_capacity(params.len());
        if !params.is_empty() {
            // Most types' input asks nothing of the session: no statement's surroundings are made for them.
            let asks = prepared.params.iter().any(|ty| !is_read_alike_everywhere(*ty));
            let made = if asks { Some(self.statement()?.cx) } else { None };
            let cx = made.as_deref().unwrap_or(storage_cx());
            for (i, (bytes, ty)) in params.iter().zip(&prepared.params).enumerate() {
                values.push(match bytes {
                    None => Datum::Null,
                    Some(bytes) if formats[i] => io::binary_in(bytes, ty.plain())?,
                    Some(bytes) => io::text_in(io::utf8(bytes)?, ty.plain(), cx)?,
                });
            }
        }
        let columns = prepared.fields.as_ref().map_or(0, |f| f.len());
        let binary = expand(result_formats, columns).filter(|_| columns > 0 || result_formats.len() <= 1);
        let binary = binary.ok_or_else(|| {
            protocol(format!(
                "bind message has {} result formats but query has {columns} columns",
                result_formats.len()
            ))
        })?;
        // A portal of this name (the unnamed one) goes first, and what it held.
        self.portals.remove(portal);
        let held = self.instance.memory().reserve("A portal", size_of::<Portal>() + value::row_bytes(&values))?;
        self.portals.insert(
            portal.to_owned(),
            Portal { prepared, params: values, binary: binary.into(), state: PortalState::Ready, _held: held },
        );
        Ok(())
    }

    /// Describe of a portal: its columns and which are sent in binary; None for NoData.
    #[allow(clippy::type_complexity)]
    pub fn describe_portal(&mut self, name: &str) -> Result<Option<(Arc<[Field]>, Arc<[bool]>)>> {
        let found = match self.portals.get(name) {
            Some(portal) => Ok(portal.prepared.fields.clone().map(|f| (f, portal.binary.clone()))),
            None => Err(no_portal(name)),
        };
        self.guard(found)
    }

    /// Execute, for at most so many rows (0: all). The outcome is followed up as in the simple protocol.
    pub fn execute(&mut self, portal: &str, max_rows: usize) -> Result<Outcome> {
        self.hear_of(self.portals.get(portal).map(|p| p.prepared.clone()));
        self.drop_active();
        let result = self.execute_inner(portal, max_rows);
        self.guard(result)
    }

    fn execute_inner(&mut self, name: &str, max_rows: usize) -> Result<Outcome> {
        let limit = (max_rows > 0).then_some(max_rows);
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let (prepared, params, binary) = (portal.prepared.clone(), portal.params.clone(), portal.binary.clone());
        match std::mem::replace(&mut portal.state, PortalState::Done) {
            PortalState::Suspended(mut rows) => {
                rows.go_on(limit);
                let outcome = rows.outcome();
                self.active = Active::Rows(rows, Some(name.to_owned()));
                return Ok(outcome);
            }
            PortalState::Done if prepared.fields.is_some() => {
                let tag = match prepared.statement.as_ref().map(|s| &s.kind) {
                    Some(StatementKind::Insert(_)) => Tag::Insert.text(0),
                    Some(StatementKind::Update(_)) => Tag::Update.text(0),
                    Some(StatementKind::Delete(_)) => Tag::Delete.text(0),
                    Some(StatementKind::Show { .. } | StatementKind::ShowAll) => "SHOW".to_owned(),
                    Some(StatementKind::Explain(_)) => "EXPLAIN".to_owned(),
                    _ => Tag::Select.text(0),
                };
                return Ok(Outcome::Command { tag });
            }
            PortalState::Done if prepared.statement.is_some() => {
                return Err(SqlError::new(
                    state::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                ));
            }
            PortalState::Ready | PortalState::Done => {}
        }
        let Some(statement) = &prepared.statement else { return Ok(Outcome::Empty) };
        self.check_not_failed(&statement.kind)?;
        if let Some(outcome) = self.transaction_control(statement)? {
            return Ok(outcome);
        }
        if !is_query(&statement.kind) {
            let outcome = self.utility(statement, false)?;
            if let Active::Rows(rows, portal) = &mut self.active {
                rows.go_on(limit);
                (rows.binary, *portal) = (binary, Some(name.to_owned()));
                return Ok(rows.outcome());
            }
            return Ok(outcome);
        }
        let mut ran = if self.awaits_first_head() {
            self.with_first_head(|session| session.run_prepared(&prepared, params.clone()))?
        } else {
            self.run_prepared(&prepared, params)?
        };
        if let Ran::Rows(rows) = &mut ran {
            rows.go_on(limit);
            rows.binary = binary;
        }
        Ok(self.give(ran, Some(name.to_owned())))
    }

    /// Runs a prepared query or change.
    pub(super) fn run_prepared(&mut self, prepared: &Arc<Prepared>, params: Vec<Datum>) -> Result<Ran> {
        let (planned, cx) = self.plan_under_locks(|session, cx| session.planned(prepared, cx))?;
        self.run_planned(&planned, params, &cx)
    }

    /// Keeps a portal that has more rows.
    pub(super) fn suspend(&mut self, portal: Option<String>) {
        if let (Active::Rows(rows, _), Some(name)) = (std::mem::replace(&mut self.active, Active::None), portal)
            && let Some(portal) = self.portals.get_mut(&name)
        {
            portal.state = PortalState::Suspended(rows);
        }
    }
    /// A portal gave all its rows.
    pub(super) fn finish_portal(&mut self, portal: Option<String>) {
        if let Some(portal) = portal.and_then(|name| self.portals.get_mut(&name)) {
            portal.state = PortalState::Done;
        }
    }

    /// Close of a statement; one that is not there is no error.
    pub fn close_statement(&mut self, name: &str) {
        self.statements.remove(name);
    }
    /// Close of a portal.
    pub fn close_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// Sync: ends the implicit transaction. Call it after errors too: then it rolls back and succeeds.
    pub fn sync(&mut self) -> Result<()> {
        self.drop_active();
        self.has_heard = false;
        self.shown = None;
        if self.block.status == Status::Idle {
            // Bind alone begins no transaction here; portals do not outlive the one it would be in.
            self.portals.clear();
        }
        if self.block.status != Status::Implicit {
            return Ok(());
        }
        let result = self.commit().map_err(SqlError::from);
        self.guard(result)
    }
}

/// Whether a type's text means the same whatever the settings, the time and the definitions are.
fn is_read_alike_everywhere(ty: Type) -> bool {
    matches!(
        ty,
        Type::BOOL
            | Type::INT2
            | Type::INT4
            | Type::INT8
            | Type::FLOAT4
            | Type::FLOAT8
            | Type::NUMERIC
            | Type::TEXT
            | Type::VARCHAR
            | Type::BPCHAR
            | Type::BYTEA
            | Type::UUID
    )
}

fn duplicate(name: &str) -> SqlError {
    SqlError::new(state::DUPLICATE_PREPARED_STATEMENT, format!("prepared statement \"{name}\" already exists"))
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(state::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

/// One format for each: true is binary. None if their number fits neither rule.
fn expand(formats: &[i16], count: usize) -> Option<Vec<bool>> {
    match formats {
        [] => Some(vec![false; count]),
        [one] => Some(vec![*one == 1; count]),
        many if many.len() == count => Some(many.iter().map(|f| *f == 1).collect()),
        _ => None,
    }
}

impl Session {
    /// PREPARE.
    pub(super) fn prepare_named(&mut self, name: &str, types: Vec<Type>, statement: &ast::Statement) -> Result<()> {
        if self.statements.contains_key(name) {
            return Err(duplicate(name));
        }
        let held = self.instance.memory().reserve("A prepared statement", memory::of_text(&statement.source))?;
        let prepared = self.prepare(Some(statement.clone()), types, None)?;
        self.statements.insert(name.to_owned(), Arc::new(Prepared { _held: Some(held), ..prepared }));
        Ok(())
    }
    /// The statement EXECUTE names, which must be a query or a change.
    pub(super) fn executable(&self, name: &str) -> Result<Arc<Prepared>> {
        let prepared = self.find_statement(name)?;
        let kind = prepared.statement.as_ref().map(|s| &s.kind);
        match kind {
            Some(kind) if is_query(kind) => Ok(prepared),
            Some(StatementKind::Execute { .. }) | None => Err(SqlError::unsupported("EXECUTE of this statement")),
            Some(_) => Err(SqlError::unsupported("EXECUTE of a utility statement")),
        }
    }
}
