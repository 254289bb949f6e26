//! Bees that others write, as tables: what a foreign table's definition means.
//!
//! ```text
//! definition (catalog::schema::Foreign, Server)      options as text, checked by `options`
//!     |  ForeignScan::of
//! ForeignScan    which bee (Source)
//!     |          and how its entries are rows:
//!     |            BeeTable   any bee: a sub's keys and values, by encodings (`encoding`)
//!     |            Remote     a table of a bee that pgbee wrote: rows and indexes as in a table of our own
//!     |  ForeignBee (`handle`): the open bee, one a key and instance
//! exec::foreign  reads entries as rows
//! ```
//!
//! To the planner a foreign table is a table whose primary key is what orders its rows: the bee's key, if its encoding keeps the order of the
//! column's type ([`ForeignScan::planned`]). The catalog never shows that key, for foreign tables have none.
//!
//! What must stay true: planning reads no block; rows of a `BeeTable` are all keys that begin with its prefix, each once.

pub mod encoding;
pub mod handle;
pub mod options;

use std::sync::Arc;

use pgbee_engine::CoreKey;
use pgbee_engine::bee::Entry;

use crate::catalog::schema::{Column, Foreign, Key, Server, Table};
use crate::catalog::{Catalog, PUBLIC};
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;
use crate::types::{Datum, Type, TypeMod, io};

use encoding::Encoding;
pub use handle::ForeignBee;

/// Oid of the foreign-data wrapper `hyperbee`, the only one.
pub const WRAPPER: u32 = 16_010;
/// Its name.
pub const WRAPPER_NAME: &str = "hyperbee";
/// Oid of the server that a followed bee's own table belongs to.
pub const OWN_SERVER: u32 = 16_011;
/// Oid of the table a followed bee shows.
pub const OWN_TABLE: u32 = 16_012;

/// Which bee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The database's own: pgbee did not write it.
    Own,
    /// Another, by its key, and where peers may be that have it.
    Key(CoreKey, Arc<[String]>),
}

/// What a scan of a foreign table needs to know.
#[derive(Debug)]
pub struct ForeignScan {
    /// Which bee.
    pub source: Source,
    /// How entries are rows; None: by the tables of pgbee.
    pub bee: Option<BeeTable>,
}

/// Entries of a bee as rows.
#[derive(Debug)]
pub struct BeeTable {
    /// The table's name, for errors.
    name: Arc<str>,
    /// What the keys begin with.
    prefix: Vec<u8>,
    key: Encoding,
    value: Encoding,
    /// Values that cannot be read are NULL instead of an error.
    null_on_error: bool,
    columns: Vec<BeeColumn>,
}

#[derive(Debug)]
struct BeeColumn {
    name: Arc<str>,
    ty: TypeMod,
    part: Part,
}

/// What of an entry a column shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its key, without the sub's prefix.
    Key,
    /// Its value.
    Value,
    /// The block that wrote it.
    Seq,
    /// This member of its value, a JSON object.
    Member(Arc<str>),
}

impl Part {
    /// What a column shows: as its options say, or else by its name.
    pub fn of(column: &Column) -> Part {
        let option = |name: &str| column.options.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        if let Some(member) = option("member") {
            return Part::Member(Arc::from(member));
        }
        match option("column").unwrap_or(&column.name) {
            "key" => Part::Key,
            "value" => Part::Value,
            "seq" => Part::Seq,
            other => Part::Member(Arc::from(other)),
        }
    }
}

impl ForeignScan {
    /// What a foreign table's definition means.
    ///
    /// # Errors
    /// HV00x where options contradict each other or the columns.
    pub fn of(table: &Table, foreign: &Foreign, server: &Server) -> Result<ForeignScan> {
        let source = if server.oid == OWN_SERVER { Source::Own } else { options::source(foreign, server)? };
        let bee = match &foreign.remote {
            Some(_) => None,
            None => Some(BeeTable::of(table, foreign)?),
        };
        Ok(ForeignScan { source, bee })
    }

