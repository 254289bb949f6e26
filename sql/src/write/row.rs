//! One row, locked and changed: what every statement that writes is made of, and foreign keys' actions too.
//!
//! ```text
//! lock_row      get the row's lock, then find the row as it is now: where the statement saw it, changed, under another key, or gone
//! insert        claim its unique keys, look whether they are free, write row and index entries
//! update        the row's lock is held: claim the keys that come and go, write what differs
//! delete        the row's lock is held: claim the keys that go, remove row and index entries
//! ```
//!
//! Locks order writers, so what is written under them needs no check at the commit ([`Transaction::put_guarded`]). Three things are locked:
//!
//! * `Row(key)`, in a mode: NO KEY UPDATE where no unique key changes its value, UPDATE where one does and for DELETE;
//! * `Claim(unique key)` by whoever makes it come or go. An inserter claims first and looks then: at what the transaction itself wrote, else at the
//!   newest committed version, whatever its snapshot is;
//! * `Claim(row key)` by whoever changes the row at all: an inserter of a taken key waits, as in PostgreSQL, until it is known what the row becomes, but not
//!   for a mere SELECT FOR UPDATE.
//!
//! Invariant: an entry's `seq` is the block that wrote it and a snapshot's version the number of blocks it has, so an entry is as the snapshot saw it
//! exactly if `seq < version`. The old entry need not be read to know that a row has not changed.
//!
//! [`Transaction::put_guarded`]: pgbee_engine::txn::Transaction::put_guarded

use bytes::Bytes;
use pgbee_engine::Version;

use super::TxnHandle;
use super::moves::Lost;
use super::target::{Target, TargetIndex};
use crate::error::{Result, SqlError, state};
use crate::exec::value;
use crate::functions::SessionCx;
use crate::lock::{Got, Patience, RowMode};
use crate::types::Datum;

/// A row after its lock was got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// As the statement saw it.
    Same,
    /// Another transaction changed it.
    Changed {
        /// The key it has now.
        key: Vec<u8>,
        /// Its bytes.
        bytes: Bytes,
        /// It had another key meanwhile, if it does not still.
        has_moved: bool,
    },
    /// It was deleted. Its lock is given back.
    Gone {
        /// It was given another key before that.
        has_moved: bool,
    },
    /// Someone has it, and nobody wanted to wait.
    Skipped,
}

/// Locks a row that was seen at a version, and says what it is now. 40001 if it is not what it was and the transaction reads one snapshot.
///
/// # Errors
/// 40001 in REPEATABLE READ; 40P01, 55P03 and cancels while waiting.
pub fn lock_current(
    txn: &TxnHandle,
    table: u32,
    key: &[u8],
    seen: Version,
    mode: RowMode,
    patience: Patience,
) -> Result<Locked> {
    let locked = lock_row(txn, table, key, seen, mode, patience)?;
    match locked {
        // What PostgreSQL tells is what became of the version the snapshot has.
        Locked::Changed { .. } | Locked::Gone { has_moved: true } if txn.is_fixed() => Err(concurrent("update")),
        Locked::Gone { .. } if txn.is_fixed() => Err(concurrent("delete")),
        other => Ok(other),
    }
}

/// As [`lock_current`], at every isolation level alike: what a change means is the caller's.
///
/// # Errors
/// 40P01, 55P03 and cancels while waiting.
pub fn lock_row(
    txn: &TxnHandle,
    table: u32,
    key: &[u8],
    seen: Version,
    mode: RowMode,
    patience: Patience,
) -> Result<Locked> {
    let mark = txn.locks().mark();
    if txn.locks().row(table, key, mode, patience)? == Got::Skipped {
        return Ok(Locked::Skipped);
    }
    let (mut moment, mut has_moved) = ((seen.0, u64::MAX), false);
    let next = |key: &[u8], after| txn.moves().follow(key, after).map_err(|_: Lost| concurrent("update"));
    let mut found = match txn.written(key)? {
        // Its own writes are newer than whatever others did before it got the lock. Only where the row that was seen here has gone elsewhere, and the
        // statement followed another one to its place, it is not this one that was written.
        Some(own) if txn.is_fixed() || next(key, moment)?.is_none() => {
            return Ok(if own.is_some() { Locked::Same } else { Locked::Gone { has_moved } });
        }
        Some(_) => None,
        None => {
            let newest = txn.database().snapshot();
            if newest.version() == seen {
                return Ok(Locked::Same);
            }
            let entry = newest.get_entry(key)?;
            if entry.as_ref().is_some_and(|e| e.seq.0 < seen.0) {
                return Ok(Locked::Same);
            }
            entry
        }
    };
    let mut at = key.to_vec();
    while let Some((when, to)) = next(&at, moment)? {
        let Some(to) = to else {
            found = None;
            break;
        };
        has_moved = true;
        if txn.locks().row(table, &to, mode, patience)? == Got::Skipped {
            txn.locks().release_since(mark);
            return Ok(Locked::Skipped);
        }
        found = txn.database().snapshot().get_entry(&to)?;
        (at, moment) = (to, when);
    }
    Ok(match found {
        // What the statement itself has written there it has reached before.
        Some(entry) if txn.written(&at)?.is_none() => {
            Locked::Changed { key: at, bytes: entry.value.unwrap_or_default(), has_moved }
        }
        _ => {
            txn.locks().release_since(mark);
            Locked::Gone { has_moved }
        }
    })
}

