//! What a database is made of: schemas, tables, columns, indexes, sequences, views, tags.
//!
//! These are immutable values, shared by `Arc`; a change makes a new one in a new [`super::Catalog`]. They are stored in the bee as
//! JSON under `01 kind oid` (see `codec::keyspace`), so that any reader of the bee, JavaScript included, can see what a row's bytes mean.
//! Expressions (defaults, checks, view queries) are stored as SQL text and bound when used, against the catalog of the same version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::exec::ExecCx;
use crate::ir::Field;
use crate::types::{Datum, Row, Type, TypeMod};

/// A schema (namespace).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Schema {
    /// Oid: 11 pg_catalog, 2200 public, 13000 information_schema, 16384 and up for users'.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A table as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Oid.
    pub oid: u32,
    /// Oid of its schema.
    pub schema: u32,
    /// Name.
    pub name: String,
    /// All columns ever, by attribute number minus one, dropped ones included: the slots of a stored row. Use [`Table::columns`] for live ones.
    pub slots: Vec<Column>,
    /// The primary key, if any; its columns make the row key. A table without one has a hidden row id (int8) as key.
    pub primary_key: Option<Key>,
    /// Secondary indexes, unique ones (also of UNIQUE constraints) included, the primary key not, unless it is deferrable: its rows may then share
    /// a key for a while, so they are known by row ids and the key is an index like others.
    pub indexes: Vec<Index>,
    /// CHECK constraints.
    pub checks: Vec<CheckDef>,
    /// Foreign keys: what its rows refer to. Who refers to it is found by [`super::Catalog::references_to`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    /// A foreign table: where its rows are. Nothing is stored of it but this definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Box<Foreign>>,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Options as written: names and values, in order.
pub type FdwOptions = Vec<(String, String)>;

/// A foreign server: a bee somewhere, or what its tables have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// TYPE: kept, of no meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// VERSION: kept, of no meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// OPTIONS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: FdwOptions,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Where a foreign table's rows are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Foreign {
    /// Oid of its server.
    pub server: u32,
    /// OPTIONS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: FdwOptions,
    /// A table of a bee that pgbee wrote. Its columns have the attribute numbers they have there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// How a table of another database is read, as it was when it was imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remote {
    /// Its oid there.
    pub oid: u32,
    /// Its primary key.
    pub primary_key: Option<Key>,
    /// Its indexes.
    pub indexes: Vec<Index>,
}

/// A column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    /// Attribute number from 1; never reused.
    pub attnum: i16,
    /// Name.
    pub name: String,
    /// Type oid.
    pub ty: u32,
    /// Type modifier or -1.
    pub typmod: i32,
    /// NOT NULL.
    pub not_null: bool,
    /// DEFAULT as SQL text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// GENERATED ... AS IDENTITY: 'a' always, 'd' by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<char>,
    /// Oid of the sequence owned by this column (serial, identity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u32>,
    /// Value of rows stored before the column was added, in the type's text form; None: NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Dropped: its slot stays, its values are no longer written.
    #[serde(default)]
    pub dropped: bool,
    /// OPTIONS of a foreign table's column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: FdwOptions,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// The primary key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    /// Oid of the index it shows as.
    pub oid: u32,
    /// Name of constraint and index.
    pub name: String,
    /// Attribute numbers, in key order.
    pub columns: Vec<i16>,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A secondary index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    /// Oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Keys in order.
    pub columns: Vec<IndexColumn>,
    /// No two rows with equal, non-null keys.
    pub unique: bool,
    /// Made by a UNIQUE constraint, or a deferrable PRIMARY KEY.
    pub constraint: bool,
    /// Plans may use it: it has an entry for every row. One that is being built is not.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub valid: bool,
    /// Writers keep it up, and what it says must be unique is. One that a build left that failed is not.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub ready: bool,
    /// Of a deferrable primary key.
    #[serde(default, skip_serializing_if = "is_false")]
    pub primary: bool,
    /// Of a deferrable constraint: rows with equal keys may be there until it is checked, so the index is stored as one that is not
    /// [`Index::unique`], and whoever trusts that word (plans, ON CONFLICT, foreign keys) does not trust this index.
    #[serde(default, skip_serializing_if = "Deferral::is_never")]
    pub deferral: Deferral,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Index {
    /// One that is not unique and belongs to no constraint.
    pub fn new(oid: u32, name: String, columns: Vec<IndexColumn>) -> Index {
        Index {
            oid,
            name,
            columns,
            unique: false,
            constraint: false,
            valid: true,
            ready: true,
            primary: false,
            deferral: Deferral::Never,
            comment: None,
        }
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it by reference
fn is_yes(yes: &bool) -> bool {
    *yes
}

/// One column of an index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexColumn {
    /// Attribute number.
    pub attnum: i16,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// A CHECK constraint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckDef {
    /// Oid of the constraint.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// The expression as SQL text.
    pub expr: String,
    /// NOT VALID: rows that were there when it was added were not looked at.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_valid: bool,
}

/// When a constraint is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deferral {
    /// NOT DEFERRABLE.
    #[default]
    Never,
    /// DEFERRABLE INITIALLY IMMEDIATE: at the end of the statement, unless SET CONSTRAINTS says otherwise.
    Immediate,
    /// DEFERRABLE INITIALLY DEFERRED: at the end of the transaction, unless SET CONSTRAINTS says otherwise.
    Deferred,
}

