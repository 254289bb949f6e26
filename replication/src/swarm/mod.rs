//! Which peers to be connected to, by topic: [`Swarm`]; and everything below it as one machine, the [`endpoint`].
//!
//! ```text
//!   join, leave, ban ..        peers found, queries ended, connections opened and closed
//!            |                                       |
//!            v                                       v
//!         Swarm:  topics (discovery)  -- found -->  peers (queues, waits)  --> one connection a peer
//!                     |                                                              |
//!                     v                                                              v
//!              Action::{Start, Cancel, Listen}                        Action::{Connect, Abort, Close}
//! ```
//!
//! The swarm itself sends nothing: [`endpoint::Endpoint`] does what its [`Action`]s say, with the DHT and UDX. So all of its policy is tested without a network.
//!
//! What must stay true: at most one connection to a peer, whatever the number of topics, and both sides keep the same one ([`Swarm::judge`]); never more than
//! [`SwarmOptions::connects_max`] connects at a time; nothing is done while suspended.
//!
//! Source: hyperswarm index.js.

pub mod discovery;
pub mod endpoint;
pub mod peers;
pub mod relay;
pub mod relaying;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

pub use self::discovery::Role;
use self::discovery::{Discovery, Ended, Task};
pub use self::endpoint::{Endpoint, EndpointEvent, EndpointOptions};
use self::peers::{Key, Peers};
use crate::dht::PeerRecord;
use crate::udp::{Now, Random};

/// Topics joined at a time.
pub const TOPICS_MAX: usize = 10_000;
/// Queries on topics that run at a time; the others wait for their turn.
const QUERIES_MAX: usize = 8;
/// How long an announcement waits for our server to have its relays.
const LISTEN_WAIT: Duration = Duration::from_secs(5);
/// Peers taken from one node's answer.
const FOUND_MAX: usize = 64;

/// Limits of a swarm.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// Connections at which we stop to make more.
    pub connections_max: usize,
    /// Connections at which nobody is let in any more.
    pub incoming_max: usize,
    /// Connects at a time. JavaScript's 3 leave a host idle while three of its peers time out.
    pub connects_max: usize,
}

impl Default for SwarmOptions {
    fn default() -> SwarmOptions {
        SwarmOptions { connections_max: 64, incoming_max: 256, connects_max: 6 }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to a peer, then say [`Swarm::opened`] or [`Swarm::closed`].
    Connect {
        /// Whom.
        key: Key,
        /// Nodes that know the way.
        relay_addresses: Vec<SocketAddrV4>,
        /// It was not reached without a relay.
        needs_relay: bool,
    },
    /// Give up connecting to it, or end its connection; the swarm has forgotten it already.
    Close {
        /// Whose.
        key: Key,
    },
    /// Start a query on a topic, then say [`Swarm::query_ended`].
    Start {
        /// Which.
        topic: [u8; 32],
        /// What kind.
        task: Task,
    },
    /// Cancel the query on a topic, then say [`Swarm::query_ended`].
    Cancel {
        /// Which.
        topic: [u8; 32],
    },
    /// Start the server.
    Listen,
    /// What [`Swarm::flush`] asked for has happened.
    Flushed(u64),
}

/// What becomes of a connection that a peer opened to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is the only one.
    Accept,
    /// It takes the place of the one there is.
    Replace,
    /// The one there is stays.
    Refuse,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    is_open: bool,
    /// We made it.
    is_initiator: bool,
}

struct Flush {
    id: u64,
    /// Peers that were to be tried when it was asked for; None until all topics were looked up.
    missing: Option<BTreeSet<Key>>,
}

/// Topics, peers and connections: who to look for, whom to connect to. See the module.
pub struct Swarm {
    key: Key,
    options: SwarmOptions,
    random: Random,
    topics: BTreeMap<[u8; 32], Discovery>,
    /// Whose turn to look for work it is: topics whose state changed.
    restless: VecDeque<[u8; 32]>,
    peers: Peers,
    connections: BTreeMap<Key, Connection>,
    actions: VecDeque<Action>,
    flushes: Vec<Flush>,
    next_flush: u64,
    is_suspended: bool,
    /// Our server: not asked for, asked for at a time, or with relays.
    listening: Listening,
    running: usize,
    /// When a topic has something to do.
    topics_at: Option<Now>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listening {
    No,
    Since(Now),
    Ready,
}

impl Swarm {
    /// A swarm of the peer with this key, on no topic.
    pub fn new(key: Key, options: SwarmOptions, mut random: Random) -> Swarm {
        Swarm {
            key,
            options,
            peers: Peers::new(random.fork()),
            random,
            topics: BTreeMap::new(),
            restless: VecDeque::new(),
            connections: BTreeMap::new(),
            actions: VecDeque::new(),
            flushes: Vec::new(),
            next_flush: 0,
            is_suspended: false,
            listening: Listening::No,
            running: 0,
            topics_at: None,
        }
    }

