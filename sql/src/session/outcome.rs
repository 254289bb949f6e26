//! What a session answers: plain values, so that whoever serves the wire keeps no borrow of the session.

use std::sync::Arc;

use crate::error::SqlError;
use crate::ir::Field;
use crate::types::{Row, Type};
use crate::write::copy::CopyPiece;

/// What one statement turned out to give. After [`Outcome::Rows`] call `Session::fetch` until it is done; after the copies their calls.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Rows follow, by `Session::fetch`.
    Rows {
        /// Their columns.
        fields: Arc<[Field]>,
        /// Whether each column is to be sent in binary form; one a column.
        binary: Arc<[bool]>,
    },
    /// It is done; the tag says what was done (`INSERT 0 1`).
    Command {
        /// For CommandComplete.
        tag: String,
    },
    /// The client shall send data: pass it to `Session::copy_data`, then call `copy_done` or `copy_fail`.
    CopyIn(CopyShape),
    /// Data follows, by `Session::copy_out`.
    CopyOut(CopyShape),
    /// The statement was empty: EmptyQueryResponse.
    Empty,
}

/// What CopyInResponse and CopyOutResponse say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyShape {
    /// Format code of the whole and of each column.
    pub binary: bool,
    /// How many columns.
    pub columns: usize,
}

/// The next piece of a result.
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows; more may follow. Never empty.
    Rows(Vec<Row>),
    /// The portal gave as many rows as were asked for and can be executed again: PortalSuspended.
    Suspended,
    /// All rows were given: CommandComplete.
    Done {
        /// For CommandComplete.
        tag: String,
    },
}

/// The next piece of COPY TO STDOUT.
#[derive(Clone, Debug)]
pub enum CopyStep {
    /// Some lines, or rows of the binary format.
    Data(CopyPiece),
    /// All was given: CopyDone and CommandComplete.
    Done {
        /// For CommandComplete.
        tag: String,
    },
}

/// What is known of a prepared statement before it runs.
#[derive(Clone, Debug)]
pub struct StatementShape {
    /// Parameter types.
    pub params: Vec<Type>,
    /// Columns of its rows; None if it gives none (NoData).
    pub fields: Option<Arc<[Field]>>,
}

/// A message that is no error.
#[derive(Clone, Debug)]
pub struct Notice {
    /// NOTICE, WARNING, INFO, LOG or DEBUG.
    pub severity: &'static str,
    /// Its SQLSTATE (00000 for most) and words.
    pub report: SqlError,
}

impl Notice {
    /// Its rank among the levels of client_min_messages.
    pub(crate) fn rank(&self) -> u8 {
        match self.severity {
            "DEBUG" => 0,
            "LOG" => 1,
            "NOTICE" => 2,
            "WARNING" => 3,
            _ => u8::MAX,
        }
    }
    /// A NOTICE.
    pub fn new(message: impl Into<String>) -> Notice {
        Notice { severity: "NOTICE", report: SqlError::new("00000", message) }
    }
    /// A WARNING with its SQLSTATE.
    pub fn warning(state: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: "WARNING", report: SqlError::new(state, message) }
    }
}
