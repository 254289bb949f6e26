//! Functions of bytea: parts, bits, and the ways to write bytes as text.

use super::FnCx;
use super::args::{self, count};
use super::grow::{Steps, check_len, concat_bytes};
use super::registry::Registry;
use super::text::substring_range;
use crate::error::{Result, SqlError, state};
use crate::types::bytea::{parse_escape, parse_hex, push_octal, write_hex};
use crate::types::{Datum, Type, io};

const B: Type = Type::BYTEA;
const T: Type = Type::TEXT;
const I: Type = Type::INT4;

/// Adds them all.
pub fn register(r: &mut Registry) {
    super::digest::register(r);
    r.pure("length", &[B], I, |a, _| Ok(count(args::bytes(a, 0)?.len())));
    r.pure("octet_length", &[B], I, |a, _| Ok(count(args::bytes(a, 0)?.len())));
    r.pure("bit_length", &[B], I, |a, _| Ok(count(args::bytes(a, 0)?.len() * 8)));
    r.pure("bit_count", &[B], Type::INT8, |a, _| {
        Ok(Datum::Int8(args::bytes(a, 0)?.iter().map(|b| i64::from(b.count_ones())).sum()))
    });
    r.binary("||", "byteacat", &[B, B], B, |a, _| concat_bytes(&[args::bytes(a, 0)?, args::bytes(a, 1)?]));
    for name in ["substring", "substr"] {
        r.pure(name, &[B, I], B, |a, _| Ok(Datum::bytea(substring(args::bytes(a, 0)?, args::int4(a, 1)?, None)?)));
        r.pure(name, &[B, I, I], B, |a, _| {
            Ok(Datum::bytea(substring(args::bytes(a, 0)?, args::int4(a, 1)?, Some(args::int4(a, 2)?))?))
        });
    }
    r.pure("overlay", &[B, B, I, I], B, |a, _| {
        overlay(args::bytes(a, 0)?, args::bytes(a, 1)?, args::int4(a, 2)?, args::int4(a, 3)?)
    });
    r.pure("overlay", &[B, B, I], B, |a, _| {
        let new = args::bytes(a, 1)?;
        overlay(args::bytes(a, 0)?, new, args::int4(a, 2)?, i32::try_from(new.len()).unwrap_or(i32::MAX))
    });
    r.pure("position", &[B, B], I, |a, _| {
        let (s, part) = (args::bytes(a, 0)?, args::bytes(a, 1)?);
        if part.is_empty() {
            return Ok(Datum::Int4(1));
        }
        Ok(s.windows(part.len()).position(|w| w == part).map_or(Datum::Int4(0), |i| count(i + 1)))
    });
    r.pure("btrim", &[B, B], B, |a, _| trim(a, true, true));
    r.pure("ltrim", &[B, B], B, |a, _| trim(a, true, false));
    r.pure("rtrim", &[B, B], B, |a, _| trim(a, false, true));
    r.pure("get_byte", &[B, I], I, |a, _| {
        let s = args::bytes(a, 0)?;
        Ok(Datum::Int4(i32::from(s[index(i64::from(args::int4(a, 1)?), s.len())?])))
    });
    r.pure("set_byte", &[B, I, I], B, |a, _| {
        let mut s = args::bytes(a, 0)?.to_vec();
        let at = index(i64::from(args::int4(a, 1)?), s.len())?;
        s[at] = args::int4(a, 2)? as u8;
        Ok(Datum::bytea(s))
    });
    r.pure("get_bit", &[B, Type::INT8], I, |a, _| {
        let s = args::bytes(a, 0)?;
        let at = index(args::int8(a, 1)?, s.len() * 8)?;
        Ok(Datum::Int4(i32::from(s[at / 8] >> (at % 8) & 1)))
    });
    r.pure("set_bit", &[B, Type::INT8, I], B, |a, _| {
        let mut s = args::bytes(a, 0)?.to_vec();
        let at = index(args::int8(a, 1)?, s.len() * 8)?;
        match args::int4(a, 2)? {
            0 => s[at / 8] &= !(1 << (at % 8)),
            1 => s[at / 8] |= 1 << (at % 8),
            _ => return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "new bit must be 0 or 1")),
        }
        Ok(Datum::bytea(s))
    });
    r.pure("encode", &[B, T], T, |a, _| encode(args::bytes(a, 0)?, args::text(a, 1)?).map(Datum::text));
    r.pure("decode", &[T, T], B, |a, _| decode(args::text(a, 0)?, args::text(a, 1)?).map(Datum::bytea));
    r.pure("convert_from", &[B, Type::NAME], T, |a, _| {
        convert_from(args::bytes(a, 0)?, args::text(a, 1)?).map(Datum::text)
    });
    r.pure("convert_to", &[T, Type::NAME], B, |a, _| {
        convert_to(args::text(a, 0)?, args::text(a, 1)?).map(Datum::bytea)
    });
    r.pure("length", &[B, Type::NAME], I, |a, _| {
        Ok(count(convert_from(args::bytes(a, 0)?, args::text(a, 1)?)?.chars().count()))
    });
    r.binary("~~", "bytealike", &[B, B], Type::BOOL, |a, cx| like(a, cx).map(Datum::Bool));
    r.binary("!~~", "byteanlike", &[B, B], Type::BOOL, |a, cx| like(a, cx).map(|m| Datum::Bool(!m)));
    r.pure("like", &[B, B], Type::BOOL, |a, cx| like(a, cx).map(Datum::Bool));
    r.pure("notlike", &[B, B], Type::BOOL, |a, cx| like(a, cx).map(|m| Datum::Bool(!m)));
}

