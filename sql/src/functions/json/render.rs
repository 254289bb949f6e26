//! Values of any type as JSON, text and jsonb: to_json, row_to_json, array_to_json, json_build_object and json_build_array.
//!
//! Booleans, numbers, arrays, rows and JSON itself become what they are in JSON; dates and times strings as ISO 8601 writes them; everything
//! else a string of its text. Numbers that JSON has not, NaN and the infinities, are strings too.

use super::super::FnCx;
use super::super::args;
use super::super::grow::{BYTES_MAX, check_len};
use super::super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use super::{B, J, invalid};
use crate::error::{Result, SqlError};
use crate::functions::SessionCx;
use crate::types::datum::Record;
use crate::types::json::{Builder, quote, text as json_text};
use crate::types::{Array, Datum, Numeric, Type, io};

/// Adds them.
pub(super) fn register(r: &mut Registry) {
    const E: Type = Type::ANYELEMENT;
    r.stable("to_json", &[E], J, |a, cx| to_json(&a[0], arg_type(cx, 0), cx, false));
    r.stable("to_jsonb", &[E], B, |a, cx| {
        let mut made = Builder::default();
        add(&a[0], arg_type(cx, 0), cx.session, &mut made)?;
        Ok(Datum::Jsonb(made.finish()))
    });
    r.stable("array_to_json", &[Type::ANYARRAY], J, |a, cx| to_json(&a[0], arg_type(cx, 0), cx, false));
    r.stable("array_to_json", &[Type::ANYARRAY, Type::BOOL], J, |a, cx| {
        to_json(&a[0], arg_type(cx, 0), cx, args::boolean(a, 1)?)
    });
    r.stable("row_to_json", &[Type::RECORD], J, |a, cx| to_json(&a[0], Type::RECORD, cx, false));
    r.stable("row_to_json", &[Type::RECORD, Type::BOOL], J, |a, cx| {
        to_json(&a[0], Type::RECORD, cx, args::boolean(a, 1)?)
    });
    build(r, "json_build_array", J, |a, cx| {
        let mut out = String::from("[");
        for (i, value) in a.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write(value, arg_type(cx, i), cx.session, false, &mut out)?;
        }
        out.push(']');
        Ok(Datum::text(out))
    });
    build(r, "json_build_object", J, |a, cx| {
        even(a, "json_build_object()")?;
        let mut out = String::from("{");
        for (i, pair) in a.chunks_exact(2).enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            if pair[0].is_null() {
                return Err(
                    invalid(format!("argument {} cannot be null", 2 * i + 1)).hint("Object keys should be text.")
                );
            }
            quote(&key(&pair[0], arg_type(cx, 2 * i), cx.session)?, &mut out);
            out.push_str(" : ");
            write(&pair[1], arg_type(cx, 2 * i + 1), cx.session, false, &mut out)?;
        }
        out.push('}');
        Ok(Datum::text(out))
    });
    build(r, "jsonb_build_array", B, |a, cx| {
        let mut made = Builder::default();
        made.begin_array()?;
        for (i, value) in a.iter().enumerate() {
            add(value, arg_type(cx, i), cx.session, &mut made)?;
        }
        made.end()?;
        Ok(Datum::Jsonb(made.finish()))
    });
    build(r, "jsonb_build_object", B, |a, cx| {
        even(a, "jsonb_build_object()")?;
        let mut made = Builder::default();
        made.begin_object()?;
        for (i, pair) in a.chunks_exact(2).enumerate() {
            if pair[0].is_null() {
                return Err(invalid(format!("argument {}: key must not be null", 2 * i + 1)));
            }
            made.name(&key(&pair[0], arg_type(cx, 2 * i), cx.session)?)?;
            add(&pair[1], arg_type(cx, 2 * i + 1), cx.session, &mut made)?;
        }
        made.end()?;
        Ok(Datum::Jsonb(made.finish()))
    });
    for (name, ret) in [("json_object", J), ("jsonb_object", B)] {
        let one: ScalarImpl = |a, cx| object(&pairs(args::array(a, 0)?)?, cx);
        let two: ScalarImpl = |a, cx| object(&zip(args::array(a, 0)?, args::array(a, 1)?)?, cx);
        r.pure(name, &[Type::TEXT_ARRAY], ret, one);
        r.pure(name, &[Type::TEXT_ARRAY, Type::TEXT_ARRAY], ret, two);
    }
}

