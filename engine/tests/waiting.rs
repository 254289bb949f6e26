//! Reads through a source that waits: a replica that begins with nothing, and counts how often it had to wait and what it fetched.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::bee::extension::{self, Message};
use pgbee_engine::bee::{Bee, Cache, Direction, Entry, KeyRange};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::hypercore::extensions::ExtensionHandler;
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::storage::Durability;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::txn::{CommitInfo, Database, HistoryStep, Options, Transaction};
use pgbee_engine::{BlockIndex, Error, Result, Version};

/// A replica of a core: what it holds, what it was told to want, and what that cost.
struct Replica {
    writer: Arc<Core>,
    held: Mutex<HashSet<BlockIndex>>,
    wanted: Mutex<HashSet<BlockIndex>>,
    rounds: AtomicUsize,
    asked: Mutex<Vec<Bytes>>,
    /// Who answers questions, and whether the answers are heeded.
    peer: Option<Arc<dyn ExtensionHandler>>,
    /// Every other wait is broken off.
    gives_up: AtomicBool,
    waits: AtomicUsize,
}

impl Replica {
    fn of(writer: &Arc<Core>) -> Arc<Replica> {
        Replica::with_peer(writer, None)
    }

    fn with_peer(writer: &Arc<Core>, peer: Option<Arc<dyn ExtensionHandler>>) -> Arc<Replica> {
        Arc::new(Replica {
            writer: writer.clone(),
            held: Mutex::default(),
            wanted: Mutex::default(),
            rounds: AtomicUsize::new(0),
            asked: Mutex::default(),
            peer,
            gives_up: AtomicBool::new(false),
            waits: AtomicUsize::new(0),
        })
    }

    fn at(self: &Arc<Self>, version: Version) -> pgbee_engine::bee::Snapshot {
        Bee::new(self.clone(), Cache::new(64 << 20), 1).at(version)
    }

    /// Rounds waited and blocks fetched since this was last asked.
    fn cost(&self) -> (usize, usize) {
        let fetched = self.held.lock().len();
        (self.rounds.swap(0, Ordering::Relaxed), fetched)
    }
}

impl BlockSource for Replica {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        match self.held.lock().contains(&index) {
            true => self.writer.get(index),
            false => Err(Error::MissingBlock(index)),
        }
    }

    fn want(&self, blocks: &[BlockIndex]) {
        assert!(blocks.iter().all(|block| self.writer.len().contains(*block)), "a block that is nowhere");
        self.wanted.lock().extend(blocks);
    }

    fn fetch(&self, block: BlockIndex) -> Result<()> {
        if self.waits.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) && self.gives_up.load(Ordering::Relaxed) {
            return Err(Error::GaveUp(block));
        }
        assert!(!self.held.lock().contains(&block), "{block} was fetched before");
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let mut held = self.held.lock();
        held.insert(block);
        held.extend(self.wanted.lock().drain());
        Ok(())
    }

    fn ask(&self, name: &'static str, payload: Bytes) {
        assert_eq!(name, "hyperbee");
        self.asked.lock().push(payload.clone());
        let Some(peer) = &self.peer else { return };
        for answer in peer.handle(&payload) {
            let cache = Message::decode(&answer).unwrap().cache.unwrap();
            assert!(cache.blocks.len() <= 128);
            assert_eq!(cache.start, *cache.blocks.iter().min().unwrap());
            assert_eq!(cache.end, *cache.blocks.iter().max().unwrap() + 1);
            self.wanted.lock().extend(cache.blocks.into_iter().map(BlockIndex));
        }
    }
}

fn store() -> Arc<Store> {
    Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap()
}

fn database(store: &Arc<Store>) -> Arc<Database> {
    Database::open(store.get_by_name("db").unwrap(), Cache::new(64 << 20), Options::default()).unwrap()
}

fn commit(db: &Database, time: i64, work: impl FnOnce(&mut Transaction)) -> Version {
    let mut txn = db.begin();
    work(&mut txn);
    let info = CommitInfo { durability: Durability::NoSync, ..CommitInfo::at(time) };
    db.commit(txn, info).unwrap()
}

fn key(i: u64) -> Vec<u8> {
    i.to_be_bytes().to_vec()
}

/// `count` keys in an order that scatters neighbours over the log.
fn scattered(count: u64) -> (Arc<Store>, Arc<Database>) {
    let store = store();
    let db = database(&store);
    for part in 0..10u64 {
        commit(&db, part as i64, |txn| {
            for i in (0..count).filter(|i| i * 7919 % 10 == part) {
                txn.put(key(i), format!("value {i}")).unwrap();
            }
        });
    }
    (store, db)
}

