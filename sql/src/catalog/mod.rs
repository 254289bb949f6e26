//! The catalog of one version: every definition, by oid and by name.
//!
//! A [`Catalog`] is an immutable value loaded from a snapshot (see [`load`]) and cached by the version of its last change; a
//! transaction that runs DDL works on its own next one ([`change`]). Relations made on the fly (pg_catalog and the like) are
//! found here too, so a name has one place to be looked up.

pub mod bee_views;
pub mod change;
pub mod ddl;
pub mod information_schema;
pub mod load;
pub mod pg_catalog;
pub mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use schema::{Relation, Schema, Sequence, Server, Table, Tag, View};

/// Oid of pg_catalog.
pub const PG_CATALOG: u32 = 11;
/// Oid of public.
pub const PUBLIC: u32 = 2200;
/// Oid of information_schema.
pub const INFORMATION_SCHEMA: u32 = 13000;
/// Oid of the session's database, the same for all: nothing refers to another one.
pub const DATABASE_OID: u32 = 5;
/// The first oid given to users' objects.
pub const FIRST_USER_OID: u32 = 16384;

/// All definitions at one version.
#[derive(Clone, Default)]
pub struct Catalog {
    /// Counts changes of definitions; equal stamps of one database mean equal catalogs.
    pub stamp: u64,
    /// Schemas by oid.
    pub schemas: BTreeMap<u32, Arc<Schema>>,
    /// Relations by oid, stored ones and made ones, indexes included.
    pub relations: FxHashMap<u32, Relation>,
    /// Oid by (schema oid, name). Tables, views, sequences and indexes share one name space.
    pub names: FxHashMap<(u32, String), u32>,
    /// Oids of the tables whose foreign keys refer to a table, in order, by that table's oid.
    pub referring: FxHashMap<u32, Vec<u32>>,
    /// Foreign servers by oid.
    pub servers: BTreeMap<u32, Arc<Server>>,
    /// Tags by name.
    pub tags: BTreeMap<String, Arc<Tag>>,
    /// Table functions made on the fly by name: bee_history and the like. Looked up after the registry's set functions.
    pub table_functions: FxHashMap<String, Arc<dyn schema::VirtualTable>>,
}

impl Catalog {
    /// A schema's oid by name.
    pub fn schema_oid(&self, name: &str) -> Option<u32> {
        self.schemas.values().find(|s| s.name == name).map(|s| s.oid)
    }
    /// A foreign server by name.
    pub fn server(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.values().find(|s| s.name == name)
    }
    /// A relation of a schema by name.
    pub fn relation(&self, schema: u32, name: &str) -> Option<&Relation> {
        self.relations.get(self.names.get(&(schema, name.to_owned()))?)
    }
    /// The first relation of this name along a search path.
    pub fn find(&self, search_path: &[u32], name: &str) -> Option<&Relation> {
        search_path.iter().find_map(|s| self.relation(*s, name))
    }
    /// All stored tables, by oid.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        let mut tables: Vec<&Arc<Table>> =
            self.relations.values().filter_map(|r| if let Relation::Table(t) = r { Some(t) } else { None }).collect();
        tables.sort_by_key(|t| t.oid);
        tables.into_iter()
    }
    /// A stored table by oid.
    pub fn table(&self, oid: u32) -> Option<&Arc<Table>> {
        match self.relations.get(&oid) {
            Some(Relation::Table(table)) => Some(table),
            _ => None,
        }
    }
    /// Foreign keys that refer to a table, each with the table it is of, the oldest first.
    pub fn references_to(&self, oid: u32) -> Vec<(&Arc<Table>, &schema::ForeignKey)> {
        let tables = self.referring.get(&oid).into_iter().flatten().filter_map(|t| self.table(*t));
        let mut found: Vec<_> =
            tables.flat_map(|t| t.foreign_keys.iter().filter(|f| f.table == oid).map(move |f| (t, f))).collect();
        found.sort_by_key(|(_, f)| f.oid);
        found
    }
    /// Whether any foreign key refers to a table.
    pub fn is_referenced(&self, oid: u32) -> bool {
        self.referring.get(&oid).is_some_and(|tables| !tables.is_empty())
    }
    /// A relation by oid.
    pub fn by_oid(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(&oid)
    }
}

impl Relation {
    /// Oid.
    pub fn oid(&self) -> u32 {
        match self {
            Relation::Table(t) => t.oid,
            Relation::View(v) => v.oid,
            Relation::Sequence(s) => s.oid,
            Relation::Index(_, oid) => *oid,
            Relation::Virtual(v) => v.oid(),
        }
    }
    /// Oid of the schema it is in.
    pub fn schema(&self) -> u32 {
        match self {
            Relation::Table(t) | Relation::Index(t, _) => t.schema,
            Relation::View(v) => v.schema,
            Relation::Sequence(s) => s.schema,
            Relation::Virtual(v) => v.schema(),
        }
    }
    /// Name.
    pub fn name(&self) -> &str {
        match self {
            Relation::Table(t) => &t.name,
            Relation::View(v) => &v.name,
            Relation::Sequence(s) => &s.name,
            Relation::Index(t, oid) => match &t.primary_key {
                Some(k) if k.oid == *oid => &k.name,
                _ => t.indexes.iter().find(|i| i.oid == *oid).map_or("", |i| &i.name),
            },
            Relation::Virtual(v) => v.name(),
        }
    }
}
