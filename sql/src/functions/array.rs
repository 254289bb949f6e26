//! Functions of arrays: joining, containment, bounds, searching, replacing.
//!
//! The polymorphic types are settled by the binder: both sides have one element type, which also stands in every array. Where an argument
//! is NULL and no array tells it, the element type comes from the call's result type.

use std::sync::Arc;

use rustc_hash::{FxHashSet, FxHasher};

use super::FnCx;
use super::args::{self, is_null};
use super::grow::{Steps, Text, count_held};
use super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use crate::error::{Result, SqlError, state};
use crate::types::array::{DIMS_MAX, too_many_dims};
use crate::types::datum::{compare_typed, equal_typed};
use crate::types::{Array, Datum, Type, io};

const A: Type = Type::ANYARRAY;
const E: Type = Type::ANYELEMENT;
const CA: Type = Type::ANYCOMPATIBLEARRAY;
const C: Type = Type::ANYCOMPATIBLE;
const I: Type = Type::INT4;
const T: Type = Type::TEXT;

/// Adds them all.
pub fn register(r: &mut Registry) {
    joining(r);
    bounds(r);
    r.binary("@>", "arraycontains", &[A, A], Type::BOOL, |a, _| {
        Ok(Datum::Bool(contains(args::array(a, 0)?, args::array(a, 1)?)))
    });
    r.binary("<@", "arraycontained", &[A, A], Type::BOOL, |a, _| {
        Ok(Datum::Bool(contains(args::array(a, 1)?, args::array(a, 0)?)))
    });
    r.binary("&&", "arrayoverlap", &[A, A], Type::BOOL, |a, _| {
        Ok(Datum::Bool(overlaps(args::array(a, 0)?, args::array(a, 1)?)))
    });
    nullable(r, "array_position", &[CA, C], I, |a, _| position(a));
    nullable(r, "array_position", &[CA, C, I], I, |a, _| position(a));
    nullable(r, "array_positions", &[CA, C], Type::INT4_ARRAY, |a, _| positions(a));
    nullable(r, "array_remove", &[CA, C], CA, |a, _| remove(a));
    nullable(r, "array_replace", &[CA, C, C], CA, |a, _| replace(a));
    r.stable("array_to_string", &[A, T], T, |a, cx| to_string(args::array(a, 0)?, args::text(a, 1)?, None, cx));
    r.scalar(ScalarFn {
        name: "array_to_string",
        args: &[A, T, T],
        variadic: None,
        optional: 0,
        ret: T,
        strict: false,
        volatility: Volatility::Stable,
        imp: |a, cx| {
            if is_null(a, 0) || is_null(a, 1) {
                return Ok(Datum::Null);
            }
            to_string(args::array(a, 0)?, args::text(a, 1)?, args::text_or_null(a, 2)?, cx)
        },
    });
    nullable(r, "array_fill", &[E, Type::INT4_ARRAY], A, fill);
    nullable(r, "array_fill", &[E, Type::INT4_ARRAY, Type::INT4_ARRAY], A, fill);
    r.pure("width_bucket", &[C, CA], I, |a, _| width_bucket(&a[0], args::array(a, 1)?));
    r.pure("trim_array", &[A, I], A, |a, _| trim(args::array(a, 0)?, args::int4(a, 1)?));
}

// An immutable function that is called with NULLs too.
fn nullable(
    r: &mut Registry,
    name: &'static str,
    args: &'static [Type],
    ret: Type,
    imp: ScalarImpl,
) -> &'static ScalarFn {
    r.scalar(ScalarFn {
        name,
        args,
        variadic: None,
        optional: 0,
        ret,
        strict: false,
        volatility: Volatility::Immutable,
        imp,
    })
}

fn joining(r: &mut Registry) {
    let f = nullable(r, "array_append", &[CA, C], CA, |a, cx| push(a.first(), a.get(1), false, cx));
    r.operator("||", CA, C, f);
    let f = nullable(r, "array_prepend", &[C, CA], CA, |a, cx| push(a.get(1), a.first(), true, cx));
    r.operator("||", C, CA, f);
    let f = nullable(r, "array_cat", &[CA, CA], CA, |a, _| concatenate(a));
    r.operator("||", CA, CA, f);
}