    /// Joins a topic, or changes what we are there. False: there are [`TOPICS_MAX`] already, or neither role was asked for.
    pub fn join(&mut self, now: Now, topic: [u8; 32], role: Role) -> bool {
        if role == Role::default() {
            return false;
        }
        if let Some(discovery) = self.topics.get_mut(&topic) {
            discovery.join(now, role);
        } else if self.topics.len() < TOPICS_MAX {
            self.topics.insert(topic, Discovery::new(now, role));
        } else {
            return false;
        }
        if role.server && self.listening == Listening::No && !self.is_suspended {
            self.listening = Listening::Since(now);
            self.actions.push_back(Action::Listen);
        }
        self.wake(topic);
        self.work(now);
        true
    }

    /// Leaves a topic: what was announced is taken back; peers of no other topic are not looked for any more. Connections stay.
    pub fn leave(&mut self, now: Now, topic: &[u8; 32]) {
        let Some(discovery) = self.topics.get_mut(topic) else { return };
        if discovery.leave(now) {
            self.topics.remove(topic);
        }
        self.peers.forget_topic(topic);
        self.wake(*topic);
        self.work(now);
    }

    /// Stays connected to a peer, topic or not.
    pub fn join_peer(&mut self, now: Now, key: Key) {
        if key != self.key {
            self.peers.set_explicit(key, true);
            self.work(now);
        }
    }

    /// Undoes [`Swarm::join_peer`]; an open connection stays.
    pub fn leave_peer(&mut self, key: Key) {
        self.peers.set_explicit(key, false);
    }

    /// Bans a peer, or lifts its ban; a connection to it is closed.
    pub fn ban(&mut self, now: Now, key: Key, is_banned: bool) {
        self.peers.ban(key, is_banned);
        if is_banned && self.connections.contains_key(&key) {
            self.actions.push_back(Action::Close { key });
            self.closed(now, &key, false);
        }
        self.work(now);
    }

    /// Whether a peer may connect to us.
    pub fn is_welcome(&self, key: &Key) -> bool {
        *key != self.key
            && !self.is_suspended
            && (self.connections.len() < self.options.incoming_max || self.connections.contains_key(key))
            && self.peers.get(key).is_none_or(|peer| !peer.is_banned)
    }

    /// Asks to be told, by [`Action::Flushed`], when every topic was looked up once and all peers known then were tried.
    pub fn flush(&mut self, now: Now) -> u64 {
        self.next_flush += 1;
        self.flushes.push(Flush { id: self.next_flush, missing: None });
        self.work(now);
        self.next_flush
    }

    /// Leaves everyone, until [`Swarm::resume`]: queries are cancelled, connections are closed. What is [announced](Swarm::announced) is the owner's to take back.
    pub fn suspend(&mut self) {
        if self.is_suspended {
            return;
        }
        self.is_suspended = true;
        self.listening = Listening::No;
        self.peers.stop();
        for (topic, discovery) in &self.topics {
            if discovery.running().is_some() {
                self.actions.push_back(Action::Cancel { topic: *topic });
            }
        }
        for key in self.connections.keys().copied().collect::<Vec<_>>() {
            self.actions.push_back(Action::Close { key });
            self.closed(Duration::ZERO, &key, false);
        }
    }

    /// Begins anew.
    pub fn resume(&mut self, now: Now) {
        if !std::mem::take(&mut self.is_suspended) {
            return;
        }
        self.topics.retain(|_, discovery| !discovery.is_left());
        self.running = 0;
        for discovery in self.topics.values_mut() {
            discovery.resume(now);
        }
        if self.topics.values().any(|topic| topic.role().server) {
            self.listening = Listening::Since(now);
            self.actions.push_back(Action::Listen);
        }
        self.peers.enqueue_explicit();
        self.restless = self.topics.keys().copied().collect();
        self.topics_at = None;
        self.work(now);
    }

    /// Topics that nodes were told we are on, whether joined still or just left.
    pub fn announced(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.topics.iter().filter(|(_, topic)| topic.is_announced()).map(|(name, _)| *name)
    }

