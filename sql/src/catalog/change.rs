//! A catalog being changed by a transaction: the next one, and the writes that make it so.
//!
//! DDL works on a [`Change`]: it looks up what is there, puts and drops definitions, and takes oids. In the end [`Change::finish`] gives the catalog
//! that the transaction's later statements see, the keys to write, and the [`Edits`]: what was changed, apart from what it was changed in.
//!
//! Several transactions may change definitions at once. What keeps them apart are claims (see [`Guard`]), held until their transaction ends:
//!
//! ```text
//! a definition that is put or dropped     its key is claimed: the second transaction waits, and then begins its statement anew
//! a name that comes or goes               its key is claimed: the second one to take it waits, and finds it taken, or free
//! ```
//!
//! so what others commit meanwhile can be merged: the newest catalog with one's own edits on it ([`merged`]) is what the transaction sees, and
//! no commit of definitions conflicts with another. The stamp is written by all of them, the last one to commit wins, and only that it was written counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::schema::{Relation, Schema, Sequence, Server, Table, Tag, View};
use super::{Catalog, FIRST_USER_OID};
use crate::codec::keyspace::{self, Kind};
use crate::error::{Result, SqlError, state};

/// Definitions being changed.
pub struct Change {
    catalog: Arc<Catalog>,
    /// Where oids come from without a guard.
    next_oid: u32,
    guard: Option<Arc<dyn Guard>>,
    writes: Writes,
    edits: Edits,
    is_stale: bool,
}

/// Keys to write, and to delete where there is no value.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a transaction made of definitions; None: it dropped them.
pub type Edits = BTreeMap<(Kind, u32), Option<Edit>>;

/// A definition as a transaction left it.
#[derive(Clone)]
pub enum Edit {
    /// A table, view or sequence.
    Relation(Relation),
    /// A schema.
    Schema(Arc<Schema>),
    /// A foreign server.
    Server(Arc<Server>),
    /// A tag.
    Tag(Arc<Tag>),
}

/// Keeps transactions that change definitions apart.
pub trait Guard: Send + Sync {
    /// Claims the key of a definition or a name until the transaction ends. True: it was not claimed by it before.
    fn claim(&self, key: &[u8]) -> Result<bool>;
    /// What a name's key holds in the newest version.
    fn named(&self, key: &[u8]) -> Result<Option<u32>>;
    /// Whether definitions were committed that the statement does not know.
    fn is_stale(&self) -> Result<bool>;
    /// An oid nobody has.
    fn new_oid(&self) -> u32;
}

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

/// Definitions with a transaction's edits on them. What it changed it has claimed, so nobody else has changed it.
pub fn merged(base: &Catalog, edits: &Edits) -> Catalog {
    let mut catalog = base.clone();
    catalog.stamp = UNCOMMITTED.fetch_add(1, Ordering::Relaxed);
    for (kind, oid) in edits.keys() {
        match kind {
            Kind::Schema => drop(catalog.schemas.remove(oid)),
            Kind::Server => drop(catalog.servers.remove(oid)),
            Kind::Tag => catalog.tags.retain(|_, tag| tag.oid != *oid),
            Kind::Table | Kind::View | Kind::Sequence | Kind::Relation => catalog.remove(*oid),
        }
    }
    for edit in edits.values().flatten().cloned() {
        match edit {
            Edit::Relation(Relation::Table(table)) => catalog.add_table(table),
            Edit::Relation(other) => catalog.add(other),
            Edit::Schema(schema) => drop(catalog.schemas.insert(schema.oid, schema)),
            Edit::Server(server) => drop(catalog.servers.insert(server.oid, server)),
            Edit::Tag(tag) => drop(catalog.tags.insert(tag.name.clone(), tag)),
        }
    }
    catalog
}

