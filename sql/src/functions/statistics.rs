//! Sums, averages, variances, regressions.
//!
//! Integers and numerics are summed in 128 bits as long as that holds, then as [`Numeric`]: no row costs big arithmetic. Their averages and
//! variances are numeric, with the digits PostgreSQL shows, for the same quotients are divided. Floats follow PostgreSQL's Youngs-Cramer updates step
//! by step, so that the last bit agrees too.

use super::FnCx;
use super::aggregate::{New, add};
use super::args;
use super::registry::{AggState, Registry};
use crate::error::{Result, SqlError, state};
use crate::types::interval::interval_out_of_range;
use crate::types::{Datum, Interval, Numeric, Type};

/// Adds them all.
pub fn register(r: &mut Registry) {
    add(r, "sum", &[Type::INT2], Type::INT8, |_| Box::new(IntSum(Total::default())));
    add(r, "sum", &[Type::INT4], Type::INT8, |_| Box::new(IntSum(Total::default())));
    add(r, "sum", &[Type::INT8], Type::NUMERIC, |_| Box::new(ExactSum(Total::default())));
    add(r, "sum", &[Type::NUMERIC], Type::NUMERIC, |_| Box::new(ExactSum(Total::default())));
    add(r, "sum", &[Type::FLOAT4], Type::FLOAT4, |_| Box::new(Float4Sum(None)));
    add(r, "sum", &[Type::FLOAT8], Type::FLOAT8, |_| Box::new(Float8Sum(None)));
    add(r, "sum", &[Type::INTERVAL], Type::INTERVAL, |_| Box::new(Intervals { average: false, total: None, count: 0 }));
    add(r, "avg", &[Type::INTERVAL], Type::INTERVAL, |_| Box::new(Intervals { average: true, total: None, count: 0 }));
    for ty in [&[Type::INT2], &[Type::INT4], &[Type::INT8], &[Type::NUMERIC]] {
        add(r, "avg", ty, Type::NUMERIC, |_| Box::new(ExactAverage(Total::default())));
        for (name, new) in [
            (
                "var_pop",
                (|_| Box::new(Exact { total: Total::default(), squares: Total::default(), sample: false, root: false }))
                    as New,
            ),
            ("var_samp", |_| {
                Box::new(Exact { total: Total::default(), squares: Total::default(), sample: true, root: false })
            }),
            ("variance", |_| {
                Box::new(Exact { total: Total::default(), squares: Total::default(), sample: true, root: false })
            }),
            ("stddev_pop", |_| {
                Box::new(Exact { total: Total::default(), squares: Total::default(), sample: false, root: true })
            }),
            ("stddev_samp", |_| {
                Box::new(Exact { total: Total::default(), squares: Total::default(), sample: true, root: true })
            }),
            ("stddev", |_| {
                Box::new(Exact { total: Total::default(), squares: Total::default(), sample: true, root: true })
            }),
        ] {
            add(r, name, ty, Type::NUMERIC, new);
        }
    }
    for ty in [&[Type::FLOAT4], &[Type::FLOAT8]] {
        for (name, new) in [
            (
                "avg",
                (|_| Box::new(Spread { moments: Moments::default(), result: |m| (m.n > 0.0).then(|| m.sx / m.n) }))
                    as New,
            ),
            ("var_pop", |_| {
                Box::new(Spread { moments: Moments::default(), result: |m| (m.n > 0.0).then(|| m.sxx / m.n) })
            }),
            ("var_samp", |_| {
                Box::new(Spread { moments: Moments::default(), result: |m| (m.n > 1.0).then(|| m.sxx / (m.n - 1.0)) })
            }),
            ("variance", |_| {
                Box::new(Spread { moments: Moments::default(), result: |m| (m.n > 1.0).then(|| m.sxx / (m.n - 1.0)) })
            }),
            ("stddev_pop", |_| {
                Box::new(Spread { moments: Moments::default(), result: |m| (m.n > 0.0).then(|| (m.sxx / m.n).sqrt()) })
            }),
            ("stddev_samp", |_| {
                Box::new(Spread {
                    moments: Moments::default(),
                    result: |m| (m.n > 1.0).then(|| (m.sxx / (m.n - 1.0)).sqrt()),
                })
            }),
            ("stddev", |_| {
                Box::new(Spread {
                    moments: Moments::default(),
                    result: |m| (m.n > 1.0).then(|| (m.sxx / (m.n - 1.0)).sqrt()),
                })
            }),
        ] {
            add(r, name, ty, Type::FLOAT8, new);
        }
    }
    add(r, "regr_count", &[Type::FLOAT8, Type::FLOAT8], Type::INT8, |_| {
        Box::new(Pairs { moments: Moments::default(), result: |m| Some(m.n) })
    });
    for (name, new) in [
        (
            "regr_sxx",
            (|_| Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 0.0).then_some(m.sxx) })) as New,
        ),
        ("regr_syy", |_| Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 0.0).then_some(m.syy) })),
        ("regr_sxy", |_| Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 0.0).then_some(m.sxy) })),
        ("regr_avgx", |_| Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 0.0).then(|| m.sx / m.n) })),
        ("regr_avgy", |_| Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 0.0).then(|| m.sy / m.n) })),
        ("covar_pop", |_| {
            Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 0.0).then(|| m.sxy / m.n) })
        }),
        ("covar_samp", |_| {
            Box::new(Pairs { moments: Moments::default(), result: |m| (m.n > 1.0).then(|| m.sxy / (m.n - 1.0)) })
        }),
        ("corr", |_| {
            Box::new(Pairs {
                moments: Moments::default(),
                result: |m| (m.n > 0.0 && m.sxx != 0.0 && m.syy != 0.0).then(|| m.sxy / (m.sxx * m.syy).sqrt()),
            })
        }),
        ("regr_r2", |_| Box::new(Pairs { moments: Moments::default(), result: r_squared })),
        ("regr_slope", |_| {
            Box::new(Pairs {
                moments: Moments::default(),
                result: |m| (m.n > 0.0 && m.sxx != 0.0).then(|| m.sxy / m.sxx),
            })
        }),
        ("regr_intercept", |_| {
            Box::new(Pairs {
                moments: Moments::default(),
                result: |m| (m.n > 0.0 && m.sxx != 0.0).then(|| (m.sy - m.sx * m.sxy / m.sxx) / m.n),
            })
        }),
    ] {
        add(r, name, &[Type::FLOAT8, Type::FLOAT8], Type::FLOAT8, new);
    }
}

