//! Clients and servers against each other over a small network driven by hand: four nodes that forward, hosts behind NATs, packets that take 20 ms.
//!
//! ```text
//! node 5.0.0.1 .. 5.0.0.4    real requests and replies; what they forward is written out below, so that a test can bend it
//! host a                     8.8.0.1, NAT as the test says
//! host b                     8.8.0.2, the same; or with the public address of a, in one local network
//! ```
//!
//! Streams are a header with an id: a host sends one to each path it opens, and takes those of others as the stream layer does.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use proptest::prelude::*;

use super::client::Client;
use super::link::RELAY_WAIT;
use super::payload::{Initiation, Payload, RelayInfo, Udx, fault};
use super::server::{Announced, HALF_OPEN_PER_HOST_MAX, PUNCHERS_MAX, SLOTS_MAX, Server};
use super::{ConnectError, ConnectOptions, ServerOptions, Verdict};
use crate::dht::messages::{Handshake, Holepunch, Mode, PeerRecord, command, target_of};
use crate::dht::punch::{Firewall, Punching};
use crate::dht::router::Router;
use crate::dht::rpc::{Answer, Incoming, Outgoing, QueryId, Rpc, RpcEvent, RpcOptions};
use crate::dht::{
    Asker, ConnectionId, Context, DhtEvent, Effect, Opened, OperationId, Path, PuncherId, ServerId, Tag, Via,
};
use crate::secret_stream::Identity;
use crate::udp::{Now, Random, SocketChange, SocketId, Transmit};

const LATENCY: Duration = Duration::from_millis(20);
const CLIENT_KEY: [u8; 32] = [11; 32];
const SERVER_KEY: [u8; 32] = [22; 32];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Nat {
    /// Everybody can send to it.
    Open,
    /// One port for each socket; only who was sent something can answer.
    Restricted,
    /// Another port for each destination.
    Symmetric,
}

/// What a node does to handshakes it forwards.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bend {
    Nothing,
    /// Answers with these bytes itself.
    Rubbish,
    /// Changes a byte of the server's answer.
    Change(usize),
    Drop,
}

struct Host {
    public: Ipv4Addr,
    private: Option<Ipv4Addr>,
    port_base: u16,
    nat: Nat,
    /// Of a symmetric NAT.
    ports: HashMap<(SocketId, SocketAddrV4), u16>,
    /// Who was sent something, by outer port.
    let_in: HashSet<(u16, SocketAddrV4)>,
    sockets: BTreeSet<SocketId>,
    rpc: Rpc<Tag>,
    router: Router,
    random: Random,
    local_addresses: Vec<SocketAddrV4>,
    punching: Punching,
    stream_ids: VecDeque<u32>,
    banned: HashSet<[u8; 32]>,
    effects: Vec<Effect>,
    queries: BTreeMap<QueryId, Asker>,
    next_connection: u64,
    client: Option<Client>,
    server: Option<Server>,
    announced: Announced,
    /// Of a node: where the way to a key goes on.
    routes: HashMap<[u8; 32], (SocketAddrV4, [u8; 32])>,
    bend: Bend,
    modes: BTreeSet<(u64, u8)>,
    opened: Vec<Opened>,
    moved: Vec<Path>,
    failed: Vec<ConnectError>,
    relays_wanted: Vec<(ConnectionId, [u8; 32], [u8; 32], bool)>,
    relays_unneeded: usize,
    remembered: Vec<Vec<SocketAddrV4>>,
    paths: HashMap<u32, Path>,
    heard: HashMap<u32, usize>,
}

impl Host {
    fn new(public: Ipv4Addr, nat: Nat, options: RpcOptions, seed: u8) -> Host {
        Host {
            public,
            private: None,
            port_base: 1000,
            nat,
            ports: HashMap::new(),
            let_in: HashSet::new(),
            sockets: [SocketId::SERVER, SocketId::CLIENT].into(),
            rpc: Rpc::new(Duration::ZERO, options, Random::new([seed; 32])),
            router: Router::default(),
            random: Random::new([seed ^ 0x80; 32]),
            local_addresses: Vec::new(),
            punching: Punching::new(Random::new([seed ^ 0x40; 32])),
            stream_ids: (0..64).map(|n| u32::from(seed) * 1000 + n).collect(),
            banned: HashSet::new(),
            effects: Vec::new(),
            queries: BTreeMap::new(),
            next_connection: 100,
            client: None,
            server: None,
            announced: Announced::default(),
            routes: HashMap::new(),
            bend: Bend::Nothing,
            modes: BTreeSet::new(),
            opened: Vec::new(),
            moved: Vec::new(),
            failed: Vec::new(),
            relays_wanted: Vec::new(),
            relays_unneeded: 0,
            remembered: Vec::new(),
            paths: HashMap::new(),
            heard: HashMap::new(),
        }
    }

