//! Text and binary forms of every type: PostgreSQL's input, output, receive and send functions behind four entries.
//!
//! [`text_in`] and [`text_out`] are what literals, COPY, casts through text and the wire's text format use; [`binary_in`] and [`binary_out`]
//! the wire's binary format. They dispatch by type to the module that owns it. A type modifier given to an input function is enforced as
//! when storing (too long is 22001); an explicit cast cuts silently instead, see [`coerce_length`].
//!
//! Strings never hold a zero byte and are always valid UTF-8: [`utf8`] is the one door for bytes that become text.

use std::sync::Arc;

use super::{Datum, Jsonb, Type, TypeMod, array, bytea, datetime, float, interval, json, reg, uuid};
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;
use crate::types::numeric::Numeric;

/// Greatest n of char(n) and varchar(n).
pub const CHAR_LENGTH_MAX: usize = 10_485_760;
/// Longest name in bytes: longer ones are cut, as PostgreSQL's NAMEDATALEN of 64 does.
pub const NAME_BYTES_MAX: usize = 63;

/// The input function: a value from its text. The modifier is enforced; -1 enforces none (what a literal gets before its length coercion).
///
/// # Errors
///
/// 22P02 (not of this type's syntax), 22003 (out of range), 22007 and 22008 (dates), 22001 (too long), 42P01 and the like for reg types.
pub fn text_in(s: &str, ty: TypeMod, cx: &SessionCx) -> Result<Datum> {
    Ok(match ty.ty {
        Type::TEXT | Type::UNKNOWN | Type::CSTRING => Datum::text(s),
        Type::VARCHAR => Datum::text(fit_varchar(s, ty.typmod, false)?),
        Type::BPCHAR => Datum::Text(fit_bpchar(s, ty.typmod, false)?),
        Type::INT4 => Datum::Int4(int_in(s, "integer")?),
        Type::INT8 => Datum::Int8(int_in(s, "bigint")?),
        Type::INT2 => Datum::Int2(int_in(s, "smallint")?),
        Type::BOOL => Datum::Bool(bool_in(s)?),
        Type::NUMERIC => Datum::Numeric(Numeric::parse(s)?.apply_typmod(ty.typmod)?),
        Type::FLOAT8 => Datum::Float8(float::parse_f64(s)?),
        Type::FLOAT4 => Datum::Float4(float::parse_f32(s)?),
        Type::BYTEA => Datum::bytea(bytea::parse(s)?),
        Type::UUID => Datum::Uuid(Box::new(uuid::parse(s)?)),
        Type::JSONB => Datum::Jsonb(Jsonb::parse(s)?),
        Type::JSON => {
            json::text::check(s)?;
            Datum::text(s)
        }
        Type::DATE => Datum::Date(datetime::date_in(s, &cx.into())?),
        Type::TIME => Datum::Time(datetime::time_in(s, ty.typmod, &cx.into())?),
        Type::TIMESTAMP => Datum::Timestamp(datetime::timestamp_in(s, ty.typmod, &cx.into())?),
        Type::TIMESTAMPTZ => Datum::TimestampTz(datetime::timestamptz_in(s, ty.typmod, &cx.into())?),
        Type::INTERVAL => Datum::Interval(interval::interval_in(s, ty.typmod)?),
        Type::NAME => Datum::text(cut_bytes(s, NAME_BYTES_MAX)),
        Type::CHAR => Datum::text(char_in(s)),
        Type::OID => Datum::Oid(oid_in(s, "oid")?),
        Type::XID | Type::CID => Datum::Oid(oid_in(s, ty.ty.sql_name())?),
        Type::REGCLASS => Datum::Oid(reg::class_in(s, cx)?),
        Type::REGTYPE => Datum::Oid(reg::type_in(s)?),
        Type::REGPROC | Type::REGPROCEDURE => Datum::Oid(reg::proc_in(s, ty.ty)?),
        Type::REGNAMESPACE => Datum::Oid(reg::namespace_in(s, cx)?),
        Type::REGROLE => Datum::Oid(reg::role_in(s, cx)?),
        Type::REGOPER | Type::REGOPERATOR => Datum::Oid(reg::operator_in(s)?),
        Type::TID => Datum::text(tid_in(s)?),
        Type::INT2VECTOR | Type::OIDVECTOR => array::vector_in(s, ty.ty)?,
        Type::RECORD => {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "input of anonymous composite types is not implemented",
            ));
        }
        Type::VOID => Datum::text(""),
        // pg_node_tree: only the catalog's own columns have it, shown as text.
        Type(194) => {
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, "cannot accept a value of type pg_node_tree"));
        }
        other => match other.element() {
            Some(elem) if elem == Type::RECORD => {
                return Err(SqlError::new(
                    state::FEATURE_NOT_SUPPORTED,
                    "input of anonymous composite types is not implemented",
                ));
            }
            Some(elem) => Datum::Array(Arc::new(array::text_in(s, TypeMod { ty: elem, typmod: ty.typmod }, cx)?)),
            None => {
                return Err(SqlError::new(
                    state::FEATURE_NOT_SUPPORTED,
                    format!("cannot accept a value of type {}", other.sql_name()),
                ));
            }
        },
    })
}

