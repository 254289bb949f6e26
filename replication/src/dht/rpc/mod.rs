//! dht-rpc: requests and replies over UDP among nodes that keep a Kademlia table. [`Rpc`] is one such node, without sockets and without a clock.
//!
//! ```text
//! message     requests and replies, byte for byte; ids            tokens, limits, scope   what strangers may do
//! event       what goes in and out of an Rpc                       inflight, round_trip,   requests of ours until
//! options     what it is told when it is made                      window                  they are answered
//! table       who is there                                         sampler, network        what our address is, and whether it can be reached
//! query       a walk towards a target; walks: those of an Rpc      upkeep, health          what is done every 5 s
//! serve       requests that are answered here
//! ```
//!
//! A node begins *ephemeral*: it asks, and nobody has it in a table. Once it knows that others can reach its server socket at one address, it may turn
//! *persistent*: the hash of that address is its id, which it sends along from there on.
//!
//! What must stay true:
//!
//! * a node gets into the table only when it answered a request of ours (or showed our token), for source addresses can be forged; JavaScript's takes it with
//!   its first request, ours pings it first;
//! * an answer is believed only from the address that was asked;
//! * a node is believed only about addresses that reach as far as its own ([`scope`]);
//! * whatever strangers send, memory, datagrams and work are bounded ([`RpcLimits`]), and what they are sent is not much more than what came ([`limits`]);
//! * of each request there is one [`RpcEvent::Answered`], of each query one [`RpcEvent::QueryEnded`], unless they are cancelled.
//!
//! Source: dht-rpc `index.js`, `lib/io.js`.

pub mod event;
mod health;
mod inflight;
pub mod limits;
pub mod message;
mod network;
pub mod options;
mod query;
pub(super) mod recent;
mod round_trip;
pub mod sampler;
pub mod scope;
mod serve;
pub mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod upkeep;
mod walks;
mod window;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::udp::{Now, Random, SocketId, Transmit};
pub use event::{Answer, Incoming, Outgoing, Query, QueryId, Reply, RequestError, RequestId, RpcEvent};
use health::Health;
use inflight::{Expired, Inflight, Pending};
use limits::Limits;
use message::Message;
pub use options::{NodeFilter, Persistence, RpcLimits, RpcOptions};
use query::Walk;
use round_trip::RoundTrips;
use sampler::Sampler;
use table::{Node, Table};
use tokens::Tokens;
use window::Window;

const RETRIES: u8 = 3;
/// Pings to strangers who say they are nodes.
const CANDIDATES_MAX: usize = 32;
/// Nodes remembered that were asked whether they are there, and for how many ticks none of them is asked again.
const MET_MAX: usize = 1024;
const MET_TICKS: u64 = 60;

/// What was sent, received and refused so far, and how large the table is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcStats {
    /// Requests of ours under way.
    pub requests_active: usize,
    /// Requests of ours so far.
    pub requests_total: u64,
    /// Those that were answered.
    pub responses: u64,
    /// Those that were not.
    pub timeouts: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Queries under way.
    pub queries_active: usize,
    /// Queries so far.
    pub queries_total: u64,
    /// Nodes in the table.
    pub nodes: usize,
    /// Pings, NAT pings, find-nodes, down hints and delayed pings of ours.
    pub internal_sent: [u64; 5],
    /// Those of others.
    pub internal_received: [u64; 5],
    /// Other requests of ours.
    pub others_sent: u64,
    /// Other requests of others.
    pub others_received: u64,
    /// Replies sent.
    pub replies_sent: u64,
    /// Requests sent on to others.
    pub relayed: u64,
    /// Datagrams that were no message, or a broken one.
    pub malformed: u64,
    /// Replies to nothing we asked.
    pub unexpected: u64,
    /// Requests dropped because their host made too many, or too much waits here.
    pub requests_refused: u64,
    /// Requests with a token that is not valid any more, or never was.
    pub tokens_refused: u64,
    /// Replies with fewer nodes than we have, to strangers.
    pub replies_shortened: u64,
    /// Replies not sent, to strangers.
    pub replies_refused: u64,
    /// Replies that waited until their receiver answered a ping.
    pub replies_held: u64,
}

