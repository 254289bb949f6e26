//! Who could be connected to, in which order, and when again: [`Peers`].
//!
//! ```text
//!  found by a topic --> queued (one of five priorities, shuffled within) --> connecting --> connected
//!                          ^                                                     |              |
//!                          +---- waiting: 1, 5 or 15 s (10 min if explicit) <----+--------------+
//!                                after more than three attempts: left alone until a topic finds it again
//! ```
//!
//! What must stay true: a banned peer is in no queue and on no clock; the table holds at most [`PEERS_MAX`] peers, whoever announces themselves; the order
//! within a priority is random, so that no two peers of a topic knock on everyone's door in the same order.
//!
//! Source: hyperswarm lib/peer-info.js, lib/retry-timer.js.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use crate::udp::{Now, Random};

/// Peers that are remembered at a time.
pub const PEERS_MAX: usize = 4096;
/// Relay addresses kept of each.
const RELAYS_MAX: usize = 3;
/// Topics kept of each.
const TOPICS_MAX: usize = 64;
/// A connection that held this long was a good one.
const GOOD_CONNECTION: Duration = Duration::from_secs(15);
/// After more attempts a peer is left alone.
const ATTEMPTS_MAX: u32 = 3;
/// Waits before trying again, and up to how much more each.
const SHORT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(1));
const MEDIUM: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(1500));
const LONG: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(2500));
const EXPLICIT: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(120));

/// A peer's public key.
pub type Key = [u8; 32];

/// How soon a peer's turn comes: the order of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Tried often, without success.
    VeryLow,
    /// Tried three times.
    Low,
    /// Not tried yet.
    Normal,
    /// Tried twice.
    High,
    /// Was here until just now.
    VeryHigh,
}

/// What is known of a peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Nodes through which it said it can be reached.
    pub relay_addresses: Vec<SocketAddrV4>,
    /// Topics it was found by.
    pub topics: Vec<[u8; 32]>,
    /// Connected to because someone said so, not because of a topic.
    pub is_explicit: bool,
    /// Never to be connected to.
    pub is_banned: bool,
    /// It could not be reached without a relay.
    pub needs_relay: bool,
    /// We connected to it (true), or it to us.
    pub is_client: bool,
    /// A connection to it was open once.
    is_proven: bool,
    attempts: u32,
    priority: Priority,
    connected_at: Option<Now>,
    is_queued: bool,
    wakes_at: Option<Now>,
}

impl Peer {
    fn new(relay_addresses: Vec<SocketAddrV4>) -> Peer {
        Peer {
            relay_addresses,
            topics: Vec::new(),
            is_explicit: false,
            is_banned: false,
            needs_relay: false,
            is_client: false,
            is_proven: false,
            attempts: 0,
            priority: Priority::Normal,
            connected_at: None,
            is_queued: false,
            wakes_at: None,
        }
    }

    /// How often in a row it was tried, or lost, without a good connection.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    fn reset(&mut self) {
        (self.is_client, self.is_proven, self.attempts) = (false, false, 0);
    }

    fn priority_now(&self) -> Priority {
        match self.attempts {
            0 => Priority::Normal,
            1 => Priority::VeryHigh,
            2 => Priority::High,
            3 => Priority::Low,
            _ => Priority::VeryLow,
        }
    }

    /// False: it has no turn now.
    fn update_priority(&mut self) -> bool {
        if self.is_explicit && self.attempts > ATTEMPTS_MAX {
            self.attempts = ATTEMPTS_MAX;
        }
        if self.is_banned || self.is_queued || self.attempts > ATTEMPTS_MAX {
            return false;
        }
        self.priority = self.priority_now();
        true
    }

    fn backoff(&self) -> Option<(Duration, Duration)> {
        match self.attempts {
            _ if self.is_banned => None,
            0 => Some(SHORT),
            1 if self.is_proven => Some(SHORT),
            1 => Some(MEDIUM),
            2 if self.is_proven => Some(MEDIUM),
            2 | 3 => Some(LONG),
            _ => self.is_explicit.then_some(EXPLICIT),
        }
    }

    fn is_in_use(&self) -> bool {
        self.is_banned || self.is_queued || self.is_explicit || self.wakes_at.is_some()
    }
}