    /// Suspended, and not resumed.
    pub fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// Another network: everything that was announced holds old addresses.
    pub fn network_changed(&mut self, now: Now) {
        for discovery in self.topics.values_mut() {
            discovery.refresh(now);
        }
        self.restless = self.topics.keys().copied().collect();
        self.work(now);
    }

    /// Our server has its relays: they can be announced.
    pub fn set_listening(&mut self, now: Now) {
        if matches!(self.listening, Listening::Since(_)) {
            self.listening = Listening::Ready;
            self.restless = self.topics.keys().copied().collect();
            self.work(now);
        }
    }

    /// Our server waits for its relays.
    pub fn is_listening_awaited(&self) -> bool {
        matches!(self.listening, Listening::Since(_))
    }

    /// Some node knows peers of a topic.
    pub fn found(&mut self, topic: [u8; 32], records: &[PeerRecord]) {
        let Some(discovery) = self.topics.get_mut(&topic) else { return };
        if !discovery.role().client || self.is_suspended {
            return;
        }
        let records = || records.iter().take(FOUND_MAX).filter(|record| record.public_key != self.key);
        discovery.found(records().count());
        for record in records() {
            self.peers.found(record.public_key, &record.relays, topic);
        }
        self.connect_more();
    }

    /// The query on a topic ended, or was cancelled.
    pub fn query_ended(&mut self, now: Now, topic: [u8; 32], ended: Ended) {
        self.running = self.running.saturating_sub(1);
        if let Some(discovery) = self.topics.get_mut(&topic)
            && discovery.ended(now, ended, &mut self.random)
        {
            self.topics.remove(&topic);
        }
        if self.running + 1 == QUERIES_MAX {
            self.restless = self.topics.keys().copied().collect();
        }
        self.wake(topic);
        self.work(now);
    }

    /// What to do with a connection that a peer opened to us. `is_old_alive`: bytes went both ways over the connection there is, so the peer must have lost it to
    /// open another. Otherwise both have called each other at the same time, and the caller with the larger key wins, on both sides.
    pub fn judge(&self, key: &Key, is_old_alive: bool) -> Judgement {
        match self.connections.get(key) {
            None => Judgement::Accept,
            // The new one was made by the peer, so it should stay if the peer has the larger key.
            Some(_) if is_old_alive || self.key < *key => Judgement::Replace,
            Some(_) => Judgement::Refuse,
        }
    }

    /// A peer's connection to us was accepted.
    pub fn accepted(&mut self, now: Now, key: Key) {
        self.peers.upsert(key, None);
        self.peers.connecting(key);
        self.peers.connected(&key, now, false);
        self.connections.insert(key, Connection { is_open: true, is_initiator: false });
        self.tried(&key);
        self.work(now);
    }

    /// A connect of ours succeeded.
    pub fn opened(&mut self, now: Now, key: &Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_open = true;
            self.peers.connected(key, now, true);
        }
        self.tried(key);
        self.work(now);
    }

    /// The connection to a peer is over, or never was open. `is_relay_needed`: nothing but a relay will help, and there is one.
    pub fn closed(&mut self, now: Now, key: &Key, is_relay_needed: bool) {
        let Some(connection) = self.connections.remove(key) else { return };
        if is_relay_needed && self.peers.get(key).is_some_and(|peer| !peer.needs_relay) {
            self.peers.needs_relay(key);
        }
        let is_wanted = !self.is_suspended
            && self.peers.get(key).is_some_and(|peer| {
                peer.is_explicit
                    || peer.topics.iter().any(|topic| self.topics.get(topic).is_some_and(|topic| topic.role().client))
            });
        self.peers.disconnected(key, now, connection.is_initiator, is_wanted);
        self.tried(key);
        self.work(now);
    }

    /// Topics of ours that a peer was found by.
    pub fn topics_of(&self, key: &Key) -> Vec<[u8; 32]> {
        self.peers.get(key).map(|peer| peer.topics.clone()).unwrap_or_default()
    }

    /// How many peers were found by a topic.
    pub fn peers_on(&self, topic: &[u8; 32]) -> usize {
        self.peers.on_topic(topic)
    }

    /// All topics.
    pub fn topics(&self) -> impl Iterator<Item = (&[u8; 32], &Discovery)> {
        self.topics.iter()
    }

    /// Connects on their way.
    pub fn connecting(&self) -> usize {
        self.connections.values().filter(|connection| !connection.is_open).count()
    }

