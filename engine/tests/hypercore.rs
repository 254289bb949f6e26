//! What a core promises, seen from outside: readers and a writer, failed writes, stages, damage.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::crypto::key::KeyPair;
use pgbee_engine::crypto::manifest::Manifest;
use pgbee_engine::hypercore::append::BLOCK_BYTES_MAX;
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::storage::faulty::{Fault, Faulty, Plan};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::storage::{Backend, Durability, Range, Scan, Space, Statistics, WriteBatch};
use pgbee_engine::{BlockIndex, Error, Fork, Length, StorageErrorKind};

fn block(n: u64) -> Bytes {
    Bytes::from(format!("block {n} ").repeat(1 + n as usize % 5))
}

fn blocks(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(block).collect()
}

fn open(backend: &Arc<impl Backend + 'static>) -> pgbee_engine::Result<Arc<Core>> {
    let store = Store::open(backend.clone(), Options { primary_key: Some([1; 32]) })?;
    store.get_by_name("log")
}

/// The core is whole and holds just the blocks 0 to `length`.
fn check(core: &Core, length: u64) {
    assert_eq!(core.len(), Length(length));
    assert_eq!(core.verify(|_, _| ()).unwrap().blocks, Length(length));
    assert_eq!(core.get_range(BlockIndex(0), length as usize).unwrap(), blocks(0..length));
    for n in 0..length {
        assert_eq!(core.get(BlockIndex(n)).unwrap(), block(n));
    }
}

#[test]
fn blocks_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let small = RocksOptions { write_buffer_bytes: 64 << 10, ..RocksOptions::default() };
    let mut length = 0;
    for _ in 0..3 {
        let rocks = Arc::new(Rocks::open(dir.path(), &small).unwrap());
        let core = open(&rocks).unwrap();
        check(&core, length);
        for some in [1, 2, 300, 64, 63] {
            let head = core.append(&blocks(length..length + some), Durability::Sync).unwrap();
            length += some;
            assert_eq!((head.length, head.fork), (Length(length), Fork(0)));
            assert_eq!((core.head(), core.durable_len()), (head, Length(length)));
        }
        check(&core, length);
        assert_eq!((core.contiguous_len(), core.held_blocks()), (Length(length), length));
        let beyond = core.get(BlockIndex(length));
        assert!(matches!(beyond, Err(Error::Invalid(_))), "{beyond:?}");
        assert!(core.get_range(BlockIndex(length - 1), 2).is_err());
        assert!(core.get_range(BlockIndex(u64::MAX), 2).is_err());
        assert_eq!(core.get_range(BlockIndex(length), 0).unwrap().len(), 0);
        assert_eq!(core.blocks(BlockIndex(length - 2), 9).unwrap(), blocks(length - 2..length));
        assert!(core.blocks(BlockIndex(length), 1).is_err());
        assert!(rocks.statistics().entries[Space::Block as usize] >= length);
    }
}

#[test]
fn appends_that_make_no_sense_are_refused() {
    let core = open(&Arc::new(Memory::new())).unwrap();
    let huge = Bytes::from(vec![0; BLOCK_BYTES_MAX + 1]);
    let refused = core.append(&[block(0), huge.clone()], Durability::Sync);
    assert!(matches!(refused, Err(Error::Invalid(_))));
    assert!(core.stage().unwrap().push(&[huge]).is_err());
    assert_eq!(core.append(&[], Durability::Sync).unwrap().length, Length(0));
    assert!(core.is_empty());
    core.append(&[Bytes::new(), Bytes::new()], Durability::NoSync).unwrap();
    assert_eq!(core.get(BlockIndex(1)).unwrap(), "");
    assert_eq!((core.len(), core.durable_len()), (Length(2), Length(0)));
    core.sync().unwrap();
    assert_eq!(core.durable_len(), Length(2));
}

#[test]
fn readers_see_whole_appends_while_a_writer_goes_on() {
    let core = open(&Arc::new(Memory::new())).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = core.watch().position();
                while !done.load(Ordering::Relaxed) {
                    let length = core.len().0;
                    assert_eq!(length % 3, 0, "a part of an append was seen");
                    if let Some(last) = length.checked_sub(1) {
                        assert_eq!(core.get(BlockIndex(last)).unwrap(), block(last));
                    }
                    let now = core.watch().wait(seen, Duration::from_millis(1));
                    assert!(now >= seen);
                    seen = now;
                }
            });
        }
        for n in 0..200 {
            core.append(&blocks(3 * n..3 * n + 3), Durability::Sync).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&core, 600);
}