fn like(a: &[Datum], cx: &FnCx<'_>) -> Result<bool> {
    super::pattern::like_bytes(args::bytes(a, 0)?, args::bytes(a, 1)?, &mut Steps::new(cx))
}

fn substring(s: &[u8], start: i32, len: Option<i32>) -> Result<&[u8]> {
    let (from, to) = substring_range(start, len)?;
    let (from, to) = (from.min(s.len()), to.unwrap_or(s.len()).min(s.len()));
    Ok(&s[from..to])
}

fn overlay(s: &[u8], new: &[u8], start: i32, len: i32) -> Result<Datum> {
    if start <= 0 {
        return Err(SqlError::new(state::SUBSTRING_ERROR, "negative substring length not allowed"));
    }
    let rest = start
        .checked_add(len)
        .ok_or_else(|| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range"))?;
    concat_bytes(&[substring(s, 1, Some(start - 1))?, new, substring(s, rest, None)?])
}

fn trim(a: &[Datum], start: bool, end: bool) -> Result<Datum> {
    let mut s = args::bytes(a, 0)?;
    let mut set = [false; 256];
    args::bytes(a, 1)?.iter().for_each(|b| set[usize::from(*b)] = true);
    while let [first, rest @ ..] = s
        && start
        && set[usize::from(*first)]
    {
        s = rest;
    }
    while let [rest @ .., last] = s
        && end
        && set[usize::from(*last)]
    {
        s = rest;
    }
    Ok(Datum::bytea(s))
}

fn index(i: i64, len: usize) -> Result<usize> {
    usize::try_from(i).ok().filter(|i| *i < len).ok_or_else(|| {
        SqlError::new(state::ARRAY_SUBSCRIPT_ERROR, format!("index {i} out of valid range, 0..{}", len as i64 - 1))
    })
}

fn unknown_encoding(name: &str) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{name}\""))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8], format: &str) -> Result<String> {
    let mut out = String::new();
    let format_name = format.to_ascii_lowercase();
    // The most a byte may become: two digits, four octal characters, or with its line's end three quarters of a letter more.
    let widest = match format_name.as_str() {
        "hex" => bytes.len() * 2,
        "escape" => bytes.iter().map(|b| if *b == 0 || *b > 0x7f { 4 } else { 1 + usize::from(*b == b'\\') }).sum(),
        _ => bytes.len().div_ceil(3) * 4 + bytes.len() / 57,
    };
    check_len(widest)?;
    match format_name.as_str() {
        "hex" => write_hex(bytes, &mut out),
        "escape" => {
            for b in bytes {
                match b {
                    b'\\' => out.push_str("\\\\"),
                    1..=0x7f => out.push(char::from(*b)),
                    _ => push_octal(*b, &mut out),
                }
            }
        }
        "base64" => {
            // Lines of 76 characters, as MIME has them; a full last line ends with a newline too.
            for (i, chunk) in bytes.chunks(3).enumerate() {
                let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
                for k in 0..4 {
                    out.push(if k <= chunk.len() {
                        char::from(BASE64[(n >> (18 - 6 * k) & 63) as usize])
                    } else {
                        '='
                    });
                }
                if i % 19 == 18 {
                    out.push('\n');
                }
            }
        }
        _ => return Err(unknown_encoding(format)),
    }
    Ok(out)
}

