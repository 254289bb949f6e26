//! [`Dht`]: one node of the HyperDHT, which puts the parts together: whose a request is, whose an answer, whose a packet.
//!
//! ```text
//! handle_datagram      one byte -> the puncher whose socket it came in on; else Rpc
//! RpcEvent::Request    PEER_HANDSHAKE, PEER_HOLEPUNCH -> Router -> (on to others) | one of our servers
//!                      the others -> Storage, while this node is persistent; else error 1
//! RpcEvent::Answered   by its Tag        RpcEvent::QueryReply, QueryEnded   by their Asker
//! handle_stream_packet by stream id: one of our connects, or a connection to one of our servers
//! ```
//!
//! What must stay true: after every call from outside nothing waits inside of [`Rpc`] to be told, all effects are carried out, and parts that ended are gone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::announcer::Announcer;
use super::connect::client::Client;
use super::connect::server::{Announced, Server};
use super::messages::{self, MutableValue, command};
use super::operations::{Operation, Wish};
use super::punch::{PunchStats, Punching};
use super::router::{ForServer, Router};
use super::rpc::{
    Answer, Incoming, NodeFilter, QueryId, Reply, RequestError, Rpc, RpcEvent, RpcOptions, RpcStats, message,
};
use super::storage::{Storage, StorageLimits};
use super::{
    Asker, ConnectOptions, ConnectionId, Context, DhtEvent, Effect, Note, OperationId, Path, PuncherId, ServerId,
    ServerOptions, Tag, Verdict,
};
use crate::secret_stream::handshake::Identity;
use crate::udp::{Now, Random, SocketId, Transmit};

/// How long a node that is suspended goes on, so that its servers are unannounced.
const SUSPEND_WAIT: Duration = Duration::from_secs(2);
/// Servers whose relays are remembered.
const RELAYS_REMEMBERED: usize = 512;
/// Topics whose closest nodes are remembered for the next walk.
const CLOSEST_REMEMBERED: usize = 1024;
/// Stream ids kept in stock.
const STREAM_IDS_MAX: usize = 256;
/// Notes that wait to be taken; more are dropped.
const NOTES_MAX: usize = 256;

/// How a node is made.
#[derive(Clone, Debug, Default)]
pub struct DhtOptions {
    /// What dht-rpc is told.
    pub rpc: RpcOptions,
    /// The server socket's addresses in the local networks.
    pub local_addresses: Vec<SocketAddrV4>,
    /// Limits of what is kept for others.
    pub storage: StorageLimits,
}

/// What a node did so far.
#[derive(Clone, Debug, Default)]
pub struct DhtStats {
    /// Requests and replies.
    pub rpc: RpcStats,
    /// Hole punches.
    pub punches: PunchStats,
    /// Handshakes and hole punches passed on for others, and refused for a limit.
    pub relayed: (u64, u64),
    /// Announcements kept for others.
    pub records: usize,
    /// Bytes kept for others.
    pub stored_bytes: usize,
}

/// What the parts share while they are called.
struct Shared {
    rpc: Rpc<Tag>,
    random: Random,
    local_addresses: Vec<SocketAddrV4>,
    punching: Punching,
    stream_ids: VecDeque<u32>,
    firewall: Box<dyn Fn(&[u8; 32]) -> bool + Send>,
    effects: Vec<Effect>,
    router: Router,
    queries: BTreeMap<QueryId, Asker>,
    next_connection: u64,
}

impl Shared {
    fn context(&mut self, now: Now) -> Context<'_> {
        Context {
            now,
            rpc: &mut self.rpc,
            random: &mut self.random,
            local_addresses: &self.local_addresses,
            punching: &mut self.punching,
            stream_ids: &mut self.stream_ids,
            firewall: &*self.firewall,
            effects: &mut self.effects,
            router: &mut self.router,
            queries: &mut self.queries,
            next_connection: &mut self.next_connection,
        }
    }
}

