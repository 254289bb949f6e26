//! One value, and a row of them.
//!
//! A [`Datum`] is 24 bytes and cheap to clone: what is larger is shared. It does not know its SQL type: `Text` serves
//! text, varchar, char(n) (kept padded), name, "char", json and unknown literals; `Oid` serves oid and the reg* types.
//! The order and equality of values are those of PostgreSQL's default btree operator class for the type, collation C.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Array, Interval, Jsonb, Numeric, Type};

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
    /// text, varchar, char(n) with its padding, name, "char", json, unknown
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
    /// jsonb
    Jsonb(Jsonb),
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

impl Datum {
    /// Order by the type's default btree operator class. NULL, where a caller or an enclosing array or row holds one, is greater than
    /// all values and equal to itself. Both values must be of one type; integers of different widths compare by value.
    ///
    /// char(n) and "char" order otherwise than the text they are kept as: for those use [`compare_typed`].
    pub fn compare(&self, other: &Datum) -> Ordering {
        match (self, other) {
            (Datum::Int4(a), Datum::Int4(b)) => a.cmp(b),
            (Datum::Int8(a), Datum::Int8(b)) => a.cmp(b),
            (Datum::Text(a), Datum::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Datum::Null, Datum::Null) => Ordering::Equal,
            (Datum::Null, _) => Ordering::Greater,
            (_, Datum::Null) => Ordering::Less,
            (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
            (Datum::Int2(a), Datum::Int2(b)) => a.cmp(b),
            (Datum::Float4(a), Datum::Float4(b)) => compare_f64(f64::from(*a), f64::from(*b)),
            (Datum::Float8(a), Datum::Float8(b)) => compare_f64(*a, *b),
            (Datum::Numeric(a), Datum::Numeric(b)) => a.cmp(b),
            (Datum::Bytea(a), Datum::Bytea(b)) => a.cmp(b),
            (Datum::Date(a), Datum::Date(b)) => a.cmp(b),
            (Datum::Time(a), Datum::Time(b)) => a.cmp(b),
            (Datum::Timestamp(a), Datum::Timestamp(b)) => a.cmp(b),
            (Datum::TimestampTz(a), Datum::TimestampTz(b)) => a.cmp(b),
            (Datum::Interval(a), Datum::Interval(b)) => a.span().cmp(&b.span()),
            (Datum::Uuid(a), Datum::Uuid(b)) => a.cmp(b),
            (Datum::Oid(a), Datum::Oid(b)) => a.cmp(b),
            (Datum::Jsonb(a), Datum::Jsonb(b)) => a.cmp(b),
            (Datum::Array(a), Datum::Array(b)) => a.compare(b),
            (Datum::Record(a), Datum::Record(b)) => a.compare(b),
            (a, b) => match (a.as_integer(), b.as_integer()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.rank().cmp(&b.rank()),
            },
        }
    }
    /// Feeds a hasher so that values equal by [`equal_typed`] feed the same: 1.10 as 1.1, -0.0 as 0.0, an interval its span, char(n) without
    /// its padding, and integers of all widths alike.
    pub fn hash_into(&self, state: &mut impl Hasher, ty: Type) {
        match self {
            Datum::Null => state.write_u8(0),
            Datum::Bool(b) => state.write_u8(1 + u8::from(*b)),
            Datum::Int2(n) => state.write_i64(i64::from(*n)),
            Datum::Int4(n) => state.write_i64(i64::from(*n)),
            Datum::Int8(n) => state.write_i64(*n),
            Datum::Float4(f) => state.write_u64(float_bits(f64::from(*f))),
            Datum::Float8(f) => state.write_u64(float_bits(*f)),
            Datum::Numeric(n) => n.hash(state),
            Datum::Text(s) => {
                let s: &str = if ty == Type::BPCHAR { s.trim_end_matches(' ') } else { s };
                state.write(s.as_bytes());
                state.write_u8(0xff);
            }
            Datum::Bytea(b) => {
                state.write(b);
                state.write_usize(b.len());
            }
            Datum::Date(d) => state.write_i32(*d),
            Datum::Time(t) | Datum::Timestamp(t) | Datum::TimestampTz(t) => state.write_i64(*t),
            Datum::Interval(i) => state.write_i128(i.span()),
            Datum::Uuid(u) => state.write(&u[..]),
            Datum::Oid(o) => state.write_u32(*o),
            Datum::Jsonb(j) => j.hash(state),
            Datum::Array(a) => {
                state.write_usize(a.values.len());
                a.values.iter().for_each(|v| v.hash_into(state, a.elem));
            }
            Datum::Record(r) => {
                for (value, (_, field)) in r.values.iter().zip(r.fields.iter()) {
                    value.hash_into(state, field.ty);
                }
            }
        }
    }
    /// Bytes on the heap, shared ones counted in full: what memory accounting adds for each value kept.
    pub fn heap_bytes(&self) -> usize {
        const ARC: usize = 16;
        match self {
            Datum::Text(s) => s.len() + ARC,
            Datum::Bytea(b) => b.len() + ARC,
            Datum::Uuid(_) => 16,
            Datum::Jsonb(j) => j.bytes().len() + ARC,
            Datum::Numeric(n) => n.heap_bytes(),
            Datum::Array(a) => ARC + std::mem::size_of::<super::Array>() + a.dims.len() * 8 + rows_bytes(&a.values),
            Datum::Record(r) => ARC + std::mem::size_of::<Record>() + rows_bytes(&r.values),
            _ => 0,
        }
    }
    fn as_integer(&self) -> Option<i64> {
        match self {
            Datum::Int2(n) => Some(i64::from(*n)),
            Datum::Int4(n) => Some(i64::from(*n)),
            Datum::Int8(n) => Some(*n),
            _ => None,
        }
    }
    // Orders values of different types somehow: only a caller's mistake or a record of unlike columns comes here.
    fn rank(&self) -> u8 {
        match self {
            Datum::Bool(_) => 1,
            Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) => 2,
            Datum::Float4(_) => 3,
            Datum::Float8(_) => 4,
            Datum::Numeric(_) => 5,
            Datum::Text(_) => 6,
            Datum::Bytea(_) => 7,
            Datum::Date(_) => 8,
            Datum::Time(_) => 9,
            Datum::Timestamp(_) => 10,
            Datum::TimestampTz(_) => 11,
            Datum::Interval(_) => 12,
            Datum::Uuid(_) => 13,
            Datum::Oid(_) => 14,
            Datum::Array(_) => 15,
            Datum::Record(_) => 16,
            Datum::Jsonb(_) => 17,
            Datum::Null => 18,
        }
    }
}

