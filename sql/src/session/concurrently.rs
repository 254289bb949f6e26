//! CREATE INDEX CONCURRENTLY, DROP INDEX CONCURRENTLY and REINDEX: indexes that come, go and are mended while their table is written.
//!
//! ```text
//! session                                                    writers of the table
//! 1  lock SHARE UPDATE EXCLUSIVE, for all that follows       go on
//! 2  commit the index, not valid                             statements that begin from here on keep it up, for they look at definitions after locking
//! 3  wait for the end of transactions that write the table   go on; those that do not know the index end
//! 4  rows in batches: add the entries that are missing       go on, each row with its entry
//! 5  commit: the index is valid                              plans may read it
//! ```
//!
//! A batch is a transaction of its own on the newest version. It fails, and is done again in smaller pieces, if one of its rows changed before its
//! commit; so an entry is only ever added for a row as it is. A writer that has changed a row and not committed it yet removes the entry of the row's
//! old values whether or not it is there, so a batch that comes in between does no harm.
//!
//! An entry of a unique index has one key for all rows with that value, and before step 5 there may be several, of which the index has one. So whoever
//! changes such an entry holds the claim of its key: the batch claims before it looks, writers before they remove, and neither removes nor replaces an entry that
//! leads to another row. Two rows that are there at once fail the build; the index stays, not valid and no longer kept up, for DROP INDEX or REINDEX.
//!
//! Plans and snapshots older than step 5 do not read the index, for it is not valid in the definitions that belong to them.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::Error as EngineError;
use pgbee_engine::bee::{Direction, KeyRange};
use pgbee_engine::storage::Durability;
use pgbee_engine::txn::{CommitInfo, ReadView, Snapshot, Transaction};

use super::Session;
use super::outcome::{Notice, Outcome};
use super::shared::unix_micros;
use super::transaction::StatementCx;
use super::utility::command;
use crate::bind::{self, ParamTypes};
use crate::catalog::Catalog;
use crate::catalog::change::Change;
use crate::catalog::schema::{Index, Relation, Table};
use crate::codec::{Decoder, IndexCodec, keyspace};
use crate::error::{Result, SqlError, state};
use crate::lock::{Got, Patience, RowMode, TableMode};
use crate::parse::ast::{self, CreateIndex, ObjectKind, QName, StatementKind};
use crate::types::Row;
use crate::write::constraints::duplicated;

/// Rows of a batch at most.
const BATCH: usize = 512;
/// Bytes of the rows of a batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// How often one row may change before its commit until it is locked for a moment.
const RACES: usize = 3;

/// A row on its way into an index.
struct Found {
    key: Bytes,
    value: Bytes,
    row: Row,
}

impl Session {
    /// CREATE INDEX CONCURRENTLY.
    pub(super) fn create_index_concurrently(
        &mut self,
        statement: &ast::Statement,
        create: &CreateIndex,
    ) -> Result<Outcome> {
        self.refuse_in_block("CREATE INDEX CONCURRENTLY")?;
        let before = self.newest_catalog()?;
        self.define(statement)?;
        let Some((table, index)) = self.made_index(&before, create)? else {
            // It is there already, which IF NOT EXISTS allows.
            self.commit()?;
            return command("CREATE INDEX");
        };
        self.commit_step()?;
        if let Err(error) = self.build(table, index) {
            // Nobody is to be refused a row for an index that will not be.
            if let Err(e) = self.set_state(table, index, false, false) {
                tracing::error!(error = %e, "an index that could not be built is still kept up");
            }
            return Err(error);
        }
        self.commit()?;
        command("CREATE INDEX")
    }

    /// Fills an index that writers keep up from now on, and declares it valid.
    fn build(&mut self, table: u32, index: u32) -> Result<()> {
        self.shared.txn.locks().wait_for_holders(table, TableMode::Share)?;
        self.fill(table, index)?;
        self.set_state(table, index, true, true)
    }

    /// The index that the transaction has just defined: oids of its table and its own.
    fn made_index(&mut self, before: &Catalog, create: &CreateIndex) -> Result<Option<(u32, u32)>> {
        if self.block.own.is_none() {
            return Ok(None);
        }
        let cx = self.statement()?;
        let found = self.with_env(&cx, &ParamTypes::none(), |env| bind::find_relation(&create.table, env))?;
        let Some(Relation::Table(table)) = found else { return Ok(None) };
        let made = table.indexes.iter().rfind(|i| !i.valid && before.by_oid(i.oid).is_none());
        Ok(made.map(|i| (table.oid, i.oid)))
    }

