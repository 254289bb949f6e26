//! Rows in temporary files, for operators that hold more than `work_mem`.
//!
//! A file has no name and is gone when it is dropped. Every value comes back exactly as it was, display scales and padding included.
//!
//! ```text
//! row     length u32le (of what follows), its values
//! value   tag u8, then as fixed bytes (little endian), or length u32le and bytes
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::batch::Batch;
use super::value;
use crate::error::{Result, SqlError, state};
use crate::types::datum::Record;
use crate::types::{Array, Datum, Interval, Jsonb, Numeric, Row, Type, TypeMod};

/// Bytes written and read at once.
const CHUNK: usize = 64 * 1024;

/// A file of rows, written at the end and read anywhere.
pub(crate) struct Spool {
    file: File,
    flushed: u64,
    pending: Vec<u8>,
    rows: u64,
}

/// A place in a [`Spool`].
#[derive(Default)]
pub(crate) struct SpoolReader {
    /// Where `buffer` begins in the file.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl Spool {
    /// An empty file.
    pub fn new() -> Result<Spool> {
        let file = tempfile::tempfile().map_err(io_error)?;
        Ok(Spool { file, flushed: 0, pending: Vec::with_capacity(CHUNK), rows: 0 })
    }
    /// Rows written.
    pub fn rows(&self) -> u64 {
        self.rows
    }
    /// Bytes written: where the next row begins.
    fn end(&self) -> u64 {
        self.flushed + self.pending.len() as u64
    }
    /// Appends a row.
    pub fn push(&mut self, row: &[Datum]) -> Result<()> {
        let start = self.pending.len();
        self.pending.extend_from_slice(&[0; 4]);
        for d in row {
            write_datum(d, &mut self.pending);
        }
        let length = (self.pending.len() - start - 4) as u32;
        self.pending[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.rows += 1;
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }
    /// Writes what is pending; needed before reading.
    pub fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all_at(&self.pending, self.flushed).map_err(io_error)?;
            self.flushed += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }
}

impl SpoolReader {
    /// At a row that begins there.
    fn at(offset: u64) -> SpoolReader {
        SpoolReader { offset, ..SpoolReader::default() }
    }
    /// Appends the next row's values to `out`; false at the end of what was flushed.
    pub fn next(&mut self, spool: &Spool, out: &mut Vec<Datum>) -> Result<bool> {
        if !self.need(spool, 4)? {
            return Ok(false);
        }
        let length = u32::from_le_bytes(self.buffer[self.at..self.at + 4].try_into().expect("four bytes")) as usize;
        if !self.need(spool, 4 + length)? {
            return Err(corrupt());
        }
        let mut bytes = &self.buffer[self.at + 4..self.at + 4 + length];
        while !bytes.is_empty() {
            out.push(read_datum(&mut bytes)?);
        }
        self.at += 4 + length;
        Ok(true)
    }

    /// Makes `count` bytes available from `at`.
    fn need(&mut self, spool: &Spool, count: usize) -> Result<bool> {
        if self.buffer.len() - self.at >= count {
            return Ok(true);
        }
        self.offset += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        let held = self.buffer.len();
        let left = (spool.flushed - self.offset) as usize - held;
        let more = left.min(CHUNK.max(count - held));
        self.buffer.resize(held + more, 0);
        spool.file.read_exact_at(&mut self.buffer[held..], self.offset + held as u64).map_err(io_error)?;
        Ok(self.buffer.len() >= count)
    }
}

/// Rows kept to be read again: in memory up to a limit, the rest in a file.
pub struct RowBuffer {
    memory: Batch,
    bytes: usize,
    limit: usize,
    spool: Option<Spool>,
}

/// A reader's place in a [`RowBuffer`].
#[derive(Default)]
pub struct BufferPlace {
    row: usize,
    spooled: SpoolReader,
}

