//! Order, equality and round trips of keys and rows, over values chosen to be awkward.

use std::cmp::Ordering;
use std::ops::Bound;

use proptest::prelude::*;

use super::entry::{IndexCodec, RowKeyCodec};
use super::key::{KeyColumn, key_is_lossless};
use super::keyspace::{self, successor};
use super::row::{Decoder, RowEncoder};
use crate::catalog::schema::{Column, Index, IndexColumn, Key, Table};
use crate::types::{Array, Datum, Interval, Jsonb, Numeric, Type};

fn encode_row(table: &Table, row: &[Datum]) -> Vec<u8> {
    let mut out = Vec::new();
    RowEncoder::new(table).encode(row, &mut out);
    out
}

fn column(attnum: i16, ty: Type) -> Column {
    Column::new(attnum, format!("c{attnum}"), ty.plain())
}

fn table(types: &[Type]) -> Table {
    Table {
        oid: 16400,
        schema: 2200,
        name: "t".into(),
        slots: types.iter().enumerate().map(|(i, t)| column(i as i16 + 1, *t)).collect(),
        primary_key: None,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        foreign: None,
        comment: None,
    }
}

/// The order PostgreSQL gives two values, computed without the codec.
fn compare(a: &Datum, b: &Datum) -> Ordering {
    let float = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    let span = |v: &Interval| (i128::from(v.months) * 30 + i128::from(v.days)) * 86_400_000_000 + i128::from(v.micros);
    match (a, b) {
        (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
        (Datum::Int2(a), Datum::Int2(b)) => a.cmp(b),
        (Datum::Int4(a), Datum::Int4(b)) | (Datum::Date(a), Datum::Date(b)) => a.cmp(b),
        (Datum::Int8(a), Datum::Int8(b)) | (Datum::Timestamp(a), Datum::Timestamp(b)) => a.cmp(b),
        (Datum::Float4(a), Datum::Float4(b)) => float(f64::from(*a), f64::from(*b)),
        (Datum::Float8(a), Datum::Float8(b)) => float(*a, *b),
        (Datum::Text(a), Datum::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Datum::Bytea(a), Datum::Bytea(b)) => a.cmp(b),
        (Datum::Uuid(a), Datum::Uuid(b)) => a.cmp(b),
        (Datum::Jsonb(a), Datum::Jsonb(b)) => a.cmp(b),
        (Datum::Oid(a), Datum::Oid(b)) => a.cmp(b),
        (Datum::Interval(a), Datum::Interval(b)) => span(a).cmp(&span(b)),
        (Datum::Array(a), Datum::Array(b)) => {
            for (a, b) in a.values.iter().zip(&b.values) {
                let order = match (a.is_null(), b.is_null()) {
                    (false, false) => compare(a, b),
                    (a, b) => a.cmp(&b),
                };
                if order.is_ne() {
                    return order;
                }
            }
            a.values.len().cmp(&b.values.len()).then(a.dims.cmp(&b.dims))
        }
        _ => unreachable!("values of one type"),
    }
}

fn int4_array() -> impl Strategy<Value = Datum> {
    proptest::collection::vec(proptest::option::of(-2i32..3), 0..4).prop_map(|v| {
        let dims = if v.is_empty() { vec![] } else { vec![(v.len() as i32, 1)] };
        let values = v.into_iter().map(|v| v.map_or(Datum::Null, Datum::Int4)).collect();
        Datum::Array(Array { elem: Type::INT4, dims, values }.into())
    })
}

fn jsonb() -> impl Strategy<Value = Datum> {
    const TEXTS: &[&str] = &[
        "null",
        "[]",
        "[[]]",
        "[1, 1.0]",
        "[1]",
        "1.00",
        "\"\"",
        "\"a\"",
        "\"ab\"",
        "{}",
        "{\"a\": 1}",
        "{\"a\": 1.0}",
        "{\"b\": []}",
        "true",
    ];
    prop::sample::select(TEXTS).prop_map(|s| Datum::Jsonb(Jsonb::parse(s).expect(s)))
}

/// A type and two of its values, close together often enough to be equal or share prefixes.
fn pair() -> impl Strategy<Value = (Type, Datum, Datum)> {
    let f8 = prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(f64::NAN),
        Just(-f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        any::<f64>(),
        -2.0..2.0f64
    ];
    let f4 = prop_oneof![Just(0.0f32), Just(-0.0), Just(f32::NAN), Just(f32::NEG_INFINITY), any::<f32>()];
    let i8s = || prop_oneof![Just(i64::MIN), Just(i64::MAX), -2i64..3, any::<i64>()];
    let i4s = || prop_oneof![Just(i32::MIN), Just(i32::MAX), -2i32..3, any::<i32>()];
    let texts = "[a\u{0}\u{1}\u{ff} ]{0,4}";
    let bytes = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), Just(0xfe), any::<u8>()], 0..5);
    let spans = (-2i32..3, -60i32..61, prop_oneof![Just(86_400_000_000i64), -3i64..4, any::<i64>()]);
    let interval = spans.prop_map(|(months, days, micros)| Datum::Interval(Interval { months, days, micros }));
    fn two<S: Strategy<Value = Datum> + Clone + 'static>(ty: Type, s: S) -> BoxedStrategy<(Type, Datum, Datum)> {
        (s.clone(), s).prop_map(move |(a, b)| (ty, a, b)).boxed()
    }
    prop_oneof![
        two(Type::BOOL, any::<bool>().prop_map(Datum::Bool)),
        two(Type::INT2, any::<i16>().prop_map(Datum::Int2)),
        two(Type::INT4, i4s().prop_map(Datum::Int4)),
        two(Type::DATE, i4s().prop_map(Datum::Date)),
        two(Type::INT8, i8s().prop_map(Datum::Int8)),
        two(Type::TIMESTAMP, i8s().prop_map(Datum::Timestamp)),
        two(Type::FLOAT8, f8.prop_map(Datum::Float8)),
        two(Type::FLOAT4, f4.prop_map(Datum::Float4)),
        two(Type::TEXT, texts.prop_map(Datum::text).boxed()),
        two(Type::BYTEA, bytes.prop_map(Datum::bytea).boxed()),
        two(Type::UUID, any::<[u8; 16]>().prop_map(|b| Datum::Uuid(Box::new(b)))),
        two(Type::OID, any::<u32>().prop_map(Datum::Oid)),
        two(Type::JSONB, jsonb().boxed()),
        two(Type::INTERVAL, interval.boxed()),
        two(Type::INT4_ARRAY, int4_array().boxed()),
    ]
}