fn element_type(cx: &FnCx<'_>) -> Type {
    cx.ret.element().unwrap_or(Type::TEXT)
}

fn incompatible(detail: impl Into<String>) -> SqlError {
    SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, "cannot concatenate incompatible arrays").detail(detail)
}

// An element at either end of a list; the lower bound stays.
fn push(array: Option<&Datum>, value: Option<&Datum>, front: bool, cx: &FnCx<'_>) -> Result<Datum> {
    let value = value.cloned().unwrap_or_default();
    let mut out = match array {
        Some(Datum::Array(a)) => Array::clone(a),
        _ => Array::empty(element_type(cx)),
    };
    match out.dims.as_mut_slice() {
        [] => out.dims.push((1, 1)),
        [(len, lower)] => {
            if lower.checked_add(*len).is_none() {
                return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range"));
            }
            *len += 1;
        }
        _ => return Err(SqlError::new(state::DATA_EXCEPTION, "argument must be empty or one-dimensional array")),
    }
    count_held(&out.dims)?;
    if front {
        out.values.insert(0, value)
    } else {
        out.values.push(value)
    }
    Ok(out.datum())
}

fn concatenate(a: &[Datum]) -> Result<Datum> {
    if is_null(a, 0) || is_null(a, 1) {
        return Ok(a[usize::from(is_null(a, 0))].clone());
    }
    let (left, right) = (args::array(a, 0)?, args::array(a, 1)?);
    if left.elem != right.elem {
        return Err(SqlError::new(state::DATATYPE_MISMATCH, "cannot concatenate incompatible arrays").detail(format!(
            "Arrays with element types {} and {} are not compatible for concatenation.",
            left.elem.sql_name(),
            right.elem.sql_name()
        )));
    }
    if left.values.is_empty() || right.values.is_empty() {
        return Ok(a[usize::from(left.values.is_empty())].clone());
    }
    let (l, r) = (&left.dims, &right.dims);
    let dims = if l.len() == r.len() {
        if l[1..] != r[1..] {
            return Err(incompatible("Arrays with differing element dimensions are not compatible for concatenation."));
        }
        let mut dims = l.clone();
        dims[0].0 = dims[0].0.saturating_add(r[0].0);
        dims
    } else if l.len().abs_diff(r.len()) == 1 {
        // The one with a dimension less is an element of the other.
        let (whole, part) = if l.len() > r.len() { (l, r) } else { (r, l) };
        if whole[1..] != part[..] {
            return Err(incompatible("Arrays with differing dimensions are not compatible for concatenation."));
        }
        let mut dims = whole.clone();
        dims[0].0 += 1;
        dims
    } else {
        return Err(incompatible(format!(
            "Arrays of {} and {} dimensions are not compatible for concatenation.",
            l.len(),
            r.len()
        )));
    };
    count_held(&dims)?;
    Ok(Array { elem: left.elem, dims, values: left.values.iter().chain(&right.values).cloned().collect() }.datum())
}

fn bounds(r: &mut Registry) {
    fn dim(a: &[Datum]) -> Result<Option<(i32, i32)>> {
        let n = args::int4(a, 1)?;
        Ok(usize::try_from(i64::from(n) - 1).ok().and_then(|n| args::array(a, 0).ok()?.dims.get(n).copied()))
    }
    fn number(n: Option<i32>) -> Result<Datum> {
        Ok(n.map_or(Datum::Null, Datum::Int4))
    }
    r.pure("array_length", &[A, I], I, |a, _| number(dim(a)?.map(|d| d.0)));
    r.pure("array_lower", &[A, I], I, |a, _| number(dim(a)?.map(|d| d.1)));
    r.pure("array_upper", &[A, I], I, |a, _| number(dim(a)?.map(|d| d.1 + d.0 - 1)));
    r.pure("array_ndims", &[A], I, |a, _| {
        let n = args::array(a, 0)?.dims.len();
        number((n > 0).then_some(n as i32))
    });
    r.pure("cardinality", &[A], I, |a, _| Ok(args::count(args::array(a, 0)?.values.len())));
    r.pure("array_dims", &[A], T, |a, _| {
        let dims = &args::array(a, 0)?.dims;
        let shown: String = dims.iter().map(|(len, lower)| format!("[{lower}:{}]", lower + len - 1)).collect();
        Ok(if dims.is_empty() { Datum::Null } else { Datum::text(shown) })
    });
}

