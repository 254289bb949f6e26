//! COPY TO: rows become bytes, a piece at a time.

use std::sync::Arc;

use super::binary::{SIGNATURE, TRAILER};
use super::options::{CopyOptions, Format, Header};
use crate::error::Result;
use crate::exec::Cursor;
use crate::functions::SessionCx;
use crate::ir::Field;
use crate::types::{Datum, Row, io};

/// A COPY TO in progress.
pub struct CopyOut {
    options: CopyOptions,
    session: Arc<SessionCx>,
    fields: Arc<[Field]>,
    cursor: Cursor,
    force_quote: Vec<bool>,
    begun: bool,
    ended: bool,
    rows: u64,
    scratch: Vec<u8>,
}

impl CopyOut {
    /// Of a query's rows.
    pub fn new(cursor: Cursor, fields: Arc<[Field]>, options: CopyOptions, session: Arc<SessionCx>) -> Result<CopyOut> {
        let names: Vec<String> = fields.iter().map(|f| f.name.to_string()).collect();
        let force_quote = options.force_quote.select(&names, "FORCE_QUOTE")?;
        Ok(CopyOut {
            options,
            session,
            fields,
            cursor,
            force_quote,
            begun: false,
            ended: false,
            rows: 0,
            scratch: Vec::new(),
        })
    }
    /// Whether the data is binary.
    pub fn is_binary(&self) -> bool {
        self.options.format == Format::Binary
    }
    /// How many columns.
    pub fn width(&self) -> usize {
        self.fields.len()
    }
    /// Rows given so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next piece; None at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            self.head(&mut out);
        }
        while out.is_empty() && !self.ended {
            self.session.check_cancel()?;
            match self.cursor.next_batch()? {
                Some(rows) => {
                    for row in &rows {
                        self.row(row, &mut out)?;
                    }
                    self.rows += rows.len() as u64;
                }
                None => {
                    self.ended = true;
                    if self.is_binary() {
                        out.extend_from_slice(&TRAILER);
                    }
                }
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        if self.is_binary() {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[0; 8]);
        } else if self.options.header != Header::No {
            let fields = self.fields.clone();
            for (i, field) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(self.options.delimiter);
                }
                self.value(field.name.as_bytes(), false, out);
            }
            out.push(b'\n');
        }
    }

    fn row(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        if self.is_binary() {
            return self.binary_row(row, out);
        }
        let fields = self.fields.clone();
        for (i, (value, field)) in row.iter().zip(fields.iter()).enumerate() {
            if i > 0 {
                out.push(self.options.delimiter);
            }
            if value.is_null() {
                out.extend_from_slice(self.options.null.as_bytes());
                continue;
            }
            let mut text = std::mem::take(&mut self.scratch);
            text.clear();
            io::write_text(value, field.ty.ty, &self.session, &mut text);
            self.value(&text, self.force_quote[i], out);
            self.scratch = text;
        }
        out.push(b'\n');
        Ok(())
    }

    fn value(&self, text: &[u8], force: bool, out: &mut Vec<u8>) {
        match self.options.format {
            Format::Csv => self.csv_value(text, force, out),
            _ => text_value(text, self.options.delimiter, out),
        }
    }

    fn csv_value(&self, text: &[u8], force: bool, out: &mut Vec<u8>) {
        let CopyOptions { delimiter, quote, escape, .. } = self.options;
        let needs = |b: &u8| *b == delimiter || *b == quote || matches!(*b, b'\n' | b'\r');
        let alone = self.fields.len() == 1 && text == b"\\.";
        if !(force || alone || text == self.options.null.as_bytes() || text.iter().any(needs)) {
            out.extend_from_slice(text);
            return;
        }
        out.push(quote);
        for byte in text {
            if *byte == quote || *byte == escape {
                out.push(escape);
            }
            out.push(*byte);
        }
        out.push(quote);
    }

    fn binary_row(&mut self, row: &[Datum], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&(row.len() as i16).to_be_bytes());
        for (value, field) in row.iter().zip(self.fields.iter()) {
            if value.is_null() {
                out.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            }
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            io::binary_out(value, field.ty.ty, out)?;
            let len = (out.len() - at - 4) as i32;
            out[at..at + 4].copy_from_slice(&len.to_be_bytes());
        }
        Ok(())
    }
}

/// A value of the text form, with what could be mistaken escaped.
fn text_value(text: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in text {
        let letter = match byte {
            b'\\' => b'\\',
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b if *b == delimiter => delimiter,
            b => {
                out.push(*b);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', letter]);
    }
}
