//! A row as bytes, and decoders that read only what a query needs.
//!
//! ```text
//! 01                   format of the row; or 02 and four bytes, little endian: the number of the transaction that wrote it
//! varint               number of slots; a table only ever gains slots
//! ceil(slots/8) bytes  null bits, lowest first; a dropped column is always NULL
//! values               of the slots that are not NULL, in order
//!
//! bool 1 byte · int2 2 · int4 date oid float4 4 · int8 time timestamp[tz] float8 8 · uuid 16, all little endian but uuid
//! interval             months i32, days i32, micros i64
//! text, bytea, json    varint length, bytes
//! jsonb                varint length, its own form, see types/json.rs
//! numeric              varint length, then: scale u8 and the digits as a number, see put_numeric
//! array                varint length, then: element type oid varint, number of dimensions u8, (length varint, lower bound zigzag varint)
//!                      each, null bits of the elements, values
//! ```
//!
//! Varints are LEB128. A slot beyond those stored was added to the table later and has the column's `missing` value.
//! A value's length is known from the column's type or stands before it, so columns are stepped over without being decoded.

use std::sync::{Arc, OnceLock};

use super::key::is_oid;
use crate::catalog::Catalog;
use crate::catalog::schema::{Column, Table};
use crate::error::{Result, SqlError, state};
use crate::functions::context::{CancelFlag, DateOrder, Services, SessionCx};
use crate::types::timezone::TimeZone;
use crate::types::{Array, Datum, Interval, Jsonb, Numeric, Row, Type, io};

/// First byte of a row that nobody signed, as all were once and those are that a rewrite of their table made.
const FORMAT: u8 = 1;
/// First byte of a row with the number of the transaction that wrote it.
const FORMAT_STAMPED: u8 = 2;
/// What PostgreSQL calls the transaction of a row that is older than all it knows of.
const FROZEN: u32 = 2;

/// The number of the transaction that wrote a row: xmin.
pub fn written_by(bytes: &[u8]) -> u32 {
    match bytes {
        [FORMAT_STAMPED, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => FROZEN,
    }
}

/// Writes rows of one table. Made once a statement.
pub struct RowEncoder {
    /// For each slot the position among the live columns; None for dropped ones.
    slots: Vec<Option<usize>>,
}

impl RowEncoder {
    /// For rows of this table's live columns.
    pub fn new(table: &Table) -> RowEncoder {
        let mut position = 0;
        let slots = table
            .slots
            .iter()
            .map(|c| {
                if c.dropped {
                    return None;
                }
                position += 1;
                Some(position - 1)
            })
            .collect();
        RowEncoder { slots }
    }
    /// Appends the row's bytes. `row` has one value for each live column, each of its column's type.
    pub fn encode(&self, row: &[Datum], out: &mut Vec<u8>) {
        out.push(FORMAT);
        self.encode_values(row, out);
    }
    /// As [`RowEncoder::encode`], with the number of the transaction that writes it.
    pub fn encode_by(&self, row: &[Datum], written_by: u32, out: &mut Vec<u8>) {
        out.push(FORMAT_STAMPED);
        out.extend_from_slice(&written_by.to_le_bytes());
        self.encode_values(row, out);
    }

    fn encode_values(&self, row: &[Datum], out: &mut Vec<u8>) {
        put_varint(self.slots.len() as u64, out);
        let bits = out.len();
        out.resize(bits + self.slots.len().div_ceil(8), 0);
        for (slot, position) in self.slots.iter().enumerate() {
            match position.map(|p| &row[p]) {
                None | Some(Datum::Null) => out[bits + slot / 8] |= 1 << (slot % 8),
                Some(value) => put_value(value, out),
            }
        }
    }
}

/// Whether two values of one type are stored as the same bytes. Equal values need not be: 1.0 and 1.00, a month and 30 days, 0 and -0.
pub fn is_stored_alike(a: &Datum, b: &Datum) -> bool {
    if a.is_null() || b.is_null() {
        return a.is_null() && b.is_null();
    }
    let mut bytes = [Vec::new(), Vec::new()];
    put_value(a, &mut bytes[0]);
    put_value(b, &mut bytes[1]);
    bytes[0] == bytes[1]
}

/// Reads chosen columns of one table's rows, by a plan made once. Cheap to share; holds no state of a row.
#[derive(Clone, Debug)]
pub struct Decoder {
    steps: Arc<[Step]>,
    /// Values for slots that a row does not have; one for each value of the result.
    missing: Arc<[Datum]>,
}

/// What to do with one slot. Slots after the last needed one have no step.
#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    /// Where the value goes in the result, if it is wanted.
    target: Option<usize>,
}

