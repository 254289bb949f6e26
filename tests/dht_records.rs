//! What is kept for anyone in a network of JavaScript nodes: announced and put by our endpoint, found by theirs, and the other way around.
//!
//! Needs node and the packages pinned in `interop/package-lock.json`.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use pgbee_replication::dht::operations::Outcome;
use pgbee_replication::dht::rpc::RpcOptions;
use pgbee_replication::dht::{Dht, DhtEvent, DhtOptions, OperationId};
use pgbee_replication::secret_stream::Identity;
use pgbee_replication::swarm::SwarmOptions;
use pgbee_replication::swarm::endpoint::{Endpoint, EndpointEvent, EndpointOptions};
use pgbee_replication::transport::udp::{Udp, UdpOptions};
use pgbee_replication::udp::Now;
use pgbee_replication::udx;
use pgbee_tests::JavaScript;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

const LIMIT: Duration = Duration::from_secs(60);
const TOPIC: [u8; 32] = [0x11; 32];

/// An endpoint of ours on loopback.
struct Ours {
    runtime: Runtime,
    udp: Arc<Udp<Endpoint>>,
    events: Receiver<EndpointEvent>,
}

/// What an operation brought: the keys that were found, and how it ended.
struct Found {
    keys: BTreeSet<[u8; 32]>,
    outcome: Outcome,
}

impl Ours {
    fn start(bootstrap: SocketAddrV4) -> Ours {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let endpoint_of = |now, server: SocketAddrV4, _| {
            let rpc = RpcOptions { bootstrap: vec![bootstrap], server_port: server.port(), ..RpcOptions::default() };
            let dht = DhtOptions { rpc, local_addresses: vec![server], ..DhtOptions::default() };
            let options = EndpointOptions {
                dht,
                identity: Identity::from_seed([9; 32]),
                swarm: SwarmOptions::default(),
                udx: udx::Config::default(),
                relay_through: None,
                is_relay: false,
            };
            Endpoint::new(now, options, [7; 32])
        };
        let inside = runtime.enter();
        let (udp, events) = Udp::start(endpoint_of, UdpOptions::default()).expect("loopback has free ports");
        drop(inside);
        Ours { runtime, udp, events }
    }

    /// Does one thing, to its end.
    fn does(&mut self, begin: impl FnOnce(&mut Dht, Now) -> OperationId) -> Found {
        let wanted = self.udp.with(|endpoint, now| begin(endpoint.dht(), now));
        let mut keys = BTreeSet::new();
        let events = &mut self.events;
        let looking = async {
            loop {
                match events.recv().await.expect("the endpoint lives") {
                    EndpointEvent::Operation(DhtEvent::Peers { operation, peers, .. }) if operation == wanted => {
                        keys.extend(peers.iter().map(|peer| peer.public_key));
                    }
                    EndpointEvent::Operation(DhtEvent::Done { operation, outcome }) if operation == wanted => {
                        return outcome;
                    }
                    _ => {}
                }
            }
        };
        let outcome = self.runtime.block_on(async { tokio::time::timeout(LIMIT, looking).await });
        Found { keys, outcome: outcome.expect("it ends") }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.runtime.block_on(self.udp.shutdown());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &Value) -> [u8; 32] {
    let text = text.as_str().expect("a text");
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
}

fn is_kept(found: &Found) -> bool {
    matches!(found.outcome, Outcome::Ended { nodes } if nodes > 0)
}

#[test]
fn each_finds_what_the_other_left() {
    let mut js = JavaScript::start();
    let made = js.ask("testnet", json!({"size": 6}));
    let first = made["bootstrap"][0].as_str().expect("an address").to_owned();
    js.ask("dht", json!({"bootstrap": [first]}));
    let mut ours = Ours::start(first.parse().expect("an address"));
    let (identity, topic) = (Identity::from_seed([5; 32]), hex(&TOPIC));

    // Ours, found by theirs.
    assert!(is_kept(&ours.does(|dht, now| dht.announce(now, TOPIC, &identity, Vec::new()))));
    let keys = |js: &mut JavaScript| js.ask("lookup", json!({"topic": topic}))["keys"].clone();
    assert_eq!(keys(&mut js), json!([hex(&identity.public_key())]));
    assert!(is_kept(
        &ours.does(|dht, now| dht.mutable_put(now, &identity, 3, b"three".to_vec()).expect("it is short"))
    ));
    let key = hex(&identity.public_key());
    assert_eq!(js.ask("mutable-get", json!({"key": key})), json!({"value": hex(b"three"), "seq": 3}));
    assert!(is_kept(&ours.does(|dht, now| dht.immutable_put(now, b"for ever".to_vec()).expect("it is short"))));
    let hash = pgbee_engine::crypto::hash::hash(&[b"for ever"]);
    assert_eq!(js.ask("immutable-get", json!({"hash": hex(&hash)}))["value"], hex(b"for ever"));
    assert!(matches!(
        ours.does(|dht, now| dht.mutable_put(now, &identity, 2, b"two".to_vec()).expect("it is short")).outcome,
        Outcome::Outdated { .. }
    ));

    // Theirs, found by ours.
    let theirs =
        js.ask("mutable-put", json!({"seed": "22".repeat(32), "value": hex(b"theirs"), "seq": 8}))["key"].clone();
    js.ask("announce", json!({"topic": topic, "seed": "22".repeat(32)}));
    let found = ours.does(|dht, now| dht.lookup(now, TOPIC));
    assert_eq!(found.keys, BTreeSet::from([identity.public_key(), bytes(&theirs)]));
    match ours.does(|dht, now| dht.mutable_get(now, bytes(&theirs), 0)).outcome {
        Outcome::Mutable(Some(value)) => assert_eq!((value.seq, value.value.as_slice()), (8, b"theirs".as_slice())),
        other => panic!("{other:?}"),
    }
    let put = js.ask("immutable-put", json!({"value": hex(b"of theirs")}))["hash"].clone();
    match ours.does(|dht, now| dht.immutable_get(now, bytes(&put))).outcome {
        Outcome::Immutable(value) => assert_eq!(value.as_deref(), Some(b"of theirs".as_slice())),
        other => panic!("{other:?}"),
    }

    // Taken back, by each.
    ours.does(|dht, now| dht.unannounce(now, TOPIC, &identity));
    assert_eq!(keys(&mut js), json!([theirs]));
    js.ask("unannounce", json!({"topic": topic, "seed": "22".repeat(32)}));
    assert_eq!(ours.does(|dht, now| dht.lookup(now, TOPIC)).keys, BTreeSet::new());
}