fn build(r: &mut Registry, name: &'static str, ret: Type, imp: ScalarImpl) {
    let (args, variadic, strict, volatility) = (&[], Some(Type::ANY), false, Volatility::Stable);
    r.scalar(ScalarFn { name, args, variadic, optional: 0, ret, strict, volatility, imp });
    r.scalar(ScalarFn { name, args, variadic: None, optional: 0, ret, strict, volatility, imp });
}

fn even(a: &[Datum], function: &str) -> Result<()> {
    if a.len().is_multiple_of(2) {
        return Ok(());
    }
    let hint = format!("The arguments of {function} must consist of alternating keys and values.");
    Err(invalid("argument list must have even number of elements").hint(hint))
}

/// The type of an argument.
pub(super) fn arg_type(cx: &FnCx<'_>, i: usize) -> Type {
    cx.arg_types.get(i).copied().unwrap_or(Type::TEXT)
}

fn to_json(d: &Datum, ty: Type, cx: &FnCx<'_>, pretty: bool) -> Result<Datum> {
    let mut out = String::new();
    write(d, ty, cx.session, pretty, &mut out)?;
    Ok(Datum::text(out))
}

fn is_number(ty: Type) -> bool {
    matches!(ty, Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC)
}

/// The text of a value as a string of JSON has it: dates and times in ISO 8601.
fn plain(d: &Datum, ty: Type, cx: &SessionCx) -> String {
    let mut text = match d {
        Datum::Bool(b) => (if *b { "true" } else { "false" }).to_owned(),
        _ => io::to_text(d, ty, cx),
    };
    if let (Datum::Timestamp(_) | Datum::TimestampTz(_), Some(at)) = (d, text.find(' '))
        && text.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit)
    {
        text.replace_range(at..=at, "T");
        // A zone of whole hours is written with its minutes here.
        let end = text.find(' ').unwrap_or(text.len());
        let sign = text[at..end].rfind(['+', '-']).map(|i| at + i);
        if matches!(d, Datum::TimestampTz(_)) && sign.is_some_and(|s| end - s == 3) {
            text.insert_str(end, ":00");
        }
    }
    text
}

/// The name a value gives a member.
pub(super) fn key(d: &Datum, ty: Type, cx: &SessionCx) -> Result<String> {
    if ty.is_array() || matches!(ty, Type::RECORD | Type::JSON | Type::JSONB) {
        return Err(invalid("key value must be scalar, not array, composite, or json"));
    }
    Ok(plain(d, ty, cx))
}

/// Appends a value as JSON text. `pretty` puts the parts of the outermost array or row on lines of their own.
pub(super) fn write(d: &Datum, ty: Type, cx: &SessionCx, pretty: bool, out: &mut String) -> Result<()> {
    match d {
        Datum::Null => out.push_str("null"),
        Datum::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Datum::Text(s) if ty == Type::JSON => out.push_str(s),
        Datum::Jsonb(j) => j.item().write(out),
        Datum::Array(array) => {
            let mut values = array.values.iter();
            write_array(array, 0, &mut values, cx, pretty, out)?;
        }
        Datum::Record(record) => write_row(record, cx, pretty, out)?,
        _ => {
            let text = plain(d, ty, cx);
            // Of a number's texts only NaN and the infinities end in a letter.
            if is_number(ty) && text.ends_with(|c: char| c.is_ascii_digit()) {
                out.push_str(&text);
            } else {
                quote(&text, out);
            }
        }
    }
    check_len(out.len())
}

fn write_array(
    array: &Array,
    dim: usize,
    values: &mut std::slice::Iter<'_, Datum>,
    cx: &SessionCx,
    pretty: bool,
    out: &mut String,
) -> Result<()> {
    let separator = if pretty { ",\n " } else { "," };
    out.push('[');
    let len = array.dims.get(dim).map_or(0, |d| d.0);
    for i in 0..len {
        if i > 0 {
            out.push_str(separator);
        }
        if dim + 1 < array.dims.len() {
            write_array(array, dim + 1, values, cx, false, out)?;
        } else if let Some(value) = values.next() {
            write(value, array.elem, cx, false, out)?;
        }
    }
    out.push(']');
    Ok(())
}