fn r_squared(m: &Moments) -> Option<f64> {
    if m.n < 1.0 || m.sxx == 0.0 {
        return None;
    }
    Some(if m.syy == 0.0 { 1.0 } else { (m.sxy * m.sxy) / (m.sxx * m.syy) })
}

/// An exact total of integers or numerics and how many there were.
#[derive(Default)]
struct Total {
    count: i64,
    /// The part that fits: `small / 10^scale`.
    small: i128,
    scale: u16,
    /// What did not fit, and NaN and the infinities.
    rest: Option<Numeric>,
}

impl Total {
    fn add(&mut self, value: &Datum) -> Result<()> {
        match value {
            Datum::Int2(n) => self.add_scaled(i128::from(*n), 0),
            Datum::Int4(n) => self.add_scaled(i128::from(*n), 0),
            Datum::Int8(n) => self.add_scaled(i128::from(*n), 0),
            Datum::Numeric(n) => match n.to_scaled_i128() {
                Some((unscaled, scale)) => self.add_scaled(unscaled, scale),
                None => self.add_rest(n),
            },
            _ => Err(SqlError::internal("a sum of no numbers")),
        }
    }
    fn add_square(&mut self, value: &Datum) -> Result<()> {
        let (unscaled, scale) = match value {
            Datum::Numeric(n) => match n.to_scaled_i128() {
                Some(parts) => parts,
                None => return self.add_rest(&n.mul(n)?),
            },
            other => (i128::from(args::int8(std::slice::from_ref(other), 0)?), 0),
        };
        match (unscaled.checked_mul(unscaled), scale.checked_mul(2)) {
            (Some(square), Some(scale)) => self.add_scaled(square, scale),
            _ => {
                let n = Numeric::from_scaled(unscaled, scale);
                self.add_rest(&n.mul(&n)?)
            }
        }
    }
    fn add_scaled(&mut self, unscaled: i128, scale: u16) -> Result<()> {
        let same_scale =
            |n: i128, from: u16, to: u16| 10i128.checked_pow(u32::from(to - from)).and_then(|p| n.checked_mul(p));
        let scale_sum = scale.max(self.scale);
        let sum = match (same_scale(self.small, self.scale, scale_sum), same_scale(unscaled, scale, scale_sum)) {
            (Some(a), Some(b)) => a.checked_add(b),
            _ => None,
        };
        match sum {
            Some(sum) => {
                (self.small, self.scale) = (sum, scale_sum);
                self.count += 1;
                Ok(())
            }
            None => self.add_rest(&Numeric::from_scaled(unscaled, scale)),
        }
    }
    fn add_rest(&mut self, n: &Numeric) -> Result<()> {
        self.rest = Some(match &self.rest {
            Some(rest) => rest.add(n)?,
            None => n.clone(),
        });
        self.count += 1;
        Ok(())
    }
    fn value(&self) -> Result<Numeric> {
        let small = Numeric::from_scaled(self.small, self.scale);
        match &self.rest {
            Some(rest) => small.add(rest),
            None => Ok(small),
        }
    }
}

