//! Arrays: a flat list of elements with the lengths and lower bounds of their dimensions; and the forms of rows, which nest alike.
//!
//! ```text
//! [0:1][1:2]={{a,b},{"c d",NULL}}      dims (2, 0) (2, 1)      values a, b, "c d", NULL
//! ```
//!
//! Invariants: the product of the lengths is the number of values; an empty array has no dimensions; at most [`DIMS_MAX`] dimensions.
//! The text reader follows PostgreSQL 15's `array_in` state by state, so that it refuses the same texts with the same words.

use std::cmp::Ordering;
use std::sync::Arc;

use super::datum::{Record, compare_typed};
use super::io::{self, Reader, is_space};
use super::{Datum, Type, TypeMod};
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;

/// Most dimensions an array may have.
pub const DIMS_MAX: usize = 6;
/// Most elements an array may have, so that its size stays countable.
pub const ELEMENTS_MAX: usize = (1 << 30) / 8 - 1;

/// An array of any number of dimensions (tables store up to one; expressions may build more).
#[derive(Clone, Debug)]
pub struct Array {
    /// Type of the elements.
    pub elem: Type,
    /// Length and lower bound of each dimension, outermost first; empty for the empty array.
    pub dims: Vec<(i32, i32)>,
    /// All elements, row by row.
    pub values: Vec<Datum>,
}

impl Array {
    /// A list with lower bound 1, or the empty array.
    pub fn from_values(elem: Type, values: Vec<Datum>) -> Array {
        let dims = if values.is_empty() { Vec::new() } else { vec![(values.len() as i32, 1)] };
        Array { elem, dims, values }
    }
    /// The array without elements.
    pub fn empty(elem: Type) -> Array {
        Array { elem, dims: Vec::new(), values: Vec::new() }
    }
    /// As a value.
    pub fn datum(self) -> Datum {
        Datum::Array(Arc::new(self))
    }
    /// The element at these subscripts; None outside the bounds or if their number is not that of the dimensions.
    pub fn get(&self, subscripts: &[i32]) -> Option<&Datum> {
        if subscripts.len() != self.dims.len() || subscripts.is_empty() {
            return None;
        }
        let mut at = 0usize;
        for (subscript, (len, lower)) in subscripts.iter().zip(&self.dims) {
            let offset = subscript.checked_sub(*lower).filter(|o| (0..*len).contains(o))?;
            at = at * *len as usize + offset as usize;
        }
        self.values.get(at)
    }
    /// The part within these bounds (inclusive; None is the array's own bound), renumbered from 1. Fewer bounds than dimensions leave the inner
    /// ones whole; nothing in common, or too many bounds, gives the empty array.
    pub fn slice(&self, bounds: &[(Option<i32>, Option<i32>)]) -> Array {
        if self.dims.is_empty() || bounds.len() > self.dims.len() {
            return Array::empty(self.elem);
        }
        let mut ranges = Vec::with_capacity(self.dims.len());
        for (i, (len, lower)) in self.dims.iter().enumerate() {
            let last = lower + len - 1;
            let (from, to) = bounds.get(i).copied().unwrap_or((None, None));
            let (from, to) = (from.unwrap_or(*lower).max(*lower), to.unwrap_or(last).min(last));
            if from > to {
                return Array::empty(self.elem);
            }
            ranges.push(((from - lower) as usize, (to - lower) as usize));
        }
        let mut values = Vec::new();
        self.copy_range(0, 0, &ranges, &mut values);
        Array { elem: self.elem, dims: ranges.iter().map(|(from, to)| ((to - from + 1) as i32, 1)).collect(), values }
    }
    fn copy_range(&self, depth: usize, base: usize, ranges: &[(usize, usize)], out: &mut Vec<Datum>) {
        let (from, to) = ranges[depth];
        let width: usize = self.dims[depth + 1..].iter().map(|d| d.0 as usize).product();
        for i in from..=to {
            let at = base + i * width;
            if depth + 1 == ranges.len() {
                out.push(self.values[at].clone())
            } else {
                self.copy_range(depth + 1, at, ranges, out)
            }
        }
    }
    /// Order of arrays: by elements (NULL last), then by how many there are, then by dimensions.
    pub fn compare(&self, other: &Array) -> Ordering {
        let pairs = self.values.iter().zip(&other.values);
        let differing = pairs.map(|(a, b)| compare_typed(a, b, self.elem)).find(|o| o.is_ne());
        let dims = || {
            let lens = |a: &Array| a.dims.iter().map(|d| d.0).collect::<Vec<_>>();
            let lowers = |a: &Array| a.dims.iter().map(|d| d.1).collect::<Vec<_>>();
            self.dims
                .len()
                .cmp(&other.dims.len())
                .then_with(|| lens(self).cmp(&lens(other)))
                .then_with(|| lowers(self).cmp(&lowers(other)))
        };
        differing.unwrap_or_else(|| self.values.len().cmp(&other.values.len()).then_with(dims))
    }
    /// Arrays of equal dimensions as one with a dimension more (ARRAY[a, b] of arrays, array_agg). NULL is no array here; empty ones give the empty array.
    ///
    /// # Errors
    ///
    /// 2202E if dimensions differ, 54000 for a seventh dimension.
    pub fn stack(elem: Type, parts: &[Arc<Array>]) -> Result<Array> {
        let Some(first) = parts.first() else { return Ok(Array::empty(elem)) };
        if parts.iter().all(|p| p.values.is_empty()) {
            return Ok(Array::empty(elem));
        }
        if first.dims.len() >= DIMS_MAX {
            return Err(too_many_dims(first.dims.len() + 1));
        }
        if parts.iter().any(|p| p.dims != first.dims) {
            return Err(SqlError::new(
                state::ARRAY_SUBSCRIPT_ERROR,
                "multidimensional arrays must have array expressions with matching dimensions",
            ));
        }
        let mut dims = vec![(parts.len() as i32, 1)];
        dims.extend(&first.dims);
        Ok(Array { elem, dims, values: parts.iter().flat_map(|p| p.values.iter().cloned()).collect() })
    }
}

