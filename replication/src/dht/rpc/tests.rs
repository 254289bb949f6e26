//! Networks of [`Rpc`] nodes with a made-up clock: delay, loss, churn, NATs, forged datagrams, floods.
//!
//! Every host has an address of its own and two sockets. What must stay true here: one seed, one run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::message::{self, K, Message, node_id};
use super::*;
use crate::secret_stream::vectors::{bytes, read};

const SERVER_PORT: u16 = 49737;
const CLIENT_PORT: u16 = 50000;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn host(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(8, (n >> 8) as u8, n as u8, 7)
}

fn server(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new(host(n), SERVER_PORT)
}

fn client(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new(host(n), CLIENT_PORT)
}

fn random(n: usize) -> Random {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    Random::new(seed)
}

fn forced(bootstrap: SocketAddrV4) -> RpcOptions {
    RpcOptions {
        bootstrap: vec![bootstrap],
        persistence: Persistence::Forced,
        firewalled: false,
        server_port: SERVER_PORT,
        ..RpcOptions::default()
    }
}

fn adaptive(bootstrap: SocketAddrV4) -> RpcOptions {
    RpcOptions { bootstrap: vec![bootstrap], server_port: SERVER_PORT, ..RpcOptions::default() }
}

struct Host {
    rpc: Rpc<u32>,
    events: Vec<RpcEvent<u32>>,
    /// Nothing reaches the server socket, and what reaches the client socket comes from who was sent something.
    is_closed: bool,
    known: BTreeSet<SocketAddrV4>,
    timeout: Option<Now>,
    asleep_until: Now,
    /// Answers requests that are not dht-rpc's own: with a value, or an error.
    answers: bool,
}

struct Net {
    now: Now,
    hosts: BTreeMap<usize, Host>,
    addresses: HashMap<SocketAddrV4, (usize, SocketId)>,
    timeouts: BTreeSet<(Now, usize)>,
    on_the_way: BTreeMap<(Now, u64), (SocketAddrV4, SocketAddrV4, Vec<u8>)>,
    sent: u64,
    random: Random,
    loss_percent: u64,
}

impl Net {
    fn new() -> Net {
        Net {
            now: secs(1),
            hosts: BTreeMap::new(),
            addresses: HashMap::new(),
            timeouts: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            random: random(12345),
            loss_percent: 0,
        }
    }

    fn start(&mut self, n: usize, options: RpcOptions) {
        let rpc = Rpc::new(self.now, options, random(n));
        self.addresses.insert(server(n), (n, SocketId::SERVER));
        self.addresses.insert(client(n), (n, SocketId::CLIENT));
        let host = Host {
            rpc,
            events: Vec::new(),
            is_closed: false,
            known: BTreeSet::new(),
            timeout: None,
            asleep_until: secs(0),
            answers: true,
        };
        self.hosts.insert(n, host);
        self.touched(n);
    }

    fn start_closed(&mut self, n: usize, options: RpcOptions) {
        self.start(n, options);
        self.hosts.get_mut(&n).expect("started").is_closed = true;
    }

    fn stop(&mut self, n: usize) {
        let host = self.hosts.remove(&n).expect("a host that runs");
        host.timeout.map(|at| self.timeouts.remove(&(at, n)));
    }

    fn sleep(&mut self, n: usize, time: Duration) {
        self.hosts.get_mut(&n).expect("a host that runs").asleep_until = self.now + time;
        self.touched(n);
    }

    fn rpc(&mut self, n: usize) -> &mut Rpc<u32> {
        &mut self.hosts.get_mut(&n).expect("a host that runs").rpc
    }

    fn events(&mut self, n: usize) -> Vec<RpcEvent<u32>> {
        std::mem::take(&mut self.hosts.get_mut(&n).expect("a host that runs").events)
    }

    fn with<R>(&mut self, n: usize, does: impl FnOnce(&mut Rpc<u32>, Now) -> R) -> R {
        let now = self.now;
        let result = does(self.rpc(n), now);
        self.touched(n);
        result
    }