fn read(mut next: impl FnMut() -> Result<Option<Entry>>, count: usize) -> Vec<Entry> {
    (0..count).map_while(|_| next().unwrap()).collect()
}

fn register(db: &Database) -> Arc<dyn ExtensionHandler> {
    extension::register(db.core(), Cache::new(8 << 20));
    db.core().extensions().handler("hyperbee").unwrap().1
}

#[test]
fn a_cold_get_waits_about_once_a_level() {
    let (_store, db) = scattered(100_000);
    let depth = db.snapshot().bee().audit().unwrap().depth;
    for i in [0u64, 1, 777, 50_000, 99_999] {
        let replica = Replica::of(db.core());
        let found = replica.at(db.head()).get(&key(i)).unwrap().unwrap();
        assert_eq!(found.value.unwrap(), format!("value {i}"));
        let (rounds, blocks) = replica.cost();
        assert!(rounds <= depth + 1, "{rounds} rounds for {depth} levels");
        assert!(blocks <= 17 * depth, "{blocks} blocks");
        assert_eq!(replica.asked.lock().len(), 1, "asked once");
    }
    let replica = Replica::of(db.core());
    let snapshot = replica.at(db.head());
    assert_eq!(snapshot.get(&key(100_001)), Ok(None));
    replica.cost();
    assert_eq!(snapshot.get(&key(100_001)), Ok(None));
    assert_eq!(replica.cost().0, 0, "all that was needed is here");
}

#[test]
fn many_gets_wait_as_often_as_one() {
    let (_store, db) = scattered(100_000);
    let depth = db.snapshot().bee().audit().unwrap().depth;
    let keys: Vec<Vec<u8>> = (0..500).map(|i| key(i * 7919 % 110_000)).collect();
    let replica = Replica::of(db.core());
    let reader = Database::reader(db.core().clone(), replica.clone(), Cache::new(0));
    let mut txn = reader.begin();
    txn.put(keys[3].clone(), "own").unwrap();
    txn.delete(keys[4].clone()).unwrap();
    let values = txn.view().get_many(&keys).unwrap();
    let (rounds, blocks) = replica.cost();
    assert!(rounds <= depth + 1, "{rounds} rounds");
    assert!(blocks < 10_000, "{blocks} blocks");
    for (i, (key, value)) in keys.iter().zip(values).enumerate() {
        let expected = match i {
            3 => Some(Bytes::from("own")),
            4 => None,
            _ => db.snapshot().get(key).unwrap(),
        };
        assert_eq!(value, expected);
    }
}

#[test]
fn a_cold_get_with_a_helpful_peer_waits_once() {
    let (_store, db) = scattered(100_000);
    let peer = register(&db);
    for i in [5u64, 70_001, 200_000] {
        let replica = Replica::with_peer(db.core(), Some(peer.clone()));
        let found = replica.at(db.head()).get(&key(i)).unwrap();
        assert_eq!(found.is_some(), i < 100_000);
        let (rounds, blocks) = replica.cost();
        assert!(rounds == 1 && blocks < 50, "{rounds} rounds, {blocks} blocks");
    }
}

#[test]
fn a_range_waits_a_few_times() {
    let (_store, db) = scattered(100_000);
    let depth = db.snapshot().bee().audit().unwrap().depth;
    for (direction, first) in [(Direction::Forward, 40_000), (Direction::Backward, 40_999)] {
        let range = KeyRange::half_open(key(40_000), key(41_000));
        let replica = Replica::of(db.core());
        let mut cursor = replica.at(db.head()).cursor(range.clone(), direction);
        let entries = read(|| cursor.next(), 2000);
        assert_eq!((entries.len(), &entries[0].key[..]), (1000, &key(first)[..]));
        let (rounds, blocks) = replica.cost();
        println!("{direction:?}: {rounds} rounds, {blocks} blocks");
        assert!(rounds <= depth + 8, "{rounds} rounds");
        assert!(blocks < 2500, "{blocks} blocks");

        // Nothing says where the range ends but the caller.
        let open = match direction {
            Direction::Forward => KeyRange { start: range.start, ..KeyRange::all() },
            Direction::Backward => KeyRange { end: range.end, ..KeyRange::all() },
        };
        let replica = Replica::of(db.core());
        let mut cursor = replica.at(db.head()).cursor(open, direction).expecting(1000);
        assert_eq!(read(|| cursor.next(), 1000), entries);
        let (rounds, blocks) = replica.cost();
        println!("{direction:?} expecting: {rounds} rounds, {blocks} blocks");
        assert!(rounds <= depth + 6, "{rounds} rounds");
        assert!(blocks < 2500, "{blocks} blocks");
    }
    // A short read fetches little.
    let replica = Replica::of(db.core());
    let mut cursor = replica.at(db.head()).cursor(KeyRange::prefix(&key(40_000)), Direction::Forward);
    assert_eq!(read(|| cursor.next(), 10).len(), 1);
    let (rounds, blocks) = replica.cost();
    assert!(rounds <= depth + 4 && blocks < 17 * depth + 64, "{rounds} rounds, {blocks} blocks");
}

