//! Through which nodes a handshake is tried: those known up front one after the other, beside them those that a walk finds, two or three at once.
//!
//! ```text
//! known up front   a ── fails ──> b ── ...            one slot
//! found            x, y ── as they come in ──> ...    two slots
//!
//! all have failed, and the walk began at the known nodes: walk once more from the table, which may try them again
//! ```
//!
//! What must stay true: at most [`ATTEMPTS_MAX`] handshakes are sent, however many nodes claim to know the peer.
//! Source: `findAndConnect` in hyperdht `lib/connect.js`.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

/// Handshakes tried for one connection.
pub const ATTEMPTS_MAX: usize = 40;
/// Nodes that wait for their turn.
const FOUND_MAX: usize = 64;
/// Nodes known up front that are believed.
const KNOWN_MAX: usize = 16;
const PARALLEL: usize = 2;
const PARALLEL_WITH_KNOWN: usize = 3;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the handshake through this node.
    Try(SocketAddrV4),
    /// Walk towards the peer, from these nodes first.
    Walk(Vec<SocketAddrV4>),
    /// Wait for what is under way.
    Wait,
    /// Nothing is left.
    Exhausted,
}

/// Where a search stands.
pub struct Search {
    up_front: Vec<SocketAddrV4>,
    known: VecDeque<SocketAddrV4>,
    /// The one of `up_front` that is being tried.
    known_active: Option<SocketAddrV4>,
    found: VecDeque<SocketAddrV4>,
    tried: Vec<SocketAddrV4>,
    /// Not to be tried again in this walk.
    skipped: Vec<SocketAddrV4>,
    active: usize,
    parallel: usize,
    walks_left: u8,
    walks: u8,
    is_walking: bool,
}

impl Search {
    /// Begins with these nodes, if there are any.
    pub fn new(mut known: Vec<SocketAddrV4>) -> Search {
        known.truncate(KNOWN_MAX);
        let has_known = !known.is_empty();
        Search {
            known: known.iter().copied().collect(),
            skipped: known.clone(),
            up_front: known,
            known_active: None,
            found: VecDeque::new(),
            tried: Vec::new(),
            active: 0,
            parallel: if has_known { PARALLEL_WITH_KNOWN } else { PARALLEL },
            walks_left: if has_known { 2 } else { 1 },
            walks: 0,
            is_walking: false,
        }
    }

    /// What to do now; ask again until it is to wait.
    pub fn next(&mut self) -> Next {
        if let Some(node) = self.next_node() {
            self.active += 1;
            self.tried.push(node);
            return Next::Try(node);
        }
        let is_idle =
            self.active == 0 && self.found.is_empty() && self.known.is_empty() || self.tried.len() >= ATTEMPTS_MAX;
        if !self.is_walking && self.walks_left > 0 && (self.walks == 0 || is_idle) {
            return Next::Walk(self.walk());
        }
        if is_idle && self.active == 0 && !self.is_walking { Next::Exhausted } else { Next::Wait }
    }

    fn next_node(&mut self) -> Option<SocketAddrV4> {
        if self.active >= self.parallel || self.tried.len() >= ATTEMPTS_MAX {
            return None;
        }
        if self.known_active.is_none() && !self.known.is_empty() {
            self.known_active = self.known.pop_front();
            return self.known_active;
        }
        self.found.pop_front()
    }

    fn walk(&mut self) -> Vec<SocketAddrV4> {
        self.walks_left -= 1;
        self.walks += 1;
        self.is_walking = true;
        if self.walks > 1 {
            self.skipped.clear();
            return Vec::new();
        }
        self.up_front.clone()
    }

    /// A node says that it knows the peer.
    pub fn found(&mut self, node: SocketAddrV4) {
        if !self.skipped.contains(&node) && self.found.len() < FOUND_MAX && self.skipped.len() < FOUND_MAX + KNOWN_MAX {
            self.skipped.push(node);
            self.found.push_back(node);
        }
    }

    /// The walk is over.
    pub fn walked(&mut self) {
        self.is_walking = false;
    }

    /// A handshake through this node came to its end, and it was no good one.
    pub fn failed(&mut self, node: SocketAddrV4) {
        self.active = self.active.saturating_sub(1);
        if self.known_active == Some(node) {
            self.known_active = None;
        }
    }

    /// Nodes through which a handshake was tried.
    pub fn tried(&self) -> &[SocketAddrV4] {
        &self.tried
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn node(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 1)
    }

    #[test]
    fn two_at_once_and_the_next_when_one_fails() {
        let mut search = Search::new(Vec::new());
        assert_eq!(search.next(), Next::Walk(vec![]));
        assert_eq!(search.next(), Next::Wait);
        (1..=3).for_each(|n| search.found(node(n)));
        search.found(node(1));
        assert_eq!(search.next(), Next::Try(node(1)));
        assert_eq!(search.next(), Next::Try(node(2)));
        assert_eq!(search.next(), Next::Wait);
        search.failed(node(2));
        assert_eq!(search.next(), Next::Try(node(3)));
        search.walked();
        assert_eq!(search.next(), Next::Wait);
        search.failed(node(1));
        search.failed(node(3));
        assert_eq!(search.next(), Next::Exhausted);
        assert_eq!(search.tried(), [node(1), node(2), node(3)]);
    }

    #[test]
    fn known_nodes_come_first_one_after_the_other_beside_two_found() {
        let mut search = Search::new(vec![node(1), node(2)]);
        assert_eq!(search.next(), Next::Try(node(1)));
        assert_eq!(search.next(), Next::Walk(vec![node(1), node(2)]));
        [node(1), node(7), node(8), node(9)].into_iter().for_each(|node| search.found(node));
        assert_eq!(search.next(), Next::Try(node(7)));
        assert_eq!(search.next(), Next::Try(node(8)));
        assert_eq!(search.next(), Next::Wait);
        search.failed(node(1));
        assert_eq!(search.next(), Next::Try(node(2)), "the next of those known");
        [node(2), node(7), node(8)].into_iter().for_each(|node| search.failed(node));
        assert_eq!(search.next(), Next::Try(node(9)));
        search.walked();
        search.failed(node(9));
        assert_eq!(search.next(), Next::Walk(vec![]), "once more, from the table");
        search.found(node(1));
        assert_eq!(search.next(), Next::Try(node(1)), "which may be tried again");
        search.failed(node(1));
        search.walked();
        assert_eq!(search.next(), Next::Exhausted);
    }

    #[test]
    fn a_crowd_of_liars_costs_a_bounded_number_of_handshakes() {
        let mut search = Search::new(vec![node(255); 1000]);
        let (mut tries, mut walks) = (0, 0);
        loop {
            match search.next() {
                Next::Try(node) => {
                    tries += 1;
                    search.failed(node);
                }
                Next::Walk(_) => {
                    walks += 1;
                    for n in 0..200 {
                        search.found(node(n));
                    }
                    search.walked();
                }
                Next::Wait => panic!("nothing is under way"),
                Next::Exhausted => break,
            }
        }
        assert!(tries <= ATTEMPTS_MAX && walks <= 2, "{tries} {walks}");
    }
}