    /// Takes out of a host what it has to say.
    fn touched(&mut self, n: usize) {
        let host = self.hosts.get_mut(&n).expect("a host that runs");
        while let Some(event) = host.rpc.poll_event() {
            if let (RpcEvent::Request(request), true) = (&event, host.answers) {
                let answer =
                    if host.rpc.id().is_some() { Answer::reply(Some(b"yes".to_vec())) } else { Answer::error(1) };
                host.rpc.answer(self.now, request, answer);
            }
            host.events.push(event);
        }
        while let Some(transmit) = host.rpc.poll_transmit(self.now) {
            assert!(transmit.payload.len() <= 1400, "a datagram too large");
            host.known.insert(transmit.to);
            let from = if transmit.socket == SocketId::SERVER { server(n) } else { client(n) };
            self.sent += 1;
            if self.random.below(100) >= self.loss_percent {
                let at = self.now + ms(10 + self.random.below(40));
                self.on_the_way.insert((at, self.sent), (from, transmit.to, transmit.payload));
            }
        }
        if let Some(before) = host.timeout.take() {
            self.timeouts.remove(&(before, n));
        }
        host.timeout = host.rpc.poll_timeout();
        host.timeout = host.timeout.map(|at| at.max(self.now).max(host.asleep_until));
        self.timeouts.extend(host.timeout.map(|at| (at, n)));
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.on_the_way.keys().next().copied().filter(|&(at, _)| at <= end);
            let timeout = self.timeouts.first().copied().filter(|&(at, _)| at <= end);
            match (arrival, timeout) {
                (None, None) => break self.now = end,
                (Some((at, _)), Some((other, n))) if other < at => self.time_out(other, n),
                (Some(key), _) => self.deliver(key),
                (None, Some((at, n))) => self.time_out(at, n),
            }
        }
    }

    fn time_out(&mut self, at: Now, n: usize) {
        self.now = at;
        self.with(n, |rpc, now| rpc.handle_timeout(now));
    }

    fn deliver(&mut self, key: (Now, u64)) {
        let (from, to, payload) = self.on_the_way.remove(&key).expect("on the way");
        self.now = key.0;
        let Some(&(n, socket)) = self.addresses.get(&to) else { return };
        let Some(host) = self.hosts.get_mut(&n) else { return };
        if host.asleep_until > self.now {
            return;
        }
        if host.is_closed && (socket == SocketId::SERVER || !host.known.contains(&from)) {
            return;
        }
        assert!(host.rpc.handle_datagram(self.now, socket, from, &payload));
        self.touched(n);
    }

    /// A bootstrapper (host 0) and others that are persistent from the beginning.
    fn grown(hosts: usize) -> Net {
        let mut net = Net::new();
        net.start(0, RpcOptions::bootstrapper(server(0)));
        for n in 1..=hosts {
            net.start(n, forced(server(0)));
            net.run_for(ms(300));
        }
        net.run_for(secs(20));
        net
    }

    /// The closest nodes there are.
    fn true_closest(&self, target: &[u8; 32]) -> Vec<SocketAddrV4> {
        let mut nodes: Vec<SocketAddrV4> =
            self.hosts.iter().filter(|(_, host)| host.rpc.id().is_some()).map(|(&n, _)| server(n)).collect();
        nodes.sort_by_key(|&node| distance(target, &node_id(node)));
        nodes.truncate(K);
        nodes
    }

    fn find(&mut self, n: usize, query: Query) -> (Vec<Reply>, usize) {
        self.events(n);
        let id = self.with(n, |rpc, now| rpc.query(now, query));
        let mut replies = 0;
        for _ in 0..200 {
            self.run_for(ms(500));
            for event in self.events(n) {
                match event {
                    RpcEvent::QueryReply { query, .. } if query == id => replies += 1,
                    RpcEvent::QueryEnded { query, closest } if query == id => return (closest, replies),
                    _ => {}
                }
            }
        }
        panic!("a query without an end");
    }

    /// How many of the truly closest nodes walks to some targets find, in percent.
    fn found_percent(&mut self, from: &[usize]) -> usize {
        let (mut found, mut there) = (0, 0);
        for &n in from {
            let target = self.random.bytes();
            let closest = self.true_closest(&target);
            let (replies, _) = self.find(n, Query::find_node(target));
            assert!(replies.is_sorted_by_key(|reply| distance(&target, &reply.from_id.expect("an id"))));
            found += replies.iter().filter(|reply| closest[..closest.len().min(K)].contains(&reply.from)).count();
            // We do not find ourselves.
            there += closest.iter().filter(|node| **node != server(n)).count();
        }
        found * 100 / there
    }
}

fn distance(target: &[u8; 32], id: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| target[at] ^ id[at])
}

