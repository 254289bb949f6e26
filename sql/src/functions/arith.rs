//! Arithmetic, bit operators, comparisons and casts of the number types.
//!
//! PostgreSQL defines these for every pair of integer types and for float4 and float8 in both orders, so that no operand needs a cast that could
//! lose a range; numeric meets the others by an implicit cast. Every operation checks for overflow (22003) and division by zero (22012).

use std::cmp::Ordering;

use super::context::FnCx;
use super::registry::{CastContext, CastMethod, Registry, ScalarImpl};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Numeric, Type};

type Args<'a> = &'a [Datum];

fn mismatch() -> SqlError {
    SqlError::internal("a number function was called with another type")
}
fn out_of_range(name: &str) -> SqlError {
    SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))
}
fn division_by_zero() -> SqlError {
    SqlError::new(state::DIVISION_BY_ZERO, "division by zero")
}

/// Any integer argument as int8.
pub(super) fn int(args: Args<'_>, i: usize) -> Result<i64> {
    match args.get(i) {
        Some(Datum::Int2(v)) => Ok(i64::from(*v)),
        Some(Datum::Int4(v)) => Ok(i64::from(*v)),
        Some(Datum::Int8(v)) => Ok(*v),
        Some(Datum::Oid(v)) => Ok(i64::from(*v)),
        _ => Err(mismatch()),
    }
}
/// Any float argument as float8.
pub(super) fn float(args: Args<'_>, i: usize) -> Result<f64> {
    match args.get(i) {
        Some(Datum::Float8(v)) => Ok(*v),
        Some(Datum::Float4(v)) => Ok(f64::from(*v)),
        _ => Err(mismatch()),
    }
}
/// A numeric argument.
pub(super) fn numeric(args: Args<'_>, i: usize) -> Result<&Numeric> {
    match args.get(i) {
        Some(Datum::Numeric(v)) => Ok(v),
        _ => Err(mismatch()),
    }
}
pub(super) fn int2(value: i64) -> Result<Datum> {
    i16::try_from(value).map(Datum::Int2).map_err(|_| out_of_range("smallint"))
}
pub(super) fn int4(value: i64) -> Result<Datum> {
    i32::try_from(value).map(Datum::Int4).map_err(|_| out_of_range("integer"))
}
pub(super) fn int8(value: Option<i64>) -> Result<Datum> {
    value.map(Datum::Int8).ok_or_else(|| out_of_range("bigint"))
}
/// A float8 result: infinite from finite operands is an overflow, zero where `zero_ok` is false an underflow.
pub(super) fn float8(value: f64, inputs_infinite: bool, zero_ok: bool) -> Result<Datum> {
    if value.is_infinite() && !inputs_infinite {
        return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
    }
    if value == 0.0 && !zero_ok {
        return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow"));
    }
    Ok(Datum::Float8(value))
}

/// PostgreSQL's order of floats: NaN is equal to itself and greater than all else; -0 equals 0.
pub fn float_cmp(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

fn int_op(op: Op, a: i64, b: i64) -> Result<Option<i64>> {
    Ok(match op {
        Op::Add => a.checked_add(b),
        Op::Sub => a.checked_sub(b),
        Op::Mul => a.checked_mul(b),
        Op::Div | Op::Mod if b == 0 => return Err(division_by_zero()),
        Op::Div => a.checked_div(b),
        Op::Mod => Some(a.wrapping_rem(b)),
    })
}
fn float_op(op: Op, a: f64, b: f64) -> Result<f64> {
    Ok(match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div if b == 0.0 && !a.is_nan() => return Err(division_by_zero()),
        Op::Div => a / b,
        Op::Mod => a % b,
    })
}
fn zero_is_right(op: Op, a: f64, b: f64) -> bool {
    match op {
        Op::Mul => a == 0.0 || b == 0.0,
        Op::Div => a == 0.0 || b.is_infinite(),
        _ => true,
    }
}

