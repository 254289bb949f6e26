//! Square roots, exponentials, logarithms and powers of numerics.
//!
//! The result scales are chosen exactly as numeric.c chooses them; the digits are computed with plenty of guard bits in binary fixed point and rounded once, half
//! away from zero, so they agree wherever PostgreSQL's own result is correctly rounded.

use num_bigint::{BigInt, Sign};

use super::{MAX_DISPLAY_SCALE, MIN_SIG_DIGITS, Numeric, Repr, div_round, division_by_zero, overflow, pow10};
use crate::error::{Result, SqlError, state};

/// Beyond this decimal weight a result cannot be represented.
const MAX_RESULT_SCALE: f64 = 2000.0;

fn invalid_log(message: &str) -> SqlError {
    SqlError::new(state::INVALID_ARGUMENT_FOR_LOGARITHM, message)
}
fn invalid_power(message: &str) -> SqlError {
    SqlError::new(state::INVALID_ARGUMENT_FOR_POWER_FUNCTION, message)
}

impl Numeric {
    /// Square root.
    ///
    /// # Errors
    /// 2201F for a negative number.
    pub fn sqrt(&self) -> Result<Numeric> {
        if self.is_nan() || matches!(self.0, Repr::PosInf) {
            return Ok(self.clone());
        }
        if self.signum() < 0 {
            return Err(invalid_power("cannot take square root of a negative number"));
        }
        let (weight, _) = self.first_nbase_digit();
        let scale = self.clamp_scale(MIN_SIG_DIGITS - ((weight + 1) * 4 / 2 - 1), self);
        // floor(sqrt(x) * 10^(scale+1)) tells how to round at `scale`: the true digit beyond it is never exactly 5 with nothing after.
        let (mantissa, own) = self.big();
        let shift = 2 * (scale + 1) - i32::from(own);
        let scaled = if shift >= 0 { mantissa * pow10(shift as u32) } else { mantissa / pow10((-shift) as u32) };
        Ok(Numeric::from_big(div_round(&scaled.sqrt(), &BigInt::from(10)), scale as u16))
    }

    /// e to this power.
    pub fn exp(&self) -> Result<Numeric> {
        match self.0 {
            Repr::NaN | Repr::PosInf => return Ok(self.clone()),
            Repr::NegInf => return Ok(Numeric::ZERO),
            _ => {}
        }
        let weight = (self.to_f64_lossy() * std::f64::consts::LOG10_E).clamp(-MAX_RESULT_SCALE, MAX_RESULT_SCALE);
        let scale = self.clamp_scale(MIN_SIG_DIGITS - weight as i32, self);
        self.exp_at(scale)
    }
    fn exp_at(&self, scale: i32) -> Result<Numeric> {
        let value = self.to_f64_lossy();
        if value.abs() >= MAX_RESULT_SCALE * 3.0 {
            if value > 0.0 {
                return Err(overflow());
            }
            return Ok(Numeric::from_scaled(0, scale as u16));
        }
        let weight = (value * std::f64::consts::LOG10_E) as i32;
        let bits = fixed::bits_for((scale + weight.max(0)) as u32 + 20) + 64;
        let x = fixed::from_numeric(self, bits);
        Ok(fixed::to_numeric(&fixed::exp(&x, bits), bits, scale))
    }

