//! The syntax tree of statements that are no queries: definitions, transactions, settings, COPY.
//!
//! Expressions that are stored as text (DEFAULT, CHECK, a view's query) carry the text they were written as.

use super::ast::*;
use crate::catalog::schema::{Action, Deferral};

/// What a statement is.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is the command of its name
pub enum StatementKind {
    Query(Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Explain(Box<Explain>),
    CreateTable(Box<CreateTable>),
    CreateTableAs(Box<CreateTableAs>),
    CreateIndex(Box<CreateIndex>),
    CreateView(Box<CreateView>),
    CreateSchema {
        name: Option<Name>,
        if_not_exists: bool,
        authorization: Option<Name>,
        elements: bool,
    },
    CreateSequence {
        name: QName,
        if_not_exists: bool,
        temporary: bool,
        options: Vec<SequenceOption>,
    },
    AlterSequence {
        name: QName,
        if_exists: bool,
        options: Vec<SequenceOption>,
    },
    /// ALTER ROLE name PASSWORD 'text' | NULL.
    SetPassword {
        role: Name,
        password: Option<String>,
    },
    CreateDatabase {
        name: Name,
        options: Vec<(String, DefValue)>,
    },
    /// ALTER DATABASE .. SET setting = value | RESET setting; None: RESET ALL.
    AlterDatabase {
        database: Name,
        setting: Option<String>,
        value: SetValue,
    },
    DropDatabase {
        name: Name,
        if_exists: bool,
        force: bool,
    },
    /// CREATE TAG name [AS OF ..].
    CreateTag {
        name: Name,
        at: Option<AsOf>,
        if_not_exists: bool,
    },
    DropTag {
        name: Name,
        if_exists: bool,
    },
    AlterTable(Box<AlterTable>),
    /// CREATE and ALTER SERVER, CREATE FOREIGN TABLE, IMPORT FOREIGN SCHEMA.
    Foreign(Box<ForeignStatement>),
    /// ALTER {TABLE|INDEX|VIEW|SEQUENCE|SCHEMA|DATABASE} name RENAME TO new.
    Rename {
        kind: ObjectKind,
        name: QName,
        if_exists: bool,
        to: Name,
    },
    /// ALTER {TABLE|VIEW|SEQUENCE} name SET SCHEMA new.
    SetSchema {
        kind: ObjectKind,
        name: QName,
        if_exists: bool,
        schema: Name,
    },
    /// ALTER .. OWNER TO role.
    SetOwner {
        kind: ObjectKind,
        name: QName,
        if_exists: bool,
        owner: Name,
    },
    Drop {
        kind: ObjectKind,
        names: Vec<QName>,
        if_exists: bool,
        cascade: bool,
        concurrently: bool,
    },
    Truncate {
        tables: Vec<QName>,
        restart_identity: bool,
        cascade: bool,
    },
    Comment {
        on: CommentTarget,
        text: Option<String>,
    },
    Begin {
        modes: TransactionModes,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(Name),
    ReleaseSavepoint(Name),
    RollbackTo(Name),
    PrepareTransaction(String),
    /// SET TRANSACTION ..
    SetTransaction {
        modes: TransactionModes,
    },
    /// SET TRANSACTION SNAPSHOT 'id'.
    SetTransactionSnapshot(String),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION ..
    SetSessionCharacteristics {
        modes: TransactionModes,
    },
    /// SET CONSTRAINTS {ALL | names} {DEFERRED | IMMEDIATE}.
    SetConstraints {
        names: Vec<QName>,
        deferred: bool,
    },
    /// SET [LOCAL] name = values; `SET TIME ZONE x` is name `timezone`, `SET NAMES x` is `client_encoding`, SET SCHEMA is `search_path`.
    Set {
        name: String,
        local: bool,
        value: SetValue,
    },
    Show {
        name: String,
    },
    ShowAll,
    Reset {
        name: String,
    },
    ResetAll,
    Discard(DiscardKind),
    Prepare {
        name: Name,
        types: Vec<TypeName>,
        statement: Box<Statement>,
    },
    Execute {
        name: Name,
        args: Vec<Expr>,
    },
    /// None: ALL.
    Deallocate(Option<Name>),
    /// FETCH, or MOVE.
    Fetch(Name),
    /// None: ALL.
    Close(Option<Name>),
    Listen(Name),
    Unlisten(Option<Name>),
    Notify {
        channel: Name,
        payload: Option<String>,
    },
    /// VACUUM, with the tables named.
    Vacuum {
        tables: Vec<VacuumTable>,
    },
    Analyze {
        tables: Vec<VacuumTable>,
    },
    Checkpoint,
    Cluster(Option<QName>),
    /// REINDEX; SYSTEM is the database too.
    Reindex {
        kind: ObjectKind,
        name: QName,
        concurrently: bool,
    },
    Lock {
        tables: Vec<QName>,
        mode: String,
        nowait: bool,
    },
    /// DO: language and body.
    Do {
        language: Option<String>,
        body: String,
    },
    /// CALL: a function's call.
    Call(Box<Expr>),
    Copy(Box<Copy>),
    /// Known to PostgreSQL, not honoured here; the command's tag (`CREATE TYPE`).
    Unsupported(String),
}

/// One statement of a string.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it is.
    pub kind: StatementKind,
    /// The whole string it came from; positions in the tree count its bytes.
    pub source: std::sync::Arc<str>,
    /// Where it begins in `source`, in bytes.
    pub start: Pos,
    /// Where it ends, without the semicolon.
    pub end: Pos,
    /// Number of the highest `$n` in it; 0 for none.
    pub max_param: u32,
}

impl Statement {
    /// Its text.
    pub fn text(&self) -> &str {
        &self.source[self.start as usize..self.end as usize]
    }
    /// Characters of the source before it.
    pub fn char_offset(&self) -> usize {
        self.source[..self.start as usize].chars().count()
    }
}

/// Kinds of objects that DROP, ALTER .. RENAME and COMMENT name alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ObjectKind {
    Table,
    View,
    Index,
    Sequence,
    ForeignTable,
    Server,
    Schema,
    Database,
    /// A kind we have none of (type, function, role ...): nothing of it can exist.
    Other(&'static str),
}

/// An expression and the text it was written as, for what is stored.
#[derive(Clone, Debug)]
pub struct TextExpr {
    /// Parsed.
    pub expr: Expr,
    /// As written.
    pub text: String,
}

/// CREATE TABLE.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Name.
    pub name: QName,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// TEMP.
    pub temporary: bool,
    /// UNLOGGED.
    pub unlogged: bool,
    /// Columns, LIKE clauses and table constraints in the order written.
    pub elements: Vec<TableElement>,
    /// INHERITS, PARTITION BY, OF type, USING, WITH (..), TABLESPACE, ON COMMIT: the first such clause written, as named in PostgreSQL.
    pub unsupported: Option<String>,
}

