//! A catalog being changed by a transaction: the next one, and the writes that make it so.
//!
//! DDL works on a [`Change`]: it looks up what is there, puts and drops definitions, and takes oids. In the end
//! [`Change::finish`] gives the catalog that the transaction's later statements see, and the keys to write. Every change writes the
//! stamp, so of two transactions that change definitions at once the later one conflicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::schema::{Relation, Schema, Sequence, Server, Table, Tag, View};
use super::{Catalog, FIRST_USER_OID};
use crate::codec::keyspace::{self, Kind};
use crate::error::{Result, SqlError};

/// Definitions being changed.
pub struct Change {
    catalog: Arc<Catalog>,
    next_oid: u32,
    first_oid: u32,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    changed: bool,
}

/// Keys to write, and to delete where there is no value.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Stamps of catalogs that are not committed: no block has so high a number.
static UNCOMMITTED: AtomicU64 = AtomicU64::new(1 << 63);

/// Reads the oid counter's value.
pub fn parse_next_oid(value: Option<&[u8]>) -> Result<u32> {
    match value {
        None => Ok(FIRST_USER_OID),
        Some(bytes) => serde_json::from_slice(bytes)
            .map_err(|e| SqlError::internal(format!("the oid counter cannot be read: {e}"))),
    }
}

impl Change {
    /// A change of this catalog, giving out oids from `next_oid`.
    pub fn new(catalog: Arc<Catalog>, next_oid: u32) -> Change {
        Change { catalog, next_oid, first_oid: next_oid, writes: BTreeMap::new(), changed: false }
    }
    /// Definitions as changed so far.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
    /// Whether anything changed.
    pub fn is_changed(&self) -> bool {
        self.changed
    }
    /// An oid no object ever had.
    pub fn new_oid(&mut self) -> u32 {
        self.next_oid += 1;
        self.next_oid - 1
    }
    /// The catalog after the change and what to write.
    pub fn finish(mut self) -> (Arc<Catalog>, Writes) {
        if self.next_oid != self.first_oid {
            self.writes.insert(keyspace::NEXT_OID.to_vec(), Some(self.next_oid.to_string().into_bytes()));
        }
        if self.changed {
            // Only that it is written matters; the block it is written in is the stamp.
            self.writes.insert(keyspace::STAMP.to_vec(), Some(self.next_oid.to_string().into_bytes()));
        }
        (self.catalog, self.writes)
    }

    fn edit(&mut self) -> &mut Catalog {
        self.changed = true;
        let catalog = Arc::make_mut(&mut self.catalog);
        catalog.stamp = UNCOMMITTED.fetch_add(1, Ordering::Relaxed);
        catalog
    }
    fn put(&mut self, kind: Kind, oid: u32, definition: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(definition)
            .map_err(|e| SqlError::internal(format!("a definition cannot be written: {e}")))?;
        self.writes.insert(keyspace::definition(kind, oid), Some(json));
        Ok(())
    }
    fn delete(&mut self, kind: Kind, oid: u32) {
        self.writes.insert(keyspace::definition(kind, oid), None);
    }
    fn put_name(&mut self, kind: Kind, schema: u32, name: &str, oid: u32) {
        self.writes.insert(keyspace::name(kind, schema, name), Some(oid.to_string().into_bytes()));
    }
    fn delete_name(&mut self, kind: Kind, schema: u32, name: &str) {
        self.writes.insert(keyspace::name(kind, schema, name), None);
    }

    /// Takes away the names and catalog entries of a relation and its indexes, not its definition.
    fn forget(&mut self, oid: u32) {
        let Some(relation) = self.catalog.by_oid(oid).cloned() else { return };
        let mut gone = vec![relation.clone()];
        if let Relation::Table(table) = &relation {
            gone.extend(table.index_oids().into_iter().filter_map(|i| self.catalog.by_oid(i).cloned()));
        }
        for r in &gone {
            self.delete_name(Kind::Relation, r.schema(), r.name());
        }
        self.edit().remove(oid);
    }
    fn remember(&mut self, relation: Relation) {
        self.put_name(Kind::Relation, relation.schema(), relation.name(), relation.oid());
        if let Relation::Table(table) = &relation {
            for oid in table.index_oids() {
                let index = Relation::Index(table.clone(), oid);
                self.put_name(Kind::Relation, index.schema(), index.name(), oid);
            }
        }
        match relation {
            Relation::Table(table) => self.edit().add_table(table),
            other => self.edit().add(other),
        }
    }

