//! Statements that the session carries out itself: settings, prepared statements, EXPLAIN, definitions, databases, upkeep.

use std::sync::Arc;
use std::time::Instant;

use super::follower::followed_by;
use super::instance::SUPERUSER_NAME;
use super::listen::Pending;
use super::locking::Own;
use super::query::{Ending, Rows, is_query};
use super::settings::IsolationLevel;
use super::shared::on_or_off;
use super::swarm::ANNOUNCE;
use super::transaction::{StatementCx, Status, resolver};
use super::{Active, Outcome, Session};
use crate::bind::{self, BindEnv, ParamTypes};
use crate::catalog::Catalog;
use crate::catalog::change::Change;
use crate::catalog::ddl::{self, DdlCx};
use crate::catalog::schema::Relation;
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::exec::{self, RowBuffer};
use crate::ir::Field;
use crate::lock::TableMode;
use crate::parse::ast::{self, DefValue, DiscardKind, Explain, Expr, QName, SetValue, StatementKind};
use crate::plan::{self, ExplainOptions, PlanCx, Planning};
use crate::types::{Datum, Type};
use crate::write::{DmlPlans, Writer};

/// Columns of the rows these statements give.
fn text_fields(names: &[&str]) -> Arc<[Field]> {
    names.iter().map(|n| Field { name: Arc::from(*n), ty: Type::TEXT.plain(), table_oid: 0, attnum: 0 }).collect()
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the latter three in base64. Source: PostgreSQL's parse_scram_secret.
fn is_scram_verifier(text: &str) -> bool {
    let is_base64 = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
    };
    let pairs = text.strip_prefix("SCRAM-SHA-256$").and_then(|rest| rest.split_once('$'));
    let halves = pairs.and_then(|(salt, keys)| Some((salt.split_once(':')?, keys.split_once(':')?)));
    halves.is_some_and(|((iterations, salt), (stored, server))| {
        iterations.parse::<u32>().is_ok_and(|n| n > 0) && [salt, stored, server].into_iter().all(is_base64)
    })
}

pub(super) fn command(tag: &str) -> Result<Outcome> {
    Ok(Outcome::Command { tag: tag.to_owned() })
}

impl Session {
    /// The shape of a utility statement's rows, if it gives any.
    pub(super) fn utility_fields(&self, kind: &StatementKind) -> Option<Arc<[Field]>> {
        match kind {
            StatementKind::Show { name } => Some(text_fields(&[&shown_name(name)])),
            StatementKind::ShowAll => Some(text_fields(&["name", "setting", "description"])),
            StatementKind::Explain(_) => Some(text_fields(&["QUERY PLAN"])),
            StatementKind::Execute { name, .. } => self.statements.get(&name.text).and_then(|p| p.fields.clone()),
            _ => None,
        }
    }

