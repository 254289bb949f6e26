//! One value, and a row of them.
//!
//! A [`Datum`] is 24 bytes and cheap to clone: what is larger is shared. It does not know its SQL type: `Text` serves
//! text, varchar, char(n) (kept padded), name, "char" and unknown literals; `Oid` serves oid and the reg* types.
//! The order and equality of values are those of PostgreSQL's default btree operator class for the type, collation C.

use std::sync::Arc;

use super::{Array, Interval, Numeric};

/// A row of values, in the order its schema gives.
pub type Row = Vec<Datum>;

/// A value, or NULL.
#[derive(Clone, Debug, Default)]
pub enum Datum {
    /// SQL NULL, of any type.
    #[default]
    Null,
    /// bool
    Bool(bool),
    /// int2
    Int2(i16),
    /// int4
    Int4(i32),
    /// int8
    Int8(i64),
    /// float4
    Float4(f32),
    /// float8
    Float8(f64),
    /// numeric
    Numeric(Numeric),
    /// text, varchar, char(n) with its padding, name, "char", unknown
    Text(Arc<str>),
    /// bytea
    Bytea(Arc<[u8]>),
    /// Days since 2000-01-01; `i32::MIN` and `i32::MAX` are -infinity and infinity.
    Date(i32),
    /// Microseconds since midnight, 0 to 86_400_000_000.
    Time(i64),
    /// Microseconds since 2000-01-01 00:00; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// Microseconds since 2000-01-01 00:00 UTC; infinities as in `Timestamp`.
    TimestampTz(i64),
    /// interval
    Interval(Interval),
    /// uuid
    Uuid(Box<[u8; 16]>),
    /// oid, regclass, regtype, regproc, regnamespace, xid
    Oid(u32),
    /// Any array; its element type stands in it.
    Array(Arc<Array>),
    /// A row value; field types stand in the expression that made it (or are unknown to the receiver: record).
    Record(Arc<Record>),
}

/// A composite value with the types of its fields.
#[derive(Clone, Debug)]
pub struct Record {
    /// Field names and types.
    pub fields: Arc<[(Arc<str>, super::TypeMod)]>,
    /// One value a field.
    pub values: Vec<Datum>,
}

const _: () = assert!(std::mem::size_of::<Datum>() <= 24);

impl Datum {
    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }
    /// A text value.
    pub fn text(s: impl AsRef<str>) -> Datum {
        Datum::Text(Arc::from(s.as_ref()))
    }
    /// A bytea value.
    pub fn bytea(b: impl AsRef<[u8]>) -> Datum {
        Datum::Bytea(Arc::from(b.as_ref()))
    }
}
