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
//! What must stay true: every address is asked once; of the closest no more than [`SUBNET_MAX`] are of one public /24 (which JavaScript's does not limit); a node is asked only while it is closer than the worst of the 20; nothing a node tells makes a walk larger
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
/// Nodes of one public /24 among the closest: ids follow from addresses, so one host with its 65,000 ports is nearer to any target than all honest nodes.
const SUBNET_MAX: usize = 8;
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
    /// Its 20 closest answers, the closest first.
    pub closest: Vec<Reply>,
    /// Answers without an error.
    pub successes: usize,
    /// Errors and silence.
    pub errors: usize,
    seen: HashMap<SocketAddrV4, Seen>,
    given: VecDeque<SocketAddrV4>,
    pending: BTreeMap<[u8; 32], SocketAddrV4>,
    asked: usize,
    slow: usize,
    is_slowed_down: bool,
    is_table_used: bool,
}

impl Walk {
    /// A walk that knows its given nodes only.
    pub fn new(query: Query, purpose: Purpose, concurrency: usize) -> Walk {
        let mut walk = Walk {
            concurrency: query.concurrency.unwrap_or(concurrency).max(1),
            purpose,
            closest: Vec::new(),
            successes: 0,
            errors: 0,
            seen: HashMap::new(),
            given: VecDeque::new(),
            pending: BTreeMap::new(),
            asked: 0,
            slow: 0,
            is_slowed_down: false,
            is_table_used: query.is_only_given,
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
        let is_over = self.asked == 0 || (self.slow == self.asked && self.closest.len() >= K);
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
            } else if self.crowded_out(node, &distance).is_none_or(|at| at.is_some()) {
                return Some(node);
            }
        }
        None
    }

    /// None: the closest have room for one more of this node's network. Else its place is that of the farthest of these, if it is closer than that one.
    fn crowded_out(&self, node: SocketAddrV4, distance: &[u8; 32]) -> Option<Option<usize>> {
        if Scope::of(node) != Some(Scope::Public) {
            return None;
        }
        let is_neighbour = |(_, other): &(usize, &Reply)| subnet(*other.from.ip()) == subnet(*node.ip());
        let neighbours = || self.closest.iter().enumerate().filter(is_neighbour);
        if neighbours().count() < SUBNET_MAX {
            return None;
        }
        let farthest = neighbours().next_back();
        Some(farthest.filter(|(_, other)| *distance < self.distance(&node_id(other.from))).map(|(at, _)| at))
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
        let Some(id) = &reply.from_id else { return };
        let distance = self.distance(id);
        let far = |other: &Reply| other.from_id.map_or([0xff; 32], |id| self.distance(&id));
        if let Err(at) = self.closest.binary_search_by_key(&distance, far) {
            match self.crowded_out(reply.from, &distance) {
                Some(None) => return,
                // It is farther away than the new one: `at` stays where it is.
                Some(Some(farthest)) => drop(self.closest.remove(farthest)),
                None => {}
            }
            self.closest.insert(at, reply.clone());
            self.closest.truncate(K);
        }
    }

    fn is_closer(&self, distance: &[u8; 32]) -> bool {
        let worst = self.closest.get(K - 1).and_then(|reply| reply.from_id);
        worst.is_none_or(|worst| *distance < self.distance(&worst))
    }

    fn distance(&self, id: &[u8; 32]) -> [u8; 32] {
        std::array::from_fn(|at| id[at] ^ self.query.target[at])
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::udp::SocketId;

    fn node(n: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(1, (n >> 8) as u8, n as u8, 1), 9)
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
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10);
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
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10);
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
        let mut walk = Walk::new(Query { nodes: nodes.clone(), ..Query::find_node([7; 32]) }, Purpose::Owner, 10);
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

    /// Every port of one host is a node, and they name each other.
    #[test]
    fn one_host_does_not_crowd_out_the_others() {
        let honest: Vec<_> = (1..=30).map(|n| SocketAddrV4::new(Ipv4Addr::new(20, n, 0, 1), 9)).collect();
        let mut mine: Vec<_> = (1..=20_000).map(|port| SocketAddrV4::new(Ipv4Addr::new(66, 6, 6, 6), port)).collect();
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10);
        mine.sort_by_key(|node| walk.distance(&node_id(*node)));
        mine.truncate(400);
        walk.add_known(honest.iter().copied().chain([mine[0]]));
        let mut steps = 0;
        while let Step::Ask(next) = walk.step() {
            let closer = if next.ip().octets()[0] == 66 { &mine[..] } else { &honest[..] };
            walk.answered(&reply(next, true, 0), closer.iter().copied(), false);
            steps += 1;
        }
        let of_host = walk.closest.iter().filter(|reply| reply.from.ip().octets()[0] == 66).count();
        assert_eq!((walk.closest.len(), of_host), (K, SUBNET_MAX));
        assert!(steps < 60, "and it costs no time: {steps}");
        assert!(walk.closest.is_sorted_by_key(|reply| walk.distance(&node_id(reply.from))));
    }

    #[test]
    fn only_given() {
        let query = Query { nodes: vec![node(1)], is_only_given: true, ..Query::find_node([7; 32]) };
        let mut walk = Walk::new(query, Purpose::Owner, 10);
        assert_eq!((walk.missing(), asked(&mut walk)), (0, vec![node(1)]));
        walk.answered(&reply(node(1), true, 0), [node(2)], false);
        assert_eq!(walk.step(), Step::End);
    }

    #[test]
    fn a_liar_does_not_make_it_large() {
        let mut walk = Walk::new(Query::find_node([7; 32]), Purpose::Owner, 10);
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
