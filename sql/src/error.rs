//! One error type for everything a statement can do wrong, ready for the wire.
//!
//! An error is made where it is known best (the binder knows the position, a constraint knows its name) and travels
//! unchanged to the client. Every error has a SQLSTATE; the constants in [`state`] are the ones we raise, named as
//! PostgreSQL's `errcodes.txt` names them. Engine errors get theirs here and nowhere else.

use std::fmt;

/// The result of everything in this crate.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// A PostgreSQL error report: what ErrorResponse carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError(pub Box<Report>);

/// The fields of an error report. Position counts characters of the statement from 1.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// Five characters, see [`state`].
    pub state: &'static str,
    /// One line, lower case, no full stop, as PostgreSQL words it.
    pub message: String,
    /// More about what happened.
    pub detail: Option<String>,
    /// What the user might do.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
    /// What was going on, innermost first: CONTEXT.
    pub context: Option<String>,
    /// Schema of the object an integrity error is about.
    pub schema: Option<String>,
    /// Table of the object an integrity error is about.
    pub table: Option<String>,
    /// Column of the object an integrity error is about.
    pub column: Option<String>,
    /// Constraint that was violated.
    pub constraint: Option<String>,
    /// PostgreSQL's function that reports it, where drivers tell by it what to do.
    pub routine: Option<&'static str>,
}

impl SqlError {
    /// An error with a SQLSTATE and PostgreSQL's wording of the message.
    pub fn new(state: &'static str, message: impl Into<String>) -> Self {
        SqlError(Box::new(Report { state, message: message.into(), ..Report::default() }))
    }
    /// 0A000: parsed, but not honoured here.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        SqlError::new(state::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }
    /// XX000: a state our own code should never reach. Prefer it to a panic where a connection can survive it.
    pub fn internal(what: impl Into<String>) -> Self {
        SqlError::new(state::INTERNAL_ERROR, what)
    }
    /// The SQLSTATE.
    pub fn state(&self) -> &'static str {
        self.0.state
    }
    /// The one-line message.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// Adds a DETAIL line.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }
    /// Adds a HINT line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
    /// Sets the position unless one is known already: the innermost knows best.
    #[must_use]
    pub fn at(mut self, position: Option<u32>) -> Self {
        self.0.position = self.0.position.or(position);
        self
    }
    /// Says what was going on (CONTEXT), unless that was said already.
    #[must_use]
    pub fn context(mut self, context: impl FnOnce() -> String) -> Self {
        self.0.context = self.0.context.or_else(|| Some(context()));
        self
    }
    /// Says in what that was going on: a further line of CONTEXT.
    #[must_use]
    pub fn within(mut self, context: impl FnOnce() -> String) -> Self {
        self.0.context = Some(match self.0.context.take() {
            Some(inner) => format!("{inner}\n{}", context()),
            None => context(),
        });
        self
    }
    /// Names the table (and its schema) an integrity error is about.
    #[must_use]
    pub fn table(mut self, schema: impl Into<String>, table: impl Into<String>) -> Self {
        self.0.schema = Some(schema.into());
        self.0.table = Some(table.into());
        self
    }
    /// Names the column an error is about.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>) -> Self {
        self.0.column = Some(column.into());
        self
    }
    /// Names the constraint that was violated.
    #[must_use]
    pub fn constraint(mut self, constraint: impl Into<String>) -> Self {
        self.0.constraint = Some(constraint.into());
        self
    }
    /// Names PostgreSQL's function that reports it.
    #[must_use]
    pub fn routine(mut self, routine: &'static str) -> Self {
        self.0.routine = Some(routine);
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.state)
    }
}
impl std::error::Error for SqlError {}

impl From<pgbee_engine::Error> for SqlError {
    fn from(error: pgbee_engine::Error) -> Self {
        use pgbee_engine::{Error, StorageErrorKind};
        match error {
            Error::Conflict { base } => {
                SqlError::new(state::SERIALIZATION_FAILURE, "could not serialize access due to concurrent update")
                    .detail(format!("Something this transaction read or wrote changed after version {base}."))
                    .hint("The transaction might succeed if retried.")
            }
            Error::ReadConflict { .. } => SqlError::new(
                state::SERIALIZATION_FAILURE,
                "could not serialize access due to read/write dependencies among transactions",
            )
            .detail("Reason code: Canceled on identification as a pivot, during commit attempt.")
            .hint("The transaction might succeed if retried."),
            Error::NotAVersion { asked, oldest, newest } => {
                SqlError::new(state::INVALID_PARAMETER_VALUE, format!("{asked} is not a version of this database"))
                    .detail(format!("Versions are the ends of commits, from {oldest} to {newest}."))
                    .hint("bee_commits lists them.")
            }
            Error::MissingBlock(block) => SqlError::new(state::IO_ERROR, format!("block {block} is not stored here")),
            Error::Rewritten(_) => {
                SqlError::new(state::SERIALIZATION_FAILURE, "canceling statement due to conflict with recovery")
                    .detail("The writer took back the version that the statement read.")
            }
            Error::GaveUp(block) => SqlError::new(state::IO_ERROR, format!("no peer gave block {block}")),
            Error::Storage(e) => {
                let state = if e.kind == StorageErrorKind::NoSpace { state::DISK_FULL } else { state::IO_ERROR };
                SqlError::new(state, format!("could not use the store: {e}"))
            }
            e @ (Error::Corrupt { .. } | Error::InvalidSignature | Error::Frozen(_)) => {
                SqlError::new(state::DATA_CORRUPTED, e.to_string())
            }
            Error::NotWritable => {
                SqlError::new(state::READ_ONLY_SQL_TRANSACTION, "cannot change a database that is written elsewhere")
            }
            e @ Error::Locked(_) => SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, e.to_string()),
            e => SqlError::internal(e.to_string()),
        }
    }
}