/// The output function: appends the text of a value that is not NULL (of NULL it appends nothing). `ty` matters where one kind of [`Datum`]
/// serves several types (oid and the reg types).
pub fn text_out(d: &Datum, ty: Type, cx: &SessionCx, out: &mut String) {
    match d {
        Datum::Null => {}
        Datum::Bool(b) => out.push(if *b { 't' } else { 'f' }),
        Datum::Int2(n) => push_int(out, i64::from(*n)),
        Datum::Int4(n) => push_int(out, i64::from(*n)),
        Datum::Int8(n) => push_int(out, *n),
        Datum::Float4(f) => float::write_f32(out, *f),
        Datum::Float8(f) => float::write_f64(out, *f),
        Datum::Numeric(n) => out.push_str(&n.to_string()),
        Datum::Text(s) => out.push_str(s),
        Datum::Bytea(b) => bytea::write(b, cx.bytea_hex, out),
        Datum::Date(d) => datetime::date_out(*d, out),
        Datum::Time(t) => datetime::time_out(*t, out),
        Datum::Timestamp(t) => datetime::timestamp_out(*t, out),
        Datum::TimestampTz(t) => datetime::timestamptz_out(*t, &cx.time_zone, out),
        Datum::Interval(i) => out.push_str(&i.to_string()),
        Datum::Uuid(u) => uuid::write(u, out),
        Datum::Jsonb(j) => j.item().write(out),
        Datum::Oid(o) => match ty {
            Type::REGCLASS => reg::class_out(*o, cx, out),
            Type::REGTYPE => reg::type_out(*o, out),
            Type::REGPROC | Type::REGPROCEDURE => reg::proc_out(*o, ty, out),
            Type::REGNAMESPACE => reg::namespace_out(*o, cx, out),
            Type::REGROLE => reg::role_out(*o, cx, out),
            Type::REGOPER | Type::REGOPERATOR => reg::operator_out(*o, out),
            _ => push_int(out, i64::from(*o)),
        },
        Datum::Array(a) if ty == Type::INT2VECTOR || ty == Type::OIDVECTOR => array::vector_out(a, out),
        Datum::Array(a) => array::text_out(a, cx, out),
        Datum::Record(r) => array::record_out(r, cx, out),
    }
}

/// [`text_out`] into a fresh string.
pub fn to_text(d: &Datum, ty: Type, cx: &SessionCx) -> String {
    let mut out = String::new();
    text_out(d, ty, cx, &mut out);
    out
}

