//! Who stays in the table: what is done every 5 seconds, and when a node is heard of.
//!
//! ```text
//! every 8 ticks          ping the 2 to 5 nodes not heard of for longest; those that do not answer are removed
//! after 60 idle ticks    walk towards a node of the table, to meet others
//! fewer than 20 nodes    walk towards ourselves after 1, 3, 7 .. 63 ticks, for others may have begun when we did; then every 64
//! nobody has answered    begin anew at those times, and every 8 ticks: the nodes to begin with may be back
//! a full row             ping its oldest node; if it does not answer, the new one takes its place
//! 15 s without a tick    the machine slept: everything is old, and we are ephemeral again
//! ```
//!
//! What must stay true: a node is in the table only after it was heard of in a round trip; when nobody answers at all, that is our network's fault and no reason
//! to forget everybody (JavaScript's node forgets them), for ten minutes. Source: dht-rpc `index.js`.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::event::{Reply, RpcEvent};
use super::message::{K, PING, node_id};
use super::query::Purpose;
use super::scope::Scope;
use super::table::{Added, Node};
use super::{Owner, Persistence, RETRIES, Rpc, network};
use crate::udp::Now;

/// Time between ticks.
pub const TICK: Duration = Duration::from_secs(5);
/// A tick this late means that the machine slept.
const SLEEPING: Duration = Duration::from_secs(15);
/// Idle ticks before a walk to meet nodes.
pub const REFRESH_TICKS: u32 = 60;
/// Heard of less than a minute ago.
const RECENT_NODE: u64 = 12;
/// In the table for half an hour.
const OLD_NODE: u64 = 360;
/// Nodes that are swapped at once.
const SWAPS_MAX: usize = 3;
/// Silence that is our own fault is forgiven for ten minutes.
const FORGIVEN_TICKS: u64 = 120;
/// The longest wait of a node whose table is not full, in ticks; then it refreshes like others, if more often.
const LOOK_AROUND_MAX: u32 = 32;
/// Ticks between attempts of a node that is to be persistent and is not yet.
const FORCED_TICKS: u64 = 12;

/// When a node whose table is not full looks around: 1, 3, 7 .. 63 ticks after it began. Nodes that are started together know but the first of them.
#[derive(Debug)]
pub(super) struct LookAround {
    wait: u32,
    left: u32,
}

impl Default for LookAround {
    fn default() -> LookAround {
        LookAround { wait: 1, left: 1 }
    }
}

impl LookAround {
    /// One more tick; whether it is time.
    fn is_due(&mut self) -> bool {
        if self.wait > LOOK_AROUND_MAX {
            return false;
        }
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.wait *= 2;
        self.left = self.wait;
        true
    }
}

impl<T> Rpc<T> {
    /// A node known from before. It is not asked until its turn comes.
    pub(super) fn add_saved_node(&mut self, address: SocketAddrV4) {
        if self.is_node_allowed(address, address) {
            self.add_node(Node::new(address, None, self.tick));
        }
    }

    /// A node answered us.
    pub(super) fn heard_of(&mut self, reply: &Reply, is_usual_socket: bool) {
        if !self.is_node_allowed(reply.from, reply.from) {
            return;
        }
        match reply.from_id {
            Some(_) => self.heard_of_node(reply.from, reply.to, is_usual_socket),
            None => self.sample_bootstrap(reply.from, reply.to),
        }
    }

    /// A node with an id is where it says it is. `to` is our address as it sees us.
    pub(super) fn heard_of_node(&mut self, from: SocketAddrV4, to: SocketAddrV4, is_usual_socket: bool) {
        let (id, tick) = (node_id(from), self.tick);
        let Some(node) = self.table.get_mut(&id) else {
            let node = Node::new(from, Some(to).filter(|_| is_usual_socket), tick);
            if self.add_node(node.clone()) == Added::RowFull {
                self.handle_full_row(node);
            }
            return;
        };
        (node.pinged, node.seen, node.down_hints) = (tick, tick, 0);
        let is_sample = is_usual_socket && (node.sampled == 0 || tick - node.sampled >= OLD_NODE);
        if is_sample {
            (node.to, node.sampled) = (Some(to), tick);
        }
        self.table.touch(&id);
        if is_sample {
            self.sample(to);
        }
    }

    pub(super) fn add_node(&mut self, mut node: Node) -> Added {
        if node.id == *self.table.id() {
            return Added::Known;
        }
        (node.added, node.pinged, node.seen) = (self.tick, self.tick, self.tick);
        let sample = node.to.filter(|_| node.sampled == 0);
        if sample.is_some() {
            node.sampled = self.tick;
        }
        let added = self.table.add(node);
        if let (Added::New, Some(to)) = (added, sample) {
            self.sample(to);
        }
        added
    }

    /// Nodes without id are few; the first ones say what our address is before the table has any.
    fn sample_bootstrap(&mut self, from: SocketAddrV4, to: SocketAddrV4) {
        let max = self.options.bootstrap.len().max(1);
        if self.sampled_bootstrap.len() < max && !self.sampled_bootstrap.contains(&from) {
            self.sampled_bootstrap.push(from);
            self.sample(to);
        }
    }

    /// Somebody says that this is our address.
    fn sample(&mut self, to: SocketAddrV4) {
        if Scope::of(to).is_none() {
            return;
        }
        let before = self.public_address();
        self.sampler.add(to);
        if before != self.public_address() {
            self.events.push_back(RpcEvent::AddressChanged);
        }
    }

    /// Removes a node that was not seen since; whether it did.
    pub(super) fn remove_if_stale(&mut self, id: &[u8; 32], seen: u64) -> bool {
        self.table.get(id).is_some_and(|node| node.seen <= seen) && self.table.remove(id)
    }

