//! Random interleaved transactions against a model: sorted maps, one a version, and the rule that the
//! first to commit wins.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use pgbee_engine::bee::{Cache, Direction, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::txn::{COMMIT_RECORD_KEY, CommitInfo, Database, Options, ReadView, Transaction};
use pgbee_engine::{Error, Version};
use proptest::prelude::*;

/// A value, and the commit that wrote it.
type Map = BTreeMap<Bytes, (Bytes, usize)>;

/// What a savepoint goes back to: writes with the commit each was based on.
type Own = BTreeMap<Bytes, (Option<Bytes>, usize)>;

struct ModelTransaction {
    real: Transaction,
    base: usize,
    own: Own,
    savepoints: Vec<(u8, Own)>,
    keys: Vec<(Bytes, usize)>,
    ranges: Vec<(KeyRange, usize)>,
}

#[derive(Clone, Debug)]
enum Op {
    Begin(usize),
    Put(usize, u8, u8),
    Delete(usize, u8),
    /// Many keys at once.
    Load(usize, u8),
    Read(usize, u8, u8),
    Refresh(usize),
    Savepoint(usize, u8),
    RollbackTo(usize, u8),
    Release(usize, u8),
    DependKey(usize, u8),
    DependRange(usize, u8, u8),
    Commit(usize),
    Rollback(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let t = || 0..4usize;
    let k = || 0..24u8;
    prop_oneof![
        3 => t().prop_map(Op::Begin),
        10 => (t(), k(), any::<u8>()).prop_map(|(t, k, v)| Op::Put(t, k, v)),
        5 => (t(), k()).prop_map(|(t, k)| Op::Delete(t, k)),
        1 => (t(), any::<u8>()).prop_map(|(t, v)| Op::Load(t, v)),
        4 => (t(), k(), k()).prop_map(|(t, a, b)| Op::Read(t, a, b)),
        1 => t().prop_map(Op::Refresh),
        1 => (t(), 0..2u8).prop_map(|(t, n)| Op::Savepoint(t, n)),
        1 => (t(), 0..2u8).prop_map(|(t, n)| Op::RollbackTo(t, n)),
        1 => (t(), 0..2u8).prop_map(|(t, n)| Op::Release(t, n)),
        1 => (t(), k()).prop_map(|(t, k)| Op::DependKey(t, k)),
        1 => (t(), k(), k()).prop_map(|(t, a, b)| Op::DependRange(t, a, b)),
        4 => t().prop_map(Op::Commit),
        1 => t().prop_map(Op::Rollback),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let large = Options::default();
    let small = (0..4000usize, 1..40usize, 1..20usize).prop_map(|(bytes, group, staged)| Options {
        write_set_bytes_max: bytes,
        group_entries_max: group,
        staged_entries: staged,
        ..Options::default()
    });
    prop_oneof![Just(large), small]
}

fn key(k: u8) -> Bytes {
    Bytes::from(format!("key{k:02}"))
}

fn range(a: u8, b: u8) -> KeyRange {
    KeyRange { start: Bound::Included(key(a)), end: Bound::Excluded(key(b)) }
}

fn value(v: u8) -> Bytes {
    Bytes::from(vec![v; usize::from(v % 50)])
}

/// The content of a view without the commit record.
fn content(view: &ReadView, range: KeyRange, direction: Direction) -> Vec<(Bytes, Bytes)> {
    let mut scan = view.scan(range.clone(), direction).unwrap();
    let mut found = vec![];
    while let Some(pair) = scan.next().unwrap() {
        found.push(pair);
    }
    // The other ways to read the same agree.
    let mut batched = vec![];
    let mut scan = view.scan(range.clone(), direction).unwrap();
    while scan.next_batch(&mut batched, 3).unwrap() > 0 {}
    assert_eq!(batched, found);
    let mut keys = vec![];
    let mut scan = view.scan_keys(range, direction).unwrap();
    while let Some((key, value)) = scan.next().unwrap() {
        assert!(value.is_empty());
        keys.push(key);
    }
    assert!(keys.iter().eq(found.iter().map(|(key, _)| key)));
    found.retain(|(key, _)| key != COMMIT_RECORD_KEY);
    found
}

fn plain(map: &Map) -> Vec<(Bytes, Bytes)> {
    map.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect()
}

struct World {
    store: Arc<Store>,
    db: Arc<Database>,
    options: Options,
    /// The map after each commit; the first is the empty database.
    maps: Vec<Map>,
    versions: Vec<Version>,
    open: BTreeMap<usize, ModelTransaction>,
    clock: i64,
}

impl World {
    fn new(options: Options) -> World {
        let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        let core = store.get_by_name("db").unwrap();
        let db = Database::open(core, Cache::new(1 << 18), options.clone()).unwrap();
        World {
            store,
            db,
            options,
            maps: vec![Map::new()],
            versions: vec![Version(0)],
            open: BTreeMap::new(),
            clock: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        let newest = self.maps.len() - 1;
        match *op {
            Op::Begin(t) => {
                let txn = ModelTransaction {
                    real: self.db.begin(),
                    base: newest,
                    own: Own::new(),
                    savepoints: vec![],
                    keys: vec![],
                    ranges: vec![],
                };
                self.open.insert(t, txn);
            }
            Op::Commit(t) => self.commit(t),
            Op::Rollback(t) => drop(self.open.remove(&t)),
            Op::Put(t, ..)
            | Op::Delete(t, _)
            | Op::Load(t, _)
            | Op::Read(t, ..)
            | Op::Refresh(t)
            | Op::Savepoint(t, _)
            | Op::RollbackTo(t, _)
            | Op::Release(t, _)
            | Op::DependKey(t, _)
            | Op::DependRange(t, ..) => {
                let Some(txn) = self.open.get_mut(&t) else {
                    return;
                };
                if let Op::Refresh(_) = op {
                    txn.real.refresh(self.db.snapshot());
                    txn.base = newest;
                } else {
                    txn.run(op, &self.maps);
                }
            }
        }
    }

    fn commit(&mut self, t: usize) {
        let Some(txn) = self.open.remove(&t) else {
            return;
        };
        let newest = self.maps.len() - 1;
        let map = &self.maps[newest];
        let changed = |key: &Bytes, base: usize| match map.get(key) {
            Some((_, written)) => *written > base,
            None => self.maps[base].contains_key(key),
        };
        let differs = |(range, base): &(KeyRange, usize)| {
            let inside = |map: &Map| -> Vec<_> {
                map.iter().filter(|(key, _)| range.contains(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            inside(map) != inside(&self.maps[*base])
        };
        let conflicts = txn.own.iter().any(|(key, (_, base))| changed(key, *base))
            || txn.keys.iter().any(|(key, base)| changed(key, *base))
            || txn.ranges.iter().any(differs);
        self.clock += 10;
        let mut info = CommitInfo::at(self.clock);
        info.rows_changed = txn.own.len() as u64;
        let result = self.db.commit(txn.real, info);
        if txn.own.is_empty() {
            assert_eq!(result, Ok(self.versions[txn.base]), "nothing was written");
        } else if conflicts {
            assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
        } else {
            let mut map = map.clone();
            for (key, (value, _)) in txn.own {
                match value {
                    Some(value) => drop(map.insert(key, (value, newest + 1))),
                    None => drop(map.remove(&key)),
                }
            }
            self.maps.push(map);
            self.versions.push(result.unwrap());
        }
        assert_eq!(self.db.head(), self.versions[self.versions.len() - 1]);
    }

    fn check_all_versions(&self) {
        let mut before = None;
        for (i, (&version, map)) in self.versions.iter().zip(&self.maps).enumerate() {
            let view = ReadView::from(self.db.snapshot_at(version).unwrap());
            assert_eq!(content(&view, KeyRange::all(), Direction::Forward), plain(map));
            let mut reversed = content(&view, KeyRange::all(), Direction::Backward);
            reversed.reverse();
            assert_eq!(reversed, plain(map));
            if i > 0 {
                let record = self.db.commit_record(version).unwrap();
                assert_eq!(record.number, i as u64);
                assert!(before.is_none_or(|time| time < record.time_micros));
                before = Some(record.time_micros);
                assert_eq!(self.db.version_at_time(record.time_micros), Ok(version));
                assert!(record.base() == self.versions[i - 1] || i == 1);
            }
        }
        let is_version = |length: u64| length <= 1 || self.versions.contains(&Version(length));
        for length in 0..=self.db.head().0 + 1 {
            let found = self.db.snapshot_at(Version(length));
            assert_eq!(found.is_ok(), is_version(length), "length {length}");
        }
        self.check_history();
        self.db.snapshot().bee().audit().unwrap();
    }

    /// Diffs and history between any two versions say how to get from one map to the other.
    fn check_history(&self) {
        let head = self.db.snapshot();
        let last = self.versions.len() - 1;
        for (from, to) in [(0, last), (last / 2, last), (last / 3, last / 2)] {
            let (older, newer) = (&self.maps[from], &self.maps[to]);
            let snapshot = |i: usize| self.db.snapshot_at(self.versions[i]).unwrap();
            let mut diff = snapshot(to).diff(&snapshot(from), KeyRange::prefix(b"key"));
            let mut found = vec![];
            while let Some(difference) = diff.next().unwrap() {
                let key = difference.left.as_ref().or(difference.right.as_ref()).unwrap().key.clone();
                let value = |entry: Option<pgbee_engine::bee::Entry>| entry.and_then(|e| e.value);
                found.push((key, value(difference.right), value(difference.left)));
            }
            let mut keys: Vec<&Bytes> = older.keys().chain(newer.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.retain(|key| older.get(*key) != newer.get(*key));
            let value = |map: &Map, key: &Bytes| map.get(key).map(|(value, _)| value.clone());
            let want: Vec<_> = keys.into_iter().map(|k| (k.clone(), value(older, k), value(newer, k))).collect();
            assert_eq!(found, want);

            let (from_version, to_version) = (self.versions[from], self.versions[to]);
            let mut history = head.history(KeyRange::prefix(b"key"), from_version, to_version).unwrap();
            let mut replayed = plain(older).into_iter().collect::<BTreeMap<_, _>>();
            let mut at = from;
            while let Some(item) = history.next().unwrap() {
                while self.versions[at] < item.version {
                    assert_eq!(replayed.clone().into_iter().collect::<Vec<_>>(), plain(&self.maps[at]));
                    at += 1;
                }
                assert_eq!(self.versions[at], item.version);
                let record = self.db.commit_record(item.version).unwrap();
                assert_eq!(item.time_micros, Some(record.time_micros));
                let there = self.db.snapshot_at(item.base).unwrap().get(&item.key).unwrap();
                assert_eq!(there, value(&self.maps[at - 1], &item.key));
                match item.value {
                    Some(value) => drop(replayed.insert(item.key, value)),
                    None => drop(replayed.remove(&item.key)),
                }
            }
            assert_eq!(replayed.into_iter().collect::<Vec<_>>(), plain(newer));
        }
    }

    fn reopen(&mut self) {
        self.open.clear();
        let core = self.store.get_by_name("db").unwrap();
        self.db = Database::open(core, Cache::new(1 << 16), self.options.clone()).unwrap();
    }
}

impl ModelTransaction {
    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        let base = self.own.get(&key).map_or(self.base, |(_, base)| (*base).min(self.base));
        self.own.insert(key.clone(), (value.clone(), base));
        match value {
            Some(value) => self.real.put(key, value).unwrap(),
            None => self.real.delete(key).unwrap(),
        }
    }

    fn seen(&self, maps: &[Map]) -> BTreeMap<Bytes, Bytes> {
        let mut seen: BTreeMap<Bytes, Bytes> = plain(&maps[self.base]).into_iter().collect();
        for (key, (value, _)) in &self.own {
            match value {
                Some(value) => drop(seen.insert(key.clone(), value.clone())),
                None => drop(seen.remove(key)),
            }
        }
        seen
    }

    fn run(&mut self, op: &Op, maps: &[Map]) {
        match *op {
            Op::Put(_, k, v) => self.write(key(k), Some(value(v))),
            Op::Delete(_, k) => self.write(key(k), None),
            Op::Load(_, v) => (0..60).for_each(|k| self.write(key(k), Some(value(v)))),
            Op::Read(_, a, b) => {
                let seen = self.seen(maps);
                assert_eq!(self.real.get(&key(a)).unwrap(), seen.get(&key(a)).cloned());
                let inside = seen.into_iter().filter(|(k, _)| range(a, b).contains(k));
                let mut inside: Vec<_> = inside.collect();
                let view = self.real.view();
                assert_eq!(content(&view, range(a, b), Direction::Forward), inside);
                inside.reverse();
                assert_eq!(content(&view, range(a, b), Direction::Backward), inside);
            }
            Op::Savepoint(_, name) => {
                self.real.savepoint(&name.to_string());
                self.savepoints.push((name, self.own.clone()));
            }
            Op::RollbackTo(_, name) | Op::Release(_, name) => {
                let place = self.savepoints.iter().rposition(|(n, _)| *n == name);
                let is_release = matches!(op, Op::Release(..));
                let result = match is_release {
                    true => self.real.release(&name.to_string()),
                    false => self.real.rollback_to(&name.to_string()),
                };
                assert_eq!(result.is_ok(), place.is_some());
                let Some(place) = place else { return };
                if is_release {
                    self.savepoints.truncate(place);
                } else {
                    self.savepoints.truncate(place + 1);
                    self.own = self.savepoints[place].1.clone();
                }
            }
            Op::DependKey(_, k) => {
                self.real.depend_key(key(k));
                self.keys.push((key(k), self.base));
            }
            Op::DependRange(_, a, b) => {
                self.real.depend_range(range(a, b));
                self.ranges.push((range(a, b), self.base));
            }
            _ => unreachable!("done by the world"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Interleaved transactions are the maps they ought to be, and every version stays what it was.
    #[test]
    fn transactions_are_maps_and_the_first_to_commit_wins(
        ops in prop::collection::vec(op(), 0..220),
        options in options(),
    ) {
        let mut world = World::new(options);
        for op in &ops {
            world.run(op);
        }
        world.check_all_versions();
        world.reopen();
        world.check_all_versions();
        // And it goes on from there.
        for op in [Op::Begin(0), Op::Put(0, 1, 1), Op::Commit(0)] {
            world.run(&op);
        }
        world.check_all_versions();
    }
}