/// [`text_out`] into a wire buffer, without a copy for text and small numbers.
pub fn write_text(d: &Datum, ty: Type, cx: &SessionCx, out: &mut Vec<u8>) {
    match d {
        Datum::Text(s) => out.extend_from_slice(s.as_bytes()),
        Datum::Bool(b) => out.push(if *b { b't' } else { b'f' }),
        Datum::Int2(n) => write_int(out, i64::from(*n)),
        Datum::Int4(n) => write_int(out, i64::from(*n)),
        Datum::Int8(n) => write_int(out, *n),
        Datum::Null => {}
        other => {
            let mut text = String::with_capacity(32);
            text_out(other, ty, cx, &mut text);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// What a jsonb's binary form begins with; its text follows.
const JSONB_VERSION: u8 = 1;

fn jsonb_recv(bytes: &[u8]) -> Result<Datum> {
    let mut r = Reader(bytes);
    let [version] = r.take()?;
    if version != JSONB_VERSION {
        return Err(SqlError::new(state::INTERNAL_ERROR, format!("unsupported jsonb version number {version}")));
    }
    Ok(Datum::Jsonb(Jsonb::parse(utf8(r.0)?)?))
}

/// The receive function: a value from its binary form, the modifier enforced.
///
/// # Errors
///
/// 22P03 for bytes that are no such value, 08P01 for too few of them.
pub fn binary_in(bytes: &[u8], ty: TypeMod) -> Result<Datum> {
    let mut r = Reader(bytes);
    let value = match ty.ty {
        Type::TEXT | Type::UNKNOWN | Type::CSTRING => return Ok(Datum::text(utf8(bytes)?)),
        Type::VARCHAR => return Ok(Datum::text(fit_varchar(utf8(bytes)?, ty.typmod, false)?)),
        Type::BPCHAR => return Ok(Datum::Text(fit_bpchar(utf8(bytes)?, ty.typmod, false)?)),
        Type::NAME => return Ok(Datum::text(cut_bytes(utf8(bytes)?, NAME_BYTES_MAX))),
        Type::BYTEA => return Ok(Datum::bytea(bytes)),
        Type::JSON => {
            let text = utf8(bytes)?;
            json::text::check(text)?;
            return Ok(Datum::text(text));
        }
        Type::JSONB => return jsonb_recv(bytes),
        Type::BOOL => Datum::Bool(r.take::<1>()?[0] != 0),
        Type::CHAR => Datum::text(char_text(r.take::<1>()?[0])),
        Type::INT2 => Datum::Int2(i16::from_be_bytes(r.take()?)),
        Type::INT4 => Datum::Int4(r.i32()?),
        Type::INT8 => Datum::Int8(r.i64()?),
        Type::FLOAT4 => Datum::Float4(f32::from_be_bytes(r.take()?)),
        Type::FLOAT8 => Datum::Float8(f64::from_be_bytes(r.take()?)),
        Type::NUMERIC => return Ok(Datum::Numeric(Numeric::recv(bytes)?.apply_typmod(ty.typmod)?)),
        Type::DATE => return Ok(Datum::Date(datetime::date_recv(bytes)?)),
        Type::TIME => return Ok(Datum::Time(datetime::time_recv(bytes, ty.typmod)?)),
        Type::TIMESTAMP => return Ok(Datum::Timestamp(datetime::timestamp_recv(bytes, ty.typmod)?)),
        Type::TIMESTAMPTZ => return Ok(Datum::TimestampTz(datetime::timestamp_recv(bytes, ty.typmod)?)),
        Type::INTERVAL => return Ok(Datum::Interval(datetime::interval_recv(bytes, ty.typmod)?)),
        Type::UUID => Datum::Uuid(Box::new(r.take()?)),
        other if other.is_oid_like() || other == Type::XID || other == Type::CID => {
            Datum::Oid(r.i32()?.cast_unsigned())
        }
        Type::TID => {
            let (block, offset) = (r.i32()?.cast_unsigned(), u16::from_be_bytes(r.take()?));
            Datum::text(format!("({block},{offset})"))
        }
        Type::VOID => return Ok(Datum::text("")),
        Type::RECORD => {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "input of anonymous composite types is not implemented",
            ));
        }
        other => match other.element() {
            Some(elem) => Datum::Array(Arc::new(array::binary_in(&mut r, TypeMod { ty: elem, typmod: ty.typmod })?)),
            None => {
                return Err(SqlError::new(
                    state::UNDEFINED_FUNCTION,
                    format!("no binary input function available for type {}", other.sql_name()),
                ));
            }
        },
    };
    if !r.0.is_empty() {
        return Err(SqlError::new(state::INVALID_BINARY_REPRESENTATION, "incorrect binary data format"));
    }
    Ok(value)
}

/// The send function: appends the binary form of a value that is not NULL.
///
/// # Errors
///
/// 42883 for types PostgreSQL has no binary form of either (aclitem).
pub fn binary_out(d: &Datum, ty: Type, out: &mut Vec<u8>) -> Result<()> {
    match d {
        Datum::Null => {}
        Datum::Bool(b) => out.push(u8::from(*b)),
        Datum::Int2(n) => out.extend_from_slice(&n.to_be_bytes()),
        Datum::Int4(n) => out.extend_from_slice(&n.to_be_bytes()),
        Datum::Int8(n) => out.extend_from_slice(&n.to_be_bytes()),
        Datum::Float4(f) => out.extend_from_slice(&f.to_be_bytes()),
        Datum::Float8(f) => out.extend_from_slice(&f.to_be_bytes()),
        Datum::Numeric(n) => n.send(out),
        Datum::Text(s) => match ty {
            Type::CHAR => out.push(char_byte(s)),
            Type::TID => {
                let (block, offset) = tid_parts(s).ok_or_else(|| SqlError::internal("a tid that does not parse"))?;
                out.extend_from_slice(&block.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Type(1033) => {
                return Err(SqlError::new(
                    state::UNDEFINED_FUNCTION,
                    "no binary output function available for type aclitem",
                ));
            }
            _ => out.extend_from_slice(s.as_bytes()),
        },
        Datum::Bytea(b) => out.extend_from_slice(b),
        Datum::Date(d) => out.extend_from_slice(&d.to_be_bytes()),
        Datum::Time(t) | Datum::Timestamp(t) | Datum::TimestampTz(t) => out.extend_from_slice(&t.to_be_bytes()),
        Datum::Interval(i) => {
            out.extend_from_slice(&i.micros.to_be_bytes());
            out.extend_from_slice(&i.days.to_be_bytes());
            out.extend_from_slice(&i.months.to_be_bytes());
        }
        Datum::Uuid(u) => out.extend_from_slice(&u[..]),
        Datum::Jsonb(j) => {
            let mut text = String::new();
            j.item().write(&mut text);
            out.push(JSONB_VERSION);
            out.extend_from_slice(text.as_bytes());
        }
        Datum::Oid(o) => out.extend_from_slice(&o.to_be_bytes()),
        Datum::Array(a) => array::binary_out(a, out)?,
        Datum::Record(r) => array::record_send(r, out)?,
    }
    Ok(())
}

/// The length coercion of a type: varchar(n), char(n), numeric(p,s), timestamp(p) ... applied to a value already of that type (or an array of
/// it). `explicit` (a CAST) cuts a string where an assignment is 22001.
pub fn coerce_length(d: Datum, ty: TypeMod, explicit: bool) -> Result<Datum> {
    if ty.typmod < 0 {
        return Ok(d);
    }
    Ok(match d {
        Datum::Text(s) if ty.ty == Type::VARCHAR => {
            let fitted = fit_varchar(&s, ty.typmod, explicit)?;
            if fitted.len() == s.len() { Datum::Text(s) } else { Datum::text(fitted) }
        }
        Datum::Text(s) if ty.ty == Type::BPCHAR => Datum::Text(fit_bpchar(&s, ty.typmod, explicit)?),
        Datum::Numeric(n) => Datum::Numeric(n.apply_typmod(ty.typmod)?),
        Datum::Time(t) => Datum::Time(datetime::round_micros(t, ty.typmod)),
        Datum::Timestamp(t) => Datum::Timestamp(datetime::round_timestamp(t, ty.typmod)),
        Datum::TimestampTz(t) => Datum::TimestampTz(datetime::round_timestamp(t, ty.typmod)),
        Datum::Interval(i) => Datum::Interval(i.with_typmod(ty.typmod)?),
        Datum::Array(a) => {
            let mut a = Arc::unwrap_or_clone(a);
            let elem = TypeMod { ty: a.elem, typmod: ty.typmod };
            for v in &mut a.values {
                *v = coerce_length(std::mem::take(v), elem, explicit)?;
            }
            Datum::Array(Arc::new(a))
        }
        other => other,
    })
}

/// A string as varchar with this modifier: what is beyond n characters must be blanks, or is cut without a word if `explicit`.
pub fn fit_varchar(s: &str, typmod: i32, explicit: bool) -> Result<&str> {
    let Some((keep, rest)) = split_at_typmod(s, typmod) else { return Ok(s) };
    if !explicit && rest.bytes().any(|b| b != b' ') {
        return Err(too_long("character varying", typmod));
    }
    Ok(keep)
}

/// A string as char(n): padded with blanks to n characters; beyond them as [`fit_varchar`].
pub fn fit_bpchar(s: &str, typmod: i32, explicit: bool) -> Result<Arc<str>> {
    if let Some((keep, rest)) = split_at_typmod(s, typmod) {
        if !explicit && rest.bytes().any(|b| b != b' ') {
            return Err(too_long("character", typmod));
        }
        return Ok(Arc::from(keep));
    }
    let missing = usize::try_from(typmod.saturating_sub(4)).unwrap_or(0).saturating_sub(s.chars().count());
    if missing > CHAR_LENGTH_MAX {
        return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "requested length too large"));
    }
    if missing == 0 {
        return Ok(Arc::from(s));
    }
    let mut padded = String::with_capacity(s.len() + missing);
    padded.push_str(s);
    padded.extend(std::iter::repeat_n(' ', missing));
    Ok(Arc::from(padded))
}

// What fits and the rest, if there is a rest.
fn split_at_typmod(s: &str, typmod: i32) -> Option<(&str, &str)> {
    let n = usize::try_from(typmod.checked_sub(4)?).ok()?;
    if s.len() <= n {
        return None;
    }
    let (end, _) = s.char_indices().nth(n)?;
    Some(s.split_at(end))
}

fn too_long(ty: &str, typmod: i32) -> SqlError {
    SqlError::new(state::STRING_DATA_RIGHT_TRUNCATION, format!("value too long for type {ty}({})", typmod - 4))
}

/// At most `max` bytes of a string, whole characters.
pub fn cut_bytes(s: &str, max: usize) -> &str {
    if s.len() <= max {
        return s;
    }
    let end = (0..=max).rev().find(|i| s.is_char_boundary(*i)).unwrap_or(0);
    &s[..end]
}

/// Bytes from outside as text.
///
/// # Errors
///
/// 22021 for a zero byte or bytes that are not UTF-8, naming them as PostgreSQL does.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    let invalid = |bad: &[u8]| {
        let hex: Vec<String> = bad.iter().map(|b| format!("0x{b:02x}")).collect();
        SqlError::new(
            state::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": {}", hex.join(" ")),
        )
    };
    let zero = bytes.iter().position(|b| *b == 0);
    match std::str::from_utf8(&bytes[..zero.unwrap_or(bytes.len())]) {
        Ok(s) if zero.is_none() => Ok(s),
        Ok(_) => Err(invalid(&[0])),
        Err(e) => {
            let bad = &bytes[e.valid_up_to()..];
            let expected = match bad[0] {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf7 => 4,
                _ => 1,
            };
            Err(invalid(&bad[..expected.min(bad.len())]))
        }
    }
}