    /// Carries out a statement that is no query. `own`: it is a transaction of its own, if none is open.
    pub(super) fn utility(&mut self, statement: &ast::Statement, own: bool) -> Result<Outcome> {
        match &statement.kind {
            StatementKind::CreateIndex(create) if create.concurrently => {
                return self.create_index_concurrently(statement, create);
            }
            StatementKind::Drop { kind: ast::ObjectKind::Index, names, cascade, concurrently: true, .. } => {
                return self.drop_index_concurrently(statement, names, *cascade);
            }
            _ => {}
        }
        if ddl::is_ddl(&statement.kind) {
            let own = own && self.block.status == Status::Idle;
            let tag = if own { self.retrying(|s| s.define(statement))? } else { self.define(statement)? };
            return Ok(Outcome::Command { tag });
        }
        match &statement.kind {
            StatementKind::Set { name, local, value } => self.set(name, *local, value),
            StatementKind::Reset { name } => {
                self.in_block();
                self.shared.settings.lock().reset(name, false)?;
                command("RESET")
            }
            StatementKind::ResetAll => {
                self.in_block();
                self.shared.settings.lock().reset_all()?;
                command("RESET")
            }
            StatementKind::Show { name } => self.show(name),
            StatementKind::ShowAll => {
                let all = self.shared.settings.lock().all();
                let announced = || on_or_off(self.instance.is_announced(&self.shared.db.name)).to_owned();
                let row = |(n, v, d): (&str, String, &str)| {
                    let v = if n == ANNOUNCE { announced() } else { v };
                    vec![Datum::text(n), Datum::text(v), Datum::text(d)]
                };
                self.give_rows(&["name", "setting", "description"], all.into_iter().map(row).collect(), "SHOW")
            }
            StatementKind::Discard(kind) => self.discard(*kind),
            StatementKind::Prepare { name, types, statement } => {
                let cx = self.statement()?;
                let source = &statement.source;
                let types = types.iter().map(|t| self.resolve_type(t, source, &cx)).collect::<Result<_>>()?;
                self.prepare_named(&name.text, types, statement)?;
                command("PREPARE")
            }
            StatementKind::Execute { name, args } => self.execute_named(&name.text, args, &statement.source, own),
            StatementKind::Deallocate(name) => self.deallocate(name.as_ref().map(|n| n.text.as_str())),
            StatementKind::Explain(explain) => self.explain(explain, own),
            StatementKind::Copy(copy) => self.copy(copy, &statement.source),
            StatementKind::SetPassword { role, password } => self.set_password(&role.text, password.as_deref()),
            StatementKind::CreateDatabase { name, options } => {
                self.refuse_in_block("CREATE DATABASE")?;
                match followed_by(options)? {
                    Some((key, peers, read_key)) => {
                        self.instance.follow_database(&name.text, key, &peers, read_key.as_ref())?;
                    }
                    None => {
                        check_database_options(options, &self.user)?;
                        match is_encrypted(options)? {
                            true => self.instance.create_encrypted_database(&name.text)?,
                            false => self.instance.create_database(&name.text)?,
                        }
                    }
                }
                command("CREATE DATABASE")
            }
            StatementKind::AlterDatabase { database, setting, value } => {
                self.alter_database(&database.text, setting.as_deref(), value)
            }
            StatementKind::DropDatabase { name, if_exists, force } => {
                self.drop_database(&name.text, *if_exists, *force)
            }
            StatementKind::Vacuum { tables } => {
                self.refuse_on_follower("VACUUM")?;
                self.refuse_in_block("VACUUM")?;
                self.check_columns(tables)?;
                command("VACUUM")
            }
            StatementKind::Analyze { tables } => {
                self.refuse_on_follower("ANALYZE")?;
                self.check_columns(tables)?;
                command("ANALYZE")
            }
            StatementKind::Lock { tables, mode, nowait } => self.lock_tables(tables, mode, *nowait, own),
            StatementKind::Checkpoint => command("CHECKPOINT"),
            StatementKind::Reindex { kind, name, concurrently } => {
                self.refuse_on_follower("REINDEX")?;
                self.reindex(*kind, name, *concurrently, statement)
            }
            StatementKind::Listen(channel) => self.listen(Pending::Listen(channel.text.clone()), "LISTEN"),
            StatementKind::Unlisten(Some(channel)) => self.listen(Pending::Unlisten(channel.text.clone()), "UNLISTEN"),
            StatementKind::Unlisten(None) => self.listen(Pending::UnlistenAll, "UNLISTEN"),
            StatementKind::Notify { channel, payload } => {
                self.in_block();
                self.shared.listening.lock().notify(&channel.text, payload.as_deref().unwrap_or_default())?;
                command("NOTIFY")
            }
            // There is nothing these could find, so there is nothing to do.
            StatementKind::Close(None) => command("CLOSE CURSOR ALL"),
            StatementKind::Close(Some(name)) | StatementKind::Fetch(name) => {
                Err(SqlError::new(state::INVALID_CURSOR_NAME, format!("cursor \"{}\" does not exist", name.text)))
            }
            StatementKind::SetConstraints { names, deferred } => {
                self.set_constraints(names, *deferred)?;
                command("SET CONSTRAINTS")
            }
            other => Err(SqlError::unsupported(unsupported_words(other))),
        }
    }

