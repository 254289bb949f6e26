//! All rows of a table under a new definition: new keys, new indexes, new values, and checks of what is there.

use pgbee_engine::bee::Direction;
use pgbee_engine::txn::ReadView;

use super::DdlCx;
use crate::bind;
use crate::catalog::schema::{CheckDef, Index, Relation, Table};
use crate::codec::{Decoder, IndexCodec, RowEncoder, RowKeyCodec, keyspace};
use crate::error::{Result, SqlError, state};
use crate::exec;
use crate::parse::ast::QName;
use crate::plan::PlanCx;
use crate::types::{Datum, Row};
use crate::write::constraints::{duplicated, is_true_or_null};

/// Rows handled between two looks for a cancel.
const CANCEL_ROWS: usize = 512;

/// Calls back with the key and values of every row the transaction sees.
pub(super) fn each_row(table: &Table, cx: &DdlCx<'_>, f: impl FnMut(&[u8], Row) -> Result<()>) -> Result<()> {
    each_row_of(&cx.txn.with(|t| Ok(t.view()))?, table, cx, f)
}

fn each_row_of(
    view: &ReadView,
    table: &Table,
    cx: &DdlCx<'_>,
    mut f: impl FnMut(&[u8], Row) -> Result<()>,
) -> Result<()> {
    let decoder = Decoder::all(table);
    let mut scan = view.scan(keyspace::table_range(table.oid), Direction::Forward)?;
    let mut batch = Vec::with_capacity(CANCEL_ROWS);
    while scan.next_batch(&mut batch, CANCEL_ROWS)? > 0 {
        cx.session.check_cancel()?;
        for (key, value) in batch.drain(..) {
            f(&key, decoder.decode(&value)?)?;
        }
    }
    Ok(())
}

/// Whether a table has no rows.
pub(super) fn is_empty(table: &Table, cx: &DdlCx<'_>) -> Result<bool> {
    let view = cx.txn.with(|t| Ok(t.view()))?;
    Ok(view.scan(keyspace::table_range(table.oid), Direction::Forward)?.next()?.is_none())
}

/// Fails unless a column has a value in every row.
pub(super) fn check_not_null(table: &Table, position: usize, cx: &DdlCx<'_>) -> Result<()> {
    cx.sees_all_rows(table)?;
    each_row(
        table,
        cx,
        |_, row| if row[position].is_null() { Err(contains_nulls(table, position, cx)) } else { Ok(()) },
    )
}

/// The error for a NULL that a new NOT NULL finds.
pub(super) fn contains_nulls(table: &Table, position: usize, cx: &DdlCx<'_>) -> SqlError {
    let column = table.columns().nth(position).map(|c| c.name.clone()).unwrap_or_default();
    SqlError::new(
        state::NOT_NULL_VIOLATION,
        format!("column \"{column}\" of relation \"{}\" contains null values", table.name),
    )
    .table(cx.schema_name(table.schema), &table.name)
    .column(column)
}

/// Fails unless every row satisfies a CHECK.
pub(super) fn check_rows(table: &Table, check: &CheckDef, cx: &DdlCx<'_>) -> Result<()> {
    cx.sees_all_rows(table)?;
    let expr = cx.bind(|env| bind::bind_check(&check.expr, &table.fields(), env))?;
    let prepared = exec::prepare(&expr, &PlanCx::new(cx.session))?;
    let exec_cx = cx.exec()?;
    each_row(table, cx, |_, row| {
        if is_true_or_null(&prepared.eval(&row, &exec_cx)?) {
            return Ok(());
        }
        let message =
            format!("check constraint \"{}\" of relation \"{}\" is violated by some row", check.name, table.name);
        Err(SqlError::new(state::CHECK_VIOLATION, message)
            .table(cx.schema_name(table.schema), &table.name)
            .constraint(&check.name))
    })
}

/// Writes the entries of a new index.
pub(super) fn fill_index(table: &Table, index: &Index, cx: &DdlCx<'_>) -> Result<()> {
    cx.sees_all_rows(table)?;
    let codec = IndexCodec::new(table, index);
    each_row(table, cx, |row_key, row| {
        if let Some(key) = codec.unique_key(&row)
            && cx.txn.with(|t| Ok(t.get(&key)?))?.is_some()
        {
            let positions = codec.columns().iter().map(|(p, _)| *p);
            return Err(duplicated(table, &index.name, positions, &row, cx.session)
                .table(cx.schema_name(table.schema), &table.name));
        }
        let (key, value) = codec.entry(&row, row_key);
        cx.txn.with(|t| Ok(t.put_guarded(key, value)?))
    })?;
    check_single(table, index, &codec, cx)
}

