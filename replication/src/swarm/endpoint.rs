//! Streams, DHT, swarm and relays as one machine: [`Endpoint`].
//!
//! ```text
//!   datagram --> Mux --- stream of ours, connected ---> StreamEvent --------------------------------> owner
//!                 |----- not connected, or by another way ---> Dht::handle_stream_packet --> connect or move, then again
//!                 '----- none of ours ---> Dht --+--> Open --> Swarm::judge --> Connected -----------> owner
//!                                                +--> Peers, Done --> Swarm (of a topic) or owner (of a record)
//!                                                +--> NeedsRelay --> Relaying --> a stream to the relay --> Dht::relay_paired
//!   Swarm --> Action --> Dht::{connect, lookup, announce, listen}
//! ```
//!
//! A peer that connects while there is a connection to it is a contender until its first packet shows that it is there: a stray handshake ends nothing. A
//! contender is sent empty messages meanwhile, for a client that is open to everyone waits for our first packet.
//!
//! What must stay true: every [`EndpointEvent::Connected`] names the key that proved itself in the handshake whose session it carries; a stream is said to be
//! connected once, before anything else of it, and closed once; notes, like everything that strangers can make grow, are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::discovery::{Ended, Task};
use super::peers::Key;
use super::relaying::{Relaying, Wish};
use super::{Action, Judgement, Role, Swarm, SwarmOptions};
use crate::dht::{
    ConnectError, ConnectOptions, ConnectionId, Dht, DhtEvent, DhtOptions, Note, Opened, OperationId, Outcome,
    ServerId, ServerOptions, Verdict, Via,
};
use crate::secret_stream::Identity;
use crate::secret_stream::handshake::Session;
use crate::transport::udp::Machine;
use crate::udp::{Now, Random, SocketChange, SocketId, Transmit};
use crate::udx::{self, Handled, Mux, Path, StreamEvent};

/// Notes kept for [`SwarmStatus`].
const NOTES_MAX: usize = 64;
/// The same is not noted about the same peer again for so long.
const NOTE_PAUSE: Duration = Duration::from_secs(60);
/// Notes in a second, beyond which they are dropped.
const NOTES_PER_SECOND: u32 = 20;
/// Stream ids in stock for those who connect to us.
const STREAMS_IN_STOCK: usize = 8;
/// How often a contender is sent an empty message, and how often at most.
const KNOCK: (Duration, u32) = (Duration::from_millis(500), 20);
/// Peers remembered that are not where they said in our network; forgotten with the next network.
const STRANGERS_MAX: usize = 1024;
/// Topics that are taken back when it is suspended: as many as can be in two seconds.
const FAREWELLS_MAX: usize = 512;
/// How often it is looked whether our server has its relays, at first, and in the end.
const LISTEN_POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What an endpoint is made of.
pub struct EndpointOptions {
    /// The DHT.
    pub dht: DhtOptions,
    /// Who we are to all peers.
    pub identity: Identity,
    /// Limits.
    pub swarm: SwarmOptions,
    /// Streams.
    pub udx: udx::Config,
    /// A blind relay for peers that cannot be reached directly; peers that trust it with nothing but their packets.
    pub relay_through: Option<Key>,
    /// Be a blind relay: whoever connects to our key may have packets forwarded. Such an endpoint has no other connections from outside.
    pub is_relay: bool,
}

/// What an endpoint tells its owner.
pub enum EndpointEvent {
    /// A peer is connected: start the secret stream.
    Connected {
        /// Its stream.
        stream: u32,
        /// Keys from the handshake.
        session: Session,
        /// Whether we asked for it.
        is_initiator: bool,
        /// Who the other side has proved to be.
        remote_key: Key,
        /// Where its packets go (the relay's address, if there is one).
        remote: SocketAddrV4,
        /// How it came to be.
        via: Via,
        /// Topics of ours that it was found by; none if it found us.
        topics: Vec<[u8; 32]>,
    },
    /// Something happened to a stream.
    Stream(u32, StreamEvent),
    /// A socket is to be opened or closed.
    Socket(SocketChange),
    /// [`DhtEvent::Peers`] or [`DhtEvent::Done`] of an operation that the owner started by [`Endpoint::dht`].
    Operation(DhtEvent),
    /// The first nodes of the DHT are known.
    Ready,
    /// What [`Endpoint::flush`] asked for has happened.
    Flushed(u64),
    /// Something a person may want to know.
    Note(Note),
}

/// One line of [`SwarmStatus::notes`].
#[derive(Clone, Debug)]
pub struct NoteAt {
    /// When.
    pub at: Now,
    /// What.
    pub note: Note,
}

/// A topic, as [`SwarmStatus`] shows it.
#[derive(Clone, Debug)]
pub struct TopicStatus {
    /// Its name.
    pub topic: [u8; 32],
    /// What we are there.
    pub role: Role,
    /// Nodes were told that we are there.
    pub is_announced: bool,
    /// Peers that the last lookup found (a peer counts once for each node that knows it).
    pub found: usize,
    /// Peers that were found by it and are not forgotten, connected or not.
    pub peers: usize,
    /// When it ended.
    pub looked_up_at: Option<Now>,
    /// Nodes answered then.
    pub was_answered: bool,
    /// Peers of it that we are connected to.
    pub connected: usize,
    /// Peers of it that we are connecting to.
    pub connecting: usize,
    /// The last note on one of its peers.
    pub note: Option<Note>,
}

