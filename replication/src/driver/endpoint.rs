//! The swarm over UDP: an [`Endpoint`] on sockets of the operating system, as a [`Finder`] of a network; and alone, as a plain node of the DHT ([`DhtNode`]).
//!
//! ```text
//!   Network --join, leave--> OverUdp --> Udp<Endpoint> --> sockets
//!      ^                                      |
//!      +------ serve_found <-- event task <---+   Connected: a stream and its handshake; Note: a log line for people
//! ```
//!
//! What must stay true: what is bound to loopback reaches no further; nobody is asked but the nodes that were given, those they name, and peers; why a peer was
//! not reached stands in the log and in bee_swarm.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbee_engine::{CoreKey, DiscoveryKey};
use tokio::sync::mpsc::Receiver;

use super::swarm::{Finder, Found, Purpose, SwarmInfo, TopicInfo};
use super::{Inner, Network};
use crate::dht::rpc::{Persistence, RpcOptions};
use crate::dht::storage::StorageLimits;
use crate::dht::{DhtOptions, Note};
use crate::secret_stream::{Identity, Role};
use crate::swarm::{self, Endpoint, EndpointEvent, EndpointOptions};
use crate::transport::udp::{Udp, UdpOptions, local_addresses};

/// After so long without a node that answers, a person is told.
const NO_NODE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const NODES_LOOK: Duration = Duration::from_secs(1);

/// How a network takes part in a swarm.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// Nodes of the DHT to begin with.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Where to bind: 127.0.0.1 reaches loopback only, 0.0.0.0 the world.
    pub host: Ipv4Addr,
    /// The port that is wished for; another one if it is taken. 0 for any.
    pub port: u16,
    /// Key of a relay for peers that cannot be reached otherwise.
    pub relay_through: Option<[u8; 32]>,
}

/// How a plain node is.
#[derive(Clone, Debug)]
pub struct DhtNodeOptions {
    /// Where it is. With a port that is not 0 exactly there.
    pub address: SocketAddrV4,
    /// Nodes to begin with; none for the first one of a network.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Of its key pair.
    pub seed: [u8; 32],
    /// Whether it relays connections.
    pub is_relay: bool,
}

/// A plain node of the DHT.
pub struct DhtNode {
    udp: Arc<Udp<Endpoint>>,
}

impl DhtNode {
    /// Begin. Call it inside a runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(options: DhtNodeOptions) -> io::Result<DhtNode> {
        let host = *options.address.ip();
        let is_known = !host.is_unspecified();
        let rpc_of = |server: SocketAddrV4| RpcOptions {
            bootstrap: options.bootstrap.clone(),
            persistence: Persistence::Forced,
            firewalled: false,
            server_port: server.port(),
            public_address: is_known.then_some(server),
            ..RpcOptions::default()
        };
        let port = options.address.port();
        let bind = UdpOptions { host, port, is_port_exact: port != 0 };
        let identity = Identity::from_seed(options.seed);
        let (udp, mut events) = start(bind, rpc_of, identity, None, options.is_relay)?;
        let (mut nodes, watched) = (Nodes::new(options.bootstrap), Arc::downgrade(&udp));
        tokio::spawn(async move {
            let mut look = tokio::time::interval(NODES_LOOK);
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(EndpointEvent::Note(note)) => tell(&note),
                        Some(_) => {}
                        None => return,
                    },
                    _ = look.tick() => match watched.upgrade() {
                        Some(udp) => nodes.look(&udp),
                        None => return,
                    },
                }
            }
        });
        Ok(DhtNode { udp })
    }

    /// The address that is bound.
    pub fn address(&self) -> SocketAddrV4 {
        self.udp.server_address()
    }

    /// Who it is: what peers name that want to be relayed by it.
    pub fn public_key(&self) -> [u8; 32] {
        self.udp.with(|endpoint, _| endpoint.public_key())
    }

    /// What it knows of the network.
    pub fn info(&self) -> SwarmInfo {
        info(&self.udp)
    }

    /// Ends it.
    pub async fn shutdown(&self) {
        self.udp.shutdown().await;
    }
}

