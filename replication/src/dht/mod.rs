//! The HyperDHT: who is there, where, and how to reach them behind their NATs.
//!
//! ```text
//!                    datagrams in, Transmits out; events out; time as an argument
//!                                               |
//!   Dht  ----- composes and routes -------------+----------------------------------------------+
//!    |              |              |                |               |             |            |
//!   Rpc<Tag>     Storage        Router          Operations      Announcer      Client       Server
//!   requests,    what others    forwards        look up,        keeps a        one of our   answers those
//!   table,       announced      handshakes      announce,       server on      connects     who connect to us
//!   queries      and put here   and punches     put, get        three nodes       +-- Puncher --+
//! ```
//!
//! [`Dht`] (in `node`) owns everything and gives each part a [`Context`] while it is called: the requests it can make, randomness, what we know of ourselves, and a list
//! that [`Effect`]s are pushed to. Every request carries a [`Tag`], every query an [`Asker`], which say whose its answer is.
//!
//! What must stay true:
//!
//! * no I/O and no clock in here; the same seed and the same datagrams give the same datagrams;
//! * a part that ends takes its requests, queries, sockets and stream ids with it: answers to who is gone are dropped;
//! * whatever a stranger sends costs time and memory in proportion to its size, and tables have limits.

pub mod announcer;
pub mod connect;
pub mod messages;
mod node;
pub mod operations;
pub mod punch;
pub mod router;
pub mod rpc;
pub mod storage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;

use self::connect::{client, server};
use self::punch::{Punching, puncher};
use self::router::Router;
use self::rpc::{Outgoing, Query, QueryId, RequestId, Rpc};
use crate::secret_stream::handshake::Session;
use crate::udp::{Now, Random, SocketChange};

pub use self::connect::{ConnectError, ConnectOptions, ServerOptions, Verdict};
pub use self::messages::PeerRecord;
pub use self::node::{Dht, DhtOptions, DhtStats};
pub use self::operations::Outcome;
pub use crate::udx::Path;

/// One of our connects, or one connection that a server of ours is asked for. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A server of ours. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

/// Something looked up, announced, put or got. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(pub u64);

/// Whose answer an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Of an operation.
    Operation(OperationId, operations::Step),
    /// Of the announcer of a server.
    Announcer(ServerId, announcer::Step),
    /// Of one of our connects.
    Client(ConnectionId, client::Step),
    /// Of a server.
    Server(ServerId, server::Step),
    /// Of a puncher.
    Puncher(PuncherId, puncher::Step),
}

/// Whose replies a query's replies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// An operation's.
    Operation(OperationId),
    /// The announcer's of a server.
    Announcer(ServerId),
    /// One of our connects'.
    Client(ConnectionId),
}

/// A puncher, by whose it is: a connect of ours has one at most, and so has each connection that a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PuncherId {
    /// Of one of our connects.
    Client(ConnectionId),
    /// Of a connection to one of our servers.
    Server(ServerId, ConnectionId),
}

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// One side is open to everyone.
    Direct,
    /// Both are in one local network.
    Lan,
    /// Through both sides' NATs.
    Punched,
    /// Through a third peer that forwards packets; may become direct later.
    Relayed,
}

/// A connection is open: connect the stream to the path and start the secret stream.
pub struct Opened {
    /// Which.
    pub connection: ConnectionId,
    /// Its stream, by our number.
    pub stream: u32,
    /// Where its packets go.
    pub path: Path,
    /// Keys, and who the other side has proved to be.
    pub session: Session,
    /// Whether we asked for it.
    pub is_initiator: bool,
    /// The other side's key.
    pub remote_key: [u8; 32],
    /// The server of ours that was asked; None if we asked.
    pub server: Option<ServerId>,
    /// How it came to be.
    pub via: Via,
}