impl Deferral {
    /// NOT DEFERRABLE.
    pub fn is_never(&self) -> bool {
        *self == Deferral::Never
    }
    /// What [NOT] DEFERRABLE and INITIALLY say together.
    pub fn new(deferrable: bool, deferred: bool) -> Deferral {
        match (deferrable, deferred) {
            (false, _) => Deferral::Never,
            (true, false) => Deferral::Immediate,
            (true, true) => Deferral::Deferred,
        }
    }
}

/// What becomes of rows when the row they refer to goes, or changes its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// NO ACTION: an error if it is still so when the constraint is checked.
    #[default]
    #[serde(rename = "a")]
    NoAction,
    /// RESTRICT: an error, which cannot be deferred.
    #[serde(rename = "r")]
    Restrict,
    /// CASCADE.
    #[serde(rename = "c")]
    Cascade,
    /// SET NULL.
    #[serde(rename = "n")]
    SetNull,
    /// SET DEFAULT.
    #[serde(rename = "d")]
    SetDefault,
}

impl Action {
    /// As `pg_constraint` has it.
    pub fn code(self) -> char {
        match self {
            Action::NoAction => 'a',
            Action::Restrict => 'r',
            Action::Cascade => 'c',
            Action::SetNull => 'n',
            Action::SetDefault => 'd',
        }
    }
    /// As SQL has it.
    pub fn words(self) -> &'static str {
        match self {
            Action::NoAction => "NO ACTION",
            Action::Restrict => "RESTRICT",
            Action::Cascade => "CASCADE",
            Action::SetNull => "SET NULL",
            Action::SetDefault => "SET DEFAULT",
        }
    }
}

/// A foreign key, kept with the table whose rows refer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Oid of the constraint.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Attribute numbers of the referring columns.
    pub columns: Vec<i16>,
    /// Oid of the table referred to.
    pub table: u32,
    /// Attribute numbers of its columns, each for the column of the same place in `columns`.
    pub referenced: Vec<i16>,
    /// Oid of the unique index, or primary key, those columns are of.
    pub index: u32,
    /// MATCH FULL.
    #[serde(default, skip_serializing_if = "is_false")]
    pub match_full: bool,
    /// ON UPDATE.
    #[serde(default)]
    pub on_update: Action,
    /// ON DELETE.
    #[serde(default)]
    pub on_delete: Action,
    /// ON DELETE SET .. (columns); empty: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_columns: Vec<i16>,
    /// When it is checked.
    #[serde(default, skip_serializing_if = "Deferral::is_never")]
    pub deferral: Deferral,
    /// NOT VALID: rows that were there when it was added were not looked at.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_valid: bool,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct View {
    /// Oid.
    pub oid: u32,
    /// Oid of its schema.
    pub schema: u32,
    /// Name.
    pub name: String,
    /// Column names and types as at creation.
    pub columns: Vec<Column>,
    /// The query as SQL text, its meaning written out (`bind/trace.rs`): it needs `search_path` only for tables read at another version.
    pub query: String,
    /// Schema oids its names are looked up in.
    pub search_path: Vec<u32>,
    /// Oids of the relations it reads: they cannot be dropped without CASCADE.
    pub depends_on: Vec<u32>,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A sequence. Its value is kept apart (`05 oid`), for it is not versioned by DDL.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sequence {
    /// Oid.
    pub oid: u32,
    /// Oid of its schema.
    pub schema: u32,
    /// Name.
    pub name: String,
    /// int2, int4 or int8.
    pub ty: u32,
    /// First value.
    pub start: i64,
    /// Step, not 0.
    pub increment: i64,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// Starts again at the other end.
    pub cycle: bool,
    /// CACHE.
    pub cache: i64,
    /// (table oid, attnum) of the column that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, i16)>,
    /// COMMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A named version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tag {
    /// Oid.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// The version it names.
    pub version: u64,
}