impl Network {
    /// Look for peers in a swarm from now on, and be found there with what is announced. The address that is bound. Call it inside a runtime, and once.
    ///
    /// # Errors
    /// If no socket can be bound.
    pub fn join_swarm(&self, options: SwarmOptions) -> io::Result<SocketAddrV4> {
        let _runtime = self.inner.runtime.enter();
        let asked = options.bootstrap.clone();
        let rpc_of = |server: SocketAddrV4| RpcOptions {
            bootstrap: options.bootstrap,
            server_port: server.port(),
            ..RpcOptions::default()
        };
        let bind = UdpOptions { host: options.host, port: options.port, is_port_exact: false };
        let identity = self.inner.node.identity().clone();
        let (udp, events) = start(bind, rpc_of, identity, options.relay_through, false)?;
        let address = udp.server_address();
        self.inner.spawn(serve_events(self.inner.clone(), udp.clone(), events, asked));
        self.set_finder(Arc::new(OverUdp(udp)));
        Ok(address)
    }
}

/// An endpoint on its sockets.
fn start(
    bind: UdpOptions,
    rpc_of: impl FnOnce(SocketAddrV4) -> RpcOptions,
    identity: Identity,
    relay_through: Option<[u8; 32]>,
    is_relay: bool,
) -> io::Result<(Arc<Udp<Endpoint>>, Receiver<EndpointEvent>)> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    let endpoint_of = |now, server: SocketAddrV4, _| {
        let dht = DhtOptions {
            rpc: rpc_of(server),
            local_addresses: local_addresses(bind.host, server.port()),
            storage: StorageLimits { unix_ms_at_start: unix_ms(), ..StorageLimits::default() },
        };
        let (swarm, udx) = (swarm::SwarmOptions::default(), crate::udx::Config::default());
        Endpoint::new(now, EndpointOptions { dht, identity, swarm, udx, relay_through, is_relay }, seed)
    };
    Udp::start(endpoint_of, bind)
}

/// The time of day, if the clock is not off by decades.
fn unix_ms() -> Option<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Serves who is found, and tells people what happens, until the network ends.
async fn serve_events(
    inner: Arc<Inner>,
    udp: Arc<Udp<Endpoint>>,
    mut events: Receiver<EndpointEvent>,
    asked: Vec<SocketAddrV4>,
) {
    let mut closing = inner.closing.subscribe();
    let mut nodes = Nodes::new(asked);
    let mut look = tokio::time::interval(NODES_LOOK);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => handle(&inner, &udp, event),
                None => return,
            },
            _ = look.tick() => nodes.look(&udp),
            _ = closing.wait_for(|closing| *closing) => return,
        }
    }
}

/// Whether there are nodes to ask: a line when that changes.
struct Nodes {
    asked: Vec<SocketAddrV4>,
    none_since: Option<Instant>,
    /// Whether there were some when that was told last.
    told: Option<bool>,
}

impl Nodes {
    fn new(asked: Vec<SocketAddrV4>) -> Nodes {
        Nodes { asked, none_since: None, told: None }
    }

    fn look(&mut self, udp: &Udp<Endpoint>) {
        let known = udp.with(|endpoint, _| endpoint.dht().nodes_len());
        match self.note(known, Instant::now()) {
            Some(true) => tracing::info!("nodes of the swarm answer"),
            Some(false) => {
                let asked: Vec<String> = self.asked.iter().map(ToString::to_string).collect();
                tracing::warn!("no node of the swarm answers; asked: {}", asked.join(", "));
            }
            None => {}
        }
    }

    /// How many there are; whether there are some if that is to be told. Who begins a network has asked nobody, and waits for others.
    fn note(&mut self, known: usize, now: Instant) -> Option<bool> {
        let is_some = known > 0;
        if is_some {
            self.none_since = None;
        } else {
            let since = *self.none_since.get_or_insert(now);
            if self.asked.is_empty() || now.duration_since(since) < NO_NODE {
                return None;
            }
        }
        (self.told.replace(is_some) != Some(is_some)).then_some(is_some)
    }
}

