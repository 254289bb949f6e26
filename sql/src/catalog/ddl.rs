//! CREATE, ALTER, DROP and their kin: statements that change definitions, and the rows that must follow them.
//!
//! A statement works on a [`Change`] in the transaction's name; what it writes (definitions, rows of CREATE TABLE AS, entries of a new index)
//! are puts of the transaction like any other, so DDL commits and rolls back with it. What a statement reads and changes it has locked ([`lock`]) before
//! it looks at it: rows stay as they are while all of them are read for a new index or a new constraint.
//!
//! ```text
//! names     where things are created, and the names PostgreSQL would choose
//! table     CREATE TABLE, CREATE TABLE AS, TRUNCATE
//! column    columns and their sequences, for CREATE TABLE and ADD COLUMN alike
//! alter     ALTER TABLE
//! rename    RENAME TO, SET SCHEMA, and stored expressions that must follow
//! index     CREATE INDEX, unique and primary keys
//! lock      what is locked before
//! rewrite   all rows of a table under a new definition; REINDEX
//! sequence  CREATE and ALTER SEQUENCE
//! view      CREATE VIEW and what views depend on
//! foreign   foreign servers and tables
//! foreign_key  foreign keys as definitions
//! import    IMPORT FOREIGN SCHEMA
//! drop      DROP, with its dependencies; COMMENT; schemas and tags
//! ```

mod alter;
mod column;
mod drop;
mod foreign;
mod foreign_key;
mod import;
mod index;
pub(crate) mod lock;
mod names;
mod rename;
mod rewrite;
mod sequence;
mod table;
mod view;

use std::sync::Arc;

use pgbee_engine::txn::Database;

use super::change::Change;
use super::schema::{Relation, Table};
use super::{Catalog, INFORMATION_SCHEMA, PG_CATALOG};
use crate::bind::{self, AsOfResolver, BindEnv, ParamTypes};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::exec::ExecCx;
use crate::functions::SessionCx;
use crate::parse::ast::{ObjectKind, QName, StatementKind};
use crate::session::Notice;
use crate::write::TxnHandle;
use crate::write::sequence::Sequences;

pub use names::quote_identifier;
pub(crate) use names::regclass_literal;

/// insufficient_privilege: what PostgreSQL says of changes to its own schemas.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What a statement that changes definitions works with.
pub struct DdlCx<'a> {
    /// The definitions, as changed so far.
    pub change: &'a mut Change,
    /// Settings and time.
    pub session: &'a Arc<SessionCx>,
    /// Versions for AS OF.
    pub resolver: &'a dyn AsOfResolver,
    /// The transaction, for rows.
    pub txn: &'a TxnHandle,
    /// The database.
    pub database: &'a Arc<Database>,
    /// Its sequences.
    pub sequences: &'a Sequences,
    /// The text the statement's positions count in.
    pub source: &'a str,
    /// Messages for the client.
    pub notices: &'a mut Vec<Notice>,
    /// The session, which must know of what is not committed yet.
    pub host: &'a dyn DdlHost,
    /// How many rows were written (CREATE TABLE AS).
    pub rows: u64,
}

/// What DDL tells the session it runs in.
pub trait DdlHost {
    /// The transaction wrote this sequence's state itself: until it commits the sequence lives in its writes.
    fn own_sequence(&self, oid: u32);
    /// Whether it did.
    fn is_own_sequence(&self, oid: u32) -> bool;
    /// Definitions that functions called from now on shall see.
    fn publish(&self, catalog: &Arc<Catalog>);
}

