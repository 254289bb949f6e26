//! The syntax tree of statements about foreign servers and tables.

use super::ast::{CreateTable, Name};

/// An option as written.
#[derive(Clone, Debug)]
pub struct GenericOption {
    /// Name.
    pub name: Name,
    /// Value.
    pub value: String,
}

/// A change of options.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is its word
pub enum OptionChange {
    Add(GenericOption),
    Set(GenericOption),
    Drop(Name),
}

/// A statement about foreign servers and tables.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the fields are named after what they hold
pub enum ForeignStatement {
    CreateServer(CreateServer),
    /// VERSION (NULL: Some(None)), then OPTIONS.
    AlterServer {
        name: Name,
        version: Option<Option<String>>,
        changes: Vec<OptionChange>,
    },
    CreateTable {
        table: CreateTable,
        server: Name,
        options: Vec<GenericOption>,
    },
    Import(ImportSchema),
}

/// CREATE SERVER.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CreateServer {
    pub name: Name,
    pub if_not_exists: bool,
    pub kind: Option<String>,
    pub version: Option<String>,
    pub wrapper: Name,
    pub options: Vec<GenericOption>,
}

/// IMPORT FOREIGN SCHEMA.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ImportSchema {
    pub remote: Name,
    pub limit: ImportLimit,
    pub server: Name,
    pub into: Name,
    pub options: Vec<GenericOption>,
}

/// Which tables of a schema are imported.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum ImportLimit {
    All,
    To(Vec<Name>),
    Except(Vec<Name>),
}
