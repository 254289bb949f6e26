//! jsonb made from jsonb: joining, deleting, setting and inserting by path, dropping nulls, printing prettily.
//!
//! A result is written from front to back, parts that stay copied whole. The path functions follow PostgreSQL's `setPath`.

use super::super::args::{self, is_null};
use super::super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use super::{B, I, J, T, TA, invalid, operator_only, variadic};
use crate::error::{Result, SqlError, state};
use crate::types::json::text::{Event, Reader};
use crate::types::json::{Builder, Elements, Item, Members, Token, View, quote};
use crate::types::{Array, Datum, Jsonb, Type};

/// Adds them.
pub(super) fn register(r: &mut Registry) {
    r.binary("||", "jsonb_concat", &[B, B], B, |a, _| concat(args::jsonb(a, 0)?, args::jsonb(a, 1)?));
    r.binary("-", "jsonb_delete", &[B, T], B, |a, _| delete(args::jsonb(a, 0)?, &[args::text(a, 1)?]));
    r.binary("-", "jsonb_delete", &[B, I], B, |a, _| delete_at(args::jsonb(a, 0)?, args::int4(a, 1)?));
    let f = operator_only("jsonb_delete", &[B, TA], B, |a, _| {
        let array = args::array(a, 1)?;
        if array.dims.len() > 1 {
            return Err(SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, "wrong number of array subscripts"));
        }
        delete(args::jsonb(a, 0)?, &super::names(array).collect::<Vec<_>>())
    });
    r.operator("-", B, TA, f);
    variadic(r, "jsonb_delete", &[B], B, |a, _| {
        let names: Vec<&str> =
            a[1..].iter().filter_map(|d| if let Datum::Text(s) = d { Some(&**s) } else { None }).collect();
        delete(args::jsonb(a, 0)?, &names)
    });
    r.binary("#-", "jsonb_delete_path", &[B, TA], B, |a, _| {
        let (whole, path) = (args::jsonb(a, 0)?, steps(args::array(a, 1)?)?);
        let item = whole.item();
        if !item.is_container() {
            return Err(invalid("cannot delete path in scalar"));
        }
        if path.is_empty() || is_empty(item) {
            return Ok(a[0].clone());
        }
        change(item, &Change { path: &path, value: None, how: How::Delete })
    });
    with_default(r, "jsonb_set", |a, _| set(a));
    with_default(r, "jsonb_insert", |a, _| insert(a));
    let (volatility, strict) = (Volatility::Immutable, false);
    r.scalar(ScalarFn {
        name: "jsonb_set_lax",
        args: &[B, TA, B, Type::BOOL, T],
        variadic: None,
        optional: 2,
        ret: B,
        strict,
        volatility,
        imp: |a, _| set_lax(a),
    });
    r.pure("jsonb_strip_nulls", &[B], B, |a, _| strip(args::jsonb(a, 0)?));
    r.pure("json_strip_nulls", &[J], J, |a, _| strip_text(args::text(a, 0)?));
    r.pure("jsonb_pretty", &[B], T, |a, _| {
        let mut out = String::new();
        args::jsonb(a, 0)?.item().write_pretty(&mut out);
        Ok(Datum::text(out))
    });
}

fn with_default(r: &mut Registry, name: &'static str, imp: ScalarImpl) {
    let (variadic, strict, volatility) = (None, true, Volatility::Immutable);
    let args = &[B, TA, B, Type::BOOL];
    r.scalar(ScalarFn { name, args, variadic, optional: 1, ret: B, strict, volatility, imp });
}

fn is_empty(item: Item<'_>) -> bool {
    match item.view() {
        View::Array(elements) => elements.count() == 0,
        View::Object(members) => members.count() == 0,
        _ => false,
    }
}

/// Objects are merged, the right's members staying; anything else is a list with another, scalars and lone objects being lists of one.
fn concat(left: &Jsonb, right: &Jsonb) -> Result<Datum> {
    let (l, r) = (left.item(), right.item());
    let is_object = |i: Item<'_>| matches!(i.view(), View::Object(_));
    if is_object(l) == is_object(r) {
        if is_empty(l) && r.is_container() {
            return Ok(Datum::Jsonb(right.clone()));
        }
        if is_empty(r) && l.is_container() {
            return Ok(Datum::Jsonb(left.clone()));
        }
    }
    let mut made = Builder::default();
    if let (View::Object(l), View::Object(r)) = (l.view(), r.view()) {
        made.begin_object()?;
        for (name, value) in l.chain(r) {
            made.name(name)?;
            made.item(value)?;
        }
    } else {
        made.begin_array()?;
        for side in [l, r] {
            match side.view() {
                View::Array(mut elements) => elements.try_for_each(|e| made.item(e))?,
                _ => made.item(side)?,
            }
        }
    }
    made.end()?;
    Ok(Datum::Jsonb(made.finish()))
}

fn from_scalar() -> SqlError {
    invalid("cannot delete from scalar")
}

