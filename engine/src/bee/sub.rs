//! Keys under a prefix as a bee of their own, as JavaScript's `sub` makes them.
//!
//! ```text
//! key in the bee   parent's prefix || name || separator || key in the sub
//! ```
//!
//! Nothing in a block marks a sub: it is a way of writing keys. The separator is one zero byte unless one
//! is given; a given one counts for that sub only, deeper ones use the default again.
//!
//! JavaScript lists all of a sub from behind `prefix || 00` (that key not included) to the last byte of
//! the prefix plus one. So it lists neither the sub's empty key nor its key `00`, though both can be put
//! and got; we list what it lists. Source: `sub` and `encRange` in holepunchto/hyperbee `index.js`.

use std::ops::Bound;

use bytes::Bytes;

use super::{Cursor, Direction, Entry, KeyRange, Snapshot};
use crate::Result;
use crate::encoding::order::after_prefix;

/// A prefix, and how keys are put behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sub {
    prefix: Bytes,
}

impl Sub {
    /// The separator used unless another is given.
    pub const SEPARATOR: &'static [u8] = &[0];

    /// A sub of the whole bee.
    pub fn new(name: &[u8]) -> Sub {
        Sub::with_separator(name, Sub::SEPARATOR)
    }

    /// A sub with a separator of its own.
    pub fn with_separator(name: &[u8], separator: &[u8]) -> Sub {
        Sub { prefix: [name, separator].concat().into() }
    }

    /// A sub inside this one.
    pub fn sub(&self, name: &[u8]) -> Sub {
        Sub { prefix: [&self.prefix[..], name, Sub::SEPARATOR].concat().into() }
    }

    /// The key in the bee: what to put, get or delete there.
    pub fn key(&self, key: &[u8]) -> Bytes {
        [&self.prefix[..], key].concat().into()
    }

    /// The key in the sub, or `None` when the key of the bee is not in it.
    pub fn strip(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.prefix).then(|| key.slice(self.prefix.len()..))
    }

    /// A range of the sub as a range of the bee. An open side ends where JavaScript ends it, see above.
    pub fn range(&self, range: &KeyRange) -> KeyRange {
        let bound = |bound: &Bound<Bytes>| bound.as_ref().map(|key| self.key(key));
        KeyRange {
            start: match bound(&range.start) {
                Bound::Unbounded => Bound::Excluded(self.key(&[0])),
                start => start,
            },
            end: match (bound(&range.end), after_prefix(&self.prefix)) {
                (Bound::Unbounded, Some(next)) => Bound::Excluded(next.into()),
                (end, _) => end,
            },
        }
    }
}

/// A sub at one version.
#[derive(Clone, Debug)]
pub struct SubSnapshot {
    snapshot: Snapshot,
    sub: Sub,
}

impl SubSnapshot {
    pub(crate) fn new(snapshot: Snapshot, sub: Sub) -> SubSnapshot {
        SubSnapshot { snapshot, sub }
    }

    /// The entry of a key of the sub. See [`Snapshot::get`].
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let entry = self.snapshot.get(&self.sub.key(key))?;
        Ok(entry.and_then(|entry| self.sub.within(entry)))
    }

    /// Reads a range of the sub's keys.
    pub fn cursor(&self, range: &KeyRange, direction: Direction) -> SubCursor {
        SubCursor { cursor: self.snapshot.cursor(self.sub.range(range), direction), sub: self.sub.clone() }
    }
}

impl Sub {
    fn within(&self, mut entry: Entry) -> Option<Entry> {
        entry.key = self.strip(&entry.key)?;
        Some(entry)
    }
}

/// A [`Cursor`] that gives the sub's own keys.
#[derive(Debug)]
pub struct SubCursor {
    cursor: Cursor,
    sub: Sub,
}

impl SubCursor {
    /// The next entry of the range. Bounds reach into neighbouring subs only when the caller's do.
    ///
    /// # Errors
    ///
    /// As [`Cursor::next`].
    #[allow(clippy::should_implement_trait)] // An iterator would have to end after an error.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        while let Some(entry) = self.cursor.next()? {
            if let Some(entry) = self.sub.within(entry) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
