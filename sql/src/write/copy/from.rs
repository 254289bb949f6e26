//! COPY FROM: bytes pushed in pieces of any size become rows of a table.

use std::sync::Arc;

use super::binary::{self, Frame};
use super::lines::{Field, Splitter, csv_fields, text_fields};
use super::options::{CopyOptions, Format, Header};
use crate::catalog::schema::Table;
use crate::error::{Result, SqlError, state};
use crate::exec::{self, ExecCx};
use crate::memory::Reservation;
use crate::types::{Datum, Row, TypeMod, io};
use crate::write::TxnHandle;
use crate::write::after::Change;
use crate::write::constraints::{check_violation, is_true_or_null};
use crate::write::insert::RowPutter;
use crate::write::target::Target;

/// What rows of a COPY FROM must be given besides the data.
#[derive(Default)]
pub struct CopyRules {
    /// Values of columns that the data does not have.
    pub defaults: Vec<(usize, exec::Prepared)>,
    /// CHECK constraints.
    pub checks: Vec<(Arc<str>, exec::Prepared)>,
    /// COPY ... WHERE.
    pub filter: Option<exec::Prepared>,
}

/// A COPY FROM in progress.
pub struct CopyIn {
    options: CopyOptions,
    target: Target,
    putter: RowPutter,
    txn: TxnHandle,
    rules: CopyRules,
    cx: ExecCx,
    /// Positions of the columns that the data has, in its order, with their types and names.
    columns: Vec<(usize, TypeMod, String)>,
    force_not_null: Vec<bool>,
    force_null: Vec<bool>,
    splitter: Splitter,
    buffer: Vec<u8>,
    /// What the record that is not all there yet reserves.
    held: Reservation,
    /// How much of the buffer is done with.
    done: usize,
    header_due: bool,
    ended: bool,
    line: u64,
    rows: u64,
    scratch: Vec<u8>,
    fields: Vec<Field>,
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(state::BAD_COPY_FILE_FORMAT, message)
}

impl CopyIn {
    /// Into these columns (positions) of a table.
    pub fn new(
        table: &Arc<Table>,
        columns: &[usize],
        options: CopyOptions,
        rules: CopyRules,
        txn: &TxnHandle,
        cx: ExecCx,
    ) -> Result<CopyIn> {
        let target = Target::new(table);
        let live: Vec<_> = table.columns().collect();
        let columns: Vec<(usize, TypeMod, String)> =
            columns.iter().map(|p| (*p, live[*p].type_mod(), live[*p].name.clone())).collect();
        let names: Vec<String> = columns.iter().map(|c| c.2.clone()).collect();
        Ok(CopyIn {
            force_not_null: options.force_not_null.select(&names, "FORCE_NOT_NULL")?,
            force_null: options.force_null.select(&names, "FORCE_NULL")?,
            splitter: Splitter::new(&options),
            putter: RowPutter::new(&target, txn)?,
            txn: txn.clone(),
            header_due: options.header != Header::No || options.format == Format::Binary,
            buffer: Vec::new(),
            held: cx.session.memory.reservation("A record of COPY FROM"),
            done: 0,
            ended: false,
            line: 0,
            rows: 0,
            scratch: Vec::new(),
            fields: Vec::new(),
            options,
            target,
            rules,
            cx,
            columns,
        })
    }
    /// Whether the data is binary.
    pub fn is_binary(&self) -> bool {
        self.options.format == Format::Binary
    }
    /// How many columns the data has.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Takes a piece of the data.
    pub fn push(&mut self, data: &[u8]) -> Result<()> {
        self.cx.session.check_cancel()?;
        if self.ended {
            return Ok(());
        }
        self.buffer.extend_from_slice(data);
        self.work(false)?;
        // A quote that is not closed makes one record of all that follows.
        let (table, line, held) = (&self.target.table.name, self.line + 1, self.buffer.len());
        self.held.set(held).map_err(|e| e.context(|| format!("COPY {table}, line {line}")))
    }
    /// The data is at its end: how many rows it had.
    pub fn finish(&mut self) -> Result<u64> {
        self.work(true)?;
        Ok(self.rows)
    }

    fn work(&mut self, end: bool) -> Result<()> {
        // The buffer is moved out for the loop, so that fields can be borrowed from it while rows are made.
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = if self.is_binary() { self.work_binary(&buffer, end) } else { self.work_lines(&buffer, end) };
        buffer.drain(..self.done);
        (self.buffer, self.done) = (buffer, 0);
        result
    }

    fn work_lines(&mut self, buffer: &[u8], end: bool) -> Result<()> {
        while !self.ended {
            let rest = &buffer[self.done..];
            let next = self.splitter.next(rest, end);
            let line = self.line + 1;
            let at = || format!("COPY {}, line {line}: \"{}\"", self.target.table.name, clip(rest));
            let Some(record) = next.map_err(|e| e.context(at))? else { break };
            let bytes = &rest[..record.len];
            self.done += record.taken;
            self.line += record.lines;
            if bytes == b"\\." {
                self.ended = true;
            } else if std::mem::take(&mut self.header_due) {
                self.check_header(bytes)?;
            } else {
                self.line_row(bytes)?;
            }
        }
        if self.ended {
            self.done = buffer.len();
        }
        Ok(())
    }

    fn split(&mut self, record: &[u8]) -> Result<()> {
        self.scratch.clear();
        self.fields.clear();
        match self.options.format {
            Format::Csv => csv_fields(
                record,
                &self.options,
                &self.force_not_null,
                &self.force_null,
                &mut self.scratch,
                &mut self.fields,
            ),
            _ => {
                text_fields(record, &self.options, &mut self.scratch, &mut self.fields);
                Ok(())
            }
        }
    }

