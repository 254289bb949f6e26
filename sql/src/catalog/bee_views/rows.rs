//! Rows of a table at other versions: each read with the table's definition of its time and shown in today's columns.

use std::sync::Arc;

use pgbee_engine::Version;
use pgbee_engine::bee;
use pgbee_engine::txn::{self, Database, HistoryItem, ReadView, Snapshot};
use rustc_hash::FxHashMap;

use super::commits::committed_at;
use crate::catalog::Relation;
use crate::catalog::load;
use crate::catalog::schema::Table;
use crate::codec::keyspace::table_range;
use crate::codec::row::storage_cx;
use crate::codec::{Decoder, RowKeyCodec};
use crate::error::{Result, SqlError, state};
use crate::exec::ExecCx;
use crate::functions::SessionCx;
use crate::types::{Datum, Row, Type, TypeMod, io};

/// Where one of today's columns stood in a row then, and the conversion from its type then if that was another one. None: it was not there.
type Place = Option<(usize, Option<(Type, TypeMod)>)>;

/// Reads rows of one definition of a table into the columns of today's.
struct Reader {
    decoder: Decoder,
    /// For each of today's columns.
    columns: Vec<Place>,
    /// The key of the only row that is wanted, when the query tells one.
    key: Option<Vec<u8>>,
}

impl Reader {
    fn new(then: &Table, now: &Table, keys: &[(i16, Type, Datum)]) -> Reader {
        let column = |c: &crate::catalog::schema::Column| {
            let at = then.position(c.attnum)?;
            let old = then.columns().nth(at)?.type_mod();
            Some((at, (old.ty != Type(c.ty)).then(|| (old.ty, c.type_mod()))))
        };
        Reader {
            decoder: Decoder::all(then),
            columns: now.columns().map(column).collect(),
            key: wanted_key(then, keys),
        }
    }
    fn read(&self, bytes: &[u8]) -> Result<Row> {
        let old = self.decoder.decode(bytes)?;
        let value = |place: &Place| match place {
            None => Datum::Null,
            Some((at, None)) => old[*at].clone(),
            Some((at, Some(_))) if old[*at].is_null() => Datum::Null,
            Some((at, Some((from, to)))) => {
                io::text_in(&io::to_text(&old[*at], *from, storage_cx()), *to, storage_cx()).unwrap_or_default()
            }
        };
        Ok(self.columns.iter().map(value).collect())
    }
}

/// The key of the row with these primary key values; None if they are not all known, or were of another type.
fn wanted_key(table: &Table, keys: &[(i16, Type, Datum)]) -> Option<Vec<u8>> {
    let codec = RowKeyCodec::new(table);
    if codec.by_row_id() {
        return None;
    }
    let mut row = vec![Datum::Null; table.width()];
    for (position, column) in codec.columns() {
        let attnum = table.columns().nth(*position)?.attnum;
        let (_, ty, value) = keys.iter().find(|(a, _, _)| *a == attnum)?;
        if *ty != column.ty {
            return None;
        }
        row[*position] = value.clone();
    }
    Some(codec.encode(&row))
}

/// A version, and how to read the table's rows there if it was there.
type AtVersion = (Version, Snapshot, Option<Arc<Reader>>);

/// The readers of a table, by version. Versions with the same definitions share one.
struct Readers {
    database: Arc<Database>,
    table: Arc<Table>,
    keys: Vec<(i16, Type, Datum)>,
    by_stamp: FxHashMap<u64, Option<Arc<Reader>>>,
    /// The versions looked at last: a commit's and the one before it.
    recent: [Option<AtVersion>; 2],
    next: usize,
}

impl Readers {
    fn new(database: Arc<Database>, table: Arc<Table>, keys: Vec<(i16, Type, Datum)>) -> Readers {
        Readers { database, table, keys, by_stamp: FxHashMap::default(), recent: [None, None], next: 0 }
    }
    /// A version and how to read the table's rows there; no reader if the table was not there.
    fn at(&mut self, version: Version) -> Result<(Snapshot, Option<Arc<Reader>>)> {
        if let Some((_, snapshot, reader)) = self.recent.iter().flatten().find(|(v, _, _)| *v == version) {
            return Ok((snapshot.clone(), reader.clone()));
        }
        let snapshot = self.database.snapshot_at(version)?;
        let stamp = load::stamp(&snapshot)?;
        let reader = match self.by_stamp.get(&stamp) {
            Some(reader) => reader.clone(),
            None => {
                let catalog = load::load(&ReadView::from(snapshot.clone()), stamp)?;
                let reader = match catalog.by_oid(self.table.oid) {
                    Some(Relation::Table(then)) => Some(Arc::new(Reader::new(then, &self.table, &self.keys))),
                    _ => None,
                };
                self.by_stamp.insert(stamp, reader.clone());
                reader
            }
        };
        self.recent[self.next] = Some((version, snapshot.clone(), reader.clone()));
        self.next = 1 - self.next;
        Ok((snapshot, reader))
    }
}

/// Refuses a version that the statement does not see.
fn check_range(version: u64, cx: &ExecCx) -> Result<Version> {
    let newest = cx.view.version();
    if version <= newest.0 {
        return Ok(Version(version));
    }
    let error = SqlError::new(state::INVALID_PARAMETER_VALUE, format!("{version} is not a version of this database"));
    Err(error.detail(format!("The newest version this statement can see is {newest}.")).hint("bee_commits lists them."))
}

