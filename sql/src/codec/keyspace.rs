//! Which key of a database's bee holds what.
//!
//! ```text
//! key                                value
//! 00                                 format and database name (JSON)
//! 00 01                              stamp: how often definitions changed (JSON number)
//! 00 02                              the next oid to give out (JSON number)
//! 01 kind oid                        a definition (JSON, see catalog::schema)
//! 02 kind schema-oid name            the oid that name means (JSON number)
//! 03 table-oid key...                a row
//! 04 index-oid columns... [key...]   nothing, or the row's key (see `entry`)
//! 05 sequence-oid                    a sequence's state (JSON)
//! 06                                 the commit record, the engine's own
//! ```
//!
//! Oids are four bytes, big endian. Objects are known by oid everywhere but under `02`, so a rename is two writes there and one definition.
//! Every transaction that changes a definition also writes the stamp: whoever depends on definitions depends on that one key.

use bytes::Bytes;
use std::ops::Bound;

use pgbee_engine::bee::KeyRange;

/// Format and name of the database.
pub const DATABASE: &[u8] = &[0x00];
/// Counts changes of definitions.
pub const STAMP: &[u8] = &[0x00, 0x01];
/// The next oid to give out.
pub const NEXT_OID: &[u8] = &[0x00, 0x02];
/// First byte of definitions.
pub const DEFINITION: u8 = 0x01;
/// First byte of names.
pub const NAME: u8 = 0x02;
/// First byte of rows.
pub const ROW: u8 = 0x03;
/// First byte of index entries.
pub const INDEX: u8 = 0x04;
/// First byte of sequence states.
pub const SEQUENCE: u8 = 0x05;
/// First byte of the commit record.
pub const COMMIT: u8 = 0x06;

/// Kinds of definition. The bytes are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A schema.
    Schema = 1,
    /// A table with its columns, keys, indexes and checks.
    Table = 2,
    /// A view.
    View = 3,
    /// A sequence.
    Sequence = 4,
    /// A tag.
    Tag = 5,
    /// A foreign server.
    Server = 6,
    /// Only under names: tables, views, sequences and indexes share one name space.
    Relation = 16,
}

impl Kind {
    /// The kind a byte of a definition's key stands for.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Schema, Kind::Table, Kind::View, Kind::Sequence, Kind::Tag, Kind::Server]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// Key of a definition.
pub fn definition(kind: Kind, oid: u32) -> Vec<u8> {
    let mut key = vec![DEFINITION, kind as u8];
    key.extend_from_slice(&oid.to_be_bytes());
    key
}

/// Takes a definition's key apart; None if it is not one we know.
pub fn parse_definition(key: &[u8]) -> Option<(Kind, u32)> {
    match key {
        [DEFINITION, kind, oid @ ..] => Some((Kind::from_byte(*kind)?, u32::from_be_bytes(oid.try_into().ok()?))),
        _ => None,
    }
}

/// Key under which a name finds its oid. Schemas and tags have schema oid 0.
pub fn name(kind: Kind, schema: u32, name: &str) -> Vec<u8> {
    let mut key = vec![NAME, kind as u8];
    key.extend_from_slice(&schema.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// What the keys of a table's rows begin with.
pub fn table_prefix(oid: u32) -> [u8; 5] {
    prefix(ROW, oid)
}

/// What the keys of an index's entries begin with.
pub fn index_prefix(oid: u32) -> [u8; 5] {
    prefix(INDEX, oid)
}

/// Key of a sequence's state.
pub fn sequence(oid: u32) -> [u8; 5] {
    prefix(SEQUENCE, oid)
}

/// The sequence whose state is under a key; None if it is another key.
pub fn parse_sequence(key: &[u8]) -> Option<u32> {
    let (first, oid) = key.split_first()?;
    (*first == SEQUENCE).then(|| oid.try_into().ok().map(u32::from_be_bytes)).flatten()
}

fn prefix(first: u8, oid: u32) -> [u8; 5] {
    let [a, b, c, d] = oid.to_be_bytes();
    [first, a, b, c, d]
}

/// Key of a row in a table without primary key.
pub fn row_id_key(table: u32, id: i64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&table_prefix(table));
    key[5..].copy_from_slice(&((id as u64) ^ (1 << 63)).to_be_bytes());
    key
}

/// The row id in such a key.
pub fn parse_row_id(key: &[u8]) -> Option<i64> {
    let id: [u8; 8] = key.get(5..)?.try_into().ok()?;
    Some((u64::from_be_bytes(id) ^ (1 << 63)) as i64)
}

/// All rows of a table.
pub fn table_range(oid: u32) -> KeyRange {
    prefix_range(&table_prefix(oid))
}

/// All entries of an index.
pub fn index_range(oid: u32) -> KeyRange {
    prefix_range(&index_prefix(oid))
}

/// All definitions.
pub fn definitions_range() -> KeyRange {
    prefix_range(&[DEFINITION])
}

/// All keys that begin with these bytes.
pub fn prefix_range(prefix: &[u8]) -> KeyRange {
    KeyRange { start: Bound::Included(Bytes::copy_from_slice(prefix)), end: end_of_prefix(prefix) }
}

/// The least key greater than all that begin with `prefix`, as the open end of a range.
pub fn end_of_prefix(prefix: &[u8]) -> Bound<Bytes> {
    match successor(prefix) {
        Some(key) => Bound::Excluded(Bytes::from(key)),
        None => Bound::Unbounded,
    }
}

/// The least byte string greater than all that begin with `prefix`; None if there is none (all bytes ff).
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}
