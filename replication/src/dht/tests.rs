//! A network of [`Dht`]s on a made-up clock: each on a host of its own, packets take 10 ms and arrive in order.
//!
//! Every datagram is written down, so that a test can look at what was said, say it again later, or change it. A host may also be a liar: a function
//! that answers
//! requests as it likes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::connect::payload;
use super::messages::{
    self, Announcement, Handshake, Holepunch, LookupReply, Mode, MutableValue, PeerRecord, Place, Signed, command,
};
use super::punch::Firewall;
use super::rpc::message::{self, Message, Reply, Request};
use super::rpc::{Persistence, RpcOptions};
use super::*;
use crate::secret_stream::handshake::Identity;
use crate::udp::SocketId;

const LATENCY: Duration = Duration::from_millis(10);
const PORT: u16 = 49737;

#[derive(Clone)]
struct Datagram {
    at: Now,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: Vec<u8>,
}

impl Datagram {
    fn request(&self) -> Option<Request> {
        match Message::decode(&self.payload) {
            Ok(Message::Request(request)) => Some(request),
            _ => None,
        }
    }
    fn reply(&self) -> Option<Reply> {
        match Message::decode(&self.payload) {
            Ok(Message::Reply(reply)) => Some(reply),
            _ => None,
        }
    }
}

struct Node {
    dht: Dht,
    host: Ipv4Addr,
    events: Vec<DhtEvent>,
}

type Liar = Box<dyn Fn(SocketAddrV4, Request) -> Option<Reply>>;

#[derive(Default)]
struct World {
    now: Now,
    nodes: Vec<Node>,
    flight: BTreeMap<(Now, u64), Datagram>,
    sent: u64,
    log: Vec<Datagram>,
    dead: HashSet<Ipv4Addr>,
    liars: HashMap<SocketAddrV4, Liar>,
}

fn host_of(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(20, 1 + n as u8, 0, 1)
}

fn server_of(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new(host_of(n), PORT)
}

fn port_of(socket: SocketId) -> u16 {
    if socket == SocketId::SERVER { PORT } else { 50_000 + socket.0 as u16 }
}

fn socket_of(port: u16) -> SocketId {
    if port == PORT { SocketId::SERVER } else { SocketId(u32::from(port.saturating_sub(50_000))) }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    /// So many nodes that keep records, the first one the bootstrap node of all, and time enough to find each other.
    fn new(persistent: usize) -> World {
        let mut world = World { now: seconds(1), ..World::default() };
        for n in 0..persistent {
            let bootstrap = if n == 0 { vec![] } else { vec![server_of(0)] };
            world.add(RpcOptions { bootstrap, ..RpcOptions::bootstrapper(server_of(n)) });
        }
        world.run(seconds(3));
        world
    }

    /// A node that keeps nothing for others.
    fn add_client(&mut self) -> usize {
        let options = RpcOptions {
            bootstrap: vec![server_of(0)],
            persistence: Persistence::Never,
            server_port: PORT,
            ..RpcOptions::default()
        };
        let n = self.add(options);
        self.run(seconds(2));
        n
    }

    fn add(&mut self, rpc: RpcOptions) -> usize {
        let n = self.nodes.len();
        let options = DhtOptions { rpc, local_addresses: vec![], ..DhtOptions::default() };
        let dht = Dht::new(self.now, options, Random::new([n as u8 + 1; 32]));
        self.nodes.push(Node { dht, host: host_of(n), events: vec![] });
        n
    }

    fn send(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: Vec<u8>) {
        let datagram = Datagram { at: self.now, from, to, payload };
        assert!(datagram.payload.len() <= 1400, "{} bytes", datagram.payload.len());
        self.log.push(datagram.clone());
        self.sent += 1;
        self.flight.insert((self.now + LATENCY, self.sent), datagram);
    }

    /// Take what the nodes have to send and to tell.
    fn collect(&mut self) {
        for n in 0..self.nodes.len() {
            loop {
                let node = &mut self.nodes[n];
                let before = node.events.len();
                while let Some(event) = node.dht.poll_event() {
                    node.events.push(event);
                }
                let Some(transmit) = node.dht.poll_transmit(self.now) else {
                    if self.nodes[n].events.len() == before { break } else { continue }
                };
                let host = node.host;
                if !self.dead.contains(&host) {
                    self.send(SocketAddrV4::new(host, port_of(transmit.socket)), transmit.to, transmit.payload);
                }
            }
        }
    }

    fn deliver(&mut self, datagram: Datagram) {
        if self.dead.contains(datagram.to.ip()) {
            return;
        }
        if let Some(liar) = self.liars.get(&datagram.to) {
            let reply = datagram.request().and_then(|request| liar(datagram.from, request));
            if let Some(reply) = reply {
                self.send(datagram.to, datagram.from, reply.encode());
            }
            return;
        }
        if let Some(node) = self.nodes.iter_mut().find(|node| node.host == *datagram.to.ip()) {
            node.dht.handle_datagram(self.now, socket_of(datagram.to.port()), datagram.from, &datagram.payload);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.collect();
            let arrival = self.flight.first_key_value().map(|((at, _), _)| *at);
            let timeout = self.nodes.iter().filter_map(|node| node.dht.poll_timeout()).min();
            let Some(next) = [arrival, timeout].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let datagram = entry.remove();
                self.deliver(datagram);
            }
            for node in &mut self.nodes {
                if node.dht.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.dht.handle_timeout(self.now);
                }
            }
        }
        self.now = end;
    }

    /// Run an operation to its end: who was found, and how it ended.
    fn finish(&mut self, n: usize, start: impl FnOnce(&mut Dht, Now) -> OperationId) -> (Vec<PeerRecord>, Outcome) {
        let id = start(&mut self.nodes[n].dht, self.now);
        for _ in 0..600 {
            self.run(Duration::from_millis(100));
            let events = &self.nodes[n].events;
            let outcome = events.iter().find_map(|event| match event {
                DhtEvent::Done { operation, outcome } if *operation == id => Some(outcome.clone()),
                _ => None,
            });
            let Some(outcome) = outcome else { continue };
            let mut peers: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    DhtEvent::Peers { operation, peers, .. } if *operation == id => Some(peers.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            peers.sort();
            peers.dedup();
            return (peers, outcome);
        }
        panic!("an operation does not end");
    }

    fn lookup(&mut self, n: usize, topic: [u8; 32]) -> Vec<PeerRecord> {
        self.finish(n, |dht, now| dht.lookup(now, topic)).0
    }

    fn records(&self) -> usize {
        self.nodes.iter().map(|node| node.dht.stats().records).sum()
    }

    /// What stands in the log since then, of these requests.
    fn requests(&self, since: Now, command: u64) -> Vec<(Datagram, Request)> {
        let requests = self
            .log
            .iter()
            .filter(|datagram| datagram.at >= since)
            .filter_map(|datagram| Some((datagram.clone(), datagram.request()?)));
        requests.filter(|(_, request)| !request.internal && request.command == command).collect()
    }
}

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn relays() -> Vec<SocketAddrV4> {
    vec![SocketAddrV4::new(Ipv4Addr::new(30, 0, 0, 1), 1), SocketAddrV4::new(Ipv4Addr::new(30, 0, 0, 2), 2)]
}

