//! Numbers by template: `to_char(number, ...)` and `to_number`.
//!
//! Writing goes in two steps. First the number becomes decimal digits with as many places as the template has, or `#`s
//! where it has too few digits before the point. Then the template is walked and each `9` or `0` takes a digit.
//! PostgreSQL decides about signs, blanks and the end of the number while it walks; [`Writer`] keeps its bookkeeping, for
//! every odd corner of it shows in the output.

mod read;

use super::ordinal;
use super::template::{Node, literal};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Numeric};

pub(super) use read::to_number;

/// Keywords. Upper and lower case mean the same, but for `RN` and `TH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Comma,
    Point,
    Zero,
    Nine,
    Blank,
    Currency,
    Locale,
    Scientific,
    Fill,
    Group,
    Minus,
    Plus,
    Brackets,
    Roman(bool),
    Sign,
    LocaleSign,
    Ordinal(bool),
    Shift,
    /// `SP`, `C`: read, and mean nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    Key(Key),
    Literal(char),
}

static KEYWORDS: &[(&str, Key)] = &[
    (",", Key::Comma),
    (".", Key::Point),
    ("0", Key::Zero),
    ("9", Key::Nine),
    ("B", Key::Blank),
    ("C", Key::Nothing),
    ("D", Key::Locale),
    ("EEEE", Key::Scientific),
    ("FM", Key::Fill),
    ("G", Key::Group),
    ("L", Key::Currency),
    ("MI", Key::Minus),
    ("PL", Key::Plus),
    ("PR", Key::Brackets),
    ("RN", Key::Roman(true)),
    ("SG", Key::Sign),
    ("SP", Key::Nothing),
    ("S", Key::LocaleSign),
    ("TH", Key::Ordinal(true)),
    ("V", Key::Shift),
];

/// A template and what its keywords say together.
struct Template {
    pieces: Vec<Piece>,
    /// Digits before the point.
    pre: usize,
    /// Digits after the point.
    post: usize,
    /// Digits after `V`.
    shift: usize,
    has_shift: bool,
    point: bool,
    /// The first `0` and the last, counted in digits from 1.
    zero: bool,
    zero_start: usize,
    zero_end: usize,
    fill: bool,
    blank: bool,
    minus: bool,
    plus: bool,
    brackets: bool,
    roman: bool,
    scientific: bool,
    /// Where an `S` stands.
    sign: Option<SignPlace>,
    /// Digits before the `S`.
    digits_before_sign: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignPlace {
    Before,
    After,
}

fn syntax(message: &str) -> SqlError {
    SqlError::new(state::SYNTAX_ERROR, message)
}

impl Template {
    fn parse(text: &str) -> Result<Template> {
        let mut t = Template {
            pieces: Vec::with_capacity(text.len()),
            pre: 0,
            post: 0,
            shift: 0,
            has_shift: false,
            point: false,
            zero: false,
            zero_start: 0,
            zero_end: 0,
            fill: false,
            blank: false,
            minus: false,
            plus: false,
            brackets: false,
            roman: false,
            scientific: false,
            sign: None,
            digits_before_sign: 0,
        };
        let mut rest = text;
        let mut literals = vec![];
        while !rest.is_empty() {
            if let Some((length, key)) = keyword(rest) {
                t.pieces.push(Piece::Key(key));
                t.add(key)?;
                rest = &rest[length..];
            } else {
                rest = literal(rest, &mut literals, Node::Literal);
                t.pieces.extend(literals.drain(..).map(|n| match n {
                    Node::Literal(c) | Node::Space(c) | Node::Separator(c) => Piece::Literal(c),
                    Node::Field(_) => Piece::Key(Key::Nothing),
                }));
            }
        }
        Ok(t)
    }