impl RowBuffer {
    /// An empty buffer that keeps about this many bytes in memory.
    pub fn new(width: usize, limit: usize) -> RowBuffer {
        RowBuffer { memory: Batch::new(width), bytes: 0, limit, spool: None }
    }
    /// These rows, in memory.
    pub fn of(width: usize, rows: &[Row]) -> Result<RowBuffer> {
        let mut buffer = RowBuffer::new(width, usize::MAX);
        rows.iter().try_for_each(|row| buffer.push(row))?;
        Ok(buffer)
    }
    /// Rows held.
    pub fn len(&self) -> usize {
        self.memory.len() + self.spool.as_ref().map_or(0, |s| s.rows() as usize)
    }
    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }
    /// Bytes of the rows in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Whether rows are in a file.
    pub fn is_spilled(&self) -> bool {
        self.spool.is_some()
    }
    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.memory.width()
    }
    /// Appends a row.
    pub fn push(&mut self, row: &[Datum]) -> Result<()> {
        if self.spool.is_none() {
            let bytes = value::row_bytes(row);
            if self.bytes + bytes <= self.limit || self.memory.is_empty() {
                self.bytes += bytes;
                self.memory.push(row);
                return Ok(());
            }
            self.spool = Some(Spool::new()?);
        }
        self.spool.as_mut().expect("made above").push(row)
    }
    /// Appends all rows of a batch.
    pub fn push_all(&mut self, batch: &Batch) -> Result<()> {
        batch.iter().try_for_each(|row| self.push(row))
    }
    /// Appends rows from a place on to `out` until it is full; false if there was none.
    pub fn read(&mut self, place: &mut BufferPlace, out: &mut Batch) -> Result<bool> {
        let before = out.len();
        while !out.is_full() && place.row < self.memory.len() {
            out.push(self.memory.row(place.row));
            place.row += 1;
        }
        if let Some(spool) = &mut self.spool
            && !out.is_full()
        {
            spool.flush()?;
            while !out.is_full() && place.spooled.next(spool, out.values())? {
                out.close_row();
                place.row += 1;
            }
        }
        Ok(out.len() > before)
    }
}

/// Rows read in any order: in memory up to a limit, the rest in pages of a file, of which the last used are kept.
pub(crate) struct PagedRows {
    memory: Batch,
    bytes: usize,
    limit: usize,
    spool: Option<Spool>,
    /// First row of each page, and where it begins in the file.
    pages: Vec<(usize, u64)>,
    /// What the last page holds.
    last_bytes: u64,
    kept: Vec<Kept>,
    /// Counts uses, to tell which page was used longest ago.
    clock: u64,
    len: usize,
}

/// A page in memory.
struct Kept {
    page: usize,
    used: u64,
    rows: Batch,
}

/// Rows of a page, bytes after which it has no more, and pages kept.
const PAGE_ROWS: usize = 64;
const PAGE_BYTES: u64 = 64 * 1024;
const PAGES_KEPT: usize = 8;

