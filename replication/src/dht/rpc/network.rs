//! What our own address is, whether others can reach it, and so whether to be persistent; and the first walk, during which that is found out.
//!
//! ```text
//! walk towards the own id -> can we be reached? (quick look, or forced) -> yes: walk again, from there on with our id -> Ready
//! about 20 minutes later, or when woken an hour later: can we be reached? -> yes: Persistent
//! ```
//!
//! Whether we can be reached: up to five nodes are asked, from the client socket, to answer to the port of the server socket. If at least three of five (one, of
//! fewer) do, and all see one host, that of the client socket, the server socket is not behind a firewall or a NAT that changes ports.
//!
//! What must stay true: an answer counts only if it came in on the server socket. Source: dht-rpc `index.js` (`_bootstrap`, `_updateNetworkState`,
//! `_checkIfFirewalled`).

use std::net::SocketAddrV4;

use super::event::{Reply, RpcEvent};
use super::message::{PING_NAT, node_id};
use super::query::Purpose;
use super::sampler::Sampler;
use super::{Owner, Persistence, RETRIES, Rpc};
use crate::udp::{Now, SocketId};

/// 20 minutes.
pub const STABLE_TICKS: u32 = 240;
/// An hour.
pub const MORE_STABLE_TICKS: u32 = 3 * STABLE_TICKS;
/// Nodes that are asked to answer to the server socket.
const PROBES: usize = 5;

/// How far the first walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// The first or the second walk; whether somebody reached the server socket meanwhile.
    Walking { is_second: bool, is_probed: bool, is_reached: bool },
    /// It is being found out whether we can be reached.
    Checking { is_second: bool },
    /// Over.
    Done,
}

/// What a check of our network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Only to know whether we are behind a firewall.
    Firewall,
    /// To become persistent.
    Persistent,
}

/// A check under way.
pub struct FirewallCheck {
    aim: Aim,
    address: SocketAddrV4,
    asked: usize,
    missing: usize,
    reached: usize,
    sampler: Sampler,
}

impl<T> Rpc<T> {
    /// Whoever knows its address is persistent from the beginning.
    pub(super) fn use_known_address(&mut self, now: Now) {
        let Some(address) = self.options.public_address else { return };
        self.sampler.add(address);
        if self.options.persistence != Persistence::Never {
            self.settle(now, Aim::Persistent, address, None);
        }
    }

    pub(super) fn is_bootstrapped(&self) -> bool {
        self.bootstrap == Bootstrap::Done
    }

    pub(super) fn begin_bootstrap(&mut self, now: Now) {
        if self.has_walk(Purpose::Bootstrap) || matches!(self.bootstrap, Bootstrap::Checking { .. }) {
            return;
        }
        self.walk_to_self(now, false);
    }

    fn walk_to_self(&mut self, now: Now, is_second: bool) {
        self.bootstrap = Bootstrap::Walking { is_second, is_probed: false, is_reached: false };
        self.begin_background_walk(now, *self.table.id(), Purpose::Bootstrap);
    }

    /// A node answered the first walk: let it try whether it reaches the server socket, and if so, check that in earnest.
    pub(super) fn bootstrap_answered(&mut self, reply: &Reply) {
        let is_wanted =
            self.is_firewalled && self.options.quick_firewall && self.options.persistence != Persistence::Forced;
        let Bootstrap::Walking { is_second: false, is_probed: is_probed @ false, .. } = &mut self.bootstrap else {
            return;
        };
        *is_probed = true;
        self.was_bootstrap_answered = true;
        if is_wanted {
            self.probe(reply.from, Owner::QuickFirewall);
        }
    }

    pub(super) fn quick_firewall_answered(&mut self, now: Now) {
        match &mut self.bootstrap {
            Bootstrap::Walking { is_reached, .. } => *is_reached = true,
            Bootstrap::Checking { .. } => {}
            // The walk was over sooner, as in a small network.
            Bootstrap::Done => self.check_network(now, Aim::Firewall),
        }
    }

    /// The walk towards ourselves is over.
    pub(super) fn bootstrap_walked(&mut self, now: Now) {
        let Bootstrap::Walking { is_second, is_reached, .. } = self.bootstrap else { return };
        let is_forced = self.options.persistence == Persistence::Forced;
        if !is_forced && !is_reached {
            return self.bootstrapped();
        }
        self.bootstrap = Bootstrap::Checking { is_second };
        self.check_network(now, if is_forced { Aim::Persistent } else { Aim::Firewall });
    }

    fn bootstrapped(&mut self) {
        self.bootstrap = Bootstrap::Done;
        if !std::mem::replace(&mut self.is_ready, true) {
            self.events.push_back(RpcEvent::Ready);
        }
    }

