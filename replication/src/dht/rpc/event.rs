//! What goes in and out of an [`Rpc`](super::Rpc): requests, answers, queries, events.
//!
//! What must stay true: a node's id is never taken from the wire as it is. Where an id stands beside an address here, it is the hash of that address, and the
//! node claimed it itself.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::message;
use crate::udp::SocketId;

/// One request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One walk towards a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Who is asked. Only this address can answer.
    pub to: SocketAddrV4,
    /// Where it leaves; `None`: the client socket while we are firewalled, else the server socket.
    pub socket: Option<SocketId>,
    /// Whether the command is one of dht-rpc's own ([`message::PING`] and so on).
    pub internal: bool,
    /// What is asked.
    pub command: u64,
    /// What it is about.
    pub target: Option<[u8; 32]>,
    /// What the node gave us to show that we can be reached where we say.
    pub token: Option<[u8; 32]>,
    /// What goes with it.
    pub value: Option<Vec<u8>>,
    /// Hops the datagrams may take.
    pub ttl: Option<u8>,
    /// How often it is sent again when no answer comes; `None`: 3 times.
    pub retries: Option<u8>,
    /// How long each try waits; `None`: as the round trips to that node suggest.
    pub timeout: Option<Duration>,
}

impl Outgoing {
    /// A request with nothing in it.
    pub fn new(to: SocketAddrV4, command: u64) -> Outgoing {
        Outgoing {
            to,
            socket: None,
            internal: false,
            command,
            target: None,
            token: None,
            value: None,
            ttl: None,
            retries: None,
            timeout: None,
        }
    }

    /// Are you there?
    pub fn ping(to: SocketAddrV4) -> Outgoing {
        Outgoing { internal: true, ..Outgoing::new(to, message::PING) }
    }

    /// Answer after so many milliseconds (at most 10000 for JavaScript's nodes).
    pub fn delayed_ping(to: SocketAddrV4, delay: Duration) -> Outgoing {
        let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        Outgoing {
            internal: true,
            value: Some(delay_ms.to_le_bytes().to_vec()),
            timeout: Some(delay + Duration::from_secs(1)),
            ..Outgoing::new(to, message::DELAYED_PING)
        }
    }
}

/// What a node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who answered: always whom we asked.
    pub from: SocketAddrV4,
    /// Its id, if it is persistent.
    pub from_id: Option<[u8; 32]>,
    /// Our address as it sees us.
    pub to: SocketAddrV4,
    /// What to show it with a request that changes something there; good for 7.5 s at least.
    pub token: Option<[u8; 32]>,
    /// Nodes it knows that are closer to the target, at most 20.
    pub closer: Vec<SocketAddrV4>,
    /// 0, or what went wrong ([`message::UNKNOWN_COMMAND`] and so on).
    pub error: u64,
    /// What came with it.
    pub value: Option<Vec<u8>>,
    /// How long it took, from the last time the request was sent.
    pub round_trip: Duration,
    /// Where it came in.
    pub socket: SocketId,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// All tries waited in vain.
    #[error("no answer")]
    Timeout,
    /// The node was suspended meanwhile. Ask again when it is resumed.
    #[error("suspended")]
    Suspended,
    /// Too many requests are under way. Ask again when some are answered.
    #[error("too many requests under way")]
    TooMany,
}

/// A request of somebody else, to be answered, relayed or ignored. dht-rpc's own commands are answered without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its number; the answer has the same.
    pub tid: u16,
    /// Where it came from, as far as one can tell.
    pub from: SocketAddrV4,
    /// The id of that address, if the sender is persistent.
    pub from_id: Option<[u8; 32]>,
    /// Our address as the sender knows it.
    pub to: SocketAddrV4,
    /// Where it came in.
    pub socket: SocketId,
    /// It carries a token we gave to that host: the sender is where it says.
    pub has_valid_token: bool,
    /// That token.
    pub token: Option<[u8; 32]>,
    /// What is asked.
    pub command: u64,
    /// What it is about.
    pub target: Option<[u8; 32]>,
    /// What came with it.
    pub value: Option<Vec<u8>>,
    /// Length of its datagram: what an answer to a stranger is measured by.
    pub size: usize,
}

/// An answer to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Where it leaves; `None`: where the request came in.
    pub socket: Option<SocketId>,
    /// Where it goes; `None`: where the request came from.
    pub to: Option<SocketAddrV4>,
    /// Give a token.
    pub token: bool,
    /// Tell the closest nodes we know, if the request has a target.
    pub closer: bool,
    /// 0, or what went wrong.
    pub error: u64,
    /// What goes with it.
    pub value: Option<Vec<u8>>,
}

impl Answer {
    /// A value, with a token and closer nodes: JavaScript's `req.reply(value)`.
    pub fn reply(value: Option<Vec<u8>>) -> Answer {
        Answer { token: true, closer: true, value, ..Answer::default() }
    }

    /// An error, with closer nodes and no token: JavaScript's `req.error(code)`.
    pub fn error(error: u64) -> Answer {
        Answer { closer: true, error, ..Answer::default() }
    }
}

/// A walk towards a target: the same request to ever closer nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Where to.
    pub target: [u8; 32],
    /// Whether the command is one of dht-rpc's own.
    pub internal: bool,
    /// What each node is asked.
    pub command: u64,
    /// What goes with it.
    pub value: Option<Vec<u8>>,
    /// Nodes to ask first, in this order, as the closest of an earlier walk. While they answer, others are asked more slowly, and if too few do, the walk
    /// begins again from the table.
    pub nodes: Vec<SocketAddrV4>,
    /// Ask only these nodes.
    pub is_only_given: bool,
    /// How often each node is asked again when no answer comes; `None`: 5 times.
    pub retries: Option<u8>,
    /// Nodes asked at once; `None`: as [`RpcOptions::concurrency`](super::RpcOptions::concurrency).
    pub concurrency: Option<usize>,
}

impl Query {
    /// A walk that only looks for nodes.
    pub fn find_node(target: [u8; 32]) -> Query {
        Query { target, internal: true, command: message::FIND_NODE, ..Query::default() }
    }
}

/// What an [`Rpc`](super::Rpc) has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcEvent<T> {
    /// Somebody asks something that is not dht-rpc's own.
    Request(Incoming),
    /// A request of ours came to its end.
    Answered {
        /// What the owner gave with the request.
        tag: T,
        /// The answer (which may be an error of the other side's), or why there is none.
        result: Result<Reply, RequestError>,
    },
    /// A node answered a query, without an error.
    QueryReply {
        /// Which query.
        query: QueryId,
        /// Its answer.
        reply: Reply,
    },
    /// A query came to its end.
    QueryEnded {
        /// Which query.
        query: QueryId,
        /// The closest nodes that answered without an error and have an id, at most 20, the closest first. A request that changes something goes to each of
        /// these with the token of its reply.
        closest: Vec<Reply>,
    },
    /// The first walk is over: the table is as good as it gets.
    Ready,
    /// We have an id now, and are in the tables of others.
    Persistent,
    /// We have no id any more.
    Ephemeral,
    /// What others say our address is has changed.
    AddressChanged,
    /// The machine slept, or the network was changed: what was known may be old.
    Woke,
    /// Nobody answers any more.
    Offline,
    /// Somebody answers again.
    Online,
}
