//! Functions and operators of json and jsonb. What values are is in [`crate::types::json`]; here is what is done with them.
//!
//! | | |
//! | --- | --- |
//! | this file | looking into values, containment, casts |
//! | [`render`] | values of other types as JSON: to_json, row_to_json, json_build_object |
//! | [`change`] | jsonb made from jsonb: `||`, `-`, jsonb_set, jsonb_strip_nulls |
//! | [`sets`] | json_each, json_array_elements, json_object_keys |
//! | [`aggregate`] | json_agg, json_object_agg and their jsonb kin |
//!
//! Those of json read the text anew at every call and give pieces of it back as they were written.

mod aggregate;
mod change;
mod render;
mod sets;

use std::borrow::Cow;

use super::args;
use super::registry::CastContext::{Assignment, Explicit};
use super::registry::{CastMethod, Registry, ScalarFn, ScalarImpl, Volatility};
use crate::error::{Result, SqlError, state};
use crate::types::datum::Record;
use crate::types::json::text::{Found, Parts, kind, whole};
use crate::types::json::{Item, View};
use crate::types::{Array, Datum, Jsonb, Numeric, Type};

const J: Type = Type::JSON;
const B: Type = Type::JSONB;
const T: Type = Type::TEXT;
const I: Type = Type::INT4;
const TA: Type = Type::TEXT_ARRAY;

/// Adds them all.
pub fn register(r: &mut Registry) {
    access(r);
    paths(r);
    containment(r);
    casts(r);
    r.pure("json_typeof", &[J], T, |a, _| Ok(Datum::text(kind(args::text(a, 0)?))));
    r.pure("jsonb_typeof", &[B], T, |a, _| Ok(Datum::text(args::jsonb(a, 0)?.item().kind())));
    r.pure("json_array_length", &[J], I, |a, _| json_array_length(args::text(a, 0)?));
    r.pure("jsonb_array_length", &[B], I, |a, _| match args::jsonb(a, 0)?.item().view() {
        View::Array(elements) => Ok(args::count(elements.count())),
        View::Object(_) => Err(invalid("cannot get array length of a non-array")),
        _ => Err(invalid("cannot get array length of a scalar")),
    });
    change::register(r);
    render::register(r);
    sets::register(r);
    aggregate::register(r);
}

/// 22023
fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message)
}

/// An immutable function for an operator only: as a function of its name it takes its list as VARIADIC.
fn operator_only(name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) -> &'static ScalarFn {
    let (variadic, optional, strict, volatility) = (None, 0, true, Volatility::Immutable);
    Box::leak(Box::new(ScalarFn { name, args, variadic, optional, ret, strict, volatility, imp }))
}

/// The same with its arguments one by one.
fn variadic(r: &mut Registry, name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) {
    let (variadic, strict, volatility) = (Some(T), true, Volatility::Immutable);
    r.scalar(ScalarFn { name, args, variadic, optional: 0, ret, strict, volatility, imp });
}

fn found_raw(found: Option<Found<'_>>) -> Datum {
    found.map_or(Datum::Null, |f| Datum::text(f.raw))
}

fn found_text(found: Option<Found<'_>>) -> Datum {
    found.and_then(|f| f.text).map_or(Datum::Null, Datum::text)
}

fn item(item: Option<Item<'_>>) -> Datum {
    item.map_or(Datum::Null, |i| Datum::Jsonb(Jsonb::from_item(i)))
}

/// What `->>` gives: a string's characters, NULL for null, the text of anything else.
fn item_text(item: Option<Item<'_>>) -> Datum {
    let Some(item) = item else { return Datum::Null };
    match item.view() {
        View::Null => Datum::Null,
        View::String(s) => Datum::text(s),
        _ => {
            let mut out = String::new();
            item.write(&mut out);
            Datum::text(out)
        }
    }
}

/// The member of a name, the last there is.
fn member<'a>(text: &'a str, name: &str) -> Result<Option<Found<'a>>> {
    if kind(text) != "object" {
        return Ok(None);
    }
    let (mut parts, mut last) = (Parts::new(text)?, None);
    while let Some((key, found)) = parts.next()? {
        if key.is_some_and(|k| k == name) {
            last = Some(found);
        }
    }
    Ok(last)
}