// sum(int2), sum(int4): bigint.
struct IntSum(Total);

impl AggState for IntSum {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.0.add(&a[0])
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        if self.0.count == 0 {
            return Ok(Datum::Null);
        }
        i64::try_from(self.0.small)
            .map(Datum::Int8)
            .map_err(|_| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range"))
    }
}

struct ExactSum(Total);

impl AggState for ExactSum {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.0.add(&a[0])
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        if self.0.count == 0 { Ok(Datum::Null) } else { self.0.value().map(Datum::Numeric) }
    }
}

struct ExactAverage(Total);

impl AggState for ExactAverage {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.0.add(&a[0])
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        if self.0.count == 0 {
            return Ok(Datum::Null);
        }
        self.0.value()?.div(&Numeric::from_i64(self.0.count)).map(Datum::Numeric)
    }
}

// Variance and standard deviation of exact numbers, from their sum and the sum of their squares.
struct Exact {
    total: Total,
    squares: Total,
    sample: bool,
    root: bool,
}

impl AggState for Exact {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.total.add(&a[0])?;
        self.squares.add_square(&a[0])
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        let n = self.total.count;
        if n == 0 || (self.sample && n == 1) {
            return Ok(Datum::Null);
        }
        let (sum, squares) = (self.total.value()?, self.squares.value()?);
        if !sum.is_finite() {
            return Ok(Datum::Numeric(Numeric::NAN));
        }
        let difference = Numeric::from_i64(n).mul(&squares)?.sub(&sum.mul(&sum)?)?;
        // Rounding cannot make it negative, but zero has its own plain form.
        if difference.signum() <= 0 {
            return Ok(Datum::Numeric(Numeric::ZERO));
        }
        let divisor = i128::from(n) * i128::from(if self.sample { n - 1 } else { n });
        let variance = difference.div(&Numeric::from_i128(divisor))?;
        if !self.root {
            return Ok(Datum::Numeric(variance));
        }
        // The root keeps the quotient's scale; sqrt's own is never less.
        let scale = i32::from(variance.scale());
        Ok(Datum::Numeric(variance.sqrt()?.round(scale)))
    }
}

fn overflow() -> SqlError {
    SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow")
}

struct Float4Sum(Option<f32>);

impl AggState for Float4Sum {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        let Datum::Float4(x) = a[0] else { return Err(SqlError::internal("a float4 sum of something else")) };
        let before = self.0.unwrap_or(0.0);
        let sum = before + x;
        if sum.is_infinite() && !before.is_infinite() && !x.is_infinite() {
            return Err(overflow());
        }
        self.0 = Some(if self.0.is_none() { x } else { sum });
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(self.0.map_or(Datum::Null, Datum::Float4))
    }
}

struct Float8Sum(Option<f64>);

impl AggState for Float8Sum {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        let x = args::float8(a, 0)?;
        let before = self.0.unwrap_or(0.0);
        let sum = before + x;
        if sum.is_infinite() && !before.is_infinite() && !x.is_infinite() {
            return Err(overflow());
        }
        self.0 = Some(if self.0.is_none() { x } else { sum });
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(self.0.map_or(Datum::Null, Datum::Float8))
    }
}

