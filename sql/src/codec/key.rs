//! One value as bytes that sort as the value does.
//!
//! ```text
//! bool                       00 or 01
//! int2 int4 int8 date time   big endian, the sign bit flipped
//! timestamp timestamptz
//! oid and reg*               big endian
//! float4 float8              IEEE bits, big endian: sign flipped if positive, all flipped if negative; -0 as 0; NaN greatest
//! numeric                    Numeric::to_sortable: equal numbers give equal bytes whatever their display scale
//! text, varchar, bytea       the bytes with 00 written as 00 ff, then 00 01; char(n) without its trailing blanks
//! uuid                       16 bytes
//! interval                   its span in microseconds (months of 30 days), 16 bytes, the sign bit flipped
//! jsonb                      Jsonb::to_sortable: as with numeric, equal values give equal bytes
//! array                      an element: 02 and its bytes, NULL: 03; then 01, number of dimensions, lengths, lower bounds
//! ```
//!
//! DESC complements every byte. In an index each column is preceded by a marker that places NULLs: a value has 01, a NULL 02 (NULLS LAST)
//! or 00 (NULLS FIRST), whatever the direction. Primary keys have no NULLs and no markers.
//!
//! No encoding is a prefix of another one of its type, and this holds for the complement too.

use std::ops::Bound;

use bytes::Bytes;
use pgbee_engine::bee::KeyRange;

use super::keyspace::{end_of_prefix, successor};
use crate::error::{Result, SqlError, state};
use crate::types::{Array, Datum, Interval, Jsonb, Numeric, Type};

const VALUE: u8 = 0x01;
const NULL_FIRST: u8 = 0x00;
const NULL_LAST: u8 = 0x02;
const ARRAY_END: u8 = 0x01;
const ARRAY_VALUE: u8 = 0x02;
const ARRAY_NULL: u8 = 0x03;

/// How one column of a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its type.
    pub ty: Type,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
    /// Whether a NULL marker precedes it: in indexes yes, in primary keys no.
    pub marker: bool,
}

impl KeyColumn {
    /// A column of a primary key.
    pub fn primary(ty: Type) -> KeyColumn {
        KeyColumn { ty, desc: false, nulls_first: false, marker: false }
    }
    /// A column of an index.
    pub fn index(ty: Type, desc: bool, nulls_first: bool) -> KeyColumn {
        KeyColumn { ty, desc, nulls_first, marker: true }
    }
    /// Appends a value. Without marker the value must not be NULL.
    pub fn encode(&self, value: &Datum, out: &mut Vec<u8>) {
        if self.marker {
            out.push(if value.is_null() { self.null_marker() } else { VALUE });
        }
        if value.is_null() {
            debug_assert!(self.marker, "NULL in a primary key");
            return;
        }
        let start = out.len();
        encode_value(value, self.ty, out);
        if self.desc {
            out[start..].iter_mut().for_each(|b| *b = !*b);
        }
    }
    /// Takes one value off the front of `bytes`. The value equals the one encoded; it is the very same only if [`key_is_lossless`].
    pub fn decode(&self, bytes: &mut &[u8]) -> Result<Datum> {
        if self.take_marker(bytes)? {
            return Ok(Datum::Null);
        }
        if !self.desc {
            return decode_value(self.ty, bytes);
        }
        let flipped: Vec<u8> = bytes.iter().map(|b| !*b).collect();
        let mut rest = &flipped[..];
        let value = decode_value(self.ty, &mut rest)?;
        *bytes = &bytes[flipped.len() - rest.len()..];
        Ok(value)
    }
    /// Steps over one value at the front of `bytes`.
    pub fn skip(&self, bytes: &mut &[u8]) -> Result<()> {
        if self.take_marker(bytes)? {
            return Ok(());
        }
        let mask = if self.desc { 0xff } else { 0 };
        let len = match fixed_len(self.ty) {
            Some(len) => len,
            None if escaped(self.ty) => escaped_len(bytes, mask).ok_or_else(corrupt)?,
            None => return self.skip_slowly(bytes),
        };
        take(bytes, len).map(|_| ())
    }