/// [`Datum::compare`] for values of this type: char(n) without trailing blanks, "char" by its byte.
pub fn compare_typed(a: &Datum, b: &Datum, ty: Type) -> Ordering {
    match (ty, a, b) {
        (Type::BPCHAR, Datum::Text(a), Datum::Text(b)) => {
            a.trim_end_matches(' ').as_bytes().cmp(b.trim_end_matches(' ').as_bytes())
        }
        (Type::CHAR, Datum::Text(a), Datum::Text(b)) => super::io::char_byte(a).cmp(&super::io::char_byte(b)),
        _ => a.compare(b),
    }
}

/// Whether two values of this type are equal: `=`, with NULL equal to NULL (IS NOT DISTINCT FROM, DISTINCT, GROUP BY).
pub fn equal_typed(a: &Datum, b: &Datum, ty: Type) -> bool {
    match (a, b) {
        (Datum::Int4(a), Datum::Int4(b)) => a == b,
        (Datum::Int8(a), Datum::Int8(b)) => a == b,
        (Datum::Text(a), Datum::Text(b)) if ty != Type::BPCHAR => a == b,
        _ => compare_typed(a, b, ty).is_eq(),
    }
}

/// PostgreSQL's order of floats: NaN equals itself and is greater than all, -0 equals 0.
pub fn compare_f64(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

// One bit pattern for all NaNs, one for both zeros.
fn float_bits(f: f64) -> u64 {
    if f.is_nan() {
        f64::NAN.to_bits()
    } else if f == 0.0 {
        0
    } else {
        f.to_bits()
    }
}

fn rows_bytes(values: &[Datum]) -> usize {
    values.iter().map(|v| std::mem::size_of::<Datum>() + v.heap_bytes()).sum()
}

impl Record {
    /// Column by column, NULL last; a row that runs out first is the lesser.
    fn compare(&self, other: &Record) -> Ordering {
        let fields = self.fields.iter().map(|(_, t)| t.ty).chain(std::iter::repeat(Type::NONE));
        let pairs = self.values.iter().zip(&other.values).zip(fields);
        let differing = pairs.map(|((a, b), ty)| compare_typed(a, b, ty)).find(|o| o.is_ne());
        differing.unwrap_or_else(|| self.values.len().cmp(&other.values.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(d: &Datum, ty: Type) -> u64 {
        let mut h = rustc_hash::FxHasher::default();
        d.hash_into(&mut h, ty);
        h.finish()
    }

    #[test]
    fn equal_values_hash_alike() {
        let month = Interval { months: 1, days: 0, micros: 0 };
        let days = Interval { months: 0, days: 29, micros: 86_400_000_000 };
        for (a, b, ty) in [
            (Datum::text("a "), Datum::text("a"), Type::BPCHAR),
            (Datum::Float8(0.0), Datum::Float8(-0.0), Type::FLOAT8),
            (Datum::Float8(f64::NAN), Datum::Float8(-f64::NAN), Type::FLOAT8),
            (Datum::Interval(month), Datum::Interval(days), Type::INTERVAL),
            (Datum::Null, Datum::Null, Type::INT4),
        ] {
            assert!(equal_typed(&a, &b, ty), "{a:?} = {b:?}");
            assert_eq!(hash(&a, ty), hash(&b, ty), "{a:?} {b:?}");
        }
        assert!(!equal_typed(&Datum::text("a "), &Datum::text("a"), Type::TEXT));
    }

    #[test]
    fn order_puts_nan_and_null_last() {
        let mut floats = [Datum::Null, Datum::Float8(f64::NAN), Datum::Float8(f64::INFINITY), Datum::Float8(-1.0)];
        floats.sort_by(Datum::compare);
        assert!(
            matches!(floats, [Datum::Float8(a), Datum::Float8(b), Datum::Float8(c), Datum::Null] if a == -1.0 && b.is_infinite() && c.is_nan())
        );
        assert!(Datum::text("Y").compare(&Datum::text("x")).is_lt());
        assert!(Datum::text("é").compare(&Datum::text("z")).is_gt());
    }
}
