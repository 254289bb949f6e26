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
//! Hundreds may wait in one queue, and each of them looks. A circle is sought depth first, and no edge is made that leads to one seen before: those
//! who wait for the same in the same mode have the same edges ahead, each up to its own place, so that one goes on where another stopped.
//!
//! What must stay true:
//!
//! * all of it happens under the queues' lock, where no edge comes or goes but an edge to one that does not wait;
//! * a search for a circle takes steps in proportion to those who hold and wait, not to the edges between them.

use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Owner;
use super::mode::{TABLE_CONFLICTS, bit};
use super::queues::Queues;
use super::shards::{Holder, Object, Shards, conflicts};

/// Orders of queues that are tried at most; with more soft edges than that it counts as a deadlock.
const TRIES_MAX: usize = 1000;
/// Steps after which no other order is tried: all that wait for a lock wait for whoever looks.
const STEPS_MAX: usize = 4_000_000;
/// Modes are numbered below.
const MODES: usize = 9;

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

const _: () = assert!(TABLE_CONFLICTS.len() == MODES);

type Orders = FxHashMap<Object, Vec<Owner>>;

/// Looks for circles through a session that waits.
pub(super) fn look(queues: &Queues, shards: &Shards, start: Owner) -> Found {
    Search::new(queues, shards).look(start)
}

/// The same, and the steps it took.
#[cfg(test)]
pub(super) fn look_counted(queues: &Queues, shards: &Shards, start: Owner) -> (Found, usize) {
    let mut search = Search::new(queues, shards);
    (search.look(start), search.steps)
}

/// Whom a session waits for, hard edges first and soft ones included, each once.
pub(super) fn blockers(queues: &Queues, shards: &Shards, waiter: Owner) -> Vec<Edge> {
    let Some((object, waiting)) = queues.waits(waiter) else { return Vec::new() };
    let mask = conflicts(object, waiting.mode);
    let edge = |blocker, is_hard| Edge { waiter, object, mode: waiting.mode, blocker, is_hard };
    let holders = shards.holders(object).into_iter().filter(|h| h.owner != waiter && h.modes & mask != 0);
    let mut edges: Vec<Edge> = holders.map(|h| edge(h.owner, true)).collect();
    // Nobody is twice in a queue, but a holder may be in it.
    let hard: FxHashSet<Owner> = edges.iter().map(|e| e.blocker).collect();
    let before = queues.queues[&object].iter().take_while(|w| w.owner != waiter);
    let soft = before.filter(|w| bit(w.mode) & mask != 0 && !hard.contains(&w.owner));
    edges.extend(soft.map(|w| edge(w.owner, false)));
    edges
}

struct Search<'a> {
    queues: &'a Queues,
    shards: &'a Shards,
    holders: FxHashMap<Object, Arc<[Holder]>>,
    tries: usize,
    /// Holders and waiters that were looked at.
    steps: usize,
}

/// What a test of wishes found.
enum Test {
    Free(Orders),
    Soft(Vec<Edge>),
    Hard,
}

/// An object that is waited for, as one search for a circle sees it.
struct Line {
    holders: Arc<[Holder]>,
    /// Those who wait and their modes, in the order that is tried.
    waiters: Vec<(Owner, u8)>,
    places: FxHashMap<Owner, usize>,
    /// For each mode, how many holders have been passed by those who wait in it: they are seen, or not in their way.
    hard: [usize; MODES],
    /// The same of the waiters.
    soft: [usize; MODES],
}

/// One on the path, and where its next edge is.
struct Ahead {
    waiter: Owner,
    object: Object,
    mode: u8,
    /// Its place in the line: who is before it may be in its way.
    place: usize,
    /// How many holders were passed by the one the search began with. It passes itself, whom others must not pass, so it does not share this.
    own_hard: Option<usize>,
}

impl Ahead {
    /// The next edge, hard ones first. Edges to those who were seen may be left out, but none to the one the search began with.
    fn next(&mut self, line: &mut Line, steps: &mut usize) -> Option<Edge> {
        let (waiter, object, mode) = (self.waiter, self.object, self.mode);
        let mask = conflicts(object, mode);
        let edge = |blocker, is_hard| Some(Edge { waiter, object, mode, blocker, is_hard });
        let hard = self.own_hard.as_mut().unwrap_or(&mut line.hard[usize::from(mode)]);
        while let Some(holder) = line.holders.get(*hard) {
            (*hard, *steps) = (*hard + 1, *steps + 1);
            if holder.owner != waiter && holder.modes & mask != 0 {
                return edge(holder.owner, true);
            }
        }
        let soft = &mut line.soft[usize::from(mode)];
        while *soft < self.place {
            let (owner, waits) = line.waiters[*soft];
            (*soft, *steps) = (*soft + 1, *steps + 1);
            if bit(waits) & mask != 0 {
                return edge(owner, false);
            }
        }
        None
    }
}

