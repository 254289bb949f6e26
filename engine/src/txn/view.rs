//! What a statement reads: a version, and the transaction's own writes so far, both standing still.

use std::cmp::Ordering;
use std::mem;

use bytes::Bytes;

use super::chunk::{Chunk, WriteScan};
use super::reads::{Reads, Recorder};
use super::snapshot::{Scan, Snapshot, value_of};
use crate::bee::{Direction, Entry, KeyRange};
use crate::error::Result;
use crate::position::Version;

/// A snapshot with some uncommitted writes laid over it. It never changes: what the transaction writes
/// after the view was taken is not in it, so a statement that reads through a view taken at its start
/// does not see its own writes (it cannot, say, update a row twice because the update moved it ahead).
///
/// Cheap to clone and to send to other threads. Holding one costs the memory of the writes it shows.
#[derive(Clone)]
pub struct ReadView {
    snapshot: Snapshot,
    /// Newest first.
    chunks: Vec<Chunk>,
    /// Where it is remembered what was read of the snapshot.
    reads: Option<Reads>,
}

impl From<Snapshot> for ReadView {
    fn from(snapshot: Snapshot) -> ReadView {
        ReadView::new(snapshot, Vec::new())
    }
}

impl ReadView {
    pub(crate) fn new(snapshot: Snapshot, chunks: Vec<Chunk>) -> ReadView {
        ReadView { snapshot, chunks, reads: None }
    }

    /// The same view, remembering what is read through it: [`Reads`].
    pub fn recording(self, reads: &Reads) -> ReadView {
        ReadView { reads: Some(reads.clone()), ..self }
    }

    /// The same view, remembering nothing: for what decides nothing the transaction's outcome depends on.
    pub fn unrecorded(self) -> ReadView {
        ReadView { reads: None, ..self }
    }

    /// The version beneath the uncommitted writes.
    pub fn version(&self) -> Version {
        self.snapshot.version()
    }

    /// The version beneath the uncommitted writes, to read without them, and without it being remembered.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether uncommitted writes lie over the snapshot.
    pub fn has_writes(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// The value of a key. A null value, which only a foreign bee has, reads as empty.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`](crate::Error::MissingBlock) on a replica, and those of storage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        for chunk in &self.chunks {
            if let Some(write) = chunk.get(key)? {
                return Ok(write.value);
            }
        }
        self.record_key(key);
        self.snapshot.get(key)
    }

    /// The values of several keys. On a replica they take about as many rounds of waiting as one.
    ///
    /// # Errors
    ///
    /// As [`get`](ReadView::get).
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        if self.chunks.is_empty() {
            keys.iter().for_each(|key| self.record_key(key.as_ref()));
            return self.snapshot.get_many(keys);
        }
        let mut values = Vec::with_capacity(keys.len());
        let mut committed = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let mut write = None;
            for chunk in &self.chunks {
                write = chunk.get(key.as_ref())?;
                if write.is_some() {
                    break;
                }
            }
            if write.is_none() {
                committed.push(i);
            }
            values.push(write.and_then(|write| write.value));
        }
        let beneath: Vec<&[u8]> = committed.iter().map(|&i| keys[i].as_ref()).collect();
        beneath.iter().for_each(|key| self.record_key(key));
        for (i, value) in committed.iter().zip(self.snapshot.get_many(&beneath)?) {
            values[*i] = value;
        }
        Ok(values)
    }

    /// Keys and values of a range in order. Where the range has no uncommitted writes it is as fast as
    /// a scan of the snapshot.
    ///
    /// # Errors
    ///
    /// Those of reading spilled writes.
    pub fn scan(&self, range: KeyRange, direction: Direction) -> Result<ViewScan> {
        let own = WriteScan::new(self.chunks.iter().cloned(), &range, direction)?;
        let recorder = self.recorder(&range, direction);
        Ok(ViewScan::new(own, self.snapshot.scan(range, direction), direction, recorder))
    }

    /// The keys of a range in order; the values are left empty and, where the format allows it, unread.
    ///
    /// # Errors
    ///
    /// Those of reading spilled writes.
    pub fn scan_keys(&self, range: KeyRange, direction: Direction) -> Result<ViewScan> {
        let own = WriteScan::new(self.chunks.iter().cloned(), &range, direction)?;
        let recorder = self.recorder(&range, direction);
        let mut scan = ViewScan::new(own, self.snapshot.scan_keys(range, direction), direction, recorder);
        scan.is_keys_only = true;
        Ok(scan)
    }

    /// A range is relied on as if it had been read to its end: for who reads it, or how it came to be, in another way.
    pub fn rely_on(&self, range: KeyRange) {
        if let Some(reads) = &self.reads {
            reads.range(range, self.snapshot.version());
        }
    }

    fn record_key(&self, key: &[u8]) {
        if let Some(reads) = &self.reads {
            reads.key(Bytes::copy_from_slice(key), self.snapshot.version());
        }
    }

    fn recorder(&self, range: &KeyRange, direction: Direction) -> Option<Recorder> {
        let record = |reads: &Reads| Recorder::new(reads.clone(), range.clone(), direction, self.snapshot.version());
        self.reads.as_ref().map(record)
    }
}

