//! Statements that steer transactions: BEGIN, COMMIT, ROLLBACK, SET TRANSACTION, savepoints.
//!
//! ```text
//! BEGIN              Idle -> Explicit; Implicit -> Explicit: what ran before it in the same string becomes part of the block
//! COMMIT, ROLLBACK   -> Idle; AND CHAIN -> Explicit with the same modes
//! ROLLBACK TO        Failed -> Explicit: engine, locks, definitions, settings, sequences, LISTEN and checks go back to the savepoint together
//! ```
//!
//! Modes may change until the first query of a block; READ ONLY may be set at any time and not taken back after one.

use super::{Save, Session, Status};
use crate::error::{Result, SqlError, state};
use crate::parse::ast::{self, StatementKind, TransactionModes};
use crate::session::outcome::{Notice, Outcome};
use crate::session::settings::IsolationLevel;
use crate::session::shared::on_or_off;

impl Session {
    /// BEGIN, COMMIT and their kin; None if the statement is none of them.
    pub(in crate::session) fn transaction_control(&mut self, statement: &ast::Statement) -> Result<Option<Outcome>> {
        let tag = match &statement.kind {
            StatementKind::Begin { modes } => {
                self.begin_block(modes)?;
                let starts = statement.text().get(..5).is_some_and(|w| w.eq_ignore_ascii_case("start"));
                if starts { "START TRANSACTION" } else { "BEGIN" }
            }
            StatementKind::Commit { chain } => self.end_block(true, *chain)?,
            StatementKind::Rollback { chain } => self.end_block(false, *chain)?,
            StatementKind::Savepoint(name) => self.savepoint(&name.text)?,
            StatementKind::ReleaseSavepoint(name) => self.release(&name.text)?,
            StatementKind::RollbackTo(name) => self.rollback_to(&name.text)?,
            StatementKind::SetTransaction { modes } => {
                self.set_transaction(modes)?;
                "SET"
            }
            StatementKind::SetTransactionSnapshot(id) => {
                self.import_snapshot(id)?;
                "SET"
            }
            StatementKind::SetSessionCharacteristics { modes } => {
                self.set_characteristics(modes)?;
                "SET"
            }
            StatementKind::PrepareTransaction(_) => return Err(SqlError::unsupported("PREPARE TRANSACTION")),
            _ => return Ok(None),
        };
        Ok(Some(Outcome::Command { tag: tag.to_owned() }))
    }

    pub(in crate::session) fn warn(&self, code: &'static str, message: &str) {
        self.shared.notices.lock().push(Notice::warning(code, message));
    }

    /// SET TRANSACTION.
    pub(in crate::session) fn set_transaction(&mut self, modes: &TransactionModes) -> Result<()> {
        // Several statements in one simple query are a block, too.
        let in_string = self.script.as_ref().is_some_and(|script| !script.single);
        if in_string && self.block.status == Status::Idle {
            self.begin(Status::Implicit);
        }
        if in_string || self.block.status == Status::Explicit {
            return self.set_modes(modes);
        }
        self.warn(state::NO_ACTIVE_SQL_TRANSACTION, "SET TRANSACTION can only be used in transaction blocks");
        Ok(())
    }