fn malformed(s: &str, detail: impl Into<String>) -> SqlError {
    SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{s}\"")).detail(detail)
}

/// 54000: a seventh dimension.
pub fn too_many_dims(n: usize) -> SqlError {
    SqlError::new(
        state::PROGRAM_LIMIT_EXCEEDED,
        format!("number of array dimensions ({n}) exceeds the maximum allowed ({DIMS_MAX})"),
    )
}

/// How many elements these lengths make.
///
/// # Errors
///
/// 54000 beyond [`ELEMENTS_MAX`], or for a lower bound so large that the last subscript is no int4.
pub fn count_elements(dims: &[(i32, i32)]) -> Result<usize> {
    let mut n: usize = if dims.is_empty() { 0 } else { 1 };
    for (len, _) in dims {
        n = n.saturating_mul(usize::try_from(*len).unwrap_or(usize::MAX));
        if n > ELEMENTS_MAX {
            return Err(SqlError::new(
                state::PROGRAM_LIMIT_EXCEEDED,
                format!("array size exceeds the maximum allowed ({ELEMENTS_MAX})"),
            ));
        }
    }
    match dims.iter().find(|(len, lower)| lower.checked_add(*len).is_none()) {
        Some((_, lower)) => {
            Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, format!("array lower bound is too large: {lower}")))
        }
        None => Ok(n),
    }
}

// (length, lower bound) of each dimension.
type Dims = Vec<(i32, i32)>;

#[derive(Clone, Copy, PartialEq)]
enum State {
    NoLevel,
    LevelStarted,
    ElemStarted,
    QuotedElemStarted,
    QuotedElemCompleted,
    ElemDelimited,
    LevelCompleted,
    LevelDelimited,
}