    fn call<R>(
        &mut self,
        now: Now,
        f: impl FnOnce(&mut Option<Client>, &mut Option<Server>, &Announced, &mut Context<'_>) -> R,
    ) -> R {
        let banned = &self.banned;
        let firewall = |key: &[u8; 32]| !banned.contains(key);
        let mut cx = Context {
            now,
            rpc: &mut self.rpc,
            router: &mut self.router,
            random: &mut self.random,
            local_addresses: &self.local_addresses,
            punching: &mut self.punching,
            stream_ids: &mut self.stream_ids,
            firewall: &firewall,
            effects: &mut self.effects,
            queries: &mut self.queries,
            next_connection: &mut self.next_connection,
        };
        f(&mut self.client, &mut self.server, &self.announced, &mut cx)
    }

    fn with_client<R>(&mut self, now: Now, f: impl FnOnce(&mut Client, &mut Context<'_>) -> R) -> Option<R> {
        self.call(now, |client, _, _, cx| client.as_mut().map(|client| f(client, cx)))
    }

    fn with_server<R>(
        &mut self,
        now: Now,
        f: impl FnOnce(&mut Server, &Announced, &mut Context<'_>) -> R,
    ) -> Option<R> {
        self.call(now, |_, server, announced, cx| server.as_mut().map(|server| f(server, announced, cx)))
    }

    /// Under which address a datagram leaves.
    fn leave(&mut self, socket: SocketId, to: SocketAddrV4) -> SocketAddrV4 {
        let is_near = self.private.is_some() && to.ip().octets()[0] == 192;
        if is_near {
            return SocketAddrV4::new(self.private.expect("one"), self.port_base + socket.0 as u16);
        }
        let port = match self.nat {
            Nat::Symmetric => {
                let fresh = 1000 + self.random.below(64_535) as u16;
                *self.ports.entry((socket, to)).or_insert(fresh)
            }
            _ => self.port_base + socket.0 as u16,
        };
        self.let_in.insert((port, to));
        SocketAddrV4::new(self.public, port)
    }

    /// Which socket a datagram comes in on.
    fn enter(&self, to: SocketAddrV4, from: SocketAddrV4) -> Option<SocketId> {
        let is_near = self.private == Some(*to.ip());
        let socket = match self.nat {
            Nat::Symmetric if !is_near => self
                .ports
                .iter()
                .find(|((_, peer), port)| **port == to.port() && *peer == from)
                .map(|((socket, _), _)| *socket)?,
            _ => SocketId(u32::from(to.port().checked_sub(self.port_base)?)),
        };
        let is_let_in = is_near || self.nat == Nat::Open || self.let_in.contains(&(to.port(), from));
        (is_let_in && self.sockets.contains(&socket)).then_some(socket)
    }
}

struct Net {
    now: Now,
    hosts: Vec<Host>,
    /// Datagrams on their way, by arrival.
    flying: BTreeMap<(Now, u64), (SocketAddrV4, SocketAddrV4, Vec<u8>)>,
    sent: u64,
    resent: Now,
}

const NODES: usize = 4;
const A: usize = NODES;
const B: usize = NODES + 1;

fn node_address(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(5, 0, 0, n as u8 + 1), 1000)
}

fn server_key() -> [u8; 32] {
    Identity::from_seed(SERVER_KEY).public_key()
}

impl Net {
    /// Four nodes; a host a that will connect; a host b that listens and is known at three of the nodes.
    fn new(a: Nat, b: Nat, seed: u8) -> Net {
        Net::with(a, b, seed, ServerOptions::default(), false)
    }

    fn with(a: Nat, b: Nat, seed: u8, options: ServerOptions, is_lan: bool) -> Net {
        let mut hosts: Vec<Host> = (0..NODES)
            .map(|n| {
                Host::new(*node_address(n).ip(), Nat::Open, RpcOptions::bootstrapper(node_address(n)), n as u8 + 1)
            })
            .collect();
        for (n, nat) in [a, b].into_iter().enumerate() {
            let port_base = if is_lan && n == 1 { 30_000 } else { 1000 };
            let rpc = RpcOptions {
                bootstrap: (0..NODES).map(node_address).collect(),
                server_port: port_base,
                ..RpcOptions::default()
            };
            let public = Ipv4Addr::new(8, 8, 0, if is_lan { 1 } else { n as u8 + 1 });
            let mut host = Host::new(public, nat, rpc, 40 + seed * 2 + n as u8);
            host.port_base = port_base;
            if is_lan {
                let private = Ipv4Addr::new(192, 168, 0, n as u8 + 1);
                host.private = Some(private);
                host.local_addresses = vec![SocketAddrV4::new(private, port_base)];
            }
            hosts.push(host);
        }
        let mut net = Net { now: Duration::ZERO, hosts, flying: BTreeMap::new(), sent: 0, resent: Duration::ZERO };
        net.run(Duration::from_secs(8), |_| false);
        net.hosts[B].server = Some(Server::new(ServerId(1), Identity::from_seed(SERVER_KEY), options));
        net.announce();
        net
    }

    /// What the announcer does: pings to three nodes, again and again.
    fn announce(&mut self) {
        for n in 0..3 {
            let now = self.now;
            let b = &mut self.hosts[B];
            let socket = b.rpc.socket();
            b.rpc.request(
                now,
                Outgoing { socket: Some(socket), ..Outgoing::ping(node_address(n)) },
                Tag::Operation(OperationId(n as u64), crate::dht::operations::Step::Clear),
            );
        }
        self.run(Duration::from_secs(1), |_| false);
        assert_eq!(self.hosts[B].announced.relays.len(), 3);
    }

    fn connect(&mut self, key: [u8; 32], options: impl FnOnce(&mut ConnectOptions)) {
        let now = self.now;
        let mut connect = ConnectOptions::new(Identity::from_seed(CLIENT_KEY));
        options(&mut connect);
        let a = &mut self.hosts[A];
        a.call(now, |client, _, _, cx| *client = Some(Client::new(cx, ConnectionId(7), key, connect, 777)));
        self.settle();
    }

    /// Until then, or until this long has passed.
    fn run(&mut self, long: Duration, is_done: impl Fn(&Net) -> bool) -> bool {
        let end = self.now + long;
        loop {
            self.settle();
            if is_done(self) {
                return true;
            }
            let timeouts = self.hosts.iter().filter_map(|host| {
                let client = host.client.as_ref().and_then(Client::poll_timeout);
                let server = host.server.as_ref().and_then(Server::poll_timeout);
                [host.rpc.poll_timeout(), client, server].into_iter().flatten().min()
            });
            let flying = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = timeouts.chain(flying).chain([self.resent + Duration::from_secs(1)]).min().expect("a time");
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            self.deliver();
            self.time_passes();
        }
    }

    fn deliver(&mut self) {
        while let Some(((at, _), _)) = self.flying.first_key_value()
            && *at <= self.now
        {
            let (_, (from, to, bytes)) = self.flying.pop_first().expect("one");
            let found = self.hosts.iter().enumerate().find_map(|(n, host)| {
                let is_its = host.public == *to.ip() || host.private == Some(*to.ip());
                is_its.then(|| host.enter(to, from).map(|socket| (n, socket))).flatten()
            });
            if let Some((host, socket)) = found {
                self.handle(host, socket, from, &bytes);
            }
        }
    }

    fn handle(&mut self, n: usize, socket: SocketId, from: SocketAddrV4, bytes: &[u8]) {
        let (now, host) = (self.now, &mut self.hosts[n]);
        if bytes.len() == 1 {
            if host.with_client(now, |client, cx| client.handle_punch_packet(cx, socket, from)) != Some(true) {
                host.with_server(now, |server, _, cx| server.handle_punch_packet(cx, socket, from));
            }
        } else if let [0xff, 1, _, _, a, b, c, d, ..] = bytes {
            let stream = u32::from_le_bytes([*a, *b, *c, *d]);
            if host.paths.get(&stream).is_none_or(|path| path.socket != socket) {
                let mut verdict = Some(Verdict::Refuse);
                if stream == 777 {
                    verdict = host.with_client(now, |client, cx| client.handle_stream_packet(cx, socket, from));
                } else if let Some(said) =
                    host.with_server(now, |server, _, cx| server.handle_stream_packet(cx, stream, socket, from))
                {
                    verdict = said;
                }
                match verdict {
                    Some(Verdict::Connect(path) | Verdict::Move(path)) => {
                        assert_eq!((path.socket, path.remote), (socket, from))
                    }
                    _ => return,
                }
            }
            let heard = host.heard.entry(stream).or_default();
            *heard += 1;
            let is_first = *heard == 1;
            host.with_client(now, |client, cx| client.handle_path_confirmed(cx));
            host.with_server(now, |server, _, cx| server.handle_path_confirmed(cx, stream));
            // As an ack.
            if let Some(path) = host.paths.get(&stream).copied().filter(|_| is_first) {
                self.send_stream_packet(n, path);
            }
        } else {
            host.rpc.handle_datagram(now, socket, from, bytes);
        }
    }

    fn time_passes(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            if host.rpc.poll_timeout().is_some_and(|at| at <= now) {
                host.rpc.handle_timeout(now);
            }
            if host.client.as_ref().and_then(Client::poll_timeout).is_some_and(|at| at <= now) {
                host.with_client(now, Client::handle_timeout);
            }
            if host.server.as_ref().and_then(Server::poll_timeout).is_some_and(|at| at <= now) {
                host.with_server(now, |server, _, cx| server.handle_timeout(cx));
            }
        }
        if now >= self.resent + Duration::from_secs(1) {
            self.resent = now;
            for host in 0..self.hosts.len() {
                let silent: Vec<_> = self.hosts[host]
                    .paths
                    .iter()
                    .filter(|(stream, _)| !self.hosts[host].heard.contains_key(stream))
                    .map(|(_, path)| *path)
                    .collect();
                silent.into_iter().for_each(|path| self.send_stream_packet(host, path));
            }
        }
    }

    /// Everything that can be done now is done.
    fn settle(&mut self) {
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for host in 0..self.hosts.len() {
                while let Some(event) = self.hosts[host].rpc.poll_event() {
                    is_busy = true;
                    self.handle_event(host, event);
                }
                for effect in std::mem::take(&mut self.hosts[host].effects) {
                    is_busy = true;
                    self.handle_effect(host, effect);
                }
                while let Some(change) = self.hosts[host].punching.poll_socket_change() {
                    match change {
                        SocketChange::Open(id) => self.hosts[host].sockets.insert(id),
                        SocketChange::Close(id) => self.hosts[host].sockets.remove(&id),
                    };
                }
                let now = self.now;
                while let Some(transmit) = self.hosts[host].punching.poll_transmit() {
                    self.send(host, transmit);
                }
                while let Some(transmit) = self.hosts[host].rpc.poll_transmit(now) {
                    self.send(host, transmit);
                }
            }
        }
    }

