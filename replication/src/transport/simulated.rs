//! A made-up network: several nodes in one thread, made-up time, everything from one seed. [`Simulation`].
//!
//! ```text
//!            wire between two nodes, each way:
//! take_output --> pieces of random size, each after a random delay, in order --> handle_bytes
//!                 at most WINDOW bytes on their way; any piece may be the last: the wire breaks
//! ```
//!
//! The whole stack runs as it does over TCP: handshake, encryption, channels, replicators. Only the driver is another one: here what [`Node`] wants to have called
//! is called at once, and time passes when nothing else is left to do. Bandwidth is without limit.
//!
//! What must stay true: two simulations with the same seed that are told the same do the same, to the last byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::DiscoveryKey;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::memory::Memory;

use crate::error::Fault;
use crate::node::{Effects, Link, Node};
use crate::replicator::Now;
use crate::secret_stream::{Identity, Randomness, Role};

/// How many bytes may be on their way in one direction of a wire.
const WINDOW: usize = 256 << 10;

/// How a simulated network behaves.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The shortest and the longest time a piece takes.
    pub delay: (Duration, Duration),
    /// No piece is longer.
    pub piece_bytes_max: usize,
    /// Of a million pieces so many break their wire.
    pub breaks_per_million: u32,
    /// The shortest and the longest time until a broken wire is made again.
    pub redial: (Duration, Duration),
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            delay: (Duration::from_millis(1), Duration::from_millis(20)),
            piece_bytes_max: 64 << 10,
            breaks_per_million: 0,
            redial: (Duration::from_millis(100), Duration::from_secs(1)),
        }
    }
}

/// Numbers that look random, from a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below a limit, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// A time between two.
    pub fn between(&mut self, (shortest, longest): (Duration, Duration)) -> Duration {
        let span = longest.saturating_sub(shortest).as_micros() as u64;
        shortest + Duration::from_micros(self.below(span + 1))
    }

    /// So many bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.number().to_le_bytes()[..piece.len()]);
        }
        bytes
    }
}

enum Happening {
    /// A piece arrives at an end of a wire.
    Piece(u64, usize, Bytes),
    /// An end of a wire notices that it is broken.
    Broken(u64, usize),
    Dial(usize, usize),
    Timeout(usize, DiscoveryKey),
}

struct Wire {
    /// Who is at its ends: the first one dialled.
    ends: [(usize, Arc<Link>); 2],
    /// When the last piece towards an end arrives.
    last_arrival: [Now; 2],
    on_the_way: [usize; 2],
    is_broken: bool,
    /// How many of its ends have noticed.
    ended: usize,
}

struct Computer {
    node: Node,
}

/// Several nodes, a network between them, and time.
pub struct Simulation {
    conditions: Conditions,
    random: Random,
    now: Now,
    sequence: u64,
    happenings: BTreeMap<(Now, u64), Happening>,
    timeouts: BTreeMap<(usize, DiscoveryKey), Now>,
    computers: Vec<Computer>,
    wires: BTreeMap<u64, Wire>,
    kept: BTreeSet<(usize, usize)>,
    cut: BTreeSet<(usize, usize)>,
    frozen: BTreeSet<usize>,
    faults: Vec<(usize, Fault)>,
    pieces: u64,
}

impl Simulation {
    /// Without nodes, at time 0.
    pub fn new(seed: u64, conditions: Conditions) -> Simulation {
        Simulation {
            conditions,
            random: Random::new(seed),
            now: Now::ZERO,
            sequence: 0,
            happenings: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            computers: Vec::new(),
            wires: BTreeMap::new(),
            kept: BTreeSet::new(),
            cut: BTreeSet::new(),
            frozen: BTreeSet::new(),
            faults: Vec::new(),
            pieces: 0,
        }
    }

    /// A node with an empty store in memory. Its number.
    pub fn add_node(&mut self) -> usize {
        let options = Options { primary_key: Some(self.random.bytes()) };
        let store = Store::open(Arc::new(Memory::new()), options).expect("memory opens");
        let identity = Identity::from_seed(self.random.bytes());
        self.computers.push(Computer { node: Node::new(store, identity) });
        self.computers.len() - 1
    }

    /// A node's store.
    pub fn store(&self, node: usize) -> &Arc<Store> {
        self.computers[node].node.store()
    }