#[test]
fn what_one_announces_another_finds_until_it_is_taken_back() {
    let mut world = World::new(8);
    let (a, b) = (world.add_client(), world.add_client());
    assert!(!world.nodes[a].dht.is_persistent() && world.nodes[1].dht.is_persistent());
    let topic = [7; 32];
    assert_eq!(world.lookup(b, topic), vec![]);
    let (_, outcome) = world.finish(a, |dht, now| dht.announce(now, topic, &identity(1), relays()));
    assert_eq!(outcome, Outcome::Ended { nodes: 8 });
    let record = PeerRecord { public_key: identity(1).public_key(), relays: relays() };
    assert_eq!(world.lookup(b, topic), vec![record.clone()]);
    // Announced again, by another too: each is there once.
    world.finish(a, |dht, now| dht.announce(now, topic, &identity(1), relays()));
    let (peers, _) = world.finish(b, |dht, now| dht.announce(now, topic, &identity(2), vec![]));
    assert_eq!(peers, vec![record], "who announces hears of the others");
    assert_eq!(world.lookup(b, topic).len(), 2);
    let (_, outcome) = world.finish(a, |dht, now| dht.unannounce(now, topic, &identity(1)));
    assert_eq!(outcome, Outcome::Ended { nodes: 8 });
    let left = world.lookup(b, topic);
    assert_eq!(left.iter().map(|peer| peer.public_key).collect::<Vec<_>>(), [identity(2).public_key()]);
    // Nobody says it again: it is forgotten.
    world.run(seconds(20 * 60));
    assert_eq!(world.lookup(b, topic), vec![]);
    assert_eq!(world.records(), 0);
}