    fn send(&mut self, host: usize, transmit: Transmit) {
        assert!(transmit.segment.is_none());
        // A socket that was closed meanwhile sends nothing.
        if !self.hosts[host].sockets.contains(&transmit.socket) {
            return;
        }
        let from = self.hosts[host].leave(transmit.socket, transmit.to);
        if transmit.ttl.is_none_or(|ttl| ttl > 10) {
            self.sent += 1;
            self.flying.insert((self.now + LATENCY, self.sent), (from, transmit.to, transmit.payload));
        }
    }

    fn send_stream_packet(&mut self, host: usize, path: Path) {
        let mut packet = vec![0xff, 1, 0, 0];
        packet.extend_from_slice(&path.remote_id.to_le_bytes());
        packet.extend_from_slice(&[0; 12]);
        self.send(host, Transmit::new(path.socket, path.remote, packet));
    }

    fn handle_effect(&mut self, n: usize, effect: Effect) {
        let host = &mut self.hosts[n];
        match effect {
            Effect::Event(DhtEvent::Open(opened)) => {
                let path = opened.path;
                assert!(host.paths.insert(opened.stream, path).is_none(), "a stream opens once");
                host.opened.push(opened);
                self.send_stream_packet(n, path);
            }
            Effect::Event(DhtEvent::Moved { stream, path, .. }) => {
                host.paths.insert(stream, path).expect("it was open");
                host.moved.push(path);
                self.send_stream_packet(n, path);
            }
            Effect::Event(DhtEvent::Failed { error, .. }) => host.failed.push(error),
            Effect::Event(DhtEvent::NeedsRelay { connection, relay, token, is_initiator, .. }) => {
                host.relays_wanted.push((connection, relay, token, is_initiator));
            }
            Effect::Event(DhtEvent::RelayUnneeded { .. }) => host.relays_unneeded += 1,
            Effect::RememberRelays { relays, .. } => host.remembered.push(relays),
            Effect::Event(_) => {}
        }
    }

