//! The extension `hyperbee` against what JavaScript sent and answered, and against strangers.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::bee::extension::{self, CacheHint, GetRequest, Message, RangeRequest, TOUCHED_MAX};
use pgbee_engine::bee::{Bee, Cache, Direction, KeyRange, Writer};
use pgbee_engine::corestore::{self, Store};
use pgbee_engine::crypto::key::{from_hex, to_hex};
use pgbee_engine::hypercore::extensions::ExtensionHandler;
use pgbee_engine::hypercore::wants::Received;
use pgbee_engine::hypercore::{BlockSource, Core};
use pgbee_engine::storage::Durability;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::{BlockIndex, Result, Version};
use proptest::prelude::*;
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).unwrap()
}

fn key(value: &Value) -> Option<Bytes> {
    Some(from_hex(value.as_str()?).unwrap().into())
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

fn message(value: &Value) -> Message {
    let part = |name: &str| value.get(name).filter(|part| !part.is_null());
    let number = |part: &Value, name: &str| part[name].as_u64().unwrap();
    Message {
        cache: part("cache").map(|cache| CacheHint {
            start: number(cache, "start"),
            end: number(cache, "end"),
            blocks: numbers(&cache["blocks"]),
        }),
        get: part("get")
            .map(|get| GetRequest { version: number(get, "version"), key: key(&get["key"]).unwrap_or_default() }),
        iterator: part("iterator").map(|range| RangeRequest {
            version: number(range, "version"),
            gte: key(&range["gte"]),
            gt: key(&range["gt"]),
            lte: key(&range["lte"]),
            lt: key(&range["lt"]),
            limit: number(range, "limit"),
            reverse: range["reverse"].as_bool().unwrap(),
            checkpoint: numbers(&range["checkpoint"]),
        }),
    }
}

#[test]
fn messages_have_the_bytes_that_javascript_gives_them() {
    let vectors = load("wire");
    let cases = vectors["hyperbeeExtension"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let encoded = case["encoded"].as_str().unwrap();
        assert_eq!(to_hex(&message(&case["value"]).encode()), encoded);
        assert_eq!(Message::decode(&from_hex(encoded).unwrap()).unwrap(), message(&case["decodesTo"]), "{encoded}");
    }
}

/// A core with one bee batch a key, and what answers peers about it.
fn bee(keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> (Arc<Store>, Arc<Core>, Arc<dyn ExtensionHandler>) {
    let store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
    let core = store.get_by_name("bee").unwrap();
    let cache = Cache::new(1 << 20);
    let mut writer = Writer::new(core.clone(), cache.clone(), core.source_id(), core.len());
    for (key, value) in keys {
        let mut batch = writer.batch();
        batch.put(key.as_bytes(), Some(&value)).unwrap();
        batch.flush();
    }
    core.append(&writer.take_pending(), Durability::Sync).unwrap();
    extension::register(&core, cache);
    let (name, handler) = core.extensions().handler("hyperbee").unwrap();
    assert_eq!(name, extension::NAME);
    (store, core, handler)
}

fn answered(answers: &[Bytes]) -> Vec<u64> {
    answers.iter().flat_map(|answer| Message::decode(answer).unwrap().cache.unwrap().blocks).collect()
}

#[test]
fn a_question_of_javascript_is_answered_as_javascript_answered_it() {
    let transcript = load("transcript-store");
    let said = |from: &str| -> Vec<Vec<u8>> {
        let plain = transcript["plain"].as_array().unwrap().iter();
        let extensions =
            plain.filter(|entry| entry["from"] == from && entry["decoded"]["type"] == "extension").map(|entry| {
                let message = from_hex(entry["decoded"]["value"]["message"].as_str().unwrap()).unwrap();
                // Behind its length as a compact uint.
                assert_eq!(usize::from(message[0]), message.len() - 1);
                message[1..].to_vec()
            });
        extensions.collect()
    };
    let keys = (0..20).map(|i| (format!("key{}", i + 10), format!("value{i}").into_bytes()));
    let (_store, core, handler) = bee(keys);
    let block = core.get(BlockIndex(20)).unwrap();
    assert_eq!(
        to_hex(&block),
        "0a1a0a0f0a03050a0f120809010e01130114010a070a05101112131412056b657932391a0776616c75653139"
    );
    let (questions, answers) = (said("i"), said("r"));
    assert!(!questions.is_empty());
    for (question, answer) in questions.iter().zip(&answers) {
        let ours = handler.handle(question);
        if Message::decode(question).unwrap().get.is_some() {
            assert_eq!(ours, [answer], "{}", to_hex(question));
        }
        // JavaScript reads a range with a few reads at a time, and names blocks in the order they happen to end.
        let sorted = |answer: &[u8]| {
            let mut cache = Message::decode(answer).unwrap().cache.unwrap();
            cache.blocks.sort_unstable();
            cache
        };
        assert_eq!(ours.len(), 1);
        assert_eq!(sorted(&ours[0]), sorted(answer), "{}", to_hex(question));
    }
    // And we ask the same.
    let asking = Arc::new(Asking { core: core.clone(), asked: Mutex::default() });
    let snapshot = Bee::new(asking.clone(), Cache::new(0), 1).at(Version(21));
    assert!(snapshot.get(b"key15").is_err());
    let range = KeyRange { start: Bound::Included("key20".into()), ..KeyRange::all() };
    assert!(snapshot.cursor(range, Direction::Forward).next().is_err());
    assert_eq!(*asking.asked.lock(), questions.into_iter().map(Bytes::from).collect::<Vec<_>>());
}

/// Has nothing, and keeps what is asked.
struct Asking {
    core: Arc<Core>,
    asked: Mutex<Vec<Bytes>>,
}

impl BlockSource for Asking {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        self.core.get(index)?;
        Err(pgbee_engine::Error::MissingBlock(index))
    }

    fn ask(&self, _name: &'static str, payload: Bytes) {
        self.asked.lock().push(payload);
    }
}

#[test]
fn an_iterator_is_answered_in_parts_and_has_an_end() {
    let (_store, core, handler) = bee((0..3000).map(|i| (format!("{i:05}"), vec![1; 3])));
    let ask = |range: RangeRequest| handler.handle(&Message { iterator: Some(range), ..Message::default() }.encode());
    let version = core.len().0;
    let all = ask(RangeRequest { version, ..RangeRequest::default() });
    let blocks = answered(&all);
    assert!(blocks.len() >= TOUCHED_MAX && blocks.len() < TOUCHED_MAX + 16, "{}", blocks.len());
    assert_eq!(all.len(), blocks.len().div_ceil(128));
    assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), blocks.len());
    let some = answered(&ask(RangeRequest {
        version,
        gt: Some("00100".into()),
        lte: Some("00200".into()),
        limit: 10,
        ..RangeRequest::default()
    }));
    assert!((102..=111).all(|block| some.contains(&block)) && some.len() < 60, "{some:?}");
    let last = answered(&ask(RangeRequest { version, reverse: true, limit: 1, ..RangeRequest::default() }));
    assert!(last.contains(&3000) && last.len() < 10, "{last:?}");
    for version in [0, 1, version + 1, u64::MAX] {
        assert!(ask(RangeRequest { version, ..RangeRequest::default() }).is_empty(), "{version}");
        let get = GetRequest { version, key: "00001".into() };
        assert!(handler.handle(&Message { get: Some(get), ..Message::default() }.encode()).is_empty());
    }
    // A core that is gone is not kept by who answers for it.
    let weak = Arc::downgrade(&core);
    drop(core);
    assert!(weak.upgrade().is_none());
    assert!(ask(RangeRequest { version, ..RangeRequest::default() }).is_empty());
}