#[test]
fn values_are_put_and_got() {
    let mut world = World::new(6);
    let (a, b) = (world.add_client(), world.add_client());
    let key = identity(1).public_key();
    let get = |world: &mut World, seq| world.finish(b, |dht, now| dht.mutable_get(now, key, seq)).1;
    assert_eq!(get(&mut world, 0), Outcome::Mutable(None));
    let put = |world: &mut World, seq, text: &[u8]| {
        world.finish(a, |dht, now| dht.mutable_put(now, &identity(1), seq, text.to_vec()).expect("short")).1
    };
    assert_eq!(put(&mut world, 1, b"one"), Outcome::Ended { nodes: 6 });
    assert_eq!(put(&mut world, 2, b"two"), Outcome::Ended { nodes: 6 });
    assert_eq!(get(&mut world, 0), Outcome::Mutable(Some(MutableValue::sign(&identity(1), 2, b"two".to_vec()))));
    assert_eq!(get(&mut world, 3), Outcome::Mutable(None), "nothing so new");
    assert_eq!(put(&mut world, 1, b"one"), Outcome::Outdated { nodes: 0 });
    assert_eq!(put(&mut world, 2, b"deux"), Outcome::Outdated { nodes: 0 });
    assert!(
        world.nodes[a].dht.mutable_put(world.now, &identity(1), 3, vec![0; messages::VALUE_BYTES_MAX + 1]).is_none()
    );

    let value = vec![42; messages::VALUE_BYTES_MAX];
    let hash = messages::target_of(&value);
    assert_eq!(world.finish(b, |dht, now| dht.immutable_get(now, hash)).1, Outcome::Immutable(None));
    assert_eq!(
        world.finish(a, |dht, now| dht.immutable_put(now, value.clone()).expect("fits")).1,
        Outcome::Ended { nodes: 6 }
    );
    assert_eq!(world.finish(b, |dht, now| dht.immutable_get(now, hash)).1, Outcome::Immutable(Some(value)));
}

#[test]
fn a_server_is_announced_at_three_nodes_whatever_becomes_of_them() {
    let mut world = World::new(9);
    let (a, b) = (world.add_client(), world.add_client());
    let now = world.now;
    let server = world.nodes[a].dht.listen(now, identity(1), ServerOptions::default());
    assert_eq!(world.nodes[a].dht.listen(now, identity(1), ServerOptions::default()), server, "one key, one server");
    world.run(seconds(3));
    let key = identity(1).public_key();
    let holders = |world: &mut World| -> Vec<SocketAddrV4> {
        let now = world.now;
        let is_holder = |n: &usize| !world.dead.contains(&host_of(*n)) && world.nodes[*n].dht_route(now, &key);
        (0..9).filter(is_holder).map(server_of).collect()
    };
    let first = holders(&mut world);
    assert_eq!(first.len(), 3);
    // It can be reached itself, so clients are told that first.
    let told = world.nodes[a].dht.relay_addresses(server);
    assert!(told[0] == server_of(a) && told[1..].iter().all(|relay| first.contains(relay)), "{told:?}");
    let find = |world: &mut World| world.finish(b, |dht, now| dht.find_peer(now, key)).0;
    assert_eq!(find(&mut world), vec![PeerRecord { public_key: key, relays: vec![] }]);
    // Pinged every three seconds.
    let since = world.now;
    world.run(seconds(30));
    let pings = world
        .log
        .iter()
        .filter(|datagram| datagram.at > since && *datagram.from.ip() == host_of(a) && datagram.to == first[0]);
    let pings = pings
        .filter(|datagram| {
            datagram.request().is_some_and(|request| request.internal && request.command == message::PING)
        })
        .count();
    assert!((8..=12).contains(&pings), "{pings}");
    // Two of the three die: others take their place.
    world.dead.extend([*first[0].ip(), *first[1].ip()]);
    world.run(seconds(30));
    let second = holders(&mut world);
    assert_eq!(second.len(), 3);
    assert!(second.contains(&first[2]));
    assert_eq!(find(&mut world).len(), 1);
    // They come back, and are the closest again: at the next announcement, within five minutes or so, they are taken, and the others forget.
    world.dead.clear();
    world.run(seconds(400));
    assert_eq!(holders(&mut world), first, "only the three know the way");
    // Suspended it is not to be found; resumed it is; closed it is not.
    let now = world.now;
    world.nodes[a].dht.suspend(now);
    world.run(seconds(3));
    assert_eq!(find(&mut world), vec![]);
    let silent = world.log.len();
    let is_from_a = |datagram: &Datagram| *datagram.from.ip() == host_of(a);
    world.run(seconds(30));
    assert!(!world.log[silent..].iter().any(is_from_a), "nothing is sent while suspended");
    let now = world.now;
    world.nodes[a].dht.resume(now);
    world.run(seconds(5));
    assert_eq!(find(&mut world).len(), 1);
    let now = world.now;
    world.nodes[a].dht.close_server(now, server);
    world.run(seconds(3));
    assert_eq!(find(&mut world), vec![]);
    assert!(world.nodes[a].dht.relay_addresses(server).is_empty());
}

impl Node {
    /// Whether it would forward to a key's owner.
    fn dht_route(&mut self, now: Now, key: &[u8; 32]) -> bool {
        self.dht.has_route(now, &messages::target_of(key))
    }
}