/// White space of C's `isspace`, which input functions skip around a value.
pub fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t'..=b'\r')
}

/// A value without the white space around it.
pub fn trim_space(s: &str) -> &str {
    s.trim_matches(|c: char| c.is_ascii() && is_space(c as u8))
}

/// `invalid input syntax for type <name>: "<text>"`, 22P02.
pub fn bad_syntax(ty: &str, s: &str) -> SqlError {
    SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {ty}: \"{s}\""))
}

fn int_in<T: TryFrom<i128>>(s: &str, ty: &str) -> Result<T> {
    let body = trim_space(s);
    let (negative, digits) = match body.as_bytes().first() {
        Some(b'-') => (true, &body[1..]),
        Some(b'+') => (false, &body[1..]),
        _ => (false, body),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad_syntax(ty, s));
    }
    let out_of_range =
        || SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{s}\" is out of range for type {ty}"));
    let magnitude: i128 = digits
        .trim_start_matches('0')
        .parse()
        .or_else(|_| if digits.trim_start_matches('0').is_empty() { Ok(0) } else { Err(out_of_range()) })?;
    T::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| out_of_range())
}

/// An oid or xid, as strtoul reads it: a negative number wraps.
pub(super) fn oid_in(s: &str, ty: &str) -> Result<u32> {
    match int_in::<i64>(s, ty) {
        Ok(n) if (-i64::from(u32::MAX)..=i64::from(u32::MAX)).contains(&n) => Ok(n as u32),
        Err(e) if e.state() == state::INVALID_TEXT_REPRESENTATION => Err(e),
        _ => Err(SqlError::new(
            state::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{s}\" is out of range for type {ty}"),
        )),
    }
}