/// The input function of an array whose elements are of this type.
pub fn text_in(s: &str, elem: TypeMod, cx: &SessionCx) -> Result<Array> {
    let (declared, body) = read_dimensions(s)?;
    if body.first() != Some(&b'{') {
        return Err(malformed(
            s,
            if declared.is_empty() {
                "Array value must start with \"{\" or dimension information."
            } else {
                "Array contents must start with \"{\"."
            },
        ));
    }
    let lens = scan_braces(s, body)?;
    let dims: Vec<(i32, i32)> = if declared.is_empty() {
        lens.iter().map(|n| (*n, 1)).collect()
    } else {
        if declared.len() != lens.len() || declared.iter().zip(&lens).any(|(d, n)| d.0 != *n) {
            return Err(malformed(s, "Specified array dimensions do not match array contents."));
        }
        declared
    };
    let count = count_elements(&dims)?;
    if count == 0 {
        return Ok(Array::empty(elem.ty));
    }
    let values = read_elements(s, body, elem, cx)?;
    if values.len() != count {
        return Err(SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{s}\"")));
    }
    Ok(Array { elem: elem.ty, dims, values })
}

// `[1:2][0:3]=` in front, and what comes after it.
fn read_dimensions(s: &str) -> Result<(Dims, &[u8])> {
    let skip = |p: &mut &[u8]| {
        while let [b, rest @ ..] = *p
            && is_space(*b)
        {
            *p = rest;
        }
    };
    // A run of digits and signs, read as atoi reads it.
    let number = |p: &mut &[u8]| -> Option<i32> {
        let end = p.iter().position(|b| !(b.is_ascii_digit() || matches!(b, b'+' | b'-'))).unwrap_or(p.len());
        let (digits, rest) = p.split_at(end);
        *p = rest;
        let text = std::str::from_utf8(digits).ok().filter(|t| !t.is_empty())?;
        Some(text.parse::<i64>().map_or(0, |n| n as i32))
    };
    let mut p = s.as_bytes();
    let mut dims = Vec::new();
    loop {
        skip(&mut p);
        let [b'[', rest @ ..] = p else { break };
        p = rest;
        if dims.len() >= DIMS_MAX {
            return Err(too_many_dims(dims.len() + 1));
        }
        let mut upper = number(&mut p)
            .ok_or_else(|| malformed(s, "\"[\" must introduce explicitly-specified array dimensions."))?;
        let mut lower = 1;
        if let [b':', rest @ ..] = p {
            p = rest;
            lower = upper;
            upper = number(&mut p).ok_or_else(|| malformed(s, "Missing array dimension value."))?;
        }
        let [b']', rest @ ..] = p else { return Err(malformed(s, "Missing \"]\" after array dimensions.")) };
        p = rest;
        if upper < lower {
            return Err(SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, "upper bound cannot be less than lower bound"));
        }
        dims.push((upper.wrapping_sub(lower).wrapping_add(1), lower));
    }
    if !dims.is_empty() {
        let [b'=', rest @ ..] = p else { return Err(malformed(s, "Missing \"=\" after array dimensions.")) };
        p = rest;
        skip(&mut p);
    }
    Ok((dims, p))
}