#[test]
fn large_blocks_are_not_all_read_for_a_stranger() {
    let (_store, core, handler) = bee((0..60).map(|i| (format!("{i:05}"), vec![i as u8; 1 << 20])));
    let range = RangeRequest { version: core.len().0, ..RangeRequest::default() };
    let blocks = answered(&handler.handle(&Message { iterator: Some(range), ..Message::default() }.encode()));
    assert!(blocks.len() < 20, "{blocks:?}");
}

#[test]
fn answers_of_peers_become_hints_while_someone_waits() {
    let (store, core, _) = bee((0..50).map(|i| (format!("{i:05}"), vec![])));
    let replica_store = Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
    let replica = replica_store.get_by_key(core.key()).unwrap();
    extension::register(&replica, Cache::new(0));
    let hint = |blocks: Vec<u64>| {
        let cache = CacheHint { start: 0, end: u64::MAX, blocks };
        Message { cache: Some(cache), ..Message::default() }.encode()
    };
    let (_, handler) = replica.extensions().handler("hyperbee").unwrap();
    // Of a core of which nothing is known, nothing can be useful.
    let want = replica.wants().want(&[BlockIndex(7)], &Arc::<Received>::default());
    assert!(handler.handle(&hint(vec![1, 2, 3])).is_empty());
    assert_eq!(replica.wants().all(), [BlockIndex(7)]);
    drop(want);
    // What is held is not wanted.
    let (_, handler) = core.extensions().handler("hyperbee").unwrap();
    let _want = core.wants().want(&[BlockIndex(7)], &Arc::<Received>::default());
    assert!(handler.handle(&hint((0..100).collect())).is_empty());
    assert_eq!(core.wants().all(), [BlockIndex(7)]);
    drop(store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a stranger asks, the answer is bounded, and no panic.
    #[test]
    fn strangers_do_no_harm(
        version in 0u64..140,
        bounds in proptest::array::uniform4(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..6))),
        limit in 0u64..300,
        reverse: bool,
        checkpoint in proptest::collection::vec(prop_oneof![0u64..140, 0u64..3, any::<u64>()], 0..40),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let (_store, core, handler) = bee((0..120).map(|i| (format!("{:05}", i * 31 % 120), vec![7])));
        let [gte, gt, lte, lt] = bounds.map(|bound| bound.map(Bytes::from));
        let range = RangeRequest { version, gte, gt, lte, lt, limit, reverse, checkpoint };
        let get = GetRequest { version, key: noise.clone().into() };
        let message = Message { cache: None, get: Some(get), iterator: Some(range) };
        prop_assert_eq!(&Message::decode(&message.encode()).unwrap(), &message);
        let blocks = answered(&handler.handle(&message.encode()));
        prop_assert!(blocks.len() <= 300 && blocks.iter().all(|&block| block <= core.len().0));
        handler.handle(&noise);
    }

    /// What is answered is all that the one who asked will read.
    #[test]
    fn answers_name_every_block_of_a_read(keys in proptest::collection::vec(0u32..500, 1..200), first in 0u32..500, count in 0u32..300) {
        let (_store, core, handler) = bee(keys.iter().map(|key| (format!("{key:05}"), vec![7])));
        let range = KeyRange::half_open(format!("{first:05}"), format!("{:05}", first + count));
        let version = core.len().0;
        let snapshot = Bee::new(core.clone(), Cache::new(0), 1).at(Version(version));
        for direction in [Direction::Forward, Direction::Backward] {
            let request = RangeRequest {
                version,
                gte: Some(format!("{first:05}").into()),
                lt: Some(format!("{:05}", first + count).into()),
                reverse: direction == Direction::Backward,
                ..RangeRequest::default()
            };
            let named: BTreeSet<u64> = answered(&handler.handle(&Message { iterator: Some(request), ..Message::default() }.encode())).into_iter().collect();
            let entries: Vec<u64> = {
                let mut cursor = snapshot.cursor(range.clone(), direction);
                std::iter::from_fn(|| cursor.next().unwrap()).map(|entry| entry.seq.0).collect()
            };
            prop_assert!(count == 0 || entries.iter().all(|seq| named.contains(seq)));
        }
        let key = format!("{first:05}");
        let reader = Arc::new(Reading { core: core.clone(), read: Mutex::default() });
        Bee::new(reader.clone(), Cache::new(0), 1).at(Version(version)).get(key.as_bytes()).unwrap();
        let get = GetRequest { version, key: key.into() };
        let named: BTreeSet<u64> = answered(&handler.handle(&Message { get: Some(get), ..Message::default() }.encode())).into_iter().collect();
        prop_assert_eq!(&*reader.read.lock(), &named);
    }
}

/// Keeps which blocks are read.
struct Reading {
    core: Arc<Core>,
    read: Mutex<BTreeSet<u64>>,
}

impl BlockSource for Reading {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        self.read.lock().insert(index.0);
        self.core.get(index)
    }
}