#[test]
fn a_hundred_nodes_find_the_closest() {
    let mut net = Net::grown(100);
    for n in 1..=100 {
        let events = net.events(n);
        assert!(events.contains(&RpcEvent::Ready) && events.contains(&RpcEvent::Persistent), "{n}: {events:?}");
        assert_eq!(net.rpc(n).remote_address(), Some(server(n)));
        assert!(net.rpc(n).nodes_len() >= K, "{n} knows {}", net.rpc(n).nodes_len());
    }
    let percent = net.found_percent(&[0, 1, 13, 50, 77, 100]);
    assert!(percent >= 98, "{percent} %");
}

#[test]
fn a_bootstrap_without_id_suffices() {
    let mut net = Net::new();
    // As the first node of JavaScript's testnet: reachable, with no id, answering each command that is not dht-rpc's own with an error.
    net.start(0, RpcOptions { bootstrap: vec![], persistence: Persistence::Never, ..forced(server(0)) });
    for n in 1..=8 {
        net.start(n, forced(server(0)));
        net.run_for(secs(1));
    }
    net.run_for(secs(5));
    assert_eq!(net.rpc(0).id(), None);
    assert!((1..=8).all(|n| net.rpc(n).id() == Some(node_id(server(n)))));
    net.start_closed(9, RpcOptions { persistence: Persistence::Never, ..adaptive(server(0)) });
    let query = Query { target: [7; 32], command: 3, ..Query::default() };
    let (closest, replies) = net.find(9, query);
    assert_eq!((closest.len(), replies), (8, 8), "all but the bootstrap, whose error brought them");
    assert!(closest.iter().all(|reply| reply.token.is_some() && reply.value.as_deref() == Some(b"yes")));
}

#[test]
fn a_forced_node_alone_becomes_persistent_when_others_come() {
    let mut net = Net::new();
    net.start(0, RpcOptions { bootstrap: vec![], ..forced(server(0)) });
    net.run_for(secs(2));
    assert!(net.rpc(0).is_ready() && net.rpc(0).id().is_none());
    for n in 1..=4 {
        net.start(n, forced(server(0)));
        net.run_for(secs(1));
    }
    net.run_for(secs(120));
    assert_eq!(net.rpc(0).id(), Some(node_id(server(0))));
}

#[test]
fn ten_percent_loss() {
    let mut net = Net::grown(40);
    net.loss_percent = 10;
    net.run_for(secs(300));
    let percent = net.found_percent(&[1, 9, 23, 40]);
    assert!(percent >= 90, "{percent} %");
    assert!((1..=40).all(|n| net.rpc(n).nodes_len() >= K));
}

#[test]
fn the_dead_are_forgotten_and_the_restarted_found() {
    let mut net = Net::grown(60);
    for n in 31..=60 {
        net.stop(n);
    }
    net.run_for(secs(900));
    for n in 0..=30 {
        let dead = net.rpc(n).recent_nodes().filter(|node| (31..=60).any(|n| server(n) == *node)).count();
        assert!(dead <= 2, "{n} keeps {dead} dead nodes");
    }
    assert!(net.found_percent(&[2, 11, 30]) >= 95);
    // The bootstrapper is gone, too; one comes back with what it knew.
    net.stop(0);
    let known: Vec<_> = (1..=5).chain(50..=60).map(server).collect();
    net.start(40, RpcOptions { nodes: known, ..forced(server(0)) });
    net.run_for(secs(60));
    assert!(net.rpc(40).is_ready() && net.rpc(40).id() == Some(node_id(server(40))));
    assert!(net.rpc(40).nodes_len() >= K);
    assert!(net.found_percent(&[40, 7]) >= 95);
}

