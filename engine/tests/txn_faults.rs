//! Every way a write can fail, at every write of a workload: what was acknowledged is there after opening
//! again, and nothing is half there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::faulty::{Fault, Faulty, Plan};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability, Space};
use pgbee_engine::txn::{COMMIT_RECORD_KEY, CommitInfo, Database, Options, Snapshot};
use pgbee_engine::{Error, Result, Version};

type Map = BTreeMap<Bytes, Bytes>;

/// Small, so that spilling and staging in several bee batches happen within a few dozen entries.
fn options() -> Options {
    Options { write_set_bytes_max: 8_000, group_entries_max: 20, staged_entries: 16, ..Options::default() }
}

fn open(backend: &Arc<Faulty>) -> Result<Arc<Database>> {
    let options = corestore::Options { primary_key: Some([7; 32]) };
    let store = Store::open(backend.clone(), options)?;
    Database::open(store.get_by_name("db")?, Cache::new(1 << 18), self::options())
}

fn key(i: u64) -> Bytes {
    Bytes::from(format!("k{i:04}"))
}

/// The writes of commit `i`: mostly a few, some gathered in memory and yet staged, some spilled.
fn writes(i: u64) -> Vec<(Bytes, Option<Bytes>)> {
    let count = match i % 4 {
        0 | 1 => 3,
        2 => 45,
        _ => 150,
    };
    let entry = |n: u64| {
        let value = (!n.is_multiple_of(5)).then(|| Bytes::from(format!("commit {i}, {n}")));
        (key((n * 37 + i * 11) % 200), value)
    };
    (0..count).map(entry).collect()
}

fn apply(map: &mut Map, writes: &[(Bytes, Option<Bytes>)]) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

fn content(snapshot: &Snapshot) -> Map {
    let (mut scan, mut map) = (snapshot.scan(KeyRange::all(), Direction::Forward), Map::new());
    while let Some(entry) = scan.next().unwrap() {
        map.insert(entry.key, entry.value.unwrap());
    }
    map.remove(COMMIT_RECORD_KEY);
    map
}

/// What a run was told.
#[derive(Default)]
struct Told {
    /// The map after each acknowledged commit, and whether it was to survive a crash of the machine.
    acknowledged: Vec<(Version, Map, Durability)>,
    /// The map each failed commit would have made.
    failed: Vec<Map>,
}

/// Commits until done or the machine is down, whatever fails. Every third commit does not ask to be on disk.
fn run(backend: &Faulty, db: &Database, told: &mut Told) {
    for i in 0..8 {
        if backend.is_down() {
            return;
        }
        let writes = writes(i);
        let mut map = told.acknowledged.last().map(|(_, map, _)| map.clone()).unwrap_or_default();
        assert_eq!(content(&db.snapshot()), map, "the head is what was last acknowledged");
        let mut txn = db.begin();
        let written: Result<()> = writes.iter().try_for_each(|(key, value)| match value {
            Some(value) => txn.put(key.clone(), value.clone()),
            None => txn.delete(key.clone()),
        });
        let mut info = CommitInfo::at(i as i64);
        if i % 3 == 0 {
            info.durability = Durability::NoSync;
        }
        let durability = info.durability;
        let result = written.and_then(|()| db.commit(txn, info));
        apply(&mut map, &writes);
        match result {
            Ok(version) => told.acknowledged.push((version, map, durability)),
            Err(Error::Storage(_)) => told.failed.push(map),
            Err(other) => panic!("commit {i}: {other:?}"),
        }
    }
}

