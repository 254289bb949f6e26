//! The network of these tests: [`World`], with [`Machine`]s that are plain DHT nodes, [`Party`]s, or something else that a test makes.
//!
//! A party tells every peer its own name (its key) in the encrypted stream, then bytes that follow from the name. So the other side knows who is really there
//! and what must come, to the last byte.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use pgbee_replication::dht::rpc::{Persistence, RpcLimits, RpcOptions};
use pgbee_replication::dht::{Dht, DhtEvent, DhtOptions, Via};
use pgbee_replication::secret_stream::{Identity, Role as StreamRole, SecretStream};
use pgbee_replication::swarm::endpoint::Totals;
use pgbee_replication::swarm::{Endpoint, EndpointEvent, EndpointOptions, Role, SwarmOptions};
use pgbee_replication::transport::simulated;
use pgbee_replication::transport::simulated_udp::{self, Addresses, Conditions, HostId, Realm, SimulatedUdp};
use pgbee_replication::udp::{Now, Random, SocketChange, SocketId, Transmit};
use pgbee_replication::udx::{self, StreamEvent};

/// What parties send each other, if a test says nothing else.
pub const BYTES: usize = 40_000;
/// The topic most tests use.
pub const TOPIC: [u8; 32] = [0x77; 32];

pub type Key = [u8; 32];
pub type Net = SimulatedUdp<Machine>;

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a peer of that name has to say.
fn speech(name: &Key, len: usize) -> Vec<u8> {
    let mut source = simulated::Random::new(u64::from_le_bytes(*name.first_chunk().expect("a key is longer")));
    let mut bytes = Vec::with_capacity(len + 32);
    bytes.extend_from_slice(name);
    while bytes.len() < len + 32 {
        bytes.extend_from_slice(&source.bytes::<32>());
    }
    bytes.truncate(len + 32);
    bytes
}

/// What runs on a host.
pub enum Machine {
    /// A plain node of the DHT.
    Node(Box<Node>),
    /// An endpoint with a swarm.
    Party(Box<Party>),
    /// Whatever a test needs.
    Other(Box<dyn simulated_udp::Machine + Send>),
}

impl Machine {
    fn inner(&mut self) -> &mut dyn simulated_udp::Machine {
        match self {
            Machine::Node(node) => node.as_mut(),
            Machine::Party(party) => party.as_mut(),
            Machine::Other(other) => other.as_mut(),
        }
    }
}

impl simulated_udp::Machine for Machine {
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        self.inner().handle_datagram(now, socket, from, datagram);
    }
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.inner().poll_transmit(now)
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.inner().poll_timeout()
    }
    fn handle_timeout(&mut self, now: Now) {
        self.inner().handle_timeout(now);
    }
    fn poll_socket_change(&mut self, now: Now) -> Option<SocketChange> {
        self.inner().poll_socket_change(now)
    }
}

/// A plain node of the DHT.
pub struct Node {
    pub dht: Dht,
    /// What became of its operations.
    pub events: Vec<DhtEvent>,
}

impl simulated_udp::Machine for Node {
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        self.dht.handle_datagram(now, socket, from, datagram);
    }
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.dht.poll_transmit(now)
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.dht.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Now) {
        self.dht.handle_timeout(now);
    }
    fn poll_socket_change(&mut self, _: Now) -> Option<SocketChange> {
        while let Some(event) = self.dht.poll_event() {
            match event {
                DhtEvent::Socket(change) => return Some(change),
                DhtEvent::Peers { .. } | DhtEvent::Done { .. } => self.events.push(event),
                _ => {}
            }
        }
        None
    }
}

/// A talk with one peer.
pub struct Talk {
    pub key: Key,
    secret: SecretStream,
    expected: Vec<u8>,
    heard: usize,
}

