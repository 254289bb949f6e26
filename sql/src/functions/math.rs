//! Mathematical functions of integers, floats and numerics.

use super::arith::{float, float8, int, int2, int4, int8, numeric};
use super::registry::{Registry, ScalarImpl};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Numeric, Type};

const F8: &[Type] = &[Type::FLOAT8];
const F8F8: &[Type] = &[Type::FLOAT8, Type::FLOAT8];
const N: &[Type] = &[Type::NUMERIC];
const NN: &[Type] = &[Type::NUMERIC, Type::NUMERIC];
const NI: &[Type] = &[Type::NUMERIC, Type::INT4];

fn input_out_of_range() -> SqlError {
    SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")
}
fn log_error(message: &str) -> SqlError {
    SqlError::new(state::INVALID_ARGUMENT_FOR_LOGARITHM, message)
}
fn power_error(message: &str) -> SqlError {
    SqlError::new(state::INVALID_ARGUMENT_FOR_POWER_FUNCTION, message)
}

/// A float8 argument of a logarithm.
fn log_argument(a: &[Datum]) -> Result<f64> {
    let x = float(a, 0)?;
    if x == 0.0 {
        return Err(log_error("cannot take logarithm of zero"));
    }
    if x < 0.0 {
        return Err(log_error("cannot take logarithm of a negative number"));
    }
    Ok(x)
}

fn power(x: f64, y: f64) -> Result<Datum> {
    if x.is_nan() || y.is_nan() {
        let one = x == 1.0 || y == 0.0;
        return Ok(Datum::Float8(if one { 1.0 } else { f64::NAN }));
    }
    if x == 0.0 && y < 0.0 {
        return Err(power_error("zero raised to a negative power is undefined"));
    }
    if x < 0.0 && y.floor() != y {
        return Err(power_error("a negative number raised to a non-integer power yields a complex result"));
    }
    float8(x.powf(y), x.is_infinite() || y.is_infinite(), x == 0.0 || x.is_infinite() || y.is_infinite())
}

/// Registers the mathematical functions.
pub fn register(r: &mut Registry) {
    rounding(r);
    powers(r);
    trigonometry(r);
    integers(r);
    buckets(r);
}

fn rounding(r: &mut Registry) {
    let abs: [(&'static [Type], Type, ScalarImpl); 6] = [
        (&[Type::INT2], Type::INT2, |a, _| int2(int(a, 0)?.abs())),
        (&[Type::INT4], Type::INT4, |a, _| int4(int(a, 0)?.abs())),
        (&[Type::INT8], Type::INT8, |a, _| int8(int(a, 0)?.checked_abs())),
        (&[Type::FLOAT4], Type::FLOAT4, |a, _| Ok(Datum::Float4(float(a, 0)?.abs() as f32))),
        (F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.abs()))),
        (N, Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.abs()))),
    ];
    for (args, ret, imp) in abs {
        let f = r.pure("abs", args, ret, imp);
        r.operator("@", Type::NONE, ret, f);
    }
    for name in ["ceil", "ceiling"] {
        r.pure(name, F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.ceil())));
        r.pure(name, N, Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.ceil())));
    }
    r.pure("floor", F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.floor())));
    r.pure("floor", N, Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.floor())));
    r.pure("round", F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.round_ties_even())));
    r.pure("round", N, Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.round(0))));
    r.pure("round", NI, Type::NUMERIC, |a, _| {
        Ok(Datum::Numeric(numeric(a, 0)?.round(int(a, 1)?.clamp(-2000, 2000) as i32)))
    });
    r.pure("trunc", F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.trunc())));
    r.pure("trunc", N, Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.trunc(0))));
    r.pure("trunc", NI, Type::NUMERIC, |a, _| {
        Ok(Datum::Numeric(numeric(a, 0)?.trunc(int(a, 1)?.clamp(-2000, 2000) as i32)))
    });
    r.pure("sign", F8, Type::FLOAT8, |a, _| {
        let x = float(a, 0)?;
        Ok(Datum::Float8(if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            0.0
        }))
    });
    r.pure("sign", N, Type::NUMERIC, |a, _| {
        let x = numeric(a, 0)?;
        Ok(Datum::Numeric(if x.is_nan() { Numeric::NAN } else { Numeric::from_i64(i64::from(x.signum())) }))
    });
    r.pure("scale", N, Type::INT4, |a, _| Ok(finite(numeric(a, 0)?, |n| Datum::Int4(i32::from(n.scale())))));
    r.pure("min_scale", N, Type::INT4, |a, _| Ok(finite(numeric(a, 0)?, |n| Datum::Int4(n.min_scale()))));
    r.pure("trim_scale", N, Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.trim_scale())));
}