    fn handle_event(&mut self, n: usize, event: RpcEvent<Tag>) {
        let (now, host) = (self.now, &mut self.hosts[n]);
        match event {
            RpcEvent::Answered { tag: Tag::Client(_, step), result } => {
                host.with_client(now, |client, cx| client.handle_answer(cx, step, result));
            }
            RpcEvent::Answered { tag: Tag::Puncher(PuncherId::Client(_), step), result } => {
                host.with_client(now, |client, cx| client.handle_punch_answer(cx, step, result));
            }
            RpcEvent::Answered { tag: Tag::Puncher(PuncherId::Server(_, id), step), result } => {
                host.with_server(now, |server, _, cx| server.handle_punch_answer(cx, id, step, result));
            }
            RpcEvent::Answered { tag: Tag::Operation(id, _), result } => {
                let reply = result.expect("a node answers");
                host.announced.relays.push(RelayInfo { relay: reply.from, server: reply.to });
                host.announced.relay_addresses.push(reply.from);
                self.hosts[id.0 as usize].routes.insert(target_of(&server_key()), (reply.to, server_key()));
            }
            RpcEvent::QueryReply { query, reply } => {
                host.with_client(now, |client, cx| client.handle_query_reply(cx, query, &reply));
            }
            RpcEvent::QueryEnded { query, closest } => {
                host.queries.remove(&query);
                host.with_client(now, |client, cx| client.handle_query_end(cx, query, closest));
            }
            // As any node that is not persistent.
            RpcEvent::Request(request) if n >= NODES && request.command > command::PEER_HOLEPUNCH => {
                host.rpc.answer(now, &request, Answer::error(1));
            }
            RpcEvent::Request(request) if host.server.is_some() => {
                let value = request.value.clone().unwrap_or_default();
                host.with_server(now, |server, announced, cx| match request.command {
                    command::PEER_HANDSHAKE => {
                        server.handle_handshake(cx, announced, request, Handshake::decode(&value).expect("from a node"))
                    }
                    _ => {
                        server.handle_holepunch(cx, announced, request, Holepunch::decode(&value).expect("from a node"))
                    }
                });
            }
            RpcEvent::Request(request) => self.forward(n, &request),
            _ => {}
        }
    }