    /// DROP INDEX CONCURRENTLY.
    pub(super) fn drop_index_concurrently(
        &mut self,
        statement: &ast::Statement,
        names: &[QName],
        cascade: bool,
    ) -> Result<Outcome> {
        if names.len() > 1 {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "DROP INDEX CONCURRENTLY does not support dropping multiple objects",
            ));
        }
        if cascade {
            let message = "DROP INDEX CONCURRENTLY does not support CASCADE";
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message));
        }
        self.refuse_in_block("DROP INDEX CONCURRENTLY")?;
        let mut found = None;
        self.statement_under_locks(|session, cx| {
            found = match names.first() {
                Some(name) => session.find_index(name, cx)?,
                None => None,
            };
            let mode = TableMode::ShareUpdateExclusive;
            Ok(found.iter().flat_map(|(table, oid)| [(table.oid, mode), (*oid, mode)]).collect())
        })?;
        // One that a constraint needs is refused below.
        if let Some((table, oid)) = &found
            && table.indexes.iter().any(|i| i.oid == *oid && !i.constraint)
        {
            self.set_state(table.oid, *oid, false, true)?;
            self.shared.txn.locks().wait_for_holders(table.oid, TableMode::AccessExclusive)?;
        }
        self.define(statement)?;
        self.commit()?;
        command("DROP INDEX")
    }

    fn find_index(&self, name: &QName, cx: &StatementCx) -> Result<Option<(Arc<Table>, u32)>> {
        let found = self.with_env(cx, &ParamTypes::none(), |env| bind::find_relation(name, env));
        Ok(match found {
            Ok(Some(Relation::Index(table, oid))) => Some((table, oid)),
            // What else it is, or that it is not, is for DROP to say.
            _ => None,
        })
    }

    /// REINDEX of all tables named: each in a transaction of its own, or without keeping anyone from writing them.
    pub(super) fn reindex_tables(
        &mut self,
        tables: Vec<u32>,
        concurrently: bool,
        statement: &ast::Statement,
    ) -> Result<()> {
        self.commit()?;
        for oid in tables {
            self.shared.cancel.check()?;
            let catalog = self.newest_catalog()?;
            let Some(table) = catalog.table(oid).cloned() else { continue };
            if concurrently {
                self.reindex_concurrently(&table, None)?;
                continue;
            }
            let schema = catalog.schemas.get(&table.schema).map(|s| s.name.clone()).unwrap_or_default();
            let name = QName { parts: vec![schema, table.name.clone()], pos: 0 };
            let kind = StatementKind::Reindex { kind: ObjectKind::Table, name, concurrently };
            self.define(&ast::Statement { kind, ..statement.clone() })?;
            self.commit()?;
        }
        Ok(())
    }

    /// REINDEX CONCURRENTLY of one index or all of a table.
    pub(super) fn reindex_concurrently(&mut self, table: &Arc<Table>, only: Option<u32>) -> Result<()> {
        let oid = table.oid;
        self.statement_under_locks(|_, _| Ok(vec![(oid, TableMode::ShareUpdateExclusive)]))?;
        let Some(table) = self.newest_catalog()?.table(oid).cloned() else { return Ok(self.commit()?) };
        for index in table.indexes.iter().filter(|i| only.is_none_or(|oid| i.oid == oid)) {
            if !index.valid && only.is_none() {
                let schema =
                    self.newest_catalog()?.schemas.get(&table.schema).map(|s| s.name.clone()).unwrap_or_default();
                let report = SqlError::new(
                    state::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("cannot reindex invalid index \"{schema}.{}\" concurrently, skipping", index.name),
                )
                .hint("Use DROP INDEX or REINDEX INDEX.");
                self.shared.notices.lock().push(Notice { severity: "WARNING", report });
                continue;
            }
            // Whoever writes without knowing of the index: there may be some if its build was cut short a moment ago.
            self.shared.txn.locks().wait_for_holders(oid, TableMode::Share)?;
            self.clear(oid, index.oid, !index.ready)?;
            if !index.ready {
                self.set_state(oid, index.oid, false, true)?;
            }
            match index.valid {
                true => self.fill(oid, index.oid)?,
                false => self.build(oid, index.oid)?,
            }
        }
        Ok(self.commit()?)
    }

    /// Says in a transaction of its own whether plans may use an index, and whether writers keep it up. Locks are kept.
    fn set_state(&mut self, table: u32, index: u32, valid: bool, ready: bool) -> Result<()> {
        loop {
            let cx = self.statement()?;
            let committed = self.newest_catalog()?;
            let found = committed.table(table).cloned().ok_or_else(|| gone(index))?;
            let mut changed = Table::clone(&found);
            changed.indexes.iter_mut().filter(|i| i.oid == index).for_each(|i| (i.valid, i.ready) = (valid, ready));
            self.begin_writes(&cx, "CREATE INDEX")?;
            let base = committed.stamp;
            let mut change = Change::guarded(committed, self.guard_definitions(base)?);
            let put = change.put_table(changed);
            if change.is_stale() {
                self.shared.cancel.check()?;
                self.abort_writes();
                continue;
            }
            put?;
            self.keep(change, base)?;
            return self.commit_step();
        }
    }

    /// Adds the entries an index lacks. Everyone who writes the table knows the index.
    fn fill(&mut self, table: u32, index: u32) -> Result<()> {
        let build = Build::new(self, table, index)?;
        let (mut after, mut limit, mut races) = (None, BATCH, 0);
        loop {
            self.shared.cancel.check()?;
            let mark = self.shared.txn.locks().mark();
            let added = build.batch(self, after.as_ref(), limit, races >= RACES);
            self.shared.txn.locks().release_since(mark);
            match added? {
                Batch::End => return Ok(()),
                Batch::Done(last) => (after, limit, races) = (Some(last), (limit * 2).min(BATCH), 0),
                Batch::Changed => {
                    races += usize::from(limit == 1);
                    limit = (limit / 2).max(1);
                }
            }
        }
    }

    /// Removes entries that lead to no row, or to one with other values; there are some only if something went wrong. Of an index that is not kept up it
    /// removes `all`, for what is true now need not be so when it is.
    fn clear(&mut self, table: u32, index: u32, all: bool) -> Result<()> {
        let build = Build::new(self, table, index)?;
        let mut after: Option<Bytes> = None;
        loop {
            self.shared.cancel.check()?;
            let snapshot = self.shared.db.database.snapshot();
            let mut entries = Vec::new();
            let range = behind(keyspace::index_range(index), after.as_ref());
            ReadView::from(snapshot.clone()).scan(range, Direction::Forward)?.next_batch(&mut entries, BATCH)?;
            let Some((last, _)) = entries.last() else { return Ok(()) };
            let last = last.clone();
            let mut txn = self.shared.db.database.begin_at(snapshot.clone());
            for (entry, value) in entries {
                let key = build.codec.row_key(&entry, &value)?;
                let row = snapshot.get(&key)?.map(|row| build.decoder.decode(&row)).transpose()?;
                if all || row.is_none_or(|row| build.codec.entry(&row, &key).0 != entry) {
                    txn.depend_key(key);
                    txn.delete(entry)?;
                }
            }
            if build.commit(self, txn)? {
                after = Some(last);
            }
        }
    }
}