/// Carries out a statement that changes definitions; None if it is none of these. The result is its tag.
pub fn run(statement: &StatementKind, cx: &mut DdlCx<'_>) -> Result<Option<String>> {
    let tag = match statement {
        StatementKind::CreateSchema { name, if_not_exists, elements, authorization } => {
            drop::create_schema(name.as_ref().or(authorization.as_ref()), *if_not_exists, *elements, cx)?
        }
        StatementKind::CreateTable(create) => table::create(create, cx)?,
        StatementKind::CreateTableAs(create) => return table::create_as(create, cx).map(Some),
        StatementKind::CreateIndex(create) => index::create(create, cx)?,
        StatementKind::CreateView(create) => view::create(create, cx)?,
        StatementKind::CreateSequence { name, if_not_exists, temporary, options } => {
            sequence::create(name, *if_not_exists, *temporary, options, cx)?
        }
        StatementKind::AlterSequence { name, if_exists, options } => sequence::alter(name, *if_exists, options, cx)?,
        StatementKind::AlterTable(alter) => alter::run(alter, cx)?,
        StatementKind::Foreign(statement) => foreign::run(statement, cx)?,
        StatementKind::Rename { kind, name, if_exists, to } => rename::rename(*kind, name, *if_exists, &to.text, cx)?,
        StatementKind::SetSchema { kind, name, if_exists, schema } => {
            rename::set_schema(*kind, name, *if_exists, &schema.text, cx)?
        }
        StatementKind::SetOwner { kind, name, if_exists, .. } => rename::set_owner(*kind, name, *if_exists, cx)?,
        StatementKind::Drop { kind, names, if_exists, cascade, .. } => {
            drop::run(*kind, names, *if_exists, *cascade, cx)?
        }
        StatementKind::Truncate { tables, restart_identity, cascade } => {
            table::truncate(tables, *restart_identity, *cascade, cx)?
        }
        StatementKind::Reindex { name, .. } => rewrite::reindex(name, cx)?,
        StatementKind::Comment { on, text } => drop::comment(on, text.as_deref(), cx)?,
        StatementKind::CreateTag { name, at, if_not_exists } => {
            drop::create_tag(name, at.as_ref(), *if_not_exists, cx)?
        }
        StatementKind::DropTag { name, if_exists } => drop::drop_tag(name, *if_exists, cx)?,
        _ => return Ok(None),
    };
    Ok(Some(tag.to_owned()))
}

/// Whether [`run`] is for this statement.
pub fn is_ddl(statement: &StatementKind) -> bool {
    matches!(
        statement,
        StatementKind::CreateSchema { .. }
            | StatementKind::CreateTable(_)
            | StatementKind::CreateTableAs(_)
            | StatementKind::CreateIndex(_)
            | StatementKind::CreateView(_)
            | StatementKind::CreateSequence { .. }
            | StatementKind::AlterSequence { .. }
            | StatementKind::AlterTable(_)
            | StatementKind::Foreign(_)
            | StatementKind::Rename { .. }
            | StatementKind::SetSchema { .. }
            | StatementKind::SetOwner { .. }
            | StatementKind::Drop { .. }
            | StatementKind::Truncate { .. }
            | StatementKind::Comment { .. }
            | StatementKind::CreateTag { .. }
            | StatementKind::DropTag { .. }
    )
}