/// How a type's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Oid,
    Text,
    Bytea,
    Numeric,
    Jsonb,
    Array,
}

impl Decoder {
    /// Reads the columns at these positions among the live ones; the result has a value for every live column, NULL where not asked for.
    pub fn new(table: &Table, needed: &[usize]) -> Decoder {
        let width = table.width();
        let wanted = |p: usize| needed.contains(&p).then_some(p);
        Decoder::plan(table, width, wanted)
    }
    /// Reads all live columns.
    pub fn all(table: &Table) -> Decoder {
        Decoder::plan(table, table.width(), Some)
    }
    /// Reads these columns; the result has just them, in the order given (each named once).
    pub fn projecting(table: &Table, columns: &[usize]) -> Decoder {
        Decoder::plan(table, columns.len(), |p| columns.iter().position(|c| *c == p))
    }

    fn plan(table: &Table, width: usize, target: impl Fn(usize) -> Option<usize>) -> Decoder {
        let mut steps = Vec::with_capacity(table.slots.len());
        let mut missing = vec![Datum::Null; width];
        let (mut position, mut used) = (0, 0);
        for (slot, column) in table.slots.iter().enumerate() {
            let mut step = Step { kind: Kind::of(Type(column.ty)), target: None };
            if !column.dropped {
                step.target = target(position);
                position += 1;
            }
            if let Some(target) = step.target {
                used = slot + 1;
                missing[target] = missing_value(column);
            }
            steps.push(step);
        }
        steps.truncate(used);
        Decoder { steps: steps.into(), missing: missing.into() }
    }

    /// How many values a decoded row has.
    pub fn width(&self) -> usize {
        self.missing.len()
    }
    /// A row from its bytes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Row> {
        let mut row = Vec::with_capacity(self.width());
        self.decode_into(bytes, &mut row)?;
        Ok(row)
    }
    /// Appends a row's values to `out`.
    pub fn decode_into(&self, bytes: &[u8], out: &mut Row) -> Result<()> {
        let first = out.len();
        out.resize(first + self.width(), Datum::Null);
        self.fill(bytes, &mut out[first..]).ok_or_else(corrupt)
    }

    /// None: the bytes are broken.
    fn fill(&self, bytes: &[u8], out: &mut [Datum]) -> Option<()> {
        let mut rest = match bytes {
            [FORMAT, rest @ ..] => rest,
            [FORMAT_STAMPED, _, _, _, _, rest @ ..] => rest,
            _ => return None,
        };
        let stored = get_varint(&mut rest)? as usize;
        let (nulls, mut rest) = rest.split_at_checked(stored.div_ceil(8))?;
        for (slot, step) in self.steps.iter().enumerate() {
            if slot >= stored {
                if let Some(target) = step.target {
                    out[target] = self.missing[target].clone();
                }
            } else if nulls[slot / 8] & (1 << (slot % 8)) == 0 {
                match step.target {
                    Some(target) => out[target] = step.kind.get(&mut rest)?,
                    None => step.kind.skip(&mut rest)?,
                }
            }
        }
        Some(())
    }
}

impl Kind {
    fn of(ty: Type) -> Kind {
        match ty {
            Type::BOOL => Kind::Bool,
            Type::INT2 => Kind::Int2,
            Type::INT4 => Kind::Int4,
            Type::INT8 => Kind::Int8,
            Type::FLOAT4 => Kind::Float4,
            Type::FLOAT8 => Kind::Float8,
            Type::DATE => Kind::Date,
            Type::TIME => Kind::Time,
            Type::TIMESTAMP => Kind::Timestamp,
            Type::TIMESTAMPTZ => Kind::TimestampTz,
            Type::INTERVAL => Kind::Interval,
            Type::UUID => Kind::Uuid,
            Type::BYTEA => Kind::Bytea,
            Type::NUMERIC => Kind::Numeric,
            Type::JSONB => Kind::Jsonb,
            _ if is_oid(ty) => Kind::Oid,
            _ if ty.element().is_some() => Kind::Array,
            _ => Kind::Text,
        }
    }

