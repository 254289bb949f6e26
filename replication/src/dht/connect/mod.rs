//! Connections by public key: Noise IK over the DHT, then the shortest way that works.

pub mod client;
pub mod payload;
pub mod server;

use std::net::SocketAddrV4;

use super::Path;
use crate::secret_stream::handshake::Identity;

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Who we are.
    pub identity: Identity,
    /// Nodes that may know the way.
    pub relay_addresses: Vec<SocketAddrV4>,
    /// A peer to forward packets, by its key.
    pub relay_through: Option<[u8; 32]>,
    /// Whether the local network may be used.
    pub is_lan_allowed: bool,
}

/// How to listen.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// A peer to forward packets, by its key.
    pub relay_through: Option<[u8; 32]>,
}

/// Why a connection did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody knows the peer.
    #[error("peer not found")]
    PeerNotFound,
}

/// What to do with a packet for a stream that came another way than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Connect the stream.
    Connect(Path),
    /// Move the stream.
    Move(Path),
    /// Drop the packet.
    Refuse,
}