fn handle(inner: &Arc<Inner>, udp: &Arc<Udp<Endpoint>>, event: EndpointEvent) {
    match event {
        EndpointEvent::Connected { stream, session, is_initiator, remote_key, remote, via, .. } => {
            let (peer, how) = (CoreKey(remote_key).to_z32(), word(via));
            if is_initiator {
                tracing::info!("connected to peer {peer} at {remote} ({how})");
            } else {
                tracing::info!("peer {peer} at {remote} has connected ({how})");
            }
            let role = if is_initiator { Role::Initiator } else { Role::Responder };
            let stream = udp.stream(stream);
            inner.serve_found(Found { stream, session, role, address: remote.to_string() });
        }
        EndpointEvent::Note(note) => tell(&note),
        // The driver has dealt with streams and sockets; nobody here has asked for more.
        EndpointEvent::Ready
        | EndpointEvent::Stream(..)
        | EndpointEvent::Socket(_)
        | EndpointEvent::Operation(_)
        | EndpointEvent::Flushed(_) => {}
    }
}

fn tell(note: &Note) {
    tracing::info!("swarm: {}", sentence(note));
}

fn sentence(note: &Note) -> String {
    match note.peer {
        Some(peer) => format!("peer {}: {}", CoreKey(peer).to_z32(), note.text),
        None => note.text.clone(),
    }
}

fn word(via: crate::dht::Via) -> &'static str {
    match via {
        crate::dht::Via::Direct => "direct",
        crate::dht::Via::Lan => "in the local network",
        crate::dht::Via::Punched => "by a punched hole",
        crate::dht::Via::Relayed => "through a relay",
    }
}

/// The endpoint as a network asks it.
struct OverUdp(Arc<Udp<Endpoint>>);

impl Finder for OverUdp {
    fn join(&self, topic: DiscoveryKey, purpose: Purpose) {
        let role = swarm::Role { client: purpose.is_client(), server: purpose.is_server() };
        if !self.0.with(|endpoint, now| endpoint.join(now, topic.0, role)) {
            tracing::warn!("peers of {} are not looked for: too many databases are", topic.to_hex());
        }
    }
    fn leave(&self, topic: DiscoveryKey) {
        self.0.with(|endpoint, now| endpoint.leave(now, topic.0));
    }
    fn info(&self) -> SwarmInfo {
        info(&self.0)
    }
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.shutdown())
    }
}