#[test]
fn announcements_said_again_or_elsewhere_are_refused() {
    let mut world = World::new(4);
    let a = world.add_client();
    let topic = [7; 32];
    let since = world.now;
    world.finish(a, |dht, now| dht.announce(now, topic, &identity(1), relays()));
    let announces = world.requests(since, command::ANNOUNCE);
    assert_eq!(announces.len(), 4);
    world.finish(a, |dht, now| dht.unannounce(now, topic, &identity(1)));
    assert_eq!(world.records(), 0);
    // From another host at once: the token is the announcer's. To another node: it gave no such token.
    let stranger = SocketAddrV4::new(Ipv4Addr::new(99, 9, 9, 9), 9);
    for (datagram, _) in &announces {
        world.send(stranger, datagram.to, datagram.payload.clone());
        let other = announces.iter().find(|(other, _)| other.to != datagram.to).expect("another").0.to;
        world.send(datagram.from, other, datagram.payload.clone());
    }
    world.run(seconds(1));
    assert_eq!(world.records(), 0);
    // From the same host, but later: the token is too old, and the node says so.
    world.run(seconds(20));
    let since = world.now;
    for (datagram, _) in &announces {
        world.send(datagram.from, datagram.to, datagram.payload.clone());
    }
    world.run(seconds(1));
    assert_eq!(world.records(), 0);
    let replies = world.log.iter().filter(|datagram| datagram.at > since).filter_map(Datagram::reply);
    assert_eq!(replies.filter(|reply| reply.error == message::INVALID_TOKEN && reply.token.is_some()).count(), 4);
}

#[test]
fn a_walk_that_outlives_its_tokens_announces_all_the_same() {
    let mut world = World::new(3);
    let a = world.add_client();
    // A node that all tell of, and that never answers, holds the walk up; meanwhile tokens grow old.
    let node = server_of(1);
    let token = [1; 32];
    let fresh = [2; 32];
    world.liars.insert(
        node,
        Box::new(move |from, request| {
            let id = Some(message::node_id(node));
            let reply =
                Reply { tid: request.tid, to: from, id, token: Some(token), closer: vec![], error: 0, value: None };
            match request.token {
                Some(held) if held == token => {
                    Some(Reply { error: message::INVALID_TOKEN, token: Some(fresh), ..reply })
                }
                Some(_) if request.command == command::ANNOUNCE => {
                    let announcement = Announcement::decode(&request.value?).ok()?;
                    let place = Place { target: &request.target?, node: &message::node_id(node), token: &fresh };
                    announcement.verify(Signed::Announce, &place).map(|_| Reply { token: None, ..reply.clone() })
                }
                _ => Some(reply),
            }
        }),
    );
    let (_, outcome) = world.finish(a, |dht, now| dht.announce(now, [7; 32], &identity(1), vec![]));
    assert_eq!(outcome, Outcome::Ended { nodes: 3 });
}

#[test]
fn lies_are_not_believed() {
    let mut world = World::new(3);
    let a = world.add_client();
    let node = server_of(1);
    let wanted = identity(1).public_key();
    world.liars.insert(
        node,
        Box::new(move |from, request| {
            let someone = PeerRecord { public_key: identity(66).public_key(), relays: vec![from; 16] };
            let value = match request.command {
                _ if request.internal => None,
                command::FIND_PEER => Some(someone.encode()),
                command::LOOKUP => {
                    Some(LookupReply::encode(&vec![PeerRecord { relays: vec![], ..someone }.encode(); 30], 0))
                }
                command::MUTABLE_GET => {
                    Some(MutableValue { seq: 99, ..MutableValue::sign(&identity(1), 1, b"old".to_vec()) }.encode())
                }
                _ => Some(b"something else".to_vec()),
            };
            let id = Some(message::node_id(node));
            Some(Reply { tid: request.tid, to: from, id, token: Some([1; 32]), closer: vec![], error: 0, value })
        }),
    );
    assert_eq!(world.finish(a, |dht, now| dht.find_peer(now, wanted)).0, vec![]);
    assert_eq!(world.lookup(a, [7; 32]), vec![], "more records than a reply may have");
    assert_eq!(world.finish(a, |dht, now| dht.mutable_get(now, wanted, 0)).1, Outcome::Mutable(None));
    assert_eq!(world.finish(a, |dht, now| dht.immutable_get(now, [7; 32])).1, Outcome::Immutable(None));
    // An honest node beside the liar is heard.
    world.finish(a, |dht, now| dht.mutable_put(now, &identity(1), 3, b"three".to_vec()).expect("short"));
    let Outcome::Mutable(Some(value)) = world.finish(a, |dht, now| dht.mutable_get(now, wanted, 0)).1 else {
        panic!("nothing")
    };
    assert_eq!(value.value, b"three");
}