fn delete(whole: &Jsonb, names: &[&str]) -> Result<Datum> {
    let mut made = Builder::default();
    match whole.item().view() {
        View::Object(members) => {
            made.begin_object()?;
            for (name, value) in members.filter(|(name, _)| !names.contains(name)) {
                made.name(name)?;
                made.item(value)?;
            }
        }
        View::Array(elements) => {
            made.begin_array()?;
            for element in elements {
                if !matches!(element.view(), View::String(s) if names.contains(&s)) {
                    made.item(element)?;
                }
            }
        }
        _ => return Err(from_scalar()),
    }
    made.end()?;
    Ok(Datum::Jsonb(made.finish()))
}

fn delete_at(whole: &Jsonb, index: i32) -> Result<Datum> {
    let elements = match whole.item().view() {
        View::Array(elements) => elements,
        View::Object(_) => return Err(invalid("cannot delete from object using integer index")),
        _ => return Err(from_scalar()),
    };
    let count = elements.count() as i64;
    let index = if index < 0 { i64::from(index) + count } else { index.into() };
    if !(0..count).contains(&index) {
        return Ok(Datum::Jsonb(whole.clone()));
    }
    let mut made = Builder::default();
    made.begin_array()?;
    for (i, element) in elements.enumerate() {
        if i as i64 != index {
            made.item(element)?;
        }
    }
    made.end()?;
    Ok(Datum::Jsonb(made.finish()))
}

/// What is done where a path leads.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Delete,
    /// Only what is there.
    Replace,
    /// Or added.
    Create,
    Before,
    After,
}

impl How {
    fn adds(self) -> bool {
        matches!(self, How::Create | How::Before | How::After)
    }
}

struct Change<'a> {
    path: &'a [Option<&'a str>],
    value: Option<Item<'a>>,
    how: How,
}

fn steps(array: &Array) -> Result<Vec<Option<&str>>> {
    if array.dims.len() > 1 {
        return Err(SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, "wrong number of array subscripts"));
    }
    Ok(array.values.iter().map(|v| if let Datum::Text(s) = v { Some(&**s) } else { None }).collect())
}

fn set(a: &[Datum]) -> Result<Datum> {
    let create = a.len() < 4 || args::boolean(a, 3)?;
    let (whole, path) = (args::jsonb(a, 0)?.item(), steps(args::array(a, 1)?)?);
    if !whole.is_container() {
        return Err(invalid("cannot set path in scalar"));
    }
    if path.is_empty() || (is_empty(whole) && !create) {
        return Ok(a[0].clone());
    }
    let how = if create { How::Create } else { How::Replace };
    change(whole, &Change { path: &path, value: Some(args::jsonb(a, 2)?.item()), how })
}

fn insert(a: &[Datum]) -> Result<Datum> {
    let after = a.len() > 3 && args::boolean(a, 3)?;
    let (whole, path) = (args::jsonb(a, 0)?.item(), steps(args::array(a, 1)?)?);
    if !whole.is_container() {
        return Err(invalid("cannot set path in scalar"));
    }
    if path.is_empty() {
        return Ok(a[0].clone());
    }
    let how = if after { How::After } else { How::Before };
    change(whole, &Change { path: &path, value: Some(args::jsonb(a, 2)?.item()), how })
}

/// jsonb_set with a say in what a NULL for the new value means.
fn set_lax(a: &[Datum]) -> Result<Datum> {
    if is_null(a, 0) || is_null(a, 1) || (a.len() > 3 && is_null(a, 3)) {
        return Ok(Datum::Null);
    }
    let treatment = match a.get(4) {
        None => "use_json_null",
        Some(Datum::Text(s)) => s,
        Some(_) => {
            return Err(invalid(
                "null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"",
            ));
        }
    };
    if !is_null(a, 2) {
        return set(&a[..a.len().min(4)]);
    }
    match treatment {
        "raise_exception" => Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "JSON value must not be null")
            .detail("Exception was raised because null_value_treatment is \"raise_exception\".")
            .hint(
                "To avoid, either change the null_value_treatment argument or ensure that an SQL NULL is not passed.",
            )),
        "return_target" => Ok(a[0].clone()),
        "use_json_null" => {
            let mut with_null = a[..a.len().min(4)].to_vec();
            with_null[2] = Datum::Jsonb(Jsonb::parse("null")?);
            set(&with_null)
        }
        "delete_key" => {
            let (whole, path) = (args::jsonb(a, 0)?.item(), steps(args::array(a, 1)?)?);
            if !whole.is_container() {
                return Err(invalid("cannot delete path in scalar"));
            }
            if path.is_empty() || is_empty(whole) {
                return Ok(a[0].clone());
            }
            change(whole, &Change { path: &path, value: None, how: How::Delete })
        }
        _ => Err(invalid(
            "null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"",
        )),
    }
}

