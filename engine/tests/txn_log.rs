//! Long logs and large commits: finding a version or a time reads few blocks, walking them holds little,
//! and what a load costs does not depend on memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability, Range, Scan, Space, Statistics, WriteBatch};
use pgbee_engine::txn::{CommitInfo, Database, Options};
use pgbee_engine::{Error, Result, StorageError, StorageErrorKind, Version};

/// Counts blocks read one by one.
#[derive(Default)]
struct Counting {
    memory: Memory,
    blocks_read: AtomicU64,
    largest_batch: AtomicU64,
    /// Every read of a block fails once before it succeeds.
    is_flaky: AtomicBool,
    failed: Mutex<HashSet<Bytes>>,
}

impl Counting {
    fn fails(&self, key: &[u8]) -> bool {
        self.is_flaky.load(Ordering::Relaxed) && self.failed.lock().unwrap().insert(Bytes::copy_from_slice(key))
    }
}

fn failure() -> Error {
    let message = "not now".to_owned();
    Error::Storage(StorageError { message, kind: StorageErrorKind::Injected })
}

impl Backend for Counting {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        if space == Space::Block {
            self.blocks_read.fetch_add(1, Ordering::Relaxed);
            if self.fails(key) {
                return Err(failure());
            }
        }
        self.memory.get(space, key)
    }

    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        let scan = self.memory.scan(space, range, reverse);
        if space != Space::Block {
            return scan;
        }
        Box::new(scan.map(|entry| match entry {
            Ok((key, _)) if self.fails(&key) => Err(failure()),
            entry => entry,
        }))
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.largest_batch.fetch_max(batch.byte_len() as u64, Ordering::Relaxed);
        self.memory.write(batch, durability)
    }

    fn sync(&self) -> Result<()> {
        self.memory.sync()
    }

    fn statistics(&self) -> Statistics {
        self.memory.statistics()
    }
}

fn open(backend: &Arc<Counting>, options: Options) -> Arc<Database> {
    let options_of_store = corestore::Options { primary_key: Some([3; 32]) };
    let store = Store::open(backend.clone(), options_of_store).unwrap();
    Database::open(store.get_by_name("db").unwrap(), Cache::new(8 << 20), options).unwrap()
}

/// What a piece of work reads.
fn reads<T>(backend: &Counting, work: impl FnOnce() -> T) -> (T, u64) {
    let before = backend.blocks_read.load(Ordering::Relaxed);
    let result = work();
    (result, backend.blocks_read.load(Ordering::Relaxed) - before)
}

#[test]
fn versions_and_times_are_found_in_few_reads() {
    let backend = Arc::new(Counting::default());
    let db = open(&backend, Options::default());
    let count = 3000u64;
    let mut versions = vec![];
    for i in 0..count {
        let mut txn = db.begin();
        // Commits of different sizes: version and number are not proportional.
        for n in 0..i % 7 {
            txn.put(format!("{n}"), format!("{i}")).unwrap();
        }
        txn.put("last", format!("{i}")).unwrap();
        let mut info = CommitInfo::at(i as i64 * 1000);
        info.durability = Durability::NoSync;
        versions.push(db.commit(txn, info).unwrap());
    }
    drop(db);
    let (db, opening) = reads(&backend, || open(&backend, Options::default()));
    assert!(opening <= 2, "opening reads {opening} blocks");
    for (i, &version) in versions.iter().enumerate().step_by(7) {
        for time in [i as i64 * 1000, i as i64 * 1000 + 999] {
            let (found, cost) = reads(&backend, || db.version_at_time(time));
            assert_eq!(found, Ok(version));
            assert!(cost <= 64, "a time among {count} commits reads {cost} blocks");
        }
        let between = Version(version.0 + 1);
        if between < db.head() {
            let (refused, cost) = reads(&backend, || db.snapshot_at(between));
            assert_eq!((refused.is_err(), cost), (true, 1));
        }
        let snapshot = db.snapshot_at(version).unwrap();
        assert_eq!(snapshot.get(b"last").unwrap().unwrap(), format!("{i}"));
    }
    let newest = db.head();
    let before = db.version_at_time(-1);
    assert_eq!(before, Err(Error::NotAVersion { asked: Version(0), oldest: Version(1), newest }));
    assert_eq!(db.first_commit().unwrap().unwrap().version, versions[0]);

    for direction in [Direction::Forward, Direction::Backward] {
        let walk = || {
            let (mut commits, mut walked) = (db.commits(newest, direction), vec![]);
            while let Some(commit) = commits.next().unwrap() {
                walked.push(commit.version);
            }
            walked
        };
        let (mut walked, cost) = reads(&backend, walk);
        if direction == Direction::Backward {
            walked.reverse();
        }
        assert_eq!(walked, versions);
        assert!(cost < count * 5 / 4, "walking {count} commits reads {cost} blocks");
    }
    // From a version in the middle.
    let mut commits = db.commits(versions[1000], Direction::Forward);
    let mut last = None;
    while let Some(commit) = commits.next().unwrap() {
        last = Some(commit.number);
    }
    assert_eq!(last, Some(1001));
}