    /// A node's part.
    fn forward(&mut self, n: usize, request: &Incoming) {
        let (now, node) = (self.now, &mut self.hosts[n]);
        let route = node.routes.get(&request.target.expect("a target")).copied();
        let from = Some(request.from);
        let value = request.value.as_deref().unwrap_or_default();
        match request.command {
            command::FIND_PEER => {
                let record = route.map(|(_, public_key)| PeerRecord { public_key, relays: Vec::new() }.encode());
                node.rpc.answer(now, request, Answer::reply(record));
            }
            command::PEER_HANDSHAKE => {
                let mut handshake = Handshake::decode(value).expect("a handshake");
                node.modes.insert((request.command, handshake.mode as u8));
                match (handshake.mode, route) {
                    (_, None) if handshake.mode != Mode::FromServer => {
                        node.rpc.answer(now, request, Answer { closer: true, ..Answer::default() })
                    }
                    (Mode::FromClient, Some(_)) if node.bend == Bend::Rubbish => {
                        let value = Handshake {
                            mode: Mode::Reply,
                            noise: vec![9; 120],
                            peer_address: from,
                            relay_address: None,
                        };
                        node.rpc.answer(now, request, Answer { value: Some(value.encode()), ..Answer::default() });
                    }
                    (Mode::FromClient, Some((to, _))) if node.bend != Bend::Drop => {
                        handshake =
                            Handshake { mode: Mode::FromRelay, peer_address: from, relay_address: None, ..handshake };
                        node.rpc.relay(now, request, handshake.encode(), to, None);
                    }
                    (Mode::FromRelay, Some((to, _))) => {
                        handshake = Handshake { mode: Mode::FromSecondRelay, relay_address: from, ..handshake };
                        node.rpc.relay(now, request, handshake.encode(), to, None);
                    }
                    (Mode::FromServer, _) => {
                        let to = handshake.peer_address;
                        if let Bend::Change(at) = node.bend {
                            let at = at % handshake.noise.len();
                            handshake.noise[at] ^= 1;
                        }
                        handshake =
                            Handshake { mode: Mode::Reply, peer_address: from, relay_address: None, ..handshake };
                        node.rpc.answer(
                            now,
                            request,
                            Answer { to, value: Some(handshake.encode()), ..Answer::default() },
                        );
                    }
                    _ => {}
                }
            }
            _ => {
                let holepunch = Holepunch::decode(value).expect("a round");
                node.modes.insert((request.command, holepunch.mode as u8));
                match holepunch.mode {
                    Mode::FromClient => {
                        let to = holepunch.peer_address.expect("the server");
                        node.rpc.relay(
                            now,
                            request,
                            Holepunch { mode: Mode::FromRelay, peer_address: from, ..holepunch }.encode(),
                            to,
                            None,
                        );
                    }
                    Mode::FromServer => {
                        let to = holepunch.peer_address;
                        let value = Holepunch { mode: Mode::Reply, peer_address: from, ..holepunch }.encode();
                        node.rpc.answer(now, request, Answer { to, value: Some(value), ..Answer::default() });
                    }
                    _ => panic!("not for a node"),
                }
            }
        }
    }

    fn is_open(&self) -> bool {
        !self.hosts[A].heard.is_empty() && !self.hosts[B].heard.is_empty()
    }

    /// Both sides are open, know each other's keys, share secrets, and hear each other.
    fn assert_open(&mut self, within: Duration) -> (Via, Via) {
        let is_open = self.run(within, Net::is_open);
        assert!(is_open, "client {:?}, server {:?}", self.hosts[A].failed, self.hosts[B].failed);
        let (a, b) = (&self.hosts[A].opened[0], &self.hosts[B].opened[0]);
        assert_eq!((a.remote_key, a.session.remote_public_key), (server_key(), server_key()));
        assert_eq!(b.remote_key, Identity::from_seed(CLIENT_KEY).public_key());
        assert_eq!((a.session.send_key, a.session.receive_key), (b.session.receive_key, b.session.send_key));
        assert_eq!((a.is_initiator, b.is_initiator), (true, false));
        assert_eq!((a.path.remote_id, b.path.remote_id, b.server), (b.stream, a.stream, Some(ServerId(1))));
        (a.via, b.via)
    }

    fn assert_failed(&mut self, within: Duration, error: ConnectError) {
        self.run(within, |net| !net.hosts[A].failed.is_empty());
        assert_eq!(self.hosts[A].failed, [error]);
        assert!(self.hosts[A].opened.is_empty() && self.hosts[A].client.as_ref().is_some_and(Client::is_done));
        self.assert_nothing_held(A);
    }

    /// No socket but the two, no query, no timer of a client's.
    fn assert_nothing_held(&mut self, host: usize) {
        self.run(Duration::from_secs(15), |_| false);
        assert_eq!(self.hosts[host].sockets.len(), 2);
        assert!(self.hosts[host].queries.is_empty());
    }
}

const SECONDS_5: Duration = Duration::from_secs(5);

#[test]
fn an_open_server_is_reached_through_a_node() {
    let mut net = Net::new(Nat::Restricted, Nat::Open, 0);
    assert!(net.hosts[B].rpc.remote_address().is_some(), "it knows that it is open");
    net.connect(server_key(), |_| {});
    assert_eq!(net.assert_open(SECONDS_5), (Via::Direct, Via::Direct));
    assert_eq!(net.hosts[A].remembered[0], net.hosts[B].announced.relay_addresses, "for the next time");
}

#[test]
fn an_open_client_is_called_back() {
    let mut net = Net::new(Nat::Open, Nat::Restricted, 1);
    assert!(net.hosts[A].rpc.remote_address().is_some());
    net.connect(server_key(), |_| {});
    assert_eq!(net.assert_open(SECONDS_5), (Via::Direct, Via::Direct));
}

#[test]
fn the_server_itself_may_be_asked() {
    let mut net = Net::new(Nat::Restricted, Nat::Open, 2);
    let address = net.hosts[B].rpc.remote_address().expect("open");
    (0..NODES).for_each(|n| net.hosts[n].routes.clear());
    net.connect(server_key(), |options| options.relay_addresses = vec![address]);
    assert_eq!(net.assert_open(SECONDS_5), (Via::Direct, Via::Direct));
}

#[test]
fn two_nats_are_punched() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 3);
    net.connect(server_key(), |_| {});
    assert_eq!(net.assert_open(Duration::from_secs(10)), (Via::Punched, Via::Punched));
    let modes: BTreeSet<_> = net.hosts[..NODES].iter().flat_map(|node| node.modes.iter().copied()).collect();
    assert_eq!(modes, [(0, 0), (0, 1), (1, 0), (1, 1)].into(), "handshakes and rounds there and back");
    let now = net.now;
    net.hosts[A].with_client(now, Client::stream_closed);
    let stream = net.hosts[B].opened[0].stream;
    net.hosts[B].with_server(now, |server, _, cx| server.stream_closed(cx, stream));
    net.assert_nothing_held(A);
    net.assert_nothing_held(B);
}