/// Beyond this many comparisons an index of the elements' hashes is made first.
const COMPARISONS_MAX: usize = 4096;

// Which of the elements of `wanted` are among those of `all`, by equality; a NULL never is.
fn found<'a>(all: &'a Array, wanted: &'a Array) -> Box<dyn Iterator<Item = bool> + 'a> {
    let ty = all.elem;
    let among = move |v: &Datum| all.values.iter().any(|x| !x.is_null() && equal_typed(x, v, ty));
    if all.values.len() * wanted.values.len() <= COMPARISONS_MAX {
        return Box::new(wanted.values.iter().map(move |v| !v.is_null() && among(v)));
    }
    let hash = move |v: &Datum| {
        let mut h = FxHasher::default();
        v.hash_into(&mut h, ty);
        std::hash::Hasher::finish(&h)
    };
    let hashes: FxHashSet<u64> = all.values.iter().filter(|v| !v.is_null()).map(hash).collect();
    Box::new(wanted.values.iter().map(move |v| !v.is_null() && hashes.contains(&hash(v)) && among(v)))
}

fn contains(all: &Array, part: &Array) -> bool {
    found(all, part).all(|f| f)
}

fn overlaps(a: &Array, b: &Array) -> bool {
    found(a, b).any(|f| f)
}

// The list to search, or an error naming what is done to lists only.
fn list<'a>(a: &'a [Datum], doing: &str) -> Result<Option<&'a Arc<Array>>> {
    if is_null(a, 0) {
        return Ok(None);
    }
    let array = args::array(a, 0)?;
    if array.dims.len() > 1 {
        return Err(SqlError::unsupported(format_args!("{doing} multidimensional arrays")));
    }
    Ok(Some(array))
}

fn position(a: &[Datum]) -> Result<Datum> {
    let Some(array) = list(a, "searching for elements in")? else { return Ok(Datum::Null) };
    let Some(&(_, lower)) = array.dims.first() else { return Ok(Datum::Null) };
    let from = match a.get(2) {
        None => lower,
        Some(Datum::Null) => {
            return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "initial position must not be null"));
        }
        Some(_) => args::int4(a, 2)?,
    };
    let skip = usize::try_from(i64::from(from) - i64::from(lower)).unwrap_or(0);
    let at = array.values.iter().enumerate().skip(skip).find(|(_, v)| equal_typed(v, &a[1], array.elem));
    Ok(at.map_or(Datum::Null, |(i, _)| Datum::Int4(lower + i as i32)))
}

fn positions(a: &[Datum]) -> Result<Datum> {
    let Some(array) = list(a, "searching for elements in")? else { return Ok(Datum::Null) };
    let lower = array.dims.first().map_or(1, |d| d.1);
    let at = array.values.iter().enumerate().filter(|(_, v)| equal_typed(v, &a[1], array.elem));
    Ok(Array::from_values(I, at.map(|(i, _)| Datum::Int4(lower + i as i32)).collect()).datum())
}

fn remove(a: &[Datum]) -> Result<Datum> {
    let Some(array) = list(a, "removing elements from")? else { return Ok(Datum::Null) };
    let values: Vec<Datum> = array.values.iter().filter(|v| !equal_typed(v, &a[1], array.elem)).cloned().collect();
    if values.len() == array.values.len() {
        return Ok(a[0].clone());
    }
    if values.is_empty() {
        return Ok(Array::empty(array.elem).datum());
    }
    let dims = vec![(values.len() as i32, array.dims.first().map_or(1, |d| d.1))];
    Ok(Array { elem: array.elem, dims, values }.datum())
}

