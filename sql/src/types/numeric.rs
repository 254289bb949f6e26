//! `numeric`: exact decimal numbers of any size, with the display scale PostgreSQL shows and NaN and the infinities.
//!
//! ```text
//! value = mantissa / 10^scale        1.10 is mantissa 110, scale 2: it prints as 1.10 and equals 1.1
//! ```
//!
//! A value whose mantissa fits 64 bits is held inline, a larger one behind an `Arc`; [`Numeric`] is 16 bytes. Addition, subtraction, multiplication and
//! comparison are exact; division, roots, logarithms and powers choose their result scale as PostgreSQL's `numeric.c` does (at least 16 significant
//! digits), so results print alike. Must stay true: a Big mantissa never fits 64 bits, so equal values with equal scales have one form.
//!
//! Limits are PostgreSQL's: 131072 digits before the decimal point, 16383 after.

mod binary;
mod transcendental;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use num_bigint::{BigInt, BigUint, Sign};

use crate::error::{Result, SqlError, state};

/// An exact decimal number, NaN, or an infinity.
#[derive(Clone)]
pub struct Numeric(Repr);

#[derive(Clone)]
enum Repr {
    Small { mantissa: i64, scale: u16 },
    Big(Arc<Big>),
    NaN,
    PosInf,
    NegInf,
}

struct Big {
    mantissa: BigInt,
    scale: u16,
}

const _: () = assert!(std::mem::size_of::<Numeric>() <= 16);

/// Significant digits a division, root or logarithm gives at least.
const MIN_SIG_DIGITS: i32 = 16;
/// Greatest scale such a result is shown with.
const MAX_DISPLAY_SCALE: i32 = 1000;
/// Greatest scale a stored value may have.
const MAX_SCALE: u32 = 16383;
/// Greatest number of digits before the decimal point.
const MAX_WEIGHT_DIGITS: u64 = 131_072;