#[test]
fn a_random_nat_is_punched_from_either_side() {
    for (seed, a, b) in [(4, Nat::Symmetric, Nat::Restricted), (5, Nat::Restricted, Nat::Symmetric)] {
        let mut net = Net::new(a, b, seed);
        net.connect(server_key(), |_| {});
        assert_eq!(net.assert_open(Duration::from_secs(60)), (Via::Punched, Via::Punched), "{a:?} {b:?}");
    }
}

#[test]
fn two_random_nats_are_hopeless_and_said_so() {
    let mut net = Net::new(Nat::Symmetric, Nat::Symmetric, 6);
    net.connect(server_key(), |_| {});
    net.assert_failed(Duration::from_secs(60), ConnectError::DoubleRandomNat);
    net.assert_nothing_held(B);
    assert_eq!(net.hosts[B].failed.len(), 1, "the server knows as well: {:?}", net.hosts[B].failed);
}

#[test]
fn neighbours_meet_in_their_network() {
    let mut net = Net::with(Nat::Restricted, Nat::Restricted, 7, ServerOptions::default(), true);
    net.connect(server_key(), |_| {});
    assert_eq!(net.assert_open(SECONDS_5), (Via::Lan, Via::Lan));
    assert_eq!(net.hosts[A].opened[0].path.remote, net.hosts[B].local_addresses[0]);
}

#[test]
fn a_second_node_may_be_in_between() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 8);
    let target = target_of(&server_key());
    for node in &mut net.hosts[1..NODES] {
        node.routes.remove(&target);
    }
    net.hosts[3].routes.insert(target, (node_address(0), server_key()));
    net.connect(server_key(), |options| options.relay_addresses = vec![node_address(3)]);
    assert_eq!(net.assert_open(Duration::from_secs(15)).0, Via::Punched);
    assert!(net.hosts[0].modes.contains(&(0, 2)), "a second node was asked to forward");
}

#[test]
fn nodes_that_lie_cost_time_only() {
    for (seed, bend) in [(9, Bend::Rubbish), (10, Bend::Change(3)), (11, Bend::Drop)] {
        let mut net = Net::new(Nat::Restricted, Nat::Open, seed);
        net.hosts[0].bend = bend;
        net.hosts[1].bend = bend;
        net.connect(server_key(), |_| {});
        net.assert_open(Duration::from_secs(30));
    }
}

#[test]
fn if_all_nodes_lie_the_error_says_so() {
    for (seed, bend, error) in [
        (12, Bend::Rubbish, ConnectError::HandshakeInvalid),
        (13, Bend::Change(40), ConnectError::HandshakeInvalid),
        (14, Bend::Drop, ConnectError::NoAnswer { attempts: 3 }),
    ] {
        let mut net = Net::new(Nat::Restricted, Nat::Open, seed);
        (0..NODES).for_each(|n| net.hosts[n].bend = bend);
        net.connect(server_key(), |_| {});
        net.assert_failed(Duration::from_secs(60), error);
    }
}

#[test]
fn who_is_not_there_is_not_found() {
    let mut net = Net::new(Nat::Restricted, Nat::Open, 15);
    net.connect(Identity::from_seed([33; 32]).public_key(), |_| {});
    net.assert_failed(Duration::from_secs(30), ConnectError::PeerNotFound);

    let mut net = Net::new(Nat::Restricted, Nat::Open, 16);
    net.connect([0xff; 32], |options| options.relay_addresses = vec![node_address(0)]);
    net.assert_failed(Duration::from_secs(30), ConnectError::KeyInvalid);
}

#[test]
fn a_machine_that_is_offline_is_told() {
    let mut net = Net::new(Nat::Restricted, Nat::Open, 17);
    (0..NODES).for_each(|n| net.hosts[n].sockets.clear());
    net.connect(server_key(), |_| {});
    net.assert_failed(Duration::from_secs(90), ConnectError::NoNodeReachable);
}

#[test]
fn nobody_answers_for_another_key() {
    let mut net = Net::new(Nat::Restricted, Nat::Open, 18);
    let asked = Identity::from_seed([33; 32]).public_key();
    let server = net.hosts[0].routes[&target_of(&server_key())].0;
    for node in &mut net.hosts[..NODES] {
        node.routes.insert(target_of(&asked), (server, asked));
    }
    net.connect(asked, |_| {});
    net.assert_failed(Duration::from_secs(90), ConnectError::NoAnswer { attempts: 4 });
    assert!(net.hosts[B].opened.is_empty());
}

#[test]
fn who_is_banned_learns_nothing() {
    let mut net = Net::new(Nat::Restricted, Nat::Open, 19);
    net.hosts[B].banned.insert(Identity::from_seed(CLIENT_KEY).public_key());
    net.connect(server_key(), |_| {});
    net.assert_failed(Duration::from_secs(90), ConnectError::NoAnswer { attempts: 3 });
    assert!(net.hosts[B].opened.is_empty() && net.hosts[B].failed.is_empty());
}