/// What came of a batch.
enum Batch {
    /// The entries up to this row are there.
    Done(Bytes),
    /// A row changed meanwhile, or someone claims a key: to be done again, with fewer rows.
    Changed,
    /// There are no more rows.
    End,
}

/// An index being filled.
struct Build {
    table: Arc<Table>,
    index: Index,
    codec: IndexCodec,
    decoder: Decoder,
    user: String,
}

impl Build {
    fn new(session: &Session, table: u32, index: u32) -> Result<Build> {
        let catalog = session.newest_catalog()?;
        let table = catalog.table(table).cloned().ok_or_else(|| gone(index))?;
        let index = table.indexes.iter().find(|i| i.oid == index).cloned().ok_or_else(|| gone(index))?;
        Ok(Build {
            codec: IndexCodec::new(&table, &index),
            decoder: Decoder::all(&table),
            user: session.user.clone(),
            table,
            index,
        })
    }

    /// Adds the entries of the next rows. `wait`: for whoever changes them, which is asked for only where a single row keeps changing.
    fn batch(&self, session: &Session, after: Option<&Bytes>, limit: usize, wait: bool) -> Result<Batch> {
        let database = &session.shared.db.database;
        let locks = session.shared.txn.locks();
        let mut rows = self.rows(&database.snapshot(), after, limit)?;
        if rows.is_empty() {
            return Ok(Batch::End);
        }
        let alone = rows.len() == 1;
        for at in 0..rows.len() {
            let row = &rows[at];
            if alone && wait {
                locks.row(self.table.oid, &row.key, RowMode::Share, Patience::Wait)?;
            }
            let Some(unique) = self.codec.unique_key(&row.row) else { continue };
            // Whoever claims a key may do so for long: it is waited for with nothing else in hand.
            let patience = if alone { Patience::Wait } else { Patience::Skip };
            if locks.claim_with(self.table.oid, &unique, patience)? == Got::Skipped {
                rows.truncate(at.max(1));
                if at == 0 {
                    return Ok(Batch::Changed);
                }
                break;
            }
        }
        // What is looked at now was committed before the claims were got.
        let newest = database.snapshot();
        let keys: Vec<&Bytes> = rows.iter().map(|r| &r.key).collect();
        for (row, now) in rows.iter().zip(newest.get_many(&keys)?) {
            if now.as_ref() != Some(&row.value) {
                return Ok(Batch::Changed);
            }
        }
        let mut txn = database.begin_at(newest.clone());
        for row in &rows {
            self.add(row, &newest, &mut txn, session)?;
        }
        Ok(match self.commit(session, txn)? {
            true => rows.pop().map_or(Batch::End, |row| Batch::Done(row.key)),
            false => Batch::Changed,
        })
    }

