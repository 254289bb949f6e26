//! IMPORT FOREIGN SCHEMA: tables of a bee as foreign tables.
//!
//! ```text
//! a bee that pgbee wrote    its catalog says which tables a schema has: each with its columns, its key and its indexes, read-only
//! any other                 `bee`, all of it: key, value, seq; and one table for each sub, found by jumping from prefix to prefix
//! ```
//!
//! What the columns of the second kind are is guessed from a sample of entries: a key is text if all sampled ones are, a value jsonb if all are JSON,
//! text if all are text, else bytea. ALTER FOREIGN TABLE changes what was guessed wrong. Nothing is read but the sample, which is bounded.

use pgbee_engine::bee::{Direction, Entry, KeyRange};
use pgbee_engine::txn::Snapshot;
use serde::de::IgnoredAny;

use super::DdlCx;
use super::column::check_type;
use super::foreign::{check, server};
use super::table::{blank, check_columns};
use crate::catalog::schema::{Column, FdwOptions, Foreign, Relation, Remote, Server, Table};
use crate::codec::key::is_key_type;
use crate::codec::keyspace::{prefix_range, successor};
use crate::error::{Result, SqlError, state};
use crate::foreign::options::{self, Place, SCHEMA_NOT_FOUND};
use crate::foreign::{OWN_SERVER, Source};
use crate::parse::ast::{ImportLimit, ImportSchema};
use crate::types::{Type, bytea, io};

/// Entries looked at of the whole and of each sub, unless the option `sample` says another number.
const SAMPLE: u32 = 200;
/// Subs found at most, and how deep in each other.
const SUBS_MAX: usize = 500;
const DEPTH_MAX: usize = 8;
/// Bytes of a sub's prefix that may be a name.
const NAME_BYTES_MAX: usize = 63;