#[test]
fn a_relay_carries_the_stream_until_a_hole_is_there() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 20);
    net.connect(server_key(), |options| options.relay_through = Some([44; 32]));
    assert!(net.run(SECONDS_5, |net| !net.hosts[A].relays_wanted.is_empty() && !net.hosts[B].relays_wanted.is_empty()));
    let (a, b) = (net.hosts[A].relays_wanted[0], net.hosts[B].relays_wanted[0]);
    assert_eq!((a.1, a.2, a.3, b.3), ([44; 32], b.2, true, false), "one token, and one initiator");
    let now = net.now;
    let path = |n: u32| Path {
        socket: SocketId::CLIENT,
        remote: SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), 9),
        remote_id: n,
    };
    net.hosts[A].with_client(now, |client, cx| client.relay_paired(cx, path(1)));
    net.hosts[B].with_server(now, |server, _, cx| server.relay_paired(cx, b.0, path(2)));
    net.settle();
    assert_eq!((net.hosts[A].opened[0].via, net.hosts[B].opened[0].via), (Via::Relayed, Via::Relayed));
    assert!(net.run(Duration::from_secs(15), |net| !net.hosts[A].moved.is_empty() && !net.hosts[B].moved.is_empty()));
    assert!(net.run(SECONDS_5, |net| net.hosts[A].relays_unneeded == 1 && net.hosts[B].relays_unneeded == 1));
    assert_eq!(
        net.hosts[A].moved[0].remote_id, net.hosts[B].opened[0].stream,
        "direct packets carry the other's id, not the relay's"
    );
    assert!(net.hosts[A].failed.is_empty() && net.hosts[B].failed.is_empty());
    net.run(Duration::from_secs(12), |_| false);
    let server = net.hosts[B].server.as_ref().expect("listening");
    assert!(
        server.poll_timeout().is_none() && server.has_connection(b.0),
        "its slot is free, the connection is not forgotten"
    );
}

#[test]
fn a_relay_carries_the_stream_where_no_hole_can_be() {
    let mut net = Net::new(Nat::Symmetric, Nat::Symmetric, 21);
    net.connect(server_key(), |options| options.relay_through = Some([44; 32]));
    assert!(net.run(SECONDS_5, |net| !net.hosts[A].relays_wanted.is_empty()));
    let now = net.now;
    let path = Path { socket: SocketId::CLIENT, remote: SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), 9), remote_id: 1 };
    net.hosts[A].with_client(now, |client, cx| client.relay_paired(cx, path));
    net.run(Duration::from_secs(60), |_| false);
    assert_eq!((net.hosts[A].opened[0].via, net.hosts[A].failed.len(), net.hosts[A].moved.len()), (Via::Relayed, 0, 0));
    assert_eq!(net.hosts[A].relays_unneeded, 0);
    let now = net.now;
    net.hosts[A].with_client(now, Client::stream_closed);
    net.settle();
    assert_eq!(net.hosts[A].relays_unneeded, 1, "with the stream goes the relay");
}

#[test]
fn a_relay_that_does_not_come_is_given_up() {
    let mut net = Net::new(Nat::Symmetric, Nat::Symmetric, 22);
    net.connect(server_key(), |options| options.relay_through = Some([44; 32]));
    net.run(RELAY_WAIT + Duration::from_secs(60), |net| !net.hosts[A].failed.is_empty());
    assert_eq!(net.hosts[A].failed.len(), 1);
    assert_eq!(net.hosts[A].relays_unneeded, 1);
}

#[test]
fn a_client_that_falls_silent_costs_ten_seconds() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 23);
    net.connect(server_key(), |_| {});
    net.run(SECONDS_5, |net| net.hosts[B].sockets.len() > 2);
    let now = net.now;
    net.hosts[A].with_client(now, Client::abort);
    net.hosts[A].client = None;
    assert!(net.run(Duration::from_secs(11), |net| !net.hosts[B].failed.is_empty()));
    assert_eq!(net.hosts[B].failed, [ConnectError::ClientGone]);
    net.assert_nothing_held(B);
    assert!(net.hosts[B].server.as_ref().expect("listening").poll_timeout().is_none(), "and no slot");
}

/// A handshake as a stranger at that host sends it.
fn stranger(seed: u32, payload: &Payload) -> Vec<u8> {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    Initiation::new(&Identity::from_seed([55; 32]), server_key(), bytes).send(payload).expect("the first")
}

fn asking(id: u32) -> Payload {
    Payload {
        udx: Some(Udx { version: 1, is_socket_reusable: false, id, seq: 0 }),
        ..Payload::new(fault::NONE, Firewall::Unknown)
    }
}

fn knock(net: &mut Net, noise: Vec<u8>, client: SocketAddrV4, mode: Mode) {
    let now = net.now;
    let from = if mode == Mode::FromClient { client } else { node_address(0) };
    let request = Incoming {
        tid: 1,
        from,
        from_id: None,
        to: SocketAddrV4::new(Ipv4Addr::new(8, 8, 0, 2), 1000),
        socket: SocketId::SERVER,
        has_valid_token: false,
        token: None,
        command: command::PEER_HANDSHAKE,
        target: Some(target_of(&server_key())),
        value: None,
        size: noise.len() + 50,
    };
    let message =
        Handshake { mode, noise, peer_address: (mode != Mode::FromClient).then_some(client), relay_address: None };
    net.hosts[B].with_server(now, |server, announced, cx| server.handle_handshake(cx, announced, request, message));
    net.settle();
}

