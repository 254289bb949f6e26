//! One ordered, atomic, crash-safe key-value store beneath all logs: [`Backend`].
//!
//! ```text
//! space     key                                value
//! meta      see `key.rs`                       store record, core records, names, heads, bitfield pages
//! block     core id u64be, block index u64be   a checksum and the block
//! tree      core id u64be, last block of chunk a checksum and the Merkle nodes of up to 64 blocks; or one node
//! scratch   the owner's                        spilled writes of open transactions; gone at open
//! ```
//!
//! Three backends, one meaning: [`rocks::Rocks`] on disk, [`memory::Memory`] for tests and throw-away
//! stores, [`faulty::Faulty`] around either, which fails, crashes and forgets when a test says so.
//!
//! What must stay true of each:
//!
//! * a batch is atomic: all of it is there after a crash, or nothing;
//! * batches survive in the order they were written: a crash may cut off the end of the history (those
//!   since the last [`Durability::Sync`]), never take one from its middle;
//! * once `write(batch, Sync)` has returned `Ok`, that batch and all before it survive any crash;
//! * when it returned an error, the batch is there as a whole or not at all, and which of both is not
//!   known: a reader of the store must cope with either;
//! * [`Space::Scratch`] is exempt: it promises nothing across a crash and is empty after opening.

pub mod checksum;
pub mod faulty;
pub mod key;
pub mod memory;
pub mod record;
pub mod rocks;

use std::fmt;

use bytes::Bytes;

use crate::encoding::order::after_prefix;
use crate::error::Result;

/// The store's format: keys, records, spaces. Raised when an older pgbee could not read what we write.
///
/// * 1: cores that are held whole;
/// * 2: single Merkle nodes (replicas), frozen cores. A store of format 1 is read as it is, and becomes one of 2 when opened.
pub const FORMAT_VERSION: u64 = 2;

/// The oldest format that is read.
pub const FORMAT_VERSION_MIN: u64 = 1;

/// A key space with an access pattern of its own (a column family in RocksDB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Small records about the store and its cores, rewritten often.
    Meta,
    /// Blocks: written once, in order, read at random.
    Block,
    /// Merkle nodes: written once, in order, read rarely.
    Tree,
    /// Spilled writes of open transactions: never synced, not in the log, emptied at open.
    Scratch,
}

impl Space {
    /// All of them, in the order of their numbers.
    pub const ALL: [Space; 4] = [Space::Meta, Space::Block, Space::Tree, Space::Scratch];

    /// The name it has in RocksDB.
    pub fn name(self) -> &'static str {
        match self {
            Space::Meta => "meta",
            Space::Block => "block",
            Space::Tree => "tree",
            Space::Scratch => "scratch",
        }
    }
}

/// When a write may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Once it, and all written before it, is on the disk (fsync).
    Sync,
    /// Once it is in the operating system's hands: survives a crash of the process, not of the machine.
    NoSync,
}

/// A half-open range of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key that is inside.
    pub start: Vec<u8>,
    /// The first key that is outside; `None` goes to the end of the space.
    pub end: Option<Vec<u8>>,
}

impl Range {
    /// From `start` up to, and without, `end`.
    pub fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Range {
        Range { start: start.into(), end: Some(end.into()) }
    }

    /// Every key.
    pub fn all() -> Range {
        Range::default()
    }

    /// Every key that begins with these bytes.
    pub fn prefix(prefix: &[u8]) -> Range {
        Range { start: prefix.to_vec(), end: after_prefix(prefix) }
    }

    /// Whether no key can be inside.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Keys and values in order; each may fail to be read.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + Send + 'a>;

/// An ordered key-value store with atomic batches; what it promises is in the module's text.
pub trait Backend: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage), or `Corrupt` where the store's own checksums fail.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>>;

    /// The values of several keys, in the order asked.
    ///
    /// # Errors
    ///
    /// As [`get`](Backend::get); one bad key fails all.
    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        keys.iter().map(|key| self.get(space, key)).collect()
    }

    /// The entries of a range, ascending or (with `reverse`) descending. The scan sees the store as it
    /// was when the scan began.
    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_>;

    /// Write a batch atomically. A batch holds [`Space::Scratch`] alone or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage): whether the batch is there is unknown until the store
    /// is read again.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// Make everything written so far durable.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage): nothing is known of what was not durable before.
    fn sync(&self) -> Result<()>;

    /// Sizes, for monitoring: approximate and cheap.
    fn statistics(&self) -> Statistics;
}