const POW10: [i64; 19] = {
    let mut table = [1i64; 19];
    let mut i = 1;
    while i < 19 {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

fn pow10(n: u32) -> BigInt {
    if (n as usize) < POW10.len() { BigInt::from(POW10[n as usize]) } else { BigInt::from(10u8).pow(n) }
}

fn overflow() -> SqlError {
    SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
}

fn division_by_zero() -> SqlError {
    SqlError::new(state::DIVISION_BY_ZERO, "division by zero")
}

impl Numeric {
    /// Not a number: equal to itself, greater than everything.
    pub const NAN: Numeric = Numeric(Repr::NaN);
    /// Infinity.
    pub const INFINITY: Numeric = Numeric(Repr::PosInf);
    /// -Infinity.
    pub const NEG_INFINITY: Numeric = Numeric(Repr::NegInf);
    /// 0
    pub const ZERO: Numeric = Numeric(Repr::Small { mantissa: 0, scale: 0 });

    /// An integer.
    pub fn from_i64(value: i64) -> Numeric {
        Numeric(Repr::Small { mantissa: value, scale: 0 })
    }
    /// An integer.
    pub fn from_i128(value: i128) -> Numeric {
        Numeric::from_scaled(value, 0)
    }
    /// `unscaled / 10^scale`, shown with that scale.
    pub fn from_scaled(unscaled: i128, scale: u16) -> Numeric {
        match i64::try_from(unscaled) {
            Ok(mantissa) => Numeric(Repr::Small { mantissa, scale }),
            Err(_) => Numeric(Repr::Big(Arc::new(Big { mantissa: BigInt::from(unscaled), scale }))),
        }
    }
    fn from_big(mantissa: BigInt, scale: u16) -> Numeric {
        match i64::try_from(&mantissa) {
            Ok(mantissa) => Numeric(Repr::Small { mantissa, scale }),
            Err(_) => Numeric(Repr::Big(Arc::new(Big { mantissa, scale }))),
        }
    }
    /// As `from_big`, refusing what PostgreSQL's format cannot hold.
    fn checked(mantissa: BigInt, scale: u16) -> Result<Numeric> {
        if mantissa.bits() > 400_000 && decimal_digits(mantissa.magnitude()) > MAX_WEIGHT_DIGITS + u64::from(scale) {
            return Err(overflow());
        }
        Ok(Numeric::from_big(mantissa, scale))
    }

    /// The number of digits after the decimal point it is shown with; 0 for NaN and infinities.
    pub fn scale(&self) -> u16 {
        match &self.0 {
            Repr::Small { scale, .. } => *scale,
            Repr::Big(b) => b.scale,
            _ => 0,
        }
    }
    /// NaN?
    pub fn is_nan(&self) -> bool {
        matches!(self.0, Repr::NaN)
    }
    /// One of the infinities?
    pub fn is_infinite(&self) -> bool {
        matches!(self.0, Repr::PosInf | Repr::NegInf)
    }
    /// Neither NaN nor infinite?
    pub fn is_finite(&self) -> bool {
        matches!(self.0, Repr::Small { .. } | Repr::Big(_))
    }
    /// Zero?
    pub fn is_zero(&self) -> bool {
        matches!(self.0, Repr::Small { mantissa: 0, .. })
    }
    /// -1, 0 or 1; NaN counts as 1.
    pub fn signum(&self) -> i32 {
        match &self.0 {
            Repr::Small { mantissa, .. } => mantissa.signum() as i32,
            Repr::Big(b) if b.mantissa.sign() == Sign::Minus => -1,
            Repr::NegInf => -1,
            _ => 1,
        }
    }
    /// Bytes held behind a pointer.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Big(b) => 40 + (b.mantissa.bits() / 8) as usize,
            _ => 0,
        }
    }
    /// Mantissa and scale of a finite value as 128 bits, if they fit.
    pub fn to_scaled_i128(&self) -> Option<(i128, u16)> {
        match &self.0 {
            Repr::Small { mantissa, scale } => Some((i128::from(*mantissa), *scale)),
            Repr::Big(b) => Some((i128::try_from(&b.mantissa).ok()?, b.scale)),
            _ => None,
        }
    }
    fn big(&self) -> (BigInt, u16) {
        match &self.0 {
            Repr::Small { mantissa, scale } => (BigInt::from(*mantissa), *scale),
            Repr::Big(b) => (b.mantissa.clone(), b.scale),
            _ => (BigInt::ZERO, 0),
        }
    }
    /// The mantissa this value has at a scale not below its own.
    fn mantissa_at(&self, scale: u16) -> BigInt {
        let (m, s) = self.big();
        debug_assert!(scale >= s);
        if scale == s { m } else { m * pow10(u32::from(scale - s)) }
    }

    /// Parses PostgreSQL's input syntax: sign, digits, point, exponent; NaN; Infinity, inf. Blanks around are ignored.
    ///
    /// # Errors
    /// 22P02 for anything else, 22003 beyond the format's limits.
    pub fn parse(input: &str) -> Result<Numeric> {
        let invalid = || {
            SqlError::new(
                state::INVALID_TEXT_REPRESENTATION,
                format!("invalid input syntax for type numeric: \"{input}\""),
            )
        };
        let s = input.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        let (negative, body) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        let bytes = body.as_bytes();
        if !bytes.first().is_some_and(|b| b.is_ascii_digit() || *b == b'.') {
            if body.eq_ignore_ascii_case("infinity") || body.eq_ignore_ascii_case("inf") {
                return Ok(if negative { Numeric::NEG_INFINITY } else { Numeric::INFINITY });
            }
            if s.eq_ignore_ascii_case("nan") {
                return Ok(Numeric::NAN);
            }
            return Err(invalid());
        }
        let (mut i, mut small, mut digits, mut fraction, mut point) = (0, 0i64, 0usize, 0u32, false);
        let mut fits = true;
        while i < bytes.len() {
            match bytes[i] {
                b @ b'0'..=b'9' => {
                    digits += 1;
                    fraction += u32::from(point);
                    if fits {
                        match small.checked_mul(10).and_then(|m| m.checked_add(i64::from(b - b'0'))) {
                            Some(m) => small = m,
                            None => fits = false,
                        }
                    }
                }
                b'.' if !point => point = true,
                _ => break,
            }
            i += 1;
        }
        if digits == 0 {
            return Err(invalid());
        }
        let mut exponent = 0i64;
        let number_end = i;
        if i < bytes.len() && (bytes[i] | 32) == b'e' {
            let text = &body[i + 1..];
            let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
            if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return Err(invalid());
            }
            exponent = text.parse().unwrap_or(i64::MAX / 4);
            if exponent.abs() >= i64::from(i32::MAX / 2) {
                return Err(overflow());
            }
            i = bytes.len();
        }
        if i != bytes.len() {
            return Err(invalid());
        }
        let scale = i64::from(fraction) - exponent;
        if fits && (0..=i64::from(MAX_SCALE)).contains(&scale) {
            return Ok(Numeric(Repr::Small { mantissa: if negative { -small } else { small }, scale: scale as u16 }));
        }
        let mantissa = if fits {
            BigInt::from(small)
        } else {
            let text: Vec<u8> = bytes[..number_end].iter().copied().filter(u8::is_ascii_digit).collect();
            BigInt::parse_bytes(&text, 10).ok_or_else(invalid)?
        };
        let mantissa = if negative { -mantissa } else { mantissa };
        if scale < 0 {
            if mantissa.sign() == Sign::NoSign {
                return Ok(Numeric::ZERO);
            }
            if -scale > MAX_WEIGHT_DIGITS as i64 {
                return Err(overflow());
            }
            return Numeric::checked_weight(mantissa * pow10((-scale) as u32), 0);
        }
        if scale > i64::from(MAX_SCALE) {
            // PostgreSQL rounds away what lies beyond the greatest scale.
            let drop = scale - i64::from(MAX_SCALE);
            let digits = decimal_digits(mantissa.magnitude()) as i64;
            if drop > digits + 1 {
                return Ok(Numeric(Repr::Small { mantissa: 0, scale: MAX_SCALE as u16 }));
            }
            return Ok(Numeric::from_big(div_round(&mantissa, &pow10(drop as u32)), MAX_SCALE as u16));
        }
        Numeric::checked_weight(mantissa, scale as u16)
    }
    fn checked_weight(mantissa: BigInt, scale: u16) -> Result<Numeric> {
        Numeric::checked(mantissa, scale)
    }

    /// Sum. Inf - Inf is NaN.
    ///
    /// # Errors
    /// 22003 beyond the format's limits, as for all arithmetic here.
    pub fn add(&self, other: &Numeric) -> Result<Numeric> {
        if let (Repr::Small { mantissa: a, scale: sa }, Repr::Small { mantissa: b, scale: sb }) = (&self.0, &other.0) {
            let scale = *sa.max(sb);
            if let (Some(a), Some(b)) = (rescale_i128(*a, *sa, scale), rescale_i128(*b, *sb, scale)) {
                return Ok(Numeric::from_scaled(a + b, scale));
            }
        }
        match (&self.0, &other.0) {
            (Repr::NaN, _) | (_, Repr::NaN) | (Repr::PosInf, Repr::NegInf) | (Repr::NegInf, Repr::PosInf) => {
                Ok(Numeric::NAN)
            }
            (Repr::PosInf | Repr::NegInf, _) => Ok(self.clone()),
            (_, Repr::PosInf | Repr::NegInf) => Ok(other.clone()),
            _ => {
                let scale = self.scale().max(other.scale());
                Numeric::checked(self.mantissa_at(scale) + other.mantissa_at(scale), scale)
            }
        }
    }
    /// Difference.
    pub fn sub(&self, other: &Numeric) -> Result<Numeric> {
        self.add(&other.neg())
    }
    /// Product; its scale is the sum of the scales.
    pub fn mul(&self, other: &Numeric) -> Result<Numeric> {
        if let (Repr::Small { mantissa: a, scale: sa }, Repr::Small { mantissa: b, scale: sb }) = (&self.0, &other.0)
            && u32::from(*sa) + u32::from(*sb) <= MAX_SCALE
        {
            return Ok(Numeric::from_scaled(i128::from(*a) * i128::from(*b), sa + sb));
        }
        if self.is_nan() || other.is_nan() {
            return Ok(Numeric::NAN);
        }
        if self.is_infinite() || other.is_infinite() {
            return Ok(match self.signum() * other.signum() {
                0 => Numeric::NAN,
                1 => Numeric::INFINITY,
                _ => Numeric::NEG_INFINITY,
            });
        }
        let ((a, sa), (b, sb)) = (self.big(), other.big());
        let scale = u32::from(sa) + u32::from(sb);
        let product = a * b;
        if scale > MAX_SCALE {
            return Numeric::checked(div_round(&product, &pow10(scale - MAX_SCALE)), MAX_SCALE as u16);
        }
        Numeric::checked(product, scale as u16)
    }
    /// Quotient, rounded to the scale PostgreSQL chooses.
    ///
    /// # Errors
    /// 22012 when `other` is zero.
    pub fn div(&self, other: &Numeric) -> Result<Numeric> {
        if let Some(special) = self.special_quotient(other)? {
            return Ok(special);
        }
        self.div_at(other, self.div_scale(other))
    }
    /// Quotient cut off to an integer: `div()`.
    pub fn div_trunc(&self, other: &Numeric) -> Result<Numeric> {
        if let Some(special) = self.special_quotient(other)? {
            return Ok(special);
        }
        let scale = self.scale().max(other.scale());
        Ok(Numeric::from_big(self.mantissa_at(scale) / other.mantissa_at(scale), 0))
    }
    /// Remainder with the sign of `self`.
    pub fn rem(&self, other: &Numeric) -> Result<Numeric> {
        if self.is_nan() || other.is_nan() {
            return Ok(Numeric::NAN);
        }
        if self.is_infinite() {
            return if other.is_zero() { Err(division_by_zero()) } else { Ok(Numeric::NAN) };
        }
        if other.is_infinite() {
            return Ok(self.clone());
        }
        if other.is_zero() {
            return Err(division_by_zero());
        }
        let scale = self.scale().max(other.scale());
        Ok(Numeric::from_big(self.mantissa_at(scale) % other.mantissa_at(scale), scale))
    }
    fn special_quotient(&self, other: &Numeric) -> Result<Option<Numeric>> {
        if self.is_nan() || other.is_nan() {
            return Ok(Some(Numeric::NAN));
        }
        if other.is_zero() {
            return Err(division_by_zero());
        }
        if self.is_infinite() {
            return Ok(Some(if other.is_infinite() {
                Numeric::NAN
            } else if self.signum() * other.signum() > 0 {
                Numeric::INFINITY
            } else {
                Numeric::NEG_INFINITY
            }));
        }
        Ok(other.is_infinite().then_some(Numeric::ZERO))
    }
    /// `select_div_scale` of numeric.c.
    fn div_scale(&self, other: &Numeric) -> i32 {
        let ((w1, f1), (w2, f2)) = (self.first_nbase_digit(), other.first_nbase_digit());
        let mut weight = w1 - w2;
        if f1 <= f2 {
            weight -= 1;
        }
        self.clamp_scale(MIN_SIG_DIGITS - weight * 4, other)
    }
    fn clamp_scale(&self, scale: i32, other: &Numeric) -> i32 {
        scale.max(i32::from(self.scale())).max(i32::from(other.scale())).clamp(0, MAX_DISPLAY_SCALE)
    }
    /// Weight and value of the first base-10000 digit, aligned at the decimal point as numeric.c stores them; (0, 0) for zero.
    fn first_nbase_digit(&self) -> (i32, i64) {
        if self.is_zero() {
            return (0, 0);
        }
        let digits = self.digits();
        let exponent = digits.len() as i32 - 1 - i32::from(self.scale());
        let weight = exponent.div_euclid(4);
        let count = (exponent - weight * 4 + 1) as usize;
        let mut value = 0i64;
        for i in 0..count {
            value = value * 10 + digits.as_bytes().get(i).map_or(0, |b| i64::from(b - b'0'));
        }
        (weight, value)
    }
    /// Decimal digits of the mantissa without sign and leading zeros; "0" for zero.
    fn digits(&self) -> String {
        match &self.0 {
            Repr::Small { mantissa, .. } => mantissa.unsigned_abs().to_string(),
            Repr::Big(b) => b.mantissa.magnitude().to_string(),
            _ => String::new(),
        }
    }
    /// Quotient rounded half away from zero at a scale.
    fn div_at(&self, other: &Numeric, scale: i32) -> Result<Numeric> {
        let ((a, sa), (b, sb)) = (self.big(), other.big());
        // a/10^sa / (b/10^sb) * 10^scale = a * 10^(scale + sb - sa) / b
        let shift = scale + i32::from(sb) - i32::from(sa);
        let quotient = if shift >= 0 {
            div_round(&(a * pow10(shift as u32)), &b)
        } else {
            div_round(&a, &(b * pow10((-shift) as u32)))
        };
        Numeric::checked(quotient, scale as u16)
    }

    /// Negation.
    #[must_use]
    pub fn neg(&self) -> Numeric {
        match &self.0 {
            Repr::Small { mantissa, scale } => Numeric::from_scaled(-i128::from(*mantissa), *scale),
            Repr::Big(b) => Numeric::from_big(-b.mantissa.clone(), b.scale),
            Repr::NaN => Numeric::NAN,
            Repr::PosInf => Numeric::NEG_INFINITY,
            Repr::NegInf => Numeric::INFINITY,
        }
    }
    /// Absolute value.
    #[must_use]
    pub fn abs(&self) -> Numeric {
        if self.signum() < 0 { self.neg() } else { self.clone() }
    }
    /// Rounded half away from zero; a negative scale rounds before the decimal point.
    #[must_use]
    pub fn round(&self, scale: i32) -> Numeric {
        self.rescale(scale, div_round)
    }
    /// Cut off towards zero.
    #[must_use]
    pub fn trunc(&self, scale: i32) -> Numeric {
        self.rescale(scale, |a, b| a / b)
    }
    /// Least integer not below.
    #[must_use]
    pub fn ceil(&self) -> Numeric {
        self.rescale(0, |a, b| num_integer_div(a, b, true))
    }
    /// Greatest integer not above.
    #[must_use]
    pub fn floor(&self) -> Numeric {
        self.rescale(0, |a, b| num_integer_div(a, b, false))
    }
    fn rescale(&self, scale: i32, divide: impl Fn(&BigInt, &BigInt) -> BigInt) -> Numeric {
        if !self.is_finite() {
            return self.clone();
        }
        let scale = scale.clamp(-(MAX_WEIGHT_DIGITS as i32), MAX_SCALE as i32);
        let own = i32::from(self.scale());
        if scale >= own {
            return Numeric::from_big(self.mantissa_at(scale as u16), scale as u16);
        }
        let unit = pow10((own - scale) as u32);
        let shortened = divide(&self.big().0, &unit);
        if scale >= 0 {
            Numeric::from_big(shortened, scale as u16)
        } else {
            Numeric::from_big(shortened * pow10((-scale) as u32), 0)
        }
    }
    /// Without trailing zeros after the point.
    #[must_use]
    pub fn trim_scale(&self) -> Numeric {
        self.round(self.min_scale())
    }
    /// The least scale that shows it exactly.
    pub fn min_scale(&self) -> i32 {
        if self.is_zero() {
            return 0;
        }
        let zeros = self.digits().bytes().rev().take_while(|b| *b == b'0').count() as i32;
        (i32::from(self.scale()) - zeros).max(0)
    }

    /// Rounds to the precision and scale of a type modifier.
    ///
    /// # Errors
    /// 22003 when the value needs more digits than the precision allows.
    pub fn apply_typmod(&self, typmod: i32) -> Result<Numeric> {
        let Some((precision, scale)) = unpack_typmod(typmod) else { return Ok(self.clone()) };
        let too_large = |what: String| {
            SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
                .detail(format!("A field with precision {precision}, scale {scale} {what}"))
        };
        if self.is_infinite() {
            return Err(too_large("cannot hold an infinite value.".into()));
        }
        if self.is_nan() {
            return Ok(self.clone());
        }
        if let Repr::Small { mantissa, scale: own } = &self.0
            && i32::from(*own) == scale
            && (precision as usize) < POW10.len()
            && mantissa.unsigned_abs() < POW10[precision as usize] as u64
        {
            return Ok(self.clone());
        }
        let rounded = self.round(scale);
        let limit = precision - scale;
        // |rounded| < 10^(precision - scale)
        let digits_before =
            if rounded.is_zero() { i64::MIN } else { rounded.digits().len() as i64 - i64::from(rounded.scale()) };
        if digits_before > i64::from(limit) {
            let bound = if limit == 0 { "1".to_owned() } else { format!("10^{limit}") };
            return Err(too_large(format!("must round to an absolute value less than {bound}.")));
        }
        Ok(rounded)
    }

    /// The nearest integer, ties away from zero.
    ///
    /// # Errors
    /// 22003 (or 0A000 for NaN and infinities) when there is none of 64 bits; `type_name` goes into the message.
    pub fn to_i64(&self, type_name: &str) -> Result<i64> {
        if !self.is_finite() {
            let what = if self.is_nan() { "NaN" } else { "infinity" };
            return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, format!("cannot convert {what} to {type_name}")));
        }
        if let Repr::Small { mantissa, scale: 0 } = &self.0 {
            return Ok(*mantissa);
        }
        match self.round(0).0 {
            Repr::Small { mantissa, .. } => Ok(mantissa),
            _ => Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, format!("{type_name} out of range"))),
        }
    }
    /// The nearest double.
    ///
    /// # Errors
    /// 22003 when it is too large for one.
    pub fn to_f64(&self) -> Result<f64> {
        let value = self.to_f64_lossy();
        if value.is_infinite() && !self.is_infinite() {
            return Err(SqlError::new(
                state::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("\"{self}\" is out of range for type double precision"),
            ));
        }
        Ok(value)
    }
    /// The nearest double; too large ones are infinite.
    pub fn to_f64_lossy(&self) -> f64 {
        match &self.0 {
            Repr::NaN => f64::NAN,
            Repr::PosInf => f64::INFINITY,
            Repr::NegInf => f64::NEG_INFINITY,
            Repr::Small { mantissa, scale: 0 } => *mantissa as f64,
            _ => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }
    /// A double with the 15 digits PostgreSQL trusts.
    pub fn from_f64(value: f64) -> Numeric {
        Numeric::from_float(value, value.is_nan(), value.is_infinite(), value < 0.0, 14)
    }
    /// A float with the 6 digits PostgreSQL trusts.
    pub fn from_f32(value: f32) -> Numeric {
        Numeric::from_float(f64::from(value), value.is_nan(), value.is_infinite(), value < 0.0, 5)
    }
    fn from_float(value: f64, nan: bool, infinite: bool, negative: bool, decimals: usize) -> Numeric {
        if nan {
            return Numeric::NAN;
        }
        if infinite {
            return if negative { Numeric::NEG_INFINITY } else { Numeric::INFINITY };
        }
        // As sprintf("%.15g"): that many digits, trailing zeros dropped.
        let text = format!("{value:.decimals$e}");
        let parsed = Numeric::parse(&text).unwrap_or(Numeric::ZERO);
        parsed.trim_scale()
    }
}