fn finite(n: &Numeric, f: impl Fn(&Numeric) -> Datum) -> Datum {
    if n.is_finite() { f(n) } else { Datum::Null }
}

fn powers(r: &mut Registry) {
    let sqrt = r.pure("sqrt", F8, Type::FLOAT8, |a, _| {
        let x = float(a, 0)?;
        if x < 0.0 {
            Err(power_error("cannot take square root of a negative number"))
        } else {
            Ok(Datum::Float8(x.sqrt()))
        }
    });
    r.operator("|/", Type::NONE, Type::FLOAT8, sqrt);
    r.pure("sqrt", N, Type::NUMERIC, |a, _| numeric(a, 0)?.sqrt().map(Datum::Numeric));
    let cbrt = r.pure("cbrt", F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.cbrt())));
    r.operator("||/", Type::NONE, Type::FLOAT8, cbrt);
    r.pure("exp", F8, Type::FLOAT8, |a, _| {
        let x = float(a, 0)?;
        float8(x.exp(), x.is_infinite(), x.is_infinite())
    });
    r.pure("exp", N, Type::NUMERIC, |a, _| numeric(a, 0)?.exp().map(Datum::Numeric));
    r.pure("ln", F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(log_argument(a)?.ln())));
    r.pure("ln", N, Type::NUMERIC, |a, _| numeric(a, 0)?.ln().map(Datum::Numeric));
    for name in ["log", "log10"] {
        r.pure(name, F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(log_argument(a)?.log10())));
        r.pure(name, N, Type::NUMERIC, |a, _| numeric(a, 0)?.log10().map(Datum::Numeric));
    }
    r.pure("log", NN, Type::NUMERIC, |a, _| numeric(a, 1)?.log(numeric(a, 0)?).map(Datum::Numeric));
    for name in ["power", "pow"] {
        let f = r.pure(name, F8F8, Type::FLOAT8, |a, _| power(float(a, 0)?, float(a, 1)?));
        let n = r.pure(name, NN, Type::NUMERIC, |a, _| numeric(a, 0)?.power(numeric(a, 1)?).map(Datum::Numeric));
        if name == "power" {
            r.operator("^", Type::FLOAT8, Type::FLOAT8, f);
            r.operator("^", Type::NUMERIC, Type::NUMERIC, n);
        }
    }
    r.pure("div", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.div_trunc(numeric(a, 1)?).map(Datum::Numeric));
}

macro_rules! float_fn {
    // Periodic functions have no value at infinity.
    ($r:expr, $name:literal, finite: $f:expr) => {
        $r.pure($name, F8, Type::FLOAT8, |a, _| {
            let (x, f): (f64, fn(f64) -> f64) = (float(a, 0)?, $f);
            if x.is_infinite() { Err(input_out_of_range()) } else { Ok(Datum::Float8(f(x))) }
        })
    };
    ($r:expr, $name:literal, $f:expr) => {
        $r.pure($name, F8, Type::FLOAT8, |a, _| {
            let f: fn(f64) -> f64 = $f;
            Ok(Datum::Float8(f(float(a, 0)?)))
        })
    };
    ($r:expr, $name:literal, $low:literal to $high:literal $f:expr) => {
        $r.pure($name, F8, Type::FLOAT8, |a, _| {
            let (x, f): (f64, fn(f64) -> f64) = (float(a, 0)?, $f);
            if !x.is_nan() && !($low..=$high).contains(&x) {
                Err(input_out_of_range())
            } else {
                Ok(Datum::Float8(f(x)))
            }
        })
    };
}