#[test]
fn nodes_that_are_not_persistent_keep_nothing() {
    let mut world = World::new(2);
    let a = world.add_client();
    let asker = SocketAddrV4::new(Ipv4Addr::new(99, 9, 9, 9), 9);
    let since = world.now;
    for command in [command::FIND_PEER, command::LOOKUP, command::IMMUTABLE_PUT, command::PLUGIN, 11, 1 << 40] {
        let request = Request {
            tid: 7,
            to: server_of(a),
            id: None,
            token: None,
            internal: false,
            command,
            target: Some([1; 32]),
            value: Some(vec![1; 200]),
        };
        world.send(asker, server_of(a), request.encode());
    }
    world.run(seconds(1));
    let replies: Vec<_> = world
        .log
        .iter()
        .filter(|datagram| datagram.at > since && datagram.to == asker)
        .filter_map(Datagram::reply)
        .collect();
    assert_eq!(replies.len(), 6);
    assert!(
        replies
            .iter()
            .all(|reply| reply.error == message::UNKNOWN_COMMAND && reply.value.is_none() && reply.id.is_none())
    );
}

/// A host that speaks by hand.
struct Stranger(SocketAddrV4);

impl Stranger {
    fn new(n: u8) -> Stranger {
        Stranger(SocketAddrV4::new(Ipv4Addr::new(99, n, 9, 9), 999))
    }
    fn say(&self, world: &mut World, to: SocketAddrV4, tid: u16, command: u64, target: [u8; 32], value: Vec<u8>) {
        let request = Request {
            tid,
            to,
            id: None,
            token: None,
            internal: false,
            command,
            target: Some(target),
            value: Some(value),
        };
        world.send(self.0, to, request.encode());
        world.run(Duration::from_millis(50));
    }
    /// Announces a key at a node, by hand, with a token that it gets there first.
    fn announce(&self, world: &mut World, node: SocketAddrV4, owner: &Identity) {
        let target = messages::target_of(&owner.public_key());
        let since = world.now;
        self.say(world, node, 1, command::FIND_PEER, target, vec![]);
        let token = self.heard(world, since)[0].reply().and_then(|reply| reply.token).expect("a token");
        let place = Place { target: &target, node: &message::node_id(node), token: &token };
        let announce = Request {
            tid: 2,
            to: node,
            id: None,
            token: Some(token),
            internal: false,
            command: command::ANNOUNCE,
            target: Some(target),
            value: Some(Announcement::signed(Signed::Announce, &place, owner, &[]).encode()),
        };
        world.send(self.0, node, announce.encode());
        world.run(seconds(1));
    }
    /// What it was sent since then.
    fn heard(&self, world: &World, since: Now) -> Vec<Datagram> {
        world.log.iter().filter(|datagram| datagram.at >= since && datagram.to == self.0).cloned().collect()
    }
}

#[test]
fn handshakes_go_to_servers_and_back_and_nowhere_else() {
    let mut world = World::new(5);
    let server = Stranger::new(1);
    let client = Stranger::new(2);
    let victim = Stranger::new(3);
    // The server announces itself by hand at node 1.
    let (node, owner) = (server_of(1), identity(1));
    let target = messages::target_of(&owner.public_key());
    server.announce(&mut world, node, &owner);
    assert!(world.nodes[1].dht_route(world.now, &owner.public_key()));

    let handshake =
        |mode, peer_address| Handshake { mode, noise: vec![5; 150], peer_address, relay_address: None }.encode();
    // A node that does not know the way tells of closer nodes.
    let since = world.now;
    client.say(&mut world, server_of(2), 77, command::PEER_HANDSHAKE, target, handshake(Mode::FromClient, None));
    let heard = client.heard(&world, since);
    assert!(
        matches!(heard[0].reply(), Some(Reply { value: None, error: 0, tid: 77, closer, .. }) if !closer.is_empty())
    );
    // One that does passes it on, with the client's address and number.
    let since = world.now;
    client.say(&mut world, node, 78, command::PEER_HANDSHAKE, target, handshake(Mode::FromClient, None));
    let passed = server.heard(&world, since)[0].request().expect("a request");
    assert_eq!((passed.tid, passed.command), (78, command::PEER_HANDSHAKE));
    let read = Handshake::decode(&passed.value.expect("a handshake")).expect("a handshake");
    assert_eq!((read.mode, read.peer_address), (Mode::FromRelay, Some(client.0)));
    // And the answer back.
    server.say(&mut world, node, 78, command::PEER_HANDSHAKE, target, handshake(Mode::FromServer, Some(client.0)));
    let reply = client.heard(&world, since)[0].reply().expect("a reply");
    let read = Handshake::decode(&reply.value.expect("a handshake")).expect("a handshake");
    assert_eq!((reply.tid, read.mode, read.peer_address), (78, Mode::Reply, Some(server.0)));
    // Three times at most, and to nobody who did not ask.
    for _ in 0..5 {
        server.say(&mut world, node, 78, command::PEER_HANDSHAKE, target, handshake(Mode::FromServer, Some(client.0)));
    }
    assert_eq!(client.heard(&world, since).len(), 3);
    for tid in 0..50 {
        server.say(&mut world, node, tid, command::PEER_HANDSHAKE, target, handshake(Mode::FromServer, Some(victim.0)));
        let value =
            Holepunch { mode: Mode::FromServer, id: 1, payload: vec![1; 100], peer_address: Some(victim.0) }.encode();
        server.say(&mut world, node, tid, command::PEER_HOLEPUNCH, target, value);
    }
    assert_eq!(victim.heard(&world, since).len(), 0);
    // A hole punch goes to where the server answered from at once, and elsewhere only now and then; never into networks that reach less far than its sender.
    let punch =
        |to| Holepunch { mode: Mode::FromClient, id: 1, payload: vec![1; 100], peer_address: Some(to) }.encode();
    let since = world.now;
    for tid in 0..40 {
        client.say(&mut world, node, tid, command::PEER_HOLEPUNCH, target, punch(server.0));
        client.say(&mut world, node, 100 + tid, command::PEER_HOLEPUNCH, target, punch(victim.0));
        client.say(
            &mut world,
            node,
            200 + tid,
            command::PEER_HOLEPUNCH,
            target,
            punch(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)),
        );
        client.say(
            &mut world,
            node,
            300 + tid,
            command::PEER_HOLEPUNCH,
            target,
            punch(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80)),
        );
    }
    assert_eq!(server.heard(&world, since).len(), 40);
    let bothered = victim.heard(&world, since).len();
    assert!((4..=24).contains(&bothered), "{bothered}");
    assert!(!world.log.iter().any(|datagram| datagram.to.ip().is_loopback() || datagram.to.ip().is_private()));
}

