//! What large values may take in memory: how much of them one write and one read of the store have at most.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Change, Durability, Range, Scan, Space, Statistics, WriteBatch};
use pgbee_engine::txn::{CommitInfo, Database, Options};
use pgbee_engine::{Result, Version};

/// Remembers the most bytes that one batch wrote, and that one scan read, of blocks and of spilled writes.
struct Gauge {
    inner: Memory,
    written: AtomicUsize,
    read: Arc<AtomicUsize>,
}

impl Backend for Gauge {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        let (read, mut bytes) = (self.read.clone(), 0);
        Box::new(self.inner.scan(space, range, reverse).inspect(move |entry| {
            bytes += entry.as_ref().map_or(0, |(key, value)| key.len() + value.len());
            read.fetch_max(bytes, Ordering::Relaxed);
        }))
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let blocks = batch.iter().map(|change| match change {
            Change::Put { space: Space::Block, value, .. } => value.len(),
            _ => 0,
        });
        self.written.fetch_max(blocks.sum(), Ordering::Relaxed);
        self.inner.write(batch, durability)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

const ROWS: u64 = 200;
const ROW_BYTES: usize = 100_000;
/// Beyond a bound there is the row that reached it, and what lies around values.
const MEGABYTE: usize = (1 << 20) + ROW_BYTES + 50_000;

fn key(i: u64) -> Bytes {
    Bytes::from(format!("row {i:06}"))
}

fn check(range: impl Iterator<Item = u64>, mut next: impl FnMut() -> Option<(Bytes, Bytes)>) {
    for i in range {
        let (found, value) = next().unwrap();
        assert_eq!((found, value.len(), value[0]), (key(i), ROW_BYTES, i as u8));
    }
    assert!(next().is_none());
}

#[test]
fn large_values_are_written_and_read_a_megabyte_at_a_time() {
    for write_set_bytes_max in [64 << 20, 4 << 20] {
        let gauge = Arc::new(Gauge { inner: Memory::new(), written: AtomicUsize::new(0), read: Arc::default() });
        let store = Store::open(gauge.clone(), corestore::Options::default()).unwrap();
        let options = Options { write_set_bytes_max, group_bytes_max: 1 << 20, ..Options::default() };
        let db = Database::open(store.get_by_name("db").unwrap(), Cache::new(8 << 20), options).unwrap();
        let mut txn = db.begin();
        for i in 0..ROWS {
            let i = i * 77 % ROWS; // no order: runs overlap, and are merged
            txn.put(key(i), vec![i as u8; ROW_BYTES]).unwrap();
        }
        let mut own = txn.scan(KeyRange::all(), Direction::Forward).unwrap();
        check(0..ROWS, || own.next().unwrap());
        let mut own = txn.scan(KeyRange::all(), Direction::Backward).unwrap();
        check((0..ROWS).rev(), || own.next().unwrap());
        drop(own);
        let version = db.commit(txn, CommitInfo::at(1)).unwrap();
        assert_eq!(version, Version(ROWS + 2), "a block a row, the header and the commit record");

        let snapshot = db.snapshot();
        for direction in [Direction::Forward, Direction::Backward] {
            let mut scan = snapshot.scan(KeyRange::all(), direction);
            let next = || scan.next().unwrap().map(|entry| (entry.key, entry.value.unwrap()));
            match direction {
                Direction::Forward => check(0..ROWS, skip_record(next)),
                Direction::Backward => check((0..ROWS).rev(), skip_record(next)),
            }
        }
        let mut history = snapshot.history(KeyRange::prefix(b"row"), Version(0), version).unwrap();
        check(0..ROWS, || {
            let item = history.next().unwrap()?;
            assert_eq!((item.version, item.base), (version, Version(1)));
            Some((item.key, item.value.unwrap()))
        });
        assert_eq!(snapshot.bee().audit().unwrap().keys, ROWS + 1);
        assert_eq!(db.core().verify(|_, _| ()).unwrap().blocks.0, version.0);

        let (written, read) = (gauge.written.load(Ordering::Relaxed), gauge.read.load(Ordering::Relaxed));
        assert!(written <= MEGABYTE, "{written} bytes of blocks in one batch");
        assert!(read <= MEGABYTE, "{read} bytes in one read");
    }
}

fn skip_record(mut next: impl FnMut() -> Option<(Bytes, Bytes)>) -> impl FnMut() -> Option<(Bytes, Bytes)> {
    move || {
        let entry = next()?;
        if entry.0 == pgbee_engine::txn::COMMIT_RECORD_KEY { next() } else { Some(entry) }
    }
}