// PostgreSQL's ArrayCount: checks the nesting and gives the lengths of the dimensions; none for an empty array.
fn scan_braces(s: &str, body: &[u8]) -> Result<Vec<i32>> {
    let unexpected = |c: u8| malformed(s, format!("Unexpected \"{}\" character.", char::from(c)));
    let (mut lens, mut counts, mut last_counts) = ([0i32; DIMS_MAX], [1i32; DIMS_MAX], [0i32; DIMS_MAX]);
    let (mut level, mut depth) = (0usize, 1usize);
    let (mut state, mut in_quotes, mut empty) = (State::NoLevel, false, true);
    let mut i = 0;
    'array: loop {
        let mut item_done = false;
        while !item_done {
            if matches!(state, State::ElemStarted | State::QuotedElemStarted) {
                empty = false;
            }
            let Some(&c) = body.get(i) else { return Err(malformed(s, "Unexpected end of input.")) };
            match c {
                b'\\' => {
                    if !matches!(
                        state,
                        State::LevelStarted | State::ElemStarted | State::QuotedElemStarted | State::ElemDelimited
                    ) {
                        return Err(unexpected(c));
                    }
                    if state != State::QuotedElemStarted {
                        state = State::ElemStarted;
                    }
                    i += 1;
                    if i >= body.len() {
                        return Err(malformed(s, "Unexpected end of input."));
                    }
                }
                b'"' => {
                    if !matches!(state, State::LevelStarted | State::QuotedElemStarted | State::ElemDelimited) {
                        return Err(malformed(s, "Unexpected array element."));
                    }
                    in_quotes = !in_quotes;
                    state = if in_quotes { State::QuotedElemStarted } else { State::QuotedElemCompleted };
                }
                _ if in_quotes => {}
                b'{' => {
                    if !matches!(state, State::NoLevel | State::LevelStarted | State::LevelDelimited) {
                        return Err(unexpected(c));
                    }
                    state = State::LevelStarted;
                    if level >= DIMS_MAX {
                        return Err(too_many_dims(level + 1));
                    }
                    lens[level] = 0;
                    level += 1;
                    depth = depth.max(level);
                }
                b'}' => {
                    let ends = matches!(state, State::ElemStarted | State::QuotedElemCompleted | State::LevelCompleted)
                        || (level == 1 && state == State::LevelStarted);
                    if !ends {
                        return Err(unexpected(c));
                    }
                    state = State::LevelCompleted;
                    level -= 1;
                    if last_counts[level] != 0 && counts[level] != last_counts[level] {
                        return Err(malformed(
                            s,
                            "Multidimensional arrays must have sub-arrays with matching dimensions.",
                        ));
                    }
                    last_counts[level] = counts[level];
                    counts[level] = 1;
                    if level == 0 {
                        lens[depth - 1] += 1;
                        i += 1;
                        break 'array;
                    }
                    lens[level - 1] += 1;
                }
                b',' => {
                    if !matches!(state, State::ElemStarted | State::QuotedElemCompleted | State::LevelCompleted) {
                        return Err(unexpected(c));
                    }
                    state = if state == State::LevelCompleted { State::LevelDelimited } else { State::ElemDelimited };
                    item_done = true;
                    counts[level - 1] += 1;
                }
                _ if is_space(c) => {}
                _ => {
                    if !matches!(state, State::LevelStarted | State::ElemStarted | State::ElemDelimited) {
                        return Err(malformed(s, "Unexpected array element."));
                    }
                    state = State::ElemStarted;
                }
            }
            if !item_done {
                i += 1;
            }
        }
        lens[depth - 1] += 1;
        i += 1;
    }
    if body[i..].iter().any(|b| !is_space(*b)) {
        return Err(malformed(s, "Junk after closing right brace."));
    }
    if empty {
        return Ok(Vec::new());
    }
    Ok(lens[..depth].to_vec())
}