/// A relation made on the fly: one of pg_catalog, information_schema, or a bee_* view or function.
pub trait VirtualTable: Send + Sync {
    /// Oid, stable for ever (PostgreSQL's own where it has one).
    fn oid(&self) -> u32;
    /// Name.
    fn name(&self) -> &str;
    /// Oid of its schema.
    fn schema(&self) -> u32;
    /// Columns.
    fn columns(&self) -> Arc<[Field]>;
    /// For a table function whose columns depend on its arguments (bee_history('t')): the one for these, asked for when binding with constant
    /// arguments. None: this one will do.
    fn for_arguments(
        &self,
        _args: &[Datum],
        _catalog: &super::Catalog,
        _search_path: &[u32],
    ) -> Result<Option<Arc<dyn VirtualTable>>> {
        Ok(None)
    }
    /// Its rows. `args` are those of a table function (bee_history('t')). `equals` are conditions `column = value` known to hold for all rows the
    /// query wants: a hint that may be used to look up instead of scanning; they are checked again above.
    fn rows<'a>(
        &'a self,
        args: &[Datum],
        equals: &[(usize, Datum)],
        cx: &'a ExecCx,
    ) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send + 'a>>;
}

/// Anything a name in FROM or a regclass can mean.
#[derive(Clone)]
pub enum Relation {
    /// A stored table.
    Table(Arc<Table>),
    /// A view.
    View(Arc<View>),
    /// A sequence.
    Sequence(Arc<Sequence>),
    /// An index (or primary key) of this table, by its oid.
    Index(Arc<Table>, u32),
    /// A relation made on the fly.
    Virtual(Arc<dyn VirtualTable>),
}

impl Index {
    /// Whether no two rows may have equal keys when its constraint is checked, which may be late.
    pub fn is_key(&self) -> bool {
        self.unique || !self.deferral.is_never()
    }
}

impl Table {
    /// Live columns in order: what `SELECT *` shows and what plans count by.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.slots.iter().filter(|c| !c.dropped)
    }
    /// How many live columns.
    pub fn width(&self) -> usize {
        self.columns().count()
    }
    /// Position among the live columns of an attribute number.
    pub fn position(&self, attnum: i16) -> Option<usize> {
        self.columns().position(|c| c.attnum == attnum)
    }
    /// Position and definition of a live column by name.
    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns().enumerate().find(|(_, c)| c.name == name)
    }
    /// The live columns as the fields of a scan.
    pub fn fields(&self) -> Arc<[Field]> {
        self.columns()
            .map(|c| Field {
                name: Arc::from(c.name.as_str()),
                ty: c.type_mod(),
                table_oid: self.oid,
                attnum: c.attnum,
            })
            .collect()
    }
}

impl Column {
    /// One that may be null and has nothing else to it.
    pub fn new(attnum: i16, name: impl Into<String>, of: TypeMod) -> Column {
        Column {
            attnum,
            name: name.into(),
            ty: of.ty.0,
            typmod: of.typmod,
            not_null: false,
            default: None,
            identity: None,
            sequence: None,
            missing: None,
            dropped: false,
            options: Vec::new(),
            comment: None,
        }
    }
    /// Its type with modifier.
    pub fn type_mod(&self) -> TypeMod {
        TypeMod { ty: Type(self.ty), typmod: self.typmod }
    }
}
