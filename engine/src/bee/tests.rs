//! What no one would think to script: a bee against a sorted map, and against hostile blocks.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;

use super::block::Encoder;
use super::*;
use crate::Result;
use crate::{Length, Version};

/// A log in memory. With `sparse`, every block is missing the first time it is asked for.
#[derive(Default)]
struct Log {
    blocks: Mutex<Vec<Bytes>>,
    sparse: bool,
    asked: Mutex<HashSet<u64>>,
    wanted: Mutex<HashSet<u64>>,
}

impl BlockSource for Log {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        if self.sparse && self.asked.lock().insert(index.0) {
            return Err(Error::MissingBlock(index));
        }
        let block = self.blocks.lock().get(index.0 as usize).cloned();
        block.ok_or_else(|| Error::Invalid(format!("there is no block {index}")))
    }

    fn want(&self, blocks: &[BlockIndex]) {
        self.wanted.lock().extend(blocks.iter().map(|block| block.0));
    }
}

impl Log {
    fn holding(blocks: Vec<Bytes>) -> Arc<Log> {
        Arc::new(Log { blocks: Mutex::new(blocks), ..Log::default() })
    }

    fn sparse(&self) -> Arc<Log> {
        Arc::new(Log { blocks: Mutex::new(self.blocks.lock().clone()), sparse: true, ..Log::default() })
    }

    fn append(&self, writer: &mut Writer) {
        self.blocks.lock().extend(writer.take_pending());
        writer.appended();
    }

    fn len(&self) -> u64 {
        self.blocks.lock().len() as u64
    }
}

/// Calls until a missing block is no longer the answer, as who waits for a peer does.
fn patiently<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    loop {
        match read() {
            Err(Error::MissingBlock(index)) => {
                assert_ne!(last, Some(index), "the block is there now");
                last = Some(index);
            }
            other => return other,
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(Bytes, Option<Bytes>),
    PutIf(Bytes, Option<Bytes>, bool),
    Delete(Bytes),
    DeleteIf(Bytes, bool),
    Get(Bytes),
}

fn key() -> impl Strategy<Value = Bytes> {
    // Few keys, so that they meet; prefixes of each other, zero bytes and nothing among them, and a long
    // common beginning for some.
    (0u8..90, 0usize..4).prop_map(|(n, shape)| match shape {
        0 => Bytes::copy_from_slice(&vec![0; usize::from(n % 5)]),
        1 => Bytes::copy_from_slice(&[n, 0]),
        2 => Bytes::copy_from_slice(&[n]),
        _ => [&b"a long common beginning"[..], &[n]].concat().into(),
    })
}

fn value() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Bytes::new())),
        6 => (0u8..3).prop_map(|n| Some(Bytes::copy_from_slice(&[n; 3]))),
        1 => (0u8..3).prop_map(|n| Some(vec![n; node::VALUE_KEPT_MAX + 1].into())),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        1 => (key(), value(), any::<bool>()).prop_map(|(k, v, yes)| Op::PutIf(k, v, yes)),
        6 => key().prop_map(Op::Delete),
        1 => (key(), any::<bool>()).prop_map(|(key, yes)| Op::DeleteIf(key, yes)),
        1 => key().prop_map(Op::Get),
    ]
}

#[derive(Clone, Debug)]
struct Commit {
    ops: Vec<Op>,
    always_duplicate: bool,
    new_writer: bool,
    append: bool,
    abort: bool,
}

fn commit() -> impl Strategy<Value = Commit> {
    let ops = prop_oneof![3 => vec(op(), 0..8), 1 => vec(op(), 0..120)];
    (ops, any::<[bool; 3]>(), 0..8).prop_map(|(ops, [dup, new, append], abort)| Commit {
        ops,
        always_duplicate: dup,
        new_writer: new,
        append,
        abort: abort == 0,
    })
}

fn bound() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded),]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (bound(), bound()).prop_map(|(start, end)| KeyRange { start, end })
}

type Model = BTreeMap<Bytes, Entry>;