fn replace(a: &[Datum]) -> Result<Datum> {
    if is_null(a, 0) {
        return Ok(Datum::Null);
    }
    let mut array = Array::clone(args::array(a, 0)?);
    for v in &mut array.values {
        if equal_typed(v, &a[1], array.elem) {
            *v = a[2].clone();
        }
    }
    Ok(array.datum())
}

fn to_string(array: &Array, separator: &str, null: Option<&str>, cx: &FnCx<'_>) -> Result<Datum> {
    let (mut out, mut steps) = (Text::default(), Steps::new(cx));
    let mut first = true;
    for v in array.values.iter().filter(|v| !v.is_null() || null.is_some()) {
        steps.take(1)?;
        if !first {
            out.push_str(separator)?;
        }
        first = false;
        match null {
            Some(null) if v.is_null() => out.push_str(null)?,
            _ => out.write(|out| io::text_out(v, array.elem, cx.session, out))?,
        }
    }
    Ok(out.datum())
}

fn fill(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    if is_null(a, 1) || (a.len() > 2 && is_null(a, 2)) {
        return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "dimension array or low bound array cannot be null"));
    }
    let wrong =
        |detail: &str| SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, "wrong number of array subscripts").detail(detail);
    let numbers = |i: usize, what: &str| -> Result<Vec<i32>> {
        let array = args::array(a, i)?;
        if array.dims.len() > 1 {
            return Err(wrong(if i == 1 {
                "Dimension array must be one dimensional."
            } else {
                "Low bound array must be one dimensional."
            }));
        }
        if array.values.iter().any(Datum::is_null) {
            return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, format!("{what} values cannot be null")));
        }
        (0..array.values.len()).map(|i| args::int4(&array.values, i)).collect()
    };
    let lens = numbers(1, "dimension")?;
    if lens.len() > DIMS_MAX {
        return Err(too_many_dims(lens.len()));
    }
    let lowers = if a.len() > 2 { numbers(2, "dimension")? } else { vec![1; lens.len()] };
    if lowers.len() != lens.len() {
        return Err(wrong("Low bound array has different size than dimensions array."));
    }
    let dims: Vec<(i32, i32)> = lens.into_iter().zip(lowers).collect();
    let count = count_held(&dims)?;
    if count == 0 {
        return Ok(Array::empty(element_type(cx)).datum());
    }
    Ok(Array { elem: element_type(cx), dims, values: vec![a[0].clone(); count] }.datum())
}

// How many of the rising thresholds are not above the value.
fn width_bucket(value: &Datum, thresholds: &Array) -> Result<Datum> {
    if thresholds.dims.len() > 1 {
        return Err(SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, "thresholds must be one-dimensional array"));
    }
    if thresholds.values.iter().any(Datum::is_null) {
        return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "thresholds array must not contain NULLs"));
    }
    Ok(args::count(thresholds.values.partition_point(|t| compare_typed(t, value, thresholds.elem).is_le())))
}

fn trim(array: &Arc<Array>, n: i32) -> Result<Datum> {
    let len = array.dims.first().map_or(0, |d| d.0);
    if !(0..=len).contains(&n) {
        return Err(SqlError::new(
            state::ARRAY_SUBSCRIPT_ERROR,
            format!("number of elements to trim must be between 0 and {len}"),
        ));
    }
    let Some(&(_, lower)) = array.dims.first() else { return Ok(Datum::Array(array.clone())) };
    Ok(array.slice(&[(None, Some(lower + len - 1 - n))]).datum())
}

#[cfg(test)]
mod tests {
    use super::super::testing::run_cases;
    use super::*;

    #[test]
    fn as_postgresql_answers() {
        run_cases(include_str!("cases/array.txt"));
    }

    #[test]
    fn containment_of_long_arrays_agrees_with_short_ones() {
        let numbers = |n: std::ops::Range<i32>| Array::from_values(I, n.map(Datum::Int4).collect());
        assert!(contains(&numbers(0..1000), &numbers(10..900)));
        assert!(!contains(&numbers(0..1000), &numbers(10..1001)));
        assert!(overlaps(&numbers(0..1000), &numbers(999..2000)));
        assert!(!overlaps(&numbers(0..1000), &numbers(1000..2000)));
    }
}