    /// Removes a node that does not answer, unless nobody does: nobody was heard since it was first asked.
    pub(super) fn remove_silent(&mut self, id: &[u8; 32], asked_at: Now) {
        let is_our_fault = self.last_heard < asked_at;
        let tick = self.tick;
        if !(is_our_fault && self.table.get(id).is_some_and(|node| tick - node.seen < FORGIVEN_TICKS)) {
            self.table.remove(id);
        }
    }

    fn handle_full_row(&mut self, new: Node) {
        if !self.is_ready || self.swaps >= SWAPS_MAX {
            return;
        }
        let tick = self.tick;
        let row = self.table.row_of(&new.id).iter().filter(|node| node.pinged != tick);
        let Some(oldest) = row.min_by_key(|node| (node.pinged, node.added)) else { return };
        if tick - oldest.pinged < RECENT_NODE && tick - oldest.added > OLD_NODE {
            return;
        }
        let (id, address, seen) = (oldest.id, oldest.address, oldest.seen);
        self.set_pinged(&id);
        let owner = Owner::Swap { id, seen, new: Box::new(new) };
        self.swaps += usize::from(self.begin_internal(address, PING, None, RETRIES, owner));
    }

    /// Is a node of the table still there?
    pub(super) fn check(&mut self, id: &[u8; 32]) {
        let Some(&Node { address, seen, .. }) = self.table.get(id) else { return };
        self.set_pinged(id);
        self.checks += usize::from(self.begin_internal(address, PING, None, RETRIES, Owner::Check { id: *id, seen }));
    }

    fn set_pinged(&mut self, id: &[u8; 32]) {
        let tick = self.tick;
        if let Some(node) = self.table.get_mut(id) {
            node.pinged = tick;
        }
    }

    fn ping_some(&mut self, now: Now) {
        let oldest = self.table.oldest().next().filter(|_| self.was_bootstrap_answered);
        let Some(oldest) = oldest else {
            // Nobody was found then, or all are gone: begin anew.
            return self.begin_bootstrap(now);
        };
        let is_recent = self.tick - oldest.pinged < RECENT_NODE;
        let count = if is_recent {
            2
        } else if self.inflight.len() > 2 {
            3
        } else {
            5
        };
        let some: Vec<_> =
            self.table.oldest().filter(|node| node.pinged != self.tick).take(count).map(|node| node.id).collect();
        for id in some {
            self.check(&id);
        }
    }

    /// A walk to meet nodes.
    pub(super) fn refresh(&mut self, now: Now) {
        if self.has_walk(Purpose::Refresh) {
            return;
        }
        let target = self.table.random(&mut self.random).map_or(*self.table.id(), |node| node.id);
        self.begin_background_walk(now, target, Purpose::Refresh);
    }

    /// A walk towards ourselves, to learn who has come since.
    fn look_around(&mut self, now: Now) {
        if self.table.is_empty() || !self.was_bootstrap_answered {
            self.begin_bootstrap(now);
        } else if !self.has_walk(Purpose::Refresh) {
            self.begin_background_walk(now, *self.table.id(), Purpose::Refresh);
        }
    }

    pub(super) fn handle_tick(&mut self, now: Now) {
        if now.saturating_sub(self.last_tick) > SLEEPING {
            self.last_heard = now;
            self.wake();
        } else {
            self.tick += 1;
        }
        self.last_tick = now;
        self.tick_health();
        if !self.is_bootstrapped() {
            return;
        }
        self.tick_persistence(now);
        if self.table.len() < K && self.look_around.is_due() {
            self.look_around(now);
        }
        if self.tick & 7 == 0 {
            self.ping_some(now);
        }
        self.refresh_ticks = self.refresh_ticks.saturating_sub(1);
        if self.refresh_ticks == 0 || (self.tick & 63 == 0 && self.table.len() < K) {
            self.refresh_ticks = REFRESH_TICKS;
            self.refresh(now);
        }
        self.down_hints_sent = 0;
    }

    fn tick_persistence(&mut self, now: Now) {
        if !self.is_ephemeral {
            return;
        }
        match self.options.persistence {
            Persistence::Adaptive => {
                self.stable_ticks = self.stable_ticks.saturating_sub(1);
                if self.stable_ticks == 0 && self.checked_host == self.sampler.host() {
                    // The same network as at the last check.
                    self.stable_ticks = network::MORE_STABLE_TICKS;
                } else if self.stable_ticks == 0 {
                    self.check_network(now, network::Aim::Persistent);
                }
            }
            Persistence::Forced if self.tick.is_multiple_of(FORCED_TICKS) => {
                self.check_network(now, network::Aim::Persistent);
            }
            Persistence::Forced | Persistence::Never => {}
        }
    }

    fn tick_health(&mut self) {
        let was_online = self.health.is_online();
        self.health.tick(self.stats.responses, self.stats.timeouts);
        match (was_online, self.health.is_online()) {
            (true, false) => self.events.push_back(RpcEvent::Offline),
            (false, true) => self.events.push_back(RpcEvent::Online),
            _ => {}
        }
    }

    /// The machine slept, or we were suspended: everything is old.
    pub(super) fn wake(&mut self) {
        self.tick += 2 * OLD_NODE;
        // Pings begin in two ticks: the network may need a moment to wake up, too.
        self.tick = (self.tick | 7) - 1;
        self.stable_ticks = network::MORE_STABLE_TICKS;
        self.refresh_ticks = 1;
        self.look_around = LookAround::default();
        self.checked_host = None;
        self.health.reset();
        if self.options.persistence == Persistence::Adaptive && self.options.public_address.is_none() {
            self.become_ephemeral();
        }
        self.events.push_back(RpcEvent::Woke);
    }
}
