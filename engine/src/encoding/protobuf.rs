//! protobuf: the wire format of Hyperbee's blocks and messages.
//!
//! ```text
//! message   fields, in any order; a number seen twice counts for its last place unless it is a list
//! field     varint (number << 3 | wire type), value
//! wire 0    varint                                7 bits a byte, lowest first, high bit: more follow
//! wire 1    8 bytes little-endian
//! wire 2    varint length, bytes                  text, bytes, messages, packed lists
//! wire 5    4 bytes little-endian
//! ```
//!
//! Fields that are not known are skipped. As everywhere in `encoding`, the input may be a stranger's:
//! nothing here panics or allocates. Source: mafintosh/protocol-buffers-encodings `index.js`.

use super::compact::DecodeError;

/// What follows a field's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field; another wire type is an error.
    pub fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(DecodeError::Unknown("wire type for this field")),
        }
    }

    /// The number of a varint field; another wire type is an error.
    pub fn varint(self) -> Result<u64> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(DecodeError::Unknown("wire type for this field")),
        }
    }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Reads fields, or bare varints, from the front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte on.
    pub fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// One varint of at most 64 bits. Longer forms than needed are read, never written.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for (i, &byte) in self.rest.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if i > 9 || (i == 9 && bits > 1) {
                return Err(DecodeError::TooLarge);
            }
            number |= bits << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(number);
            }
        }
        Err(DecodeError::OutOfBounds)
    }

    /// The next field, or `None` at the end of the message.
    pub fn field(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| DecodeError::OutOfBounds)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(DecodeError::Unknown("wire type")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::OutOfBounds)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::OutOfBounds)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// How many bytes [`write_varint`] writes.
pub fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a varint in its shortest form.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length-delimited field.
pub fn write_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    write_varint(out, field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for number in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                write_varint(&mut out, number);
                assert_eq!(out.len(), varint_len(number), "{number}");
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint(), Ok(number));
                assert!(reader.is_empty());
            }
        }
    }

    #[test]
    fn hostile_varints_are_refused() {
        let ten = [0xff; 10];
        assert_eq!(Reader::new(&ten).varint(), Err(DecodeError::TooLarge));
        assert_eq!(Reader::new(&[0x80; 9]).varint(), Err(DecodeError::OutOfBounds));
        assert_eq!(Reader::new(&[]).varint(), Err(DecodeError::OutOfBounds));
        let mut padded = vec![0x80; 9];
        padded.push(0);
        assert_eq!(Reader::new(&padded).varint(), Ok(0));
        padded.insert(0, 0x80);
        assert_eq!(Reader::new(&padded).varint(), Err(DecodeError::TooLarge));
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let mut message = vec![0x08, 0x96, 0x01, 0x11];
        message.extend_from_slice(&7u64.to_le_bytes());
        write_bytes(&mut message, 3, b"abc");
        message.push(0x25);
        message.extend_from_slice(&9u32.to_le_bytes());
        let mut reader = Reader::new(&message);
        assert_eq!(reader.field(), Ok(Some((1, Value::Varint(150)))));
        assert_eq!(reader.field(), Ok(Some((2, Value::Fixed64(7)))));
        assert_eq!(reader.field(), Ok(Some((3, Value::Bytes(b"abc")))));
        assert_eq!(reader.field(), Ok(Some((4, Value::Fixed32(9)))));
        assert_eq!(reader.field(), Ok(None));
    }

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        assert_eq!(Reader::new(&[0x0a, 5, 1]).field(), Err(DecodeError::OutOfBounds));
        let mut huge = vec![0x0a];
        write_varint(&mut huge, u64::MAX);
        assert_eq!(Reader::new(&huge).field(), Err(DecodeError::OutOfBounds));
        assert!(Reader::new(&[0x0b]).field().is_err());
    }
}
