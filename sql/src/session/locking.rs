//! Locks of relations: what a statement uses is locked before its snapshot is taken, and stays locked until its transaction ends.
//!
//! ```text
//! snapshot, definitions -> plan -> lock what the plan names -> nobody committed since the snapshot? run it
//!      ^                                                        |
//!      +---- anew, with the plan if it still stands ------------+
//! ```
//!
//! A lock that was got without waiting may have been another's a moment ago, so what counts is not whether one waited but whether anything was
//! committed between the snapshot and the locks. The second round holds the locks already, and a plan can only name other relations if definitions
//! changed once more: it ends. REPEATABLE READ keeps its snapshot, which PostgreSQL takes before it locks, too, and only plans anew.
//!
//! Definitions that a transaction changed are its own ([`Own`]): the newest ones with its edits on them, merged again whenever others commit some.
//! A transaction that keeps its snapshot reads old rows, but by the newest definitions ([`seen_from`]), as in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::txn::{Database, Snapshot};

use super::Session;
use super::query::Planned;
use super::shared::Shared;
use super::transaction::StatementCx;
use crate::catalog::Catalog;
use crate::catalog::change::{Edits, Guard, merged, parse_next_oid};
use crate::catalog::schema::{Relation, Table};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::lock::{Got, Patience, TableMode};

/// Definitions as an open transaction changed them.
#[derive(Clone)]
pub(super) struct Own {
    edits: Arc<Edits>,
    /// Stamp of the committed definitions they were put on last.
    base: u64,
    catalog: Arc<Catalog>,
}

impl Own {
    /// After a statement: its catalog, over the committed definitions of this stamp, and what it changed.
    pub fn after(before: Option<&Own>, base: u64, catalog: Arc<Catalog>, edits: Edits) -> Own {
        let mut all = before.map(|own| Edits::clone(&own.edits)).unwrap_or_default();
        all.extend(edits);
        Own { edits: Arc::new(all), base, catalog }
    }
    /// On these committed definitions.
    pub fn over(&mut self, committed: &Arc<Catalog>) -> Arc<Catalog> {
        if self.base != committed.stamp {
            self.catalog = Arc::new(merged(committed, &self.edits));
            self.base = committed.stamp;
        }
        self.catalog.clone()
    }
    /// Whether the transaction itself changed a table.
    fn has(&self, oid: u32) -> bool {
        self.edits.keys().any(|(_, known)| *known == oid)
    }
}

/// What a transaction that keeps its snapshot sees of definitions.
#[derive(Clone)]
pub(super) struct SeenFrom {
    snapshot: u64,
    newest: u64,
    catalog: Arc<Catalog>,
    /// Tables whose rows were written anew since: it can read them as they were, not change them.
    rewritten: Arc<[u32]>,
}

/// The newest definitions as they fit rows of an older version. An index that was not there then does not find all of those rows: it is kept up, not
/// read. A table whose rows were written anew since then (other keys, other types) is seen as it was.
fn seen_from(old: &Catalog, newest: &Arc<Catalog>) -> SeenFrom {
    let mut edits = Edits::new();
    let mut rewritten = Vec::new();
    for (oid, relation) in &newest.relations {
        let (Relation::Table(new), Some(before)) = (relation, old.table(*oid)) else { continue };
        if Arc::ptr_eq(new, before) {
            continue;
        }
        if !reads_rows_of(new, before) {
            rewritten.push(*oid);
            edits.insert(
                (keyspace::Kind::Table, *oid),
                Some(crate::catalog::change::Edit::Relation(Relation::Table(before.clone()))),
            );
            continue;
        }
        let usable = |oid: u32| before.indexes.iter().any(|i| i.oid == oid && i.valid);
        if new.indexes.iter().any(|i| i.valid && !usable(i.oid)) {
            let mut seen = Table::clone(new);
            seen.indexes.iter_mut().filter(|i| !usable(i.oid)).for_each(|i| i.valid = false);
            edits.insert(
                (keyspace::Kind::Table, *oid),
                Some(crate::catalog::change::Edit::Relation(Relation::Table(Arc::new(seen)))),
            );
        }
    }
    let catalog = if edits.is_empty() { newest.clone() } else { Arc::new(merged(newest, &edits)) };
    SeenFrom { snapshot: old.stamp, newest: newest.stamp, catalog, rewritten: rewritten.into() }
}

/// Whether rows written by an older definition can be read by a newer one: keys and types are the same.
fn reads_rows_of(new: &Table, old: &Table) -> bool {
    let key = |t: &Table| t.primary_key.as_ref().map(|k| k.columns.clone());
    let types = old.slots.iter().all(|before| {
        let after = new.slots.iter().find(|slot| slot.attnum == before.attnum);
        after.is_some_and(|slot| (slot.ty, slot.typmod) == (before.ty, before.typmod))
    });
    key(new) == key(old) && types
}