#[test]
fn a_whole_scan_waits_seldom_and_fetches_each_block_once() {
    let (_store, db) = scattered(30_000);
    let replica = Replica::of(db.core());
    let mut cursor = replica.at(db.head()).cursor(KeyRange::all(), Direction::Forward);
    assert_eq!(read(|| cursor.next(), usize::MAX).len(), 30_001);
    let (rounds, blocks) = replica.cost();
    println!("{rounds} rounds, {blocks} blocks, {} questions", replica.asked.lock().len());
    assert!(rounds < 80, "{rounds} rounds");
    assert!(blocks <= db.head().0 as usize);
    // Peers were asked again as it went on, from where it stood.
    let asked = replica.asked.lock();
    assert!(asked.len() > 2);
    let questions: Vec<_> = asked.iter().map(|asked| Message::decode(asked).unwrap().iterator.unwrap()).collect();
    assert!(questions[0].checkpoint.is_empty() && questions[0].limit == 0 && !questions[0].reverse);
    assert!(
        questions[1..].iter().all(|asked| asked.checkpoint.len().is_multiple_of(3) && !asked.checkpoint.is_empty())
    );
}

#[test]
fn ranges_with_a_helpful_peer_wait_once_a_question() {
    let (_store, db) = scattered(30_000);
    let peer = register(&db);
    for direction in [Direction::Forward, Direction::Backward] {
        let replica = Replica::with_peer(db.core(), Some(peer.clone()));
        let range = KeyRange::half_open(key(500), key(1500));
        let mut cursor = replica.at(db.head()).cursor(range, direction);
        assert_eq!(read(|| cursor.next(), usize::MAX).len(), 1000);
        let (rounds, blocks) = replica.cost();
        println!("{rounds} rounds, {blocks} blocks");
        assert!(rounds == 1, "{rounds} rounds");
    }
}

#[test]
fn a_checkpoint_is_gone_on_from() {
    let (_store, db) = scattered(30_000);
    let peer = register(&db);
    for direction in [Direction::Forward, Direction::Backward] {
        // What the cursor asks when it has got half way, is answered with what it will read next.
        let replica = Replica::of(db.core());
        let mut cursor = replica.at(db.head()).cursor(KeyRange::all(), direction);
        let before: HashSet<u64> = read(|| cursor.next(), 9_000).iter().map(|entry| entry.seq.0).collect();
        let question = replica.asked.lock().last().cloned().unwrap();
        let answers = peer.handle(&question);
        let named: Vec<u64> =
            answers.iter().flat_map(|answer| Message::decode(answer).unwrap().cache.unwrap().blocks).collect();
        assert!((2048..=2200).contains(&named.len()), "{}", named.len());
        let mut next: Vec<u64> = read(|| cursor.next(), 3_000).iter().map(|entry| entry.seq.0).collect();
        // The question is some way back by now.
        next.extend(before.iter().copied());
        let keys = named.iter().filter(|block| next.contains(block)).count();
        assert!(keys > 1_000, "{keys} of {} are keys it reads", named.len());
        let unique: HashSet<&u64> = named.iter().collect();
        assert_eq!(unique.len(), named.len());
    }
}

#[test]
fn a_diff_fetches_what_differs() {
    let (_store, db) = scattered(30_000);
    let before = db.head();
    let after = commit(&db, 100, |txn| {
        for i in (0..30_000).step_by(100) {
            txn.put(key(i), "changed").unwrap();
        }
    });
    let replica = Replica::of(db.core());
    let bee = Bee::new(replica.clone(), Cache::new(64 << 20), 1);
    let mut diff = bee.at(after).diff(&bee.at(before), KeyRange::all());
    let mut found = 0;
    while diff.next().unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, 301);
    let (rounds, blocks) = replica.cost();
    println!("{rounds} rounds, {blocks} blocks");
    assert!(rounds < 40, "{rounds} rounds");
    assert!(blocks < 6_000, "{blocks} blocks of {}", after.0);

    let replica = Replica::of(db.core());
    let bee = Bee::new(replica.clone(), Cache::new(0), 1);
    let mut diff = bee.at(after).diff(&bee.at(before), KeyRange::half_open(key(1000), key(1201)));
    let mut found = 0;
    while diff.next().unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, 3);
    let (rounds, blocks) = replica.cost();
    assert!(rounds < 30 && blocks < 700, "{rounds} rounds, {blocks} blocks");
}