    /// Natural logarithm.
    ///
    /// # Errors
    /// 2201E for zero and below.
    pub fn ln(&self) -> Result<Numeric> {
        if let Some(special) = self.special_log()? {
            return Ok(special);
        }
        let scale = self.clamp_scale(MIN_SIG_DIGITS - self.ln_weight(), self);
        Ok(self.ln_at(scale))
    }
    fn special_log(&self) -> Result<Option<Numeric>> {
        if self.is_nan() {
            return Ok(Some(Numeric::NAN));
        }
        if self.is_zero() {
            return Err(invalid_log("cannot take logarithm of zero"));
        }
        if self.signum() < 0 {
            return Err(invalid_log("cannot take logarithm of a negative number"));
        }
        Ok(self.is_infinite().then_some(Numeric::INFINITY))
    }
    fn ln_at(&self, scale: i32) -> Numeric {
        let bits = fixed::bits_for(scale.max(0) as u32 + 12) + 64;
        fixed::to_numeric(&self.ln_fixed(bits), bits, scale)
    }
    /// ln(self) times 2^bits.
    fn ln_fixed(&self, bits: u64) -> BigInt {
        let (mantissa, scale) = self.big();
        fixed::ln_ratio(&mantissa, &pow10(u32::from(scale)), bits)
    }
    /// `estimate_ln_dweight` of numeric.c: the decimal weight of ln(self).
    fn ln_weight(&self) -> i32 {
        if self.signum() <= 0 {
            return 0;
        }
        let near = |text: &str| Numeric::parse(text).unwrap_or(Numeric::ZERO);
        if *self >= near("0.9") && *self <= near("1.1") {
            let Ok(x) = self.sub(&Numeric::from_i64(1)) else { return 0 };
            if x.is_zero() {
                return 0;
            }
            let (weight, first) = x.abs().first_nbase_digit();
            return weight * 4 + (first as f64).log10() as i32;
        }
        let text = self.digits();
        let exponent = text.len() as i32 - 1 - i32::from(self.scale());
        let lead: f64 = format!("0.{text}").parse().unwrap_or(0.1);
        let ln = lead.ln() + f64::from(exponent + 1) * std::f64::consts::LN_10;
        ln.abs().log10() as i32
    }

    /// Logarithm to a base.
    pub fn log(&self, base: &Numeric) -> Result<Numeric> {
        if self.is_nan() || base.is_nan() {
            return Ok(Numeric::NAN);
        }
        let special = (base.special_log()?, self.special_log()?);
        match special {
            (Some(_), Some(_)) => return Ok(Numeric::NAN),
            (Some(_), None) => return Ok(Numeric::ZERO),
            (None, Some(_)) => return Ok(Numeric::INFINITY),
            (None, None) => {}
        }
        let weight = self.ln_weight() - base.ln_weight();
        let scale = self.clamp_scale(MIN_SIG_DIGITS - weight, base);
        let bits = fixed::bits_for((scale.max(0) + 40) as u32) + 64;
        let (num, den) = (self.ln_fixed(bits), base.ln_fixed(bits));
        if den.sign() == Sign::NoSign {
            return Err(division_by_zero());
        }
        Ok(Numeric::from_big(div_round(&(num * pow10(scale as u32)), &den), scale as u16))
    }
    /// Logarithm to base 10.
    pub fn log10(&self) -> Result<Numeric> {
        self.log(&Numeric::from_i64(10))
    }

