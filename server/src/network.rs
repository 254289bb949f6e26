//! Peers for SQL: the replication crate's network, behind the few words that SQL knows of one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pgbee_replication::driver;
use pgbee_sql::error::{SqlError, state};
use pgbee_sql::follow::{Core, CoreKey, Network, Peer, Remote};
use pgbee_sql::session::Instance;

/// All connections to peers.
pub struct Peers(Arc<driver::Network>);

impl Peers {
    /// Serves what an instance holds to whoever connects. Inside of a runtime; it connects to nobody and listens nowhere yet.
    pub fn start(instance: &Instance) -> Arc<Peers> {
        Arc::new(Peers(driver::Network::start(instance.store().clone(), driver::NetworkOptions::default())))
    }
    /// Takes connections of peers at an address; which it is, if the port was left open.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.0.listen(address)
    }
    /// Ends all connections.
    pub async fn stop(&self) {
        self.0.shutdown().await;
    }
}

impl Network for Peers {
    fn follow(&self, core: &Arc<Core>, addresses: &[String]) -> Result<(), SqlError> {
        self.0.follow(core, addresses).map_err(|error| {
            SqlError::new(state::INVALID_PARAMETER_VALUE, format!("cannot follow with these peers: {error}"))
        })
    }
    fn unfollow(&self, key: CoreKey) {
        self.0.unfollow(key);
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
        self.0.peers().into_iter().map(as_sql).collect()
    }
    fn remote(&self, key: CoreKey) -> Option<Remote> {
        let remote = self.0.remote(key)?;
        Some(Remote { length: remote.length, peers: remote.peers, verification_failures: remote.verification_failures })
    }
}