/// Applies a batch to a bee and to a map.
fn apply(commit: &Commit, writer: &mut Writer, model: &mut Model, history: &mut Vec<Change>) {
    let first = writer.length().0.max(1);
    let mut batch = writer.batch().always_duplicate(commit.always_duplicate);
    for op in &commit.ops {
        let seq = BlockIndex(first + batch.blocks());
        let mut put = |key: &Bytes, value: &Option<Bytes>, done: bool| {
            let same = |entry: &Entry| entry.value == *value;
            let expected = commit.always_duplicate || !model.get(key).is_some_and(same);
            assert_eq!(done, expected);
            if done {
                let entry = Entry { seq, key: key.clone(), value: value.clone() };
                model.insert(key.clone(), entry);
                history.push(Change {
                    seq,
                    operation: history::Operation::Put,
                    key: key.clone(),
                    value: value.clone(),
                });
            }
        };
        let (deleted, allowed) = match op {
            Op::Put(key, value) => {
                put(key, value, batch.put(key, value.as_deref()).unwrap());
                continue;
            }
            Op::PutIf(key, value, yes) => {
                let mut asked = None;
                let done = batch.put_cas(key, value.as_deref(), |old, new| {
                    assert_eq!((new.seq, &new.key, &new.value), (seq, key, value));
                    asked = Some(old.clone());
                    *yes
                });
                let done = done.unwrap();
                if asked.is_none() || *yes {
                    put(key, value, done);
                } else {
                    assert!(!done);
                }
                continue;
            }
            Op::Get(key) => {
                assert_eq!(batch.get(key).unwrap(), model.get(key).cloned());
                continue;
            }
            Op::Delete(key) => (key, true),
            Op::DeleteIf(key, yes) => (key, *yes),
        };
        let there = model.get(deleted).cloned();
        let done = match op {
            Op::Delete(_) => batch.delete(deleted).unwrap(),
            _ => batch
                .delete_cas(deleted, |old, _| {
                    assert_eq!(Some(old), there.as_ref());
                    allowed
                })
                .unwrap(),
        };
        assert_eq!(done, there.is_some() && allowed);
        if done {
            model.remove(deleted);
            history.push(Change { seq, operation: history::Operation::Delete, key: deleted.clone(), value: None });
        }
    }
    if !commit.abort {
        batch.flush();
    }
}

/// A bee of several versions, and what each should hold.
struct Story {
    log: Arc<Log>,
    versions: Vec<(Version, Model)>,
    history: Vec<Change>,
}

fn tell(commits: &[Commit], cache: &Arc<Cache>) -> Story {
    let log = Arc::new(Log::default());
    let mut writer = Writer::new(log.clone(), cache.clone(), 7, Length(0));
    let mut model = Model::new();
    let mut history = Vec::new();
    let mut versions = vec![(Version(0), Model::new())];
    for commit in commits {
        if commit.abort {
            let before = writer.length();
            apply(commit, &mut writer, &mut model.clone(), &mut history.clone());
            assert_eq!(writer.length(), before);
            continue;
        }
        apply(commit, &mut writer, &mut model, &mut history);
        versions.push((Version(writer.length().0), model.clone()));
        if commit.append || commit.new_writer {
            log.append(&mut writer);
        }
        if commit.new_writer {
            let length = Length(log.len());
            writer = Writer::new(log.clone(), cache.clone(), 7, length);
        }
    }
    log.append(&mut writer);
    Story { log, versions, history }
}

fn collect(mut next: impl FnMut() -> Result<Option<Entry>>) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some(entry) = patiently(&mut next).unwrap() {
        entries.push(entry);
    }
    entries
}

fn read(snapshot: &Snapshot, range: &KeyRange, direction: Direction) -> Vec<Entry> {
    let mut cursor = snapshot.cursor(range.clone(), direction);
    collect(|| cursor.next())
}

fn expected(model: &Model, range: &KeyRange, direction: Direction) -> Vec<Entry> {
    let entries = model.values().filter(|entry| range.contains(&entry.key));
    let mut entries: Vec<Entry> = entries.cloned().collect();
    if direction == Direction::Backward {
        entries.reverse();
    }
    entries
}