/// A part of a table's definition.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum TableElement {
    Column(Box<ColumnDef>),
    Constraint(Box<Constraint>),
    /// LIKE table with the INCLUDING options left on: lower-case names (`defaults`, `constraints`, `indexes`, `identity`, `comments` ...).
    Like {
        table: QName,
        including: Vec<String>,
    },
}

/// A column's definition.
#[derive(Clone, Debug)]
pub struct ColumnDef {
    /// Name.
    pub name: Name,
    /// Type; for serial types the integer type, with `serial` set.
    pub ty: TypeName,
    /// smallserial, serial, bigserial.
    pub serial: bool,
    /// COLLATE.
    pub collation: Option<QName>,
    /// OPTIONS, which only a foreign table's columns can have.
    pub options: Vec<GenericOption>,
    /// Constraints in the order written.
    pub constraints: Vec<ColumnConstraint>,
}

/// A column constraint with its optional name.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ColumnConstraint {
    pub name: Option<Name>,
    pub kind: ColumnConstraintKind,
    pub deferral: Deferral,
    pub pos: Pos,
}

/// The kinds of column constraint.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum ColumnConstraintKind {
    NotNull,
    Null,
    Default(TextExpr),
    Check(TextExpr),
    PrimaryKey,
    Unique {
        nulls_not_distinct: bool,
    },
    References(References),
    Identity {
        always: bool,
        options: Vec<SequenceOption>,
    },
    /// GENERATED ALWAYS AS (..) STORED.
    Generated(TextExpr),
}

/// REFERENCES.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct References {
    pub table: QName,
    pub columns: Vec<Name>,
    pub match_full: bool,
    pub on_delete: Option<Action>,
    pub on_update: Option<Action>,
    /// ON DELETE SET .. (columns).
    pub set_columns: Vec<Name>,
    pub pos: Pos,
}

