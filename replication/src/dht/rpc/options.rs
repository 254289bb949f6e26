//! What an [`Rpc`](super::Rpc) is told when it is made.
//!
//! What must stay true: a default is what JavaScript's dht-rpc does, save the limits, which it does not have. A limit bounds what strangers may cost us.

use std::fmt;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

/// When a node becomes persistent: has an id, is in the tables of others, and stores their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// After about 20 minutes at one public address that can be reached without a hole punched.
    #[default]
    Adaptive,
    /// As soon as a check shows that it can be reached; for nodes of a private network, and bootstrappers.
    Forced,
    /// Never: it asks, and stays out of the tables of others.
    Never,
}

/// Which addresses may be nodes; the others are neither asked nor kept.
#[derive(Clone)]
pub struct NodeFilter(pub Arc<dyn Fn(SocketAddrV4) -> bool + Send + Sync>);

impl NodeFilter {
    /// A filter from a function that tells whether an address may be a node.
    pub fn new(is_allowed: impl Fn(SocketAddrV4) -> bool + Send + Sync + 'static) -> NodeFilter {
        NodeFilter(Arc::new(is_allowed))
    }
}

impl fmt::Debug for NodeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeFilter(..)")
    }
}

/// What strangers may cost.
#[derive(Clone, Debug)]
pub struct RpcLimits {
    /// Requests in flight or waiting for the congestion window; more are answered with [`RequestError::TooMany`](super::RequestError::TooMany).
    pub inflight_max: usize,
    /// Queries that run at once; more wait for one to end.
    pub queries_max: usize,
    /// Queries that wait; more end at once, with no reply.
    pub queries_waiting_max: usize,
    /// Events that were not yet taken; requests that come beyond are dropped. Answers are never dropped: there is one for each request of ours.
    pub events_max: usize,
    /// Datagrams that were not yet taken; replies beyond are dropped.
    pub transmits_max: usize,
    /// Requests answered a second from one host, beyond a burst of twice as many.
    pub requests_per_host: u32,
    /// The same for a host of this machine (127.0.0.0/8), where a whole network may live at one address.
    pub requests_per_loopback_host: u32,
    /// Bytes a second that replies to one /24 may be larger than the requests, while its hosts have not shown that they are where they say. Sixteen seconds'
    /// worth may be spent at once.
    pub unproven_bytes_per_subnet: u32,
    /// The same for all of them, with four seconds' worth at once.
    pub unproven_bytes: u32,
    /// Nodes of one public /24 in a row of the table.
    pub nodes_per_subnet: usize,
    /// Nodes of one public /24 among the closest of a walk, if there are enough others.
    pub closest_per_subnet: usize,
    /// Delayed pings that wait.
    pub delayed_pings_max: usize,
    /// Hosts and addresses that limits and round trips are remembered of.
    pub remembered_max: usize,
}

impl Default for RpcLimits {
    fn default() -> RpcLimits {
        RpcLimits {
            inflight_max: 2048,
            queries_max: 128,
            queries_waiting_max: 4096,
            events_max: 4096,
            transmits_max: 4096,
            requests_per_host: 200,
            requests_per_loopback_host: 20_000,
            unproven_bytes_per_subnet: 4 * 1024,
            unproven_bytes: 256 * 1024,
            nodes_per_subnet: 4,
            closest_per_subnet: 3,
            delayed_pings_max: 256,
            remembered_max: 4096,
        }
    }
}

/// What an [`Rpc`](super::Rpc) is told when it is made.
#[derive(Clone, Debug)]
pub struct RpcOptions {
    /// Nodes to begin with when the table is too small.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Nodes known from an earlier run; the latest first.
    pub nodes: Vec<SocketAddrV4>,
    /// When to become persistent.
    pub persistence: Persistence,
    /// Whether we may be behind a NAT: then requests leave from the client socket until a check shows that the server socket can be reached.
    pub firewalled: bool,
    /// Local port of the server socket.
    pub server_port: u16,
    /// Our address as others see it, if it is known beforehand, as a bootstrapper's is. The node is then persistent at once (unless [`Persistence::Never`]).
    pub public_address: Option<SocketAddrV4>,
    /// Look during the bootstrap whether we are behind a NAT, instead of 20 minutes later.
    pub quick_firewall: bool,
    /// How long to wait for an answer follows the round trips to that node; else always a second.
    pub adaptive_timeouts: bool,
    /// Nodes that a query asks at once.
    pub concurrency: usize,
    /// Requests sent in a slot of 750 ms; twice as many in four of them.
    pub window_max: usize,
    /// Whether to tell nodes of others in their tables that do not answer.
    pub sends_down_hints: bool,
    /// How long a delayed ping may be asked to wait.
    pub ping_delay_max: Duration,
    /// Which addresses may be nodes. `None`: all that can be one.
    pub node_filter: Option<NodeFilter>,
    /// What strangers may cost.
    pub limits: RpcLimits,
}

impl Default for RpcOptions {
    fn default() -> RpcOptions {
        RpcOptions {
            bootstrap: Vec::new(),
            nodes: Vec::new(),
            persistence: Persistence::Adaptive,
            firewalled: true,
            server_port: 0,
            public_address: None,
            quick_firewall: true,
            adaptive_timeouts: true,
            concurrency: 10,
            window_max: 80,
            sends_down_hints: true,
            ping_delay_max: Duration::from_secs(10),
            node_filter: None,
            limits: RpcLimits::default(),
        }
    }
}

impl RpcOptions {
    /// A bootstrapper at a known address: persistent at once, not behind a NAT, and with nobody to ask. Its server socket has that port.
    pub fn bootstrapper(address: SocketAddrV4) -> RpcOptions {
        RpcOptions {
            persistence: Persistence::Forced,
            firewalled: false,
            server_port: address.port(),
            public_address: Some(address),
            ..RpcOptions::default()
        }
    }
}
