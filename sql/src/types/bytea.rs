//! bytea: the hex (`\xdeadbeef`) and escape (`a\\b\000`) text forms.

use crate::error::{Result, SqlError, state};

/// Either text form; hex is told by its `\x`.
pub fn parse(s: &str) -> Result<Vec<u8>> {
    match s.strip_prefix("\\x") {
        Some(digits) => parse_hex(digits),
        None => parse_escape(s)
            .ok_or_else(|| SqlError::new(state::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea")),
    }
}

/// Pairs of hex digits, with white space allowed between pairs. `decode(text, 'hex')` too.
pub fn parse_hex(digits: &str) -> Result<Vec<u8>> {
    let bad = |c: char| SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid hexadecimal digit: \"{c}\""));
    let mut out = Vec::with_capacity(digits.len() / 2);
    let mut chars = digits.chars();
    while let Some(c) = chars.next() {
        if matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let high = c.to_digit(16).ok_or_else(|| bad(c))?;
        let c = chars.next().ok_or_else(|| {
            SqlError::new(state::INVALID_PARAMETER_VALUE, "invalid hexadecimal data: odd number of digits")
        })?;
        let low = c.to_digit(16).ok_or_else(|| bad(c))?;
        out.push((high << 4 | low) as u8);
    }
    Ok(out)
}

/// The escape form: a backslash stands before another or before three octal digits. None if one does not.
pub fn parse_escape(s: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(s.len());
    let mut rest = s.as_bytes();
    while let Some((b, tail)) = rest.split_first() {
        rest = tail;
        if *b != b'\\' {
            out.push(*b);
            continue;
        }
        match tail {
            [b'\\', after @ ..] => {
                out.push(b'\\');
                rest = after;
            }
            [x @ b'0'..=b'3', y @ b'0'..=b'7', z @ b'0'..=b'7', after @ ..] => {
                out.push((x - b'0') << 6 | (y - b'0') << 3 | (z - b'0'));
                rest = after;
            }
            _ => return None,
        }
    }
    Some(out)
}

/// The output function, in the form that `bytea_output` asks for.
pub fn write(bytes: &[u8], hex: bool, out: &mut String) {
    if hex {
        out.push_str("\\x");
        write_hex(bytes, out);
        return;
    }
    for b in bytes {
        match b {
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(*b)),
            _ => push_octal(*b, out),
        }
    }
}

/// Hex digits, lower case, without a prefix.
pub fn write_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for b in bytes {
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
}

/// A byte as a backslash and three octal digits.
pub fn push_octal(b: u8, out: &mut String) {
    out.push('\\');
    for shift in [6, 3, 0] {
        out.push(char::from(b'0' + (b >> shift & 7)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_and_print() {
        for (text, bytes) in [
            ("\\x 12 34", &[0x12, 0x34][..]),
            ("ab\\\\c\\001", b"ab\\c\x01"),
            ("\\xDEADBEEF", &[0xde, 0xad, 0xbe, 0xef]),
            ("é", "é".as_bytes()),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(bytes), "{text}");
        }
        for (text, error) in [
            ("\\xZZ", "invalid hexadecimal digit: \"Z\""),
            ("\\x1", "invalid hexadecimal data: odd number of digits"),
            ("\\x1 2", "invalid hexadecimal digit: \" \""),
            ("a\\9", "invalid input syntax for type bytea"),
            ("a\\", "invalid input syntax for type bytea"),
        ] {
            assert_eq!(parse(text).unwrap_err().message(), error);
        }
        let mut out = String::new();
        write(b"a\\\x00\xff", false, &mut out);
        assert_eq!(out, "a\\\\\\000\\377");
        out.clear();
        write(b"\x00\xff", true, &mut out);
        assert_eq!(out, "\\x00ff");
    }
}