    /// Finds out whether the server socket can be reached, and if so, takes the address there for ours.
    pub(super) fn check_network(&mut self, now: Now, aim: Aim) {
        if self.firewall_check.is_some() {
            return;
        }
        if !self.is_ephemeral || (aim == Aim::Firewall && !self.is_firewalled) {
            return self.network_checked(now, false);
        }
        if aim == Aim::Persistent {
            self.stable_ticks = MORE_STABLE_TICKS;
            self.checked_host = self.sampler.host();
        }
        match self.sampler.address() {
            None => self.network_checked(now, false),
            Some(address) if self.is_firewalled => self.begin_firewall_check(now, aim, address),
            Some(address) => {
                self.settle(now, aim, address, None);
                self.network_checked(now, true);
            }
        }
    }

    fn begin_firewall_check(&mut self, now: Now, aim: Aim, address: SocketAddrV4) {
        let mut nodes: Vec<SocketAddrV4> = self.table.latest().take(PROBES).map(|node| node.address).collect();
        if nodes.len() < PROBES {
            for node in self.bootstrap_nodes() {
                if !nodes.contains(&node) {
                    nodes.push(node);
                }
            }
        }
        let asked = nodes.into_iter().filter(|&node| self.probe(node, Owner::Firewall)).count();
        if asked == 0 {
            return self.network_checked(now, false);
        }
        self.firewall_check =
            Some(FirewallCheck { aim, address, asked, missing: asked, reached: 0, sampler: Sampler::default() });
    }

    /// Asks a node to answer to the server socket.
    fn probe(&mut self, to: SocketAddrV4, owner: Owner<T>) -> bool {
        self.begin_internal(to, PING_NAT, Some(self.options.server_port.to_le_bytes().to_vec()), RETRIES, owner)
    }

    /// A node answered to the server socket, or did not.
    pub(super) fn firewall_answered(&mut self, now: Now, reply: Option<&Reply>) {
        let Some(check) = &mut self.firewall_check else { return };
        check.missing -= 1;
        if let Some(reply) = reply.filter(|reply| reply.socket == SocketId::SERVER) {
            check.reached += 1;
            check.sampler.add(reply.to);
        }
        if check.missing > 0 {
            return;
        }
        let Some(check) = self.firewall_check.take() else { return };
        let is_settled = self.is_reached(&check);
        if is_settled {
            self.settle(now, check.aim, check.address, Some(check.sampler));
        }
        self.network_checked(now, is_settled);
    }

    fn is_reached(&self, check: &FirewallCheck) -> bool {
        let enough = if check.asked >= PROBES { 3 } else { 1 };
        check.reached >= enough
            && self.is_ephemeral
            && check.sampler.host() == Some(*check.address.ip())
            && check.sampler.port() == Some(self.options.server_port)
            // Our address must not have changed meanwhile.
            && self.sampler.address() == Some(check.address)
    }

    /// We can be reached: requests leave from the server socket from here on, and as a persistent node with our id.
    fn settle(&mut self, now: Now, aim: Aim, address: SocketAddrV4, sampler: Option<Sampler>) {
        let before = self.public_address();
        self.is_firewalled = false;
        if let Some(sampler) = sampler {
            self.sampler = sampler;
            self.sampled_bootstrap.clear();
        }
        let address = self.sampler.address().unwrap_or(address);
        let id = node_id(address);
        if *self.table.id() != id {
            self.table = self.table.rebuilt(id);
            if self.is_bootstrapped() && self.is_ready {
                self.refresh(now);
            }
        }
        if aim == Aim::Persistent {
            self.is_ephemeral = false;
            self.events.push_back(RpcEvent::Persistent);
        }
        if before != self.public_address() {
            self.events.push_back(RpcEvent::AddressChanged);
        }
    }

    fn network_checked(&mut self, now: Now, is_settled: bool) {
        let Bootstrap::Checking { is_second } = self.bootstrap else { return };
        if is_settled && !is_second { self.walk_to_self(now, true) } else { self.bootstrapped() }
    }

    pub(super) fn become_ephemeral(&mut self) {
        if !std::mem::replace(&mut self.is_ephemeral, true) {
            self.events.push_back(RpcEvent::Ephemeral);
        }
    }

    /// Addresses of this machine have changed: what others said of our address is old, and whether they can reach us is open again. Known nodes are asked anew.
    pub fn network_changed(&mut self, now: Now) {
        if self.options.public_address.is_none() {
            self.sampler = Sampler::default();
            self.sampled_bootstrap.clear();
            self.table.forget_samples();
            self.is_firewalled = self.options.firewalled;
            self.firewall_check = None;
            self.become_ephemeral();
            self.events.push_back(RpcEvent::AddressChanged);
        }
        self.last_heard = now;
        self.wake();
        self.stable_ticks = STABLE_TICKS;
        if self.is_suspended {
            return;
        }
        // A check under way was given up above; the walk that waited for it begins again.
        if matches!(self.bootstrap, Bootstrap::Checking { .. }) {
            self.bootstrap = Bootstrap::Done;
        }
        self.begin_bootstrap(now);
    }
}
