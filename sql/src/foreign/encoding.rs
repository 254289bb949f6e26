//! Encodings of keys and values, as the JavaScript stack names them: bytes of a bee as values of SQL, and bounds of SQL as ranges of keys.
//!
//! | encoding | bytes | text of it |
//! | --- | --- | --- |
//! | binary | anything | none: the column is bytea |
//! | utf-8, ascii | text | the text |
//! | hex, base64 | anything | two digits a byte; RFC 4648 with padding |
//! | json | JSON text | of a string its characters, of anything else the JSON; null is NULL |
//!
//! A column of type bytea shows the bytes as they are, one of type json or jsonb the JSON as it is; any other takes the text through its type's
//! input function. Keys keep their order in bytea, and in text columns when they are text or hex.

use std::ops::Bound;

use bytes::Bytes;
use pgbee_engine::bee::KeyRange;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Members;
use crate::codec::keyspace::{prefix_range, successor};
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;
use crate::types::{Datum, Type, TypeMod, bytea, io, json};

/// How keys or values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // see above
pub enum Encoding {
    Binary,
    Utf8,
    Ascii,
    Hex,
    Base64,
    Json,
}

impl Encoding {
    /// By its name in JavaScript.
    pub fn by_name(name: &str) -> Option<Encoding> {
        Some(match name.to_ascii_lowercase().as_str() {
            "binary" => Encoding::Binary,
            "utf-8" | "utf8" => Encoding::Utf8,
            "ascii" => Encoding::Ascii,
            "hex" => Encoding::Hex,
            "base64" => Encoding::Base64,
            "json" | "ndjson" => Encoding::Json,
            _ => return None,
        })
    }
    /// The one meant when none is named, by the column's type.
    pub fn usual(ty: Type) -> Encoding {
        match ty {
            Type::BYTEA => Encoding::Binary,
            Type::JSON | Type::JSONB => Encoding::Json,
            _ => Encoding::Utf8,
        }
    }

    /// Bytes as a value of a column.
    ///
    /// # Errors
    /// 22P02 and the like, from the encoding or from the type.
    pub fn decode(self, bytes: &[u8], ty: TypeMod, cx: &SessionCx) -> Result<Datum> {
        if ty.ty == Type::BYTEA {
            return Ok(Datum::bytea(bytes));
        }
        match self {
            Encoding::Binary => Err(SqlError::internal("binary keys or values in a column that is not bytea")),
            Encoding::Utf8 => io::text_in(io::utf8(bytes)?, ty, cx),
            Encoding::Ascii => match bytes.iter().find(|b| !b.is_ascii()) {
                Some(b) => Err(SqlError::new(
                    state::CHARACTER_NOT_IN_REPERTOIRE,
                    format!("invalid byte sequence for encoding \"SQL_ASCII\": 0x{b:02x}"),
                )),
                None => io::text_in(io::utf8(bytes)?, ty, cx),
            },
            Encoding::Hex => {
                let mut text = String::with_capacity(bytes.len() * 2);
                bytea::write_hex(bytes, &mut text);
                io::text_in(&text, ty, cx)
            }
            Encoding::Base64 => io::text_in(&base64(bytes), ty, cx),
            Encoding::Json => {
                let text = io::utf8(bytes)?;
                if matches!(ty.ty, Type::JSON | Type::JSONB) {
                    return io::text_in(text, ty, cx);
                }
                let raw: &RawValue = serde_json::from_str(text).map_err(|e| bad_json(text, &e))?;
                member_in(raw, ty, cx)
            }
        }
    }

    /// Whether values of a column come in their own order when the keys do, and can be looked up by.
    pub fn keeps_order(self, ty: TypeMod) -> bool {
        match ty.ty {
            Type::BYTEA => true,
            Type::TEXT => matches!(self, Encoding::Utf8 | Encoding::Ascii | Encoding::Hex),
            _ => false,
        }
    }
    /// Whether [`Encoding::range`] gives no more than asked for.
    pub fn is_exact(self, ty: Type) -> bool {
        ty == Type::BYTEA || self == Encoding::Utf8
    }

    /// The key of a value; None if no key decodes to it.
    fn key(self, value: &Datum) -> Option<Vec<u8>> {
        match (value, self) {
            (Datum::Bytea(bytes), _) => Some(bytes.to_vec()),
            (Datum::Text(text), Encoding::Hex) => {
                let (whole, rest) = hex_prefix(text);
                rest.is_empty().then_some(whole)
            }
            (Datum::Text(text), Encoding::Ascii) if !text.is_ascii() => None,
            (Datum::Text(text), _) => Some(text.as_bytes().to_vec()),
            _ => None,
        }
    }

    /// The key under a prefix that decodes to a value.
    pub fn point(self, prefix: &[u8], value: &Datum) -> Option<KeyRange> {
        Some(KeyRange::point(&[prefix, &self.key(value)?].concat()))
    }