/// The element at a place counted from 0, or from the end if negative.
fn element(text: &str, index: i64) -> Result<Option<Found<'_>>> {
    if kind(text) != "array" {
        return Ok(None);
    }
    let index = if index < 0 { index + count(text)? } else { index };
    let (mut parts, mut at) = (Parts::new(text)?, 0);
    while let Some((_, found)) = parts.next()? {
        if at == index {
            parts.finish()?;
            return Ok(Some(found));
        }
        at += 1;
    }
    Ok(None)
}

fn count(text: &str) -> Result<i64> {
    let (mut parts, mut n) = (Parts::new(text)?, 0);
    while parts.next()?.is_some() {
        n += 1;
    }
    Ok(n)
}

fn json_array_length(text: &str) -> Result<Datum> {
    match kind(text) {
        "array" => Ok(Datum::Int4(i32::try_from(count(text)?).unwrap_or(i32::MAX))),
        "object" => Err(invalid("cannot get array length of a non-array")),
        _ => Err(invalid("cannot get array length of a scalar")),
    }
}

/// The element of an array; of a scalar, which PostgreSQL keeps as an array of one, itself.
fn jsonb_element<'a>(a: &'a [Datum]) -> Result<Option<Item<'a>>> {
    let (whole, index) = (args::jsonb(a, 0)?.item(), i64::from(args::int4(a, 1)?));
    Ok(match whole.view() {
        View::Array(elements) => elements.at(index),
        View::Object(_) => None,
        _ => matches!(index, 0 | -1).then_some(whole),
    })
}

fn access(r: &mut Registry) {
    let mut both = |name, args: &'static [Type; 2], imp: ScalarImpl, text_name, text_imp: ScalarImpl| {
        r.binary("->", name, args, args[0], imp);
        r.binary("->>", text_name, args, T, text_imp);
    };
    both(
        "json_object_field",
        &[J, T],
        |a, _| Ok(found_raw(member(args::text(a, 0)?, args::text(a, 1)?)?)),
        "json_object_field_text",
        |a, _| Ok(found_text(member(args::text(a, 0)?, args::text(a, 1)?)?)),
    );
    both(
        "json_array_element",
        &[J, I],
        |a, _| Ok(found_raw(element(args::text(a, 0)?, args::int4(a, 1)?.into())?)),
        "json_array_element_text",
        |a, _| Ok(found_text(element(args::text(a, 0)?, args::int4(a, 1)?.into())?)),
    );
    both(
        "jsonb_object_field",
        &[B, T],
        |a, _| Ok(item(args::jsonb(a, 0)?.item().member(args::text(a, 1)?))),
        "jsonb_object_field_text",
        |a, _| Ok(item_text(args::jsonb(a, 0)?.item().member(args::text(a, 1)?))),
    );
    both(
        "jsonb_array_element",
        &[B, I],
        |a, _| Ok(item(jsonb_element(a)?)),
        "jsonb_array_element_text",
        |a, _| Ok(item_text(jsonb_element(a)?)),
    );
}

/// A path: the texts of an array or of the arguments behind the first; None if one of them is NULL.
fn path(a: &[Datum]) -> Option<Vec<&str>> {
    let steps = match a.get(1) {
        Some(Datum::Array(array)) => &array.values[..],
        _ => a.get(1..).unwrap_or_default(),
    };
    steps.iter().map(|d| if let Datum::Text(s) = d { Some(&**s) } else { None }).collect()
}

/// A subscript written as text, as strtol reads it.
fn subscript(text: &str) -> Option<i64> {
    let body = text.trim_start_matches(|c: char| c.is_ascii() && crate::types::io::is_space(c as u8));
    let digits = body.strip_prefix(['+', '-']).unwrap_or(body);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    body.parse::<i32>().ok().map(i64::from)
}

