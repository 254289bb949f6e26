//! Transactions: blocks, snapshots, commits, and statements run again after a conflict. What BEGIN and its kin do is in [`control`].
//!
//! ```text
//! Idle      nothing is open
//! Implicit  opened by a statement itself: it ends with the simple string, or at Sync
//! Explicit  opened by BEGIN
//! Failed    an explicit one after an error: only its end, or a way back to a savepoint, is accepted
//! ```
//!
//! SERIALIZABLE is REPEATABLE READ that remembers what it reads, from its first statement on ([`Reads`]): if any of it has changed when it commits,
//! or after a statement that writes, it gets 40001. One that only reads never does.
//!
//! The engine's transaction is opened by the first statement that writes; one that only reads needs a snapshot and no more. READ COMMITTED takes
//! a snapshot a statement. Who writes a row another transaction wrote waits for its end; if the row has changed then, it is looked at again as it is now
//! (READ COMMITTED), or the statement fails with 40001 (REPEATABLE READ): see [`crate::write::row`]. What is written under locks needs no check at the
//! commit.

mod control;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgbee_engine::storage::Durability;
use pgbee_engine::txn::{CommitInfo, ReadView, Reads, Snapshot, Transaction};
use pgbee_engine::{Error as EngineError, Version};

use super::Session;
use super::activity::WaitEvent;
use super::locking::{Own, SeenFrom};
use super::settings::IsolationLevel;
use super::shared::{Waits, sql_micros, unix_micros};
use crate::bind::AsOfResolver;
use crate::catalog::{Catalog, PG_CATALOG};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::exec::ExecCx;
use crate::functions::SessionCx;
use crate::memory::Account;
use crate::parse::ast::{self, StatementKind};
use crate::types::Datum;
use crate::wait::What;
use crate::write::after::AfterMark;
use crate::write::moves::Stay;
use crate::write::{Place, Writer, after};

/// Times a statement is run before its conflict is reported.
const ATTEMPTS: usize = 1000;
/// What a SERIALIZABLE transaction has read is compared with the newest version after each statement that writes while it is no more than so
/// many keys and ranges.
const CHECKED_EARLY: usize = 4096;
/// How long a waiting statement goes without looking for a cancel.
const POLL: Duration = Duration::from_millis(20);

/// Where a session is with its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Idle,
    Implicit,
    Explicit,
    Failed,
}

/// A transaction block.
pub(super) struct Block {
    pub status: Status,
    pub isolation: IsolationLevel,
    pub read_only: bool,
    /// DEFERRABLE: shown, and nothing more, for no serializable transaction that only reads has to wait to be safe: every version is one
    /// that a serial order passes through.
    pub deferrable: bool,
    /// What a SERIALIZABLE transaction has read since its first statement.
    reads: Option<Reads>,
    started: i64,
    /// The one snapshot of REPEATABLE READ, once taken, or what SET TRANSACTION SNAPSHOT named.
    fixed: Option<Snapshot>,
    /// Definitions as the transaction changed them.
    pub own: Option<Own>,
    /// Definitions as its one snapshot sees them, where others changed them since.
    pub seen: Option<SeenFrom>,
    saves: Vec<Save>,
    /// Rows changed so far.
    pub rows: u64,
    /// A statement has read or written.
    queried: bool,
    /// The engine's transaction is inside a statement, which has these surroundings.
    in_statement: Option<Arc<SessionCx>>,
    /// SET TRANSACTION SNAPSHOT named an old version.
    pub is_past: bool,
}

/// What a savepoint goes back to.
struct Save {
    name: String,
    own: Option<Own>,
    settings: usize,
    own_sequences: usize,
    rows: u64,
    /// Locks held when it was made.
    place: Place,
    /// What LISTEN, UNLISTEN and NOTIFY had asked for.
    listening: usize,
    /// Checks that were to come.
    after: AfterMark,
}

