//! What SQL needs of peers, without knowing any: [`Network`], which the program implements and gives to an [`Instance`](crate::session::Instance).
//!
//! ```text
//! sql            which cores are followed, what their peers are doing (bee_peers, bee_cores)
//! engine         wants of a core: which blocks someone waits for; the replicator takes them from there
//! the program    addresses, sockets, the replicator
//! ```
//!
//! What must stay true: no method waits for a peer; blocks themselves come by way of the core's wants, never through here.

use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Result;
pub use pgbee_engine::CoreKey;
pub use pgbee_engine::corestore::Store;
pub use pgbee_engine::hypercore::Core;

/// Peers, as SQL sees them.
pub trait Network: Send + Sync {
    /// Begins to follow a core, or goes on: keeps it up to date with every peer that has it, fetches what is wanted of it, and keeps connections to these `host:port` addresses,
    /// besides those it already keeps. Returns at once.
    ///
    /// # Errors
    /// 22023 for an address that cannot be one.
    fn follow(&self, core: &Arc<Core>, addresses: &[String]) -> Result<()>;
    /// Ends following a core; connections kept only for it are closed.
    fn unfollow(&self, key: CoreKey);
    /// All connections, once for each core they carry.
    fn peers(&self) -> Vec<Peer>;
    /// What is known of a core beyond what is stored; None for one that is not replicated.
    fn remote(&self, key: CoreKey) -> Option<Remote>;
}

/// One peer of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The core.
    pub core: CoreKey,
    /// The peer's own public key: who it is on this connection.
    pub peer_key: [u8; 32],
    /// Its address.
    pub address: String,
    /// How it is reached: "tcp".
    pub transport: &'static str,
    /// The length it says the core has.
    pub remote_length: u64,
    /// Blocks received of this core.
    pub blocks_in: u64,
    /// Blocks sent of this core.
    pub blocks_out: u64,
    /// Bytes received on the connection.
    pub bytes_in: u64,
    /// Bytes sent on the connection.
    pub bytes_out: u64,
    /// Smoothed time from request to answer, in microseconds; None before the first answer.
    pub round_trip_micros: Option<u64>,
    /// When it connected.
    pub connected_at: SystemTime,
}

/// What peers say about a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The longest length a connected peer claims. Claims are not proofs.
    pub length: u64,
    /// Connected peers.
    pub peers: usize,
    /// Messages of peers that failed verification since the start.
    pub verification_failures: u64,
}