    fn rows(&self, snapshot: &Snapshot, after: Option<&Bytes>, limit: usize) -> Result<Vec<Found>> {
        let range = behind(keyspace::table_range(self.table.oid), after);
        let mut scan = ReadView::from(snapshot.clone()).scan(range, Direction::Forward)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < limit
            && bytes < BATCH_BYTES
            && let Some((key, value)) = scan.next()?
        {
            bytes += key.len() + value.len();
            rows.push(Found { row: self.decoder.decode(&value)?, key, value });
        }
        Ok(rows)
    }

    /// Puts a row's entry, if it is not there.
    fn add(&self, found: &Found, newest: &Snapshot, txn: &mut Transaction, session: &Session) -> Result<()> {
        let (entry, value) = self.codec.entry(&found.row, &found.key);
        // Rows of this batch may collide, too.
        match txn.get(&entry)? {
            Some(there) if there == value => return Ok(()),
            Some(there) => {
                let other = self.codec.row_key(&entry, &there)?;
                let row = newest.get(&other)?.map(|row| self.decoder.decode(&row)).transpose()?;
                if row.is_some_and(|row| self.codec.entry(&row, &other).0 == entry) {
                    let positions = self.codec.columns().iter().map(|(p, _)| *p);
                    let session = &session.output_cx();
                    return Err(duplicated(&self.table, &self.index.name, positions, &found.row, session));
                }
            }
            None => {}
        }
        txn.depend_key(found.key.clone());
        Ok(txn.put(entry, value)?)
    }

    /// Commits a batch; false if a row of it has changed. It need not be on disk before the commit that declares the index valid is.
    fn commit(&self, session: &Session, txn: Transaction) -> Result<bool> {
        if txn.is_read_only() {
            return Ok(true);
        }
        let user = self.user.clone();
        let info = CommitInfo { user, durability: Durability::NoSync, ..CommitInfo::at(unix_micros()) };
        match session.shared.db.database.commit(txn, info) {
            Ok(_) => Ok(true),
            Err(EngineError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The part of a range behind a key.
fn behind(range: KeyRange, after: Option<&Bytes>) -> KeyRange {
    match after {
        Some(key) => KeyRange { start: Bound::Excluded(key.clone()), ..range },
        None => range,
    }
}

/// It was there when it was locked.
fn gone(index: u32) -> SqlError {
    SqlError::new(state::UNDEFINED_OBJECT, format!("index with OID {index} does not exist"))
}
