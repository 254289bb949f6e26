//! One walk towards a target: whom to ask next, and when it is over.
//!
//! ```text
//! given nodes, then the table's closest, then bootstrap nodes
//!   `-> pending (by distance) -> asked, ten at a time -> closest 20 that answered and have an id
//!            ^------ closer nodes of each answer --'
//! ```
//!
//! A node that does not answer in its first try is slow: another is asked in its place, and at the end, with 20 in hand, it is not waited for. Errors bring closer
//! nodes, too, and nodes without an id are asked and listened to, but not kept among the closest: the first node of a private network is often one that says
//! "unknown command", has no id, and knows everybody.
//!
//! Ids are hashes of addresses, ports among them: with its 65,535 ports one host finds 20 ids nearer to a target than anybody else's. So of one public /24 only
//! the closest few count; others of it are put off, and are asked and kept only where too few nodes of other networks are left, as in a network of one /24:
//!
//! ```text
//! pending --- its /24 has enough closer ones ---> crowded ---- nobody else is left, and fewer than 20 answered ----> asked
//! answered -- likewise ------------------------> crowd ------- fills the 20 up at the end
//! ```
//!
//! What must stay true: every address is asked once; a node is asked only while it is closer than the worst of the 20; nothing a node tells makes a walk larger
//! than [`SEEN_MAX`]. Source: dht-rpc `lib/query.js`; there the next node is the one heard of last, here it is the closest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddrV4;

use super::event::{Query, Reply};
use super::message::{K, node_id};
use super::scope::{Scope, subnet};

/// Addresses that one walk looks at.
const SEEN_MAX: usize = 2048;
/// Nodes that told us of the same node, and are told if it does not answer.
const TELLERS_MAX: usize = 8;
/// Asked at once while nodes of an earlier walk are asked again.
const CONCURRENCY_REUSED: usize = 3;
const RETRIES: u8 = 5;

/// Whose walk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The owner's.
    Owner,
    /// The first walk of this node.
    Bootstrap,
    /// To meet nodes.
    Refresh,
}

enum Seen {
    /// Waiting or asked; told of by these.
    Asked(Vec<SocketAddrV4>),
    Answered,
    Silent,
}

/// "That node does not answer", to be told to a node that told us of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownHint {
    /// Who is told.
    pub to: SocketAddrV4,
    /// Who does not answer.
    pub about: SocketAddrV4,
}

/// What to do with a walk after something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this node.
    Ask(SocketAddrV4),
    /// Wait for answers.
    Wait,
    /// Too few of the given nodes answered: give it the table's closest, and go on.
    NeedsTable,
    /// It is over.
    End,
}

/// See the module.
pub struct Walk {
    /// What is asked.
    pub query: Query,
    /// Whose it is.
    pub purpose: Purpose,
    /// Nodes asked at once, as long as they are quick.
    pub concurrency: usize,
    /// The 20 closest answers that count, the closest first.
    closest: Vec<Reply>,
    /// The closest ones of those whose networks have enough.
    crowd: Vec<Reply>,
    /// Nodes of one public /24 that count.
    per_subnet: usize,
    /// Answers without an error.
    pub successes: usize,
    /// Errors and silence.
    pub errors: usize,
    seen: HashMap<SocketAddrV4, Seen>,
    given: VecDeque<SocketAddrV4>,
    pending: BTreeMap<[u8; 32], SocketAddrV4>,
    crowded: BTreeMap<[u8; 32], SocketAddrV4>,
    asked: usize,
    slow: usize,
    is_slowed_down: bool,
    is_table_used: bool,
    /// Nobody of other networks was left once.
    is_filling: bool,
}

impl Walk {
    /// A walk that knows its given nodes only.
    pub fn new(query: Query, purpose: Purpose, concurrency: usize, per_subnet: usize) -> Walk {
        let mut walk = Walk {
            concurrency: query.concurrency.unwrap_or(concurrency).max(1),
            purpose,
            closest: Vec::new(),
            crowd: Vec::new(),
            per_subnet: per_subnet.max(1),
            successes: 0,
            errors: 0,
            seen: HashMap::new(),
            given: VecDeque::new(),
            pending: BTreeMap::new(),
            crowded: BTreeMap::new(),
            asked: 0,
            slow: 0,
            is_slowed_down: false,
            is_table_used: query.is_only_given,
            is_filling: false,
            query,
        };
        for node in std::mem::take(&mut walk.query.nodes).into_iter().take(SEEN_MAX) {
            if walk.seen.insert(node, Seen::Asked(Vec::new())).is_none() {
                walk.given.push_back(node);
            }
        }
        walk
    }

    /// Nodes that are missing to begin with; 0 if those given suffice.
    pub fn missing(&self) -> usize {
        if self.query.is_only_given { 0 } else { K.saturating_sub(self.given.len() + self.pending.len()) }
    }

