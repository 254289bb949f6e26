//! Bytes of a numeric: PostgreSQL's binary wire form, and a form that sorts as the values do.
//!
//! ```text
//! wire      i16 digits | i16 weight | u16 sign | u16 display scale | digits in base 10000, most significant first
//! sortable  class: 00 -Infinity, 01 negative, 02 zero, 03 positive, 04 Infinity, 05 NaN
//!           then for numbers: u32be (decimal exponent of the first digit, biased), pairs of decimal digits as value + 1, 00
//!           negative: every byte after the class complemented
//! ```
//! The sortable form forgets the display scale: 1.1 and 1.10 have one key.

use num_bigint::BigInt;

use super::{Numeric, Repr, overflow, pow10};
use crate::error::{Result, SqlError, state};

const SIGN_NEGATIVE: u16 = 0x4000;
const SIGN_NAN: u16 = 0xC000;
const SIGN_POS_INF: u16 = 0xD000;
const SIGN_NEG_INF: u16 = 0xF000;

impl Numeric {
    /// Appends `numeric_send`'s bytes.
    pub fn send(&self, out: &mut Vec<u8>) {
        let special = match self.0 {
            Repr::NaN => Some(SIGN_NAN),
            Repr::PosInf => Some(SIGN_POS_INF),
            Repr::NegInf => Some(SIGN_NEG_INF),
            _ => None,
        };
        if let Some(sign) = special {
            for word in [0, 0, sign, 0] {
                out.extend_from_slice(&word.to_be_bytes());
            }
            return;
        }
        let (weight, digits) = self.nbase();
        let sign = if self.signum() < 0 { SIGN_NEGATIVE } else { 0 };
        out.extend_from_slice(&(digits.len() as i16).to_be_bytes());
        out.extend_from_slice(&(weight as i16).to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&self.scale().to_be_bytes());
        for digit in digits {
            out.extend_from_slice(&digit.to_be_bytes());
        }
    }
    /// Weight of the first, and all, base-10000 digits; no zeros at either end.
    fn nbase(&self) -> (i32, Vec<i16>) {
        if self.is_zero() {
            return (0, Vec::new());
        }
        let (text, scale) = (self.digits(), usize::from(self.scale()));
        // Pad so that both sides of the decimal point are whole groups of four.
        let whole_len = text.len().saturating_sub(scale);
        let (whole, fraction) = text.split_at(whole_len);
        let fraction = format!("{fraction:0>scale$}");
        let padded_whole = format!("{:0>width$}", whole, width = whole.len().div_ceil(4) * 4);
        let padded_fraction = format!("{:0<width$}", fraction, width = fraction.len().div_ceil(4) * 4);
        let all = padded_whole.clone() + &padded_fraction;
        let mut weight = (padded_whole.len() / 4) as i32 - 1;
        let mut digits: Vec<i16> =
            all.as_bytes().chunks(4).map(|c| c.iter().fold(0, |v, b| v * 10 + i16::from(b - b'0'))).collect();
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let zeros = digits.iter().take_while(|d| **d == 0).count();
        digits.drain(..zeros);
        weight -= zeros as i32;
        (weight, digits)
    }
    /// Reads `numeric_recv`'s bytes.
    ///
    /// # Errors
    /// 22P03 for anything malformed.
    pub fn recv(bytes: &[u8]) -> Result<Numeric> {
        let invalid = |what: &str| {
            SqlError::new(state::INVALID_BINARY_REPRESENTATION, format!("invalid {what} in external \"numeric\" value"))
        };
        let word = |i: usize| bytes.get(i * 2..i * 2 + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let (Some(count), Some(weight), Some(sign), Some(scale)) = (word(0), word(1), word(2), word(3)) else {
            return Err(invalid("length"));
        };
        match sign {
            SIGN_NAN => return Ok(Numeric::NAN),
            SIGN_POS_INF => return Ok(Numeric::INFINITY),
            SIGN_NEG_INF => return Ok(Numeric::NEG_INFINITY),
            0 | SIGN_NEGATIVE => {}
            _ => return Err(invalid("sign")),
        }
        if scale > 16383 {
            return Err(invalid("scale"));
        }
        if bytes.len() != 8 + usize::from(count) * 2 {
            return Err(invalid("length"));
        }
        let mut mantissa = BigInt::ZERO;
        let mut small = 0i64;
        for i in 0..usize::from(count) {
            let digit = word(4 + i).filter(|d| *d < 10000).ok_or_else(|| invalid("digit"))?;
            if i < 4 {
                small = small * 10000 + i64::from(digit);
                if i + 1 == usize::from(count).min(4) {
                    mantissa = BigInt::from(small);
                }
            } else {
                mantissa = mantissa * 10000 + digit;
            }
        }
        // mantissa * 10^exponent, to be shown at `scale`: what lies beyond it is cut off, as numeric_recv does.
        let exponent = (i32::from(weight as i16) + 1 - i32::from(count)) * 4;
        let shift = exponent + i32::from(scale);
        if shift > 131_072 * 2 {
            return Err(overflow());
        }
        let at_scale = if shift >= 0 { mantissa * pow10(shift as u32) } else { mantissa / pow10((-shift) as u32) };
        Numeric::checked(if sign == SIGN_NEGATIVE { -at_scale } else { at_scale }, scale)
    }

    /// Appends bytes whose order is the order of the values; prefix-free.
    pub fn to_sortable(&self, out: &mut Vec<u8>) {
        let class = match (&self.0, self.signum()) {
            (Repr::NegInf, _) => 0,
            (Repr::PosInf, _) => 4,
            (Repr::NaN, _) => 5,
            (_, -1) => 1,
            (_, 0) => 2,
            _ => 3,
        };
        out.push(class);
        if class != 1 && class != 3 {
            return;
        }
        let from = out.len();
        let text = self.digits();
        let exponent = text.len() as i64 - 1 - i64::from(self.scale());
        out.extend_from_slice(&((exponent + (1 << 31)) as u32).to_be_bytes());
        let digits = text.trim_end_matches('0').as_bytes();
        for pair in digits.chunks(2) {
            out.push((pair[0] - b'0') * 10 + pair.get(1).map_or(0, |b| b - b'0') + 1);
        }
        out.push(0);
        if class == 1 {
            out[from..].iter_mut().for_each(|b| *b = !*b);
        }
    }
    /// Reads what [`Numeric::to_sortable`] wrote; the value (at its least scale) and how many bytes it took. None: not such bytes.
    pub fn from_sortable(bytes: &[u8]) -> Option<(Numeric, usize)> {
        let negative = match bytes.first()? {
            0 => return Some((Numeric::NEG_INFINITY, 1)),
            2 => return Some((Numeric::ZERO, 1)),
            4 => return Some((Numeric::INFINITY, 1)),
            5 => return Some((Numeric::NAN, 1)),
            1 => true,
            3 => false,
            _ => return None,
        };
        let flip = if negative { 0xff } else { 0 };
        let head = bytes.get(1..5)?;
        let exponent =
            i64::from(u32::from_be_bytes([head[0] ^ flip, head[1] ^ flip, head[2] ^ flip, head[3] ^ flip])) - (1 << 31);
        let body = &bytes[5..];
        let length = body.iter().position(|b| b ^ flip == 0)?;
        let mut text = String::with_capacity(length * 2);
        for b in &body[..length] {
            let value = (b ^ flip).checked_sub(1).filter(|v| *v < 100)?;
            text.push(char::from(b'0' + value / 10));
            text.push(char::from(b'0' + value % 10));
        }
        let digits = text.trim_end_matches('0');
        let mantissa = BigInt::parse_bytes(digits.as_bytes(), 10)?;
        let mantissa = if negative { -mantissa } else { mantissa };
        let scale = digits.len() as i64 - 1 - exponent;
        let value = if scale >= 0 {
            Numeric::from_big(mantissa, u16::try_from(scale).ok()?)
        } else {
            Numeric::from_big(mantissa * pow10(u32::try_from(-scale).ok().filter(|s| *s <= 200_000)?), 0)
        };
        Some((value, 5 + length + 1))
    }
}