/// REINDEX of a table, or of one of its indexes: entries are compared with rows, and only what differs is written.
pub(super) fn reindex(name: &QName, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    let (table, only) = match cx.find(name)? {
        Some(Relation::Table(table)) if table.foreign.is_none() => (table, None),
        Some(Relation::Index(table, oid)) => (table, Some(oid)),
        _ => return Ok("REINDEX"),
    };
    let indexes: Vec<Index> = table.indexes.iter().filter(|i| only.is_none_or(|oid| i.oid == oid)).cloned().collect();
    for index in &indexes {
        mend_index(&table, index, cx)?;
    }
    if indexes.iter().any(|i| !(i.valid && i.ready)) {
        let mut changed = Table::clone(&table);
        changed
            .indexes
            .iter_mut()
            .filter(|i| indexes.iter().any(|of| of.oid == i.oid))
            .for_each(|i| (i.valid, i.ready) = (true, true));
        cx.change.put_table(changed)?;
    }
    Ok("REINDEX")
}

fn mend_index(table: &Table, index: &Index, cx: &DdlCx<'_>) -> Result<()> {
    cx.sees_all_rows(table)?;
    let (codec, decoder) = (IndexCodec::new(table, index), Decoder::all(table));
    // Those that lead to no row with their values go first: what then has the key of another row is one that is there twice.
    let view = cx.txn.with(|t| Ok(t.view()))?;
    let mut scan = view.scan(keyspace::index_range(index.oid), Direction::Forward)?;
    let mut batch = Vec::with_capacity(CANCEL_ROWS);
    while scan.next_batch(&mut batch, CANCEL_ROWS)? > 0 {
        cx.session.check_cancel()?;
        for (entry, value) in batch.drain(..) {
            let key = codec.row_key(&entry, &value)?;
            let row = view.get(&key)?.map(|row| decoder.decode(&row)).transpose()?;
            if row.is_none_or(|row| codec.entry(&row, &key).0 != entry) {
                cx.txn.with(|t| Ok(t.delete_guarded(entry)?))?;
            }
        }
    }
    each_row(table, cx, |row_key, row| {
        let (entry, value) = codec.entry(&row, row_key);
        match cx.txn.with(|t| Ok(t.get(&entry)?))? {
            Some(there) if there == value => Ok(()),
            Some(_) => Err(duplicated(table, &index.name, codec.columns().iter().map(|(p, _)| *p), &row, cx.session)),
            None => cx.txn.with(|t| Ok(t.put_guarded(entry, value)?)),
        }
    })?;
    check_single(table, index, &codec, cx)
}

/// A deferrable key's entries stand beside each other if they are equal: fails if two do.
fn check_single(table: &Table, index: &Index, codec: &IndexCodec, cx: &DdlCx<'_>) -> Result<()> {
    if index.deferral.is_never() {
        return Ok(());
    }
    let view = cx.txn.with(|t| Ok(t.view()))?;
    let mut scan = view.scan_keys(keyspace::index_range(index.oid), Direction::Forward)?;
    let (mut batch, mut last) = (Vec::with_capacity(CANCEL_ROWS), Vec::new());
    while scan.next_batch(&mut batch, CANCEL_ROWS)? > 0 {
        cx.session.check_cancel()?;
        for (entry, _) in batch.drain(..) {
            let columns = codec.columns_of(&entry)?;
            let values = codec.decode(&entry)?;
            if last == columns && !values.iter().any(Datum::is_null) {
                let mut row = vec![Datum::Null; table.width()];
                for ((position, _), value) in codec.columns().iter().zip(values) {
                    row[*position] = value;
                }
                return Err(duplicated(table, &index.name, codec.columns().iter().map(|(p, _)| *p), &row, cx.session)
                    .table(cx.schema_name(table.schema), &table.name));
            }
            last = columns.to_vec();
        }
    }
    Ok(())
}

