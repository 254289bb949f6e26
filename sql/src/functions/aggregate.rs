//! Aggregates: counting, extremes, booleans, bits, and those that collect. Sums and statistics are in [`super::statistics`], percentiles in
//! [`super::ordered_set`].
//!
//! A state takes rows one at a time and gives its result as often as asked: over a window it is asked after every row.

use std::cmp::Ordering;
use std::sync::Arc;

use super::FnCx;
use super::args::{self, is_null};
use super::grow::{check_array_bytes, check_len};
use super::registry::{AggState, AggregateFn, Registry};
use crate::error::{Result, SqlError, state};
use crate::types::datum::compare_typed;
use crate::types::{Array, Datum, Type};

/// Makes a fresh state.
pub(super) type New = fn(&FnCx<'_>) -> Box<dyn AggState>;

/// Adds them all.
pub fn register(r: &mut Registry) {
    add(r, "count", &[], Type::INT8, |_| Box::new(Count(0)));
    add(r, "count", &[Type::ANY], Type::INT8, |_| Box::new(Count(0)));
    for ty in EXTREMES {
        add(r, "min", ty, ty[0], |_| Box::new(Extreme { best: Datum::Null, wanted: Ordering::Less }));
        add(r, "max", ty, ty[0], |_| Box::new(Extreme { best: Datum::Null, wanted: Ordering::Greater }));
    }
    add(r, "bool_and", &[Type::BOOL], Type::BOOL, |_| Box::new(Bools { all: true, value: None }));
    add(r, "every", &[Type::BOOL], Type::BOOL, |_| Box::new(Bools { all: true, value: None }));
    add(r, "bool_or", &[Type::BOOL], Type::BOOL, |_| Box::new(Bools { all: false, value: None }));
    for ty in [&[Type::INT2], &[Type::INT4], &[Type::INT8]] {
        add(r, "bit_and", ty, ty[0], |_| Box::new(Bits { value: None, combine: |a, b| a & b }));
        add(r, "bit_or", ty, ty[0], |_| Box::new(Bits { value: None, combine: |a, b| a | b }));
        add(r, "bit_xor", ty, ty[0], |_| Box::new(Bits { value: None, combine: |a, b| a ^ b }));
    }
    let mut collect = |name, args, ret, new| {
        r.aggregate(AggregateFn { name, args, variadic: None, ret, strict: false, ordered_set: None, new })
    };
    collect("string_agg", &[Type::TEXT, Type::TEXT], Type::TEXT, |_| Box::new(Joined::default()));
    collect("string_agg", &[Type::BYTEA, Type::BYTEA], Type::BYTEA, |_| Box::new(Joined::default()));
    collect("array_agg", &[Type::ANYNONARRAY], Type::ANYARRAY, |_| Box::new(Collected::default()));
    collect("array_agg", &[Type::ANYARRAY], Type::ANYARRAY, |_| Box::new(Stacked::default()));
    super::statistics::register(r);
    super::ordered_set::register(r);
}

/// Adds an aggregate that skips rows with a NULL.
pub(super) fn add(r: &mut Registry, name: &'static str, args: &'static [Type], ret: Type, new: New) {
    r.aggregate(AggregateFn { name, args, variadic: None, ret, strict: true, ordered_set: None, new });
}

/// What min() and max() take, as in PostgreSQL 15: neither booleans nor uuids.
static EXTREMES: [&[Type]; 16] = [
    &[Type::INT8],
    &[Type::INT4],
    &[Type::INT2],
    &[Type::OID],
    &[Type::FLOAT4],
    &[Type::FLOAT8],
    &[Type::DATE],
    &[Type::TIME],
    &[Type::TIMESTAMP],
    &[Type::TIMESTAMPTZ],
    &[Type::INTERVAL],
    &[Type::TEXT],
    &[Type::NUMERIC],
    &[Type::ANYARRAY],
    &[Type::BPCHAR],
    &[Type::TID],
];

struct Count(i64);

impl AggState for Count {
    fn update(&mut self, _: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.0 += 1;
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(Datum::Int8(self.0))
    }
}

struct Extreme {
    best: Datum,
    wanted: Ordering,
}

impl AggState for Extreme {
    fn update(&mut self, a: &[Datum], cx: &FnCx<'_>) -> Result<()> {
        let ty = cx.arg_types.first().copied().unwrap_or(Type::NONE);
        // Of equal values that print differently (1.1 and 1.10) the last stays, of char(n) the first: as PostgreSQL's functions have it.
        let order = compare_typed(&a[0], &self.best, ty);
        if self.best.is_null() || order == self.wanted || (order.is_eq() && ty != Type::BPCHAR) {
            self.best = a[0].clone();
        }
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(self.best.clone())
    }
    fn heap_bytes(&self) -> usize {
        self.best.heap_bytes()
    }
}

struct Bools {
    all: bool,
    value: Option<bool>,
}

impl AggState for Bools {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        let b = args::boolean(a, 0)?;
        self.value = Some(match self.value {
            None => b,
            Some(v) if self.all => v && b,
            Some(v) => v || b,
        });
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(self.value.map_or(Datum::Null, Datum::Bool))
    }
}