fn expected_diff(left: &Model, right: &Model, range: &KeyRange) -> Vec<Difference> {
    let mut keys: Vec<&Bytes> = left.keys().chain(right.keys()).collect();
    keys.sort();
    keys.dedup();
    let keys = keys.into_iter().filter(|key| range.contains(key));
    keys.filter(|&key| left.get(key) != right.get(key))
        .map(|key| Difference { left: left.get(key).cloned(), right: right.get(key).cloned() })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A bee is a sorted map at every version it ever had: whole, with almost no cache, and when every
    /// block is missing at first.
    #[test]
    fn a_bee_is_a_sorted_map(
        commits in vec(commit(), 1..14),
        ranges in vec(range(), 3),
        keys in vec(key(), 12),
    ) {
        let large = Cache::new(8 << 20);
        let story = tell(&commits, &large);
        let warm = Bee::new(story.log.clone(), large, 7);
        let small = Bee::new(story.log.clone(), Cache::new(64 << 10), 7);
        for (version, model) in &story.versions {
            let sparse = Bee::new(story.log.sparse(), Cache::new(64 << 10), 7);
            for bee in [&warm, &small, &sparse] {
                let snapshot = bee.at(*version);
                for range in ranges.iter().chain([&KeyRange::all()]) {
                    for direction in [Direction::Forward, Direction::Backward] {
                        let found = read(&snapshot, range, direction);
                        prop_assert_eq!(found, expected(model, range, direction));
                    }
                }
                for key in keys.iter().chain(model.keys()) {
                    let found = patiently(|| snapshot.get(key)).unwrap();
                    prop_assert_eq!(found, model.get(key).cloned());
                }
            }
            let report = warm.at(*version).audit().unwrap();
            prop_assert_eq!(report.keys, model.len() as u64);
        }
    }

    /// A diff is the difference, between any two versions, in any range; and a history is the list of what
    /// was done.
    #[test]
    fn diffs_and_histories_tell_what_happened(
        commits in vec(commit(), 1..10),
        range in range(),
        from in 0u64..60,
        count in 0u64..90,
    ) {
        let cache = Cache::new(64 << 10);
        let story = tell(&commits, &cache);
        let dense = Bee::new(story.log.clone(), cache, 7);
        for (newer, left) in &story.versions {
            for (older, right) in &story.versions {
                let sparse = Bee::new(story.log.sparse(), Cache::new(0), 7);
                for bee in [&dense, &sparse] {
                    for range in [&range, &KeyRange::all()] {
                        let mut diff = bee.at(*newer).diff(&bee.at(*older), range.clone());
                        let mut found = Vec::new();
                        while let Some(difference) = patiently(|| diff.next()).unwrap() {
                            found.push(difference);
                        }
                        prop_assert_eq!(&found, &expected_diff(left, right, range));
                    }
                }
            }
        }
        let (last, _) = story.versions[story.versions.len() - 1];
        let sparse = Bee::new(story.log.sparse(), Cache::new(0), 7);
        for direction in [Direction::Forward, Direction::Backward] {
            let blocks = BlockIndex(from)..BlockIndex(from + count);
            let mut history = sparse.at(last).history(blocks.clone(), direction);
            let mut found = Vec::new();
            while let Some(change) = patiently(|| history.next()).unwrap() {
                found.push((change.seq, change.key, change.value));
            }
            if direction == Direction::Backward {
                found.reverse();
            }
            let within = story.history.iter().filter(|change| blocks.contains(&change.seq));
            let within = within.map(|c| (c.seq, c.key.clone(), c.value.clone()));
            prop_assert_eq!(found, within.collect::<Vec<_>>());
        }
    }

    /// Whatever bytes a peer signed: no panic, no endless walk. What is read may be nonsense, or an error.
    #[test]
    fn hostile_blocks_end_in_an_answer_or_an_error(
        commits in vec(commit(), 2..8),
        damage in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ops in vec(op(), 1..20),
    ) {
        let story = tell(&commits, &Cache::new(0));
        let mut blocks = story.log.blocks.lock().clone();
        prop_assume!(!blocks.is_empty());
        for (block, at, byte) in damage {
            let block = &mut blocks[block.index(block_count(&story))];
            let mut bytes = block.to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            *block = bytes.into();
        }
        let log = Log::holding(blocks);
        let bee = Bee::new(log.clone(), Cache::new(64 << 10), 1);
        let head = Version(log.len());
        for version in (0..=log.len()).rev().take(6).map(Version) {
            let snapshot = bee.at(version);
            for direction in [Direction::Forward, Direction::Backward] {
                let mut cursor = snapshot.cursor(KeyRange::all(), direction);
                while let Ok(Some(_)) = cursor.next() {}
                let everything = BlockIndex(0)..BlockIndex(u64::MAX);
                let mut history = snapshot.history(everything, direction);
                while let Ok(Some(_)) = history.next() {}
            }
            let mut diff = bee.at(head).diff(&snapshot, KeyRange::all());
            while let Ok(Some(_)) = diff.next() {}
            let _ = snapshot.audit();
            let _ = snapshot.header();
            let mut writer = Writer::new(log.clone(), Cache::new(0), 1, version.length());
            let mut batch = writer.batch();
            for op in &ops {
                let _ = match op {
                    Op::Put(key, value) | Op::PutIf(key, value, _) => {
                        let _ = snapshot.get(key);
                        batch.put(key, value.as_deref()).is_ok()
                    }
                    Op::Delete(key) | Op::DeleteIf(key, _) => batch.delete(key).is_ok(),
                    Op::Get(key) => batch.get(key).is_ok(),
                };
            }
            batch.flush();
        }
    }
}

