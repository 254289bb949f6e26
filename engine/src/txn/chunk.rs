//! A chunk of uncommitted writes: sorted, in memory or spilled, shared by views while it stands still.
//!
//! Chunks lie on top of each other; what a transaction wrote to a key is what its newest chunk with
//! that key says. A chunk that a view holds is never changed: writes go into a new chunk above it.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::spill::Run;
use crate::bee::{Direction, KeyRange};
use crate::error::Result;
use crate::position::Version;

/// What a map entry costs beside the bytes of key and value, about: two `Bytes`, their allocations, and
/// a share of the tree.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// The last thing a transaction did to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
    /// The version the transaction saw when it first wrote the key: if the key changed after it, the
    /// transaction conflicts.
    pub base: Version,
}

/// Writes on their way through a scan, in its direction.
pub(crate) type Batch = VecDeque<(Bytes, Write)>;

/// Sorted writes in memory.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    entries: BTreeMap<Bytes, Write>,
    bytes: usize,
}

impl Memory {
    /// Writes a key; an earlier write of it keeps its base.
    pub fn put(&mut self, key: Bytes, mut write: Write) {
        self.bytes += value_bytes(&write);
        let key_bytes = key.len();
        match self.entries.entry(key) {
            MapEntry::Vacant(vacant) => {
                self.bytes += key_bytes + ENTRY_OVERHEAD_BYTES;
                vacant.insert(write);
            }
            MapEntry::Occupied(mut occupied) => {
                let earlier = occupied.get();
                self.bytes -= value_bytes(earlier);
                write.base = write.base.min(earlier.base);
                occupied.insert(write);
            }
        }
    }

    /// Adds writes that came before those already here.
    fn put_beneath(&mut self, key: Bytes, write: Write) {
        let bytes = key.len() + ENTRY_OVERHEAD_BYTES + value_bytes(&write);
        match self.entries.entry(key) {
            MapEntry::Vacant(vacant) => {
                self.bytes += bytes;
                vacant.insert(write);
            }
            MapEntry::Occupied(mut occupied) => {
                let later = occupied.get_mut();
                later.base = later.base.min(write.base);
            }
        }
    }

    /// How many keys it writes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Memory used, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All writes in ascending key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Write)> {
        self.entries.iter()
    }
}

fn value_bytes(write: &Write) -> usize {
    write.value.as_ref().map_or(0, Bytes::len)
}

/// A sorted set of writes.
#[derive(Clone)]
pub(crate) enum Chunk {
    /// Still growing, unless a view shares it.
    Memory(Arc<Memory>),
    /// Put aside, never to change.
    Spilled(Arc<Run>),
}

impl Chunk {
    /// How many keys it writes.
    pub fn len(&self) -> usize {
        match self {
            Chunk::Memory(memory) => memory.len(),
            Chunk::Spilled(run) => run.len(),
        }
    }

    /// Memory used, about.
    pub fn bytes(&self) -> usize {
        match self {
            Chunk::Memory(memory) => memory.bytes(),
            Chunk::Spilled(run) => run.bytes(),
        }
    }

    /// What it writes to a key, if anything.
    pub fn get(&self, key: &[u8]) -> Result<Option<Write>> {
        match self {
            Chunk::Memory(memory) => Ok(memory.entries.get(key).cloned()),
            Chunk::Spilled(run) => run.get(key),
        }
    }

    /// Appends up to `limit` writes of the range, in the direction asked; fewer where they would take much
    /// memory. Whether they are the last.
    fn fill(&self, range: &KeyRange, direction: Direction, limit: usize, out: &mut Batch) -> Result<bool> {
        if range.is_empty() {
            return Ok(true); // a BTreeMap panics when asked for some empty ranges
        }
        match self {
            Chunk::Memory(memory) => {
                let bounds = (as_slice(&range.start), as_slice(&range.end));
                let found = memory.entries.range::<[u8], _>(bounds);
                let copy = |(key, write): (&Bytes, &Write)| (key.clone(), write.clone());
                let before = out.len();
                match direction {
                    Direction::Forward => out.extend(found.take(limit).map(copy)),
                    Direction::Backward => out.extend(found.rev().take(limit).map(copy)),
                }
                Ok(out.len() - before < limit)
            }
            Chunk::Spilled(run) => run.fill(range, direction, limit, out),
        }
    }
}