    #[inline]
    fn get(self, rest: &mut &[u8]) -> Option<Datum> {
        Some(match self {
            Kind::Bool => Datum::Bool(take(rest, 1)?[0] != 0),
            Kind::Int2 => Datum::Int2(i16::from_le_bytes(array(rest)?)),
            Kind::Int4 => Datum::Int4(i32::from_le_bytes(array(rest)?)),
            Kind::Int8 => Datum::Int8(i64::from_le_bytes(array(rest)?)),
            Kind::Float4 => Datum::Float4(f32::from_le_bytes(array(rest)?)),
            Kind::Float8 => Datum::Float8(f64::from_le_bytes(array(rest)?)),
            Kind::Date => Datum::Date(i32::from_le_bytes(array(rest)?)),
            Kind::Time => Datum::Time(i64::from_le_bytes(array(rest)?)),
            Kind::Timestamp => Datum::Timestamp(i64::from_le_bytes(array(rest)?)),
            Kind::TimestampTz => Datum::TimestampTz(i64::from_le_bytes(array(rest)?)),
            Kind::Oid => Datum::Oid(u32::from_le_bytes(array(rest)?)),
            Kind::Uuid => Datum::Uuid(Box::new(array(rest)?)),
            Kind::Interval => Datum::Interval(Interval {
                months: i32::from_le_bytes(array(rest)?),
                days: i32::from_le_bytes(array(rest)?),
                micros: i64::from_le_bytes(array(rest)?),
            }),
            Kind::Text => Datum::Text(Arc::from(std::str::from_utf8(sized(rest)?).ok()?)),
            Kind::Bytea => Datum::Bytea(Arc::from(sized(rest)?)),
            Kind::Numeric => Datum::Numeric(get_numeric(sized(rest)?)?),
            Kind::Jsonb => Datum::Jsonb(Jsonb::from_stored(sized(rest)?)?),
            Kind::Array => Datum::Array(Arc::new(get_array(sized(rest)?)?)),
        })
    }

    #[inline]
    fn skip(self, rest: &mut &[u8]) -> Option<()> {
        let len = match self {
            Kind::Bool => 1,
            Kind::Int2 => 2,
            Kind::Int4 | Kind::Date | Kind::Oid | Kind::Float4 => 4,
            Kind::Int8 | Kind::Time | Kind::Timestamp | Kind::TimestampTz | Kind::Float8 => 8,
            Kind::Uuid | Kind::Interval => 16,
            Kind::Text | Kind::Bytea | Kind::Numeric | Kind::Jsonb | Kind::Array => get_varint(rest)? as usize,
        };
        take(rest, len).map(|_| ())
    }
}