fn block_count(story: &Story) -> usize {
    story.log.blocks.lock().len()
}

/// Blocks of keys, blocks and offsets of children.
type Shape<'s> = (&'s [u64], &'s [(u64, u32)]);

/// A block with these nodes.
fn block(nodes: &[Shape<'_>], key: &[u8]) -> Bytes {
    let mut encoder = Encoder::default();
    for (keys, children) in nodes {
        encoder.level(keys.iter().copied(), children.iter().copied());
    }
    encoder.finish(key, None)
}

fn is_corrupt<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Corrupt { block: Some(_), .. }))
}

fn drain(mut next: impl FnMut() -> Result<bool>) -> Result<()> {
    while next()? {}
    Ok(())
}

fn refused(log: &Arc<Log>) {
    let bee = Bee::new(log.clone(), Cache::new(1 << 20), 1);
    let snapshot = bee.at(Version(log.len()));
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor = snapshot.cursor(KeyRange::all(), direction);
        assert!(is_corrupt(drain(|| Ok(cursor.next()?.is_some()))));
    }
    assert!(is_corrupt(snapshot.audit()));
    let mut diff = snapshot.diff(&bee.at(Version(1)), KeyRange::all());
    assert!(is_corrupt(drain(|| Ok(diff.next()?.is_some()))));
}

#[test]
fn nodes_that_contain_themselves_are_refused() {
    let header = Header::default().encode();
    let own = block(&[(&[1], &[(1, 0), (1, 0)])], b"k");
    let log = Log::holding(vec![header.clone(), own]);
    refused(&log);
    let snapshot = Bee::new(log, Cache::new(0), 1).at(Version(2));
    assert!(is_corrupt(snapshot.get(b"a")) && is_corrupt(snapshot.get(b"z")));

    // A chain without keys would never show that keys are out of order.
    let chain = block(&[(&[], &[(1, 0)])], b"k");
    refused(&Log::holding(vec![header, chain]));
}

#[test]
fn a_small_block_cannot_unfold_into_an_endless_tree() {
    // Thirty levels, each twice the child of the one above: 2^30 keys in 400 bytes.
    let children: Vec<[(u64, u32); 2]> = (1..30).map(|level| [(1, level); 2]).collect();
    let mut nodes: Vec<Shape<'_>> = children.iter().map(|two| (&[1u64][..], &two[..])).collect();
    nodes.push((&[1], &[]));
    let hostile = block(&nodes, b"k");
    refused(&Log::holding(vec![Header::default().encode(), hostile]));
}

#[test]
fn a_cold_descent_wants_all_that_the_node_at_hand_needs() {
    let cache = Cache::new(0);
    let dense = Arc::new(Log::default());
    let mut writer = Writer::new(dense.clone(), cache.clone(), 1, Length(0));
    let mut batch = writer.batch();
    for i in 0..8u8 {
        batch.put(&[i], None).unwrap();
    }
    batch.flush();
    dense.append(&mut writer);
    let sparse = dense.sparse();
    let snapshot = Bee::new(sparse.clone(), Cache::new(1 << 20), 1).at(Version(9));
    assert_eq!(snapshot.get(&[0]), Err(Error::MissingBlock(BlockIndex(8))));
    assert!(snapshot.get(&[0]).is_err());
    // The root's own key came with it.
    assert_eq!(*sparse.wanted.lock(), (1..8).collect::<HashSet<u64>>());
}