#[test]
fn adaptive_nodes_turn_persistent_if_they_can_be_reached() {
    let mut net = Net::grown(10);
    net.start(20, adaptive(server(0)));
    net.start_closed(21, adaptive(server(0)));
    net.start(22, RpcOptions { persistence: Persistence::Never, ..adaptive(server(0)) });
    net.run_for(secs(20));
    for (n, is_firewalled) in [(20, false), (21, true), (22, false)] {
        assert!(net.rpc(n).is_ready());
        assert_eq!((net.rpc(n).is_firewalled(), net.rpc(n).id()), (is_firewalled, None), "{n}");
    }
    assert_eq!((net.rpc(20).remote_address(), net.rpc(21).remote_address()), (Some(server(20)), None));
    assert_eq!(net.rpc(21).public_address(), Some((host(21), Some(CLIENT_PORT))));
    net.run_for(secs(1100));
    assert_eq!(net.rpc(20).id(), None, "not before 20 minutes");
    net.run_for(secs(200));
    assert_eq!([20, 21, 22].map(|n| net.rpc(n).id()), [Some(node_id(server(20))), None, None]);
    let events = net.events(20);
    assert!(events.contains(&RpcEvent::Persistent) && !events.contains(&RpcEvent::Woke));
    // Others come to know it.
    net.run_for(secs(400));
    assert!((1..=10).filter(|&n| net.rpc(n).recent_nodes().any(|node| node == server(20))).count() >= 5);
    // The machine sleeps for an hour.
    net.sleep(20, secs(3600));
    net.run_for(secs(3599));
    assert_eq!(net.events(20), []);
    net.run_for(secs(1));
    let events = net.events(20);
    assert!(events.contains(&RpcEvent::Woke) && events.contains(&RpcEvent::Ephemeral), "{events:?}");
    assert_eq!(net.rpc(20).id(), None);
    net.run_for(secs(3700));
    assert_eq!(net.rpc(20).id(), Some(node_id(server(20))), "an hour later it is persistent again");
}

#[test]
fn suspended_and_resumed() {
    let mut net = Net::grown(10);
    net.events(3);
    let query = net.with(3, |rpc, now| {
        rpc.ping(now, server(4), None, 77);
        rpc.query(now, Query::find_node([1; 32]))
    });
    net.with(3, |rpc, now| rpc.suspend(now));
    let events = net.events(3);
    assert!(events.contains(&RpcEvent::Answered { tag: 77, result: Err(RequestError::Suspended) }), "{events:?}");
    assert!(events.contains(&RpcEvent::QueryEnded { query, closest: vec![] }));
    assert_eq!(net.rpc(3).poll_timeout(), None);
    net.with(3, |rpc, now| rpc.ping(now, server(4), None, 78));
    assert!(net.events(3).contains(&RpcEvent::Answered { tag: 78, result: Err(RequestError::Suspended) }));
    net.run_for(secs(600));
    net.with(3, |rpc, now| rpc.resume(now));
    net.run_for(secs(30));
    assert!(net.events(3).contains(&RpcEvent::Woke));
    assert!(net.found_percent(&[3]) >= 95);
    // Suspended in the middle of its first walk.
    net.start(30, forced(server(0)));
    net.with(30, |rpc, now| rpc.suspend(now));
    net.run_for(secs(5));
    net.with(30, |rpc, now| rpc.resume(now));
    net.run_for(secs(30));
    assert!(net.rpc(30).is_ready() && net.rpc(30).id().is_some());
}

#[test]
fn another_network_is_looked_at_anew() {
    let mut net = Net::grown(10);
    net.start(20, adaptive(server(0)));
    net.run_for(secs(1400));
    assert!(net.rpc(20).id().is_some());
    net.hosts.get_mut(&20).expect("a host").is_closed = true;
    net.with(20, |rpc, now| rpc.network_changed(now));
    assert!(net.rpc(20).is_firewalled() && net.rpc(20).id().is_none() && net.rpc(20).public_address().is_none());
    net.run_for(secs(60));
    assert!(net.rpc(20).is_firewalled());
    assert_eq!(net.rpc(20).public_address(), Some((host(20), Some(CLIENT_PORT))));
}

#[test]
fn nobody_answers_and_nobody_is_forgotten() {
    let mut net = Net::grown(30);
    let before = net.rpc(5).nodes_len();
    net.events(5);
    net.loss_percent = 100;
    for n in 0..24 {
        // Who asks nothing does not notice.
        net.with(5, |rpc, now| rpc.query(now, Query::find_node([n; 32])));
        net.run_for(secs(10));
    }
    assert!(net.rpc(5).nodes_len() * 10 >= before * 8, "{} of {before}", net.rpc(5).nodes_len());
    assert!(net.events(5).contains(&RpcEvent::Offline) && !net.rpc(5).is_online());
    net.loss_percent = 0;
    net.run_for(secs(30));
    net.find(5, Query::find_node([1; 32]));
    net.run_for(secs(10));
    assert!(net.rpc(5).is_online());
    let percent = net.found_percent(&[5, 6, 7]);
    assert!(percent >= 90, "{percent} %, knows {}", net.rpc(5).nodes_len());
}