impl PagedRows {
    /// None, of which about this many bytes are kept in memory.
    pub fn new(width: usize, limit: usize) -> PagedRows {
        PagedRows {
            memory: Batch::new(width),
            bytes: 0,
            limit,
            spool: None,
            pages: Vec::new(),
            last_bytes: 0,
            kept: Vec::new(),
            clock: 0,
            len: 0,
        }
    }
    /// Bytes of the rows in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Whether rows are in a file.
    pub fn is_spilled(&self) -> bool {
        self.spool.is_some()
    }
    /// Rows held.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Appends a row.
    pub fn push(&mut self, row: &[Datum]) -> Result<()> {
        let Some(spool) = &mut self.spool else {
            let bytes = value::row_bytes(row);
            if self.bytes + bytes > self.limit && self.len > 0 {
                self.spool = Some(Spool::new()?);
                return self.push(row);
            }
            self.bytes += bytes;
            self.memory.push(row);
            self.len += 1;
            return Ok(());
        };
        let is_full =
            self.pages.last().is_none_or(|(first, _)| self.len - first >= PAGE_ROWS || self.last_bytes >= PAGE_BYTES);
        if is_full {
            self.pages.push((self.len, spool.end()));
            self.last_bytes = 0;
        } else if let Some(at) = self.kept.iter().position(|k| k.page == self.pages.len() - 1) {
            // It was read before it had all its rows.
            self.kept.swap_remove(at);
        }
        let before = spool.end();
        spool.push(row)?;
        self.last_bytes += spool.end() - before;
        self.len += 1;
        Ok(())
    }
    /// A row.
    pub fn row(&mut self, at: usize) -> Result<&[Datum]> {
        if at < self.memory.len() {
            return Ok(self.memory.row(at));
        }
        let page = self.pages.partition_point(|(first, _)| *first <= at).checked_sub(1).ok_or_else(corrupt)?;
        let first = self.pages[page].0;
        self.clock += 1;
        let kept = match self.kept.iter().position(|k| k.page == page) {
            Some(kept) => kept,
            None => self.load(page)?,
        };
        self.kept[kept].used = self.clock;
        Ok(self.kept[kept].rows.row(at - first))
    }

    /// Reads a page in the place of the one used longest ago.
    fn load(&mut self, page: usize) -> Result<usize> {
        let Some(spool) = &mut self.spool else { return Err(corrupt()) };
        spool.flush()?;
        let place = if self.kept.len() < PAGES_KEPT {
            self.kept.push(Kept { page, used: 0, rows: Batch::default() });
            self.kept.len() - 1
        } else {
            self.kept.iter().enumerate().min_by_key(|(_, k)| k.used).map_or(0, |(i, _)| i)
        };
        let kept = &mut self.kept[place];
        let (first, offset) = self.pages[page];
        let end = self.pages.get(page + 1).map_or(self.len, |(next, _)| *next);
        kept.page = page;
        kept.rows.reset(self.memory.width());
        let mut reader = SpoolReader::at(offset);
        for _ in first..end {
            if !reader.next(spool, kept.rows.values())? {
                return Err(corrupt());
            }
            kept.rows.close_row();
        }
        Ok(place)
    }
}

fn io_error(e: std::io::Error) -> SqlError {
    let state = if e.kind() == std::io::ErrorKind::StorageFull { state::DISK_FULL } else { state::IO_ERROR };
    SqlError::new(state, format!("could not use a temporary file: {e}"))
}

fn corrupt() -> SqlError {
    SqlError::new(state::IO_ERROR, "a temporary file does not hold what was written")
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn write_datum(d: &Datum, out: &mut Vec<u8>) {
    macro_rules! fixed {
        ($tag:expr, $v:expr) => {{
            out.push($tag);
            out.extend_from_slice(&$v.to_le_bytes());
        }};
    }
    match d {
        Datum::Null => out.push(0),
        Datum::Bool(v) => out.extend_from_slice(&[1, u8::from(*v)]),
        Datum::Int2(v) => fixed!(2, v),
        Datum::Int4(v) => fixed!(3, v),
        Datum::Int8(v) => fixed!(4, v),
        Datum::Float4(v) => fixed!(5, v),
        Datum::Float8(v) => fixed!(6, v),
        Datum::Numeric(v) => {
            let mut bytes = Vec::new();
            v.send(&mut bytes);
            out.push(7);
            write_bytes(&bytes, out);
        }
        Datum::Text(v) => {
            out.push(8);
            write_bytes(v.as_bytes(), out);
        }
        Datum::Bytea(v) => {
            out.push(9);
            write_bytes(v, out);
        }
        Datum::Date(v) => fixed!(10, v),
        Datum::Time(v) => fixed!(11, v),
        Datum::Timestamp(v) => fixed!(12, v),
        Datum::TimestampTz(v) => fixed!(13, v),
        Datum::Interval(v) => {
            fixed!(14, v.months);
            out.extend_from_slice(&v.days.to_le_bytes());
            out.extend_from_slice(&v.micros.to_le_bytes());
        }
        Datum::Uuid(v) => {
            out.push(15);
            out.extend_from_slice(&v[..]);
        }
        Datum::Oid(v) => fixed!(16, v),
        Datum::Jsonb(v) => {
            out.push(19);
            write_bytes(v.bytes(), out);
        }
        Datum::Array(a) => {
            fixed!(17, a.elem.0);
            out.extend_from_slice(&(a.dims.len() as u32).to_le_bytes());
            for (length, lower) in &a.dims {
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&lower.to_le_bytes());
            }
            out.extend_from_slice(&(a.values.len() as u32).to_le_bytes());
            a.values.iter().for_each(|v| write_datum(v, out));
        }
        Datum::Record(r) => {
            fixed!(18, (r.fields.len() as u32));
            for (name, ty) in r.fields.iter() {
                write_bytes(name.as_bytes(), out);
                out.extend_from_slice(&ty.ty.0.to_le_bytes());
                out.extend_from_slice(&ty.typmod.to_le_bytes());
            }
            r.values.iter().for_each(|v| write_datum(v, out));
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count).ok_or_else(corrupt)?;
    *bytes = rest;
    Ok(head)
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    Ok(take(bytes, N)?.try_into().expect("N bytes were taken"))
}

fn read_u32(bytes: &mut &[u8]) -> Result<u32> {
    Ok(u32::from_le_bytes(fixed(bytes)?))
}

fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = read_u32(bytes)? as usize;
    take(bytes, length)
}