/// An endpoint that talks to whom it is connected to.
pub struct Party {
    pub endpoint: Endpoint,
    pub name: Key,
    pub talks: BTreeMap<u32, Talk>,
    /// Everyone it was ever connected to, when and how.
    pub met: Vec<(Now, Key, Via)>,
    /// Peers from which all bytes came.
    pub heard_all: BTreeSet<Key>,
    pub flushed: Vec<u64>,
    pub closed: usize,
    pub notes: Vec<String>,
    /// What must never happen.
    pub faults: Vec<String>,
    bytes: usize,
    random: Random,
}

impl Party {
    fn new(endpoint: Endpoint, bytes: usize, seed: u8) -> Party {
        Party {
            name: endpoint.public_key(),
            endpoint,
            talks: BTreeMap::new(),
            met: Vec::new(),
            heard_all: BTreeSet::new(),
            flushed: Vec::new(),
            closed: 0,
            notes: Vec::new(),
            faults: Vec::new(),
            bytes,
            random: Random::new([seed; 32]),
        }
    }

    pub fn is_connected_to(&self, key: &Key) -> bool {
        self.talks.values().any(|talk| talk.key == *key)
    }

    pub fn totals(&self) -> Totals {
        self.endpoint.totals()
    }

    /// How it is connected now.
    pub fn via(&mut self, key: &Key) -> Option<Via> {
        self.endpoint
            .status()
            .connections
            .iter()
            .find(|connection| connection.key == *key)
            .map(|connection| connection.via)
    }

    fn handle(&mut self, now: Now, event: EndpointEvent) {
        match event {
            EndpointEvent::Connected { stream, session, is_initiator, remote_key, via, .. } => {
                let role = if is_initiator { StreamRole::Initiator } else { StreamRole::Responder };
                let mut secret = SecretStream::established(role, &session, self.random.bytes());
                secret.send(&[]).expect("the stream is established");
                for piece in speech(&self.name, self.bytes).chunks(5000) {
                    secret.send(piece).expect("it fits a frame");
                }
                if self.is_connected_to(&remote_key) && self.live(&remote_key) {
                    self.faults.push("two connections to one peer".into());
                }
                self.met.push((now, remote_key, via));
                let expected = speech(&remote_key, self.bytes);
                if self.talks.insert(stream, Talk { key: remote_key, secret, expected, heard: 0 }).is_some() {
                    self.faults.push("connected twice".into());
                }
                self.write(stream);
            }
            EndpointEvent::Stream(stream, event) => self.handle_stream(stream, event),
            EndpointEvent::Flushed(id) => self.flushed.push(id),
            EndpointEvent::Note(note) => self.notes.push(note.text),
            EndpointEvent::Socket(_) | EndpointEvent::Operation(_) | EndpointEvent::Ready => {}
        }
    }

    fn live(&mut self, key: &Key) -> bool {
        let streams: Vec<u32> =
            self.talks.iter().filter(|(_, talk)| talk.key == *key).map(|(stream, _)| *stream).collect();
        streams.into_iter().any(|stream| self.endpoint.mux().stream(stream).is_some_and(|stream| !stream.is_closed()))
    }

    fn handle_stream(&mut self, id: u32, event: StreamEvent) {
        if !self.talks.contains_key(&id) {
            self.faults.push(format!("{event:?} of a stream that was never connected"));
        }
        self.read(id);
        self.write(id);
        if let StreamEvent::Closed(_) = event {
            self.talks.remove(&id);
            self.endpoint.mux().remove(id);
            self.closed += 1;
        }
    }

    fn read(&mut self, id: u32) {
        let (Some(talk), Some(stream)) = (self.talks.get_mut(&id), self.endpoint.mux().stream(id)) else { return };
        while let Some(bytes) = stream.read(64 << 10) {
            if let Err(error) = talk.secret.handle_bytes(&bytes) {
                self.faults.push(format!("the stream broke: {error}"));
                return;
            }
        }
        while let Some(message) = talk.secret.poll_message() {
            if talk.expected.get(talk.heard..talk.heard + message.len()) != Some(&message[..]) {
                self.faults.push(format!("not what {:02x?} had to say", &talk.key[..2]));
            }
            talk.heard += message.len();
            if talk.heard == talk.expected.len() {
                self.heard_all.insert(talk.key);
            }
        }
    }

