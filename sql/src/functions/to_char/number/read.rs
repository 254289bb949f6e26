//! Reading numbers by template: `to_number`.
//!
//! Reading is lenient: what the template has and the text has not is passed over, and digits in excess are not read.

use super::{Key, Piece, Template, power_of_ten};
use crate::error::{Result, SqlError, state};
use crate::types::Numeric;
use crate::types::numeric::pack_typmod;

/// Reads a number by template. None for an empty template.
pub(in crate::functions::to_char) fn to_number(text: &str, template: &str) -> Result<Option<Numeric>> {
    if template.is_empty() {
        return Ok(None);
    }
    let t = Template::parse(template)?;
    if t.scientific {
        return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, "\"EEEE\" not supported for input"));
    }
    if t.roman {
        return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, "\"RN\" not supported for input"));
    }
    let mut r = Reader { t: &t, text, at: 0, sign: b' ', digits: vec![], pre: 0, post: 0, point: false };
    r.run();
    if r.digits.last() == Some(&b'.') {
        r.digits.pop();
    }
    let plain = format!("{}{}", char::from(r.sign), String::from_utf8_lossy(&r.digits));
    let typmod = pack_typmod((t.pre + t.shift + r.post) as i32, r.post as i32);
    let number = Numeric::parse(&plain)?.apply_typmod(typmod)?;
    if !t.has_shift {
        return Ok(Some(number));
    }
    number.mul(&power_of_ten(-(t.shift as i64))?).map(Some)
}

/// State of the walk over a template when reading.
struct Reader<'a> {
    t: &'a Template,
    text: &'a str,
    at: usize,
    /// Blank until a sign was read.
    sign: u8,
    digits: Vec<u8>,
    /// Digits read before the point, and after it.
    pre: usize,
    post: usize,
    point: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_char(&mut self) {
        self.at += self.text.get(self.at..).and_then(|r| r.chars().next()).map_or(1, char::len_utf8);
    }

    fn run(&mut self) {
        for piece in &self.t.pieces {
            let Some(next) = self.peek() else { break };
            match piece {
                Piece::Literal(_) => self.skip_char(),
                Piece::Key(key) => match key {
                    Key::Nine | Key::Zero | Key::Point | Key::Locale => {
                        self.digit(*key);
                        self.at += 1;
                    }
                    // Nothing is "inside a number" when reading, so with FM commas are not expected.
                    Key::Comma | Key::Group if !self.t.fill && next == b',' => self.at += 1,
                    Key::Currency => self.skip_non_data(1),
                    Key::Ordinal(_) if !self.t.point => self.skip_non_data(2),
                    Key::Minus if next == b'-' => self.take_sign(next),
                    Key::Plus if next == b'+' => self.take_sign(next),
                    Key::Sign if matches!(next, b'-' | b'+') => self.take_sign(next),
                    Key::Minus | Key::Plus | Key::Sign => self.skip_non_data(1),
                    _ => {}
                },
            }
        }
    }

    fn take_sign(&mut self, sign: u8) {
        self.sign = sign;
        self.at += 1;
    }

    /// Skips characters that cannot belong to a number.
    fn skip_non_data(&mut self, count: usize) {
        for _ in 0..count {
            match self.peek() {
                None | Some(b'0'..=b'9' | b'.' | b',' | b'+' | b'-') => break,
                Some(_) => self.skip_char(),
            }
        }
    }

    /// Reads a digit or the point, and the sign before or after them. Leaves `at` on the last character taken: the caller
    /// steps over it, or over a character that was none of these.
    fn digit(&mut self, key: Key) {
        if self.peek() == Some(b' ') {
            self.at += 1;
        }
        let Some(next) = self.peek() else { return };
        if self.sign == b' ' && matches!(key, Key::Nine | Key::Zero) && self.pre + self.post == 0 {
            let negative = next == b'-' || self.t.brackets && next == b'<';
            if negative || next == b'+' {
                self.sign = if negative { b'-' } else { b'+' };
                self.at += 1;
            }
        }
        let Some(next) = self.peek() else { return };
        let mut taken = false;
        if next.is_ascii_digit() {
            if self.point && self.post == self.t.post {
                return;
            }
            self.digits.push(next);
            if self.point {
                self.post += 1;
            } else {
                self.pre += 1;
            }
            taken = true;
        } else if self.t.point && !self.point && next == b'.' {
            self.digits.push(b'.');
            self.point = true;
            taken = true;
        }
        if self.sign != b' ' || self.pre + self.post == 0 {
            return;
        }
        let after = self.text.as_bytes().get(self.at + 1).copied();
        if self.t.sign.is_some() && taken {
            // The sign after the last digit.
            if let Some(sign @ (b'-' | b'+')) = after {
                self.sign = sign;
                self.at += 1;
            }
        } else if !taken && self.t.sign.is_none() && (self.t.plus || self.t.minus) && matches!(next, b'-' | b'+') {
            self.sign = next;
        }
    }
}