    /// ALTER ROLE .. PASSWORD. The password itself never comes here: it would stand in logs and in the client's history.
    fn set_password(&mut self, role: &str, password: Option<&str>) -> Result<Outcome> {
        self.refuse_in_block("ALTER ROLE .. PASSWORD")?;
        if role != SUPERUSER_NAME {
            return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("role \"{role}\" does not exist")));
        }
        if password.is_some_and(|p| !is_scram_verifier(p)) {
            return Err(SqlError::unsupported("a password that is not hashed by the client")
                .hint("psql's \\password hashes it before it is sent."));
        }
        self.instance.set_password_verifier(role, password)?;
        command("ALTER ROLE")
    }

    /// SET outside of a block lasts: its transaction is the statement.
    fn in_block(&mut self) {
        if self.block.status == Status::Idle {
            self.begin(Status::Implicit);
        }
    }

    /// LISTEN and UNLISTEN: done when the transaction commits.
    fn listen(&mut self, what: Pending, tag: &str) -> Result<Outcome> {
        self.in_block();
        self.shared.listening.lock().ask(what);
        command(tag)
    }

    pub(super) fn refuse_in_block(&mut self, what: &str) -> Result<()> {
        let in_string = self.script.as_ref().is_some_and(|script| !script.single);
        if self.block.status == Status::Explicit || self.shared.txn.is_open() || in_string {
            return Err(SqlError::new(
                state::ACTIVE_SQL_TRANSACTION,
                format!("{what} cannot run inside a transaction block"),
            ));
        }
        Ok(())
    }

    /// Rows made by the session itself.
    pub(super) fn give_rows(&mut self, names: &[&str], rows: Vec<Vec<Datum>>, tag: &'static str) -> Result<Outcome> {
        let rows = Rows::buffered(RowBuffer::of(names.len(), &rows)?, text_fields(names), Ending::Fixed(tag));
        let outcome = rows.outcome();
        self.active = Active::Rows(Box::new(rows), None);
        Ok(outcome)
    }

    // Definitions

    /// A statement that changes definitions, inside the transaction. What it names is locked first; if it meets a definition that others changed
    /// meanwhile, what it did is dropped and it begins anew: it has claimed the definition by then.
    pub(super) fn define(&mut self, statement: &ast::Statement) -> Result<String> {
        loop {
            let cx = self.statement_under_locks(|s, cx| {
                // It changes the newest definitions, whatever its snapshot is.
                let catalog = s.newest_definitions()?;
                let params = ParamTypes::none();
                let env = s.env_of(catalog, &params, cx);
                Ok(ddl::lock::wanted(&statement.kind, &statement.source, &env))
            })?;
            let sequences = self.shared.sequences.lock().own.len();
            self.begin_writes(&cx, ddl_word(&statement.kind))?;
            match self.define_once(statement, &cx)? {
                Some(tag) => return Ok(tag),
                None => {
                    self.abort_writes();
                    self.shared.sequences.lock().own.truncate(sequences);
                }
            }
        }
    }

    /// None: definitions were stale.
    fn define_once(&mut self, statement: &ast::Statement, cx: &StatementCx) -> Result<Option<String>> {
        self.exec_cx(cx, Vec::new(), None)?;
        let base = self.newest_catalog()?.stamp;
        let catalog = self.newest_definitions()?;
        let mut change = Change::guarded(catalog, self.guard_definitions(base)?);
        let mut notices = Vec::new();
        let mut ddl_cx = DdlCx {
            change: &mut change,
            session: &cx.cx,
            resolver: resolver(&self.shared),
            txn: &self.shared.txn,
            database: &self.shared.database,
            sequences: &self.shared.db.sequences,
            source: &statement.source,
            notices: &mut notices,
            host: &*self.shared,
            rows: 0,
        };
        let tag = ddl::run(&statement.kind, &mut ddl_cx);
        let rows = ddl_cx.rows;
        if change.is_stale() {
            self.shared.cancel.check()?;
            return Ok(None);
        }
        self.shared.notices.lock().extend(notices);
        let tag = tag?.ok_or_else(|| SqlError::internal("a statement that changes definitions was not known"))?;
        self.keep(change, base)?;
        self.block.rows += rows;
        Ok(Some(tag))
    }

    /// Writes what a statement made of definitions, which is then the transaction's own.
    pub(super) fn keep(&mut self, change: Change, base: u64) -> Result<()> {
        let is_changed = change.is_changed();
        let (catalog, writes, edits) = change.finish();
        for oid in writes.iter().filter_map(|(key, value)| value.is_none().then(|| keyspace::parse_sequence(key))?) {
            // What is remembered of a sequence goes with it.
            self.shared.db.sequences.close(oid);
            self.shared.sequences.lock().own.push(oid);
        }
        self.shared.txn.with(|t| {
            for (key, value) in writes {
                match value {
                    Some(value) => t.put_guarded(key, value)?,
                    None => t.delete_guarded(key)?,
                }
            }
            Ok(())
        })?;
        self.end_writes()?;
        if is_changed {
            self.block.own = Some(Own::after(self.block.own.as_ref(), base, catalog, edits));
        }
        Ok(())
    }

    /// The newest committed definitions, with what the transaction made of them.
    fn newest_definitions(&mut self) -> Result<Arc<Catalog>> {
        let newest = self.newest_catalog()?;
        Ok(match &mut self.block.own {
            Some(own) => own.over(&newest),
            None => newest,
        })
    }
    fn env_of<'a>(&'a self, catalog: Arc<Catalog>, params: &'a ParamTypes, cx: &'a StatementCx) -> BindEnv<'a> {
        let search_path = cx.cx.search_path.clone();
        BindEnv { catalog, search_path, params, resolver: resolver(&self.shared), session: &cx.cx }
    }

    fn drop_database(&mut self, name: &str, if_exists: bool, force: bool) -> Result<Outcome> {
        self.refuse_in_block("DROP DATABASE")?;
        if name == self.shared.db.name {
            return Err(SqlError::new("55006", "cannot drop the currently open database"));
        }
        if force {
            self.instance.end_sessions_of(name, &self.shared.cancel)?;
        }
        match self.instance.drop_database(name) {
            Err(e) if if_exists && e.state() == state::INVALID_CATALOG_NAME => {
                self.shared.notices.lock().push(super::Notice::new(format!("{}, skipping", e.message())));
            }
            other => other?,
        }
        command("DROP DATABASE")
    }

    fn check_columns(&mut self, tables: &[ast::VacuumTable]) -> Result<()> {
        for ast::VacuumTable { name, columns } in tables {
            self.check_tables(std::slice::from_ref(name))?;
            let Some(Relation::Table(table)) = self.named_relation(name)? else { continue };
            for (i, column) in columns.iter().enumerate() {
                let about = format!("column \"{}\" of relation \"{}\"", column.text, table.name);
                if table.column(&column.text).is_none() {
                    return Err(SqlError::new(state::UNDEFINED_COLUMN, format!("{about} does not exist")));
                }
                if columns[..i].iter().any(|c| c.text == column.text) {
                    return Err(SqlError::new(state::DUPLICATE_COLUMN, format!("{about} appears more than once")));
                }
            }
        }
        Ok(())
    }

    /// REINDEX: what entries lack is added, what is too many removed. Rows are their own primary key, which has nothing to mend.
    fn reindex(
        &mut self,
        kind: ast::ObjectKind,
        name: &QName,
        concurrently: bool,
        statement: &ast::Statement,
    ) -> Result<Outcome> {
        if concurrently {
            self.refuse_in_block("REINDEX CONCURRENTLY")?;
        }
        let is_own = |table: &crate::catalog::Table| table.foreign.is_none();
        match kind {
            ast::ObjectKind::Schema => {
                self.refuse_in_block("REINDEX SCHEMA")?;
                let catalog = self.statement()?.cx.catalog.clone();
                let Some(schema) = catalog.schema_oid(name.last()) else {
                    let message = format!("schema \"{}\" does not exist", name.last());
                    return Err(SqlError::new(state::INVALID_SCHEMA_NAME, message));
                };
                let tables = catalog.tables().filter(|t| is_own(t) && t.schema == schema).map(|t| t.oid).collect();
                self.reindex_tables(tables, concurrently, statement)?;
            }
            ast::ObjectKind::Database => {
                self.refuse_in_block("REINDEX DATABASE")?;
                if name.last() != self.shared.db.name {
                    return Err(SqlError::new(
                        state::FEATURE_NOT_SUPPORTED,
                        "can only reindex the currently open database",
                    ));
                }
                let catalog = self.statement()?.cx.catalog.clone();
                let tables = catalog.tables().filter(|t| is_own(t)).map(|t| t.oid).collect();
                self.reindex_tables(tables, concurrently, statement)?;
            }
            _ => {
                let missing = || SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
                let found = self.named_relation(name)?.ok_or_else(missing)?;
                let wanted = match (kind, &found) {
                    (ast::ObjectKind::Index, Relation::Index(..)) => None,
                    (ast::ObjectKind::Index, _) => Some("an index"),
                    (_, Relation::Table(_) | Relation::Virtual(_)) => None,
                    _ => Some("a table or materialized view"),
                };
                if let Some(wanted) = wanted {
                    let message = format!("\"{}\" is not {wanted}", found.name());
                    return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
                }
                match found {
                    Relation::Index(table, oid) if concurrently => self.reindex_concurrently(&table, Some(oid))?,
                    Relation::Table(table) if concurrently => self.reindex_concurrently(&table, None)?,
                    _ => {
                        self.define(statement)?;
                    }
                }
            }
        }
        command("REINDEX")
    }

    fn named_relation(&mut self, name: &QName) -> Result<Option<Relation>> {
        let cx = self.statement()?;
        self.with_env(&cx, &ParamTypes::none(), |env| bind::find_relation(name, env))
    }

    fn check_tables(&mut self, names: &[QName]) -> Result<()> {
        self.statement_under_locks(|session, cx| {
            let mut wanted = Vec::new();
            for name in names {
                let found = session.with_env(cx, &ParamTypes::none(), |env| bind::find_relation(name, env))?;
                if let Some(Relation::Table(table)) = found {
                    wanted.push((table.oid, TableMode::ShareUpdateExclusive));
                }
            }
            Ok(wanted)
        })?;
        for name in names {
            match self.named_relation(name)? {
                Some(Relation::Table(t)) if t.foreign.is_none() => {}
                Some(Relation::Virtual(_)) => {}
                Some(other) => {
                    let message =
                        format!("skipping \"{}\" --- cannot vacuum non-tables or special system tables", other.name());
                    self.warn("01000", &message);
                }
                None => {
                    return Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")));
                }
            }
        }
        Ok(())
    }

    /// Works with the binder's surroundings of a statement.
    pub(super) fn with_env<T>(
        &self,
        cx: &StatementCx,
        params: &ParamTypes,
        f: impl FnOnce(&BindEnv<'_>) -> Result<T>,
    ) -> Result<T> {
        f(&BindEnv {
            catalog: cx.cx.catalog.clone(),
            search_path: cx.cx.search_path.clone(),
            params,
            resolver: resolver(&self.shared),
            session: &cx.cx,
        })
    }

    fn resolve_type(&self, ty: &ast::TypeName, source: &str, cx: &StatementCx) -> Result<Type> {
        Ok(self.with_env(cx, &ParamTypes::none(), |env| bind::resolve_type(ty, source, env))?.ty)
    }

    // Settings

    fn set(&mut self, name: &str, local: bool, value: &SetValue) -> Result<Outcome> {
        if local && self.block.status != Status::Explicit {
            self.warn(state::NO_ACTIVE_SQL_TRANSACTION, "SET LOCAL can only be used in transaction blocks");
        }
        self.in_block();
        let lower = name.to_ascii_lowercase();
        if let Some(modes) = transaction_modes(&lower, value)? {
            self.set_transaction(&modes)?;
            return command("SET");
        }
        if lower == "bee.as_of"
            && let SetValue::Values(values) = value
        {
            // A version that is none is refused here and not at the next statement.
            let text = values.join(", ");
            if !text.trim().is_empty() {
                let catalog = self.newest_catalog()?;
                self.shared.parse_as_of(&text, &catalog)?;
            }
        }
        let mut settings = self.shared.settings.lock();
        match value {
            SetValue::Default => settings.reset(name, local)?,
            SetValue::Current => {}
            SetValue::Values(values) => settings.set(name, values, local)?,
            SetValue::Interval(text) => settings.set(name, &[format!("INTERVAL '{text}'")], local)?,
        }
        command("SET")
    }

    fn show(&mut self, name: &str) -> Result<Outcome> {
        let lower = name.to_ascii_lowercase();
        let value = match lower.as_str() {
            "transaction_isolation" if self.block.status != Status::Idle => self.block.isolation.name().to_owned(),
            "transaction_isolation" => self.shared.settings.lock().derived().isolation.name().to_owned(),
            "transaction_read_only" => {
                let derived = self.shared.settings.lock().derived().clone();
                let idle = self.block.status == Status::Idle;
                let read_only = if idle { derived.read_only } else { self.block.read_only };
                let on = read_only || !derived.as_of.is_empty() || self.shared.is_follower();
                if on { "on" } else { "off" }.to_owned()
            }
            "transaction_deferrable" if self.block.status != Status::Idle => {
                on_or_off(self.block.deferrable).to_owned()
            }
            "transaction_deferrable" => on_or_off(self.shared.settings.lock().derived().deferrable).to_owned(),
            ANNOUNCE => on_or_off(self.instance.is_announced(&self.shared.db.name)).to_owned(),
            _ => self.shared.settings.lock().show(name)?,
        };
        self.give_rows(&[&shown_name(name)], vec![vec![Datum::text(value)]], "SHOW")
    }

    fn discard(&mut self, kind: DiscardKind) -> Result<Outcome> {
        match kind {
            DiscardKind::All => {
                self.refuse_in_block("DISCARD ALL")?;
                self.portals.clear();
                self.statements.clear();
                self.in_block();
                self.shared.settings.lock().reset_all()?;
                self.shared.sequences.lock().forget();
                self.shared.txn.locks().advisory_unlock_all();
                self.shared.listening.lock().ask(Pending::UnlistenAll);
                command("DISCARD ALL")
            }
            // Plans are checked against the definitions whenever they are used.
            DiscardKind::Plans => command("DISCARD PLANS"),
            DiscardKind::Sequences => {
                self.shared.sequences.lock().forget();
                command("DISCARD SEQUENCES")
            }
            DiscardKind::Temp => command("DISCARD TEMP"),
        }
    }

    // Prepared statements

    fn execute_named(&mut self, name: &str, args: &[Expr], source: &str, own: bool) -> Result<Outcome> {
        let prepared = self.executable(name)?;
        let cx = self.statement()?;
        let bound = self.with_env(&cx, &ParamTypes::none(), |env| {
            bind::bind_arguments(name, args, &prepared.params, source, env)
        })?;
        let mut params = Vec::with_capacity(args.len());
        if !args.is_empty() {
            let exec_cx = self.exec_cx(&cx, Vec::new(), None)?;
            for e in &bound {
                params.push(exec::eval(e, &[], &exec_cx)?);
            }
        }
        let ran = self.run_prepared(&prepared, params)?;
        let writes = prepared.statement.as_ref().is_some_and(|s| !matches!(s.kind, StatementKind::Query(_)));
        if own && writes && self.block.status == Status::Implicit {
            self.commit()?;
        }
        Ok(self.give(ran, None))
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome> {
        let Some(name) = name else {
            self.statements.clear();
            return command("DEALLOCATE ALL");
        };
        self.find_statement(name)?;
        self.statements.remove(name);
        command("DEALLOCATE")
    }

    // EXPLAIN

    fn explain(&mut self, explain: &Explain, own: bool) -> Result<Outcome> {
        let mut options = explain_options(explain)?;
        let inner = &explain.statement;
        if !is_query(&inner.kind) {
            return Err(SqlError::unsupported("EXPLAIN of this statement"));
        }
        options.analyze |= explain.analyze;
        let writes = options.analyze && !matches!(&inner.kind, StatementKind::Query(_));
        let lines = self.explain_lines(inner, options)?;
        if own && writes && self.block.status == Status::Implicit {
            self.commit()?;
        }
        let rows = lines.into_iter().map(|l| vec![Datum::text(l)]).collect();
        self.give_rows(&["QUERY PLAN"], rows, "EXPLAIN")
    }

    fn explain_lines(&mut self, inner: &ast::Statement, options: ExplainOptions) -> Result<Vec<String>> {
        let start = Instant::now();
        let before = self.shared.waiting.fetched();
        let (cx, bound) = self.with_first_head(|session| {
            let mut bound = None;
            let cx = session.statement_under_locks(|session, cx| {
                let params = ParamTypes::declared(Vec::new());
                let found = session.with_env(cx, &params, |env| bind::bind(inner, env))?;
                let relations = found.rel().map(|rel| plan::relations(rel, &cx.cx.catalog)).unwrap_or_default();
                bound = Some(found);
                Ok(relations)
            })?;
            Ok((cx, bound.ok_or_else(|| SqlError::internal("nothing was bound"))?))
        })?;
        let writes = bound.writes();
        let rel = bound.rel().cloned().ok_or_else(|| SqlError::internal("nothing to explain"))?;
        let locks = plan::locks_rows(&rel).is_some();
        let plan = Arc::new(plan::plan(rel, &PlanCx::new(&cx.cx))?);
        let planning = Planning { took: start.elapsed(), fetched: self.shared.waiting.fetched().since(before) };
        if !options.analyze {
            return Ok(plan::explain(&plan, &cx.cx, options, Some(planning), None));
        }
        let mut writer = None;
        if writes || locks {
            let what = "EXPLAIN ANALYZE";
            let stay = if writes { self.begin_writes(&cx, what)? } else { self.open_writes(&cx, what)? };
            let (txn, memory) = (self.shared.txn.clone(), &cx.cx.memory);
            writer = Some(Arc::new(Writer::new(txn, Arc::<DmlPlans>::default(), true, memory, stay)));
        }
        let exec_cx = Arc::new(self.exec_cx(&cx, Vec::new(), writer.clone())?);
        exec_cx.shared.measure(plan.nodes);
        let start = Instant::now();
        let mut cursor = exec::open(&plan, exec_cx.clone())?;
        while cursor.next_batch()?.is_some() {}
        drop(cursor);
        let total = start.elapsed();
        if let Some(writer) = writer.filter(|_| writes) {
            self.end_writes()?;
            self.block.rows += writer.rows();
        }
        let measured = exec_cx.shared.metrics().map(|m| (m, total));
        let mut lines = plan::explain(&plan, &cx.cx, options, Some(planning), measured);
        if !options.summary {
            lines.retain(|l| !l.starts_with("Planning Time:") && !l.starts_with("Execution Time:"));
        }
        Ok(lines)
    }
}

/// SHOW's column: the setting's own spelling.
fn shown_name(name: &str) -> String {
    super::settings::definition(name).map_or_else(|| name.to_ascii_lowercase(), |d| d.name.to_owned())
}

/// `SET transaction_isolation = ...` and the like are SET TRANSACTION.
fn transaction_modes(name: &str, value: &SetValue) -> Result<Option<ast::TransactionModes>> {
    let SetValue::Values(values) = value else { return Ok(None) };
    let text = values.first().map_or("", String::as_str).to_ascii_lowercase();
    let invalid =
        || SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{name}\": \"{text}\""));
    let mut modes = ast::TransactionModes::default();
    match name {
        "transaction_isolation" => {
            modes.isolation = Some(match IsolationLevel::parse(&text) {
                level if level.name() != text => return Err(invalid()),
                IsolationLevel::ReadUncommitted => ast::IsolationLevel::ReadUncommitted,
                IsolationLevel::ReadCommitted => ast::IsolationLevel::ReadCommitted,
                IsolationLevel::RepeatableRead => ast::IsolationLevel::RepeatableRead,
                IsolationLevel::Serializable => ast::IsolationLevel::Serializable,
            });
        }
        "transaction_read_only" => modes.read_only = Some(DefValue::Word(text.clone()).boolean().ok_or_else(invalid)?),
        "transaction_deferrable" => {
            modes.deferrable = Some(DefValue::Word(text.clone()).boolean().ok_or_else(invalid)?)
        }
        _ => return Ok(None),
    }
    Ok(Some(modes))
}