fn host(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0808_0800 + n), 5000)
}

#[test]
fn one_handshake_is_one_connection_whichever_way_it_comes() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 24);
    let noise = stranger(1, &asking(5));
    for _ in 0..5 {
        knock(&mut net, noise.clone(), host(1), Mode::FromClient);
    }
    assert_eq!(net.hosts[B].opened.len(), 1);
    let before = net.sent;
    knock(&mut net, noise.clone(), host(1), Mode::FromClient);
    assert_eq!(net.sent, before + 1, "the same answer again");
    net.run(Duration::from_secs(30), |_| false);
    let before = net.hosts[B].opened.len();
    knock(&mut net, noise, host(2), Mode::FromClient);
    assert_eq!(net.hosts[B].opened.len(), before, "a copy kept for later opens nothing");
}

#[test]
fn payloads_that_do_not_fit_are_answered_with_their_error() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 25);
    for (seed, payload, error) in [
        (1, Payload::new(fault::NONE, Firewall::Unknown), fault::ABORTED),
        (2, Payload { version: 2, ..asking(5) }, fault::VERSION_MISMATCH),
    ] {
        let mut bytes = [0; 32];
        bytes[0] = seed;
        let mut initiation = Initiation::new(&Identity::from_seed([55; 32]), server_key(), bytes);
        let noise = initiation.send(&payload).expect("the first");
        net.flying.clear();
        knock(&mut net, noise, host(1), Mode::FromClient);
        let answers = net.flying.values().filter(|(_, to, _)| *to == host(1)).filter_map(|(.., bytes)| {
            // The noise of the answer is somewhere behind the header of the reply.
            (0..bytes.len()).find_map(|at| {
                Handshake::decode(&bytes[at..])
                    .ok()
                    .filter(|handshake| handshake.mode == Mode::Reply && handshake.noise.len() > 48)
            })
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1);
        assert_eq!(initiation.receive(&answers[0].noise).expect("the server's").0.error, error);
    }
    assert!(net.hosts[B].opened.is_empty());
}

#[test]
fn a_flood_costs_bounded_memory_and_work() {
    let mut net = Net::new(Nat::Restricted, Nat::Restricted, 26);
    let sockets = net.hosts[B].sockets.len();
    // One host alone.
    for n in 0..200 {
        let noise = stranger(n, &asking(n));
        knock(&mut net, noise, host(1), Mode::FromRelay);
    }
    let held = net.hosts[B].next_connection - 100;
    assert!((1..=HALF_OPEN_PER_HOST_MAX as u64).contains(&held), "{held}");
    // Many hosts, for three minutes.
    let mut most = 0;
    for n in 0..2000_u32 {
        net.now += Duration::from_millis(90);
        net.time_passes();
        net.hosts[B].stream_ids.push_back(100_000 + n);
        let noise = stranger(1000 + n, &asking(n));
        knock(&mut net, noise, host(2 + n), Mode::FromRelay);
        most = most.max(net.hosts[B].sockets.len() - sockets);
        net.flying.clear();
    }
    assert!(most <= PUNCHERS_MAX, "{most} sockets");
    assert!(net.hosts[B].next_connection < 100 + SLOTS_MAX as u64 * 10);
    net.run(Duration::from_secs(40), |_| false);
    assert_eq!(net.hosts[B].sockets.len(), sockets, "all is given back");
    assert!(net.hosts[B].server.as_ref().expect("listening").poll_timeout().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever nodes do to the answers, an open connection is with the key that was asked for.
    #[test]
    fn who_is_open_is_who_was_asked(bends in proptest::array::uniform3((0_usize..4, 0_usize..400)), nats in (0_usize..2, 0_usize..2), seed in 60_u8..90) {
        let kinds = [Nat::Open, Nat::Restricted];
        let mut net = Net::new(kinds[nats.0], kinds[nats.1], seed - 30);
        for (n, (kind, at)) in bends.into_iter().enumerate() {
            net.hosts[n].bend = [Bend::Nothing, Bend::Rubbish, Bend::Change(at), Bend::Drop][kind];
        }
        net.connect(server_key(), |_| {});
        net.run(Duration::from_secs(60), |net| net.is_open() || !net.hosts[A].failed.is_empty());
        for opened in &net.hosts[A].opened {
            prop_assert_eq!(opened.remote_key, server_key());
            prop_assert_eq!(opened.session.remote_public_key, server_key());
        }
        let can_open = bends.iter().any(|(kind, _)| *kind == 0);
        prop_assert_eq!(!net.hosts[A].opened.is_empty(), can_open, "{:?}", net.hosts[A].failed);
    }

    /// Changed handshakes and rounds of strangers: nothing opens, nothing panics.
    #[test]
    fn changed_bytes_open_nothing(at in 0_usize..400, mask in 1_u8..=255, mode in 0_usize..5) {
        let mut net = Net::new(Nat::Restricted, Nat::Restricted, 27);
        let mut noise = stranger(9, &asking(9));
        let len = noise.len();
        noise[at % len] ^= mask;
        let mode = [Mode::FromClient, Mode::FromServer, Mode::FromRelay, Mode::FromSecondRelay, Mode::Reply][mode];
        knock(&mut net, noise, host(1), mode);
        prop_assert!(net.hosts[B].opened.is_empty() && net.hosts[B].sockets.len() == 2);
    }
}
