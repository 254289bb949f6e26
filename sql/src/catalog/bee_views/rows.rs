//! Rows of a table at other versions: each read with the table's definition of its time and shown in today's columns.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::Version;
use pgbee_engine::bee::{self, Direction, KeyRange};
use pgbee_engine::txn::{self, Database, HistoryItem, HistoryStep, ReadView, Scan, Snapshot};
use rustc_hash::FxHashMap;

use super::commits::{self, committed_at};
use crate::catalog::Relation;
use crate::catalog::load;
use crate::catalog::schema::{Column, Table};
use crate::codec::keyspace::table_range;
use crate::codec::row::storage_cx;
use crate::codec::{Decoder, RowKeyCodec};
use crate::error::{Result, SqlError};
use crate::exec::ExecCx;
use crate::functions::SessionCx;
use crate::types::{Datum, Row, Type, io};

/// Where one of today's columns stood in a row then, and what its type was then if that was another one. None: it was not there.
type Place = Option<(usize, Option<Type>)>;

/// Reads rows of one definition of a table into the columns of today's.
struct Reader {
    decoder: Decoder,
    now: Arc<Table>,
    /// For each of today's columns.
    columns: Vec<Place>,
    /// The key of the only row that is wanted, when the query tells one.
    key: Option<Vec<u8>>,
    /// What rows are found by, for telling when that changed.
    key_columns: Vec<i16>,
}

impl Reader {
    fn new(then: &Table, now: &Arc<Table>, keys: &[(i16, Type, Datum)]) -> Reader {
        let column = |c: &Column| {
            let at = then.position(c.attnum)?;
            let old = then.columns().nth(at)?.type_mod();
            Some((at, (old.ty != Type(c.ty)).then_some(old.ty)))
        };
        Reader {
            decoder: Decoder::all(then),
            now: now.clone(),
            columns: now.columns().map(column).collect(),
            key: wanted_key(then, keys),
            key_columns: then.primary_key.as_ref().map_or_else(Vec::new, |k| k.columns.clone()),
        }
    }
    /// A row as it was at a version, in today's columns.
    ///
    /// # Errors
    /// 0A000 for a value that its column's type of today cannot show: NULL would say that there was none.
    fn read(&self, bytes: &[u8], version: Version) -> Result<Row> {
        let old = self.decoder.decode(bytes)?;
        let value = |(place, column): (&Place, &Column)| match place {
            None => Ok(Datum::Null),
            Some((at, None)) => Ok(old[*at].clone()),
            Some((at, Some(_))) if old[*at].is_null() => Ok(Datum::Null),
            Some((at, Some(from))) => {
                let text = io::to_text(&old[*at], *from, storage_cx());
                io::text_in(&text, column.type_mod(), storage_cx()).map_err(|e| unshowable(column, *from, version, &e))
            }
        };
        self.columns.iter().zip(self.now.columns()).map(value).collect()
    }
}

fn unshowable(column: &Column, from: Type, version: Version, why: &SqlError) -> SqlError {
    SqlError::unsupported(format_args!(
        "showing a value that column \"{}\" had at version {version}, when its type was {}, as {}",
        column.name,
        from.sql_name(),
        Type(column.ty).sql_name()
    ))
    .detail(why.message().to_owned())
    .hint(format!("AS OF VERSION {version} reads the table as it was."))
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

/// The snapshot of a version between which changes are shown; 0 is before all. Refuses one that the statement does not see, and what is not the
/// end of a commit: half of one would be told as a whole.
fn snapshot_at(version: u64, cx: &ExecCx) -> Result<Snapshot> {
    let newest = cx.view.version();
    let no_version =
        || commits::not_a_version(&cx.database, &cx.session.database, &version.cast_signed().to_string(), newest);
    if version == 1 || version > newest.0 {
        return Err(no_version());
    }
    cx.database.snapshot_at(Version(version)).map_err(|e| match e {
        pgbee_engine::Error::NotAVersion { .. } => no_version(),
        other => other.into(),
    })
}

/// The rows of bee_history.
pub(super) struct History<'a> {
    session: &'a SessionCx,
    items: Option<txn::History>,
    readers: Readers,
    /// What the rows are read from, for a commit that is read again.
    view: Snapshot,
    range: KeyRange,
    /// The commit that changed what rows are found by, its deletes, then the rest.
    rekeyed: Option<Rekeyed>,
    seen: u64,
}

/// A commit that gave the table another key: every row was deleted and inserted again, and is told in that order, though it was written in the
/// order of keys.
struct Rekeyed {
    version: Version,
    /// Two walks through the commit: one for the deletes, one for all others.
    walks: VecDeque<(bool, txn::History)>,
}

