//! float4 and float8: text in, and the shortest text out that reads back the same.

use std::fmt::Write;

use num_bigint::BigInt;

use crate::error::{Result, SqlError, state};

fn trim(input: &str) -> &str {
    input.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
}

/// What Rust's parser takes that PostgreSQL does not, and the other way round, is settled here.
fn special(s: &str) -> Option<f64> {
    let (negative, body) = match s.as_bytes().first()? {
        b'-' => (true, &s[1..]),
        b'+' => (false, &s[1..]),
        _ => (false, s),
    };
    let value = if body.eq_ignore_ascii_case("infinity") || body.eq_ignore_ascii_case("inf") {
        f64::INFINITY
    } else if s.eq_ignore_ascii_case("nan") {
        f64::NAN
    } else {
        return None;
    };
    Some(if negative { -value } else { value })
}

fn is_number(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
        && s.bytes().any(|b| b.is_ascii_digit())
}

fn invalid(input: &str, name: &str) -> SqlError {
    SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {name}: \"{input}\""))
}
fn out_of_range(text: &str, name: &str) -> SqlError {
    SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, format!("\"{text}\" is out of range for type {name}"))
}
fn has_nonzero_digit(s: &str) -> bool {
    s.bytes().take_while(|b| !matches!(b, b'e' | b'E')).any(|b| (b'1'..=b'9').contains(&b))
}

/// float8 from text: 22P02 for what is no number, 22003 for overflow and underflow.
pub fn parse_f64(input: &str) -> Result<f64> {
    let s = trim(input);
    if let Some(value) = special(s) {
        return Ok(value);
    }
    if !is_number(s) {
        return Err(invalid(input, "double precision"));
    }
    let value: f64 = s.parse().map_err(|_| invalid(input, "double precision"))?;
    if value.is_infinite() || (value == 0.0 && has_nonzero_digit(s)) {
        return Err(out_of_range(s, "double precision"));
    }
    Ok(value)
}

/// float4 from text, as [`parse_f64`].
pub fn parse_f32(input: &str) -> Result<f32> {
    let s = trim(input);
    if let Some(value) = special(s) {
        return Ok(value as f32);
    }
    if !is_number(s) {
        return Err(invalid(input, "real"));
    }
    let value: f32 = s.parse().map_err(|_| invalid(input, "real"))?;
    if value.is_infinite() || (value == 0.0 && has_nonzero_digit(s)) {
        return Err(out_of_range(s, "real"));
    }
    Ok(value)
}

/// Appends a float8 as PostgreSQL prints it (extra_float_digits = 1).
pub fn write_f64(out: &mut String, value: f64) {
    if special_out(out, value) {
        return;
    }
    if value == value.trunc() && value.abs() < 1e15 && (value != 0.0 || value.is_sign_positive()) {
        let _ = write!(out, "{}", value as i64);
        return;
    }
    let bits = value.to_bits();
    let (raw, mantissa) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if raw == 0 { (mantissa, -1074) } else { (mantissa | 1 << 52, raw - 1075) };
    let text = shortest_strict(
        &format!("{value:e}"),
        15,
        mantissa,
        exponent,
        |precision| format!("{value:.precision$e}"),
        |s| s.parse() == Ok(value),
    );
    arrange(out, &text, 15);
}

/// Appends a float4 as PostgreSQL prints it.
pub fn write_f32(out: &mut String, value: f32) {
    if special_out(out, f64::from(value)) {
        return;
    }
    let bits = value.to_bits();
    let (raw, mantissa) = ((bits >> 23 & 0xff) as i32, u64::from(bits & ((1 << 23) - 1)));
    let (mantissa, exponent) = if raw == 0 { (mantissa, -149) } else { (mantissa | 1 << 23, raw - 150) };
    let text = shortest_strict(
        &format!("{value:e}"),
        6,
        mantissa,
        exponent,
        |precision| format!("{value:.precision$e}"),
        |s| s.parse() == Ok(value),
    );
    arrange(out, &text, 6);
}

/// PostgreSQL's Ryu differs from Rust's shortest form in two ways that only show near the limit of precision: of two equally near candidates it takes the even
/// one, and it never takes a candidate exactly half way to the neighbouring float. `value` is `mantissa * 2^exponent`.
fn shortest_strict(
    rust: &str,
    checked_from: usize,
    mantissa: u64,
    exponent: i32,
    rounded: impl Fn(usize) -> String,
    reads_back: impl Fn(&str) -> bool,
) -> String {
    let digits = rust.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    if digits < checked_from {
        return rust.to_owned();
    }
    let even = rounded(digits - 1);
    let mut candidate = if reads_back(&even) { even } else { rust.to_owned() };
    let mut precision = digits;
    while mantissa.is_multiple_of(2) && precision < 18 && is_midpoint(&candidate, mantissa, exponent) {
        candidate = rounded(precision);
        precision += 1;
    }
    candidate
}

/// Whether the decimal is exactly half way between `mantissa * 2^exponent` and a neighbour: `(2 * mantissa +- 1) * 2^(exponent - 1)`.
fn is_midpoint(decimal: &str, mantissa: u64, exponent: i32) -> bool {
    let (digits, power) = decimal.split_once('e').unwrap_or((decimal, "0"));
    let fraction = digits.split_once('.').map_or(0, |(_, f)| f.len() as i32);
    let power = power.parse::<i32>().unwrap_or(0) - fraction;
    let Ok(digits) = digits.trim_start_matches('-').replace('.', "").parse::<u64>() else { return false };
    // A midpoint with many bits after the point has as many decimals: too many for a short form.
    if exponent < -60 || power.abs() > 400 {
        return false;
    }
    let (mut left, mut right) = (BigInt::from(digits), BigInt::from(2u8));
    if power >= 0 {
        left *= BigInt::from(10u8).pow(power as u32)
    } else {
        right = BigInt::from(10u8).pow(power.unsigned_abs()) * right
    }
    if exponent >= 0 {
        right <<= exponent as u64
    } else {
        left <<= exponent.unsigned_abs() as u64
    }
    // |decimal| = left / (right / 2) units of 2^exponent, to be (2 * mantissa +- 1) / 2 of them.
    let left = left * 4u8;
    left == &right * (2 * mantissa + 1) || left == &right * (2 * mantissa - 1)
}

fn special_out(out: &mut String, value: f64) -> bool {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        return false;
    }
    true
}

/// Turns Rust's shortest `1.5e-7` into PostgreSQL's form: plain between 1e-4 and 10^`plain_below`, else with two exponent digits.
fn arrange(out: &mut String, scientific: &str, plain_below: i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    out.push_str(sign);
    let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !(-4..plain_below).contains(&exponent) {
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    } else if exponent < 0 {
        out.push_str("0.");
        (1..-exponent).for_each(|_| out.push('0'));
        out.push_str(first);
        out.push_str(rest);
    } else {
        let whole = exponent as usize;
        out.push_str(first);
        if rest.len() <= whole {
            out.push_str(rest);
            (rest.len()..whole).for_each(|_| out.push('0'));
        } else {
            out.push_str(&rest[..whole]);
            out.push('.');
            out.push_str(&rest[whole..]);
        }
    }
}