    /// A node.
    pub fn node(&self, node: usize) -> &Node {
        &self.computers[node].node
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// How many pieces of bytes have arrived.
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Connections that were ended for what the other side did, and at which node.
    pub fn faults(&self) -> &[(usize, Fault)] {
        &self.faults
    }

    /// The network behaves otherwise from now on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Keep a connection from one node to another: it is made again when it breaks.
    pub fn keep_connected(&mut self, from: usize, to: usize) {
        if self.kept.insert((from, to)) {
            self.at(self.now, Happening::Dial(from, to));
        }
    }

    /// A node keeps a core up to date.
    pub fn follow(&mut self, node: usize, core: &Arc<Core>) {
        let effects = self.computers[node].node.follow(core);
        self.settle(node, effects);
    }

    /// A node's program is ended and begun anew: it keeps its store and its key pair, and follows nothing yet.
    pub fn restart(&mut self, node: usize) {
        let of_node: Vec<u64> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.ends.iter().any(|end| end.0 == node))
            .map(|(id, _)| *id)
            .collect();
        for id in of_node {
            let links: Vec<Arc<Link>> =
                self.wires[&id].ends.iter().filter(|end| end.0 == node).map(|end| end.1.clone()).collect();
            for link in links {
                // Nothing comes of it: who would have done it is gone.
                self.computers[node].node.disconnect(&link);
            }
            self.break_wire(id);
        }
        let (store, identity) = (self.store(node).clone(), self.node(node).identity().clone());
        self.computers[node].node = Node::new(store, identity);
    }

    /// A core of a node was changed, or something of it is wanted, other than by its peers.
    pub fn changed(&mut self, node: usize, core: &Core) {
        if let Some(slot) = self.computers[node].node.core(core.key()) {
            self.settle(node, Effects { run: vec![slot], ..Effects::default() });
        }
    }

    /// Nothing passes between two nodes from now on; what connects them breaks.
    pub fn partition(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
        let between = |wire: &Wire| [[one, other], [other, one]].contains(&[wire.ends[0].0, wire.ends[1].0]);
        let broken: Vec<u64> = self.wires.iter().filter(|(_, wire)| between(wire)).map(|(id, _)| *id).collect();
        broken.into_iter().for_each(|wire| self.break_wire(wire));
    }