/// Removes all rows of a table, which nobody else can write, and nothing else of it. Their keys are all that is read.
fn remove_rows(view: &ReadView, table: &Table, cx: &DdlCx<'_>) -> Result<()> {
    let mut scan = view.scan_keys(keyspace::table_range(table.oid), Direction::Forward)?;
    let mut batch = Vec::with_capacity(CANCEL_ROWS);
    while scan.next_batch(&mut batch, CANCEL_ROWS)? > 0 {
        cx.session.check_cancel()?;
        cx.txn.with(|t| Ok(batch.drain(..).try_for_each(|(key, _)| t.delete_guarded(key))?))?;
    }
    Ok(())
}

/// Writes every row of `old` as a row of `new`, with the values `map` makes of it; both have one oid. Keys and index entries follow; indexes
/// that `new` no longer has are left behind, out of reach.
pub(super) fn rewrite(old: &Table, new: &Table, cx: &DdlCx<'_>, mut map: impl FnMut(Row) -> Result<Row>) -> Result<()> {
    cx.sees_all_rows(old)?;
    let encoder = RowEncoder::new(new);
    let (old_keys, new_keys) = (RowKeyCodec::new(old), RowKeyCodec::new(new));
    let keeps_keys = old_keys.columns() == new_keys.columns();
    let old_indexes: Vec<(u32, IndexCodec)> = old.indexes.iter().map(|i| (i.oid, IndexCodec::new(old, i))).collect();
    let new_indexes: Vec<(&Index, IndexCodec)> = new.indexes.iter().map(|i| (i, IndexCodec::new(new, i))).collect();
    if !keeps_keys {
        cx.txn.row_ids().forget(old.oid);
    }
    let mut next_id = 0;
    // Rows whose keys may change go first, all of them, so that a new key that is taken is taken by a new row.
    let moves = !(keeps_keys && new_keys.by_row_id());
    let view = cx.txn.with(|t| Ok(t.view()))?;
    if moves {
        remove_rows(&view, old, cx)?;
    }
    // What is greater than all new keys before it is taken by none of them, and the old ones are gone: rows that come in the order of their new keys, as
    // they do where a table was loaded in it, are not looked up.
    let mut greatest = Vec::new();
    each_row_of(&view, old, cx, |old_key, row| {
        let old_entries: Vec<(u32, Vec<u8>)> = old_indexes
            .iter()
            .filter(|(oid, _)| new.indexes.iter().any(|i| i.oid == *oid))
            .map(|(oid, c)| (*oid, c.entry(&row, old_key).0))
            .collect();
        let row = map(row)?;
        let new_key = if !moves {
            old_key.to_vec()
        } else if new_keys.by_row_id() {
            next_id += 1;
            new_keys.row_id(next_id)
        } else {
            new_keys.encode(&row)
        };
        let mut bytes = Vec::with_capacity(64);
        encoder.encode(&row, &mut bytes);
        let is_free = cx.txn.with(|t| {
            if moves && new_key <= greatest && !matches!(t.own(&new_key)?, None | Some(None)) {
                return Ok(false);
            }
            if moves && new_key > greatest {
                greatest.clone_from(&new_key);
            }
            t.put_guarded(new_key, bytes)?;
            for (_, key) in old_entries {
                t.delete_guarded(key)?;
            }
            Ok(true)
        })?;
        if is_free {
            return Ok(());
        }
        let name = new.primary_key.as_ref().map_or("", |k| &k.name);
        Err(duplicated(new, name, new_keys.columns().iter().map(|(p, _)| *p), &row, cx.session))
    })?;
    // Entries come after all rows, so that an old entry's removal does not take a new one's place.
    for (index, codec) in &new_indexes {
        each_row(new, cx, |row_key, row| {
            if let Some(key) = codec.unique_key(&row)
                && cx.txn.with(|t| Ok(t.get(&key)?))?.is_some()
            {
                return Err(duplicated(new, &index.name, codec.columns().iter().map(|(p, _)| *p), &row, cx.session));
            }
            let (key, value) = codec.entry(&row, row_key);
            cx.txn.with(|t| Ok(t.put_guarded(key, value)?))
        })?;
        check_single(new, index, codec, cx)?;
    }
    Ok(())
}