fn read_str<'a>(bytes: &mut &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(read_bytes(bytes)?).map_err(|_| corrupt())
}

fn read_datum(bytes: &mut &[u8]) -> Result<Datum> {
    let [tag] = fixed(bytes)?;
    Ok(match tag {
        0 => Datum::Null,
        1 => Datum::Bool(fixed::<1>(bytes)? == [1]),
        2 => Datum::Int2(i16::from_le_bytes(fixed(bytes)?)),
        3 => Datum::Int4(i32::from_le_bytes(fixed(bytes)?)),
        4 => Datum::Int8(i64::from_le_bytes(fixed(bytes)?)),
        5 => Datum::Float4(f32::from_le_bytes(fixed(bytes)?)),
        6 => Datum::Float8(f64::from_le_bytes(fixed(bytes)?)),
        7 => Datum::Numeric(Numeric::recv(read_bytes(bytes)?)?),
        8 => Datum::Text(Arc::from(read_str(bytes)?)),
        9 => Datum::Bytea(Arc::from(read_bytes(bytes)?)),
        10 => Datum::Date(i32::from_le_bytes(fixed(bytes)?)),
        11 => Datum::Time(i64::from_le_bytes(fixed(bytes)?)),
        12 => Datum::Timestamp(i64::from_le_bytes(fixed(bytes)?)),
        13 => Datum::TimestampTz(i64::from_le_bytes(fixed(bytes)?)),
        14 => {
            let (months, days) = (i32::from_le_bytes(fixed(bytes)?), i32::from_le_bytes(fixed(bytes)?));
            Datum::Interval(Interval { months, days, micros: i64::from_le_bytes(fixed(bytes)?) })
        }
        15 => Datum::Uuid(Box::new(fixed(bytes)?)),
        16 => Datum::Oid(read_u32(bytes)?),
        19 => Datum::Jsonb(Jsonb::from_stored(read_bytes(bytes)?).ok_or_else(corrupt)?),
        17 => {
            let elem = Type(read_u32(bytes)?);
            let count = read_u32(bytes)?;
            let dims = (0..count)
                .map(|_| Ok((i32::from_le_bytes(fixed(bytes)?), i32::from_le_bytes(fixed(bytes)?))))
                .collect::<Result<_>>()?;
            let count = read_u32(bytes)?;
            let values = (0..count).map(|_| read_datum(bytes)).collect::<Result<_>>()?;
            Datum::Array(Arc::new(Array { elem, dims, values }))
        }
        18 => {
            let count = read_u32(bytes)?;
            let mut fields = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let name: Arc<str> = Arc::from(read_str(bytes)?);
                let ty = Type(read_u32(bytes)?);
                fields.push((name, TypeMod { ty, typmod: i32::from_le_bytes(fixed(bytes)?) }));
            }
            let values = (0..count).map(|_| read_datum(bytes)).collect::<Result<_>>()?;
            Datum::Record(Arc::new(Record { fields: fields.into(), values }))
        }
        _ => return Err(corrupt()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Datum> {
        let record = Record {
            fields: Arc::from(vec![(Arc::from("f1"), Type::INT4.plain()), (Arc::from("f2"), Type::TEXT.plain())]),
            values: vec![Datum::Int4(1), Datum::Null],
        };
        vec![
            Datum::Null,
            Datum::Bool(true),
            Datum::Int2(-3),
            Datum::Int4(i32::MIN),
            Datum::Int8(i64::MAX),
            Datum::Float4(-0.0),
            Datum::Float8(f64::INFINITY),
            Datum::text("pad  "),
            Datum::bytea([0, 255]),
            Datum::Date(i32::MAX),
            Datum::Time(1),
            Datum::Timestamp(i64::MIN),
            Datum::TimestampTz(5),
            Datum::Interval(Interval { months: 1, days: -2, micros: 3 }),
            Datum::Uuid(Box::new([7; 16])),
            Datum::Oid(u32::MAX),
            Datum::Jsonb(Jsonb::parse(r#"{"b": [1.50, null, "é"], "a": {}}"#).unwrap()),
            Datum::Array(Arc::new(Array {
                elem: Type::INT4,
                dims: vec![(2, 0)],
                values: vec![Datum::Int4(1), Datum::Null],
            })),
            Datum::Record(Arc::new(record)),
        ]
    }

    #[test]
    fn values_come_back_as_they_were() {
        let row = all_kinds();
        let mut spool = Spool::new().unwrap();
        for _ in 0..2000 {
            spool.push(&row).unwrap();
        }
        spool.flush().unwrap();
        let (mut reader, mut back, mut count) = (SpoolReader::default(), Vec::new(), 0);
        while reader.next(&spool, &mut back).unwrap() {
            assert_eq!(format!("{back:?}"), format!("{row:?}"));
            back.clear();
            count += 1;
        }
        assert_eq!(count, 2000);
    }

    #[test]
    fn a_buffer_reads_the_same_from_memory_and_file() {
        for limit in [0, 500, 1 << 20] {
            let mut buffer = RowBuffer::new(1, limit);
            (0..100).for_each(|i| buffer.push(&[Datum::Int4(i)]).unwrap());
            assert_eq!(buffer.len(), 100);
            let (mut place, mut out, mut seen) = (BufferPlace::default(), Batch::new(1), Vec::new());
            out.target = 7;
            loop {
                out.reset(1);
                if !buffer.read(&mut place, &mut out).unwrap() {
                    break;
                }
                seen.extend(out.iter().map(|r| value::integer(&r[0]).unwrap()));
            }
            assert_eq!(seen, (0..100).collect::<Vec<i64>>());
        }
    }

    #[test]
    fn pages_are_read_in_any_order() {
        for limit in [0, 500, 1 << 20] {
            let mut rows = PagedRows::new(2, limit);
            for i in 0..3000 {
                rows.push(&[Datum::Int4(i), Datum::text("x".repeat(i as usize % 3000))]).unwrap();
                let at = (i as usize * 7919) % rows.len();
                assert_eq!(value::integer(&rows.row(at).unwrap()[0]), Some(at as i64));
                assert_eq!(value::integer(&rows.row(i as usize).unwrap()[0]), Some(i.into()));
            }
            assert_eq!(rows.len(), 3000);
            assert!(rows.bytes <= limit.max(100) && rows.kept.len() <= PAGES_KEPT);
        }
    }
}