/// Whose a request of ours is.
enum Owner<T> {
    /// The owner's of this machine.
    Tag(T),
    /// A walk's.
    Walk { query: QueryId, is_slow: bool },
    /// Is a node of the table still there? With the tick it was seen at before.
    Check { id: [u8; 32], seen: u64 },
    /// The same; else another takes its place.
    Swap { id: [u8; 32], seen: u64, new: Box<Node> },
    /// Is this stranger really there?
    Candidate,
    /// The same, of one who is to get more than it said.
    Proof,
    /// Can we be reached at the server socket: a first look.
    QuickFirewall,
    /// The same, in earnest.
    Firewall,
    /// Nobody waits for the answer.
    Nobody,
}

/// A node of the DHT as far as requests, replies, its table and walks go.
pub struct Rpc<T> {
    options: RpcOptions,
    random: Random,
    events: VecDeque<RpcEvent<T>>,
    transmits: VecDeque<Transmit>,
    stats: RpcStats,

    inflight: Inflight<Owner<T>>,
    walks: BTreeMap<QueryId, Walk>,
    walks_waiting: VecDeque<(QueryId, Query)>,
    next_query: u64,

    tokens: Tokens,
    limits: Limits,
    delayed_pings: BTreeMap<(Now, u64), Incoming>,
    /// Replies to strangers who have not shown yet that they are there.
    held: VecDeque<Transmit>,
    next_delayed_ping: u64,

    table: Table,
    candidates: HashSet<SocketAddrV4>,
    /// Who was asked for having asked us, and in which tick.
    met: HashMap<SocketAddrV4, u64>,
    checks: usize,
    swaps: usize,
    health: Health,
    last_heard: Now,
    tick: u64,
    last_tick: Now,
    refresh_ticks: u32,
    look_around: upkeep::LookAround,
    down_hints_sent: u32,

    sampler: Sampler,
    /// Nodes without id whose samples were taken.
    sampled_bootstrap: Vec<SocketAddrV4>,
    stable_ticks: u32,
    checked_host: Option<Ipv4Addr>,
    is_firewalled: bool,
    is_ephemeral: bool,
    is_suspended: bool,
    is_ready: bool,
    /// Somebody answered a first walk: only then it was found out what our address is.
    was_bootstrap_answered: bool,
    bootstrap: network::Bootstrap,
    firewall_check: Option<network::FirewallCheck>,
}

impl<T> Rpc<T> {
    /// A node, which begins with a walk towards itself.
    pub fn new(now: Now, options: RpcOptions, mut random: Random) -> Rpc<T> {
        let limits = &options.limits;
        let mut rpc = Rpc {
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            stats: RpcStats::default(),
            inflight: Inflight::new(
                Window::new(now, options.window_max),
                RoundTrips::new(options.adaptive_timeouts, limits.remembered_max),
            ),
            walks: BTreeMap::new(),
            walks_waiting: VecDeque::new(),
            next_query: 0,
            tokens: Tokens::new(now, &mut random),
            limits: Limits::new(limits.clone()),
            delayed_pings: BTreeMap::new(),
            held: VecDeque::new(),
            next_delayed_ping: 0,
            table: Table::new(random.bytes(), limits.nodes_per_subnet),
            candidates: HashSet::new(),
            met: HashMap::new(),
            checks: 0,
            swaps: 0,
            health: Health::default(),
            last_heard: now,
            // Nodes that were started together shall not do everything together.
            tick: 50 + random.below(50),
            last_tick: now,
            refresh_ticks: 30 + random.below(30) as u32,
            look_around: upkeep::LookAround::default(),
            was_bootstrap_answered: false,
            down_hints_sent: 0,
            sampler: Sampler::default(),
            sampled_bootstrap: Vec::new(),
            stable_ticks: network::STABLE_TICKS,
            checked_host: None,
            is_firewalled: options.firewalled && options.public_address.is_none(),
            is_ephemeral: true,
            is_suspended: false,
            is_ready: false,
            bootstrap: network::Bootstrap::Done,
            firewall_check: None,
            options,
            random,
        };
        for node in rpc.options.nodes.clone().into_iter().rev() {
            rpc.add_saved_node(node);
        }
        rpc.use_known_address(now);
        rpc.begin_bootstrap(now);
        rpc
    }

