//! A transaction: a snapshot, and private writes over it.

use std::sync::Arc;

use bytes::Bytes;

use super::conflict;
use super::reads::Reads;
use super::record;
use super::snapshot::Snapshot;
use super::spill::Scratch;
use super::view::{ReadView, ViewScan};
use super::writes::WriteSet;
use crate::bee::{Direction, KeyRange};
use crate::error::{Error, Result};
use crate::hypercore::append::BLOCK_BYTES_MAX;
use crate::position::Version;

/// The most bytes a key and its value can have together: what a block can, less its tree nodes.
pub const ENTRY_BYTES_MAX: usize = BLOCK_BYTES_MAX - (64 << 10);

/// A snapshot and a private write set over it. Made by [`Database::begin`](super::Database::begin),
/// ended by [`Database::commit`](super::Database::commit) or by dropping it, which rolls it back.
///
/// It belongs to one session, takes no lock, and sees nothing of others' writes until
/// [`refresh`](Transaction::refresh) gives it a newer snapshot.
pub struct Transaction {
    base: Snapshot,
    writes: WriteSet,
    /// What it relied on beside its writes.
    reads: Option<Reads>,
    /// All it reads is relied on.
    is_recording: bool,
    scratch: Arc<Scratch>,
}

impl Transaction {
    pub(crate) fn new(base: Snapshot, scratch: Arc<Scratch>, bytes_max: usize) -> Transaction {
        let writes = WriteSet::new(scratch.clone(), bytes_max);
        Transaction { base, writes, reads: None, is_recording: false, scratch }
    }

    /// The committed version it reads.
    pub fn base(&self) -> &Snapshot {
        &self.base
    }

    /// Reads a newer version from now on: a snapshot a statement is READ COMMITTED. What was written
    /// before keeps the version it was based on, so a change by another since then is still a conflict.
    pub fn refresh(&mut self, base: Snapshot) {
        self.base = base;
    }

    /// The snapshot and all own writes so far. Later writes do not show in it: a statement reads
    /// through a view taken at its start.
    pub fn view(&self) -> ReadView {
        let view = ReadView::new(self.base.clone(), self.writes.freeze());
        match &self.reads {
            Some(reads) if self.is_recording => view.recording(reads),
            _ => view,
        }
    }

