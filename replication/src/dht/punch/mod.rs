//! Hole punching: two peers behind NATs send to each other at the same time, so that each NAT takes the other's packets for answers.
//!
//! ```text
//! nat        which kind of NAT a socket is behind
//! payload    what the two tell each other about it, sealed, by way of DHT nodes
//! sockets    fresh sockets for each attempt, up to 256 of them
//! puncher    one attempt: when to send a one-byte packet from which socket to where
//! ```
//!
//! | we, they | what happens |
//! | --- | --- |
//! | consistent, consistent | both send to the other's address each second |
//! | consistent, random | we send to random ports of their one host, every 20 ms |
//! | random, consistent | we send from 256 sockets to their one address: some port of ours will be guessed soon (the birthday paradox) |
//! | random, random | hopeless: refused, a relay is needed |
//!
//! Everything a node's attempts share is in [`Punching`], a part of the `Dht`. Each attempt is a [`Puncher`], owned by the client's connect or the server's
//! handshake that wants it and called with a [`Context`]; it sends its one-byte packets itself, through `Punching`, and asks for the rest by [`Effect`]s.
//!
//! What must stay true: one random punch at a time, and 20 seconds between two, for they are loud; none at a host that did not prove itself; every socket
//! that an attempt opened and no stream uses is closed when it ends. Sources: `lib/holepuncher.js`, `lib/nat.js`, `lib/socket-pool.js` of hyperdht.

pub mod nat;
pub mod payload;
pub mod puncher;
pub mod sockets;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

pub use nat::{Firewall, Nat};
pub use payload::{Payload, Sealer};
pub use puncher::{Effect, Puncher, RemoteState, Step};
pub use sockets::SocketPool;

use crate::udp::{Now, Random, SocketChange, SocketId, Transmit};

/// Random punches at a time.
const RANDOM_PUNCHES_MAX: usize = 1;
/// From the end of one random punch to the next.
const RANDOM_PUNCH_INTERVAL: Duration = Duration::from_secs(20);
/// One-byte packets that wait to be sent; more are dropped, as the network may.
const TRANSMITS_MAX: usize = 4096;

/// One attempt among those of this node; its number is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PuncherId(pub u64);

/// What was tried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PunchStats {
    /// Both sides with a known address.
    pub consistent: u64,
    /// One of the sides with random ports.
    pub random: u64,
    /// Punches that led to a one-byte packet from the other side; only the connecting side learns of it.
    pub heard: u64,
    /// Given up.
    pub aborted: u64,
}

/// What all attempts of a node share.
pub struct Punching {
    /// Their sockets. Streams have to be told to it, see [`SocketPool::stream_opened`].
    pub sockets: SocketPool,
    /// What was tried.
    pub stats: PunchStats,
    random: Random,
    transmits: VecDeque<Transmit>,
    next_puncher: u64,
    random_punches: usize,
    random_punch_ended: Option<Now>,
}

impl Punching {
    /// Nothing is tried yet.
    pub fn new(random: Random) -> Punching {
        Punching {
            sockets: SocketPool::default(),
            stats: PunchStats::default(),
            random,
            transmits: VecDeque::new(),
            next_puncher: 0,
            random_punches: 0,
            random_punch_ended: None,
        }
    }

    /// Whether a random punch may begin now; if not, the other side is told to try later.
    pub fn is_random_punch_allowed(&self, now: Now) -> bool {
        let is_rested = self.random_punch_ended.is_none_or(|ended| now >= ended + RANDOM_PUNCH_INTERVAL);
        self.random_punches < RANDOM_PUNCHES_MAX && is_rested
    }

    /// A random punch is agreed upon, and begins when the other side's answer is here: none other may begin meanwhile.
    pub fn reserve_random_punch(&mut self) {
        self.random_punches += 1;
    }

    /// The answer is here, or will not come. Call before [`Puncher::punch`], which counts itself.
    pub fn unreserve_random_punch(&mut self) {
        self.random_punches = self.random_punches.saturating_sub(1);
    }

    /// Whose a one-byte packet is that came in on this socket.
    pub fn puncher_of(&self, socket: SocketId) -> Option<PuncherId> {
        self.sockets.holder(socket)
    }

    /// Sockets to open and close. Carry these out before sending what [`poll_transmit`](Self::poll_transmit) gives: that is held back until then.
    pub fn poll_socket_change(&mut self) -> Option<SocketChange> {
        self.sockets.poll_change()
    }

    /// One-byte packets to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.sockets.has_changes() { None } else { self.transmits.pop_front() }
    }

    fn next_id(&mut self) -> PuncherId {
        self.next_puncher += 1;
        PuncherId(self.next_puncher)
    }

    fn send(&mut self, transmit: Transmit) {
        if self.transmits.len() < TRANSMITS_MAX {
            self.transmits.push_back(transmit);
        }
    }

    fn random_punch_began(&mut self) {
        self.random_punches += 1;
    }

    fn random_punch_ended(&mut self, now: Now) {
        self.random_punches = self.random_punches.saturating_sub(1);
        self.random_punch_ended = Some(now);
    }
}

/// What a puncher is called with.
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// What all attempts of the node share.
    pub shared: &'a mut Punching,
    /// Nodes heard of, the latest first: some are asked what our address is. A few dozen are enough.
    pub nodes: &'a [SocketAddrV4],
    /// Whether the node is not known to be reachable as it is (`Rpc::is_firewalled`).
    pub is_firewalled: bool,
    /// What the puncher wants done.
    pub effects: &'a mut Vec<Effect>,
}