// One node alone, and datagrams made by hand.

struct Alone {
    rpc: Rpc<u32>,
    now: Now,
}

impl Alone {
    fn new() -> Alone {
        let rpc = Rpc::new(secs(1), RpcOptions::bootstrapper(server(0)), random(1));
        Alone { rpc, now: secs(1) }
    }

    fn with_nodes(count: usize) -> Alone {
        let options = RpcOptions { nodes: (1..=count).map(server).collect(), ..RpcOptions::bootstrapper(server(0)) };
        let mut alone = Alone { rpc: Rpc::new(secs(1), options, random(1)), now: secs(1) };
        alone.sent();
        alone
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.rpc.poll_transmit(self.now)).collect()
    }

    fn handle(&mut self, from: SocketAddrV4, datagram: &[u8]) -> Vec<Transmit> {
        self.sent();
        self.rpc.handle_datagram(self.now, SocketId::SERVER, from, datagram);
        self.sent()
    }

    fn replies(&mut self, from: SocketAddrV4, request: message::Request) -> Vec<(SocketAddrV4, message::Reply)> {
        let sent = self.handle(from, &request.encode());
        sent.into_iter()
            .filter_map(|transmit| match Message::decode(&transmit.payload) {
                Ok(Message::Reply(reply)) => Some((transmit.to, reply)),
                _ => None,
            })
            .collect()
    }
}

fn request(command: u64, target: Option<[u8; 32]>, value: Option<&[u8]>) -> message::Request {
    message::Request {
        tid: 7,
        to: server(0),
        id: None,
        token: None,
        internal: true,
        command,
        target,
        value: value.map(<[u8]>::to_vec),
    }
}

#[test]
fn internal_commands() {
    let mut alone = Alone::with_nodes(30);
    let (id, from) = (Some(node_id(server(0))), client(99));
    let empty = message::Reply { tid: 7, to: from, id, token: None, closer: vec![], error: 0, value: None };
    assert_eq!(alone.replies(from, request(message::PING, None, None)), [(from, empty.clone())]);
    let to = SocketAddrV4::new(host(99), 4000);
    let reply = message::Reply { to, ..empty.clone() };
    assert_eq!(alone.replies(from, request(message::PING_NAT, None, Some(&[0xa0, 0x0f]))), [(to, reply)]);
    for value in [None, Some(&[1][..]), Some(&[0, 0])] {
        assert_eq!(alone.replies(from, request(message::PING_NAT, None, value)), [], "{value:?}");
    }
    let found = alone.replies(from, request(message::FIND_NODE, Some([9; 32]), None));
    assert_eq!(found[0].1.closer, alone.rpc.closest_nodes(&[9; 32], K).collect::<Vec<_>>());
    assert_eq!(found[0].1.closer.len(), K);
    assert_eq!(alone.replies(from, request(message::FIND_NODE, None, None)), []);
    let unknown = alone.replies(from, request(99, Some([9; 32]), None));
    assert_eq!((unknown[0].1.error, unknown[0].1.closer.len()), (1, K));

    assert_eq!(alone.replies(from, request(message::DELAYED_PING, None, Some(&1500u32.to_le_bytes()))), []);
    assert_eq!(alone.replies(from, request(message::DELAYED_PING, None, Some(&10_001u32.to_le_bytes()))), []);
    let mut answered_at = Vec::new();
    while alone.now < secs(5) {
        alone.now = alone.rpc.poll_timeout().expect("something to wait for");
        alone.rpc.handle_timeout(alone.now);
        let answers = alone.sent().into_iter().filter(|transmit| transmit.payload == empty.encode());
        answered_at.extend(answers.map(|_| alone.now));
    }
    assert_eq!(answered_at, [ms(2500)]);
}

#[test]
fn a_down_hint_leads_to_a_ping() {
    let mut alone = Alone::with_nodes(30);
    let sent =
        alone.handle(client(99), &request(message::DOWN_HINT, None, Some(&message::address_bytes(server(3)))).encode());
    assert_eq!(sent.iter().map(|transmit| transmit.to).collect::<Vec<_>>(), [client(99), server(3)]);
    let again =
        alone.handle(client(98), &request(message::DOWN_HINT, None, Some(&message::address_bytes(server(3)))).encode());
    assert_eq!(again.len(), 1, "it is being asked already");
    let unknown = alone
        .handle(client(98), &request(message::DOWN_HINT, None, Some(&message::address_bytes(server(77)))).encode());
    assert_eq!(unknown.len(), 1);
}