macro_rules! int_ops {
    ($r:expr, $ret:ident, $rname:expr, $l:ident, $rt:ident, [$($op:literal $name:literal $kind:ident),*]) => {
        $( $r.binary($op, $name, &[Type::$l, Type::$rt], Type::$ret, |a, _| {
            let value = int_op(Op::$kind, int(a, 0)?, int(a, 1)?)?.ok_or_else(|| out_of_range($rname))?;
            int_ops!(@make $ret value)
        }); )*
    };
    (@make INT2 $v:ident) => { int2($v) };
    (@make INT4 $v:ident) => { int4($v) };
    (@make INT8 $v:ident) => { Ok(Datum::Int8($v)) };
}

macro_rules! float_ops {
    ($r:expr, $ret:ident, $l:ident, $rt:ident, [$($op:literal $name:literal $kind:ident),*]) => {
        $( $r.binary($op, $name, &[Type::$l, Type::$rt], Type::$ret, |a, _| {
            float_ops!(@make $ret a $kind)
        }); )*
    };
    (@make FLOAT8 $a:ident $kind:ident) => {{
        let (x, y) = (float($a, 0)?, float($a, 1)?);
        float8(float_op(Op::$kind, x, y)?, x.is_infinite() || y.is_infinite(), zero_is_right(Op::$kind, x, y))
    }};
    (@make FLOAT4 $a:ident $kind:ident) => {{
        let (x, y) = (float($a, 0)?, float($a, 1)?);
        let value = float_op(Op::$kind, x, y)? as f32;
        match float8(f64::from(value), x.is_infinite() || y.is_infinite(), zero_is_right(Op::$kind, x, y))? {
            Datum::Float8(_) => Ok(Datum::Float4(value)),
            other => Ok(other),
        }
    }};
}

macro_rules! comparisons {
    ($r:expr, $l:ident, $rt:ident, $prefix:literal, $cmp:expr) => {{
        $r.binary("=", concat!($prefix, "eq"), &[Type::$l, Type::$rt], Type::BOOL, |a, _| {
            Ok(Datum::Bool($cmp(a)? == Ordering::Equal))
        });
        $r.binary("<>", concat!($prefix, "ne"), &[Type::$l, Type::$rt], Type::BOOL, |a, _| {
            Ok(Datum::Bool($cmp(a)? != Ordering::Equal))
        });
        $r.binary("<", concat!($prefix, "lt"), &[Type::$l, Type::$rt], Type::BOOL, |a, _| {
            Ok(Datum::Bool($cmp(a)? == Ordering::Less))
        });
        $r.binary("<=", concat!($prefix, "le"), &[Type::$l, Type::$rt], Type::BOOL, |a, _| {
            Ok(Datum::Bool($cmp(a)? != Ordering::Greater))
        });
        $r.binary(">", concat!($prefix, "gt"), &[Type::$l, Type::$rt], Type::BOOL, |a, _| {
            Ok(Datum::Bool($cmp(a)? == Ordering::Greater))
        });
        $r.binary(">=", concat!($prefix, "ge"), &[Type::$l, Type::$rt], Type::BOOL, |a, _| {
            Ok(Datum::Bool($cmp(a)? != Ordering::Less))
        });
    }};
}

fn int_cmp(a: Args<'_>) -> Result<Ordering> {
    Ok(int(a, 0)?.cmp(&int(a, 1)?))
}
fn floats_cmp(a: Args<'_>) -> Result<Ordering> {
    Ok(float_cmp(float(a, 0)?, float(a, 1)?))
}
fn numeric_cmp(a: Args<'_>) -> Result<Ordering> {
    Ok(numeric(a, 0)?.cmp(numeric(a, 1)?))
}

/// Registers operators, comparisons and casts of the number types.
pub fn register(r: &mut Registry) {
    integers(r);
    floats(r);
    numerics(r);
    bits(r);
    casts(r);
}

