//! Comparing and hashing values the way operators need it: without their SQL type where the value tells enough.
//!
//! Equality here is that of the default btree operator class. Integers of all widths are one family, and so are the two float
//! types: their values compare and hash alike whatever their width, so a join may have int4 on one side and int8 on the other.
//! char(n) is the one type whose equality the value does not show (trailing blanks): [`normalise`] it first.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use crate::types::{Datum, Type};

/// The order of two values that need no function call; None: ask the type's own comparison.
#[inline]
pub fn native_order(a: &Datum, b: &Datum) -> Option<Ordering> {
    Some(match (a, b) {
        (Datum::Int4(a), Datum::Int4(b)) => a.cmp(b),
        (Datum::Int8(a), Datum::Int8(b)) => a.cmp(b),
        (Datum::Text(a), Datum::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Datum::Float8(a), Datum::Float8(b)) => float_order(*a, *b),
        (Datum::Float4(a), Datum::Float4(b)) => float_order((*a).into(), (*b).into()),
        (Datum::Float4(a), Datum::Float8(b)) => float_order((*a).into(), *b),
        (Datum::Float8(a), Datum::Float4(b)) => float_order(*a, (*b).into()),
        (Datum::Date(a), Datum::Date(b)) => a.cmp(b),
        (Datum::Timestamp(a), Datum::Timestamp(b)) => a.cmp(b),
        (Datum::TimestampTz(a), Datum::TimestampTz(b)) => a.cmp(b),
        (Datum::Time(a), Datum::Time(b)) => a.cmp(b),
        (Datum::Oid(a), Datum::Oid(b)) => a.cmp(b),
        (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
        (Datum::Uuid(a), Datum::Uuid(b)) => a.cmp(b),
        (Datum::Bytea(a), Datum::Bytea(b)) => a.cmp(b),
        _ => integer(a)?.cmp(&integer(b)?),
    })
}

/// The value of any integer type.
#[inline]
pub fn integer(d: &Datum) -> Option<i64> {
    match d {
        Datum::Int2(v) => Some((*v).into()),
        Datum::Int4(v) => Some((*v).into()),
        Datum::Int8(v) => Some(*v),
        _ => None,
    }
}

/// PostgreSQL's order of floats: NaN is equal to itself and greater than all others; -0 equals 0.
#[inline]
pub fn float_order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The order of two non-null values of one type (or of one family).
#[inline]
pub fn order(a: &Datum, b: &Datum) -> Ordering {
    native_order(a, b).unwrap_or_else(|| a.compare(b))
}

/// Whether two values are equal as keys of a group: NULL equals NULL.
#[inline]
pub fn same(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Null, _) | (_, Datum::Null) => false,
        _ => order(a, b) == Ordering::Equal,
    }
}

/// The order of two values of a type that may not be normalised.
pub fn order_as(ty: Type, a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Text(a), Datum::Text(b)) if ty == Type::BPCHAR => a.trim_end_matches(' ').cmp(b.trim_end_matches(' ')),
        _ => order(a, b),
    }
}

/// Whether two rows of keys are equal, NULLs equal to each other.
#[inline]
pub fn same_rows(a: &[Datum], b: &[Datum]) -> bool {
    a.iter().zip(b).all(|(a, b)| same(a, b))
}

/// Types whose equality the bare values do not show, and what to do with them before hashing and comparing.
#[inline]
pub fn needs_normalising(ty: Type) -> bool {
    ty == Type::BPCHAR || ty == Type::BPCHAR_ARRAY
}

/// A char(n) value without its trailing blanks; other values as they are.
pub fn normalise(d: Datum, ty: Type) -> Datum {
    match d {
        Datum::Text(s) if ty == Type::BPCHAR && s.ends_with(' ') => Datum::text(s.trim_end_matches(' ')),
        d => d,
    }
}

/// Whether values of this type can be keys of a hash table: equal values hash alike.
pub fn hashable(ty: Type) -> bool {
    // Rows may hold char(n) fields, and arrays of them, whose blanks we do not trim.
    ty != Type::RECORD && ty != Type::BPCHAR_ARRAY && ty != Type::RECORD_ARRAY
}

/// The family within which [`order`] and [`hash`] agree across types, or the type itself.
pub fn family(ty: Type) -> Type {
    match ty {
        Type::INT2 | Type::INT4 | Type::INT8 => Type::INT8,
        Type::FLOAT4 | Type::FLOAT8 => Type::FLOAT8,
        Type::TEXT | Type::VARCHAR | Type::NAME => Type::TEXT,
        ty => ty,
    }
}

/// Adds a value to a hash; values that are [`same`] add the same.
#[inline]
pub fn hash_value(d: &Datum, h: &mut FxHasher) {
    match d {
        Datum::Null => h.write_u64(0x9e37_79b9_7f4a_7c15),
        Datum::Bool(v) => h.write_u64(u64::from(*v)),
        Datum::Int2(v) => h.write_i64((*v).into()),
        Datum::Int4(v) => h.write_i64((*v).into()),
        Datum::Int8(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) | Datum::Time(v) => h.write_i64(*v),
        Datum::Date(v) => h.write_i64((*v).into()),
        Datum::Oid(v) => h.write_u64((*v).into()),
        Datum::Float4(v) => h.write_u64(float_bits((*v).into())),
        Datum::Float8(v) => h.write_u64(float_bits(*v)),
        Datum::Text(v) => h.write(v.as_bytes()),
        Datum::Bytea(v) => h.write(v),
        Datum::Uuid(v) => v.hash(h),
        other => other.hash_into(h, Type::NONE),
    }
}

fn float_bits(v: f64) -> u64 {
    if v == 0.0 {
        0
    } else if v.is_nan() {
        f64::NAN.to_bits()
    } else {
        v.to_bits()
    }
}

/// The hash of a row of keys.
#[inline]
pub fn hash_row(keys: &[Datum]) -> u64 {
    let mut h = FxHasher::default();
    for key in keys {
        hash_value(key, &mut h);
    }
    finish_hash(h)
}

/// The hash of what was fed to the hasher.
#[inline]
pub fn finish_hash(h: FxHasher) -> u64 {
    // Fx leaves little in the high bits of small inputs; partitions are chosen by them.
    h.finish().wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20)
}

/// Bytes a row takes: its values and what they point to. Shared parts are counted at every place.
pub fn row_bytes(row: &[Datum]) -> usize {
    std::mem::size_of_val(row) + row.iter().map(heap_bytes).sum::<usize>()
}

/// Bytes a value points to.
#[inline]
pub fn heap_bytes(d: &Datum) -> usize {
    match d {
        Datum::Text(s) => s.len() + 16,
        Datum::Bytea(b) => b.len() + 16,
        Datum::Uuid(_) => 16,
        Datum::Array(_) | Datum::Record(_) | Datum::Numeric(_) | Datum::Jsonb(_) => d.heap_bytes(),
        _ => 0,
    }
}

/// How a column of a sort key compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOrder {
    /// Descending.
    pub desc: bool,
    /// NULLs before all values.
    pub nulls_first: bool,
}

impl KeyOrder {
    /// The order of two values, NULLs included.
    #[inline]
    pub fn compare(self, a: &Datum, b: &Datum) -> Ordering {
        match (a.is_null(), b.is_null()) {
            (false, false) => {
                let order = order(a, b);
                if self.desc { order.reverse() } else { order }
            }
            (true, true) => Ordering::Equal,
            (a_null, _) => {
                if a_null == self.nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}