    /// What a table of the catalog means and the table as the planner shall see it; None for a table of our own.
    pub fn planned(table: &Table, catalog: &Catalog) -> Result<Option<(Arc<ForeignScan>, Arc<Table>)>> {
        let Some(foreign) = &table.foreign else { return Ok(None) };
        let server = catalog.servers.get(&foreign.server).ok_or_else(|| {
            SqlError::new(state::UNDEFINED_OBJECT, format!("server of foreign table \"{}\" does not exist", table.name))
        })?;
        let scan = ForeignScan::of(table, foreign, server)?;
        let mut seen = table.clone();
        match (&foreign.remote, &scan.bee) {
            (Some(remote), _) => {
                seen.oid = remote.oid;
                seen.primary_key.clone_from(&remote.primary_key);
                seen.indexes.clone_from(&remote.indexes);
            }
            (None, Some(bee)) => {
                // What NOT NULL says of a stranger's bee is not known to be so.
                seen.slots.iter_mut().for_each(|c| c.not_null = false);
                let key = bee.ordering_column().and_then(|at| table.columns().nth(at));
                seen.primary_key =
                    key.map(|c| Key { oid: 0, name: table.name.clone(), columns: vec![c.attnum], comment: None });
            }
            (None, None) => {}
        }
        Ok(Some((Arc::new(scan), Arc::new(seen))))
    }
}

impl BeeTable {
    fn of(table: &Table, foreign: &Foreign) -> Result<BeeTable> {
        let columns: Vec<BeeColumn> = table
            .columns()
            .map(|c| BeeColumn { name: Arc::from(c.name.as_str()), ty: c.type_mod(), part: Part::of(c) })
            .collect();
        let of_part = |part: &Part| columns.iter().find(|c| c.part == *part).map(|c| c.ty.ty);
        let member = columns.iter().find(|c| matches!(c.part, Part::Member(_)));
        let key = match options::encoding(foreign, "key_encoding")? {
            Some(encoding) => encoding,
            None => Encoding::usual(of_part(&Part::Key).unwrap_or(Type::BYTEA)),
        };
        let value = match (options::encoding(foreign, "value_encoding")?, member) {
            (Some(encoding), Some(column)) if encoding != Encoding::Json => return Err(no_members(column, table)),
            (Some(encoding), _) => encoding,
            (None, Some(_)) => Encoding::Json,
            (None, None) => Encoding::usual(of_part(&Part::Value).unwrap_or(Type::BYTEA)),
        };
        for column in &columns {
            let (encoding, option) = match column.part {
                Part::Key => (key, "key_encoding"),
                Part::Value => (value, "value_encoding"),
                _ => continue,
            };
            if encoding == Encoding::Binary && column.ty.ty != Type::BYTEA {
                let message = format!("column \"{}\" must be of type bytea for {option} 'binary'", column.name);
                return Err(SqlError::new(options::INVALID_DATA_TYPE, message));
            }
        }
        let null_on_error = options::on_error_null(foreign)?;
        let prefix = options::prefix(foreign)?;
        Ok(BeeTable { name: Arc::from(table.name.as_str()), prefix, key, value, null_on_error, columns })
    }

