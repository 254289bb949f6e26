//! What a replica holds is verified block by block: every block here, every node beside its way to the root.

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::sync::Arc;

use bytes::Bytes;

use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::proof::{BlockRequest, Request, UpgradeRequest};
use pgbee_engine::storage::key::CoreId;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Durability, Space, WriteBatch, key, record};
use pgbee_engine::{BlockIndex, Length, NodeIndex};

fn store() -> Arc<Store> {
    Store::open(Arc::new(Memory::new()), Options::default()).unwrap()
}

fn bring(from: &Core, to: &Core, request: Request) {
    let mut intake = to.intake();
    let verified = intake.verify(from.prove(&request).unwrap()).unwrap();
    intake.add(verified);
    intake.commit(Durability::Sync).unwrap();
}

/// A writer of 300 blocks, and a replica that holds some of them.
fn replica(held: &[u64]) -> (Arc<Core>, Arc<Store>, Arc<Core>) {
    let (ours, theirs) = (store(), store());
    let writer = theirs.get_by_name("main").unwrap();
    let blocks: Vec<Bytes> = (0..300).map(|i| Bytes::from(format!("block {i}"))).collect();
    writer.append(&blocks, Durability::Sync).unwrap();
    let core = ours.get_by_key(writer.key()).unwrap();
    let upgrade = Some(UpgradeRequest { start: Length(0), length: 300 });
    bring(&writer, &core, Request { upgrade, manifest: true, ..Request::default() });
    for &block in held {
        let nodes = core.missing_nodes(NodeIndex(2 * block));
        let block = Some(BlockRequest { index: BlockIndex(block), nodes });
        bring(&writer, &core, Request { block, ..Request::default() });
    }
    (writer, ours, core)
}

fn what(core: &Core) -> String {
    core.verify_held(|_, _| {}).unwrap_err().to_string()
}

#[test]
fn what_is_here_is_verified_and_what_is_not_is_passed_over() {
    let held = [0, 1, 2, 3, 7, 130, 131, 255, 256, 290, 298, 299];
    let (writer, _store, core) = replica(&held);
    let mut told = Vec::new();
    let found = core.verify_held(|done, all| told.push((done.0, all.0))).unwrap();
    assert_eq!((found.blocks.0, told.last()), (held.len() as u64, Some(&(300, 300))));
    assert_eq!(found.bytes, held.iter().map(|i| format!("block {i}").len() as u64).sum::<u64>());
    assert_eq!(writer.verify_held(|_, _| {}), writer.verify(|_, _| {}));
    assert_eq!(store().get_by_name("empty").unwrap().verify_held(|_, _| {}).unwrap().blocks.0, 0);
}

#[test]
fn a_block_that_was_altered_with_its_checksum_is_named() {
    let (_writer, store, core) = replica(&[5, 6, 200]);
    let at = key::block(CoreId(1), BlockIndex(6));
    let mut batch = WriteBatch::new();
    batch.put(Space::Block, &at, &record::sealed(&at, b"block X"));
    store.backend().write(batch, Durability::Sync).unwrap();
    assert!(what(&core).contains("block 6 of core") && what(&core).contains("its hash is not the stored one"));
}

/// Whichever stored node is damaged, it is found, for each stands on the way of a block that is here or beside it.
#[test]
fn a_node_that_was_altered_with_its_checksum_is_found() {
    let (_writer, store, core) = replica(&[5, 6, 200, 299]);
    let chunks: Vec<(Bytes, Bytes)> = store
        .backend()
        .scan(Space::Tree, key::blocks(CoreId(1), BlockIndex(0), 300), false)
        .map(Result::unwrap)
        .collect();
    assert!(!chunks.is_empty());
    for (at, value) in &chunks {
        let payload = record::unseal(at, value.clone()).unwrap();
        let mut altered = payload.to_vec();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        let mut batch = WriteBatch::new();
        batch.put(Space::Tree, at, &record::sealed(at, &altered));
        store.backend().write(batch, Durability::Sync).unwrap();
        assert!(core.verify_held(|_, _| {}).is_err(), "{at:?}");
        let mut batch = WriteBatch::new();
        batch.put(Space::Tree, at, value);
        store.backend().write(batch, Durability::Sync).unwrap();
    }
    assert!(core.verify_held(|_, _| {}).is_ok());
}
