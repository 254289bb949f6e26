//! The parts of a value as rows: json_each, json_array_elements, json_object_keys, and the same of jsonb.

use super::super::args;
use super::super::registry::{Registry, SetFn, SetIter};
use super::{B, J, T, found_raw, found_text, invalid, item, item_text};
use crate::error::Result;
use crate::types::json::View;
use crate::types::json::text::{Parts, kind};
use crate::types::{Datum, Type};

type Imp = fn(&[Datum], &super::super::FnCx<'_>) -> Result<SetIter>;

/// Adds them.
pub(super) fn register(r: &mut Registry) {
    let mut add = |name, args: &'static [Type], columns: &'static [(&'static str, Type)], imp: Imp| {
        r.set(SetFn { name, args, variadic: None, columns, strict: true, imp })
    };
    add("json_each", &[J], &[("key", T), ("value", J)], |a, _| json_each(a, false));
    add("json_each_text", &[J], &[("key", T), ("value", T)], |a, _| json_each(a, true));
    add("jsonb_each", &[B], &[("key", T), ("value", B)], |a, _| jsonb_each(a, "jsonb_each", false));
    add("jsonb_each_text", &[B], &[("key", T), ("value", T)], |a, _| jsonb_each(a, "jsonb_each_text", true));
    add("json_array_elements", &[J], &[("value", J)], |a, _| json_elements(a, "json_array_elements", false));
    add("json_array_elements_text", &[J], &[("value", T)], |a, _| json_elements(a, "json_array_elements_text", true));
    add("jsonb_array_elements", &[B], &[("value", B)], |a, _| jsonb_elements(a, false));
    add("jsonb_array_elements_text", &[B], &[("value", T)], |a, _| jsonb_elements(a, true));
    add("json_object_keys", &[J], &[("json_object_keys", T)], |a, _| json_keys(a));
    add("jsonb_object_keys", &[B], &[("jsonb_object_keys", T)], |a, _| match args::jsonb(a, 0)?.item().view() {
        View::Object(members) => Ok(rows(members.map(|(name, _)| vec![Datum::text(name)]).collect())),
        View::Array(_) => Err(invalid("cannot call jsonb_object_keys on an array")),
        _ => Err(invalid("cannot call jsonb_object_keys on a scalar")),
    });
}

fn rows(rows: Vec<Vec<Datum>>) -> SetIter {
    Box::new(rows.into_iter().map(Ok))
}

fn json_each(a: &[Datum], as_text: bool) -> Result<SetIter> {
    let text = args::text(a, 0)?;
    match kind(text) {
        "object" => {}
        "array" => return Err(invalid("cannot deconstruct an array as an object")),
        _ => return Err(invalid("cannot deconstruct a scalar")),
    }
    let (mut parts, mut out) = (Parts::new(text)?, Vec::new());
    while let Some((name, found)) = parts.next()? {
        let value = if as_text { found_text(Some(found)) } else { found_raw(Some(found)) };
        out.push(vec![Datum::text(name.unwrap_or_default()), value]);
    }
    Ok(rows(out))
}

fn jsonb_each(a: &[Datum], name: &str, as_text: bool) -> Result<SetIter> {
    let View::Object(members) = args::jsonb(a, 0)?.item().view() else {
        return Err(invalid(format!("cannot call {name} on a non-object")));
    };
    let value = |i| if as_text { item_text(Some(i)) } else { item(Some(i)) };
    Ok(rows(members.map(|(name, i)| vec![Datum::text(name), value(i)]).collect()))
}

fn json_elements(a: &[Datum], name: &str, as_text: bool) -> Result<SetIter> {
    let text = args::text(a, 0)?;
    match kind(text) {
        "array" => {}
        "object" => return Err(invalid(format!("cannot call {name} on a non-array"))),
        _ => return Err(invalid(format!("cannot call {name} on a scalar"))),
    }
    let (mut parts, mut out) = (Parts::new(text)?, Vec::new());
    while let Some((_, found)) = parts.next()? {
        out.push(vec![if as_text { found_text(Some(found)) } else { found_raw(Some(found)) }]);
    }
    Ok(rows(out))
}

fn jsonb_elements(a: &[Datum], as_text: bool) -> Result<SetIter> {
    match args::jsonb(a, 0)?.item().view() {
        View::Array(elements) => {
            Ok(rows(elements.map(|i| vec![if as_text { item_text(Some(i)) } else { item(Some(i)) }]).collect()))
        }
        View::Object(_) => Err(invalid("cannot extract elements from an object")),
        _ => Err(invalid("cannot extract elements from a scalar")),
    }
}

fn json_keys(a: &[Datum]) -> Result<SetIter> {
    let text = args::text(a, 0)?;
    match kind(text) {
        "object" => {}
        "array" => return Err(invalid("cannot call json_object_keys on an array")),
        _ => return Err(invalid("cannot call json_object_keys on a scalar")),
    }
    let (mut parts, mut out) = (Parts::new(text)?, Vec::new());
    while let Some((name, _)) = parts.next()? {
        out.push(vec![Datum::text(name.unwrap_or_default())]);
    }
    Ok(rows(out))
}