/// One of our servers and what announces it.
struct Listening {
    server: Server,
    announcer: Announcer,
    /// It was closed; the announcer still has something to say.
    is_closed: bool,
}

/// A node of the HyperDHT. See the module.
pub struct Dht {
    shared: Shared,
    storage: Storage,
    clients: BTreeMap<ConnectionId, Client>,
    client_of_stream: HashMap<u32, ConnectionId>,
    servers: BTreeMap<ServerId, Listening>,
    operations: BTreeMap<OperationId, Operation>,
    /// Nodes that were closest to a target the last time.
    closest: Remembered<Vec<SocketAddrV4>>,
    /// The relays of servers that we were connected to.
    relays: Remembered<Vec<SocketAddrV4>>,
    /// Topics that were announced since the start: the first time old announcements are looked for.
    announced: Remembered<()>,
    events: VecDeque<DhtEvent>,
    next_server: u32,
    next_operation: u64,
    suspends_at: Option<Now>,
    is_suspended: bool,
}

impl Dht {
    /// A node that begins to look for others at once. Nobody is refused until [`set_firewall`](Dht::set_firewall).
    pub fn new(now: Now, mut options: DhtOptions, mut random: Random) -> Dht {
        options.rpc.node_filter.get_or_insert_with(|| NodeFilter::new(is_no_stray));
        let shared = Shared {
            rpc: Rpc::new(now, options.rpc, random.fork()),
            punching: Punching::new(random.fork()),
            random,
            local_addresses: options.local_addresses,
            stream_ids: VecDeque::new(),
            firewall: Box::new(|_| true),
            effects: Vec::new(),
            router: Router::default(),
            queries: BTreeMap::new(),
            next_connection: 0,
        };
        Dht {
            shared,
            storage: Storage::new(&options.storage),
            clients: BTreeMap::new(),
            client_of_stream: HashMap::new(),
            servers: BTreeMap::new(),
            operations: BTreeMap::new(),
            closest: Remembered::new(CLOSEST_REMEMBERED),
            relays: Remembered::new(RELAYS_REMEMBERED),
            announced: Remembered::new(CLOSEST_REMEMBERED),
            events: VecDeque::new(),
            next_server: 0,
            next_operation: 0,
            suspends_at: None,
            is_suspended: false,
        }
    }

    // ---- Connections

    /// Connect to the peer that has this key. `stream` is an id of our own that has no peer yet. Ends with [`DhtEvent::Open`] or [`DhtEvent::Failed`].
    pub fn connect(
        &mut self,
        now: Now,
        remote_key: [u8; 32],
        mut options: ConnectOptions,
        stream: u32,
    ) -> ConnectionId {
        let id = self.shared.context(now).new_connection();
        if self.is_suspended {
            self.events.push_back(DhtEvent::Failed { connection: id, stream, error: super::ConnectError::Aborted });
            return id;
        }
        if options.relay_addresses.is_empty() {
            options.relay_addresses = self.relays.get(&remote_key).cloned().unwrap_or_default();
        }
        // A peer that announced itself at this node is reached without anybody in between.
        if let Some(route) = self.storage.route(now, &messages::target_of(&remote_key)) {
            options.relay_addresses.insert(0, route.relay);
        }
        let client = Client::new(&mut self.shared.context(now), id, remote_key, options, stream);
        self.client_of_stream.insert(stream, id);
        self.clients.insert(id, client);
        self.drain(now);
        id
    }

    /// Give a connection up that is not open yet.
    pub fn abort(&mut self, now: Now, connection: ConnectionId) {
        self.with_connection(now, connection, |client, cx| client.abort(cx), |server, cx| server.abort(cx, connection));
    }

    /// A stream is closed: what was kept for it can go.
    pub fn stream_closed(&mut self, now: Now, stream: u32) {
        if let Some(&id) = self.client_of_stream.get(&stream) {
            self.with_client(now, id, |client, cx| client.stream_closed(cx));
        } else {
            self.with_servers(now, |server, cx| server.stream_closed(cx, stream));
        }
    }