impl Block {
    /// None.
    pub fn idle() -> Block {
        Block {
            status: Status::Idle,
            isolation: IsolationLevel::ReadCommitted,
            read_only: false,
            deferrable: false,
            reads: None,
            started: 0,
            fixed: None,
            own: None,
            seen: None,
            saves: Vec::new(),
            rows: 0,
            queried: false,
            in_statement: None,
            is_past: false,
        }
    }
}

/// Why a commit failed.
pub(super) enum Failure {
    /// Someone else changed what it wrote or relied on: it may be run again.
    Conflict(SqlError),
    /// Anything else.
    Error(SqlError),
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> SqlError {
        match failure {
            Failure::Conflict(e) | Failure::Error(e) => e,
        }
    }
}

/// What one statement runs in.
pub(super) struct StatementCx {
    /// Settings, time, definitions.
    pub cx: Arc<SessionCx>,
    /// What it reads, its transaction's own writes apart.
    pub snapshot: Snapshot,
    /// It reads the past: the transaction's own writes are not in sight, and nothing can be written.
    pub past: bool,
}

impl StatementCx {
    /// Whether it reads the past.
    pub fn is_past(&self) -> bool {
        self.past
    }
}

impl Session {
    /// The error for all but the end of a failed transaction.
    pub(super) fn check_not_failed(&self, statement: &StatementKind) -> Result<()> {
        let ends = matches!(
            statement,
            StatementKind::Commit { .. } | StatementKind::Rollback { .. } | StatementKind::RollbackTo(_)
        );
        if self.block.status == Status::Failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(SqlError::new(state::IN_FAILED_SQL_TRANSACTION, message));
        }
        Ok(())
    }

    /// Opens a block, taking its modes from the settings.
    pub(super) fn begin(&mut self, status: Status) {
        let derived = self.shared.settings.lock().derived().clone();
        self.block = Block {
            status,
            isolation: derived.isolation,
            read_only: derived.read_only || self.shared.is_follower(),
            deferrable: derived.deferrable,
            started: unix_micros(),
            ..Block::idle()
        };
        let number = self.instance.transaction_id();
        self.shared.transaction_id.store(number, Ordering::Relaxed);
        self.shared.txn.locks().begin(number);
        self.shared.activity.begin_transaction(sql_micros(self.block.started));
        self.tell_current();
    }

    /// Lets functions see the block's modes.
    fn tell_current(&self) {
        let mut current = self.shared.current.lock();
        (current.isolation, current.read_only) = (self.block.isolation, self.block.read_only);
        current.deferrable = self.block.deferrable;
    }

    /// Surroundings of the next statement: its snapshot, definitions, time. Opens an implicit block if there is none.
    pub(super) fn statement(&mut self) -> Result<StatementCx> {
        self.statement_at(None)
    }
    /// Surroundings of a statement that reads no rows: a transaction that keeps its snapshot has not taken it by that.
    pub(super) fn statement_without_snapshot(&mut self) -> Result<StatementCx> {
        let is_first = self.block.fixed.is_none() && !self.block.queried;
        let cx = self.statement()?;
        if is_first {
            self.block.fixed = None;
        }
        Ok(cx)
    }
    /// The surroundings of a statement that was begun, with a newer snapshot and what others made of definitions.
    pub(super) fn statement_anew(&mut self, before: &StatementCx) -> Result<StatementCx> {
        self.statement_at(Some(before.cx.statement_micros))
    }
    fn statement_at(&mut self, time: Option<i64>) -> Result<StatementCx> {
        self.instance.check_open()?;
        let is_first = self.block.status == Status::Idle;
        if is_first {
            self.begin(Status::Implicit);
        }
        let derived = self.shared.settings.lock().derived().clone();
        let past = self.as_of_version(&derived.as_of)?;
        let is_follower = self.shared.is_follower();
        if past.is_some() && self.shared.txn.is_open() && !self.shared.txn.with(|t| Ok(t.is_read_only()))? {
            return Err(SqlError::new(
                state::ACTIVE_SQL_TRANSACTION,
                "bee.as_of must be set before a transaction changes anything",
            ));
        }
        let snapshot = match (past, &self.block.fixed) {
            (Some(version), _) => self.shared.snapshot_at(version)?,
            (None, Some(fixed)) => fixed.clone(),
            (None, None) => {
                let newest = self.shared.database.snapshot();
                if self.block.isolation.is_fixed() {
                    self.block.fixed = Some(newest.clone());
                }
                // Also where a SAVEPOINT came before the first statement of one that keeps its snapshot.
                if self.shared.txn.is_open() {
                    self.shared.txn.with(|t| {
                        t.refresh(newest.clone());
                        Ok(())
                    })?;
                }
                newest
            }
        };
        if self.block.isolation == IsolationLevel::Serializable && !self.block.read_only {
            self.block.reads.get_or_insert_default();
        }
        if is_follower {
            self.shared.waiting.reading(What::Definitions, snapshot.version().0);
        }
        let catalog = match past {
            None => self.definitions(&snapshot)?,
            Some(_) => self.shared.db.catalog(&snapshot)?,
        };
        let search_path = self.search_path(&catalog, &derived.search_path);
        self.shared.txn.locks().set_timeouts(derived.lock_timeout, derived.deadlock_timeout);
        let read_only = self.block.read_only || past.is_some();
        {
            let mut current = self.shared.current.lock();
            (current.catalog, current.version) = (catalog.clone(), snapshot.version().0);
            (current.read_only, current.isolation) = (read_only, self.block.isolation);
        }
        let started = sql_micros(self.block.started);
        let now = time.unwrap_or_else(|| if is_first { started } else { sql_micros(unix_micros()) });
        let cx = Arc::new(SessionCx {
            time_zone: derived.time_zone.clone(),
            date_order: derived.date_order,
            bytea_hex: derived.bytea_hex,
            transaction_micros: started,
            statement_micros: now,
            user: self.user.clone(),
            database: self.shared.db.name.clone(),
            search_path,
            backend_pid: self.backend_pid,
            catalog,
            services: self.shared.clone(),
            cancel: self.shared.cancel.clone(),
            work_mem_bytes: derived.work_mem_bytes,
            memory: Arc::new(Account::of_statement(self.instance.memory(), derived.work_mem_bytes)),
            random: parking_lot::Mutex::new(self.random),
        });
        // Each statement's random() goes on differently.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(now as u64 | 1);
        self.surroundings = Some((derived, cx.clone()));
        Ok(StatementCx { cx, snapshot, past: past.is_some() })
    }

    /// The newest version's definitions.
    pub(super) fn newest_catalog(&self) -> Result<Arc<Catalog>> {
        let newest = self.shared.database.snapshot();
        if self.shared.is_follower() {
            self.shared.waiting.reading(What::Definitions, newest.version().0);
        }
        self.shared.db.catalog(&newest)
    }

    /// The version bee.as_of names; resolved again when a tag may have moved or the time zone changed.
    fn as_of_version(&mut self, text: &str) -> Result<Option<u64>> {
        if text.is_empty() {
            return Ok(None);
        }
        let catalog = self.newest_catalog()?;
        let generation = self.shared.settings.lock().generation();
        if let Some((known, stamp, at, version)) = &self.as_of
            && (known.as_str(), *stamp, *at) == (text, catalog.stamp, generation)
        {
            return Ok(Some(*version));
        }
        let version = self.shared.parse_as_of(text, &catalog)?;
        self.as_of = version.map(|v| (text.to_owned(), catalog.stamp, generation, v));
        Ok(version)
    }

    /// Schema oids of a search path: unknown names are passed over, pg_catalog comes first unless it is named.
    fn search_path(&mut self, catalog: &Arc<Catalog>, names: &[String]) -> Vec<u32> {
        let generation = self.shared.settings.lock().generation();
        if let Some((stamp, at, path)) = &self.path
            && (*stamp, *at) == (catalog.stamp, generation)
        {
            return path.clone();
        }
        let mut path: Vec<u32> = Vec::new();
        for name in names {
            let name = if name == "$user" { &self.user } else { name };
            if let Some(oid) = catalog.schema_oid(name).filter(|oid| !path.contains(oid)) {
                path.push(oid);
            }
        }
        if !path.contains(&PG_CATALOG) {
            path.insert(0, PG_CATALOG);
        }
        self.path = Some((catalog.stamp, generation, path.clone()));
        path
    }

    /// What a statement reads: its snapshot under the transaction's writes.
    fn view(&self, statement: &StatementCx) -> Result<ReadView> {
        if self.shared.txn.is_open() && !statement.past {
            self.shared.txn.with(|t| Ok(t.view()))
        } else {
            let view = ReadView::from(statement.snapshot.clone());
            // Reads before the first write count, too.
            Ok(match &self.block.reads {
                Some(reads) if !statement.past => view.recording(reads),
                _ => view,
            })
        }
    }
    /// Opens the engine's transaction if it is not.
    fn open_transaction(&mut self, snapshot: &Snapshot) {
        if !self.shared.txn.is_open() {
            let mut txn = self.shared.database.begin_at(snapshot.clone());
            if let Some(reads) = &self.block.reads {
                txn.record(reads);
            }
            // Rows carry the lower half of the transaction's number.
            let stamp = self.shared.transaction_id.load(Ordering::Relaxed) as u32;
            self.shared.txn.set(txn, stamp);
        }
    }
    /// Surroundings of a statement's operators.
    pub(super) fn exec_cx(
        &mut self,
        statement: &StatementCx,
        params: Vec<Datum>,
        writer: Option<Arc<Writer>>,
    ) -> Result<ExecCx> {
        self.block.queried = true;
        let view = self.view(statement)?;
        let writer = writer.map(|w| w as Arc<dyn crate::exec::DmlRunner>);
        let cx = ExecCx::new(statement.cx.clone(), self.shared.database.clone(), view, params, writer);
        // Who has servers may read foreign tables, which are waited for, too.
        let may_wait = self.shared.is_follower() || !statement.cx.catalog.servers.is_empty();
        Ok(if may_wait { ExecCx { waiting: Some(self.shared.waiting.clone()), ..cx } } else { cx })
    }

    /// Opens the engine's transaction for a statement that changes rows, or locks them. What moves from now on is remembered as long as the stay is kept.
    pub(super) fn open_writes(&mut self, statement: &StatementCx, what: &str) -> Result<Option<Stay>> {
        if statement.past || self.block.read_only {
            return Err(self.shared.read_only(what));
        }
        self.open_transaction(&statement.snapshot);
        let txn = &self.shared.txn;
        txn.set_fixed(self.block.isolation.is_fixed());
        let mut stay = txn.moves().enter(statement.snapshot.version());
        // What moved since the snapshot may be forgotten already; nothing was read yet, so that it can be a newer one.
        while stay.is_none() && !txn.is_fixed() {
            let newest = self.shared.database.snapshot();
            stay = txn.moves().enter(newest.version());
            txn.with(|t| {
                t.refresh(newest);
                Ok(())
            })?;
        }
        Ok(stay)
    }
    /// Opens the engine's transaction for a statement that writes, and begins the statement in it.
    pub(super) fn begin_writes(&mut self, statement: &StatementCx, what: &str) -> Result<Option<Stay>> {
        let stay = self.open_writes(statement, what)?;
        self.shared.txn.with(|t| {
            t.begin_statement();
            Ok(())
        })?;
        self.block.in_statement = Some(statement.cx.clone());
        Ok(stay)
    }
    /// Does what is to be done after the statement's changes, and keeps what it wrote.
    pub(super) fn end_writes(&mut self) -> Result<()> {
        if let Some(cx) = self.block.in_statement.clone() {
            after::fire_statement(&self.shared.txn, &cx)?;
        }
        self.check_reads()?;
        self.block.in_statement = None;
        self.shared.txn.with(|t| Ok(t.end_statement()?))
    }
    /// A SERIALIZABLE transaction that has written and cannot commit any more is told so at once, as PostgreSQL mostly does, and not only at its
    /// commit. One that has read very much is not asked so often.
    fn check_reads(&self) -> Result<()> {
        match &self.block.reads {
            Some(reads) if reads.len() <= CHECKED_EARLY => Ok(self.shared.database.validate(reads)?),
            _ => Ok(()),
        }
    }
    /// Drops what the statement wrote, if it is inside one.
    pub(super) fn abort_writes(&mut self) {
        self.shared.txn.forget_statement();
        if self.block.in_statement.take().is_some()
            && let Err(e) = self.shared.txn.with(|t| Ok(t.abort_statement()?))
        {
            // Without it the transaction cannot be trusted.
            tracing::error!(error = %e, "a failed statement could not be undone");
            self.shared.txn.take();
        }
    }

    /// An error ends the statement: an implicit transaction is over, an explicit one is failed.
    pub(super) fn fail(&mut self) {
        self.abort_writes();
        match self.block.status {
            Status::Implicit => self.rollback(),
            Status::Explicit => {
                self.block.status = Status::Failed;
                // What can only be rolled back holds up nobody.
                match self.block.saves.last() {
                    Some(save) => self.shared.txn.undo_to(save.place),
                    None => {
                        self.shared.activity.fail_transaction();
                        self.shared.txn.take();
                        self.shared.txn.end();
                    }
                }
            }
            Status::Idle | Status::Failed => {}
        }
    }
    /// A snapshot of nothing, taken before the first version came, is not kept.
    pub(super) fn forget_empty_snapshot(&mut self) {
        if !self.block.queried
            && self.block.fixed.as_ref().is_some_and(|s| s.version() < super::follower::FIRST_VERSION)
        {
            self.block.fixed = None;
        }
    }

    /// Ends the transaction without a trace.
    pub(super) fn rollback(&mut self) {
        let was = std::mem::replace(&mut self.block, Block::idle());
        if was.status != Status::Idle {
            self.shared.activity.end_transaction(false);
        }
        self.shared.txn.take();
        // Portals keep what moved since their snapshots, and it is time to forget it.
        self.portals.clear();
        self.shared.txn.end();
        self.shared.settings.lock().rollback();
        self.shared.sequences.lock().own.clear();
        self.shared.listening.lock().undo_to(0);
        self.shared.txn.forget_after();
        self.end_of_transaction();
    }
    fn end_of_transaction(&mut self) {
        self.portals.clear();
        self.tell_current();
    }

    /// Commits what was written. Whoever commits definitions stores the counter of oids with them, one after the other, so that no commit sets it back.
    fn commit_writes(&self, mut txn: Transaction, defines: bool, rows: u64) -> pgbee_engine::Result<Version> {
        let oids = &self.shared.db.oids;
        let _one = defines.then(|| oids.commit.lock());
        if defines {
            txn.put_guarded(keyspace::NEXT_OID, oids.stored())?;
        }
        let derived = self.shared.settings.lock().derived().clone();
        let info = CommitInfo {
            time_micros: unix_micros(),
            user: self.user.clone(),
            application: derived.application_name.clone(),
            message: derived.commit_message.clone(),
            rows_changed: rows,
            durability: if derived.synchronous { Durability::Sync } else { Durability::NoSync },
        };
        let made = {
            let _waits = Waits::on(&self.shared.activity, WaitEvent::Commit);
            self.shared.database.commit(txn, info)?
        };
        // Who waits for one of its rows follows it: before the locks are given up.
        self.shared.txn.publish_moves(made);
        if !derived.synchronous {
            self.shared.db.flusher.soon();
        }
        Ok(made)
    }
    /// Commits what a statement of several transactions did so far, and keeps its locks.
    pub(super) fn commit_step(&mut self) -> Result<()> {
        let defines = self.block.own.take().is_some();
        let rows = std::mem::take(&mut self.block.rows);
        match self.shared.txn.take().filter(|txn| !txn.is_read_only()) {
            Some(txn) => {
                self.commit_writes(txn, defines, rows)?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Ends the transaction for good. However it goes, the session is idle after it.
    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        let room = self.shared.listening.lock().check_room(&self.shared.db.channels);
        if let Err(error) = room {
            self.rollback();
            return Err(Failure::Error(error));
        }
        if self.shared.txn.has_deferred()
            && let Err(error) = self.fire_deferred()
        {
            self.rollback();
            return Err(Failure::Error(error));
        }
        let block = std::mem::replace(&mut self.block, Block::idle());
        let notifies = self.shared.listening.lock().notifies();
        let turn = notifies.then(|| self.shared.db.channels.turn());
        let mut version = if notifies { self.shared.database.head().0 } else { 0 };
        if let Some(txn) = self.shared.txn.take()
            && !txn.is_read_only()
        {
            match self.commit_writes(txn, block.own.is_some(), block.rows) {
                Ok(made) => version = made.0,
                Err(error) => {
                    self.rollback();
                    self.shared.activity.end_transaction(false);
                    let conflict = matches!(error, EngineError::Conflict { .. });
                    let error = SqlError::from(error);
                    return Err(if conflict { Failure::Conflict(error) } else { Failure::Error(error) });
                }
            }
        }
        if block.status != Status::Idle {
            self.shared.activity.end_transaction(true);
        }
        // Before the locks are given up: who waited for one of them takes its next values from what is stored now.
        for oid in self.shared.sequences.lock().own.drain(..) {
            self.shared.db.sequences.forget(oid);
        }
        self.shared.txn.end();
        self.shared.settings.lock().commit();
        self.shared.listening.lock().commit(&self.shared.db.channels, self.backend_pid, turn, version);
        self.shared.txn.forget_after();
        self.end_of_transaction();
        Ok(())
    }

    /// Makes the checks that were left for the end of the transaction.
    fn fire_deferred(&mut self) -> Result<()> {
        let statement = self.statement()?;
        after::fire_deferred(&self.shared.txn, &statement.cx)
    }

    /// SET CONSTRAINTS.
    pub(super) fn set_constraints(&mut self, names: &[ast::QName], deferred: bool) -> Result<()> {
        let in_string = self.script.as_ref().is_some_and(|script| !script.single);
        if self.block.status != Status::Explicit && !in_string {
            self.warn(state::NO_ACTIVE_SQL_TRANSACTION, "SET CONSTRAINTS can only be used in transaction blocks");
        }
        let statement = self.statement()?;
        let catalog = &statement.cx.catalog;
        let mut oids = Vec::new();
        for name in names {
            let schemas = match name.schema() {
                Some(schema) => vec![catalog.schema_oid(schema).ok_or_else(|| {
                    SqlError::new(state::INVALID_SCHEMA_NAME, format!("schema \"{schema}\" does not exist"))
                })?],
                None => statement.cx.search_path.clone(),
            };
            oids.extend(after::named_constraints(catalog, &schemas, name.last(), deferred)?);
        }
        self.shared.txn.set_constraints((!names.is_empty()).then_some(&oids), deferred);
        if deferred { Ok(()) } else { after::fire_statement(&self.shared.txn, &statement.cx) }
    }

    /// Runs a statement as a transaction of its own, again and again while others get in its way.
    pub(super) fn retrying<T>(&mut self, mut run: impl FnMut(&mut Session) -> Result<T>) -> Result<T> {
        let db = self.shared.db.clone();
        let mut turn = None;
        for attempt in 1.. {
            let notices = self.shared.notices.lock().len();
            let value = match run(self) {
                Ok(value) => value,
                Err(e) => {
                    self.fail();
                    return Err(e);
                }
            };
            match self.commit() {
                Ok(()) => return Ok(value),
                Err(Failure::Conflict(_)) if attempt < ATTEMPTS => self.shared.notices.lock().truncate(notices),
                Err(failure) => return Err(failure.into()),
            }
            // From the second time on those in trouble take turns, so that each only races against newcomers.
            while turn.is_none() {
                self.shared.cancel.check()?;
                turn = db.turn.try_lock_for(POLL);
            }
        }
        Err(SqlError::internal("a statement was not run"))
    }
}

/// The resolver binding asks; here for its trait to be in scope of those who pass the session's shared part.
pub(super) fn resolver(shared: &super::shared::Shared) -> &dyn AsOfResolver {
    shared
}
