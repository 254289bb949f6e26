//! Which kind of NAT a socket is behind, told by the addresses that nodes see its pings come from.
//!
//! ```text
//! samples of one fresh socket                      kind          what peers are told
//! three or more times the same address             consistent    the addresses seen twice, or the first two
//! no address twice                                 random        the host seen most, port 0
//! one address twice, all on one host, 4 samples    random
//! two addresses twice each, on two hosts           consistent
//! still undecided after the fifth                  random
//! fewer than three                                 unknown       nothing
//! any, and the node is known to be reachable       open          the addresses seen
//! ```
//!
//! A NAT that gives each destination its own port shows as random: its next port cannot be told to a peer. [`Nat`] picks the nodes to ask itself, among the
//! latest that were heard of, and asks none of them twice.
//!
//! JavaScript tells no address when open, and so cannot be punched to by a peer with random ports: we tell them.
//!
//! What must stay true: a node counts once, however often it answers; once [frozen](Nat::freeze) the verdict that a peer was told does not change; a table is
//! bounded even if a peer brings new nodes without end. Source: `lib/nat.js` of hyperdht. Vectors: `firewall-kinds.json`.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Samples after which there is a verdict, whatever it is.
const SAMPLES: usize = 4;
/// The latest nodes to leave alone when there are enough others: those of the walk that goes on right now.
const SKIPPED: usize = 5;
/// Nodes from which on those are left alone.
const NODES_MANY: usize = 8;
/// Nodes asked or heard; beyond it samples are ignored.
const VISITED_MAX: usize = 64;

/// How others reach a socket from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Firewall {
    /// Not known yet.
    #[default]
    Unknown,
    /// From anywhere, at any time.
    Open,
    /// Under one address, by those whom it sent something.
    Consistent,
    /// Under another address for each destination.
    Random,
}

impl Firewall {
    /// From its number on the wire; what newer peers may add counts as the worst.
    pub fn from_wire(number: u64) -> Firewall {
        match number {
            0 => Firewall::Unknown,
            1 => Firewall::Open,
            2 => Firewall::Consistent,
            _ => Firewall::Random,
        }
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> u64 {
        self as u64
    }

    /// Whether it can be reached under an address that is known beforehand.
    pub fn is_predictable(self) -> bool {
        matches!(self, Firewall::Open | Firewall::Consistent)
    }
}

/// What is known about the NAT before one socket.
#[derive(Debug, Default)]
pub struct Nat {
    firewall: Firewall,
    addresses: Option<Vec<SocketAddrV4>>,
    hosts: Counts<Ipv4Addr>,
    full: Counts<SocketAddrV4>,
    /// Nodes asked (false) or heard (true).
    visited: HashMap<SocketAddrV4, bool>,
    sampled: usize,
    /// Pings that have not ended.
    pending: usize,
    /// How often nodes may still be asked.
    rounds: u8,
    is_decided: bool,
    is_frozen: bool,
}

impl Nat {
    /// Nothing is known. `is_firewalled`: whether the node as a whole is not known to be reachable.
    pub fn new(is_firewalled: bool) -> Nat {
        let firewall = if is_firewalled { Firewall::Unknown } else { Firewall::Open };
        Nat { firewall, rounds: 2, ..Nat::default() }
    }

    /// The kind found so far.
    pub fn firewall(&self) -> Firewall {
        self.firewall
    }

    /// Where peers should send to; a port 0 says that only the host is known.
    pub fn addresses(&self) -> Option<&[SocketAddrV4]> {
        self.addresses.as_deref()
    }

    /// Whether enough was heard, or nothing more will be: the kind may still be unknown.
    pub fn is_decided(&self) -> bool {
        self.is_decided
    }

