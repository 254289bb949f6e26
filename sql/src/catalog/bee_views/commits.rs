//! bee_commits and bee_tags.

use std::sync::Arc;

use pgbee_engine::bee::Direction;
use pgbee_engine::txn::{self, CommitRecord, Database};
use pgbee_engine::{Error, Version};

use super::{Rows, field};
use crate::catalog::PG_CATALOG;
use crate::catalog::schema::VirtualTable;
use crate::codec::row::storage_cx;
use crate::error::{Result, SqlError, state};
use crate::exec::ExecCx;
use crate::ir::Field;
use crate::types::{Datum, Row, Type, io};

/// Microseconds from 1970-01-01, where the engine counts from, to 2000-01-01, where SQL does.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A commit's time as a timestamptz.
pub(in crate::catalog) fn committed_at(unix_micros: i64) -> Datum {
    Datum::TimestampTz(unix_micros.saturating_sub(EPOCH_MICROS))
}

/// 22023 for what is no version of a database, with those there are: from its first commit to `newest`.
pub(crate) fn not_a_version(database: &Database, name: &str, asked: &str, newest: Version) -> SqlError {
    let range = match database.first_commit() {
        Ok(Some(first)) => {
            let oldest = io::to_text(&committed_at(first.time_micros), Type::TIMESTAMPTZ, storage_cx());
            format!(
                "Versions go from {} (committed at {oldest}) to {newest}; each is the end of a commit.",
                first.version
            )
        }
        // Who waited for a peer to tell was told why it stopped.
        Err(e @ Error::GaveUp(_)) => return e.into(),
        _ if newest < Version(2) => "The database has no version yet.".to_owned(),
        _ => format!(
            "Its writer keeps no commit records: what was seen as the newest version here can be read, now {newest}."
        ),
    };
    SqlError::new(state::INVALID_PARAMETER_VALUE, format!("{asked} is not a version of database \"{name}\""))
        .detail(range)
}

/// Every commit the statement's version contains.
pub(super) struct Commits {
    oid: u32,
    columns: Arc<[Field]>,
}

impl Commits {
    pub fn new(oid: u32) -> Commits {
        let columns = [
            ("version", Type::INT8),
            ("committed_at", Type::TIMESTAMPTZ),
            ("user_name", Type::TEXT),
            ("application_name", Type::TEXT),
            ("message", Type::TEXT),
            ("rows_changed", Type::INT8),
        ];
        Commits { oid, columns: (1..).zip(columns).map(|(n, (name, ty))| field(name, ty, oid, n)).collect() }
    }
}

fn commit_row(record: CommitRecord) -> Row {
    vec![
        Datum::Int8(record.version.0.cast_signed()),
        committed_at(record.time_micros),
        Datum::text(record.user),
        Datum::text(record.application),
        Datum::text(record.message),
        Datum::Int8(record.changes.cast_signed()),
    ]
}

impl VirtualTable for Commits {
    fn oid(&self) -> u32 {
        self.oid
    }
    fn name(&self) -> &str {
        "bee_commits"
    }
    fn schema(&self) -> u32 {
        PG_CATALOG
    }
    fn columns(&self) -> Arc<[Field]> {
        self.columns.clone()
    }
    fn rows<'a>(&'a self, _: &[Datum], equals: &[(usize, Datum)], cx: &'a ExecCx) -> Result<Rows<'a>> {
        let newest = cx.view.version();
        if let Some((_, Datum::Int8(wanted))) = equals.iter().find(|(column, _)| *column == 0) {
            let version = Version(wanted.cast_unsigned());
            if *wanted < 0 || version > newest {
                return Ok(Box::new(std::iter::empty()));
            }
            return match cx.database.commit_record(version) {
                Ok(record) => Ok(Box::new(std::iter::once(Ok(commit_row(record))))),
                Err(pgbee_engine::Error::NotAVersion { .. }) => Ok(Box::new(std::iter::empty())),
                Err(e) => Err(e.into()),
            };
        }
        Ok(Box::new(Walk(Some(cx.database.commits(newest, Direction::Backward)))))
    }
}

/// Ends after an error.
struct Walk(Option<txn::Commits>);

impl Iterator for Walk {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let next = self.0.as_mut()?.next();
        if next.is_err() {
            self.0 = None;
        }
        next.map_err(Into::into).transpose().map(|r| r.map(commit_row))
    }
}

/// The tags the statement's version has.
pub(super) struct Tags {
    oid: u32,
    columns: Arc<[Field]>,
}

impl Tags {
    pub fn new(oid: u32) -> Tags {
        Tags { oid, columns: [field("name", Type::NAME, oid, 1), field("version", Type::INT8, oid, 2)].into() }
    }
}

impl VirtualTable for Tags {
    fn oid(&self) -> u32 {
        self.oid
    }
    fn name(&self) -> &str {
        "bee_tags"
    }
    fn schema(&self) -> u32 {
        PG_CATALOG
    }
    fn columns(&self) -> Arc<[Field]> {
        self.columns.clone()
    }
    fn rows<'a>(&'a self, _: &[Datum], _: &[(usize, Datum)], cx: &'a ExecCx) -> Result<Rows<'a>> {
        let row =
            |tag: &Arc<crate::catalog::Tag>| Ok(vec![Datum::text(&tag.name), Datum::Int8(tag.version.cast_signed())]);
        Ok(Box::new(cx.session.catalog.tags.values().map(row)))
    }
}