    fn add(&mut self, key: Key) -> Result<()> {
        if self.scientific && key != Key::Scientific {
            return Err(syntax("\"EEEE\" must be the last pattern used"));
        }
        match key {
            Key::Nine if self.brackets => return Err(syntax("\"9\" must be ahead of \"PR\"")),
            Key::Nine if self.has_shift => self.shift += 1,
            Key::Nine if self.point => self.post += 1,
            Key::Nine => self.pre += 1,
            Key::Zero => {
                if self.brackets {
                    return Err(syntax("\"0\" must be ahead of \"PR\""));
                }
                if !self.zero && !self.point {
                    self.zero = true;
                    self.zero_start = self.pre + 1;
                }
                if self.point {
                    self.post += 1;
                } else {
                    self.pre += 1;
                }
                self.zero_end = self.pre + self.post;
            }
            Key::Blank => self.blank |= self.pre == 0 && self.post == 0 && !self.zero,
            Key::Point | Key::Locale => {
                if self.point {
                    return Err(syntax("multiple decimal points"));
                }
                if self.has_shift {
                    return Err(syntax("cannot use \"V\" and decimal point together"));
                }
                self.point = true;
            }
            Key::Fill => self.fill = true,
            Key::LocaleSign => {
                if self.sign.is_some() {
                    return Err(syntax("cannot use \"S\" twice"));
                }
                if self.plus || self.minus || self.brackets {
                    return Err(syntax("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together"));
                }
                if self.point {
                    self.sign = Some(SignPlace::After);
                } else {
                    self.sign = Some(SignPlace::Before);
                    self.digits_before_sign = self.pre;
                }
            }
            Key::Minus | Key::Plus | Key::Sign => {
                if self.sign.is_some() {
                    return Err(syntax(match key {
                        Key::Minus => "cannot use \"S\" and \"MI\" together",
                        Key::Plus => "cannot use \"S\" and \"PL\" together",
                        _ => "cannot use \"S\" and \"SG\" together",
                    }));
                }
                self.minus |= key != Key::Plus;
                self.plus |= key != Key::Minus;
            }
            Key::Brackets => {
                if self.sign.is_some() || self.plus || self.minus {
                    return Err(syntax("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together"));
                }
                self.brackets = true;
            }
            Key::Roman(_) => self.roman = true,
            Key::Shift => {
                if self.point {
                    return Err(syntax("cannot use \"V\" and decimal point together"));
                }
                self.has_shift = true;
            }
            Key::Scientific => {
                if self.scientific {
                    return Err(syntax("cannot use \"EEEE\" twice"));
                }
                let others = self.blank
                    || self.fill
                    || self.sign.is_some()
                    || self.brackets
                    || self.minus
                    || self.plus
                    || self.roman
                    || self.has_shift;
                if others {
                    return Err(syntax("\"EEEE\" is incompatible with other formats")
                        .detail("\"EEEE\" may only be used together with digit and decimal point patterns."));
                }
                self.scientific = true;
            }
            Key::Comma | Key::Group | Key::Currency | Key::Ordinal(_) | Key::Nothing => {}
        }
        Ok(())
    }
}

/// The keyword a template begins with, and its length.
fn keyword(text: &str) -> Option<(usize, Key)> {
    let head = text.as_bytes();
    let lower = head[0].is_ascii_lowercase();
    let same_case = |n: usize| head[..n].iter().all(|b| !b.is_ascii_alphabetic() || b.is_ascii_lowercase() == lower);
    KEYWORDS.iter().find_map(|(name, key)| {
        let n = name.len();
        let fits = head.len() >= n && head[..n].eq_ignore_ascii_case(name.as_bytes()) && same_case(n);
        fits.then_some((
            n,
            match key {
                Key::Roman(_) => Key::Roman(!lower),
                Key::Ordinal(_) => Key::Ordinal(!lower),
                key => *key,
            },
        ))
    })
}

/// A number as its digits: what the walk over the template takes them from.
struct Digits {
    negative: bool,
    /// `123.45`, or `###.##`.
    text: String,
    /// How many digits the template has more than the number, before the point.
    pad: usize,
}

impl Digits {
    /// Of a plain decimal number, cut to `#`s if it is longer than the template.
    fn fit(plain: String, t: &Template, pre: usize) -> Digits {
        let (negative, text) = match plain.strip_prefix('-') {
            Some(digits) => (true, digits.to_owned()),
            None => (false, plain),
        };
        let length = text.find('.').unwrap_or(text.len());
        if length > pre {
            let text = format!("{}.{}", "#".repeat(pre), "#".repeat(t.post));
            return Digits { negative, text, pad: 0 };
        }
        Digits { negative, text, pad: pre - length }
    }
}

/// Writes a number by template. An empty template gives an empty text.
pub(super) fn to_char(value: &Datum, template: &str) -> Result<String> {
    if template.is_empty() {
        return Ok(String::new());
    }
    let mut t = Template::parse(template)?;
    if t.scientific {
        return Ok(scientific(value, &t));
    }
    if t.roman {
        let text = roman(integral(value)?);
        return write(t, Digits { negative: false, text, pad: 0 });
    }
    let pre = t.pre + t.shift;
    let plain = match value {
        Datum::Int4(v) => {
            // As PostgreSQL does it, without a check for overflow.
            let factor = 10_f64.powi(t.shift as i32);
            let factor = if factor > f64::from(i32::MAX) { i32::MIN } else { factor as i32 };
            with_zeros(v.wrapping_mul(factor).to_string(), t.post)
        }
        Datum::Int8(v) => {
            let shifted = 10_i64.checked_pow(t.shift as u32).and_then(|f| v.checked_mul(f));
            let shifted =
                shifted.ok_or_else(|| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range"))?;
            with_zeros(shifted.to_string(), t.post)
        }
        Datum::Float4(v) => {
            let v = if t.has_shift { v * 10_f32.powi(t.shift as i32) } else { *v };
            float_digits(f64::from(v), 6, &mut t.post)
        }
        Datum::Float8(v) => {
            let v = if t.has_shift { v * 10_f64.powi(t.shift as i32) } else { *v };
            float_digits(v, 15, &mut t.post)
        }
        Datum::Numeric(n) => {
            let shifted = if t.has_shift { n.mul(&power_of_ten(t.shift as i64)?)? } else { n.clone() };
            shifted.round(t.post as i32).to_string()
        }
        _ => return Err(SqlError::internal("to_char of another type than a number")),
    };
    t.pre = pre;
    let digits = Digits::fit(plain, &t, pre);
    write(t, digits)
}

fn power_of_ten(exponent: i64) -> Result<Numeric> {
    Numeric::from_i64(10).power(&Numeric::from_i64(exponent))
}

fn with_zeros(integer: String, places: usize) -> String {
    if places == 0 { integer } else { format!("{integer}.{}", "0".repeat(places)) }
}

/// Digits of a float, of which only `precise` are worth showing: the places after the point are cut to that.
fn float_digits(value: f64, precise: usize, post: &mut usize) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let length = format!("{:.0}", value.abs()).len();
    *post = (*post).min(precise.saturating_sub(length));
    format!("{value:.post$}", post = *post)
}

/// The nearest integer, for Roman numerals.
fn integral(value: &Datum) -> Result<i32> {
    let out_of_range = || SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range");
    match value {
        Datum::Int4(v) => Ok(*v),
        Datum::Int8(v) => i32::try_from(*v).map_err(|_| out_of_range()),
        Datum::Numeric(n) => i32::try_from(n.round(0).to_i64("integer")?).map_err(|_| out_of_range()),
        // What does not fit is no Roman numeral either.
        Datum::Float4(v) => Ok(f64::from(*v).round_ties_even() as i32),
        Datum::Float8(v) => Ok(v.round_ties_even() as i32),
        _ => Err(SqlError::internal("to_char of another type than a number")),
    }
}

fn roman(number: i32) -> String {
    if !(1..=3999).contains(&number) {
        return "#".repeat(15);
    }
    const NUMERALS: [(i32, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let mut rest = number;
    let mut out = String::new();
    for (value, numeral) in NUMERALS {
        while rest >= value {
            out.push_str(numeral);
            rest -= value;
        }
    }
    out
}

/// ` 1.23e+04`
fn scientific(value: &Datum, t: &Template) -> String {
    let unknown = || format!(" {}.{}", "#".repeat(t.pre), "#".repeat(t.post + 4));
    let float = |v: f64| {
        if !v.is_finite() {
            return None;
        }
        let text = format!("{v:.post$e}", post = t.post);
        let (mantissa, exponent) = text.split_once('e')?;
        Some(with_exponent(mantissa, exponent.parse().ok()?))
    };
    let text = match value {
        Datum::Int4(v) => float(f64::from(*v)),
        Datum::Float4(v) => float(f64::from(*v)),
        Datum::Float8(v) => float(*v),
        Datum::Int8(v) => Some(decimal_scientific(&v.to_string(), t.post)),
        Datum::Numeric(n) if n.is_finite() => Some(decimal_scientific(&n.to_string(), t.post)),
        _ => None,
    };
    match text {
        Some(text) if text.starts_with('-') => text,
        Some(text) => format!(" {text}"),
        None => unknown(),
    }
}

fn with_exponent(mantissa: &str, exponent: i64) -> String {
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A decimal text in scientific form. The exponent is that of the number before rounding: 9.99 to one place is 10.0e+00.
fn decimal_scientific(plain: &str, places: usize) -> String {
    let (sign, body) = plain.strip_prefix('-').map_or(("", plain), |b| ("-", b));
    let point = body.find('.').unwrap_or(body.len());
    let digits: Vec<u8> = body.bytes().filter(|b| *b != b'.').map(|b| b - b'0').collect();
    let Some(first) = digits.iter().position(|d| *d != 0) else {
        return with_exponent(&with_zeros("0".into(), places), 0);
    };
    let exponent = point as i64 - 1 - first as i64;
    let mut kept: Vec<u8> = digits[first..].iter().copied().chain(std::iter::repeat(0)).take(places + 1).collect();
    let mut carry = digits.get(first + places + 1).is_some_and(|d| *d >= 5);
    for digit in kept.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == 9;
        *digit = if carry { 0 } else { *digit + 1 };
    }
    let mut mantissa = String::from(sign);
    if carry {
        mantissa.push('1');
    }
    mantissa.extend(kept.iter().map(|d| char::from(b'0' + d)));
    if places > 0 {
        mantissa.insert(mantissa.len() - places, '.');
    }
    with_exponent(&mantissa, exponent)
}

/// State of the walk over a template when writing.
struct Writer<'a> {
    t: &'a Template,
    negative: bool,
    number: &'a [u8],
    /// Next digit to take; beyond the end when all are taken.
    at: usize,
    /// Blanks or zeros before the first digit.
    pad: usize,
    /// Digits of the template walked over.
    current: usize,
    /// Digits of the template in all, less one, or none if the sign stands in the way.
    count: usize,
    sign_written: bool,
    /// Whether a digit has been written: commas before it are blanks.
    inside: bool,
    sign: Option<SignPlace>,
    brackets: bool,
    /// With FM, the last digit after the point that is not a mere zero, or the point itself.
    last: Option<usize>,
    out: String,
    /// A digit was asked for when none was left: nothing after that is shown.
    ended: bool,
}

fn write(t: Template, digits: Digits) -> Result<String> {
    let number = digits.text.as_bytes();
    let (sign_of, fill) = (t.sign, t.fill);
    let mut w = Writer {
        t: &t,
        negative: digits.negative,
        number,
        at: 0,
        pad: digits.pad,
        current: 0,
        count: (t.pre + t.post).wrapping_sub(1),
        sign_written: false,
        inside: false,
        sign: sign_of,
        brackets: t.brackets,
        last: None,
        out: String::new(),
        ended: false,
    };
    if t.roman {
        // Everything but FM is forgotten.
        (w.sign, w.brackets, w.count) = (None, false, 0);
    } else if t.plus || t.minus {
        // PL alone leaves a minus to the number; MI and SG write it themselves.
        w.sign_written = t.minus;
    } else {
        w.brackets &= w.negative || !fill;
        w.sign_written = !w.negative && fill && w.sign.is_none();
        if w.sign == Some(SignPlace::Before) && t.pre == t.digits_before_sign {
            w.sign = Some(SignPlace::After);
        }
    }
    if fill && t.point && !t.roman {
        w.last = last_relevant(number);
        if let Some(last) = w.last
            && t.zero_end > w.pad
        {
            // Zeros the template asks for stay.
            w.last = Some(last.max((number.len() - 1).min(t.zero_end - w.pad)));
        }
    }
    if !w.sign_written && w.pad == 0 {
        w.count = w.count.wrapping_add(1);
    }
    w.run()?;
    Ok(w.out)
}

/// The last digit after the point that is not 0; the point itself if all are; None without a point.
fn last_relevant(number: &[u8]) -> Option<usize> {
    let point = number.iter().position(|b| *b == b'.')?;
    Some((point + 1..number.len()).rev().find(|i| number[*i] != b'0').unwrap_or(point))
}

impl Writer<'_> {
    fn run(&mut self) -> Result<()> {
        for piece in &self.t.pieces {
            if self.ended {
                break;
            }
            match piece {
                Piece::Literal(c) => self.out.push(*c),
                Piece::Key(key) => self.key(*key)?,
            }
        }
        Ok(())
    }

    fn key(&mut self, key: Key) -> Result<()> {
        let (fill, roman) = (self.t.fill, self.t.roman);
        match key {
            Key::Nine | Key::Zero | Key::Point | Key::Locale if !roman => self.digit(key),
            Key::Comma | Key::Group => {
                if self.inside {
                    self.out.push(',');
                } else if !fill {
                    self.out.push(' ');
                }
            }
            Key::Currency => self.out.push(' '),
            Key::Roman(upper) => {
                let text = String::from_utf8_lossy(self.number);
                let text = if upper { text.into_owned() } else { text.to_ascii_lowercase() };
                self.out.push_str(&if fill { text } else { format!("{text:>15}") });
            }
            Key::Ordinal(_) if roman || self.number.first() == Some(&b'#') || self.negative || self.t.point => {}
            Key::Ordinal(upper) => {
                let suffix = ordinal(&String::from_utf8_lossy(self.number))?;
                self.out.push_str(&if upper { suffix.to_ascii_uppercase() } else { suffix.to_owned() });
            }
            Key::Minus if self.negative => self.out.push('-'),
            Key::Plus if !self.negative && !roman => self.out.push('+'),
            Key::Minus | Key::Plus if !fill => self.out.push(' '),
            // A Roman numeral has no sign at all, and PostgreSQL's text ends here.
            Key::Sign if roman => self.ended = true,
            Key::Sign => self.out.push(self.sign_char()),
            _ => {}
        }
        Ok(())
    }

    fn sign_char(&self) -> char {
        if self.negative { '-' } else { '+' }
    }

    /// `0` before the point where the template has only `9`s: blank in " .1".
    fn is_lone_zero(&self) -> bool {
        !self.t.zero && self.at == 0 && self.number.first() == Some(&b'0') && self.t.post != 0
    }

    fn last_is_point(&self) -> bool {
        self.last.is_some_and(|l| self.number.get(l) == Some(&b'.'))
    }

    fn digit(&mut self, key: Key) {
        let t = self.t;
        let zero_start = t.zero_start.saturating_sub(1);
        self.inside = false;
        let reached = self.current >= self.pad || t.zero && zero_start == self.current;
        if !self.sign_written && reached && (!self.is_lone_zero() || self.last_is_point()) {
            if let Some(place) = self.sign {
                if place == SignPlace::Before {
                    self.out.push(self.sign_char());
                    self.sign_written = true;
                }
            } else if self.brackets {
                self.out.push(if self.negative { '<' } else { ' ' });
                self.sign_written = true;
            } else {
                if self.negative {
                    self.out.push('-');
                } else if !t.fill {
                    self.out.push(' ');
                }
                self.sign_written = true;
            }
        }

        if self.current < self.pad && (zero_start > self.current || !t.zero) {
            if !t.fill {
                self.out.push(' ');
            }
        } else if self.current < self.pad {
            self.out.push('0');
            self.inside = true;
        } else {
            match self.number.get(self.at) {
                Some(b'.') => {
                    if !self.last_is_point() || t.fill {
                        self.out.push('.');
                    }
                }
                _ if self.last.is_some_and(|l| self.at > l) && key != Key::Zero => {}
                _ if self.is_lone_zero() => {
                    if !t.fill {
                        self.out.push(' ');
                    } else if self.last_is_point() {
                        self.out.push('0');
                    }
                }
                Some(digit) => {
                    self.out.push(char::from(*digit));
                    self.inside = true;
                }
                None => self.ended = true,
            }
            if self.at < self.number.len() {
                self.at += 1;
            }
        }

        let mut end = self.count.wrapping_add(usize::from(self.pad != 0)).wrapping_add(usize::from(t.point));
        if self.last == Some(self.at) {
            end = self.current;
        }
        if self.current.wrapping_add(1) == end && !self.ended {
            if self.sign_written && self.brackets {
                self.out.push(if self.negative { '>' } else { ' ' });
            } else if self.sign == Some(SignPlace::After) {
                self.out.push(self.sign_char());
            }
        }
        self.current += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roman_numerals() {
        for (n, text) in [(1, "I"), (4, "IV"), (1994, "MCMXCIV"), (3999, "MMMCMXCIX")] {
            assert_eq!(roman(n), text);
        }
        assert_eq!(roman(4000), "#".repeat(15));
    }

    #[test]
    fn keywords_keep_to_one_case() {
        assert_eq!(keyword("fm99"), Some((2, Key::Fill)));
        assert_eq!(keyword("Fm99"), None);
    }
}