    fn begin_block(&mut self, modes: &TransactionModes) -> Result<()> {
        match self.block.status {
            Status::Failed => {
                self.warn(state::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
                return Ok(());
            }
            Status::Explicit => {
                self.warn(state::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
                return self.set_modes(modes);
            }
            Status::Idle => self.begin(Status::Explicit),
            Status::Implicit => self.block.status = Status::Explicit,
        }
        if let Err(e) = self.set_modes(modes) {
            self.rollback();
            return Err(e);
        }
        Ok(())
    }

    fn set_modes(&mut self, modes: &TransactionModes) -> Result<()> {
        let read_only = modes.read_only.unwrap_or(self.block.read_only);
        let isolation = modes.isolation.map_or(self.block.isolation, level);
        let in_subtransaction = !self.block.saves.is_empty();
        let queried = self.block.queried || self.has_written()?;
        if isolation != self.block.isolation && (queried || in_subtransaction) {
            let message = match queried {
                true => "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                false => "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction",
            };
            return Err(SqlError::new(state::ACTIVE_SQL_TRANSACTION, message));
        }
        if modes.deferrable.is_some() && (self.block.queried || in_subtransaction) {
            let message = match in_subtransaction {
                true => "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction",
                false => "SET TRANSACTION [NOT] DEFERRABLE must be called before any query",
            };
            return Err(SqlError::new(state::ACTIVE_SQL_TRANSACTION, message));
        }
        if self.shared.is_follower() && !read_only {
            let message = "cannot set transaction read-write mode during recovery";
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
        }
        if self.block.read_only && !read_only {
            let refuse = |code, message: &str| Err(SqlError::new(code, message));
            if self.block.is_past {
                return refuse(
                    state::READ_ONLY_SQL_TRANSACTION,
                    "cannot set transaction read-write mode in a transaction that reads the past",
                );
            }
            if !self.block.saves.is_empty() {
                return refuse(
                    state::ACTIVE_SQL_TRANSACTION,
                    "cannot set transaction read-write mode inside a read-only transaction",
                );
            }
            if self.block.queried {
                return refuse(
                    state::ACTIVE_SQL_TRANSACTION,
                    "transaction read-write mode must be set before any query",
                );
            }
        }
        if isolation != self.block.isolation {
            self.forget_snapshot();
        }
        (self.block.read_only, self.block.isolation) = (read_only, isolation);
        self.block.deferrable = modes.deferrable.unwrap_or(self.block.deferrable);
        self.tell_current();
        Ok(())
    }

    /// Whether the engine's transaction has changed anything.
    fn has_written(&self) -> Result<bool> {
        Ok(self.shared.txn.is_open() && !self.shared.txn.with(|t| Ok(t.is_read_only()))?)
    }
    /// Nothing was asked yet, but a SAVEPOINT or a Parse has taken a snapshot as the level before had it: the next statement takes its own.
    fn forget_snapshot(&mut self) {
        self.shared.txn.take();
        (self.block.fixed, self.block.reads, self.block.seen) = (None, None, None);
    }

    fn set_characteristics(&mut self, modes: &TransactionModes) -> Result<()> {
        let mut settings = self.shared.settings.lock();
        if let Some(isolation) = modes.isolation {
            settings.set("default_transaction_isolation", &[level(isolation).name().to_owned()], false)?;
        }
        if let Some(read_only) = modes.read_only {
            settings.set("default_transaction_read_only", &[on_or_off(read_only).to_owned()], false)?;
        }
        if let Some(deferrable) = modes.deferrable {
            settings.set("default_transaction_deferrable", &[on_or_off(deferrable).to_owned()], false)?;
        }
        Ok(())
    }

    /// SET TRANSACTION SNAPSHOT: a version, as pg_export_snapshot() names it.
    fn import_snapshot(&mut self, id: &str) -> Result<()> {
        if self.block.status != Status::Explicit {
            return Err(SqlError::new(
                state::NO_ACTIVE_SQL_TRANSACTION,
                "SET TRANSACTION SNAPSHOT can only be used in transaction blocks",
            ));
        }
        if self.block.queried || self.block.fixed.is_some() {
            return Err(SqlError::new(
                state::ACTIVE_SQL_TRANSACTION,
                "SET TRANSACTION SNAPSHOT must be called before any query",
            ));
        }
        if !self.block.isolation.is_fixed() {
            let message = "a snapshot-importing transaction must have isolation level SERIALIZABLE or REPEATABLE READ";
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
        }
        let invalid =
            |_| SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid snapshot identifier: \"{id}\""));
        let snapshot = self.shared.snapshot_at(id.parse().map_err(invalid)?)?;
        self.block.is_past = snapshot.version() != self.shared.database.head();
        self.block.read_only |= self.block.is_past;
        self.block.fixed = Some(snapshot);
        // From here on it is the transaction's: no other level is chosen, as after a first query.
        self.block.queried = true;
        self.tell_current();
        Ok(())
    }