/// Oids are given out by a counter in memory: a transaction that rolls back leaves a gap. What is stored is written with the definitions themselves.
#[derive(Default)]
pub(super) struct Oids {
    /// The next one; 0: not known yet.
    next: AtomicU32,
    /// Held by who commits definitions, so that the stored counter is never behind one of them.
    pub commit: Mutex<()>,
}

impl Oids {
    /// Finds out where the counter stands.
    fn load(&self, database: &Database) -> Result<()> {
        if self.next.load(Ordering::Relaxed) == 0 {
            let _one = self.commit.lock();
            let stored = parse_next_oid(database.snapshot().get(keyspace::NEXT_OID)?.as_deref())?;
            self.next.fetch_max(stored, Ordering::Relaxed);
        }
        Ok(())
    }
    fn take(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
    /// What to store with a commit of definitions, while `commit` is held.
    pub fn stored(&self) -> Bytes {
        Bytes::from(self.next.load(Ordering::Relaxed).to_string())
    }
}

/// Keeps a statement's definitions apart from those of others.
struct Definitions {
    shared: Arc<Shared>,
    /// Stamp of the committed definitions the statement knows.
    base: u64,
}

impl Guard for Definitions {
    fn claim(&self, key: &[u8]) -> Result<bool> {
        Ok(self.shared.txn.locks().claim(0, key)? != Got::Had)
    }
    fn named(&self, key: &[u8]) -> Result<Option<u32>> {
        let value = self.shared.db.database.snapshot().get(key)?;
        value
            .map(|v| serde_json::from_slice(&v).map_err(|e| SqlError::internal(format!("a name cannot be read: {e}"))))
            .transpose()
    }
    fn is_stale(&self) -> Result<bool> {
        Ok(self.shared.db.catalog(&self.shared.db.database.snapshot())?.stamp != self.base)
    }
    fn new_oid(&self) -> u32 {
        self.shared.db.oids.take()
    }
}

impl Session {
    /// What a statement that changes definitions is guarded by.
    pub(super) fn guard_definitions(&self, base: u64) -> Result<Arc<dyn Guard>> {
        self.shared.db.oids.load(&self.shared.db.database)?;
        Ok(Arc::new(Definitions { shared: self.shared.clone(), base }))
    }

    /// Definitions for a statement that reads a snapshot of the present.
    pub(super) fn definitions(&mut self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        let mut committed = self.shared.db.catalog(snapshot)?;
        if self.block.isolation.is_fixed() && !self.block.is_past && !self.shared.is_follower() {
            committed = self.definitions_seen_from(&committed)?;
        }
        Ok(match &mut self.block.own {
            Some(own) => own.over(&committed),
            None => committed,
        })
    }
    fn definitions_seen_from(&mut self, old: &Arc<Catalog>) -> Result<Arc<Catalog>> {
        let newest = self.newest_catalog()?;
        if newest.stamp == old.stamp {
            self.block.seen = None;
            return Ok(newest);
        }
        match &self.block.seen {
            Some(seen) if (seen.snapshot, seen.newest) == (old.stamp, newest.stamp) => Ok(seen.catalog.clone()),
            _ => {
                let seen = seen_from(old, &newest);
                let catalog = seen.catalog.clone();
                self.block.seen = Some(seen);
                Ok(catalog)
            }
        }
    }

    /// Locks relations until the transaction ends. True: others committed something between the statement's snapshot and the locks, so the statement is to be
    /// begun anew ([`Session::statement_anew`]).
    pub(super) fn lock_relations(&mut self, relations: &[(u32, TableMode)], cx: &StatementCx) -> Result<bool> {
        if relations.is_empty() || cx.is_past() || self.block.is_past || self.shared.is_follower() {
            return Ok(false);
        }
        let mut is_new = false;
        for (oid, mode) in relations {
            is_new |= self.shared.txn.locks().table(*oid, *mode, Patience::Wait)? != Got::Had;
        }
        if let Some(seen) = &self.block.seen {
            let own = |oid| self.block.own.as_ref().is_some_and(|own| own.has(oid));
            let written = relations.iter().filter(|(_, mode)| *mode >= TableMode::RowShare);
            if written.clone().any(|(oid, _)| seen.rewritten.contains(oid) && !own(*oid)) {
                let message = "could not serialize access due to concurrent update";
                return Err(SqlError::new(state::SERIALIZATION_FAILURE, message));
            }
        }
        if !is_new {
            return Ok(false);
        }
        if self.block.isolation.is_fixed() {
            return Ok(self.definitions(&cx.snapshot)?.stamp != cx.cx.catalog.stamp);
        }
        Ok(self.shared.database.head() != cx.snapshot.version())
    }

