//! Ranges of keys.

use std::ops::Bound;

use bytes::Bytes;

use super::Direction;
use crate::encoding::order::after_prefix;

/// The keys between two bounds. Keys compare as unsigned bytes, a prefix before what it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where the smallest keys of the range lie, whichever way it is read.
    pub start: Bound<Bytes>,
    /// Where the largest keys of the range lie.
    pub end: Bound<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// The keys that begin with these bytes, the bytes themselves among them.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        KeyRange {
            start: Bound::Included(Bytes::copy_from_slice(prefix)),
            end: match after_prefix(prefix) {
                Some(next) => Bound::Excluded(next.into()),
                None => Bound::Unbounded,
            },
        }
    }

    /// One key.
    pub fn point(key: &[u8]) -> KeyRange {
        let key = Bytes::copy_from_slice(key);
        KeyRange { start: Bound::Included(key.clone()), end: Bound::Included(key) }
    }

    /// The keys from `start` up to, and without, `end`.
    pub fn half_open(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: Bound::Included(start.into()), end: Bound::Excluded(end.into()) }
    }

    /// Whether a key lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.after_start(key) && self.before_end(key)
    }

    /// Whether no key can lie in the range. Bounds in the wrong order are an empty range, not an error.
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, Bound::Excluded(end)) => end.is_empty(),
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Excluded(start), Bound::Excluded(end)) => {
                // Nothing lies between a key and the same key with a zero byte behind.
                start >= end || (end.len() == start.len() + 1 && end.starts_with(start) && end.ends_with(&[0]))
            }
            (Bound::Included(start), Bound::Excluded(end)) | (Bound::Excluded(start), Bound::Included(end)) => {
                start >= end
            }
        }
    }

    #[inline]
    pub(crate) fn after_start(&self, key: &[u8]) -> bool {
        match &self.start {
            Bound::Unbounded => true,
            Bound::Included(start) => key >= start.as_ref(),
            Bound::Excluded(start) => key > start.as_ref(),
        }
    }

    #[inline]
    pub(crate) fn before_end(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end.as_ref(),
            Bound::Excluded(end) => key < end.as_ref(),
        }
    }

    /// Whether the key lies before the bound where a read in this direction stops.
    #[inline]
    pub(crate) fn before_stop(&self, key: &[u8], direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.before_end(key),
            Direction::Backward => self.after_start(key),
        }
    }
}

impl Default for KeyRange {
    fn default() -> KeyRange {
        KeyRange::all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(KeyRange::prefix(b"ab").end, Bound::Excluded(Bytes::from_static(b"ac")));
        assert_eq!(KeyRange::prefix(&[0xff]).end, Bound::Unbounded);
        let range = KeyRange::prefix(&[7, 0xff]);
        assert!(range.contains(&[7, 0xff]) && range.contains(&[7, 0xff, 0xff, 9]));
        assert!(!range.contains(&[8]) && !range.contains(&[7, 0xfe, 0xff]));
    }

    #[test]
    fn bounds_in_the_wrong_order_hold_nothing() {
        assert!(KeyRange::half_open(&b"b"[..], &b"a"[..]).is_empty());
        assert!(KeyRange::half_open(&b"b"[..], &b"b"[..]).is_empty());
        assert!(!KeyRange::point(b"b").is_empty());
        assert!(!KeyRange::all().is_empty());
        let between = KeyRange {
            start: Bound::Excluded(Bytes::from_static(b"a")),
            end: Bound::Excluded(Bytes::from_static(b"a\0")),
        };
        assert!(between.is_empty());
    }
}
