//! What only a database that forgets nothing can show: its commits, its tags, the history of a table, the difference of two versions.
//!
//! ```text
//! bee_commits                        every commit, newest first
//! bee_tags                           names of versions
//! bee_history(table [, from [, to]]) every change of a row after version `from` up to `to`, oldest first: _version, _committed_at, _op, the row
//! bee_diff(table, from [, to])       rows that are not the same in two versions: _op, old_..., new_...
//! bee_cores, bee_peers, bee_progress what is here, who it is exchanged with, what is being fetched
//! bee_swarm, bee_swarm_topics        our place in the swarm, and what peers are looked for by
//! ```
//!
//! All of it is what is committed and not newer than what the statement reads; without `to` they go up to there. `_op` is insert, update or
//! delete; a deleted row is shown as it was.
//!
//! The columns are the table's of today. A row is read with the definition of its own time and its columns found by attribute number: a
//! renamed column keeps its history, one of another type is converted through its text (NULL where that fails), one that was not there
//! yet is NULL, dropped ones are not shown. A table that was dropped and made again is another table.

mod commits;
pub(super) mod peers;
mod rows;

pub(super) use commits::committed_at;
pub(crate) use commits::not_a_version;

use std::sync::Arc;

use super::pg_catalog::fits;
use super::schema::{Table, VirtualTable};
use super::{Catalog, PG_CATALOG, Relation};
use crate::error::{Result, SqlError, state};
use crate::exec::ExecCx;
use crate::ir::Field;
use crate::types::{Datum, Row, Type, TypeMod, reg};

// Oids below those of users' objects that PostgreSQL does not give to anything in a fresh database.
const BEE_COMMITS: u32 = 16_001;
const BEE_TAGS: u32 = 16_002;
const BEE_HISTORY: u32 = 16_003;
const BEE_DIFF: u32 = 16_004;
const BEE_CORES: u32 = 16_005;
const BEE_PEERS: u32 = 16_006;
const BEE_PROGRESS: u32 = 16_007;
const BEE_SWARM: u32 = 16_008;
const BEE_SWARM_TOPICS: u32 = 16_009;

/// Rows as they are found.
type Rows<'a> = Box<dyn Iterator<Item = Result<Row>> + Send + 'a>;

/// The views; they are in pg_catalog, so that every search path finds them.
pub fn tables() -> Vec<Arc<dyn VirtualTable>> {
    vec![
        Arc::new(commits::Commits::new(BEE_COMMITS)),
        Arc::new(commits::Tags::new(BEE_TAGS)),
        Arc::new(peers::Live::cores(BEE_CORES)),
        Arc::new(peers::Live::peers(BEE_PEERS)),
        Arc::new(peers::Live::progress(BEE_PROGRESS)),
        Arc::new(peers::Live::swarm(BEE_SWARM)),
        Arc::new(peers::Live::swarm_topics(BEE_SWARM_TOPICS)),
    ]
}

/// The table functions, found by name.
pub fn table_functions() -> Vec<Arc<dyn VirtualTable>> {
    vec![Arc::new(Function(Kind::History)), Arc::new(Function(Kind::Diff))]
}

fn field(name: &str, ty: Type, table_oid: u32, attnum: i16) -> Field {
    Field { name: Arc::from(name), ty: ty.plain(), table_oid, attnum }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    History,
    Diff,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::History => "bee_history",
            Kind::Diff => "bee_diff",
        }
    }
    fn oid(self) -> u32 {
        match self {
            Kind::History => BEE_HISTORY,
            Kind::Diff => BEE_DIFF,
        }
    }
    /// The columns before the table's.
    fn own_columns(self) -> Vec<Field> {
        match self {
            Kind::History => vec![
                field("_version", Type::INT8, 0, 0),
                field("_committed_at", Type::TIMESTAMPTZ, 0, 0),
                field("_op", Type::TEXT, 0, 0),
            ],
            Kind::Diff => vec![field("_op", Type::TEXT, 0, 0)],
        }
    }
    fn columns(self, table: &Table) -> Arc<[Field]> {
        let column = |name: String, ty: TypeMod| Field { name: Arc::from(name), ty, table_oid: 0, attnum: 0 };
        let of_table =
            |prefix: &'static str| table.columns().map(move |c| column(format!("{prefix}{}", c.name), c.type_mod()));
        let mut fields = self.own_columns();
        match self {
            Kind::History => fields.extend(of_table("")),
            Kind::Diff => fields.extend(of_table("old_").chain(of_table("new_"))),
        }
        fields.into()
    }
    /// Checks the arguments' number and types; that they are versions shows when they are used.
    fn check(self, args: &[Datum]) -> Result<()> {
        let least = if self == Kind::Diff { 2 } else { 1 };
        let is_version = |d: &Datum| matches!(d, Datum::Int8(_) | Datum::Int4(_) | Datum::Int2(_) | Datum::Null);
        let sound = (least..=3).contains(&args.len())
            && matches!(args[0], Datum::Text(_) | Datum::Oid(_))
            && args[1..].iter().all(is_version);
        if sound {
            return Ok(());
        }
        let wanted = if self == Kind::Diff {
            "a table, a version and another version"
        } else {
            "a table, and up to two versions"
        };
        Err(SqlError::new(state::UNDEFINED_FUNCTION, format!("no function {} takes these arguments", self.name()))
            .hint(format!("Its arguments are {wanted}.")))
    }
}