/// A connection, as [`SwarmStatus`] shows it.
#[derive(Clone, Debug)]
pub struct ConnectionStatus {
    /// Whose.
    pub key: Key,
    /// Its stream.
    pub stream: u32,
    /// Where its packets go now.
    pub remote: SocketAddrV4,
    /// How it came to be; [`Via::Punched`] once it left its relay.
    pub via: Via,
    /// Whether we asked for it.
    pub is_initiator: bool,
    /// Since when.
    pub since: Now,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connects of ours begun.
    pub connects: u64,
    /// Of these, those that opened.
    pub connected: u64,
    /// Of these, those that did not.
    pub failed: u64,
    /// Connections that peers opened to us.
    pub accepted: u64,
    /// Connections that ended for another one to the same peer.
    pub duplicates: u64,
    /// Connections through a relay.
    pub relayed: u64,
    /// Of these, those that later found a direct way.
    pub moved: u64,
    /// Hole punches begun.
    pub punches_tried: u64,
    /// Connections that opened, or moved, through one.
    pub punches_won: u64,
}

/// What a person wants to know of an endpoint.
#[derive(Clone, Debug)]
pub struct SwarmStatus {
    /// Our key.
    pub key: Key,
    /// Topics joined.
    pub topics: Vec<TopicStatus>,
    /// Nodes of the DHT that we know.
    pub nodes: usize,
    /// Whether others can reach us, in a word: `open`, `consistent`, `random` or `unknown`.
    pub nat: &'static str,
    /// Our address as others see it; port 0 if each of them sees another one.
    pub public_address: Option<SocketAddrV4>,
    /// We serve other nodes of the DHT.
    pub is_persistent: bool,
    /// Open connections.
    pub connections: Vec<ConnectionStatus>,
    /// Connects on their way.
    pub connecting: usize,
    /// Peers known, connected or not.
    pub peers: usize,
    /// Relays that we are connected to, and pairs of peers that we relay for.
    pub relays: (usize, usize),
    /// Numbers since the beginning.
    pub totals: Totals,
    /// The latest notes, oldest first.
    pub notes: Vec<NoteAt>,
}

/// Why a connect was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Peer,
    Relay,
}

struct Connect {
    key: Key,
    stream: u32,
    purpose: Purpose,
}

enum Use {
    /// One of the swarm's.
    Peer,
    /// Another stream of the peer carries the connection; this one takes its place with its first packet.
    Contender { opened: Box<Opened>, knock_at: Now, knocks: u32 },
    /// To a relay, or from who uses us as one.
    Relaying,
    /// Closing; nobody was told of it.
    Unwanted,
}

struct Live {
    key: Key,
    via: Via,
    is_initiator: bool,
    since: Now,
    /// A packet of it came.
    is_heard: bool,
    is_for: Use,
}

/// What the firewall of our server looks at; changed after each step.
#[derive(Default)]
struct Gate {
    banned: BTreeSet<Key>,
    connected: BTreeSet<Key>,
    is_full: bool,
    is_closed: bool,
}

/// Streams, DHT, swarm and relays as one machine. See the module.
pub struct Endpoint {
    now: Now,
    options: Options,
    mux: Mux,
    dht: Dht,
    swarm: Swarm,
    relaying: Relaying,
    server: Option<ServerId>,
    listen_poll_at: Option<Now>,
    listens_since: Now,
    connects: BTreeMap<ConnectionId, Connect>,
    /// Ours on their way, by whom they go to.
    connects_by_key: BTreeMap<Key, ConnectionId>,
    streams: BTreeMap<u32, Live>,
    /// The swarm's, one a peer.
    by_key: BTreeMap<Key, u32>,
    contenders: BTreeMap<Key, u32>,
    /// Peers at whose address in our network somebody else was.
    strangers_in_lan: BTreeSet<Key>,
    operations: BTreeMap<OperationId, [u8; 32]>,
    /// Unannouncements of who is suspended.
    farewells: BTreeSet<OperationId>,
    by_topic: BTreeMap<[u8; 32], (OperationId, usize)>,
    gate: Arc<Mutex<Gate>>,
    events: VecDeque<EndpointEvent>,
    /// Sockets to close once all is sent.
    closing: Vec<SocketChange>,
    notes: VecDeque<NoteAt>,
    notes_lately: (Now, u32),
    totals: Totals,
}

struct Options {
    identity: Identity,
    relay_through: Option<Key>,
    is_relay: bool,
}