/// An ordered read of a [`ReadView`]. It holds what it reads: the view may be dropped.
///
/// After an error it keeps its place: call again, say when the missing block has come.
pub struct ViewScan {
    /// `None` once no uncommitted write is left: then the committed entries are passed on as they are.
    own: Option<WriteScan>,
    committed: Scan,
    /// Read from `committed` and not yet returned.
    ahead: Option<Entry>,
    direction: Direction,
    is_keys_only: bool,
    /// Kept for its memory only.
    entries: Vec<Entry>,
    /// Where it is told how far was read.
    recorder: Option<Recorder>,
}

impl ViewScan {
    fn new(own: WriteScan, committed: Scan, direction: Direction, recorder: Option<Recorder>) -> ViewScan {
        ViewScan {
            own: (!own.is_done()).then_some(own),
            committed,
            ahead: None,
            direction,
            is_keys_only: false,
            entries: Vec::new(),
            recorder,
        }
    }

    /// Tells how many entries the caller will want at most, where that is known: see [`Cursor::expecting`](crate::bee::Cursor::expecting).
    pub fn expecting(mut self, entries: u64) -> ViewScan {
        self.committed = self.committed.expecting(entries);
        self
    }

    /// The next key and value; `None` at the end of the range.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`](crate::Error::MissingBlock) on a replica, and those of storage.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at an error, this resumes")]
    pub fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let found = self.read_next()?;
        if let Some(recorder) = &mut self.recorder {
            match &found {
                Some((key, _)) => recorder.reached(key),
                None => recorder.ended(),
            }
        }
        Ok(found)
    }

    fn read_next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some(own) = &mut self.own {
            if self.ahead.is_none() {
                self.ahead = self.committed.next()?;
            }
            let Some(written) = own.peek()? else {
                self.own = None;
                break;
            };
            let order = match &self.ahead {
                None => Ordering::Less,
                Some(entry) if self.direction == Direction::Forward => written.cmp(&entry.key),
                Some(entry) => entry.key.cmp(written),
            };
            if order == Ordering::Greater {
                return Ok(self.ahead.take().map(|entry| self.pair(entry)));
            }
            let write = own.next()?;
            if order == Ordering::Equal {
                self.ahead = None; // the committed entry lies beneath the write
            }
            if let Some((key, write)) = write
                && let Some(value) = write.value
            {
                let value = if self.is_keys_only { Bytes::new() } else { value };
                return Ok(Some((key, value)));
            }
        }
        let entry = match self.ahead.take() {
            Some(entry) => Some(entry),
            None => self.committed.next()?,
        };
        Ok(entry.map(|entry| self.pair(entry)))
    }

    /// Appends up to `limit` keys and values to `out` and says how many; 0 at the end of the range.
    ///
    /// # Errors
    ///
    /// As [`next`](ViewScan::next), but only when nothing could be appended: entries read before the
    /// failure are returned first.
    pub fn next_batch(&mut self, out: &mut Vec<(Bytes, Bytes)>, limit: usize) -> Result<usize> {
        let read = self.read_batch(out, limit)?;
        if let Some(recorder) = &mut self.recorder {
            match out.last() {
                Some((key, _)) if read > 0 => recorder.reached(key),
                _ if limit > 0 => recorder.ended(),
                _ => {}
            }
        }
        Ok(read)
    }

    fn read_batch(&mut self, out: &mut Vec<(Bytes, Bytes)>, limit: usize) -> Result<usize> {
        let before = out.len();
        while out.len() - before < limit {
            if self.own.is_none() && self.ahead.is_none() {
                let mut entries = mem::take(&mut self.entries);
                entries.clear();
                let read = self.committed.next_batch(&mut entries, limit - (out.len() - before));
                out.extend(entries.drain(..).map(|entry| self.pair(entry)));
                self.entries = entries;
                if let Err(error) = read
                    && out.len() == before
                {
                    return Err(error);
                }
                break;
            }
            match self.read_next() {
                Ok(Some(pair)) => out.push(pair),
                Ok(None) => break,
                Err(error) if out.len() == before => return Err(error),
                Err(_) => break,
            }
        }
        Ok(out.len() - before)
    }

    fn pair(&self, entry: Entry) -> (Bytes, Bytes) {
        let value = if self.is_keys_only { Bytes::new() } else { value_of(&entry) };
        (entry.key, value)
    }
}