impl<'a> Search<'a> {
    fn new(queues: &'a Queues, shards: &'a Shards) -> Search<'a> {
        Search { queues, shards, holders: FxHashMap::default(), tries: 0, steps: 0 }
    }

    fn look(&mut self, start: Owner) -> Found {
        match self.solve(start, &mut Vec::new()) {
            Some(orders) if orders.is_empty() => Found::Nothing,
            Some(orders) => Found::Orders(orders.into_iter().collect()),
            // As things are, without the wishes that did not help.
            None => match self.circle(start, &Orders::default()) {
                Some(circle) => Found::Deadlock(circle),
                None => Found::Nothing,
            },
        }
    }

    /// Orders without circle, as far as wishes lead to them.
    fn solve(&mut self, start: Owner, wishes: &mut Vec<Wish>) -> Option<Orders> {
        self.tries += 1;
        let soft = match self.test(start, wishes) {
            Test::Free(orders) => return Some(orders),
            Test::Hard => return None,
            Test::Soft(soft) => soft,
        };
        for edge in soft {
            if self.tries >= TRIES_MAX || self.steps >= STEPS_MAX {
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
    fn orders(&mut self, wishes: &[Wish]) -> Option<Orders> {
        let mut orders = Orders::default();
        for wish in wishes {
            if let Entry::Vacant(order) = orders.entry(wish.object) {
                let queue: Vec<Owner> = self.queues.queues.get(&wish.object)?.iter().map(|w| w.owner).collect();
                self.steps += queue.len() + wishes.len();
                order.insert(ordered(&queue, wishes.iter().filter(|w| w.object == wish.object))?);
            }
        }
        Some(orders)
    }

    /// A circle through a session, beginning with it.
    fn circle(&mut self, start: Owner, orders: &Orders) -> Option<Vec<Edge>> {
        // Depth first, by hand: hundreds may wait in a chain.
        let mut seen = FxHashSet::from_iter([start]);
        let mut lines = FxHashMap::default();
        let mut path: Vec<Edge> = Vec::new();
        let mut ahead = Vec::from_iter(self.ahead(start, start, orders, &mut lines));
        while let Some(last) = ahead.last_mut() {
            let line = lines.get_mut(&last.object).expect("who is on the path stands in a line");
            let Some(edge) = last.next(line, &mut self.steps) else {
                ahead.pop();
                path.pop();
                continue;
            };
            if edge.blocker == start {
                path.push(edge);
                return Some(path);
            }
            if seen.insert(edge.blocker)
                && let Some(next) = self.ahead(edge.blocker, start, orders, &mut lines)
            {
                path.push(edge);
                ahead.push(next);
            }
        }
        None
    }

    /// Where a session's edges begin; `None` if it does not wait.
    fn ahead(
        &mut self,
        waiter: Owner,
        start: Owner,
        orders: &Orders,
        lines: &mut FxHashMap<Object, Line>,
    ) -> Option<Ahead> {
        let object = self.queues.seat(waiter)?.waits?;
        let line = match lines.entry(object) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(line) => line.insert(self.line(object, orders)?),
        };
        let place = *line.places.get(&waiter)?;
        let own_hard = (waiter == start).then_some(0);
        Some(Ahead { waiter, object, mode: line.waiters[place].1, place, own_hard })
    }

    /// Who holds an object and who waits for it, in the order that is tried.
    fn line(&mut self, object: Object, orders: &Orders) -> Option<Line> {
        let queue = self.queues.queues.get(&object)?;
        self.steps += queue.len();
        let mut waiters: Vec<(Owner, u8)> = queue.iter().map(|w| (w.owner, w.mode)).collect();
        if let Some(order) = orders.get(&object) {
            let modes: FxHashMap<Owner, u8> = waiters.into_iter().collect();
            waiters = order.iter().filter_map(|owner| Some((*owner, *modes.get(owner)?))).collect();
        }
        let places = waiters.iter().enumerate().map(|(at, (owner, _))| (*owner, at)).collect();
        let shards = self.shards;
        let holders = self.holders.entry(object).or_insert_with(|| shards.holders(object).into()).clone();
        Some(Line { holders, waiters, places, hard: [0; MODES], soft: [0; MODES] })
    }
}

/// A queue's order in which each wish comes true and little else changes; `None` if the wishes contradict each other.
fn ordered<'a>(queue: &[Owner], wishes: impl Iterator<Item = &'a Wish>) -> Option<Vec<Owner>> {
    let places: FxHashMap<Owner, usize> = queue.iter().enumerate().map(|(at, owner)| (*owner, at)).collect();
    // How many are still to be placed that each is wished before; and the other way around, who is wished before each.
    let mut held_up = vec![0_usize; queue.len()];
    let mut wished: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
    for wish in wishes {
        if let (Some(waiter), Some(blocker)) = (places.get(&wish.waiter), places.get(&wish.blocker)) {
            held_up[*waiter] += 1;
            wished.entry(*blocker).or_default().push(*waiter);
        }
    }
    // From the end: the last who is not wished before one that is still to be placed.
    let mut ready: BinaryHeap<usize> = (0..queue.len()).filter(|at| held_up[*at] == 0).collect();
    let mut order = Vec::with_capacity(queue.len());
    while let Some(at) = ready.pop() {
        order.push(queue[at]);
        for waiter in wished.remove(&at).into_iter().flatten() {
            held_up[waiter] -= 1;
            if held_up[waiter] == 0 {
                ready.push(waiter);
            }
        }
    }
    order.reverse();
    (order.len() == queue.len()).then_some(order)
}
