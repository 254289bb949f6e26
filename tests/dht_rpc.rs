//! Our dht-rpc nodes and those of the real package in one network on loopback: each finds, answers and believes the other.
//!
//! Needs node and the packages pinned in `interop/package-lock.json`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pgbee_replication::dht::rpc::message::node_id;
use pgbee_replication::dht::rpc::{Answer, Outgoing, Persistence, Query, QueryId, Reply, Rpc, RpcEvent, RpcOptions};
use pgbee_replication::udp::{Now, Random, SocketId};
use pgbee_tests::{JavaScript, hex};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
const TARGET: [u8; 32] = [0x5a; 32];

/// One of ours: two sockets and a thread.
struct Ours {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

struct Shared {
    rpc: Mutex<(Rpc<u32>, Vec<RpcEvent<u32>>)>,
    sockets: [UdpSocket; 2],
    began: Instant,
    is_stopped: AtomicBool,
}

impl Ours {
    fn start(seed: u8, options: impl FnOnce(SocketAddrV4) -> RpcOptions) -> Ours {
        let sockets = [0, 1].map(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            socket.set_nonblocking(true).expect("a socket");
            socket
        });
        let port = sockets[0].local_addr().expect("it is bound").port();
        let options = RpcOptions { server_port: port, ..options(loopback(port)) };
        let rpc = Mutex::new((Rpc::new(Now::ZERO, options, Random::new([seed; 32])), Vec::new()));
        let shared = Arc::new(Shared { rpc, sockets, began: Instant::now(), is_stopped: AtomicBool::new(false) });
        let runs = shared.clone();
        let thread = Some(std::thread::spawn(move || runs.run()));
        Ours { shared, thread, port }
    }

    fn with<R>(&self, does: impl FnOnce(&mut Rpc<u32>, Now) -> R) -> R {
        does(&mut self.shared.rpc.lock().0, self.shared.began.elapsed())
    }