    fn end_block(&mut self, commit: bool, chain: bool) -> Result<&'static str> {
        let (status, modes) = (self.block.status, (self.block.isolation, self.block.read_only, self.block.deferrable));
        let in_block = matches!(status, Status::Explicit | Status::Failed);
        let word = if commit { "COMMIT" } else { "ROLLBACK" };
        if !in_block {
            if chain {
                let message = format!("{word} AND CHAIN can only be used in transaction blocks");
                return Err(SqlError::new(state::NO_ACTIVE_SQL_TRANSACTION, message));
            }
            self.warn(state::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress");
        }
        let commit = commit && status != Status::Failed;
        if commit {
            self.commit()?;
        } else {
            self.rollback();
        }
        if chain {
            self.begin(Status::Explicit);
            (self.block.isolation, self.block.read_only, self.block.deferrable) = modes;
            self.tell_current();
        }
        Ok(if commit { "COMMIT" } else { "ROLLBACK" })
    }

    fn require_block(&self, what: &str) -> Result<()> {
        match self.block.status {
            Status::Explicit | Status::Failed => Ok(()),
            Status::Idle | Status::Implicit => Err(SqlError::new(
                state::NO_ACTIVE_SQL_TRANSACTION,
                format!("{what} can only be used in transaction blocks"),
            )),
        }
    }

    fn savepoint(&mut self, name: &str) -> Result<&'static str> {
        self.require_block("SAVEPOINT")?;
        if !self.shared.txn.is_open() && !self.block.read_only {
            let had = self.block.fixed.clone();
            let statement = self.statement()?;
            self.open_transaction(&statement.snapshot);
            // The first statement takes the snapshot, as in PostgreSQL; this is none.
            self.block.fixed = had;
        }
        if self.shared.txn.is_open() {
            self.shared.txn.with(|t| {
                t.savepoint(name);
                Ok(())
            })?;
        }
        self.block.saves.push(Save {
            name: name.to_owned(),
            own: self.block.own.clone(),
            settings: self.shared.settings.lock().mark(),
            own_sequences: self.shared.sequences.lock().own.len(),
            rows: self.block.rows,
            place: self.shared.txn.place(),
            listening: self.shared.listening.lock().mark(),
            after: self.shared.txn.mark_after(),
        });
        Ok("SAVEPOINT")
    }

    fn find_save(&self, name: &str) -> Result<usize> {
        let missing =
            || SqlError::new(state::INVALID_SAVEPOINT_SPECIFICATION, format!("savepoint \"{name}\" does not exist"));
        self.block.saves.iter().rposition(|s| s.name == name).ok_or_else(missing)
    }

    fn release(&mut self, name: &str) -> Result<&'static str> {
        self.require_block("RELEASE SAVEPOINT")?;
        let at = self.find_save(name)?;
        self.block.saves.truncate(at);
        self.shared.txn.release_after(self.block.saves.is_empty());
        if self.shared.txn.is_open() {
            self.shared.txn.with(|t| Ok(t.release(name)?))?;
        }
        Ok("RELEASE")
    }

    fn rollback_to(&mut self, name: &str) -> Result<&'static str> {
        self.require_block("ROLLBACK TO SAVEPOINT")?;
        let at = self.find_save(name)?;
        self.block.saves.truncate(at + 1);
        if self.shared.txn.is_open() {
            self.shared.txn.with(|t| Ok(t.rollback_to(name)?))?;
        }
        let save = &self.block.saves[at];
        self.shared.txn.undo_to(save.place);
        self.block.own = save.own.clone();
        self.block.rows = save.rows;
        self.shared.settings.lock().undo_to(save.settings);
        self.shared.sequences.lock().own.truncate(save.own_sequences);
        self.shared.listening.lock().undo_to(save.listening);
        self.shared.txn.undo_after(&save.after);
        self.block.status = Status::Explicit;
        self.portals.clear();
        Ok("ROLLBACK")
    }
}

fn level(level: ast::IsolationLevel) -> IsolationLevel {
    match level {
        ast::IsolationLevel::ReadUncommitted => IsolationLevel::ReadUncommitted,
        ast::IsolationLevel::ReadCommitted => IsolationLevel::ReadCommitted,
        ast::IsolationLevel::RepeatableRead => IsolationLevel::RepeatableRead,
        ast::IsolationLevel::Serializable => IsolationLevel::Serializable,
    }
}