    /// Peers known, and those of them that have their turn now.
    pub fn known(&self) -> (usize, usize) {
        (self.peers.len(), self.peers.queued())
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Swarm::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        if self.is_suspended {
            return None;
        }
        self.topics_at.into_iter().chain(self.peers.poll_timeout()).min()
    }

    /// Time came.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.is_suspended {
            return;
        }
        self.peers.handle_timeout(now);
        // Whatever it was set for may be gone meanwhile.
        self.topics_at = self.next_query_at();
        let due = self
            .topics
            .iter()
            .filter(|(_, topic)| topic.poll_timeout().is_some_and(|at| at <= now))
            .map(|(topic, _)| *topic);
        self.restless = due.collect();
        self.work(now);
    }

    fn wake(&mut self, topic: [u8; 32]) {
        self.restless.push_back(topic);
    }

    fn work(&mut self, now: Now) {
        if self.is_suspended {
            return;
        }
        if !self.restless.is_empty() {
            self.query(now);
            self.topics_at = self.next_query_at();
        }
        self.connect_more();
    }

    fn connect_more(&mut self) {
        while !self.is_suspended && self.may_connect() {
            let Some(key) = self.peers.take_next() else { break };
            self.connect(key);
        }
        self.flush_those_done();
    }

    fn next_query_at(&self) -> Option<Now> {
        if self.running >= QUERIES_MAX {
            return None; // the next to end wakes the others
        }
        let at = |topic: &Discovery| match self.listening {
            Listening::Since(since) if topic.role().server => {
                topic.poll_timeout().map(|at| at.max(since + LISTEN_WAIT))
            }
            _ => topic.poll_timeout(),
        };
        self.topics.values().filter_map(at).min()
    }

    fn query(&mut self, now: Now) {
        let is_listening = match self.listening {
            Listening::Ready => true,
            Listening::Since(since) => now >= since + LISTEN_WAIT,
            Listening::No => false,
        };
        let mut later = VecDeque::new();
        while let Some(topic) = self.restless.pop_front() {
            let Some(discovery) = self.topics.get_mut(&topic) else { continue };
            if let Some((_, true)) = discovery.running() {
                let cancel = Action::Cancel { topic };
                if !self.actions.contains(&cancel) {
                    self.actions.push_back(cancel);
                }
                continue;
            }
            if self.running >= QUERIES_MAX {
                later.push_back(topic);
                continue;
            }
            if let Some(task) = discovery.next(now, is_listening) {
                self.running += 1;
                self.actions.push_back(Action::Start { topic, task });
            } else if discovery.is_left() && discovery.running().is_none() && !discovery.is_announced() {
                self.topics.remove(&topic);
            }
        }
        self.restless = later;
    }

    /// Explicit peers have room of their own: the more of them there are, the sooner others are not connected to any more.
    fn may_connect(&self) -> bool {
        let factor = match self.peers.explicit() {
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            _ => 4,
        };
        self.connecting() < self.options.connects_max && factor * self.connections.len() < self.options.connections_max
    }

    fn connect(&mut self, key: Key) {
        let Some(peer) = self.peers.get(&key) else { return };
        if peer.is_banned || key == self.key || self.connections.contains_key(&key) {
            self.tried(&key);
            return;
        }
        let action =
            Action::Connect { key, relay_addresses: peer.relay_addresses.clone(), needs_relay: peer.needs_relay };
        self.peers.connecting(key);
        self.connections.insert(key, Connection { is_open: false, is_initiator: true });
        self.actions.push_back(action);
    }

    /// A peer was tried: flushes that waited for it wait no longer.
    fn tried(&mut self, key: &Key) {
        for flush in &mut self.flushes {
            if let Some(missing) = &mut flush.missing {
                missing.remove(key);
            }
        }
    }

    fn flush_those_done(&mut self) {
        if self.flushes.is_empty() || !self.topics.values().all(Discovery::is_flushed) {
            return;
        }
        let is_full = !self.may_connect() && self.connecting() == 0;
        let (peers, connections) = (&self.peers, &self.connections);
        let pending = || connections.iter().filter(|(_, connection)| !connection.is_open).map(|(key, _)| *key);
        for flush in &mut self.flushes {
            flush.missing.get_or_insert_with(|| peers.queued_keys().chain(pending()).collect());
        }
        let actions = &mut self.actions;
        self.flushes.retain(|flush| {
            let is_done = is_full || flush.missing.as_ref().is_some_and(BTreeSet::is_empty);
            if is_done {
                actions.push_back(Action::Flushed(flush.id));
            }
            !is_done
        });
    }
}

#[cfg(test)]
mod tests;
