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

fn quick() -> NetworkOptions {
    NetworkOptions {
        handshake_timeout: Duration::from_millis(300),
        keep_alive: Duration::from_millis(100),
        receive_timeout: Duration::from_millis(600),
        unused_timeout: Duration::from_millis(800),
        ..NetworkOptions::default()
    }
}

/// Whether the other side ends the connection, whatever it says before that.
fn is_ended(stream: &mut std::net::TcpStream) -> bool {
    use std::io::Read;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cost_only_their_own_connection() {
    use std::io::Write;
    let writer = node(NetworkOptions { connections_max: 8, ..quick() });
    let core = writer.store.get_by_name("log").unwrap();
    core.append(&blocks(0, 2000), Durability::Sync).unwrap();
    let follower = node(quick());
    let copy = follower.store.get_by_key(core.key()).unwrap();
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    follower.network.follow(&copy, std::slice::from_ref(&writer.address)).unwrap();
    holds_all(&copy, 2000).await;

    let address = writer.address.clone();
    let strangers = tokio::task::spawn_blocking(move || {
        let connect = || std::net::TcpStream::connect(&address).unwrap();
        let mut silent = connect();
        let mut noise = connect();
        noise.write_all(&[0xff; 100]).unwrap();
        let mut http = connect();
        http.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut huge = connect();
        huge.write_all(&[32, 0, 0]).unwrap();
        huge.write_all(&[7; 32]).unwrap();
        let mut slow = connect();
        let dripping = std::thread::spawn(move || {
            // A byte at a time is still a handshake that takes too long.
            (0..100)
                .take_while(|_| slow.write_all(&[1]).is_ok())
                .for_each(|_| std::thread::sleep(Duration::from_millis(50)));
            is_ended(&mut slow)
        });
        assert!(is_ended(&mut noise) && is_ended(&mut http) && is_ended(&mut huge), "at once");
        assert!(is_ended(&mut silent), "after a while");
        assert!(dripping.join().unwrap());
        // Too many at a time: the last are not even heard.
        let mut many: Vec<std::net::TcpStream> = (0..20).map(|_| connect()).collect();
        assert!(many.iter_mut().all(is_ended));
    });
    strangers.await.unwrap();
    core.append(&blocks(2000, 2010), Durability::Sync).unwrap();
    holds_all(&copy, 2010).await;
    assert_eq!(follower.network.peers().len(), 1);
    follower.network.shutdown().await;
    writer.network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_comes_back_when_the_writer_does() {
    let writer_store = store();
    let core = writer_store.get_by_name("log").unwrap();
    core.append(&blocks(0, 100), Durability::Sync).unwrap();
    let options = NetworkOptions { reconnect: (Duration::from_millis(10), Duration::from_millis(100)), ..quick() };
    let follower = node(options.clone());
    let copy = follower.store.get_by_key(core.key()).unwrap();
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));

    // Nobody is there yet: the port is known to be free.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    follower.network.follow(&copy, &[free.to_string()]).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for round in 1..4 {
        let writer = Network::start(writer_store.clone(), options.clone());
        let mut bound = writer.listen(free);
        for _ in 0..100 {
            if bound.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            bound = writer.listen(free);
        }
        bound.unwrap();
        core.append(&blocks(round * 100, round * 100 + 100), Durability::Sync).unwrap();
        holds_all(&copy, round * 100 + 100).await;
        // An idle connection stays, for both sides say that they are there.
        tokio::time::sleep(Duration::from_millis(900)).await;
        let peers = follower.network.peers();
        assert_eq!(peers.len(), 1);
        assert!(peers[0].connected_at.elapsed().unwrap() > Duration::from_millis(800));
        writer.shutdown().await;
        until("the loss is noticed", || follower.network.peers().is_empty()).await;
    }
    assert!(follower.network.follow(&copy, &["nonsense".to_string()]).is_err());
    follower.network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cores_travel_on_one_connection_and_a_key_is_all_it_takes() {
    let writer = node(quick());
    let reader = node(quick());
    let mut pairs = Vec::new();
    for name in 0..20u64 {
        let core = writer.store.get_by_name(format!("core {name}")).unwrap();
        core.append(&blocks(0, 10 + name), Durability::Sync).unwrap();
        let copy = reader.store.get_by_key(core.key()).unwrap();
        let all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
        reader.network.follow(&copy, std::slice::from_ref(&writer.address)).unwrap();
        pairs.push((copy, all, 10 + name, core.key()));
    }
    for (copy, _, length, _) in &pairs {
        holds_all(copy, *length).await;
    }
    let peers = reader.network.peers();
    assert_eq!(peers.len(), 20, "once for each core");
    let keys: std::collections::BTreeSet<String> = peers.iter().map(|peer| peer.address.clone()).collect();
    assert_eq!(keys.len(), 1, "on one connection");
    // A core that only the reader has is rejected, and costs nothing.
    let unknown = reader.store.get_by_name("mine").unwrap();
    reader.network.follow(&unknown, &[]).unwrap();
    until("it is asked for", || reader.network.remote(unknown.key()).is_some()).await;
    // What is appended to one of them goes out on its channel.
    let (copy, _, length, key) = &pairs[7];
    let core = writer.store.get_by_key(*key).unwrap();
    core.append(&blocks(*length, length + 5), Durability::Sync).unwrap();
    holds_all(copy, length + 5).await;
    for (_, _, _, key) in &pairs {
        reader.network.unfollow(*key);
    }
    until("the connection is closed", || writer.network.peers().is_empty()).await;
    reader.network.shutdown().await;
    writer.network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_nobody_has_is_known_to_be_nowhere() {
    let writer = node(quick());
    let core = writer.store.get_by_name("log").unwrap();
    core.append(&blocks(0, 50), Durability::Sync).unwrap();
    let relay = node(quick());
    let middle = relay.store.get_by_key(core.key()).unwrap();
    relay.network.follow(&middle, std::slice::from_ref(&writer.address)).unwrap();
    until("the head", || middle.len() == Length(50)).await;
    let reader = node(quick());
    let copy = reader.store.get_by_key(core.key()).unwrap();
    reader.network.follow(&copy, std::slice::from_ref(&relay.address)).unwrap();
    until("the head", || copy.len() == Length(50)).await;
    let claim = copy.wants().want(&[BlockIndex(7)], &Arc::default());
    let waited = || copy.wants().wait(BlockIndex(7), Duration::ZERO);
    let nowhere = pgbee_engine::hypercore::wants::Waited::NotYet { peers: 1, holders: Some(0) };
    until("it is known", || waited() == nowhere).await;
    // The relay fetches it for itself, and so the reader has it, too.
    let _own = middle.wants().want(&[BlockIndex(7)], &Arc::default());
    until("the block", || copy.has(BlockIndex(7))).await;
    drop(claim);
    for node in [&writer, &relay, &reader] {
        node.network.shutdown().await;
    }
}