/// An error met while a row's lock was waited for, with what was going on: CONTEXT, as PostgreSQL tells it.
pub fn waited(error: SqlError, txn: &TxnHandle, table: &str, key: &[u8], doing: &str) -> SqlError {
    let is_of_wait = matches!(error.state(), state::DEADLOCK_DETECTED | state::QUERY_CANCELED | state::ADMIN_SHUTDOWN)
        || error.message() == crate::lock::LOCK_TIMEOUT;
    if !is_of_wait {
        return error;
    }
    let entry = txn.database().snapshot().get_entry(key).ok().flatten();
    let (page, place) = entry.map_or((0, 0), |e| (e.seq.0 >> 16, e.seq.0 & 0xffff));
    error.context(|| format!("while {doing} tuple ({page},{place}) in relation \"{table}\""))
}

/// 40001 for a row that another transaction changed since this one's snapshot: `what` it did.
pub fn concurrent(what: &str) -> SqlError {
    SqlError::new(state::SERIALIZATION_FAILURE, format!("could not serialize access due to concurrent {what}"))
}

/// The mode in which an UPDATE locks its row: only who changes a key hinders those who merely need the row to stay.
pub fn update_mode(target: &Target, old: &[Datum], new: &[Datum]) -> RowMode {
    if keeps_keys(&target.key_columns, old, new) { RowMode::NoKeyUpdate } else { RowMode::Update }
}

/// Whether a row has the same values in the columns of unique keys: see [`super::target::key_columns`].
pub fn keeps_keys(key_columns: &[usize], old: &[Datum], new: &[Datum]) -> bool {
    key_columns.iter().all(|p| match (&old[*p], &new[*p]) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Null, _) | (_, Datum::Null) => false,
        (old, new) => value::order(old, new).is_eq(),
    })
}

/// Puts a new row under its key, which [`Target::new_key`] makes, with its index entries. NOT NULL and CHECK are the caller's.
///
/// # Errors
/// 23505 if a unique key of it is taken; those of waiting for one.
pub fn insert(target: &Target, txn: &TxnHandle, key: &[u8], row: &[Datum], session: &SessionCx) -> Result<()> {
    for (at, index) in target.indexes.iter().map(Some).chain([None]).enumerate() {
        if at == target.primary_after && !target.keys.by_row_id() && !is_free(target, txn, key, None)? {
            return Err(target.primary_violation(row, session));
        }
        if let Some(index) = index
            && let Some(unique) = index.codec.unique_key(row)
            && !is_free(target, txn, &unique, Some(index))?
        {
            return Err(target.index_violation(index, row, session));
        }
    }
    put_new(target, txn, key, row)
}

/// Puts a row nobody else can know of, into a table the transaction itself made: no key of it need be claimed.
///
/// # Errors
/// 23505 if a unique key of it is taken.
pub fn insert_unseen(target: &Target, txn: &TxnHandle, key: &[u8], row: &[Datum], session: &SessionCx) -> Result<()> {
    if !target.keys.by_row_id() && txn.newest(key)?.is_some() {
        return Err(target.primary_violation(row, session));
    }
    for index in &target.indexes {
        if let Some(unique) = index.codec.unique_key(row)
            && txn.newest(&unique)?.is_some()
        {
            return Err(target.index_violation(index, row, session));
        }
    }
    put_new(target, txn, key, row)
}

fn put_new(target: &Target, txn: &TxnHandle, key: &[u8], row: &[Datum]) -> Result<()> {
    let bytes = target.encode(row, txn.row_stamp());
    txn.with(|t| {
        for index in &target.indexes {
            let (entry, value) = index.codec.entry(row, key);
            t.put_guarded(entry, value)?;
        }
        t.put_guarded(key.to_vec(), bytes)?;
        Ok(())
    })
}