#[test]
fn a_failed_operation_leaves_the_batch_as_it_was() {
    let cache = Cache::new(0);
    let dense = Arc::new(Log::default());
    let mut writer = Writer::new(dense.clone(), cache.clone(), 1, Length(0));
    let mut batch = writer.batch();
    for i in 0..200u8 {
        batch.put(&[i], Some(&[i])).unwrap();
    }
    batch.flush();
    dense.append(&mut writer);
    let change = |log: Arc<Log>| {
        let mut writer = Writer::new(log.clone(), cache.clone(), 1, Length(201));
        let mut batch = writer.batch();
        for i in (0..200u8).step_by(3) {
            assert!(patiently(|| batch.delete(&[i])).unwrap());
            patiently(|| batch.put(&[i, i], None)).unwrap();
        }
        batch.flush();
        writer.take_pending()
    };
    assert_eq!(change(dense.sparse()), change(dense));
}

#[test]
fn a_batch_dropped_on_an_empty_log_takes_its_header_along() {
    let log = Arc::new(Log::default());
    let mut writer = Writer::new(log, Cache::new(0), 1, Length(0));
    let mut batch = writer.batch();
    assert_eq!(batch.get(b"a").unwrap(), None);
    batch.put(b"a", None).unwrap();
    drop(batch);
    assert!(writer.pending().is_empty());
    assert_eq!(writer.batch().flush(), 0);
    let mut batch = writer.batch();
    assert!(!batch.delete(b"a").unwrap());
    assert_eq!(batch.flush(), 1);
    assert_eq!(writer.take_pending(), [Header::default().encode()]);
}

#[test]
fn readers_of_many_threads_agree() {
    let log = Arc::new(Log::default());
    let cache = Cache::new(64 << 10);
    let mut writer = Writer::new(log.clone(), cache.clone(), 1, Length(0));
    let mut batch = writer.batch();
    for i in 0..3000u32 {
        batch.put(&i.to_be_bytes(), Some(&i.to_le_bytes())).unwrap();
    }
    batch.flush();
    log.append(&mut writer);
    let snapshot = Bee::new(log, cache.clone(), 1).at(Version(3001));
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let snapshot = snapshot.clone();
            scope.spawn(move || {
                let mut cursor = snapshot.cursor(KeyRange::all(), Direction::Forward);
                for i in 0..3000u32 {
                    let wanted = (i * 7919 + thread * 31) % 3000;
                    let entry = snapshot.get(&wanted.to_be_bytes()).unwrap().unwrap();
                    assert_eq!(entry.value.unwrap()[..], wanted.to_le_bytes());
                    let entry = cursor.next().unwrap().unwrap();
                    assert_eq!(entry.key[..], i.to_be_bytes());
                }
            });
        }
    });
    assert!(cache.stats().bytes <= 64 << 10);
}

/// What a writer keeps from batch to batch is bounded in bytes, too: values up to 4 KB stay with their keys.
#[test]
fn a_writer_lets_go_of_much_it_knows() {
    let log = Arc::new(Log::default());
    let mut writer = Writer::new(log.clone(), Cache::new(0), 1, Length(0));
    let (value, batch_bytes) = ([7; 4000], 500 * 4100);
    for first in (0..12_000u32).step_by(500) {
        let mut batch = writer.batch();
        for i in first..first + 500 {
            batch.put(&i.to_be_bytes(), Some(&value)).unwrap();
        }
        batch.flush();
        log.blocks.lock().append(&mut writer.take_pending());
        let kept = writer.arena.key_bytes;
        assert!(kept < (32 << 20) + batch_bytes, "{kept} bytes kept");
    }
    let bee = Bee::new(log, Cache::new(0), 1);
    assert_eq!(bee.at(Version(writer.length().0)).audit().unwrap().keys, 12_000);
}