    /// Position of the column in whose order the keys are, if there is one.
    pub fn ordering_column(&self) -> Option<usize> {
        self.columns.iter().position(|c| c.part == Part::Key && self.key.keeps_order(c.ty))
    }
    /// How keys are written, and what all begin with.
    pub fn keys(&self) -> (Encoding, &[u8]) {
        (self.key, &self.prefix)
    }
    /// Whether these columns can be told without any value.
    pub fn keys_suffice(&self, columns: &[usize]) -> bool {
        columns.iter().all(|at| matches!(self.columns[*at].part, Part::Key | Part::Seq))
    }
    /// Puts the values of those of these columns of an entry into their places that are `wanted` by place.
    ///
    /// # Errors
    /// Those of the columns' types for what they cannot hold, with key and block as context.
    pub fn decode(
        &self,
        entry: &Entry,
        columns: &[usize],
        wanted: impl Fn(usize) -> bool,
        cx: &SessionCx,
        out: &mut [Datum],
    ) -> Result<()> {
        let mut members: Option<Members<'_>> = None;
        for (place, at) in columns.iter().enumerate() {
            if !wanted(place) {
                continue;
            }
            let column = &self.columns[*at];
            let value = match &column.part {
                Part::Key => self.key.decode(&entry.key[self.prefix.len().min(entry.key.len())..], column.ty, cx),
                Part::Seq if column.ty.ty == Type::INT8 => Ok(Datum::Int8(entry.seq.0.cast_signed())),
                Part::Seq => io::text_in(&entry.seq.0.to_string(), column.ty, cx),
                Part::Value => match &entry.value {
                    Some(value) => self.value.decode(value, column.ty, cx),
                    None => Ok(Datum::Null),
                },
                Part::Member(name) => {
                    let found = match &members {
                        Some(found) => Ok(found),
                        None => match self.members(entry, columns) {
                            Ok(found) => Ok(&*members.insert(found)),
                            Err(e) => Err(e),
                        },
                    };
                    found.and_then(|found| match found.iter().find(|(n, _)| *n == &**name) {
                        Some((_, Some(raw))) => encoding::member_in(raw, column.ty, cx),
                        _ => Ok(Datum::Null),
                    })
                }
            };
            out[place] = match value {
                Ok(value) => value,
                Err(e) if self.null_on_error && is_data_error(&e) => Datum::Null,
                Err(e) => {
                    return Err(e.within(|| {
                        let key = show_key(&entry.key);
                        let (table, block) = (&self.name, entry.seq);
                        format!("column \"{}\" of foreign table \"{table}\", key {key}, block {block}", column.name)
                    }));
                }
            };
        }
        Ok(())
    }

    fn members<'e>(&'e self, entry: &'e Entry, columns: &[usize]) -> Result<Members<'e>> {
        let wanted = columns.iter().filter_map(|at| match &self.columns[*at].part {
            Part::Member(name) => Some((&**name, None)),
            _ => None,
        });
        let mut found: Members<'e> = wanted.collect();
        if let Some(value) = &entry.value {
            encoding::members(value, &mut found)?;
        }
        Ok(found)
    }
}

/// Members wanted of an object, by name, and their text where it has them.
type Members<'e> = Vec<(&'e str, Option<&'e serde_json::value::RawValue>)>;

fn no_members(column: &BeeColumn, table: &Table) -> SqlError {
    let message = format!("column \"{}\" of foreign table \"{}\" is no part of an entry", column.name, table.name);
    SqlError::new(options::COLUMN_NAME_NOT_FOUND, message)
        .hint("Columns are key, value and seq; others are members of the value, which needs value_encoding 'json'.")
}

/// Whether an error is about a value, not about reading it.
fn is_data_error(e: &SqlError) -> bool {
    // What a value is (22), or that it is too large or too deep (54).
    e.state().starts_with("22") || e.state().starts_with("54")
}

/// A key for messages: as text, or its bytes.
fn show_key(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let cut = &key[..key.len().min(SHOWN)];
    let more = if key.len() > SHOWN { "..." } else { "" };
    match std::str::from_utf8(cut) {
        Ok(text) if !text.contains(char::is_control) => format!("\"{text}\"{more}"),
        _ => {
            let mut hex = String::from("\\x");
            crate::types::bytea::write_hex(cut, &mut hex);
            hex + more
        }
    }
}

/// What a followed bee shows that pgbee did not write: one table, and the server it belongs to.
pub fn own_table() -> (Server, Table) {
    let column =
        |attnum: i16, name: &str, ty: Type| Column { not_null: attnum != 2, ..Column::new(attnum, name, ty.plain()) };
    let server = Server {
        oid: OWN_SERVER,
        name: "bee".into(),
        kind: None,
        version: None,
        options: Vec::new(),
        comment: Some("the bee this database is".into()),
    };
    let table = Table {
        oid: OWN_TABLE,
        schema: PUBLIC,
        name: "bee".into(),
        slots: vec![column(1, "key", Type::BYTEA), column(2, "value", Type::BYTEA), column(3, "seq", Type::INT8)],
        primary_key: None,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        foreign: Some(Box::new(Foreign { server: OWN_SERVER, options: Vec::new(), remote: None })),
        comment: None,
    };
    (server, table)
}

#[cfg(test)]
mod tests;