struct Intervals {
    average: bool,
    total: Option<Interval>,
    count: i64,
}

impl AggState for Intervals {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        let Datum::Interval(i) = a[0] else { return Err(SqlError::internal("an interval sum of something else")) };
        self.total = Some(match self.total {
            Some(total) => total.checked_add(i).ok_or_else(interval_out_of_range)?,
            None => i,
        });
        self.count += 1;
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        let Some(total) = self.total else { return Ok(Datum::Null) };
        let value =
            if self.average { total.checked_div(self.count as f64).ok_or_else(interval_out_of_range)? } else { total };
        Ok(Datum::Interval(value))
    }
}

/// Counts, sums and sums of squared differences from the mean, of x alone or of pairs.
#[derive(Default)]
struct Moments {
    n: f64,
    sx: f64,
    sxx: f64,
    sy: f64,
    syy: f64,
    sxy: f64,
}

impl Moments {
    fn add_one(&mut self, x: f64) -> Result<()> {
        let (n_before, sx_before) = (self.n, self.sx);
        self.n += 1.0;
        self.sx += x;
        if n_before > 0.0 {
            let t = x * self.n - self.sx;
            self.sxx += t * t / (self.n * n_before);
            if self.sx.is_infinite() || self.sxx.is_infinite() {
                // Infinity out of finite numbers is an overflow; out of infinite ones, the spread is not a number.
                if !sx_before.is_infinite() && !x.is_infinite() {
                    return Err(overflow());
                }
                self.sxx = f64::NAN;
            }
        } else if !x.is_finite() {
            self.sxx = f64::NAN;
        }
        Ok(())
    }
    fn add_pair(&mut self, y: f64, x: f64) -> Result<()> {
        let (n_before, sx_before, sy_before) = (self.n, self.sx, self.sy);
        self.n += 1.0;
        self.sx += x;
        self.sy += y;
        if n_before > 0.0 {
            let (tx, ty) = (x * self.n - self.sx, y * self.n - self.sy);
            let scale = 1.0 / (self.n * n_before);
            self.sxx += tx * tx * scale;
            self.syy += ty * ty * scale;
            self.sxy += tx * ty * scale;
            let finite_x = !sx_before.is_infinite() && !x.is_infinite();
            let finite_y = !sy_before.is_infinite() && !y.is_infinite();
            if ((self.sx.is_infinite() || self.sxx.is_infinite()) && finite_x)
                || ((self.sy.is_infinite() || self.syy.is_infinite()) && finite_y)
                || (self.sxy.is_infinite() && finite_x && finite_y)
            {
                return Err(overflow());
            }
            for s in [&mut self.sxx, &mut self.syy, &mut self.sxy] {
                if s.is_infinite() {
                    *s = f64::NAN;
                }
            }
        } else {
            if !x.is_finite() {
                (self.sxx, self.sxy) = (f64::NAN, f64::NAN);
            }
            if !y.is_finite() {
                (self.syy, self.sxy) = (f64::NAN, f64::NAN);
            }
        }
        Ok(())
    }
}

struct Spread {
    moments: Moments,
    result: fn(&Moments) -> Option<f64>,
}

impl AggState for Spread {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.moments.add_one(args::float8(a, 0)?)
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok((self.result)(&self.moments).map_or(Datum::Null, Datum::Float8))
    }
}

struct Pairs {
    moments: Moments,
    result: fn(&Moments) -> Option<f64>,
}

impl AggState for Pairs {
    fn update(&mut self, a: &[Datum], _: &FnCx<'_>) -> Result<()> {
        self.moments.add_pair(args::float8(a, 0)?, args::float8(a, 1)?)
    }
    fn finish(&mut self, cx: &FnCx<'_>) -> Result<Datum> {
        let value = (self.result)(&self.moments);
        Ok(match value {
            Some(n) if cx.ret == Type::INT8 => Datum::Int8(n as i64),
            Some(x) => Datum::Float8(x),
            None => Datum::Null,
        })
    }
}