    /// Nodes to ping next from this socket, of `nodes`, the latest first. Each has to end in [`add`](Self::add) or [`failed`](Self::failed). None are left
    /// to ask: the verdict is what it is.
    pub fn sample(&mut self, nodes: &[SocketAddrV4]) -> VecDeque<SocketAddrV4> {
        let mut asked = VecDeque::new();
        while !self.is_decided && self.pending == 0 && self.sampled < SAMPLES {
            if self.rounds == 0 {
                self.is_decided = true;
                break;
            }
            self.rounds -= 1;
            let skipped = if nodes.len() >= NODES_MANY { SKIPPED } else { 0 };
            for node in nodes.iter().skip(skipped) {
                if self.sampled + self.pending >= SAMPLES || self.visited.len() >= VISITED_MAX {
                    break;
                }
                if !self.visited.contains_key(node) {
                    self.visited.insert(*node, false);
                    self.pending += 1;
                    asked.push_back(*node);
                }
            }
        }
        asked
    }

    /// A ping that was asked for was answered by `from`, which saw us as `to`.
    pub fn answered(&mut self, to: SocketAddrV4, from: SocketAddrV4, is_firewalled: bool) {
        self.pending = self.pending.saturating_sub(1);
        self.add(to, from, is_firewalled);
    }

