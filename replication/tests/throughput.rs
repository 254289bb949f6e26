//! How fast does a follower copy a core over TCP, both sides on RocksDB, on one machine? Run it optimised, with BLOCKS and BYTES to vary what is copied:
//!
//! ```text
//! BLOCKS=300000 BYTES=100 cargo test -p pgbee-replication --test throughput -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::storage::{Backend, Durability, rocks::Rocks};
use pgbee_engine::{BlockIndex, Length};
use pgbee_replication::{Network, NetworkOptions};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn store(directory: &std::path::Path) -> Arc<Store> {
    let backend: Arc<dyn Backend> = Arc::new(Rocks::open(directory, &Default::default()).unwrap());
    Store::open(backend, Options::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_full_copy() {
    let (count, bytes) = (setting("BLOCKS", 100_000), setting("BYTES", 100) as usize);
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores = directories.each_ref().map(|directory| store(directory.path()));
    let core = stores[0].get_by_name("log").unwrap();
    let mut from = 0;
    while from < count {
        let to = (from + 10_000).min(count);
        let blocks: Vec<Bytes> =
            (from..to).map(|n| Bytes::from(n.to_le_bytes().repeat(bytes.div_ceil(8))).slice(..bytes)).collect();
        core.append(&blocks, Durability::NoSync).unwrap();
        from = to;
    }
    core.sync().unwrap();
    let networks = stores.each_ref().map(|store| Network::start(store.clone(), NetworkOptions::default()));
    let address = networks[0].listen("127.0.0.1:0".parse().unwrap()).unwrap().to_string();
    let copy = stores[1].get_by_key(core.key()).unwrap();
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    let begun = Instant::now();
    networks[1].follow(&copy, &[address]).unwrap();
    while copy.contiguous_len() < Length(count) {
        assert!(begun.elapsed() < Duration::from_secs(300));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    let peer = &networks[1].peers()[0];
    let overhead = peer.bytes_in as f64 / count as f64 - bytes as f64;
    println!(
        "{count} blocks of {bytes} bytes in {took:?}: {:.0} blocks/s, {overhead:.0} bytes more each, round trip {:?} us",
        count as f64 / took.as_secs_f64(),
        peer.round_trip_micros
    );
}