/// Lays `newer` over `older` as one chunk, if that is cheap: a chunk nobody else holds takes in the
/// other; a shared one is copied only when it is not much larger, so that over all merges each write is
/// copied O(log n) times. Gives both back when they should stay apart.
pub(crate) fn merge(
    mut older: Arc<Memory>,
    mut newer: Arc<Memory>,
) -> std::result::Result<Arc<Memory>, (Arc<Memory>, Arc<Memory>)> {
    let (below, above) = (older.len(), newer.len());
    if above > below
        && let Some(into) = Arc::get_mut(&mut newer)
    {
        match Arc::try_unwrap(older) {
            Ok(older) => older.entries.into_iter().for_each(|(k, w)| into.put_beneath(k, w)),
            Err(shared) => {
                shared.iter().for_each(|(k, w)| into.put_beneath(k.clone(), w.clone()));
            }
        }
        return Ok(newer);
    }
    let is_shared = Arc::get_mut(&mut older).is_none();
    if is_shared && above * 2 < below {
        return Err((older, newer));
    }
    let into = Arc::make_mut(&mut older);
    match Arc::try_unwrap(newer) {
        Ok(newer) => newer.entries.into_iter().for_each(|(k, w)| into.put(k, w)),
        Err(shared) => shared.iter().for_each(|(k, w)| into.put(k.clone(), w.clone())),
    }
    Ok(older)
}

/// Reads a range of one chunk, a batch at a time. It holds the chunk, so what it reads stands still.
struct ChunkScan {
    chunk: Chunk,
    /// What is still to be read after `buffer`.
    rest: KeyRange,
    buffer: Batch,
    /// How many to read next; grows, so that a short scan reads little.
    limit: usize,
    is_done: bool,
}

impl ChunkScan {
    const FIRST: usize = 8;
    const MOST: usize = 512;

    fn fill(&mut self, direction: Direction) -> Result<()> {
        if !self.buffer.is_empty() || self.is_done {
            return Ok(());
        }
        match self.chunk.fill(&self.rest, direction, self.limit, &mut self.buffer) {
            Ok(is_done) => self.is_done = is_done,
            Err(error) => {
                self.buffer.clear(); // what was read before the failure is read again
                return Err(error);
            }
        }
        self.limit = (self.limit * 4).min(ChunkScan::MOST);
        if let Some((last, _)) = self.buffer.back() {
            let past = Bound::Excluded(last.clone());
            match direction {
                Direction::Forward => self.rest.start = past,
                Direction::Backward => self.rest.end = past,
            }
        }
        Ok(())
    }
}

/// The writes of several chunks in key order, each key once: newest value, oldest base.
pub(crate) struct WriteScan {
    /// Newest chunk first.
    sources: Vec<ChunkScan>,
    direction: Direction,
    /// The source with the next key, once known.
    next: Option<usize>,
}

impl WriteScan {
    /// Scans `chunks`, newest first. Chunks with nothing in the range are left out at once.
    pub fn new(chunks: impl IntoIterator<Item = Chunk>, range: &KeyRange, direction: Direction) -> Result<WriteScan> {
        let mut sources = Vec::new();
        for chunk in chunks {
            let mut source =
                ChunkScan { chunk, rest: range.clone(), buffer: Batch::new(), limit: ChunkScan::FIRST, is_done: false };
            source.fill(direction)?;
            if !source.buffer.is_empty() {
                sources.push(source);
            }
        }
        Ok(WriteScan { sources, direction, next: None })
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.sources.is_empty()
    }

    /// The next key, without going on.
    pub fn peek(&mut self) -> Result<Option<&Bytes>> {
        let Some(next) = self.find()? else {
            return Ok(None);
        };
        Ok(self.sources[next].buffer.front().map(|(key, _)| key))
    }

    /// The next write.
    pub fn next(&mut self) -> Result<Option<(Bytes, Write)>> {
        let Some(next) = self.find()? else {
            return Ok(None);
        };
        self.next = None;
        let Some((key, mut write)) = self.sources[next].buffer.pop_front() else {
            return Ok(None);
        };
        // Older chunks may hold the key as well: they lose, but their base counts.
        for source in &mut self.sources[next + 1..] {
            if source.buffer.front().is_some_and(|(other, _)| *other == key)
                && let Some((_, older)) = source.buffer.pop_front()
            {
                write.base = write.base.min(older.base);
            }
        }
        Ok(Some((key, write)))
    }

    /// The source whose head comes first; of equal ones the newest.
    fn find(&mut self) -> Result<Option<usize>> {
        if self.next.is_some() {
            return Ok(self.next);
        }
        for source in &mut self.sources {
            source.fill(self.direction)?;
        }
        self.sources.retain(|source| !source.buffer.is_empty());
        let mut best: Option<(usize, &Bytes)> = None;
        for (i, source) in self.sources.iter().enumerate() {
            let Some((key, _)) = source.buffer.front() else {
                continue;
            };
            let is_first = match (best, self.direction) {
                (None, _) => true,
                (Some((_, first)), Direction::Forward) => key < first,
                (Some((_, first)), Direction::Backward) => key > first,
            };
            if is_first {
                best = Some((i, key));
            }
        }
        self.next = best.map(|(i, _)| i);
        Ok(self.next)
    }
}

/// A bound of borrowed bytes.
pub(crate) fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
