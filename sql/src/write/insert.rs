//! INSERT with ON CONFLICT, and rows from elsewhere (COPY, CREATE TABLE AS).

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use crate::catalog::schema::Table;
use crate::codec::Decoder;
use crate::error::{Result, SqlError, state};
use crate::exec::{self, ExecCx, RowBuffer};
use crate::functions::SessionCx;
use crate::ir::{Dml, OnConflict};
use crate::types::{Datum, Row};

use super::target::{Prepared, Target};
use super::{KeySet, TxnHandle, Writer, next_id, update};

/// Rows between two looks for a cancel.
const CANCEL_ROWS: u64 = 256;

/// Puts rows into one table. Their values are complete and of the columns' types.
pub struct Inserter<'a> {
    target: Target,
    rows: RowPutter,
    session: &'a SessionCx,
}

impl<'a> Inserter<'a> {
    /// For rows that come in bulk.
    pub fn bulk(table: &Arc<Table>, txn: &TxnHandle, session: &'a SessionCx) -> Result<Inserter<'a>> {
        let target = Target::new(table);
        target.depend(txn)?;
        // Loads of any size: what they collide with is found at the commit.
        let rows = RowPutter { locks: false, ..RowPutter::new(&target, txn)? };
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
    locks: bool,
}

impl RowPutter {
    pub(super) fn new(target: &Target, txn: &TxnHandle) -> Result<RowPutter> {
        let ids = if target.keys.by_row_id() { Some(txn.row_ids().of(target.table.oid, txn)?) } else { None };
        Ok(RowPutter { txn: txn.clone(), ids, locks: true })
    }
    /// Puts a row with its index entries and returns its key. 23505 if a unique key of it is taken.
    pub(super) fn put(&self, target: &Target, row: &[Datum], session: &SessionCx) -> Result<Vec<u8>> {
        let key = match &self.ids {
            Some(ids) => target.keys.row_id(next_id(ids)),
            None => target.keys.encode(row),
        };
        let bytes = target.encode(row);
        if self.locks {
            target.lock_new(row, &self.txn)?;
        }
        self.txn.with(|t| {
            for (at, index) in target.indexes.iter().map(Some).chain([None]).enumerate() {
                if at == target.primary_after && self.ids.is_none() && t.get(&key)?.is_some() {
                    return Err(target.primary_violation(row, session));
                }
                if let Some(index) = index
                    && let Some(unique) = index.codec.unique_key(row)
                    && t.get(&unique)?.is_some()
                {
                    return Err(target.index_violation(index, row, session));
                }
            }
            for index in &target.indexes {
                let (entry, value) = index.codec.entry(row, &key);
                t.put(entry, value)?;
            }
            t.put(key.clone(), bytes)?;
            Ok(())
        })?;
        Ok(key)
    }
    /// Key of the row that stands in the way of this one by the arbiter, or by any unique key.
    fn conflicting(&self, target: &Target, row: &[Datum], arbiter: Option<u32>) -> Result<Option<Vec<u8>>> {
        let primary = target.table.primary_key.as_ref().map(|k| k.oid);
        target.lock_new(row, &self.txn)?;
        self.txn.with(|t| {
            if primary.is_some() && (arbiter.is_none() || arbiter == primary) {
                let key = target.keys.encode(row);
                if t.get(&key)?.is_some() {
                    return Ok(Some(key));
                }
            }
            for index in target.indexes.iter().filter(|i| arbiter.is_none_or(|a| a == i.oid)) {
                if let Some(unique) = index.codec.unique_key(row)
                    && let Some(value) = t.get(&unique)?
                {
                    return Ok(Some(index.codec.row_key(&unique, &value)?));
                }
            }
            Ok(None)
        })
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
                    writer.touch(&putter.put(&prepared.target, &row, &cx.session)?)?;
                    Some(row)
                }
                Some(conflicts) => conflicts.put(writer, &putter, row, cx)?,
            };
            if let Some(row) = row {
                count += 1;
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
    decoder: Decoder,
    /// Keys of the rows this command inserted or updated: DO UPDATE must not reach one of them.
    own: KeySet,
}

impl<'a> Conflicts<'a> {
    fn new(clause: &'a OnConflict, prepared: &'a Prepared, cx: &ExecCx) -> Conflicts<'a> {
        let own = KeySet::new(&cx.session.memory, "ON CONFLICT DO UPDATE");
        Conflicts { clause, prepared, decoder: Decoder::all(&prepared.target.table), own }
    }

    /// Inserts the row or updates what is in its way; the row as it then is, or None if nothing was done.
    fn put(&mut self, writer: &Writer, putter: &RowPutter, row: Row, cx: &ExecCx) -> Result<Option<Row>> {
        let target = &self.prepared.target;
        let Some(key) = putter.conflicting(target, &row, self.clause.arbiter)? else {
            let key = putter.put(target, &row, &cx.session)?;
            writer.touch(&key)?;
            if self.prepared.conflict.is_some() {
                self.own.insert(&key)?;
            }
            return Ok(Some(row));
        };
        let Some((assignments, filter)) = &self.prepared.conflict else { return Ok(None) };
        // Its own row, or one that another change of the statement was at.
        if self.own.contains(&key) || writer.is_touched(&key)? {
            let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
            return Err(SqlError::new(state::CARDINALITY_VIOLATION, message).hint(
                "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
            ));
        }
        writer.txn.lock(&key)?;
        let stored = writer.txn.with(|t| Ok(t.get(&key)?))?;
        let stored = stored.ok_or_else(|| SqlError::new(state::DATA_CORRUPTED, "an index entry leads to no row"))?;
        let width = target.width();
        let mut both = self.decoder.decode(&stored)?;
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
        let new_key = update::replace(&writer.txn, target, &both[..width], &key, &new, &cx.session)?;
        writer.touch(&new_key)?;
        self.own.insert(&new_key)?;
        Ok(Some(new))
    }
}
