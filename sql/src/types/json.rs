//! json and jsonb: the one keeps its text, the other is kept in a form of its own that is walked without being taken apart.
//!
//! A json is a [`Datum::Text`](super::Datum::Text) that [`text::check`] has passed. A [`Jsonb`] is bytes:
//!
//! ```text
//! 00 null · 01 false · 02 true
//! 03 varint length, digits                       number, as numeric prints it: 1.50 stays 1.50, 1e2 is 100
//! 04 varint length, characters                   string
//! 05 varint length of the rest, varint count, elements
//! 06 varint length of the rest, varint count, members: varint length of the name, name, value
//! ```
//!
//! Varints are LEB128. Every value tells its own length, so it is stepped over in one move, and a value taken from one document is copied into
//! another as it stands.
//!
//! What must stay true of every [`Jsonb`], and is checked of bytes from a disk or a peer by [`Jsonb::from_stored`]:
//!
//! * names in an object rise by length, then by bytes, as PostgreSQL keeps them, and are there once;
//! * text is UTF-8 without zero bytes, numbers are what numeric prints;
//! * containers are nested no deeper than [`DEPTH_MAX`], so that what recurses into them may.

mod build;
mod order;
pub mod text;
mod walk;

use std::sync::Arc;

pub use build::Builder;
pub use walk::{Elements, Item, Members, Token, Tokens, View};

use crate::error::{Result, SqlError, state};

/// Deepest nesting of arrays and objects. PostgreSQL's limit comes from its stack, somewhere above 9000.
pub const DEPTH_MAX: usize = 6400;

/// Most bytes the elements of a container take together, as in PostgreSQL.
const CONTAINER_BYTES_MAX: usize = 0x0fff_ffff;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

/// A jsonb value. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jsonb(Arc<[u8]>);

impl Jsonb {
    /// The input function.
    ///
    /// # Errors
    /// 22P02 for what is no JSON, 22P05 for `\u0000`, 54001 for too deep nesting, 54000 for too large values.
    pub fn parse(input: &str) -> Result<Jsonb> {
        text::to_jsonb(input)
    }
    /// Bytes that were stored, if they keep what must stay true.
    pub fn from_stored(bytes: &[u8]) -> Option<Jsonb> {
        walk::is_valid(bytes).then(|| Jsonb(Arc::from(bytes)))
    }
    /// A copy of a value of another document.
    pub fn from_item(item: Item<'_>) -> Jsonb {
        Jsonb(Arc::from(item.bytes()))
    }
    /// The bytes to store.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// The whole value, to look into.
    pub fn item(&self) -> Item<'_> {
        Item::whole(&self.0)
    }
    /// Appends the sortable form: byte order of forms is the order of values, and none is a prefix of another.
    pub fn to_sortable(&self, out: &mut Vec<u8>) {
        order::to_sortable(self.item(), out);
    }
    /// A value equal to the one whose sortable form begins `bytes`, and how long the form is. Numbers lose zeros at their end.
    pub fn from_sortable(bytes: &[u8]) -> Option<(Jsonb, usize)> {
        order::from_sortable(bytes)
    }
}

impl std::fmt::Display for Jsonb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.item().write(&mut out);
        f.write_str(&out)
    }
}

impl PartialEq for Jsonb {
    fn eq(&self, other: &Jsonb) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Jsonb {}
impl PartialOrd for Jsonb {
    fn partial_cmp(&self, other: &Jsonb) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
/// PostgreSQL's btree order: objects, arrays, booleans, numbers, strings, null from the greatest to the least; more elements are greater
/// than fewer; and an empty array that is the whole value is less than all others.
impl Ord for Jsonb {
    fn cmp(&self, other: &Jsonb) -> std::cmp::Ordering {
        order::compare(self.item(), other.item())
    }
}
impl std::hash::Hash for Jsonb {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        order::hash(self.item(), h);
    }
}

/// Appends a string with quotes and escapes, as `escape_json` does.
pub fn quote(s: &str, out: &mut String) {
    out.reserve(s.len() + 2);
    out.push('"');
    let mut rest = s;
    while let Some(at) = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            8 => out.push_str("\\b"),
            9 => out.push_str("\\t"),
            10 => out.push_str("\\n"),
            12 => out.push_str("\\f"),
            13 => out.push_str("\\r"),
            b => out.push_str(&format!("\\u{b:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// 54001: nested beyond [`DEPTH_MAX`].
pub fn too_deep() -> SqlError {
    SqlError::new(state::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .detail(format!("JSON may be nested {DEPTH_MAX} levels deep."))
}

fn put_varint(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<usize> {
    let mut n = 0usize;
    for shift in (0..35).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        n |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests;
