//! UPDATE and DELETE: rows found by a plan, changed one by one.

use crate::error::{Result, SqlError};
use crate::exec::{self, ExecCx, RowBuffer};
use crate::functions::SessionCx;
use crate::ir::Dml;
use crate::types::{Datum, Row};

use super::target::{Prepared, Target};
use super::{KeySet, TxnHandle, Writer};

/// The key of the row a source row is about; it stands behind the target's columns.
fn row_key(source: &[Datum], width: usize) -> Result<&[u8]> {
    match source.get(width) {
        Some(Datum::Bytea(key)) => Ok(key),
        _ => Err(SqlError::internal("a change's source gave no row key")),
    }
}

/// Calls `change` for each row of the source once, however often a join reached it.
fn each_target(
    writer: &Writer,
    dml: &Dml,
    prepared: &Prepared,
    cx: &ExecCx,
    mut change: impl FnMut(&[u8], &[Datum]) -> Result<()>,
) -> Result<u64> {
    let width = prepared.target.width();
    let mut source = exec::dml_source(dml, cx)?;
    let mut reached = KeySet::new(&cx.session.memory, "A change by a join");
    let mut count = 0;
    while let Some(batch) = source.next_batch()? {
        cx.session.check_cancel()?;
        for row in &batch {
            let key = row_key(row, width)?;
            if !prepared.reaches_once && !reached.insert(key)? || writer.is_touched(key)? {
                continue;
            }
            writer.txn.lock(key)?;
            change(key, row)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The row RETURNING sees: the target's as it is now, then the rest of the source's, row key included.
fn with_others(target: &[Datum], source: &[Datum], width: usize) -> Row {
    target.iter().chain(&source[width..]).cloned().collect()
}

/// Runs an UPDATE.
pub(super) fn update(writer: &Writer, dml: &Dml, prepared: &Prepared, cx: &ExecCx) -> Result<(RowBuffer, u64)> {
    let width = prepared.target.width();
    let mut returned = prepared.returned(cx);
    let count = each_target(writer, dml, prepared, cx, |key, source| {
        let old = &source[..width];
        let mut new = old.to_vec();
        for (position, value) in &prepared.assignments {
            new[*position] = value.eval(source, cx)?;
        }
        prepared.check(&new, cx)?;
        let new_key = replace(&writer.txn, &prepared.target, old, key, &new, &cx.session)?;
        if new_key != key {
            writer.touch(&new_key)?;
        }
        if prepared.returns() {
            prepared.return_row(&with_others(&new, source, width), cx, &mut returned)?;
        }
        Ok(())
    })?;
    Ok((returned, count))
}

/// Runs a DELETE.
pub(super) fn delete(writer: &Writer, dml: &Dml, prepared: &Prepared, cx: &ExecCx) -> Result<(RowBuffer, u64)> {
    let width = prepared.target.width();
    let mut returned = prepared.returned(cx);
    let count = each_target(writer, dml, prepared, cx, |key, source| {
        let old = &source[..width];
        prepared.target.lock_unique(old, &writer.txn)?;
        writer.txn.with(|t| {
            for index in &prepared.target.indexes {
                t.delete(index.codec.entry(old, key).0)?;
            }
            t.delete(key.to_vec())?;
            Ok(())
        })?;
        if prepared.returns() {
            prepared.return_row(&with_others(old, source, width), cx, &mut returned)?;
        }
        Ok(())
    })?;
    Ok((returned, count))
}

/// Puts a row's new values in place of the old ones, moving it if its key changes; returns its key.
pub(super) fn replace(
    txn: &TxnHandle,
    target: &Target,
    old: &[Datum],
    old_key: &[u8],
    new: &[Datum],
    session: &SessionCx,
) -> Result<Vec<u8>> {
    let new_key = if target.keys.by_row_id() { old_key.to_vec() } else { target.keys.encode(new) };
    let bytes = target.encode(new);
    if new_key != old_key {
        txn.lock(&new_key)?;
    }
    for index in &target.indexes {
        let (old_unique, new_unique) = (index.codec.unique_key(old), index.codec.unique_key(new));
        if old_unique != new_unique {
            for key in old_unique.iter().chain(&new_unique) {
                txn.lock(key)?;
            }
        }
    }
    txn.with(|t| {
        if new_key != old_key {
            if t.get(&new_key)?.is_some() {
                return Err(target.primary_violation(new, session));
            }
            t.delete(old_key.to_vec())?;
        }
        for index in &target.indexes {
            let (old_entry, old_value) = index.codec.entry(old, old_key);
            let (new_entry, new_value) = index.codec.entry(new, &new_key);
            if old_entry != new_entry {
                if index.codec.unique_key(new).is_some_and(|k| k == new_entry) && t.get(&new_entry)?.is_some() {
                    return Err(target.index_violation(index, new, session));
                }
                t.delete(old_entry)?;
            } else if old_value == new_value {
                continue;
            }
            t.put(new_entry, new_value)?;
        }
        t.put(new_key.clone(), bytes)?;
        Ok(())
    })?;
    Ok(new_key)
}
