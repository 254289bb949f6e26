//! Peers for SQL: the replication crate's network, behind the few words that SQL knows of one.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, OnceLock};

use pgbee_replication::driver;
use pgbee_replication::driver::endpoint::SwarmOptions;
use pgbee_replication::driver::swarm::TopicInfo;
use pgbee_sql::error::{SqlError, state};
use pgbee_sql::follow::{Core, CoreKey, Network, Peer, Remote, Swarm, SwarmTopic};
use pgbee_sql::session::Instance;

/// All connections to peers.
pub struct Peers {
    network: Arc<driver::Network>,
    /// Whose swarm it is.
    swarm: OnceLock<String>,
}

impl Peers {
    /// Serves what an instance holds to whoever connects. Inside of a runtime; it connects to nobody and listens nowhere yet.
    pub fn start(instance: &Instance) -> Arc<Peers> {
        let network = driver::Network::start(instance.store().clone(), driver::NetworkOptions::default());
        Arc::new(Peers { network, swarm: OnceLock::new() })
    }
    /// Looks for peers in a swarm, whose title is as bee_swarm shows it. The address that is bound.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn join_swarm(&self, title: String, options: SwarmOptions) -> io::Result<SocketAddrV4> {
        let address = self.network.join_swarm(options)?;
        self.swarm.get_or_init(|| title);
        Ok(address)
    }
    /// Who we are to peers.
    pub fn public_key(&self) -> [u8; 32] {
        self.network.public_key()
    }
    /// Takes connections of peers at an address; which it is, if the port was left open.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.network.listen(address)
    }
    /// Ends all connections.
    pub async fn stop(&self) {
        self.network.shutdown().await;
    }
}

impl Network for Peers {
    fn follow(&self, core: &Arc<Core>, addresses: &[String]) -> Result<(), SqlError> {
        self.network.follow(core, addresses).map_err(|error| {
            SqlError::new(state::INVALID_PARAMETER_VALUE, format!("cannot follow with these peers: {error}"))
        })
    }
    fn unfollow(&self, key: CoreKey) {
        self.network.unfollow(key);
    }
    fn peers(&self) -> Vec<Peer> {
        let as_sql = |peer: driver::PeerInfo| Peer {
            core: peer.core,
            peer_key: peer.peer_key,
            address: peer.address,
            transport: peer.transport,
            remote_length: peer.remote_length,
            blocks_in: peer.blocks_in,
            blocks_out: peer.blocks_out,
            bytes_in: peer.bytes_in,
            bytes_out: peer.bytes_out,
            round_trip_micros: peer.round_trip_micros,
            connected_at: peer.connected_at,
        };
        self.network.peers().into_iter().map(as_sql).collect()
    }
    fn remote(&self, key: CoreKey) -> Option<Remote> {
        let remote = self.network.remote(key)?;
        Some(Remote {
            length: remote.length,
            peers: remote.peers,
            verification_failures: remote.verification_failures,
            is_searching: remote.is_searching,
        })
    }
    fn announce(&self, key: CoreKey, on: bool) {
        self.network.announce(key, on);
    }
    fn swarm(&self) -> Option<Swarm> {
        let info = self.network.swarm()?;
        let topic = |topic: TopicInfo| SwarmTopic {
            discovery_key: topic.topic.0,
            is_announced: topic.is_announced,
            is_looked_up: topic.is_looked_up,
            peers: topic.peers as u64,
            connections: topic.connections as u64,
            state: topic.sentence(info.nodes),
        };
        Some(Swarm {
            public_key: info.public_key,
            bootstrap: self.swarm.get().cloned().unwrap_or_default(),
            address: info.address.to_string(),
            public_address: info.public_address.map(|address| address.to_string()),
            nat: info.nat,
            is_persistent: info.is_persistent,
            nodes: info.nodes as u64,
            connections: info.connections as u64,
            relayed: info.relayed as u64,
            punches_tried: info.punches_tried,
            punches_won: info.punches_won,
            last_note: info.notes.last().cloned(),
            topics: info.topics.into_iter().map(topic).collect(),
        })
    }
    fn search(&self, key: CoreKey) -> Option<String> {
        self.network.search(key)
    }
}