    /// Packets of the peer came over the path that a stream was moved to last.
    pub fn path_confirmed(&mut self, now: Now, stream: u32) {
        if let Some(&id) = self.client_of_stream.get(&stream) {
            self.with_client(now, id, |client, cx| client.handle_path_confirmed(cx));
        } else {
            self.with_servers(now, |server, cx| server.handle_path_confirmed(cx, stream));
        }
    }

    /// The relay has paired us: the connection can go through it.
    pub fn relay_paired(&mut self, now: Now, connection: ConnectionId, path: Path) {
        self.with_connection(
            now,
            connection,
            |client, cx| client.relay_paired(cx, path),
            |server, cx| server.relay_paired(cx, connection, path),
        );
    }

    /// The relay is not reached, or does not pair us.
    pub fn relay_failed(&mut self, now: Now, connection: ConnectionId) {
        self.with_connection(
            now,
            connection,
            |client, cx| client.relay_failed(cx),
            |server, cx| server.relay_failed(cx, connection),
        );
    }

    /// A packet for a stream that has no peer yet, or has it elsewhere.
    pub fn handle_stream_packet(&mut self, now: Now, stream: u32, socket: SocketId, from: SocketAddrV4) -> Verdict {
        let mut verdict = Verdict::Refuse;
        if from.port() == 0 || self.is_suspended {
            return verdict;
        }
        if let Some(&id) = self.client_of_stream.get(&stream) {
            self.with_client(now, id, |client, cx| verdict = client.handle_stream_packet(cx, socket, from));
        } else {
            self.with_servers(now, |server, cx| {
                verdict = server.handle_stream_packet(cx, stream, socket, from).unwrap_or(verdict);
            });
        }
        verdict
    }

    // ---- Servers

    /// Let others connect to the owner of this key pair, and announce it. A key pair that listens already is the same server.
    pub fn listen(&mut self, now: Now, identity: Identity, options: ServerOptions) -> ServerId {
        let target = messages::target_of(&identity.public_key());
        if let Some((&id, _)) =
            self.servers.iter().find(|(_, listening)| !listening.is_closed && listening.server.target() == target)
        {
            return id;
        }
        let id = ServerId(self.next_server);
        self.next_server += 1;
        self.shared.router.listen(target, id);
        let mut announcer = Announcer::start(&mut self.shared.context(now), id, identity.clone());
        if self.is_suspended {
            announcer.suspend(&mut self.shared.context(now));
        }
        let server = Server::new(id, identity, options);
        self.servers.insert(id, Listening { server, announcer, is_closed: false });
        self.drain(now);
        id
    }

    /// Stop to listen. Connections stay.
    pub fn close_server(&mut self, now: Now, id: ServerId) {
        let mut cx = self.shared.context(now);
        if let Some(listening) = self.servers.get_mut(&id) {
            cx.router.close(id);
            listening.server.close(&mut cx);
            listening.announcer.stop(&mut cx);
            listening.is_closed = true;
        }
        self.drain(now);
    }

    /// Where peers should ask for a server of ours: its relays, three at most. Empty until it is announced.
    pub fn relay_addresses(&self, id: ServerId) -> Vec<SocketAddrV4> {
        self.servers.get(&id).map(|listening| listening.announcer.relay_addresses().to_vec()).unwrap_or_default()
    }

    /// Ids of streams that have no peer yet, for connections that others ask for.
    pub fn offer_stream_ids(&mut self, ids: Vec<u32>) {
        for id in ids {
            if self.shared.stream_ids.len() < STREAM_IDS_MAX {
                self.shared.stream_ids.push_back(id);
            } else {
                self.events.push_back(DhtEvent::UnusedStream(id));
            }
        }
    }

    /// How many of them are left.
    pub fn stream_ids_len(&self) -> usize {
        self.shared.stream_ids.len()
    }

