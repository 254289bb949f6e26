//! Deadlocks: circles in the graph of who waits for whom.
//!
//! ```text
//! hard   a waiter and a holder of what it waits for, in modes that conflict
//! soft   a waiter and one before it in the same queue, waiting in modes that conflict: it would not wait if it came first
//! ```
//!
//! A circle of hard edges is a deadlock. One with a soft edge may be undone by letting the waiter go before the other, unless that makes another
//! circle: orders of queues are tried, each a set of wishes "this one before that one", until one has no circle or none is left. Then whoever looks
//! is the victim. Source: PostgreSQL's `deadlock.c`.
//!
//! What must stay true: all of it happens under the queues' lock, where no edge comes or goes but an edge to one that does not wait.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Owner;
use super::mode::bit;
use super::queues::Queues;
use super::shards::{Holder, Object, Shards, conflicts};

/// Orders of queues that are tried at most; with more soft edges than that it counts as a deadlock.
const TRIES_MAX: usize = 1000;

/// One waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub waiter: Owner,
    pub object: Object,
    pub mode: u8,
    pub blocker: Owner,
    pub is_hard: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// No circle.
    Nothing,
    /// There is none when these queues are in these orders.
    Orders(Vec<(Object, Vec<Owner>)>),
    /// The circle, beginning with who looked.
    Deadlock(Vec<Edge>),
}

/// A wish: the waiter before the other.
#[derive(Clone, Copy)]
struct Wish {
    waiter: Owner,
    blocker: Owner,
    object: Object,
}

type Orders = FxHashMap<Object, Vec<Owner>>;

/// Looks for circles through a session that waits.
pub(super) fn look(queues: &Queues, shards: &Shards, start: Owner) -> Found {
    let mut search = Search { queues, shards, holders: FxHashMap::default(), tries: 0 };
    match search.solve(start, &mut Vec::new()) {
        Some(orders) if orders.is_empty() => Found::Nothing,
        Some(orders) => Found::Orders(orders.into_iter().collect()),
        // As things are, without the wishes that did not help.
        None => match search.circle(start, &Orders::default()) {
            Some(circle) => Found::Deadlock(circle),
            None => Found::Nothing,
        },
    }
}

/// Whom a session waits for, soft edges included, each once.
pub(super) fn blockers(queues: &Queues, shards: &Shards, waiter: Owner) -> Vec<Edge> {
    let mut search = Search { queues, shards, holders: FxHashMap::default(), tries: 0 };
    search.edges(waiter, &Orders::default())
}

struct Search<'a> {
    queues: &'a Queues,
    shards: &'a Shards,
    holders: FxHashMap<Object, Vec<Holder>>,
    tries: usize,
}

/// What a test of wishes found.
enum Test {
    Free(Orders),
    Soft(Vec<Edge>),
    Hard,
}

impl Search<'_> {
    /// Orders without circle, as far as wishes lead to them.
    fn solve(&mut self, start: Owner, wishes: &mut Vec<Wish>) -> Option<Orders> {
        self.tries += 1;
        let soft = match self.test(start, wishes) {
            Test::Free(orders) => return Some(orders),
            Test::Hard => return None,
            Test::Soft(soft) => soft,
        };
        for edge in soft {
            if self.tries >= TRIES_MAX {
                return None;
            }
            wishes.push(Wish { waiter: edge.waiter, blocker: edge.blocker, object: edge.object });
            if let Some(orders) = self.solve(start, wishes) {
                return Some(orders);
            }
            wishes.pop();
        }
        None
    }

    /// Whether circles are left when the wishes come true: through who looks, or through those who change places.
    fn test(&mut self, start: Owner, wishes: &[Wish]) -> Test {
        let Some(orders) = self.orders(wishes) else { return Test::Hard };
        let moved = wishes.iter().flat_map(|w| [w.waiter, w.blocker]);
        let mut soft = Vec::new();
        for from in moved.chain([start]) {
            let Some(circle) = self.circle(from, &orders) else { continue };
            let softs: Vec<Edge> = circle.into_iter().filter(|e| !e.is_hard).collect();
            if softs.is_empty() {
                return Test::Hard;
            }
            soft = softs;
        }
        if soft.is_empty() { Test::Free(orders) } else { Test::Soft(soft) }
    }

    /// The queues as wished, else as they are; None if wishes contradict each other.
    fn orders(&self, wishes: &[Wish]) -> Option<Orders> {
        let mut orders = Orders::default();
        for wish in wishes {
            if orders.contains_key(&wish.object) {
                continue;
            }
            let mut left: Vec<Owner> = self.queues.queues.get(&wish.object)?.iter().map(|w| w.owner).collect();
            let mut order = Vec::with_capacity(left.len());
            // From the end: the last who is not wished before one that is still to be placed.
            while !left.is_empty() {
                let may_be_last = |owner: &Owner| {
                    let held_up = |w: &Wish| w.object == wish.object && w.waiter == *owner && left.contains(&w.blocker);
                    !wishes.iter().any(held_up)
                };
                let at = left.iter().rposition(may_be_last)?;
                order.push(left.remove(at));
            }
            order.reverse();
            orders.insert(wish.object, order);
        }
        Some(orders)
    }

    /// A circle through a session, beginning with it.
    fn circle(&mut self, start: Owner, orders: &Orders) -> Option<Vec<Edge>> {
        // Depth first, by hand: hundreds may wait in a chain.
        let mut seen = FxHashSet::from_iter([start]);
        let mut path: Vec<Edge> = Vec::new();
        let mut ahead = vec![self.edges(start, orders)];
        while let Some(edges) = ahead.last_mut() {
            if edges.is_empty() {
                ahead.pop();
                path.pop();
                continue;
            }
            let edge = edges.remove(0);
            if edge.blocker == start {
                path.push(edge);
                return Some(path);
            }
            if seen.insert(edge.blocker) {
                path.push(edge);
                ahead.push(self.edges(edge.blocker, orders));
            }
        }
        None
    }

    /// Whom a session waits for, hard edges first.
    fn edges(&mut self, waiter: Owner, orders: &Orders) -> Vec<Edge> {
        let Some((object, waiting)) = self.queues.waits(waiter) else { return Vec::new() };
        let mask = conflicts(object, waiting.mode);
        let edge = |blocker, is_hard| Edge { waiter, object, mode: waiting.mode, blocker, is_hard };
        let shards = self.shards;
        let holders = self.holders.entry(object).or_insert_with(|| shards.holders(object));
        let mut edges: Vec<Edge> =
            holders.iter().filter(|h| h.owner != waiter && h.modes & mask != 0).map(|h| edge(h.owner, true)).collect();
        let queue = &self.queues.queues[&object];
        let mut soft = |owner: Owner, mode: u8| {
            if bit(mode) & mask != 0 && !edges.iter().any(|e| e.blocker == owner) {
                edges.push(edge(owner, false));
            }
        };
        match orders.get(&object) {
            None => queue.iter().take_while(|w| w.owner != waiter).for_each(|w| soft(w.owner, w.mode)),
            Some(order) => {
                for owner in order.iter().take_while(|o| **o != waiter) {
                    if let Some(w) = queue.iter().find(|w| w.owner == *owner) {
                        soft(w.owner, w.mode);
                    }
                }
            }
        }
        edges
    }
}