    /// Nodes of the table, or bootstrap nodes.
    pub fn add_known(&mut self, nodes: impl IntoIterator<Item = SocketAddrV4>) {
        self.is_table_used = true;
        for node in nodes {
            self.add(node, None);
        }
    }

    /// How often each node is asked again.
    pub fn retries(&self) -> u8 {
        self.query.retries.unwrap_or(RETRIES)
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        let concurrency = if self.is_slowed_down { CONCURRENCY_REUSED } else { self.concurrency } + self.slow;
        if let Some(next) = (self.asked < concurrency).then(|| self.next()).flatten() {
            self.asked += 1;
            return Step::Ask(next);
        }
        // Nodes of an earlier walk: those closest to the target get a chance to answer before many are asked.
        if !self.is_table_used && self.successes + self.errors == 0 {
            self.is_slowed_down = true;
        }
        if !self.given.is_empty() || !self.pending.is_empty() {
            return Step::Wait;
        }
        let is_over = self.asked == 0 || (self.slow == self.asked && self.closest.len() + self.crowd.len() >= K);
        if !is_over {
            return Step::Wait;
        }
        if !self.is_table_used && self.successes < K / 4 { Step::NeedsTable } else { Step::End }
    }

    /// A node answered, maybe with an error. `closer` are those of its nodes that may be believed in.
    pub fn answered(
        &mut self,
        reply: &Reply,
        closer: impl IntoIterator<Item = SocketAddrV4>,
        is_slow: bool,
    ) -> Vec<DownHint> {
        self.ended(is_slow);
        self.seen.insert(reply.from, Seen::Answered);
        if reply.error == 0 {
            self.successes += 1;
            self.keep(reply);
        } else {
            self.errors += 1;
        }
        if self.successes + self.errors >= self.concurrency {
            self.is_slowed_down = false;
        }
        if self.query.is_only_given {
            return Vec::new();
        }
        closer.into_iter().filter_map(|node| self.add(node, Some(reply.from))).collect()
    }

    /// A node did not answer, after all tries. Those who told us of it may be told.
    pub fn missed(&mut self, node: SocketAddrV4, is_slow: bool) -> Vec<DownHint> {
        self.ended(is_slow);
        self.errors += 1;
        match self.seen.insert(node, Seen::Silent) {
            Some(Seen::Asked(tellers)) => tellers.into_iter().map(|to| DownHint { to, about: node }).collect(),
            _ => Vec::new(),
        }
    }

    /// A node did not answer in the first try.
    pub fn slowed(&mut self) {
        self.slow += 1;
    }

    fn ended(&mut self, is_slow: bool) {
        self.asked -= 1;
        self.slow -= usize::from(is_slow);
    }

    fn next(&mut self) -> Option<SocketAddrV4> {
        if let Some(node) = self.given.pop_front() {
            return Some(node);
        }
        // Sorted by distance: if the first one is too far by now, all are.
        while let Some((distance, node)) = self.pending.pop_first() {
            if !self.is_closer(&distance) {
                self.pending.clear();
            } else if self.has_enough(node, &distance) {
                self.crowded.insert(distance, node);
            } else {
                return Some(node);
            }
        }
        self.is_filling |= self.asked == 0;
        let is_wanted = self.is_filling && self.closest.len() + self.crowd.len() < K;
        is_wanted.then(|| self.crowded.pop_first()).flatten().map(|(_, node)| node)
    }

    /// Whether enough closer nodes of the same network have answered.
    fn has_enough(&self, node: SocketAddrV4, distance: &[u8; 32]) -> bool {
        let of_network = self.closest.iter().filter(|reply| is_neighbour(reply.from, node));
        let closer = of_network.filter(|reply| reply.from_id.is_some_and(|id| self.distance(&id) < *distance));
        closer.count() >= self.per_subnet
    }

    fn add(&mut self, node: SocketAddrV4, teller: Option<SocketAddrV4>) -> Option<DownHint> {
        match self.seen.get_mut(&node) {
            Some(Seen::Answered) => return None,
            Some(Seen::Silent) => return teller.map(|to| DownHint { to, about: node }),
            Some(Seen::Asked(tellers)) => {
                tellers.extend(teller.filter(|_| tellers.len() < TELLERS_MAX));
                return None;
            }
            None => {}
        }
        let distance = self.distance(&node_id(node));
        if self.seen.len() < SEEN_MAX && self.is_closer(&distance) {
            self.seen.insert(node, Seen::Asked(teller.into_iter().collect()));
            self.pending.insert(distance, node);
        }
        None
    }