    fn check_header(&mut self, record: &[u8]) -> Result<()> {
        if self.options.header != Header::Match {
            return Ok(());
        }
        self.split(record)?;
        let context = || format!("COPY {}, line 1: \"{}\"", self.target.table.name, clip(record));
        if self.fields.len() != self.columns.len() {
            let message = format!(
                "wrong number of fields in header line: got {}, expected {}",
                self.fields.len(),
                self.columns.len()
            );
            return Err(bad(message).context(context));
        }
        for (i, (field, (_, _, name))) in self.fields.iter().zip(&self.columns).enumerate() {
            let Some(range) = field else {
                let message = format!(
                    "column name mismatch in header line field {}: got null value (\"{}\"), expected \"{name}\"",
                    i + 1,
                    self.options.null
                );
                return Err(bad(message).context(context));
            };
            let got = &self.scratch[range.clone()];
            if got != name.as_bytes() {
                let got = String::from_utf8_lossy(got);
                let message =
                    format!("column name mismatch in header line field {}: got \"{got}\", expected \"{name}\"", i + 1);
                return Err(bad(message).context(context));
            }
        }
        Ok(())
    }

    fn line_row(&mut self, record: &[u8]) -> Result<()> {
        let line = self.line;
        let in_line = |s: &Self, e: SqlError| {
            e.context(|| format!("COPY {}, line {line}: \"{}\"", s.target.table.name, clip(record)))
        };
        self.split(record).map_err(|e| in_line(self, e))?;
        // An empty line is the one empty value of a single column, or no value at all.
        if self.columns.is_empty() && record.is_empty() {
            self.fields.clear();
        }
        if self.fields.len() > self.columns.len() {
            return Err(in_line(self, bad("extra data after last expected column")));
        }
        if let Some((_, _, name)) = self.columns.get(self.fields.len()) {
            return Err(in_line(self, bad(format!("missing data for column \"{name}\""))));
        }
        let mut row = vec![Datum::Null; self.target.width()];
        for (field, (position, ty, name)) in self.fields.iter().zip(&self.columns) {
            let Some(range) = field else { continue };
            let bytes = &self.scratch[range.clone()];
            let value = io::utf8(bytes).and_then(|text| io::text_in(text, *ty, &self.cx.session));
            row[*position] = value.map_err(|e| {
                let shown =
                    || format!("COPY {}, line {line}, column {name}: \"{}\"", self.target.table.name, clip(bytes));
                e.within(shown)
            })?;
        }
        self.put(row).map_err(|e| in_line(self, e))
    }

    fn work_binary(&mut self, buffer: &[u8], end: bool) -> Result<()> {
        let table = self.target.table.name.clone();
        if self.header_due {
            match binary::header(buffer)? {
                Some(len) => (self.done, self.header_due) = (len, false),
                None if end => return Err(bad("COPY file signature not recognized")),
                None => return Ok(()),
            }
        }
        while !self.ended {
            let rest = &buffer[self.done..];
            let line = self.line + 1;
            let context = || format!("COPY {table}, line {line}");
            self.fields.clear();
            match binary::row(rest, self.columns.len(), &mut self.fields).map_err(|e| e.context(context))? {
                Some(Frame::End) => {
                    self.ended = true;
                    if rest.len() > 2 {
                        return Err(bad("received copy data after EOF marker").context(context));
                    }
                    self.done = buffer.len();
                }
                Some(Frame::Row(len)) => {
                    self.line += 1;
                    let mut row = vec![Datum::Null; self.target.width()];
                    for (field, (position, ty, name)) in self.fields.iter().zip(&self.columns) {
                        if let Some(range) = field {
                            let value = io::binary_in(&rest[range.clone()], *ty);
                            row[*position] =
                                value.map_err(|e| e.within(|| format!("COPY {table}, line {line}, column {name}")))?;
                        }
                    }
                    self.done += len;
                    self.put(row).map_err(|e| e.context(context))?;
                }
                None if end => return Err(bad("unexpected EOF in COPY data").context(context)),
                None => break,
            }
        }
        Ok(())
    }

    /// Completes, checks and stores a row.
    fn put(&mut self, mut row: Row) -> Result<()> {
        for (position, default) in &self.rules.defaults {
            row[*position] = default.eval(&[], &self.cx)?;
        }
        if let Some(filter) = &self.rules.filter
            && !matches!(filter.eval(&row, &self.cx)?, Datum::Bool(true))
        {
            return Ok(());
        }
        let session = &self.cx.session;
        self.target.check_not_null(&row, session)?;
        for (name, check) in &self.rules.checks {
            if !is_true_or_null(&check.eval(&row, &self.cx)?) {
                return Err(check_violation(&self.target.table, name, &row, session));
            }
        }
        // PostgreSQL stores rows by the batch and no longer knows their text then.
        let line = self.line;
        let stored = self.putter.put(&self.target, &row, session);
        let key = stored
            .map_err(|e| self.txn.explain(e).context(|| format!("COPY {}, line {line}", self.target.table.name)))?;
        self.txn.record(&self.target, Change::Insert { key: &key, row: &row }, session)?;
        self.rows += 1;
        if self.rows.is_multiple_of(1024) {
            session.check_cancel()?;
        }
        Ok(())
    }
}

/// Data as shown in a CONTEXT: PostgreSQL cuts it after 100 bytes.
fn clip(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= 100 { text.into_owned() } else { format!("{}...", io::cut_bytes(&text, 100)) }
}
