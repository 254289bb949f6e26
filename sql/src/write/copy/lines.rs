//! Bytes cut into records, and records into fields, for the text and CSV forms.
//!
//! A [`Splitter`] finds where a record ends; it remembers how far it looked, so bytes may come in pieces of any size. A record keeps its
//! escapes; [`text_fields`] and [`csv_fields`] resolve them.

use super::options::{CopyOptions, Format};
use crate::error::{Result, SqlError, state};

/// Finds the ends of records.
pub struct Splitter {
    csv: bool,
    quote: u8,
    escape: u8,
    newline: Newline,
    /// Where to look on, counted from the start of the record at hand.
    at: usize,
    in_quotes: bool,
    /// The byte before was an escape inside quotes.
    escaped: bool,
}

/// How lines end; the first one shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newline {
    Unknown,
    Lf,
    Cr,
    CrLf,
}

/// A record found in the buffer.
pub struct Record {
    /// Bytes of it, without line end.
    pub len: usize,
    /// Bytes to take off the buffer.
    pub taken: usize,
    /// Line ends in it and behind it.
    pub lines: u64,
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(state::BAD_COPY_FILE_FORMAT, message)
}

impl Splitter {
    /// For data with these options.
    pub fn new(options: &CopyOptions) -> Splitter {
        Splitter {
            csv: options.format == Format::Csv,
            quote: options.quote,
            escape: options.escape,
            newline: Newline::Unknown,
            at: 0,
            in_quotes: false,
            escaped: false,
        }
    }

    /// The first record of `buffer`, if all of it is there. `end`: no more bytes will come. Call with the same start until a record is taken.
    pub fn next(&mut self, buffer: &[u8], end: bool) -> Result<Option<Record>> {
        if self.csv { self.next_csv(buffer, end) } else { self.next_text(buffer, end) }
    }

    fn found(&mut self, len: usize, newline: usize, buffer: &[u8]) -> Option<Record> {
        let inner = if self.csv { buffer[..len].iter().filter(|b| **b == b'\n').count() as u64 } else { 0 };
        (self.at, self.in_quotes, self.escaped) = (0, false, false);
        Some(Record { len, taken: len + newline, lines: inner + 1 })
    }

    fn next_text(&mut self, buffer: &[u8], end: bool) -> Result<Option<Record>> {
        let mut at = self.at;
        loop {
            let Some(skip) = buffer[at..].iter().position(|b| matches!(b, b'\n' | b'\r' | b'\\')) else {
                self.at = buffer.len();
                return Ok(self.rest(buffer, end));
            };
            at += skip;
            match buffer[at] {
                b'\\' if at + 1 < buffer.len() => at += 2,
                b'\\' if end => at += 1,
                b'\\' => {
                    self.at = at;
                    return Ok(None);
                }
                _ => match self.line_end(buffer, at, end)? {
                    LineEnd::Wait => {
                        self.at = at;
                        return Ok(None);
                    }
                    LineEnd::Yes(len) => return Ok(self.found(at, len, buffer)),
                },
            }
        }
    }

    fn next_csv(&mut self, buffer: &[u8], end: bool) -> Result<Option<Record>> {
        while self.at < buffer.len() {
            let byte = buffer[self.at];
            // A quote that is its own escape toggles twice, which is the same as being skipped.
            if self.in_quotes && byte == self.escape && self.escape != self.quote {
                self.escaped = !self.escaped;
            } else if byte == self.quote {
                self.in_quotes = self.escaped || !self.in_quotes;
                self.escaped = false;
            } else if matches!(byte, b'\n' | b'\r') && !self.in_quotes {
                match self.line_end(buffer, self.at, end)? {
                    LineEnd::Wait => return Ok(None),
                    LineEnd::Yes(len) => return Ok(self.found(self.at, len, buffer)),
                }
            } else {
                self.escaped = false;
            }
            self.at += 1;
        }
        if end && self.in_quotes {
            return Err(bad("unterminated CSV quoted field"));
        }
        Ok(self.rest(buffer, end))
    }

    /// The last record may lack its line end.
    fn rest(&mut self, buffer: &[u8], end: bool) -> Option<Record> {
        if end && !buffer.is_empty() { self.found(buffer.len(), 0, buffer) } else { None }
    }