    fn keep(&mut self, reply: &Reply) {
        let Some(id) = reply.from_id else { return };
        let distance = self.distance(&id);
        if self.has_enough(reply.from, &distance) {
            return self.insert(reply.clone(), true);
        }
        self.insert(reply.clone(), false);
        // It may be one too many of its network now: the farthest of it makes room.
        let mut of_network = (0..self.closest.len()).filter(|&at| is_neighbour(self.closest[at].from, reply.from));
        if let Some(last) = of_network.clone().next_back().filter(|_| of_network.by_ref().count() > self.per_subnet) {
            let farthest = self.closest.remove(last);
            self.insert(farthest, true);
        }
        self.closest.truncate(K);
    }

    fn insert(&mut self, reply: Reply, is_crowd: bool) {
        let far = |reply: &Reply| reply.from_id.map_or([0xff; 32], |id| self.distance(&id));
        let replies = if is_crowd { &self.crowd } else { &self.closest };
        let Err(at) = replies.binary_search_by_key(&far(&reply), far) else { return };
        let replies = if is_crowd { &mut self.crowd } else { &mut self.closest };
        replies.insert(at, reply);
        if is_crowd {
            replies.truncate(K);
        }
    }

    /// The 20 closest answers, the closest first; where other networks have fewer, more of one.
    pub fn into_closest(mut self) -> Vec<Reply> {
        let missing = K.saturating_sub(self.closest.len());
        for reply in std::mem::take(&mut self.crowd).into_iter().take(missing) {
            self.insert(reply, false);
        }
        self.closest
    }

    fn is_closer(&self, distance: &[u8; 32]) -> bool {
        let worst = self.closest.get(K - 1).and_then(|reply| reply.from_id);
        worst.is_none_or(|worst| *distance < self.distance(&worst))
    }

    fn distance(&self, id: &[u8; 32]) -> [u8; 32] {
        std::array::from_fn(|at| id[at] ^ self.query.target[at])
    }
}