/// What the DHT tells its owner.
pub enum DhtEvent {
    /// A connection is open.
    Open(Opened),
    /// An open connection has a better path: move its stream.
    Moved {
        /// Which.
        connection: ConnectionId,
        /// Its stream.
        stream: u32,
        /// Where its packets go from now on.
        path: Path,
    },
    /// A connect failed, or a connection to a server never opened.
    Failed {
        /// Which.
        connection: ConnectionId,
        /// The stream that it no longer needs.
        stream: u32,
        /// Why.
        error: ConnectError,
    },
    /// A connection wants to go through a relay: connect to it, pair with the token, then say [`Dht::relay_paired`].
    NeedsRelay {
        /// Which.
        connection: ConnectionId,
        /// Its stream: the id to pair.
        stream: u32,
        /// The relay's key.
        relay: [u8; 32],
        /// What both sides show the relay.
        token: [u8; 32],
        /// Whether we are the side that chose the relay.
        is_initiator: bool,
    },
    /// The relay that was asked for is not needed any longer.
    RelayUnneeded {
        /// Whose it was.
        connection: ConnectionId,
    },
    /// Peers were found, each checked in form; that they are there is only said.
    Peers {
        /// By which operation.
        operation: OperationId,
        /// Who.
        peers: Vec<PeerRecord>,
        /// The node that said so.
        from: SocketAddrV4,
    },
    /// An operation ended.
    Done {
        /// Which.
        operation: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// A socket is to be opened or closed.
    Socket(SocketChange),
    /// A stream id that was offered, taken, and is not needed: remove it.
    UnusedStream(u32),
    /// The table was filled from its bootstrap nodes.
    Ready,
    /// Our address as others see it changed, or whether they can reach it.
    AddressChanged,
    /// Something worth a log line.
    Note(Note),
}

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The peer it is about, by its key.
    pub peer: Option<[u8; 32]>,
    /// What happened.
    pub text: String,
}

/// What a part asks the [`Dht`] to do after it was called.
pub enum Effect {
    /// Tell the owner.
    Event(DhtEvent),
    /// A server, found by key, has these relays: try them first the next time.
    RememberRelays {
        /// The server's key.
        key: [u8; 32],
        /// Nodes that forward to it.
        relays: Vec<SocketAddrV4>,
    },
}

/// What a part works with while it is called.
pub struct Context<'a> {
    /// When.
    pub now: Now,
    /// Requests. Use [`Context::query`] for queries, so that their replies find back.
    pub rpc: &'a mut Rpc<Tag>,
    /// Randomness.
    pub random: &'a mut Random,
    /// The server socket's addresses in the local networks.
    pub local_addresses: &'a [SocketAddrV4],
    /// What hole punches share: their sockets, and when the next random one may run.
    pub punching: &'a mut Punching,
    /// Ids of streams that nobody uses yet; who takes one and does not use it says [`DhtEvent::UnusedStream`].
    pub stream_ids: &'a mut VecDeque<u32>,
    /// Whether a peer, by its key, may connect to us.
    pub firewall: &'a dyn Fn(&[u8; 32]) -> bool,
    /// What to do afterwards.
    pub effects: &'a mut Vec<Effect>,
    /// The way of handshakes through this node.
    pub router: &'a mut Router,
    /// Whose queries they are.
    queries: &'a mut BTreeMap<QueryId, Asker>,
    next_connection: &'a mut u64,
}

impl Context<'_> {
    /// Tell the owner.
    pub fn event(&mut self, event: DhtEvent) {
        self.effects.push(Effect::Event(event));
    }
    /// Say something worth a log line.
    pub fn note(&mut self, peer: Option<[u8; 32]>, text: impl Into<String>) {
        self.event(DhtEvent::Note(Note { peer, text: text.into() }));
    }
    /// Send one request.
    pub fn request(&mut self, outgoing: Outgoing, tag: Tag) -> RequestId {
        self.rpc.request(self.now, outgoing, tag)
    }
    /// Start a query whose replies go to the asker.
    pub fn query(&mut self, asker: Asker, query: Query) -> QueryId {
        let id = self.rpc.query(self.now, query);
        self.queries.insert(id, asker);
        id
    }
    /// End a query; no more of it is heard.
    pub fn cancel_query(&mut self, id: QueryId) {
        self.queries.remove(&id);
        self.rpc.cancel_query(id);
    }
    /// An id for a connection that a server is asked for.
    pub fn new_connection(&mut self) -> ConnectionId {
        let id = ConnectionId(*self.next_connection);
        *self.next_connection += 1;
        id
    }
}