    fn line_end(&mut self, buffer: &[u8], at: usize, end: bool) -> Result<LineEnd> {
        let next = buffer.get(at + 1);
        let literal = |what: &str, shown: &str| {
            let (kind, how) = if self.csv {
                ("unquoted", format!("Use quoted CSV field to represent {what}."))
            } else {
                ("literal", format!("Use \"{shown}\" to represent {what}."))
            };
            Err(bad(format!("{kind} {what} found in data")).hint(how))
        };
        if buffer[at] == b'\n' {
            return match self.newline {
                Newline::Unknown | Newline::Lf => {
                    self.newline = Newline::Lf;
                    Ok(LineEnd::Yes(1))
                }
                Newline::Cr | Newline::CrLf => literal("newline", "\\n"),
            };
        }
        match (self.newline, next) {
            (Newline::Lf, _) => literal("carriage return", "\\r"),
            (Newline::Unknown | Newline::CrLf, None) if !end => Ok(LineEnd::Wait),
            (Newline::Unknown | Newline::CrLf, Some(b'\n')) => {
                self.newline = Newline::CrLf;
                Ok(LineEnd::Yes(2))
            }
            (Newline::CrLf, _) => literal("carriage return", "\\r"),
            (Newline::Unknown | Newline::Cr, _) => {
                self.newline = Newline::Cr;
                Ok(LineEnd::Yes(1))
            }
        }
    }
}

enum LineEnd {
    /// So many bytes.
    Yes(usize),
    /// The byte after it must come first.
    Wait,
}

/// One field: its place in the scratch buffer, or NULL.
pub type Field = Option<std::ops::Range<usize>>;

/// Cuts a line of the text form into fields. Their values are appended to `scratch`, escapes resolved.
pub fn text_fields(line: &[u8], options: &CopyOptions, scratch: &mut Vec<u8>, fields: &mut Vec<Field>) {
    let (delimiter, null) = (options.delimiter, options.null.as_bytes());
    let mut at = 0;
    loop {
        let (raw_start, start) = (at, scratch.len());
        // The plain run up to the first byte that needs thought.
        let mut done = false;
        while !done {
            let run = line[at..].iter().position(|b| *b == delimiter || *b == b'\\').unwrap_or(line.len() - at);
            scratch.extend_from_slice(&line[at..at + run]);
            at += run;
            if line.get(at) == Some(&b'\\') {
                at = unescape(line, at, scratch);
            } else {
                done = true;
            }
        }
        if &line[raw_start..at] == null {
            scratch.truncate(start);
            fields.push(None);
        } else {
            fields.push(Some(start..scratch.len()));
        }
        if at >= line.len() {
            return;
        }
        at += 1; // the delimiter
    }
}

/// Resolves the escape at `at`; returns where it ends.
fn unescape(line: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let Some(&byte) = line.get(at + 1) else {
        out.push(b'\\');
        return at + 1;
    };
    let digits = |from: usize, max: usize, base: u32| {
        let found = line[from..].iter().take(max).map_while(|b| (*b as char).to_digit(base));
        found.fold((0u32, 0), |(value, n), d| (value * base + d, n + 1))
    };
    match byte {
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'n' => out.push(b'\n'),
        b'r' => out.push(b'\r'),
        b't' => out.push(b'\t'),
        b'v' => out.push(11),
        b'0'..=b'7' => {
            let (value, n) = digits(at + 1, 3, 8);
            out.push(value as u8);
            return at + 1 + n;
        }
        b'x' => {
            let (value, n) = digits(at + 2, 2, 16);
            out.push(if n == 0 { b'x' } else { value as u8 });
            return at + 2 + n;
        }
        other => out.push(other),
    }
    at + 2
}

/// Cuts a CSV record into fields. `force_not_null` and `force_null` have one entry a column.
pub fn csv_fields(
    record: &[u8],
    options: &CopyOptions,
    force_not_null: &[bool],
    force_null: &[bool],
    scratch: &mut Vec<u8>,
    fields: &mut Vec<Field>,
) -> Result<()> {
    let (delimiter, quote, escape) = (options.delimiter, options.quote, options.escape);
    let mut at = 0;
    loop {
        let (start, mut quoted) = (scratch.len(), false);
        let mut inside = false;
        while let Some(&byte) = record.get(at) {
            if inside {
                if byte == escape && record.get(at + 1).is_some_and(|n| *n == quote || *n == escape) {
                    scratch.push(record[at + 1]);
                    at += 2;
                    continue;
                }
                if byte == quote {
                    inside = false;
                } else {
                    scratch.push(byte);
                }
            } else if byte == delimiter {
                break;
            } else if byte == quote {
                (inside, quoted) = (true, true);
            } else {
                scratch.push(byte);
            }
            at += 1;
        }
        if inside {
            return Err(bad("unterminated CSV quoted field"));
        }
        let column = fields.len();
        let is_null_text = &scratch[start..] == options.null.as_bytes();
        let forced = force_null.get(column).copied().unwrap_or(false);
        let kept = force_not_null.get(column).copied().unwrap_or(false);
        if is_null_text && (!quoted && !kept || quoted && forced) {
            scratch.truncate(start);
            fields.push(None);
        } else {
            fields.push(Some(start..scratch.len()));
        }
        if at >= record.len() {
            return Ok(());
        }
        at += 1; // the delimiter
    }
}