impl Change {
    /// A change that nobody else can get in the way of: one that is only tried, or the first of a database.
    pub fn new(catalog: Arc<Catalog>, next_oid: u32) -> Change {
        Change { catalog, next_oid, guard: None, writes: BTreeMap::new(), edits: Edits::new(), is_stale: false }
    }
    /// A statement's change.
    pub fn guarded(catalog: Arc<Catalog>, guard: Arc<dyn Guard>) -> Change {
        Change { guard: Some(guard), ..Change::new(catalog, 0) }
    }
    /// Definitions as changed so far.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
    /// Whether anything changed.
    pub fn is_changed(&self) -> bool {
        !self.edits.is_empty()
    }
    /// It met a definition that others changed after the statement began: what it did so far is to be dropped, and the statement begun anew.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }
    /// An oid no object ever had.
    pub fn new_oid(&mut self) -> u32 {
        if let Some(guard) = &self.guard {
            return guard.new_oid();
        }
        self.next_oid += 1;
        self.next_oid - 1
    }
    /// The catalog after the change, what to write, and what was changed.
    pub fn finish(mut self) -> (Arc<Catalog>, Writes, Edits) {
        if self.is_changed() {
            // Only that it is written matters; the block it is written in is the stamp.
            self.writes.insert(keyspace::STAMP.to_vec(), Some(b"0".to_vec()));
        }
        (self.catalog, self.writes, self.edits)
    }

    fn edit(&mut self) -> &mut Catalog {
        let catalog = Arc::make_mut(&mut self.catalog);
        catalog.stamp = UNCOMMITTED.fetch_add(1, Ordering::Relaxed);
        catalog
    }
    /// Whether the definition is there for others to change.
    fn is_known(&self, kind: Kind, oid: u32) -> bool {
        match kind {
            Kind::Schema => self.catalog.schemas.contains_key(&oid),
            Kind::Server => self.catalog.servers.contains_key(&oid),
            Kind::Tag => self.catalog.tags.values().any(|tag| tag.oid == oid),
            Kind::Table | Kind::View | Kind::Sequence | Kind::Relation => self.catalog.relations.contains_key(&oid),
        }
    }
    /// Keeps others from changing a definition; fails if one did that this statement has not seen.
    pub fn claim(&mut self, kind: Kind, oid: u32) -> Result<()> {
        let Some(guard) = self.guard.clone().filter(|_| self.is_known(kind, oid)) else { return Ok(()) };
        if guard.claim(&keyspace::definition(kind, oid))? && guard.is_stale()? {
            self.is_stale = true;
            return Err(SqlError::new(
                state::SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update",
            ));
        }
        Ok(())
    }
    fn put(&mut self, kind: Kind, oid: u32, definition: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(definition)
            .map_err(|e| SqlError::internal(format!("a definition cannot be written: {e}")))?;
        self.writes.insert(keyspace::definition(kind, oid), Some(json));
        Ok(())
    }
    fn delete(&mut self, kind: Kind, oid: u32) {
        self.writes.insert(keyspace::definition(kind, oid), None);
        self.edits.insert((kind, oid), None);
    }
    /// A name for an object, which is a new one unless `was` it there before.
    fn put_name(
        &mut self,
        kind: Kind,
        schema: u32,
        name: &str,
        oid: u32,
        taken: impl FnOnce() -> SqlError,
    ) -> Result<()> {
        let key = keyspace::name(kind, schema, name);
        if let Some(guard) = &self.guard
            && guard.claim(&key)?
            && guard.named(&key)?.is_some_and(|other| other != oid)
        {
            return Err(taken());
        }
        self.writes.insert(key, Some(oid.to_string().into_bytes()));
        Ok(())
    }
    /// Takes a new relation's name before all that comes with it (a table's sequences, an index's table): it is the name that who makes the same one
    /// waits for. Only tables and views have a row type (`has_type`).
    pub fn claim_name(&mut self, schema: u32, name: &str, has_type: bool) -> Result<()> {
        let key = keyspace::name(Kind::Relation, schema, name);
        if let Some(guard) = &self.guard
            && guard.claim(&key)?
            && guard.named(&key)?.is_some()
        {
            return Err(taken_relation(schema, name, has_type));
        }
        Ok(())
    }
    fn delete_name(&mut self, kind: Kind, schema: u32, name: &str) -> Result<()> {
        let key = keyspace::name(kind, schema, name);
        if let Some(guard) = &self.guard {
            guard.claim(&key)?;
        }
        self.writes.insert(key, None);
        Ok(())
    }