    fn skip_slowly(&self, bytes: &mut &[u8]) -> Result<()> {
        KeyColumn { marker: false, ..*self }.decode(bytes).map(|_| ())
    }
    fn null_marker(&self) -> u8 {
        if self.nulls_first { NULL_FIRST } else { NULL_LAST }
    }
    /// Takes the marker, if there is one; whether it says NULL.
    fn take_marker(&self, bytes: &mut &[u8]) -> Result<bool> {
        Ok(self.marker && take(bytes, 1)?[0] != VALUE)
    }

    /// The keys that begin with `prefix` (the encoded columns before this one) and whose value of this column lies within the bounds.
    /// NULLs never do. Unbounded on both sides: all that are not NULL.
    pub fn range(&self, prefix: &[u8], lower: Bound<&Datum>, upper: Bound<&Datum>) -> KeyRange {
        let (lower, upper) = if self.desc { (upper, lower) } else { (lower, upper) };
        let with = |value: &Datum| {
            let mut key = prefix.to_vec();
            self.encode(value, &mut key);
            key
        };
        let start = match lower {
            Bound::Included(v) => Bound::Included(with(v)),
            Bound::Excluded(v) => successor(&with(v)).map_or(Bound::Unbounded, Bound::Included),
            Bound::Unbounded if self.marker => Bound::Included([prefix, &[VALUE]].concat()),
            Bound::Unbounded => Bound::Included(prefix.to_vec()),
        };
        let end = match upper {
            Bound::Included(v) => end_of_prefix(&with(v)),
            Bound::Excluded(v) => Bound::Excluded(Bytes::from(with(v))),
            Bound::Unbounded if self.marker => Bound::Excluded(Bytes::from([prefix, &[VALUE + 1]].concat())),
            Bound::Unbounded => end_of_prefix(prefix),
        };
        KeyRange { start: start.map(Bytes::from), end }
    }
}

/// Whether a key gives back exactly what was encoded, so that an index alone can answer for the column.
pub fn key_is_lossless(ty: Type) -> bool {
    match ty {
        Type::NUMERIC | Type::BPCHAR | Type::INTERVAL | Type::FLOAT4 | Type::FLOAT8 | Type::JSONB | Type::RECORD => {
            false
        }
        _ => ty.element().is_none_or(key_is_lossless),
    }
}

/// Whether values of a type can be keys at all.
pub fn is_key_type(ty: Type) -> bool {
    match ty.element() {
        Some(elem) => is_key_type(elem),
        None => fixed_len(ty).is_some() || escaped(ty) || matches!(ty, Type::NUMERIC | Type::JSONB),
    }
}

/// Appends a value with its NULL marker, as a column of an index.
pub fn encode(value: &Datum, ty: Type, desc: bool, nulls_first: bool, out: &mut Vec<u8>) {
    KeyColumn::index(ty, desc, nulls_first).encode(value, out);
}

/// Takes such a column off the front of `bytes`.
pub fn decode(ty: Type, desc: bool, nulls_first: bool, bytes: &mut &[u8]) -> Result<Datum> {
    KeyColumn::index(ty, desc, nulls_first).decode(bytes)
}