fn rescale_i128(mantissa: i64, from: u16, to: u16) -> Option<i128> {
    let shift = usize::from(to - from);
    (shift < POW10.len()).then(|| i128::from(mantissa) * i128::from(POW10[shift]))
}

fn decimal_digits(magnitude: &BigUint) -> u64 {
    if magnitude.bits() < 200_000 {
        magnitude.to_string().len() as u64
    } else {
        ((magnitude.bits() as f64) * std::f64::consts::LOG10_2) as u64 + 1
    }
}

/// a / b rounded half away from zero.
fn div_round(a: &BigInt, b: &BigInt) -> BigInt {
    let (quotient, remainder) = (a / b, a % b);
    if remainder.magnitude() * 2u8 >= *b.magnitude() {
        if (a.sign() == Sign::Minus) == (b.sign() == Sign::Minus) { quotient + 1 } else { quotient - 1 }
    } else {
        quotient
    }
}

fn num_integer_div(a: &BigInt, b: &BigInt, up: bool) -> BigInt {
    let (quotient, remainder) = (a / b, a % b);
    match remainder.sign() {
        Sign::Plus if up => quotient + 1,
        Sign::Minus if !up => quotient - 1,
        _ => quotient,
    }
}

/// Precision and scale of a `numeric(p,s)` modifier, or None without one.
pub fn unpack_typmod(typmod: i32) -> Option<(i32, i32)> {
    (typmod >= 4).then(|| {
        let t = typmod - 4;
        ((t >> 16) & 0xffff, ((t & 0x7ff) ^ 1024) - 1024)
    })
}

