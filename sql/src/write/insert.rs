//! INSERT with ON CONFLICT, and rows from elsewhere (COPY, CREATE TABLE AS).

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use pgbee_engine::Version;

use crate::catalog::schema::Table;
use crate::error::{Result, SqlError, state};
use crate::exec::{self, ExecCx, RowBuffer};
use crate::functions::SessionCx;
use crate::ir::{Dml, OnConflict};
use crate::lock::{Patience, RowMode};
use crate::types::{Datum, Row};

use super::after::Change as After;
use super::target::{Prepared, Target, TargetIndex};
use super::{KeySet, TxnHandle, Writer, next_id, row};

/// Rows between two looks for a cancel.
const CANCEL_ROWS: u64 = 256;

/// Puts rows into one table. Their values are complete and of the columns' types.
pub struct Inserter<'a> {
    target: Target,
    rows: RowPutter,
    session: &'a SessionCx,
}

impl<'a> Inserter<'a> {
    /// For the rows of a table that the transaction itself made: nobody else knows of it, so nothing need be locked.
    pub fn bulk(table: &Arc<Table>, txn: &TxnHandle, session: &'a SessionCx) -> Result<Inserter<'a>> {
        let target = Target::new(table);
        let rows = RowPutter { unseen: true, ..RowPutter::new(&target, txn)? };
        Ok(Inserter { rows, target, session })
    }
    /// Puts a row: NOT NULL and unique keys are looked after, CHECKs are the caller's.
    pub fn insert(&mut self, row: &[Datum]) -> Result<()> {
        self.target.check_not_null(row, self.session)?;
        self.rows.put(&self.target, row, self.session).map(|_| ())
    }
}

/// Puts new rows of one target into a transaction.
pub(super) struct RowPutter {
    txn: TxnHandle,
    ids: Option<Arc<AtomicI64>>,
    /// Nobody else sees the table.
    unseen: bool,
}

impl RowPutter {
    pub(super) fn new(target: &Target, txn: &TxnHandle) -> Result<RowPutter> {
        let ids = if target.keys.by_row_id() { Some(txn.row_ids().of(target.table.oid, txn)?) } else { None };
        Ok(RowPutter { txn: txn.clone(), ids, unseen: false })
    }
    /// Puts a row with its index entries and returns its key. 23505 if a unique key of it is taken.
    pub(super) fn put(&self, target: &Target, row: &[Datum], session: &SessionCx) -> Result<Vec<u8>> {
        let key = match &self.ids {
            Some(ids) => target.keys.row_id(next_id(ids)),
            None => target.keys.encode(row),
        };
        let put = if self.unseen { row::insert_unseen } else { row::insert };
        put(target, &self.txn, &key, row, session)?;
        Ok(key)
    }
    /// Key of the row that stands in the way of this one by the arbiter, or by any unique key. Where none does, the keys looked at stay claimed.
    fn conflicting(&self, target: &Target, row: &[Datum], arbiter: Option<u32>) -> Result<Option<Vec<u8>>> {
        let primary = target.table.primary_key.as_ref().map(|k| k.oid);
        if primary.is_some() && (arbiter.is_none() || arbiter == primary) {
            let key = target.keys.encode(row);
            if let Some(found) = row::holder(target, &self.txn, &key, None)? {
                return Ok(Some(found));
            }
        }
        for index in target.indexes.iter().filter(|i| arbiter.is_none_or(|a| a == i.oid)) {
            if let Some(unique) = index.codec.unique_key(row)
                && let Some(found) = row::holder(target, &self.txn, &unique, Some(index))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Runs an INSERT.
pub(super) fn run(
    writer: &Writer,
    dml: &Dml,
    prepared: &Prepared,
    columns: &[usize],
    on_conflict: Option<&OnConflict>,
    cx: &ExecCx,
) -> Result<(RowBuffer, u64)> {
    let putter = RowPutter::new(&prepared.target, &writer.txn)?;
    let mut conflicts = on_conflict.map(|clause| Conflicts::new(clause, prepared, cx));
    let (mut returned, mut count, mut seen) = (prepared.returned(cx), 0, 0);
    let mut source = exec::dml_source(dml, cx)?;
    while let Some(batch) = source.next_batch()? {
        for values in batch {
            seen += 1;
            if seen % CANCEL_ROWS == 0 {
                cx.session.check_cancel()?;
            }
            let mut row = vec![Datum::Null; prepared.target.width()];
            for (value, position) in values.into_iter().zip(columns) {
                row[*position] = value;
            }
            for (position, default) in &prepared.defaults {
                row[*position] = default.eval(&[], cx)?;
            }
            prepared.check(&row, cx)?;
            let row = match &mut conflicts {
                None => {
                    let key = putter.put(&prepared.target, &row, &cx.session)?;
                    writer.touch(&key)?;
                    writer.txn.record(&prepared.target, After::Insert { key: &key, row: &row }, &cx.session)?;
                    Some(row)
                }
                Some(conflicts) => conflicts.put(writer, &putter, row, cx)?,
            };
            if let Some(mut row) = row {
                count += 1;
                row.extend(prepared.fresh_system(writer.txn.row_stamp()));
                prepared.return_row(&row, cx, &mut returned)?;
            }
        }
    }
    Ok((returned, count))
}

/// ON CONFLICT at work.
struct Conflicts<'a> {
    clause: &'a OnConflict,
    prepared: &'a Prepared,
    /// In what mode DO UPDATE locks the row in the way.
    mode: RowMode,
    /// The version the statement reads.
    seen: Version,
    /// Keys of the rows this command inserted or updated: DO UPDATE must not reach one of them.
    own: KeySet,
}

impl<'a> Conflicts<'a> {
    fn new(clause: &'a OnConflict, prepared: &'a Prepared, cx: &ExecCx) -> Conflicts<'a> {
        let own = KeySet::new(&cx.session.memory, "ON CONFLICT DO UPDATE");
        let sets_key = |(sets, _): &super::target::ConflictUpdate| {
            sets.iter().any(|(position, _)| prepared.target.key_columns.contains(position))
        };
        let mode =
            if prepared.conflict.as_ref().is_some_and(sets_key) { RowMode::Update } else { RowMode::NoKeyUpdate };
        Conflicts { clause, prepared, mode, seen: cx.view.version(), own }
    }

    /// Inserts the row or updates what is in its way; the row as it then is, or None if nothing was done.
    fn put(&mut self, writer: &Writer, putter: &RowPutter, row: Row, cx: &ExecCx) -> Result<Option<Row>> {
        let target = &self.prepared.target;
        loop {
            let mark = writer.txn.locks().mark();
            let Some(key) = putter.conflicting(target, &row, self.clause.arbiter)? else {
                let key = putter.put(target, &row, &cx.session)?;
                writer.touch(&key)?;
                writer.txn.record(target, After::Insert { key: &key, row: &row }, &cx.session)?;
                if self.prepared.conflict.is_some() {
                    self.own.insert(&key)?;
                }
                return Ok(Some(row));
            };
            // Not inserted: other unique keys that were free are nobody's.
            writer.txn.locks().release_since(mark);
            if self.prepared.conflict.is_none() {
                self.check_seen(writer, &key)?;
                return Ok(None);
            }
            // Its own row, or one that another change of the statement was at.
            if self.own.contains(&key) || writer.was_touched(&key) {
                let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
                return Err(SqlError::new(state::CARDINALITY_VIOLATION, message).hint(
                    "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
                ));
            }
            writer.txn.locks().row(target.table.oid, &key, self.mode, Patience::Wait)?;
            self.check_seen(writer, &key)?;
            // It may have changed, or gone, before its lock was got: then all is to be looked at again.
            let Some(stored) = writer.txn.newest(&key)? else { continue };
            let stored = target.decode(&stored)?;
            if !self.is_in_the_way(&stored, &row) {
                continue;
            }
            return self.update(writer, &key, stored, row, cx);
        }
    }

    /// 40001 for a row in the way that the transaction's one snapshot does not show.
    fn check_seen(&self, writer: &Writer, key: &[u8]) -> Result<()> {
        if !writer.txn.is_fixed() || writer.txn.written(key)?.is_some() {
            return Ok(());
        }
        let newest = writer.txn.database().snapshot().get_entry(key)?;
        if newest.is_some_and(|entry| entry.seq.0 < self.seen.0) { Ok(()) } else { Err(row::concurrent("update")) }
    }

    /// Whether two rows have the same value of a unique key that the clause is about.
    fn is_in_the_way(&self, stored: &[Datum], row: &[Datum]) -> bool {
        let target = &self.prepared.target;
        let of = |oid: u32| self.clause.arbiter.is_none_or(|a| a == oid);
        let by_primary = target.table.primary_key.as_ref().is_some_and(|k| of(k.oid))
            && target.keys.encode(stored) == target.keys.encode(row);
        let same = |index: &TargetIndex| {
            let key = index.codec.unique_key(row);
            key.is_some() && key == index.codec.unique_key(stored)
        };
        by_primary || target.indexes.iter().filter(|i| of(i.oid)).any(same)
    }

    /// DO UPDATE of a row that is locked.
    fn update(&mut self, writer: &Writer, key: &[u8], stored: Row, row: Row, cx: &ExecCx) -> Result<Option<Row>> {
        let Some((assignments, filter)) = &self.prepared.conflict else { return Ok(None) };
        let target = &self.prepared.target;
        let width = target.width();
        let mut both = stored;
        both.extend(row);
        if let Some(filter) = filter
            && !matches!(filter.eval(&both, cx)?, Datum::Bool(true))
        {
            return Ok(None);
        }
        let mut new = both[..width].to_vec();
        for (position, value) in assignments {
            new[*position] = value.eval(&both, cx)?;
        }
        self.prepared.check(&new, cx)?;
        let new_key = row::update(target, &writer.txn, &both[..width], key, &new, &cx.session)?;
        let change = After::Update { old_key: key, old: &both[..width], new_key: &new_key, new: &new };
        writer.txn.record(target, change, &cx.session)?;
        writer.touch(key)?;
        writer.touch(&new_key)?;
        self.own.insert(&new_key)?;
        Ok(Some(new))
    }
}