#[test]
fn tokens_prove_and_stale_ones_are_refused() {
    let mut alone = Alone::with_nodes(5);
    let from = client(99);
    let ask = |token| message::Request { internal: false, token, ..request(4, Some([9; 32]), None) };
    alone.handle(from, &ask(None).encode());
    let Some(RpcEvent::Request(incoming)) = std::iter::from_fn(|| alone.rpc.poll_event()).last() else {
        panic!("no request")
    };
    assert!(!incoming.has_valid_token && incoming.from == from && incoming.size == 43);
    alone.rpc.answer(alone.now, &incoming, Answer::reply(None));
    let Ok(Message::Reply(reply)) = Message::decode(&alone.sent()[0].payload) else { panic!("no reply") };
    let token = reply.token.expect("a token");
    assert_eq!(alone.replies(SocketAddrV4::new(host(99), 1), ask(Some(token))), [], "handed out");
    assert!(matches!(alone.rpc.poll_event(), Some(RpcEvent::Request(incoming)) if incoming.has_valid_token));
    alone.now += secs(16);
    for (from, token) in [(from, token), (client(98), token), (from, [0; 32])] {
        let refused = alone.replies(from, ask(Some(token)));
        assert_eq!((refused[0].1.error, refused[0].1.closer.len()), (message::INVALID_TOKEN, 5));
        assert!(refused[0].1.token.is_some_and(|fresh| fresh != token));
    }
    assert_eq!(alone.rpc.poll_event(), None);
    assert_eq!(alone.rpc.stats().tokens_refused, 3);
}

#[test]
fn a_forged_request_puts_nobody_into_the_table() {
    let mut alone = Alone::new();
    let victim = server(50);
    let claims = message::Request { id: Some(node_id(victim)), ..request(message::PING, None, None) };
    let sent = alone.handle(victim, &claims.encode());
    assert_eq!((alone.rpc.nodes_len(), sent.len()), (0, 2), "its reply, and a ping to see whether it is there");
    let Ok(Message::Request(ping)) = Message::decode(&sent[1].payload) else { panic!("no ping") };
    let pong = |tid| message::Reply {
        tid,
        to: server(0),
        id: Some(node_id(victim)),
        token: None,
        closer: vec![],
        error: 0,
        value: None,
    };
    alone.handle(server(51), &pong(ping.tid).encode());
    alone.handle(victim, &pong(ping.tid.wrapping_add(1)).encode());
    assert_eq!((alone.rpc.nodes_len(), alone.rpc.stats().unexpected), (0, 2));
    alone.handle(victim, &pong(ping.tid).encode());
    assert_eq!(alone.rpc.recent_nodes().collect::<Vec<_>>(), [victim]);
    // An id that is not the hash of the address is none.
    let lies = message::Request { id: Some([1; 32]), ..request(message::PING, None, None) };
    assert_eq!(alone.handle(server(52), &lies.encode()).len(), 1);
}

#[test]
fn strangers_do_not_lead_us_inwards() {
    let mut net = Net::new();
    net.start(0, RpcOptions::bootstrapper(server(0)));
    net.start(1, RpcOptions { node_filter: Some(NodeFilter::new(|node| node != server(66))), ..forced(server(0)) });
    net.run_for(secs(2));
    net.events(1);
    net.with(1, |rpc, now| {
        rpc.query(now, Query { nodes: vec![server(5)], is_only_given: false, ..Query::find_node([1; 32]) })
    });
    let (_, asked) = net
        .on_the_way
        .iter()
        .find(|(_, (_, to, _))| *to == server(5))
        .map(|(&key, value)| (key, value.clone()))
        .expect("asked");
    let Ok(Message::Request(asked)) = Message::decode(&asked.2) else { panic!("no request") };
    let inside = ["127.0.0.1:1", "10.0.0.1:2", "192.168.1.1:53", "224.0.0.1:1", "0.0.0.0:1", "9.9.9.9:0"]
        .map(|text| text.parse().expect("an address"));
    let closer: Vec<SocketAddrV4> = inside.into_iter().chain([server(66), server(7)]).collect();
    let reply = message::Reply { tid: asked.tid, to: server(1), id: None, token: None, closer, error: 0, value: None };
    net.with(1, |rpc, now| rpc.handle_datagram(now, SocketId::SERVER, server(5), &reply.encode()));
    let to: BTreeSet<SocketAddrV4> = net.on_the_way.values().map(|(_, to, _)| *to).collect();
    assert!(to.contains(&server(7)));
    assert!(to.iter().all(|to| !inside.contains(to) && *to != server(66)), "{to:?}");
}