/// Whether two nodes are of one public /24. Local networks are one's own, and small.
fn is_neighbour(a: SocketAddrV4, b: SocketAddrV4) -> bool {
    subnet(*a.ip()) == subnet(*b.ip()) && Scope::of(a) == Some(Scope::Public)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::udp::SocketId;

    fn node(n: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(1, 1, (n >> 8) as u8, n as u8), 9)
    }

    fn reply(from: SocketAddrV4, has_id: bool, error: u64) -> Reply {
        Reply {
            from,
            from_id: has_id.then(|| node_id(from)),
            to: node(0),
            token: None,
            closer: Vec::new(),
            error,
            value: None,
            round_trip: Duration::ZERO,
            socket: SocketId::CLIENT,
        }
    }

    fn asked(walk: &mut Walk) -> Vec<SocketAddrV4> {
        let mut asked = Vec::new();
        while let Step::Ask(node) = walk.step() {
            asked.push(node);
        }
        asked
    }

    #[test]
    fn closer_nodes_of_errors_and_of_nodes_without_id_are_asked() {
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10, K);
        assert_eq!(walk.missing(), K);
        walk.add_known([node(1)]);
        assert_eq!(asked(&mut walk), [node(1)]);
        assert!(walk.answered(&reply(node(1), false, 1), (2..20).map(node), false).is_empty());
        let first = asked(&mut walk);
        assert_eq!(first.len(), 10);
        for node in first {
            walk.answered(&reply(node, true, 0), [node; 3], false);
        }
        for node in asked(&mut walk) {
            walk.answered(&reply(node, true, 0), [], false);
        }
        assert_eq!(walk.step(), Step::End);
        assert_eq!((walk.closest.len(), walk.successes, walk.errors), (18, 18, 1));
        assert!(walk.closest.is_sorted_by_key(|reply| walk.distance(&node_id(reply.from))));
    }

    #[test]
    fn the_end_does_not_wait_for_slow_ones_and_silence_is_told() {
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10, K);
        walk.add_known([node(1)]);
        asked(&mut walk);
        walk.answered(&reply(node(1), true, 0), (2..=40).map(node), false);
        let slow = asked(&mut walk);
        slow.iter().for_each(|_| walk.slowed());
        assert_eq!(walk.missed(slow[0], true), [DownHint { to: node(1), about: slow[0] }]);
        loop {
            let more = asked(&mut walk);
            if more.is_empty() {
                break;
            }
            for node in more {
                assert!(!slow.contains(&node));
                walk.answered(&reply(node, true, 0), [], false);
            }
        }
        assert_eq!((walk.step(), walk.closest.len()), (Step::End, K));
        let hints = walk.answered(&reply(slow[1], true, 0), [slow[0]], true);
        assert_eq!(hints, [DownHint { to: slow[1], about: slow[0] }]);
    }

    #[test]
    fn given_nodes_first_then_the_table() {
        let nodes: Vec<_> = (1..=20).map(node).collect();
        let mut walk = Walk::new(Query { nodes: nodes.clone(), ..Query::find_node([7; 32]) }, Purpose::Owner, 10, K);
        assert_eq!(walk.missing(), 0);
        let mut order = asked(&mut walk);
        assert_eq!(order.len(), 10);
        walk.missed(order[0], false);
        assert_eq!(asked(&mut walk), [], "three at a time from here on");
        for node in order.clone().into_iter().skip(1) {
            walk.missed(node, false);
        }
        loop {
            let more = asked(&mut walk);
            if more.is_empty() {
                break;
            }
            order.extend(&more);
            more.into_iter().for_each(|node| drop(walk.missed(node, false)));
        }
        assert_eq!(order, nodes);
        assert_eq!(walk.step(), Step::NeedsTable);
        walk.add_known([node(77)]);
        assert_eq!(asked(&mut walk), [node(77)]);
        walk.missed(node(77), false);
        assert_eq!(walk.step(), Step::End);
    }

    /// Walks among nodes that all answer with all of `known`; whom it asked, and the closest.
    fn walk_among(known: &[SocketAddrV4], per_subnet: usize) -> (usize, Vec<SocketAddrV4>) {
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10, per_subnet);
        walk.add_known([known[0]]);
        let mut count = 0;
        loop {
            let next = asked(&mut walk);
            if next.is_empty() {
                break;
            }
            count += next.len();
            for node in next {
                walk.answered(&reply(node, true, 0), known.iter().copied(), false);
            }
        }
        assert_eq!(walk.step(), Step::End);
        let closest = walk.into_closest();
        let distance = |reply: &Reply| std::array::from_fn::<u8, 32, _>(|at| reply.from_id.map_or(0, |id| id[at]) ^ 7);
        assert!(closest.len() <= K && closest.is_sorted_by_key(distance));
        (count, closest.iter().map(|reply| reply.from).collect())
    }

    #[test]
    fn ports_of_two_hosts_do_not_make_a_neighbourhood() {
        // A node in each of 60 networks, and of two hosts those of all their ports that are nearest to the target.
        let honest: Vec<SocketAddrV4> = (0..60).map(|n| SocketAddrV4::new(Ipv4Addr::new(9, 9, n, 1), 9)).collect();
        let hosts = [Ipv4Addr::new(66, 6, 6, 6), Ipv4Addr::new(77, 7, 7, 7)];
        let mut ports: Vec<SocketAddrV4> =
            hosts.iter().flat_map(|host| (1..10_000).map(|port| SocketAddrV4::new(*host, port))).collect();
        ports.sort_by_cached_key(|node| std::array::from_fn::<u8, 32, _>(|at| node_id(*node)[at] ^ 7));
        ports.truncate(500);
        let known: Vec<SocketAddrV4> = honest.iter().chain(&ports).copied().collect();
        let liars = |closest: &[SocketAddrV4]| closest.iter().filter(|node| hosts.contains(node.ip())).count();
        let (_, closest) = walk_among(&known, K);
        assert_eq!((closest.len(), liars(&closest)), (K, K), "JavaScript's walk");
        let (asked, closest) = walk_among(&known, 3);
        assert_eq!((closest.len(), liars(&closest)), (K, 6));
        assert!(closest.contains(&ports[0]) && asked < 60, "{asked}");
    }

    #[test]
    fn a_network_of_one_subnet_is_walked_whole() {
        let known: Vec<SocketAddrV4> = (1..=40).map(|n| SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, n), 9)).collect();
        let (_, closest) = walk_among(&known, 3);
        assert_eq!(closest.len(), K);
        let few: Vec<SocketAddrV4> = known[..12].to_vec();
        assert_eq!(walk_among(&few, 3).1.len(), 12);
    }

    #[test]
    fn only_given() {
        let query = Query { nodes: vec![node(1)], is_only_given: true, ..Query::find_node([7; 32]) };
        let mut walk = Walk::new(query, Purpose::Owner, 10, K);
        assert_eq!((walk.missing(), asked(&mut walk)), (0, vec![node(1)]));
        walk.answered(&reply(node(1), true, 0), [node(2)], false);
        assert_eq!(walk.step(), Step::End);
    }

    #[test]
    fn a_liar_does_not_make_it_large() {
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10, K);
        walk.add_known([node(0)]);
        let mut told = 1;
        let mut steps = 0;
        while let Step::Ask(next) = walk.step() {
            walk.answered(&reply(next, false, 1), (told..told + 20).map(node), false);
            (told, steps) = (told + 20, steps + 1);
        }
        assert!(steps <= SEEN_MAX && walk.seen.len() <= SEEN_MAX, "{steps}");
    }
}
