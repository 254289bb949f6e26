//! Two nodes over TCP on loopback: a follower gets what a writer has, and what it appends.

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::{Backend, Durability, memory::Memory};
use pgbee_engine::{BlockIndex, Length};
use pgbee_replication::{Network, NetworkOptions};

fn store() -> Arc<Store> {
    let backend: Arc<dyn Backend> = Arc::new(Memory::new());
    Store::open(backend, Options::default()).unwrap()
}

fn blocks(from: u64, to: u64) -> Vec<Bytes> {
    (from..to).map(|n| Bytes::from(format!("block {n} {}", "x".repeat((n % 50) as usize)))).collect()
}

struct Node {
    store: Arc<Store>,
    network: Arc<Network>,
    address: String,
}

fn node(options: NetworkOptions) -> Node {
    let store = store();
    let network = Network::start(store.clone(), options);
    let address = network.listen("127.0.0.1:0".parse().unwrap()).unwrap().to_string();
    Node { store, network, address }
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn holds_all(core: &Arc<Core>, length: u64) {
    let what = format!("all of {length} blocks");
    until(&what, || core.len() == Length(length) && core.contiguous_len() == Length(length)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_everything_and_what_is_appended_later() {
    let writer = node(NetworkOptions::default());
    let core = writer.store.get_by_name("log").unwrap();
    core.append(&blocks(0, 1000), Durability::Sync).unwrap();

    let follower = node(NetworkOptions::default());
    let copy = follower.store.get_by_key(core.key()).unwrap();
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    follower.network.follow(&copy, std::slice::from_ref(&writer.address)).unwrap();
    holds_all(&copy, 1000).await;
    assert_eq!(copy.get_range(BlockIndex(0), 1000).unwrap(), blocks(0, 1000));
    assert_eq!(copy.head(), core.head());

    for more in 0..20 {
        core.append(&blocks(1000 + more * 3, 1003 + more * 3), Durability::Sync).unwrap();
        holds_all(&copy, 1003 + more * 3).await;
    }
    let peers = follower.network.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].core, peers[0].peer_key, peers[0].blocks_in), (core.key(), writer.network.public_key(), 1060));
    assert!(peers[0].round_trip_micros.is_some() && peers[0].bytes_in > 10_000);
    until("the writer counts", || writer.network.peers().first().is_some_and(|peer| peer.blocks_out == 1060)).await;
    let remote = follower.network.remote(core.key()).unwrap();
    assert_eq!((remote.length, remote.peers, remote.verification_failures), (1060, 1, 0));

    follower.network.unfollow(core.key());
    until("the connection is closed", || writer.network.peers().is_empty()).await;
    follower.network.shutdown().await;
    writer.network.shutdown().await;
}
