//! Uncommitted writes on disk: what a transaction puts aside when its writes outgrow memory.
//!
//! A [`Run`] is a sorted, immutable set of writes in [`Space::Scratch`]:
//!
//! ```text
//! key    8 bytes of the core's key | run number u64be | the written key
//! value  base version u64be | 00                 a delete
//!                           | 01 value bytes     a put
//! ```
//!
//! Nothing there survives: the space is emptied when the store opens, and a run removes itself when
//! the last holder (its transaction, or a view still being read) drops it. It is never synced.
//!
//! A run keeps a small filter of its keys in memory (10 bits each), because a bulk load asks "is this key
//! there already?" once a row and the answer is nearly always no. The filter counts as the transaction's
//! memory; a run for which there is too little left has fewer bits a key, or none: then RocksDB is asked.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::chunk::{Batch, Write};
use crate::bee::{Direction, KeyRange};
use crate::encoding::order::after_prefix;
use crate::error::{Error, Result};
use crate::position::Version;
use crate::storage::{Backend, Durability, Range, Space, WriteBatch};

/// A read of a run ends with the write that brings it to so many bytes.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes of one batch written to the scratch space.
const BATCH_BYTES: usize = 1 << 20;
const PREFIX_BYTES: usize = 16;

/// Where the transactions of one database put what they cannot hold in memory.
pub(crate) struct Scratch {
    backend: Arc<dyn Backend>,
    owner: [u8; 8],
    next_run: AtomicU64,
}

impl Scratch {
    /// `owner` tells the databases of one store apart.
    pub fn new(backend: Arc<dyn Backend>, owner: [u8; 8]) -> Arc<Scratch> {
        Arc::new(Scratch { backend, owner, next_run: AtomicU64::new(0) })
    }

    /// An empty run about to be filled in ascending key order, with a filter of at most so many bytes.
    pub fn writer(self: &Arc<Scratch>, expected: usize, tier: u32, filter_bytes_max: usize) -> RunWriter {
        let number = self.next_run.fetch_add(1, Ordering::Relaxed);
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..8].copy_from_slice(&self.owner);
        prefix[8..].copy_from_slice(&number.to_be_bytes());
        RunWriter {
            run: Run {
                scratch: self.clone(),
                prefix,
                tier,
                entries: 0,
                first: Bytes::new(),
                last: Bytes::new(),
                filter: Filter::for_entries(expected, filter_bytes_max),
            },
            batch: WriteBatch::new(),
        }
    }
}

/// Sorted, immutable writes in the scratch space. Dropping it removes them.
pub(crate) struct Run {
    scratch: Arc<Scratch>,
    prefix: [u8; PREFIX_BYTES],
    /// How many times its entries were merged from smaller runs.
    pub tier: u32,
    entries: usize,
    first: Bytes,
    last: Bytes,
    filter: Option<Filter>,
}

