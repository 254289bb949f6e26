//! Cores of ours and of the JavaScript stack, over TCP: what one side writes, takes back and writes anew, the other follows block by block, in both directions and through a
//! third one in the middle.

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::{Durability, memory::Memory};
use pgbee_engine::{BlockIndex, CoreKey, Length};
use pgbee_replication::{Network, NetworkOptions};
use pgbee_tests::{JavaScript, hex};
use serde_json::{Value, json};

fn node() -> (tokio::runtime::Runtime, Arc<Store>, Arc<Network>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Store::open(Arc::new(Memory::new()), Options::default()).unwrap();
    let network = runtime.block_on(async { Network::start(store.clone(), NetworkOptions::default()) });
    (runtime, store, network)
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_whole(copy: &Core, length: u64) -> bool {
    copy.len() == Length(length) && copy.contiguous_len() == Length(length)
}

fn key(opened: &Value) -> CoreKey {
    let text = opened["key"].as_str().unwrap();
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    CoreKey(bytes.try_into().unwrap())
}

/// Blocks as hex, for a JavaScript peer.
fn blocks(from: u64, to: u64, what: &str) -> Vec<String> {
    (from..to).map(|n| hex(format!("{what} {n}").as_bytes())).collect()
}

#[test]
fn we_follow_javascript_through_its_forks_and_others_follow_us() {
    let mut js = JavaScript::start();
    let opened = js.ask("open", json!({"as": "log", "name": "log"}));
    js.ask("append", json!({"as": "log", "blocks": blocks(0, 3000, "block")}));
    let port = js.listen(None);
    let (runtime, store, network) = node();
    let _inside = runtime.enter();
    let copy = store.get_by_key(key(&opened)).unwrap();
    network.follow(&copy, &[format!("127.0.0.1:{port}")]).unwrap();
    until("the head", || copy.len() == Length(3000));
    let some = copy.wants().want(&[BlockIndex(17), BlockIndex(2999)], &Arc::default());
    until("two blocks", || copy.has(BlockIndex(17)) && copy.has(BlockIndex(2999)));
    drop(some);
    assert!(copy.held_blocks() < 20, "two blocks, and a few with the first: {}", copy.held_blocks());
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    until("all", || is_whole(&copy, 3000));
    assert_eq!(copy.get(BlockIndex(7)).unwrap(), "block 7");
    let steps = [
        ("append", json!({"blocks": blocks(3000, 3010, "more")}), 3010, 0),
        ("truncate", json!({"length": 1234}), 1234, 1),
        ("append", json!({"blocks": blocks(1234, 1237, "again")}), 1237, 1),
        ("truncate", json!({"length": 5}), 5, 2),
        ("append", json!({"blocks": blocks(5, 705, "anew")}), 705, 2),
    ];
    for (command, mut more, length, fork) in steps {
        more["as"] = json!("log");
        js.ask(command, more);
        let said = js.ask("info", json!({"as": "log"}));
        until(command, || is_whole(&copy, length) && copy.head().fork.0 == fork);
        assert_eq!((json!(hex(&copy.head().root_hash)), json!(1)), (said["treeHash"].clone(), said["peers"].clone()));
    }
    assert_eq!(network.remote(copy.key()).unwrap().verification_failures, 0);

    // Another JavaScript peer reads through us.
    let address = network.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut reader = JavaScript::start();
    reader.ask("open", json!({"as": "log", "key": opened["key"]}));
    reader.ask("connect", json!({"port": address.port()}));
    reader.ask("update", json!({"as": "log", "length": 705}));
    reader.ask("download", json!({"as": "log", "start": 0, "end": 705}));
    assert_eq!(reader.ask("info", json!({"as": "log"}))["treeHash"], json!(hex(&copy.head().root_hash)));
    runtime.block_on(network.shutdown());
}

#[test]
fn javascript_follows_us_through_a_fork() {
    let (runtime, store, network) = node();
    let _inside = runtime.enter();
    let core = store.get_by_name("log").unwrap();
    let append = |from: u64, to: u64, what: &str| {
        let blocks: Vec<Bytes> = (from..to).map(|n| Bytes::from(format!("{what} {n}"))).collect();
        core.append(&blocks, Durability::Sync).unwrap();
    };
    append(0, 5000, "block");
    let address = network.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut js = JavaScript::start();
    js.ask("open", json!({"as": "log", "key": hex(&core.key().0)}));
    js.ask("connect", json!({"port": address.port()}));
    js.ask("update", json!({"as": "log", "length": 5000}));
    let block = |js: &mut JavaScript, index: u64| js.ask("get", json!({"as": "log", "index": index}))["block"].clone();
    assert_eq!(block(&mut js, 4321), json!(hex(b"block 4321")));
    js.ask("download", json!({"as": "log", "start": 0, "end": 5000}));
    assert_eq!(js.ask("info", json!({"as": "log"}))["treeHash"], json!(hex(&core.head().root_hash)));
    append(5000, 5010, "more");
    js.ask("update", json!({"as": "log", "length": 5010}));
    assert_eq!(block(&mut js, 5009), json!(hex(b"more 5009")));

    core.truncate(Length(100), Durability::Sync).unwrap();
    append(100, 200, "new");
    until("the new history", || {
        // In the middle of a fork its tree may be neither the old one nor the new one.
        let info = js.try_ask("info", json!({"as": "log"}));
        info["length"] == json!(200) && info["fork"] == json!(1)
    });
    assert_eq!(block(&mut js, 150), json!(hex(b"new 150")));
    js.ask("download", json!({"as": "log", "start": 0, "end": 200}));
    assert_eq!(js.ask("info", json!({"as": "log"}))["treeHash"], json!(hex(&core.head().root_hash)));
    runtime.block_on(network.shutdown());
}
