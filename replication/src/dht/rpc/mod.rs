//! dht-rpc: requests and replies over UDP among nodes that keep a Kademlia table.

pub mod event;
pub mod message;
pub mod options;
pub mod query;
pub mod sampler;
pub mod table;

use std::net::SocketAddrV4;

use crate::udp::{Now, Random, SocketId, Transmit};
pub use event::{Answer, Incoming, Outgoing, Query, QueryId, Reply, RequestError, RequestId, RpcEvent};
pub use options::{NodeFilter, Persistence, RpcLimits, RpcOptions};

/// What was sent, received and refused so far, and how large the table is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcStats {
    /// Requests under way.
    pub requests_active: usize,
}

/// A node of the DHT as far as requests, replies, its table and walks go.
pub struct Rpc<T> {
    options: RpcOptions,
    random: Random,
    events: std::collections::VecDeque<RpcEvent<T>>,
}

#[allow(unused_variables)]
impl<T> Rpc<T> {
    /// A node, which begins with a walk towards itself.
    pub fn new(now: Now, options: RpcOptions, random: Random) -> Rpc<T> {
        Rpc { options, random, events: Default::default() }
    }
    /// Ask one node.
    pub fn request(&mut self, now: Now, request: Outgoing, tag: T) -> RequestId {
        RequestId(0)
    }
    /// Forget a request; nothing is told of it any more.
    pub fn cancel(&mut self, request: RequestId) {}
    /// Ask a node whether it is there.
    pub fn ping(&mut self, now: Now, to: SocketAddrV4, socket: Option<SocketId>, tag: T) -> RequestId {
        self.request(now, Outgoing { socket, ..Outgoing::ping(to) }, tag)
    }
    /// Walk towards a target.
    pub fn query(&mut self, now: Now, query: Query) -> QueryId {
        QueryId(0)
    }
    /// Forget a query and its requests; nothing is told of it any more.
    pub fn cancel_query(&mut self, query: QueryId) {}
    /// Answer a request.
    pub fn answer(&mut self, now: Now, request: &Incoming, answer: Answer) {}
    /// Send a request on to another node, which will take it for ours with the same number.
    pub fn relay(&mut self, now: Now, request: &Incoming, value: Vec<u8>, to: SocketAddrV4, socket: Option<SocketId>) {}
    /// A datagram came; false: it is none of dht-rpc's.
    pub fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) -> bool {
        false
    }
    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        None
    }
    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<RpcEvent<T>> {
        self.events.pop_front()
    }
    /// When [`handle_timeout`](Rpc::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Now> {
        None
    }
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {}
    /// Our address as others see it, if the server socket can be reached there.
    pub fn remote_address(&self) -> Option<SocketAddrV4> {
        None
    }
    /// The host that others see us at, and the port if it is the same for all of them.
    pub fn public_address(&self) -> Option<(std::net::Ipv4Addr, Option<u16>)> {
        None
    }
    /// Whether we may be behind a NAT.
    pub fn is_firewalled(&self) -> bool {
        self.options.firewalled
    }
    /// Our id, while we are persistent.
    pub fn id(&self) -> Option<[u8; 32]> {
        None
    }
    /// Whether the first walk is over.
    pub fn is_ready(&self) -> bool {
        false
    }
    /// Whether somebody answers.
    pub fn is_online(&self) -> bool {
        true
    }
    /// Whether it was suspended.
    pub fn is_suspended(&self) -> bool {
        false
    }
    /// Where requests leave: the client socket while we are firewalled, else the server socket.
    pub fn socket(&self) -> SocketId {
        SocketId::SERVER
    }
    /// Local port of the server socket.
    pub fn server_port(&self) -> u16 {
        self.options.server_port
    }
    /// Nodes of the table, the one heard of last first.
    pub fn recent_nodes(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        std::iter::empty()
    }
    /// How many nodes the table has.
    pub fn nodes_len(&self) -> usize {
        0
    }
    /// What was sent, received and refused.
    pub fn stats(&self) -> RpcStats {
        RpcStats::default()
    }
    /// Stop: requests fail, queries end, nothing is answered.
    pub fn suspend(&mut self, now: Now) {}
    /// Go on.
    pub fn resume(&mut self, now: Now) {}
    /// Addresses of this machine have changed.
    pub fn network_changed(&mut self, now: Now) {}
}
