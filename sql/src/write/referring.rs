//! Which types a foreign key may join, and how a value of one side is told as the other side's.
//!
//! ```text
//! the same type                          as it is
//! smallint, integer, bigint              each as another, where it fits
//! integers -> numeric, real, double      numeric -> real, double      real <-> double
//! text, varchar, name; char(n)           blanks at the end of a char(n) mean nothing
//! date <-> timestamp
//! integers -> oid
//! ```
//!
//! What PostgreSQL allows besides (a date for a timestamp with time zone, domains) is refused with the error it has for types that do not compare.

use crate::types::{Datum, Numeric, Type};

const MICROS_PER_DAY: i64 = 86_400_000_000;

fn is_integer(ty: Type) -> bool {
    matches!(ty, Type::INT2 | Type::INT4 | Type::INT8)
}
fn is_string(ty: Type) -> bool {
    matches!(ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME)
}

/// Whether columns of one type may refer to columns of another.
pub fn may_refer(from: Type, to: Type) -> bool {
    from == to
        || is_integer(from) && (is_integer(to) || matches!(to, Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 | Type::OID))
        || from == Type::NUMERIC && matches!(to, Type::FLOAT4 | Type::FLOAT8)
        || matches!((from, to), (Type::FLOAT4, Type::FLOAT8) | (Type::FLOAT8, Type::FLOAT4))
        || is_string(from) && is_string(to) && !(from == Type::NAME && to == Type::BPCHAR)
        || matches!((from, to), (Type::DATE, Type::TIMESTAMP) | (Type::TIMESTAMP, Type::DATE))
}

/// Whether each value of either type equals at most one of the other, which [`as_referenced`] then finds in both directions: the rows that refer to a
/// value can be looked up by it.
pub fn is_one_key(a: Type, b: Type) -> bool {
    let is_plain = |ty| is_string(ty) && ty != Type::BPCHAR;
    a == b
        || is_integer(a) && is_integer(b)
        || is_plain(a) && is_plain(b)
        || matches!((a, b), (Type::DATE, Type::TIMESTAMP) | (Type::TIMESTAMP, Type::DATE))
}

/// The value of type `to` that equals a value of type `from`; None if there is none. NULL stays NULL.
pub fn as_referenced(value: &Datum, from: Type, to: Type) -> Option<Datum> {
    if from == to || value.is_null() {
        return Some(value.clone());
    }
    if is_string(from) && is_string(to) {
        let Datum::Text(text) = value else { return None };
        return Some(if from == Type::BPCHAR { Datum::text(text.trim_end_matches(' ')) } else { value.clone() });
    }
    let integer = match value {
        Datum::Int2(v) => Some(i64::from(*v)),
        Datum::Int4(v) => Some(i64::from(*v)),
        Datum::Int8(v) => Some(*v),
        _ => None,
    };
    if let Some(v) = integer {
        return match to {
            Type::INT2 => i16::try_from(v).ok().map(Datum::Int2),
            Type::INT4 => i32::try_from(v).ok().map(Datum::Int4),
            Type::INT8 => Some(Datum::Int8(v)),
            Type::OID => u32::try_from(v).ok().map(Datum::Oid),
            Type::NUMERIC => Some(Datum::Numeric(Numeric::from_i64(v))),
            Type::FLOAT4 => Some(Datum::Float4(v as f32)),
            Type::FLOAT8 => Some(Datum::Float8(v as f64)),
            _ => None,
        };
    }
    match (value, to) {
        (Datum::Numeric(v), Type::FLOAT8) => Some(Datum::Float8(v.to_f64_lossy())),
        (Datum::Numeric(v), Type::FLOAT4) => Some(Datum::Float4(v.to_f64_lossy() as f32)),
        (Datum::Float4(v), Type::FLOAT8) => Some(Datum::Float8(f64::from(*v))),
        (Datum::Float8(v), Type::FLOAT4) => {
            let near = *v as f32;
            (f64::from(near) == *v || v.is_nan()).then_some(Datum::Float4(near))
        }
        // The infinities of both are their ends.
        (Datum::Date(i32::MAX), Type::TIMESTAMP) => Some(Datum::Timestamp(i64::MAX)),
        (Datum::Date(i32::MIN), Type::TIMESTAMP) => Some(Datum::Timestamp(i64::MIN)),
        (Datum::Date(v), Type::TIMESTAMP) => i64::from(*v).checked_mul(MICROS_PER_DAY).map(Datum::Timestamp),
        (Datum::Timestamp(i64::MAX), Type::DATE) => Some(Datum::Date(i32::MAX)),
        (Datum::Timestamp(i64::MIN), Type::DATE) => Some(Datum::Date(i32::MIN)),
        (Datum::Timestamp(v), Type::DATE) => {
            (v % MICROS_PER_DAY == 0).then(|| i32::try_from(v / MICROS_PER_DAY).ok().map(Datum::Date))?
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_as_the_other_sides() {
        let int8 = |v| Datum::Int8(v);
        assert!(matches!(as_referenced(&int8(7), Type::INT8, Type::INT2), Some(Datum::Int2(7))));
        assert!(as_referenced(&int8(70_000), Type::INT8, Type::INT2).is_none());
        assert!(matches!(as_referenced(&Datum::Null, Type::INT8, Type::NUMERIC), Some(Datum::Null)));
        let padded = as_referenced(&Datum::text("a  "), Type::BPCHAR, Type::TEXT);
        assert!(matches!(padded, Some(Datum::Text(t)) if &*t == "a"));
        let day = as_referenced(&Datum::Date(1), Type::DATE, Type::TIMESTAMP);
        assert!(matches!(day, Some(Datum::Timestamp(MICROS_PER_DAY))));
        assert!(as_referenced(&Datum::Timestamp(1), Type::TIMESTAMP, Type::DATE).is_none());
        assert!(as_referenced(&Datum::Float8(0.1), Type::FLOAT8, Type::FLOAT4).is_none());
    }

    #[test]
    fn what_may_refer_is_what_can_be_told() {
        let types =
            [Type::INT2, Type::INT8, Type::NUMERIC, Type::FLOAT8, Type::TEXT, Type::BPCHAR, Type::DATE, Type::UUID];
        assert!(may_refer(Type::INT2, Type::NUMERIC) && !may_refer(Type::NUMERIC, Type::INT2));
        assert!(may_refer(Type::BPCHAR, Type::TEXT) && !may_refer(Type::INT4, Type::TEXT));
        for (a, b) in types.iter().flat_map(|a| types.iter().map(move |b| (*a, *b))) {
            assert!(!is_one_key(a, b) || may_refer(a, b), "{a:?} {b:?}");
        }
    }
}