fn decode(s: &str, format: &str) -> Result<Vec<u8>> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => parse_hex(s),
        "escape" => parse_escape(s)
            .ok_or_else(|| SqlError::new(state::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea")),
        "base64" => decode_base64(s),
        _ => Err(unknown_encoding(format)),
    }
}

fn decode_base64(s: &str) -> Result<Vec<u8>> {
    let bad = |m: String| SqlError::new(state::INVALID_PARAMETER_VALUE, m);
    let mut out = Vec::with_capacity(s.len() / 4 * 3);
    let (mut buffer, mut held, mut padding) = (0u32, 0, 0);
    for c in s.chars() {
        if matches!(c, ' ' | '\t' | '\n' | '\r') {
            continue;
        }
        let value = if c == '=' {
            if padding == 0 {
                padding = match held {
                    2 => 1,
                    3 => 2,
                    _ => return Err(bad("unexpected \"=\" while decoding base64 sequence".to_owned())),
                };
            }
            0
        } else {
            let found = u8::try_from(c).ok().and_then(|b| BASE64.iter().position(|x| *x == b));
            found.ok_or_else(|| bad(format!("invalid symbol \"{c}\" found while decoding base64 sequence")))? as u32
        };
        buffer = buffer << 6 | value;
        held += 1;
        if held == 4 {
            out.push((buffer >> 16) as u8);
            // `padding` is how many of the bytes are real, or 0 for all three.
            if padding == 0 || padding > 1 {
                out.push((buffer >> 8) as u8);
            }
            if padding == 0 {
                out.push(buffer as u8);
            }
            (buffer, held) = (0, 0);
        }
    }
    if held != 0 {
        return Err(bad("invalid base64 end sequence".to_owned())
            .hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(out)
}

enum Encoding {
    Utf8,
    Latin1,
    Ascii,
}

fn encoding(name: &str, role: &str) -> Result<Encoding> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match plain.as_str() {
        "utf8" | "unicode" => Ok(Encoding::Utf8),
        "latin1" | "iso88591" => Ok(Encoding::Latin1),
        "sqlascii" => Ok(Encoding::Ascii),
        "latin2" | "latin3" | "latin4" | "latin5" | "latin9" | "win1250" | "win1251" | "win1252" | "koi8r"
        | "eucjp" | "euccn" | "euckr" | "sjis" | "big5" | "gbk" | "gb18030" => {
            Err(SqlError::unsupported(format_args!("encoding {name}")))
        }
        _ => Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid {role} encoding name \"{name}\""))),
    }
}

fn convert_from(bytes: &[u8], name: &str) -> Result<String> {
    match encoding(name, "source")? {
        Encoding::Utf8 | Encoding::Ascii => io::utf8(bytes).map(str::to_owned),
        Encoding::Latin1 if bytes.contains(&0) => io::utf8(&[0]).map(str::to_owned),
        Encoding::Latin1 => Ok(bytes.iter().map(|b| char::from(*b)).collect()),
    }
}

fn convert_to(s: &str, name: &str) -> Result<Vec<u8>> {
    match encoding(name, "destination")? {
        Encoding::Utf8 | Encoding::Ascii => Ok(s.as_bytes().to_vec()),
        Encoding::Latin1 => s.chars().map(|c| {
            u8::try_from(c).map_err(|_| {
                let hex: Vec<String> = c.encode_utf8(&mut [0; 4]).bytes().map(|b| format!("0x{b:02x}")).collect();
                SqlError::new(state::UNTRANSLATABLE_CHARACTER, format!("character with byte sequence {} in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\"", hex.join(" ")))
            })
        }).collect(),
    }
}