#[test]
fn replies_to_strangers_are_bounded() {
    let mut alone = Alone::with_nodes(200);
    let start = alone.now;
    let (mut received, mut sent, mut requests) = (0, 0, 0);
    for n in 0..20_000u32 {
        // Ten seconds of forged requests, each from another host.
        alone.now = start + Duration::from_micros(500) * n;
        let from = SocketAddrV4::new(Ipv4Addr::from(0x2000_0000 + n * 977), 1000);
        let id = (n % 2 == 0).then(|| node_id(from));
        let ask = match n % 4 {
            0 => message::Request { id, ..request(message::FIND_NODE, Some([n as u8; 32]), None) },
            1 => {
                message::Request { id, token: Some([3; 32]), ..request(message::FIND_NODE, Some([n as u8; 32]), None) }
            }
            _ => message::Request { id, internal: false, ..request(3, Some([n as u8; 32]), None) },
        };
        let ask = ask.encode();
        received += ask.len();
        let mut out = alone.handle(from, &ask);
        while let Some(event) = alone.rpc.poll_event() {
            if let RpcEvent::Request(incoming) = event {
                alone.rpc.answer(alone.now, &incoming, Answer::reply(Some(vec![1; 900])));
            }
        }
        out.extend(alone.sent());
        requests += 1;
        sent += out.iter().map(|transmit| transmit.payload.len()).sum::<usize>();
    }
    let limits = RpcLimits::default();
    let budget = limits.unproven_bytes as usize * 14;
    // Pings to those who claim ids: 32 at once, each twice, of 43 bytes; far below 64 KiB in ten seconds.
    assert!(sent <= 2 * received + budget + 64 * 1024, "{sent} bytes out for {received} in");
    let stats = alone.rpc.stats();
    assert!(stats.replies_shortened > 1000 && stats.replies_refused > 1000, "{stats:?}");
    assert!(stats.replies_sent + stats.replies_refused + stats.replies_held >= requests, "{stats:?}");
}

#[test]
fn a_flood_is_bounded() {
    let mut alone = Alone::with_nodes(200);
    let limits = RpcLimits::default();
    for n in 0..50_000u32 {
        let from = SocketAddrV4::new(Ipv4Addr::from(0x2000_0000 + n * 7919), 1000);
        let id = Some(node_id(from));
        let internal = n % 2 == 0;
        let ask = message::Request {
            id,
            internal,
            tid: n as u16,
            ..request(u64::from(n % 5), Some([1; 32]), Some(&[200; 6]))
        };
        alone.rpc.handle_datagram(alone.now, SocketId::SERVER, from, &ask.encode());
    }
    let (mut events, transmits) = (0, alone.sent().len());
    while alone.rpc.poll_event().is_some() {
        events += 1;
    }
    assert!((1..=limits.events_max + 8).contains(&events), "{events} events");
    assert!((1..=limits.transmits_max + 64).contains(&transmits), "{transmits} datagrams");
    assert!(alone.rpc.stats().requests_active <= CANDIDATES_MAX + 16);
    // One host alone does not get past its rate.
    let mut alone = Alone::with_nodes(5);
    for _ in 0..5000 {
        alone.rpc.handle_datagram(alone.now, SocketId::SERVER, client(9), &request(message::PING, None, None).encode());
    }
    assert_eq!(alone.sent().len(), 400);
}

