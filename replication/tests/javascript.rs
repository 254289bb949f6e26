//! The JavaScript peers themselves, over TCP on loopback: they read from us, and we from them. The other side is
//! `tests/interop/peer.cjs`. Needs node, and the packages that `npm ci` puts into `tests/interop` (or that NODE_PATH names).

#![allow(clippy::unwrap_used)] // a test may fail that way

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::{Durability, memory::Memory};
use pgbee_engine::{BlockIndex, CoreKey, Length};
use pgbee_replication::{Network, NetworkOptions};
use serde_json::Value;

struct Peer {
    child: Child,
    input: ChildStdin,
    output: Receiver<Value>,
}

impl Peer {
    fn start(arguments: &[&str]) -> Peer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/peer.cjs");
        let mut child = Command::new("node")
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, lines) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                println!("js: {line}");
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Peer { child, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn hear(&self, field: &str) -> Value {
        loop {
            let said = self.output.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no {field}"));
            if said.get(field).is_some() {
                return said;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn store() -> Arc<Store> {
    Store::open(Arc::new(Memory::new()), Options::default()).unwrap()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_whole(copy: &Core, length: u64) -> bool {
    copy.len() == Length(length) && copy.contiguous_len() == Length(length)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and its packages"]
async fn we_read_from_javascript() {
    let mut peer = Peer::start(&["writer", "3000"]);
    let said = peer.hear("port");
    let key: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&said["key"].as_str().unwrap()[2 * at..2 * at + 2], 16).unwrap()).collect();
    let store = store();
    let network = Network::start(store.clone(), NetworkOptions::default());
    let copy = store.get_by_key(CoreKey(key.try_into().unwrap())).unwrap();
    network.follow(&copy, &[format!("127.0.0.1:{}", said["port"])]).unwrap();
    until("the head", || copy.len() == Length(3000)).await;
    let some = copy.wants().want(&[BlockIndex(17), BlockIndex(2999)], &Arc::default());
    until("two blocks", || copy.has(BlockIndex(17)) && copy.has(BlockIndex(2999))).await;
    drop(some);
    assert_eq!(copy.held_blocks(), 2);
    let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
    let begun = Instant::now();
    until("all", || is_whole(&copy, 3000)).await;
    println!("3000 blocks in {:?}", begun.elapsed());
    assert_eq!(copy.get(BlockIndex(7)).unwrap(), "js block 7 yyyyyyy");
    let steps = [
        ("append 10 more", 3010, 0),
        ("truncate 1234", 1234, 1),
        ("append 3 again", 1237, 1),
        ("truncate 5", 5, 2),
        ("append 700 x", 705, 2),
    ];
    for (command, length, fork) in steps {
        peer.say(command);
        let said = peer.hear("hash");
        until(command, || is_whole(&copy, length) && copy.head().fork.0 == fork).await;
        assert_eq!(
            (hex(&copy.head().root_hash), said["peers"].as_u64()),
            (said["hash"].as_str().unwrap().to_string(), Some(1))
        );
    }
    assert_eq!(network.remote(copy.key()).unwrap().verification_failures, 0);
    // Another JavaScript peer reads through us.
    let address = network.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut reader = Peer::start(&["reader", &address.port().to_string(), &hex(&copy.key().0)]);
    reader.hear("event");
    reader.say("download");
    assert_eq!(reader.hear("done")["done"], 705);
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and its packages"]
async fn javascript_reads_from_us() {
    let store = store();
    let network = Network::start(store.clone(), NetworkOptions::default());
    let core = store.get_by_name("log").unwrap();
    let append = |from: u64, to: u64, what: &str| {
        let blocks: Vec<Bytes> = (from..to).map(|n| Bytes::from(format!("{what} {n}"))).collect();
        core.append(&blocks, Durability::Sync).unwrap();
    };
    append(0, 5000, "block");
    let address = network.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut peer = Peer::start(&["reader", &address.port().to_string(), &hex(&core.key().0)]);
    assert_eq!(peer.hear("event")["length"], 5000);
    peer.say("get 4321");
    assert_eq!(peer.hear("got")["got"], "block 4321");
    peer.say("seek 20000");
    println!("{}", peer.hear("seek"));
    peer.say("download");
    let done = peer.hear("done");
    assert_eq!(
        (done["done"].as_u64(), done["hash"].as_str().unwrap().to_string()),
        (Some(5000), hex(&core.head().root_hash))
    );
    append(5000, 5010, "more");
    assert_eq!(peer.hear("event")["length"], 5010);
    peer.say("get 5009");
    assert_eq!(peer.hear("got")["got"], "more 5009");
    core.truncate(Length(100), Durability::Sync).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    append(100, 200, "new");
    loop {
        let said = peer.hear("event");
        if said["length"] == 200 && said["fork"] == 1 {
            break;
        }
    }
    peer.say("get 150");
    assert_eq!(peer.hear("got")["got"], "new 150");
    peer.say("download");
    assert_eq!(peer.hear("done")["hash"].as_str().unwrap(), hex(&core.head().root_hash));
    println!("{:?}", network.peers());
    network.shutdown().await;
}