    /// Ask one node. The end is an [`RpcEvent::Answered`] with the tag.
    pub fn request(&mut self, _now: Now, request: Outgoing, tag: T) -> RequestId {
        let refused = if self.is_suspended {
            Some(RequestError::Suspended)
        } else {
            (self.inflight.len() >= self.options.limits.inflight_max).then_some(RequestError::TooMany)
        };
        if let Some(error) = refused {
            self.events.push_back(RpcEvent::Answered { tag, result: Err(error) });
            return RequestId(self.inflight.next_id());
        }
        match self.begin_request(request, Owner::Tag(tag)) {
            Ok(id) => id,
            Err(Owner::Tag(tag)) => {
                self.events.push_back(RpcEvent::Answered { tag, result: Err(RequestError::TooMany) });
                RequestId(self.inflight.next_id())
            }
            Err(_) => unreachable!("the owner comes back as it went"),
        }
    }

    /// Forget a request; nothing is told of it any more.
    pub fn cancel(&mut self, request: RequestId) {
        // Only the window goes by this time, and that does not go back.
        let now = self.last_tick;
        self.inflight.remove(now, request.0);
    }

    /// Ask a node whether it is there.
    pub fn ping(&mut self, now: Now, to: SocketAddrV4, socket: Option<SocketId>, tag: T) -> RequestId {
        self.request(now, Outgoing { socket, ..Outgoing::ping(to) }, tag)
    }

    /// Send a request on to another node, which will take it for ours; its number stays, so that the answer to it may go straight to the requester.
    pub fn relay(&mut self, _now: Now, request: &Incoming, value: Vec<u8>, to: SocketAddrV4, socket: Option<SocketId>) {
        if self.is_suspended || self.transmits.len() >= self.options.limits.transmits_max {
            return;
        }
        let socket = socket.unwrap_or(request.socket);
        let message = message::Request {
            tid: request.tid,
            to,
            id: self.id_from(socket),
            token: None,
            internal: false,
            command: request.command,
            target: request.target,
            value: Some(value),
        };
        self.stats.relayed += 1;
        self.transmits.push_back(Transmit::new(socket, to, message.encode()));
    }

