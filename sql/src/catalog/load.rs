//! The catalog of a version, read from its definitions.
//!
//! What is always there (pg_catalog, information_schema, what they hold, the bee_* views) is made once and shared. A
//! version's catalog is known by its stamp: the block that last wrote the key [`keyspace::STAMP`]. Two versions with one stamp have the
//! same definitions, so a [`Cache`] holds a few catalogs and loading is rare.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::bee::{Direction, KeyRange};
use pgbee_engine::txn::{COMMIT_RECORD_KEY, ReadView, Snapshot};
use serde::de::DeserializeOwned;

use super::schema::{Relation, Schema, Table, VirtualTable};
use super::{Catalog, INFORMATION_SCHEMA, PG_CATALOG, PUBLIC, bee_views, information_schema, pg_catalog};
use crate::codec::keyspace::{self, Kind};
use crate::error::{Result, SqlError, state};

/// The stamp of a version's definitions; 0 when nothing was committed, one of its own for a bee that pgbee did not write.
pub fn stamp(snapshot: &Snapshot) -> Result<u64> {
    match snapshot.get_entry(keyspace::STAMP)? {
        Some(entry) => Ok(entry.seq.0),
        None if is_foreign(snapshot)? => Ok(FOREIGN),
        None => Ok(0),
    }
}

/// The stamp of every bee that pgbee did not write: no block has so high a number, and no catalog not yet committed so low a one.
const FOREIGN: u64 = 1 << 62;