/// IMPORT FOREIGN SCHEMA.
pub(super) fn run(import: &ImportSchema, cx: &mut DdlCx<'_>) -> Result<&'static str> {
    let server = server(&import.server.text, cx)?;
    let into = cx.schema_oid(&import.into.text)?;
    cx.refuse_system(into, &import.into.text)?;
    let mut given = options::given(&import.options, Place::Import)?;
    let sample = options::get(&given, "sample").and_then(|n| n.parse().ok()).unwrap_or(SAMPLE);
    given.retain(|(name, _)| name != "sample");
    let Source::Key(key, peers) = options::source_of(&given, &server.options)? else {
        return Err(SqlError::unsupported("IMPORT FOREIGN SCHEMA of the database itself"));
    };
    let bee = cx.session.services.foreign_bee(key, &peers)?;
    let snapshot = bee.newest()?;
    let remote = bee.catalog(&snapshot)?;
    let is_foreign = remote.stamp == 0 || remote.servers.contains_key(&OWN_SERVER);
    let tables = if is_foreign {
        if !matches!(import.remote.text.as_str(), "public" | "bee") {
            return Err(no_schema(import, &server).hint("A bee that pgbee did not write has one: public."));
        }
        of_bee(&snapshot, sample as usize, cx)?
    } else {
        let schema = remote.schema_oid(&import.remote.text).ok_or_else(|| no_schema(import, &server))?;
        let in_schema = remote.relations.values().filter_map(|r| match r {
            Relation::Table(t) if t.schema == schema && t.foreign.is_none() => Some(t),
            _ => None,
        });
        let in_schema = in_schema.filter(|t| is_wanted(&t.name, &import.limit));
        let mut tables: Vec<Table> = in_schema.map(|t| of_pgbee(t, &import.remote.text)).collect::<Result<_>>()?;
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    };
    for mut table in tables.into_iter().filter(|t| is_wanted(&t.name, &import.limit)) {
        cx.is_taken(into, &table.name, false)?;
        table.oid = cx.change.new_oid();
        table.schema = into;
        if let Some(foreign) = &mut table.foreign {
            foreign.server = server.oid;
            foreign.options = given.iter().cloned().chain(std::mem::take(&mut foreign.options)).collect();
        }
        check(&table, cx)?;
        cx.change.put_table(table)?;
    }
    Ok("IMPORT FOREIGN SCHEMA")
}

fn no_schema(import: &ImportSchema, server: &Server) -> SqlError {
    let message = format!("schema \"{}\" is not present on foreign server \"{}\"", import.remote.text, server.name);
    SqlError::new(SCHEMA_NOT_FOUND, message)
}

fn is_wanted(table: &str, limit: &ImportLimit) -> bool {
    match limit {
        ImportLimit::All => true,
        ImportLimit::To(names) => names.iter().any(|n| n.text == table),
        ImportLimit::Except(names) => !names.iter().any(|n| n.text == table),
    }
}

/// A table of another pgbee: its columns by their numbers there, its key and indexes for the planner.
///
/// # Errors
/// XX001 for a definition that pgbee would not have written: a stranger's becomes part of our own catalog here.
fn of_pgbee(there: &Table, schema: &str) -> Result<Table> {
    if !is_sound(there) {
        let message = format!("the definition of table \"{}\" in the foreign bee is not sound", there.name);
        return Err(SqlError::new(state::DATA_CORRUPTED, message));
    }
    let column = |c: &Column| Column {
        default: None,
        identity: None,
        sequence: None,
        comment: None,
        options: Vec::new(),
        ..c.clone()
    };
    let mut table = blank(0, 0, there.name.clone());
    table.slots = there.slots.iter().map(column).collect();
    table.foreign = Some(Box::new(Foreign {
        server: 0,
        options: vec![("schema_name".into(), schema.to_owned()), ("table_name".into(), there.name.clone())],
        remote: Some(Remote { oid: there.oid, primary_key: there.primary_key.clone(), indexes: there.indexes.clone() }),
    }));
    Ok(table)
}

/// Whether columns have their numbers, known types and names of their own, and keys are of columns that are there.
fn is_sound(table: &Table) -> bool {
    let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
    let numbered = (1..).zip(&table.slots).all(|(n, c)| c.attnum == n);
    let typed = table
        .columns()
        .all(|c| is_name(&c.name) && Type(c.ty).info().is_some() && check_type(&c.name, Type(c.ty)).is_ok());
    let is_key = |attnum: i16| table.columns().any(|c| c.attnum == attnum && is_key_type(Type(c.ty)));
    is_name(&table.name)
        && numbered
        && typed
        && check_columns(table.slots.iter().map(|c| c.name.as_str())).is_ok()
        && table.primary_key.iter().all(|key| !key.columns.is_empty() && key.columns.iter().all(|a| is_key(*a)))
        && table.indexes.iter().all(|i| !i.columns.is_empty() && i.columns.iter().all(|c| is_key(c.attnum)))
}

/// What a sample of entries says of keys and values.
struct Guess {
    entries: usize,
    /// Keys, without the prefix, are text.
    text_keys: bool,
    text_values: bool,
    json_values: bool,
}

impl Guess {
    fn new() -> Guess {
        Guess { entries: 0, text_keys: true, text_values: true, json_values: true }
    }
    fn take(&mut self, entry: &Entry, prefix: &[u8]) {
        self.entries += 1;
        self.text_keys &= entry.key.get(prefix.len()..).is_some_and(|key| io::utf8(key).is_ok());
        let Some(value) = &entry.value else { return };
        self.text_values &= io::utf8(value).is_ok();
        self.json_values &= self.text_values && serde_json::from_slice::<IgnoredAny>(value).is_ok();
    }
    fn table(&self, name: String, sub: FdwOptions) -> Table {
        let jsonb = Type::by_typname("jsonb");
        let text_keys = self.text_keys && self.entries > 0;
        let (key, key_encoding) = if text_keys { (Type::TEXT, "utf-8") } else { (Type::BYTEA, "binary") };
        let (value, value_encoding) = match jsonb {
            _ if self.entries == 0 => (Type::BYTEA, "binary"),
            Some(jsonb) if self.json_values => (jsonb, "json"),
            _ if self.text_values => (Type::TEXT, "utf-8"),
            _ => (Type::BYTEA, "binary"),
        };
        let column = |attnum: i16, name: &str, ty: Type| Column::new(attnum, name, ty.plain());
        let mut table = blank(0, 0, name);
        table.slots = vec![column(1, "key", key), column(2, "value", value), column(3, "seq", Type::INT8)];
        let mut options: FdwOptions =
            vec![("key_encoding".into(), key_encoding.into()), ("value_encoding".into(), value_encoding.into())];
        options.extend(sub);
        table.foreign = Some(Box::new(Foreign { server: 0, options, remote: None }));
        table
    }
}

/// The tables of a bee that pgbee did not write.
fn of_bee(snapshot: &Snapshot, sample: usize, cx: &DdlCx<'_>) -> Result<Vec<Table>> {
    let mut tables = vec![guess(snapshot, &[], sample, cx)?.table("bee".into(), Vec::new())];
    let mut names = vec!["bee".to_owned()];
    let mut subs = Vec::new();
    find_subs(snapshot, &mut Vec::new(), &mut subs, cx)?;
    for path in subs {
        let prefix: Vec<u8> = path.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
        let (name, option) = sub_names(&path, &prefix);
        // Two subs whose names become one: the later ones get numbers.
        let mut free = name.clone();
        let mut number = 1;
        while names.contains(&free) {
            number += 1;
            free = format!("{name}_{number}");
        }
        names.push(free.clone());
        tables.push(guess(snapshot, &prefix, sample, cx)?.table(free, vec![option]));
    }
    Ok(tables)
}

fn guess(snapshot: &Snapshot, prefix: &[u8], sample: usize, cx: &DdlCx<'_>) -> Result<Guess> {
    let mut guess = Guess::new();
    let mut cursor = snapshot.bee().cursor(prefix_range(prefix), Direction::Forward);
    while guess.entries < sample {
        if guess.entries.is_multiple_of(64) {
            cx.session.check_cancel()?;
        }
        let Some(entry) = cursor.next()? else { break };
        guess.take(&entry, prefix);
    }
    Ok(guess)
}

/// A table's name for a sub, and the option that says which sub it is.
fn sub_names(path: &[Vec<u8>], prefix: &[u8]) -> (String, (String, String)) {
    let text = |name: &Vec<u8>| {
        let name = std::str::from_utf8(name).ok()?;
        (!name.is_empty() && !name.contains(['/', '\0']) && !name.contains(char::is_control)).then(|| name.to_owned())
    };
    let names: Option<Vec<String>> = path.iter().map(text).collect();
    let (name, option) = match names {
        Some(names) => (names.join("_"), ("sub".to_owned(), names.join("/"))),
        None => {
            let mut hex = String::new();
            bytea::write_hex(prefix, &mut hex);
            (format!("sub_{hex}"), ("sub_hex".to_owned(), hex))
        }
    };
    (io::cut_bytes(&name, NAME_BYTES_MAX).to_owned(), option)
}

/// Finds the subs below one: looks at the first key, and where it has a zero byte takes what is before as a sub and jumps behind it.
fn find_subs(
    snapshot: &Snapshot,
    path: &mut Vec<Vec<u8>>,
    found: &mut Vec<Vec<Vec<u8>>>,
    cx: &DdlCx<'_>,
) -> Result<()> {
    if path.len() == DEPTH_MAX {
        return Ok(());
    }
    let prefix: Vec<u8> = path.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
    let whole = prefix_range(&prefix);
    let mut from = whole.start.clone();
    // Keys that are in no sub are stepped over one by one; so many of them that the rest is taken to be like them.
    let mut plain = 0;
    while found.len() < SUBS_MAX && plain < SUBS_MAX {
        cx.session.check_cancel()?;
        let range = KeyRange { start: from.clone(), end: whole.end.clone() };
        let mut cursor = snapshot.bee().cursor(range, Direction::Forward).keys_only();
        let sub = loop {
            let Some(entry) = cursor.next()? else { return Ok(()) };
            let rest = entry.key.get(prefix.len()..).unwrap_or_default();
            // A key that begins with the separator is no sub's, and neither is a binary one.
            match rest.iter().position(|b| *b == 0) {
                Some(at) if at > 0 && std::str::from_utf8(&rest[..at]).is_ok() => break rest[..at].to_vec(),
                _ => plain += 1,
            }
            if plain >= SUBS_MAX {
                return Ok(());
            }
        };
        path.push(sub);
        found.push(path.clone());
        find_subs(snapshot, path, found, cx)?;
        let behind = path.iter().flat_map(|name| name.iter().copied().chain([0])).collect::<Vec<u8>>();
        path.pop();
        match successor(&behind) {
            Some(next) => from = std::ops::Bound::Included(next.into()),
            None => return Ok(()),
        }
    }
    Ok(())
}
