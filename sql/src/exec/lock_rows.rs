//! FOR UPDATE and its kin: the rows a query's row was made of are locked before it is given.
//!
//! Not a row more is locked than is asked for, so that LIMIT above it means what a queue's consumers want it to mean: rows come in batches from below, but are
//! locked one by one. In READ COMMITTED a row that has changed since the statement's snapshot is made again of what it is made of now; it is left out if the query
//! no longer gives it, and so is one that was deleted. In REPEATABLE READ both are 40001, but FOR KEY SHARE does not mind changes of what is in no key.

use std::sync::Arc;

use super::batch::Batch;
use super::eval::Env;
use super::operator::{BoxOperator, Operator};
use super::scan::place_of;
use crate::catalog::schema::Table;
use crate::codec::row::written_by;
use crate::codec::{Decoder, RowKeyCodec};
use crate::error::{Result, SqlError};
use crate::exec::{self, Prepared};
use crate::ir::LockLeaf;
use crate::lock::RowMode;
use crate::plan::PlanCx;
use crate::plan::node::LockNode;
use crate::types::{Datum, Row};
use crate::write::TxnHandle;
use crate::write::row::{self, Locked};
use crate::write::target::key_columns;

/// Row locks at work.
pub(crate) struct LockRows {
    node: Arc<LockNode>,
    input: BoxOperator,
    batch: Batch,
    /// How many rows of the batch are done with.
    at: usize,
}

impl LockRows {
    pub fn new(node: Arc<LockNode>, input: BoxOperator) -> LockRows {
        let batch = Batch::new(node.input.width);
        LockRows { node, input, batch, at: 0 }
    }

    /// Locks what a row is made of. The row as it is now; `None`: there is none.
    fn lock(&self, row: &[Datum], txn: &TxnHandle, env: &Env<'_>) -> Result<Option<Row>> {
        let spec = &*self.node.locks;
        let seen = env.cx.view.version();
        let mut changed: Vec<(usize, Vec<u8>, bytes::Bytes)> = Vec::new();
        for lock in &spec.locks {
            let LockLeaf::Row { table, key, .. } = &spec.leaves[lock.leaf] else {
                return Err(SqlError::internal("rows are to be locked of what has none"));
            };
            let Datum::Bytea(key) = &row[*key] else { continue };
            let locked = row::lock_row(txn, table.oid, key, seen, lock.mode, lock.patience);
            match locked.map_err(|e| row::waited(e, txn, &table.name, key, "locking"))? {
                Locked::Same => {}
                Locked::Skipped => return Ok(None),
                // Its key is what it was: so is the row, to who reads one snapshot and wants no more than that it stays.
                Locked::Changed { bytes, has_moved: false, .. }
                    if txn.is_fixed() && lock.mode == RowMode::KeyShare && has_its_key(table, key, &bytes, env)? => {}
                Locked::Gone { .. } | Locked::Changed { .. } if txn.is_fixed() => {
                    return Err(row::concurrent("update"));
                }
                Locked::Gone { .. } => return Ok(None),
                Locked::Changed { key, bytes, .. } => changed.push((lock.leaf, key, bytes)),
            }
        }
        if changed.is_empty() {
            return Ok(Some(row.to_vec()));
        }
        let made_of = self.made_of(row, &changed, env)?;
        match self.recheck(env)?.eval(&made_of, env.cx)? {
            Datum::Record(record) => {
                // What is carried behind the query's own columns is read by nobody any more.
                let mut again: Row = record.values.clone();
                again.resize(row.len(), Datum::Null);
                Ok(Some(again))
            }
            _ => Ok(None),
        }
    }

    /// All columns of what a row is made of, the changed rows as they are now and the others as they were.
    fn made_of(&self, row: &[Datum], changed: &[(usize, Vec<u8>, bytes::Bytes)], env: &Env<'_>) -> Result<Row> {
        let spec = &*self.node.locks;
        let mut all = Row::new();
        for (i, leaf) in spec.leaves.iter().enumerate() {
            let (table, key, system) = match leaf {
                LockLeaf::Values(columns) => {
                    all.extend_from_slice(&row[columns.clone()]);
                    continue;
                }
                LockLeaf::Row { table, key, system } => (table, &row[*key], *system),
            };
            let (width, hidden) = (table.width(), 1 + if system { 2 } else { 0 });
            let end = all.len() + width + hidden;
            let now = changed.iter().find(|(leaf, ..)| *leaf == i);
            let (stored, snapshot) = match (now, key) {
                (Some((_, key, bytes)), _) => (Some((key.clone(), bytes.clone())), env.cx.database.snapshot()),
                (None, Datum::Bytea(key)) => {
                    (env.cx.view.get(key)?.map(|bytes| (key.to_vec(), bytes)), env.cx.view.snapshot().clone())
                }
                (None, _) => (None, env.cx.view.snapshot().clone()),
            };
            if let Some((key, bytes)) = stored {
                Decoder::all(table).decode_into(&bytes, &mut all)?;
                all.push(Datum::bytea(&key));
                if system {
                    all.push(Datum::Oid(written_by(&bytes)));
                    all.push(place_of(&snapshot, &key, &bytes)?);
                }
            }
            all.resize(end, Datum::Null);
        }
        all.extend_from_slice(&row[spec.outer.clone()]);
        Ok(all)
    }

    fn recheck(&self, env: &Env<'_>) -> Result<&Prepared> {
        if let Some(ready) = self.node.recheck.get() {
            return Ok(ready);
        }
        let made = exec::prepare(&self.node.locks.recheck, &PlanCx::new(&env.cx.session))?;
        Ok(self.node.recheck.get_or_init(|| made))
    }
}

/// Whether a row that others changed has the values in its unique keys' columns that the statement saw there.
fn has_its_key(table: &Table, key: &[u8], now: &[u8], env: &Env<'_>) -> Result<bool> {
    let Some(seen) = env.cx.view.snapshot().get(key)? else { return Ok(false) };
    let all = Decoder::all(table);
    let columns = key_columns(table, &RowKeyCodec::new(table));
    Ok(row::keeps_keys(&columns, &all.decode(&seen)?, &all.decode(now)?))
}

/// The transaction rows are locked for.
fn txn_of<'e>(env: &Env<'e>) -> Result<&'e TxnHandle> {
    let refused = || SqlError::unsupported("locking rows in this statement");
    Ok(env.cx.writer.as_ref().ok_or_else(refused)?.txn())
}

impl Operator for LockRows {
    fn next(&mut self, env: &Env<'_>, out: &mut Batch) -> Result<bool> {
        out.reset(self.node.input.width);
        let txn = txn_of(env)?;
        while out.len() < out.target {
            if self.at >= self.batch.len() {
                self.at = 0;
                // Rows may be left out: no more are read ahead than would be given.
                self.batch.target = out.target - out.len();
                if !self.input.next(env, &mut self.batch)? {
                    self.batch.reset(self.node.input.width);
                    break;
                }
            }
            env.check_cancel()?;
            let locked = self.lock(self.batch.row(self.at), txn, env)?;
            self.at += 1;
            if let Some(mut row) = locked {
                out.push_owned(row.drain(..));
            }
        }
        Ok(!out.is_empty())
    }
    fn rewind(&mut self) -> bool {
        self.batch.reset(self.node.input.width);
        self.at = 0;
        self.input.rewind()
    }
}