    /// Adds or replaces a table.
    pub fn put_table(&mut self, table: Table) -> Result<Arc<Table>> {
        self.forget(table.oid);
        self.put(Kind::Table, table.oid, &table)?;
        let table = Arc::new(table);
        self.remember(Relation::Table(table.clone()));
        Ok(table)
    }
    /// Adds or replaces a view.
    pub fn put_view(&mut self, view: View) -> Result<()> {
        self.forget(view.oid);
        self.put(Kind::View, view.oid, &view)?;
        self.remember(Relation::View(Arc::new(view)));
        Ok(())
    }
    /// Adds or replaces a sequence's definition.
    pub fn put_sequence(&mut self, sequence: Sequence) -> Result<()> {
        self.forget(sequence.oid);
        self.put(Kind::Sequence, sequence.oid, &sequence)?;
        self.remember(Relation::Sequence(Arc::new(sequence)));
        Ok(())
    }
    /// Adds or replaces a schema.
    pub fn put_schema(&mut self, schema: Schema) -> Result<()> {
        if let Some(old) = self.catalog.schemas.get(&schema.oid).map(|s| s.name.clone()) {
            self.delete_name(Kind::Schema, 0, &old);
        }
        self.put(Kind::Schema, schema.oid, &schema)?;
        self.put_name(Kind::Schema, 0, &schema.name.clone(), schema.oid);
        self.edit().add_schema(schema);
        Ok(())
    }
    /// Adds or replaces a tag.
    pub fn put_tag(&mut self, tag: Tag) -> Result<()> {
        self.put(Kind::Tag, tag.oid, &tag)?;
        self.put_name(Kind::Tag, 0, &tag.name.clone(), tag.oid);
        self.edit().tags.insert(tag.name.clone(), Arc::new(tag));
        Ok(())
    }
    /// Adds or replaces a foreign server.
    pub fn put_server(&mut self, server: Server) -> Result<()> {
        if let Some(old) = self.catalog.servers.get(&server.oid).map(|s| s.name.clone()) {
            self.delete_name(Kind::Server, 0, &old);
        }
        self.put(Kind::Server, server.oid, &server)?;
        self.put_name(Kind::Server, 0, &server.name.clone(), server.oid);
        self.edit().servers.insert(server.oid, Arc::new(server));
        Ok(())
    }
    /// Removes a foreign server, of which there must be no tables.
    pub fn drop_server(&mut self, oid: u32) {
        let Some(server) = self.edit().servers.remove(&oid) else { return };
        self.delete(Kind::Server, oid);
        self.delete_name(Kind::Server, 0, &server.name);
    }
    /// Removes a relation's definition; its data stays where it is, out of reach.
    pub fn drop_relation(&mut self, oid: u32) {
        let kind = match self.catalog.by_oid(oid) {
            Some(Relation::Table(_)) => Kind::Table,
            Some(Relation::View(_)) => Kind::View,
            Some(Relation::Sequence(_)) => Kind::Sequence,
            _ => return,
        };
        self.forget(oid);
        self.delete(kind, oid);
        if kind == Kind::Sequence {
            self.writes.insert(keyspace::sequence(oid).to_vec(), None);
        }
    }
    /// Removes a schema, which must be empty.
    pub fn drop_schema(&mut self, oid: u32) {
        let Some(schema) = self.edit().schemas.remove(&oid) else { return };
        self.delete(Kind::Schema, oid);
        self.delete_name(Kind::Schema, 0, &schema.name);
    }
    /// Removes a tag.
    pub fn drop_tag(&mut self, name: &str) {
        let Some(tag) = self.edit().tags.remove(name) else { return };
        self.delete(Kind::Tag, tag.oid);
        self.delete_name(Kind::Tag, 0, &tag.name);
    }
}