fn explain_options(explain: &Explain) -> Result<ExplainOptions> {
    let mut options =
        ExplainOptions { analyze: explain.analyze, verbose: explain.verbose, ..ExplainOptions::default() };
    let mut summary = None;
    for (name, value) in &explain.options {
        let flag = || {
            let invalid = || SqlError::new(state::SYNTAX_ERROR, format!("{name} requires a Boolean value"));
            value.boolean().ok_or_else(invalid)
        };
        match name.as_str() {
            "analyze" => options.analyze = flag()?,
            "verbose" => options.verbose = flag()?,
            "costs" => options.costs = flag()?,
            "timing" => options.timing = flag()?,
            "summary" => summary = Some(flag()?),
            "buffers" => options.buffers = flag()?,
            "wal" | "settings" | "generic_plan" => {
                if flag()? {
                    return Err(SqlError::unsupported(format!("EXPLAIN ({})", name.to_uppercase())));
                }
            }
            "format" => match value.text().map(str::to_ascii_lowercase).as_deref() {
                Some("text") => {}
                Some(other @ ("json" | "xml" | "yaml")) => {
                    return Err(SqlError::unsupported(format!("EXPLAIN (FORMAT {})", other.to_uppercase())));
                }
                other => {
                    let message =
                        format!("unrecognized value for EXPLAIN option \"format\": \"{}\"", other.unwrap_or_default());
                    return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
                }
            },
            other => {
                return Err(SqlError::new(state::SYNTAX_ERROR, format!("unrecognized EXPLAIN option \"{other}\"")));
            }
        }
    }
    options.summary = summary.unwrap_or(options.analyze);
    Ok(options)
}