    /// The keys under a prefix whose values lie between bounds; with hex a few more.
    pub fn range(self, prefix: &[u8], lower: Bound<&Datum>, upper: Bound<&Datum>) -> KeyRange {
        let mut range = prefix_range(prefix);
        let under = |key: &[u8]| Bytes::from([prefix, key].concat());
        match (lower, self) {
            (Bound::Unbounded, _) => {}
            // The digits that are no whole byte: keys that begin with what is before may be on either side.
            (Bound::Included(Datum::Text(text)) | Bound::Excluded(Datum::Text(text)), Encoding::Hex) => {
                range.start = Bound::Included(under(&hex_prefix(text).0));
            }
            (lower, _) => {
                if let Some(start) = bound(lower) {
                    range.start = start.map(under);
                }
            }
        }
        match (upper, self) {
            (Bound::Unbounded, _) => {}
            (Bound::Included(Datum::Text(text)) | Bound::Excluded(Datum::Text(text)), Encoding::Hex) => {
                if let Some(end) = successor(&under(&hex_prefix(text).0))
                    && in_prefix(&end, prefix)
                {
                    range.end = Bound::Excluded(end.into());
                }
            }
            (upper, _) => {
                if let Some(end) = bound(upper) {
                    range.end = end.map(under);
                }
            }
        }
        range
    }
}

/// Whether a key is not beyond all that begin with a prefix.
fn in_prefix(key: &[u8], prefix: &[u8]) -> bool {
    successor(prefix).is_none_or(|end| key < end.as_slice())
}

fn bound(of: Bound<&Datum>) -> Option<Bound<&[u8]>> {
    fn bytes(d: &Datum) -> Option<&[u8]> {
        match d {
            Datum::Text(text) => Some(text.as_bytes()),
            Datum::Bytea(bytes) => Some(bytes),
            _ => None,
        }
    }
    match of {
        Bound::Included(d) => bytes(d).map(Bound::Included),
        Bound::Excluded(d) => bytes(d).map(Bound::Excluded),
        Bound::Unbounded => Some(Bound::Unbounded),
    }
}

/// The bytes that a text begins with in hex as we write it, and what is left.
fn hex_prefix(text: &str) -> (Vec<u8>, &str) {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks_exact(2) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => break,
        }
    }
    let rest = &text[bytes.len() * 2..];
    (bytes, rest)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let held = chunk.iter().enumerate().fold(0u32, |held, (i, b)| held | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(char::from(DIGITS[(held >> (18 - 6 * i)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn bad_json(text: &str, error: &serde_json::Error) -> SqlError {
    // Said as the json type says it, where it refuses the text too.
    if let Err(error) = json::text::check(text) {
        return error;
    }
    const SHOWN: usize = 100;
    let shown = io::cut_bytes(text, SHOWN);
    let more = if shown.len() < text.len() { "..." } else { "" };
    SqlError::new(state::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
        .detail(format!("{error}: {shown}{more}"))
}

/// A piece of JSON as a value of a column.
pub fn member_in(raw: &RawValue, ty: TypeMod, cx: &SessionCx) -> Result<Datum> {
    let text = raw.get();
    match text.as_bytes().first() {
        _ if matches!(ty.ty, Type::JSON | Type::JSONB) => io::text_in(text, ty, cx),
        Some(b'n') => Ok(Datum::Null),
        Some(b'"') => {
            let string: String = serde_json::from_str(text).map_err(|e| bad_json(text, &e))?;
            if string.contains('\0') {
                return Err(SqlError::new(state::UNTRANSLATABLE_CHARACTER, "unsupported Unicode escape sequence")
                    .detail("\\u0000 cannot be converted to text."));
            }
            io::text_in(&string, ty, cx)
        }
        _ => io::text_in(text, ty, cx),
    }
}

/// Finds members of a JSON object by name, the last of equal names; a value that is no object has none.
///
/// # Errors
/// 22P02 for what is no JSON.
pub fn members<'e>(value: &'e [u8], wanted: &mut Members<'e>) -> Result<()> {
    let text = io::utf8(value)?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|e| bad_json(text, &e))?;
    if !whole.get().starts_with('{') {
        return Ok(());
    }
    let mut reader = serde_json::Deserializer::from_str(whole.get());
    serde::Deserializer::deserialize_map(&mut reader, Object(wanted)).map_err(|e| bad_json(text, &e))
}

struct Object<'w, 'e>(&'w mut Members<'e>);

impl<'e> Visitor<'e> for Object<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(places) = map.next_key_seed(Name(self.0))? {
            match places {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(name) => {
                    let raw = map.next_value::<&'e RawValue>()?;
                    self.0.iter_mut().filter(|(n, _)| *n == name).for_each(|(_, found)| *found = Some(raw));
                }
            }
        }
        Ok(())
    }
}

/// Reads a member's name and looks it up among those wanted.
struct Name<'w, 'e>(&'w Members<'e>);

impl<'e> DeserializeSeed<'e> for Name<'_, 'e> {
    type Value = Option<&'e str>;

    fn deserialize<D: serde::Deserializer<'e>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'e> Visitor<'_> for Name<'_, 'e> {
    type Value = Option<&'e str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().map(|(n, _)| *n).find(|n| *n == name))
    }
}