    fn write(&mut self, id: u32) {
        let (Some(talk), Some(stream)) = (self.talks.get_mut(&id), self.endpoint.mux().stream(id)) else { return };
        loop {
            let output = talk.secret.output();
            if output.is_empty() {
                return;
            }
            let written = stream.write(output);
            if written == 0 {
                return;
            }
            talk.secret.consume_output(written);
        }
    }
}

impl simulated_udp::Machine for Party {
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        self.endpoint.handle_datagram(now, socket, from, datagram);
    }
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.endpoint.poll_transmit(now)
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.endpoint.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Now) {
        self.endpoint.handle_timeout(now);
    }
    fn poll_socket_change(&mut self, now: Now) -> Option<SocketChange> {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                EndpointEvent::Socket(change) => return Some(change),
                event => self.handle(now, event),
            }
        }
        None
    }
}

/// A network with nodes of the DHT, and room for more.
pub struct World {
    pub net: Net,
    pub nodes: Vec<HostId>,
    pub bootstrap: Vec<SocketAddrV4>,
    /// Of the nodes that come.
    pub limits: RpcLimits,
    seed: u8,
    made: u16,
}

impl World {
    /// So many nodes of the DHT, which know each other already.
    pub fn new(seed: u8, conditions: Conditions, nodes: usize) -> World {
        let mut world = World {
            net: SimulatedUdp::new(u64::from(seed), conditions),
            nodes: Vec::new(),
            bootstrap: Vec::new(),
            limits: RpcLimits::default(),
            seed,
            made: 0,
        };
        for _ in 0..nodes {
            world.add_node();
            world.net.run_for(Duration::from_millis(200));
        }
        world.net.run_for(secs(10));
        world
    }

    fn next_seed(&mut self) -> [u8; 32] {
        self.made += 1;
        let mut seed = [self.seed; 32];
        seed[..2].copy_from_slice(&self.made.to_le_bytes());
        seed
    }

    /// One more node, which is open to everyone and serves others at once.
    pub fn add_node(&mut self) -> HostId {
        let (seed, bootstrap, limits) = (self.next_seed(), self.bootstrap.clone(), self.limits.clone());
        let host = self.net.add_host(Realm::INTERNET, |now, addresses| node(now, addresses, bootstrap, limits, seed));
        if self.bootstrap.is_empty() {
            self.bootstrap.push(self.net.server_address(host));
        }
        self.nodes.push(host);
        host
    }

    /// One more node, as anybody runs it: it has to find out whether it can be reached, and serves others only once it has for 20 minutes. Not in `nodes`.
    pub fn add_adaptive_node(&mut self, realm: Realm) -> HostId {
        let (seed, bootstrap) = (self.next_seed(), self.bootstrap.clone());
        self.net.add_host(realm, |now, addresses| {
            let rpc = RpcOptions { bootstrap, server_port: addresses.server.port(), ..RpcOptions::default() };
            plain(now, addresses, rpc, seed)
        })
    }

    /// Another node in the place of one that went down.
    pub fn revive_node(&mut self, host: HostId) {
        let (seed, bootstrap, limits) = (self.next_seed(), self.bootstrap.clone(), self.limits.clone());
        self.net.bring_up(host, |now, addresses| node(now, addresses, bootstrap, limits, seed));
    }

    /// An endpoint; its key.
    pub fn add_party(&mut self, realm: Realm, options: PartyOptions) -> (HostId, Key) {
        let (seed, bootstrap) = (self.next_seed(), self.bootstrap.clone());
        let identity = Identity::from_seed(seed);
        let key = identity.public_key();
        let host = self.net.add_host(realm, |now, addresses| party(now, addresses, bootstrap, seed, &options));
        (host, key)
    }