    /// A datagram came; false: it is none of dht-rpc's.
    pub fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) -> bool {
        if !message::is_message(datagram) {
            return false;
        }
        if self.is_suspended {
            return true;
        }
        match Message::decode(datagram) {
            Ok(_) if scope::Scope::of(from).is_none() => self.stats.malformed += 1,
            Ok(Message::Request(request)) => self.handle_request(now, socket, from, request, datagram.len()),
            Ok(Message::Reply(reply)) => self.handle_reply(now, socket, from, reply),
            Err(_) => self.stats.malformed += 1,
        }
        true
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.transmits.pop_front().or_else(|| self.inflight.next_transmit(now, &mut self.random))
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<RpcEvent<T>> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Rpc::handle_timeout) is to be called next. Ask again after each call, and after all that is to be sent was taken.
    pub fn poll_timeout(&self) -> Option<Now> {
        if self.is_suspended {
            return None;
        }
        let delayed = self.delayed_pings.keys().next().map(|&(at, _)| at);
        [self.inflight.next_timeout(), delayed, Some(self.next_tick())].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.is_suspended {
            return;
        }
        while let Some(expired) = self.inflight.expired(now) {
            match expired {
                Expired::Again(pending) => {
                    self.stats.retries += 1;
                    if let Owner::Walk { query, is_slow: is_slow @ false } = &mut pending.owner {
                        *is_slow = true;
                        let query = *query;
                        self.walk_slowed(now, query);
                    }
                }
                Expired::Over(pending) => {
                    self.stats.timeouts += 1;
                    self.missed(now, pending);
                }
            }
        }
        self.send_delayed_pings(now);
        if now >= self.next_tick() {
            self.handle_tick(now);
        }
    }

    /// Our address as others see it, if the server socket can be reached there.
    pub fn remote_address(&self) -> Option<SocketAddrV4> {
        let sampled =
            self.sampler.address().filter(|address| !self.is_firewalled && address.port() == self.options.server_port);
        self.options.public_address.or(sampled)
    }

    /// The host that others see us at, and the port if it is the same for all of them.
    pub fn public_address(&self) -> Option<(Ipv4Addr, Option<u16>)> {
        self.sampler.host().map(|host| (host, self.sampler.port()))
    }

    /// Whether we may be behind a NAT.
    pub fn is_firewalled(&self) -> bool {
        self.is_firewalled
    }

    /// Our id, while we are persistent.
    pub fn id(&self) -> Option<[u8; 32]> {
        (!self.is_ephemeral).then(|| *self.table.id())
    }

    /// Whether the first walk is over.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether somebody answers.
    pub fn is_online(&self) -> bool {
        self.health.is_online()
    }

    /// Whether most requests are not answered.
    pub fn is_degraded(&self) -> bool {
        self.health.is_degraded()
    }

    /// Whether it was suspended.
    pub fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// Where requests leave: the client socket while we are firewalled, else the server socket.
    pub fn socket(&self) -> SocketId {
        if self.is_firewalled { SocketId::CLIENT } else { SocketId::SERVER }
    }

    /// Local port of the server socket.
    pub fn server_port(&self) -> u16 {
        self.options.server_port
    }

    /// Nodes of the table, the one heard of last first.
    pub fn recent_nodes(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.table.latest().map(|node| node.address)
    }

    /// Nodes of the table that are close to a target, at most `max`.
    pub fn closest_nodes<'a>(
        &'a self,
        target: &[u8; 32],
        max: usize,
    ) -> impl Iterator<Item = SocketAddrV4> + use<'a, T> {
        self.table.closest(target, max).map(|node| node.address)
    }

    /// How many nodes the table has.
    pub fn nodes_len(&self) -> usize {
        self.table.len()
    }

    /// What was sent, received and refused.
    pub fn stats(&self) -> RpcStats {
        RpcStats {
            requests_active: self.inflight.len(),
            queries_active: self.walks.len() + self.walks_waiting.len(),
            nodes: self.table.len(),
            ..self.stats.clone()
        }
    }

    /// Stop: requests fail, queries end with what they have, nothing is answered, no timer runs.
    pub fn suspend(&mut self, now: Now) {
        if std::mem::replace(&mut self.is_suspended, true) {
            return;
        }
        (self.firewall_check, self.bootstrap) = (None, network::Bootstrap::Done);
        for pending in self.inflight.remove_where(now, |_| true) {
            self.forget(pending.owner, RequestError::Suspended);
        }
        self.inflight.clear_window();
        self.transmits.clear();
        self.delayed_pings.clear();
        self.held.clear();
        self.end_all_walks();
    }

    /// Go on, as after a sleep.
    pub fn resume(&mut self, now: Now) {
        if !std::mem::replace(&mut self.is_suspended, false) {
            return;
        }
        (self.last_tick, self.last_heard) = (now, now);
        self.wake();
        if self.is_ready { self.refresh(now) } else { self.begin_bootstrap(now) }
    }

    /// Whose request it was does not get an answer.
    fn forget(&mut self, owner: Owner<T>, error: RequestError) {
        match owner {
            Owner::Tag(tag) => self.events.push_back(RpcEvent::Answered { tag, result: Err(error) }),
            Owner::Check { .. } => self.checks -= 1,
            Owner::Swap { .. } => self.swaps -= 1,
            Owner::Candidate => self.candidates.clear(),
            Owner::Walk { .. } | Owner::QuickFirewall | Owner::Firewall | Owner::Proof | Owner::Nobody => {}
        }
    }

    /// The id that goes with what leaves there.
    fn id_from(&self, socket: SocketId) -> Option<[u8; 32]> {
        self.id().filter(|_| socket == SocketId::SERVER)
    }

    /// A request begins; its owner comes back if there are too many.
    fn begin_request(&mut self, request: Outgoing, owner: Owner<T>) -> Result<RequestId, Owner<T>> {
        let Some(tid) = self.inflight.free_number(&mut self.random) else { return Err(owner) };
        let socket = request.socket.unwrap_or(self.socket());
        let message = message::Request {
            tid,
            to: request.to,
            id: self.id_from(socket),
            token: request.token,
            internal: request.internal,
            command: request.command,
            target: request.target,
            value: request.value,
        };
        self.stats.requests_total += 1;
        match usize::try_from(request.command).ok().and_then(|command| self.stats.internal_sent.get_mut(command)) {
            Some(count) if request.internal => *count += 1,
            _ => self.stats.others_sent += 1,
        }
        let id = self.inflight.next_id();
        let retries = request.retries.unwrap_or(RETRIES);
        self.inflight.begin(
            id,
            tid,
            request.to,
            socket,
            message.encode(),
            request.ttl,
            retries,
            request.timeout,
            owner,
        );
        Ok(RequestId(id))
    }

    /// A request of dht-rpc's own.
    fn begin_internal(
        &mut self,
        to: SocketAddrV4,
        command: u64,
        value: Option<Vec<u8>>,
        retries: u8,
        owner: Owner<T>,
    ) -> bool {
        let request = Outgoing { internal: true, value, retries: Some(retries), ..Outgoing::new(to, command) };
        self.begin_request(request, owner).is_ok()
    }

    fn handle_reply(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, reply: message::Reply) {
        let is_usual_socket = socket == self.socket();
        let Some((pending, round_trip)) = self.inflight.answered(now, reply.tid, from) else {
            self.stats.unexpected += 1;
            return;
        };
        self.stats.responses += 1;
        self.last_heard = now;
        self.limits.prove(now, *from.ip());
        let reply = Reply {
            from,
            from_id: message::checked_id(reply.id, from),
            to: reply.to,
            token: reply.token,
            closer: reply.closer,
            error: reply.error,
            value: reply.value,
            round_trip,
            socket,
        };
        self.heard_of(&reply, is_usual_socket);
        self.answered(now, pending, reply);
    }

    fn answered(&mut self, now: Now, pending: Pending<Owner<T>>, reply: Reply) {
        match pending.owner {
            Owner::Tag(tag) => self.events.push_back(RpcEvent::Answered { tag, result: Ok(reply) }),
            Owner::Walk { query, is_slow } => self.walk_answered(now, query, reply, is_slow),
            Owner::Check { id, seen } => {
                self.checks -= 1;
                self.remove_if_stale(&id, seen);
            }
            Owner::Swap { id, seen, new } => {
                self.swaps -= 1;
                if self.remove_if_stale(&id, seen) {
                    self.add_node(*new);
                }
            }
            Owner::Candidate => drop(self.candidates.remove(&pending.to)),
            Owner::Proof => self.release(pending.to, true),
            Owner::QuickFirewall => self.quick_firewall_answered(now),
            Owner::Firewall => self.firewall_answered(now, Some(&reply)),
            Owner::Nobody => {}
        }
    }

    fn missed(&mut self, now: Now, pending: Pending<Owner<T>>) {
        match pending.owner {
            Owner::Tag(tag) => self.events.push_back(RpcEvent::Answered { tag, result: Err(RequestError::Timeout) }),
            Owner::Walk { query, is_slow } => {
                self.remove_silent(&message::node_id(pending.to), pending.first_sent_at);
                self.walk_missed(now, query, pending.to, is_slow);
            }
            Owner::Check { id, .. } => {
                self.checks -= 1;
                self.remove_silent(&id, pending.first_sent_at);
            }
            Owner::Swap { id, new, .. } => {
                self.swaps -= 1;
                self.table.remove(&id);
                self.add_node(*new);
            }
            Owner::Candidate => drop(self.candidates.remove(&pending.to)),
            Owner::Proof => self.release(pending.to, false),
            Owner::Firewall => self.firewall_answered(now, None),
            Owner::QuickFirewall | Owner::Nobody => {}
        }
    }

    fn next_tick(&self) -> Now {
        self.last_tick + upkeep::TICK
    }

    /// Whether an address that a node told us of, or that asks us, may be a node.
    fn is_node_allowed(&self, told_by: SocketAddrV4, node: SocketAddrV4) -> bool {
        scope::is_believable(told_by, node)
            && self.options.public_address != Some(node)
            && self.options.node_filter.as_ref().is_none_or(|filter| filter.0(node))
    }
}