    /// Takes away the names and catalog entries of a relation and its indexes, not its definition. Whether it was there.
    fn forget(&mut self, oid: u32) -> Result<bool> {
        let Some(relation) = self.catalog.by_oid(oid).cloned() else { return Ok(false) };
        let mut gone = vec![relation.clone()];
        if let Relation::Table(table) = &relation {
            gone.extend(table.index_oids().into_iter().filter_map(|i| self.catalog.by_oid(i).cloned()));
        }
        for r in &gone {
            self.delete_name(Kind::Relation, r.schema(), r.name())?;
        }
        self.edit().remove(oid);
        Ok(true)
    }
    fn remember(&mut self, relation: Relation, was: bool) -> Result<()> {
        self.name_relation(&relation, was)?;
        if let Relation::Table(table) = &relation {
            for oid in table.index_oids() {
                self.name_relation(&Relation::Index(table.clone(), oid), was)?;
            }
        }
        let kind = match &relation {
            Relation::View(_) => Kind::View,
            Relation::Sequence(_) => Kind::Sequence,
            _ => Kind::Table,
        };
        self.edits.insert((kind, relation.oid()), Some(Edit::Relation(relation.clone())));
        match relation {
            Relation::Table(table) => self.edit().add_table(table),
            other => self.edit().add(other),
        }
        Ok(())
    }
    fn name_relation(&mut self, r: &Relation, was: bool) -> Result<()> {
        let has_type = !was && matches!(r, Relation::Table(_) | Relation::View(_));
        self.put_name(Kind::Relation, r.schema(), r.name(), r.oid(), || taken_relation(r.schema(), r.name(), has_type))
    }