/// After opening again: every acknowledged version that must be there is, and the head is a whole commit.
fn check(db: &Database, told: &Told, lost_unsynced: bool) {
    // A synced commit makes all before it durable.
    let must = told.acknowledged.iter().rposition(|(_, _, durability)| *durability == Durability::Sync);
    let must = if lost_unsynced { must.map_or(0, |last| last + 1) } else { told.acknowledged.len() };
    for (version, map, _) in &told.acknowledged[..must] {
        assert!(db.head() >= *version, "version {version} is lost");
        assert_eq!(content(&db.snapshot_at(*version).unwrap()), *map);
        assert!(db.commit_record(*version).is_ok());
    }
    let head = content(&db.snapshot());
    let acknowledged = told.acknowledged.iter().skip(must.saturating_sub(1)).map(|(_, map, _)| map);
    let nothing = Map::new();
    let mut whole = acknowledged.chain(&told.failed).chain((must == 0).then_some(&nothing));
    assert!(whole.any(|map| *map == head), "the head is not a commit: {head:?}");
    if db.head() > Version(1) {
        db.snapshot().bee().audit().unwrap();
        assert_eq!(db.commit_record(db.head()).unwrap().version, db.head());
    }
    assert!(db.core().verify(|_, _| ()).is_ok());
}

fn run_with(fault: Fault, write: u64, survivors: usize) -> bool {
    let backend = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::at(write, fault)));
    let mut told = Told::default();
    if let Ok(db) = open(&backend) {
        run(&backend, &db, &mut told);
    }
    let was_hit = backend.writes() >= write;
    let crashed = backend.is_down();
    backend.set_plan(Plan::none());
    if crashed {
        backend.heal(survivors).unwrap();
    } else if was_hit {
        assert!(told.failed.len() <= 1, "the disk recovered, and so must the database");
    }
    let db = open(&backend).unwrap();
    check(&db, &told, crashed);
    // It goes on: another run on top, without faults.
    let mut txn = db.begin();
    let mut map = content(txn.base());
    for i in 0..60 {
        txn.put(key(i), "after").unwrap();
        map.insert(key(i), "after".into());
    }
    let before = told.acknowledged.iter().map(|(version, ..)| *version).filter(|v| *v <= db.head());
    let before: Vec<_> = before.collect();
    db.commit(txn, CommitInfo::at(0)).unwrap();
    assert_eq!(content(&db.snapshot()), map);
    for version in before {
        assert!(db.snapshot_at(version).is_ok());
    }
    let scratch = backend.scan(Space::Scratch, pgbee_engine::storage::Range::all(), false);
    assert_eq!(scratch.count(), 0, "spilled writes are left");
    was_hit
}

#[test]
fn without_faults_everything_is_acknowledged() {
    let backend = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let db = open(&backend).unwrap();
    let mut told = Told::default();
    run(&backend, &db, &mut told);
    assert_eq!((told.acknowledged.len(), told.failed.len()), (8, 0));
    drop(db);
    check(&open(&backend).unwrap(), &told, false);
    // Enough writes for the faults to be worth it: staging and spilling happened.
    assert!(backend.writes() > 30, "{} writes", backend.writes());
}

#[test]
fn a_failing_write_loses_nothing_acknowledged_and_leaves_nothing_half() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::NoSpace] {
        let mut write = 1;
        while run_with(fault, write, 0) {
            write += 1;
        }
        assert!(write > 30);
    }
}

#[test]
fn a_crash_loses_nothing_acknowledged_and_leaves_nothing_half() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for survivors in [0, 1, 3, usize::MAX] {
            let mut write = 1;
            while run_with(fault, write, survivors) {
                write += 1;
            }
            assert!(write > 30);
        }
    }
}

#[test]
fn while_the_disk_is_full_reading_goes_on_and_later_commits_succeed() {
    let backend = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let db = open(&backend).unwrap();
    let commit = |value: &'static str| {
        let mut txn = db.begin();
        txn.put("a", value)?;
        db.commit(txn, CommitInfo::at(0))
    };
    let first = commit("one").unwrap();
    backend.set_plan(Plan::none().no_space(backend.writes() + 1, 5));
    for _ in 0..5 {
        assert!(matches!(commit("two"), Err(Error::Storage(_))));
        assert_eq!(db.head(), first);
        assert_eq!(db.snapshot().get(b"a").unwrap().as_deref(), Some(&b"one"[..]));
    }
    let second = commit("three").unwrap();
    assert_eq!(second.0, first.0 + 2);
    assert_eq!(db.snapshot().get(b"a").unwrap().as_deref(), Some(&b"three"[..]));
    assert_eq!(db.commit_record(second).unwrap().previous, [first]);
}