/// Options of CREATE DATABASE that say what is so anyway are accepted.
fn check_database_options(options: &[(String, DefValue)], user: &str) -> Result<()> {
    for (name, value) in options {
        let text = value.text().unwrap_or_default();
        let fits = match name.as_str() {
            "encoding" => matches!(text.to_ascii_lowercase().replace(['-', '_'], "").as_str(), "utf8" | "unicode"),
            "template" => matches!(text, "template0" | "template1"),
            "lc_collate" | "lc_ctype" | "locale" => matches!(text, "C" | "POSIX"),
            "owner" => text == user,
            "connection_limit" => text == "-1",
            "allow_connections" => value.boolean() == Some(true),
            "is_template" => value.boolean() == Some(false),
            // Looked at by itself.
            "encrypted" => true,
            _ => false,
        };
        if !fits && value != &DefValue::Word("default".into()) {
            return Err(SqlError::unsupported(format!("CREATE DATABASE ... {} = {text}", name.to_uppercase())));
        }
    }
    Ok(())
}

/// CREATE DATABASE ... WITH encrypted = true.
fn is_encrypted(options: &[(String, DefValue)]) -> Result<bool> {
    let Some((_, value)) = options.iter().find(|(name, _)| name == "encrypted") else {
        return Ok(false);
    };
    if value == &DefValue::Word("default".into()) {
        return Ok(false);
    }
    value.boolean().ok_or_else(|| {
        SqlError::new(state::INVALID_PARAMETER_VALUE, "parameter \"encrypted\" requires a Boolean value")
    })
}

