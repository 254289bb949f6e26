//! Row keys and index entries of one table.
//!
//! ```text
//! row key, primary key          03 table-oid  col1 col2 ...
//! row key, no primary key       03 table-oid  row id (8 bytes, sign bit flipped)
//! index entry                   04 index-oid  col1 col2 ...  rest of the row key   ->  nothing
//! unique one without a NULL     04 index-oid  col1 col2 ...                        ->  rest of the row key
//! ```
//!
//! "Rest of the row key" is what follows `03 table-oid`; it is never empty. So an entry with an empty value has the row's key in its own
//! key, and one unique key can be there once.

use std::sync::Arc;

use bytes::Bytes;

use super::key::KeyColumn;
use super::keyspace::{index_prefix, row_id_key, table_prefix};
use crate::catalog::schema::{Index, Table};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Type};

const PREFIX: usize = 5;

/// Makes the keys of one table's rows.
#[derive(Clone, Debug)]
pub struct RowKeyCodec {
    prefix: [u8; PREFIX],
    table: u32,
    /// Position among the live columns, and how it is written. Empty: row ids.
    columns: Arc<[(usize, KeyColumn)]>,
}

impl RowKeyCodec {
    /// For this table's primary key, or row ids if it has none.
    pub fn new(table: &Table) -> RowKeyCodec {
        let attnums = table.primary_key.as_ref().map_or(&[][..], |k| &k.columns);
        let columns = attnums
            .iter()
            .filter_map(|a| Some((table.position(*a)?, KeyColumn::primary(column_type(table, *a)))))
            .collect();
        RowKeyCodec { prefix: table_prefix(table.oid), table: table.oid, columns }
    }
    /// Whether rows are known by a hidden row id.
    pub fn by_row_id(&self) -> bool {
        self.columns.is_empty()
    }
    /// Positions of the key's columns among the live ones, and how each is written.
    pub fn columns(&self) -> &[(usize, KeyColumn)] {
        &self.columns
    }
    /// `03 table-oid`.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }
    /// Key of a row, of which only the key columns are looked at. None of them may be NULL.
    pub fn encode(&self, row: &[Datum]) -> Vec<u8> {
        let mut key = Vec::with_capacity(PREFIX + 10 * self.columns.len());
        key.extend_from_slice(&self.prefix);
        for (position, column) in self.columns.iter() {
            column.encode(&row[*position], &mut key);
        }
        key
    }
    /// Key of the row with this id, for tables without primary key.
    pub fn row_id(&self, id: i64) -> Vec<u8> {
        row_id_key(self.table, id).to_vec()
    }
    /// The key columns' values from a row's key, in key order. See [`super::key_is_lossless`].
    pub fn decode(&self, key: &[u8]) -> Result<Vec<Datum>> {
        let mut rest = key.get(PREFIX..).ok_or_else(corrupt)?;
        self.columns.iter().map(|(_, c)| c.decode(&mut rest)).collect()
    }
}

/// Makes the entries of one index.
#[derive(Clone, Debug)]
pub struct IndexCodec {
    prefix: [u8; PREFIX],
    table_prefix: [u8; PREFIX],
    unique: bool,
    columns: Arc<[(usize, KeyColumn)]>,
}

impl IndexCodec {
    /// For this index of this table.
    pub fn new(table: &Table, index: &Index) -> IndexCodec {
        let columns = index
            .columns
            .iter()
            .filter_map(|c| {
                Some((table.position(c.attnum)?, KeyColumn::index(column_type(table, c.attnum), c.desc, c.nulls_first)))
            })
            .collect();
        IndexCodec {
            prefix: index_prefix(index.oid),
            table_prefix: table_prefix(table.oid),
            unique: index.unique,
            columns,
        }
    }
    /// Positions of the index's columns among the table's live ones, and how each is written.
    pub fn columns(&self) -> &[(usize, KeyColumn)] {
        &self.columns
    }
    /// `04 index-oid`.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }
    /// Key and value of a row's entry.
    pub fn entry(&self, row: &[Datum], row_key: &[u8]) -> (Vec<u8>, Bytes) {
        let mut key = Vec::with_capacity(PREFIX + 12 * self.columns.len() + row_key.len());
        key.extend_from_slice(&self.prefix);
        let mut has_null = false;
        for (position, column) in self.columns.iter() {
            has_null |= row[*position].is_null();
            column.encode(&row[*position], &mut key);
        }
        let rest = &row_key[PREFIX..];
        if self.unique && !has_null {
            return (key, Bytes::copy_from_slice(rest));
        }
        key.extend_from_slice(rest);
        (key, Bytes::new())
    }
    /// The key a row with these values must have to itself; None if the index is not unique or a value is NULL.
    pub fn unique_key(&self, row: &[Datum]) -> Option<Vec<u8>> {
        if !self.unique || self.columns.iter().any(|(p, _)| row[*p].is_null()) {
            return None;
        }
        let mut key = self.prefix.to_vec();
        self.columns.iter().for_each(|(p, c)| c.encode(&row[*p], &mut key));
        Some(key)
    }
    /// The key of the row an entry is of.
    pub fn row_key(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        if !value.is_empty() {
            return Ok([&self.table_prefix, value].concat());
        }
        let mut rest = key.get(PREFIX..).ok_or_else(corrupt)?;
        for (_, column) in self.columns.iter() {
            column.skip(&mut rest)?;
        }
        Ok([&self.table_prefix, rest].concat())
    }
    /// The part of an entry's key that the index's columns make.
    pub fn columns_of<'k>(&self, key: &'k [u8]) -> Result<&'k [u8]> {
        let mut rest = key.get(PREFIX..).ok_or_else(corrupt)?;
        for (_, column) in self.columns.iter() {
            column.skip(&mut rest)?;
        }
        Ok(&key[..key.len() - rest.len()])
    }
    /// The index columns' values from an entry's key, in index order. See [`super::key_is_lossless`].
    pub fn decode(&self, key: &[u8]) -> Result<Vec<Datum>> {
        let mut rest = key.get(PREFIX..).ok_or_else(corrupt)?;
        self.columns.iter().map(|(_, c)| c.decode(&mut rest)).collect()
    }
}

fn column_type(table: &Table, attnum: i16) -> Type {
    table.slots.iter().find(|c| c.attnum == attnum).map_or(Type::NONE, |c| Type(c.ty))
}

fn corrupt() -> SqlError {
    SqlError::new(state::DATA_CORRUPTED, "a key of this database breaks the format")
}