/// DEFERRABLE and INITIALLY behind a constraint, each as far as it was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deferrable {
    /// DEFERRABLE, or NOT.
    pub deferrable: Option<bool>,
    /// INITIALLY DEFERRED, or IMMEDIATE.
    pub deferred: Option<bool>,
}

impl Deferrable {
    /// What it comes to.
    pub fn deferral(self) -> Deferral {
        let deferred = self.deferred == Some(true);
        Deferral::new(self.deferrable.unwrap_or(deferred), deferred)
    }
}

/// A table constraint.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Constraint {
    pub name: Option<Name>,
    pub kind: ConstraintKind,
    pub deferral: Deferral,
    pub not_valid: bool,
    pub pos: Pos,
}

/// The kinds of table constraint.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum ConstraintKind {
    Check(TextExpr),
    PrimaryKey {
        columns: Vec<Name>,
        include: Vec<Name>,
    },
    Unique {
        columns: Vec<Name>,
        include: Vec<Name>,
        nulls_not_distinct: bool,
    },
    ForeignKey {
        columns: Vec<Name>,
        references: References,
    },
    /// ADD CONSTRAINT .. {PRIMARY KEY | UNIQUE} USING INDEX.
    UsingIndex {
        index: Name,
        primary: bool,
    },
    Exclude,
}

/// CREATE TABLE AS, SELECT INTO, CREATE MATERIALIZED VIEW.
#[derive(Clone, Debug)]
pub struct CreateTableAs {
    /// Name.
    pub name: QName,
    /// Column names.
    pub columns: Vec<Name>,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// TEMP.
    pub temporary: bool,
    /// CREATE MATERIALIZED VIEW.
    pub materialized_view: bool,
    /// A clause we do not honour, as for CREATE TABLE.
    pub unsupported: Option<String>,
    /// The query (or EXECUTE).
    pub statement: StatementKind,
    /// WITH NO DATA is false.
    pub with_data: bool,
}

/// CREATE INDEX.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CreateIndex {
    pub name: Option<Name>,
    pub table: QName,
    pub unique: bool,
    pub concurrently: bool,
    pub if_not_exists: bool,
    pub method: Option<String>,
    pub columns: Vec<IndexElement>,
    pub include: Vec<Name>,
    pub nulls_not_distinct: bool,
    pub filter: Option<TextExpr>,
    /// WITH (..) or TABLESPACE.
    pub unsupported: Option<String>,
}

/// A column of an index.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct IndexElement {
    /// A plain [`ExprKind::Column`] or an expression.
    pub expr: TextExpr,
    pub collation: Option<QName>,
    pub opclass: Option<QName>,
    pub desc: bool,
    pub nulls_first: Option<bool>,
}

/// CREATE VIEW.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CreateView {
    pub name: QName,
    pub or_replace: bool,
    pub temporary: bool,
    pub recursive: bool,
    pub columns: Vec<Name>,
    pub query: Box<Query>,
    /// The query as written.
    pub text: String,
    /// WITH [LOCAL|CASCADED] CHECK OPTION.
    pub check_option: bool,
    /// WITH (..) options.
    pub options: Vec<(String, DefValue)>,
}

/// An option of CREATE/ALTER SEQUENCE and of identity columns.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum SequenceOption {
    As(String),
    Increment(i64),
    /// None: NO MINVALUE.
    MinValue(Option<i64>),
    MaxValue(Option<i64>),
    Start(i64),
    /// RESTART [WITH n].
    Restart(Option<i64>),
    Cache(i64),
    Cycle(bool),
    /// OWNED BY table.column; None: NONE.
    OwnedBy(Option<QName>),
    /// SEQUENCE NAME of an identity column.
    SequenceName(QName),
}

/// ALTER TABLE with its actions.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AlterTable {
    pub name: QName,
    /// What was written: TABLE, VIEW, INDEX, SEQUENCE.
    pub kind: ObjectKind,
    pub if_exists: bool,
    pub actions: Vec<AlterAction>,
}