/// SQLSTATEs, under the names of PostgreSQL's `errcodes.txt`.
#[allow(missing_docs)] // each name is its own documentation, in PostgreSQL's appendix A
pub mod state {
    pub const CONNECTION_DOES_NOT_EXIST: &str = "08003";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const CARDINALITY_VIOLATION: &str = "21000";
    pub const DATA_EXCEPTION: &str = "22000";
    pub const STRING_DATA_RIGHT_TRUNCATION: &str = "22001";
    pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
    pub const NULL_VALUE_NOT_ALLOWED: &str = "22004";
    pub const INVALID_DATETIME_FORMAT: &str = "22007";
    pub const DATETIME_FIELD_OVERFLOW: &str = "22008";
    pub const INVALID_TIME_ZONE_DISPLACEMENT_VALUE: &str = "22009";
    pub const SUBSTRING_ERROR: &str = "22011";
    pub const DIVISION_BY_ZERO: &str = "22012";
    pub const INVALID_PRECEDING_OR_FOLLOWING_SIZE: &str = "22013";
    pub const INVALID_ARGUMENT_FOR_NTILE: &str = "22014";
    pub const INTERVAL_FIELD_OVERFLOW: &str = "22015";
    pub const INVALID_ARGUMENT_FOR_NTH_VALUE: &str = "22016";
    pub const INVALID_ARGUMENT_FOR_LOGARITHM: &str = "2201E";
    pub const INVALID_ARGUMENT_FOR_POWER_FUNCTION: &str = "2201F";
    pub const INVALID_ARGUMENT_FOR_WIDTH_BUCKET: &str = "2201G";
    pub const INVALID_ROW_COUNT_IN_LIMIT: &str = "2201W";
    pub const INVALID_ROW_COUNT_IN_OFFSET: &str = "2201X";
    pub const INVALID_REGULAR_EXPRESSION: &str = "2201B";
    pub const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const INVALID_ESCAPE_SEQUENCE: &str = "22025";
    pub const ARRAY_SUBSCRIPT_ERROR: &str = "2202E";
    pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
    pub const INVALID_BINARY_REPRESENTATION: &str = "22P03";
    pub const BAD_COPY_FILE_FORMAT: &str = "22P04";
    pub const UNTRANSLATABLE_CHARACTER: &str = "22P05";
    pub const SEQUENCE_GENERATOR_LIMIT_EXCEEDED: &str = "2200H";
    pub const NOT_NULL_VIOLATION: &str = "23502";
    pub const FOREIGN_KEY_VIOLATION: &str = "23503";
    pub const UNIQUE_VIOLATION: &str = "23505";
    pub const CHECK_VIOLATION: &str = "23514";
    pub const INVALID_CURSOR_STATE: &str = "24000";
    pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
    pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
    pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
    pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
    pub const INVALID_AUTHORIZATION_SPECIFICATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
    pub const INVALID_CURSOR_NAME: &str = "34000";
    pub const INVALID_SAVEPOINT_SPECIFICATION: &str = "3B001";
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    pub const INVALID_SCHEMA_NAME: &str = "3F000";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const DEADLOCK_DETECTED: &str = "40P01";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const INVALID_NAME: &str = "42602";
    pub const INVALID_COLUMN_DEFINITION: &str = "42611";
    pub const DUPLICATE_COLUMN: &str = "42701";
    pub const AMBIGUOUS_COLUMN: &str = "42702";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_OBJECT: &str = "42710";
    pub const DUPLICATE_ALIAS: &str = "42712";
    pub const AMBIGUOUS_FUNCTION: &str = "42725";
    pub const GROUPING_ERROR: &str = "42803";
    pub const DATATYPE_MISMATCH: &str = "42804";
    pub const WRONG_OBJECT_TYPE: &str = "42809";
    pub const INVALID_FOREIGN_KEY: &str = "42830";
    pub const CANNOT_COERCE: &str = "42846";
    pub const UNDEFINED_FUNCTION: &str = "42883";
    pub const RESERVED_NAME: &str = "42939";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const DUPLICATE_CURSOR: &str = "42P03";
    pub const DUPLICATE_DATABASE: &str = "42P04";
    pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub const DUPLICATE_SCHEMA: &str = "42P06";
    pub const DUPLICATE_TABLE: &str = "42P07";
    pub const AMBIGUOUS_PARAMETER: &str = "42P08";
    pub const INVALID_COLUMN_REFERENCE: &str = "42P10";
    pub const INVALID_TABLE_DEFINITION: &str = "42P16";
    pub const INVALID_OBJECT_DEFINITION: &str = "42P17";
    pub const INDETERMINATE_DATATYPE: &str = "42P18";
    pub const INVALID_RECURSION: &str = "42P19";
    pub const WINDOWING_ERROR: &str = "42P20";
    pub const COLLATION_MISMATCH: &str = "42P21";
    pub const WITH_CHECK_OPTION_VIOLATION: &str = "44000";
    pub const DISK_FULL: &str = "53100";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const STATEMENT_TOO_COMPLEX: &str = "54001";
    pub const TOO_MANY_COLUMNS: &str = "54011";
    pub const TOO_MANY_ARGUMENTS: &str = "54023";
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IO_ERROR: &str = "58030";
    pub const INTERNAL_ERROR: &str = "XX000";
    pub const DATA_CORRUPTED: &str = "XX001";
}