#[test]
fn what_goes_through_a_node_is_bounded() {
    let mut world = World::new(2);
    let (node, owner, server) = (server_of(1), identity(1), Stranger::new(1));
    let target = messages::target_of(&owner.public_key());
    server.announce(&mut world, node, &owner);
    let since = world.now;
    let value =
        Handshake { mode: Mode::FromClient, noise: vec![5; 100], peer_address: None, relay_address: None }.encode();
    for n in 0..4000_u16 {
        let from = SocketAddrV4::new(Ipv4Addr::new(99, 50, (n % 7) as u8, 1), 9);
        let request = Request {
            tid: n,
            to: node,
            id: None,
            token: None,
            internal: false,
            command: command::PEER_HANDSHAKE,
            target: Some(target),
            value: Some(value.clone()),
        };
        world.send(from, node, request.encode());
    }
    world.run(seconds(1));
    let heard = server.heard(&world, since);
    assert!((100..=700).contains(&heard.len()), "{}", heard.len());
    let stats = world.nodes[1].dht.stats();
    assert!(stats.relayed.0 >= heard.len() as u64 && stats.relayed.1 + stats.rpc.requests_refused > 3000, "{stats:?}");
}

#[test]
fn changed_datagrams_neither_panic_nor_grow() {
    let mut world = World::new(3);
    let a = world.add_client();
    let now = world.now;
    world.nodes[1].dht.offer_stream_ids((0..200).collect());
    let server = world.nodes[1].dht.listen(now, identity(9), ServerOptions::default());
    world.run(seconds(3));
    assert!(!world.nodes[1].dht.relay_addresses(server).is_empty());
    world.finish(a, |dht, now| dht.announce(now, [7; 32], &identity(1), relays()));
    world.finish(a, |dht, now| dht.mutable_put(now, &identity(1), 1, b"one".to_vec()).expect("short"));
    world.finish(a, |dht, now| dht.immutable_put(now, b"value".to_vec()).expect("short"));
    let now = world.now;
    world.nodes[a].dht.connect(now, identity(9).public_key(), ConnectOptions::new(identity(2)), 3);
    world.run(seconds(2));
    let seen: Vec<Datagram> = world
        .log
        .iter()
        .filter(|datagram| datagram.to.ip() == &host_of(1) || datagram.to.ip() == &host_of(a))
        .cloned()
        .collect();
    assert!(
        seen.iter()
            .any(|datagram| datagram.request().is_some_and(|request| request.command == command::PEER_HANDSHAKE))
    );
    let mut random = Random::new([77; 32]);
    for round in 0..30_000_u64 {
        let mut datagram = seen[random.below(seen.len() as u64) as usize].clone();
        for _ in 0..1 + random.below(4) {
            let len = datagram.payload.len() as u64;
            match random.below(4) {
                0 => datagram.payload.truncate(random.below(len + 1) as usize),
                1 => datagram.payload.push(random.below(256) as u8),
                _ if len > 0 => datagram.payload[random.below(len) as usize] = random.below(256) as u8,
                _ => {}
            }
        }
        let from =
            SocketAddrV4::new(Ipv4Addr::from(0x6300_0000 + random.below(1 << 16) as u32), random.below(1 << 16) as u16);
        let from = if random.below(4) == 0 { from } else { datagram.from };
        let n = if datagram.to.ip() == &host_of(1) { 1 } else { a };
        let node = &mut world.nodes[n];
        world.now += Duration::from_micros(200);
        node.dht.handle_datagram(world.now, socket_of(datagram.to.port()), from, &datagram.payload);
        if round % 50 == 0 {
            while let Some(transmit) = node.dht.poll_transmit(world.now) {
                assert!(transmit.payload.len() < 1400);
            }
            while node.dht.poll_event().is_some() {}
            node.dht.handle_timeout(world.now);
        }
    }
    assert!(world.nodes[1].dht.stats().stored_bytes < 1 << 20);
    // And it still works.
    world.collect();
    world.run(seconds(30));
    let b = world.add_client();
    assert!(world.lookup(b, [7; 32]).iter().any(|peer| peer.public_key == identity(1).public_key()));
}