    /// Waits for something to be so.
    fn until<R>(&self, what: &str, mut look: impl FnMut(&mut Rpc<u32>, &mut Vec<RpcEvent<u32>>) -> Option<R>) -> R {
        let began = Instant::now();
        loop {
            {
                let (rpc, events) = &mut *self.shared.rpc.lock();
                if let Some(found) = look(rpc, events) {
                    return found;
                }
                assert!(began.elapsed() < LONG, "{what} did not come; {:?}; {events:?}", rpc.stats());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_ready(&self) -> &Ours {
        self.until("readiness", |rpc, _| rpc.is_ready().then_some(()));
        self
    }

    fn find(&self, query: Query) -> (Vec<Reply>, Vec<Reply>) {
        let id = self.with(|rpc, now| rpc.query(now, query));
        self.until("the end of a walk", |_, events| ended(events, id))
    }

    fn ask(&self, request: Outgoing) -> Reply {
        let tag = request.command as u32 + 1000;
        self.with(|rpc, now| rpc.request(now, request, tag));
        self.until("an answer", |_, events| {
            let at = events
                .iter()
                .position(|event| matches!(event, RpcEvent::Answered { tag: other, .. } if *other == tag))?;
            let RpcEvent::Answered { result, .. } = events.remove(at) else { unreachable!("it was looked for") };
            Some(result.expect("an answer"))
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    /// The loop of a node: what came, what time it is, what is to be sent. Command 7 is answered as JavaScript's nodes here do.
    fn run(&self) {
        let mut datagram = [0; 2048];
        while !self.is_stopped.load(Ordering::Relaxed) {
            self.turn(&mut datagram);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn turn(&self, datagram: &mut [u8]) {
        let (rpc, events) = &mut *self.rpc.lock();
        let now = self.began.elapsed();
        for (socket, id) in self.sockets.iter().zip([SocketId::SERVER, SocketId::CLIENT]) {
            while let Ok((len, std::net::SocketAddr::V4(from))) = socket.recv_from(datagram) {
                rpc.handle_datagram(now, id, from, &datagram[..len]);
            }
        }
        if rpc.poll_timeout().is_some_and(|at| at <= now) {
            rpc.handle_timeout(now);
        }
        while let Some(event) = rpc.poll_event() {
            if let RpcEvent::Request(request) = &event {
                let value =
                    request.value.clone().map(|value| [value, vec![u8::from(request.has_valid_token)]].concat());
                rpc.answer(now, request, if request.command == 7 { Answer::reply(value) } else { Answer::error(1) });
            }
            events.push(event);
        }
        while let Some(transmit) = rpc.poll_transmit(now) {
            let socket = &self.sockets[transmit.socket.0 as usize];
            let _ = socket.send_to(&transmit.payload, transmit.to);
        }
    }
}

fn ended(events: &[RpcEvent<u32>], id: QueryId) -> Option<(Vec<Reply>, Vec<Reply>)> {
    let closest = events.iter().find_map(|event| match event {
        RpcEvent::QueryEnded { query, closest } if *query == id => Some(closest.clone()),
        _ => None,
    })?;
    let replies = events.iter().filter_map(|event| match event {
        RpcEvent::QueryReply { query, reply } if *query == id => Some(reply.clone()),
        _ => None,
    });
    Some((closest, replies.collect()))
}

fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn ports(answer: &Value) -> BTreeSet<u16> {
    answer["ports"].as_array().expect("ports").iter().filter_map(Value::as_u64).map(|port| port as u16).collect()
}

fn ports_of(replies: &[Reply]) -> BTreeSet<u16> {
    replies.iter().map(|reply| reply.from.port()).collect()
}

/// A node of JavaScript's: its port, and its id if it has one.
fn theirs(peer: &mut JavaScript, name: &str, bootstrap: &[u16], ephemeral: bool) -> (u16, Option<String>) {
    let answer = peer.ask("node", json!({"as": name, "bootstrap": bootstrap, "ephemeral": ephemeral}));
    (answer["port"].as_u64().expect("a port") as u16, answer["id"].as_str().map(String::from))
}

fn forced(bootstrap: u16) -> RpcOptions {
    RpcOptions {
        bootstrap: vec![loopback(bootstrap)],
        persistence: Persistence::Forced,
        firewalled: false,
        ..RpcOptions::default()
    }
}

#[test]
fn theirs_bootstrap_from_ours() {
    let mut peer = JavaScript::run("dht_rpc.mjs");
    let first = Ours::start(1, RpcOptions::bootstrapper);
    let mut all = BTreeSet::from([first.port]);
    for n in 0..5 {
        let (port, id) = theirs(&mut peer, &n.to_string(), &[first.port], false);
        assert_eq!(id, Some(hex(&node_id(loopback(port)))), "what we said is its address is the one its id is of");
        all.insert(port);
    }
    first.until("five nodes", |rpc, _| (rpc.nodes_len() == 5).then_some(()));
    let own = *all.last().expect("six ports");
    let found = ports(&peer.ask("find", json!({"as": "4", "target": hex(&TARGET)})));
    assert!(found.contains(&first.port) && found.len() == 5, "{found:?} of {all:?} without one of {own}");

    let second =
        Ours::start(2, |_| forced(found.iter().copied().find(|port| *port != first.port).expect("one of theirs")));
    second.is_ready();
    assert_eq!(second.with(|rpc, _| rpc.id()), Some(node_id(loopback(second.port))));
    let (closest, replies) = second.find(Query::find_node(TARGET));
    assert_eq!((ports_of(&closest), replies.len()), (all.clone(), 6));
    // An announcement's way: a walk that brings tokens, then the same with each token. First they walk, then we.
    let answer = peer.ask("commit", json!({"as": "2", "target": hex(&TARGET), "value": "abcd"}));
    assert_eq!(
        answer["values"],
        json!(["abcd00", "abcd00", "abcd00", "abcd00", "abcd00", "abcd00"]),
        "four of theirs, two of ours"
    );
    let is_proven = |event: &RpcEvent<u32>| matches!(event, RpcEvent::Request(request) if request.command == 7 && request.has_valid_token);
    for ours in [&first, &second] {
        ours.until("a request with our token", |_, events| events.iter().any(is_proven).then_some(()));
    }
    let query = Query { target: TARGET, command: 7, value: Some(vec![0xab]), ..Query::default() };
    let (closest, _) = second.find(query);
    assert_eq!(closest.len(), 6);
    for reply in closest {
        let request = Outgoing {
            target: Some(TARGET),
            value: Some(vec![0xab]),
            token: reply.token,
            ..Outgoing::new(reply.from, 7)
        };
        assert_eq!(second.ask(request).value, Some(vec![0xab, 1]), "{}", reply.from);
        let request = Outgoing {
            target: Some(TARGET),
            value: Some(vec![0xab]),
            token: Some([1; 32]),
            ..Outgoing::new(reply.from, 7)
        };
        let refused = second.ask(request);
        assert!(refused.error == 2 && refused.token.is_some() && !refused.closer.is_empty());
    }
    // Pings, at once and delayed, both ways.
    assert!(peer.ask("ping", json!({"as": "0", "port": second.port}))["ms"].as_u64().expect("a time") < 1000);
    let delayed = peer.ask("delayed", json!({"as": "0", "port": second.port, "ms": 700}));
    assert!((690..1500).contains(&delayed["ms"].as_u64().expect("a time")), "{delayed}");
    let delayed =
        second.ask(Outgoing::delayed_ping(loopback(*found.last().expect("a port")), Duration::from_millis(700)));
    assert!(delayed.round_trip >= Duration::from_millis(690) && delayed.to == loopback(second.port));
}

#[test]
fn ours_bootstrap_from_theirs() {
    let mut peer = JavaScript::run("dht_rpc.mjs");
    // The first node of a testnet: it has no id, and answers with an error and closer nodes.
    let (first, id) = theirs(&mut peer, "0", &[], false);
    assert_eq!(id, None);
    let mut all = BTreeSet::new();
    for n in 1..=4 {
        all.insert(theirs(&mut peer, &n.to_string(), &[first], false).0);
    }
    let persistent = Ours::start(3, |_| forced(first));
    persistent.is_ready();
    assert_eq!(persistent.with(|rpc, _| rpc.id()), Some(node_id(loopback(persistent.port))));
    all.insert(persistent.port);

    // One that thinks it is behind a NAT finds out that it is not, and stays ephemeral.
    let ephemeral = Ours::start(4, |_| RpcOptions { bootstrap: vec![loopback(first)], ..RpcOptions::default() });
    ephemeral.until("an open server socket", |rpc, _| (!rpc.is_firewalled()).then_some(()));
    assert_eq!(ephemeral.with(|rpc, _| (rpc.id(), rpc.remote_address())), (None, Some(loopback(ephemeral.port))));
    let (closest, _) = ephemeral.find(Query { target: TARGET, command: 7, value: Some(vec![1]), ..Query::default() });
    assert_eq!(ports_of(&closest), all);

    // They know us when they have asked us back, and tell others.
    let (_, id) = theirs(&mut peer, "late", &[first], true);
    assert_eq!(id, None);
    assert_eq!(ports(&peer.ask("find", json!({"as": "late", "target": hex(&TARGET)}))), all);
    // One of theirs is gone: walks get over it.
    peer.ask("stop", json!({"as": "1"}));
    let (closest, _) = persistent.find(Query::find_node(TARGET));
    assert_eq!(closest.len(), 3, "all but the first, the one that is gone, and ourselves");
}