fn integers(r: &mut Registry) {
    int_ops!(r, INT2, "smallint", INT2, INT2, ["+" "int2pl" Add, "-" "int2mi" Sub, "*" "int2mul" Mul, "/" "int2div" Div, "%" "int2mod" Mod]);
    int_ops!(r, INT4, "integer", INT4, INT4, ["+" "int4pl" Add, "-" "int4mi" Sub, "*" "int4mul" Mul, "/" "int4div" Div, "%" "int4mod" Mod]);
    int_ops!(r, INT8, "bigint", INT8, INT8, ["+" "int8pl" Add, "-" "int8mi" Sub, "*" "int8mul" Mul, "/" "int8div" Div, "%" "int8mod" Mod]);
    int_ops!(r, INT4, "integer", INT2, INT4, ["+" "int24pl" Add, "-" "int24mi" Sub, "*" "int24mul" Mul, "/" "int24div" Div]);
    int_ops!(r, INT4, "integer", INT4, INT2, ["+" "int42pl" Add, "-" "int42mi" Sub, "*" "int42mul" Mul, "/" "int42div" Div]);
    int_ops!(r, INT8, "bigint", INT2, INT8, ["+" "int28pl" Add, "-" "int28mi" Sub, "*" "int28mul" Mul, "/" "int28div" Div]);
    int_ops!(r, INT8, "bigint", INT8, INT2, ["+" "int82pl" Add, "-" "int82mi" Sub, "*" "int82mul" Mul, "/" "int82div" Div]);
    int_ops!(r, INT8, "bigint", INT4, INT8, ["+" "int48pl" Add, "-" "int48mi" Sub, "*" "int48mul" Mul, "/" "int48div" Div]);
    int_ops!(r, INT8, "bigint", INT8, INT4, ["+" "int84pl" Add, "-" "int84mi" Sub, "*" "int84mul" Mul, "/" "int84div" Div]);
    comparisons!(r, INT2, INT2, "int2", int_cmp);
    comparisons!(r, INT4, INT4, "int4", int_cmp);
    comparisons!(r, INT8, INT8, "int8", int_cmp);
    comparisons!(r, INT2, INT4, "int24", int_cmp);
    comparisons!(r, INT4, INT2, "int42", int_cmp);
    comparisons!(r, INT2, INT8, "int28", int_cmp);
    comparisons!(r, INT8, INT2, "int82", int_cmp);
    comparisons!(r, INT4, INT8, "int48", int_cmp);
    comparisons!(r, INT8, INT4, "int84", int_cmp);

    let minus: [(&'static str, &'static [Type], Type, ScalarImpl); 3] = [
        ("int2um", &[Type::INT2], Type::INT2, |a, _| int2(-int(a, 0)?)),
        ("int4um", &[Type::INT4], Type::INT4, |a, _| int4(-int(a, 0)?)),
        ("int8um", &[Type::INT8], Type::INT8, |a, _| int8(int(a, 0)?.checked_neg())),
    ];
    for (name, args, ret, imp) in minus {
        let f = r.pure(name, args, ret, imp);
        r.operator("-", Type::NONE, ret, f);
    }
    let plus: [(&'static str, &'static [Type], Type); 6] = [
        ("int2up", &[Type::INT2], Type::INT2),
        ("int4up", &[Type::INT4], Type::INT4),
        ("int8up", &[Type::INT8], Type::INT8),
        ("float4up", &[Type::FLOAT4], Type::FLOAT4),
        ("float8up", &[Type::FLOAT8], Type::FLOAT8),
        ("numeric_uplus", &[Type::NUMERIC], Type::NUMERIC),
    ];
    for (name, args, ret) in plus {
        let f = r.pure(name, args, ret, |a, _| Ok(a[0].clone()));
        r.operator("+", Type::NONE, ret, f);
    }
    let mods: [(&'static [Type], Type, ScalarImpl); 3] = [
        (&[Type::INT2, Type::INT2], Type::INT2, |a, _| int2(int_op(Op::Mod, int(a, 0)?, int(a, 1)?)?.unwrap_or(0))),
        (&[Type::INT4, Type::INT4], Type::INT4, |a, _| int4(int_op(Op::Mod, int(a, 0)?, int(a, 1)?)?.unwrap_or(0))),
        (&[Type::INT8, Type::INT8], Type::INT8, |a, _| int8(int_op(Op::Mod, int(a, 0)?, int(a, 1)?)?)),
    ];
    for (args, ret, imp) in mods {
        r.pure("mod", args, ret, imp);
    }
}

fn floats(r: &mut Registry) {
    float_ops!(r, FLOAT8, FLOAT8, FLOAT8, ["+" "float8pl" Add, "-" "float8mi" Sub, "*" "float8mul" Mul, "/" "float8div" Div]);
    float_ops!(r, FLOAT4, FLOAT4, FLOAT4, ["+" "float4pl" Add, "-" "float4mi" Sub, "*" "float4mul" Mul, "/" "float4div" Div]);
    float_ops!(r, FLOAT8, FLOAT4, FLOAT8, ["+" "float48pl" Add, "-" "float48mi" Sub, "*" "float48mul" Mul, "/" "float48div" Div]);
    float_ops!(r, FLOAT8, FLOAT8, FLOAT4, ["+" "float84pl" Add, "-" "float84mi" Sub, "*" "float84mul" Mul, "/" "float84div" Div]);
    comparisons!(r, FLOAT8, FLOAT8, "float8", floats_cmp);
    comparisons!(r, FLOAT4, FLOAT4, "float4", floats_cmp);
    comparisons!(r, FLOAT4, FLOAT8, "float48", floats_cmp);
    comparisons!(r, FLOAT8, FLOAT4, "float84", floats_cmp);
    let f = r.pure("float8um", &[Type::FLOAT8], Type::FLOAT8, |a, _| Ok(Datum::Float8(-float(a, 0)?)));
    r.operator("-", Type::NONE, Type::FLOAT8, f);
    let f = r.pure("float4um", &[Type::FLOAT4], Type::FLOAT4, |a, _| Ok(Datum::Float4(-float(a, 0)? as f32)));
    r.operator("-", Type::NONE, Type::FLOAT4, f);
}

fn numerics(r: &mut Registry) {
    const NN: &[Type; 2] = &[Type::NUMERIC, Type::NUMERIC];
    r.binary("+", "numeric_add", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.add(numeric(a, 1)?).map(Datum::Numeric));
    r.binary("-", "numeric_sub", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.sub(numeric(a, 1)?).map(Datum::Numeric));
    r.binary("*", "numeric_mul", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.mul(numeric(a, 1)?).map(Datum::Numeric));
    r.binary("/", "numeric_div", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.div(numeric(a, 1)?).map(Datum::Numeric));
    r.binary("%", "numeric_mod", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.rem(numeric(a, 1)?).map(Datum::Numeric));
    r.pure("mod", NN, Type::NUMERIC, |a, _| numeric(a, 0)?.rem(numeric(a, 1)?).map(Datum::Numeric));
    comparisons!(r, NUMERIC, NUMERIC, "numeric_", numeric_cmp);
    let f = r.pure("numeric_uminus", &[Type::NUMERIC], Type::NUMERIC, |a, _| Ok(Datum::Numeric(numeric(a, 0)?.neg())));
    r.operator("-", Type::NONE, Type::NUMERIC, f);
}

macro_rules! bit_ops {
    ($r:expr, $ty:ident, $rust:ty, $p:literal, $variant:ident) => {{
        fn at(a: Args<'_>, i: usize) -> Result<$rust> {
            <$rust>::try_from(int(a, i)?).map_err(|_| mismatch())
        }
        $r.binary("&", concat!($p, "and"), &[Type::$ty, Type::$ty], Type::$ty, |a, _| {
            Ok(Datum::$variant(at(a, 0)? & at(a, 1)?))
        });
        $r.binary("|", concat!($p, "or"), &[Type::$ty, Type::$ty], Type::$ty, |a, _| {
            Ok(Datum::$variant(at(a, 0)? | at(a, 1)?))
        });
        $r.binary("#", concat!($p, "xor"), &[Type::$ty, Type::$ty], Type::$ty, |a, _| {
            Ok(Datum::$variant(at(a, 0)? ^ at(a, 1)?))
        });
        // C shifts by the count modulo the width of the promoted operand.
        $r.binary("<<", concat!($p, "shl"), &[Type::$ty, Type::INT4], Type::$ty, |a, _| {
            Ok(Datum::$variant((i64::from(at(a, 0)?) << (int(a, 1)? & shift_mask(<$rust>::BITS))) as $rust))
        });
        $r.binary(">>", concat!($p, "shr"), &[Type::$ty, Type::INT4], Type::$ty, |a, _| {
            Ok(Datum::$variant((i64::from(at(a, 0)?) >> (int(a, 1)? & shift_mask(<$rust>::BITS))) as $rust))
        });
        let f = $r.pure(concat!($p, "not"), &[Type::$ty], Type::$ty, |a, _| Ok(Datum::$variant(!at(a, 0)?)));
        $r.operator("~", Type::NONE, Type::$ty, f);
    }};
}

fn shift_mask(bits: u32) -> i64 {
    if bits == 64 { 63 } else { 31 }
}

fn bits(r: &mut Registry) {
    bit_ops!(r, INT2, i16, "int2", Int2);
    bit_ops!(r, INT4, i32, "int4", Int4);
    bit_ops!(r, INT8, i64, "int8", Int8);
}

/// The nearest integer to a float, ties to even, if it lies in `low..=high` of the type called `name`.
fn float_to_int(value: f64, low: f64, high: f64, name: &str) -> Result<i64> {
    let rounded = value.round_ties_even();
    // `high` is exclusive: 2^63 itself is a float, 2^63 - 1 is not.
    if rounded.is_nan() || rounded < low || rounded >= high { Err(out_of_range(name)) } else { Ok(rounded as i64) }
}
fn float_to_float4(value: f64) -> Result<Datum> {
    let narrow = value as f32;
    if narrow.is_infinite() && !value.is_infinite() {
        return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
    }
    if narrow == 0.0 && value != 0.0 {
        return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow"));
    }
    Ok(Datum::Float4(narrow))
}

fn casts(r: &mut Registry) {
    use CastContext::{Assignment, Implicit};
    const INTS: [Type; 3] = [Type::INT2, Type::INT4, Type::INT8];
    const FLOATS: [Type; 2] = [Type::FLOAT4, Type::FLOAT8];
    let to_int = |target: Type| -> (&'static str, ScalarImpl, ScalarImpl, ScalarImpl) {
        match target {
            Type::INT2 => (
                "int2",
                |a, _| int2(int(a, 0)?),
                |a, _| int2(float_to_int(float(a, 0)?, -32768.0, 32768.0, "smallint")?),
                |a, _| int2(numeric(a, 0)?.to_i64("smallint")?),
            ),
            Type::INT4 => (
                "int4",
                |a, _| int4(int(a, 0)?),
                |a, _| int4(float_to_int(float(a, 0)?, -2_147_483_648.0, 2_147_483_648.0, "integer")?),
                |a, _| int4(numeric(a, 0)?.to_i64("integer")?),
            ),
            _ => (
                "int8",
                |a, _| int(a, 0).map(Datum::Int8),
                |a, _| {
                    float_to_int(float(a, 0)?, -9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0, "bigint")
                        .map(Datum::Int8)
                },
                |a, _| numeric(a, 0)?.to_i64("bigint").map(Datum::Int8),
            ),
        }
    };
    for (rank, target) in INTS.into_iter().enumerate() {
        let (name, from_int, from_float, from_numeric) = to_int(target);
        for (source_rank, source) in INTS.into_iter().enumerate().filter(|(_, s)| *s != target) {
            let f = r.pure(name, one(source), target, from_int);
            r.cast(source, target, if source_rank < rank { Implicit } else { Assignment }, CastMethod::Function(f));
        }
        for source in FLOATS {
            let f = r.pure(name, one(source), target, from_float);
            r.cast(source, target, Assignment, CastMethod::Function(f));
        }
        let f = r.pure(name, &[Type::NUMERIC], target, from_numeric);
        r.cast(Type::NUMERIC, target, Assignment, CastMethod::Function(f));
    }
    for source in INTS {
        let f = r.pure("float8", one(source), Type::FLOAT8, |a, _| Ok(Datum::Float8(int(a, 0)? as f64)));
        r.cast(source, Type::FLOAT8, Implicit, CastMethod::Function(f));
        let f = r.pure("float4", one(source), Type::FLOAT4, |a, _| Ok(Datum::Float4(int(a, 0)? as f32)));
        r.cast(source, Type::FLOAT4, Implicit, CastMethod::Function(f));
        let f = r.pure("numeric", one(source), Type::NUMERIC, |a, _| Ok(Datum::Numeric(Numeric::from_i64(int(a, 0)?))));
        r.cast(source, Type::NUMERIC, Implicit, CastMethod::Function(f));
    }
    let f = r.pure("float8", &[Type::FLOAT4], Type::FLOAT8, |a, _| float(a, 0).map(Datum::Float8));
    r.cast(Type::FLOAT4, Type::FLOAT8, Implicit, CastMethod::Function(f));
    let f = r.pure("float4", &[Type::FLOAT8], Type::FLOAT4, |a, _| float_to_float4(float(a, 0)?));
    r.cast(Type::FLOAT8, Type::FLOAT4, Assignment, CastMethod::Function(f));
    let f = r.pure("float8", &[Type::NUMERIC], Type::FLOAT8, |a, _| {
        let value = numeric(a, 0)?;
        match value.to_f64()? {
            // Too small for one is an error as too large is; reading the text says so in PostgreSQL's words.
            0.0 => crate::types::float::parse_f64(&value.to_string()),
            near => Ok(near),
        }
        .map(Datum::Float8)
    });
    r.cast(Type::NUMERIC, Type::FLOAT8, Implicit, CastMethod::Function(f));
    let f = r.pure("float4", &[Type::NUMERIC], Type::FLOAT4, |a, _| {
        let value = numeric(a, 0)?;
        if value.is_finite() {
            crate::types::float::parse_f32(&value.to_string()).map(Datum::Float4)
        } else {
            Ok(Datum::Float4(value.to_f64_lossy() as f32))
        }
    });
    r.cast(Type::NUMERIC, Type::FLOAT4, Implicit, CastMethod::Function(f));
    let f =
        r.pure("numeric", &[Type::FLOAT8], Type::NUMERIC, |a, _| Ok(Datum::Numeric(Numeric::from_f64(float(a, 0)?))));
    r.cast(Type::FLOAT8, Type::NUMERIC, Assignment, CastMethod::Function(f));
    let f = r.pure("numeric", &[Type::FLOAT4], Type::NUMERIC, |a, _| {
        Ok(Datum::Numeric(Numeric::from_f32(float(a, 0)? as f32)))
    });
    r.cast(Type::FLOAT4, Type::NUMERIC, Assignment, CastMethod::Function(f));
    // Applies a precision and scale: the modifier is the second argument, or that of the call.
    let f = r.pure("numeric", &[Type::NUMERIC, Type::INT4], Type::NUMERIC, |a, cx: &FnCx<'_>| {
        let typmod = if a.len() > 1 { int(a, 1)? as i32 } else { cx.typmod };
        numeric(a, 0)?.apply_typmod(typmod).map(Datum::Numeric)
    });
    r.cast(Type::NUMERIC, Type::NUMERIC, Implicit, CastMethod::Function(f));
}

/// A static argument list of one type.
fn one(ty: Type) -> &'static [Type] {
    match ty {
        Type::INT2 => &[Type::INT2],
        Type::INT4 => &[Type::INT4],
        Type::INT8 => &[Type::INT8],
        Type::FLOAT4 => &[Type::FLOAT4],
        _ => &[Type::FLOAT8],
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run_cases;

    #[test]
    fn as_postgresql_answers() {
        run_cases(include_str!("cases/arith.txt"));
    }
}