    /// A ping that was asked for was not answered.
    pub fn failed(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// A node saw this socket as `to`, in whatever we sent it.
    pub fn add(&mut self, to: SocketAddrV4, from: SocketAddrV4, is_firewalled: bool) {
        if self.visited.get(&from) == Some(&true) || self.visited.len() >= VISITED_MAX {
            return;
        }
        self.visited.insert(from, true);
        self.hosts.add(*to.ip());
        self.full.add(to);
        self.sampled += 1;
        if (self.sampled >= 3 || !is_firewalled) && !self.is_frozen {
            self.update(is_firewalled);
        }
        self.is_decided |= self.firewall.is_predictable() || self.sampled >= SAMPLES;
    }

    /// A peer was told the verdict: keep it.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// Judge anew, by all that was heard meanwhile.
    pub fn unfreeze(&mut self, is_firewalled: bool) {
        self.is_frozen = false;
        self.update(is_firewalled);
    }

    fn update(&mut self, is_firewalled: bool) {
        if is_firewalled && self.firewall == Firewall::Open {
            self.firewall = Firewall::Unknown;
        }
        self.firewall = if is_firewalled { self.verdict() } else { Firewall::Open };
        match self.firewall {
            Firewall::Unknown => self.addresses = None,
            Firewall::Random => self.addresses = self.hosts.most().map(|host| vec![SocketAddrV4::new(host, 0)]),
            Firewall::Consistent => self.addresses = Some(self.full.repeated(2)),
            Firewall::Open => self.addresses = Some(self.full.repeated(2)),
        }
    }

    fn verdict(&self) -> Firewall {
        let most = self.full.hits(0);
        match () {
            () if self.sampled < 3 => self.firewall,
            () if most >= 3 => Firewall::Consistent,
            () if most == 1 => Firewall::Random,
            () if self.hosts.len() == 1 && self.sampled > 3 => Firewall::Random,
            () if self.hosts.len() > 1 && self.full.hits(1) > 1 => Firewall::Consistent,
            () if self.sampled > SAMPLES => Firewall::Random,
            () => self.firewall,
        }
    }
}

/// Values with how often each was seen, the most frequent first; among equals the earlier.
#[derive(Debug)]
struct Counts<T>(Vec<(T, usize)>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Counts(Vec::new())
    }
}

impl<T: Copy + PartialEq> Counts<T> {
    fn add(&mut self, value: T) {
        let Some(mut at) = self.0.iter().position(|(known, _)| *known == value) else { return self.0.push((value, 1)) };
        self.0[at].1 += 1;
        while at > 0 && self.0[at - 1].1 < self.0[at].1 {
            self.0.swap(at - 1, at);
            at -= 1;
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn hits(&self, rank: usize) -> usize {
        self.0.get(rank).map_or(0, |(_, hits)| *hits)
    }

    fn most(&self) -> Option<T> {
        self.0.first().map(|(value, _)| *value)
    }

    /// All that were seen more than once, filled up to `min` with others.
    fn repeated(&self, min: usize) -> Vec<T> {
        let mut values = Vec::new();
        for (value, hits) in &self.0 {
            if *hits >= 2 || values.len() < min {
                values.push(*value);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_stream::vectors;

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn node(number: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), number)
    }

    #[test]
    fn kinds_are_those_of_javascript() {
        let file = vectors::read("swarm/firewall-kinds");
        for case in file["cases"].as_array().unwrap() {
            let is_firewalled = case["dht_firewalled"].as_bool().unwrap();
            let mut nat = Nat::new(is_firewalled);
            for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
                let host = vectors::text(step, "host").parse().unwrap();
                let to = SocketAddrV4::new(host, step["port"].as_u64().unwrap() as u16);
                nat.add(to, node(number as u16), is_firewalled);
                assert_eq!(nat.firewall().to_wire(), step["firewall"].as_u64().unwrap(), "{case} step {number}");
                if nat.firewall() == Firewall::Open {
                    assert!(step["addresses"].is_null());
                    assert_eq!(nat.addresses(), Some(&[to][..]), "ours: see the module");
                    continue;
                }
                let addresses: Option<Vec<SocketAddrV4>> = step["addresses"]
                    .as_array()
                    .map(|all| all.iter().map(|text| address(text.as_str().unwrap())).collect());
                assert_eq!(nat.addresses(), addresses.as_deref(), "{case} step {number}");
            }
        }
    }

    #[test]
    fn a_node_counts_once_and_the_table_is_bounded() {
        let mut nat = Nat::new(true);
        for _ in 0..10 {
            nat.add(address("1.1.1.1:5"), node(1), true);
        }
        assert_eq!(nat.firewall(), Firewall::Unknown);
        for number in 0..10_000 {
            nat.add(SocketAddrV4::new(Ipv4Addr::new(1, 1, 1, 1), number), node(number), true);
        }
        assert_eq!(nat.visited.len(), VISITED_MAX);
        assert!(nat.full.len() <= VISITED_MAX);
    }

    #[test]
    fn four_nodes_are_asked_and_others_for_those_that_fail() {
        let nodes: Vec<SocketAddrV4> = (0..20).map(node).collect();
        let mut nat = Nat::new(true);
        let first = nat.sample(&nodes);
        assert_eq!(first, (5..9).map(node).collect::<VecDeque<_>>());
        assert_eq!(nat.sample(&nodes).len(), 0, "pings are on their way");
        nat.answered(address("1.1.1.1:5"), first[0], true);
        nat.answered(address("1.1.1.1:6"), first[1], true);
        nat.failed();
        assert_eq!(nat.sample(&nodes).len(), 0);
        nat.failed();
        let second = nat.sample(&nodes);
        assert_eq!(second, (9..11).map(node).collect::<VecDeque<_>>());
        nat.failed();
        nat.answered(address("1.1.1.1:7"), second[1], true);
        assert_eq!(nat.sample(&nodes).len(), 0);
        assert!(nat.is_decided());
        assert_eq!(nat.firewall(), Firewall::Random);
    }

    #[test]
    fn nobody_to_ask_is_a_verdict_too() {
        let mut nat = Nat::new(true);
        assert!(nat.sample(&[]).is_empty());
        assert!(nat.is_decided());
        assert_eq!(nat.firewall(), Firewall::Unknown);
    }

    #[test]
    fn what_was_told_stays_until_it_is_judged_anew() {
        let mut nat = Nat::new(true);
        for number in 0..3 {
            nat.add(address("1.1.1.1:5"), node(number), true);
        }
        nat.freeze();
        for number in 10..20 {
            nat.add(address("2.2.2.2:6"), node(number), true);
        }
        assert_eq!(nat.addresses(), Some(&[address("1.1.1.1:5")][..]));
        nat.unfreeze(true);
        assert_eq!(nat.addresses(), Some(&[address("2.2.2.2:6"), address("1.1.1.1:5")][..]));
    }
}