#[test]
fn two_open_nodes_connect() {
    let mut world = World::new(5);
    let now = world.now;
    world.nodes[2].dht.offer_stream_ids(vec![20, 21, 22]);
    world.nodes[2].dht.listen(now, identity(1), ServerOptions::default());
    world.run(seconds(3));
    let now = world.now;
    let connection = world.nodes[4].dht.connect(now, identity(1).public_key(), ConnectOptions::new(identity(2)), 40);
    world.run(seconds(3));
    let opened = |node: &Node| {
        node.events.iter().find_map(|event| match event {
            DhtEvent::Open(opened) => {
                Some((opened.connection, opened.path, opened.session.hash, opened.remote_key, opened.is_initiator))
            }
            _ => None,
        })
    };
    let (id, path, hash, key, is_initiator) = opened(&world.nodes[4]).expect("the client's");
    assert_eq!((id, key, is_initiator), (connection, identity(1).public_key(), true));
    assert_eq!((path.remote, path.remote_id), (server_of(2), 20));
    // The server waits for the first packet, if the client did not say it is open; here it is.
    let (_, back, server_hash, key, is_initiator) = opened(&world.nodes[2]).expect("the server's");
    assert_eq!((server_hash, key, is_initiator), (hash, identity(2).public_key(), false));
    assert_eq!((back.remote.ip(), back.remote_id), (&host_of(4), 40));
    // Who is refused is not answered.
    world.nodes[2].dht.set_firewall(Box::new(|key| *key != identity(3).public_key()));
    let now = world.now;
    let refused = world.nodes[3].dht.connect(now, identity(1).public_key(), ConnectOptions::new(identity(3)), 30);
    world.run(seconds(120));
    let is_refused =
        |event: &DhtEvent| matches!(event, DhtEvent::Failed { connection, stream: 30, .. } if *connection == refused);
    assert!(world.nodes[3].events.iter().any(is_refused));
}