/// Whether a version without definitions is one of a bee that pgbee did not write: it has entries, the last of them is no commit record,
/// and its first block is a bee's header.
fn is_foreign(snapshot: &Snapshot) -> Result<bool> {
    let version = snapshot.version().0;
    if version < 2 {
        return Ok(false);
    }
    let record = snapshot.get_entry(COMMIT_RECORD_KEY)?;
    if record.is_some_and(|entry| entry.seq.0 + 1 == version) {
        return Ok(false);
    }
    match snapshot.bee().header() {
        Ok(_) => Ok(true),
        Err(pgbee_engine::Error::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a bee shows that pgbee did not write: its entries, as a table.
fn foreign(stamp: u64) -> Catalog {
    let mut catalog = built_in().clone();
    catalog.stamp = stamp;
    catalog.add_schema(Schema { oid: PUBLIC, name: "public".into(), comment: Some("standard public schema".into()) });
    let (server, table) = crate::foreign::own_table();
    catalog.servers.insert(server.oid, Arc::new(server));
    catalog.add_table(Arc::new(table));
    catalog
}

/// Reads all definitions a view shows.
pub fn load(view: &ReadView, stamp: u64) -> Result<Catalog> {
    let mut catalog = built_in().clone();
    catalog.stamp = stamp;
    let mut scan = view.scan(keyspace::definitions_range(), Direction::Forward)?;
    while let Some((key, value)) = scan.next()? {
        let Some((kind, oid)) = keyspace::parse_definition(&key) else {
            return Err(corrupt("a definition of unknown kind"));
        };
        match kind {
            Kind::Schema => catalog.add_schema(decode::<Schema>(oid, &value)?),
            Kind::Table => catalog.add_table(Arc::new(decode(oid, &value)?)),
            Kind::View => catalog.add(Relation::View(Arc::new(decode(oid, &value)?))),
            Kind::Sequence => catalog.add(Relation::Sequence(Arc::new(decode(oid, &value)?))),
            Kind::Tag => {
                let tag = decode::<super::Tag>(oid, &value)?;
                catalog.tags.insert(tag.name.clone(), Arc::new(tag));
            }
            Kind::Server => {
                let server = decode::<super::Server>(oid, &value)?;
                catalog.servers.insert(server.oid, Arc::new(server));
            }
            Kind::Relation => {}
        }
    }
    Ok(catalog)
}

fn decode<T: DeserializeOwned>(oid: u32, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|e| corrupt(&format!("the definition of object {oid} cannot be read: {e}")))
}

fn corrupt(what: &str) -> SqlError {
    SqlError::new(state::DATA_CORRUPTED, what)
}

impl Catalog {
    /// Adds a schema.
    pub(super) fn add_schema(&mut self, schema: Schema) {
        self.schemas.insert(schema.oid, Arc::new(schema));
    }
    /// Adds a relation that is not a table, or one of its indexes.
    pub(super) fn add(&mut self, relation: Relation) {
        self.names.insert((relation.schema(), relation.name().to_owned()), relation.oid());
        self.relations.insert(relation.oid(), relation);
    }
    /// Adds a table with its indexes.
    pub(super) fn add_table(&mut self, table: Arc<Table>) {
        for oid in table.index_oids() {
            self.add(Relation::Index(table.clone(), oid));
        }
        for key in &table.foreign_keys {
            let referring = self.referring.entry(key.table).or_default();
            if let Err(at) = referring.binary_search(&table.oid) {
                referring.insert(at, table.oid);
            }
        }
        self.add(Relation::Table(table));
    }
    /// Removes a relation; a table with its indexes.
    pub(super) fn remove(&mut self, oid: u32) {
        let Some(relation) = self.relations.remove(&oid) else { return };
        self.names.remove(&(relation.schema(), relation.name().to_owned()));
        if let Relation::Table(table) = relation {
            for key in &table.foreign_keys {
                if let Some(referring) = self.referring.get_mut(&key.table) {
                    referring.retain(|t| *t != table.oid);
                }
            }
            for oid in table.index_oids() {
                self.remove(oid);
            }
        }
    }
}

impl Table {
    /// Oids of its indexes, the primary key's first.
    pub fn index_oids(&self) -> Vec<u32> {
        self.primary_key.iter().map(|k| k.oid).chain(self.indexes.iter().map(|i| i.oid)).collect()
    }
}

/// The catalog of a database of which nothing is known.
pub fn empty() -> Arc<Catalog> {
    Arc::new(built_in().clone())
}

/// What every database has.
fn built_in() -> &'static Catalog {
    static BUILT_IN: OnceLock<Catalog> = OnceLock::new();
    BUILT_IN.get_or_init(|| {
        let mut catalog = Catalog::default();
        for (oid, name, comment) in [
            (PG_CATALOG, "pg_catalog", Some("system catalog schema")),
            (INFORMATION_SCHEMA, "information_schema", None),
        ] {
            catalog.add_schema(Schema { oid, name: name.into(), comment: comment.map(str::to_owned) });
        }
        let tables: Vec<Arc<dyn VirtualTable>> =
            [pg_catalog::tables(), information_schema::tables(), bee_views::tables()].into_iter().flatten().collect();
        for table in tables {
            catalog.add(Relation::Virtual(table));
        }
        for function in bee_views::table_functions() {
            catalog.table_functions.insert(function.name().to_owned(), function);
        }
        catalog
    })
}

/// The stamp is read as the first of all definitions: on a follower that holds nothing yet, whoever is asked for one is asked for all, which saves two round trips.
fn expect_all(snapshot: &Snapshot) -> Result<()> {
    let range = KeyRange {
        start: Bound::Included(Bytes::from_static(keyspace::STAMP)),
        end: keyspace::definitions_range().end,
    };
    snapshot.scan(range, Direction::Forward).expecting(DEFINITIONS_EXPECTED).next()?;
    Ok(())
}

/// Most databases have no more, and a bee that pgbee did not write should not be asked for more.
const DEFINITIONS_EXPECTED: u64 = 512;

/// Where the fork stands in a stamp, above any length a log can have, and how much of it has room there.
const FORK_SHIFT: u32 = 48;
const FORKS: u64 = 0x3fff;

/// A few catalogs of one database, newest used last.
#[derive(Default)]
pub struct Cache {
    catalogs: Mutex<VecDeque<Arc<Catalog>>>,
}

impl Cache {
    const SIZE: usize = 16;

    /// The catalog of a snapshot; `fork` is how often the log's writer took back what it had written, which gives stamps another meaning. The lock is not held while
    /// anything is read, for on a follower that may wait for peers.
    pub fn get(&self, snapshot: &Snapshot, fork: u64) -> Result<Arc<Catalog>> {
        // That of the empty database is no sign that anything was read.
        let is_first = self.catalogs.lock().iter().all(|c| c.stamp == 0);
        if is_first {
            expect_all(snapshot)?;
        }
        let of_version = stamp(snapshot)?;
        let stamp = of_version | (fork & FORKS) << FORK_SHIFT;
        if let Some(found) = self.find(stamp) {
            return Ok(found);
        }
        let catalog = Arc::new(match of_version {
            FOREIGN => foreign(stamp),
            _ => load(&ReadView::from(snapshot.clone()), stamp)?,
        });
        let mut catalogs = self.catalogs.lock();
        if let Some(found) = catalogs.iter().find(|c| c.stamp == stamp) {
            // Somebody else was quicker.
            return Ok(found.clone());
        }
        if catalogs.len() == Self::SIZE {
            catalogs.pop_front();
        }
        catalogs.push_back(catalog.clone());
        Ok(catalog)
    }

    fn find(&self, stamp: u64) -> Option<Arc<Catalog>> {
        let mut catalogs = self.catalogs.lock();
        let at = catalogs.iter().rposition(|c| c.stamp == stamp)?;
        if at + 1 < catalogs.len() {
            let catalog = catalogs.remove(at)?;
            catalogs.push_back(catalog);
        }
        catalogs.back().cloned()
    }
}
