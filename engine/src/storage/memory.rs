//! A [`Backend`] in memory: an ordered map a space, one lock over all.
//!
//! For tests and for stores that need not survive the process. It is durable as long as it lives, so
//! [`Durability`] means nothing here; [`super::faulty::Faulty`] adds crashes.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Backend, Change, Durability, Range, Scan, Space, Statistics, WriteBatch};
use crate::error::Result;

type Map = BTreeMap<Bytes, Bytes>;

/// The store. Cheap to make, and gone when dropped.
#[derive(Default)]
pub struct Memory {
    spaces: RwLock<[Map; 4]>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }
}

/// How many entries a scan takes under one hold of the lock.
const SCAN_CHUNK: usize = 256;

impl Backend for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.spaces.read()[space as usize].get(key).cloned())
    }

    /// Reads in chunks, so unlike RocksDB it may see writes made to the rest of the range meanwhile. All
    /// our scans are over ranges that no one writes while they are read.
    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        let mut start = Bound::Included(Bytes::from(range.start));
        let mut end = range.end.map_or(Bound::Unbounded, |end| Bound::Excluded(Bytes::from(end)));
        let mut held: std::vec::IntoIter<(Bytes, Bytes)> = Vec::new().into_iter();
        let mut done = false;
        Box::new(std::iter::from_fn(move || {
            if held.as_slice().is_empty() && !done {
                let chunk = chunk(&self.spaces.read()[space as usize], &start, &end, reverse);
                done = chunk.len() < SCAN_CHUNK;
                if let Some((key, _)) = chunk.last() {
                    let seen = Bound::Excluded(key.clone());
                    *(if reverse { &mut end } else { &mut start }) = seen;
                }
                held = chunk.into_iter();
            }
            held.next().map(Ok)
        }))
    }

    fn write(&self, batch: WriteBatch, _: Durability) -> Result<()> {
        let mut spaces = self.spaces.write();
        for change in batch.iter() {
            match change {
                Change::Put { space, key, value } => {
                    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    spaces[space as usize].insert(key, value);
                }
                Change::Delete { space, key } => {
                    spaces[space as usize].remove(key);
                }
                Change::DeleteRange { space, start, end } if start < end => {
                    let map = &mut spaces[space as usize];
                    let bounds = (Bound::Included(start), Bound::Excluded(end));
                    let gone: Vec<Bytes> = map.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
                    for key in gone {
                        map.remove(&key);
                    }
                }
                Change::DeleteRange { .. } => {}
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn statistics(&self) -> Statistics {
        let spaces = self.spaces.read();
        let bytes = |map: &Map| map.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>();
        Statistics {
            live_bytes: spaces.iter().map(bytes).sum(),
            entries: std::array::from_fn(|space| spaces[space].len() as u64),
            ..Statistics::default()
        }
    }
}

fn chunk(map: &Map, start: &Bound<Bytes>, end: &Bound<Bytes>, reverse: bool) -> Vec<(Bytes, Bytes)> {
    // BTreeMap panics on ranges that end before they start.
    if let (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b)) = (start, end)
        && a >= b
    {
        return Vec::new();
    }
    let range = map.range((start.clone(), end.clone()));
    let entry = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
    if reverse {
        range.rev().take(SCAN_CHUNK).map(entry).collect()
    } else {
        range.take(SCAN_CHUNK).map(entry).collect()
    }
}