    pub fn party<R>(&mut self, host: HostId, run: impl FnOnce(&mut Party, Now) -> R) -> R {
        self.net.with(host, |machine, now| match machine {
            Machine::Party(party) => run(party, now),
            _ => panic!("no party there"),
        })
    }

    pub fn node<R>(&mut self, host: HostId, run: impl FnOnce(&mut Node, Now) -> R) -> R {
        self.net.with(host, |machine, now| match machine {
            Machine::Node(node) => run(node, now),
            _ => panic!("no node there"),
        })
    }

    pub fn join(&mut self, host: HostId, role: Role) {
        self.party(host, |party, now| assert!(party.endpoint.join(now, TOPIC, role)));
    }

    pub fn look<R>(&self, host: HostId, run: impl FnOnce(&Party) -> R) -> R {
        match self.net.machine(host) {
            Some(Machine::Party(party)) => run(party),
            _ => panic!("no party there"),
        }
    }

    /// Waits until both have heard all that the other has to say.
    pub fn wait_for_talk(&mut self, a: (HostId, Key), b: (HostId, Key), time: Duration) -> bool {
        let has_heard = |net: &Net, host, key| matches!(net.machine(host), Some(Machine::Party(party)) if party.heard_all.contains(&key));
        self.net.run_until(time, |net| has_heard(net, a.0, b.1) && has_heard(net, b.0, a.1))
    }

    /// Nothing that must never happen has happened.
    pub fn assert_sound(&self) {
        for host in self.net.hosts() {
            if let Some(Machine::Party(party)) = self.net.machine(host) {
                assert!(party.faults.is_empty(), "{:?}", party.faults);
            }
        }
    }

    /// Why, if a test fails.
    pub fn notes(&self, hosts: &[HostId]) -> Vec<String> {
        hosts.iter().flat_map(|host| self.look(*host, |party| party.notes.clone())).collect()
    }
}

/// What is special about a party.
#[derive(Clone)]
pub struct PartyOptions {
    pub relay_through: Option<Key>,
    pub is_relay: bool,
    pub bytes: usize,
}

impl Default for PartyOptions {
    fn default() -> PartyOptions {
        PartyOptions { relay_through: None, is_relay: false, bytes: BYTES }
    }
}

fn node(now: Now, addresses: Addresses, bootstrap: Vec<SocketAddrV4>, limits: RpcLimits, seed: [u8; 32]) -> Machine {
    let rpc = RpcOptions {
        bootstrap,
        persistence: Persistence::Forced,
        firewalled: false,
        server_port: addresses.server.port(),
        public_address: Some(addresses.server),
        limits,
        ..RpcOptions::default()
    };
    plain(now, addresses, rpc, seed)
}

fn plain(now: Now, addresses: Addresses, rpc: RpcOptions, seed: [u8; 32]) -> Machine {
    let dht = Dht::new(
        now,
        DhtOptions { rpc, local_addresses: vec![addresses.server], ..DhtOptions::default() },
        Random::new(seed),
    );
    Machine::Node(Box::new(Node { dht, events: Vec::new() }))
}

fn party(
    now: Now,
    addresses: Addresses,
    bootstrap: Vec<SocketAddrV4>,
    seed: [u8; 32],
    options: &PartyOptions,
) -> Machine {
    let rpc = RpcOptions { bootstrap, server_port: addresses.server.port(), ..RpcOptions::default() };
    let options_of_endpoint = EndpointOptions {
        dht: DhtOptions { rpc, local_addresses: vec![addresses.server], ..DhtOptions::default() },
        identity: Identity::from_seed(seed),
        swarm: SwarmOptions::default(),
        udx: udx::Config::default(),
        relay_through: options.relay_through,
        is_relay: options.is_relay,
    };
    let endpoint = Endpoint::new(now, options_of_endpoint, seed);
    Machine::Party(Box::new(Party::new(endpoint, options.bytes, seed[0])))
}