/// A table function whose table is not known yet.
struct Function(Kind);

impl VirtualTable for Function {
    fn oid(&self) -> u32 {
        self.0.oid()
    }
    fn name(&self) -> &str {
        self.0.name()
    }
    fn schema(&self) -> u32 {
        PG_CATALOG
    }
    fn columns(&self) -> Arc<[Field]> {
        self.0.own_columns().into()
    }
    fn for_arguments(
        &self,
        args: &[Datum],
        catalog: &Catalog,
        search_path: &[u32],
    ) -> Result<Option<Arc<dyn VirtualTable>>> {
        self.0.check(args)?;
        let table = find_table(&args[0], catalog, search_path)?;
        let columns = self.0.columns(&table);
        Ok(Some(Arc::new(OfTable { kind: self.0, table, columns })))
    }
    fn rows<'a>(&'a self, _: &[Datum], _: &[(usize, Datum)], _: &'a ExecCx) -> Result<Rows<'a>> {
        Err(SqlError::unsupported(format!("{} of a table whose name is not a constant", self.0.name())))
    }
}

/// A table by its name or oid.
fn find_table(arg: &Datum, catalog: &Catalog, search_path: &[u32]) -> Result<Arc<Table>> {
    let relation = match arg {
        Datum::Oid(oid) => catalog
            .by_oid(*oid)
            .ok_or_else(|| SqlError::new(state::UNDEFINED_TABLE, format!("relation with OID {oid} does not exist")))?,
        Datum::Text(name) => {
            let unknown = || SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
            let parts =
                reg::split_name(name).ok_or_else(|| SqlError::new(state::INVALID_NAME, "invalid name syntax"))?;
            match parts.as_slice() {
                [name] => catalog.find(search_path, name),
                [schema, name] => catalog.schema_oid(schema).and_then(|s| catalog.relation(s, name)),
                _ => None,
            }
            .ok_or_else(unknown)?
        }
        _ => return Err(SqlError::internal("a table was named by neither name nor oid")),
    };
    match relation {
        Relation::Table(table) if table.foreign.is_some() => {
            Err(SqlError::unsupported(format!("the history of foreign table \"{}\"", table.name)))
        }
        Relation::Table(table) => Ok(table.clone()),
        other => Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", other.name()))),
    }
}

/// bee_history or bee_diff of one table.
struct OfTable {
    kind: Kind,
    table: Arc<Table>,
    columns: Arc<[Field]>,
}

impl OfTable {
    /// The values that primary key columns must have, by attribute number, as the query tells.
    fn key_values(&self, equals: &[(usize, Datum)]) -> Vec<(i16, Type, Datum)> {
        let first = self.kind.own_columns().len();
        let columns: Vec<(i16, Type)> = self.table.columns().map(|c| (c.attnum, Type(c.ty))).collect();
        let wanted = |(at, value): &(usize, Datum)| {
            let (attnum, ty) = *columns.get(at.checked_sub(first)?)?;
            (!value.is_null() && fits(value, ty)).then(|| (attnum, ty, value.clone()))
        };
        equals.iter().filter_map(wanted).collect()
    }
}

impl VirtualTable for OfTable {
    fn oid(&self) -> u32 {
        self.kind.oid()
    }
    fn name(&self) -> &str {
        self.kind.name()
    }
    fn schema(&self) -> u32 {
        PG_CATALOG
    }
    fn columns(&self) -> Arc<[Field]> {
        self.columns.clone()
    }
    fn rows<'a>(&'a self, args: &[Datum], equals: &[(usize, Datum)], cx: &'a ExecCx) -> Result<Rows<'a>> {
        if args.iter().any(Datum::is_null) {
            return Ok(Box::new(std::iter::empty()));
        }
        self.kind.check(args)?;
        let newest = cx.view.version().0;
        match self.kind {
            Kind::History => {
                let from = args.get(1).map_or(Ok(0), version)?;
                let to = args.get(2).map_or(Ok(newest), version)?;
                let keys = self.key_values(equals);
                Ok(Box::new(rows::History::new(&self.table, from, to, keys, cx)?))
            }
            Kind::Diff => {
                let from = version(&args[1])?;
                let to = args.get(2).map_or(Ok(newest), version)?;
                Ok(Box::new(rows::Diff::new(&self.table, from, to, cx)?))
            }
        }
    }
}

fn version(arg: &Datum) -> Result<u64> {
    let n = match arg {
        Datum::Int8(n) => *n,
        Datum::Int4(n) => i64::from(*n),
        Datum::Int2(n) => i64::from(*n),
        _ => return Err(SqlError::internal("a version is no number")),
    };
    // No database has as many versions as a negative number becomes: it is refused where the others are.
    Ok(u64::try_from(n).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