/// Sizes of a store, approximate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes of live data on disk (in memory for [`memory::Memory`]).
    pub live_bytes: u64,
    /// Bytes of all table files, including what compaction has yet to remove.
    pub file_bytes: u64,
    /// Bytes written but not yet in table files.
    pub memtable_bytes: u64,
    /// Bytes in the block cache.
    pub cache_bytes: u64,
    /// Entries by [`Space`], in the order of [`Space::ALL`].
    pub entries: [u64; 4],
    /// Failures of background work (flush, compaction) since opening.
    pub background_errors: u64,
    /// Whether writes are stopped, by a background failure or because compaction is far behind.
    pub is_write_stopped: bool,
}

/// Changes that are applied as one, in the order they were added.
///
/// Keys and values lie in one buffer, so a batch of thousands of blocks is a handful of allocations.
#[derive(Clone, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    changes: Vec<Recorded>,
}

/// One change of a batch, as a backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Set a key.
    Put {
        /// Where.
        space: Space,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Remove a key, if it is there.
    Delete {
        /// Where.
        space: Space,
        /// The key.
        key: &'a [u8],
    },
    /// Remove every key from `start` up to, and without, `end`.
    DeleteRange {
        /// Where.
        space: Space,
        /// The first key removed.
        start: &'a [u8],
        /// The first key kept.
        end: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

/// A change as it lies in the buffer: the key ends at `middle`, the value at `end`, and the key begins
/// where the change before it ended.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    kind: Kind,
    space: Space,
    middle: usize,
    end: usize,
}

/// Sizes only: a batch may hold secret keys.
impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteBatch({} changes, {} bytes)", self.len(), self.byte_len())
    }
}

impl WriteBatch {
    /// Nothing yet.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Nothing yet, with room for so many changes and bytes.
    pub fn with_capacity(changes: usize, bytes: usize) -> WriteBatch {
        WriteBatch { bytes: Vec::with_capacity(bytes), changes: Vec::with_capacity(changes) }
    }

    /// Set a key.
    pub fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.put_parts(space, key, &[value]);
    }

    /// Set a key to the concatenation of some parts, which saves the caller from building it.
    pub fn put_parts(&mut self, space: Space, key: &[u8], value: &[&[u8]]) {
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        for part in value {
            self.bytes.extend_from_slice(part);
        }
        self.record(Kind::Put, space, middle);
    }

    /// Remove a key.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.record(Kind::Delete, space, middle);
    }

    /// Remove every key from `start` up to, and without, `end`.
    pub fn delete_range(&mut self, space: Space, start: &[u8], end: &[u8]) {
        self.bytes.extend_from_slice(start);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(end);
        self.record(Kind::DeleteRange, space, middle);
    }

    /// Add the changes of another batch.
    pub fn append(&mut self, other: &WriteBatch) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let moved =
            |change: &Recorded| Recorded { middle: change.middle + offset, end: change.end + offset, ..*change };
        self.changes.extend(other.changes.iter().map(moved));
    }

    fn record(&mut self, kind: Kind, space: Space, middle: usize) {
        self.changes.push(Recorded { kind, space, middle, end: self.bytes.len() });
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let mut start = 0;
        self.changes.iter().map(move |&Recorded { kind, space, middle, end }| {
            let (key, value) = (&self.bytes[start..middle], &self.bytes[middle..end]);
            start = end;
            match kind {
                Kind::Put => Change::Put { space, key, value },
                Kind::Delete => Change::Delete { space, key },
                Kind::DeleteRange => Change::DeleteRange { space, start: key, end: value },
            }
        })
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it writes to [`Space::Scratch`]. Such a batch must write to nothing else, for it is not
    /// logged: after a crash one half of a mixed batch would be there without the other.
    pub fn is_scratch(&self) -> bool {
        let scratch = self.changes.first().is_some_and(|change| change.space == Space::Scratch);
        debug_assert!(
            self.changes.iter().all(|change| (change.space == Space::Scratch) == scratch),
            "a batch mixes scratch with other spaces"
        );
        scratch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_put_in() {
        let mut batch = WriteBatch::new();
        assert!(batch.is_empty());
        batch.put_parts(Space::Block, b"k", &[b"ab", b"", b"c"]);
        batch.delete(Space::Meta, b"");
        batch.delete_range(Space::Tree, b"a", b"b");
        let mut twice = batch.clone();
        twice.append(&batch);
        let changes: Vec<_> = batch.iter().collect();
        assert_eq!(twice.iter().collect::<Vec<_>>(), [changes.clone(), changes.clone()].concat());
        assert_eq!(
            changes,
            [
                Change::Put { space: Space::Block, key: b"k", value: b"abc" },
                Change::Delete { space: Space::Meta, key: b"" },
                Change::DeleteRange { space: Space::Tree, start: b"a", end: b"b" },
            ]
        );
    }
}