/// PostgreSQL's own.
const RADIANS_PER_DEGREE: f64 = 0.017_453_292_519_943_295;

fn trigonometry(r: &mut Registry) {
    float_fn!(r, "sin", finite: f64::sin);
    float_fn!(r, "cos", finite: f64::cos);
    float_fn!(r, "tan", finite: f64::tan);
    float_fn!(r, "cot", finite: |x| 1.0 / x.tan());
    float_fn!(r, "asin", -1.0 to 1.0 f64::asin);
    float_fn!(r, "acos", -1.0 to 1.0 f64::acos);
    float_fn!(r, "atan", f64::atan);
    float_fn!(r, "sinh", f64::sinh);
    float_fn!(r, "cosh", f64::cosh);
    float_fn!(r, "tanh", f64::tanh);
    float_fn!(r, "asinh", f64::asinh);
    float_fn!(r, "acosh", 1.0 to 1.7976931348623157e308 f64::acosh);
    float_fn!(r, "atanh", -1.0 to 1.0 f64::atanh);
    r.pure("degrees", F8, Type::FLOAT8, |a, _| {
        let (x, degrees) = (float(a, 0)?, float(a, 0)? / RADIANS_PER_DEGREE);
        if degrees.is_infinite() && x.is_finite() {
            return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
        }
        Ok(Datum::Float8(degrees))
    });
    float_fn!(r, "radians", |x| x * RADIANS_PER_DEGREE);
    r.pure("atan2", F8F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(float(a, 0)?.atan2(float(a, 1)?))));
    float_fn!(r, "sind", finite: degrees::sin);
    float_fn!(r, "cosd", finite: degrees::cos);
    float_fn!(r, "tand", finite: degrees::tan);
    float_fn!(r, "cotd", finite: degrees::cot);
    float_fn!(r, "asind", -1.0 to 1.0 degrees::asin);
    float_fn!(r, "acosd", -1.0 to 1.0 degrees::acos);
    float_fn!(r, "atand", degrees::atan);
    r.pure("atan2d", F8F8, Type::FLOAT8, |a, _| Ok(Datum::Float8(degrees::atan2(float(a, 0)?, float(a, 1)?))));
    r.pure("pi", &[], Type::FLOAT8, |_, _| Ok(Datum::Float8(std::f64::consts::PI)));
}

/// Trigonometry in degrees, exact where PostgreSQL's is: at the multiples of 30 and 45 that have exact values, for results are scaled by the computed
/// value of a known one. Follows float.c.
mod degrees {
    use std::f64::consts::PI;

    /// The angle in 0..=90 with the same sine and cosine but for signs, and how many times it was turned around 180 and 90.
    fn fold(x: f64) -> (f64, bool, bool, bool) {
        let mut x = x % 360.0;
        let negative = x < 0.0;
        x = x.abs();
        let lower = x > 180.0;
        if lower {
            x = 360.0 - x;
        }
        let left = x > 90.0;
        (if left { 180.0 - x } else { x }, negative, lower, left)
    }
    fn signed(negative: bool, x: f64) -> f64 {
        if negative { -x } else { x }
    }
    fn sin_to_30(x: f64) -> f64 {
        x.to_radians_as_c().sin() / 30f64.to_radians_as_c().sin() / 2.0
    }
    fn cos_to_60(x: f64) -> f64 {
        1.0 - (1.0 - x.to_radians_as_c().cos()) / (1.0 - 60f64.to_radians_as_c().cos()) / 2.0
    }
    fn sin_to_90(x: f64) -> f64 {
        if x <= 30.0 { sin_to_30(x) } else { cos_to_60(90.0 - x) }
    }
    fn cos_to_90(x: f64) -> f64 {
        if x <= 60.0 { cos_to_60(x) } else { sin_to_30(90.0 - x) }
    }
    fn asin_of_positive(x: f64) -> f64 {
        if x <= 0.5 { x.asin() / 0.5f64.asin() * 30.0 } else { 90.0 - x.acos() / 0.5f64.acos() * 60.0 }
    }
    fn acos_of_positive(x: f64) -> f64 {
        if x <= 0.5 { 90.0 - x.asin() / 0.5f64.asin() * 30.0 } else { x.acos() / 0.5f64.acos() * 60.0 }
    }

