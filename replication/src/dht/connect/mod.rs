//! Connections by public key: Noise IK over the DHT, then the shortest way that works.
//!
//! ```text
//! client                          a node that knows the server                 server
//!   FIND_PEER walk  ------------------->
//!   handshake, mode 0  ---------------->  mode 2, the client's address  --------->   firewall, limits, answer
//!   <-----------  mode 4, the server's address  <-----------------------  mode 1
//!
//!   then, the first that applies:
//!     the answer came from the server itself              its address
//!     the server is open, or cannot be punched to         its public address, or the one the node saw
//!     we are open                                         wait for the server's first packet
//!     both have the same public host                      ping its address in our network, and at the same time
//!     otherwise                                           hole punching: rounds of sealed messages over such nodes, then one-byte packets
//!   and beside the last two, if either side names one:    a relay that both connect to; when a direct way is found, the stream moves there
//! ```
//!
//! * [`payload`]: what the two say inside of Noise, and what that leaves them;
//! * `search`: through which nodes a handshake is tried, and how many at once;
//! * [`client`]: one of our connects; [`server`]: a key of ours that others connect to;
//! * `link`: what both have in common: a stream, its path, a relay;
//! * [`address`]: which addresses are worth a try; [`limit`]: what strangers may cost a server.
//!
//! What must stay true: a connection is open only with keys from a finished handshake with the key that was asked for; whoever answers wrongly on the way
//! costs time, never the attempt; what ends gives back its sockets, requests and stream ids, and its error says why in words for a person.
//!
//! Sources: hyperdht `lib/connect.js`, `lib/server.js`, `lib/router.js`. Vectors: `tests/vectors/swarm/noise.json`, `lan-match.json`.

pub mod address;
pub mod client;
pub mod limit;
mod link;
pub mod payload;
mod search;
pub mod server;
#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;

use super::punch::{self, Puncher};
use super::rpc::{Outgoing, Reply, RequestError};
use super::{Context, Path, Tag};
use crate::secret_stream::Identity;
use crate::udp::SocketId;

pub use payload::RelayInfo;

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Who we are.
    pub identity: Identity,
    /// Nodes that are said to know the way; they are tried first. None: those of last time, if there are any.
    pub relay_addresses: Vec<SocketAddrV4>,
    /// A blind relay to meet at while nothing direct works.
    pub relay_through: Option<[u8; 32]>,
    /// Tell our addresses in the local network, and try the server's there.
    pub is_lan_allowed: bool,
}

impl ConnectOptions {
    /// As this identity, with nothing known beforehand.
    pub fn new(identity: Identity) -> ConnectOptions {
        ConnectOptions { identity, relay_addresses: Vec::new(), relay_through: None, is_lan_allowed: true }
    }
}

/// How to be connected to.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// A blind relay to meet at while nothing direct works.
    pub relay_through: Option<[u8; 32]>,
    /// Offer that relay only while our NAT gives every destination another port: others can punch, and need it only if the client says so.
    pub is_relay_for_random_only: bool,
    /// Tell clients our addresses in the local network.
    pub is_lan_allowed: bool,
    /// Punch holes for clients; without, only direct connections and relays are left.
    pub is_punching_allowed: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            relay_through: None,
            is_relay_for_random_only: false,
            is_lan_allowed: true,
            is_punching_allowed: true,
        }
    }
}

/// What to do with a packet for a stream that is not connected, or is with another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is from the peer: connect the stream to this path, then take the packet. The same path is in the [`DhtEvent::Open`](super::DhtEvent::Open) that
    /// follows.
    Connect(Path),
    /// It is from the peer, by a better way: move the stream to this path, then take the packet. [`DhtEvent::Moved`](super::DhtEvent::Moved) follows.
    Move(Path),
    /// Drop it.
    Refuse,
}