fn change(whole: Item<'_>, change: &Change<'_>) -> Result<Datum> {
    let mut made = Builder::default();
    walk(whole, change, 0, &mut made)?;
    Ok(Datum::Jsonb(made.finish()))
}

fn walk(item: Item<'_>, change: &Change<'_>, level: usize, made: &mut Builder) -> Result<()> {
    if change.path.get(level).is_some_and(Option::is_none) {
        let message = format!("path element at position {} is null", level + 1);
        return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, message));
    }
    match item.view() {
        View::Array(elements) => {
            made.begin_array()?;
            walk_array(elements, change, level, made)?;
            made.end()
        }
        View::Object(members) => {
            made.begin_object()?;
            walk_object(members, change, level, made)?;
            made.end()
        }
        _ => made.item(item),
    }
}

fn walk_object(members: Members<'_>, change: &Change<'_>, level: usize, made: &mut Builder) -> Result<()> {
    let wanted = change.path.get(level).copied().flatten();
    let last = level + 1 == change.path.len();
    let mut done = false;
    for (name, value) in members {
        if wanted != Some(name) {
            made.name(name)?;
            made.item(value)?;
            continue;
        }
        done = true;
        match (last, change.how, change.value) {
            (false, ..) => {
                made.name(name)?;
                walk(value, change, level + 1, made)?;
            }
            (true, How::Before | How::After, _) => {
                return Err(invalid("cannot replace existing key")
                    .hint("Try using the function jsonb_set to replace key value."));
            }
            (true, How::Delete, _) | (true, _, None) => {}
            (true, _, Some(new)) => {
                made.name(name)?;
                made.item(new)?;
            }
        }
    }
    if let (false, true, true, Some(name), Some(new)) = (done, last, change.how.adds(), wanted, change.value) {
        made.name(name)?;
        made.item(new)?;
    }
    Ok(())
}

fn walk_array(elements: Elements<'_>, change: &Change<'_>, level: usize, made: &mut Builder) -> Result<()> {
    let count = elements.count() as i64;
    let last = level + 1 == change.path.len();
    let index = match change.path.get(level).copied().flatten() {
        None => count,
        Some(text) => super::subscript(text).ok_or_else(|| {
            let message = format!("path element at position {} is not an integer: \"{text}\"", level + 1);
            SqlError::new(state::INVALID_TEXT_REPRESENTATION, message)
        })?,
    };
    // Before the first is None: a new element goes to the front.
    let index = if index < 0 { Some(index + count).filter(|i| *i >= 0) } else { Some(index.min(count)) };
    let put = |made: &mut Builder| change.value.map_or(Ok(()), |new| made.item(new));
    let mut done = false;
    if (index.is_none() || count == 0) && last && change.how.adds() {
        put(made)?;
        done = true;
    }
    for (i, element) in elements.enumerate() {
        if index != Some(i as i64) {
            made.item(element)?;
            continue;
        }
        done = true;
        if !last {
            walk(element, change, level + 1, made)?;
            continue;
        }
        match change.how {
            How::Delete => {}
            How::Replace | How::Create => put(made)?,
            How::Before => {
                put(made)?;
                made.item(element)?;
            }
            How::After => {
                made.item(element)?;
                put(made)?;
            }
        }
    }
    if !done && last && change.how.adds() {
        put(made)?;
    }
    Ok(())
}

/// Without the members that are null, at any depth; nulls in arrays stay.
fn strip(whole: &Jsonb) -> Result<Datum> {
    let mut made = Builder::default();
    let mut name = None;
    for token in whole.item().tokens() {
        if let Token::Name(s) = token {
            name = Some(s);
            continue;
        }
        if let Some(s) = name.take() {
            if token == Token::Null {
                continue;
            }
            made.name(s)?;
        }
        made.token(token)?;
    }
    Ok(Datum::Jsonb(made.finish()))
}

fn strip_text(text: &str) -> Result<Datum> {
    let mut reader = Reader::new(text, true);
    let mut out = String::with_capacity(text.len());
    // A comma comes before what is neither the first in its container nor a member's value.
    let mut first = true;
    let mut name = None;
    while let Some(event) = reader.next_event()? {
        match event {
            Event::EndArray | Event::EndObject => {
                out.push(if event == Event::EndArray { ']' } else { '}' });
                first = false;
                continue;
            }
            Event::Name(s) => {
                name = Some(s);
                continue;
            }
            Event::Null if name.is_some() => {
                name = None;
                continue;
            }
            _ => {}
        }
        if !first {
            out.push(',');
        }
        first = false;
        if let Some(name) = name.take() {
            quote(&name, &mut out);
            out.push(':');
        }
        match event {
            Event::BeginArray | Event::BeginObject => {
                out.push(if event == Event::BeginArray { '[' } else { '{' });
                first = true;
            }
            Event::String(s) => quote(&s, &mut out),
            _ => out.push_str(&text[reader.span()]),
        }
    }
    Ok(Datum::text(out))
}
