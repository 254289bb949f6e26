//! Many threads commit at once: nothing is lost, everyone gets an own version, and appends are shared.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability, Range, Scan, Space, Statistics, WriteBatch};
use pgbee_engine::txn::{CommitInfo, Database, Options};
use pgbee_engine::{Error, Result, Version};

const THREADS: u64 = 8;
const COMMITS: u64 = 200;

/// A disk whose fsync takes a while, and is counted.
#[derive(Default)]
struct Disk {
    memory: Memory,
    synced: AtomicU64,
}

impl Backend for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        self.memory.get(space, key)
    }

    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        self.memory.scan(space, range, reverse)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        if durability == Durability::Sync {
            self.synced.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(300));
        }
        self.memory.write(batch, durability)
    }

    fn sync(&self) -> Result<()> {
        self.memory.sync()
    }

    fn statistics(&self) -> Statistics {
        self.memory.statistics()
    }
}

fn open(disk: &Arc<Disk>, options: Options) -> Arc<Database> {
    let store = Store::open(disk.clone(), corestore::Options::default()).unwrap();
    Database::open(store.get_by_name("db").unwrap(), Cache::new(4 << 20), options).unwrap()
}

fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

/// Every thread counts up one shared counter, again after each conflict, and writes a key of its own.
#[test]
fn eight_threads_count_to_sixteen_hundred_in_fewer_appends() {
    let disk = Arc::new(Disk::default());
    let db = open(&disk, Options::default());
    let (conflicts, before) = (AtomicU64::new(0), disk.synced.load(Ordering::Relaxed));
    let versions = Mutex::new(BTreeSet::new());
    let newest_told = Arc::new(AtomicU64::new(0));
    let ear = newest_told.clone();
    let _subscription = db.subscribe(move |version| {
        let earlier = ear.swap(version.0, Ordering::Relaxed);
        assert!(earlier < version.0, "heads are told in order");
    });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, conflicts, versions) = (&db, &conflicts, &versions);
            scope.spawn(move || {
                let mut last = Version(0);
                let mut i = 0;
                while i < COMMITS {
                    let mut txn = db.begin();
                    // Every tenth commit also touches what all others touch.
                    let is_shared = i % 10 == 0;
                    if is_shared {
                        let count = number(txn.get(b"shared").unwrap());
                        txn.put("shared", (count + 1).to_be_bytes().to_vec()).unwrap();
                    }
                    let own = format!("own {thread} {i:04}");
                    txn.put(own.clone(), "x").unwrap();
                    match db.commit(txn, CommitInfo::at(5)) {
                        Ok(version) => {
                            assert!(version > last, "a thread's versions rise");
                            assert!(db.head() >= version, "acknowledged and not visible");
                            assert!(db.snapshot().get(own.as_bytes()).unwrap().is_some());
                            assert!(db.snapshot_at(version).is_ok());
                            assert!(versions.lock().unwrap().insert(version), "two got {version}");
                            last = version;
                            i += 1;
                        }
                        Err(Error::Conflict { .. }) => {
                            assert!(is_shared, "own keys never conflict");
                            conflicts.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let versions = versions.into_inner().unwrap();
    assert_eq!(versions.len() as u64, THREADS * COMMITS);
    assert_eq!(number(db.snapshot().get(b"shared").unwrap()), THREADS * COMMITS / 10);
    let appends = disk.synced.load(Ordering::Relaxed) - before;
    assert!(appends < THREADS * COMMITS * 2 / 3, "{appends} appends");
    assert_eq!(db.head().0, newest_told.load(Ordering::Relaxed));

    // The log tells the same story: one record a commit, newest to oldest and the other way.
    for direction in [Direction::Forward, Direction::Backward] {
        let (mut commits, mut walked) = (db.commits(db.head(), direction), vec![]);
        while let Some(commit) = commits.next().unwrap() {
            walked.push(commit.version);
        }
        if direction == Direction::Backward {
            walked.reverse();
        }
        assert!(walked.into_iter().eq(versions.iter().copied()));
    }
    // Each version has the counter that its commit saw or made: it never goes back.
    let mut before = 0;
    for version in &versions {
        let count = number(db.snapshot_at(*version).unwrap().get(b"shared").unwrap());
        assert!(count == before || count == before + 1);
        before = count;
    }
    db.snapshot().bee().audit().unwrap();
    assert!(conflicts.into_inner() > 0, "nothing was contended");
}

/// Two accounts may not both be emptied. Whoever withdraws relies on the sum of both.
#[test]
fn serializable_threads_keep_an_invariant_that_snapshots_alone_would_break() {
    let db = open(&Arc::new(Disk::default()), Options::default());
    for round in 0..40u64 {
        let mut txn = db.begin();
        for account in 0..THREADS {
            txn.put(format!("account {account}"), 1u64.to_be_bytes().to_vec()).unwrap();
        }
        db.commit(txn, CommitInfo::at(0)).unwrap();
        let sum = |txn: &pgbee_engine::txn::Transaction| {
            let mut scan = txn.scan(KeyRange::prefix(b"account"), Direction::Forward).unwrap();
            let mut sum = 0;
            while let Some((_, value)) = scan.next().unwrap() {
                sum += number(Some(value));
            }
            sum
        };
        let start = std::sync::Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for account in 0..THREADS {
                let (db, start, sum) = (&db, &start, &sum);
                scope.spawn(move || {
                    start.wait();
                    loop {
                        let mut txn = db.begin();
                        txn.depend_range(KeyRange::prefix(b"account"));
                        if sum(&txn) <= 1 {
                            return; // someone must stay
                        }
                        txn.put(format!("account {account}"), 0u64.to_be_bytes().to_vec()).unwrap();
                        match db.commit(txn, CommitInfo::at(0)) {
                            Ok(_) => return,
                            Err(Error::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
        assert_eq!(sum(&db.begin()), 1, "round {round}");
    }
}

/// Large and small commits at once: staged ones and gathered ones take turns.
#[test]
fn large_commits_among_small_ones() {
    let options = Options { group_entries_max: 50, staged_entries: 64, ..Options::default() };
    let db = open(&Arc::new(Disk::default()), options);
    thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for i in 0..10 {
                    let mut txn = db.begin();
                    let count = if thread == 0 { 500 } else { 3 };
                    for n in 0..count {
                        txn.put(format!("{n:04} {thread}"), format!("{i}")).unwrap();
                    }
                    db.commit(txn, CommitInfo::at(0)).unwrap();
                }
            });
        }
    });
    let (mut scan, mut count) = (db.snapshot().scan(KeyRange::all(), Direction::Forward), 0);
    while let Some(entry) = scan.next().unwrap() {
        count += u64::from(entry.value.as_deref() == Some(b"9"));
    }
    assert_eq!(count, 500 + 3 * 3);
    db.snapshot().bee().audit().unwrap();
    assert!(db.core().verify(|_, _| ()).is_ok());
}

/// Readers wait for versions that other threads make.
#[test]
fn waiting_for_a_version_ends_when_it_is_there() {
    let db = open(&Arc::new(Disk::default()), Options::default());
    assert!(!db.wait_for(Version(7), Duration::from_millis(1)));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| db.wait_for(Version(7), Duration::from_secs(60)));
        for _ in 0..3 {
            let mut txn = db.begin();
            txn.put("a", "b").unwrap();
            db.commit(txn, CommitInfo::at(0)).unwrap();
        }
        assert!(waiter.join().unwrap());
    });
    assert_eq!(db.head(), Version(7));
}