#[test]
fn a_failed_append_leaves_the_core_as_it_was() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::NoSpace] {
        for survive in [false, true] {
            let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
            let core = open(&faulty).unwrap();
            core.append(&blocks(0..70), Durability::Sync).unwrap();
            let head = core.head();
            faulty.set_plan(Plan::at(faulty.writes() + 1, fault));
            // Other blocks than those appended later: nothing of them may be left.
            let failed = core.append(&blocks(900..1100), Durability::Sync);
            let kind = match fault {
                Fault::NoSpace => StorageErrorKind::NoSpace,
                _ => StorageErrorKind::Injected,
            };
            assert!(matches!(failed, Err(Error::Storage(error)) if error.kind == kind));
            assert_eq!(core.head(), head);
            check(&core, 70);
            if survive {
                // The process goes on: the next append is as if nothing had been.
                core.append(&blocks(70..75), Durability::Sync).unwrap();
                core.append(&blocks(75..200), Durability::Sync).unwrap();
                check(&core, 200);
                drop(core);
                check(&open(&faulty).unwrap(), 200);
            } else {
                // It ends here: what was reported as failed is there as a whole, or not at all.
                drop(core);
                let core = open(&faulty).unwrap();
                core.verify(|_, _| ()).unwrap();
                let expected = if fault == Fault::FailAfter { 270 } else { 70 };
                assert_eq!(core.len(), Length(expected));
            }
        }
    }
}

#[test]
fn a_stage_becomes_visible_as_one() {
    let backend = Arc::new(Memory::new());
    let core = open(&backend).unwrap();
    core.append(&blocks(0..10), Durability::Sync).unwrap();
    let stage = core.stage().unwrap();
    for n in 0..50 {
        stage.push(&blocks(10 + 20 * n..30 + 20 * n)).unwrap();
        assert_eq!(stage.len(), Length(30 + 20 * n));
        assert_eq!(stage.get(BlockIndex(9 + 20 * n)).unwrap(), block(9 + 20 * n));
        assert_eq!(core.len(), Length(10));
        assert!(core.get(BlockIndex(10)).is_err());
    }
    assert_eq!(stage.blocks(BlockIndex(5), 9999).unwrap(), blocks(5..1010));
    assert!(stage.get(BlockIndex(1010)).is_err());
    check(&core, 10);
    stage.commit(Durability::Sync).unwrap();
    check(&core, 1010);
    assert!(stage.push(&blocks(0..1)).is_err() && stage.commit(Durability::Sync).is_err());
    // The stage is over, so appending does not wait for it to be dropped.
    core.append(&blocks(1010..1011), Durability::Sync).unwrap();
    drop((stage, core));
    check(&open(&backend).unwrap(), 1011);
}

#[test]
fn a_dropped_stage_leaves_nothing() {
    let backend = Arc::new(Memory::new());
    let core = open(&backend).unwrap();
    core.append(&blocks(0..10), Durability::Sync).unwrap();
    let before: Vec<_> =
        [Space::Block, Space::Tree, Space::Meta].map(|space| backend.scan(space, Range::all(), false).count()).to_vec();
    let stage = core.stage().unwrap();
    stage.push(&blocks(500..900)).unwrap();
    drop(stage);
    let after: Vec<_> =
        [Space::Block, Space::Tree, Space::Meta].map(|space| backend.scan(space, Range::all(), false).count()).to_vec();
    assert_eq!(before, after);
    core.append(&blocks(10..12), Durability::Sync).unwrap();
    check(&core, 12);
    // An empty one changes nothing.
    assert_eq!(core.stage().unwrap().commit(Durability::Sync).unwrap(), core.head());
}

#[test]
fn a_stage_left_by_a_crash_is_removed_by_the_next_append() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let core = open(&faulty).unwrap();
    core.append(&blocks(0..10), Durability::Sync).unwrap();
    let stage = core.stage().unwrap();
    stage.push(&blocks(500..1000)).unwrap();
    faulty.crash();
    drop((stage, core));
    faulty.heal(usize::MAX).unwrap();
    let core = open(&faulty).unwrap();
    assert!(faulty.scan(Space::Block, Range::all(), false).count() > 10, "the crash left blocks");
    check(&core, 10);
    for n in 10..100 {
        core.append(&blocks(n..n + 1), Durability::NoSync).unwrap();
    }
    check(&core, 100);
    assert_eq!(faulty.scan(Space::Block, Range::all(), false).count(), 100);
}