impl<'a> History<'a> {
    pub fn new(
        table: &Arc<Table>,
        from: u64,
        to: u64,
        keys: Vec<(i16, Type, Datum)>,
        cx: &'a ExecCx,
    ) -> Result<History<'a>> {
        let (from, to) = (snapshot_at(from, cx)?.version(), snapshot_at(to, cx)?.version());
        let (view, range) = (cx.view.snapshot().clone(), table_range(table.oid));
        if to >= cx.view.version() {
            cx.view.rely_on(range.clone());
        }
        Ok(History {
            session: &cx.session,
            items: Some(view.history(range.clone(), from, to)?),
            readers: Readers::new(cx.database.clone(), table.clone(), keys),
            view,
            range,
            rekeyed: None,
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
        let at = if op == "delete" { item.base } else { item.version };
        row.extend(reader.read(&bytes, at)?);
        Ok(Some(row))
    }

    /// The next write to be told, commits that changed the key in their own order.
    fn next_item(&mut self) -> Result<Option<HistoryItem>> {
        loop {
            if let Some(rekeyed) = &mut self.rekeyed
                && let Some((deletes, walk)) = rekeyed.walks.front_mut()
            {
                match walk.step()? {
                    HistoryStep::Write(item) if item.value.is_none() == *deletes => return Ok(Some(item)),
                    HistoryStep::Write(_) => {}
                    HistoryStep::Read => self.session.check_cancel()?,
                    HistoryStep::End => drop(rekeyed.walks.pop_front()),
                }
                continue;
            }
            let Some(items) = &mut self.items else { return Ok(None) };
            let item = match items.step()? {
                HistoryStep::Write(item) => item,
                HistoryStep::Read => {
                    self.session.check_cancel()?;
                    continue;
                }
                HistoryStep::End => return Ok(None),
            };
            // Told already, by the walks of its own.
            if self.rekeyed.as_ref().is_some_and(|r| r.version == item.version) {
                continue;
            }
            let key_of = |r: Option<Arc<Reader>>| r.map(|r| r.key_columns.clone());
            let (after, before) = (key_of(self.readers.at(item.version)?.1), key_of(self.readers.at(item.base)?.1));
            if after.is_none() || before.is_none() || after == before {
                return Ok(Some(item));
            }
            let walk = || self.view.history(self.range.clone(), item.base, item.version);
            let walks = [(true, walk()?), (false, walk()?)].into();
            self.rekeyed = Some(Rekeyed { version: item.version, walks });
        }
    }

    fn find(&mut self) -> Result<Option<Row>> {
        loop {
            self.seen += 1;
            if self.seen.is_multiple_of(256) {
                self.session.check_cancel()?;
            }
            let Some(item) = self.next_item()? else { return Ok(None) };
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
    differences: Option<Differences>,
    /// `from` is the newer one: left and right change places.
    backward: bool,
    width: usize,
    old: Side,
    new: Side,
    seen: u64,
}

/// A version and how rows are read there.
struct Side {
    version: Version,
    reader: Option<Arc<Reader>>,
}

impl Side {
    fn has(&self, column: usize) -> bool {
        self.reader.as_ref().is_some_and(|r| r.columns[column].is_some())
    }
    fn read(&self, bytes: Option<&Bytes>, width: usize) -> Result<Row> {
        match (bytes, &self.reader) {
            (Some(bytes), Some(reader)) => reader.read(bytes, self.version),
            _ => Ok(vec![Datum::Null; width]),
        }
    }
}

/// Rows that may not be the same in the newer and the older version, by key.
enum Differences {
    /// Those written in between.
    Written(bee::Diff),
    /// All: a column came or went in between, and its value is not written in the rows that were there.
    All { newer: Walk, older: Walk },
}

/// A scan, and the entry it is at.
struct Walk {
    scan: Scan,
    at: Option<bee::Entry>,
}

impl Walk {
    fn new(snapshot: &Snapshot, range: KeyRange) -> Result<Walk> {
        let mut scan = snapshot.scan(range, Direction::Forward);
        let at = scan.next()?;
        Ok(Walk { scan, at })
    }
    /// The entry at hand if `take` says so; the walk goes on behind it.
    fn take_if(&mut self, take: bool) -> Result<Option<bee::Entry>> {
        if !take {
            return Ok(None);
        }
        let next = self.scan.next()?;
        Ok(std::mem::replace(&mut self.at, next))
    }
}

impl Differences {
    fn next(&mut self) -> Result<Option<bee::Difference>> {
        match self {
            Differences::Written(diff) => Ok(diff.next()?),
            Differences::All { newer, older } => {
                let (left, right) = match (&newer.at, &older.at) {
                    (None, None) => return Ok(None),
                    (Some(l), Some(r)) => (l.key <= r.key, r.key <= l.key),
                    (l, r) => (l.is_some(), r.is_some()),
                };
                Ok(Some(bee::Difference { left: newer.take_if(left)?, right: older.take_if(right)? }))
            }
        }
    }
}

impl<'a> Diff<'a> {
    pub fn new(table: &Arc<Table>, from: u64, to: u64, cx: &'a ExecCx) -> Result<Diff<'a>> {
        let (from, to) = (snapshot_at(from, cx)?.version(), snapshot_at(to, cx)?.version());
        let mut readers = Readers::new(cx.database.clone(), table.clone(), Vec::new());
        let (from_snapshot, reader) = readers.at(from)?;
        let old = Side { version: from, reader };
        let (to_snapshot, reader) = readers.at(to)?;
        let new = Side { version: to, reader };
        let backward = from > to;
        let (older, newer) = if backward { (&to_snapshot, &from_snapshot) } else { (&from_snapshot, &to_snapshot) };
        let range = table_range(table.oid);
        let both = old.reader.is_some() && new.reader.is_some();
        let differences = if both && (0..table.width()).any(|c| old.has(c) != new.has(c)) {
            Differences::All { newer: Walk::new(newer, range.clone())?, older: Walk::new(older, range)? }
        } else {
            Differences::Written(newer.diff(older, range))
        };
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
            let (old_row, new_row) =
                (self.old.read(old.as_ref(), self.width)?, self.new.read(new.as_ref(), self.width)?);
            // Written again as it was; but a column may have come or gone whose value is in no row.
            let came = |c: usize| self.old.has(c) != self.new.has(c) && old_row[c].is_null() != new_row[c].is_null();
            if old == new && !(0..self.width).any(came) {
                continue;
            }
            let op = match (&old, &new) {
                (None, _) => "insert",
                (_, None) => "delete",
                _ => "update",
            };
            let mut row = vec![Datum::text(op)];
            row.extend(old_row);
            row.extend(new_row);
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