// The elements of a text that scan_braces accepted.
fn read_elements(s: &str, body: &[u8], elem: TypeMod, cx: &SessionCx) -> Result<Vec<Datum>> {
    let mut values = Vec::new();
    // The element so far; how much of it trailing white space may not take away; whether quotes or escapes were in it.
    let (mut item, mut firm, mut quoted): (Vec<u8>, usize, bool) = (Vec::new(), 0, false);
    let (mut in_quotes, mut open) = (false, false);
    let mut finish = |item: &mut Vec<u8>, firm: &mut usize, quoted: &mut bool| -> Result<()> {
        while item.len() > *firm && item.last().is_some_and(|b| is_space(*b)) {
            item.pop();
        }
        let text = std::str::from_utf8(item).map_err(|_| malformed(s, "Unexpected array element."))?;
        values.push(if !*quoted && text.eq_ignore_ascii_case("null") {
            Datum::Null
        } else {
            io::text_in(text, elem, cx)?
        });
        item.clear();
        (*firm, *quoted) = (0, false);
        Ok(())
    };
    let mut i = 0;
    while let Some(&c) = body.get(i) {
        match c {
            b'\\' => {
                i += 1;
                item.extend(body.get(i));
                (firm, quoted, open) = (item.len(), true, true);
            }
            b'"' => {
                in_quotes = !in_quotes;
                (quoted, open) = (true, true);
                firm = item.len();
            }
            _ if in_quotes => item.push(c),
            b'{' => open = false,
            b'}' | b',' => {
                if open {
                    finish(&mut item, &mut firm, &mut quoted)?;
                }
                open = false;
            }
            _ if is_space(c) && item.is_empty() && !quoted => {}
            // White space behind a closing quote is not part of the element.
            _ if is_space(c) && quoted && firm == item.len() => {
                let more = body[i..].iter().find(|b| !is_space(**b));
                if !matches!(more, Some(b',' | b'}')) {
                    item.push(c);
                }
            }
            _ => {
                item.push(c);
                open = true;
            }
        }
        i += 1;
    }
    Ok(values)
}

/// The output function.
pub fn text_out(a: &Array, cx: &SessionCx, out: &mut String) {
    if a.values.is_empty() {
        out.push_str("{}");
        return;
    }
    if a.dims.iter().any(|d| d.1 != 1) {
        for (len, lower) in &a.dims {
            out.push_str(&format!("[{lower}:{}]", lower + len - 1));
        }
        out.push('=');
    }
    // Box is the one type with another delimiter than the comma, and it does not exist here.
    let mut values = a.values.iter();
    write_level(a, 0, &mut values, cx, out);
}

fn write_level<'a>(
    a: &Array,
    depth: usize,
    values: &mut impl Iterator<Item = &'a Datum>,
    cx: &SessionCx,
    out: &mut String,
) {
    out.push('{');
    for i in 0..a.dims[depth].0 {
        if i > 0 {
            out.push(',');
        }
        if depth + 1 < a.dims.len() {
            write_level(a, depth + 1, values, cx, out);
            continue;
        }
        match values.next() {
            None | Some(Datum::Null) => out.push_str("NULL"),
            Some(value) => {
                let start = out.len();
                io::text_out(value, a.elem, cx, out);
                quote_element(out, start);
            }
        }
    }
    out.push('}');
}

// Quotes what was appended from `start` if an array literal could not hold it bare.
fn quote_element(out: &mut String, start: usize) {
    let text = &out[start..];
    let needed = text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.bytes().any(|b| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(b));
    if needed {
        let text = out.split_off(start);
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
}

/// The text of a row: `(1,"a b",,"x""y")`. A NULL field is empty.
pub fn record_out(r: &Record, cx: &SessionCx, out: &mut String) {
    out.push('(');
    for (i, value) in r.values.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if value.is_null() {
            continue;
        }
        let start = out.len();
        io::text_out(value, r.fields.get(i).map_or(Type::TEXT, |f| f.1.ty), cx, out);
        let text = &out[start..];
        if text.is_empty() || text.bytes().any(|b| matches!(b, b'"' | b'\\' | b'(' | b')' | b',') || is_space(b)) {
            let text = out.split_off(start);
            out.push('"');
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.push(c);
                }
                out.push(c);
            }
            out.push('"');
        }
    }
    out.push(')');
}

/// int2vector and oidvector: numbers between blanks.
pub fn vector_in(s: &str, ty: Type) -> Result<Datum> {
    let mut values = Vec::new();
    for word in s.split_ascii_whitespace() {
        values.push(match ty {
            Type::OIDVECTOR => Datum::Oid(io::oid_in(word, "oid")?),
            _ => {
                let n: i64 = word.parse().map_err(|_| io::bad_syntax("smallint", word))?;
                Datum::Int2(i16::try_from(n).map_err(|_| {
                    SqlError::new(
                        state::NUMERIC_VALUE_OUT_OF_RANGE,
                        format!("value \"{n}\" is out of range for type smallint"),
                    )
                })?)
            }
        });
    }
    Ok(vector(ty, values))
}