    trait AsC {
        fn to_radians_as_c(self) -> f64;
    }
    impl AsC for f64 {
        fn to_radians_as_c(self) -> f64 {
            self * (PI / 180.0)
        }
    }

    pub fn sin(x: f64) -> f64 {
        let (x, negative, lower, _) = fold(x);
        signed(negative != lower, sin_to_90(x))
    }
    pub fn cos(x: f64) -> f64 {
        let (x, _, _, left) = fold(x);
        signed(left, cos_to_90(x))
    }
    pub fn tan(x: f64) -> f64 {
        let (x, negative, lower, left) = fold(x);
        let ratio = |x| sin_to_90(x) / cos_to_90(x);
        // Adding zero makes -0 a plain one.
        signed((negative != lower) != left, ratio(x) / ratio(45.0)) + 0.0
    }
    pub fn cot(x: f64) -> f64 {
        let (x, negative, lower, left) = fold(x);
        let ratio = |x| cos_to_90(x) / sin_to_90(x);
        signed((negative != lower) != left, ratio(x) / ratio(45.0)) + 0.0
    }
    pub fn asin(x: f64) -> f64 {
        signed(x < 0.0, asin_of_positive(x.abs()))
    }
    pub fn acos(x: f64) -> f64 {
        if x < 0.0 { 90.0 + asin_of_positive(-x) } else { acos_of_positive(x) }
    }
    pub fn atan(x: f64) -> f64 {
        x.atan() / 1f64.atan() * 45.0
    }
    pub fn atan2(y: f64, x: f64) -> f64 {
        y.atan2(x) / 1f64.atan() * 45.0
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
fn lcm(a: u64, b: u64) -> Option<u64> {
    if a == 0 || b == 0 { Some(0) } else { (a / gcd(a, b)).checked_mul(b) }
}
fn gcd_of(a: &[Datum]) -> Result<u64> {
    Ok(gcd(int(a, 0)?.unsigned_abs(), int(a, 1)?.unsigned_abs()))
}
fn lcm_of(a: &[Datum]) -> Result<Option<i64>> {
    Ok(lcm(int(a, 0)?.unsigned_abs(), int(a, 1)?.unsigned_abs()).and_then(|v| i64::try_from(v).ok()))
}
fn numeric_gcd(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    if !a.is_finite() || !b.is_finite() {
        return Ok(Numeric::NAN);
    }
    let scale = i32::from(a.scale().max(b.scale()));
    let (mut a, mut b) = (a.abs(), b.abs());
    while !b.is_zero() {
        let rest = a.rem(&b)?;
        (a, b) = (b, rest);
    }
    Ok(a.round(scale))
}

fn integers(r: &mut Registry) {
    const I4: &[Type] = &[Type::INT4, Type::INT4];
    const I8: &[Type] = &[Type::INT8, Type::INT8];
    r.pure("gcd", I4, Type::INT4, |a, _| int4(i64::try_from(gcd_of(a)?).unwrap_or(i64::MAX)));
    r.pure("gcd", I8, Type::INT8, |a, _| int8(i64::try_from(gcd_of(a)?).ok()));
    r.pure("gcd", NN, Type::NUMERIC, |a, _| numeric_gcd(numeric(a, 0)?, numeric(a, 1)?).map(Datum::Numeric));
    r.pure("lcm", I4, Type::INT4, |a, _| int4(lcm_of(a)?.unwrap_or(i64::MAX)));
    r.pure("lcm", I8, Type::INT8, |a, _| int8(lcm_of(a)?));
    r.pure("lcm", NN, Type::NUMERIC, |a, _| {
        let (x, y) = (numeric(a, 0)?, numeric(a, 1)?);
        let divisor = numeric_gcd(x, y)?;
        if divisor.is_zero() {
            return Ok(Datum::Numeric(divisor));
        }
        let scale = i32::from(x.scale().max(y.scale()));
        Ok(Datum::Numeric(x.abs().div_trunc(&divisor)?.mul(&y.abs())?.round(scale)))
    });
    r.pure("factorial", &[Type::INT8], Type::NUMERIC, |a, cx| {
        let n = int(a, 0)?;
        if n < 0 {
            return Err(SqlError::new(
                state::NUMERIC_VALUE_OUT_OF_RANGE,
                "factorial of a negative number is undefined",
            ));
        }
        if n > 32177 {
            return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format"));
        }
        let mut product = Numeric::from_i64(1);
        for i in 2..=n {
            if i % 256 == 0 {
                cx.session.check_cancel()?;
            }
            product = product.mul(&Numeric::from_i64(i))?;
        }
        Ok(Datum::Numeric(product))
    });
}

fn buckets(r: &mut Registry) {
    r.pure("width_bucket", &[Type::FLOAT8, Type::FLOAT8, Type::FLOAT8, Type::INT4], Type::INT4, |a, _| {
        let (x, low, high, count) = (float(a, 0)?, float(a, 1)?, float(a, 2)?, int(a, 3)?);
        check_bucket_count(count)?;
        if x.is_nan() || low.is_nan() || high.is_nan() {
            return Err(bucket_error("operand, lower bound, and upper bound cannot be NaN"));
        }
        if low.is_infinite() || high.is_infinite() {
            return Err(bucket_error("lower and upper bounds must be finite"));
        }
        if low == high {
            return Err(bucket_error("lower bound cannot equal upper bound"));
        }
        let (inside, past) = if low < high { (x >= low, x >= high) } else { (x <= low, x <= high) };
        let bucket = if !inside {
            0
        } else if past {
            count + 1
        } else {
            ((x - low) / (high - low) * count as f64).floor() as i64 + 1
        };
        int4(bucket)
    });
    r.pure("width_bucket", &[Type::NUMERIC, Type::NUMERIC, Type::NUMERIC, Type::INT4], Type::INT4, |a, _| {
        let (x, low, high, count) = (numeric(a, 0)?, numeric(a, 1)?, numeric(a, 2)?, int(a, 3)?);
        check_bucket_count(count)?;
        if x.is_nan() || low.is_nan() || high.is_nan() {
            return Err(bucket_error("operand, lower bound, and upper bound cannot be NaN"));
        }
        if low.is_infinite() || high.is_infinite() {
            return Err(bucket_error("lower and upper bounds must be finite"));
        }
        if low == high {
            return Err(bucket_error("lower bound cannot equal upper bound"));
        }
        let (inside, past) = if low < high { (x >= low, x >= high) } else { (x <= low, x <= high) };
        if !inside {
            return Ok(Datum::Int4(0));
        }
        if past {
            return int4(count + 1);
        }
        let position = x.sub(low)?.mul(&Numeric::from_i64(count))?.div_trunc(&high.sub(low)?)?;
        int4(position.to_i64("integer")? + 1)
    });
}

fn bucket_error(message: &str) -> SqlError {
    SqlError::new(state::INVALID_ARGUMENT_FOR_WIDTH_BUCKET, message)
}
fn check_bucket_count(count: i64) -> Result<()> {
    if count <= 0 { Err(bucket_error("count must be greater than zero")) } else { Ok(()) }
}