/// A boolean from any unambiguous beginning of true, false, yes, no, on, off, or 1 or 0.
pub fn parse_bool(s: &str) -> Option<bool> {
    let word = trim_space(s).to_ascii_lowercase();
    match word.as_str() {
        "" | "o" => None,
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        w if "true".starts_with(w) || "yes".starts_with(w) => Some(true),
        w if "false".starts_with(w) || "no".starts_with(w) => Some(false),
        _ => None,
    }
}

fn bool_in(s: &str) -> Result<bool> {
    parse_bool(s).ok_or_else(|| bad_syntax("boolean", s))
}

// "char": one byte. A byte that is no ASCII character is written \ooo, and kept so.
fn char_in(s: &str) -> String {
    let b = s.as_bytes();
    match b {
        [b'\\', x @ b'0'..=b'3', y @ b'0'..=b'7', z @ b'0'..=b'7'] => {
            char_text((x - b'0') << 6 | (y - b'0') << 3 | (z - b'0'))
        }
        [] => String::new(),
        [first, ..] => char_text(*first),
    }
}

/// The text of a "char".
pub fn char_text(byte: u8) -> String {
    match byte {
        0 => String::new(),
        1..=127 => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    }
}

/// The byte of a "char" kept as text.
pub fn char_byte(s: &str) -> u8 {
    match s.as_bytes() {
        [] => 0,
        [b] => *b,
        [b'\\', x, y, z] => (x - b'0') << 6 | (y - b'0') << 3 | (z - b'0'),
        [b, ..] => *b,
    }
}