fn json_at<'a>(a: &'a [Datum]) -> Result<Option<Found<'a>>> {
    let Some(path) = path(a) else { return Ok(None) };
    let mut found = whole(args::text(a, 0)?)?;
    for step in path {
        let next = match kind(found.raw) {
            "object" => member(found.raw, step)?,
            "array" => match subscript(step) {
                Some(index) => element(found.raw, index)?,
                None => None,
            },
            _ => None,
        };
        match next {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// The value a path leads to.
fn jsonb_at<'a>(a: &'a [Datum]) -> Result<Option<Item<'a>>> {
    let Some(path) = path(a) else { return Ok(None) };
    let mut at = args::jsonb(a, 0)?.item();
    for step in path {
        let next = match at.view() {
            View::Object(members) => members.get(step),
            View::Array(elements) => subscript(step).and_then(|index| elements.at(index)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn paths(r: &mut Registry) {
    let mut add = |op, name, args: &'static [Type; 2], ret, imp: ScalarImpl| {
        let f = operator_only(name, args, ret, imp);
        r.operator(op, args[0], args[1], f);
        variadic(r, name, &args[..1], ret, imp);
    };
    add("#>", "json_extract_path", &[J, TA], J, |a, _| Ok(found_raw(json_at(a)?)));
    add("#>>", "json_extract_path_text", &[J, TA], T, |a, _| Ok(found_text(json_at(a)?)));
    add("#>", "jsonb_extract_path", &[B, TA], B, |a, _| Ok(item(jsonb_at(a)?)));
    add("#>>", "jsonb_extract_path_text", &[B, TA], T, |a, _| Ok(item_text(jsonb_at(a)?)));
}

/// The function behind a subscript of jsonb: `j['a'][1]` is `j #> '{a,1}'`.
pub(crate) fn subscripting() -> &'static ScalarFn {
    static FUNC: std::sync::OnceLock<&'static ScalarFn> = std::sync::OnceLock::new();
    FUNC.get_or_init(|| operator_only("jsonb_extract_path", &[B, TA], B, |a, _| Ok(item(jsonb_at(a)?))))
}

/// A row with its fields named anew: what the binder puts around a whole row of a table where a function shows the names.
pub(crate) fn naming() -> &'static ScalarFn {
    static FUNC: std::sync::OnceLock<&'static ScalarFn> = std::sync::OnceLock::new();
    FUNC.get_or_init(|| {
        operator_only("row", &[Type::RECORD, TA], Type::RECORD, |a, _| {
            let (Datum::Record(record), names) = (&a[0], args::array(a, 1)?) else { return Ok(a[0].clone()) };
            let named = record.fields.iter().zip(&names.values).map(|((old, ty), name)| match name {
                Datum::Text(name) => (name.clone(), *ty),
                _ => (old.clone(), *ty),
            });
            let record = Record { fields: named.collect(), values: record.values.clone() };
            Ok(Datum::Record(std::sync::Arc::new(record)))
        })
    })
}

/// Whether PostgreSQL has a function of this name about JSON and we have not: paths of SQL/JSON, and rows by a type or a list of columns.
pub(crate) fn is_lacking(function: &str) -> bool {
    let about = function.strip_prefix("jsonb_").or_else(|| function.strip_prefix("json_"));
    about.is_some_and(|rest| {
        rest.starts_with("path_")
            || matches!(rest, "to_record" | "to_recordset" | "populate_record" | "populate_recordset")
    })
}

/// Whether a function shows, or keeps for one that does, the names of its arguments' fields.
pub(crate) fn shows_names(function: &str) -> bool {
    matches!(
        function,
        "to_json"
            | "to_jsonb"
            | "row_to_json"
            | "json_agg"
            | "jsonb_agg"
            | "json_object_agg"
            | "jsonb_object_agg"
            | "json_build_array"
            | "json_build_object"
            | "jsonb_build_array"
            | "jsonb_build_object"
            | "array_agg"
    )
}

fn same_scalar(a: Item<'_>, b: Item<'_>) -> bool {
    match (a.view(), b.view()) {
        (View::Number(x), View::Number(y)) => {
            x == y || matches!((Numeric::parse(x), Numeric::parse(y)), (Ok(x), Ok(y)) if x == y)
        }
        _ => a.bytes() == b.bytes(),
    }
}

/// `@>`: containers alike, each of the right's parts somewhere in the left's.
fn contains(left: Item<'_>, right: Item<'_>) -> bool {
    match (left.view(), right.view()) {
        (View::Object(have), View::Object(want)) => {
            have.count() >= want.count() && { want }
                .all(|(name, value)| have.get(name).is_some_and(|h| holds(h, value)))
        }
        (View::Array(have), View::Array(mut want)) => want.all(|value| { have }.any(|h| holds(h, value))),
        _ => false,
    }
}

fn holds(have: Item<'_>, want: Item<'_>) -> bool {
    if have.is_container() && want.is_container() { contains(have, want) } else { same_scalar(have, want) }
}

/// Of whole values a scalar is an array of one, but no array is in a scalar.
fn contains_whole(left: &Jsonb, right: &Jsonb) -> bool {
    let (left, right) = (left.item(), right.item());
    match (left.view(), right.is_container()) {
        (View::Array(mut have), false) => have.any(|h| same_scalar(h, right)),
        (_, false) => same_scalar(left, right),
        (_, true) => contains(left, right),
    }
}

/// Whether a string is a name of an object, an element of an array, or the value itself.
fn exists(item: Item<'_>, name: &str) -> bool {
    let is = |i: Item<'_>| matches!(i.view(), View::String(s) if s == name);
    match item.view() {
        View::Object(members) => members.get(name).is_some(),
        View::Array(mut elements) => elements.any(is),
        _ => is(item),
    }
}

fn names(array: &Array) -> impl Iterator<Item = &str> {
    array.values.iter().filter_map(|v| if let Datum::Text(s) = v { Some(&**s) } else { None })
}

fn containment(r: &mut Registry) {
    r.binary("@>", "jsonb_contains", &[B, B], Type::BOOL, |a, _| {
        Ok(Datum::Bool(contains_whole(args::jsonb(a, 0)?, args::jsonb(a, 1)?)))
    });
    r.binary("<@", "jsonb_contained", &[B, B], Type::BOOL, |a, _| {
        Ok(Datum::Bool(contains_whole(args::jsonb(a, 1)?, args::jsonb(a, 0)?)))
    });
    r.binary("?", "jsonb_exists", &[B, T], Type::BOOL, |a, _| {
        Ok(Datum::Bool(exists(args::jsonb(a, 0)?.item(), args::text(a, 1)?)))
    });
    r.binary("?|", "jsonb_exists_any", &[B, TA], Type::BOOL, |a, _| {
        let item = args::jsonb(a, 0)?.item();
        Ok(Datum::Bool(names(args::array(a, 1)?).any(|n| exists(item, n))))
    });
    r.binary("?&", "jsonb_exists_all", &[B, TA], Type::BOOL, |a, _| {
        let item = args::jsonb(a, 0)?.item();
        Ok(Datum::Bool(names(args::array(a, 1)?).all(|n| exists(item, n))))
    });
}

/// A number of a jsonb for a cast, or why not.
fn number<'a>(a: &'a [Datum], target: &str) -> Result<Cow<'a, str>> {
    match args::jsonb(a, 0)?.item().view() {
        View::Number(n) => Ok(Cow::Borrowed(n)),
        other => Err(no_cast(other, target)),
    }
}