/// Puts a row's new values in place of the old ones, moving it if its key changes; returns its key. The row's lock is held in the mode that
/// [`update_mode`] says.
///
/// # Errors
/// 23505 if a new unique key of it is taken; those of waiting for one.
pub fn update(
    target: &Target,
    txn: &TxnHandle,
    old: &[Datum],
    old_key: &[u8],
    new: &[Datum],
    session: &SessionCx,
) -> Result<Vec<u8>> {
    let new_key = if target.keys.by_row_id() { old_key.to_vec() } else { target.keys.encode(new) };
    let moves = new_key != old_key;
    claim_row(target, txn, old_key)?;
    if moves && !is_free(target, txn, &new_key, None)? {
        return Err(target.primary_violation(new, session));
    }
    for index in &target.indexes {
        let (before, after) = (index.codec.unique_key(old), index.codec.unique_key(new));
        if before == after && !(moves && index.is_partial) {
            continue;
        }
        let is_kept = before == after;
        if let Some(key) = before {
            txn.locks().claim(target.table.oid, &key)?;
        }
        if let Some(key) = after
            && !is_kept
            && !is_free(target, txn, &key, Some(index))?
        {
            return Err(target.index_violation(index, new, session));
        }
    }
    let others = others_entries(target, txn, old, old_key)?;
    let bytes = target.encode(new, txn.row_stamp());
    txn.with(|t| {
        if moves {
            t.delete_guarded(old_key.to_vec())?;
        }
        for index in &target.indexes {
            let (old_entry, old_value) = index.codec.entry(old, old_key);
            let (new_entry, new_value) = index.codec.entry(new, &new_key);
            let is_others = others.contains(&index.oid);
            if old_entry != new_entry {
                if !is_others {
                    t.delete_guarded(old_entry)?;
                }
            } else if is_others || old_value == new_value {
                continue;
            }
            t.put_guarded(new_entry, new_value)?;
        }
        t.put_guarded(new_key.clone(), bytes)?;
        Ok(())
    })?;
    if moves {
        txn.moved(old_key, Some(&new_key))?;
    }
    Ok(new_key)
}

/// Removes a row with its index entries. The row's lock is held in mode UPDATE.
///
/// # Errors
/// Those of waiting for a key.
pub fn delete(target: &Target, txn: &TxnHandle, old: &[Datum], key: &[u8]) -> Result<()> {
    claim_row(target, txn, key)?;
    for index in &target.indexes {
        if let Some(unique) = index.codec.unique_key(old) {
            txn.locks().claim(target.table.oid, &unique)?;
        }
    }
    let others = others_entries(target, txn, old, key)?;
    txn.with(|t| {
        for index in target.indexes.iter().filter(|i| !others.contains(&i.oid)) {
            t.delete_guarded(index.codec.entry(old, key).0)?;
        }
        t.delete_guarded(key.to_vec())?;
        Ok(())
    })?;
    // A row id is never given again: only under a primary key can another row come in its place.
    if target.keys.by_row_id() { Ok(()) } else { txn.moved(key, None) }
}

/// Indexes in which another row stands where a row's entry would: a unique index that is being built can have one of several rows with the same key. The
/// claim of that key is held.
fn others_entries(target: &Target, txn: &TxnHandle, row: &[Datum], key: &[u8]) -> Result<Vec<u32>> {
    let mut others = Vec::new();
    for index in target.indexes.iter().filter(|i| i.is_partial) {
        let (entry, _) = index.codec.entry(row, key);
        if let Some(value) = txn.newest(&entry)?
            && index.codec.row_key(&entry, &value)? != key
        {
            others.push(index.oid);
        }
    }
    Ok(others)
}

/// Tells inserters of the row's unique keys that its fate is open.
fn claim_row(target: &Target, txn: &TxnHandle, key: &[u8]) -> Result<()> {
    if target.has_unique_keys() {
        txn.locks().claim(target.table.oid, key)?;
    }
    Ok(())
}

/// Claims a unique key and says whether no row has it.
pub(super) fn is_free(target: &Target, txn: &TxnHandle, key: &[u8], index: Option<&TargetIndex>) -> Result<bool> {
    Ok(holder(target, txn, key, index)?.is_none())
}

/// Claims a unique key and finds the key of the row that has it; an index that is not given is the primary key. Then the claim is given back: it is
/// not the claimer who makes the key come or go.
pub(super) fn holder(
    target: &Target,
    txn: &TxnHandle,
    key: &[u8],
    index: Option<&TargetIndex>,
) -> Result<Option<Vec<u8>>> {
    let (locks, table) = (txn.locks(), target.table.oid);
    loop {
        let mark = locks.mark();
        locks.claim(table, key)?;
        let seen = txn.database().head();
        let Some(value) = txn.newest(key)? else { return Ok(None) };
        // What is free stays so, by the claim; that it is taken is for others to change.
        txn.rely_on(key, seen)?;
        let Some(index) = index else {
            locks.release_since(mark);
            return Ok(Some(key.to_vec()));
        };
        let row = index.codec.row_key(key, &value)?;
        let got = locks.claim_with(table, &row, Patience::Skip)?;
        locks.release_since(mark);
        if got != Got::Skipped {
            return Ok(Some(row));
        }
        // Whoever changes that row may be about to give the key up, or to be rolled back. To give it up they have to claim it: it is not held meanwhile.
        locks.claim(table, &row)?;
        locks.release_since(mark);
    }
}
