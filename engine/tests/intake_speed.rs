//! What does a block cost that comes from a peer? Asked with
//! `cargo test -p pgbee-engine --test intake_speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::proof::{BlockRequest, Proof, Request, UpgradeRequest};
use pgbee_engine::storage::rocks::{Rocks, RocksOptions};
use pgbee_engine::storage::{Backend, Durability, Space};
use pgbee_engine::{BlockIndex, Length};

const BLOCKS: u64 = 200_000;
const BLOCK_BYTES: usize = 100;
/// As many answers of peers become one batch, and are asked for before the batch before it is in.
const BATCH: u64 = 300;

fn source(directory: &Path) -> Arc<Core> {
    let rocks = Rocks::open(directory, &RocksOptions::default()).unwrap();
    let store = Store::open(Arc::new(rocks), Options::default()).unwrap();
    let core = store.get_by_name("log").unwrap();
    for first in (0..BLOCKS).step_by(1000) {
        let block = |i: u64| Bytes::from(i.to_le_bytes().repeat(BLOCK_BYTES / 8 + 1)[..BLOCK_BYTES].to_vec());
        let blocks: Vec<Bytes> = (first..first + 1000).map(block).collect();
        core.append(&blocks, Durability::NoSync).unwrap();
    }
    core.sync().unwrap();
    core
}

/// Times of one way to order the blocks.
fn measure(source: &Arc<Core>, name: &str, order: &[u64]) {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Arc::new(Rocks::open(dir.path(), &RocksOptions::default()).unwrap());
    let core = Store::open(rocks.clone(), Options::default()).unwrap().get_by_key(source.key()).unwrap();
    let mut intake = core.intake();
    let upgrade = Some(UpgradeRequest { start: Length(0), length: BLOCKS });
    let proof = source.prove(&Request { upgrade, manifest: true, ..Request::default() }).unwrap();
    intake.add(intake.verify(proof).unwrap());
    intake.commit(Durability::NoSync).unwrap();

    let (mut ask, mut prove, mut verify, mut commit) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut nodes = 0;
    let mut waiting: Vec<Proof> = Vec::new();
    for batch in order.chunks(BATCH as usize).chain([&[][..]]) {
        let start = Instant::now();
        let requests: Vec<Request> = batch
            .iter()
            .map(|&i| {
                let index = BlockIndex(i);
                let block = Some(BlockRequest { index, nodes: core.missing_nodes(index.node()) });
                Request { block, ..Request::default() }
            })
            .collect();
        ask += start.elapsed();
        nodes += requests.iter().map(|request| request.block.unwrap().nodes).sum::<u64>();
        let start = Instant::now();
        let proofs: Vec<Proof> = requests.iter().map(|request| source.prove(request).unwrap()).collect();
        prove += start.elapsed();

        let start = Instant::now();
        let mut intake = core.intake();
        for proof in std::mem::replace(&mut waiting, proofs) {
            intake.add(intake.verify(proof).unwrap());
        }
        verify += start.elapsed();
        let start = Instant::now();
        intake.commit(Durability::NoSync).unwrap();
        commit += start.elapsed();
    }
    core.sync().unwrap();
    assert_eq!(core.held_blocks(), order.len() as u64);
    let count = order.len() as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count;
    println!(
        "{name}: {:.0} blocks/s; each {:.2} us to verify, {:.2} us to store; beside that {:.2} us to ask with {:.1} nodes, {:.2} us to prove; {} tree records",
        count / (verify + commit).as_secs_f64(),
        micros(verify),
        micros(commit),
        micros(ask),
        nodes as f64 / count,
        micros(prove),
        rocks.statistics().entries[Space::Tree as usize],
    );
    if order.len() as u64 == BLOCKS {
        core.verify(|_, _| ()).unwrap();
    }
}

#[test]
#[ignore = "a measurement"]
fn how_fast_blocks_are_taken_in() {
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let in_order: Vec<u64> = (0..BLOCKS).collect();
    measure(&source, "in order", &in_order);

    // Roughly in order: each window of 512 is shuffled, as many requests in flight to several peers do.
    let mut state = 1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut roughly = in_order.clone();
    for window in roughly.chunks_mut(512) {
        for i in (1..window.len()).rev() {
            window.swap(i, random() as usize % (i + 1));
        }
    }
    measure(&source, "windows of 512 shuffled", &roughly);

    let mut scattered = in_order;
    for i in (1..scattered.len()).rev() {
        scattered.swap(i, random() as usize % (i + 1));
    }
    measure(&source, "20,000 anywhere", &scattered[..20_000]);
}