/// Appends a value that is not NULL, ascending, without marker.
pub fn encode_value(value: &Datum, ty: Type, out: &mut Vec<u8>) {
    match value {
        Datum::Null => debug_assert!(false, "NULL has no sortable form of its own"),
        Datum::Bool(v) => out.push(u8::from(*v)),
        Datum::Int2(v) => out.extend_from_slice(&((*v as u16) ^ (1 << 15)).to_be_bytes()),
        Datum::Int4(v) | Datum::Date(v) => out.extend_from_slice(&flip32(*v)),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => {
            out.extend_from_slice(&flip64(*v))
        }
        Datum::Float4(v) => {
            let bits = if v.is_nan() {
                u32::MAX >> 1
            } else if *v == 0.0 {
                0
            } else {
                v.to_bits()
            };
            let mask = ((bits as i32 >> 31) as u32) | (1 << 31);
            out.extend_from_slice(&(bits ^ mask).to_be_bytes());
        }
        Datum::Float8(v) => {
            let bits = if v.is_nan() {
                u64::MAX >> 1
            } else if *v == 0.0 {
                0
            } else {
                v.to_bits()
            };
            let mask = ((bits as i64 >> 63) as u64) | (1 << 63);
            out.extend_from_slice(&(bits ^ mask).to_be_bytes());
        }
        Datum::Numeric(v) => v.to_sortable(out),
        Datum::Text(v) if ty == Type::BPCHAR => escape(v.trim_end_matches(' ').as_bytes(), out),
        Datum::Text(v) => escape(v.as_bytes(), out),
        Datum::Bytea(v) => escape(v, out),
        Datum::Interval(v) => out.extend_from_slice(&((span(v) as u128) ^ (1 << 127)).to_be_bytes()),
        Datum::Uuid(v) => out.extend_from_slice(&v[..]),
        Datum::Oid(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Jsonb(v) => v.to_sortable(out),
        Datum::Array(v) => encode_array(v, ty.element().unwrap_or(v.elem), out),
        Datum::Record(v) => {
            for (value, (_, field)) in v.values.iter().zip(v.fields.iter()) {
                KeyColumn::index(field.ty, false, false).encode(value, out);
            }
        }
    }
}

fn encode_array(array: &Array, elem: Type, out: &mut Vec<u8>) {
    for value in &array.values {
        if value.is_null() {
            out.push(ARRAY_NULL);
        } else {
            out.push(ARRAY_VALUE);
            encode_value(value, elem, out);
        }
    }
    out.push(ARRAY_END);
    out.push(array.dims.len() as u8);
    array.dims.iter().for_each(|(len, _)| out.extend_from_slice(&flip32(*len)));
    array.dims.iter().for_each(|(_, lower)| out.extend_from_slice(&flip32(*lower)));
}

/// Takes a value that is not NULL off the front of `bytes`.
pub fn decode_value(ty: Type, bytes: &mut &[u8]) -> Result<Datum> {
    if let Some(elem) = ty.element() {
        return decode_array(elem, bytes);
    }
    Ok(match ty {
        Type::BOOL => Datum::Bool(take(bytes, 1)?[0] != 0),
        Type::INT2 => Datum::Int2((u16::from_be_bytes(take_array(bytes)?) ^ (1 << 15)) as i16),
        Type::INT4 => Datum::Int4(unflip32(take_array(bytes)?)),
        Type::INT8 => Datum::Int8(unflip64(take_array(bytes)?)),
        Type::DATE => Datum::Date(unflip32(take_array(bytes)?)),
        Type::TIME => Datum::Time(unflip64(take_array(bytes)?)),
        Type::TIMESTAMP => Datum::Timestamp(unflip64(take_array(bytes)?)),
        Type::TIMESTAMPTZ => Datum::TimestampTz(unflip64(take_array(bytes)?)),
        Type::FLOAT4 => {
            let bits = u32::from_be_bytes(take_array(bytes)?);
            Datum::Float4(f32::from_bits(if bits >> 31 == 1 { bits ^ (1 << 31) } else { !bits }))
        }
        Type::FLOAT8 => {
            let bits = u64::from_be_bytes(take_array(bytes)?);
            Datum::Float8(f64::from_bits(if bits >> 63 == 1 { bits ^ (1 << 63) } else { !bits }))
        }
        Type::NUMERIC => {
            let (value, len) = Numeric::from_sortable(bytes).ok_or_else(corrupt)?;
            take(bytes, len)?;
            Datum::Numeric(value)
        }
        Type::INTERVAL => {
            let span = (u128::from_be_bytes(take_array(bytes)?) ^ (1 << 127)) as i128;
            let days = span.div_euclid(DAY);
            let months = (days / 30).clamp(i32::MIN.into(), i32::MAX.into());
            Datum::Interval(Interval {
                months: months as i32,
                days: (days - months * 30) as i32,
                micros: span.rem_euclid(DAY) as i64,
            })
        }
        Type::UUID => Datum::Uuid(Box::new(take_array(bytes)?)),
        Type::JSONB => {
            let (value, len) = Jsonb::from_sortable(bytes).ok_or_else(corrupt)?;
            take(bytes, len)?;
            Datum::Jsonb(value)
        }
        Type::BYTEA => Datum::Bytea(unescape(bytes)?.into()),
        _ if is_oid(ty) => Datum::Oid(u32::from_be_bytes(take_array(bytes)?)),
        _ if escaped(ty) => {
            let text = String::from_utf8(unescape(bytes)?).map_err(|_| corrupt())?;
            Datum::Text(text.into())
        }
        _ => return Err(corrupt()),
    })
}

fn decode_array(elem: Type, bytes: &mut &[u8]) -> Result<Datum> {
    let mut values = Vec::new();
    loop {
        match take(bytes, 1)?[0] {
            ARRAY_VALUE => values.push(decode_value(elem, bytes)?),
            ARRAY_NULL => values.push(Datum::Null),
            ARRAY_END => break,
            _ => return Err(corrupt()),
        }
    }
    let count = usize::from(take(bytes, 1)?[0]);
    let mut dims = Vec::with_capacity(count);
    for _ in 0..count {
        dims.push((unflip32(take_array(bytes)?), 0));
    }
    for dim in &mut dims {
        dim.1 = unflip32(take_array(bytes)?);
    }
    Ok(Datum::Array(Array { elem, dims, values }.into()))
}

const DAY: i128 = 86_400_000_000;

/// The interval in microseconds, by which intervals are compared.
fn span(v: &Interval) -> i128 {
    (i128::from(v.months) * 30 + i128::from(v.days)) * DAY + i128::from(v.micros)
}

fn fixed_len(ty: Type) -> Option<usize> {
    Some(match ty {
        Type::BOOL => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::DATE | Type::FLOAT4 => 4,
        Type::INT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::FLOAT8 => 8,
        Type::UUID | Type::INTERVAL => 16,
        _ if is_oid(ty) => 4,
        _ => return None,
    })
}

/// Types whose values are [`Datum::Oid`].
pub(super) fn is_oid(ty: Type) -> bool {
    matches!(
        ty,
        Type::OID
            | Type::XID
            | Type::REGPROC
            | Type::REGPROCEDURE
            | Type::REGOPER
            | Type::REGCLASS
            | Type::REGTYPE
            | Type::REGNAMESPACE
            | Type::REGROLE
    )
}

fn escaped(ty: Type) -> bool {
    matches!(ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::BYTEA | Type::NAME | Type::CHAR | Type::UNKNOWN)
}

fn flip32(v: i32) -> [u8; 4] {
    ((v as u32) ^ (1 << 31)).to_be_bytes()
}
fn flip64(v: i64) -> [u8; 8] {
    ((v as u64) ^ (1 << 63)).to_be_bytes()
}
fn unflip32(b: [u8; 4]) -> i32 {
    (u32::from_be_bytes(b) ^ (1 << 31)) as i32
}
fn unflip64(b: [u8; 8]) -> i64 {
    (u64::from_be_bytes(b) ^ (1 << 63)) as i64
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|b| *b == 0) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[0x00, 0xff]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0x00, 0x01]);
}

/// Length of an escaped value at the front of `bytes`, terminator included; `mask` undoes DESC.
fn escaped_len(bytes: &[u8], mask: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|b| *b == mask)?;
        match bytes.get(at + 1)? ^ mask {
            0x01 => return Some(at + 2),
            0xff => at += 2,
            _ => return None,
        }
    }
}

fn unescape(bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let len = escaped_len(bytes, 0).ok_or_else(corrupt)?;
    let mut rest = &take(bytes, len)?[..len - 2];
    let mut out = Vec::with_capacity(rest.len());
    while let Some(zero) = rest.iter().position(|b| *b == 0) {
        out.extend_from_slice(&rest[..=zero]);
        rest = &rest[zero + 2..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len).ok_or_else(corrupt)?;
    *bytes = tail;
    Ok(head)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    take(bytes, N)?.try_into().map_err(|_| corrupt())
}

fn corrupt() -> SqlError {
    SqlError::new(state::DATA_CORRUPTED, "a key of this database breaks the format")
}