    /// This number to a power.
    ///
    /// # Errors
    /// 2201F for 0 to a negative power and for a negative number to a fraction.
    pub fn power(&self, exponent: &Numeric) -> Result<Numeric> {
        let one = Numeric::from_i64(1);
        if !self.is_finite() || !exponent.is_finite() {
            return self.special_power(exponent, &one);
        }
        if self.is_zero() && exponent.signum() < 0 {
            return Err(invalid_power("zero raised to a negative power is undefined"));
        }
        if exponent.round(0) == *exponent
            && let Ok(n) = exponent.to_i64("bigint")
            && let Ok(n) = i32::try_from(n)
        {
            return self.power_int(n, exponent);
        }
        if self.is_zero() {
            return Ok(Numeric::from_scaled(0, MIN_SIG_DIGITS as u16));
        }
        let mut base = self.clone();
        let mut negative = false;
        if self.signum() < 0 {
            if exponent.round(0) != *exponent {
                return Err(invalid_power("a negative number raised to a non-integer power yields a complex result"));
            }
            let two = Numeric::from_i64(2);
            negative = !exponent.rem(&two)?.is_zero();
            base = self.neg();
        }
        let ln_weight = base.ln_weight();
        let rough_scale = (8 - ln_weight).max(0);
        let rough = base.ln_at(rough_scale).mul(exponent)?.round(rough_scale).to_f64_lossy();
        if rough.abs() > MAX_RESULT_SCALE * 3.01 {
            if rough > 0.0 {
                return Err(overflow());
            }
            return Ok(Numeric::from_scaled(0, MAX_DISPLAY_SCALE as u16));
        }
        let weight = (rough * std::f64::consts::LOG10_E) as i32;
        let scale = self.clamp_scale(MIN_SIG_DIGITS - weight, exponent);
        let digits = (scale + weight.max(0)) as u32 + 30;
        let bits = fixed::bits_for(digits) + 128;
        let (m, s) = exponent.big();
        let ln = base.ln_fixed(bits + m.bits()) * m;
        let x: BigInt = div_round(&ln, &pow10(u32::from(s))) >> base_shift(&exponent.big().0);
        let result = fixed::to_numeric(&fixed::exp(&x, bits), bits, scale);
        Ok(if negative { result.neg() } else { result })
    }
    fn special_power(&self, exponent: &Numeric, one: &Numeric) -> Result<Numeric> {
        if self.is_nan() {
            return Ok(if exponent.is_zero() { Numeric::from_scaled(1, 0) } else { Numeric::NAN });
        }
        if exponent.is_nan() {
            return Ok(if self == one { Numeric::from_scaled(1, 0) } else { Numeric::NAN });
        }
        if self == one || exponent.is_zero() {
            return Ok(one.clone());
        }
        if self.is_zero() && exponent.signum() < 0 {
            return Err(invalid_power("zero raised to a negative power is undefined"));
        }
        let integral = exponent.is_infinite() || exponent.round(0) == *exponent;
        if self.signum() < 0 && !integral {
            return Err(invalid_power("a negative number raised to a non-integer power yields a complex result"));
        }
        if exponent.is_infinite() {
            let magnitude = self.abs();
            if magnitude == *one {
                return Ok(one.clone());
            }
            let grows = (magnitude > *one) == (exponent.signum() > 0);
            return Ok(if grows { Numeric::INFINITY } else { Numeric::ZERO });
        }
        if exponent.signum() < 0 {
            return Ok(Numeric::ZERO);
        }
        let odd = !exponent.rem(&Numeric::from_i64(2))?.is_zero();
        Ok(if self.signum() < 0 && odd { Numeric::NEG_INFINITY } else { Numeric::INFINITY })
    }
    fn power_int(&self, n: i32, exponent: &Numeric) -> Result<Numeric> {
        let scale = self.clamp_scale(MIN_SIG_DIGITS, &Numeric::ZERO).max(i32::from(exponent.scale()).min(0));
        match n {
            0 => return Ok(Numeric::from_i64(1).round(scale)),
            1 => return Ok(self.round(scale)),
            -1 => return Numeric::from_i64(1).div_at(self, scale),
            2 => return Ok(self.mul(self)?.round(scale)),
            _ => {}
        }
        if self.is_zero() {
            return Ok(Numeric::from_scaled(0, scale as u16));
        }
        let text = self.digits();
        let lead: f64 = format!("0.{text}").parse().unwrap_or(0.1);
        let log = f64::from(n) * (lead.log10() + f64::from(text.len() as i32 - i32::from(self.scale())));
        if log > 3.0 * 32767.0 * 4.0 {
            return Err(overflow());
        }
        if log + 1.0 < -f64::from(scale) || log + 1.0 < -f64::from(MAX_DISPLAY_SCALE) {
            return Ok(Numeric::from_scaled(0, scale as u16));
        }
        // Exact while that is affordable, else cut to the digits the result can show plus guards.
        let significant = (1.0 + f64::from(scale) + log).max(1.0) as u64 + 8 + u64::from(n.unsigned_abs().ilog2());
        let mut result = Scaled { mantissa: BigInt::from(1), scale: 0 };
        let (mantissa, own) = self.big();
        let mut square = Scaled { mantissa, scale: i64::from(own) };
        let mut bits = n.unsigned_abs();
        loop {
            if bits & 1 == 1 {
                result = result.times(&square).cut(significant);
            }
            bits >>= 1;
            if bits == 0 {
                break;
            }
            square = square.times(&square).cut(significant);
        }
        if n < 0 {
            // 1 / (m / 10^s) = 10^s / m
            let shift = i64::from(scale) + result.scale;
            if shift < 0 {
                return Ok(Numeric::from_scaled(0, scale as u16));
            }
            return Numeric::checked(div_round(&pow10(shift as u32), &result.mantissa), scale as u16);
        }
        let shift = i64::from(scale) - result.scale;
        let mantissa = if shift >= 0 {
            result.mantissa * pow10(shift as u32)
        } else {
            div_round(&result.mantissa, &pow10((-shift) as u32))
        };
        Numeric::checked(mantissa, scale as u16)
    }
}

/// How far a product with `exponent` was scaled up to keep its bits.
fn base_shift(exponent: &BigInt) -> u64 {
    exponent.bits()
}