#[test]
fn a_stage_survives_a_full_disk() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let core = open(&faulty).unwrap();
    core.append(&blocks(0..10), Durability::Sync).unwrap();
    let stage = core.stage().unwrap();
    stage.push(&blocks(10..20)).unwrap();
    let next = faulty.writes() + 1;
    faulty.set_plan(Plan::none().no_space(next, 2).and(next + 3, Fault::FailAfter));
    assert!(stage.push(&blocks(20..40)).is_err());
    assert!(stage.push(&blocks(20..40)).is_err());
    stage.push(&blocks(20..40)).unwrap();
    assert!(stage.commit(Durability::Sync).is_err(), "the head is written, and yet said to have failed");
    check(&core, 10);
    stage.commit(Durability::Sync).unwrap();
    check(&core, 40);
    let stage = core.stage().unwrap();
    stage.push(&blocks(700..800)).unwrap();
    faulty.set_plan(Plan::at(faulty.writes() + 1, Fault::FailAfter));
    assert!(stage.commit(Durability::Sync).is_err());
    // The head that was said to have failed goes with the blocks it covers.
    drop((stage, core));
    check(&open(&faulty).unwrap(), 40);
}

/// Changes what is stored behind the core's back.
fn alter(backend: &dyn Backend, space: Space, pick: usize, change: impl Fn(&mut Vec<u8>)) {
    let (key, value) = backend.scan(space, Range::all(), false).nth(pick).unwrap().unwrap();
    let mut value = value.to_vec();
    change(&mut value);
    let mut batch = WriteBatch::new();
    batch.put(space, &key, &value);
    backend.write(batch, Durability::Sync).unwrap();
}