fn tid_parts(s: &str) -> Option<(u32, u16)> {
    let (block, offset) = trim_space(s).strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((block.trim().parse().ok()?, offset.trim().parse().ok()?))
}

fn tid_in(s: &str) -> Result<String> {
    tid_parts(s).map(|(b, o)| format!("({b},{o})")).ok_or_else(|| bad_syntax("tid", s))
}

fn int_digits(n: i64, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    std::str::from_utf8(&buffer[at..]).unwrap_or_default()
}

fn push_int(out: &mut String, n: i64) {
    out.push_str(int_digits(n, &mut [0; 20]));
}

fn write_int(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(int_digits(n, &mut [0; 20]).as_bytes());
}

/// Reads big-endian fields off the front of a message; running out is 08P01.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| SqlError::new(state::PROTOCOL_VIOLATION, "insufficient data left in message"))?;
        self.0 = rest;
        Ok(head)
    }
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut field = [0; N];
        field.copy_from_slice(self.bytes(N)?);
        Ok(field)
    }
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::testing::session;
    use crate::types::datum::{Record, equal_typed};

    /// Text, type and what PostgreSQL 15's send function makes of it.
    const BINARY: &[(&str, Type, &str)] = &[
        (
            "{1,NULL,3}",
            Type::INT4_ARRAY,
            "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
        ),
        (
            "[0:1][2:2]={{a},{b}}",
            Type::TEXT_ARRAY,
            "0000000200000000000000190000000200000000000000010000000200000001610000000162",
        ),
        ("{}", Type::INT4_ARRAY, "000000000000000000000017"),
        ("{1.5}", Type::NUMERIC_ARRAY, "0000000100000000000006a400000001000000010000000c000200000000000100011388"),
        ("1 2", Type::INT2VECTOR, "0000000100000000000000150000000200000000000000020001000000020002"),
        ("1.50", Type::NUMERIC, "000200000000000200011388"),
        ("1 mon 2 days 00:00:03", Type::INTERVAL, "00000000002dc6c00000000200000001"),
        ("2024-02-03", Type::DATE, "0000225f"),
        ("2024-02-03 00:00:00+00", Type::TIMESTAMPTZ, "0002b36dadaca000"),
        ("01:02:03", Type::TIME, "00000000dde878c0"),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Type::UUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
        ("t", Type::BOOL, "01"),
        ("\\303", Type::CHAR, "c3"),
        ("1.5", Type::FLOAT8, "3ff8000000000000"),
        ("1.5", Type::FLOAT4, "3fc00000"),
        ("-2", Type::INT8, "fffffffffffffffe"),
        ("7", Type::INT2, "0007"),
        ("4294967295", Type::OID, "ffffffff"),
        ("a  ", Type::BPCHAR, "612020"),
        ("(1,2)", Type::TID, "000000010002"),
        ("\\x01", Type::BYTEA, "01"),
        ("{ \"a\":1}", Type::JSON, "7b202261223a317d"),
        ("{\"a\": 1}", Type::JSONB, "017b2261223a20317d"),
        ("é", Type::TEXT, "c3a9"),
    ];

    #[test]
    fn text_and_binary_forms_agree_with_postgresql() {
        let cx = session();
        for (text, ty, hex) in BINARY {
            let bytes = bytea::parse_hex(hex).expect("hex");
            let value = text_in(text, ty.plain(), &cx).expect(text);
            let mut sent = Vec::new();
            binary_out(&value, *ty, &mut sent).expect(text);
            assert_eq!(sent, bytes, "{text}");
            let received = binary_in(&bytes, ty.plain()).expect(text);
            assert!(equal_typed(&received, &value, *ty), "{text}");
            assert_eq!(to_text(&received, *ty, &cx), *text);
            let mut wire = Vec::new();
            write_text(&value, *ty, &cx, &mut wire);
            assert_eq!(wire, text.as_bytes());
        }
    }

    #[test]
    fn rows_print_and_send_as_postgresql() {
        let cx = session();
        let inner = record(&[("1", Type::INT4), ("q", Type::TEXT)], &cx);
        let Datum::Record(mut outer) = record(
            &[
                ("1", Type::INT4),
                ("a b", Type::TEXT),
                ("", Type::TEXT),
                ("x\"y", Type::TEXT),
                ("x\\y", Type::TEXT),
                ("(z)", Type::TEXT),
                ("a,b", Type::TEXT),
                ("t", Type::BOOL),
                ("{1,2}", Type::INT4_ARRAY),
            ],
            &cx,
        ) else {
            panic!("a record")
        };
        let r = Arc::make_mut(&mut outer);
        r.values.extend([Datum::Null, inner]);
        r.fields = r
            .fields
            .iter()
            .cloned()
            .chain([(Arc::from("n"), Type::INT4.plain()), (Arc::from("r"), Type::RECORD.plain())])
            .collect();
        let text = to_text(&Datum::Record(outer), Type::RECORD, &cx);
        assert_eq!(text, r#"(1,"a b","","x""y","x\\y","(z)","a,b",t,"{1,2}",,"(1,q)")"#);
        let mut sent = Vec::new();
        binary_out(&record(&[("1", Type::INT4), ("a", Type::TEXT)], &cx), Type::RECORD, &mut sent).expect("sends");
        assert_eq!(sent, bytea::parse_hex("000000020000001700000004000000010000001900000001 61").expect("hex"));
    }

    fn record(fields: &[(&str, Type)], cx: &SessionCx) -> Datum {
        let values = fields.iter().map(|(text, ty)| text_in(text, ty.plain(), cx).expect(text)).collect();
        Datum::Record(Arc::new(Record {
            fields: fields.iter().map(|(_, ty)| (Arc::from("f"), ty.plain())).collect(),
            values,
        }))
    }

    #[test]
    fn modifiers_are_enforced_or_cut() {
        let cx = session();
        let varchar2 = TypeMod { ty: Type::VARCHAR, typmod: 6 };
        let char3 = TypeMod { ty: Type::BPCHAR, typmod: 7 };
        assert_eq!(
            text_in("abc", varchar2, &cx).unwrap_err().message(),
            "value too long for type character varying(2)"
        );
        assert_eq!(text_in("abcd", char3, &cx).unwrap_err().message(), "value too long for type character(3)");
        let text = |d: Result<Datum>| to_text(&d.expect("fits"), Type::TEXT, &cx);
        assert_eq!(text(text_in("ab   ", varchar2, &cx)), "ab");
        assert_eq!(text(text_in("é", char3, &cx)), "é  ");
        assert_eq!(text(coerce_length(Datum::text("éàü"), varchar2, true)), "éà");
        assert_eq!(
            coerce_length(Datum::text("éàü"), varchar2, false).unwrap_err().state(),
            state::STRING_DATA_RIGHT_TRUNCATION
        );
        let array = text_in("{abc,d}", Type::VARCHAR_ARRAY.plain(), &cx).expect("an array");
        assert_eq!(text(coerce_length(array, TypeMod { ty: Type::VARCHAR_ARRAY, typmod: 6 }, true)), "{ab,d}");
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        for (bytes, error) in [
            (&b"\xc3\x28"[..], "0xc3 0x28"),
            (b"\xe2\x28\xa1", "0xe2 0x28 0xa1"),
            (b"a\0b", "0x00"),
            (b"ok\xff", "0xff"),
        ] {
            let e = utf8(bytes).unwrap_err();
            assert_eq!(
                (e.state(), e.message()),
                ("22021", format!("invalid byte sequence for encoding \"UTF8\": {error}").as_str())
            );
        }
        assert_eq!(utf8("é".as_bytes()), Ok("é"));
    }

    proptest::proptest! {
        /// Any text is a value or an error for every type; a value's text reads back as the value.
        #[test]
        fn any_text_is_survived(text in r#"[\[\]{}(),:="\\ .+0-9aeinfNULtTx-]{0,24}|\PC{0,8}"#, typmod in -1..10i32) {
            let cx = session();
            for info in crate::types::info::TYPES {
                let Ok(value) = text_in(&text, TypeMod { ty: info.ty, typmod }, &cx) else { continue };
                let shown = to_text(&value, info.ty, &cx);
                let again = text_in(&shown, info.ty.plain(), &cx);
                proptest::prop_assert!(again.is_ok_and(|again| equal_typed(&again, &value, info.ty)), "{} {text:?} {shown:?}", info.name);
            }
        }
    }

    /// Nothing a client can send panics or allocates by a number it only claims.
    #[test]
    fn short_and_lying_messages_are_errors() {
        for (text, ty, hex) in BINARY {
            let bytes = bytea::parse_hex(hex).expect("hex");
            for len in 0..bytes.len() {
                let _ = binary_in(&bytes[..len], ty.plain());
            }
            let longer = [&bytes[..], &[0]].concat();
            if !matches!(*ty, Type::TEXT | Type::BYTEA | Type::BPCHAR) {
                // A trailing zero byte is too much for every type of a fixed size.
                assert!(binary_in(&longer, ty.plain()).is_err(), "{text}");
            }
        }
        let claims = bytea::parse_hex("000000010000000000000017 07ffffff 00000001").expect("hex");
        assert_eq!(binary_in(&claims, Type::INT4_ARRAY.plain()).unwrap_err().state(), state::PROTOCOL_VIOLATION);
        assert_eq!(binary_in(&[], Type::INT4.plain()).unwrap_err().state(), state::PROTOCOL_VIOLATION);
    }
}