impl Endpoint {
    /// An endpoint that joined nothing yet. It begins to look for nodes of the DHT at once.
    pub fn new(now: Now, options: EndpointOptions, seed: [u8; 32]) -> Endpoint {
        let mut random = Random::new(seed);
        let key = options.identity.public_key();
        let gate = Arc::new(Mutex::new(Gate::default()));
        let mut dht = Dht::new(now, options.dht, random.fork());
        let seen = gate.clone();
        dht.set_firewall(Box::new(move |peer: &Key| {
            let gate = seen.lock();
            *peer != key
                && !gate.is_closed
                && !gate.banned.contains(peer)
                && (!gate.is_full || gate.connected.contains(peer))
        }));
        let mut endpoint = Endpoint {
            now,
            mux: Mux::new(options.udx, random.fork()),
            dht,
            swarm: Swarm::new(key, options.swarm, random.fork()),
            relaying: Relaying::new(random.fork(), &options.identity),
            server: None,
            listen_poll_at: None,
            listens_since: now,
            connects: BTreeMap::new(),
            connects_by_key: BTreeMap::new(),
            streams: BTreeMap::new(),
            by_key: BTreeMap::new(),
            contenders: BTreeMap::new(),
            strangers_in_lan: BTreeSet::new(),
            operations: BTreeMap::new(),
            farewells: BTreeSet::new(),
            by_topic: BTreeMap::new(),
            gate,
            events: VecDeque::new(),
            closing: Vec::new(),
            notes: VecDeque::new(),
            notes_lately: (now, 0),
            totals: Totals::default(),
            options: Options {
                identity: options.identity,
                relay_through: options.relay_through,
                is_relay: options.is_relay,
            },
        };
        if endpoint.options.is_relay {
            endpoint.listen(now);
        }
        endpoint.pump(now);
        endpoint
    }

    /// Our key.
    pub fn public_key(&self) -> Key {
        self.options.identity.public_key()
    }

    /// Joins a topic. False if too many are joined, or in no role.
    pub fn join(&mut self, now: Now, topic: [u8; 32], role: Role) -> bool {
        let is_joined = self.swarm.join(now, topic, role);
        self.pump(now);
        is_joined
    }

    /// Leaves a topic: nodes forget that we are there. Connections stay.
    pub fn leave(&mut self, now: Now, topic: [u8; 32]) {
        self.swarm.leave(now, &topic);
        self.pump(now);
    }

    /// Asks for [`EndpointEvent::Flushed`] once every topic was looked up and all peers found were tried.
    pub fn flush(&mut self, now: Now) -> u64 {
        let flush = self.swarm.flush(now);
        self.pump(now);
        flush
    }

    /// Refuses a peer from now on, and ends its connection; or lets it in again.
    pub fn ban(&mut self, now: Now, key: Key, is_banned: bool) {
        {
            let mut gate = self.gate.lock();
            if is_banned {
                gate.banned.insert(key)
            } else {
                gate.banned.remove(&key)
            };
        }
        self.swarm.ban(now, key, is_banned);
        self.pump(now);
    }

    /// Stays connected to a peer by its key, topic or not.
    pub fn connect_peer(&mut self, now: Now, key: Key) {
        self.swarm.join_peer(now, key);
        self.pump(now);
    }

    /// Ends a connection at once.
    pub fn disconnect(&mut self, now: Now, stream: u32) {
        if let Some(stream) = self.mux.stream(stream) {
            stream.destroy();
        }
        self.pump(now);
    }

    /// Leaves everyone until [`Endpoint::resume`], as before a laptop sleeps: what was announced is taken back, so that nobody looks for us in vain for the
    /// twenty minutes that nodes would remember it. No datagram leaves any more once the streams are closed and nodes have answered, or did not in two seconds.
    pub fn suspend(&mut self, now: Now) {
        if self.swarm.is_suspended() {
            return;
        }
        self.swarm.suspend();
        self.update_gate();
        self.pump(now);
        for topic in self.swarm.announced().take(FAREWELLS_MAX).collect::<Vec<_>>() {
            self.farewells.insert(self.dht.unannounce(now, topic, &self.options.identity));
        }
        if let Some(server) = self.server.take() {
            self.dht.close_server(now, server);
        }
        self.listen_poll_at = None;
        self.relaying.close_all(&mut self.mux);
        self.abort_relay_connects(now);
        self.pump(now);
        self.dht.suspend(now);
        self.pump(now);
    }

    /// Nobody is told of connects that are given up: what waits for relays that are on their way is told here.
    fn abort_relay_connects(&mut self, now: Now) {
        let is_relay = |connect: &Connect| connect.purpose == Purpose::Relay;
        let ids: Vec<_> = self.connects.iter().filter(|(_, connect)| is_relay(connect)).map(|(id, _)| *id).collect();
        for id in ids {
            self.dht.abort(now, id);
            if let Some(connect) = self.connects.remove(&id) {
                self.mux.remove(connect.stream);
                self.relaying.failed(&connect.key);
            }
        }
    }

    /// Whether it is suspended and has nothing more to say.
    pub fn is_quiet(&self) -> bool {
        self.dht.is_quiet()
    }

    /// Begins anew.
    pub fn resume(&mut self, now: Now) {
        for farewell in std::mem::take(&mut self.farewells) {
            self.dht.cancel(farewell);
        }
        self.dht.resume(now);
        self.swarm.resume(now);
        self.update_gate();
        if self.options.is_relay {
            self.listen(now);
        }
        self.pump(now);
    }