/// An action of ALTER TABLE.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum AlterAction {
    AddColumn {
        column: Box<ColumnDef>,
        if_not_exists: bool,
    },
    DropColumn {
        name: Name,
        if_exists: bool,
        cascade: bool,
    },
    RenameColumn {
        from: Name,
        to: Name,
    },
    RenameConstraint {
        from: Name,
        to: Name,
    },
    SetDefault {
        column: Name,
        value: TextExpr,
    },
    DropDefault {
        column: Name,
    },
    SetNotNull {
        column: Name,
    },
    DropNotNull {
        column: Name,
    },
    SetType {
        column: Name,
        ty: TypeName,
        collation: Option<QName>,
        using: Option<Expr>,
    },
    AddIdentity {
        column: Name,
        always: bool,
        options: Vec<SequenceOption>,
    },
    DropIdentity {
        column: Name,
        if_exists: bool,
    },
    SetIdentity {
        column: Name,
        always: Option<bool>,
        options: Vec<SequenceOption>,
    },
    AddConstraint(Box<Constraint>),
    DropConstraint {
        name: Name,
        if_exists: bool,
        cascade: bool,
    },
    ValidateConstraint(Name),
    AlterConstraint {
        name: Name,
        deferral: Deferral,
    },
    /// OPTIONS of a foreign table.
    Options(Vec<OptionChange>),
    /// OPTIONS of a column of it.
    ColumnOptions {
        column: Name,
        changes: Vec<OptionChange>,
    },
    /// Known to PostgreSQL, not honoured: its words.
    Unsupported(String),
}

/// What COMMENT is on.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum CommentTarget {
    Object(ObjectKind, QName),
    /// table.column.
    Column(QName),
    Constraint {
        name: Name,
        table: QName,
    },
}

/// BEGIN's and SET TRANSACTION's modes; None: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// Isolation level.
    pub isolation: Option<IsolationLevel>,
    /// READ ONLY (true) or READ WRITE.
    pub read_only: Option<bool>,
    /// [NOT] DEFERRABLE.
    pub deferrable: Option<bool>,
}

/// Isolation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// The right side of SET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// TO DEFAULT.
    Default,
    /// FROM CURRENT: no change.
    Current,
    /// The values as text, in order: identifiers folded, numbers as written.
    Values(Vec<String>),
    /// SET TIME ZONE INTERVAL '..': the interval's text.
    Interval(String),
}

/// DISCARD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DiscardKind {
    All,
    Plans,
    Sequences,
    Temp,
}

/// A table of VACUUM or ANALYZE, and the columns named of it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct VacuumTable {
    pub name: QName,
    pub columns: Vec<Name>,
}

/// EXPLAIN.
#[derive(Clone, Debug)]
pub struct Explain {
    /// ANALYZE.
    pub analyze: bool,
    /// VERBOSE.
    pub verbose: bool,
    /// Options in parentheses, lower case, in order (analyze and verbose included).
    pub options: Vec<(String, DefValue)>,
    /// What to explain.
    pub statement: Box<Statement>,
}

/// The value of a generic option.
#[derive(Clone, Debug, PartialEq)]
pub enum DefValue {
    /// None written.
    Missing,
    /// A word, folded (true, off, csv ...).
    Word(String),
    /// A string.
    String(String),
    /// A number as written.
    Number(String),
    /// A parenthesised list of words or strings.
    List(Vec<String>),
    /// `*`.
    Star,
}

impl DefValue {
    /// Its text, if it is one value.
    pub fn text(&self) -> Option<&str> {
        match self {
            DefValue::Word(s) | DefValue::String(s) | DefValue::Number(s) => Some(s),
            _ => None,
        }
    }
    /// As a boolean option: missing, true, on, 1 are true; None if it is no boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            DefValue::Missing => Some(true),
            other => match other.text()?.to_ascii_lowercase().as_str() {
                "true" | "on" | "1" => Some(true),
                "false" | "off" | "0" => Some(false),
                _ => None,
            },
        }
    }
}

/// COPY, old and new syntax alike.
#[derive(Clone, Debug)]
pub struct Copy {
    /// A table or a query.
    pub source: CopySource,
    /// FROM (true) or TO.
    pub from: bool,
    /// Where the data is.
    pub endpoint: CopyEndpoint,
    /// Options by their new-style names, lower case: format, freeze, delimiter, null, header, quote, escape, force_quote, force_not_null, force_null, encoding.
    pub options: Vec<(String, DefValue)>,
    /// COPY FROM .. WHERE.
    pub filter: Option<Expr>,
}

/// What is copied.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum CopySource {
    Table { name: QName, columns: Vec<Name> },
    Query(Box<Statement>),
}

/// The other end of COPY.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum CopyEndpoint {
    /// STDIN or STDOUT.
    Client,
    File(String),
    Program(String),
}
