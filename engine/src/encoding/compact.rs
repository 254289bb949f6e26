//! compact-encoding: the primitives of every hypercore record and message.
//!
//! ```text
//! uint             n <= fc: one byte; else fd u16le; fe u32le; ff u64le (the shortest when writing)
//! int              zig-zag (0 -1 1 -2 -> 0 1 2 3), then uint
//! buffer, string   uint byte length, bytes             an optional buffer: 00 is absent
//! fixed            bytes, no length
//! array            uint count, items                   at most 2^20 when reading
//! frame            uint byte length, one message
//! bool             one byte, only 01 is true
//! uint32array      uint words, words u32le
//! lexint           a uint that sorts as bytes (for keys)
//! ```
//!
//! Longer forms of small numbers are read, never written. Messages may carry trailing bytes of a newer
//! version: [`Decoder`] reads what it knows, and whoever wants nothing behind asks [`Decoder::finish`].
//!
//! Decoding is given bytes of strangers: it never panics and never allocates more than the input could
//! fill. Source: holepunchto/compact-encoding `index.js`.

use std::fmt;

/// The largest count that an array may claim, as in JavaScript.
pub const ARRAY_ITEMS_MAX: u64 = 0x10_0000;

/// The largest number JavaScript peers decode from a fixed 64-bit field.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// What was wrong with bytes that should have been a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The message ends inside a value.
    OutOfBounds,
    /// A number beyond what the format allows.
    TooLarge,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A value that the format does not know.
    Unknown(&'static str),
    /// Bytes behind the end of the message.
    Trailing,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::OutOfBounds => f.write_str("the message ends inside a value"),
            DecodeError::TooLarge => f.write_str("a number is too large"),
            DecodeError::NotUtf8 => f.write_str("text is not UTF-8"),
            DecodeError::Unknown(what) => write!(f, "unknown {what}"),
            DecodeError::Trailing => f.write_str("bytes behind the end of the message"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads values from the front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

type Result<T> = std::result::Result<T, DecodeError>;

impl<'a> Decoder<'a> {
    /// Reads from the first byte on.
    pub fn new(message: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: message }
    }

    /// What is not yet read: compact-encoding's `raw`.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses trailing bytes.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    /// So many raw bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::OutOfBounds)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Raw bytes of a length known at compile time: `fixed32`, `fixed64`.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::OutOfBounds)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// One byte.
    pub fn uint8(&mut self) -> Result<u8> {
        Ok(self.fixed::<1>()?[0])
    }

    /// A fixed little-endian u32.
    pub fn uint32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// A fixed little-endian u64 of at most 2^53 - 1, as JavaScript reads it.
    pub fn uint64(&mut self) -> Result<u64> {
        let n = self.fixed().map(u64::from_le_bytes)?;
        if n > SAFE_INTEGER_MAX { Err(DecodeError::TooLarge) } else { Ok(n) }
    }

    /// A variable-length number. Values above 2^53 - 1, which no JavaScript peer can write, are refused.
    pub fn uint(&mut self) -> Result<u64> {
        let n = self.wide_uint()?;
        if n > SAFE_INTEGER_MAX { Err(DecodeError::TooLarge) } else { Ok(n) }
    }

    /// A variable-length number of any size: for what no JavaScript peer has to read.
    pub fn wide_uint(&mut self) -> Result<u64> {
        match self.uint8()? {
            0xfd => self.fixed().map(|bytes| u16::from_le_bytes(bytes).into()),
            0xfe => self.fixed().map(|bytes| u32::from_le_bytes(bytes).into()),
            0xff => self.fixed().map(u64::from_le_bytes),
            n => Ok(n.into()),
        }
    }

    /// A variable-length number that indexes memory.
    pub fn size(&mut self) -> Result<usize> {
        usize::try_from(self.uint()?).map_err(|_| DecodeError::TooLarge)
    }

    /// A zig-zag number.
    pub fn int(&mut self) -> Result<i64> {
        self.uint().map(unzigzag)
    }

    /// A zig-zag number of any size: see [`wide_uint`](Decoder::wide_uint).
    pub fn wide_int(&mut self) -> Result<i64> {
        self.wide_uint().map(unzigzag)
    }

    /// Bytes behind their length.
    pub fn buffer(&mut self) -> Result<&'a [u8]> {
        let len = self.size()?;
        self.bytes(len)
    }

    /// Bytes behind their length; none is absent.
    pub fn optional_buffer(&mut self) -> Result<Option<&'a [u8]>> {
        let bytes = self.buffer()?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// UTF-8 behind its length in bytes.
    pub fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.buffer()?).map_err(|_| DecodeError::NotUtf8)
    }

    /// Only `01` is true.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.uint8()? == 1)
    }

    /// A message of its own behind its length.
    pub fn frame(&mut self) -> Result<Decoder<'a>> {
        self.buffer().map(Decoder::new)
    }

    /// A count, then so many items. An item may be empty, so the count alone reserves nothing.
    pub fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.uint()?;
        if count > ARRAY_ITEMS_MAX {
            return Err(DecodeError::TooLarge);
        }
        let mut items = Vec::with_capacity((count as usize).min(self.rest.len()).min(1024));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A number of words, then the words.
    pub fn uint32_array(&mut self) -> Result<Vec<u32>> {
        let words = self.size()?;
        let len = words.checked_mul(4).ok_or(DecodeError::TooLarge)?;
        let bytes = self.bytes(len)?;
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(bytes.chunks_exact(4).map(word).collect())
    }

    /// A number whose bytes sort as it does; see [`lexint`].
    pub fn lexint(&mut self) -> Result<u64> {
        let mut big_endian =
            |len: usize| -> Result<u64> { Ok(self.bytes(len)?.iter().fold(0, |n, &byte| n << 8 | u64::from(byte))) };
        let first = big_endian(1)?;
        match first {
            0..=250 => Ok(first),
            251..=254 => Ok(big_endian(first as usize - 250)? + 251),
            _ => {
                let exponent = big_endian(1)? as u8 as i8;
                let mantissa = big_endian(6)?;
                let shift = 11 - i32::from(exponent);
                let n = match shift {
                    0..=63 => mantissa >> shift,
                    -15..0 => mantissa << -shift,
                    _ => return Err(DecodeError::TooLarge),
                };
                n.checked_add(251).filter(|&n| n <= SAFE_INTEGER_MAX).ok_or(DecodeError::TooLarge)
            }
        }
    }
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Append a variable-length number in its shortest form.
pub fn uint(out: &mut Vec<u8>, n: u64) {
    match n {
        0..=0xfc => out.push(n as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(n as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(n as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// How many bytes [`uint`] appends.
pub fn uint_len(n: u64) -> usize {
    match n {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Append a zig-zag number.
pub fn int(out: &mut Vec<u8>, n: i64) {
    uint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Append a fixed little-endian u64.
pub fn uint64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

/// Append bytes behind their length. Empty is how an absent optional buffer is written, too.
pub fn buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Append text behind its length in bytes.
pub fn string(out: &mut Vec<u8>, text: &str) {
    buffer(out, text.as_bytes());
}

/// Append a truth value.
pub fn bool(out: &mut Vec<u8>, truth: bool) {
    out.push(truth.into());
}

/// Append a count and so many items.
pub fn array<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    uint(out, items.len() as u64);
    for it in items {
        item(out, it);
    }
}

/// Append a message behind its length.
pub fn frame(out: &mut Vec<u8>, message: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    message(&mut inner);
    buffer(out, &inner);
}

/// Append a number of words and the words.
pub fn uint32_array(out: &mut Vec<u8>, words: &[u32]) {
    uint(out, words.len() as u64);
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Append a number whose bytes sort as it does: one byte up to 250, then `fb` to `fe` and 1 to 4 bytes
/// of `n - 251`, big-endian; from 2^32 on `ff`, an exponent and a 48-bit mantissa, as in JavaScript.
pub fn lexint(out: &mut Vec<u8>, n: u64) {
    let rest = n.saturating_sub(251);
    let bytes = rest.to_be_bytes();
    match n {
        0..=250 => out.push(n as u8),
        251..=0xff => out.extend_from_slice(&[251, bytes[7]]),
        0x100..=0xffff => out.extend_from_slice(&[252, bytes[6], bytes[7]]),
        0x1_0000..=0xff_ffff => out.extend_from_slice(&[253, bytes[5], bytes[6], bytes[7]]),
        0x100_0000..=0xffff_ffff => {
            out.push(254);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            // Just above 2^32 the rest is still below it, and JavaScript's exponent is -1.
            let exponent = rest.ilog2() as i32 - 32;
            let shift = 11 - exponent;
            let mantissa = if shift >= 0 { rest << shift } else { rest >> -shift };
            out.extend_from_slice(&[255, exponent as u8]);
            out.extend_from_slice(&mantissa.to_be_bytes()[2..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_lengths_are_refused_without_allocating() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert_eq!(Decoder::new(&huge).buffer(), Err(DecodeError::OutOfBounds));
        assert_eq!(Decoder::new(&huge).uint32_array(), Err(DecodeError::OutOfBounds));
        assert_eq!(Decoder::new(&huge).array(|d| d.uint()), Err(DecodeError::TooLarge));
        assert_eq!(Decoder::new(&[0xff; 9]).uint(), Err(DecodeError::TooLarge));
        assert_eq!(Decoder::new(&[1, 0xff]).string(), Err(DecodeError::NotUtf8));
        assert_eq!(Decoder::new(&[1]).finish(), Err(DecodeError::Trailing));
    }

    proptest! {
        #[test]
        fn numbers_round_trip(n in 0..=SAFE_INTEGER_MAX, shift in 0..53u32) {
            let n = n >> shift;
            let mut out = Vec::new();
            uint(&mut out, n);
            prop_assert_eq!(out.len(), uint_len(n));
            prop_assert_eq!(Decoder::new(&out).uint(), Ok(n));
            let mut out = Vec::new();
            int(&mut out, n as i64 / -2);
            prop_assert_eq!(Decoder::new(&out).int(), Ok(n as i64 / -2));
        }

        #[test]
        fn wide_numbers_round_trip(n: u64, signed: i64) {
            let mut out = Vec::new();
            uint(&mut out, n);
            int(&mut out, signed);
            let mut d = Decoder::new(&out);
            prop_assert_eq!((d.wide_uint(), d.wide_int(), d.finish()), (Ok(n), Ok(signed), Ok(())));
            prop_assert_eq!(Decoder::new(&out).uint().is_ok(), n <= SAFE_INTEGER_MAX);
        }

        #[test]
        fn lexints_round_trip_and_sort(a in 0..1u64 << 43, b in 0..1u64 << 43, sa in 0..43u32, sb in 0..43u32) {
            let (a, b) = (a >> sa, b >> sb);
            let pack = |n| { let mut out = Vec::new(); lexint(&mut out, n); out };
            prop_assert_eq!(Decoder::new(&pack(a)).lexint(), Ok(a));
            // JavaScript writes the 251 numbers from 2^32 on with exponent -1, which sorts as 255.
            let odd = |n: u64| n >> 32 == 1 && n - (1 << 32) < 251;
            if !odd(a) && !odd(b) {
                prop_assert_eq!(pack(a).cmp(&pack(b)), a.cmp(&b));
            }
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut d = Decoder::new(&bytes);
            let _ = (d.uint(), d.int(), d.buffer(), d.string(), d.bool(), d.lexint(), d.uint32_array());
            let _ = Decoder::new(&bytes).array(|d| d.frame());
        }
    }
}