/// A minute of requests in a victim's name: what the victim gets of it, for each command and at different paces.
#[test]
fn nobody_is_sent_much_more_than_was_said_in_its_name() {
    let mut world = World::new(20);
    let a = world.add_client();
    let now = world.now;
    world.nodes[1].dht.offer_stream_ids((0..200).collect());
    let server = world.nodes[1].dht.listen(now, identity(99), ServerOptions::default());
    for n in 0..24 {
        world.finish(a, |dht, now| dht.announce(now, [7; 32], &identity(n), relays()));
    }
    let value = vec![1; messages::VALUE_BYTES_MAX];
    world.finish(a, |dht, now| dht.mutable_put(now, &identity(1), 1, value.clone()).expect("not too long"));
    world.finish(a, |dht, now| dht.immutable_put(now, value.clone()).expect("not too long"));
    assert!(!world.nodes[1].dht.relay_addresses(server).is_empty());
    let key_target = messages::target_of(&identity(99).public_key());
    let mutable = messages::target_of(&identity(1).public_key());
    let noise = |seed: u64| {
        let mut ephemeral = [1; 32];
        ephemeral[..8].copy_from_slice(&seed.to_le_bytes());
        let mut initiation = payload::Initiation::new(&identity(50), identity(99).public_key(), ephemeral);
        let payload = payload::Payload {
            udx: Some(payload::Udx { version: 1, is_socket_reusable: false, id: 9, seq: 0 }),
            ..payload::Payload::new(0, Firewall::Unknown)
        };
        initiation.send(&payload).expect("a key")
    };
    let handshake =
        |noise| Handshake { mode: Mode::FromClient, noise, peer_address: None, relay_address: None }.encode();
    let victim_of = |n: usize| SocketAddrV4::new(Ipv4Addr::new(99, (n >> 8) as u8, n as u8, 9), 999);
    type Said = (&'static str, bool, u64, Option<[u8; 32]>, Option<Vec<u8>>);
    let table: Vec<Said> = vec![
        ("lookup", false, command::LOOKUP, Some([7; 32]), None),
        ("ping", true, 0, None, None),
        ("ping nat", true, 1, None, Some(999_u16.to_le_bytes().to_vec())),
        ("find node", true, 2, Some([7; 32]), None),
        ("down hint", true, 3, None, Some(vec![20, 5, 0, 1, 0x49, 0xc2])),
        ("delayed ping", true, 4, None, Some(1000_u32.to_le_bytes().to_vec())),
        ("unknown internal", true, 9, Some([7; 32]), None),
        ("handshake, no route", false, command::PEER_HANDSHAKE, Some([3; 32]), Some(handshake(vec![1; 150]))),
        ("handshake", false, command::PEER_HANDSHAKE, Some(key_target), Some(handshake(noise(0)))),
        ("hole punch", false, command::PEER_HOLEPUNCH, Some(key_target), Some(vec![1, 0, 1, 9])),
        ("find peer", false, command::FIND_PEER, Some(key_target), None),
        ("announce", false, command::ANNOUNCE, Some([7; 32]), Some(vec![0; 100])),
        ("unannounce", false, command::UNANNOUNCE, Some([7; 32]), Some(vec![0; 100])),
        ("mutable put", false, command::MUTABLE_PUT, Some(mutable), Some(vec![0; 100])),
        ("mutable get", false, command::MUTABLE_GET, Some(mutable), Some(vec![0])),
        ("immutable put", false, command::IMMUTABLE_PUT, Some([7; 32]), Some(vec![0; 100])),
        ("immutable get", false, command::IMMUTABLE_GET, Some(messages::target_of(&value)), None),
        ("plugin", false, command::PLUGIN, Some([7; 32]), Some(vec![0; 40])),
        ("unknown", false, 77, Some([7; 32]), None),
    ];
    let mut victims = 0;
    for (name, internal, command, target, value) in table {
        for a_second in [2_u64, 20] {
            victims += 1;
            let victim = victim_of(victims);
            let (to, since) = (server_of(1), world.now);
            let mut said = 0;
            for n in 0..60 * a_second {
                let value = match name {
                    "handshake" if n % 3 > 0 => Some(handshake(noise(n))),
                    _ => value.clone(),
                };
                let request = Request { tid: n as u16, to, id: None, token: None, internal, command, target, value };
                let request = request.encode();
                said += request.len();
                let now = world.now;
                world.nodes[1].dht.handle_datagram(now, SocketId::SERVER, victim, &request);
                world.run(Duration::from_micros(1_000_000 / a_second));
            }
            world.run(seconds(11));
            let sent = |datagram: &&Datagram| datagram.at >= since && datagram.to.ip() == victim.ip();
            let (count, sent) = world
                .log
                .iter()
                .filter(sent)
                .fold((0, 0), |(count, bytes), next| (count + 1, bytes + next.payload.len()));
            let factor = sent as f64 / said as f64;
            println!("{name:20} {a_second:3}/s {said:7} bytes said {sent:7} bytes sent {factor:5.1}");
            // Twice what was said (or 64 bytes for each), and what one network may have above that.
            let free = (2 * said).max(64 * 60 * a_second as usize);
            let paid = 4096 * (60 + 11 + 16);
            assert!(sent <= free + paid, "{name}: {sent} bytes for {said}");
            assert!(factor <= 6.0, "{name}: {factor}");
            assert!(count <= 60 * a_second as usize * 3, "{name}: {count} datagrams");
            world.log.clear();
        }
    }
}

/// Who is there loses nothing by it: values much larger than the question come a round trip later.
#[test]
fn who_is_there_gets_what_it_asked_for() {
    let mut world = World::new(6);
    let a = world.add_client();
    let value = vec![1; messages::VALUE_BYTES_MAX];
    world.finish(a, |dht, now| dht.immutable_put(now, value.clone()).expect("not too long"));
    let b = world.add_client();
    world.run(seconds(400));
    let held = |world: &World| world.nodes.iter().map(|node| node.dht.stats().rpc.replies_held).sum::<u64>();
    assert_eq!(held(&world), 0);
    let since = world.now;
    let got = world.finish(b, |dht, now| dht.immutable_get(now, messages::target_of(&value))).1;
    assert_eq!(got, Outcome::Immutable(Some(value)));
    assert!(held(&world) > 0 && world.now - since <= Duration::from_millis(200));
}