/// The command's words for "cannot execute ... in a read-only transaction".
fn ddl_word(kind: &StatementKind) -> &'static str {
    match kind {
        StatementKind::CreateSchema { .. } => "CREATE SCHEMA",
        StatementKind::CreateTable(_) => "CREATE TABLE",
        StatementKind::CreateTableAs(_) => "CREATE TABLE AS",
        StatementKind::CreateIndex(_) => "CREATE INDEX",
        StatementKind::CreateView(_) => "CREATE VIEW",
        StatementKind::CreateSequence { .. } => "CREATE SEQUENCE",
        StatementKind::AlterSequence { .. } => "ALTER SEQUENCE",
        StatementKind::AlterTable(_) => "ALTER TABLE",
        StatementKind::Foreign(statement) => match &**statement {
            ast::ForeignStatement::CreateServer(_) => "CREATE SERVER",
            ast::ForeignStatement::AlterServer { .. } => "ALTER SERVER",
            ast::ForeignStatement::CreateTable { .. } => "CREATE FOREIGN TABLE",
            ast::ForeignStatement::Import(_) => "IMPORT FOREIGN SCHEMA",
        },
        StatementKind::Truncate { .. } => "TRUNCATE TABLE",
        StatementKind::Comment { .. } => "COMMENT",
        StatementKind::Reindex { .. } => "REINDEX",
        StatementKind::CreateTag { .. } => "CREATE TAG",
        StatementKind::DropTag { .. } => "DROP TAG",
        StatementKind::Drop { kind, .. } => of_kind(*kind).0,
        StatementKind::Rename { kind, .. }
        | StatementKind::SetSchema { kind, .. }
        | StatementKind::SetOwner { kind, .. } => of_kind(*kind).1,
        _ => "ALTER",
    }
}