fn write_row(record: &Record, cx: &SessionCx, pretty: bool, out: &mut String) -> Result<()> {
    let separator = if pretty { ",\n " } else { "," };
    out.push('{');
    for (i, ((name, ty), value)) in record.fields.iter().zip(&record.values).enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        quote(name, out);
        out.push(':');
        write(value, ty.ty, cx, false, out)?;
    }
    out.push('}');
    Ok(())
}

/// Adds a value to a jsonb under construction.
pub(super) fn add(d: &Datum, ty: Type, cx: &SessionCx, made: &mut Builder) -> Result<()> {
    match d {
        Datum::Null => made.null(),
        Datum::Bool(b) => made.bool(*b),
        Datum::Text(s) if ty == Type::JSON => json_text::add_to(s, made)?,
        Datum::Jsonb(j) => made.item(j.item())?,
        Datum::Numeric(n) => made.number(n)?,
        Datum::Array(array) => add_array(array, 0, &mut array.values.iter(), cx, made)?,
        Datum::Record(record) => {
            made.begin_object()?;
            for ((name, ty), value) in record.fields.iter().zip(&record.values) {
                made.name(name)?;
                add(value, ty.ty, cx, made)?;
            }
            made.end()?;
        }
        _ => {
            let text = plain(d, ty, cx);
            if is_number(ty) && text.ends_with(|c: char| c.is_ascii_digit()) {
                made.number(&Numeric::parse(&text)?)?;
            } else {
                made.string(&text)?;
            }
        }
    }
    if made.heap_bytes() > 2 * BYTES_MAX { Err(super::super::grow::too_large()) } else { Ok(()) }
}

fn add_array(
    array: &Array,
    dim: usize,
    values: &mut std::slice::Iter<'_, Datum>,
    cx: &SessionCx,
    made: &mut Builder,
) -> Result<()> {
    made.begin_array()?;
    for _ in 0..array.dims.get(dim).map_or(0, |d| d.0) {
        if dim + 1 < array.dims.len() {
            add_array(array, dim + 1, values, cx, made)?;
        } else if let Some(value) = values.next() {
            add(value, array.elem, cx, made)?;
        }
    }
    made.end()
}

type Pair<'a> = (&'a Datum, &'a Datum);

fn subscript_error(message: &str) -> SqlError {
    SqlError::new(crate::error::state::ARRAY_SUBSCRIPT_ERROR, message)
}

/// `json_object(text[])`: names and values by turns, or rows of two.
fn pairs(array: &Array) -> Result<Vec<Pair<'_>>> {
    match array.dims[..] {
        [] => {}
        [(len, _)] if len % 2 != 0 => return Err(subscript_error("array must have even number of elements")),
        [_] | [_, (2, _)] => {}
        [_, _] => return Err(subscript_error("array must have two columns")),
        _ => return Err(subscript_error("wrong number of array subscripts")),
    }
    Ok(array.values.chunks_exact(2).map(|p| (&p[0], &p[1])).collect())
}

fn zip<'a>(names: &'a Array, values: &'a Array) -> Result<Vec<Pair<'a>>> {
    if names.dims.len() > 1 || names.dims.len() != values.dims.len() {
        return Err(subscript_error("wrong number of array subscripts"));
    }
    if names.values.len() != values.values.len() {
        return Err(subscript_error("mismatched array dimensions"));
    }
    Ok(names.values.iter().zip(&values.values).collect())
}

fn object(pairs: &[Pair<'_>], cx: &FnCx<'_>) -> Result<Datum> {
    let no_name =
        || SqlError::new(crate::error::state::NULL_VALUE_NOT_ALLOWED, "null value not allowed for object key");
    let text = |d: &Datum| if let Datum::Text(s) = d { Some(s.clone()) } else { None };
    if cx.ret == Type::JSONB {
        let mut made = Builder::default();
        made.begin_object()?;
        for (name, value) in pairs {
            made.name(&text(name).ok_or_else(no_name)?)?;
            match text(value) {
                Some(s) => made.string(&s)?,
                None => made.null(),
            }
        }
        made.end()?;
        return Ok(Datum::Jsonb(made.finish()));
    }
    let mut out = String::from("{");
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        quote(&text(name).ok_or_else(no_name)?, &mut out);
        out.push_str(" : ");
        match text(value) {
            Some(s) => quote(&s, &mut out),
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(Datum::text(out))
}