impl DdlCx<'_> {
    /// Definitions as they are now.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        self.change.catalog()
    }
    /// Binds with the definitions as they are now.
    fn bind<T>(&self, f: impl FnOnce(&BindEnv<'_>) -> Result<T>) -> Result<T> {
        self.bind_in(self.catalog().clone(), f)
    }
    /// Binds with other definitions.
    fn bind_in<T>(&self, catalog: Arc<Catalog>, f: impl FnOnce(&BindEnv<'_>) -> Result<T>) -> Result<T> {
        let params = ParamTypes::none();
        let session = self.session_with(catalog.clone());
        f(&BindEnv {
            catalog,
            search_path: session.search_path.clone(),
            params: &params,
            resolver: self.resolver,
            session: &session,
        })
    }
    /// The session's surroundings, seeing other definitions.
    fn session_with(&self, catalog: Arc<Catalog>) -> Arc<SessionCx> {
        if Arc::ptr_eq(&self.session.catalog, &catalog) {
            return self.session.clone();
        }
        let s = self.session;
        Arc::new(SessionCx {
            time_zone: s.time_zone.clone(),
            date_order: s.date_order,
            bytea_hex: s.bytea_hex,
            transaction_micros: s.transaction_micros,
            statement_micros: s.statement_micros,
            user: s.user.clone(),
            database: s.database.clone(),
            search_path: s.search_path.clone(),
            backend_pid: s.backend_pid,
            catalog,
            services: s.services.clone(),
            cancel: s.cancel.clone(),
            work_mem_bytes: s.work_mem_bytes,
            memory: s.memory.clone(),
            random: parking_lot::Mutex::new(*s.random.lock()),
        })
    }
    /// Surroundings to run expressions and plans in; they see what the statement wrote until now.
    fn exec(&self) -> Result<ExecCx> {
        let view = self.txn.with(|t| Ok(t.view()))?;
        self.host.publish(self.catalog());
        let session = self.session_with(self.catalog().clone());
        Ok(ExecCx::new(session, self.database.clone(), view, Vec::new(), None))
    }
    /// Fails unless the table's rows, which are locked, are what the transaction sees: in REPEATABLE READ it may see older ones.
    fn sees_all_rows(&self, table: &Table) -> Result<()> {
        let base = self.txn.with(|t| Ok(t.base().clone()))?;
        let newest = self.database.snapshot();
        if newest.version() == base.version() || newest.diff(&base, keyspace::table_range(table.oid)).next()?.is_none()
        {
            return Ok(());
        }
        Err(SqlError::new(state::SERIALIZATION_FAILURE, "could not serialize access due to concurrent update"))
    }

    /// A relation by name.
    fn find(&self, name: &QName) -> Result<Option<Relation>> {
        self.bind(|env| bind::find_relation(name, env))
    }
    /// A table by name, for statements that may change it.
    fn table(&self, name: &QName, if_exists: bool) -> Result<Option<Arc<Table>>> {
        match self.find(name)? {
            Some(Relation::Table(table)) => Ok(Some(table)),
            Some(other) => {
                self.refuse_system(other.schema(), other.name())?;
                Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", other.name())))
            }
            None if if_exists => Ok(None),
            None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))),
        }
    }
    fn refuse_system(&self, schema: u32, name: &str) -> Result<()> {
        if schema == PG_CATALOG || schema == INFORMATION_SCHEMA {
            return Err(SqlError::new(
                INSUFFICIENT_PRIVILEGE,
                format!("permission denied: \"{name}\" is a system catalog"),
            ));
        }
        Ok(())
    }
    fn schema_name(&self, oid: u32) -> String {
        self.catalog().schemas.get(&oid).map(|s| s.name.clone()).unwrap_or_default()
    }
}

/// The word for a kind of relation in messages.
fn kind_word(relation: &Relation) -> &'static str {
    match relation {
        Relation::Table(table) if table.foreign.is_some() => "foreign table",
        Relation::Table(_) | Relation::Virtual(_) => "table",
        Relation::View(_) => "view",
        Relation::Sequence(_) => "sequence",
        Relation::Index(..) => "index",
    }
}

fn object_word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Table => "table",
        ObjectKind::View => "view",
        ObjectKind::Index => "index",
        ObjectKind::Sequence => "sequence",
        ObjectKind::ForeignTable => "foreign table",
        ObjectKind::Server => "server",
        ObjectKind::Schema => "schema",
        ObjectKind::Database => "database",
        ObjectKind::Other(word) => word,
    }
}

fn is_kind(relation: &Relation, kind: ObjectKind) -> bool {
    if let Relation::Table(table) = relation {
        return kind == if table.foreign.is_some() { ObjectKind::ForeignTable } else { ObjectKind::Table };
    }
    matches!(
        (relation, kind),
        (Relation::View(_), ObjectKind::View)
            | (Relation::Sequence(_), ObjectKind::Sequence)
            | (Relation::Index(..), ObjectKind::Index)
    )
}
