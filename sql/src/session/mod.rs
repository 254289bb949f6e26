//! A client's session: statements in, results out, transactions between them.
//!
//! [`Instance`] is a data directory with its databases; [`Session`] is one client in one database. A session is a state machine that one
//! thread at a time drives through `&mut self`; what it returns is plain data ([`outcome`]). Everything blocks (on storage, on pg_sleep), so call
//! it on a thread that may, with a stack of 16 MiB. [`Session::cancel_flag`] may be raised from any other.
//!
//! ```text
//! simple query      simple(sql)?; while let Some(outcome) = next_result()? { rows: fetch() until Done; copy: see below }
//! extended query    parse, bind, execute -> outcome, fetch() until Done or Suspended; sync() ends the implicit transaction
//! COPY FROM STDIN   outcome CopyIn: copy_data(bytes) as they come in, then copy_done() -> tag, or copy_fail(why) -> the error to send
//! COPY TO STDOUT    outcome CopyOut: copy_out() until Done
//! any error         the statement is undone; the rest of a simple string is abandoned; in extended mode skip to Sync, then call sync()
//! ```
//!
//! Results of a statement that is a transaction of its own are given out when it is committed: simple queries always; extended ones when
//! Sync has been answered, so do not flush DataRow and CommandComplete before `sync()` returned, unless the client sends Flush.

pub mod instance;
pub mod outcome;

use std::sync::Arc;

use bytes::Bytes;

pub use instance::{ConnectOptions, Instance, InstanceOptions};
pub use outcome::{CopyShape, CopyStep, Notice, Outcome, StatementShape, Step};

use crate::error::{Result, SqlError};
use crate::functions::SessionCx;
use crate::functions::context::CancelFlag;
use crate::ir::Field;
use crate::types::Type;

/// One client in one database.
pub struct Session {
    cancel: Arc<CancelFlag>,
}

impl Session {
    // Simple protocol

    /// Begins a simple query string. Nothing has run yet; an error (syntax) fails the whole string.
    pub fn simple(&mut self, sql: &str) -> Result<()> {
        unfinished(sql)
    }
    /// Runs the string's next statement; what it gave must have been fetched or dropped before. None: the string is through and, outside a
    /// transaction block, committed. After an error the string is over.
    pub fn next_result(&mut self) -> Result<Option<Outcome>> {
        unfinished(())
    }
    /// The next rows of the last [`Outcome::Rows`].
    pub fn fetch(&mut self) -> Result<Step> {
        unfinished(())
    }

    // COPY

    /// A piece of COPY FROM STDIN, cut anywhere. After an error go on reading and dropping CopyData until CopyDone or CopyFail.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<()> {
        unfinished(data)
    }
    /// CopyDone: the tag.
    pub fn copy_done(&mut self) -> Result<String> {
        unfinished(())
    }
    /// CopyFail: undoes the COPY and gives the error to answer with (57014).
    pub fn copy_fail(&mut self, reason: &str) -> SqlError {
        SqlError::internal(reason)
    }
    /// The next piece of COPY TO STDOUT.
    pub fn copy_out(&mut self) -> Result<CopyStep> {
        unfinished(())
    }

    // Extended protocol

    /// Parse. An empty name replaces the unnamed statement; type 0 (or a missing one) is inferred.
    pub fn parse(&mut self, name: &str, sql: &str, param_types: &[Type]) -> Result<()> {
        unfinished((name, sql, param_types))
    }
    /// Describe of a statement.
    pub fn describe_statement(&mut self, name: &str) -> Result<StatementShape> {
        unfinished(name)
    }
    /// Bind. Formats are the wire's: none (all text), one for all, or one each; 0 text, 1 binary.
    pub fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        params: Vec<Option<Bytes>>,
        param_formats: &[i16],
        result_formats: &[i16],
    ) -> Result<()> {
        unfinished((portal, statement, params, param_formats, result_formats))
    }
    /// Describe of a portal: its columns and which are sent in binary; None for NoData.
    #[allow(clippy::type_complexity)]
    pub fn describe_portal(&mut self, name: &str) -> Result<Option<(Arc<[Field]>, Arc<[bool]>)>> {
        unfinished(name)
    }
    /// Execute, for at most so many rows (0: all). The outcome is followed up as in the simple protocol.
    pub fn execute(&mut self, portal: &str, max_rows: usize) -> Result<Outcome> {
        unfinished((portal, max_rows))
    }
    /// Close of a statement; one that is not there is no error.
    pub fn close_statement(&mut self, name: &str) {
        let _ = name;
    }
    /// Close of a portal.
    pub fn close_portal(&mut self, name: &str) {
        let _ = name;
    }
    /// Sync: ends the implicit transaction. Call it after errors too: then it rolls back and succeeds.
    pub fn sync(&mut self) -> Result<()> {
        unfinished(())
    }

    // State

    /// For ReadyForQuery: `I` idle, `T` in a transaction block, `E` in a failed one.
    pub fn transaction_status(&self) -> u8 {
        b'I'
    }
    /// What a cancel request or a shutdown raises.
    pub fn cancel_flag(&self) -> Arc<CancelFlag> {
        self.cancel.clone()
    }
    /// Messages since the last call, to be sent before what follows.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        Vec::new()
    }
    /// Settings to be told (ParameterStatus) that changed since the last call.
    pub fn take_parameter_changes(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Settings to be told at the start.
    pub fn parameters_at_start(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Surroundings that values are printed in (time zone, styles); take it anew for each result.
    pub fn output_cx(&self) -> Result<Arc<SessionCx>> {
        unfinished(())
    }
}

fn unfinished<A, T>(_: A) -> Result<T> {
    Err(SqlError::internal("the session is being written"))
}