    /// Who may connect to us, by key: the function is asked after a peer proved its key, before anything is answered.
    pub fn set_firewall(&mut self, is_allowed: Box<dyn Fn(&[u8; 32]) -> bool + Send>) {
        self.shared.firewall = is_allowed;
    }

    // ---- Operations

    /// Who has this key? [`DhtEvent::Peers`] as nodes answer, then [`DhtEvent::Done`].
    pub fn find_peer(&mut self, now: Now, public_key: [u8; 32]) -> OperationId {
        self.start(now, messages::target_of(&public_key), Wish::FindPeer)
    }

    /// Who announced this topic?
    pub fn lookup(&mut self, now: Now, topic: [u8; 32]) -> OperationId {
        self.start(now, topic, Wish::Lookup)
    }

    /// Announce a topic for an identity that is reached through these relays; who else did is told too.
    pub fn announce(
        &mut self,
        now: Now,
        topic: [u8; 32],
        identity: &Identity,
        relays: Vec<SocketAddrV4>,
    ) -> OperationId {
        let is_first = self.announced.insert(messages::target_of(&[topic, identity.public_key()].concat()), ());
        if is_first {
            self.storage.unannounce_own(&topic, &identity.public_key());
        }
        self.start(now, topic, Wish::Announce { identity: identity.clone(), relays, is_first })
    }

    /// Take announcements of a topic back.
    pub fn unannounce(&mut self, now: Now, topic: [u8; 32], identity: &Identity) -> OperationId {
        self.storage.unannounce_own(&topic, &identity.public_key());
        self.start(now, topic, Wish::Unannounce { identity: identity.clone() })
    }

    /// Keep a value under the identity's key. A value with a higher number replaces it. None if the value is empty or longer than
    /// [`messages::VALUE_BYTES_MAX`].
    pub fn mutable_put(&mut self, now: Now, identity: &Identity, seq: u64, value: Vec<u8>) -> Option<OperationId> {
        if value.is_empty() || value.len() > messages::VALUE_BYTES_MAX || seq > compact_max() {
            return None;
        }
        let public_key = identity.public_key();
        let value = MutableValue::sign(identity, seq, value);
        Some(self.start(now, messages::target_of(&public_key), Wish::MutablePut { public_key, value }))
    }

    /// The latest value that a key's owner signed, with this number or a higher one.
    pub fn mutable_get(&mut self, now: Now, public_key: [u8; 32], seq_min: u64) -> OperationId {
        let seq_min = seq_min.min(compact_max());
        self.start(now, messages::target_of(&public_key), Wish::MutableGet { public_key, seq_min })
    }

    /// Keep a value under its hash. None if the value is empty or longer than [`messages::VALUE_BYTES_MAX`].
    pub fn immutable_put(&mut self, now: Now, value: Vec<u8>) -> Option<OperationId> {
        let is_fit = !value.is_empty() && value.len() <= messages::VALUE_BYTES_MAX;
        is_fit.then(|| self.start(now, messages::target_of(&value), Wish::ImmutablePut { value }))
    }

    /// The value that has this hash.
    pub fn immutable_get(&mut self, now: Now, hash: [u8; 32]) -> OperationId {
        self.start(now, hash, Wish::ImmutableGet)
    }

    /// Forget an operation; nothing is told of it any more.
    pub fn cancel(&mut self, id: OperationId) {
        // Cancelling sends nothing: no time is needed.
        if let Some(mut operation) = self.operations.remove(&id) {
            operation.cancel(&mut self.shared.context(Now::ZERO));
        }
    }

    fn start(&mut self, now: Now, target: [u8; 32], wish: Wish) -> OperationId {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        let nodes = self.closest.get(&target).cloned().unwrap_or_default();
        let operation = Operation::start(&mut self.shared.context(now), id, target, wish, nodes);
        self.operations.insert(id, operation);
        self.drain(now);
        id
    }

    // ---- The node

    /// What of us can be told on the network: our address, if it can be reached.
    pub fn remote_address(&self) -> Option<SocketAddrV4> {
        self.shared.rpc.remote_address()
    }