    /// This computer's addresses are others now.
    pub fn network_changed(&mut self, now: Now, local_addresses: &[SocketAddrV4]) {
        self.dht.set_local_addresses(local_addresses.to_vec());
        self.strangers_in_lan.clear();
        self.dht.network_changed(now);
        self.swarm.network_changed(now);
        self.pump(now);
    }

    /// All streams.
    pub fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// The DHT, for records and queries of the owner's own.
    pub fn dht(&mut self) -> &mut Dht {
        &mut self.dht
    }

    /// A datagram came in.
    pub fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        match self.mux.handle_datagram(now, socket, from, datagram) {
            Handled::Stream(_) => {}
            Handled::Unconnected(id) => {
                if self.is_let_in(now, id, socket, from) {
                    // A second refusal drops it.
                    self.mux.handle_datagram(now, socket, from, datagram);
                }
            }
            Handled::NotOurs => self.dht.handle_datagram(now, socket, from, datagram),
        }
        self.pump(now);
    }

    /// Connects or moves the stream of a packet that came by another way than its own, if it may.
    fn is_let_in(&mut self, now: Now, id: u32, socket: SocketId, from: SocketAddrV4) -> bool {
        if let Some(path) = self.relaying.leg_path(id, socket, from) {
            let is_new = self.mux.stream(id).is_some_and(|stream| stream.path().is_none());
            if is_new {
                self.mux.connect(now, id, path);
            }
            return is_new;
        }
        match self.dht.handle_stream_packet(now, id, socket, from) {
            Verdict::Connect(path) => self.mux.connect(now, id, stream_path(path)),
            Verdict::Move(path) => self.mux.change_path(now, id, stream_path(path)),
            Verdict::Refuse => return false,
        }
        true
    }

    /// The next datagrams to send.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.pump(now);
        let transmit = self.dht.poll_transmit(now).or_else(|| self.mux.poll_transmit(now));
        if transmit.is_none() {
            // The last words of a stream leave by the socket that was its own.
            self.events.extend(self.closing.drain(..).map(EndpointEvent::Socket));
        }
        transmit
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.pump(self.now);
        self.events.pop_front()
    }

    /// When [`Endpoint::handle_timeout`] has something to do.
    pub fn poll_timeout(&mut self) -> Option<Now> {
        let knocks = self.contenders.values().filter_map(|stream| match &self.streams.get(stream)?.is_for {
            Use::Contender { knock_at, .. } => Some(*knock_at),
            _ => None,
        });
        let others = [
            self.mux.poll_timeout(),
            self.dht.poll_timeout(),
            self.swarm.poll_timeout(),
            self.relaying.poll_timeout(),
            self.listen_poll_at,
        ];
        others.into_iter().flatten().chain(knocks).min()
    }

    /// Time came.
    pub fn handle_timeout(&mut self, now: Now) {
        let is_due = |at: Option<Now>| at.is_some_and(|at| at <= now);
        if is_due(self.mux.poll_timeout()) {
            self.mux.handle_timeout(now);
        }
        if is_due(self.dht.poll_timeout()) {
            self.dht.handle_timeout(now);
        }
        if is_due(self.swarm.poll_timeout()) {
            self.swarm.handle_timeout(now);
        }
        self.relaying.handle_timeout(now, &mut self.mux);
        if is_due(self.listen_poll_at) {
            self.look_for_relays(now);
        }
        self.knock(now);
        self.pump(now);
    }

    /// Where others see us; port 0 if each of them sees another one.
    fn public_address(&self) -> Option<SocketAddrV4> {
        let seen = self.dht.public_address().map(|(ip, port)| SocketAddrV4::new(ip, port.unwrap_or(0)));
        self.dht.remote_address().or(seen)
    }

    /// Numbers since the beginning.
    pub fn totals(&self) -> Totals {
        let punches = self.dht.stats().punches;
        Totals { punches_tried: punches.consistent + punches.random, ..self.totals }
    }

    /// What a person wants to know.
    pub fn status(&mut self) -> SwarmStatus {
        let mut connections = Vec::with_capacity(self.by_key.len());
        for (key, stream) in &self.by_key {
            let Some(live) = self.streams.get(stream) else { continue };
            let remote = self.mux.stream(*stream).and_then(|stream| stream.path()).map(|path| path.remote);
            let Some(remote) = remote else { continue };
            connections.push(ConnectionStatus {
                key: *key,
                stream: *stream,
                remote,
                via: live.via,
                is_initiator: live.is_initiator,
                since: live.since,
            });
        }
        connections.sort_by_key(|connection| (connection.since, connection.stream));
        let mut topics: Vec<TopicStatus> = self
            .swarm
            .topics()
            .filter(|(_, topic)| !topic.is_left())
            .map(|(name, topic)| self.topic_status(name, topic))
            .collect();
        topics.sort_by_key(|topic| topic.topic);
        SwarmStatus {
            key: self.public_key(),
            topics,
            nodes: self.dht.nodes_len(),
            nat: self.dht.nat_kind(),
            public_address: self.public_address(),
            is_persistent: self.dht.is_persistent(),
            connections,
            connecting: self.swarm.connecting(),
            peers: self.swarm.known().0,
            relays: self.relaying.counts(),
            totals: self.totals(),
            notes: self.notes.iter().cloned().collect(),
        }
    }

    fn topic_status(&self, name: &[u8; 32], topic: &super::discovery::Discovery) -> TopicStatus {
        let (found, looked_up_at) = topic.last();
        let is_on = |key: &Key| self.swarm.topics_of(key).contains(name);
        let connected = self.by_key.keys().filter(|key| is_on(key)).count();
        let connecting = self.connects_by_key.keys().filter(|key| is_on(key)).count();
        let note = self.notes.iter().rev().find(|line| line.note.peer.is_some_and(|key| is_on(&key)));
        TopicStatus {
            topic: *name,
            role: topic.role(),
            is_announced: topic.is_kept(),
            found,
            peers: self.swarm.peers_on(name),
            looked_up_at,
            was_answered: topic.was_answered(),
            connected,
            connecting,
            note: note.map(|line| line.note.clone()),
        }
    }

    /// Passes on what the parts have to say to each other until none has anything to say.
    fn pump(&mut self, now: Now) {
        self.now = self.now.max(now);
        loop {
            let mut is_idle = true;
            while let Some(event) = self.dht.poll_event() {
                is_idle = false;
                self.handle_dht(now, event);
            }
            while let Some(action) = self.swarm.poll_action() {
                is_idle = false;
                self.act(now, action);
            }
            while let Some(wish) = self.relaying.poll_wish() {
                is_idle = false;
                self.grant(now, wish);
            }
            while let Some((id, event)) = self.mux.poll_event() {
                is_idle = false;
                self.handle_stream(now, id, event);
            }
            if is_idle {
                break;
            }
        }
        let missing = STREAMS_IN_STOCK.saturating_sub(self.dht.stream_ids_len());
        if missing > 0 {
            let ids = (0..missing).map(|_| self.mux.open()).collect();
            self.dht.offer_stream_ids(ids);
        }
    }

    fn handle_dht(&mut self, now: Now, event: DhtEvent) {
        match event {
            DhtEvent::Open(opened) => self.opened(now, opened),
            DhtEvent::Moved { stream, path, .. } => self.moved(now, stream, stream_path(path)),
            DhtEvent::Failed { connection, stream, error } => self.failed(now, connection, stream, error),
            DhtEvent::NeedsRelay { connection, stream, relay, token, is_initiator } => {
                self.relaying.need(connection, stream, relay, token, is_initiator, &mut self.mux);
            }
            DhtEvent::RelayUnneeded { connection } => self.relaying.unneeded(now, connection, &mut self.mux),
            DhtEvent::Peers { operation, peers, from } => match self.operations.get(&operation) {
                Some(topic) => {
                    if let Some((_, answers)) = self.by_topic.get_mut(topic) {
                        *answers += 1;
                    }
                    self.swarm.found(*topic, &peers);
                }
                None => self.events.push_back(EndpointEvent::Operation(DhtEvent::Peers { operation, peers, from })),
            },
            DhtEvent::Done { operation, .. } if self.farewells.remove(&operation) => {}
            DhtEvent::Done { operation, outcome } => match self.operations.remove(&operation) {
                Some(topic) => {
                    let answers = self.by_topic.remove(&topic).map_or(0, |(_, answers)| answers);
                    let nodes = if let Outcome::Ended { nodes } = outcome { nodes } else { 0 };
                    self.swarm.query_ended(now, topic, Ended { answers: answers.max(nodes) });
                }
                None => self.events.push_back(EndpointEvent::Operation(DhtEvent::Done { operation, outcome })),
            },
            DhtEvent::Socket(change @ SocketChange::Open(_)) => self.events.push_back(EndpointEvent::Socket(change)),
            DhtEvent::Socket(change @ SocketChange::Close(_)) => self.closing.push(change),
            DhtEvent::UnusedStream(id) => self.mux.remove(id),
            DhtEvent::Ready => self.events.push_back(EndpointEvent::Ready),
            DhtEvent::AddressChanged => self.swarm.network_changed(now),
            DhtEvent::Note(note) => self.note(now, note),
        }
    }

    fn act(&mut self, now: Now, action: Action) {
        match action {
            Action::Connect { key, relay_addresses, needs_relay } => {
                self.totals.connects += 1;
                let is_relayed = needs_relay || self.dht.nat_kind() == "random";
                let relay_through = self.options.relay_through.filter(|_| is_relayed);
                self.connect(now, key, relay_addresses, relay_through, Purpose::Peer);
            }
            Action::Close { key } => self.close(now, &key),
            Action::Start { topic, task } => self.start(now, topic, task),
            Action::Cancel { topic } => {
                if let Some((operation, _)) = self.by_topic.remove(&topic) {
                    self.operations.remove(&operation);
                    self.dht.cancel(operation);
                    self.swarm.query_ended(now, topic, Ended::default());
                }
            }
            Action::Listen => self.listen(now),
            Action::Flushed(id) => self.events.push_back(EndpointEvent::Flushed(id)),
        }
    }

    fn connect(
        &mut self,
        now: Now,
        key: Key,
        relay_addresses: Vec<SocketAddrV4>,
        relay_through: Option<Key>,
        purpose: Purpose,
    ) -> ConnectionId {
        let stream = self.mux.open();
        let identity = self.options.identity.clone();
        let is_lan_allowed = !self.strangers_in_lan.contains(&key);
        let options = ConnectOptions { identity, relay_addresses, relay_through, is_lan_allowed };
        let connection = self.dht.connect(now, key, options, stream);
        self.connects.insert(connection, Connect { key, stream, purpose });
        if purpose == Purpose::Peer {
            self.connects_by_key.insert(key, connection);
        }
        connection
    }

    fn start(&mut self, now: Now, topic: [u8; 32], task: Task) {
        let identity = &self.options.identity;
        let operation = match task {
            Task::Lookup => self.dht.lookup(now, topic),
            Task::Announce { .. } => {
                let relays = self.server.map(|server| self.dht.relay_addresses(server)).unwrap_or_default();
                self.dht.announce(now, topic, identity, relays)
            }
            Task::Unannounce => self.dht.unannounce(now, topic, identity),
        };
        self.operations.insert(operation, topic);
        self.by_topic.insert(topic, (operation, 0));
    }

    fn listen(&mut self, now: Now) {
        if self.server.is_some() {
            return;
        }
        let relay_through = self.options.relay_through;
        let options = ServerOptions { relay_through, is_relay_for_random_only: true, ..ServerOptions::default() };
        self.server = Some(self.dht.listen(now, self.options.identity.clone(), options));
        self.listens_since = now;
        self.listen_poll_at = Some(now + LISTEN_POLL.0);
    }

    fn look_for_relays(&mut self, now: Now) {
        self.listen_poll_at = None;
        let Some(server) = self.server else { return };
        if !self.dht.relay_addresses(server).is_empty() {
            self.swarm.set_listening(now);
        } else if self.swarm.is_listening_awaited() {
            // Without any node it may take long.
            let pause = now.saturating_sub(self.listens_since) / 8;
            self.listen_poll_at = Some(now + pause.clamp(LISTEN_POLL.0, LISTEN_POLL.1));
        }
    }

    /// A handshake is done and a path known.
    fn opened(&mut self, now: Now, opened: Opened) {
        let connect = self.connects.remove(&opened.connection);
        let Some(stream) = self.mux.stream(opened.stream) else {
            self.dht.stream_closed(now, opened.stream);
            return;
        };
        let path = stream_path(opened.path);
        match stream.path() {
            None => self.mux.connect(now, opened.stream, path),
            Some(current) if current != path => self.mux.change_path(now, opened.stream, path),
            Some(_) => {}
        }
        let live = |is_for| Live {
            key: opened.remote_key,
            via: opened.via,
            is_initiator: opened.is_initiator,
            since: now,
            is_heard: false,
            is_for,
        };
        let (id, key) = (opened.stream, opened.remote_key);
        match connect {
            Some(Connect { purpose: Purpose::Relay, .. }) => {
                self.streams.insert(id, live(Use::Relaying));
                self.relaying.opened(now, &opened, &mut self.mux);
            }
            Some(Connect { key: asked, .. }) => {
                debug_assert_eq!(asked, key, "the DHT opens only what the key asked for has answered");
                self.connects_by_key.remove(&asked);
                if asked != key || self.by_key.contains_key(&key) {
                    self.streams.insert(id, live(Use::Unwanted));
                    self.destroy(id);
                    return;
                }
                self.streams.insert(id, live(Use::Peer));
                self.adopt(now, opened);
            }
            None if self.options.is_relay => {
                self.streams.insert(id, live(Use::Relaying));
                self.relaying.accepted(now, &opened, &mut self.mux);
            }
            None => {
                let old = self.by_key.get(&key).copied();
                let is_old_alive = old.is_some_and(|old| self.streams.get(&old).is_some_and(|live| live.is_heard));
                let is_calling = old.is_none() && self.connects_by_key.contains_key(&key);
                let judgement =
                    if old.is_none() && !is_calling { Judgement::Accept } else { self.swarm.judge(&key, is_old_alive) };
                match (judgement, old) {
                    (Judgement::Refuse, _) => {
                        self.totals.duplicates += 1;
                        self.streams.insert(id, live(Use::Unwanted));
                        self.destroy(id);
                    }
                    (Judgement::Replace, Some(_)) => {
                        let (via, is_initiator) = (opened.via, opened.is_initiator);
                        let is_for = Use::Contender { opened: Box::new(opened), knock_at: now, knocks: 0 };
                        self.streams.insert(id, Live { key, via, is_initiator, since: now, is_heard: false, is_for });
                        if let Some(earlier) = self.contenders.insert(key, id) {
                            self.drop_contender(earlier);
                        }
                        self.knock(now);
                    }
                    (Judgement::Replace | Judgement::Accept, _) => {
                        self.streams.insert(id, live(Use::Peer));
                        self.abort_connect(now, &key);
                        self.adopt(now, opened);
                    }
                }
            }
        }
    }

    /// A stream becomes the peer's one connection.
    fn adopt(&mut self, now: Now, opened: Opened) {
        let Opened { stream, path, session, is_initiator, remote_key, via, .. } = opened;
        self.by_key.insert(remote_key, stream);
        if is_initiator {
            self.totals.connected += 1;
            self.swarm.opened(now, &remote_key);
        } else {
            self.totals.accepted += 1;
            self.swarm.accepted(now, remote_key);
        }
        match via {
            Via::Relayed => self.totals.relayed += 1,
            Via::Punched => {
                self.totals.punches_won += 1;
            }
            Via::Direct | Via::Lan => {}
        }
        self.update_gate();
        let topics = self.swarm.topics_of(&remote_key);
        self.events.push_back(EndpointEvent::Connected {
            stream,
            session,
            is_initiator,
            remote_key,
            remote: path.remote,
            via,
            topics,
        });
    }

    fn moved(&mut self, now: Now, id: u32, path: Path) {
        let Some(stream) = self.mux.stream(id) else { return };
        if stream.path() != Some(path) {
            self.mux.change_path(now, id, path);
        }
        if let Some(live) = self.streams.get_mut(&id)
            && live.via == Via::Relayed
        {
            live.via = Via::Punched;
            self.totals.moved += 1;

            self.totals.punches_won += 1;
        }
    }

    fn failed(&mut self, now: Now, connection: ConnectionId, stream: u32, error: ConnectError) {
        self.mux.remove(stream);
        let Some(connect) = self.connects.remove(&connection) else { return };
        match connect.purpose {
            Purpose::Relay => {
                self.note(now, Note { peer: Some(connect.key), text: format!("relay not reached: {error}") });
                self.relaying.failed(&connect.key);
            }
            Purpose::Peer => {
                self.totals.failed += 1;
                let is_relay_needed = is_relay_needed(error);
                if self.connects_by_key.get(&connect.key) == Some(&connection) {
                    self.connects_by_key.remove(&connect.key);
                    self.swarm.closed(now, &connect.key, is_relay_needed && self.options.relay_through.is_some());
                    self.note(now, Note { peer: Some(connect.key), text: format!("not reached: {error}") });
                }
            }
        }
    }

    fn handle_stream(&mut self, now: Now, id: u32, event: StreamEvent) {
        if let StreamEvent::Closed(_) = event {
            return self.stream_closed(now, id, event);
        }
        let Some(live) = self.streams.get_mut(&id) else {
            self.relaying.leg_event(id, event, &mut self.mux);
            return;
        };
        live.is_heard |= !matches!(event, StreamEvent::Writable);
        if event == StreamEvent::PathConfirmed {
            self.dht.path_confirmed(now, id);
        }
        match live.is_for {
            Use::Contender { .. } if live.is_heard => {
                self.swap(now, id);
                self.events.push_back(EndpointEvent::Stream(id, event));
            }
            Use::Peer => self.events.push_back(EndpointEvent::Stream(id, event)),
            Use::Relaying => self.relaying.stream_event(now, id, event, &mut self.mux),
            Use::Contender { .. } | Use::Unwanted => {}
        }
    }

    fn stream_closed(&mut self, now: Now, id: u32, event: StreamEvent) {
        let Some(live) = self.streams.remove(&id) else {
            self.relaying.leg_event(id, event, &mut self.mux);
            return;
        };
        self.dht.stream_closed(now, id);
        if live.via == Via::Lan && live.is_initiator && !live.is_heard && self.strangers_in_lan.len() < STRANGERS_MAX {
            self.strangers_in_lan.insert(live.key);
        }
        match live.is_for {
            Use::Peer => {
                if self.by_key.get(&live.key) == Some(&id) {
                    self.by_key.remove(&live.key);
                    self.swarm.closed(now, &live.key, false);
                    self.update_gate();
                }
                // The owner may still read what came before, then removes it.
                self.events.push_back(EndpointEvent::Stream(id, event));
            }
            Use::Contender { .. } => {
                if self.contenders.get(&live.key) == Some(&id) {
                    self.contenders.remove(&live.key);
                }
                self.mux.remove(id);
            }
            Use::Relaying => {
                self.relaying.stream_closed(id, &mut self.mux);
                self.mux.remove(id);
            }
            Use::Unwanted => self.mux.remove(id),
        }
    }

    /// A contender proved to be there: the old stream goes.
    fn swap(&mut self, now: Now, id: u32) {
        let Some(live) = self.streams.get_mut(&id) else { return };
        let (key, is_for) = (live.key, std::mem::replace(&mut live.is_for, Use::Peer));
        self.contenders.remove(&key);
        let Use::Contender { opened, .. } = is_for else { return };
        self.abort_connect(now, &key);
        if let Some(old) = self.by_key.remove(&key) {
            self.totals.duplicates += 1;
            self.swarm.closed(now, &key, false);
            self.destroy(old);
        }
        self.adopt(now, *opened);
    }

    fn drop_contender(&mut self, id: u32) {
        if let Some(live) = self.streams.get_mut(&id) {
            live.is_for = Use::Unwanted;
        }
        self.destroy(id);
    }

    fn knock(&mut self, now: Now) {
        let mut given_up = Vec::new();
        for (key, id) in &self.contenders {
            let Some(Live { is_for: Use::Contender { knock_at, knocks, .. }, .. }) = self.streams.get_mut(id) else {
                continue;
            };
            if *knock_at > now {
                continue;
            }
            (*knock_at, *knocks) = (now + KNOCK.0, *knocks + 1);
            if *knocks > KNOCK.1 {
                given_up.push((*key, *id));
            } else if let Some(stream) = self.mux.stream(*id) {
                // JavaScript peers drop messages this short as well.
                stream.send_message(&[]);
            }
        }
        for (key, id) in given_up {
            self.contenders.remove(&key);
            self.drop_contender(id);
        }
    }

    /// The swarm has forgotten this connection.
    fn close(&mut self, now: Now, key: &Key) {
        self.abort_connect(now, key);
        if let Some(contender) = self.contenders.remove(key) {
            self.drop_contender(contender);
        }
        if let Some(id) = self.by_key.remove(key) {
            self.destroy(id);
        }
        self.update_gate();
    }

    fn abort_connect(&mut self, now: Now, key: &Key) {
        let Some(connection) = self.connects_by_key.remove(key) else { return };
        self.swarm.closed(now, key, false);
        self.dht.abort(now, connection);
        if let Some(connect) = self.connects.remove(&connection) {
            self.mux.remove(connect.stream);
        }
    }

    fn destroy(&mut self, id: u32) {
        if let Some(stream) = self.mux.stream(id) {
            stream.destroy();
        }
    }

    fn grant(&mut self, now: Now, wish: Wish) {
        match wish {
            Wish::Connect(key) => {
                self.connect(now, key, Vec::new(), None, Purpose::Relay);
            }
            Wish::Paired(connection, path) => self.dht.relay_paired(now, connection, dht_path(path)),
            Wish::Failed(connection) => self.dht.relay_failed(now, connection),
            Wish::Note(note) => self.note(now, note),
        }
    }

    fn update_gate(&mut self) {
        let mut gate = self.gate.lock();
        gate.is_full = self.by_key.len() >= self.swarm.options.incoming_max;
        gate.is_closed = self.swarm.is_suspended();
        gate.connected = if gate.is_full { self.by_key.keys().copied().collect() } else { BTreeSet::new() };
    }

    fn note(&mut self, now: Now, note: Note) {
        let is_said = |said: &NoteAt| said.note == note && now.saturating_sub(said.at) < NOTE_PAUSE;
        if self.notes.iter().any(is_said) {
            return;
        }
        let (since, count) = &mut self.notes_lately;
        if now.saturating_sub(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > NOTES_PER_SECOND {
            return;
        }
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(NoteAt { at: now, note: note.clone() });
        self.events.push_back(EndpointEvent::Note(note));
    }
}

