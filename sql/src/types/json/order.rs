//! The order, equality and sortable form of jsonb: PostgreSQL's `compareJsonbContainers`, step by step through both values.
//!
//! ```text
//! 01                      an empty array that is the whole value
//! 02                      null
//! 03 characters, 00        string; no string holds a zero byte
//! 04 Numeric::to_sortable number
//! 05 / 06                 false / true
//! 07 count, elements      array; counts are four bytes, big endian
//! 08 count, members       object: name, 00, value
//! ```

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::walk::{Item, Token, View};
use super::{Builder, DEPTH_MAX, Jsonb};
use crate::types::Numeric;

const EMPTY: u8 = 1;
const NULL: u8 = 2;
const STRING: u8 = 3;
const NUMBER: u8 = 4;
const FALSE: u8 = 5;
const TRUE: u8 = 6;
const ARRAY: u8 = 7;
const OBJECT: u8 = 8;

/// A number of a document. They were numeric's when they came in.
pub(super) fn numeric(digits: &str) -> Numeric {
    Numeric::parse(digits).unwrap_or(Numeric::ZERO)
}

/// The order of two whole values.
pub(super) fn compare(a: Item<'_>, b: Item<'_>) -> Ordering {
    if a.bytes() == b.bytes() {
        return Ordering::Equal;
    }
    let empty = |i: Item<'_>| matches!(i.view(), View::Array(elements) if elements.count() == 0);
    match (empty(a), empty(b)) {
        (false, false) => {}
        (a, b) => return b.cmp(&a),
    }
    for (a, b) in a.tokens().zip(b.tokens()) {
        let order = match (a, b) {
            (Token::String(a), Token::String(b)) | (Token::Name(a), Token::Name(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Token::Number(a), Token::Number(b)) if a == b => Ordering::Equal,
            (Token::Number(a), Token::Number(b)) => numeric(a).cmp(&numeric(b)),
            (Token::Bool(a), Token::Bool(b)) => a.cmp(&b),
            (Token::Array(a), Token::Array(b)) | (Token::Object(a), Token::Object(b)) => a.cmp(&b),
            (a, b) => rank(a).cmp(&rank(b)),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn rank(token: Token<'_>) -> u8 {
    match token {
        Token::Null => NULL,
        Token::String(_) => STRING,
        Token::Number(_) => NUMBER,
        Token::Bool(_) => FALSE,
        Token::Array(_) => ARRAY,
        Token::Object(_) => OBJECT,
        // Where the steps before were equal, both are at such a place.
        Token::Name(_) | Token::EndArray | Token::EndObject => 0,
    }
}

/// Feeds a hasher; values that are equal feed the same.
pub(super) fn hash<H: Hasher>(item: Item<'_>, h: &mut H) {
    for token in item.tokens() {
        h.write_u8(rank(token));
        match token {
            Token::String(s) | Token::Name(s) => s.hash(h),
            Token::Number(n) => numeric(n).hash(h),
            Token::Bool(b) => b.hash(h),
            Token::Array(n) | Token::Object(n) => h.write_usize(n),
            Token::Null | Token::EndArray | Token::EndObject => {}
        }
    }
}

pub(super) fn to_sortable(item: Item<'_>, out: &mut Vec<u8>) {
    if matches!(item.view(), View::Array(elements) if elements.count() == 0) {
        return out.push(EMPTY);
    }
    let counted = |tag: u8, n: usize, out: &mut Vec<u8>| {
        out.push(tag);
        out.extend_from_slice(&(n as u32).to_be_bytes());
    };
    for token in item.tokens() {
        match token {
            Token::Null => out.push(NULL),
            Token::String(s) => {
                out.push(STRING);
                terminated(s, out);
            }
            Token::Name(s) => terminated(s, out),
            Token::Number(n) => {
                out.push(NUMBER);
                numeric(n).to_sortable(out);
            }
            Token::Bool(b) => out.push(if b { TRUE } else { FALSE }),
            Token::Array(n) => counted(ARRAY, n, out),
            Token::Object(n) => counted(OBJECT, n, out),
            Token::EndArray | Token::EndObject => {}
        }
    }
}

// Strings here never hold a zero byte, so ending with 00 keeps their order.
fn terminated(s: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(s.as_bytes());
    out.push(0);
}

pub(super) fn from_sortable(bytes: &[u8]) -> Option<(Jsonb, usize)> {
    let mut rest = bytes;
    let mut made = Builder::default();
    // For each open container: whether it is an object, and how much of it is left.
    let mut open: Vec<(bool, u32)> = Vec::new();
    loop {
        while let Some((object, left)) = open.last_mut() {
            if *left > 0 {
                *left -= 1;
                if *object {
                    made.name(take_terminated(&mut rest)?).ok()?;
                }
                break;
            }
            made.end().ok()?;
            open.pop();
            if open.is_empty() {
                return finish(made, bytes.len() - rest.len());
            }
        }
        let (tag, tail) = rest.split_first()?;
        rest = tail;
        match *tag {
            EMPTY if open.is_empty() => {
                made.begin_array().ok()?;
                made.end().ok()?;
            }
            NULL => made.null(),
            STRING => made.string(take_terminated(&mut rest)?).ok()?,
            NUMBER => {
                let (number, len) = Numeric::from_sortable(rest)?;
                rest = rest.get(len..)?;
                made.number(&number).ok()?;
            }
            FALSE | TRUE => made.bool(*tag == TRUE),
            ARRAY | OBJECT if open.len() < DEPTH_MAX => {
                let (count, tail) = rest.split_first_chunk::<4>()?;
                rest = tail;
                let object = *tag == OBJECT;
                if object { made.begin_object() } else { made.begin_array() }.ok()?;
                open.push((object, u32::from_be_bytes(*count)));
            }
            _ => return None,
        }
        if open.is_empty() {
            return finish(made, bytes.len() - rest.len());
        }
    }
}

fn finish(made: Builder, len: usize) -> Option<(Jsonb, usize)> {
    Some((made.finish(), len))
}

fn take_terminated<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|b| *b == 0)?;
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(text)
}