/// A decimal float for powers: the scale may be negative.
struct Scaled {
    mantissa: BigInt,
    scale: i64,
}
impl Scaled {
    fn times(&self, other: &Scaled) -> Scaled {
        Scaled { mantissa: &self.mantissa * &other.mantissa, scale: self.scale + other.scale }
    }
    fn cut(self, digits: u64) -> Scaled {
        let have = (self.mantissa.bits() as f64 * std::f64::consts::LOG10_2) as u64;
        if have <= digits + 16 {
            return self;
        }
        let drop = have - digits - 8;
        Scaled { mantissa: div_round(&self.mantissa, &pow10(drop as u32)), scale: self.scale - drop as i64 }
    }
}

/// Binary fixed point: a BigInt stands for itself over 2^bits.
mod fixed {
    use super::{BigInt, Numeric, div_round, pow10};

    pub fn bits_for(decimal_digits: u32) -> u64 {
        (f64::from(decimal_digits) * std::f64::consts::LOG2_10) as u64 + 2
    }
    pub fn from_numeric(n: &Numeric, bits: u64) -> BigInt {
        let (mantissa, scale) = n.big();
        div_round(&(mantissa << bits), &pow10(u32::from(scale)))
    }
    pub fn to_numeric(x: &BigInt, bits: u64, scale: i32) -> Numeric {
        let one = BigInt::from(1) << bits;
        Numeric::from_big(div_round(&(x * pow10(scale as u32)), &one), scale as u16)
    }
    /// ln 2 by 2 * atanh(1/3).
    fn ln2(bits: u64) -> BigInt {
        atanh(&(BigInt::from(1) << bits), &BigInt::from(3), bits) * 2
    }
    /// atanh(num/den) for a small ratio: the odd power series.
    fn atanh(num: &BigInt, den: &BigInt, bits: u64) -> BigInt {
        let z = num / den;
        let square: BigInt = (&z * &z) >> bits;
        let (mut term, mut sum, mut k) = (z.clone(), z, 3u64);
        loop {
            term = (&term * &square) >> bits;
            if term.bits() <= 1 {
                return sum;
            }
            sum += &term / k;
            k += 2;
        }
    }
    /// ln(num/den) * 2^bits.
    pub fn ln_ratio(num: &BigInt, den: &BigInt, bits: u64) -> BigInt {
        let work = bits + 64;
        // num/den = m * 2^k with m in [0.5, 2)
        let k = num.bits() as i64 - den.bits() as i64;
        let mut m = if k >= 0 { (num << work) / (den << k as u64) } else { (num << (work + (-k) as u64)) / den };
        // Square roots bring m close to 1, where the series is short.
        let rounds = 3 + (work as f64).sqrt() as u32 / 4;
        let work2 = work + u64::from(rounds) + 32;
        m <<= work2 - work;
        for _ in 0..rounds {
            m = (m << work2).sqrt();
        }
        let one = BigInt::from(1) << work2;
        let ln_m: BigInt = (atanh(&((&m - &one) << work2), &(&m + &one), work2) * 2) << rounds as usize;
        let total = ln_m + ln2(work2) * k;
        total >> (work2 - bits)
    }
    /// e^(x / 2^bits) * 2^bits.
    pub fn exp(x: &BigInt, bits: u64) -> BigInt {
        let work = bits + 128;
        let x: BigInt = x << (work - bits);
        let ln2 = ln2(work);
        let k = div_round(&x, &ln2);
        let reduce = 8 + (work as f64).sqrt() as u64 / 4;
        let guard = work + reduce;
        let r: BigInt = (x - &k * ln2) << (guard - work);
        let r: BigInt = r >> reduce;
        let one = BigInt::from(1) << guard;
        let (mut term, mut sum, mut n) = (one.clone(), one, 1u64);
        loop {
            term = ((&term * &r) >> guard) / n;
            if term.bits() <= 1 {
                break;
            }
            sum += &term;
            n += 1;
        }
        for _ in 0..reduce {
            sum = (&sum * &sum) >> guard;
        }
        let k = i64::try_from(&k).unwrap_or(0);
        let down = (guard - bits) as i64 - k;
        if down >= 0 { sum >> down as u64 } else { sum << (-down) as u64 }
    }
}