impl Machine for Endpoint {
    type Event = EndpointEvent;

    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        self.handle_datagram(now, socket, from, datagram);
    }
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.poll_transmit(now)
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Now) {
        self.handle_timeout(now);
    }
    fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.poll_event()
    }
    fn mux(&mut self) -> &mut Mux {
        self.mux()
    }
    fn as_socket_change(event: &EndpointEvent) -> Option<SocketChange> {
        if let EndpointEvent::Socket(change) = event { Some(*change) } else { None }
    }
    fn as_stream_event(event: &EndpointEvent) -> Option<(u32, &StreamEvent)> {
        if let EndpointEvent::Stream(id, event) = event { Some((*id, event)) } else { None }
    }
    fn network_changed(&mut self, now: Now, addresses: &[SocketAddrV4]) {
        self.network_changed(now, addresses);
    }
    fn shutdown(&mut self, now: Now) {
        self.suspend(now);
    }
    fn is_shut_down(&self) -> bool {
        self.is_quiet()
    }
}

/// Errors that a relay helps against.
fn is_relay_needed(error: ConnectError) -> bool {
    matches!(
        error,
        ConnectError::CannotHolepunch
            | ConnectError::DoubleRandomNat
            | ConnectError::NatUnknown
            | ConnectError::RoundTimeout
            | ConnectError::RemoteAborted { .. }
            | ConnectError::RemoteNotPunching
            | ConnectError::RemoteNotPunchable
            | ConnectError::HolepunchTimeout
            | ConnectError::NoPacket
    )
}

fn stream_path(path: crate::dht::Path) -> Path {
    Path { socket: path.socket, remote: path.remote, remote_id: path.remote_id }
}

fn dht_path(path: Path) -> crate::dht::Path {
    crate::dht::Path { socket: path.socket, remote: path.remote, remote_id: path.remote_id }
}
