//! Values under construction, never larger than a value may be.
//!
//! What a function builds is checked while it grows, so that no call takes more memory than its result and what it is made of:
//! `replace(repeat('a', 1e9), 'a', 'aaaa')` fails at the limit instead of at the machine's.

use super::FnCx;
use crate::error::{Result, SqlError, state};
use crate::types::array::{ELEMENTS_MAX, count_elements};
use crate::types::{Array, Datum, Type};

/// Longest text or bytea: PostgreSQL's MaxAllocSize less the header of a value.
pub(super) const BYTES_MAX: usize = 0x3fff_ffff - 4;

/// Most memory the elements of an array may take, each with what it points to.
const ARRAY_BYTES_MAX: usize = 0x3fff_ffff;

/// What a shared text or bytea takes besides its bytes: its counts.
const SHARED_BYTES: usize = 16;

/// Steps of a loop inside one call between two looks for a cancel.
const STEPS: usize = 1 << 16;

/// 54000: a text or bytea would be too long.
pub(super) fn too_large() -> SqlError {
    SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

/// Refuses a length that no text or bytea has.
pub(super) fn check_len(len: usize) -> Result<()> {
    if len > BYTES_MAX { Err(too_large()) } else { Ok(()) }
}

/// A text being built.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// An empty one with room for about this many bytes, if there may be so many.
    pub fn with_capacity(bytes: usize) -> Result<Text> {
        check_len(bytes)?;
        Ok(Text(String::with_capacity(bytes)))
    }
    /// Makes room for more, twice as much as there is but no more than a text may have.
    fn room(&mut self, more: usize) -> Result<()> {
        let (len, room) = (self.0.len(), self.0.capacity());
        check_len(len.saturating_add(more))?;
        if room - len < more {
            self.0.reserve_exact(more.max(len.max(64).min(BYTES_MAX - len)));
        }
        Ok(())
    }
    pub fn push_str(&mut self, s: &str) -> Result<()> {
        self.room(s.len())?;
        self.0.push_str(s);
        Ok(())
    }
    pub fn push(&mut self, c: char) -> Result<()> {
        self.room(c.len_utf8())?;
        self.0.push(c);
        Ok(())
    }
    /// So many blanks.
    pub fn blanks(&mut self, count: usize) -> Result<()> {
        self.room(count)?;
        let some = " ".repeat(count.min(STEPS));
        for _ in 0..count / STEPS {
            self.0.push_str(&some);
        }
        self.0.push_str(&some[..count % STEPS]);
        Ok(())
    }
    /// What `write` appends: the text of a value, which is itself of a bounded length.
    pub fn write(&mut self, write: impl FnOnce(&mut String)) -> Result<()> {
        write(&mut self.0);
        check_len(self.0.len())
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn datum(self) -> Datum {
        Datum::text(self.0)
    }
}

/// Texts of known length put one behind the other.
pub(super) fn concat(parts: &[&str]) -> Result<Datum> {
    let mut out = Text::with_capacity(parts.iter().map(|p| p.len()).sum())?;
    parts.iter().try_for_each(|p| out.push_str(p))?;
    Ok(out.datum())
}

/// The same of bytes.
pub(super) fn concat_bytes(parts: &[&[u8]]) -> Result<Datum> {
    check_len(parts.iter().map(|p| p.len()).sum())?;
    Ok(Datum::bytea(parts.concat()))
}

/// The elements of an array being built.
#[derive(Default)]
pub(super) struct Elements {
    values: Vec<Datum>,
    bytes: usize,
}

impl Elements {
    pub fn push(&mut self, value: Datum) -> Result<()> {
        let shared = match &value {
            Datum::Text(s) => s.len() + SHARED_BYTES,
            Datum::Bytea(b) => b.len() + SHARED_BYTES,
            _ => 0,
        };
        self.bytes += size_of::<Datum>() + shared;
        check_array_bytes(self.bytes)?;
        self.values.push(value);
        Ok(())
    }
    pub fn datum(self, elem: Type) -> Datum {
        Array::from_values(elem, self.values).datum()
    }
}

/// How many elements these lengths make, if an array may have so many and hold them in memory.
///
/// # Errors
///
/// 54000 if not.
pub(super) fn count_held(dims: &[(i32, i32)]) -> Result<usize> {
    let count = count_elements(dims)?;
    check_array_bytes(count * size_of::<Datum>())?;
    Ok(count)
}

/// Refuses elements that take more memory than those of an array may.
pub(super) fn check_array_bytes(bytes: usize) -> Result<()> {
    if bytes > ARRAY_BYTES_MAX {
        let message = format!("array size exceeds the maximum allowed ({ELEMENTS_MAX})");
        return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message));
    }
    Ok(())
}

/// Counts the steps of a loop that may be long, and looks for a cancel now and then.
pub(super) struct Steps<'a> {
    cx: &'a FnCx<'a>,
    taken: usize,
}

impl<'a> Steps<'a> {
    pub fn new(cx: &'a FnCx<'a>) -> Steps<'a> {
        Steps { cx, taken: 0 }
    }
    /// One step, or as many as this one is worth.
    pub fn take(&mut self, steps: usize) -> Result<()> {
        self.taken += steps;
        if self.taken >= STEPS {
            self.taken = 0;
            self.cx.session.check_cancel()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_grows_beyond_what_a_value_may_be() {
        let mut text = Text::default();
        text.blanks(10).unwrap();
        assert_eq!(text.blanks(BYTES_MAX - 9).unwrap_err().state(), state::PROGRAM_LIMIT_EXCEEDED);
        assert_eq!(text.blanks(usize::MAX).unwrap_err().state(), state::PROGRAM_LIMIT_EXCEEDED);
        assert_eq!(text.0, " ".repeat(10));
        let mut elements = Elements { values: vec![], bytes: ARRAY_BYTES_MAX - 50 };
        assert!(elements.push(Datum::Int4(1)).is_ok());
        assert_eq!(elements.push(Datum::text("abc")).unwrap_err().state(), state::PROGRAM_LIMIT_EXCEEDED);
        assert_eq!(count_held(&[(44_739_242, 1)]), Ok(44_739_242));
        assert_eq!(count_held(&[(10_000, 1), (10_000, 1)]).unwrap_err().state(), state::PROGRAM_LIMIT_EXCEEDED);
    }
}