#[test]
fn too_many_requests_and_queries_of_our_own() {
    let limits = RpcLimits { inflight_max: 10, queries_max: 2, queries_waiting_max: 3, ..RpcLimits::default() };
    let mut rpc =
        Rpc::new(secs(1), RpcOptions { limits, persistence: Persistence::Never, ..adaptive(server(0)) }, random(1));
    let mut refused = 0;
    let ids: Vec<RequestId> = (0..20).map(|tag| rpc.ping(secs(1), server(9), None, tag)).collect();
    while let Some(event) = rpc.poll_event() {
        refused += usize::from(matches!(event, RpcEvent::Answered { result: Err(RequestError::TooMany), .. }));
    }
    assert!(refused >= 10 && ids.iter().collect::<BTreeSet<_>>().len() == 20);
    ids.into_iter().for_each(|id| rpc.cancel(id));
    let queries: Vec<QueryId> = (0..10).map(|n| rpc.query(secs(1), Query::find_node([n; 32]))).collect();
    let ended =
        std::iter::from_fn(|| rpc.poll_event()).filter(|event| matches!(event, RpcEvent::QueryEnded { .. })).count();
    assert_eq!(ended, 10 - 1 - 3, "one runs beside the first walk, three wait");
    queries.into_iter().for_each(|query| rpc.cancel_query(query));
    assert_eq!(rpc.stats().queries_active, 1);
    // A long queue of walks that end at once does not use up the stack.
    let limits = RpcLimits { queries_max: 1, queries_waiting_max: 100_000, ..RpcLimits::default() };
    let mut rpc: Rpc<u32> = Rpc::new(secs(1), RpcOptions { limits, ..adaptive(server(0)) }, random(1));
    for _ in 0..50_000 {
        rpc.query(secs(1), Query { is_only_given: true, ..Query::find_node([1; 32]) });
    }
    rpc.suspend(secs(2));
    rpc.resume(secs(2));
    let ended =
        std::iter::from_fn(|| rpc.poll_event()).filter(|event| matches!(event, RpcEvent::QueryEnded { .. })).count();
    assert_eq!(ended, 50_000);
}

#[test]
fn broken_datagrams_of_all_kinds() {
    let file = read("swarm/dht-rpc-messages");
    let mut alone = Alone::with_nodes(40);
    let mut taken = 0;
    let mut feed = |alone: &mut Alone, datagram: &[u8]| {
        taken += usize::from(alone.rpc.handle_datagram(alone.now, SocketId::SERVER, client(9), datagram));
        alone.now += ms(50);
        if alone.rpc.poll_timeout().is_some_and(|at| at <= alone.now) {
            alone.rpc.handle_timeout(alone.now);
        }
        assert!(alone.sent().iter().all(|transmit| transmit.payload.len() <= 1400));
        while let Some(event) = alone.rpc.poll_event() {
            if let RpcEvent::Request(incoming) = event {
                alone.rpc.answer(alone.now, &incoming, Answer::reply(incoming.value.clone()));
            }
        }
    };
    for case in file["cases"]["requests"].as_array().into_iter().chain(file["cases"]["replies"].as_array()).flatten() {
        let whole = bytes(case, "bytes");
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= flip;
                feed(&mut alone, &broken);
            }
            feed(&mut alone, &whole[..at]);
            feed(&mut alone, &[&whole[..at], &[0xff; 9], &whole[at..]].concat());
        }
    }
    assert!(taken > 1000);
    assert!(alone.rpc.stats().malformed > 100, "{:?}", alone.rpc.stats());
    assert!(!alone.rpc.handle_datagram(alone.now, SocketId::SERVER, client(9), &[]));
    assert!(!alone.rpc.handle_datagram(alone.now, SocketId::SERVER, client(9), &[0]));
    assert!(!alone.rpc.handle_datagram(alone.now, SocketId::SERVER, client(9), &[0xff; 40]));
}

#[test]
fn nodes_that_begin_at_the_same_time_find_each_other_soon() {
    let mut net = Net::new();
    net.start(0, RpcOptions::bootstrapper(server(0)));
    let known = |n| RpcOptions { bootstrap: vec![server(0)], ..RpcOptions::bootstrapper(server(n)) };
    for n in 1..=8 {
        net.start(n, known(n));
    }
    net.run_for(secs(20));
    for n in 0..=8 {
        assert_eq!(net.rpc(n).nodes_len(), 8, "{n}");
    }
    // After that it is quiet: a table that stays small is no reason to ask all the time.
    net.run_for(secs(400));
    let before = net.sent;
    net.run_for(secs(600));
    assert!((net.sent - before) / 9 < 400, "{} datagrams of each node in ten minutes", (net.sent - before) / 9);
}

#[test]
fn whenever_it_sleeps_it_wakes() {
    let mut net = Net::grown(4);
    for n in 1..=4 {
        for _ in 0..16 {
            net.run_for(secs(5));
            net.sleep(n, secs(60));
            net.run_for(secs(61));
            assert!(net.events(n).contains(&RpcEvent::Woke));
        }
    }
}