/// What dropping and altering an object of this kind is called.
fn of_kind(kind: ast::ObjectKind) -> (&'static str, &'static str) {
    match kind {
        ast::ObjectKind::Table => ("DROP TABLE", "ALTER TABLE"),
        ast::ObjectKind::View => ("DROP VIEW", "ALTER VIEW"),
        ast::ObjectKind::Index => ("DROP INDEX", "ALTER INDEX"),
        ast::ObjectKind::Sequence => ("DROP SEQUENCE", "ALTER SEQUENCE"),
        ast::ObjectKind::ForeignTable => ("DROP FOREIGN TABLE", "ALTER FOREIGN TABLE"),
        ast::ObjectKind::Server => ("DROP SERVER", "ALTER SERVER"),
        ast::ObjectKind::Schema => ("DROP SCHEMA", "ALTER SCHEMA"),
        ast::ObjectKind::Database => ("DROP DATABASE", "ALTER DATABASE"),
        ast::ObjectKind::Other(_) => ("DROP", "ALTER"),
    }
}

fn unsupported_words(kind: &StatementKind) -> String {
    match kind {
        StatementKind::Unsupported(words) => words.clone(),
        StatementKind::Cluster(_) => "CLUSTER".into(),
        StatementKind::Do { .. } => "DO".into(),
        StatementKind::Call(_) => "CALL".into(),
        _ => "this statement".into(),
    }
}