/// Appends a value's stored form; it is not NULL.
fn put_value(value: &Datum, out: &mut Vec<u8>) {
    match value {
        Datum::Null => debug_assert!(false, "NULL is a bit, not a value"),
        Datum::Bool(v) => out.push(u8::from(*v)),
        Datum::Int2(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Int4(v) | Datum::Date(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => {
            out.extend_from_slice(&v.to_le_bytes())
        }
        Datum::Float4(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Float8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Oid(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Uuid(v) => out.extend_from_slice(&v[..]),
        Datum::Interval(v) => {
            out.extend_from_slice(&v.months.to_le_bytes());
            out.extend_from_slice(&v.days.to_le_bytes());
            out.extend_from_slice(&v.micros.to_le_bytes());
        }
        Datum::Text(v) => put_sized(v.as_bytes(), out),
        Datum::Bytea(v) => put_sized(v, out),
        Datum::Numeric(v) => sized_by(out, |out| put_numeric(v, out)),
        Datum::Jsonb(v) => put_sized(v.bytes(), out),
        Datum::Array(v) => sized_by(out, |out| put_array(v, out)),
        Datum::Record(_) => debug_assert!(false, "no column has type record"),
    }
}

/// The display scale and the shortest two's complement of the digits; or ff and the wire's form, for what is long, NaN or infinite.
fn put_numeric(value: &Numeric, out: &mut Vec<u8>) {
    match value.to_scaled_i128() {
        Some((unscaled, scale)) if scale < 0xff => {
            out.push(scale as u8);
            let bytes = unscaled.to_le_bytes();
            let fill = (unscaled >> 127) as u8;
            let mut len = bytes.iter().rposition(|b| *b != fill).map_or(0, |last| last + 1);
            // The sign must be readable from the last byte kept.
            if len > 0 && (bytes[len - 1] ^ fill) & 0x80 != 0 || len == 0 && fill != 0 {
                len += 1;
            }
            out.extend_from_slice(&bytes[..len]);
        }
        _ => {
            out.push(0xff);
            value.send(out);
        }
    }
}

fn get_numeric(bytes: &[u8]) -> Option<Numeric> {
    match bytes.split_first()? {
        (0xff, wire) => Numeric::recv(wire).ok(),
        (scale, digits) if digits.len() <= 16 => {
            let negative = digits.last().is_some_and(|b| b & 0x80 != 0);
            let mut unscaled = [if negative { 0xff } else { 0 }; 16];
            unscaled[..digits.len()].copy_from_slice(digits);
            Some(Numeric::from_scaled(i128::from_le_bytes(unscaled), u16::from(*scale)))
        }
        _ => None,
    }
}

fn put_array(array: &Array, out: &mut Vec<u8>) {
    put_varint(u64::from(array.elem.0), out);
    out.push(array.dims.len() as u8);
    for (len, lower) in &array.dims {
        put_varint(*len as u64, out);
        put_varint(((lower << 1) ^ (lower >> 31)) as u32 as u64, out);
    }
    let bits = out.len();
    out.resize(bits + array.values.len().div_ceil(8), 0);
    for (i, value) in array.values.iter().enumerate() {
        match value {
            Datum::Null => out[bits + i / 8] |= 1 << (i % 8),
            value => put_value(value, out),
        }
    }
}

fn get_array(mut bytes: &[u8]) -> Option<Array> {
    let rest = &mut bytes;
    let elem = Type(u32::try_from(get_varint(rest)?).ok()?);
    let mut dims = Vec::new();
    let mut count = 1usize;
    for _ in 0..take(rest, 1)?[0] {
        let len = get_varint(rest)? as i32;
        let lower = get_varint(rest)? as u32;
        count = count.checked_mul(usize::try_from(len).ok()?)?;
        dims.push((len, ((lower >> 1) as i32) ^ -((lower & 1) as i32)));
    }
    if dims.is_empty() {
        count = 0;
    }
    let nulls = take(rest, count.div_ceil(8))?;
    let kind = Kind::of(elem);
    let mut values = Vec::with_capacity(count);
    for i in 0..count {
        let null = nulls[i / 8] & (1 << (i % 8)) != 0;
        values.push(if null { Datum::Null } else { kind.get(rest)? });
    }
    Some(Array { elem, dims, values })
}

/// The value of rows stored before the column was added.
fn missing_value(column: &Column) -> Datum {
    let Some(text) = &column.missing else { return Datum::Null };
    // What was written by `text_out` in the same neutral surroundings can be read.
    io::text_in(text, column.type_mod(), storage_cx()).unwrap_or_default()
}

/// Surroundings that never change, for values kept as text in definitions: UTC, ISO dates.
pub fn storage_cx() -> &'static SessionCx {
    static CX: OnceLock<SessionCx> = OnceLock::new();
    CX.get_or_init(|| SessionCx {
        time_zone: TimeZone::utc(),
        date_order: DateOrder::Ymd,
        bytea_hex: true,
        transaction_micros: 0,
        statement_micros: 0,
        user: String::new(),
        database: String::new(),
        search_path: Vec::new(),
        backend_pid: 0,
        catalog: Arc::new(Catalog::default()),
        services: Arc::new(NoServices),
        cancel: Arc::new(CancelFlag::default()),
        work_mem_bytes: 1 << 20,
        memory: Arc::default(),
        random: parking_lot::Mutex::new(0),
    })
}

/// Nothing a stored value could ask for.
struct NoServices;

fn none<T>() -> Result<T> {
    Err(SqlError::internal("a stored value depends on a session"))
}

impl Services for NoServices {
    fn nextval(&self, _: u32) -> Result<i64> {
        none()
    }
    fn currval(&self, _: u32) -> Result<i64> {
        none()
    }
    fn lastval(&self) -> Result<i64> {
        none()
    }
    fn setval(&self, _: u32, _: i64, _: bool) -> Result<i64> {
        none()
    }
    fn setting(&self, _: &str) -> Option<String> {
        None
    }
    fn set_config(&self, _: &str, _: Option<&str>, _: bool) -> Result<String> {
        none()
    }
    fn version(&self) -> u64 {
        0
    }
    fn key(&self) -> [u8; 32] {
        [0; 32]
    }
    fn export_snapshot(&self) -> Result<String> {
        none()
    }
    fn wait_for(&self, _: u64, _: i64) -> Result<bool> {
        none()
    }
    fn sleep(&self, _: f64) -> Result<()> {
        none()
    }
    fn transaction_id(&self) -> u64 {
        0
    }
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[inline]
fn get_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        v |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(v);
        }
    }
    None
}

fn put_sized(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends what `write` writes, preceded by its length.
fn sized_by(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
        return;
    }
    let mut head = Vec::with_capacity(10);
    put_varint(len as u64, &mut head);
    out.splice(at..=at, head);
}

#[inline]
fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = get_varint(rest)?;
    take(rest, usize::try_from(len).ok()?)
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

#[inline]
fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn corrupt() -> SqlError {
    SqlError::new(state::DATA_CORRUPTED, "a row of this database breaks the format")
}
