//! Short names for the values catalog rows are made of.

use crate::types::{Array, Datum, Type};

pub(crate) const NULL: Datum = Datum::Null;

pub(crate) fn oid(n: u32) -> Datum {
    Datum::Oid(n)
}
pub(crate) fn text(s: impl AsRef<str>) -> Datum {
    Datum::text(s)
}
pub(crate) fn text_or_null(s: Option<impl AsRef<str>>) -> Datum {
    s.map_or(Datum::Null, Datum::text)
}
/// A "char".
pub(crate) fn char(c: char) -> Datum {
    Datum::text(c.encode_utf8(&mut [0; 4]))
}
pub(crate) fn bool(b: bool) -> Datum {
    Datum::Bool(b)
}
pub(crate) fn int2(n: impl TryInto<i16>) -> Datum {
    Datum::Int2(n.try_into().unwrap_or(i16::MAX))
}
pub(crate) fn int4(n: i32) -> Datum {
    Datum::Int4(n)
}
pub(crate) fn int8(n: i64) -> Datum {
    Datum::Int8(n)
}
/// An int2[].
pub(crate) fn int2s(values: impl IntoIterator<Item = i16>) -> Datum {
    Array::from_values(Type::INT2, values.into_iter().map(Datum::Int2).collect()).datum()
}
