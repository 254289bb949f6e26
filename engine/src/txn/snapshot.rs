//! One committed version, readable for good.

use bytes::Bytes;

use super::history::History;
use super::log::Log;
use crate::bee::{self, Cursor, Direction, Entry, KeyRange};
use crate::error::{Error, Result};
use crate::position::Version;

/// An ordered read of a [`Snapshot`]: the bee's own cursor.
pub type Scan = Cursor;

/// The database at one version. It never changes and nothing waits for it: taking, holding and
/// dropping one is free, and as many as wanted can be read at once.
#[derive(Clone)]
pub struct Snapshot {
    bee: bee::Snapshot,
    log: Log,
}

impl Snapshot {
    pub(crate) fn new(bee: bee::Snapshot, log: Log) -> Snapshot {
        Snapshot { bee, log }
    }

    /// The version it shows.
    pub fn version(&self) -> Version {
        self.bee.version()
    }

    /// The value of a key. A null value, which only a foreign bee has, reads as empty.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica, and those of storage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.bee.get(key)?.as_ref().map(value_of))
    }

    /// The values of several keys, in about as many rounds of waiting on a replica as one takes.
    ///
    /// # Errors
    ///
    /// As [`get`](Snapshot::get).
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        Ok(self.bee.get_many(keys)?.iter().map(|entry| entry.as_ref().map(value_of)).collect())
    }

    /// The entry of a key, which also names the block that wrote it.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica, and those of storage.
    pub fn get_entry(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.bee.get(key)
    }

    /// The entries of a range in order.
    pub fn scan(&self, range: KeyRange, direction: Direction) -> Scan {
        self.bee.cursor(range, direction)
    }

    /// The keys of a range in order; values may be left out.
    pub fn scan_keys(&self, range: KeyRange, direction: Direction) -> Scan {
        self.bee.cursor(range, direction).keys_only()
    }

    /// What differs in a range between an older version and this one, in key order. Costs in proportion
    /// to the differences: what both versions share is skipped. A key written again with the value it
    /// had is reported too.
    pub fn diff(&self, older: &Snapshot, range: KeyRange) -> bee::Diff {
        self.bee.diff(&older.bee, range)
    }

    /// Every write to a range in the commits after `from`, up to and with `to`, oldest first.
    ///
    /// Reads all blocks between the two versions, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `to` is newer than this snapshot.
    pub fn history(&self, range: KeyRange, from: Version, to: Version) -> Result<History> {
        if to > self.version() {
            return Err(Error::invalid(format!("version {to} is newer than {}", self.version())));
        }
        Ok(History::new(self.log.clone(), range, from, to))
    }

    /// The tree beneath.
    pub fn bee(&self) -> &bee::Snapshot {
        &self.bee
    }
}

/// An entry's value, where a null (only a foreign bee has those) counts as empty.
pub(crate) fn value_of(entry: &Entry) -> Bytes {
    entry.value.clone().unwrap_or_default()
}