    /// Adds or replaces a table.
    pub fn put_table(&mut self, table: Table) -> Result<Arc<Table>> {
        self.claim(Kind::Table, table.oid)?;
        let was = self.forget(table.oid)?;
        self.put(Kind::Table, table.oid, &table)?;
        let table = Arc::new(table);
        self.remember(Relation::Table(table.clone()), was)?;
        Ok(table)
    }
    /// Adds or replaces a view.
    pub fn put_view(&mut self, view: View) -> Result<()> {
        self.claim(Kind::View, view.oid)?;
        let was = self.forget(view.oid)?;
        self.put(Kind::View, view.oid, &view)?;
        self.remember(Relation::View(Arc::new(view)), was)
    }
    /// Adds or replaces a sequence's definition.
    pub fn put_sequence(&mut self, sequence: Sequence) -> Result<()> {
        self.claim(Kind::Sequence, sequence.oid)?;
        let was = self.forget(sequence.oid)?;
        self.put(Kind::Sequence, sequence.oid, &sequence)?;
        self.remember(Relation::Sequence(Arc::new(sequence)), was)
    }
    /// Adds or replaces a schema.
    pub fn put_schema(&mut self, schema: Schema) -> Result<()> {
        self.claim(Kind::Schema, schema.oid)?;
        if let Some(old) = self.catalog.schemas.get(&schema.oid).map(|s| s.name.clone()) {
            self.delete_name(Kind::Schema, 0, &old)?;
        }
        self.put(Kind::Schema, schema.oid, &schema)?;
        let (name, oid) = (schema.name.clone(), schema.oid);
        self.put_name(Kind::Schema, 0, &name, oid, || {
            taken("pg_namespace", "pg_namespace_nspname_index", "nspname", &name, None)
        })?;
        let schema = Arc::new(schema);
        self.edits.insert((Kind::Schema, oid), Some(Edit::Schema(schema.clone())));
        self.edit().schemas.insert(oid, schema);
        Ok(())
    }
    /// Adds or replaces a tag.
    pub fn put_tag(&mut self, tag: Tag) -> Result<()> {
        self.claim(Kind::Tag, tag.oid)?;
        self.put(Kind::Tag, tag.oid, &tag)?;
        let (name, oid) = (tag.name.clone(), tag.oid);
        self.put_name(Kind::Tag, 0, &name, oid, || {
            SqlError::new(state::DUPLICATE_OBJECT, format!("tag \"{name}\" already exists"))
        })?;
        let tag = Arc::new(tag);
        self.edits.insert((Kind::Tag, oid), Some(Edit::Tag(tag.clone())));
        self.edit().tags.insert(name, tag);
        Ok(())
    }
    /// Adds or replaces a foreign server.
    pub fn put_server(&mut self, server: Server) -> Result<()> {
        self.claim(Kind::Server, server.oid)?;
        if let Some(old) = self.catalog.servers.get(&server.oid).map(|s| s.name.clone()) {
            self.delete_name(Kind::Server, 0, &old)?;
        }
        self.put(Kind::Server, server.oid, &server)?;
        let (name, oid) = (server.name.clone(), server.oid);
        self.put_name(Kind::Server, 0, &name, oid, || {
            taken("pg_foreign_server", "pg_foreign_server_name_index", "srvname", &name, None)
        })?;
        let server = Arc::new(server);
        self.edits.insert((Kind::Server, oid), Some(Edit::Server(server.clone())));
        self.edit().servers.insert(oid, server);
        Ok(())
    }
    /// Removes a foreign server, of which there must be no tables.
    pub fn drop_server(&mut self, oid: u32) -> Result<()> {
        self.claim(Kind::Server, oid)?;
        let Some(server) = self.edit().servers.remove(&oid) else { return Ok(()) };
        self.delete(Kind::Server, oid);
        self.delete_name(Kind::Server, 0, &server.name)
    }
    /// Removes a relation's definition; its data stays where it is, out of reach.
    pub fn drop_relation(&mut self, oid: u32) -> Result<()> {
        let kind = match self.catalog.by_oid(oid) {
            Some(Relation::Table(_)) => Kind::Table,
            Some(Relation::View(_)) => Kind::View,
            Some(Relation::Sequence(_)) => Kind::Sequence,
            _ => return Ok(()),
        };
        self.claim(kind, oid)?;
        self.forget(oid)?;
        self.delete(kind, oid);
        if kind == Kind::Sequence {
            self.writes.insert(keyspace::sequence(oid).to_vec(), None);
        }
        Ok(())
    }
    /// Removes a schema, which must be empty.
    pub fn drop_schema(&mut self, oid: u32) -> Result<()> {
        self.claim(Kind::Schema, oid)?;
        let Some(schema) = self.edit().schemas.remove(&oid) else { return Ok(()) };
        self.delete(Kind::Schema, oid);
        self.delete_name(Kind::Schema, 0, &schema.name)
    }
    /// Removes a tag.
    pub fn drop_tag(&mut self, name: &str) -> Result<()> {
        let Some(oid) = self.catalog.tags.get(name).map(|tag| tag.oid) else { return Ok(()) };
        self.claim(Kind::Tag, oid)?;
        self.edit().tags.remove(name);
        self.delete(Kind::Tag, oid);
        self.delete_name(Kind::Tag, 0, name)
    }
}

fn taken_relation(schema: u32, name: &str, has_type: bool) -> SqlError {
    match has_type {
        // The first of a table's rows in PostgreSQL's catalogs is that of its row type.
        true => taken("pg_type", "pg_type_typname_nsp_index", "typname, typnamespace", name, Some(schema)),
        false => taken("pg_class", "pg_class_relname_nsp_index", "relname, relnamespace", name, Some(schema)),
    }
}

/// What PostgreSQL says when somebody else has committed an object of this name after the statement looked for it.
fn taken(catalog: &str, index: &str, columns: &str, name: &str, schema: Option<u32>) -> SqlError {
    let values = schema.map_or_else(|| name.to_owned(), |schema| format!("{name}, {schema}"));
    SqlError::new(state::UNIQUE_VIOLATION, format!("duplicate key value violates unique constraint \"{index}\""))
        .detail(format!("Key ({columns})=({values}) already exists."))
        .table("pg_catalog", catalog)
        .constraint(index)
}