struct Bits {
    value: Option<i64>,
    combine: fn(i64, i64) -> i64,
}

impl AggState for Bits {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        let n = args::int8(a, 0)?;
        self.value = Some(self.value.map_or(n, |v| (self.combine)(v, n)));
        Ok(())
    }
    fn finish(&mut self, cx: &FnCx<'_>) -> Result<Datum> {
        let Some(n) = self.value else { return Ok(Datum::Null) };
        // The bits of sign-extended numbers fit the type they came from.
        Ok(match cx.ret {
            Type::INT2 => Datum::Int2(n as i16),
            Type::INT4 => Datum::Int4(n as i32),
            _ => Datum::Int8(n),
        })
    }
}

// string_agg: each value but the first comes behind its row's separator.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    any: bool,
}

impl AggState for Joined {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        if is_null(a, 0) {
            return Ok(());
        }
        let part = |i: usize| match a.get(i) {
            Some(Datum::Text(s)) => s.as_bytes(),
            Some(Datum::Bytea(b)) => b,
            _ => &[],
        };
        let separator = if self.any { part(1) } else { &[] };
        check_len(self.bytes.len() + separator.len() + part(0).len())?;
        self.any = true;
        self.bytes.extend_from_slice(separator);
        self.bytes.extend_from_slice(part(0));
        Ok(())
    }
    fn finish(&mut self, cx: &FnCx<'_>) -> Result<Datum> {
        if !self.any {
            return Ok(Datum::Null);
        }
        if cx.ret == Type::BYTEA {
            return Ok(Datum::bytea(&self.bytes));
        }
        std::str::from_utf8(&self.bytes).map(Datum::text).map_err(|_| SqlError::internal("joined texts are no text"))
    }
    fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

// array_agg of plain values, NULLs included.
#[derive(Default)]
struct Collected {
    values: Vec<Datum>,
    heap: usize,
}

impl AggState for Collected {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.heap += a[0].heap_bytes() + std::mem::size_of::<Datum>();
        check_array_bytes(self.heap)?;
        self.values.push(a[0].clone());
        Ok(())
    }
    fn finish(&mut self, cx: &FnCx<'_>) -> Result<Datum> {
        Ok(array_of(self.values.clone(), cx))
    }
    fn finish_last(self: Box<Self>, cx: &FnCx<'_>) -> Result<Datum> {
        Ok(array_of(self.values, cx))
    }
    fn heap_bytes(&self) -> usize {
        self.heap
    }
}

fn array_of(values: Vec<Datum>, cx: &FnCx<'_>) -> Datum {
    if values.is_empty() {
        return Datum::Null;
    }
    let elem = cx.ret.element().unwrap_or_else(|| cx.arg_types.first().copied().unwrap_or(Type::TEXT));
    Array::from_values(elem, values).datum()
}

// array_agg of arrays: they must all have the same shape, and become one with a dimension more.
#[derive(Default)]
struct Stacked {
    parts: Vec<Arc<Array>>,
    heap: usize,
}

impl AggState for Stacked {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        if is_null(a, 0) {
            return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "cannot accumulate null arrays"));
        }
        let array = args::array(a, 0)?;
        let bad = |m: &str| Err(SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, m));
        if array.values.is_empty() {
            return bad("cannot accumulate empty arrays");
        }
        if self.parts.first().is_some_and(|first| first.dims != array.dims) {
            return bad("cannot accumulate arrays of different dimensionality");
        }
        self.heap += a[0].heap_bytes();
        check_array_bytes(self.heap)?;
        self.parts.push(array.clone());
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        match self.parts.first() {
            None => Ok(Datum::Null),
            Some(first) => Ok(Array::stack(first.elem, &self.parts)?.datum()),
        }
    }
    fn heap_bytes(&self) -> usize {
        self.heap
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run_cases;

    #[test]
    fn as_postgresql_answers() {
        run_cases(include_str!("cases/aggregate.txt"));
    }
}