fn corrupt_block<T>(result: pgbee_engine::Result<T>) -> Option<BlockIndex> {
    match result.err() {
        Some(Error::Corrupt { core: Some(_), block, .. }) => block,
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_blocks_are_named_and_never_returned() {
    let backend = Arc::new(Memory::new());
    let core = open(&backend).unwrap();
    core.append(&blocks(0..200), Durability::Sync).unwrap();
    let bad = BlockIndex(77);
    let (key, sound) = backend.scan(Space::Block, Range::all(), false).nth(77).unwrap().unwrap();
    for at in 0..sound.len() {
        alter(&*backend, Space::Block, 77, |value| value[at] ^= 0x10);
        assert_eq!(corrupt_block(core.get(bad)), Some(bad));
        assert_eq!(corrupt_block(core.get_range(BlockIndex(0), 200)), Some(bad));
        assert_eq!(corrupt_block(core.verify(|_, _| ())), Some(bad));
        assert_eq!(core.blocks(BlockIndex(70), 100).unwrap(), blocks(70..77));
        assert_eq!(core.get(BlockIndex(78)).unwrap(), block(78));
        alter(&*backend, Space::Block, 77, |value| value[at] ^= 0x10);
    }
    // Cut off, gone, or another block's bytes under its key.
    for len in 0..sound.len() {
        alter(&*backend, Space::Block, 77, |value| value.truncate(len));
        assert_eq!(corrupt_block(core.get(bad)), Some(bad));
        alter(&*backend, Space::Block, 77, |value| *value = sound.to_vec());
    }
    let (_, other) = backend.scan(Space::Block, Range::all(), false).nth(78).unwrap().unwrap();
    alter(&*backend, Space::Block, 77, |value| *value = other.to_vec());
    assert_eq!(corrupt_block(core.get(bad)), Some(bad));
    let mut batch = WriteBatch::new();
    batch.delete(Space::Block, &key);
    backend.write(batch, Durability::Sync).unwrap();
    assert_eq!(corrupt_block(core.get(bad)), Some(bad));
    assert_eq!(corrupt_block(core.get_range(BlockIndex(70), 20)), Some(bad));
    assert_eq!(corrupt_block(core.verify(|_, _| ())), Some(bad));
}

#[test]
fn blocks_altered_together_with_their_checksum_are_found_by_verify() {
    let backend = Arc::new(Memory::new());
    let core = open(&backend).unwrap();
    core.append(&blocks(0..100), Durability::Sync).unwrap();
    core.append(&blocks(100..131), Durability::Sync).unwrap();
    for n in [0, 63, 64, 99, 100, 130] {
        let (key, _) = backend.scan(Space::Block, Range::all(), false).nth(n).unwrap().unwrap();
        let forged = b"forged".as_slice();
        let checksum = pgbee_engine::storage::record::seal(&key, forged);
        alter(&*backend, Space::Block, n, |value| *value = [&checksum[..], forged].concat());
        assert_eq!(core.get(BlockIndex(n as u64)).unwrap(), forged, "a read cannot know");
        assert_eq!(corrupt_block(core.verify(|_, _| ())), Some(BlockIndex(n as u64)));
        let sound = block(n as u64);
        let checksum = pgbee_engine::storage::record::seal(&key, &sound);
        alter(&*backend, Space::Block, n, |value| *value = [&checksum[..], &sound].concat());
        core.verify(|_, _| ()).unwrap();
    }
}

#[test]
fn damaged_nodes_and_heads_are_found() {
    let fresh = || {
        let backend = Arc::new(Memory::new());
        let core = open(&backend).unwrap();
        core.append(&blocks(0..100), Durability::Sync).unwrap();
        (backend, core)
    };
    // Chunks of nodes: 0..64 and 64..100.
    for (chunk, first) in [(0, 0), (1, 64)] {
        let (backend, core) = fresh();
        alter(&*backend, Space::Tree, chunk, |value| value[50] ^= 1);
        assert_eq!(corrupt_block(core.verify(|_, _| ())), Some(BlockIndex(first)));
        drop(core);
        // The roots 63, 159 and 197 are in both; opening needs all of them.
        assert_eq!(corrupt_block(open(&backend)), None);
    }
    // One chunk that says it is both, with all their nodes.
    let (backend, core) = fresh();
    let chunks: Vec<_> = backend.scan(Space::Tree, Range::all(), false).map(Result::unwrap).collect();
    let forged = [&[100], &chunks[0].1[5..], &chunks[1].1[5..]].concat();
    let checksum = pgbee_engine::storage::record::seal(&chunks[1].0, &forged);
    let mut batch = WriteBatch::new();
    batch.delete(Space::Tree, &chunks[0].0);
    batch.put_parts(Space::Tree, &chunks[1].0, &[&checksum, &forged]);
    backend.write(batch, Durability::Sync).unwrap();
    assert_eq!(corrupt_block(core.verify(|_, _| ())), Some(BlockIndex(0)));
    // The head: found at open, wherever the bit is.
    let (backend, core) = fresh();
    let meta: Vec<_> = backend.scan(Space::Meta, Range::all(), false).map(Result::unwrap).collect();
    let head = meta.iter().position(|(key, _)| key[0] == 4).unwrap();
    for at in (0..meta[head].1.len()).step_by(7) {
        alter(&*backend, Space::Meta, head, |value| value[at] ^= 4);
        assert_eq!(corrupt_block(open(&backend)), None);
        alter(&*backend, Space::Meta, head, |value| value[at] ^= 4);
    }
    // A head of another core, sealed as it should be, is not this core's.
    let other = Store::open(Arc::new(Memory::new()), Options { primary_key: Some([2; 32]) }).unwrap();
    let other_core = other.get_by_name("log").unwrap();
    other_core.append(&blocks(0..100), Durability::Sync).unwrap();
    let key = &meta[head].0;
    let foreign = other.backend().get(Space::Meta, key).unwrap().unwrap();
    alter(&*backend, Space::Meta, head, |value| *value = foreign.to_vec());
    drop(core);
    assert_eq!(corrupt_block(open(&backend)), None);
}

#[test]
fn a_store_that_lost_its_newest_block_does_not_open() {
    let backend = Arc::new(Memory::new());
    let core = open(&backend).unwrap();
    core.append(&blocks(0..8), Durability::Sync).unwrap();
    drop(core);
    alter(&*backend, Space::Block, 7, |value| value[9] ^= 1);
    assert_eq!(corrupt_block(open(&backend)), Some(BlockIndex(7)));
}

/// Calls something before each write.
struct Watched<F> {
    inner: Memory,
    before_write: F,
}

impl<F: Fn() + Send + Sync> Backend for Watched<F> {
    fn get(&self, space: Space, key: &[u8]) -> pgbee_engine::Result<Option<Bytes>> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        self.inner.scan(space, range, reverse)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> pgbee_engine::Result<()> {
        (self.before_write)();
        self.inner.write(batch, durability)
    }

    fn sync(&self) -> pgbee_engine::Result<()> {
        self.inner.sync()
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

#[test]
fn nobody_waits_for_the_disk_while_a_manifest_is_learnt() {
    let manifest = Manifest::single(KeyPair::from_seed(&[5; 32]).public_key());
    let watched: Arc<Mutex<Option<Arc<Core>>>> = Arc::default();
    let seen = watched.clone();
    let before_write = move || {
        let Some(core) = seen.lock().unwrap().clone() else { return };
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(core.verifier().is_some()));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(false), "a reader waits for the write");
    };
    let backend = Arc::new(Watched { inner: Memory::new(), before_write });
    let store = Store::open(backend, Options::default()).unwrap();
    let core = store.get_by_key(manifest.key()).unwrap();
    *watched.lock().unwrap() = Some(core.clone());
    core.learn_manifest(manifest.clone()).unwrap();
    assert_eq!(core.manifest(), Some(manifest));
    *watched.lock().unwrap() = None;
}
