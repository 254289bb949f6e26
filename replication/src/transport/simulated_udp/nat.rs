//! One made-up NAT: which address outside a host inside gets, and who is let in by it.
//!
//! ```text
//! let_out   (from, what of `to` counts) -> mapping: an address outside, used until `timeout` after it was used last
//! let_in    a mapping, and a remote it was used towards, as far as filtering looks at it
//! ```
//!
//! What must stay true: two live mappings never share an address outside; nobody is let in where nothing went out; mappings that ended are forgotten before
//! there are twice as many as live ones (or 1024).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::{FREE_PORTS, Realm};
use crate::transport::simulated::Random;
use crate::udp::Now;

/// What a port outside depends on, or what a sender must be to be let in: the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependence {
    /// Not on the other side at all.
    Endpoint,
    /// On the other side's address.
    Address,
    /// On the other side's address and port.
    AddressAndPort,
}

/// Which port a mapping gets outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// The same as inside while that is free, else the next free one.
    Preserved,
    /// One after the other.
    Sequential,
    /// Any.
    Random,
}

/// How a NAT behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// What a mapping depends on.
    pub mapping: Dependence,
    /// Who is let in through it: those it was used towards.
    pub filtering: Dependence,
    /// Which port it gets.
    pub ports: Ports,
    /// How long it stays without being used from inside.
    pub timeout: Duration,
    /// Hosts inside reach each other by their outside addresses.
    pub hairpin: bool,
    /// Public addresses it has; each new mapping takes any of them.
    pub addresses: u8,
}

impl Nat {
    /// Anyone is let in where anything went out.
    pub const FULL_CONE: Nat = Nat {
        mapping: Dependence::Endpoint,
        filtering: Dependence::Endpoint,
        ports: Ports::Preserved,
        timeout: Duration::from_secs(120),
        hairpin: false,
        addresses: 1,
    };
    /// Hosts that were sent to are let in.
    pub const RESTRICTED: Nat = Nat { filtering: Dependence::Address, ..Nat::FULL_CONE };
    /// Sockets that were sent to are let in.
    pub const PORT_RESTRICTED: Nat = Nat { filtering: Dependence::AddressAndPort, ..Nat::FULL_CONE };
    /// A port of its own for each other side, any port.
    pub const SYMMETRIC: Nat =
        Nat { mapping: Dependence::AddressAndPort, ports: Ports::Random, ..Nat::PORT_RESTRICTED };
}

/// An address as far as it counts: with 0 for a port that does not, with 0.0.0.0 for an address that does not.
type Scope = SocketAddrV4;

fn scope(dependence: Dependence, remote: SocketAddrV4) -> Scope {
    match dependence {
        Dependence::Endpoint => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        Dependence::Address => SocketAddrV4::new(*remote.ip(), 0),
        Dependence::AddressAndPort => remote,
    }
}

/// A NAT as it stands.
pub(super) struct NatState {
    pub(super) nat: Nat,
    pub(super) outside: Realm,
    pub(super) inside: Realm,
    pub(super) addresses: Vec<Ipv4Addr>,
    mappings: HashMap<(SocketAddrV4, Scope), Mapping>,
    by_outside: HashMap<SocketAddrV4, (SocketAddrV4, Scope)>,
    next_port: u16,
    /// Number of mappings at which those that ended are looked for.
    sweep_at: usize,
}

struct Mapping {
    outside: SocketAddrV4,
    used_at: Now,
    /// Whom it was used towards, and when.
    remotes: HashMap<Scope, Now>,
}

impl NatState {
    /// One without mappings.
    pub(super) fn new(nat: Nat, outside: Realm, inside: Realm, addresses: Vec<Ipv4Addr>) -> NatState {
        NatState {
            nat,
            outside,
            inside,
            addresses,
            mappings: HashMap::new(),
            by_outside: HashMap::new(),
            next_port: FREE_PORTS,
            sweep_at: 1024,
        }
    }

    /// Forgets all mappings, as one that is switched off and on does.
    pub(super) fn reset(&mut self) {
        self.mappings.clear();
        self.by_outside.clear();
    }

    /// The address outside under which `from` is seen by `to`; None if no port is left.
    pub(super) fn let_out(
        &mut self,
        now: Now,
        random: &mut Random,
        from: SocketAddrV4,
        to: SocketAddrV4,
    ) -> Option<SocketAddrV4> {
        if self.mappings.len() >= self.sweep_at {
            self.sweep(now);
        }
        let key = (from, scope(self.nat.mapping, to));
        let timeout = self.nat.timeout;
        if self.mappings.get(&key).is_some_and(|mapping| now.saturating_sub(mapping.used_at) > timeout)
            && let Some(old) = self.mappings.remove(&key)
        {
            self.by_outside.remove(&old.outside);
        }
        if !self.mappings.contains_key(&key) {
            let outside = self.free_outside(now, random, from.port())?;
            self.by_outside.insert(outside, key);
            self.mappings.insert(key, Mapping { outside, used_at: now, remotes: HashMap::new() });
        }
        let mapping = self.mappings.get_mut(&key)?;
        mapping.used_at = now;
        if mapping.remotes.len() > 4096 {
            mapping.remotes.retain(|_, at| now.saturating_sub(*at) <= timeout);
        }
        mapping.remotes.insert(scope(self.nat.filtering, to), now);
        Some(mapping.outside)
    }

    /// The address inside that `from` may reach by `to`.
    pub(super) fn let_in(&mut self, now: Now, from: SocketAddrV4, to: SocketAddrV4) -> Option<SocketAddrV4> {
        let key = self.by_outside.get(&to)?;
        let mapping = self.mappings.get(key)?;
        let is_live = |at: Now| now.saturating_sub(at) <= self.nat.timeout;
        let is_let_in = is_live(mapping.used_at)
            && mapping.remotes.get(&scope(self.nat.filtering, from)).is_some_and(|&at| is_live(at));
        is_let_in.then_some(key.0)
    }

    fn free_outside(&mut self, now: Now, random: &mut Random, wanted: u16) -> Option<SocketAddrV4> {
        let ip = self.addresses[random.below(self.addresses.len() as u64) as usize];
        for turn in 0..u32::from(u16::MAX) {
            let port = match self.nat.ports {
                Ports::Preserved if turn == 0 => wanted,
                Ports::Preserved | Ports::Sequential => {
                    self.next_port = self.next_port.checked_add(1).unwrap_or(FREE_PORTS);
                    self.next_port
                }
                Ports::Random => 1024 + random.below(u64::from(u16::MAX) - 1024) as u16,
            };
            let outside = SocketAddrV4::new(ip, port);
            let ended = match self.by_outside.get(&outside) {
                None => return Some(outside),
                Some(key) => self
                    .mappings
                    .get(key)
                    .is_none_or(|mapping| now.saturating_sub(mapping.used_at) > self.nat.timeout)
                    .then_some(*key),
            };
            if let Some(key) = ended {
                self.mappings.remove(&key);
                self.by_outside.remove(&outside);
                return Some(outside);
            }
        }
        None
    }

    fn sweep(&mut self, now: Now) {
        let timeout = self.nat.timeout;
        let by_outside = &mut self.by_outside;
        self.mappings.retain(|_, mapping| {
            let is_live = now.saturating_sub(mapping.used_at) <= timeout;
            if !is_live {
                by_outside.remove(&mapping.outside);
            }
            is_live
        });
        self.sweep_at = (self.mappings.len() * 2).max(1024);
    }
}