proptest! {
    #[test]
    fn keys_order_as_values((ty, a, b) in pair(), desc: bool, nulls_first: bool) {
        let column = KeyColumn::index(ty, desc, nulls_first);
        let key = |v: &Datum| { let mut k = vec![7]; column.encode(v, &mut k); k };
        let (ka, kb) = (key(&a), key(&b));
        let expected = if desc { compare(&a, &b).reverse() } else { compare(&a, &b) };
        prop_assert_eq!(ka.cmp(&kb), expected);
        prop_assert!(ka == kb || !ka.starts_with(&kb), "a key is a prefix of another");
        let null = key(&Datum::Null);
        prop_assert_eq!(null < ka, nulls_first);
        prop_assert!(null != ka);
    }

    #[test]
    fn keys_give_equal_values_back((ty, a, b) in pair(), desc: bool, marker: bool) {
        let column = KeyColumn { ty, desc, nulls_first: false, marker };
        let mut bytes = Vec::new();
        column.encode(&a, &mut bytes);
        column.encode(&b, &mut bytes);
        let mut rest = &bytes[..];
        let first = column.decode(&mut rest).unwrap();
        prop_assert_eq!(compare(&first, &a), Ordering::Equal);
        if key_is_lossless(ty) {
            prop_assert_eq!(format!("{first:?}"), format!("{a:?}"));
        }
        let mut skipped = &bytes[..];
        column.skip(&mut skipped).unwrap();
        prop_assert_eq!(skipped.len(), rest.len());
        prop_assert_eq!(compare(&column.decode(&mut rest).unwrap(), &b), Ordering::Equal);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn ranges_hold_what_lies_between((ty, a, b) in pair(), desc: bool, low in 0..3, high in 0..3) {
        let column = KeyColumn::index(ty, desc, desc);
        let bound = |kind, v| match kind { 0 => Bound::Unbounded, 1 => Bound::Included(v), _ => Bound::Excluded(v) };
        let (lower, upper) = (bound(low, &a), bound(high, &a));
        let range = column.range(&[9], lower, upper);
        let mut key = vec![9];
        column.encode(&b, &mut key);
        key.push(0x55); // what follows in an entry
        let order = compare(&b, &a);
        let inside = match low { 0 => true, 1 => order.is_ge(), _ => order.is_gt() } && match high { 0 => true, 1 => order.is_le(), _ => order.is_lt() };
        prop_assert_eq!(range.contains(&key), inside);
        let mut null = vec![9];
        column.encode(&Datum::Null, &mut null);
        null.push(0x55);
        prop_assert!(!range.contains(&null));
    }

    #[test]
    fn rows_come_back(values in proptest::collection::vec(pair(), 0..20), nulls in proptest::collection::vec(any::<bool>(), 20), want in proptest::collection::vec(any::<bool>(), 20)) {
        let types: Vec<Type> = values.iter().map(|v| v.0).collect();
        let t = table(&types);
        let row: Vec<Datum> = values.into_iter().zip(&nulls).map(|((_, v, _), null)| if *null { Datum::Null } else { v }).collect();
        let bytes = encode_row(&t, &row);
        prop_assert_eq!(format!("{:?}", Decoder::all(&t).decode(&bytes).unwrap()), format!("{row:?}"));
        let needed: Vec<usize> = (0..row.len()).filter(|i| want[*i]).collect();
        let some = Decoder::new(&t, &needed).decode(&bytes).unwrap();
        let expected: Vec<Datum> = row.iter().enumerate().map(|(i, v)| if want[i] { v.clone() } else { Datum::Null }).collect();
        prop_assert_eq!(format!("{some:?}"), format!("{expected:?}"));
        let reversed: Vec<usize> = needed.iter().rev().copied().collect();
        let projected = Decoder::projecting(&t, &reversed).decode(&bytes).unwrap();
        let expected: Vec<Datum> = reversed.iter().map(|i| row[*i].clone()).collect();
        prop_assert_eq!(format!("{projected:?}"), format!("{expected:?}"));
        for len in 0..bytes.len() {
            let _ = Decoder::all(&t).decode(&bytes[..len]); // broken bytes are an error or NULLs, never a panic
        }
    }
}

#[test]
fn bpchar_keys_ignore_trailing_blanks() {
    let column = KeyColumn::primary(Type::BPCHAR);
    let key = |s: &str| {
        let mut k = Vec::new();
        column.encode(&Datum::text(s), &mut k);
        k
    };
    assert_eq!(key("ab  "), key("ab"));
    assert_ne!(key(" ab"), key("ab"));
}

#[test]
fn numeric_keys_order_and_ignore_scale() {
    let texts = [
        "-Infinity",
        "-1e40",
        "-100000",
        "-32768",
        "-1.5",
        "-1",
        "-0.001",
        "0",
        "0.0001",
        "1",
        "1.1",
        "9.99",
        "10",
        "127",
        "128",
        "255",
        "256",
        "32768",
        "12345678901234567890.5",
        "1e60",
        "Infinity",
        "NaN",
    ];
    let keys: Vec<Vec<u8>> = texts
        .iter()
        .map(|t| {
            let mut k = Vec::new();
            KeyColumn::primary(Type::NUMERIC).encode(&Datum::Numeric(Numeric::parse(t).unwrap()), &mut k);
            k
        })
        .collect();
    assert!(keys.is_sorted_by(|a, b| a < b));
    let key = |t: &str| {
        let mut k = Vec::new();
        KeyColumn::primary(Type::NUMERIC).encode(&Datum::Numeric(Numeric::parse(t).unwrap()), &mut k);
        k
    };
    assert_eq!(key("1.10"), key("1.1"));
    for t in texts {
        let (t2, mut bytes) = (table(&[Type::NUMERIC]), key(t));
        bytes.push(1);
        let mut rest = &bytes[..];
        KeyColumn::primary(Type::NUMERIC).skip(&mut rest).unwrap();
        assert_eq!(rest, [1]);
        let row = [Datum::Numeric(Numeric::parse(t).unwrap())];
        let back = Decoder::all(&t2).decode(&encode_row(&t2, &row)).unwrap();
        let Datum::Numeric(back) = &back[0] else { panic!() };
        assert_eq!(back.to_string(), Numeric::parse(t).unwrap().to_string());
    }
}

#[test]
fn added_and_dropped_columns_keep_old_rows_readable() {
    let old = table(&[Type::INT4, Type::TEXT, Type::INT8]);
    let bytes = encode_row(&old, &[Datum::Int4(1), Datum::text("gone"), Datum::Int8(3)]);
    let mut new = old.clone();
    new.slots[1].dropped = true;
    new.slots.push(Column { missing: Some("42".into()), ..column(4, Type::INT4) });
    new.slots.push(column(5, Type::TEXT));
    let row = Decoder::all(&new).decode(&bytes).unwrap();
    assert_eq!(format!("{row:?}"), format!("{:?}", [Datum::Int4(1), Datum::Int8(3), Datum::Int4(42), Datum::Null]));
    let fresh = encode_row(&new, &[Datum::Int4(1), Datum::Int8(3), Datum::Null, Datum::text("x")]);
    let row = Decoder::projecting(&new, &[3, 2]).decode(&fresh).unwrap();
    assert_eq!(format!("{row:?}"), format!("{:?}", [Datum::text("x"), Datum::Null]));
}

#[test]
fn entries_lead_to_their_rows() {
    let mut t = table(&[Type::INT4, Type::TEXT, Type::INT8]);
    t.primary_key = Some(Key { oid: 1, name: "t_pkey".into(), columns: vec![3, 1], comment: None });
    let index = |unique, oid| Index {
        unique,
        ..Index::new(oid, "i".into(), vec![IndexColumn { attnum: 2, desc: true, nulls_first: true }])
    };
    t.indexes = vec![index(false, 16401), index(true, 16402)];
    let keys = RowKeyCodec::new(&t);
    assert!(!keys.by_row_id());
    for row in [[Datum::Int4(-5), Datum::text("x\0y"), Datum::Int8(7)], [Datum::Int4(0), Datum::Null, Datum::Int8(7)]] {
        let row_key = keys.encode(&row);
        assert_eq!(format!("{:?}", keys.decode(&row_key).unwrap()), format!("{:?}", [&row[2], &row[0]]));
        for index in &t.indexes {
            let codec = IndexCodec::new(&t, index);
            let (key, value) = codec.entry(&row, &row_key);
            assert_eq!(value.is_empty(), !index.unique || row[1].is_null());
            assert_eq!(codec.row_key(&key, &value).unwrap(), row_key);
            assert_eq!(format!("{:?}", codec.decode(&key).unwrap()), format!("{:?}", [&row[1]]));
            assert_eq!(codec.unique_key(&row).is_some(), index.unique && !row[1].is_null());
        }
    }
}

#[test]
fn row_ids_order_and_come_back() {
    let ids = [i64::MIN, -1, 0, 1, 255, 256, i64::MAX];
    let keys: Vec<_> = ids.iter().map(|id| keyspace::row_id_key(16384, *id)).collect();
    assert!(keys.is_sorted());
    assert_eq!(keys.iter().map(|k| keyspace::parse_row_id(k).unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!(successor(&[1, 0xff, 0xff]), Some(vec![2]));
    assert_eq!(successor(&[0xff]), None);
}
