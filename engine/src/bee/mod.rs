//! The B-tree inside a log: every commit a readable version, byte for byte JavaScript's Hyperbee 2.
//!
//! A bee stores a sorted map in an append-only log. Each block is one operation (a put or a delete) and
//! carries the tree nodes that operation changed; what it did not change it points to, in older blocks.
//! So the newest block of a commit has a root from which the whole map *of that moment* can be reached,
//! and nothing ever overwrites it:
//!
//! ```text
//! block      0        1         2         3         4
//!         header   put a     put b     put a     del b
//!                  root[1]   root[1 2] root[3 2] root[3]      keys are numbers of the blocks that
//! version    1        2         3         4         5         wrote them
//! ```
//!
//! The bytes of a block are drawn in [`block`], the shape of the tree in [`node`]. The rest, in reading
//! order:
//!
//! ```text
//! cache      decoded nodes, their keys resolved once, bounded in bytes, shared by the process
//! readahead  runs of blocks instead of single ones, where a scan moves along the log
//! prefetch   on a replica: what a reader that must wait will need next
//! tree       from a version to its root, from the root to a key
//! cursor     an ordered range, both ways, resumable
//! diff       what differs between two versions, shared subtrees skipped
//! history    what was written, in the order it was written
//! extension  asking peers which blocks a read will touch, and answering them
//! sub        keys under a prefix as a bee of their own
//! arena      the part of the tree a writer has in memory
//! writer     puts and deletes in memory; the blocks that wait to be appended
//! rebalance  deleting: nearest leaf, borrowing, merging
//! batch      what was changed to blocks
//! audit      a whole version checked
//! ```
//!
//! What must stay true:
//!
//! * Blocks are immutable, so caches are never invalidated.
//! * Only the last block of a batch has a root. A length inside a batch is not a version; reading at it
//!   gives some arbitrary part of the tree. Who calls [`Bee::at`] knows which lengths are versions.
//! * Stored bytes may come from strangers: every read ends, in a result or in [`Error::Corrupt`]. A
//!   child never points to a newer block than its parent's, no path is longer than
//!   [`node::DEPTH_MAX`], and cursors refuse keys out of order.
//! * This module does not know where blocks come from: it has a [`BlockSource`]. Where a block is missing it asks the source to fetch it, with all that will be
//!   needed next; if the source does not wait, [`Error::MissingBlock`] passes through with every reader keeping its place. No lock is held meanwhile.
//!
//! [`Error::Corrupt`]: crate::Error::Corrupt
//! [`Error::MissingBlock`]: crate::Error::MissingBlock

mod arena;
mod audit;
mod batch;
pub mod block;
mod cache;
mod cursor;
mod diff;
pub mod extension;
mod history;
pub mod node;
mod prefetch;
mod range;
mod readahead;
mod rebalance;
mod sub;
mod tree;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::hypercore::BlockSource;
use crate::{BlockIndex, Error};

pub use audit::AuditReport;
pub use batch::Batch;
pub use block::{Header, Metadata};
pub use cache::{Cache, CacheStats};
pub use cursor::Cursor;
pub use diff::{Diff, Difference};
pub use history::{Change, History, Operation};
pub use range::KeyRange;
pub use sub::{Sub, SubCursor, SubSnapshot};
pub use tree::{Bee, Snapshot};
pub use writer::{CacheUpdate, Superseded, Writer};

/// A key and its value, as one block holds them. Both are slices of memory shared with the cache: cheap
/// to clone, never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block that wrote the value: two versions agree on a key exactly when they agree on this.
    pub seq: BlockIndex,
    /// The key. Keys compare as unsigned bytes.
    pub key: Bytes,
    /// The value. Hyperbee can store a null, which is neither an empty value nor a missing key. Always
    /// `None` from a cursor that reads keys only.
    pub value: Option<Bytes>,
}

/// Which way an ordered read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the smallest key to the largest, or from the oldest block to the newest.
    Forward,
    /// The other way.
    Backward,
}

/// [`Error::Corrupt`] that names the block.
fn corrupt(block: u64, what: impl Into<String>) -> Error {
    Error::Corrupt { core: None, block: Some(BlockIndex(block)), what: what.into() }
}