#[test]
fn histories_are_fetched_in_runs() {
    let (_store, db) = scattered(5_000);
    for direction in [Direction::Forward, Direction::Backward] {
        let replica = Replica::of(db.core());
        let mut history = replica.at(db.head()).history(BlockIndex(0)..BlockIndex(u64::MAX), direction);
        let mut found = 0;
        while history.next().unwrap().is_some() {
            found += 1;
        }
        assert_eq!(found, db.head().0 - 1);
        assert!(replica.cost().0 < 12);
    }
    let replica = Replica::of(db.core());
    let reader = Database::reader(db.core().clone(), replica.clone(), Cache::new(1 << 20));
    let mut history = reader.snapshot().history(KeyRange::all(), Version(1), reader.head()).unwrap();
    let mut found = 0;
    loop {
        match history.step().unwrap() {
            HistoryStep::Write(item) => {
                found += 1;
                assert!(item.time_micros.is_some());
            }
            HistoryStep::Read => {}
            HistoryStep::End => break,
        }
    }
    assert_eq!(found, db.head().0 - 1);
    assert!(replica.cost().0 < 12);
}

#[test]
fn a_reader_follows_the_core_and_writes_nothing() {
    let store = store();
    let db = database(&store);
    let versions: Vec<Version> =
        (0..300).map(|i| commit(&db, 10 * i, |txn| txn.put(key(i as u64 % 7), i.to_string()).unwrap())).collect();
    let replica = Replica::of(db.core());
    let cache = Cache::new(1 << 20);
    let reader = Database::reader(db.core().clone(), replica.clone(), cache.clone());
    assert_eq!((reader.head(), replica.cost()), (db.head(), (0, 0)), "opening reads nothing");

    let listed = |direction| {
        let mut commits = reader.commits(reader.head(), direction);
        let mut listed = Vec::new();
        while let Some(record) = commits.next().unwrap() {
            listed.push(record.version);
        }
        listed
    };
    let mut backward = listed(Direction::Backward);
    let (rounds, _) = replica.cost();
    assert!(rounds < 30, "{rounds} rounds for 300 commits");
    backward.reverse();
    assert_eq!(backward, versions);
    assert_eq!(listed(Direction::Forward), versions);
    assert_eq!(replica.cost().0, 0);

    let replica = Replica::of(db.core());
    let reader = Database::reader(db.core().clone(), replica.clone(), cache);
    assert_eq!(reader.version_at_time(1234), Ok(versions[123]));
    let (rounds, _) = replica.cost();
    assert!(rounds < 12, "{rounds} rounds for a time");
    assert_eq!(reader.snapshot_at(versions[5]).unwrap().get(&key(5)).unwrap().unwrap(), "5");
    assert_eq!(reader.first_commit().unwrap().unwrap().version, versions[0]);

    let mut txn = reader.begin();
    txn.put("k", "v").unwrap();
    assert_eq!(reader.commit(txn, CommitInfo::at(0)), Err(Error::NotWritable));
    assert_eq!(reader.commit(reader.begin(), CommitInfo::at(0)), Ok(reader.head()), "nothing to write");
    let newer = commit(&db, 1 << 40, |txn| txn.put(key(0), "newer").unwrap());
    assert_eq!(reader.head(), newer);
    assert_eq!(reader.snapshot().get(&key(0)).unwrap().unwrap(), "newer");
}

#[test]
fn who_gives_up_keeps_the_place() {
    let (_store, db) = scattered(3_000);
    let replica = Replica::of(db.core());
    let mut cursor = replica.at(db.head()).cursor(KeyRange::all(), Direction::Forward);
    replica.gives_up.store(true, Ordering::Relaxed);
    let (mut entries, mut gave_up) = (Vec::new(), 0);
    while entries.len() < 3_001 {
        match cursor.next_batch(&mut entries, 100) {
            Ok(count) => assert!(count > 0),
            Err(Error::GaveUp(_)) => gave_up += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(gave_up > 2, "{gave_up}");
    assert_eq!(cursor.next(), Ok(None));
    let mut all: Vec<_> = (0..3_000).map(key).chain([vec![6]]).collect();
    let mut read: Vec<_> = entries.iter().map(|entry| entry.key.to_vec()).collect();
    read.sort();
    all.sort();
    assert_eq!(read, all);
}

#[test]
fn what_checks_a_version_waits_for_nothing() {
    let (_store, db) = scattered(1_000);
    let replica = Replica::of(db.core());
    let snapshot = replica.at(db.head());
    assert!(matches!(snapshot.audit(), Err(Error::MissingBlock(_))));
    assert_eq!(replica.cost(), (0, 0));
    assert!(snapshot.header().is_ok(), "this one does");
    assert_eq!(replica.cost().0, 1);
}