fn no_cast(view: View<'_>, target: &str) -> SqlError {
    let kind = match view {
        View::Null => "null",
        View::Bool(_) => "boolean",
        View::Number(_) => "numeric",
        View::String(_) => "string",
        View::Array(_) => "array",
        View::Object(_) => "object",
    };
    invalid(format!("cannot cast jsonb {kind} to type {target}"))
}

fn casts(r: &mut Registry) {
    r.cast(J, B, Assignment, CastMethod::InOut);
    r.cast(B, J, Assignment, CastMethod::InOut);
    let mut add = |name, target, imp: ScalarImpl| {
        let f = r.pure(name, &[B], target, imp);
        r.cast(B, target, Explicit, CastMethod::Function(f));
    };
    add("bool", Type::BOOL, |a, _| match args::jsonb(a, 0)?.item().view() {
        View::Bool(b) => Ok(Datum::Bool(b)),
        other => Err(no_cast(other, "boolean")),
    });
    add("numeric", Type::NUMERIC, |a, _| Ok(Datum::Numeric(Numeric::parse(&number(a, "numeric")?)?)));
    add("int2", Type::INT2, |a, _| Ok(Datum::Int2(integer(a, "smallint")?)));
    add("int4", Type::INT4, |a, _| Ok(Datum::Int4(integer(a, "integer")?)));
    add("int8", Type::INT8, |a, _| Ok(Datum::Int8(integer(a, "bigint")?)));
    add("float4", Type::FLOAT4, |a, _| Ok(Datum::Float4(crate::types::float::parse_f32(&number(a, "real")?)?)));
    add("float8", Type::FLOAT8, |a, _| {
        Ok(Datum::Float8(crate::types::float::parse_f64(&number(a, "double precision")?)?))
    });
}

fn integer<N: TryFrom<i64>>(a: &[Datum], target: &str) -> Result<N> {
    let n = Numeric::parse(&number(a, target)?)?.to_i64(target)?;
    N::try_from(n).map_err(|_| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, format!("{target} out of range")))
}