fn info(udp: &Udp<Endpoint>) -> SwarmInfo {
    let status = udp.with(|endpoint, _| endpoint.status());
    let topic = |topic: &swarm::endpoint::TopicStatus| TopicInfo {
        topic: DiscoveryKey(topic.topic),
        is_announced: topic.is_announced,
        is_looked_up: topic.role.client,
        was_looked_up: topic.looked_up_at.is_some(),
        was_answered: topic.was_answered,
        peers: topic.peers,
        connections: topic.connected,
        connecting: topic.connecting,
        last_failure: topic.note.as_ref().map(sentence),
    };
    let mut notes: Vec<String> = status.notes.iter().map(|line| sentence(&line.note)).collect();
    if status.nodes == 0 {
        notes.push("no node of the swarm answers".to_owned());
    }
    SwarmInfo {
        public_key: status.key,
        address: udp.server_address(),
        public_address: status.public_address,
        nat: status.nat,
        is_persistent: status.is_persistent,
        nodes: status.nodes,
        connections: status.connections.len(),
        relayed: status.connections.iter().filter(|connection| connection.via == crate::dht::Via::Relayed).count(),
        punches_tried: status.totals.punches_tried,
        punches_won: status.totals.punches_won,
        notes,
        topics: status.topics.iter().map(topic).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgbee_engine::BlockIndex;
    use pgbee_engine::corestore::{Options, Store};
    use pgbee_engine::hypercore::BlockSource;
    use pgbee_engine::storage::Durability;
    use pgbee_engine::storage::memory::Memory;

    use crate::driver::NetworkOptions;

    fn node(bootstrap: &[&DhtNode], byte: u8) -> DhtNode {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let bootstrap = bootstrap.iter().map(|node| node.address()).collect();
        DhtNode::start(DhtNodeOptions { address, bootstrap, seed: [byte; 32], is_relay: false }).unwrap()
    }

    fn member(nodes: &[&DhtNode], byte: u8) -> (Arc<Store>, Arc<Network>) {
        let store = Store::open(Arc::new(Memory::new()), Options { primary_key: Some([byte; 32]) }).unwrap();
        let network = Network::start(store.clone(), NetworkOptions::default());
        let bootstrap = nodes.iter().map(|node| node.address()).collect();
        let options = SwarmOptions { bootstrap, host: Ipv4Addr::LOCALHOST, port: 0, relay_through: None };
        assert!(network.join_swarm(options).unwrap().ip().is_loopback());
        (store, network)
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..3000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not so: {what}");
    }

    /// Three nodes, a writer that is announced, a follower with the key alone, and one who follows when the writer has gone.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_core_is_found_by_its_key_alone() {
        let first = node(&[], 1);
        let (second, third) = (node(&[&first], 2), node(&[&first], 3));
        let nodes = [&first, &second, &third];
        let (here, writer) = member(&nodes, 4);
        let written = here.get_by_name("log").unwrap();
        written.append(&[b"one".as_slice(), b"two"].map(bytes::Bytes::from_static), Durability::Sync).unwrap();
        let key = written.key();
        writer.announce(key, true);
        until("announced", || writer.swarm().unwrap().topics.iter().any(|topic| topic.is_announced)).await;

        let (there, follower) = member(&nodes, 5);
        let copy = there.get_by_key(key).unwrap();
        follower.announce(key, true);
        follower.follow(&copy, &[]).unwrap();
        let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
        until("copied", || copy.held_blocks() == 2 && !follower.peers().is_empty()).await;
        assert_eq!(copy.block(BlockIndex(1)).unwrap().as_ref(), b"two");
        let peer = follower.peers().remove(0);
        assert_eq!((peer.transport, peer.peer_key), ("udx", writer.public_key()));
        let info = follower.swarm().unwrap();
        assert!(info.nodes > 0 && info.address.ip().is_loopback() && info.connections == 1);
        until("the follower is announced", || follower.swarm().unwrap().topics[0].is_announced).await;

        let records = || nodes.map(|node| node.udp.with(|endpoint, _| endpoint.dht().stats().records));
        assert_eq!(records(), [2; 3]);
        let asked_at = Instant::now();
        writer.shutdown().await;
        assert!(asked_at.elapsed() < Duration::from_secs(3), "{:?}", asked_at.elapsed());
        assert_eq!(records(), [1; 3], "it took back what it announced");
        assert_eq!(writer.swarm(), None);
        let (elsewhere, last) = member(&nodes, 6);
        let copy = elsewhere.get_by_key(key).unwrap();
        last.follow(&copy, &[]).unwrap();
        let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
        until("copied from the follower", || copy.held_blocks() == 2).await;
        assert!(last.peers().iter().any(|peer| peer.peer_key == follower.public_key()));
        let found = last.swarm().unwrap().topics[0].peers;
        assert_eq!(found, 1, "who went took its announcement back");
        last.shutdown().await;
        follower.shutdown().await;
        for node in nodes {
            node.shutdown().await;
        }
    }

    #[test]
    fn a_line_tells_when_nodes_come_and_go() {
        let (now, later) = (Instant::now(), |seconds| Instant::now() + Duration::from_secs(seconds));
        let mut nodes = Nodes::new(vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)]);
        assert_eq!(nodes.note(0, now), None, "it is early");
        assert_eq!(nodes.note(0, later(11)), Some(false));
        assert_eq!(nodes.note(0, later(12)), None, "once");
        assert_eq!(nodes.note(2, later(13)), Some(true));
        assert_eq!(nodes.note(3, later(14)), None);
        assert_eq!((nodes.note(0, later(20)), nodes.note(0, later(31))), (None, Some(false)));
        let mut first = Nodes::new(Vec::new());
        assert_eq!((first.note(0, now), first.note(0, later(60)), first.note(1, later(61))), (None, None, Some(true)));
    }

    /// What nobody announces is looked for to the end, and that is told.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_announced_is_not_found() {
        let first = node(&[], 1);
        let second = node(&[&first], 2);
        let (here, writer) = member(&[&first, &second], 4);
        let key = here.get_by_name("log").unwrap().key();
        assert!(writer.swarm().unwrap().topics.is_empty());
        let (there, follower) = member(&[&first, &second], 5);
        follower.follow(&there.get_by_key(key).unwrap(), &[]).unwrap();
        until("looked up", || follower.remote(key).is_some_and(|remote| !remote.is_searching)).await;
        let told = follower.search(key).unwrap();
        assert!(told.starts_with("Nobody announces it") && follower.peers().is_empty(), "{told}");
        follower.shutdown().await;
        writer.shutdown().await;
    }
}