    /// The host that others see us at, and the port if all see the same.
    pub fn public_address(&self) -> Option<(Ipv4Addr, Option<u16>)> {
        self.shared.rpc.public_address()
    }

    /// The kind of NAT that we are behind: `open`, `consistent`, `random`, or `unknown`.
    pub fn nat_kind(&self) -> &'static str {
        match self.shared.rpc.public_address() {
            None => "unknown",
            Some((_, None)) => "random",
            Some(_) if self.shared.rpc.is_firewalled() => "consistent",
            Some(_) => "open",
        }
    }

    /// Whether this node has an id, is in the tables of others, and keeps what they announce.
    pub fn is_persistent(&self) -> bool {
        self.shared.rpc.id().is_some()
    }

    /// Whether the table was filled from the bootstrap nodes.
    pub fn is_ready(&self) -> bool {
        self.shared.rpc.is_ready()
    }

    /// Whether somebody answers.
    pub fn is_online(&self) -> bool {
        self.shared.rpc.is_online()
    }

    /// How many nodes the table has.
    pub fn nodes_len(&self) -> usize {
        self.shared.rpc.nodes_len()
    }

    /// Nodes of the table, the one heard of last first: to begin with next time.
    pub fn recent_nodes(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.shared.rpc.recent_nodes()
    }

    /// Whether a peer announced itself here whose key has this hash: then this node forwards to it.
    pub fn has_route(&mut self, now: Now, target: &[u8; 32]) -> bool {
        self.storage.route(now, target).is_some()
    }

    /// What it did so far.
    pub fn stats(&self) -> DhtStats {
        DhtStats {
            rpc: self.shared.rpc.stats(),
            punches: self.shared.punching.stats,
            relayed: self.shared.router.counts(),
            records: self.storage.records_len(),
            stored_bytes: self.storage.weight(),
        }
    }

    /// The server socket's addresses in the local networks are these now.
    pub fn set_local_addresses(&mut self, addresses: Vec<SocketAddrV4>) {
        self.shared.local_addresses = addresses;
    }

    /// This machine's addresses changed: find out anew where we are.
    pub fn network_changed(&mut self, now: Now) {
        self.shared.rpc.network_changed(now);
        self.refresh_announcers(now);
        self.drain(now);
    }

    /// Stop: connects fail, operations end without a word, servers are unannounced, and unannouncements under way go on; within two seconds nothing is sent any
    /// more.
    pub fn suspend(&mut self, now: Now) {
        if self.is_suspended {
            return;
        }
        self.is_suspended = true;
        self.suspends_at = Some(now + SUSPEND_WAIT);
        let mut cx = self.shared.context(now);
        for client in self.clients.values_mut() {
            client.abort(&mut cx);
        }
        self.operations.retain(|_, operation| {
            if !operation.is_farewell() {
                operation.cancel(&mut cx);
            }
            operation.is_farewell()
        });
        for listening in self.servers.values_mut() {
            listening.server.suspend(&mut cx);
            listening.announcer.suspend(&mut cx);
        }
        self.drain(now);
        self.suspend_if_quiet(now);
    }

    /// Go on after [`suspend`](Dht::suspend).
    pub fn resume(&mut self, now: Now) {
        if !self.is_suspended {
            return;
        }
        self.is_suspended = false;
        if self.suspends_at.take().is_none() {
            self.shared.rpc.resume(now);
        }
        let mut cx = self.shared.context(now);
        for listening in self.servers.values_mut() {
            listening.announcer.resume(&mut cx);
        }
        self.drain(now);
    }

    /// Whether nothing is said any more: it was suspended, and what was announced is taken back as far as nodes answered in time.
    pub fn is_quiet(&self) -> bool {
        self.is_suspended && self.suspends_at.is_none()
    }

    fn suspend_if_quiet(&mut self, now: Now) {
        let Some(at) = self.suspends_at else { return };
        let is_all_said =
            self.operations.is_empty() && self.servers.values().all(|listening| listening.announcer.is_quiet());
        if at <= now || is_all_said {
            self.suspends_at = None;
            self.shared.rpc.suspend(now);
            self.drain(now);
        }
    }

    // ---- In and out

    /// A datagram came that belongs to no stream.
    pub fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        if datagram.len() == 1 {
            self.handle_punch_packet(now, socket, from);
        } else if !datagram.is_empty() {
            self.shared.rpc.handle_datagram(now, socket, from, datagram);
        }
        self.drain(now);
        self.suspend_if_quiet(now);
    }

    fn handle_punch_packet(&mut self, now: Now, socket: SocketId, from: SocketAddrV4) {
        if self.shared.punching.puncher_of(socket).is_none() || from.port() == 0 {
            return;
        }
        let mut cx = self.shared.context(now);
        let _ = self.clients.values_mut().any(|client| client.handle_punch_packet(&mut cx, socket, from))
            || self.servers.values_mut().any(|listening| listening.server.handle_punch_packet(&mut cx, socket, from));
    }

    /// The next datagram to send. Sockets that [`poll_event`](Dht::poll_event) tells of are opened before.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if self.shared.punching.sockets.has_changes() {
            return None;
        }
        self.shared.rpc.poll_transmit(now).or_else(|| self.shared.punching.poll_transmit())
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<DhtEvent> {
        // Sockets first: what else is told may be about to use them.
        self.shared.punching.poll_socket_change().map(DhtEvent::Socket).or_else(|| self.events.pop_front())
    }

    /// When [`handle_timeout`](Dht::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Now> {
        let clients = self.clients.values().filter_map(Client::poll_timeout);
        let servers = self.servers.values().filter_map(|listening| listening.server.poll_timeout());
        let announcers = self.servers.values().filter_map(|listening| listening.announcer.poll_timeout());
        let own = [self.shared.rpc.poll_timeout(), self.suspends_at];
        own.into_iter().flatten().chain(clients).chain(servers).chain(announcers).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.shared.rpc.handle_timeout(now);
        let is_due = |at: Option<Now>| at.is_some_and(|at| at <= now);
        let mut cx = self.shared.context(now);
        for client in self.clients.values_mut().filter(|client| is_due(client.poll_timeout())) {
            client.handle_timeout(&mut cx);
        }
        for listening in self.servers.values_mut() {
            if is_due(listening.server.poll_timeout()) {
                listening.server.handle_timeout(&mut cx);
            }
            listening.announcer.handle_timeout(&mut cx);
        }
        self.drain(now);
        self.suspend_if_quiet(now);
    }

    // ---- Inside

    /// Hand out all that [`Rpc`] has to tell, and do what the parts want done, until there is nothing left.
    fn drain(&mut self, now: Now) {
        loop {
            self.carry_out();
            let Some(event) = self.shared.rpc.poll_event() else { break };
            self.handle_rpc(now, event);
        }
        self.bury();
    }

    fn carry_out(&mut self) {
        for effect in self.shared.effects.drain(..) {
            match effect {
                Effect::Event(DhtEvent::Note(_)) if self.events.len() >= NOTES_MAX => {}
                Effect::Event(event) => self.events.push_back(event),
                Effect::RememberRelays { key, relays } => {
                    self.relays.insert(key, relays);
                }
            }
        }
    }

    /// Parts that ended are gone.
    fn bury(&mut self) {
        let streams = &mut self.client_of_stream;
        self.clients.retain(|_, client| {
            let is_alive = !client.is_done();
            if !is_alive {
                streams.remove(&client.stream());
            }
            is_alive
        });
        self.servers.retain(|_, listening| {
            !listening.is_closed || !listening.announcer.is_quiet() || !listening.server.is_done()
        });
        let events = &mut self.events;
        self.operations.retain(|&operation, under_way| match under_way.outcome() {
            None => true,
            Some(outcome) => {
                events.push_back(DhtEvent::Done { operation, outcome: outcome.clone() });
                false
            }
        });
    }

    fn handle_rpc(&mut self, now: Now, event: RpcEvent<Tag>) {
        match event {
            RpcEvent::Request(request) => self.handle_request(now, request),
            RpcEvent::Answered { tag, result } => self.handle_answer(now, tag, result),
            RpcEvent::QueryReply { query, reply } => self.handle_query_reply(now, query, &reply),
            RpcEvent::QueryEnded { query, closest } => self.handle_query_end(now, query, closest),
            RpcEvent::Ready => self.events.push_back(DhtEvent::Ready),
            RpcEvent::Persistent => self.note("this node keeps and forwards for others from now on"),
            RpcEvent::Ephemeral => self.note("this node does not keep or forward for others any longer"),
            RpcEvent::Offline => self.note("no node of the DHT answers"),
            RpcEvent::AddressChanged => {
                self.events.push_back(DhtEvent::AddressChanged);
                self.refresh_announcers(now);
            }
            RpcEvent::Woke | RpcEvent::Online => self.refresh_announcers(now),
        }
    }

    fn note(&mut self, text: &str) {
        self.events.push_back(DhtEvent::Note(Note { peer: None, text: text.to_owned() }));
    }

    fn refresh_announcers(&mut self, now: Now) {
        let mut cx = self.shared.context(now);
        for listening in self.servers.values_mut() {
            listening.announcer.refresh(&mut cx);
        }
    }

    fn handle_request(&mut self, now: Now, request: Incoming) {
        if matches!(request.command, command::PEER_HANDSHAKE | command::PEER_HOLEPUNCH) {
            return self.handle_routed(now, request);
        }
        let answer = match self.shared.rpc.id() {
            Some(id) if request.command <= command::PLUGIN => {
                self.storage.answer(now, &id, &request, &mut self.shared.random)
            }
            _ => Some(Answer::error(message::UNKNOWN_COMMAND)),
        };
        if let Some(answer) = answer {
            self.shared.rpc.answer(now, &request, answer);
        }
    }

    fn handle_routed(&mut self, now: Now, request: Incoming) {
        let Shared { rpc, router, .. } = &mut self.shared;
        match router.handle_request(now, rpc, &mut self.storage, &request) {
            _ if self.is_suspended => {}
            None => {}
            Some(ForServer::Handshake(id, handshake)) => self.with_server(now, id, |server, announced, cx| {
                server.handle_handshake(cx, announced, request, handshake);
            }),
            Some(ForServer::Holepunch(id, holepunch)) => self.with_server(now, id, |server, announced, cx| {
                server.handle_holepunch(cx, announced, request, holepunch);
            }),
        }
    }

    fn with_server(&mut self, now: Now, id: ServerId, call: impl FnOnce(&mut Server, &Announced, &mut Context<'_>)) {
        if let Some(listening) = self.servers.get_mut(&id) {
            call(&mut listening.server, listening.announcer.announced(), &mut self.shared.context(now));
        }
    }

    fn handle_answer(&mut self, now: Now, tag: Tag, result: Result<Reply, RequestError>) {
        let mut cx = self.shared.context(now);
        match tag {
            Tag::Operation(id, step) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    operation.handle_answer(&mut cx, step, result);
                }
            }
            Tag::Announcer(id, step) => {
                if let Some(listening) = self.servers.get_mut(&id) {
                    listening.announcer.handle_answer(&mut cx, step, result);
                }
            }
            Tag::Client(id, step) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.handle_answer(&mut cx, step, result);
                }
            }
            Tag::Server(id, step) => {
                if let Some(listening) = self.servers.get_mut(&id) {
                    listening.server.handle_answer(&mut cx, step, result);
                }
            }
            Tag::Puncher(PuncherId::Client(id), step) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.handle_punch_answer(&mut cx, step, result);
                }
            }
            Tag::Puncher(PuncherId::Server(id, connection), step) => {
                if let Some(listening) = self.servers.get_mut(&id) {
                    listening.server.handle_punch_answer(&mut cx, connection, step, result);
                }
            }
        }
    }

    fn handle_query_reply(&mut self, now: Now, query: QueryId, reply: &Reply) {
        let asker = self.shared.queries.get(&query).copied();
        let mut cx = self.shared.context(now);
        match asker {
            Some(Asker::Operation(id)) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    operation.handle_query_reply(&mut cx, reply);
                }
            }
            Some(Asker::Client(id)) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.handle_query_reply(&mut cx, query, reply);
                }
            }
            Some(Asker::Announcer(_)) | None => {}
        }
    }

    fn handle_query_end(&mut self, now: Now, query: QueryId, closest: Vec<Reply>) {
        let asker = self.shared.queries.remove(&query);
        let mut cx = self.shared.context(now);
        match asker {
            Some(Asker::Operation(id)) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    self.closest.insert(operation.target(), closest.iter().map(|reply| reply.from).collect());
                    operation.handle_query_end(&mut cx, closest);
                }
            }
            Some(Asker::Client(id)) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.handle_query_end(&mut cx, query, closest);
                }
            }
            Some(Asker::Announcer(id)) => {
                if let Some(listening) =
                    self.servers.get_mut(&id).filter(|listening| listening.announcer.is_walking(query))
                {
                    listening.announcer.handle_query_end(&mut cx, closest);
                }
            }
            None => {}
        }
    }

    fn with_client(&mut self, now: Now, id: ConnectionId, call: impl FnOnce(&mut Client, &mut Context<'_>)) {
        if let Some(client) = self.clients.get_mut(&id) {
            call(client, &mut self.shared.context(now));
        }
        self.drain(now);
    }

    fn with_servers(&mut self, now: Now, mut call: impl FnMut(&mut Server, &mut Context<'_>)) {
        let mut cx = self.shared.context(now);
        for listening in self.servers.values_mut() {
            call(&mut listening.server, &mut cx);
        }
        self.drain(now);
    }

    fn with_connection(
        &mut self,
        now: Now,
        id: ConnectionId,
        of_client: impl FnOnce(&mut Client, &mut Context<'_>),
        of_server: impl FnOnce(&mut Server, &mut Context<'_>),
    ) {
        if self.clients.contains_key(&id) {
            return self.with_client(now, id, of_client);
        }
        if let Some(listening) = self.servers.values_mut().find(|listening| listening.server.has_connection(id)) {
            of_server(&mut listening.server, &mut self.shared.context(now));
        }
        self.drain(now);
    }
}

/// The largest sequence number that all peers can read.
fn compact_max() -> u64 {
    pgbee_engine::encoding::compact::SAFE_INTEGER_MAX
}

/// A few nodes of somebody's tests came into the public network by accident; JavaScript's nodes leave them out too (hyperdht `index.js`, `filterNode`).
fn is_no_stray(node: SocketAddrV4) -> bool {
    let strays = [
        ([134, 209, 28, 98], Some(49738)),
        ([167, 99, 142, 185], Some(49738)),
        ([35, 233, 47, 252], Some(9400)),
        ([150, 136, 142, 116], None),
    ];
    !strays.iter().any(|(host, port)| node.ip().octets() == *host && port.is_none_or(|port| port == node.port()))
}

/// Something about so many keys at most: who was told of last stays.
struct Remembered<V> {
    most: usize,
    values: HashMap<[u8; 32], (u64, V)>,
    order: BTreeMap<u64, [u8; 32]>,
    next: u64,
}

impl<V> Remembered<V> {
    fn new(most: usize) -> Remembered<V> {
        Remembered { most, values: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }

    fn get(&self, key: &[u8; 32]) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    /// Whether there was nothing about it.
    fn insert(&mut self, key: [u8; 32], value: V) -> bool {
        self.next += 1;
        let before = self.values.insert(key, (self.next, value));
        if let Some((at, _)) = &before {
            self.order.remove(at);
        }
        self.order.insert(self.next, key);
        if self.order.len() > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
        before.is_none()
    }
}