/// All peers, those whose turn it is, and those that wait.
pub struct Peers {
    random: Random,
    table: BTreeMap<Key, Peer>,
    /// By priority; the last one's turn is next.
    queues: [Vec<Key>; 5],
    waiting: BTreeSet<(Now, Key)>,
    /// Those with a connection, open or on its way.
    connected: BTreeSet<Key>,
}

impl Peers {
    /// Nobody yet.
    pub fn new(random: Random) -> Peers {
        Peers {
            random,
            table: BTreeMap::new(),
            queues: Default::default(),
            waiting: BTreeSet::new(),
            connected: BTreeSet::new(),
        }
    }

    /// One of them.
    pub fn get(&self, key: &Key) -> Option<&Peer> {
        self.table.get(key)
    }

    /// One of them, to be changed.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Peer> {
        self.table.get_mut(key)
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Nobody is known.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many were found by a topic.
    pub fn on_topic(&self, topic: &[u8; 32]) -> usize {
        self.table.values().filter(|peer| peer.topics.contains(topic)).count()
    }

    /// How many have their turn now.
    pub fn queued(&self) -> usize {
        self.queues.iter().map(Vec::len).sum()
    }

    /// Those that have their turn now.
    pub fn queued_keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.queues.iter().flatten().copied()
    }

    /// How many of them were put there by hand.
    pub fn explicit(&self) -> usize {
        self.table.values().filter(|peer| peer.is_explicit).count()
    }

    /// The peer of that key, made if there was none; None if the table is full of peers in use.
    pub fn upsert(&mut self, key: Key, relay_addresses: Option<&[SocketAddrV4]>) -> Option<&mut Peer> {
        let relays = |addresses: &[SocketAddrV4]| addresses.iter().copied().take(RELAYS_MAX).collect::<Vec<_>>();
        if !self.table.contains_key(&key) {
            if self.table.len() >= PEERS_MAX {
                self.make_room()?;
            }
            self.table.insert(key, Peer::new(Vec::new()));
        }
        let peer = self.table.get_mut(&key)?;
        if let Some(addresses) = relay_addresses {
            peer.relay_addresses = relays(addresses); // newer is better
        }
        Some(peer)
    }

    /// A topic led to it. True if its turn comes now.
    pub fn found(&mut self, key: Key, relay_addresses: &[SocketAddrV4], topic: [u8; 32]) -> bool {
        let is_connected = self.connected.contains(&key);
        let Some(peer) = self.upsert(key, Some(relay_addresses)) else { return false };
        if !peer.topics.contains(&topic) && peer.topics.len() < TOPICS_MAX {
            peer.topics.push(topic);
        }
        if is_connected {
            return false;
        }
        if peer.priority < Priority::Normal || !peer.is_client {
            peer.reset();
        }
        self.enqueue(key)
    }

    /// Puts it in the queue of its priority; false if it has no turn.
    pub fn enqueue(&mut self, key: Key) -> bool {
        let Some(peer) = self.table.get_mut(&key) else { return false };
        if self.connected.contains(&key) || !peer.update_priority() {
            return false;
        }
        peer.is_queued = true;
        if let Some(at) = peer.wakes_at.take() {
            self.waiting.remove(&(at, key));
        }
        let queue = &mut self.queues[peer.priority as usize];
        queue.push(key);
        let last = queue.len() - 1;
        queue.swap(last, self.random.below(last as u64 + 1) as usize);
        true
    }

    /// The next to connect to.
    pub fn take_next(&mut self) -> Option<Key> {
        let key = self.queues.iter_mut().rev().find_map(Vec::pop)?;
        if let Some(peer) = self.table.get_mut(&key) {
            peer.is_queued = false;
        }
        Some(key)
    }

    /// A connection to it begins, whoever began it: its turn is over.
    pub fn connecting(&mut self, key: Key) {
        self.connected.insert(key);
        self.unqueue(&key);
    }

    /// The connection is open.
    pub fn connected(&mut self, key: &Key, now: Now, is_client: bool) {
        if let Some(peer) = self.table.get_mut(key) {
            (peer.is_proven, peer.is_client, peer.connected_at) = (true, is_client, Some(now));
        }
    }

    /// The connection is over, or was never open. If `is_wanted`, and it was ours to make, it is tried again later.
    pub fn disconnected(&mut self, key: &Key, now: Now, is_client: bool, is_wanted: bool) {
        self.connected.remove(key);
        let jitter = self.random.below(1_000_000);
        let Some(peer) = self.table.get_mut(key) else { return };
        let held = peer.connected_at.take().map(|since| now.saturating_sub(since));
        if is_client {
            if held.is_some_and(|held| held >= GOOD_CONNECTION) {
                peer.attempts = 0;
            }
            peer.attempts += 1;
            if is_wanted
                && !peer.is_queued
                && let Some((wait, more)) = peer.backoff()
            {
                let at = now + wait + more.mul_f64(jitter as f64 / 1e6);
                if let Some(old) = peer.wakes_at.replace(at) {
                    self.waiting.remove(&(old, *key));
                }
                self.waiting.insert((at, *key));
            }
        }
        self.forget_unused(key);
    }

    /// It can be reached through a relay only: tried again at once that way.
    pub fn needs_relay(&mut self, key: &Key) {
        if let Some(peer) = self.table.get_mut(key) {
            (peer.needs_relay, peer.attempts) = (true, 0);
        }
    }

    /// Bans it, or lifts the ban.
    pub fn ban(&mut self, key: Key, is_banned: bool) {
        if let Some(peer) = self.upsert(key, None) {
            peer.is_banned = is_banned;
        }
        if is_banned {
            self.unqueue(&key);
        } else {
            self.forget_unused(&key);
        }
    }

    /// Connects to it from now on, or only if a topic leads there.
    pub fn set_explicit(&mut self, key: Key, is_explicit: bool) -> bool {
        let Some(peer) = self.upsert(key, None) else { return false };
        peer.is_explicit = is_explicit;
        if is_explicit {
            return self.enqueue(key);
        }
        self.forget_unused(&key);
        false
    }

    /// A topic is not ours any more: peers nobody needs otherwise are forgotten.
    pub fn forget_topic(&mut self, topic: &[u8; 32]) {
        let mut unneeded = Vec::new();
        for (key, peer) in &mut self.table {
            peer.topics.retain(|other| other != topic);
            if peer.topics.is_empty() && !peer.is_explicit && !self.connected.contains(key) {
                unneeded.push(*key);
            }
        }
        for key in unneeded {
            self.unqueue(&key);
            self.forget_unused(&key);
        }
    }

    /// When the next one's wait ends.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Puts those whose wait is over back in their queues.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(&(at, key)) = self.waiting.first() {
            if at > now {
                break;
            }
            self.waiting.pop_first();
            if let Some(peer) = self.table.get_mut(&key) {
                peer.wakes_at = None;
            }
            if !self.enqueue(key) {
                self.forget_unused(&key);
            }
        }
    }

    /// Nobody has a turn, nobody waits.
    pub fn stop(&mut self) {
        for (_, key) in std::mem::take(&mut self.waiting) {
            if let Some(peer) = self.table.get_mut(&key) {
                peer.wakes_at = None;
            }
        }
        while self.take_next().is_some() {}
        // Who has no turn, no wait and no connection would never make room for others.
        self.table.retain(|key, peer| peer.is_in_use() || self.connected.contains(key));
    }

    /// Those put there by hand that have no turn and no connection get one.
    pub fn enqueue_explicit(&mut self) {
        let keys: Vec<Key> = self
            .table
            .iter()
            .filter(|(_, peer)| peer.is_explicit && peer.wakes_at.is_none())
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.enqueue(key);
        }
    }

    fn unqueue(&mut self, key: &Key) {
        let Some(peer) = self.table.get_mut(key) else { return };
        if std::mem::take(&mut peer.is_queued) {
            for queue in &mut self.queues {
                queue.retain(|other| other != key);
            }
        }
        if let Some(at) = peer.wakes_at.take() {
            self.waiting.remove(&(at, *key));
        }
    }

    fn forget_unused(&mut self, key: &Key) {
        if !self.connected.contains(key) && self.table.get(key).is_some_and(|peer| !peer.is_in_use()) {
            self.table.remove(key);
        }
    }

    /// Forgets a queued or waiting peer, the least promising one found among a few; bans and explicit peers stay.
    fn make_room(&mut self) -> Option<()> {
        let victim = self
            .queues
            .iter()
            .flatten()
            .chain(self.waiting.iter().map(|(_, key)| key))
            .find(|key| {
                !self.connected.contains(*key)
                    && self.table.get(*key).is_some_and(|peer| !peer.is_explicit && !peer.is_banned)
            })
            .copied()?;
        self.unqueue(&victim);
        self.table.remove(&victim);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: [u8; 32] = [9; 32];

    fn peers() -> Peers {
        Peers::new(Random::new([1; 32]))
    }
    fn key(n: u16) -> Key {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        key
    }

    /// Fails to reach the peer until it is left alone; the waits between.
    fn waits(peers: &mut Peers, was_once_open: bool) -> Vec<u64> {
        let (mut now, mut waits) = (Duration::ZERO, Vec::new());
        assert!(peers.found(key(1), &[], TOPIC));
        if was_once_open {
            let next = peers.take_next().unwrap();
            peers.connecting(next);
            peers.connected(&next, now, true);
            now += Duration::from_secs(20);
            peers.disconnected(&next, now, true, true);
            let at = peers.poll_timeout().unwrap();
            waits.push((at - now).as_millis() as u64);
            now = at;
            peers.handle_timeout(now);
        }
        while let Some(next) = peers.take_next() {
            peers.connecting(next);
            now += Duration::from_secs(1);
            peers.disconnected(&next, now, true, true);
            let Some(at) = peers.poll_timeout() else { break };
            waits.push((at - now).as_millis() as u64);
            now = at;
            peers.handle_timeout(now);
        }
        waits
    }

    fn are_within(waits: &[u64], bounds: &[(u64, u64)]) -> bool {
        waits.len() == bounds.len() && waits.iter().zip(bounds).all(|(wait, (low, high))| (low..=high).contains(&wait))
    }

    #[test]
    fn waits_grow_and_end() {
        let (short, medium, long) = ((1000, 2000), (5000, 6500), (15_000, 17_500));
        let never = waits(&mut peers(), false);
        assert!(are_within(&never, &[medium, long, long]), "{never:?}");
        let once = waits(&mut peers(), true);
        assert!(are_within(&once, &[short, medium, long]), "{once:?}");
    }

    #[test]
    fn a_peer_left_alone_comes_back_when_found_again() {
        let mut peers = peers();
        waits(&mut peers, false);
        assert!(peers.is_empty() && peers.queued() == 0);
        assert!(peers.found(key(1), &[], TOPIC));
        assert!(!peers.found(key(1), &[], TOPIC), "it has its turn already");
        assert_eq!(peers.take_next(), Some(key(1)));
    }

    #[test]
    fn explicit_peers_are_never_given_up() {
        let mut peers = peers();
        assert!(peers.set_explicit(key(7), true));
        let mut now = Duration::ZERO;
        for _ in 0..10 {
            let next = peers.take_next().unwrap();
            peers.connecting(next);
            peers.disconnected(&next, now, true, true);
            now = peers.poll_timeout().unwrap();
            peers.handle_timeout(now);
        }
        assert!(now > Duration::from_secs(600));
        peers.set_explicit(key(7), false);
        peers.take_next();
        peers.disconnected(&key(7), now, true, false);
        assert!(peers.is_empty());
    }

    #[test]
    fn who_was_here_comes_first_and_others_are_shuffled() {
        let mut peers = peers();
        for n in 0..100 {
            assert!(peers.found(key(n), &[], TOPIC));
        }
        peers.found(key(500), &[], TOPIC);
        while let Some(next) = peers.take_next() {
            if next == key(500) {
                peers.connecting(next);
                peers.connected(&next, Duration::ZERO, true);
                peers.disconnected(&next, Duration::from_secs(60), true, true);
            }
        }
        for n in 0..100 {
            peers.found(key(n), &[], TOPIC);
        }
        peers.handle_timeout(Duration::from_secs(70));
        assert_eq!(peers.take_next(), Some(key(500)));
        let order: Vec<Key> = std::iter::from_fn(|| peers.take_next()).collect();
        assert_eq!(order.len(), 100);
        assert!(!order.is_sorted() && !order.iter().rev().is_sorted());
    }

    #[test]
    fn bans_hold_and_the_table_is_bounded() {
        let mut peers = peers();
        peers.ban(key(1), true);
        assert!(!peers.found(key(1), &[], TOPIC));
        for n in 0..PEERS_MAX as u16 + 500 {
            peers.found(key(n), &[], TOPIC);
        }
        assert_eq!((peers.len(), peers.queued()), (PEERS_MAX, PEERS_MAX - 1));
        assert!(peers.get(&key(1)).unwrap().is_banned);
        peers.forget_topic(&TOPIC);
        assert_eq!((peers.len(), peers.queued()), (1, 0));
        peers.ban(key(1), false);
        assert!(peers.is_empty());
    }
}