/// Why a peer is not reached, for a person to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The walk ended without a record.
    #[error("no node of the DHT knows the peer: it is offline, or does not announce itself there")]
    PeerNotFound,
    /// The walk ended without a reply.
    #[error("no node of the DHT answers: this machine may be offline, or the bootstrap nodes are wrong")]
    NoNodeReachable,
    /// Nodes forwarded the handshake, and nothing came back.
    #[error(
        "the peer is known, but did not answer when nodes asked it ({attempts} times): it has just gone, or refuses this key"
    )]
    NoAnswer {
        /// Nodes tried.
        attempts: usize,
    },
    /// All that came back was not made by the peer.
    #[error("nodes answered for the peer without having its key")]
    HandshakeInvalid,
    /// The key is none.
    #[error("the key asked for is not the public key of any peer")]
    KeyInvalid,
    /// It speaks another version of the handshake.
    #[error("the peer speaks version {version} of the handshake, which is not known here")]
    Incompatible {
        /// Its version.
        version: u64,
    },
    /// It refused inside of the handshake.
    #[error("the peer refused the connection (error {code})")]
    Refused {
        /// One of [`payload::fault`].
        code: u64,
    },
    /// It answered without a stream to connect to.
    #[error("the peer offered no UDX stream")]
    NoStream,
    /// We are open, it knows our address, and nothing came.
    #[error("the peer did not connect back to this open address in time")]
    NoPacket,
    /// No relay of it is known that would forward hole punching.
    #[error("the peer is behind a NAT and cannot take part in hole punching")]
    CannotHolepunch,
    /// Neither side's port can be predicted.
    #[error("both sides are behind NATs with random ports: only a relay helps")]
    DoubleRandomNat,
    /// It does not know its NAT, or we do not know ours.
    #[error("the kind of NAT of one side could not be told: too few nodes answered")]
    NatUnknown,
    /// A message of hole punching was not answered.
    #[error("the peer did not answer a round of hole punching: the node in between may be gone")]
    RoundTimeout,
    /// A message of hole punching does not decrypt.
    #[error("a node answered a round of hole punching without having the peer's keys")]
    RoundInvalid,
    /// It gave up.
    #[error("the peer gave up hole punching (error {code})")]
    RemoteAborted {
        /// One of [`payload::fault`].
        code: u64,
    },
    /// It answered the last round without punching.
    #[error("the peer is not willing to punch")]
    RemoteNotPunching,
    /// It said no address that punches could go to.
    #[error("the peer named no address that can be punched to")]
    RemoteNotPunchable,
    /// One random punch runs at a time.
    #[error("another hole punch with random ports runs, or ran within 20 seconds: try again later")]
    TryLater,
    /// Nothing came through in all tries.
    #[error("hole punching was tried in vain: no packet came through")]
    HolepunchTimeout,
    /// Too many sockets of ours are punching.
    #[error("too many hole punches run at once")]
    Busy,
    /// The relay could not be reached, or the other side did not come there.
    #[error("the relay could not be reached, or the peer did not come there")]
    RelayFailed,
    /// All took too long.
    #[error("the peer was not reached within {seconds} seconds")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// A client's handshake came, and no packet of it after.
    #[error("the client did not follow up its handshake")]
    ClientGone,
    /// We gave up.
    #[error("given up on this side")]
    Aborted,
}

/// The answer to a request of ours, or why there is none.
pub type Answered = Result<Reply, RequestError>;

/// What a puncher has to tell whoever drives it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    is_analyzed: bool,
    connected: Option<(SocketId, SocketAddrV4)>,
    is_aborted: bool,
}

/// Calls a puncher, and sends the pings it asks for; their answers come back under `tag`.
fn drive<R>(
    cx: &mut Context<'_>,
    tag: impl Fn(punch::Step) -> Tag,
    call: impl FnOnce(&mut punch::Context<'_>) -> R,
) -> (R, Heard) {
    let nodes: Vec<_> = cx.rpc.recent_nodes().take(NODES_FOR_SAMPLING).collect();
    let mut effects = Vec::new();
    let is_firewalled = cx.rpc.is_firewalled();
    let shared = &mut *cx.punching;
    let result = call(&mut punch::Context { now: cx.now, shared, nodes: &nodes, is_firewalled, effects: &mut effects });
    let mut heard = Heard::default();
    for effect in effects {
        match effect {
            punch::Effect::Sample { to, step } => {
                cx.request(Outgoing { socket: Some(step.0), retries: Some(0), ..Outgoing::ping(to) }, tag(step));
            }
            punch::Effect::Analyzed => heard.is_analyzed = true,
            punch::Effect::Connected { socket, from } => heard.connected = Some((socket, from)),
            punch::Effect::Aborted => heard.is_aborted = true,
        }
    }
    (result, heard)
}

/// Nodes that a puncher may choose from to learn how its socket is seen.
const NODES_FOR_SAMPLING: usize = 32;

/// Gives a puncher's sockets back.
fn destroy(cx: &mut Context<'_>, mut puncher: Puncher) {
    let is_firewalled = cx.rpc.is_firewalled();
    let shared = &mut *cx.punching;
    puncher.destroy(&mut punch::Context { now: cx.now, shared, nodes: &[], is_firewalled, effects: &mut Vec::new() });
}

/// What a ping of a puncher's learned: as whom, and by whom we were seen.
fn seen(answered: Answered) -> Option<(SocketAddrV4, SocketAddrV4)> {
    answered.ok().map(|reply| (reply.to, reply.from))
}