/// The modifier of `numeric(p,s)`.
pub fn pack_typmod(precision: i32, scale: i32) -> i32 {
    ((precision << 16) | (scale & 0x7ff)) + 4
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale());
        match &self.0 {
            Repr::NaN => return f.write_str("NaN"),
            Repr::PosInf => return f.write_str("Infinity"),
            Repr::NegInf => return f.write_str("-Infinity"),
            Repr::Small { mantissa, scale: 0 } => return write!(f, "{mantissa}"),
            _ => {}
        }
        let digits = self.digits();
        if self.signum() < 0 {
            f.write_str("-")?;
        }
        if scale == 0 {
            f.write_str(&digits)
        } else if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            write!(f, "{whole}.{fraction}")
        } else {
            write!(f, "0.{digits:0>scale$}")
        }
    }
}

impl fmt::Debug for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Numeric) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Numeric {}
impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of PostgreSQL's btree: -Infinity, numbers, Infinity, NaN; the scale does not count.
impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        if let (Repr::Small { mantissa: a, scale: sa }, Repr::Small { mantissa: b, scale: sb }) = (&self.0, &other.0) {
            if sa == sb {
                return a.cmp(b);
            }
            let scale = *sa.max(sb);
            if let (Some(a), Some(b)) = (rescale_i128(*a, *sa, scale), rescale_i128(*b, *sb, scale)) {
                return a.cmp(&b);
            }
        }
        let class = |n: &Numeric| match n.0 {
            Repr::NegInf => 0,
            Repr::Small { .. } | Repr::Big(_) => 1,
            Repr::PosInf => 2,
            Repr::NaN => 3,
        };
        match class(self).cmp(&class(other)) {
            Ordering::Equal if class(self) == 1 => {
                let scale = self.scale().max(other.scale());
                self.mantissa_at(scale).cmp(&other.mantissa_at(scale))
            }
            order => order,
        }
    }
}

/// Equal values hash equal, whatever their scale.
impl Hash for Numeric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Repr::Small { mantissa, scale } = &self.0 {
            let (mut m, mut s) = (*mantissa, *scale);
            while s > 0 && m % 10 == 0 {
                m /= 10;
                s -= 1;
            }
            state.write_i64(m);
            state.write_u16(if m == 0 { 0 } else { s });
            return;
        }
        if !self.is_finite() {
            state.write_i64(self.signum() as i64);
            state.write_u16(if self.is_nan() { u16::MAX } else { u16::MAX - 1 });
            return;
        }
        let trimmed = self.trim_scale();
        match &trimmed.0 {
            Repr::Big(b) => b.mantissa.hash(state),
            _ => return trimmed.hash(state),
        }
        state.write_u16(trimmed.scale());
    }
}

#[cfg(test)]
mod tests;
