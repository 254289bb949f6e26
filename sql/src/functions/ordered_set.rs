//! Ordered-set aggregates: percentile_cont, percentile_disc and mode.
//!
//! Rows arrive in the order of WITHIN GROUP: the direct arguments, then the sorted value. NULL values never arrive.

use super::FnCx;
use super::args;
use super::registry::{AggState, AggregateFn, Registry};
use crate::error::{Result, SqlError, state};
use crate::types::datum::equal_typed;
use crate::types::interval::interval_out_of_range;
use crate::types::{Array, Datum, Type};

const F: Type = Type::FLOAT8;
const FA: Type = Type::FLOAT8_ARRAY;

/// Adds them all.
pub fn register(r: &mut Registry) {
    let mut add = |name, args, ret, direct, new| {
        r.aggregate(AggregateFn { name, args, variadic: None, ret, strict: true, ordered_set: Some(direct), new })
    };
    add("percentile_cont", &[F, F], F, 1, |_| Box::new(Percentile { between: true, ..Percentile::default() }));
    add("percentile_cont", &[F, Type::INTERVAL], Type::INTERVAL, 1, |_| {
        Box::new(Percentile { between: true, ..Percentile::default() })
    });
    add("percentile_cont", &[FA, F], FA, 1, |_| Box::new(Percentile { between: true, ..Percentile::default() }));
    add("percentile_cont", &[FA, Type::INTERVAL], Type::INTERVAL_ARRAY, 1, |_| {
        Box::new(Percentile { between: true, ..Percentile::default() })
    });
    add("percentile_disc", &[F, Type::ANYELEMENT], Type::ANYELEMENT, 1, |_| Box::new(Percentile::default()));
    add("percentile_disc", &[FA, Type::ANYELEMENT], Type::ANYARRAY, 1, |_| Box::new(Percentile::default()));
    add("mode", &[Type::ANYELEMENT], Type::ANYELEMENT, 0, |_| Box::new(Mode::default()));
}

#[derive(Default)]
struct Percentile {
    /// Interpolate between neighbours: percentile_cont.
    between: bool,
    /// A fraction, or an array of them.
    wanted: Datum,
    values: Vec<Datum>,
    heap: usize,
}

impl AggState for Percentile {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        if self.values.is_empty() {
            self.wanted = a[0].clone();
        }
        self.heap += a[1].heap_bytes() + std::mem::size_of::<Datum>();
        self.values.push(a[1].clone());
        Ok(())
    }
    fn finish(&mut self, cx: &FnCx<'_>) -> Result<Datum> {
        if self.values.is_empty() {
            return Ok(Datum::Null);
        }
        match &self.wanted {
            Datum::Array(fractions) => {
                let values = fractions.values.iter().map(|f| {
                    if f.is_null() { Ok(Datum::Null) } else { self.at(args::float8(std::slice::from_ref(f), 0)?) }
                });
                let elem = cx.ret.element().unwrap_or_else(|| cx.arg_types.last().copied().unwrap_or(F));
                Ok(Array { elem, dims: fractions.dims.clone(), values: values.collect::<Result<_>>()? }.datum())
            }
            one => self.at(args::float8(std::slice::from_ref(one), 0)?),
        }
    }
    fn heap_bytes(&self) -> usize {
        self.heap
    }
}

impl Percentile {
    fn at(&self, fraction: f64) -> Result<Datum> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(SqlError::new(
                state::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("percentile value {fraction} is not between 0 and 1"),
            ));
        }
        let n = self.values.len();
        if !self.between {
            let row = (fraction * n as f64).ceil().max(1.0) as usize;
            return Ok(self.values[row - 1].clone());
        }
        let place = fraction * (n - 1) as f64;
        let (low, high) = (&self.values[place.floor() as usize], &self.values[place.ceil() as usize]);
        let share = place - place.floor();
        if share == 0.0 {
            return Ok(low.clone());
        }
        Ok(match (low, high) {
            (Datum::Float8(low), Datum::Float8(high)) => Datum::Float8(low + share * (high - low)),
            (Datum::Interval(low), Datum::Interval(high)) => {
                let part = high.checked_sub(*low).and_then(|d| d.checked_mul(share)).and_then(|d| d.checked_add(*low));
                Datum::Interval(part.ok_or_else(interval_out_of_range)?)
            }
            _ => return Err(SqlError::internal("a percentile of something else")),
        })
    }
}

// The value with the longest run; of several the first.
#[derive(Default)]
struct Mode {
    best: Datum,
    best_run: u64,
    current: Datum,
    run: u64,
}

impl AggState for Mode {
    fn update(&mut self, a: &[Datum], cx: &FnCx<'_>) -> Result<()> {
        let ty = cx.arg_types.last().copied().unwrap_or(Type::NONE);
        if self.run > 0 && equal_typed(&self.current, &a[0], ty) {
            self.run += 1;
        } else {
            (self.current, self.run) = (a[0].clone(), 1);
        }
        if self.run > self.best_run {
            (self.best, self.best_run) = (self.current.clone(), self.run);
        }
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(self.best.clone())
    }
    fn heap_bytes(&self) -> usize {
        self.best.heap_bytes() + self.current.heap_bytes()
    }
}