impl Run {
    /// How many keys it writes.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, Filter::bytes)
    }

    /// What it writes to a key, if anything.
    pub fn get(&self, key: &[u8]) -> Result<Option<Write>> {
        let may_hold = self.filter.as_ref().is_none_or(|filter| filter.may_hold(key));
        if key < self.first.as_ref() || key > self.last.as_ref() || !may_hold {
            return Ok(None);
        }
        let found = self.scratch.backend.get(Space::Scratch, &self.stored(key))?;
        found.map(|value| decode(&value)).transpose()
    }

    /// Appends up to `limit` writes of the range, in the direction asked, and about a megabyte of them.
    /// Whether they are the last.
    pub fn fill(&self, range: &KeyRange, direction: Direction, limit: usize, out: &mut Batch) -> Result<bool> {
        let range = self.stored_range(range);
        let reverse = direction == Direction::Backward;
        let mut scan = self.scratch.backend.scan(Space::Scratch, range, reverse);
        let mut bytes = 0;
        for _ in 0..limit {
            if bytes >= READ_BYTES_MAX {
                break;
            }
            let Some(item) = scan.next() else {
                return Ok(true);
            };
            let (key, value) = item?;
            bytes += key.len() + value.len();
            out.push_back((key.slice(PREFIX_BYTES..), decode(&value)?));
        }
        Ok(false)
    }

    fn stored(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    fn stored_range(&self, range: &KeyRange) -> Range {
        // A strict bound is the bound of the next possible key: the same bytes and one zero byte.
        let after = |key: &Bytes| [&self.prefix, key.as_ref(), &[0]].concat();
        Range {
            start: match &range.start {
                Bound::Included(key) => self.stored(key),
                Bound::Excluded(key) => after(key),
                Bound::Unbounded => self.prefix.to_vec(),
            },
            end: match &range.end {
                Bound::Included(key) => Some(after(key)),
                Bound::Excluded(key) => Some(self.stored(key)),
                Bound::Unbounded => after_prefix(&self.prefix),
            },
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut batch = WriteBatch::new();
        let end = after_prefix(&self.prefix).unwrap_or_else(|| vec![0xff; PREFIX_BYTES + 1]);
        batch.delete_range(Space::Scratch, &self.prefix, &end);
        // What stays is only space, and until the next opening.
        if let Err(error) = self.scratch.backend.write(batch, Durability::NoSync) {
            tracing::warn!(%error, "spilled writes could not be removed");
        }
    }
}

/// Fills a [`Run`]. Dropping it instead of finishing removes what was written.
pub(crate) struct RunWriter {
    run: Run,
    batch: WriteBatch,
}

impl RunWriter {
    /// Adds a write; keys come in ascending order, each once.
    pub fn push(&mut self, key: &Bytes, write: &Write) -> Result<()> {
        let run = &mut self.run;
        if run.entries == 0 {
            run.first = Bytes::copy_from_slice(key);
        } else {
            debug_assert!(*key > run.last, "a run is filled in ascending order");
        }
        run.entries += 1;
        run.last = key.clone();
        if let Some(filter) = &mut run.filter {
            filter.insert(key);
        }
        let base = write.base.0.to_be_bytes();
        let stored = run.stored(key);
        match &write.value {
            Some(value) => self.batch.put_parts(Space::Scratch, &stored, &[&base, &[1], value]),
            None => self.batch.put_parts(Space::Scratch, &stored, &[&base, &[0]]),
        }
        if self.batch.byte_len() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// All entries are there.
    pub fn finish(mut self) -> Result<Run> {
        self.flush()?;
        // The last key may be a slice of something large.
        self.run.last = Bytes::copy_from_slice(&self.run.last);
        Ok(self.run)
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.run.scratch.backend.write(batch, Durability::NoSync)
    }
}

fn decode(stored: &Bytes) -> Result<Write> {
    let corrupt = || Error::corrupt("a spilled write");
    let (base, rest) = stored.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let base = Version(u64::from_be_bytes(*base));
    match rest.first() {
        Some(0) => Ok(Write { value: None, base }),
        Some(1) => Ok(Write { value: Some(stored.slice(9..)), base }),
        _ => Err(corrupt()),
    }
}

/// A Bloom filter: 10 bits a key and 6 probes let about one absent key in a hundred through, 5 bits one in eight.
struct Filter {
    words: Vec<u64>,
}

impl Filter {
    const PROBES: u64 = 6;
    const BITS: usize = 10;
    /// With fewer bits a key it would let most through.
    const BITS_MIN: usize = 5;

    /// For so many keys; `None` if a useful one would take more than `bytes_max`.
    fn for_entries(entries: usize, bytes_max: usize) -> Option<Filter> {
        let words = |bits: usize| (entries * bits).div_ceil(64).max(1);
        let count = words(Filter::BITS).min(bytes_max / 8);
        (count >= words(Filter::BITS_MIN)).then(|| Filter { words: vec![0; count] })
    }

    fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    fn insert(&mut self, key: &[u8]) {
        for bit in Filter::bits(key, self.words.len()) {
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn may_hold(&self, key: &[u8]) -> bool {
        Filter::bits(key, self.words.len()).all(|bit| self.words[bit / 64] & (1 << (bit % 64)) != 0)
    }

    fn bits(key: &[u8], words: usize) -> impl Iterator<Item = usize> + use<> {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        let hash = hasher.finish();
        let (first, step) = (hash, (hash >> 32) | 1);
        let count = words as u64 * 64;
        (0..Filter::PROBES).map(move |i| {
            let spread = u128::from(first.wrapping_add(i.wrapping_mul(step << 32 | step)));
            ((spread * u128::from(count)) >> 64) as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_knows_its_keys_and_few_others() {
        for (bytes_max, most) in [(12_504, 3_000), (usize::MAX, 3_000), (6_256, 17_000)] {
            let mut filter = Filter::for_entries(10_000, bytes_max).unwrap();
            assert!(filter.bytes() <= bytes_max.min(12_504));
            let key = |i: u32| i.to_be_bytes();
            (0..10_000).for_each(|i| filter.insert(&key(i)));
            assert!((0..10_000).all(|i| filter.may_hold(&key(i))));
            let let_through = (10_000..110_000).filter(|&i| filter.may_hold(&key(i))).count();
            assert!(let_through < most, "{let_through} of 100000 absent keys pass");
        }
        assert!(Filter::for_entries(10_000, 6_000).is_none() && Filter::for_entries(1, 0).is_none());
    }
}