/// The rows of bee_history.
pub(super) struct History<'a> {
    session: &'a SessionCx,
    items: Option<txn::History>,
    readers: Readers,
    seen: u64,
}

impl<'a> History<'a> {
    pub fn new(
        table: &Arc<Table>,
        from: u64,
        to: u64,
        keys: Vec<(i16, Type, Datum)>,
        cx: &'a ExecCx,
    ) -> Result<History<'a>> {
        let (from, to) = (check_range(from, cx)?, check_range(to, cx)?);
        // Both must be ends of commits, else half a commit would be told as one. Version 0 is before all.
        for version in [from, to] {
            cx.database.snapshot_at(version)?;
        }
        let items = cx.view.snapshot().history(table_range(table.oid), from, to)?;
        Ok(History {
            session: &cx.session,
            items: Some(items),
            readers: Readers::new(cx.database.clone(), table.clone(), keys),
            seen: 0,
        })
    }

    /// The row an item is shown as; None if it is not wanted.
    fn show(&mut self, item: &HistoryItem) -> Result<Option<Row>> {
        let (_, after) = self.readers.at(item.version)?;
        let (base, before) = self.readers.at(item.base)?;
        // A key may be of a row wanted only by one of the two definitions, when the primary key changed.
        let unwanted =
            |r: &Option<Arc<Reader>>| r.as_ref().is_none_or(|r| r.key.as_ref().is_some_and(|k| k[..] != item.key[..]));
        if unwanted(&after) && unwanted(&before) {
            return Ok(None);
        }
        let old = base.get(&item.key)?;
        let (op, bytes, reader) = match (&item.value, old) {
            (Some(new), None) => ("insert", new.clone(), after),
            (Some(new), Some(_)) => ("update", new.clone(), after),
            (None, Some(old)) => ("delete", old, before),
            (None, None) => return Ok(None),
        };
        let Some(reader) = reader else { return Ok(None) };
        let mut row = vec![
            Datum::Int8(item.version.0.cast_signed()),
            item.time_micros.map_or(Datum::Null, committed_at),
            Datum::text(op),
        ];
        row.extend(reader.read(&bytes)?);
        Ok(Some(row))
    }
    fn find(&mut self) -> Result<Option<Row>> {
        loop {
            self.seen += 1;
            if self.seen.is_multiple_of(256) {
                self.session.check_cancel()?;
            }
            let Some(items) = &mut self.items else { return Ok(None) };
            let Some(item) = items.next()? else { return Ok(None) };
            if let Some(row) = self.show(&item)? {
                return Ok(Some(row));
            }
        }
    }
}

impl Iterator for History<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let found = self.find();
        if found.is_err() {
            self.items = None;
        }
        found.transpose()
    }
}

/// The rows of bee_diff.
pub(super) struct Diff<'a> {
    session: &'a SessionCx,
    differences: Option<bee::Diff>,
    /// `from` is the newer one: left and right change places.
    backward: bool,
    width: usize,
    old: Option<Arc<Reader>>,
    new: Option<Arc<Reader>>,
    seen: u64,
}

impl<'a> Diff<'a> {
    pub fn new(table: &Arc<Table>, from: u64, to: u64, cx: &'a ExecCx) -> Result<Diff<'a>> {
        let (from, to) = (check_range(from, cx)?, check_range(to, cx)?);
        let mut readers = Readers::new(cx.database.clone(), table.clone(), Vec::new());
        let (from_snapshot, old) = readers.at(from)?;
        let (to_snapshot, new) = readers.at(to)?;
        let backward = from > to;
        let (older, newer) = if backward { (&to_snapshot, &from_snapshot) } else { (&from_snapshot, &to_snapshot) };
        let differences = newer.diff(older, table_range(table.oid));
        Ok(Diff {
            session: &cx.session,
            differences: Some(differences),
            backward,
            width: table.width(),
            old,
            new,
            seen: 0,
        })
    }

    fn find(&mut self) -> Result<Option<Row>> {
        loop {
            self.seen += 1;
            if self.seen.is_multiple_of(256) {
                self.session.check_cancel()?;
            }
            let Some(differences) = &mut self.differences else { return Ok(None) };
            let Some(difference) = differences.next()? else { return Ok(None) };
            let (old, new) =
                if self.backward { (difference.left, difference.right) } else { (difference.right, difference.left) };
            let value = |e: bee::Entry| e.value.unwrap_or_default();
            let (old, new) = (old.map(value), new.map(value));
            if old == new {
                continue; // written again as it was
            }
            let op = match (&old, &new) {
                (None, _) => "insert",
                (_, None) => "delete",
                _ => "update",
            };
            let mut row = vec![Datum::text(op)];
            for (bytes, reader) in [(old, &self.old), (new, &self.new)] {
                match (bytes, reader) {
                    (Some(bytes), Some(reader)) => row.extend(reader.read(&bytes)?),
                    _ => row.extend(std::iter::repeat_n(Datum::Null, self.width)),
                }
            }
            return Ok(Some(row));
        }
    }
}

impl Iterator for Diff<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let found = self.find();
        if found.is_err() {
            self.differences = None;
        }
        found.transpose()
    }
}