#[test]
fn a_load_larger_than_memory_is_one_version_and_its_history_is_told() {
    let backend = Arc::new(Counting::default());
    let options = Options { write_set_bytes_max: 1 << 20, ..Options::default() };
    let db = open(&backend, options);
    let mut txn = db.begin();
    txn.put("small", "1").unwrap();
    let small = db.commit(txn, CommitInfo::at(1)).unwrap();

    let count = 100_000u64;
    let key = |i: u64| Bytes::from(format!("row {:06}", (i * 7919) % count));
    let mut txn = db.begin();
    txn.begin_statement();
    for i in 0..count {
        let key = key(i);
        assert_eq!(txn.get(&key).unwrap(), None, "unique until now");
        txn.put(key, vec![i as u8; 20]).unwrap();
    }
    assert_eq!(txn.get(&key(5)).unwrap(), Some(Bytes::from(vec![5; 20])));
    txn.end_statement().unwrap();
    assert_eq!(db.head(), small);
    let large = db.commit(txn, CommitInfo::at(2)).unwrap();
    assert_eq!(large.0, small.0 + count + 1);
    let largest = backend.largest_batch.load(Ordering::Relaxed);
    assert!(largest < 12 << 20, "a batch of {largest} bytes");
    assert!(backend.scan(Space::Scratch, Range::all(), false).next().is_none());

    let mut txn = db.begin();
    txn.put("small", "2").unwrap();
    txn.delete(key(9)).unwrap();
    let last = db.commit(txn, CommitInfo::at(3)).unwrap();
    db.snapshot().bee().audit().unwrap();
    for inside in [small.0 + 1, small.0 + 32768, small.0 + 65536, large.0 - 1] {
        assert!(db.snapshot_at(Version(inside)).is_err(), "a version inside of a commit: {inside}");
    }

    // All of it is attributed to its commit, without being held in memory to find out.
    let mut history = db.snapshot().history(KeyRange::all(), Version(0), last).unwrap();
    let (mut rows, mut others) = (0, vec![]);
    while let Some(item) = history.next().unwrap() {
        if item.key.starts_with(b"row") && item.value.is_some() {
            assert_eq!((item.version, item.time_micros, item.base), (large, Some(2), small));
            rows += 1;
        } else if item.key != pgbee_engine::txn::COMMIT_RECORD_KEY {
            others.push((item.version, item.key, item.value));
        }
    }
    assert_eq!(rows, count);
    let text = |text: &'static str| Bytes::from(text);
    let want = [(small, text("small"), Some(text("1"))), (last, key(9), None), (last, text("small"), Some(text("2")))];
    assert_eq!(others, want);

    // A scan of all of it meets each row once.
    let view = db.begin().view();
    let mut scan = view.scan_keys(KeyRange::prefix(b"row"), Direction::Backward).unwrap();
    let (mut seen, mut batch) = (0, vec![]);
    while scan.next_batch(&mut batch, 1000).unwrap() > 0 {
        seen += batch.drain(..).len() as u64;
    }
    assert_eq!(seen, count - 1);
}

/// Calls until it does not fail; counts the failures.
fn insist<T>(failures: &mut u64, mut read: impl FnMut() -> Result<T>) -> T {
    loop {
        match read() {
            Ok(found) => return found,
            Err(error) => {
                assert_eq!(error, failure());
                *failures += 1;
            }
        }
    }
}

/// Everything that walks keeps its place after an error: as when a block is missing on a replica.
#[test]
fn readers_go_on_where_an_error_met_them() {
    let backend = Arc::new(Counting::default());
    let db = open(&backend, Options::default());
    for i in 0..300u64 {
        let mut txn = db.begin();
        for n in 0..4 {
            txn.put(format!("k{:04}", (i * 4 + n) * 7 % 500), format!("{i} {n}")).unwrap();
        }
        db.commit(txn, CommitInfo::at(i as i64)).unwrap();
    }
    let read_all = |failures: &mut u64| {
        // No cache: every block is read again, and fails the first time.
        let options = corestore::Options { primary_key: Some([3; 32]) };
        let store = insist(failures, || Store::open(backend.clone(), options.clone()));
        let core = insist(failures, || store.get_by_name("db"));
        let db = insist(failures, || Database::open(core.clone(), Cache::new(0), Options::default()));
        let mut found = vec![];
        let mut note = |text: String| found.push(text);
        let mut txn = db.begin();
        for n in 0..100 {
            match n % 3 {
                0 => txn.delete(format!("k{:04}", n * 5)).unwrap(),
                _ => txn.put(format!("k{:04}x", n * 5), "own").unwrap(),
            }
        }
        for direction in [Direction::Forward, Direction::Backward] {
            let mut scan = txn.scan(KeyRange::all(), direction).unwrap();
            while let Some((key, value)) = insist(failures, || scan.next()) {
                note(format!("{key:?} {value:?}"));
            }
            let (mut batch, view) = (vec![], txn.view());
            let mut scan = view.scan_keys(KeyRange::prefix(b"k01"), direction).unwrap();
            while insist(failures, || scan.next_batch(&mut batch, 10)) > 0 {}
            note(format!("{batch:?}"));
            let mut commits = db.commits(db.head(), direction);
            while let Some(commit) = insist(failures, || commits.next()) {
                note(format!("{commit:?}"));
            }
        }
        let mut history = db.snapshot().history(KeyRange::prefix(b"k"), Version(1), db.head()).unwrap();
        while let Some(item) = insist(failures, || history.next()) {
            note(format!("{item:?}"));
        }
        note(format!("{}", insist(failures, || db.version_at_time(123))));
        found
    };
    let want = read_all(&mut 0);
    backend.is_flaky.store(true, Ordering::Relaxed);
    let mut failures = 0;
    let found = read_all(&mut failures);
    assert!(failures > 300, "only {failures} failures");
    assert_eq!(found.len(), want.len());
    for (found, want) in found.into_iter().zip(want) {
        assert_eq!(found, want);
    }
}
