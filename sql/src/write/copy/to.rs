//! COPY TO: rows become bytes, a piece at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::binary::{SIGNATURE, TRAILER};
use super::options::{CopyOptions, Format, Header};
use crate::error::Result;
use crate::exec::Cursor;
use crate::functions::SessionCx;
use crate::ir::Field;
use crate::types::{Datum, Row, io};

/// A piece ends with the row that makes it as long as this.
const PIECE_BYTES: usize = 64 << 10;

/// Some rows of COPY TO STDOUT, each for a CopyData message of its own: clients take a message for a row.
#[derive(Clone, Debug, Default)]
pub struct CopyPiece {
    /// The messages' contents, one after the other.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl CopyPiece {
    /// The messages' contents.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

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
    /// Rows of a batch not given yet.
    waiting: VecDeque<Row>,
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
            waiting: VecDeque::new(),
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
    pub fn next_piece(&mut self) -> Result<Option<CopyPiece>> {
        let mut piece = CopyPiece::default();
        if !self.begun {
            self.begun = true;
            self.head(&mut piece.bytes);
            // The binary form's head comes with the first row, a header line by itself.
            if !self.is_binary() && !piece.bytes.is_empty() {
                piece.ends.push(piece.bytes.len());
            }
        }
        while piece.bytes.len() < PIECE_BYTES && !self.ended {
            if self.waiting.is_empty() {
                if !piece.ends.is_empty() {
                    break;
                }
                self.session.check_cancel()?;
                match self.cursor.next_batch()? {
                    Some(rows) => self.waiting = rows.into_iter().collect(),
                    None => {
                        self.ended = true;
                        if self.is_binary() {
                            piece.bytes.extend_from_slice(&TRAILER);
                            piece.ends.push(piece.bytes.len());
                        }
                        break;
                    }
                }
            }
            if let Some(row) = self.waiting.pop_front() {
                self.row(&row, &mut piece.bytes)?;
                piece.ends.push(piece.bytes.len());
                self.rows += 1;
            }
        }
        Ok((!piece.ends.is_empty()).then_some(piece))
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