    /// Plans a statement and locks what it uses.
    pub(super) fn plan_under_locks(
        &mut self,
        mut plan: impl FnMut(&mut Session, &StatementCx) -> Result<Arc<Planned>>,
    ) -> Result<(Arc<Planned>, StatementCx)> {
        let mut cx = self.statement()?;
        let mut planned = plan(self, &cx)?;
        while self.lock_relations(&planned.relations, &cx)? {
            cx = self.statement_anew(&cx)?;
            if !planned.is_current(&cx) {
                planned = plan(self, &cx)?;
            }
        }
        Ok((planned, cx))
    }

    /// Locks what a statement that is not planned names: `wanted` says what that is, by the definitions it is given.
    pub(super) fn statement_under_locks(
        &mut self,
        mut wanted: impl FnMut(&mut Session, &StatementCx) -> Result<Vec<(u32, TableMode)>>,
    ) -> Result<StatementCx> {
        let mut cx = self.statement()?;
        loop {
            let relations = wanted(self, &cx)?;
            if !self.lock_relations(&relations, &cx)? {
                return Ok(cx);
            }
            cx = self.statement_anew(&cx)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::schema::{Column, Index, IndexColumn, Key};
    use crate::types::Type;

    fn table(columns: &[(i16, Type)], key: Option<Vec<i16>>, indexes: &[u32]) -> Table {
        let by = || vec![IndexColumn { attnum: 1, desc: false, nulls_first: false }];
        Table {
            oid: 20000,
            schema: crate::catalog::PUBLIC,
            name: "t".into(),
            slots: columns.iter().map(|(n, ty)| Column::new(*n, format!("c{n}"), ty.plain())).collect(),
            primary_key: key.map(|columns| Key { oid: 20001, name: "t_pkey".into(), columns, comment: None }),
            indexes: indexes.iter().map(|oid| Index::new(*oid, format!("i{oid}"), by())).collect(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
            foreign: None,
            comment: None,
        }
    }
    fn catalog(stamp: u64, table: Table) -> Arc<Catalog> {
        let mut catalog = Catalog { stamp, ..Catalog::default() };
        catalog.relations.insert(table.oid, Relation::Table(Arc::new(table)));
        Arc::new(catalog)
    }
    fn indexes(catalog: &Catalog) -> Vec<(u32, bool)> {
        catalog.table(20000).unwrap().indexes.iter().map(|i| (i.oid, i.valid)).collect()
    }

    #[test]
    fn an_old_snapshot_reads_old_rows_by_new_definitions() {
        let old = catalog(1, table(&[(1, Type::INT4)], None, &[7]));
        // A column and an index more.
        let new = catalog(2, table(&[(1, Type::INT4), (2, Type::TEXT)], None, &[7, 8]));
        let seen = seen_from(&old, &new);
        assert_eq!(indexes(&seen.catalog), [(7, true), (8, false)]);
        assert_eq!(seen.catalog.table(20000).unwrap().width(), 2);
        assert!(seen.rewritten.is_empty());
        // Rows under other keys, or of another type, are read as they were.
        for changed in [table(&[(1, Type::INT4)], Some(vec![1]), &[7]), table(&[(1, Type::INT8)], None, &[7])] {
            let seen = seen_from(&old, &catalog(2, changed));
            assert_eq!(*seen.rewritten, [20000]);
            assert!(seen.catalog.table(20000).unwrap().primary_key.is_none());
            assert_eq!(seen.catalog.table(20000).unwrap().slots[0].ty, Type::INT4.0);
        }
    }

    #[test]
    fn own_definitions_lie_over_those_that_others_commit() {
        let mine = table(&[(1, Type::INT4)], None, &[9]);
        let edit = crate::catalog::change::Edit::Relation(Relation::Table(Arc::new(mine)));
        let edits = BTreeMap::from([((keyspace::Kind::Table, 20000), Some(edit))]);
        let first = catalog(1, table(&[(1, Type::INT4)], None, &[]));
        let mut own = Own::after(None, 0, first.clone(), edits);
        assert_eq!(indexes(&own.over(&first)), [(9, true)]);
        let mut second = Catalog::clone(&first);
        second.stamp = 2;
        let other = Table { oid: 30000, name: "other".into(), ..table(&[(1, Type::INT4)], None, &[]) };
        second.relations.insert(30000, Relation::Table(Arc::new(other)));
        let now = own.over(&Arc::new(second));
        assert!(now.table(30000).is_some());
        assert_eq!(indexes(&now), [(9, true)]);
        assert_eq!(
            own.over(&Arc::new(Catalog { stamp: 2, ..Catalog::default() })).stamp,
            now.stamp,
            "merged once a stamp"
        );
    }
}
