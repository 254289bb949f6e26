//! Arguments by kind: what a function's implementation says first.
//!
//! The binder has made every argument the declared type, so a mismatch is our own mistake and XX000; NULL is one too, for strict functions.
//! Those that take NULL ask [`is_null`] first.

use std::sync::Arc;

use crate::error::{Result, SqlError};
use crate::types::{Array, Datum, Jsonb, Numeric, Type};

fn mismatch() -> SqlError {
    SqlError::internal("a function was called with an argument of another type")
}

/// Whether an argument is absent or NULL.
pub(super) fn is_null(args: &[Datum], i: usize) -> bool {
    args.get(i).is_none_or(Datum::is_null)
}
/// A text, varchar, char(n), name or "char".
pub(super) fn text(args: &[Datum], i: usize) -> Result<&str> {
    match args.get(i) {
        Some(Datum::Text(s)) => Ok(s),
        _ => Err(mismatch()),
    }
}
/// A text to be kept beyond the call.
pub(super) fn shared_text(args: &[Datum], i: usize) -> Result<Arc<str>> {
    match args.get(i) {
        Some(Datum::Text(s)) => Ok(s.clone()),
        _ => Err(mismatch()),
    }
}
/// A text that may be NULL.
pub(super) fn text_or_null(args: &[Datum], i: usize) -> Result<Option<&str>> {
    if is_null(args, i) { Ok(None) } else { text(args, i).map(Some) }
}
/// A bytea.
pub(super) fn bytes(args: &[Datum], i: usize) -> Result<&[u8]> {
    match args.get(i) {
        Some(Datum::Bytea(b)) => Ok(b),
        _ => Err(mismatch()),
    }
}
/// An int2 or int4.
pub(super) fn int4(args: &[Datum], i: usize) -> Result<i32> {
    match args.get(i) {
        Some(Datum::Int4(n)) => Ok(*n),
        Some(Datum::Int2(n)) => Ok(i32::from(*n)),
        _ => Err(mismatch()),
    }
}
/// Any integer.
pub(super) fn int8(args: &[Datum], i: usize) -> Result<i64> {
    match args.get(i) {
        Some(Datum::Int8(n)) => Ok(*n),
        _ => int4(args, i).map(i64::from),
    }
}
/// A float8 or float4.
pub(super) fn float8(args: &[Datum], i: usize) -> Result<f64> {
    match args.get(i) {
        Some(Datum::Float8(f)) => Ok(*f),
        Some(Datum::Float4(f)) => Ok(f64::from(*f)),
        _ => Err(mismatch()),
    }
}
/// A numeric.
pub(super) fn numeric(args: &[Datum], i: usize) -> Result<&Numeric> {
    match args.get(i) {
        Some(Datum::Numeric(n)) => Ok(n),
        _ => Err(mismatch()),
    }
}
/// A bool.
pub(super) fn boolean(args: &[Datum], i: usize) -> Result<bool> {
    match args.get(i) {
        Some(Datum::Bool(b)) => Ok(*b),
        _ => Err(mismatch()),
    }
}
/// An oid, or a reg type.
pub(super) fn oid(args: &[Datum], i: usize) -> Result<u32> {
    match args.get(i) {
        Some(Datum::Oid(o)) => Ok(*o),
        Some(Datum::Int4(n)) => Ok(n.cast_unsigned()),
        _ => Err(mismatch()),
    }
}
/// A jsonb.
pub(super) fn jsonb(args: &[Datum], i: usize) -> Result<&Jsonb> {
    match args.get(i) {
        Some(Datum::Jsonb(j)) => Ok(j),
        _ => Err(mismatch()),
    }
}
/// An array.
pub(super) fn array(args: &[Datum], i: usize) -> Result<&Arc<Array>> {
    match args.get(i) {
        Some(Datum::Array(a)) => Ok(a),
        _ => Err(mismatch()),
    }
}
/// A text[] of these, with NULL for None.
pub(super) fn text_array<S: AsRef<str>>(values: impl IntoIterator<Item = Option<S>>) -> Datum {
    Array::from_values(Type::TEXT, values.into_iter().map(|v| v.map_or(Datum::Null, Datum::text)).collect()).datum()
}
/// How many of something, as int4.
pub(super) fn count(n: usize) -> Datum {
    Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX))
}
