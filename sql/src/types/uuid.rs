//! uuid: 16 bytes, compared as bytes, printed 8-4-4-4-12.

use super::bytea::write_hex;
use super::io::bad_syntax;
use crate::error::Result;

/// PostgreSQL's input: hex digits in either case, a hyphen allowed after any group of four, braces around all.
pub fn parse(s: &str) -> Result<[u8; 16]> {
    scan(s.as_bytes()).ok_or_else(|| bad_syntax("uuid", s))
}

fn scan(s: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match s {
        [b'{', inner @ .., b'}'] => inner,
        [b'{', ..] => return None,
        _ => s,
    };
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = [0; 16];
    for (i, byte) in out.iter_mut().enumerate() {
        let [high, low, tail @ ..] = rest else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
        rest = tail;
        if i % 2 == 1
            && i < 15
            && let [b'-', tail @ ..] = rest
        {
            rest = tail;
        }
    }
    rest.is_empty().then_some(out)
}

/// The output function.
pub fn write(u: &[u8; 16], out: &mut String) {
    let mut from = 0;
    for to in [4, 6, 8, 10, 16] {
        if from > 0 {
            out.push('-');
        }
        write_hex(&u[from..to], out);
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_forms() {
        let plain = parse("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").unwrap();
        for other in [
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "A0EEBC999C0B4EF8BB6D6BB9BD380A11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(parse(other), Ok(plain), "{other}");
        }
        let mut out = String::new();
        write(&plain, &mut out);
        assert_eq!(out, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        for bad in [
            "not-uuid",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 ",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "",
        ] {
            assert_eq!(parse(bad).unwrap_err().message(), format!("invalid input syntax for type uuid: \"{bad}\""));
        }
    }
}
