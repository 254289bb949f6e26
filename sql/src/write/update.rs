//! UPDATE and DELETE: rows found by a plan, locked, and changed one by one.
//!
//! A row that another transaction changed since the statement's snapshot is looked at again once its lock is got (READ COMMITTED): its newest version, beside
//! the rows it was joined with, must still satisfy WHERE, and new values are computed from it. Nothing else of the statement is done again.

use pgbee_engine::Version;

use crate::codec::row::written_by;
use crate::error::{Result, SqlError};
use crate::exec::{self, ExecCx, RowBuffer};
use crate::ir::Dml;
use crate::lock::{Patience, RowMode};
use crate::types::{Datum, Row};

use super::after::Change as After;
use super::row::{self, Locked};
use super::target::Prepared;
use super::{KeySet, Writer};

/// The key of the row a source row is about; it stands behind the target's columns.
fn row_key(source: &[Datum], width: usize) -> Result<&[u8]> {
    match source.get(width) {
        Some(Datum::Bytea(key)) => Ok(key),
        _ => Err(SqlError::internal("a change's source gave no row key")),
    }
}

/// A change at work.
struct Change<'a> {
    writer: &'a Writer,
    dml: &'a Dml,
    prepared: &'a Prepared,
    cx: &'a ExecCx,
    /// The version the statement reads.
    seen: Version,
    /// What it does with rows, for the CONTEXT of errors.
    doing: &'static str,
}

impl Change<'_> {
    /// Calls `change` for the rows of the source until it has changed each target row once, however often a join reached it.
    fn each_target(&self, mut change: impl FnMut(&[u8], &[Datum]) -> Result<bool>) -> Result<u64> {
        let width = self.prepared.target.width();
        let mut source = exec::dml_source(self.dml, self.cx)?;
        let mut changed = KeySet::new(&self.cx.session.memory, "A change by a join");
        let mut count = 0;
        while let Some(batch) = source.next_batch()? {
            self.cx.session.check_cancel()?;
            for row in &batch {
                let key = row_key(row, width)?;
                if !self.prepared.reaches_once && changed.contains(key) || self.writer.was_touched(key) {
                    continue;
                }
                // A row that is no longer joined with one row may still be with the next.
                if change(key, row)? {
                    count += 1;
                    self.writer.touch(key)?;
                    if !self.prepared.reaches_once {
                        changed.insert(key)?;
                    }
                }
            }
        }
        Ok(count)
    }

    /// Locks the target's row and finds what it is now; `None`: it is not to be changed.
    fn lock(&self, key: &[u8], source: &[Datum], mode: RowMode) -> Result<Option<Found>> {
        let target = &self.prepared.target;
        let txn = &self.writer.txn;
        let locked = row::lock_current(txn, target.table.oid, key, self.seen, mode, Patience::Wait);
        Ok(match locked.map_err(|e| row::waited(e, txn, &target.table.name, key, self.doing))? {
            Locked::Same => Some(Found::Same),
            Locked::Gone { .. } | Locked::Skipped => None,
            Locked::Changed { key, bytes, .. } => {
                let mut row = target.decode(&bytes)?;
                row.push(Datum::bytea(&key));
                if self.prepared.system {
                    row.push(Datum::Oid(written_by(&bytes)));
                    row.push(exec::place_of(&txn.database().snapshot(), &key, &bytes)?);
                }
                row.extend_from_slice(&source[row.len()..]);
                match self.prepared.recheck(self.dml, self.cx)? {
                    Some(recheck) if !recheck.holds(&mut row, source, self.cx)? => None,
                    _ => Some(Found::Changed(key, row)),
                }
            }
        })
    }
}

/// A row to be changed, once it is locked.
enum Found {
    /// As it was read.
    Same,
    /// Under this key, with this source row.
    Changed(Vec<u8>, Row),
}

/// The row RETURNING sees of an UPDATE: the target's as it is now, then the rest of the source's, row key included.
fn with_others(prepared: &Prepared, target: &[Datum], source: &[Datum], row_stamp: u32) -> Row {
    let mut row = target.to_vec();
    row.push(source[row.len()].clone());
    row.extend(prepared.fresh_system(row_stamp));
    row.extend_from_slice(&source[row.len()..]);
    row
}

/// The target's row with the assignments made.
fn assigned(prepared: &Prepared, source: &[Datum], cx: &ExecCx) -> Result<Row> {
    let mut new = source[..prepared.target.width()].to_vec();
    for (position, value) in &prepared.assignments {
        new[*position] = value.eval(source, cx)?;
    }
    prepared.check(&new, cx)?;
    Ok(new)
}

/// Runs an UPDATE.
pub(super) fn update(writer: &Writer, dml: &Dml, prepared: &Prepared, cx: &ExecCx) -> Result<(RowBuffer, u64)> {
    let (target, width) = (&prepared.target, prepared.target.width());
    let mut returned = prepared.returned(cx);
    let change = Change { writer, dml, prepared, cx, seen: cx.view.version(), doing: "updating" };
    let count = change.each_target(|key, source| {
        let mut new = assigned(prepared, source, cx)?;
        let mut mode = row::update_mode(target, &source[..width], &new);
        let (mut key, mut source) = (key, source);
        let (now_key, now_source);
        match change.lock(key, source, mode)? {
            None => return Ok(false),
            Some(Found::Same) => {}
            Some(Found::Changed(k, s)) => {
                (now_key, now_source) = (k, s);
                (key, source) = (&now_key, &now_source);
                new = assigned(prepared, source, cx)?;
                // What is assigned to a key may depend on what the row has become.
                let wanted = row::update_mode(target, &source[..width], &new);
                if wanted > mode {
                    mode = wanted;
                    writer.txn.locks().row(target.table.oid, key, mode, Patience::Wait)?;
                }
                writer.touch(key)?;
            }
        }
        let new_key = row::update(target, &writer.txn, &source[..width], key, &new, &cx.session)?;
        let change = After::Update { old_key: key, old: &source[..width], new_key: &new_key, new: &new };
        writer.txn.record(target, change, &cx.session)?;
        if new_key != key {
            writer.touch(&new_key)?;
        }
        if prepared.returns() {
            let row = with_others(prepared, &new, source, writer.txn.row_stamp());
            prepared.return_row(&row, cx, &mut returned)?;
        }
        Ok(true)
    })?;
    Ok((returned, count))
}

/// Runs a DELETE.
pub(super) fn delete(writer: &Writer, dml: &Dml, prepared: &Prepared, cx: &ExecCx) -> Result<(RowBuffer, u64)> {
    let width = prepared.target.width();
    let mut returned = prepared.returned(cx);
    let change = Change { writer, dml, prepared, cx, seen: cx.view.version(), doing: "deleting" };
    let count = change.each_target(|key, source| {
        let (mut key, mut source) = (key, source);
        let (now_key, now_source);
        match change.lock(key, source, RowMode::Update)? {
            None => return Ok(false),
            Some(Found::Same) => {}
            Some(Found::Changed(k, s)) => {
                (now_key, now_source) = (k, s);
                (key, source) = (&now_key, &now_source);
                writer.touch(key)?;
            }
        }
        row::delete(&prepared.target, &writer.txn, &source[..width], key)?;
        writer.txn.record(&prepared.target, After::Delete { key, old: &source[..width] }, &cx.session)?;
        if prepared.returns() {
            prepared.return_row(source, cx, &mut returned)?;
        }
        Ok(true)
    })?;
    Ok((returned, count))
}