    /// The value of a key, own writes up to this moment included. Also a statement's own: for the checks
    /// it makes of itself, such as uniqueness.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica, and those of storage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.writes.get(key)? {
            Some(write) => Ok(write.value),
            None => {
                if let Some(reads) = self.reads.as_ref().filter(|_| self.is_recording) {
                    reads.key(Bytes::copy_from_slice(key), self.base.version());
                }
                self.base.get(key)
            }
        }
    }

    /// A range in order, with own writes as they are at this moment.
    ///
    /// # Errors
    ///
    /// Those of reading spilled writes.
    pub fn scan(&self, range: KeyRange, direction: Direction) -> Result<ViewScan> {
        self.view().scan(range, direction)
    }

    /// Sets a key. Whether it exists is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when key and value together exceed [`ENTRY_BYTES_MAX`], or the key is the commit
    /// record's. [`Error::Storage`] when the writes outgrow memory and cannot be put aside; the transaction
    /// is still sound.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        check(&key, value.len())?;
        self.writes.put(key, Some(value), self.base.version())
    }

    /// Removes a key. Whether it exists is not looked at.
    ///
    /// # Errors
    ///
    /// As [`put`](Transaction::put).
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        check(&key, 0)?;
        self.writes.put(key, None, self.base.version())
    }

    /// Sets a key that nobody else can write before this transaction ends, because the caller holds a lock on
    /// it that every other writer would need: the commit does not look whether it changed since. A plain write
    /// of the same key before or after it in this transaction is still checked.
    ///
    /// # Errors
    ///
    /// As [`put`](Transaction::put).
    pub fn put_guarded(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        check(&key, value.len())?;
        self.writes.put(key, Some(value), conflict::GUARDED)
    }

    /// Removes a key under a lock, as [`put_guarded`](Transaction::put_guarded) sets one.
    ///
    /// # Errors
    ///
    /// As [`put`](Transaction::put).
    pub fn delete_guarded(&mut self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        check(&key, 0)?;
        self.writes.put(key, None, conflict::GUARDED)
    }

    /// What this transaction itself last did to a key, a running statement's writes included: `None` when it
    /// did not write it, `Some(None)` when it removed it. Reads nothing of the database.
    ///
    /// # Errors
    ///
    /// Those of reading spilled writes.
    pub fn own(&self, key: &[u8]) -> Result<Option<Option<Bytes>>> {
        Ok(self.writes.get(key)?.map(|write| write.value))
    }

    /// Whether there is nothing to commit.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many keys are written; a key written again after a view was taken may count again.
    pub fn changes(&self) -> usize {
        self.writes.len()
    }

    /// Begins a statement: what it writes can be dropped as one. Statements may nest.
    pub fn begin_statement(&mut self) {
        self.writes.begin_statement();
    }

    /// Keeps what the running statement wrote, as the transaction's own. O(log n) for each of its writes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when no statement is running.
    pub fn end_statement(&mut self) -> Result<()> {
        self.writes.end_statement()
    }

    /// Drops what the running statement wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when no statement is running.
    pub fn abort_statement(&mut self) -> Result<()> {
        self.writes.abort_statement()
    }

    /// Marks a place to go back to. Names may repeat: the newest hides the others until it is released.
    pub fn savepoint(&mut self, name: &str) {
        self.writes.savepoint(name);
    }

    /// Drops what was written since the newest savepoint of that name, and the savepoints after it. The
    /// savepoint itself stays. What the transaction relied on stays relied on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such savepoint.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        self.writes.rollback_to(name)
    }

    /// Forgets the newest savepoint of that name and those after it, and keeps what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such savepoint.
    pub fn release(&mut self, name: &str) -> Result<()> {
        self.writes.release(name)
    }

    /// Whether there is a savepoint of that name.
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.writes.has_savepoint(name)
    }

    /// Makes it SERIALIZABLE: what is read through its views and by [`get`](Transaction::get) from now on, and what is in
    /// `reads` already, may not have changed when it commits; else the commit fails with [`Error::ReadConflict`]. A
    /// transaction that writes nothing checks nothing: its snapshot is a serial moment.
    pub fn record(&mut self, reads: &Reads) {
        if let Some(known) = self.reads.take().filter(|known| !known.is_same(reads)) {
            known.with(|relied| {
                relied.keys().for_each(|(key, seen)| reads.key(key.clone(), seen));
                relied.ranges().for_each(|(range, seen)| reads.range(range.clone(), seen));
            });
        }
        self.reads = Some(reads.clone());
        self.is_recording = true;
    }

    /// Whether all it reads is relied on.
    pub fn is_recording(&self) -> bool {
        self.is_recording
    }

    /// The commit fails if this key changes after the version read now, with [`Error::Conflict`], or
    /// [`Error::ReadConflict`] when it [records](Transaction::record).
    pub fn depend_key(&mut self, key: impl Into<Bytes>) {
        let seen = self.base.version();
        self.reads.get_or_insert_default().key(key.into(), seen);
    }

    /// The commit fails, as with [`depend_key`](Transaction::depend_key), if anything in this range changes, comes or
    /// goes after the version read now.
    pub fn depend_range(&mut self, range: KeyRange) {
        let seen = self.base.version();
        self.reads.get_or_insert_default().range(range, seen);
    }

    pub(crate) fn writes(&self) -> &WriteSet {
        &self.writes
    }

    /// What it relied on so far, beside its writes.
    pub fn reads(&self) -> Option<&Reads> {
        self.reads.as_ref()
    }

    pub(crate) fn version(&self) -> Version {
        self.base.version()
    }

    /// Whether it was begun on the database with this scratch space.
    pub(crate) fn is_of(&self, scratch: &Arc<Scratch>) -> bool {
        Arc::ptr_eq(&self.scratch, scratch)
    }
}

/// What cannot be committed is refused where it is written, for at the commit it would fail others, too.
fn check(key: &[u8], value_bytes: usize) -> Result<()> {
    let bytes = key.len() + value_bytes;
    if bytes > ENTRY_BYTES_MAX {
        return Err(Error::Invalid(format!("an entry of {bytes} bytes; at most {ENTRY_BYTES_MAX} are possible")));
    }
    // A block with this key ends a version, wherever it stands.
    if key == record::KEY {
        return Err(Error::invalid("key 06 is kept for commit records"));
    }
    Ok(())
}