/// An int2vector or oidvector of these values; its subscripts start at 0.
pub fn vector(ty: Type, values: Vec<Datum>) -> Datum {
    let elem = if ty == Type::OIDVECTOR { Type::OID } else { Type::INT2 };
    let dims = vec![(values.len() as i32, 0)];
    Array { elem, dims, values }.datum()
}

/// The text of an int2vector or oidvector.
pub fn vector_out(a: &Array, out: &mut String) {
    for (i, value) in a.values.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        match value {
            Datum::Int2(n) => out.push_str(&n.to_string()),
            Datum::Oid(n) => out.push_str(&n.to_string()),
            _ => {}
        }
    }
}

/// The receive function of an array.
pub(super) fn binary_in(r: &mut Reader<'_>, elem: TypeMod) -> Result<Array> {
    let invalid = |m: String| SqlError::new(state::INVALID_BINARY_REPRESENTATION, m);
    let ndim = r.i32()?;
    if ndim < 0 {
        return Err(invalid(format!("invalid number of dimensions: {ndim}")));
    }
    if ndim as usize > DIMS_MAX {
        return Err(too_many_dims(ndim as usize));
    }
    let flags = r.i32()?;
    if flags != 0 && flags != 1 {
        return Err(invalid("invalid array flags".to_owned()));
    }
    let sent = Type(r.i32()?.cast_unsigned());
    if sent != elem.ty {
        let message = format!(
            "binary data has array element type {} ({}) instead of expected {} ({})",
            sent.0,
            sent.sql_name(),
            elem.ty.0,
            elem.ty.sql_name()
        );
        return Err(SqlError::new(state::DATATYPE_MISMATCH, message));
    }
    let mut dims = Vec::new();
    for _ in 0..ndim {
        dims.push((r.i32()?, r.i32()?));
    }
    let count = count_elements(&dims)?;
    if count == 0 {
        return Ok(Array::empty(elem.ty));
    }
    // Each element takes four bytes at least, so a lying count does not make us allocate.
    let mut values = Vec::with_capacity(count.min(r.0.len() / 4));
    for _ in 0..count {
        let len = r.i32()?;
        values.push(match usize::try_from(len) {
            Ok(len) => io::binary_in(r.bytes(len)?, elem)?,
            Err(_) if len == -1 => Datum::Null,
            Err(_) => return Err(invalid("insufficient data left in message".to_owned())),
        });
    }
    Ok(Array { elem: elem.ty, dims, values })
}

/// The send function of an array.
pub fn binary_out(a: &Array, out: &mut Vec<u8>) -> Result<()> {
    let has_null = a.values.iter().any(Datum::is_null);
    out.extend_from_slice(&(a.dims.len() as i32).to_be_bytes());
    out.extend_from_slice(&i32::from(has_null).to_be_bytes());
    out.extend_from_slice(&a.elem.0.to_be_bytes());
    for (len, lower) in &a.dims {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&lower.to_be_bytes());
    }
    a.values.iter().try_for_each(|v| send_sized(v, a.elem, out))
}

/// The send function of a row.
pub fn record_send(r: &Record, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&(r.values.len() as i32).to_be_bytes());
    for (value, (_, ty)) in r.values.iter().zip(r.fields.iter()) {
        out.extend_from_slice(&ty.ty.0.to_be_bytes());
        send_sized(value, ty.ty, out)?;
    }
    Ok(())
}

fn send_sized(value: &Datum, ty: Type, out: &mut Vec<u8>) -> Result<()> {
    if value.is_null() {
        out.extend_from_slice(&(-1i32).to_be_bytes());
        return Ok(());
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    io::binary_out(value, ty, out)?;
    let len = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}