    /// Everything passes again, and everyone goes on.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.frozen.clear();
    }

    /// A node does nothing any longer, and nobody notices: what reaches it is lost.
    pub fn freeze(&mut self, node: usize) {
        self.frozen.insert(node);
    }

    /// Let time pass until something is so, for so long at most. Whether it is.
    pub fn run_until(&mut self, longest: Duration, mut is: impl FnMut(&Simulation) -> bool) -> bool {
        let end = self.now + longest;
        loop {
            if is(self) {
                return true;
            }
            match self.happenings.first_key_value() {
                Some((&(at, _), _)) if at <= end => self.step(),
                _ => {
                    self.now = end;
                    return is(self);
                }
            }
        }
    }

    /// Let time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn at(&mut self, at: Now, happening: Happening) {
        self.sequence += 1;
        self.happenings.insert((at, self.sequence), happening);
    }

    fn step(&mut self) {
        let Some(((at, _), happening)) = self.happenings.pop_first() else { return };
        self.now = self.now.max(at);
        match happening {
            Happening::Piece(wire, end, piece) => self.arrive(wire, end, &piece),
            Happening::Broken(wire, end) => {
                let Some(broken) = self.wires.get_mut(&wire) else { return };
                broken.ended += 1;
                let ends = broken.ends.clone();
                if broken.ended == 2 {
                    self.wires.remove(&wire);
                }
                let (node, link) = &ends[end];
                let effects = self.computers[*node].node.disconnect(link);
                self.settle(*node, effects);
                if end == 0 && self.kept.contains(&(ends[0].0, ends[1].0)) {
                    let again = self.now + self.random.between(self.conditions.redial);
                    self.at(again, Happening::Dial(ends[0].0, ends[1].0));
                }
            }
            Happening::Dial(from, to) => self.dial(from, to),
            Happening::Timeout(node, core) => {
                if self.timeouts.get(&(node, core)).is_some_and(|due| *due <= self.now) {
                    self.timeouts.remove(&(node, core));
                    let slot =
                        self.computers[node].node.cores().into_iter().find(|slot| slot.core().discovery_key() == core);
                    self.settle(node, Effects { run: slot.into_iter().collect(), ..Effects::default() });
                }
            }
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        if self.cut.contains(&(from, to)) {
            let again = self.now + self.random.between(self.conditions.redial);
            return self.at(again, Happening::Dial(from, to));
        }
        self.sequence += 1;
        let id = self.sequence;
        let mut link = |node: usize, role| {
            let random = Randomness::new(self.random.bytes());
            (node, self.computers[node].node.connect(role, random))
        };
        let ends = [link(from, Role::Initiator), link(to, Role::Responder)];
        self.wires
            .insert(id, Wire { ends, last_arrival: [self.now; 2], on_the_way: [0; 2], is_broken: false, ended: 0 });
        self.flush(id, 0);
    }

    fn break_wire(&mut self, id: u64) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if std::mem::replace(&mut wire.is_broken, true) {
            return;
        }
        for end in 0..2 {
            let at = self.now + self.random.between(self.conditions.delay);
            self.at(at, Happening::Broken(id, end));
        }
    }

    fn arrive(&mut self, id: u64, end: usize, piece: &Bytes) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.on_the_way[end] -= piece.len();
        if wire.is_broken || self.frozen.contains(&wire.ends[end].0) {
            return;
        }
        self.pieces += 1;
        if self.random.below(1_000_000) < u64::from(self.conditions.breaks_per_million) {
            return self.break_wire(id);
        }
        let (node, link) = wire.ends[end].clone();
        self.receive(id, node, &link, piece);
        // What waited for room on the way can go on.
        self.flush(id, 1 - end);
        self.flush(id, end);
    }

    fn receive(&mut self, id: u64, node: usize, link: &Arc<Link>, piece: &[u8]) {
        let mut effects = Effects::default();
        let handled = self.computers[node].node.handle_bytes(link, piece, &mut effects);
        while let Some(discovery) = effects.asked.pop() {
            let answered = self.computers[node].node.answer(link, discovery);
            effects.run.extend(answered.run);
            effects.links.extend(answered.links);
            effects.asked.extend(answered.asked);
        }
        self.settle(node, effects);
        match handled {
            Err(fault) => self.fault(id, node, fault),
            Ok(()) if link.can_go_on() => self.receive(id, node, link, &[]),
            Ok(()) => {}
        }
    }

    fn fault(&mut self, wire: u64, node: usize, fault: Fault) {
        if self.wires.get(&wire).is_some_and(|wire| !wire.is_broken) {
            self.faults.push((node, fault));
            self.break_wire(wire);
        }
    }

    /// Do what a node wants to have done, until there is nothing more.
    fn settle(&mut self, node: usize, mut effects: Effects) {
        let mut links = std::mem::take(&mut effects.links);
        let mut run = std::mem::take(&mut effects.run);
        while let Some(slot) = run.pop() {
            let ran = self.computers[node].node.run(&slot, self.now);
            let core = slot.core().discovery_key();
            if let Some(at) = ran.timeout
                && self.timeouts.get(&(node, core)).is_none_or(|due| at < *due)
            {
                let at = at.max(self.now + Duration::from_millis(1));
                self.timeouts.insert((node, core), at);
                self.at(at, Happening::Timeout(node, core));
            }
            links.extend(ran.links);
            if ran.again {
                run.push(slot);
            } else {
                self.computers[node].node.release(&slot);
            }
        }
        for link in links {
            let wire = self
                .wires
                .iter()
                .find(|(_, wire)| wire.ends.iter().any(|(at, other)| *at == node && Arc::ptr_eq(other, &link)));
            let Some((&id, wire)) = wire else { continue };
            let end = usize::from(!Arc::ptr_eq(&wire.ends[0].1, &link));
            match link.fault() {
                Some(fault) => self.fault(id, node, fault),
                None => {
                    if link.can_go_on() {
                        self.receive(id, node, &link, &[]);
                    }
                    self.flush(id, end);
                }
            }
        }
    }

    /// Send what an end of a wire has to say, as far as there is room.
    fn flush(&mut self, id: u64, end: usize) {
        let mut effects = Effects::default();
        let Some(wire) = self.wires.get(&id) else { return };
        let (node, link) = wire.ends[end].clone();
        loop {
            let Some(wire) = self.wires.get_mut(&id) else { return };
            if wire.is_broken || wire.on_the_way[1 - end] >= WINDOW {
                break;
            }
            let size = 1 + self.random.below(self.conditions.piece_bytes_max as u64) as usize;
            let piece = self.computers[node].node.take_output(&link, size, &mut effects);
            if piece.is_empty() {
                break;
            }
            wire.on_the_way[1 - end] += piece.len();
            let at = (self.now + self.random.between(self.conditions.delay)).max(wire.last_arrival[1 - end]);
            wire.last_arrival[1 - end] = at;
            self.at(at, Happening::Piece(id, 1 - end, piece));
        }
        if !effects.run.is_empty() {
            self.settle(node, effects);
        }
    }
}
