//! LOCK TABLE, and what functions and system views do with locks.
//!
//! A name is looked up, locked, and looked up again: while the lock was waited for, the name may have come to mean another relation, or none. A
//! view is locked with all that it reads, as in PostgreSQL.
//!
//! What must stay true: LOCK TABLE takes no snapshot. A transaction that keeps its snapshot may lock first, and then sees what those did for whom it
//! waited.

use super::outcome::Outcome;
use super::shared::Shared;
use super::transaction::Status;
use super::{Session, utility};
use crate::bind::{self, ParamTypes};
use crate::catalog::Relation;
use crate::error::{Result, SqlError, state};
use crate::lock::{AdvisoryKey, LockStatus, Patience, TableMode};
use crate::parse::ast::QName;

impl Session {
    /// LOCK TABLE. `own`: it is a transaction of its own, if none is open.
    pub(super) fn lock_tables(&mut self, tables: &[QName], mode: &str, nowait: bool, own: bool) -> Result<Outcome> {
        // Several statements of one simple string are a block; those of the extended protocol are not, even between two Syncs.
        let is_alone = own || self.script.is_none();
        if is_alone && matches!(self.block.status, Status::Idle | Status::Implicit) {
            let message = "LOCK TABLE can only be used in transaction blocks";
            return Err(SqlError::new(state::NO_ACTIVE_SQL_TRANSACTION, message));
        }
        let mode = TableMode::from_words(&mode.to_ascii_uppercase())
            .ok_or_else(|| SqlError::internal("LOCK TABLE in a mode there is not"))?;
        if mode > TableMode::RowExclusive {
            self.refuse_on_follower("LOCK TABLE")?;
        }
        let patience = if nowait { Patience::Nowait } else { Patience::Wait };
        for name in tables {
            self.lock_named(name, mode, patience)?;
        }
        utility::command("LOCK TABLE")
    }

    /// Locks what a name means, and goes on until it means that when it is locked.
    fn lock_named(&mut self, name: &QName, mode: TableMode, patience: Patience) -> Result<()> {
        let mut relations = self.lockable(name)?;
        loop {
            let mark = self.shared.txn.locks().mark();
            for oid in &relations {
                self.shared.txn.locks().table(*oid, mode, patience)?;
            }
            let now = self.lockable(name)?;
            if now == relations {
                return Ok(());
            }
            self.shared.txn.locks().release_since(mark);
            relations = now;
        }
    }

    /// Oids of a table, or of a view and all that it reads.
    fn lockable(&mut self, name: &QName) -> Result<Vec<u32>> {
        let cx = self.statement_without_snapshot()?;
        let found = self.with_env(&cx, &ParamTypes::none(), |env| bind::find_relation(name, env))?;
        let Some(relation) = found else {
            let catalog = &cx.cx.catalog;
            if let Some(schema) = name.schema().filter(|s| catalog.schema_oid(s).is_none()) {
                return Err(SqlError::new(state::INVALID_SCHEMA_NAME, format!("schema \"{schema}\" does not exist")));
            }
            return Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")));
        };
        let mut oids = vec![relation.oid()];
        match &relation {
            Relation::Table(table) if table.foreign.is_some() => Err(not_lockable(&relation, "foreign tables")),
            Relation::Table(_) | Relation::Virtual(_) => Ok(oids),
            Relation::Sequence(_) => Err(not_lockable(&relation, "sequences")),
            Relation::Index(..) => Err(not_lockable(&relation, "indexes")),
            Relation::View(_) => {
                let mut at = 0;
                while let Some(oid) = oids.get(at) {
                    if let Some(Relation::View(view)) = cx.cx.catalog.by_oid(*oid) {
                        let is_read = |oid: &&u32| {
                            matches!(cx.cx.catalog.by_oid(**oid), Some(Relation::Table(_) | Relation::View(_)))
                        };
                        let fresh: Vec<u32> =
                            view.depends_on.iter().filter(is_read).copied().filter(|o| !oids.contains(o)).collect();
                        oids.extend(fresh);
                    }
                    at += 1;
                }
                Ok(oids)
            }
        }
    }
}

/// 42809 for what LOCK TABLE is not for.
fn not_lockable(relation: &Relation, kind: &str) -> SqlError {
    SqlError::new(state::WRONG_OBJECT_TYPE, format!("cannot lock relation \"{}\"", relation.name()))
        .detail(format!("This operation is not supported for {kind}."))
}

impl Shared {
    /// pg_advisory_lock() and its kin.
    pub(super) fn lock_advisory(
        &self,
        key: AdvisoryKey,
        exclusive: bool,
        by_session: bool,
        wait: bool,
    ) -> Result<bool> {
        self.txn.locks().advisory(key, exclusive, by_session, wait)
    }
    /// pg_advisory_unlock() and its kin: a warning if there is nothing to unlock.
    pub(super) fn unlock_advisory(&self, key: AdvisoryKey, exclusive: bool) -> bool {
        let had = self.txn.locks().advisory_unlock(key, exclusive);
        if !had {
            let mode = if exclusive { TableMode::Exclusive } else { TableMode::Share };
            self.warn(format!("you don't own a lock of type {}", mode.name()));
        }
        had
    }
    /// Locks of all open databases, by the database's name: pg_locks.
    pub(super) fn all_locks(&self) -> Vec<(String, LockStatus)> {
        let of = |db: &super::Db| db.locks.status().into_iter().map(|lock| (db.name.clone(), lock)).collect::<Vec<_>>();
        self.instance.open_databases().iter().flat_map(|db| of(db)).collect()
    }
    /// Process ids of those a session waits for.
    pub(super) fn blockers(&self, pid: i32) -> Vec<i32> {
        self.instance.open_databases().iter().flat_map(|db| db.locks.blocking_pids(pid)).collect()
    }
}
